"""Effects against effects: two reward models on shared rewrites, groups of rows, and what would overturn one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special, stats

from ratekit.errors import InputError, require_known, require_whole
from ratekit.estimators import (
    ESTIMATORS,
    Bools,
    Floats,
    Ints,
    Part,
    RewardScale,
    Rows,
    Tail,
    combined,
    correlation,
    covariance,
    in_sds,
    part_of,
    refuse_level,
    rounding_of,
    row_values,
    rows_about,
    rows_used,
    standardize,
    t_interval,
    wald,
)
from ratekit.groups import by_attribute, groups, reward_matrix, rewards_of
from ratekit.resampling import adjust
from ratekit.schema import ATTRIBUTE, find_reward
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd


def contrast(
    ds: Any,
    first: str,
    second: str,
    *,
    estimator: str = "rate",
    unit: str = "sd",
    sd_pass: int = 0,
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The effect under `first` minus the effect under `second`, paired on the rewrites that they share.

    Two reward models, or one before and after a mitigation. Rows that either lacks are dropped and counted.

    One row per attribute and estimand: attribute, reward_model ("first - second"), estimator, estimand, estimate, se,
    ci_low, ci_high, p_value, p_adjusted (over the rows of the table), first, second, n, n_clusters, n_dropped. Why a
    row has no SE is in `table.attrs["notes"]`.

    Parameters
    ----------
    estimator
        a name in `rk.ESTIMATORS`
    unit
        "sd": each effect in its own reward's SDs, for the scales of two reward models differ, and the SDs' own
        uncertainty counts (delta method, `estimators.in_sds`); "reward": in reward units
    sd_pass
        the pass whose rewards give the SDs; 0 is the original responses, 2 stands in where they are not scored
    by
        columns to group by

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> ds = rk.score(rk.score(ds, "words", progress=False), "vader", progress=False)
    >>> rk.contrast(ds, "words", "vader")["estimand"].tolist()
    ['ate', 'att', 'atu']
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    refuse_level(level)
    require_known("estimator", estimator, ESTIMATORS)
    require_known("unit", unit, ("sd", "reward"))
    require_whole("sd_pass", sd_pass)
    parts = list(groups(ds, by))
    a, b = (reward_matrix(ds, find_reward(ds, name)) for name in (first, second))
    how = ESTIMATORS[estimator]
    passes = [*how.passes, sd_pass] if unit == "sd" else list(how.passes)
    if min(a.shape[1], b.shape[1]) <= max(passes):
        depth = min(a.shape[1], b.shape[1]) - 1
        raise InputError(
            f"contrast: {estimator} in unit {unit!r} needs rewards after {max(passes)} rewrites, not {depth}"
        )
    rows, notes = [], []
    for group in parts:
        r = (a[group.rows], b[group.rows])
        have = np.isfinite(np.hstack([x[:, passes] for x in r])).all(axis=1).astype(bool)
        w, codes = group.treated[have], group.clusters[have]
        if how.estimands == ("ate",) and (w.all() or not w.any()):
            continue
        if not len(w):
            continue
        pair = _Pair([x[have] for x in r], w, codes, estimator, sd_pass if unit == "sd" else None)
        for estimand in how.estimands:
            if estimand not in pair.parts:
                continue
            value, se, (low, high, p), one, two = pair.difference(estimand, level)
            used = rows_about(w, estimand)
            n_clusters = len(np.unique(codes[used]))
            if np.isnan(se):
                why = "one cluster" if n_clusters < 2 else "no two clusters differ"
                flat = [name for name, sd in zip((first, second), pair.sds, strict=True) if not sd > 0]
                why = f"the rewards of {' and '.join(flat)} have no SD" if flat else why
                notes.append(f"{group.labels[ATTRIBUTE]} {estimand.upper()}: {why}, so no test")
            rows.append({
                **group.labels, "reward_model": f"{first} - {second}", "estimator": estimator, "estimand": estimand,
                "estimate": value, "se": se, "ci_low": low, "ci_high": high, "p_value": p, "first": one,
                "second": two, "n": int(used.sum()), "n_clusters": n_clusters,
                "n_dropped": len(have) - int(have.sum()),
            })  # fmt: skip
    if not rows:
        hint = ""
        if unit == "sd" and sd_pass == 0 and not (np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])).any():
            hint = "; the originals are not scored, so give their SDs by sd_pass=2, or use unit='reward'"
        raise InputError(
            f"contrast: no row has the rewards that {estimator} needs from both {first} and {second}{hint}"
        )
    table = adjust(pd.DataFrame(rows))
    table.attrs["notes"] = notes
    return table


class _Pair:
    """Two rewards' effects on the same rows, each in its own SDs where `sd_pass` is given."""

    def __init__(self, r: list[Floats], w: Bools, clusters: Ints, estimator: str, sd_pass: int | None) -> None:
        how = ESTIMATORS[estimator]
        n_codes = int(clusters.max()) + 1
        self.scales = None if sd_pass is None else [RewardScale(x[:, sd_pass], w, clusters, n_codes) for x in r]
        self.sds = [1.0, 1.0] if self.scales is None else [s.sd for s in self.scales]
        unit = [sd if sd > 0 else float("nan") for sd in self.sds]
        shared = 1 + min(max(rows_used(how, x)[0]) for x in r)  # a pass beyond those needed counts where both have it
        values = [how.values(x[:, :shared], w, clusters) / sd for x, sd in zip(r, unit, strict=True)]
        rows = Rows(w, clusters, n_codes)
        rounding = max(rounding_of(x) / sd for x, sd in zip(r, unit, strict=True))
        self.each = [rows.parts(v, 0.0, how.classes) for v in values]
        self.parts = rows.parts(values[0] - values[1], rounding, how.classes)

    def difference(
        self, estimand: str, level: float = 0.95
    ) -> tuple[float, float, tuple[float, float, float], float, float]:
        """The difference, its SE (NaN where nothing tells it), its interval with the p-value, and the two effects."""
        part, one, two = self.parts[estimand], *(each[estimand].value for each in self.each)
        se = part.se
        if self.scales is None or not part.se > 0:
            found = t_interval(part.value, se, part.df, level)
        else:  # the SDs are estimates too: delta method
            first, second = self.scales
            each = [of[estimand] for of in self.each]
            scores = two * second.scores - one * first.scores
            se = float(np.linalg.norm(part.scores + scores))
            of_sds = Tail.of(scores, min(first.df, second.df))
            together = correlation(covariance(part.scores, scores), part.se, of_sds.se)

            def ends(p: float) -> tuple[float, float]:
                arm = -float(special.stdtrit(part.df, p / 2)) * part.se
                low, high = in_sds(part.value, arm, of_sds, together, p / 2)
                (low1, high1), (low2, high2) = (
                    scale.ends(of.value, (of.se, of.df), covariance(of.scores, scale.scores), p / 2)
                    for scale, of in zip(self.scales or (), each, strict=True)
                )
                # No farther than both effects may be, each by itself; NaN where one of them has no interval.
                return float(np.fmax(low, low1 - high2)), float(np.fmin(high, high1 - low2))

            df = combined([(part.scores, part.df), (scores, of_sds.df)])[1]
            found = (*ends(1 - level), _p_value(part.value, ends(0.05), df))
        return part.value, se if se > 0 else float("nan"), found, one, two


