"""How often is a verdict wrong? Worlds with known truth, judged by the rules of `ratekit.diagnostics.verdicts`.

    make verdicts      # writes experiments/verdicts.csv and verdicts.md; seeded; some minutes on two cores (`--jobs N`)

Each world is a rewriter and a reward model as formulas: reward of response i after k passes

    r = base + effect * side + polish * measured + residue * rho^k + loss * k + noise

The bias of each estimator is that in a draw of 200,000 rows. "trust" is false where the estimate that the verdict
recommends is biased by more than a fifth of the effect, or where the rewrites are faulty in a way that the world
names; "do not trust" is false where that bias is under a half of the effect and nothing is faulty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from coverage import options, over_all
from numpy.typing import NDArray

from ratekit.conclusions import NO_TRUST, TRUST, WORDS
from ratekit.diagnostics.evidence import Evidence
from ratekit.diagnostics.verdicts import CHECK_RULES, verdict_of
from ratekit.estimators import effects
from ratekit.recommendation import LEAST_EFFECT_SD, recommended, shown

Floats = NDArray[np.float64]
DRAWS = 200
LARGE = 200_000


@dataclass(frozen=True)
class World:
    """A rewriter and a reward model; see the head of this file.

    faulty   the rewrites do not do what they should, whatever the bias
    unseen   nothing in the data could show the fault
    """

    name: str
    n: int = 1000
    depth: int = 3
    effect: float = 0.5
    on_untreated: float | None = None  # effect on the untreated, where it is another
    noise: float = 0.3
    polish: tuple[float, float] = (
        0.0,
        0.0,
    )  # what a rewrite towards (treated, untreated) adds to another measure
    hidden: bool = False  # nobody measures the polish
    residue: tuple[float, float] = (0.0, 0.0)  # of (treated, untreated) originals, which decays
    rho: float = 0.5
    mark: tuple[float, float] = (0.0, 0.0)  # what the first rewrite leaves for good, by class
    loss: float = 0.0  # of reward with each pass
    drift: float = 0.0  # of the third pass alone
    dose: float = 1.0  # of the classes' gap
    overshoot: float = 0.0  # of the third pass, in doses
    steep: float = 0.0  # extra reward per unit beyond the originals' range
    complies: float = 1.0
    refused: float = 0.0
    refused_by: str = ""  # "", "reaction" or "reward"
    per_prompt: int = 1
    measured: bool = True
    faulty: bool = False
    unseen: bool = False

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Evidence, Floats, Floats]:
        """The evidence, the rewards (n, depth+1), and each row's true effect."""
        K = self.depth + 1
        codes = np.arange(n) // self.per_prompt
        w = np.arange(n) % 2 == 0
        k = np.arange(K)
        side = np.where((k % 2 == 0)[None], w[:, None], ~w[:, None]).astype(float)
        wants = 10.0 * side
        own = np.where((k == 0)[None], wants, wants[:, :1] + self.dose * (wants - wants[:, :1]))
        if K > 3 and self.overshoot:
            own[:, 3] += self.overshoot * (own[:, 3] - own[:, 2])
        stays = rng.random((n, K)) >= self.complies
        for j in range(1, K):
            own[stays[:, j], j] = own[stays[:, j], j - 1]
        own = own + 2 * rng.standard_normal((n, 1)) + 0.5 * rng.standard_normal((n, K))
        tau = np.where(w, self.effect, self.effect if self.on_untreated is None else self.on_untreated)
        hard = np.zeros(n, bool)
        base = rng.standard_normal(n)
        if self.refused_by == "reaction":
            hard = rng.random(n) < self.refused
            tau = np.where(hard, 8 * tau, tau)
        elif self.refused_by == "reward":
            hard = base > np.quantile(base, 1 - self.refused)
        elif self.refused:
            hard = rng.random(n) < self.refused
        level = (
            (own - own.mean(axis=1, keepdims=True)) / 10 if self.complies < 1 or self.overshoot else side * self.dose
        )
        r = base[:, None] + tau[:, None] * level
        towards = np.where(side > 0, self.polish[0], self.polish[1]) * (k > 0)[None]
        off = rng.standard_normal((n, 1)) + towards + 0.2 * rng.standard_normal((n, K))
        r = r + (off if any(self.polish) else 0.0)
        r = r + np.where(w, *self.residue)[:, None] * self.rho**k + np.where(w, *self.mark)[:, None] * (k > 0)
        r = r - self.loss * k + self.drift * (k == 3) + self.noise * rng.standard_normal((n, K))
        if self.steep:
            r = r + self.steep * np.maximum(own - 16, 0)
        shown = rng.standard_normal((n, 1)) + 0.2 * rng.standard_normal((n, K)) if self.hidden else off
        ok = np.ones((n, K - 1), bool)
        ok[hard] = False
        values = r.copy()
        values[:, 1:][~ok] = np.nan
        measured = np.where(np.isfinite(values), own, np.nan) if self.measured else np.empty((n, 0))
        seen = Evidence(
            labels={"attribute": "x"}, rows=np.arange(n), treated=w, clusters=codes, ok=ok,
            kept=np.where(ok, 1.0, np.nan), repeated=np.where(ok, 0.0, np.nan), unit="own" if self.measured else None,
            own=measured, others={"polish": np.where(np.isfinite(values), shown, np.nan)},
        )  # fmt: skip
        return seen, values, tau


