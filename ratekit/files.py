"""Any table on disk -> a `datasets.Dataset`, and the one way in which a file or a folder is replaced.

Reads a folder written by `save_to_disk`, and Parquet, JSON Lines, JSON, CSV and TSV files, gzip'd or not; a fault
names the file, the line and what to do.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import gzip
import hashlib
import io
import itertools
import json
import logging
import mmap
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ratekit.columns import bounded, check_names, dataset, from_text, renaming, table
from ratekit.errors import InputError, WorkError, shorten
from ratekit.schema import RESPONSE, TREATED, listed

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

log = logging.getLogger("ratekit")

_T = TypeVar("_T")

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, without .gz.

    Examples
    --------
    >>> suffix_of(Path("scored.jsonl.gz"))
    '.jsonl'
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read(path: str | Path, split: str | None = None, columns: Mapping[str, str] | None = None) -> Dataset:
    """The table at `path` as a Dataset.

    Parameters
    ----------
    path : str or Path
        A Parquet, JSON Lines, JSON, CSV or TSV file, gzip'd or not, a folder of `Dataset.save_to_disk`, or a folder
        of such files (the shards of one table).
    split : str, optional
        Of a saved DatasetDict, or of a folder whose shards are named for their split; a single table has none.
    columns : mapping of str to str, optional
        ``{ours: theirs}``. A column of a CSV is typed by the name that it gets.

    Returns
    -------
    Dataset
        The rows as they are in the file; `ratekit.as_dataset` reads what they mean.

    Raises
    ------
    InputError
        A path that is not there or is no file (a pipe, a device), an unknown suffix, an empty table, bytes that are not
        UTF-8, a line that does not parse or has too few or too many cells, more than `columns.MAX_COLUMNS` columns,
        a line of more than `MAX_LINE` bytes, and a gzip file that unzips to more than `MAX_RATIO` times its size or
        to more than `MAX_UNZIPPED` bytes.

    Examples
    --------
    >>> ds = read("scored.jsonl.gz")  # doctest: +SKIP
    """
    path = Path(path)
    recover(path)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    ds = _read_folder(path, split, columns) if path.is_dir() else of_split(_read_file(path, columns), split, str(path))
    if len(ds) == 0:
        raise InputError(f"{path}: the table is empty (0 rows)")
    return ds


def is_saved(folder: Path) -> bool:
    """Whether the folder itself is a saved dataset, and not one with a dataset in it."""
    return any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))


def _read_folder(path: Path, split: str | None, columns: Mapping[str, str] | None) -> Dataset:
    from datasets import load_from_disk

    recover(path / "dataset")  # where the folder is a run's
    if not is_saved(path):
        if (path / "dataset" / "state.json").exists():
            path = path / "dataset"  # the folder of a run
        else:
            return _read_shards(path, split, columns)
    _check_saved(path)
    try:
        ds = load_from_disk(str(path))
    except Exception as e:
        raise InputError(f"{path}: not a readable saved dataset ({shorten(e, 120)})") from None
    return renamed(of_split(ds, split, str(path)), columns, str(path))


def _check_saved(path: Path) -> None:
    """Raise InputError where a saved dataset holds what is no file, or names one that is not in its folder."""
    for file in path.rglob("*"):
        if not file.is_dir() and not file.is_file():
            raise InputError(f"{path}: not a readable saved dataset ({file.name} is no ordinary file)")
        if file.name == "state.json":
            try:
                names = [part["filename"] for part in read_object(file)["_data_files"]]
                outside = next((n for n in names if Path(n).name != n), None)
            except (ValueError, TypeError, KeyError) as e:
                raise InputError(f"{path}: not a readable saved dataset ({file.name}: {shorten(e, 80)})") from None
            if outside is not None:
                raise InputError(f"{path}: {file.name} names {shorten(outside)!r}, which is not in that folder")


def of_split(ds: _T | dict[str, _T], split: str | None, where: str) -> _T:
    """The split that is asked for, or the only one; a table without splits has none. Raises InputError."""
    if not isinstance(ds, dict):
        if split is not None and str(getattr(ds, "split", None)) != split:
            raise InputError(f"{where} is one table, which holds no split {split!r}; leave split= (--split) out")
        return ds
    if split is None and len(ds) == 1:
        return next(iter(ds.values()))
    if split is None or split not in ds:
        raise InputError(f"{where} holds the splits {listed(list(ds))}; choose one with split= (--split)")
    return ds[split]


MAX_FILES = 10_000  # in a folder that is looked through
_SHARD = re.compile(r"(?P<split>\w+?)(?:-\d+-of-\d+)?$")


def _read_shards(path: Path, split: str | None, columns: Mapping[str, str] | None) -> Dataset:
    """A folder of files of one suffix, in the order of their names; links and hidden folders are not followed."""
    found: list[Path] = []
    n_files = 0
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(folder) / name for name in names]
        found += [p for p in files if suffix_of(p) in SUFFIXES and p.is_file() and not p.is_symlink()]
        if (n_files := n_files + len(names)) > MAX_FILES:
            raise InputError(f"{path} holds more than {MAX_FILES:,} files; give the folder that holds only the table's")
    found.sort()
    shards = [p for p in found if suffix_of(p) == ".parquet"]
    if not shards:
        held = f"; it holds {listed([p.name for p in found], most=5)}" if found else ""
        raise InputError(
            f"{path} is a folder, but not a saved dataset (no state.json in it) and without Parquet files{held}; "
            "give a file in it, or a folder written by Dataset.save_to_disk"
        )
    splits: dict[str, list[Path]] = {}
    for shard in shards:
        name = _SHARD.match(shard.name.split(".")[0])
        splits.setdefault(name["split"] if name else shard.stem, []).append(shard)
    of_one = split is not None or any("-of-" in p.name for p in shards)
    parts: list[Path] = of_split(splits, split, str(path)) if of_one else shards
    log.info("%s is read as one table: %s", path, listed([str(p.relative_to(path)) for p in parts], most=5))
    return read_all(parts, None, columns)


def read_all(
    paths: Sequence[str | Path], split: str | None = None, columns: Mapping[str, str] | None = None
) -> Dataset:
    """Files that are parts of one table, in their order. Raises InputError where their columns differ."""
    from datasets import concatenate_datasets

    tables = [read(path, split, columns) for path in paths]
    for path, part in zip(paths, tables, strict=True):
        if set(part.column_names) != set(tables[0].column_names):
            raise InputError(f"{path}: its columns are not those of {paths[0]}; files given together are one table")
    try:
        return tables[0] if len(tables) == 1 else concatenate_datasets(tables)
    except ValueError as e:
        raise InputError(
            f"{paths[0]} and the files given with it: columns of other types ({shorten(e, 120)})"
        ) from None


def renamed(ds: Dataset, columns: Mapping[str, str] | None, where: str) -> Dataset:
    """The table with the columns {ours: theirs} by our names. Raises InputError for one that it does not have."""
    new = renaming(ds.column_names, columns, where)
    if not new:
        return ds
    return ds.remove_columns([n for n in ds.column_names if n in new.values() and n not in new]).rename_columns(new)


def _read_file(path: Path, columns: Mapping[str, str] | None) -> Dataset:
    import pyarrow as pa

    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path} is a pipe or a device, not a file; save what comes out of it and give that file")
    suffix = suffix_of(path)
    with path.open("rb") as file:
        begins = file.read(40)
    for mark, kind in NO_TABLES.items():
        if begins.startswith(mark) and (mark, suffix) != (b"PAR1", ".parquet"):
            raise InputError(f"{path} {kind}")
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: cannot tell the format from the suffix {path.suffix!r}; known: {', '.join(SUFFIXES)}"
        )
    try:
        if suffix == ".parquet":
            return renamed(_parquet(path), columns, str(path))
        if suffix in (".csv", ".tsv"):
            return dataset(_csv(path, "\t" if suffix == ".tsv" else ",", columns), where=str(path))
        rows = list(_json_rows(path, suffix))
        if columns:
            new = renaming(list(dict.fromkeys(name for row in rows for name in row)), columns, str(path))
            rows = [{new.get(k, k): v for k, v in row.items() if k in new or k not in new.values()} for row in rows]
        return dataset(table(rows, str(path)), where=str(path))
    except InputError:
        raise
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 ({e.reason} at byte {e.start}); save it as UTF-8") from None
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, pa.ArrowException) as e:
        raise InputError(f"{path}: cannot be read as {suffix[1:]} ({shorten(e, 160)})") from None


NO_TABLES = {  # how a file begins that is no table by itself, whatever its name says
    b"PK\3\4": "is a ZIP archive or a workbook; unzip it, or save the sheet as CSV in UTF-8",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it (zstd -d), or pack it by gzip",
    b"\xfd7zXZ": "is packed by xz; unpack it (xz -d), or pack it by gzip",
    b"BZh91AY": "is packed by bzip2; unpack it (bzip2 -d), or pack it by gzip",
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself; fetch that with `git lfs pull`",
    b"PAR1": "is a Parquet file by its content; end its name in .parquet",
}


# --- bytes -----------------------------------------------------------------------------------------------

MAX_LINE = 64 << 20
MAX_RATIO = 200  # text unzips to some 3 to 20 times its size
MAX_UNZIPPED = 1 << 30


class _Unzipped(io.RawIOBase):
    """The bytes of a gzip file, as many as are believable. Raises InputError."""

    def __init__(self, path: Path) -> None:
        self.path, self.file, self.n_read = path, gzip.GzipFile(path, "rb"), 0
        self.most = min(MAX_UNZIPPED, max(16 << 20, MAX_RATIO * path.stat().st_size))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self.file.readinto(buffer)
        self.n_read += n
        if self.n_read > self.most:
            raise InputError(
                f"{self.path}: unzips to more than {self.most / 2**20:,.0f} MiB, of which no more is read; "
                "if that is as it should be, unzip it and give the plain file"
            )
        return n

    def close(self) -> None:
        self.file.close()
        super().close()


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as f:
        zipped = f.read(2) == b"\x1f\x8b"
    return io.BufferedReader(_Unzipped(path), 1 << 20) if zipped else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers, without a byte order mark."""
    with _open(path) as f:
        number = 0
        while line := f.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise InputError(f"{path}, line {number}: longer than {MAX_LINE >> 20} MiB; no row is that long")
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _whole(path: Path) -> bytes:
    if path.stat().st_size > MAX_UNZIPPED:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes, more than the {MAX_UNZIPPED:,} of a file that is read whole; "
            "save it as Parquet or JSON Lines"
        )
    with _open(path) as f:
        return f.read().removeprefix(codecs.BOM_UTF8)


