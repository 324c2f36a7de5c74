"""Two phases: rewrites for a part of the rows, the originals of all. The others are predicted, and corrected.

Rewrites cost money, originals do not. With m(x) what the row's difference d is predicted to be from features x of the
original, and pi(x) the chance that the row was rewritten, the value of a row is

    m(x_i) + R_i / pi(x_i) (d_i - m(x_i)),    R_i = 1 where row i has a difference

whose mean is right if either m or pi is (augmented inverse-probability weighting: Robins, Rotnitzky and Zhao 1994, JASA
89:846), with both learned on other clusters than the row's own (cross-fitting: Chernozhukov et al. 2018, Econometrics
Journal 21:C1). Refusals that depend on nothing but the features are corrected in the same way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]

LEAST = 20  # rows with a difference in a class: with fewer nothing is predicted
LEAST_CHANCE = 0.05  # of being rewritten: a row that is less likely to be is weighted as if it were as likely
PENALTIES = np.geomspace(1e-2, 1e4, 25)  # of the ridge regression, the best of which is found by leaving one out


def augmented(
    values: _Floats, features: _Floats, clusters: _Ints, folds: int = 5, seed: int = 0
) -> tuple[_Floats, float]:
    """One value per row whose mean is that of `values` had no row lacked it, and the share that features explain.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 1))
    >>> d = 1 + 2 * x[:, 0] + 0.1 * rng.normal(size=400)
    >>> seen = np.where(rng.random(400) < 0.4, d, np.nan)
    >>> psi, explained = augmented(seen, x, np.arange(400))
    >>> bool(abs(psi.mean() - d.mean()) < 0.05 < abs(np.nanmean(seen) - d.mean())), round(explained, 2)
    (True, 1.0)

    Parameters
    ----------
    values
        (n,) row differences of one class; NaN where a row has none.
    features
        (n, p) of the originals; NaN is taken for the column's mean.
    clusters
        (n,) integer codes; a cluster is never split between folds.
    folds, seed
        How many parts of the clusters are predicted from the others, and the draw of the parts.

    Returns
    -------
    values : (n,) float64
    explained : float
        The share of the variance of the differences that the features predict in other folds, 0 to 1.
    """
    seen = np.isfinite(values)
    x = _prepared(features)
    places = np.unique(clusters, return_inverse=True)[1]
    parts = np.random.default_rng(seed).permutation(int(places.max()) + 1)[places] % folds
    predicted, chance = np.full(len(values), float(values[seen].mean())), np.ones(len(values))
    for part in range(folds):
        held, train = parts == part, parts != part
        known = train & seen
        if known.sum() >= 2:
            predicted[held] = _ridge(x[known], values[known], x[held])
        if not seen.all():
            chance[held] = _chance(x[train], seen[train], x[held])
    weight = np.where(seen, 1 / np.maximum(chance, LEAST_CHANCE), 0.0)
    weight *= len(values) / weight.sum()
    residual = np.where(seen, values, 0.0) - predicted
    total = float(values[seen].var())
    explained = 1 - float(residual[seen].var()) / total if total > 0 else 0.0
    return predicted + weight * residual, max(0.0, explained)


def _prepared(features: _Floats) -> _Floats:
    """Columns and their squares, each with mean 0 and SD 1; what does not vary is left out."""
    means = np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0)
    filled = np.where(np.isfinite(features), features, means)
    spread = filled.std(axis=0)
    unit = (filled - filled.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    unit = np.clip(unit, -4, 4)  # a text of a thousand words is no lever
    squares = unit**2 - (unit**2).mean(axis=0)
    sd = squares.std(axis=0)
    return np.hstack([unit, squares[:, sd > 0] / sd[sd > 0]])


def _ridge(x: _Floats, y: _Floats, at: _Floats) -> _Floats:
    """Ridge regression with an intercept, its penalty by leave-one-out error in closed form; predictions at `at`."""
    center, mean = x.mean(axis=0), y.mean()
    u, singular, vt = np.linalg.svd(x - center, full_matrices=False)
    inner = u.T @ (y - mean)
    best, weights = np.inf, np.zeros(len(singular))
    for penalty in PENALTIES:
        shrink = singular**2 / (singular**2 + penalty)
        leverage = (u**2) @ shrink + 1 / len(y)
        error = float(np.mean(((y - mean - u @ (shrink * inner)) / np.maximum(1 - leverage, 1e-6)) ** 2))
        if error < best:
            best, weights = error, singular / (singular**2 + penalty) * inner
    return np.asarray(mean + (at - center) @ (vt.T @ weights), float)


def _chance(x: _Floats, seen: _Bools, at: _Floats, penalty: float = 1.0) -> _Floats:
    """Logistic regression of `seen` with a ridge penalty, by Newton's method; chances at `at`."""
    if seen.all():
        return np.ones(len(at))
    design = np.column_stack([np.ones(len(x)), x])
    ridge = penalty * np.eye(design.shape[1])
    ridge[0, 0] = 1e-6
    beta = np.zeros(design.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        step = np.linalg.solve(
            (design * (p * (1 - p))[:, None]).T @ design + ridge, design.T @ (seen - p) - ridge @ beta
        )
        beta += step
        if np.abs(step).max() < 1e-8:
            break
    fitted = np.column_stack([np.ones(len(at)), at]) @ beta
    return np.asarray(1 / (1 + np.exp(-np.clip(fitted, -30, 30))), float)
