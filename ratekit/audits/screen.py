"""An audit on one screen: as text for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

from ratekit.conclusions import label
from ratekit.errors import shorten
from ratekit.escaping import visible
from ratekit.schema import PROMPT_ID, columns_of
from ratekit.tables import Table, as_text, table_html

Audit = Any  # ratekit.audits.results.Audit, which imports this module
WIDTH, LINES = 100, 25
COLUMNS = ["attribute", "reward", "RATE effect (SD)", "n", "verdict", "why"]


def as_screen(audit: Audit) -> str:
    """The audit as text: at most 25 lines of 100 characters; one line for each attribute and reward."""
    below = [shorten(visible(line), WIDTH) for line in remarks(audit)]
    below = below[:6] + ([f"... {len(below) - 6} more remarks in .provenance"] if len(below) > 6 else [])
    rows = summary(audit)
    kept = LINES - 4 - len(below)
    if len(rows) > kept:
        rows, more = rows[: kept - 1], [f"... {len(rows) - kept + 1} more in .verdicts and .effects"]
    else:
        more = []
    for row in rows:
        row[0], row[1] = shorten(row[0], 20), shorten(row[1], 26)
    text = as_text(Table(COLUMNS, [False, False, False, True, False, False], rows), WIDTH)
    cut = [line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in text.split("\n")]
    return "\n".join([shorten(visible(headline(audit)), WIDTH), "", *cut, *more, *([""] if below else []), *below])


def summary(audit: Audit) -> list[list[str]]:
    """The cells of `COLUMNS` for each verdict."""
    rows = []
    for verdict in audit.verdicts:
        best, why = verdict.estimate, verdict.reason.removeprefix("because ")
        if best.get("estimator") not in (None, "rate"):
            why = f"{label(str(best['estimator']))}; {why}"
        attribute = ", ".join([verdict.attribute, *(f"{k} {v}" for k, v in verdict.by.items())])
        n = f"{best['n']:,}" if "n" in best else "-"
        rows.append([attribute, str(verdict.reward_model), interval(best), n, verdict.word, why])
    return rows


def in_sd(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Estimate and interval of a row of the effects table, in reward SDs where the reward has one."""
    if not row:
        return math.nan, math.nan, math.nan
    if "estimate_sd" in row and row["estimate_sd"] == row["estimate_sd"]:
        return row["estimate_sd"], row["ci_low_sd"], row["ci_high_sd"]
    sd = row["reward_sd"] if row["reward_sd"] > 0 else 1.0
    return row["estimate"] / sd, row["ci_low"] / sd, row["ci_high"] / sd


def interval(row: Mapping[str, Any]) -> str:
    """An estimate with its interval."""
    value, low, high = in_sd(row)
    if value != value:
        return "-"
    return f"{value:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) and math.isfinite(high) else "")


def headline(audit: Audit) -> str:
    """What was looked at, in one line."""
    ds, settings = audit.dataset, audit.provenance.get("settings") or {}
    n_attributes, n_models = (audit.effects[c].nunique() for c in ("attribute", "reward_model"))
    prompts = f" to {len(set(ds[PROMPT_ID])):,} prompts" if PROMPT_ID in columns_of(ds) else ""
    parts = [
        f"Audit of {settings.get('data') or 'scored rows'}: {len(ds):,} rows{prompts}",
        f"{n_attributes} attribute{'s' * (n_attributes > 1)} x {n_models} reward{'s' * (n_models > 1)}",
    ]
    if settings.get("rewriter"):
        parts.append(f"rewritten by {settings['rewriter']}")
    return ", ".join(parts)


def remarks(audit: Audit) -> list[str]:
    """What was dropped, what was left out and why, what it cost."""
    record, said = audit.provenance, []
    statuses = {k: n for k, n in ((record.get("dropped") or {}).get("rewrites") or {}).items() if k != "ok"}
    if statuses:
        said.append(f"rewrites that failed: {', '.join(f'{n:,} {status}' for status, n in statuses.items())}")
    dropped = audit.effects.groupby("reward_model", sort=False)["n_dropped"].max()
    said += [f"rows dropped under {name}: at most {n:,}" for name, n in dropped.items() if n]
    rewriting = record.get("rewriting") or {}
    if rewriting.get("stopped"):
        said.append(f"not finished: {rewriting['stopped']}")
    if rewriting.get("cost"):
        said.append(f"the rewriting cost {rewriting['cost']:.4g}")
    return [*said, *map(str, record.get("notes") or [])]


def as_html(audit: Audit) -> str:
    """The audit for a notebook: a table with a small forest in it; nothing from the data is obeyed."""
    rows = summary(audit)
    values = [in_sd(verdict.estimate) for verdict in audit.verdicts]
    finite = [abs(x) for value in values for x in value if math.isfinite(x)]
    edge = max([*finite, 1e-9])
    cells = [[*row[:2], bar(*value, edge), *row[2:]] for row, value in zip(rows, values, strict=True)]
    columns = [*COLUMNS[:2], "", *COLUMNS[2:]]
    table = Table(columns, [False, False, False, False, True, False, False], cells)
    below = "".join(f"<li>{html.escape(visible(line))}</li>" for line in remarks(audit))
    return (
        f'<div class="ratekit-audit"><p>{html.escape(visible(headline(audit)))}</p>'
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
        f'<svg width="160" height="16" role="img" aria-label="{value:+.2f}">'
        f'<line x1="80" x2="80" y1="0" y2="16" stroke="currentColor" stroke-opacity="0.4"/>{whisker}{dot}</svg>'
    )
