"""`Audit`: what was found, as one object that every surface shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit import files
from ratekit.audits import folder as on_disk
from ratekit.audits.screen import as_screen, screen_html
from ratekit.conclusions import Verdict, levels_of, unchecked
from ratekit.diagnostics.diagnose import examine
from ratekit.diagnostics.rewriters import across_rewriters, disagreement
from ratekit.errors import InputError
from ratekit.estimators import shown_unit
from ratekit.intervals import LEVEL
from ratekit.measures import Looked, Measure
from ratekit.schema import ATTRIBUTE, NEEDED_BY, REWRITE_STATUS, REWRITER, columns_of, grouping, reward_models
from ratekit.sources.loading import as_dataset
from ratekit.stages import estimate

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from matplotlib.axes import Axes

log = logging.getLogger("ratekit")

CARRIED = "carried by the data"  # of a reward that nothing here has scored
CHECKED_ROWS = 1000  # of each attribute: measuring texts takes some milliseconds each


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """An audit: rows, effects, verdicts, and where they come from.

    Attributes
    ----------
    dataset : Dataset
        All rows, with their rewrites and rewards.
    effects : DataFrame
        The effects table, as `rk.estimate` gives it.
    provenance : dict
        Settings, versions, seeds, models, fingerprints of the data, what the rewriting used and cost, counts dropped.
    folder : Path or None
        Where it is on disk.
    looked : Looked
        What was measured of the texts so far.

    Examples
    --------
    >>> import ratekit as rk
    >>> found = rk.audit("reviews", "words", "length", progress=False)
    >>> found.verdicts[0].word in ("trust", "trust with care", "do not trust", "cannot tell")
    True
    """

    dataset: Dataset
    effects: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    looked: Looked = field(default_factory=Looked)

    @property
    def verdicts(self) -> list[Verdict]:
        """One record per attribute and reward model: the estimate to read first, and whether to trust it.

        Texts are measured in at most 1,000 rows of each attribute, drawn at random but always alike; the estimates are
        those of all rows. Without rewrites there is nothing to check, and each verdict is "cannot tell".
        """
        return self._examined[1]

    @property
    def checks(self) -> pd.DataFrame | None:
        """What `rk.diagnose` says of the same texts, or None where there are no rewrites that can be checked."""
        return self._examined[0]

    @cached_property
    def _examined(self) -> tuple[pd.DataFrame | None, list[Verdict]]:
        if set(NEEDED_BY["diagnose"]) <= set(columns_of(self.dataset)):
            try:
                return examine(self.checked, self.effects, by=self.groups, looked=self.looked)
            except InputError as e:
                log.info("the rewrites cannot be checked: %s", e)
        return None, list(unchecked(self.effects))

    def at_level(self, level: float) -> Audit:
        """The audit whose intervals have this level: itself, or its rows estimated again.

        An interval in SDs is no t interval: its arms bend with the level (`estimators.in_sds`), so it is not rescaled.
        """
        if set(levels_of(self.effects)) <= {level}:
            return self
        record = {**self.provenance, "by": self.groups or None, "level": level}
        return Audit(self.dataset, effects_of(self.dataset, record), record, self.folder, self.looked)

    @property
    def groups(self) -> list[str]:
        """The columns that the effects are grouped by, each group by itself."""
        return [c for c in grouping(self.effects) if c in columns_of(self.dataset)]

    @property
    def across_rewriters(self) -> pd.DataFrame | None:
        """`rk.across_rewriters` of the rows; None where one rewriter rewrote them.

        Raises
        ------
        InputError
            Under two rewriters have a second rewrite with its reward.
        """
        return across_rewriters(self.dataset) if REWRITER in self.groups else None

    @cached_property
    def checked(self) -> Dataset:
        """The rows whose texts are looked at closely: all, or a random part that is always the same."""
        return checked_rows(self.dataset, self.provenance)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the report, one HTML page that needs no network, and give its path.

        Parameters
        ----------
        path : str or Path, optional
            The file, or a folder for report.html; by default in the audit's folder, or here.

        Raises
        ------
        WorkError
            The page cannot be written.
        """
        from ratekit import report

        return report(self, path)

    def plot(self, **how: Any) -> Axes:
        """The forest of effects; `how` is that of `rk.plots.effects` (estimators, estimand, unit, ax)."""
        from ratekit import plots

        return plots.effects(self.effects, **{"unit": shown_unit(self.effects), **how})

    def to_hub(self, model: str, repo: str, benchmark: str, *, dry_run: bool = True) -> dict[str, str]:
        """Say, or open a pull request with, what a model's repository on the hub should hold of this audit.

        Parameters
        ----------
        model : str
            The reward model, as the audit calls it.
        repo : str
            Its repository.
        benchmark : str
            The hub id of the dataset that the results are listed under.
        dry_run : bool
            Only say it; nothing is sent.

        Returns
        -------
        dict of str to str
            Path in the repository -> text: `.eval_results/ratekit.yaml`, and README.md, a section of the card.

        Raises
        ------
        InputError
            No such model; no effect that could be read.
        WorkError
            The hub refuses.
        """
        from ratekit.audits.hub import result_files, upload

        texts = result_files(self.verdicts, model, benchmark)
        if not dry_run:
            log.info("pull request: %s", upload(texts, repo))
        return texts

    def save(self, folder: str | Path) -> Path:
        """Write dataset/, effects.csv, effects.png and run.json into a folder, and give it.

        Raises
        ------
        InputError
            The folder holds another audit.
        WorkError
            It cannot be written.
        """
        folder = Path(folder)
        record = self.provenance
        by = record.setdefault("by", self.groups or None)
        made = {"settings": {}, "rewards": dict.fromkeys(reward_models(self.dataset), CARRIED)}
        for key, value in {**made, "notes": notes_of(self.dataset, self.effects, by)}.items():
            record.setdefault(key, value)
        if folder != self.folder and (folder / on_disk.DATASET).exists():
            on_disk.opened(folder, record.get("settings") or {})
        on_disk.write_dataset(folder, self.dataset, record)
        on_disk.write_effects(folder, self.effects, record)
        on_disk.write_record(folder, record)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Audit:
        """The audit in a folder, or of scored rows: a saved dataset or a file.

        Parameters
        ----------
        path : str or Path
            What `save`, `rk.audit(out=...)` or ``ratekit audit`` left, or scored rows.

        Returns
        -------
        Audit
            Its effects are read where they are of these rows, and else estimated again, which is logged.

        Raises
        ------
        InputError
            There is no such folder, or nothing in it can be estimated.
        """
        path = Path(path)
        record, ds, dataset = None, None, ""
        if path.is_dir() and not files.is_saved(path):
            record, ds = on_disk.held(path)
            if ds is None:
                raise InputError(f"{path} holds no audit: there is no readable {on_disk.DATASET}/ in it")
            dataset = str((record or {}).get("dataset", ""))
        if ds is None:
            return cls(ds := files.read(path), estimate(ds))
        said = _record(path) or record or {}
        table = on_disk.read_effects(path, said, dataset)
        if table is None:
            if (path / on_disk.EFFECTS).exists():
                log.warning("%s is not of the rows beside it; the effects are estimated again", path / on_disk.EFFECTS)
            said, table = {**(record or {})}, effects_of(ds, said)
        return cls(ds, table, {**said}, path)

    @classmethod
    def of(cls, audit: Audit | str | Path | Any) -> Audit:
        """The audit itself, the one at a path, or the one that scored rows make.

        Raises
        ------
        InputError
            As `load` and `rk.estimate`.
        """
        if isinstance(audit, Audit):
            return audit
        if isinstance(audit, str | Path):
            return cls.load(audit)
        return cls(ds := as_dataset(audit), estimate(ds))

    def __repr__(self) -> str:
        return as_screen(self)

    def _repr_html_(self) -> str:
        return screen_html(self)


