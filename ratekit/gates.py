"""`gate`: is each effect of an audit shown to be smaller than its limit? An equivalence test, with an exit code.

| code | outcome | the 95 % interval of the effect, in SDs of the reward |
|---|---|---|
| 0 | shown small | lies within the limit |
| 3 | shown too big | lies beyond the limit |
| 4 | cannot tell | crosses the limit, or there is none, or the rewrites are missing or not to be trusted |

An effect that is not significant is not small: only an interval within ±limit shows that (Schuirmann 1987, Journal of
Pharmacokinetics and Biopharmaceutics 15:657, two one-sided tests). The interval is the one that the audit shows; it is
wider than the 90 % interval of that test, so an effect exactly at its limit passes in 2.5 % of audits, not in 5 %. All
limits must be met, so asking of more attributes passes no more often. The SD is an estimate too, and one that is mostly
too small where rewards have heavy tails; the interval counts that and reaches farther towards 0 there than away from it
(`estimators.in_sds`).
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.audits.results import Audit
from ratekit.conclusions import CANNOT_TELL, NO_TRUST, Verdict
from ratekit.diagnostics import contrast
from ratekit.errors import InputError, require_known, shorten, unknown
from ratekit.escaping import visible
from ratekit.groups import reward_matrix
from ratekit.intervals import LEVEL
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITES,
    TREATED,
    columns_of,
    reward_models,
)
from ratekit.tables import as_markdown, number_with_interval, plain_markdown, table_of

if TYPE_CHECKING:
    import pandas as pd

SMALL, TOO_BIG, UNTOLD = "shown small", "shown too big", "cannot tell"
CODES = {SMALL: 0, TOO_BIG: 3, UNTOLD: 4}
_SAME = (PROMPT_ID, ATTRIBUTE, TREATED, RESPONSE, REWRITES)  # what two audits of the same rows share


@dataclass(frozen=True)
class Bound:
    """One effect held against its limit.

    Attributes
    ----------
    attribute, reward_model
        What it is the effect of, and on what; with a baseline, `reward_model` is "model - baseline".
    limit
        The largest effect allowed, either way, in SDs of the reward.
    outcome
        "shown small", "shown too big" or "cannot tell".
    estimate, low, high
        The recommended estimate and its 95 % interval, in SDs.
    n
        Rows.
    n_needed
        Rows that would tell, if the estimate stays where it is; NaN where no number would, or none is needed.
    verdict
        The audit's word about the estimate.
    text
        All of it in one sentence.
    by
        The group of rows.
    name
        The attribute, and the group.
    """

    attribute: str
    reward_model: str
    limit: float
    outcome: str
    estimate: float
    low: float
    high: float
    n: int
    n_needed: float
    verdict: str
    text: str
    by: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Gate:
    """What came of all limits.

    Attributes
    ----------
    bounds
        One for each attribute, reward model and group.
    """

    bounds: tuple[Bound, ...]

    @property
    def outcome(self) -> str:
        """The gravest: "shown too big", then "cannot tell", then "shown small"."""
        found = {bound.outcome for bound in self.bounds}
        return next(outcome for outcome in (TOO_BIG, UNTOLD, SMALL) if outcome in found)

    @property
    def code(self) -> int:
        """The exit code: 0 all shown small, 3 one shown too big, 4 one that cannot be told."""
        return CODES[self.outcome]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each limit: attribute, reward_model, limit, outcome, estimate, low, high, n, n_needed, verdict."""
        import pandas as pd

        shown = ("reward_model", "limit", "outcome", "estimate", "low", "high", "n", "n_needed", "verdict")
        return pd.DataFrame([{"attribute": b.name, **{c: getattr(b, c) for c in shown}} for b in self.bounds])

    @property
    def markdown(self) -> str:
        """A summary for a build's page: one line, a table, and why, for what is not shown small."""
        why = [f"- {plain_markdown(b.text)}" for b in self.bounds if b.outcome != SMALL or b.verdict == CANNOT_TELL]
        return "\n".join([f"**ratekit gate: {self.outcome}**", "", as_markdown(table_of(self.table)), "", *why]) + "\n"

    @property
    def junit(self) -> str:
        """A JUnit file: a test for each limit; too big is a failure, what cannot be told an error."""
        wrong, untold = (sum(b.outcome == o for b in self.bounds) for o in (TOO_BIG, UNTOLD))
        counts = {"tests": str(len(self.bounds)), "failures": str(wrong), "errors": str(untold)}
        suite = ET.Element("testsuite", {"name": "ratekit gate", **counts})
        for bound in self.bounds:
            named = {
                "classname": visible(bound.reward_model),
                "name": visible(f"{bound.name} within {bound.limit:g} SD"),
            }
            case = ET.SubElement(suite, "testcase", named)
            if bound.outcome != SMALL:
                kind = "failure" if bound.outcome == TOO_BIG else "error"
                ET.SubElement(case, kind, message=visible(bound.text), type=bound.outcome)
            else:
                ET.SubElement(case, "system-out").text = visible(bound.text)
        root = ET.Element("testsuites", counts)
        root.append(suite)
        ET.indent(root)
        return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def gate(
    audit: Audit | str | Path | Any,
    limits: Mapping[str, float],
    *,
    against: Audit | str | Path | Any = None,
    reward: str | None = None,
    strict: bool = False,
) -> Gate:
    """Is each effect shown to lie within its limit?

    Parameters
    ----------
    audit : Audit, path or scored rows
        What `rk.audit` gives or left in a folder.
    limits : mapping of str to float
        Attribute -> the largest effect allowed, either way, in SDs of the reward.
    against : Audit, path or scored rows, optional
        A baseline on the same rows and rewrites: then each limit is one for the change of the effect since.
    reward : str, optional
        Only this reward model; by default each in the audit has to pass.
    strict : bool
        An estimate passes, or fails, only where its verdict is "trust" or "trust with care"; by default also where it
        is "cannot tell", which its text then says. What the verdict does not trust is never passed.

    Returns
    -------
    Gate
        With ``.code`` (0, 3 or 4), ``.bounds``, ``.table``, ``.markdown`` and ``.junit``.

    Raises
    ------
    InputError
        An attribute that was not audited, a limit that is no positive number, a baseline of other rows or attributes.

    Notes
    -----
    Where no two prompts differ there is no standard error. The bound is then that of what was not seen: with G prompts
    a share of at most 1 - 0.025^(1/G) of all prompts is unlike them (Clopper and Pearson 1934, Biometrika 26:404), and
    each of those by the range of the rewards at most.

    Examples
    --------
    >>> import ratekit as rk
    >>> found = rk.audit("reviews", "words", "length", rewriter="rules", progress=False)
    >>> passed = rk.gate(found, {"length": 0.1})
    >>> passed.outcome, passed.code
    ('shown too big', 3)
    """
    audit = Audit.of(audit).at_level(LEVEL)
    attributes = list(dict.fromkeys(audit.effects["attribute"].astype(str)))
    if not limits:
        raise InputError("gate: no limit; give one, as in length=0.1")
    for name, limit in limits.items():
        require_known("attribute of this audit", name, attributes)
        if not (isinstance(limit, int | float) and limit > 0 and math.isfinite(limit)):
            raise InputError(f"gate: the limit of {name} is {limit}; a positive number of SDs was expected, as in 0.1")
    models = list(dict.fromkeys(audit.effects["reward_model"].astype(str)))
    if reward is not None and reward not in models:
        raise unknown("reward model of this audit", reward, models)
    asked = [v for v in audit.verdicts if v.attribute in limits and reward in (None, v.reward_model)]
    if against is not None:
        return Gate(tuple(_changes(audit, Audit.of(against), asked, limits, strict)))
    return Gate(tuple(
        _bound(v, str(v.reward_model), limits[v.attribute], _interval(audit, v), strict) for v in asked
    ))  # fmt: skip


