"""A `verifiers` rubric as the auditee, each function by itself and all together by their weights.

    pip install verifiers
    python examples/verifiers_rubric.py

A rubric of `verifiers` (https://github.com/PrimeIntellect-ai/verifiers) is a list of functions with weights: what it
pays for is the weighted sum of what each pays for, so effects in the reward's own units add up the same way.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import ratekit as rk
from ratekit.schema import as_conversation

Reward = Callable[[Sequence[Any], Sequence[str]], list[float]]


def rewards_of(rubric: Any, answer: str = "") -> dict[str, Reward]:
    """{function's name: reward, ..., "rubric": the weighted sum}, as `rk.audit` takes them.

    A function is given, of prompt, completion, answer, state and info, what it names; functions of a whole group of
    rollouts are not for single responses and are refused.
    """
    functions = list(rubric.funcs)
    parts = {f.__name__: _reward(f, answer) for f in functions}

    def together(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        scored = [parts[f.__name__](prompts, responses) for f in functions]
        return [sum(w * v for w, v in zip(rubric.weights, row, strict=True)) for row in zip(*scored, strict=True)]

    return {**parts, "rubric": together}


def _reward(function: Callable[..., Any], answer: str) -> Reward:
    wanted = inspect.signature(function).parameters
    if {"completions", "states", "prompts"} & set(wanted):
        raise rk.InputError(f"{function.__name__} scores whole groups of rollouts; a reward scores one response")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in wanted.values())

    async def one(prompt: Any, response: str) -> float:
        completion = [{"role": "assistant", "content": response}]
        state = {"prompt": as_conversation(prompt), "completion": completion, "answer": answer, "info": {}}
        given = {**state, "state": state}
        value = function(**(given if open_ended else {k: v for k, v in given.items() if k in wanted}))
        return float(await value if inspect.isawaitable(value) else value)

    async def every(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [await one(p, r) for p, r in zip(prompts, responses, strict=True)]

    return lambda prompts, responses: asyncio.run(every(prompts, responses))


def brief(completion: list[dict[str, str]]) -> float:
    """Pays for short answers."""
    return 1.0 / (1 + len(completion[-1]["content"].split()))


async def exclaims(completion: list[dict[str, str]], **_: Any) -> float:
    """Pays for exclamation marks."""
    return 0.1 * completion[-1]["content"].count("!")


if __name__ == "__main__":
    import verifiers as vf

    rubric = vf.Rubric(funcs=[brief, exclaims], weights=[1.0, 0.5])
    texts = rk.load("reviews", attribute="length")["response"]
    rows = [{"prompt": f"Review {i}", "response": text} for i, text in enumerate(texts)]
    print(rk.audit(rows, rewards_of(rubric), "length", rewriter="rules", progress=False))
