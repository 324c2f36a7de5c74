"""`verify`: every number of an audit's folder derived again from what lies in it, and what differs by name.

| what is stored | is derived again from |
|---|---|
| run.json and dataset/record.json | one another, the hashes of run.json, dataset/, effects.csv and effects.png |
| rows, labels | the data, where they can still be read, by the seed; else the responses that are stored |
| rewrites by rules, or replayed | the responses |
| rewrites by a language model | nothing: the hash of each cached reply is checked |
| rewards | the texts, for rewards that need no model file and those that are given; else scores/, if it has them |
| effects.csv, counts, notes | the rewards |
| card.html, card.md, card.json, card.csv, report.html | the audit |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit import files
from ratekit.attributes import find_attribute
from ratekit.audits import folder as on_disk
from ratekit.audits.inputs import changed
from ratekit.audits.results import Audit, effects_of, notes_of
from ratekit.audits.study import Labelled, Settings, dropped, labelled, rewriters_of, rewritten, some
from ratekit.cards import Card, suite
from ratekit.columns import MAX_COLUMNS
from ratekit.errors import InputError, shorten
from ratekit.reports.contents import gather
from ratekit.reports.page import REPORT, page_html
from ratekit.rewriting.archive import shard_faults
from ratekit.schema import (
    ATTRIBUTE,
    MEASURE_PREFIX,
    REWARD_PREFIX,
    REWARD_STATUS_PREFIX,
    REWRITER,
    REWRITES,
    columns_of,
)
from ratekit.scoring import REWARD_MODELS, read_reward
from ratekit.scoring.base import SCORED
from ratekit.scoring.engine import as_lists
from ratekit.scoring.engine import find as distinct_texts
from ratekit.scoring.store import ScoreStore, as_bytes, fingerprints_in
from ratekit.sources.public import SOURCES
from ratekit.stages import score
from ratekit.tables import as_csv

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

_MOST = 20  # differences of one kind that are named
_LATER = (REWARD_PREFIX, REWARD_STATUS_PREFIX, MEASURE_PREFIX)  # columns that are derived one by one


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes
    ----------
    differences : tuple of str
        What is not as it is derived: file, place, what is stored and what was derived. () where all is.
    checked : tuple of str
        What was derived again.
    unchecked : tuple of str
        What could not be, and why.
    """

    differences: tuple[str, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]

    def __repr__(self) -> str:
        said = [f"differs: {line}" for line in self.differences]
        said += [f"as derived: {', '.join(self.checked)}", *(f"not checked: {line}" for line in self.unchecked)]
        return "\n".join(said)


def verify(folder: str | Path, rewards: Mapping[str, Any] | None = None) -> Verification:
    """Derive every number of an audit again from its stored texts, rewards and seeds, and name what differs.

    Parameters
    ----------
    folder : str or Path
        What `rk.audit(out=...)`, `rk.card(out=...)` or `Audit.save` left.
    rewards : mapping of str to str, Path or callable, optional
        Reward models to score the stored texts with again: name of the column -> reward. Those that ratekit has
        itself ("words", "vader") are always.

    Returns
    -------
    Verification
        Its `differences` are empty where everything is as it is derived.

    Raises
    ------
    InputError
        There is no audit in the folder.

    Examples
    --------
    >>> import tempfile, ratekit as rk
    >>> place = rk.audit("reviews", "words", "length", n=20, out=tempfile.mkdtemp() + "/a", progress=False).folder
    >>> rk.verify(place).differences
    ()
    """
    folder = Path(folder)
    ds = files.read(folder / on_disk.DATASET) if (folder / on_disk.DATASET).exists() else None
    if ds is None:
        raise InputError(f"{folder} holds no audit: there is no {on_disk.DATASET}/ in it")
    record = on_disk.read_record(folder / on_disk.RECORD)
    found = _Found([], [], [])
    effects = cache(lambda: effects_of(ds, record))  # estimated once, so that what it says is said once
    found.take("records and hashes", lambda: _records(folder, record))
    if record["settings"]:
        found.take("counts", lambda: _counts(ds, record))
        found.take("rows, labels and rewrites", lambda: _rows(ds, record, found.unchecked))
    else:
        found.unchecked.append("counts, rows, labels and rewrites: how these rows were made is not recorded")
    found.take("measures", lambda: _measures(ds))
    found.take("rewards", lambda: _rewards(folder, ds, record, rewards or {}, found.unchecked))
    if (record.get("settings") or {}).get("experiment"):
        found.unchecked.append("effects.csv: an experiment of `ratekit reproduce` has a table of its own")
    else:
        found.take(on_disk.EFFECTS, lambda: _effects(folder, ds, record, effects()))
    if (folder / "rewrites").is_dir():
        found.take(
            "cached replies", lambda: iter(f"rewrites/: {line}" for line in shard_faults(folder / "rewrites")[1])
        )
    if (folder / "card.json").exists() or "suite" in record:
        found.take("card", lambda: _card(folder, Audit(ds, effects(), record)))
    if (folder / REPORT).exists():
        found.take(REPORT, lambda: _report(folder))
    return Verification(tuple(found.differences), tuple(found.checked), tuple(found.unchecked))


