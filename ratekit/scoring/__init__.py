"""Rewards by name: `vader`, a model folder, a hub id, `judge:MODEL`. Adding one is one literal in `REWARD_MODELS`.

A reward is a plain callable, (prompts, responses) -> (n,) float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, unknown
from ratekit.measures import vader, words
from ratekit.redaction import redact
from ratekit.scoring.adapters import ADAPTERS, HUB, JUDGE, Adapter, named_adapter
from ratekit.scoring.base import Reward
from ratekit.scoring.llm_judges import from_spec, is_asked, judge_name
from ratekit.userfiles import is_object_spec, load_object


def _of_response(measure: Callable[[Sequence[str]], NDArray[np.float64]]) -> Reward:
    def reward(prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        return measure(responses)

    return reward


# A measure of the text, or a model of the hub with how it is read.
REWARD_MODELS: dict[str, Reward | Adapter] = {
    "vader": _of_response(vader),
    "words": _of_response(words),
    **HUB,
}

# Rewards that take more than a name, as in judge:MODEL.
FORMS: dict[str, str] = {
    "judge": "a language model asked whether the response is good (judge:MODEL), or for a score by a rubric, behind a "
    "server (judge:openai:MODEL,rubric=FILE,scale=1-10,criteria=A+B,repeats=K)",
    "pairwise": "a language model asked which of two responses is better (pairwise:MODEL,REFERENCES; the file holds "
    "prompt and response, the one that others are compared with; pairwise:openai:MODEL,REFERENCES behind a server)",
    "dpo": "the reward implicit in a model trained by preference (dpo:POLICY,REFERENCE)",
    "served": "a scorer behind a server (served:http://HOST:PORT/classify, or /score, /pooling, /predict, /get_reward; "
    "served:URL,MODEL names the model, served:URL,MODEL,TOKENIZER sends text in that tokenizer's chat template)",
}

# What each kind of reward can be told beside its name.
_READS = ("adapter", "truncation", "trust_remote_code")
_RUN_HERE = ("truncation", "trust_remote_code")
OPTIONS: dict[str, tuple[str, ...]] = {
    "a function": (),
    "a model's folder": (*_READS, "dtype"),
    "a model of the hub": (*_READS, "dtype", "revision"),
    "a judge that is run here": _READS,
    "a judge of pairs": _RUN_HERE,
    "a pair of models": _RUN_HERE,
    "a model behind a server": (),
}


def find_reward(reward: str | Path) -> Reward | str:
    """The reward of that name, or the folder, hub id or form of a model that is still to be loaded.

    Raises
    ------
    InputError
        For what can be none, before any work is done.

    Examples
    --------
    >>> find_reward("org/model")
    'org/model'
    """
    name = str(reward)
    known = REWARD_MODELS.get(name)
    if known is not None and not isinstance(known, Adapter):
        return known
    if is_object_spec(name):
        own = load_object(name)
        if not callable(own):
            raise InputError(
                f"{name} is of type {type(own).__name__}; a reward is (prompts, responses) -> (n,) numbers"
            )
        return cast(Reward, own)
    form, colon, rest = name.partition(":")
    if colon and form in FORMS:
        if form == "served" and not rest.startswith(("http://", "https://")):
            raise InputError(f"{name}: the address of the server is missing; write {FORMS[form]}")
        if form in ("judge", "pairwise") and is_asked(rest):
            from_spec(name)  # what is wrong with it is better known before any work
            return name
        if form == "pairwise":
            model, comma, references = rest.rpartition(",")
            if not comma or not Path(references).expanduser().exists():
                raise InputError(f"{name}: a file of reference responses is needed; write {FORMS[form]}")
            return f"{form}:{_model(model)},{references}"
        if form == "dpo" and len(rest.split(",")) != 2:
            raise InputError(f"{name}: two models are needed; write {FORMS[form]}")
        return name if form == "served" else f"{form}:" + ",".join(_model(part) for part in rest.split(","))
    return _model(name)


def _model(name: str) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).exists() for file in ("config.json", "adapter_config.json")):
            raise InputError(f"{name} is a folder without config.json, so no model to score with")
        return str(folder)
    if folder.is_file():
        raise InputError(f"{name} is a file; a reward model is a folder with config.json, or a hub id")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return name
    hint = "Or give a model folder, a hub id 'owner/name', or " + ", ".join(f"{form}:..." for form in FORMS)
    raise unknown("reward model", name, REWARD_MODELS, hint)


def kind_of(reward: Any) -> str:
    """Which of the kinds in `OPTIONS` a reward is of.

    Examples
    --------
    >>> kind_of("vader"), kind_of("org/model"), kind_of("judge:openai:gpt-4o")
    ('a function', 'a model of the hub', 'a model behind a server')
    """
    found = find_reward(reward) if isinstance(reward, str | Path) else reward
    if not isinstance(found, str):
        return "a function"
    form, colon, rest = found.partition(":")
    if not colon or form not in FORMS:
        return "a model's folder" if Path(found).is_dir() else "a model of the hub"
    if form == "served" or is_asked(rest):
        return "a model behind a server"
    return {"judge": "a judge that is run here", "pairwise": "a judge of pairs"}.get(form, "a pair of models")


def options_for(rewards: Sequence[Any], **told: Any) -> list[dict[str, Any]]:
    """What each reward is told of the options that were given; None, False and `truncation="prompt"` are not given.

    Raises
    ------
    InputError
        For an option that none of the rewards can use: it would be passed over in silence.

    Examples
    --------
    >>> options_for(["vader", "org/model"], adapter="pair", dtype=None)
    [{}, {'adapter': 'pair'}]
    """
    kinds = [kind_of(reward) for reward in rewards]
    given = {k: v for k, v in told.items() if v is not None and v is not False and (k, v) != ("truncation", "prompt")}
    for option, value in given.items():
        if not any(option in OPTIONS[kind] for kind in kinds):
            names = [str(getattr(r, "__name__", r if isinstance(r, str | Path) else type(r).__name__)) for r in rewards]
            named = "; ".join(f"{redact(name)} is {kind}" for name, kind in zip(names, kinds, strict=True))
            word = option.replace("_", "-")
            raise InputError(
                f"{word}={getattr(value, 'name', value)} has no meaning here and would be passed over: {named}"
            )
    return [{option: value for option, value in given.items() if option in OPTIONS[kind]} for kind in kinds]


def make_reward(
    reward: str | Path,
    *,
    adapter: str | Adapter | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    truncation: str = "prompt",
    trust_remote_code: bool = False,
) -> Reward:
    """The reward of that name: one of `REWARD_MODELS`, a local model folder, a hub id, or one of `FORMS`.

    Parameters
    ----------
    reward
        The name.
    adapter
        How a model is read (`ADAPTERS`, or "token:TOKEN"), where it is not known and should not be guessed; to choose
        its device or length make a `RewardModel` yourself and pass that.
    revision, dtype
        As of `RewardModel`: of a hub model; of a model.
    truncation
        What a text that is longer than the model reads loses first: "prompt" (its beginning) or "response" (its end).
    trust_remote_code
        Run code that comes with a model.

    Raises
    ------
    InputError
        For an unknown name, for a model that is no reward model, and for an option that this reward cannot use.

    Examples
    --------
    >>> float(make_reward("words")(["Why?"], ["It just is."])[0])
    3.0
    """
    options_for(
        [reward], adapter=adapter, revision=revision, dtype=dtype, truncation=truncation,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    found = find_reward(reward)
    if not isinstance(found, str):
        return found
    from ratekit.scoring.judges import DpoReward, PairwiseJudge
    from ratekit.scoring.model import RewardModel
    from ratekit.scoring.served import ServedReward

    form, _, rest = found.partition(":")
    if form == "served":
        url, model, tokenizer = (*(part or None for part in rest.split(",")), None, None)[:3]
        return ServedReward(url or "", model=model, tokenizer=tokenizer)
    if form in ("judge", "pairwise") and is_asked(rest):
        return from_spec(found)
    if form == "dpo":
        return DpoReward(*rest.split(","), truncation=truncation, trust_remote_code=trust_remote_code)
    if form == "pairwise":
        model, _, references = rest.rpartition(",")
        folder = Path(references).expanduser()
        return PairwiseJudge(model, folder, truncation=truncation, trust_remote_code=trust_remote_code)
    if form == "judge":
        asks = JUDGE if adapter is None else named_adapter(adapter) if isinstance(adapter, str) else adapter
        if asks.reads != "yes_no":
            raise InputError(f"{found} is a judge, which is not read as {asks.name!r}; leave the adapter out")
        return RewardModel(rest, asks, truncation=truncation, trust_remote_code=trust_remote_code)
    return RewardModel(
        found, adapter, revision=revision, dtype=dtype, truncation=truncation, trust_remote_code=trust_remote_code
    )


def default_name(reward: Any) -> str:
    """The name that a reward's column gets: its own, a folder's last part, its function's or its class's.

    Raises
    ------
    InputError
        For a lambda.
    """
    if is_object_spec(reward):
        return str(reward).rpartition(":")[2]
    form, _, rest = str(reward).partition(":") if isinstance(reward, str) else ("", "", "")
    if form in ("judge", "pairwise") and is_asked(rest):
        return judge_name(str(reward))
    if isinstance(reward, str | Path):
        if form == "served":
            return redact(reward)  # a token in its address
        path = Path(reward).expanduser()
        return path.resolve().name if path.is_dir() and str(reward) not in REWARD_MODELS else str(reward)
    while isinstance(reward, partial):
        reward = reward.func
    name = getattr(reward, "__name__", None) or getattr(reward, "name", None) or type(reward).__name__
    if name == "<lambda>":
        raise InputError("this reward has no name of its own; give one with name='...'")
    return str(name)


__all__ = [
    "ADAPTERS", "FORMS", "OPTIONS", "REWARD_MODELS", "Adapter", "default_name", "find_reward", "kind_of", "make_reward",
    "options_for",
]  # fmt: skip
