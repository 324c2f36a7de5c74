"""Commands that look at scored data, and at what ratekit knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli.tables import Format, show
from ratekit.escaping import visible


def diagnose(
    file: Annotated[Path, typer.Argument(help="Scored data: a saved dataset, Parquet, CSV or JSON Lines.")],
    format: Annotated[Format, typer.Option(help="How the table is printed.")] = Format.table,
) -> None:
    """Check what RATE assumes: did the rewrites comply, does the rewriter drift, what failed?"""
    from ratekit.diagnostics import diagnose as checks
    from ratekit.sources import as_dataset

    table = checks(as_dataset(file))
    if format is not Format.table:
        show(table, format)
        return
    verdicts = table[table["check"] == "verdict"]
    shown = table[(table["check"] != "verdict")].drop(columns=["about", "words", "p_value"])
    show(shown, format)
    for row in verdicts.itertuples():
        print("\n" + visible(f"{row.attribute}: {row.group}; {row.words}"))


def contrast(
    file: Annotated[Path, typer.Argument(help="Scored data with both reward models.")],
    first: Annotated[str, typer.Argument(help="A reward model in the data.")],
    second: Annotated[str, typer.Argument(help="The one it is held against.")],
    estimator: Annotated[str, typer.Option(help="Which estimator.")] = "rate",
    unit: Annotated[str, typer.Option(help="sd (each in its own reward's SDs) or reward.")] = "sd",
    format: Annotated[Format, typer.Option(help="How the table is printed.")] = Format.table,
) -> None:
    """The effect under one reward model minus that under another, paired on their shared rewrites."""
    from ratekit.diagnostics import contrast as differ
    from ratekit.sources import as_dataset

    show(differ(as_dataset(file), first, second, estimator=estimator, unit=unit), format)


def attributes(
    format: Annotated[Format, typer.Option(help="How the table is printed.")] = Format.table,
) -> None:
    """The attributes that ratekit knows, with their two phrases."""
    import pandas as pd

    from ratekit.attributes import ATTRIBUTES

    rows = [{"attribute": a.name, "treated": a.treated, "untreated": a.untreated} for a in ATTRIBUTES.values()]
    show(pd.DataFrame(rows), format)
