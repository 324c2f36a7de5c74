"""The cluster bootstrap of every estimate at once: weights as a matrix, in blocks, times sums per cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratekit.errors import InputError
from ratekit.estimators import ESTIMATORS, Bools, Floats, Ints, gate

BLOCK_BYTES = 4 << 20  # of weights held at once: they stay in the cache, and memory does not grow with the draws
POISSON_FROM = 1000  # clusters: from here on Poisson weights stand in for multinomial ones

# Poisson(1) from a random byte: of 256 values 95, 92, 49, 15, 4, 1 give 0 to 5 copies; mean and variance are exactly 1.
_COPIES_FROM = np.cumsum([95, 92, 49, 15, 4]).astype(np.uint8)


def bootstrap(
    rewards: ArrayLike,
    treated: ArrayLike,
    clusters: ArrayLike | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> dict[tuple[str, str], Floats]:
    """Cluster-bootstrap draws of every estimate at once: {(estimator, estimand): (draws,) float64}.

    >>> rng = np.random.default_rng(0)
    >>> r, w = rng.normal(size=(200, 3)), np.arange(200) % 2 == 0
    >>> draws = bootstrap(r, w, draws=2000)
    >>> sorted(draws)[0], draws["rate", "ate"].shape
    (('naive', 'ate'), (2000,))

    rewards (n, depth+1), NaN = not scored; treated (n,); clusters (n,) codes, each row its own by default.
    Each draw takes whole clusters with replacement and computes the estimates anew, rho of `rate_extrapolated`
    included, from weighted sums per class: weights (draws, G) times cluster sums (G, columns), block by block. From
    1,000 clusters on the weights are Poisson(1) rather than multinomial, which is the same to first order and several
    times faster (Chamandy et al. 2012, "Estimating uncertainty for massive data streams"). A draw without rows of a
    class is NaN. With fewer than 2 clusters every draw is NaN: there is nothing to resample.
    """
    r, w = np.asarray(rewards, float), np.asarray(treated, bool)
    if draws < 1:
        raise InputError(f"draws={draws}: at least one was expected")
    codes = np.arange(len(w)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    n_clusters = int(codes.max(initial=-1)) + 1
    plans = list(_plans(r, w, codes, n_clusters))
    if not plans:
        return {}
    sums = np.hstack([p.sums for p in plans]).astype(np.float32)
    totals = _weighted_sums(sums, draws, np.random.Generator(np.random.SFC64(seed)))
    found: dict[tuple[str, str], Floats] = {}
    start = 0
    for plan in plans:
        stop = start + plan.sums.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.update(plan.estimates(totals[:, start:stop]))
        start = stop
    if n_clusters < 2:
        found = {key: np.full(draws, np.nan) for key in found}
    return found


@dataclass
class _Plan:
    """Sums per cluster over rows with one set of passes scored, and the estimators that read them.

    `sums` (G, 2 (1 + K)): for treated, then untreated rows their number and their centred, scaled rewards.
    """

    sums: Floats
    names: list[str]
    passes: list[int]
    center: Floats  # (K,)
    scale: float
    gates: dict[bool, float]

    def estimates(self, totals: Floats) -> Iterator[tuple[tuple[str, str], Floats]]:
        """The estimates of each draw from its sums, (draws, 2 (1 + K))."""
        k = 1 + len(self.passes)
        n, by_class = {}, {}
        for side, part in ((True, totals[:, :k]), (False, totals[:, k:])):
            n[side] = part[:, 0]
            means = np.full((len(part), max(self.passes) + 1), np.nan)
            means[:, self.passes] = part[:, 1:] / part[:, :1] * self.scale + self.center
            by_class[side] = means
        for name in self.names:
            estimator = ESTIMATORS[name]
            att = estimator.of_means(by_class[True], self.gates[True])
            atu = -estimator.of_means(by_class[False], self.gates[False])
            if estimator.estimands == ("ate",):
                yield (name, "ate"), att + atu
                continue
            yield (name, "ate"), (n[True] * att + n[False] * atu) / (n[True] + n[False])
            yield (name, "att"), att
            yield (name, "atu"), atu


def _plans(r: Floats, w: Bools, codes: Ints, n_clusters: int) -> Iterator[_Plan]:
    """One plan for each distinct set of complete rows; estimators that use the same rows share their sums."""
    by_rows: dict[bytes, tuple[Bools, list[str]]] = {}
    for name, estimator in ESTIMATORS.items():
        if max(estimator.passes) >= r.shape[1]:
            continue
        complete = np.asarray(np.isfinite(r[:, estimator.passes]).all(axis=1))
        if complete.any():
            by_rows.setdefault(complete.tobytes(), (complete, []))[1].append(name)
    for complete, names in by_rows.values():
        passes = sorted({k for name in names for k in ESTIMATORS[name].passes})
        rows, side, code = r[complete][:, passes], w[complete], codes[complete]
        # Centred and scaled, float32 sums keep their precision whatever the rewards' level.
        center = rows.mean(axis=0) if np.abs(rows).max(initial=0) < 1e150 else np.zeros(len(passes))
        spread = rows - center
        scale = float(np.abs(spread).max(initial=0)) or 1.0
        columns = []
        for treated in (True, False):
            weight = (side == treated).astype(float)
            columns.append(np.bincount(code, weight, n_clusters))
            columns += [np.bincount(code, weight * (spread[:, k] / scale), n_clusters) for k in range(len(passes))]
        gates = {
            treated: gate(r[complete & (w == treated)], codes[complete & (w == treated)])
            if "rate_extrapolated" in names
            else np.nan
            for treated in (True, False)
        }
        yield _Plan(np.stack(columns, axis=1), names, passes, center, scale, gates)


def _weighted_sums(sums: np.ndarray, draws: int, rng: np.random.Generator) -> Floats:
    """Bootstrap weights (draws, G) times `sums` (G, C), in blocks of at most `BLOCK_BYTES` of weights."""
    n_clusters = len(sums)
    draw = _poisson_weights if n_clusters >= POISSON_FROM else _multinomial_weights
    block = min(draws, max(1, BLOCK_BYTES // (4 * n_clusters)))
    weights = np.empty((block, n_clusters), np.float32)
    totals = np.empty((draws, sums.shape[1]))
    for start in range(0, draws, block):
        b = min(block, draws - start)
        draw(weights[:b], rng)
        totals[start : start + b] = weights[:b] @ sums
    return totals


def _multinomial_weights(out: np.ndarray, rng: np.random.Generator) -> None:
    """How often each cluster is drawn in G draws with replacement, into `out` (b, G)."""
    b, n_clusters = out.shape
    drawn = rng.integers(0, n_clusters, (b, n_clusters)) + n_clusters * np.arange(b)[:, None]
    out[:] = np.bincount(drawn.ravel(), minlength=out.size).reshape(out.shape)


def _poisson_weights(out: np.ndarray, rng: np.random.Generator) -> None:
    """Poisson(1) copies of each cluster, into `out` (b, G)."""
    random = rng.integers(0, 2**64, -(-out.size // 8), np.uint64).view(np.uint8)[: out.size]
    copies, reached = np.zeros(out.size, np.uint8), np.empty(out.size, bool)
    for threshold in _COPIES_FROM:
        np.greater_equal(random, threshold, out=reached)
        copies += reached.view(np.uint8)
    out[:] = copies.reshape(out.shape)


def percentile_interval(draws: Floats, n_clusters: int, level: float = 0.95) -> tuple[float, float]:
    """The expanded percentile interval of bootstrap draws.

    >>> low, high = percentile_interval(np.linspace(-1, 1, 2001), n_clusters=30)
    >>> round(low, 3), round(high, 3)
    (-0.962, 0.962)

    Percentiles are taken further out so that the interval has the width of Student's t with G-1 degrees of freedom
    where the draws are normal; plain percentiles are too narrow by sqrt((G-1)/G) and by z against t (Hesterberg 2015,
    The American Statistician 69:371, section 4.4). NaN where a draw is NaN.
    """
    if n_clusters < 2 or np.isnan(draws).any():
        return float("nan"), float("nan")
    t = special.stdtrit(n_clusters - 1, 0.5 + level / 2)
    tail = special.ndtr(-np.sqrt(n_clusters / (n_clusters - 1)) * t)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
