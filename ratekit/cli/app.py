"""The commands of `ratekit`, registered in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli import cache, inference, inspect, mechanisms, merge, pipeline
from ratekit.cli.check_reward import check_reward
from ratekit.cli.report import report
from ratekit.cli.reproduce import reproduce
from ratekit.cli.tables import Format

app = typer.Typer(
    name="ratekit",
    help="What does this reward model really reward? Causal attribute effects by rewriting twice (RATE).",
    add_completion=False,
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


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the model, the dataset, the table, the picture and the report.")
    ] = Path("demo"),
    format: Annotated[Format, typer.Option(help="How the table is printed.")] = Format.table,
) -> None:
    """From text to effects in under a minute, without a network: the bundled reviews under three reward models."""
    from ratekit.conclusions import conclusions
    from ratekit.demo import PLANTED, run_demo

    table = run_demo(out)
    written = [out / name for name in ("demo-rm", "dataset", "effects.csv", "effects.png", "report.html")]
    pipeline.report(table, format, [PLANTED, *conclusions(table), pipeline.TRUST], written)


app.command()(pipeline.run)
app.command()(pipeline.rewrite)
app.command()(pipeline.score)
app.command()(pipeline.estimate)
app.command()(reproduce)
app.command()(inspect.diagnose)
app.command()(inspect.contrast)
app.command()(inspect.attributes)
app.command()(report)
app.command("check-reward")(check_reward)
app.command()(inference.plan)
app.command()(inference.sensitivity)
app.command()(inference.calibrate)
app.command()(mechanisms.spillover)
app.command("dose-response")(mechanisms.dose_response)
app.command()(mechanisms.heterogeneity)
app.command()(mechanisms.warranted)
app.command()(mechanisms.sequential)
app.add_typer(cache.app, name="cache")
app.add_typer(merge.app, name="merge")
