"""Python values and the text of a CSV -> typed Arrow columns; a fault names the place, the column and the row.

What a cell of a CSV holds is told by its column's name and by all of its cells: a list that pandas, numpy or JSON wrote
comes back as that list, "007" stays text, and a number is one only where every cell of the column is.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, shorten, unknown
from ratekit.schema import (
    ATTRIBUTE,
    MEASURE_PREFIX,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWARD_STATUS_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    as_conversation,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

MAX_COLUMNS = 5_000
MAX_DEPTH = 24  # lists and records in one another

TEXT = (PROMPT_ID, RESPONSE, ATTRIBUTE, TREATED)  # never a number, whatever the cells look like
TURNS = (PROMPT, "context", "history", "messages", "chosen", "rejected", "completion")  # text, or a list of turns
LISTS = (REWRITES, REWRITE_STATUS, "completions")
PREFIXES = (REWARD_PREFIX, REWARD_STATUS_PREFIX, MEASURE_PREFIX)


def is_list(name: str) -> bool:
    """Whether a column of that name holds a list in each row."""
    return name in LISTS or name.startswith(PREFIXES)


# --- Python values ---------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]], where: str) -> pa.Table:
    """Rows as an Arrow table; a key that a row lacks is null there. Raises InputError.

    Examples
    --------
    >>> table([{"response": "a"}, {"response": "b", "n": 1}], "here").to_pydict()
    {'response': ['a', 'b'], 'n': [None, 1]}
    """
    import pyarrow as pa

    names: dict[str, None] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"{where}, row {number}: {shorten(row)!r} is not a record with columns")
        names.update(dict.fromkeys(row))
        bounded(len(names), where)
    check_names(names, where)
    return pa.table({name: column(where, name, [row.get(name) for row in rows]) for name in names})


def check_names(names: Iterable[Any], where: str) -> None:
    """Raise InputError for a column's name that no table can have, or that two have.

    Examples
    --------
    >>> check_names(["prompt", 5], "here")
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: here: the column name '5' is no text
    """
    seen: set[str] = set()
    for name in names:
        check_name(name, f"{where}: the column name", " (is the file UTF-8?)")
        if name in seen:
            raise InputError(f"{where}: two columns are called {shorten(name)!r}; rename one")
        seen.add(name)


def check_name(name: Any, whose: str, hint: str = "") -> None:
    """Raise InputError for a name that no table can have.

    Examples
    --------
    >>> check_name("a\\0b", "the reward's name")
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: the reward's name 'a\\x00b' holds a NUL; rename it
    """
    if not isinstance(name, str):
        raise InputError(f"{whose} {shorten(name)!r} is no text")
    if "\0" in name or _SURROGATE.search(name):
        what = "a NUL" if "\0" in name else "half of a surrogate pair"
        raise InputError(f"{whose} {shorten(name)!a} holds {what}; rename it{hint}")


_SURROGATE = re.compile("[\ud800-\udfff]")


def dataset(arrow: pa.Table, info: Any = None, where: str = "the table") -> Dataset:
    """An Arrow table as a Dataset with a fingerprint of its own; `datasets` would hash the whole table for one.

    Raises
    ------
    InputError
        That names a column of a type which a Dataset cannot hold.

    Examples
    --------
    >>> dataset(table([{"response": "a"}], "here")).column_names
    ['response']
    """
    import pyarrow as pa
    from datasets import Dataset, Features

    check_names(arrow.column_names, where)
    plain = without_views(arrow.schema)
    arrow = arrow if plain.equals(arrow.schema) else arrow.cast(plain)
    try:
        return Dataset(arrow, info=info, fingerprint=uuid.uuid4().hex[:16])
    except ValueError:
        for field in arrow.schema:
            try:
                Features.from_arrow_schema(pa.schema([field]))
            except ValueError:
                raise InputError(
                    f"{where}: column {field.name!r} holds {shorten(field.type, 60)}, which a Dataset cannot hold; "
                    "write it as text or leave it out"
                ) from None
        raise


def without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with texts as plain texts: frames of polars have views, of which Arrow cannot compute.

    Examples
    --------
    >>> import pyarrow as pa
    >>> print(without_views(pa.schema({"response": pa.string_view()})))
    response: large_string
    """
    import pyarrow as pa

    def plain(kind: Any) -> Any:
        if pa.types.is_string_view(kind):
            return pa.large_string()
        several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return pa.large_list(pa.large_string()) if several and pa.types.is_string_view(kind.value_type) else kind

    return pa.schema([field.with_type(plain(field.type)) for field in schema], schema.metadata)


