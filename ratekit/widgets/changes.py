"""What a row's rewrites moved beside the attribute: the Explorer's off-target changes. Numbers, no widgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ratekit.attributes import off_target
from ratekit.estimators import Floats, pooled_sd
from ratekit.groups import groups, plain_columns
from ratekit.measures import Measure, measured
from ratekit.schema import ATTRIBUTE, RESPONSE, REWRITES, require

MEASURED_UP_TO = 20_000  # characters: VADER takes 30 s for a text of 300,000
_AT_ONCE = 32


@dataclass
class OffTarget:
    """What the rewrites moved beside the attribute: every measure of every text, and each row's largest move.

    values     {measure: (n, depth+1)}, NaN where there is no text or it is too long to be measured here
    sd         {(attribute, measure): SD of the originals within their class}
    change     (n,) the largest move of a measure that should not move, in those SDs; NaN where nothing is measured
    measure    (n,) its name, "" for none
    """

    values: dict[str, Floats] = field(default_factory=dict)
    sd: dict[tuple[str, str], float] = field(default_factory=dict)
    change: Floats = field(default_factory=lambda: np.empty(0))
    measure: list[str] = field(default_factory=list)


def off_target_changes(
    ds: Any,
    *,
    measures: Mapping[str, Measure] | None = None,
    tick: Callable[[int, int], Any] = lambda done, total: None,
) -> OffTarget:
    """For each row the largest off-target move from the first rewrite to the second, as `diagnose` has it for classes.

    >>> import ratekit as rk
    >>> found = off_target_changes(rk.load("reviews", attribute="length").select(range(40)))
    >>> found.change.shape, set(found.measure) <= {"sentiment", "readability", "faults"}
    ((40,), True)

    measures  beside words, sentiment, readability and faults, as in `rk.diagnose`
    tick      called with (texts' rows done, rows in all)

    Where rows were rewritten only once, the move is that from the response to its rewrite.
    """
    require(ds, "diagnose")
    frame = plain_columns(ds, [RESPONSE, REWRITES])
    chains = [
        [t if t is not None and len(t) <= MEASURED_UP_TO else None for t in (response, *(() if rest is None else rest))]
        for response, rest in zip(frame[RESPONSE], frame[REWRITES], strict=True)
    ]
    n, depth = len(chains), max(map(len, chains)) - 1
    found = OffTarget(change=np.full(n, np.nan), measure=[""] * n)
    of_group = [(str(g.labels[ATTRIBUTE]), g, off_target(str(g.labels[ATTRIBUTE]), measures, ds)) for g in groups(ds)]
    every = {name: m for _, _, mine in of_group for name, m in mine.items()}
    found.values = {name: np.full((n, depth + 1), np.nan) for name in every}
    for start in range(0, n, _AT_ONCE):
        tick(start, n)
        block = chains[start : start + _AT_ONCE]
        if any(text for chain in block for text in chain):
            for name, measure in every.items():
                values = measured(measure, block, name)
                found.values[name][start : start + len(block), : values.shape[1]] = values
    a, b = (1, 2) if depth > 1 else (0, 1)
    for attribute, group, mine in of_group:
        for name in mine:
            m = found.values[name][group.rows]
            sd = pooled_sd(m[:, 0], group.treated)
            found.sd[attribute, name] = sd
            if not sd > 0 or depth < 1:
                continue
            moved = (m[:, b] - m[:, a]) / sd
            for i, x in zip(group.rows, moved, strict=True):
                if np.isfinite(x) and not abs(x) <= abs(found.change[i]):
                    found.change[i], found.measure[i] = x, name
    tick(n, n)
    return found
