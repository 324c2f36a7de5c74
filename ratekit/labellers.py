"""An attribute of a response, and the labels that say who has it: by a measure, or by a column of the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratekit.columns import check_name
from ratekit.errors import InputError, shorten, unknown
from ratekit.measures import BLOCK, Measure, name_of, values_of
from ratekit.schema import NO, RESPONSE, YES, columns_of, listed, truth

log = logging.getLogger("ratekit")

Label = Callable[[Any], Sequence["bool | None"]]


# --- what a label is given ---------------------------------------------------------------------------------


class _Rows:
    """A dataset as a label sees it: ``rows["response"]`` is the list of texts, ``len(rows)`` their number.

    A label that takes its argument for a list of texts is told so, and is not answered with the names of columns.
    """

    def __init__(self, ds: Any) -> None:
        self._ds = ds
        self.column_names = columns_of(ds)

    def __len__(self) -> int:
        return len(self._ds)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.column_names:
                raise unknown("column", key, self.column_names[:20])
            return list(self._ds[key][:])  # a Dataset's column is read row by row otherwise
        rows = list(self)
        return rows[key]

    def __iter__(self) -> Iterator[_Row]:
        columns = {name: self[name] for name in self.column_names}
        for i in range(len(self)):
            yield _Row((name, values[i]) for name, values in columns.items())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._ds, name)


class _Row(dict[str, Any]):
    """One row by column; what is meant for a text is refused."""

    def __len__(self) -> int:
        raise InputError("its rows are records, not texts: the text of one is row['response']")

    def __contains__(self, word: object) -> bool:
        if not super().__contains__(word):
            raise InputError(f"{shorten(word)!r} is no column; the text of a row is row['response']")
        return True


# --- labellers: the whole dataset -> a bool or None per row ----------------------------------------------


def _responses(rows: Any) -> Iterator[str]:
    """The responses, some of them at a time."""
    column = (rows._ds if isinstance(rows, _Rows) else rows)[RESPONSE]
    for start in range(0, len(column), BLOCK):
        yield from column[start : start + BLOCK]


def above_median(measure: Measure) -> Label:
    """Treated where the measure is above the dataset's median, or at it where nothing is above.

    Rows without a measure get None.

    Raises
    ------
    InputError
        Where all rows have one value.
    """

    def label(rows: Any) -> list[bool | None]:
        name = name_of(measure)
        values = values_of(measure, _responses(rows), name)
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return [None] * len(values)
        median = float(np.median(known))
        if known.min() == known.max():
            raise InputError(f"label: all {len(known)} rows have the same {name} ({median:g}), so none is above")
        treated = values > median if (known > median).any() else values >= median
        n = int(treated.sum())
        how = "above" if (known > median).any() else "at or above, since that is the highest value there is,"
        log.info("label: treated is %s the median of %s, %g: %d of %d rows", how, name, median, n, len(known))
        if min(n, len(known) - n) < 0.2 * len(known):
            log.warning("label: many rows lie at the median of %s, %g, so the sides are unequal", name, median)
        return [None if np.isnan(v) else bool(t) for v, t in zip(values, treated, strict=True)]

    return label


def above(measure: Measure, threshold: float) -> Label:
    """Treated where the measure is above `threshold`, untreated below it; None on it or without a measure."""

    def label(rows: Any) -> list[bool | None]:
        name = name_of(measure)
        values = values_of(measure, _responses(rows), name)
        log.info("label: treated is above %g, untreated below, by %s", threshold, name)
        return [None if np.isnan(v) or v == threshold else bool(v > threshold) for v in values]

    return label


def present(measure: Measure, kept: bool = True) -> Label:
    """Treated where the measure is above 0, untreated elsewhere; the treated rows get None unless they are `kept`."""

    def label(rows: Any) -> list[bool | None]:
        values = values_of(measure, _responses(rows), name_of(measure))
        return [None if np.isnan(v) or (v > 0 and not kept) else bool(v > 0) for v in values]

    return label


def gold(columns: dict[str, float], otherwise: Label | None = None) -> Label:
    """Labels from the first of `columns` that the dataset has; else from `otherwise`.

    Parameters
    ----------
    columns : dict of str to float
        A column and the threshold that parts it: above is treated, below untreated, on it None. Its scale runs from 0
        to twice the threshold, so {"helpfulness": 2} parts HelpSteer's 0 to 4 (in other rows a 0 must show where the
        scale begins) and {"chosen": 0.5} bools, 0 and 1, and
        the words for them (positive and negative, yes and no, true and false).
    otherwise : callable, optional
        A label for data without any of these columns.

    Raises
    ------
    InputError
        No such column; a value that is not of the scale, with its row.
    """

    def label(rows: Any) -> Sequence[bool | None]:
        for column, threshold in columns.items():
            if column in columns_of(rows):
                values = _named(rows, column)
                if threshold >= 1 and not set(columns_of(rows)) >= HELPSTEER:
                    _refuse_from_one(values, threshold, column)
                return _parted(values, threshold, column)
        if otherwise is None:
            raise InputError(
                f"no column to label by: this attribute needs one of {', '.join(columns)} in the data "
                f"(it has {listed(columns_of(rows))}); name one with label_column= (--label-column), or give an "
                "Attribute with a label of your own"
            )
        return otherwise(rows)

    return label


def by_column(column: str, positive: Any = None) -> Label:
    """Labels from a column that the user names: `positive` is the value (or values) of the treated rows.

    Without `positive` the column holds true and false, 0 and 1, or the words for them.

    Raises
    ------
    InputError
        For any other, and where no row has the positive value.
    """

    def label(rows: Any) -> Sequence[bool | None]:
        if column not in columns_of(rows):
            raise unknown("label column", column, columns_of(rows)[:20])
        values = [None if v is None or v != v else v for v in _named(rows, column)]
        if positive is None:
            return _parted(values, 0.5, column)
        wanted = {_spelt(v) for v in (positive if isinstance(positive, list | tuple | set) else [positive])}
        found = [None if v is None else _spelt(v) in wanted for v in values]
        held = {_spelt(v) for v in values if v is not None}
        if absent := ", ".join(sorted(wanted - held)) or ("" if wanted else "(nothing)"):
            message = f"label: no row has {absent} in the column {column!r}; it holds {listed(sorted(held), most=10)}"
            if not wanted & held:
                raise InputError(message)
            log.warning("%s", message)
        said = ", ".join(sorted(wanted))
        log.info(
            "label: treated is %s in the column %r: %d of %d rows", said, column, sum(map(bool, found)), len(found)
        )
        return found

    return label


def opposite(label: Label) -> Label:
    """Treated where `label` says untreated, and the other way round."""
    return lambda rows: [None if treated is None else not treated for treated in label(rows)]


def worded(label: Label, column: str, otherwise: Label) -> Label:
    """`label` where the values of `column` are words that say which side they are; else `otherwise`.

    A column that is called label and holds numbers may label anything: it is left alone, and that is said.
    """

    def chosen(rows: Any) -> Sequence[bool | None]:
        if column not in columns_of(rows):
            return otherwise(rows)
        values = [v for v in _named(rows, column) if v is not None]
        if values and all(isinstance(v, str) and v.strip().lower() in YES | NO for v in values):
            return label(rows)
        log.warning(
            "label: the column %r does not say what it labels and is not used; label_column=%r (--label-column %s) "
            "labels by it", column, column, column,
        )  # fmt: skip
        return otherwise(rows)

    return chosen


def _named(rows: Any, column: str) -> list[Any]:
    """A column's values, by their names where the dataset knows names for its numbers."""
    return by_name((getattr(rows, "features", None) or {}).get(column), list(rows[column]))


