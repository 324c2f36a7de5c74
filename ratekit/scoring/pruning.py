"""The last layer of a model, of which only the rows that are read are needed.

Keys and values are made of every row, as they must be. Queries, output and feed-forward are made of the rows alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from ratekit.scoring import packing
from ratekit.scoring.packing import Running


def prune_last_layer(model: Any) -> Callable[[], None] | None:
    """Let only the rows that are read through the last layer's queries, output and feed-forward.

    What is given back gives the layer its own forward again; None where the layer is not of a kind that this is known
    for. It acts on packs alone.
    """
    base = model.base_model
    for layers, parts, pruned in (
        (getattr(base, "layers", None), _DECODER_PARTS, _pruned_decoder),
        (getattr(getattr(base, "transformer", None), "layer", None), _DISTILBERT_PARTS, _pruned_distilbert),
        (getattr(getattr(base, "encoder", None), "layer", None), _BERT_PARTS, _pruned_bert),
    ):
        if layers is None or not len(layers) or {n for n, _ in layers[-1].named_children()} != parts:
            continue
        layers[-1].forward = pruned(layers[-1], layers[-1].forward)
        return partial(delattr, layers[-1], "forward")
    return None


_DECODER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_DISTILBERT_PARTS = {"attention", "sa_layer_norm", "ffn", "output_layer_norm"}
_BERT_PARTS = {"attention", "intermediate", "output"}


def _read_rows(running: Running, q: Any, k: Any, v: Any, scaling: Any, window: int | None = None) -> Any:
    """Attention of the rows that are read: q (1, heads, rows, size) -> (1, rows, heads * size)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if running.varlen:
        return packing.varlen(running.of_read, running.causal, q, k, v, scaling, window).flatten(2)
    outs = []
    for j, (segment, n) in enumerate(running.read):
        keys, values = packing.seen(k, v, segment, n)
        if window is not None:
            keys, values = keys[:, :, -window:], values[:, :, -window:]
        gqa = q.shape[1] != k.shape[1]
        outs.append(scaled_dot_product_attention(q[:, :, j : j + 1], keys, values, scale=scaling, enable_gqa=gqa))
    return torch.cat(outs, 2).transpose(1, 2).reshape(1, len(running.rows), -1)


def _split(x: Any, size: int) -> Any:
    return x.view(1, x.shape[1], -1, size).transpose(1, 2)


def _few(running: Running | None) -> bool:
    return running is not None and len(running.rows) * 8 <= len(running.pack.tokens)


def _pruned_decoder(layer: Any, whole: Any) -> Any:
    """Pre-norm decoders with rotary positions: Llama, Mistral, Qwen2, Qwen3 and their kin."""
    attention = layer.self_attn
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb

    def forward(hidden_states: Any, *args: Any, running: Running | None = None, **kwargs: Any) -> Any:
        if running is None or not _few(running):
            return whole(hidden_states, *args, running=running, **kwargs)
        index, size = running.index, attention.head_dim
        normed = layer.input_layernorm(hidden_states)
        q, k = _split(attention.q_proj(normed[:, index]), size), _split(attention.k_proj(normed), size)
        v = _split(attention.v_proj(normed), size)
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        cos, sin = kwargs["position_embeddings"]
        k = rotate(k, k, cos, sin)[1]
        q = rotate(q, q, cos[:, index], sin[:, index])[0]
        read = _read_rows(running, q, k, v, attention.scaling, _window(attention))
        hidden = hidden_states[:, index] + attention.o_proj(read)
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    return forward


def _window(attention: Any) -> int | None:
    own = getattr(attention, "sliding_window", None)
    if own is None and not hasattr(attention, "sliding_window"):
        own = getattr(attention.config, "sliding_window", None)
    return own if isinstance(own, int) else None


def _pruned_distilbert(layer: Any, whole: Any) -> Any:
    attention = layer.attention

    def forward(hidden_states: Any, *args: Any, running: Running | None = None, **kwargs: Any) -> Any:
        if running is None or not _few(running):
            return whole(hidden_states, *args, running=running, **kwargs)
        size, rows = attention.attention_head_size, hidden_states[:, running.index]
        q, k = _split(attention.q_lin(rows), size), _split(attention.k_lin(hidden_states), size)
        read = _read_rows(running, q, k, _split(attention.v_lin(hidden_states), size), attention.scaling)
        hidden = layer.sa_layer_norm(attention.out_lin(read) + rows)
        return layer.output_layer_norm(layer.ffn(hidden) + hidden)

    return forward


def _pruned_bert(layer: Any, whole: Any) -> Any:
    """BERT, RoBERTa, ELECTRA and their kin."""
    attention = layer.attention.self

    def forward(hidden_states: Any, *args: Any, running: Running | None = None, **kwargs: Any) -> Any:
        if running is None or not _few(running):
            return whole(hidden_states, *args, running=running, **kwargs)
        size, rows = attention.attention_head_size, hidden_states[:, running.index]
        q, k = _split(attention.query(rows), size), _split(attention.key(hidden_states), size)
        read = _read_rows(running, q, k, _split(attention.value(hidden_states), size), attention.scaling)
        hidden = layer.attention.output(read, rows)
        return layer.output(layer.intermediate(hidden), hidden)

    return forward
