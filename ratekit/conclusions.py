"""What is said about an effect: the verdict, a record, and its sentence. Every surface says what is made here.

`Verdict` is one attribute under one reward model: the estimate to read first, and whether to trust it, with the
checks behind that (`ratekit.diagnostics.verdicts` makes it). `sentence` puts it in words, and is the only
function that does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scipy import special

from ratekit.errors import InputError
from ratekit.estimators import ESTIMANDS, ESTIMATORS, SAMPLE_SD
from ratekit.intervals import LEVEL
from ratekit.recommendation import MARGIN, OUTSIDE
from ratekit.schema import grouping
from ratekit.tables import interval_words, number_with_interval, to_places

if TYPE_CHECKING:
    import pandas as pd

TRUST, CARE, CANNOT_TELL, NO_TRUST = "trust", "trust with care", "cannot tell", "do not trust"
WORDS = (TRUST, CARE, CANNOT_TELL, NO_TRUST)  # each graver than the one before
FINE, BAD, TOO_FEW = "shown fine", "shown bad", "too few rows to tell"
POWER = 0.8
NOT_CHECKED = "the rewrites were not checked"
INF = math.inf


@dataclass(frozen=True)
class CheckRule:
    """What is fine and what is usable of one number, and the gravest verdict that it can give."""

    claim: str
    fine: tuple[float, float]
    usable: tuple[float, float]
    at_worst: str = NO_TRUST
    percent: bool = True  # how its interval is shown

    def word(self, value: float, low: float, high: float) -> tuple[str, str]:
        """The outcome and the verdict of a number with its interval (see the table above)."""
        if not (low <= high):  # NaN: nothing tells
            return TOO_FEW, self._capped(CANNOT_TELL)
        if self.fine[0] <= low and high <= self.fine[1]:
            return FINE, TRUST
        unlike_fine = high < self.fine[0] or low > self.fine[1]
        if self.usable[0] <= low and high <= self.usable[1]:
            return BAD if unlike_fine else TOO_FEW, self._capped(CARE)
        if high < self.usable[0] or low > self.usable[1]:
            return BAD, self._capped(NO_TRUST)
        return TOO_FEW, self._capped(CANNOT_TELL)

    def _capped(self, word: str) -> str:
        return min(word, self.at_worst, key=WORDS.index)

    def margin(self, value: float) -> float:
        """The bound of what is fine that lies nearer to `value`."""
        bounds = [b for b in self.fine if math.isfinite(b)]
        return min(bounds, key=lambda b: abs(b - value)) if bounds else math.nan


def _within(fine: float, usable: float, claim: str, at_worst: str = NO_TRUST, percent: bool = True) -> CheckRule:
    return CheckRule(claim, (-fine, fine), (-usable, usable), at_worst, percent)


_POSITIVE = (math.ulp(0.0), INF)

CHECK_RULES: dict[str, CheckRule] = {
    "depth": CheckRule("rewrites of a chain", (3, INF), (2, INF), CANNOT_TELL),
    "classes": CheckRule("classes among the rows", (2, 2), (1, 2)),
    "clusters": CheckRule("prompts", (30, INF), (2, INF), CANNOT_TELL),
    "succeeded": CheckRule("share of rewrites that are ok, worst pass", (0.9, 1), (0.5, 1)),
    "measure": CheckRule("measures of the attribute", (1, 1), (0, 1)),
    "compliance": CheckRule("share of rewrites that moved the measure as asked, worst direction", (0.9, 1), (0.7, 1)),
    "moves": CheckRule("mean move of the measure as asked, worst direction", _POSITIVE, _POSITIVE, percent=False),
    "dose": CheckRule("dose, in gaps between the classes", (0.75, 1.25), (0.25, INF), percent=False),
    "own drift": _within(MARGIN, 0.5, "own measure, third rewrite against first, in doses"),
    "content": CheckRule("share of rewrites that keep the content of their source, worst pass", (0.9, 1), (0.5, 1)),
    "repeated": CheckRule("share of rewrites that repeat their source or another's rewrite, worst pass", (0, 0.1),
                          (0, 0.5)),
    "shift": _within(0.2, INF, "move of another measure that goes with the attribute, in SDs", CARE, False),
    "drift of a measure": _within(0.2, INF, "another measure, third rewrite against first, in SDs", CARE, False),
    "balance": _within(0.2, 0.5, "what the reward pays for other measures, in effects"),
    "balance of one class": _within(0.5, INF, "the same among the treated and the untreated", CARE),
    "drift": _within(0.2, 0.5, "reward of the third rewrite against the first, in effects"),
    "drift of one class": _within(0.5, INF, "the same among the treated and the untreated", CARE),
    "correction": _within(0.2, 0.5, "what the correction for drift changes, in effects", CANNOT_TELL),
    "refused, by reward": _within(0.2, 0.5, "originals' rewards of refused rows, times their share, in effects",
                                  CANNOT_TELL),
    "refused, by measure": _within(0.1, INF, "originals' measures of refused rows, by their share, in SDs", CARE,
                                   False),
    "outside by measure": CheckRule("share of rewrites beyond the originals' range of the measure", (0, OUTSIDE),
                                    (0, 0.5)),
    "outside by reward": CheckRule("share of rewrites beyond the originals' range of rewards", (0, OUTSIDE), (0, 0.5)),
    "answers": CheckRule("share of the probability that a judge gives its two answers", (0.5, 1), (0.1, 1),
                         CANNOT_TELL),
    "position": _within(1, 10, "what being shown first is worth to a judge of pairs, in SDs of the reward",
                        CANNOT_TELL, False),
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name
        A name in `RULES`.
    outcome
        "shown fine", "shown bad" or "too few rows to tell".
    text
        What was seen, as part of a sentence.
    value, low, high
        The estimate and its interval.
    margin
        The bound of what is fine that lies nearer to `value`.
    word
        The verdict that this check alone would give.
    """

    name: str
    outcome: str
    text: str
    value: float
    low: float
    high: float
    margin: float
    word: str = TRUST


