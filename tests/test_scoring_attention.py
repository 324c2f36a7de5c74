"""Attention over a pack is plain attention over each sequence by itself, whichever way it is computed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import save

from ratekit.scoring import packing
from ratekit.scoring.model import RewardModel
from ratekit.scoring.packing import Pack, Running, Segment, packed_attention

HEADS, KV_HEADS, SIZE = 4, 2, 16
SEGMENTS = [Segment(0, 20), Segment(20, 7, ((0, 20),)), Segment(27, 30, ((0, 20),)), Segment(57, 1, ((0, 20), (20, 7)))]
ALONE = [Segment(0, 20), Segment(20, 38)]


def plain(q, k, v, segments, causal, window, softcap):
    """Token by token, in NumPy and float64: what each may see is collected, and nothing else is there."""
    q, k, v = (t[0].double().numpy() for t in (q, k, v))
    out = np.empty((q.shape[1], HEADS, SIZE))
    for s in segments:
        runs = [*s.context, (s.start, s.length)]
        places = [p for start, length in runs for p in range(start, start + length)]
        for i in range(s.length):
            at = s.n_before + i
            seen = [p for j, p in enumerate(places) if (j <= at or not causal) and abs(at - j) < (window or 10**9)]
            for h in range(HEADS):
                logits = k[h // (HEADS // KV_HEADS), seen] @ q[h, s.start + i] / np.sqrt(SIZE)
                logits = softcap * np.tanh(logits / softcap) if softcap else logits
                weights = np.exp(logits - logits.max())
                out[s.start + i, h] = weights / weights.sum() @ v[h // (HEADS // KV_HEADS), seen]
    return out


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("rows", [5, 128])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("segments", "causal", "window", "softcap"),
    [
        (SEGMENTS, True, None, None), (SEGMENTS, True, 9, None), (SEGMENTS, True, None, 2.0), (SEGMENTS, True, 9, 2.0),
        (ALONE, False, None, None), (ALONE, False, 9, None),
    ],
)  # fmt: skip
def test_each_token_sees_what_it_may(segments, causal, window, softcap, dtype, rows, tiles, monkeypatch):
    monkeypatch.setattr(packing, "_tiles", lambda dtype: tiles)  # what this CPU has decides nothing here
    monkeypatch.setattr(packing, "_ROWS", rows)  # so that a segment is cut where there is something to cut
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 58, SIZE, generator=made).to(dtype) * 2 for h in (HEADS, KV_HEADS, KV_HEADS))
    running = Running(Pack(list(range(58)), list(range(58)), segments), [57], causal, "cpu")
    options = {"softcap": softcap, "sliding_window": window}
    got, _ = packed_attention(None, q, k, v, None, running, **{n: o for n, o in options.items() if o is not None})
    error = np.abs(got[0].double().numpy() - plain(q, k, v, segments, causal, window, softcap)).max()
    assert error < {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 4e-2}[dtype]


@pytest.mark.parametrize("tiles", [False, True])
def test_on_a_cpu_the_logits_keep_float32(tiles, monkeypatch):
    """Sharp attention in bfloat16: rounding logits of size 100 would move the weights by tens of per cent."""
    monkeypatch.setattr(packing, "_tiles", lambda dtype: tiles)
    made = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, h, 58, SIZE, generator=made).bfloat16() * s for h, s in ((4, 12), (2, 12), (2, 1)))
    running = Running(Pack(list(range(58)), list(range(58)), SEGMENTS), [57], True, "cpu")
    got, _ = packed_attention(None, q, k, v, None, running)
    error = np.abs(got[0].double().numpy() - plain(q, k, v, SEGMENTS, True, None, None)).max()
    assert error < 2e-2  # half a unit in the last place of a weight and of an output near 3


def in_one_kernel(q, k, v, starts_q, starts_k, most_q, most_k, *, scale, window_size):
    """What torch documents of `varlen_attn`, sequence by sequence in float64: last query and last key are level."""
    assert most_q == starts_q.diff().max()
    assert most_k == starts_k.diff().max()
    out = torch.empty(len(q), q.shape[1], v.shape[2], dtype=torch.float64)
    for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        logits = torch.einsum("qhd,khd->hqk", q[a:b].double(), k[c:d].double()) * (scale or q.shape[2] ** -0.5)
        away = torch.arange(d - c)[None] - (torch.arange(b - a)[:, None] + (d - c) - (b - a))
        left, right = (10**9 if w < 0 else w for w in window_size)
        weights = logits.masked_fill((away < -left) | (away > right), float("-inf")).softmax(-1)
        out[a:b] = torch.einsum("hqk,khd->qhd", weights, v[c:d].double())
    return out.to(q.dtype)


@pytest.mark.parametrize(
    ("segments", "causal", "window"),
    [(SEGMENTS, True, None), (SEGMENTS, True, 9), (ALONE, False, None), (ALONE, False, 9)],
)
def test_in_one_kernel_each_token_sees_the_same(segments, causal, window, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", in_one_kernel)
    made = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 58, SIZE, generator=made).double() * 2 for h in (HEADS, KV_HEADS, KV_HEADS))
    running = Running(Pack(list(range(58)), list(range(58)), segments), [57], causal, "cpu", varlen=True)
    got, _ = packed_attention(None, q, k, v, None, running, sliding_window=window)
    assert np.abs(got[0].numpy() - plain(q, k, v, segments, causal, window, None)).max() < 1e-12


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_runs_through_one_kernel_or_without_it(fails, tmp_path, monkeypatch):
    def kernel(*args, **options):
        if fails:
            raise RuntimeError("no kernel for this head size")
        return in_one_kernel(*args, **options)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr(packing, "can_varlen", lambda device, dtype: True)
    reward = RewardModel(save(tmp_path, "llama"))
    assert (reward.forward.path, reward.forward.pruned, reward.forward.varlen) == ("packed", True, not fails)
    alone = reward.forward.one_by_one(reward.probe())
    assert np.abs(reward.forward(reward.probe()) - alone).max() < 1e-5 * alone.std()
