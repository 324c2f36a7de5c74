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
    """What a chat gave for conversation `index`: the text, why it ended, and the tokens used.

    finish_reason  "stop" (complete), "length" (cut off), "content_filter" (refused), anything else: no reply
    usage          {"prompt": tokens in, "completion": tokens out}, as far as the server says
    """

    index: int
    text: str | None
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)


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

PAID = ("stop", "length", "content_filter")  # a reply that was made and paid for, whatever it is worth