@dataclass(frozen=True)
class Verdict:
    """One attribute under one reward model: which number to read, and whether to trust it.

    Attributes
    ----------
    attribute, reward_model
        What was varied, and what was scored; `reward_model` is None where nothing is scored.
    word
        "trust", "trust with care", "cannot tell" or "do not trust": that of the gravest check.
    estimate
        The recommended row of the effects table, with `level`, the `smallest` effect that these rows would have
        shown, the `dose` that it is an effect of, where the attribute has a measure, and `explained`, what the measure
        `explained_by` alone explains of it, where that is not shown to be little. Empty where nothing is scored.
    reason
        Why this word, in one line.
    checks
        All that was looked at, in the order of the rules.
    by
        The values of the columns that the rows were grouped by.
    beside
        The same estimand by the other estimators: estimator -> row.
    """

    attribute: str
    reward_model: str | None
    word: str
    estimate: Mapping[str, Any]
    reason: str
    checks: tuple[Check, ...] = ()
    by: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The attribute, and the group."""
        return ", ".join([self.attribute, *(f"{k} {'null' if v is None or v != v else v}" for k, v in self.by.items())])

    @property
    def subject(self) -> str:
        """What the sentence is about: the reward model, the attribute and the group."""
        return self.name if self.reward_model is None else f"{self.reward_model}, {self.name}"

    @property
    def told(self) -> bool:
        """Is there an effect to read? Under "do not trust" there is none; a naive estimate is of no effect."""
        return bool(self.estimate) and self.word != NO_TRUST and self.estimate["estimator"] != "naive"

    @property
    def direction(self) -> str:
        """Does the attribute raise or lower the reward, so far as the verdict lets it be said? "" where it does not."""
        if not self.told:
            return ""
        seen = in_units(self.estimate)
        return "raises" if seen.low > 0 else "lowers" if seen.high < 0 else ""

    @property
    def claim(self) -> str:
        """The middle of the sentence: what these rows say of the effect, without numbers of it."""
        if self.word == NO_TRUST:
            return "no number to read"
        return _claim(self, in_units(self.estimate)) if self.estimate else "nothing is scored"

    @property
    def grounds(self) -> str:
        """The checks that decided the word; the whole reason where none did."""
        first = gravest_first(self.checks)
        decided = [c.text for c in first if c.word != TRUST and (c.word == self.word or c is first[0])]
        return "; ".join(decided) or self.reason

    @property
    def gravest(self) -> str:
        """The check that weighs most; the whole reason where none does."""
        first = [c.text for c in gravest_first(self.checks) if c.word != TRUST]
        return first[0] if first else self.reason

    @property
    def sentence(self) -> str:
        """The whole sentence, with its reason."""
        return sentence(self)

    @property
    def short(self) -> str:
        """The sentence without its reason."""
        return sentence(self, reason=False)


def gravest_first(checks: Iterable[Check]) -> list[Check]:
    """The checks by their word, gravest first; that there is no second rewrite comes before everything."""
    return sorted(checks, key=lambda c: -WORDS.index(c.word) - 10 * (c.name == "depth" and c.value < 2))


def sentence(verdict: Verdict, *, reason: bool = True) -> str:
    """What one verdict says, in words: the only maker of sentences about an effect.

    Parameters
    ----------
    verdict
        From `rk.verdicts`.
    reason
        Whether the sentence ends with why.

    Returns
    -------
    str
        One line. Under "do not trust" it holds no estimate.

    Examples
    --------
    >>> row = {"estimator": "rate", "estimand": "ate", "estimate": 2.0, "se": 0.5, "ci_low": 1.0, "ci_high": 3.0,
    ...        "reward_sd": 2.0, "n_clusters": 100}
    >>> sentence(Verdict("length", "rm", "trust", row, "all checks are passed"))
    'rm, length: RATE +1.00 SD of this sample [+0.50, +1.50]: length raises the reward. Trust: all checks are passed.'
    >>> sentence(Verdict("length", "rm", "do not trust", row, "no rewrite complies"))
    'rm, length: no number to read. Do not trust: no rewrite complies.'
    """
    end = f" {verdict.word.capitalize()}{': ' + verdict.grounds if reason and verdict.grounds else ''}."
    if verdict.word == NO_TRUST:
        return f"{verdict.subject}: no number to read.{end}"
    if not verdict.estimate:
        return f"{verdict.subject}: nothing is scored.{end}"
    seen = in_units(verdict.estimate)
    parts = []
    for name in ("naive", "single_rewrite"):
        if name in verdict.beside:
            other = in_units(verdict.beside[name])
            parts.append(f"{estimator_label(name)} {to_places(other.estimate)}{other.unit}")
    parts.append(f"{read_first(verdict.estimate)} {number_words(verdict.estimate)}")
    said = f"{', '.join(parts)}{_dose(verdict.estimate)}: {_claim(verdict, seen)}"
    if verdict.estimate.get("explained_by"):
        part = float(verdict.estimate["explained"]) * seen.estimate / float(verdict.estimate["estimate"])
        by = str(verdict.estimate["explained_by"])
        said += f"; {explained(seen.estimate, verdict.attribute, by, part, seen.unit)}"
    return f"{verdict.subject}: {said}.{end}"


def explained(total: float, attribute: str, measure: str, part: float, unit: str = "") -> str:
    """What another measure, which moves with the attribute, explains of an effect.

    Examples
    --------
    >>> explained(1.02, "sycophancy", "words", 1.46)
    'of the +1.02 for sycophancy, words alone explains +1.46'
    """
    return f"of the {to_places(total)}{unit} for {attribute}, {measure} alone explains {to_places(part)}{unit}"


def _claim(verdict: Verdict, seen: InUnits) -> str:
    if seen.low != seen.low:
        if seen.estimate == 0:
            return "the effect is 0 for every prompt"
        return "how much of that is chance these rows do not tell"
    if verdict.estimate["estimator"] == "naive":
        if seen.low > 0 or seen.high < 0:
            more = "more" if seen.low > 0 else "less"
            return f"treated responses get {more} reward, which need not be because of {verdict.attribute}"
        return f"no difference in reward is seen, which is not to say that {verdict.attribute} has no effect"
    if not verdict.direction:
        size = f"{to_places(seen.smallest, sign='')}{seen.unit}"
        smallest = f"; one of {size} would have been, in {POWER:.0%} of such samples"
        return f"no effect is seen{smallest if seen.smallest == seen.smallest else ''}"
    said = f"{verdict.attribute} {verdict.direction} the reward"
    return f"if the rewrites do what they should, {said}" if verdict.word == CANNOT_TELL else said


def _dose(row: Mapping[str, Any]) -> str:
    dose = row.get("dose", math.nan)
    return f" for a change of {dose:+.3g} in {row['dose_unit']}" if dose == dose else ""


def read_first(row: Mapping[str, Any]) -> str:
    """Which estimate a row is: its estimator, and its estimand where that is not the ATE.

    Examples
    --------
    >>> read_first({"estimator": "rate", "estimand": "atu"})
    'RATE (ATU)'
    """
    which = "" if row["estimand"] == "ate" else f" ({str(row['estimand']).upper()})"
    return f"{estimator_label(str(row['estimator']))}{which}"


def number_words(row: Mapping[str, Any], above: str = "") -> str:
    """An estimate with its unit, where that is not what stands `above` it, and its interval, of 95 % if not said."""
    seen = in_units(row)
    unit = "" if seen.unit == above else seen.unit
    level = row.get("level")
    if level and level != LEVEL and seen.low == seen.low:
        unit += f", {interval_words([level])}"
    return number_with_interval(seen.estimate, seen.low, seen.high, unit=unit)


REWARD_UNITS, SDS = " reward units", " SD"


@dataclass(frozen=True)
class InUnits:
    """An estimate in the units that it is shown in: SDs of the reward where there are any, else reward units."""

    estimate: float
    low: float
    high: float
    smallest: float
    unit: str

    @property
    def in_sds(self) -> bool:
        """In SDs, of the reward or of this sample."""
        return self.unit != REWARD_UNITS


def in_units(row: Mapping[str, Any]) -> InUnits:
    """A row of an effects table in reward SDs, with the SD's own uncertainty where the table has it."""
    if row.get("estimate_sd", math.nan) == row.get("estimate_sd", math.nan):
        value, low, high = (float(row[c]) for c in ("estimate_sd", "ci_low_sd", "ci_high_sd"))
        return InUnits(value, low, high, smallest_effect({**row, "se": row["se_sd"]}), SDS)
    sd = float(row.get("reward_sd", math.nan))
    sd, unit = (sd, f" {SAMPLE_SD}") if sd > 0 else (1.0, REWARD_UNITS)  # its own error is not in the interval
    low, high = (float(row[c]) / sd if row["se"] > 0 else math.nan for c in ("ci_low", "ci_high"))
    return InUnits(float(row["estimate"]) / sd, low, high, smallest_effect(row) / sd, unit)


