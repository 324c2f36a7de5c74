"""A run on disk: the dataset, the table, the picture; and what a table says in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ratekit.errors import WorkError, shorten

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

DATASET, EFFECTS, FIGURE, RECORD = "dataset", "effects.csv", "effects.png", "run.json"


def write_dataset(folder: Path, ds: Dataset) -> Path:
    """Save `ds` as `folder`/dataset; an older one is replaced only once the new one is whole."""
    target, new = folder / DATASET, folder / f".{DATASET}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        ds.save_to_disk(str(new))
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    except OSError as e:
        raise WorkError(f"{folder} cannot be written: {shorten(e.strerror or e, 80)}") from None
    return target


def write_table(folder: Path, table: pd.DataFrame) -> list[Path]:
    """Write effects.csv and effects.png into `folder`."""
    from matplotlib.figure import Figure

    from ratekit import plots

    table.to_csv(folder / EFFECTS, index=False)
    unit = "sd" if table["reward_sd"].gt(0).any() else "reward"
    figure = plots.effects(table, unit=unit).figure
    assert isinstance(figure, Figure)
    figure.savefig(folder / FIGURE, dpi=150)
    import matplotlib.pyplot as plt

    plt.close(figure)
    return [folder / EFFECTS, folder / FIGURE]


def write_run(folder: Path, ds: Dataset, table: pd.DataFrame) -> list[Path]:
    """Dataset, table and picture of a run, and their paths."""
    return [write_dataset(folder, ds), *write_table(folder, table)]


def conclusions(table: pd.DataFrame) -> list[str]:
    """One sentence per attribute and reward model: what naive, a single rewrite and RATE each conclude.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> print(conclusions(rk.estimate(ds))[0])
    words, sentiment: naive +0.74 SD, single rewrite +0.02 SD, RATE +0.00 SD [-0.01, +0.02]: no effect is seen.
    """
    from ratekit.stages import standardize

    has_sd = bool(table["reward_sd"].gt(0).any())
    rows, unit = (standardize(table), " SD") if has_sd else (table, "")
    sentences = []
    for (attribute, model), group in rows.groupby(["attribute", "reward_model"], sort=False):
        estimands = group.loc[group["estimator"] == "rate", "estimand"]
        shown = group[group["estimand"] == ("ate" if estimands.empty else estimands.iloc[0])].set_index("estimator")
        parts = []
        for name, words in (("naive", "naive"), ("single_rewrite", "single rewrite"), ("rate", "RATE")):
            if name in shown.index:
                parts.append(f"{words} {shown.loc[name, 'estimate']:+.2f}{unit}")
        if "rate" in shown.index:
            rate = shown.loc["rate"]
            parts[-1] += f" [{rate.ci_low:+.2f}, {rate.ci_high:+.2f}]: {_verdict(str(attribute), rate)}"
        sentences.append(f"{model}, {attribute}: {', '.join(parts)}.")
    return sentences


def _verdict(attribute: str, rate: pd.Series) -> str:
    if not (rate.ci_low > 0 or rate.ci_high < 0):
        return "no effect is seen"
    return f"{attribute} {'raises' if rate.estimate > 0 else 'lowers'} the reward"
