"""Do two model folders belong together? Configs and vocabularies are compared, for the tensors' shapes do not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, shorten
from ratekit.merging.lora import ADAPTER, Lora
from ratekit.merging.states import Folder, Model, State, open_state

# What may differ between models that can be merged: where they come from and their names, not what they compute.
TOLD = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id",
        "use_cache", "problem_type", "task_specific_params", "architectures", "auto_map", "pad_token_id",
        "bos_token_id", "eos_token_id"}  # fmt: skip
HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim", "n_head", "num_heads")


def open_model(model: Model, base: Model | None = None) -> State:
    """A model as a mapping of tensors: a state dict, a model folder, or a LoRA adapter's folder with its base.

    The adapter's config names its base; `base` is taken where that is no folder here.
    """
    if isinstance(model, str | Path) and (Path(model).expanduser() / ADAPTER).exists():
        return Lora(model, otherwise=base)
    return open_state(model)


def check_folders(states: Mapping[str, State]) -> None:
    """Raise InputError where the folders among these hold other architectures, head sizes or vocabularies.

    Two models may agree in every shape and yet not belong together: 8 heads of 16 numbers have the shape of 16 heads of
    8, and two vocabularies of one size put other words into the same rows.
    """
    folders = {name: state for name, state in states.items() if isinstance(state, Folder)}
    if len(folders) < 2:
        return
    (first, reference), *others = folders.items()
    config, vocabulary = _config(reference.path), _vocabulary(reference.path)
    for other, folder in others:
        theirs = _config(folder.path)
        for key in ("model_type", *HEADS, *sorted({*config, *theirs} - TOLD)):
            mine, its = config.get(key), theirs.get(key)
            if key not in config or key not in theirs or mine == its:
                continue  # a key that one lacks has the default of the version that wrote it
            tensor = _tensor_of(key, reference)
            raise InputError(
                f"{key} is {shorten(mine)} in {first} and {shorten(its)} in {other}, so {tensor} means another thing "
                "in each: models of one architecture were expected"
            )
        words = _vocabulary(folder.path)
        if vocabulary and words and vocabulary != words:
            token = next(t for t in {**vocabulary, **words} if vocabulary.get(t) != words.get(t))
            raise InputError(
                f"the vocabularies differ: {token!r} is row {vocabulary.get(token, 'none')} of "
                f"{_tensor_of('vocab', reference)} in {first} and row {words.get(token, 'none')} in {other}"
            )


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise InputError(f"{folder / 'config.json'} is not readable") from None


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token -> row of the embedding, from tokenizer.json; empty where there is none."""
    try:
        told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = told["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if isinstance(words, list):  # unigram: pieces with their scores
        words = {piece[0]: row for row, piece in enumerate(words)}
    return {**words, **{t["content"]: t["id"] for t in told.get("added_tokens", [])}}


def _tensor_of(key: str, state: State) -> str:
    """The first tensor that a key of the config is about."""
    parts = {
        "vocab": ("embed", "wte"),
        "num_labels": ("score", "classifier"),
        **dict.fromkeys(HEADS, ("q_proj", "query", "c_attn", "q_lin", "Wqkv", "query_key_value")),
    }.get(key, ())
    return next((name for part in parts for name in state if part in name), next(iter(state)))
