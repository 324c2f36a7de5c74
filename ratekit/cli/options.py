"""The options that several commands have: one name and one meaning each, in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ratekit.cli.tables import Format
from ratekit.files import check_place
from ratekit.userfiles import is_object_spec, load_object

DATA = "DATA"


def _to_write(place: Path | None) -> Path | None:
    if place is not None:
        check_place(place)
    return place


def _to_keep(place: Path | None) -> Path | None:
    return place if place is not None and place.is_dir() else _to_write(place)  # one that is there may be read alone


# Of an option that is written to: it is looked at before any work.
PLACE: dict[str, Any] = {"callback": _to_write, "metavar": "PATH"}
FOLDER: dict[str, Any] = {**PLACE, "file_okay": False, "metavar": "FOLDER"}
FILE: dict[str, Any] = {**PLACE, "dir_okay": False, "metavar": "FILE"}
_NAME: dict[str, Any] = {"metavar": "NAME"}
_N: dict[str, Any] = {"metavar": "N"}
_HELD = "A file, a folder, a hub id, or one of reviews, imdb, helpsteer, eli5, hh-rlhf."
KEPT: dict[str, Any] = {"callback": _to_keep, "file_okay": False, "metavar": "FOLDER"}
Rows = Annotated[
    Path, typer.Argument(metavar=DATA, help="Rows: an audit's folder, a saved dataset, Parquet, CSV or JSON Lines.")
]
Source = Annotated[str, typer.Argument(metavar=DATA, help=_HELD)]
SourceOption = Annotated[str, typer.Option("--data", metavar=DATA, help=_HELD)]
DataFiles = Annotated[
    list[Path] | None,
    typer.Option("--data-files", metavar="FILE", help="Read this file as the source, not the hub (repeatable)."),
]
Split = Annotated[
    str | None, typer.Option("--split", help="Split of a hub dataset or a DatasetDict. [default: train]", **_NAME)
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OURS=THEIRS", help="Rename a column: response=answer (repeatable)."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Column that says who is treated. [default: the attribute decides]", **_NAME),
]
Positive = Annotated[
    list[str] | None,
    typer.Option("--positive", metavar="VALUE", help="A value of --label-column that means treated (repeatable)."),
]
Duplicates = Annotated[
    str | None,
    typer.Option(
        "--duplicates", metavar="HOW",
        help="Repeated responses: error, drop or keep. [default: error; of public sources: drop]",
    ),
]  # fmt: skip
Turn = Annotated[
    int | None,
    typer.Option("--turn", help="Assistant's turn that is rewritten; 0 is the first. [default: the last]", **_N),
]
AttributeName = Annotated[
    str, typer.Option("--attribute", "-a", help="One of `ratekit attributes`, or FILE.py:NAME.", **_NAME)
]
AttributeNames = Annotated[
    list[str] | None,
    typer.Option("--attribute", "-a", help="One of `ratekit attributes`, or FILE.py:NAME (repeatable).", **_NAME),
]
REWRITERS = "rules, replay, replay:PATH, openai:MODEL, batch:MODEL, hf:MODEL or FILE.py:NAME"
_CARRIED = "[default: replay if the data carry rewrites, else rules]"
RewriterSpec = Annotated[str | None, typer.Option("--rewriter", metavar="REWRITER", help=f"{REWRITERS}. {_CARRIED}")]
RewriterSpecs = Annotated[
    list[str] | None,
    typer.Option(
        "--rewriter", metavar="REWRITER", help=f"{REWRITERS}. Of several, each rewrites every row. {_CARRIED}"
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        "--depth", min=1, help="Rewrites in a chain: 2 is RATE, 3 adds the drift test. [default: 2; replayed: all]",
        **_N,
    ),
]  # fmt: skip
RewardNames = Annotated[
    list[str],
    typer.Option(
        "--reward",
        "-r",
        metavar="REWARD",
        help="vader, words, a model folder, a hub id, judge:MODEL, judge:openai:MODEL, pairwise:MODEL,FILE, "
        "dpo:POLICY,REFERENCE, served:URL or FILE.py:NAME (repeatable).",
    ),
]
SomeRewards = Annotated[
    list[str] | None,
    typer.Option("--reward", "-r", help="Only this reward model (repeatable). [default: all]", **_NAME),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Where paid replies are kept. [default: OUT/rewrites]", **KEPT)
]
Adapter = Annotated[
    str | None,
    typer.Option("--adapter", help="How a model is read: chat, pair, ... [default: known or guessed]", **_NAME),
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")]
N = Annotated[
    int | None,
    typer.Option("--n", min=1, help="A random sample of N rows, whole prompts. [default: all]", **_N),
]
TwoPhase = Annotated[
    int | None,
    typer.Option("--two-phase", min=1, help="Rewrite N of the rows; use the originals of all. [default: all]", **_N),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn.", **_N)]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="COLUMN", help="Estimate in each group of this column (repeatable)."),
]
Estimator = Annotated[str, typer.Option("--estimator", help="naive, single_rewrite, rate, rate_late, ...", **_NAME)]
Estimand = Annotated[str, typer.Option("--estimand", help="ate, att or atu.", **_NAME)]
Unit = Annotated[str, typer.Option("--unit", help="sd (each in its own reward's SDs) or reward.", **_NAME)]
Full = Annotated[bool, typer.Option("--full", help="Print the whole effects table, not the summary.")]
TableFormat = Annotated[Format, typer.Option("--format", metavar="FORMAT", help="table, csv, json or markdown.")]


def own(spec: Any) -> Any:
    """What FILE.py:NAME names; anything else is given back as it is.

    Examples
    --------
    >>> own("length")
    'length'
    """
    return load_object(spec) if is_object_spec(spec) else spec
