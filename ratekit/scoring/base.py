"""The contract of scoring: a reward is `(prompts, responses) -> (n,) float64`, a plain callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

Reward = Callable[[Sequence[Any], Sequence[str]], ArrayLike]
