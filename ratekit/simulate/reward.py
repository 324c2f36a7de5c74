"""A reward by rules that reads the texts of `TextWorld`: what it rewards is known because it is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ratekit.simulate.text import BLAME, COMPLEX, DETAILS, OPENERS, OPINION_WORDS, POLISH, PRAISE, PRODUCT_ASPECTS, TIPS


def _words_of(text: str) -> list[str]:
    return [w.strip(".,").lower() for w in text.split()]


_SPELT = frozenset(
    w
    for phrase in (*PRODUCT_ASPECTS, *PRAISE, *BLAME, *DETAILS, *TIPS, *OPENERS.values(), COMPLEX, POLISH,
                   "The is might be characterised as")
    for w in _words_of(phrase)
)  # fmt: skip


@dataclass(frozen=True)
class RuleReward:
    """A reward by rules that reads the text alone, (prompts, responses) -> (n,): a weighted sum of what it sees.

    Parameters
    ----------
    words
        per word
    sentiment
        share of praise minus share of blame among the verdicts
    typos
        share of the words that are misspelt
    markup
        per HTML break
    vowel
        the first letter is a vowel
    extras
        per sentence without a verdict: tips, a closing line
    complexity
        share of sentences of 10 words or more

    Examples
    --------
    >>> RuleReward(words=0.1, typos=-1.0, sentiment=0.0, vowel=0.0)([None], ["The srtap is good."]).round(2)
    array([0.15])
    """

    words: float = 0.01
    sentiment: float = 0.5
    typos: float = -4.0
    markup: float = -0.1
    vowel: float = 0.2
    extras: float = 0.2
    complexity: float = 0.3
    name: ClassVar[str] = "rules"

    def __call__(self, prompts: Sequence[object], responses: Sequence[str]) -> NDArray[np.float64]:
        """The rewards."""
        return np.array([self._one(t) for t in responses])

    def _one(self, text: str) -> float:
        sentences = [_words_of(s) for s in text.replace("<br /><br />", " ").split(".")]
        sentences = [s for s in sentences if s] or [[]]
        words = [w for s in sentences for w in s]
        praise, blame = (sum(w in side for w in words) for side in (PRAISE, BLAME))
        return (
            self.words * len(words)
            + self.sentiment * (praise - blame) / max(praise + blame, 1)
            + self.typos * sum(w not in _SPELT for w in words) / max(len(words), 1)
            + self.markup * text.count("<br /><br />")
            + self.vowel * (text[:1].lower() in "aeiou")
            + self.extras * sum(not OPINION_WORDS.intersection(s) for s in sentences)
            + self.complexity * sum(len(s) >= 10 for s in sentences) / len(sentences)
        )
