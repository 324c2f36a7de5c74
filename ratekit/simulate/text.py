"""A world of texts: synthetic reviews with true counterfactual twins, and a rewriter whose faults are known.

Each review is rendered from latents, so its twin is the same latents with the attribute flipped, and any reward
model's true effect is the mean of its rewards of the twins: nothing about the reward need be known.

>>> sample = TextWorld("sentiment", confounder="length", typos=(0.1, 0.1)).sample(40, seed=3)
>>> print(sample.responses[0])
Teh packaging is excellent. Teh closure is lovely. The texture is excellent on a shelf.
>>> print(sample.twins[0])
Teh packaging is awful. Teh closure is ugly. The texture is awful on a shelf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, require_whole, unknown
from ratekit.schema import Conversation
from ratekit.simulate.numeric import Imperfections

if TYPE_CHECKING:
    from datasets import Dataset

_Rewriter = Callable[[Sequence[str], Sequence[bool]], "list[tuple[str | None, str]]"]

PRODUCT_ASPECTS = (
    "packaging", "size", "shape", "strap", "colour", "weight", "handle", "surface", "manual", "delivery", "lining",
    "closure", "label", "sound", "texture", "height",
)  # fmt: skip
PRAISE = ("good", "great", "nice", "fine", "lovely", "neat", "superb", "excellent")
BLAME = ("bad", "terrible", "odd", "poor", "ugly", "dull", "horrible", "awful")
OPINION_WORDS = frozenset(PRAISE + BLAME)
DETAILS = ("after a month", "in the end", "for daily use", "on the road", "at home", "in the morning", "by the sea",
           "on a shelf", "under a lamp", "from the start")  # fmt: skip
TIPS = ("Check the measurements before ordering.", "Keep the receipt with the box.", "Store it away from the window.")
OPENERS = {True: "Overall, ", False: "Frankly, "}
COMPLEX = "Considering everything surrounding it, the"
POLISH = "This concludes the present review."
PRODUCTS = ("backpack", "lamp", "kettle", "notebook", "tent", "chair", "speaker", "bicycle", "raincoat", "clock")

_SIDES = ("length", "sentiment", "starts-with-vowel", "helpfulness", "complexity")
_SLOTS, _WORDS = 18, 14  # sentences of the longest review and its tips; words of the longest sentence


@dataclass(frozen=True)
class Latents:
    """What a review is made of; `row` says which random draws decide the rest.

    `sides` are the attributes of `SIDES`, on or off; `typos`, `markup` and `detail` are rates, `wording` counts the
    passes that may have changed the wording, `polished` says whether a closing line was put on.
    """

    row: int
    sides: tuple[bool, ...]
    typos: float
    markup: float
    detail: float = 0.7
    wording: tuple[int, ...] = ()
    polished: bool = False

    def on(self, attribute: str) -> bool:
        """Does the review have the attribute?"""
        return self.sides[_SIDES.index(attribute)]

    def with_side(self, attribute: str, value: bool) -> Latents:
        """The same review but for this attribute."""
        sides = list(self.sides)
        sides[_SIDES.index(attribute)] = value
        return replace(self, sides=tuple(sides))


@dataclass(frozen=True)
class TextWorld:
    """Reviews in which one attribute is tied to another and to carelessness.

    Parameters
    ----------
    attribute
        what is varied, one of `SIDES`; confounder: what goes with it, another
    confounding
        correlation of the two: P(both on the same side) = (1 + confounding)/2
    typos, markup
        (untreated, treated) share of words misspelt, and of breaks between sentences that are HTML; the words that say
        good or bad are never misspelt
    careless
        (without, with the confounder) further share of words misspelt: what the rewriter mends then goes with the
        confounder, and with the attribute as far as the two go together
    share_treated
        of the rows
    rows_per_prompt
        reviews that share a prompt
    rewriter
        its faults; `asymmetry` is here the share of rows that get a closing line in passes towards the treated side,
        and `noise` the chance that a pass words a sentence anew
    """

    attribute: str = "length"
    confounder: str | None = None
    confounding: float = 0.5
    typos: tuple[float, float] = (0.05, 0.05)
    markup: tuple[float, float] = (0.0, 0.0)
    careless: tuple[float, float] = (0.0, 0.0)
    share_treated: float = 0.5
    rows_per_prompt: int = 1
    rewriter: Imperfections = field(default_factory=lambda: Imperfections(rho=0.15, noise=0.1))

    def __post_init__(self) -> None:
        for name in (self.attribute, self.confounder):
            if name is not None and name not in _SIDES:
                raise unknown("attribute of a text world", name, _SIDES)
        if self.attribute == self.confounder:
            raise InputError(f"{self.attribute!r} cannot be its own confounder")
        for name in ("typos", "markup", "careless"):
            if not all(0 <= rate <= 1 for rate in getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: two shares between 0 and 1 were expected")
        if not 0 < self.share_treated < 1 or not abs(self.confounding) <= 1 or self.rows_per_prompt < 1:
            raise InputError("0 < share_treated < 1, -1 <= confounding <= 1 and rows_per_prompt >= 1 were expected")
        if not 0 <= self.rewriter.asymmetry <= 1 or not self.rewriter.noise <= 1:
            raise InputError("in a text world asymmetry and noise are shares between 0 and 1")

    def sample(self, n: int, seed: int = 0) -> TextSample:
        """`n` reviews with their twins and their rewriter."""
        require_whole("n", n, 2)
        require_whole("seed", seed)
        rng = np.random.default_rng(seed)
        # Drawn first and always in full, so that worlds that differ in one rate share all else: a sweep compares
        # the same reviews.
        treated = rng.random(n) < self.share_treated
        if treated.all() or not treated.any():
            treated[0] = not treated[0]
        same = rng.random(n) < (1 + self.confounding) / 2
        sides = rng.random((n, len(_SIDES))) < 0.5
        draws = _Draws(rng, n)
        of = {name: sides[:, k] for k, name in enumerate(_SIDES)}
        of[self.attribute] = treated
        if self.confounder:
            of[self.confounder] = np.where(same, treated, ~treated)
        with_it = of[self.confounder] if self.confounder else np.zeros(n, bool)
        latents = [
            Latents(
                row=i,
                sides=tuple(bool(of[name][i]) for name in _SIDES),
                typos=self.typos[int(treated[i])] + self.careless[int(with_it[i])],
                markup=self.markup[int(treated[i])],
            )
            for i in range(n)
        ]
        return TextSample(self, latents, draws)


class _Draws:
    """The random numbers behind n reviews: which aspect, word, detail, typo, break, and what each pass does."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.order = rng.permuted(np.tile(np.arange(len(PRODUCT_ASPECTS)), (n, 1)), axis=1)
        self.n_short = rng.integers(3, 6, n)
        self.word = rng.random((n, _SLOTS, 8))  # by wording
        self.detail = rng.random((n, _SLOTS))
        self.which = rng.integers(0, len(DETAILS), (n, _SLOTS))
        self.typo = rng.random((n, _SLOTS, _WORDS))
        self.markup = rng.random((n, _SLOTS))
        self.reworded = rng.random((n, 8, _SLOTS))
        self.follows, self.polish = rng.random(n), rng.random(n)
        self.complies = rng.random((n, 8))


