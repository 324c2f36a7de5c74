"""Arrays in, numbers out: the estimators of an attribute's causal effect on a reward, and their errors.

Every estimator is the mean of one *value* per row, so one formula gives every standard error. For the
paired estimators the value is the row's own difference, d_i; for those that estimate a rate of convergence it is the
estimate plus the row's influence on it.

    r[i, k]   reward of response i after k rewrites; NaN where it was not scored
    w[i]      is response i treated (does it have the attribute)?  s = +1 if so, else -1

    naive               mean r0 | w=1  -  mean r0 | w=0
    single_rewrite      s (r0 - r1)
    rate                s (r2 - r1)
    rate_late           s (r2 - r3)
    rate_extrapolated   s [(r2 - r1) + L (r1 - r3)],  L = 1/(1 + rho), rho from passes 0 to 3
    rate_geometric      the same from passes 1 on, of which there are 4 or more: free of marks of the first rewrite

Standard errors are cluster-robust with the CR2 correction and Satterthwaite degrees of freedom (`clustered_mean`).
Source: Reber et al. 2025 (arXiv 2410.11348), Algorithm 1, for naive, single_rewrite and rate; the others are derived
in `convergence` and `rate_geometric`. Adding an estimator is one entry in `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ratekit.augmentation import LEAST, augmented
from ratekit.errors import InputError
from ratekit.schema import LARGEST

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ESTIMANDS = ("ate", "att", "atu")
RARE = 10  # clusters of a class: with fewer Welch's degrees of freedom are too many


# --- records ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """One estimate with its uncertainty.

    `n*` count the rows that it used, `n_dropped` those it could not; `df` are the degrees of freedom of its interval.
    The columns `*_sd` are in SDs of the original responses' rewards, with the SD's own uncertainty counted.
    `largest_cluster` is the share of the rows that the largest cluster holds; `se_unpaired` is NaN unless asked for.
    """

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
    df: float
    estimate_sd: float
    se_sd: float
    ci_low_sd: float
    ci_high_sd: float
    largest_cluster: float
    se_unpaired: float = float("nan")


@dataclass(frozen=True)
class LeftOut:
    """An estimate that could not be had, or one without a standard error, and why."""

    estimator: str
    estimand: str
    why: str


@dataclass(frozen=True)
class Effects:
    """Every estimate that the rewards allow; iterating gives each `Effect`.

    `left_out` has a record for each estimate, or standard error, that could not be had; `reward_sd` is the pooled
    within-class SD of the original responses' rewards.
    """

    found: tuple[Effect, ...]
    left_out: tuple[LeftOut, ...]
    reward_sd: float

    def __iter__(self) -> Iterator[Effect]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def get(self, estimator: str, estimand: str) -> Effect | None:
        """That estimate, or None."""
        return next((e for e in self.found if (e.estimator, e.estimand) == (estimator, estimand)), None)


def _no_drop_se(r: Floats, clusters: Ints) -> float:
    return float("nan")


@dataclass(frozen=True)
class Estimator:
    """One row of `ESTIMATORS`.

    `label`, `marker`, `color`, `hollow`: how it is named and drawn; hollow is what is not to be trusted by itself.
    `shown`: is it drawn where nobody names estimators?
    `passes`: which rewards along the chain a row must have; with `further`, passes beyond them are used too where every
    such row has them. `values(r, w, clusters)` -> (n,) float64 whose mean over all rows, treated rows, untreated rows
    is the ATE, ATT, ATU; with `classes` the ATE is the mean of the treated rows' values plus that of the untreated
    rows' instead. `of_means(m, drop_se)` -> (...): the same from the class means m (..., depth+1) alone, +ATT of the
    treated and -ATU of the untreated, with `drop_se(r, clusters)` of the class, what a drift must exceed for a rate of
    convergence to be estimated from it. `arms`: the passes whose rewards are compared, (same side as the response,
    other side), for the two-sample SE.
    """

    claim: str
    label: str
    marker: str
    color: str
    passes: tuple[int, ...]
    values: Callable[[Floats, Bools, Ints], Floats]
    of_means: Callable[[Floats, float], Floats]
    estimands: tuple[str, ...] = ESTIMANDS
    arms: tuple[int, int] | None = None
    drop_se: Callable[[Floats, Ints], float] = _no_drop_se
    further: bool = False
    classes: bool = False
    hollow: bool = False
    shown: bool = True


# --- row values ------------------------------------------------------------------------------------------


def _sign(treated: Bools) -> Floats:
    return np.where(treated, 1.0, -1.0)


def signed_change(values: Floats, treated: Bools, first: int = 1, then: int = 2) -> Floats:
    """s (values[:, then] - values[:, first]), (n,), with s = 1 for treated rows, else -1; NaN where chains are shorter.

    Examples
    --------
    >>> signed_change(np.array([[0.0, 1.0, 3.0], [0.0, 3.0, 1.0]]), np.array([True, False])).tolist()
    [2.0, 2.0]
    """
    if values.shape[1] <= max(first, then):
        return np.full(len(values), np.nan)
    return _sign(treated) * (values[:, then] - values[:, first])


def naive(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """s r0, shape (n,): the treated rows' mean plus the untreated rows' is the difference of class means."""
    return _sign(w) * r[:, 0]


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


def extrapolated_of_means(m: Floats, drop_se: float) -> Floats:
    """`rate_extrapolated` from class means m (..., 4), with rho found anew in each; shape (...)."""
    early, late = m[..., 0] - m[..., 2], m[..., 1] - m[..., 3]
    told = np.abs(early) > drop_se
    rho = np.clip(late / np.where(told, early, 1.0), 0.0, 1.0)
    return m[..., 2] - m[..., 1] + late / (1 + np.where(told, rho, 1.0))


def rate_geometric(r: Floats, w: Bools, clusters: Ints) -> Floats:
    """The effect under a geometric law of passes 1 to K >= 4, shape (n,); pass 0 is not used.

    Within a class the mean reward after pass k is taken to be b + t [k even] + a rho^k, with t = +ATT or -ATU. The
    drops d_k = m_k - m_(k+2) are a (1 - rho^2) rho^k, so rho is sum d_(k+1) / sum d_k over k = 1..K-3 (K = 4: (m2 - m4)
    / (m1 - m3)), clipped to [0, 1], and 1 where the sum is within noise, as in `convergence`; b, t and a are then a
    least-squares fit, t = sum_k c_k(rho) m_k. At K = 4 with rho inside (0, 1) that is (m2 - m1) + (m1 - m3)/(1 + rho).
    A mark that the first rewrite leaves for good is part of b, so it biases nothing; a constant loss with each pass is
    rho = 1, a line in k, and is removed exactly. The value of a row is its own fit plus, where rho was estimated, its
    influence on rho: s [c.r_i + (dc/drho . m) (tail_i - rho head_i) / head].
    """
    values = np.empty(len(w))
    for side in (True, False):
        rows = w == side
        if not rows.any():
            continue
        of = r[rows]
        fit = late_convergence(of, clusters[rows])
        weights, slope = _geometric_weights(fit.rho, of.shape[1] - 1)
        values[rows] = of[:, 1:] @ weights
        if fit.estimated:
            head, tail = _head_and_tail(of)
            values[rows] += float(of[:, 1:].mean(axis=0) @ slope) * (tail - fit.rho * head) / head.mean()
    return _sign(w) * values


def geometric_of_means(m: Floats, drop_se: float) -> Floats:
    """`rate_geometric` from class means m (..., K+1), with rho found anew in each; shape (...)."""
    head, tail = _head_and_tail(m)
    told = np.abs(head) > drop_se
    rho = np.where(told, np.clip(tail / np.where(told, head, 1.0), 0.0, 1.0), 1.0)
    design = _geometric_design(rho, m.shape[-1] - 1)
    normal = np.swapaxes(design, -1, -2) @ design
    right = np.swapaxes(design, -1, -2) @ m[..., 1:, None]
    return np.asarray(np.linalg.solve(normal, right)[..., 1, 0], float)


def _head_and_tail(r: Floats) -> tuple[Floats, Floats]:
    """Sums of the drops r_k - r_(k+2) over k = 1..K-3, and over k = 2..K-2, of r (..., K+1)."""
    drops = r[..., 1:-2] - r[..., 3:]
    return drops[..., :-1].sum(axis=-1), drops[..., 1:].sum(axis=-1)


def _geometric_design(rho: Floats, passes: int) -> Floats:
    """Columns 1, [k even], (1 - rho^(k-1))/(1 - rho) for k = 1..passes, (..., passes, 3): smooth at rho = 1."""
    k = np.arange(1, passes + 1)
    powers = np.asarray(rho)[..., None] ** np.arange(passes - 1)
    sums = np.concatenate([np.zeros((*np.shape(rho), 1)), np.cumsum(powers, axis=-1)], axis=-1)
    return np.stack(np.broadcast_arrays(np.ones(passes), (k % 2 == 0).astype(float), sums), axis=-1)


def _geometric_weights(rho: float, passes: int) -> tuple[Floats, Floats]:
    """The weights c_k(rho) whose sum with m_1..m_K is the fitted effect, and their derivative; (passes,) each."""
    design = _geometric_design(np.array(rho), passes)
    inverse = np.linalg.pinv(design)
    k = np.arange(passes - 1)
    moved = np.zeros_like(design)
    moved[1:, 2] = np.cumsum(k * float(rho) ** np.maximum(k - 1, 0))
    gram = np.linalg.inv(design.T @ design)
    slope = -inverse @ moved @ inverse + gram @ moved.T @ (np.eye(passes) - design @ inverse)
    return inverse[1], slope[1]


# --- convergence -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convergence:
    """How fast a rewriter converges within one class: `rho` in [0, 1] and the weight L = 1/(1+rho).

    `estimated` is False where rho was set to a bound: to 1 because the drift is within noise or the ratio exceeds 1,
    to 0 because the ratio is negative. `ratio` is rho before that, and `se` its standard error by the delta method.
    """

    rho: float
    weight: float
    estimated: bool
    ratio: float
    se: float


def convergence(r: Floats, clusters: Ints, noise: float = 1.0) -> Convergence:
    """The share of off-target residue that survives a pass, from the rewards of one class, r (n, 4).

    The off-target residue after k passes is e_k = a rho^k. Passes 0 and 2 are on the response's own side,
    1 and 3 on the other, so m0 - m2 = a (1 - rho^2) and m1 - m3 = a rho (1 - rho^2): their ratio is rho, and
    `rate` is biased by e_2 - e_1 = a rho (rho - 1), which L (m1 - m3) = a rho (1 - rho) undoes.
    rho = 1 (L = 1/2, the linear correction) where `abs(m0 - m2)` is under `noise` standard errors: there the ratio is
    mostly noise, and L = 1/2 errs by a rho (1 - rho)^2 / 2, under a tenth of that SE. A higher bound makes the error
    larger and gains little variance: see "rho 0.35, weak drift" in experiments/coverage.md.
    A mark that the first rewrite leaves and later ones keep enters m0 - m2 but not m1 - m3: `rate` is free of
    it, while rho is then off, and with it the extrapolation; `late_convergence` is not.

    Examples
    --------
    >>> r = np.array([[9.0, 2.5, 6.0, 1.0]] * 2)  # 5 or 0.5, plus a residue of 4, 2, 1, 0.5
    >>> fit = convergence(r, clusters=np.array([0, 1]))
    >>> fit.rho, round(fit.weight, 3), fit.estimated
    (0.5, 0.667, True)
    """
    return _convergence(r[:, 0] - r[:, 2], r[:, 1] - r[:, 3], clusters, noise)


def late_convergence(r: Floats, clusters: Ints, noise: float = 1.0) -> Convergence:
    """`convergence` from passes 1 on, of r (n, K+1) with K >= 4: free of what the first rewrite leaves for good."""
    return _convergence(*_head_and_tail(r), clusters, noise)


def _convergence(head: Floats, tail: Floats, clusters: Ints, noise: float) -> Convergence:
    early, se = clustered_mean(head, clusters)[:2]
    ratio = float(tail.mean()) / early if early else float("nan")
    spread = clustered_mean(tail - ratio * head, clusters)[1] / abs(early) if early else float("nan")
    if not abs(early) > noise * se:  # true also of a NaN: one cluster tells nothing of noise
        return Convergence(1.0, 0.5, False, ratio, spread)
    rho = min(max(ratio, 0.0), 1.0)
    return Convergence(rho, 1 / (1 + rho), bool(0.0 < ratio < 1.0), ratio, spread)


def drop_se(r: Floats, clusters: Ints) -> float:
    """What |m0 - m2| must exceed for rho to be estimated from it: its SE; NaN with one cluster."""
    return clustered_mean(r[:, 0] - r[:, 2], clusters).se


def late_drop_se(r: Floats, clusters: Ints) -> float:
    """`drop_se` of `late_convergence`: the SE of the sum of drops that rho is divided by."""
    return clustered_mean(_head_and_tail(r)[0], clusters).se


ESTIMATORS: dict[str, Estimator] = {
    "naive": Estimator(
        "treated against untreated responses; confounded",
        "naive", "s", "#7a7a7a", (0,), naive, lambda m, _: m[..., 0], ("ate",), classes=True, hollow=True,
    ),
    "single_rewrite": Estimator(
        "the response against its rewrite",
        "single rewrite", "D", "#E69F00", (0, 1), single_rewrite, lambda m, _: m[..., 0] - m[..., 1], arms=(0, 1),
    ),
    "rate": Estimator(
        "the rewrite against its rewrite back",
        "RATE", "o", "#0072B2", (1, 2), rate, lambda m, _: m[..., 2] - m[..., 1], arms=(2, 1),
    ),
    "rate_late": Estimator(
        "the second rewrite against the third",
        "RATE, late pair", "^", "#56B4E9", (2, 3), rate_late, lambda m, _: m[..., 2] - m[..., 3], arms=(2, 3),
        shown=False,
    ),
    "rate_extrapolated": Estimator(
        "rate, corrected for a rewriter that converges slowly",
        "RATE, extrapolated", "v", "#004060", (0, 1, 2, 3), rate_extrapolated, extrapolated_of_means, drop_se=drop_se,
        shown=False,
    ),
    "rate_geometric": Estimator(
        "rate, corrected by the rewrites alone: four or more passes",
        "RATE, geometric", "P", "#009E73", (1, 2, 3, 4), rate_geometric, geometric_of_means, drop_se=late_drop_se,
        further=True, shown=False,
    ),
}  # fmt: skip


# --- a clustered mean ------------------------------------------------------------------------------------


class Mean(NamedTuple):
    """A mean with its cluster-robust SE, the number of clusters, the degrees of freedom of its t interval.

    `largest` is the share of the rows that the largest cluster holds.
    """

    value: float
    se: float
    n_clusters: int
    df: float
    largest: float

    def interval(self, level: float = 0.95) -> tuple[float, float, float]:
        """Lower end, upper end, p-value against 0, by `t_interval`."""
        return t_interval(self.value, self.se, self.df, level)


class Sizes:
    """How many rows each cluster holds, (G,), zeros allowed; what a mean over those rows needs for its SE."""

    def __init__(self, sizes: Floats) -> None:
        self.sizes, self.n = sizes, float(sizes.sum())
        share = sizes / self.n if self.n else sizes
        self.n_clusters = int(np.count_nonzero(sizes))
        self.largest = float(share.max(initial=0))
        self.df = float("nan")
        if self.n_clusters >= 2:
            left = 1 - share
            self._factor = 1 / (self.n * np.sqrt(left))
            leverage = share**2 / left
            top = int(np.argmax(leverage))
            rest = leverage.copy()
            rest[top] = 0.0  # set apart: with one large cluster (sum)^2 - sum of squares would cancel
            total = float(rest.sum())
            cross = 2 * float(leverage[top]) * total + total**2 - float(rest @ rest)
            self.df = min(max(1 / (float(share @ share) + cross), 1.0), self.n_clusters - 1.0)

    def scores(self, sums: Floats) -> Floats:
        """From sums of the centred values by cluster, (G,): scores whose sum of squares is the variance of the mean."""
        return self._factor * sums if self.n_clusters >= 2 else np.full(len(sums), np.nan)


def clustered_mean(values: Floats, clusters: Ints, rounding: float = 0.0) -> Mean:
    """Mean of `values` (n,), its cluster-robust SE, the number of clusters G, and degrees of freedom.

    CR2: SE^2 = sum_g S_g^2 / (1 - h_g) / n^2 with S_g the sum of (d_i - mean) over cluster g and h_g = n_g/n its share
    of the rows (Bell and McCaffrey 2002, Survey Methodology 28:169). With equal clusters that is the G/(G-1)
    correction, and with one row a cluster the SE of a mean. Degrees of freedom by Satterthwaite under independent rows,
    in closed form: 1/df = sum h_g^2 + (sum y_g)^2 - sum y_g^2 with y_g = h_g^2/(1 - h_g); G - 1 for equal clusters,
    fewer where one is large. NaN if G < 2; an SE of exactly 0 if no cluster's mean differs by more than rounding,
    that of float64 or `rounding`, which is `rounding_of` the numbers that the values are differences of.

    Examples
    --------
    >>> mean = clustered_mean(np.array([1.0, 2.0, 3.0, 6.0]), np.array([0, 0, 1, 1]))
    >>> mean.value, round(mean.se, 6), mean.n_clusters, mean.df
    (3.0, 1.5, 2, 1.0)
    """
    if len(values) == 0:
        return Mean(float("nan"), float("nan"), 0, float("nan"), 0.0)
    sizes = Sizes(np.bincount(clusters).astype(float))
    mean = float(values.mean())
    sums = cluster_sums(values - mean, clusters)
    rounding = max(rounding, 1e-14 * float(np.abs(values).max()))
    se = float(np.linalg.norm(sizes.scores(sums)))
    if sizes.n_clusters >= 2 and _flat(sums, sizes.sizes, rounding):
        se = 0.0
    return Mean(mean, se, sizes.n_clusters, sizes.df, sizes.largest)


def cluster_sums(values: Floats, clusters: Ints, n_codes: int = 0) -> Floats:
    """Sums of `values` by cluster code, (max(n_codes, largest code + 1),)."""
    return np.asarray(np.bincount(clusters, values, n_codes), float)


def _flat(sums: Floats, sizes: Floats, rounding: float) -> bool:
    """Does no cluster's mean differ from 0 by more than rounding?"""
    return bool((np.abs(sums) <= rounding * sizes).all())


