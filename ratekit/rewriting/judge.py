"""What a reply is worth: the rewrite that it holds, or the reason why it holds none.

A reply is judged each time it is read, never when it is stored: the cache keeps what the model said, so a better
judge sees old replies too, at no cost. What surrounds the text (thinking, template tokens, a preamble, a label, quotes,
tags) is taken off where that is certain; where it is not, the reply does not count and its status says why.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from ratekit.languages import language_differs
from ratekit.rewriting.base import (
    EMPTY,
    EXPLODED,
    FAILED,
    LEAKED,
    NOT_TEXT,
    OK,
    PREAMBLE,
    REFUSED,
    REPETITION,
    THINKING,
    TRUNCATED,
    UNCHANGED,
    UNRELATED,
    WRONG_LANGUAGE,
    Reply,
    Rewrite,
)  # fmt: skip
from ratekit.rewriting.marks import (
    ITEM,
    OPTION,
    PARAGRAPH,
    WRAPPED,
    foreign_tags,
    own_marks,
    without_frame,
    without_json,
    without_template,
    without_thoughts,
)
from ratekit.rewriting.phrases import (
    CLOSINGS,
    COURTESIES,
    GLAD,
    LEADS,
    OF_AN_ANNOUNCEMENT,
    OF_NO_CONTENT,
    OPENINGS,
    POINTING,
    REFUSALS,
    REWRITING,
    TALK,
    pattern,
    said,
)

Judge = Callable[[Reply, str], Rewrite]

_REFUSAL, _OPENING, _CLOSING = pattern(REFUSALS), pattern(OPENINGS), pattern(CLOSINGS, flags=re.DOTALL)
_LEAD = pattern(LEADS, after=r"\**[：:]\**[ \t]*\n+")
_GLAD = re.compile(rf"{GLAD}\b", re.IGNORECASE)
_FENCED = re.compile(r"(`{3,}|~{3,})[\w-]*\n(.*?)\n?\1", re.DOTALL)
_TRIPLE = re.compile(
    r"""("{3}|'{2,3})\s*(.*?)\s*\1|``(.*?)''|\\boxed\{(.*)\}|(\*{1,3})([^*\s](?:[^*]*[^*\s])?)\5""", re.DOTALL
)
_QUOTES = {
    '"': '"',
    "“": "”",
    "„": "“”",
    "«": "»",
    "»": "«",
    "‹": "›",
    "'": "'",
    "‘": "’",
    "「": "」",
    "『": "』",
    "`": "`",
}
_RULE = re.compile(  # a line across the page, or one that says that the text ends
    r"\A[-*_=]{3,}[ \t]*\n|\n[ \t]*(?:[-*_=]{3,}|#{2,}|[\[(<](?:stop|done)[\])>])\Z"
    r"|\s[\[(<]/?end(?: of(?: \w{2,12}){1,3})?[\])>]\Z",
    re.IGNORECASE,
)
_QUOTED_LINES = re.compile(r"(?:>[^\n]*(?:\n|\Z)|[ \t]*\n)+")
_INVISIBLE = "\ufeff\u200b\u2060\u00ad"
_OPTION = re.compile(rf"(?:\A|\n)[ \t#>*_]*{OPTION}", re.IGNORECASE)
_NUMBER = re.compile(r"(?:\A|\n)[ \t#>*_]*\d[.)][ \t]")
_FRAME = re.compile(r"</?(?:response|prompt)(?:-\w+)?>|adjust this response so it", re.IGNORECASE)
_YES_OR_NO = re.compile(r"(?:yes|no|yeah|yep|nope|nah)\b", re.IGNORECASE)

# Letters of scripts that do not part words by spaces.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")

