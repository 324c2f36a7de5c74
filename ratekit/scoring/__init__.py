"""Rewards by name: `vader`, a model folder, a hub id, `judge:MODEL`.

Adding one is one literal in `REWARD_MODELS`, a kind that takes more than a name one in `FORMS`. A reward is read
once (`read_reward`), into a record of its kind, its column's name, its models and how it is made, which is passed on.

A reward is a plain callable, (prompts, responses) -> (n,) float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ratekit.columns import check_name
from ratekit.errors import InputError, unknown
from ratekit.measures import vader, words
from ratekit.redaction import redact
from ratekit.scoring.adapters import ADAPTERS, HUB, JUDGE, Adapter, named_adapter
from ratekit.scoring.base import Reward
from ratekit.scoring.llm_judges import is_asked, judge_name, judge_of
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


@dataclass(frozen=True)
class NamedReward:
    """A reward, read once: a name of one, or a callable.

    `spec` is the name as it was given, `kind` one of `OPTIONS`, `column` the name that its column gets ("" for a
    lambda, which has none), `places` the folders and hub ids of the models that it is made of (none for a function and
    for what a server answers), and `make` makes it of the options of its kind.
    """

    spec: str
    kind: str
    column: str
    places: tuple[str, ...]
    make: Callable[..., Reward]


RewardLike = str | Path | NamedReward | Reward  # what is taken wherever a reward is asked for


def read_reward(reward: RewardLike) -> NamedReward:
    """What a reward's name says, or a callable's; nothing is loaded but a function of the user's own.

    Raises
    ------
    InputError
        For what can be none, before any work is done.

    Examples
    --------
    >>> found = read_reward("org/model")
    >>> found.kind, found.column, found.places
    ('a model of the hub', 'org/model', ('org/model',))
    >>> read_reward("judge:openai:gpt-4o").kind
    'a model behind a server'
    """
    if isinstance(reward, NamedReward):
        return reward
    if not isinstance(reward, str | Path):
        name = _own_name(reward)
        return NamedReward(name, "a function", name, (), partial(_known, reward))
    name = str(reward)
    known = REWARD_MODELS.get(name)
    if known is not None and not isinstance(known, Adapter):
        return NamedReward(name, "a function", name, (), partial(_known, known))
    if is_object_spec(name):
        own = load_object(name)
        if not callable(own):
            raise InputError(
                f"{name} is of type {type(own).__name__}; a reward is (prompts, responses) -> (n,) numbers"
            )
        return NamedReward(name, "a function", name.rpartition(":")[2], (), partial(_known, cast(Reward, own)))
    form, colon, rest = name.partition(":")
    if colon and form in FORMS:
        return FORMS[form].read(name, rest)
    place = _model(name)
    folder = Path(place)
    column = folder.resolve().name if folder.is_dir() and name not in REWARD_MODELS else name
    kind = "a model's folder" if folder.is_dir() else "a model of the hub"
    return NamedReward(name, kind, column, (place,), partial(_run, place))


def _own_name(reward: Any) -> str:
    """A callable's name, or its class's; "" for a lambda."""
    if not callable(reward):
        raise InputError(f"a reward is a callable, a name or a path; got {type(reward).__name__}")
    while isinstance(reward, partial):
        reward = reward.func
    name = getattr(reward, "__name__", None) or getattr(reward, "name", None) or type(reward).__name__
    return "" if name == "<lambda>" else str(name)


def read_rewards(rewards: Any, names: str | Sequence[str] | None = None, **options: Any) -> dict[str, NamedReward]:
    """One or several rewards by the names of their columns, each told those of the options that its kind can use.

    Parameters
    ----------
    rewards
        A reward, a list of them, or a mapping of names to rewards.
    names
        Of the columns, where it is no mapping; by default each reward's own.
    options
        As of `make_reward`; None, False and ``truncation="prompt"`` are not given.

    Raises
    ------
    InputError
        For what can be no reward, for two of one name, for a lambda without a name, and for an option that none of the
        rewards can use: it would be passed over in silence. All before any work is done.

    Examples
    --------
    >>> {name: reward.kind for name, reward in read_rewards(["vader", "org/model"]).items()}
    {'vader': 'a function', 'org/model': 'a model of the hub'}
    """
    if isinstance(rewards, Mapping):
        rewards, names = list(rewards.values()), list(rewards)
    found = [read_reward(one) for one in (rewards if isinstance(rewards, list | tuple) else [rewards])]
    columns = [names] if isinstance(names, str) else [r.column for r in found] if names is None else list(names)
    if len(columns) != len(found):
        raise InputError(f"{len(columns)} names were given for {len(found)} rewards")
    for column in columns:
        check_name(column, "the reward's name")
        if not column:
            raise InputError("this reward has no name of its own; give one with name='...', or as {'...': reward}")
        if columns.count(column) > 1:
            raise InputError(
                f"two rewards are called {column!r}, and one would replace the other; name them or rename a folder"
            )
    told = _told(found, **options)
    return {column: replace(reward, spec=reward.spec or column) for column, reward in zip(columns, told, strict=True)}


def _known(reward: Reward) -> Reward:
    return reward


def _run(place: str, adapter: str | Adapter | None = None, **options: Any) -> Reward:
    from ratekit.scoring.model import RewardModel

    return RewardModel(place, adapter, **options)


def _served(name: str, rest: str) -> NamedReward:
    if not rest.startswith(("http://", "https://")):
        raise InputError(f"{name}: the address of the server is missing; write {FORMS['served'].about}")
    url, model, tokenizer = (*(part or None for part in rest.split(",")), None, None)[:3]

    def make() -> Reward:
        from ratekit.scoring.served import ServedReward

        return ServedReward(url or "", model=model, tokenizer=tokenizer)

    return NamedReward(name, "a model behind a server", redact(name), (), make)  # a token in its address


def _asked(name: str) -> NamedReward:
    judge_of(name)  # what is wrong with it is better known before any work
    return NamedReward(name, "a model behind a server", judge_name(name), (), partial(judge_of, name))


def _judge(name: str, rest: str) -> NamedReward:
    if is_asked(rest):
        return _asked(name)
    place = _model(rest)

    def make(adapter: str | Adapter | None = None, **options: Any) -> Reward:
        asks = JUDGE if adapter is None else named_adapter(adapter) if isinstance(adapter, str) else adapter
        if asks.reads != "yes_no":
            raise InputError(f"{name} is a judge, which is not read as {asks.name!r}; leave the adapter out")
        return _run(place, asks, **options)

    return NamedReward(name, "a judge that is run here", name, (place,), make)


def _pairwise(name: str, rest: str) -> NamedReward:
    if is_asked(rest):
        return _asked(name)
    model, comma, references = rest.rpartition(",")
    folder = Path(references).expanduser()
    if not comma or not folder.exists():
        raise InputError(f"{name}: a file of reference responses is needed; write {FORMS['pairwise'].about}")
    place = _model(model)

    def make(**options: Any) -> Reward:
        from ratekit.scoring.judges import PairwiseJudge

        return PairwiseJudge(place, folder, **options)

    return NamedReward(name, "a judge of pairs", name, (place, str(folder)), make)


def _dpo(name: str, rest: str) -> NamedReward:
    if len(rest.split(",")) != 2:
        raise InputError(f"{name}: two models are needed; write {FORMS['dpo'].about}")
    policy, reference = map(_model, rest.split(","))

    def make(**options: Any) -> Reward:
        from ratekit.scoring.judges import DpoReward

        return DpoReward(policy, reference, **options)

    return NamedReward(name, "a pair of models", name, (policy, reference), make)


class Form(NamedTuple):
    """A kind of reward that takes more than a name: what is said of it, and how (name, after the colon) is read."""

    about: str
    read: Callable[[str, str], NamedReward]


FORMS: dict[str, Form] = {
    "judge": Form(
        "a language model asked whether the response is good (judge:MODEL), or for a score by a rubric, behind a "
        "server (judge:openai:MODEL,rubric=FILE,scale=1-10,criteria=A+B,repeats=K)",
        _judge,
    ),
    "pairwise": Form(
        "a language model asked which of two responses is better (pairwise:MODEL,REFERENCES; the file holds "
        "prompt and response, the one that others are compared with; pairwise:openai:MODEL,REFERENCES behind a server)",
        _pairwise,
    ),
    "dpo": Form("the reward implicit in a model trained by preference (dpo:POLICY,REFERENCE)", _dpo),
    "served": Form(
        "a scorer behind a server (served:http://HOST:PORT/classify, or /score, /pooling, /predict, /get_reward; "
        "served:URL,MODEL names the model, served:URL,MODEL,TOKENIZER sends text in that tokenizer's chat template)",
        _served,
    ),
}


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


def _told(rewards: Sequence[NamedReward], **options: Any) -> list[NamedReward]:
    """The rewards, each to be made with the options of its kind. Raises InputError for one that none can use."""
    given = {k: v for k, v in options.items() if v not in (None, False) and (k, v) != ("truncation", "prompt")}
    for option, value in given.items():
        if not any(option in OPTIONS[reward.kind] for reward in rewards):
            named = "; ".join(f"{redact(reward.spec)} is {reward.kind}" for reward in rewards)
            raise InputError(
                f"{option.replace('_', '-')}={getattr(value, 'name', value)} has no meaning here and would be passed "
                f"over: {named}"
            )
    return [
        replace(reward, make=partial(reward.make, **{k: v for k, v in given.items() if k in OPTIONS[reward.kind]}))
        for reward in rewards
    ]


def make_reward(
    reward: RewardLike,
    *,
    adapter: str | Adapter | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    truncation: str = "prompt",
    trust_remote_code: bool = False,
) -> Reward:
    """The reward of that name: one of `REWARD_MODELS`, a local model folder, a hub id, one of `FORMS`; or a callable.

    Parameters
    ----------
    reward
        The name, what `read_reward` read of it, or a callable, which is the reward itself.
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
    (found,) = _told(
        [read_reward(reward)], adapter=adapter, revision=revision, dtype=dtype, truncation=truncation,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    return found.make()


__all__ = [
    "ADAPTERS", "FORMS", "OPTIONS", "REWARD_MODELS", "Adapter", "Form", "NamedReward", "RewardLike", "make_reward",
    "read_reward", "read_rewards",
]  # fmt: skip
