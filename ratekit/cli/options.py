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
PLACE: dict[str, Any] = {"callback": _to_write}
FOLDER: dict[str, Any] = {**PLACE, "file_okay": False}
FILE: dict[str, Any] = {**PLACE, "dir_okay": False}
Rows = Annotated[
    Path, typer.Argument(metavar=DATA, help="Rows: an audit's folder, a saved dataset, Parquet, CSV or JSON Lines.")
]
Source = Annotated[
    str, typer.Argument(metavar=DATA, help="A file, a folder, a hub id, reviews, imdb, hh-rlhf, helpsteer or eli5.")
]
SourceOption = Annotated[
    str, typer.Option("--data", help="A file, a folder, a hub id, reviews, imdb, hh-rlhf, helpsteer or eli5.")
]
DataFiles = Annotated[
    list[Path] | None,
    typer.Option("--data-files", help="A file in the source's schema, instead of the hub (may be repeated)."),
]
Split = Annotated[str | None, typer.Option("--split", help="Of a hub dataset or a DatasetDict. [default: train]")]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="A column by another name: response=answer (may be repeated)."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", help="Label by this column, not by the attribute's own label or measure."),
]
Positive = Annotated[
    list[str] | None,
    typer.Option("--positive", help="Value of --label-column in the treated rows (may be repeated)."),
]
Duplicates = Annotated[
    str | None,
    typer.Option("--duplicates", help="Repeated responses: error (files), drop (public sources) or keep."),
]
Turn = Annotated[
    int | None,
    typer.Option(
        "--turn", help="Of conversations: the assistant's turn that is rewritten, 0 the first. [default: the last]"
    ),
]
AttributeName = Annotated[
    str, typer.Option("--attribute", "-a", help="What is varied: see `ratekit attributes`, or FILE.py:NAME.")
]
AttributeNames = Annotated[
    list[str] | None,
    typer.Option("--attribute", "-a", help="What is varied: see `ratekit attributes`, or FILE.py:NAME (repeatable)."),
]
REWRITERS = "rules, replay, replay:PATH, openai:MODEL, batch:MODEL, hf:MODEL or FILE.py:NAME"
RewriterSpec = Annotated[
    str | None,
    typer.Option("--rewriter", help=f"{REWRITERS}. [default: replay if the data carry rewrites, else rules]"),
]
RewriterSpecs = Annotated[
    list[str] | None,
    typer.Option(
        "--rewriter",
        help=f"{REWRITERS}; several rewrite every row each. [default: replay if the data carry rewrites, else rules]",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option("--depth", min=1, help="Rewrites in a chain: 2 is RATE, 3 adds the drift test. [default: 2]"),
]
RewardNames = Annotated[
    list[str],
    typer.Option(
        "--reward",
        "-r",
        help="vader, words, a model folder, a hub id, judge:MODEL, judge:openai:MODEL, pairwise:MODEL,FILE, "
        "dpo:POLICY,REFERENCE, served:URL or FILE.py:NAME (may be repeated).",
    ),
]
SomeRewards = Annotated[
    list[str] | None, typer.Option("--reward", "-r", help="Only this reward model (may be repeated).")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", callback=_to_keep, file_okay=False, help="Folder of what was paid for; it is not asked again."
    ),
]
Adapter = Annotated[
    str | None, typer.Option("--adapter", help="How a model is read: chat, pair, ... [default: known or guessed]")
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")]
N = Annotated[int | None, typer.Option("--n", min=1, help="A random sample of so many rows (whole prompts).")]
TwoPhase = Annotated[
    int | None,
    typer.Option("--two-phase", min=1, help="Rewrite so many of the rows; use the originals of all."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn at random.")]
By = Annotated[list[str] | None, typer.Option("--by", help="A column: each of its groups by itself (may be repeated).")]
Estimator = Annotated[str, typer.Option("--estimator", help="naive, single_rewrite, rate, rate_late, ...")]
Estimand = Annotated[str, typer.Option("--estimand", help="ate, att or atu.")]
Unit = Annotated[str, typer.Option("--unit", help="sd (each in its own reward's SDs) or reward.")]
Full = Annotated[bool, typer.Option("--full", help="The whole effects table instead of the screen.")]
TableFormat = Annotated[Format, typer.Option("--format", help="How the table is printed.")]


def own(spec: Any) -> Any:
    """What FILE.py:NAME names; anything else is given back as it is.

    Examples
    --------
    >>> own("length")
    'length'
    """
    return load_object(spec) if is_object_spec(spec) else spec
