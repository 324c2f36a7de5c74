"""How many more rewrites: `plan` for a standard error or a difference, `sequential` to look while they come in."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ratekit.augmentation import LEAST, augmented
from ratekit.diagnostics.contrasts import contrast
from ratekit.errors import InputError, require_known
from ratekit.estimators import (
    ESTIMANDS,
    ESTIMATORS,
    Floats,
    effects,
    refuse_level,
    row_values,
    rows_used,
)
from ratekit.groups import Group, groups, original_features, rewards_of
from ratekit.resampling import TUNED_FOR, confidence_sequence
from ratekit.schema import ATTRIBUTE, grouping
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("ratekit")


def plan(
    ds: Any,
    se: float | None = None,
    *,
    apart: tuple[str, str] | None = None,
    difference: float | None = None,
    power: float = 0.8,
    level: float = 0.95,
    estimator: str = "rate",
    estimand: str = "ate",
    unit: str = "sd",
    two_phase: bool = False,
) -> pd.DataFrame:
    """How many rows, and rewrites, for a given standard error, or for telling two reward models apart.

    From what the rows at hand vary by: n_needed = n (se_now / se_wanted)^2, at the present rows per prompt and share
    of treated rows. Columns: attribute, reward_model, estimator, estimand, se_now, se_wanted, n, n_needed, n_more,
    prompts_more, rewrites_more (the passes that the estimator reads, for each further row). For `apart` se_wanted =
    `abs(difference)` / (z(1 - alpha/2) + z(power)). In SDs se_now is the `se_sd` of `estimate`, the SD's own
    uncertainty counted. With `two_phase` also explained, the share R^2 of the differences' variance that the originals
    predict, and rows_two_phase, how many of the N originals at hand need rewrites for the same SE: with V the variance
    of a row's difference and D what the SD adds, V (1 - R^2) / (se_wanted^2 - V R^2 / N - D), NaN unless that is
    under N. An estimate without an SE (a class of one cluster) has a plan of NaN. The SE itself is estimated from n
    rows: expect n_needed to be right within about 2/sqrt(2n), 14 % at 100 rows.

    Parameters
    ----------
    se
        the standard error wanted, in reward SDs (unit="sd") or in the reward's own units (unit="reward")
    apart
        two reward models: rows for a test at 1 - level that tells them apart with this power
    difference
        the least that is to be told, in the same units: with `apart` it has to be given, for rows that were counted by
        the difference that they happened to show have less power than was asked for
    two_phase
        say too what `estimate(sample="two-phase")` would need: rewrites of a part of the originals at hand
    estimator
        a name in `rk.ESTIMATORS`, estimand "ate", "att" or "atu"

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "vader", progress=False)
    >>> plan = rk.plan(ds, se=0.05)
    >>> plan[["n", "n_needed", "n_more", "rewrites_more"]].iloc[0].tolist()
    [160, 899, 739, 1478]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    require_known("estimator", estimator, ESTIMATORS)
    require_known(f"estimand of {estimator}", estimand, ESTIMATORS[estimator].estimands)
    require_known("unit", unit, ("sd", "reward"))
    if (se is None) == (apart is None):
        raise InputError("plan: give either se=0.02, the standard error wanted, or apart=('rm-a', 'rm-b')")
    refuse_level(level)
    if not 0 < power < 1:
        raise InputError(f"power={power}: a number between 0 and 1 was expected")
    if se is not None and not (se > 0 and math.isfinite(se)):
        raise InputError(f"se={se}: a positive number was expected")
    if apart is not None and difference is None:
        raise InputError(
            "plan: apart= needs difference=, the smallest difference worth finding; the one that the rows at hand show "
            "would promise more power than there is"
        )
    if apart is not None and two_phase:
        raise InputError("plan: two_phase= goes with se=; a difference of two reward models has no two-phase estimate")
    if difference is not None and not (abs(difference) > 0 and math.isfinite(difference)):
        raise InputError(f"difference={difference}: a number other than 0 was expected")
    if apart is not None:
        rows = _apart(ds, apart, float(difference or 0), power, level, estimator, estimand, unit)
    else:
        rows = _single(ds, float(se or 0), estimator, estimand, unit, two_phase)
    passes = max(ESTIMATORS[estimator].passes)
    found = []
    for row in rows:
        factor = (row["se_now"] / row["se_wanted"]) ** 2 if row["se_wanted"] > 0 else math.nan
        clusters = row.pop("n_clusters")
        if math.isfinite(factor):
            needed = math.ceil(row["n"] * factor - 1e-9)
            more = max(0, needed - row["n"])
            row |= {"n_needed": needed, "n_more": more, "prompts_more": math.ceil(more * clusters / row["n"]),
                    "rewrites_more": more * passes}  # fmt: skip
        else:
            row |= dict.fromkeys(("n_needed", "n_more", "prompts_more", "rewrites_more"), math.nan)
        found.append(row | {c: row.pop(c) for c in ("explained", "rows_two_phase") if c in row})
    if not found:
        raise InputError(
            f"plan: the rows have no {estimator} {estimand.upper()} (rewards, or one of the two classes, are missing), "
            "so nothing tells how much they vary"
        )
    return pd.DataFrame(found)


