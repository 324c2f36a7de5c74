"""What is run through a model: every token once, side by side, without padding, and attention that keeps texts apart.

RATE scores the response, its rewrite and the rewrite of that under the same prompt. In a causal model the state of a
token depends on what stands before it alone, so what several texts begin with is run once for all of them: the
sequences make a tree, and a branch attends to the branches that lead to it. Example: of the three sequences

    1 2 3 4 5        1 2 3 6        1 2 3 6 7

the tree (with `least_shared=1`) has the branches 123 -> 45 and 123 -> 6 -> 7: seven tokens instead of fourteen.

`packed_attention` is registered with `transformers.AttentionInterface`, so that the model's own code runs around it.
What it does not know (attention sinks, say) it refuses by raising `NotPackable`; another path is then taken.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

Tokens = Sequence[int]
_Key = TypeVar("_Key", bound=Hashable)

LEAST_SHARED = 16  # a shared beginning shorter than this costs more to treat apart than it saves


class Segment(NamedTuple):
    """A run of tokens in a pack: it attends to itself and to its `context`, the runs that lead to it, in order."""

    start: int
    length: int
    context: tuple[tuple[int, int], ...] = ()

    @property
    def n_before(self) -> int:
        """How many tokens stand before it in its sequences."""
        return sum(length for _, length in self.context)


class Branch(NamedTuple):
    """Tokens `begin` to `end` of the sequence `of`, and of every sequence that shares them."""

    of: int
    begin: int
    end: int


@dataclass
class Pack:
    """One forward pass: `tokens` side by side, in `segments`; `members` are the sequences that are whole in it."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)

    def place(self, member: int, position: int) -> int:
        """Where token `position` of `members[member]` stands in the pack."""
        for s in self.paths[member]:
            segment = self.segments[s]
            if position < segment.length:
                return segment.start + position
            position -= segment.length
        raise IndexError(f"sequence {self.members[member]} has no such token")