def _p_value(value: float, ends: tuple[float, float], df: float) -> float:
    """Of Student's t at the distance of 0 in arms of the 95 % interval: under 0.05 where that leaves 0 out."""
    arm = value - ends[0] if value > 0 else ends[1] - value
    return float(2 * special.stdtr(df, -special.stdtrit(df, 0.975) * abs(value) / arm)) if arm > 0 else float("nan")


def heterogeneity(
    ds: Any, by: str | Sequence[str], *, estimator: str = "rate", rewards: Sequence[str] | None = None
) -> pd.DataFrame:
    """Do the groups differ in their effect? One test per attribute, reward model and estimand.

    A Wald test that all groups' effects are equal, with their cluster-robust covariance. Where prompts have rows in
    several groups it is Hotelling's T^2 with the degrees of freedom of the group that has fewest (Hotelling 1931,
    Annals of Mathematical Statistics 2:360); where none has, Welch's correction for unequal variances serves (Welch
    1951, Biometrika 38:330; with one row a cluster it is Welch's ANOVA). Columns: attribute, reward_model, estimator,
    estimand, n_groups, lowest, highest, statistic, p_value, p_adjusted, n, n_clusters. NaN with under 2 groups, or
    where a group has under 2 clusters.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "vader", progress=False)
    >>> rk.heterogeneity(ds, by="style")[["lowest", "highest"]].iloc[0].round(2).tolist()
    [0.86, 0.89]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    require_known("estimator", estimator, ESTIMATORS)
    matrices = rewards_of(ds, rewards)
    found = by_attribute(ds, by)
    n_codes = 1 + max(int(g.clusters.max()) for parts in found.values() for g in parts)
    rows = []
    for name, matrix in matrices:
        for attribute, parts in found.items():
            for estimand in ESTIMATORS[estimator].estimands:
                of = [(matrix[g.rows], g.treated, g.clusters, estimator, estimand) for g in parts]
                test = _equal([(part, row_values(*x)[1]) for x in of if (part := part_of(*x, n_codes)) is not None])
                rows.append({ATTRIBUTE: attribute, "reward_model": name, "estimator": estimator,
                             "estimand": estimand, **test})  # fmt: skip
    return adjust(pd.DataFrame(rows))


def _equal(parts: list[tuple[Part, Ints]]) -> dict[str, Any]:
    """Test that the groups' effects are equal; each with the clusters of its rows."""
    k = len(parts)
    clusters = [np.unique(codes) for _, codes in parts]
    means = np.array([part.value for part, _ in parts])
    g = len(np.unique(np.concatenate(clusters))) if k else 0
    out = {"n_groups": k, "lowest": means.min() if k else np.nan, "highest": means.max() if k else np.nan,
           "statistic": np.nan, "p_value": np.nan, "n": sum(part.n for part, _ in parts), "n_clusters": g}  # fmt: skip
    if k < 2 or g <= k or any(np.isnan(part.se) for part, _ in parts):
        return out
    scores = np.stack([part.scores * (part.se > 0) for part, _ in parts], axis=1)
    covariance = scores.T @ scores
    differ = np.diff(np.eye(k), axis=0)
    gap, spread = differ @ means, differ @ covariance @ differ.T
    df = np.array([part.df for part, _ in parts])
    if sum(map(len, clusters)) > g:
        out["statistic"], out["p_value"] = wald(gap, spread, float(df.min()))
        return out
    if any(part.se == 0 for part, _ in parts):
        return out
    statistic = float(gap @ np.linalg.solve(spread, gap) / (k - 1))
    weights = 1 / np.diag(covariance)
    unequal = float(((1 - weights / weights.sum()) ** 2 / df).sum())
    out["statistic"] = statistic / (1 + 2 * (k - 2) / (k**2 - 1) * unequal)
    out["p_value"] = float(stats.f.sf(out["statistic"], k - 1, (k**2 - 1) / (3 * unequal)))
    return out


