"""What a run's folder, or a dataset by itself, has to report; what is missing is said, and is no fault."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import files
from ratekit.audits import folder as on_disk
from ratekit.audits.folder import DATASET, EFFECTS, RECORD
from ratekit.audits.results import Audit, effects_of
from ratekit.errors import InputError, shorten
from ratekit.schema import RESPONSE, REWRITES, columns_of, reward_columns
from ratekit.sources.loading import as_dataset

if TYPE_CHECKING:
    import pandas as pd

AUDIT, AUDIT_PICTURE, AUDIT_RECORD, REWRITING = "audit.csv", "audit.png", "audit.json", "rewriting.json"
NEEDED = ("attribute", "reward_model", "estimator", "estimand", "estimate", "se", "ci_low", "ci_high", "p_value", "n",
          "n_dropped", "reward_sd")  # fmt: skip


@dataclass
class Contents:
    """The parts of a report; a part that is not there is None, and `missing` says why.

    Parameters
    ----------
    ds
        the rows, at whatever stage they are; table: their effects, as `rk.estimate` gives them
    seen
        both as an `Audit`, whose verdicts and checks are shown
    record
        run.json: settings, versions, rewards, rewriting (what it used and cost)
    audit
        audit.csv of a merge, with its picture as PNG bytes
    """

    where: Path
    ds: Any = None
    table: pd.DataFrame | None = None
    seen: Audit | None = None
    record: dict[str, Any] = field(default_factory=dict)
    audit: pd.DataFrame | None = None
    audit_picture: bytes | None = None
    missing: list[str] = field(default_factory=list)


def gather(path: Audit | str | Path | Any) -> Contents:
    """The contents of an audit, of a run's folder or of scored rows.

    Raises
    ------
    InputError
        Where there is nothing to report at all.

    Examples
    --------
    >>> gather("no-such-folder")
    Traceback (most recent call last):
    ratekit.errors.InputError: no such file or folder: no-such-folder
    """
    if not isinstance(path, str | Path):
        path = Audit.of(path)
        return Contents(path.folder or Path("audit"), path.dataset, path.effects, path, path.provenance)
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.is_dir() and not files.is_saved(path):
        found = _folder(path)
    else:
        found = _file(path)
    if found.table is None and found.ds is not None:
        _estimate(found)
    if found.table is not None and found.ds is not None:
        found.seen = Audit(found.ds, found.table, found.record, path)
    if found.table is None and found.audit is None and not _has_texts(found.ds):
        raise InputError(f"{path}: there is nothing to report; {'; '.join(found.missing)}")
    return found


def _file(path: Path) -> Contents:
    """A dataset, or a table of effects by itself."""
    ds = files.read(path)
    if set(NEEDED) <= set(columns_of(ds)):
        found = Contents(path, table=ds.to_pandas())
        found.missing.append("a table of effects by itself has no texts, so there are no checks and no examples")
        return found
    with contextlib.suppress(InputError):  # rows that cannot be read are said to be missing, and the rest is shown
        ds = as_dataset(ds, where=str(path))
    found = Contents(path, ds=ds, record={"dataset": files.fingerprint(path)})
    found.missing.append(f"there is no {RECORD} beside a dataset: how it was made is not recorded here")
    return found


def _has_texts(ds: Any) -> bool:
    return ds is not None and {RESPONSE, REWRITES} <= set(columns_of(ds))


def _folder(path: Path) -> Contents:
    found = Contents(path)
    if not any((path / name).exists() for name in (DATASET, EFFECTS, AUDIT)):
        runs = sorted(p.parent.name for p in path.glob(f"*/{EFFECTS}"))
        hint = f"; runs are in its folders {', '.join(runs[:5])}" if runs else ""
        raise InputError(f"{path} holds no run: there is no {DATASET}/, {EFFECTS} or {AUDIT} in it{hint}")
    files.recover(path / DATASET)
    found.record = _record(path, found)
    if (path / DATASET).exists():
        try:
            found.ds = files.read(path / DATASET)
        except InputError as e:
            found.missing.append(f"the dataset cannot be read ({e}), so there are no checks and no examples")
    elif (path / EFFECTS).exists():
        found.missing.append(f"there is no {DATASET}/, so there are no checks and no examples")
    if found.ds is None:
        found.table = _table(path / EFFECTS, found, NEEDED)
    else:
        found.table = on_disk.read_effects(path, found.record, files.fingerprint(path / DATASET))
        if found.table is None and (path / EFFECTS).exists():
            found.missing.append(f"{EFFECTS} is not of the rows beside it, so the effects were estimated again")
    found.audit = _table(path / AUDIT, found)
    if (path / AUDIT_PICTURE).exists():
        found.audit_picture = (path / AUDIT_PICTURE).read_bytes()
    return found


def _table(path: Path, found: Contents, needed: tuple[str, ...] = ()) -> pd.DataFrame | None:
    import pandas as pd

    if not path.exists():
        return None
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as e:  # pandas' own faults are ValueErrors
        found.missing.append(f"{path.name} cannot be read ({shorten(e, 80)})")
        return None
    lacking = [c for c in needed if c not in table]
    if lacking:
        found.missing.append(f"{path.name} has no column {lacking[0]!r}, so it was not used")
        return None
    return table if len(table) else None


def _record(path: Path, found: Contents) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, inside in ((RECORD, None), (REWRITING, "rewriting"), (AUDIT_RECORD, "audit")):
        if not (path / name).exists():
            continue
        try:
            read = files.read_object(path / name)
        except InputError:
            found.missing.append(f"{name} is not readable, so its part of the record is missing")
            continue
        record |= {inside: read} if inside else read
    if not record:
        found.missing.append(f"there is no {RECORD}: settings, versions and cost of the run are not recorded")
    return record


def _estimate(found: Contents) -> None:
    if not reward_columns(columns_of(found.ds)):
        found.missing.append("nothing is scored yet, so there are no effects: `ratekit score` adds rewards")
        return
    try:
        found.table = effects_of(found.ds, found.record)
    except InputError as e:
        found.missing.append(f"there are no effects: {e}")
