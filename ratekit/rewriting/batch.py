"""The OpenAI Batch API as a chat: half the price, an answer within a day, and a run that may end in between.

What is under way is in a journal beside the cache, written before or the moment that the server says so. A process
that was stopped, or another one days later, goes on from there: the call with the same texts waits for the batches
that hold them and sends only what is in none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ratekit.errors import WorkError, require_whole, shorten
from ratekit.redaction import Address, redact
from ratekit.rewriting.base import ERROR, FILTERED, Reply
from ratekit.rewriting.cache import key_of
from ratekit.rewriting.openai_chat import OpenAIChat, Parameters
from ratekit.rewriting.options import Sampling, require_positive
from ratekit.rewriting.replies import (
    FATAL,
    FILTER_REFUSED,
    PARAMETER,
    RETRY,
    fault_of,
    fault_of_status,
    read_reply,
)
from ratekit.schema import Conversation

log = logging.getLogger("ratekit")

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
FINAL = ("completed", "failed", "expired", "cancelled")
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000  # what one file may hold
_FRUITLESS = 3  # rounds without one reply after which it gives up
UNREACHABLE = 20  # looks in a row that fail before it gives up


@dataclass(frozen=True)
class BatchChat(Sampling):
    """A chat over the OpenAI Batch API.

    Parameters
    ----------
    model
        The model's name at the server.
    folder
        Of the journal; `make_rewriter` takes one in the cache.
    base_url
        As that of `OpenAIChat`.
    poll
        Seconds between two looks at the batches.
    max_requests, max_bytes
        Of one file; more is split.

    Raises
    ------
    InputError
        Where a parameter is out of its range, or there is no key.
    WorkError
        Where a batch fails as a whole (its errors are shown), every request is rejected, the key is refused, or the
        server stays away; the journal keeps what is under way.

    Notes
    -----
    Besides these its parameters are those of `Sampling`. Its replies and those of `openai:` with the same model and
    parameters are the same to the cache. A batch that expired or was cancelled gives what it has, and only the rest is
    sent again; so are the requests of a batch that the server has no more. A parameter that the model does not take is
    left out, or called as the server asks for, and what was rejected for it is sent again.

    Examples
    --------
    >>> chat = BatchChat("gpt-4o-mini", "rewrites/batches")
    >>> replies = list(chat([[{"role": "user", "content": "Hello"}]]))  # doctest: +SKIP
    """

    model: str
    folder: str | Path
    base_url: str | None = None
    poll: float = field(default=30.0, kw_only=True)
    max_requests: int = field(default=MAX_REQUESTS, kw_only=True)
    max_bytes: int = field(default=MAX_BYTES, kw_only=True)

    paid = True
    window_hours = 24.0  # in which the server promises to be done with a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "poll")
        require_whole("max_requests", self.max_requests, 1)
        require_whole("max_bytes", self.max_bytes, 1)
        if self.base_url is not None:
            object.__setattr__(self, "base_url", Address(self.base_url))
        _ = self.online  # checks the address

    @property
    def online(self) -> OpenAIChat:
        """The chat that would ask for the same at once."""
        return OpenAIChat(self.model, self.base_url, **{f.name: getattr(self, f.name) for f in fields(Sampling)})

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

        self.online = self.chat.online
        self.client = openai.OpenAI(**self.online.client_settings(), max_retries=5, timeout=600.0)
        fingerprint = f"{self.chat.model}|{self.chat.params}"
        for i, conversation in enumerate(self.conversations):
            self.wanted.setdefault(key_of(fingerprint, conversation), []).append(i)
        self.journal = Journal(Path(self.chat.folder).expanduser() / "journal.jsonl")
        self.parameters = Parameters(self.online)
        self.parameters.names.update(self.journal.parameters(self.chat.model))
        self.failures: list[str] = []
        self.rejected: list[str] = []
        self.said = ""  # of the last request that is sent again
        self.made = self.journal.made()

    def replies(self) -> Iterator[Reply]:
        under_way = self._found()
        fruitless = 0
        while self.wanted:
            held = {key for batch in under_way for key in batch.keys}
            under_way += self._submit([key for key in self.wanted if key not in held])
            got, names = 0, dict(self.parameters.names)
            for batch in self._ended(under_way):
                for reply in self._collect(batch):
                    got += 1
                    yield reply
                for name, theirs in self.parameters.names.items():
                    if theirs != names[name]:
                        self.journal.note("", "parameter", model=self.chat.model, name=name, theirs=theirs)
                self.journal.note(batch.token, "done", made=self.made)
            under_way = []
            if self.failures:
                raise WorkError(f"a batch failed as a whole: {self.failures[0]}; what the others gave is kept")
            if self.rejected:
                log.warning("batch: %d requests were rejected; the first: %s", len(self.rejected), self.rejected[0])
                if not self.made:
                    raise WorkError(f"batch: the server rejects the requests ({self.rejected[0]})")
                self.rejected = []
            fruitless = 0 if got or names != self.parameters.names else fruitless + 1
            if fruitless >= _FRUITLESS:
                raise WorkError(
                    f"{_FRUITLESS} rounds of batches gave no reply for the last {len(self.wanted)} requests"
                    f"{f' (the server: {self.said})' if self.said else ''}; what arrived is kept, run the same command "
                    "again to go on"
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
            body = self.parameters.applied(self.online.body(self.conversations[self.wanted[key][0]]))
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
            name = f"ratekit-{batch.token}.jsonl"
            uploaded = self._known(self.client.files.create(file=(name, f), purpose="batch"))
            self.journal.note(batch.token, "file", id=uploaded.id)
            batch.batch_id = self._create(batch.token, uploaded.id)
        self.journal.note(batch.token, "batch", id=batch.batch_id)
        return batch

    def _create(self, token: str, file_id: str) -> str:
        """Make the batch, once: where the answer is lost it is looked for before it is asked for again."""
        import openai

        for wait in (1.0, 4.0, 16.0, None):
            try:
                made = self._known(self.client.with_options(max_retries=0).batches.create(
                    input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={"ratekit": token}
                ))  # fmt: skip
                return str(made.id)
            except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as e:
                found = self._listed([token]).get(token)
                if found is not None:
                    return found
                if wait is None or getattr(e, "code", None) == "insufficient_quota":
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _known(self, answer: Any) -> Any:
        """A file or a batch that a server tells of. Raises WorkError for whatever else it answers with status 200."""
        if isinstance(getattr(answer, "id", None), str):
            return answer
        said = answer if isinstance(answer, str) else answer.to_json(indent=None)
        raise WorkError(
            f"batch: the server at {redact(self.online.url)} answers with something else than a file or a batch "
            f"({shorten(redact(said), 60)}); has it a Batch API?"
        )

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
        """Each batch once it has a final status; one that the server has no more is noted and left out."""
        import openai

        waiting, missed = list(batches), 0
        while waiting:
            for batch in list(waiting):
                try:
                    with self._asking():
                        try:
                            now = self._known(self.client.batches.retrieve(str(batch.batch_id)))
                        except openai.NotFoundError:
                            waiting.remove(batch)
                            self._lost(batch, "the batch")
                            continue
                except WorkError as e:
                    missed += 1
                    if not isinstance(e.__cause__, _Later) or missed >= UNREACHABLE:
                        raise
                    continue
                missed = 0
                if now.status in FINAL:
                    waiting.remove(batch)
                    batch.ended = now
                    yield batch
            if waiting:
                time.sleep(self.chat.poll)

    def _lost(self, batch: Batch, what: str) -> None:
        log.warning(
            "batch: the server has %s %s no more (another key or project, or deleted there); its %d requests are sent "
            "again where they are still wanted", what, batch.batch_id, len(batch.keys),
        )  # fmt: skip
        self.journal.note(batch.token, "done")

    def _collect(self, batch: Batch) -> Iterator[Reply]:
        """The replies of an ended batch that are wanted; what it has not answered stays wanted."""
        import openai

        ended = batch.ended
        log.info("batch: %s is %s", batch.batch_id, ended.status)
        if ended.status == "failed":
            errors = [redact(e.message or e.code) for e in (ended.errors.data if ended.errors else None) or []]
            self.failures.append(shorten("; ".join(errors) or "no reason given", 200))
        for file_id in (ended.output_file_id, ended.error_file_id):
            if file_id:
                with self._asking():
                    try:
                        yield from self._read(file_id)
                    except openai.NotFoundError:
                        self._lost(batch, f"the file {file_id} of")

    def _read(self, file_id: str) -> Iterator[Reply]:
        with self.client.files.with_streaming_response.content(file_id) as content:
            for line in _lines(content.iter_bytes()):
                try:
                    answer = json.loads(line)
                    key = answer["custom_id"]
                    reply = self._reply(answer) if key in self.wanted else None
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                    if line.strip():
                        self.said = f"no answer is {shorten(redact(line.decode('utf-8', 'replace')), 60)}"
                    continue
                if reply is not None:
                    self.made += reply.finish_reason != ERROR
                    indices = self.wanted.pop(key)
                    yield Reply(indices[0], reply.text, reply.finish_reason, reply.usage)
                    for i in indices[1:]:  # asked for once, needed more than once
                        yield Reply(i, reply.text, reply.finish_reason, {"prompt": 0, "completion": 0})

    def _reply(self, answer: dict[str, Any]) -> Reply | None:
        """The reply in a line of an output or error file; None where it is to be asked for again."""
        response, error = answer.get("response") or {}, answer.get("error") or {}
        response = response if isinstance(response, Mapping) else {"body": response}
        error = error if isinstance(error, Mapping) else {"message": str(error)}
        status, body = response.get("status_code"), response.get("body") or {"error": error}
        if status == 200:
            found = read_reply(0, json.dumps(body), self.chat.model, self.online.url)
            if isinstance(found, Reply):
                return found
            fault = found
        else:
            body = body if isinstance(body, Mapping) else {"message": str(body)}
            fault = fault_of_status(int(status or 500), body, {}, self.chat.model, self.online.url)
        if fault.kind == RETRY or error.get("code") in ("batch_expired", "batch_cancelled"):
            self.said = fault.message
            return None
        if fault.kind == PARAMETER and self.parameters.adapt(fault):
            return None
        if fault.kind == FILTER_REFUSED:
            return Reply(0, None, FILTERED, {"prompt": 0, "completion": 0})
        self.rejected.append(fault.message)
        return Reply(0, None, ERROR)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what the client raises into one line that says what is wrong and that the journal has the rest."""
        import openai

        try:
            yield
        except openai.OpenAIError as e:
            fault = fault_of(e, self.chat.model, self.online.url)
            message = fault.message.replace("has no chat completions", "has no Batch API")
            if fault.kind == FATAL:
                raise WorkError(f"batch: {message}") from None
            raise WorkError(
                f"batch: {message}; what is under way is in the journal, run the same command again to go on"
            ) from (None if fault.kind != RETRY else _Later())


