"""The command that tells somebody else what a run found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of the demo, or a file of scored rows.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, or folder for report.html. [default: in the run's folder]")
    ] = None,
) -> None:
    """One HTML page with verdicts in words, figures, checks, examples and provenance; it needs no network to read."""
    from ratekit.reports import report as write

    print(f"written: {write(run, out)}")
