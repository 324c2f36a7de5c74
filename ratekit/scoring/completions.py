"""Reward functions in TRL's signature, `(completions, **columns) -> list of float or None`, taken as they are.

    def reward(completions, solution, **kwargs):  # `solution` is a column of the data
        return [1.0 if s in c else 0.0 for c, s in zip(completions, solution)]

A function whose first parameters hold `completions` is one. It gets prompts, completions and every other column of the
rows by name. Completions are strings; where the function takes none of those (TypeError) they are what TRL gives for
conversations, a list of one ``{"role": "assistant", "content": ...}`` each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError
from ratekit.schema import as_conversation, prompt_text

Columns = dict[str, list[Any]]


def takes_completions(function: Any) -> bool:
    """Whether a function has TRL's signature.

    Examples
    --------
    >>> takes_completions(lambda completions, **kwargs: []), takes_completions(lambda prompts, responses: [])
    (True, False)
    """
    try:
        return callable(function) and "completions" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


class CompletionsReward:
    """A function of TRL's signature, asked about some rows.

    Examples
    --------
    >>> def short(completions, limit, **kwargs): return [float(len(c) < n) for c, n in zip(completions, limit)]
    >>> CompletionsReward(short)(["Why?"], ["So."], {"limit": [10]})
    array([1.])
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.as_messages = False

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str], columns: Columns) -> NDArray[np.float64]:
        """Rewards (n,) float64; NaN where the function gives None. Raises InputError for a column that is not there."""
        known = inspect.signature(self.function).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
        have = {"prompts", "completions", *columns}
        for name, p in known.items():
            if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in have:
                raise InputError(f"the reward function needs the column {name!r}, which the rows lack")
        more = {n: values for n, values in columns.items() if (open_ended or n in known) and n not in _OWN}
        if not self.as_messages:
            try:
                return self._ask([prompt_text(p) for p in prompts], list(responses), more, open_ended, known)
            except TypeError:
                self.as_messages = True
                try:
                    return self._messages(prompts, responses, more, open_ended, known)
                except Exception:
                    self.as_messages = False
                    raise
        return self._messages(prompts, responses, more, open_ended, known)

    def _messages(self, prompts: Any, responses: Any, more: Columns, open_ended: bool, known: Any) -> Any:
        said = [[{"role": "assistant", "content": r}] for r in responses]
        return self._ask([as_conversation(p) for p in prompts], said, more, open_ended, known)

    def _ask(self, prompts: list[Any], completions: list[Any], more: Columns, open_ended: bool, known: Any) -> Any:
        given = {"prompts": prompts} if open_ended or "prompts" in known else {}
        return np.asarray(self.function(completions=completions, **given, **more), dtype=np.float64)


_OWN = ("prompts", "completions")
