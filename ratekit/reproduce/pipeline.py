"""Run a named experiment: an audit with the paper's settings, in a folder that says all.

    finished = run("imdb-length", "runs/imdb-length", n=200, rewriter="rules", rewards=["vader"],
                   data_files=["imdb.jsonl.gz"])

The folder is that of an audit, with the dataset's card and report.html. The same call goes on where it was cut off;
`start=` goes on from a finished run, or from rewrites that others shared.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.audits import folder as on_disk
from ratekit.audits.results import Audit
from ratekit.audits.study import Labelled, Settings, carry_out, rewritten
from ratekit.audits.study import planned as plans_of
from ratekit.errors import InputError
from ratekit.reports import report
from ratekit.reproduce.experiment import Experiment, classified, get_experiment
from ratekit.reproduce.share import write_card
from ratekit.reproduce.sweeps import SIMULATED, simulated, sweep_table, swept, write_sweep_figure
from ratekit.rewriting import Options
from ratekit.rewriting.cost import CostPlan, Meter, Prices
from ratekit.rewriting.prompts import template_hash
from ratekit.schema import ATTRIBUTE, REWRITES, columns_of
from ratekit.scoring import RewardLike
from ratekit.simulate import RuleReward
from ratekit.sources.loading import load, sample
from ratekit.stages import label

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")


@dataclass(frozen=True)
class Finished:
    """A finished experiment: what it is, its settings, its audit, and the files that it wrote."""

    experiment: Experiment
    settings: Settings
    audit: Audit
    written: list[Path]

    @property
    def table(self) -> pd.DataFrame:
        """The effects table."""
        return self.audit.effects

    @property
    def folder(self) -> Path:
        """Where it is on disk."""
        assert self.audit.folder is not None
        return self.audit.folder


def run(
    name: str,
    out: str | Path | None = None,
    *,
    start: str | Path | None = None,
    n: int | None = None,
    rewriter: str | None = None,
    rewards: Sequence[RewardLike] = (),
    data_files: Sequence[str | Path] = (),
    labeller: str | None = None,
    depth: int | None = None,
    seed: int | None = None,
    cache: Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Finished:
    """Run the experiment `name` in the folder `out`, with the paper's settings where nothing else is said.

    Parameters
    ----------
    name : str
        Of `rk.reproduce.experiments()`.
    out : str or Path, optional
        The folder; by default runs/NAME.
    start : str or Path, optional
        Go on from the folder of a run, or from a dataset with rewrites (a file, a saved dataset, a hub id).
    rewriter : str, optional
        A spec, or "simulated" for a sweep in a world of texts whose truth is known.
    rewards : sequence
        Reward models or callables; by default the paper's, in a simulated sweep a reward by rules.
    data_files : sequence of path
        Files in the source's schema instead of the hub.
    labeller : str, optional
        The classifier where the labels are from one.
    options : Options, optional
        How an LLM is asked; the template and the temperature are the paper's where nothing is said.

    Returns
    -------
    Finished
        Its `audit` is what `rk.audit` gives.

    Raises
    ------
    InputError
        For an unknown name, a folder that holds another run, data of another schema.
    WorkError
        Where the work fails. What was finished stays.

    Examples
    --------
    >>> run("sweep-typos", "runs/typos", n=200, rewriter="simulated")  # doctest: +SKIP
    """
    experiment = get_experiment(name)
    given = {
        "n": n, "rewriter": rewriter, "data_files": [str(f) for f in data_files] or None, "labeller": labeller,
        "depth": depth, "seed": seed,
    }  # fmt: skip
    settings, folder, shared = _opened(
        experiment, out, start, {k: v for k, v in given.items() if v is not None}, options or Options()
    )
    asked = settings_rewards(experiment, settings, folder, rewards)

    def rows(meter: Meter) -> Dataset:
        if shared is not None:
            return shared
        part, replies = prepared(experiment, settings), cache or folder / "rewrites"
        return rewritten([part], settings.options, cache=replies, meter=meter, progress=progress)

    def stepwise(ds: Dataset) -> pd.DataFrame:
        assert experiment.sweep is not None
        return sweep_table(
            ds, experiment.sweep, asked, cache=folder / "scores", trust_remote_code=trust_remote_code, progress=progress
        )

    audit = carry_out(
        folder, settings, asked, rows, table=stepwise if experiment.sweep else None,
        by="step" if experiment.sweep else "model",
        draw=write_sweep_figure if experiment.sweep else on_disk.write_figure,
        about={"experiment": _about(experiment, settings), "git_commit": git_commit()}, meter=meter,
        trust_remote_code=trust_remote_code, progress=progress,
    )  # fmt: skip
    write_card(folder, experiment, audit.provenance, audit.dataset)
    written = [folder / n for n in (on_disk.DATASET, on_disk.EFFECTS, on_disk.FIGURE, on_disk.RECORD)]
    return Finished(experiment, settings, audit, [*written, *_report(folder)])


def _about(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    attribute, template = experiment.attribute, settings.options.template
    return {
        "name": experiment.name, "about": experiment.about, "place": experiment.place, "can_say": experiment.can_say,
        "treated": attribute.treated if attribute else None, "untreated": attribute.untreated if attribute else None,
        "template_hash": template_hash(template) if template else None,
    }  # fmt: skip


def _report(folder: Path) -> list[Path]:
    """The page of the run; a run of which there is none to be made (no rewrites at all) is whole without it."""
    try:
        return [report(folder)]
    except InputError as e:
        log.info("%s: no report, since %s", folder, e)
        return []


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


# --- what is to be done ----------------------------------------------------------------------------------


def settings_of(experiment: Experiment, given: dict[str, Any], options: Options | None = None) -> Settings:
    """The experiment's own settings with what was given in their place."""
    attribute, options = experiment.attribute, options or Options()
    own: dict[str, Any] = {
        "data": experiment.source, "attributes": (attribute,) if attribute else (), "rewriter": experiment.rewriter,
        "n": experiment.n, "experiment": experiment.name, "depth": experiment.depth, "labeller": experiment.labeller,
    }  # fmt: skip
    asks = True
    if "rewriter" in given:
        if experiment.rewriter is None:
            raise InputError(
                f"{experiment.name} takes no --rewriter: {experiment.about[0].lower()}{experiment.about[1:]}"
            )
        if given["rewriter"] == SIMULATED and not experiment.sweep:
            raise InputError(f"--rewriter {SIMULATED} is for sweeps; {experiment.name} is of real data")
        if given["rewriter"] == SIMULATED and "data_files" in given:
            raise InputError(f"--rewriter {SIMULATED} makes its texts itself, so it takes no --data-files")
        asks = given["rewriter"].partition(":")[0] in ("openai", "batch", "hf")  # else nothing is sampled
        if given["rewriter"] == SIMULATED:
            own.update(data=SIMULATED, depth=3, n=1000)
    if "labeller" in given and experiment.labeller is None:
        raise InputError(f"{experiment.name} takes no --labeller: its labels are in the data")
    if asks:
        theirs = Options(template=attribute.template if attribute else None)
        if experiment.temperature is not None:
            theirs = replace(theirs, temperature=experiment.temperature)
        options = replace(options, **{**theirs.asked, **options.asked})
    return Settings(**{**own, **given}, options=options)


