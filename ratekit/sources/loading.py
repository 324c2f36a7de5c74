"""One door in: whatever a user holds -> rows of prompt_id, prompt and response, each column read once.

as_dataset(x)   a Dataset, DatasetDict, DataFrame, list of records, record of lists, path or hub id
load(x)         the same, then one attribute's rows, no repeats, a sample
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit import columns as arrow_columns
from ratekit import files
from ratekit.attributes import ATTRIBUTES, find_attribute
from ratekit.errors import InputError, WorkError, require_known, require_whole, shorten, unknown
from ratekit.groups import treated_bools
from ratekit.labellers import Attribute, by_name
from ratekit.measures import BLOCK
from ratekit.schema import (
    ATTRIBUTE,
    MEASURE_PREFIX,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    as_conversation,
    columns_of,
    require,
    reward_columns,
)
from ratekit.sources.labels import labelled_rows
from ratekit.sources.public import SOURCES, prompt_key
from ratekit.sources.shapes import (
    OTHER_NAMES,
    SHAPES,
    holds,
    kind_of,
    parse,
    recognised,
    require_schema,
    turns_until,
    with_system,
)

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")

MAX_CHARACTERS = 300_000  # some 75,000 tokens, more than any reward model reads; VADER needs 30 s for it

REVIEWS = "reviews"  # bundled with the package; its rows carry their rewrites

_DataFiles = str | Path | Sequence[str | Path]


def as_dataset(
    x: Any,
    *,
    columns: Mapping[str, str] | None = None,
    data_files: _DataFiles | None = None,
    split: str | None = None,
    turn: int | None = None,
    where: str | None = None,
) -> Dataset:
    """Whatever holds responses, as a Dataset in ratekit's own columns; every stage begins with it.

    Parameters
    ----------
    x : Dataset, DatasetDict, DataFrame, Arrow table, list of dict, dict of list, Audit, str or Path
        The rows, or "reviews" (bundled), a name in `SOURCES`, a file, a saved dataset, a folder of Parquet shards, or a
        hub id. A Dataset in these columns already is given back as it is; of a frame's index the levels that have a
        name are columns.
    columns : mapping of str to str, optional
        ``{ours: theirs}`` for columns that are named otherwise.
    data_files : str, Path or list of them, optional
        Local files in the source's own schema, instead of the hub.
    split : str, optional
        Of a DatasetDict, a hub dataset (default "train"), or a folder that holds several.
    turn : int, optional
        Of conversations in a column `messages`: which of the assistant's turns is the response, 0 the first and -1 the
        last; what comes before it, a system prompt too, is its prompt, and what follows is left out. By default a
        conversation's last turn, which must be the assistant's.
    where : str, optional
        What messages call the data; by default the path, or the type of what was given.

    Returns
    -------
    Dataset
        ``prompt_id`` (text), ``prompt`` (turns of role and content), ``response`` (text); ``treated`` as bool,
        ``rewrites`` and ``rewrite_status`` as lists of text and ``reward/NAME`` as lists of numbers where they are
        there; and the data's other columns.

    Raises
    ------
    InputError
        Columns that are none of the known forms, or two of them at once; a cell that is not what its column holds, with
        its row.
    WorkError
        The hub cannot be reached.

    Notes
    -----
    The rows may be prompt and response, `messages`, `chosen` and `rejected` (as texts, transcripts, lists of texts or
    turns, with a prompt of their own or with one that both begin with), prompt and completion, or in the schema of
    UltraFeedback, HelpSteer3, SHP or one of `SOURCES`. A form is recognised by all its columns, what they hold and
    their content, and said in one line. ``prompt_id`` is made from the whole conversation where there is none.
    ``treated`` is read here and nowhere else: true and false, 0 and 1, yes and no, in any case.
    NaN is null in an array of numpy and in the text of a cell, which cannot hold a null otherwise; in a list of rewards
    it is a fault that the stages name.

    Examples
    --------
    >>> ds = as_dataset([{"prompt": "Why?", "chosen": "Because it is so.", "rejected": "No."}])
    >>> ds["response"][:], ds["chosen"][:], len(set(ds["prompt_id"]))
    (['Because it is so.', 'No.'], [True, False], 1)
    """
    return _read(x, columns, data_files, split, where, turn)[0]


def rows_for(stage: str, x: Any, columns: Sequence[str] | None = None) -> Dataset:
    """The rows of whatever `as_dataset` takes, with the columns that `stage` reads, or an error that names one.

    Examples
    --------
    >>> rows_for("label", [{"prompt": "Why?", "response": "So."}])["response"][:]
    ['So.']
    """
    ds = as_dataset(x)
    require(ds, stage, columns)
    return ds


def _read(
    x: Any, columns: Mapping[str, str] | None, data_files: _DataFiles | None, split: str | None, where: str | None,
    turn: int | None = None,
) -> tuple[Dataset, str, bool]:  # fmt: skip
    """The rows, what to call them, and whether each of them was a row of ours already."""

    source = None
    if isinstance(x, str | Path):
        source = SOURCES.get(str(x).lower())
        table, found = _opened(x, columns, data_files, split)
    else:
        if data_files is not None:
            raise InputError("data_files goes with the name of a source; here the rows themselves were given")
        table, found = in_memory(x, split, where)
        table = files.renamed(table, columns, found)
    where = where or found
    if len(table) == 0:
        raise InputError(f"{where}: no rows")
    refused = f"{where}: turn={turn} is for conversations in a column 'messages'; give no turn for these rows"
    if source is not None:
        if turn is not None:
            raise InputError(refused)
        require_schema(source, table, where)
        return typed(parse(source, table, where), where), where, False
    table = with_system(_with_turns(table, where), where)
    name, shape = recognised(table, where)
    if turn is not None:
        if name != "messages":
            raise InputError(refused)
        ends = [turns_until(turns, turn) for turns in table["messages"]]
        table = _with_column(table, "messages", ends, where)
    _refuse_misnamed(table.column_names, where)
    own = name in ("responses", "scored rows")
    ds = table
    if not own:
        log.info("%s is read as %s: %s", where, name, shape.about if name in SHAPES else ", ".join(shape.columns))
        ds = parse(shape, table, where)
    ds = typed(ds, where)
    asked = [c for c in ds.column_names if c.strip().lower() in OTHER_NAMES[PROMPT] and holds(ds, c, "text")]
    if asked and PROMPT in ds.column_names and not any(turn["content"] for turn in ds[0][PROMPT]):
        log.warning(
            "%s: if the column %r holds the prompts, which are empty now, say columns={'prompt': %r} "
            "(--column prompt=%s)", where, asked[0], asked[0], asked[0],
        )  # fmt: skip
    return ds, where, own


def _with_turns(table: Dataset, where: str) -> Dataset:
    """The table with turns where a column holds their text, as a frame does that was read from a CSV.

    >>> text = "[{'role': 'user', 'content': 'Why?'}]"
    >>> _with_turns(arrow_columns.dataset(arrow_columns.table([{"prompt": text}], "here")), "here")["prompt"][0]
    [{'role': 'user', 'content': 'Why?'}]
    """
    import pyarrow.compute as pc

    for name in (c for c in arrow_columns.TURNS if c in table.column_names and holds(table, c, "text")):
        if pc.any(pc.match_substring_regex(table.data.column(name), r"^\s*\[\s*\{\s*[\"']")).as_py():
            turns = arrow_columns.as_turns(name, table[name][:])
            if any(isinstance(v, list) for v in turns):
                table = _with_column(table, name, turns, where)
    return table


def _with_column(table: Dataset, name: str, values: Sequence[Any], where: str) -> Dataset:
    """The table with other values in one of its columns."""
    import pyarrow as pa

    arrow, column = table.with_format("arrow")[:], arrow_columns.column(where, name, values)
    new = pa.table({c: column if c == name else arrow[c] for c in table.column_names})
    return _featured(new, table, [name], where)


def _refuse_misnamed(have: Sequence[str], where: str) -> None:
    """Raise InputError for a column of ours under a name that only looks like it; its values would be made up."""
    for ours in (PROMPT, PROMPT_ID, ATTRIBUTE, TREATED, REWRITES):
        like = [
            c for c in have
            if c.strip("\ufeff \t") == ours or (ours in (PROMPT, PROMPT_ID) and _letters(c) == ours)
        ]  # fmt: skip
        if like and ours not in have:
            raise InputError(
                f"{where}: the column {like[0]!a} is not called {ours!r}; rename it, or say "
                f"columns={{{ours!r}: ...}} (--column {ours}=...)"
            )


def _letters(name: str) -> str:
    return "".join(x for x in name.casefold() if x.isalnum() or x == "_")


# --- getting hold of the rows -----------------------------------------------------------------------------


def in_memory(x: Any, split: str | None = None, where: str | None = None) -> tuple[Dataset, str]:
    """Rows in memory as a Dataset, and what to call them."""
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

    name = where or f"the {type(x).__name__}"
    x = getattr(x, "dataset", x) if not hasattr(x, "columns") else x  # an `Audit` is its rows
    if isinstance(x, Dataset | DatasetDict):
        return _unformatted(files.of_split(x, split, name), name), name
    if isinstance(x, pd.DataFrame):
        return _of_frame(x, name), name
    if hasattr(x, "__arrow_c_stream__") and hasattr(x, "columns"):  # an Arrow table, or a frame of polars
        return arrow_columns.dataset(pa.table(x), where=name), name
    if isinstance(x, Mapping):
        return _of_lists(x, name), name
    if isinstance(x, Iterable) and hasattr(x, "__len__"):
        return arrow_columns.dataset(arrow_columns.table(list(x), name), where=name), name
    raise InputError(
        f"rows were expected (a Dataset, DataFrame, Arrow table, list of records, record of lists, path or hub id), "
        f"got {name}"
        + (f" {shorten(x, 80)!r}" if not hasattr(x, "features") else "; take its rows into a Dataset first")
    )


def _unformatted(ds: Dataset, where: str) -> Dataset:
    """The Dataset with all its columns as Python's values, whatever form it gives them in; else as it is."""
    form = ds.format
    if form["type"] == "custom":
        raise InputError(f"{where} has a transform (set_transform), which is not stored; write it out with map() first")
    ds = ds if form["type"] is None and form["columns"] == ds.column_names else ds.with_format(None)
    plain = arrow_columns.without_views(ds.data.schema)
    return ds if plain.equals(ds.data.schema) else arrow_columns.dataset(ds.with_format("arrow")[:], where=where)


