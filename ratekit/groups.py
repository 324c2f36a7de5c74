"""A dataset as arrays: groups of rows, classes, clusters, rewards, texts; a fault names its row and column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratekit.columns import column as as_column
from ratekit.errors import InputError, require_known, shorten
from ratekit.estimators import Bools, Floats, Ints
from ratekit.measures import BLOCK, MEASURES, measured
from ratekit.schema import (
    ATTRIBUTE,
    LARGEST,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWRITES,
    TREATED,
    columns_of,
    find_reward,
    prompt_text,
    reward_columns,
    reward_name,
    truth,
)

SIDE = {True: "treated", False: "untreated"}


def reward_matrix(ds: Any, column: str) -> NDArray[np.float64]:
    """The column `reward/<name>` as (n, depth+1) float64; null entries and missing passes are NaN.

    A null means "not scored", and so does a NaN in an array of numpy; elsewhere a NaN, an infinite value, or one of
    1e100 or more, is a fault and raises InputError with its row.

    Examples
    --------
    >>> import pandas as pd
    >>> reward_matrix(pd.DataFrame({"reward/a": [[1.0, None, 3.0], [4.0]]}), "reward/a")
    array([[ 1., nan,  3.],
           [ 4., nan, nan]])
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(ds, pd.DataFrame):
        cells = ds[column].tolist()
        arrays = np.ndarray in set(map(type, cells))  # of to_pandas: their NaN is a null
        try:
            array = pa.array(cells, from_pandas=arrays)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            array = as_column("the rewards", column, cells)  # says which row is none
    else:
        array = ds.with_format("arrow")[column]
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.list_(pa.float64()))
    kind = array.type
    if pa.types.is_null(kind):
        return np.full((len(array), 0), np.nan)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise InputError(f"column {column!r} holds {kind}; a list of rewards per row was expected")
    if pa.types.is_fixed_size_list(kind):
        array = array.cast(pa.list_(kind.value_type))
    if not (_is_number(array.type.value_type)):
        raise InputError(f"column {column!r} holds lists of {array.type.value_type}, not of numbers")
    lengths = np.asarray(array.value_lengths().fill_null(0))
    flat = array.flatten()
    null = np.asarray(flat.is_null())
    values = np.asarray(flat.cast(pa.float64()).fill_null(np.nan), dtype=float)
    row = np.repeat(np.arange(len(array)), lengths)
    bad = np.flatnonzero(~(np.abs(values) < LARGEST) & ~null)
    if len(bad):
        i, value = row[bad[0]], values[bad[0]]
        entry = bad[0] - lengths[:i].sum()
        why = "numbers below 1e100 were expected" if np.isfinite(value) else "a reward that could not be had is null"
        raise InputError(f"row {i + 1}: {column}[{entry}] is {value:g}; {why}")
    matrix = np.full((len(array), int(lengths.max(initial=0))), np.nan)
    starts = np.cumsum(lengths) - lengths
    matrix[row, np.arange(len(values)) - np.repeat(starts, lengths)] = values
    return matrix


def rewards_of(ds: Any, names: Sequence[str] | None = None) -> Iterator[tuple[str, Floats]]:
    """Each of these reward models, by default all of the data, with its `reward_matrix`. Raises InputError."""
    columns = [find_reward(ds, name) for name in names] if names else reward_columns(columns_of(ds))
    return ((reward_name(c), reward_matrix(ds, c)) for c in columns)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)


def plain_columns(ds: Any, columns: list[str]) -> Any:
    """Those columns of a Dataset or DataFrame as a DataFrame with a fresh index."""
    import pandas as pd

    if isinstance(ds, pd.DataFrame):
        return ds[columns].reset_index(drop=True)
    return pd.DataFrame({c: ds.with_format("arrow")[c].to_pandas() for c in columns})


def refuse_null(values: Any, column: str) -> None:
    """Raise InputError naming the first row where a pandas Series is null."""
    null = np.flatnonzero(values.isna())
    if len(null):
        raise InputError(f"row {null[0] + 1}: {column!r} is null; remove the row or fill it in")


def _refuse_odd(values: Any, column: str) -> None:
    """Raise InputError naming the first row that holds a list, a record or half a letter where one value is meant."""
    if values.dtype == object:
        for row, value in enumerate(values, 1):
            if isinstance(value, list | dict | set | tuple | np.ndarray):
                raise InputError(f"row {row}: {column!r} holds {shorten(value)!r}; one value was expected, not several")
            if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
                raise InputError(f"row {row}: {column!r} holds half of a surrogate pair ({shorten(value)!a})")


_SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse_mixed(ids: Any) -> None:
    """Raise InputError where numbers and texts are mixed, of which 7 and "7" may be meant to be one."""
    if ids.dtype == object:
        kinds = list(map(type, ids))
        other = next((row for row, kind in enumerate(kinds, 1) if kind is not kinds[0]), None)
        if other is not None:
            raise InputError(
                f"row {other}: {ids.name!r} holds {shorten(ids.iloc[other - 1])!r}, a {kinds[other - 1].__name__}, and "
                f"row 1 a {kinds[0].__name__}; write them all as text"
            )


