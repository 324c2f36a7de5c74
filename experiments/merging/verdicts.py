"""PREDICTIONS.md line by line: does it hold? Each function is one line's rule, and says what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from analyses import barriers

Verdict = tuple[bool, str]


@dataclass(frozen=True)
class Results:
    """The study's tables."""

    members: pd.DataFrame
    paths: pd.DataFrame
    merges: pd.DataFrame
    probes: pd.DataFrame
    zeros: pd.DataFrame

    def along(self, between: str, how: str, metric: str) -> list[pd.DataFrame]:
        """One quantity along each seed's path, by t."""
        p = self.paths
        of = p[(p["between"] == between) & (p["how"] == how) & (p["metric"] == metric)]
        return [path.sort_values("t") for _, path in of.groupby("seed")]

    def barrier(self, between: str, how: str) -> np.ndarray:
        """The loss barrier of each seed's path."""
        return barriers(self.paths).loc[between, how].to_numpy()

    def member(self, kind: str, quantity: str, init: str = "base") -> np.ndarray:
        """A quantity of each model of a kind."""
        m = self.members
        of = (m["kind"] == kind) & (m["quantity"] == quantity) & (m["init"] == init)
        return m.loc[of].sort_values("seed")["value"].to_numpy()

    def merged(self, group: str, method: str, quantity: str) -> np.ndarray:
        """A quantity of each seed's merge."""
        m = self.merges
        of = (m["group"] == group) & (m["method"] == method) & (m["quantity"] == quantity)
        return m.loc[of].sort_values("seed")["value"].to_numpy()

    def probe(self, probe: str, about: str, number: str) -> float:
        """One number of a probe."""
        p = self.probes
        return float(p.loc[(p["probe"] == probe) & (p["about"] == about) & (p["number"] == number), "value"].iloc[0])


def _of(holds: np.ndarray, at_least: int) -> tuple[bool, str]:
    """Whether enough seeds do; a quick run of fewer seeds is judged in proportion."""
    n = len(holds)
    return bool(holds.sum() >= np.ceil(at_least * n / 5)), f"{int(holds.sum())} of {n}"


