"""On a GPU: the scores and replies of a CPU, also where memory runs out in earnest. Skipped where there is none."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import tiny
import torch
from rewriting_support import tiny_chat

import ratekit as rk
from ratekit.scoring.model import RewardModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

PROMPTS = ["Why is the sky blue?"] * 24
RESPONSES = [f"It is {i} because of the air. " * (1 + i % 7) for i in range(24)]


@contextmanager
def only(more: int):
    """This process may take that many bytes more than it holds; what the GPU says of its free memory stays as it is."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_gpu_gives_the_scores_of_a_cpu(tmp_path, kind):
    path = tiny.save(tmp_path, kind)
    wanted = RewardModel(path, device="cpu")(PROMPTS, RESPONSES)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(RewardModel(path, dtype="float32")(PROMPTS, RESPONSES), wanted, atol=1e-4 * wanted.std())
    half = RewardModel(path, dtype="bfloat16")(PROMPTS, RESPONSES)
    assert np.corrcoef(half, wanted)[0, 1] > 0.99


def test_memory_that_runs_out_halves_the_passes_and_changes_no_score(tmp_path):
    path = tiny.save(tmp_path, "llama", intermediate_size=65_536)
    wanted = RewardModel(path, device="cpu")(PROMPTS, RESPONSES)
    reward = RewardModel(path, dtype="float32")
    reward(PROMPTS[:2], RESPONSES[:2])
    budget = reward.forward.budget
    with only(200 * 2**20):
        scores = reward(PROMPTS, RESPONSES)
    assert reward.forward.budget < budget
    np.testing.assert_allclose(scores, wanted, atol=1e-4 * wanted.std())


def test_greedy_replies_of_a_gpu_are_those_of_a_cpu_also_where_memory_runs_out(tmp_path):
    model = str(tiny_chat(tmp_path))
    asked = [[{"role": "user", "content": response}] for response in RESPONSES]

    def replies(chat):
        return {reply.index: reply.text for reply in chat(asked)}

    wanted = replies(rk.LocalChat(model, max_tokens=400, temperature=0, device="cpu"))
    assert replies(rk.LocalChat(model, max_tokens=400, temperature=0, dtype="float32")) == wanted
    chat = rk.LocalChat(model, max_tokens=400, temperature=0, dtype="float32")
    list(chat(asked[:1]))
    room = chat.batch_tokens
    with only(8 * 2**20):
        assert replies(chat) == wanted
    assert chat.batch_tokens < room
