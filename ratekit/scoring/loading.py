"""Loading a `transformers` model as a reward: from safetensors alone, whole, and with its own code only if asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.checkpoints import FLOATS, check_folder
from ratekit.errors import InputError, shorten
from ratekit.files import no_bars
from ratekit.lora import Lora
from ratekit.scoring.adapters import LANGUAGE_MODEL_READS, Adapter

log = logging.getLogger("ratekit")


def lora_model(adapter: Path, trust: bool) -> tuple[Any, Any, Lora, str]:
    """Config, tokenizer and weights of the model that a LoRA adapter's folder makes, and a hash of the first two."""
    made = Lora(adapter)
    if made.config is None:
        raise InputError(f"{adapter} is a LoRA adapter, and its base has no config.json")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in made.beside().items():
            shutil.copyfile(path, Path(folder) / Path(name).name)
        (Path(folder) / "config.json").write_text(json.dumps(made.config), encoding="utf-8")
        config, tokenizer = config_and_tokenizer(folder, None, trust)
        return config, tokenizer, made, folder_hash(Path(folder))


def config_and_tokenizer(name: str, revision: str | None, trust: bool) -> tuple[Any, Any]:
    """Raises InputError where either is not to be had."""
    from transformers import AutoConfig, AutoTokenizer

    check_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust)
        return config, AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
    except Exception as e:  # transformers raises many kinds; all mean that there is no model to score with
        raise InputError(f"the reward model {name!r} cannot be loaded: {_reason(e)}") from None


def load_model(
    name: str, config: Any, adapter: Adapter, revision: str | None, device: str | None, dtype: str | None, trust: bool,
    weights: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """The model on its device, in eval mode; with `weights` instead of its own where those are given.

    Raises
    ------
    InputError
        For pickled weights, absent ones, and code of its own that nobody allowed.
    """
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    asks = adapter.reads in LANGUAGE_MODEL_READS
    folder = Path(name).expanduser()
    if weights is None and folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
        what = (
            f"are there only pickled ({pickles[0]}), which can run any code when they are read"
            if pickles
            else "are not there"
        )
        raise InputError(f"the reward model {name!r} cannot be loaded: its weights {what}; model.safetensors is needed")
    device = device or str(PartialState(cpu=not torch.accelerator.is_available()).device)
    kind: Any = AutoModelForCausalLM if asks else AutoModelForSequenceClassification
    if dtype is not None and dtype not in FLOATS:
        raise InputError(f"dtype={dtype!r}: one of {', '.join(FLOATS)} was expected")
    options: dict[str, Any] = {
        "dtype": dtype or dtype_for(device, config), "output_loading_info": True, "ignore_mismatched_sizes": True,
    }  # fmt: skip
    try:
        if weights is None:
            with no_bars() if folder.is_dir() else contextlib.nullcontext():  # a download is shown
                model, report = kind.from_pretrained(
                    name, revision=revision, trust_remote_code=trust, use_safetensors=True, **options
                )
        else:
            model, report = from_weights(config, weights, options)
    except Exception as e:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_reason(e)}") from None
    _whole(name, config, model, report, trust)
    return model.to(device).eval()


# Tensors that checkpoints hold and that take no part in a classifier's forward: the output of a language model, and
# tables that the model computes anew.
_IDLE = re.compile(
    r"(^|\.)(lm_head|embed_out|cls|mask_emb|inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias)(\.|$)"
)


