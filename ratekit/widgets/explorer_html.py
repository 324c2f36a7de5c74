"""A row as a page: prompt, response, each rewrite with its differences marked, rewards as bars. HTML out, no widgets.

What comes from data is escaped, isolated from the reading direction around it, and cut where it is very long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ratekit import textdiff
from ratekit.escaping import as_html, escaped
from ratekit.estimators import Floats
from ratekit.plots import style
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    as_conversation,
    reward_columns,
    reward_name,
)
from ratekit.tables import Table, table_html, to_places
from ratekit.textdiff import changed_share, differences_html
from ratekit.widgets.explorer_rows import OffTarget

_LIMIT = 4_000  # characters of a text that are shown
AGAINST = {
    "previous": "the text before it",
    "same side": "the last text on the same side",
    "response": "the response",
    "nothing": "nothing (plain text)",
}

EXPLORER_STYLE = (
    textdiff.DIFF_STYLE
    + """
.rk-pass { border: 1px solid rgba(127,127,127,.4); border-radius: 4px; margin: 0 0 8px; padding: 6px 10px 8px; }
.rk-head { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 3px; }
.rk-two { display: flex; flex-wrap: wrap; gap: 4px 18px; }
.rk-two > .rk-body { flex: 1 1 300px; min-width: 0; max-height: 260px; overflow-y: auto; }
.rk-two > .rk-bars { flex: 0 0 190px; }
.rk-bar { position: relative; height: 9px; background: rgba(127,127,127,.18); margin: 0 0 4px; }
.rk-bar > i { position: absolute; top: 0; bottom: 0; background: #56748c; }
.rk-bar > u { position: absolute; top: -2px; bottom: -2px; width: 1px; background: currentColor; opacity: .55; }
.rk-prompt { border-left: 3px solid rgba(127,127,127,.45); padding-left: 10px; margin: 2px 0 10px; max-height: 150px;
  overflow-y: auto; white-space: pre-wrap; }
.rk-tag { border: 1px solid currentColor; border-radius: 3px; padding: 0 5px; font-size: 11.5px; }
"""
    + f"""
.rk-pass.rk-on {{ border-left: 5px solid {style.TREATED}; }}
.rk-pass.rk-off {{ border-left: 5px double {style.UNTREATED}; }}
"""
)


def side_of(treated: bool | None, passes: int) -> str:
    """The side that a text of the chain is meant to be on.

    Examples
    --------
    >>> side_of(True, 0), side_of(True, 1), side_of(False, 3), side_of(None, 1)
    ('treated', 'untreated', 'treated', '')
    """
    if treated is None:
        return ""
    return "treated" if treated == (passes % 2 == 0) else "untreated"


def _name_of(passes: int) -> str:
    """What a text of the chain is called.

    Examples
    --------
    >>> [_name_of(k) for k in range(4)]
    ['response', 'rewrite', 'rewrite of the rewrite', 'third rewrite']
    """
    named = ("response", "rewrite", "rewrite of the rewrite", "third rewrite")
    return named[passes] if passes < len(named) else f"rewrite {passes}"


def reference(texts: list[str | None], passes: int, against: str) -> int | None:
    """Which text of the chain this one is compared with; None for none.

    Examples
    --------
    >>> reference(["a", "b", "c"], 2, "previous"), reference(["a", "b", "c"], 2, "same side")
    (1, 0)
    """
    place = {"previous": passes - 1, "same side": passes - 2, "response": 0, "nothing": -1}[against]
    if passes == 0 or place < 0 or texts[place] is None or texts[passes] is None:
        return None
    return place


def row_html(
    row: Mapping[str, Any],
    *,
    against: str = "previous",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    off_target: OffTarget | None = None,
    place: int = 0,
    limit: int = _LIMIT,
) -> str:
    """One row of a dataset as HTML.

    Parameters
    ----------
    against
        what each rewrite is compared with: one of `AGAINST`
    ranges
        {reward model: (least, most)} of the dataset, so that bars of all rows are alike; else the row's own
    off_target
        what was measured of the dataset, of which this is the row at `place`
    limit
        characters of a text that are shown

    Examples
    --------
    >>> html_of = row_html({"response": "A <b>fine</b> film.", "treated": True, "rewrites": ["A dull film."]})
    >>> "<b>fine" in html_of, "&lt;b&gt;" in html_of, "<ins>" in html_of
    (False, True, True)
    """
    texts: list[str | None] = [row.get(RESPONSE), *(row.get(REWRITES) or [])]
    statuses = ["ok", *(row.get(REWRITE_STATUS) or [])]
    treated = row.get(TREATED)
    rewards = {reward_name(c): row[c] for c in reward_columns(row) if row[c] is not None}
    parts = [_prompt(row.get(PROMPT))]
    for k in range(len(texts)):
        side = side_of(treated, k)
        status = statuses[k] if k < len(statuses) else "ok"
        body, compared = _body(texts, k, against, limit, status)
        head = f"<b>{escaped(_name_of(k).capitalize())}</b>"
        if side:
            head += f'<span class="rk-tag">{side if k == 0 else "to " + side}</span>'
        if compared:
            head += f'<span class="rk-faint">{compared}</span>'
        if status != "ok" and k:
            head += f'<span class="rk-tag">{escaped(status)}</span>'
        bars = "".join(_bar(name, values, k, (ranges or {}).get(name)) for name, values in rewards.items())
        kind = {"treated": " rk-on", "untreated": " rk-off"}.get(side, "")
        parts.append(
            f'<div class="rk-pass{kind}"><div class="rk-head">{head}</div><div class="rk-two">'
            f'<div class="rk-body">{body}</div>{f"<div class=rk-bars>{bars}</div>" if bars else ""}</div></div>'
        )
    if off_target is not None and off_target.values:
        parts.append(measures_table(off_target, place, str(row.get(ATTRIBUTE, "")), len(texts)))
    return "".join(parts)


def _body(texts: list[str | None], k: int, against: str, limit: int, status: str) -> tuple[str, str]:
    """The text as HTML, and what it is compared with in words."""
    text = texts[k]
    if text is None:
        return f'<span class="rk-faint">no text: {escaped(status)}</span>', ""
    other = reference(texts, k, against)
    if other is None:
        return f'<div class="rk-text">{as_html(text, limit)}</div>', ""
    before = texts[other]
    assert before is not None
    if len(before) + len(text) <= 20 * limit:
        share = f"{changed_share(before[:limit], text[:limit]):.0%} of the words differ"
    else:
        share = "differences of the beginnings"
    against_words = f"against the {_name_of(other)}: {share}"
    return differences_html(before, text, limit), against_words


def _prompt(prompt: Any) -> str:
    if prompt is None:
        return ""
    turns = as_conversation(prompt)
    lone = len(turns) == 1 and turns[0]["role"] == "user"
    lines = []
    for turn in turns:
        who = "prompt" if lone else turn["role"]
        lines.append(f'<span class="rk-faint">{escaped(who)}:</span> {as_html(turn["content"], _LIMIT)}')
    return f'<div class="rk-prompt">{"<br>".join(lines)}</div>' if lines else ""


def _bar(name: str, values: list[float | None], k: int, span: tuple[float, float] | None) -> str:
    """A reward: its name, its number, how it changed from the text before, and a bar from 0."""
    value = values[k] if k < len(values) else None
    label = f"<span>{as_html(name, 60)}</span>"
    if value is None:
        return f'<div>{label} <span class="rk-faint">not scored</span></div>'
    known = [v for v in values if v is not None]
    low, high = span or (min(known), max(known))
    low, high = min(low, 0.0), max(high, 0.0)
    width = (high - low) or 1.0
    left, right = sorted(((value - low) / width, (0.0 - low) / width))
    before = values[k - 1] if k else None
    change = f' <span class="rk-faint">({value - before:+.3g})</span>' if before is not None else ""
    left, right = max(left, 0.0), min(right, 1.0)
    return (
        f"<div>{label} <b>{value:.3g}</b>{change}</div>"
        f'<div class="rk-bar"><i style="left:{100 * left:.1f}%;width:{100 * (right - left):.1f}%"></i>'
        f'<u style="left:{100 * (0.0 - low) / width:.1f}%"></u></div>'
    )


def measures_table(found: OffTarget, place: int, attribute: str, length: int) -> str:
    """What the attribute's rewrites should leave alone, text by text; the largest move is named in words and bold."""
    names = [name for name in found.values if (attribute, name) in found.sd]
    if not names:
        return ""
    said_move = "rewrite to its rewrite" if length > 2 else "response to rewrite"
    rows = []
    for name in names:
        cells = ["–" if np.isnan(v) else f"{v:.3g}" for v in found.values[name][place][:length].tolist()]
        moved = _move(found, place, attribute, name)
        largest = name == found.measure[place]
        said = "–" if moved is None else f"{to_places(moved)} SD"
        rows.append([name, *cells, f"<b>{said} ◀ largest</b>" if largest else said])
    columns = ["should not move", *map(_name_of, range(length)), said_move]
    table = Table(columns, [c != columns[0] for c in columns], rows)
    return f'<div class="rk-wide">{table_html(table, raw=[said_move])}</div>'


def _move(found: OffTarget, place: int, attribute: str, name: str) -> float | None:
    values: Floats = found.values[name][place]
    a, b = (1, 2) if len(values) > 2 else (0, 1)
    sd = found.sd[attribute, name]
    if len(values) <= b or not sd > 0 or not np.isfinite(values[b] - values[a]):
        return None
    return float((values[b] - values[a]) / sd)


def reward_ranges(rewards: Mapping[str, Floats]) -> dict[str, tuple[float, float]]:
    """The least and the largest reward of each model, for bars that can be compared from row to row."""
    return {
        name: (float(np.nanmin(r)), float(np.nanmax(r)))
        for name, r in rewards.items()
        if r.size and not np.isnan(r).all()
    }


def title(row: Mapping[str, Any], place: int) -> str:
    """Which row it is, in words."""
    parts = [f"row {place}"]
    if row.get(PROMPT_ID) is not None:
        parts.append(str(row[PROMPT_ID]))
    if row.get(ATTRIBUTE) is not None:
        parts.append(str(row[ATTRIBUTE]))
    if row.get(TREATED) is not None:
        parts.append(side_of(bool(row[TREATED]), 0))
    return " · ".join(as_html(part, 80) for part in parts)
