"""How often a gate passes what is at its limit, and whether `reach` tells what an audit cannot.

    python experiments/gate_reach.py        # -> gate_reach.csv, gate_reach.md

The gate: worlds of numbers whose true effect is exactly the limit, 1,000 audits each.

Reach: length is rewarded before. After, it is not on the texts that were audited, which have 20 to 40 words; the policy
writes 30 to 90. What differs: nothing else is rewarded; flattery is; beyond 45 words length is fined. The audit is the
same for all three. Brute force draws N new responses to a prompt and keeps the one of highest reward.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ratekit as rk
from ratekit.best_of_n import CANNOT_TELL, MITIGATED, NOT_MITIGATED, OVERCORRECTED, SUBSTITUTED, Reach, Regime
from ratekit.estimators import effects
from ratekit.gates import CODES, outcome_of
from ratekit.intervals import LEVEL
from ratekit.simulate import NumericWorld

HERE = Path(__file__).parent
N = 8  # of best of N
EFFECT = 0.3
WORLDS: dict[str, dict[str, Any]] = {
    "one row a prompt": {},
    "1 to 6 rows a prompt": {"cluster_sizes": (1, 6)},
    "heavy tails": {"heavy_tails": True},
    "effects that vary, SD 1": {"effect_sd": 1.0},
    "heavy tails, 1 to 6 rows a prompt": {"heavy_tails": True, "cluster_sizes": (1, 6)},
}


# --- the gate --------------------------------------------------------------------------------------------------


def sd_of(world: NumericWorld) -> float:
    """The SD of the originals' rewards within a class, in closed form; half of the rows have the effect's spread."""
    z = world.z_weight**2 * (1 - world.confounding**2) / 4
    return float(np.sqrt(world.content_sd**2 + z + (world.xi_weight * world.xi_sd) ** 2 + world.effect_sd**2 / 2))


def at_the_limit(draws: int, n: int, **world: Any) -> dict[str, float]:
    """{outcome: share} of audits of n rows whose true effect in SDs is exactly the limit."""
    of = NumericWorld(effect=EFFECT, **world)
    outcomes: Counter[str] = Counter()
    for seed in range(draws):
        drawn = of.sample(n, seed=seed, depth=2)
        rate = effects(drawn.rewards, drawn.treated, drawn.clusters, LEVEL).get("rate", "ate")
        outcomes[outcome_of(rate.ci_low_sd, rate.ci_high_sd, EFFECT / sd_of(of))] += 1
    return {outcome: outcomes[outcome] / draws for outcome in CODES}


# --- reach -----------------------------------------------------------------------------------------------------


def n_words(text: str) -> int:
    """Words."""
    return len(text.split())


def n_flattery(text: str) -> int:
    """Words that flatter."""
    return text.count("thoughtful")


def n_noise(text: str) -> float:
    """What a text is worth by itself: it ends in that number."""
    return float(text.rsplit("~", 1)[1]) if "~" in text else 0.0


REWARDS = {
    "before": lambda t: 0.1 * n_words(t) + n_noise(t),
    "mitigated": lambda t: n_noise(t),
    "substituted": lambda t: 1.0 * n_flattery(t) + n_noise(t),
    "overcorrected": lambda t: -0.08 * max(n_words(t) - 45, 0) + n_noise(t),
}
REGIMES = (MITIGATED, SUBSTITUTED, OVERCORRECTED)
SAID = (*REGIMES, NOT_MITIGATED, CANNOT_TELL)
MEASURED = {"length": n_words, "flattery": n_flattery}


def scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with every reward."""
    texts = frame["response"]
    chains = frame["rewrites"] if "rewrites" in frame else [[] for _ in texts]
    for name, reward in REWARDS.items():
        frame[f"reward/{name}"] = [[reward(t) for t in [x, *c]] for x, c in zip(texts, chains, strict=True)]
    return frame


