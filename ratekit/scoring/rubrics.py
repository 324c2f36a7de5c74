"""What a judge is asked and how its reply is read: a rubric, a scale, criteria; a question about two responses.

A reply counts where it says one score of the scale, and once: "7", "Score: 7", "7/10", "[[7]]", a line with 7 alone,
after thinking that is marked as such. Anything else is no score ("between 6 and 7", "7-8", "7/100", "11", "7.5", "I
have 3 remarks"), and is null with a status.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, shorten
from ratekit.files import read_text
from ratekit.rewriting.marks import without_thoughts
from ratekit.rewriting.prompts import filled
from ratekit.schema import Conversation, prompt_text

RUBRIC = """\
Here are a conversation and a response to it.

<conversation>
{prompt}
</conversation>

<response>
{response}
</response>

How good is the response? Judge how helpful, correct and clear it is for the person who asked."""

_PAIR = """\
Here are a conversation and two responses to it.

<conversation>
{prompt}
</conversation>

<response_a>
{first}
</response_a>

<response_b>
{second}
</response_b>

Which response is better? Answer with A or B alone, or with tie where neither is."""

MOST_MASS_UNKNOWN = 0.5  # of the probability; an expected score needs the rest on the scale
MOST_AMBIGUOUS = 0.01  # of the probability on "1" where it may be the first digit of "10"

_WIDE = {0xFF01 + i: 0x21 + i for i in range(94)}  # letters, digits and marks of double width
_ONWARD = (  # after a number: what makes it part of a range, a word, or another fraction
    r"(?!(?!分|点|점)\w|[^\S\n]*(?:%|(?:[-–—~/⁄+→]|->|to|and|or|of|out of|bis|à|au|de|von|sur)[^\S\n]*[+-]?\d|\d))"
)
_CALLED = r"(?:score|rating|grade|mark|分数|分數|评分|評分|得分|スコア|点数|점수|bewertung|puntuación|punteggio|оценка)"
_ALSO_CALLED = r"(?:verdict|answer|overall|note|nota)"  # where nothing comes after: "Note: 3 facts are wrong"


@dataclass(frozen=True)
class Scale:
    """The scores that a judge may give: whole numbers from `low` to `high`, or words that stand for numbers.

    Parameters
    ----------
    low, high : int
        The worst and the best score.
    words : mapping of str to float
        What each word counts for; empty for a scale of numbers.

    Raises
    ------
    InputError
        Where there are fewer than two scores.

    Examples
    --------
    >>> Scale.of("1-10").high, Scale.of("bad=1,fair=2,good=3").words["good"]
    (10, 3.0)
    """

    low: int = 1
    high: int = 10
    words: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(word and math.isfinite(n) for word, n in self.words.items()):
            raise InputError(f"the scale {self}: each word needs a finite number, as in bad=1+fair=2+good=3")
        if not self.words and not (isinstance(self.low, Integral) and isinstance(self.high, Integral)):
            raise InputError(f"the scale {self}: whole numbers were expected, as in 1-10")
        if self.low >= self.high if not self.words else len(set(self.words.values())) < 2:
            raise InputError(f"the scale {self} has fewer than two scores; the lowest is first, as in 1-10")

    @classmethod
    def of(cls, said: str | tuple[int, int] | Mapping[str, float] | Scale) -> Scale:
        """The scale that is written as "1-10" or "bad=1,good=2", or given as (1, 10) or {"bad": 1, "good": 2}."""
        if isinstance(said, Scale):
            return said
        if isinstance(said, tuple):
            return cls(*said)
        if isinstance(said, Mapping):
            pairs: list[tuple[str, Any]] = list(said.items())
        elif found := re.fullmatch(r"\s*(-?\d+)\s*(?:[-–—]|\.\.|to)\s*(-?\d+)\s*", said):
            return cls(int(found[1]), int(found[2]))
        elif not re.search(r"[^\W\d_]", said):
            raise InputError(
                f"the scale {said!r} is no range of whole numbers: write the lowest and the highest, as in 1-10"
            )
        else:
            pairs = [
                (word, n) for word, _, n in (part.partition("=") for part in re.split(r"[,/+]", said) if part.strip())
            ]
        words = [str(word).strip().lower() for word, _ in pairs]
        if len(set(words)) < len(words):
            raise InputError(f"the scale {said!r} has a word twice")
        try:
            numbers = [float(n) for _, n in pairs]
        except (TypeError, ValueError):
            raise InputError(
                f"the scale {said!r} has words without numbers: say what each counts for, as in bad=1+fair=2+good=3, "
                "or give whole numbers, as in 1-10"
            ) from None
        return cls(words=dict(zip(words, numbers, strict=True)))

    def __str__(self) -> str:
        return "/".join(f"{w}={n:g}" for w, n in self.words.items()) if self.words else f"{self.low}-{self.high}"

    @property
    def wish(self) -> str:
        """What is asked for, as part of a sentence."""
        return f"one of {', '.join(self.words)}" if self.words else f"a whole number from {self.low} to {self.high}"

    @property
    def pattern(self) -> str:
        """A regular expression of one score, with what may stand behind a number ("/10"); group 1 is the score."""
        if self.words:
            return r"\b(" + "|".join(sorted(map(re.escape, self.words), key=len, reverse=True)) + r")\b"
        return rf"([+-]?\d++(?:[.,]\d++)?+){self._top}?+{_ONWARD}"

    @property
    def _top(self) -> str:
        return rf"(?:[^\S\n]*(?:/|(?:out )?of)[^\S\n]*{self.high}(?![\d/]))"

    def value(self, said: str) -> float | None:
        """The number that a score counts for; None where it is not on the scale."""
        if self.words:
            return self.words.get(said.lower())
        return float(said) if re.fullmatch(r"[+-]?\d+(?:\.0)?", said) and self.low <= float(said) <= self.high else None


@dataclass(frozen=True)
class Rubric:
    """What a judge is asked about one response.

    Parameters
    ----------
    text : str
        With {response} where the response goes and, if wanted, {prompt}. What is to be answered is added at the end.
    scale : Scale
        The scores.
    criteria : sequence of str
        Each is scored; () asks for one score.

    Raises
    ------
    InputError
        Where there is no place for the response, or two criteria have one name.

    Examples
    --------
    >>> Rubric("Is this clear? {response}").read("Score: 7/10").scores
    {'': 7.0}
    >>> Rubric("Judge: {response}", criteria=("clarity", "truth")).read("clarity: 3\\ntruth: 8").scores
    {'clarity': 3.0, 'truth': 8.0}
    """

    text: str = RUBRIC
    scale: Scale = field(default_factory=Scale)
    criteria: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _placed(self.text, "response", "the rubric")
        if len({c.lower() for c in self.criteria}) < len(self.criteria) or not all(c.strip() for c in self.criteria):
            raise InputError(f"the criteria {', '.join(self.criteria)}: each needs a name of its own")

    @property
    def hash(self) -> str:
        """Eight digits that tell this rubric, scale and criteria from others."""
        return _hash(self.text, str(self.scale), *self.criteria)

    def conversation(self, prompt: Any, response: str) -> Conversation:
        """What the judge is asked."""
        asked = prompt_text(prompt)
        shown = filled(self.text, {"prompt": asked, "response": response}, response + "\n" + asked)
        if not self.criteria:
            wish = f"Answer with {self.scale.wish} alone."
        else:
            lines = "\n".join(f"{name}: ({self.scale.wish})" for name in self.criteria)
            wish = f"Answer with one line for each criterion, and nothing else:\n{lines}"
        return [{"role": "user", "content": f"{shown}\n\n{wish}"}]

    def read(self, reply: str, logprobs: str = "") -> _Reading:
        """The scores in a reply; with log-probabilities the expected score, where they tell it."""
        text = _bare(re.sub(r"(?<!\w)_|_(?!\w)", "", reply))
        if self.criteria:
            found = {name: self._of_criterion(name, text) for name in self.criteria}
            return _Reading({name: value for name, value in found.items() if value is not None})
        value = self._alone(text)
        if value is None:
            return _Reading({})
        expected = expected_score(logprobs, value, self.scale) if logprobs else None
        return _Reading({"": value if expected is None else expected}, expected is not None)

    def _alone(self, text: str) -> float | None:
        score = self.scale.pattern
        leads = r"(?!\w)[\"']?\s*(?:\([^)\n]*\)\s*)?(?:is|:|=)\s*[\"'\[(<{]*"
        forms = (
            rf"\[\[\s*{score}\s*\]\]",
            rf"(?<![^\W\d_]){_CALLED}{leads}{score}",
            rf"(?<![^\W\d_]){_ALSO_CALLED}{leads}{score}(?![^\S\n]+\w)",
            rf"^(?:\W*\s)?(?:<score>|[^\w+-]*\\boxed)?[^\w+-]*{score}\s*(?:points?|分|点|점)?(?:</score>)?\W*$",
        )
        said = [m[1] for form in forms for m in re.finditer(form, text, re.IGNORECASE | re.MULTILINE)]
        if not self.scale.words:  # wherever it stands, "7/10" or "7 out of 10" is a score
            said += re.findall(rf"(?<![\d.,/-])([+-]?\d++(?:[.,]\d++)?+){self.scale._top}", text, re.IGNORECASE)
        return self._one(said)

    def _of_criterion(self, name: str, text: str) -> float | None:
        called = r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", name)))
        form = (
            rf"(?:^|[^\w\s]|\b(?:the|and|for|on)\s)\s*{called}(?!\w)(?: (?:score|rating))?[\"']?\s*(?:\([^)\n]*\)\s*)?"
            rf"(?:is|:|=|-|\|)\s*[\"'\[({{]*(?:[\"']?score[\"']?:\s*[\"']?)?{self.scale.pattern}"
        )
        return self._one([m[1] for m in re.finditer(form, text, re.IGNORECASE | re.MULTILINE)])

    def _one(self, said: Sequence[str]) -> float | None:
        values = {self.scale.value(s) for s in said}
        return values.pop() if len(values) == 1 else None


@dataclass(frozen=True)
class _Reading:
    """The scores that a reply says.

    Attributes
    ----------
    scores : mapping of str to float
        By criterion ("" for the only one); one that is not said is not there.
    expected : bool
        Whether the score is the mean over the judge's own probabilities.
    """

    scores: Mapping[str, float]
    expected: bool = False


def expected_score(logprobs: str, said: float, scale: Scale) -> float | None:
    """The mean score by the judge's own probabilities at the token that says the score; None where they do not tell it.

    >>> import json, math
    >>> top = [{"token": "7", "logprob": math.log(0.5)}, {"token": "8", "logprob": math.log(0.5)}]
    >>> expected_score(json.dumps([{"token": "7", "logprob": math.log(0.5), "top_logprobs": top}]), 7, Scale(1, 9))
    7.5

    Notes
    -----
    G-Eval (Liu et al. 2023, arXiv 2303.16634, equation 1), over the candidates that are scores of the scale. Where
    less than half of the probability is on them, or "1" may be the beginning of "10" for this tokenizer, there is none.
    """
    if scale.words or scale.low < 0:  # a token "-" may begin any score below 0
        return None
    tokens = json.loads(logprobs)
    written = f"{said:g}"
    at = [t for t in tokens if t["token"].strip() == written]
    if len(at) != 1:
        return None
    mass: dict[float, float] = {}
    for one in at[0]["top_logprobs"]:
        value = scale.value(one["token"].strip())
        if value is not None:
            mass[value] = mass.get(value, 0.0) + math.exp(one["logprob"])
    total = sum(mass.values())
    long = {str(n) for n in range(scale.low, scale.high + 1) if len(str(n)) > 1}
    seen = {one["token"].strip() for one in at[0]["top_logprobs"]}
    digits = {float(n[0]) for n in long - seen if n[0].isdigit()}
    if total < 1 - MOST_MASS_UNKNOWN or any(mass.get(d, 0.0) > MOST_AMBIGUOUS for d in digits):
        return None
    return sum(value * p for value, p in mass.items()) / total


@dataclass(frozen=True)
class PairQuestion:
    """What a judge is asked about two responses.

    Parameters
    ----------
    text : str
        With {first} and {second}, and, if wanted, {prompt}.

    Examples
    --------
    >>> PairQuestion().read("[[A]]"), PairQuestion().read("tie"), PairQuestion().read("A or B")
    (1.0, 0.5, None)
    """

    text: str = _PAIR

    def __post_init__(self) -> None:
        for place in ("first", "second"):
            _placed(self.text, place, "the question about two responses")

    @property
    def hash(self) -> str:
        """Eight digits that tell this question from others."""
        return _hash(self.text)

    def conversation(self, prompt: Any, first: str, second: str) -> Conversation:
        """What the judge is asked."""
        fields = {"prompt": prompt_text(prompt), "first": first, "second": second}
        return [{"role": "user", "content": filled(self.text, fields, "\n".join(fields.values()))}]

    def read(self, reply: str) -> float | None:
        """1 for the first response, 0 for the second, 0.5 for a tie; None where the reply says none or several."""
        text = _bare(reply).strip()
        one = (
            r"(?:(?:response|assistant|answer|option|model)[ _]?)?(?<![^\W_])(A|B|C|(?:a )?tie|draw|neither|equal|both)"
        )
        said = re.findall(r"\[\[\s*(A|B|C|tie)\s*\]\]", text, re.IGNORECASE)
        if not said:
            led = r"(?:(?:(?:final |my )?(?:response|answer|verdict|choice|winner)|better|it)\W+(?:(?:is|s)\W+)?)"
            forms = (
                rf"^\W*{led}?{one}\W*$",
                rf"^\W*{one} (?:is (?:the )?better(?: response| one)?|wins|is preferred)\W*$",
                rf"^\W*(?:the )?(?:better|best|preferred) (?:response|answer|one) is\W+{one}\W*$",
            )
            said = [found for form in forms for found in re.findall(form, text, re.IGNORECASE | re.MULTILINE)]
        values = {{"a": 1.0, "b": 0.0}.get(found.lower(), 0.5) for found in said}
        return values.pop() if len(values) == 1 else None


def _bare(reply: str) -> str:
    """A reply without its thinking, without marks of emphasis, in letters of single width; "" where all is thinking."""
    return re.sub(r"[*`#]", "", without_thoughts(reply, "") or "").translate(_WIDE)


def _placed(text: str, place: str, what: str) -> None:
    if "{" + place + "}" not in text:
        raise InputError(f"{what} has no {{{place}}}: write it where the text goes ({shorten(text, 80)!r})")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def rubric_file(path: str | Path) -> str:
    """The text of a rubric's file. Raises InputError."""
    try:
        return read_text(Path(path).expanduser()).strip()
    except InputError as e:
        raise InputError(f"the rubric {e}") from None