def _explained(known: Floats, r: Floats, group: Group, estimator: str, estimand: str) -> float:
    """The share of the differences' variance that the originals predict; the smaller class counts by its rows."""
    _, used = rows_used(ESTIMATORS[estimator], r)
    shares = []
    for side in (True, False):
        of = used & (group.treated == side)
        if of.sum() >= LEAST and estimand in ("ate", "att" if side else "atu"):
            values = row_values(r[of], group.treated[of], group.clusters[of], estimator, "att" if side else "atu")[0]
            shares.append((int(of.sum()), augmented(values, known[of], group.clusters[of])[1]))
    total = sum(n for n, _ in shares)
    return sum(n * share for n, share in shares) / total if total else math.nan


def _single(ds: Any, wanted: float, estimator: str, estimand: str, unit: str, two_phase: bool) -> list[dict[str, Any]]:
    rows, features = [], original_features(ds) if two_phase else None
    for name, matrix in rewards_of(ds):
        known = None if features is None or not matrix.shape[1] else np.column_stack([features, matrix[:, 0]])
        for group in groups(ds):
            r = matrix[group.rows]
            found = effects(r, group.treated, group.clusters)
            e = found.get(estimator, estimand)
            if e is None:
                continue
            if unit == "sd" and not found.reward_sd > 0:
                raise InputError(
                    f"plan: {name} has no reward SD (its originals are not scored, or all alike); "
                    "give se in its own units with unit='reward'"
                )
            scale, se = (found.reward_sd, e.se_sd) if unit == "sd" else (1.0, e.se)
            rows.append({**group.labels, "reward_model": name, "estimator": estimator,
                         "estimand": estimand, "se_now": se, "se_wanted": wanted, "n": e.n,
                         "n_clusters": e.n_clusters})  # fmt: skip
            if known is not None:
                explained = _explained(known[group.rows], r, group, estimator, estimand)
                originals, own = len(group.rows), (e.se / scale) ** 2
                # Of the variance that is wanted, what the originals leave: their share of the differences', the SD's.
                left = wanted**2 - own * e.n / originals * explained - (se**2 - own)
                needed = e.n * own * (1 - explained) / left if left > 0 else math.nan
                rows[-1] |= {"explained": explained, "rows_two_phase": needed if needed < originals else math.nan}
    return rows


def _apart(
    ds: Any, apart: tuple[str, str], difference: float, power: float, level: float, estimator: str,
    estimand: str, unit: str,
) -> list[dict[str, Any]]:  # fmt: skip
    table = contrast(ds, *apart, estimator=estimator, unit=unit)
    z = stats.norm.ppf(0.5 + level / 2) + stats.norm.ppf(power)
    rows, kept = [], grouping(table, "estimate")
    for row in table[table["estimand"] == estimand].to_dict("records"):
        rows.append({**{c: row[c] for c in kept}, "se_now": row["se"], "se_wanted": abs(difference) / z, "n": row["n"],
                     "n_clusters": row["n_clusters"]})  # fmt: skip
    return rows


