"""Rewriters by their spec: `rules`, `rules:mend=0.5`, `replay:PATH`, `openai:MODEL`, `batch:MODEL`, `hf:MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ratekit import files
from ratekit.errors import InputError, unknown
from ratekit.labellers import Attribute
from ratekit.rewriting import rules
from ratekit.rewriting.base import Chat, Rewriter
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.cache import default_cache as default_cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.options import Options as Options
from ratekit.rewriting.prompts import template_of
from ratekit.rewriting.replay import Replay
from ratekit.schema import TREATED
from ratekit.sources.loading import as_dataset
from ratekit.userfiles import is_object_spec, load_object

SPECS: dict[str, str] = {
    "rules": "deterministic rules, no LLM (rules:mend=0.5 mends half of the off-target faults in a pass)",
    "replay": "the rewrites that the data carry, or those of another dataset (replay:PATH)",
    "openai": "an LLM behind an OpenAI-compatible server (openai:gpt-4o-mini, with --base-url for your own)",
    "batch": "the OpenAI Batch API: half the price, within a day (batch:gpt-4o-mini)",
    "hf": "a local model by transformers, on a GPU or the CPU (hf:Qwen/Qwen3-4B-Instruct-2507)",
}


def make_rewriter(
    spec: str, attribute: Attribute, *, cache: str | Path | None = None, options: Options | None = None
) -> Rewriter | Replay:
    """The rewriter that `spec` names, for this attribute.

    Parameters
    ----------
    spec
        A name in `SPECS`, followed by ":" and the model or the path.
    attribute
        What is varied.
    cache
        Folder of an LLM's replies; by default `default_cache()`, since they cost something.
    options
        How an LLM is asked.

    Raises
    ------
    InputError
        For an unknown spec, a spec without its model, a template without its fields, or an option that the kind of
        rewriter does not have.

    Examples
    --------
    >>> from ratekit.attributes import ATTRIBUTES
    >>> make_rewriter("rules:mend=0.5", ATTRIBUTES["length"])
    RuleRewriter(attribute='length', mend=0.5, seed=0)
    """
    if is_object_spec(spec):
        own = load_object(spec)
        if not callable(own):
            raise InputError(
                f"{spec} is of type {type(own).__name__}; a rewriter is (texts, targets) -> list of Rewrite"
            )
        return cast(Rewriter, own)
    kind, _, rest = spec.partition(":")
    options = options or Options()
    if kind == "rules":
        return rules.rules_of(rest, attribute.name)
    if kind == "replay":
        return Replay(_replayed(rest) if rest else None, options.judged)
    if kind not in SPECS:
        raise unknown("rewriter", spec, SPECS)
    if not rest:
        raise InputError(f"{spec}: which model? Write {kind}:MODEL, as in {_EXAMPLE[kind]}")
    folder = Path(cache) if cache is not None else default_cache()
    template = options.template or ""
    template_of(attribute, template)  # a bad one is better known before a model is loaded
    return ChatRewriter(_chat(kind, rest, options, folder), attribute, Cache(folder), template, options.retry_failed)


def _replayed(path: str) -> Any:
    """The rows to replay; the labels that they carry are read as everywhere."""
    ds = files.read(path)
    return as_dataset(ds, where=path) if TREATED in ds.column_names else ds


_EXAMPLE = {"openai": "openai:gpt-4o-mini", "batch": "batch:gpt-4o-mini", "hf": "hf:Qwen/Qwen3-4B-Instruct-2507"}


def _chat(kind: str, model: str, options: Options, folder: Path) -> Chat:
    if kind == "openai":
        from ratekit.rewriting.openai_chat import OpenAIChat

        return OpenAIChat(model, **options.taken_by(OpenAIChat, kind))
    if kind == "batch":
        from ratekit.rewriting.batch import BatchChat

        return BatchChat(model, folder / "batches", **options.taken_by(BatchChat, kind))
    from ratekit.rewriting.local import LocalChat

    given = options.taken_by(LocalChat, kind)
    return LocalChat(model, **{name: value for name, value in given.items() if value is not None})
