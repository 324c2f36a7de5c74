"""What measures and refusals can tell of an effect beside it: RATE adjusted for what else moved, bounds for refusals.

Neither replaces the effect: an adjustment is as good as its measures, and a bound as wide as what nobody saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import off_target
from ratekit.errors import InputError, require_known
from ratekit.estimators import (
    ESTIMANDS,
    ESTIMATORS,
    Floats,
    Ints,
    clustered_mean,
    refuse_level,
    rounding_of,
    row_values,
    rows_about,
    rows_used,
    signed_change,
    t_interval,
)
from ratekit.groups import chains, groups, rewards_of
from ratekit.intervals import Regression
from ratekit.measures import Measure, measured
from ratekit.schema import ATTRIBUTE
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd


def adjusted(
    ds: Any,
    *,
    measures: Mapping[str, Measure] | None = None,
    rewards: Sequence[str] | None = None,
    reliability: float = 0.5,
    level: float = 0.95,
) -> pd.DataFrame:
    """RATE at no change of the off-target measures, beside RATE: what is left where nothing else moved.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> rk.adjusted(ds)["estimand"].tolist()
    ['ate', 'att', 'atu']

    Parameters
    ----------
    ds
        Rewritten and scored rows.
    measures
        {name: texts -> numbers} beside words, sentiment, readability and faults.
    rewards
        Names of reward models; default all.
    reliability
        Share of the variance of the measured changes that is no measuring error, 0 to 1, for the bound.
    level
        Of the confidence intervals.

    Returns
    -------
    pandas.DataFrame
        attribute, reward_model, estimand, rate, adjusted, se, ci_low, ci_high, p_value, spillover (rate - adjusted,
        what goes with the measures), spillover_se, share (spillover / rate), at_reliability (the adjusted effect if the
        measures have `reliability`), n, n_clusters.

    Notes
    -----
    The adjusted effect is the intercept of the row differences s (r2 - r1) on s times the change of each off-target
    measure from the first rewrite to the second. A rewriter that polishes more one way than the other biases RATE
    unseen; this removes the part that a measure sees. Error in a measure pulls its slope towards 0, by its reliability
    in the case of one measure, so that part of the bias stays: `at_reliability` divides the spillover by it.
    Whether what moved with the attribute is a fault of the rewriter or belongs to the attribute no number tells, so it
    stands beside the unadjusted effect and not in its place.

    Raises
    ------
    InputError
        Where no row has both rewrites, their rewards and their measures.
    """
    import pandas as pd

    ds = rows_for("diagnose", ds)
    refuse_level(level)
    if not 0 < reliability <= 1:
        raise InputError(f"reliability={reliability}: a number above 0 and up to 1 was expected")
    texts = chains(ds)
    matrices = dict(rewards_of(ds, rewards))
    rows = []
    for group in groups(ds):
        name = str(group.labels[ATTRIBUTE])
        mine = [texts[i][:3] for i in group.rows]
        others = off_target(name, measures).items()
        moved = [signed_change(measured(m, mine, about), group.treated) for about, m in others]
        moved = [m for m in moved if np.isfinite(m).any()]  # a measure of another language says nothing
        x = np.stack(moved, axis=1) if moved else np.empty((len(mine), 0))
        for model, matrix in matrices.items():
            r = matrix[group.rows]
            _, used = rows_used(ESTIMATORS["rate"], r)
            used &= np.isfinite(x).all(axis=1)
            for estimand in ESTIMANDS:
                of = used & rows_about(group.treated, estimand)
                both = group.treated[of].any() and not group.treated[of].all()
                if not of.any() or (estimand == "ate" and not both):
                    continue
                d = signed_change(r[of], group.treated[of])
                row = _intercept(d, x[of], group.clusters[of], reliability, level, rounding_of(r[of, 1:3]))
                rows.append({**group.labels, "reward_model": model, "estimand": estimand, **row})
    if not rows:
        raise InputError("adjusted: no row has a first and a second rewrite with rewards of both")
    return pd.DataFrame(rows)


def _intercept(
    d: Floats, x: Floats, clusters: Ints, reliability: float, level: float, rounding: float = 0.0
) -> dict[str, Any]:
    """The intercept of d (n,) on x (n, p) with its clustered SE; NaN where there are too few rows for p slopes.

    `rounding` is that of the rewards that d are differences of.
    """
    rate, n = float(d.mean()), len(d)
    row: dict[str, Any] = {"rate": rate, "n": n, "n_clusters": len(np.unique(clusters))}
    names = ("adjusted", "se", "ci_low", "ci_high", "p_value", "spillover", "spillover_se", "share", "at_reliability")
    row |= dict.fromkeys(names, float("nan"))
    design = np.column_stack([np.ones(n), x[:, (x != 0).any(axis=0)]])
    told = [Regression(d, of, clusters, rounding).of(np.eye(of.shape[1])[0]) for of in (design, design[:, :1])]
    (adjusted, own, df), (_, whole, _) = told
    if n <= design.shape[1] or np.linalg.matrix_rank(design / np.abs(design).max(axis=0)) < design.shape[1]:
        return row
    spillover = rate - adjusted
    se, through = (float(np.linalg.norm(scores)) or float("nan") for scores in (own, whole - own))
    low, high, p_value = t_interval(adjusted, se, df, level)
    row |= {
        "adjusted": adjusted, "se": se, "ci_low": low, "ci_high": high, "p_value": p_value,
        "spillover": spillover, "spillover_se": through,
        "share": spillover / rate if rate else float("nan"), "at_reliability": rate - spillover / reliability,
    }  # fmt: skip
    return row


def refusal_bounds(
    ds: Any, *, estimator: str = "rate", rewards: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """What the effect could be had the rows that were refused been rewritten, whatever made them be refused.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({
    ...     "prompt_id": list("abcd"), "attribute": "x", "treated": [True] * 4,
    ...     "reward/r": [[0, 0, 1.0], [0, 0, 2.0], [0, 0, 3.0], [0.0, None, None]],
    ... })
    >>> refusal_bounds(frame)[["estimate", "bound_low", "bound_high"]].iloc[0].tolist()
    [2.0, 1.75, 2.25]

    Parameters
    ----------
    ds
        Scored rows, those without a rewrite included.
    estimator
        A name in `rk.ESTIMATORS` that compares rewrites.
    rewards
        Names of reward models; default all.
    level
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        attribute, reward_model, estimator, estimand, estimate, share_dropped, bound_low, bound_high, ci_low, ci_high
        (which holds the effect of all rows with at least this chance), n, n_dropped.

    Notes
    -----
    Every dropped row is given the lowest, and then the highest, difference that any row of its class showed (Manski
    1990, American Economic Review 80:319, with the range that was observed); the interval is that of Imbens and Manski
    2004 (Econometrica 72:1845), by the wider of its two critical values. Where refusals depend only on what is seen,
    `estimate(sample="two-phase")` corrects for them instead.

    Raises
    ------
    InputError
        For an unknown estimator, and where no row has the rewards that it needs.
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    offered = [name for name, e in ESTIMATORS.items() if not e.classes]
    require_known("estimator", estimator, offered)
    rows = []
    for name, matrix in rewards_of(ds, rewards):
        for group in groups(ds):
            r, w = matrix[group.rows], group.treated
            passes, used = rows_used(ESTIMATORS[estimator], r)
            rounding = rounding_of(r[used][:, passes]) if used.any() else 0.0
            values = np.full(len(w), np.nan)
            values[used] = row_values(r, w, group.clusters, estimator)[0] if used.any() else np.nan
            ends = [values.copy(), values.copy()]
            for side in (True, False):
                of = w == side
                if np.isfinite(values[of]).any():
                    ends[0][of & ~used] = np.nanmin(values[of])
                    ends[1][of & ~used] = np.nanmax(values[of])
            for estimand in ESTIMANDS:
                of = rows_about(w, estimand)
                if estimand == "ate" and (w.all() or not w.any()):
                    continue
                if not (of & used).any() or not np.isfinite(ends[0][of]).all():
                    continue
                low, high = (clustered_mean(end[of], group.clusters[of], rounding) for end in ends)
                dropped = int((of & ~used).sum())
                rows.append({
                    **group.labels, "reward_model": name, "estimator": estimator, "estimand": estimand,
                    "estimate": float(values[of & used].mean()), "share_dropped": dropped / int(of.sum()),
                    "bound_low": low.value, "bound_high": high.value, "ci_low": low.interval(level)[0],
                    "ci_high": high.interval(level)[1], "n": int(of.sum()) - dropped, "n_dropped": dropped,
                })  # fmt: skip
    if not rows:
        raise InputError(f"refusal_bounds: no row has the rewards that {estimator} needs")
    return pd.DataFrame(rows)