def bounded(n_columns: int, where: str) -> None:
    """Raise InputError where there are more columns than any table of responses has."""
    if n_columns > MAX_COLUMNS:
        raise InputError(
            f"{where}: more than {MAX_COLUMNS:,} columns; is it a table of responses? Keep the columns that are needed"
        )


def column(where: str, name: str, values: Sequence[Any]) -> Any:
    """One column as an Arrow array. Raises InputError that names the first row that does not fit."""
    import pyarrow as pa

    plain = set(map(type, values)) <= _PLAIN
    values = list(values) if plain else [without_arrays(v) for v in values]
    if any(isinstance(v, str | bool | list | dict) for v in values):  # NaN is how pandas writes a missing text
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
    for number, value in enumerate(values, 1):
        if isinstance(value, list | tuple | dict) and depth(value) > MAX_DEPTH:
            raise InputError(f"{where}, row {number}: column {name!r} is nested more than {MAX_DEPTH} deep")
        if isinstance(value, set | frozenset):
            raise InputError(f"{where}, row {number}: column {name!r} holds a set, which has no order; give a list")
    if name in TURNS and any(_are_turns(v) for v in values):
        values = conversations(where, name, values)
    try:
        return pa.array(values)
    except OverflowError:
        return _large(where, name, values)
    except (pa.ArrowException, UnicodeEncodeError, TypeError, ValueError) as e:
        if isinstance(e, pa.ArrowException) and _all_integers(values):
            return _large(where, name, values)
        with contextlib.suppress(pa.ArrowException, UnicodeEncodeError, TypeError, ValueError, OverflowError):
            return pa.array([without_arrays(v) for v in values])
        raise _not_one_type(where, name, values, e) from None


_PLAIN = {str, bool, int, float, list, tuple, type(None)}


