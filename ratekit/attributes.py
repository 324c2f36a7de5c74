"""The attributes by name: what a rewriter is asked for, who has it, and how it is measured.

Adding one is one literal, in `ATTRIBUTES`, or in `ruled.RULED` where rules can rewrite it; or an `Attribute` of your
own passed where a name is::

    def thanks(texts): return [t.lower().count("thank") for t in texts]
    polite = Attribute("politeness", "more polite", "less polite", measure=thanks)
    ds = rk.label(ds, polite)

The two phrases complete "Adjust this response so it's ...".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ratekit.errors import InputError, unknown
from ratekit.labellers import Attribute, above, above_median, gold, opposite, worded
from ratekit.measures import MEASURES, Measure, name_of, readability, starts_with_vowel, vader, words
from ratekit.ruled import FEATURES, RULED
from ratekit.schema import MEASURE_PREFIX, RESPONSE, REWRITES, columns_of
from ratekit.userfiles import is_object_spec, load_object

ATTRIBUTES: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute("length", "longer", "shorter", measure=words),
        Attribute(
            "sentiment",
            "more positive in sentiment",
            "more negative in sentiment",
            label=gold({"sentiment": 0.5}, worded(gold({"label": 0.5}), "label", otherwise=above(vader, 0.0))),
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
        *(ruled.attribute for ruled in (*RULED.values(), *FEATURES.values())),
    )
}


def find_attribute(attribute: str | Attribute, ds: Any = None) -> Attribute:
    """The attribute itself, or the one of that name.

    Parameters
    ----------
    attribute : str or Attribute
        A name in `ATTRIBUTES` (`_` and `-` are alike), "FILE.py:NAME" for one of the user's own, or the name of one
        that `ds` was labelled with.
    ds : Dataset, optional
        Labelled rows.

    Raises
    ------
    InputError
        An unknown name; a file that does not run, or that holds no such attribute.

    Examples
    --------
    >>> find_attribute("starts_with_vowel").treated
    'such that it starts with a vowel'
    """
    if isinstance(attribute, Attribute):
        return attribute
    attribute = str(attribute).strip()
    if is_object_spec(attribute):
        found = load_object(attribute)
        if not isinstance(found, Attribute):
            raise InputError(f"{attribute} is of type {type(found).__name__}; an Attribute was expected")
        return found
    known = ATTRIBUTES.get(str(attribute).strip().lower().replace("_", "-"))
    carried = _described(ds).get(str(attribute)) if ds is not None else None
    if carried is not None and (known is None or (known.treated, known.untreated) != carried[:2]):
        return Attribute(str(attribute), *carried[:2], measure=measure_of(str(attribute), ds=ds))
    if known is None:
        hint = "One of your own is named as FILE.py:NAME" if ":" not in str(attribute) else ""
        raise unknown("attribute", attribute, ATTRIBUTES, hint)
    return known


# --- what the data say of their attributes -----------------------------------------------------------------

_DESCRIBED = "ratekit attribute "


def describe(ds: Any, attribute: Attribute) -> None:
    """Write the attribute's phrases and the name of its measure into the dataset's description."""
    said = [attribute.name, attribute.treated, attribute.untreated, name_of(attribute.measure)]
    line = _DESCRIBED + json.dumps(said)
    lines = [x for x in (ds.info.description or "").split("\n") if not _describes(x, attribute.name) and x]
    ds.info.description = "\n".join([*lines, line])


def _described(ds: Any) -> dict[str, tuple[str, str, str | None]]:
    """What a dataset says of the attributes of its rows: name -> treated phrase, untreated phrase, measure's name."""
    text = getattr(getattr(ds, "info", None), "description", None) or ""
    found: dict[str, tuple[str, str, str | None]] = {}
    for line in text.split("\n"):
        if line.startswith(_DESCRIBED):
            try:
                name, treated, untreated, measure = json.loads(line.removeprefix(_DESCRIBED))
                found[str(name)] = (str(treated), str(untreated), None if measure is None else str(measure))
            except (ValueError, TypeError):
                continue
    return found


def _describes(line: str, name: str) -> bool:
    return line.startswith(f"{_DESCRIBED}[{json.dumps(name)}, ")


def measure_of(attribute: str, measures: Mapping[str, Measure] | None = None, ds: Any = None) -> Measure | None:
    """What the attribute is measured by.

    Parameters
    ----------
    attribute : str
        Its name.
    measures : mapping, optional
        What the caller says, first of all.
    ds : Dataset or DataFrame, optional
        The rows: the values that they carry (the column ``measure/NAME``), or the measure that their description names.

    Returns
    -------
    callable or None
        From texts (n) to (n,) numbers. One that reads carried values knows the texts of `ds` alone.
    """
    if measures and attribute in measures:
        return measures[attribute]
    if ds is not None and MEASURE_PREFIX + attribute in columns_of(ds):
        return _carried(ds, attribute)
    known = ATTRIBUTES.get(attribute)
    said = _described(ds).get(attribute)
    if said is not None:
        return _MEASURE_BY_NAME.get(said[2] or "")
    return known.measure if known else None


def _carried(ds: Any, attribute: str) -> Measure:
    """A measure that looks up what was measured when the rows were made."""
    known: dict[str, float] = {}
    values = ds[MEASURE_PREFIX + attribute]
    rewrites = ds[REWRITES] if REWRITES in columns_of(ds) else [None] * len(ds)
    for response, chain, row in zip(ds[RESPONSE], rewrites, values, strict=True):
        texts = [response, *(chain if chain is not None else [])]
        for text, value in zip(texts, row if row is not None else [], strict=False):
            if text is not None:
                known[text] = np.nan if value is None else float(value)

    def carried(texts: Sequence[str]) -> list[float]:
        return [known.get(text, np.nan) for text in texts]

    carried.__name__ = attribute
    return carried


def off_target(
    attribute: str, measures: Mapping[str, Measure] | None = None, ds: Any = None
) -> dict[str, Measure]:  # fmt: skip
    """The measures that this attribute's rewrites should leave alone: all but its own."""
    own = measure_of(attribute, measures, ds)
    every = {**MEASURES, **(measures or {})}
    return {name: m for name, m in every.items() if m is not own and name != attribute}


_MEASURE_BY_NAME = {name_of(m): m for m in [*MEASURES.values(), *(a.measure for a in ATTRIBUTES.values())] if m}


def is_known(measure: Measure | None) -> bool:
    """Whether the measure is one of ratekit's own, which its name is enough to find again."""
    return measure is None or _MEASURE_BY_NAME.get(name_of(measure)) is measure