def _of_lists(x: Mapping[str, Any], where: str) -> Dataset:
    import pyarrow as pa

    values: dict[str, list[Any]] = {}
    arrow_columns.bounded(len(x), where)
    for name, column in x.items():
        if isinstance(column, str | Mapping) or not isinstance(column, Iterable):
            raise InputError(
                f"{where}: column {name!r} is {shorten(column)!r}; a list with one value a row was expected"
            )
        values[str(name)] = list(column)
    lengths = {name: len(v) for name, v in values.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{where}: columns of different lengths ({shorten(lengths, 200)})")
    table = pa.table({name: arrow_columns.column(where, name, v) for name, v in values.items()})
    return arrow_columns.dataset(table, where=where)


def _of_frame(frame: Any, where: str) -> Dataset:
    """A DataFrame; NaN is null, also in the arrays that `Dataset.to_pandas` makes of lists.

    Of its index the levels that have a name are columns, as they are in a file that pandas writes.
    """
    import pyarrow as pa

    index = [name for name in frame.index.names if name is not None and name not in frame.columns]
    frame = frame.reset_index(index) if index else frame
    names = [str(c) for c in frame.columns]
    arrow_columns.bounded(len(names), where)
    arrow_columns.check_names(names, where)
    made: dict[str, Any] = {}
    for place, name in enumerate(names):
        series = frame.iloc[:, place]
        if series.dtype == object or str(series.dtype) in ("str", "string"):
            missing = series.isna().to_numpy(dtype=bool)
            values = [None if gone else v for v, gone in zip(series.tolist(), missing, strict=True)]
            made[name] = arrow_columns.column(where, name, values)
            continue
        try:
            array = pa.array(series, from_pandas=True)
            made[name] = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # a sparse column, complex numbers
            made[name] = arrow_columns.column(where, name, series.tolist())
    return arrow_columns.dataset(pa.table(made), where=where)


def _opened(
    x: str | Path, columns: Mapping[str, str] | None, data_files: _DataFiles | None, split: str | None
) -> tuple[Dataset, str]:
    """The table behind a name, path or hub id, with its columns renamed, and what to call it."""
    from datasets import Dataset

    name = str(x)
    source = SOURCES.get(name.lower())
    if name == REVIEWS:
        if data_files is not None:
            raise InputError("the bundled reviews take no data_files; give the file as the source itself")
        bundled = Path(str(resources.files("ratekit"))) / "data" / "reviews.parquet"
        return files.read(bundled, None, columns), REVIEWS
    if data_files:
        paths = [data_files] if isinstance(data_files, str | Path) else list(data_files)
        where = ", ".join(map(str, paths))
        if source is not None and source.gather is not None:
            tables = {str(path): files.read(path, split, columns) for path in paths}
            # One file with most columns of the table is that table, of another schema.
            if not any(2 * len({*source.columns} & {*t.column_names}) > len(source.columns) for t in tables.values()):
                return Dataset(arrow_columns.table(source.gather(tables), where)), where
        return files.read_all(paths, split, columns), where
    if source is not None:
        if not source.hub_id:
            raise InputError(
                f"{name} is on no hub in one table; give the file with data_files (--data-files), with the columns "
                f"{', '.join(source.columns)}"
            )
        return files.renamed(_from_hub(source.hub_id, split or source.split), columns, source.hub_id), source.hub_id
    if not name.strip():
        raise InputError("the data are named by an empty text; a name, a path or a hub id was expected")
    path = Path(name)
    if _exists(path):
        return files.read(path, split, columns), str(path)
    if files.suffix_of(path) in files.SUFFIXES or name.startswith((".", "/", "~")):
        raise InputError(f"no such file or folder: {shorten(name, 200)}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return files.renamed(_from_hub(name, split or "train"), columns, name), name
    raise unknown(
        "source", shorten(name, 100), [REVIEWS, *SOURCES], "Or give a file, a saved dataset or a hub id 'owner/name'"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _from_hub(hub_id: str, split: str) -> Dataset:
    import datasets

    try:
        return datasets.load_dataset(hub_id, split=split)
    except Exception as e:  # the hub client raises many kinds; all mean that the data could not be had
        raise WorkError(
            f"the hub dataset {hub_id!r} (split {split!r}) could not be loaded: {shorten(e, 120)}. "
            "Without a network give a local copy with data_files (--data-files)"
        ) from None


# --- reading each column once -----------------------------------------------------------------------------


def typed(ds: Dataset, where: str) -> Dataset:
    """The table with each of our columns as the type that it has in the schema; unchanged where they all are.

    Raises
    ------
    InputError
        That names the row and the column of a value that cannot be read.
    """
    import pyarrow as pa

    have = ds.column_names
    new: dict[str, Any] = {}
    if REWRITES in have and TREATED not in have:
        raise InputError(
            f"{where}: the data carry rewrites, but not the labels that they were made for; add the columns "
            "`attribute` and `treated`, or leave the rewrites out"
        )
    for name in have:
        read = _reader(name)
        if name == PROMPT and not _is_typed(ds, name):
            new[name] = _conversations(where, ds.with_format("arrow")[:][name])
        elif read is not None and not _is_typed(ds, name):
            values = by_name(ds.features[name], ds.with_format("arrow")[:][name].to_pylist())
            new[name] = read(where, name, values)
    if RESPONSE in have:
        new.update(_asked(ds, new, where))
        _refuse_blank(ds, where)
    if not new:
        return ds
    order = [c for c in (PROMPT_ID, PROMPT) if c in new and c not in have] + have
    arrow = ds.with_format("arrow")[:]
    table = pa.table({c: new[c] if c in new else arrow[c] for c in order})
    return _featured(table, ds, new, where)


def _featured(table: Any, ds: Dataset, new: Collection[str], where: str) -> Dataset:
    """The table as a Dataset with what `ds` says of itself and of its columns, but for the new ones."""
    from datasets import DatasetInfo, Features

    features = Features.from_arrow_schema(table.schema)
    features.update({c: ds.features[c] for c in ds.column_names if c not in new})  # names of classes stay
    return arrow_columns.dataset(table, DatasetInfo(description=ds.info.description, features=features), where)


def _reader(name: str) -> Any:
    """What reads a column of that name, (where, name, values) -> Arrow array; None for a column of the user's own."""
    if name in _SCALARS:
        return _treated if name == TREATED else _texts
    lists = name in (REWRITES, REWRITE_STATUS) or name.startswith((REWARD_PREFIX, MEASURE_PREFIX))
    return _lists if lists else None


def _is_typed(ds: Dataset, name: str) -> bool:
    """Whether the column is as the schema says, by its Arrow type and its number of nulls alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = ds.data.column(name)
    kind = kind_of(column.type)
    if name in _SCALARS:
        sound = kind == _SCALARS[name] and column.null_count == 0
        return sound and (name != ATTRIBUTE or column.equals(pc.utf8_trim_whitespace(column)))
    if name == PROMPT:
        if kind != "turns" or column.null_count or {f.name for f in column.type.value_type} != {"role", "content"}:
            return False
        turns = [chunk.flatten() for chunk in column.chunks]
        fields = [field for chunk in turns for field in chunk.flatten()]
        return all(kind_of(f.type) == "text" for f in fields) and not any(f.null_count for f in [*turns, *fields])
    if name in (REWRITES, REWRITE_STATUS):
        return kind in ("texts", "nothing") or (kind == "list" and pa.types.is_null(column.type.value_type))
    return kind in ("list", "nothing")


_SCALARS = {TREATED: "bool", PROMPT_ID: "text", ATTRIBUTE: "text", RESPONSE: "text"}


def _treated(where: str, name: str, values: list[Any]) -> Any:
    import pandas as pd
    import pyarrow as pa

    try:
        return pa.array(treated_bools(pd.Series(values, dtype=object)))
    except InputError as e:
        raise InputError(f"{where}, {e}") from None


def _texts(where: str, name: str, values: list[Any]) -> Any:
    """Text; an integer id is the text of its digits."""
    import pyarrow as pa

    for number, value in enumerate(values, 1):
        digits = name == PROMPT_ID and isinstance(value, int) and not isinstance(value, bool)
        if value is None or not (isinstance(value, str) or digits):
            named = "the response" if name == RESPONSE else name
            what = "null" if value is None else f"{shorten(value)}, which is not text"
            raise InputError(f"{where}, row {number}: {named} is {what}; remove the row or fill it in")
    return pa.array([str(v).strip() if name == ATTRIBUTE else str(v) for v in values], pa.string())


def _conversations(where: str, prompts: Any) -> Any:
    """A column of prompts as turns, a block of rows at a time; none is an empty one."""
    import pyarrow as pa

    schema = pa.schema({PROMPT: pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))})
    turns = (
        arrow_columns.conversations(where, PROMPT, ["" if p is None else p for p in block], start)
        for start, block in _blocks(prompts)
    )
    batches = (pa.record_batch([pa.array(block, schema.types[0])], schema) for block in turns)
    return files.gathered(schema, batches)[PROMPT]


def _blocks(column: Any) -> Iterator[tuple[int, list[Any]]]:
    """A column of Arrow in pieces, and how many rows stand before each."""
    for start in range(0, len(column), BLOCK):
        yield start, column.slice(start, BLOCK).to_pylist()


def _lists(where: str, name: str, values: list[Any]) -> Any:
    """Lists of texts or of rewards; a list that is written as a text is read."""
    import pyarrow as pa

    texts = name in (REWRITES, REWRITE_STATUS)
    wanted = "a list of texts" if texts else "a list of rewards"
    more = "" if texts else ", one for the response and one for each rewrite"
    found = [arrow_columns.lists(where, name, i, v) for i, v in enumerate(values, 1)]
    for number, value in enumerate(found, 1):
        sound = value is None or isinstance(value, list)
        if not sound or (texts and not all(isinstance(v, str | None) for v in value or ())):
            raise InputError(
                f"{where}, row {number}: column {name!r} holds {shorten(value)!r}; {wanted} was expected{more}"
            )
    return pa.array(found, pa.list_(pa.string())) if texts else arrow_columns.column(where, name, found)


def _asked(ds: Dataset, new: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The prompts and their ids, where the table lacks them."""
    import pyarrow as pa

    have = ds.column_names
    made: dict[str, Any] = {}
    if PROMPT not in have:
        if PROMPT_ID not in have:
            log.warning("%s: no prompt column, so every prompt is empty and every row its own cluster", where)
            made[PROMPT_ID] = pa.array([f"row-{i:06d}" for i in range(len(ds))])
        made[PROMPT] = arrow_columns.column(where, PROMPT, [as_conversation("")] * len(ds))
    elif PROMPT_ID not in have:
        prompts = new[PROMPT] if PROMPT in new else ds.with_format("arrow")[:][PROMPT]
        made[PROMPT_ID] = pa.chunked_array(
            [[prompt_key(p) for p in block] for _, block in _blocks(prompts)], pa.string()
        )
    return made


def _refuse_blank(ds: Dataset, where: str) -> None:
    """An empty response is none."""
    import pyarrow.compute as pc

    column = ds.data.column(RESPONSE)
    if kind_of(column.type) == "text":
        first = pc.index(pc.equal(pc.utf8_trim_whitespace(column), ""), True).as_py()
        if first >= 0:
            raise InputError(f"{where}, row {first + 1}: the response is empty; remove the row or fill it in")


# --- a study's rows ---------------------------------------------------------------------------------------


def load(
    source: Any,
    *,
    attribute: str | Attribute | None = None,
    data_files: _DataFiles | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    label_column: str | None = None,
    positive: Any = None,
    n: int | None = None,
    seed: int = 0,
    duplicates: str | None = None,
    turn: int | None = None,
    max_characters: int = MAX_CHARACTERS,
) -> Dataset:
    """Responses to prompts, one a row, as a Dataset with prompt_id, prompt and response.

    Parameters
    ----------
    source
        Whatever `as_dataset` takes: "reviews" (bundled), a name in `SOURCES`, a file, a saved dataset, a hub id, or the
        rows themselves (Dataset, DataFrame, list of dict, dict of list).
    attribute : str or Attribute, optional
        Keep the rows under this attribute, where the data carry attributes; where they carry only others, their
        responses without labels and rewrites.
    data_files : str, Path or list of them, optional
        Local files in the source's own schema, instead of the hub.
    split : str, optional
        Of a hub dataset (default "train") or a DatasetDict.
    columns : mapping of str to str, optional
        ``{ours: theirs}`` for columns that are named otherwise.
    label_column, positive : optional
        Label the rows by a column of theirs, as in `ratekit.label`: they get `treated`, and `attribute` where one is
        given; rows without a label are dropped.
    n, seed : int
        A random sample of n rows; whole prompts are drawn, so a prompt's responses stay together.
    duplicates : {"error", "drop", "keep"}, optional
        What to do with a response that is there twice under one prompt: "error" is the default for rows of prompt and
        response, "drop" for the public sources and pairs, which have some.
    turn : int, optional
        Which of the assistant's turns is the response, as in `as_dataset`.
    max_characters : int
        A longer response is refused.

    Returns
    -------
    Dataset
        As `as_dataset` gives it, and labelled where there is a `label_column`.

    Raises
    ------
    InputError
        An unknown name, columns that are no known form, an empty or over-long response, an empty table.
    WorkError
        The hub cannot be reached.

    Examples
    --------
    >>> ds = load("reviews", attribute="length")
    >>> len(ds), ds[0]["prompt"][0]["role"], len(ds[0]["rewrites"])
    (160, 'user', 3)
    >>> load([{"prompt": "Why?", "response": "So."}]).column_names
    ['prompt_id', 'prompt', 'response']
    >>> rows = [{"response": "Dear sir", "kind": "ham"}, {"response": "Buy now!", "kind": "spam"}]
    >>> load(rows, label_column="kind", positive="spam")["treated"][:]
    [False, True]
    >>> load("hh-rlhf", data_files="hh_rlhf.jsonl.gz", n=500)  # doctest: +SKIP
    >>> load("mine.csv", columns={"response": "answer", "prompt": "question"})  # doctest: +SKIP
    """
    if n is not None:
        require_whole("n", n, 1)
    require_whole("seed", seed)
    require_whole("max_characters", max_characters, 1)
    ds, where, own = _read(source, columns, data_files, split, None, turn)
    if RESPONSE not in columns_of(ds):
        raise InputError(f"{where}: no column 'response' (columns: {', '.join(columns_of(ds)[:20])})")
    carried = isinstance(attribute, str) and ATTRIBUTE in columns_of(ds) and attribute in set(ds[ATTRIBUTE][:])
    wanted = None if attribute is None or (carried and attribute not in ATTRIBUTES) else find_attribute(attribute)
    if attribute is not None:
        ds = _of_attribute(ds, wanted.name if wanted is not None else str(attribute), where)
    _refuse_long(ds, where, max_characters)
    ds = without_duplicates(ds, where, duplicates or ("error" if own else "drop"))
    ds = ds if n is None else sample(ds, n, seed)
    return ds if label_column is None and positive is None else labelled_rows(ds, wanted, label_column, positive)


def sample(ds: Dataset, n: int, seed: int = 0) -> Dataset:
    """At most n rows: prompts in random order, each with all its rows until n is reached; rows in their order."""
    if n >= len(ds):
        return ds
    prompts = np.array(ds[PROMPT_ID][:], dtype=object)
    names, codes = np.unique(prompts.astype(str), return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))
    return ds.select(np.sort(np.argsort(rank[codes], kind="stable")[:n]))


def _of_attribute(ds: Dataset, name: str, where: str) -> Dataset:
    """The rows under this attribute; where the data carry others only, their bare responses, each once."""
    if ATTRIBUTE not in columns_of(ds):
        return ds
    kept = [i for i, a in enumerate(ds[ATTRIBUTE][:]) if a == name]
    if kept:
        return ds.select(kept)
    carried = sorted({str(a) for a in ds[ATTRIBUTE][:]})
    log.info(
        "%s: rewrites for %s, not for %s; the responses are taken without them", where, " and ".join(carried), name
    )
    bare = [
        c
        for c in columns_of(ds)
        if c in (ATTRIBUTE, TREATED, REWRITES, REWRITE_STATUS, *reward_columns([c], how_read=True))
    ]
    first: dict[tuple[str, str], int] = {}  # a response stands there once for each attribute that is carried
    for i, key in enumerate(zip(ds[PROMPT_ID][:], ds[RESPONSE][:], strict=True)):
        first.setdefault(key, i)
    return ds.remove_columns(bare).select(sorted(first.values()))


def _refuse_long(ds: Dataset, where: str, max_characters: int) -> None:
    import pyarrow.compute as pc

    lengths = np.asarray(pc.utf8_length(ds.with_format("arrow")[:][RESPONSE]))
    if (lengths > max_characters).any():
        i = int((lengths > max_characters).argmax())
        raise InputError(
            f"{where}, row {i + 1}: the response has {lengths[i]:,} characters, over the limit of "
            f"{max_characters:,}; cut it, or raise max_characters"
        )


def without_duplicates(ds: Dataset, where: str, duplicates: str) -> Dataset:
    """Refuse ("error"), drop or keep rows that repeat a response under the same prompt and attribute."""
    require_known("value for duplicates", duplicates, ("error", "drop", "keep"))
    if duplicates == "keep" or RESPONSE not in columns_of(ds):
        return ds
    columns = [PROMPT if PROMPT in columns_of(ds) else PROMPT_ID, RESPONSE, ATTRIBUTE]
    plain = ds.select_columns([c for c in columns if c in columns_of(ds)]).with_format(None)
    digests = bytearray()  # of the texts, which may not fit into memory
    for block in plain.iter(BLOCK):
        for values in zip(*block.values(), strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for value in map(str, values):
                digest.update(f"{len(value)} {value}".encode("utf-8", "surrogatepass"))
            digests += digest.digest()
    keys = np.frombuffer(bytes(digests), dtype="S16")
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(ds):
        return ds
    if duplicates == "error":
        i = int((first[which] != np.arange(len(ds))).argmax())
        raise InputError(
            f"{where}: row {i + 1} repeats row {first[which[i]] + 1} (same prompt and response), which would count one "
            "response twice; drop the repeats with duplicates='drop' (--duplicates drop)"
        )
    log.warning("%s: %d repeated responses were dropped", where, len(ds) - len(first))
    return ds.select(np.sort(first))