def distinct_items(items: Iterable[_Key]) -> tuple[list[_Key], list[int]]:
    """The distinct items in order of appearance, and for each item the place of its own.

    Examples
    --------
    >>> distinct_items(["b", "a", "b"])
    (['b', 'a'], [0, 1, 0])
    """
    places: dict[_Key, int] = {}
    inverse = [places.setdefault(item, len(places)) for item in items]
    return list(places), inverse


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many tokens two sequences begin with in common.

    Examples
    --------
    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n  # tokens before `low` are equal; compared in slices, which is many times faster than one by one
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def tree(sequences: Sequence[Tokens], least_shared: int = LEAST_SHARED) -> list[tuple[int, list[Branch]]]:
    """The distinct `sequences` in the tree's order, each with its path of branches from the root.

    Examples
    --------
    >>> tree([(1, 2, 3, 4, 5), (1, 2, 3, 6), (1, 2, 3, 6, 7)], least_shared=1)[-1]
    (2, [Branch(of=0, begin=0, end=3), Branch(of=1, begin=3, end=4), Branch(of=2, begin=4, end=5)])
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    shared = [common_prefix(sequences[a], sequences[b]) for a, b in pairwise(order)]
    paths: dict[int, list[Branch]] = {}
    ranges: list[tuple[int, int, int, list[Branch]]] = [(0, len(order), 0, [])]
    while ranges:
        first, last, depth, path = ranges.pop()
        start = first
        for i in range(first, last):
            if i + 1 < last and shared[i] >= depth + least_shared:
                continue  # order[i + 1] goes on as order[i] does
            of = order[start]
            if i == start:
                paths[of] = [*path, Branch(of, depth, len(sequences[of]))]
            else:
                end = min(shared[start:i])
                branch = [*path, Branch(of, depth, end)]
                if len(sequences[of]) == end:  # the first of them ends where the others go on
                    paths[of] = branch
                    start += 1
                ranges.append((start, i + 1, end, branch))
            start = i + 1
    return [(of, paths[of]) for of in order]


def packs(sequences: Sequence[Tokens], budget: int, least_shared: int = LEAST_SHARED) -> list[Pack]:
    """All `sequences` (distinct, none empty) in packs of about `budget` tokens.

    A tree that fits into a pack is never cut; one that does not has its shared branches run again in the next pack.
    A sequence longer than the budget is a pack by itself. `least_shared=0` shares nothing.

    Examples
    --------
    >>> pack, = packs([(1, 2, 3, 4, 5), (1, 2, 3, 6)], budget=100, least_shared=2)
    >>> pack.tokens, pack.positions
    ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 3])
    >>> pack.segments[-1]
    Segment(start=5, length=1, context=((0, 3),))
    """
    if least_shared:
        planned = tree(sequences, least_shared)
    else:
        planned = [(i, [Branch(i, 0, len(s))]) for i, s in enumerate(sequences)]
    size: dict[Branch, int] = {}
    for _, path in planned:
        known = {b: 0 for b in path if b not in size}
        size[path[0]] = size.get(path[0], 0) + sum(b.end - b.begin for b in known)
        size.update((b, 0) for b in known if b != path[0])
    done: list[Pack] = []
    pack, there, root = Pack(), {}, None  # type: Pack, dict[Branch, int], Branch | None
    for of, path in planned:
        missing = [b for b in path if b not in there]
        room = budget - len(pack.tokens)
        new_tree = path[0] != root and size[path[0]] <= budget
        if pack.tokens and (size[path[0]] if new_tree else sum(b.end - b.begin for b in missing)) > room:
            done.append(pack)
            pack, there, missing = Pack(), {}, path
        root = path[0]
        for branch in missing:
            before = [pack.segments[there[b]] for b in path[: path.index(branch)]]
            start, tokens = len(pack.tokens), sequences[branch.of][branch.begin : branch.end]
            there[branch] = len(pack.segments)
            pack.segments.append(Segment(start, len(tokens), tuple((s.start, s.length) for s in before)))
            pack.tokens.extend(tokens)
            pack.positions.extend(range(branch.begin, branch.end))
        pack.members.append(of)
        pack.paths.append([there[b] for b in path])
    return [*done, pack] if pack.tokens else done


def filler(n: int) -> int:
    """How many tokens to add to a pass of n, so that few sizes occur: 32 in each doubling, 1 % more to run.

    On a CPU the kernels are made for each size and kept, and with them the memory around: `benchmarks/scoring_data.py
    sizes`.

    Examples
    --------
    >>> filler(2000), filler(300), filler(40)
    (16, 4, 0)
    """
    return -n % (1 << max(0, n.bit_length() - 6))


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches for models that need padding: sorted by length, at most `budget` tokens with the padding.

    Examples
    --------
    >>> batches([3, 9, 4, 8], budget=18)
    [[1, 3], [2, 0]]
    """
    out: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not out or lengths[out[-1][0]] * (len(out[-1]) + 1) > budget:
            out.append([])
        out[-1].append(i)
    return out


def shares(costs: Sequence[int], n: int) -> list[list[int]]:
    """Which of the jobs each of `n` processes does, so that all have about the same cost: longest first.

    Examples
    --------
    >>> shares([5, 1, 1, 3], n=2)
    [[0], [3, 1, 2]]
    """
    loads = [(0, k) for k in range(n)]
    out: list[list[int]] = [[] for _ in range(n)]
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        load, k = heapq.heappop(loads)
        out[k].append(i)
        heapq.heappush(loads, (load + costs[i], k))
    return out


# --- attention over a pack ---------------------------------------------------------------------------------

_NAME = "ratekit_packed"
TILE = 32  # keys: of a number that is no multiple, a CPU that multiplies in tiles takes the rest at half the speed
_ROWS = 128  # of a block whose logits are held at once: memory stays flat, and no key after the block is multiplied

# What model code hands to every attention function and what does not change what a token sees.
_HARMLESS = {
    "position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states", "return_dict",
    "deterministic", "past_key_value", "past_key_values", "layer_idx", "head_mask", "token_type_ids", "training",
}  # fmt: skip


