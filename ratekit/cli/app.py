"""The commands of `ratekit`, registered in one place: each with its group and two examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ratekit.cli import analyse, cache, merge, pipeline
from ratekit.cli import options as given
from ratekit.cli.discover import discover
from ratekit.cli.gate import gate
from ratekit.cli.help import WIDTH, Command, Group
from ratekit.cli.llm import AskingCommand
from ratekit.cli.notebooks import notebooks
from ratekit.cli.reproduce import reproduce
from ratekit.cli.tables import Format

app = typer.Typer(
    name="ratekit",
    cls=Group,
    context_settings={"max_content_width": WIDTH},
    help="What does this reward model really reward? Causal attribute effects by rewriting twice (RATE).",
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from ratekit import __version__

        print(f"ratekit {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the model, the audit and its report.", **given.FOLDER)] = Path(
        "demo"
    ),
    full: given.Full = False,
    format: given.TableFormat = Format.table,
) -> None:
    """An audit of the bundled reviews, offline.

    A small reward model is trained on the spot, with a planted reward for length, and audited beside VADER.
    """
    from ratekit.demo import PLANTED, run_demo

    found = run_demo(out)
    written = [out / name for name in ("demo-rm", "dataset", "effects.csv", "effects.png", "report.html")]
    pipeline.show_audit(found, format, full, written, [PLANTED])


BEGIN, STAGES, LOOK, MODELS = "Begin here", "One stage at a time", "Look closer", "Models and replies"


def _add(function: Any, panel: str, *examples: str, name: str = "", cls: Any = Command, hidden: bool = False) -> None:
    called = name or function.__name__.replace("_", "-")
    text = "\n".join(f"ratekit {called} {example}".rstrip() for example in examples)
    app.command(called, cls=cls, rich_help_panel=panel, epilog=text, hidden=hidden)(function)


_AUDIT = (
    "--data reviews -a length -a sentiment -r vader",
    "--data mine.csv -a mine.py:polite -r ./my-rm --rewriter openai:gpt-4o-mini",
)
_add(demo, BEGIN, "", "--out demo --full")
_add(notebooks, BEGIN, "", "course")
_add(pipeline.audit, BEGIN, *_AUDIT, cls=AskingCommand)
_add(pipeline.audit, BEGIN, *_AUDIT, name="run", cls=AskingCommand, hidden=True)
_add(
    pipeline.card, BEGIN, "--data reviews -r vader -r words",
    "--data mine.csv -r judge:openai:gpt-4o-mini --rewriter openai:gpt-4o --n 100 --dry-run", cls=AskingCommand,
)  # fmt: skip
_add(
    gate,
    BEGIN,
    "runs/mine --max length=0.1 --max flattery=0.1",
    "runs/new --max length=0.1 --against runs/old --junit gate.xml",
)
_add(
    discover, BEGIN, "responses.jsonl -r ./my-rm --out found",
    "responses.jsonl -r ./my-rm --proposer openai:gpt-4o --rewriter openai:gpt-4o-mini --max-rewrites 20000",
    cls=AskingCommand,
)  # fmt: skip
_add(analyse.report, BEGIN, "runs/reviews-length", "scored.parquet --out page.html")
_add(
    reproduce, BEGIN, "--list",
    "imdb-length --n 200 --rewriter rules -r vader --data-files imdb.jsonl", cls=AskingCommand,
)  # fmt: skip

_add(
    pipeline.rewrite, STAGES, "reviews -a length --out a", "mine.jsonl -a length --rewriter openai:m --out a --dry-run",
    cls=AskingCommand,
)  # fmt: skip
_add(pipeline.score, STAGES, "a -r vader --out b", "a -r ./my-rm -r owner/model --out b")
_add(pipeline.estimate, STAGES, "b", "scored.csv --by source --format csv")

_add(pipeline.leaderboard, LOOK, "card-a card-b", "card-a card-b --out board.html")
_add(analyse.verify, LOOK, "runs/reviews-length", "card -r ./my-rm")
_add(analyse.diagnose, LOOK, "b", "b --format json")
_add(analyse.contrast, LOOK, "b vader words", "b rm-a rm-b --estimator rate --unit reward")
_add(analyse.sensitivity, LOOK, "b", "b --format csv")
_add(analyse.heterogeneity, LOOK, "b --by source", "b --by source --by language")
_add(analyse.spillover, LOOK, "b", "b --format csv")
_add(analyse.dose_response, LOOK, "b", "b --bins 3")
_add(analyse.warranted, LOOK, "b", "b --human preferred")
_add(analyse.plan, LOOK, "b --se 0.05", "b --apart rm-a rm-b --power 0.9")
_add(analyse.sequential, LOOK, "b", "b --estimand att")

_add(analyse.attributes, MODELS, "", "--format json")
_add(analyse.check_reward, MODELS, "./my-rm", "owner/model --reference card.json")
_add(analyse.calibrate, MODELS, "vader", "./my-rm --n 100 --seed 1")
app.add_typer(cache.app, name="cache", rich_help_panel=MODELS)
app.add_typer(merge.app, name="merge", rich_help_panel=MODELS)
