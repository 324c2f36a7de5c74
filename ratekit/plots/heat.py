"""Matrices as numbers on colour: effects of attributes on reward models, and what rewrites move beside their attribute.

The number in a cell carries the sign, so the picture keeps its meaning without colour; the colour makes patterns seen.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ratekit.errors import InputError, require_known, unknown
from ratekit.plots.names import folded, names, plain, written
from ratekit.plots.style import (
    ESTIMAND_TITLES,
    LEAST_POINTS,
    MARKS,
    TOP,
    axis_names,
    canvas,
    finish,
    in_unit,
    ink,
    largest,
    letters,
    need,
    of_estimator,
    points,
    scale_of_effects,
    some_of,
    told_on,
    unit_words,
    unusual_level,
    width_of,
)
from ratekit.schema import grouping

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_THROUGH = ("through", "through_low", "through_high")
LEAST_SD = 0.2  # an SD scale reaches at least so far: next to nothing shall not look like much


def heatmap(
    table: pd.DataFrame,
    *,
    estimator: str = "rate",
    estimand: str = "ate",
    unit: str = "sd",
    top: int | None = TOP,
    ax: Axes | None = None,
) -> Axes:
    """Attributes by reward models: each cell one effect; in bold where its interval leaves 0 out.

    Parameters
    ----------
    table : DataFrame
        From `rk.estimate`.
    estimator : str
        A name in `rk.ESTIMATORS`.
    estimand : {"ate", "att", "atu"}
        Which effect.
    unit : {"sd", "reward"}
        Reward SDs: the columns compare; or each column in its own reward's units, on a scale of its own.
    top : int or None
        How many rows at most: those with the largest effects. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        The longer of the two sides runs down. A combination that the table lacks is a dash.

    Raises
    ------
    InputError
        The table holds none of these effects.

    Warns
    -----
    UserWarning
        The figure is too small for its numbers.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews")
    >>> for name in ("words", "vader"):
    ...     ds = rk.score(ds, name, progress=False)
    >>> ax = heatmap(rk.estimate(ds))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['sentiment', 'length']
    """
    need(table, ("attribute", "reward_model", "estimator", "estimand", "estimate", "ci_low", "ci_high"), "rk.estimate")
    rows = of_estimator(in_unit(table, unit), estimator, estimand)
    keys = [*grouping(table), "attribute"]
    labels = rows[keys].astype(str).agg(", ".join, axis=1)
    rows = rows.assign(_row=labels)
    sure = (rows["ci_low"] > 0) | (rows["ci_high"] < 0)
    sides = ("_row", "reward_model")
    if rows["reward_model"].nunique() > max(rows["_row"].nunique(), 6):
        sides = ("reward_model", "_row")
    rows, said_top = _top(rows.assign(_sure=sure), sides[0], "estimate", top)
    ax = _matrix(rows, *sides, "estimate", "_sure", ax, LEAST_SD if unit == "sd" else 0.0,
                 "reward_model" if unit == "reward" else "")  # fmt: skip
    what = f"{ESTIMAND_TITLES[estimand]}, {MARKS[estimator].label} ({unit_words(rows, unit)})"
    called = unusual_level(table).removeprefix("; ") or "interval"
    title = f"{what}{said_top}{_bold(rows, f'the {called} leaves out 0')}"
    said = {"_row": "attribute", "reward_model": "reward model"}
    axis_names(ax, x=said[sides[1]], y=said[sides[0]], title=title, share=0.8)
    return finish(ax)


def spillover(
    table: pd.DataFrame,
    *,
    reward_model: str | None = None,
    value: str = "shift_sd",
    top: int | None = TOP,
    ax: Axes | None = None,
) -> Axes:
    """What rewriting each attribute moves: attributes by measures, as `rk.spillover` gives it.

    Parameters
    ----------
    table : DataFrame
        From `rk.spillover`.
    reward_model : str, optional
        Whose rows are drawn where there are several; with "shift_sd" they are all alike.
    value : {"shift_sd", "through"}
        How far each measure moved, in SDs of the originals; or the part of the effect on the reward that goes through
        it, in reward units: a description by a linear model, no mediation.
    top : int or None
        How many attributes at most: those with the largest numbers. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        In bold: told from 0 at 5 %; with "through", where its interval leaves 0 out.

    Raises
    ------
    InputError
        The table lacks these columns or that reward model.

    Examples
    --------
    >>> import ratekit as rk
    >>> ax = spillover(rk.spillover(rk.load("reviews")))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['words', 'sentiment', 'readability', 'faults']
    """
    require_known("value", value, ("shift_sd", "through"))
    need(table, ("attribute", "measure", "shift_sd", "p_value", *(_THROUGH if value == "through" else ())),
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
        sure = (rows["through_low"] > 0) | (rows["through_high"] < 0)
        title = f"Effect on the reward through each measure\n({plain(reward_model or models[0])}, reward units)"
        bold = "the interval leaves out 0"
    else:
        sure = rows["p_value"] < 0.05
        title, bold = "How far the rewrites move each measure\n(SDs of the originals)", "told from 0 at 5 %"
    least = LEAST_SD if value == "shift_sd" else 0.0
    rows, said_top = _top(rows.assign(_sure=sure), "attribute", value, top)
    ax = _matrix(rows, "attribute", "measure", value, "_sure", ax, least)
    axis_names(ax, x="measure", y="rewritten", title=f"{title}{said_top}{_bold(rows, bold)}")
    return finish(ax)


def _bold(rows: pd.DataFrame, meaning: str) -> str:
    return f"\nbold: {meaning}" if rows["_sure"].any() else ""


def _top(rows: pd.DataFrame, down: str, value: str, top: int | None) -> tuple[pd.DataFrame, str]:
    """The rows of the `top` entries of this side with the largest values, and what is said of it."""
    sizes = rows[value].abs().groupby(rows[down], sort=False).max()
    kept = [sizes.index[i] for i in largest(list(sizes), top)]
    return rows[rows[down].isin(kept)], some_of(len(kept), len(sizes), before="\n")


def _matrix(
    rows: pd.DataFrame, down: str, across: str, value: str, sure: str, ax: Axes | None, least: float = 0.0,
    own: str = "",
) -> Axes:  # fmt: skip
    """The cells of a long table as a matrix of numbers on a colour scale whose middle is 0.

    least: the scale reaches at least so far; own: the side whose entries have units, and so scales, of their own.
    """
    from matplotlib.colors import to_hex

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
    axis = None if not own else 0 if own == across else 1
    tops = np.nanmax(np.abs(values), axis=axis, initial=0.0, keepdims=True)
    tops = np.where(tops > 0, np.maximum(tops, least), 1.0) * np.ones(values.shape)
    texts = [[written(v, t) if np.isfinite(v) else "\N{EN DASH}" for v, t in zip(*row, strict=True)]
             for row in zip(values.tolist(), tops.tolist(), strict=True)]  # fmt: skip
    short_down, short_across = names(downs, 44), names(acrosses, 44)
    below = [folded(short_down[d], letters(ax, 0.26)) for d in downs]
    cell = 0.62 * width_of(ax) * 72 / len(acrosses)  # points
    size = min(points(ax), cell / (0.66 * max(len(text) for row in texts for text in row)))
    upright = max(len(part) for name in short_across.values() for part in folded(name, 14).split("\n"))
    turned = upright * 0.6 * points(ax) > cell
    beneath = [folded(short_across[a], 24 if turned else max(int(cell / (0.6 * points(ax))), 4)) for a in acrosses]
    lines = max(label.count("\n") + 1 for label in below)
    longest = max(len(line) for label in beneath for line in label.split("\n"))
    foot = 0.6 * longest if turned else 1.3 * max(label.count("\n") + 1 for label in beneath)  # in letters
    row_height = max(lines * 1.25 * points(ax), 2.2 * size) + 5
    ax = canvas(ax, (foot + 5) * points(ax) / 72 + len(downs) * row_height / 72)
    if size < LEAST_POINTS:
        least = math.ceil(10 * width_of(ax) * LEAST_POINTS / size) / 10
        warnings.warn(f"the figure is too small for its numbers; it takes {least:g} inches across", stacklevel=3)
    # next to black, what is next to nothing is a lighter cell
    colours = scale_of_effects(to_hex(ink(ax, 0.2 if any(ink(ax)) else 0.03)))
    edges = [np.arange(size_ + 1) - 0.5 for size_ in (len(acrosses), len(downs))]
    ax.pcolormesh(*edges, values / tops, cmap=colours, vmin=-1, vmax=1, edgecolors=[ink(ax, 0.0)], linewidth=1.5)
    ax.set_ylim(len(downs) - 0.5, -0.5)
    for (i, j), number in np.ndenumerate(values):
        known = bool(np.isfinite(number))
        color = told_on(colours(0.5 + 0.5 * (number / tops[i, j] if known else 0.0)))
        ax.text(j, i, texts[i][j], ha="center", va="center", color=color, weight="bold" if bold[i, j] else "normal",
                fontsize=max(size, LEAST_POINTS), gid="cell")  # fmt: skip
    ax.set_yticks(range(len(downs)), below)
    ax.set_xticks(range(len(acrosses)), beneath, rotation=90 if turned else 0)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="both", length=0)
    ax.grid(visible=False)
    return ax
