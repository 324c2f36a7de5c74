"""Does RATE find what a judge pays for? A judge with known biases behind a server of its own, asked over HTTP.

    python experiments/judges.py              # writes judges.csv and judges.md beside this file; loopback only, seeded
    python experiments/judges.py --draws 20

The judge is `tests/servers/judge_server.py`: base + a * quality + b * words + noise, rounded to 1..10, 5 % of its
replies unreadable, 429 and 500 between them; of pairs it adds something for the first place. The responses are drawn
from a population in which quality and length go together, rules rewrite them there and back, and the truth is the
same effect on the judge's expected score, unrounded noise and all, over 20,000 responses that no draw has.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from numpy.typing import NDArray
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rewriting_support import Server  # noqa: E402

import ratekit as rk  # noqa: E402
from ratekit.scoring.llm_judges import LLMJudge, PairwiseLLMJudge  # noqa: E402

HERE = Path(__file__).parent
Floats = NDArray[np.float64]
DRAWS, ROWS, POPULATION, LONG = 200, 40, 20_000, 30
READ = {"RATE": "rate", "naive": "naive"}
BAR = (0.935, 0.965)
SCORES = {"base": 3.0, "a": 1.0, "b": 0.06, "noise": 0.5}
PAIRS = {"a": 1.0, "b": 0.06, "noise": 0.8, "position": 1.0, "tie": 0.25}
FAULTS = {"unparsable": 0.05, "faults": {"429": 0.02, "500": 0.01}}


def responses(n: int, seed: int) -> Dataset:
    """Responses of which the better ones are longer, labelled at one fixed length and rewritten twice by rules."""
    rng = np.random.default_rng(seed)
    quality = rng.integers(0, 4, n)
    parts = rng.integers(1, 4, n) + quality
    texts = [
        f"Answer {seed}-{i} is {', '.join(['fine'] * q + ['here'])}. "
        + " ".join(f"It has a part {k} and a bit." for k in range(p))
        for i, (q, p) in enumerate(zip(quality, parts, strict=True))
    ]
    ds = Dataset.from_dict({
        "prompt": [f"Question {seed}-{i}?" for i in range(n)], "response": texts,
        "long": [len(text.split()) > LONG for text in texts],
    })  # fmt: skip
    return rk.rewrite(rk.label(ds, "length", label_column="long"), "length", "rules", progress=False)


def references(ds: Dataset) -> dict[str, str]:
    """For each prompt the response of the row before."""
    texts = ds["response"][:]
    return dict(zip((turns[0]["content"] for turns in ds["prompt"]), [texts[-1], *texts[:-1]], strict=True))


def worth(prompts: object, texts: list[str]) -> Floats:
    """What the judge thinks of each text, but for its noise; pairs are told by its differences."""
    words = [len(re.findall(r"\w+", text)) for text in texts]
    return np.array([len(re.findall(r"\bfine\b", text)) for text in texts]) * SCORES["a"] + SCORES["b"] * np.array(
        words
    )


def expected_score(prompts: object, texts: list[str]) -> Floats:
    """The mean of the rounded score, from 1 to 10."""
    cuts = np.arange(1.5, 10)
    return 1 + stats.norm.sf((cuts - SCORES["base"] - worth(prompts, texts)[:, None]) / SCORES["noise"]).sum(axis=1)


def won(margin: Floats) -> Floats:
    """The mean outcome of the first of two: 1 where it wins, a half for a tie."""
    sd = 2**0.5 * PAIRS["noise"]
    return (stats.norm.sf((PAIRS["tie"] - margin) / sd) + stats.norm.sf((-PAIRS["tie"] - margin) / sd)) / 2


def truths() -> dict[str, float]:
    """The effects in the population, without a judge: of length on both judges, and of the first place."""
    ds = responses(POPULATION, 10**6)
    others = references(ds)

    def margin(prompts: list[list[dict[str, str]]], texts: list[str]) -> Floats:
        return worth(prompts, texts) - worth(prompts, [others[turns[0]["content"]] for turns in prompts])

    def first(prompts: list[list[dict[str, str]]], texts: list[str]) -> Floats:
        return won(margin(prompts, texts) + PAIRS["position"])

    def second(prompts: list[list[dict[str, str]]], texts: list[str]) -> Floats:
        return 1 - won(PAIRS["position"] - margin(prompts, texts))

    def both(prompts: list[list[dict[str, str]]], texts: list[str]) -> Floats:
        return (first(prompts, texts) + second(prompts, texts)) / 2

    for name, reward in (("score", expected_score), ("pair", both)):
        ds = rk.score(ds, reward, name=name, progress=False)
    place = first(ds["prompt"][:], ds["response"][:]) - second(ds["prompt"][:], ds["response"][:])
    found = {name: read(rk.estimate(ds, rewards=[name]), "rate")["estimate"] for name in ("score", "pair")}
    return {**found, "position": float(place.mean())}


def read(table: pd.DataFrame, estimator: str) -> dict[str, float]:
    """The ATE by one estimator, with its interval."""
    row = table[(table.estimator == estimator) & (table.estimand == "ate")].iloc[0]
    return {column: float(row[column]) for column in ("estimate", "ci_low", "ci_high")}


def measured(draws: int, rows: int, truth: dict[str, float]) -> list[dict[str, object]]:
    """Each judge with 1 and 3 repeats, asked about all draws; a row per judge, repeats and estimate."""
    parts = [responses(rows, seed) for seed in range(draws)]
    ds = concatenate_datasets(parts)
    judged: list[dict[str, object]] = []
    for kind, repeats in (("score", 1), ("score", 3), ("pair", 1)):
        settings = {**FAULTS, **(SCORES if kind == "score" else PAIRS)}
        with Server("judge_server.py", **settings) as server, tempfile.TemporaryDirectory() as cache:
            chat = rk.OpenAIChat("judge", base_url=server.url, max_tokens=64)
            judge = (
                LLMJudge(chat, repeats=repeats, cache=cache, name=kind)
                if kind == "score"
                else PairwiseLLMJudge(chat, references(ds), repeats=repeats, cache=cache, name=kind)
            )
            scored = rk.score(ds, judge, name=kind, progress=False)
            requests = server.stats["requests"]
        each = [scored.select(range(k * rows, (k + 1) * rows)) for k in range(draws)]
        tables = [rk.estimate(one, rewards=[kind]) for one in each]
        found = {name: [read(table, estimator) for table in tables] for name, estimator in READ.items()}
        if kind == "pair":
            found["first place"] = [dict(rk.position(one).iloc[0]) for one in each]
        nulls = sum(r is None for row in scored[f"reward/{kind}"] for r in row)
        for name, said in found.items():
            true = truth["position" if name == "first place" else kind]
            low, high, mean = (np.array([one[c] for one in said]) for c in ("ci_low", "ci_high", "estimate"))
            judged.append({
                "judge": kind, "repeats": repeats, "estimate": name, "truth": true, "mean": mean.mean(),
                "se": mean.std(ddof=1) / draws**0.5, "coverage": np.mean((low < true) & (true < high)),
                "above_0": np.mean(low > 0), "draws": draws, "rows": rows, "requests": requests, "nulls": nulls,
            })  # fmt: skip
    return judged


def report(table: pd.DataFrame) -> str:
    """The table in words."""
    rate = table[table.estimate == "RATE"]
    named = {"score": "a score of 1 to 10", "pair": "a pair in both orders"}
    lines = [
        "# A judge with a known bias",
        "",
        f"`python experiments/judges.py` (loopback, seeded): {int(table.draws.max())} draws of {int(table.rows.max())} "
        "responses, of which the better ones are longer, each rewritten there and back by rules, and a judge behind a "
        "server that pays for quality and for words, with noise, rounding, 5 % unreadable replies and faults of HTTP "
        "between. `truth`: the effect on the expected score over 20,000 other responses. `covers`: how often the 95 % "
        "interval holds it.",
        "",
        "| judge | repeats | estimate | truth | mean of the draws | covers | above 0 | requests | no score |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for _, r in table.iterrows():
        lines.append(
            f"| {named[r.judge]} | {r.repeats} | {r.estimate} | {r.truth:.3f} | {r['mean']:.3f} ± {r.se:.3f} | "
            f"{100 * r.coverage:.1f} % | {100 * r.above_0:.0f} % | {r.requests:,} | {r.nulls:,} |"
        )
    inside = int(rate.coverage.between(*BAR).sum())
    naive = table[(table.estimate == "naive") & (table.judge == "score")]
    error = (naive["mean"] / naive.truth).mean()
    lines += [
        "",
        f"RATE covers within {100 * BAR[0]:g} to {100 * BAR[1]:g} % in {inside} of {len(rate)} (with "
        f"{int(table.draws.max())} draws a true 95 % has a Monte Carlo SE of "
        f"{100 * (0.95 * 0.05 / table.draws.max()) ** 0.5:.1f} %). The naive difference of long and short responses is "
        f"{error:.2f} times the truth for the scores, since the better responses are the longer ones, and its interval "
        f"holds the truth in {100 * naive.coverage.max():.0f} % of the draws at most.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    logging.getLogger("ratekit").setLevel(logging.ERROR)
    found = pd.DataFrame(measured(given.draws, given.rows, truths()))
    found.to_csv(given.out / "judges.csv", index=False, float_format="%.5f")
    (given.out / "judges.md").write_text(report(found), encoding="utf-8")
    print(report(found))