def sensitivity(table: pd.DataFrame) -> pd.DataFrame:
    """How wrong the rewriter would have to be to overturn each effect: tipping points.

    *Direction asymmetry.* A rewriter that polishes more one way than the other by d adds d to ATT, ATU and ATE and
    cannot be seen in the rewards. Added, in reward SDs: `tips_sign`, the `abs(d)` at which the estimate is 0;
    `tips_significance`, the `abs(d)` from which the interval holds 0 (0 if it does already); `tips_certainly`, the
    `abs(d)` from which it lies wholly on the other side. If all of the effect were asymmetry, d would be between
    these two. NaN for `naive`, which has no rewriter.

    *Drift*, for `rate` where the table has `rate_late`: weighting the change from the first to the third rewrite with
    L moves the effect from `rate` (L=0) to `rate_late` (L=1), and whatever the rewriter's rho, L is between 0 and 1.
    `drift_tips_sign` is the L at which the estimate is 0, and `drift_tips_significance` the first at which the interval
    holds 0, with the SE at L bounded by (1-L) se(rate) + L se(rate_late). inf: no L in [0, 1] overturns the effect.

    Examples
    --------
    >>> import pandas as pd
    >>> t = pd.DataFrame({"estimate": [1.0], "ci_low": [0.5], "ci_high": [1.5], "reward_sd": [2.0]})
    >>> sensitivity(t)[["tips_significance", "tips_sign", "tips_certainly"]].iloc[0].tolist()
    [0.25, 0.5, 0.75]
    """
    needed = ["estimate", "ci_low", "ci_high", "reward_sd"]
    for column in needed:
        if column not in table:
            raise InputError(f"sensitivity: the table has no column {column!r}; give one that `estimate` made")
    out, per_sd = table.copy(), standardize(table)  # its intervals count the SD's own error where the table does
    up = out["estimate"] > 0
    near = np.where(up, per_sd["ci_low"], -per_sd["ci_high"])
    out["tips_significance"] = np.clip(near, 0, None)
    out["tips_sign"] = per_sd["estimate"].abs()
    out["tips_certainly"] = np.where(up, per_sd["ci_high"], -per_sd["ci_low"])
    if "estimator" in out:  # naive has no rewriter to be wrong
        out.loc[out["estimator"] == "naive", ["tips_significance", "tips_sign", "tips_certainly"]] = np.nan
    if {"estimator", "estimand", "se"} <= set(out.columns) and (out["estimator"] == "rate_late").any():
        _tip_by_drift(out)
    return out


def _tip_by_drift(out: pd.DataFrame) -> None:
    keys = [*out.columns[: list(out.columns).index("estimator")], "estimand"]  # what the rows are of
    late = {_key(row, keys): row for row in out[out["estimator"] == "rate_late"].to_dict("records")}
    out["drift_tips_sign"] = np.nan
    out["drift_tips_significance"] = np.nan
    weights = np.linspace(0, 1, 1001)
    for i, row in out[out["estimator"] == "rate"].iterrows():
        other = late.get(_key(row, keys))
        if other is None:
            continue
        estimate = (1 - weights) * row["estimate"] + weights * other["estimate"]
        near = row["ci_low"] if row["estimate"] > 0 else row["ci_high"]  # the end that reaches 0 first
        arm = abs(row["estimate"] - near) / row["se"] if row["se"] > 0 else np.nan
        reach = arm * ((1 - weights) * row["se"] + weights * other["se"])
        out.loc[i, "drift_tips_sign"] = _first(weights, estimate * np.sign(estimate[0]) <= 0)
        if np.isfinite(reach).all():
            out.loc[i, "drift_tips_significance"] = _first(weights, estimate * np.sign(estimate[0]) <= reach)


def _key(row: Mapping[Any, Any] | pd.Series, keys: list[str]) -> tuple[str, ...]:
    return tuple(str(row[k]) for k in keys)


def _first(weights: Floats, reached: Bools) -> float:
    return float(weights[np.argmax(reached)]) if reached.any() else float("inf")
