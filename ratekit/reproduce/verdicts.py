"""Ours beside theirs: each estimate of a run with the one that was published, and whether the two agree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError
from ratekit.estimators import standardize
from ratekit.reproduce.experiment import Experiment
from ratekit.reproduce.facts import published
from ratekit.reproduce.sweeps import SIMULATED, STEP

if TYPE_CHECKING:
    import pandas as pd

    from ratekit.audits import Settings

AGREES, DIFFERS, NOT_COMPARABLE = "agrees", "differs", "not comparable"
Z = 1.96  # beyond which two estimates differ: 5 % of those that agree do so by chance
READ_OFF = 0.01  # SD: how well the curves of the typo sweep could be read off the figures
LLM = "gpt-4o-2024-08-06"  # that wrote every published rewrite


def compare(experiment: Experiment, settings: Settings, table: pd.DataFrame) -> pd.DataFrame:
    """One row for each estimate of `table`: ours, theirs, the difference in combined SEs, a verdict and its reason.

    Columns: (step,) reward_model, estimator, estimand, ours, ours_se, theirs, theirs_se, difference, z, verdict, why.
    z is the difference over sqrt(ours_se^2 + theirs_se^2); *differs* beyond 1.96. In the reward's units, the typo sweep
    in reward SDs, whose own error is in `ours_se`.

    A local model is held against the published one whose name its folder bears. Not comparable is what was not
    published (experiment, reward model, estimator), what no LLM rewrote, and what has no SE.
    """
    import pandas as pd

    try:
        theirs = published(experiment.name)
    except InputError:
        theirs = None
    table = standardize(table) if experiment.name == "sweep-typos" else table
    keys = [*([STEP] if STEP in table else []), "reward_model", "estimator", "estimand"]
    rows = []
    for row in table.to_dict("records"):
        ours, ours_se = row["estimate"], row["se"]
        found, why = _theirs(experiment, settings, theirs, row)
        their, their_se = (math.nan, math.nan) if found is None else found
        difference = ours - their
        combined = math.sqrt(ours_se**2 + their_se**2)
        z = difference / combined if combined > 0 else math.nan
        if found is not None and math.isnan(z) and not why:
            why = "no standard error to hold the difference against"
        verdict = NOT_COMPARABLE if why else AGREES if abs(z) <= Z else DIFFERS
        if not why and LLM not in (settings.rewriter or ""):
            remark = f"rewritten by {settings.rewriter}, theirs by {LLM}"
        else:
            remark = why
        rows.append({
            **{key: row[key] for key in keys}, "ours": ours, "ours_se": ours_se, "theirs": their,
            "theirs_se": their_se, "difference": difference, "z": z, "verdict": verdict, "why": remark,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _theirs(
    experiment: Experiment, settings: Settings, theirs: pd.DataFrame | None, row: dict[str, Any]
) -> tuple[tuple[float, float] | None, str]:
    """Their estimate and SE for that of ours, and why the two cannot be compared ("" where they can)."""
    if theirs is None:
        return None, f"nothing was published of {experiment.name}"
    models = list(dict.fromkeys(theirs["reward_model"]))
    name = str(row["reward_model"]).split("/")[-1]
    model = next((m for m in models if m.split("/")[-1] == name), None)
    if model is None:
        return None, f"nothing was published for {name}"
    same = theirs[
        (theirs["reward_model"] == model)
        & (theirs["estimator"] == row["estimator"])
        & (theirs["estimand"] == row["estimand"])
    ]
    if same.empty:
        return None, f"{row['estimator']} {row['estimand']} was not published"
    if STEP in row and STEP in same:
        same = same[(same[STEP] - row[STEP]).abs() < 1e-6]
        if same.empty:
            return None, "this step was not published"
    found = same.iloc[0]
    values = float(found["estimate"]), float(found["se"]) if "se" in same else READ_OFF
    if settings.rewriter == SIMULATED:
        return values, "simulated texts, not the source's"
    if row["estimator"] != "naive" and (settings.rewriter or "").startswith("rules"):
        return values, "rewritten by rules, not by an LLM"
    return values, ""


def verdicts_line(table: pd.DataFrame) -> str:
    """The verdicts in one line.

    Examples
    --------
    >>> import pandas as pd
    >>> verdicts_line(pd.DataFrame({"verdict": ["agrees", "differs", "agrees"], "why": [""] * 3}))
    '2 of 3 estimates agree with the published ones (|z| <= 1.96)'
    """
    counts = table["verdict"].value_counts()
    n_agree, n_differ = int(counts.get(AGREES, 0)), int(counts.get(DIFFERS, 0))
    if not n_agree + n_differ:
        return f"no estimate can be held against a published one: {table['why'].mode().iloc[0]}"
    rest = int(counts.get(NOT_COMPARABLE, 0))
    left = f"; {rest} are not comparable" if rest else ""
    return f"{n_agree} of {n_agree + n_differ} estimates agree with the published ones (|z| <= {Z}){left}"
