"""What a reply is worth: the rewrite that it holds, or the reason why it holds none.

A reply is judged each time it is read, never when it is stored: the cache keeps what the model said, so a better
judge sees old replies too, at no cost. What surrounds the text (a preamble, quotes, tags) is taken off where that is
certain; where it is not, the reply does not count and its status says why.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from ratekit.rewriting.base import (
    EMPTY,
    EXPLODED,
    FAILED,
    LEAKED,
    OK,
    PREAMBLE,
    REFUSED,
    TRUNCATED,
    UNCHANGED,
    WRONG_LANGUAGE,
    Reply,
    Rewrite,
)  # fmt: skip

Judge = Callable[[Reply, str], Rewrite]

# An apology or "as an AI", then that it cannot do what it was asked: a review's "I can't recommend" is none.
_REFUSAL = re.compile(
    r"(?:(?:i['’]m|i am)(?: very| so| truly)? sorry\W{1,3}|sorry\W{1,3}|i apologi[sz]e\W{1,3}|my apologies\W{1,3}"
    r"|unfortunately\W{1,3}|as an ai\b[^,.\n]{0,40}\W{1,3})*(?:but\W{1,2})?"
    r"i(?:['’]m| am)? (?:can(?:['’]t|not| not)|unable to|not able to|not comfortable|won['’]t be able to|must decline"
    r"|have to decline|will not|won['’]t)(?: to)?(?: directly)?"
    r" (?:help(?! but\b)|assist|fulfil|fulfill|comply|do (?:that|this)|rewrite|rewriting|adjust|modify|generate"
    r"|produce|engage|continue with|provide (?:that|this|a|an)|create (?:that|this|a|an|content)"
    r"|write (?:that|this|such)|with (?:that|this))\b"
    r"|as an ai (?:language model|assistant)\b",
    re.IGNORECASE,
)
# "Here is the longer version:" on a line of its own, and only that.
_PREAMBLE_LINE = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|got it)\b[^\n]{0,80}"
    r"|here(?:['’]s| is| are| you go)\b[^\n]{0,120}"
    r"|(?:the )?(?:adjusted|rewritten|revised|modified|edited|new) (?:response|version|text|review|answer)\b[^\n]{0,60}"
    r"):\**[ \t]*\n+",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok)[!,.] +"
    r"(?:here\b|i(?:['’]ve| have) (?:adjusted|rewritten|revised|modified|made|changed)\b)"
    r"|here(?:['’]s| is) (?:the|a|an|your|my) [^\n:.]{0,40}"
    r"(?:response|version|rewrite|adjust\w*|rewritten|revised|revision|review|text|answer)\b"
    r"|i(?:['’]ve| have) (?:adjusted|rewritten|revised|modified|made)\b"
    r"|(?:adjusted|rewritten|revised) (?:response|version|text)\b",
    re.IGNORECASE,
)
_POSTAMBLE = re.compile(
    r"\n\s*[(\[*_]{0,2}(?:note:|note that i|i(?:['’]ve| have) (?:adjusted|rewritten|kept|changed|made|tried|only)\b"
    r"|let me know if|changes made|this version|the (?:adjusted|rewritten|revised) )[^\n]*\s*$",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_WRAPPED = re.compile(r"<(response|adjusted_response|rewritten_response|review|text)>\s*(.*?)\s*</\1>", re.DOTALL)
_FENCED = re.compile(r"```[\w-]*\n(.*?)\n?```", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "«": "»", "'": "'", "‘": "’"}
_LEAKS = ("<response>", "</response>", "<prompt>", "</prompt>", "adjust this response so it")


def judge(reply: Reply, source: str, template: str = "") -> Rewrite:
    """The rewrite that a reply to `source` holds, or why it holds none.

    >>> judge(Reply(0, "A longer text.", "stop"), "A text.")
    Rewrite(text='A longer text.', status='ok')
    >>> judge(Reply(0, "Here is the longer version:\\n\\n'A longer text.'", "stop"), "A text.")
    Rewrite(text='A longer text.', status='ok')
    >>> judge(Reply(0, "A longer te", "length"), "A text.")
    Rewrite(text=None, status='truncated')

    source    the text that was to be rewritten; what it has itself (a quote, an apology) is not held against the reply
    template  the rewriting prompt, so that a reply that repeats it is known

    A reply that was cut off, refused or empty is never passed on as a text.
    """
    if reply.finish_reason == "length":
        return Rewrite(None, TRUNCATED)
    if reply.finish_reason == "content_filter":
        return Rewrite(None, REFUSED)
    if reply.finish_reason != "stop":
        return Rewrite(None, FAILED)
    source = source.strip()
    text = _unwrapped((reply.text or "").strip(), source)
    if not text or (not any(c.isalnum() for c in text) and any(c.isalnum() for c in source)):
        return Rewrite(None, EMPTY)
    fault = _fault(text, source, template)
    return Rewrite(None, fault) if fault else Rewrite(text, OK)


def _fault(text: str, source: str, template: str) -> str | None:
    if _REFUSAL.match(text) and not _REFUSAL.match(source):
        return REFUSED
    if _leaks(text, source, template):
        return LEAKED
    if _PREAMBLE.match(text) and not _PREAMBLE.match(source):
        return PREAMBLE
    if _POSTAMBLE.search(text) and not _POSTAMBLE.search(source):
        return PREAMBLE
    if text == source:
        return UNCHANGED
    if len(text) > 8 * len(source) + 2000:
        return EXPLODED
    if _language_differs(text, source):
        return WRONG_LANGUAGE
    return None


def _unwrapped(text: str, source: str) -> str:
    """`text` without what certainly surrounds the rewrite and is not in the source too."""
    if thought := _THOUGHT.match(text):
        text = text[thought.end() :].strip()
    for _ in range(3):  # a preamble before a fence before quotes
        before = text
        preamble = _PREAMBLE_LINE.match(text)
        if preamble and not _PREAMBLE_LINE.match(source):
            text = text[preamble.end() :].strip()
        for wrapping in (_WRAPPED, _FENCED):
            whole = wrapping.fullmatch(text)
            if whole and not wrapping.fullmatch(source):
                text = whole[whole.re.groups].strip()
        if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and _quoted_whole(text) and not _quoted_whole(source):
            text = text[1:-1].strip()
        if text == before:
            break
    return text


def _quoted_whole(text: str) -> bool:
    """One pair of quotes around everything: none of either kind inside (an apostrophe within a word is none)."""
    if len(text) < 3 or _QUOTES.get(text[0]) != text[-1]:
        return False
    inside = text[1:-1]
    if text[0] in "'‘":
        inside = re.sub(r"(?<=\w)['’](?=\w)", "", inside)
    return text[0] not in inside and text[-1] not in inside


def _leaks(text: str, source: str, template: str) -> bool:
    lower, source = text.lower(), source.lower()
    if any(mark in lower and mark not in source for mark in _LEAKS):
        return True
    folded, folded_source = " ".join(lower.split()), " ".join(source.split())
    return any(run in folded and run not in folded_source for run in _runs(template))


@functools.cache
def _runs(template: str) -> frozenset[str]:
    """Every seven words in a row of the template's own text."""
    found: set[str] = set()
    for part in re.split(r"\{\w+\}", template.lower()):
        words = part.split()
        found.update(" ".join(words[i : i + 7]) for i in range(len(words) - 6))
    return frozenset(found)


