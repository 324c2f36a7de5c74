"""The forms in which the field writes prompts and responses, and how a table is recognised as one of them.

A form is a `Source` without an address: its columns with what they hold, what must be true of their content, and how
one row is read. Adding one is one literal in `SHAPES`. A table is one of them where *all* its columns are there, hold
what they should, and no other form fits as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratekit import columns as arrow_columns
from ratekit.errors import InputError, shorten
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITES,
    TREATED,
    Conversation,
    as_conversation,
    lacks,
    listed,
    reward_columns,
)
from ratekit.sources.public import SOURCES, Row, Source, is_transcript, prompt_key, transcript

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("ratekit")


# --- one row of a form -> rows of ours --------------------------------------------------------------------


def split_turns(turns: Any, prompt: Any = None) -> tuple[Conversation, str] | None:
    """What was asked and the last turn, an assistant's; None where the last turn is another's.

    >>> split_turns([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    ([{'role': 'user', 'content': 'Why?'}], 'So.')

    Parameters
    ----------
    turns
        A conversation that ends in the response, whole or only what follows `prompt`.
    prompt
        The prompt where the data have one beside the turns: the beginning of the conversation, or what its first turns
        say again.

    Raises
    ------
    InputError
        Where the prompt and the first turns say two things.
    """
    *before, last = as_conversation(turns) or [{"role": "", "content": ""}]
    if last["role"] != "assistant":
        return None
    own = asked(prompt)
    if not own or before == own or (isinstance(prompt, str) and any(prompt.strip() in t["content"] for t in before)):
        return before, last["content"]
    if not before:
        return own, last["content"]
    if before[: len(own)] == own:
        return before, last["content"]
    raise InputError(
        f"the prompt ({shorten(own[-1]['content'])!r}) is not what the turns begin with "
        f"({shorten(before[0]['content'])!r}); leave one of them out"
    )


def turns_until(turns: Any, turn: int) -> Any:
    """A conversation up to that turn of the assistant; [] where it has fewer.

    Examples
    --------
    >>> talk = [{"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Hi."), ("user", "Bye"))]
    >>> turns_until(talk, -1)[-1]["content"], turns_until(talk, 1)
    ('Hi.', [])
    """
    places = [i for i, t in enumerate(turns or []) if t["role"] == "assistant"]
    return turns[: places[turn] + 1] if -len(places) <= turn < len(places) else []


def asked(prompt: Any) -> Conversation:
    r"""A prompt as turns; one written as a transcript ("\n\nHuman: ...\n\nAssistant:") is read as one."""
    if isinstance(prompt, str):
        turns = transcript(prompt) if is_transcript(prompt) else as_conversation(prompt)
        return turns[:-1] if turns and turns[-1] == {"role": "assistant", "content": ""} else turns
    return as_conversation(prompt)


def answers(value: Any, prompt: Any) -> list[tuple[Conversation, str]]:
    """The (prompt, response) pairs that one cell holds: a text, a list of texts, or a list of turns; "" for none."""
    turns = asked(prompt)
    if value is None or len(value) == 0:
        return [(turns, "")]
    if isinstance(value, str):
        if prompt is None and is_transcript(value):
            return [split_turns(transcript(value)) or ([], "")]
        if isinstance(prompt, str) and prompt.strip() and value.startswith(prompt):
            value = value[len(prompt) :].lstrip()
        return [(turns, value)]
    if isinstance(value[0], str):
        return [(turns, text) for text in value]
    return [split_turns(value, prompt) or (turns, "")]


def _rows(
    row: Row, index: int, found: Iterable[tuple[Conversation, str, Row]], *used: str
) -> Iterator[Row]:  # fmt: skip
    """Rows of one prompt_id: the data's own, else one made from what the first response was asked."""
    rest = {name: value for name, value in row.items() if name not in (*used, PROMPT, PROMPT_ID, RESPONSE)}
    found, prompt_id = list(found), row.get(PROMPT_ID)
    if prompt_id is None:
        first = next((prompt for prompt, _, _ in found if prompt), None)
        prompt_id = prompt_key(first) if first else f"row-{index:06d}"
    for prompt, response, more in found:
        yield {PROMPT_ID: prompt_id, PROMPT: prompt, RESPONSE: response, **rest, **more}


def _messages(row: Row, index: int) -> Iterator[Row]:
    """One conversation; its last turn is the response."""
    found = split_turns(row["messages"], row.get(PROMPT))
    yield from _rows(row, index, [(*found, {})] if found else [], "messages")


def preferences(row: Row, index: int) -> Iterator[Row]:
    """Chosen and rejected responses: texts, lists of texts, or conversations, with or without a prompt of their own."""
    found: list[tuple[Conversation, str, Row]] = []
    for side in ("chosen", "rejected"):
        several = isinstance(row[side], list) and len(row[side]) > 1 and isinstance(row[side][0], str)
        for place, (prompt, text) in enumerate(answers(row[side], row.get(PROMPT))):
            found.append((prompt, text, {"chosen": side == "chosen", **({"variant": place} if several else {})}))
    yield from _rows(row, index, found, "chosen", "rejected", "messages")


def completion(row: Row, index: int) -> Iterator[Row]:
    """A prompt and its completion."""
    found: list[tuple[Conversation, str, Row]] = [(p, text, {}) for p, text in answers(row["completion"], row[PROMPT])]
    yield from _rows(row, index, found, "completion")


def completions(row: Row, index: int) -> Iterator[Row]:
    """UltraFeedback: an instruction and what several models answered, each with its score."""
    found: list[tuple[Conversation, str, Row]] = []
    for answer in row["completions"] or []:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("response"), str):
            raise InputError(f"'completions' holds {shorten(answer)!r}; a record with a 'response' was expected")
        more = {k: v for k, v in answer.items() if k != "response" and isinstance(v, str | int | float)}
        found.append((as_conversation(row["instruction"]), answer["response"], more))
    yield from _rows(row, index, found, "completions", "instruction")


