"""Where the numbers come from, and what it takes to cite them: data, rewriter, prompt, models, versions, cost."""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING, Any

from ratekit import __version__
from ratekit.attributes import ATTRIBUTES
from ratekit.audits.screen import rewriters_said
from ratekit.conclusions import Verdict
from ratekit.escaping import data_uri
from ratekit.groups import plain_columns, treated_bools
from ratekit.reports.contents import Contents
from ratekit.reports.words import adjusted_p_values
from ratekit.rewriting.prompts import template_hash, template_of
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT_ID,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    grouping,
    reward_models,
)
from ratekit.tables import Table, as_csv

if TYPE_CHECKING:
    import pandas as pd

Facts = list[tuple[str, str]]
BIBTEX = f"""\
@inproceedings{{reber2025rate,
  title     = {{RATE: Causal Explainability of Reward Models with Imperfect Counterfactuals}},
  author    = {{Reber, David and Richardson, Sean and Nief, Todd and Garbacea, Cristina and Veitch, Victor}},
  booktitle = {{Proceedings of the 42nd International Conference on Machine Learning}},
  year      = {{2025}},
  url       = {{https://arxiv.org/abs/2410.11348}}
}}
@software{{ratekit,
  title   = {{ratekit: what does this reward model really reward?}},
  author  = {{{{The ratekit authors}}}},
  version = {{{__version__}}}
}}"""


def provenance(found: Contents, now: str) -> list[tuple[str, Facts]]:
    """(title, facts) for each part of the record; what was not recorded is left out."""
    settings = dict(found.record.get("settings") or {})
    rewriting = dict(found.record.get("rewriting") or {})
    settings |= settings.pop("asked", None) or {}
    if settings.get("template"):
        settings["template"] = f"your own, hash {template_hash(str(settings['template']))}"
    parts = [
        ("Run", [(k.replace("_", " "), ", ".join(map(str, v)) if isinstance(v, list) else str(v))
                 for k, v in settings.items() if v is not None]),
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
    names = reward_models(found.ds) if found.ds is not None else []
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
        lost = "predicted" if found.record.get("sample") == "two-phase" else "dropped"
        facts += [(f"{lost} at most, {name}", f"{n:,}") for name, n in dropped.items()]
    return facts


def identity(found: Contents) -> Facts:
    """Of what, by what and under which names: the facts that tell this study from another."""
    settings, rewriting = found.record.get("settings") or {}, found.record.get("rewriting") or {}
    asked = settings.get("rewriter")
    one = (rewriting.get("model") or asked, rewriting.get("params")) if isinstance(asked, str | None) else ()
    rewriter = " ".join(str(v) for v in one if v) if one else rewriters_said(asked)
    columns = columns_of(found.ds) if found.ds is not None else []
    facts = [
        ("data", settings.get("data")),
        ("hash of the rows", found.record.get("dataset")),
        ("rewriter", rewriter or ("the rewrites that the data hold" if REWRITES in columns else "")),
        ("hash of its prompt", rewriting.get("template")),
        ("seed", settings.get("seed")),
        ("ratekit", (found.record.get("versions") or {}).get("ratekit", __version__)),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def prompts(found: Contents) -> list[tuple[str, str]]:
    """(attributes, prompt) of the rewriter, where the record's hash says that it is this one."""
    rewriting, given = found.record.get("rewriting") or {}, (found.record.get("settings") or {}).get("template")
    named = (found.record.get("settings") or {}).get("attributes") or []
    said: dict[str, list[str]] = {}
    for name in map(str, named):
        template = given or (template_of(ATTRIBUTES[name]) if name in ATTRIBUTES else "")
        if template and template_hash(template) == rewriting.get("template"):
            said.setdefault(template, []).append(name)
    return [(", ".join(names), template) for template, names in said.items()]


def classes(ds: Any) -> Table | None:
    """How many responses have each attribute, and to how many prompts. Raises InputError where the data do not tell."""
    if ds is None or not {ATTRIBUTE, TREATED} <= set(columns_of(ds)):
        return None
    prompt = [PROMPT_ID] if PROMPT_ID in columns_of(ds) else []
    frame = plain_columns(ds, [ATTRIBUTE, TREATED, *prompt])
    frame[TREATED] = treated_bools(frame[TREATED])
    rows = []
    for name, mine in frame.groupby(ATTRIBUTE, sort=False):
        counts = [int(mine[TREATED].sum()), int((~mine[TREATED]).sum()), *(mine[c].nunique() for c in prompt)]
        rows.append([str(name), *(f"{n:,}" for n in counts)])
    columns = ["attribute", "n treated", "n untreated", *(["prompts"] if prompt else [])]
    return Table(columns, [False] + [True] * (len(columns) - 1), rows)


def effects_csv(table: pd.DataFrame, verdicts: list[Verdict]) -> str:
    """The effects table as the address of a file; its recommended rows have `p_adjusted` and the verdict."""
    mine = [v for v in verdicts if v.estimate]
    keys = ["attribute", "reward_model", "estimator", "estimand"]
    said = {
        (*(str(x) for x in v.by.values()), *(str(v.estimate[k]) for k in keys)): (p, v.word)
        for v, p in zip(mine, adjusted_p_values(mine), strict=True)
    }
    by = [c for c in grouping(table) if any(c in v.by for v in mine)]
    of = [said.get(tuple(str(row[c]) for c in (*by, *keys)), (None, "")) for row in table.to_dict("records")]
    whole = table.assign(p_adjusted=[p for p, _ in of], verdict=[word for _, word in of])
    return data_uri("text/csv;charset=utf-8", as_csv(whole).encode())
