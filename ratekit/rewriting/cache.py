"""Replies on disk, written before they are handed on, so that no paid reply is lost.

A cache is a folder of JSON Lines shards, one per process that wrote to it, that `datasets` reads as they are::

    datasets.load_dataset("json", data_files="rewrites/*.jsonl")

Each line is `{"key", "model", "text", "finish_reason", "usage"}`; the key is a hash of model, parameters and messages.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, WorkError
from ratekit.rewriting.base import Chat, Reply
from ratekit.schema import Conversation


def key_of(fingerprint: str, content: Any) -> str:
    """The address of a reply: what was asked of whom.

    >>> key_of("model-a", "x") == key_of("model-a", "x") != key_of("model-b", "x")
    True
    """
    text = json.dumps([fingerprint, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Cache:
    """An append-only store of records by key, shared by any number of processes.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Cache(folder).put("k1", {"text": "hello"})
    >>> Cache(folder).get("k1")
    {'key': 'k1', 'text': 'hello'}
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.is_file():
            raise InputError(f"the cache {self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"the cache folder {self.folder} cannot be made: {e.strerror}") from None
        self.records = {r["key"]: r for shard in sorted(self.folder.glob("*.jsonl")) for r in _records(shard)}
        self._shard = self.folder / f"replies-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def get(self, key: str) -> dict[str, Any] | None:
        """The record under `key`, if there is one."""
        return self.records.get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Write a record to disk; it is there when this returns."""
        record = {"key": key, **record}
        try:
            with self._shard.open("a", encoding="utf-8") as f:
                f.write(json.dumps(record, ensure_ascii=True) + "\n")
        except OSError as e:
            raise WorkError(f"the cache {self._shard} cannot be written: {e.strerror}; what is in it is kept") from None
        self.records[key] = record


def _records(shard: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a shard; a line torn by a crash is passed over and will be asked for again."""
    with shard.open(encoding="utf-8", errors="replace") as f:
        for line in f:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and isinstance(record.get("key"), str):
                yield record


KEPT = ("stop", "length", "content_filter")  # a reply that was made and paid for, whatever it is worth


def cached(chat: Chat, cache: Cache, fingerprint: str) -> Chat:
    """A chat that asks only for what the cache does not hold, and once for what is asked for twice."""

    def ask(conversations: list[Conversation]) -> Iterator[Reply]:
        waiting: dict[str, list[int]] = {}
        for i, conversation in enumerate(conversations):
            key = key_of(fingerprint, conversation)
            record = cache.get(key)
            if record is not None:
                yield Reply(i, record["text"], record["finish_reason"], {})
            else:
                waiting.setdefault(key, []).append(i)
        keys = list(waiting)
        for reply in chat([conversations[waiting[key][0]] for key in keys]):
            key = keys[reply.index]
            if reply.finish_reason in KEPT:
                cache.put(
                    key,
                    {
                        "model": fingerprint,
                        "text": reply.text,
                        "finish_reason": reply.finish_reason,
                        "usage": dict(reply.usage),
                    },
                )
            for i in waiting[key]:
                yield replace(reply, index=i)

    return ask