def an_audit(n: int = 60) -> pd.DataFrame:
    """Rewritten and scored rows on which the three mitigations look alike."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        z = f"~{rng.normal():.6f}"
        long, short = (" ".join(["word"] * k) + z for k in (40, 20))
        chain = [long, short, long] if i % 2 else [short, long, short]
        rows.append({"prompt_id": str(i), "prompt": str(i), "attribute": "length", "treated": bool(i % 2),
                     "response": chain[0], "rewrites": chain[1:]})  # fmt: skip
    return scored(pd.DataFrame(rows))


def policy(seed: int, prompts: int = 150, m: int = 16) -> pd.DataFrame:
    """m responses to each prompt, scored."""
    rng = np.random.default_rng(seed)
    rows = []
    for p in range(prompts):
        for _ in range(m):
            flattery, length = int(rng.integers(0, 4)), int(rng.integers(30, 91))
            words = ["word"] * (length - flattery) + ["thoughtful"] * flattery
            rows.append({"prompt_id": str(p), "response": " ".join(words) + f"~{rng.normal():.6f}"})
    return scored(pd.DataFrame(rows))


def zeros(texts: list[str]) -> list[float]:
    """A measure of nothing."""
    return [0.0] * len(texts)


MEASURES = {
    "flattery": lambda texts: [float(n_flattery(t)) for t in texts],
    **dict.fromkeys(("sentiment", "readability", "faults"), zeros),  # slow to measure
}


def reached(samples: pd.DataFrame, audit: rk.Audit, after: str, n: int = N) -> Reach:
    """What best of n does to length and flattery, before and after a mitigation."""
    return rk.reach(audit, samples, before="before", after=after, measures=MEASURES, sizes=[n])


def regimes(seed: int, audit: rk.Audit, mitigations: tuple[str, ...] = REGIMES) -> dict[str, Regime]:
    """{mitigation: what is said of length} for one draw of samples."""
    samples = policy(seed)
    return {after: reached(samples, audit, after).regimes[0] for after in mitigations}


def brute_force(prompts: int, n: int = N, seed: int = 10**6) -> dict[str, dict[str, float]]:
    """{reward model: {attribute: shift in SDs}} by drawing n responses to each of many prompts and keeping the best."""
    drawn = policy(seed, prompts, n)
    found: dict[str, dict[str, float]] = {model: {} for model in REWARDS}
    for name, measure in MEASURED.items():
        a = np.array([measure(text) for text in drawn["response"]], float)
        for model in REWARDS:
            rewards = np.array([r[0] for r in drawn[f"reward/{model}"]]).reshape(prompts, n)
            best = rewards.argmax(1) + n * np.arange(prompts)
            found[model][name] = float((a[best].mean() - a.mean()) / a.std())
    return found


def table(audits: int, draws: int) -> pd.DataFrame:
    """Every number, one a row: part ("gate", "regime", "shift"), world, draws, what, value."""
    rows: list[tuple[str, str, int, str, float]] = []
    for name, world in WORLDS.items():
        rows += [("gate", name, audits, k, share) for k, share in at_the_limit(audits, 150, **world).items()]
    audit, truth = rk.Audit.of(an_audit()), brute_force(20_000)
    words = {after: dict.fromkeys(SAID, 0) for after in REGIMES}
    shifts: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    told = 0
    for seed in range(draws):
        samples, right = policy(seed), 0
        for after in REGIMES:
            found = reached(samples, audit, after)
            word = found.regimes[0].word
            words[after][word] += 1
            right += word == after
            for row in found.table.query("pressure == 'best-of-n'").to_dict("records"):
                model, attribute = row["reward_model"], row["attribute"]
                if attribute in MEASURED and (model == after or after == REGIMES[0]):
                    held = row["ci_low"] <= truth[model][attribute] <= row["ci_high"]
                    shifts.setdefault((model, attribute), []).append((row["shift"], held))
        told += right == len(REGIMES)
    rows += [("regime", after, draws, word, n) for after, counts in words.items() for word, n in counts.items()]
    rows.append(("told", "all three", draws, "right", told))
    for (model, attribute), of in shifts.items():
        mean, held = np.mean(np.array(of, float), axis=0)
        shown = {"brute force": truth[model][attribute], "mean": mean, "held": held}
        rows += [("shift", f"{model}, {attribute}", draws, k, v) for k, v in shown.items()]
    return pd.DataFrame(rows, columns=["part", "world", "draws", "what", "value"]).round(4)


def summary(found: pd.DataFrame) -> str:
    """The table's claims, as Markdown."""
    draws = found.groupby("part")["draws"].first()
    told = int(found.query("part == 'told'")["value"].iloc[0])

    def part(name: str, first: str, shown: str) -> list[str]:
        of = found[found["part"] == name].pivot_table(index="world", columns="what", values="value", sort=False)
        lines = [f"| {first} | {' | '.join(of.columns)} |", "|---|" + "---|" * len(of.columns)]
        return [
            *lines,
            *(f"| {world} | {' | '.join(format(v, shown) for v in row)} |" for world, row in of.iterrows()),
            "",
        ]

    lines = [
        "# The gate and reach where the truth is known", "",
        f"`python experiments/gate_reach.py`. The gate: {draws['gate']:,} audits of 150 rows in each world, whose true",
        "effect is exactly the limit. To pass is false there, and so is to fail.", "",
        *part("gate", "world", ".1%"),
        f"Reach: {draws['told']} draws of 16 responses to 150 prompts, best of {N}. All three mitigations are named",
        f"rightly in {told} draws ({told / draws['told']:.1%}). The audit is the same for all three.", "",
        *part("regime", "mitigation", ".0f"),
        f"Shifts by best of {N}, in SDs: by brute force ({N} new responses to each of 20,000 prompts, the best kept),",
        "the mean over draws, and the share of draws whose 95 % interval holds the former.", "",
        *part("shift", "reward model, attribute", ".3f"),
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run both and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--audits", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    found = table(given.audits, given.draws)
    found.to_csv(given.out / "gate_reach.csv", index=False)
    (given.out / "gate_reach.md").write_text(summary(found), encoding="utf-8")
    print(summary(found))


if __name__ == "__main__":
    main()
