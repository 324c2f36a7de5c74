"""Generation in which a reply that has ended frees its place in the batch for the next text.

The rows of a batch share one buffer of keys and values in which each row ends at the same column, so a step writes one
column and no row is padded to the longest reply. What `transformers` keeps for the rows (positions, masks) is given to
the model outright; the model's own code is called as `generate` would call it. For models whose cache is more than keys
and values of every token (sliding windows, recurrent states) `fits` says no.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SLACK = 64  # columns that may lie unused before the buffer is moved together
PREFILL = 2048  # tokens of texts that are read at once


@dataclass
class _Row:
    index: int
    ids: list[int]
    room: int
    draw: Callable[[], float]
    made: list[int] = field(default_factory=list)
    rules: Any = None

    @property
    def stored(self) -> int:
        """Tokens in the buffer: all but the last that was made."""
        return len(self.ids) + max(len(self.made) - 1, 0)


def fits(model: Any) -> bool:
    """Whether the model's cache is plain keys and values, and its attention takes a mask of our own."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False) or config._attn_implementation != "sdpa":
        return False
    layers = DynamicCache(config=config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def generate(
    model: Any,
    ids: Sequence[list[int]],
    rooms: Sequence[int],
    slots: int,
    ends: set[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield (index, tokens made) of each text when it ends; the last token is one of `ends`, or the room was used up.

    Parameters
    ----------
    model : PreTrainedModel
        One that `fits`.
    ids : sequence of list of int
        The texts in tokens, in the order in which they are begun; the first must be the longest.
    rooms : sequence of int
        New tokens at most, for each text.
    slots : int
        Rows in the batch at most.
    ends : set of int
        Tokens that end a reply.
    temperature, top_p : float
        0 is greedy.
    seeds : sequence of int, optional
        Of the sampling, for each text: what is drawn does not depend on the other rows.
    """
    import torch

    waiting = deque(
        _Row(i, text, room, random.Random(seed).random)
        for i, (text, room, seed) in enumerate(zip(ids, rooms, seeds or [0] * len(ids), strict=True))
    )
    for row in waiting:
        row.rules = _rules(model, len(row.ids))
    capacity = max(len(row.ids) + row.room for row in waiting) + SLACK
    batch = _Batch(model, min(slots, len(waiting)), capacity)
    with torch.inference_mode():
        while waiting or batch.rows:
            new: list[_Row] = []
            while waiting and len(batch.rows) + len(new) < batch.slots:
                if new and (len(new) + 1) * len(new[0].ids) > PREFILL:
                    break
                new.append(waiting.popleft())
            logits = batch.begin(new) if new else batch.step()
            rows = new or list(batch.rows)
            for row, token in zip(rows, _chosen(logits, rows, temperature, top_p), strict=True):
                row.made.append(token)
            for row in rows:
                if row.made[-1] in ends or len(row.made) == row.room:
                    batch.drop(row)
                    yield row.index, row.made


class _Batch:
    """The rows under way, and their keys and values: one column of the buffers a token, the last one for all rows."""

    def __init__(self, model: Any, slots: int, capacity: int) -> None:
        from transformers import DynamicCache

        self.model, self.slots, self.capacity = model, slots, capacity
        self.rows: list[_Row] = []
        self.columns = 0
        self.layers: list[Any] = []
        self.cache: Any = DynamicCache()

    def begin(self, rows: list[_Row]) -> torch.Tensor:
        """Read the texts of `rows` and give them their places; the logits of their first tokens."""
        import torch
        from transformers import DynamicCache

        device = self.model.device
        longest = max(len(row.ids) for row in rows)
        tokens = torch.tensor([[row.ids[0]] * (longest - len(row.ids)) + row.ids for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(r.ids)) + [1] * len(r.ids) for r in rows], device=device)
        read: Any = DynamicCache()
        logits = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=read, use_cache=True, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        if not self.layers:
            self.layers = [_buffers(layer, self.slots, self.capacity) for layer in read.layers]
            self.cache.layers = [_layer(self, *buffers) for buffers in self.layers]
        if not self.rows:
            self.columns = longest
        self._gather(longest)
        first = len(self.rows)
        for layer, (keys, values) in zip(read.layers, self.layers, strict=True):
            for buffer, found in ((keys, layer.keys), (values, layer.values)):
                buffer[first : first + len(rows), :, self.columns - longest : self.columns] = found
        self.rows += rows
        return logits

    def step(self) -> torch.Tensor:
        """Feed each row its last token; the logits of the next."""
        import torch

        self._gather(0)
        device = self.model.device
        stored = torch.tensor([row.stored for row in self.rows], device=device)
        at = torch.arange(self.columns + 1, device=device)
        mask = at[None] >= (self.columns - stored)[:, None]
        tokens = torch.tensor([[row.made[-1]] for row in self.rows], device=device)
        logits = self.model(
            input_ids=tokens, attention_mask=mask[:, None, None], position_ids=stored[:, None],
            past_key_values=self.cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip
        self.columns += 1
        return logits

    def drop(self, row: _Row) -> None:
        """Free the row's place; the last row moves into it."""
        k, last = self.rows.index(row), len(self.rows) - 1
        if k != last:
            for buffers in self.layers:
                for buffer in buffers:
                    buffer[k, :, : self.columns] = buffer[last, :, : self.columns]
            self.rows[k] = self.rows[last]
        self.rows.pop()

    def _gather(self, wanted: int) -> None:
        """Move the columns to the left where many are unused, or no room is left for another."""
        needed = max([wanted, *(row.stored for row in self.rows)])
        if self.columns - needed <= SLACK and self.columns < self.capacity:
            return
        n, start = len(self.rows), self.columns - needed
        for buffers in self.layers:
            for buffer in buffers:
                buffer[:n, :, :needed] = buffer[:n, :, start : self.columns].clone()
        self.columns = needed


def _buffers(layer: Any, slots: int, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    def empty(like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros((slots, like.shape[1], capacity, like.shape[3]))

    return empty(layer.keys), empty(layer.values)


def _layer(batch: _Batch, keys: torch.Tensor, values: torch.Tensor) -> Any:
    """What the model writes one token's keys and values to, and reads all of them from."""
    from transformers.cache_utils import DynamicLayer

    class Layer(DynamicLayer):
        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
            n, at = len(batch.rows), batch.columns
            keys[:n, :, at : at + 1], values[:n, :, at : at + 1] = key_states, value_states
            return keys[:n, :, : at + 1], values[:n, :, : at + 1]

        def get_seq_length(self) -> int:
            return batch.columns

    return Layer()


def _rules(model: Any, read: int) -> Any:
    """What the model's generation_config asks for besides the sampling: a repetition penalty, banned tokens, ..."""
    import torch

    asked = copy.deepcopy(model.generation_config)
    asked.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    model._prepare_special_tokens(asked, True, device=model.device)
    return model._get_logits_processor(asked, read, torch.zeros(1, read), None, [], device=model.device)


def _chosen(logits: torch.Tensor, rows: Sequence[_Row], temperature: float, top_p: float) -> list[int]:
    """The next token of each row: the likeliest, or one drawn."""
    import torch

    logits = logits.float()
    if rows[0].rules:
        logits = torch.cat(
            [
                row.rules(torch.tensor([row.ids + row.made], device=logits.device), scores[None])
                for row, scores in zip(rows, logits, strict=True)
            ]
        )
    if temperature == 0:
        return logits.argmax(-1).tolist()  # at once: a GPU is waited for with each number that is asked of it
    shares = torch.softmax(logits / temperature, -1).double()
    order = None
    if top_p < 1:
        shares, order = shares.sort(-1, descending=True)
        shares = torch.where(shares.cumsum(-1) - shares < top_p, shares, 0.0)
    sums = shares.cumsum(-1)
    drawn = torch.tensor([[row.draw()] for row in rows], dtype=sums.dtype, device=sums.device) * sums[:, -1:]
    found = torch.searchsorted(sums, drawn, right=True).clamp(max=sums.shape[-1] - 1)
    return (found if order is None else order.gather(-1, found))[:, 0].tolist()