class NotPackable(RuntimeError):
    """This model's attention is not one that packs can be run through."""


class _Lengths(NamedTuple):
    """Attention of unequal lengths: where queries and keys begin, the most of each, which tokens are the keys."""

    starts_q: Any
    starts_k: Any
    most_q: int
    most_k: int
    keys: Any


class Running:
    """A pack on its way through a model: its segments, the rows that are read at the end, and the masks in use."""

    def __init__(self, pack: Pack, rows: list[int], causal: bool, device: Any, varlen: bool = False) -> None:
        import torch

        self.pack, self.rows, self.causal, self.device, self.varlen = pack, rows, causal, device, varlen
        self.index = torch.tensor(rows, device=device)
        self._masks: dict[Any, Any] = {}

    @cached_property
    def whole(self) -> _Lengths:
        """Every segment attends to its context and to itself."""
        return self._lengths([(s, s.length, s.length) for s in self.pack.segments])

    @cached_property
    def read(self) -> list[tuple[Segment, int]]:
        """The segment of each row that is read, and how many of its tokens the row sees."""
        segments = sorted(self.pack.segments)
        starts = [s.start for s in segments]
        of = [segments[bisect_right(starts, row) - 1] for row in self.rows]
        return [(s, row - s.start + 1 if self.causal else s.length) for s, row in zip(of, self.rows, strict=True)]

    @cached_property
    def of_read(self) -> _Lengths:
        """Every row that is read attends to what it sees."""
        return self._lengths([(s, 1, n) for s, n in self.read])

    def _lengths(self, parts: list[tuple[Segment, int, int]]) -> _Lengths:
        import torch

        q, k, keys = [0], [0], list[int]()
        for segment, n_queries, n_own in parts:
            for start, length in (*segment.context, (segment.start, n_own)):
                keys.extend(range(start, start + length))
            q.append(q[-1] + n_queries)
            k.append(len(keys))
        starts = [torch.tensor(ends, dtype=torch.int32, device=self.device) for ends in (q, k)]
        most = [max(b - a for a, b in pairwise(ends)) for ends in (q, k)]
        return _Lengths(starts[0], starts[1], most[0], most[1], torch.tensor(keys, device=self.device))

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
    if running.varlen and softcap is None:
        return varlen(running.whole, running.causal, query, key, value, scaling, window), None
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
    return tuple(t[0] if len(t) == 1 else torch.cat(t, 2) for t in parts)


def can_varlen(device: str, dtype: str) -> bool:
    """Whether torch has one kernel for segments of unequal lengths: on a GPU, in half precision."""
    from importlib.util import find_spec

    return device == "cuda" and dtype in ("bfloat16", "float16") and find_spec("torch.nn.attention.varlen") is not None


def varlen(lengths: _Lengths, causal: bool, q: Any, k: Any, v: Any, scaling: Any, window: int | None) -> Any:
    """All segments in one kernel; the last query of each is level with its last key. (1, tokens, heads, size)."""
    from torch.nn.attention.varlen import varlen_attn

    group = q.shape[1] // k.shape[1]
    q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))
    k, v = (t[lengths.keys].repeat_interleave(group, 1) for t in (k, v))
    left = -1 if window is None else window - 1
    return varlen_attn(
        q.contiguous(), k, v, lengths.starts_q, lengths.starts_k, lengths.most_q, lengths.most_k, scale=scaling,
        window_size=(left, 0 if causal else left),
    )[None]  # fmt: skip


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
    else:
        mask = running.mask(n, n_before, window, q.dtype, filler)
        out[:] = scaled_dot_product_attention(q, k, v, mask, **options)


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
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
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

    AttentionInterface.register(_NAME, packed_attention)
    own = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    if model.config._attn_implementation != _NAME:
        raise NotPackable("attention that cannot be exchanged")
    try:
        yield
    finally:
        model.set_attn_implementation(own)
