"""Can the effects be trusted? Compliance, drift and dropped rows; contrasts of reward models; tipping points."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.columns import plain_columns, refuse_null, reward_matrix, treated_bools
from ratekit.errors import InputError
from ratekit.estimators import ESTIMATORS, clustered_mean, t_interval
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT_ID,
    RESPONSE,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    find_reward,
    require,
    reward_columns,
    reward_name,
)

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


def diagnose(ds: Dataset) -> pd.DataFrame:
    """Checks of what RATE assumes, one row each: did the rewrites comply, does the rewriter drift, what failed?

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> checks = diagnose(ds).set_index(["check", "group"])
    >>> float(checks.loc[("compliance", "treated, rewrite 1"), "value"])
    1.0

    Columns: attribute, check, group, value, se, p_value, n. The checks:

    - status: the share of rewrites that are "ok", per rewrite;
    - compliance: the share of rewrites in which the attribute's measure moved the way that was asked for;
    - dose: by how much it moved, in the measure's units, with its clustered SE;
    - drift: E[r3 - r1] per class and reward model, which is 0 if the rewriter does the same on every pass
      (needs depth 3); a small p-value says that it still converges, and `rate_extrapolated` is the one to read.
    """
    import pandas as pd

    require(ds, "diagnose")
    rows: list[dict[str, Any]] = []
    frame = plain_columns(ds, [PROMPT_ID, ATTRIBUTE, TREATED])
    refuse_null(frame[PROMPT_ID], PROMPT_ID)
    treated = treated_bools(frame[TREATED])
    clusters = pd.factorize(frame[PROMPT_ID].astype(str))[0].astype(np.int64)
    chains = [[r, *(more or [])] for r, more in zip(ds[RESPONSE], ds[REWRITES], strict=True)]
    statuses = ds[REWRITE_STATUS] if REWRITE_STATUS in columns_of(ds) else None
    for name, index in frame.groupby(ATTRIBUTE, sort=False).indices.items():

        def add(check: str, group: str, values: np.ndarray, codes: np.ndarray, attribute: str = str(name)) -> None:
            if len(values):
                value, se, n_clusters = clustered_mean(values, codes)
                p = t_interval(value, se, n_clusters - 1)[2] if check in ("dose", "drift") else float("nan")
                rows.append(
                    {"attribute": attribute, "check": check, "group": group, "value": value, "se": se, "p_value": p,
                     "n": len(values)}
                )  # fmt: skip

        depth = max(len(chains[i]) for i in index) - 1
        attribute = ATTRIBUTES.get(str(name))
        for k in range(1, depth + 1):
            if statuses is not None:
                counts = Counter(statuses[i][k - 1] for i in index if len(statuses[i]) >= k)
                ok = np.repeat([1.0, 0.0], [counts["ok"], counts.total() - counts["ok"]])
                add("status", f"rewrite {k}", ok, np.arange(len(ok)))
            if attribute is None or attribute.measure is None:
                continue
            for side in (True, False):
                pairs = [
                    i
                    for i in index
                    if treated[i] == side and len(chains[i]) > k and None not in chains[i][k - 1 : k + 1]
                ]
                moved = np.asarray(attribute.measure([chains[i][k] for i in pairs]), float) - np.asarray(
                    attribute.measure([chains[i][k - 1] for i in pairs]), float
                )
                asked = 1.0 if side == (k % 2 == 0) else -1.0
                group = f"{'treated' if side else 'untreated'}, rewrite {k}"
                add("compliance", group, (moved * asked > 0).astype(float), clusters[pairs])
                add("dose", group, moved, clusters[pairs])
        for column in reward_columns(columns_of(ds)):
            r = reward_matrix(ds, column)[index]
            for side in (True, False):
                if r.shape[1] > 3:
                    used = (treated[index] == side) & ~np.isnan(r[:, [1, 3]]).any(axis=1)
                    group = f"{'treated' if side else 'untreated'}, {reward_name(column)}"
                    add("drift", group, r[used, 3] - r[used, 1], clusters[index][used])
    return pd.DataFrame(rows)


def contrast(
    ds: Any, first: str, second: str, *, estimator: str = "rate", unit: str = "sd", level: float = 0.95
) -> pd.DataFrame:
    """The effect under `first` minus the effect under `second`, paired on the rewrites that they share.

    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> ds = rk.score(rk.score(ds, "words", progress=False), "vader", progress=False)
    >>> contrast(ds, "words", "vader")["estimand"].tolist()
    ['ate', 'att', 'atu']

    ds         scored data; rows that either reward model lacks are dropped and counted
    estimator  a name in `rk.ESTIMATORS`
    unit       "sd": each effect in its own reward's SDs (the scales of two reward models differ), with the SDs taken
               as known; "reward": in reward units

    One row per attribute and estimand: attribute, reward_model ("first - second"), estimator, estimand, estimate, se,
    ci_low, ci_high, p_value, n, n_clusters, n_dropped.
    """
    import pandas as pd

    from ratekit.estimators import pooled_sd

    require(ds, "estimate")
    if estimator not in ESTIMATORS:
        raise InputError(f"unknown estimator {estimator!r}. Known: {', '.join(ESTIMATORS)}")
    if unit not in ("sd", "reward"):
        raise InputError(f"unknown unit {unit!r}. Known: sd, reward")
    a, b = (reward_matrix(ds, find_reward(ds, name)) for name in (first, second))
    frame = plain_columns(ds, [PROMPT_ID, ATTRIBUTE, TREATED])
    treated = treated_bools(frame[TREATED])
    clusters = pd.factorize(frame[PROMPT_ID].astype(str))[0].astype(np.int64)
    how = ESTIMATORS[estimator]
    rows = []
    for name, index in frame.groupby(ATTRIBUTE, sort=False).indices.items():
        w = treated[index]
        if min(a.shape[1], b.shape[1]) <= max(how.passes):
            raise InputError(f"{estimator} needs {max(how.passes)} rewrites; the data have fewer")
        have = ~np.isnan(np.hstack([a[index][:, how.passes], b[index][:, how.passes]])).any(axis=1)
        scale = [pooled_sd(r[index][:, 0], w) if unit == "sd" else 1.0 for r in (a, b)]
        first_d, second_d = (
            how.values(r[index][have], w[have], clusters[index][have]) / s for r, s in zip((a, b), scale, strict=True)
        )
        for estimand in how.estimands:
            used = {"ate": np.ones(have.sum(), bool), "att": w[have], "atu": ~w[have]}[estimand]
            if not used.any():
                continue
            value, se, n_clusters = clustered_mean((first_d - second_d)[used], clusters[index][have][used])
            low, high, p = t_interval(value, se, n_clusters - 1, level)
            rows.append(
                {"attribute": name, "reward_model": f"{first} - {second}", "estimator": estimator, "estimand": estimand,
                 "estimate": value, "se": se, "ci_low": low, "ci_high": high, "p_value": p, "n": int(used.sum()),
                 "n_clusters": n_clusters, "n_dropped": len(index) - int(have.sum())}
            )  # fmt: skip
    return pd.DataFrame(rows)


def sensitivity(table: pd.DataFrame) -> pd.DataFrame:
    """How strong a direction asymmetry of the rewriter would have to be to overturn each effect.

    >>> import pandas as pd
    >>> t = pd.DataFrame({"estimate": [1.0], "ci_low": [0.5], "ci_high": [1.5], "reward_sd": [2.0]})
    >>> sensitivity(t)[["tips_significance", "tips_sign"]].iloc[0].tolist()
    [0.25, 0.5]

    A rewriter that polishes more one way than the other by d adds d to ATT, ATU and ATE and cannot be seen in the
    rewards. Added columns, in reward SDs: `tips_sign`, the |d| at which the estimate reaches 0, and
    `tips_significance`, the |d| at which the interval does (0 if it holds 0 already).
    """
    out = table.copy()
    sd = out["reward_sd"].where(out["reward_sd"] > 0)
    nearest = np.where(out["estimate"] > 0, out["ci_low"], -out["ci_high"])
    out["tips_significance"] = np.clip(nearest, 0, None) / sd
    out["tips_sign"] = out["estimate"].abs() / sd
    return out
