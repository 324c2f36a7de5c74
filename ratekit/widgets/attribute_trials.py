"""Versions of an attribute tried on rows: rewritten so that it can be stopped, costed, estimated, compared. No widgets.

A version is an `Attribute` with the audit of the rows that it was tried on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.audits import Audit, audit
from ratekit.conclusions import SDS, Verdict, number_words, read_first
from ratekit.diagnostics.diagnose import examine
from ratekit.errors import InputError, WorkError
from ratekit.escaping import escaped
from ratekit.labellers import Attribute
from ratekit.measures import Measure, name_of
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.base import FAILED, OK, Reply, Rewrite, Rewriter
from ratekit.rewriting.cache import fingerprint_of
from ratekit.rewriting.chains import rewrites_of, rows_of, with_cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.prompts import template_of
from ratekit.rewriting.replay import Replay
from ratekit.rewriting.rules import RULES, mended, rules_of
from ratekit.rewriting.stream import plan_chains
from ratekit.ruled import composed
from ratekit.scoring import NamedReward
from ratekit.sources.loading import sample
from ratekit.tables import Table, cell_html, percent, table_html, to_places
from ratekit.widgets import explorer_html
from ratekit.widgets.attribute_draft import Draft
from ratekit.widgets.progress import Cancelled, Progress

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

_AT_ONCE = 8  # texts handed to a plain rewriter at once


# --- rewriting that can be stopped -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Composed:
    """A rewriter by several rules, in their order towards the treated side and in reverse towards the other.

    Examples
    --------
    >>> Composed(("hedging", "citations"))(["It drags."], [True])[0].text
    'It drags, perhaps [1].'
    """

    names: tuple[str, ...]
    mend: float = 1.0
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """What the rewrites depend on besides text and target."""
        return f"rules:{'+'.join(self.names)},mend={self.mend},seed={self.seed}"

    def __call__(self, texts: Sequence[str], targets: Sequence[bool]) -> list[Rewrite]:
        """Rewrite each text to its target side."""
        rule = composed(*(RULES[name] for name in self.names))
        pairs = zip(texts, targets, strict=True)
        return [Rewrite(rule(mended(text, self.mend, self.seed), target), OK) for text, target in pairs]


def rewriter_for(
    rewriter: str | Rewriter | Replay, attribute: Attribute, *, cache: Any = None, options: Options | None = None,
    rules: tuple[str, ...] = (),
) -> Rewriter | Replay:  # fmt: skip
    """The rewriter with this attribute's phrases, or with these rules where it is "rules".

    A plain (texts, targets) callable reads neither.

    Raises
    ------
    InputError
        For "rules" where none are chosen and none are known for the attribute.
    """
    if is_rules(rewriter) and rules and rules != (attribute.name,):
        one = rules_of(str(rewriter).partition(":")[2], rules[0])
        return Composed(rules, one.mend, one.seed)
    if isinstance(rewriter, str):
        rewriter = make_rewriter(rewriter, attribute, cache=cache, options=options)
    if isinstance(rewriter, ChatRewriter):
        own = rewriter.template if rewriter.template != template_of(rewriter.attribute) else ""
        return replace(with_cache(rewriter, cache), attribute=attribute, template=own)
    return rewriter


def is_rules(rewriter: Any) -> bool:
    """Whether the rewriter is "rules", with or without options."""
    return isinstance(rewriter, str) and rewriter.partition(":")[0] == "rules"


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
            found += rewrites_of(self.rewriter(*block), block[0])
            self.done += len(block[0])
            self.progress.show(min(self.done, self.total), self.total)
        return found


def stoppable(rewriter: Rewriter | Replay, progress: Progress, total: int) -> Rewriter | Replay:
    """The rewriter, which ends after what it has in hand once the user wants to stop; `total` texts are expected."""
    if isinstance(rewriter, ChatRewriter):
        watched = hasattr(rewriter.chat, "serve")  # by the meter
        return rewriter if watched else replace(rewriter, chat=_StoppableChat(rewriter.chat, progress))
    return rewriter if isinstance(rewriter, Replay) else _StoppableRewriter(rewriter, progress, total)


# --- versions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A draft and what came of it.

    Attributes
    ----------
    name, draft, attribute
        Which version, what was typed, and what it makes.
    audit
        Of the rows that it was tried on, or of the `n` rows that it was estimated on (0: it was only tried).
    checks, verdict
        What `rk.diagnose` and `rk.verdicts` say of those rows.
    tried, places
        The rows that it was tried on, and where they stand in the data.
    """

    name: str
    draft: Draft
    attribute: Attribute
    audit: Audit
    checks: pd.DataFrame
    verdict: Verdict
    tried: Dataset
    places: tuple[int, ...]
    n: int = 0