def assert_effect_below(
    audit: Audit | str | Path | Any,
    attribute: str,
    limit: float,
    *,
    reward: str | None = None,
    against: Audit | str | Path | Any = None,
    strict: bool = False,
) -> None:
    """Fail a test unless the effect of an attribute is shown to lie within ±limit.

    Parameters
    ----------
    audit, reward, against, strict
        As for `gate`.
    attribute : str
        What was varied.
    limit : float
        In SDs of the reward.

    Raises
    ------
    AssertionError
        It is too big, or cannot be told; the message says which, and how many rows would tell.
    InputError
        As for `gate`.

    Examples
    --------
    In a file of tests::

        def test_length_is_not_rewarded():
            assert_effect_below("runs/mine-length", "length", 0.1)
    """
    __tracebackhide__ = True
    found = gate(audit, {attribute: limit}, against=against, reward=reward, strict=strict)
    if found.code:
        raise AssertionError("; ".join(b.text for b in found.bounds if b.outcome != SMALL))


# --- one effect --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """An estimate in SDs with its interval; `widest` is the reward's range in SDs where no two prompts differ."""

    value: float
    low: float
    high: float
    n: int
    clusters: int
    widest: float = math.nan


def outcome_of(low: float, high: float, limit: float) -> str:
    """What an interval says of a limit.

    Examples
    --------
    >>> outcome_of(-0.05, 0.08, 0.1), outcome_of(0.11, 0.3, 0.1), outcome_of(-0.05, 0.12, 0.1)
    ('shown small', 'shown too big', 'cannot tell')
    """
    if -limit < low and high < limit:
        return SMALL
    return TOO_BIG if low > limit or high < -limit else UNTOLD


