"""`diagnose`: what the rewriter did, measured on the texts and on the rewards, and what follows from it.

RATE assumes that a rewrite changes the attribute (compliance), nothing else that the rewrite of the rewrite does not
change alike (balance), and that each pass does the same (drift). Each is a row; the verdicts are those of
`rk.verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.conclusions import Verdict
from ratekit.diagnostics.evidence import Evidence, evidence, statuses_of
from ratekit.diagnostics.verdicts import judged, scale_of
from ratekit.estimators import Bools, Floats, RewardScale, clustered_mean, convergence, rounding_of
from ratekit.groups import SIDE, chains, rewards_of
from ratekit.intervals import sds_interval
from ratekit.measures import Looked, Measure
from ratekit.resampling import adjust
from ratekit.schema import ATTRIBUTE
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("attribute", "check", "group", "about", "value", "in_sd", "se", "p_value", "p_adjusted", "n", "low", "high",
           "margin", "outcome", "words")  # fmt: skip


def diagnose(
    ds: Any, *, measures: Mapping[str, Measure] | None = None, by: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """What was seen of the rewrites, one row each, the rules applied to it, and the verdicts.

    Parameters
    ----------
    ds
        Rewritten rows, scored or not; Dataset or DataFrame.
    measures
        {name: texts -> numbers} beside words, sentiment, readability and faults; under an attribute's own name, what
        its compliance is measured by.
    by
        Columns to group by; each group is judged by itself.

    Returns
    -------
    pandas.DataFrame
        Columns (after those of `by`): attribute, check, group, about (the measure or reward model), value, in_sd
        (value in SDs of the originals), se (of value), p_value, p_adjusted (Benjamini-Hochberg over the attribute's
        balance and drift rows), n, low, high (the 95 % interval: of a rule's value; of in_sd in dose, balance and
        drift, with the SD's own error), margin, outcome, words. The checks:

        - status: share of rewrites that are "ok", and of each other status
        - compliance: share of rewrites in which the attribute's measure moved the way that was asked for
        - dose: by how much it moved, in the measure's units
        - content: share of the words of a rewrite and its source that they have in common
        - similarity: of the rewrite of the rewrite to the original, 0 to 1 (`rapidfuzz.fuzz.ratio`)
        - balance: how another measure moved from the first rewrite to the second; moves of the same sign in the two
          classes cancel in RATE's ATE, those of opposite signs do not
        - drift: how a measure, or a reward, differs between the third rewrite and the first, which were asked for
          the same. Needs depth 3
        - rho: share of the off-target residue that a pass leaves, per class and reward model. Needs depth 3
        - rule: a rule of `ratekit.diagnostics.verdicts.RULES` (group) about a reward model: value, low, high, margin
          and outcome
        - verdict: its word (group), the reward model (about) and the reason (words)

    Raises
    ------
    InputError
        For a missing column, and for a measure that does not give one number a text.

    Examples
    --------
    >>> import ratekit as rk
    >>> for attribute in ("length", "sentiment"):
    ...     checks = rk.diagnose(rk.load("reviews", attribute=attribute))
    ...     print(attribute, "-", checks[checks.check == "verdict"].group.item())
    length - do not trust
    sentiment - trust with care
    """
    return examine(ds, measures=measures, by=by)[0]


def examine(
    ds: Any,
    table: pd.DataFrame | None = None,
    *,
    measures: Mapping[str, Measure] | None = None,
    by: str | Sequence[str] | None = None,
    looked: Looked | None = None,
) -> tuple[pd.DataFrame, list[Verdict]]:
    """What `diagnose` gives and what `verdicts` gives, with each text measured once, or where it was `looked` at."""
    import pandas as pd

    ds = rows_for("diagnose", ds)
    rewards = dict(rewards_of(ds))
    looked = looked or Looked()
    found = list(evidence(ds, measures, by, looked))
    verdicts = judged(found, ds, table, by, measures, looked)
    parts = []
    texts, statuses = chains(ds), statuses_of(ds)
    for seen in found:
        alike = np.array([_alike(texts[i]) for i in seen.rows])
        rows = [
            *_status([statuses[i] for i in seen.rows], seen.depth),
            *_on_target(seen, alike),
            *_off_target(seen),
            *_reward_drift(seen, rewards),
        ]
        part = _adjusted(pd.DataFrame(rows, columns=list(_COLUMNS[1:])))
        mine = [v for v in verdicts if {**v.by, ATTRIBUTE: v.attribute} == _said(seen)]
        last = pd.DataFrame([row for v in mine for row in _judged(v, len(seen.rows))], columns=list(_COLUMNS[1:]))
        part = pd.concat([part.astype(object), last.astype(object)], ignore_index=True)
        for place, (name, value) in enumerate(seen.labels.items()):
            part.insert(place, name, [value] * len(part))
        parts.append(part)
    checks = pd.concat(parts, ignore_index=True).infer_objects()
    numbers = ["value", "in_sd", "se", "p_value", "p_adjusted", "low", "high", "margin"]
    return checks.astype({**dict.fromkeys(numbers, float), "n": int}), verdicts


def _said(seen: Evidence) -> dict[str, Any]:
    return {**seen.labels, ATTRIBUTE: str(seen.labels[ATTRIBUTE])}


def _judged(verdict: Verdict, n: int) -> Iterator[dict[str, Any]]:
    """A verdict as rows: its checks, then its word."""
    about = verdict.reward_model or ""
    for check in verdict.checks:
        yield {"check": "rule", "group": check.name, "about": about, "value": check.value, "n": n, "low": check.low,
               "high": check.high, "margin": check.margin, "outcome": check.outcome, "words": check.text}  # fmt: skip
    yield {"check": "verdict", "group": verdict.word, "about": about, "n": n, "words": verdict.reason}


def _adjusted(part: pd.DataFrame) -> pd.DataFrame:
    tested = part["check"].isin(["balance", "drift"])
    part["p_adjusted"] = np.nan
    part.loc[tested, "p_adjusted"] = adjust(part[tested])["p_adjusted"]
    return part


def _row(
    check: str, group: str, about: str, values: Floats, clusters: Any, scale: RewardScale | None = None,
    words: str = "", rounding: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    mean = clustered_mean(values, clusters, rounding)
    row = {"check": check, "group": group, "about": about, "value": mean.value, "n": len(values), "words": words,
           "se": mean.se if mean.se > 0 else float("nan")}  # fmt: skip
    if scale is not None:  # dose, balance, drift
        in_sd, low, high, _ = sds_interval(values, clusters, scale, rounding)
        row |= {"p_value": mean.interval()[2], "in_sd": in_sd, "low": low, "high": high}
    return row


def _alike(chain: list[str | None]) -> float:
    """Likeness of the rewrite of the rewrite to the original, 0 to 1."""
    from rapidfuzz import fuzz

    return fuzz.ratio(chain[0], chain[2]) / 100 if len(chain) > 2 and chain[0] and chain[2] is not None else np.nan


def _status(statuses: list[list[str]], depth: int) -> Iterator[dict[str, Any]]:
    """Shares of "ok", and of each failure, per rewrite."""
    n = len(statuses)
    for k in range(1, depth + 1):
        found = [s[k - 1] if len(s) >= k else "missing" for s in statuses]
        for status, count in sorted(Counter(found).items(), key=lambda item: item[0] != "ok"):
            name = f"rewrite {k}" if status == "ok" else f"rewrite {k}, {status}"
            yield {"check": "status", "group": name, "about": status, "value": count / n, "n": n,
                   "words": f"{count} of {n}"}  # fmt: skip
        if "ok" not in found:
            yield {"check": "status", "group": f"rewrite {k}", "about": "ok", "value": 0.0, "n": n,
                   "words": f"0 of {n}"}  # fmt: skip


def _on_target(group: Evidence, alike: Floats) -> list[dict[str, Any]]:
    """Compliance and dose per direction and pass, drift of the attribute's own measure, what is kept, similarity."""
    rows = []
    m = group.own
    scale = scale_of(group, m)
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
            rows.append(_row("dose", name, "own", moved, codes, scale, f"towards {towards}", rounding_of(m)))
        rows += [{**row, "words": group.unit} for row in _drift(m, own, group, "own", SIDE[side], scale)]
        for k in range(1, group.depth + 1):
            kept = group.kept[:, k - 1]
            used = own & np.isfinite(kept)
            if used.any():
                name = f"{SIDE[side]}, rewrite {k}"
                rows.append(_row("content", name, "words shared with its source", kept[used], group.clusters[used]))
        used = own & np.isfinite(alike)
        if used.any():
            rows.append(
                _row("similarity", SIDE[side], "original and second rewrite", alike[used], group.clusters[used])
            )
    return rows


def _off_target(group: Evidence) -> list[dict[str, Any]]:
    """Balance and drift of each measure that the rewrites should leave alone."""
    rows = []
    for name, m in group.others.items():
        scale = scale_of(group, m)
        for side in (True, False):
            own = group.treated == side
            if m.shape[1] > 2:
                used = own & np.isfinite(m[:, 1]) & np.isfinite(m[:, 2])
                if used.any():
                    moved = m[used, 2] - m[used, 1]
                    codes, label = group.clusters[used], f"{SIDE[side]}, {name}"
                    rows.append(_row("balance", label, name, moved, codes, scale, "", rounding_of(m)))
            rows += _drift(m, own, group, name, f"{SIDE[side]}, {name}", scale)
    return rows


def _reward_drift(group: Evidence, rewards: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """E[r3 - r1] per class and reward model."""
    rows = []
    for name, matrix in rewards.items():
        r = matrix[group.rows]
        for side in (True, False):
            label = f"{SIDE[side]}, reward {name}"
            own = group.treated == side
            rows += _drift(r, own, group, f"reward/{name}", label, scale_of(group, r))
            used = own & np.isfinite(r[:, :4]).all(axis=1)
            if r.shape[1] > 3 and used.any():
                fit = convergence(r[used], group.clusters[used])
                words = "estimated" if fit.estimated else "held: m0 - m2 is within noise, or the ratio is out of bounds"
                rows.append({"check": "rho", "group": label, "about": f"reward/{name}", "value": fit.rho,
                             "n": int(used.sum()), "words": words})  # fmt: skip
    return rows


def _drift(
    values: Floats, own: Bools, group: Evidence, about: str, label: str, scale: RewardScale
) -> list[dict[str, Any]]:
    if values.shape[1] < 4:
        return []
    used = own & np.isfinite(values[:, 1]) & np.isfinite(values[:, 3])
    if not used.any():
        return []
    moved = values[used, 3] - values[used, 1]
    return [_row("drift", label, about, moved, group.clusters[used], scale, "", rounding_of(values))]
