"""The rules by which `diagnose` says trust, trust with care, or do not trust.

For each attribute every rule that applies gives a reason; the verdict is that of the gravest.

| what | do not trust | trust with care |
|---|---|---|
| rows | one cluster | one class, or fewer than 30 clusters |
| rewrites that are ok, worst pass | under 50 % | under 90 % |
| compliance, worst direction of passes 1 and 2 | under 70 % | under 90 % |
| dose | not told from 0, or the wrong way | |
| no measure of the attribute | | always |
| own measure, third rewrite against first | differs by over half the dose | by over a tenth |
| a reward, third rewrite against first | moved more than the RATE effect | moved over 0.1 SD |
| another measure, third rewrite against first | | over 0.2 SD |
| another measure, second rewrite against first | | over 0.5 SD |
| depth under 3 | | always: drift cannot be tested |

Drift and balance count only where p_adjusted < 0.05: a difference has to be there as well as to matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

TRUST, CARE, NO_TRUST = "trust", "trust with care", "do not trust"

OK_SHARE = (0.5, 0.9)
COMPLIANCE = (0.7, 0.9)
OWN_DRIFT = (0.5, 0.1)  # of the dose
REWARD_DRIFT_SD = 0.1
OTHER_DRIFT_SD = 0.2
BALANCE_SD = 0.5
FEW_CLUSTERS = 30
LEVEL = 0.05


def verdict(checks: pd.DataFrame, treated: Any, n_clusters: int, effects: Mapping[str, float]) -> tuple[str, str]:
    """The verdict on one attribute and its reasons, from the rows of `diagnose`.

    `effects` are the RATE ATEs by reward model, in the reward's units.
    """
    reasons = list(_reasons(checks, np.asarray(treated, bool), n_clusters, effects))
    grave = [why for word, why in reasons if word == NO_TRUST]
    careful = [why for word, why in reasons if word == CARE]
    if grave:
        return NO_TRUST, "because " + "; ".join(grave + careful)
    if careful:
        return CARE, "because " + "; ".join(careful)
    return TRUST, "the rewrites comply, leave other measures alone, and the third does what the first did"


def _reasons(
    checks: pd.DataFrame, treated: Any, n_clusters: int, effects: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    of = {name: rows for name, rows in checks.groupby("check")}
    if treated.all() or not treated.any():
        side, only = ("treated", "ATT") if treated.all() else ("untreated", "ATU")
        yield CARE, f"every row is {side}: only the {only} can be had"
    if n_clusters < 2:
        yield NO_TRUST, "all rows are one cluster (prompt_id), so nothing tells how much to expect of chance"
    elif n_clusters < FEW_CLUSTERS:
        yield CARE, f"there are only {n_clusters} clusters"
    status = of.get("status")
    ok = status[status["about"] == "ok"]["value"].min() if status is not None else 0.0
    if ok < OK_SHARE[1]:
        yield (NO_TRUST if ok < OK_SHARE[0] else CARE), f"in the worst pass only {ok:.0%} of the rewrites succeeded"
    yield from _compliance(of.get("compliance"), of.get("dose"), tried=ok > 0)
    yield from _drift(of.get("drift"), of.get("dose"), effects, depth=_depth(status))
    balance = of.get("balance")
    if balance is not None:
        for row in balance[_matters(balance, BALANCE_SD)].itertuples():
            yield (
                CARE,
                (
                    f"{row.about} also moves, by {row.in_sd:+.1f} SD from the first rewrite to the second of "
                    f"{row.group.split(',')[0]} responses"
                ),
            )


def _compliance(compliance: pd.DataFrame | None, dose: pd.DataFrame | None, tried: bool) -> Iterator[tuple[str, str]]:
    if compliance is None or dose is None:
        if tried:
            yield CARE, "the attribute has no measure, so nobody knows whether the rewrites comply"
        return
    compliance, dose = (rows[rows["group"].str.contains("rewrite [12]$")] for rows in (compliance, dose))
    worst = compliance.loc[compliance["value"].idxmin()]
    if worst["value"] < COMPLIANCE[1]:
        yield (
            NO_TRUST if worst["value"] < COMPLIANCE[0] else CARE,
            f"only {worst['value']:.0%} of the rewrites {worst['words']} moved the attribute that way "
            f"({worst['group']})",
        )
    for row in dose.itertuples():
        asked = 1 if row.words == "towards treated" else -1
        exact = np.isnan(row.p_value) and row.n > 1 and row.value != 0  # every rewrite moved it by the same
        if row.value * asked <= 0 or not (row.p_value < LEVEL or exact):
            yield NO_TRUST, f"the rewrites {row.words} do not move the attribute's measure ({row.group})"


def _depth(status: pd.DataFrame | None) -> int:
    return 0 if status is None else int((status["about"] == "ok").sum())


def _drift(
    drift: pd.DataFrame | None, dose: pd.DataFrame | None, effects: Mapping[str, float], depth: int
) -> Iterator[tuple[str, str]]:
    if drift is None:
        if depth < 3:
            yield CARE, "there is no third rewrite, so drift cannot be tested"
        return
    size = float(dose["value"].abs().mean()) if dose is not None and len(dose) else float("nan")
    for row in drift[drift["p_adjusted"] < LEVEL].itertuples():
        side = row.group.split(",")[0]
        if row.about == "own":
            share = abs(row.value) / size
            if share > OWN_DRIFT[1]:
                yield (
                    NO_TRUST if share > OWN_DRIFT[0] else CARE,
                    f"the third rewrite of {side} responses differs from the first by {row.value:+.3g} {row.words}, "
                    f"{share:.0%} of what a rewrite moves it",
                )
        elif row.about.startswith("reward/"):
            model = row.about.removeprefix("reward/")
            if abs(row.value) > abs(effects.get(model, np.inf)):
                yield (
                    NO_TRUST,
                    (
                        f"{model} rates the third rewrite of {side} responses {row.value:+.3g} against the first, "
                        f"more than the RATE effect of {effects[model]:+.3g}"
                    ),
                )
            elif abs(row.in_sd) > REWARD_DRIFT_SD:
                yield (
                    CARE,
                    (
                        f"{model} rates the third rewrite of {side} responses {row.in_sd:+.2f} SD against the first: "
                        "read rate_extrapolated"
                    ),
                )
        elif abs(row.in_sd) > OTHER_DRIFT_SD:
            yield (
                CARE,
                f"{row.about} drifts by {row.in_sd:+.1f} SD between the first and the third rewrite of {side} "
                "responses",
            )


def _matters(rows: pd.DataFrame, least: float) -> Any:
    return (rows["p_adjusted"] < LEVEL) & (rows["in_sd"].abs() > least)
