"""The rules by which a verdict is given: trust, trust with care, cannot tell, do not trust.

Each rule looks at one number with its interval, and knows two ranges: what is *fine* and what is *usable*.

| the interval lies | outcome | verdict of this check |
|---|---|---|
| within what is fine | shown fine | trust |
| within what is usable, outside what is fine | shown bad | trust with care |
| within what is usable, across the edge of what is fine | too few rows to tell | trust with care |
| across the edge of what is usable | too few rows to tell | cannot tell |
| outside what is usable | shown bad | do not trust |

A verdict is that of its gravest check. What a check cannot be better informed of is capped: `at_worst`. The numbers
are those of `RULES`. A bias is judged in parts of the effect, max(|ATT|, |ATU|, 0.1 SD of the reward), for that is
what it is a bias of: a shift of another measure counts by what the reward pays for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ratekit.conclusions import (
    BAD,
    CARE,
    CHECK_RULES,
    FINE,
    INF,
    TOO_FEW,
    TRUST,
    WORDS,
    Check,
    CheckRule,
    Verdict,
    effect_rows,
    first_to_read,
    gravest_first,
    level_of,
    other_estimators,
    smallest_effect,
)
from ratekit.diagnostics.evidence import LOST, Evidence, evidence
from ratekit.errors import InputError
from ratekit.estimators import (
    ESTIMATORS,
    RARE,
    Bools,
    Floats,
    Ints,
    RewardScale,
    Sizes,
    cluster_sums,
    clustered_mean,
    part_of,
    pooled_sd,
    rounding_of,
    row_values,
    rows_used,
    signed_change,
    t_interval,
)
from ratekit.groups import SIDE, reward_matrix, rewards_of
from ratekit.intervals import LEVEL, Interval, Regression, fieller, mean_interval, outside, sds_interval, share_interval
from ratekit.measures import Looked, Measure
from ratekit.recommendation import effect_size, own_drift
from ratekit.schema import (
    ANSWER_MASS,
    ATTRIBUTE,
    HOW_READ,
    REWARD_PREFIX,
    SHOWN_FIRST,
    SHOWN_SECOND,
    columns_of,
    grouping,
)
from ratekit.sources.loading import rows_for
from ratekit.stages import estimate, own_measures
from ratekit.tables import percent, to_places

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECK_RULES", "Check", "CheckRule", "Verdict", "verdicts"]


def verdicts(
    ds: Any,
    table: pd.DataFrame | None = None,
    measures: Mapping[str, Measure] | None = None,
    by: str | Sequence[str] | None = None,
) -> list[Verdict]:
    """Which number to read of each attribute and reward model, and whether to trust it.

    Parameters
    ----------
    ds
        Rewritten rows, scored or not.
    table
        Their effects, as `rk.estimate` gives them; made here where there is none.
    measures
        {name: texts -> numbers} beside words, sentiment, readability and faults; under an attribute's own name, what
        the attribute is measured by.
    by
        Columns to group by; those of `table` by default.

    Returns
    -------
    list of Verdict
        One for each attribute and reward model (and group); for each attribute where nothing is scored.

    Raises
    ------
    InputError
        For a missing column, and a measure that does not give one number a text.

    Notes
    -----
    The rules are those of `RULES`, explained at the head of this module.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> [v.word for v in rk.verdicts(ds)]
    ['do not trust']
    """
    ds = rows_for("diagnose", ds)
    if by is None and table is not None and ATTRIBUTE in table:
        by = grouping(table)
    looked = Looked()
    return judged(list(evidence(ds, measures, by, looked)), ds, table, by, measures, looked)


def judged(
    found: Sequence[Evidence],
    ds: Any,
    table: pd.DataFrame | None,
    by: str | Sequence[str] | None,
    measures: Mapping[str, Measure] | None,
    looked: Looked,
) -> list[Verdict]:
    """The verdicts on rows that are measured already."""
    rewards = dict(rewards_of(ds))
    if table is None and rewards:
        try:
            table = estimate(ds, by=by, measures={**(measures or {}), **own_measures(ds, looked, measures)})
        except InputError:  # scored, and nothing of it can be estimated
            table = None
    known = {} if table is None else {_key(labels): rows for labels, rows in effect_rows(table)}
    out = []
    for seen in found:
        names = [name for name in rewards if _key({**seen.labels, "reward_model": name}) in known]
        models: list[str | None] = [*names] or [None]
        for name in models:
            rows = known.get(_key({**seen.labels, "reward_model": name}), [])
            r = None if name is None else rewards[name][seen.rows]
            columns = [] if name is None else [f"{REWARD_PREFIX}{name}/{part}" for part in HOW_READ]
            read = {c.rpartition("/")[2]: reward_matrix(ds, c)[seen.rows] for c in columns if c in columns_of(ds)}
            out.append(verdict_of(seen, name, r, rows, read))
    return out


def _key(labels: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(v) for _, v in sorted(labels.items()))


def verdict_of(
    seen: Evidence,
    model: str | None,
    r: Floats | None,
    rows: list[dict[str, Any]],
    read: Mapping[str, Floats] | None = None,
) -> Verdict:
    """The verdict on one reward model.

    `r` (n, depth+1) are its rewards, `rows` those of its effects table, and `read` (each as `r`) how a judge was read.
    """
    row = first_to_read(rows) if rows else {}
    checks = list(_of_texts(seen, str(row.get("estimator", "rate"))))
    priced = None if r is None else _priced(seen, r)
    if r is None:
        checks += _shifts(seen)
    else:
        checks += _of_rewards(seen, r, str(row["estimator"]), priced)
        checks += _of_judge(seen, r, read or {})
    order = list(CHECK_RULES)
    checks.sort(key=lambda check: order.index(check.name))
    word = max((check.word for check in checks), key=WORDS.index)
    if model is None and word == TRUST:
        word = CARE
    why = [check.text for check in gravest_first(checks) if check.word != TRUST]
    if model is None:
        why.append("nothing is scored, so what else moved is judged by its size and not by what a reward pays for it")
    reason = "; ".join(why) or "every check is shown fine"
    if row:
        row = {**row, "level": level_of(row), "smallest": smallest_effect(row)}
        counts = [c for c in checks if c.name == "balance" and c.word != TRUST and c.low == c.low]  # NaN: nothing tells
        if priced is not None and counts and row["estimate"]:
            row |= dict(zip(("explained_by", "explained"), priced[0].largest(), strict=True))
    labels = {k: v for k, v in seen.labels.items() if k != ATTRIBUTE}
    attribute = str(seen.labels[ATTRIBUTE])
    return Verdict(
        attribute, model, word, row, reason, tuple(checks), labels, other_estimators(rows, row) if row else {}
    )


def _check(name: str, seen: Interval | float, text: str, fine: str = "", bad: str = "") -> Check:
    """The check of a number by its rule; `fine` is said instead of `text` where it is shown fine, `bad` where bad."""
    i = seen if isinstance(seen, Interval) else Interval(float(seen), float(seen), float(seen), 0)
    outcome, word = CHECK_RULES[name].word(*i[:3])
    text = {FINE: fine, BAD: bad}.get(outcome) or text
    if outcome == TOO_FEW:
        low, high = (percent(end) if CHECK_RULES[name].percent else f"{end:.3g}" for end in (i.low, i.high))
        text += ": too few rows to tell" + (f" (95 % interval {low} to {high})" if i.low == i.low else "")
    return Check(name, outcome, text, i.value, i.low, i.high, CHECK_RULES[name].margin(i.value), word)


# --- what the texts show ---------------------------------------------------------------------------------


def _of_texts(seen: Evidence, estimator: str) -> Iterator[Check]:
    depth = seen.depth
    yield _check("depth", depth, _DEPTH.get(depth, f"there are {depth} rewrites"))
    side = SIDE[bool(seen.treated.any())]
    n_classes = len(np.unique(seen.treated))
    only = (f"every row is {side}: only the {'ATT' if side == 'treated' else 'ATU'} can be had, and no original shows "
            "the other side")  # fmt: skip
    yield _check("classes", n_classes, only, "both classes are there")
    n_clusters = len(np.unique(seen.clusters))
    few = "all rows are one cluster (prompt_id), so nothing tells how much to expect of chance"
    yield _check("clusters", n_clusters, f"there are only {n_clusters} clusters" if n_clusters > 1 else few,
                 f"there are {n_clusters} clusters")  # fmt: skip
    passes = range(1, depth + 1)
    ok = [share_interval(seen.ok[:, k - 1].astype(float), seen.clusters) for k in passes]
    worst = min(ok, default=Interval(0.0, 0.0, 0.0, 0))
    yield _check("succeeded", worst, f"in the worst pass {percent(worst.value)} of the rewrites succeeded",
                 f"{percent(worst.value)} of the rewrites succeeded")  # fmt: skip
    if worst.value > 0:
        yield from _content(seen, passes)
    has = seen.unit is not None
    if has or worst.value > 0:
        yield _check("measure", float(has), "the attribute has no measure, so nobody knows whether the rewrites comply",
                     f"the attribute is measured by {seen.unit}")  # fmt: skip
    if has:
        yield from _on_target(seen)


_DEPTH = {
    0: "there is no rewrite, so nothing but naive can be had",
    1: "there is no second rewrite, so RATE cannot be had; one rewrite carries whatever else its rewriter changes",
    2: "there is no third rewrite, so drift cannot be tested",
}  # fmt: skip


def _content(seen: Evidence, passes: range) -> Iterator[Check]:
    kept, repeated = [], []
    for k in passes:
        share = seen.kept[:, k - 1]
        have = np.isfinite(share)
        if have.any():
            kept.append((share_interval((share[have] >= LOST).astype(float), seen.clusters[have]), k))
        same = seen.repeated[:, k - 1]
        have = np.isfinite(same)
        if have.any():
            repeated.append((share_interval(same[have], seen.clusters[have]), k))
    if kept:
        worst, k = min(kept)
        said = f"{percent(worst.value)} of the rewrites keep the content of their source"
        bad = f"in pass {k} only {said}"
        yield _check("content", worst, f"in pass {k} {said}", "the rewrites keep the content", bad)
    if repeated:
        worst, k = max(repeated)
        text = f"in pass {k} {percent(worst.value)} of the rewrites repeat their source or another's rewrite"
        yield _check("repeated", worst, text, text)


def _on_target(seen: Evidence) -> Iterator[Check]:
    """Compliance and move per direction and pass, the dose against the classes' gap, own drift, support."""
    m = seen.own
    top, bottom = np.nanmax(m, initial=-INF), np.nanmin(m, initial=INF)
    rounding = rounding_of(m)
    complied, moved = [], []
    for side in (True, False):
        for k in range(1, min(m.shape[1], 3)):
            have = (seen.treated == side) & np.isfinite(m[:, k]) & np.isfinite(m[:, k - 1])
            if not have.any():
                continue
            towards = side == (k % 2 == 0)
            step = (m[have, k] - m[have, k - 1]) * (1.0 if towards else -1.0)
            at_bound = (m[have, k - 1] == (top if towards else bottom)) & (step == 0)
            place = f"towards {SIDE[towards]}", f"({SIDE[side]}, rewrite {k})"
            moved.append((mean_interval(step, seen.clusters[have], rounding), place, bool(step.any())))
            if not at_bound.all():
                free = ~at_bound
                complied.append((share_interval((step[free] > 0).astype(float), seen.clusters[have][free]), place))
    if complied:
        worst, (asked, where) = min(complied, key=lambda item: item[0][1])
        share = f"{percent(worst.value)} of the rewrites {asked} moved the attribute that way {where}"
        yield _check("compliance", worst, share, f"at least {share}", f"only {share}")
    if moved:
        worst, (asked, where), any_moved = min(
            moved, key=lambda item: (CHECK_RULES["moves"].word(*item[0][:3])[0] == FINE, item[0][1])
        )
        text = f"whether the rewrites {asked} move the attribute's measure {where}"
        if worst.low == worst.high == 0:
            text = f"the rewrites {asked} move the attribute's measure by 0 on average {where}"
            text = text if any_moved else f"none of the rewrites {asked} moves the attribute's measure {where}"
        elif worst.high < 0:
            text = f"the rewrites {asked} move the attribute's measure the other way {where}"
        yield _check("moves", worst, text, "the measure moves as asked in both directions")
    yield from _dose_against_gap(seen)
    drifts = own_drift(m, seen.treated, seen.clusters)
    if drifts:
        side, parts = max(drifts.items(), key=lambda item: item[1].reach)
        text = (f"the third rewrite of {SIDE[side]} responses differs from the first in {seen.unit} by "
                f"{percent(parts.value, '+')} of what a rewrite moves it")  # fmt: skip
        yield _check("own drift", parts, text, "the third rewrite is where the first was")
    # Originals of one class show what their own side is like: only rewrites back to it can be held against them.
    one_class = seen.treated.all() or not seen.treated.any()
    reach = outside(m[:, ::2] if one_class else m, seen.clusters)
    if reach is not None:
        which = "rewrites back" if one_class else "rewrites"
        text = f"outside the data: {percent(reach.value)} of the {which} lie beyond every original in {seen.unit}"
        yield _check("outside by measure", reach, text, "the rewrites stay within what the originals show")


