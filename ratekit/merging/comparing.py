"""Whether models have the same tensors: names, shapes, dtypes, ties, and no NaN; a fault names the tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ratekit.errors import InputError
from ratekit.merging.states import State, describe, pieces

if TYPE_CHECKING:
    from torch import Tensor

HEADS = ("score", "classifier", "v_head", "regression")  # what reward heads are called


def check_states(states: Mapping[str, State], *, finite: bool = True, mixed_dtypes: bool = False) -> None:
    """Raise InputError unless the models have the same tensors: names, shapes, dtypes, and (if `finite`) no NaN.

    >>> import torch
    >>> check_states({"a": {"w": torch.zeros(2)}, "b": {"w": torch.zeros(3)}})
    Traceback (most recent call last):
    ...
    ratekit.errors.InputError: w is (2,) in a and (3,) in b: the models are of different sizes

    mixed_dtypes  allow one model's float16 beside another's bfloat16; whoever says so chooses what they become
    """
    (first, reference), *others = states.items()
    for other, state in others:
        _same_names(first, reference, other, state)
        for name in reference:
            (shape, dtype), (shape2, dtype2) = describe(reference, name), describe(state, name)
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
    return sum(int((~flat[piece].isfinite()).sum()) for piece in pieces(flat.numel()))


def _same_names(first: str, a: State, second: str, b: State) -> None:
    for (one, x), (two, y) in (((first, a), (second, b)), ((second, b), (first, a))):
        extra = [name for name in x if name not in y]
        if extra:
            more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
            of = extra[0].split(".")[-2:-1]
            hint = "the architectures differ"
            if of in (["lm_head"], ["embed_tokens"], ["decoder"]) and not more:
                hint = f"tied weights in {two}? untie them there"
            elif any(part in extra[0] for part in HEADS) and not more:
                hint = f"{two} has no reward head; a head that was never trained (zeros) would do"
            raise InputError(f"{extra[0]}{more} is in {one} and not in {two}: {hint}")


def _why(name: str, shape: tuple[int, ...], other: tuple[int, ...]) -> str:
    last = name.lower()
    if ("embed" in last or "lm_head" in last or "wte" in last) and shape[1:] == other[1:]:
        return "the vocabularies differ"
    if any(part in last for part in HEADS) and shape[1:] == other[1:]:
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
