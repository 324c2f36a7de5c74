"""Replies on disk, written before they are handed on, so that no paid reply is lost.

Example line of a shard (see `record_of`)::

    {"check": "5f1c22a90b7d3e84", "key": "9f8a...", "model": "gpt-4o-mini",
     "params": "max_tokens=2048,temperature=0.7", "template": "1b2c3d4e",
     "attribute": "length", "phrase": "longer", "messages": [{"role": "user", "content": "Adjust this ..."}],
     "text": "A longer text.", "finish_reason": "stop", "usage": {"prompt": 61, "completion": 9},
     "earlier": {"prompt": 0, "completion": 0}, "estimated": false, "tries": 1,
     "created": "2026-05-04T10:11:12Z"}

The key is a hash of model, parameters and messages: another template, text or model is another key, so that nothing
in a folder can be taken for what it is not. Where a key is there twice the latest line counts; its `earlier` holds the
tokens of those before it, so that nothing that was paid for is forgotten. An answer in which no text could be found
has the `finish_reason` "unreadable" and is kept as it came, in `text`. How a record is stored is told in `store`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratekit.fingerprints import code_print
from ratekit.rewriting.base import Reply
from ratekit.rewriting.replies import reread
from ratekit.schema import Conversation
from ratekit.store import Store


class Cache(Store):
    """The replies in a folder, by key.

    Parameters
    ----------
    folder
        Where they are; it is made where there is none.

    Raises
    ------
    InputError
        Where the folder cannot be made or read.
    WorkError
        Where it cannot be written (a full or read-only disk); what is in it is kept.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Cache(folder).put("k1", {"text": "hello"})
    >>> Cache(folder).get("k1")
    {'key': 'k1', 'text': 'hello'}
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, "replies", fault_of_record)

    def templates(self) -> set[str]:
        """The hashes of the templates that the shards begin with."""
        return {record["template"] for record in self.first_records() if record.get("template")}


def key_of(fingerprint: str, content: Any) -> str:
    """The address of a reply: what was asked of whom.

    Examples
    --------
    >>> key_of("model-a", "x") == key_of("model-a", "x") != key_of("model-b", "x")
    True
    """
    text = json.dumps([fingerprint, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fingerprint_of(model: Any) -> str:
    """What tells this model's replies from another's.

    Its `fingerprint` where it has one; else its name and its `code_print`. A model whose replies depend on more than
    that should carry a `fingerprint`.

    Examples
    --------
    >>> fingerprint_of(lambda texts: 1) == fingerprint_of(lambda texts: 2)
    False
    """
    given = getattr(model, "fingerprint", None)
    if given is not None:
        return str(given)
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__qualname__}:{code_print(model)}"


def record_of(
    *,
    model: str,
    params: str,
    template: str,
    attribute: str,
    phrase: str,
    messages: Conversation,
    text: str | None,
    finish_reason: str,
    usage: Mapping[str, int],
    logprobs: str = "",
) -> dict[str, Any]:
    """One reply as it is stored; every field always has one type, so that `datasets` reads shards together."""
    return {
        "model": model,
        "params": params,
        "template": template,
        "attribute": attribute,
        "phrase": phrase,
        "messages": messages,
        "text": text or "",
        "finish_reason": finish_reason,
        "usage": {"prompt": usage.get("prompt", 0), "completion": usage.get("completion", 0)},
        "logprobs": logprobs,
        "earlier": {"prompt": 0, "completion": 0},
        "estimated": False,
        "tries": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def reply_in(record: Mapping[str, Any]) -> Reply:
    """The reply that a record holds, as it would be read today."""
    usage, logprobs = record.get("usage") or {}, record.get("logprobs") or ""
    return reread(Reply(0, record.get("text"), str(record.get("finish_reason")), usage, logprobs))


def spent_on(record: Mapping[str, Any]) -> dict[str, int]:
    """Tokens paid for a key: of its latest reply and of those before."""
    usage, earlier = record.get("usage") or {}, record.get("earlier") or {}
    return {name: usage.get(name, 0) + earlier.get(name, 0) for name in ("prompt", "completion")}


_TEXTS = ("model", "params", "template", "attribute", "phrase", "text", "finish_reason", "logprobs", "created")


def fault_of_record(record: Mapping[str, Any]) -> str | None:
    """What is wrong with the types of a record's fields; None for a sound one.

    Examples
    --------
    >>> fault_of_record({"key": "k", "text": ["a"]})
    "'text' is a list, not a text"
    """
    for name in _TEXTS:
        if not isinstance(record.get(name, ""), str):
            return f"{name!r} is a {type(record[name]).__name__}, not a text"
    for name in ("usage", "earlier"):
        counts = record.get(name, {})
        if not isinstance(counts, dict) or not all(type(n) is int and 0 <= n < 2**40 for n in counts.values()):
            return f"{name!r} does not hold counts of tokens"
    if type(record.get("tries", 0)) is not int:
        return "'tries' is no number"
    turns = record.get("messages", [])
    if not isinstance(turns, list) or not all(
        isinstance(t, dict) and isinstance(t.get("role"), str) and isinstance(t.get("content"), str) for t in turns
    ):
        return "'messages' is no conversation"
    return None


def default_cache() -> Path:
    """Where replies are kept if no folder is given: $RATEKIT_CACHE, else ~/.cache/ratekit/rewrites."""
    given = os.environ.get("RATEKIT_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ratekit" / "rewrites"
