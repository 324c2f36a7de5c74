"""Bridges: what other libraries score with, as a reward. Inspect and verifiers are tested where they are installed."""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from rewriting_support import Server

import ratekit as rk

sys.path.insert(0, str(ROOT / "examples"))
import verifiers_rubric as bridge  # examples/verifiers_rubric.py

RUBRIC = SimpleNamespace(funcs=[bridge.brief, bridge.exclaims], weights=[1.0, 0.5])
TEXTS = ["One.", "Two words!", "Three words here!!"]
PROMPTS = ["Hi"] * 3
SUMS = pytest.approx([1 / 2, 1 / 3 + 0.05, 1 / 4 + 0.1])


def test_a_rubric_is_its_functions_and_their_weighted_sum():
    rewards = bridge.rewards_of(RUBRIC)
    assert list(rewards) == ["brief", "exclaims", "total"]
    assert rewards["exclaims"](PROMPTS, TEXTS) == pytest.approx([0.0, 0.1, 0.2])
    assert rewards["total"](PROMPTS, TEXTS) == SUMS


def test_effects_of_a_rubric_add_up_by_its_weights():
    rows = rk.load("reviews", attribute="length")
    for name, reward in bridge.rewards_of(RUBRIC).items():
        rows = rk.score(rows, reward, name=name, progress=False)
    table = rk.estimate(rows).query("estimator == 'rate' and estimand == 'ate'").set_index("reward_model")["estimate"]
    assert table["total"] == pytest.approx(table["brief"] + 0.5 * table["exclaims"])


def of_many() -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([lambda completions: [0.0]], "whole groups"),
        ([of_many], "whole groups"),
        ([lambda completion: 0.0, lambda completion: 1.0], "more than one part of the rubric is named <lambda>"),
    ],
)
def test_what_is_no_part_is_refused(functions, message):
    with pytest.raises(rk.InputError, match=message):
        bridge.rewards_of(SimpleNamespace(funcs=functions, weights=[1.0] * len(functions)))


def test_a_part_is_given_what_the_rubric_holds_and_a_text_is_scored_once():
    asked = []

    def judged(completion, parser):
        asked.append(completion[-1]["content"])
        return parser(completion)

    held = SimpleNamespace(funcs=[judged, bridge.brief], weights=[2.0, 1.0], class_objects={"parser": bridge.brief})
    rewards = bridge.rewards_of(held)
    assert rewards["total"](PROMPTS, TEXTS) == pytest.approx([3 / 2, 3 / 3, 3 / 4])
    assert rewards["judged"](PROMPTS, TEXTS) == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert asked == TEXTS


def test_a_real_rubric():
    verifiers = pytest.importorskip("verifiers")
    if not hasattr(verifiers, "Rubric"):
        pytest.skip("verifiers from 0.4 on has no Rubric")
    rubric = verifiers.Rubric(funcs=RUBRIC.funcs, weights=RUBRIC.weights)
    assert bridge.rewards_of(rubric)["total"](PROMPTS, TEXTS) == SUMS


def test_a_real_task_with_a_judge(tmp_path, monkeypatch):
    """Two methods, and a rubric judge of two criteria of which the server says that one is met."""
    pytest.importorskip("verifiers")
    vf = importlib.import_module("verifiers.v1")
    said = {"verdicts": [{"name": n, "reason": "", "verdict": v} for n, v in (("clear", "yes"), ("kind", "no"))]}
    criteria = [{"name": "clear", "text": "Is it clear?", "weight": 3.0}, {"name": "kind", "text": "Is it kind?"}]
    (tmp_path / "rubric.json").write_text(json.dumps({"criteria": criteria}))

    class Reviews(vf.Task):
        @vf.reward
        async def brief(self, trace) -> float:
            return 1 / (1 + len(trace.last_reply.split()))

        @vf.reward(weight=0.5)
        async def exclaims(self, trace) -> float:
            return 0.1 * trace.last_reply.count("!")

    plain = bridge.rewards_of(Reviews(vf.TaskData(prompt="?")))
    assert plain["total"](PROMPTS, TEXTS) == SUMS
    assert plain["exclaims"](PROMPTS, TEXTS) == pytest.approx([0.0, 0.1, 0.2])
    monkeypatch.setenv("A_KEY", "k")
    with Server("chat_server.py", fixed=json.dumps(said)) as server:
        judge = {"id": "rubric", "path": str(tmp_path / "rubric.json"), "weight": 2.0, "base_url": server.url,
                 "api_key_var": "A_KEY"}  # fmt: skip
        rewards = bridge.rewards_of(Reviews(vf.TaskData(prompt="?"), vf.TaskConfig(judges=[judge])))
        assert list(rewards) == ["brief", "exclaims", "rubric", "rubric/clear", "rubric/kind", "total"]
        assert rewards["rubric/clear"](PROMPTS, TEXTS) == [1.0] * 3
        assert rewards["rubric/kind"](PROMPTS, TEXTS) == [0.0] * 3
        assert rewards["rubric"](PROMPTS, TEXTS) == [0.75] * 3
        assert rewards["total"](PROMPTS, TEXTS) == pytest.approx([1 / 2 + 1.5, 1 / 3 + 1.55, 1 / 4 + 1.6])
        assert server.stats["requests"] == 3


