"""`audit`: every stage in order, each kept as soon as it is done; the same call goes on where it was cut off."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.attributes import find_attribute
from ratekit.audits import folder as on_disk
from ratekit.audits.inputs import attribute_print, changed, data_print, reward_print, rewriter_print
from ratekit.audits.results import CARRIED, Audit, checked_rows, effects_of, notes_of
from ratekit.augmentation import LEAST
from ratekit.columns import check_name
from ratekit.errors import InputError, require_whole
from ratekit.labellers import Attribute
from ratekit.measures import Looked
from ratekit.redaction import redact
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.chains import rows_of
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import CostPlan, Meter, Prices
from ratekit.rewriting.rules import RULES
from ratekit.rewriting.stream import plan_chains
from ratekit.schema import (
    ATTRIBUTE,
    NEEDED_BY,
    PROMPT_ID,
    REWARD_PREFIX,
    REWRITE_STATUS,
    REWRITER,
    REWRITES,
    TREATED,
    columns_of,
    reward_columns,
    reward_models,
    reward_name,
)
from ratekit.scoring import RewardLike, read_rewards
from ratekit.sources.labels import flattened, with_description, without
from ratekit.sources.loading import load, sample
from ratekit.stages import label, own_measures, rewrite, score

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")


@dataclass(frozen=True)
class Settings:
    """What decides the rows and rewrites of an audit; two audits with equal settings have equal rewrites.

    Attributes
    ----------
    data : Any
        A name, a path, a hub id, or rows in memory.
    attributes : sequence of str or Attribute
        What is varied; () for what the data carry.
    rewriter : str, callable, sequence or mapping, optional
        A spec, or a rewriter, or several; by default the rewrites that the data carry, else rules.
    options : Options
        How an LLM is asked.
    experiment, labeller : str, optional
        Of `ratekit.reproduce`; then it says what the rows and labels are.
    two_phase : int, optional
        How many of the rows of each attribute are rewritten; by default all.
    """

    data: Any
    attributes: Sequence[str | Attribute] = ()
    data_files: Any = None
    split: str | None = None
    columns: Mapping[str, str] | None = None
    duplicates: str | None = None
    label_column: str | None = None
    positive: Sequence[str] | None = None
    rewriter: Any = None
    depth: int | None = None
    n: int | None = None
    seed: int = 0
    options: Options = field(default_factory=Options)
    experiment: str | None = None
    labeller: str | None = None
    turn: int | None = None
    two_phase: int | None = None

    def __post_init__(self) -> None:
        require_whole("seed", self.seed)
        for name in ("n", "depth", "two_phase"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), 1)

    def record(self) -> dict[str, Any]:
        """The settings as JSON can hold them; what is in memory by what it is."""
        paths = [self.data_files] if isinstance(self.data_files, str | Path) else self.data_files
        held = f"rows in memory ({type(self.data).__name__})"
        asked = {_recorded(name): value for name, value in self.options.asked.items()}
        asked |= {"judged": True} if self.options.judged else {}
        asked |= {name: value for name in ("turn", "two_phase") if (value := getattr(self, name)) is not None}
        return {
            "data": str(self.data) if isinstance(self.data, str | Path) else held,
            "attributes": [a.name if isinstance(a, Attribute) else a for a in self.attributes],
            "data_files": None if paths is None else [str(path) for path in paths],
            "split": self.split, "columns": dict(self.columns) if self.columns else None,
            "duplicates": self.duplicates, "label_column": self.label_column,
            "positive": list(self.positive) if self.positive else None,
            "rewriter": _spec(self.rewriter), "depth": self.depth, "n": self.n,
            "seed": self.seed, "experiment": self.experiment, "labeller": self.labeller,
            **asked,
        }  # fmt: skip

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Settings:
        """The settings that `record` said, as names."""
        own = {f.name: record[f.name] for f in fields(cls) if f.name in record and f.name != "options"}
        asked = {f.name: record[_recorded(f.name)] for f in fields(Options) if _recorded(f.name) in record}
        return cls(**own, options=Options(**asked))

    def inputs(self) -> dict[str, str]:
        """The fingerprint of everything that the rows and rewrites depend on."""
        attributes = [find_attribute(a) for a in self.attributes]
        labeller = {} if self.labeller is None else {"labeller": rewriter_print(f"hf:{self.labeller}")}
        rewriters = {f"rewriter {name}" if name else "rewriter": r for name, r in rewriters_of(self.rewriter).items()}
        return {
            "data": data_print(self.data, self.data_files, self.split), **labeller,
            **{name: rewriter_print(r) for name, r in rewriters.items()},
            **{f"attribute {a.name}": attribute_print(a) for a in attributes},
        }  # fmt: skip


def _recorded(option: str) -> str:
    """The name of an option among the settings, which have a seed of their own."""
    return "llm_seed" if option == "seed" else option


def _spec(rewriter: Any) -> Any:
    if isinstance(rewriter, Mapping):
        return {str(name): _spec(one) for name, one in rewriter.items()}
    if isinstance(rewriter, list | tuple):
        return [_spec(one) for one in rewriter]
    return None if rewriter is None else redact(getattr(rewriter, "__name__", rewriter))


def rewriters_of(rewriter: Any) -> dict[str, Any]:
    """Several rewriters by their names; one alone has the name "".

    Raises
    ------
    InputError
        For an empty list, and for two of one name.

    Examples
    --------
    >>> rewriters_of("rules"), list(rewriters_of(["rules", "rules:mend=0.5"]))
    ({'': 'rules'}, ['rules', 'rules:mend=0.5'])
    """
    if isinstance(rewriter, Mapping):
        found = {str(name): one for name, one in rewriter.items()}
    elif isinstance(rewriter, list | tuple):
        names = [str(_spec(one)) for one in rewriter]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two rewriters are called {twice!r}; name them, as in rewriter={{'a': ..., 'b': ...}}")
        found = dict(zip(names, rewriter, strict=True))
    else:
        return {"": rewriter}
    for name in found:
        check_name(name, "the rewriter's name")
    if not found or "" in found:
        raise InputError("rewriter: a rewriter, or several with a name each, was expected")
    return found


def audit(
    data: Any,
    rewards: RewardLike | Sequence[RewardLike] | Mapping[str, RewardLike] = (),
    attributes: str | Attribute | Sequence[str | Attribute] = (),
    *,
    rewriter: Any = None,
    depth: int | None = None,
    n: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    data_files: str | Path | Sequence[str | Path] | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    duplicates: str | None = None,
    turn: int | None = None,
    label_column: str | None = None,
    positive: Sequence[str] | None = None,
    two_phase: int | None = None,
    cache: str | Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Audit:
    """What do these rewards reward? Load, label, rewrite twice, score, estimate and check, in one call.

    Parameters
    ----------
    data : Any
        Prompts and responses: a DataFrame, a Dataset, a list of dicts, a path, a hub id, "reviews", a name in
        `rk.SOURCES`. What has rewrites or rewards keeps them.
    rewards : str, Path, callable, sequence or mapping
        One or several: "vader", a model folder, a hub id, a callable; a mapping gives names. () for those that the data
        carry.
    attributes : str, Attribute or sequence
        What is varied. () for what the data carry.
    rewriter : str, callable, sequence or mapping, optional
        "rules", "openai:MODEL", "hf:MODEL", ...; by default the rewrites that the data carry, else rules. Several (a
        list, or a mapping of names) each rewrite every row: the rows have a column `rewriter`, every rewriter an effect
        and a verdict of its own, and `.across_rewriters` the effect with the rewriter as a random effect.
    depth : int, optional
        Rewrites in a chain: 2 is RATE, 3 adds the drift test. By default 2, or what the data carry.
    n, seed : int
        A random sample of `n` rows; whole prompts are drawn.
    out : str or Path, optional
        A folder in which each stage is kept as soon as it is done; the same call goes on where it was cut off. Where an
        input has changed since (a file, a model's weights, a function's code), what came of it is made again, and that
        is logged.
    data_files, split, columns, duplicates, label_column, positive, turn
        As in `rk.load`.
    two_phase : int, optional
        Rewrite so many of the `n` rows of each attribute, drawn by whole prompts, and use the originals of all:
        `rk.estimate(sample="two-phase")`. Under 20 rewritten rows of a class there is no estimate; `rk.plan` says what
        it saves.
    cache : str or Path, optional
        Folder of an LLM's replies; by default in `out`, else the user's.
    options : Options, optional
        How an LLM is asked.
    meter : Meter, optional
        Counts what is used, and holds the budget.

    Returns
    -------
    Audit
        The rows, the effects table, a verdict for each attribute and reward, and where they come from.

    Raises
    ------
    InputError
        For a wrong call or data that cannot be read; before any work where that can be known.
    WorkError
        Where the work fails; what was finished is in `out` and in the caches.

    Examples
    --------
    >>> import pandas as pd, ratekit as rk
    >>> texts = rk.load("reviews", attribute="length")["response"]
    >>> df = pd.DataFrame({"prompt": [f"Review {i}" for i in range(len(texts))], "response": texts})
    >>> found = rk.audit(df, "vader", "length", rewriter="rules", progress=False)
    >>> [(v.attribute, v.reward_model) for v in found.verdicts]
    [('length', 'vader')]
    """
    settings = Settings(
        data, one_or_more(attributes), data_files, split, columns, duplicates, label_column, positive, rewriter, depth,
        n, seed, options or Options(), turn=turn, two_phase=two_phase,
    )  # fmt: skip
    folder = None if out is None else Path(out)
    replies = cache or (folder / "rewrites" if folder is not None else None)

    def rows(meter: Meter) -> Dataset:
        return rewritten(labelled(settings), settings.options, cache=replies, meter=meter, progress=progress)

    return carry_out(
        folder, settings, rewards, rows, meter=meter, trust_remote_code=trust_remote_code, progress=progress
    )


def carry_out(
    folder: Path | None,
    settings: Settings,
    rewards: Any,
    rows: Callable[[Meter], Dataset],
    *,
    table: Callable[[Dataset], pd.DataFrame] | None = None,
    by: str | None = None,
    draw: Callable[[Path, pd.DataFrame], Path] = on_disk.write_figure,
    about: Mapping[str, Any] | None = None,
    specs: Mapping[str, str] | None = None,
    meter: Meter | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Audit:
    """What is still to be done of an audit: rows, rewards, effects; what `folder` holds and is not stale stays.

    Parameters
    ----------
    folder : Path or None
        Where each stage is kept.
    rows : callable
        Gives the rewritten rows; asked where there are none, or where they are stale or not finished.
    table : callable, optional
        The effects of the rows; by default those of `rk.estimate`, of each group of `by`.
    draw : callable
        ``draw(path, table)`` makes the picture.
    about : mapping, optional
        What else the record says.
    specs : mapping, optional
        What the record says of a reward; by default its spec, or the name of a callable.

    Raises
    ------
    InputError
        The folder holds another audit.
    """
    begun = time.monotonic()
    named = read_rewards(rewards, trust_remote_code=trust_remote_code)
    inputs = settings.inputs()
    record: dict[str, Any] = {"settings": settings.record(), "versions": on_disk.versions()}
    ds: Dataset | None = None
    if folder is not None:
        record, ds = on_disk.opened(folder, record["settings"])
    stale = changed(record.get("inputs") or {}, inputs)
    if ds is not None and stale:
        log.warning("changed since this run was made: %s; its rows are made again", ", ".join(stale))
    if ds is None or stale or settings.options.retry_failed or (record.get("rewriting") or {}).get("stopped"):
        if folder is not None:
            on_disk.begin(folder, record, [reward.spec for reward in named.values()])
        meter = meter or Meter()
        ds = rows(meter)
        kept = reward_models(ds)
        record |= {
            "inputs": inputs, "n_rows": len(ds), "rewriting": meter.record(),
            "rewards": dict.fromkeys(kept, CARRIED), "reward_prints": {},
        }  # fmt: skip
        _keep(folder, ds, record)
    prints = record.setdefault("reward_prints", {})
    for name, reward in named.items():
        now = reward_print(reward)
        spec = (specs or {}).get(name) or redact(reward.spec)
        if REWARD_PREFIX + name in columns_of(ds) and record["rewards"].get(name) == spec:
            if not changed({name: prints.get(name, "")}, {name: now}):
                continue
            log.warning("%s has changed since this run was made; it is scored again", name)
        ds = score(ds, reward.make(), name=name, cache=None if folder is None else folder / "scores", progress=progress)
        record["rewards"][name], prints[name] = spec, now
        _keep(folder, ds, record)
    by = REWRITER if "" not in rewriters_of(settings.rewriter) else by if by in columns_of(ds) else None
    record |= {"by": by, **({} if settings.two_phase is None else {"sample": "two-phase"})}
    looked = Looked()
    if table is not None:
        effects = table(ds)
    else:  # the verdicts look at no text again that the effects were measured by
        checked = checked_rows(ds, record) if set(NEEDED_BY["diagnose"]) <= set(columns_of(ds)) else None
        effects = effects_of(ds, record, measures=own_measures(ds, looked, first=checked))
    record |= {"notes": notes_of(ds, effects, by), "dropped": dropped(ds), **(about or {})}
    record["seconds"] = round(record.get("seconds", 0.0) + time.monotonic() - begun, 1)
    if folder is not None:
        on_disk.write_effects(folder, effects, record, draw)
        on_disk.write_record(folder, record)
    return Audit(ds, effects, record, folder, looked)


def _keep(folder: Path | None, ds: Dataset, record: dict[str, Any]) -> None:
    if folder is not None:
        on_disk.write_dataset(folder, ds, record)
        on_disk.write_record(folder, record)


def one_or_more(given: Any) -> tuple[Any, ...]:
    """One thing, or several, as a tuple.

    Examples
    --------
    >>> one_or_more("length"), one_or_more(["length", "sentiment"])
    (('length',), ('length', 'sentiment'))
    """
    return tuple(given) if isinstance(given, list | tuple) else (given,)


class Labelled(NamedTuple):
    """The labelled rows of one attribute, and how they are to be rewritten."""

    rows: Dataset
    attribute: Attribute | None
    rewriter: Any
    depth: int
    some: list[int] | None = None  # the rows that are rewritten, in two phases; None for all

    def asked(self) -> Dataset:
        """The rows that are rewritten."""
        return self.rows if self.some is None else flattened(self.rows.select(self.some))


def rewritten(
    parts: Iterable[Labelled],
    options: Options,
    *,
    cache: str | Path | None = None,
    meter: Meter | None = None,
    progress: bool = True,
) -> Dataset:
    """The rows of all attributes, rewritten; those whose rewriter is None are taken as they are."""
    from datasets import concatenate_datasets

    meter = meter or Meter()
    done = [
        part.rows if part.rewriter is None or part.attribute is None else _among(part, rewrite(
            part.asked(), part.attribute, part.rewriter, part.depth, cache=cache, options=options, meter=meter,
            progress=progress,
        ))
        for part in parts
    ]  # fmt: skip
    return done[0] if len(done) == 1 else concatenate_datasets(done)


def _among(part: Labelled, done: Dataset) -> Dataset:
    """All rows of a part in their order, those that were not asked for with no rewrites."""
    if part.some is None:
        return done
    from datasets import concatenate_datasets

    assert part.attribute is not None
    others = sorted(set(range(len(part.rows))) - set(part.some))
    bare = without(flattened(part.rows.select(others)), [REWRITES, REWRITE_STATUS])
    for column in (REWRITES, REWRITE_STATUS):
        bare = bare.add_column(column, [[]] * len(bare), feature=done.features[column])
    shared = [c for c in columns_of(done) if c in columns_of(bare)]
    both = concatenate_datasets([done.select_columns(shared), bare.select_columns(shared)])
    return with_description(flattened(both.select(np.argsort([*part.some, *others]))), part.attribute)


def planned(
    parts: Iterable[Labelled], options: Options, *, cache: str | Path | None = None, prices: Prices | None = None
) -> dict[str, CostPlan]:
    """What `rewritten` would ask an LLM for, by attribute; makes no request.

    Raises
    ------
    InputError
        For a rewriter that asks none.
    """
    plans, silent = {}, "these rows are taken as they are"
    for part in parts:
        spec = part.rewriter
        if spec is None or part.attribute is None:
            continue
        made = make_rewriter(spec, part.attribute, cache=cache, options=options) if isinstance(spec, str) else spec
        if not isinstance(made, ChatRewriter):
            silent = f"{spec!r} makes no call"
            continue
        rows = rows_of(part.asked(), made.needs_prompt)
        who = f" by {part.rows[REWRITER][0]}" if REWRITER in columns_of(part.rows) else ""
        plans[part.attribute.name + who] = plan_chains(made, rows, part.depth, prices)
    if not plans:
        raise InputError(f"a dry run is for rewriters that ask an LLM; {silent}")
    return plans


def labelled(settings: Settings) -> Iterator[Labelled]:
    """The labelled rows of each attribute, how they are rewritten and how often."""
    for attribute in map(find_attribute, settings.attributes):
        ds = _rows(settings, attribute)
        have = columns_of(ds)
        if TREATED not in have or ATTRIBUTE not in have or any(a != attribute.name for a in ds[ATTRIBUTE]):
            ds = label(ds, attribute)
        for name, given in rewriters_of(settings.rewriter).items():
            rewriter = given or _default_rewriter(ds, attribute.name)
            depth = settings.depth
            if depth is None:
                own = rewriter == "replay" and REWRITES in columns_of(ds)
                depth = max(len(r or []) for r in ds[REWRITES]) if own else 2
            rows = ds.remove_columns([c for c in (REWRITER,) if name and c in columns_of(ds)])
            rows = rows.add_column(REWRITER, [name] * len(ds)) if name else rows
            yield Labelled(rows, attribute, rewriter, depth, some(rows, settings))
    if not settings.attributes:
        ds = _rows(settings, None)
        missing = [c for c in (ATTRIBUTE, TREATED, REWRITES) if c not in columns_of(ds)]
        if missing:
            raise InputError(f"which attribute? The data carry no column {missing[0]!r}; give one, as in 'length'")
        yield Labelled(ds, None, None, 0)


def some(rows: Dataset, settings: Settings) -> list[int] | None:
    """The places of the rows that are rewritten in two phases; more of them hold the fewer."""
    if settings.two_phase is None or settings.two_phase >= len(rows):
        return None
    require_whole("two_phase", settings.two_phase, 2 * LEAST, why="fewer rewritten rows cannot predict the others")
    places = rows.select_columns(PROMPT_ID).add_column("place", list(range(len(rows))))
    return list(sample(places, settings.two_phase, settings.seed + 1)["place"])


def _rows(settings: Settings, attribute: Attribute | None) -> Dataset:
    return load(
        settings.data, attribute=attribute, data_files=settings.data_files, split=settings.split,
        columns=settings.columns, label_column=settings.label_column, positive=settings.positive,
        duplicates=settings.duplicates, n=settings.n, seed=settings.seed,
        turn=settings.turn,
    )  # fmt: skip


def _default_rewriter(ds: Dataset, attribute: str) -> str:
    if REWRITES in columns_of(ds):
        return "replay"
    if attribute in RULES:
        return "rules"
    raise InputError(
        f"which rewriter? The data carry no rewrites and there are no rules for {attribute!r}; "
        "give --rewriter openai:MODEL or replay:PATH"
    )


def dropped(ds: Any) -> dict[str, Any]:
    """How each rewrite ended, and how many rewards each model lacks."""
    found: dict[str, Any] = {"rewrites": {}, "rewards": {}}
    columns = columns_of(ds)
    if REWRITE_STATUS in columns:
        found["rewrites"] = dict(Counter(s for row in ds[REWRITE_STATUS] for s in row or ()))
    for column in reward_columns(columns, how_read=True):
        found["rewards"][reward_name(column)] = sum(r is None for row in ds[column] for r in row or (None,))
    return found
