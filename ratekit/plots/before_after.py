"""Reward models before and after a mitigation: effects, and shares of pairs beside what people prefer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekit.errors import InputError
from ratekit.plots.names import cleaned, folded, names
from ratekit.plots.style import (
    INK,
    Mark,
    axis_names,
    color_on,
    finish,
    interval,
    key,
    lane_axes,
    letters,
    need,
    rows_of_one,
    tidy,
    zero,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def before_after(
    table: pd.DataFrame,
    pairs: dict[str, tuple[str, str]],
    *,
    attribute: str | None = None,
    labels: tuple[str, str] = ("before", "after"),
    ax: Axes | None = None,
) -> Axes:
    """One attribute under reward models before and after a mitigation: its effect, or how often it is preferred.

    Parameters
    ----------
    table : DataFrame
        Standardized rows of `rk.estimate`, of one estimator and estimand: effects with intervals are drawn. Or what
        `rk.warranted` gives: shares of pairs (0 to 1) in which the treated version is preferred, people's as a line.
    pairs : dict
        Label -> (reward model before, after); one lane each.
    attribute : str, optional
        May be left out where the table has one only.
    labels : tuple of str
        For before and after.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        The table lacks a column or one of these reward models.
    """
    shares = "human_rate" in getattr(table, "columns", ())
    if shares:
        need(table, ("attribute", "reward_model", "model_rate", "human_rate"), "rk.warranted")
    else:
        need(table, ("attribute", "reward_model", "estimate", "ci_low", "ci_high"), "rk.estimate")
    attribute, rows = rows_of_one(table, "attribute", attribute)
    if rows["reward_model"].duplicated().any():
        raise InputError("before_after: several rows for a reward model; give one estimator and estimand")
    rows = rows.set_index("reward_model")
    styles = (Mark(labels[0], INK, "o", hollow=True), Mark(labels[1], INK, "o"))
    short = names(pairs)
    said = [folded(short[label], letters(ax, 0.36)) for label in pairs]
    ax = lane_axes(ax, said, 3, beside=1.3)
    for place, models in enumerate(pairs.values()):
        for k, (model, mark) in enumerate(zip(models, styles, strict=True)):
            if model not in rows.index:
                raise InputError(f"no row for reward model {model!r} and attribute {attribute!r}")
            row = rows.loc[model]
            value, low, high = (row.get(c, float("nan")) for c in ("estimate", "ci_low", "ci_high"))
            interval(ax, row["model_rate"] if shares else value, place + (k - 0.5) * 0.3, low, high, mark)
    tidy(ax)
    if shares:
        human = float(rows["human_rate"].iloc[0])
        ax.axvline(human, color=color_on(ax, INK), lw=1.2, ls="--", zorder=1, label="people")
        ax.set_xlim(-0.03, 1.04)
    else:
        zero(ax)
    what = "share of pairs in which the treated version is preferred; dashed: people"
    axis_names(ax, x=what if shares else "effect (reward SDs)")
    key(ax, styles, title=cleaned(attribute))
    return finish(ax)
