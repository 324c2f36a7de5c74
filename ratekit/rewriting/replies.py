"""What a server of chat completions answers, read into a `Reply` or a `Fault`; it may be anything.

Example of an answer::

    {"choices": [{"message": {"content": "A longer text."}, "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 61, "completion_tokens": 9}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ratekit.errors import shorten
from ratekit.redaction import redact
from ratekit.rewriting.base import UNREADABLE, Reply
from ratekit.rewriting.options import Sampling

FATAL = "fatal"  # the next request would fail alike: stop
RETRY = "retry"  # the server or the way to it: ask again later
BAD = "bad"  # this one request: give it up, go on with the others
FILTER_REFUSED = "refused"  # a filter turned the text away
PARAMETER = "parameter"  # the server takes one of the parameters not, or under another name
NO_CHAT = "no_chat"  # a web page, a stream: not what this address is for

LONGEST_WAIT = 600.0  # seconds of Retry-After that are obeyed
_TOO_LONG = 3600.0  # seconds of it that are not waited for: the run ends, and says so
KEPT_RAW = 100_000  # characters of an unreadable answer that are kept
_MOST_TOKENS = 10**9  # a count beyond it is no count


@dataclass(frozen=True)
class Fault:
    """A failed request.

    Parameters
    ----------
    kind
        What can be done about it, one of the constants of this module.
    message
        A line for people, without secrets.
    rejected
        429: too fast.
    answered
        There was an HTTP answer at all.
    retry_after
        Seconds that the server asks to wait.
    parameter, other_name
        Of a request, that the server does not take; and what it is called there.
    whole
        The status was 200, so that to ask again and again helps no more than to ask thrice.
    """

    kind: str
    message: str
    rejected: bool = False
    answered: bool = True
    retry_after: float | None = None
    parameter: str = ""
    other_name: str = ""
    whole: bool = False


# --- a whole answer --------------------------------------------------------------------------------------


def read_reply(index: int, raw: bytes | str, model: str = "", address: str = "") -> Reply | Fault:
    """The reply in the body of an answer with status 200.

    Returns
    -------
    Reply or Fault
        A whole answer that holds no text has the `finish_reason` "unreadable" and the body as its text: it may have
        been paid for, and is kept as it is. A `Fault` is what was not made by a model: an error, a web page, a stream.

    Examples
    --------
    >>> read_reply(0, '{"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]}')
    Reply(index=0, text='Hi.', finish_reason='stop', usage={})
    >>> read_reply(0, "<html>Welcome</html>").kind
    'no_chat'
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
        if text.lstrip()[:1] == "<" or text.lstrip().startswith(("data:", "event:", ":")):
            shown = shorten(redact(text), 60)
            said = f"the server at {redact(address)} answers with something else than a reply: {shown}"
            return Fault(NO_CHAT, said, whole=True)
    reply = reply_of(index, data, text)
    if (error := _error_in(data)) and (reply.finish_reason == UNREADABLE or not reply.text):
        error = error if isinstance(error, Mapping) else {"message": str(error)}
        status = error.get("code") if isinstance(error.get("code"), int) else error.get("status")
        known = isinstance(status, int) and 400 <= status < 600
        fault = fault_of_status(int(status) if known else 200, {"error": error}, {}, model, address)  # type: ignore[arg-type]
        return replace(fault, whole=True)
    return reply


