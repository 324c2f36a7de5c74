"""How an LLM is asked: every parameter stands here once, and reaches chats, Batch lines and the command line from here.

To add one, add its field (with its help) to `Sampling` where replies depend on it, to `Limits` where they do not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any

from ratekit.errors import InputError, require_whole
from ratekit.redaction import Address


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What a reply depends on besides the model and the messages.

    The defaults are the same for every chat. None leaves a parameter out of the request, and the server decides.

    Parameters
    ----------
    max_tokens
        Of one reply; a longer one is cut off and its `finish_reason` is "length".
    temperature
        0 is greedy.
    seed
        Of the sampling, where the server has one.
    top_p
        Share of the probability that is sampled from.
    reasoning_effort
        Of models that think before they answer: "low", "medium", "high" or what the server knows.

    Raises
    ------
    InputError
        Where a number is out of its range.
    """

    max_tokens: int | None = _option(2048, "Most tokens of a reply; `none`: the server decides.")
    temperature: float | None = _option(0.7, "0 is greedy; `none`: the server decides.")
    seed: int | None = _option(None, "Seed of the LLM's sampling. [default: none is sent; hf: 0]")
    top_p: float | None = _option(
        None, "Share of the probability sampled from, 0 to 1. [default: the server decides; hf: 1]"
    )
    reasoning_effort: str | None = _option(
        None, "Of models that think first: low, medium or high. [default: the model's own]"
    )

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            require_whole("max_tokens", self.max_tokens, 1)
        if self.seed is not None:
            require_whole("seed", self.seed)
        if self.temperature is not None and not 0 <= self.temperature <= 100:
            raise InputError(f"temperature={self.temperature}: a number from 0 was expected")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: a share above 0 and up to 1 was expected")

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters that are sent, by their names in a request."""
        values = {f.name: getattr(self, f.name) for f in fields(Sampling)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def params(self) -> str:
        """The parameters in one line, part of the address of a reply in the cache."""
        return ",".join(f"{name}={value}" for name, value in self.sampling.items())


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How fast a server is asked, and how long it is waited for.

    Parameters
    ----------
    concurrency
        Requests under way at most; it falls when the server answers 429, and recovers.
    rpm, tpm
        Requests and tokens a minute that the server allows, where they are known; they are kept to.
    timeout
        Seconds for one request.
    grace
        Seconds that requests under way are waited for when a run is stopped.
    """

    concurrency: int = _option(64, "Most requests at a time.")
    rpm: float | None = _option(None, "Most requests a minute. [default: no limit]")
    tpm: float | None = _option(None, "Most tokens a minute. [default: no limit]")
    timeout: float = _option(120.0, "Seconds that one request may take.")
    grace: float = _option(60.0, "Seconds to wait for open requests when stopped.")

    def check_limits(self) -> None:
        """Raise InputError where a number is out of its range."""
        require_whole("concurrency", self.concurrency, 1)
        require_positive(self, "rpm", "tpm", "timeout")
        if not self.grace >= 0:
            raise InputError(f"grace={self.grace}: a number of seconds from 0 was expected")


@dataclass(frozen=True, kw_only=True)
class Options(Sampling, Limits):
    """How an LLM is asked, beside its name.

    Parameters
    ----------
    base_url
        Of an OpenAI-compatible server; by default OPENAI_BASE_URL of the environment, else OpenAI.
    template
        The rewriting prompt, with {phrase}, {response} and, if wanted, {prompt}.
    retry_failed
        Ask again for what the cache holds without being a rewrite.
    judged
        Judge replayed rewrites as a model's replies are (`Replay`).

    Examples
    --------
    >>> Options(temperature=None, seed=3).params
    'max_tokens=2048,seed=3'
    """

    base_url: str | None = _option(
        None, "Address of an OpenAI-compatible server. [default: OPENAI_BASE_URL, else OpenAI]"
    )
    template: str | None = _option(None, "The rewriting prompt.")
    retry_failed: bool = _option(False, "Ask again where a reply was no rewrite.")
    judged: bool = _option(False, "Judge replayed rewrites as new replies are judged.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_limits()
        if self.base_url is not None:
            object.__setattr__(self, "base_url", Address(self.base_url))

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the replies and is not the default: two runs with an equal one have equal requests."""
        names = ["template", *(f.name for f in fields(Sampling))]
        default = Options()
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(default, n)}

    def taken_by(self, chat: type, kind: str) -> dict[str, Any]:
        """The options that are parameters of a chat. Raises InputError for one that is set and that it lacks."""
        default = Options()
        ours = ("template", "retry_failed", "judged")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ours}
        known = {f.name for f in fields(chat)}
        for name in given.keys() - known:
            if given[name] != getattr(default, name):
                raise InputError(f"--{name.replace('_', '-')} is for openai:MODEL; {kind}:MODEL has no such parameter")
        return {name: value for name, value in given.items() if name in known}


def require_positive(owner: Any, *names: str) -> None:
    """Raise InputError for a parameter that is given and not above 0."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and not value > 0:
            raise InputError(f"{name}={value}: a positive number was expected")


def key_from_environment(name: str = "OPENAI_API_KEY") -> str | None:
    """The key in a variable of the environment, without the white space that a file or a shell leaves around it.

    Returns
    -------
    str or None
        None where the variable is not set or blank.

    Raises
    ------
    InputError
        Where the key holds what no header can carry: a line break, a space, a letter beyond ASCII. It is not shown.
    """
    key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            f"{name} holds a space, a line break or a character beyond ASCII, so it is no key; copy it again, "
            "without quotes"
        )
    return key or None
