"""State dicts: loaded, named, compared, and added with weights; a fault names the tensor.

state = load_state("rm-a")                       {"model.embed_tokens.weight": tensor, ...}
combine([state, load_state("rm-b")], [0.5, 0.5]) what every line, average and difference of models is made of
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.checkpoints import FLOATS, Model, State, shape_and_dtype
from ratekit.errors import InputError, shorten
from ratekit.lora import Lora, open_model

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 24  # entries worked on at once
_HEADS = ("score", "classifier", "v_head", "regression")  # what reward heads are called


def load_state(model: Model, dtype: str | None = None) -> dict[str, Tensor]:
    """The whole state dict of a model folder, on the CPU; a state dict is copied only where dtype says so.

    Parameters
    ----------
    model : state dict, str or Path
        A folder, an adapter's too.
    dtype : str, optional
        "float32", "bfloat16", ... for floating-point tensors; by default their own.

    Examples
    --------
    >>> state = load_state("rm-a")  # doctest: +SKIP
    """
    state = open_model(model)
    target = dtype_named(dtype)
    return {name: _cast(state[name], target) for name in state}


def _cast(tensor: Tensor, dtype: Any) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def dtype_named(name: str | None) -> Any:
    """The torch dtype of that name; InputError for one that is not floating point."""
    import torch

    if name is None:
        return None
    plain = str(name).removeprefix("torch.")
    if plain not in FLOATS:
        raise InputError(f"dtype={name!r}: float32, bfloat16, float16 or float64 was expected")
    return getattr(torch, plain)


def named_models(models: Mapping[str, Model] | Sequence[Model]) -> dict[str, Model]:
    """Models by name: a folder is called by its last part, a state dict `model 1`, `model 2`, ...

    Examples
    --------
    >>> list(named_models(["runs/a", "runs/b"]))
    ['a', 'b']
    """
    if isinstance(models, str | Path):
        raise InputError("several models were expected: a list of folders or state dicts")
    if isinstance(models, Mapping):
        if models and all(not isinstance(m, Mapping | str | Path) for m in models.values()):
            raise InputError("several models were expected; this is one state dict, so put it into a list")
        return {str(name): model for name, model in models.items()}
    found: dict[str, Model] = {}
    for place, model in enumerate(models, 1):
        name = Path(model).expanduser().resolve().name if isinstance(model, str | Path) else f"model {place}"
        if name in found:
            name = str(model) if isinstance(model, str | Path) and str(model) not in found else f"{name} ({place})"
        found[name] = model
    return found


def merge_lora(base: Model, adapter: str | Path) -> dict[str, Tensor]:
    """The state dict of `base` with a LoRA adapter merged into its weights.

    Parameters
    ----------
    base : state dict, str or Path
        The model that the adapter was trained on. For a reward adapter a causal language model's folder will do: its
        language-model head goes.
    adapter : str or Path
        The adapter's folder.

    Returns
    -------
    dict of str to Tensor
        Equal to what PEFT's `merge_and_unload` gives, in the base's dtypes.

    Raises
    ------
    InputError
        Where the adapter does not fit the base, or its config has a field that is not read here.

    Examples
    --------
    >>> state = merge_lora("base-rm", "adapter")  # doctest: +SKIP
    """
    return load_state(Lora(adapter, base))


def _pieces(n: int) -> Iterator[slice]:
    """0 to n in pieces."""
    for start in range(0, n, PIECE):
        yield slice(start, min(start + PIECE, n))


# --- compared ------------------------------------------------------------------------------------------------


def check_states(states: Mapping[str, State], *, finite: bool = True, mixed_dtypes: bool = False) -> None:
    """Raise InputError unless the models have the same tensors: names, shapes, dtypes, and (if `finite`) no NaN.

    Parameters
    ----------
    mixed_dtypes
        allow one model's float16 beside another's bfloat16; whoever says so chooses what they become

    Examples
    --------
    >>> import torch
    >>> check_states({"a": {"w": torch.zeros(2)}, "b": {"w": torch.zeros(3)}})
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: w is (2,) in a and (3,) in b: the models are of different sizes
    """
    (first, reference), *others = states.items()
    for other, state in others:
        _same_names(first, reference, other, state)
        for name in reference:
            (shape, dtype), (shape2, dtype2) = shape_and_dtype(reference, name), shape_and_dtype(state, name)
            if shape != shape2:
                raise InputError(f"{name} is {shape} in {first} and {shape2} in {other}: {_why(name, shape, shape2)}")
            if dtype != dtype2 and not mixed_dtypes:
                raise InputError(
                    f"{name} is {dtype} in {first} and {dtype2} in {other}; say in which dtype to merge, as in "
                    "dtype='float32'"
                )
    _same_ties(states)
    if finite:
        for model, state in states.items():
            for name in state:
                check_finite(model, name, state[name])


def check_finite(model: str, name: str, tensor: Tensor) -> None:
    """Raise InputError where a tensor holds NaN or infinity."""
    n_bad = not_finite(tensor)
    if not n_bad:
        return
    raise InputError(f"{name} of {model} holds {n_bad} of {tensor.numel()} weights that are NaN or infinite")


def not_finite(tensor: Tensor) -> int:
    """How many entries are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    flat = tensor.detach().reshape(-1)
    return sum(int((~flat[piece].isfinite()).sum()) for piece in _pieces(flat.numel()))


