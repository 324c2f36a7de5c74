"""How fast are the estimates? `python benchmarks/estimation.py`: ratios, A and B interleaved in one process.

1. The effects table of 1,000,000 rows: `effects` against a plain Python loop over the rows that computes the same
   table (estimates and cluster-robust SEs), whose lists are made beforehand and not counted; then both from a Dataset.
2. 10,000 cluster-bootstrap draws on 100,000 rows: `bootstrap`, which gives every estimate of the table, against
   `scipy.stats.bootstrap` for the one estimate `rate` ATE, vectorised and fed with cluster sums.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datasets import Dataset
from scipy import stats

import ratekit as rk
from ratekit.estimators import effects
from ratekit.resampling import bootstrap
from ratekit.simulate import Imperfections, NumericWorld, Sample

Table = dict[tuple[str, str], tuple[float, float]]


def plain_loop(rewards: list[list[float]], treated: list[bool], clusters: list[int]) -> Table:
    """Naive, single rewrite and RATE, row by row: {(estimator, estimand): (estimate, se)}."""
    keys = [("naive", "ate"), *((e, d) for e in ("single_rewrite", "rate") for d in ("ate", "att", "atu"))]
    total, count = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, 0)
    sums, counts = [0.0, 0.0], [0, 0]
    for (r0, r1, r2), w in zip(rewards, treated, strict=True):
        sums[w] += r0
        counts[w] += 1
        s = 1 if w else -1
        for name, d in (("single_rewrite", s * (r0 - r1)), ("rate", s * (r2 - r1))):
            for key in ((name, "ate"), (name, "att" if w else "atu")):
                total[key] += d
                count[key] += 1
    mean = {key: total[key] / count[key] for key in keys[1:]}
    class_mean = [sums[0] / counts[0], sums[1] / counts[1]]
    n = counts[0] + counts[1]
    mean["naive", "ate"] = class_mean[1] - class_mean[0]
    count["naive", "ate"] = n
    by_cluster: dict[tuple[str, str], dict[int, float]] = {key: {} for key in keys}
    for (r0, r1, r2), w, c in zip(rewards, treated, clusters, strict=True):
        s = 1 if w else -1
        influence = s * (r0 - class_mean[w]) * n / counts[w]
        sums_of = by_cluster["naive", "ate"]
        sums_of[c] = sums_of.get(c, 0.0) + influence
        for name, d in (("single_rewrite", s * (r0 - r1)), ("rate", s * (r2 - r1))):
            for key in ((name, "ate"), (name, "att" if w else "atu")):
                sums_of = by_cluster[key]
                sums_of[c] = sums_of.get(c, 0.0) + d - mean[key]
    table = {}
    for key in keys:
        g = len(by_cluster[key])
        se = (g / (g - 1) * sum(v * v for v in by_cluster[key].values())) ** 0.5 / count[key]
        table[key] = (mean[key], se)
    return table


def timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(a: Callable[[], object], b: Callable[[], object], rounds: int) -> tuple[float, float, object, object]:
    """Median seconds of `a` and of `b`, taken in turn, and their last results."""
    times: tuple[list[float], list[float]] = ([], [])
    results: list[object] = [None, None]
    for _ in range(rounds):
        for k, function in enumerate((a, b)):
            seconds, results[k] = timed(function)
            times[k].append(seconds)
    return statistics.median(times[0]), statistics.median(times[1]), results[0], results[1]


def as_dataset(sample: Sample) -> Dataset:
    n, passes = sample.rewards.shape
    starts = pa.array(np.arange(0, n * passes + 1, passes, dtype=np.int32))
    return Dataset(
        pa.table({
            "prompt_id": pa.array(sample.clusters.astype(str)), "attribute": pa.array(["length"] * n),
            "treated": pa.array(sample.treated),
            "reward/rm": pa.ListArray.from_arrays(starts, pa.array(sample.rewards.ravel())),
        })
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bootstrap-rows", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=10_000)
    args = parser.parse_args()
    world = NumericWorld(xi_gap=1.0, rewriter=Imperfections(rho=0.3, noise=0.3), cluster_sizes=(1, 7))

    sample = world.sample(args.bootstrap_rows, seed=1, depth=2)
    r, w, c = sample.rewards, sample.treated, sample.clusters
    d = np.where(w, 1.0, -1.0) * (r[:, 2] - r[:, 1])
    sums, sizes = np.bincount(c, d), np.bincount(c).astype(float)

    def by_scipy() -> object:
        return stats.bootstrap(
            (sums, sizes), lambda s, m, axis=-1: s.sum(axis) / m.sum(axis), n_resamples=args.draws, batch=100,
            paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0),
        ).standard_error  # fmt: skip

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bootstrap(r, w, c, draws=args.draws)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours, theirs, drawn, se = compare(lambda: bootstrap(r, w, c, draws=args.draws), by_scipy, args.rounds)
    ratio_se = float(np.std(drawn["rate", "ate"], ddof=1)) / se
    print(f"bootstrap, {args.bootstrap_rows:,} rows in {len(sums):,} clusters, {args.draws:,} draws:")
    print(f"  bootstrap, {len(drawn) - 1} estimates {ours:.2f} s; scipy.stats.bootstrap, one {theirs:.2f} s;")
    print(f"  ratio {theirs / ours:.1f}; peak memory {peak:.0f} MiB ({before:.0f} before); SEs {ratio_se:.3f}")

    sample = world.sample(args.rows, seed=0, depth=2)
    lists = sample.rewards.tolist(), sample.treated.tolist(), sample.clusters.tolist()
    ours, loop, table, slow = compare(
        lambda: effects(sample.rewards, sample.treated, sample.clusters),
        lambda: plain_loop(*lists),
        args.rounds,
    )
    for e in table:  # CR2 against G/(G-1): the same up to 1/G
        np.testing.assert_allclose((e.estimate, e.se), slow[e.estimator, e.estimand], rtol=1e-4)
    print(f"effects table, {args.rows:,} rows: effects {ours:.3f} s; plain loop {loop:.2f} s; ratio {loop / ours:.1f}")

    lists = ([], [], [])  # millions of live objects would slow down every collection of garbage below
    ds = as_dataset(sample)
    ours, loop, _, _ = compare(
        lambda: rk.estimate(ds),
        lambda: plain_loop(ds["reward/rm"][:], ds["treated"][:], [int(c) for c in ds["prompt_id"][:]]),
        args.rounds,
    )
    print(f"the same from a Dataset: rk.estimate {ours:.2f} s; plain loop {loop:.2f} s; ratio {loop / ours:.1f}")


if __name__ == "__main__":
    main()
