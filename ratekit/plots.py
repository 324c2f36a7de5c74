"""Pictures of tables: a DataFrame in, a `matplotlib` Axes out. Nothing is estimated here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.errors import InputError, unknown
from ratekit.stages import standardize

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Mark(NamedTuple):
    """How an estimator is drawn: told apart by shape and by lightness as well as by colour (Okabe and Ito)."""

    label: str
    color: str
    marker: str


MARKS: dict[str, Mark] = {
    "naive": Mark("naive", "#9a9a9a", "s"),
    "single_rewrite": Mark("single rewrite", "#E69F00", "D"),
    "rate": Mark("RATE", "#0072B2", "o"),
    "rate_late": Mark("RATE, late pair", "#56B4E9", "^"),
    "rate_extrapolated": Mark("RATE, extrapolated", "#004060", "v"),
}
SHOWN = ("naive", "single_rewrite", "rate")


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
    import matplotlib.pyplot as plt
    import seaborn as sns

    if unit not in ("sd", "reward"):
        raise unknown("unit", unit, ["sd", "reward"])
    for name in estimators:
        if name not in MARKS:
            raise unknown("estimator", name, MARKS)
    rows = standardize(table) if unit == "sd" else table
    if unit == "sd" and not rows["estimate"].notna().any():
        raise InputError("no reward SD in the table (the originals were not scored); draw it with unit='reward'")
    rows = rows[rows["estimator"].isin(estimators)]
    if rows.empty:
        raise InputError(f"the table holds none of {', '.join(estimators)}")
    if estimand not in set(rows["estimand"]):
        estimand = str(rows["estimand"].iloc[0])
    rows = rows[rows["estimand"] == estimand]
    groups = _groups(rows)
    step = 0.75 / max(len(estimators), 1)
    with sns.axes_style("white"):
        if ax is None:
            height = 1.3 + len(groups) * (0.30 + 0.17 * len(estimators))
            _, ax = plt.subplots(figsize=(7.2, height), layout="constrained")
        ax.axvline(0, color="0.35", lw=0.9, zorder=1)
        for place, (_, group) in enumerate(groups):
            if place % 2:
                ax.axhspan(place - 0.5, place + 0.5, color="0.965", lw=0, zorder=0)
            for k, name in enumerate(estimators):
                _point(
                    ax, group[group["estimator"] == name], place + (k - (len(estimators) - 1) / 2) * step, MARKS[name]
                )
    ax.set_yticks(range(len(groups)), [label for label, _ in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", colors="0.25")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.grid(axis="x", color="0.9", lw=0.7)
    ax.set_axisbelow(True)
    ax.set_xlabel(_xlabel(estimand, unit))
    _legend(ax, [name for name in estimators if name in set(rows["estimator"])])
    return ax


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(label, rows) per attribute and reward model, in the table's order; extra grouping columns join the label."""
    extra = list(rows.columns[: list(rows.columns).index("attribute")])
    keys = [*extra, "attribute", "reward_model"]
    varying = [k for k in keys if rows[k].nunique() > 1] or ["attribute", "reward_model"]
    names = ["attribute", "reward_model"] if {"attribute", "reward_model"} >= set(varying) else varying
    found = []
    for key, group in rows.groupby(keys, sort=False, dropna=False):
        parts = dict(zip(keys, key, strict=True))
        found.append(("\n".join(str(parts[k]) for k in names), group))
    return found


def _point(ax: Axes, row: pd.DataFrame, y: float, mark: Mark) -> None:
    if row.empty or not np.isfinite(row["estimate"].iloc[0]):
        return
    x, low, high = (float(row[c].iloc[0]) for c in ("estimate", "ci_low", "ci_high"))
    if np.isfinite(low) and np.isfinite(high):
        ax.plot([low, high], [y, y], color=mark.color, lw=1.8, solid_capstyle="butt", zorder=2)
    ax.plot(x, y, mark.marker, color=mark.color, ms=6.2, mec="white", mew=0.8, zorder=3)


def _xlabel(estimand: str, unit: str) -> str:
    of = {"ate": "Average treatment effect", "att": "Effect on the treated", "atu": "Effect on the untreated"}
    return f"{of[estimand]} on the reward ({'reward SDs' if unit == 'sd' else 'reward units'})"


def _legend(ax: Axes, names: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=MARKS[n].color, marker=MARKS[n].marker, lw=1.8, ms=6.2, mec="white", label=MARKS[n].label)
        for n in names
    ]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(handles), frameon=False,
        borderaxespad=0.2, handlelength=1.8, columnspacing=1.8,
    )  # fmt: skip
