"""The columns `rewrites` and `rewrite_status` of a dataset, by any rewriter.

A chat rewriter streams (stream.py); any other callable is asked in blocks, one pass over all rows after the other. What
they give is spooled to a file as it comes, so that memory does not grow with the texts.
"""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import files
from ratekit.errors import InputError, WorkError
from ratekit.labellers import Attribute
from ratekit.rewriting.base import (
    EMPTY,
    FAILED,
    NOT_ATTEMPTED,
    NOT_TEXT,
    OK,
    UNCHANGED,
    USABLE,
    Chain,
    Rewrite,
    Rewriter,
)
from ratekit.rewriting.cache import Cache, default_cache, fingerprint_of, key_of, record_of
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.judge import is_text
from ratekit.rewriting.stream import ChainRow, ask_chains
from ratekit.schema import PROMPT, RESPONSE, REWRITE_STATUS, REWRITES, TREATED

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

log = logging.getLogger("ratekit")

_BLOCK = 256  # texts handed to a rewriter at once: often enough for a progress bar and a cache
SPOOLED = 1000  # rows that are written at once


def rows_of(ds: Dataset, with_prompt: bool) -> Iterator[ChainRow]:
    """The rows of a labelled dataset, each to be rewritten to the side that it is not on."""
    columns = [RESPONSE, TREATED, *([PROMPT] if with_prompt else [])]
    for batch in ds.select_columns(columns).iter(batch_size=_BLOCK):
        prompts = batch[PROMPT] if with_prompt else [None] * len(batch[RESPONSE])
        for text, treated, prompt in zip(batch[RESPONSE], batch[TREATED], prompts, strict=True):
            yield ChainRow(text, not treated, prompt)


class ChainSpool(files.Spool):
    """Chains as the two columns, written to a file without a name as they come."""

    def __init__(self, folder: Path | None = None) -> None:
        import pyarrow as pa

        self.schema = pa.schema([(REWRITES, pa.list_(pa.string())), (REWRITE_STATUS, pa.list_(pa.string()))])
        super().__init__(self.schema, folder)
        self.rows: list[Chain] = []

    def add(self, chain: Chain) -> None:
        """Append a row."""
        self.rows.append(chain)
        if len(self.rows) >= SPOOLED:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        columns = [pa.array([row[k] for row in self.rows], kind) for k, kind in enumerate(self.schema.types)]
        self.write(pa.record_batch(columns, schema=self.schema))
        self.rows = []

    def table(self) -> pa.Table:
        """All rows."""
        self._write()
        return super().table()


def chain_table(chains: Iterable[Chain], folder: Path | None = None) -> pa.Table:
    """Chains as the two columns."""
    spool = ChainSpool(folder)
    for chain in chains:
        spool.add(chain)
    return spool.table()


def status_counts(table: pa.Table) -> Counter[str]:
    """How many rewrites have each status."""
    import pyarrow.compute as pc

    counts: Counter[str] = Counter()
    for chunk in table[REWRITE_STATUS].chunks:
        for found in pc.value_counts(chunk.flatten()).to_pylist():
            counts[found["values"]] += found["counts"]
    return counts


def with_cache(rewriter: ChatRewriter, cache: str | Path | None) -> ChatRewriter:
    """The rewriter with a cache: its own, else the folder given, else the default one where replies cost something."""
    if rewriter.cache is not None:
        return rewriter
    if cache is None and getattr(rewriter.chat, "paid", False):
        cache = default_cache()
        log.info("replies are kept in %s", cache)
    return rewriter if cache is None else replace(rewriter, cache=Cache(cache))


def rewrite_chains(
    ds: Dataset,
    attribute: Attribute,
    rewriter: Rewriter,
    depth: int,
    cache: str | Path | None = None,
    progress: bool = False,
    meter: Meter | None = None,
) -> pa.Table:
    """For each row of `ds` its `depth` rewrites and their statuses, as a table of two columns.

    Pass 1 asks for the side that the response is not on, pass 2 for its own side, and so on. Identical
    (text, side) pairs are asked for once. What follows a missing rewrite is not attempted.
    """
    if isinstance(rewriter, ChatRewriter):
        return _by_chat(ds, rewriter, depth, progress, meter or Meter())
    return _by_blocks(ds, attribute, rewriter, depth, cache, progress)


