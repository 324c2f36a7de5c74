"""The commands of the pipeline: `run` does every stage, `rewrite`, `score` and `estimate` do one each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ratekit.cli import llm
from ratekit.cli.tables import Format, show
from ratekit.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

Data = Annotated[
    str, typer.Option("--data", help="reviews, imdb, hh-rlhf, helpsteer, eli5, a file, a saved dataset or a hub id.")
]
DataFiles = Annotated[
    list[Path] | None,
    typer.Option(help="A local file in the source's own schema, instead of the hub (may be repeated)."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Label by this column of the data, instead of by the attribute's own label or measure."),
]
Positive = Annotated[
    list[str] | None, typer.Option(help="Value of --label-column in the treated rows (may be repeated).")
]
Split = Annotated[str | None, typer.Option(help="Of a hub dataset or a saved DatasetDict. [default: train]")]
Column = Annotated[
    list[str] | None,
    typer.Option(help="A column by another name, as in --column response=answer (may be repeated)."),
]
Duplicates = Annotated[
    str | None,
    typer.Option(help="Repeated responses: error (default for files), drop (default for public sources) or keep."),
]
AttributeName = Annotated[
    str, typer.Option("--attribute", "-a", help="What is varied; `ratekit attributes` lists them.")
]
RewriterSpec = Annotated[
    str | None,
    typer.Option(
        "--rewriter",
        help="rules, rules:mend=0.5, replay, replay:PATH, openai:MODEL, batch:MODEL or hf:MODEL. "
        "[default: replay if the data carry rewrites, else rules]",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Rewrites in a chain: 2 is RATE, 3 adds the drift test. [default: 2, or what a replay has]",
    ),
]
RewardNames = Annotated[
    list[str],
    typer.Option(
        "--reward",
        "-r",
        help="vader, words, a model folder, a hub id, judge:MODEL, pairwise:MODEL,REFERENCES, dpo:POLICY,REFERENCE or "
        "served:URL (may be repeated).",
    ),
]
Cache = Annotated[Path | None, typer.Option(help="Folder of replies; what is there is not asked for again.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a model.")]
N = Annotated[int | None, typer.Option(min=1, help="A random sample of so many rows (whole prompts are drawn).")]
Seed = Annotated[int, typer.Option(min=0, help="Of the sample.")]
TableFormat = Annotated[Format, typer.Option("--format", help="How the table is printed.")]


@llm.with_llm_options
def run(
    *,
    data: Data,
    attribute: AttributeName,
    reward: RewardNames,
    data_files: DataFiles = None,
    split: Split = None,
    column: Column = None,
    duplicates: Duplicates = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    rewriter: RewriterSpec = None,
    depth: Depth = None,
    n: N = None,
    seed: Seed = 0,
    cache: Cache = None,
    asking: llm.Asking,
    trust_remote_code: Trust = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. [default: runs/DATA-ATTRIBUTE]")] = None,
    format: TableFormat = Format.table,
) -> None:
    """All stages: load, label, rewrite, score, estimate; table, picture, report and dataset in the run's folder.

    The same call again goes on where it was cut off, and another --reward is added to what is there.
    """
    from ratekit.conclusions import conclusions
    from ratekit.reports import report as write_report
    from ratekit.rewriting.cost import Meter
    from ratekit.runs import Settings, execute, planned

    settings = Settings(
        data=data, attribute=attribute, data_files=_paths(data_files), split=split,
        columns=_mapping(column), duplicates=duplicates, label_column=label_column, positive=positive or None,
        rewriter=rewriter, depth=depth, n=n, seed=seed, asked=asking.options.asked or None,
    )  # fmt: skip
    folder = out or Path("runs") / f"{Path(data).name.split('.')[0]}-{attribute.rpartition(':')[2]}"
    if asking.dry_run:
        print(planned(settings, cache=cache or folder / "rewrites", options=asking.options, prices=asking.prices))
        return
    table = execute(
        folder, settings, reward, cache=cache, options=asking.options, meter=Meter(asking.prices, asking.budget),
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    page = write_report(folder)
    written = [*(folder / name for name in ("dataset", "effects.csv", "effects.png", "run.json")), page]
    report(table, format, [*conclusions(table), TRUST], written)


@llm.with_llm_options
def rewrite(
    *,
    data: Annotated[str, typer.Argument(help="A file, a saved dataset, or the name of a source.")],
    attribute: AttributeName,
    out: Annotated[Path, typer.Option(help="Folder for the dataset with its rewrites.")],
    rewriter: RewriterSpec = None,
    depth: Depth = None,
    data_files: DataFiles = None,
    split: Split = None,
    column: Column = None,
    duplicates: Duplicates = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    n: N = None,
    seed: Seed = 0,
    cache: Cache = None,
    asking: llm.Asking,
) -> None:
    """Label the data where they are not labelled yet, rewrite every response to the other side and back."""
    from ratekit.rewriting.cost import Meter
    from ratekit.runfolder import write_dataset
    from ratekit.runs import Settings, planned, rewritten

    settings = Settings(
        data=data, attribute=attribute, data_files=_paths(data_files), split=split, columns=_mapping(column),
        duplicates=duplicates, label_column=label_column, positive=positive or None,
        rewriter=rewriter, depth=depth, n=n, seed=seed,
        asked=asking.options.asked or None,
    )  # fmt: skip
    cache = cache or out / "rewrites"
    if asking.dry_run:
        print(planned(settings, cache=cache, options=asking.options, prices=asking.prices))
        return
    meter = Meter(asking.prices, asking.budget)
    ds = rewritten(settings, cache=cache, options=asking.options, meter=meter)
    if llm.is_first_process():
        write_dataset(out, ds)
        say_paths([out / "dataset", llm.write_record(out, meter)])


def score(
    data: Annotated[Path, typer.Argument(help="A dataset with rewrites: a folder or a file.")],
    reward: RewardNames,
    out: Annotated[Path, typer.Option(help="Folder for the dataset with its rewards.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder of scores; what is there is not scored again. [default: OUT/scores]")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="How the models are read: chat, pair, ... [default: known or guessed]")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Score every response and every rewrite with each reward model; on several GPUs under `accelerate launch`.

    The same call again scores only what is new: a call that was cut off goes on where it was.
    """
    from ratekit import stages
    from ratekit.runfolder import write_dataset
    from ratekit.runs import names_of
    from ratekit.scoring.engine import processes
    from ratekit.sources import as_dataset

    state = processes()
    if not state.is_main_process:
        logging.getLogger("ratekit").setLevel(logging.ERROR)  # one process speaks for all
    names_of(reward)
    ds = as_dataset(data)
    for name in reward:
        ds = stages.score(ds, name, cache=cache or out / "scores", adapter=adapter, trust_remote_code=trust_remote_code)
        if state.is_main_process:
            write_dataset(out, ds)
        state.wait_for_everyone()
    if state.is_main_process:
        say_paths([out / "dataset"])