def _middle(path: pd.DataFrame) -> float:
    return float(path["value"].iloc[len(path) // 2])


def blind(r: Results) -> Verdict:
    """1"""
    worst = max(r.barrier(b, "one base").max() for b in ("U-U", "L-L", "U-L", "L-S"))
    rises = np.array([p["value"].iloc[-1] - p["value"].iloc[0] for p in r.along("U-L", "one base", "effect/length")])
    said = f"largest barrier {worst:.4f}; the length effect rises by {rises.min():.2f} to {rises.max():.2f} SD"
    return bool(worst < 0.01 and (rises > 0.7).all()), said


def chord(r: Results) -> Verdict:
    """2"""
    away = np.array([
        (p["value"] - p["chord"]).abs().max() / abs(p["value"].iloc[-1] - p["value"].iloc[0])
        for p in r.along("U-L", "one base", "raw/length")
    ])  # fmt: skip
    return bool((away < 0.15).all()), f"deviations of {100 * away.min():.0f} to {100 * away.max():.0f} % of the range"


def shared(r: Results) -> Verdict:
    """3"""
    kept = r.merged("all L", "soup", "effect/length")[0] / r.merged("all L", "members' mean", "effect/length")[0]
    return bool(kept >= 0.9), f"the soup keeps {100 * kept:.0f} %"


def diluted(r: Results) -> Verdict:
    """4"""
    length = r.merged("L+S", "soup", "effect/length") / r.member("length-biased", "effect/length")
    style = r.merged("L+S", "soup", "effect/style") / r.member("style-biased", "effect/style")
    inside = (length > 0.3) & (length < 0.75) & (style > 0.3) & (style < 0.75)
    holds, n = _of(inside, 4)
    kept = f"keeps {100 * length.min():.0f} to {100 * length.max():.0f} % of the length effect"
    return holds, f"{n}; {kept} and {100 * style.min():.0f} to {100 * style.max():.0f} % of the style effect"


def decides(r: Results) -> Verdict:
    """5"""
    effect, accuracy = (r.merged("L+S", "ties", q) - r.merged("L+S", "soup", q) for q in ("effect/style", "accuracy"))
    said = f"TIES less soup: style effect {effect.mean():+.2f} SD, accuracy {100 * accuracy.mean():+.1f} points"
    return bool(abs(effect.mean()) > 0.2 and abs(accuracy.mean()) < 0.02), said


def unseen(r: Results) -> Verdict:
    """6"""
    wide = r.merges.pivot_table(index=["group", "seed", "method"], columns="quantity", values="value")
    accuracy, length = wide["accuracy"].to_numpy(), wide["effect/length"].abs().to_numpy()
    correlation = float(np.corrcoef(accuracy, length)[0, 1])
    alike = np.abs(accuracy[:, None] - accuracy) < 0.01
    gap = float(np.abs(length[:, None] - length)[alike].max())
    said = f"correlation {correlation:.2f}; merges of like accuracy differ by up to {gap:.2f} SD"
    return bool(correlation > -0.9 and gap > 0.3), said


def alike(r: Results) -> Verdict:
    """7"""
    same, other = (r.probe("directedness", f"L with {x}", "mean cosine") for x in "LS")
    return bool(same > 0.7 and other < 0.5), f"{same:.2f} between two L, {other:.2f} between L and S"


def convex(r: Results) -> Verdict:
    """8"""
    gap = r.probe("convexity", "fifteen of one base", "worst gap")
    return bool(gap <= 0.01), f"worst gap {gap:+.4f}"


def real(r: Results) -> Verdict:
    """9"""
    found = r.barrier("U-L", "raw")
    holds, n = _of(found > 0.05, 4)
    return holds, f"{n}; barriers {found.min():.3f} to {found.max():.3f}"


def helps(r: Results) -> Verdict:
    """10"""
    raw, aligned = r.barrier("U-L", "raw"), r.barrier("U-L", "aligned")
    lower, half = _of(aligned < raw, 3), _of(aligned < raw / 2, 2)
    said = f"lower in {lower[1]}, under half in {half[1]}; mean {raw.mean():.3f} to {aligned.mean():.3f}"
    return lower[0] and half[0], said


def curved(r: Results) -> Verdict:
    """11"""
    found = r.barrier("U-L", "aligned curve")
    holds, n = _of(found < 0.02, 4)
    return holds, f"{n}; barriers {found.min():.3f} to {found.max():.3f}"


def climbs(r: Results) -> Verdict:
    """12"""
    hows = ("raw", "aligned", "raw curve", "aligned curve")
    inside = []
    for k in range(len(r.barrier("U-L", "raw"))):
        best = min(hows, key=lambda how: r.barrier("U-L", how)[k])
        path = r.along("U-L", best, "effect/length")[k]
        inside.append(path["value"].iloc[0] < _middle(path) < path["value"].iloc[-1])
    return _of(np.array(inside), 4)


def fails(r: Results) -> Verdict:
    """13"""
    gap = r.probe("convexity", "ten independent, uniform", "gap")
    return bool(gap > 0.1), f"gap {gap:+.3f}"


def early(r: Results) -> Verdict:
    """14"""
    p = r.probes[(r.probes["probe"] == "determinism") & (r.probes["number"] == "barrier")]
    step = p["about"].str.extract(r"step (\d+)")[0].astype(int)
    late, first = p["value"][step == step.max()].to_numpy(), p["value"][step == 0].to_numpy()
    said = f"parting late {np.round(late, 4).tolist()}, at step 0 {np.round(first, 4).tolist()}"
    return bool((late < 0.01).all() and (first > late).all()), said


def _length(r: Results) -> pd.DataFrame:
    return r.zeros[r.zeros["kind"] == "length-biased"]


def reached(r: Results) -> Verdict:
    """15"""
    z = _length(r)
    holds, n = _of(((z["held_out_low"] <= 0) & (z["held_out_high"] >= 0)).to_numpy(), 4)
    before = z["length_before"]
    return (
        holds,
        f"{n}; held-out effects {z['held_out'].min():+.3f} to {z['held_out'].max():+.3f}, from {before.mean():+.2f}",
    )


def cheap(r: Results) -> Verdict:
    """16"""
    z = _length(r)
    good = (z["accuracy"] >= z["accuracy_before"]) & (z["accuracy"] > z["accuracy_unbiased"] - 0.02)
    holds, n = _of(good.to_numpy(), 4)
    a, b, c = (100 * z[x].mean() for x in ("accuracy_before", "accuracy", "accuracy_unbiased"))
    return holds, f"{n}; accuracy {a:.1f} to {b:.1f} %, unbiased models {c:.1f} %"


def differ(r: Results) -> Verdict:
    """17"""
    c = _length(r)["coefficient"].abs()
    return bool(c.max() > 1.1 * c.min()), f"coefficients {-c.max():.3f} to {-c.min():.3f}"


def stay(r: Results) -> Verdict:
    """18"""
    z = _length(r)
    gap = (z["quality_after"] - z["quality_unbiased"]).to_numpy()
    holds, n = _of(np.abs(gap) < 0.3, 4)
    return holds, f"{n}; quality effects differ by {gap.min():+.2f} to {gap.max():+.2f} SD"


def one_kind(r: Results) -> Verdict:
    """19"""
    raw, aligned = r.barrier("U-U", "raw"), r.barrier("U-U", "aligned")
    high, half = _of(raw > 0.05, 4), _of(aligned < raw / 2, 3)
    said = (
        f"over 0.05 in {high[1]}, under half when aligned in {half[1]}; mean {raw.mean():.3f} to {aligned.mean():.3f}"
    )
    return high[0] and half[0], said


def dead(r: Results) -> Verdict:
    """20"""
    straight, aligned = (r.along("U-L", how, "raw/quality") for how in ("raw", "aligned"))
    share = np.array([_middle(p) / _middle_of_chord(p) for p in straight])
    ordered = np.array([_middle(p) / _middle_of_chord(p) for p in aligned])
    half, more = _of(share < 0.5, 4), _of(ordered > share, 4)
    said = f"at the middle {np.round(share, 2).tolist()} of the chord, {np.round(ordered, 2).tolist()} when aligned"
    return half[0] and more[0], said


def _middle_of_chord(path: pd.DataFrame) -> float:
    return float(path["value"].iloc[[0, -1]].mean())


RULES: dict[int, tuple[str, Callable[[Results], Verdict]]] = {
    1: ("the loss is blind: no barrier, while the length effect rises by more than 0.7 SD", blind),
    2: ("raw effects within 15 % of the chord", chord),
    3: ("a shared bias survives the soup (90 %)", shared),
    4: ("an unshared bias is diluted to 30-75 %", diluted),
    5: ("TIES and soup differ in style effect (0.2 SD), not in accuracy (2 points)", decides),
    6: ("accuracy does not see the length effect", unseen),
    7: ("alike in weights if alike in bias", alike),
    8: ("convex within one base", convex),
    9: ("U to L of independent inits: barrier over 0.05", real),
    10: ("alignment lowers it", helps),
    11: ("an aligned curve has a barrier under 0.02", curved),
    12: ("on the best path the effect's middle lies between its ends", climbs),
    13: ("not convex between independent inits", fails),
    14: ("one mode from step 75 on; a larger barrier from step 0", early),
    15: ("zero length effect is reached on held-out prompts", reached),
    16: ("it costs no accuracy", cheap),
    17: ("the coefficients differ by more than 10 %", differ),
    18: ("the quality effect is that of unbiased models (0.3 SD)", stay),
    19: ("added: U to U' of independent inits: barrier over 0.05, half when aligned", one_kind),
    20: ("added: half-way the quality effect collapses, less so when aligned", dead),
}


def judge(results: Results) -> pd.DataFrame:
    """Every prediction: number, what it says, whether it holds, what was seen."""
    rows = []
    for number, (claim, rule) in RULES.items():
        holds, seen = rule(results)
        rows.append({"prediction": number, "claim": claim, "holds": bool(holds), "seen": seen})
    return pd.DataFrame(rows)
