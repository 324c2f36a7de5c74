"""An Inspect scorer or log as the auditee, and an audit as an Inspect log.

    pip install 'ratekit[bridges]'
    python examples/inspect_scorer.py

Inspect (https://inspect.aisi.org.uk) scores a model's output with scorers. What does such a scorer pay for besides what
it is meant to? `reward_of` makes a reward of it, which `rk.audit` takes as any other; `rows_of` are a log's prompts and
responses; `log_of` writes an audit's texts, rewards and effects as a log that `inspect view` shows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelName, ModelOutput, get_model
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, includes, mean, metric, scorer, value_to_float
from inspect_ai.solver import Generate, Solver, TaskState, solver

import ratekit as rk
from ratekit.schema import as_conversation, prompt_text

MOCK = "mockllm/model"


def reward_of(
    judge: Scorer, target: str | Mapping[str, str] = "", key: str | None = None
) -> Callable[[Sequence[Any], Sequence[str]], list[float]]:
    """A scorer as a reward: (prompts, responses) -> numbers; C, P, I and N are 1, 0.5, 0 and 0.

    `target` is one for all, or {prompt: target}; `key` picks one of a scorer's several values.
    """

    async def one(prompt: Any, response: str) -> float:
        asked = prompt_text(as_conversation(prompt))
        state = TaskState(
            model=ModelName(MOCK), sample_id=0, epoch=0, input=asked, output=ModelOutput.from_content(MOCK, response),
            messages=[ChatMessageUser(content=asked), ChatMessageAssistant(content=response)],
        )  # fmt: skip
        score = await judge(state, Target(target if isinstance(target, str) else target[asked]))
        return math.nan if score is None else number(score.value, key)

    async def every(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return await asyncio.gather(*(one(p, r) for p, r in zip(prompts, responses, strict=True)))

    def reward(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        with ThreadPoolExecutor(1) as thread:  # a notebook's own thread has a loop that runs already
            return thread.submit(lambda: asyncio.run(every(prompts, responses))).result()

    return reward


def number(value: Any, key: str | None = None) -> float:
    """A score's value; InputError for what Inspect would take for 0 with a warning: a word, a list, several values."""
    if isinstance(value, Mapping) and key in value:
        value = value[key]
    words = ("c", "i", "p", "n", "yes", "no", "true", "false")
    if isinstance(value, int | float) or (isinstance(value, str) and value.lower() in words):
        return value_to_float()(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    keys = f"; key= names one of {', '.join(value)}" if isinstance(value, Mapping) else ""
    raise rk.InputError(f"the scorer's value {str(value)[:60]!r} is no number{keys}")


def rows_of(log: EvalLog | str) -> tuple[list[dict[str, str]], dict[str, str]]:
    """A log's prompts and responses as rows, several to a prompt where it has epochs, and {prompt: target}."""
    log = read_eval_log(log) if isinstance(log, str) else log
    said = [(s, prompt_text([{"role": m.role, "content": m.text} for m in _asked(s)])) for s in log.samples or []]
    rows = [{"prompt_id": str(s.id), "prompt": p, "response": s.output.completion} for s, p in said if not s.error]
    return rows, {p: "\n".join([s.target] if isinstance(s.target, str) else s.target) for s, p in said}


def _asked(sample: Any) -> Sequence[Any]:
    return [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else sample.input


def log_of(audit: rk.Audit, folder: str) -> EvalLog:
    """The audit as a log in `folder`: a sample for each text with its rewards; the metrics are the effects in SDs."""
    models = [c.removeprefix("reward/") for c in audit.dataset.column_names if c.startswith("reward/")]
    samples, texts, rewards = [], {}, {}
    for i, row in enumerate(audit.dataset):
        for k, text in enumerate([row["response"], *row["rewrites"]]):
            if text is not None:
                name = f"{i}-{k}"
                about = {c: row[c] for c in ("prompt_id", "attribute", "treated")} | {"rewrite": k}
                samples.append(Sample(input=prompt_text(row["prompt"]), id=name, metadata=about))
                texts[name], rewards[name] = text, {m: row[f"reward/{m}"][k] for m in models}
    effects = audit.effects[audit.effects["recommended"]].to_dict("records")

    @solver
    def said() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            state.output = ModelOutput.from_content(MOCK, texts[str(state.sample_id)])
            state.messages.append(state.output.message)
            return state

        return solve

    @metric
    def rate(model: str) -> Metric:
        def effect(scores: list[SampleScore]) -> dict[str, float]:
            return {r["attribute"]: r["estimate_sd"] for r in effects if r["reward_model"] == model}

        return effect

    @scorer(metrics={m: [rate(m)] for m in models}, name="ratekit")
    def stored() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            of = rewards[str(state.sample_id)]
            return Score(value={m: math.nan if v is None else v for m, v in of.items()})

        return score

    about = {"verdicts": [f"{v.attribute}, {v.reward_model}: {v.word}; {v.grounds}" for v in audit.verdicts]}
    task = Task(dataset=samples, solver=said(), scorer=stored(), name="ratekit", metadata=about)
    return eval(task, model=get_model(MOCK), log_dir=folder, display="none")[0]


@scorer(metrics=[mean()])
def exclaims() -> Scorer:
    """A scorer with a bias: a tenth for each exclamation mark."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=0.1 * state.output.completion.count("!") + len(state.output.completion) % 7 / 70)

    return score


if __name__ == "__main__":
    texts = rk.load("reviews", attribute="length")["response"]
    rows = [{"prompt": f"Review {i}", "response": text} for i, text in enumerate(texts)]
    judges = {"exclaims": reward_of(exclaims()), "includes": reward_of(includes(), target="great")}
    audit = rk.audit(rows, judges, "exclamation", rewriter="rules", progress=False)
    print(audit)
    print(log_of(audit, "logs").location)
