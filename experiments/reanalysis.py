"""What the published numbers of RATE say when they are looked at again: `python experiments/reanalysis.py`.

Needs nothing but the tables of experiments/published/. Writes reanalysis.md, in which every number is computed here,
and reanalysis.png beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import ratekit as rk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
SHORT = {
    "sfairXC/FsfairX-LLaMA3-RM-v0.1": "FsfairX",
    "NCSOFT/Llama-3-OffsetBias-RM-8B": "OffsetBias",
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": "ArmoRM",
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": "DistilBERT",
}
KEYS = ["experiment", "reward_model", "step"]


def cells() -> pd.DataFrame:
    """Both final tables: 84 pooled estimates and 154 of the sweeps."""
    return pd.concat([rk.published("pooled").assign(step=np.nan), rk.published("sweeps")], ignore_index=True)


def identity(table: pd.DataFrame) -> pd.DataFrame:
    """For each cell and estimator the printed ATE and the mean of ATT and ATU weighted by their rows."""
    rows = table[table["estimator"] != "naive"]
    wide = rows.pivot_table(
        index=[*KEYS, "estimator", "n_treated", "n_untreated"], columns="estimand", values="estimate", dropna=False
    )
    wide = wide.dropna().reset_index()
    n1, n0 = wide["n_treated"], wide["n_untreated"]
    return wide.assign(weighted=(n1 * wide["att"] + n0 * wide["atu"]) / (n1 + n0))


def paired_ses(estimator: str = "rate") -> pd.DataFrame:
    """Each published ATE with the SE as published (two-sample) and the paired one of the first version.

    Where a cell pools two sources, their paired SEs are put together by the law of total variance:
    s^2 = [sum (n_g - 1) s_g^2 + sum n_g (m_g - m)^2] / (n - 1), with s_g^2 = n_g se_g^2.
    """
    first = pd.concat([rk.published("by-source").assign(step=np.nan), rk.published("sweeps-v1")])
    first = first[(first["estimator"] == estimator) & (first["estimand"] == "ate")]
    rows = []
    final = cells()
    for row in final[(final["estimator"] == estimator) & (final["estimand"] == "ate")].itertuples():
        alike = first["step"].eq(row.step) if row.step == row.step else first["step"].isna()
        parts = first[alike & first["attribute"].eq(row.attribute) & first["reward_model"].eq(row.reward_model)]
        n = (parts["n_treated"] + parts["n_untreated"]).to_numpy(float)
        mean = float(np.average(parts["estimate"], weights=n))
        within = ((n - 1) * n * parts["se"].to_numpy() ** 2).sum()
        between = (n * (parts["estimate"].to_numpy() - mean) ** 2).sum()
        paired = float(np.sqrt((within + between) / (n.sum() - 1) / n.sum()))
        rows.append({
            "experiment": row.experiment, "attribute": row.attribute, "reward_model": row.reward_model,
            "step": row.step, "estimate": row.estimate, "from_sources": mean, "two_sample": row.se, "paired": paired,
            "ratio": row.se / paired, "z_two_sample": row.estimate / row.se, "z_paired": row.estimate / paired,
            "reward_sd": row.reward_sd,
        })  # fmt: skip
    return pd.DataFrame(rows)


def by_source() -> pd.DataFrame:
    """RATE's ATE by source, paired, in the pooled sample's reward SDs, beside the pooled estimate."""
    sources = rk.published("by-source")
    sources = sources[(sources["estimator"] == "rate") & (sources["estimand"] == "ate")]
    pooled = paired_ses().query("step.isna()").set_index(["attribute", "reward_model"])
    index = pd.MultiIndex.from_frame(sources[["attribute", "reward_model"]])
    sd, together = (pooled[c].reindex(index).to_numpy() for c in ("reward_sd", "estimate"))
    return sources.assign(
        z=sources["estimate"] / sources["se"], in_sd=sources["estimate"] / sd, se_sd=sources["se"] / sd, pooled=together
    ).reset_index(drop=True)


def flips() -> pd.DataFrame:
    """The attributes and reward models whose effect changes its sign between sources, each with |z| > 3."""
    found = by_source()
    wide = found[found["z"].abs() > 3].groupby(["attribute", "reward_model"])["estimate"]
    return wide.agg(["min", "max"]).query("min < 0 < max")


def picture(ses: pd.DataFrame, sources: pd.DataFrame) -> Figure:
    """Three panels: what pairing does to the SE, the two sources behind a pooled effect, RATE along the IMDB sweep."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    ink, rate = "0.25", rk.plots.MARKS["rate"]
    with sns.axes_style("white"):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.2, 4.0), layout="constrained")
    kinds = {
        "pooled": ("real data", "o"),
        "sweep-imdb": ("IMDB sweep", "D"),
        "sweep-helpsteer": ("HelpSteer sweep", "v"),
    }
    start = 0
    for kind, (label, marker) in kinds.items():
        ratio = np.sort(ses.loc[ses["experiment"].str.startswith(kind), "ratio"])
        left.plot(start + np.arange(len(ratio)), ratio, marker, color=ink, ms=6, mec="white", mew=0.7)
        left.annotate(label, (start + (len(ratio) - 1) / 2, ratio.max()), xytext=(0, 9), textcoords="offset points",
                      ha="center", color=ink, fontsize=9)  # fmt: skip
        start += len(ratio) + 1
    left.axhline(1, color="0.35", lw=0.9)
    left.set_ylim(0, ses["ratio"].max() + 0.9)
    left.set_xticks([])
    left.set_xlabel("the 34 published ATEs")
    left.set_ylabel("published SE / paired SE")
    left.set_title("Pairs treated as two samples", fontsize=11)

    rows = sources[sources["attribute"] == "length"]
    models = list(dict.fromkeys(rows["reward_model"]))
    marks = {"imdb": ("D", -0.13), "eli5": ("o", 0.13)}
    for place, model in enumerate(models):
        for source, (marker, shift) in marks.items():
            row = rows[(rows["reward_model"] == model) & (rows["source"] == source)].iloc[0]
            middle.errorbar(row["in_sd"], place + shift, xerr=1.96 * row["se_sd"], color=ink, lw=1.8)
            middle.plot(row["in_sd"], place + shift, marker, color=ink, ms=6.2, mec="white", mew=0.8,
                        label=source.upper() if place == 0 else None)  # fmt: skip
        sd = row["in_sd"] / row["estimate"]
        middle.plot(row["pooled"] * sd, place, "s", color=ink, ms=5.6, mfc="white", mew=1.4,
                    label="pooled" if place == 0 else None)  # fmt: skip
    middle.axvline(0, color="0.35", lw=0.9, zorder=0)
    middle.set_yticks(range(len(models)), [SHORT[m] for m in models])
    middle.set_ylim(len(models) - 0.5, -0.5)
    middle.set_xlabel("length effect by RATE (reward SDs)")
    middle.set_title("What pooling hides", fontsize=11)
    middle.legend(frameon=False, fontsize=9, loc="center right")

    sweep = ses[ses["experiment"] == "sweep-imdb"].sort_values("step")
    x, sd = sweep["step"], sweep["reward_sd"]
    published, paired = {"fc": "none", "ec": rate.color, "ls": "--"}, {"fc": rate.color, "alpha": 0.25, "lw": 0}
    for se, shade, label in (("two_sample", published, "as published"), ("paired", paired, "paired")):
        half = 1.96 * sweep[se] / sd
        right.fill_between(x, sweep["estimate"] / sd - half, sweep["estimate"] / sd + half, **shade,
                           label=f"95 %, {label}")  # fmt: skip
    right.plot(x, sweep["estimate"] / sd, "o-", color=rate.color, ms=5, mec="white", mew=0.6, lw=1.6, label=rate.label)
    right.axhline(0, color="0.35", lw=0.9, zorder=0)
    right.set_xlabel("correlation of length and sentiment")
    right.set_ylabel("length effect (reward SDs)")
    right.set_title("IMDB sweep, DistilBERT's positive logit", fontsize=11)
    right.legend(frameon=False, fontsize=9, loc="upper left")
    for ax in (left, middle, right):
        ax.grid(axis="x" if ax is middle else "y", color="0.9", lw=0.7)
        ax.set_axisbelow(True)
        sns.despine(ax=ax, left=ax is middle)
    return figure


