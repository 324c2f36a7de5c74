"""Do the 95 % intervals cover 95 %? Replications of worlds with known truth: `make coverage`.

Writes coverage.csv, coverage.md and coverage.png beside this file. Every number comes from
`ratekit.estimators.effects`, the code that `rk.estimate` calls, on rewards drawn by
`ratekit.simulate.NumericWorld`. Seeded: the same table each run.
"""

from __future__ import annotations

import argparse
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ratekit import plots
from ratekit.estimators import effects, pooled_sd
from ratekit.simulate import Imperfections, NumericWorld

HERE = Path(__file__).parent
REPLICATIONS = 4000

# Kind of world: which assumption it keeps or breaks.
HOLDS, PARTIAL, BROKEN = "assumptions hold", "partial convergence", "an assumption broken"

HOLD = NumericWorld(xi_gap=0.8, rewriter=Imperfections(noise=0.3))
SLOW = NumericWorld(xi_gap=1.2, xi_base=0.2, rewriter=Imperfections(rho=0.5, noise=0.2))

WORLDS: list[tuple[str, str, int, NumericWorld]] = [
    (HOLDS, "balanced", 50, HOLD),
    (HOLDS, "90/10", 50, HOLD.but(share_treated=0.9)),
    (HOLDS, "heavy tails", 50, HOLD.but(heavy_tails=True)),
    (HOLDS, "clusters of 1 to 4", 100, HOLD.but(cluster_sizes=(1, 4))),
    (HOLDS, "90/10, heavy tails", 100, HOLD.but(share_treated=0.9, heavy_tails=True)),
    (HOLDS, "ATT and ATU differ", 200, HOLD.but(effect_gap=0.6)),
    (HOLDS, "clusters of 1 to 8", 300, HOLD.but(cluster_sizes=(1, 8))),
    (HOLDS, "90/10, clusters of 1 to 8", 500, HOLD.but(share_treated=0.9, cluster_sizes=(1, 8))),
    (HOLDS, "no effect, all confounding", 500, HOLD.but(effect=0.0, confounding=1.0)),
    (HOLDS, "clusters of 8, heavy tails", 1000, HOLD.but(cluster_sizes=(8, 8), heavy_tails=True)),
    (HOLDS, "balanced", 2000, HOLD),
    (HOLDS, "90/10, clusters of 1 to 8, heavy tails", 2000,
     HOLD.but(share_treated=0.9, cluster_sizes=(1, 8), heavy_tails=True)),
    (PARTIAL, "rho 0.1", 300, SLOW.but(rho=0.1)),
    (PARTIAL, "rho 0.2", 300, SLOW.but(rho=0.2)),
    (PARTIAL, "rho 0.35", 300, SLOW.but(rho=0.35)),
    (PARTIAL, "rho 0.5", 300, SLOW),
    (PARTIAL, "rho 0.65", 300, SLOW.but(rho=0.65)),
    (PARTIAL, "rho 0.8", 300, SLOW.but(rho=0.8)),
    (PARTIAL, "rho 0.35, little to mend", 300, SLOW.but(rho=0.35, xi_gap=0.3, xi_base=0.1)),
    (PARTIAL, "rho 0.35, weak drift", 300, SLOW.but(rho=0.35, xi_gap=0.5, xi_base=0.08, noise=0.5)),
    (PARTIAL, "rho 0.5, 90/10", 500, SLOW.but(share_treated=0.9)),
    (PARTIAL, "rho 0.5, heavy tails", 500, SLOW.but(heavy_tails=True)),
    (PARTIAL, "rho 0.35, clusters of 1 to 8", 1000, SLOW.but(rho=0.35, cluster_sizes=(1, 8))),
    (PARTIAL, "rho 0.8, noisy rewrites", 1000, SLOW.but(rho=0.8, noise=0.6)),
    (PARTIAL, "rho 0.65, clusters of 1 to 8, heavy tails", 2000,
     SLOW.but(rho=0.65, cluster_sizes=(1, 8), heavy_tails=True)),
    (PARTIAL, "rho 0.1", 2000, SLOW.but(rho=0.1)),
    (PARTIAL, "rho 0.8", 2000, SLOW.but(rho=0.8)),
    (BROKEN, "detail lost in every pass beside rho 0.5", 1000, SLOW.but(richness=1.0, loss=0.1)),
    (BROKEN, "polish of 0.2 in one direction", 1000, SLOW.but(asymmetry=0.2)),
    (BROKEN, "Z follows W in 20 % of the rows", 1000, SLOW.but(leak=0.2)),
    (BROKEN, "10 % of the passes do not comply", 1000, SLOW.but(noncompliance=0.1)),
    (BROKEN, "xi changes what W is worth", 1000, SLOW.but(wxi=0.3)),
]  # fmt: skip

ESTIMATES = [("rate", "ate"), ("rate_extrapolated", "ate"), ("rate_extrapolated", "att"), ("rate_late", "ate"),
             ("single_rewrite", "ate")]  # fmt: skip


