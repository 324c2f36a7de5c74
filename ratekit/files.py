"""Any table on disk -> a `datasets.Dataset`, and an error that names the file, the line and what to do.

Reads a folder written by `save_to_disk`, and Parquet, JSON Lines, JSON, CSV and TSV files, gzip'd or not.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, shorten
from ratekit.schema import ATTRIBUTE, PROMPT, PROMPT_ID, RESPONSE, REWARD_PREFIX, REWRITE_STATUS, REWRITES

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, without .gz.

    >>> suffix_of(Path("scored.jsonl.gz"))
    '.jsonl'
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read(path: str | Path, split: str | None = None) -> Dataset:
    """The table at `path` as a Dataset.

    >>> ds = read("scored.jsonl.gz")  # doctest: +SKIP

    Raises InputError for a path that is not there, a folder that is no saved dataset, an unknown suffix, an
    empty table, bytes that are not UTF-8, and a line that does not parse.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.is_dir():
        ds = _read_folder(path, split)
    else:
        ds = _read_file(path)
    if len(ds) == 0:
        raise InputError(f"{path}: the table is empty (0 rows)")
    return ds


def _read_folder(path: Path, split: str | None) -> Dataset:
    from datasets import DatasetDict, load_from_disk

    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        if (path / "dataset" / "state.json").exists():
            path = path / "dataset"  # the folder of a run
        else:
            raise InputError(
                f"{path} is a folder, but not a saved dataset (no state.json in it); "
                "give a file in it, or a folder written by Dataset.save_to_disk"
            )
    try:
        ds = load_from_disk(str(path))
    except Exception as e:
        raise InputError(f"{path}: not a readable saved dataset ({shorten(e, 120)})") from None
    if isinstance(ds, DatasetDict):
        if split is None and len(ds) == 1:
            return next(iter(ds.values()))
        if split is None or split not in ds:
            raise InputError(f"{path} holds the splits {', '.join(ds)}; choose one with split=")
        return ds[split]
    return ds


def _read_file(path: Path) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: cannot tell the format from the suffix {path.suffix!r}; known: {', '.join(SUFFIXES)}"
        )
    try:
        if suffix == ".parquet":
            return _parquet(path)
        if suffix in (".csv", ".tsv"):
            return _csv(path, "\t" if suffix == ".tsv" else ",")
        rows = list(_json_rows(path, suffix))
        names = list(dict.fromkeys(name for row in rows for name in row))
        return Dataset(pa.table({name: _column(path, name, [row.get(name) for row in rows]) for name in names}))
    except InputError:
        raise
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 ({e.reason} at byte {e.start}); save it as UTF-8") from None
    except (OSError, EOFError, ValueError, pa.ArrowException) as e:
        raise InputError(f"{path}: cannot be read as {suffix[1:]} ({shorten(e, 160)})") from None


def _column(path: Path, name: str, values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError) as e:
        first: dict[str, int] = {}
        for number, value in enumerate(values, 1):
            if value is not None:
                first.setdefault(type(value).__name__, number)
        mixed = "; ".join(f"{kind} in row {number}" for kind, number in first.items())
        raise InputError(f"{path}: column {name!r} cannot be one type ({mixed or shorten(e, 100)})") from None


def _json_rows(path: Path, suffix: str) -> Iterator[dict[str, Any]]:
    with _open(path) as lines:
        if suffix == ".json":
            yield from _one_json(path, lines.read())
            return
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as e:
                raise InputError(
                    f"{path}, line {number}: not UTF-8 ({e.reason} at byte {e.start} of the line); "
                    "save the file as UTF-8"
                ) from None
            if text.strip():
                yield _json_row(path, text, f"line {number}")


def _one_json(path: Path, raw: bytes) -> Iterator[dict[str, Any]]:
    """A .json file: one array of objects, or JSON Lines under the wrong name."""
    text = raw.decode("utf-8").strip()
    if text.startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as e:
            raise InputError(f"{path}, line {e.lineno}: not JSON ({e.msg})") from None
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise InputError(f"{path}: entry {number} is {shorten(row)}, not an object")
            yield row
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _json_row(path, line, f"line {number}")


def _json_row(path: Path, text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        raise InputError(f"{path}, {where}: not JSON ({shorten(e, 80)}): {shorten(text)}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, {where}: {shorten(row)} is not an object with columns")
    return row


def _open(path: Path) -> Any:
    with path.open("rb") as f:
        zipped = f.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _parquet(path: Path) -> Dataset:
    import pyarrow.parquet as pq
    from datasets import Dataset

    return Dataset(pq.read_table(path))


def _csv(path: Path, separator: str) -> Dataset:
    """CSV has no lists: columns that hold them are read from their JSON (or Python) text."""
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset

    text = {PROMPT_ID: str, PROMPT: str, RESPONSE: str, ATTRIBUTE: str}  # "007" stays "007"
    frame = pd.read_csv(path, sep=separator, keep_default_na=False, na_values=[""], dtype=text)
    columns = {}
    for name in map(str, frame.columns):
        values = [None if pd.isna(v) else v for v in frame[name].tolist()]
        if name.startswith(REWARD_PREFIX) or name in (REWRITES, REWRITE_STATUS, PROMPT):
            values = [_nested(path, name, i, v) for i, v in enumerate(values, 1)]
        columns[name] = _column(path, name, values)
    return Dataset(pa.table(columns))


def _nested(path: Path, name: str, row: int, value: Any) -> Any:
    import ast

    if not isinstance(value, str) or (name == PROMPT and not value.lstrip().startswith("[{")):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    raise InputError(f"{path}, row {row}: column {name!r} holds {shorten(value)}, which is not a list")
