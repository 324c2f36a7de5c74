"""The data that flows: one row is one response under one attribute; each stage adds columns.

    load      prompt_id, prompt, response
    label     attribute, treated
    rewrite   rewrites, rewrite_status
    score     reward/<name>
    estimate  reads attribute, treated, prompt_id and the reward columns

Example row after all stages, at depth 2::

    {"prompt_id": "q7", "prompt": [{"role": "user", "content": "Why is the sky blue?"}],
     "response": "Because of Rayleigh scattering.", "attribute": "length", "treated": False,
     "rewrites": ["Because of ... and so on.", "Rayleigh scattering."], "rewrite_status": ["ok", "ok"],
     "reward/words": [4.0, 31.0, 2.0]}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ratekit.errors import InputError, shorten, unknown

PROMPT_ID = "prompt_id"
PROMPT = "prompt"
RESPONSE = "response"
ATTRIBUTE = "attribute"
TREATED = "treated"
REWRITES = "rewrites"
REWRITE_STATUS = "rewrite_status"
REWRITER = "rewriter"  # there only where several rewriters rewrote the same rows
REWARD_PREFIX = "reward/"
REWARD_STATUS_PREFIX = "reward_status/"  # there only where a text was not scored, or not whole
# Columns beside a judge's reward that say how it was read: `reward/<name>/<one of these>`; they are no rewards.
SHOWN_FIRST, SHOWN_SECOND, ANSWER_MASS = HOW_READ = ("shown_first", "shown_second", "answer_mass")
MEASURE_PREFIX = "measure/"  # an attribute's own measure of the response and its rewrites, where no name stands for it

LARGEST = 1e100  # of a reward or a measure: the squares of larger ones would leave float64

Conversation = list[dict[str, str]]

ADDED_BY: dict[str, str] = {
    PROMPT_ID: "load",
    PROMPT: "load",
    RESPONSE: "load",
    ATTRIBUTE: "label",
    TREATED: "label",
    REWRITES: "rewrite",
    REWRITE_STATUS: "rewrite",
    REWARD_PREFIX + "<name>": "score",
}

NEEDED_BY: dict[str, tuple[str, ...]] = {
    "label": (PROMPT_ID, RESPONSE),
    "rewrite": (PROMPT_ID, RESPONSE, ATTRIBUTE, TREATED),
    "score": (PROMPT, RESPONSE),
    "estimate": (PROMPT_ID, ATTRIBUTE, TREATED),
    "diagnose": (PROMPT_ID, ATTRIBUTE, TREATED, RESPONSE, REWRITES),
}


YES = frozenset({"true", "t", "yes", "y", "positive", "pos", "treated"})
NO = frozenset({"false", "f", "no", "n", "negative", "neg", "untreated", "control"})


def truth(value: Any) -> bool | None:
    """True or False for whatever spells it: bools, 0 and 1, and the words of `YES` and `NO` in any case; else None.

    Examples
    --------
    >>> truth(" TRUE "), truth("F"), truth(0.0), truth("1.0"), truth("maybe"), truth(2)
    (True, False, False, True, None, None)
    """
    word = str(value).strip().lower()
    if word in YES or word in NO:
        return word in YES
    try:
        number = float(word)
    except ValueError:
        return None
    return bool(number) if number in (0, 1) else None


def columns_of(ds: Any) -> list[str]:
    """The column names of a Dataset, Arrow table or DataFrame."""
    names = getattr(ds, "column_names", None)
    return list(names if names is not None else ds.columns)


def reward_columns(columns: Iterable[str], how_read: bool = False) -> list[str]:
    """The columns that hold rewards, in their order; with `how_read` also those that say how a judge was read.

    Examples
    --------
    >>> columns = ["response", "reward/vader", "reward/judge", "reward/judge/answer_mass"]
    >>> reward_columns(columns)
    ['reward/vader', 'reward/judge']
    >>> reward_columns(columns, how_read=True)[2:]
    ['reward/judge/answer_mass']
    """
    return [
        c for c in columns
        if c.startswith(REWARD_PREFIX) and len(c) > len(REWARD_PREFIX)
        and (how_read or c.rpartition("/")[0] == REWARD_PREFIX[:-1] or c.rpartition("/")[2] not in HOW_READ)
    ]  # fmt: skip


def reward_models(ds: Any) -> list[str]:
    """The names of the reward models by which a dataset is scored, in their order."""
    return [reward_name(c) for c in reward_columns(columns_of(ds))]


def grouping(table: Any, before: str = ATTRIBUTE) -> list[str]:
    """The columns of a table that stand before `before`: those that `by=` put there."""
    columns = list(map(str, table.columns))
    return columns[: columns.index(before)]


def require(ds: Any, stage: str, columns: Sequence[str] | None = None) -> None:
    """Raise one clear `InputError` unless `ds` has the columns that `stage` reads.

    The error names the missing column, the stage that adds it, and a near-miss among the columns.

    Examples
    --------
    >>> import pandas as pd
    >>> require(pd.DataFrame({"prompt_id": [], "response": []}), "label")
    """
    have = columns_of(ds)
    for column in NEEDED_BY[stage] if columns is None else columns:
        if column not in have:
            raise _missing(column, have, stage)
    if stage == "estimate" and not reward_columns(have):
        raise _missing(REWARD_PREFIX + "<name>", have, stage)


def _missing(column: str, have: list[str], stage: str) -> InputError:
    return InputError(f"{stage}: {lacks(column, have)}. Columns: {listed(have)}")


def lacks(column: str, have: Sequence[str]) -> str:
    """That a column is not there, with what it may be misspelt as and the stage that adds it.

    Examples
    --------
    >>> lacks("treated", ["treatd"])
    "no column 'treated' (is it misspelt as 'treatd'?); the stage 'label' adds it"
    """
    near = difflib.get_close_matches(column, have, n=1, cutoff=0.7)
    spelt = f" (is it misspelt as {near[0]!r}?)" if near else ""
    return f"no column {column!r}{spelt}; the stage {ADDED_BY.get(column, 'before')!r} adds it"


def listed(columns: Sequence[str], most: int = 20) -> str:
    """Column names for a message, however many and long they are.

    Examples
    --------
    >>> listed(["prompt", "response"]), listed([f"c{i}" for i in range(1000)], most=3)
    ('prompt, response', 'c0, c1, c2 and 997 more')
    """
    shown = ", ".join(shorten(c, 40) for c in columns[:most]) or "none"
    return shown + (f" and {len(columns) - most:,} more" if len(columns) > most else "")


def reward_name(column: str) -> str:
    """`reward/vader` -> `vader`."""
    return column[len(REWARD_PREFIX) :]


def find_reward(ds: Any, name: str) -> str:
    """The column of the reward model `name`, with the nearest names if there is none."""
    columns = reward_columns(columns_of(ds), how_read=True)
    for column in columns:
        if name in (column, reward_name(column)):
            return column
    raise unknown("reward model", name, [reward_name(c) for c in columns])


def as_conversation(prompt: Any) -> Conversation:
    """A prompt in the ecosystem's form; a plain string is one user turn.

    Parameters
    ----------
    prompt
        A string, a list of ``{"role", "content"}`` turns, or None (no turn). Content is a string, or a list of parts
        of which all are text, as in ``{"type": "text", "text": "Why?"}``; these are joined.

    Returns
    -------
    list of dict
        Turns with ``role`` and ``content``, both strings.

    Raises
    ------
    InputError
        Where a turn has no role or no text: null, an image, a tool call, a number.

    Examples
    --------
    >>> as_conversation("Why?")
    [{'role': 'user', 'content': 'Why?'}]
    >>> as_conversation([{"role": "user", "content": [{"type": "text", "text": "Why?"}]}])
    [{'role': 'user', 'content': 'Why?'}]
    """
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) and not hasattr(prompt, "tolist"):
        raise InputError(f"a prompt is a string or a list of {{'role', 'content'}} turns; got {shorten(prompt, 80)!r}")
    return [_turn(turn, k) for k, turn in enumerate(prompt, 1)]


def _turn(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
        raise InputError(
            f"turn {number} of a conversation is {shorten(turn, 80)!r}; a record with 'role' and 'content' was expected"
        )
    role, content = turn["role"], turn["content"]
    if not isinstance(role, str) or not role:
        raise InputError(f"turn {number} of a conversation has the role {shorten(role)!r}; a name was expected")
    for calls in ("tool_calls", "function_call"):
        if turn.get(calls) is not None and len(turn[calls]):
            raise InputError(f"turn {number} of a conversation ({role}) holds {calls}, which are no text")
    if not isinstance(content, str):
        content = _joined(content, f"turn {number} of a conversation ({role})")
    return {"role": role, "content": content}


def _joined(parts: Any, where: str) -> str:
    """The text of a list of parts; None and whatever is no text is refused."""
    if parts is None:
        raise InputError(f"{where} has no content (null); text was expected")
    if isinstance(parts, Mapping) or not (isinstance(parts, Sequence) or hasattr(parts, "tolist")):
        raise InputError(f"{where} has the content {shorten(parts)!r}; text was expected")
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise InputError(f"{where} has a part that is no text ({shorten(kind)})")
        texts.append(text)
    return "".join(texts)


def prompt_text(prompt: Any) -> str:
    r"""The prompt as plain text: one turn as it is, several with their roles.

    Examples
    --------
    >>> prompt_text([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}])
    'user: Hi\n\nassistant: Hello!'
    """
    turns = as_conversation(prompt)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{t['role']}: {t['content']}" for t in turns)
