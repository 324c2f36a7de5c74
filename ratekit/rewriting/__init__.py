"""Rewriters by their spec: `rules`, `rules:mend=0.5`, `replay:PATH`, `openai:MODEL`, `batch:MODEL`, `hf:MODEL`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.attributes import Attribute
from ratekit.errors import InputError, unknown
from ratekit.rewriting import rules
from ratekit.rewriting.base import Chat, Rewriter
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.prompts import template_of
from ratekit.rewriting.records import default_cache
from ratekit.rewriting.replay import Replay

SPECS: dict[str, str] = {
    "rules": "deterministic rules, no LLM (rules:mend=0.5 mends half of the off-target faults in a pass)",
    "replay": "the rewrites that the data carry, or those of another dataset (replay:PATH)",
    "openai": "an LLM behind an OpenAI-compatible server (openai:gpt-4o-mini, with --base-url for your own)",
    "batch": "the OpenAI Batch API: half the price, within a day (batch:gpt-4o-mini)",
    "hf": "a local model by transformers, on a GPU or the CPU (hf:Qwen/Qwen3-4B-Instruct-2507)",
}


@dataclass(frozen=True)
class Options:
    """How an LLM is asked, beside its name; None leaves the backend's own default.

    base_url      of an OpenAI-compatible server
    template      the rewriting prompt, with {phrase}, {response} and, if wanted, {prompt}
    retry_failed  ask again for what the cache holds without being a rewrite
    max_tokens, temperature, seed, concurrency, rpm, tpm, timeout: see `OpenAIChat`
    judged        judge replayed rewrites as a model's replies are (`Replay`)
    """

    base_url: str | None = None
    template: str | None = None
    retry_failed: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    concurrency: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    timeout: float | None = None
    judged: bool = False


def make_rewriter(
    spec: str, attribute: Attribute, *, cache: str | Path | None = None, options: Options | None = None
) -> Rewriter | Replay:
    """The rewriter that `spec` names, for this attribute. Raises InputError.

    >>> from ratekit.attributes import ATTRIBUTES
    >>> make_rewriter("rules:mend=0.5", ATTRIBUTES["length"])
    RuleRewriter(attribute='length', mend=0.5, seed=0)

    cache  folder of an LLM's replies; by default `default_cache()`, since they cost something
    """
    kind, _, rest = spec.partition(":")
    options = options or Options()
    if kind == "rules":
        return rules.from_spec(rest, attribute.name)
    if kind == "replay":
        return Replay(files.read(rest) if rest else None, options.judged)
    if kind not in SPECS:
        raise unknown("rewriter", spec, SPECS)
    if not rest:
        raise InputError(f"{spec}: which model? Write {kind}:MODEL, as in {_EXAMPLE[kind]}")
    folder = Path(cache) if cache is not None else default_cache()
    template = options.template or ""
    template_of(attribute, template)  # a bad one is better known before a model is loaded
    return ChatRewriter(_chat(kind, rest, options, folder), attribute, Cache(folder), template, options.retry_failed)


_EXAMPLE = {"openai": "openai:gpt-4o-mini", "batch": "batch:gpt-4o-mini", "hf": "hf:Qwen/Qwen3-4B-Instruct-2507"}


def _chat(kind: str, model: str, options: Options, folder: Path) -> Chat:
    given: dict[str, Any] = {
        "max_tokens": options.max_tokens, "temperature": options.temperature, "seed": options.seed,
        "concurrency": options.concurrency, "rpm": options.rpm, "tpm": options.tpm, "timeout": options.timeout,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    paced = [name for name in ("concurrency", "rpm", "tpm", "timeout") if name in given]
    if kind == "openai":
        from ratekit.rewriting.openai_chat import OpenAIChat

        return OpenAIChat(model, options.base_url, **given)
    if paced:
        raise InputError(f"--{paced[0]} is for openai:MODEL; {kind} goes at its own pace")
    if kind == "batch":
        from ratekit.rewriting.batch import BatchChat

        return BatchChat(model, folder / "batches", options.base_url, **given)
    from ratekit.rewriting.local import LocalChat

    if options.base_url:
        raise InputError("--base-url is for openai:MODEL and batch:MODEL; hf runs the model on this machine")
    return LocalChat(model, **given)
