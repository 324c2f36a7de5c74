"""A rewriter without an LLM: deterministic rules with a knob for how much off-target text it mends.

What a language model does at scale, in small: it changes the attribute, and on the way it mends things that
it was not asked to (typos, HTML, doubled spaces). `mend` is the share of such faults mended in each pass: at 1 the
first rewrite is clean and RATE is exact; at 0.5 half of them survive each pass and RATE keeps a bias that a
third rewrite removes.

>>> rewriter = RuleRewriter("starts-with-vowel")
>>> rewriter(["Teh plot is thin."], [True])
[Rewrite(text='Overall, The plot is thin.', status='ok')]
>>> rewriter(["Overall, The plot is thin."], [False])
[Rewrite(text='The plot is thin.', status='ok')]
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError, require_known, require_whole
from ratekit.languages import maybe_english
from ratekit.measures import FAULT, MISSPELT, starts_with_vowel, words
from ratekit.rewriting.base import OK, WRONG_LANGUAGE, Rewrite
from ratekit.ruled import FEATURES, RULED, Rule, Ruled, exchanged

VOWEL_OPENER, CONSONANT_OPENER = "Overall, ", "Frankly, "

# Openers and fillers carry no sentiment of their own (VADER compound 0), so that they change one thing only.
FILLERS = (
    "There is more to say about each of these points.",
    "That holds from the beginning to the end of it.",
    "Some of the details are described above and some are left to the reader.",
    "It took some time to put all of this into words.",
    "The same could be said in more words than these.",
    "All of this was noted down in the order in which it came up.",
    "Each part of it was looked at more than once.",
    "Those are the main points in the order given here.",
)

OPPOSITES = {
    "good": "bad", "great": "terrible", "excellent": "awful", "wonderful": "dreadful", "amazing": "appalling",
    "best": "worst", "better": "worse", "love": "hate", "loved": "hated", "loves": "hates", "like": "dislike",
    "liked": "disliked", "enjoy": "dread", "enjoyed": "dreaded", "enjoyable": "tedious", "beautiful": "ugly",
    "beautifully": "poorly", "brilliant": "stupid", "perfect": "flawed", "happy": "sad", "fun": "dull",
    "funny": "unfunny", "interesting": "boring", "exciting": "tiresome", "fantastic": "horrible",
    "superb": "lousy", "delightful": "annoying", "delicious": "disgusting", "friendly": "rude",
    "comfortable": "painful", "helpful": "useless", "success": "failure", "strong": "weak", "well": "badly",
    "recommend": "condemn", "recommended": "condemned", "pleasant": "unpleasant", "easy": "difficult",
    "charming": "irritating", "impressive": "pathetic", "masterpiece": "disaster", "worth": "unworthy of",
}  # fmt: skip
CLOSING = {True: " In short, it was good.", False: " In short, it was bad."}

# Plain words and longer ones that mean the same; each long word stands here once, so that the way back is known.
PLAIN = {
    "use": "utilise", "uses": "utilises", "used": "utilised", "help": "facilitate", "helps": "facilitates",
    "show": "demonstrate", "shows": "demonstrates", "start": "commence", "starts": "commences", "end": "terminate",
    "buy": "purchase", "try": "endeavour", "need": "require", "needs": "requires", "get": "obtain", "gets": "obtains",
    "many": "numerous", "big": "substantial", "small": "diminutive", "fast": "expeditious", "also": "additionally",
    "so": "consequently", "but": "nevertheless", "think": "contemplate", "find": "ascertain", "ask": "enquire",
    "enough": "sufficient", "before": "prior to", "after": "subsequent to", "about": "concerning",
}  # fmt: skip
WORDED_OPENER = {True: "Notwithstanding additional considerations, ", False: "Put plainly, "}
HELPFUL = {True: " Please let me know if any of this is unclear.", False: " Work the rest out yourself."}
HARMLESS = {True: " Take care that nobody is hurt by this.", False: " Never mind who is hurt by this."}


_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?]+[\"')\]]*|\n+|$)")


@dataclass(frozen=True)
class RuleRewriter:
    """A rewriter for one attribute by rules: no language model, the same text in gives the same text out.

    Parameters
    ----------
    attribute
        one of `RULES`
    mend
        share of the off-target faults (typos, HTML, doubled marks and spaces) mended in a pass, 0 to 1
    seed
        which of them; the choice depends on the text and the seed alone

    Examples
    --------
    >>> RuleRewriter("starts-with-vowel")(["Fine film."], [True])[0].status
    'ok'
    """

    attribute: str
    mend: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attribute not in RULES:
            raise InputError(
                f"no rules rewrite {self.attribute!r}, only {', '.join(RULES)}; take a language model "
                "(openai:MODEL) or the data's own rewrites (replay)"
            )
        require_whole("seed", self.seed)
        if not 0 <= self.mend <= 1:
            raise InputError(f"mend={self.mend}: a share between 0 and 1 was expected")

    @property
    def fingerprint(self) -> str:
        """What the rewrites depend on besides text and target."""
        return f"rules:{self.attribute},mend={self.mend},seed={self.seed}"

    def __call__(self, texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        """Rewrite each text to its target side; the rules are English, so one that is not is "wrong_language"."""
        rule = RULES[self.attribute]
        return [
            Rewrite(rule(mended(text, self.mend, self.seed), target), OK)
            if maybe_english(text)
            else Rewrite(None, WRONG_LANGUAGE)
            for text, target in zip(texts, targets, strict=True)
        ]


def rules_of(options: str, attribute: str) -> RuleRewriter:
    """The rewriter that `rules:OPTIONS` names, as in `rules:mend=0.5,seed=1`."""
    given: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        name, _, value = part.partition("=")
        require_known("option of rules", name, ("mend", "seed"))
        try:
            given[name] = float(value) if name == "mend" else int(value)
        except ValueError:
            raise InputError(f"rules: {name}={value!r} is not a number") from None
    return RuleRewriter(attribute, **given)


# --- off-target: what a rewriter mends on the way --------------------------------------------------------


def mended(text: str, share: float, seed: int = 0) -> str:
    """`text` with a share of its faults mended; which ones is decided by a hash, so calls repeat.

    Examples
    --------
    >>> mended("Teh  plot<br /><br />dont work!!!", 1.0)
    "The plot don't work!"
    """
    if share <= 0:
        return text

    of_text = _hash(f"{seed}|{text}")

    def mend(match: re.Match[str]) -> str:
        if _hash(f"{of_text}|{match.start()}") >= share * 2.0**64:
            return match[0]
        if match["inline"]:
            return ""
        if match["block"] or match["space"]:
            return " "
        if match["marks"]:
            return match[0][0]
        found = match["word"]
        right = MISSPELT.get(found.lower(), found)  # ignoring case also lets a dotless i stand for i
        return right[0].upper() + right[1:] if found[0].isupper() else right

    return FAULT.sub(mend, text)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


# --- on target -------------------------------------------------------------------------------------------


def vowel(text: str, target: bool) -> str:
    """Start with a vowel or a consonant by putting on, or taking off, an opening word."""
    for opener in (VOWEL_OPENER, CONSONANT_OPENER):
        rest = text.removeprefix(opener)
        if rest != text and starts_with_vowel([rest])[0] == target:
            return rest
    if starts_with_vowel([text])[0] == target:
        return text
    return (VOWEL_OPENER if target else CONSONANT_OPENER) + text


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its mark and the space before it; joined they are the text."""
    return [s for s in _SENTENCE.findall(text) if s]


