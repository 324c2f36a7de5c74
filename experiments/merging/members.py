"""Who is merged: one base, five seeds of each kind from it, and models of initialisations of their own."""

from __future__ import annotations

from dataclasses import dataclass

from models import Cache, State, fresh
from tqdm.auto import tqdm
from world import KINDS, preferences


@dataclass(frozen=True)
class Size:
    """How much of everything: the study's, and a quick look at it."""

    seeds: int = 5
    pairs: int = 4000
    base_steps: int = 300
    steps: int = 300
    independent_steps: int = 600
    curve_steps: int = 400
    prompts: int = 500
    path_prompts: int = 250
    test_pairs: int = 1000
    points: int = 11
    mixes: int = 30
    spawn_at: tuple[int, ...] = (0, 75)
    spawn_seeds: int = 3


QUICK = Size(2, 600, 60, 60, 80, 30, 80, 60, 200, 5, 5, (0, 30), 1)


@dataclass
class Members:
    """The trained models, by kind; `independent` those of initialisations of their own."""

    base: State
    by_kind: dict[str, list[State]]
    independent: dict[str, list[State]]


def train_members(cache: Cache, size: Size, progress: bool = True) -> Members:
    """Train them all, or take them from the cache."""
    jobs = tqdm(total=1 + 5 * size.seeds, desc="train", unit="model", disable=not progress)
    base = cache.train("base", fresh(0), preferences(size.pairs, 1, confounded=False), size.base_steps, 0)
    jobs.update()
    by_kind: dict[str, list[State]] = {kind: [] for kind in KINDS}
    independent: dict[str, list[State]] = {"unbiased": [], "length-biased": []}
    for k, (kind, bias) in enumerate(KINDS.items()):
        for seed in range(size.seeds):
            data = preferences(size.pairs, 100 * (k + 1) + seed, bias)
            by_kind[kind].append(cache.train(f"{kind}-{seed}", base, data, size.steps, seed))
            jobs.update()
            if kind in independent:
                start = fresh(1000 * (k + 1) + seed)
                trained = cache.train(f"independent-{kind}-{seed}", start, data, size.independent_steps, seed)
                independent[kind].append(trained)
                jobs.update()
    jobs.close()
    return Members(base, by_kind, independent)
