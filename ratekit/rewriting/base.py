"""The contracts of rewriting, and what a reply is worth.

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
FAILED = "failed"  # the request itself failed
NOT_ATTEMPTED = "not_attempted"  # an earlier rewrite of the chain is missing


@dataclass(frozen=True)
class Reply:
    """What a chat gave for conversation `index`: the text, why it ended, and the tokens used."""

    index: int
    text: str | None
    finish_reason: str
    usage: Mapping[str, int] = field(default_factory=dict)


class Rewrite(NamedTuple):
    """A rewritten text and "ok", or None and the reason why there is none."""

    text: str | None
    status: str


Chat = Callable[[list[Conversation]], Iterator[Reply]]
Rewriter = Callable[[Sequence[str], Sequence[bool]], Sequence[Rewrite]]

_REFUSALS = (
    "i'm sorry, but i can", "i am sorry, but i can", "i'm sorry, i can", "sorry, but i can", "i cannot help",
    "i can't help", "i can't assist", "i cannot assist", "i'm unable to", "i am unable to", "as an ai",
    "i can't fulfill", "i cannot fulfill", "i won't be able to",
)  # fmt: skip


def judge(reply: Reply, source: str) -> Rewrite:
    """The rewrite that a reply to `source` holds, or why it holds none.

    >>> judge(Reply(0, "A longer text.", "stop"), "A text.")
    Rewrite(text='A longer text.', status='ok')
    >>> judge(Reply(0, "A longer te", "length"), "A text.")
    Rewrite(text=None, status='truncated')

    A reply that was cut off, refused or empty is never passed on as a text.
    """
    text = (reply.text or "").strip()
    if reply.finish_reason == "length":
        return Rewrite(None, TRUNCATED)
    if reply.finish_reason == "content_filter":
        return Rewrite(None, REFUSED)
    if reply.finish_reason != "stop":
        return Rewrite(None, FAILED)
    if not text:
        return Rewrite(None, EMPTY)
    opening = text[:60].lower().replace("’", "'")
    if opening.startswith(_REFUSALS) and not source.strip()[:60].lower().startswith(opening[:12]):
        return Rewrite(None, REFUSED)
    return Rewrite(text, OK)
