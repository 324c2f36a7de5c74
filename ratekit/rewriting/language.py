"""Which script and language a text is in, where it has enough letters and words to say."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from ratekit.rewriting.phrases import COMMON

_COMMON_WORDS = {language: frozenset(line.split()) for language, line in COMMON.items()}


def language_differs(text: str, source: str) -> bool:
    """Whether the two are certainly in different scripts or, in Latin script, in different languages."""
    theirs, ours = _script(text), _script(source)
    if theirs and ours and theirs != ours:
        return True
    if theirs != "LATIN" or ours != "LATIN":
        return False
    theirs, ours = _language(text), _language(source)
    return bool(theirs and ours and theirs != ours)


def _script(text: str) -> str | None:
    """The script of most letters, where there are enough of them to say."""
    text = text[:2000]
    if text.isascii():
        return "LATIN" if len(re.findall("[A-Za-z]", text)) >= 12 else None
    letters = [c for c in text if c.isalpha()]
    if len(letters) < 12:
        return None
    if sum(c.isascii() for c in letters) > 0.7 * len(letters):
        return "LATIN"
    counts = Counter(unicodedata.name(c, "?").split()[0] for c in letters)
    east_asian = sum(counts.pop(name, 0) for name in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL"))
    counts["EAST ASIAN"] = east_asian
    script, n = counts.most_common(1)[0]
    return script if n > 0.7 * len(letters) else None


def _language(text: str) -> str | None:
    """The language whose commonest words are at least 10 % of at least 12 words, and twice any other's share."""
    words = re.findall(r"[^\W\d_]+", text[:4000].lower())
    if len(words) < 12:
        return None
    counts = Counter(words)
    scores = sorted(((sum(counts[w] for w in common), name) for name, common in _COMMON_WORDS.items()), reverse=True)
    (best, name), (second, _) = scores[0], scores[1]
    return name if best >= 0.1 * len(words) and best >= 2 * second else None
