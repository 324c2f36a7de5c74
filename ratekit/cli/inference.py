"""Commands that weigh a result: plan, sensitivity, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli.tables import Format, show

Scored = Annotated[Path, typer.Argument(help="Scored data: a saved dataset, Parquet, CSV or JSON Lines.")]
TableFormat = Annotated[Format, typer.Option(help="How the table is printed.")]


def plan(
    file: Scored,
    se: Annotated[float | None, typer.Option(help="The standard error wanted.")] = None,
    apart: Annotated[tuple[str, str] | None, typer.Option(help="Two reward models to be told apart instead.")] = None,
    difference: Annotated[float | None, typer.Option(help="The least to be told; --apart needs it.")] = None,
    power: Annotated[float, typer.Option(help="Chance to tell them apart.")] = 0.8,
    estimator: Annotated[str, typer.Option(help="Which estimator.")] = "rate",
    estimand: Annotated[str, typer.Option(help="ate, att or atu.")] = "ate",
    unit: Annotated[str, typer.Option(help="sd (reward SDs) or reward.")] = "sd",
    format: TableFormat = Format.table,
) -> None:
    """How many more rows and rewrites, for a standard error or for telling two reward models apart."""
    from ratekit.diagnostics import plan as planned
    from ratekit.sources import as_dataset

    show(
        planned(as_dataset(file), se, apart=apart, difference=difference, power=power, estimator=estimator,
                estimand=estimand, unit=unit),
        format,
    )  # fmt: skip


def sensitivity(file: Scored, format: TableFormat = Format.table) -> None:
    """How wrong the rewriter would have to be, in reward SDs, to overturn each effect."""
    from ratekit.diagnostics import sensitivity as tipping
    from ratekit.sources import as_dataset
    from ratekit.stages import estimate

    table = tipping(estimate(as_dataset(file)))
    if format is Format.table:
        kept = ["attribute", "reward_model", "estimator", "estimand", "estimate", "se"]
        table = table[[c for c in table.columns if c in kept or "tips_" in c]]
    show(table, format)


def calibrate(
    reward: Annotated[str, typer.Argument(help="vader, words, a model folder or a hub id.")],
    n: Annotated[int, typer.Option(help="Reviews in each of three worlds; five texts each are scored.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the worlds.")] = 0,
    format: TableFormat = Format.table,
) -> None:
    """Grade the estimators on this reward model in worlds where its true effects are known."""
    from ratekit.simulate import calibrate as grade

    table = grade(reward, n=n, seed=seed, progress=True)
    if format is Format.table:
        kept = ["attribute", "estimator", "truth", "estimate", "ci_low", "ci_high", "covers", "bias", "reward_sd"]
        table = table[table["estimand"] == "ate"][kept]
    show(table, format)
