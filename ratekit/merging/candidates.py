"""The models that an audit compares: what each is made of, named before it is made.

A merge's identity is its recipe and the hashes of what goes into it, so that its scores are found without merging.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ratekit.checkpoints import Folder, Model, State
from ratekit.errors import InputError
from ratekit.estimators import Floats
from ratekit.lora import open_model
from ratekit.merging.learned import LEARNED, learned
from ratekit.merging.mergers import Plan
from ratekit.merging.methods import METHODS, recipe
from ratekit.merging.metrics import Instrument
from ratekit.scoring.base import NOT_FINITE, OK, Reward, Scores
from ratekit.scoring.loading import weights_hash

BASE, ENSEMBLE, BEST = "base", "ensemble", "best single"
Methods = Sequence[str] | Mapping[str, str | Model]


@dataclass
class Row:
    """A model of the table: how it is named, what made it, and how its weights are had when they are needed."""

    name: str
    kind: str
    identity: str
    weights: Callable[[], State]
    members: list[str] = field(default_factory=list)
    method: str = ""

    @cached_property
    def state(self) -> State:
        """The weights, made once; `forget` gives the memory back."""
        return self.weights()

    def forget(self) -> None:
        """Give the weights' memory back."""
        self.__dict__.pop("state", None)


class Scored:
    """The reward of a model that is made only where the store lacks a score: its identity names it before."""

    def __init__(self, name: str, identity: str, how: str, make: Callable[[], Reward]) -> None:
        self.name, self._make = name, make
        self.fingerprint = {"model": "merge", "revision": identity, "adapter": how, "dtype": "as made"}

    @cached_property
    def reward(self) -> Reward:
        """The model itself, loaded."""
        return self._make()

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> Floats:
        """Rewards (n,)."""
        return self.scores(prompts, responses).rewards

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """Rewards and statuses."""
        detailed = getattr(self.reward, "scores", None)
        if detailed is not None:
            found: Scores = detailed(prompts, responses)
            return found
        rewards = np.asarray(self.reward(prompts, responses), float)
        finite = np.isfinite(rewards)
        statuses = [OK if f else NOT_FINITE for f in finite]
        return Scores(np.where(finite, rewards, np.nan), statuses, {}, np.zeros(len(rewards), np.int64))


def architecture(models: Mapping[str, Model], base: Model | None) -> Path:
    """The first folder among the models, whose config and tokenizer tell how a state dict is read."""
    for model in [*models.values(), base]:
        if isinstance(model, str | Path):
            opened = open_model(model, base)
            return opened.path if isinstance(opened, Folder) else Path(model)
    raise InputError("state dicts alone do not say how they are read: give reward_of=, a model folder or a function")


def candidates(
    models: dict[str, Model],
    base: Model | None,
    methods: Methods,
    seed: int,
    instrument: Instrument,
    progress: bool = False,
) -> list[Row]:
    """Every model of the table that has weights; all is checked, nothing is merged."""
    wanted = dict(methods) if isinstance(methods, Mapping) else {word: word for word in methods}
    taken = {BASE, ENSEMBLE, BEST}
    for label in [*models, *wanted]:
        if label in taken:
            raise InputError(
                f"{label!r} is the name of a row already; give it another, in a mapping name -> model or method"
            )
        taken.add(label)
    opened = {name: open_model(model, base) for name, model in models.items()}
    of_base = open_model(base) if base is not None else None
    plans = {label: _plan(what, models, base, seed, instrument, progress) for label, what in wanted.items()}
    hashes = {name: weights_hash(state) for name, state in opened.items()}
    base_hash = weights_hash(of_base) if of_base is not None else ""
    rows = [Row(n, "member", hashes[n], lambda s=s: s, [m for m in opened if m != n]) for n, s in opened.items()]  # type: ignore[misc]
    if of_base is not None:
        rows.append(Row(BASE, "base", base_hash, lambda: of_base, list(opened)))
    for label, what in wanted.items():
        made, weights = plans[label]
        key = weights_hash(weights()) if made is None else _key([made, [*hashes.values()], base_hash])
        rows.append(Row(label, "merge", key, weights, list(opened), what if isinstance(what, str) and made else ""))
    return rows


def _plan(
    what: str | Model, models: dict[str, Model], base: Model | None, seed: int, instrument: Instrument, progress: bool
) -> tuple[Any, Callable[[], State]]:
    """What a merge is made by besides the models (None for one made elsewhere), and how its weights are had."""
    if what in LEARNED if isinstance(what, str) else False:
        name = str(what)
        if not instrument.pairs:
            raise InputError(f"{name} looks at preference pairs: give pairs=")
        if name != "greedy" and not hasattr(instrument.reward_of, "plain"):
            raise InputError(f"{name} looks into the network: give model folders, not a function of state dicts")
        Plan(models, "soup", base)  # do they belong together?
        opened: dict[str, Model] = {model: open_model(what, base) for model, what in models.items()}
        return [name, repr(instrument.pairs)], lambda: learned(name, opened, instrument)
    if not isinstance(what, str) or (what.partition(":")[0] not in METHODS and Path(what).is_dir()):
        state = open_model(what)
        return None, lambda: state
    name, params = recipe(what)
    plan = Plan(models, name, base, seed=seed, params=params)
    return [name, plan.params, plan.seed, plan.record()["mergekit"]], lambda: dict(plan.tensors(progress))


def _key(what: Any) -> str:
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()
