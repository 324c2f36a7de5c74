"""Tests and intervals without a formula: sign flips, Benjamini-Hochberg, confidence sequences; options of `estimate`.

Arrays in, numbers out. The analytic standard errors are in `estimators`; these are the ways to check them, to test
without them, and to look at a result more than once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ratekit.errors import InputError, require_whole
from ratekit.estimators import (
    ESTIMATORS,
    Bools,
    Effect,
    Effects,
    Floats,
    Ints,
    LeftOut,
    Sizes,
    cluster_sums,
    refuse_huge,
    refuse_level,
    row_values,
    rows_used,
    with_interval,
)

if TYPE_CHECKING:
    import pandas as pd

UNCERTAINTIES = {
    "analytic": "cluster-robust SE, Student t",
    "bootstrap": "cluster bootstrap: its SE, percentile interval and p-value; under 12 clusters the wild bootstrap-t",
    "sign-flip": "p-value from flipping the sign of whole clusters; SE and interval stay analytic",
}


def refuse_draws(draws: int, seed: int) -> None:
    """Raise InputError for a number of draws, or a seed, that is none."""
    require_whole("draws", draws, 1)
    require_whole("seed", seed)


# --- the cluster bootstrap: weights as a matrix, in blocks, times sums per cluster -------------------------

SD = ("reward_sd", "")  # the key of the draws of the SD
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
    """Cluster-bootstrap draws of every estimate at once: {(estimator, estimand): (draws,) float64}, and of the SD.

    rewards (n, depth+1), NaN = not scored; treated (n,); clusters (n,) codes, each row its own by default.
    Each draw takes whole clusters with replacement and computes the estimates anew, rho of `rate_extrapolated`
    included, from weighted sums per class: weights (draws, G) times cluster sums (G, columns), block by block. From
    1,000 clusters on the weights are Poisson(1) rather than multinomial, which is the same to first order and several
    times faster (Chamandy et al. 2012, "Estimating uncertainty for massive data streams"). Under the key `SD` stand
    the pooled within-class SDs of the originals' rewards. A draw without rows of a class is NaN. With fewer than 2
    clusters every draw is NaN: there is nothing to resample.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> r, w = rng.normal(size=(200, 3)), np.arange(200) % 2 == 0
    >>> draws = bootstrap(r, w, draws=2000)
    >>> sorted(draws)[0], draws["rate", "ate"].shape, draws[SD].shape
    (('naive', 'ate'), (2000,), (2000,))
    """
    r, w = np.asarray(rewards, float), np.asarray(treated, bool)
    refuse_huge(r)
    refuse_draws(draws, seed)
    codes = np.arange(len(w)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    n_clusters = int(codes.max(initial=-1)) + 1
    plans: list[_Plan | _SdPlan] = [*_plans(r, w, codes, n_clusters), *_sd_plan(r, w, codes, n_clusters)]
    if not plans:
        return {}
    sums = np.hstack([p.sums for p in plans]).astype(np.float32)
    totals = _weighted_sums(sums, draws, np.random.Generator(np.random.SFC64(seed)))
    found: dict[tuple[str, str], Floats] = {SD: np.full(draws, np.nan)}
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
    reads: dict[str, tuple[int, ...]]  # the passes of each estimator
    passes: list[int]
    center: Floats  # (K,)
    scale: float
    drop_ses: dict[tuple[str, bool], float]

    def estimates(self, totals: Floats) -> Iterator[tuple[tuple[str, str], Floats]]:
        """The estimates of each draw from its sums, (draws, 2 (1 + K))."""
        k = 1 + len(self.passes)
        n, by_class = {}, {}
        for side, part in ((True, totals[:, :k]), (False, totals[:, k:])):
            n[side] = part[:, 0]
            means = np.full((len(part), max(self.passes) + 1), np.nan)
            means[:, self.passes] = part[:, 1:] / part[:, :1] * self.scale + self.center
            by_class[side] = means
        for name, read in self.reads.items():
            estimator, last = ESTIMATORS[name], max(read) + 1
            att = estimator.of_means(by_class[True][:, :last], self.drop_ses[name, True])
            atu = -estimator.of_means(by_class[False][:, :last], self.drop_ses[name, False])
            if estimator.classes:
                yield (name, "ate"), att + atu
                continue
            yield (name, "ate"), (n[True] * att + n[False] * atu) / (n[True] + n[False])
            yield (name, "att"), att
            yield (name, "atu"), atu


def _plans(r: Floats, w: Bools, codes: Ints, n_clusters: int) -> Iterator[_Plan]:
    """One plan for each distinct set of complete rows; estimators that use the same rows share their sums."""
    by_rows: dict[bytes, tuple[Bools, dict[str, tuple[int, ...]]]] = {}
    for name, estimator in ESTIMATORS.items():
        read, complete = rows_used(estimator, r)
        if complete.any():
            by_rows.setdefault(complete.tobytes(), (complete, {}))[1][name] = read
    for complete, reads in by_rows.values():
        passes = sorted({k for read in reads.values() for k in read})
        rows, side, code = r[complete][:, passes], w[complete], codes[complete]
        # Centred and scaled, float32 sums keep their precision whatever the rewards' level.
        center = rows.mean(axis=0)
        spread = rows - center
        scale = float(np.abs(spread).max(initial=0)) or 1.0
        columns, drop_ses = [], {}
        for treated in (True, False):
            weight = (side == treated).astype(float)
            columns.append(np.bincount(code, weight, n_clusters))
            columns += [np.bincount(code, weight * (spread[:, k] / scale), n_clusters) for k in range(len(passes))]
            of = complete & (w == treated)
            for name, read in reads.items():
                drop_ses[name, treated] = (
                    ESTIMATORS[name].drop_se(r[of][:, : max(read) + 1], codes[of]) if of.any() else np.nan
                )
        yield _Plan(np.stack(columns, axis=1), reads, passes, center, scale, drop_ses)


@dataclass
class _SdPlan:
    """`sums` (G, 6): for treated, then untreated rows their number, rewards and squares, centred by class, scaled."""

    sums: Floats
    scale: float

    def estimates(self, totals: Floats) -> Iterator[tuple[tuple[str, str], Floats]]:
        """The pooled SD of each draw."""
        squares, df = np.zeros(len(totals)), np.zeros(len(totals))
        for n, total, square in (totals[:, :3].T, totals[:, 3:].T):
            squares = squares + np.where(n > 0, square - total**2 / np.maximum(n, 1), 0.0)
            df = df + np.maximum(n - 1, 0)
        yield SD, self.scale * np.sqrt(np.maximum(squares, 0) / np.where(df > 0, df, np.nan))


def _sd_plan(r: Floats, w: Bools, codes: Ints, n_clusters: int) -> Iterator[_SdPlan]:
    scored = np.isfinite(r[:, 0]) if r.shape[1] else np.zeros(len(w), bool)
    if not scored.any():
        return
    columns, parts = [], {side: scored & (w == side) for side in (True, False)}
    centred = {side: r[rows, 0] - r[rows, 0].mean() if rows.any() else r[rows, 0] for side, rows in parts.items()}
    scale = max(float(np.abs(x).max(initial=0)) for x in centred.values()) or 1.0
    for side, rows in parts.items():
        x = centred[side] / scale
        columns += [cluster_sums(v, codes[rows], n_clusters) for v in (np.ones(len(x)), x, x**2)]
    yield _SdPlan(np.stack(columns, axis=1), scale)


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


def percentile_interval(
    draws: Floats, n_clusters: int, level: float = 0.95, df: float | None = None, expansion: float = 1.0
) -> tuple[float, float, float]:
    """The expanded percentile interval of bootstrap draws, and the p-value against 0 that agrees with it.

    Percentiles are taken further out so that the interval has the width of Student's t with `df` (default G-1) degrees
    of freedom where the draws are normal; plain percentiles are too narrow by sqrt((G-1)/G) and by z against t
    (Hesterberg 2015, The American Statistician 69:371, section 4.4), and for unequal clusters by `expansion`, the ratio
    of the CR2 standard error to the draws' SD, where that is larger. The p-value is the level at which the interval's
    end meets 0. Void draws (NaN) are left out; NaN where fewer than half are left, or with fewer than 2 clusters.

    Examples
    --------
    >>> low, high, p = percentile_interval(np.linspace(-1, 1, 2001), n_clusters=30)
    >>> round(low, 3), round(high, 3), round(p, 3)
    (-0.962, 0.962, 1.0)
    """
    refuse_level(level)
    kept = np.sort(draws[np.isfinite(draws)])
    if n_clusters < 2 or len(kept) < max(2.0, len(draws) / 2):
        return float("nan"), float("nan"), float("nan")
    df = n_clusters - 1.0 if df is None else df
    factor = max(np.sqrt(n_clusters / (n_clusters - 1)), expansion)
    tail = expanded_tail(n_clusters, df, expansion, level)
    low, high = np.quantile(kept, [tail, 1 - tail])
    below = float(np.interp(0.0, kept, np.linspace(0, 1, len(kept))))
    reached = max(min(below, 1 - below), 1 / (len(kept) + 1))  # no draw beyond 0 is not a chance of 0
    return float(low), float(high), min(1.0, float(2 * special.stdtr(df, special.ndtri(reached) / factor)))


LEAST_BEYOND = 5  # draws beyond each end of an interval


def expanded_tail(n_clusters: int, df: float, expansion: float, level: float) -> float:
    """The share of draws that `percentile_interval` leaves out on each side.

    >>> round(expanded_tail(30, 29, 1.0, 0.95), 4)
    0.0188
    """
    factor = max(np.sqrt(n_clusters / (n_clusters - 1)), expansion)
    return float(special.ndtr(-factor * special.stdtrit(df, 0.5 + level / 2)))


# --- few clusters: the wild cluster bootstrap-t -----------------------------------------------------------

WILD_BELOW = 12  # clusters
_WEBB = np.sqrt([1.5, 1.0, 0.5])


def wild_interval(
    values: ArrayLike, clusters: ArrayLike, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Interval of the mean of `values` (n,) and p-value against 0 by the wild cluster bootstrap-t, for few clusters.

    Whole clusters' deviations from the mean that is tested are multiplied by one of six weights (Webb 2023, Canadian
    Journal of Economics 56:839) and the t statistic is computed anew with CR2 each time; the interval holds the means
    that the test does not reject (Cameron, Gelbach and Miller 2008, Review of Economics and Statistics 90:414). All
    6^G patterns are taken where they are at most `draws`. An end is infinite where no mean is rejected at this level,
    as with two clusters at 95 %: there are too few patterns. NaN with fewer than 2 clusters.

    Examples
    --------
    >>> low, high, p = wild_interval([1.0, 2.0, 1.5, 1.2, 0.8, 1.4], clusters=range(6))
    >>> low > 0, p < 0.05
    (True, True)
    """
    refuse_level(level)
    refuse_draws(draws, seed)
    v = np.asarray(values, float)
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = Sizes(np.bincount(codes).astype(float))
    if sizes.n_clusters < 2:
        return float("nan"), float("nan"), float("nan")
    center, n = float(v.mean()), sizes.n
    sums = cluster_sums(v - center, codes)  # about the mean: what is tested is its distance t from there
    se = float(np.linalg.norm(sizes.scores(sums)))
    if not se > 0:
        return float("nan"), float("nan"), float("nan")
    weights = _webb_weights(sizes.n_clusters, draws, seed)
    # Of the mean `center + t`: cluster sums are w_g (S_g - t n_g), so their mean and deviations are linear in t.
    at, slope = weights * sums, weights * sizes.sizes
    mean_at, mean_slope = at.sum(axis=1) / n, slope.sum(axis=1) / n
    dev_at = sizes.scores(at - sizes.sizes * mean_at[:, None])
    dev_slope = sizes.scores(slope - sizes.sizes * mean_slope[:, None])
    squares = [(dev_at**2).sum(axis=1), (dev_at * dev_slope).sum(axis=1), (dev_slope**2).sum(axis=1)]

    def p_value(t: float) -> float:
        variance = np.maximum(squares[0] - 2 * t * squares[1] + t**2 * squares[2], 0.0)
        statistic = np.abs(mean_at - t * mean_slope)
        return float(np.mean(statistic * (1 + 1e-9) >= abs(t) / se * np.sqrt(variance)))

    ends = []
    for side in (-1.0, 1.0):
        outer = se
        while p_value(side * outer) > 1 - level and outer < 1e6 * se:
            outer *= 2
        if outer >= 1e6 * se:
            ends.append(side * np.inf)
            continue
        inner = 0.0
        for _ in range(40):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if p_value(side * middle) > 1 - level else (inner, middle)
        ends.append(center + side * outer)
    return float(ends[0]), float(ends[1]), p_value(-center)