def _by_chat(ds: Dataset, rewriter: ChatRewriter, depth: int, progress: bool, meter: Meter) -> pa.Table:
    from tqdm.auto import tqdm

    spool = ChainSpool(rewriter.cache.folder if rewriter.cache is not None else None)
    name = f"rewrite {rewriter.attribute.name}"
    with tqdm(total=len(ds), desc=name, unit="row", disable=not progress, delay=1) as bar:

        def tick() -> None:
            bar.set_postfix_str(meter.shown(), refresh=False)
            bar.update(meter.rows - bar.n)

        ask_chains(rewriter, rows_of(ds, rewriter.needs_prompt), depth, spool.add, meter, tick)
        tick()
    return spool.table()


class _Results:
    """The rewrites of one pass on disk: of each distinct (text, side) one, and which of them each row has."""

    def __init__(self, folder: Path | None) -> None:
        self.spool, self.of_row = ChainSpool(folder), array("q")
        self._number: dict[bytes, int] = {}
        self._block: tuple[int, list[str | None], list[str]] = (-1, [], [])

    def meet(self, text: str | None, side: bool) -> bool:
        """Add a row; whether its text is to be asked for."""
        if text is None:
            self.of_row.append(-1)
            return False
        key = hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), digest_size=16, key=b"01"[side : side + 1]
        ).digest()
        known = len(self._number)
        self.of_row.append(self._number.setdefault(key, known))
        return len(self._number) > known

    def close(self) -> None:
        """All have been added."""
        self._number.clear()
        table = self.spool.table()
        self.columns = [[chunk.flatten() for chunk in table[name].chunks] for name in (REWRITES, REWRITE_STATUS)]

    def __iter__(self) -> Iterator[Rewrite]:
        """Of each row."""
        for number in self.of_row:
            if number < 0:
                yield Rewrite(None, NOT_ATTEMPTED)
                continue
            block, place = divmod(number, SPOOLED)
            if block > self._block[0]:  # mostly they come in order
                self._block = (block, *(column[block].to_pylist() for column in self.columns))
            if block == self._block[0]:
                yield Rewrite(self._block[1][place], self._block[2][place])
            else:
                yield Rewrite(*(column[block][place].as_py() for column in self.columns))


def _by_blocks(
    ds: Dataset, attribute: Attribute, rewriter: Rewriter, depth: int, cache: str | Path | None, progress: bool
) -> pa.Table:
    """Pass by pass; in memory there are a digest of each distinct text of a pass and some thousand texts."""
    from tqdm.auto import tqdm

    stored, folder, name = _stored(rewriter, attribute, cache), None if cache is None else Path(cache), attribute.name
    passes: list[_Results] = []
    with tqdm(total=depth * len(ds), desc=f"rewrite {name}", unit="text", disable=not progress, delay=2) as bar:
        for k in range(depth):
            found = _Results(folder)
            for asked in _blocks(ds, passes, found):
                for result in stored([t for t, _ in asked], [side for _, side in asked]):
                    found.spool.add(([result.text], [result.status]))
                bar.update(k * len(ds) + len(found.of_row) - bar.n)
            found.close()
            passes.append(found)
    return chain_table((([r.text for r in row], [r.status for r in row]) for row in zip(*passes, strict=True)), folder)


def _blocks(ds: Dataset, passes: list[_Results], found: _Results) -> Iterator[list[tuple[str, bool]]]:
    """What the next pass is to ask for: each distinct text of the rows, or of the pass before, with its side."""
    asked: list[tuple[str, bool]] = []
    before: Iterator[str | None] | None = (r.text for r in passes[-1]) if passes else None
    for row in rows_of(ds, with_prompt=False):
        text = row.text if before is None else next(before)
        side = row.target ^ bool(len(passes) % 2)
        if found.meet(text, side):
            asked.append((str(text), side))
        if len(asked) == _BLOCK:
            yield asked
            asked = []
    if asked:
        yield asked


