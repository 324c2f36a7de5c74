"""Versions of an attribute tried on rows: rewritten so that it can be stopped, costed, estimated, compared. No widgets.

A version is an `Attribute` with the rows that it was tried on, rewritten and scored, and what `rk.diagnose` says.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import Attribute
from ratekit.conclusions import Verdict
from ratekit.diagnostics.diagnose import diagnose, examine
from ratekit.errors import WorkError
from ratekit.escaping import as_html, visible
from ratekit.measures import Measure
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.base import FAILED, Reply, Rewrite, Rewriter
from ratekit.rewriting.cache import fingerprint_of
from ratekit.rewriting.chains import rows_of, with_cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.prompts import template_of
from ratekit.rewriting.replay import Replay
from ratekit.rewriting.stream import plan_chains
from ratekit.scoring.base import Reward
from ratekit.sources.loading import sample
from ratekit.stages import estimate, rewrite, score, standardize
from ratekit.widgets import cards
from ratekit.widgets.facts import taken
from ratekit.widgets.progress import Cancelled, Progress
from ratekit.widgets.prototypes import Draft

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

_AT_ONCE = 8  # texts handed to a plain rewriter at once


# --- rewriting that can be stopped -----------------------------------------------------------------------------


def rewriter_for(
    rewriter: str | Rewriter | Replay, attribute: Attribute, *, cache: Any = None, options: Options | None = None
) -> Rewriter | Replay:
    """The rewriter with this attribute's phrases. A plain (texts, targets) callable does not read phrases."""
    if isinstance(rewriter, str):
        rewriter = make_rewriter(rewriter, attribute, cache=cache, options=options)
    if isinstance(rewriter, ChatRewriter):
        own = rewriter.template if rewriter.template != template_of(rewriter.attribute) else ""
        return replace(with_cache(rewriter, cache), attribute=attribute, template=own)
    return rewriter


class _Watched(Meter):
    """A meter that shows how far the rewriting is and lets no new request go out once the user wants to stop."""

    progress: Progress
    total: int

    def add(self, usage: Mapping[str, int], estimated: bool = False, readable: bool = True) -> None:
        super().add(usage, estimated, readable)
        self.progress.show(self.rows, self.total, self.shown())
        if self.progress.cancelled:
            self.stopped = "cancelled"


class _StoppableChat:
    """A chat that ends after the reply in hand once the user wants to stop; that reply is stored by then."""

    def __init__(self, chat: Any, progress: Progress) -> None:
        self.chat, self.progress, self.fingerprint = chat, progress, fingerprint_of(chat)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.chat, name)

    def __call__(self, conversations: list[Any]) -> Iterator[Reply]:
        for reply in self.chat(conversations):
            yield reply  # comes back here when the reply is stored
            if self.progress.cancelled:
                raise Cancelled


