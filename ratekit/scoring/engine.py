"""The scoring engine: every distinct text once, in blocks, and nothing that is not a finite number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import WorkError
from ratekit.scoring.base import Reward

log = logging.getLogger("ratekit")

BLOCK = 256  # texts handed to a reward at once: often enough for a progress bar


def score_chains(
    reward: Reward,
    prompts: Sequence[Any],
    chains: Sequence[Sequence[str | None]],
    name: str,
    progress: bool = False,
) -> list[list[float | None]]:
    """Rewards of every text of every chain, None where there is no text or the reward is not finite.

    prompts (n) conversations or strings; chains (n) lists of texts, the response and its rewrites. Each distinct
    (prompt, text) is scored once. WorkError where no reward is finite.
    """
    keys = [str(p) for p in prompts]
    distinct: dict[tuple[str, str], int] = {}
    first_row: list[int] = []
    for i, chain in enumerate(chains):
        for text in chain:
            if text is not None and distinct.setdefault((keys[i], text), len(distinct)) == len(first_row):
                first_row.append(i)
    rewards = _scored(reward, [prompts[i] for i in first_row], [text for _, text in distinct], name, progress)
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad) == len(rewards):
        raise WorkError(f"score: {name} gave no finite reward for any of the {len(rewards)} texts")
    if len(bad):
        log.warning(
            "score: %s gave %s for %d of %d texts (first: row %d); these are null",
            name, rewards[bad[0]], len(bad), len(rewards), first_row[bad[0]] + 1,
        )  # fmt: skip
    found = [float(v) if np.isfinite(v) else None for v in rewards]
    return [[None if t is None else found[distinct[keys[i], t]] for t in chain] for i, chain in enumerate(chains)]


def _scored(function: Reward, prompts: list[Any], texts: list[str], name: str, progress: bool) -> NDArray[np.float64]:
    from tqdm.auto import tqdm

    rewards = np.empty(len(texts))
    with tqdm(total=len(texts), desc=f"score {name}", unit="text", disable=not progress, delay=2) as bar:
        for start in range(0, len(texts), BLOCK):
            block = slice(start, start + BLOCK)
            got = np.asarray(function(prompts[block], texts[block]), dtype=float)
            if got.shape != (len(texts[block]),):
                raise WorkError(
                    f"score: {name} gave an array of shape {got.shape} for {len(texts[block])} texts; (n,) was expected"
                )
            rewards[block] = got
            bar.update(len(got))
    return rewards
