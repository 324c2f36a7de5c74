"""What merging does to what reward models reward: a panel for the accuracy, one for each attribute's effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By shape and lightness as well as by colour (Okabe and Ito).
MARKS = {
    "member": ("#0072B2", "o"),
    "base": ("#9a9a9a", "s"),
    "best_single": ("#56B4E9", "o"),
    "ensemble": ("#E69F00", "D"),
    "merge": ("#004060", "v"),
}


def merges(table: pd.DataFrame, unit: str = "sd") -> Figure:
    """Accuracy and effects with their intervals, a line a model; the band is where the members' effects lie.

    Parameters
    ----------
    table : DataFrame
        As `rk.merging.audit` makes it.
    unit : {"sd", "reward"}
        In which its effects are.

    Examples
    --------
    >>> figure = merges(table)  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt
    import seaborn as sns

    effects = [c.removesuffix("_se") for c in table.columns if c.endswith("_se") and " - " not in c]
    effects = [c for c in effects if c not in ("accuracy", "loss") and table[c].notna().any()]
    panels = [*(["accuracy"] if table["accuracy"].notna().any() else []), *effects]
    shown = table[table["kind"] != "best_single"].reset_index(drop=True)
    with sns.axes_style("white"):
        drawn, axes = plt.subplots(
            1, len(panels), figsize=(2.2 + 2.9 * len(panels), 1.2 + 0.3 * len(shown)), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
    for ax, panel in zip(axes[0], panels, strict=True):
        _panel(ax, shown, panel, "reward SDs" if unit == "sd" else "reward units")
    labels = [
        f"{row['model']}  (barrier {row['barrier']:.3f})" if np.isfinite(row["barrier"]) else str(row["model"])
        for _, row in shown.iterrows()
    ]
    axes[0][0].set_yticks(range(len(shown)), labels)
    axes[0][0].set_ylim(len(shown) - 0.5, -0.5)
    return drawn


def _panel(ax: Axes, rows: pd.DataFrame, panel: str, unit: str) -> None:
    members = rows.loc[rows["kind"] == "member", panel]
    if panel != "accuracy":
        ax.axvspan(members.min(), members.max(), color="#0072B2", alpha=0.08, lw=0)
        ax.axvline(0, color="0.35", lw=0.9)
    for place, row in rows.iterrows():
        color, marker = MARKS[row["kind"]]
        if np.isfinite(row[f"{panel}_ci_low"]):
            ax.plot([row[f"{panel}_ci_low"], row[f"{panel}_ci_high"]], [place, place], color=color, lw=1.8)
        ax.plot(row[panel], place, marker, color=color, ms=6.2, mec="white", mew=0.8)
    estimand = next(iter(rows[f"{panel}_estimand"].dropna()), "ate") if f"{panel}_estimand" in rows else "ate"
    on = "" if estimand == "ate" else f"{estimand.upper()}, "
    ax.set_xlabel("accuracy on pairs" if panel == "accuracy" else f"effect of {panel} ({on}{unit})")
    ax.grid(axis="x", color="0.9", lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