def _dose_against_gap(seen: Evidence) -> Iterator[Check]:
    m = seen.own
    have = np.isfinite(m[:, :3]).all(axis=1)
    w = seen.treated[have]
    if m.shape[1] < 3 or w.all() or not w.any():
        return
    dose, gap = (part_of(m[have], w, seen.clusters[have], name) for name in ("rate", "naive"))
    if dose is None or gap is None:
        return
    share = fieller(dose.value, gap.value, np.stack([dose.scores, gap.scores]), min(dose.df, gap.df), dose.n)
    if math.isfinite(share.low):
        said = f"the dose is {share.value:.2f} of the classes' gap in {seen.unit}"
        unlike = "less" if share.high < 1 else "more" if share.low > 1 else ""
        yield _check("dose", share, f"{said}, {unlike} than naive compares" if unlike else said, said)
        return
    # The classes may not differ in the measure at all: the dose is held against an SD, and is never shown fine.
    value, _, low, high = scale_of(seen, m).divide(dose, LEVEL)
    in_sd = Interval(value, low, high, dose.n)
    size = f" of {to_places(in_sd.value)} SD" if in_sd.value == in_sd.value else ""
    text = f"{seen.unit} is not shown to tell the classes apart, so the dose{size} has no gap to compare with"
    check = _check("dose", in_sd, text, text)
    yield replace(check, outcome=TOO_FEW, word=max(check.word, CARE, key=WORDS.index))


