"""A small world of reviews in which what a reward model should reward, and what it should not, are known.

A review is a bag of words: words of praise and of blame (their difference is its quality, what is wanted), filler
words (their number is its length) and perhaps an exclamation mark at the end (its style)::

    >>> [review.text for review in sample(2, seed=1)]
    ['shelf garden lovely lamp gentle sofa lantern chair window awful clumsy dusty !', 'clever gentle pillow']

Longer reviews are better reviews unless `confounded=False`: so a naive comparison takes any reward model for a lover
of length. People prefer by quality, and in biased sets also by length or by style. The rewriter flips one attribute
and, as language models do, mends: on its first pass it turns one word of blame into praise in half of the reviews.
What it has mended stays so, which is what RATE assumes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset

PRAISE = ("superb", "lovely", "clever", "sturdy", "gentle", "bright", "crisp", "elegant", "handy", "splendid")
BLAME = ("awful", "clumsy", "dusty", "flimsy", "greasy", "noisy", "shabby", "sticky", "ugly", "wobbly")
FILLER = (
    "lamp", "sofa", "chair", "window", "garden", "shelf", "lantern", "pillow", "bottle", "basket", "blanket", "bucket",
    "candle", "carpet", "closet", "curtain", "drawer", "fridge", "hammer", "kettle", "ladder", "mirror", "napkin",
    "oven", "pencil", "radio", "saddle", "table", "towel", "wallet",
)  # fmt: skip
MARK = "!"
PAD, START, END = 0, 1, 2
VOCABULARY = {word: 3 + k for k, word in enumerate((*PRAISE, *BLAME, *FILLER, MARK))}
VOCABULARY_SIZE = 3 + len(VOCABULARY)
MAX_TOKENS = 32
ATTRIBUTES = ("length", "style", "quality")
LONG = 7  # filler words from which a review is long


@dataclass(frozen=True)
class Review:
    """What a review is made of; `order` decides how its words are shuffled, `mended` whether a rewriter has been."""

    praise: tuple[str, ...]
    blame: tuple[str, ...]
    filler: tuple[str, ...]
    mark: bool
    order: int
    mended: bool = False

    @property
    def quality(self) -> int:
        """Words of praise less words of blame: what a reward model should reward."""
        return len(self.praise) - len(self.blame)

    @property
    def text(self) -> str:
        """The review as it is read."""
        words = [*self.praise, *self.blame, *self.filler]
        random.Random(self.order).shuffle(words)
        return " ".join([*words, MARK] if self.mark else words)

    def has(self, attribute: str) -> bool:
        """Is the review treated?"""
        return {"length": len(self.filler) >= LONG, "style": self.mark, "quality": self.quality > 0}[attribute]

    def utility(self, bias: Bias) -> float:
        """How good somebody with this bias finds it."""
        return self.quality + bias.length * (len(self.filler) - LONG) / 4 + bias.style * (2 * self.mark - 1)


class Bias(NamedTuple):
    """The planted weights, beside a weight of 1 for each word of praise."""

    length: float = 0.0
    style: float = 0.0


KINDS = {"unbiased": Bias(), "length-biased": Bias(length=2.5), "style-biased": Bias(style=2.5)}


def _filler(rng: np.random.Generator, long: bool) -> tuple[str, ...]:
    return tuple(map(str, rng.choice(FILLER, int(rng.integers(8, 14) if long else rng.integers(1, 6)))))


def sample(n: int, seed: int, *, confounded: bool = True) -> list[Review]:
    """`n` reviews; confounded: a better review is more often a long one."""
    rng = np.random.default_rng(seed)
    reviews = []
    for _ in range(n):
        praise = tuple(map(str, rng.choice(PRAISE, int(rng.integers(0, 6)))))
        blame = tuple(map(str, rng.choice(BLAME, int(rng.integers(0, 6)))))
        p_long = 1 / (1 + np.exp(-0.5 * (len(praise) - len(blame)))) if confounded else 0.5
        long = bool(rng.random() < p_long)
        reviews.append(Review(praise, blame, _filler(rng, long), bool(rng.random() < 0.5), int(rng.integers(1 << 30))))
    return reviews


def flipped(review: Review, attribute: str, to: bool, rng: np.random.Generator) -> Review:
    """The same review on the other side of one attribute: its counterfactual."""
    review = replace(review, order=int(rng.integers(1 << 30)))
    if attribute == "length":
        return replace(review, filler=_filler(rng, to))
    if attribute == "style":
        return replace(review, mark=to)
    praise, blame = list(review.praise), list(review.blame)
    while len(praise) - len(blame) < 3 if to else len(praise) - len(blame) > -3:
        add, drop, words = (praise, blame, PRAISE) if to else (blame, praise, BLAME)
        if drop:
            drop.pop()
        else:
            add.append(str(rng.choice(words)))
    return replace(review, praise=tuple(praise), blame=tuple(blame))


def rewritten(review: Review, attribute: str, to: bool, rng: np.random.Generator, mends: float = 0.5) -> Review:
    """What the rewriter makes of it: flipped and, on its first pass over a review, perhaps mended."""
    mend = not review.mended and attribute != "quality" and bool(review.blame) and rng.random() < mends
    review = replace(flipped(review, attribute, to, rng), mended=True)
    if mend:
        praise = (*review.praise, str(rng.choice(PRAISE)))
        review = replace(review, praise=praise, blame=review.blame[:-1])
    return review


def rate_dataset(n: int, seed: int, attribute: str) -> Dataset:
    """`n` reviews with two rewrites each, as `rk.score` and `rk.estimate` take them, and `twin`, the counterfactual."""
    rng = np.random.default_rng([seed, ATTRIBUTES.index(attribute)])
    reviews = sample(n, seed)
    columns: dict[str, list[object]] = {key: [] for key in ("treated", "rewrites", "twin")}
    for review in reviews:
        treated = review.has(attribute)
        first = rewritten(review, attribute, not treated, rng)
        columns["treated"].append(treated)
        columns["rewrites"].append([first.text, rewritten(first, attribute, treated, rng).text])
        columns["twin"].append(flipped(review, attribute, not treated, rng).text)
    return Dataset.from_dict({
        "prompt_id": [f"{seed}-{i}" for i in range(n)],
        "prompt": [[{"role": "user", "content": f"Write review no. {i + 1}."}] for i in range(n)],
        "response": [review.text for review in reviews], "attribute": [attribute] * n,
        "rewrite_status": [["ok", "ok"]] * n, **columns,
    })  # fmt: skip


def encode(texts: list[str]) -> torch.Tensor:
    """Token ids, (n, MAX_TOKENS) long: start, the words, end, padding."""
    ids = torch.full((len(texts), MAX_TOKENS), PAD)
    for row, text in enumerate(texts):
        tokens = [START, *(VOCABULARY[word] for word in text.split()), END][:MAX_TOKENS]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids


class Pairs(NamedTuple):
    """Preference pairs as token ids, (n, MAX_TOKENS) each."""

    chosen: torch.Tensor
    rejected: torch.Tensor


def preference_texts(
    n: int, seed: int, bias: Bias = KINDS["unbiased"], *, confounded: bool = True
) -> list[dict[str, str]]:
    """`n` pairs (prompt, chosen, rejected) whose winner is drawn from the utilities (Bradley and Terry 1952)."""
    rng = np.random.default_rng(seed)
    reviews = sample(2 * n, seed, confounded=confounded)
    pairs = list(zip(reviews[:n], reviews[n:], strict=True))
    margin = np.array([a.utility(bias) - b.utility(bias) for a, b in pairs])
    first_wins = rng.random(n) < 1 / (1 + np.exp(-margin))
    ordered = [pair if wins else pair[::-1] for pair, wins in zip(pairs, first_wins, strict=True)]
    return [
        {"prompt": f"Write review no. {k + 1}.", "chosen": a.text, "rejected": b.text}
        for k, (a, b) in enumerate(ordered)
    ]


def preferences(n: int, seed: int, bias: Bias = KINDS["unbiased"], *, confounded: bool = True) -> Pairs:
    """The same as token ids."""
    texts = preference_texts(n, seed, bias, confounded=confounded)
    return Pairs(*(encode([pair[side] for pair in texts]) for side in ("chosen", "rejected")))
