"""The model that a LoRA adapter makes, read one tensor at a time: its weights, its config, its tokenizer.

    made = Lora("adapter")             a state dict: (base less its language-model head) + changes + modules of its own
    made.config, made.beside()         config.json as the merged model has it; tokenizer and template, the adapter's own

A weight W with an adapter becomes W + s B A, s = alpha / r, or alpha / sqrt(r) for rank-stabilised ones (Hu et al.
2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732); with DoRA each row of that sum is scaled to a length of
its own (Liu et al. 2024, arXiv 2402.09353). A field of adapter_config.json that may change the arithmetic in another
way is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.checkpoints import (
    FLOATS,
    TOKENIZER,
    Folder,
    Model,
    Shape,
    State,
    check_loads,
    class_named,
    classifier_of,
    open_state,
    placed,
    read_json,
    resolved,
    shape_and_dtype,
    tokenizer_of,
)
from ratekit.errors import InputError, shorten

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
CLASSIFIES = "SEQ_CLS"
LM_HEADS = re.compile(r"^(lm_head|embed_out|cls\.predictions|vocab_(transform|layer_norm|projector)|decoder)\.")
_HEADS = ("score.weight", "score.bias", "classifier.weight", "classifier.bias", "classifier.out_proj.weight",
         "classifier.out_proj.bias", "classifier.dense.weight", "classifier.dense.bias")  # fmt: skip

# Fields of the adapter's config that are part of the arithmetic here, and those that a saved adapter's does not depend
# on: they chose what was trained, or how it began. Any other must be off.
ARITHMETIC = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias",
              "fan_in_fan_out", "modules_to_save", "trainable_token_indices"}  # fmt: skip
APART = {"peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
         "inference_mode", "target_modules", "exclude_modules", "lora_dropout", "init_lora_weights",
         "layers_to_transform", "layers_pattern", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
         "megatron_core", "qalora_group_size", "runtime_config"}  # fmt: skip
BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others (PiSSA, OLoRA, ...) change the base too


def base_folder(adapter: Path, told: Mapping[str, Any]) -> Path | None:
    """The folder of the base that an adapter's config names, as a path or beside the adapter; None where it is none."""
    named = told.get("base_model_name_or_path")
    places = (Path(str(named)).expanduser(), adapter.parent / str(named)) if named else ()
    return next((folder for folder in places if folder.is_dir()), None)