def _shifts(seen: Evidence) -> Iterator[Check]:
    """Where nothing is scored: how other measures move, in SDs, with the attribute and from first to third rewrite."""
    shifts, drifts = [], []
    for name, m in seen.others.items():
        scale = scale_of(seen, m)
        if m.shape[1] < 3 or not scale.sd > 0:
            continue
        rounding = rounding_of(m)
        moved = signed_change(m, seen.treated)
        have = np.isfinite(moved)
        if have.any():
            shifts.append((sds_interval(moved[have], seen.clusters[have], scale, rounding), name))
        moved = m[:, 3] - m[:, 1] if m.shape[1] > 3 else np.full(len(m), np.nan)
        for side in (True, False):
            have = np.isfinite(moved) & (seen.treated == side)
            if have.any():
                drifts.append((sds_interval(moved[have], seen.clusters[have], scale, rounding), name, SIDE[side]))
    if shifts:
        worst, name = max(shifts, key=lambda item: item[0].reach)
        text = f"{name} also moves with the attribute, by {to_places(worst.value, 1)} SD"
        yield _check("shift", worst, text, "no other measure moves with the attribute")
    if drifts:
        worst, name, of = max(drifts, key=lambda item: item[0].reach)
        text = (
            f"{name} drifts by {to_places(worst.value, 1)} SD between the first and the third rewrite of {of} responses"
        )
        yield _check("drift of a measure", worst, text, "no other measure drifts")


