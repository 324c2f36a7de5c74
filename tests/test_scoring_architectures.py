"""Every architecture that builds tiny scores as one text a pass does, or is refused (the table is in benchmarks/)."""

from __future__ import annotations

import importlib.util

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("architectures", ROOT / "benchmarks" / "scoring_architectures.py")
architectures = importlib.util.module_from_spec(spec)
pytestmark = pytest.mark.sweep
spec.loader.exec_module(architectures)


@pytest.mark.parametrize("padding", ["own", "none"])
@pytest.mark.parametrize("label", architectures.ALL)
def test_it_scores_as_one_text_a_pass(label, padding):
    row = architectures.one(label, padding)
    assert row.result != "WRONG", row
    if row.result in ("no truth", "not built"):
        pytest.skip(row.said)


def test_most_can_be_built_and_a_wrong_score_is_seen(monkeypatch):
    assert len(architectures.ALL) > 100
    whole = architectures.RewardModel.scores
    monkeypatch.setattr(
        architectures.RewardModel, "scores",
        lambda self, *a: (s := whole(self, *a))._replace(rewards=s.rewards * (1 + 1e-3)),
    )  # fmt: skip
    assert architectures.one("llama", "own").result == "WRONG"