class _StoppableRewriter:
    """A rewriter of texts that is handed a few at a time, and none once the user wants to stop."""

    def __init__(self, rewriter: Rewriter, progress: Progress, total: int) -> None:
        self.rewriter, self.progress, self.total, self.done = rewriter, progress, total, 0
        self.fingerprint = fingerprint_of(rewriter)

    def __call__(self, texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        found: list[Rewrite] = []
        for start in range(0, len(texts), _AT_ONCE):
            if self.progress.cancelled:  # a failure is not kept in the cache, so it will be asked for again
                return found + [Rewrite(None, FAILED)] * (len(texts) - len(found))
            block = list(texts[start : start + _AT_ONCE]), list(targets[start : start + _AT_ONCE])
            found += [Rewrite(*r) for r in self.rewriter(*block)]
            self.done += len(block[0])
            self.progress.show(min(self.done, self.total), self.total)
        return found


def rewritten(
    ds: Dataset, attribute: Attribute, rewriter: Rewriter | Replay, depth: int, cache: Any, progress: Progress,
    prices: Prices | None = None,
) -> Dataset:  # fmt: skip
    """`rk.rewrite` with progress, and a stop after which everything that arrived is in the cache."""
    meter = _Watched(prices)
    meter.progress, meter.total = progress, len(ds)
    if isinstance(rewriter, ChatRewriter):
        if not hasattr(rewriter.chat, "serve"):
            rewriter = replace(rewriter, chat=_StoppableChat(rewriter.chat, progress))
    elif not isinstance(rewriter, Replay):
        rewriter = _StoppableRewriter(rewriter, progress, depth * len(ds))
    try:
        ds = rewrite(ds, attribute, rewriter, depth, cache=cache, progress=False, meter=meter)
    except WorkError:
        if progress.cancelled:
            raise Cancelled from None
        raise
    if progress.cancelled:
        raise Cancelled
    return ds


# --- versions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A draft and what came of it; `table` and `verdicts` are there once it was estimated on `n` rows."""

    name: str
    draft: Draft
    attribute: Attribute
    ds: Dataset
    checks: pd.DataFrame
    places: tuple[int, ...]
    table: pd.DataFrame | None = None
    verdicts: tuple[Verdict, ...] = ()
    n: int = 0


def checked(ds: Dataset, attribute: Attribute, measures: Mapping[str, Measure] | None = None) -> pd.DataFrame:
    """`rk.diagnose` with the attribute's own measure and the user's."""
    return diagnose(ds, measures=_with_own(attribute, measures))


def _with_own(attribute: Attribute, measures: Mapping[str, Measure] | None) -> dict[str, Measure]:
    own = {attribute.name: attribute.measure} if attribute.measure is not None else {}
    return {**(measures or {}), **own}


def scored(ds: Dataset, reward: str | Reward, name: str) -> Dataset:
    """The rows with the reward under this name."""
    return score(ds, reward, name=name, progress=False)


def estimated(
    version: Version, ds: Dataset, rewriter: Rewriter | Replay, reward: str | Reward, reward_name: str, n: int,
    depth: int, cache: Any, progress: Progress, measures: Mapping[str, Measure] | None = None,
    prices: Prices | None = None,
) -> Version:  # fmt: skip
    """The version with its effects on `n` rows of the labelled `ds`."""
    drawn = sample(ds, n)
    rows = rewritten(taken(drawn, list(range(len(drawn)))), version.attribute, rewriter, depth, cache, progress, prices)
    progress(len(rows), len(rows), "scoring")
    rows = scored(rows, reward, reward_name)
    every = _with_own(version.attribute, measures)
    table = estimate(rows, measures=every)
    checks, said = examine(rows, table, measures=every)
    return replace(version, table=table, checks=checks, verdicts=tuple(said), n=len(rows))


def cost_in_words(ds: Dataset, rewriter: Rewriter | Replay, n: int, depth: int, prices: Prices | None = None) -> str:
    """What rewriting n rows would cost, before it is begun.

    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> cost_in_words(ds, rk.RuleRewriter("length"), 40, 2)
    '40 rows, 80 rewrites: this rewriter calls no language model and costs nothing.'
    """
    rows = sample(ds, n)
    if not isinstance(rewriter, ChatRewriter):
        free = "this rewriter calls no language model and costs nothing"
        return f"{len(rows):,} rows, {depth * len(rows):,} rewrites: {free}."
    plan = plan_chains(rewriter, rows_of(rows, rewriter.needs_prompt), depth, prices)
    known = f"{plan.from_cache:,} more are in the cache; " if plan.from_cache else ""
    money = "money not known (give prices=(in, out) per million tokens)"
    if plan.money is not None:
        money = f"money {plan.money:,.4g}"
    return (
        f"{plan.rows:,} rows: {plan.calls:,} calls; {known}about {plan.tokens_in:,} tokens in and "
        f"{plan.tokens_out:,} out ({plan.counted_by}), {money}, {plan.hours * 60:.2g} minutes ({plan.rate})."
    )


def comparison(versions: Sequence[Version]) -> str:
    """Versions side by side: phrases, compliance, off-target balance, similarity, effect. An HTML table.

    Compliance is the worst of the passes towards a side; balance the larger of the two classes, in SDs.
    """
    if not versions:
        return "<p>No version yet: write two phrases and try them.</p>"
    names = list(dict.fromkeys(about for v in versions for about in _balance(v)))
    lines: list[tuple[str, list[str]]] = [
        ("towards treated", [as_html(v.attribute.treated, 200) for v in versions]),
        ("towards untreated", [as_html(v.attribute.untreated, 200) for v in versions]),
        ("measured by", [as_html(getattr(v.attribute.measure, "__name__", "–"), 80) for v in versions]),
        ("rows", [str(v.n or len(v.ds)) for v in versions]),
        ("rewrites that succeeded", [_status(v) for v in versions]),
        ("moved towards treated when asked", [_compliance(v, "towards treated") for v in versions]),
        ("moved towards untreated when asked", [_compliance(v, "towards untreated") for v in versions]),
        ("second rewrite like the response", [_similarity(v) for v in versions]),
        *((f"off target: {html.escape(visible(n))}", [_balance(v).get(n, "–") for v in versions]) for n in names),
        ("verdict", [html.escape(_verdict(v)) for v in versions]),
        ("RATE effect", [_effect(v) for v in versions]),
    ]  # fmt: skip
    head = "".join(f"<th>{html.escape(v.name)}</th>" for v in versions)
    body = "".join(
        f'<tr><th class="rk-name">{name}</th>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for name, row in lines
    )
    return f'<div class="rk-wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _of(version: Version, check: str) -> pd.DataFrame:
    return version.checks[version.checks["check"] == check]


def _status(version: Version) -> str:
    found = _of(version, "status")
    found = found[found["about"] == "ok"]
    return f"{found['value'].min():.0%}" if len(found) else "–"


def _compliance(version: Version, towards: str) -> str:
    found = _of(version, "compliance")
    found = found[found["words"] == towards]
    return f"{found['value'].min():.0%}" if len(found) else "not measured"


def _similarity(version: Version) -> str:
    found = _of(version, "similarity")
    return f"{np.average(found['value'], weights=found['n']):.0%}" if len(found) else "–"


def _balance(version: Version) -> dict[str, str]:
    found = _of(version, "balance").dropna(subset=["in_sd"])
    cells = {}
    for name, rows in found.groupby("about", sort=False):
        worst = rows.loc[rows["in_sd"].abs().idxmax()]
        far = abs(worst["in_sd"]) > 0.5
        cells[str(name)] = f"{'<b>' if far else ''}{worst['in_sd']:+.2f} SD{' ▲</b>' if far else ''}"
    return cells


def verdict_of(version: Version) -> str:
    """What `diagnose` says of its rows, in two or three words and why."""
    found = _of(version, "verdict").iloc[0]
    return f"{found['group']}, {found['words']}"


def _verdict(version: Version) -> str:
    return str(_of(version, "verdict")["group"].iloc[0])


def _effect(version: Version) -> str:
    if version.table is None:
        return "not estimated"
    has_sd = bool(version.table["reward_sd"].gt(0).any())
    rows = standardize(version.table) if has_sd else version.table
    rows = rows[rows["estimator"] == "rate"]
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    return f"{row.estimate:+.2f} [{row.ci_low:+.2f}, {row.ci_high:+.2f}]{' SD' if has_sd else ''}"


def side_by_side(versions: Sequence[Version], place: int) -> str:
    """One row under several versions, a column for each."""
    columns = []
    for version in versions:
        if place in version.places:
            found = dict(version.ds[version.places.index(place)])
            inner = cards.card(found, ranges=None)
        else:
            inner = "<p>not tried on this row</p>"
        title = f"<p><b>{html.escape(version.name)}</b></p>"
        columns.append(f'<div style="flex:1 1 340px;min-width:0">{title}{inner}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px 18px">{"".join(columns)}</div>'
