"""Loading a `transformers` model as a reward: from safetensors alone, whole, and with its own code only if asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, shorten, unknown
from ratekit.scoring.adapters import ADAPTERS, HUB, LANGUAGE_MODEL_READS, Adapter
from ratekit.scoring.distributed import Processes
from ratekit.scoring.weights import from_weights


def find_adapter(name: str, adapter: str | Adapter | None) -> Adapter | None:
    """The adapter asked for, or the one known for this hub id or for a folder that bears that model's name.

    Raises InputError for an unknown name.
    """
    if isinstance(adapter, str):
        if adapter not in ADAPTERS:
            raise unknown("adapter", adapter, ADAPTERS)
        return ADAPTERS[adapter]
    if adapter is not None or name in HUB or not Path(name).is_dir():
        return adapter or HUB.get(name)
    return next((known for hub_id, known in HUB.items() if hub_id.split("/")[-1] == Path(name).name), None)


def config_and_tokenizer(name: str, revision: str | None, trust: bool) -> tuple[Any, Any]:
    """Raises InputError where either is not to be had."""
    from transformers import AutoConfig, AutoTokenizer

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

    Raises InputError for pickled weights, absent ones, and code of its own that nobody allowed.
    """
    import torch
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
    accelerated = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = device or Processes().device or accelerated
    kind: Any = AutoModelForCausalLM if asks else AutoModelForSequenceClassification
    options: dict[str, Any] = {"dtype": dtype or dtype_for(device, config), "output_loading_info": True}
    try:
        if weights is None:
            model, report = kind.from_pretrained(
                name, revision=revision, trust_remote_code=trust, use_safetensors=True, **options
            )
        else:
            model, report = from_weights(config, weights, options)
    except Exception as e:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_reason(e)}") from None
    missing = sorted(report["missing_keys"])
    if missing and getattr(config, "auto_map", None) and not trust:
        raise InputError(f"the reward model {name!r} cannot be loaded: {_OWN_CODE}")
    if missing:
        raise InputError(
            f"{name!r} does not hold all weights of a {type(model).__name__} ({missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}): they would be random, and so the scores"
        )
    return model.to(device).eval()


def dtype_for(device: str, config: Any) -> str:
    """The checkpoint's own on a GPU that has it, float32 elsewhere."""
    import torch

    own = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    if not device.startswith("cuda") or own not in ("bfloat16", "float16"):
        return "float32"
    return "float16" if own == "bfloat16" and not torch.cuda.is_bf16_supported(False) else own


def longest(config: Any, tokenizer: Any) -> int:
    """Tokens that the model and its tokenizer allow; 4096 where neither says."""
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit and limit < 10**7]
    return min(known) if known else 4096


def folder_hash(folder: Path) -> str:
    """A hash of the config, tokenizer and weights in a folder: another training gives another hash."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(
        p for pattern in ("*.json", "*.safetensors", "*.jinja", "*.py", "*.txt") for p in folder.glob(pattern)
    ):
        digest.update(path.name.encode())
        with path.open("rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


_OWN_CODE = "it comes with code of its own; read that code, and say trust_remote_code=True to run it"


def _reason(error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return _OWN_CODE
    if "pickl" in text or "does not appear to have a file named model.safetensors" in text:
        return "its weights are there only pickled, which can run any code; model.safetensors is needed"
    return shorten(text, 160)