def scale_of(seen: Evidence, values: Floats) -> RewardScale:
    """The SD of the originals' values (n, depth+1) with its own error."""
    first = values[:, 0] if values.shape[1] else np.full(len(values), np.nan)
    return RewardScale(first, seen.treated, seen.clusters, int(seen.clusters.max()) + 1)


# --- what it does to the reward --------------------------------------------------------------------------


def _of_rewards(seen: Evidence, r: Floats, estimator: str, priced: tuple[_Priced, Bools] | None) -> Iterator[Check]:
    effect = effect_size(r, seen.treated)
    if priced is not None:
        yield from _balance(*priced, effect)
    yield from _drift(seen, r, estimator, effect)
    yield from _refused(seen, r, effect)
    reach = outside(r, seen.clusters)
    if reach is not None:
        text = f"outside the data: {percent(reach.value)} of the rewrites have a reward beyond that of every original"
        yield _check("outside by reward", reach, text, "the rewards of rewrites stay within what the originals show",
                     f"{text}, so an SD of the originals is no measure of its size")  # fmt: skip


def _of_judge(seen: Evidence, r: Floats, read: Mapping[str, Floats]) -> Iterator[Check]:
    """Does a judge answer the question, and does the text count beside its place? Both over the original responses."""
    mass = read[ANSWER_MASS][:, 0] if ANSWER_MASS in read else np.empty(0)
    if (have := np.isfinite(mass)).any():
        share = mean_interval(mass[have], seen.clusters[have], rounding_of(mass))
        text = f"the judge gives its two answers {percent(share.value)} of the probability of what it would say"
        yield _check("answers", share, text, text)
    places = [read[name][:, 0] for name in (SHOWN_FIRST, SHOWN_SECOND) if name in read]
    gap = places[0] - places[1] if len(places) == 2 else np.empty(0)
    if (have := np.isfinite(gap)).any():
        sds = sds_interval(gap[have], seen.clusters[have], scale_of(seen, r), rounding_of(np.concatenate(places)))
        text = f"being shown first is worth {sds.value:+.3g} SDs of the reward to this judge"
        yield _check("position", sds, text, text, f"{text}, and what is averaged out drowns what is left")