def sequential(
    ds: Any, *, estimator: str = "rate", estimand: str = "ate", level: float = 0.95, tuned_for: int = TUNED_FOR
) -> pd.DataFrame:
    """May one stop? Intervals that hold however often one looks while rewrites come in.

    Rows are read in their order, which must be the order of arrival or random (shuffle sorted data first). One row per
    attribute and reward model: attribute, reward_model, estimator, estimand, estimate, ci_low, ci_high (the
    anytime-valid interval at the last row, `resampling.confidence_sequence`), decided_at (how many prompts it took
    until the interval first left 0 out; NaN: not yet, and never before 50), n, n_clusters. `tuned_for` is the number of
    prompts at which the interval is narrowest: choose it before the first look and keep it. Stop when `decided_at` is
    there, or when the interval is as narrow as you need: the level of the whole procedure is kept, up to the interval's
    large-sample approximation. `rate_extrapolated` and `rate_geometric`, whose weights depend on all rows, and `naive`
    are not offered. Where the first half of the prompts has another share of treated rows than the second, the order is
    not random: `table.attrs["notes"]` says so, and it is logged.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "vader", progress=False)
    >>> rk.sequential(ds)[["n", "decided_at"]].iloc[0].tolist()
    [160, 50]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    offered = [name for name, e in ESTIMATORS.items() if e.arms is not None]
    require_known("estimator for sequential looks", estimator, offered)
    require_known("estimand", estimand, ESTIMANDS)
    rows, left_out = [], list[str]()
    parts = list(groups(ds))
    notes = [note for group in parts if estimand == "ate" and (note := _sorted(group))]
    for note in notes:
        log.warning(note)
    for name, matrix in rewards_of(ds):
        for group in parts:
            r, w = matrix[group.rows], group.treated
            of = w[rows_used(ESTIMATORS[estimator], r)[1]]
            if not (len(of) if estimand == "ate" else (of == (estimand == "att")).any()):
                continue
            if estimand == "ate" and (of.all() or not of.any()):
                side, other = ("treated", "att") if of.any() else ("untreated", "atu")
                about = f"{group.labels[ATTRIBUTE]} / {name}"
                left_out.append(f"every row of {about} is {side}, so there is no ATE; give estimand={other!r}")
                continue
            values, codes = row_values(r, w, group.clusters, estimator, estimand)
            mean, low, high = confidence_sequence(values, codes, level, tuned_for)
            out = (low > 0) | (high < 0)
            rows.append({**group.labels, "reward_model": name, "estimator": estimator,
                         "estimand": estimand, "estimate": mean[-1], "ci_low": low[-1], "ci_high": high[-1],
                         "decided_at": int(np.argmax(out)) + 1 if out.any() else math.nan, "n": len(values),
                         "n_clusters": len(mean)})  # fmt: skip
    if not rows:
        why = "; ".join(left_out) or f"no row has the rewards that {estimator} needs"
        raise InputError(f"sequential: {why}")
    table = pd.DataFrame(rows)
    table.attrs["notes"] = [*notes, *(f"sequential: {why}" for why in left_out)]
    return table


def _sorted(group: Group) -> str:
    """A note where the share of treated rows differs between the halves by more than 4 standard errors."""
    w = group.treated
    half = len(w) // 2
    if half < 2:
        return ""
    head, tail, share = w[:half].mean(), w[half:].mean(), w.mean()
    if abs(head - tail) <= 4 * math.sqrt(share * (1 - share) * (1 / half + 1 / (len(w) - half))):
        return ""
    return (
        f"sequential: {group.labels[ATTRIBUTE]}: {head:.0%} of the first half of the rows are treated and {tail:.0%} "
        "of the second, so early intervals speak of another mixture; shuffle the rows"
    )
