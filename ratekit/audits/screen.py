"""An audit on one screen: as text for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ratekit.conclusions import SDS, Verdict, in_units, number_words, read_first
from ratekit.errors import shorten
from ratekit.escaping import escaped, visible
from ratekit.plots.names import distinct
from ratekit.schema import PROMPT_ID, columns_of
from ratekit.tables import Table, as_text, table_html, to_places

_Audit = Any  # ratekit.audits.results.Audit, which imports this module
WIDTH, LINES = 100, 25
_COLUMNS = ["attribute", "reward", "RATE effect (SD)", "n", "verdict"]
_STYLE = """
.ratekit-audit { overflow-x: auto; }
.ratekit-audit table { table-layout: auto; }
.ratekit-audit :is(th[scope], td[data-name]) { text-align: left; vertical-align: top; white-space: nowrap; }
.ratekit-audit td:is([data-name=attribute], [data-name=reward]) { white-space: normal; }
.ratekit-audit :is(th, td).n { text-align: right; }
"""


def as_screen(audit: _Audit) -> str:
    """The audit as text: at most 25 lines of 100 characters; a line for each attribute and reward, then the reasons."""
    head = _fitted([visible(headline(audit))], 2)
    below = _fitted([visible(line) for line in remarks(audit)], 6)
    below = below[:6] + ([f"... {len(below) - 6} more remarks in .provenance"] if len(below) > 6 else [])
    rows = _summary(audit)
    kept = LINES - 3 - len(head) - len(below) - bool(below)
    if len(rows) > kept:
        rows, more = rows[: kept - 1], [f"... {len(rows) - kept + 1} more in .verdicts and .effects"]
    else:
        more = []
    room = WIDTH - sum(
        2 + max(map(len, column)) for column in zip(_COLUMNS[2:], *(row[2:] for row in rows), strict=True)
    )
    for column, width in ((0, 26), (1, 30)):
        short = distinct({row[column]: visible(row[column]) for row in rows}, max(min(width, room // 2 - 1), 12))
        for row in rows:
            row[column] = short[row[column]]
    table = as_text(Table(_COLUMNS, [False, False, False, True, False], rows), WIDTH).split("\n")
    room = kept - len(rows) - len(more) - 1
    why = _fitted(_reasons(audit), room)
    if len(why) > room:
        why = [*why[: max(room - 1, 0)], *(["... more reasons in .verdicts"] if room > 0 else [])]
    parts = (head, [*table, *more], why, below)
    return "\n\n".join("\n".join(part) for part in parts if part)


def _reasons(audit: _Audit) -> list[str]:
    """The gravest reason of each verdict; one that several rewards share stands once."""
    rows = _summary(audit)
    said: dict[str, list[list[str]]] = {}
    for row, verdict in zip(rows, audit.verdicts, strict=True):
        said.setdefault(_why(verdict), []).append(row)
    return [f"{shorten(visible(_subjects(of, rows)), 40)}: {visible(why)}" for why, of in said.items()]


def _fitted(texts: list[str], room: int) -> list[str]:
    """The texts on lines of the screen's width; each cut to one where that takes more than `room` lines."""
    lines = [line for text in texts for line in textwrap.wrap(text, WIDTH, subsequent_indent="    ")]
    return lines if len(lines) <= room else [shorten(text, WIDTH) for text in texts]


def _summary(audit: _Audit) -> list[list[str]]:
    """The cells of `COLUMNS` for each verdict."""
    rows = []
    for verdict in audit.verdicts:
        best = verdict.estimate
        n = f"{best['n']:,}" if "n" in best else "-"
        rows.append([verdict.name, str(verdict.reward_model), estimate_words(best), n, verdict.word])
    return rows


def _subjects(some: list[list[str]], rows: list[list[str]]) -> str:
    """What these rows of `_summary` are about: attributes, with the reward where it is not all rewards of one."""
    every, mine = Counter(row[0] for row in rows), Counter(row[0] for row in some)
    names = [row[0] if mine[row[0]] == every[row[0]] else f"{row[0]} under {row[1]}" for row in some]
    return ", ".join(dict.fromkeys(names))


def _why(verdict: Verdict) -> str:
    """The gravest reason; before it the estimator of the number, where that is not RATE."""
    row, said = verdict.estimate, verdict.gravest
    return said if not row or read_first(row) == "RATE" else f"estimate by {read_first(row)}; {said}"


def estimate_words(row: Mapping[str, Any]) -> str:
    """An estimate with its interval, in reward SDs; where the reward has none, in its own units, which is said."""
    return other_than_rate(row) + number_words(row, above=SDS) if row else "-"


