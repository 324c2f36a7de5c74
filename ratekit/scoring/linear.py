"""Linear layers with their weights packed once for this CPU: torch's float32 product runs at half its speed without.

oneDNN keeps the weight in the layout that its kernels want. The operations are private to torch, so that they are used
only where they exist and where a layer made of them gives what the layer gave.
"""

from __future__ import annotations

from functools import cache
from typing import Any

TOKENS = 1024  # the number of rows that the layout is chosen for
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}  # of the largest entry; sums of some thousand terms differ by less
LEAST_OUTPUTS = 16  # a head of one or two outputs gains nothing


def prepack(model: Any) -> int:
    """Replace the linear layers of a model on the CPU, in place; how many were.

    The plain weights are given up as they are packed, so that no more memory is held than before.
    """
    import torch

    if not _available():
        return 0
    packed_linear, n_packed = _packed_linear(), 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is not torch.nn.Linear or layer.out_features < LEAST_OUTPUTS:
                continue
            dtype = layer.weight.dtype
            allowed = TOLERANCE.get(str(dtype).removeprefix("torch."))
            if allowed is None or layer.weight.device.type != "cpu":
                continue
            packed = packed_linear(layer)
            probe = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
            with torch.inference_mode():
                plain = layer(probe)
                error = (packed(probe) - plain).abs().max()
            if bool(error <= allowed * plain.abs().max()):
                setattr(parent, name, packed)
                n_packed += 1
    for parent in list(model.modules()):
        for name, block in list(parent.named_children()):
            if {n for n, _ in block.named_children()} == _GATED and _is_gated(block, packed_linear):
                setattr(parent, name, _gated()(block))
    return n_packed


_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def _is_gated(block: Any, packed_linear: Any) -> bool:
    linear = all(isinstance(getattr(block, n), packed_linear) for n in ("gate_proj", "up_proj", "down_proj"))
    return linear and type(block.act_fn).__name__ in ("SiLU", "SiLUActivation")


def _available() -> bool:
    import torch

    try:
        torch.ops.mkldnn._reorder_linear_weight  # noqa: B018
        torch.ops.mkldnn._linear_pointwise  # noqa: B018
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.backends.mkldnn.is_available())


@cache
def _gated() -> Any:
    import torch

    class GatedFeedForward(torch.nn.Module):
        """down(silu(gate(x)) * up(x)) with the product and the activation made where the matrix product is made."""

        def __init__(self, block: Any) -> None:
            super().__init__()
            self.gate, self.up, self.down = block.gate_proj, block.up_proj, block.down_proj

        def forward(self, x: Any) -> Any:
            pointwise = torch.ops.mkldnn._linear_pointwise
            gate = pointwise(x, self.gate.packed, self.gate.bias, "swish", [], "")
            return self.down(pointwise.binary(x, gate, self.up.packed, self.up.bias, "mul"))

    return GatedFeedForward


@cache
def _packed_linear() -> Any:
    import torch

    class PackedLinear(torch.nn.Module):
        """y = x W' + b with W in oneDNN's own layout."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TOKENS)
            self.bias = layer.bias

        def forward(self, x: Any) -> Any:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    return PackedLinear
