"""Rows to look at: what a rewrite changed, word by word, and what each reward model thought of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ratekit.attributes import ATTRIBUTES
from ratekit.errors import shorten
from ratekit.escaping import as_html
from ratekit.estimators import signed_change
from ratekit.groups import plain_columns, rewards_of, treated_bools
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    RESPONSE,
    REWRITES,
    TREATED,
    columns_of,
    prompt_text,
)
from ratekit.textdiff import differences_html

_LIMIT = 1500  # characters of a text; a page is to be read, and says where it cut
TEXTS = 3  # the response, its rewrite, the rewrite of that
_ROWS = 120  # of all attributes together


class Bar(NamedTuple):
    """A reward with its place between the lowest and the highest of the dataset, 0 to 100."""

    model: str
    reward: str
    percent: float


class Text(NamedTuple):
    """One text of a chain: what was asked for, the text as HTML, and its rewards."""

    title: str
    html: str
    bars: list[Bar]


class Example(NamedTuple):
    """A row, why it was chosen where it was not by chance, and how it starts."""

    row: int
    attribute: str
    side: str
    why: str
    start: str
    prompt: str
    texts: list[Text]


def examples(ds: Any, model: str | None = None) -> Iterator[Example]:
    """For each attribute a typical row, those with the largest and the smallest effect on `model`'s reward, and others.

    Rewrites are marked against the original: what is marked in the rewrite of the rewrite did not come back. Raises
    nothing: a row without rewrites is passed over.
    """
    if not {RESPONSE, REWRITES, ATTRIBUTE, TREATED} <= set(columns_of(ds)):
        return
    frame = plain_columns(ds, [ATTRIBUTE, TREATED])
    treated = treated_bools(frame[TREATED])
    matrices = dict(rewards_of(ds))
    model = model if model in matrices else next(iter(matrices), None)
    attributes = list(dict.fromkeys(frame[ATTRIBUTE]))
    rng = np.random.default_rng(0)
    for attribute in attributes:
        rows = np.flatnonzero((frame[ATTRIBUTE] == attribute).to_numpy())
        chosen = dict(_chosen(rows, treated, matrices[model] if model else None, model))
        others = [int(row) for row in rows if row not in chosen]
        many = min(max(_ROWS // len(attributes) - len(chosen), 0), len(others))
        chosen |= dict.fromkeys(sorted(int(row) for row in rng.choice(others, many, replace=False)) if many else [], "")
        for row, why in chosen.items():
            yield _example(ds[row], row, str(attribute), bool(treated[row]), why, matrices)


def _chosen(rows: Any, treated: Any, rewards: Any, model: str | None) -> Iterator[tuple[int, str]]:
    if rewards is None or rewards.shape[1] < TEXTS:
        yield from ((int(row), "one of the first rows") for row in rows[:3])
        return
    effect = signed_change(rewards[rows], treated[rows])
    rows, effect = rows[np.isfinite(effect)], effect[np.isfinite(effect)]
    if not len(rows):
        return
    order = np.argsort(effect, kind="stable")
    places = {"a typical row": order[len(order) // 2], "the largest effect": order[-1], "the smallest": order[0]}
    seen = set()
    for why, place in places.items():
        if place not in seen:
            seen.add(place)
            yield int(rows[place]), f"{why}: {effect[place]:+.3g} reward units by {model}"


def _example(row: Any, index: int, attribute: str, treated: bool, why: str, matrices: dict[str, Any]) -> Example:
    chain = [row[RESPONSE], *(row[REWRITES] or [])][:TEXTS]
    known = ATTRIBUTES.get(attribute)
    texts = []
    for k, text in enumerate(chain):
        has = treated == (k % 2 == 0)
        asked = known.phrase(has) if known else f"{'with' if has else 'without'} {attribute}"
        title = ("The response", f"Rewrite: “{asked}”", f"Rewrite of the rewrite: “{asked}”")[k]
        if text is None:
            texts.append(Text(title, '<p class="note">this rewrite failed</p>', []))
            continue
        shown = as_html(text, _LIMIT) if k == 0 else differences_html(chain[0] or "", text, _LIMIT)
        bars = [_bar(name, matrix, index, k) for name, matrix in matrices.items()]
        texts.append(Text(title, shown, [bar for bar in bars if bar is not None]))
    side, start = "treated" if treated else "untreated", shorten(chain[0] or "", 70)
    return Example(index, attribute, side, why, start, prompt_text(row.get(PROMPT))[:_LIMIT], texts)


def _bar(name: str, matrix: Any, row: int, k: int) -> Bar | None:
    if k >= matrix.shape[1] or not np.isfinite(matrix[row, k]):
        return None
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    share = (matrix[row, k] - low) / (high - low) if high > low else 0.5
    return Bar(name, f"{matrix[row, k]:+.3g}", round(100 * float(share), 1))