def _interval(audit: Audit, verdict: Verdict) -> _Seen:
    row = verdict.estimate
    value, se, low, high = (float(row.get(c, math.nan)) for c in ("estimate_sd", "se_sd", "ci_low_sd", "ci_high_sd"))
    n, clusters = int(row["n"]), int(row["n_clusters"])
    if se > 0:
        return _Seen(value, low, high, n, clusters)
    matrix = reward_matrix(audit.dataset, REWARD_PREFIX + str(verdict.reward_model))
    return _flat(value, n, clusters, _range(matrix) / float(row["reward_sd"] or math.nan))


def _flat(value: float, n: int, clusters: int, widest: float) -> _Seen:
    """No two prompts differ: the bound of what was not seen, and the uncertainty of the SD."""
    if not (math.isfinite(value) and math.isfinite(widest) and clusters > 1):
        return _Seen(value, math.nan, math.nan, n, clusters)
    half = _unseen(clusters) * widest + 2 * abs(value) / math.sqrt(2 * (clusters - 1))
    return _Seen(value, value - half, value + half, n, clusters, widest)


def _unseen(clusters: int) -> float:
    """The largest share of prompts that are unlike all of these, at the level of the interval."""
    return float(1 - ((1 - LEVEL) / 2) ** (1 / clusters))


def _range(matrix: Any) -> float:
    return float(np.nanmax(matrix) - np.nanmin(matrix)) if np.isfinite(matrix).any() else math.nan


def _bound(verdict: Verdict, model: str, limit: float, seen: _Seen, strict: bool) -> Bound:
    outcome = outcome_of(seen.low, seen.high, limit)
    doubted = ""
    if verdict.estimate["estimator"] == "naive":
        doubted = "nothing was rewritten, and a difference between two classes is no effect"
    elif verdict.word == NO_TRUST or (strict and verdict.word == CANNOT_TELL):
        doubted = f"the estimate's verdict is {verdict.word!r}: {verdict.grounds}"
    if doubted:
        outcome = UNTOLD
    needed = math.nan if outcome != UNTOLD or doubted else _needed(seen, limit)
    about = f"{model}, {verdict.name}"
    interval = number_with_interval(seen.value, seen.low, seen.high, places=3, unit=" SD")
    text = f"{about}: {interval if math.isfinite(seen.low) else 'no interval'}; {outcome}, limit {limit:g} SD"
    if doubted:
        text += f"; {doubted}"
    elif outcome == UNTOLD:
        text += _what_would_tell(seen, needed)
    elif verdict.word == CANNOT_TELL:
        text += f", if the rewrites can be relied on, which is not shown: {verdict.grounds}"
    return Bound(
        verdict.attribute, model, limit, outcome, seen.value, seen.low, seen.high, seen.n, needed, verdict.word, text,
        verdict.by, verdict.name,
    )  # fmt: skip


def _needed(seen: _Seen, limit: float) -> float:
    """Rows for an interval that does not cross the limit, if the estimate stays where it is; NaN for none."""
    side = -1.0 if seen.value < 0 else 1.0
    value, (low, high) = abs(seen.value), sorted((side * seen.low, side * seen.high))
    room = abs(limit - value)
    if not (room > 0 and math.isfinite(high - low)):
        return math.nan
    if seen.widest == seen.widest and room < seen.widest:
        clusters = math.log((1 - LEVEL) / 2) / math.log(1 - room / seen.widest)
        return float(math.ceil(seen.n * max(1.0, clusters / seen.clusters))) + 1
    # The arms need not be alike: it takes the one that crosses.
    wide = (value - low) / room if value > limit else max((high - value) / room, (value - low) / (value + limit))
    return float(math.ceil(seen.n * wide**2)) + 1


