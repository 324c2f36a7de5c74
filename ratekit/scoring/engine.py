"""The scoring of a dataset: every distinct text once, by this process or another, and nothing that is not a number.

find the distinct texts -> take those that the store has -> share out the rest -> score block by block, each block
written to the store -> gather -> one column per reward.

Some dozen bytes a text are held, not the text. The original is there once per attribute, and a rewrite may come out as
another did; each (prompt, text) is scored once, and texts of one prompt stand together, so that what they share is run
once. With several processes each takes its share of the texts, and all get every score:

    accelerate launch -m ratekit score data --reward MODEL --out scored                              # one per GPU
    accelerate launch --multi_gpu --num_processes 2 -m ratekit score data --reward MODEL --out scored  # or two on CPUs

(`accelerate launch --cpu --num_processes 2` starts one process where no MPI is there.)
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten
from ratekit.redaction import redact
from ratekit.schema import (
    PROMPT,
    RESPONSE,
    REWARD_PREFIX,
    REWARD_STATUS_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
)
from ratekit.scoring import packing
from ratekit.scoring.base import FAILED, NOT_FINITE, OK, SCORED, TRUNCATED, DetailedReward, Reward, Scores
from ratekit.scoring.completions import CompletionsReward, takes_completions
from ratekit.scoring.store import ScoreStore, as_bytes

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")

_BLOCK = 256  # texts handed to a reward, and written to the store, at once
_READ = 1000  # rows decoded at once


@dataclass
class _Column:
    """A list of numbers (or words) per row, in Arrow: null where there is none."""

    name: str
    values: Any


def score_dataset(
    ds: Dataset, reward: Reward, name: str, *, store: ScoreStore | None = None, progress: bool = False
) -> tuple[list[_Column], _Column | None]:
    """The rewards of every text of every row: `<name>` and one column per part; and the statuses, if any is not ok.

    A text that is missing, cannot be read or gets no finite reward is null. WorkError where no text gets a reward.
    """
    state = processes()
    distinct = find(ds)
    scored = _scored(ds, distinct, reward, name, store, state, progress and state.is_main_process)
    _report(ds, distinct, scored, name, state.is_main_process)
    columns = [_Column(name, as_lists(distinct, scored.rewards))]
    columns += [_Column(f"{name}/{part}", as_lists(distinct, values)) for part, values in scored.parts.items()]
    if all(s == OK for s in scored.statuses):
        return columns, None
    return columns, _Column(name, as_lists(distinct, np.array(scored.statuses, dtype=object)))


def score_chains(
    reward: Reward,
    prompts: Sequence[Any],
    chains: Sequence[Sequence[str | None]],
    name: str,
    progress: bool = False,
) -> list[list[float | None]]:
    """Rewards of texts that are in no dataset: per prompt a list of texts, the response and its rewrites."""
    from datasets import Dataset

    columns = {PROMPT: list(prompts), RESPONSE: [c[0] for c in chains], REWRITES: [list(c[1:]) for c in chains]}
    rewards, _ = score_dataset(Dataset.from_dict(columns), reward, name, progress=progress)
    found: list[list[float | None]] = rewards[0].values.to_pylist()
    return found


def _scored(
    ds: Dataset,
    distinct: Distinct,
    reward: Reward,
    name: str,
    store: ScoreStore | None,
    state: Any,
    progress: bool,
) -> Scores:
    known = store.get(as_bytes(distinct.key)) if store is not None else _nothing(len(distinct))
    reasons: dict[str, str] = {}
    waiting = np.array([i for i, status in enumerate(known.statuses) if not status], dtype=np.int64)
    if store is not None and len(waiting) < len(distinct):
        log.info("score: %d of %d texts are in the store %s", len(distinct) - len(waiting), len(distinct), store.folder)
        _recall(ds, distinct, np.setdiff1d(np.arange(len(distinct)), waiting), reward)
    mine = _share(ds, distinct, waiting, reward, state)
    done: list[tuple[NDArray[np.int64], Scores]] = []
    completions = CompletionsReward(reward) if takes_completions(reward) else None
    with _Progress(name, len(mine), progress) as bar:
        for block in _blocks(distinct.prompt, mine, getattr(reward, "block", _BLOCK)):
            prompts, responses = fetch(ds, distinct, block)
            asked = reward if completions is None else _Bound(completions, more_columns(ds, distinct, block))
            scores: Scores | None = None
            try:
                scores = _of_block(asked, prompts, responses, name)
            finally:
                kept = getattr(reward, "answered", None) if scores is None else scores
                if store is not None and kept is not None:
                    store.put(as_bytes(distinct.key[block]), kept)
            done.append((block, scores))
            bar.update(len(block), int(scores.tokens.sum()))
    if store is not None:
        store.close()
    for block, scores in _gather(done, state):
        known.rewards[block] = scores.rewards
        known.tokens[block] = scores.tokens
        for i, status in zip(block, scores.statuses, strict=True):
            known.statuses[i] = status
        for part, values in scores.parts.items():
            known.parts.setdefault(part, np.full(len(distinct), np.nan))[block] = values
        reasons = {**scores.reasons, **reasons}
    return known._replace(reasons=reasons)


def _recall(ds: Dataset, distinct: Distinct, scored: NDArray[np.int64], reward: Reward) -> None:
    """Tell a reward that has a budget what an earlier process has scored already, once."""
    recall, meter = getattr(reward, "recall", None), getattr(reward, "meter", None)
    if recall is None or meter is None or meter.requests:
        return
    for block in _blocks(distinct.prompt, scored):
        recall(*fetch(ds, distinct, block))


def _nothing(n: int) -> Scores:
    return Scores(np.full(n, np.nan), [""] * n, {}, np.zeros(n, dtype=np.int64))


def _of_block(reward: Reward, prompts: list[Any], responses: list[str], name: str) -> Scores:
    if isinstance(reward, DetailedReward):
        return reward.scores(prompts, responses)
    reasons: dict[str, str] = {}
    try:
        got = _numbers(reward, prompts, responses, name)
    except (InputError, WorkError):
        raise
    except Exception as e:  # one text that a function fails on is no reason to lose the others
        if len(responses) == 1:
            reasons[FAILED] = shorten(repr(e), 120)
            return Scores(np.array([np.nan]), [FAILED], {}, np.zeros(1, dtype=np.int64), reasons)
        alone = [_of_block(reward, [p], [r], name) for p, r in zip(prompts, responses, strict=True)]
        if all(one.statuses == [FAILED] for one in alone):
            said = shorten(repr(e), 120)
            raise WorkError(f"score: {name} failed on a block of {len(responses)} texts ({said})") from e
        for one in alone:
            reasons = {**one.reasons, **reasons}
        rewards = np.concatenate([one.rewards for one in alone])
        statuses = [one.statuses[0] for one in alone]
        return Scores(rewards, statuses, {}, np.zeros(len(alone), dtype=np.int64), reasons)
    finite = np.isfinite(got)
    statuses = [OK if f else NOT_FINITE for f in finite]
    return Scores(np.where(finite, got, np.nan), statuses, {}, np.zeros(len(got), dtype=np.int64))


class _Bound:
    """A function of TRL's signature with the columns of the texts that it is asked about."""

    def __init__(self, reward: CompletionsReward, columns: list[dict[str, Any]]) -> None:
        self.reward, self.columns = reward, columns

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        names = self.columns[0] if self.columns else {}
        return self.reward(prompts, responses, {n: [row[n] for row in self.columns] for n in names})


