"""The contracts of rewriting.

- a *chat* is `(list of conversations) -> iterator of Reply`, in any order, as the replies arrive;
- a *rewriter* is `(texts, targets: list[bool]) -> list of Rewrite`, one each, in order.

Both are plain callables: a test passes a lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ratekit.schema import Conversation

OK = "ok"
EMPTY = "empty"
TRUNCATED = "truncated"
REFUSED = "refused"
PREAMBLE = "preamble"  # talk around the text that cannot be taken off with certainty
THINKING = "thinking"  # the model's own thinking, which cannot be told from the text
UNCHANGED = "unchanged"  # the text came back as it went; it is a text all the same, and is scored
WRONG_LANGUAGE = "wrong_language"
EXPLODED = "exploded"  # many times as long as the text that was to be rewritten
LEAKED = "leaked"  # parts of the prompt or of the chat template in the reply
REPETITION = "repetition"  # the same over and over
UNRELATED = "unrelated"  # next to nothing of the source: an answer to it, or what the text told the model to say
NOT_TEXT = "not_text"  # not a string, or one with a lone surrogate, which no file can hold
FAILED = "failed"  # the request itself failed
NOT_ATTEMPTED = "not_attempted"  # an earlier rewrite of the chain is missing, or the run stopped before
USABLE = (OK, UNCHANGED)  # the statuses of a rewrite that has a text


@dataclass(frozen=True)
class Reply:
    """What a chat gave for one conversation.

    Parameters
    ----------
    index
        Of the conversation.
    text
        Of the reply; None where there is none.
    finish_reason
        Why it ended, in the server's own word; `ending` says what that means. Only "stop" is a complete reply.
    usage
        {"prompt": tokens in, "completion": tokens out}; what the server does not say is left out.
    logprobs
        JSON of the log-probabilities that were asked for, one record per token
        ``{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}``; "" where there are none.
    """

    index: int
    text: str | None
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)
    logprobs: str = field(default="", repr=False)


class Rewrite(NamedTuple):
    """A rewritten text and "ok" (or "unchanged"), or None and the reason why there is none.

    Attributes
    ----------
    text : str or None
        The rewrite.
    status : str
        "ok"; "unchanged" where the text is the source's own; else one of empty, truncated, refused, preamble,
        thinking, leaked, repetition, unrelated, wrong_language, exploded, not_text, failed, or not_attempted (an
        earlier rewrite of the chain is missing).

    Examples
    --------
    >>> Rewrite("A longer text.", "ok").text
    'A longer text.'
    """

    text: str | None
    status: str


Chain = tuple[list["str | None"], list[str]]  # the rewrites of a row and their statuses
Chat = Callable[[list[Conversation]], Iterator[Reply]]
Rewriter = Callable[[Sequence[str], Sequence[bool]], Sequence[Rewrite]]

# --- how a reply ended -----------------------------------------------------------------------------------

STOP = "stop"
LENGTH = "length"
FILTERED = "content_filter"
UNREADABLE = "unreadable"  # a whole answer in which no text can be found; it may have been paid for
ERROR = "error"  # no answer at all, or one that says so

_ENDINGS = {
    STOP: ("eos", "eos_token", "end", "end_turn", "end_of_text", "endoftext", "stop_sequence", "stop_token",
           "stop_word", "complete", "completed", "done", "finished", "finish_reason_stop"),
    LENGTH: ("max_tokens", "max_length", "max_new_tokens", "model_length", "context_length", "max_output_tokens",
             "token_limit", "finish_reason_max_tokens"),
    FILTERED: ("safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal", "sensitive",
               "error_toxic", "content_filtered", "guardrail_intervened", "finish_reason_safety"),
}  # fmt: skip
_ENDING = {word: ending for ending, words in _ENDINGS.items() for word in (ending, *words)}


def ending(finish_reason: str | None) -> str:
    """What a server's word for the end of a reply means: "stop", "length", "content_filter", or the word itself.

    Examples
    --------
    >>> ending("STOP"), ending("FinishReason.STOP"), ending("Max-Tokens"), ending("tool_calls")
    ('stop', 'stop', 'length', 'tool_calls')
    """
    word = (finish_reason or "").strip()
    return _ENDING.get(word.lower().replace("-", "_").rpartition(".")[2], word)
