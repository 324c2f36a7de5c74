"""Preference pairs, however they come: what loss and accuracy are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.errors import InputError
from ratekit.schema import PROMPT, as_conversation


def read_pairs(pairs: Any) -> list[tuple[Any, str, str]]:
    """(prompt, chosen, rejected) of each preference pair.

    >>> read_pairs([{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}])
    [('Hi', 'Hello!', 'Go away.')]

    pairs  a Dataset, a DataFrame, a list of such objects, or a path to a table: columns prompt, chosen, rejected. The
           responses are strings; conversations that hold the prompt too are split at their last turn

    Raises InputError for a missing column and a pair without text.
    """
    if isinstance(pairs, str | Path):
        pairs = files.read(pairs)
    if hasattr(pairs, "to_dict") and not hasattr(pairs, "features"):
        pairs = pairs.to_dict("records")
    rows = list(pairs)
    if not rows:
        raise InputError("no preference pairs were given")
    found = []
    for number, row in enumerate(rows, 1):
        for column in ("chosen", "rejected"):
            if column not in row:
                have = ", ".join(row)
                raise InputError(
                    f"preference pairs have the columns prompt, chosen and rejected; no {column!r} in {have}"
                )
        sides = [row["chosen"], row["rejected"]]
        prompt = row.get(PROMPT)
        if all(isinstance(side, Sequence) and not isinstance(side, str) and len(side) for side in sides):
            turns = [as_conversation(side) for side in sides]
            prompt = prompt if prompt is not None else turns[0][:-1]
            sides = [t[-1]["content"] for t in turns]
        if prompt is None or not all(isinstance(side, str) and side.strip() for side in sides):
            raise InputError(f"pair {number}: a prompt and two responses (strings) were expected")
        found.append((prompt, *sides))
    return found