def worlds() -> Iterator[World]:
    """The worlds of the table."""
    clean = World("clean")
    for n in (30, 100, 300, 40_000):
        yield replace(clean, name=f"clean, {n} rows", n=n)
    yield replace(clean, name="clean, 1,000 rows")
    yield replace(clean, name="clean, two passes", depth=2)
    yield replace(clean, name="clean, four passes", depth=4)
    yield replace(clean, name="clean, no measure", measured=False)
    yield replace(clean, name="clean, 25 prompts of 40 rows", per_prompt=40)
    for n in (100, 1000, 40_000):
        yield replace(clean, name=f"no effect, {n} rows", n=n, effect=0.0)
    yield replace(clean, name="ATT and ATU cancel", on_untreated=-0.5)
    polished = World("polish", polish=(0.4, 0.0))
    for n in (30, 100, 1000):
        yield replace(polished, name=f"no effect, all of it polish one way, {n} rows", n=n, effect=0.0)
    yield replace(polished, name="polish one way, as large as the effect", effect=0.4)
    yield replace(polished, name="polish both ways alike", polish=(0.4, 0.4))
    yield replace(polished, name="polish one way, a tenth of the effect", polish=(0.05, 0.0))
    slow = World("residue", effect=0.3, residue=(-0.8, 0.8))
    for n in (32, 300, 1000, 10_000):
        yield replace(slow, name=f"residue biases RATE by two thirds, {n} rows", n=n)
    yield replace(slow, name="the same, two passes", depth=2, unseen=True)
    yield replace(slow, name="the same, four passes", depth=4)
    yield replace(slow, name="residue of the same sign, which cancels", residue=(0.8, 0.8))
    yield replace(clean, name="a drift of 0.006 SD, 40,000 rows", n=40_000, effect=0.0, drift=0.006)
    yield replace(clean, name="loss of 0.1 with each pass", loss=0.1)
    yield replace(clean, name="loss, four passes", loss=0.1, depth=4)
    yield replace(clean, name="mark of the first rewrite", mark=(0.5, -0.5))
    yield replace(clean, name="mark and residue", mark=(-0.5, 0.5), residue=(-0.4, 0.4))
    for n in (30, 300, 1000):
        yield replace(clean, name=f"rewrites move 2 % of the gap, {n} rows", dose=0.02, n=n, faulty=True)
    yield replace(clean, name="rewrites move half of the gap", dose=0.5)
    yield replace(clean, name="rewrites move 1.3 of the gap", dose=1.3)
    yield replace(clean, name="rewrites go where the reward is steep", dose=3.0, steep=1.0, faulty=True)
    yield replace(clean, name="the third pass overshoots by a fifth", overshoot=0.2)
    yield replace(clean, name="the third pass overshoots by 80 %", overshoot=0.8, faulty=True)
    yield replace(clean, name="half of the rewrites do nothing", complies=0.5, faulty=True)
    yield replace(clean, name="one in 20 rewrites does nothing", complies=0.95)
    yield replace(clean, name="refusals at random, 9 %", refused=0.09)
    yield replace(clean, name="those that react refuse, 9 %", refused=0.09, refused_by="reaction", effect=0.2)
    yield replace(clean, name="those with high rewards refuse, 9 %", refused=0.09, refused_by="reward")
    yield replace(clean, name="two thirds refused", refused=0.67, faulty=True)
    yield replace(clean, name="one rewrite", depth=1)
    yield replace(clean, name="polish that nobody measures", polish=(0.4, 0.0), hidden=True, effect=0.0, unseen=True)


