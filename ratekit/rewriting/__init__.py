"""Rewriters by their spec: `rules`, `rules:mend=0.5`, `replay`, `replay:PATH`, `openai:MODEL`."""

from __future__ import annotations

from pathlib import Path

from ratekit import files
from ratekit.attributes import Attribute
from ratekit.errors import InputError, unknown
from ratekit.rewriting import rules
from ratekit.rewriting.base import Rewriter
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.chat import ChatRewriter, OpenAIChat
from ratekit.rewriting.replay import Replay

SPECS: dict[str, str] = {
    "rules": "deterministic rules, no LLM (rules:mend=0.5 mends half of the off-target faults in a pass)",
    "replay": "the rewrites that the data carry, or those of another dataset (replay:PATH)",
    "openai": "an LLM behind an OpenAI-compatible server (openai:gpt-4o-mini, with --base-url for your own)",
}


def make_rewriter(
    spec: str, attribute: Attribute, *, cache: str | Path | None = None, base_url: str | None = None
) -> Rewriter | Replay:
    """The rewriter that `spec` names, for this attribute. Raises InputError.

    >>> from ratekit.attributes import ATTRIBUTES
    >>> make_rewriter("rules:mend=0.5", ATTRIBUTES["length"])
    RuleRewriter(attribute='length', mend=0.5, seed=0)
    """
    kind, _, rest = spec.partition(":")
    if kind == "rules":
        return rules.from_spec(rest, attribute.name)
    if kind == "replay":
        return Replay(files.read(rest) if rest else None)
    if kind == "openai":
        if not rest:
            raise InputError("which model? Write openai:MODEL, as in openai:gpt-4o-mini")
        return ChatRewriter(OpenAIChat(rest, base_url), attribute, Cache(cache) if cache else None)
    raise unknown("rewriter", spec, SPECS)
