"""`diagnose`: can the effects be trusted? What the rewriter did, checked on the texts and on the rewards.

RATE assumes that a rewrite changes the attribute (compliance), nothing else that the rewrite of the rewrite does not
change alike (balance), and that each pass does the same (drift). Each check is a row; the verdict weighs them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import measure_of, off_target
from ratekit.diagnostics.verdicts import verdict
from ratekit.estimators import Bools, Floats, clustered_mean, convergence, pooled_sd, row_values
from ratekit.groups import SIDE, Group, chains, groups, reward_matrix
from ratekit.measures import Measure, measured
from ratekit.resampling import adjust
from ratekit.schema import ATTRIBUTE, REWRITE_STATUS, columns_of, require, reward_columns, reward_name
from ratekit.sources.loading import as_dataset

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("attribute", "check", "group", "about", "value", "in_sd", "se", "p_value", "p_adjusted", "n", "words")


def diagnose(ds: Any, *, measures: Mapping[str, Measure] | None = None) -> pd.DataFrame:
    """Checks of what RATE assumes, one row each, and a verdict in words for each attribute.

    >>> import ratekit as rk
    >>> for attribute in ("length", "sentiment"):
    ...     checks = rk.diagnose(rk.load("reviews", attribute=attribute))
    ...     print(attribute, "-", checks[checks.check == "verdict"].group.item())
    length - do not trust
    sentiment - trust

    ds        rewritten (scored or not) rows; Dataset or DataFrame
    measures  {name: texts -> numbers} beside words, sentiment, readability and faults; under an attribute's own name,
              what its compliance is measured by

    Columns: attribute, check, group, about (the measure or reward model), value, in_sd (value in SDs of the originals),
    se, p_value, p_adjusted (Benjamini-Hochberg over the attribute's balance and drift tests), n, words. The checks:

    - status      share of rewrites that are "ok", and of each other status
    - compliance  share of rewrites in which the attribute's measure moved the way that was asked for
    - dose        by how much it moved, in the measure's units
    - similarity  of the rewrite of the rewrite to the original, 0 to 1 (`rapidfuzz.fuzz.ratio`)
    - balance     how another measure moved from the first rewrite to the second; a move with opposite signs in the
                  two classes goes with the attribute (spillover, or a rewriter that polishes one way only), one with
                  the same sign is a rewriter still at work
    - drift       how a measure, or a reward, differs between the third rewrite and the first, which were asked for the
                  same: 0 if every pass does the same. Needs depth 3
    - rho         share of the off-target residue that a pass leaves, per class and reward model, as
                  `rate_extrapolated` uses it. Needs depth 3
    - verdict     trust, trust with care, or do not trust, and why: the rules are in `diagnostics.verdicts`

    Raises InputError for a missing column, and for a measure that does not give one number a text.
    """
    import pandas as pd

    ds = as_dataset(ds)
    require(ds, "diagnose")
    texts = chains(ds)
    rewards = {reward_name(c): reward_matrix(ds, c) for c in reward_columns(columns_of(ds))}
    statuses = None
    if REWRITE_STATUS in columns_of(ds):
        statuses = [list(s) if s is not None else [] for s in ds[REWRITE_STATUS]]
    parts = []
    for group in groups(ds):
        name = str(group.labels[ATTRIBUTE])
        rows = list(_status(group, texts, statuses))
        rows += _on_target(group, texts, measure_of(name, measures, ds))
        rows += _off_target(group, texts, off_target(name, measures, ds))
        rows += _reward_drift(group, rewards)
        part = _adjusted(pd.DataFrame([{"attribute": name, **row} for row in rows], columns=list(COLUMNS)))
        effects = {
            model: float(np.mean(values))
            for model, r in rewards.items()
            if len(values := row_values(r[group.rows], group.treated, group.clusters, "rate")[0])
        }
        word, because = verdict(part, group.treated, len(np.unique(group.clusters)), effects)
        last = {"attribute": name, "check": "verdict", "group": word, "n": len(group.rows), "words": because}
        parts.append(pd.concat([part, pd.DataFrame([last])], ignore_index=True))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _adjusted(part: pd.DataFrame) -> pd.DataFrame:
    tested = part["check"].isin(["balance", "drift"])
    part["p_adjusted"] = np.nan
    part.loc[tested, "p_adjusted"] = adjust(part[tested])["p_adjusted"]
    return part


def _row(
    check: str, group: str, about: str, values: Floats, clusters: Any, sd: float = 1.0, words: str = "",
    magnitude: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    mean = clustered_mean(values, clusters, magnitude)
    value, se = mean.value, mean.se if mean.se > 0 else float("nan")
    p = mean.interval()[2] if check in ("dose", "balance", "drift") else float("nan")
    in_sd = value / sd if sd > 0 and check in ("dose", "balance", "drift") else float("nan")
    return {"check": check, "group": group, "about": about, "value": value, "in_sd": in_sd, "se": se, "p_value": p,
            "n": len(values), "words": words}  # fmt: skip


def _status(group: Group, texts: list[list[str | None]], statuses: list[list[str]] | None) -> Any:
    """Shares of "ok", and of each failure, per rewrite."""
    depth = max((len(texts[i]) for i in group.rows), default=1) - 1
    n = len(group.rows)
    for k in range(1, depth + 1):
        if statuses is None:
            found = ["ok" if len(texts[i]) > k and texts[i][k] is not None else "missing" for i in group.rows]
        else:
            found = [statuses[i][k - 1] if len(statuses[i]) >= k else "missing" for i in group.rows]
        for status, count in sorted(Counter(found).items(), key=lambda item: item[0] != "ok"):
            name = f"rewrite {k}" if status == "ok" else f"rewrite {k}, {status}"
            yield {"check": "status", "group": name, "about": status, "value": count / n, "n": n,
                   "words": f"{count} of {n}"}  # fmt: skip
        if "ok" not in found:
            yield {
                "check": "status",
                "group": f"rewrite {k}",
                "about": "ok",
                "value": 0.0,
                "n": n,
                "words": f"0 of {n}",
            }


def _on_target(group: Group, texts: list[list[str | None]], measure: Measure | None) -> list[Any]:
    """Compliance and dose per direction and pass, drift of the attribute's own measure, similarity."""
    from rapidfuzz import fuzz

    rows = []
    mine = [texts[i] for i in group.rows]
    m = measured(measure, mine, "the attribute's measure") if measure else np.empty((len(mine), 0))
    sd = _sd(m, group.treated)
    for side in (True, False):
        own = group.treated == side
        for k in range(1, m.shape[1]):
            asked = 1.0 if side == (k % 2 == 0) else -1.0
            used = own & np.isfinite(m[:, k]) & np.isfinite(m[:, k - 1])
            if not used.any():
                continue
            moved = m[used, k] - m[used, k - 1]
            towards = SIDE[asked > 0]
            name, codes = f"{SIDE[side]}, rewrite {k}", group.clusters[used]
            share = (moved * asked > 0).astype(float)
            rows.append(_row("compliance", name, "own", share, codes, words=f"towards {towards}"))
            rows.append(_row("dose", name, "own", moved, codes, sd, f"towards {towards}", _size(m)))
        unit = getattr(measure, "__name__", "in its own measure")
        rows += [{**row, "words": unit} for row in _drift(m, own, group, "own", SIDE[side], sd)]
        alike = np.array([
            fuzz.ratio(c[0], c[2]) / 100 if len(c) > 2 and c[0] and c[2] is not None else np.nan for c in mine
        ])  # fmt: skip
        used = own & np.isfinite(alike)
        if used.any():
            rows.append(
                _row("similarity", SIDE[side], "original and second rewrite", alike[used], group.clusters[used])
            )
    return rows


def _off_target(group: Group, texts: list[list[str | None]], measures: Mapping[str, Measure]) -> list[Any]:
    """Balance and drift of each measure that the rewrites should leave alone."""
    rows = []
    mine = [texts[i] for i in group.rows]
    for name, measure in measures.items():
        m = measured(measure, mine, name)
        sd = _sd(m, group.treated)
        for side in (True, False):
            own = group.treated == side
            if m.shape[1] > 2:
                used = own & np.isfinite(m[:, 1]) & np.isfinite(m[:, 2])
                if used.any():
                    moved = m[used, 2] - m[used, 1]
                    rows.append(
                        _row("balance", f"{SIDE[side]}, {name}", name, moved, group.clusters[used], sd, "", _size(m))
                    )
            rows += _drift(m, own, group, name, f"{SIDE[side]}, {name}", sd)
    return rows


def _reward_drift(group: Group, rewards: Mapping[str, Floats]) -> list[Any]:
    """E[r3 - r1] per class and reward model."""
    rows = []
    for name, matrix in rewards.items():
        r = matrix[group.rows]
        for side in (True, False):
            label = f"{SIDE[side]}, reward {name}"
            own = group.treated == side
            rows += _drift(r, own, group, f"reward/{name}", label, _sd(r, group.treated))
            used = own & np.isfinite(r[:, :4]).all(axis=1)
            if r.shape[1] > 3 and used.any():
                fit = convergence(r[used], group.clusters[used])
                words = "estimated" if fit.estimated else "held: m0 - m2 is within noise, or the ratio is out of bounds"
                rows.append({"check": "rho", "group": label, "about": f"reward/{name}", "value": fit.rho,
                             "n": int(used.sum()), "words": words})  # fmt: skip
    return rows


def _drift(values: Floats, own: Bools, group: Group, about: str, label: str, sd: float) -> list[Any]:
    if values.shape[1] < 4:
        return []
    used = own & np.isfinite(values[:, 1]) & np.isfinite(values[:, 3])
    if not used.any():
        return []
    moved = values[used, 3] - values[used, 1]
    return [_row("drift", label, about, moved, group.clusters[used], sd, "", _size(values))]


def _size(values: Floats) -> float:
    """The largest number: differences under its rounding are none."""
    return float(np.nanmax(np.abs(values), initial=0))


def _sd(values: Floats, treated: Bools) -> float:
    """Within-class SD of the originals."""
    return pooled_sd(values[:, 0], treated) if values.shape[1] else float("nan")