def _whole(name: str, config: Any, model: Any, report: Mapping[str, Any], trust: bool) -> None:
    """Refuse a checkpoint that lacks weights of the model, or has weights that the model has no place or size for."""
    missing = sorted(report["missing_keys"])
    if missing and getattr(config, "auto_map", None) and not trust:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_OWN_CODE}")
    kind = type(model).__name__
    for tensor, given, wanted in report.get("mismatched_keys") or ():
        raise InputError(
            f"{name!r} holds {tensor} of shape {tuple(given)}, and a {kind} of its config.json has {tuple(wanted)}"
        )
    if missing:
        raise InputError(
            f"{name!r} does not hold all weights of a {kind} ({_first(missing)}): they would be random, and so "
            "would be the scores"
        )
    unexpected = sorted(key for key in report["unexpected_keys"] if not _IDLE.search(key))
    own = {part for part, _ in model.named_children()}
    inside = [key for key in unexpected if key.split(".")[0] in own]
    if inside:
        raise InputError(
            f"{name!r} holds weights that a {kind} of its config.json has no place for ({_first(inside)}): the config "
            "is not that of the model that was trained, and the scores would be another model's"
        )
    if unexpected:
        log.warning("%s holds weights that a %s does not use (%s)", name, kind, _first(unexpected))


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def dtype_for(device: str, config: Any) -> str:
    """The checkpoint's own on a GPU that has it, float32 elsewhere."""
    import torch

    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if not device.startswith("cuda") or own not in ("bfloat16", "float16"):
        return "float32"
    return "float16" if own == "bfloat16" and not torch.cuda.is_bf16_supported(False) else own


def longest(model: Any, tokenizer: Any) -> int:
    """Tokens that the model and its tokenizer allow; 4096 where neither says.

    A table of positions says what there is: it may begin with rows that no token has (RoBERTa's begins after the
    padding token's number, OPT's two rows later). Numbers below one mean no limit.
    """
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len")]
    limits += [tokenizer.model_max_length, *_position_rows(model)]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**7]
    return min(known) if known else 4096


def _position_rows(model: Any) -> list[int]:
    """How many positions each table of positions in a model has for tokens."""
    rows = []
    for name, table in model.named_modules():
        part = name.rpartition(".")[2]
        weight = getattr(table, "weight", None)
        absolute = "position" in part or part == "wpe"
        if not absolute or "relative" in part or weight is None or weight.ndim != 2:
            continue
        padding = getattr(table, "padding_idx", None)
        rows.append(weight.shape[0] - getattr(table, "offset", 0 if padding is None else padding + 1))
    return rows


def embedding_rows(model: Any) -> float:
    """How many tokens a model has a row for; infinite where it does not look tokens up in one table."""
    import torch

    try:
        table = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return float("inf")
    size = getattr(model.config.get_text_config(), "vocab_size", None)
    plain = isinstance(table, torch.nn.Embedding) and isinstance(size, int) and table.num_embeddings >= size
    return table.num_embeddings if plain else float("inf")


def folder_hash(folder: Path, weights: bool = True) -> str:
    """A hash of the config, tokenizer and weights in a folder: another training gives another hash."""
    digest = hashlib.blake2b(digest_size=16)
    unread = (*files.INERT, ".bin", ".pt", ".pth", *[".safetensors"] * (not weights))  # pickles are never loaded
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in unread):
        place = path.relative_to(folder)
        if any(part.startswith(".") for part in place.parts):
            continue
        digest.update(str(place).encode("utf-8", "surrogateescape"))
        with path.open("rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


_OWN_CODE = "it comes with code of its own; read that code, and say trust_remote_code=True to run it"


def _reason(error: Exception) -> str:
    text = str(error) if " " in str(error) else f"{type(error).__name__} {error}"
    if "trust_remote_code" in text:
        return _OWN_CODE
    if "pickl" in text or "does not appear to have a file named model.safetensors" in text:
        return "its weights are there only pickled, which can run any code; model.safetensors is needed"
    return shorten(text, 160)


# --- weights that come as a state dict, not from a folder: a merged model, a point on a path between two -------


def from_weights(config: Any, weights: Mapping[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model that a config names, with these weights, and what `from_pretrained` reports of them.

    The tensors are taken over, not copied, where they have the dtype asked for.
    """
    import transformers

    made = [getattr(transformers, name, None) for name in config.architectures or []]
    if not made or made[0] is None:
        raise ValueError(f"its config names no architecture of transformers ({config.architectures})")
    with no_bars():  # one for each of a hundred models would say nothing
        model, report = made[0].from_pretrained(None, config=config, state_dict=dict(weights), **options)
    return model, report


def weights_hash(weights: Mapping[str, Any]) -> str:
    """A hash of a state dict: names, shapes, dtypes and every number."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
