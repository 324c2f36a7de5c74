"""What went wrong with a request, and whether asking again can mend it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ratekit.errors import shorten

FATAL = "fatal"  # the next request would fail alike: stop
RETRY = "retry"  # the server or the way to it: ask again later
BAD = "bad"  # this one request: give it up, go on with the others
REFUSED = "refused"  # the server's own filter turned the text away
OTHER_NAME = "max_completion_tokens"  # how newer models want `max_tokens` to be called

LONGEST_WAIT = 600.0  # seconds of Retry-After that are obeyed


@dataclass(frozen=True)
class Fault:
    """A failed request: its kind, a line for people, and what the retry has to know."""

    kind: str
    message: str
    rejected: bool = False  # 429: too fast
    answered: bool = True  # there was an HTTP answer at all
    retry_after: float | None = None


class UnusableAnswer(Exception):
    """A 200 whose body holds no reply: cut off, not JSON, without choices."""


def fault_of(error: BaseException, model: str, base_url: str) -> Fault:
    """The fault behind an exception of the client. Never holds the key or the texts."""
    import openai

    where = without_secrets(base_url)
    if isinstance(error, UnusableAnswer):
        return Fault(RETRY, str(error))
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, model, where)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Fault(RETRY, f"{where} did not answer in time, or dropped the connection", answered=False)
    cause = without_secrets(error.__cause__ or error)
    return Fault(RETRY, f"no connection to {where} ({shorten(cause, 80)})", answered=False)


def _of_status(error: Any, model: str, where: str) -> Fault:
    status = int(error.status_code)
    body = error.body if isinstance(error.body, Mapping) else {}
    code = str(body.get("code") or body.get("type") or "")
    said = body.get("message") or body.get("detail") or error.response.text or error.message
    said = shorten(without_secrets(said), 160)
    if status in (401, 403):
        return Fault(
            FATAL, f"the server at {where} refused the key (status {status}); set OPENAI_API_KEY to a valid one"
        )
    if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
        return Fault(FATAL, f"the account has no quota left ({code or status}); mend that, then run the command again")
    if status == 404 or code == "model_not_found":
        return Fault(FATAL, f"the server at {where} has no model {model!r} (status {status}: {said})")
    if status == 429:
        return Fault(RETRY, f"429: {said}", rejected=True, retry_after=retry_after(error.response.headers))
    if status in (408, 409) or status >= 500:
        return Fault(RETRY, f"{status}: {said}", retry_after=retry_after(error.response.headers))
    if code == "content_filter" or "content management policy" in said:
        return Fault(REFUSED, said)
    if status == 400 and OTHER_NAME in said:
        return Fault(OTHER_NAME, said)
    return Fault(BAD, f"{status}: {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date.

    >>> retry_after({"retry-after": "2"}), retry_after({}), retry_after({"retry-after": "soon"})
    (2.0, None, None)
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time()
            except (TypeError, ValueError):
                continue
        if seconds == seconds:
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return None


def without_secrets(text: object) -> str:
    """`text` without the key, and a URL in it without user, password and query.

    >>> without_secrets("http://me:secret@host:8000/v1?token=x")
    'http://host:8000/v1'
    """
    line = str(text)
    for name in ("OPENAI_API_KEY", "HF_TOKEN"):
        key = os.environ.get(name)
        if key and len(key) > 3:
            line = line.replace(key, "***")
    if line.startswith(("http://", "https://")) and " " not in line:
        parts = urlsplit(line)
        line = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return line