PAGE = """\
# The published numbers, looked at again

`python experiments/reanalysis.py` makes this page and its figure from the tables in [published/](published/README.md),
the numbers that the authors of RATE (Reber et al. 2025, arXiv 2410.11348) printed in their notebooks. Nothing is
rewritten or scored here. [Notebook 08](../notebooks/08_reproduce_the_paper.ipynb) takes the same steps slowly.

![SE ratios, length effects by source, and the IMDB sweep](reanalysis.png)

## 1. The tables are consistent: ATE = weighted ATT and ATU

In all {n_cells} cells ({n_real} of real data, {n_sweeps} of the sweeps; single rewrite and RATE) the printed ATE is the
mean of the printed ATT and ATU, weighted by their rows: the largest difference is
{largest}.

## 2. The SEs are of two samples, the rows are pairs

RATE subtracts two rewards of one row. The published SE adds their variances as if they came from different rows; the
first version of the paper printed the paired one for the same numbers (the estimates put together from its sources
agree to {agree}). The published SE is {low:.1f} to {high:.1f} times too wide: {real_low:.1f} to {real_high:.1f} on
real data, {imdb_low:.1f} to {imdb_high:.1f} along the IMDB sweep, {hs_low:.1f} to {hs_high:.1f} along HelpSteer's. The
intervals were safe, but blunt: paired, {least:.0%} to {most:.0%} of the rows
would have given the same precision.

It matters where an effect is small. ArmoRM's length effect is {armo_sd:+.3f} SD: z = {armo_two:.1f} as published,
{armo_paired:.1f} paired. On real data {n_lost} of {n_ates} effects that are told from 0 paired are not by the published
SE; the smallest paired |z| is {smallest:.1f}.

{table_se}

## 3. The IMDB sweep is small, but not zero, and not quite flat

A sentiment classifier should not care for length, whatever length goes with. While the naive estimate climbs from
{naive_0:+.2f} to {naive_1:+.2f} and a single rewrite falls from {single_0:+.2f} to {single_1:+.2f}, RATE stays small:
{rate_0:+.3f} at correlation 0 and {rate_1:+.3f} at 1 (logits; {rate_0_sd:+.3f} and {rate_1_sd:+.3f} reward SDs). By the
published SE {n_not_told} of {n_steps} steps are not told from 0; paired, every one is (z from {z_low:.1f} to
{z_high:.1f}), and the rise along the sweep is real too (z {rise:.1f} between its ends, taken as independent): a residue
of the confounding that two rewrites leave. It has the direction opposite to the single rewrite's, as a rewriter that
converges in more than one pass would leave it; a third rewrite, which nobody has published, could tell
(`rate_extrapolated`).

A caution: the design gives {designed:,} long and as many short reviews at every step, the files analysed have
{n1_low:,} to {n1_high:,} and {n0_low:,} to {n0_high:,}. The labels were not those of the design, and the naive
estimate at correlation 0 is {naive_0:+.2f} (SE {naive_se:.2f}), not 0.

## 4. Pooling hides a change of sign

The published length effects pool IMDB reviews and ELI5 answers. OffsetBias rewards length by {offset:+.2f} pooled:
{offset_imdb:+.2f} on IMDB (z {offset_imdb_z:.0f}) and {offset_eli5:+.2f} on ELI5 (z {offset_eli5_z:.0f}). ArmoRM's
{armo:+.4f} is {armo_imdb:+.4f} (z {armo_imdb_z:.1f}) on IMDB and {armo_eli5:+.4f} (z {armo_eli5_z:.1f}) on ELI5. Both
change sign ({n_flips} of the {n_pairs} effects that pool two sources do); the pooled number is a statement about the
mixture that was chosen, not about the reward model. `rk.estimate(ds, by="source")` gives each source its row.

{table_sources}

## What this cannot say

Chains have two rewrites, so there is no drift test and no extrapolation. Prompts with several answers (ELI5,
HelpSteer) are clusters, and the published paired SEs take each row by itself: clustered ones may be wider. A rewriter
that polishes more in one direction than in the other biases every number here by the same amount.
"""