def _error_in(data: Any) -> Any:
    """The error that an answer tells of, or its first choice; None without one."""
    choices = data.get("choices") if isinstance(data, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else data
    return first.get("error") if isinstance(first, Mapping) else None


def reply_of(index: int, data: Any, raw: str = "") -> Reply:
    """The reply in a chat completion; one without a text is "unreadable" and has `raw` as its text."""
    try:
        choices = data["choices"]
        choice = next((c for c in choices if isinstance(c, Mapping) and c.get("index") == 0), choices[0])
        message = choice["message"] if isinstance(choice.get("message"), Mapping) else {"content": choice["text"]}
        text = _text(message.get("content"))
    except (LookupError, TypeError, AttributeError, ValueError):
        return Reply(index, raw[:KEPT_RAW], UNREADABLE, usage_of(data))
    reason = choice.get("finish_reason")
    reason = reason.get("type") if isinstance(reason, Mapping) else reason  # of SGLang
    if message.get("refusal"):
        reason = "content_filter"
    if not isinstance(reason, str) or reason == UNREADABLE:  # a word of our own
        reason = ""
    return Reply(index, text, reason, usage_of(data), _logprobs(choice))


def _logprobs(choice: Mapping[str, Any]) -> str:
    """The log-probabilities of a choice as JSON, tokens and numbers alone; "" where there are none."""
    try:
        tokens = [
            {**_token(said), "top_logprobs": [_token(one) for one in said.get("top_logprobs") or ()]}
            for said in choice["logprobs"]["content"]
        ]
    except (LookupError, TypeError, AttributeError, ValueError):
        return ""
    return json.dumps(tokens) if tokens else ""


def _token(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": str(said["token"]), "logprob": float(said["logprob"])}


def reread(reply: Reply) -> Reply:
    """A stored reply as it would be read today: an answer that could not be read may be by now."""
    if reply.finish_reason != UNREADABLE:
        return reply
    try:
        read_now = reply_of(reply.index, json.loads(reply.text or ""))
    except (ValueError, RecursionError):
        return Reply(reply.index, None, UNREADABLE, reply.usage)
    return read_now if read_now.finish_reason != UNREADABLE else Reply(reply.index, None, UNREADABLE, reply.usage)


def _text(content: Any) -> str | None:
    """The text of a message: a string, or the text parts of a list. Raises ValueError where there is neither."""
    if content is None or isinstance(content, str):
        return content
    parts = [
        {"text": part} if isinstance(part, str) else part
        for part in (content if isinstance(content, list) else [content])
    ]
    texts = [part["text"] for part in parts if part.get("type", "text") in ("text", "output_text")]
    silent = [part for part in parts if part.get("type") in ("thinking", "reasoning")]
    if not all(isinstance(text, str) for text in texts) or not (texts or silent):
        raise ValueError
    return "".join(texts)


def usage_of(data: Any) -> dict[str, int]:
    """Tokens in and out as far as the answer says so credibly; what is missing is left out.

    Examples
    --------
    >>> usage_of({"usage": {"prompt_tokens": 61, "completion_tokens": None}})
    {'prompt': 61}
    """
    usage = data.get("usage") if isinstance(data, Mapping) else None
    found: dict[str, int] = {}
    if isinstance(usage, Mapping):
        for ours, theirs in (
            ("prompt", ("prompt_tokens", "input_tokens")),
            ("completion", ("completion_tokens", "output_tokens")),
        ):
            for name in theirs:
                count = usage.get(name)
                if isinstance(count, int | float) and not isinstance(count, bool) and 0 <= count < _MOST_TOKENS:
                    found[ours] = int(count)
                    break
    if not found.get("prompt"):  # nothing was ever asked in no tokens: such a server does not count
        found.pop("prompt", None)
        if not found.get("completion"):
            found.pop("completion", None)
    return found


# --- an error --------------------------------------------------------------------------------------------


def fault_of(error: BaseException, model: str, address: str) -> Fault:
    """The fault behind an exception of the client; it holds neither the key nor a password of the address."""
    import openai

    where = redact(address)
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, Mapping) else {"message": error.response.text or error.message}
        return fault_of_status(int(error.status_code), body, error.response.headers, model, address)
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Fault(RETRY, f"{where} did not answer in time, or dropped the connection", answered=False)
    cause = redact(error.__cause__ or error, address)
    return Fault(RETRY, f"no connection to {where} ({shorten(cause, 80)})", answered=False)


_MODERATED = re.compile(
    r"moderation|flagged|content[ _](?:filter|polic|management|exists risk|violat)|safety (?:system|filter|setting)"
    r"|inappropriate|data_?inspection|responsible ai|usage polic|prohibited|harmful|\bsafety\b"
    r"|sensitive (?:content|word)|violence",
    re.IGNORECASE,
)
_OF_THE_KEY = re.compile(
    r"api[ _-]?key|credential|permission|unauthori|authenticat|access denied|not allowed|country|region|billing"
    r"|account",
    re.I,
)
_MODEL = re.compile(r"\bmodel\b|\bdeployment\b", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|not permitted|unrecognized|unknown|unexpected|extra|only the default|not allowed"
    r"|no longer|does not take|deprecated",
    re.IGNORECASE,
)
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "insufficient_user_quota")


