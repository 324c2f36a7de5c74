"""The distinct texts of a dataset, found and fetched in bounded memory: some dozen bytes a text are held, not the text.

The original is there once per attribute and a rewrite may come out as another did; each (prompt, text) is scored once.
Texts of one prompt stand together, so that what they share is run once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.schema import PROMPT, RESPONSE, REWRITES

if TYPE_CHECKING:
    from datasets import Dataset

READ = 1000  # rows decoded at once


@dataclass(frozen=True)
class Distinct:
    """Where the distinct texts of a dataset stand.

    lengths  (rows,) texts in each row's chain, the response included
    inverse  (entries,) for every text of every chain, in order: which distinct one it is, -1 where there is none
    row      (n,) the first row of each distinct text, texts of one prompt side by side
    place    (n,) its place in that row's chain
    prompt   (n,) a number that texts of one prompt share
    key      (n, 2) uint64, a hash of prompt and text
    """

    lengths: NDArray[np.int64]
    inverse: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    prompt: NDArray[np.int64]
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.row)


def chains(ds: Dataset, rows: Sequence[int] | None = None) -> Iterator[tuple[Any, list[str | None]]]:
    """The prompt and the texts (response, rewrites) of each row, a block of rows at a time."""
    columns = [c for c in (PROMPT, RESPONSE, REWRITES) if c in ds.column_names]
    plain = ds.select_columns(columns).with_format(None)
    for start in range(0, len(ds) if rows is None else len(rows), READ):
        block = plain[start : start + READ] if rows is None else plain[list(rows[start : start + READ])]
        rewrites = block.get(REWRITES) or [None] * len(block[RESPONSE])
        for prompt, response, more in zip(block[PROMPT], block[RESPONSE], rewrites, strict=True):
            yield prompt, [response, *(more or [])]


def find(ds: Dataset) -> Distinct:
    """The distinct texts of `ds`, in the order of their prompts' first rows."""
    lengths = np.zeros(len(ds), dtype=np.int64)
    prompts = np.zeros(len(ds), dtype=np.uint64)
    digests = bytearray()
    there = bytearray()
    for i, (prompt, texts) in enumerate(chains(ds)):
        lengths[i] = len(texts)
        head = hashlib.blake2b(repr(prompt).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        prompts[i] = int.from_bytes(head[:8], "big")
        for text in texts:
            there.append(text is not None)
            digests += key_of(head, text or "")
    key = np.frombuffer(bytes(digests), dtype=">u8").astype(np.uint64).reshape(-1, 2)
    row = np.repeat(np.arange(len(ds)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    entries = np.flatnonzero(np.frombuffer(bytes(there), dtype=bool))
    order = entries[np.lexsort((entries, key[entries, 1], key[entries, 0]))]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (key[order[1:]] != key[order[:-1]]).any(axis=1)
    first = order[new]
    _, prompt_first, prompt_of = np.unique(prompts, return_index=True, return_inverse=True)
    prompt = prompt_first[prompt_of][row[first]] if len(first) else np.zeros(0, dtype=np.int64)
    arranged = np.lexsort((first, prompt))
    rank = np.empty(len(first), dtype=np.int64)
    rank[arranged] = np.arange(len(first))
    inverse = np.full(len(row), -1, dtype=np.int64)
    inverse[order] = rank[np.cumsum(new) - 1]
    first = first[arranged]
    return Distinct(lengths, inverse, row[first], place[first], prompt[arranged], key[first])


def key_of(prompt_digest: bytes, text: str) -> bytes:
    """16 bytes that name a (prompt, text)."""
    return hashlib.blake2b(prompt_digest + text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def fetch(ds: Dataset, distinct: Distinct, which: NDArray[np.int64]) -> tuple[list[Any], list[str]]:
    """Prompts and texts of the distinct texts `which`."""
    rows = distinct.row[which]
    needed, position = np.unique(rows, return_inverse=True)
    found = list(chains(ds, needed.tolist()))
    prompts = [found[p][0] for p in position]
    texts = [found[p][1][distinct.place[w]] for p, w in zip(position, which, strict=True)]
    return prompts, texts
