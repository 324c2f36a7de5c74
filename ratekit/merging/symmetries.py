"""Which units of a network may change places without changing what it computes.

A hidden unit is a row of one weight and a column of the next: swap two units in both and the function is the same. So
each axis of each tensor belongs to a *group* of units, or to none (inputs, outputs)::

    MLP      0.weight (hidden 1, input), 0.bias (hidden 1), 2.weight (output, hidden 1), ...
    BERT     residual stream, attention heads and feed-forward units of each layer, pooler
    Llama    residual stream, key-value heads (with the query heads that read them) and feed-forward units of each layer

A head is a block of rows that moves as one; query heads that share a key-value head move with it, in the order they are
in. That the residual stream may be permuted rests on norms that treat all units alike (LayerNorm, RMSNorm), and that no
unit within a head moves on rotary positions.
Sources: Ainsworth, Hayase and Srinivasa 2022 (Git Re-Basin, arXiv 2209.04836) for MLPs, section 3; for transformers
Verma and Elbayad 2024 (arXiv 2403.00986) and Theus et al. 2025 (arXiv 2506.22712). Those have larger symmetry groups of
the attention and of the residual stream too (rotations), which permutations do not exhaust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratekit.checkpoints import State
from ratekit.errors import InputError
from ratekit.merging.states import ties

if TYPE_CHECKING:
    import torch

Axes = tuple[str | None, ...]
Permutations = Mapping[str, NDArray[np.int64]]

# In each family: a pattern of the tensor's name and the groups of its axes; {i} is the number of the layer.
_RESIDUAL: Axes = ("residual",)
_FIXED: Axes = (None,)
FAMILIES: dict[str, tuple[tuple[str, Axes], ...]] = {
    "bert": (
        (r"embeddings\.(word|position|token_type)_embeddings\.weight$", (None, "residual")),
        (r"attention\.self\.(query|key|value)\.weight$", ("heads {i}", "residual")),
        (r"attention\.self\.(query|key|value)\.bias$", ("heads {i}",)),
        (r"attention\.output\.dense\.weight$", ("residual", "heads {i}")),
        (r"intermediate\.dense\.weight$", ("feed-forward {i}", "residual")),
        (r"intermediate\.dense\.bias$", ("feed-forward {i}",)),
        (r"output\.dense\.weight$", ("residual", "feed-forward {i}")),
        (r"(LayerNorm\.(weight|bias)|output\.dense\.bias)$", _RESIDUAL),
        (r"(pooler|^classifier)\.dense\.weight$", ("pooler", "residual")),
        (r"(pooler|^classifier)\.dense\.bias$", ("pooler",)),
        (r"^classifier(\.out_proj)?\.weight$", (None, "pooler")),
        (r"^classifier(\.out_proj)?\.bias$", _FIXED),
    ),
    "distilbert": (
        (r"embeddings\.(word|position)_embeddings\.weight$", (None, "residual")),
        (r"attention\.[qkv]_lin\.weight$", ("heads {i}", "residual")),
        (r"attention\.[qkv]_lin\.bias$", ("heads {i}",)),
        (r"attention\.out_lin\.weight$", ("residual", "heads {i}")),
        (r"ffn\.lin1\.weight$", ("feed-forward {i}", "residual")),
        (r"ffn\.lin1\.bias$", ("feed-forward {i}",)),
        (r"ffn\.lin2\.weight$", ("residual", "feed-forward {i}")),
        (r"(LayerNorm|layer_norm)\.(weight|bias)$|(out_lin|lin2)\.bias$", _RESIDUAL),
        (r"^pre_classifier\.weight$", ("pooler", "residual")),
        (r"^pre_classifier\.bias$", ("pooler",)),
        (r"^classifier\.weight$", (None, "pooler")),
        (r"^classifier\.bias$", _FIXED),
    ),
    "llama": (
        (r"embed_tokens\.weight$", (None, "residual")),
        (r"^(score|lm_head)\.weight$", (None, "residual")),
        (r"^score\.bias$", _FIXED),
        (r"self_attn\.[qkv]_proj\.weight$", ("heads {i}", "residual")),
        (r"self_attn\.[qkv]_proj\.bias$", ("heads {i}",)),
        (r"self_attn\.o_proj\.weight$", ("residual", "heads {i}")),
        (r"self_attn\.[qk]_norm\.weight$", _FIXED),
        (r"mlp\.(gate|up)_proj\.weight$", ("feed-forward {i}", "residual")),
        (r"mlp\.down_proj\.weight$", ("residual", "feed-forward {i}")),
        (r"(^|\.)(\w*layernorm|norm)\.weight$|o_proj\.bias$", _RESIDUAL),
    ),
}
KNOWN_BY = {
    "bert": "attention.self.query.weight",
    "distilbert": "attention.q_lin.weight",
    "llama": "self_attn.q_proj.weight",
}
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


@dataclass(frozen=True)
class Symmetries:
    """The group of each axis of each tensor, and how many units each group has.

    Examples
    --------
    >>> Symmetries({"up": ("hidden", None), "down": (None, "hidden")}, {"hidden": 8}).tensors_of("hidden")
    [('up', 0), ('down', 1)]
    """

    axes: Mapping[str, Axes]
    units: Mapping[str, int]

    def tensors_of(self, group: str) -> list[tuple[str, int]]:
        """The tensors, each with its axis, that a group's permutation moves."""
        return [(name, axis) for name, axes in self.axes.items() for axis, of in enumerate(axes) if of == group]

    def check(self, state: State) -> None:
        """InputError, naming the tensor, unless these symmetries fit the shapes of `state`."""
        for name, tensor in state.items():
            axes = self.axes.get(name)
            if axes is None or len(axes) != tensor.dim():
                had = "none" if axes is None else f"{len(axes)}"
                raise InputError(f"symmetries: tensor {name!r} has {tensor.dim()} axes and groups for {had}")
            for axis, group in enumerate(axes):
                if group is not None and tensor.shape[axis] % self.units[group]:
                    size = tensor.shape[axis]
                    raise InputError(
                        f"symmetries: axis {axis} of tensor {name!r} has {size} rows, which {self.units[group]} units "
                        f"of {group!r} do not divide; is the number of attention heads right?"
                    )
        for group in self.units:
            if len(self.tensors_of(group)) < 2:
                raise InputError(f"symmetries: group {group!r} is on one tensor alone; permuting it changes the model")


