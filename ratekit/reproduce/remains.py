"""What a run leaves behind in its folder: effects.csv, figures, run.json, the card, the report."""

from __future__ import annotations

import logging
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import runfolder, runs
from ratekit.errors import InputError
from ratekit.reports import report
from ratekit.reproduce.experiment import Experiment
from ratekit.reproduce.share import write_card
from ratekit.reproduce.sweeps import write_figure
from ratekit.rewriting.prompts import template_hash
from ratekit.schema import REWRITE_STATUS, columns_of, reward_columns, reward_name

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")


def write(
    folder: Path,
    experiment: Experiment,
    settings: runs.Settings,
    ds: Dataset,
    table: pd.DataFrame,
    record: dict[str, Any],
    seconds: float,
) -> list[Path]:
    """effects.csv, figures, run.json, the card, the report; their paths."""
    if experiment.sweep:
        table.to_csv(folder / runfolder.EFFECTS, index=False)
        write_figure(folder / runfolder.FIGURE, table)
    else:
        runfolder.write_table(folder, table)
    record["notes"] = table.attrs.get("notes", [])
    attribute = experiment.attribute
    template = (settings.asked or {}).get("template")
    record["experiment"] = {
        "name": experiment.name, "about": experiment.about, "place": experiment.place, "can_say": experiment.can_say,
        "treated": attribute.treated if attribute else None, "untreated": attribute.untreated if attribute else None,
        "template_hash": template_hash(template) if template else None,
    }  # fmt: skip
    record["git_commit"] = git_commit()
    record["dropped"] = dropped(ds)
    record["seconds"] = round(record.get("seconds", 0.0) + seconds, 1)
    runfolder.write_record(folder, record)
    write_card(folder, experiment, record, ds)
    return [
        *(folder / name for name in (runfolder.DATASET, runfolder.EFFECTS, runfolder.FIGURE, runfolder.RECORD)),
        *_report(folder),
    ]


def _report(folder: Path) -> list[Path]:
    """The page of the run; a run of which there is none to be made (no rewrites at all) is whole without it."""
    try:
        return [report(folder)]
    except InputError as e:
        log.info("%s: no report, since %s", folder, e)
        return []


def dropped(ds: Dataset) -> dict[str, Any]:
    """How each rewrite ended, and how many rewards each model lacks."""
    found: dict[str, Any] = {"rewrites": {}, "rewards": {}}
    columns = columns_of(ds)
    if REWRITE_STATUS in columns:
        found["rewrites"] = dict(Counter(s for row in ds[REWRITE_STATUS] for s in row or ()))
    for column in reward_columns(columns):
        found["rewards"][reward_name(column)] = sum(r is None for row in ds[column] for r in row or (None,))
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this package is in; None where it is in none, or git is not there."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
