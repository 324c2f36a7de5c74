"""Which rows are treated: by a column of the data, or by an attribute's own label or measure."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import describe, is_known
from ratekit.errors import InputError
from ratekit.files import no_bars
from ratekit.labellers import Attribute, by_column
from ratekit.measures import measured
from ratekit.schema import (
    ATTRIBUTE,
    MEASURE_PREFIX,
    RESPONSE,
    REWARD_STATUS_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    reward_columns,
)

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")


def labelled_rows(ds: Dataset, attribute: Attribute | None, label_column: str | None, positive: Any) -> Dataset:
    """The rows that have a label, with `treated`, and with `attribute` where there is one.

    See `ratekit.label` for the parameters. Without an attribute the labels are those of `label_column`.

    Raises
    ------
    InputError
        No row gets a label, or all get the same one (unless the attribute says ``one_class=True``).

    Examples
    --------
    >>> from datasets import Dataset
    >>> ds = Dataset.from_list([{"response": "a", "kind": "ham"}, {"response": "b", "kind": "spam"}])
    >>> labelled_rows(ds, None, "kind", "spam")["treated"][:]
    [False, True]
    """
    if label_column is None and positive is not None:
        raise InputError("positive= says which values of label_column= (--label-column) are treated; give that as well")
    have = columns_of(ds)
    if label_column is None and TREATED in have and ATTRIBUTE not in have:
        label_column = TREATED
    if attribute is None:
        if ATTRIBUTE in have:
            raise InputError("the rows carry attributes; say with attribute= which of them label_column= labels")
        attribute = Attribute((label_column or TREATED).strip(), "", "")
        names = None
    else:
        names = attribute.name
    if label_column is not None:
        attribute = replace(attribute, label=by_column(label_column, positive))
    labels = attribute.labels(ds)
    kept = [i for i, v in enumerate(labels) if v is not None]
    if not kept:
        raise InputError(f"label: none of the {len(ds)} rows has a label for {attribute.name!r}")
    if len(kept) < len(ds):
        n_dropped = len(ds) - len(kept)
        log.warning("label: %d of %d rows have no %s label and were dropped", n_dropped, len(ds), attribute.name)
    treated = [bool(labels[i]) for i in kept]
    if len(set(treated)) == 1:
        said = f"label: all {len(kept)} rows are {'treated' if treated[0] else 'untreated'} for {attribute.name!r}"
        if not attribute.one_class:
            raise InputError(f"{said}, so there is nothing to compare; label them by another column or function")
        log.warning("%s", said)
    ds = flattened(ds.select(kept) if len(kept) < len(ds) else ds)
    ds = _with_labels(ds, names, treated)
    return ds if names is None else with_description(ds, attribute)


def _with_labels(ds: Dataset, name: str | None, treated: list[bool]) -> Dataset:
    """The columns of the labels put in; what was made for other labels is taken away."""
    have = columns_of(ds)
    names = None if name is None else [name] * len(ds)
    same = TREATED in have and ds[TREATED][:] == treated and (ATTRIBUTE not in have or ds[ATTRIBUTE][:] == names)
    stale = [] if same else [c for c in have if c in (REWRITES, REWRITE_STATUS, *reward_columns(have, how_read=True))]
    if stale:
        log.warning("label: %s came with other labels and were taken away", ", ".join(stale))
    with_them = () if same else (MEASURE_PREFIX, REWARD_STATUS_PREFIX)
    gone = [*stale, *(c for c in have if c in (ATTRIBUTE, TREATED) or (with_them and c.startswith(with_them)))]
    ds = without(ds, gone)
    return (ds if names is None else ds.add_column(ATTRIBUTE, names)).add_column(TREATED, treated)


def flattened(ds: Dataset) -> Dataset:
    """The rows written out where they are a selection; a column that is added would do that under a bar."""
    if ds._indices is None:
        return ds
    with no_bars():
        return ds.flatten_indices()


def with_description(ds: Dataset, attribute: Attribute) -> Dataset:
    """The rows with what is to be known of their attribute: its phrases, and its measure's name, or else its values."""
    if not is_known(attribute.measure) and REWRITES in columns_of(ds):
        assert attribute.measure is not None
        texts = [[response, *(chain or [])] for response, chain in zip(ds[RESPONSE], ds[REWRITES], strict=True)]
        values = measured(attribute.measure, texts, "the attribute's measure")
        column = [
            [None if t is None or np.isnan(v) else float(v) for t, v in zip(chain, row, strict=False)]
            for chain, row in zip(texts, values, strict=True)
        ]
        ds = without(ds, [MEASURE_PREFIX + attribute.name]).add_column(MEASURE_PREFIX + attribute.name, column)
    describe(ds, attribute)
    return ds


def without(ds: Dataset, columns: list[str]) -> Dataset:
    """The table without those of the columns that it has."""
    return ds.remove_columns([c for c in columns if c in ds.column_names])
