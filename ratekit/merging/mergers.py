"""One model made of several, tensor by tensor: by a sum, or by mergekit.

    merge(["rm-a", "rm-b"], "ties", base="base-rm", density=0.3)     a state dict
    merge(["rm-a", "rm-b"], "slerp", t=0.5, out="merged")            a model folder, written shard by shard

Only the tensors of one name are read at a time, so that two 8B models merge in a fraction of their size.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ratekit import files
from ratekit.checkpoints import Folder, Model, State, check_loads
from ratekit.errors import InputError, WorkError, require_whole, shorten
from ratekit.lora import open_model
from ratekit.merging.folders import check_folders
from ratekit.merging.methods import Method, checked_parameters, find_method
from ratekit.merging.states import (
    check_finite,
    check_states,
    dtype_named,
    named_models,
    not_finite,
    shared_tensor,
    ties,
    weighted_sum,
)
from ratekit.merging.writing import write_model

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ratekit")

THE_BASE = "the base"
GIB = 1 << 30


@overload
def merge(
    models: Mapping[str, Model] | Sequence[Model], method: str, base: Model | None = None, *, out: None = None,
    dtype: str | None = None, seed: int = 0, memory: float = 16.0, progress: bool = False, **params: Any,
) -> dict[str, Tensor]: ...  # fmt: skip


@overload
def merge(
    models: Mapping[str, Model] | Sequence[Model], method: str, base: Model | None = None, *, out: str | Path,
    dtype: str | None = None, seed: int = 0, memory: float = 16.0, progress: bool = False, **params: Any,
) -> Path: ...  # fmt: skip


def merge(
    models: Mapping[str, Model] | Sequence[Model],
    method: str,
    base: Model | None = None,
    *,
    out: str | Path | None = None,
    dtype: str | None = None,
    seed: int = 0,
    memory: float = 16.0,
    progress: bool = False,
    **params: Any,
) -> dict[str, Tensor] | Path:
    """The models merged into one: a state dict, or with `out` the folder that it was written to.

    A tensor of one element (a reward head's bias) is the weighted average of the models', whatever the method: nothing
    can be trimmed from one number, and dropping it at random would be noise. Tensors that are not floating point must
    be equal. Tied tensors of a state dict stay tied.

    Parameters
    ----------
    models
        state dicts or folders (safetensors; a LoRA adapter's folder counts as its base with the adapter merged in), in
        a list, or by name in a mapping
    method
        a name in `rk.merging.METHODS`, which has each method's claim, source and parameters
    base
        the model that these were tuned from, where the method needs one; else it is not looked at. A method that goes
        from one model to another (slerp, nearswap, arcee_fusion) takes two models, or a base and a model
    out
        a new folder; config and tokenizer are the first model's, and merge.json says how it was made
    dtype
        of the merged floating-point tensors; by default the models' own. All is computed in float32
    seed
        of the methods that draw: each tensor has draws of its own, the same in memory and shard by shard
    memory
        GiB that one tensor may take while it is merged; a larger one is merged in blocks of rows, and the log says so
    params
        the method's own, checked; `weight` is one number, or one for each model (a list, or a mapping by name)

    Raises
    ------
    InputError
        , naming the tensor, where the models differ in names, shapes or dtypes, or hold NaN.
    WorkError
        Where a method gives NaN. Methods that are mergekit's need `pip install 'ratekit[merge]'`.

    Examples
    --------
    >>> import torch
    >>> a, b = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    >>> merge([a, b], "linear", weight=[1, 3])
    {'w': tensor([3., 2.])}
    """
    if out is not None:
        files.check_place(out)
    plan = MergePlan(models, method, base, dtype, seed, memory, params)
    if out is None:
        return dict(plan.tensors(progress))
    plan.check_loads()
    return write_model(out, plan.tensors(progress), plan.like, plan.record())


class MergePlan:
    """A merge that was checked and can be made: `merge` in two steps."""

    def __init__(
        self,
        models: Mapping[str, Model] | Sequence[Model],
        method: str,
        base: Model | None = None,
        dtype: str | None = None,
        seed: int = 0,
        memory: float = 16.0,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.method = find_method(method)
        given = named_models(models)
        tuned_from = base  # which a LoRA adapter needs, whatever the method
        given, base = _arranged(self.method, given, base)
        self.names = list(given)
        self.params = checked_parameters(self.method, params or {}, self.names)
        require_whole("seed", seed)
        if not memory > 0:
            raise InputError(f"memory={memory}: GiB above 0 were expected")
        self.seed, self.memory, self.dtype = seed, memory, dtype
        self.target = dtype_named(dtype)
        if self.method.kit:
            _mergekit()
        opened: dict[str, State] = {name: open_model(model, tuned_from) for name, model in given.items()}
        self.base = open_model(base) if base is not None else None
        every = {**opened, **({THE_BASE: self.base} if self.base is not None else {})}
        check_states(every, finite=False, mixed_dtypes=dtype is not None)
        check_folders(every, THE_BASE if self.base is not None else None)
        self.states = opened
        first = next(iter(opened.values()))
        self.like = first if isinstance(first, Folder) else None
        self.tied = ties(first)

    def check_loads(self) -> None:
        """Raise InputError where the tensors will not make the model that the first one's config says."""
        if self.like is not None and self.like.config is not None:
            check_loads(self.like.config, {n: self.like.describe(n) for n in self.like}, self.like.path, quiet=True)

    def tensors(self, progress: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Every merged tensor with its name, in the first model's order."""
        import torch
        from tqdm.auto import tqdm

        first = next(iter(self.states.values()))
        made: dict[str, Tensor] = {}
        bar = tqdm(first, desc=f"merge {self.method.name}", unit="tensor", disable=not progress, delay=1)
        for name in bar:
            with torch.no_grad():
                tensor = made[self.tied[name]] if name in self.tied else self._tensor(name)
            if name in self.tied.values():
                made[name] = tensor
            yield name, tensor

    def record(self) -> dict[str, Any]:
        """How the model was made."""
        from ratekit import __version__

        return {"method": self.method.name, "models": self.names, "base": self.base is not None,
                "parameters": self.params, "dtype": self.dtype, "seed": self.seed, "ratekit": __version__,
                "mergekit": _version("mergekit") if self.method.kit else None}  # fmt: skip

    def _tensor(self, name: str) -> Tensor:
        import torch

        own = [state[name] for state in self.states.values()]
        base = self.base[name] if self.base is not None else None
        for model, tensor in [*zip(self.names, own, strict=True), *([(THE_BASE, base)] if base is not None else [])]:
            check_finite(model, name, tensor)
        every = own if base is None else [base, *own]
        if not all(t.is_floating_point() for t in every):
            return shared_tensor(name, every)
        target = self.target or own[0].dtype
        work = torch.float64 if any(t.dtype == torch.float64 for t in every) else torch.float32
        if self.method.kit and self.method.name != "passthrough" and all(torch.equal(t, every[0]) for t in every[1:]):
            return own[0].to(target, copy=True)  # a tensor that tuning left alone: its task vectors have no direction
        if own[0].numel() == 1 and self.method.singles != "own":
            merged = self._single(name, own, base, target)
        elif not self.method.kit:
            merged = self._sum(name, own, base, target)
        else:
            merged = self._by_mergekit(name, own, base, work, target)
        if not_finite(merged):  # a sum of task vectors may be too large for float16
            raise WorkError(f"{self.method.name} gave NaN or infinity for {name}; another method or dtype may not")
        return merged

    def _sum(self, name: str, own: list[Tensor], base: Tensor | None, target: Any) -> Tensor:
        k = len(own)
        if self.method.name == "wise_ft":
            assert base is not None
            alpha = self.params["alpha"]
            return weighted_sum(name, [base, *own], [1 - alpha, *[alpha / k] * k], target)
        weights = self.params.get("weight", [1.0 / k] * k)
        total = sum(weights) if self.params.get("normalize") else 1.0
        return weighted_sum(name, own, [w / total for w in weights], target)

    def _single(self, name: str, own: list[Tensor], base: Tensor | None, target: Any) -> Tensor:
        weights = self.params.get("weight", [1.0] * len(own))
        if self.method.singles == "mean":
            total = sum(weights)
            return weighted_sum(name, own, [w / total for w in weights], target)
        assert base is not None
        scale = self.params["lambda_"] / (sum(weights) if self.params["normalize"] else 1.0)
        parts = [scale * w for w in weights]
        return weighted_sum(name, [base, *own], [1 - sum(parts), *parts], target)

    def _by_mergekit(self, name: str, own: list[Tensor], base: Tensor | None, work: Any, target: Any) -> Tensor:
        import torch

        needed = own[0].numel() * self.method.memory * (len(own) + 1) / 3 * (2 if work == torch.float64 else 1)
        blocks = 1 if own[0].dim() == 0 else min(own[0].shape[0], int(-(-needed // (self.memory * GIB))))
        if blocks <= 1:
            return self._call(name, own, base, work, target)
        log.warning("%s: %s is merged in %d blocks of rows, each by itself", self.method.name, name, blocks)
        merged = torch.empty(own[0].shape, dtype=target, device=own[0].device)
        for rows in torch.arange(own[0].shape[0]).chunk(blocks):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            of_base = base[part] if base is not None else None
            merged[part] = self._call(f"{name}[{part.start}]", [t[part] for t in own], of_base, work, target)
        return merged

    def _call(self, name: str, own: list[Tensor], base: Tensor | None, work: Any, target: Any) -> Tensor:
        import torch

        tensors, ids = (own, self.names) if base is None else ([base, *own], [BASE_ID, *self.names])
        params = {"lambda" if k == "lambda_" else k: v for k, v in self.params.items()}
        if "weight" in params:
            params["weight"] = dict(zip(self.names, params["weight"], strict=True))
        base_index = 0 if base is not None or (self.method.pair and self.method.name != "nuslerp") else None
        draws = int.from_bytes(hashlib.blake2b(f"{self.seed} {name}".encode(), digest_size=7).digest(), "big")
        with torch.random.fork_rng(devices=[], enabled=True):
            torch.manual_seed(draws)
            try:
                merged: Tensor = _mergekit().merge_tensors(
                    tensors, self.method.name, parameters=params, ids=ids, base_index=base_index, name=name,
                    dtype=work, out_dtype=target,
                )  # fmt: skip
            except (ValueError, TypeError, RuntimeError) as e:
                raise WorkError(f"{self.method.name} cannot merge {name}: {shorten(e, 160)}") from None
        return merged.reshape(own[0].shape)


BASE_ID = ("base",)  # no name that a model can have


def _arranged(method: Method, models: dict[str, Model], base: Model | None) -> tuple[dict[str, Model], Model | None]:
    """The models and the base as the method takes them. Raises InputError where they are too few or too many."""
    if not models:
        raise InputError("nothing to merge: no model was given")
    if method.pair and len(models) == 1 and base is not None:
        models = {THE_BASE: base, **models}
    least, most = method.models
    if len(models) < least or (most is not None and len(models) > most):
        wanted = f"{least}" if least == most else f"at least {least}"
        besides = " beside the base" if method.base == "needed" else ""
        raise InputError(f"{method.name} merges {wanted} model{'s' * (wanted != '1')}{besides}; got {len(models)}")
    if method.base == "needed" and base is None:
        raise InputError(f"{method.name} needs base=, the model that these were tuned from")
    return models, base if method.base != "none" else None


def _mergekit() -> Any:
    """The module that holds mergekit's in-memory API. Raises InputError that says what to install."""
    try:
        from mergekit import merge_methods
    except ImportError as e:
        absent = "" if e.name == "mergekit" else f" (and {e.name})"
        raise InputError(
            f"this method is mergekit's, which is not installed{absent}: pip install 'ratekit[merge]'; "
            "linear, soup and wise_ft work without"
        ) from None
    return merge_methods


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
