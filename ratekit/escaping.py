"""Text from data, made fit to be shown: nothing in it acts on the page or the terminal, and nothing hides.

A response may hold markup, terminal codes or marks that turn the reading direction. They are part of what a reward
model reads, so they are shown as signs, never obeyed and never dropped.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Hashable, Mapping
from typing import TypeVar

from ratekit.errors import shorten

Key = TypeVar("Key", bound=Hashable)

# Controls get their picture from Unicode's own block; these two are layout that a reader expects to see as layout.
_LAYOUT = "\n\t"
# Joiners that scripts and emoji need; every other format character changes how its neighbours are shown.
_KEPT_FORMATS = "\u200c\u200d\u00ad"


def visible(text: str) -> str:
    r"""The text with each control and direction mark written as a sign, and lone surrogates named.

    >>> visible("\x1b[31mred\x1b[0m")
    '␛[31mred␛[0m'
    >>> visible("abc\u202edef")
    'abc⟨U+202E⟩def'
    >>> visible("two\nlines")
    'two\nlines'

    Line breaks and tabs stay; a carriage return before a line break is dropped: readers take the two for one.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_sign(c) for c in text)


def _sign(character: str) -> str:
    code = ord(character)
    if character in _LAYOUT or character in _KEPT_FORMATS or 0x20 <= code < 0x7F:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character


def cut(text: str, limit: int) -> tuple[str, str]:
    """The text's first `limit` characters, and a note of what was left out ("" where nothing was).

    >>> cut("abcdef", 4)
    ('abcd', ' … 2 more characters')
    >>> cut("abc", 4)
    ('abc', '')
    """
    if len(text) <= limit:
        return text, ""
    return text[:limit], f" … {len(text) - limit:,} more characters"


def as_html(text: str, limit: int = 20_000) -> str:
    """The text as HTML that shows it and does nothing else, isolated from the reading direction around it.

    >>> as_html("<b>bold</b>")
    '<bdi>&lt;b&gt;bold&lt;/b&gt;</bdi>'

    Longer texts are cut at `limit` characters, and say so.
    """
    kept, note = cut(text, limit)
    said = f'<span class="rk-cut">{html.escape(note)}</span>' if note else ""
    return f"<bdi>{html.escape(visible(kept))}</bdi>{said}"


def distinct(names: Mapping[Key, str], width: int = 40) -> dict[Key, str]:
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


def _alike(names: Mapping[Key, str]) -> list[list[Key]]:
    groups: dict[str, list[Key]] = {}
    for key, name in names.items():
        groups.setdefault(name, []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _apart(names: Mapping[Key, str], width: int) -> dict[Key, str]:
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
