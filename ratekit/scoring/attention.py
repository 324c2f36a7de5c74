"""Attention over a pack: each segment sees its context and itself, and nothing else that stands beside it.

The function is registered with `transformers.AttentionInterface`, so that the model's own code runs around it. What it
does not know (attention sinks, say) it refuses by raising `NotPackable`; the padded path is then taken.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ratekit.scoring.plan import Pack, Segment

NAME = "ratekit_packed"
ROWS = 128  # of a block of attention that is written out: its logits stay in the processor's cache

# What model code hands to every attention function and what does not change what a token sees.
_HARMLESS = {
    "position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states", "return_dict",
    "deterministic", "past_key_value", "past_key_values", "layer_idx", "head_mask", "token_type_ids", "training",
}  # fmt: skip


class NotPackable(RuntimeError):
    """This model's attention is not one that packs can be run through."""


class Running:
    """A pack on its way through a model: its segments, the rows that are read at the end, and the masks in use."""

    def __init__(self, pack: Pack, rows: list[int], causal: bool, device: Any) -> None:
        import torch

        self.pack, self.rows, self.causal, self.device = pack, rows, causal, device
        self.index = torch.tensor(rows, device=device)
        self._masks: dict[Any, Any] = {}

    def mask(self, n: int, n_before: int, window: int | None, dtype: Any) -> Any:
        """(n, n_before + n) additive: token i of a segment sees what is not after it and less than `window` away."""
        import torch

        key = (n, n_before, window, dtype)
        if key not in self._masks:
            query = torch.arange(n_before, n_before + n, device=self.device)[:, None]
            distance = query - torch.arange(n_before + n, device=self.device)[None, :]
            seen = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
            if window is not None:
                seen &= distance.abs() < window
            zeros = torch.zeros(n, n_before + n, dtype=dtype, device=self.device)
            self._masks[key] = zeros.masked_fill_(~seen, float("-inf"))
        return self._masks[key]


def packed_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, running: Running | None = None, **kwargs: Any
) -> tuple[Any, None]:
    """query (1, heads, tokens, size), key and value (1, kv heads, tokens, size) -> (1, tokens, heads, size)."""
    import torch

    scaling, softcap, window = (
        kwargs.pop("scaling", None),
        kwargs.pop("softcap", None),
        kwargs.pop("sliding_window", None),
    )
    dropout, causal = kwargs.pop("dropout", 0.0), kwargs.pop("is_causal", None)
    unknown = sorted(k for k, v in kwargs.items() if v is not None and k not in _HARMLESS)
    if running is None or unknown or dropout:
        raise NotPackable(f"attention with {', '.join(unknown) or 'no pack'}")
    if causal is not None and bool(causal) != running.causal:
        raise NotPackable("attention of another direction")
    # In half precision torch's fused kernel for the CPU is slower than blocks of two matrix products and a softmax
    # where these leave out what comes after a row; where all is seen it is as fast, and it is what one by one takes.
    slow = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16) and running.causal
    attend = _fused if softcap is None and not slow else _written_out
    out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])  # a filled pass has rows of no segment
    for segment in running.pack.segments:
        here = slice(segment.start, segment.start + segment.length)
        seen = _seen(key, value, segment, segment.length)
        attend(running, query[:, :, here], *seen, out[:, here].transpose(1, 2), scaling, softcap, window)
    return out, None


def _seen(key: Any, value: Any, segment: Segment, n: int) -> tuple[Any, Any]:
    """Keys and values of a segment's context and of its own first n tokens."""
    import torch

    runs = [*segment.context, (segment.start, n)]
    if len(runs) == 1:
        here = slice(segment.start, segment.start + n)
        return key[:, :, here], value[:, :, here]
    return tuple(torch.cat([t[:, :, s : s + length] for s, length in runs], 2) for t in (key, value))  # type: ignore[return-value]


def _fused(running: Running, q: Any, k: Any, v: Any, out: Any, scaling: Any, softcap: None, window: int | None) -> None:
    from torch.nn.functional import scaled_dot_product_attention

    n, n_before, gqa = q.shape[2], k.shape[2] - q.shape[2], q.shape[1] != k.shape[1]
    if window is not None and window >= k.shape[2]:
        window = None
    if window is None and (n_before == 0 or not running.causal):
        mask, causal = None, running.causal and n > 1
    else:
        mask, causal = running.mask(n, n_before, window, q.dtype), False
    out[:] = scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scaling, enable_gqa=gqa)