def _about(difference: float) -> str:
    """A difference that is nothing but rounding is not printed digit by digit: it is another on another machine."""
    return "under 1e-12" if difference < 1e-12 else f"{difference:.0e}"


def numbers() -> dict[str, float | str]:
    """Every number of the page, by the name that it has in `PAGE`."""
    same, ses, sources = identity(cells()), paired_ses(), by_source()
    ratio, found = ses["ratio"], flips()
    kinds = {k: ses[ses["experiment"].str.startswith(k)] for k in ("pooled", "sweep-imdb", "sweep-helpsteer")}
    real, imdb = kinds["pooled"], kinds["sweep-imdb"].sort_values("step")
    first, last = imdb.iloc[0], imdb.iloc[-1]
    sweep = rk.published("sweeps").query("experiment == 'sweep-imdb'").sort_values("step")
    naive, single = (
        sweep[(sweep["estimator"] == e) & (sweep["estimand"] == "ate")].iloc[[0, -1]]
        for e in ("naive", "single_rewrite")
    )
    design = rk.published("designs").query("experiment == 'sweep-imdb' and known_from.str.startswith('reconstructed')")

    def cell(table: pd.DataFrame, model: str, **where: str) -> pd.Series:
        rows = table[(table["attribute"] == "length") & table["reward_model"].str.contains(model)]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.iloc[0]

    armo, offset = cell(real, "ArmoRM"), cell(real, "OffsetBias")
    by = {(m, s): cell(sources, m, source=s) for m in ("ArmoRM", "OffsetBias") for s in ("imdb", "eli5")}
    return {
        "n_cells": len(same), "n_real": int(same["step"].isna().sum()), "n_sweeps": int(same["step"].notna().sum()),
        "largest": _about((same["ate"] - same["weighted"]).abs().max()),
        "agree": _about((ses["estimate"] - ses["from_sources"]).abs().max()),
        "low": ratio.min(), "high": ratio.max(), "most": ratio.min() ** -2, "least": ratio.max() ** -2,
        "real_low": real["ratio"].min(), "real_high": real["ratio"].max(),
        "imdb_low": imdb["ratio"].min(), "imdb_high": imdb["ratio"].max(),
        "hs_low": kinds["sweep-helpsteer"]["ratio"].min(), "hs_high": kinds["sweep-helpsteer"]["ratio"].max(),
        "armo": armo["estimate"], "armo_sd": armo["estimate"] / armo["reward_sd"],
        "armo_two": armo["z_two_sample"], "armo_paired": armo["z_paired"],
        "n_lost": int(((real["z_two_sample"].abs() < 1.96) & (real["z_paired"].abs() >= 1.96)).sum()),
        "n_ates": len(real), "smallest": real["z_paired"].abs().min(),
        "naive_0": naive["estimate"].iloc[0], "naive_1": naive["estimate"].iloc[1], "naive_se": naive["se"].iloc[0],
        "single_0": single["estimate"].iloc[0], "single_1": single["estimate"].iloc[1],
        "rate_0": first["estimate"], "rate_1": last["estimate"],
        "rate_0_sd": first["estimate"] / first["reward_sd"], "rate_1_sd": last["estimate"] / last["reward_sd"],
        "n_not_told": int((imdb["z_two_sample"].abs() < 1.96).sum()), "n_steps": len(imdb),
        "z_low": imdb["z_paired"].min(), "z_high": imdb["z_paired"].max(),
        "rise": (last["estimate"] - first["estimate"]) / np.hypot(first["paired"], last["paired"]),
        "designed": int((design["n_both"] + design["n_attribute_only"]).iloc[0]),
        "n1_low": sweep["n_treated"].min(), "n1_high": sweep["n_treated"].max(),
        "n0_low": sweep["n_untreated"].min(), "n0_high": sweep["n_untreated"].max(),
        "offset": offset["estimate"],
        **{f"{m}_{s}": by[n, s]["estimate"] for m, n in MODELS.items() for s in ("imdb", "eli5")},
        **{f"{m}_{s}_z": by[n, s]["z"] for m, n in MODELS.items() for s in ("imdb", "eli5")},
        "n_flips": len(found),
        "n_pairs": int((sources.groupby(["attribute", "reward_model"]).size() > 1).sum()),
    }  # fmt: skip


