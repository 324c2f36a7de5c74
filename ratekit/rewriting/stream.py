"""Chains of rewrites on their way: each row goes on as soon as its own reply is there.

Row 7 may be in its third pass while row 8 is in its first.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratekit.rewriting.base import NOT_ATTEMPTED, PAID, Chain, Reply, Rewrite
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.cost import CHARACTERS_PER_TOKEN, Meter
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

SPAN = 4096  # rows begun ahead of the oldest unfinished one: what bounds the memory
POLL = 0.1  # seconds between looks at what another process is asking for


class Asks(Protocol):
    """What a rewriter that asks a chat has to say of itself; `ChatRewriter` is one."""

    @property
    def chat(self) -> Any: ...  # noqa: D102
    @property
    def cache(self) -> Cache | None: ...  # noqa: D102
    @property
    def retry_failed(self) -> bool: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def params(self) -> str: ...  # noqa: D102
    @property
    def template_hash(self) -> str: ...  # noqa: D102
    def conversation(self, text: str, target: bool, prompt: Any = None) -> Conversation: ...  # noqa: D102
    def key(self, conversation: Conversation) -> str: ...  # noqa: D102
    def judge(self, reply: Reply, source: str) -> Rewrite: ...  # noqa: D102
    def record(self, conversation: Conversation, target: bool, reply: Reply) -> dict[str, Any]: ...  # noqa: D102


@dataclass(slots=True)
class Row:
    """A response on its way: the text at hand, the side it is to be rewritten to, and what there is so far."""

    text: str
    target: bool
    prompt: Any = None
    index: int = 0
    rewrites: list[str | None] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Asked:
    key: str
    conversation: Conversation
    target: bool
    tokens: float  # of the text, about
    rows: list[Row]


class Chains:
    """The source of requests of a chat: rows in, chains out in the rows' order, each text asked for once."""

    def __init__(
        self,
        rewriter: Asks,
        cache: Cache,
        rows: Iterator[Row],
        depth: int,
        sink: Callable[[Chain], None],
        meter: Meter,
        span: int | None = SPAN,
    ) -> None:
        self.rewriter, self.cache, self.depth, self.sink, self.meter, self.span = (
            rewriter, cache, depth, sink, meter, span,
        )  # fmt: skip
        self.rows = rows
        self.begun = self.finished = 0
        self.exhausted = False
        self.ready: deque[Row] = deque()  # to be asked for next
        self.elsewhere: list[Row] = []  # another process is asking for these
        self.looked = 0.0
        self.asked: dict[int, _Asked] = {}
        self.by_key: dict[str, int] = {}
        self.asked_again: set[str] = set()
        self.number = 0
        self.ends: dict[int, Row] = {}  # finished before an earlier row

    # --- the source's contract ---

    def take(self) -> tuple[int, Conversation] | None:
        """The next request; what the cache holds needs none."""
        if self.elsewhere and time.monotonic() - self.looked > POLL:
            self.looked = time.monotonic()
            self.cache.refresh()
            self.ready.extend(self.elsewhere)
            self.elsewhere = []
        while (row := self._next()) is not None:
            conversation = self.rewriter.conversation(row.text, row.target, row.prompt)
            key = self.rewriter.key(conversation)
            if key in self.by_key:
                self.asked[self.by_key[key]].rows.append(row)
            elif (reply := self._stored(key, row)) is not None:
                self.meter.from_cache += 1
                self._advance(row, reply)
            elif self._stops():
                self._end(row, NOT_ATTEMPTED)
            elif not self._may_ask(key):
                self.elsewhere.append(row)
            elif (reply := self._stored(key, row)) is not None:  # written since, by another process
                self.cache.release(key)
                self.meter.from_cache += 1
                self._advance(row, reply)
            else:
                return self._ask(key, conversation, row)
        return None

    def give(self, reply: Reply) -> None:
        """Store the reply, then let its rows go on."""
        asked = self.asked.pop(reply.index)
        self.meter.expect(-_tokens(asked.conversation), -asked.tokens)
        del self.by_key[asked.key]
        if reply.finish_reason in PAID:
            self.cache.put(asked.key, self.rewriter.record(asked.conversation, asked.target, reply))
        self.cache.release(asked.key)
        for row in asked.rows:
            self._advance(row, reply)

    def done(self) -> bool:
        """Whether nothing is left to ask for, once the requests under way are answered."""
        return self.exhausted and not (self.ready or self.elsewhere or self.asked)

    # --- steps ---

    def _next(self) -> Row | None:
        if self.ready:
            return self.ready.popleft()
        if self.exhausted or (self.span is not None and self.begun - self.finished >= self.span):
            return None
        row = next(self.rows, None)
        if row is None:
            self.exhausted = True
            return None
        row.index = self.begun
        self.begun += 1
        return row

    def _stored(self, key: str, row: Row) -> Reply | None:
        record = self.cache.get(key)
        if record is None:
            return None
        reply = Reply(0, record.get("text"), str(record.get("finish_reason")))
        again = self.rewriter.retry_failed and key not in self.asked_again
        if again and self.rewriter.judge(reply, row.text).text is None:
            return None
        return reply

    def _may_ask(self, key: str) -> bool:
        if not self.asked and not self.number:
            self.cache.prepare()
            self._say_templates()
        return self.cache.claim(key)

    def _say_templates(self) -> None:
        ours, theirs = self.rewriter.template_hash, self.cache.templates()
        if theirs and ours not in theirs:
            log.warning(
                "the cache %s was made with the template %s and this run's is %s: they are kept apart, and nothing "
                "in it is used", self.cache.folder, ", ".join(sorted(theirs)), ours,
            )  # fmt: skip

    def _ask(self, key: str, conversation: Conversation, row: Row) -> tuple[int, Conversation]:
        self.number += 1
        tokens = len(row.text) / CHARACTERS_PER_TOKEN
        self.asked[self.number] = _Asked(key, conversation, row.target, tokens, [row])
        self.meter.expect(_tokens(conversation), tokens)
        self.by_key[key] = self.number
        if self.rewriter.retry_failed:
            self.asked_again.add(key)
        return self.number, conversation

    def _stops(self) -> bool:
        if self.meter.stopped is None:
            if self.cache.full is not None:
                self.meter.stopped = "the disk is full"
            elif self.meter.spent():
                self.meter.stopped = f"the budget of {self.meter.budget:g} is spent"
                log.warning(
                    "%s: the rows that are left are not attempted; the same command with a larger one goes on",
                    self.meter.stopped,
                )  # fmt: skip
        return self.meter.stopped is not None

    def _advance(self, row: Row, reply: Reply) -> None:
        rewrite = self.rewriter.judge(reply, row.text)
        row.rewrites.append(rewrite.text)
        row.statuses.append(rewrite.status)
        if rewrite.text is None or len(row.rewrites) == self.depth:
            self._end(row, NOT_ATTEMPTED)
        else:
            row.text, row.target = rewrite.text, not row.target
            self.ready.append(row)

    def _end(self, row: Row, status: str) -> None:
        missing = self.depth - len(row.rewrites)
        row.rewrites += [None] * missing
        row.statuses += [status] * missing
        self.ends[row.index] = row
        self.meter.rows += 1
        while (first := self.ends.pop(self.finished, None)) is not None:
            self.finished += 1
            self.sink((first.rewrites, first.statuses))


def _tokens(conversation: Conversation) -> float:
    return sum(len(turn["content"]) for turn in conversation) / CHARACTERS_PER_TOKEN
