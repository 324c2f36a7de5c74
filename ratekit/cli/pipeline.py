"""The commands of the pipeline: `audit` and `card` do every stage, `rewrite`, `score` and `estimate` do one each."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from ratekit.cli import options as given
from ratekit.cli.tables import Format, show

if TYPE_CHECKING:
    import pandas as pd

    from ratekit.audits.results import Audit
    from ratekit.audits.study import Settings
    from ratekit.cli.llm import Asked
    from ratekit.labellers import Attribute


def audit(
    ctx: typer.Context,
    data: given.SourceOption,
    reward: given.RewardNames,
    attribute: given.AttributeNames = None,
    data_files: given.DataFiles = None,
    split: given.Split = None,
    column: given.Column = None,
    duplicates: given.Duplicates = None,
    turn: given.Turn = None,
    label_column: given.LabelColumn = None,
    positive: given.Positive = None,
    rewriter: given.RewriterSpecs = None,
    depth: given.Depth = None,
    n: given.N = None,
    two_phase: given.TwoPhase = None,
    seed: given.Seed = 0,
    cache: given.Cache = None,
    trust_remote_code: given.Trust = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the audit. [default: runs/DATA-ATTRIBUTE]", **given.FOLDER)
    ] = None,
    full: given.Full = False,
    format: given.TableFormat = Format.table,
) -> None:
    """All stages: load, rewrite, score, check.

    Table, picture, report and dataset are in the audit's folder. The same call again goes on where it was cut off, and
    another --reward is added to what is there.
    """
    from ratekit.audits.study import carry_out, labelled, planned, rewritten

    asked: Asked = ctx.obj
    settings = _settings(
        asked, data, attribute, data_files, split=split, columns=mapping(column), duplicates=duplicates,
        label_column=label_column, positive=positive or None, rewriter=several(rewriter), depth=depth, n=n, seed=seed,
        turn=turn, two_phase=two_phase,
    )  # fmt: skip
    folder = out or default_folder(data, [str(a) for a in settings.record()["attributes"]])
    replies = cache or folder / "rewrites"
    if asked.cost.dry_run:
        say_plans(planned(labelled(settings), settings.options, cache=replies, prices=asked.prices))
        return
    found = carry_out(
        folder, settings, reward,
        lambda meter: rewritten(labelled(settings), settings.options, cache=replies, meter=meter),
        meter=asked.meter(), trust_remote_code=trust_remote_code,
    )  # fmt: skip
    page = found.report()
    written = [*(folder / name for name in ("dataset", "effects.csv", "effects.png", "run.json")), page]
    show_audit(found, format, full, written)


def several(specs: list[str] | None) -> Any:
    """No rewriter, one, or several by their names."""
    found = {spec: given.own(spec) for spec in specs or ()}
    return found if len(found) > 1 else next(iter(found.values()), None)


def card(
    ctx: typer.Context,
    data: given.SourceOption,
    reward: given.RewardNames,
    attribute: given.AttributeNames = None,
    data_files: given.DataFiles = None,
    split: given.Split = None,
    column: given.Column = None,
    duplicates: given.Duplicates = None,
    turn: given.Turn = None,
    rewriter: Annotated[str, typer.Option("--rewriter", metavar="REWRITER", help=f"{given.REWRITERS}.")] = "rules",
    depth: given.Depth = None,
    n: given.N = None,
    two_phase: given.TwoPhase = None,
    precision: Annotated[
        float | None,
        typer.Option(metavar="SD", help="Rewrite only until every interval is within SD to each side. [default: all]"),
    ] = None,
    seed: given.Seed = 0,
    cache: given.Cache = None,
    trust_remote_code: given.Trust = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the card. [default: runs/DATA-card]", **given.FOLDER)
    ] = None,
    format: given.TableFormat = Format.table,
) -> None:
    """Biases of models or judges, on one page.

    An audit of a fixed suite of attributes (or of those of it that --attribute names). Another --reward on the same
    folder is scored on the same double rewrites.
    """
    from ratekit.audits.study import planned
    from ratekit.cards import drawn_up, labellable, looks, suite, with_rewritten

    asked: Asked = ctx.obj
    rewriter = given.own(rewriter)
    settings = _settings(
        asked, data, suite(attribute or (), rewriter), data_files, split=split, columns=mapping(column),
        duplicates=duplicates, rewriter=rewriter, depth=depth, n=n, seed=seed,
        turn=turn, two_phase=two_phase,
    )  # fmt: skip
    folder = out or default_folder(data, ["card"])
    if asked.cost.dry_run:
        every = labellable(settings)[1]
        least, *_, most = looks(max(len(part.asked()) for part in every)) * 2
        for n_rows in (least, most) if precision is not None else (most,):
            settings, parts, _ = labellable(with_rewritten(settings, n_rows))
            if precision is not None:
                print(f"{'at least' if n_rows == least else 'at most'} {max(len(p.asked()) for p in parts):,} rows:")
            say_plans(planned(parts, settings.options, cache=cache or folder / "rewrites", prices=asked.prices))
        return
    found = drawn_up(
        folder, settings, reward, precision=precision, cache=cache, meter=asked.meter(),
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    person = format is Format.table
    print(found) if person else show(found.table, format)
    say_paths([folder / f"card.{kind}" for kind in ("html", "md", "json", "csv")], sys.stdout if person else sys.stderr)


def leaderboard(
    cards: Annotated[list[Path], typer.Argument(metavar="CARD", help="Folders of cards.")],
    out: Annotated[Path | None, typer.Option(help="A static HTML page to write.", **given.FILE)] = None,
    format: given.TableFormat = Format.table,
) -> None:
    """The models of many cards side by side.

    With intervals that hold all at once.
    """
    from ratekit import files
    from ratekit.cards import leaderboard as boarded
    from ratekit.cards import leaderboard_html

    board = boarded(cards)
    show(board, format)
    if out is not None:
        say_paths(
            [files.replace_text(out, leaderboard_html(board))], sys.stdout if format is Format.table else sys.stderr
        )


def rewrite(
    ctx: typer.Context,
    data: given.Source,
    attribute: given.AttributeName,
    out: Annotated[Path, typer.Option(help="Folder for the dataset with its rewrites.", **given.FOLDER)],
    rewriter: given.RewriterSpec = None,
    depth: given.Depth = None,
    data_files: given.DataFiles = None,
    split: given.Split = None,
    column: given.Column = None,
    duplicates: given.Duplicates = None,
    turn: given.Turn = None,
    label_column: given.LabelColumn = None,
    positive: given.Positive = None,
    n: given.N = None,
    seed: given.Seed = 0,
    cache: given.Cache = None,
) -> None:
    """Label rows, rewrite each there and back."""
    from ratekit import files
    from ratekit.audits.study import labelled, planned, rewritten

    asked: Asked = ctx.obj
    settings = _settings(
        asked, data, [attribute], data_files, split=split, columns=mapping(column), duplicates=duplicates,
        label_column=label_column, positive=positive or None, rewriter=given.own(rewriter), depth=depth, n=n, seed=seed,
        turn=turn,
    )  # fmt: skip
    cache = cache or out / "rewrites"
    if asked.cost.dry_run:
        say_plans(planned(labelled(settings), settings.options, cache=cache, prices=asked.prices))
        return
    meter = asked.meter()
    ds = rewritten(labelled(settings), settings.options, cache=cache, meter=meter)
    if os.environ.get("RANK", "0") == "0":  # under `accelerate launch` one process writes
        files.replace_folder(out / "dataset", partial(files.write_rows, ds))
        record = files.replace_text(out / "rewriting.json", json.dumps(meter.record(), indent=2) + "\n")
        say_paths([out / "dataset", record])


def score(
    data: given.Rows,
    reward: given.RewardNames,
    out: Annotated[Path, typer.Option(help="Folder for the dataset with its rewards.", **given.FOLDER)],
    cache: Annotated[
        Path | None, typer.Option(help="Where scores are kept. [default: OUT/scores]", **given.KEPT)
    ] = None,
    adapter: given.Adapter = None,
    cut: Annotated[
        str, typer.Option("--truncation", metavar="PART", help="What a long text loses first: prompt or response.")
    ] = "prompt",
    trust_remote_code: given.Trust = False,
) -> None:
    """Score responses and rewrites.

    On several GPUs under `accelerate launch`. The same call again scores only what is new.
    """
    from ratekit import files, stages
    from ratekit.scoring import read_rewards
    from ratekit.scoring.engine import processes
    from ratekit.sources import as_dataset

    state = processes()
    if not state.is_main_process:
        logging.getLogger("ratekit").setLevel(logging.ERROR)  # one process speaks for all
    rewards = read_rewards(reward, adapter=adapter, truncation=cut, trust_remote_code=trust_remote_code)
    ds = as_dataset(data)
    for name, one in rewards.items():
        ds = stages.score(ds, one, name=name, cache=cache or out / "scores")
        if state.is_main_process:
            files.replace_folder(out / "dataset", partial(files.write_rows, ds))
        state.wait_for_everyone()
    if state.is_main_process:
        say_paths([out / "dataset"])


def estimate(
    data: given.Rows,
    reward: given.SomeRewards = None,
    by: given.By = None,
    level: Annotated[float, typer.Option(min=0.5, max=0.9999, metavar="X", help="Level of the intervals.")] = 0.95,
    se_unpaired: Annotated[bool, typer.Option("--se-unpaired", help="Add the two-sample SE, for comparison.")] = False,
    uncertainty: Annotated[str, typer.Option(metavar="HOW", help="analytic, bootstrap or sign-flip.")] = "analytic",
    draws: Annotated[int, typer.Option(metavar="N", help="Draws of the bootstrap or the sign flips.")] = 10_000,
    seed: given.Seed = 0,
    duplicates: given.Duplicates = None,
    out: Annotated[Path | None, typer.Option(help="Folder for effects.csv and effects.png.", **given.FOLDER)] = None,
    format: given.TableFormat = Format.table,
) -> None:
    """The effects table of scored data.

    Columns prompt_id, attribute, treated and reward/NAME (lists of rewards).
    """
    from ratekit import stages
    from ratekit.audits.folder import write_effects
    from ratekit.sources.loading import as_dataset, without_duplicates

    ds = without_duplicates(as_dataset(data), str(data), duplicates or "error")
    table = stages.estimate(
        ds, rewards=reward, by=by, level=level, se_unpaired=se_unpaired, uncertainty=uncertainty, draws=draws, seed=seed
    )
    written = write_effects(out, table) if out is not None else []
    show(compact(table) if format is Format.table else table, format)
    say_paths(written, sys.stdout if format is Format.table else sys.stderr)


# --- what is shown ---------------------------------------------------------------------------------------


def show_audit(found: Audit, how: Format, full: bool, written: Sequence[Path], first: Sequence[str] = ()) -> None:
    """The audit's screen, or its whole table; then what was written: there too for a person, else on stderr."""
    person = how is Format.table
    stream = sys.stdout if person else sys.stderr
    for line in first:
        print(line + "\n", file=stream)
    if person and not full:
        print(found)
    else:
        show(compact(found.effects) if person else found.effects, how)
    say_paths(written, stream)


