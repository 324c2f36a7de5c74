"""The contract of scoring: a reward is `(prompts, responses) -> (n,) float64`, a plain callable.

A reward that knows more than the number (what it cut off, what it could not read, its objectives) also has a method
`scores(prompts, responses) -> Scores` and a `fingerprint` under which its scores can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ratekit.rewriting.base import EMPTY as EMPTY
from ratekit.rewriting.base import FAILED as FAILED  # here: the model, the function or the server failed on this text
from ratekit.rewriting.base import NOT_ATTEMPTED as NOT_ATTEMPTED
from ratekit.rewriting.base import NOT_TEXT as NOT_TEXT
from ratekit.rewriting.base import OK as OK
from ratekit.rewriting.base import REFUSED as REFUSED
from ratekit.rewriting.base import TRUNCATED as TRUNCATED  # here: scored, but it is longer than the model reads

Reward = Callable[[Sequence[Any], Sequence[str]], ArrayLike]

TEMPLATE_REFUSES = "template"  # the chat template refuses the conversation
TOO_LONG = "too_long"  # over the limit even with everything cut that may be cut
NOT_FINITE = "not_finite"  # the model gave NaN or infinity
UNPARSABLE = "unparsable"  # a reply in which no score of the scale can be read
INCOMPLETE = "incomplete"  # a reply that leaves out one of the criteria; those that it has count

SCORED = (OK, TRUNCATED)


class Scores(NamedTuple):
    """What a reward says of n texts.

    Parameters
    ----------
    rewards
        (n,) float64, NaN where there is none
    statuses
        n of the words above
    parts
        objective -> (n,) float64, for a reward that is made of several
    tokens
        (n,) how many tokens each text has, 0 where it was not read
    reasons
        status -> what was said the first time, where more is known than the status
    """

    rewards: NDArray[np.float64]
    statuses: list[str]
    parts: dict[str, NDArray[np.float64]]
    tokens: NDArray[np.int64]
    reasons: Mapping[str, str] = MappingProxyType({})


class CalledByScores:
    """A reward with `scores`; called, it gives the rewards (n,) float64 alone."""

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards, and of each text how it fared."""
        raise NotImplementedError

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> NDArray[np.float64]:
        """Rewards (n,) of n responses to n prompts (conversations or strings); NaN where there is none."""
        return self.scores(prompts, responses).rewards


@runtime_checkable
class DetailedReward(Protocol):
    """A reward that says how each score came about, and can be named exactly."""

    name: str

    @property
    def fingerprint(self) -> dict[str, str]:
        """model, revision, adapter and dtype: with the text, all that a score depends on."""

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """The rewards and how they came about."""
