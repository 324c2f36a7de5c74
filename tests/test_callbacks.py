"""Audits during training: the model in memory is read as from its folder; effects are logged; a limit stops it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

import ratekit as rk
from ratekit import callbacks
from ratekit.scoring.model import RewardModel

sys.path.insert(0, str(ROOT / "experiments"))


class FakeTrainer:
    """What a callback asks of a trainer."""

    processing_class = "a tokenizer"
    args = SimpleNamespace(per_device_eval_batch_size=8)

    def __init__(self):
        self.logged = []

    def log(self, logs):
        self.logged.append(logs)


@pytest.fixture
def counted(monkeypatch):
    """A training in which the "model" is a weight on words, beside noise of each text."""

    def in_memory(model, *_):
        return lambda prompts, responses: np.array([model * len(t.split()) / 50 + len(t) % 11 / 11 for t in responses])

    monkeypatch.setattr(callbacks, "_in_memory", in_memory)


def steps(callback, weights):
    state, control = SimpleNamespace(global_step=0, is_world_process_zero=True), SimpleNamespace()
    callback.on_train_begin(None, state, control, model=weights[0])
    for k, weight in enumerate(weights[1:], 1):
        state.global_step = k
        callback.on_step_end(None, state, control, model=weight)
    callback.on_train_end(None, state, control, model=weights[-1])
    return control


def test_effects_and_their_paired_change_are_logged(counted):
    trainer, rows = FakeTrainer(), rk.load("reviews", attribute="length")
    callback = rk.AuditCallback(trainer, rows, every=2, n=60)
    control = steps(callback, [0.0, 0.5, 1.0, 1.0])
    assert callback.table["step"].tolist() == [0, 2, 3]  # before, every second, at the end
    assert len(trainer.logged) == 3
    first, then, last = trainer.logged
    assert first["rate/length/change"] == 0
    assert then["rate/length/change"] == pytest.approx(then["rate/length"] - first["rate/length"])
    assert then["rate/length/change_se"] > 0
    assert then["rate/length/low"] > 0 > first["rate/length/low"]
    assert last["rate/seconds"] >= 0
    assert not hasattr(control, "should_training_stop")
    # the same number as an audit of the same texts gives
    mine = rk.score(callback.rows, lambda p, r: [len(t.split()) / 50 + len(t) % 11 / 11 for t in r], name="rm",
                    progress=False)  # fmt: skip
    table = rk.estimate(mine, rewards=["rm"])
    assert table[table["recommended"]]["estimate_sd"].iloc[0] == pytest.approx(then["rate/length"])


def test_a_limit_stops_the_training(counted, caplog):
    callback = rk.AuditCallback(
        FakeTrainer(), rk.load("reviews", attribute="length"), every=1, n=60, limits={"length": 0.3}
    )
    assert steps(callback, [0.0, 1.0]).should_training_stop
    assert "beyond its limit of 0.3" in caplog.text


def test_an_audit_that_fails_does_not_end_the_training(monkeypatch, caplog):
    def broken(*_):
        raise rk.WorkError("out of memory")

    monkeypatch.setattr(callbacks, "_in_memory", broken)
    callback = rk.AuditCallback(FakeTrainer(), rk.load("reviews", attribute="length"), n=20)
    steps(callback, [0.0, 1.0])
    assert callback.table.empty
    assert "out of memory" in caplog.text


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        (lambda ds: ds, {"limits": {"lenght": 0.1}}, "did you mean 'length'"),
        (lambda ds: ds, {"every": 0}, "every=0"),
        (lambda ds: ds.remove_columns(["rewrites", "rewrite_status"]), {}, "rewrites"),
    ],
)
def test_a_wrong_call_is_one_line(change, how, message):
    with pytest.raises(rk.InputError, match=message) as e:
        rk.AuditCallback(FakeTrainer(), change(rk.load("reviews", attribute="length")), **how)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("limits", [None, {"length": 0.1}])
def test_a_training_by_trl(tmp_path, limits):
    """TRL's own trainer, where installed: the longer of two reviews wins; its log holds the audits; a limit ends it."""
    trl = pytest.importorskip("trl")
    import training  # experiments/training.py
    from datasets import Dataset

    def turns(text):
        return [{"role": "assistant", "content": text}]

    asked = [{"role": "user", "content": training.PROMPT}]
    reviews = sorted(training.simulate_reviews(200, 0), key=lambda r: r.n_words)
    pairs = [{"prompt": asked, "chosen": turns(long.text), "rejected": turns(short.text)}
             for short, long in zip(reviews[:100], reviews[100:], strict=True)]  # fmt: skip
    torch.manual_seed(0)
    arguments = trl.RewardConfig(
        str(tmp_path), per_device_train_batch_size=8, learning_rate=1e-2, lr_scheduler_type="constant", max_steps=12,
        report_to=[], logging_steps=6, save_strategy="no", disable_tqdm=True, use_cpu=True, max_length=None, bf16=False,
    )  # fmt: skip
    tokenizer = training.Pairs(16, 0).tokenizer
    trainer = trl.RewardTrainer(
        training.tiny(tokenizer), arguments, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer
    )
    callback = rk.AuditCallback(trainer, rk.load("reviews", attribute="length"), every=6, n=40, limits=limits)
    trainer.add_callback(callback)
    trainer.train()
    beyond = callback.table.query("low > 0.1 or high < -0.1")["step"].tolist()
    assert beyond
    assert trainer.state.global_step == (12 if limits is None else beyond[0])
    logged = {e["step"]: e["rate/length"] for e in trainer.state.log_history if "rate/length" in e}
    assert logged == dict(zip(callback.table["step"], callback.table["estimate"], strict=True))
    assert list(logged) == [step for step in (0, 6, 12) if limits is None or step <= beyond[0]]
    mine = callbacks._in_memory(trainer.model, tokenizer, None, 8)([asked], [pairs[0]["chosen"][0]["content"]])
    ids = torch.tensor([trainer.train_dataset[0]["chosen_ids"]])
    with torch.no_grad():
        theirs = trainer.model.eval()(input_ids=ids).logits[0, 0].item()
    assert mine[0] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.slow
def test_a_real_training(tmp_path):
    """A planted bias rises; the model in memory scores as its folder does; its mode is left as it was."""
    import training  # experiments/training.py

    callback = training.trained(tmp_path / "run", steps=12, every=6, n=40)
    table = callback.table
    assert table["step"].tolist() == [0, 6, 12]
    assert table["estimate"].iloc[1] > table["estimate"].iloc[0] + 0.5
    logged = [entry for entry in callback.trainer.state.log_history if "rate/length" in entry]
    assert [entry["step"] for entry in logged] == [0, 6, 12]
    model, tokenizer = callback.trainer.model, callback.tokenizer
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    texts = list(callback.rows["response"][:20])
    model.train()
    mine = callbacks._in_memory(model, tokenizer, None, 7)(["Write a review."] * 20, texts)
    assert model.training
    np.testing.assert_allclose(mine, RewardModel(tmp_path / "rm")(["Write a review."] * 20, texts), atol=1e-4)
