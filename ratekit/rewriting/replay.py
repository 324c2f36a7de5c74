"""Rewrites that exist already: those in the data, or those of another dataset, joined by the response.

No request is made and nothing is invented: a row without rewrites there is null with the status `not_found`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError
from ratekit.rewriting.base import NOT_ATTEMPTED, OK, UNCHANGED, USABLE, Chain, Rewrite
from ratekit.rewriting.judge import judged_text
from ratekit.schema import ATTRIBUTE, RESPONSE, REWRITE_STATUS, REWRITES, TREATED, columns_of

if TYPE_CHECKING:
    from datasets import Dataset

NOT_FOUND = "not_found"


@dataclass(frozen=True)
class Replay:
    """The rewrites of a dataset.

    Parameters
    ----------
    source : Dataset, optional
        Whose rewrites; None means those that the rows carry themselves.
    judged : bool
        Judge each rewrite as a model's reply would be (see `ratekit.rewriting.judge`): what is no rewrite becomes null
        with its status, as do those that follow from it; labels, quotes and thinking are taken off. By default the
        rewrites are taken as they are.
    """

    source: Any = None
    judged: bool = False

    fingerprint = "replay"

    def chains(self, ds: Dataset, attribute: str, depth: int) -> list[Chain]:
        """For each row of `ds` its first `depth` rewrites and their statuses. Raises InputError."""
        chains = _own(ds, depth) if self.source is None else _joined(ds, self.source, attribute, depth)
        if not self.judged:
            return chains
        return [_judged(chain, text) for chain, text in zip(chains, ds[RESPONSE], strict=True)]


def _judged(chain: Chain, source: str) -> Chain:
    """The chain as the judge sees it: each text against the one that it was made from."""
    texts: list[str | None] = []
    statuses: list[str] = []
    for text, status in zip(*chain, strict=True):
        if None in texts:
            rewrite = Rewrite(None, NOT_ATTEMPTED)
        elif text is None:
            rewrite = Rewrite(None, status)
        else:
            rewrite = judged_text(text, source)
        texts.append(rewrite.text)
        statuses.append(rewrite.status)
        source = rewrite.text or source
    return texts, statuses


def _cut(rewrites: list[str | None] | None, statuses: list[str] | None, depth: int) -> Chain:
    texts = list(rewrites or [])[:depth]
    texts += [None] * (depth - len(texts))
    given = list(statuses or [])
    given += [NOT_FOUND] * (depth - len(given))
    return texts, [
        (UNCHANGED if status == UNCHANGED else OK) if text is not None else (NOT_FOUND if status in USABLE else status)
        for text, status in zip(texts, given, strict=False)
    ]


def _own(ds: Dataset, depth: int) -> list[Chain]:
    if REWRITES not in ds.column_names:
        raise InputError(
            "replay: the data carry no column 'rewrites'; give a dataset that does (replay:PATH), or another rewriter"
        )
    statuses = ds[REWRITE_STATUS] if REWRITE_STATUS in ds.column_names else [None] * len(ds)
    chains = [_cut(r, s, depth) for r, s in zip(ds[REWRITES], statuses, strict=True)]
    _check_depth(chains, depth, "the data's rewrites")
    return chains


def _joined(ds: Dataset, source: Dataset, attribute: str, depth: int) -> list[Chain]:
    have = columns_of(source)
    for column in (RESPONSE, REWRITES):
        if column not in have:
            raise InputError(f"replay: the dataset to replay has no column {column!r} (columns: {', '.join(have)})")
    keyed = [c for c in (ATTRIBUTE, TREATED) if c in have]
    known: dict[tuple[Any, ...], Chain] = {}
    for row in source:
        if ATTRIBUTE not in keyed or row[ATTRIBUTE] == attribute:
            key = (row[RESPONSE], row[TREATED] if TREATED in keyed else None)
            known.setdefault(key, _cut(row[REWRITES], row.get(REWRITE_STATUS), depth))
    missing: Chain = ([None] * depth, [NOT_FOUND] * depth)
    chains = [
        known.get((row[RESPONSE], row[TREATED] if TREATED in keyed else None), missing)
        for row in ds.select_columns([RESPONSE, TREATED])
    ]
    if all(statuses[0] == NOT_FOUND for _, statuses in chains):
        raise InputError(f"replay: none of the {len(ds)} responses has rewrites for {attribute!r} there")
    _check_depth(chains, depth, "the dataset to replay")
    return chains


def _check_depth(chains: list[Chain], depth: int, where: str) -> None:
    deepest = max((sum(t is not None for t in texts) for texts, _ in chains), default=0)
    if 0 < deepest < depth:
        raise InputError(f"depth {depth} asked for, but {where} have {deepest}; use --depth {deepest}")