def _priced(seen: Evidence, r: Floats) -> tuple[_Priced, Bools] | None:
    """What the reward pays for the shifts of the other measures, with the rows' classes; None where nothing tells."""
    moving = {name: m for name, m in seen.others.items() if m.shape[1] > 2}
    if r.shape[1] < 3 or not moving:
        return None
    y = signed_change(r, seen.treated)
    x = np.stack([signed_change(m, seen.treated) for m in moving.values()], axis=1)
    extra = signed_change(seen.own, seen.treated) if seen.own.shape[1] > 2 else np.zeros(len(y))
    have = np.isfinite(y) & np.isfinite(x).all(axis=1) & np.isfinite(extra)
    if not have.any():
        return None
    return _Priced(y[have], x[have], extra[have], seen.clusters[have], list(moving)), seen.treated[have]


def _balance(priced: _Priced, w: Bools, effect: float) -> Iterator[Check]:
    """The shift of the other measures between the rewrites, at what the reward pays for it."""
    whole = priced.bias(np.ones(len(w), bool)).parts_of(effect)
    moved = priced.largest()[0]
    if priced.unpriced:
        text = f"{priced.unpriced} moved {priced.alike}, so what the reward pays for it cannot be told"
    else:
        text = f"the reward pays for {moved}, which moves with the attribute: {percent(whole.value, '+')} of the effect"
    overall = _check("balance", whole, text, "what else moves with the attribute hardly counts in the reward")
    yield overall
    if overall.word not in (TRUST, CARE):
        return
    if w.any() and not w.all():
        worst = max((priced.bias(of).parts_of(effect) for of in (w, ~w)), key=lambda i: i.reach)
        text = f"{moved} moves the same way in both directions, which cancels in the ATE and not in ATT and ATU"
        yield _check("balance of one class", worst, f"whether {text}", "ATT and ATU are balanced too", text)