MAX_SMALL = 1 << 28  # bytes of a record, a card, a table of effects, a prompt


def read_text(path: str | Path) -> str:
    """The text of a small file.

    Raises
    ------
    InputError
        It is not there, a pipe, a device or a folder, larger than `MAX_SMALL`, or not UTF-8.

    Examples
    --------
    >>> read_text("/dev/null")
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: /dev/null cannot be read: it is no ordinary file
    """
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} cannot be read: it is no ordinary file")
        if found.st_size > MAX_SMALL:
            raise InputError(f"{path} has {found.st_size:,} bytes, more than the {MAX_SMALL:,} that are read of it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read: it is not UTF-8") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from None


def read_object(path: str | Path) -> dict[str, Any]:
    """The object in a small JSON file. Raises InputError where it holds none."""
    try:
        found = json.loads(read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} cannot be read: not JSON ({shorten(e, 80)})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {shorten(found)}; an object was expected")
    return found


# --- formats ---------------------------------------------------------------------------------------------


_JSON_BEGINS = re.compile(r"\s*(?:\[\s*(?:\{|\Z)|\{\s*\Z)")  # an array of objects, or one over several lines


def _json_rows(path: Path, suffix: str) -> Iterator[dict[str, Any]]:
    if suffix == ".json":
        yield from _one_json(path, _whole(path))
        return
    told = False
    for number, line in _lines(path):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as e:
            raise InputError(
                f"{path}, line {number}: not UTF-8 ({e.reason} at byte {e.start} of the line); save the file as UTF-8"
            ) from None
        if not told and _JSON_BEGINS.match(text):
            yield from _one_json(path, _whole(path))
            return
        if text.strip():
            told = True
            yield _json_row(path, text, f"line {number}")