def t_interval(estimate: float, se: float, df: float, level: float = 0.95) -> tuple[float, float, float]:
    """Two-sided interval and p-value of `estimate` against 0 from Student's t with `df` degrees of freedom.

    NaN where the SE is NaN or 0.

    Examples
    --------
    >>> [round(x, 4) for x in t_interval(1.0, 0.5, df=10)]
    [-0.1141, 2.1141, 0.0734]
    """
    refuse_level(level)
    if not (se > 0 and df > 0):
        return float("nan"), float("nan"), float("nan")
    half = float(special.stdtrit(df, 0.5 + level / 2)) * se
    return estimate - half, estimate + half, float(2 * special.stdtr(df, -abs(estimate / se)))


def combined(parts: list[tuple[Floats, float]]) -> tuple[float, float]:
    """SE and degrees of freedom of a sum of clustered means, whose clusters are shared.

    Each part is its scores by cluster, (G,), with sign and factor (`Sizes.scores`), and its degrees of freedom. The
    degrees of freedom are those of `satterthwaite`.

    Examples
    --------
    >>> combined([(np.array([0.3, 0.0]), 4.0), (np.array([0.0, 0.4]), 9.0)])  # nothing shared: Welch and Satterthwaite
    (0.5, 12.835139760410726)
    """
    variances = [float(scores @ scores) for scores, _ in parts]
    se = float(np.linalg.norm(np.asarray(sum(scores for scores, _ in parts))))
    return se, satterthwaite(variances, [df for _, df in parts])


