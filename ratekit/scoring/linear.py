"""Linear layers with their weights packed once for this CPU: torch's float32 product runs at half its speed without.

oneDNN keeps the weight in the layout that its kernels want. The operations are private to torch, so that they are used
only where they exist and where a layer made of them gives what the layer gave.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ratekit.scoring.pruning import Made

TOKENS = 1024  # the number of rows that the layout is chosen for
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}  # of the largest entry; sums of some thousand terms differ by less
LEAST_OUTPUTS = 16  # a head of one or two outputs gains nothing


def prepack(model: Any) -> Made | None:
    """Replace the linear layers of a model on the CPU, in place; None where none was.

    The plain weights are given up as they are packed, so that no more memory is held than before.
    """
    import torch

    if not _available():
        return None
    packed_linear, done = _packed_linear(), []
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
                done.append((parent, name, packed))

    def undo() -> None:
        for parent, name, packed in done:
            plain = torch.nn.Linear(packed.in_features, packed.out_features, bias=False, device="meta")
            plain.weight = torch.nn.Parameter(packed.packed.to_dense(), requires_grad=False)
            plain.bias = packed.bias
            setattr(parent, name, plain.eval())

    return Made(len(done), undo) if done else None


def _available() -> bool:
    import torch

    try:
        torch.ops.mkldnn._reorder_linear_weight  # noqa: B018
        torch.ops.mkldnn._linear_pointwise  # noqa: B018
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.backends.mkldnn.is_available())


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
