"""Rewards themselves: their densities along the chain of rewrites, and their change over the dose of the attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError, require_whole
from ratekit.groups import plain_columns, reward_matrix, treated_bools
from ratekit.plots.names import folded, plain, written
from ratekit.plots.style import (
    INK,
    MARKS,
    TREATED,
    UNTREATED,
    Mark,
    axis_names,
    beside_lane,
    canvas,
    color_on,
    finish,
    ink,
    interval,
    key,
    lane_axes,
    letters,
    need,
    only,
    rows_of_one,
    tidy,
    zero,
)
from ratekit.schema import ATTRIBUTE, find_reward, reward_models
from ratekit.schema import TREATED as TREATED_COLUMN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PASSES = ("original", "rewrite", "rewrite of the rewrite", "third rewrite")
STRIPS_UP_TO = 400  # rows of a class; above this the single rewards would be a smear


def densities(
    ds: Any, reward_model: str | None = None, *, attribute: str | None = None, depth: int = 2, ax: Axes | None = None
) -> Axes:
    """Rewards of the responses, of their rewrites and of the rewrites of those, as densities one above the other.

    Parameters
    ----------
    ds : Dataset or DataFrame
        Scored rows: attribute, treated and reward columns.
    reward_model, attribute : str, optional
        Whose rewards (in its own units), and of what; may be left out where the data have one only.
    depth : int
        How many rewrites are drawn: rows that lack one of their rewards are left out.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        The first and the third density of a class are both on its own side: where they differ, the rewriter changed
        more than the attribute, which is why RATE compares the second with the third. Ticks are the single rewards,
        where they are few.

    Raises
    ------
    InputError
        The rewards are missing, or it is not clear whose are meant.

    Examples
    --------
    >>> import ratekit as rk
    >>> ax = densities(rk.score(rk.load("reviews", attribute="length"), "words", progress=False))
    >>> [label.get_text() for label in ax.get_yticklabels()][:3]
    ['original', 'rewrite', 'rewrite of the rewrite']
    """
    from ratekit.sources.loading import rows_for  # only here: the other plots take tables

    ds = rows_for("estimate", ds, (ATTRIBUTE, TREATED_COLUMN))
    column = only("reward model", reward_model, reward_models(ds))
    frame = plain_columns(ds, [ATTRIBUTE, TREATED_COLUMN])
    name = only("attribute", attribute, frame[ATTRIBUTE])
    rewards = reward_matrix(ds, find_reward(ds, column))
    require_whole("depth", depth, 1, len(PASSES) - 1)
    if rewards.shape[1] <= depth:
        raise InputError(f"densities: {column} has rewards of {max(rewards.shape[1] - 1, 0)} rewrites, not of {depth}")
    treated = treated_bools(frame[TREATED_COLUMN])
    used = np.isfinite(rewards[:, : depth + 1]).all(axis=1) & (frame[ATTRIBUTE] == name).to_numpy()
    sides = [side for side in (True, False) if (used & (treated == side)).any()]
    if not sides:
        raise InputError(f"densities: no row of {name} has all {depth + 1} rewards by {column}")
    labels = [folded(PASSES[k], letters(ax, 0.3)) for _ in sides for k in range(depth + 1)]
    ax = lane_axes(ax, labels, groups=[side for side in sides for _ in range(depth + 1)], least=0.5, beside=1.2)
    for block, side in enumerate(sides):
        rows = rewards[used & (treated == side)]
        top = block * (depth + 1)
        for k in range(depth + 1):
            color = color_on(ax, TREATED if side == (k % 2 == 0) else UNTREATED)
            _ridge(ax, rows[:, k], top + k + 0.42, color)
        beside_lane(ax, f"{'treated' if side else 'untreated'}\nresponses\n(n = {len(rows):,})", top + depth / 2)
    tidy(ax)
    axis_names(ax, x=f"reward by {plain(column)} (reward units)")
    known = ATTRIBUTES.get(name)
    has, has_not = (known.treated, known.untreated) if known else (f"has {plain(name)}", "has it not")
    key(ax, [Mark(has, TREATED, "s"), Mark(has_not, UNTREATED, "s")])
    return finish(ax)


def _ridge(ax: Axes, rewards: Any, floor: float, color: Any, height: float = 0.74) -> None:
    """One density standing on `floor`; where rewards do not vary it is a line at their value."""
    from scipy.stats import gaussian_kde

    low, high = float(rewards.min()), float(rewards.max())
    if len(rewards) > 2 and high - low > 1e-9 * max(abs(low), abs(high), 1e-300):
        density = gaussian_kde(rewards)
        margin = 3 * float(density.covariance[0, 0]) ** 0.5  # so that no hump is cut off
        x = np.linspace(low - margin, high + margin, 200)
        y = density(x)
        ax.fill_between(x, floor, floor - height * y / y.max(), color=color, alpha=0.55, lw=0)
        ax.plot(x, floor - height * y / y.max(), color=color, lw=1.2)
    if len(rewards) <= STRIPS_UP_TO:
        ax.plot(rewards, np.full(len(rewards), floor), "|", color=color, ms=4, mew=0.6, alpha=0.9)
    else:
        ax.plot([low, high], [floor, floor], color=color, lw=0.6)


def dose_response(
    table: pd.DataFrame, *, attribute: str | None = None, reward_model: str | None = None, ax: Axes | None = None
) -> Axes:
    """The effect over how far the rewrites moved the attribute, and how well one line through 0 describes it.

    Parameters
    ----------
    table : DataFrame
        From `rk.dose_response`.
    attribute, reward_model : str, optional
        Which curve; may be left out where the table has one only.
    ax : Axes, optional
        Drawn into; by default a new figure.

    Returns
    -------
    Axes
        Points are the bins with their intervals; the dashed line through 0 is `per_unit`, with a cross where each point
        would lie on it. The title says how many of the intervals the line misses.

    Raises
    ------
    InputError
        The table lacks these columns, or it is not clear which curve is meant.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> dose_response(rk.dose_response(ds)).get_ylabel()
    'effect on the reward (reward units)'
    """
    need(table, ("attribute", "reward_model", "bin", "dose", "effect", "ci_low", "ci_high", "per_unit"),
         "rk.dose_response")  # fmt: skip
    attribute, rows = rows_of_one(table, "attribute", attribute)
    model, rows = rows_of_one(rows, "reward_model", reward_model)
    bins, whole = rows[rows["bin"] != "all"], rows[rows["bin"] == "all"]
    ax = canvas(ax, 3.4)
    zero(ax, across="x")
    ax.axvline(0, color=ink(ax, 0.65), lw=0.9, zorder=1)
    slope = float(whole["per_unit"].iloc[0]) if len(whole) else float("nan")
    said = ""
    if np.isfinite(slope):
        ends = np.array([min(0.0, float(bins["dose"].min())), max(0.0, float(bins["dose"].max()))])
        ax.plot(ends, slope * ends, color=color_on(ax, INK), lw=1.0, ls=(0, (4, 3)), label="per unit", zorder=2)
        ax.plot(bins["dose"], slope * bins["dose"], "x", color=color_on(ax, INK), ms=5, label="on the line", zorder=4)
        told = bins[bins["ci_low"].notna() & bins["ci_high"].notna()]
        missed = (told["ci_low"] > slope * told["dose"]) | (told["ci_high"] < slope * told["dose"])
        said = f"\n{written(slope, abs(slope))} per unit"
        if len(told):
            said += f"; the line misses {int(missed.sum())} of {len(told)} intervals"
    for row in bins.itertuples():
        interval(ax, row.dose, row.effect, row.ci_low, row.ci_high, MARKS["rate"], along="y")
    tidy(ax, "y", ("left", "bottom"))
    known = ATTRIBUTES.get(attribute)
    unit = f" ({known.measure.__name__})" if known and known.measure else ""
    axis_names(ax, x=f"change of {plain(attribute, 24)}{unit}", y="effect on the reward (reward units)",
          title=f"{plain(model, 60)}{said}", share=0.8)  # fmt: skip
    return finish(ax)