def judge(world: World, seen: Evidence, r: Floats) -> tuple[str, str, tuple[str, ...]]:
    """The verdict's word, the estimator that it reads, and the checks that decided."""
    found = effects(r, seen.treated, seen.clusters)
    best = recommended(found, r, seen.treated, seen.clusters, seen.own if world.measured and world.depth > 2 else None)
    assert best is not None
    rows = [
        {**vars(e), "reward_sd": found.reward_sd, "recommended": (e.estimator, e.estimand) == best[:2]}
        for e in shown(found, best)
    ]
    verdict = verdict_of(seen, "reward", r, rows)
    return verdict.word, best.estimator, tuple(c.name for c in verdict.checks if c.word == verdict.word != TRUST)


def study(place: int) -> list[dict[str, object]]:
    """The row of one world."""
    world = list(worlds())[place]
    rng = np.random.default_rng([20260101, place])
    seen, r, tau = world.draw(rng, LARGE)
    of = {(e.estimator, e.estimand): e.estimate for e in effects(r, seen.treated, seen.clusters)}
    w = seen.treated
    sd = float(np.nanstd(r[w, 0]))
    truth = world.dose * tau if not world.steep else tau  # an effect per dose given
    size = max(abs(truth[w].mean()), abs(truth[~w].mean()), LEAST_EFFECT_SD * sd)
    words: Counter[str] = Counter()
    used: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    false_trust = false_no = 0
    for _ in range(DRAWS):
        seen, r, _tau = world.draw(rng, world.n)
        word, estimator, why = judge(world, seen, r)
        words[word] += 1
        used[estimator] += 1
        reasons.update(why)
        bias = abs(of[estimator, "ate"] - truth.mean()) / size
        false_trust += word == TRUST and (world.faulty or bias > CHECK_RULES["drift"].fine[1])
        false_no += word == NO_TRUST and not world.faulty and bias < CHECK_RULES["drift"].usable[1]
    read = used.most_common(1)[0][0]
    return [{
        "world": world.name, "n": world.n, "read": read, "bias": abs(of[read, "ate"] - truth.mean()) / size,
        "faulty": world.faulty, "unseen": world.unseen, **{word: words[word] / DRAWS for word in WORDS},
        "false trust": false_trust / DRAWS, "false do not trust": false_no / DRAWS,
        "reason": ", ".join(name for name, _ in reasons.most_common(2)),
    }]  # fmt: skip


def main() -> None:
    """Write the table."""
    args = options(__doc__).parse_args()
    table = over_all(study, [(place,) for place in range(len(list(worlds())))], args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / "verdicts.csv", index=False, float_format="%.3f")
    (args.out / "verdicts.md").write_text(report(table), encoding="utf-8")
    print(table[["world", *WORDS, "false trust", "false do not trust"]].to_string())


def report(table: pd.DataFrame) -> str:
    """The table as Markdown."""
    seen = table[~table["unseen"]]
    lines = [
        "# How often a verdict is wrong", "",
        f"`make verdicts`: {len(table)} worlds with known truth, {DRAWS} draws each; the worlds and what counts as "
        "wrong are in [verdicts.py](verdicts.py). Bias is that of the estimate that is read most often, in effects.",
        "",
        f"Worst world: false \"trust\" in {seen['false trust'].max():.1%} of its draws, false \"do not trust\" in "
        f"{seen['false do not trust'].max():.1%}. \"Cannot tell\" is said in {seen['cannot tell'].mean():.0%} of all "
        "draws. Worlds marked *unseen* have a fault that nothing in the data can show; no rule claims to find it.", "",
        f"| world | rows | read | bias | {' | '.join(WORDS)} | false trust | false do not trust |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in table.to_dict("records"):
        mark = " (unseen)" if row["unseen"] else " (faulty)" if row["faulty"] else ""
        lines.append(
            f"| {row['world']}{mark} | {row['n']:,} | {row['read']} | {row['bias']:.2f} | "
            + " | ".join(f"{row[w]:.0%}" for w in WORDS)
            + f" | {row['false trust']:.1%} | {row['false do not trust']:.1%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
