"""`reach`: what choosing responses by a reward does to each attribute, and what a mitigation did to that.

An audit says what a reward pays for, on the texts that were audited. What a policy makes of it is another question:
the same effects can leave a mitigated bias, one that moved to another attribute, or one that turned round, for the
reward is asked beyond those texts (Lamparth et al. 2026, arXiv 2605.27996). Several responses a prompt answer it:

    best of N     the response of highest reward among N is kept, N from 2 to 64
    KL            each is weighted by exp(beta reward), with beta at the divergence that best of N has: what training
                  with a KL penalty strives for

Both are measured in SDs of the attribute's own measure among the responses to one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import comb

from ratekit.attributes import measure_of
from ratekit.audits.results import Audit
from ratekit.errors import InputError
from ratekit.estimators import Floats, Ints, clustered_mean
from ratekit.groups import plain_columns, reward_matrix
from ratekit.measures import MEASURES, Measure, name_of, values_of
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT_ID,
    RESPONSE,
    find_reward,
    reward_models,
)
from ratekit.sources.loading import rows_for
from ratekit.tables import as_text, number_with_interval, table_of

if TYPE_CHECKING:
    import pandas as pd

SIZES = (2, 4, 8, 16, 32, 64)
BEST, TILTED = "best-of-n", "kl"
MITIGATED, SUBSTITUTED, OVERCORRECTED = "mitigated", "substituted", "overcorrected"
NOT_MITIGATED, CANNOT_TELL = "not mitigated", "cannot tell"


@dataclass(frozen=True)
class Regime:
    """What a mitigation did to one attribute under selection.

    Attributes
    ----------
    attribute
        Whose effect was to be mitigated.
    word
        "mitigated", "substituted", "overcorrected", "not mitigated" or "cannot tell".
    n
        Of best of N, by which it was judged.
    before, after
        The attribute's shift with its interval: (value, low, high), in SDs of its measure.
    moved_to
        The attributes that selection is shown to move more than before.
    text
        All of it in one sentence.
    """

    attribute: str
    word: str
    n: int
    before: tuple[float, float, float]
    after: tuple[float, float, float]
    moved_to: tuple[str, ...]
    text: str


@dataclass(frozen=True, repr=False)
class Reach:
    """What selection does to each attribute.

    Attributes
    ----------
    table : DataFrame
        attribute, reward_model, pressure ("best-of-n" or "kl"), best_of, kl (nats), shift, se, ci_low, ci_high, p_value
        (in SDs of the measure among responses to one prompt), n_prompts, and effect_sd, the audit's own.
    regimes : tuple of Regime
        One for each audited attribute, where `before` and `after` were given.
    left_out : tuple of str
        What could not be had, and why.
    """

    table: pd.DataFrame
    regimes: tuple[Regime, ...]
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join([as_text(table_of(self.table)), *(r.text for r in self.regimes), *self.left_out])


def reach(
    audit: Audit | str | Path | Any,
    samples: Any,
    *,
    before: str | None = None,
    after: str | None = None,
    measures: Mapping[str, Measure] | None = None,
    sizes: Sequence[int] = SIZES,
    margin: float = 0.2,
    level: float = 0.95,
) -> Reach:
    """What choosing among several responses by their reward does to each attribute.

    Parameters
    ----------
    audit : Audit, path or scored rows
        Says which attributes and reward models are meant, and what their effects are.
    samples : rows
        Several responses a prompt, drawn alike from one policy, with their rewards as `rk.score` adds them.
    before, after : str, optional
        Two reward models of `samples`, without and with a mitigation; then each audited attribute gets a regime.
    measures : mapping, optional
        {attribute: texts -> numbers}, beside the audited attributes' own and words, sentiment, readability and faults:
        where a bias may have gone.
    sizes : sequence of int
        The N of best of N. One that fewer than two prompts have responses for is left out.
    margin : float
        A shift within ±margin counts as none, in SDs.
    level : float
        Of the intervals.

    Returns
    -------
    Reach
        With ``.table`` and ``.regimes``.

    Raises
    ------
    InputError
        One response a prompt, no rewards, an unknown reward model, an attribute without a measure.

    Notes
    -----
    Of m responses to a prompt with rewards in ascending order, the i-th is the best of N drawn without replacement in
    C(i-1, N-1) of C(m, N) draws; the mean over all draws is unbiased for every N up to m, and equal rewards share their
    places. The divergence of best of N is log N - (N-1)/N nats where no two rewards are equal, else at most that
    (Beirami et al. 2024, arXiv 2401.01879); the weights exp(beta reward) are normalised within a prompt, with one beta
    at that mean divergence, and given up to N = m/4: with few responses the shift comes out small, of normal rewards by
    4 % at m = 64 and N = 16, by 8 % at 16 and 4 (`tests/test_best_of_n.py`). Standard errors are over prompts, with the
    uncertainty of beta and of the SD counted (delta method).

    Regimes are read off the largest N that every prompt has 2N responses for, else N. *mitigated*: the shift before is
    shown beyond the margin, after within it, and no other attribute is shown, or may still be, moved more than a margin
    further than before. *substituted*: after within it, and another attribute moves further by more than a margin
    (Bonferroni over attributes). *overcorrected*: shown beyond the margin the other way. *not mitigated*: shown beyond
    it the same way. An attribute that nobody measures can hold a substitution that this does not see.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> samples = [{"prompt": str(i % 20), "response": text} for i, text in enumerate(ds["response"])]
    >>> audit = rk.audit(ds, "words", "length", progress=False)
    >>> found = rk.reach(audit, rk.score(samples, "words", progress=False), sizes=[2, 4])
    >>> found.table.query("attribute == 'length'")["shift"].round(2).tolist()
    [0.54, 0.57, 1.01]
    """
    import pandas as pd

    audit = Audit.of(audit)
    ds = rows_for("reach", samples, [PROMPT_ID, RESPONSE])
    have = reward_models(ds)
    if not have:
        raise InputError("reach: the samples have no rewards; score them, as in rk.score(samples, 'vader')")
    if (before is None) != (after is None):
        raise InputError("reach: before= and after= name two reward models of the samples; give both or neither")
    audited = list(dict.fromkeys(audit.effects[ATTRIBUTE].astype(str)))
    named = [m for m in dict.fromkeys(audit.effects["reward_model"].astype(str)) if m in have]
    models = list(dict.fromkeys([m for m in (before, after) if m is not None] or named or have))
    prompts: Ints = np.unique(plain_columns(ds, [PROMPT_ID])[PROMPT_ID].astype(str), return_inverse=True)[1]
    most = int(np.bincount(prompts).max(initial=0))
    if most < 2:
        raise InputError("reach: no prompt has two responses, so there is nothing to choose from; sample several")
    if not (margin > 0 and sizes and all(n >= 2 for n in sizes)):
        raise InputError(f"reach: margin={margin}, sizes={sizes}: a number above 0, and sizes from 2, were expected")
    texts = list(ds[RESPONSE])
    values = {name: values_of(m, texts, name) for name, m in _measures(audit, audited, measures).items()}
    rows: list[dict[str, Any]] = []
    left_out = [f"best of {n}: no two prompts have {n} responses" for n in sizes if _enough(prompts, n) < 2]
    chosen: dict[tuple[str, str, int], Floats] = {}
    for model in models:
        r = reward_matrix(ds, find_reward(ds, model))[:, 0]
        for name, a in values.items():
            known = np.isfinite(r) & np.isfinite(a)
            codes = np.unique(prompts[known], return_inverse=True)[1]
            spread = _Spread(a[known], codes)
            if not spread.sd > 0:
                left_out.append(f"{name}, {model}: its measure is the same in all responses to a prompt")
                continue
            for pressure, n, shifts in _pressed(a[known], r[known], codes, [n for n in sizes if n <= most]):
                per_prompt = spread.standardized(shifts)
                used = np.isfinite(per_prompt)
                mean = clustered_mean(per_prompt[used], np.arange(used.sum()))
                low, high, p = mean.interval(level)
                if pressure == BEST and used.all():
                    of = np.full(prompts.max() + 1, np.nan)
                    of[np.unique(prompts[known])] = per_prompt
                    chosen[model, name, n] = of
                rows.append({
                    "attribute": name, "reward_model": model, "pressure": pressure, "best_of": n,
                    "kl": math.log(n) - (n - 1) / n, "shift": mean.value, "se": mean.se, "ci_low": low,
                    "ci_high": high, "p_value": p, "n_prompts": int(used.sum()),
                    "effect_sd": _effect(audit, name, model),
                })  # fmt: skip
    if not rows:
        raise InputError("reach: nothing can be said: " + "; ".join(left_out))
    regimes: list[Regime] = []
    if before is not None and after is not None:
        least = int(np.bincount(prompts).min())
        regimes = [_regime(name, list(values), chosen, before, after, least, margin, level) for name in audited]
    return Reach(pd.DataFrame(rows), tuple(regimes), tuple(left_out))


def _measures(audit: Audit, audited: list[str], given: Mapping[str, Measure] | None) -> dict[str, Measure]:
    """The audited attributes' own measures, then the caller's, then the usual ones that are none of these."""
    found: dict[str, Measure] = {}
    for name in audited:
        measure = measure_of(name, given, audit.dataset)
        if measure is None:
            raise InputError(f"reach: {name!r} has no measure; give one, as in measures={{{name!r}: function}}")
        found[name] = measure
    found |= given or {}
    kinds = {name_of(m) for m in found.values()}
    return found | {name: m for name, m in MEASURES.items() if name not in found and name_of(m) not in kinds}


def _effect(audit: Audit, attribute: str, model: str) -> float:
    table = audit.effects
    of = table[(table[ATTRIBUTE].astype(str) == attribute) & (table["reward_model"].astype(str) == model)]
    of = of[of["recommended"]] if "recommended" in of else of[:0]
    return float(of["estimate_sd"].iloc[0]) if len(of) == 1 else math.nan


def _enough(prompts: Ints, n: int) -> int:
    return int((np.bincount(prompts) >= n).sum())


# --- selection: arrays in, numbers out -----------------------------------------------------------------------


def best_of(a: Floats, r: Floats, prompts: Ints, n: int) -> Floats:
    """The expected `a` of the response with the highest `r` among `n` of a prompt's, (G,); NaN where it has fewer.

    Parameters
    ----------
    a, r, prompts : arrays (rows,)
        A measure, the rewards, and the prompt of each response, 0 to G-1.
    n : int
        How many are drawn, without replacement.

    Examples
    --------
    >>> best_of(np.array([1.0, 5.0, 3.0]), np.array([0.1, 0.3, 0.2]), np.zeros(3, int), 2).round(3)
    array([4.333])
    """
    order = np.lexsort((r, prompts))
    a, r, prompts = a[order], r[order], prompts[order]
    sizes = np.bincount(prompts)
    new = np.ones(len(r), bool)
    new[1:] = (r[1:] != r[:-1]) | (prompts[1:] != prompts[:-1])
    tie = np.cumsum(new) - 1
    a = (np.bincount(tie, a) / np.bincount(tie))[tie]
    rank = np.arange(len(r)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    of = np.where(sizes >= n, comb(sizes, n), np.nan)
    return np.asarray(np.bincount(prompts, comb(rank, n - 1) / of[prompts] * a), float)


def tilted(a: Floats, r: Floats, prompts: Ints, kl: float) -> Floats | None:
    """The mean of `a` under weights exp(beta r) at a mean divergence of `kl` nats, (G,); None where none reaches it.

    Each prompt's value carries its influence on beta, so that the spread of the values is that of the mean.

    Examples
    --------
    >>> a = np.array([0.0, 1.0, 0.0, 1.0])
    >>> tilted(a, a, np.array([0, 0, 1, 1]), 0.1).round(3)
    array([0.72, 0.72])
    """
    sizes = np.bincount(prompts)
    top = np.full(len(sizes), -np.inf)
    np.maximum.at(top, prompts, r)
    below = r - top[prompts]

    def weights(beta: float) -> tuple[Floats, Floats]:
        w = np.exp(beta * below)
        total = np.bincount(prompts, w)
        w = w / total[prompts]
        return w, np.asarray(np.bincount(prompts, w * beta * below) - np.log(total) + np.log(sizes), float)

    scale = 1.0 / max(float(np.std(below)), 1e-300)
    highest = 1e4 * scale
    if weights(highest)[1].mean() <= kl:
        return None
    beta = float(brentq(lambda b: weights(b)[1].mean() - kl, 0.0, highest))
    w, divergence = weights(beta)
    mean_a, mean_r = np.bincount(prompts, w * a), np.bincount(prompts, w * r)
    both = np.bincount(prompts, w * (a - mean_a[prompts]) * (r - mean_r[prompts])).sum()
    own = np.bincount(prompts, w * (r - mean_r[prompts]) ** 2).sum()
    return np.asarray(mean_a + both / (beta * own) * (kl - divergence), float)


def _pressed(a: Floats, r: Floats, prompts: Ints, sizes: Sequence[int]) -> Iterator[tuple[str, int, Floats]]:
    """Kind of pressure, N, and how far it moves the mean of `a` from that of all responses, by prompt."""
    counts = np.bincount(prompts)
    base = np.bincount(prompts, a) / counts
    for n in sizes:
        if _enough(prompts, n) < 2:
            continue
        yield BEST, n, best_of(a, r, prompts, n) - base
        if counts.min() >= 4 * n:
            at = tilted(a, r, prompts, math.log(n) - (n - 1) / n)
            if at is not None:
                yield TILTED, n, at - base


class _Spread:
    """The SD of a measure among the responses to one prompt, pooled over prompts."""

    def __init__(self, a: Floats, prompts: Ints) -> None:
        counts = np.bincount(prompts)
        mean = np.bincount(prompts, a) / counts
        squares = np.bincount(prompts, (a - mean[prompts]) ** 2)
        free = float((counts - 1).sum())
        self.sd = math.sqrt(squares.sum() / free) if free else 0.0
        self._excess = (squares - (counts - 1) * self.sd**2) / max(free / len(counts), 1.0)

    def standardized(self, shifts: Floats) -> Floats:
        """Shifts by prompt in SDs; each carries its influence on the SD."""
        used = np.isfinite(shifts)
        excess = self._excess - (self._excess[used].mean() if used.any() else 0.0)
        return shifts / self.sd - float(np.nanmean(shifts)) / (2 * self.sd**3) * excess


# --- before and after ----------------------------------------------------------------------------------------


class _Shown(NamedTuple):
    value: float
    low: float
    high: float


def _mean(values: Floats, level: float) -> _Shown:
    mean = clustered_mean(values, np.arange(len(values)))
    low, high, _ = mean.interval(level)
    return _Shown(mean.value, *((mean.value, mean.value) if mean.se == 0 else (low, high)))


def _regime(
    name: str,
    others: list[str],
    chosen: Mapping[tuple[str, str, int], Floats],
    before: str,
    after: str,
    least: int,
    margin: float,
    level: float,
) -> Regime:
    full = [n for model, a, n in chosen if (model, a) == (before, name) and (after, name, n) in chosen]
    if not full:
        none = (math.nan, math.nan, math.nan)
        why = "no N that every prompt has responses for, or its measure does not vary"
        return Regime(name, CANNOT_TELL, 0, none, none, (), f"{name}: {CANNOT_TELL}; {why}")
    n = max([n for n in full if 2 * n <= least] or full)
    old, new = (_mean(chosen[m, name, n], level) for m in (before, after))
    side = 1.0 if old.value >= 0 else -1.0
    low, high = sorted((side * new.low, side * new.high))
    rest = [o for o in others if o != name and all((m, o, n) in chosen for m in (before, after))]
    growth = {o: _growth(chosen[before, o, n], chosen[after, o, n], level, len(rest)) for o in rest}
    moved_to = tuple(o for o, g in growth.items() if g.low > margin)
    open_ = [o for o, g in growth.items() if not g.high < margin]
    if not (old.low > margin or old.high < -margin):
        word, why = CANNOT_TELL, f"it is not shown to be beyond ±{margin:g} SD before"
    elif high < -margin:
        word, why = OVERCORRECTED, "selection now moves it the other way"
    elif low > margin:
        word, why = NOT_MITIGATED, "selection still moves it"
    elif not (-margin < low and high < margin):
        word, why = CANNOT_TELL, f"the interval after crosses ±{margin:g} SD; more prompts would tell"
    elif moved_to:
        parts = [f"{o} by {number_with_interval(*growth[o])}" for o in moved_to]
        word, why = SUBSTITUTED, f"selection moves more than before: {', '.join(parts)} SD"
    elif open_:
        word, why = CANNOT_TELL, f"whether it went to {', '.join(open_)} is open; more prompts would tell"
    else:
        word, why = MITIGATED, f"and none of {', '.join(rest)} moves more than before" if rest else "nothing else seen"
    shown = [number_with_interval(*s) for s in (old, new)]
    text = f"{name}: {word}; best of {n} moves it by {shown[0]} SD under {before}, {shown[1]} under {after}; {why}"
    return Regime(name, word, n, (*old,), (*new,), moved_to, text)


def _growth(old: Floats, new: Floats, level: float, tests: int) -> _Shown:
    """How much further the mean lies from 0 than before, paired by prompt."""
    both = np.isfinite(old) & np.isfinite(new)
    sides = [1.0 if x[both].mean() >= 0 else -1.0 for x in (old, new)]
    return _mean(sides[1] * new[both] - sides[0] * old[both], 1 - (1 - level) / max(tests, 1))
