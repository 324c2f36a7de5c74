# ruff: noqa: E501
"""Which script and language a text is in, where it has enough letters and words to say; phrases per language, as data.

A language is added by a line in the tables.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

# The commonest words of languages in Latin script, by which they are told apart.
COMMON: dict[str, str] = {
    "en": "the and of to is was that it with for this are but not have you",
    "es": "el los las que una por con para pero como más está muy del",
    "fr": "les des est une que pour dans pas avec mais sont cette très vous",
    "de": "der die das und ist nicht ein eine mit auf für sich auch wird",
    "it": "il gli che una per con non sono della questo è molto anche",
    "pt": "os uma que não com para mas como mais está muito são você",
    "nl": "het een van niet dat zijn voor maar met ook wordt deze heel",
}

# What says that somebody is sorry, or that somebody cannot: what `mentions` counts.
APOLOGIES: dict[str, tuple[str, ...]] = {
    "en": ("sorry", "apologise", "apologize", "apologies"),
    "zh": ("抱歉", "对不起", "對不起", "不好意思"),
    "ja": ("申し訳", "すみません", "ごめんなさい", "お詫び"),
    "ko": ("죄송", "미안"),
    "es": ("lo siento", "disculpa", "disculpas", "perdón"),
    "fr": ("désolé", "désolée", "je m'excuse", "mes excuses"),
    "de": ("tut mir leid", "es tut mir leid", "entschuldigung", "entschuldige"),
}
NO_APOLOGIES = ("sorry to hear", "sorry that you", "sorry you", "sorry for your", "sorry about your", "feel sorry for")
UNABLE: dict[str, tuple[str, ...]] = {
    "en": (
        "i cannot", "i can't", "i can not", "i am unable to", "i'm unable to", "i am not able to", "i'm not able to",
        "i won't be able to", "i will not be able to", "i am not allowed to", "i'm not allowed to",
        "unfortunately, i don't have", "i must decline", "i have to decline", "i'd rather not",
    ),
    "zh": ("我无法", "我不能", "我無法", "我没办法", "我沒辦法", "我没法", "我不便"),
    "ja": ("できません", "できかねます", "いたしかねます"),
    "ko": ("할 수 없", "드릴 수 없", "도와드릴 수 없", "답변하기 어렵"),
    "es": ("no puedo", "no podré", "no me es posible"),
    "fr": ("je ne peux pas", "je ne peux malheureusement pas", "je ne suis pas en mesure"),
    "de": ("ich kann nicht", "kann ich nicht", "ich kann das nicht", "kann ich leider nicht", "ich kann leider nicht",
           "ich kann dir nicht", "ich kann ihnen nicht", "kann ich dir nicht", "kann ich ihnen nicht"),
}  # fmt: skip
NOT_UNABLE = tuple(
    f"i {cannot} {verb}"
    for cannot in ("can't", "cannot", "can not")
    for verb in ("remember", "recall", "wait", "imagine", "believe", "be sure", "know exactly", "stand", "say i", "say that",
                 "help but", "have", "express", "think straight", "understand")
)  # fmt: skip


def every(phrases: Mapping[str, Sequence[str]]) -> list[str]:
    """The phrases of all languages, each once.

    Examples
    --------
    >>> every(APOLOGIES)[:2]
    ['sorry', 'apologise']
    """
    return list(dict.fromkeys(phrase for of in phrases.values() for phrase in of))


# Characters of scripts that do not part words by spaces: Thai, Lao, Burmese, Khmer, kana, Han.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{UNSPACED}]")

_COMMON_WORDS = {language: frozenset(line.split()) for language, line in COMMON.items()}


def count_words(text: str) -> int:
    """Words parted by white space; where a script parts none, each letter of it is one.

    Examples
    --------
    >>> count_words("one two  three"), count_words("我用 iPhone 拍照。"), count_words("ข้าว ดี")
    (3, 5, 4)
    """
    if text.isascii() or not (found := _UNSPACED.findall(text)):
        return len(text.split())
    rest = _UNSPACED.sub(" ", text).split()
    return sum(c.isalpha() for c in found) + sum(any(c.isalnum() for c in word) for word in rest)


def maybe_english(text: str) -> bool:
    """Whether nothing says that a text is in another language: too short to tell is English.

    Examples
    --------
    >>> maybe_english("Fine."), maybe_english("这部电影的情节很单薄，演员的表演也很生硬。")
    (True, False)
    """
    return _begins_english(text[:4000])


@functools.lru_cache(maxsize=1 << 14)
def _begins_english(text: str) -> bool:
    letters = [] if text.isascii() else [c for c in text[:2000] if c.isalpha()]
    latin = sum(c.isascii() or unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return latin >= 0.7 * len(letters) and _language(text) in (None, "en")


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