def two_responses(row: Row, index: int) -> Iterator[Row]:
    """HelpSteer3: a context and two responses; a preference below 0 is for the first one, above for the second."""
    preferred = row.get("overall_preference")
    if not isinstance(preferred, int | float | None):
        raise InputError(f"'overall_preference' holds {shorten(preferred)!r}; a number was expected")
    if not preferred or preferred != preferred:  # NaN
        preferred = None
    found: list[tuple[Conversation, str, Row]] = []
    for side, sign in (("response1", -1), ("response2", 1)):
        for prompt, text in answers(row[side], row["context"]):
            found.append((prompt, text, {"chosen": None if preferred is None else preferred * sign > 0}))
    yield from _rows(row, index, found, "context", "response1", "response2")


def human_refs(row: Row, index: int) -> Iterator[Row]:
    """Stanford Human Preferences: a post and two comments; label 1 prefers the first."""
    first = {1: True, 0: False}.get(row["labels"])
    sides = ((row["human_ref_A"], first), (row["human_ref_B"], None if first is None else not first))
    found = [(as_conversation(row["history"]), text, {"chosen": won}) for text, won in sides]
    yield from _rows(row, index, found, "history", "human_ref_A", "human_ref_B", "labels")


def _same(row: Row, index: int) -> Iterator[Row]:
    yield row


def _not_the_chosen(ds: Dataset, where: str) -> bool:
    """UltraFeedback's pairs repeat the chosen conversation as `messages`."""
    first = ds[: min(len(ds), 200)]
    return "chosen" not in first or first["messages"] != first["chosen"]


# --- the forms -------------------------------------------------------------------------------------------

_SCORED = REWARD_PREFIX + "<name>"
_SIDES = "text|texts|turns|nothing"
SHAPES: dict[str, Source] = {
    "responses": Source("prompt and response", "", {RESPONSE: ""}, _same),
    "scored rows": Source("prompt_id, attribute, treated and reward/NAME", "", {TREATED: "", ATTRIBUTE: ""}, _same),
    "messages": Source(
        "messages, conversations whose last turn is the response", "", {"messages": "turns"}, _messages,
        content=_not_the_chosen,
    ),
    "preferences": Source(
        "chosen and rejected (texts, lists of texts or turns), with or without a prompt", "",
        {"chosen": _SIDES, "rejected": _SIDES}, preferences,
    ),
    "prompt-completion": Source("prompt and completion", "", {PROMPT: "", "completion": "text|turns"}, completion),
    "ultrafeedback": Source(
        "instruction and completions, as in UltraFeedback", "",
        {"instruction": "text", "completions": "list|turns"}, completions,
    ),
    "helpsteer3": Source(
        "context, response1 and response2, as in HelpSteer3", "",
        {"context": "text|turns", "response1": "text", "response2": "text"}, two_responses,
    ),
    "shp": Source(
        "history, human_ref_A and human_ref_B, as in SHP", "",
        {"history": "text", "human_ref_A": "text", "human_ref_B": "text", "labels": "integer"}, human_refs,
    ),
}  # fmt: skip