SHARED = 0.15  # least share of the smaller vocabulary that a rewrite and its source have in common
SHARED_IN_TALK = 0.5  # ... of a reply that speaks as an assistant does
_KEPT = 0.05  # least share of the source's vocabulary that is left in a rewrite
BOTH = (0.3, 0.2)  # least shares of which one at least is reached: of the smaller vocabulary, of the source's
ALONGSIDE = 0.5  # least share of the source's vocabulary in a rewrite that stands beside it
CONTENT = 8  # content words that the source needs for its vocabulary to say anything
DISTINCT = 0.55  # least share of different four-word runs; a text said twice has about a half


def judge(reply: Reply, source: str, template: str = "") -> Rewrite:
    """Return the rewrite that a reply to `source` holds, or why it holds none.

    Parameters
    ----------
    reply : Reply
        What the model answered.
    source : str
        The text that was to be rewritten. What it has itself (a quote, an apology, a tag) is not held against the
        reply.
    template : str
        The rewriting prompt, so that a reply that repeats it is known.

    Returns
    -------
    Rewrite
        A text with the status "ok" or "unchanged", or None and the reason. A reply that was cut off, refused or empty
        is never passed on as a text.

    Notes
    -----
    A copy of the source is a text, with the status "unchanged": the row stays in the chain and is scored. Whether a
    rewriter leaves a text as it is depends on the text, so dropping such rows would select on the outcome; kept, they
    enter the estimate with the change that they have (none), and `diagnose` reports them in the compliance and the
    dose. A copy that differs in spaces, quotes, case, invisible characters or its final mark meets the same fate; the
    text is the reply's own.

    Each check is relative to the source. A reply to a source of at least `CONTENT` content words (those of four
    letters or more, by their first five; pairs of characters where words are not parted by spaces) is "unrelated" where
    the two share less than `SHARED` of the smaller vocabulary, `_KEPT` of the source's or both of `BOTH`, or where the
    reply has one content word at most: an answer to the text, or the outcome of an instruction that the text itself
    gave. A longer outcome that consists of the text's own words cannot be told from a rewrite; it shows in the
    compliance and the similarity of `diagnose`.

    Examples
    --------
    >>> judge(Reply(0, "A longer text.", "stop"), "A text.")
    Rewrite(text='A longer text.', status='ok')
    >>> judge(Reply(0, "Here is the longer version:\\n\\n'A longer text.'", "stop"), "A text.")
    Rewrite(text='A longer text.', status='ok')
    >>> judge(Reply(0, "A longer te", "length"), "A text.")
    Rewrite(text=None, status='truncated')
    """
    if reply.finish_reason == "length":
        return Rewrite(None, TRUNCATED)
    if reply.finish_reason == "content_filter":
        return Rewrite(None, REFUSED)
    if reply.finish_reason != "stop":
        return Rewrite(None, FAILED)
    if not is_text(reply.text or ""):
        return Rewrite(None, NOT_TEXT)
    return judged_text(reply.text or "", source, template)


def judged_text(text: str, source: str, template: str = "") -> Rewrite:
    """Return what `judge` says of a complete reply that consists of `text`."""
    source = source.strip()
    left = text.strip().strip(_INVISIBLE).strip()
    if not _says(left, source):
        return Rewrite(None, EMPTY)
    if _offers_several(left, source):
        return Rewrite(None, PREAMBLE)
    for without, status in (
        (without_thoughts, THINKING),
        (without_template, LEAKED),
        (without_json, LEAKED),
        (without_frame, PREAMBLE),
        (_unwrapped, PREAMBLE),
        (without_json, LEAKED),
    ):
        found = without(left, source)
        if found is None or not _says(found, source):
            return Rewrite(None, status)
        left = found
    text = left
    if text == source or _bare(text) == _bare(source):
        return Rewrite(text, UNCHANGED)
    fault = _fault(text, source, template)
    return Rewrite(None, fault) if fault else Rewrite(text, OK)


def is_text(text: object) -> bool:
    """Whether this is a text that can be stored: a string without a lone surrogate.

    Examples
    --------
    >>> is_text("half an emoji: \\ud83d")
    False
    """
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_NO_TEXT = re.compile(
    r"[\[({<]?\s*(?:null|none|n/a|undefined|nan|todo|tbd|blank|empty|no (?:change|text|response|output))\s*[\])}>]?\.?"
    r"|[\[{](?!\s*[\"'])[^\[\]{}\n]{1,80}[\]}]",
    re.IGNORECASE,
)


