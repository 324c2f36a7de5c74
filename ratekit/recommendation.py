"""Which estimate to read: one per attribute and reward model, with the reason.

| passes | what is shown | read |
|---|---|---|
| 4 or more | the geometric law is not rejected, or only at the response itself | `rate_geometric` |
| 3 | the drift of the attribute's own measure lies within a tenth of the dose, and rho within [0, 1] by 2 SE | `rate_extrapolated` |
| 3 | the drift of the reward lies within a tenth of the effect | `rate` |
| 2, or 3 and more without that | nothing more | `rate`, with a bound for the drift where there is a third pass |
| 1, 0 | no RATE | `single_rewrite`, `naive` |

`rate_extrapolated` is right where the residue decays geometrically, and far off where content is lost at every pass or
where a third pass overshoots, which rewards alone do not tell apart at depth 3. A mark that the first rewrite leaves
breaks the law between passes 0 and 2 but not the law of the later passes, which is all that `rate_geometric` uses: it
is read all the same where their rho is told from 0 and lies in [0, 1].
"""  # noqa: E501

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    clustered_mean,
    convergence,
    late_convergence,
    rows_used,
    t_interval,
    wald,
)

MARGIN = 0.1  # of the dose, or of the effect: a drift within it is none to speak of
LEAST_SD = 0.1  # effects smaller than this many SDs are judged as if they were as large
LAW_LEVEL = 0.05
KEPT = 0.9  # of the rows of RATE must have the passes that another estimator reads


class Recommendation(NamedTuple):
    """The estimate to read first, and why."""

    estimator: str
    estimand: str
    reason: str


