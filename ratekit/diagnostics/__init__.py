"""Can the effects be trusted, what do they mean, and how many more rows do they need?

evidence.py     what was seen of the texts: measures, content kept, repeats, failures
verdicts.py     `verdicts`: the rules, the checks by them, and a word for each attribute and reward model
diagnose.py     `diagnose`: evidence, checks and verdicts as one table
contrasts.py    `contrast` two reward models, `heterogeneity` of groups, `sensitivity`: what would overturn an effect
adjustment.py   `adjusted`: RATE at no change of other measures; `refusal_bounds`: what refused rows could hide
spillover.py    `spillover` onto other measures, `dose_response` per unit of the measure
positions.py    `position`: what a judge of pairs pays for being shown first
people.py       `warranted`: is it what people want? `compare_counterfactuals`: people's own rewrites beside it
rewriters.py    `across_rewriters`: the rewriter as a random effect
planning.py     `plan` more rewrites, `sequential` looks
"""

from __future__ import annotations

from ratekit.diagnostics.adjustment import adjusted, refusal_bounds
from ratekit.diagnostics.contrasts import contrast, heterogeneity, sensitivity
from ratekit.diagnostics.diagnose import diagnose
from ratekit.diagnostics.people import compare_counterfactuals, warranted
from ratekit.diagnostics.planning import plan, sequential
from ratekit.diagnostics.positions import position
from ratekit.diagnostics.rewriters import across_rewriters
from ratekit.diagnostics.spillover import dose_response, spillover
from ratekit.diagnostics.verdicts import verdicts

__all__ = [
    "across_rewriters", "adjusted", "compare_counterfactuals", "contrast", "diagnose", "dose_response", "heterogeneity",
    "plan", "position", "refusal_bounds", "sensitivity", "sequential", "spillover",
    "verdicts", "warranted",
]  # fmt: skip