class Lora(Folder):
    """The model that a LoRA adapter makes of its base, as a state dict that is read one tensor at a time.

    Parameters
    ----------
    adapter : str or Path
        A folder with adapter_config.json and adapter_model.safetensors.
    base : state dict, str or Path, optional
        By default the folder that adapter_config.json names, or where that is none `otherwise`.
    otherwise : state dict, str or Path, optional
        The base where the adapter's config names none that is here.

    Raises
    ------
    InputError
        For another kind of adapter, a field of its config that is not known, and tensors that fit no weight.

    Notes
    -----
    A sequence classifier's adapter (`task_type` SEQ_CLS) may stand on a causal language model, as TRL's RewardTrainer
    leaves it: the language-model head goes, the head trained with the adapter comes, and architecture, number of
    labels, vocabulary size and padding token of `config` are those of the model that is made.
    """

    def __init__(self, adapter: str | Path, base: Model | None = None, *, otherwise: Model | None = None) -> None:
        super().__init__(adapter, WEIGHTS)
        self.told = read_config(self.path)
        self.base = open_state(base if base is not None else self._named_base(otherwise))
        self._deltas: dict[str, dict[str, str]] = {}  # weight -> {"A": tensor's name, "B": ...}
        self._whole: dict[str, str] = {}
        self._rows: dict[str, str] = {}  # embedding -> the tensor that holds rows of it
        self._shifts: dict[str, str] = {}  # bias -> what LoRA adds to it
        self._kind: Any = None  # the class that the model has in transformers, where that is known
        self._modules: Mapping[str, Any] = {}
        self._parameters: set[str] = set()
        self._from: dict[str, str] = {name: name for name in self.base}  # name here -> name in the base
        for name in self._where:
            self._place(name)
        if not self._deltas:
            raise InputError(f"{self.path} holds no LoRA weights (names ending in lora_A.weight)")
        self._fit()

    # --- what is where ------------------------------------------------------------------------------------------

    def _named_base(self, otherwise: Model | None) -> Model:
        named = self.told.get("base_model_name_or_path")
        if (folder := base_folder(self.path, self.told)) is not None:
            return folder
        if otherwise is not None:
            return otherwise
        raise InputError(
            f"{self.path} is a LoRA adapter, and its base {shorten(named)!r} is no folder here; "
            "give base=, or merge it first with rk.merging.merge_lora(base, adapter)"
        )

    def _place(self, name: str) -> None:
        plain = re.sub(r"\.(base_layer|modules_to_save|default)(?=\.|$)", "", name.removeprefix(PREFIX))
        module, _, part = plain.rpartition(".lora_")
        kinds = {"A.weight": "A", "B.weight": "B", "embedding_A": "A", "embedding_B": "B", "magnitude_vector": "m",
                 "magnitude_vector.weight": "m"}  # fmt: skip
        if module and part in kinds:
            parts = self._deltas.setdefault(f"{module}.weight", {})
            parts[kinds[part]] = name
            if part.startswith("embedding"):
                parts["embedding"] = name
        elif module and part == "B.bias":
            self._shifts[f"{module}.bias"] = name
        elif plain.endswith(".token_adapter.trainable_tokens_delta"):
            self._rows[plain.removesuffix("token_adapter.trainable_tokens_delta") + "weight"] = name
        elif "lora_" in plain or "token_adapter" in plain:
            raise InputError(f"{self.path}: {name} is of a kind of adapter that is not read here")
        else:  # a module that was trained whole: a reward head, resized embeddings, a bias
            self._whole[plain] = name

    def _fit(self) -> None:
        """Settle names, shapes and config; raise InputError where adapter and base do not fit."""
        self._dtype = next((d for _, d in (shape_and_dtype(self.base, n) for n in self.base) if d in FLOATS), "float32")
        if isinstance(self.base, Folder) and self.base.config is not None:
            self._as_transformers()
        elif self.classifies:
            self._from = {n: o for n, o in self._from.items() if not LM_HEADS.match(n)}
        for target in {*self._deltas, *self._rows, *self._shifts} - {*self._from, *self._whole}:
            raise InputError(f"{self.path}: the adapter changes {target}, which its base does not have")
        for target in {*self._whole} - {*self._from}:
            if target not in self._parameters and not (self.classifies and target in _HEADS):
                raise InputError(f"{self.path}: the adapter holds {target}, which its base does not have")
        self._sizes: dict[str, Shape] = {name: shape_and_dtype(self.base, old)[0] for name, old in self._from.items()}
        self._sizes |= {name: self._described[own][0] for name, own in self._whole.items()}
        for target, parts in self._deltas.items():
            self._check_product(target, parts)
        for target, own in self._shifts.items():
            if self._described[own][0] != self._sizes[target]:
                raise InputError(f"{self.path}: {own} is {self._described[own][0]}, {target} {self._sizes[target]}")
        if self.config is not None:
            check_loads(self.config, {n: self.describe(n) for n in self}, f"what the adapter {self.path} makes")

    def _as_transformers(self) -> None:
        """Names as the class in transformers has them; what the class has no place for (a language-model head) goes."""
        assert isinstance(self.base, Folder)
        assert self.base.config is not None
        config = resolved(self.base.config, self.base.path / "config.json")
        self._kind = classifier_of(config) if self.classifies else class_named(self.base.config)
        if config is None or self._kind is None:
            if self.classifies:
                self._from = {n: o for n, o in self._from.items() if not LM_HEADS.match(n)}
            return
        if self.classifies:
            model, report = placed(config, self._kind, {n: shape_and_dtype(self.base, n) for n in self.base})
            self._from = {n: o for n, o in self._from.items() if n not in report["unexpected_keys"]}
        else:
            model, _ = placed(config, self._kind, {})
        self._modules = dict(model.named_modules())
        self._parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        prefix = f"{self._kind.base_model_prefix}."
        changed = {*self._deltas, *self._whole, *self._rows, *self._shifts}
        if any(n not in self._from and n.removeprefix(prefix) in self._from for n in changed):
            self._from = {n if n.startswith(prefix) else prefix + n: o for n, o in self._from.items()}

    def _check_product(self, target: str, parts: Mapping[str, str]) -> None:
        lacking = next((p for p in "AB" if p not in parts), None)
        if lacking or (self.told.get("use_dora") and "m" not in parts):
            own = next(iter(parts.values()))
            raise InputError(f"{self.path}: {own} has no lora_{lacking or 'magnitude_vector'} beside it")
        a, b = (self._described[parts[p]][0] for p in "AB")
        shape = self._sizes[target]
        if len(a) != 2 or len(b) != 2 or b[1] != a[0] or len(shape) != 2 or (b[0], a[1]) not in (shape, shape[::-1]):
            made = (b[0], a[-1]) if b and a else (*b, *a)
            raise InputError(f"{self.path}: {target} is {shape} in the base, and the adapter's product is {made}")
        if "embedding" in parts and "m" in parts:
            raise InputError(f"{self.path}: {target} is an embedding with use_dora, which is not read here")
        module = target.removesuffix(".weight")
        rank = _of_pattern(self.told.get("rank_pattern"), module, self.told["r"])
        if rank != a[0]:
            raise InputError(f"{self.path}: {ADAPTER} gives {module} the rank {rank}, and lora_A has {a[0]} rows")

    @property
    def classifies(self) -> bool:
        """Whether the model that it makes is a sequence classifier: a reward model."""
        return self.told.get("task_type") == CLASSIFIES

    # --- what the merged model's folder holds ----------------------------------------------------------------------

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """config.json of the model that is made; None where the base is a bare state dict."""
        if not isinstance(self.base, Folder) or self.base.config is None:
            return None
        config: dict[str, Any] = json.loads(json.dumps(self.base.config))
        for name in self._whole:
            old = self._from.get(name)
            rows = shape_and_dtype(self.base, old)[0][:1] if old else ()
            if rows and rows != self._sizes[name][:1]:
                for told in (config, config.get("text_config")):
                    if isinstance(told, dict) and told.get("vocab_size") == rows[0]:
                        told["vocab_size"] = self._sizes[name][0]
        if self.classifies:
            if self._kind is not None:
                config["architectures"] = [self._kind.__name__]
            heads = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
            head = next((n for n in heads if n in self._sizes), None)
            labels = config.get("id2label")
            if head and len(labels if isinstance(labels, dict) else "..") != self._sizes[head][0]:
                names = [f"LABEL_{i}" for i in range(self._sizes[head][0])]
                config["id2label"] = {str(i): name for i, name in enumerate(names)}
                config["label2id"] = {name: i for i, name in enumerate(names)}
                config.pop("num_labels", None)
            tokenizer = tokenizer_of(self.path, super().beside())
            if tokenizer is not None and tokenizer.pad_token_id is not None:
                config["pad_token_id"] = tokenizer.pad_token_id
        return config

    @cached_property
    def tokenizer_folder(self) -> Path:
        """The folder with the tokenizer: the adapter's own, where it has one, else the base's."""
        if {*super().beside()} & {*TOKENIZER} - {"chat_template.jinja", "chat_template.json"}:
            return self.path
        return self.base.path if isinstance(self.base, Folder) else self.path

    def beside(self) -> dict[str, Path]:
        """The small files of the model that is made: the tokenizer of one folder, the adapter's chat template."""
        own = super().beside()
        if self.tokenizer_folder == self.path or not isinstance(self.base, Folder):
            return own
        return {**self.base.beside(), **own}

    # --- its tensors ------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> tuple[Shape, str]:
        """Shape and dtype of a tensor as it will be."""
        dtype = shape_and_dtype(self.base, self._from[name])[1] if name in self._from else self._dtype
        return self._sizes[name], dtype

    def __getitem__(self, name: str) -> Tensor:
        import torch

        if name not in self._sizes:
            raise KeyError(name)
        dtype = getattr(torch, self.describe(name)[1])
        own = super().__getitem__
        weight = own(self._whole[name]).to(dtype) if name in self._whole else self.base[self._from[name]]
        if name in self._rows:
            rows = torch.tensor(self._tokens(name))
            weight = weight.index_copy(0, rows, own(self._rows[name]).to(dtype))
        if name in self._shifts:
            scale = self._scale(name.removesuffix(".bias"))
            weight = (weight.float() + scale * own(self._shifts[name]).float()).to(dtype)
        if name in self._deltas:
            weight = self._changed(name, weight)
        return weight

    def _changed(self, name: str, weight: Tensor) -> Tensor:
        import torch

        parts = self._deltas[name]
        work = torch.promote_types(weight.dtype, torch.float32)
        a, b = (super(Lora, self).__getitem__(parts[p]).to(work) for p in "AB")
        turned = "embedding" in parts or self._turned(name, (b.shape[0], a.shape[1]), tuple(weight.shape))
        whole = weight.T if turned else weight
        total = whole.to(work) + self._scale(name.removesuffix(".weight")) * (b @ a)
        if "m" in parts:
            length = super().__getitem__(parts["m"]).to(work).reshape(-1)
            total = (length / total.norm(dim=1))[:, None] * total
        return (total.T.contiguous() if turned else total).to(weight.dtype)

    def _turned(self, name: str, product: Shape, shape: Shape) -> bool:
        """Whether the weight is stored (in, out), as GPT-2's layers are, and not (out, in)."""
        if product != shape:
            return True
        if shape[0] != shape[1]:
            return False
        module = self._modules.get(name.removesuffix(".weight"))
        return bool(self.told.get("fan_in_fan_out")) if module is None else type(module).__name__ == "Conv1D"

    def _scale(self, module: str) -> float:
        rank = _of_pattern(self.told.get("rank_pattern"), module, self.told["r"])
        alpha = _of_pattern(self.told.get("alpha_pattern"), module, self.told["lora_alpha"])
        return float(alpha / (math.sqrt(rank) if self.told.get("use_rslora") else rank))

    def _tokens(self, name: str) -> list[int]:
        told = self.told.get("trainable_token_indices")
        if isinstance(told, dict):
            module = name.removesuffix(".weight")
            told = next((rows for key, rows in told.items() if module == key or module.endswith(f".{key}")), None)
        n, size = self._described[self._rows[name]][0][0], self._sizes[name][0]
        whole = isinstance(told, list) and all(isinstance(i, int) and 0 <= i < size for i in told)
        if not whole or len(told or ()) != n:
            raise InputError(f"{self.path}: trainable_token_indices does not name the {n} rows of {self._rows[name]}")
        return list(told or ())

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def is_adapter(model: Model) -> bool:
    """Whether this is the folder of an adapter."""
    return isinstance(model, str | Path) and (Path(model).expanduser() / ADAPTER).exists()