class _Later(Exception):
    """The server, or the way to it, failed for now."""


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that comes in parts; only a line feed ends one, for a reply may hold other ends of lines."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    yield rest


# --- the journal -----------------------------------------------------------------------------------------


@dataclass
class Batch:
    """The requests that went out together, under our token and, once the server said so, its id."""

    token: str
    keys: list[str]
    batch_id: str | None = None
    done: bool = False
    ended: Any = field(default=None, repr=False)  # as the server described it when it had ended


class Journal:
    """What batches are under way, on disk: one JSON line per event (`intent`, `file`, `batch`, `done`, `parameter`).

    Raises
    ------
    WorkError
        Where the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise WorkError(f"the folder {path.parent} cannot be written: {e.strerror}") from None

    def note(self, token: str, event: str, **more: Any) -> None:
        """Add an event; it is on the disk when this returns."""
        line = json.dumps({"token": token, "event": event, **more}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as f:
                f.write(line)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise WorkError(f"{self.path} cannot be written: {e.strerror}") from None

    def _events(self) -> Iterator[dict[str, Any]]:
        """The events in order; a torn or damaged line is passed over."""
        raw = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for line in raw:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict) and isinstance(event.get("token"), str):
                yield event

    def unfinished(self) -> list[Batch]:
        """The batches that were meant to go out and whose replies were not collected."""
        batches: dict[str, Batch] = {}
        for event in self._events():
            token, kind = event["token"], event.get("event")
            if kind == "intent" and isinstance(keys := event.get("keys"), list):
                batches[token] = Batch(token, [key for key in keys if isinstance(key, str)])
            elif token in batches and kind == "batch" and isinstance(event.get("id"), str):
                batches[token].batch_id = event["id"]
            elif token in batches and kind == "done":
                batches[token].done = True
        return [batch for batch in batches.values() if not batch.done]

    def made(self) -> int:
        """How many replies the batches gave so far."""
        return max((e["made"] for e in self._events() if isinstance(e.get("made"), int)), default=0)

    def parameters(self, model: str) -> dict[str, str]:
        """What the parameters are called that this model does not take by their own name; "" leaves one out."""
        found = [e for e in self._events() if e.get("event") == "parameter" and e.get("model") == model]
        return {str(e.get("name")): str(e.get("theirs") or "") for e in found}
