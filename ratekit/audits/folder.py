"""The folder of an audit.

| what | for whom |
|---|---|
| `dataset/` | all rows (`datasets.load_from_disk` opens it); `record.json` in it says how they were made |
| `effects.csv`, `effects.png` | readers: the table and its picture |
| `run.json` | readers: the record, with what came of it (verdicts, counts dropped, notes) |
| `rewrites/`, `scores/` | the caches of replies and of scores |

The record of the rows lies in the dataset's folder and is replaced with it in one step, so neither is ever ahead of the
other. `run.json` and `effects.csv` come after it and are never relied on where they are of other rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import __version__, files
from ratekit.errors import InputError, shorten
from ratekit.estimators import shown_unit
from ratekit.tables import as_csv, unquoted

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")

DATASET, EFFECTS, FIGURE, RECORD, ROWS = "dataset", "effects.csv", "effects.png", "run.json", "record.json"
HASH = "hash"
Record = dict[str, Any]


def opened(folder: Path, settings: Mapping[str, Any]) -> tuple[Record, Dataset | None]:
    """The record and the rows that `folder` holds, or a new record and None.

    Raises
    ------
    InputError
        Where the folder holds something else, or an audit with other settings.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; --out takes a folder")
    files.check_place(folder)
    record, ds = held(folder)
    if record is None:
        if ds is not None:
            raise InputError(f"{folder} holds a dataset that is of no run (no {RECORD}); choose another --out")
        return {"settings": dict(settings), "versions": versions()}, None
    if ds is None and "asked" in record and not (folder / DATASET).exists():
        return {"settings": dict(settings), "versions": versions()}, None  # cut off before it had rows: binds nobody
    refuse_other(folder, settings, record["settings"])
    return record, ds


def refuse_other(folder: Path, settings: Mapping[str, Any], before: Mapping[str, Any], what: str = "run") -> None:
    """Raise InputError where what a folder holds was made with other settings."""
    wanted = json.loads(json.dumps(settings))
    differing = [k for k in {**wanted, **before} if wanted.get(k) != before.get(k)]
    if differing:
        said = ", ".join(f"{k} {_said(before.get(k))} there, {_said(wanted.get(k))} here" for k in differing)
        raise InputError(f"{folder} holds another {what} ({said}); choose another --out")


def held(folder: Path) -> tuple[Record | None, Dataset | None]:
    """The record and the rows of a folder; rows that are not those of the record are left out, which is logged."""
    files.recover(folder / DATASET)
    place = folder / DATASET
    if not place.exists():
        return (read_record(folder / RECORD) if (folder / RECORD).exists() else None), None
    own = (place / ROWS).exists()
    record = read_record(place / ROWS) if own else read_record(folder / RECORD) if (folder / RECORD).exists() else None
    try:
        ds = files.read(place)
    except InputError as e:
        if record is None:
            raise
        log.warning("%s; it is made again", e)
        return record, None
    if record is not None and record.get("dataset") != files.fingerprint(place):
        log.warning("%s is not as it was left: its rows are made again, from the caches where they hold them", place)
        return record, None
    return record, ds


def begin(folder: Path, record: Record, rewards: list[str]) -> None:
    """Leave behind what is to be done, so that an audit that is cut off before it has rows can be gone on from."""
    if not (folder / DATASET).exists():
        write_record(folder, {**record, "asked": rewards})


def clear(folder: Path) -> None:
    """Remove the audit that a folder holds, and leave what else is in it."""
    for name in (RECORD, DATASET, EFFECTS, FIGURE, "report.html"):
        files.discard(folder / name)


def write_dataset(folder: Path, ds: Dataset, record: Record) -> Path:
    """Replace `folder`/dataset by these rows and their record."""

    def write(new: Path) -> None:
        files.write_rows(ds, new)
        record["dataset"] = files.fingerprint(new)
        (new / ROWS).write_text(_json(record), encoding="utf-8")

    return files.replace_folder(folder / DATASET, write)


def write_record(folder: Path, record: Record) -> Path:
    """Replace run.json, which also holds a hash of all else in it."""
    return files.replace_text(folder / RECORD, _json({**record, HASH: hash_of(record)}))


def hash_of(record: Mapping[str, Any]) -> str:
    """Sixteen digits that tell this record from any other; its own hash does not count."""
    plain = json.dumps({k: v for k, v in record.items() if k != HASH}, sort_keys=True, default=str)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write_figure(path: Path, table: pd.DataFrame) -> Path:
    """The forest of effects as a picture."""
    from ratekit import plots

    return write_picture(path, plots.effects(table, unit=shown_unit(table)).figure)


def write_picture(path: Path, figure: Any) -> Path:
    """A figure as PNG, which closes it."""
    import matplotlib.pyplot as plt

    from ratekit.plots.style import saving

    try:
        with saving():
            return files.replace_file(path, lambda new: figure.savefig(new, dpi=150, format="png"))
    finally:
        plt.close(figure)


def write_effects(
    folder: Path,
    table: pd.DataFrame,
    record: Record | None = None,
    draw: Callable[[Path, pd.DataFrame], Path] = write_figure,
) -> list[Path]:
    """Replace effects.csv and effects.png; the record, where there is one, learns of which rows they are."""
    path = files.replace_text(folder / EFFECTS, as_csv(table))
    figure = draw(folder / FIGURE, table)
    if record is not None:
        record["level"] = table.attrs.get("level")
        record["effects"] = files.fingerprint(path)
        record["figure"] = files.fingerprint(figure) if figure.exists() else ""
    return [path, figure]


def read_effects(folder: Path, record: Mapping[str, Any], dataset: str) -> pd.DataFrame | None:
    """effects.csv where it is whole and of the rows with this fingerprint; else None."""
    import pandas as pd

    from ratekit.effects_table import EffectsTable

    path = folder / EFFECTS
    small = path.is_file() and path.stat().st_size <= files.MAX_SMALL
    if not small or record.get("dataset") != dataset or record.get("effects") != files.fingerprint(path):
        return None
    table = EffectsTable(unquoted(pd.read_csv(path, keep_default_na=False, na_values=[""])))
    for column in {"reason", "dose_unit"} & set(table):
        table[column] = table[column].fillna("")
    table.attrs["notes"] = list(record.get("notes") or [])
    if record.get("level"):
        table.attrs["level"] = float(record["level"])
    return table


def versions() -> dict[str, str]:
    """Of Python, ratekit and the packages whose numbers could differ between versions."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "ratekit": __version__}
    for package in ("datasets", "torch", "transformers", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"


def read_record(path: Path) -> Record:
    """The record in a file; InputError where it is none."""
    try:
        record = files.read_object(path)
        record["settings"].get("data")
        record.pop(HASH, None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not readable; choose another --out") from None
    return record


def _said(value: Any) -> str:
    return shorten(", ".join(map(repr, value)) if isinstance(value, list) and value else repr(value), 120)