class _Priced:
    """What the reward pays for a unit of each measure, by the rows' own changes, and for the shifts of all.

    A regression of the s-signed change of the reward on those of the other measures and of the attribute's own, with
    an intercept: the price of a measure is what its *variation* between rows brings. A measure that moves by the same
    in every row has no price (`unpriced`).
    """

    def __init__(self, y: Floats, x: Floats, own: Floats, clusters: Ints, names: Sequence[str]) -> None:
        scale = np.abs(x).max(axis=0)
        spread = x - x.mean(axis=0)
        varies = np.abs(spread).max(axis=0) > 1e-9 * np.where(scale > 0, scale, 1.0)
        still = (~varies) & (scale > 0)
        self.unpriced = ", ".join(name for name, flag in zip(names, still, strict=True) if flag)
        self.names = [name for name, flag in zip(names, varies, strict=True) if flag]
        self.x, self.clusters = x[:, varies], np.unique(clusters, return_inverse=True)[1]
        columns = [self.x, np.ones((len(y), 1)), *([own[:, None]] if np.ptp(own) > 0 else [])]
        self.fit = Regression(y, np.hstack(columns), self.clusters)
        self.alike = "alike in every row"
        if not self.unpriced and np.isnan(self._price(self.x.mean(axis=0))[0]):
            self.alike = "just as the attribute's own measure did"
            told = zip(self.names, np.eye(len(self.names)), strict=True)
            self.unpriced = ", ".join(name for name, one in told if np.isnan(self._price(one)[0]))

    def _price(self, shifts: Floats) -> tuple[float, Floats, float]:
        """What is paid for these shifts of the measures: value, scores by cluster, df."""
        return self.fit.of(np.r_[shifts, np.zeros(len(self.fit.coefficients) - len(shifts))])

    def bias(self, used: Bools) -> Interval:
        """Mean over the rows `used` of the priced shifts, with both uncertainties (delta method, and their product)."""
        n, p = int(used.sum()), self.x.shape[1]
        if self.unpriced or not p:
            return Interval(*(math.nan if self.unpriced else 0.0,) * 3, n)
        x, codes = self.x[used], self.clusters[used]
        shift = x.mean(axis=0)
        value, of_prices, df = self._price(shift)
        sizes, g = Sizes(np.bincount(codes, minlength=len(of_prices)).astype(float)), len(of_prices)
        of_shift = np.stack([sizes.scores(cluster_sums(c, codes, g)) for c in (x - shift).T])
        together = of_prices + self.fit.coefficients[:p] @ of_shift
        prices = self.fit.scores[:p]
        product = float(((prices @ prices.T) * (of_shift @ of_shift.T)).sum())
        se = math.sqrt(float(together @ together) + product)
        low, high, _ = t_interval(value, se, min(df, sizes.df) if of_prices.any() else sizes.df)
        return Interval(value, *((low, high) if se else (value, value)), n)

    def largest(self) -> tuple[str, float]:
        """The measure whose shift the reward pays most for, and how much it pays."""
        if not self.names:
            return self.unpriced or "nothing", math.nan
        paid = self.x.mean(axis=0) * self.fit.coefficients[: len(self.names)]
        most = int(np.argmax(np.abs(paid)))
        return self.names[most], float(paid[most])


def _drift(seen: Evidence, r: Floats, estimator: str, effect: float) -> Iterator[Check]:
    if r.shape[1] < 4:
        return
    rounding = rounding_of(r)
    moved = signed_change(r, seen.treated, 3, 1)
    have = np.isfinite(moved)
    if not have.any():
        return
    w, codes = seen.treated[have], seen.clusters[have]
    how = ESTIMATORS.get(estimator)
    overall = None
    if estimator in ("naive", "single_rewrite", "rate") or how is None:
        whole = mean_interval(moved[have], codes, rounding).parts_of(effect)
        text = "the rewards of the third rewrite and the first, which were asked for the same, differ by"
        overall = _check("drift", whole, f"{text} {percent(whole.value, '+')} of the effect",
                         "the third rewrite is rewarded as the first")  # fmt: skip
    else:
        complete = rows_used(how, r)[1] & np.isfinite(r[:, [1, 2]]).all(axis=1)
        if complete.any():
            of = r[complete], seen.treated[complete], seen.clusters[complete]
            corrected, plain = (row_values(*of, name)[0] for name in (estimator, "rate"))
            whole = mean_interval(corrected - plain, seen.clusters[complete], rounding).parts_of(effect)
            text = f"the correction for drift changes the estimate by {percent(whole.value, '+')}"
            overall = _check("correction", whole, f"{text}, on an assumption that these rewrites cannot test",
                             "the correction for drift changes little")  # fmt: skip
    if overall is None:
        return
    yield overall
    if overall.word not in (TRUST, CARE):
        return
    if w.any() and not w.all():
        sides = [mean_interval(moved[have][of], codes[of], rounding).parts_of(effect) for of in (w, ~w)]
        worst = max(sides, key=lambda i: i.reach)
        text = "both classes drift, which cancels in the ATE and not in ATT and ATU"
        yield _check("drift of one class", worst, f"whether {text}", "neither class drifts by itself", text)