def other_than_rate(row: Mapping[str, Any]) -> str:
    """Which estimate it is, where it is not of all responses by RATE, under whose heading it stands."""
    rate = str(row["estimator"]).startswith("rate") and row["estimand"] == "ate"
    return "" if rate else f"{read_first(row)} "


def _drawn(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Estimate and interval in reward SDs; NaN where there are none: they share one scale."""
    seen = in_units(row) if row else None
    return (seen.estimate, seen.low, seen.high) if seen and seen.in_sds else (math.nan, math.nan, math.nan)


DROPPED = {
    "complete": "rows dropped",
    "two-phase": "rows without rewrites, whose differences are predicted,",
}


def headline(audit: _Audit) -> str:
    """What was looked at, in one line."""
    ds, settings = audit.dataset, audit.provenance.get("settings") or {}
    n_attributes, n_models = (audit.effects[c].nunique() for c in ("attribute", "reward_model"))
    prompts = f" to {counted(len(set(ds[PROMPT_ID])), 'prompt')}" if PROMPT_ID in columns_of(ds) else ""
    parts = [
        f"Audit of {shorten(str(settings.get('data') or 'scored rows'), 40)}: {counted(len(ds), 'row')}{prompts}",
        f"{counted(n_attributes, 'attribute')} x {counted(n_models, 'reward')}",
    ]
    if settings.get("rewriter"):
        parts.append(f"rewritten by {shorten(rewriters_said(settings['rewriter']), 30)}")
    return ", ".join(parts)


def counted(n: int, noun: str) -> str:
    """So many of something.

    Examples
    --------
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def rewriters_said(given: Any) -> str:
    """The rewriter of a record, or several, as words."""
    return ", ".join(map(str, given)) if isinstance(given, list | Mapping) else str(given)


def remarks(audit: _Audit) -> list[str]:
    """What was dropped, what was left out and why, what it cost."""
    record, said = audit.provenance, []
    statuses = {k: n for k, n in ((record.get("dropped") or {}).get("rewrites") or {}).items() if k != "ok"}
    if statuses:
        said.append(f"rewrites that failed: {', '.join(f'{n:,} {status}' for status, n in statuses.items())}")
    dropped = audit.effects.groupby("reward_model", sort=False)["n_dropped"].max()
    lost = DROPPED[str(record.get("sample", "complete"))]
    said += [f"{lost} under {name}: at most {n:,}" for name, n in dropped.items() if n]
    rewriting = record.get("rewriting") or {}
    if rewriting.get("stopped"):
        said.append(f"not finished: {rewriting['stopped']}")
    if rewriting.get("cost"):
        said.append(f"the rewriting cost {rewriting['cost']:.4g}")
    return [*said, *recorded_notes(audit)]


def recorded_notes(audit: _Audit) -> list[str]:
    """What the record says was left out; where there is none, what the effects say."""
    record = audit.provenance
    notes = record["notes"] if "notes" in record else audit.effects.attrs.get("notes")
    return [str(note) for note in notes or []]


def screen_html(audit: _Audit) -> str:
    """The audit for a notebook: a table with a small forest in it; nothing from the data is obeyed."""
    rows = _summary(audit)
    values = [_drawn(verdict.estimate) for verdict in audit.verdicts]
    finite = [abs(x) for value in values for x in value if math.isfinite(x)]
    edge = max([*finite, 1e-9])
    cells = [[*row[:2], bar(*value, edge), *row[2:]] for row, value in zip(rows, values, strict=True)]
    columns = [*_COLUMNS[:2], "", *_COLUMNS[2:]]
    table = Table(columns, [False, False, False, False, True, False], cells)
    below = "".join(f"<li>{escaped(line)}</li>" for line in [*_reasons(audit), *remarks(audit)])
    return (
        f'<style>{_STYLE}</style><div class="ratekit-audit"><p>{escaped(headline(audit))}</p>'
        f"{table_html(table, raw=[''], label='effects and verdicts')}{f'<ul>{below}</ul>' if below else ''}</div>"
    )


def bar(value: float, low: float, high: float, edge: float) -> str:
    """An estimate and its interval as a picture of 160 by 16; the line in the middle is no effect."""

    def x(v: float) -> float:
        return 80 + 75 * v / edge

    whisker = (
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="8" y2="8" stroke="currentColor" stroke-width="2"/>'
        if math.isfinite(low) and math.isfinite(high) else ""
    )  # fmt: skip
    dot = f'<circle cx="{x(value):.1f}" cy="8" r="4" fill="currentColor"/>' if math.isfinite(value) else ""
    return (
        f'<svg width="160" height="16" style="max-width:none" role="img" aria-label="{to_places(value)}">'
        f'<line x1="80" x2="80" y1="0" y2="16" stroke="currentColor" stroke-opacity="0.4"/>{whisker}{dot}</svg>'
    )
