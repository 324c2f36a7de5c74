"""Where responses come from: the bundled reviews, the public datasets, any local file, any hub id."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit import files
from ratekit.attributes import Attribute, get_attribute
from ratekit.errors import InputError, WorkError, shorten, unknown
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    reward_columns,
)
from ratekit.sources.parsing import parse, plain, renamed, schema_of
from ratekit.sources.public import SOURCES, Source

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")

MAX_CHARACTERS = 300_000  # some 75,000 tokens, more than any reward model reads; VADER needs 30 s for it

REVIEWS = "reviews"  # bundled with the package; its rows carry their rewrites


def load(
    source: str | Path,
    *,
    attribute: str | Attribute | None = None,
    data_files: str | Path | Sequence[str | Path] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    n: int | None = None,
    seed: int = 0,
    duplicates: str | None = None,
    max_characters: int = MAX_CHARACTERS,
) -> Dataset:
    """Responses to prompts, one a row, as a `datasets.Dataset` with prompt_id, prompt and response.

    >>> ds = load("reviews", attribute="length")
    >>> len(ds), ds[0]["prompt"][0]["role"], len(ds[0]["rewrites"])
    (160, 'user', 3)
    >>> load("hh-rlhf", data_files="hh_rlhf.jsonl.gz", n=500)  # doctest: +SKIP
    >>> load("mine.csv", columns={"response": "answer", "prompt": "question"})  # doctest: +SKIP

    source      "reviews" (bundled), a name in `SOURCES`, a local file or saved dataset, or a hub id
    attribute   keep the rows under this attribute, where the data carry attributes; where they carry only others,
                their responses without labels and rewrites
    data_files  a local file in the source's own schema (or several), instead of the hub
    split       of a hub dataset or a saved DatasetDict; default "train"
    columns     {ours: theirs} for files whose columns are named otherwise
    n, seed     a random sample of n rows; whole prompts are drawn, so a prompt's responses stay together
    duplicates  what to do with a response that is there twice under one prompt: "error" (default for files),
                "drop" (default for the public sources, which have some) or "keep"

    Raises InputError for an unknown name, a missing column, a null or over-long response, an empty table;
    WorkError where the hub cannot be reached.
    """
    if n is not None and n < 1:
        raise InputError(f"n={n}: a sample needs at least one row")
    name = str(source)
    known = SOURCES.get(name.lower())
    if name == REVIEWS:
        if data_files is not None:
            raise InputError("the bundled reviews take no data_files; give the file as the source itself")
        ds, where = files.read(Path(str(resources.files("ratekit"))) / "data" / "reviews.parquet"), REVIEWS
    elif known is not None:
        table, where = _table_of(known, name, data_files, split)
        ds = parse(known, renamed(table, columns, where), where)
    else:
        table, where = _find(name, data_files, split)
        table = renamed(table, columns, where)
        alike = schema_of(table)
        if alike is not None:
            log.info("%s has the columns of %s and is read as such", where, alike)
            known = SOURCES[alike]
        ds = parse(known, table, where) if known else plain(table, where)
    if attribute is not None:
        ds = _of_attribute(ds, get_attribute(attribute).name, where)
    ds = _checked(ds, where, max_characters)
    ds = without_duplicates(ds, where, duplicates or ("drop" if known else "error"))
    return ds if n is None else sample(ds, n, seed)


def sample(ds: Dataset, n: int, seed: int = 0) -> Dataset:
    """At most n rows: prompts in random order, each with all its rows until n is reached; rows in their order."""
    if n >= len(ds):
        return ds
    prompts = np.array(ds[PROMPT_ID], dtype=object)
    names, codes = np.unique(prompts.astype(str), return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))
    return ds.select(np.sort(np.argsort(rank[codes], kind="stable")[:n]))


def _table_of(
    source: Source, name: str, data_files: str | Path | Sequence[str | Path] | None, split: str | None
) -> tuple[Dataset, str]:
    if data_files:
        return _read_all(data_files, split)
    if not source.hub_id:
        raise InputError(
            f"{name} is on no hub in one table; give the file with data_files (--data-files), with the columns "
            f"{', '.join(source.columns)}"
        )
    return _from_hub(source.hub_id, split or source.split), source.hub_id


def _read_all(data_files: str | Path | Sequence[str | Path], split: str | None) -> tuple[Dataset, str]:
    """One table of all the files, and what to call it."""
    from datasets import concatenate_datasets

    paths = [data_files] if isinstance(data_files, str | Path) else list(data_files)
    tables = [files.read(path, split) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if set(table.column_names) != set(tables[0].column_names):
            raise InputError(f"{path}: its columns are not those of {paths[0]}; files given together are one table")
    return tables[0] if len(tables) == 1 else concatenate_datasets(tables), ", ".join(map(str, paths))


def _find(name: str, data_files: str | Path | Sequence[str | Path] | None, split: str | None) -> tuple[Dataset, str]:
    if data_files:
        return _read_all(data_files, split)
    path = Path(name)
    if path.exists():
        return files.read(path, split), str(path)
    if files.suffix_of(path) in files.SUFFIXES or name.startswith((".", "/", "~")):
        raise InputError(f"no such file or folder: {name}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _from_hub(name, split or "train"), name
    raise unknown("source", name, [REVIEWS, *SOURCES], "Or give a file, a saved dataset or a hub id 'owner/name'")


def _from_hub(hub_id: str, split: str) -> Dataset:
    import datasets

    try:
        return datasets.load_dataset(hub_id, split=split)
    except Exception as e:  # the hub client raises many kinds; all mean that the data could not be had
        raise WorkError(
            f"the hub dataset {hub_id!r} (split {split!r}) could not be loaded: {shorten(e, 120)}. "
            "Without a network give a local copy with data_files (--data-files)"
        ) from None


def _of_attribute(ds: Dataset, name: str, where: str) -> Dataset:
    """The rows under this attribute; where the data carry others only, their bare responses, each once."""
    if ATTRIBUTE not in columns_of(ds):
        return ds
    kept = [i for i, a in enumerate(ds[ATTRIBUTE]) if a == name]
    if kept:
        return ds.select(kept)
    carried = sorted({str(a) for a in ds[ATTRIBUTE]})
    log.info(
        "%s: rewrites for %s, not for %s; the responses are taken without them", where, " and ".join(carried), name
    )
    bare = [c for c in columns_of(ds) if c in (ATTRIBUTE, TREATED, REWRITES, REWRITE_STATUS, *reward_columns([c]))]
    first: dict[tuple[str, str], int] = {}  # a response stands there once for each attribute that is carried
    for i, key in enumerate(zip(ds[PROMPT_ID], ds[RESPONSE], strict=True)):
        first.setdefault(key, i)
    return ds.remove_columns(bare).select(sorted(first.values()))


def _checked(ds: Dataset, where: str, max_characters: int) -> Dataset:
    for i, text in enumerate(ds[RESPONSE]):
        if not isinstance(text, str):
            what = "null" if text is None else f"{shorten(text)}, which is not text"
            raise InputError(f"{where}, row {i + 1}: the response is {what}; remove the row or fill it in")
        if len(text) > max_characters:
            raise InputError(
                f"{where}, row {i + 1}: the response has {len(text):,} characters, over the limit of "
                f"{max_characters:,}; cut it, or raise max_characters"
            )
    return ds


def without_duplicates(ds: Dataset, where: str, duplicates: str) -> Dataset:
    """Refuse ("error"), drop or keep rows that repeat a response under the same prompt and attribute."""
    if duplicates not in ("error", "drop", "keep"):
        raise unknown("value for duplicates", duplicates, ["error", "drop", "keep"])
    if duplicates == "keep" or RESPONSE not in columns_of(ds):
        return ds
    prompts = ds[PROMPT] if PROMPT in columns_of(ds) else ds[PROMPT_ID]
    attributes = ds[ATTRIBUTE] if ATTRIBUTE in columns_of(ds) else [None] * len(ds)
    seen: dict[tuple[Any, ...], int] = {}
    kept = []
    for i, (prompt, *rest) in enumerate(zip(prompts, ds[RESPONSE], attributes, strict=True)):
        first = seen.setdefault((str(prompt), *rest), i)
        if first == i:
            kept.append(i)
        elif duplicates == "error":
            raise InputError(
                f"{where}: row {i + 1} repeats row {first + 1} (same prompt and response), which would count one "
                "response twice; drop the repeats with duplicates='drop' (--duplicates drop)"
            )
    if len(kept) < len(ds):
        log.warning("%s: %d repeated responses were dropped", where, len(ds) - len(kept))
        return ds.select(kept)
    return ds