@pytest.fixture
def inspect():
    """examples/inspect_scorer.py, and a mock model that says texts in turn."""
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    found = importlib.import_module("inspect_scorer")

    def saying(*texts):
        said = [ModelOutput.from_content(found.MOCK, text) for text in texts]
        for output in said:
            output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it loads a tokenizer
        return get_model(found.MOCK, custom_outputs=said)

    return SimpleNamespace(bridge=found, saying=saying)


def test_inspect_scorers_are_rewards(inspect):
    from inspect_ai.scorer import includes, model_graded_qa

    reward_of = inspect.bridge.reward_of
    assert reward_of(inspect.bridge.exclaims())(PROMPTS, TEXTS) == pytest.approx(
        [0.1 * t.count("!") + len(t) % 7 / 70 for t in TEXTS]
    )
    assert reward_of(includes(), {"Hi": "words"})(PROMPTS, TEXTS) == [0.0, 1.0, 1.0]
    grader = inspect.saying(*(f"So it is.\nGRADE: {grade}" for grade in "CIP"))
    assert reward_of(model_graded_qa(model=grader, partial_credit=True), "words")(PROMPTS, TEXTS) == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("value", ["excellent", [1.0, 2.0], {"a": 1.0, "b": 2.0}])
def test_a_score_that_is_no_number_is_refused(inspect, value):
    number = inspect.bridge.number
    with pytest.raises(rk.InputError, match="is no number"):
        number(value)
    assert [number(v) for v in ("C", "I", "yes", "0.25", 3, True)] == [1.0, 0.0, 1.0, 0.25, 3.0, 1.0]
    assert number({"a": 1.0, "b": "C"}, "b") == 1.0


def test_an_inspect_log_is_audited_and_the_audit_is_a_log(inspect, tmp_path):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.log import read_eval_log
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    texts = rk.load("reviews", attribute="length")["response"][:48]
    samples = [Sample(input=f"Review {i}", target="great", id=i) for i in range(12)]
    task = Task(dataset=samples, solver=generate(), scorer=includes())
    told = eval(task, model=inspect.saying(*texts), epochs=4, log_dir=str(tmp_path), display="none")[0]
    rows, targets = inspect.bridge.rows_of(told.location)
    assert sorted(r["response"] for r in rows) == sorted(texts)
    assert targets == {f"Review {i}": "great" for i in range(12)}
    judges = {"includes": inspect.bridge.reward_of(includes(), targets),
              "exclaims": inspect.bridge.reward_of(inspect.bridge.exclaims())}  # fmt: skip
    audit = rk.audit(rows, judges, "length", rewriter="rules", progress=False)
    log = read_eval_log(inspect.bridge.log_of(audit, str(tmp_path)).location)
    assert log.status == "success"
    assert len(log.samples) == 48 * 3
    first = next(s for s in log.samples if s.id == "7-1")
    assert first.output.completion == audit.dataset["rewrites"][7][0]
    assert first.scores["ratekit"].value["exclaims"] == pytest.approx(audit.dataset["reward/exclaims"][7][1])
    assert first.metadata["attribute"] == "length"
    shown = {s.name: [m.value for m in s.metrics.values()] for s in log.results.scores}
    effects = audit.effects[audit.effects["recommended"]].set_index("reward_model")["estimate_sd"]
    assert {name: pytest.approx([effects[name]]) for name in judges} == shown
    assert "length, exclaims" in log.eval.metadata["verdicts"][1]
