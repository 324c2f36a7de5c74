"""Arrays in, numbers out: the estimators of an attribute's causal effect on a reward, and their errors.

Every estimator is the mean of one *value* per row, so one formula gives every standard error. For the
paired estimators the value is the row's own difference, d_i; for `naive` and `rate_extrapolated`, which
are not plain means, it is the estimate plus the row's influence on it.

    r[i, k]   reward of response i after k rewrites; NaN where it was not scored
    w[i]      is response i treated (does it have the attribute)?  s = +1 if so, else -1

    single_rewrite      s (r0 - r1)
    rate                s (r2 - r1)
    rate_late           s (r2 - r3)
    rate_extrapolated   s [(r2 - r1) + L (r1 - r3)],  L = 1/(1 + rho)
    naive               mean r0 | w=1  -  mean r0 | w=0

Source: Reber et al. 2025 (arXiv 2410.11348), Algorithm 1, for naive, single_rewrite and rate; rate_late and
rate_extrapolated are derived in `convergence`. Adding an estimator is one entry in `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ESTIMANDS = ("ate", "att", "atu")


@dataclass(frozen=True)
class Effect:
    """One estimate with its uncertainty; `n*` count the rows that it used, `n_dropped` those it could not."""

    estimator: str
    estimand: str
    estimate: float
    se: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    n_treated: int
    n_untreated: int
    n_clusters: int
    n_dropped: int
    se_unpaired: float


@dataclass(frozen=True)
class Estimator:
    """One row of `ESTIMATORS`.

    `passes`: which rewards along the chain a row must have. `values(r, w, clusters)` -> (n,) float64 whose
    mean over all rows, treated rows, untreated rows is the ATE, ATT, ATU. `of_means(m, gate)` -> (...): the same from
    the class means m (..., depth+1) alone, +ATT of the treated and -ATU of the untreated; `gate` is that of
    `rate_extrapolated`. `arms`: the passes whose rewards are compared, (same side as the response, other side), for
    the two-sample SE.
    """

    claim: str
    passes: tuple[int, ...]
    values: Callable[[Floats, Bools, Ints], Floats]
    of_means: Callable[[Floats, float], Floats]
    estimands: tuple[str, ...] = ESTIMANDS
    arms: tuple[int, int] | None = None


def _sign(treated: Bools) -> Floats:
    return np.where(treated, 1.0, -1.0)


def naive(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """Difference of class means of the original rewards, written as one value per row, shape (n,)."""
    n, n1 = len(w), int(w.sum())
    mean1, mean0 = r[w, 0].mean(), r[~w, 0].mean()
    influence = np.where(w, (r[:, 0] - mean1) * (n / n1), -(r[:, 0] - mean0) * (n / (n - n1)))
    return mean1 - mean0 + influence


def single_rewrite(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """s (r0 - r1), shape (n,): biased by whatever else the rewriter changes."""
    return _sign(w) * (r[:, 0] - r[:, 1])


def rate(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """s (r2 - r1), shape (n,): both texts carry the rewriter's marks, which cancel."""
    return _sign(w) * (r[:, 2] - r[:, 1])


