"""Estimates beside the truth, where a simulated world knows it: sweeps of a confounder, and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ratekit.plots.names import cleaned, folded, names, plain
from ratekit.plots.style import (
    INK,
    MARKS,
    TOP,
    axis_names,
    beside_lane,
    canvas,
    color_on,
    finish,
    in_unit,
    key,
    lane_axes,
    largest,
    letters,
    marks_of,
    need,
    rows_of_one,
    some_of,
    styled,
    tidy,
    unit_words,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def sweep(
    table: pd.DataFrame,
    *,
    design: str | None = None,
    reward_model: str | None = None,
    unit: str = "sd",
    ax: Axes | None = None,
) -> Axes:
    """Estimates along a confounder beside the truth: what `rk.simulate.sweep` gives.

    Parameters
    ----------
    table : DataFrame
        From `rk.simulate.sweep`.
    design, reward_model : str, optional
        Which sweep; may be left out where the table has one only.
    unit : {"sd", "reward"}
        SDs of each step's originals, the truth's too (the columns `*_sd`, whose intervals count the SD's own error;
        without them SDs of this sample), or the reward's own units.
    ax : Axes, optional
        Drawn into; by default a new figure.

    Returns
    -------
    Axes
        Bands are the intervals; the dashed line is the truth.

    Raises
    ------
    InputError
        The table lacks a column, or it is not clear which sweep is meant.

    Examples
    --------
    >>> from ratekit.simulate import RuleReward, sweep as along
    >>> ax = sweep(along("vowel-typos", RuleReward(), n=30))
    >>> ax.get_xlabel()
    'share misspelt, vowel-starting texts only'
    """
    from matplotlib.lines import Line2D

    need(table, ("design", "reward_model", "step", "estimator", "estimate", "ci_low", "ci_high", "truth", "reward_sd"),
         "rk.simulate.sweep")  # fmt: skip
    design, rows = rows_of_one(table, "design", design)
    model, rows = rows_of_one(rows, "reward_model", reward_model)
    true = rows["truth"] / rows["reward_sd"].where(rows["reward_sd"] > 0) if unit == "sd" else rows["truth"]
    rows = in_unit(rows, unit).assign(truth=true)
    drawn = marks_of(rows)
    ax = canvas(ax, 3.6)
    dashed = {"color": color_on(ax, INK), "lw": 1.0, "ls": (0, (4, 3)), "label": "truth"}
    truth = rows[(rows["estimator"] == drawn[0]) & rows["truth"].notna()].sort_values("step")
    ax.plot(truth["step"], truth["truth"], zorder=4, **dashed)
    for name in drawn:
        of, mark = rows[rows["estimator"] == name].sort_values("step"), MARKS[name]
        ax.fill_between(of["step"], of["ci_low"], of["ci_high"], color=color_on(ax, mark.color), alpha=0.15,
                        lw=0)  # fmt: skip
        ax.plot(of["step"], of["estimate"], label=mark.label, **{**styled(ax, mark, line=True), "lw": 1.6})
    tidy(ax, "y", ("left", "bottom"))
    axis_names(ax, x=SWEPT.get(design, "step"), y=f"Average treatment effect\n({unit_words(rows, unit)})", share=0.75)
    several = table["reward_model"].nunique() > 1
    key(ax, [MARKS[name] for name in drawn], [Line2D([], [], **dashed)] if len(truth) else [],
        cleaned(f"{design}, {model}" if several else design))  # fmt: skip
    return finish(ax)


SWEPT = {
    "length-sentiment": "correlation of length and sentiment",
    "helpfulness-complexity": "correlation of helpfulness and complexity",
    "vowel-typos": "share misspelt, vowel-starting texts only",
}


def coverage(table: pd.DataFrame, *, level: float = 0.95, top: int | None = TOP, ax: Axes | None = None) -> Axes:
    """Coverage of intervals against the truth, one lane for each world and n; the line is where it should be.

    Parameters
    ----------
    table : DataFrame
        Columns world, about, n, estimator, coverage (0 to 1), as `experiments/coverage.py` makes it.
    level : float
        Of the intervals.
    top : int or None
        How many lanes at most: those with an interval's coverage farthest from its level. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        The table lacks a column.
    """
    need(table, ("world", "about", "n", "estimator", "coverage"), "experiments/coverage.py")
    off = (table["coverage"] - level).abs().groupby([table[c] for c in ("world", "about", "n")], sort=False).max()
    worlds = [off.index[i] for i in largest(list(off), top)]
    drawn = marks_of(table)
    short = names((about for _, about, _ in worlds), 60)
    labels = [folded(f"{short[about]}, n\u00a0=\u00a0{n:,}", letters(ax, 0.4)) for _, about, n in worlds]
    ax = lane_axes(ax, labels, groups=[world for world, _, _ in worlds])
    ax.axvline(100 * level, color=color_on(ax, INK), lw=0.9, zorder=1)
    for place, (world, about, n) in enumerate(worlds):
        for name in drawn:
            of = table[(table["world"] == world) & (table["about"] == about) & (table["n"] == n)]
            of = of[of["estimator"] == name]
            ax.plot(100 * of["coverage"], [place] * len(of), **styled(ax, MARKS[name]), zorder=3)
    for kind in dict.fromkeys(world for world, _, _ in worlds):
        mine = [i for i, world in enumerate(worlds) if world[0] == kind]
        beside_lane(ax, plain(kind), float(np.mean(mine)))
    tidy(ax)
    ax.set_xlim(-2, 102)
    axis_names(ax, x=f"intervals that cover the truth, % (nominal {100 * level:.6g})"
          + some_of(len(worlds), len(off), "farthest off"))  # fmt: skip
    key(ax, [MARKS[name] for name in drawn])
    return finish(ax)
