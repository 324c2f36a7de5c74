"""The pictures of the results: `python experiments/real/pictures.py` draws them again from the tables beside them.

`planted_effects` is not among them: its table of effects is not kept, and the study draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

import ratekit as rk
from ratekit.plots.style import MARKS, styled


def beside_published(ours: pd.DataFrame) -> Any:
    """The sweep beside the published one, in mean reward SDs of each."""
    theirs = rk.published("sweeps").query("experiment == 'sweep-imdb'")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for ax, table, title in zip(axes, (theirs, ours), ("published: GPT-4o, DistilBERT", "SmolLM2-135M, MiniLM"),
                                strict=True):  # fmt: skip
        for name in ("naive", "single_rewrite", "rate"):
            rows = table[(table["estimator"] == name) & (table["estimand"] == "ate")].sort_values("step")
            effect = rows["estimate"] / table["reward_sd"].mean()
            ax.plot(rows["step"], effect, label=MARKS[name].label, **styled(ax, MARKS[name], line=True))
        ax.axhline(0, color="0.6", lw=0.8)
        ax.set(title=title, xlabel="correlation of length and sentiment")
    axes[0].set_ylabel("effect of length (reward SDs)")
    axes[1].legend(frameon=False)
    return figure


PICTURES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "rewriter_effects": lambda effects: rk.plots.effects(effects).figure,
    "merging_audit": lambda merges: rk.plots.merges(merges, about="length").figure,
    "sweep": beside_published,
}


def save(figure: Any, folder: Path, name: str) -> None:
    """Write a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close("all")


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    for name, picture in PICTURES.items():
        save(picture(pd.read_csv(results / f"{name}.csv")), results, name)