# --- language: by script, and for Latin script by the commonest words; "certain" needs several of them ---------------

_COMMON = {
    "en": "the and of to is was that it with for this are but not have you",
    "es": "el los las que una por con para pero como más está muy del",
    "fr": "les des est une que pour dans pas avec mais sont cette très vous",
    "de": "der die das und ist nicht ein eine mit auf für sich auch wird",
    "it": "il gli che una per con non sono della questo è molto anche",
    "pt": "os uma que não com para mas como mais está muito são você",
    "nl": "het een van niet dat zijn voor maar met ook wordt deze heel",
}
_COMMON_WORDS = {language: frozenset(line.split()) for language, line in _COMMON.items()}


def _language_differs(text: str, source: str) -> bool:
    theirs, ours = _script(text), _script(source)
    if theirs and ours and theirs != ours:
        return True
    if theirs != "LATIN" or ours != "LATIN":
        return False
    theirs, ours = _language(text), _language(source)
    return bool(theirs and ours and theirs != ours)


def _script(text: str) -> str | None:
    """The script of most letters, where there are enough of them to say."""
    letters = [c for c in text[:2000] if c.isalpha()]
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
    scores = sorted(((sum(w in common for w in words), name) for name, common in _COMMON_WORDS.items()), reverse=True)
    (best, name), (second, _) = scores[0], scores[1]
    return name if best >= 0.1 * len(words) and best >= 2 * second else None
