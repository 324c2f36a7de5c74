"""Effects with their intervals: the forest of all estimators, and naive against RATE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, require_known
from ratekit.estimators import ESTIMATORS
from ratekit.plots.names import folded, names
from ratekit.plots.style import (
    ESTIMAND_TITLES,
    INK,
    MARKS,
    TOP,
    Mark,
    axis_names,
    finish,
    in_unit,
    ink,
    interval,
    key,
    lane_axes,
    largest,
    letters,
    marks_of,
    need,
    some_of,
    tidy,
    unit_words,
    unusual_level,
    zero,
)
from ratekit.schema import grouping

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_COLUMNS = ("attribute", "reward_model", "estimator", "estimand", "estimate", "ci_low", "ci_high")


def effects(
    table: pd.DataFrame,
    *,
    estimators: tuple[str, ...] | None = None,
    estimand: str = "ate",
    unit: str = "sd",
    top: int | None = TOP,
    ax: Axes | None = None,
) -> Axes:
    """A forest of effects: for each attribute and reward model the estimators side by side, with intervals.

    Parameters
    ----------
    table : DataFrame
        From `rk.estimate`.
    estimators : tuple of str, optional
        Which, from top to bottom; by default those that say so in `rk.ESTIMATORS`, and what the table recommends.
    estimand : {"ate", "att", "atu"}
        Where a table has none of it but naive ones, the one it has.
    unit : {"sd", "reward"}
        Reward SDs, or the reward's own units.
    top : int or None
        How many attributes x reward models at most: those with the largest effects, which the picture says. None draws
        all of them.
    ax : Axes, optional
        Drawn into; by default a new figure as wide as ``rcParams["figure.figsize"]`` and as high as it takes.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        The table holds none of these.

    Warns
    -----
    UserWarning
        The figure is too small for its labels.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> ax = effects(rk.estimate(ds))
    >>> ax.get_xlabel()
    'Average treatment effect (reward SDs)'
    """
    need(table, _COLUMNS, "rk.estimate")
    estimators = _shown(table) if estimators is None else tuple(estimators)
    for name in estimators:
        require_known("estimator", name, MARKS)
    require_known("estimand", estimand, ESTIMAND_TITLES)
    given = in_unit(table, unit)
    rows = given[given["estimator"].isin(estimators)]
    if rows.empty:
        raise InputError(f"the table holds none of {', '.join(estimators)}")
    of_rewrites = set(rows["estimand"][rows["estimator"] != "naive"]) or set(rows["estimand"])
    if estimand not in of_rewrites:
        estimand = next(e for e in ESTIMAND_TITLES if e in of_rewrites)
    without = [n for n in marks_of(rows, estimators) if estimand not in ESTIMATORS[n].estimands]
    rows = rows[rows["estimand"] == estimand]
    drawn = marks_of(rows, estimators)
    groups = _groups(rows, letters(ax, 0.4))
    kept = largest([float(g.loc[g["estimator"] == drawn[-1], "estimate"].abs().max()) for _, g in groups], top)
    shown = [groups[i] for i in kept]
    ax = lane_axes(ax, [label for label, _ in shown], len(drawn))
    step = 0.75 / max(len(drawn), 1)
    zero(ax)
    for place, (_, group) in enumerate(shown):
        for k, name in enumerate(drawn):
            for row in group[group["estimator"] == name].itertuples():
                y = place + (k - (len(drawn) - 1) / 2) * step
                interval(ax, row.estimate, y, row.ci_low, row.ci_high, MARKS[name])
    tidy(ax)
    said = some_of(len(shown), len(groups))
    axis_names(ax, x=f"{ESTIMAND_TITLES[estimand]} ({unit_words(rows, unit)}{unusual_level(table)}){said}")
    absent = [Mark(f"{MARKS[n].label}: no {estimand.upper()}", INK, "") for n in without]
    key(ax, [*(MARKS[name] for name in drawn), *absent])
    return finish(ax)


def _shown(table: pd.DataFrame) -> tuple[str, ...]:
    """The estimators to draw where none are named."""
    asked = {name for name, estimator in ESTIMATORS.items() if estimator.shown}
    if "recommended" in table:
        asked |= set(table.loc[table["recommended"].isin([True, "True"]), "estimator"])
    return tuple(name for name in MARKS if name in asked)


def naive_vs_rate(table: pd.DataFrame, *, unit: str = "sd", top: int | None = TOP, ax: Axes | None = None) -> Axes:
    """What the naive comparison says and what RATE says, joined: the length of the line is the confounding.

    Parameters
    ----------
    table : DataFrame
        From `rk.estimate`; one lane for each attribute and reward model that has both, the largest gap on top.
    unit : {"sd", "reward"}
        Reward SDs, or the reward's own units.
    top : int or None
        How many lanes at most.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        The intervals in it are RATE's.

    Raises
    ------
    InputError
        No attribute and reward model has both ATEs.

    Examples
    --------
    >>> import ratekit as rk
    >>> ax = naive_vs_rate(rk.estimate(rk.score(rk.load("reviews"), "words", progress=False)))
    >>> ax.get_xlabel()
    'Average treatment effect (reward SDs)'
    """
    need(table, _COLUMNS, "rk.estimate")
    rows = in_unit(table, unit)
    rows = rows[(rows["estimand"] == "ate") & rows["estimate"].notna()]
    pairs: list[tuple[str, Any, Any]] = []
    for label, group in _groups(rows, letters(ax, 0.4)) if len(rows) else []:
        of = group.drop_duplicates("estimator").set_index("estimator")
        if {"naive", "rate"} <= set(of.index):
            pairs.append((label, of.loc["naive"], of.loc["rate"]))
    if not pairs:
        raise InputError("no attribute and reward model has both a naive and a RATE estimate of the ATE")
    pairs.sort(key=lambda pair: -abs(pair[1].estimate - pair[2].estimate))
    shown = pairs[:top]
    ax = lane_axes(ax, [label for label, _, _ in shown], 2)
    zero(ax)
    for y, (_, naive, rate) in enumerate(shown):
        ax.annotate("", (rate.estimate, y), (naive.estimate, y), zorder=2,
                    arrowprops={"arrowstyle": "-|>", "color": ink(ax, 0.4), "shrinkA": 3, "shrinkB": 5})  # fmt: skip
        interval(ax, naive.estimate, y, float("nan"), float("nan"), MARKS["naive"])
        interval(ax, rate.estimate, y, rate.ci_low, rate.ci_high, MARKS["rate"])
    tidy(ax)
    said = some_of(len(shown), len(pairs), "widest gaps")
    axis_names(ax, x=f"{ESTIMAND_TITLES['ate']} ({unit_words(rows, unit)}{unusual_level(table)}){said}")
    key(ax, [MARKS["naive"], MARKS["rate"]])
    return finish(ax)


def _groups(rows: pd.DataFrame, width: int) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) per attribute and reward model, in the table's order; extra grouping columns join the label."""
    keys = [*grouping(rows), "attribute", "reward_model"]
    varying = [k for k in keys if rows[k].nunique() > 1] or ["attribute", "reward_model"]
    said = ["attribute", "reward_model"] if {"attribute", "reward_model"} >= set(varying) else varying
    short = {k: names(rows[k]) for k in said}
    found = []
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        parts = dict(zip(keys, values, strict=True))
        found.append(("\n".join(folded(short[k].get(parts[k], str(parts[k])), width) for k in said), group))
    return found
