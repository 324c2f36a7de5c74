"""`ratekit reproduce NAME`: an experiment of the paper by name, held against what was published."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratekit.cli import options as given
from ratekit.cli import pipeline
from ratekit.cli.tables import Format, show

if TYPE_CHECKING:
    import pandas as pd

    from ratekit.cli.llm import Asked
    from ratekit.reproduce.pipeline import Finished
    from ratekit.rewriting.cost import Prices


def reproduce(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="An experiment of --list.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the experiments, with their places in the paper.")
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, metavar="N", help="A random sample of N rows, whole prompts. [default: the paper's]"
        ),
    ] = None,
    rewriter: Annotated[
        str | None,
        typer.Option(
            "--rewriter",
            metavar="REWRITER",
            help="rules, openai:MODEL, batch:MODEL or hf:MODEL; simulated for a sweep of known truth. "
            "[default: the paper's, batch:gpt-4o-2024-08-06]",
        ),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", "-r", metavar="REWARD", help="As in `audit` (repeatable). [default: the paper's]"),
    ] = None,
    data_files: given.DataFiles = None,
    labeller: Annotated[
        str | None, typer.Option(metavar="NAME", help="Classifier that labels: vader, a folder or a hub id.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=1, metavar="N", help="Rewrites in a chain. [default: 2; simulated: 3]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of everything that is drawn. [default: 0]")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="Go on from a run's folder, a dataset or a hub id."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Print ours beside what was published.")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the run to the hub as this dataset.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Push for everyone to see; else it is private.")] = False,
    cache: given.Cache = None,
    trust_remote_code: given.Trust = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/NAME]", **given.FOLDER)] = None,
    full: given.Full = False,
    format: given.TableFormat = Format.table,
) -> None:
    """An experiment of the paper, by name.

    The same call again goes on where it was cut off. The paper's rewriter costs money: --dry-run says how much, and it
    is asked only with a --budget.
    """
    from ratekit.errors import InputError
    from ratekit.reproduce.pipeline import planned, run

    asked: Asked = ctx.obj
    if list_:
        show(listed(full=format is not Format.table), format)
        return
    if name is None:
        raise InputError("which experiment? Write ratekit reproduce NAME, with a name of ratekit reproduce --list")
    if push is not None and ("/" not in push or push.startswith((".", "/"))):
        raise InputError(f"--push {push}: a dataset of the hub is written owner/name")
    prices = asked.prices or known_prices(name, rewriter)
    if asked.cost.dry_run:
        print(
            planned(
                name, out, n=n, rewriter=rewriter, labeller=labeller, depth=depth, seed=seed,
                data_files=[str(f) for f in data_files or []] or None, cache=cache, options=asked.options,
                prices=prices,
            )
        )  # fmt: skip
        return
    if rewriter is None and asked.options.base_url is None and asked.cost.budget is None and start is None:
        refuse_to_pay_unasked(name)
    finished = run(
        name, out, start=start, n=n, rewriter=rewriter, rewards=reward or (),
        data_files=data_files or (), labeller=labeller, depth=depth, seed=seed, cache=cache, options=asked.options,
        meter=asked.meter(prices), trust_remote_code=trust_remote_code,
    )  # fmt: skip
    _report(finished, compare, full, format)
    if push is not None:
        from ratekit.reproduce.share import push as upload

        print(upload(finished.folder, push, private=not public), file=sys.stderr)


def listed(full: bool = False) -> pd.DataFrame:
    """The named experiments; `full` with everything that is said of them."""
    import pandas as pd

    from ratekit.reproduce.experiment import experiments

    rows = []
    for e in experiments().values():
        row = {"name": e.name, "source": e.source, "n": e.n, "about": e.about}
        if full:
            attribute = e.attribute
            row |= {
                "attribute": attribute.name if attribute else None, "rewriter": e.rewriter,
                "treated": attribute.treated if attribute else None,
                "untreated": attribute.untreated if attribute else None,
                "rewards": " ".join(e.rewards), "place": e.place, "can_say": e.can_say,
            }  # fmt: skip
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(n=[str(int(v)) if v == v and v else "all" for v in table["n"]])


def known_prices(name: str, rewriter: str | None) -> Prices | None:
    """The list prices of the rewriter, where experiments/registry.py has them."""
    from ratekit.reproduce.experiment import get_experiment, list_prices

    return list_prices(rewriter or get_experiment(name).rewriter)


def refuse_to_pay_unasked(name: str) -> None:
    """Raise InputError where the experiment's own rewriter costs money, which nobody has spoken of."""
    from ratekit.errors import InputError
    from ratekit.reproduce.experiment import get_experiment

    spec = get_experiment(name).rewriter or ""
    if spec.partition(":")[0] in ("openai", "batch"):
        raise InputError(
            f"{name} as in the paper is rewritten by {spec}, which costs money (--dry-run says how much); go on with "
            "--budget MONEY, or choose another --rewriter"
        )


def _report(finished: Finished, compare: bool, full: bool, format: Format) -> None:
    """The audit's screen, the table, or ours beside theirs; then what was written."""
    from ratekit.files import replace_text
    from ratekit.reproduce.verdicts import compare as held_against
    from ratekit.reproduce.verdicts import verdicts_line
    from ratekit.tables import as_csv

    stream = sys.stdout if format is Format.table else sys.stderr
    table, written = finished.table, list(finished.written)
    if compare:
        beside = held_against(finished.experiment, finished.settings, table)
        written.append(replace_text(finished.folder / "compare.csv", as_csv(beside)))
        show(beside, format)
        print("\n" + verdicts_line(beside), file=stream)
    elif format is Format.table and not full and "step" not in table:
        print(finished.audit)
    else:
        show(_shown(table) if format is Format.table and not full else table, format)
    if finished.experiment.can_say:
        print("\n" + finished.experiment.can_say, file=stream)
    pipeline.say_paths(written, stream)


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: of a sweep the ATEs side by side at each step, else the compact table."""
    if "step" not in table:
        return pipeline.compact(table)
    ate = table[table["estimand"] == "ate"]
    wide = ate.pivot_table(index=["reward_model", "step"], columns="estimator", values="estimate", sort=False)
    truth = ate.groupby(["reward_model", "step"])["truth"].first()
    return wide.assign(truth=truth, n=ate.groupby(["reward_model", "step"])["n"].max()).reset_index()
