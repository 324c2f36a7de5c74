"""What a rewrite changed, word by word: pieces that a test can add up, and the HTML that shows them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from ratekit.escaping import cut, escaped

# A word with what space follows it, or one sign: space of its own would match everywhere and slow the search down.
_WORDS = re.compile(r"\s+|(?:\w+(?:['’]\w+)*|[^\w\s])\s*")
_EXACT_UP_TO = 2_000  # words; above this frequent words are no anchors (difflib's autojunk), which keeps it quick

DIFF_STYLE = """\
.rk-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.rk-text del { background: #fbe3d6; color: #7a2e00; text-decoration: line-through; }
.rk-text ins { background: #d9e8f6; color: #00386b; text-decoration: underline; }
.rk-cut { opacity: .72; font-style: italic; }
:is([data-jp-theme-light="false"], .vscode-dark) .rk-text del { background: #5a2a12; color: inherit; }
:is([data-jp-theme-light="false"], .vscode-dark) .rk-text ins { background: #123e63; color: inherit; }
"""


@dataclass(frozen=True)
class Piece:
    """A run of text that both texts have, or only the first (removed), or only the second (added)."""

    kind: Literal["same", "removed", "added"]
    text: str


def word_differences(before: str, after: str) -> list[Piece]:
    """The pieces that lead from `before` to `after`: same and removed make `before`, same and added make `after`.

    Pieces are whole words with the space that follows. Shortest is not promised; completeness is.

    Examples
    --------
    >>> [(p.kind, p.text) for p in word_differences("a fine film", "a dull film")]
    [('same', 'a '), ('removed', 'fine '), ('added', 'dull '), ('same', 'film')]
    >>> word_differences("same", "same")
    [Piece(kind='same', text='same')]
    """
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    pieces = [Piece("same", "".join(old[:head]))]
    pieces += _middle(middle_old, middle_new)
    pieces.append(Piece("same", "".join(old[len(old) - tail :])))
    return list(_joined(p for p in pieces if p.text))


def changed_share(before: str, after: str) -> float:
    """The share of words, of both texts together, that the other one does not have in its place.

    Examples
    --------
    >>> changed_share("one two three four", "one two three five")
    0.25
    >>> changed_share("", "")
    0.0
    """
    pieces = word_differences(before, after)
    counts = {"same": 0, "removed": 0, "added": 0}
    for piece in pieces:
        counts[piece.kind] += len(piece.text.split())
    total = 2 * counts["same"] + counts["removed"] + counts["added"]
    return (counts["removed"] + counts["added"]) / total if total else 0.0


def differences_html(before: str, after: str, limit: int = 20_000) -> str:
    """The rewrite with its differences marked, as HTML that only shows: removed struck through, added underlined.

    Put `STYLE` on the page once. Marks differ by line as well as by colour. Each text is cut at `limit` characters, and
    the cut is said. Everything from the texts is escaped, and control and direction marks are written as signs.

    Examples
    --------
    >>> differences_html("a <b> film", "a good film")
    '<div class="rk-text"><bdi>a <del>&lt;b&gt; </del><ins>good </ins>film</bdi></div>'
    """
    old, old_note = cut(before, limit)
    new, new_note = cut(after, limit)
    body = "".join(_marked(piece) for piece in word_differences(old, new))
    notes = [f"{name}{note}" for name, note in (("before", old_note), ("after", new_note)) if note]
    said = f'<span class="rk-cut">{html.escape("; ".join(notes))}</span>' if notes else ""
    return f'<div class="rk-text"><bdi>{body}</bdi>{said}</div>'


def _marked(piece: Piece) -> str:
    text = escaped(piece.text)
    tag = {"removed": "del", "added": "ins"}.get(piece.kind)
    return f"<{tag}>{text}</{tag}>" if tag else text


def _common(a: list[str], b: list[str]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def _middle(old: list[str], new: list[str]) -> Iterator[Piece]:
    matcher = SequenceMatcher(None, old, new, autojunk=max(len(old), len(new)) > _EXACT_UP_TO)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            yield Piece("same", "".join(old[i:j]))
        else:
            yield Piece("removed", "".join(old[i:j]))
            yield Piece("added", "".join(new[k:m]))


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one piece; a change is told removed first, then added."""
    removed = added = same = ""
    for piece in pieces:
        if piece.kind == "same":
            if removed or added:
                yield from _change(removed, added)
                removed = added = ""
            same += piece.text
            continue
        if same:
            yield Piece("same", same)
            same = ""
        if piece.kind == "removed":
            removed += piece.text
        else:
            added += piece.text
    if same:
        yield Piece("same", same)
    yield from _change(removed, added)


def _change(removed: str, added: str) -> Iterator[Piece]:
    if removed:
        yield Piece("removed", removed)
    if added:
        yield Piece("added", added)
