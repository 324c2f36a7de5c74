"""Tables as they come, made into prompt_id, prompt and response; a fault names the file and the column."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, unknown
from ratekit.schema import (
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    as_conversation,
)
from ratekit.sources.public import SOURCES, Row, Source, prompt_key

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")


def renamed(table: Dataset, columns: Mapping[str, str] | None, where: str) -> Dataset:
    """The table with the columns {ours: theirs} by our names. Raises InputError for one that it does not have."""
    for ours, theirs in (columns or {}).items():
        if theirs not in table.column_names:
            raise unknown(f"column in {where}", theirs, table.column_names)
        if ours != theirs:
            clash = [ours] if ours in table.column_names else []
            table = table.remove_columns(clash).rename_column(theirs, ours)
    return table


def schema_of(table: Dataset) -> str | None:
    """The source whose schema the columns fit, for a file that is not already in ours."""
    if RESPONSE in table.column_names:
        return None
    for name, source in SOURCES.items():
        if set(source.columns) <= set(table.column_names):
            return name
    return None


def parse(source: Source, table: Dataset, where: str) -> Dataset:
    """The responses that a public source's rows hold. Raises InputError where the schema is another."""
    from datasets import Dataset

    _assert_schema(source, table, where)
    rows: list[Row] = []
    unread = 0
    for index, row in enumerate(table):
        before = len(rows)
        rows.extend(source.rows(row, index))
        unread += len(rows) == before
    if unread:
        log.warning("%s: %d of %d rows hold no response and were dropped", where, unread, len(table))
    if not rows:
        raise InputError(f"{where}: no row holds a response")
    return Dataset.from_list(rows)


def _assert_schema(source: Source, table: Dataset, where: str) -> None:
    """Raise one InputError that names every column of the source that the table lacks, or has with another content."""
    faults, gone = [], []
    for column, kind in source.columns.items():
        if column not in table.column_names:
            near = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.6)
            gone.append(f"{column!r}" + (f" (is it {near[0]!r} now?)" if near else ""))
            continue
        found = kind_of(table.data.schema.field(column).type)
        if found not in (kind, "nothing") and not (kind == "number" and found == "integer"):
            faults.append(f"{column!r} holds {found} where {kind} was expected")
    if gone:
        faults.insert(0, f"no column {', '.join(gone)}")
    if faults:
        remote = where == source.hub_id
        hint = (
            "The dataset on the hub has changed: say which column is which with columns={ours: theirs} (--column), or "
            "give a copy in the old schema with data_files (--data-files)"
            if remote
            else "Say which column is which with columns={ours: theirs} (--column), or mend the file"
        )
        raise InputError(
            f"{where}: {'; '.join(faults)}; this source has {', '.join(source.columns)}, "
            f"the data have {', '.join(table.column_names)}. {hint}"
        )


def kind_of(arrow: Any) -> str:
    """What a column of that Arrow type holds, in the words of `Source.columns`.

    >>> import pyarrow as pa
    >>> kind_of(pa.large_string()), kind_of(pa.int8()), kind_of(pa.list_(pa.string()))
    ('text', 'integer', 'list')
    """
    import pyarrow.types as types

    kinds = {
        "nothing": types.is_null, "text": lambda t: types.is_string(t) or types.is_large_string(t),
        "bool": types.is_boolean, "integer": types.is_integer, "number": types.is_floating, "record": types.is_struct,
        "list": lambda t: types.is_list(t) or types.is_large_list(t) or types.is_fixed_size_list(t),
    }  # fmt: skip
    return next((kind for kind, holds in kinds.items() if holds(arrow)), str(arrow))


def plain(table: Dataset, where: str) -> Dataset:
    """A table with our own columns; prompt_id and prompt are made where they are missing."""
    from datasets import Dataset

    if RESPONSE not in table.column_names:
        raise InputError(
            f"{where}: no column 'response' (columns: {', '.join(table.column_names)}); "
            "say which one it is with columns={'response': '...'} (--column response=...)"
        )
    prompts = [as_conversation(p) for p in table[PROMPT]] if PROMPT in table.column_names else None
    if prompts is None:
        log.warning("%s: no prompt column, so every prompt is empty and every row its own cluster", where)
    if PROMPT_ID in table.column_names:
        ids = [None if v is None else str(v) for v in table[PROMPT_ID]]
        if None in ids:
            raise InputError(f"{where}, row {ids.index(None) + 1}: prompt_id is null")
    elif prompts is not None:
        ids = [prompt_key(p) for p in prompts]
    else:
        ids = [f"row-{i:06d}" for i in range(len(table))]
    own = {PROMPT_ID: ids, PROMPT: prompts or [as_conversation("")] * len(table)}
    rest = [c for c in table.column_names if c not in own]
    made = Dataset.from_dict(own)
    for column in rest:
        made = made.add_column(column, table.with_format("arrow")[column])
    return made
