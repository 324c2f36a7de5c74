"""What the numbers say, in words for somebody who has never heard of RATE."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.conclusions import (
    CANNOT_TELL,
    CARE,
    NO_TRUST,
    TRUST,
    WORDS,
    Verdict,
    estimator_label,
    gravest_first,
    in_units,
    read_first,
)
from ratekit.diagnostics import sensitivity
from ratekit.errors import shorten
from ratekit.resampling import adjust
from ratekit.schema import grouping
from ratekit.tables import Table, interval_words, number_and_interval, p_words, to_places

if TYPE_CHECKING:
    import pandas as pd

ALWAYS = ("naive", "single_rewrite", "rate")  # the estimators that have a column in every table
BADGES = {  # of a verdict: its mark, what it says, and what to do
    TRUST: ("good", "The rewrites can be trusted", "The numbers can be used as they stand."),
    CARE: ("care", "Read with care",
           "The numbers can be used, with what stands under “Can it be trusted?” said beside them."),
    CANNOT_TELL: ("unknown", "It cannot be told whether to trust this",
                  "Do not act on the numbers yet: what is still to be shown stands under “Can it be trusted?”."),
    NO_TRUST: ("bad", "Do not trust these numbers yet",
               "Do not act on the numbers: mend first what stands under “Can it be trusted?”, and run again."),
}  # fmt: skip


ACTIONS = {
    "good": "Can be acted on", "care": "To be used with care", "unknown": "Cannot be told yet",
    "bad": "Not to be acted on yet",
}  # fmt: skip


def outcome(said: list[dict[str, Any]]) -> str:
    """Which attributes can be acted on, in short sentences.

    Examples
    --------
    >>> outcome([{"kind": "care", "name": "length"}, {"kind": "bad", "name": "tone"}])
    'To be used with care: length. Not to be acted on yet: tone.'
    """
    parts = []
    for kind, words in ACTIONS.items():
        names = [shorten(s["name"], 40) for s in said if s["kind"] == kind]
        if names:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            parts.append(f"{words}: {', '.join(names[:6])}{more}.")
    return " ".join(parts)


def page_title(table: pd.DataFrame | None, audited: bool = False) -> str:
    """The title of the page."""
    if table is None and audited:
        return "What does merging do to what these models reward?"
    if table is None:
        return "What does this reward model really reward?"
    models = [shorten(model) for model in dict.fromkeys(table["reward_model"])]
    if len(models) == 1:
        return f"What does {models[0]} really reward?"
    if len(models) == 2:
        return f"What do {models[0]} and {models[1]} really reward?"
    return f"What do these {len(models)} reward models really reward?"


def making(attribute: str) -> str:
    """What is varied, as the subject of a sentence.

    Examples
    --------
    >>> making("length")
    'Making a response longer rather than shorter'
    >>> making("sentiment")
    'Making a response more positive rather than more negative in sentiment'
    >>> making("wit")
    'Giving a response wit rather than taking it away'
    """
    known = ATTRIBUTES.get(attribute)
    if known is None:
        return f"Giving a response {attribute} rather than taking it away"
    words, others = known.treated.split(), known.untreated.split()
    shared = 0  # words at the end of both, which are said once
    while shared < min(len(words), len(others)) - 1 and words[-1 - shared] == others[-1 - shared]:
        shared += 1
    first = " ".join(words[: len(words) - shared])
    if first.startswith("such that"):
        return f"Rewording a response {first} rather than {known.untreated.removeprefix('such that it starts ')}"
    return f"Making a response {first} rather than {known.untreated}"


def _tipping_points(table: pd.DataFrame) -> dict[tuple[Any, ...], float]:
    """What would overturn each estimate, in reward SDs where there are any."""
    rows = sensitivity(table)
    keys = [*grouping(rows), "attribute", "reward_model", "estimator", "estimand"]
    return {
        tuple(str(row[k]) for k in keys): float(row.get("tips_significance", float("nan")))
        for row in rows.to_dict("records")
    }


def _numbers(
    verdict: Verdict, tips: dict[tuple[Any, ...], float], p_adjusted: float, else_in: str, level: float | None,
    shown: list[str],
) -> dict[str, str]:  # fmt: skip
    """The cells of one effect; `level` is that of the others, for one without an interval."""
    row = verdict.estimate
    numbers = {"reward model": verdict.reward_model or "", "attribute": verdict.name, "verdict": verdict.word}
    seen = in_units(row)
    unit = "" if seen.in_sds else else_in
    for estimator in shown:
        of = row if row["estimator"] == estimator else verdict.beside.get(estimator)
        numbers[estimator_label(estimator)] = "" if of is None else f"{to_places(in_units(of).estimate)}{unit}"
    numbers["read first"] = read_first(row)
    _, interval = number_and_interval(seen.estimate, seen.low, seen.high)
    called = interval_words([row.get("level") if interval else level])
    numbers[called] = f"{interval}{unit}" if interval else "none"
    numbers["adjusted p"] = p_words(p_adjusted)
    key = (*map(str, verdict.by.values()), verdict.attribute, str(verdict.reward_model), row["estimator"])
    tip = tips.get((*key, row["estimand"]), float("nan"))
    numbers["overturned by"] = "" if np.isnan(tip) or tip == 0 else to_places(tip, sign="")
    return numbers | {"n": f"{row['n']:,}", "dropped": f"{row['n_dropped']:,}"}


def subjects(verdicts: list[Verdict]) -> list[dict[str, Any]]:
    """For each attribute (and group): what is varied, the gravest of its verdicts and why, and its findings."""
    said = []
    for name in dict.fromkeys(v.name for v in verdicts):
        mine = [v for v in verdicts if v.name == name]
        worst = max(mine, key=lambda v: WORDS.index(v.word))
        kind, title, advice = BADGES[worst.word]
        reasons, others = reasons_of(mine)
        said.append({
            "name": name, "making": making(worst.attribute), "kind": kind, "title": title, "reasons": reasons,
            "others": others, "advice": advice, "findings": [v for v in mine if v.reward_model is not None],
        })  # fmt: skip
    return said


def reasons_of(verdicts: list[Verdict]) -> tuple[list[str], list[str]]:
    """What decided these verdicts, and what else is not shown fine; what is not said of all names its reward models."""
    decided: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for verdict in verdicts:
        first = [c for c in gravest_first(verdict.checks) if c.word != TRUST]
        for check in first:
            into = decided if check is first[0] or check.word == verdict.word else others
            into.setdefault(check.text, []).append(str(verdict.reward_model))
        if not first:
            decided.setdefault(verdict.reason, []).append(str(verdict.reward_model))

    def named(said: dict[str, list[str]]) -> list[str]:
        return [
            text if len(models) == len(verdicts) else f"{', '.join(models)}: {text}"
            for text, models in said.items() if text
        ]  # fmt: skip

    return named(decided), named(others)


def summary_table(verdicts: list[Verdict], table: pd.DataFrame) -> Table | None:
    """The effect to read first of each verdict, one row each; p is adjusted over these rows."""
    mine = [v for v in verdicts if v.estimate]
    if not mine:
        return None
    tips, rows = _tipping_points(table), adjusted_p_values(mine)
    else_in = " reward units" if table["reward_sd"].gt(0).any() else ""  # the cells of a reward without an SD
    level = next((v.estimate["level"] for v in mine if v.estimate.get("level")), None)
    shown = list(dict.fromkeys([*ALWAYS, *(str(v.estimate["estimator"]) for v in mine)]))
    found = [_numbers(v, tips, p, else_in, level, shown) for v, p in zip(mine, rows, strict=True)]
    columns = list(dict.fromkeys(name for numbers in found for name in numbers))
    cells = [[numbers.get(name, "") for name in columns] for numbers in found]
    return Table(
        columns, [name not in ("reward model", "attribute", "verdict", "read first") for name in columns], cells
    )


def adjusted_p_values(verdicts: list[Verdict]) -> list[float]:
    """The p-values of these effects, adjusted for their number (`rk.resampling.adjust`)."""
    import pandas as pd

    p = pd.DataFrame({"p_value": [float(v.estimate.get("p_value", math.nan)) for v in verdicts]})
    return [float(value) for value in adjust(p)["p_adjusted"]]
