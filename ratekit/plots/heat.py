"""Matrices as numbers on colour: effects of attributes on reward models, and what rewrites move beside their attribute.

The number in a cell carries the sign, so the picture keeps its meaning without colour; the colour makes patterns seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import InputError, unknown
from ratekit.plots.look import (
    ESTIMANDS,
    MARKS,
    UNITS,
    canvas,
    folded,
    grouping,
    in_unit,
    need,
    of_estimator,
    plain,
    written,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LEAST_SD = 0.2  # an SD scale reaches at least so far: next to nothing shall not look like much
BELOW, ABOVE = "#B35806", "#2166AC"  # orange and blue are told apart by every common kind of colour vision


def heatmap(
    table: pd.DataFrame,
    *,
    estimator: str = "rate",
    estimand: str = "ate",
    unit: str = "sd",
    ax: Axes | None = None,
) -> Axes:
    """Attributes by reward models: each cell one effect; in bold where its interval leaves 0 out.

    >>> import ratekit as rk
    >>> ds = rk.load("reviews")
    >>> for name in ("words", "vader"):
    ...     ds = rk.score(ds, name, progress=False)
    >>> ax = heatmap(rk.estimate(ds))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['sentiment', 'length']

    table      what `rk.estimate` gives
    estimator  a name in `rk.ESTIMATORS`; estimand "ate", "att" or "atu"
    unit       "sd" (reward SDs: the columns compare) or "reward" (each column in its own reward's units, on a scale of
               its own)
    ax         drawn into; by default a new figure of fitting size

    A combination that the table lacks is a dash. Raises InputError where the table holds none of these effects.
    """
    need(table, ("attribute", "reward_model", "estimator", "estimand", "estimate", "ci_low", "ci_high"), "rk.estimate")
    rows = of_estimator(in_unit(table, unit), estimator, estimand)
    keys = [*grouping(table), "attribute"]
    labels = rows[keys].astype(str).agg(", ".join, axis=1)
    rows = rows.assign(_row=labels)
    sure = (rows["ci_low"] > 0) | (rows["ci_high"] < 0)
    least, by_column = (LEAST_SD, False) if unit == "sd" else (0.0, True)
    ax = _matrix(rows.assign(_sure=sure), "_row", "reward_model", "estimate", "_sure", ax, least, by_column)
    ax.set_title(f"{ESTIMANDS[estimand]}, {MARKS[estimator].label} ({UNITS[unit]})", fontsize=10.5, loc="left", pad=8)
    ax.set_ylabel("attribute")
    ax.set_xlabel("reward model")
    return ax


def spillover(
    table: pd.DataFrame, *, reward_model: str | None = None, value: str = "shift_sd", ax: Axes | None = None
) -> Axes:
    """What rewriting each attribute moves: attributes by measures, as `rk.spillover` gives it.

    >>> import ratekit as rk
    >>> ax = spillover(rk.spillover(rk.load("reviews")))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['words', 'sentiment', 'readability', 'faults']

    value         "shift_sd" (how far each measure moved, in SDs of the originals) or "through" (the part of the effect
                  on the reward that goes through it, in reward units: a description by a linear model, no mediation)
    reward_model  whose rows are drawn where there are several; with "shift_sd" they are all alike
    ax            drawn into; by default a new figure

    In bold: told from 0 at 5 %. Raises InputError for a table without these columns or without that reward model.
    """
    if value not in ("shift_sd", "through"):
        raise unknown("value", value, ["shift_sd", "through"])
    need(table, ("attribute", "measure", "shift_sd", "p_value", *(("through",) if value == "through" else ())),
         "rk.spillover")  # fmt: skip
    rows = table
    models = list(dict.fromkeys(table["reward_model"].dropna())) if "reward_model" in table else []
    if reward_model is not None and reward_model not in models:
        raise unknown("reward model", reward_model, models)
    if value == "through" and reward_model is None and len(models) > 1:
        raise InputError(f"spillover: which reward model? Give reward_model= one of {', '.join(map(str, models))}")
    if models:
        rows = rows[rows["reward_model"] == (reward_model or models[0])]
    if value == "through":
        sure = (rows["through"].abs() > 1.96 * rows["through_se"]) & rows["through"].notna()
        title = f"Effect on the reward through each measure\n({plain(reward_model or models[0])}, reward units)"
    else:
        sure = rows["p_value"] < 0.05
        title = "How far the rewrites move each measure\n(SDs of the originals)"
    least = LEAST_SD if value == "shift_sd" else 0.0
    ax = _matrix(rows.assign(_sure=sure), "attribute", "measure", value, "_sure", ax, least)
    ax.set_title(title, fontsize=10.5, loc="left", pad=8)
    ax.set_ylabel("attribute that is rewritten")
    ax.set_xlabel("measure")
    return ax


def _matrix(
    rows: pd.DataFrame, down: str, across: str, value: str, sure: str, ax: Axes | None, least: float = 0.0,
    by_column: bool = False,
) -> Axes:  # fmt: skip
    """The cells of a long table as a matrix of numbers on a colour scale whose middle is 0.

    least: the scale reaches at least so far; by_column: each column has units, and so a scale, of its own.
    """
    from matplotlib.colors import LinearSegmentedColormap

    repeated = rows.duplicated([down, across])
    if repeated.any():
        first = rows[repeated].iloc[0]
        raise InputError(f"the table has several rows for {first[down]} and {first[across]}; one each was expected")
    downs, acrosses = list(dict.fromkeys(rows[down])), list(dict.fromkeys(rows[across]))
    values = np.full((len(downs), len(acrosses)), np.nan)
    bold = np.zeros(values.shape, bool)
    for d, a, v, s in zip(rows[down], rows[across], rows[value], rows[sure], strict=True):
        values[downs.index(d), acrosses.index(a)] = v
        bold[downs.index(d), acrosses.index(a)] = s
    ax = canvas(ax, 1.9 + 1.15 * len(acrosses), 1.5 + 0.55 * len(downs))
    tops = np.nanmax(np.abs(values), axis=0 if by_column else None, initial=0.0, keepdims=True)
    tops = np.where(tops > 0, np.maximum(tops, least), 1.0) * np.ones(values.shape)
    colours = LinearSegmentedColormap.from_list("ratekit", [BELOW, "#f7f7f7", ABOVE])
    edges = [np.arange(size + 1) - 0.5 for size in (len(acrosses), len(downs))]
    ax.pcolormesh(*edges, values / tops, cmap=colours, vmin=-1, vmax=1, edgecolors="white", linewidth=2)
    ax.set_ylim(len(downs) - 0.5, -0.5)
    for (i, j), number in np.ndenumerate(values):
        known = bool(np.isfinite(number))
        color = "white" if abs(number) > 0.62 * tops[i, j] else "black" if bold[i, j] or not known else "0.35"
        text = written(float(number), float(tops[i, j])) if known else "\N{EN DASH}"
        ax.text(j, i, text, ha="center", va="center", color=color, weight="bold" if bold[i, j] else "normal")
    _edges(ax, acrosses, downs)
    return ax


def _edges(ax: Axes, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    ax.set_yticks(range(len(rows)), [folded(r, 22) for r in rows])
    ax.set_xticks(range(len(columns)), [folded(c, 14) for c in columns])
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="x", labelsize=9)