def effects_of(ds: Any, record: Mapping[str, Any], measures: Mapping[str, Measure] | None = None) -> pd.DataFrame:
    """`rk.estimate` of an audit's rows, as its record says: grouped how, of which sample, and at which level."""
    how = {"by": record.get("by"), "sample": record.get("sample", "complete"), "level": record.get("level") or LEVEL}
    return estimate(ds, measures=measures, **how)


def notes_of(ds: Dataset, effects: pd.DataFrame, by: Any) -> list[str]:
    """What the record says beside the effects: how far several rewriters disagree, and what was left out."""
    return [*(disagreement(ds) if by == REWRITER else []), *effects.attrs.get("notes", [])]


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        return on_disk.read_record(folder / on_disk.RECORD)
    except InputError:
        return None


def checked_rows(ds: Any, record: Mapping[str, Any]) -> Any:
    """At most `CHECKED_ROWS` rows of each attribute, drawn at random but always alike; of two phases the rewritten."""
    if record.get("sample") == "two-phase":  # a row that was not to be rewritten is no failure
        ds = ds.select([i for i, statuses in enumerate(ds[REWRITE_STATUS]) if statuses])
    names = np.asarray(ds[ATTRIBUTE], dtype=object)
    rng = np.random.default_rng(0)
    kept = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    kept = [rows if len(rows) <= CHECKED_ROWS else rng.choice(rows, CHECKED_ROWS, replace=False) for rows in kept]
    rows = np.sort(np.concatenate(kept))
    return ds if len(rows) == len(ds) else ds.select(rows)
