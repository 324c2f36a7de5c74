"""A chat with any OpenAI-compatible server, as fast as it allows, that loses nothing that was paid for.

The client's own retries are off: a request that has to wait gives its slot to another one, every try is counted, and a
whole answer without a text is kept and charged. All requests of a call run in one event loop on a thread of its own,
so it works in a notebook; the source's methods are called there, between two awaits, so a reply that was read is on
disk before anything else happens.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import queue
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from ratekit.errors import InputError, WorkError, require_whole
from ratekit.redaction import Address, redact
from ratekit.rewriting.base import ERROR, FILTERED, UNREADABLE, Reply
from ratekit.rewriting.cost import CHARACTERS_PER_TOKEN, Meter
from ratekit.rewriting.options import Limits, Sampling, key_from_environment
from ratekit.rewriting.replies import BAD, FATAL, FILTER_REFUSED, NO_CHAT, PARAMETER, Fault, fault_of, read_reply
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

WAITING_PER_SLOT = 4  # requests that may wait for their retry, for each slot; beyond it nothing new is begun
_POLL = 0.1  # seconds between looks at a source that has nothing at the moment
_FRUITLESS = 3  # tries without any answer, or rejected requests without any reply, after which it gives up


class _Source(Protocol):
    """Where requests come from and replies go; called from one thread."""

    def take(self) -> tuple[int, Conversation] | None:
        """The next request, or None if there is none at the moment."""

    def give(self, reply: Reply) -> None:
        """The reply to request `reply.index`."""

    def keep(self, reply: Reply) -> bool:
        """Keep and charge an unreadable answer to request `reply.index`; whether it may be asked for again."""

    def done(self) -> bool:
        """Whether `take` will never give a request again, once those under way are answered."""


@dataclass(frozen=True)
class OpenAIChat(Sampling, Limits):
    """A chat with any OpenAI-compatible server: OpenAI, vLLM, Ollama, `transformers serve`, a gateway.

    Parameters
    ----------
    model
        The model's name at the server.
    base_url
        The server's address; by default OPENAI_BASE_URL of the environment, else OpenAI. A user and a password in it
        are sent as basic authentication, a query goes with every request; neither is ever shown.
    max_retries
        For one request: no connection, 408, 409, 429, 5xx; Retry-After is obeyed.
    retry_share
        Retries that a run may make for each reply that comes; 8 for each slot to begin with.
    top_logprobs
        Ask for the log-probabilities of so many candidates for each token of a reply; 0 asks for none.

    Raises
    ------
    InputError
        Where a parameter is out of its range, or there is no key for OpenAI's own server.
    WorkError
        At once for a refused key, a model or an address that is not there, an empty account, and a server that does
        not answer (any more). The requests that are under way then are waited for, `grace` seconds at most.

    Notes
    -----
    Besides these its parameters are those of `Sampling` and `Limits`. The key comes from the environment
    (OPENAI_API_KEY); a local server needs none. A parameter that the model does not take is left out of all later
    requests (or sent under the name that the server asks for), which is logged. A request that fails all the same
    gives a reply with the `finish_reason` "error", an answer without a text "unreadable".

    Examples
    --------
    >>> chat = OpenAIChat("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1")
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP
    """

    model: str
    base_url: str | None = None
    max_retries: int = field(default=8, kw_only=True)
    retry_share: float = field(default=1.0, kw_only=True)
    top_logprobs: int = field(default=0, kw_only=True)

    paid = True  # its replies cost something, so they are kept even where nobody asked for a cache

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_limits()
        require_whole("max_retries", self.max_retries)
        if self.base_url is not None:
            object.__setattr__(self, "base_url", Address(self.base_url))
        try:
            parts = urlsplit(self.url)
            wrong = "" if parts.scheme.lower() in ("http", "https") else "does not begin with http:// or https://"
            _ = parts.port  # raises where it is no number
            wrong = wrong or ("" if parts.hostname and " " not in self.url else "names no host")
        except ValueError:
            wrong = "is none"
        if wrong:
            raise InputError(f"the server's address {self.url!r} {wrong}")

    @property
    def url(self) -> Address:
        """The server's address."""
        return Address((self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").strip())

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters that are sent, by their names in a request."""
        asked = {"logprobs": True, "top_logprobs": self.top_logprobs} if self.top_logprobs else {}
        return {**super().sampling, **asked}

    def body(self, conversation: Conversation) -> dict[str, Any]:
        """The request for one conversation."""
        return {"model": self.model, "messages": conversation, **self.sampling}

    def client_settings(self) -> dict[str, Any]:
        """What a client of `openai` needs: key, address, query and headers. Raises InputError."""
        key = key_from_environment()
        if key is None and not self.base_url and not os.environ.get("OPENAI_BASE_URL"):
            raise InputError("no OPENAI_API_KEY in the environment (a server of your own needs --base-url)")
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        settings: dict[str, Any] = {
            "api_key": key or "none",
            "base_url": urlunsplit((parts.scheme, host, parts.path, "", "")),
            "default_query": dict(parse_qsl(parts.query)),
        }
        if at:
            if key is not None:
                raise InputError(
                    f"{redact(self.url)}: the address has a user and OPENAI_API_KEY is set, and a server takes one of "
                    "them; take one away"
                )
            settings["default_headers"] = {
                "Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()
            }
        return settings

    def __call__(self, conversations: list[Conversation]) -> Iterator[Reply]:
        """Replies as they arrive."""
        replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        run = Run(self, _Listed(conversations, replies.put), on_end=lambda: replies.put(None))
        run.start()
        try:
            while (reply := replies.get()) is not None:
                yield reply
        finally:
            run.cut()
        run.check()

    def serve(self, source: _Source, meter: Meter, tick: Callable[[], None] = lambda: None) -> None:
        """Answer what `source` asks until it is done.

        Parameters
        ----------
        source
            Gives requests and takes replies.
        meter
            Counts requests and retries.
        tick
            Called some times a second, in this thread.

        Raises
        ------
        WorkError
            As the chat itself; what `source` raises is raised too.
        KeyboardInterrupt
            After the requests that were under way have been answered, `grace` seconds at most, or at once after a
            second Ctrl-C.
        """
        run = Run(self, source, meter)
        run.start()
        try:
            try:
                run.wait(tick)
            except KeyboardInterrupt:
                if (n := run.stop()) > 0:
                    log.warning(
                        "stopping: %d requests are under way and are waited for, %g s at most; Ctrl-C again ends at "
                        "once", n, self.grace,
                    )  # fmt: skip
                run.wait(tick)
                raise
        finally:
            run.cut()
        run.check()


class _Listed:
    """A source of requests from a list."""

    def __init__(self, conversations: list[Conversation], give: Callable[[Reply], None]) -> None:
        self.requests = iter(enumerate(conversations))
        self.left = len(conversations)
        self.give = give
        self.unreadable: dict[int, int] = {}

    def take(self) -> tuple[int, Conversation] | None:
        request = next(self.requests, None)
        self.left -= request is not None
        return request

    def keep(self, reply: Reply) -> bool:
        self.unreadable[reply.index] = self.unreadable.get(reply.index, 0) + 1
        return self.unreadable[reply.index] <= 2

    def done(self) -> bool:
        return self.left == 0


class Parameters:
    """What each parameter of a request is called at this server; "" leaves it out.

    Examples
    --------
    >>> parameters = Parameters(OpenAIChat("m", "http://127.0.0.1/v1"))
    >>> parameters.adapt(Fault(PARAMETER, "400: ...", parameter="temperature"))
    True
    >>> parameters.applied({"model": "m", "temperature": 0.7})
    {'model': 'm'}
    """

    def __init__(self, chat: OpenAIChat) -> None:
        self.model = chat.model
        self.names = {name: name for name in chat.sampling}

    def applied(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request in the server's names."""
        return {self.names.get(name, name): value for name, value in body.items() if self.names.get(name, name)}

    def adapt(self, fault: Fault) -> bool:
        """Take in that a parameter is not taken; whether it is one that can be left out or called otherwise."""
        name = next((ours for ours, theirs in self.names.items() if fault.parameter in (ours, theirs or ours)), None)
        if name is None:
            return False
        known = self.names[name]
        if known == name or known == fault.parameter:  # else a request that was sent before it was known
            theirs = fault.other_name if known != fault.other_name else ""
            self.names[name] = theirs
            said = f"is sent as {theirs!r}" if theirs else "is left out"
            log.warning("the model %s does not take %r, which %s (%s)", self.model, name, said, fault.message)
        return True


# --- one call --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Job:
    index: int
    conversation: Conversation
    replies_before: int  # of the run, when it was first tried
    tries: int = 0
    adapted: int = 0


class Run:
    """The requests of one call, under way in an event loop on a thread of its own."""

    def __init__(
        self, chat: OpenAIChat, source: _Source, meter: Meter | None = None, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self.chat, self.source, self.on_end = chat, source, on_end
        self.meter = meter or Meter()
        self.settings = chat.client_settings()
        self.throttle = Throttle(chat.concurrency)
        self.pacers = [Pacer(chat.rpm / 60) if chat.rpm else None, Pacer(chat.tpm / 60) if chat.tpm else None]
        self.parameters = Parameters(chat)
        self.replies = self.retries = self.bad = self.no_chat = 0
        self.answered = False
        self.waiting = 0  # jobs between two tries
        self.posting: set[asyncio.Task[None]] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.draw = random.Random()
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = self.ended = False
        # Not the thread's own join: one that a signal interrupts takes the thread for ended (Python 3.11).
        self.finished = threading.Event()
        self.thread = threading.Thread(target=self._thread, name="ratekit-openai", daemon=True)

    # --- from outside ---

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def wait(self, tick: Callable[[], None]) -> None:
        """Until it has ended; `tick` is called meanwhile."""
        while not self.finished.wait(0.2):
            tick()
        tick()

    def stop(self) -> int:
        """Begin nothing new; how many requests are under way, which are waited for."""
        n = len(self.posting)
        self._stop_in_loop()
        return n

    def cut(self) -> None:
        """End it now, if it has not ended; what arrived was given."""
        self._stop_in_loop(cut=True)
        self.finished.wait()

    def check(self) -> None:
        """Raise what ended it early."""
        if self.error is not None:
            raise self.error

    def _stop_in_loop(self, cut: bool = False) -> None:
        self.stopping = True
        if not self.finished.is_set() and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop closed in the meantime
                self.loop.call_soon_threadsafe(self._stop, None, cut)

    # --- in the loop ---

    def _thread(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as e:
            self.error = self.error or e
        finally:
            self.on_end()
            self.finished.set()

    async def _main(self) -> None:
        import anyio
        import openai

        self.slots = anyio.CapacityLimiter(self.chat.concurrency)
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        async with openai.AsyncOpenAI(
            **self.settings, max_retries=0, timeout=self.chat.timeout, http_client=openai.DefaultAioHttpClient()
        ) as self.client:
            self.taking = self.loop.create_task(self._begin_all())
            try:
                try:
                    await self.taking
                except asyncio.CancelledError:
                    pass  # stopped
                except BaseException as e:  # of the source: a full disk, a fault in the data
                    self._stop(e)
                deadline = self.loop.time() + self.chat.grace
                while self.posting and not self.ended and (left := deadline - self.loop.time()) > 0:
                    await self._pause(left)
                if self.posting and not self.ended:
                    log.warning("%d requests did not end within the grace of %g s", len(self.posting), self.chat.grace)
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _begin_all(self) -> None:
        """Begin as many requests as there are slots, until the source has no more or the run is to stop."""
        while not self.stopping:
            if self.waiting >= WAITING_PER_SLOT * self.chat.concurrency:
                await self._pause(_POLL)
                continue
            job = _Job(0, [], self.replies)
            await self.slots.acquire_on_behalf_of(job)
            request = None if self.stopping else self.source.take()
            if request is None:
                self.slots.release_on_behalf_of(job)
                if not self.tasks and (self.stopping or self.source.done()):
                    return
                await self._pause(_POLL)
                continue
            job.index, job.conversation = request
            task = asyncio.get_running_loop().create_task(self._ask(job))
            self.tasks.add(task)
            task.add_done_callback(self._after)

    async def _pause(self, seconds: float) -> None:
        """Until a request has ended, or so long."""
        import anyio

        self.changed.clear()
        with anyio.move_on_after(seconds):
            await self.changed.wait()

    def _after(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop(error)
        self.changed.set()

    def _stop(self, error: BaseException | None = None, cut: bool = False) -> None:
        """Begin nothing new; what waits for a retry, a slot or its time is given up, what is asked where it is cut."""
        self.error = self.error or error
        self.stopping, self.ended = True, self.ended or cut
        for task in {self.taking, *self.tasks} - (set() if cut else self.posting) - {asyncio.current_task()}:
            task.cancel()
        self.changed.set()

    # --- one request ---

    async def _ask(self, job: _Job) -> None:
        """Ask until there is a reply or no hope; the job holds a slot when this is called."""
        while True:
            try:
                await self._paced(job)
                answer = await self._post(job)
            finally:
                self.slots.release_on_behalf_of(job)
            if self.slots.total_tokens != self.throttle.slots:
                self.slots.total_tokens = self.throttle.slots
            wait = self._settle(job, answer)
            if wait is None or self.stopping:
                return
            self.waiting += 1
            try:
                await asyncio.sleep(wait)
                await self.slots.acquire_on_behalf_of(job)
            finally:
                self.waiting -= 1
                self.changed.set()

    async def _paced(self, job: _Job) -> None:
        """Until the rates allow another request."""
        assert self.loop is not None
        now = self.loop.time()
        waits = [p.reserve(n, now) for p, n in zip(self.pacers, (1.0, _tokens(job.conversation)), strict=True) if p]
        if any(waits):
            await asyncio.sleep(max(waits))

    async def _post(self, job: _Job) -> Reply | Fault:
        import anyio

        body = self.parameters.applied(self.chat.body(job.conversation))
        job.tries += 1
        self.meter.requests += 1
        task = asyncio.current_task()
        assert task is not None
        self.posting.add(task)
        try:
            with anyio.fail_after(self.chat.timeout):
                raw = await self.client.post("/chat/completions", cast_to=bytes, body=body)
        except UnicodeEncodeError:
            return Fault(BAD, "the text holds half of a surrogate pair, which no request can carry", answered=False)
        except Exception as e:
            if not _of_the_server(e):
                raise
            return fault_of(e, self.chat.model, self.chat.url)
        finally:
            self.posting.discard(task)
        return read_reply(job.index, raw, self.chat.model, self.chat.url)

    def _settle(self, job: _Job, answer: Reply | Fault) -> float | None:
        """Hand a reply on, or say in how many seconds to try again."""
        if isinstance(answer, Fault):
            return self._failed(job, answer)
        self.answered = True
        self.throttle.note(rejected=False)
        if answer.finish_reason == UNREADABLE:
            self.meter.last_fault = f"an answer without a text: {redact((answer.text or 'an empty one')[:60])}"
            if self.source.keep(answer):
                return self._retry(job, None)
            self.source.give(Reply(job.index, None, UNREADABLE))
            return None
        self.replies += 1
        used = sum(answer.usage.values())
        if used and (pacer := self.pacers[1]) and self.loop:
            pacer.reserve(used - _tokens(job.conversation), self.loop.time())
        self.source.give(answer)
        return None

    def _failed(self, job: _Job, fault: Fault) -> float | None:
        self.answered |= fault.answered
        self.throttle.note(rejected=fault.rejected)
        self.meter.last_fault = fault.message
        where = redact(self.chat.url)
        if fault.kind == FATAL:
            self._stop(WorkError(f"{fault.message}; what arrived before is kept"))
        elif fault.kind == FILTER_REFUSED:
            self.replies += 1
            self.source.give(Reply(job.index, None, FILTERED))
        elif fault.kind == PARAMETER and self._adapt(job, fault):
            return 0.0
        elif fault.kind in (BAD, PARAMETER):
            self.bad += 1
            if self.bad >= _FRUITLESS and not (self.replies or self.meter.from_cache):
                self._stop(WorkError(f"the server at {where} rejects the requests ({fault.message})"))
            else:
                self.source.give(Reply(job.index, None, ERROR))
        elif fault.kind == NO_CHAT and not self.replies and (self.no_chat or job.tries > 1):
            self._stop(WorkError(f"{fault.message}; is the address right? Most end in /v1"))
        else:
            self.no_chat += fault.kind == NO_CHAT
            return self._again(job, fault, where)
        return None

    def _adapt(self, job: _Job, fault: Fault) -> bool:
        """Whether another try can do without the parameter at fault, or call it otherwise."""
        job.adapted += 1
        if job.adapted > len(self.parameters.names) + 1 or not self.parameters.adapt(fault):
            return False
        self.meter.about["adapted"] = {n: theirs or None for n, theirs in self.parameters.names.items() if n != theirs}
        return True

    def _again(self, job: _Job, fault: Fault, where: str) -> float | None:
        """Try again later, unless there is no hope."""
        if not self.answered and job.tries >= min(_FRUITLESS, self.chat.max_retries + 1):
            self._stop(
                WorkError(
                    f"the server at {where} does not answer ({fault.message}); is it up, and is that its address?"
                )
            )
        elif job.tries > self.chat.max_retries or (fault.whole and job.tries > 2):
            if self.replies == job.replies_before:  # nobody else got through either
                self._stop(
                    WorkError(
                        f"the server at {where} stopped answering: {job.tries} tries of one request failed, and all "
                        f"others meanwhile ({fault.message}); what arrived is kept, run the same command again to go on"
                    )
                )
            else:
                self.source.give(Reply(job.index, None, ERROR))
        else:
            return self._retry(job, fault.retry_after)
        return None

    def _retry(self, job: _Job, retry_after: float | None) -> float | None:
        if self.retries >= max(100, 8 * self.chat.concurrency) + self.chat.retry_share * self.replies:
            self._stop(
                WorkError(
                    f"the server at {redact(self.chat.url)} fails too often: {self.retries} retries for {self.replies} "
                    f"replies (last: {self.meter.last_fault}); what arrived is kept, run the same command again to go "
                    "on"
                )
            )
            return None
        self.retries += 1
        self.meter.retries += 1
        return backoff(job.tries, retry_after, self.draw)


_HTTP = ("aiohttp", "httpx", "httpcore", "httpx_aiohttp", "anyio", "h11")  # what the client stands on


def _of_the_server(error: Exception) -> bool:
    """Whether it is the way to the server, or the server, that failed."""
    import openai

    known = isinstance(error, openai.OpenAIError | TimeoutError | OSError)
    return known or type(error).__module__.partition(".")[0] in _HTTP


def _tokens(conversation: Conversation) -> float:
    """Of a request and its reply, about: a rewrite is about as long as the text."""
    return 2 * sum(len(turn["content"]) for turn in conversation) / CHARACTERS_PER_TOKEN


# --- how fast: plain arithmetic on times handed in (seconds, any clock) ----------------------------------


@dataclass
class Pacer:
    """Keeps a rate: each amount is given its time, one after the other.

    Parameters
    ----------
    rate
        Units a second (requests, tokens).
    burst
        Seconds of the rate that may be caught up on after a pause; servers count over short windows too.

    Examples
    --------
    >>> pacer = Pacer(rate=10.0, burst=0.0)
    >>> pacer.reserve(1, now=0.0), pacer.reserve(1, now=0.05)
    (0.0, 0.05)
    """

    rate: float
    burst: float = 0.1
    _next: float = float("-inf")

    def reserve(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be spent; what was taken too much is given back with a negative one."""
        start = max(self._next, now - self.burst)
        self._next = start + amount / self.rate
        return max(0.0, start - now)


@dataclass
class Throttle:
    """Adaptive concurrency: falls by the share of requests that the server turned away (429), and recovers.

    It looks at as many results as requests may be under way. A few 429s among them (one in ten) are no sign of
    overload and change nothing: halving at each, as TCP does, would leave a handful of slots.

    Examples
    --------
    >>> throttle = Throttle(most=64)
    >>> for _ in range(64): throttle.note(rejected=True)
    >>> throttle.slots
    1
    """

    most: int
    limit: float = 0.0
    _results: int = 0
    _rejected: int = 0

    def __post_init__(self) -> None:
        self.limit = float(self.most)

    @property
    def slots(self) -> int:
        """Requests that may be under way."""
        return int(self.limit)

    def note(self, rejected: bool) -> None:
        """Take in one result."""
        self._results += 1
        self._rejected += rejected
        if self._results >= max(8.0, self.limit):
            share = self._rejected / self._results
            if share > 0.1:
                self.limit = max(1.0, self.limit * (1 - share))
            else:
                self.limit = min(float(self.most), self.limit * 1.1 + 1)
            self._results = self._rejected = 0


def backoff(attempt: int, retry_after: float | None, draw: random.Random, longest: float = 60.0) -> float:
    """Seconds to wait before try number `attempt` + 1: the server's wish, else 0.5, 1, 2, ... s with jitter.

    Examples
    --------
    >>> backoff(1, retry_after=3.0, draw=random.Random(0)) >= 3.0
    True
    """
    if retry_after is not None:
        return retry_after * (1 + 0.1 * draw.random()) + 0.05 * draw.random()
    return min(longest, 0.5 * 2 ** (attempt - 1)) * (0.5 + draw.random() / 2)