def satterthwaite(variances: list[float], dfs: list[float]) -> float:
    """Degrees of freedom of a sum of variances: (sum V_j)^2 / sum V_j^2/df_j (Welch 1947, Biometrika 34:28)."""
    v, df = np.array(variances), np.array(dfs)
    used = v > 0
    if not used.any():
        return float(df.min(initial=np.inf))
    shares = v[used] / v[used].max()
    return float(shares.sum() ** 2 / (shares**2 / df[used]).sum())


def wald(gaps: Floats, covariance: Floats, df: float) -> tuple[float, float]:
    """F statistic and p-value that all `gaps` (q,) are 0: Hotelling's T^2 with `df` degrees of freedom.

    NaN where the degrees of freedom are too few or the covariance is singular.

    Examples
    --------
    >>> [round(x, 4) for x in wald(np.array([2.0]), np.array([[1.0]]), df=10)]  # the square of t, and its p-value
    [4.0, 0.0734]
    """
    q = len(gaps)
    scale = np.sqrt(np.diag(covariance))
    if not (df > q - 1 and (scale > 0).all() and np.isfinite(scale).all()):
        return float("nan"), float("nan")
    correlation = covariance / np.outer(scale, scale)
    if np.linalg.matrix_rank(correlation) < q:
        return float("nan"), float("nan")
    unit = gaps / scale
    statistic = float(unit @ np.linalg.solve(correlation, unit)) * (df - q + 1) / (df * q)
    return statistic, float(special.fdtrc(q, df - q + 1, statistic))