def fault_of_status(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str], model: str, address: str
) -> Fault:
    """The fault that an error's status and body tell of."""
    error = body.get("error") if isinstance(body.get("error"), Mapping) else body
    assert isinstance(error, Mapping)
    code = str(error.get("code") or error.get("type") or "")
    whole = error.get("message") or error.get("detail") or body
    whole = whole if isinstance(whole, str) else json.dumps(whole, default=str)
    said, where = shorten(redact(whole, address), 200), redact(address)
    if status == 451 or (
        400 <= status < 500 and status not in (401, 402, 408, 429) and _MODERATED.search(f"{code} {whole}")
    ):
        return Fault(FILTER_REFUSED, f"{status}: {said}")
    if status == 401:
        return Fault(
            FATAL, f"the server at {where} refused the key (status 401: {said}); set OPENAI_API_KEY to a valid one"
        )
    if status == 403:
        kind = FATAL if _OF_THE_KEY.search(f"{code} {whole}") else BAD
        return Fault(
            kind, f"the server at {where} refused access (status 403: {said}); is OPENAI_API_KEY one for this model?"
        )
    if status == 402 or code in _NO_MONEY:
        return Fault(
            FATAL, f"the account has no quota left ({code or status}: {said}); add to it, then run the command again"
        )
    if code == "model_not_found" or (status == 404 and (_MODEL.search(whole) or (model and model in whole))):
        return Fault(FATAL, f"the server at {where} has no model {model!r} (status {status}: {said})")
    if status in (404, 405) or 300 <= status < 400:
        return Fault(
            FATAL,
            f"the server at {where} has no chat completions (status {status}: {said}); is the address right? Most end "
            "in /v1",
        )
    if status in (429, 503) and (wait := _asked_wait(headers) or 0.0) > _TOO_LONG:
        return Fault(FATAL, f"the server at {where} asks to wait {wait / 3600:.1f} hours ({status}: {said})")
    if status == 429:
        return Fault(RETRY, f"429: {said}", rejected=True, retry_after=retry_after(headers))
    if status in (200, 408, 409, 425) or status >= 500:
        return Fault(RETRY, f"{status}: {said}", retry_after=retry_after(headers))
    return _of_parameter(error, whole, f"{status}: {said}") or Fault(BAD, f"{status}: {said}")


def _of_parameter(error: Mapping[str, Any], whole: str, said: str) -> Fault | None:
    """The fault of a request with a parameter that this model does not take."""
    named = error.get("param") if isinstance(error.get("param"), str) else ""
    if "max_completion_tokens" in whole:
        return Fault(PARAMETER, said, parameter="max_tokens", other_name="max_completion_tokens")
    if _NOT_TAKEN.search(whole) and (name := named or _named(whole)):
        return Fault(PARAMETER, said, parameter=str(name))
    return None


def _named(whole: str) -> str:
    """The first parameter that a message names."""
    known = {f.name for f in fields(Sampling)} | {"logprobs", "top_logprobs"}
    return next((name for name in re.findall(r"[a-z_]+", whole) if name in known), "")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as a date.

    Examples
    --------
    >>> retry_after({"retry-after": "2"}), retry_after({}), retry_after({"retry-after": "soon"})
    (2.0, None, None)
    """
    seconds = _asked_wait(headers)
    return None if seconds is None else min(seconds, LONGEST_WAIT)


def _asked_wait(headers: Mapping[str, str]) -> float | None:
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
            return max(seconds, 0.0)
    return None
