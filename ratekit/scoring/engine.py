"""The scoring of a dataset: every distinct text once, by this process or another, and nothing that is not a number.

find the distinct texts -> take those that the store has -> share out the rest -> score block by block, each block
written to the store -> gather -> one column per reward.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import WorkError, shorten
from ratekit.schema import PROMPT, RESPONSE, REWRITES
from ratekit.scoring import plan, texts
from ratekit.scoring.base import NOT_FINITE, OK, SCORED, TRUNCATED, DetailedReward, Reward, Scores
from ratekit.scoring.distributed import Processes
from ratekit.scoring.store import ScoreStore, as_bytes

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")

BLOCK = 256  # texts handed to a reward, and written to the store, at once


@dataclass
class Column:
    """A list of numbers (or words) per row, in Arrow: null where there is none."""

    name: str
    values: Any


def score_dataset(
    ds: Dataset, reward: Reward, name: str, *, store: ScoreStore | None = None, progress: bool = False
) -> tuple[list[Column], Column | None]:
    """The rewards of every text of every row: `<name>` and one column per part; and the statuses, if any is not ok.

    A text that is missing, cannot be read or gets no finite reward is null. WorkError where no text gets a reward.
    """
    processes = Processes()
    distinct = texts.find(ds)
    scored = _scored(ds, distinct, reward, name, store, processes, progress and processes.main)
    _report(distinct, scored, name, processes.main)
    columns = [Column(name, _lists(distinct, scored.rewards))]
    columns += [Column(f"{name}/{part}", _lists(distinct, values)) for part, values in scored.parts.items()]
    if all(s == OK for s in scored.statuses):
        return columns, None
    return columns, Column(name, _lists(distinct, np.array(scored.statuses, dtype=object)))


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
    distinct: texts.Distinct,
    reward: Reward,
    name: str,
    store: ScoreStore | None,
    processes: Processes,
    progress: bool,
) -> Scores:
    known = store.get(as_bytes(distinct.key)) if store else _nothing(len(distinct))
    waiting = np.array([i for i, status in enumerate(known.statuses) if not status], dtype=np.int64)
    if store and len(waiting) < len(distinct):
        log.info("score: %d of %d texts are in the store %s", len(distinct) - len(waiting), len(distinct), store.folder)
    mine = _share(ds, distinct, waiting, reward, processes)
    done: list[tuple[NDArray[np.int64], Scores]] = []
    with _Progress(name, len(mine), progress) as bar:
        for block in _blocks(distinct.prompt, mine):
            prompts, responses = texts.fetch(ds, distinct, block)
            scores = _of_block(reward, prompts, responses, name)
            if store:
                store.put(as_bytes(distinct.key[block]), scores)
            done.append((block, scores))
            bar.update(len(block), int(scores.tokens.sum()))
    if store:
        store.merge()
    for block, scores in processes.gather(done):
        known.rewards[block] = scores.rewards
        known.tokens[block] = scores.tokens
        for i, status in zip(block, scores.statuses, strict=True):
            known.statuses[i] = status
        for part, values in scores.parts.items():
            known.parts.setdefault(part, np.full(len(distinct), np.nan))[block] = values
    return known


def _nothing(n: int) -> Scores:
    return Scores(np.full(n, np.nan), [""] * n, {}, np.zeros(n, dtype=np.int64))


def _of_block(reward: Reward, prompts: list[Any], responses: list[str], name: str) -> Scores:
    if isinstance(reward, DetailedReward):
        return reward.scores(prompts, responses)
    try:
        got = np.asarray(reward(prompts, responses), dtype=float)
    except (TypeError, ValueError) as e:
        if isinstance(e, (WorkError,)) or type(e).__module__.startswith("ratekit"):
            raise
        raise WorkError(f"score: {name} failed on a block of {len(responses)} texts ({shorten(repr(e), 120)})") from e
    if got.shape != (len(responses),):
        raise WorkError(
            f"score: {name} gave an array of shape {got.shape} for {len(responses)} texts; (n,) was expected"
        )
    finite = np.isfinite(got)
    statuses = [OK if f else NOT_FINITE for f in finite]
    return Scores(np.where(finite, got, np.nan), statuses, {}, np.zeros(len(got), dtype=np.int64))


# --- who does what -----------------------------------------------------------------------------------------


def _share(
    ds: Dataset, distinct: texts.Distinct, waiting: NDArray[np.int64], reward: Reward, processes: Processes
) -> NDArray[np.int64]:
    """The texts that this process scores: whole prompts, so shared out that all have as many tokens to run."""
    if processes.n == 1 or not len(waiting):
        return waiting
    groups = np.split(waiting, np.flatnonzero(np.diff(distinct.prompt[waiting])) + 1)
    cost = getattr(reward, "cost", None) or (lambda prompts, responses: sum(map(len, responses)))
    counted = [
        (k, cost(*texts.fetch(ds, distinct, groups[k]))) for k in range(processes.index, len(groups), processes.n)
    ]
    costs = [c for _, c in sorted(processes.gather(counted))]
    mine = plan.shares(costs, processes.n)[processes.index]
    return np.concatenate([groups[k] for k in sorted(mine)]) if mine else waiting[:0]


def _blocks(prompt: NDArray[np.int64], which: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Blocks of about `BLOCK` texts, cut between prompts where they can be."""
    cuts, start = [], 0
    for end in range(1, len(which)):
        new_prompt = prompt[which[end]] != prompt[which[end - 1]]
        if end - start >= BLOCK and (new_prompt or end - start >= 4 * BLOCK):
            cuts.append(end)
            start = end
    return [block for block in np.split(which, cuts) if len(block)]


# --- what is said ------------------------------------------------------------------------------------------


def _report(distinct: texts.Distinct, scored: Scores, name: str, speak: bool) -> None:
    bad = [i for i, status in enumerate(scored.statuses) if status not in SCORED]
    counts = Counter(scored.statuses[i] for i in bad)
    n = len(scored.statuses)
    if n and len(bad) == n:
        raise WorkError(f"score: {name} gave no finite reward for any of the {n} texts ({_counted(counts)})")
    if bad and speak:
        first = {s: next(i for i in bad if scored.statuses[i] == s) for s in counts}
        where = "; ".join(f"{counts[s]} {s}, first in row {distinct.row[i] + 1}" for s, i in first.items())
        log.warning("score: %s could not score %d of %d texts, which are null (%s)", name, len(bad), n, where)
    cut = [i for i, status in enumerate(scored.statuses) if status == TRUNCATED]
    if cut and speak:
        log.warning(
            "score: %s: %d of %d texts are longer than it reads and lost their beginning (first: row %d); "
            "reward_status/%s says which", name, len(cut), n, distinct.row[cut[0]] + 1, name,
        )  # fmt: skip


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {status}" for status, n in counts.most_common())


class _Progress:
    """A bar with texts/s and ETA, and beside it tokens/s and the memory in use."""

    def __init__(self, name: str, total: int, show: bool) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, desc=f"score {name}", unit="text", disable=not show, delay=2)
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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _lists(distinct: texts.Distinct, values: NDArray[Any]) -> Any:
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
