"""A model whose weights come as a state dict, not from a folder: a merged model, or a point on a path between two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def from_weights(config: Any, weights: Mapping[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model that a config names, with these weights, and what `from_pretrained` reports of them.

    The tensors are taken over, not copied, where they have the dtype asked for.
    """
    import transformers
    from transformers.utils import logging as messages

    made = [getattr(transformers, name, None) for name in config.architectures or []]
    if not made or made[0] is None:
        raise ValueError(f"its config names no architecture of transformers ({config.architectures})")
    shown = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()  # one bar for each of a hundred models would say nothing
    try:
        model, report = made[0].from_pretrained(None, config=config, state_dict=dict(weights), **options)
        return model, report
    finally:
        if shown:
            messages.enable_progress_bar()


def weights_hash(weights: Mapping[str, Any]) -> str:
    """A hash of a state dict: names, shapes, dtypes and every number."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