def _one_json(path: Path, raw: bytes) -> Iterator[dict[str, Any]]:
    """A .json file: an array of objects, columns as pandas writes them, one object, or JSON Lines by another name."""
    text = raw.decode("utf-8").strip()
    try:
        found = json.loads(text, object_pairs_hook=_record) if text else []
    except json.JSONDecodeError as e:
        if text.startswith("["):
            raise InputError(f"{path}, line {e.lineno}: not JSON ({e.msg})") from None
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _json_row(path, line, f"line {number}")
        return
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not JSON that can be read ({shorten(e, 80)})") from None
    rows = _of_columns(found) if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise InputError(f"{path}: {shorten(found)} is no list of objects")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: entry {number} is {shorten(row)}, not an object")
        yield row


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose keys are there once each; else the last value would stand for the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shorten(next(n for n in names if names.count(n) > 1))!r} is there twice")
    return found


def _of_columns(found: dict[str, Any]) -> list[Any]:
    """The rows of `DataFrame.to_json`, in any of its orients that name the columns, or of one object.

    >>> _of_columns({"a": {"0": 1, "1": 2}}) == _of_columns({"columns": ["a"], "index": [0, 1], "data": [[1], [2]]})
    True
    """
    rows = found.get("data")
    if set(found) == {"columns", "index", "data"} and all(isinstance(v, list) for v in found.values()):
        return [
            dict(zip(found["columns"], row, strict=False)) if isinstance(row, list) else row for row in found["data"]
        ]
    if set(found) == {"schema", "data"} and isinstance(found["schema"], dict) and isinstance(rows, list):
        index = found["schema"].get("primaryKey") or []
        return [{k: v for k, v in row.items() if k not in index} if isinstance(row, dict) else row for row in rows]
    columns = list(found.values())
    if any(isinstance(found.get(c), list) for c in (RESPONSE, TREATED)):  # `Dataset.to_dict`
        if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
            raise ValueError("its columns are not lists of one length")
        return [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]
    keys = [list(c) for c in columns if isinstance(c, dict)]
    if columns and len(keys) == len(columns) and keys[0] and all(k == keys[0] for k in keys):
        if all(name.isdigit() for name in found) and not all(key.isdigit() for key in keys[0]):
            return columns  # {"0": {"column": ...}, "1": ...}
        return [{name: column[key] for name, column in found.items()} for key in keys[0]]
    return [found]