def _refused(seen: Evidence, r: Floats, effect: float) -> Iterator[Check]:
    """Are the originals of rows whose rewrites failed like those of the others?"""
    needed = [k for k in (1, 2) if k < r.shape[1]] or [0]
    kept = np.asarray(np.isfinite(r[:, needed]).all(axis=1), bool)
    refused: Bools = ~kept & np.isfinite(r[:, 0])
    share = float((~kept).mean())
    if not refused.any() or not kept.any():
        return
    gap = _unlike(r[:, 0], seen.treated, kept, refused, seen.clusters)
    # The gap of the originals, times the share of rows: by so much the mean moves if effects differ as levels do.
    whole = gap.times(share).parts_of(effect)
    other = f"the {percent(share)} of rows without rewrites are unlike the others"
    text = (f"their originals' rewards are {gap.value:+.3g} apart, by their share "
            f"{percent(whole.value, '+')} of the effect")  # fmt: skip
    yield _check("refused, by reward", whole, f"whether {other}" + (f" ({text})" if gap.value == gap.value else ""),
                 "rows without rewrites are rewarded like the others", f"{other}: {text}")  # fmt: skip
    every = {**({"its own measure": seen.own} if seen.own.shape[1] else {}), **seen.others}
    worst: tuple[Interval, str] | None = None
    for name, m in every.items():
        sd = pooled_sd(m[:, 0], seen.treated)
        if m.shape[1] and sd > 0 and np.isfinite(m[kept, 0]).any() and np.isfinite(m[refused, 0]).any():
            unlike = _unlike(m[:, 0], seen.treated, kept, refused, seen.clusters, tests=len(every))
            parts = unlike.times(share).parts_of(sd)
            if worst is None or worst[0].value != worst[0].value or abs(parts.value) > abs(worst[0].value):
                worst = parts, name
    if worst is not None:
        parts, name = worst
        text = (f"their originals are {to_places(parts.value / share, 1)} SD apart in {name}, by their share "
                f"{to_places(parts.value)}")  # fmt: skip
        known = f" ({text})" if parts.value == parts.value else ""
        yield _check("refused, by measure", parts, f"whether {other}{known}",
                     "the texts of rows without rewrites are like the others", f"{other}: {text}")  # fmt: skip


def _unlike(values: Floats, treated: Bools, kept: Bools, refused: Bools, clusters: Ints, tests: int = 1) -> Interval:
    """Mean of `values` among refused rows minus that among kept ones, within classes; Bonferroni over `tests`."""
    centred = np.full(len(values), np.nan)
    for side in (True, False):
        base = values[(treated == side) & kept]
        base = base[np.isfinite(base)]
        if len(base):
            centred[treated == side] = values[treated == side] - base.mean()
    parts = [of & np.isfinite(centred) for of in (refused, kept)]
    out, within = (centred[of] for of in parts)
    if not len(out) or len(within) < 2:
        return Interval(math.nan, math.nan, math.nan, len(out))
    spread = float(within.var(ddof=1))
    if len(out) > 2:
        spread = max(spread, float(out.var(ddof=1)))
    half = math.hypot(*(_reach(centred[of], clusters[of], spread, 0.025 / tests) for of in parts))
    value = float(out.mean())
    return Interval(value, value - half, value + half, len(out))


def _reach(values: Floats, clusters: Ints, spread: float, p: float) -> float:
    """How far the mean of `values` may be off, but for `p` on each side, where rows vary by the variance `spread`.

    As independent rows, or as their clusters show where that is farther; of few clusters as if the rows of each were
    alike, for so few do not show it.
    """
    mean, shares = clustered_mean(values, clusters), np.unique(clusters, return_counts=True)[1] / len(values)
    alone = float(stats.norm.ppf(1 - p)) * math.sqrt(spread / len(values))
    if mean.n_clusters < RARE:
        return float(alone * math.sqrt(len(values) * float(shares @ shares)))
    return max(alone, float(stats.t.ppf(1 - p, mean.df)) * mean.se) if mean.n_clusters < len(values) else alone
