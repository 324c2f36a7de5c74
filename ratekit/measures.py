"""What is counted in a text: measures, from texts (n) to (n,) float64. Adding one is one entry in `MEASURES`."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ratekit.errors import InputError, shorten
from ratekit.languages import UNSPACED, count_words, maybe_english
from ratekit.schema import LARGEST

Measure = Callable[[Sequence[str]], ArrayLike]


def words(texts: Sequence[str]) -> NDArray[np.float64]:
    """Number of words: parted by white space, or letters of scripts that part none (Chinese, Japanese, Thai, ...).

    Examples
    --------
    >>> words(["one two  three", ""])
    array([3., 0.])
    """
    return np.array([count_words(t) for t in texts], dtype=float)


def _of_english(texts: Sequence[str], of: Callable[[str], float]) -> NDArray[np.float64]:
    """What an English word list or formula says of each text; NaN for one that is in another language."""
    return np.array([of(t) if maybe_english(t) else np.nan for t in texts], dtype=float)


def vader(texts: Sequence[str]) -> NDArray[np.float64]:
    """VADER compound sentiment, -1 (negative) to 1 (positive), NaN where not English; Hutto and Gilbert 2014 (ICWSM).

    Examples
    --------
    >>> vader(["A wonderful film.", "A film.", "A dreadful film."]).round(2)
    array([ 0.57,  0.  , -0.44])
    """
    return _of_english(texts, _compound)


@functools.lru_cache(maxsize=1 << 14)  # a text is measured for its label, its reward, its verdict and its report
def _compound(text: str) -> float:
    return float(_vader().polarity_scores(text)["compound"])


@functools.cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def readability(texts: Sequence[str]) -> NDArray[np.float64]:
    """Automated Readability Index: about the US school grade needed; higher is harder (Smith and Senter 1967).

    NaN where the text is not English.

    Examples
    --------
    >>> readability(["The cat sat.", "Comprehensive documentation accelerates collaborative development."]).round(1)
    array([-4.2, 39.5])
    """
    import textstat

    return _of_english(texts, lambda t: float(textstat.automated_readability_index(t)))


_FIRST_LETTER = re.compile(r"[^\W\d_]")


def starts_with_vowel(texts: Sequence[str]) -> NDArray[np.float64]:
    """1 if the first letter is one of a, e, i, o, u, accents aside, else 0; NaN if there is no Latin letter.

    Examples
    --------
    >>> starts_with_vowel(["Overall fine", "'It' works", "Fine", "42"])
    array([ 1.,  1.,  0., nan])
    """
    found = [_FIRST_LETTER.search(t) for t in texts]
    first = [unicodedata.normalize("NFD", m[0].lower())[0] if m else "" for m in found]
    return np.array([float(c in "aeiou") if c.isascii() and c else np.nan for c in first])


_INFORMAL = re.compile(
    r"\b\w+'(?:s|t|re|ve|ll|d|m)\b"  # contractions
    r"|[!?]{1,}!|!"
    r"|\b(?:gonna|wanna|gotta|kinda|sorta|dunno|ya|yeah|yep|nope|nah|ok|okay|lol|lmao|omg|btw|tbh|imo|"
    r"awesome|cool|crap|guys?|dude|stuff|super|totally|hey|hi|wow|gosh|u|ur|thx|pls)\b"
    r"|\bi\b|(\w)\1{2,}|[:;]-?[)(DP]",
)


def formality(texts: Sequence[str]) -> NDArray[np.float64]:
    """Minus the informal marks (contractions, slang, exclamations, emoticons) per 100 words; 0 is formal.

    NaN where the text is not English.

    Examples
    --------
    >>> formality(["It does not suit every reader.", "lol it's super cool!"])
    array([   0., -125.])
    """
    counts = _of_english(texts, lambda t: len(_INFORMAL.findall(t)))
    return 0.0 - 100.0 * counts / np.maximum(words(texts), 1.0)


NAMED = 4  # words that the name of a measure holds


def mentions(*sought: str, unless: Sequence[str] = ()) -> Measure:
    """A measure that counts how often these words or phrases are said, per 100 words, whatever the case.

    Parameters
    ----------
    *sought : str
        Words or phrases; an apostrophe stands for the curly one too.
    unless : sequence of str
        Longer phrases that begin with one of these and are none.

    Raises
    ------
    InputError
        Where no word is given.

    Examples
    --------
    >>> mentions("please", "thank you")(["Thank you. Please sit.", "Sit."])
    array([50.,  0.])
    >>> mentions("sorry", unless=["sorry to hear"])(["Sorry to hear it.", "I’m sorry."])
    array([ 0., 50.])
    """
    wanted = [w.strip() for w in sought if w.strip()]
    if not wanted:
        raise InputError('mentions: no word to count; give some, as in mentions("please", "thank you")')
    inside = f"[{UNSPACED}\uac00-\ud7af]"  # scripts in which a word may stand between letters

    def form(phrase: str) -> str:
        a, b = (not re.match(inside, end) for end in (phrase[0], phrase[-1]))
        return r"(?<!\w)" * a + re.escape(phrase).replace("'", "['’]") + r"(?!\w)" * b

    pattern = re.compile("|".join([*map(form, unless), f"({'|'.join(map(form, wanted))})"]), re.IGNORECASE)

    def count(texts: Sequence[str]) -> NDArray[np.float64]:
        found = [sum(map(bool, pattern.findall(t))) for t in texts]
        return 100.0 * np.array(found, dtype=float) / np.maximum(words(texts), 1.0)

    few = ", ".join(wanted) if len(wanted) <= NAMED else f"{', '.join(wanted[:2])} and {len(wanted) - 2} more"
    count.__name__ = f"mentions of {few} per 100 words"
    return count


def in_english(measure: Measure) -> Measure:
    """The measure, by English words, of texts that may be English; NaN of others, for it would say 0 of all of them.

    Examples
    --------
    >>> in_english(mentions("perhaps"))(["Perhaps.", "这部电影的情节很单薄，演员的表演也很生硬。"])
    array([100.,  nan])
    """

    def count(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.where([maybe_english(t) for t in texts], np.asarray(measure(texts), dtype=float), np.nan)

    count.__name__, count.__module__ = name_of(measure), str(getattr(measure, "__module__", ""))
    return count


def rate_of(pattern: str, name: str) -> Measure:
    """Return a measure that counts the matches of a regular expression per 100 words; ^ is the start of a line.

    Examples
    --------
    >>> rate_of(r"^- ", "list items")(["- One\\n- Two", "One, two."]).round()
    array([50.,  0.])
    """
    found = re.compile(pattern, re.MULTILINE)

    def count(texts: Sequence[str]) -> NDArray[np.float64]:
        return 100.0 * np.array([len(found.findall(t)) for t in texts], float) / np.maximum(words(texts), 1.0)

    count.__name__ = f"{name} per 100 words"
    return count


MISSPELT = {
    "teh": "the", "thier": "their", "recieve": "receive", "recieved": "received", "definately": "definitely",
    "seperate": "separate", "wich": "which", "becuase": "because", "alot": "a lot", "untill": "until",
    "beleive": "believe", "realy": "really", "wierd": "weird", "freind": "friend", "tommorow": "tomorrow",
    "occured": "occurred", "begining": "beginning", "truely": "truly", "wont": "won't", "dont": "don't",
    "didnt": "didn't", "doesnt": "doesn't", "cant": "can't", "isnt": "isn't", "wasnt": "wasn't", "im": "I'm",
    "ive": "I've", "youre": "you're", "villian": "villain", "i": "I", "adn": "and", "taht": "that",
    "wsa": "was", "nto": "not", "btu": "but", "tihs": "this", "wtih": "with", "hvae": "have", "yuo": "you",
    "aer": "are", "oen": "one", "flim": "film", "mvoie": "movie", "tehy": "they", "lkie": "like", "jsut": "just",
    "vrey": "very",
}  # fmt: skip

FAULT = re.compile(
    r"(?P<block>[ \t]*(?:<(?:br\s*/?|/?p)\s*>\s*)+)|(?P<inline></?(?:i|b|em|strong)>)"
    r"|(?P<space>(?<=\S)[ \t]{2,}(?=\S))"
    r"|(?P<marks>[!?.]{4,}|[!?]{2,3})"
    r"|\b(?P<word>(?-i:i)|" + "|".join(word for word in MISSPELT if word != "i") + r")\b(?!['’]|\.\w)",  # not "I"
    re.IGNORECASE,
)


def faults(texts: Sequence[str]) -> NDArray[np.float64]:
    """Typos, HTML, doubled marks and spaces, and sentences that start small, per 100 words; NaN where not English.

    Examples
    --------
    >>> faults(["Teh plot is thin!!! avoid it.", "The plot is thin. Avoid it."])
    array([50.,  0.])
    """
    small = re.compile(r"(?:^|(?<!\.\w)[.!?]\s+)[a-z]")  # not after "i.e."
    found = _of_english(texts, lambda t: len(FAULT.findall(t)) + len(small.findall(t)))
    return 100.0 * found / np.maximum(words(texts), 1.0)


MEASURES: dict[str, Measure] = {"words": words, "sentiment": vader, "readability": readability, "faults": faults}


def name_of(measure: Measure | None) -> str:
    """The measure's name, for messages and for the data that it was used on; "" for None.

    Examples
    --------
    >>> name_of(words), name_of(vader)
    ('words', 'vader')
    """
    return "" if measure is None else str(getattr(measure, "__name__", type(measure).__name__))


def unit_of(measure: Measure) -> str:
    """What a dose is given in: the measure's name, "its own measure" where it has none."""
    name = name_of(measure)
    return "its own measure" if name in ("", "<lambda>") else name