def smallest_effect(row: Mapping[str, Any], power: float = POWER) -> float:
    """The effect that rows like these would show with this power: SE times the quantiles of the level and the power.

    Examples
    --------
    >>> round(smallest_effect({"se": 1.0, "n_clusters": 100_000, "level": 0.95}), 2)
    2.8
    """
    df, level = _df(row), level_of(row) or LEVEL
    return float(row["se"]) * float(special.stdtrit(df, 0.5 + level / 2) + special.stdtrit(df, power))


def _df(row: Mapping[str, Any]) -> float:
    """The degrees of freedom of a row's interval; NaN where it has none."""
    df = float(row.get("df", math.nan))
    df = df if df == df else float(row["n_clusters"]) - 1
    return df if row["se"] > 0 and df > 0 else math.nan


def level_of(row: Mapping[str, Any]) -> float | None:
    """The level of a row's interval: its `level`, else that of the t interval of this width, else None.

    A t interval lies evenly about its estimate; one that does not is of another kind, whose width tells no level.

    Examples
    --------
    >>> level_of({"se": 1.0, "ci_low": -1.6604, "ci_high": 1.6604, "n_clusters": 100})
    0.9
    """
    if "level" in row:
        return None if row["level"] is None else float(row["level"])
    df = _df(row)
    if df != df:
        return None
    low, high = float(row["ci_low"]), float(row["ci_high"])
    if not abs(low + high - 2 * float(row.get("estimate", (low + high) / 2))) <= 1e-3 * (high - low):
        return None
    half = (high - low) / 2 / float(row["se"])
    found = 2 * float(special.stdtr(df, half)) - 1
    return round(found, 3) if abs(found - round(found, 3)) < 1e-4 else None