def by_name(feature: Any, values: list[Any]) -> list[Any]:
    """The values of a column by the names that its feature has for their numbers (`datasets.ClassLabel`).

    Examples
    --------
    >>> from datasets import ClassLabel, Value
    >>> by_name(ClassLabel(names=["treated", "untreated"]), [0, 1, None]), by_name(Value("int64"), [0, 1])
    (['treated', 'untreated', None], [0, 1])
    """
    names = getattr(feature, "names", None)
    return [names[v] if v is not None and 0 <= v < len(names) else v for v in values] if names else values


def _spelt(value: Any) -> str:
    """A value as it is compared: 1, 1.0 and "1" are alike, and so are True and "true"."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip().lower()


def _parted(values: Sequence[Any], threshold: float, column: str) -> list[bool | None]:
    found = [_part(v, threshold, column, i) for i, v in enumerate(values)]
    log.info(
        "label: treated is above %g in the column %r: %d of %d rows",
        threshold, column, sum(v is True for v in found), sum(v is not None for v in found),
    )  # fmt: skip
    return found


HELPSTEER = {"helpfulness", "correctness", "coherence", "complexity", "verbosity"}  # each from 0 to 4


def _refuse_from_one(values: Sequence[Any], threshold: float, column: str) -> None:
    """Raise InputError for numbers without a 0: a scale from 1, whose middle is not the threshold, looks so."""
    try:
        numbers = [float(v) for v in values if v is not None]
    except (TypeError, ValueError):
        return  # what is no number is named with its row
    known = [number for number in numbers if not np.isnan(number)]
    if known and min(known) >= 1 and max(known) <= 2 * threshold:
        raise InputError(
            f"label: column {column!r} holds {min(known):g} to {max(known):g} and no 0: a scale of 0 to "
            f"{2 * threshold:g} is parted at {threshold:g}, one of 1 to {2 * threshold + 1:g} at {threshold + 1:g}; "
            "name the values of the treated rows with label_column= and positive= (--label-column, --positive)"
        )


def _part(value: Any, threshold: float, column: str, row: int) -> bool | None:
    if value is None:
        return None
    if threshold == 0.5 and (side := truth(value)) is not None:
        return side
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"row {row + 1}: column {column!r} holds {shorten(value)!r}; a number was expected, or name the value of "
            "the treated rows with label_column= and positive= (--label-column, --positive)"
        ) from None
    if not (np.isnan(number) or 0 <= number <= 2 * threshold):
        raise InputError(
            f"row {row + 1}: column {column!r} holds {number:g}, which is not of the scale 0 to {2 * threshold:g} that "
            f"is parted at {threshold:g}; name the values of the treated rows with label_column= and positive= "
            "(--label-column, --positive), and leave what is not labelled null"
        )
    return None if np.isnan(number) or number == threshold else number > threshold


# --- the attributes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attribute:
    """What is varied: two phrases, who counts as treated, and a number to see it by.

    Parameters
    ----------
    name : str
        Of the attribute, in tables.
    treated, untreated : str
        Complete "Adjust this response so it's ...".
    label : callable, optional
        The whole dataset -> one bool or None (row dropped) a row; ``rows["response"]`` are the texts. By default above
        the median of `measure`.
    measure : callable, optional
        Texts (n) -> (n,) numbers that grow with the attribute, for compliance and dose.
    template : str, optional
        The rewriting prompt, with {phrase}, {response} and, if wanted, {prompt}; None for ratekit's own.
    needs_prompt : bool
        The attribute means nothing without the prompt, so the rewriter is shown it.
    one_class : bool
        All rows may be on one side; then only the effect on that side exists.

    Examples
    --------
    >>> import ratekit as rk
    >>> rk.Attribute("length", treated="longer", untreated="shorter", measure=rk.measures.words).phrase(True)
    'longer'
    """

    name: str
    treated: str
    untreated: str
    label: Label | None = None
    measure: Measure | None = None
    template: str | None = None
    needs_prompt: bool = False
    one_class: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "the attribute's name")
        if self.name != self.name.strip():
            raise InputError(f"the attribute's name {self.name!r} has spaces around it; write {self.name.strip()!r}")

    def phrase(self, treated: bool) -> str:
        """The phrase that asks for this side."""
        return self.treated if treated else self.untreated

    def labels(self, ds: Any) -> list[bool | None]:
        """Labels of the rows of `ds` by `label`, or by the median of `measure`. Raises InputError."""
        labeller = self.label or (above_median(self.measure) if self.measure else None)
        if labeller is None:
            raise InputError(f"attribute {self.name!r} has neither a label nor a measure to label by")
        whose = f"the label of attribute {self.name!r}"
        takes = "a label takes the whole dataset: its texts are rows['response']"
        try:
            labels = list(labeller(_Rows(ds)))
        except InputError as e:
            raise InputError(f"{whose}: {e}" if "row['response']" in str(e) else str(e)) from None
        except Exception as e:
            raise InputError(f"{whose} failed ({type(e).__name__}: {shorten(e, 100)}); {takes}") from e
        if len(labels) != len(ds):
            raise InputError(f"{whose} gave {len(labels)} values for {len(ds)} rows; {takes}")
        return [_bool(v, i, whose) for i, v in enumerate(labels)]


def _bool(value: Any, row: int, whose: str) -> bool | None:
    from pandas import NA

    if value is None or value is NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1)):
        return bool(value)
    raise InputError(f"{whose} gave {shorten(value)!r} for row {row + 1}; True, False or None was expected")
