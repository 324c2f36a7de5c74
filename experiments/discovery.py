"""Searches for planted biases in a world of texts: what `rk.discover` finds, and what it finds that is not there.

    python experiments/discovery.py                # 100 searches -> discovery.csv, discovery.md
    python experiments/discovery.py --searches 8   # a few
    python experiments/discovery.py --proposer --searches 40 --null 90    # with an LLM, a fake one, that proposes too

A reward is noise of its own for each text, plus 0 to 3 of six biases that no suite asks for, plus, where there is any
bias, a small reward for sentiment, which the suite has. The biases are present in the responses by chance, each in 30 %
of them. Recall is over planted biases. A confirmed candidate is false where it is neither planted nor sentiment.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

import ratekit as rk
from ratekit.discovery import CANDIDATES, ChatProposer
from ratekit.rewriting.base import Reply
from ratekit.simulate import TextWorld
from ratekit.simulate.text import BLAME, PRAISE

HERE = Path(__file__).parent
PLANTED = ("spacing", "digits", "starts-with-vowel", "final-question", "repeated-words", "quotation-marks")
SIZE, NOISE, SENTIMENT = 0.6, 0.6, 0.3


def noise(text: str, seed: int) -> float:
    """Standard normal, the same for the same text."""
    digest = hashlib.blake2b(f"{seed}|{text}".encode(), digest_size=16).digest()
    u, v = (int.from_bytes(half, "big") / 2.0**64 for half in (digest[:8], digest[8:]))
    return float(np.sqrt(-2 * np.log(max(u, 1e-300))) * np.cos(2 * np.pi * v))


class Reward:
    """Noise plus `SIZE` for each bias that a text has."""

    def __init__(self, biases: tuple[str, ...], seed: int) -> None:
        self.biases, self.seed = biases, seed

    def __call__(self, prompts: object, responses: list[str]) -> np.ndarray:
        """The rewards."""
        values = np.array([NOISE * noise(text, self.seed) for text in responses])
        for name in self.biases:
            values += SIZE * (np.nan_to_num(CANDIDATES[name].attribute.measure(responses)) > 0)
        return values + (SENTIMENT * np.array([praise(text) for text in responses]) if self.biases else 0.0)


def praise(text: str) -> int:
    """1 for a text that praises more than it blames, -1 for one that blames more, else 0."""
    words = set(text.lower().replace(".", " ").split())
    return int(np.sign(len(words & set(PRAISE)) - len(words & set(BLAME))))


def responses(seed: int, prompts: int, each: int = 4) -> list[dict[str, str]]:
    """Reviews, `each` to a prompt, each with every planted feature at a chance of 30 %."""
    rng = np.random.default_rng(seed)
    sample = TextWorld("sentiment", rows_per_prompt=each).sample(prompts * each, seed=seed)
    rows = []
    for prompt, text in zip(sample.prompt_ids, sample.responses, strict=True):
        for name in PLANTED:
            if rng.random() < 0.3:
                text = CANDIDATES[name].rule(text, True)
        rows.append({"prompt": prompt, "response": text})
    return rows


def fake_proposer(conversations: list) -> object:
    """A chat that proposes well-meant nonsense and, among it, two of the biases, whoever asks."""
    names = ("final-question", "quotation-marks", "flattery", "rhyme")
    said = [{"name": n, "treated": f"with {n}", "untreated": f"without {n}"} for n in names]
    for i in range(len(conversations)):
        yield Reply(i, json.dumps(said), "stop")


def search(seed: int, prompts: int = 100, proposer: object = None) -> dict[str, object]:
    """One search, and how it compares with what was planted."""
    rng = np.random.default_rng(1000 + seed)
    planted = tuple(rng.choice(PLANTED, seed % 4, replace=False))
    begun = time.perf_counter()
    found = rk.discover(
        Reward(planted, seed), responses(seed, prompts), name="planted", proposer=proposer, n_screen=40, seed=seed
    )
    known = {*planted, "sentiment"} if planted else set()
    return {
        "seed": seed, "planted": " ".join(planted), "confirmed": " ".join(found.confirmed),
        "n_planted": len(planted), "recalled": len(set(planted) & set(found.confirmed)),
        "n_confirmed": len(found.confirmed), "false": len(set(found.confirmed) - known),
        "explained": int((found.tried["outcome"] == "explained").sum()), "tried": len(found.tried),
        "rewrites": found.rewrites, "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip


def summary(table: pd.DataFrame, asked: str, proposer: bool = False) -> str:
    """The table's claims, as Markdown."""
    null = table[table["n_planted"] == 0]
    share = table["false"] / table["n_confirmed"].clip(lower=1)
    lines = [
        "# Discovery of planted biases" + (", with a proposer that is no help" if proposer else ""),
        "",
        f"`python experiments/discovery.py {asked}`: each search has "
        "three rounds, on 400 responses to 100 prompts; 40 rows screen a candidate and 200 that were not looked at "
        "before confirm it.",
        "",
        "| | |",
        "|---|---|",
        f"| searches | {len(table)}, of which {len(null)} with nothing planted |",
        f"| biases planted, found | {table['n_planted'].sum()}, {table['recalled'].sum()} "
        f"({table['recalled'].sum() / max(table['n_planted'].sum(), 1):.1%}) |",
        f"| confirmed in all, of which false | {table['n_confirmed'].sum()}, {table['false'].sum()} |",
        f"| false discovery rate (mean over searches) | {share.mean():.1%} |",
        f"| nothing planted, nothing confirmed | {(null['n_confirmed'] == 0).mean():.0%} |",
        f"| tried in a search, of which explained by another | {table['tried'].mean():.0f}, "
        f"{table['explained'].mean():.1f} |",
        f"| rewrites in a search | {table['rewrites'].mean():,.0f} |",
        "",
        "The biases: " + ", ".join(PLANTED) + f"; each pays {SIZE}, beside noise of SD {NOISE} that every text has of "
        f"its own. Rows are in discovery{'_proposer' if proposer else ''}.csv.",
    ]
    return "\n".join(lines) + "\n"


def quiet() -> None:
    """A worker says nothing of its own."""
    logging.getLogger("ratekit").setLevel(logging.ERROR)


def main() -> None:
    """Run the searches and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--null", type=int, default=0, help="so many more, with nothing planted")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many, with what is done")
    parser.add_argument("--proposer", action="store_true", help="ask a server that proposes too, a fake one")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    until, rows = time.monotonic() + 60 * given.minutes, []
    with ProcessPoolExecutor(given.workers, get_context("spawn"), quiet) as pool:
        after = -(-given.searches // 4) * 4  # every fourth seed plants nothing
        seeds = [*range(given.first, given.searches), *range(after, after + 4 * given.null, 4)]
        proposer = ChatProposer(fake_proposer) if given.proposer else None
        waiting = {pool.submit(search, seed, proposer=proposer) for seed in seeds}
        while waiting and time.monotonic() < until:
            done, waiting = wait(waiting, timeout=10, return_when=FIRST_COMPLETED)
            for future in done:
                rows.append(future.result())
                print(json.dumps(rows[-1]), flush=True)
        for future in waiting:
            future.cancel()
    table = pd.DataFrame(rows).sort_values("seed")
    name = "discovery_proposer" if given.proposer else "discovery"
    table.drop(columns="seconds").to_csv(given.out / f"{name}.csv", index=False)
    asked = "--proposer " * given.proposer + f"--searches {given.searches}" + f" --null {given.null}" * bool(given.null)
    text = summary(table, asked, given.proposer)
    (given.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text, f"{table['seconds'].sum():.0f} s")


if __name__ == "__main__":
    main()
