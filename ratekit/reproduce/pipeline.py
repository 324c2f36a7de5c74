"""Run a named experiment: every stage in order, each kept as soon as it is done, in a folder that says all.

    finished = run("imdb-length", "runs/imdb-length", n=200, rewriter="rules", rewards=["vader"],
                   data_files=["imdb.jsonl.gz"])

The folder holds dataset/ (with its card), effects.csv, the figures, run.json and report.html. The same call goes on
where it was cut off; `start=` goes on from a finished run, or from rewrites that others shared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import runfolder, runs
from ratekit.attributes import Attribute
from ratekit.errors import InputError
from ratekit.reproduce.experiment import Experiment, classified, get_experiment
from ratekit.reproduce.remains import write
from ratekit.reproduce.sweeps import SIMULATED, simulated, sweep_table, swept
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.chains import rows_of
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter, Plan, Prices
from ratekit.rewriting.stream import plan_chains
from ratekit.schema import ATTRIBUTE, REWRITES, columns_of
from ratekit.scoring import default_name
from ratekit.scoring.base import Reward
from ratekit.simulate import RuleReward
from ratekit.sources.loading import load, sample
from ratekit.stages import estimate, label, rewrite

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

CARRIED = "carried by the data"  # what the attribute of an experiment is called whose data bring theirs


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, experiment and settings, its table, and the files that it wrote."""

    folder: Path
    experiment: Experiment
    settings: runs.Settings
    table: pd.DataFrame
    written: list[Path]