SYSTEM = ("system", "system_prompt")


def with_system(ds: Dataset, where: str) -> Dataset:
    """The table with a column of system texts as the first turn of its prompts; without both it is given back as it is.

    Examples
    --------
    >>> from datasets import Dataset
    >>> ds = Dataset.from_list([{"system": "Be brief.", "prompt": "Why?", "response": "So."}])
    >>> [turn["role"] for turn in with_system(ds, "here")["prompt"][0]]
    ['system', 'user']
    """
    have = ds.column_names
    name = next((c for c in SYSTEM if c in have and holds(ds, c, "text")), None)
    if name is None or PROMPT not in have or not holds(ds, PROMPT, "text|turns"):
        return ds
    if name == "system" and not any(_is_said(text) for text in ds[name]):  # names of what made the responses
        return ds
    prompts = []
    for index, (system, prompt) in enumerate(zip(ds[name], ds[PROMPT], strict=True), 1):
        try:
            turns = asked(prompt)
        except InputError as e:
            raise InputError(f"{where}, row {index}: {e}") from None
        first = (
            [] if not system or any(t["role"] == "system" for t in turns) else [{"role": "system", "content": system}]
        )
        prompts.append(first + turns)
    log.info("%s: the column %r is read as the system turn of each prompt", where, name)
    column = arrow_columns.column(where, PROMPT, prompts)
    return ds.remove_columns([name, PROMPT]).add_column(PROMPT, column.to_pylist())


def _is_said(text: str | None) -> bool:
    words = (text or "").split()
    return len(words) > 2 or (len(words) == 2 and words[-1][-1] in ".!:")


# --- recognition ------------------------------------------------------------------------------------------


def recognised(ds: Dataset, where: str) -> tuple[str, Source]:
    """The one form or public source that the table is. Raises InputError where it is none, or two at once."""
    have = ds.column_names
    rewarded = bool(reward_columns(have))
    fitting = {
        name: shape
        for name, shape in {**SHAPES, **SOURCES}.items()
        if all(c in have and holds(ds, c, kind) for c, kind in shape.columns.items())
        and (name != "scored rows" or (rewarded and RESPONSE not in have))
        and (shape.content is None or shape.content(ds, where))
    }
    if "responses" in fitting:  # a public source that has our own columns already is read like any other such table
        fitting = {name: shape for name, shape in fitting.items() if name in SHAPES}
    public = [name for name in fitting if name in SOURCES]
    if public:  # what says more of the columns, and knows the content, goes before the general form
        more = set(fitting[public[0]].columns)
        fitting = {n: s for n, s in fitting.items() if n == public[0] or not set(s.columns) <= more}
    if len(fitting) > 1:
        both = " and ".join(f"{name} ({listed(list(shape.columns))})" for name, shape in fitting.items())
        raise InputError(
            f"{where}: the columns are those of {both} at once; leave out (or rename) the columns of the one that is "
            "not meant"
        )
    if not fitting:
        raise _unknown_shape(ds, where)
    return next(iter(fitting.items()))


def holds(ds: Dataset, column: str, kinds: str) -> bool:
    """Whether a column holds one of these kinds ("text|turns"; "" for any)."""
    if not kinds:
        return True
    import pyarrow.compute as pc

    found, values = kind_of(ds.data.schema.field(column).type), ds.data.column(column)
    if found == "number" and "integer" in kinds.split("|"):  # as pandas writes integers of which one is missing
        return pc.all(pc.equal(pc.floor(values), values)).as_py() is not False
    return found in kinds.split("|") or (found == "integer" and "number" in kinds.split("|"))


def _unknown_shape(ds: Dataset, where: str) -> InputError:
    near = [
        f"{theirs!r} for {ours!r}"
        for ours, names in OTHER_NAMES.items()
        for theirs in ds.column_names
        if ours not in ds.column_names and theirs.strip().lower() in (ours, f"{ours}s", *names)
    ]
    hint = f" (perhaps {' and '.join(near[:2])})" if near else ""
    of_scored = {c: c in ds.column_names for c in (ATTRIBUTE, TREATED)} | {
        _SCORED: bool(reward_columns(ds.column_names))
    }
    gone = [c for c, there in of_scored.items() if not there]
    if len(gone) == 1:
        hint += f". Of scored rows: {lacks(gone[0], ds.column_names)}"
    kinds = listed(
        [f"{c if c == c.strip() else repr(c)} ({kind_of(ds.data.schema.field(c).type)})" for c in ds.column_names]
    )
    known = "; ".join(shape.about for shape in SHAPES.values())
    return InputError(
        f"{where}: no column 'response' (columns: {kinds}), and none of the other forms that are known: {known}; "
        f"say which column is which with columns={{'response': '...'}} (--column response=...){hint}"
    )


