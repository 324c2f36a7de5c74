"""The OpenAI Batch API as a chat: half the price, an answer within a day, and a run that may end in between.

What is under way is in a journal beside the cache (journal.py), written before or the moment that the server says so.
A process that was stopped, or another one days later, goes on from there: the call with the same texts waits for the
batches that hold them and sends only what is in none.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ratekit.errors import InputError, WorkError, shorten
from ratekit.rewriting.base import Reply
from ratekit.rewriting.faults import FATAL, UnusableAnswer, fault_of, without_secrets
from ratekit.rewriting.journal import Batch, Journal
from ratekit.rewriting.openai_chat import OpenAIChat
from ratekit.rewriting.records import key_of
from ratekit.rewriting.replies import reply_of
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
FINAL = ("completed", "failed", "expired", "cancelled")
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000  # what one file may hold
FRUITLESS = 3  # rounds without one reply after which it gives up
UNREACHABLE = 20  # looks in a row that fail before it gives up


@dataclass(frozen=True)
class BatchChat:
    """A chat over the OpenAI Batch API.

    >>> chat = BatchChat("gpt-4o-mini", "rewrites/batches")
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP

    folder       of the journal; `make_rewriter` takes one in the cache
    poll         seconds between two looks at the batches
    max_requests, max_bytes  of one file; more is split

    Its replies and those of `openai:` with the same model and parameters are the same to the cache. A batch that
    expired or was cancelled gives what it has, and only the rest is sent again. WorkError where a batch fails as a
    whole (its errors are shown), the key is refused, or the server stays away; the journal keeps what is under way.
    """

    model: str
    folder: str | Path
    base_url: str | None = None
    max_tokens: int = 2048
    temperature: float = 0.7
    seed: int | None = None
    poll: float = 30.0
    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES

    paid = True
    window_hours = 24.0  # in which the server promises to be done with a batch

    def __post_init__(self) -> None:
        for name in ("max_tokens", "poll", "max_requests", "max_bytes"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}: a positive number was expected")
        _ = self._chat  # checks the rest

    @property
    def _chat(self) -> OpenAIChat:
        return OpenAIChat(self.model, self.base_url, self.max_tokens, self.temperature, self.seed)

    @property
    def params(self) -> str:
        """As those of `OpenAIChat`."""
        return self._chat.params

    def __call__(self, conversations: list[Conversation]) -> Iterator[Reply]:
        """Replies as the batches end."""
        if conversations:
            yield from _Work(self, conversations).replies()


@dataclass
class _Work:
    """One call: the texts still wanted, the batches that hold them, the journal."""

    chat: BatchChat
    conversations: list[Conversation]
    wanted: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import openai

        chat = self.chat
        self.client = openai.OpenAI(api_key=chat._chat.key(), base_url=chat.base_url, max_retries=5, timeout=600.0)
        fingerprint = f"{chat.model}|{chat.params}"
        for i, conversation in enumerate(self.conversations):
            self.wanted.setdefault(key_of(fingerprint, conversation), []).append(i)
        self.journal = Journal(Path(chat.folder).expanduser() / "journal.jsonl")
        self.failures: list[str] = []

    def replies(self) -> Iterator[Reply]:
        under_way = self._found()
        fruitless = 0
        while self.wanted:
            held = {key for batch in under_way for key in batch.keys}
            under_way += self._submit([key for key in self.wanted if key not in held])
            got = 0
            for batch in self._ended(under_way):
                for reply in self._collect(batch):
                    got += 1
                    yield reply
                self.journal.note(batch.token, "done")
            under_way = []
            if self.failures:
                raise WorkError(f"a batch failed as a whole: {self.failures[0]}; what the others gave is kept")
            fruitless = 0 if got else fruitless + 1
            if fruitless >= FRUITLESS:
                raise WorkError(
                    f"{FRUITLESS} rounds of batches gave no reply for the last {len(self.wanted)} requests; "
                    "what arrived is kept, run the same command again to go on"
                )

    def _found(self) -> list[Batch]:
        """The batches of the journal that hold something wanted and were not collected yet."""
        found = [b for b in self.journal.unfinished() if any(key in self.wanted for key in b.keys)]
        lost = {b.token: b for b in found if b.batch_id is None}
        if lost:  # stopped between the request for a batch and its answer
            with self._asking():
                for token, batch_id in self._listed(lost).items():
                    lost[token].batch_id = batch_id
                    self.journal.note(token, "batch", id=batch_id)
        known = [b for b in found if b.batch_id is not None]
        if known:
            log.info("batch: going on with %d batches that are under way (%s)", len(known), self.journal.path)
        return known

    # --- sending ---

    def _submit(self, keys: list[str]) -> list[Batch]:
        sent = [self._send(part, lines) for part, lines in self._split(keys)]
        if sent:
            n = sum(len(batch.keys) for batch in sent)
            log.info(
                "batch: %d requests sent in %d batches; they may take a day. Stop whenever you like: the same command "
                "goes on with them (%s)", n, len(sent), self.journal.path,
            )  # fmt: skip
        return sent

    def _split(self, keys: list[str]) -> Iterator[tuple[list[str], list[bytes]]]:
        part: list[str] = []
        lines: list[bytes] = []
        size = 0
        for key in keys:
            body = self.chat._chat.body(self.conversations[self.wanted[key][0]])
            request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            line = json.dumps(request).encode() + b"\n"
            if part and (len(part) >= self.chat.max_requests or size + len(line) > self.chat.max_bytes):
                yield part, lines
                part, lines, size = [], [], 0
            part.append(key)
            lines.append(line)
            size += len(line)
        if part:
            yield part, lines

    def _send(self, keys: list[str], lines: list[bytes]) -> Batch:
        batch = Batch(uuid.uuid4().hex, keys)
        self.journal.note(batch.token, "intent", keys=keys)
        with self._asking(), tempfile.TemporaryFile() as f:
            f.writelines(lines)
            f.seek(0)
            uploaded = self.client.files.create(file=(f"ratekit-{batch.token}.jsonl", f), purpose="batch")
            self.journal.note(batch.token, "file", id=uploaded.id)
            batch.batch_id = self._create(batch.token, uploaded.id)
        self.journal.note(batch.token, "batch", id=batch.batch_id)
        return batch

    def _create(self, token: str, file_id: str) -> str:
        """Make the batch, once: where the answer is lost it is looked for before it is asked for again."""
        import openai

        for wait in (1.0, 4.0, 16.0, None):
            try:
                made = self.client.with_options(max_retries=0).batches.create(
                    input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={"ratekit": token}
                )
                return str(made.id)
            except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as e:
                found = self._listed([token]).get(token)
                if found is not None:
                    return found
                if wait is None or getattr(e, "code", None) == "insufficient_quota":
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _listed(self, tokens: Collection[str]) -> dict[str, str]:
        """The ids of those batches that the server has, by our token in their metadata."""
        found = {}
        for there in self.client.batches.list(limit=100):
            token = (there.metadata or {}).get("ratekit", "")
            if token in tokens:
                found[token] = str(there.id)
                if len(found) == len(tokens):
                    break
        return found

    # --- waiting and reading ---

    def _ended(self, batches: list[Batch]) -> Iterator[Batch]:
        """Each batch once it has a final status."""
        import openai

        waiting, missed = list(batches), 0
        while waiting:
            for batch in list(waiting):
                try:
                    with self._asking():
                        now = self.client.batches.retrieve(str(batch.batch_id))
                except WorkError as e:
                    missed += 1
                    if not isinstance(e.__cause__, openai.APIConnectionError | openai.InternalServerError):
                        raise
                    if missed >= UNREACHABLE:
                        raise
                    continue
                missed = 0
                if now.status in FINAL:
                    waiting.remove(batch)
                    yield batch
            if waiting:
                time.sleep(self.chat.poll)

    def _collect(self, batch: Batch) -> Iterator[Reply]:
        """The replies of an ended batch that are wanted; what it has not answered stays wanted."""
        with self._asking():
            ended = self.client.batches.retrieve(str(batch.batch_id))
        log.info("batch: %s is %s", batch.batch_id, ended.status)
        if ended.status == "failed":
            errors = [without_secrets(e.message or e.code) for e in (ended.errors.data if ended.errors else None) or []]
            self.failures.append(shorten("; ".join(errors) or "no reason given", 200))
        for file_id in (ended.output_file_id, ended.error_file_id):
            if file_id:
                with self._asking():
                    yield from self._read(file_id)

    def _read(self, file_id: str) -> Iterator[Reply]:
        with self.client.files.with_streaming_response.content(file_id) as content:
            for line in content.iter_lines():
                try:
                    answer = json.loads(line)
                    key = answer["custom_id"]
                except (ValueError, KeyError, TypeError):
                    continue
                if key in self.wanted and (reply := _reply(answer)) is not None:
                    indices = self.wanted.pop(key)
                    yield Reply(indices[0], reply.text, reply.finish_reason, reply.usage)
                    for i in indices[1:]:  # asked for once, needed more than once
                        yield Reply(i, reply.text, reply.finish_reason)

    def _asking(self) -> _Asking:
        return _Asking(self.chat)


class _Asking:
    """Turns what the client raises into one line that says what is wrong and that the journal has the rest."""

    def __init__(self, chat: BatchChat) -> None:
        self.chat = chat

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import openai

        if isinstance(error, openai.OpenAIError):
            fault = fault_of(error, self.chat.model, self.chat._chat.url)
            rest = "" if fault.kind == FATAL else "; what is under way is in the journal, run the same command again"
            raise WorkError(f"batch: {fault.message}{rest}") from error


def _reply(answer: dict[str, Any]) -> Reply | None:
    """The reply in a line of an output or error file; None where it is to be asked for again."""
    response = answer.get("response") or {}
    status = response.get("status_code")
    if status == 200:
        try:
            return reply_of(0, response.get("body"))
        except UnusableAnswer:
            return None
    code = str((answer.get("error") or {}).get("code") or "")
    if status is None or status in (408, 409, 429) or status >= 500 or code in ("batch_expired", "batch_cancelled"):
        return None
    return Reply(0, None, "error")
