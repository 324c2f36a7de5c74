"""Which estimate to read: one per attribute and reward model, with the reason.

| passes | what is shown | read |
|---|---|---|
| 4 or more | rho of the later passes is not shown to lie below 0 | `rate_geometric` |
| 4 or more | it is: they alternate, as where the third goes too far; or the attribute's own measure drifts | `rate` |
| 3 | the drift of the attribute's own measure lies within a tenth of the dose, and rho within [0, 1] by 2 SE | `rate_extrapolated` |
| 3 | the drift of the reward lies within a tenth of the effect | `rate` |
| 2, or 3 and more without that | nothing more | `rate`, with a bound for the drift where there is a third pass |
| 1, 0 | no RATE | `single_rewrite`, `naive` |

`rate_extrapolated` is right where the residue decays geometrically, and far off where content is lost at every pass or
where a third pass overshoots, which rewards alone do not tell apart at depth 3. A mark that the first rewrite leaves
breaks the law between passes 0 and 2 but not the law of the later passes, which is all that `rate_geometric` uses, so
a law that fails at the response is no reason against it. Where the later passes are too noisy to show that they
converge, where they diverge (rho above 1) or are many and follow no geometric law, the data do not rule out `rate`, and
the interval shown covers both (`shown`). So it does where `rate` is read because nothing but the third pass moves: a
mark that happens to cancel the residue would look the same.
"""  # noqa: E501

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import special

from ratekit.estimators import (
    ESTIMANDS,
    ESTIMATORS,
    Bools,
    Effect,
    Effects,
    Floats,
    Ints,
    Sizes,
    cluster_sums,
    convergence,
    late_convergence,
    pooled_sd,
    rounding_of,
    rows_about,
    rows_used,
    signed_change,
    wald,
    with_interval,
)
from ratekit.intervals import Interval, mean_interval, outside
from ratekit.tables import percent

MARGIN = 0.1  # of the dose, or of the effect: a drift within it is none to speak of
LEAST_EFFECT_SD = 0.1  # an effect smaller than this is judged as if it were this large
OUTSIDE = 0.05  # of the rewrites may lie outside the data
LAW_LEVEL = 0.05
_KEPT = 0.9  # of the rows of RATE must have the passes that another estimator reads


class Recommendation(NamedTuple):
    """The estimate to read first, and why; `gap` is how far from it another lies that the data do not rule out."""

    estimator: str
    estimand: str
    reason: str
    gap: float = 0.0


def recommended(
    found: Effects, rewards: Floats, treated: Bools, clusters: Ints, own: Floats | None = None
) -> Recommendation | None:
    """Which of the effects to read; None where there are none.

    >>> from ratekit.estimators import effects
    >>> rng = np.random.default_rng(0)
    >>> w, r = np.arange(100) % 2 == 0, rng.normal(size=(100, 3))
    >>> recommended(effects(r, w), r, w, np.arange(100))
    Recommendation(estimator='rate', estimand='ate', reason='drift not tested: there is no third rewrite', gap=0.0)

    Parameters
    ----------
    found
        What `effects` gave for these arrays.
    rewards, treated, clusters
        (n, depth+1), (n,), (n,), as for `effects`.
    own
        (n, depth+1) the attribute's own measure of each text, NaN where there is none.
    """
    for estimator in ("rate", "single_rewrite", "naive"):
        for estimand in ESTIMANDS:
            if found.get(estimator, estimand):
                if estimator == "rate":
                    best = _of_rate(found, estimand, rewards, treated, clusters, own)
                else:
                    depth = "there are no rewrites" if estimator == "naive" else "there is one rewrite alone"
                    if np.isfinite(rewards[:, 2:3]).any():
                        depth = next((e.why for e in found.left_out if e.estimator == "rate"), depth)
                    best = Recommendation(estimator, estimand, f"no RATE: {depth}; {ESTIMATORS[estimator].claim}")
                return best._replace(reason=best.reason + _support(rewards, own, clusters))
    return None


