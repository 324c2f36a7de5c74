"""Commands that ask what lies behind an effect: what else moved, how much per word, for whom, and by whose leave."""

from __future__ import annotations

from typing import Annotated

import typer

from ratekit.cli.inference import Scored, TableFormat
from ratekit.cli.tables import Format, show


def spillover(file: Scored, format: TableFormat = Format.table) -> None:
    """What else the rewrites changed (words, sentiment, readability, faults) and what that adds to the effect."""
    from ratekit.diagnostics import spillover as spilt
    from ratekit.sources import as_dataset

    table = spilt(as_dataset(file))
    if format is Format.table:
        kept = ["attribute", "measure", "shift", "se", "p_value", "shift_sd", "reward_model", "through", "through_se"]
        table = table[[c for c in [*kept, "n"] if c in table]]
    show(table, format)


def dose_response(
    file: Scored,
    bins: Annotated[int, typer.Option(help="Parts of equal size, from the smallest change to the largest.")] = 5,
    format: TableFormat = Format.table,
) -> None:
    """The effect by how much the rewrite changed the attribute: per word, per point of sentiment."""
    from ratekit.diagnostics import dose_response as curve
    from ratekit.sources import as_dataset

    show(curve(as_dataset(file), bins=bins), format)


def heterogeneity(
    file: Scored,
    by: Annotated[list[str], typer.Option(help="Column of groups; give it more than once to cross them.")],
    estimator: Annotated[str, typer.Option(help="Which estimator.")] = "rate",
    format: TableFormat = Format.table,
) -> None:
    """Whether the effect is the same in every group."""
    from ratekit.diagnostics import heterogeneity as differs
    from ratekit.sources import as_dataset

    show(differs(as_dataset(file), by, estimator=estimator), format)


def warranted(
    file: Scored,
    human: Annotated[
        str, typer.Option(help="Column of what people chose: treated, untreated, tie.")
    ] = "human_preference",
    format: TableFormat = Format.table,
) -> None:
    """Whether the reward model wants the attribute more than people do."""
    from ratekit.diagnostics import warranted as justified
    from ratekit.sources import as_dataset

    table = justified(as_dataset(file), human)
    if format is not Format.table:
        show(table, format)
        return
    kept = ["attribute", "reward_model", "model_rate", "human_rate", "skew", "skew_low", "skew_high", "p_value", "n"]
    show(table[kept], format)
    for row in table.itertuples():
        print(f"\n{row.attribute}, {row.reward_model}: {row.words}")


def sequential(
    file: Scored,
    estimator: Annotated[str, typer.Option(help="Which estimator.")] = "rate",
    estimand: Annotated[str, typer.Option(help="ate, att or atu.")] = "ate",
    format: TableFormat = Format.table,
) -> None:
    """Whether one may stop rewriting: intervals that hold however often one looks, rows in order of arrival."""
    from ratekit.diagnostics import sequential as looks
    from ratekit.sources import as_dataset

    show(looks(as_dataset(file), estimator=estimator, estimand=estimand), format)