# --- the SD that effects are divided by ------------------------------------------------------------------


class Tail(NamedTuple):
    """The error of a sum of scores that may be skewed and heavy-tailed: its SE, its skewness, and the SE's df."""

    se: float
    skewness: float
    df: float

    @classmethod
    def of(cls, scores: Floats, df: float) -> Tail:
        """Of scores by cluster (G,), with `df` degrees of freedom at most: fewer where few clusters make the SE.

        The SE^2 is V = sum v_g with v_g the squared scores, and V's own variance that of the v_g about their mean, so
        the degrees of freedom are 2 V^2 / sum (v_g - mean)^2 (Satterthwaite 1946, Biometrics Bulletin 2:110).
        """
        squares = np.square(scores)
        total = float(squares.sum())
        if not total > 0:
            return cls(0.0 if total == 0 else float("nan"), 0.0, df)
        spread = float(squares @ squares) - total**2 / int(np.count_nonzero(scores))
        own = 2 * total**2 / spread if spread > 0 else df
        return cls(float(np.sqrt(total)), float(squares @ scores) / total**1.5, min(df, own))

    def times(self, factor: float) -> Tail:
        """That of the sum times a constant."""
        return Tail(self.se * abs(factor), self.skewness * float(np.sign(factor)), self.df)

    def reach(self, p: float) -> tuple[float, float]:
        """How far below and above the sum an interval has to reach to leave out `p` on each side.

        By Student's t, or farther on the side to which Hall's transformation for skewness (1992, Journal of the Royal
        Statistical Society B 54:221) points; the nearer end is not drawn in, for a sample's skewness is uncertain.

        Examples
        --------
        >>> [[round(x, 2) for x in tail.reach(0.025)] for tail in (Tail(1.0, 0.0, 1e6), Tail(1.0, 0.3, 8))]
        [[1.96, 1.96], [2.31, 3.36]]
        """
        t = -float(special.stdtrit(self.df, p))
        return self.se * max(t, self._untransformed(t)), self.se * max(t, -self._untransformed(-t))

    def _untransformed(self, x: float) -> float:
        g = self.skewness
        return x if abs(g) < 1e-6 else float(np.cbrt(1 + g * (x - g / 6)) - 1) / (g / 3)


def in_sds(value: float, arm: float, of_sd: Tail, together: float, p: float) -> tuple[float, float]:
    """The ends, each leaving out `p`, of an effect in SDs: its own error is even, that of the SD need not be.

    `arm` is how far the effect's interval reaches with the SD as known, `of_sd` the error that the SD adds, and
    `together` their correlation. Each end is where the variance that goes with both errors' ends puts it (MOVER: Zou
    and Donner 2008, Statistics in Medicine 27:1693). The SD of heavy-tailed rewards comes out too small more often than
    too large, and its SE with it: with Student's t(3), 150 rows and a true effect of a third of an SD an interval of
    equal arms lies wholly beyond the truth in 12 % of draws, where 2.5 % is meant, and this one in 4 %. Rewards as
    heavy as that have no fourth moment, and their SD no finite error: the larger the effect the more often it is
    missed, whatever the number of rows (experiments/coverage_wider.md).
    """
    low, high = (float(np.sqrt(max(arm**2 + b**2 + 2 * together * arm * b, 0.0))) for b in of_sd.reach(p))
    return value - low, value + high