def settings_rewards(
    experiment: Experiment, settings: Settings, folder: Path, rewards: Sequence[RewardLike]
) -> list[RewardLike]:
    """The rewards asked for, or those that the folder has already, or the experiment's own."""
    if rewards:
        return list(rewards)
    record, _ = on_disk.held(folder)
    held = record and (list(record.get("reward_prints", {})) or record.get("asked"))
    if record and held:
        specs = [record.get("rewards", {}).get(name, name) for name in held]
        return [RuleReward() if name == RuleReward.name else name for name in specs]
    return [RuleReward()] if settings.rewriter == SIMULATED else list(experiment.rewards)


def _opened(
    experiment: Experiment, out: str | Path | None, start: str | Path | None, given: dict[str, Any], options: Options
) -> tuple[Settings, Path, Dataset | None]:
    """Settings and folder of the run, and the rewritten rows where it starts from a dataset that is of no run."""
    folder = Path(out) if out is not None else Path("runs") / experiment.name
    if start is None:
        return settings_of(experiment, given, options), folder, None
    if (Path(start) / on_disk.RECORD).exists():
        if out is not None and Path(out).resolve() != Path(start).resolve():
            raise InputError(f"--from {start} is a run and goes on in its own folder; leave --out away")
        record, _ = on_disk.held(Path(start))
        held = (record or {}).get("settings") or {}
        if held.get("experiment") != experiment.name:
            what = held.get("experiment") or f"`ratekit audit` on {held.get('data')}"
            raise InputError(f"{start} holds a run of {what}, not of {experiment.name}")
        before = Settings.of(held)
        attributes = (experiment.attribute,) if experiment.attribute else ()
        options = replace(options, **{**before.options.asked, **options.asked})
        return replace(before, **given, attributes=attributes, options=options), Path(start), None
    ds = load(start, duplicates="keep", n=given.pop("n", None), seed=given.get("seed") or 0)
    missing = [c for c in (ATTRIBUTE, REWRITES) if c not in columns_of(ds)]
    if missing:
        raise InputError(f"--from {start}: no column {missing[0]!r}; a run, or a dataset with rewrites, was expected")
    if given.keys() - {"seed"}:
        raise InputError(f"--from {start}: its rewrites are made, so {', '.join(sorted(given))} cannot be chosen")
    attribute = ", ".join(sorted(set(ds[ATTRIBUTE])))
    if experiment.attribute is not None and attribute != experiment.attribute.name:
        raise InputError(f"--from {start}: its rows are labelled for {attribute}, not for {experiment.attribute.name}")
    attributes = (experiment.attribute,) if experiment.attribute else ()
    return Settings(str(start), attributes, rewriter="replay", experiment=experiment.name), folder, ds


