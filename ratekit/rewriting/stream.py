"""Chains of rewrites asked of a chat, or counted beforehand: each row goes on as soon as its own reply is there.

Row 7 may be in its third pass while row 8 is in its first. A chat that can be fed while it works (it has `serve`) is;
any other gets all that can be asked at the moment in one call, which is one call per pass (or `at_once` of them).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ratekit.errors import InputError, WorkError, shorten, terminable
from ratekit.redaction import redact
from ratekit.rewriting.base import (
    ERROR,
    FAILED,
    FILTERED,
    LENGTH,
    NOT_ATTEMPTED,
    STOP,
    UNREADABLE,
    Chain,
    Reply,
    Rewrite,
    ending,
)  # fmt: skip
from ratekit.rewriting.cache import Cache, fingerprint_of, key_of, record_of, reply_in, spent_on
from ratekit.rewriting.cost import CHARACTERS_PER_TOKEN, CostPlan, Meter, Pending, Prices, cost_plan
from ratekit.schema import Conversation
from ratekit.store import short

log = logging.getLogger("ratekit")

SPAN = 4096  # rows begun ahead of the oldest unfinished one: what bounds the memory
_POLL = 0.1  # seconds between looks at what another process is asking for
TRIES = 3  # unreadable answers to one request after which it is not asked again


class Asks:
    """What asks a chat: a rewriter, or a judge. What it asks, reads and stores is its own; its names are told here."""

    chat: Any
    cache: Cache | None
    retry_failed: bool
    template_hash: str

    @property
    def model(self) -> str:
        """The model's name."""
        return str(getattr(self.chat, "model", None) or fingerprint_of(self.chat))

    @property
    def params(self) -> str:
        """The model's parameters; "" for a chat that says nothing of them."""
        return str(getattr(self.chat, "params", ""))

    @property
    def fingerprint(self) -> str:
        """What a reply depends on besides the messages: the model and its parameters."""
        return f"{self.model}|{self.params}" if self.params else fingerprint_of(self.chat)

    def key(self, conversation: Conversation) -> str:
        """The reply's address in the cache."""
        return key_of(self.fingerprint, conversation)

    def conversation(self, text: str, target: bool, prompt: Any = None) -> Conversation:
        """What the chat is asked."""
        raise NotImplementedError

    def judge(self, reply: Reply, source: str) -> Rewrite:
        """What a reply to `source` holds, or why it holds nothing."""
        raise NotImplementedError

    def named(self, target: bool) -> tuple[str, str]:
        """What is varied or asked about, and the phrase for it."""
        raise NotImplementedError

    def record(self, conversation: Conversation, target: bool, reply: Reply) -> dict[str, Any]:
        """What is stored of a reply."""
        attribute, phrase = self.named(target)
        return record_of(
            model=self.model, params=self.params, template=self.template_hash, attribute=attribute, phrase=phrase,
            messages=conversation, text=reply.text, finish_reason=reply.finish_reason, usage=reply.usage,
            logprobs=reply.logprobs,
        )  # fmt: skip


@dataclass(slots=True)
class ChainRow:
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
    rows: list[ChainRow]