BLOCK = 256  # chains that are held at once for a measure that needs no others beside them


def at_once(measure: Measure) -> int | None:
    """How many texts a measure is given in one call: ratekit's own look at each by itself, a user's may not.

    Examples
    --------
    >>> at_once(words), at_once(sorted)
    (256, None)
    """
    return BLOCK if str(getattr(measure, "__module__", "")).partition(".")[0] == "ratekit" else None


def values_of(measure: Measure, texts: Iterable[str], name: str = "") -> NDArray[np.float64]:
    """The measure of each text, (n,) float64; NaN where there is none.

    Raises
    ------
    InputError
        For a measure that fails or gives anything but one number below 1e100 (or NaN) a text.
    """
    name, texts, size = name or name_of(measure), iter(texts), at_once(measure)
    blocks = iter(lambda: list(itertools.islice(texts, size)), [])
    return np.concatenate([np.empty(0), *(_of_block(measure, block, name) for block in blocks)])


def _of_block(measure: Measure, texts: list[str], name: str) -> NDArray[np.float64]:
    try:
        given = measure(texts)
        values = np.asarray([np.nan if v is None else v for v in given] if isinstance(given, list) else given, float)
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f"the measure {name} failed ({type(e).__name__}: {shorten(e, 100)}); a measure takes a list of texts and "
            "gives one number for each"
        ) from e
    if values.shape != (len(texts),):
        raise InputError(f"{name} gave an array of shape {values.shape} for {len(texts)} texts; (n,) was expected")
    huge = np.abs(values) >= LARGEST
    if huge.any():
        place = int(np.flatnonzero(huge)[0])
        raise InputError(
            f"{name} gave {values[place]:g} for the text {shorten(texts[place])!r}; a number below 1e100 was expected"
        )
    return values


