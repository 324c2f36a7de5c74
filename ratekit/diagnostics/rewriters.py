"""Several rewriters of the same rows: the effect for rewriters like these, and how far they disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special, stats

from ratekit.errors import InputError, require_known
from ratekit.estimators import (
    ESTIMATORS,
    Floats,
    Ints,
    RewardScale,
    Rows,
    Tail,
    correlation,
    ends_in_sds,
    refuse_level,
    rounding_of,
    rows_about,
    rows_used,
    wald,
)
from ratekit.groups import Group, by_attribute, rewards_of
from ratekit.resampling import adjust
from ratekit.schema import ATTRIBUTE, REWRITER
from ratekit.sources.loading import rows_for
from ratekit.tables import number_with_interval

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-12  # relative: rewriters that differ by less are alike


def across_rewriters(
    ds: Any,
    by: str = REWRITER,
    *,
    estimator: str = "rate",
    rewards: Sequence[str] | None = None,
    unit: str = "sd",
    level: float = 0.95,
) -> pd.DataFrame:
    """The effect with the rewriter as a random effect, and how far the rewriters disagree.

    Parameters
    ----------
    ds : Dataset or DataFrame
        Scored rows of two or more rewriters, as `rk.audit(..., rewriter=[A, B])` makes them.
    by : str
        The column that says who rewrote a row.
    estimator : str
        A name in `rk.ESTIMATORS`, the same for every rewriter.
    rewards : sequence of str, optional
        Names of reward models; by default all.
    unit : str
        "sd": SDs of the originals' rewards, whose own uncertainty counts; "reward": the reward's units.
    level : float
        Of the intervals.

    Returns
    -------
    DataFrame
        One row for each attribute, reward model and estimand: attribute, reward_model, estimator, estimand,
        n_rewriters, estimate, se, ci_low, ci_high, p_value, p_adjusted (Benjamini and Hochberg over the table); tau,
        tau_low, tau_high, the SD of the effect from rewriter to rewriter with its interval; q, q_p_value, a test that
        they all find the same effect; lowest, highest, the rewriters' own estimates; n, n_clusters.

    Raises
    ------
    InputError
        There is no such column, or an attribute has one rewriter only.

    Notes
    -----
    Rewriter j finds t_j = mu + u_j + e_j, u_j of SD tau. The rewriters share prompts and originals, so the errors e_j
    are correlated: their covariance V is that of the cluster sums, CR2, of all rewriters at once. `estimate` is the
    mean of the t_j, each rewriter alike. With s^2 their variance (divisor J - 1), v the mean of V's diagonal and c that
    of its other cells (at least 0), its variance is a + c, with a = max(s^2, v - c)/J. The errors that are common
    to all rewriters are in c and do not shrink with J; what differs between rewriters is in a. Hartung and Knapp
    (2001, Statistics in Medicine 20:3875) is the case c = 0, and a is never less than sampling alone would make it.
    The interval is estimate -+ sqrt(T_a^2 a + T_c^2 c), with the t quantiles T of J - 1 degrees of freedom and of those
    of the clusters: at least `level` whatever a and c are (Banerjee 1960, Sankhya 22:359). The p-value inverts it.
    With two rewriters T_a is 12.7: two say little of others, and the interval says so. In SDs that is the interval with
    the SD as known, whose p-value is shown, and the error of the SD is added to each end with its tail, as to every
    effect in SDs (`estimators.ends_in_sds`); as there, rewards without a fourth moment (Student's t(3)) are missed more
    often than in 5 %. The effect of each rewriter by itself is in
    `rk.estimate(ds, by="rewriter")`.

    tau is by Paule and Mandel (1982, J. Res. NBS 87:377), tau_low and tau_high by the Q profile (Viechtbauer 2007,
    Statistics in Medicine 26:37), both with the full V: Q(t) = g' (D V D' + t I)^-1 g, g = D t the J - 1 orthonormal
    contrasts. `q` is the F of Hotelling's T^2 on g. That the rewriters are not shown to differ is not that they agree:
    tau_high says by how much they may.

    Examples
    --------
    >>> import ratekit as rk
    >>> found = rk.audit("reviews", "vader", "sentiment", rewriter=["rules", "replay"], progress=False)
    >>> rk.across_rewriters(found.dataset)[["estimand", "n_rewriters"]].values.tolist()
    [['ate', 2], ['att', 2], ['atu', 2]]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    refuse_level(level)
    require_known("estimator", estimator, ESTIMATORS)
    require_known("unit", unit, ("sd", "reward"))
    matrices = rewards_of(ds, rewards)
    found = by_attribute(ds, by)
    rows = []
    for name, matrix in matrices:
        for attribute, parts in found.items():
            if len(parts) < 2:
                raise InputError(f"across_rewriters: {attribute!r} has one {by} only; two or more are needed")
            each = [_parts(matrix[g.rows], g, estimator, unit) for g in parts]
            for estimand in ESTIMATORS[estimator].estimands:
                of = [part[estimand] for part in each if estimand in part]
                if len(of) < 2:
                    continue
                rows.append({
                    ATTRIBUTE: attribute, "reward_model": name, "estimator": estimator,
                    "estimand": estimand, **_together(of, level), "n": sum(len(part.clusters) for part in of),
                    "n_clusters": len(np.unique(np.concatenate([part.clusters for part in of]))),
                })  # fmt: skip
    if not rows:
        raise InputError(f"across_rewriters: under two rewriters have the rewards that {estimator} needs")
    return adjust(pd.DataFrame(rows))


