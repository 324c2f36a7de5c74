"""Pictures of tables: a DataFrame in, a `matplotlib` Axes out. Nothing is estimated here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.errors import InputError, unknown
from ratekit.stages import standardize

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def before_after(
    effects: pd.DataFrame,
    people: pd.DataFrame,
    pairs: dict[str, tuple[str, str]],
    labels: tuple[str, str] = ("before", "after"),
) -> Figure:
    """Effects of reward models before and after a mitigation, and how often they prefer the treated version.

    effects  standardized rows of `rk.estimate`, one estimator and estimand
    people   what `rk.warranted` gives
    pairs    {label: (reward model before, after)}

    One column for each attribute; above effects with their intervals, below shares of pairs, people's as a line.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    attributes = list(dict.fromkeys(effects["attribute"]))
    styles = ((MARKS["naive"].color, "s", labels[0]), (MARKS["rate"].color, "o", labels[1]))
    with sns.axes_style("white"):
        figure, axes = plt.subplots(
            2, len(attributes), figsize=(3.9 * len(attributes), 5.4), squeeze=False, sharey="row", layout="constrained"
        )
    for column, attribute in enumerate(attributes):
        top, bottom = axes[0][column], axes[1][column]
        of = effects[effects["attribute"] == attribute].set_index("reward_model")
        rates = people[people["attribute"] == attribute].set_index("reward_model")
        for place, models in enumerate(pairs.values()):
            for k, (model, (color, marker, _)) in enumerate(zip(models, styles, strict=True)):
                x = place + (k - 0.5) * 0.24
                row = of.loc[model]
                top.plot([x, x], [row["ci_low"], row["ci_high"]], color=color, lw=1.8, solid_capstyle="butt")
                top.plot(x, row["estimate"], marker, color=color, ms=6.2, mec="white", mew=0.8)
                bottom.plot(x, rates.loc[model, "model_rate"], marker, color=color, ms=6.2, mec="white", mew=0.8)
        top.axhline(0, color="0.35", lw=0.9, zorder=1)
        human = float(rates["human_rate"].iloc[0])
        bottom.axhline(human, color="0.2", lw=1.2, ls="--", zorder=1)
        bottom.annotate("people", (1.0, human), xycoords=("axes fraction", "data"), xytext=(-3, 3),
                        textcoords="offset points", ha="right", color="0.2", fontsize=9)  # fmt: skip
        bottom.set_ylim(0, 1.04)
        top.set_title(attribute)
        for ax in (top, bottom):
            ax.set_xticks(range(len(pairs)), list(pairs))
            ax.set_xlim(-0.4, len(pairs) - 0.1)
            ax.grid(axis="y", color="0.9", lw=0.7)
            ax.set_axisbelow(True)
            sns.despine(ax=ax)
    axes[0][0].set_ylabel("Effect on the reward (SDs)")
    axes[1][0].set_ylabel("Share of pairs in which the\ntreated version is preferred")
    handles = [
        plt.Line2D([], [], color=c, marker=m, lw=1.8, ms=6.2, mec="white", label=label) for c, m, label in styles
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def sweep(table: pd.DataFrame, *, unit: str = "sd") -> Figure:
    """Estimates along a confounder beside the truth: what `rk.simulate.sweep` gives, one panel for each design.

    unit  "sd" divides each sweep by its mean reward SD; "reward" leaves the reward's own units
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    designs = list(dict.fromkeys(zip(table["design"], table["reward_model"], strict=True)))
    with sns.axes_style("white"):
        figure, axes = plt.subplots(
            1, len(designs), figsize=(3.9 * len(designs), 3.6), squeeze=False, layout="constrained"
        )
    for ax, (design, model) in zip(axes[0], designs, strict=True):
        rows = table[(table["design"] == design) & (table["reward_model"] == model)]
        sd = float(rows["reward_sd"].mean()) if unit == "sd" else 1.0
        names = [name for name in MARKS if name in set(rows["estimator"])]
        truth = rows[rows["estimator"] == names[0]].sort_values("step")
        ax.plot(truth["step"], truth["truth"] / sd, color="0.1", lw=1.0, ls=(0, (4, 3)), label="truth", zorder=4)
        for name in names:
            of, mark = rows[rows["estimator"] == name].sort_values("step"), MARKS[name]
            ax.fill_between(of["step"], of["ci_low"] / sd, of["ci_high"] / sd, color=mark.color, alpha=0.15, lw=0)
            ax.plot(of["step"], of["estimate"] / sd, marker=mark.marker, color=mark.color, ms=5, mec="white", mew=0.6,
                    lw=1.6, label=mark.label)  # fmt: skip
        ax.set_title(design if len({m for _, m in designs}) == 1 else f"{design}, {model}", fontsize=11)
        ax.set_xlabel(SWEPT.get(design, "step"))
        ax.grid(axis="y", color="0.9", lw=0.7)
        ax.set_axisbelow(True)
        sns.despine(ax=ax)
    axes[0][0].set_ylabel("Average treatment effect (reward SDs)" if unit == "sd" else "Average treatment effect")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


SWEPT = {
    "length-sentiment": "correlation of length and sentiment",
    "helpfulness-complexity": "correlation of helpfulness and complexity",
    "vowel-typos": "share misspelt, vowel-starting texts only",
}


def coverage(table: pd.DataFrame, *, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Coverage of intervals against the truth: a table with columns world, about, n, estimator, coverage."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    worlds = list(dict.fromkeys(zip(table["world"], table["about"], table["n"], strict=True)))
    names = [name for name in MARKS if name in set(table["estimator"])]
    with sns.axes_style("white"):
        if ax is None:
            _, ax = plt.subplots(figsize=(7.6, 1.2 + 0.24 * len(worlds)), layout="constrained")
    ax.axvline(100 * level, color="0.35", lw=0.9, zorder=1)
    kinds = list(dict.fromkeys(world for world, _, _ in worlds))
    for place, (world, about, n) in enumerate(worlds):
        if kinds.index(world) % 2:
            ax.axhspan(place - 0.5, place + 0.5, color="0.965", lw=0, zorder=0)
        for name in names:
            of = table[(table["world"] == world) & (table["about"] == about) & (table["n"] == n)]
            of = of[of["estimator"] == name]
            ax.plot(100 * of["coverage"], [place] * len(of), MARKS[name].marker, color=MARKS[name].color, ms=6,
                    mec="white", mew=0.7, zorder=3)  # fmt: skip
    ax.set_yticks(range(len(worlds)), [f"{about}, n = {n:,}" for _, about, n in worlds], fontsize=8.5)
    ax.set_ylim(len(worlds) - 0.5, -0.5)
    ax.set_xlim(-2, 102)
    ax.set_xlabel(f"intervals that cover the truth, % (nominal {100 * level:.0f})")
    for kind in kinds:
        first = next(i for i, w in enumerate(worlds) if w[0] == kind)
        ax.annotate(kind, (1.0, first), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                    va="center", fontsize=9, color="0.3", annotation_clip=False)  # fmt: skip
    ax.grid(axis="x", color="0.9", lw=0.7)
    sns.despine(ax=ax, left=True)
    _legend(ax, names)
    return ax
