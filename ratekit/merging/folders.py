"""Do model folders belong together? Config, tokenizer, template and labels are compared, as `transformers` reads them.

Two models may agree in every shape and yet not belong together: 8 heads of 16 numbers have the shape of 16 heads of 8,
two vocabularies of one size put other words into the same rows, and of two padding tokens one makes the model read its
reward off another place.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratekit.checkpoints import CONFIG, Folder, State, resolved, tokenizer_of
from ratekit.errors import InputError, shorten
from ratekit.lora import Lora

log = logging.getLogger("ratekit")

# What may differ between models that can be merged: where they come from and their names, not what they compute. How a
# reward is read (padding token, labels) is compared by itself.
TOLD = {"_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id",
        "num_labels", "use_cache", "problem_type", "task_specific_params", "architectures", "auto_map", "pad_token_id",
        "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "finetuning_task", "output_attentions",
        "output_hidden_states", "return_dict", "chunk_size_feed_forward"}  # fmt: skip
_HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim", "n_head", "num_heads")
DROPOUT = ("dropout", "_pdrop", "drop_path", "layerdrop", "initializer", "init_std", "router_aux", "gradient_check")

# Texts that two tokenizers must cut alike: cases, digits, spaces, other alphabets, a sign of several bytes.
_PROBE = ("Why is the sky blue?", "  It ISN'T 1,234.5% good\n\n\tor bad... ", "Déjà vu, Größe, привет, 日本語 🙂", "")


@dataclass(frozen=True)
class _Reading:
    """How a folder's weights are read.

    Parameters
    ----------
    config
        as `transformers` completes it; as it is where `transformers` does not know its kind
    defaults
        the keys that such a config has of itself
    vocabulary
        token -> row; None where there is no tokenizer
    added
        row -> (token, lstrip, rstrip, single_word, normalized) of the tokens that are cut out first
    cut
        the rows of each text of `PROBE`
    """

    config: dict[str, Any]
    defaults: set[str] = field(default_factory=set)
    vocabulary: dict[str, int] | None = None
    added: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    cut: tuple[tuple[int, ...], ...] = ()
    template: str | None = None
    padding: int | None = None
    labels: dict[int, str] = field(default_factory=dict)


def reading(name: str, folder: Folder) -> _Reading:
    """How the weights of a folder are read. Raises InputError where its config or tokenizer cannot be."""
    where = folder.path / CONFIG
    raw = folder.config
    made = resolved(raw, where) if raw is not None else None
    told = made.to_dict() if made is not None else raw or {}
    home = folder.tokenizer_folder if isinstance(folder, Lora) else folder.path
    tokenizer = tokenizer_of(home, folder.beside())
    labels = {int(k): str(v) for k, v in (told.get("id2label") or {}).items() if str(k).isdigit()}
    if tokenizer is None:
        log.warning("merging: %s has no tokenizer in its folder, so its vocabulary is not compared", name)
        return _Reading(told, set(told), padding=told.get("pad_token_id"), labels=labels)
    added = {
        row: (t.content, t.lstrip, t.rstrip, t.single_word, t.normalized)
        for row, t in tokenizer.added_tokens_decoder.items()
    }
    padding = told.get("pad_token_id")
    return _Reading(
        told,
        set(type(made)().to_dict()) if made is not None else set(told),
        tokenizer.get_vocab(),
        added,
        tuple(tuple(tokenizer(text)["input_ids"]) for text in _PROBE),
        _template(folder) or tokenizer.chat_template,
        padding if padding is not None else tokenizer.pad_token_id,
        labels,
    )


def _template(folder: Folder) -> str | None:
    """An adapter's own chat template beside its base's tokenizer."""
    path = folder.beside().get("chat_template.jinja")
    return path.read_text(encoding="utf-8") if path is not None else None


def check_folders(states: Mapping[str, State], base: str | None = None) -> None:
    """Raise InputError where the folders among these differ in what their equal shapes mean, or in how they are read.

    Parameters
    ----------
    states : mapping of str to state dict
        Folders are compared with the first folder; state dicts say nothing beside their tensors.
    base : str, optional
        The name of the one that the others were tuned from. It gives weights alone: its template, padding token and
        labels do not matter, and it may lack tokens that the others added.

    Raises
    ------
    InputError
        Where configs, vocabularies, added tokens, the cutting of a text, chat templates, padding tokens or the order of
        labels differ; where a config or a tokenizer cannot be read.
    """
    folders = {name: state for name, state in states.items() if isinstance(state, Folder)}
    if not folders:
        return
    read = {name: reading(name, folder) for name, folder in folders.items()}
    (first, mine), *others = read.items()
    for other, its in others:
        _same_config(first, mine, other, its, folders[first])
        if mine.vocabulary is not None and its.vocabulary is not None:
            _same_tokens(first, mine, other, its, folders[first], shared_alone=base in (first, other))
        if base not in (first, other):
            _same_reading(first, mine, other, its)


def _same_config(first: str, mine: _Reading, other: str, its: _Reading, reference: State) -> None:
    for key in dict.fromkeys(("model_type", *_HEADS, *sorted({*mine.config, *its.config} - TOLD))):
        here, there = mine.config.get(key), its.config.get(key)
        known = key in mine.defaults | its.defaults or (key in mine.config and key in its.config)
        if here == there or not known or any(part in key for part in DROPOUT):
            continue
        raise InputError(
            f"{key} is {shorten(here)} in {first} and {shorten(there)} in {other}, so {_tensor_of(key, reference)} "
            "means another thing in each: models of one architecture were expected"
        )


def _same_tokens(
    first: str, mine: _Reading, other: str, its: _Reading, reference: State, *, shared_alone: bool
) -> None:
    a, b = mine.vocabulary or {}, its.vocabulary or {}
    for token in [] if a == b else sorted({**a, **b}, key=lambda t: (a.get(t, len(a)), t)):
        if a.get(token) == b.get(token) or (shared_alone and (token not in a or token not in b)):
            continue
        raise InputError(
            f"the vocabularies differ: {shorten(token)!r} is row {a.get(token, 'none')} of "
            f"{_tensor_of('vocab', reference)} in {first} and row {b.get(token, 'none')} in {other}"
        )
    if shared_alone:
        return
    for row in sorted({*mine.added, *its.added}):
        if mine.added.get(row) != its.added.get(row):
            here, there = (r.added.get(row, "none") for r in (mine, its))
            raise InputError(
                f"the added tokens differ: row {row} is {shorten(here)} in {first} and {shorten(there)} in {other} "
                "(token, lstrip, rstrip, single_word, normalized)"
            )
    for text, here, there in zip(_PROBE, mine.cut, its.cut, strict=False):
        if here != there:
            raise InputError(
                f"the tokenizers differ: {shorten(text)!r} is the rows {shorten(list(here))} in {first} and "
                f"{shorten(list(there))} in {other}"
            )


def _same_reading(first: str, mine: _Reading, other: str, its: _Reading) -> None:
    if mine.template and its.template and mine.template.strip() != its.template.strip():
        at = next((i for i, (x, y) in enumerate(zip(mine.template, its.template, strict=False)) if x != y), 0)
        here, there = (shorten(t[max(0, at - 10) : at + 30]) for t in (mine.template, its.template))
        raise InputError(
            f"the chat templates differ, at {here!r} in {first} and {there!r} in {other}: the models were trained on "
            "texts of another form; put one template into both folders if they were not"
        )
    if bool(mine.template) != bool(its.template):
        has, lacks = (first, other) if mine.template else (other, first)
        log.warning("merging: %s has a chat template and %s has none; what is merged is read as %s", has, lacks, first)
    if mine.padding != its.padding:
        raise InputError(
            f"pad_token_id is {mine.padding} in {first} and {its.padding} in {other}: it tells which token the reward "
            f"is read off; write one number into both {CONFIG}"
        )
    names = [[r.labels.get(i, "").casefold() for i in sorted(r.labels)] for r in (mine, its)]
    if len(names[0]) < 2 or names[0] == names[1]:
        return
    if any(name.startswith("label_") for of in names for name in of):
        here, there = shorten(mine.labels), shorten(its.labels)
        log.warning("merging: labels are %s in %s and %s in %s; one order is taken for both", here, first, there, other)
        return
    raise InputError(
        f"the labels are {', '.join(names[0])} in {first} and {', '.join(names[1])} in {other}, so the rows of the "
        "head mean other things"
    )


def _tensor_of(key: str, state: State) -> str:
    """The first tensor that a key of the config is about."""
    parts = {
        "vocab": ("embed_tokens", "word_embeddings", "wte", "embed"),
        "num_labels": ("score", "classifier"),
        **dict.fromkeys(_HEADS, ("q_proj", "query", "c_attn", "q_lin", "Wqkv", "query_key_value")),
    }.get(key, ())
    return next((name for part in parts for name in state if part in name), next(iter(state)))