def disagreement(ds: Any) -> list[str]:
    """A line for each attribute and reward model: the effect over rewriters, and the SD between them.

    Examples
    --------
    >>> import ratekit as rk
    >>> found = rk.audit("reviews", "vader", "sentiment", rewriter=["rules", "replay"], progress=False)
    >>> disagreement(found.dataset)
    ['sentiment, vader, 2 rewriters: +1.47 [-0.81, +3.74] SD; SD between them 0.24 [0.08, 8.03]']
    """
    try:
        table = across_rewriters(ds)
    except InputError as e:
        return [str(e)]
    first = table.drop_duplicates([ATTRIBUTE, "reward_model"])
    return [
        f"{row[ATTRIBUTE]}, {row['reward_model']}, {row['n_rewriters']} rewriters: "
        f"{number_with_interval(row['estimate'], row['ci_low'], row['ci_high'])} SD; SD between them "
        f"{number_with_interval(row['tau'], row['tau_low'], row['tau_high'], sign='')}"
        for row in first.to_dict("records")
    ]


class _Part(NamedTuple):
    """An estimand of one rewriter, with its scores by cluster and, in SDs, those of the SD's logarithm."""

    value: float
    scores: Floats
    df: float
    rounding: float  # of the value
    clusters: Ints  # of each row
    of_sd: Floats | None
    df_sd: float


def _parts(r: Floats, group: Group, estimator: str, unit: str) -> dict[str, _Part]:
    """Each estimand of one rewriter."""
    how, n_codes = ESTIMATORS[estimator], int(group.clusters.max()) + 1
    passes, used = rows_used(how, r)
    if not used.any():
        return {}
    scale = RewardScale(r[:, 0], group.treated, group.clusters, n_codes) if unit == "sd" else None
    sd = 1.0 if scale is None else scale.sd if scale.sd > 0 else float("nan")
    of_sd, df_sd = (None, math.inf) if scale is None else (scale.scores, scale.df)
    w, codes = group.treated[used], group.clusters[used]
    values = how.values(r[used][:, : max(passes) + 1], w, codes) / sd
    rounding, found = rounding_of(r[used][:, passes]) / sd, {}
    for estimand, part in Rows(w, codes, n_codes).parts(values, rounding, how.classes).items():
        of = codes[rows_about(w, estimand)]
        scores = part.scores if part.se != 0 else np.zeros(n_codes)
        found[estimand] = _Part(part.value, scores, part.df, rounding, of, of_sd, df_sd)
    return found


def _together(parts: Sequence[_Part], level: float) -> dict[str, float]:
    """`among` the rewriters; in SDs their error is added, with its tail, to the interval that the SDs alone leave."""
    values, scores = np.array([part.value for part in parts]), _stacked([part.scores for part in parts])
    of_sds = [part.of_sd for part in parts if part.of_sd is not None]
    df, rounding = min(part.df for part in parts), max(part.rounding for part in parts)
    if not of_sds:
        return among(values, scores @ scores.T, df, level, rounding)
    moved = values[:, None] * _stacked(of_sds)  # what an SD that comes out larger takes from each effect
    df_sd = min(part.df_sd for part in parts)
    plain = among(values, scores @ scores.T, df, level, rounding)
    found = among(values, (scores - moved) @ (scores - moved).T, min(df, df_sd), level, rounding)
    mean, se = plain["estimate"], plain["se"]
    if not (se > 0 and found["se"] > 0):
        return found | {k: math.nan for k in ("se", "ci_low", "ci_high", "p_value")}
    of_sd = moved.mean(axis=0)
    tail = Tail.of(of_sd / mean if mean else of_sd, df_sd)
    together = correlation(float(scores.mean(axis=0) @ of_sd) * (float(np.sign(mean)) or 1.0), se, tail.se * abs(mean))
    low, high = ends_in_sds(mean, plain["ci_high"] - mean, tail, together, (1 - level) / 2)
    return found | {"ci_low": low, "ci_high": high, "p_value": plain["p_value"]}