def _says(text: str, source: str) -> bool:
    """Whether there is a text at all: a letter or a digit, where the source has one, and no word for nothing."""
    if _NO_TEXT.fullmatch(text) and not _NO_TEXT.fullmatch(source):
        return False
    return bool(text) and (any(c.isalnum() for c in text) or not any(c.isalnum() for c in source))


def _fault(text: str, source: str, template: str) -> str | None:
    if _REFUSAL.match(text) and not _REFUSAL.match(source):
        return REFUSED
    if _leaks(text, source, template):
        return LEAKED
    if _talks(text, source):
        return PREAMBLE
    if len(text) > 8 * len(source) + 2000:
        return EXPLODED
    if _loops(text, source):
        return REPETITION
    if language_differs(text, source):
        return WRONG_LANGUAGE
    if _strays(text, source):
        return UNRELATED
    if source.endswith("?") and "?" not in text and _YES_OR_NO.match(text) and not _YES_OR_NO.match(source):
        return UNRELATED
    return None


def _unwrapped(text: str, source: str) -> str:
    """`text` without what certainly surrounds the rewrite and is not in the source too."""
    for _ in range(3):  # a preamble before a fence before quotes
        before = text
        if without_json(text, source) != text:
            break
        if (announced := without_announcement(text, source)) != text:
            text = without_frame(announced, source) or ""
        lead = _LEAD.match(text)
        if lead and not _opens(text, source, _LEAD):
            text = without_frame(text[lead.end() :].strip(), source) or ""
        for wrapping in (WRAPPED, PARAGRAPH, ITEM, _FENCED, _TRIPLE):
            whole = wrapping.fullmatch(text)
            if whole and not wrapping.fullmatch(source):
                text = whole[whole.lastindex or 0].strip()
        if _RULE.search(text) and not _RULE.search(source):
            text = without_frame(_RULE.sub("", text).strip(), source) or ""
        if _QUOTED_LINES.fullmatch(text) and not source.startswith(">"):
            text = re.sub(r"(?m)^> ?", "", text).strip()
        if _quoted_whole(text) and not _quoted_whole(source):
            text = text[1:-1].strip()
        if text == before:
            break
    return text


_HERE = re.compile(r"\bhere(?:['’]s| it is| you go| goes| is| are)\b|\bbelow is\b", re.IGNORECASE)
_OF_ITSELF = re.compile(r"\b(?:i|let me|my|below|following|follows|as (?:you )?(?:asked|requested))\b", re.IGNORECASE)
_HEAD = re.compile(r"[^\n:]{1,160}?(?::[*_]*(?=\s|$)[ \t]*(?P<line>\n+|\Z)?|[.!…]*[*_]*[ \t]*\n[ \t]*\n\s*)")


def without_announcement(text: str, source: str) -> str:
    """`text` without a first line, or what stands before its first colon, that announces a rewritten text.

    An announcement says nothing but that a text follows, or how it was made: it has a word for rewriting or for a
    version of a text ("here" or "below" is enough where the line ends in the colon), and no word of its own besides.
    What the source announces likewise is kept.

    Examples
    --------
    >>> without_announcement("Sure! Below is the more formal text:\\n\\nDear sir", "hi")
    'Dear sir'
    >>> without_announcement("Here is how to boil an egg:\\n\\nHeat water.", "hi")
    'Here is how to boil an egg:\\n\\nHeat water.'
    """
    heard = _HEAD.match(text)
    if heard and _HEARD.fullmatch(heard[0]) and not _HEARD.match(source):
        text = text[heard.end() :].strip()
    head = _announcement(text)
    if head is None or _announcement(source):
        return text
    if _GLAD.match(text) and _GLAD.match(source) and not any(map(REWRITING.fullmatch, _words(head[0]))):
        return text
    return text[head.end() :].strip()