def _json_row(path: Path, text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text, object_pairs_hook=_record)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}, {where}: not JSON ({shorten(e, 80)}): {shorten(text[:1000])}") from None
    if not isinstance(row, dict):
        raise InputError(f"{path}, {where}: {shorten(row)} is not an object with columns")
    return row


def _parquet(path: Path) -> Dataset:
    import pyarrow.parquet as pq

    bounded(len(pq.read_schema(path)), str(path))
    with pq.ParquetFile(path) as file:
        table = gathered(file.schema_arrow, _believable(path, file.iter_batches(batch_size=256)))
    return dataset(table.drop_columns([c for c in table.column_names if _INDEX.fullmatch(c)]), where=str(path))


def _believable(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, as many as are believable of a file of that size. Raises InputError."""
    size, most = 0, max(MAX_UNZIPPED // 4, MAX_RATIO * path.stat().st_size)
    for batch in batches:
        size += batch.nbytes
        if size > most:
            raise InputError(
                f"{path}: unpacks to more than {most / 2**20:,.0f} MiB, of which no more is read; if that is as it "
                "should be, write it in several files"
            )
        yield batch


LARGE = 16 << 20  # bytes of a table that are not held in memory where it can be helped


class Spool:
    """Batches in a nameless file, read back through a memory map: the system keeps what it can, a kill leaves nothing.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the batches.
    folder : Path, optional
        On whose disk the file lies; where it is read-only, and by default, with the system's temporary files.

    Examples
    --------
    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"response": ["a"]})
    >>> spool = Spool(batch.schema)
    >>> spool.write(batch)
    >>> spool.table().to_pydict()
    {'response': ['a']}
    """

    def __init__(self, schema: pa.Schema, folder: Path | None = None) -> None:
        import pyarrow as pa

        try:
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the table keeps it)
        except OSError:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.stream = pa.ipc.new_stream(self.file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch. Raises WorkError where the disk is full."""
        try:
            self.stream.write_batch(batch)
            self.file.flush()
        except OSError as e:
            raise WorkError(
                f"the rows cannot be written to disk: {shorten(e, 100)}; what a cache holds is kept"
            ) from None

    def table(self) -> pa.Table:
        """All batches; the file lives as long as the table does."""
        import pyarrow as pa

        self.stream.close()
        self.file.flush()
        with self.file as file:
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.py_buffer(held)).read_all()