def shown(found: Effects, best: Recommendation | None, level: float = 0.95) -> Effects:
    """The effects, with the uncertainty of the recommended one widened to its `gap`.

    The gap between two estimates of which the data rule out neither is a model's uncertainty and counts as such, SE^2 +
    gap^2 (Buckland, Burnham and Augustin 1997, Biometrics 53:603): a 95 % interval then covers at least 95 %
    whichever of the two is right.

    >>> from ratekit.estimators import effects
    >>> found = effects([[0, 2, 1.0], [1, 2, 0.5], [3, 1, 2.5], [2, 0, 2.0]], [False, False, True, True])
    >>> best = Recommendation("rate", "ate", "", gap=1.0)
    >>> [round(of.get("rate", "ate").se, 3) for of in (found, shown(found, best))]
    [0.204, 1.021]

    Parameters
    ----------
    found
        What `effects` gave.
    best
        What `recommended` chose of it.
    level
        Of the intervals.
    """
    if best is None or not best.gap > 0:
        return found
    return replace(found, found=tuple(
        _wider(e, best.gap, found.reward_sd, level) if (e.estimator, e.estimand) == best[:2] else e for e in found
    ))  # fmt: skip


def _wider(e: Effect, gap: float, sd: float, level: float) -> Effect:
    reach = float(special.stdtrit(e.df, 0.5 + level / 2)) * gap
    low = e.estimate - math.hypot(e.estimate - e.ci_low, reach)
    high = e.estimate + math.hypot(e.ci_high - e.estimate, reach)
    se = math.hypot(e.se, gap)
    p = max(e.p_value, float(2 * special.stdtr(e.df, -abs(e.estimate / se))))
    low_sd, high_sd = with_interval(e, low, high, sd)
    return replace(
        e, se=se, ci_low=low, ci_high=high, p_value=p, se_sd=math.hypot(e.se_sd, gap / sd if sd > 0 else math.nan),
        ci_low_sd=low_sd, ci_high_sd=high_sd,
    )  # fmt: skip


def _support(rewards: Floats, own: Floats | None, clusters: Ints) -> str:
    """What is said where rewrites lie beyond what any original shows."""
    shares = {"the attribute's measure": own, "reward, so SDs of the originals do not tell its size": rewards}
    beyond = []
    for name, values in shares.items():
        share = None if values is None else outside(values, clusters)
        if share is not None and share.value > OUTSIDE:
            beyond.append(f"{percent(share.value)} of the rewrites lie beyond every original in {name}")
    return "; outside the data: " + ", and ".join(beyond) if beyond else ""


def _of_rate(
    found: Effects, estimand: str, rewards: Floats, treated: Bools, clusters: Ints, own: Floats | None
) -> Recommendation:
    rate = found.get("rate", estimand)
    assert rate is not None
    why_not = "drift not tested: there is no third rewrite"
    sides = [side for side in (True, False) if estimand in ("ate", "att" if side else "atu")]
    parts = {side: (rewards[treated == side], clusters[treated == side]) for side in sides}
    geometric, extrapolated = found.get("rate_geometric", estimand), found.get("rate_extrapolated", estimand)
    if geometric is not None:
        read, doubted, why = _geometric(parts, own, treated, clusters)
        enough, why_not = _enough(geometric, rate, True, why)
        gap = _gap(found, estimand, doubted) if enough else 0.0
        if gap > 0:
            why += f"; the interval covers {'rate' if read == 'rate_geometric' else 'rate_geometric'} too"
        if gap > 0 or (enough and read == "rate_geometric"):
            return Recommendation(read, estimand, why, gap)
    elif extrapolated is not None:
        scale = abs(effect_size(rewards, treated))
        fine, why = _extrapolated(parts, own, treated, clusters, scale)
        fine, why = _enough(extrapolated, rate, fine, why)
        if fine:
            return Recommendation("rate_extrapolated", estimand, why)
        if all(_drift(r, c).within(MARGIN * scale) for r, c in parts.values()):
            return Recommendation("rate", estimand, "the reward's drift is shown to lie within a tenth of the effect")
        why_not = why
    return Recommendation("rate", estimand, why_not + _bound(rewards, treated, clusters, estimand))


