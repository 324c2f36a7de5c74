"""A number with its interval: means, shares and ratios over clusters, and what lies outside the data.

Checks by equivalence read these: a number is shown fine where its whole interval is.
"""

from __future__ import annotations

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
