"""Attention over a pack: each segment sees its context and itself, and nothing else that stands beside it.

The function is registered with `transformers.AttentionInterface`, so that the model's own code runs around it. What it
does not know (attention sinks, say) it refuses by raising `NotPackable`; the padded path is then taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ratekit.scoring.plan import Pack, Segment

NAME = "ratekit_packed"
TILE = 32  # keys: of a number that is no multiple, a CPU that multiplies in tiles takes the rest at half the speed
ROWS = 128  # of a block of attention on a CPU: its logits stay in the processor's cache, and no key after it is seen

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

    def mask(self, n: int, n_before: int, window: int | None, dtype: Any, filler: int = 0) -> Any:
        """(n, n_before + n + filler) additive: token i of a segment sees what is not after it.

        With a `window` it sees what is less than that away; the last `filler` keys are seen by none.
        """
        import torch

        key = (n, n_before, window, dtype, filler)
        if key not in self._masks:
            query = torch.arange(n_before, n_before + n, device=self.device)[:, None]
            place = torch.arange(n_before + n + filler, device=self.device)[None, :]
            distance = query - place
            seen = distance >= 0 if self.causal else (place < n_before + n).expand_as(distance)
            if window is not None:
                seen = seen & (distance.abs() < window)
            zeros = torch.zeros(n, n_before + n + filler, dtype=dtype, device=self.device)
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
    # In half precision without tiles, blocks of two matrix products and a softmax are faster than torch's fused kernel
    # where they leave out what comes after a row; where all is seen they are not.
    half = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    slow = half and running.causal and not _tiles(query.dtype)
    attend = _fused if softcap is None and not slow else _written_out
    out = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])  # a filled pass has rows of no segment
    for segment in running.pack.segments:
        here = slice(segment.start, segment.start + segment.length)
        keys, values = seen(key, value, segment, segment.length)
        attend(running, query[:, :, here], keys, values, out[:, here].transpose(1, 2), scaling, softcap, window)
    return out, None


@cache
def _tiles(dtype: Any) -> bool:
    """Whether this CPU multiplies half precision in tiles (AMX), as torch's fused kernel then does."""
    import torch

    probe = {torch.bfloat16: "_is_amx_tile_supported", torch.float16: "_is_amx_fp16_supported"}.get(dtype, "")
    return bool(getattr(torch.cpu, probe, lambda: False)())


def seen(key: Any, value: Any, segment: Segment, n: int) -> tuple[Any, Any]:
    """Keys and values of a segment's context and of its own first n tokens."""
    import torch

    runs: list[tuple[int, int]] = []
    for start, length in (*segment.context, (segment.start, n)):
        if runs and sum(runs[-1]) == start:  # the first branch stands behind what leads to it: nothing to copy
            start, length = runs[-1][0], runs.pop()[1] + length
        runs.append((start, length))
    parts = [[t[:, :, s : s + length] for s, length in runs] for t in (key, value)]
    return tuple(t[0] if len(t) == 1 else torch.cat(t, 2) for t in parts)  # type: ignore[return-value]


def _fused(running: Running, q: Any, k: Any, v: Any, out: Any, scaling: Any, softcap: None, window: int | None) -> None:
    from torch.nn.functional import pad, scaled_dot_product_attention

    n, n_before, cpu = q.shape[2], k.shape[2] - q.shape[2], q.device.type == "cpu"
    options = {"scale": scaling, "enable_gqa": q.shape[1] != k.shape[1]}
    if window is not None and window >= k.shape[2]:
        window = None
    filler = -k.shape[2] % TILE if cpu and _tiles(q.dtype) else 0
    if filler:
        k, v = pad(k, (0, 0, 0, filler)), pad(v, (0, 0, 0, filler))
    if window is None and (n_before == 0 if running.causal else filler == 0):
        # `is_causal` counts from the first key, so that the filler is hidden
        out[:] = scaled_dot_product_attention(q, k, v, is_causal=running.causal, **options)
        return
    mask = running.mask(n, n_before, window, q.dtype, filler)
    for start, stop in _blocks(n, ROWS if cpu else n):
        end = n_before + stop + -(n_before + stop) % TILE if running.causal else k.shape[2]
        keys, values = k[:, :, :end], v[:, :, :end]
        rows = scaled_dot_product_attention(q[:, :, start:stop], keys, values, mask[start:stop, :end], **options)
        out[:, :, start:stop] = rows


def _blocks(n: int, most: int) -> list[tuple[int, int]]:
    """Rows 0 to n in blocks of about one size, none of more than `most`."""
    step = -(-n // -(-n // most))
    return [(start, min(start + step, n)) for start in range(0, n, step)]


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
    for start, stop in _blocks(n, ROWS):
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