def _written_out(
    running: Running, q: Any, k: Any, v: Any, out: Any, scaling: Any, softcap: float | None, window: int | None
) -> None:
    """Attention by two matrix products, with logits capped where the model caps them, which no fused kernel knows.

    Heads that share a key are folded into its rows, and a block of rows sees no key that comes after it. On a CPU the
    logits are kept in float32, as a fused kernel keeps them: rounded to bfloat16 they would take the scores further
    from the truth than one by one is.
    """
    import torch

    (_, heads, n, size), kv_heads, n_keys = q.shape, k.shape[1], k.shape[2]
    group, n_before, wide = heads // kv_heads, n_keys - n, torch.promote_types(q.dtype, torch.float32)
    dtype = wide if q.device.type == "cpu" else q.dtype
    scale = q.new_full((1,), size**-0.5 if scaling is None else scaling, dtype=dtype)
    q, k, v = q[0].unflatten(0, (kv_heads, group)), k[0].to(dtype).transpose(1, 2), v[0]
    out = out[0].unflatten(0, (kv_heads, group))
    step = -(-n // -(-n // ROWS))  # blocks of about one size
    for start in range(0, n, step):
        stop = min(start + step, n)
        n_rows, n_seen = stop - start, n_before + stop if running.causal else n_keys
        rows = (q[:, :, start:stop] * scale).reshape(kv_heads, group * n_rows, size)
        logits = torch.matmul(rows, k[:, :, :n_seen]).view(kv_heads, group, n_rows, n_seen)
        if softcap is not None:
            logits = logits.div_(softcap).tanh_().mul_(softcap)
        if window is not None and window < n_seen:
            logits.add_(running.mask(n, n_before, window, dtype)[start:stop, :n_seen])
        elif running.causal:  # what stands before the block is seen by all of it
            logits[..., n_seen - n_rows :].add_(running.mask(n_rows, 0, None, dtype))
        weights = torch.softmax(logits, -1, dtype=wide).to(v.dtype).view(kv_heads, group * n_rows, n_seen)
        out[:, :, start:stop] = torch.matmul(weights, v[:, :n_seen]).view(kv_heads, group, n_rows, -1)


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """The model with packed attention inside the block, and with its own after it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    own = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise NotPackable("attention that cannot be exchanged")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


# --- the last layer, of which only the rows that are read are needed ---------------------------------------


def prune_last_layer(model: Any) -> Any | None:
    """Let only the rows that are read through the last layer's queries, output and feed-forward.

    Gives the layer, for `unprune`, or None where it is not of a kind that this is known for.

    Keys and values are made of every row, as they must be. The change acts on packs alone.
    """
    base = model.base_model
    for layers, parts, pruned in (
        (getattr(base, "layers", None), _DECODER_PARTS, _pruned_decoder),
        (getattr(getattr(base, "transformer", None), "layer", None), _DISTILBERT_PARTS, _pruned_distilbert),
        (getattr(getattr(base, "encoder", None), "layer", None), _BERT_PARTS, _pruned_bert),
    ):
        if layers is None or not len(layers) or {n for n, _ in layers[-1].named_children()} != parts:
            continue
        whole = layers[-1].forward
        layers[-1].forward = pruned(layers[-1], whole)
        return layers[-1]
    return None


def unprune(layer: Any) -> None:
    """Give a pruned layer its own forward back."""
    del layer.forward


_DECODER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_DISTILBERT_PARTS = {"attention", "sa_layer_norm", "ffn", "output_layer_norm"}
_BERT_PARTS = {"attention", "intermediate", "output"}


def _read_rows(running: Running, q: Any, k: Any, v: Any, scaling: Any, window: int | None = None) -> Any:
    """Attention of the rows that are read: q (1, heads, rows, size) -> (1, rows, heads * size)."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    outs = []
    by_start = sorted(running.pack.segments, key=lambda s: s.start)
    starts = [s.start for s in by_start]
    for j, row in enumerate(running.rows):
        segment = by_start[bisect_right(starts, row) - 1]
        n = row - segment.start + 1 if running.causal else segment.length
        keys, values = _seen(k, v, segment, n)
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