def _stacked(scores: Sequence[Floats]) -> Floats:
    """Scores by cluster of each, (J, G): a rewriter without rows of the last prompts has shorter ones."""
    out = np.zeros((len(scores), max(map(len, scores))))
    for row, of in zip(out, scores, strict=True):
        row[: len(of)] = of
    return out


def among(
    effects: Floats, covariance: Floats, df: float, level: float = 0.95, rounding: float = 0.0
) -> dict[str, float]:
    """Mean and spread of rewriters' effects (J,) with the covariance (J, J) of their errors, as `across_rewriters`.

    Effects that differ by no more than `rounding` are alike.

    Examples
    --------
    >>> found = among(np.array([1.0, 2.0, 3.0]), 0.02 * np.eye(3) + 0.02, df=60)
    >>> [round(found[k], 4) for k in ("estimate", "se", "tau", "q")]  # tau^2 = 1 - .02; se^2 = 1/3 + .02
    [2.0, 0.5944, 0.9899, 49.1667]
    """
    n = len(effects)
    mean = float(effects.mean())
    rounding = max(rounding, _ROUNDING * float(np.abs(effects).max()))
    apart = float(effects.var(ddof=1)) if np.ptp(effects) > rounding else 0.0
    shared = max(float(covariance.sum() - np.trace(covariance)) / (n * (n - 1)), 0.0)
    own = max(apart, float(np.trace(covariance)) / n - shared, 0.0) / n
    parts = [(own, n - 1.0), (shared, df)]

    def half(p: float) -> float:
        return float(np.sqrt(sum(v * float(special.stdtrit(d, p / 2)) ** 2 for v, d in parts if v > 0)))

    reach = half(1 - level)
    told = own + shared > 0 and df > 0
    contrasts = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:].T
    gaps, spread = contrasts @ effects, contrasts @ covariance @ contrasts.T
    statistic, p_equal = wald(gaps, spread, df)
    known, axes = np.linalg.eigh(spread) if np.isfinite(spread).all() else (np.full(n - 1, np.nan), np.eye(n - 1))
    squares = np.where(np.abs(axes.T @ gaps) > rounding, axes.T @ gaps, 0.0) ** 2
    tau, low, high = (
        _root(squares, np.where(known > rounding**2, known, 0.0), float(q)) if told else float("nan")
        for q in (n - 1, _most(n - 1, df, level), stats.chi2.ppf((1 - level) / 2, n - 1))
    )
    return {
        "n_rewriters": n, "estimate": mean, "se": float(np.sqrt(own + shared)) if told else float("nan"),
        "ci_low": mean - reach if told else float("nan"), "ci_high": mean + reach if told else float("nan"),
        "p_value": _inverted(half, abs(mean)) if told else float("nan"),
        "tau": tau, "tau_low": low, "tau_high": high, "q": statistic, "q_p_value": p_equal,
        "lowest": float(effects.min()), "highest": float(effects.max()),
    }  # fmt: skip


def _most(q: int, df: float, level: float) -> float:
    """The quantile of Hotelling's T^2, for V is itself an estimate; never below that of chi-square."""
    if df <= q - 1:
        return float("inf")
    return float(stats.f.ppf(0.5 + level / 2, q, df - q + 1)) * df * q / (df - q + 1)


def _root(squares: Floats, known: Floats, target: float) -> float:
    """The tau at which sum squares / (known + tau^2) is `target`; 0 where it is less at tau = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        at_zero = float(np.nansum(squares / known))
    if at_zero <= target:
        return 0.0
    low, high = 0.0, float(squares.sum()) / target
    for _ in range(100):  # bisection: at 0 the sum may be infinite
        middle = (low + high) / 2
        low, high = (middle, high) if float((squares / (known + middle)).sum()) > target else (low, middle)
    return float(np.sqrt(high))


def _inverted(half: Any, size: float) -> float:
    """The p at which an interval of that half width just reaches 0."""
    low, high = -300.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if half(10.0**middle) > size else (low, middle)
    return float(10.0**high)
