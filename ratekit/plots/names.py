"""Names and numbers as labels: short, on lines of a given width, never alike where what they name is not.

A name from data is only a name: control characters go, and a dollar is a dollar, no mathematics.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from ratekit.errors import shorten
from ratekit.tables import to_places

_Key = TypeVar("_Key", bound=Hashable)


def cleaned(text: object) -> str:
    """A name from data on one line, without control characters."""
    return "".join(c for c in " ".join(str(text).split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def names(values: Iterable[Hashable], width: int = 40) -> dict[Any, str]:
    """Short names for what is drawn in one picture: different values never look alike."""
    return distinct({value: cleaned(value) for value in dict.fromkeys(values)}, width)


def plain(text: object, width: int = 40) -> str:
    """One name as part of a label: one line, not too long, no control characters.

    Examples
    --------
    >>> plain("a\\x1b[31m $5")
    'a[31m $5'
    """
    return names([text if isinstance(text, str) else str(text)], width).popitem()[1]


def folded(text: str, width: int) -> str:
    """A label on several lines, broken after a slash, a dash or the like, and within a word that is too long.

    Examples
    --------
    >>> folded("sfairXC/FsfairX-LLaMA3-RM-v0.1", 14)
    'sfairXC/\\nFsfairX-\\nLLaMA3-RM-v0.1'
    >>> folded("abcdefghij", 4)
    'abcd\\nefgh\\nij'
    """
    width = max(width, 4)
    lines = [""]
    for word in re.split(r"(?<=[/_ *+:-])|(?<=\.\.\.)(?!\.)", text):
        pieces = [word[i : i + width] for i in range(0, len(word), width)] if len(word.rstrip()) > width else [word]
        for piece in pieces:
            if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines if line.strip()).replace("$", r"\$")


def written(value: float, largest: float = 1.0) -> str:
    """A number with its sign, to as many places as a table needs whose largest number is `largest`.

    Examples
    --------
    >>> written(0.034), written(-12.34, largest=87), written(0.00012, largest=0.003), written(0.004)
    ('+0.03', '\N{MINUS SIGN}12.3', '+0.0001', '+0.004')
    """
    if value == 0:
        return "0"
    if not 1e-4 <= largest < 1e5:
        text = f"{value:+.1e}"
    else:
        size = math.floor(math.log10(largest))
        text = to_places(value, max(2 - size if size >= 0 else 1 - size, 0))
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text


def distinct(names: Mapping[_Key, str], width: int = 40) -> dict[_Key, str]:
    """Names on one line each, none longer than `width`, and no two alike: what tells them apart is kept.

    Parameters
    ----------
    names : mapping
        What is named -> its name.
    width : int
        Characters, at least 12.

    Returns
    -------
    dict
        What is named -> its short name.

    Examples
    --------
    >>> runs = [f"org/Llama-3.1-8B-Instruct-lr{lr}-seed1-checkpoint-12000" for lr in ("1e-5", "2e-5")]
    >>> for name in distinct({run: run for run in runs}, 36).values():
    ...     print(name)
    org/Llama-3.1...lr1e...ckpoint-12000
    org/Llama-3.1...lr2e...ckpoint-12000
    """
    found = {key: shorten(name, width) for key, name in names.items()}
    for alike in _alike(found):
        found |= _apart({key: " ".join(names[key].split()) for key in alike}, width)
    for alike in _alike(found):  # only names that are the same, or the same but for what no short name can hold
        for k, key in enumerate(alike[1:], 2):
            found[key] = f"{found[key][: width - len(f' ({k})')]} ({k})"
    return found


def _alike(names: Mapping[_Key, str]) -> list[list[_Key]]:
    groups: dict[str, list[_Key]] = {}
    for key, name in names.items():
        groups.setdefault(name, []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _apart(names: Mapping[_Key, str], width: int) -> dict[_Key, str]:
    """The words in which long names differ, with what they share at both ends as far as there is room."""
    texts = list(names.values())
    head = _shared(texts)
    rest = [text[head:] for text in texts]
    tail = _shared([text[::-1] for text in rest])
    while head and texts[0][head - 1].isalnum():
        head -= 1
    while tail and rest[0][len(rest[0]) - tail].isalnum():
        tail -= 1
    if not (head or tail):
        return dict(names) if max(map(len, texts)) <= width else {k: shorten(v, width) for k, v in names.items()}
    middles = {key: text[head : len(text) - tail] for key, text in names.items()}
    room = width - 6 - max(map(len, middles.values()))
    if room < 6:
        return {key: f"...{name}" for key, name in distinct(middles, max(width - 3, 9)).items()}
    first, last = texts[0][:head], texts[0][len(texts[0]) - tail :] if tail else ""
    before = min(len(first), max(room // 2, room - len(last)))
    after = min(len(last), room - before)
    first = first if before == len(first) else f"{first[:before]}..."
    last = last if after == len(last) else f"...{last[len(last) - after :]}" if after else "..."
    return {key: f"{first}{middle}{last}" for key, middle in middles.items()}


def _shared(texts: list[str]) -> int:
    """How many characters all of them begin with."""
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
