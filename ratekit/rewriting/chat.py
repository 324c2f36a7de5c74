"""A rewriter made of a language model: the chat that asks it, and the judging of what it replies.

rewriter = ChatRewriter(OpenAIChat("gpt-4o-mini"), rk.ATTRIBUTES["length"])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from ratekit.attributes import Attribute
from ratekit.errors import InputError, WorkError, shorten
from ratekit.rewriting.base import FAILED, Chat, Reply, Rewrite, judge
from ratekit.rewriting.cache import Cache, cached
from ratekit.rewriting.prompts import TEMPLATE, checked, messages, template_hash
from ratekit.schema import Conversation


@dataclass(frozen=True)
class OpenAIChat:
    """A chat with any OpenAI-compatible server: OpenAI, vLLM, Ollama, `transformers serve`, a gateway.

    >>> chat = OpenAIChat("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1")
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP

    The key comes from the environment (OPENAI_API_KEY); a local server needs none. Failed requests are retried
    by the client (connection, 408, 409, 429, 5xx; `max_retries` times, Retry-After obeyed); what fails all the
    same gives a reply with finish_reason "error". A wrong key or model raises WorkError at once.
    """

    model: str
    base_url: str | None = None
    max_tokens: int = 2048
    temperature: float = 0.7
    concurrency: int = 16
    timeout: float = 120.0
    max_retries: int = 5

    @property
    def fingerprint(self) -> str:
        """Model and parameters: what a reply depends on besides the messages."""
        return f"openai:{self.model},max_tokens={self.max_tokens},temperature={self.temperature}"

    def __call__(self, conversations: list[Conversation]) -> Iterator[Reply]:
        """Replies as they arrive."""
        if not conversations:
            return
        client = self._client()
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            futures = [pool.submit(self._ask, client, i, c) for i, c in enumerate(conversations)]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()

    def _client(self) -> Any:
        import os

        import openai

        key = os.environ.get("OPENAI_API_KEY")
        if key is None and self.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
            raise InputError("no OPENAI_API_KEY in the environment (a server of your own needs --base-url)")
        return openai.OpenAI(
            api_key=key or "none", base_url=self.base_url, timeout=self.timeout, max_retries=self.max_retries
        )

    def _ask(self, client: Any, index: int, conversation: Conversation) -> Reply:
        import openai

        try:
            answer = client.chat.completions.create(
                model=self.model,
                messages=conversation,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )
            choice = answer.choices[0]
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            raise WorkError(f"the server refused the key (status {e.status_code}); set OPENAI_API_KEY") from None
        except openai.NotFoundError:
            raise WorkError(f"the server has no model {self.model!r} at {client.base_url}") from None
        except openai.RateLimitError as e:
            if e.code == "insufficient_quota":
                raise WorkError("the account has no quota left (insufficient_quota)") from None
            return Reply(index, None, "error")
        except openai.APIConnectionError as e:
            raise WorkError(
                f"no answer from {client.base_url} after {self.max_retries + 1} tries ({shorten(e, 60)})"
            ) from None
        except (openai.OpenAIError, IndexError, TypeError, AttributeError, ValueError):
            return Reply(index, None, "error")
        usage = answer.usage
        tokens = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else {}
        text = choice.message.content if choice.message else None
        reason = "content_filter" if getattr(choice.message, "refusal", None) else choice.finish_reason
        return Reply(index, text, reason or "error", tokens)


@dataclass
class ChatRewriter:
    """A rewriter that asks a chat, one message per text, with the attribute's phrase for the target side.

    `template` has {phrase} and {response}; by default the attribute's own, else ratekit's. With `cache` each reply
    is on disk before it counts, and the same call again asks for nothing.
    """

    chat: Chat
    attribute: Attribute
    cache: Cache | None = None
    template: str = field(default="")

    def __post_init__(self) -> None:
        self.template = checked(self.template or self.attribute.template or TEMPLATE)

    @property
    def fingerprint(self) -> str:
        """The chat's model and parameters, and the template."""
        chat = getattr(self.chat, "fingerprint", type(self.chat).__qualname__)
        return f"{chat},template={template_hash(self.template)}"

    def __call__(self, texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        """Rewrite each text to its target side; a reply that is no rewrite gives None and its status."""
        conversations = [
            messages(self.template, self.attribute.phrase(target), text)
            for text, target in zip(texts, targets, strict=True)
        ]
        chat = self.chat if self.cache is None else cached(self.chat, self.cache, self.fingerprint)
        rewrites = [Rewrite(None, FAILED)] * len(texts)
        for reply in chat(conversations):
            rewrites[reply.index] = judge(reply, texts[reply.index])
        return rewrites
