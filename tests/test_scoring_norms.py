"""A quick norm is the norm it stands for, and one that is another kind of norm is left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from ratekit.scoring.norms import quicken

EPS = 1e-5


def held(norm: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    norm.weight.data = torch.linspace(-1, 2, 48)
    return torch.nn.ModuleDict({"norm": norm.to(dtype)})


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_formula(kind, dtype):
    model = held(kind(48, EPS), dtype)
    assert quicken(model) == 1
    assert type(model["norm"]) is not kind
    # rows whose mean square is far below eps, near it and far above it; four dimensions, as the norm of queries has
    made = torch.randn(2, 3, 5, 48, generator=torch.Generator().manual_seed(0))
    rows = (made * torch.tensor([1e-4, 3e-3, 50.0])[:, None, None]).to(dtype)
    before = rows.clone()
    with torch.inference_mode():
        got = model["norm"](rows)
    assert got.dtype == dtype
    assert torch.equal(rows, before)
    x, w = rows.double().numpy(), model["norm"].weight.detach().double().numpy()
    truth = w * x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)
    unit = {torch.float32: 2e-6, torch.bfloat16: 2**-7}[dtype]  # twice rounded in half precision
    assert np.all(np.abs(got.double().numpy() - truth) <= unit * np.abs(truth) + 1e-12)


class ShiftedRMSNorm(LlamaRMSNorm):
    def forward(self, x):
        return super().forward(x) + self.weight


class OutsideRMSNorm(LlamaRMSNorm):
    """eps added to the root and not under it, which ordinary rows would not tell from the other."""

    def forward(self, x):
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon)


@pytest.mark.parametrize("kind", [ShiftedRMSNorm, OutsideRMSNorm, Gemma2RMSNorm])
def test_another_norm_is_left_alone(kind):
    model = held(kind(48, EPS))
    assert quicken(model) == 0
    assert type(model["norm"]) is kind