def _same_names(first: str, a: State, second: str, b: State) -> None:
    for (one, x), (two, y) in (((first, a), (second, b)), ((second, b), (first, a))):
        extra = [name for name in x if name not in y]
        if extra:
            more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
            of = extra[0].split(".")[-2:-1]
            hint = "the architectures differ"
            if of in (["lm_head"], ["embed_tokens"], ["decoder"]) and not more:
                hint = f"tied weights in {two}? untie them there"
            elif any(part in extra[0] for part in _HEADS) and not more:
                hint = f"{two} has no reward head; a head that was never trained (zeros) would do"
            raise InputError(f"{extra[0]}{more} is in {one} and not in {two}: {hint}")


def _why(name: str, shape: tuple[int, ...], other: tuple[int, ...]) -> str:
    last = name.lower()
    if ("embed" in last or "lm_head" in last or "wte" in last) and shape[1:] == other[1:]:
        return "the vocabularies differ"
    if any(part in last for part in _HEADS) and shape[1:] == other[1:]:
        return "the reward heads differ"
    if any(part in last for part in ("q_proj", "k_proj", "v_proj", "query", "key", "value", "attn")):
        return "the attention heads differ"
    return "the models are of different sizes"


def ties(state: State) -> dict[str, str]:
    """Each tensor that shares its memory with an earlier one of the same shape, and that one's name."""
    if not isinstance(state, dict):
        return {}  # tensors of a folder never share
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    found = {}
    for name, tensor in state.items():
        if tensor.numel() == 0:
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key in first:
            found[name] = first[key]
        first.setdefault(key, name)
    return found


def _same_ties(states: Mapping[str, State]) -> None:
    found = {model: ties(state) for model, state in states.items()}
    (first, reference), *others = found.items()
    for other, tied in others:
        for name in sorted(set(reference.items()) ^ set(tied.items())):
            one, two = (first, other) if name in reference.items() else (other, first)
            raise InputError(f"{name[0]} is tied to {name[1]} in {one} and not in {two}: untie it, or tie it in both")


# --- added ---------------------------------------------------------------------------------------------------


def combine(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """sum_i w_i state_i, tensor by tensor: computed in float32 (float64 where that is given), in the first's dtype.

    Tensors that are not floating point (position ids) must be equal, and are taken over.

    Examples
    --------
    >>> import torch
    >>> combine([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}], [0.5, 0.5])
    {'w': tensor([2.])}
    """
    if len(states) != len(weights) or not states:
        raise InputError(f"{len(states)} models and {len(weights)} weights; one each was expected")
    if not np.isfinite(np.asarray(weights, dtype=float)).all():
        raise InputError(f"weights {shorten(list(weights))}: finite numbers were expected")
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
        return shared_tensor(name, tensors)
    work = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    out = torch.empty(first.shape, dtype=dtype or first.dtype, device=first.device)
    flat, parts = out.view(-1), [t.detach().reshape(-1) for t in tensors]
    for piece in _pieces(first.numel()):
        total = torch.zeros(piece.stop - piece.start, dtype=work, device=first.device)
        for part, weight in zip(parts, weights, strict=True):
            if weight:  # so that at a path's end the end itself comes back, bit by bit
                total.add_(part[piece].to(work), alpha=float(weight))
        flat[piece] = total.to(out.dtype)
    return out


def shared_tensor(name: str, tensors: Iterable[Tensor]) -> Tensor:
    """A tensor that is not floating point, which all models must share. Raises InputError where they do not."""
    import torch

    first, *others = tensors
    for other in others:
        if not torch.equal(first, other):
            raise InputError(f"{name} holds {first.dtype} and differs between the models, so it cannot be merged")
    return first.clone()


def line_state(a: State, b: State, t: float) -> dict[str, Tensor]:
    """(1-t) a + t b: the straight line from a to b; t outside [0, 1] extrapolates.

    Examples
    --------
    >>> import torch
    >>> line_state({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return combine([a, b], [1 - t, t])
