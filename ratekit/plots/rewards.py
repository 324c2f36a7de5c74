"""Rewards themselves: their densities along the chain of rewrites, and their change over the dose of the attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError, unknown
from ratekit.groups import plain_columns, reward_matrix, treated_bools
from ratekit.plots.look import (
    BLUE,
    MARKS,
    ORANGE,
    canvas,
    interval,
    lanes,
    need,
    plain,
    row_of_panels,
    tidy,
    written,
    zero,
)
from ratekit.schema import ATTRIBUTE, TREATED, columns_of, find_reward, require, reward_columns, reward_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PASSES = ("original", "rewrite", "rewrite of the rewrite", "third rewrite")
STRIPS_UP_TO = 400  # rows of a class; above this the single rewards would be a smear


def densities(
    ds: Any, reward_model: str | None = None, *, attribute: str | None = None, depth: int = 2, ax: Axes | None = None
) -> Axes:
    """Rewards of the responses, of their rewrites and of the rewrites of those, as densities one above the other.

    >>> import ratekit as rk
    >>> ax = densities(rk.score(rk.load("reviews", attribute="length"), "words", progress=False))
    >>> [label.get_text() for label in ax.get_yticklabels()][:3]
    ['original', 'rewrite', 'rewrite of the rewrite']

    Blue texts have the attribute, orange ones do not. The first and the third density of a class are both on its own
    side: where they differ, the rewriter changed more than the attribute, which is why RATE compares the second with
    the third. Ticks are the single rewards, where they are few.

    ds            scored rows: a Dataset or DataFrame with attribute, treated and reward columns
    reward_model  whose rewards (in its own units), and attribute: may be left out where the data have one only
    depth         how many rewrites are drawn: rows that lack one of their rewards are left out
    ax            drawn into; by default a new figure

    Raises InputError where the rewards are missing, or it is not clear whose are meant.
    """
    require(ds, "estimate", (ATTRIBUTE, TREATED))
    column = _only("reward model", reward_model, [reward_name(c) for c in reward_columns(columns_of(ds))])
    frame = plain_columns(ds, [ATTRIBUTE, TREATED])
    name = _only("attribute", attribute, list(dict.fromkeys(frame[ATTRIBUTE])))
    rewards = reward_matrix(ds, find_reward(ds, column))
    if not 1 <= depth < len(PASSES):
        raise InputError(f"depth={depth}: from 1 to {len(PASSES) - 1} rewrites can be drawn")
    if rewards.shape[1] <= depth:
        raise InputError(f"densities: {column} has rewards of {max(rewards.shape[1] - 1, 0)} rewrites, not of {depth}")
    treated = treated_bools(frame[TREATED])
    used = np.isfinite(rewards[:, : depth + 1]).all(axis=1) & (frame[ATTRIBUTE] == name).to_numpy()
    sides = [side for side in (True, False) if (used & (treated == side)).any()]
    if not sides:
        raise InputError(f"densities: no row of {name} has all {depth + 1} rewards by {column}")
    labels = [PASSES[k] for _ in sides for k in range(depth + 1)]
    ax = canvas(ax, 7.2, 1.2 + 0.62 * len(labels))
    lanes(ax, labels, [side for side in sides for _ in range(depth + 1)])
    for block, side in enumerate(sides):
        rows = rewards[used & (treated == side)]
        top = block * (depth + 1)
        for k in range(depth + 1):
            _ridge(ax, rows[:, k], top + k + 0.42, BLUE if side == (k % 2 == 0) else ORANGE)
        ax.annotate(f"{'treated' if side else 'untreated'}\nresponses\n(n = {len(rows):,})", (1.0, top + depth / 2),
                    xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points", va="center",
                    color="0.3", fontsize=9, annotation_clip=False)  # fmt: skip
    tidy(ax)
    ax.set_xlabel(f"reward by {plain(column)} (reward units)")
    known = ATTRIBUTES.get(name)
    has, has_not = (known.treated, known.untreated) if known else (f"has {plain(name)}", "has it not")
    ax.set_title(f"Blue: {has}\nOrange: {has_not}", loc="left", fontsize=10.5)
    return ax


def _only(what: str, given: str | None, known: list[str]) -> str:
    if given is not None:
        if given not in known:
            raise unknown(what, given, known)
        return given
    if len(known) != 1:
        raise InputError(f"which {what}? The data hold {', '.join(map(plain, known)) or 'none'}")
    return known[0]


def _ridge(ax: Axes, rewards: Any, floor: float, color: str, height: float = 0.74) -> None:
    """One density standing on `floor`; where rewards do not vary it is a line at their value."""
    from scipy.stats import gaussian_kde

    low, high = float(rewards.min()), float(rewards.max())
    if len(rewards) > 2 and high - low > 1e-9 * max(abs(low), abs(high), 1e-300):
        margin = 0.12 * (high - low)
        x = np.linspace(low - margin, high + margin, 200)
        y = gaussian_kde(rewards)(x)
        ax.fill_between(x, floor, floor - height * y / y.max(), color=color, alpha=0.55, lw=0)
        ax.plot(x, floor - height * y / y.max(), color=color, lw=1.2)
    if len(rewards) <= STRIPS_UP_TO:
        ax.plot(rewards, np.full(len(rewards), floor), "|", color=color, ms=4, mew=0.6, alpha=0.9)
    else:
        ax.plot([low, high], [floor, floor], color=color, lw=0.6)


def dose_response(table: pd.DataFrame) -> Figure:
    """The effect over how far the rewrites moved the attribute, one panel for each attribute and reward model.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> dose_response(rk.dose_response(ds)).axes[0].get_ylabel()
    'effect on the reward (reward units)'

    table  what `rk.dose_response` gives: points are its bins, with intervals; the line through 0 is its `per_unit`

    Raises InputError for a table without these columns.
    """
    need(table, ("attribute", "reward_model", "bin", "dose", "effect", "ci_low", "ci_high", "per_unit"),
         "rk.dose_response")  # fmt: skip
    panels = list(table.groupby(["attribute", "reward_model"], sort=False))
    figure, axes = row_of_panels(len(panels))
    for ax, ((attribute, model), rows) in zip(axes, panels, strict=True):
        bins, whole = rows[rows["bin"] != "all"], rows[rows["bin"] == "all"]
        zero(ax, across="x")
        ax.axvline(0, color="0.35", lw=0.9, zorder=1)
        ends = np.array([min(0.0, float(bins["dose"].min())), max(0.0, float(bins["dose"].max()))])
        slope = float(whole["per_unit"].iloc[0]) if len(whole) else float("nan")
        if np.isfinite(slope):
            ax.plot(ends, slope * ends, color="0.1", lw=1.0, ls=(0, (4, 3)), label="per unit", zorder=2)
        for row in bins.itertuples():
            interval(ax, row.dose, row.effect, row.ci_low, row.ci_high, MARKS["rate"], along="y")
        per = f"\n{written(slope, abs(slope))} per unit" if np.isfinite(slope) else ""
        ax.set_title(f"{plain(model, 32)}{per}", fontsize=10.5)
        known = ATTRIBUTES.get(str(attribute))
        unit = f" ({known.measure.__name__})" if known and known.measure else ""
        ax.set_xlabel(f"change of {plain(attribute, 24)}{unit}")
        tidy(ax, "y", ("left", "bottom"))
    axes[0].set_ylabel("effect on the reward (reward units)")
    return figure
