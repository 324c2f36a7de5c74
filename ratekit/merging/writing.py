"""State dicts written as model folders, shard by shard: whole, or not there at all.

save_state(state, "half", like="rm-a")      # config, tokenizer and template are rm-a's
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, WorkError, shorten
from ratekit.merging.states import INDEX, WHOLE, State

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 1 << 30  # a shard is written when it would grow past this, so that no more waits in memory


class Writer:
    """A model folder written shard by shard; it is there under its name only once it is whole.

    like  a model folder whose config, tokenizer and chat template are taken over
    """

    def __init__(self, folder: str | Path, like: str | Path | None = None) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.is_file():
            raise InputError(f"{self.folder} is a file; a model is written into a folder")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder} is not empty; a model is written into a new folder")
        self.like = Path(like).expanduser() if like is not None else None
        self.new = self.folder.with_name(f".{self.folder.name}.new")
        self._waiting: dict[str, Tensor] = {}
        self._bytes = self.total = 0
        self._shards: list[list[str]] = []
        try:
            shutil.rmtree(self.new, ignore_errors=True)
            self.new.mkdir(parents=True)
        except OSError as e:
            raise InputError(f"{self.folder} cannot be made: {e.strerror}") from None

    def add(self, name: str, tensor: Tensor) -> None:
        """One more tensor."""
        size = tensor.numel() * tensor.element_size()
        if self._waiting and self._bytes + size > SHARD_BYTES:
            self._flush()
        self._waiting[name] = tensor.detach().contiguous()
        self._bytes += size
        self.total += size

    def _flush(self) -> None:
        from safetensors.torch import save_file

        # Tied tensors share their memory, which the format does not allow: each is written.
        seen: set[int] = set()
        for name, tensor in self._waiting.items():
            place = tensor.untyped_storage().data_ptr()
            self._waiting[name] = tensor.clone() if place in seen else tensor
            seen.add(place)
        try:
            save_file(self._waiting, self.new / f"shard-{len(self._shards)}.safetensors", metadata={"format": "pt"})
        except Exception as e:  # safetensors raises its own kind for a full disk
            raise WorkError(f"{self.folder} cannot be written ({shorten(e, 100)})") from None
        self._shards.append(list(self._waiting))
        self._waiting, self._bytes = {}, 0

    def close(self, record: Mapping[str, Any] | None = None) -> Path:
        """Finish: names, index, the other files; `record` is written as merge.json."""
        self._flush()
        n = len(self._shards)
        names = [f"model-{i + 1:05d}-of-{n:05d}.safetensors" if n > 1 else WHOLE for i in range(n)]
        try:
            for i, name in enumerate(names):
                (self.new / f"shard-{i}.safetensors").rename(self.new / name)
            if n > 1:
                where = {t: name for name, tensors in zip(names, self._shards, strict=True) for t in tensors}
                index = {"metadata": {"total_size": self.total}, "weight_map": where}
                (self.new / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            if self.like is not None:
                copy_beside(self.like, self.new)
            if record is not None:
                (self.new / "merge.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            if self.folder.exists():
                self.folder.rmdir()
            self.new.rename(self.folder)
        except OSError as e:
            raise WorkError(f"{self.folder} cannot be written ({e.strerror})") from None
        return self.folder

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.new, ignore_errors=True)  # gone already where it was finished


def copy_beside(like: Path, folder: Path) -> None:
    """Take over all that is not weights: config, tokenizer, chat template, the model's own code."""
    for path in sorted(like.iterdir()):
        told = path.suffix in (".json", ".jinja", ".txt", ".model", ".py")
        if path.is_file() and told and path.name not in (INDEX, "merge.json"):
            shutil.copyfile(path, folder / path.name)


def save_state(state: State, folder: str | Path, like: str | Path | None = None) -> Path:
    """Write a state dict as a model folder: safetensors in shards, and config and tokenizer of the folder `like`.

    >>> save_state(state, "merged", like="rm-a")  # doctest: +SKIP

    Raises InputError where the folder holds something already.
    """
    with Writer(folder, like) as writer:
        for name in state:
            writer.add(name, state[name])
        return writer.close()
