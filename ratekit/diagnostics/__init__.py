"""Can the effects be trusted, what do they mean, and how many more rows do they need?

checks.py       `diagnose`: compliance, balance, drift; verdicts.py: the rules of its verdict
contrasts.py    `contrast` two reward models, `heterogeneity` of groups, `sensitivity`: what would overturn an effect
mechanisms.py   `spillover` onto other measures, `dose_response` per unit of the measure
reference.py    `warranted`: is the sensitivity what people want?
planning.py     `plan` more rewrites, `sequential` looks
"""

from __future__ import annotations

from ratekit.diagnostics.checks import diagnose
from ratekit.diagnostics.contrasts import contrast, heterogeneity, sensitivity
from ratekit.diagnostics.mechanisms import dose_response, spillover
from ratekit.diagnostics.planning import plan, sequential
from ratekit.diagnostics.reference import warranted

__all__ = [
    "contrast", "diagnose", "dose_response", "heterogeneity", "plan", "sensitivity", "sequential", "spillover",
    "warranted",
]  # fmt: skip
