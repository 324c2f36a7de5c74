"""A `verifiers` rubric as the auditee, each of its parts by itself and all together by their weights.

    pip install 'ratekit[bridges]'
    python examples/verifiers_rubric.py

A rubric of `verifiers` (https://github.com/PrimeIntellect-ai/verifiers) is a list of functions with weights, a task of
`verifiers.v1` a class of methods with weights, and of judges with criteria: what either pays for is the weighted sum of
what each part pays for, so effects in the reward's own units add up the same way. From 0.4 on, `verifiers` has tasks
alone and asks for an older `openai` than ratekit does.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_origin

import ratekit as rk
from ratekit.schema import as_conversation, prompt_text

Reward = Callable[[Sequence[Any], Sequence[str]], list[float]]
ALL = "total"


def rewards_of(rubric: Any, answer: str = "") -> dict[str, Reward]:
    """{part's name: reward, ..., "total": the weighted sum}, as `rk.audit` takes them.

    A text is scored once for all parts. Functions of a whole group of rollouts, and methods that need a runtime, are
    not for single responses and are refused.
    """
    names, score = _of_task(rubric) if hasattr(rubric, "hooks") else _of_rubric(rubric, answer)
    twice = sorted({n for n in names if names.count(n) > 1 or n == ALL})
    if twice:
        raise rk.InputError(f"more than one part of the rubric is named {', '.join(twice)}; name them apart")
    known: dict[tuple[str, str], dict[str, float]] = {}

    async def fill(missing: dict[tuple[str, str], Any]) -> None:
        known.update(zip(missing, await asyncio.gather(*(score(p, r) for (_, r), p in missing.items())), strict=True))

    def reward(name: str) -> Reward:
        def part(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
            keys = [(repr(as_conversation(p)), r) for p, r in zip(prompts, responses, strict=True)]
            missing = {k: p for k, p in zip(keys, prompts, strict=True) if k not in known}
            with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has a loop that runs already
                thread.submit(lambda: asyncio.run(fill(missing))).result()
            return [known[k][name] for k in keys]

        return part

    return {name: reward(name) for name in [*names, ALL]}


Score = Callable[[Any, str], Awaitable[dict[str, float]]]


def _of_rubric(rubric: Any, answer: str) -> tuple[list[str], Score]:
    """The functions of a `Rubric`; each is given, of what it could have, what it names."""
    functions = [(getattr(f, "__name__", repr(f)), f, w) for f, w in zip(rubric.funcs, rubric.weights, strict=True)]
    for name, f, _ in functions:
        wanted, returned = inspect.signature(f).parameters, inspect.signature(f, eval_str=True).return_annotation
        if {"completions", "states", "prompts", "answers"} & set(wanted) or list in (returned, get_origin(returned)):
            raise rk.InputError(f"{name} scores whole groups of rollouts; a reward scores one response")

    async def score(prompt: Any, response: str) -> dict[str, float]:
        completion = [{"role": "assistant", "content": response}]
        state = {"prompt": as_conversation(prompt), "completion": completion, "answer": answer, "info": {}}
        given = {**state, "state": state, **getattr(rubric, "class_objects", {})}
        found: dict[str, float] = {}
        for name, f, _ in functions:
            wanted = inspect.signature(f).parameters
            open_ended = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
            value = f(**(given if open_ended else {k: v for k, v in given.items() if k in wanted}))
            found[name] = float(await value if inspect.isawaitable(value) else value)
        return found | {ALL: sum(w * found[name] for name, _, w in functions)}

    return [name for name, *_ in functions], score


def _of_task(task: Any) -> tuple[list[str], Score]:
    """The rewards and judges of a `verifiers.v1` task, and a rubric judge's criteria as "judge/criterion"."""
    import verifiers.v1 as vf

    for f in task.hooks("reward"):
        if "runtime" in inspect.signature(f).parameters:
            raise rk.InputError(f"{f.__name__} needs a runtime; a reward scores one response")
    names = [f.__name__ for f in task.hooks("reward")]
    for judge in task.plugged_judges():
        names += [judge.reward_name, *(f"{judge.reward_name}/{c.name}" for c in getattr(judge, "criteria", []))]

    async def score(prompt: Any, response: str) -> dict[str, float]:
        asked = copy.copy(task)
        asked.data = task.data.model_copy(update={"prompt": prompt_text(as_conversation(prompt))})
        trace = vf.Trace(
            task=vf.TraceTask(type=type(task).__name__, data=asked.data),
            agent=vf.AgentInfo(config=vf.AgentConfig()), state=vf.State(),
            nodes=[vf.MessageNode(message=vf.UserMessage(content=asked.data.prompt_text)),
                   vf.MessageNode(parent=0, message=vf.AssistantMessage(content=response), sampled=True)],
        )  # fmt: skip
        await asked.score(trace)
        found = {**trace.metrics, **{name: r.score for name, r in trace.rewards.items()}}
        absent = [n for n in names if found.get(n) is None]
        if absent:
            raise rk.InputError(f"{', '.join(absent)}: no score by that name; a part has to return one number")
        return {n: found[n] for n in names} | {ALL: trace.reward}

    return names, score


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