def effect_size(r: Floats, treated: Bools) -> float:
    """What a bias is held against: max(|ATT|, |ATU|, 0.1 SD), in the reward's units, from rewards r (n, depth+1).

    It has the sign of the ATE, so that parts of it are parts of the effect. Of the rewards of rewrites where they are
    there, else of the first rewrite; the SD is that of the originals, or of the second rewrite where the originals are
    not scored.
    """
    sds = [pooled_sd(r[:, k], treated) for k in (0, 2, 1) if k < r.shape[1]]
    sd = next((sd for sd in sds if sd == sd), 0.0)
    if r.shape[1] < 2:
        return LEAST_EFFECT_SD * sd
    gaps = signed_change(r, treated, then=2 if r.shape[1] > 2 else 0)
    known = np.isfinite(gaps)
    sides = [gaps[known & (treated == side)] for side in (True, False)]
    size = max([LEAST_EFFECT_SD * sd, *(abs(float(of.mean())) for of in sides if len(of))])
    return -size if known.any() and gaps[known].mean() < 0 else size


def _enough(other: Effect, rate: Effect, fine: bool, why: str) -> tuple[bool, str]:
    if other.n < _KEPT * rate.n:
        return False, f"only {other.n} of {rate.n} rows have the passes of {other.estimator}"
    return fine, why


def _extrapolated(
    parts: dict[bool, tuple[Floats, Ints]], own: Floats | None, treated: Bools, clusters: Ints, scale: float
) -> tuple[bool, str]:
    """May `rate_extrapolated` be read at depth 3?"""
    if own is None:
        return False, "drift not ruled out: no measure of the attribute tells what the third rewrite did"
    outcome, said = _judged(own_drift(own, treated, clusters))
    if outcome != "fine":
        return False, said
    for side, (r, c) in parts.items():
        passes, used = rows_used(ESTIMATORS["rate_extrapolated"], r)
        if not used.any():
            return False, "a class has no third rewrite"
        fit = convergence(r[used][:, : max(passes) + 1], c[used])
        inside = fit.ratio - 2 * fit.se >= 0 and fit.ratio + 2 * fit.se <= 1
        if not inside and not _drift(r, c).within(MARGIN * scale):
            name = "treated" if side else "untreated"
            return False, f"the convergence of {name} rows is not shown to lie between 0 and 1 ({fit.ratio:.2g})"
    return True, "the attribute's own measure does not drift, and the reward's drift dies out from pass to pass"


def _geometric(
    parts: dict[bool, tuple[Floats, Ints]], own: Floats | None, treated: Bools, clusters: Ints
) -> tuple[str, list[bool], str]:
    """Read `rate_geometric` or `rate`, in which classes the data do not rule out the other, and why."""
    if own is not None and own.shape[1] > 3:
        outcome, said = _judged(own_drift(own, treated, clusters))
        if outcome == "bad":
            return "rate", [], said
    why = "four or more passes, and a geometric law of their drift is not rejected"
    read, doubts, level = "rate_geometric", dict[bool, str](), LAW_LEVEL / len(parts)
    for side, (r, c) in parts.items():
        name = "treated" if side else "untreated"
        passes, used = rows_used(ESTIMATORS["rate_geometric"], r)
        if not used.any():
            return "rate", [], f"no {name} row has four rewrites"
        late, codes = r[used][:, : max(passes) + 1], c[used]
        fit = late_convergence(late, codes)
        if fit.ratio + 2 * fit.se < 0:
            return "rate", [], f"the later passes of {name} rows alternate (rho {fit.ratio:.2g})"
        scored = np.isfinite(late[:, 0])
        if fit.ratio - 2 * fit.se > 1 and fit.se > 0:
            doubts[side] = f"the drift of {name} rows grows (rho {fit.ratio:.2g})"
        elif law(late[:, 1:], codes) < level:
            doubts[side] = f"the later passes of {name} rows do not follow a geometric law"
        elif scored.any() and law(late[scored], codes[scored]) < level:
            if fit.ratio - 2 * fit.se > 0:
                why = "the later passes converge; what the first rewrite leaves for good is left out"
                continue
            doubts[side] = (
                f"the passes of {name} rows do not follow a geometric law, and the later ones tell too little"
            )
            kept = _mean(late[scored, 0] - late[scored, 2], codes[scored], 0.0)
            if kept is None or not (kept.low > 0 or kept.high < 0):
                read = "rate"  # no mark: nothing but the third pass is shown to move
    if read == "rate":
        return read, list(parts), next(iter(doubts.values()))
    return read, list(doubts), next(iter(doubts.values()), why)