class Chains:
    """The source of requests of a chat: rows in, chains out in the rows' order, each text asked for once."""

    def __init__(
        self,
        rewriter: Asks,
        cache: Cache,
        rows: Iterator[ChainRow],
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
        self.ready: deque[ChainRow] = deque()  # to be asked for next
        self.elsewhere: list[ChainRow] = []  # another process is asking for these
        self.looked = 0.0
        self.asked: dict[int, _Asked] = {}
        self.by_key: dict[str, int] = {}
        self.asked_again: set[str] = set()
        self.number = 0
        self.counted: set[bytes] = set()  # keys whose earlier replies are in the meter
        self.said: set[str] = set()
        # A budget binds what was spent before, too, so nothing is asked for until that is known.
        self.looking = meter.budget is not None
        self.aside: list[ChainRow] = []
        self.ends: dict[int, ChainRow] = {}  # finished before an earlier row

    # --- the source's contract ---

    def take(self) -> tuple[int, Conversation] | None:
        """The next request; what the cache holds needs none."""
        if self.elsewhere and time.monotonic() - self.looked > _POLL:
            self.looked = time.monotonic()
            self.cache.refresh()
            self.ready.extend(self.elsewhere)
            self.elsewhere = []
        while (row := self._next()) is not None or self._looked_ahead():
            if row is None:
                continue
            conversation = self.rewriter.conversation(row.text, row.target, row.prompt)
            key = self.rewriter.key(conversation)
            if key in self.by_key:
                self.asked[self.by_key[key]].rows.append(row)
            elif (reply := self._stored(key, row)) is not None:
                self.meter.from_cache += 1
                self._advance(row, reply)
            elif self.looking:
                self.aside.append(row)
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
        if ending(reply.finish_reason) in (STOP, LENGTH, FILTERED):
            self._store(asked, reply)
        elif reply.text or reply.finish_reason not in (UNREADABLE, FAILED, ERROR):
            self._store(asked, reply)
            said = f"a reply ended with finish_reason {shorten(reply.finish_reason)!r}, so it may not be complete"
            if reply.finish_reason == UNREADABLE:
                said = f"an answer without a text: {shorten(redact(reply.text or ''), 60)}"
            self._say_once(reply.finish_reason, f"{said}: it is kept and does not count as a rewrite")
        self.cache.release(asked.key)
        for row in asked.rows:
            self._advance(row, reply)

    def keep(self, reply: Reply) -> bool:
        """Store and count an answer that holds no text; whether its request may be made again."""
        tries = self._store(self.asked[reply.index], reply)
        return tries < TRIES and not self.meter.spent()

    def done(self) -> bool:
        """Whether nothing is left to ask for, once the requests under way are answered."""
        return self.exhausted and not (self.ready or self.elsewhere or self.asked)

    # --- steps ---

    def _next(self) -> ChainRow | None:
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

    def _looked_ahead(self) -> bool:
        """Whether this ends the look ahead: what the cache holds of the rows in sight is in the meter now."""
        if not self.looking:
            return False
        self.looking = False
        self.ready.extend(self.aside)
        self.aside.clear()
        return True

    def _stored(self, key: str, row: ChainRow) -> Reply | None:
        record = self.cache.get(key)
        if record is None:
            return None
        self._count(key, record)
        reply = reply_in(record)
        again = self.rewriter.retry_failed and key not in self.asked_again
        if reply.finish_reason == UNREADABLE and record.get("tries", 1) < TRIES:
            return None
        if again and self.rewriter.judge(reply, row.text).text is None:
            return None
        return reply

    def _count(self, key: str, record: Mapping[str, Any]) -> None:
        """Put what was paid for a key before into the meter, once."""
        if (known := short(key)) not in self.counted:
            self.counted.add(known)
            self.meter.recall(spent_on(record), bool(record.get("estimated")))

    def _store(self, asked: _Asked, reply: Reply) -> int:
        """Put a reply into the meter and the cache; how many unreadable answers its request has got."""
        before = self.cache.get(asked.key)
        if before is not None:
            self._count(asked.key, before)
        self.counted.add(short(asked.key))
        usage, estimated = self._usage(asked, reply)
        self.meter.add(usage, estimated, reply.finish_reason != UNREADABLE)
        record = self.rewriter.record(asked.conversation, asked.target, replace(reply, usage=usage))
        record["estimated"] = estimated
        if before is not None:
            record["earlier"] = spent_on(before)
            record["tries"] = 1 + (before.get("tries", 1) if before.get("finish_reason") == UNREADABLE else 0)
        self.cache.put(asked.key, record)
        return int(record.get("tries", 1))

    def _usage(self, asked: _Asked, reply: Reply) -> tuple[dict[str, int], bool]:
        """The tokens of a reply, and whether they are an estimate because the server does not say."""
        usage = dict(reply.usage)
        if "prompt" in usage and "completion" in usage:
            return usage, False
        if getattr(self.rewriter.chat, "paid", False):
            self._say_once(
                "usage",
                "the server does not say how many tokens a reply took (usage): tokens and cost are estimated at "
                f"{CHARACTERS_PER_TOKEN:g} characters a token",
            )
        made = len(reply.text or "") / CHARACTERS_PER_TOKEN if reply.finish_reason != UNREADABLE else asked.tokens
        usage.setdefault("prompt", round(_tokens(asked.conversation)))
        usage.setdefault("completion", round(made))
        return usage, True

    def _say_once(self, what: str, message: str) -> None:
        if what != "usage":
            self.meter.last_fault = message
        if what not in self.said:
            self.said.add(what)
            log.warning("%s", message)

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

    def _ask(self, key: str, conversation: Conversation, row: ChainRow) -> tuple[int, Conversation]:
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

    def _advance(self, row: ChainRow, reply: Reply) -> None:
        rewrite = self.rewriter.judge(reply, row.text)
        row.rewrites.append(rewrite.text)
        row.statuses.append(rewrite.status)
        if rewrite.text is None or len(row.rewrites) == self.depth:
            self._end(row, NOT_ATTEMPTED)
        else:
            row.text, row.target = rewrite.text, not row.target
            self.ready.append(row)

    def _end(self, row: ChainRow, status: str) -> None:
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


# --- the whole ---------------------------------------------------------------------------------------------


def ask_chains(
    rewriter: Asks,
    rows: Iterator[ChainRow],
    depth: int,
    sink: Callable[[Chain], None],
    meter: Meter | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Hand the chain of each row to `sink`, in the rows' order; every reply is in the cache before.

    Parameters
    ----------
    rewriter
        Says what is asked, and judges the replies.
    rows
        Responses, in order.
    depth
        Rewrites of each.
    sink
        Takes the chains.
    meter
        Counts what is used, what the cache has of it included, and holds the budget.
    tick
        Called now and then in this thread, to draw a progress bar.

    Raises
    ------
    WorkError
        Where the work cannot go on; what arrived before is in the cache.
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after the requests under way were waited for.
    """
    meter = meter or Meter()
    meter.about = {"model": rewriter.model, "params": rewriter.params, "template": rewriter.template_hash}
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminable())
        cache = rewriter.cache
        if cache is None:
            cache = Cache(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratekit-")))
        serve = getattr(rewriter.chat, "serve", None)
        chains = Chains(rewriter, cache, rows, depth, sink, meter, SPAN if serve else None)
        try:
            if serve:
                serve(chains, meter, tick)
            else:
                _by_passes(rewriter.chat, chains, meter, tick)
        except KeyboardInterrupt:
            kept = "" if rewriter.cache is None else f" in {cache.folder}"
            log.warning(
                "stopped: %d rows are done and every reply that arrived is kept%s; run the same command again to go on "
                "with what is missing", meter.rows, kept,
            )  # fmt: skip
            raise
        finally:
            cache.close()
    if cache.full is not None:
        raise WorkError(
            f"the disk of the cache {cache.folder} is full ({cache.full}); every reply that was asked for is in it. "
            "Make room, or copy it elsewhere, and run the same command again to go on"
        )


def _by_passes(chat: Any, chains: Chains, meter: Meter, tick: Callable[[], None]) -> None:
    while True:
        requests = list(islice(iter(chains.take, None), getattr(chat, "at_once", None)))
        if requests:
            _one_call(chat, chains, meter, tick, requests)
        elif chains.done():
            return
        else:
            time.sleep(_POLL)  # another process is asking for what is left


def _one_call(
    chat: Any, chains: Chains, meter: Meter, tick: Callable[[], None], requests: list[tuple[int, Conversation]]
) -> None:
    meter.requests += len(requests)
    unanswered = {number for number, _ in requests}
    for reply in chat([conversation for _, conversation in requests]):
        if not isinstance(reply, Reply):
            raise InputError(
                f"the chat gave {type(reply).__name__} {shorten(reply, 40)!r}; a chat takes a list of conversations "
                'and yields a Reply(index, text, "stop") for each'
            )
        if not 0 <= reply.index < len(requests):
            raise WorkError(f"the chat replied to conversation {reply.index} of {len(requests)}")
        number = requests[reply.index][0]
        if number in unanswered:
            unanswered.discard(number)
            chains.give(replace(reply, index=number))
        tick()
    for number in unanswered:
        chains.give(Reply(number, None, FAILED))


def plan_chains(rewriter: Asks, rows: Iterator[ChainRow], depth: int, prices: Prices | None = None) -> CostPlan:
    """What `ask_chains` would ask for; makes no request."""
    cache = rewriter.cache
    pending: list[Pending] = []
    seen: set[str] = set()
    n_rows = from_cache = repeated = 0
    for row in rows:
        n_rows += 1
        for done in range(depth):
            conversation = rewriter.conversation(row.text, row.target, row.prompt)
            key = rewriter.key(conversation)
            record = cache.get(key) if cache is not None else None
            reply = reply_in(record) if record else None
            rewrite = rewriter.judge(reply, row.text) if reply else None
            if rewrite is None or (rewrite.text is None and rewriter.retry_failed):
                repeated += key in seen
                if key not in seen:
                    pending.append(Pending(conversation, row.text, depth - done))
                seen.add(key)
                break
            from_cache += 1
            if rewrite.text is None:
                break
            row.text, row.target = rewrite.text, not row.target
    return cost_plan(n_rows, depth, pending, from_cache, repeated, rewriter.chat, prices)
