"""State dicts written as model folders, shard by shard: whole, or not there at all.

save_state(state, "half", like="rm-a")      # config, tokenizer and template are rm-a's
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import files
from ratekit.checkpoints import CONFIG, FLOATS, INDEX, WHOLE, Folder, Model, Shape, State, check_loads
from ratekit.errors import InputError, WorkError, shorten
from ratekit.lora import open_model

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 1 << 30  # a shard is written when it would grow past this, so that no more waits in memory


def write_model(
    folder: str | Path,
    tensors: Iterable[tuple[str, Tensor]],
    like: Folder | None = None,
    record: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder shard by shard; it is there under its name only once it is whole, and loads.

    Parameters
    ----------
    folder : str or Path
        A new one, or an empty one.
    tensors : iterable of (str, Tensor)
        Taken one at a time.
    like : Folder, optional
        Whose config, tokenizer and chat template are taken over: files of known names, no code. The config's dtype is
        that of the tensors.
    record : mapping, optional
        How the model was made; written as merge.json.

    Raises
    ------
    InputError
        Where the folder holds something, or the tensors do not make the model that the config says.
    WorkError
        Where it cannot be written.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise InputError(f"{folder} is a file; a model is written into a folder")
    files.recover(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; a model is written into a new folder")
    return files.replace_folder(folder, lambda new: _write(new, tensors, like, record))


def _write(
    new: Path, tensors: Iterable[tuple[str, Tensor]], like: Folder | None, record: Mapping[str, Any] | None
) -> None:
    shards: list[dict[str, int]] = []  # the bytes of each tensor in each
    waiting: dict[str, Tensor] = {}
    size = 0
    new.mkdir()
    for name, tensor in tensors:
        more = tensor.numel() * tensor.element_size()
        if waiting and size + more > SHARD_BYTES:
            shards.append(_flush(waiting, new / f"shard-{len(shards)}"))
            waiting, size = {}, 0
        waiting[name] = tensor.detach().contiguous()
        size += more
    shards.append(_flush(waiting, new / f"shard-{len(shards)}"))
    n = len(shards)
    names = [f"model-{i + 1:05d}-of-{n:05d}.safetensors" if n > 1 else WHOLE for i in range(n)]
    for i, name in enumerate(names):
        (new / f"shard-{i}").rename(new / name)
    if n > 1:
        where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(sum(shard.values()) for shard in shards)
        _write_json(new / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    if like is not None:
        for name, path in like.beside().items():
            shutil.copyfile(path, new / name)
        if like.config is not None:
            written = Folder(new)
            described = {name: written.describe(name) for name in written}
            config = with_dtype(like.config, described)
            check_loads(config, described, f"what was merged (like {like.path})")
            _write_json(new / CONFIG, config)
    if record is not None:
        _write_json(new / "merge.json", record)


def _flush(waiting: dict[str, Tensor], path: Path) -> dict[str, int]:
    from safetensors.torch import save_file

    # Tied tensors share their memory, which the format does not allow: each is written.
    seen: set[int] = set()
    for name, tensor in waiting.items():
        place = tensor.untyped_storage().data_ptr()
        waiting[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    try:
        save_file(waiting, path, metadata={"format": "pt"})
    except OSError:
        raise
    except Exception as e:  # safetensors raises its own kind for a full disk
        raise WorkError(f"{path.parent} cannot be written ({shorten(e, 100)})") from None
    return {name: t.numel() * t.element_size() for name, t in waiting.items()}


def _write_json(path: Path, what: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")


def with_dtype(config: Mapping[str, Any], described: Mapping[str, tuple[Shape, str]]) -> dict[str, Any]:
    """A config that says the dtype in which the tensors are, wherever it says one.

    Where they have several, what it says stays if it is one of them; else it is the one that holds them all.

    Examples
    --------
    >>> with_dtype({"dtype": "bfloat16"}, {"w": ((2,), "float32")})
    {'dtype': 'float32'}
    """
    there = {dtype for _, dtype in described.values() if dtype in FLOATS}
    widest = {"float16", "bfloat16"} <= there and not there & {"float32", "float64"}
    dtype = "float32" if widest else next((d for d in FLOATS if d in there), "float32")
    told: dict[str, Any] = json.loads(json.dumps(config))
    for part in (told, *(v for v in told.values() if isinstance(v, dict))):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part.get(key), str) and part[key].removeprefix("torch.") not in there:
                part[key] = dtype
    if not {"dtype", "torch_dtype"} & {*told}:
        told["dtype"] = dtype
    return told


def save_state(state: State, folder: str | Path, like: Model | None = None) -> Path:
    """Write a state dict as a model folder: safetensors in shards, config and tokenizer of the model `like`.

    Parameters
    ----------
    state : mapping of str to Tensor
    folder : str or Path
        A new one.
    like : str or Path, optional
        A model folder (or an adapter's) whose architecture the state dict has.

    Raises
    ------
    InputError
        Where the folder holds something already, or the state is none of that architecture.

    Examples
    --------
    >>> save_state(state, "merged", like="rm-a")  # doctest: +SKIP
    """
    other = open_model(like) if like is not None else None
    return write_model(folder, ((n, state[n]) for n in state), other if isinstance(other, Folder) else None)