def gathered(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """The batches as a table, which lies in a `Spool` where they are more than `LARGE` bytes."""
    import pyarrow as pa

    batches, held, size = iter(batches), [], 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size > LARGE:
            spool = Spool(schema)
            for one in itertools.chain(held, batches):
                spool.write(one)
            return spool.table()
    return pa.Table.from_batches(held, schema)


_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name in a Parquet file


def _csv(path: Path, separator: str, columns: Mapping[str, str] | None) -> pa.Table:
    """Every cell as text first; then each column by its name, the new one where it is renamed."""
    import pyarrow as pa

    text = _whole(path).decode("utf-8")
    rows = _csv_rows(path, text, separator)
    names = [name or "" for name in next(rows)[1]]
    bounded(len(names), str(path))
    check_names(names, str(path))
    cells: list[list[str | None]] = [[] for _ in names]
    for start, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"{path}, line {_line(text, start)}: {len(row)} cells where the first line names {len(names)} columns "
                "(a comma too many, or a quotation mark that is not closed?): "
                f"{shorten(text[start : start + 1000].partition(chr(10))[0])}"
            )
        for values, cell in zip(cells, row, strict=True):
            values.append(cell)
    kept: dict[str, Any] = {}
    for index, (name, values) in enumerate(zip(names, cells, strict=True)):
        if not name:  # a comma at the end of each line, or the row numbers that pandas and R write
            if all(v is None for v in values) or values == [str(i) for i in range(len(values))]:
                continue
            if index == 0 and all(v and _ROW_NUMBER.fullmatch(v) for v in values):
                log.info("%s: the first column, row numbers without a name, is left out", path)
                continue
            raise InputError(f"{path}: column {index + 1} has no name in the first line; give it one")
        kept[name] = values
    new = renaming(list(kept), columns, str(path))
    typed = {new.get(n, n): values for n, values in kept.items() if n in new or n not in new.values()}
    return pa.table({name: from_text(str(path), name, values) for name, values in typed.items()})


