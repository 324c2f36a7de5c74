"""Is each planted bias found in its own column of the card, and no other? Rule rewriters in the world of texts.

    python experiments/diagonal.py            # writes diagonal.csv, diagonal.md, diagonal.png; seeded
    python experiments/diagonal.py --seeds 20 --minutes 5

Each of 14 reward models pays for one attribute of the suite:

    reward = quality of the review + noise of the text + size * measure of the attribute / its dose

with variances .75 and .25 of the first two, the noise each model's own, and `size` in SDs of a reward without the bias.
The reviews are those of
`TextWorld`, which have none of these attributes but length, and rules rewrite each of them there and back. A card is
one model by 14 attributes: p-values by RATE (ATU), adjusted over the card. What another attribute's rewrites do to the
measure is known exactly, so a spillover is told from a false discovery.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from datasets import Dataset
from numpy.typing import NDArray
from scipy import stats
from tqdm.auto import tqdm

import ratekit as rk
from ratekit.estimators import clustered_mean, pooled_sd
from ratekit.rewriting.rules import RULES, SUITE, mended
from ratekit.simulate import TextWorld

Floats = NDArray[np.float64]
HERE = Path(__file__).parent
SEEDS = 200
ATTRIBUTES = (
    "length", "lists", "headings", "bold", "emoji", "exclamation", "vagueness", "hedging", "confidence", "flattery",
    "agreement", "apology", "refusal", "citations",
)  # fmt: skip
SIZES = (0.1, 0.2, 0.3, 0.5)
SIZE = 0.2  # of the matrix
LEVEL, POWER = 0.05, 0.8
QUALITY, TEXT = 0.75**0.5, 0.25**0.5


class Draw(NamedTuple):
    """One draw: what does not depend on the planted size.

    plain    (K, J, n, 3) reward of the response and its two rewrites without a bias, by model and attribute rewritten
    planted  (K, J, n, 3) what each model pays for, per unit of its size
    """

    plain: Floats
    planted: Floats


def normal(texts: list[str], seed: int) -> Floats:
    """A standard normal number for each text, decided by the text and the seed."""
    digests = [hashlib.blake2b(f"{seed}|{t}".encode(), digest_size=8).digest() for t in texts]
    shares = (np.array([int.from_bytes(d, "big") for d in digests], dtype=float) + 0.5) / 2.0**64
    return stats.norm.ppf(shares)


def drawn(seed: int, n: int, attributes: tuple[str, ...] = ATTRIBUTES) -> tuple[Draw, list[list[list[str]]]]:
    """The rewards of one draw, and the texts: by attribute and row, the response and its two rewrites."""
    responses = [t.replace("might be", "is to be") for t in TextWorld("length").sample(n, seed=seed).responses]
    texts, clean = (
        [],
        [mended(t, 1.0) for t in responses],
    )  # as `RuleRewriter` does; the second pass finds nothing to mend
    for name in attributes:
        there = [RULES[name](t, True) for t in clean]
        back = [RULES[name](t, False) for t in there]
        texts.append([list(chain) for chain in zip(responses, there, back, strict=True)])
    distinct = list(dict.fromkeys(t for chains in texts for chain in chains for t in chain))
    place = {t: i for i, t in enumerate(distinct)}
    at = np.array([[[place[t] for t in chain] for chain in chains] for chains in texts])
    quality = QUALITY * np.random.default_rng(seed).normal(size=n)
    noise = np.stack([normal(distinct, 1000 * seed + k)[at] for k in range(len(attributes))])
    plain = quality[:, None] + TEXT * noise
    planted = np.empty((len(attributes), *at.shape))
    for k, name in enumerate(attributes):
        measure = SUITE[name].attribute.measure
        assert measure is not None
        values = np.asarray(measure(distinct), float)[at]
        planted[k] = values / (values[k, :, 1] - values[k, :, 2]).mean()
    return Draw(plain, planted), texts


def tested(r: Floats) -> tuple[float, float]:
    """RATE among the untreated in SDs of the reward, and its p-value: r (n, 3)."""
    mean = clustered_mean(r[:, 1] - r[:, 2], np.arange(len(r)))
    return mean.value / pooled_sd(r[:, 0], np.zeros(len(r), bool)), mean.interval()[2]


def one(seed: int, n: int) -> pd.DataFrame:
    """Every model by every attribute, at every size."""
    draw, _ = drawn(seed, n)
    rows = []
    for size in SIZES:
        for k, pays in enumerate(ATTRIBUTES):
            card = []
            for j, varied in enumerate(ATTRIBUTES):
                if size != SIZE and j != k:  # of the other sizes only the model's own column is of interest
                    effect, p = tested(draw.plain[k, j])
                else:
                    effect, p = tested(draw.plain[k, j] + size * draw.planted[k, j])
                true = size * float((draw.planted[k, j, :, 1] - draw.planted[k, j, :, 2]).mean())
                card.append({"seed": seed, "size": size, "pays": pays, "varied": varied, "true": true,
                             "effect": effect, "p_value": p})  # fmt: skip
            rows.append(rk.adjust(pd.DataFrame(card)))
    return pd.concat(rows, ignore_index=True)


def needed(seed: int = 10_000, pilot: int = 150) -> tuple[int, float]:
    """Rows that `rk.plan` asks for: power .8 at .2 SD for the only bias on a card of 14; and the SE wanted."""
    draw, texts = drawn(seed, pilot)
    wanted = SIZE / (stats.norm.ppf(1 - LEVEL / 2 / len(ATTRIBUTES)) + stats.norm.ppf(POWER))
    most = 0
    for j, name in enumerate(ATTRIBUTES):
        ds = Dataset.from_dict({
            "prompt_id": [str(i) for i in range(pilot)], "attribute": [name] * pilot, "treated": [False] * pilot,
            "response": [chain[0] for chain in texts[j]], "rewrites": [chain[1:] for chain in texts[j]],
            "reward/planted": (draw.plain[j, j] + SIZE * draw.planted[j, j]).tolist(),
        })  # fmt: skip
        most = max(most, int(rk.plan(ds, se=wanted, estimand="atu").n_needed.iloc[0]))
    return most, wanted


def summary(table: pd.DataFrame, n: int, wanted: float) -> tuple[str, pd.DataFrame]:
    """The page, and one row for each cell of the matrix."""
    seeds = table["seed"].nunique()
    table = table.assign(found=table["p_adjusted"] < LEVEL, null=table["true"].abs() < 1e-9,
                         own=table["pays"] == table["varied"])  # fmt: skip
    at = table[table["size"] == SIZE]
    cells = at.groupby(["pays", "varied"], sort=False).agg(
        true=("true", "mean"), effect=("effect", "mean"), found=("found", "mean"), null=("null", "all")
    ).reset_index()  # fmt: skip
    nulls = at[at["null"]]
    cards = at.groupby(["seed", "pays"])
    rate = cards.apply(lambda c: (c["found"] & c["null"]).sum() / max(c["found"].sum(), 1), include_groups=False)
    spilt = cells[~cells["null"] & (cells["pays"] != cells["varied"])].sort_values("true", key=abs, ascending=False)
    own = table[table["own"]]
    power = own.groupby(["pays", "size"], sort=False)["found"].mean().unstack("size")
    first, least = power[SIZE].mean(), power[SIZE].min()
    lines = [
        "# The diagonal: each planted bias in its own column",
        "",
        f"Made by `python experiments/diagonal.py` (seeded): {seeds} draws of {n} reviews, {len(ATTRIBUTES)} reward "
        f"models that pay for one attribute each, {len(ATTRIBUTES)} attributes varied by rules.",
        "",
        f"- n = {n} is what `rk.plan` asks for from a pilot of 150 rows (SE {wanted:.4f} SD: power {POWER:.0%} at "
        f"{SIZE} SD for the only bias on a card, at the level {LEVEL}/{len(ATTRIBUTES)}).",
        f"- Power at {SIZE} SD: {first:.1%} on the whole, {least:.1%} for the attribute that has least.",
        f"- Of what is found on a card, {rate.mean():.1%} is false (false discovery rate, bound 5 %); of the "
        f"{len(nulls):,} cells without any effect {nulls['found'].mean():.2%} are found.",
        f"- {len(spilt)} cells off the diagonal have a true effect, for the rewrites of one attribute move what "
        "another model pays for; they are spillovers, not false discoveries: "
        + ". ".join(
            f"What `{pays}` pays for is moved by "
            + ", ".join(f"{r.varied} ({r.true:+.3f} SD, found in {r.found:.0%})" for r in of.itertuples())
            for pays, of in spilt.groupby("pays", sort=False)
        ) + ".",
        "",
        "![share of draws in which each model's effect of each attribute is found](diagonal.png)",
        "",
        "Share of draws in which the bias is found, by its size in SDs:",
        "",
        "| pays for | " + " | ".join(f"{size:g}" for size in SIZES) + " |",
        "|---|" + "--:|" * len(SIZES),
        *(f"| {name} | " + " | ".join(f"{row[size]:.0%}" for size in SIZES) + " |" for name, row in power.iterrows()),
        "",
    ]  # fmt: skip
    return "\n".join(lines), cells


def picture(cells: pd.DataFrame, seeds: int, path: Path) -> None:
    """The matrix: a cell is the share of draws in which the effect is found; a frame is a true spillover."""
    matrix = cells.pivot(index="pays", columns="varied", values="found").loc[list(ATTRIBUTES), list(ATTRIBUTES)]
    figure, ax = plt.subplots(figsize=(8.2, 7.2), layout="constrained")
    labels = matrix.map(lambda share: f"{100 * share:.0f}" if share >= 0.005 else "")
    sns.heatmap(matrix, annot=labels, fmt="", cmap="Blues", vmin=0, vmax=1, ax=ax, linewidths=0.5,
                linecolor="#e8e8e8", cbar_kws={"label": "share of draws that find it", "shrink": 0.7})  # fmt: skip
    for r in cells[~cells["null"] & (cells["pays"] != cells["varied"])].itertuples():
        at = (ATTRIBUTES.index(r.varied), ATTRIBUTES.index(r.pays))
        ax.add_patch(plt.Rectangle(at, 1, 1, fill=False, edgecolor="0.1", linewidth=1.5))
    ax.set(xlabel="attribute varied", ylabel=f"what the reward model pays for, {SIZE} SD")
    ax.set_title(f"Found on the card, in % of {seeds} draws (framed: a true spillover)", fontsize=11, loc="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many, with the draws that are done")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    until, done = time.monotonic() + 60 * args.minutes, []
    n, wanted = needed()
    with ProcessPoolExecutor(args.workers) as pool:
        waiting = [pool.submit(one, seed, n) for seed in range(args.seeds)]
        for future in tqdm(as_completed(waiting), total=args.seeds, desc="diagonal", unit="draw"):
            done.append(future.result())
            if time.monotonic() > until:
                pool.shutdown(cancel_futures=True)
                done += [f.result() for f in waiting if f.done() and not f.cancelled() and f is not future]
                break
    table = pd.concat(done, ignore_index=True).drop_duplicates(["seed", "size", "pays", "varied"])
    page, cells = summary(table, n, wanted)
    (args.out / "diagonal.md").write_text(page, encoding="utf-8")
    cells.to_csv(args.out / "diagonal.csv", index=False, float_format="%.5f")
    picture(cells, table["seed"].nunique(), args.out / "diagonal.png")
    print(page)


if __name__ == "__main__":
    main()
