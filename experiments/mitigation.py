"""Did a published mitigation change what eight reward models reward, and is what is left what people want?

    python experiments/mitigation.py ../shared/data/double_rewrites

Reads the real double rewrites of Bharadwaj et al. 2025 (arXiv 2506.05339): 500 answers each for length and structure,
rewritten by GPT-4o to be longer (more structured) and back, and scored by reward models of 2B to 27B before ("base")
and after ("debiased") the authors' mitigation; and people's choices between the two versions for 100 pairs of each.
Writes the tables mitigation*.csv (effects, contrasts, people, and for length under the 8B models the spillover and the
doses) and mitigation.png beside this file; mitigation.md says in words what they show.

The originals were untreated and not scored: the estimand is the ATU, by `rate`, and SDs are those of the rewards of
the second rewrites, which are on the originals' side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ratekit as rk
from ratekit import files, plots
from ratekit.conclusions import explained
from ratekit.sources.public import prompt_key

HERE = Path(__file__).parent
SIZES = ("2B", "3B", "8B", "27B")


def read(folder: Path) -> pd.DataFrame:
    """Both attributes' rows in ratekit's columns, people's choices beside."""
    asked = {(row["bias"], row["query"]): row for row in files.read(folder / "human_preferences.jsonl.gz")}
    rows = []
    for attribute in ("length", "structure"):
        for row in files.read(folder / f"{attribute}.jsonl.gz"):
            people = asked.get((attribute, row["query"]))
            rows.append({
                "prompt_id": prompt_key(row["query"]), "prompt": row["query"], "response": row["original"],
                "attribute": attribute, "treated": False,
                "rewrites": [row["rewrite"], row["rewrite_of_rewrite"]],
                "human_preference": _choice(people), "their_model_prefers": _choice(people, "reward_model_preference"),
                **{f"reward/{m}": [None, s["rewrite"], s["rewrite_of_rewrite"]] for m, s in row["scores"].items()},
            })  # fmt: skip
    return pd.DataFrame(rows)


def _choice(people: dict[str, str] | None, column: str = "human_preference") -> str | None:
    """What was preferred: the version with the attribute ("treated"), the other, or neither."""
    if people is None:
        return None
    if people[column] == "tie":
        return "tie"
    return "treated" if people[column] == people["bias_expressing"] else "untreated"


def with_sd(table: pd.DataFrame, ds: pd.DataFrame) -> pd.DataFrame:
    """The table with the SD of the second rewrites' rewards in place of that of the originals, which have none."""
    sds = {
        (attribute, model): np.std([r[2] for r in rows[f"reward/{model}"]], ddof=1)
        for attribute, rows in ds.groupby("attribute")
        for model in table["reward_model"].unique()
    }
    return table.assign(reward_sd=[sds[a, m] for a, m in zip(table["attribute"], table["reward_model"], strict=True)])


def shares(spillover: pd.DataFrame) -> str:
    """A sentence for each effect: what the measure that it goes through most, other than its own, explains of it."""
    other = spillover[spillover["measure"] != spillover["attribute"].map({"length": "words"})]
    most = other.loc[
        other.groupby(["reward_model", "attribute"], sort=False)["through"].apply(lambda x: x.abs().idxmax())
    ]
    lines = [
        f"- {row.reward_model}: {explained(row.total, row.attribute, row.measure, row.through)}"
        for row in most.itertuples()
    ]
    return "\n".join(["# What else explains the effects, in reward units (`mitigation_spillover.csv`)", "", *lines, ""])


def main() -> None:
    """Effects, contrasts, people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, help="with length.jsonl.gz, structure.jsonl.gz, human_preferences.jsonl.gz"
    )
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    ds = read(args.folder)

    effects = rk.estimate(ds)
    effects = rk.adjust(rk.standardize(with_sd(effects[effects["estimator"] == "rate"], ds)))
    effects = effects[["attribute", "reward_model", "estimand", "estimate", "se", "ci_low", "ci_high", "p_value",
                       "p_adjusted", "n", "n_clusters"]]  # fmt: skip
    contrasts = rk.adjust(
        pd.concat(
            [rk.contrast(ds, f"debiased-{s}", f"base-{s}", unit="sd", sd_pass=2) for s in SIZES], ignore_index=True
        )
    ).rename(columns={"first": "debiased", "second": "base"})
    people = rk.warranted(ds)

    for name, table in (("mitigation", effects), ("mitigation_contrasts", contrasts), ("mitigation_people", people)):
        table.to_csv(args.out / f"{name}.csv", index=False, float_format="%.5g")
    spillover = rk.spillover(ds)
    spillover.to_csv(args.out / "mitigation_spillover.csv", index=False, float_format="%.5g")
    (args.out / "mitigation_spillover.md").write_text(shares(spillover), encoding="utf-8")
    longer, models = ds[ds["attribute"] == "length"], ["base-8B", "debiased-8B"]
    doses = rk.dose_response(longer, rewards=models, bins=3)
    doses.to_csv(args.out / "mitigation_doses.csv", index=False, float_format="%.5g")
    pairs = {size: (f"base-{size}", f"debiased-{size}") for size in SIZES}
    attributes = list(dict.fromkeys(effects["attribute"]))
    figure, axes = plt.subplots(
        2, len(attributes), figsize=(5.2 * len(attributes), 6.4), squeeze=False, layout="constrained"
    )
    for column, attribute in enumerate(attributes):
        plots.before_after(effects, pairs, attribute=attribute, ax=axes[0][column])
        plots.before_after(people, pairs, attribute=attribute, ax=axes[1][column])
    figure.savefig(args.out / "mitigation.png", dpi=150)
    with pd.option_context("display.width", 200, "display.max_columns", 30, "display.max_colwidth", 80):
        for table in (effects, contrasts, people):
            print(table.round(3).to_string(index=False), end="\n\n")


if __name__ == "__main__":
    main()
