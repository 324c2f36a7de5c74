"""Weighted sums of state dicts: what every line, average and difference of models is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError
from ratekit.merging.comparing import check_states, ties
from ratekit.merging.states import State, pieces

if TYPE_CHECKING:
    from torch import Tensor


def combine(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """sum_i w_i state_i, tensor by tensor: computed in float32 (float64 where that is given), in the first's dtype.

    >>> import torch
    >>> combine([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}], [0.5, 0.5])
    {'w': tensor([2.])}

    Tensors that are not floating point (position ids) must be equal, and are taken over.
    """
    if len(states) != len(weights) or not states:
        raise InputError(f"{len(states)} models and {len(weights)} weights; one each was expected")
    check_states({f"model {i}": s for i, s in enumerate(states, 1)}, finite=False)
    tied = ties(states[0])
    merged: dict[str, Tensor] = {}
    for name in states[0]:
        one = tied.get(name)
        merged[name] = merged[one] if one else weighted_sum(name, [s[name] for s in states], weights)
    return merged


def weighted_sum(name: str, tensors: Sequence[Tensor], weights: Sequence[float], dtype: Any = None) -> Tensor:
    """One tensor of `combine`, in the first's dtype or in `dtype`; a piece at a time, so that no copy is whole."""
    import torch

    first = tensors[0]
    if not first.is_floating_point():
        return agreed(name, tensors)
    work = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    out = torch.empty(first.shape, dtype=dtype or first.dtype, device=first.device)
    flat, parts = out.view(-1), [t.detach().reshape(-1) for t in tensors]
    for piece in pieces(first.numel()):
        total = torch.zeros(piece.stop - piece.start, dtype=work, device=first.device)
        for part, weight in zip(parts, weights, strict=True):
            if weight:  # so that at a path's end the end itself comes back, bit by bit
                total.add_(part[piece].to(work), alpha=float(weight))
        flat[piece] = total.to(out.dtype)
    return out


def agreed(name: str, tensors: Iterable[Tensor]) -> Tensor:
    """A tensor that is not floating point, which all models must share. Raises InputError where they do not."""
    import torch

    first, *others = tensors
    for other in others:
        if not torch.equal(first, other):
            raise InputError(f"{name} holds {first.dtype} and differs between the models, so it cannot be merged")
    return first.clone()


def line_state(a: State, b: State, t: float) -> dict[str, Tensor]:
    """(1-t) a + t b: the straight line from a to b; t outside [0, 1] extrapolates.

    >>> import torch
    >>> line_state({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return combine([a, b], [1 - t, t])
