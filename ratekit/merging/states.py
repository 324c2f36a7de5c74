"""State dicts, read from folders one tensor at a time (safetensors only); a fault names the tensor.

state = load_state("rm-a")                       # {"model.embed_tokens.weight": tensor, ...}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, WorkError, shorten

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]
Model = State | str | Path

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PIECE = 1 << 24  # entries worked on at once
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
          "F8_E5M2": "float8_e5m2"}  # fmt: skip


class Folder(Mapping[str, "Tensor"]):
    """The tensors of a model folder as a state dict that is read one tensor at a time.

    The file is opened for each tensor and closed again, so that its pages are given back when the tensor is.
    Raises InputError for a folder without safetensors, and for pickled weights, which can run any code.
    """

    def __init__(self, folder: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(folder).expanduser()
        if not self.path.is_dir():
            what = "is a file; give the folder it is in" if self.path.is_file() else "is not there"
            if not self.path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)):
                what += f"; if it is a hub id, fetch it first: hf download {folder} --local-dir ..."
            raise InputError(f"the model folder {self.path} {what}")
        self._where: dict[str, Path] = {}
        self._described: dict[str, tuple[tuple[int, ...], str]] = {}
        for shard in self._shards():
            try:
                with safe_open(shard, framework="pt") as f:
                    for name in f.keys():  # noqa: SIM118 (no mapping)
                        part = f.get_slice(name)
                        kind = part.get_dtype()
                        self._where[name] = shard
                        self._described[name] = (tuple(part.get_shape()), DTYPES.get(kind, kind.lower()))
            except (SafetensorError, OSError) as e:
                raise InputError(f"{shard} is not readable as safetensors ({shorten(e, 100)})") from None

    def _shards(self) -> list[Path]:
        if (self.path / INDEX).exists():
            try:
                listed = json.loads((self.path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            except (OSError, ValueError, KeyError, AttributeError):
                raise InputError(f"{self.path / INDEX} is not readable") from None
            shards = [self.path / name for name in sorted(set(listed))]
            absent = [s.name for s in shards if not s.exists()]
            if absent:
                raise InputError(f"{self.path} lacks {absent[0]}, which {INDEX} lists")
            return shards
        if (self.path / WHOLE).exists():
            return [self.path / WHOLE]
        shards = sorted(self.path.glob("*.safetensors"))
        if not shards:
            pickled = sorted(p.name for pattern in PICKLES for p in self.path.glob(pattern))
            what = (
                f"holds its weights only pickled ({pickled[0]}), which can run any code when they are read; "
                "convert them to safetensors"
                if pickled
                else "holds no *.safetensors"
            )
            raise InputError(f"the model folder {self.path} {what}")
        return shards

    def describe(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of a tensor, without reading it."""
        return self._described[name]

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._where[name], framework="pt") as f:
                return f.get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise WorkError(f"{self._where[name]}: {name} is not readable ({shorten(e, 100)})") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def open_state(model: Model) -> State:
    """A model as a mapping of tensors: a state dict as it is, a folder read as it is asked.

    Raises InputError for what is neither.
    """
    if isinstance(model, str | Path):
        return Folder(model)
    import torch

    if not isinstance(model, Mapping):
        raise InputError(f"a model is a state dict or a model folder; got {type(model).__name__}")
    if isinstance(model, Folder):
        return model
    if not model:
        raise InputError("a state dict without a tensor is no model")
    for name, tensor in model.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"a state dict holds tensors; {name!r} is a {type(tensor).__name__}")
    return model


def load_state(model: Model, dtype: str | None = None) -> dict[str, Tensor]:
    """The whole state dict of a model folder, on the CPU; a state dict is copied only where dtype says so.

    >>> state = load_state("rm-a")  # doctest: +SKIP

    dtype  "float32", "bfloat16", ... for floating-point tensors; by default their own
    """
    state = open_state(model)
    target = dtype_named(dtype)
    return {name: _cast(state[name], target) for name in state}


def _cast(tensor: Tensor, dtype: Any) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def dtype_named(name: str | None) -> Any:
    """The torch dtype of that name; InputError for one that is not floating point."""
    import torch

    if name is None:
        return None
    found = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype={name!r}: float32, bfloat16, float16 or float64 was expected")
    return found


def named(models: Mapping[str, Model] | Sequence[Model]) -> dict[str, Model]:
    """Models by name: a folder is called by its last part, a state dict `model 1`, `model 2`, ...

    >>> list(named(["runs/a", "runs/b"]))
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


def describe(state: State, name: str) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a tensor; nothing is read from a folder."""
    if hasattr(state, "describe"):
        described: tuple[tuple[int, ...], str] = state.describe(name)
        return described
    tensor = state[name]
    return tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def pieces(n: int) -> Iterator[slice]:
    """0 to n in pieces."""
    for start in range(0, n, PIECE):
        yield slice(start, min(start + PIECE, n))
