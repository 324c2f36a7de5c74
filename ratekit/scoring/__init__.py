"""Rewards by name: `vader`, `words`, a model folder, a hub id. Adding one is one literal in `REWARD_MODELS`.

A reward is a plain callable, (prompts, responses) -> (n,) float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.attributes import vader, words
from ratekit.errors import InputError, unknown
from ratekit.scoring.base import Reward
from ratekit.scoring.classifier import SequenceClassifier


def _of_response(measure: Callable[[Sequence[str]], NDArray[np.float64]]) -> Reward:
    def reward(prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        return measure(responses)

    return reward


REWARD_MODELS: dict[str, Reward] = {
    "vader": _of_response(vader),
    "words": _of_response(words),
}


def find_reward(reward: str | Path) -> Reward | str:
    """The reward of that name, or the folder or hub id of a model that is still to be loaded.

    >>> find_reward("org/model")
    'org/model'

    Raises InputError for what can be none, before any work is done.
    """
    name = str(reward)
    if name in REWARD_MODELS:
        return REWARD_MODELS[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise InputError(f"{name} is a folder without config.json, so no model to score with")
        return str(folder)
    if folder.is_file():
        raise InputError(f"{name} is a file; a reward model is a folder with config.json, or a hub id")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return name
    raise unknown("reward model", name, REWARD_MODELS, "Or give a model folder or a hub id 'owner/name'")


def make_reward(reward: str | Path, *, trust_remote_code: bool = False) -> Reward:
    """The reward of that name: one of `REWARD_MODELS`, a local model folder, or a hub id.

    >>> float(make_reward("words")(["Why?"], ["It just is."])[0])
    3.0

    Raises InputError for an unknown name and for a model that is no reward model.
    """
    found = find_reward(reward)
    return SequenceClassifier(found, trust_remote_code=trust_remote_code) if isinstance(found, str) else found


def default_name(reward: Any) -> str:
    """The name that a reward's column gets: its own name, a folder's last part. Raises InputError for a lambda."""
    if isinstance(reward, str | Path):
        path = Path(reward).expanduser()
        return path.resolve().name if path.is_dir() and str(reward) not in REWARD_MODELS else str(reward)
    name = getattr(reward, "__name__", None) or getattr(reward, "name", None)
    if not name or name == "<lambda>":
        raise InputError("this reward has no name of its own; give one with name='...'")
    return str(name)
