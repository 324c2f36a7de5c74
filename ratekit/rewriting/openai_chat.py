"""A chat with any OpenAI-compatible server, as fast as it allows (engine.py does the work)."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ratekit.errors import InputError
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.engine import Run, Source
from ratekit.rewriting.faults import without_secrets
from ratekit.schema import Conversation


@dataclass(frozen=True)
class OpenAIChat:
    """A chat with any OpenAI-compatible server: OpenAI, vLLM, Ollama, `transformers serve`, a gateway.

    >>> chat = OpenAIChat("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1")
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP

    concurrency  requests under way at most; it falls when the server answers 429, and recovers
    rpm, tpm     requests and tokens a minute that the server allows, if known; they are kept to
    timeout      seconds for one request
    max_retries  for one request: connection, 408, 409, 429, 5xx, unusable answers; Retry-After is obeyed
    retry_share  retries that the run may make for each reply that comes; 8 for each slot to begin with

    The key comes from the environment (OPENAI_API_KEY); a local server needs none. A request that fails all the
    same gives a reply with finish_reason "error". WorkError at once for a wrong key, a model that is not there, an
    empty account, and a server that does not answer (any more).
    """

    model: str
    base_url: str | None = None
    max_tokens: int = 2048
    temperature: float = 0.7
    seed: int | None = None
    concurrency: int = 64
    rpm: float | None = None
    tpm: float | None = None
    timeout: float = 120.0
    max_retries: int = 8
    retry_share: float = 1.0

    paid = True  # its replies cost something, so they are kept even where nobody asked for a cache

    def __post_init__(self) -> None:
        for name in ("max_tokens", "concurrency", "rpm", "tpm", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}={value}: a positive number was expected")
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"the server's address {without_secrets(self.url)!r} does not begin with http:// or https://"
            )

    @property
    def params(self) -> str:
        """What a reply depends on besides the model and the messages."""
        seed = "" if self.seed is None else f",seed={self.seed}"
        return f"max_tokens={self.max_tokens},temperature={self.temperature}{seed}"

    @property
    def url(self) -> str:
        """The server's address."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"

    def body(self, conversation: Conversation) -> dict[str, Any]:
        """The request for one conversation."""
        given: dict[str, Any] = {
            "model": self.model,
            "messages": conversation,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        return given if self.seed is None else {**given, "seed": self.seed}

    def key(self) -> str:
        """The key from the environment; a server of one's own needs none. Raises InputError."""
        key = os.environ.get("OPENAI_API_KEY")
        if not key and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise InputError("no OPENAI_API_KEY in the environment (a server of your own needs --base-url)")
        return key or "none"

    def __call__(self, conversations: list[Conversation]) -> Iterator[Reply]:
        """Replies as they arrive."""
        replies: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        run = Run(self, _Listed(conversations, replies.put), on_end=lambda: replies.put(None))
        run.start()
        try:
            while (reply := replies.get()) is not None:
                yield reply
        finally:
            run.stop()
        run.check()

    def serve(self, source: Source, meter: Meter, tick: Callable[[], None] = lambda: None) -> None:
        """Answer what `source` asks until it is done; `tick` is called some times a second, in this thread.

        Raises what `source` raises, and WorkError. On KeyboardInterrupt what arrived has been given.
        """
        run = Run(self, source, meter)
        run.start()
        try:
            while run.thread.is_alive():
                run.thread.join(0.2)
                tick()
        finally:
            run.stop()
        run.check()


class _Listed:
    """A source of requests from a list."""

    def __init__(self, conversations: list[Conversation], give: Callable[[Reply], None]) -> None:
        self.requests = iter(enumerate(conversations))
        self.left = len(conversations)
        self.give = give

    def take(self) -> tuple[int, Conversation] | None:
        request = next(self.requests, None)
        self.left -= request is not None
        return request

    def done(self) -> bool:
        return self.left == 0
