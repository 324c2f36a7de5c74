"""Rewards by name: `vader`, a model folder, a hub id, `judge:MODEL`.

Adding one is one literal in `REWARD_MODELS`, a kind that takes more than a name one in `FORMS`. A name is read once
(`read_reward`), into a record of its kind, its column's name, its models and how it is made.

A reward is a plain callable, (prompts, responses) -> (n,) float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

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
    """A reward that was named, read once.

    `spec` is the name as it was given, `kind` one of `OPTIONS`, `column` the name that its column gets, `places`
    the folders and hub ids of the models that it is made of (none for a function and for what a server answers), and
    `make` makes it of the options of its kind.
    """

    spec: str
    kind: str
    column: str
    places: tuple[str, ...]
    make: Callable[..., Reward]


def read_reward(reward: str | Path | NamedReward) -> NamedReward:
    """What a reward's name says; nothing is loaded but a function of the user's own.

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
    from_spec(name)  # what is wrong with it is better known before any work
    return NamedReward(name, "a model behind a server", judge_name(name), (), partial(from_spec, name))


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


def kind_of(reward: Any) -> str:
    """Which of the kinds in `OPTIONS` a reward is of.

    Examples
    --------
    >>> kind_of("vader"), kind_of("org/model")
    ('a function', 'a model of the hub')
    """
    return read_reward(reward).kind if isinstance(reward, str | Path | NamedReward) else "a function"


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
            named = "; ".join(f"{redact(_shown(r))} is {kind}" for r, kind in zip(rewards, kinds, strict=True))
            word = option.replace("_", "-")
            raise InputError(
                f"{word}={getattr(value, 'name', value)} has no meaning here and would be passed over: {named}"
            )
    return [{option: value for option, value in given.items() if option in OPTIONS[kind]} for kind in kinds]


def _shown(reward: Any) -> str:
    if isinstance(reward, NamedReward):
        return reward.spec
    return str(reward if isinstance(reward, str | Path) else getattr(reward, "__name__", type(reward).__name__))


def make_reward(
    reward: str | Path | NamedReward | Reward,
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
    found: Any = read_reward(reward) if isinstance(reward, str | Path) else reward
    (told,) = options_for(
        [found], adapter=adapter, revision=revision, dtype=dtype, truncation=truncation,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if isinstance(found, NamedReward):
        return found.make(**told)
    if not callable(found):
        raise InputError(f"a reward is a callable, a name or a path; got {type(found).__name__}")
    return cast(Reward, found)


def default_name(reward: Any) -> str:
    """The name that a reward's column gets: its own, a folder's last part, its function's or its class's.

    Raises
    ------
    InputError
        For a lambda, and for a name that can be no reward.
    """
    if isinstance(reward, str | Path | NamedReward):
        return read_reward(reward).column
    while isinstance(reward, partial):
        reward = reward.func
    name = getattr(reward, "__name__", None) or getattr(reward, "name", None) or type(reward).__name__
    if name == "<lambda>":
        raise InputError("this reward has no name of its own; give one with name='...'")
    return str(name)


__all__ = [
    "ADAPTERS", "FORMS", "OPTIONS", "REWARD_MODELS", "Adapter", "Form", "NamedReward", "default_name", "kind_of",
    "make_reward", "options_for", "read_reward",
]  # fmt: skip
