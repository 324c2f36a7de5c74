"""The study's three pictures, from its tables."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from ratekit.plots import MARKS

RATE = MARKS["rate"].color
SQUARES = {"marker": "s", "ms": 4.5, "mfc": "white"}  # style, where length is drawn beside it
COLUMNS = (
    ("U-L", "one base", "one base: unbiased\nto length-biased"),
    ("L-S", "one base", "one base: length-\nto style-biased"),
    ("U-L", "raw", "independent:\nas they are"), ("U-L", "aligned", "independent:\naligned"),
    ("U-L", "raw curve", "independent:\ncurve"), ("U-L", "aligned curve", "independent:\naligned, curve"),
)  # fmt: skip


def paths(table: pd.DataFrame) -> Figure:
    """Loss, length and style effects along each path: every seed thin, their mean bold, the chord dashed."""
    rows = (("loss", "Bradley-Terry loss\n(unbiased pairs, nats)", ("loss",)), ("accuracy", "accuracy", ("accuracy",)),
            ("effect", "RATE effect\n(reward SDs)", ("effect/length", "effect/style")))  # fmt: skip
    with sns.axes_style("white"):
        figure, axes = plt.subplots(
            3, len(COLUMNS), figsize=(13.6, 6.6), sharex=True, sharey="row", layout="constrained"
        )
    for column, (between, how, title) in enumerate(COLUMNS):
        of = table[(table["between"] == between) & (table["how"] == how)]
        for row, (_, ylabel, metrics) in enumerate(rows):
            ax = axes[row][column]
            for metric in metrics:
                color = RATE if metric.startswith("effect/") else "0.15"
                wide = of[of["metric"] == metric].pivot_table(index="t", columns="seed", values="value")
                ax.plot(wide.index, wide, color=color, lw=0.7, alpha=0.5)
                mean = wide.mean(axis=1)
                ax.plot(wide.index, mean, color=color, lw=2.0, **(SQUARES if metric == "effect/style" else {}))
                ax.plot([0, 1], mean.iloc[[0, -1]], color=color, lw=0.9, ls=(0, (4, 3)))
            ax.grid(axis="y", color="0.92", lw=0.7)
            sns.despine(ax=ax)
            if column == 0:
                ax.set_ylabel(ylabel)
        axes[0][column].set_title(title, fontsize=10.5)
        axes[2][column].axhline(0, color="0.5", lw=0.8, zorder=0)
        axes[2][column].set_xlabel("t")
    handles = [plt.Line2D([], [], color=RATE, lw=2, label="length"),
               plt.Line2D([], [], color=RATE, lw=2, label="style", **SQUARES),
               plt.Line2D([], [], color="0.3", lw=0.7, label="each seed"),
               plt.Line2D([], [], color="0.3", lw=0.9, ls=(0, (4, 3)), label="chord of the mean")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def merges(table: pd.DataFrame, group: str = "L+S") -> Figure:
    """Accuracy, length and style effect of each method on a group: every seed a dot, the mean and its interval."""
    quantities = {"accuracy": "accuracy on unbiased pairs", "effect/length": "length effect (SD)",
                  "effect/style": "style effect (SD)", "effect/quality": "quality effect (SD)"}  # fmt: skip
    of = table[table["group"] == group]
    order = of[of["quantity"] == "effect/style"].groupby("method")["value"].mean().sort_values().index
    top = [m for m in ("members' mean", "base", "output ensemble") if m in order]
    order = [*top, *(m for m in order if m not in top)]
    with sns.axes_style("white"):
        figure, axes = plt.subplots(1, 4, figsize=(11.5, 1.4 + 0.27 * len(order)), sharey=True, layout="constrained")
    for ax, (quantity, title) in zip(axes, quantities.items(), strict=True):
        color = "0.25" if quantity == "accuracy" else RATE
        for place, method in enumerate(order):
            values = of[(of["quantity"] == quantity) & (of["method"] == method)]["value"].to_numpy()
            if place % 2:
                ax.axhspan(place - 0.5, place + 0.5, color="0.965", lw=0, zorder=0)
            ax.plot(values, [place] * len(values), ".", color=color, alpha=0.35, ms=5, zorder=2)
            low, high = interval(values)
            if np.isfinite(low):
                ax.plot([low, high], [place, place], color=color, lw=1.8, zorder=3)
            ax.plot(values.mean(), place, "o", color=color, ms=6, mec="white", mew=0.8, zorder=4)
        if quantity != "accuracy":
            ax.axvline(0, color="0.5", lw=0.8, zorder=1)
        ax.set_title(title, fontsize=10.5)
        ax.grid(axis="x", color="0.92", lw=0.7)
        sns.despine(ax=ax, left=True)
    axes[0].axhline(len(top) - 0.5, color="0.7", lw=0.8)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    return figure


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The t interval of a mean over seeds; NaN of one seed."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def zeros(table: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """The effect against the coefficient for each seed, and its zero; the effect there on held-out prompts."""
    kinds = list(dict.fromkeys(table["kind"]))
    with sns.axes_style("white"):
        figure, axes = plt.subplots(1, 2 * len(kinds), figsize=(6.2 * len(kinds), 3.6), layout="constrained",
                                    width_ratios=[1.5, 1] * len(kinds))  # fmt: skip
    for k, kind in enumerate(kinds):
        left, right = axes[2 * k], axes[2 * k + 1]
        of = table[table["kind"] == kind]
        for row in of.itertuples():
            curve = curves[(curves["kind"] == kind) & (curves["seed"] == row.seed)]
            left.fill_between(curve["t"], curve["ci_low"], curve["ci_high"], color=RATE, alpha=0.08, lw=0)
            left.plot(curve["t"], curve["value"], color=RATE, lw=1.0, alpha=0.7)
            left.plot([row.ci_low, row.ci_high], [0, 0], color="0.1", lw=2.4, solid_capstyle="butt")
            left.plot(row.coefficient, 0, "o", color="0.1", ms=5, mec="white", mew=0.8)
            right.plot([row.held_out_low, row.held_out_high], [row.seed, row.seed], color=RATE, lw=1.8)
            right.plot(row.held_out, row.seed, "o", color=RATE, ms=6, mec="white", mew=0.8)
            if not np.isfinite(row.coefficient):
                right.annotate("no zero", (0.5, row.seed), xycoords=("axes fraction", "data"), ha="center")
                continue
            note = f"accuracy {100 * row.accuracy_before:.1f} to {100 * row.accuracy:.1f} %"
            right.annotate(
                note, (0.5, row.seed + 0.34), xycoords=("axes fraction", "data"), ha="center", fontsize=8, color="0.35",
                bbox={"fc": "white", "ec": "none", "pad": 1},
            )  # fmt: skip
        for ax in (left, right):
            sns.despine(ax=ax)
            ax.grid(color="0.92", lw=0.7)
        left.axhline(0, color="0.5", lw=0.8)
        left.axvline(-1, color="0.6", lw=0.8, ls=(0, (4, 3)))
        left.set_xlabel("multiple of another seed's bias that is added")
        left.set_ylabel(f"{kind.removesuffix('-biased')} effect (reward SDs)")
        left.set_title(f"{kind} models", fontsize=10.5)
        right.axvline(0, color="0.5", lw=0.8)
        right.set_yticks(range(len(of)), [f"seed {s}" for s in of["seed"]])
        right.set_ylim(len(of) - 0.4, -0.5)
        right.set_xlabel("effect there, held-out prompts")
    return figure