OTHER_NAMES = {
    RESPONSE: ("text", "answer", "output", "review", "reply", "content", "generation", "model_output"),
    PROMPT: ("question", "instruction", "query", "input"),
}


def kind_of(arrow: Any) -> str:
    """What a column of that Arrow type holds, in the words of `Source.columns`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> kind_of(pa.large_string()), kind_of(pa.int8()), kind_of(pa.list_(pa.string()))
    ('text', 'integer', 'texts')
    """
    import pyarrow.types as types

    def text(t: Any) -> bool:
        return bool(types.is_string(t) or types.is_large_string(t) or types.is_string_view(t))

    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        inner = arrow.value_type
        if types.is_struct(inner) and {"role", "content"} <= {field.name for field in inner}:
            return "turns"
        return "texts" if text(inner) else "list"
    kinds: dict[str, Callable[[Any], bool]] = {
        "nothing": types.is_null, "text": text, "bool": types.is_boolean, "integer": types.is_integer,
        "number": types.is_floating, "record": types.is_struct,
    }  # fmt: skip
    return next((kind for kind, holds in kinds.items() if holds(arrow)), shorten(arrow, 40))


# --- reading ----------------------------------------------------------------------------------------------


def parse(source: Source, ds: Dataset, where: str) -> Dataset:
    """The responses that the rows of a form hold. Raises InputError that names the row."""

    carried = [c for c in (TREATED, REWRITES, *reward_columns(ds.column_names, how_read=True)) if c in ds.column_names]
    if carried and not {TREATED, REWRITES} & set(source.columns):
        raise InputError(
            f"{where}: {listed(carried)} belong to one response a row, and these rows are {source.about}; "
            "give the responses as prompt and response"
        )
    rows: list[Row] = []
    unread = empty = 0
    for index, row in enumerate(ds):
        try:
            found = list(source.rows(row, index))
        except InputError as e:
            raise InputError(f"{where}, row {index + 1}: {e}") from None
        except (TypeError, LookupError, AttributeError, ValueError) as e:  # a value within a record or a list
            raise InputError(
                f"{where}, row {index + 1}: not as in {source.about} ({type(e).__name__}: {shorten(e, 80)})"
            ) from None
        full = [r for r in found if isinstance(r[RESPONSE], str) and r[RESPONSE].strip()]
        rows += full
        unread += not found
        empty += len(found) - len(full)
    if empty:
        log.warning("%s: %d of %d responses are missing or empty and were dropped", where, empty, empty + len(rows))
    if unread:
        log.warning("%s: %d of %d rows hold no response and were dropped", where, unread, len(ds))
    if not rows:
        raise InputError(f"{where}: no row holds a response (of turns it is the last one, by 'assistant')")
    return arrow_columns.dataset(arrow_columns.table(rows, where))


def require_schema(source: Source, ds: Dataset, where: str) -> None:
    """Raise one InputError that names every column of the source that the table lacks, or has with another content."""
    import difflib

    faults, gone = [], []
    have: Sequence[str] = ds.column_names
    for column, kinds in source.columns.items():
        if column not in have:
            near = difflib.get_close_matches(column, have[:100], n=1, cutoff=0.6)
            gone.append(f"{column!r}" + (f" (is it {near[0]!r} now?)" if near else ""))
        elif not holds(ds, column, f"{kinds}|nothing"):
            found = kind_of(ds.data.schema.field(column).type)
            faults.append(f"{column!r} holds {found} where {kinds} was expected")
    if gone:
        faults.insert(0, f"no column {', '.join(gone)}")
    if faults:
        hint = (
            "The dataset on the hub has changed: say which column is which with columns={ours: theirs} (--column), or "
            "give a copy in the old schema with data_files (--data-files)"
            if where == source.hub_id
            else "Say which column is which with columns={ours: theirs} (--column), or mend the file"
        )
        raise InputError(
            f"{where}: {'; '.join(faults)}; this source has {', '.join(source.columns)}, "
            f"the data have {listed(list(have))}. {hint}"
        )
