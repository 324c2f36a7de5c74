"""Solve for a bias: how far along a path must one go for an attribute's effect to be zero, and what does that cost?

    path = direction(biased, tuned=other_biased, base=unbiased)     # biased + t (other_biased - unbiased)
    found = zero_effect(path, length, within=(-2, 0), accuracy=accuracy, held_out=length_on_other_prompts)
    print(found.statement)
    save_state(path(found.coefficient), "debiased", like="biased")

A fixed coefficient (-1, say) over- or undershoots; the effect is measured, so its zero can be solved for, without any
training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ratekit.checkpoints import State
from ratekit.errors import InputError, require_whole
from ratekit.merging.landscape import estimate_of
from ratekit.merging.metrics import Estimate, Metric

if TYPE_CHECKING:
    import pandas as pd

_NAN = float("nan")
_NOWHERE = Estimate(_NAN, _NAN, _NAN, _NAN, 0)


@dataclass(frozen=True)
class ZeroEffect:
    """Where an effect is zero along a path; NaN where it nowhere is.

    Parameters
    ----------
    coefficient
        the root; with several, the nearest to t = 0, the least change
    ci_low, ci_high
        every t whose effect's interval holds 0, around the root: the interval of the coefficient. An end of `within`
        where it goes on beyond that
    open_low, open_high
        whether it does
    n_roots
        sign changes that were seen between grid points
    effect
        the effect at the root, on the prompts it was solved on
    held_out
        the effect at the root on other prompts, where a metric for it was given
    accuracy_before, accuracy
        at t = 0 and at the root, where a metric for it was given
    table
        every t that was measured: t, value, se, ci_low, ci_high
    statement
        all this in a sentence or two
    """

    coefficient: float
    ci_low: float
    ci_high: float
    open_low: bool
    open_high: bool
    n_roots: int
    effect: Estimate
    held_out: Estimate
    accuracy_before: float
    accuracy: float
    table: pd.DataFrame
    statement: str

    @property
    def accuracy_lost(self) -> float:
        """Accuracy at t = 0 less that at the root: what the debiasing costs (below 0: what it gains)."""
        return self.accuracy_before - self.accuracy


def zero_effect(
    path: Callable[[float], State],
    effect: Metric,
    *,
    within: tuple[float, float] = (0.0, 1.0),
    accuracy: Metric | None = None,
    held_out: Metric | None = None,
    grid: int = 9,
    tolerance: float = 1e-3,
) -> ZeroEffect:
    """The coefficient along a path at which an effect is zero, with its interval and its cost in accuracy.

    The interval holds every t at which a test does not refuse a zero effect, that is, at which the effect's own
    interval holds 0 (the inversion of a test; Fieller 1954, JRSS B 16:175, is the case of a straight line). It needs
    no derivative, and it is open where the effect is too noisy, or too level, to tell. Each t costs one scoring of all
    texts; about `grid` + 20 are needed.

    Parameters
    ----------
    path
        t -> state dict: a `line`, a curve, or a `direction`, along which t is a task vector's coefficient
    effect
        a metric; one with `.estimate` (a RATE effect) gives the coefficient its interval
    within
        the range of t that is searched
    accuracy
        a metric of what may be lost, measured at t = 0 and at the root
    held_out
        the effect on prompts that the root was not solved on: the honest test, for on those that it was solved on the
        effect is zero by construction
    grid
        points at which a change of sign is looked for; two roots between neighbours are not seen
    tolerance
        of the root and of its interval's ends, in t

    Examples
    --------
    >>> import torch
    >>> from ratekit.merging.landscape import line
    >>> path = line({"w": torch.tensor([1.0])}, {"w": torch.tensor([-3.0])})
    >>> found = zero_effect(path, lambda state: float(state["w"]))
    >>> round(found.coefficient, 3)
    0.25
    """
    import pandas as pd
    from scipy.optimize import brentq

    low, high = map(float, within)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"within={within}: two numbers, the lower first, were expected")
    require_whole("grid", grid, 3)
    if not tolerance > 0:
        raise InputError(f"tolerance={tolerance}: a number above 0 was expected")
    seen: dict[float, Estimate] = {}

    def at(t: float) -> Estimate:
        t = float(t)
        if t not in seen:
            seen[t] = estimate_of(effect, path(t))
        return seen[t]

    def root(of: Callable[[float], float], a: float, b: float) -> float:
        return float(brentq(of, a, b, xtol=tolerance, rtol=1e-12))

    ts = np.linspace(low, high, grid)
    values = np.array([at(t).value for t in ts])
    exact = [float(t) for t, v in zip(ts, values, strict=True) if v == 0]
    changes = [(float(a), float(b)) for a, b, v, w in zip(ts, ts[1:], values, values[1:], strict=False) if v * w < 0]
    roots = sorted(exact + [root(lambda t: at(t).value, a, b) for a, b in changes], key=abs)

    def table() -> pd.DataFrame:
        rows = [
            {"t": t, "value": e.value, "se": e.se, "ci_low": e.ci_low, "ci_high": e.ci_high} for t, e in seen.items()
        ]
        return pd.DataFrame(rows).sort_values("t", ignore_index=True)

    before = float(accuracy(path(0.0))) if accuracy is not None else _NAN
    if not roots:
        nearest = min(seen, key=lambda t: abs(seen[t].value))
        statement = (
            f"No zero between t = {low:g} and {high:g}: the effect goes from {values[0]:+.3g} to {values[-1]:+.3g} and "
            f"comes nearest, {seen[nearest].value:+.3g}, at t = {nearest:.3g}. Search further, or another direction."
        )
        return ZeroEffect(_NAN, _NAN, _NAN, False, False, 0, _NOWHERE, _NOWHERE, before, _NAN, table(), statement)
    found = roots[0]
    ends = {}
    for side, bound in (("low", low), ("high", high)):
        ends[side] = _edge(at, root, found, bound, ts)
    state = path(found)
    on_others = estimate_of(held_out, state) if held_out is not None else _NOWHERE
    after = float(accuracy(state)) if accuracy is not None else _NAN
    statement = _say(found, ends, len(roots), on_others, before, after)
    return ZeroEffect(
        found, ends["low"][0], ends["high"][0], ends["low"][1], ends["high"][1], len(roots), at(found), on_others,
        before, after, table(), statement,
    )  # fmt: skip


def _edge(
    at: Callable[[float], Estimate],
    root: Callable[[Callable[[float], float], float, float], float],
    found: float,
    bound: float,
    ts: np.ndarray,
) -> tuple[float, bool]:
    """How far from the root towards `bound` the effect's interval still holds 0, and whether it does all the way."""

    def margin(t: float) -> float:
        """Above 0 where the interval holds 0."""
        e = at(t)
        return min(e.ci_high, -e.ci_low)

    if np.isnan(margin(found)):
        return _NAN, False
    if margin(found) <= 0:  # an effect so precise that its interval is within the root's own tolerance
        return found, False
    beyond = [float(t) for t in ts if min(found, bound) <= t <= max(found, bound) and t != found]
    inner = found
    for t in sorted(beyond, key=lambda t: abs(t - found)):
        if margin(t) < 0:
            return root(margin, inner, t), False
        inner = t
    return float(bound), True


def _say(
    found: float, ends: dict[str, tuple[float, bool]], n: int, held_out: Estimate, before: float, after: float
) -> str:
    (low, open_low), (high, open_high) = ends["low"], ends["high"]
    said = f"The effect is zero at t = {found:.3f}"
    if np.isfinite(low):
        said += f" (interval {'beyond ' if open_low else ''}{low:.3f} to {'beyond ' if open_high else ''}{high:.3f})"
    said += f", the nearest to 0 of {n} roots." if n > 1 else "."
    if np.isfinite(held_out.value):
        holds = "holds 0" if held_out.ci_low <= 0 <= held_out.ci_high else "does not hold 0"
        said += (
            f" On held-out prompts it is {held_out.value:+.3f} ({held_out.ci_low:+.3f} to {held_out.ci_high:+.3f}), "
            f"which {holds}."
        )
    if np.isfinite(after):
        said += f" Accuracy goes from {before:.3f} to {after:.3f} ({after - before:+.3f})."
    return said
