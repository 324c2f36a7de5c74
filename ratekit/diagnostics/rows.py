"""What every diagnostic reads of a dataset: its groups, classes, clusters and chains of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratekit.attributes import ATTRIBUTES, Attribute, readability, vader, words
from ratekit.columns import plain_columns, refuse_null, treated_bools
from ratekit.errors import InputError, unknown
from ratekit.estimators import Bools, Floats, Ints
from ratekit.rewriting.rules import FAULT
from ratekit.schema import ATTRIBUTE, PROMPT_ID, RESPONSE, REWRITES, TREATED, columns_of

Measure = Callable[[Sequence[str]], ArrayLike]
SIDE = {True: "treated", False: "untreated"}


def faults(texts: Sequence[str]) -> Floats:
    """Typos, HTML, doubled marks and spaces, and sentences that start small, per 100 words.

    >>> faults(["Teh plot is thin!!! avoid it.", "The plot is thin. Avoid it."])
    array([50.,  0.])
    """
    import re

    small = re.compile(r"(?:^|[.!?]\s+)[a-z]")
    found = [len(FAULT.findall(t)) + len(small.findall(t)) for t in texts]
    return 100.0 * np.array(found, float) / np.maximum(words(texts), 1.0)


MEASURES: dict[str, Measure] = {"words": words, "sentiment": vader, "readability": readability, "faults": faults}


class Group(NamedTuple):
    """The rows of one attribute (and of one value of each `by` column): their place, class and cluster."""

    labels: dict[str, Any]
    rows: Ints
    treated: Bools
    clusters: Ints


def groups(ds: Any, by: str | Sequence[str] | None = None) -> Iterator[Group]:
    """The groups of a dataset in order of appearance; attributes are never pooled. Raises InputError."""
    import pandas as pd

    columns = [by] if isinstance(by, str) else list(by or [])
    for column in columns:
        if column not in columns_of(ds):
            raise unknown("column to group by", column, columns_of(ds))
    frame = plain_columns(ds, list(dict.fromkeys([PROMPT_ID, ATTRIBUTE, TREATED, *columns])))
    if len(frame) == 0:
        raise InputError("the dataset has no rows")
    refuse_null(frame[PROMPT_ID], PROMPT_ID)
    treated = treated_bools(frame[TREATED])
    clusters = pd.factorize(frame[PROMPT_ID].astype(str))[0].astype(np.int64)
    for key, index in frame.groupby([*columns, ATTRIBUTE], sort=False, dropna=False).indices.items():
        key = key if isinstance(key, tuple) else (key,)
        yield Group(dict(zip([*columns, ATTRIBUTE], key, strict=True)), index, treated[index], clusters[index])


def chains(ds: Any) -> list[list[str | None]]:
    """The texts of each row: the response and its rewrites; chains may differ in length."""
    frame = plain_columns(ds, [RESPONSE, REWRITES])
    texts: list[list[str | None]] = []
    for response, rewrites in zip(frame[RESPONSE], frame[REWRITES], strict=True):
        texts.append([response, *([] if rewrites is None else rewrites)])
    return texts


def measured(measure: Measure, texts: Sequence[Sequence[str | None]], name: str = "measure") -> Floats:
    """The measure of every text of every chain, (n, longest); NaN where there is none. Each text is measured once."""
    distinct = list(dict.fromkeys(t for chain in texts for t in chain if t is not None))
    values = np.asarray(measure(distinct), float) if distinct else np.empty(0)
    if values.shape != (len(distinct),):
        raise InputError(f"{name} gave an array of shape {values.shape} for {len(distinct)} texts; (n,) was expected")
    of = dict(zip(distinct, values, strict=True))
    out = np.full((len(texts), max(map(len, texts), default=0)), np.nan)
    for i, chain in enumerate(texts):
        for k, text in enumerate(chain):
            if text is not None:
                out[i, k] = of[text]
    return out


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
