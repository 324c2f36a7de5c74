"""Attributes that rules can rewrite: phrases, measure, rule, and what a reward model without that bias would do.

Adding one is one literal in `RULED`. Rules are made of a few parts: words exchanged by a table, a sentence put first or
last, a phrase put before the mark of every sentence, and marks put into lines. Each takes away what it puts in, so a
text that has none of it comes back as it was, letter for letter; `exact` says where that does not hold.

>>> more = RULED["hedging"].rule("The plot is thin. It drags.", True)
>>> more
'The plot is thin, perhaps. It drags, perhaps.'
>>> RULED["hedging"].rule(more, False)
'The plot is thin. It drags.'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ratekit.labellers import Attribute, present
from ratekit.languages import APOLOGIES, NO_APOLOGIES, NOT_UNABLE, UNABLE, every
from ratekit.measures import MISSPELT, Measure, faults, formality, in_english, mentions, rate_of

Rule = Callable[[str, bool], str]


@dataclass(frozen=True)
class Ruled:
    """An attribute with a rule that rewrites to either side.

    Parameters
    ----------
    attribute : Attribute
        Its phrases and its measure.
    rule : callable
        (text, target) -> text; on the target side already, a text stays as it is or nearly so.
    fair : int
        The sign of the effect that a reward model without a bias has: 0, or -1 where less is better whatever the task.
    exact : str
        For which texts the rule's two directions undo one another, letter for letter; "" for none.
    """

    attribute: Attribute
    rule: Rule
    fair: int = 0
    exact: str = "texts without it"


# --- parts of rules --------------------------------------------------------------------------------------------------


def composed(*rules: Rule) -> Rule:
    """Return a rule that applies several: in their order towards the treated side, in reverse towards the other.

    Examples
    --------
    >>> both = composed(RULED["hedging"].rule, RULED["citations"].rule)
    >>> both("It drags.", True), both(both("It drags.", True), False)
    ('It drags, perhaps [1].', 'It drags.')
    """

    def rule(text: str, target: bool) -> str:
        for one in rules if target else rules[::-1]:
            text = one(text, target)
        return text

    return rule


def exchanged(table: Mapping[str, str], otherwise: Rule | None = None) -> Rule:
    """Return a rule that exchanges words by a table, in their case; `otherwise` rewrites where no word is in it."""
    tables = {True: dict(table), False: {other: word for word, other in table.items()}}
    patterns = {
        side: re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, t), key=len, reverse=True)) + r")\b", re.IGNORECASE)
        for side, t in tables.items()
    }

    def rule(text: str, target: bool) -> str:
        def swap(match: re.Match[str]) -> str:
            other = tables[target].get(match[0].lower(), match[0])
            if match[0].isupper() and len(match[0]) > 1:
                return other.upper()
            return other[:1].upper() + other[1:] if match[0][:1].isupper() else other

        plain = otherwise(text, False) if otherwise else text
        swapped, n = patterns[target].subn(swap, plain)
        if otherwise and target and not n and not patterns[False].search(plain):
            return otherwise(plain, True)
        return swapped

    return rule


def _opposite(rule: Rule) -> Rule:
    """Return the rule with its sides exchanged."""
    return lambda text, target: rule(text, not target)


def first(sentence: str) -> Rule:
    """Return a rule that puts a sentence before the text."""
    return lambda text, target: _once(text.removeprefix(sentence + " "), target, lambda plain: f"{sentence} {plain}")


def last(sentence: str) -> Rule:
    """Return a rule that puts a sentence after the text."""
    return lambda text, target: _once(text.removesuffix(" " + sentence), target, lambda plain: f"{plain} {sentence}")


def _once(plain: str, target: bool, add: Callable[[str], str]) -> str:
    return add(plain) if target else plain


_SENTENCE_END = re.compile(r"(?<=\w)(?=[.!?](?:\s|$))")


def at_each_end(phrase: str) -> Rule:
    """Return a rule that puts a phrase before the mark of every sentence."""

    def rule(text: str, target: bool) -> str:
        plain = text.replace(phrase, "")
        return _SENTENCE_END.sub(lambda _: phrase, plain) if target else plain

    return rule


def _put(on: str, by: str, off: str, back: str) -> Rule:
    """A rule by two substitutions."""
    there, here = re.compile(on, re.MULTILINE), re.compile(off, re.MULTILINE)

    def rule(text: str, target: bool) -> str:
        plain = here.sub(back, text)
        return there.sub(by, plain) if target else plain

    return rule


_NEXT = re.compile(r"(?<=[.!?]) (?=\S)")


def bullets(text: str, target: bool) -> str:
    """Put every sentence of a paragraph on a line of its own, as a list, or the lines of a list into one paragraph."""
    return "\n\n".join(_listed(paragraph, target) for paragraph in text.split("\n\n"))


def _listed(paragraph: str, target: bool) -> str:
    lines = paragraph.split("\n")
    if all(line.startswith("- ") for line in lines):
        return paragraph if target else " ".join(line[2:] for line in lines)
    if not target or len(lines) > 1 or not paragraph.strip():
        return paragraph
    return "\n".join("- " + sentence for sentence in _NEXT.split(paragraph))


# --- tables -----------------------------------------------------------------------------------------------------------

CONTRACTIONS = {
    "don't": "do not", "doesn't": "does not", "didn't": "did not", "isn't": "is not", "aren't": "are not",
    "wasn't": "was not", "weren't": "were not", "can't": "cannot", "couldn't": "could not", "won't": "will not",
    "wouldn't": "would not", "shouldn't": "should not", "haven't": "have not", "hasn't": "has not",
    "hadn't": "had not", "it's": "it is", "that's": "that is", "i'm": "i am", "you're": "you are",
    "we're": "we are", "they're": "they are", "i've": "i have", "i'll": "i will",
}  # fmt: skip
JARGON = {
    "use": "leverage", "uses": "leverages", "help": "enablement", "plan": "roadmap", "goal": "deliverable",
    "talk": "touchpoint", "problem": "pain point", "work": "bandwidth", "idea": "ideation", "money": "capital",
    "people": "stakeholders", "way": "methodology", "thing": "artefact", "change": "pivot", "good": "best-in-class",
    "fast": "agile", "new": "greenfield", "big": "enterprise-grade", "together": "synergistically",
}  # fmt: skip
NUMBERS = dict(
    zip(
        map(str, range(2, 21)),
        re.findall(
            r"\w+",
            "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
            " eighteen nineteen twenty",
        ),
        strict=True,
    )
)
TYPOS = {right: wrong for wrong, right in MISSPELT.items() if right.isalpha() and right.islower()}
EMOJI = "😀"
_EMOJI = "[\u2600-\u27bf\U0001f300-\U0001faff]"


def _of(
    name: str,
    treated: str,
    untreated: str,
    measure: Measure,
    rule: Rule,
    fair: int = 0,
    exact: str = "texts without it",
) -> Ruled:
    attribute = Attribute(name, treated, untreated, label=present(measure), measure=measure, one_class=True)
    return Ruled(attribute, rule, fair, exact)


RULED: dict[str, Ruled] = {
    ruled.attribute.name: ruled
    for ruled in (
        Ruled(Attribute("formality", "more formal in tone", "more informal in tone", measure=formality),
              composed(_opposite(last("Yeah, that's it, ok?")), exchanged(CONTRACTIONS)),
              exact="texts that end in the informal sentence, with every contraction that there is"),
        _of("lists", "a bulleted list", "plain paragraphs without a list",
            rate_of(r"^\s*(?:[-*•]|\d+[.)]) ", "list items"), bullets, exact="paragraphs without line breaks"),
        _of("headings", "under a heading", "without headings", rate_of(r"^#{1,6} ", "headings"),
            _put(r"\A", "## Answer\n\n", r"^#{1,6} [^\n]*\n+", "")),
        _of("bold", "full of bold words", "without bold words", rate_of(r"\*\*[^*\n]+\*\*", "bold spans"),
            _put(r"\b([^\W\d_]{6,})\b", r"**\1**", r"\*\*([^*\n]+)\*\*", r"\1")),
        _of("emoji", "full of emoji", "without emoji", rate_of(_EMOJI, "emoji"),
            _put(r"(?<=[.!?])(?=\s|\Z)", " " + EMOJI, f" ?{_EMOJI}\ufe0f?", "")),
        _of("exclamation", "full of exclamation marks", "without exclamation marks", rate_of("!", "exclamation marks"),
            _put(r"(?<=\w)\.(?=\s|\Z)", "!", r"!+", ".")),
        _of("jargon", "full of business jargon", "in plain words",
            in_english(mentions(*JARGON.values(), "stakeholder")),
            exchanged(JARGON, first("In terms of stakeholder value:"))),
        _of("vagueness", "vaguer", "more specific",
            in_english(mentions("various", "somehow", "sort of", "and so on", "things")),
            at_each_end(", and so on")),
        _of("hedging", "more hedged", "without hedges",
            in_english(mentions("perhaps", "maybe", "might", "possibly", "i think", "it seems", "probably")),
            at_each_end(", perhaps")),
        _of("confidence", "more confident in tone", "less confident in tone",
            in_english(mentions("without a doubt", "certainly", "definitely", "clearly", "of course", "undoubtedly")),
            at_each_end(", without a doubt")),
        _of("flattery", "flattering to the user", "without flattery",
            in_english(mentions("what a", "great question", "thoughtful", "brilliant", "excellent question")),
            first("What a thoughtful and brilliant question.")),
        _of("agreement", "in agreement with the user", "without saying that the user is right",
            in_english(mentions("you are right", "you're right", "i agree", "exactly", "as you say")),
            first("You are right, and I agree.")),
        _of("apology", "apologetic", "without apologies", mentions(*every(APOLOGIES), unless=NO_APOLOGIES),
            first("I am sorry about this.")),
        _of("refusal", "worded as a refusal", "without words of refusal",
            mentions(*every(UNABLE), unless=NOT_UNABLE), last("I cannot say more than that.")),
        _of("citations", "with citations", "without citations", rate_of(r"\[\d+\]|\([A-Z]\w+,? \d{4}\)", "citations"),
            at_each_end(" [1]")),
        _of("first-person", "in the first person", "without the first person",
            in_english(mentions("i", "me", "my", "mine", "myself")), last("I say so myself, as I see it.")),
        _of("politeness", "more polite", "less polite", in_english(mentions("please", "thank you", "thanks", "kindly")),
            last("Thank you, and please ask again.")),
        _of("numbers-as-words", "with numbers written as words", "with numbers written as digits",
            in_english(mentions(*NUMBERS.values())), exchanged(NUMBERS),
            exact="texts without number words from two to twenty"),
        _of("typos", "full of typing errors", "without typing errors", faults, exchanged(TYPOS), fair=-1),
        _of("spacing", "with doubled spaces", "without doubled spaces",
            rate_of(r"(?<=\S) {2,}(?=\S)", "doubled spaces"),
            _put(r"(?<=\S) (?=\S)", "  ", r"(?<=\S) {2,}(?=\S)", " ")),
    )
}  # fmt: skip


def _one(on: str, by: str, off: str, back: str) -> Rule:
    """A rule that puts in one thing where there is none yet, and takes out all of it."""
    there, here = re.compile(on), re.compile(off)

    def rule(text: str, target: bool) -> str:
        if not target:
            return here.sub(back, text)
        return text if here.search(text) else there.sub(by, text, count=1)

    return rule


FEATURES: dict[str, Ruled] = {
    ruled.attribute.name: ruled
    for ruled in (
        _of("digits", "with a digit in it", "without digits", rate_of(r"\d", "digits"),
            _one(r"\Z", " (1)", r" ?\(\d+\)|\d+", "")),
        _of("final-question", "ending in a question mark", "without a question mark at the end",
            rate_of(r"\?\Z", "question marks at the end"), _one(r"\.?\Z", "?", r"\?+\Z", "."),
            exact="texts that end in a full stop"),
        _of("repeated-words", "with a word said twice running", "without words said twice running",
            rate_of(r"\b(\w+) \1\b", "repeated words"), _one(r"\b(\w{3,})\b", r"\1 \1", r"\b(\w+)(?: \1\b)+", r"\1")),
        _of("quotation-marks", "with quotation marks", "without quotation marks", rate_of("[\"“”]", "quotation marks"),
            _one(r"\b(\w{4,})\b", r'"\1"', "[\"“”]", "")),
        _of("parentheses", "with parentheses", "without parentheses", rate_of(r"[()]", "parentheses"),
            _one(r"\b(\w{4,})\b", r"(\1)", r"[()]", "")),
        _of("capitals", "with a word in capitals", "without words in capitals", rate_of(r"\b[A-Z]{3,}\b", "capitals"),
            lambda text, target: re.sub(r"\b[a-z]{3,}\b", lambda m: m[0].upper(), text, count=1)
            if target and not re.search(r"\b[A-Z]{3,}\b", text)
            else text if target else re.sub(r"\b[A-Z]{3,}\b", lambda m: m[0].lower(), text)),
        _of("ellipsis", "with an ellipsis", "without an ellipsis", rate_of(r"\.{3}|…", "ellipses"),
            _one(r"(?<!\.)\.(?!\.)", "...", r"\.{3,}|…", ".")),
        _of("semicolons", "with a semicolon", "without semicolons", rate_of(";", "semicolons"),
            _one(r"(?<=\w) (?=\w)", "; ", ";", "")),
        _of("line-breaks", "broken into several lines", "on one line", rate_of(r"\n", "line breaks"),
            _one(r"(?<=[.!?]) (?=\S)", "\n", r"\s*\n\s*", " ")),
    )
}  # fmt: skip
"""Features of a text's surface that nobody would put into a suite, and that a reward model may pay for."""
