"""What else moved, and how much per unit: the spillover matrix and the dose-response curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import measure_of
from ratekit.errors import InputError, require_whole, shorten
from ratekit.estimators import Floats, Ints, clustered_mean, pooled_sd, rounding_of, signed_change, t_interval
from ratekit.groups import chains, groups, rewards_of
from ratekit.intervals import Regression, ratio_interval
from ratekit.measures import MEASURES, Measure, measured
from ratekit.schema import ATTRIBUTE
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd


def spillover(
    ds: Any, *, measures: Mapping[str, Measure] | None = None, rewards: Sequence[str] | None = None, level: float = 0.95
) -> pd.DataFrame:
    """The spillover matrix: rewriting each attribute moves each measure by how much, and the reward through it.

    One row per attribute, measure and reward model (none, where nothing is scored): attribute, measure, shift (mean of
    s (measure of the second rewrite - of the first)), se, ci_low, ci_high, p_value, shift_sd (in SDs of the originals),
    reward_model, per_unit, per_unit_se, through, through_se, through_low, through_high, total, collinear, n,
    n_clusters.

    `per_unit` is the coefficient of the measure in a least-squares regression, through the origin, of s (r2 - r1) on
    all the measures' s-signed changes, over the rows of that attribute; `through` = per_unit * shift, and `total` the
    RATE effect. This parts the effect among the measures as far as a linear model with these measures can; it is a
    description and not an identified mediation. Where the changes are collinear, `per_unit` is NaN and `collinear`
    names the measures. Where the regression leaves nothing over, nothing tells how `per_unit` would vary: its SE is
    NaN, and `collinear` is "exact fit" (the reward is a sum of these measures: `through_se` is that of the shift) or
    "as many measures as rows". Errors are CR2 over prompts, intervals by Student's t (`ratekit.intervals.Regression`).

    Parameters
    ----------
    measures
        {name: texts -> numbers}; default words, sentiment, readability, faults

    Examples
    --------
    >>> import ratekit as rk
    >>> table = rk.spillover(rk.load("reviews", attribute="length"))
    >>> int(table.set_index("measure").loc["words", "shift"])
    87
    """
    import pandas as pd

    ds = rows_for("diagnose", ds)
    used = {**MEASURES, **(measures or {})} if measures is None else dict(measures)
    if not used:
        raise InputError("spillover: no measures; give {name: texts -> numbers}")
    texts = chains(ds)
    matrices = dict(rewards_of(ds, rewards))
    rows = []
    for group in groups(ds):
        mine = [texts[i] for i in group.rows]
        values = {name: measured(m, mine, name) for name, m in used.items()}
        if any(m.shape[1] < 3 for m in values.values()):
            raise InputError(
                f"spillover: {group.labels[ATTRIBUTE]} has no second rewrite; rewrite with depth=2 or more"
            )
        values = {name: m for name, m in values.items() if np.isfinite(m).any()}  # of another language: says nothing
        if not values:
            continue
        change = np.stack([signed_change(m, group.treated) for m in values.values()], axis=1)
        sds = [pooled_sd(m[:, 0], group.treated) for m in values.values()]
        models: list[tuple[str | None, Floats | None]] = [*matrices.items()] or [(None, None)]
        for model, matrix in models:
            complete = np.isfinite(change).all(axis=1)
            y = None
            if matrix is not None:
                y = signed_change(matrix[group.rows], group.treated)
                complete &= np.isfinite(y)
            if not complete.any():
                continue
            x, codes = change[complete], group.clusters[complete]
            fit = None
            if y is not None and matrix is not None:
                fit = Regression(y[complete], x, codes, rounding_of(matrix[group.rows][:, 1:3]))
            for j, name in enumerate(values):
                mean = clustered_mean(x[:, j], codes, rounding_of(values[name]))
                shift, se, n_clusters = mean.value, mean.se if mean.se > 0 else float("nan"), mean.n_clusters
                low, high, p = mean.interval(level)
                row = {**group.labels, "measure": name, "shift": shift, "se": se, "ci_low": low, "ci_high": high,
                       "p_value": p, "shift_sd": shift / sds[j] if sds[j] > 0 else np.nan, "n": len(x),
                       "n_clusters": n_clusters}  # fmt: skip
                if fit is not None and y is not None:
                    per_unit, scores, _ = fit.of(np.eye(len(values))[j])
                    through_se, through_low, through_high = _through(fit, x, codes, j, level)
                    row |= {"reward_model": model, "per_unit": per_unit,
                            "per_unit_se": float(np.linalg.norm(scores)) or np.nan,
                            "through": per_unit * shift, "through_se": through_se, "through_low": through_low,
                            "through_high": through_high, "total": y[complete].mean(),
                            "collinear": _untold(fit, x, list(values))}  # fmt: skip
                rows.append(row)
    if not rows:
        raise InputError("spillover: no row has a first and a second rewrite (and rewards of both)")
    return pd.DataFrame(rows)


def _untold(fit: Regression, x: Floats, names: Sequence[str]) -> str:
    """Why the regression has no coefficients, or no errors, in words; "" where it has."""
    moving = [j for j in range(len(names)) if x[:, j].any()]
    tied = ", ".join(names[j] for j in moving if np.isnan(fit.of(np.eye(len(names))[j])[0]))
    if tied or not moving:
        return tied or "nothing moved"
    return "" if not fit.exact else "as many measures as rows" if len(x) <= len(moving) else "exact fit"


def _through(fit: Regression, x: Floats, clusters: Ints, j: int, level: float) -> tuple[float, float, float]:
    """SE and interval of coefficient j times the mean of x_j: both vary (delta method), by the fewer df of the two."""
    beta, of_beta, beta_df = fit.of(np.eye(x.shape[1])[j])
    if np.isnan(beta_df) and not fit.exact:  # nothing tells how the coefficient varies
        return (float("nan"),) * 3
    mean, of_mean, mean_df = Regression(x[:, j], np.ones((len(x), 1)), clusters).of(np.ones(1))
    se = float(np.linalg.norm(mean * of_beta + beta * of_mean)) or float("nan")
    dfs = [df for varies, df in ((mean * of_beta, beta_df), (beta * of_mean, mean_df)) if varies.any()]
    return se, *t_interval(beta * mean, se, min(dfs, default=float("nan")), level)[:2]


def dose_response(
    ds: Any,
    *,
    rewards: Sequence[str] | None = None,
    measures: Mapping[str, Measure] | None = None,
    bins: int = 5,
    level: float = 0.95,
) -> pd.DataFrame:
    """The effect per unit of the attribute's measure, and its curve over the dose.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> table = rk.dose_response(ds, bins=4)
    >>> table[["bin", "per_unit"]].head(2).values.tolist()
    [['all', 1.0], ['1', 1.0]]

    Parameters
    ----------
    ds
        Rewritten and scored rows.
    rewards
        Names of reward models; default all.
    measures
        {attribute: texts -> numbers}, where `rk.ATTRIBUTES` does not say what the attribute is measured by.
    bins
        Of the dose, by its quantiles.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row per attribute, reward model and bin: attribute, reward_model, bin ("all", then "1" ...), dose_low,
        dose_high, dose (mean), effect (mean of s (r2 - r1)), se, ci_low, ci_high, per_unit (effect / dose),
        per_unit_low, per_unit_high, n, n_clusters.

    Notes
    -----
    The dose of a row is s (measure of the second rewrite - of the first): by how much the rewrites moved it. The
    interval of the ratio is Fieller's (`ratekit.intervals.ratio_interval`). Where the dose is not told from 0 it is
    unbounded, -inf to inf, and `per_unit` is NaN. Rows in different bins differ in more than their dose, so the curve
    describes and does not identify.

    Raises
    ------
    InputError
        Where nothing is scored, the attribute has no measure, or no row has a second rewrite.
    """
    import pandas as pd

    ds = rows_for("diagnose", ds)
    require_whole("bins", bins, 1)
    texts = chains(ds)
    matrices = dict(rewards_of(ds, rewards))
    if not matrices:
        raise InputError("dose_response: nothing is scored; the stage 'score' adds rewards")
    rows = []
    for group in groups(ds):
        attribute = str(group.labels[ATTRIBUTE])
        measure = measure_of(attribute, measures, ds)
        if measure is None:
            raise InputError(
                f"dose_response: attribute {shorten(attribute)!r} has no measure; give one with measures={{name: ...}}"
            )
        m = measured(measure, [texts[i] for i in group.rows], attribute)
        if m.shape[1] < 3:
            raise InputError(f"dose_response: {attribute} has no second rewrite; rewrite with depth=2 or more")
        dose = signed_change(m, group.treated)
        for name, matrix in matrices.items():
            r = matrix[group.rows]
            effect = signed_change(r, group.treated)
            complete = np.isfinite(dose) & np.isfinite(effect)
            d, e, codes = dose[complete], effect[complete], group.clusters[complete]
            labels = {**group.labels, "reward_model": name}
            rows += [{**labels, **row} for row in _curve(d, e, codes, bins, level, rounding_of(r[:, 1:3]))]
    if not rows:
        raise InputError("dose_response: no row has measures and rewards of its first and second rewrite")
    return pd.DataFrame(rows)


def _curve(
    dose: Floats, effect: Floats, clusters: Ints, bins: int, level: float, rounding: float = 0.0
) -> list[dict[str, Any]]:
    if len(dose) == 0:
        return []
    edges = np.unique(np.quantile(dose, np.linspace(0, 1, bins + 1)))
    part = np.clip(np.searchsorted(edges, dose, side="left") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for name in ["all", *range(max(len(edges) - 1, 1))]:
        used = np.ones(len(dose), bool) if name == "all" else part == name
        if not used.any():
            continue
        d, e, codes = dose[used], effect[used], clusters[used]
        of_effect, n_clusters = clustered_mean(e, codes, rounding), len(np.unique(codes))
        low, high, _ = of_effect.interval(level)
        price = ratio_interval(e, d, codes, level)
        rows.append({
            "bin": "all" if name == "all" else str(int(name) + 1), "dose_low": d.min() + 0.0,
            "dose_high": d.max() + 0.0, "dose": d.mean(), "effect": of_effect.value,
            "se": of_effect.se if of_effect.se > 0 else float("nan"), "ci_low": low, "ci_high": high,
            "per_unit": price.value if np.isfinite(price.low) else float("nan"), "per_unit_low": price.low,
            "per_unit_high": price.high, "n": len(d), "n_clusters": n_clusters,
        })  # fmt: skip
    return rows
