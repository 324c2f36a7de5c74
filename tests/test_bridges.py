"""Bridges: what other libraries score with, as a reward. Inspect and verifiers are tested where they are installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

import ratekit as rk

sys.path.insert(0, str(ROOT / "examples"))
import verifiers_rubric as bridge  # examples/verifiers_rubric.py

RUBRIC = SimpleNamespace(funcs=[bridge.brief, bridge.exclaims], weights=[1.0, 0.5])
TEXTS = ["One.", "Two words!", "Three words here!!"]


def test_a_rubric_is_its_functions_and_their_weighted_sum():
    rewards = bridge.rewards_of(RUBRIC)
    assert list(rewards) == ["brief", "exclaims", "rubric"]
    assert rewards["exclaims"](["?"] * 3, TEXTS) == pytest.approx([0.0, 0.1, 0.2])
    assert rewards["rubric"](["?"] * 3, TEXTS) == pytest.approx([1 / 2, 1 / 3 + 0.05, 1 / 4 + 0.1])


def test_effects_of_a_rubric_add_up_by_its_weights():
    rows = rk.load("reviews", attribute="length")
    for name, reward in bridge.rewards_of(RUBRIC).items():
        rows = rk.score(rows, reward, name=name, progress=False)
    table = rk.estimate(rows).query("estimator == 'rate' and estimand == 'ate'").set_index("reward_model")["estimate"]
    assert table["rubric"] == pytest.approx(table["brief"] + 0.5 * table["exclaims"])


def test_a_function_of_a_group_is_refused():
    with pytest.raises(rk.InputError, match="whole groups"):
        bridge.rewards_of(SimpleNamespace(funcs=[lambda completions: [0.0]], weights=[1.0]))


def test_a_real_rubric():
    verifiers = pytest.importorskip("verifiers")
    rewards = bridge.rewards_of(verifiers.Rubric(funcs=RUBRIC.funcs, weights=RUBRIC.weights))
    assert rewards["rubric"](["?"] * 3, TEXTS) == pytest.approx(bridge.rewards_of(RUBRIC)["rubric"](["?"] * 3, TEXTS))


def test_an_inspect_scorer_audited_and_a_log_of_it(tmp_path):
    pytest.importorskip("inspect_ai")
    import inspect_scorer as inspect_bridge  # examples/inspect_scorer.py

    judge = inspect_bridge.exclaims()
    scores = inspect_bridge.reward_of(judge)(["Hi"] * 3, TEXTS)
    assert scores == pytest.approx([0.1 * t.count("!") + len(t) % 7 / 70 for t in TEXTS])
    log = inspect_bridge.scored_by(judge, ["Hi"] * 3, TEXTS, str(tmp_path))
    assert log.status == "success"
    logged = [s.scores["exclaims"].value for s in sorted(log.samples, key=lambda s: s.id)]
    assert logged == pytest.approx(scores)
