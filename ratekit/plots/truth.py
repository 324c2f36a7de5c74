"""Estimates beside the truth, where a simulated world knows it: sweeps of a confounder, and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekit.errors import InputError, unknown
from ratekit.plots.look import MARKS, UNITS, canvas, key, lanes, marks_of, need, plain, row_of_panels, styled, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sweep(table: pd.DataFrame, *, unit: str = "sd") -> Figure:
    """Estimates along a confounder beside the truth: what `rk.simulate.sweep` gives, one panel for each design.

    >>> from ratekit.simulate import RuleReward, sweep as along
    >>> figure = sweep(along("vowel-typos", RuleReward(), n=30))
    >>> figure.axes[0].get_xlabel()
    'share misspelt, vowel-starting texts only'

    unit  "sd" divides each sweep by its mean reward SD; "reward" leaves the reward's own units

    Bands are the intervals; the dashed line is the truth. Raises InputError where the table lacks a column.
    """
    need(table, ("design", "reward_model", "step", "estimator", "estimate", "ci_low", "ci_high", "truth", "reward_sd"),
         "rk.simulate.sweep")  # fmt: skip
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if unit == "sd" and not table["reward_sd"].gt(0).any():
        raise InputError("no reward SD in the table; draw it with unit='reward'")
    designs = list(dict.fromkeys(zip(table["design"], table["reward_model"], strict=True)))
    figure, axes = row_of_panels(len(designs))
    for ax, (design, model) in zip(axes, designs, strict=True):
        rows = table[(table["design"] == design) & (table["reward_model"] == model)]
        sd = float(rows["reward_sd"].mean()) if unit == "sd" else 1.0
        names = marks_of(rows)
        truth = rows[rows["estimator"] == names[0]].sort_values("step")
        ax.plot(truth["step"], truth["truth"] / sd, color="0.1", lw=1.0, ls=(0, (4, 3)), label="truth", zorder=4)
        for name in names:
            of, mark = rows[rows["estimator"] == name].sort_values("step"), MARKS[name]
            ax.fill_between(of["step"], of["ci_low"] / sd, of["ci_high"] / sd, color=mark.color, alpha=0.15, lw=0)
            ax.plot(of["step"], of["estimate"] / sd, label=mark.label, **{**styled(mark, line=True), "lw": 1.6})
        ax.set_title(plain(design if len({m for _, m in designs}) == 1 else f"{design}, {model}"), fontsize=11)
        ax.set_xlabel(SWEPT.get(design, "step"))
        tidy(ax, "y", ("left", "bottom"))
    axes[0].set_ylabel(f"Average treatment effect ({UNITS[unit]})")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


SWEPT = {
    "length-sentiment": "correlation of length and sentiment",
    "helpfulness-complexity": "correlation of helpfulness and complexity",
    "vowel-typos": "share misspelt, vowel-starting texts only",
}


def coverage(table: pd.DataFrame, *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Coverage of intervals against the truth, one lane for each world and n; the line is where it should be.

    table  columns world, about, n, estimator, coverage (0 to 1), as `experiments/coverage.py` makes it
    level  of the intervals
    ax     drawn into; by default a new figure of fitting height

    Raises InputError where the table lacks a column.
    """
    need(table, ("world", "about", "n", "estimator", "coverage"), "experiments/coverage.py")
    worlds = list(dict.fromkeys(zip(table["world"], table["about"], table["n"], strict=True)))
    names = marks_of(table)
    ax = canvas(ax, 7.6, 1.2 + 0.24 * len(worlds))
    ax.axvline(100 * level, color="0.35", lw=0.9, zorder=1)
    lanes(ax, [f"{plain(about, 60)}, n = {n:,}" for _, about, n in worlds], [world for world, _, _ in worlds])
    for place, (world, about, n) in enumerate(worlds):
        for name in names:
            of = table[(table["world"] == world) & (table["about"] == about) & (table["n"] == n)]
            of = of[of["estimator"] == name]
            ax.plot(100 * of["coverage"], [place] * len(of), **styled(MARKS[name]), zorder=3)
    ax.tick_params(axis="y", labelsize=8.5)
    ax.set_xlim(-2, 102)
    ax.set_xlabel(f"intervals that cover the truth, % (nominal {100 * level:.0f})")
    for kind in dict.fromkeys(world for world, _, _ in worlds):
        first = next(i for i, w in enumerate(worlds) if w[0] == kind)
        ax.annotate(plain(kind), (1.0, first), xycoords=("axes fraction", "data"), xytext=(6, 0), fontsize=9,
                    textcoords="offset points", va="center", color="0.3", annotation_clip=False)  # fmt: skip
    tidy(ax)
    key(ax, [MARKS[name] for name in names])
    return ax