def compact(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a terminal: the interval in one column, and no column of detail."""
    from ratekit.effects_table import bounds_as_text

    left = ["n_treated", "n_untreated", "df", "se_sd", "ci_low_sd", "ci_high_sd", "reason", "dose_low", "dose_high"]
    return bounds_as_text(table).drop(columns=left, errors="ignore")


def say_paths(written: Sequence[Path], stream: TextIO | None = None) -> None:
    """The files that were written."""
    found = [str(path) for path in written if path.exists()]
    if found:
        print("\nwritten: " + ", ".join(found), file=stream or sys.stdout)


def say_plans(plans: dict[str, Any]) -> None:
    """What each attribute's rewriting would take, and all of them together."""
    for name, plan in plans.items():
        print(plan if len(plans) == 1 else f"{name}\n{plan}\n")
    if len(plans) > 1:
        money = [plan.money for plan in plans.values()]
        cost = "" if None in money else f", {sum(money):,.2f}"
        print(f"in all {sum(plan.calls for plan in plans.values()):,} calls{cost}")


# --- what was given --------------------------------------------------------------------------------------


def _settings(
    asked: Asked, data: str, attributes: Sequence[str | Attribute] | None, data_files: list[Path] | None, **rest: Any
) -> Settings:
    from ratekit.attributes import find_attribute
    from ratekit.audits.study import Settings
    from ratekit.errors import InputError

    if not data.strip():
        raise InputError("--data is empty; give a file, a folder, a hub id or the name of a source")
    paths = [str(f) for f in data_files] if data_files else None
    found = tuple(find_attribute(a) for a in attributes or ())
    return Settings(data, found, paths, options=asked.options, **rest)


def mapping(columns: list[str] | None) -> dict[str, str] | None:
    """The columns by our names, of what was given as ours=theirs."""
    from ratekit.errors import InputError

    pairs: dict[str, str] = {}
    for column in columns or []:
        ours, equals, theirs = column.partition("=")
        if not (ours and equals and theirs):
            raise InputError(f"--column {column}: write ours=theirs, as in --column response=answer")
        if pairs.get(ours, theirs) != theirs:
            raise InputError(f"--column {column}: {ours} is {pairs[ours]} already; say it once")
        pairs[ours] = theirs
    return pairs or None


def default_folder(data: str, attributes: Sequence[str]) -> Path:
    """runs/DATA-ATTRIBUTE."""
    from ratekit.files import file_name

    name = Path(data).name.split(".")[0] or "data"
    return Path("runs") / file_name("-".join([name, *attributes]))