_ROW_NUMBER = re.compile(r"0|[1-9]\d{0,17}")
_QUOTED_NAMES = re.compile(r'"[^"\r\n]*"(?:[,\t]"[^"\r\n]*")*\r?\n')  # every text is quoted, as R writes them
_FEEDS = re.compile(r'(?:[^"\r\n]++|"[^"]*")*+\r?\n')  # the first line ends in a line feed


def _csv_rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str | None]]]:
    r"""The rows, and where each begins: an empty cell is null, a blank line is passed over.

    A carriage return that stands alone ends a line only where no line feed ends the first one: pandas writes one within
    a text without quotation marks. Where every text is quoted, as R does it, an NA without the marks is null.

    Raises
    ------
    InputError
        The first line is blank or has another separator, or a quoted cell does not end with its closing mark: others
        would be read into one text.

    >>> list(_csv_rows(Path("x.csv"), 'a,"b ""c"", d"\n,5" d\n', ","))
    [(0, ['a', 'b "c", d']), (15, [None, '5" d'])]
    """
    head = re.split("[\r\n]", text, maxsplit=1)[0]
    if not head:
        raise InputError(f"{path}: cannot be read as csv: no first line that names the columns")
    if separator not in head and (other := next((s for s in ",;\t|" if s in head), "")):
        raise InputError(
            f"{path}: the first line has no {separator!r} and parts its names by {other!r}; save it with commas as "
            ".csv, or with tabs as .tsv"
        )
    within = rf"[^{separator}\r\n]*+"
    ends, plain = r"\r\n?|\n", within
    if _FEEDS.match(text):
        ends, plain = r"\r?\n", rf"{within}(?:\r(?!\n){within})*+"
    quoted = r'"((?:[^"]++|"")*+)"( *+)'
    na = "NA" if _QUOTED_NAMES.match(text) else ""
    start = at = 0
    row: list[str | None] = []
    for cell in re.finditer(rf'(?:{quoted}|(?!")({plain}))({separator}|{ends}|\Z)', text):
        if cell.start() != at:
            break
        at = cell.end()
        inside, spaces, bare, end = cell.groups()
        value = inside.replace('""', '"') + spaces if bare is None else bare
        row.append(None if bare == na else value or None)
        if end != separator:
            if len(row) > 1 or bare != "":
                yield start, row
            start, row = at, []
    if at < len(text):
        closed = re.compile(quoted).match(text, at)
        said = "a quotation mark within a quoted cell is not doubled; write it twice, without a backslash"
        if closed is None:
            said = "a quotation mark opens a cell and none closes it; is the file whole?"
        raise InputError(f"{path}, line {_line(text, closed.end() if closed else at)}: {said}")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


# --- replacing -------------------------------------------------------------------------------------------

LEFTOVER = 3600.0  # seconds after which a temporary file is taken for one that a killed process left behind


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Within, `datasets` and `transformers` draw no bars: of small steps, which would hide those that matter."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    models: Any = sys.modules.get("transformers.utils.logging")
    loads = models is not None and models.is_progress_bar_enabled()
    disable_progress_bars()
    if loads:
        models.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
        if loads:
            models.enable_progress_bar()


def write_rows(ds: Dataset, folder: Path) -> None:
    """Save a dataset as the folder that `read` reads."""
    with no_bars():
        ds.save_to_disk(str(folder))


