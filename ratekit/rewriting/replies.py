"""What a server of chat completions answers, read into a `Reply`; it may be anything."""

from __future__ import annotations

import json
from typing import Any

from ratekit.rewriting.base import Reply
from ratekit.rewriting.faults import UnusableAnswer


def parse(index: int, raw: bytes | str) -> Reply:
    """The reply in the body of an answer. Raises UnusableAnswer.

    >>> parse(0, '{"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}')
    Reply(index=0, text='Hi.', finish_reason='stop', usage={'prompt': 0, 'completion': 0})
    """
    try:
        data = json.loads(raw)
    except ValueError:
        raise UnusableAnswer("the server's answer is not JSON") from None
    return reply_of(index, data)


def reply_of(index: int, data: Any) -> Reply:
    """The reply in a chat completion. Raises UnusableAnswer."""
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content")
        reason = choice.get("finish_reason")
        usage = data.get("usage") or {}
        tokens = {
            "prompt": int(usage.get("prompt_tokens") or 0),
            "completion": int(usage.get("completion_tokens") or 0),
        }
    except (LookupError, TypeError, AttributeError, ValueError):
        raise UnusableAnswer("the server's answer holds no reply") from None
    if not isinstance(text, str | None) or not isinstance(reason, str):
        raise UnusableAnswer("the server's answer holds no complete reply")
    if message.get("refusal"):
        reason = "content_filter"
    return Reply(index, text, _REASONS.get(reason, reason), tokens)


_REASONS = {
    "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop", "max_tokens": "length", "model_length": "length",
}  # fmt: skip
