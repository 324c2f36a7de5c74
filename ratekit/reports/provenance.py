"""Where the numbers come from: data, rewriter, reward models, versions, what was dropped, what it cost."""

from __future__ import annotations

import platform
from collections import Counter
from typing import Any

from ratekit import __version__
from ratekit.reports.contents import Contents
from ratekit.rewriting.prompts import template_hash
from ratekit.schema import ATTRIBUTE, PROMPT_ID, REWRITE_STATUS, columns_of, reward_columns, reward_name

Facts = list[tuple[str, str]]


def provenance(found: Contents, now: str) -> list[tuple[str, Facts]]:
    """(title, facts) for each part of the record; what was not recorded is left out."""
    settings = dict(found.record.get("settings") or {})
    rewriting = dict(found.record.get("rewriting") or {})
    settings |= settings.pop("asked", None) or {}
    if settings.get("template"):
        settings["template"] = f"your own, hash {template_hash(str(settings['template']))}"
    parts = [
        ("Run", [(k.replace("_", " "), str(v)) for k, v in settings.items() if v is not None]),
        ("Rows", _rows(found)),
        ("Rewriting", [(k.replace("_", " "), _said(v)) for k, v in rewriting.items() if v not in (None, 0, {}, "")]),
        ("Reward models", [(str(k), str(v)) for k, v in (found.record.get("rewards") or {}).items()] or _models(found)),
        ("Merging", [(k.replace("_", " "), _said(v)) for k, v in (found.record.get("audit") or {}).items()]),
        ("Versions", [(str(k), str(v)) for k, v in (found.record.get("versions") or {}).items()]),
        ("Notes", [("", str(note)) for note in found.record.get("notes") or []]),
        ("This page", [("made", now), ("by", f"ratekit {__version__}, Python {platform.python_version()}"),
                       ("from", found.where.name or str(found.where))]),
    ]  # fmt: skip
    return [(title, facts) for title, facts in parts if facts]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _models(found: Contents) -> Facts:
    names = [reward_name(c) for c in reward_columns(columns_of(found.ds))] if found.ds is not None else []
    return [(name, "as named in the data") for name in names]


def _rows(found: Contents) -> Facts:
    facts: Facts = []
    if found.ds is not None:
        facts.append(("responses", f"{len(found.ds):,}"))
        if PROMPT_ID in columns_of(found.ds):
            facts.append(("prompts", f"{len(set(found.ds[PROMPT_ID])):,}"))
        if ATTRIBUTE in columns_of(found.ds):
            counts = Counter(found.ds[ATTRIBUTE])
            facts += [(f"responses under {name}", f"{n:,}") for name, n in counts.items()]
        if REWRITE_STATUS in columns_of(found.ds):
            statuses = Counter(s for row in found.ds[REWRITE_STATUS] for s in (row or []))
            facts += [(f"rewrites {status}", f"{n:,}") for status, n in statuses.most_common()]
    if found.table is not None:
        dropped = found.table.groupby("reward_model", sort=False)["n_dropped"].max()
        facts += [(f"dropped at most, {name}", f"{n:,}") for name, n in dropped.items()]
    return facts
