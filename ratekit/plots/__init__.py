"""Pictures of tables: a DataFrame in, a `matplotlib` Axes out; each takes `ax` and gives it back.

Nothing is estimated here. Pictures follow matplotlib's style, on a dark page too: after
``plt.style.use("dark_background")`` the same call draws on black.

forest.py         `effects`: the forest of all estimators; `naive_vs_rate`
heat.py           `heatmap`: attributes by reward models; `spillover`: attributes by measures
rewards.py        `densities` of rewards along the chain, `dose_response`
checks.py         `drift` and `balance`, as `rk.diagnose` found them
truth.py          `sweep` along a confounder, `coverage` of intervals
merges.py         `merges`: members, ensemble and merges, as `rk.merging.audit` compared them
before_after.py   `before_after` a mitigation, and beside what people prefer
names.py          names and numbers as labels
style.py          colours, letters and ink of all of them; widths follow ``rcParams["figure.figsize"]``
"""

from __future__ import annotations

from ratekit.plots.before_after import before_after
from ratekit.plots.checks import balance, drift
from ratekit.plots.forest import effects, naive_vs_rate
from ratekit.plots.heat import heatmap, spillover
from ratekit.plots.merges import merges
from ratekit.plots.rewards import densities, dose_response
from ratekit.plots.style import MARKS, Mark
from ratekit.plots.truth import coverage, sweep

__all__ = [
    "MARKS", "Mark", "balance", "before_after", "coverage", "densities", "dose_response", "drift", "effects",
    "heatmap", "merges", "naive_vs_rate", "spillover", "sweep",
]  # fmt: skip
