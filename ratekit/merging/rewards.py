"""A reward of a state dict: its weights in the architecture of a model folder, scored by ratekit's own engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.checkpoints import State
from ratekit.scoring.base import Reward

if TYPE_CHECKING:
    from ratekit.scoring.model import RewardModel

RewardOf = Callable[[State], Reward]


def reward_from(
    folder: str | Path,
    *,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> RewardOf:
    """A function that makes a reward of a state dict: loaded into the architecture of `folder`, read as that is read.

    >>> reward = reward_from("rm-a")(state)  # doctest: +SKIP
    >>> reward(["Why?"], ["Because."]).shape  # doctest: +SKIP
    (1,)
    """
    return _RewardFrom(Path(folder).expanduser(), adapter, device, dtype, trust_remote_code)


class _RewardFrom:
    """What `reward_from` gives; `fingerprint` names all but the weights that a score depends on."""

    def __init__(
        self, folder: Path, adapter: str | None, device: str | None, dtype: str | None, trust_remote_code: bool
    ) -> None:
        self.folder, self.adapter, self.device, self.dtype, self.trust = (
            folder,
            adapter,
            device,
            dtype,
            trust_remote_code,
        )
        self._found: Any = None

    def __call__(self, state: State) -> Reward:
        return self._made(state, "auto")

    def plain(self, state: State) -> RewardModel:
        """The model with its layers as `transformers` made them, for those who look into it."""
        return self._made(state, "padded")

    def _made(self, state: State, path: str) -> RewardModel:
        from ratekit.scoring.model import RewardModel

        model = RewardModel(
            self.folder, self._found or self.adapter, device=self.device, dtype=self.dtype, path=path, weights=state,
            trust_remote_code=self.trust,
        )  # fmt: skip
        self._found = model.adapter  # guessed, and said, once
        return model

    @property
    def fingerprint(self) -> str:
        """A hash of the folder's config, tokenizer, template and code, and of how they are read."""
        import torch

        on = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        digest = hashlib.blake2b(repr((self.adapter, self.dtype, on)).encode(), digest_size=16)
        for path in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            if path.suffix in (".json", ".jinja", ".py", ".txt", ".model") and "safetensors" not in path.name:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()
