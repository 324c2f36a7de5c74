"""LoRA adapters: merged into the weights they were trained beside, before anything else is done with them.

    merge_lora("base-rm", "adapter")                a state dict
    merge(["adapter-a", "adapter-b"], "ties", base="base-rm")     an adapter's folder counts as the model that it makes

A weight W with an adapter becomes W + s B A, s = alpha / r, or alpha / sqrt(r) for rank-stabilised ones (Hu et al.
2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError
from ratekit.merging.states import Folder, Model, State, describe, open_state

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = "adapter_config.json"
PREFIX = "base_model.model."


class Lora(Folder):
    """The model that a LoRA adapter makes of its base, read one tensor at a time.

    adapter  a folder with adapter_config.json and adapter_model.safetensors
    base     by default the folder that adapter_config.json names, or where that is none `otherwise`

    Raises InputError for an adapter of another kind (DoRA, IA3, embeddings of its own) and for one that fits no weight.
    """

    def __init__(self, adapter: str | Path, base: Model | None = None, *, otherwise: Model | None = None) -> None:
        super().__init__(adapter)
        self.config = _config(self.path)
        self.base = open_state(base if base is not None else self._named_base(otherwise))
        self.deltas: dict[str, tuple[str, str]] = {}
        self.whole: dict[str, str] = {}
        for name in self._where:
            self._place(name)
        if not self.deltas:
            raise InputError(f"{self.path} holds no LoRA weights (names ending in lora_A.weight)")
        self.adapter = self.path
        if isinstance(self.base, Folder):
            self.path = self.base.path  # whose config and tokenizer the merged model has

    def _named_base(self, otherwise: Model | None) -> Model:
        named = self.config.get("base_model_name_or_path")
        for folder in (Path(str(named)).expanduser(), self.path.parent / str(named)):
            if named and folder.is_dir():
                return folder
        if otherwise is not None:
            return otherwise
        raise InputError(
            f"{self.path} is a LoRA adapter, and its base {str(named)!r} is no folder here; "
            "give base=, or merge it first with rk.merging.merge_lora(base, adapter)"
        )

    def _place(self, name: str) -> None:
        plain = name.removeprefix(PREFIX)
        if plain.endswith("lora_A.weight"):
            target = plain.removesuffix("lora_A.weight") + "weight"
            other = name.removesuffix("lora_A.weight") + "lora_B.weight"
            if other not in self._where:
                raise InputError(
                    f"{self.path}: {name} has no {other.rpartition('.lora_B')[2] or 'lora_B.weight'} beside it"
                )
            if target not in self.base:
                raise InputError(f"{self.path}: the adapter changes {target}, which its base does not have")
            shape, _ = describe(self.base, target)
            made = (self._described[other][0][0], self._described[name][0][1])
            if len(shape) != 2 or made not in (shape, shape[::-1]):
                raise InputError(f"{self.path}: {target} is {shape} in the base, and the adapter's product is {made}")
            self.deltas[target] = (name, other)
        elif plain.endswith("lora_B.weight"):
            return
        elif "lora_" in plain:
            raise InputError(f"{self.path}: {name} is of a kind of adapter that is not read here (DoRA or embeddings)")
        else:  # modules_to_save: a reward head that was trained whole
            target = plain.replace(".modules_to_save", "")
            if target not in self.base:
                raise InputError(f"{self.path}: the adapter holds {target}, which its base does not have")
            self.whole[target] = name

    def _scale(self, target: str) -> float:
        module = target.removesuffix(".weight")
        rank = _of_pattern(self.config.get("rank_pattern"), module, self.config["r"])
        alpha = _of_pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        return float(alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))

    def describe(self, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype: the base's."""
        return describe(self.base, name)

    def __getitem__(self, name: str) -> Tensor:
        import torch

        if name in self.whole:
            return super().__getitem__(self.whole[name]).to(self.base[name].dtype)
        weight = self.base[name]
        if name not in self.deltas:
            return weight
        a, b = (super(Lora, self).__getitem__(part) for part in self.deltas[name])
        work = torch.promote_types(weight.dtype, torch.float32)
        delta = self._scale(name) * (b.to(work) @ a.to(work))
        if self.config.get("fan_in_fan_out"):
            delta = delta.T
        return (weight.to(work) + delta).to(weight.dtype)

    def __contains__(self, name: object) -> bool:
        return name in self.base

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


def merge_lora(base: Model, adapter: str | Path) -> dict[str, Tensor]:
    """The state dict of `base` with a LoRA adapter merged into its weights.

    >>> state = merge_lora("base-rm", "adapter")  # doctest: +SKIP
    """
    state: State = Lora(adapter, base)
    return {name: state[name] for name in state}


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no {ADAPTER}, so no LoRA adapter") from None
    except (OSError, ValueError):
        raise InputError(f"{folder / ADAPTER} is not readable") from None
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
        kind = "a DoRA" if config.get("use_dora") else f"a {config.get('peft_type')}"
        raise InputError(f"{folder} is {kind} adapter with bias {config.get('bias')!r}; a plain LoRA was expected")
    return config


def _of_pattern(pattern: dict[str, float] | None, module: str, default: float) -> float:
    """What a pattern of module names says of a module."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
