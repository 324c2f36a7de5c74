"""What was seen of the texts of one attribute: its own measure, the others, what a rewrite kept, what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ratekit.attributes import measure_of, off_target
from ratekit.estimators import Bools, Floats, Ints
from ratekit.groups import chains, groups
from ratekit.measures import Looked, Measure, measured, unit_of
from ratekit.rewriting.base import USABLE
from ratekit.schema import ATTRIBUTE, REWRITE_STATUS, columns_of

LOST = 0.4  # a rewrite that shares less of its source's words answers it, or is about something else
FEW_WORDS = 5  # texts with fewer distinct words are compared letter by letter
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Evidence:
    """The rows of one attribute (and group), measured.

    Attributes
    ----------
    labels
        The attribute and the values of the `by` columns.
    rows, treated, clusters
        As in `ratekit.groups.Group`, shape (n,).
    ok
        Which rewrites succeeded, (n, depth).
    kept
        Share of the words of a rewrite and its source that they have in common (`shared_words`), (n, depth); NaN where
        there is no rewrite.
    repeated
        1 where a rewrite says what its source says and the attribute's own measure is as it was, or where it says what
        the rewrite of another source says in that pass, else 0; (n, depth), NaN where there is no rewrite.
    unit
        Name of the attribute's own measure; None without one.
    own
        The attribute's own measure, (n, longest chain); (n, 0) without one.
    others
        The measures that the rewrites should leave alone, each (n, longest chain).
    """

    labels: dict[str, Any]
    rows: Ints
    treated: Bools
    clusters: Ints
    ok: Bools
    kept: Floats
    repeated: Floats
    unit: str | None
    own: Floats
    others: dict[str, Floats]

    @property
    def depth(self) -> int:
        """The passes of the longest chain."""
        return self.ok.shape[1]


def evidence(
    ds: Any,
    measures: Mapping[str, Measure] | None = None,
    by: str | Sequence[str] | None = None,
    looked: Looked | None = None,
) -> Iterator[Evidence]:
    """The evidence of each attribute (and group), in order of appearance; a text that is `looked` at is not again."""
    texts, statuses, looked = chains(ds), statuses_of(ds), looked or Looked()
    for group in groups(ds, by):
        name = str(group.labels[ATTRIBUTE])
        mine = [texts[i] for i in group.rows]
        own = measure_of(name, measures, ds)
        depth = max(map(len, mine)) - 1
        said = [statuses[i] for i in group.rows]
        values = np.empty((len(mine), 0)) if own is None else measured(own, mine, name, looked)
        moves = _moves(mine, values)
        yield Evidence(
            labels=group.labels,
            rows=group.rows,
            treated=group.treated,
            clusters=group.clusters,
            ok=np.array([[len(s) > k and s[k] in USABLE for k in range(depth)] for s in said], bool).reshape(
                len(said), depth
            ),
            kept=_by_pass(mine, depth, lambda sources, rewrites: list(map(shared_words, sources, rewrites))),
            repeated=_by_pass(mine, depth, partial(_repeats, moves=moves)),
            unit=None if own is None else unit_of(own),
            own=values,
            others={o: measured(m, mine, o, looked) for o, m in off_target(name, measures, ds).items()},
        )


def statuses_of(ds: Any) -> list[list[str]]:
    """The status of each rewrite of each row; "ok" and "missing" by their texts where the data have none."""
    if REWRITE_STATUS in columns_of(ds):
        return [list(s) if s is not None else [] for s in ds[REWRITE_STATUS]]
    return [["missing" if text is None else "ok" for text in chain[1:]] for chain in chains(ds)]


Texts = list["str | None"]


def _by_pass(texts: list[Texts], depth: int, look: Callable[[Texts, Texts], Sequence[float]]) -> Floats:
    """What `look` says of the sources and the rewrites of each pass, (n, depth)."""
    out = np.full((len(texts), depth), np.nan)
    for k in range(depth):
        sources = [chain[k] if len(chain) > k + 1 else None for chain in texts]
        out[:, k] = look(sources, [chain[k + 1] if len(chain) > k + 1 else None for chain in texts])
    return out


def _moves(texts: list[Texts], values: Floats) -> set[tuple[str | None, str | None]]:
    """The pairs of source and rewrite that differ in the attribute's own measure."""
    return {
        (chain[k], chain[k + 1])
        for chain, row in zip(texts, values, strict=True)
        for k in range(min(len(chain), len(row)) - 1)
        if row[k] != row[k + 1] and np.isfinite(row[k : k + 2]).all()
    }


def _repeats(sources: Texts, rewrites: Texts, moves: set[tuple[str | None, str | None]]) -> list[float]:
    given = list(zip(sources, rewrites, strict=True))
    pairs = [(_plain(source), _plain(text)) for source, text in zip(sources, rewrites, strict=True)]
    of: dict[str, set[str]] = {}
    for source, text in pairs:
        if source is not None and text is not None:
            of.setdefault(text, set()).add(source)
    return [
        float("nan")
        if text is None or source is None
        else float((text == source and pair not in moves) or len(of[text]) > 1)
        for (source, text), pair in zip(pairs, given, strict=True)
    ]


def shared_words(one: str | None, other: str | None) -> float:
    """Share of the distinct words of the text with fewer of them that stand in the other too.

    Of short texts (under five distinct words) the likeness of their letters (`rapidfuzz.fuzz.ratio`).

    Examples
    --------
    >>> shared_words("The lid is tight.", "The lid is tight, and the handle is a bit too short for me.")
    1.0
    """
    from rapidfuzz import fuzz

    if not one or not other:
        return float("nan")
    a, b = set(_WORD.findall(one.lower())), set(_WORD.findall(other.lower()))
    if min(len(a), len(b)) < FEW_WORDS:
        return max(fuzz.ratio(one, other) / 100, len(a & b) / max(min(len(a), len(b)), 1))
    return len(a & b) / min(len(a), len(b))


def _plain(text: str | None) -> str | None:
    """A text by its words alone: spaces, quotes and marks at its ends do not make another text."""
    return None if text is None else " ".join(text.split()).strip(" \"'“”‘’.!?…").lower()