@dataclass
class _Found:
    differences: list[str]
    checked: list[str]
    unchecked: list[str]

    def take(self, what: str, differences: Callable[[], Iterator[str]]) -> None:
        """Add these differences; where they cannot be had the data are not what they should be, which is one too."""
        try:
            lines = list(differences())
        except Exception as e:
            lines = [f"{what}: cannot be derived ({type(e).__name__}: {shorten(e, 120)})"]
        more = [f"{what}: {len(lines) - _MOST:,} more"] if len(lines) > _MOST else []
        self.differences += [*lines[:_MOST], *more]
        self.checked += [] if lines else [what]


def _records(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    place = folder / on_disk.DATASET
    own = on_disk.read_record(place / on_disk.ROWS)
    for key in own:
        if record.get(key) != own[key]:
            yield f"{on_disk.RECORD}: {key} {_said(record.get(key))}, {_said(own[key])} in dataset/{on_disk.ROWS}"
    kept = files.read_object(folder / on_disk.RECORD).get(on_disk.HASH)
    if kept != on_disk.hash_of(record):
        yield f"{on_disk.RECORD}: is not as it was written (its hash {'is another' if kept else 'is missing'})"
    hashed = {on_disk.EFFECTS: "effects", on_disk.FIGURE: "figure"}
    for name, key in {on_disk.DATASET: "dataset", **hashed}.items():
        if not (folder / name).exists():
            yield f"{name}: is missing"
        elif record.get(key) != files.fingerprint(folder / name):
            yield f"{name}: is not the one that was written (its hash is another)"


def _counts(ds: Dataset, record: Mapping[str, Any]) -> Iterator[str]:
    for key, value in (("n_rows", len(ds)), ("dropped", dropped(ds))):
        if json.loads(json.dumps(value)) != record.get(key):
            yield f"{on_disk.RECORD}: {key} {_said(record.get(key))}, {_said(value)} derived"


def _rows(ds: Dataset, record: Mapping[str, Any], unchecked: list[str]) -> Iterator[str]:
    settings = Settings.of(record["settings"])
    names = dict.fromkeys(map(str, ds[ATTRIBUTE]))
    asked = [a for a in settings.attributes if "suite" not in record or a in names]
    attributes = suite(asked, settings.rewriter) if "suite" in record else [find_attribute(a, ds) for a in asked]
    if not attributes:
        unchecked.append("rows and labels: they are the data's own")
        return
    data = str(settings.data)
    if data == "reviews" or (data not in SOURCES and Path(data).exists()) or settings.data_files is not None:
        settings = Settings(**{**vars(settings), "attributes": tuple(attributes)})
        now = settings.inputs()
        stale = changed(record.get("inputs") or {}, now)
        yield from (f"{name} has changed since the audit was made" for name in stale)
        if set(now) - set(record.get("inputs") or {}):
            yield f"{on_disk.RECORD}: inputs lack {', '.join(sorted(set(now) - set(record.get('inputs') or {})))}"
        if "data" in stale:
            return
        parts = list(labelled(settings))
    else:
        unchecked.append(f"which rows were drawn: the data ({shorten(data, 60)}) are not here")
        own = [c for c in columns_of(ds) if c not in (ATTRIBUTE, REWRITES) and not c.startswith(REWARD_PREFIX)]
        bare = ds.select_columns([c for c in own if c not in ("treated", "rewrite_status")])
        by = ds[REWRITER] if REWRITER in columns_of(ds) else [""] * len(ds)
        rows_by = list(zip(ds[ATTRIBUTE], by, strict=True))
        depth = max((len(r or []) for r in ds[REWRITES]), default=2)
        from ratekit.stages import label

        parts = []
        for a in attributes:
            for name, rewriter in rewriters_of(settings.rewriter).items():
                rows = bare.select([i for i, of in enumerate(rows_by) if of[0] == a.name and name in ("", of[1])])
                rows = label(rows, a, label_column=settings.label_column, positive=settings.positive)
                parts.append(Labelled(rows, a, rewriter or "rules", settings.depth or depth, some(rows, settings)))
    again = parts
    if any(str(p.rewriter).partition(":")[0] not in ("rules", "replay", "None") for p in parts):
        again = [p._replace(rewriter=None) for p in parts]
        unchecked.append(
            "rewrites by a language model: the texts are its own; `ratekit cache verify` reads the replies"
        )
    derived = rewritten(again, settings.options, progress=False)
    if len(derived) != len(ds):
        yield f"dataset: {len(ds):,} rows, {len(derived):,} derived"
        return
    for column in columns_of(ds):
        if column not in derived.column_names and not column.startswith(_LATER):
            yield f"dataset: the column {column!r} is neither the data's nor a stage's"
    for column in derived.column_names:
        if column not in columns_of(ds):
            yield f"dataset: the column {column!r} is missing"
        elif column != REWRITES or any(p.rewriter is not None for p in again):
            yield from _cells(ds, column, derived[column])


def _measures(ds: Dataset) -> Iterator[str]:
    """The carried measures of attributes that ratekit knows."""
    from ratekit.measures import measured
    from ratekit.rewriting.rules import SUITE

    for name in dict.fromkeys(map(str, ds[ATTRIBUTE])):
        column = MEASURE_PREFIX + name
        if name not in SUITE or column not in columns_of(ds):
            continue
        rows = [i for i, a in enumerate(ds[ATTRIBUTE]) if a == name]
        part = ds.select(rows)
        chains = [[r, *(c or [])] for r, c in zip(part["response"], part[REWRITES], strict=True)]
        measure = SUITE[name].attribute.measure
        assert measure is not None
        values = measured(measure, chains)
        yield from _cells(part, column, [list(v[: len(c)]) for v, c in zip(values, chains, strict=True)], rows)


def _rewards(
    folder: Path, ds: Dataset, record: Mapping[str, Any], given: Mapping[str, Any], unchecked: list[str]
) -> Iterator[str]:
    for name, spec in (record.get("rewards") or {}).items():
        column = REWARD_PREFIX + name
        if column not in columns_of(ds):
            yield f"dataset: the rewards {name!r} are missing"
            continue
        known = given.get(name)
        if known is None and spec in REWARD_MODELS and read_reward(spec).kind == "a function":
            known = spec
        yield from _statuses(ds, name)
        if known is None and (stored := _stored(folder / "scores", ds, name)) is not None:
            yield from stored
            continue
        if known is None:
            unchecked.append(f"rewards {name!r} ({shorten(spec, 60)}): give it to score the texts again")
            continue
        derived = score(ds.remove_columns(column), known, name=name, progress=False)
        yield from _cells(ds, column, derived[column])
    for column in columns_of(ds):
        name = column.removeprefix(REWARD_PREFIX)
        if column.startswith(REWARD_PREFIX) and not any(
            name == n or name.startswith(f"{n}/") for n in record.get("rewards") or {}
        ):
            yield f"dataset: the rewards {name!r} are of no reward in {on_disk.RECORD}"


def _statuses(ds: Dataset, name: str) -> Iterator[str]:
    """A reward stands where its status says that the text was scored, and only there."""
    if REWARD_STATUS_PREFIX + name not in columns_of(ds):
        return
    pairs = zip(ds[REWARD_PREFIX + name], ds[REWARD_STATUS_PREFIX + name], ds[ATTRIBUTE], strict=True)
    for i, (values, statuses, attribute) in enumerate(pairs, 1):
        for k, (value, status) in enumerate(zip(values or [], statuses or [], strict=False)):
            if (value is None) == (status in SCORED):
                yield f"dataset: row {i} ({attribute}): text {k + 1} has the reward {value} and the status {status!r}"


def _stored(folder: Path, ds: Dataset, name: str) -> list[str] | None:
    """What differs between a reward's columns and the scores in a folder; None where it holds none of this reward.

    The scores of one model are the reward's where half of the texts have them. A text without a score is not stored.
    """
    if not folder.is_dir():
        return None
    distinct = distinct_texts(ds)
    own = list(ds[REWARD_PREFIX + name])
    for fingerprint in fingerprints_in(folder):
        kept = ScoreStore(folder, fingerprint).get(as_bytes(distinct.key))
        parts = {name: kept.rewards, **{f"{name}/{part}": values for part, values in kept.parts.items()}}
        stored = {c: as_lists(distinct, v).to_pylist() for c, v in parts.items() if REWARD_PREFIX + c in columns_of(ds)}
        pairs = [(a, b) for x, y in zip(own, stored[name], strict=True) for a, b in zip(x, y, strict=False)]
        if 2 * sum(_same(a, b) for a, b in pairs if b is not None) < max(len(pairs), 1):
            continue
        return [
            f"dataset: row {i + 1} ({attribute}): {REWARD_PREFIX}{c} {_said(x)}, {_said(y)} in {folder.name}/"
            for c, values in stored.items()
            for i, (x, y, attribute) in enumerate(zip(ds[REWARD_PREFIX + c], values, ds[ATTRIBUTE], strict=True))
            if not all(_same(a, b) for a, b, r in zip(x, y, own[i], strict=False) if r is not None or b is not None)
        ]
    return None


def _report(folder: Path) -> Iterator[str]:
    """The page's lines, without its pictures and the line that says when and from where it was made."""

    def lines(page: str) -> list[str]:
        plain = re.sub(r"data:image/[^\"']*", "", page)
        return [line for line in plain.splitlines() if "<dt><bdi>made</bdi></dt>" not in line]

    yield from _lines(REPORT, lines(files.read_text(folder / REPORT)), lines(page_html(gather(folder))))


def _effects(folder: Path, ds: Dataset, record: Mapping[str, Any], derived: pd.DataFrame) -> Iterator[str]:
    import pandas as pd

    if notes_of(ds, derived, record.get("by")) != record.get("notes"):
        yield f"{on_disk.RECORD}: the notes are not those of the estimates"
    kept = files.read_text(folder / on_disk.EFFECTS)
    if kept == (again := as_csv(derived)):
        return
    from io import StringIO

    if kept.count(",", 0, kept.find("\n")) > MAX_COLUMNS:
        yield f"{on_disk.EFFECTS}: it has more than {MAX_COLUMNS:,} columns"
        return
    one, two = (pd.read_csv(StringIO(text), dtype=str, keep_default_na=False) for text in (kept, again))
    if list(one.columns) != list(two.columns):
        yield f"{on_disk.EFFECTS}: its columns are {', '.join(one.columns)}"
    elif len(one) != len(two):
        yield f"{on_disk.EFFECTS}: {len(one)} rows, {len(two)} derived"
    else:
        keys = [c for c in ("attribute", "reward_model", "estimator", "estimand") if c in two]
        for i, (a, b) in enumerate(zip(one.to_dict("records"), two.to_dict("records"), strict=True)):
            for c in two.columns:
                if not _same(a[c], b[c]):
                    where = ", ".join(b[k] for k in keys)
                    yield f"{on_disk.EFFECTS}: row {i + 1} ({where}): {c} {_said(a[c])}, {_said(b[c])} derived"


def _card(folder: Path, audit: Audit) -> Iterator[str]:
    for name, text in Card(audit).texts.items():
        path = folder / f"card.{name}"
        if not path.exists():
            yield f"{path.name}: is missing"
            continue
        yield from _lines(path.name, files.read_text(path).splitlines(), text.splitlines())


def _lines(name: str, kept: list[str], derived: list[str]) -> Iterator[str]:
    if len(kept) != len(derived):
        yield f"{name}: {len(kept)} lines, {len(derived)} derived"
    for i, (a, b) in enumerate(zip(kept, derived, strict=False)):
        if a != b:
            at = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            near = slice(max(0, at - 20), at + 30)
            yield f"{name}: line {i + 1}: {_said(a[near])}, {_said(b[near])} derived"


def _cells(ds: Dataset, column: str, derived: Any, rows: Any = None) -> Iterator[str]:
    """The rows of a column that differ; rewards and measures in their last digits may."""
    for i, (a, b, attribute) in enumerate(zip(ds[column], derived, ds[ATTRIBUTE], strict=True)):
        if not _same(a, b):
            row = (rows[i] if rows is not None else i) + 1
            yield f"dataset: row {row} ({attribute}): {column} {_said(a)}, {_said(b)} derived"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    a, b = (None if isinstance(x, float) and np.isnan(x) else x for x in (a, b))
    try:
        close = a == b or bool(np.isclose(float(a), float(b), rtol=1e-9, atol=0.0))
    except (TypeError, ValueError):
        return bool(a == b)
    return close


def _said(value: Any) -> str:
    return shorten(repr(value), 90)
