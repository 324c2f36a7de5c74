"""Did a published mitigation change what eight reward models reward, and is what is left what people want?

    python experiments/mitigation.py ../shared/data/double_rewrites

Reads the real double rewrites of Bharadwaj et al. 2025 (arXiv 2506.05339): 500 answers each for length and structure,
rewritten by GPT-4o to be longer (more structured) and back, and scored by reward models of 2B to 27B before ("base")
and after ("debiased") the authors' mitigation; and people's choices between the two versions for 100 pairs of each.
Writes the tables mitigation*.csv (effects, contrasts, people, spillover, and for length under the 8B models the doses),
mitigation.png and mitigation.md, which says in words what the tables show and takes every number from them.

The originals were untreated and not scored: the estimand is the ATU, by `rate`, and SDs are those of the rewards of
the second rewrites, which are on the originals' side.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ratekit as rk
from ratekit import files, plots
from ratekit.conclusions import explained
from ratekit.estimators import RewardScale, part_of
from ratekit.groups import reward_matrix
from ratekit.schema import REWARD_PREFIX
from ratekit.sources.public import prompt_key

HERE = Path(__file__).parent
SIZES = ("2B", "3B", "8B", "27B")
TABLES = ("", "_contrasts", "_people", "_spillover", "_doses", "_words")


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


def in_sds(effects: pd.DataFrame, ds: pd.DataFrame) -> pd.DataFrame:
    """The effects in SDs of the second rewrites' rewards, whose own error counts: the originals have none."""
    rows = []
    for e in effects.to_dict("records"):
        of = ds[ds["attribute"] == e["attribute"]]
        r, w = reward_matrix(of, REWARD_PREFIX + e["reward_model"]), of["treated"].to_numpy()
        codes = pd.factorize(of["prompt_id"])[0]
        part = part_of(r, w, codes, "rate", e["estimand"])
        assert part is not None
        value, se, low, high = RewardScale(r[:, 2], w, codes, int(codes.max()) + 1).divide(part, 0.95)
        rows.append({**e, "estimate": value, "se": se, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def lengths(ds: pd.DataFrame) -> pd.DataFrame:
    """The mean number of words of the original, the rewrite and the rewrite of it."""
    rows = []
    for attribute, of in ds.groupby("attribute"):
        texts = zip(of["response"], of["rewrites"].str[0], of["rewrites"].str[1], strict=True)
        means = np.mean([[len(text.split()) for text in chain] for chain in texts], axis=0)
        rows.append({"attribute": attribute, **dict(zip(("original", "rewrite", "rewrite_back"), means, strict=True))})
    return pd.DataFrame(rows)


def tables(folder: Path = HERE) -> dict[str, pd.DataFrame]:
    """The tables beside this file, by what their names end in."""
    return {name: pd.read_csv(folder / f"mitigation{name}.csv") for name in TABLES}


def listed(values: Iterable[object]) -> str:
    """Words, or numbers, in a row: a, b and c."""
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """The least and the largest, or what both are."""
    ends = list(dict.fromkeys(f"{v:{form}}" for v in (min(values), max(values))))
    return " to ".join(ends)


def prose(found: dict[str, pd.DataFrame]) -> str:
    """The page, every number and every "told" from the tables."""
    effects = found[""].set_index(["attribute", "reward_model"])
    contrasts = found["_contrasts"].set_index(["attribute", "reward_model"])
    people = found["_people"].set_index(["attribute", "reward_model"])
    moved = found["_spillover"].set_index(["attribute", "reward_model", "measure"]).sort_index()
    doses = found["_doses"].set_index(["reward_model", "bin"])
    words = found["_words"].set_index("attribute").loc["length"]
    base, after = ([f"{kind}-{size}" for size in SIZES] for kind in ("base", "debiased"))
    change = {size: f"debiased-{size} - base-{size}" for size in SIZES}

    def effect(attribute: str, model: str) -> float:
        return float(effects.loc[(attribute, model), "estimate"])

    def of(table: pd.DataFrame, attribute: str, models: Iterable[str], column: str = "estimate") -> list[float]:
        return [float(table.loc[(attribute, model), column]) for model in models]

    def numbers(table: pd.DataFrame, attribute: str, models: Iterable[str]) -> str:
        return listed(f"{v:.2f}" for v in of(table, attribute, models))

    def told(table: pd.DataFrame, attribute: str, models: Sequence[str]) -> str:
        untold = [m for m in models if not table.loc[(attribute, m), "p_adjusted"] < 0.05]
        if not untold:
            return f"all are told from 0 (p_adjusted at most {max(of(table, attribute, models, 'p_adjusted')):.0e})"
        ps = listed(f"{m} (p_adjusted {table.loc[(attribute, m), 'p_adjusted']:.2f})" for m in untold)
        return f"not told from 0: {ps}"

    def skews(attribute: str, models: Sequence[str]) -> str:
        said = []
        for m in models:
            row = people.loc[(attribute, m)]
            points = (
                f"{m} {100 * row['skew']:+.1f} points [{100 * row['skew_low']:+.0f}, {100 * row['skew_high']:+.0f}]"
            )
            said.append(points + ("" if row["p_adjusted"] < 0.05 else ", not told from people's"))
        return "; ".join(said)

    def verb(effect: float) -> str:
        return "gains" if effect > 0 else "loses"

    signs = {s: np.sign([effects.loc[("length", f"{k}-{s}"), "estimate"] for k in ("base", "debiased")]) for s in SIZES}
    punish = [f"debiased-{s}" for s in SIZES
              if signs[s][1] < 0 and effects.loc[("length", f"debiased-{s}"), "p_adjusted"] < 0.05]  # fmt: skip
    kept = [s for s in SIZES if signs[s][1] > 0]
    keeps = listed(
        f"{s} keeps {effect('length', 'debiased-' + s):.2f} of {effect('length', 'base-' + s):.2f} SD" for s in kept
    )
    punished = listed(f"{m} ({effect('length', m):.2f} SD)" for m in punish)
    disagree = 100 * people["miscalibration"]
    sides = [("before", base), ("after", after)]
    rates = {a: people.loc[(a, base[0]), "human_rate"] for a in ("length", "structure")}
    shift = moved.loc[("length", "base-8B")]
    through = listed(
        f"{shift.loc[m, 'through']:+.1f} through {m}" for m in ("words", "readability", "sentiment", "faults")
    )
    of_structure = [moved.loc[("structure", m, "readability")] for m in (*base, *after)]
    example = moved.loc[("structure", "base-8B", "readability")]
    sentence = explained(example["total"], "structure", "readability", example["through"])
    grown = listed(
        f"{m} {verb(doses.loc[(m, '1'), 'effect'])} {abs(doses.loc[(m, '1'), 'effect']):.1f} and "
        f"{verb(doses.loc[(m, '3'), 'effect'])} {abs(doses.loc[(m, '3'), 'effect']):.1f}"
        for m in ("base-8B", "debiased-8B")
    )  # fmt: skip
    near = {a: [min(abs(effects.loc[(a, m), c]) for c in ("ci_low", "ci_high")) for m in (*base, *after)
                if effects.loc[(a, m), "p_adjusted"] < 0.05] for a in ("length", "structure")}  # fmt: skip
    parts = [
        "# What a published mitigation changed, and what people want",
        "`python experiments/mitigation.py ../shared/data/double_rewrites` makes this page, the tables "
        "`mitigation*.csv` and the figure; each number below is read from those tables. The data: 500 answers "
        "rewritten "
        'by GPT-4o to be longer (more structured) and back, scored by reward models of four sizes before ("base") and '
        'after ("debiased") the mitigation of Bharadwaj et al. 2025 (arXiv 2506.05339), and people\'s choices '
        'for 100 of '
        "the pairs of each attribute. No original has the attribute, so the effects are ATUs, by `rate`, which is what "
        "two rewrites recommend; SDs are those of the rewards of the second rewrites, and their own error is in every "
        f"interval; p-values are adjusted within each table ({len(effects)} effects, {len(contrasts)} contrasts, "
        f"{len(people)} comparisons with people). Each answer is its own cluster.",
        "![effects before and after, and the share of pairs in which the treated version is preferred](mitigation.png)",
        f"**Effects before.** Structure: {numbers(effects, 'structure', base)} SD ({listed(SIZES)}); "
        f"{told(effects, 'structure', base)}. Length: {numbers(effects, 'length', base)} SD; "
        f"{told(effects, 'length', base)}.",
        f"**Did the mitigation change the length effect?** By {numbers(contrasts, 'length', change.values())} SD; "
        f"{told(contrasts, 'length', [*change.values()])}. The contrasts are paired on the same rewrites, so "
        f"that their "
        f"SEs are {spread(of(contrasts, 'length', change.values(), 'se'), '.3f')}, where those of the effects are "
        f"{spread(of(effects, 'length', [*base, *after], 'se'), '.3f')}. Models that now *punish* length: "
        f"{punished}; {keeps}.",
        f"**And the structure effect?** By {numbers(contrasts, 'structure', change.values())} SD; "
        f"{told(contrasts, 'structure', [*change.values()])}. What is left is "
        f"{spread(of(effects, 'structure', after))} SD.",
        f"**Is what is left what people want?** People prefer the longer version in {100 * rates['length']:.1f} "
        f"% of the "
        f"pairs (ties half) and the structured one in {100 * rates['structure']:.1f} %. By how much more often "
        f"each model "
        "does, with 95 % intervals; \"not told\" is said of 100 pairs and is not agreement:",
        *(f"- {a.capitalize()}, {kind}: {skews(a, models)}."
          for a in ("length", "structure") for kind, models in sides),
        "- Agreement is another matter than the rate: debiased-8B disagrees with people on "
        f"{disagree[('length', 'debiased-8B')]:.0f} % of the pairs without a tie under length; "
        f"under structure all models do on {spread(disagree['structure'], '.0f')} %.",
        f'**What else the rewriter moved.** "Longer" by GPT-4o is not length alone: with '
        f'{shift.loc["words", "shift"]:.0f} '
        f"more words the texts also read {shift.loc['readability', 'shift']:.1f} grade levels harder "
        f"({shift.loc['readability', 'shift_sd']:.2f} SD of the originals') and "
        f"{shift.loc['sentiment', 'shift']:.2f} more "
        f"positive ({shift.loc['sentiment', 'shift_sd']:.2f} SD, VADER). A linear split of base-8B's effect of "
        f"{shift.loc['words', 'total']:+.2f} (reward units) gives {through} (`mitigation_spillover.csv`): a "
        f"description, "
        f'not an identified mediation. For structure, "{sentence}" (base-8B); in the eight models that is '
        f"{spread([100 * row['through'] / row['total'] for row in of_structure], '.0f')} % of the effect "
        "(`mitigation_spillover.md` has the sentence of each model). And the effect depends on the dose "
        f"(`mitigation_doses.csv`): in the third of the rows that grew least "
        f"({doses.loc[('base-8B', '1'), 'dose']:.0f} "
        f"words) and in the third that grew most ({doses.loc[('base-8B', '3'), 'dose']:.0f}) {grown}. Those rows "
        f"differ in "
        "more than their dose.",
        "**What this cannot say.** Two rewrites and unscored originals leave no drift test and no extrapolation: "
        "if GPT-4o "
        "still polishes in its second pass, part of an effect is polish. The second rewrites are shorter than the "
        f"originals ({words['rewrite_back']:.0f} against {words['original']:.0f} words on average), so the "
        f"length effect "
        'is per "longer and back", not per word. A direction asymmetry of the rewriter would make the effects that are '
        f"told from 0 untold at {spread(near['structure'])} SD (structure) and {spread(near['length'])} SD (length).",
    ]  # fmt: skip
    filled = [p if p.startswith(("#", "!")) else textwrap.fill(p, 120, break_long_words=False, break_on_hyphens=False,
              subsequent_indent="  " if p.startswith("- ") else "") for p in parts]  # fmt: skip
    joined = "\n\n".join(filled)
    return re.sub(r"\n\n(?=- )", "\n", joined).replace("agreement:\n-", "agreement:\n\n-") + "\n"


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
    effects = rk.adjust(in_sds(effects[effects["estimator"] == "rate"], ds))
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
    longer, models = ds[ds["attribute"] == "length"], ["base-8B", "debiased-8B"]
    doses = rk.dose_response(longer, rewards=models, bins=3)
    doses.to_csv(args.out / "mitigation_doses.csv", index=False, float_format="%.5g")
    lengths(ds).to_csv(args.out / "mitigation_words.csv", index=False, float_format="%.5g")
    written = tables(args.out)
    (args.out / "mitigation_spillover.md").write_text(shares(written["_spillover"]), encoding="utf-8")
    (args.out / "mitigation.md").write_text(prose(written), encoding="utf-8")
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