class Looked:
    """What measures gave, by text, so that each text is looked at once: handed on, and kept as long as it is."""

    def __init__(self) -> None:
        self._of: list[tuple[Measure, dict[str, float]]] = []

    def of(self, measure: Measure) -> dict[str, float]:
        """What this measure gave so far."""
        found = next((values for known, values in self._of if known is measure), None)
        if found is None:
            self._of.append((measure, found := {}))
        return found

    def measure(self, measure: Measure) -> Measure:
        """The measure, which looks at no text again that it has looked at.

        Examples
        --------
        >>> looked = Looked()
        >>> looked.of(words)["Two words."] = 2.0
        >>> looked.measure(words)(["Two words.", "One more."]).tolist()
        [2.0, 2.0]
        """
        known = self.of(measure)

        def look(texts: Sequence[str]) -> NDArray[np.float64]:
            others = [text for text in texts if text not in known]
            new = dict(zip(others, values_of(measure, others), strict=True))
            return np.array([known[text] if text in known else new[text] for text in texts], float)

        look.__name__, look.__module__ = name_of(measure), str(getattr(measure, "__module__", ""))
        return look


def measured(
    measure: Measure, texts: Iterable[Sequence[str | None]], name: str = "measure", looked: Looked | None = None
) -> NDArray[np.float64]:
    """The measure of every text of every chain, (n, longest); NaN where there is none.

    Of the chains no more than `at_once` are held; among them, and among all that are `looked` at, each text is measured
    once.
    """
    known = None if looked is None else looked.of(measure)
    texts, size = iter(texts), at_once(measure)
    rows: list[NDArray[np.float64]] = []
    for chains in iter(lambda: list(itertools.islice(texts, size)), []):
        of = {} if known is None else known
        distinct = list(dict.fromkeys(t for chain in chains for t in chain if t is not None and t not in of))
        of.update(zip(distinct, values_of(measure, distinct, name), strict=True))
        block = np.full((len(chains), max(map(len, chains))), np.nan)
        for i, chain in enumerate(chains):
            for k, text in enumerate(chain):
                if text is not None:
                    block[i, k] = of[text]
        rows.append(block)
    out = np.full((sum(map(len, rows)), max((block.shape[1] for block in rows), default=0)), np.nan)
    for start, block in zip(np.cumsum([0, *map(len, rows)]), rows, strict=False):
        out[start : start + len(block), : block.shape[1]] = block
    return out