def treated_bools(values: Any) -> NDArray[np.bool_]:
    """`treated` as bools, by `ratekit.schema.truth`. Raises InputError with the row."""
    refuse_null(values, TREATED)
    if values.dtype == bool:  # nothing to spell out, and a million rows to save half a second on
        return values.to_numpy(dtype=bool)
    bools = values.map(truth)
    wrong = np.flatnonzero(bools.isna())
    if len(wrong):
        raise InputError(
            f"row {wrong[0] + 1}: 'treated' holds {shorten(values.iloc[wrong[0]])!r}; true or false was expected"
        )
    return bools.to_numpy(dtype=bool)


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
        require_known("column to group by", column, columns_of(ds))
    frame = plain_columns(ds, list(dict.fromkeys([PROMPT_ID, ATTRIBUTE, TREATED, *columns])))
    if len(frame) == 0:
        raise InputError("the dataset has no rows")
    for column in dict.fromkeys([PROMPT_ID, ATTRIBUTE, *columns]):
        _refuse_odd(frame[column], column)
    refuse_null(frame[PROMPT_ID], PROMPT_ID)
    refuse_null(frame[ATTRIBUTE], ATTRIBUTE)
    spaced = {a: a.strip() for a in frame[ATTRIBUTE].unique() if isinstance(a, str) and a != a.strip()}
    if spaced:
        frame = frame.assign(**{ATTRIBUTE: frame[ATTRIBUTE].replace(spaced)})
    treated = treated_bools(frame[TREATED])
    _refuse_mixed(frame[PROMPT_ID])
    clusters = pd.factorize(frame[PROMPT_ID])[0].astype(np.int64)
    for key, index in frame.groupby([*columns, ATTRIBUTE], sort=False, dropna=False).indices.items():
        key = key if isinstance(key, tuple) else (key,)
        yield Group(dict(zip([*columns, ATTRIBUTE], key, strict=True)), index, treated[index], clusters[index])


def by_attribute(ds: Any, by: str | Sequence[str] | None = None) -> dict[str, list[Group]]:
    """The `groups` of each attribute."""
    found: dict[str, list[Group]] = {}
    for group in groups(ds, by):
        found.setdefault(str(group.labels[ATTRIBUTE]), []).append(group)
    return found


def original_features(ds: Any) -> Floats:
    """What is known of every original, (n, p): measures of the response, words of the prompt.

    A measure that says nothing of a text (of another language than its own) counts as its mean.
    """
    frame = plain_columns(ds, [PROMPT, RESPONSE])
    responses = [[text] for text in frame[RESPONSE]]
    prompts = [[prompt_text(p)] for p in frame[PROMPT]]
    columns = [measured(measure, responses, name)[:, 0] for name, measure in MEASURES.items()]
    columns = [np.where(np.isnan(c), np.nanmean(c) if np.isfinite(c).any() else 0.0, c) for c in columns]
    return np.stack([*columns, measured(MEASURES["words"], prompts, "words")[:, 0]], axis=1)


def chains(ds: Any) -> list[list[str | None]]:
    """The texts of each row: the response and its rewrites; chains may differ in length."""
    return list(chains_of(ds))


def chains_of(ds: Any, rows: Ints | None = None) -> Iterator[list[str | None]]:
    """The texts of each row, or of these rows, one after the other: some hundred rows are held at once."""
    import pandas as pd

    framed = isinstance(ds, pd.DataFrame)
    columns = ds[[RESPONSE, REWRITES]] if framed else ds.select_columns([RESPONSE, REWRITES]).with_format(None)
    for start in range(0, len(ds) if rows is None else len(rows), BLOCK):
        part = range(start, min(start + BLOCK, len(ds))) if rows is None else rows[start : start + BLOCK].tolist()
        if part[-1] - part[0] == len(part) - 1:
            part = range(part[0], part[-1] + 1)  # a slice is read faster than rows by their numbers
        where = slice(part.start, part.stop) if isinstance(part, range) else part
        block = columns.iloc[where] if framed else columns[where]
        for row, response, rewrites in zip(part, block[RESPONSE], block[REWRITES], strict=True):
            chain = [response, *_sequence(rewrites, row + 1)]
            if not all(text is None or isinstance(text, str) for text in chain) or response is None:
                raise InputError(f"row {row + 1}: the response and its rewrites are texts; got {shorten(chain)!r}")
            yield chain


def _sequence(value: Any, row: int) -> list[Any]:
    """The rewrites of a row; a missing list is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return []
    if isinstance(value, str | dict) or not hasattr(value, "__iter__"):
        raise InputError(f"row {row}: {REWRITES!r} holds {shorten(value)!r}; a list of texts was expected")
    from pandas import NA

    return [None if v is NA or (isinstance(v, float) and np.isnan(v)) else v for v in value]
