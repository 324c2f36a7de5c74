"""What an effects table says, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekit.stages import standardize

if TYPE_CHECKING:
    import pandas as pd


def conclusions(table: pd.DataFrame) -> list[str]:
    """One sentence per attribute and reward model: what naive, a single rewrite and RATE each conclude.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> print(conclusions(rk.estimate(ds))[0])
    words, sentiment: naive +0.74 SD, single rewrite +0.02 SD, RATE +0.00 SD [-0.01, +0.02]: no effect is seen.
    """
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
            interval = f" [{rate.ci_low:+.2f}, {rate.ci_high:+.2f}]" if rate.se > 0 else ""
            parts[-1] += f"{interval}: {_verdict(str(attribute), rate)}"
        sentences.append(f"{model}, {attribute}: {', '.join(parts)}.")
    return sentences


def _verdict(attribute: str, rate: pd.Series) -> str:
    if not (rate.ci_low > 0 or rate.ci_high < 0):
        return "no effect is seen"
    return f"{attribute} {'raises' if rate.estimate > 0 else 'lowers'} the reward"