def rate_late(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """s (r2 - r3), shape (n,): the next pair, with less left to converge."""
    return _sign(w) * (r[:, 2] - r[:, 3])


def rate_extrapolated(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """`rate` with the bias of a slowly converging rewriter removed, shape (n,).

    Within a class the estimate is s [(m2 - m1) + L (m1 - m3)], with L from `convergence`. Where L was
    estimated, L = A / (A + B) with A = m0 - m2 and B = m1 - m3, the delta method turns it into a mean:
    the derivative of A B / (A + B) is (1-L)^2 in A and L^2 in B, so the value of a row is

        s [(r2 - r1) + (1-L)^2 (r0 - r2) + L^2 (r1 - r3)]

    whose class mean is the estimate itself. Where L is held at a bound it is a constant:
    s [(r2 - r1) + L (r1 - r3)].
    """
    correction = np.empty(len(w))
    for side in (True, False):
        rows = w == side
        if rows.any():
            fit = convergence(r[rows], clusters[rows])
            early, late = r[rows, 0] - r[rows, 2], r[rows, 1] - r[rows, 3]
            if fit.estimated:
                correction[rows] = (1 - fit.weight) ** 2 * early + fit.weight**2 * late
            else:
                correction[rows] = fit.weight * late
    return _sign(w) * (r[:, 2] - r[:, 1] + correction)


def extrapolated_of_means(m: Floats, gate: float) -> Floats:
    """`rate_extrapolated` from class means m (..., 4), with rho found anew in each; shape (...)."""
    early, late = m[..., 0] - m[..., 2], m[..., 1] - m[..., 3]
    told = np.abs(early) > gate
    rho = np.clip(late / np.where(told, early, 1.0), 0.0, 1.0)
    return m[..., 2] - m[..., 1] + late / (1 + np.where(told, rho, 1.0))


ESTIMATORS: dict[str, Estimator] = {
    "naive": Estimator(
        "treated against untreated responses; confounded", (0,), naive, lambda m, _: m[..., 0], estimands=("ate",)
    ),
    "single_rewrite": Estimator(
        "the response against its rewrite", (0, 1), single_rewrite, lambda m, _: m[..., 0] - m[..., 1], arms=(0, 1)
    ),
    "rate": Estimator(
        "the rewrite against its rewrite back", (1, 2), rate, lambda m, _: m[..., 2] - m[..., 1], arms=(2, 1)
    ),
    "rate_late": Estimator(
        "the second rewrite against the third", (2, 3), rate_late, lambda m, _: m[..., 2] - m[..., 3], arms=(2, 3)
    ),
    "rate_extrapolated": Estimator(
        "rate, corrected for a rewriter that converges slowly", (0, 1, 2, 3), rate_extrapolated, extrapolated_of_means
    ),
}


@dataclass(frozen=True)
class Convergence:
    """How fast a rewriter converges within one class: `rho` in [0, 1] and the weight L = 1/(1+rho).

    `estimated` is False where rho was set to a bound: to 1 because |m0 - m2| is within noise or the ratio
    exceeds 1, to 0 because the ratio is negative.
    """

    rho: float
    weight: float
    estimated: bool


def convergence(r: Floats, clusters: Ints, noise: float = 1.0) -> Convergence:
    """The share of off-target residue that survives a pass, from the rewards of one class, r (n, 4).

    >>> r = np.array([[9.0, 2.5, 6.0, 1.0]] * 2)  # 5 or 0.5, plus a residue of 4, 2, 1, 0.5
    >>> convergence(r, clusters=np.array([0, 1]))
    Convergence(rho=0.5, weight=0.6666666666666666, estimated=True)

    The off-target residue after k passes is e_k = a rho^k. Passes 0 and 2 are on the response's own side,
    1 and 3 on the other, so m0 - m2 = a (1 - rho^2) and m1 - m3 = a rho (1 - rho^2): their ratio is rho, and
    `rate` is biased by e_2 - e_1 = a rho (rho - 1), which L (m1 - m3) = a rho (1 - rho) undoes.
    rho = 1 (L = 1/2, the linear correction) where |m0 - m2| is under `noise` standard errors: there the ratio is
    mostly noise, and L = 1/2 errs by a rho (1 - rho)^2 / 2, under a tenth of that SE. A higher bound makes the error
    larger and gains little variance: see "rho 0.35, weak drift" in experiments/coverage.md.
    A mark that the first rewrite leaves and later ones keep enters m0 - m2 but not m1 - m3: `rate` is free of
    it, while rho is then off, and with it the extrapolation.
    """
    early, late = r[:, 0] - r[:, 2], r[:, 1] - r[:, 3]
    mean_early = float(early.mean())
    if not abs(mean_early) > gate(r, clusters, noise):  # true also of a NaN: one cluster tells nothing of noise
        return Convergence(1.0, 0.5, False)
    ratio = late.mean() / mean_early
    rho = min(max(ratio, 0.0), 1.0)
    return Convergence(float(rho), float(1 / (1 + rho)), bool(0.0 < ratio < 1.0))


def gate(r: Floats, clusters: Ints, noise: float = 1.0) -> float:
    """What |m0 - m2| must exceed for rho to be estimated from it: `noise` SEs; NaN with one cluster."""
    return noise * clustered_mean(r[:, 0] - r[:, 2], clusters)[1]


def clustered_mean(values: Floats, clusters: Ints, magnitude: float = 0.0) -> tuple[float, float, int]:
    """Mean of `values` (n,), its cluster-robust SE, and the number of clusters G.

    >>> mean, se, n_clusters = clustered_mean(np.array([1.0, 2.0, 3.0, 6.0]), np.array([0, 0, 1, 1]))
    >>> (mean, round(se, 6), n_clusters)
    (3.0, 1.5, 2)

    SE = sqrt(G/(G-1) * sum_g (sum_{i in g} (d_i - mean))^2) / n: the cluster-robust variance of a mean
    (Liang and Zeger 1986, Biometrika 73:13) with the G/(G-1) correction; with one row a cluster it is the
    SE of a mean. NaN if G < 2; exactly 0 if no two values differ by more than rounding, which is relative to
    the values or to `magnitude`, the size of the numbers that they are differences of.
    """
    n = len(values)
    if n == 0:
        return float("nan"), float("nan"), 0
    n_clusters = int(np.count_nonzero(np.bincount(clusters)))
    scale = float(np.abs(values).max()) or 1.0  # squares of rewards near 1e300 would overflow
    scaled = values / scale
    mean = float(scaled.mean())
    spread = scaled - mean
    if n_clusters < 2:
        return mean * scale, float("nan"), n_clusters
    if float(np.abs(spread).max()) <= 1e-14 * max(1.0, magnitude / scale):
        return mean * scale, 0.0, n_clusters
    sums = np.bincount(clusters, weights=spread)
    se = float(np.sqrt(n_clusters / (n_clusters - 1) * np.square(sums).sum()) / n)
    return mean * scale, se * scale, n_clusters


def t_interval(estimate: float, se: float, df: int, level: float = 0.95) -> tuple[float, float, float]:
    """Two-sided interval and p-value of `estimate` against 0 from Student's t with `df` degrees of freedom.

    >>> [round(x, 4) for x in t_interval(1.0, 0.5, df=10)]
    [-0.1141, 2.1141, 0.0734]

    NaN where the SE is NaN or 0.
    """
    if not (se > 0 and df >= 1):
        return float("nan"), float("nan"), float("nan")
    half = float(special.stdtrit(df, 0.5 + level / 2)) * se
    return estimate - half, estimate + half, float(2 * special.stdtr(df, -abs(estimate / se)))


def two_sample_se(r: Floats, w: Bools, arms: tuple[int, int] | None) -> float:
    """The SE that treats the two arms as independent samples, for comparison only.

    The rows are pairs, so this ignores their covariance; the reference implementation uses it, which on its
    own published cells is 1.7 to 6 times too wide. `arms` are the passes on the response's own side and on
    the other; None (`naive`) compares the two classes at pass 0.
    """
    if arms is None:
        groups = [r[w, 0], r[~w, 0]]
    else:
        same, other = r[:, arms[0]], r[:, arms[1]]
        groups = [np.where(w, same, other), np.where(w, other, same)]
    if min(map(len, groups)) < 2:
        return float("nan")
    scale = max(float(np.abs(g).max()) for g in groups) or 1.0
    return scale * float(np.sqrt(sum((g / scale).var(ddof=1) / len(g) for g in groups)))


def pooled_sd(r0: ArrayLike, w: ArrayLike) -> float:
    """Pooled within-class standard deviation (ddof 1) of the original responses' rewards; NaN if unscored.

    >>> pooled_sd([1.0, 3.0, 10.0, 14.0], [True, True, False, False])
    2.23606797749979
    """
    reward, treated = np.asarray(r0, float), np.asarray(w, bool)
    squares, df = 0.0, 0
    # Squares of rewards near 1e300 would overflow; a power of two leaves every digit as it is.
    size = float(np.exp2(np.frexp(np.nanmax(np.abs(reward), initial=0))[1] - 1))
    reward = reward / size
    for side in (True, False):
        group = reward[(treated == side) & ~np.isnan(reward)]
        if len(group) > 1:
            squares += float(group.var(ddof=1)) * (len(group) - 1)
            df += len(group) - 1
    return size * float(np.sqrt(squares / df)) if df else float("nan")


def effects(
    rewards: ArrayLike, treated: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> Iterator[Effect | str]:
    """Every estimate that the rewards allow, in the order of `ESTIMATORS`; a `str` says why one is left out.

    >>> r = [[0, 2, 1.0], [1, 2, 0.5], [3, 1, 2.5], [2, 0, 2.0]]
    >>> for e in effects(r, treated=[False, False, True, True]):
    ...     print(e if isinstance(e, str) else (e.estimator, e.estimand, e.estimate))
    ('naive', 'ate', 2.0)
    ('single_rewrite', 'ate', 1.75)
    ('single_rewrite', 'att', 2.0)
    single_rewrite ATT: every row's difference is 2, so no standard error
    ('single_rewrite', 'atu', 1.5)
    ('rate', 'ate', 1.5)
    ('rate', 'att', 1.75)
    ('rate', 'atu', 1.25)
    rate_late: no row has rewards for rewrite 2 and rewrite 3
    rate_extrapolated: no row has rewards for the response, rewrite 1, rewrite 2 and rewrite 3

    rewards (n, depth+1) float, NaN = not scored; treated (n,) bool; clusters (n,) integer codes from 0 (each
    row its own by default). Estimates are in the reward's units. Each estimator uses the rows that have what
    it needs; `n_dropped` counts the other rows of the same class (ATT, ATU) or of both (ATE).
    """
    r, w = np.asarray(rewards, float), np.asarray(treated, bool)
    codes = np.arange(len(w)) if clusters is None else np.asarray(clusters)
    for name, estimator in ESTIMATORS.items():
        have = [k for k in estimator.passes if k < r.shape[1]]
        complete = ~np.isnan(r[:, have]).any(axis=1)
        if len(have) < len(estimator.passes) or not complete.any():
            *most, last = ["the response" if k == 0 else f"rewrite {k}" for k in estimator.passes]
            yield f"{name}: no row has rewards for {', '.join(most) + ' and ' if most else ''}{last}"
            continue
        whole = bool(complete.all())  # then no copies: they would take most of the time
        rows_r, rows_w, rows_c = (r, w, codes) if whole else (r[complete], w[complete], codes[complete])
        left_out: list[str] = []
        if rows_w.all() or not rows_w.any():
            missing = "untreated" if rows_w.any() else "treated"
            left_out = [e for e in estimator.estimands if e == "ate" or (e == "att") != rows_w.any()]
            yield f"{name}: no {missing} rows, so no {' and no '.join(e.upper() for e in left_out)}"
        if len(left_out) == len(estimator.estimands):
            continue
        values = estimator.values(rows_r, rows_w, rows_c)
        magnitude = float(np.abs(rows_r[:, have]).max())
        for estimand in estimator.estimands:
            if estimand in left_out:
                continue
            of_class = {"ate": len(w), "att": int(w.sum()), "atu": int((~w).sum())}[estimand]
            if estimand == "ate":
                used_r, used_w, used_c, used_values = rows_r, rows_w, rows_c, values
            else:
                used = np.flatnonzero(rows_w == (estimand == "att"))
                used_r, used_w, used_c, used_values = rows_r[used], rows_w[used], rows_c[used], values[used]
            estimate, se, n_clusters = clustered_mean(used_values, used_c, magnitude)
            if se == 0:  # nothing tells how the differences would vary, so claim no precision
                se = float("nan")
            low, high, p = t_interval(estimate, se, n_clusters - 1, level)
            n, n1 = len(used_w), int(used_w.sum())
            paired = estimator.arms is not None or name == "naive"
            unpaired = two_sample_se(used_r, used_w, estimator.arms) if paired else float("nan")
            yield Effect(name, estimand, estimate, se, low, high, p, n, n1, n - n1, n_clusters, of_class - n, unpaired)
            if np.isnan(se):
                why = "one cluster" if n_clusters < 2 else f"every row's difference is {estimate:.6g}"
                yield f"{name} {estimand.upper()}: {why}, so no standard error"
