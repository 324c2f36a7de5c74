"""Root-mean-square norms in fewer passes over memory: on a CPU they wait for it, and torch has no kernel of their own.

The stock layer writes the squares, the scaled rows and their product with the weight each to new memory. Here the sum
of squares is a reduction that writes one number a row, and what follows is done where the rows stand.
"""

from __future__ import annotations

from functools import cache
from typing import Any

TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}  # of the largest entry; the sum is taken in another order


def quicken(model: Any) -> int:
    """Replace the root-mean-square norms of a model on the CPU, in place, by ones that give the same; how many were."""
    import torch

    quick_norm, n_replaced = _quick_norm(), 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            weight, eps = getattr(layer, "weight", None), getattr(layer, "variance_epsilon", None)
            if not type(layer).__name__.endswith("RMSNorm") or weight is None or eps is None or weight.ndim != 1:
                continue
            allowed = TOLERANCE.get(str(weight.dtype).removeprefix("torch."))
            if allowed is None or weight.device.type != "cpu":
                continue
            quick = quick_norm(weight, eps)
            rows = torch.randn(8, len(weight), generator=torch.Generator().manual_seed(0))
            rows *= torch.logspace(-4, 3, 8)[:, None]  # the smallest show whether eps is where the layer has it
            rows = rows.to(weight.dtype)
            with torch.inference_mode():
                plain = layer(rows)
                error = (quick(rows) - plain).abs().max(-1).values
            if bool((error <= allowed * plain.abs().max(-1).values).all()):
                setattr(parent, name, quick)
                n_replaced += 1
    return n_replaced


@cache
def _quick_norm() -> Any:
    import torch

    class QuickNorm(torch.nn.Module):
        """w x / sqrt(mean(x^2) + eps), in float32 (Zhang and Sennrich 2019, eq. 4; eps as Llama has it)."""

        def __init__(self, weight: Any, eps: float) -> None:
            super().__init__()
            self.weight, self.eps = weight, eps

        def forward(self, x: Any) -> Any:
            wide = x.float()
            root = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            scale = torch.rsqrt(root * root / x.shape[-1] + self.eps)
            if wide is x:
                return (x * scale).mul_(self.weight)
            return wide.mul_(scale).to(x.dtype).mul_(self.weight)  # rounded before the weight, as Llama does

    return QuickNorm