def _stored(rewriter: Rewriter, attribute: Attribute, cache: str | Path | None) -> Rewriter:
    """The rewriter, checked, and with its rewrites in the cache."""

    def checked(texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        try:
            given = rewriter(list(texts), list(targets))
        except TypeError as e:
            if e.__traceback__ is not None and e.__traceback__.tb_next is None:  # raised by the call, not within
                raise InputError(
                    f"the rewriter cannot be called as rewriter(texts, targets), with a list of texts and one of bools "
                    f"(to the treated side?): {e}"
                ) from None
            raise
        return rewrites_of(given, texts)

    if cache is None:
        return checked
    store = Cache(cache)
    name = fingerprint_of(rewriter)
    fingerprint = f"{name}|{attribute.name}|{attribute.treated}|{attribute.untreated}"

    def ask(texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        keys = [key_of(fingerprint, [t, s]) for t, s in zip(texts, targets, strict=True)]
        found: dict[int, Rewrite] = {}
        for i, key in enumerate(keys):
            if (record := store.get(key)) is not None:
                found[i] = _rewrite_in(record)
        new = [i for i in range(len(keys)) if i not in found]
        if new:
            for i, r in zip(new, checked([texts[i] for i in new], [targets[i] for i in new]), strict=True):
                found[i] = r
                if r.status != FAILED:
                    store.put(keys[i], _record(name, attribute, texts[i], targets[i], r))
        return [found[i] for i in range(len(keys))]

    return ask


def rewrites_of(given: Any, texts: Sequence[str]) -> list[Rewrite]:
    """Return what a rewriter gave for `texts` as a list of `Rewrite`.

    Parameters
    ----------
    given : list of Rewrite, or list of str or None
        One entry a text, in order; a pair (text, status) is a `Rewrite` too. A bare text is "ok", None "empty".
    texts : sequence of str
        What it was given. A text that comes back letter for letter is "unchanged", and kept.

    Raises
    ------
    InputError
        Where it is something else: what was given, and where.
    WorkError
        Where there are more or fewer rewrites than texts.

    Examples
    --------
    >>> rewrites_of(["A longer text.", None], ["A text.", "Another."])
    [Rewrite(text='A longer text.', status='ok'), Rewrite(text=None, status='empty')]
    """
    wanted = f"a list of {len(texts)} rewrites (a text, None, or Rewrite(text, status)) was expected"
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InputError(f"the rewriter returned {_shown(given)}; {wanted}")
    results = list(given)
    if len(results) != len(texts):
        raise WorkError(f"the rewriter gave {len(results)} rewrites for {len(texts)} texts; {wanted}")
    return [_rewrite_of(result, text, k, wanted) for k, (result, text) in enumerate(zip(results, texts, strict=True))]


def _rewrite_of(result: Any, source: str, k: int, wanted: str) -> Rewrite:
    if isinstance(result, tuple | list) and len(result) == 2:
        text, status = result
    else:
        text, status = result, OK
    if not isinstance(text, str | None) or not isinstance(status, str):
        raise InputError(f"the rewriter's entry {k + 1} is {_shown(result)}; {wanted}")
    if not is_text(status):
        status = status.encode("ascii", "backslashreplace").decode()
    if text is None:
        return Rewrite(None, EMPTY if status in USABLE else status)
    if status not in USABLE:
        return Rewrite(None, status)
    if not is_text(text):
        return Rewrite(None, NOT_TEXT)
    return Rewrite(text, UNCHANGED if text == source else OK)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"


def _record(name: str, attribute: Attribute, text: str, target: bool, rewrite: Rewrite) -> dict[str, Any]:
    return record_of(
        model=name,
        params="",
        template="",
        attribute=attribute.name,
        phrase=attribute.phrase(target),
        messages=[{"role": "user", "content": text}],
        text=rewrite.text,
        finish_reason=rewrite.status,
        usage={},
    )


def _rewrite_in(record: dict[str, Any]) -> Rewrite:
    status = str(record["finish_reason"])
    text = record["text"] if status in USABLE else None
    return Rewrite(text, status) if text is None or is_text(text) else Rewrite(None, NOT_TEXT)
