"""What is run through a model: every token once, side by side, without padding. Pure Python, no model here.

RATE scores the response, its rewrite and the rewrite of that under the same prompt. In a causal model the state of a
token depends on what stands before it alone, so what several texts begin with is run once for all of them: the
sequences make a tree, and a branch attends to the branches that lead to it. Example: of the three sequences

    1 2 3 4 5        1 2 3 6        1 2 3 6 7

the tree (with `least_shared=1`) has the branches 123 -> 45 and 123 -> 6 -> 7: seven tokens instead of fourteen.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

Tokens = Sequence[int]
Key = TypeVar("Key", bound=Hashable)

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


def distinct(items: Iterable[Key]) -> tuple[list[Key], list[int]]:
    """The distinct items in order of appearance, and for each item the place of its own.

    >>> distinct(["b", "a", "b"])
    (['b', 'a'], [0, 1, 0])
    """
    places: dict[Key, int] = {}
    inverse = [places.setdefault(item, len(places)) for item in items]
    return list(places), inverse


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many tokens two sequences begin with in common.

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

    >>> pack, = packs([(1, 2, 3, 4, 5), (1, 2, 3, 6)], budget=100, least_shared=2)
    >>> pack.tokens, pack.positions
    ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 3])
    >>> pack.segments[-1]
    Segment(start=5, length=1, context=((0, 3),))

    A tree that fits into a pack is never cut; one that does not has its shared branches run again in the next pack.
    A sequence longer than the budget is a pack by itself. `least_shared=0` shares nothing.
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

    >>> filler(2000), filler(300), filler(40)
    (16, 4, 0)

    On a CPU the kernels are made for each size and kept, and with them the memory around: `benchmarks/scoring_data.py
    sizes`.
    """
    return -n % (1 << max(0, n.bit_length() - 6))


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches for models that need padding: sorted by length, at most `budget` tokens with the padding.

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