def recommended(
    found: Effects, rewards: Floats, treated: Bools, clusters: Ints, own: Floats | None = None
) -> Recommendation | None:
    """Which of the effects to read; None where there are none.

    >>> from ratekit.estimators import effects
    >>> rng = np.random.default_rng(0)
    >>> w, r = np.arange(100) % 2 == 0, rng.normal(size=(100, 3))
    >>> recommended(effects(r, w), r, w, np.arange(100))
    Recommendation(estimator='rate', estimand='ate', reason='drift not tested: there is no third rewrite')

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
                if estimator != "rate":
                    depth = "there are no rewrites" if estimator == "naive" else "there is one rewrite alone"
                    return Recommendation(estimator, estimand, f"no RATE: {depth}; {ESTIMATORS[estimator].claim}")
                return _of_rate(found, estimand, rewards, treated, clusters, own)
    return None


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
        fine, why = _geometric(parts, own, treated, clusters)
        fine, why = _enough(geometric, rate, fine, why)
        if fine:
            return Recommendation("rate_geometric", estimand, why)
        why_not = why
    elif extrapolated is not None:
        scale = max(_size(found, "rate"), LEAST_SD * found.reward_sd if found.reward_sd > 0 else 0.0)
        fine, why = _extrapolated(parts, own, treated, clusters, scale)
        fine, why = _enough(extrapolated, rate, fine, why)
        if fine:
            return Recommendation("rate_extrapolated", estimand, why)
        if all(_within(_drift(r, c), MARGIN * scale) for r, c in parts.values()):
            return Recommendation("rate", estimand, "the reward's drift is shown to lie within a tenth of the effect")
        why_not = why
    return Recommendation("rate", estimand, why_not + _bound(rewards, treated, clusters, estimand))


def _size(found: Effects, estimator: str) -> float:
    """The larger of |ATT| and |ATU|."""
    return max((abs(e.estimate) for e in found if e.estimator == estimator and e.estimand != "ate"), default=0.0)


def _enough(other: Effect, rate: Effect, fine: bool, why: str) -> tuple[bool, str]:
    if other.n < KEPT * rate.n:
        return False, f"only {other.n} of {rate.n} rows have the passes of {other.estimator}"
    return fine, why


def _extrapolated(
    parts: dict[bool, tuple[Floats, Ints]], own: Floats | None, treated: Bools, clusters: Ints, scale: float
) -> tuple[bool, str]:
    """May `rate_extrapolated` be read at depth 3?"""
    if own is None:
        return False, "drift not ruled out: no measure of the attribute tells what the third rewrite did"
    outcome, said = own_drift(own, treated, clusters)
    if outcome != "shown fine":
        return False, said
    for side, (r, c) in parts.items():
        passes, used = rows_used(ESTIMATORS["rate_extrapolated"], r)
        if not used.any():
            return False, "a class has no third rewrite"
        fit = convergence(r[used][:, : max(passes) + 1], c[used])
        inside = fit.ratio - 2 * fit.se >= 0 and fit.ratio + 2 * fit.se <= 1
        if not inside and not _within(_drift(r, c), MARGIN * scale):
            name = "treated" if side else "untreated"
            return False, f"the convergence of {name} rows is not shown to lie between 0 and 1 ({fit.ratio:.2g})"
    return True, "the attribute's own measure does not drift, and the reward's drift dies out from pass to pass"


def _geometric(
    parts: dict[bool, tuple[Floats, Ints]], own: Floats | None, treated: Bools, clusters: Ints
) -> tuple[bool, str]:
    """May `rate_geometric` be read?"""
    if own is not None and own.shape[1] > 3:
        outcome, said = own_drift(own, treated, clusters)
        if outcome == "shown bad":
            return False, said
    marked = False
    for side, (r, c) in parts.items():
        name = "treated" if side else "untreated"
        passes, used = rows_used(ESTIMATORS["rate_geometric"], r)
        if not used.any():
            return False, f"no {name} row has four rewrites"
        late, codes = r[used][:, : max(passes) + 1], c[used]
        if law(late[:, 1:], codes) < LAW_LEVEL / len(parts):
            return False, f"the later passes of {name} rows do not follow a geometric law"
        fit = late_convergence(late, codes)
        if fit.ratio + 2 * fit.se < 0 or (fit.ratio - 2 * fit.se > 1 and fit.se > 0):
            return False, f"the drift of {name} rows does not die out (rho {fit.ratio:.2g})"
        scored = np.isfinite(late[:, 0])
        if scored.any() and law(late[scored], codes[scored]) < LAW_LEVEL / len(parts):
            if not fit.ratio - 2 * fit.se > 0:
                return False, f"the passes of {name} rows do not follow a geometric law"
            marked = True
    if marked:
        return True, "the later passes converge; what the first rewrite leaves for good is left out"
    return True, "four or more passes, and a geometric law of their drift is not rejected"


def own_drift(own: Floats, treated: Bools, clusters: Ints) -> tuple[str, str]:
    """Does the third rewrite move the attribute's own measure as the first did: an outcome and a sentence.

    own (n, depth+1); the outcome is "shown fine" (the interval of the drift within a tenth of the dose in every class),
    "shown bad" (outside it) or "too few rows to tell".
    """
    if own.shape[1] < 4:
        return "too few rows to tell", "drift not tested: there is no third rewrite"
    sign = np.where(treated, 1.0, -1.0)
    moved = sign * (own[:, 2] - own[:, 1])
    dose = abs(float(np.nanmean(moved))) if np.isfinite(moved).any() else 0.0
    outcomes = []
    for side in (True, False):
        drift = own[treated == side, 1] - own[treated == side, 3]
        known = np.isfinite(drift)
        if not known.any():
            continue
        mean = clustered_mean(drift[known], clusters[treated == side][known], float(np.nanmax(np.abs(own))))
        low, high = _ends(mean.value, mean.se, mean.df)
        limit = MARGIN * dose
        if -limit <= low and high <= limit:
            outcomes.append("shown fine")
        else:
            outcomes.append("shown bad" if low > limit or high < -limit else "too few rows to tell")
    if outcomes and set(outcomes) == {"shown fine"}:
        return "shown fine", "the third rewrite moves the attribute as far as the first"
    if "shown bad" in outcomes:
        return "shown bad", "the third rewrite does not move the attribute as far as the first"
    return "too few rows to tell", "too few rows to tell whether the third rewrite moves the attribute as the first did"


def law(rewards: Floats, clusters: Ints) -> float:
    """p-value of a geometric law of the drift in rewards (n, passes) of one class; NaN for fewer than 5 passes.

    With d_k = m_k - m_(k+2) the law says d_(k-1) d_(k+1) = d_k^2 for every k. The products' differences are tested
    together with a cluster-robust covariance by the delta method and Hotelling's correction for few clusters.
    """
    drops = rewards[:, :-2] - rewards[:, 2:]
    if drops.shape[1] < 3:
        return float("nan")
    mean = drops.mean(axis=0)
    gaps = mean[:-2] * mean[2:] - mean[1:-1] ** 2
    spread = drops - mean
    influence = mean[:-2] * spread[:, 2:] + mean[2:] * spread[:, :-2] - 2 * mean[1:-1] * spread[:, 1:-1]
    sizes = Sizes(np.bincount(clusters).astype(float))
    scores = np.stack([sizes.scores(cluster_sums(influence[:, j], clusters)) for j in range(len(gaps))], axis=1)
    return wald(gaps, scores.T @ scores, sizes.df)[1]


def _drift(r: Floats, clusters: Ints) -> tuple[float, float]:
    """The interval of m1 - m3 within a class."""
    known = np.isfinite(r[:, 1]) & np.isfinite(r[:, 3])
    if not known.any():
        return -np.inf, np.inf
    mean = clustered_mean(r[known, 1] - r[known, 3], clusters[known], float(np.nanmax(np.abs(r))))
    return _ends(mean.value, mean.se, mean.df)


def _ends(value: float, se: float, df: float) -> tuple[float, float]:
    """A 95 % interval; a point where no two clusters differ, everything where nothing is known."""
    if se == 0:
        return value, value
    low, high, _ = t_interval(value, se, df)
    return (low, high) if np.isfinite(low) else (-np.inf, np.inf)


def _within(interval: tuple[float, float], limit: float) -> bool:
    return -limit <= interval[0] and interval[1] <= limit


def _bound(rewards: Floats, treated: Bools, clusters: Ints, estimand: str) -> str:
    """By how much drift may move `rate`: what passes 1 and 3 differ by bounds it, if the drift dies out."""
    if rewards.shape[1] < 4:
        return ""
    of = {"ate": np.ones(len(treated), bool), "att": treated, "atu": ~treated}[estimand]
    known = of & np.isfinite(rewards[:, 1]) & np.isfinite(rewards[:, 3])
    if not known.any():
        return ""
    sign = np.where(treated[known], 1.0, -1.0)
    mean = clustered_mean(sign * (rewards[known, 1] - rewards[known, 3]), clusters[known])
    low, high = _ends(mean.value, mean.se, mean.df)
    if not np.isfinite(low):
        return ""
    return f"; a drift that dies out moves it by {max(abs(low), abs(high)):.3g} at most"
