"""What the authors of RATE published, as tables: `rk.published("pooled")`, `rk.published("imdb-length")`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ratekit.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd

TABLES = {
    "pooled": "pooled.csv",
    "by-source": "by_source.csv",
    "sweeps": "sweeps.csv",
    "sweeps-v1": "sweeps_v1.csv",
    "rewrite-effects": "rewrite_effects.csv",
    "typo-slopes": "typo_slopes.csv",
    "typo-curves": "typo_curves.csv",
    "designs": "designs.csv",
}


def folder() -> Path:
    """Where the experiments are: beside the package in a checkout, inside it in a wheel. Raises InputError."""
    package = Path(__file__).parents[1]
    for place in (package / "reproduce" / "experiments", package.parent / "experiments"):
        if (place / "registry.py").exists():
            return place
    raise InputError("the folder experiments/ is neither beside the package nor in it; reinstall ratekit")


def published(name: str) -> pd.DataFrame:
    """A table of published numbers, or all that was published of one experiment.

    Columns, sources and how each SE was reckoned: experiments/published/README.md. From the notebooks of Reber et al.
    (2025), arXiv 2410.11348.

    Parameters
    ----------
    name
        a table ("pooled", "by-source", "sweeps", "sweeps-v1", "rewrite-effects", "typo-slopes", "typo-curves",
        "designs"), or an experiment ("imdb-length", "sweep-imdb", ...); of an experiment each estimate stands there
        once, with the paired SE where one was published

    Raises
    ------
    InputError
        For a name that is neither, or an experiment of which nothing was published.

    Examples
    --------
    >>> table = published("imdb-length")
    >>> rate = table[(table.estimator == "rate") & (table.estimand == "ate")]
    >>> dict(zip(rate.reward_model.str.split("/").str[1], rate.estimate.round(3)))
    {'Llama-3-OffsetBias-RM-8B': 0.274, 'ArmoRM-Llama3-8B-v0.1': 0.0, 'FsfairX-LLaMA3-RM-v0.1': 0.35}
    >>> len(published("pooled"))
    84
    """
    import pandas as pd

    if name in TABLES:
        return pd.read_csv(folder() / "published" / TABLES[name])
    if name == "sweep-typos":
        curves = published("typo-curves").rename(columns={"estimate_sd": "estimate"})
        return curves.assign(reward_sd=1.0)  # read off figures that are in reward SDs
    rows = pd.concat([published("sweeps-v1"), published("sweeps"), published("by-source")], ignore_index=True)
    known = sorted({*rows["experiment"], "sweep-typos"})
    rows = rows[rows["experiment"] == name]
    if rows.empty:
        raise unknown("published table or experiment", name, [*TABLES, *known])
    rows = rows.assign(_two_sample=rows["se_kind"] == "two-sample", _order=range(len(rows)))
    keys = ["reward_model", "step", "estimator", "estimand"]
    kept = rows.sort_values(["_two_sample", "_order"]).drop_duplicates(keys).sort_values("_order")
    if kept["reward_sd"].isna().any():  # the first version printed none; the same sample's stands in the later one
        sds = rows.dropna(subset=["reward_sd"]).drop_duplicates(["reward_model", "step"])
        sds = sds.set_index(["reward_model", "step"])["reward_sd"]
        index = pd.MultiIndex.from_frame(kept[["reward_model", "step"]])
        kept = kept.assign(reward_sd=kept["reward_sd"].fillna(pd.Series(sds.reindex(index).to_numpy(), kept.index)))
    kept = kept.drop(columns=["_two_sample", "_order"]).reset_index(drop=True)
    return kept.dropna(axis="columns", how="all")
