"""The public datasets that `load` knows, each in its true schema.

Adding a source is one literal in `SOURCES`: its hub id, the columns that its schema must have with what they hold
(text, integer, number, bool, list, record; asserted when it is loaded), and a function that turns one row of it into
rows of `prompt_id, prompt, response` (and whatever of its own is worth keeping).

Example datum, HH-RLHF: one row holds two transcripts that differ in the last assistant turn,
"\\n\\nHuman: Hi\\n\\nAssistant: Hello!"; it becomes two rows with one prompt_id.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratekit.errors import InputError, shorten
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    Conversation,
    as_conversation,
)

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A public dataset: where it is, the columns it must have, and how one row of it is read."""

    about: str
    hub_id: str  # "" for one that is on no hub in one table
    columns: Mapping[str, str]
    rows: Callable[[Row, int], Iterable[Row]]
    licence: str = ""
    split: str = "train"
    content: Callable[[Dataset, str], bool] | None = None  # of a table called so: whether it is this one
    gather: Callable[[Mapping[str, Dataset]], list[Row]] | None = None  # rows of one table, from several files by path


def prompt_key(prompt: str | Conversation) -> str:
    """A short id that equal prompts share.

    Examples
    --------
    >>> prompt_key("Why?") == prompt_key([{"role": "user", "content": "Why?"}])
    True
    """
    text = json.dumps(as_conversation(prompt), ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- one row of a public dataset -> rows of ours ---------------------------------------------------------


def imdb(row: Row, index: int) -> Iterator[Row]:
    """A review and its label (0, 1, or -1 for none); each review is a cluster of its own."""
    # The prompt is the one that the paper scored IMDB with.
    label = row["label"] if row["label"] in (0, 1) else None
    yield {
        PROMPT_ID: f"imdb-{index:06d}",
        PROMPT: as_conversation("Write a movie review: "),
        RESPONSE: row["text"],
        "label": label,
        "sentiment": label,
    }


def _is_imdb(ds: Dataset, where: str) -> bool:
    """Two columns called text and label are many things; this one says its name, and has no other columns."""
    return set(ds.column_names) == {"text", "label"} and "imdb" in where.lower()


_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")


def transcript(text: str) -> Conversation:
    r"""An HH-RLHF transcript as a conversation, every turn kept.

    Examples
    --------
    >>> transcript("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant: Bye.")[-1]
    {'role': 'assistant', 'content': 'Bye.'}
    """
    before, *parts = _TURN.split(text.replace("\r\n", "\n"))
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [
        {"role": roles[role], "content": content.strip()} for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return [{"role": "system", "content": before.strip()}, *turns] if before.strip() and turns else turns


def is_transcript(text: str) -> bool:
    """Whether a text is a transcript from its beginning on."""
    return text.lstrip().startswith("Human:") and "Assistant:" in text


def _are_transcripts(ds: Dataset, where: str) -> bool:
    """Most of the first texts are, and there is no prompt beside them."""
    texts = [t for t in ds[: min(len(ds), 200)]["chosen"] if t]
    return PROMPT not in ds.column_names and 2 * sum(map(is_transcript, texts)) > len(texts)


def hh_rlhf(row: Row, index: int) -> Iterator[Row]:
    """Two responses, chosen and rejected; one prompt_id, taken from the chosen side's prompt."""
    sides = {}
    for side in ("chosen", "rejected"):
        turns = transcript(row[side] or "")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            return  # counted by `load`: no assistant turn at the end, so there is no response
        sides[side] = turns
    prompt_id = f"hh-{prompt_key(sides['chosen'][:-1])}"
    for side, turns in sides.items():
        yield {
            PROMPT_ID: prompt_id,
            PROMPT: turns[:-1],
            RESPONSE: turns[-1]["content"],
            "chosen": side == "chosen",
        }


HELPSTEER_SCORES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


_MARK = re.compile(r"\s*<extra_id_[01]>(System|User|Assistant)[ ]*(?:\n|\Z)")


def _marked(text: str) -> Conversation:
    r"""A prompt of HelpSteer2 as a conversation; without its marks it is one user turn.

    Examples
    --------
    >>> _marked("Hi\n<extra_id_1>Assistant\nHello!\n<extra_id_1>User\nBye")[1:]
    [{'role': 'assistant', 'content': 'Hello!'}, {'role': 'user', 'content': 'Bye'}]
    """
    roles = ["User", *_MARK.findall(text)]
    turns = zip(roles, _MARK.split(text)[::2], strict=True)
    found = [{"role": role.lower(), "content": content} for role, content in turns if content.strip()]
    return found if len(roles) > 1 else as_conversation(text)


def helpsteer(row: Row, index: int) -> Iterator[Row]:
    """A response with human scores from 0 to 4; the responses to one prompt share its prompt_id."""
    yield {
        PROMPT_ID: f"helpsteer-{prompt_key(row['prompt'] or '')}",
        PROMPT: _marked(row["prompt"] or ""),
        RESPONSE: row["response"],
        **{score: row.get(score) for score in HELPSTEER_SCORES},
    }


def eli5(row: Row, index: int) -> Iterator[Row]:
    """A question (its title) and its answers, each a response under one prompt_id."""
    answers = row["answers"] or {}
    texts = answers.get("text") if isinstance(answers, Mapping) else None
    if not isinstance(texts, list):
        raise InputError(f"eli5, row {index}: 'answers' holds {shorten(answers)}; expected a 'text' list")
    scores = answers.get("score") or []
    for k, text in enumerate(texts):
        yield {
            PROMPT_ID: f"eli5-{row.get('q_id') or prompt_key(row['title'])}",
            PROMPT: as_conversation(row["title"]),
            RESPONSE: text,
            "score": scores[k] if k < len(scores) else None,
        }


def double_rewrite(row: Row, index: int) -> Iterator[Row]:
    """An untreated answer, rewritten to have a bias and back, with the rewards of published models.

    The original was never scored, so the first reward of each chain is null: `rate` and the ATU alone can be had.
    """
    yield {
        PROMPT_ID: prompt_key(row["query"]),
        PROMPT: as_conversation(row["query"]),
        RESPONSE: row["original"],
        ATTRIBUTE: row["bias"],
        TREATED: False,
        REWRITES: [row["rewrite"], row["rewrite_of_rewrite"]],
        REWRITE_STATUS: ["ok", "ok"],
        **{
            f"{REWARD_PREFIX}{name}": [None, scores["rewrite"], scores["rewrite_of_rewrite"]]
            for name, scores in (row["scores"] or {}).items()
        },
    }


BIASES = ("length", "structure", "jargon", "sycophancy", "vagueness")
_SCORED = re.compile(r"_scored_(.+?)\.jsonl")


def double_rewrites(tables: Mapping[str, Dataset]) -> list[Row]:
    """One table of the files of the authors' repository, by their names; each bias needs its file of perturbations.

    `data/perturbations/all_data_perturbed_BIAS.jsonl` holds query, original_response, perturbed_response (with the
    bias) and base_response (rewritten back); `data/fine_tuned_model_scores/BIAS/BIAS_scored_MODEL.jsonl` the last two
    with perturbed_score and base_score. A score belongs to the row with the same query and the same two texts.
    """
    texts: dict[str, list[Row]] = {}
    scores: dict[str, dict[str, dict[tuple[str, ...], Row]]] = {}
    for path, table in tables.items():
        name = path.replace("\\", "/").rpartition("/")[2]
        bias = next((b for b in BIASES if b in name), None)
        kind = next((c for c in ("original_response", "base_score") if c in table.column_names), None)
        if (
            bias is None
            or kind is None
            or not {"query", "perturbed_response", "base_response"} <= {*table.column_names}
        ):
            raise InputError(
                f"{path}: all_data_perturbed_BIAS.jsonl or BIAS_scored_MODEL.jsonl was expected, with BIAS one of "
                f"{', '.join(BIASES)} and the columns query, perturbed_response, base_response and original_response "
                "or base_score and perturbed_score"
            )
        if kind == "original_response":
            texts.setdefault(bias, []).extend(table)
        else:
            scored = _SCORED.search(name)
            model = scored[1] if scored else name
            scores.setdefault(bias, {})[model] = {_texts(row): row for row in table}
    for bias in scores:
        if bias not in texts:
            raise InputError(f"the scores of {bias} have no originals: give all_data_perturbed_{bias}.jsonl as well")
    models = sorted({model for of in scores.values() for model in of})
    rows = [
        {"bias": bias, "query": row["query"], "original": row["original_response"],
         "rewrite": row["perturbed_response"], "rewrite_of_rewrite": row["base_response"],
         "scores": {model: _pair(scores.get(bias, {}).get(model, {}).get(_texts(row))) for model in models}}
        for bias, of in texts.items() for row in of
    ]  # fmt: skip
    for bias, of_model in scores.items():
        known = {_texts(row) for row in texts[bias]}
        for model, of in of_model.items():
            if lost := len(set(of) - known):
                log.warning("%s, %s: %d of %d scores are of other texts and were left out", bias, model, lost, len(of))
    return rows


def _texts(row: Row) -> tuple[str, ...]:
    return tuple(str(row[c]) for c in ("query", "perturbed_response", "base_response"))


def _pair(row: Row | None) -> dict[str, float | None]:
    row = row or {}
    return {"rewrite": row.get("perturbed_score"), "rewrite_of_rewrite": row.get("base_score")}


LENGTHS = ("concise", "default", "verbose")  # from the shortest
_JUDGE = "gpt-4-turbo-judge"


def length_variants(row: Row, index: int) -> Iterator[Row]:
    """Three answers of one model to one instruction, asked for differently; independent generations, not rewrites.

    Each pair of them is an attribute of its own ("verbose-concise": the longer is treated), so an answer stands there
    twice. The judge's preference over a fixed reference, 1 to 2, is there as a reward.
    """
    for k, shorter in enumerate(LENGTHS):
        for longer in LENGTHS[k + 1 :]:
            for asked in (shorter, longer):
                yield {
                    PROMPT_ID: f"alpaca-{prompt_key(row['instruction'])}",
                    PROMPT: as_conversation(row["instruction"]),
                    RESPONSE: row[asked],
                    ATTRIBUTE: f"{longer}-{shorter}",
                    TREATED: asked == longer,
                    "asked": asked,
                    "model": row["model"],
                    f"{REWARD_PREFIX}{_JUDGE}": [row[f"judge_pref_{asked}"]],
                }


SOURCES: dict[str, Source] = {
    "imdb": Source(
        "50,000 movie reviews with a sentiment label (Maas et al. 2011)",
        "stanfordnlp/imdb", {"text": "text", "label": "integer"}, imdb, "not stated", content=_is_imdb,
    ),
    "hh-rlhf": Source(
        "pairs of assistant replies with a human preference (Bai et al. 2022)",
        "Anthropic/hh-rlhf", {"chosen": "text", "rejected": "text"}, hh_rlhf, "MIT", content=_are_transcripts,
    ),
    "helpsteer": Source(
        "replies with human scores for helpfulness, complexity and more (Wang et al. 2023)",
        "nvidia/HelpSteer",
        {"prompt": "text", "response": "text", **dict.fromkeys(HELPSTEER_SCORES, "integer")}, helpsteer, "CC BY 4.0",
    ),
    "eli5": Source(
        "questions of r/explainlikeimfive with several answers each (Fan et al. 2019)",
        "rexarski/eli5_category", {"title": "text", "answers": "record"}, eli5, "not stated (Reddit)",
    ),
    "flattery-fluff-fog": Source(
        "answers rewritten to have a bias and back by GPT-4o, scored by eight models (Bharadwaj et al. 2025)", "",
        {"bias": "text", "query": "text", "original": "text", "rewrite": "text", "rewrite_of_rewrite": "text",
         "scores": "record"}, double_rewrite, "not stated", gather=double_rewrites,
    ),
    "length-variants": Source(
        "AlpacaEval answers asked for concisely, plainly and verbosely (Dubois et al. 2024)", "",
        {"instruction": "text", "model": "text", **dict.fromkeys(LENGTHS, "text"),
         **{f"judge_pref_{asked}": "number" for asked in LENGTHS}}, length_variants, "CC BY-NC 4.0",
    ),
}  # fmt: skip
