"""Every named experiment offline, and what the full run would cost: the table of the README.

    python experiments/offline.py --data ../shared/data

Trains the demo's small reward model, rewrites by rules, scores with it, and prints for each experiment the published
effect beside ours. Ours shows that the pipeline is whole and what it finds for a model whose planted bias is known
(0.02 a word); it is no reproduction, which takes an LLM. Costs are those of ratekit's own estimator for the paper's
settings (gpt-4o-2024-08-06 by the Batch API, prices of experiments/registry.py), on the files at hand and scaled to the
paper's number of rows; HelpSteer, which is not at hand, with responses of 500 characters.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import pandas as pd
import reanalysis

import ratekit as rk
from ratekit.demo import simulate_reviews, train_reward_model
from ratekit.reproduce.experiment import Experiment, experiments, list_prices

FILES = {
    "imdb": ["imdb_train_3000.jsonl.gz"],
    "eli5": ["eli5_human_answers.jsonl.gz"],
    "hh-rlhf": ["hh_rlhf_helpful_base_test.jsonl.gz"],
    "flattery-fluff-fog": ["double_rewrites/length.jsonl.gz", "double_rewrites/structure.jsonl.gz"],
    "length-variants": ["alpaca_eval_length_variants.jsonl.gz"],
}
FLOPS = 2 * 8e9 / (0.4 * 989e12)  # seconds a token: 8B parameters on one H100 at 40 % of its bf16 peak


def made_up_helpsteer(folder: Path, n: int = 600) -> Path:
    """A file in HelpSteer's schema, of responses of about 500 characters."""
    path = folder / "helpsteer.jsonl"
    rows = [
        {"prompt": f"Say why, no. {i // 4}.", "response": r.text[:500], "helpfulness": (i * 7) % 5, "correctness": 3,
         "coherence": 3, "complexity": (i * 3 + int(r.positive)) % 5, "verbosity": 2}
        for i, r in enumerate(simulate_reviews(n))
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def theirs(experiment: Experiment) -> str:
    """What was published, in a few words."""
    if experiment.name in ("sweep-imdb", "sweep-helpsteer"):
        rows = rk.published("sweeps").query("experiment == @experiment.name and estimand == 'ate'").sort_values("step")
        ends = []
        for name, word in (("naive", "naive"), ("single_rewrite", "single"), ("rate", "RATE")):
            of = rows[rows["estimator"] == name]
            ends.append(f"{word} {_ends(of)}")
        return ", ".join(ends)
    if experiment.name == "sweep-typos":
        slopes = rk.published("typo-slopes").query("unit == 'sd' and reward_model.str.contains('Fsfair')")
        slopes = slopes.set_index("estimator")["slope_per_percent"]
        return f"FsfairX, slope per 10 %: single {10 * slopes['single_rewrite']:+.2f}, RATE {10 * slopes['rate']:+.2f}"
    rows = reanalysis.by_source().query("experiment == @experiment.name")
    return ", ".join(f"{reanalysis.SHORT[r.reward_model]} {r.in_sd:+.2f}" for r in rows.itertuples()) or "-"


def ours(experiment: Experiment, table: pd.DataFrame) -> str:
    """What our offline run says, in a few words."""
    table = table[table["reward_model"] == table["reward_model"].iloc[-1]]
    if "model" in table:  # many models answered: the smallest and the largest effect of asking for more
        asked = rk.standardize(table[(table["estimator"] == "naive") & (table["attribute"] == "verbose-concise")])
        return f"verbose - concise: {asked['estimate'].min():+.2f} to {asked['estimate'].max():+.2f} over six models"
    if experiment.sweep:
        ate = table[table["estimand"] == "ate"].sort_values("step")
        words = (
            ("naive", "naive"),
            ("single_rewrite", "single"),
            ("rate", "RATE"),
            ("rate_extrapolated", "extrapolated"),
        )
        found = [(word, ate[ate["estimator"] == name]) for name, word in words]
        return ", ".join(f"{word} {_ends(of)}" for word, of in found)
    rows = rk.standardize(table)
    shown = rows[rows["estimator"] == ("rate" if "rate" in set(rows["estimator"]) else "naive")]
    shown = shown[shown["estimand"] == shown["estimand"].iloc[0]]
    return ", ".join(
        f"{'' if shown['attribute'].nunique() == 1 else r.attribute + ' '}{r.estimate:+.2f} ± {1.96 * r.se:.2f}"
        for r in shown.itertuples()
    )


def _ends(rows: pd.DataFrame) -> str:
    """First and last step, in the mean reward SD of the sweep."""
    values = (rows["estimate"] / rows["reward_sd"].mean()).tolist()
    return f"{values[0]:+.2f} to {values[-1]:+.2f}"


def cost(experiment: Experiment, files: list[str]) -> str:
    """Money and hours of the full run: the estimator on the rows at hand, scaled to the paper's number."""
    if experiment.rewriter is None or experiment.n is None:
        return "free"
    asked = {"data_files": files, "n": 10_000, **({"labeller": "vader"} if experiment.labeller else {})}
    with tempfile.TemporaryDirectory() as out:
        plan = rk.reproduce.planned(experiment.name, out, prices=list_prices(experiment.rewriter), **asked)
    assert plan.money is not None
    # The rows of a sweep stand there once for each step, and what stands at several is asked for once.
    scale = experiment.n * (len(experiment.sweep.steps) if experiment.sweep else 1) / plan.rows
    money = plan.money * scale
    tokens = 1.5 * plan.tokens_out * scale  # two rewrites were counted, three texts are scored
    return f"${money:,.0f}, {FLOPS * tokens / 60:.0f} GPU min"


def main() -> None:
    """Run them all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the sources' files")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/offline"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.out / "demo-rm"
    if not model.exists():
        train_reward_model(model)
    print("| experiment | published (RATE, SD) | ours offline (SD) | full run |\n|---|---|---|---|")
    for e in experiments().values():
        if e.source == "helpsteer":
            files = [str(made_up_helpsteer(args.out))]
        else:
            files = [str(args.data / name) for name in FILES[e.source]]
            if "harmless" in e.name:
                files = [str(args.data / "hh_rlhf_harmless_base_test.jsonl.gz")]
        more = {"rewriter": "simulated", "n": 1000} if e.sweep else {"data_files": files}
        if e.rewriter and not e.sweep:
            more["n"] = args.n  # published rewrites are there to be taken whole
        if e.rewriter and not e.sweep:
            more["rewriter"] = "rules"
        if e.labeller:
            more["labeller"] = "vader"
        rewards = [] if e.sweep else [str(model)]  # a simulated sweep is scored by rules
        finished = rk.reproduce.run(e.name, args.out / e.name, rewards=rewards, progress=False, **more)
        print(f"| `{e.name}` | {theirs(e)} | {ours(e, finished.table)} | {cost(e, files)} |", flush=True)


if __name__ == "__main__":
    main()