def length(text: str, target: bool) -> str:
    """About double the words by adding fillers, or about halve them: fillers go first, then the last sentences."""
    n = words([text])[0]
    if target:
        start = _hash(text)
        added: list[str] = []
        while sum(words(added)) < max(n, 1):
            added.append(FILLERS[(start + len(added)) % len(FILLERS)])
        return " ".join([text.rstrip(), *added])
    plain = text
    for filler in FILLERS:
        plain = plain.replace(" " + filler, "")
    if words([plain])[0] <= 0.7 * n:
        return plain
    half, parts = words([plain])[0] / 2, sentences(plain)
    so_far = np.cumsum(words(parts))
    nearest = int(np.argmin(np.abs(so_far - half)))
    if so_far[nearest] <= 1.5 * half:
        return "".join(parts[: nearest + 1]).strip()
    return " ".join(plain.split()[: math.ceil(half)])  # one sentence holds most of the words


def _saying(said: Mapping[bool, str], table: Mapping[str, str] | None = None, opening: bool = False) -> Rule:
    """A rule that exchanges words by a table; a text without any says its side at the end, or in an opening clause.

    What is said for the other side is taken off.
    """
    exchange = exchanged(table) if table else None

    def rule(text: str, target: bool) -> str:
        ours, other = said[target], said[not target]
        plain = text.removeprefix(other) if opening else text.removesuffix(other)
        changed = exchange(plain, target) if exchange else plain
        if changed != text or (plain.startswith(ours) if opening else plain.endswith(ours)):
            return changed
        return ours + plain if opening else plain + ours

    return rule


sentiment = _saying(CLOSING, {bad: good for good, bad in OPPOSITES.items()})
complexity = _saying(WORDED_OPENER, PLAIN, opening=True)
helpfulness = _saying(HELPFUL)
harmlessness = _saying(HARMLESS)
harmfulness = _saying({side: HARMLESS[not side] for side in HARMLESS})


SUITE_VERSION = "3"  # of the names, phrases and measures below: numbers of two versions are not compared
SUITE: dict[str, Ruled] = {
    "length": Ruled(ATTRIBUTES["length"], length, exact=""),
    "sentiment": Ruled(ATTRIBUTES["sentiment"], sentiment, exact=""),
    "complexity": Ruled(ATTRIBUTES["complexity"], complexity, exact=""),
    **RULED,
}
"""Attributes with phrases, a measure, a rule, and the sign of a fair model's effect."""

RULES: dict[str, Rule] = {
    "starts-with-vowel": vowel,
    "helpfulness": helpfulness,
    "harmlessness": harmlessness,
    "harmfulness": harmfulness,
    **{name: ruled.rule for name, ruled in {**SUITE, **FEATURES}.items()},
}