def open_model(model: Model, base: Model | None = None) -> State:
    """A model as a mapping of tensors: a state dict, a model folder, or a LoRA adapter's folder with its base.

    The adapter's config names its base; `base` is taken where that is no folder here.
    """
    return Lora(str(model), otherwise=base) if is_adapter(model) else open_state(model)


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a LoRA adapter. InputError for another kind, and for a field that may change the arithmetic."""
    config = read_json(folder, ADAPTER)
    if config is None:
        raise InputError(f"{folder} holds no {ADAPTER}, so no LoRA adapter")
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder} is a {shorten(config.get('peft_type'))} adapter; LoRA was expected")
    where = f"{folder / ADAPTER}"
    for name, value in config.items():
        if name not in ARITHMETIC | APART and value not in (None, False, 0, "", [], {}):
            raise InputError(f"{where}: {name}={shorten(value)} may change what the adapter does, and is not read here")
    if config.get("init_lora_weights", True) not in BEGINNINGS:
        raise InputError(
            f"{where}: init_lora_weights={shorten(config['init_lora_weights'])} changed the base's weights too; save "
            "the adapter with path_initial_model_for_weight_conversion, which makes it a plain one"
        )
    for name in ("r", "lora_alpha"):
        if not _is_number(config.get(name)) or (name == "r" and config[name] <= 0):
            raise InputError(f"{where}: {name} is {shorten(config.get(name))}; a number was expected")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(name) or {}
        if not isinstance(pattern, dict) or not all(_is_number(v) and v > 0 for v in pattern.values()):
            raise InputError(f"{where}: {name} is {shorten(pattern)}; an object of numbers was expected")
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_pattern(pattern: dict[str, float] | None, module: str, default: float) -> float:
    """What a pattern of module names says of a module."""
    for key, value in (pattern or {}).items():
        try:
            if re.search(r"[*+}]\s*\)+\s*[*+{]", key):  # a repeated repetition may take for ever
                raise re.error("repetitions within repetitions")
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as e:
            raise InputError(f"{ADAPTER}: {shorten(key)!r} is no pattern ({e})") from None
    return default