def _webb_weights(n_clusters: int, draws: int, seed: int) -> Floats:
    weights = np.concatenate([-_WEBB, _WEBB])
    if 6**n_clusters <= draws:
        patterns = np.arange(6**n_clusters)[:, None] // 6 ** np.arange(n_clusters) % 6
    else:
        patterns = np.random.default_rng(seed).integers(0, 6, (draws, n_clusters))
    return np.asarray(weights[patterns], float)


# --- the sign-flip permutation test ----------------------------------------------------------------------


def sign_flip(values: ArrayLike, clusters: ArrayLike | None = None, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of mean 0: how often do clusters with random signs give as large a mean?

    values (n,) row differences d_i; clusters (n,) codes, each row its own by default. If d and -d are equally
    likely, cluster by cluster, the test is exact in any sample size, without normality and without an SE (Fisher
    1935; for clusters Canay, Romano and Shaikh 2017, Econometrica 85:1013). Where there are at most `draws` sign
    patterns all are taken; else `draws` random ones and the data's own. NaN with fewer than 2 clusters, and where every
    value is 0.

    Examples
    --------
    >>> sign_flip([1.0, 2.0, 0.5, 1.5])  # all 16 sign patterns: the data's own and its mirror reach 5
    0.125
    """
    v = np.asarray(values, float)
    codes = np.arange(len(v)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    refuse_draws(draws, seed)
    scale = float(np.abs(v).max(initial=0))
    if not scale > 0 or not np.isfinite(scale):
        return float("nan")
    sums = np.bincount(codes, v / scale)
    n_clusters = len(sums)
    if n_clusters < 2:
        return float("nan")
    observed = abs(sums.sum()) - 1e-6 * np.abs(sums).sum()  # sums that float32 rewards or another order round are ties
    if _all_patterns(n_clusters, draws):
        patterns = (np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= observed))
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * n_clusters))
    reached = 0
    for start in range(0, draws, block):
        b = min(block, draws - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes(-(-b * n_clusters // 8)), np.uint8), count=b * n_clusters)
        flipped = bits.reshape(b, n_clusters).astype(float) @ sums
        reached += int((np.abs(2 * flipped - sums.sum()) >= observed).sum())
    return (1 + reached) / (1 + draws)


def smallest_sign_flip(n_clusters: int, draws: int = 10_000) -> float:
    """The smallest p-value that `sign_flip` can give: 2 of 2^G patterns, or one of the draws.

    Examples
    --------
    >>> smallest_sign_flip(5)
    0.0625
    """
    return 2 / 2**n_clusters if _all_patterns(n_clusters, draws) else 1 / (1 + draws)


def _all_patterns(n_clusters: int, draws: int) -> bool:
    """Are all patterns of signs tried, and none drawn?"""
    return n_clusters < 31 and 2**n_clusters <= draws


# --- both, for the effects table -------------------------------------------------------------------------


def resampled(
    found: Effects,
    rewards: Floats,
    treated: Bools,
    clusters: Ints,
    kind: str,
    draws: int,
    seed: int,
    level: float,
) -> Effects:
    """`estimators.effects`' results with SE, interval and p-value by resampling; kind is in `UNCERTAINTIES`.

    With fewer than 12 clusters a bootstrap of clusters has too few of them to draw from: the interval and the p-value
    are those of the wild cluster bootstrap-t, and the SE stays analytic; of `naive`, which is no mean, all stay. With
    few degrees of freedom (one cluster holds much, or a class is rare) the interval reaches beyond all draws: it, the
    SE and the p-value stay analytic.
    """
    drawn = bootstrap(rewards, treated, clusters, draws, seed) if kind == "bootstrap" else {}
    effects, left_out = [], list(found.left_out)

    def leave_out(e: Effect, why: str) -> None:
        left_out.append(LeftOut(e.estimator, e.estimand, why))

    for e in found:
        if np.isnan(e.se):
            effects.append(e)  # what has no analytic SE (one cluster, constant rewards) gets none by resampling either
            continue
        values, codes = row_values(rewards, treated, clusters, e.estimator, e.estimand)
        if kind == "sign-flip":
            if ESTIMATORS[e.estimator].classes:
                effects.append(dataclasses.replace(e, p_value=float("nan")))
                leave_out(e, "rows are not pairs, so no sign-flip test")
                continue
            effects.append(dataclasses.replace(e, p_value=sign_flip(values, codes, draws, seed)))
            least = smallest_sign_flip(e.n_clusters, draws)
            if least > 1 - level:
                leave_out(e, f"no sign-flip p-value of {e.n_clusters} clusters can be under {least:.2g}")
        elif e.n_clusters < WILD_BELOW and ESTIMATORS[e.estimator].classes:
            effects.append(e)
            leave_out(e, f"{e.n_clusters} clusters are few, and a difference of two classes has no wild bootstrap, so "
                         "the interval stays analytic")  # fmt: skip
        elif e.n_clusters < WILD_BELOW:
            low, high, p = wild_interval(values, codes, draws, seed, level)
            if not (np.isfinite(low) and np.isfinite(high)):
                low = high = float("nan")
                leave_out(e, f"{e.n_clusters} clusters are too few for a bootstrap interval at {100 * level:.6g} %")
            low_sd, high_sd = with_interval(e, low, high, found.reward_sd)
            effects.append(
                dataclasses.replace(e, ci_low=low, ci_high=high, p_value=p, ci_low_sd=low_sd, ci_high_sd=high_sd)
            )
        else:
            told = _bootstrapped(e, drawn, level)
            if told is None:
                why = f"{draws} bootstrap draws do not reach as far as {e.df:.1f} degrees of freedom ask for"
                leave_out(e, f"{why}, so the interval stays analytic")
            effects.append(told or e)
            void = int(np.isnan(drawn[e.estimator, e.estimand]).sum())
            if void:
                leave_out(e, f"{void} of {draws} bootstrap draws hold no row of a class and do not count")
    return dataclasses.replace(found, found=tuple(effects), left_out=tuple(left_out))


def _bootstrapped(e: Effect, drawn: dict[tuple[str, str], Floats], level: float) -> Effect | None:
    """SE, interval and p-value of one effect from its draws, in the reward's units and in SDs; None for too few draws.

    Under `LEAST_BEYOND` draws beyond an end the largest of them stand in for it, and the interval is too narrow.
    """
    of, said = drawn[e.estimator, e.estimand], dict[str, Any]()
    per_sd = of / drawn[SD]
    ses = [_spread(values) for values in (of, per_sd)]
    # Expanded alike, both intervals leave 0 out or neither does: a draw in SDs has the draw's sign.
    expansion = max([a / b for a, b in zip((e.se, e.se_sd), ses, strict=True) if a > 0 and b > 0], default=1.0)
    if expanded_tail(e.n_clusters, e.df, expansion, level) * len(of) < LEAST_BEYOND:
        return None
    for values, se, end in ((of, ses[0], ""), (per_sd, ses[1], "_sd")):
        low, high, p = percentile_interval(values, e.n_clusters, level, e.df, expansion)
        said |= {f"se{end}": se, f"ci_low{end}": low, f"ci_high{end}": high}
        said |= {} if end else {"p_value": p}
    return dataclasses.replace(e, **said)


def _spread(draws: Floats) -> float:
    """The SD of draws; NaN where half of them or more are void."""
    kept = draws[np.isfinite(draws)]
    return float(kept.std(ddof=1)) if len(kept) > max(1.0, len(draws) / 2) else float("nan")


# --- many tests, many looks ------------------------------------------------------------------------------


def adjust(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_adjusted` beside `p_value`: p-values that control the false discovery rate over all its rows.

    Benjamini and Hochberg 1995 (JRSS B 57:289), by `scipy.stats.false_discovery_control`. The family is the rows given:
    choose them first (one estimator, one estimand), for every row counts. Rows without a p-value have none adjusted.

    Examples
    --------
    >>> import pandas as pd
    >>> adjust(pd.DataFrame({"p_value": [0.01, 0.04, float("nan")]}))["p_adjusted"].tolist()
    [0.02, 0.04, nan]
    """
    from scipy import stats

    if "p_value" not in table:
        raise InputError("adjust: the table has no column 'p_value'; give one that `estimate` or `contrast` made")
    out = table.drop(columns="p_adjusted", errors="ignore")
    p = out["p_value"].to_numpy(float)
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    out.insert(list(out.columns).index("p_value") + 1, "p_adjusted", adjusted)
    return out


LOOK_FROM = 50  # clusters: fewer are too few for the large-sample boundary where values are skewed
TUNED_FOR = 500  # clusters


def confidence_sequence(
    values: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95, tuned_for: int = TUNED_FOR
) -> tuple[Floats, Floats, Floats]:
    """An interval for the mean after every cluster that holds at all of them at once: (mean, low, high), each (G,).

    However often one looks, and whatever makes one stop, the chance that some interval ever missed the mean is about
    1 - level, while stopping at the first 95 % interval without 0 errs far more often. Values are taken in the order
    given, clusters by their first row. `tuned_for` is the number of clusters at which the interval is narrowest: it
    must not depend on how many there are when one looks, for another number is another boundary. The asymptotic
    confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024, Annals of Statistics 52:2613, theorem
    2.2); NaN for the first 49 clusters, and where nothing has varied yet beyond rounding.

    Examples
    --------
    >>> mean, low, high = confidence_sequence(np.random.default_rng(0).normal(0.5, 1.0, 400))
    >>> int(np.argmax(low > 0))  # stop here: the effect is told from 0, at the level that was set
    49
    """
    refuse_level(level)
    v = np.asarray(values, float)
    codes = np.arange(len(v)) if clusters is None else np.asarray(clusters)
    if len(v) != len(codes):
        raise InputError(f"{len(v)} values and {len(codes)} clusters; one each was expected")
    require_whole("tuned_for", tuned_for, 1)
    if len(v) == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    refuse_huge(v, "values")
    center, size = float(v[0]), float(np.abs(v).max())
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    place = order[inverse]
    sums, sizes = cluster_sums(v - center, place), np.bincount(place).astype(float)
    t = np.arange(1, len(sums) + 1, dtype=float)
    total, rows = np.cumsum(sums), np.cumsum(sizes)
    mean = total / rows
    # The variance of the ratio sum/rows so far: that of (sum_g - mean rows_g), expanded into running sums.
    about = np.cumsum(sizes**2) * mean**2
    squares = np.cumsum(sums**2) - 2 * mean * np.cumsum(sums * sizes) + about
    rounding = 1e-12 * (np.cumsum(sums**2) + about) + (1e-13 * size) ** 2 * np.cumsum(sizes**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(np.where(squares > rounding, squares, np.nan) / (t - 1)) / (rows / t)
    alpha = 1 - level
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / float(tuned_for)
    half = sd * np.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / alpha))
    half[t < LOOK_FROM] = np.nan
    return center + mean, center + mean - half, center + mean + half
