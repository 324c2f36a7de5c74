"""Chains of rewrites asked of a chat, or counted beforehand.

A chat that can be fed while it works (it has `serve`) is; any other gets all that can be asked at the moment in one
call, which is one call per pass (or `at_once` of them).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from ratekit.errors import WorkError
from ratekit.rewriting.base import FAILED, Chain, Reply
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.cost import Meter, Pending, Plan, Prices, plan
from ratekit.rewriting.stream import POLL, SPAN, Asks, Chains, Row
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")


def ask_chains(
    rewriter: Asks,
    rows: Iterator[Row],
    depth: int,
    sink: Callable[[Chain], None],
    meter: Meter | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Hand the chain of each row to `sink`, in the rows' order; every reply is in the cache before.

    tick  called now and then in this thread, to draw a progress bar

    Raises WorkError; what arrived before is in the cache.
    """
    meter = meter or Meter()
    meter.about = {"model": rewriter.model, "params": rewriter.params, "template": rewriter.template_hash}
    with contextlib.ExitStack() as stack:
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
            time.sleep(POLL)  # another process is asking for what is left


def _one_call(
    chat: Any, chains: Chains, meter: Meter, tick: Callable[[], None], requests: list[tuple[int, Conversation]]
) -> None:
    meter.requests += len(requests)
    unanswered = {number for number, _ in requests}
    for reply in chat([conversation for _, conversation in requests]):
        if not 0 <= reply.index < len(requests):
            raise WorkError(f"the chat replied to conversation {reply.index} of {len(requests)}")
        number = requests[reply.index][0]
        if number in unanswered:
            unanswered.discard(number)
            meter.add(reply.usage)
            chains.give(replace(reply, index=number))
        tick()
    for number in unanswered:
        chains.give(Reply(number, None, FAILED))


def plan_chains(rewriter: Asks, rows: Iterator[Row], depth: int, prices: Prices | None = None) -> Plan:
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
            reply = Reply(0, record.get("text"), str(record.get("finish_reason"))) if record else None
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
    return plan(n_rows, depth, pending, from_cache, repeated, rewriter.chat, prices)