def estimate(
    file: Annotated[Path, typer.Argument(help="Scored data: a saved dataset, Parquet, CSV or JSON Lines.")],
    reward: Annotated[list[str] | None, typer.Option("--reward", "-r", help="Only this reward model.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="Estimate each group of this column by itself.")] = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Of the confidence intervals.")] = 0.95,
    se_unpaired: Annotated[bool, typer.Option("--se-unpaired", help="Add the two-sample SE, for comparison.")] = False,
    uncertainty: Annotated[str, typer.Option(help="analytic, bootstrap or sign-flip.")] = "analytic",
    draws: Annotated[int, typer.Option(help="Of the bootstrap or the sign flips.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    duplicates: Annotated[str, typer.Option(help="Repeated responses: error, drop or keep.")] = "error",
    out: Annotated[Path | None, typer.Option(help="Folder for effects.csv and effects.png.")] = None,
    format: TableFormat = Format.table,
) -> None:
    """The effects table of scored data: columns prompt_id, attribute, treated and reward/NAME (lists of rewards)."""
    from ratekit import stages
    from ratekit.runfolder import write_table
    from ratekit.sources.loading import as_dataset, without_duplicates

    ds = without_duplicates(as_dataset(file), str(file), duplicates)
    table = stages.estimate(
        ds, rewards=reward, by=by, level=level, se_unpaired=se_unpaired, uncertainty=uncertainty, draws=draws, seed=seed
    )
    written = []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        written = write_table(out, table)
    report(table, format, written=written)


def compact(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a terminal: rounded numbers, the interval in one column."""
    shown = table.copy()
    bounds = zip(table["ci_low"], table["ci_high"], strict=True)
    interval = ["-" if low != low else f"[{low:.4g}, {high:.4g}]" for low, high in bounds]
    shown.insert(list(shown.columns).index("ci_low"), "interval", interval)
    return shown.drop(columns=["ci_low", "ci_high", "n_treated", "n_untreated"])


TRUST = "Whether the rewrites behind these numbers can be trusted stands in report.html."


def report(table: pd.DataFrame, how: Format, sentences: Sequence[str] = (), written: Sequence[Path] = ()) -> None:
    """The table on stdout, then what it says and the files written: there too for a person, else on stderr."""
    show(compact(table) if how is Format.table else table, how)
    stream = sys.stdout if how is Format.table else sys.stderr
    for sentence in sentences:
        print(("\n" if sentence == sentences[0] else "") + visible(sentence), file=stream)
    say_paths(written, stream)


def say_paths(written: Sequence[Path], stream: TextIO | None = None) -> None:
    """The files that were written."""
    found = [str(path) for path in written if path.exists()]
    if found:
        print("\nwritten: " + ", ".join(found), file=stream or sys.stdout)


def _paths(data_files: list[Path] | None) -> str | list[str] | None:
    paths = [str(path) for path in data_files or []]
    return paths[0] if len(paths) == 1 else paths or None


def _mapping(columns: list[str] | None) -> dict[str, str] | None:
    from ratekit.errors import InputError

    pairs = {}
    for given in columns or []:
        ours, equals, theirs = given.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--column {given}: write ours=theirs, as in --column response=answer")
        pairs[ours] = theirs
    return pairs or None