def _numbers(reward: Reward, prompts: list[Any], responses: list[str], name: str) -> NDArray[np.float64]:
    got = np.asarray(reward(prompts, responses), dtype=float)
    if got.shape != (len(responses),):
        raise WorkError(
            f"score: {name} gave an array of shape {got.shape} for {len(responses)} texts; (n,) was expected"
        )
    return got


# --- who does what -----------------------------------------------------------------------------------------


def processes() -> Any:
    """The processes of this run, as `accelerate` knows them; without a launcher one, and `accelerate` is not imported.

    Raises
    ------
    WorkError
        Where `accelerate` does not see the processes launched: each would take itself for the only one.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched == 1:
        return SimpleNamespace(num_processes=1, process_index=0, is_main_process=True, wait_for_everyone=lambda: None)
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes != launched:
        raise WorkError(f"{launched} processes were launched, but accelerate sees {state.num_processes}")
    return state


def _gather(what: list[Any], state: Any) -> list[Any]:
    """The lists of all processes, joined in the order of the processes."""
    if state.num_processes == 1:
        return what
    from accelerate.utils import gather_object

    return list(gather_object(what))


def _share(
    ds: Dataset, distinct: Distinct, waiting: NDArray[np.int64], reward: Reward, state: Any
) -> NDArray[np.int64]:
    """The texts that this process scores: whole prompts, so shared out that all have as many tokens to run."""
    n, index = state.num_processes, state.process_index
    if n == 1 or not len(waiting):
        return waiting
    groups = np.split(waiting, np.flatnonzero(np.diff(distinct.prompt[waiting])) + 1)
    cost = getattr(reward, "cost", None) or (lambda prompts, responses: sum(map(len, responses)))
    counted = [(k, cost(*fetch(ds, distinct, groups[k]))) for k in range(index, len(groups), n)]
    costs = [c for _, c in sorted(_gather(counted, state))]
    mine = packing.shares(costs, n)[index]
    return np.concatenate([groups[k] for k in sorted(mine)]) if mine else waiting[:0]


def _blocks(prompt: NDArray[np.int64], which: NDArray[np.int64], size: int = _BLOCK) -> list[NDArray[np.int64]]:
    """Blocks of about `size` texts, cut between prompts where they can be."""
    cuts, start = [], 0
    for end in range(1, len(which)):
        new_prompt = prompt[which[end]] != prompt[which[end - 1]]
        if end - start >= size and (new_prompt or end - start >= 4 * size):
            cuts.append(end)
            start = end
    return [block for block in np.split(which, cuts) if len(block)]


# --- what is said ------------------------------------------------------------------------------------------


def _report(ds: Dataset, distinct: Distinct, scored: Scores, name: str, speak: bool) -> None:
    bad = [i for i, status in enumerate(scored.statuses) if status not in SCORED]
    counts = Counter(scored.statuses[i] for i in bad)
    n = len(scored.statuses)

    def said(status: str) -> str:
        why = scored.reasons.get(status)
        return f"{counts[status]} {status}" + (f" ({why})" if why else "")

    if n and len(bad) == n:
        words = ", ".join(said(status) for status, _ in counts.most_common())
        raise WorkError(f"score: {name} gave no finite reward for any of the {n} texts ({words})")
    if bad and speak:
        first = {s: next(i for i in bad if scored.statuses[i] == s) for s in counts}
        where = "; ".join(f"{said(s)}, first in row {distinct.row[i] + 1}" for s, i in first.items())
        log.warning("score: %s could not score %d of %d texts, which are null (%s)", name, len(bad), n, where)
    numbers = scored.rewards[np.isfinite(scored.rewards)]
    if len(numbers) > 1 and speak and (numbers == numbers[0]).all():
        log.warning(
            "score: %s gave %g to every one of %d texts: it tells nothing apart, and no effect can be said in its SDs",
            name, numbers[0], len(numbers),
        )  # fmt: skip
    cut = np.array([status == TRUNCATED for status in scored.statuses], dtype=bool)
    if cut.any() and speak:
        log.warning(
            "score: %s: %d of %d texts are longer than it reads and were cut (first: row %d)%s; reward_status/%s says "
            "which", name, cut.sum(), n, distinct.row[cut.argmax()] + 1, _by_side(ds, distinct, cut), name,
        )  # fmt: skip


def _by_side(ds: Dataset, distinct: Distinct, cut: NDArray[np.bool_]) -> str:
    """How many texts of each side of the attribute were cut: under "longer" the cut itself differs by side."""
    if TREATED not in ds.column_names or not len(ds):
        return ""
    treated = [None if t is None else bool(t) for t in ds[TREATED]]
    row = np.repeat(np.arange(len(ds)), distinct.lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(distinct.lengths) - distinct.lengths, distinct.lengths)
    counts = {True: [0, 0], False: [0, 0]}
    for r, p, which in zip(row, place, distinct.inverse, strict=True):
        if which >= 0 and treated[r] is not None:
            side = counts[treated[r] == (p % 2 == 0)]  # every rewrite changes the side
            side[0] += bool(cut[which])
            side[1] += 1
    sides = [f"{n_cut} of {n} on the {'' if side else 'un'}treated side" for side, (n_cut, n) in counts.items()]
    return ": " + ", ".join(sides)


class _Progress:
    """A bar with texts/s and ETA, and beside it tokens/s and the memory in use."""

    def __init__(self, name: str, total: int, show: bool) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, desc=f"score {redact(name)}", unit="text", disable=not show, delay=2)
        self.tokens, self.started = 0, time.perf_counter()

    def update(self, n: int, tokens: int) -> None:
        self.tokens += tokens
        speed = self.tokens / max(time.perf_counter() - self.started, 1e-9)
        said = {"tokens/s": f"{speed:,.0f}"} if self.tokens else {}
        self.bar.set_postfix({**said, "peak": f"{peak_memory() / 2**30:.1f} GiB"}, refresh=False)
        self.bar.update(n)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.close()


def peak_memory() -> int:
    """The most bytes that this process has held: of the GPU where there is one, else of main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def as_lists(distinct: Distinct, values: NDArray[Any]) -> Any:
    """One list per row, as Arrow."""
    import pyarrow as pa

    there = distinct.inverse >= 0
    entries = np.full(len(there), None if values.dtype == object else np.nan, dtype=values.dtype)
    entries[there] = values[distinct.inverse[there]]
    offsets = np.concatenate([[0], np.cumsum(distinct.lengths)]).astype(np.int32)
    if values.dtype == object:
        flat = pa.array(entries, pa.string())
    else:
        flat = pa.array(entries, pa.float64(), mask=np.isnan(entries))
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


