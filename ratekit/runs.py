"""A run: every stage in order, each saved as soon as it is done, so that the same call goes on where it was cut off.

Its folder is that of ratekit.runfolder; what it holds already is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import files
from ratekit.attributes import Attribute, find_attribute
from ratekit.errors import InputError
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.chains import rows_of
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter, Plan, Prices
from ratekit.rewriting.rules import RULES
from ratekit.rewriting.stream import plan_chains
from ratekit.runfolder import DATASET, opened, write_dataset, write_record, write_table
from ratekit.schema import ATTRIBUTE, REWARD_PREFIX, REWRITES, TREATED, columns_of
from ratekit.scoring import default_name, find_reward
from ratekit.scoring.base import Reward
from ratekit.sources.loading import load
from ratekit.stages import estimate, label, rewrite, score

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


@dataclass(frozen=True)
class Settings:
    """What decides the rows and rewrites of a run; two runs with equal settings have equal rewrites."""

    data: str
    attribute: str
    data_files: str | list[str] | None = None
    split: str | None = None
    columns: dict[str, str] | None = None
    duplicates: str | None = None
    label_column: str | None = None
    positive: list[str] | None = None
    rewriter: str | None = None
    depth: int | None = None
    n: int | None = None
    seed: int = 0
    asked: dict[str, Any] | None = None  # how the LLM is asked, where that is not the default: `Options.asked`
    experiment: str | None = None  # of ratekit.reproduce; then it says what the rows and labels are
    labeller: str | None = None


def execute(
    folder: Path,
    settings: Settings,
    rewards: Sequence[str],
    *,
    cache: Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Do what is still to be done of a run in `folder` and give its effects table.

    Rewrites and rewards that the folder holds are not made again. Raises InputError where the folder holds another
    run, and what the stages raise; what was finished before stays on disk.
    """

    def rows(meter: Meter) -> Dataset:
        return rewritten(settings, cache=cache or folder / "rewrites", options=options, meter=meter, progress=progress)

    again = options is not None and options.retry_failed
    ds, record = scored(
        folder, settings, rewards, rows, meter=meter, again=again, trust_remote_code=trust_remote_code,
        progress=progress,
    )  # fmt: skip
    table = estimate(ds)
    write_table(folder, table)
    record["notes"] = table.attrs["notes"]
    write_record(folder, record)
    return table


def scored(
    folder: Path,
    settings: Settings,
    rewards: Sequence[str | Reward],
    rows: Callable[[Meter], Dataset],
    *,
    meter: Meter | None = None,
    again: bool = False,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> tuple[Dataset, dict[str, Any]]:
    """The dataset of the run in `folder` with every reward, and its record; what is there already is not made again.

    rows   gives the rewritten dataset; it is asked where the folder has none, or one whose rewriting stopped early
    again  ask it in any case

    Raises InputError where the folder holds another run.
    """
    names = names_of(rewards)
    record = opened(folder, asdict(settings))
    if (folder / DATASET).exists() and not (again or record.get("rewriting", {}).get("stopped")):
        ds = files.read(folder / DATASET)
    else:
        meter = meter or Meter()
        ds = rows(meter)
        record["n_rows"] = len(ds)
        record["rewriting"] = meter.record()
        record["rewards"] = {}
        write_record(folder, record)
        write_dataset(folder, ds)
    for name, reward in zip(names, rewards, strict=True):
        spec = reward if isinstance(reward, str) else name
        if record["rewards"].get(name) == spec and REWARD_PREFIX + name in columns_of(ds):
            continue
        ds = score(
            ds, reward, name=name, cache=folder / "scores", trust_remote_code=trust_remote_code, progress=progress
        )
        write_dataset(folder, ds)
        record["rewards"][name] = spec
        write_record(folder, record)
    return ds, record


def names_of(rewards: Sequence[str | Reward]) -> list[str]:
    """The name of each reward's column; InputError for an unknown reward or a name that two would share.

    >>> names_of(["vader", "words"])
    ['vader', 'words']

    Called before any work is done, so that a misspelt reward is not found after the rewriting.
    """
    names = [default_name(reward) for reward in rewards]
    for reward, name in zip(rewards, names, strict=True):
        if not callable(reward):
            find_reward(reward)
        if names.count(name) > 1:
            raise InputError(f"two rewards are called {name!r}, and one would replace the other; rename a folder")
    return names


def rewritten(
    settings: Settings,
    *,
    cache: Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    progress: bool = True,
) -> Dataset:
    """Load, label (unless the data carry labels for this attribute) and rewrite."""
    ds, attribute, rewriter, depth = prepared(settings)
    return rewrite(ds, attribute, rewriter, depth, cache=cache, options=options, meter=meter, progress=progress)


def planned(
    settings: Settings, *, cache: Path | None = None, options: Options | None = None, prices: Prices | None = None
) -> Plan:
    """What `rewritten` would ask an LLM for; makes no request. Raises InputError for a rewriter that asks none."""
    ds, attribute, spec, depth = prepared(settings)
    rewriter = make_rewriter(spec, attribute, cache=cache, options=options)
    if not isinstance(rewriter, ChatRewriter):
        raise InputError(f"a dry run is for rewriters that ask an LLM; {spec!r} makes no call")
    return plan_chains(rewriter, rows_of(ds, rewriter.needs_prompt), depth, prices)


def prepared(settings: Settings) -> tuple[Dataset, Attribute, str, int]:
    """The labelled rows of a run, its attribute, its rewriter's spec and its depth."""
    attribute = find_attribute(settings.attribute)
    ds = load(
        settings.data, attribute=attribute, data_files=settings.data_files, split=settings.split,
        columns=settings.columns, duplicates=settings.duplicates, n=settings.n, seed=settings.seed,
    )  # fmt: skip
    have = columns_of(ds)
    if TREATED in have and ATTRIBUTE not in have:
        ds = ds.add_column(ATTRIBUTE, [attribute.name] * len(ds))
    named = settings.label_column is not None or settings.positive is not None
    if named or TREATED not in have or any(a != attribute.name for a in ds[ATTRIBUTE]):
        ds = label(ds, attribute, label_column=settings.label_column, positive=settings.positive)
    rewriter = settings.rewriter or _default_rewriter(ds, attribute.name)
    depth = settings.depth
    if depth is None:
        depth = max((len(r or []) for r in ds[REWRITES]), default=2) if rewriter == "replay" else 2
    return ds, attribute, rewriter, depth


def _default_rewriter(ds: Dataset, attribute: str) -> str:
    if REWRITES in columns_of(ds):
        return "replay"
    if attribute in RULES:
        return "rules"
    raise InputError(
        f"which rewriter? The data carry no rewrites and there are no rules for {attribute!r}; "
        "give --rewriter openai:MODEL or replay:PATH"
    )
