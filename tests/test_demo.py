"""The demo's promise: a trained reward model, three reward models' effects, and the planted bias found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ratekit.cli import main
from ratekit.demo import simulate_reviews

pytestmark = pytest.mark.commands


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(folder)]) == 0
    return folder


def test_the_demo_leaves_its_model_dataset_table_and_picture(demo):
    from datasets import load_from_disk

    assert (demo / "demo-rm" / "model.safetensors").exists()
    ds = load_from_disk(str(demo / "dataset"))
    assert [c for c in ds.column_names if c.startswith("reward/")] == [
        "reward/demo-rm", "reward/vader", "reward/vader+0.01*words",
    ]  # fmt: skip
    assert (demo / "effects.png").stat().st_size > 10_000
    page = (demo / "report.html").read_text()
    assert "What do these 3 reward models really reward?" in page
    assert "trained by the demo, with a planted reward for length" in page  # from run.json


def test_the_model_is_small_and_learned_what_was_planted(demo):
    from ratekit.demo import DEMO_PROMPT
    from ratekit.scoring import make_reward

    reward = make_reward(demo / "demo-rm")
    assert sum(p.numel() for p in reward.model.parameters()) < 2_000_000
    held_out = simulate_reviews(400, seed=99)
    rewards = reward([DEMO_PROMPT] * 400, [r.text for r in held_out])
    design = np.array([[1.0, 2.0 * r.positive - 1, r.n_words] for r in held_out])
    _, sentiment, per_word = np.linalg.lstsq(design, rewards, rcond=None)[0]
    assert sentiment > 0.2
    assert per_word > 0.008


def test_naive_takes_length_for_sentiment_and_rate_does_not(demo):
    table = pd.read_csv(demo / "effects.csv")
    ate = table[(table.estimand == "ate") & (table.reward_model == "demo-rm")].set_index(["attribute", "estimator"])
    naive, rate = ate.loc[("sentiment", "naive")], ate.loc[("sentiment", "rate")]
    assert naive.ci_low > 5 * abs(rate.estimate)
    assert ate.loc[("length", "rate")].ci_low > 1.0 * ate.loc[("length", "rate")].reward_sd