@dataclass
class TextSample:
    """Reviews of a `TextWorld`, drawn by `TextWorld.sample`; all lists have n entries, one a review.

    responses   the reviews; `twins` the same reviews with the attribute changed and nothing else
    treated     shape (n,), bool: has the review the attribute?
    prompts     one conversation each; `prompt_ids` are shared by the `rows_per_prompt` reviews of a prompt
    """

    world: TextWorld
    latents: list[Latents]
    draws: _Draws

    def __post_init__(self) -> None:
        self.responses = [self.render(x) for x in self.latents]
        attribute = self.world.attribute
        self.treated: NDArray[np.bool_] = np.array([x.on(attribute) for x in self.latents])
        self.twins = [self.render(x.with_side(attribute, not x.on(attribute))) for x in self.latents]
        groups = np.arange(len(self.latents)) // self.world.rows_per_prompt
        self.prompt_ids = [f"review-{g:05d}" for g in groups]
        self.prompts: list[Conversation] = [
            [{"role": "user", "content": f"Write a review of {PRODUCTS[g % len(PRODUCTS)]} no. {g + 1}."}]
            for g in groups
        ]

    def render(self, x: Latents) -> str:
        """The review that these latents give."""
        d, i = self.draws, x.row
        n = int(d.n_short[i]) * (2 if x.on("length") else 1)
        sentences = []
        for slot in range(n):
            aspect = PRODUCT_ASPECTS[d.order[i, slot]]
            version = max((p for p in x.wording if d.reworded[i, p, slot] < self.world.rewriter.noise), default=0)
            word = (PRAISE if x.on("sentiment") else BLAME)[int(d.word[i, slot, version] * len(PRAISE))]
            opening = f"{COMPLEX} {aspect} might be characterised as" if x.on("complexity") else f"The {aspect} is"
            detail = f" {DETAILS[d.which[i, slot]]}" if d.detail[i, slot] < x.detail else ""
            sentences.append(f"{opening} {word}{detail}.")
        if x.on("helpfulness"):
            sentences += TIPS[:2]
        if x.polished:
            sentences.append(POLISH)
        sentences = [self._misspelt(s, i, slot, x.typos) for slot, s in enumerate(sentences)]
        # The opener is put on last, so that only the first letter tells the sides of starts-with-vowel apart.
        first = sentences[0][0].lower() + sentences[0][1:]
        if self.world.attribute == "starts-with-vowel" or self.world.confounder == "starts-with-vowel":
            sentences[0] = OPENERS[x.on("starts-with-vowel")] + first
        text = sentences[0]
        for slot, sentence in enumerate(sentences[1:]):
            text += ("<br /><br />" if d.markup[i, slot] < x.markup else " ") + sentence
        return text

    def _misspelt(self, sentence: str, row: int, slot: int, rate: float) -> str:
        if rate <= 0:
            return sentence
        words = sentence.split(" ")
        for k, word in enumerate(words):
            core = word.rstrip(".,")
            if self.draws.typo[row, slot, k] < rate and len(core) > 2 and core not in OPINION_WORDS:
                words[k] = misspell(core) + word[len(core) :]
        return " ".join(words)

    # --- rewriting -------------------------------------------------------------------------------------------

    def rewritten(self, x: Latents, target: bool, passes: int) -> Latents:
        """These latents after one more pass, the `passes`-th, towards `target`."""
        knobs, d, i = self.world.rewriter, self.draws, x.row
        if knobs.noncompliance == 0 or d.complies[i, passes] >= knobs.noncompliance:
            x = x.with_side(self.world.attribute, target)
            if self.world.confounder and d.follows[i] < knobs.leak:
                x = x.with_side(self.world.confounder, target)
        return replace(
            x,
            typos=x.typos * knobs.rho,
            markup=x.markup * knobs.rho,
            detail=x.detail * (1 - knobs.loss),
            wording=(*x.wording, passes) if knobs.noise else (),
            polished=target and bool(d.polish[i] < knobs.asymmetry),
        )

    def chains(self, depth: int = 3) -> list[list[str]]:
        """The rewrites of each review: to the other side, back, and so on."""
        require_whole("depth", depth, 1, 7)
        chains = []
        for x, treated in zip(self.latents, self.treated, strict=True):
            chain, target = [], bool(treated)
            for passes in range(1, depth + 1):
                target = not target
                x = self.rewritten(x, target, passes)
                chain.append(self.render(x))
            chains.append(chain)
        return chains

    def rewriter(self) -> _Rewriter:
        """The same rewriter as a callable for `rk.rewrite`; it knows the texts of this sample and its own.

        Examples
        --------
        >>> sample = TextWorld().sample(5)
        >>> rewriter = sample.rewriter()
        >>> rewriter(sample.responses[:1], [not sample.treated[0]])[0][0] == sample.chains(1)[0][0]
        True
        """
        known = {text: (x, 0) for text, x in zip(self.responses, self.latents, strict=True)}

        def rewrite(texts: Sequence[str], targets: Sequence[bool]) -> list[tuple[str | None, str]]:
            results: list[tuple[str | None, str]] = []
            for text, target in zip(texts, targets, strict=True):
                if text not in known:
                    results.append((None, "failed"))
                    continue
                x, passes = known[text]
                x = self.rewritten(x, bool(target), passes + 1)
                results.append((self.render(x), "ok"))
                known[results[-1][0]] = (x, passes + 1)  # type: ignore[index]
            return results

        return rewrite

    def dataset(self, depth: int = 3) -> Dataset:
        """The sample as a dataset that `score` and `estimate` take, with the column `twin` beside.

        Examples
        --------
        >>> TextWorld().sample(3).dataset(depth=2).column_names
        ['prompt_id', 'prompt', 'response', 'attribute', 'treated', 'rewrites', 'rewrite_status', 'twin']
        """
        from datasets import Dataset

        return Dataset.from_dict({
            "prompt_id": self.prompt_ids, "prompt": self.prompts, "response": self.responses,
            "attribute": [self.world.attribute] * len(self.latents), "treated": self.treated.tolist(),
            "rewrites": self.chains(depth), "rewrite_status": [["ok"] * depth] * len(self.latents),
            "twin": self.twins,
        })  # fmt: skip


def misspell(word: str) -> str:
    """The word with two letters swapped, so that it is always another word.

    Examples
    --------
    >>> misspell("strap"), misspell("The"), misspell("lill")
    ('srtap', 'Teh', 'llil')
    """
    for k in [*range(1, len(word) - 1), 0]:
        if word[k] != word[k + 1] and (k or word[0].islower() == word[1].islower()):
            return word[:k] + word[k + 1] + word[k] + word[k + 2 :]
    return word + word[-1]