def replace_file(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Write a file beside `path` and put it there once it is whole; a reader sees the old one or the new one.

    Parameters
    ----------
    path : str or Path
        The file; its folder is made where it is missing.
    write : callable
        ``write(temporary)`` makes the file at the path that it is given.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    WorkError
        The disk is full, or the place cannot be written. The old file stays as it was.
    InputError
        A device or a pipe, which a file would take the place of.

    Notes
    -----
    The new file is synced before it is renamed, and its folder after that, so that a power cut leaves the old file or
    the new one (as far as the disk keeps what it says it has written; Windows does not sync folders).

    Examples
    --------
    >>> import tempfile
    >>> path = replace_file(Path(tempfile.mkdtemp()) / "a.txt", lambda new: new.write_text("whole"))
    >>> path.read_text(), [p.name for p in path.parent.iterdir()]
    ('whole', ['a.txt'])
    """
    path = Path(path)
    _refuse_device(path)
    new = path.with_name(f".{path.name[:100]}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(new)
            _sync(new)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
        _sync(path.parent)
        for old in path.parent.glob(f".{_literal(path.name[:100])}.*.new"):
            if time.time() - old.stat().st_mtime > LEFTOVER:
                old.unlink(missing_ok=True)
    except OSError as e:
        raise _unwritable(path, e) from None
    return path


def replace_text(path: str | Path, text: str) -> Path:
    """`replace_file` by one that holds this text."""
    return replace_file(path, lambda new: new.write_text(text, encoding="utf-8"))


def replace_folder(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Write a folder beside `path` and put it there once it is whole.

    Parameters
    ----------
    path : str or Path
        The folder; the one above it is made where it is missing.
    write : callable
        ``write(temporary)`` makes the folder at the path that it is given, where nothing is.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    WorkError
        The disk is full, or the place cannot be written. What was there can still be had.

    Notes
    -----
    A folder cannot be replaced in one step. The steps are: write ``.NAME.new``, sync it, rename it to ``.NAME.whole``,
    rename the old one to ``.NAME.old``, the new one to ``NAME``, delete the old one. Wherever this is cut off,
    `recover` finishes it: a folder under the name ``.whole`` is complete and newer than what is at `path`.

    Examples
    --------
    >>> import tempfile
    >>> path = replace_folder(Path(tempfile.mkdtemp()) / "a", lambda new: new.mkdir())
    >>> path.is_dir(), [p.name for p in path.parent.iterdir()]
    (True, ['a'])
    """
    path = Path(path)
    new, whole, _ = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        discard(new)
        try:
            write(new)
            for folder, _, names in os.walk(new, topdown=False):
                for name in names:
                    _sync(Path(folder) / name)
                _sync(Path(folder))
            new.rename(whole)
        except BaseException:
            discard(new)
            raise
        _sync(path.parent)
        _recover(path)
    except OSError as e:
        raise _unwritable(path, e) from None
    return path


def recover(path: str | Path) -> None:
    """Finish what a killed `replace_folder` began at `path`; called when a folder is opened.

    Raises
    ------
    WorkError
        The place cannot be written, so that the newer folder beside `path` cannot take its place.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / ".a.whole").mkdir()  # whole, and not yet in place
    >>> recover(place / "a")
    >>> [p.name for p in place.iterdir()]
    ['a']
    """
    try:
        _recover(Path(path))
    except OSError as e:
        raise _unwritable(Path(path), e) from None


def _recover(path: Path) -> None:
    if path.name in ("", ".."):
        return
    _, whole, old = _beside(path)
    if os.path.exists(whole):  # False for a name that no file can have
        if path.exists():
            discard(old)
            path.rename(old)
        whole.rename(path)
        _sync(path.parent)
    if os.path.exists(old) and path.exists():
        discard(old)


def discard(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path) -> tuple[Path, Path, Path]:
    return tuple(path.with_name(f".{path.name}.{kind}") for kind in ("new", "whole", "old"))  # type: ignore[return-value]


def _sync(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk; a folder only where that is possible."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _unwritable(path: Path, error: OSError) -> WorkError:
    return WorkError(f"{path} cannot be written: {shorten(error.strerror or error, 80)}; what was there is kept")


def check_place(path: str | Path) -> None:
    """Raise InputError where nothing can be written at `path`; called before any work whose results go there.

    Parameters
    ----------
    path : str or Path
        A file or a folder, there or not yet. What is missing above it is not made.

    Raises
    ------
    InputError
        It is a device or a pipe, something above it is a file, a name is too long or none, or its folder cannot be
        written.
    WorkError
        The disk is full.

    Examples
    --------
    >>> check_place("demo")
    >>> check_place("/dev/null/demo")
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: nothing can be written at /dev/null/demo: /dev/null is not a folder
    """
    path, whole = Path(path), Path(path).absolute()
    _refuse_device(path)
    there = next(p for p in (whole, *whole.parents) if os.path.lexists(p))
    if there == whole and not whole.is_dir():
        there = whole.parent
    if not there.is_dir():
        raise InputError(f"nothing can be written at {path}: {there} is not a folder")
    try:
        for name in (whole, *(there / part for part in whole.relative_to(there).parts)):
            with contextlib.suppress(FileNotFoundError):
                name.lstat()  # is it a name that a file can have?
        try:
            os.close(os.open(there, os.O_TMPFILE | os.O_WRONLY))  # a file without a name leaves nothing behind
        except (AttributeError, OSError):  # not of this system, or not of this disk
            os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))
    except (OSError, ValueError) as e:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(f"nothing can be written at {path}: {e.strerror}") from None
        said = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise InputError(f"nothing can be written at {shorten(path)}: {said}") from None


