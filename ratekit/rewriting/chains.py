"""Chains of rewrites: the response rewritten to the other side, back, and so on, each text asked for once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratekit.attributes import Attribute
from ratekit.errors import WorkError
from ratekit.rewriting.base import EMPTY, NOT_ATTEMPTED, OK, Rewrite, Rewriter
from ratekit.rewriting.cache import Cache, key_of
from ratekit.rewriting.replay import Chain

BLOCK = 256  # texts handed to a rewriter at once: often enough for a progress bar and a cache


def rewrite_chains(
    responses: Sequence[str],
    treated: Sequence[bool],
    attribute: Attribute,
    rewriter: Rewriter,
    depth: int,
    cache: str | Path | None = None,
    progress: bool = False,
) -> list[Chain]:
    """For each response its `depth` rewrites and their statuses, one pass over all rows after the other.

    Pass 1 asks for the side that the response is not on, pass 2 for its own side, and so on. Identical
    (text, side) pairs are asked for once a pass. What follows a missing rewrite is not attempted.
    """
    from tqdm.auto import tqdm

    stored = _stored(rewriter, attribute, cache)
    current: list[str | None] = list(responses)
    target = [not t for t in treated]
    chains: list[Chain] = [([], []) for _ in current]
    total, name = depth * len(current), f"rewrite {attribute.name}"
    with tqdm(total=total, desc=name, unit="text", disable=not progress, delay=2) as bar:
        for _ in range(depth):
            asked = list(dict.fromkeys((t, side) for t, side in zip(current, target, strict=True) if t is not None))
            done: dict[tuple[str | None, bool], Rewrite] = {}
            for start in range(0, len(asked), BLOCK):
                block = asked[start : start + BLOCK]
                done.update(zip(block, stored([t for t, _ in block], [s for _, s in block]), strict=True))
                bar.update(round(len(block) * len(current) / len(asked)))
            for i, (text, side) in enumerate(zip(current, target, strict=True)):
                result = done.get((text, side), Rewrite(None, NOT_ATTEMPTED))
                chains[i][0].append(result.text)
                chains[i][1].append(result.status)
                current[i] = result.text
            target = [not side for side in target]
    return chains


def _stored(rewriter: Rewriter, attribute: Attribute, cache: str | Path | None) -> Rewriter:
    """The rewriter, checked, and with its rewrites in the cache unless it keeps a cache itself."""
    own = getattr(rewriter, "cache", None) is not None

    def checked(texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        results = [Rewrite(*r) for r in rewriter(list(texts), list(targets))]
        if len(results) != len(texts):
            raise WorkError(f"the rewriter gave {len(results)} rewrites for {len(texts)} texts")
        return [r if r.text is not None or r.status != OK else Rewrite(None, EMPTY) for r in results]

    if cache is None or own:
        return checked
    store = Cache(cache)
    fingerprint = f"{_fingerprint(rewriter)}|{attribute.name}|{attribute.treated}|{attribute.untreated}"

    def ask(texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        keys = [key_of(fingerprint, [t, s]) for t, s in zip(texts, targets, strict=True)]
        new = [i for i, key in enumerate(keys) if store.get(key) is None]
        if new:
            for i, r in zip(new, checked([texts[i] for i in new], [targets[i] for i in new]), strict=True):
                store.put(keys[i], {"model": fingerprint, "text": r.text, "finish_reason": r.status, "usage": {}})
        found = [store.records[key] for key in keys]
        return [Rewrite(r["text"], r["finish_reason"]) for r in found]

    return ask


def _fingerprint(rewriter: Any) -> str:
    """What tells this rewriter's cached rewrites from another's.

    Its `fingerprint` where it has one; else, for a function, its name, its code and the constants it closes over. A
    rewriter whose results depend on more than that should carry a `fingerprint`.
    """
    given = getattr(rewriter, "fingerprint", None)
    if given is not None:
        return str(given)
    code = getattr(rewriter, "__code__", None)
    if code is None:
        return f"{type(rewriter).__module__}.{type(rewriter).__qualname__}:{rewriter!r}"
    closed = [c.cell_contents for c in rewriter.__closure__ or ()] + list(rewriter.__defaults__ or ())
    constants = [v for v in closed if v is None or isinstance(v, str | int | float)]
    names = [rewriter.__module__, rewriter.__qualname__, code.co_code.hex(), repr(code.co_consts)]
    return key_of("function", [*names, constants])
