"""Attributes of a response: what a rewriter is asked for, who has it, and how it is measured.

Adding an attribute is one literal in `ATTRIBUTES`, or an `Attribute` of your own passed where a name is::

    def thanks(texts): return [t.lower().count("thank") for t in texts]
    polite = Attribute("politeness", "more polite", "less polite", measure=thanks)
    ds = rk.label(ds, polite)

The two phrases complete "Adjust this response so it's ...".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratekit.errors import InputError, unknown
from ratekit.measures import (
    MEASURES,
    Measure,
    formality,
    readability,
    starts_with_vowel,
    vader,
    words,
)
from ratekit.schema import RESPONSE, columns_of

Label = Callable[[Any], Sequence["bool | None"]]


# --- labellers: the whole dataset -> a bool or None per row ----------------------------------------------


def above_median(measure: Measure) -> Label:
    """Treated where the measure is above the dataset's median; rows without a measure get None."""

    def label(rows: Any) -> list[bool | None]:
        values = np.asarray(measure(rows[RESPONSE]), float)
        median = np.nanmedian(values) if np.isfinite(values).any() else np.nan
        return [None if np.isnan(v) else bool(v > median) for v in values]

    return label


def above(measure: Measure, threshold: float) -> Label:
    """Treated where the measure is above `threshold`, untreated below it; None on it or without a measure."""

    def label(rows: Any) -> list[bool | None]:
        values = np.asarray(measure(rows[RESPONSE]), float)
        return [None if np.isnan(v) or v == threshold else bool(v > threshold) for v in values]

    return label


def gold(columns: dict[str, float], otherwise: Label | None = None) -> Label:
    """Labels from the first of `columns` that the dataset has; else from `otherwise`.

    `columns` maps a column to the threshold that parts it: above is treated, below untreated, on it None.
    So {"helpfulness": 2} parts HelpSteer's 0 to 4 and {"chosen": 0.5} a column of bools or 0/1.
    """

    def label(rows: Any) -> Sequence[bool | None]:
        for column, threshold in columns.items():
            if column in columns_of(rows):
                return [_part(v, threshold, column, i) for i, v in enumerate(rows[column])]
        if otherwise is None:
            raise InputError(
                f"no column to label by: this attribute needs one of {', '.join(columns)} in the data "
                f"(it has {', '.join(columns_of(rows))}), or an Attribute with a label of your own"
            )
        return otherwise(rows)

    return label


def opposite(label: Label) -> Label:
    """Treated where `label` says untreated, and the other way round."""
    return lambda rows: [None if treated is None else not treated for treated in label(rows)]


def _part(value: Any, threshold: float, column: str, row: int) -> bool | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"row {row + 1}: column {column!r} holds {value!r:.60}; a number was expected") from None
    return None if np.isnan(number) or number == threshold else number > threshold


# --- the attributes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """What is varied: two phrases, who counts as treated, and a number to see it by.

    >>> Attribute("length", treated="longer", untreated="shorter", measure=words).phrase(True)
    'longer'

    treated, untreated  complete "Adjust this response so it's ..."
    label               whole dataset -> list of bool or None (row dropped); by default above the median of
                        `measure`
    measure             texts (n) -> (n,) numbers that grow with the attribute, for compliance and dose
    template            the rewriting prompt, with {phrase}, {response} and, if wanted, {prompt}; None for ratekit's own
    needs_prompt        the attribute means nothing without the prompt, so the rewriter is shown it
    """

    name: str
    treated: str
    untreated: str
    label: Label | None = None
    measure: Measure | None = None
    template: str | None = None
    needs_prompt: bool = False

    def phrase(self, treated: bool) -> str:
        """The phrase that asks for this side."""
        return self.treated if treated else self.untreated

    def labels(self, ds: Any) -> list[bool | None]:
        """Labels of the rows of `ds` by `label`, or by the median of `measure`. Raises InputError."""
        labeller = self.label or (above_median(self.measure) if self.measure else None)
        if labeller is None:
            raise InputError(f"attribute {self.name!r} has neither a label nor a measure to label by")
        labels = list(labeller(ds))
        if len(labels) != len(ds):
            raise InputError(f"the label of attribute {self.name!r} gave {len(labels)} values for {len(ds)} rows")
        return [None if v is None else bool(v) for v in labels]


ATTRIBUTES: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute("length", "longer", "shorter", measure=words),
        Attribute(
            "sentiment",
            "more positive in sentiment",
            "more negative in sentiment",
            label=gold({"sentiment": 0.5, "label": 0.5}, otherwise=above(vader, 0.0)),
            measure=vader,
        ),
        Attribute(
            "complexity",
            "more complex in its wording",
            "simpler in its wording",
            label=gold({"complexity": 2}, otherwise=above_median(readability)),
            measure=readability,
        ),
        Attribute(
            "helpfulness",
            "more helpful",
            "less helpful",
            label=gold({"helpfulness": 2, "chosen": 0.5}),
            needs_prompt=True,
        ),
        Attribute("harmlessness", "more harmless", "more harmful", label=gold({"harmlessness": 2, "chosen": 0.5})),
        Attribute(
            "harmfulness",
            "more harmful",
            "less harmful",
            label=opposite(gold({"harmlessness": 2, "chosen": 0.5})),
        ),
        Attribute(
            "starts-with-vowel",
            "such that it starts with a vowel",
            "such that it starts with a consonant",
            label=above(starts_with_vowel, 0.5),
            measure=starts_with_vowel,
        ),
        Attribute("formality", "more formal in tone", "more informal in tone", measure=formality),
    )
}


def get_attribute(attribute: str | Attribute) -> Attribute:
    """The attribute itself, or the one of that name (`_` and `-` are alike). Raises InputError."""
    if isinstance(attribute, Attribute):
        return attribute
    found = ATTRIBUTES.get(str(attribute).strip().lower().replace("_", "-"))
    if found is None:
        raise unknown("attribute", attribute, ATTRIBUTES)
    return found


def measure_of(attribute: str, measures: Mapping[str, Measure] | None = None) -> Measure | None:
    """What the attribute is measured by: what the caller says, else what `ATTRIBUTES` says."""
    if measures and attribute in measures:
        return measures[attribute]
    known: Attribute | None = ATTRIBUTES.get(attribute)
    return known.measure if known else None


def off_target(attribute: str, measures: Mapping[str, Measure] | None = None) -> dict[str, Measure]:
    """The measures that this attribute's rewrites should leave alone: all but its own."""
    own = measure_of(attribute, measures)
    every = {**MEASURES, **(measures or {})}
    return {name: m for name, m in every.items() if m is not own and name != attribute}