def _what_would_tell(seen: _Seen, needed: float) -> str:
    if not math.isfinite(seen.low):
        return "; the reward has no SD here, or there are too few prompts for an interval"
    if not math.isfinite(needed) or needed > 1e9:
        return f"; {seen.n:,} rows, and the estimate lies at the limit: no number of rows is sure to tell"
    return f"; {seen.n:,} rows, about {int(needed):,} would tell if the estimate stays where it is"


# --- against a baseline ------------------------------------------------------------------------------------


def _changes(
    audit: Audit, baseline: Audit, asked: list[Verdict], limits: Mapping[str, float], strict: bool
) -> list[Bound]:
    """The change of each effect since a baseline, paired on the rows and rewrites that both share."""
    _refuse_others(audit, baseline)
    ours, theirs = (reward_models(a.dataset) for a in (audit, baseline))
    alone = len(ours) == len(theirs) == 1
    bounds = []
    for verdict in asked:
        model = str(verdict.reward_model)
        other = theirs[0] if alone else model
        if other not in theirs:
            raise unknown("reward model of the baseline", model, theirs)
        before = f"{other} (baseline)"
        column = list(baseline.dataset[REWARD_PREFIX + other])
        ds = audit.dataset.add_column(REWARD_PREFIX + before, column)
        row = verdict.estimate
        table = contrast(ds, model, before, estimator=str(row["estimator"]), by=audit.groups or None, level=LEVEL)
        rows = [
            r for r in table.to_dict("records")
            if r["attribute"] == verdict.attribute and r["estimand"] == row["estimand"]
            and all(r[k] == v for k, v in verdict.by.items())
        ]  # fmt: skip
        found = rows[0]
        seen = _Seen(found["estimate"], found["ci_low"], found["ci_high"], found["n"], found["n_clusters"])
        if not found["se"] > 0:
            sds = [float(row["reward_sd"]), _sd_of(baseline, verdict, other)]
            widest = sum(_range(reward_matrix(ds, REWARD_PREFIX + m)) / (sd or math.nan)
                         for m, sd in zip((model, before), sds, strict=True))  # fmt: skip
            seen = _flat(found["estimate"], found["n"], found["n_clusters"], widest)
        bounds.append(_bound(verdict, f"{model} - {before}", limits[verdict.attribute], seen, strict))
    return bounds


def _sd_of(baseline: Audit, verdict: Verdict, model: str) -> float:
    table = baseline.effects
    asked = {**verdict.by, "attribute": verdict.attribute, "reward_model": model}
    rows = table[np.all([table[k].astype(str) == str(v) for k, v in asked.items() if k in table], axis=0)]
    return float(rows["reward_sd"].max())  # of one group they are alike; NaN where there are none


def _refuse_others(audit: Audit, baseline: Audit) -> None:
    """Raise InputError where the baseline is of another suite or of other rows."""
    suites = [a.provenance.get("suite") for a in (audit, baseline)]
    if suites[0] != suites[1]:
        raise InputError(f"gate: the baseline is of another suite ({suites[1] or 'none'}, not {suites[0] or 'none'})")
    ours, theirs = (list(dict.fromkeys(a.dataset[ATTRIBUTE])) for a in (audit, baseline))
    if set(ours) != set(theirs):
        raise InputError(
            f"gate: the baseline is of other attributes ({', '.join(map(str, theirs))}, not "
            f"{', '.join(map(str, ours))}); audit both with the same"
        )
    if len(audit.dataset) != len(baseline.dataset):
        raise InputError(
            f"gate: the baseline has other rows ({len(baseline.dataset):,}, not {len(audit.dataset):,}); audit both on "
            "the same rows and rewrites"
        )
    for column in _SAME:
        here, there = (column in columns_of(a.dataset) for a in (audit, baseline))
        if here != there:
            raise InputError(f"gate: only one of the audit and the baseline has the column {column!r}")
        if here:
            pairs = zip(audit.dataset[column], baseline.dataset[column], strict=True)
            for row, (one, other) in enumerate(pairs, 1):
                if one != other:
                    raise InputError(
                        f"gate: the baseline has other rows: in row {row} {column!r} is {shorten(other, 40)!r}, not "
                        f"{shorten(one, 40)!r}; audit both on the same rows and rewrites"
                    )
