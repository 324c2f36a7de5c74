"""A number with its interval: means, shares, ratios and regressions over clusters, and what lies outside the data.

Checks by equivalence read these: a number is shown fine where its whole interval is.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from ratekit.estimators import (
    Floats,
    Ints,
    Mean,
    Part,
    RewardScale,
    Rows,
    Sizes,
    cluster_sums,
    clustered_mean,
    refuse_level,
)

LEVEL = 0.95
_ROUNDING = 1e-12  # of y's size, at least: a regression that leaves no more leaves nothing
_TIED = 1e-8  # of the largest direction: columns that differ by no more are not told apart
BEYOND = 0.1  # of the originals' range: nearer to it is not outside the data


class Interval(NamedTuple):
    """A value with its 95 % interval, and the number of rows behind it."""

    value: float
    low: float
    high: float
    n: int

    def parts_of(self, whole: float) -> Interval:
        """The interval in parts of `whole`; of nothing, nothing is no part and anything an infinite one."""
        value, low, high = (
            v / whole if whole else v if v == 0 or v != v else math.copysign(math.inf, v) for v in self[:3]
        )
        return Interval(value, *((low, high) if whole >= 0 else (high, low)), self.n)

    def times(self, factor: float) -> Interval:
        """The interval of the value times a constant that is not negative."""
        return Interval(self.value * factor, self.low * factor, self.high * factor, self.n)

    def within(self, limit: float) -> bool:
        """Is the value shown to be no farther from 0 than `limit`?"""
        return -limit <= self.low and self.high <= limit

    @property
    def reach(self) -> float:
        """The end that lies farther from 0; -1 where there is no interval."""
        return max(-self.low, self.high) if self.low == self.low else -1.0


def mean_interval(values: Floats, clusters: Ints, rounding: float = 0.0, level: float = LEVEL) -> Interval:
    """The mean of `values` with its t interval over clusters; of no width where all values are the same.

    `rounding` is that of the numbers that the values are differences of (`rounding_of`).
    """
    return interval_of(clustered_mean(values, clusters, rounding), len(values), level)


def interval_of(mean: Mean | Part, n: int, level: float = LEVEL) -> Interval:
    """The t interval of an estimate from n rows; of no width where its SE is 0."""
    low, high, _ = (mean.value, mean.value, 1.0) if mean.se == 0 else mean.interval(level)
    return Interval(mean.value, low, high, n)


def sds_interval(
    values: Floats, clusters: Ints, scale: RewardScale, rounding: float = 0.0, level: float = LEVEL
) -> Interval:
    """The mean of `values` in SDs with its interval, in which the SD's own error counts.

    Examples
    --------
    >>> rows = np.arange(40)
    >>> scale = RewardScale(rows % 4 / 2, rows < 20, rows, 40)
    >>> [round(x, 2) for x in sds_interval(np.full(40, 1.0), rows, scale)]  # the mean has no error, the SD of 0.57 has
    [1.74, 1.54, 1.96, 40]
    """
    part = Rows(np.ones(len(values), bool), clusters, len(scale.scores)).parts(values, rounding, False)["att"]
    value, _, low, high = scale.divide(part, level)
    return Interval(value, low, high, len(values))


def share_interval(values: Floats, clusters: Ints, level: float = LEVEL) -> Interval:
    """The mean of values from 0 to 1 with Wilson's score interval (1927), n made smaller by what clusters share.

    Examples
    --------
    >>> [round(float(x), 3) for x in share_interval(np.ones(16), np.arange(16))]
    [1.0, 0.806, 1.0, 16.0]
    """
    refuse_level(level)
    share, se, n_clusters = clustered_mean(values, clusters)[:3]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    effective = min(float(n), share * (1 - share) / se**2) if se > 0 else float(n_clusters)
    z2 = float(special.ndtri(0.5 + level / 2)) ** 2
    middle = (share + z2 / (2 * effective)) / (1 + z2 / effective)
    half = np.sqrt(z2 * (share * (1 - share) / effective + z2 / (4 * effective**2))) / (1 + z2 / effective)
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0), n)


def ratio_interval(top: Floats, bottom: Floats, clusters: Ints, level: float = 0.95) -> Interval:
    """The ratio of two means with Fieller's interval; -inf to inf where the lower mean may be 0.

    Parameters
    ----------
    top, bottom
        Values (n,) whose means are divided.
    clusters
        Codes (n,); the two means are correlated by them.
    level
        Of the interval.

    References
    ----------
    Fieller 1954, Journal of the Royal Statistical Society B 16:175; with the CR2 covariance of clustered means and its
    degrees of freedom.

    Examples
    --------
    >>> bottom = np.array([1.0, 2.0, 3.0, 2.0])
    >>> [round(float(x), 3) for x in ratio_interval(2 * bottom, bottom, np.arange(4))]
    [2.0, 2.0, 2.0, 4.0]
    """
    sizes = Sizes(np.bincount(clusters).astype(float))
    scores = [sizes.scores(cluster_sums(v - v.mean(), clusters)) for v in (top, bottom)]
    return fieller(float(top.mean()), float(bottom.mean()), np.stack(scores), sizes.df, len(top), level)


def fieller(a: float, b: float, scores: Floats, df: float, n: int, level: float = 0.95) -> Interval:
    """`ratio_interval` of two estimates from their scores by cluster, (2, G); everything where these are NaN."""
    refuse_level(level)
    value = a / b if b else math.nan
    units = [math.hypot(of, float(np.abs(s).max(initial=0))) or 1.0 for of, s in zip((a, b), scores, strict=True)]
    a, b, scores = a / units[0], b / units[1], scores / np.array(units)[:, None]  # else the squares leave float64
    (aa, ab), (_, bb) = scores @ scores.T
    t2 = float(special.stdtrit(df, 0.5 + level / 2)) ** 2
    # (a - q b)^2 <= t^2 var(a - q b), a quadratic in q
    x, y, z = b * b - t2 * bb, a * b - t2 * ab, a * a - t2 * aa
    if not x > 0:
        return Interval(value, -math.inf, math.inf, n)
    root, unit = math.sqrt(max(y * y - x * z, 0.0)), units[0] / units[1]
    return Interval(value, (y - root) / x * unit, (y + root) / x * unit, n)


class Regression:
    """Least squares of y (n,) on the columns of x (n, k), through the origin, with CR2 errors over clusters.

    With one column of ones this is `ratekit.estimators.clustered_mean`. `rounding` is that of the numbers that y are
    differences of; `exact` says that no more is left over, and the errors are then 0, or NaN where no row is to spare.
    `coefficients` (k,), with their `scores` by cluster (k, G), are those of least norm: `of` says which are told.

    References
    ----------
    Bell and McCaffrey 2002, Survey Methodology 28:169, with degrees of freedom by Satterthwaite under independent rows;
    for clusters that hold all that tells a coefficient, the pseudoinverse (Pustejovsky and Tipton 2018, Journal of
    Business and Economic Statistics 36:672).

    Examples
    --------
    >>> fit = Regression(np.array([1.0, 2.0, 3.0, 6.0]), np.ones((4, 1)), np.array([0, 0, 1, 1]))
    >>> value, scores, df = fit.of(np.ones(1))
    >>> round(value, 6), round(float(np.linalg.norm(scores)), 6), round(df, 6)
    (3.0, 1.5, 1.0)
    """

    def __init__(self, y: Floats, x: Floats, clusters: Ints, rounding: float = 0.0) -> None:
        scale = np.sqrt((x**2).mean(axis=0))
        self._unit = 1 / np.where(scale > 0, scale, np.inf)
        size = float(np.abs(y).max()) or 1.0  # what is left over is held against it
        z, singular, directions = np.linalg.svd(x * self._unit, full_matrices=False)
        free = singular > _TIED * singular.max()
        z, self._directions = z[:, free], directions[free]
        self._root = self._directions.T / singular[free]
        y, least = y / size, max(_ROUNDING, rounding / size)
        beta = self._root @ (z.T @ y)
        left = y - z @ (z.T @ y)
        self.exact = float(np.abs(left).max()) <= least
        if self.exact:
            beta[np.abs(beta) <= least] = 0.0
            left = np.full(len(y), 0.0 if len(y) > z.shape[1] else np.nan)
        names, self._codes = np.unique(clusters, return_inverse=True)
        self._g = len(names)
        self._z, self._adjusted = z, _cr2_adjusted(z, self._codes)
        sums = self._by_cluster(self._adjusted * left[:, None])
        self.coefficients = size * self._unit * beta
        self.scores = size * self._unit[:, None] * (self._root @ sums)

    def of(self, weights: Floats) -> tuple[float, Floats, float]:
        """A weighted sum of the coefficients, its scores by cluster (G,), whose squares add to its variance, its df.

        NaN where the columns do not tell it apart. Where one cluster alone tells a part of it, there is no residual:
        the error is as large as that of the rest says of independent rows, and 0, its df NaN, where nothing is left.
        """
        scaled = weights * self._unit
        untold = scaled - self._directions.T @ (self._directions @ scaled)
        if weights[self._unit == 0].any() or np.linalg.norm(untold) > 1e-6 * np.linalg.norm(scaled):
            return math.nan, np.full(self.scores.shape[1], np.nan), math.nan
        spread, scores = self._root.T @ scaled, weights @ self.scores
        own = self._adjusted @ spread
        alone = cluster_sums(own**2, self._codes)
        through = self._by_cluster(self._z * own[:, None])
        shared = (through**2).sum(axis=0)
        trace = float(alone.sum() - shared.sum())  # of P, the covariance of the scores under independent rows
        squares = float((alone**2).sum() - 2 * (alone * shared).sum() + ((through @ through.T) ** 2).sum())
        whole = float(spread @ spread)  # the variance, of which the scores hold `trace`
        if not (trace > _TIED * whole and squares > 0):
            return float(weights @ self.coefficients), 0 * scores, math.nan
        return float(weights @ self.coefficients), math.sqrt(whole / trace) * scores, trace**2 / squares

    def _by_cluster(self, rows: Floats) -> Floats:
        """Sums of the rows (n, k) by cluster, (k, G)."""
        sums = [cluster_sums(column, self._codes) for column in rows.T]
        return np.array(sums).reshape(len(sums), self._g)


def _cr2_adjusted(z: Floats, codes: Ints) -> Floats:
    """The rows of orthonormal columns z (n, k), of each cluster times (I - z z')^(-1/2), its pseudoinverse."""

    def turned(rest: Floats) -> Floats:
        return np.where(rest > _TIED, 1 / np.sqrt(np.maximum(rest, _TIED)), 0.0)

    out = z * turned(1 - (z**2).sum(axis=1))[:, None]  # a row that is a cluster by itself
    several = np.flatnonzero((np.bincount(codes) > 1)[codes])
    names, own = np.unique(codes[several], return_inverse=True)
    rows, k, g = z[several], z.shape[1], len(names)
    grams = np.empty((g, k, k))
    for i, j in itertools.product(range(k), repeat=2):
        grams[:, i, j] = cluster_sums(rows[:, i] * rows[:, j], own, g)
    shares, directions = np.linalg.eigh(grams)
    factors = (directions * turned(1 - shares)[:, None, :]) @ directions.transpose(0, 2, 1)
    out[several] = sum((rows[:, j, None] * factors[own, j] for j in range(k)), np.zeros_like(rows))
    return out


def outside(values: Floats, clusters: Ints) -> Interval | None:
    """Share of the first two rewrites that lie beyond the originals' range by more than a tenth of it; None unknown.

    Parameters
    ----------
    values
        A measure, or the reward, of each text of each chain, (n, depth+1).
    clusters
        Codes (n,).

    Examples
    --------
    >>> outside(np.array([[0.0, 9.0], [1.0, 1.0]]), np.arange(2)).value
    0.5
    """
    original, rewritten = values[:, :1], values[:, 1:3]
    have = np.isfinite(rewritten)
    if not (np.isfinite(original).any() and have.any()):
        return None
    low, high = float(np.nanmin(original)), float(np.nanmax(original))
    slack = BEYOND * (high - low)
    beyond = ((rewritten < low - slack) | (rewritten > high + slack)) & have
    rows = have.any(axis=1)
    return share_interval(beyond[rows].sum(axis=1) / have[rows].sum(axis=1), clusters[rows])