def _announcement(text: str) -> re.Match[str] | None:
    head = _HEAD.match(text)
    if head and not _announces(head) and _GLAD.match(head[0]) and _no_other_word(_words(head[0])):
        head = _HEAD.match(text, head.end())  # "Sure, happy to help!" in a paragraph of its own
    return head if head and _announces(head) else None


def _announces(head: re.Match[str]) -> bool:
    words = _words(head[0])
    rewriting = any(REWRITING.fullmatch(w) for w in words)
    line = head["line"] is not None and any(POINTING.fullmatch(w) for w in words)
    pointing = line or _HERE.search(head[0])
    told = ":" in head[0] or pointing or _OF_ITSELF.search(head[0])  # a paragraph without a colon may be content
    return bool((rewriting or pointing) and told) and _no_other_word(words)


def _no_other_word(words: list[str]) -> bool:
    """Whether all words of some length are such as an announcement has; what comes after "more" is one."""
    after = {i + 1 for i, w in enumerate(words) if w in ("more", "less", "very")}
    known = OF_NO_CONTENT | OF_AN_ANNOUNCEMENT
    return all(
        len(w) < 4 or i in after or w in known or bool(REWRITING.fullmatch(w) or POINTING.fullmatch(w))
        for i, w in enumerate(words)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


def _quoted_whole(text: str) -> bool:
    """One pair of quotes around everything: none of either kind inside (an apostrophe within a word is none)."""
    if len(text) < 3 or text[-1] not in _QUOTES.get(text[0], ""):
        return False
    inside = text[1:-1]
    if text[0] in "'‘":
        inside = re.sub(r"(?<=\w)['’](?=\w)", "", inside)
    return text[0] not in inside and text[-1] not in inside


_QUOTE_MARKS = "\"'`´‘’‚‛“”„‟«»‹›「」『』"
_NOT_BARE = re.compile(f"(?:[^\\S\n]|[{_QUOTE_MARKS}\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff])+")


def _bare(text: str) -> str:
    """What is left of a text without quotes, case, invisible characters, spaces within lines, and its last marks."""
    bare = _NOT_BARE.sub(
        "", "\n".join(filter(None, map(str.strip, unicodedata.normalize("NFKC", text).casefold().split("\n"))))
    )
    return bare.rstrip(".!?,;:…。！？，；：、") or bare


def _leaks(text: str, source: str, template: str) -> bool:
    if own_marks(_FRAME.finditer(text), source) or foreign_tags(text, source):
        return True
    folded, folded_source = " ".join(text.lower().split()), " ".join(source.lower().split())
    return any(run in folded and run not in folded_source for run in _runs(template))


@functools.cache
def _runs(template: str) -> frozenset[str]:
    """Every seven words in a row of the template's own text."""
    found: set[str] = set()
    for part in re.split(r"\{\w+\}", template.lower()):
        words = part.split()
        found.update(" ".join(words[i : i + 7]) for i in range(len(words) - 6))
    return frozenset(found)


def _talks(text: str, source: str) -> bool:
    """Whether the reply speaks of the rewriting, or as an assistant to its user, where the source does not."""
    if _OPENING.match(text) and not _opens(text, source, _OPENING):
        return True
    if _HEARD.fullmatch(text) and not {*_words(text)} & {*_words(source)}:
        return True
    if _CLOSING.search(text) and not _CLOSING.search(source):
        return True
    if _shows_source(text, source):
        return True
    if said(TALK, text) and not said(TALK, source):
        return True
    if not said(COURTESIES, text, at_start=True) - said(COURTESIES, source):
        return False
    return len(said(COURTESIES, text) - said(COURTESIES, source)) > 1 or _shared(text, source) < SHARED_IN_TALK


def _shows_source(text: str, source: str) -> bool:
    """Whether the reply is the source and beside it a rewrite, which has much of its vocabulary."""
    before, whole, after = text.partition(source)
    if not whole or _ORIGINAL_IS.search(before) or _BECOMES.match(after):
        return bool(whole)
    edges, ours = before[-3:] + after[:3], _vocabulary(source)
    least = (
        3 if re.search(r"[^\w\s.,;!?]", edges) else CONTENT
    )  # a text that goes on in a new paragraph may be a rewrite
    parted = least < CONTENT or "\n" in edges
    return parted and len(ours) >= least and len(_vocabulary(f"{before} {after}") & ours) >= ALONGSIDE * len(ours)


_ORIGINAL_IS = re.compile(r"\boriginal[^\n:]{0,20}:\W*\Z", re.IGNORECASE)  # the source is shown beside the rewrite
_BECOMES = re.compile(r"[\s\"'”*~]*(?:-+>|=+>|→|⇒|➡)")

_HEARD = re.compile(
    rf"(?:{GLAD}|sure thing|understood|i understand|noted|done|rewritten|adjusted)[.!\s]*", re.IGNORECASE
)


def _offers_several(text: str, source: str) -> bool:
    """Whether the reply holds several numbered rewrites, each with much of the source's vocabulary."""
    ours = _vocabulary(source)
    marks = [(_OPTION, BOTH[0]), (_NUMBER, ALONGSIDE)][
        : 1 + (len(ours) >= CONTENT)
    ]  # few words may be in a list's each item
    return any(
        len(options := mark.split(text)[1:]) > 1
        and not mark.search(source)
        and all(len(_vocabulary(option) & ours) >= share * len(ours) for option in options)
        for mark, share in marks
    )


def _opens(text: str, source: str, pattern: re.Pattern[str]) -> bool:
    """Whether the source opens as the text does: by the same kind of phrase, or both with "Sure" or the like."""
    return bool(pattern.match(source) or (_GLAD.match(text) and _GLAD.match(source)))


def _loops(text: str, source: str) -> bool:
    """Whether the reply says the same over and over, or the source several times, and the source does not."""
    words, of_source = _words(text), _words(source)
    for k in range(2, 9):
        part = words[: len(words) // k]
        again = part * 2 == of_source[: 2 * len(part)]
        if len(part) > 2 and part * k == words and (k > 2 or part == of_source) and not again:
            return True
    share = _distinct(text)
    return share < DISTINCT and share < _distinct(source) - 0.15


def _distinct(text: str) -> float:
    """The share of different runs among all runs of four words; 1 where there are too few to say."""
    words = re.findall(r"\w+", _UNSPACED.sub(r" \1 ", text).casefold())
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    return len(set(runs)) / len(runs) if len(runs) >= 20 else 1.0


@functools.lru_cache(maxsize=256)
def _vocabulary(text: str) -> frozenset[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = {w[:5] for w in re.findall(r"[^\W\d_]{4,}", _UNSPACED.sub(" ", folded)) if w not in OF_NO_CONTENT}
    if folded.isascii():
        return frozenset(found)
    for match in re.finditer(f"{_UNSPACED.pattern}+", folded):
        found.update(match[0][i : i + 2] for i in range(len(match[0]) - 1))
    return frozenset(found)


def _strays(text: str, source: str) -> bool:
    """Whether a source that says enough shares next to nothing with the reply, or is left with one word of it."""
    theirs, ours = _vocabulary(text), _vocabulary(source)
    if len(ours) < CONTENT:
        return False
    kept, shared = len(theirs & ours) / len(ours), _shared(text, source)
    return len(theirs) <= 1 or kept < _KEPT or shared < SHARED or (shared < BOTH[0] and kept < BOTH[1])


def _shared(text: str, source: str) -> float:
    """The words that both have, as a share of the smaller vocabulary; 1 where the source has next to none."""
    theirs, ours = _vocabulary(text), _vocabulary(source)
    return len(theirs & ours) / max(1, min(len(theirs), len(ours))) if ours else 1.0