def _refuse_device(path: Path) -> None:
    """Raise InputError for a device, a pipe, or a link to what a process has open, such as /dev/stdout."""
    leads_to = os.readlink(path) if path.is_symlink() else ""
    if leads_to.startswith("/proc/") or (path.exists() and not path.is_file() and not path.is_dir()):
        raise InputError(f"nothing can be written at {path}: it is a device or a pipe; give the name of a file")


def file_name(name: str) -> str:
    """A name from data (a model's, an attribute's) as the name of one file: no folder, no `..`, at most 80 characters.

    Examples
    --------
    >>> file_name("org/model-8B"), file_name("../../etc"), len(file_name("x" * 300))
    ('org--model-8B', 'etc-74cc', 80)

    Names that differ stay different: one that had to be changed by more than its slashes ends in a hash.
    """
    plain = name.replace("/", "--")
    kept = "".join(c if c.isalnum() or c in "-_.+=@ " else "-" for c in plain).strip("-. ")
    if kept and kept == plain and len(kept) <= 80 and "--" not in name:
        return kept
    return f"{kept[:75].rstrip('-. ') or 'unnamed'}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:4]}"


# --- what a result is keyed by ---------------------------------------------------------------------------

INERT = (".md", ".lock", ".gitattributes", ".gitignore")  # files of a folder that no result depends on


def fingerprint(path: str | Path) -> str:
    """A hash of what a file holds, or of every file of a folder with its name.

    Parameters
    ----------
    path : str or Path
        A table, a saved dataset, or a model's folder (weights, config, tokenizer, template).

    Returns
    -------
    str
        16 hexadecimal digits. Times, owners and the place of the file do not count; a card, a lock and what a cache
        keeps under a hidden name neither.

    Raises
    ------
    InputError
        Nothing is there, or it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> n = path.write_text("a")
    >>> fingerprint(path)
    'ca978112ca1bbdca'
    """
    path = Path(path)
    try:
        if path.is_file():
            return _hash_of(path)[:16]
        if not path.is_dir():
            raise InputError(f"no such file or folder: {path}")
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            parts = file.relative_to(path).parts
            if file.is_file() and not (_inert(file) or any(part.startswith(".") for part in parts)):
                digest.update(f"{'/'.join(parts)} {_hash_of(file)}\n".encode("utf-8", "surrogateescape"))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {shorten(e.strerror or e, 80)}") from None
    return digest.hexdigest()[:16]


def _inert(file: Path) -> bool:
    """Whether no result depends on it: a card or a lock, and beside a saved dataset's rows what says a random name."""
    of_dataset = (file.parent / "state.json").exists() and not file.name.startswith("data-")
    return file.suffix in INERT or of_dataset


def _hash_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