def audited(
    ds: Dataset, attribute: Attribute, rewriter: Rewriter | Replay, reward: NamedReward, reward_name: str,
    depth: int, cache: Any, progress: Progress, *, n: int | None = None, measures: Mapping[str, Measure] | None = None,
    prices: Prices | None = None,
) -> tuple[Audit, pd.DataFrame, Verdict]:  # fmt: skip
    """`rk.audit` of labelled rows, with progress, and with a stop after which everything that arrived is in the cache.

    Returns
    -------
    tuple
        The audit, what `rk.diagnose` says of its rows, and its verdict; `measures` are watched off target.

    Raises
    ------
    Cancelled
        The user asked to stop.
    """
    meter = _Watched(prices)
    meter.progress, meter.total = progress, min(n or len(ds), len(ds))
    watched = stoppable(rewriter, progress, depth * meter.total)
    try:
        found = audit(
            ds, {reward_name: reward}, attribute, rewriter=watched, depth=depth, n=n, cache=cache, meter=meter,
            progress=False,
        )  # fmt: skip
    except (InputError, WorkError):
        if progress.cancelled:
            raise Cancelled from None
        raise
    if progress.cancelled:
        raise Cancelled
    own = {attribute.name: attribute.measure} if attribute.measure is not None else {}
    checks, verdicts = examine(found.checked, found.effects, measures={**(measures or {}), **own})
    return found, checks, verdicts[0]


def cost_in_words(ds: Dataset, rewriter: Rewriter | Replay, n: int, depth: int, prices: Prices | None = None) -> str:
    """What rewriting n rows would cost, before it is begun.

    Examples
    --------
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
    """Versions side by side: phrases, compliance, off-target balance, similarity, verdict and its reason, effect.

    An HTML table. Compliance is the worst of the passes towards a side; balance the larger of the two classes, in SDs.
    """
    if not versions:
        return "<p>No version yet: write two phrases and try them.</p>"
    names = list(dict.fromkeys(about for v in versions for about in _balance(v)))
    lines: list[tuple[str, list[str]]] = [
        ("towards treated", [cell_html(v.attribute.treated, 200) for v in versions]),
        ("towards untreated", [cell_html(v.attribute.untreated, 200) for v in versions]),
        ("measured by", [cell_html(measured, 80) for measured in map(_measured, versions)]),
        ("rows", [str(v.n or len(v.tried)) for v in versions]),
        ("rewrites that succeeded", [_status(v) for v in versions]),
        ("moved towards treated when asked", [_compliance(v, "towards treated") for v in versions]),
        ("moved towards untreated when asked", [_compliance(v, "towards untreated") for v in versions]),
        ("second rewrite like the response", [_similarity(v) for v in versions]),
        *((f"off target: {cell_html(n, 60)}", [_balance(v).get(n, "–") for v in versions]) for n in names),
        ("verdict", [f"<b>{escaped(v.verdict.word)}</b>" for v in versions]),
        ("why", [cell_html(v.verdict.grounds, 20_000) for v in versions]),
        ("effect in reward SDs", [_effect(v) for v in versions]),
    ]  # fmt: skip
    columns = ["", *(v.name for v in versions)]
    table = Table(columns, [False] * len(columns), [[name, *cells] for name, cells in lines])
    return f'<div class="rk-wide rk-texts">{table_html(table, raw=columns, label="versions")}</div>'


def _measured(version: Version) -> str:
    return name_of(version.attribute.measure) if version.attribute.measure else "–"


def _of(version: Version, check: str) -> pd.DataFrame:
    return version.checks[version.checks["check"] == check]


def _status(version: Version) -> str:
    found = _of(version, "status")
    found = found[found["about"] == "ok"]
    return percent(float(found["value"].min())) if len(found) else "–"


def _compliance(version: Version, towards: str) -> str:
    found = _of(version, "compliance")
    found = found[found["words"] == towards]
    return percent(float(found["value"].min())) if len(found) else "not measured"


def _similarity(version: Version) -> str:
    found = _of(version, "similarity")
    return percent(float(np.average(found["value"], weights=found["n"]))) if len(found) else "–"


def _balance(version: Version) -> dict[str, str]:
    found = _of(version, "balance").dropna(subset=["in_sd"])
    cells = {}
    for name, rows in found.groupby("about", sort=False):
        worst = rows.loc[rows["in_sd"].abs().idxmax()]
        far = abs(worst["in_sd"]) > 0.5
        cells[str(name)] = f"{'<b>' if far else ''}{to_places(worst['in_sd'])} SD{' ▲</b>' if far else ''}"
    return cells


def _effect(version: Version) -> str:
    best = version.verdict.estimate
    if not version.n or not best:
        return "not estimated"
    return escaped(f"{read_first(best)} {number_words(best, above=SDS)}")


def side_by_side(versions: Sequence[Version], place: int) -> str:
    """One row under several versions, a column for each."""
    columns = []
    for version in versions:
        if place in version.places:
            found = dict(version.tried[version.places.index(place)])
            inner = explorer_html.row_html(found, ranges=None)
        else:
            inner = "<p>not tried on this row</p>"
        title = f"<p><b>{escaped(version.name)}</b></p>"
        columns.append(f'<div style="flex:1 1 340px;min-width:0">{title}{inner}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px 18px">{"".join(columns)}</div>'
