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
UNCHANGED = "unchanged"  # the text came back as it went
WRONG_LANGUAGE = "wrong_language"
EXPLODED = "exploded"  # many times as long as the text that was to be rewritten
LEAKED = "leaked"  # parts of the prompt in the reply
FAILED = "failed"  # the request itself failed
NOT_ATTEMPTED = "not_attempted"  # an earlier rewrite of the chain is missing, or the run stopped before


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
    """A rewritten text and "ok", or None and the reason why there is none.

    >>> Rewrite("A longer text.", "ok").text
    'A longer text.'

    status  "ok", or empty, truncated, refused, preamble, unchanged, wrong_language, exploded, leaked, failed or
            not_attempted (an earlier rewrite of the chain is missing)
    """

    text: str | None
    status: str


Chain = tuple[list["str | None"], list[str]]  # the rewrites of a row and their statuses
Chat = Callable[[list[Conversation]], Iterator[Reply]]
Rewriter = Callable[[Sequence[str], Sequence[bool]], Sequence[Rewrite]]

PAID = ("stop", "length", "content_filter")  # a reply that was made and paid for, whatever it is worth