def prepared(experiment: Experiment, settings: Settings) -> Labelled:
    """The labelled rows of the experiment, before any rewriting, and how they are rewritten."""
    attribute, depth = experiment.attribute, settings.depth or experiment.depth
    if experiment.sweep and settings.rewriter == SIMULATED:
        assert attribute is not None
        ds = simulated(experiment.sweep, settings.n or 1000, settings.seed, settings.depth or 3)
        return Labelled(ds, attribute, None, depth)
    ds = load(
        settings.data, data_files=settings.data_files, split=settings.split, columns=settings.columns,
        duplicates="keep" if attribute is None else settings.duplicates,
    )  # fmt: skip
    if experiment.keep is not None:
        kept = [i for i, keep in enumerate(experiment.keep(ds)) if keep]
        if not kept:
            raise InputError(f"{experiment.name}: none of the {len(ds):,} rows is one that it studies")
        ds = ds.select(kept)
    if attribute is None:
        ds = ds if settings.n is None else sample(ds, settings.n, settings.seed)
        return Labelled(ds, None, None, depth)
    if settings.labeller is not None:
        attribute = replace(attribute, label=classified(settings.labeller))
    if experiment.sweep:
        ds = swept(label(ds, attribute), experiment.sweep, settings.n, settings.seed)
    else:
        ds = label(ds if settings.n is None else sample(ds, settings.n, settings.seed), attribute)
    return Labelled(ds, attribute, settings.rewriter, depth)


def planned(
    name: str,
    out: str | Path | None = None,
    *,
    options: Options | None = None,
    prices: Prices | None = None,
    cache: Path | None = None,
    **given: Any,
) -> CostPlan:
    """What the rewriting of an experiment would ask an LLM for; makes no request. Raises InputError where none is."""
    experiment = get_experiment(name)
    settings = settings_of(experiment, {k: v for k, v in given.items() if v is not None}, options)
    if not settings.rewriter or settings.rewriter == SIMULATED:
        raise InputError(f"a dry run is for rewriters that ask an LLM; {name} as it stands makes no call")
    cache = cache or (Path(out) if out else Path("runs") / name) / "rewrites"
    return next(iter(plans_of([prepared(experiment, settings)], settings.options, cache=cache, prices=prices).values()))
