"""An Inspect scorer as the auditee, and an audit's rows as an Inspect log.

    pip install inspect-ai
    python examples/inspect_scorer.py

Inspect (https://inspect.aisi.org.uk) scores a model's output with scorers. What does such a scorer pay for besides what
it is meant to? `reward_of` makes a reward of it, which `rk.audit` takes as any other; `scored_by` runs texts through an
Inspect task, so that they stand in a log which `inspect view` shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageAssistant, ModelName, ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, value_to_float
from inspect_ai.solver import Generate, Solver, TaskState, solver

import ratekit as rk
from ratekit.discovery import CANDIDATES
from ratekit.schema import as_conversation, prompt_text


def reward_of(judge: Scorer, target: str = "") -> Callable[[Sequence[Any], Sequence[str]], list[float]]:
    """A scorer as a reward: (prompts, responses) -> numbers; C, P, I and N are 1, 0.5, 0 and 0."""
    number = value_to_float()

    async def one(prompt: Any, response: str) -> float:
        state = TaskState(
            model=ModelName("mockllm/model"), sample_id=0, epoch=0, input=prompt_text(as_conversation(prompt)),
            messages=[ChatMessageAssistant(content=response)],
            output=ModelOutput.from_content("mockllm/model", response),
        )  # fmt: skip
        score = await judge(state, Target(target))
        return float("nan") if score is None else number(score.value)

    async def every(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [await one(p, r) for p, r in zip(prompts, responses, strict=True)]

    return lambda prompts, responses: asyncio.run(every(prompts, responses))


@solver
def said(responses: Sequence[str]) -> Solver:
    """A solver that says what is given, so that an eval asks no model."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        text = responses[int(state.sample_id) - 1]
        state.messages.append(ChatMessageAssistant(content=text))
        state.output = ModelOutput.from_content("mockllm/model", text)
        return state

    return solve


def scored_by(judge: Scorer, prompts: Sequence[Any], responses: Sequence[str], folder: str) -> EvalLog:
    """The log of an eval in which these responses are scored; it lies in `folder`."""
    samples = [Sample(input=prompt_text(as_conversation(p)), id=i) for i, p in enumerate(prompts, 1)]
    task = Task(dataset=samples, solver=said(responses), scorer=judge)
    return eval(task, model=get_model("mockllm/model"), log_dir=folder, display="none")[0]


@scorer(metrics=[mean()])
def exclaims() -> Scorer:
    """A scorer with a bias: a tenth for each exclamation mark."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=0.1 * state.output.completion.count("!") + len(state.output.completion) % 7 / 70)

    return score


if __name__ == "__main__":
    texts = rk.load("reviews", attribute="length")["response"]
    rows = [{"prompt": f"Review {i}", "response": text} for i, text in enumerate(texts)]
    judge = {"exclaims": reward_of(exclaims())}
    print(rk.audit(rows, judge, CANDIDATES["exclamation"].attribute, rewriter="rules", progress=False))
    print(scored_by(exclaims(), [r["prompt"] for r in rows[:5]], texts[:5], "logs").location)