# --- the distinct texts -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distinct:
    """Where the distinct texts of a dataset stand.

    Parameters
    ----------
    lengths
        (rows,) texts in each row's chain, the response included
    inverse
        (entries,) for every text of every chain, in order: which distinct one it is, -1 where there is none
    row
        (n,) the first row of each distinct text, texts of one prompt side by side
    place
        (n,) its place in that row's chain
    prompt
        (n,) a number that texts of one prompt share
    key
        (n, 2) uint64, a hash of prompt and text
    """

    lengths: NDArray[np.int64]
    inverse: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    prompt: NDArray[np.int64]
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.row)


def _chains(ds: Dataset, rows: Sequence[int] | None = None) -> Iterator[tuple[Any, list[str | None]]]:
    """The prompt and the texts (response, rewrites) of each row, a block of rows at a time."""
    columns = [c for c in (PROMPT, RESPONSE, REWRITES) if c in ds.column_names]
    plain = ds.select_columns(columns).with_format(None)
    for start in range(0, len(ds) if rows is None else len(rows), _READ):
        block = plain[start : start + _READ] if rows is None else plain[list(rows[start : start + _READ])]
        rewrites = block.get(REWRITES) or [None] * len(block[RESPONSE])
        for prompt, response, more in zip(block[PROMPT], block[RESPONSE], rewrites, strict=True):
            yield prompt, [response, *(more or [])]