def symmetries_of(state: State, heads: int | None = None) -> Symmetries:
    """The permutations that a model's tensor names and shapes admit.

    heads  key-value heads of a transformer (`num_attention_heads`, or `num_key_value_heads` where a model has that):
           the tensors do not tell; 1 leaves the heads where they are

    MLPs (weights `(out, in)` that follow one another), BERT and RoBERTa, DistilBERT, and Llama and those named like it
    (Mistral, Qwen2, Qwen3). InputError where a tensor's part is not known, or a transformer's heads are not given.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> symmetries_of(net.state_dict()).axes["2.weight"]
    (None, 'hidden 1')
    """
    family = next((f for f, mark in KNOWN_BY.items() if any(name.endswith(mark) for name in state)), None)
    if family is None:
        return _of_mlp(state)
    if heads is None:
        raise InputError(
            f"a {family} model: say how many attention heads it has (heads=4; of Llama the key-value heads), or "
            "heads=1 to leave them where they are"
        )
    axes = {name: _axes_by_name(name, tensor, family) for name, tensor in state.items()}
    units: dict[str, int] = {}
    for name, groups in axes.items():
        for axis, group in enumerate(groups):
            if group is not None and group not in units:
                units[group] = heads if group.startswith("heads") else int(state[name].shape[axis])
    found = Symmetries(axes, units)
    found.check(state)
    return found


def _axes_by_name(name: str, tensor: torch.Tensor, family: str) -> Axes:
    if not tensor.is_floating_point() or name.endswith("inv_freq"):
        return (None,) * tensor.dim()
    layer = _LAYER.search(name)
    for pattern, axes in FAMILIES[family]:
        if re.search(pattern, name):
            return tuple(group and group.format(i=layer.group(1) if layer else "") for group in axes)
    raise InputError(f"a {family} model with a tensor that is not known: {name!r}; give its symmetries=")


def _of_mlp(state: State) -> Symmetries:
    """Weights (out, in) one after the other; a vector belongs to the units of the weight before it."""
    axes: dict[str, Axes] = {}
    units: dict[str, int] = {}
    order = sorted(state, key=_natural)
    matrices = [name for name in order if state[name].dim() == 2]
    if len(matrices) < 2:
        raise InputError("no two weights (out, in) follow one another: not an MLP, BERT or Llama; give symmetries=")
    into: str | None = None
    for number, matrix in enumerate(matrices):
        group = f"hidden {number + 1}" if matrix != matrices[-1] else None
        out, width = state[matrix].shape
        if into is not None and width != units[into]:
            raise InputError(
                f"tensor {matrix!r} of shape {(out, width)} does not follow a layer of {units[into]} units: not an "
                "MLP, BERT or Llama; give symmetries="
            )
        axes[matrix] = (group, into)
        for name in order:
            if state[name].dim() != 2 and _owner(name, matrices) == matrix:
                if state[name].dim() > 1 or (state[name].dim() == 1 and len(state[name]) != out):
                    shape = tuple(state[name].shape)
                    raise InputError(f"tensor {name!r} of shape {shape} has no place in an MLP; give symmetries=")
                axes[name] = (group,) * state[name].dim()
        if group:
            units[group] = out
        into = group
    found = Symmetries(axes, units)
    found.check(state)
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Names in the order of their numbers: 2.weight before 10.weight."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _owner(name: str, matrices: list[str]) -> str:
    """The matrix whose output units a vector has: its layer's own, or the last one before it."""
    stem = name.rpartition(".")[0]
    mine = [m for m in matrices if m.rpartition(".")[0] == stem]
    before = [m for m in matrices if _natural(m) <= _natural(name)]
    return (mine or before[-1:] or matrices[:1])[0]


def permuted(state: State, permutations: Permutations, symmetries: Symmetries) -> dict[str, torch.Tensor]:
    """The state dict with the units of each group in the order given: unit k is what unit `order[k]` was.

    Groups that `permutations` does not name stay as they are. Values are moved, never changed.
    """
    out: dict[str, torch.Tensor] = {}
    tied = ties(state)
    for name, tensor in state.items():
        if name in tied:  # what shares its memory goes on sharing it
            out[name] = out[tied[name]]
            continue
        for axis, group in enumerate(symmetries.axes[name]):
            if group is not None and group in permutations:
                tensor = reordered(tensor, axis, permutations[group])
        out[name] = tensor
    return out


def reordered(tensor: torch.Tensor, axis: int, order: NDArray[np.int64]) -> torch.Tensor:
    """A tensor with the blocks along one axis, as many as `order` is long, in that order."""
    import torch

    block = tensor.shape[axis] // len(order)
    rows = torch.as_tensor(order)[:, None] * block + torch.arange(block)
    return tensor.index_select(axis, rows.reshape(-1).to(tensor.device))


def shuffled(state: State, symmetries: Symmetries, seed: int = 0) -> dict[str, torch.Tensor]:
    """A copy that computes the same with its units in random order: what `align` must undo."""
    rng = np.random.default_rng(seed)
    return permuted(state, {group: rng.permutation(n) for group, n in symmetries.units.items()}, symmetries)