def levels_of(table: pd.DataFrame) -> Iterator[float | None]:
    """The levels of an effects table's intervals, of the rows that have one."""
    return (level_of(row) for _, rows in effect_rows(table) for row in rows if row["ci_low"] == row["ci_low"])


def estimator_label(estimator: str) -> str:
    """An estimator's name in a sentence."""
    return ESTIMATORS[estimator].label if estimator in ESTIMATORS else estimator


def first_to_read(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row to read first among those of one attribute and reward model.

    The table's own `recommended` where it has the column; else RATE, else a single rewrite, else naive, for all
    responses where both classes are there.
    """
    marked = [row for row in rows if row.get("recommended") is True or row.get("recommended") == "True"]
    if marked:
        return marked[0]
    order = {name: i for i, name in enumerate(("rate", "single_rewrite", "naive"))}
    known = [row for row in rows if row["estimator"] in order] or rows
    return min(known, key=lambda row: (order.get(row["estimator"], 9), ESTIMANDS.index(row["estimand"])))


def effect_rows(table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows of an effects table by what they are about: (by, attribute and reward_model), their rows."""
    for column in ("attribute", "reward_model", "estimator", "estimand", "estimate", "se", "ci_low", "ci_high"):
        if column not in table:
            raise InputError(f"conclusions: an effects table was expected, as rk.estimate gives it; no {column!r}")
    keys = [*grouping(table), "attribute", "reward_model"]
    for values, rows in table.groupby(keys, sort=False, dropna=False):
        records = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
        if "level" in table.attrs:
            records = [{**row, "level": table.attrs["level"]} for row in records]
        yield dict(zip(keys, values, strict=True)), records


def other_estimators(rows: list[dict[str, Any]], estimate: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the other estimators that answer the same question as `estimate`."""
    same = [row for row in rows if row["estimand"] == estimate["estimand"]]
    return {str(row["estimator"]): row for row in same if row["estimator"] != estimate["estimator"]}


def conclusions(found: pd.DataFrame | Iterable[Verdict]) -> list[str]:
    """One sentence for each attribute and reward model (and group) of verdicts, or of a bare effects table.

    Parameters
    ----------
    found
        Verdicts of `rk.verdicts`, or a table of `rk.estimate`, whose rewrites nobody checked.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> print(conclusions(rk.estimate(ds))[0].partition(" [")[0])
    words, sentiment: naive +0.74 SD, single rewrite +0.02 SD, RATE +0.002 SD
    """
    if hasattr(found, "columns"):
        return [sentence(verdict) for verdict in unchecked(found)]
    return [sentence(verdict) for verdict in found]


def unchecked(table: pd.DataFrame) -> Iterator[Verdict]:
    """The verdicts on a bare effects table, whose rewrites nobody has checked: "cannot tell"."""
    for labels, rows in effect_rows(table):
        attribute, model = str(labels.pop("attribute")), str(labels.pop("reward_model"))
        row = first_to_read(rows)
        row = {**row, "level": level_of(row), "smallest": smallest_effect(row)}
        yield Verdict(attribute, model, CANNOT_TELL, row, NOT_CHECKED, (), labels, other_estimators(rows, row))
