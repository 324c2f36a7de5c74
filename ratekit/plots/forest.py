"""Effects with their intervals: the forest of all estimators, and naive against RATE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekit.errors import InputError, unknown
from ratekit.plots.look import (
    ESTIMANDS,
    MARKS,
    SHOWN,
    UNITS,
    canvas,
    grouping,
    in_unit,
    interval,
    key,
    lanes,
    marks_of,
    need,
    plain,
    tidy,
    zero,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = ("attribute", "reward_model", "estimator", "estimand", "estimate", "ci_low", "ci_high")


def effects(
    table: pd.DataFrame,
    *,
    estimators: tuple[str, ...] = SHOWN,
    estimand: str = "ate",
    unit: str = "sd",
    ax: Axes | None = None,
) -> Axes:
    """A forest of effects: for each attribute and reward model the estimators side by side, with intervals.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> ax = effects(rk.estimate(ds))
    >>> ax.get_xlabel()
    'Average treatment effect on the reward (reward SDs)'

    table       what `rk.estimate` gives
    estimators  which, from top to bottom
    estimand    "ate", "att" or "atu"; where a table has none of it, the one it has
    unit        "sd" (reward SDs) or "reward" (the reward's own units)
    ax          drawn into; by default a new figure of fitting height

    Raises InputError where the table holds none of these.
    """
    need(table, COLUMNS, "rk.estimate")
    for name in estimators:
        if name not in MARKS:
            raise unknown("estimator", name, MARKS)
    if estimand not in ESTIMANDS:
        raise unknown("estimand", estimand, ESTIMANDS)
    rows = in_unit(table, unit)
    rows = rows[rows["estimator"].isin(estimators)]
    if rows.empty:
        raise InputError(f"the table holds none of {', '.join(estimators)}")
    if estimand not in set(rows["estimand"]):
        estimand = str(rows["estimand"].iloc[0])
    rows = rows[rows["estimand"] == estimand]
    groups = _groups(rows)
    step = 0.75 / max(len(estimators), 1)
    ax = canvas(ax, 7.2, 1.3 + len(groups) * (0.30 + 0.17 * len(estimators)))
    lanes(ax, [label for label, _ in groups])
    zero(ax)
    for place, (_, group) in enumerate(groups):
        for k, name in enumerate(estimators):
            for row in group[group["estimator"] == name].itertuples():
                y = place + (k - (len(estimators) - 1) / 2) * step
                interval(ax, row.estimate, y, row.ci_low, row.ci_high, MARKS[name])
    tidy(ax)
    ax.set_xlabel(f"{ESTIMANDS[estimand]} on the reward ({UNITS[unit]})")
    key(ax, [MARKS[name] for name in marks_of(rows, estimators)])
    return ax


def naive_vs_rate(table: pd.DataFrame, *, unit: str = "sd", ax: Axes | None = None) -> Axes:
    """What the naive comparison says and what RATE says, joined: the length of the line is the confounding.

    >>> import ratekit as rk
    >>> ax = naive_vs_rate(rk.estimate(rk.score(rk.load("reviews"), "words", progress=False)))
    >>> ax.get_xlabel()
    'Average treatment effect on the reward (reward SDs)'

    table  what `rk.estimate` gives; one lane for each attribute and reward model that has both, the largest gap on top
    unit   "sd" (reward SDs) or "reward" (the reward's own units)
    ax     drawn into; by default a new figure of fitting height

    The interval is RATE's. Raises InputError where no attribute and reward model has both ATEs.
    """
    need(table, COLUMNS, "rk.estimate")
    rows = in_unit(table, unit)
    rows = rows[(rows["estimand"] == "ate") & rows["estimate"].notna()]
    pairs = []
    for label, group in _groups(rows) if len(rows) else []:
        of = group.drop_duplicates("estimator").set_index("estimator")
        if {"naive", "rate"} <= set(of.index):
            pairs.append((label, of.loc["naive"], of.loc["rate"]))
    if not pairs:
        raise InputError("no attribute and reward model has both a naive and a RATE estimate of the ATE")
    pairs.sort(key=lambda pair: -abs(pair[1].estimate - pair[2].estimate))
    ax = canvas(ax, 7.2, 1.3 + 0.46 * len(pairs))
    lanes(ax, [label for label, _, _ in pairs])
    zero(ax)
    for y, (_, naive, rate) in enumerate(pairs):
        ax.annotate("", (rate.estimate, y), (naive.estimate, y), zorder=2,
                    arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 3, "shrinkB": 5})  # fmt: skip
        interval(ax, naive.estimate, y, float("nan"), float("nan"), MARKS["naive"])
        interval(ax, rate.estimate, y, rate.ci_low, rate.ci_high, MARKS["rate"])
    tidy(ax)
    ax.set_xlabel(f"{ESTIMANDS['ate']} on the reward ({UNITS[unit]})")
    key(ax, [MARKS["naive"], MARKS["rate"]])
    return ax


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) per attribute and reward model, in the table's order; extra grouping columns join the label."""
    keys = [*grouping(rows), "attribute", "reward_model"]
    varying = [k for k in keys if rows[k].nunique() > 1] or ["attribute", "reward_model"]
    names = ["attribute", "reward_model"] if {"attribute", "reward_model"} >= set(varying) else varying
    found = []
    for values, group in rows.groupby(keys, sort=False, dropna=False):
        parts = dict(zip(keys, values, strict=True))
        found.append(("\n".join(plain(parts[k]) for k in names), group))
    return found