def _gap(found: Effects, estimand: str, sides: list[bool]) -> float:
    """How far the estimate would move if in each of these classes the other estimator were right, signs aside."""
    whole, gap = found.get("rate_geometric", estimand), 0.0
    for side in sides:
        one, other = (found.get(name, "att" if side else "atu") for name in ("rate_geometric", "rate"))
        assert whole is not None
        assert one is not None
        assert other is not None
        gap += (whole.n_treated if side else whole.n_untreated) / whole.n * abs(one.estimate - other.estimate)
    return gap


def own_drift(own: Floats, treated: Bools, clusters: Ints) -> dict[bool, Interval]:
    """By how much the third rewrite moves the attribute's own measure beyond the first, in doses, by class.

    own (n, depth+1); nothing for fewer than three rewrites. The dose is what the second rewrite moves the measure by.
    """
    if own.shape[1] < 4:
        return {}
    moved = signed_change(own, treated)
    dose = abs(float(np.nanmean(moved))) if np.isfinite(moved).any() else 0.0
    rounding, found = rounding_of(own), {}
    for side in (True, False):
        of = treated == side
        drift = _mean(own[of, 3] - own[of, 1], clusters[of], rounding)
        if drift is not None:
            found[side] = drift.parts_of(dose)
    return found


def _judged(drifts: dict[bool, Interval]) -> tuple[str, str]:
    """Do the third rewrites move the attribute as far as the first: "fine", "bad" or "unknown", and a sentence."""
    if not drifts:
        return "unknown", "drift not tested: there is no third rewrite"
    if all(drift.within(MARGIN) for drift in drifts.values()):
        return "fine", "the third rewrite moves the attribute as far as the first"
    if any(drift.low > MARGIN or drift.high < -MARGIN for drift in drifts.values()):
        return "bad", "the third rewrite does not move the attribute as far as the first"
    return "unknown", "too few rows to tell whether the third rewrite moves the attribute as the first did"


def law(rewards: Floats, clusters: Ints) -> float:
    """p-value of a geometric law of the drift in rewards (n, passes) of one class; NaN for fewer than 5 passes.

    With d_k = m_k - m_(k+2) the law says d_(k-1) d_(k+1) = d_k^2 for every k. The products' differences are tested
    together with a cluster-robust covariance by the delta method and Hotelling's correction for few clusters.
    """
    drops = rewards[:, :-2] - rewards[:, 2:]
    if drops.shape[1] < 3:
        return float("nan")
    drops = drops / (float(np.abs(drops).max(initial=0)) or 1.0)  # else the products leave float64
    mean = drops.mean(axis=0)
    gaps = mean[:-2] * mean[2:] - mean[1:-1] ** 2
    spread = drops - mean
    influence = mean[:-2] * spread[:, 2:] + mean[2:] * spread[:, :-2] - 2 * mean[1:-1] * spread[:, 1:-1]
    sizes = Sizes(np.bincount(clusters).astype(float))
    scores = np.stack([sizes.scores(cluster_sums(influence[:, j], clusters)) for j in range(len(gaps))], axis=1)
    return wald(gaps, scores.T @ scores, sizes.df)[1]


def _drift(r: Floats, clusters: Ints) -> Interval:
    """The interval of m1 - m3 within a class; everything where nothing is known."""
    found = _mean(r[:, 1] - r[:, 3], clusters, rounding_of(r))
    return found or Interval(np.nan, -np.inf, np.inf, 0)


def _mean(values: Floats, clusters: Ints, rounding: float) -> Interval | None:
    """The mean of what is known; None where nothing is."""
    known = np.isfinite(values)
    return mean_interval(values[known], clusters[known], rounding) if known.any() else None


def _bound(rewards: Floats, treated: Bools, clusters: Ints, estimand: str) -> str:
    """By how much drift may move `rate`: what passes 1 and 3 differ by bounds it, if the drift dies out."""
    if rewards.shape[1] < 4:
        return ""
    of = rows_about(treated, estimand)
    drift = signed_change(rewards[of], treated[of], 3, 1)
    found = _mean(drift, clusters[of], 0.0)
    if found is None or not np.isfinite(found.reach) or found.reach < 0:
        return ""
    return f"; a drift that dies out moves it by {found.reach:.3g} at most"
