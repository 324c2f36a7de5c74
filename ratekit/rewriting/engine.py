"""The requests of one call, under way until every one is answered or given up.

The client's own retries are off: a request that has to wait gives its slot to another one. All of it runs in one
event loop on a thread of its own, so it works in a notebook; `take` and `give` of the source are called there, between
two awaits, so a reply that was read is on disk before anything else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratekit.errors import WorkError
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cost import CHARACTERS_PER_TOKEN, Meter
from ratekit.rewriting.faults import BAD, FATAL, OTHER_NAME, REFUSED, Fault, fault_of, without_secrets
from ratekit.rewriting.pacing import Pacer, RetryBudget, Throttle, backoff
from ratekit.rewriting.replies import parse
from ratekit.schema import Conversation

WAITING_PER_SLOT = 4  # requests that may wait for their retry, for each slot; beyond it nothing new is begun


class Source(Protocol):
    """Where requests come from and replies go; called from one thread."""

    def take(self) -> tuple[int, Conversation] | None:
        """The next request, or None if there is none at the moment."""

    def give(self, reply: Reply) -> None:
        """The reply to request `reply.index`."""

    def done(self) -> bool:
        """Whether `take` will never give a request again, once those under way are answered."""


@dataclass(order=True)
class _Job:
    due: float
    order: int
    index: int = field(compare=False)
    conversation: Conversation = field(compare=False)
    tries: int = field(default=0, compare=False)
    first_replies: int = field(default=0, compare=False)  # replies that had come when it was first tried
    tokens: float = field(default=0.0, compare=False)


class Run:
    """The requests of one call, under way in an event loop on a thread of its own."""

    def __init__(
        self, chat: Any, source: Source, meter: Meter | None = None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self.chat, self.source, self.on_end = chat, source, on_end
        self.meter = meter or Meter()
        self.key = chat.key()
        self.throttle = Throttle(chat.concurrency)
        self.budget = RetryBudget(chat.retry_share, start=max(100, 8 * chat.concurrency))
        self.by_request = Pacer(chat.rpm / 60) if chat.rpm else None
        self.by_token = Pacer(chat.tpm / 60) if chat.tpm else None
        self.waiting: list[_Job] = []  # for their retry, by when it is due
        self.tasks: set[asyncio.Task[None]] = set()
        self.limit_name = "max_tokens"
        self.answered = False
        self.bad = 0
        self.order = 0
        self.timer: asyncio.TimerHandle | None = None
        self.draw = random.Random()
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopped = False
        self.thread = threading.Thread(target=self._thread, name="ratekit-openai", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self) -> None:
        """End it now, if it has not ended; what arrived was given."""
        self.stopped = True
        if self.thread.is_alive() and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in the meantime
                self.loop.call_soon_threadsafe(self._end)
        self.thread.join()

    def check(self) -> None:
        """Raise what ended it early."""
        if self.error is not None:
            raise self.error

    def _thread(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as e:
            self.error = self.error or e
        finally:
            self.on_end()

    async def _main(self) -> None:
        import openai

        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.loop = loop
        if self.stopped:
            return
        async with openai.AsyncOpenAI(
            api_key=self.key,
            base_url=self.chat.base_url,
            max_retries=0,
            timeout=self.chat.timeout,
            http_client=openai.DefaultAioHttpClient(),
        ) as self.client:
            self._pump()
            try:
                await self.ended
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

    def _end(self, error: BaseException | None = None) -> None:
        self.error = self.error or error
        if not self.ended.done():
            self.ended.set_result(None)

    # --- what to do next ---

    def _pump(self) -> None:
        """Begin as many requests as there are slots; then see to it that this is called again."""
        assert self.loop is not None
        if self.ended.done():
            return
        now = self.loop.time()
        try:
            while len(self.tasks) < int(self.throttle.limit):
                if (wait := self._wait(now)) > 0:
                    return self._again_in(wait)
                job = self._next(now)
                if job is None:
                    break
                self._begin(job, now)
            if self.tasks:
                if self.waiting:
                    self._again_in(max(0.0, self.waiting[0].due - now))
            elif self.waiting:
                self._again_in(max(0.001, self.waiting[0].due - now))
            elif self.source.done():
                self._end()
            else:
                self._again_in(0.1)  # another process has asked for what is left
        except BaseException as e:  # of the source: a full disk, a fault in the data
            self._end(e)

    def _again_in(self, seconds: float) -> None:
        assert self.loop is not None
        due = self.loop.time() + seconds
        if self.timer is not None and not self.timer.cancelled():
            if self.loop.time() < self.timer.when() <= due:
                return
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self._pump)

    def _wait(self, now: float) -> float:
        return max(p.wait(now) if p else 0.0 for p in (self.by_request, self.by_token))

    def _next(self, now: float) -> _Job | None:
        if self.waiting and self.waiting[0].due <= now:
            return heapq.heappop(self.waiting)
        if len(self.waiting) >= WAITING_PER_SLOT * self.chat.concurrency:
            return None
        request = self.source.take()
        if request is None:
            return None
        self.order += 1
        return _Job(now, self.order, *request, first_replies=self.budget.replies)

    def _begin(self, job: _Job, now: float) -> None:
        assert self.loop is not None
        job.tries += 1
        self.meter.requests += 1
        if self.by_request:
            self.by_request.spend(1, now)
        if self.by_token:
            characters = sum(len(turn["content"]) for turn in job.conversation)
            job.tokens = 2 * characters / CHARACTERS_PER_TOKEN  # a rewrite is about as long as the text
            self.by_token.spend(job.tokens, now)
        task = self.loop.create_task(self._ask(job))
        self.tasks.add(task)
        task.add_done_callback(self._after)

    def _after(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)
        self._pump()

    # --- one request ---

    async def _ask(self, job: _Job) -> None:
        import anyio

        body = self.chat.body(job.conversation)
        if self.limit_name != "max_tokens":
            body[self.limit_name] = body.pop("max_tokens")
        try:
            with anyio.fail_after(self.chat.timeout):
                raw = await self.client.post("/chat/completions", cast_to=bytes, body=body)
            reply = parse(job.index, raw)
        except Exception as e:
            self._failed(job, fault_of(e, self.chat.model, self.chat.url))
            return
        self.answered = True
        self.budget.replies += 1
        self.throttle.note(rejected=False)
        if self.by_token and self.loop and (used := sum(reply.usage.values())):
            self.by_token.spend(used - job.tokens, self.loop.time())
        self.meter.add(reply.usage)
        self.source.give(reply)

    def _failed(self, job: _Job, fault: Fault) -> None:
        self.answered |= fault.answered
        self.throttle.note(rejected=fault.rejected)
        self.meter.last_fault = fault.message
        if fault.kind == FATAL:
            self._end(WorkError(f"{fault.message}; what arrived before is kept"))
        elif fault.kind == REFUSED:
            self.budget.replies += 1
            self.source.give(Reply(job.index, None, "content_filter"))
        elif fault.kind == OTHER_NAME and job.tries == 1:
            self.limit_name = OTHER_NAME
            self._retry(job, 0.0)
        elif fault.kind in (BAD, OTHER_NAME):
            self.bad += 1
            if self.bad >= 3 and self.budget.replies == 0:
                self._end(
                    WorkError(f"the server at {without_secrets(self.chat.url)} rejects the requests ({fault.message})")
                )
            else:
                self.source.give(Reply(job.index, None, "error"))
        else:
            self._again(job, fault)

    def _again(self, job: _Job, fault: Fault) -> None:
        """Try again later, unless there is no hope."""
        where = without_secrets(self.chat.url)
        if not self.answered and job.tries >= min(3, self.chat.max_retries + 1):
            self._end(
                WorkError(
                    f"the server at {where} does not answer ({fault.message}); is it up, and is that its address?"
                )
            )
        elif job.tries > self.chat.max_retries:
            if self.budget.replies == job.first_replies:  # nobody else got through either
                self._end(
                    WorkError(
                        f"the server at {where} stopped answering: {job.tries} tries of one request failed, and all "
                        f"others meanwhile ({fault.message}); what arrived is kept, run the same command again to go on"
                    )
                )
            else:
                self.source.give(Reply(job.index, None, "error"))
        elif not self.budget.take():
            self._end(
                WorkError(
                    f"the server at {where} fails too often: {self.budget.retries} retries for {self.budget.replies} "
                    f"replies (last: {fault.message}); what arrived is kept, run the same command again to go on"
                )
            )
        else:
            self.meter.retries += 1
            self._retry(job, backoff(job.tries, fault.retry_after, self.draw))

    def _retry(self, job: _Job, wait: float) -> None:
        assert self.loop is not None
        job.due = self.loop.time() + wait
        heapq.heappush(self.waiting, job)
