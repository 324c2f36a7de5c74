"""What the numbers say, in words for somebody who has never heard of RATE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.diagnostics import sensitivity
from ratekit.errors import shorten
from ratekit.plots.look import grouping
from ratekit.reports.tables import Table
from ratekit.stages import standardize

if TYPE_CHECKING:
    import pandas as pd

TRUST = {
    "trust": ("good", "The rewrites can be trusted"),
    "trust with care": ("care", "Read with care"),
    "do not trust": ("bad", "Do not trust these numbers yet"),
}


class Finding(NamedTuple):
    """One attribute under one reward model: a sentence, and the numbers of its row in the summary table."""

    attribute: str
    model: str
    verdict: str
    sentence: str
    numbers: dict[str, str]


def question(table: pd.DataFrame | None, audited: bool = False) -> str:
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

    >>> making("length")
    'Making a response longer rather than shorter'
    >>> making("sentiment")
    'Making a response more positive rather than more negative in sentiment'
    >>> making("politeness")
    'Giving a response politeness rather than taking it away'
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


def findings(table: pd.DataFrame) -> list[Finding]:
    """One finding for each attribute and reward model that has a RATE estimate, in reward SDs where there are any."""
    has_sd = bool(table["reward_sd"].gt(0).any())
    rows = sensitivity(standardize(table) if has_sd else table)
    unit = "reward SDs" if has_sd else "reward units"
    keys = [*grouping(rows), "attribute", "reward_model"]
    found = []
    for labels, group in rows.groupby(keys, sort=False, dropna=False):
        of = {(r["estimator"], r["estimand"]): r for r in group.to_dict("records")}
        estimands = [e for e in ("ate", "att", "atu") if ("rate", e) in of]
        if estimands:
            extra = ", ".join(f"{k} {v}" for k, v in zip(keys[:-2], labels[:-2], strict=True))
            found.append(_finding(str(labels[-2]), str(labels[-1]), extra, of, estimands[0], unit))
    return found


def _finding(attribute: str, model: str, extra: str, of: dict[Any, Any], estimand: str, unit: str) -> Finding:
    rate = of["rate", estimand]
    naive = of.get(("naive", "ate")) if estimand == "ate" else None
    among = {"ate": "", "att": " for responses that have it", "atu": " for responses that lack it"}[estimand]
    size = f"{abs(rate['estimate']):.2f} {unit}"
    interval = f"(95 % interval {rate['ci_low']:+.2f} to {rate['ci_high']:+.2f})"
    if not rate["se"] > 0 and abs(rate["estimate"]) < 1e-12:
        verdict = "no effect seen"
        said = f"does not change its reward{among} in any of these rows."
    elif not rate["se"] > 0:
        verdict = "no interval"
        said = f"changes its reward{among} by {rate['estimate']:+.2f} {unit} in these rows; how much of that may be "
        said += "chance they do not tell."
    elif rate["ci_low"] > 0 or rate["ci_high"] < 0:
        verdict = "raises" if rate["estimate"] > 0 else "lowers"
        said = f"{verdict} its reward{among} by {size} {interval}."
    else:
        verdict = "no effect seen"
        said = f"is not seen to change its reward{among}: {rate['estimate']:+.2f} {unit} {interval}."
    if naive is not None and naive["estimate"] == naive["estimate"]:
        gap = naive["estimate"] - rate["estimate"]
        outside = not naive["ci_low"] <= rate["estimate"] <= naive["ci_high"]
        said += f" Comparing responses as they come says {naive['estimate']:+.2f}"
        said += f", which is {abs(gap):.2f} too {'much' if gap > 0 else 'little'}." if outside else "."
    numbers = {"reward model": model, "attribute": f"{attribute} ({extra})" if extra else attribute}
    for name, label in (("naive", "naive"), ("single_rewrite", "single rewrite"), ("rate", "RATE")):
        row = of.get((name, estimand))
        numbers[label] = "" if row is None else f"{row['estimate']:+.2f}"
    numbers["95 % interval"] = f"{rate['ci_low']:+.2f} to {rate['ci_high']:+.2f}" if rate["se"] > 0 else "none"
    late = of.get(("rate_extrapolated", estimand))
    if late is not None:
        numbers["drift removed"] = f"{late['estimate']:+.2f}"
    tips = rate.get("tips_significance", float("nan"))
    numbers["overturned by"] = "" if np.isnan(tips) or tips == 0 else f"{tips:.2f}"
    numbers |= {"n": f"{rate['n']:,}", "dropped": f"{rate['n_dropped']:,}"}
    return Finding(numbers["attribute"], model, verdict, said, numbers)


def subjects(table: pd.DataFrame | None, checks: pd.DataFrame | None) -> list[dict[str, Any]]:
    """For each attribute: what is varied, whether its rewrites can be trusted and why, and its findings."""
    found = findings(table) if table is not None else []
    verdicts = (
        {} if checks is None else {str(r.attribute): r for r in checks[checks["check"] == "verdict"].itertuples()}
    )
    names = list(dict.fromkeys([*(f.attribute for f in found), *verdicts]))
    said = []
    for name in names:
        verdict = verdicts.get(name.split(" (")[0])
        kind, title = TRUST[verdict.group] if verdict else ("unknown", "The rewrites were not checked")
        reasons = str(verdict.words).removeprefix("because ").split("; ") if verdict else []
        said.append({
            "name": name, "making": making(name.split(" (")[0]), "kind": kind, "title": title, "reasons": reasons,
            "findings": [f for f in found if f.attribute == name],
        })  # fmt: skip
    return said


def summary(found: list[Finding]) -> Table | None:
    """The findings as a table, one row each."""
    columns = list(dict.fromkeys(name for finding in found for name in finding.numbers))
    rows = [[finding.numbers.get(name, "") for name in columns] for finding in found]
    return Table(columns, [name not in ("reward model", "attribute") for name in columns], rows) if rows else None