def without_arrays(value: Any) -> Any:
    """numpy's arrays as lists, at any depth, and what is missing as null: pandas' own, NaN in an array or beside texts.

    Examples
    --------
    >>> import numpy as np
    >>> without_arrays({"a": np.array([1.0, np.nan])}), without_arrays([1.0, math.nan])
    ({'a': [1.0, None]}, [1.0, nan])
    """
    import numpy as np
    from pandas import NA, NaT

    if value is NA or value is NaT:
        return None
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "mM":
        return value  # times, which Arrow reads itself
    if isinstance(value, np.ndarray):
        values = value.tolist()
        if value.dtype.kind == "f" and value.ndim == 1:
            return values if np.isfinite(value).all() else [None if v != v else v for v in values]
        return [None if isinstance(v, float) and v != v else without_arrays(v) for v in values]
    if isinstance(value, dict):
        return {k: without_arrays(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        texts = any(isinstance(v, str) for v in value)
        return [None if texts and isinstance(v, float) and v != v else without_arrays(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def conversations(where: str, name: str, values: Sequence[Any], before: int = 0) -> list[Any]:
    """Turns with nothing but role and content; the row of one that cannot be read is named, `before` rows on."""
    found: list[Any] = []
    for number, value in enumerate(values, 1 + before):
        if isinstance(value, str) and name != PROMPT:
            raise InputError(f"{where}: column {name!r} holds turns in some rows and text in others (row {number})")
        try:
            found.append(None if value is None else as_conversation(value))
        except InputError as e:
            raise InputError(f"{where}, row {number}: column {name!r}: {e}") from None
    return found


def _are_turns(value: Any) -> bool:
    """Whether this is a list of records."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def depth(value: Any) -> int:
    """How deep lists and records stand in one another, counted no further than one beyond `MAX_DEPTH`.

    Examples
    --------
    >>> depth(1), depth([[1], 2]), depth({"a": []})
    (0, 2, 2)
    """
    level, found = [value], 0
    while found <= MAX_DEPTH:
        inner = [v for v in level if isinstance(v, list | tuple | dict)]
        if not inner:
            break
        found += 1
        level = [v for item in inner for v in (item.values() if isinstance(item, dict) else item)]
    return found


def _all_integers(values: Sequence[Any]) -> bool:
    return all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in values)


def _large(where: str, name: str, values: list[Any]) -> Any:
    """Integers beyond 64 bits: without a sign where that is enough, else as the text of their digits."""
    import pyarrow as pa

    if not _all_integers(values):
        raise InputError(f"{where}: column {name!r} holds integers of more than 64 bits; write them as text") from None
    numbers = [v for v in values if v is not None]
    if min(numbers) >= 0 and max(numbers) < 2**64:
        return pa.array(values, pa.uint64())
    return pa.array([None if v is None else str(v) for v in values])


def _not_one_type(where: str, name: str, values: list[Any], fault: Exception) -> InputError:
    """What is wrong with a column that Arrow does not take: half a letter, or rows of several types."""
    import pyarrow as pa

    first: dict[str, int] = {}
    for number, value in enumerate(values, 1):
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as e:
            half = e.object[e.start : e.end].encode("ascii", "backslashreplace").decode()
            return InputError(
                f"{where}, row {number}: column {name!r} holds {half}, half of a surrogate pair, which is no text; "
                "mend that row or leave it out"
            )
        except (ValueError, RecursionError):
            pass
        if value is not None:
            first.setdefault(type(value).__name__, number)
    if len(first) > 1:
        mixed = "; ".join(f"{kind} in row {number}" for kind, number in first.items())
        return InputError(f"{where}: column {name!r} cannot be one type ({mixed})")
    low, high = 0, len(values)  # the shortest beginning that is not one type ends with the row at fault
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pa.array(values[:middle])
            low = middle
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            high = middle
    if high == 1:
        return InputError(
            f"{where}, row 1: column {name!r} holds {shorten(values[0])!r}, which no table can hold "
            f"({shorten(fault, 100)}); write it as text or numbers, or leave the column out"
        )
    return InputError(
        f"{where}, row {high}: column {name!r} cannot be one type: {shorten(values[high - 1])!r} "
        f"is of another kind than what stands before it ({shorten(fault, 100)})"
    )


# --- the text of a CSV -----------------------------------------------------------------------------------

_INTEGER = re.compile(r"-?(?:0|[1-9]\d*)")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][+-]?\d+)?")
_BOOLS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_RECORDS = re.compile(r"\s*\[\s*[\[{\"']")  # a list of records, lists or texts


def from_text(where: str, name: str, cells: Sequence[str | None]) -> Any:
    """One column of a CSV, typed by its name and by all of its cells.

    Examples
    --------
    >>> from_text("here", "n", ["1", None, "20"]).to_pylist(), from_text("here", "id", ["007", "7"]).to_pylist()
    ([1, None, 20], ['007', '7'])
    >>> from_text("here", "rewrites", ["['a.'\\n 'b.']"]).to_pylist()
    [['a.', 'b.']]
    """
    if is_list(name):
        return column(where, name, [lists(where, name, i, cell) for i, cell in enumerate(cells, 1)])
    if name in TURNS:
        return column(where, name, as_turns(name, cells))
    if name in TEXT:
        return column(where, name, cells)
    given = [c for c in cells if c is not None]
    if given and all(c in _BOOLS for c in given):
        return column(where, name, [None if c is None else _BOOLS[c] for c in cells])
    for pattern, kind in ((_INTEGER, int), (_NUMBER, float)):
        if given and all(len(c) < 400 and pattern.fullmatch(c) for c in given):
            return column(where, name, [None if c is None else kind(c) for c in cells])
    return column(where, name, cells)


def as_turns(name: str, cells: Sequence[str | None]) -> list[Any]:
    """Text that is a list of turns (or of texts) in every row, as that list; else the text as it is."""
    found: list[Any] = []
    for cell in cells:
        if cell is None or not _RECORDS.match(cell):
            if cell is not None and name != PROMPT:
                return list(cells)
            found.append(cell)
            continue
        try:
            value = nested(cell)
        except ValueError:
            value = None
        turns = _are_turns(value) and all(isinstance(v, dict) and {"role", "content"} <= set(v) for v in value)
        texts = isinstance(value, list) and all(isinstance(v, str) for v in value) and name in ("chosen", "rejected")
        if not (turns or texts):
            if name != PROMPT:
                return list(cells)
            value = cell  # a prompt may begin with a bracket
        found.append(value)
    return found


def lists(where: str, name: str, row: int, cell: Any) -> Any:
    """The list that the text of a cell stands for. Raises InputError for any other text."""
    if not isinstance(cell, str):
        return cell
    try:
        value = nested(cell)
    except ValueError:
        value = cell
    if value is not None and not isinstance(value, list):
        raise InputError(
            f"{where}, row {row}: column {name!r} holds {shorten(cell)}, which is not a list; write it as JSON, [1, 2]"
        )
    return value


def nested(text: str) -> Any:
    """What JSON, Python or numpy wrote as this text. Raises ValueError where it is none of these.

    numpy parts the entries of an array with white space, which Python would read as one joined text. A NaN is null: an
    array cannot hold it otherwise.

    Examples
    --------
    >>> nested('["a", null]'), nested("['a', None]"), nested("['a' None]"), nested("[1.  nan 0.5]"), nested("[NaN]")
    (['a', None], ['a', None], ['a', None], [1.0, None, 0.5], [None])
    """
    try:
        return json.loads(text, parse_constant=_number)
    except (ValueError, RecursionError):
        pass
    value, end = _entry(text, _skip(text, 0), 0)
    if end != len(text):
        raise ValueError("text after the list")
    return value


_SPACE = re.compile(r"\s*")
_STRING = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*""", re.DOTALL)
_WORD = re.compile(r"([+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[A-Za-z_]+))\s*")
_CALL = re.compile(r"(?:array|np\.\w+)\(\s*")  # numpy's own values within a list or a record
_CALL_END = re.compile(r"(?:,\s*dtype=[\w.']+\s*)?\)\s*")
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_WORDS = {"None": None, "null": None, "nan": None, "NaN": None, "True": True, "true": True, "False": False,
          "false": False}  # fmt: skip


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _entry(text: str, at: int, level: int) -> tuple[Any, int]:
    """The value that begins at a place of the text, and where what follows it begins. Raises ValueError.

    The entries of a list are all parted by commas or all by white space, those of a record by commas.
    """
    if level > MAX_DEPTH:
        raise ValueError("nested too deep")
    if found := _CALL.match(text, at):
        value, at = _entry(text, found.end(), level + 1)
        if not (found := _CALL_END.match(text, at)):
            raise ValueError("an array without its end")
        return value, found.end()
    if found := _STRING.match(text, at):
        try:
            return ast.literal_eval(found[1]), found.end()
        except (SyntaxError, ValueError):
            raise ValueError("not a text") from None
    if found := _WORD.match(text, at):
        return _number(found[1]), found.end()
    if not (close := _CLOSES.get(text[at : at + 1])):
        raise ValueError("no value")
    keys: list[Any] = []
    values: list[Any] = []
    commas: set[bool] = set()
    at = _skip(text, at + 1)
    while text[at : at + 1] != close:
        value, at = _entry(text, at, level + 1)
        if close == "}":
            if not isinstance(value, str) or text[at : at + 1] != ":":
                raise ValueError("not a record")
            keys.append(value)
            value, at = _entry(text, _skip(text, at + 1), level + 1)
        values.append(value)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            commas.add(True)
        elif text[at : at + 1] != close:
            if close == "}" or not text[at - 1].isspace():
                raise ValueError("two entries with nothing between them")
            commas.add(False)
        if len(commas) > 1:
            raise ValueError("entries parted by commas here and by spaces there")
    return dict(zip(keys, values, strict=True)) if close == "}" else values, _skip(text, at + 1)


def _number(word: str) -> Any:
    """A word's own value, or the number that it writes. Raises ValueError for another word."""
    if word in _WORDS:
        return _WORDS[word]
    return int(word) if re.fullmatch(r"[+-]?\d{1,400}", word) else float(word)


def renaming(names: Sequence[str], columns: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """{theirs: ours} for the columns that get another name; what bore our name before is left out.

    Raises
    ------
    InputError
        For one that the table does not have, or that gets two names.

    Examples
    --------
    >>> renaming(["question", "n"], {"prompt": "question"}, "here")
    {'question': 'prompt'}
    """
    for ours, theirs in (columns or {}).items():
        if theirs not in names:
            raise unknown(f"column in {where}", theirs, [shorten(n, 40) for n in names[:20]])
        if twice := next((o for o, t in (columns or {}).items() if t == theirs and o != ours), None):
            raise InputError(f"{where}: the column {theirs!r} cannot be both {ours!r} and {twice!r}; name one of them")
    return {theirs: ours for ours, theirs in (columns or {}).items() if ours != theirs}