def study(kind: str, name: str, n: int, world: NumericWorld, replications: int) -> list[dict[str, object]]:
    """Coverage of each of `ESTIMATES` in one world: a row each."""
    truth = world.truth()
    # A seed of its own for each world, so that adding a world changes no other's numbers.
    rng = np.random.default_rng(zlib.crc32(f"{kind}|{name}|{n}".encode()))
    drawn: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    sds = []
    for _ in range(replications):
        sample = world.sample(n, rng)
        sds.append(pooled_sd(sample.rewards[:, 0], sample.treated))
        for e in effects(sample.rewards, sample.treated, sample.clusters, unpaired=True):
            if (e.estimator, e.estimand) in ESTIMATES:
                row = (e.estimate, e.se, e.ci_low, e.ci_high, e.se_unpaired)
                drawn[e.estimator, e.estimand].append(row)
    sd = float(np.mean(sds))
    rows = []
    for estimator, estimand in ESTIMATES:
        estimate, se, low, high, unpaired = np.array(drawn[estimator, estimand]).T
        true = truth[estimand]
        rows.append({
            "world": kind, "about": name, "n": n, "estimator": estimator, "estimand": estimand,
            "truth": true, "bias_sd": (estimate.mean() - true) / sd,
            "coverage": np.mean((low <= true) & (true <= high)),
            "width_sd": np.mean(high - low) / sd,
            "two_sample_width_sd": 2 * 1.96 * np.mean(unpaired) / sd,
            "two_sample_coverage": np.mean(np.abs(estimate - true) <= 1.96 * unpaired)
            if np.isfinite(unpaired).all() else math.nan,
            "se_over_sd_of_estimates": np.sqrt(np.mean(se**2)) / estimate.std(ddof=1),
            "replications": len(estimate),
        })  # fmt: skip
    return rows


def over_all(
    study: Callable[..., list[dict[str, object]]], worlds: Sequence[tuple[object, ...]], jobs: int
) -> pd.DataFrame:
    """The rows of `study` of every world, `jobs` worlds at a time: the same rows in the same order for any number."""
    with ProcessPoolExecutor(jobs) as pool:
        found = pool.map(study, *zip(*worlds, strict=True))
        return pd.DataFrame([row for rows in tqdm(found, total=len(worlds), unit="world") for row in rows])


def options(description: str | None) -> argparse.ArgumentParser:
    """What each study of worlds can be asked on the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worlds at a time; all cores by default")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the tables")
    return parser


def report(table: pd.DataFrame) -> str:
    """The table as Markdown, one part for each kind of world, with what the bounds say of it."""
    rate, extrapolated = (
        table[(table.estimator == name) & (table.estimand == "ate")].set_index(["world", "about", "n"])
        for name in ("rate", "rate_extrapolated")
    )
    holds, partial = rate.loc[HOLDS], extrapolated.loc[PARTIAL]
    both = rate[["bias_sd"]].assign(bias_sd_x=extrapolated["bias_sd"])
    biased = both.loc[PARTIAL]
    biased = biased[biased.bias_sd.abs() > 0.02]
    share = (biased.bias_sd_x / biased.bias_sd).abs()
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        "Made by `make coverage` (`experiments/coverage.py`, seeded); the whole table, with ATT, `rate_late` and "
        "`single_rewrite`, is in `coverage.csv`. Bias and widths are in reward SDs; "
        f"{int(table.replications.max()):,} replications of each world, so a coverage of 95 % has a Monte Carlo SE of "
        f"{100 * math.sqrt(0.95 * 0.05 / table.replications.max()):.2f} points.",
        "",
        f"- Where the assumptions hold, `rate` covers {_range(holds.coverage)} (bound: 93.5 to 96.5 %). The two-sample "
        f"interval is {(holds.two_sample_width_sd / holds.width_sd).min():.1f} to "
        f"{(holds.two_sample_width_sd / holds.width_sd).max():.1f} times as wide and covers "
        f"{_range(holds.two_sample_coverage)}.",
        f"- With a rewriter that converges slowly, `rate_extrapolated` covers {_range(partial.coverage)} (bound: 92 to "
        f"98 %), `rate` {_range(rate.loc[PARTIAL].coverage)}. Where the bias of `rate` exceeds 0.02 SD "
        f"({len(biased)} worlds), that of `rate_extrapolated` is {share.min():.3f} to {share.max():.3f} of it (bound: "
        "0.1).",
        "- Where an assumption breaks, no estimator is right by itself: the last part shows how wrong each is.",
        "",
        "![coverage of rate and rate_extrapolated in every world](coverage.png)",
        "",
    ]
    for kind, title in ((HOLDS, "The assumptions hold"), (PARTIAL, "Partial convergence"), (BROKEN, "Broken worlds")):
        lines += [f"## {title}", "",
                  "| world | n | bias of rate | covers | width | two-sample | bias, extrapolated | covers | width |",
                  "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for (about, n), a in rate.loc[kind].iterrows():
            b = extrapolated.loc[(kind, about, n)]
            lines.append(
                f"| {about} | {n:,} | {a.bias_sd:+.3f} | {100 * a.coverage:.1f} % | {a.width_sd:.3f} | "
                f"{a.two_sample_width_sd:.3f} | {b.bias_sd:+.3f} | {100 * b.coverage:.1f} % | {b.width_sd:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def _range(coverage: pd.Series) -> str:
    return f"{100 * coverage.min():.1f} to {100 * coverage.max():.1f} %"


def main() -> None:
    """Run every world and write the table."""
    parser = options(__doc__)
    parser.add_argument("--replications", type=int, default=REPLICATIONS)
    args = parser.parse_args()
    table = over_all(study, [(*world, args.replications) for world in WORLDS], args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "coverage.md").write_text(report(table), encoding="utf-8")
    table.to_csv(args.out / "coverage.csv", index=False, float_format="%.5f")
    figure = plots.coverage(
        table[(table.estimand == "ate") & table.estimator.isin(["rate", "rate_extrapolated"])], top=None
    ).figure
    figure.savefig(args.out / "coverage.png", dpi=150)
    print(f"wrote {args.out / 'coverage.csv'} and {args.out / 'coverage.md'}")


if __name__ == "__main__":
    main()