def agreed(ends: tuple[float, float], nearest: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval in SDs, which leaves out 0 where, and only where, that of the effect itself does.

    `nearest` are the ends of the effect's interval in the largest SD: whatever the SD, it makes no effect of none and
    none of an effect.

    Examples
    --------
    >>> agreed((-0.1, 2.0), (0.2, 1.0)), agreed((0.1, 2.0), (-0.2, 1.0))
    ((0.2, 2.0), (-0.2, 2.0))
    """
    (low, high), (near_low, near_high) = ends, nearest
    low = max(low, near_low) if near_low > 0 else min(low, near_low)
    return low, min(high, near_high) if near_high < 0 else max(high, near_high)


def with_interval(e: Effect, low: float, high: float, sd: float) -> tuple[float, float]:
    """The ends in SDs where another interval of the same level, from `low` to `high`, takes the place of the effect's.

    What the SD's own error added to each arm is added to the new ones.
    """
    if not sd > 0:
        return float("nan"), float("nan")
    arms = []
    for end, old, old_sd in ((low, e.ci_low, e.ci_low_sd), (high, e.ci_high, e.ci_high_sd)):
        added = (e.estimate_sd - old_sd) ** 2 - ((e.estimate - old) / sd) ** 2
        arms.append(float(np.sqrt(max(((e.estimate - end) / sd) ** 2 + added, 0.0))))
    low_sd, high_sd = e.estimate_sd - arms[0], e.estimate_sd + arms[1]
    if low > 0 >= low_sd:
        low_sd = low * (e.ci_low_sd / e.ci_low if e.ci_low > 0 else 1 / sd)
    if high < 0 <= high_sd:
        high_sd = high * (e.ci_high_sd / e.ci_high if e.ci_high < 0 else 1 / sd)
    return low_sd if low > 0 else min(low_sd, 0.0), high_sd if high < 0 else max(high_sd, 0.0)


def correlation(shared: float, one: float, two: float) -> float:
    """Of two errors with their covariance and SEs; 0 where one of them has none."""
    return shared / (one * two) if one > 0 and two > 0 else 0.0


def pooled_sd(r0: ArrayLike, w: ArrayLike) -> float:
    """Pooled within-class standard deviation (ddof 1) of the original responses' rewards; NaN if unscored.

    Examples
    --------
    >>> pooled_sd([1.0, 3.0, 10.0, 14.0], [True, True, False, False])
    2.23606797749979
    """
    reward, treated = np.asarray(r0, float), np.asarray(w, bool)
    scored = np.isfinite(reward)
    return _residuals(reward[scored], treated[scored])[1]


def _residuals(reward: Floats, treated: Bools) -> tuple[Floats, float]:
    """What the rewards are above their class means, and the pooled SD: 0 where it is rounding, NaN without two rows."""
    residual = np.zeros(len(reward))
    df = 0
    for side in (True, False):
        of = treated == side
        if of.any():
            residual[of] = reward[of] - reward[of].mean()
            df += int(of.sum()) - 1
    if df == 0:
        return residual, float("nan")
    sd = float(np.sqrt(residual @ residual / df))
    return residual, sd if sd > rounding_of(reward) else 0.0


def covariance(first: Floats, second: Floats) -> float:
    """Of two estimates, from their scores by cluster; a cluster that one of them has no row of adds nothing.

    >>> covariance(np.array([1.0, 2.0]), np.array([3.0, 1.0, 5.0]))
    5.0
    """
    both = min(len(first), len(second))
    return float(first[:both] @ second[:both])


class RewardScale:
    """The SD of the originals' rewards with its own influence, by which effects are put in SDs.

    With s the SD and e_i the within-class residual of the reward of original i, the influence of log s is
    (e_i^2/s^2 - 1)/2. `scores` are its scores by cluster, as those of a mean (`Sizes.scores`). An SD within the
    rewards' rounding (`rounding_of`) is one of 0.
    """

    def __init__(self, r0: Floats, w: Bools, clusters: Ints, n_codes: int) -> None:
        scored = np.isfinite(r0)
        if not scored.all():
            r0, w, clusters = r0[scored], w[scored], clusters[scored]
        residual, self.sd = _residuals(r0, w)
        if not self.sd > 0:
            self.scores, self.df = np.full(n_codes, np.nan), float("nan")
            self.tail = Tail(float("nan"), float("nan"), float("nan"))
            return
        influence = np.square(residual / self.sd) / 2
        influence -= influence.mean()
        sizes = Sizes(np.bincount(clusters, minlength=n_codes).astype(float))
        self.scores, self.df = sizes.scores(cluster_sums(influence, clusters, n_codes)), sizes.df
        self.tail = Tail.of(self.scores, self.df)

    def divide(self, part: Part, level: float) -> tuple[float, float, float, float]:
        """An effect in SDs: estimate, SE, and the ends of its interval."""
        if not (self.sd > 0 and self.tail.se >= 0):
            return (part.value / self.sd if self.sd > 0 else float("nan"), *(float("nan"),) * 3)
        in_sd, own, shared = (x / self.sd for x in (part.value, part.se, covariance(part.scores, self.scores)))
        se = float(np.sqrt(max(own**2 + (in_sd * self.tail.se) ** 2 - 2 * in_sd * shared, 0.0)))
        return in_sd, se, *self.ends(in_sd, (own, part.df), shared, (1 - level) / 2)

    def ends(self, in_sd: float, own: tuple[float, float], shared: float, p: float) -> tuple[float, float]:
        """The interval that leaves out `p` on each side, of an effect in SDs with its SE and degrees of freedom.

        `shared` is the covariance of the effect with log s.
        """
        se, df = own
        arm = -float(special.stdtrit(df, p)) * se
        return ends_in_sds(in_sd, arm, self.tail, correlation(shared, se, self.tail.se), p)


def ends_in_sds(in_sd: float, arm: float, of_log_sd: Tail, together: float, p: float) -> tuple[float, float]:
    """`in_sds` of an effect by itself, from the error of the SD's logarithm and its correlation with the effect."""
    sign = float(np.sign(in_sd))
    ends = in_sds(in_sd, arm, of_log_sd.times(-in_sd), -sign * together, p)
    shrunk = float(np.exp(-of_log_sd.reach(p)[1]))
    return agreed(ends, ((in_sd - arm) * shrunk, (in_sd + arm) * shrunk))


# --- every effect ----------------------------------------------------------------------------------------


def effects(
    rewards: ArrayLike,
    treated: ArrayLike,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    *,
    unpaired: bool = False,
    features: Floats | None = None,
) -> Effects:
    """Every estimate that the rewards allow, in the order of `ESTIMATORS`, and a record of what is left out.

    >>> r = [[0, 2, 1.0], [1, 2, 0.5], [3, 1, 2.5], [2, 0, 2.0]]
    >>> found = effects(r, treated=[False, False, True, True])
    >>> for e in found:
    ...     print(e.estimator, e.estimand, e.estimate)
    naive ate 2.0
    single_rewrite ate 1.75
    single_rewrite att 2.0
    single_rewrite atu 1.5
    rate ate 1.5
    rate att 1.75
    rate atu 1.25
    >>> found.left_out[0]
    LeftOut(estimator='single_rewrite', estimand='att', why='no two clusters differ (all are 2), so no standard error')

    Parameters
    ----------
    rewards
        (n, depth+1) rewards of the response after 0, 1, 2, ... rewrites, in any unit; NaN where not scored.
    treated
        (n,) does the response have the attribute?
    clusters
        (n,) integer codes from 0, rows of a prompt alike; each row its own by default.
    level
        Of the confidence intervals.
    unpaired
        Compute `se_unpaired` too, the two-sample SE that ignores that rows are pairs.
    features
        (n, p) of the originals: rows without the rewards of a rewrite are then predicted from them and the prediction
        is corrected (`augmentation.augmented`), so that `n` counts all rows and `n_dropped` those predicted.

    Returns
    -------
    Effects
        Estimates in the reward's units and, in the columns `*_sd`, in SDs of the originals' rewards. Each estimator
        uses the rows that have what it needs; `n_dropped` counts the other rows of the same class (ATT, ATU) or of both
        (ATE).

    Raises
    ------
    InputError
        For an infinite reward and for one of 1e100 or more.
    """
    r, w = np.asarray(rewards, float), np.asarray(treated, bool)
    r = r.reshape(len(w), -1)
    refuse_huge(r)
    codes = np.arange(len(w)) if clusters is None else np.asarray(clusters)
    n_codes = int(codes.max()) + 1
    precision = precision_of(r)
    scale = RewardScale(r[:, 0] if r.shape[1] else np.full(len(w), np.nan), w, codes, n_codes)
    found: list[Effect] = []
    left_out: list[LeftOut] = []
    by_rows: dict[bytes, Rows] = {}
    for name, estimator in ESTIMATORS.items():
        passes, complete = rows_used(estimator, r)
        if not complete.any():
            *most, last = ["the response" if k == 0 else f"rewrite {k}" for k in estimator.passes]
            why = f"no row has rewards for {', '.join(most) + ' and ' if most else ''}{last}"
            left_out += [LeftOut(name, estimand, why) for estimand in estimator.estimands]
            continue
        whole = bool(complete.all())  # then no copies: they would take most of the time
        key = b"" if whole else complete.tobytes()
        rows = by_rows.get(key)
        if rows is None:
            rows = Rows(w, codes, n_codes) if whole else Rows(w[complete], codes[complete], n_codes)
            by_rows[key] = rows
        of = (r if whole else r[complete])[:, : max(passes) + 1]
        values = estimator.values(of, rows.w, rows.codes)
        if features is not None and not estimator.classes and not whole:
            few = [side for side in (True, False) if (w == side).any() and (rows.w == side).sum() < LEAST]
            if few:
                why = f"under {LEAST} rewritten rows of a class, too few to predict the others from"
                left_out += [LeftOut(name, estimand, why) for estimand in estimator.estimands]
                continue
            values, rows = _predicted(values, complete, w, codes, features), Rows(w, codes, n_codes)
        parts = rows.parts(values, precision * float(np.abs(of[:, passes]).max()), estimator.classes)
        for estimand in estimator.estimands:
            part = parts.get(estimand)
            if part is None:
                missing = "untreated" if rows.w.any() else "treated"
                left_out.append(LeftOut(name, estimand, f"no {missing} rows"))
                continue
            n1 = 0 if estimand == "atu" else rows.n_treated
            n0 = 0 if estimand == "att" else len(rows.w) - rows.n_treated
            lacking = ~complete & rows_about(w, estimand)
            low, high, p = t_interval(part.value, part.se, part.df, level)
            sd = scale.divide(part, level) if part.se > 0 else None
            if sd is None:
                in_sd = part.value / scale.sd if scale.sd > 0 else float("nan")
                sd = (in_sd, float("nan"), float("nan"), float("nan"))
                why = part.why or f"no two clusters differ (all are {part.value:.6g})"
                left_out.append(LeftOut(name, estimand, f"{why}, so no standard error"))
            se = part.se if part.se > 0 else float("nan")  # nothing tells how it would vary, so claim no precision
            other = _two_sample(of, rows.w, estimator, estimand) if unpaired else float("nan")
            found.append(
                Effect(
                    name, estimand, part.value, se, low, high, p, n1 + n0, n1, n0, part.n_clusters, int(lacking.sum()),
                    part.df, *sd, part.largest, other,
                )
            )  # fmt: skip
    return Effects(tuple(found), tuple(left_out), scale.sd)


def _predicted(values: Floats, complete: Bools, w: Bools, clusters: Ints, features: Floats) -> Floats:
    """Values of all rows, class by class, from those of the complete ones."""
    known = np.full(len(w), np.nan)
    known[complete] = values
    for side in (True, False):
        of = w == side
        if of.any():
            known[of] = augmented(known[of], features[of], clusters[of])[0]
    return known


def rows_used(estimator: Estimator, rewards: Floats) -> tuple[tuple[int, ...], Bools]:
    """The passes that an estimator reads of rewards (n, depth+1), and which rows have them all, (n,)."""
    if max(estimator.passes) >= rewards.shape[1]:
        return estimator.passes, np.zeros(len(rewards), bool)
    passes = estimator.passes
    complete = np.asarray(np.isfinite(rewards[:, passes]).all(axis=1))
    if estimator.further:
        for k in range(max(passes) + 1, rewards.shape[1]):
            if not np.isfinite(rewards[complete, k]).all():
                break  # no row is dropped for a pass that could be done without
            passes = (*passes, k)
    return passes, complete


def row_values(
    rewards: Floats, treated: Bools, clusters: Ints, estimator: str, estimand: str = "ate"
) -> tuple[Floats, Ints]:
    """The values whose mean is the estimate, over the rows that it uses, and those rows' clusters."""
    how = ESTIMATORS[estimator]
    passes, used = rows_used(how, rewards)
    if not used.any():
        return np.empty(0), np.empty(0, np.int64)
    w, codes = treated[used], clusters[used]
    values = how.values(rewards[used][:, : max(passes) + 1], w, codes)
    if how.classes:
        return _as_one_mean(values, w), codes
    of = rows_about(w, estimand)
    return values[of], codes[of]


def _as_one_mean(values: Floats, w: Bools) -> Floats:
    """The sum of the classes' means plus each row's influence on it: values whose mean over all rows is that sum."""
    n, n1 = len(w), int(w.sum())
    if n1 in (0, n):
        return np.full(n, np.nan)
    mean1, mean0 = values[w].mean(), values[~w].mean()
    return mean1 + mean0 + np.where(w, (values - mean1) * (n / n1), (values - mean0) * (n / (n - n1)))


def refuse_level(level: float) -> None:
    """Raise InputError for a confidence level that is none."""
    if not (isinstance(level, Real) and 0 < level < 1):
        raise InputError(f"level={level!r}: a number between 0 and 1 was expected, as in 0.95")


def refuse_huge(rewards: Floats, what: str = "rewards") -> None:
    """Raise InputError for a reward that is infinite or not below 1e100, naming its row; NaN means not scored."""
    size = np.abs(rewards)
    if np.nanmax(size, initial=0) < LARGEST:
        return
    row = int(np.argwhere(size >= LARGEST)[0][0])
    worst = float(np.ravel(rewards[row])[np.nanargmax(np.ravel(size[row]))])
    raise InputError(f"row {row + 1}: {what} hold {worst:g}; finite numbers below 1e100 were expected")


def precision_of(rewards: Floats) -> float:
    """The relative rounding of rewards: that of float32 where every one is a float32 number, else that of float64."""
    for part in (rewards[:100], rewards):
        with np.errstate(over="ignore"):
            if not ((part == part.astype(np.float32)) | np.isnan(part)).all():
                return 1e-14
    return 2.5e-7


def rounding_of(numbers: Floats) -> float:
    """What differences of these numbers must exceed to be any: their precision times the largest; NaN is left out.

    >>> rounding_of(np.array([0.5, -4.0, np.nan])), rounding_of(np.array([0.1]))  # 0.1 is no float32 number
    (1e-06, 1e-15)
    """
    return precision_of(numbers) * float(np.nanmax(np.abs(numbers), initial=0))


def rows_about(treated: Bools, estimand: str) -> Bools:
    """Which rows an estimand is about, (n,): all, the treated or the untreated.

    Examples
    --------
    >>> rows_about(np.array([True, False]), "atu").tolist()
    [False, True]
    """
    return {"ate": np.ones(len(treated), bool), "att": treated, "atu": ~treated}[estimand]


class Part(NamedTuple):
    """An estimate with its scores by cluster, their degrees of freedom, and why there is no SE."""

    value: float
    se: float
    df: float
    scores: Floats
    n: int
    n_clusters: int
    largest: float
    why: str = ""

    def interval(self, level: float = 0.95) -> tuple[float, float, float]:
        """Lower end, upper end, p-value against 0, by `t_interval`."""
        return t_interval(self.value, self.se, self.df, level)


def part_of(
    rewards: Floats, treated: Bools, clusters: Ints, estimator: str, estimand: str = "ate", n_codes: int = 0
) -> Part | None:
    """One estimate as `effects` has it, with its scores by cluster; None where a class, or all rows, lack its passes.

    >>> r = np.array([[0, 2, 1.0], [1, 2, 0.5], [3, 1, 2.5], [2, 0, 2.0]])
    >>> part = part_of(r, np.array([False, False, True, True]), np.arange(4), "rate")
    >>> part.value, part.n, part.scores.round(3).tolist()
    (1.5, 4, [-0.144, 0.0, 0.0, 0.144])
    """
    how = ESTIMATORS[estimator]
    passes, used = rows_used(how, rewards)
    if not used.any():
        return None
    of, w, codes = rewards[used][:, : max(passes) + 1], treated[used], clusters[used]
    rows = Rows(w, codes, max(n_codes, int(clusters.max()) + 1))
    return rows.parts(how.values(of, w, codes), rounding_of(of[:, passes]), how.classes).get(estimand)


class Rows:
    """The rows of one or more estimators: their classes and clusters, counted once."""

    def __init__(self, w: Bools, codes: Ints, n_codes: int) -> None:
        self.w, self.codes, self.n_treated = w, codes, int(w.sum())
        self._key = 2 * codes + w
        self._n_codes = n_codes
        counts = np.bincount(self._key, minlength=2 * n_codes).reshape(-1, 2).astype(float)
        self.of = {False: Sizes(counts[:, 0]), True: Sizes(counts[:, 1])}
        self.all = Sizes(counts.sum(axis=1))

    def parts(self, values: Floats, rounding: float, classes: bool) -> dict[str, Part]:
        """The estimates that these values give; one that lacks a class is absent."""
        n1, n = self.n_treated, len(self.w)
        total = float(values.sum())
        treated = float(values[self.w].sum())
        means = {True: treated / n1 if n1 else 0.0, False: (total - treated) / (n - n1) if n1 < n else 0.0}
        centred = values - np.where(self.w, means[True], means[False])
        sums = cluster_sums(centred, self._key, 2 * self._n_codes).reshape(-1, 2)
        found: dict[str, Part] = {}
        by_class = {}
        for side, estimand in ((True, "att"), (False, "atu")):
            if self.of[side].n:
                left = float(sums[:, int(side)].sum()) / self.of[side].n  # what rounding left of the mean
                means[side] += left
                sums[:, int(side)] -= left * self.of[side].sizes
                by_class[side] = self._part(means[side], sums[:, int(side)], self.of[side], rounding)
                found[estimand] = by_class[side]
        if len(by_class) == 2:
            found["ate"] = self._sum(by_class[True], by_class[False]) if classes else self._mean(means, sums, rounding)
        return found

    def _part(self, value: float, sums: Floats, sizes: Sizes, rounding: float) -> Part:
        if sizes.n_clusters < 2:
            nan = float("nan")
            none = sizes.scores(sums)
            return Part(value, nan, nan, none, int(sizes.n), sizes.n_clusters, sizes.largest, "one cluster")
        flat = _flat(sums, sizes.sizes, max(rounding, 1e-14 * abs(value)))
        scores = sizes.scores(sums)
        se = 0.0 if flat else float(np.sqrt(scores @ scores))
        return Part(value, se, sizes.df, scores, int(sizes.n), sizes.n_clusters, sizes.largest)

    def _mean(self, means: dict[bool, float], sums: Floats, rounding: float) -> Part:
        """All rows in one mean, from what the classes have."""
        n1, n0 = self.of[True], self.of[False]
        mean = (n1.n * means[True] + n0.n * means[False]) / self.all.n
        about = sums.sum(axis=1) + n1.sizes * (means[True] - mean) + n0.sizes * (means[False] - mean)
        return self._part(mean, about, self.all, rounding)

    def _sum(self, one: Part, two: Part) -> Part:
        """The two classes' means together, each with its own correction."""
        value, n, scores = one.value + two.value, one.n + two.n, one.scores + two.scores
        clusters, largest = self.all.n_clusters, max(one.largest, two.largest)
        for part, name in ((one, "treated"), (two, "untreated")):
            if part.n_clusters < 2:
                why = f"the {name} rows are one cluster" if clusters > 1 else "one cluster"
                return Part(value, float("nan"), float("nan"), scores, n, clusters, largest, why)
        if one.se == two.se == 0:
            return Part(value, 0.0, float("nan"), scores, n, clusters, largest)
        se, df = combined([(one.scores, one.df), (two.scores, two.df)])
        if min(one.n_clusters, two.n_clusters) < RARE:
            # Welch's degrees of freedom are many where a few rows happen to vary little, and 95 % intervals then cover
            # 88 % with 2 of 50 treated: at most those of equal variances (Bell and McCaffrey 2002).
            df = min(df, satterthwaite([1 / self.of[True].n, 1 / self.of[False].n], [one.df, two.df]))
        return Part(value, se, df, scores, n, clusters, largest)


def _two_sample(r: Floats, w: Bools, estimator: Estimator, estimand: str) -> float:
    """The SE that treats the two arms as independent samples, for comparison only; NaN for what has no two arms.

    The rows are pairs, so this ignores their covariance; the reference implementation uses it, which on its
    own published cells is 1.7 to 6 times too wide.
    """
    if estimator.classes:
        groups = [r[w, 0], r[~w, 0]]
    elif estimator.arms is None:
        return float("nan")
    else:
        of = rows_about(w, estimand)
        same, other = r[of][:, estimator.arms[0]], r[of][:, estimator.arms[1]]
        groups = [np.where(w[of], same, other), np.where(w[of], other, same)]
    if min(map(len, groups)) < 2:
        return float("nan")
    return float(np.sqrt(sum(g.var(ddof=1) / len(g) for g in groups)))


def standardize(table: pd.DataFrame) -> pd.DataFrame:
    """The table in reward SDs: estimate, se and interval as its columns `*_sd` have them; `reward_sd` becomes 1.

    Parameters
    ----------
    table : DataFrame
        An effects table of `rk.estimate`.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import pandas as pd
    >>> t = pd.DataFrame({"estimate": [3.0], "se": [1.0], "ci_low": [1.0], "ci_high": [5.0], "reward_sd": [2.0]})
    >>> per_sd = standardize(t)
    >>> per_sd.iloc[0].tolist(), per_sd.attrs["unit"]
    ([1.5, 0.5, 0.5, 2.5, 1.0], 'SD of this sample')

    Notes
    -----
    The SD is an estimate too, and the columns `estimate_sd, se_sd, ci_low_sd, ci_high_sd` count its uncertainty. A
    row without them is divided by `reward_sd` as it stands: its intervals are per SD of this sample, and as
    intervals of the effect per SD of the population they are too narrow, the more so the larger the effect. Which of
    the two it is stands in `table.attrs["unit"]`: "SD" or "SD of this sample".
    """
    out = table.copy()
    sd = out["reward_sd"].where(out["reward_sd"] > 0)
    has = all(f"{c}_sd" in out for c in _IN_SD)
    by_row = out["estimate_sd"].notna() if has else sd.notna() & False  # rows whose SDs the estimate counted
    counted = has and bool(by_row.any()) and not (~by_row & out["estimate"].notna() & sd.notna()).any()
    for column in (*_IN_SD, "se_unpaired"):
        if column in out:
            per_sd = out[column] / sd
            out[column] = out[f"{column}_sd"].where(by_row, per_sd) if has and column in _IN_SD else per_sd
    out["reward_sd"] = sd / sd
    out.attrs["unit"] = "SD" if counted else out.attrs.get("unit", SAMPLE_SD)
    return out


def shown_unit(table: pd.DataFrame) -> str:
    """The unit to show an effects table in: "sd", or "reward" where no reward has an SD."""
    return "sd" if table["reward_sd"].gt(0).any() else "reward"


SAMPLE_SD = "SD of this sample"  # taken as known: its own error is not counted
_IN_SD = ("estimate", "se", "ci_low", "ci_high")