def find(ds: Dataset) -> Distinct:
    """The distinct texts of `ds`, in the order of their prompts' first rows."""
    lengths = np.zeros(len(ds), dtype=np.int64)
    prompts = np.zeros(len(ds), dtype=np.uint64)
    digests = bytearray()
    there = bytearray()
    for i, (prompt, texts) in enumerate(_chains(ds)):
        lengths[i] = len(texts)
        head = hashlib.blake2b(repr(prompt).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        prompts[i] = int.from_bytes(head[:8], "big")
        for text in texts:
            there.append(text is not None)
            digests += _key_of(head, text or "")
    key = np.frombuffer(bytes(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    row = np.repeat(np.arange(len(ds)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    entries = np.flatnonzero(np.frombuffer(bytes(there), dtype=bool))
    order = entries[np.lexsort((entries, key[entries, 1], key[entries, 0]))]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (key[order[1:]] != key[order[:-1]]).any(axis=1)
    first = order[new]
    _, prompt_first, prompt_of = np.unique(prompts, return_index=True, return_inverse=True)
    prompt = prompt_first[prompt_of][row[first]] if len(first) else np.zeros(0, dtype=np.int64)
    arranged = np.lexsort((first, prompt))
    rank = np.empty(len(first), dtype=np.int64)
    rank[arranged] = np.arange(len(first))
    inverse = np.full(len(row), -1, dtype=np.int64)
    inverse[order] = rank[np.cumsum(new) - 1]
    first = first[arranged]
    return Distinct(lengths, inverse, row[first], place[first], prompt[arranged], key[first])


def _key_of(prompt_digest: bytes, text: str) -> bytes:
    """16 bytes that name a (prompt, text)."""
    return hashlib.blake2b(prompt_digest + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def more_columns(ds: Dataset, distinct: Distinct, which: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Of each distinct text the row in which it stands first, without the columns that ratekit makes."""
    own = (PROMPT, RESPONSE, REWRITES, REWRITE_STATUS)
    names = [c for c in ds.column_names if c not in own and not c.startswith((REWARD_PREFIX, REWARD_STATUS_PREFIX))]
    plain = ds.select_columns(names).with_format(None) if names else None
    return [dict(plain[int(row)]) if plain is not None else {} for row in distinct.row[which]]


def fetch(ds: Dataset, distinct: Distinct, which: NDArray[np.int64]) -> tuple[list[Any], list[str]]:
    """Prompts and texts of the distinct texts `which`."""
    rows = distinct.row[which]
    needed, position = np.unique(rows, return_inverse=True)
    found = list(_chains(ds, needed.tolist()))
    prompts = [found[p][0] for p in position]
    texts = [found[p][1][distinct.place[w]] for p, w in zip(position, which, strict=True)]
    return prompts, texts