MODELS = {"armo": "ArmoRM", "offset": "OffsetBias"}


def page() -> str:
    """reanalysis.md."""
    ses, sources = paired_ses(), by_source()
    head = (
        "| attribute | reward model | RATE (SD) | z as published | z paired | SE ratio |\n|---|---|--:|--:|--:|--:|\n"
    )
    rows = [
        f"| {r.attribute} | {SHORT[r.reward_model]} | {r.estimate / r.reward_sd:+.3f} | {r.z_two_sample:.1f} | "
        f"{r.z_paired:.1f} | {r.ratio:.1f} |"
        for r in ses[ses["experiment"].str.startswith("pooled")].itertuples()
    ]
    table_se = head + "\n".join(rows)
    head = "| attribute | source | reward model | RATE | paired SE | z | pooled |\n|---|---|---|--:|--:|--:|--:|\n"
    rows = [
        f"| {r.attribute} | {r.source} | {SHORT[r.reward_model]} | {r.estimate:+.4f} | {r.se:.5f} | {r.z:.1f} | "
        f"{r.pooled:+.4f} |"
        for r in sources[sources["attribute"].isin(["length", "sentiment"])].itertuples()
    ]
    return PAGE.format(**numbers(), table_se=table_se, table_sources=head + "\n".join(rows))


def main() -> None:
    """Write the page and its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    out = parser.parse_args().out
    (out / "reanalysis.md").write_text(page(), encoding="utf-8")
    picture(paired_ses(), by_source()).savefig(out / "reanalysis.png", dpi=150)
    print(f"wrote {out / 'reanalysis.md'} and {out / 'reanalysis.png'}")


if __name__ == "__main__":
    main()
