"""Commands that look at scored data: checks, contrasts, what lies behind an effect, what would overturn it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratekit.cli import options as given
from ratekit.cli.tables import Format, show
from ratekit.escaping import visible

if TYPE_CHECKING:
    import pandas as pd


def report(
    data: given.Rows,
    out: Annotated[
        Path | None,
        typer.Option(help="File, or folder for report.html. [default: in the audit's folder]", **given.PLACE),
    ] = None,
) -> None:
    """One HTML page: verdicts, figures, checks.

    With examples, and where it all comes from. The page needs no network.
    """
    from ratekit.reports import report as write

    print(f"written: {write(data, out)}")


def verify(
    audit: given.Rows,
    reward: Annotated[
        list[str] | None,
        typer.Option("--reward", "-r", metavar="REWARD", help="Score the texts again with this (repeatable)."),
    ] = None,
) -> None:
    """Derive an audit's numbers once more.

    From its stored texts, rewards and seeds. What differs is named, and the exit code is 1.
    """
    from ratekit.errors import WorkError
    from ratekit.scoring import read_rewards
    from ratekit.verification import verify as derive

    found = derive(audit, read_rewards(reward or []))
    print(visible(repr(found)))
    if found.differences:
        raise WorkError(f"{audit}: {len(found.differences)} numbers or files are not as they are derived")


def diagnose(data: given.Rows, format: given.TableFormat = Format.table) -> None:
    """What RATE assumes: compliance, drift, ..."""
    from ratekit.diagnostics import diagnose as checks

    table = checks(data)
    if format is not Format.table:
        show(table, format)
        return
    verdicts = table[table["check"] == "verdict"]
    show(_without(table[table["check"] != "verdict"], "about", "words", "p_value"), format)
    for row in verdicts.itertuples():
        print("\n" + visible(f"{', '.join(filter(None, (row.attribute, row.about)))}: {row.group}; {row.words}"))


def contrast(
    data: given.Rows,
    first: Annotated[str, typer.Argument(help="A reward model of the data.")],
    second: Annotated[str, typer.Argument(help="The one whose effect is taken off.")],
    estimator: given.Estimator = "rate",
    unit: given.Unit = "sd",
    format: given.TableFormat = Format.table,
) -> None:
    """One model's effect minus another's.

    A paired difference: both score the same rewrites.
    """
    from ratekit.diagnostics import contrast as differ

    show(differ(data, first, second, estimator=estimator, unit=unit), format)


def sensitivity(data: given.Rows, format: given.TableFormat = Format.table) -> None:
    """How wrong rewrites must be to undo it.

    For each effect, in reward SDs.
    """
    from ratekit.diagnostics import sensitivity as tipping
    from ratekit.stages import estimate

    table = tipping(estimate(data))
    kept = ["attribute", "reward_model", "estimator", "estimand", "estimate_sd", "se_sd"]
    show(table, format, [*kept, *(c for c in table.columns if "tips_" in c)])


def heterogeneity(
    data: given.Rows,
    by: Annotated[
        list[str], typer.Option("--by", metavar="COLUMN", help="A column of groups; several are crossed (repeatable).")
    ],
    estimator: given.Estimator = "rate",
    format: given.TableFormat = Format.table,
) -> None:
    """Whether it is the same in every group."""
    from ratekit.diagnostics import heterogeneity as differs

    show(differs(data, by, estimator=estimator), format)


def spillover(data: given.Rows, format: given.TableFormat = Format.table) -> None:
    """What else the rewrites changed.

    Words, sentiment, readability, faults; and what that adds to the effect.
    """
    from ratekit.diagnostics import spillover as spilt

    kept = ["attribute", "measure", "shift", "se", "p_value", "shift_sd", "reward_model", "through", "through_low",
            "through_high", "n"]  # fmt: skip
    show(spilt(data), format, kept)


def dose_response(
    data: given.Rows,
    bins: Annotated[int, typer.Option(metavar="N", help="Groups of equal size, by the size of the change.")] = 5,
    format: given.TableFormat = Format.table,
) -> None:
    """The effect by the size of the change.

    How much the rewrite changed the attribute's measure: words, points of sentiment.
    """
    from ratekit.diagnostics import dose_response as curve

    show(curve(data, bins=bins), format)


def warranted(
    data: given.Rows,
    human: Annotated[
        str, typer.Option(metavar="COLUMN", help="What people chose: treated, untreated or tie.")
    ] = "human_preference",
    format: given.TableFormat = Format.table,
) -> None:
    """Does a model want it more than people?"""
    from ratekit.diagnostics import warranted as justified

    table = justified(data, human)
    kept = ["attribute", "reward_model", "model_rate", "human_rate", "skew", "skew_low", "skew_high", "p_value", "n"]
    show(table, format, kept)
    for row in table.itertuples() if format is Format.table else ():
        print("\n" + visible(f"{row.attribute}, {row.reward_model}: {row.words}"))


def plan(
    data: given.Rows,
    se: Annotated[float | None, typer.Option(metavar="X", help="The standard error that is wanted.")] = None,
    apart: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Or: two reward models to tell apart.")
    ] = None,
    difference: Annotated[
        float | None, typer.Option(metavar="X", help="Least difference to tell; --apart needs it.")
    ] = None,
    power: Annotated[float, typer.Option(metavar="X", help="Chance to tell them apart.")] = 0.8,
    estimator: given.Estimator = "rate",
    estimand: given.Estimand = "ate",
    unit: given.Unit = "sd",
    format: given.TableFormat = Format.table,
) -> None:
    """How many more rows for a standard error.

    Or for telling two reward models apart.
    """
    from ratekit.diagnostics import plan as planned

    show(
        planned(
            data, se, apart=apart, difference=difference, power=power, estimator=estimator,
            estimand=estimand, unit=unit,
        ),
        format,
    )  # fmt: skip


def sequential(
    data: given.Rows,
    estimator: given.Estimator = "rate",
    estimand: given.Estimand = "ate",
    format: given.TableFormat = Format.table,
) -> None:
    """Whether one may stop rewriting.

    However often one looks; the rows are in order of arrival.
    """
    from ratekit.diagnostics import sequential as looks

    show(looks(data, estimator=estimator, estimand=estimand), format)


def attributes(format: given.TableFormat = Format.table) -> None:
    """The attributes, with their phrases."""
    import pandas as pd

    from ratekit.attributes import ATTRIBUTES

    rows = [{"attribute": a.name, "treated": a.treated, "untreated": a.untreated} for a in ATTRIBUTES.values()]
    show(pd.DataFrame(rows), format)


def check_reward(
    model: Annotated[str, typer.Argument(help="A model folder, a hub id, judge:MODEL or pairwise:MODEL,REFERENCES.")],
    adapter: given.Adapter = None,
    revision: Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub model.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model card's example: JSON with prompt, response, score.")
    ] = None,
    trust_remote_code: given.Trust = False,
    format: given.TableFormat = Format.table,
) -> None:
    """How a reward model is run, what it sees.

    Checks that scores are equal for any batch, order and path; shows its template, its last token and what it cuts off.
    """
    from ratekit.errors import WorkError
    from ratekit.scoring.check_reward import FAIL
    from ratekit.scoring.check_reward import check_reward as check

    table = check(
        model, reference=_reference(reference), adapter=adapter, revision=revision, dtype=dtype,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    show(table, format)
    failed = table.loc[table["result"] == FAIL, "check"].tolist()
    if failed:
        raise WorkError(f"{model} failed {len(failed)} of {len(table)} checks: {'; '.join(failed)}")


def calibrate(
    reward: Annotated[str, typer.Argument(help="vader, words, a model folder, a hub id or FILE.py:NAME.")],
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Reviews in each of three worlds; five texts each.")
    ] = 300,
    seed: given.Seed = 0,
    format: given.TableFormat = Format.table,
) -> None:
    """Grade the estimators where truth is known."""
    from ratekit.simulate import calibrate as grade

    table = grade(reward, n=n, seed=seed, progress=True)
    if format is Format.table:
        kept = ["attribute", "estimator", "truth", "estimate", "ci_low", "ci_high", "covers", "bias", "reward_sd"]
        table = table[table["estimand"] == "ate"][kept]
    show(table, format)


def _without(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return table.drop(columns=[c for c in columns if c in table])


def _reference(path: Path | None) -> tuple[object, str, float] | None:
    from ratekit.errors import InputError
    from ratekit.files import read_object

    if path is None:
        return None
    try:
        card = read_object(path)
        return card["prompt"], str(card["response"]), float(card["score"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: a JSON object with prompt, response and score was expected") from None
