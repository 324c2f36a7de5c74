"""The folder of a run: each file is written beside the old one, which it replaces once it is whole.

It holds `dataset/` (`datasets.load_from_disk` opens it), `effects.csv`, `effects.png` and `run.json` (every setting,
versions, rows dropped).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import __version__
from ratekit.errors import InputError, WorkError, shorten

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

DATASET, EFFECTS, FIGURE, RECORD = "dataset", "effects.csv", "effects.png", "run.json"


def opened(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run in `folder`, or a new one. Raises InputError where the folder holds something else."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; --out takes a folder")
    if not (folder / RECORD).exists():
        if (folder / DATASET).exists():
            raise InputError(f"{folder} holds a dataset that is of no run (no {RECORD}); choose another --out")
        return {"settings": dict(settings), "versions": versions(), "rewards": {}}
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        held = record["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder / RECORD} is not readable; choose another --out") from None
    wanted = json.loads(json.dumps(settings))
    differing = [k for k in wanted if wanted[k] != held.get(k)]
    if differing:
        what = ", ".join(f"{k} {held.get(k)!r} there, {wanted[k]!r} here" for k in differing)
        raise InputError(f"{folder} holds another run ({what}); choose another --out")
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Save run.json; an older one is replaced only once the new one is whole."""
    new = folder / f".{RECORD}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(folder / RECORD)
    except OSError as e:
        raise WorkError(f"{folder} cannot be written: {shorten(e.strerror or e, 80)}") from None


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


def write_dataset(folder: Path, ds: Dataset) -> Path:
    """Save `ds` as `folder`/dataset; an older one is replaced only once the new one is whole."""
    target, new = folder / DATASET, folder / f".{DATASET}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        ds.save_to_disk(str(new))
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    except OSError as e:
        raise WorkError(f"{folder} cannot be written: {shorten(e.strerror or e, 80)}") from None
    return target


def write_table(folder: Path, table: pd.DataFrame) -> list[Path]:
    """Write effects.csv and effects.png into `folder`."""
    from matplotlib.figure import Figure

    from ratekit import plots

    table.to_csv(folder / EFFECTS, index=False)
    unit = "sd" if table["reward_sd"].gt(0).any() else "reward"
    figure = plots.effects(table, unit=unit).figure
    assert isinstance(figure, Figure)
    figure.savefig(folder / FIGURE, dpi=150)
    import matplotlib.pyplot as plt

    plt.close(figure)
    return [folder / EFFECTS, folder / FIGURE]


def write_run(folder: Path, ds: Dataset, table: pd.DataFrame) -> list[Path]:
    """Dataset, table and picture of a run, and their paths."""
    return [write_dataset(folder, ds), *write_table(folder, table)]
