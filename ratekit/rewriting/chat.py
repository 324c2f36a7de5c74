"""A rewriter made of a language model: what it is asked, what is stored, and how its replies are judged.

rewriter = ChatRewriter(OpenAIChat("gpt-4o-mini"), rk.ATTRIBUTES["length"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ratekit.attributes import find_attribute
from ratekit.errors import InputError
from ratekit.labellers import Attribute
from ratekit.rewriting.base import Chat, Reply, Rewrite, ending
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.judge import judge
from ratekit.rewriting.prompts import messages, needs_prompt, template_hash, template_of
from ratekit.rewriting.stream import Asks, ChainRow, ask_chains
from ratekit.schema import Conversation


@dataclass
class ChatRewriter(Asks):
    """A rewriter that asks a chat, one message per text, with the attribute's phrase for the target side.

    Parameters
    ----------
    cache
        each reply is in it before it counts; the same call again asks for nothing
    template
        has {phrase}, {response} and, if wanted, {prompt}; by default the attribute's own, else ratekit's
    retry_failed
        ask again for what the cache holds without being a rewrite (truncated, refused, ...)

    Examples
    --------
    >>> from ratekit.attributes import ATTRIBUTES
    >>> def chat(conversations):
    ...     for i, conversation in enumerate(conversations):
    ...         yield Reply(i, "A much longer text.", "stop")
    >>> ChatRewriter(chat, ATTRIBUTES["length"])(["A text."], [True])
    [Rewrite(text='A much longer text.', status='ok')]
    """

    chat: Chat
    attribute: Attribute
    cache: Cache | None = None
    template: str = ""
    retry_failed: bool = False

    def __post_init__(self) -> None:
        self.attribute = find_attribute(self.attribute)
        self.template = template_of(self.attribute, self.template)
        self.template_hash = template_hash(self.template)

    @property
    def needs_prompt(self) -> bool:
        """Whether the rewriter is to be given the prompts too."""
        return needs_prompt(self.template)

    def conversation(self, text: str, target: bool, prompt: Any = None) -> Conversation:
        """What the chat is asked."""
        return messages(self.template, self.attribute.phrase(target), text, prompt)

    def judge(self, reply: Reply, source: str) -> Rewrite:
        """The rewrite in a reply to `source`, or why there is none."""
        return judge(replace(reply, finish_reason=ending(reply.finish_reason)), source, self.template)

    def named(self, target: bool) -> tuple[str, str]:
        """The attribute, and its phrase for the side."""
        return self.attribute.name, self.attribute.phrase(target)

    def __call__(
        self, texts: Sequence[str], targets: Sequence[bool], prompts: Sequence[Any] | None = None
    ) -> list[Rewrite]:
        """Rewrite each text to its target side; a reply that is no rewrite gives None and its status."""
        if self.needs_prompt and prompts is None:
            raise InputError(
                "the rewriting template shows the {prompt}: call the rewriter with texts, targets, prompts"
            )
        given = prompts if prompts is not None else [None] * len(texts)
        rows = (ChainRow(text, target, prompt) for text, target, prompt in zip(texts, targets, given, strict=True))
        rewrites: list[Rewrite] = []
        ask_chains(self, rows, 1, lambda chain: rewrites.append(Rewrite(chain[0][0], chain[1][0])))
        return rewrites