def run(
    name: str,
    out: str | Path | None = None,
    *,
    start: str | Path | None = None,
    n: int | None = None,
    rewriter: str | None = None,
    rewards: Sequence[str | Reward] = (),
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

    >>> run("sweep-typos", "runs/typos", n=200, rewriter="simulated")  # doctest: +SKIP

    out         folder; by default runs/NAME
    start       go on from: the folder of a run, or a dataset with rewrites (a file, a saved dataset, a hub id)
    rewriter    a spec, or "simulated" for a sweep in a world of texts whose truth is known
    rewards     reward models or callables; by default the paper's, in a simulated sweep a reward by rules
    data_files  files in the source's schema instead of the hub
    labeller    the classifier where the labels are from one

    Raises InputError for an unknown name, a folder that holds another run, data of another schema; WorkError where the
    work fails. What was finished stays.
    """
    experiment = get_experiment(name)
    begun = time.monotonic()
    given = {
        "n": n, "rewriter": rewriter, "data_files": [str(f) for f in data_files] or None, "labeller": labeller,
        "depth": depth, "seed": seed, "asked": (options.asked if options else None) or None,
    }  # fmt: skip
    settings, folder, shared = _opened(experiment, out, start, {k: v for k, v in given.items() if v is not None})
    asked = settings_rewards(experiment, settings, folder, rewards)
    options = options or Options()
    if _was_cut_off(folder):  # before it had its rows, so it binds nobody to its settings
        (folder / runfolder.RECORD).unlink()

    def rows(meter: Meter) -> Dataset:
        if shared is not None:
            return shared
        ds, attribute = prepared(experiment, settings)
        _begin(folder, settings, asked)
        if settings.rewriter is None or settings.rewriter == SIMULATED or attribute is None:
            return ds
        return rewrite(
            ds, attribute, settings.rewriter, settings.depth or experiment.depth, meter=meter, progress=progress,
            cache=cache or folder / "rewrites", options=replace(options, **settings.asked or {}),
        )  # fmt: skip

    ds, record = runs.scored(
        folder, settings, asked, rows, meter=meter, again=options.retry_failed, trust_remote_code=trust_remote_code,
        progress=progress,
    )  # fmt: skip
    if experiment.sweep:
        table = sweep_table(
            ds, experiment.sweep, asked, cache=folder / "scores", trust_remote_code=trust_remote_code, progress=progress
        )
    else:
        table = estimate(ds, by="model" if "model" in columns_of(ds) else None)
    written = write(folder, experiment, settings, ds, table, record, time.monotonic() - begun)
    return Finished(folder, experiment, settings, table, written)


# --- what is to be done ----------------------------------------------------------------------------------


def settings_of(experiment: Experiment, given: dict[str, Any]) -> runs.Settings:
    """The experiment's own settings with what was given in their place."""
    attribute = experiment.attribute
    own: dict[str, Any] = {
        "data": experiment.source, "attribute": attribute.name if attribute else CARRIED,
        "rewriter": experiment.rewriter, "n": experiment.n, "experiment": experiment.name,
        "depth": experiment.depth, "labeller": experiment.labeller,
    }  # fmt: skip
    theirs = Options(template=attribute.template if attribute else None)
    if experiment.temperature is not None:
        theirs = replace(theirs, temperature=experiment.temperature)
    asked = {**theirs.asked, **given.get("asked", {})}
    if "rewriter" in given:
        if experiment.rewriter is None:
            raise InputError(
                f"{experiment.name} takes no --rewriter: {experiment.about[0].lower()}{experiment.about[1:]}"
            )
        if given["rewriter"] == SIMULATED and not experiment.sweep:
            raise InputError(f"--rewriter {SIMULATED} is for sweeps; {experiment.name} is of real data")
        if given["rewriter"] == SIMULATED and "data_files" in given:
            raise InputError(f"--rewriter {SIMULATED} makes its texts itself, so it takes no --data-files")
        if given["rewriter"].partition(":")[0] not in ("openai", "batch", "hf"):
            asked = {}  # nobody is asked
        if given["rewriter"] == SIMULATED:
            own.update(data=SIMULATED, depth=3, n=1000)
    if "labeller" in given and experiment.labeller is None:
        raise InputError(f"{experiment.name} takes no --labeller: its labels are in the data")
    return runs.Settings(**{**own, **given, "asked": asked or None})


def settings_rewards(
    experiment: Experiment, settings: runs.Settings, folder: Path, rewards: Sequence[str | Reward]
) -> list[str | Reward]:
    """The rewards asked for, or those that the folder has already, or the experiment's own."""
    if rewards:
        return list(rewards)
    record = _record(folder) if (folder / runfolder.RECORD).exists() else {}
    held = list(record.get("rewards", {}).values()) or record.get("asked")
    if held:
        return [RuleReward() if name == RuleReward.name else name for name in held]
    return [RuleReward()] if settings.rewriter == SIMULATED else list(experiment.rewards)


def _was_cut_off(folder: Path) -> bool:
    """Does the folder hold what `_begin` wrote, and nothing that came of it?"""
    begun = (folder / runfolder.RECORD).exists() and not (folder / runfolder.DATASET).exists()
    return begun and "asked" in _record(folder)


def _begin(folder: Path, settings: runs.Settings, rewards: Sequence[str | Reward]) -> None:
    """Leave behind what is to be done, so that a run that is cut off while it rewrites can be gone on from too."""
    asked = [reward if isinstance(reward, str) else default_name(reward) for reward in rewards]
    record = {"settings": asdict(settings), "versions": runfolder.versions(), "rewards": {}, "asked": asked}
    runfolder.write_record(folder, record)


def _opened(
    experiment: Experiment, out: str | Path | None, start: str | Path | None, given: dict[str, Any]
) -> tuple[runs.Settings, Path, Dataset | None]:
    """Settings and folder of the run, and the rewritten rows where it starts from a dataset that is of no run."""
    folder = Path(out) if out is not None else Path("runs") / experiment.name
    if start is None:
        return settings_of(experiment, given), folder, None
    if (Path(start) / runfolder.RECORD).exists():
        if out is not None and Path(out).resolve() != Path(start).resolve():
            raise InputError(f"--from {start} is a run and goes on in its own folder; leave --out away")
        held = _record(Path(start)).get("settings") or {}
        if held.get("experiment") != experiment.name:
            what = held.get("experiment") or f"`ratekit run` on {held.get('data')}"
            raise InputError(f"{start} holds a run of {what}, not of {experiment.name}")
        known = {f.name for f in fields(runs.Settings)}
        return runs.Settings(**{k: v for k, v in {**held, **given}.items() if k in known}), Path(start), None
    ds = load(start, duplicates="keep", n=given.pop("n", None), seed=given.get("seed") or 0)
    missing = [c for c in (ATTRIBUTE, REWRITES) if c not in columns_of(ds)]
    if missing:
        raise InputError(f"--from {start}: no column {missing[0]!r}; a run, or a dataset with rewrites, was expected")
    if given.keys() - {"seed"}:
        raise InputError(f"--from {start}: its rewrites are made, so {', '.join(sorted(given))} cannot be chosen")
    attribute = ", ".join(sorted(set(ds[ATTRIBUTE])))
    if experiment.attribute is not None and attribute != experiment.attribute.name:
        raise InputError(f"--from {start}: its rows are labelled for {attribute}, not for {experiment.attribute.name}")
    settings = runs.Settings(data=str(start), attribute=attribute, rewriter="replay", experiment=experiment.name)
    return settings, folder, ds


def _record(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / runfolder.RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder / runfolder.RECORD} is not readable; choose another folder") from None
    return found if isinstance(found, dict) else {}


def prepared(experiment: Experiment, settings: runs.Settings) -> tuple[Dataset, Attribute | None]:
    """The labelled rows of the experiment, before any rewriting, and its attribute."""
    if experiment.sweep and settings.rewriter == SIMULATED:
        ds = simulated(experiment.sweep, settings.n or 1000, settings.seed, settings.depth or 3)
        return ds, experiment.attribute
    ds = load(
        settings.data, data_files=settings.data_files, split=settings.split, columns=settings.columns,
        duplicates="keep" if experiment.attribute is None else settings.duplicates,
    )  # fmt: skip
    if experiment.keep is not None:
        kept = [i for i, keep in enumerate(experiment.keep(ds)) if keep]
        if not kept:
            raise InputError(f"{experiment.name}: none of the {len(ds):,} rows is one that it studies")
        ds = ds.select(kept)
    attribute = experiment.attribute
    if attribute is None:
        return (ds if settings.n is None else sample(ds, settings.n, settings.seed)), None
    if settings.labeller is not None:
        attribute = replace(attribute, label=classified(settings.labeller))
    if experiment.sweep:
        return swept(label(ds, attribute), experiment.sweep, settings.n, settings.seed), attribute
    if settings.n is not None:
        ds = sample(ds, settings.n, settings.seed)
    return label(ds, attribute), attribute


def planned(
    name: str,
    out: str | Path | None = None,
    *,
    options: Options | None = None,
    prices: Prices | None = None,
    cache: Path | None = None,
    **given: Any,
) -> Plan:
    """What the rewriting of an experiment would ask an LLM for; makes no request. Raises InputError where none is."""
    experiment = get_experiment(name)
    options = options or Options()
    given["asked"] = options.asked
    settings = settings_of(experiment, {k: v for k, v in given.items() if v is not None})
    if not settings.rewriter or settings.rewriter == SIMULATED:
        raise InputError(f"a dry run is for rewriters that ask an LLM; {name} as it stands makes no call")
    ds, attribute = prepared(experiment, settings)
    assert attribute is not None
    cache = cache or (Path(out) if out else Path("runs") / name) / "rewrites"
    options = replace(options, **settings.asked or {})
    rewriter = make_rewriter(settings.rewriter, attribute, cache=cache, options=options)
    if not isinstance(rewriter, ChatRewriter):
        raise InputError(f"a dry run is for rewriters that ask an LLM; {settings.rewriter!r} makes no call")
    return plan_chains(rewriter, rows_of(ds, rewriter.needs_prompt), settings.depth or experiment.depth, prices)
