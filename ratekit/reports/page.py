"""`report`: the parts of a run put into one page, and the page put on disk."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit.attributes import ATTRIBUTES
from ratekit.audits.results import Audit, checked_rows
from ratekit.audits.screen import counted
from ratekit.conclusions import Verdict, levels_of, unchecked
from ratekit.diagnostics.diagnose import examine
from ratekit.errors import InputError
from ratekit.escaping import as_html, data_uri, visible
from ratekit.estimators import ESTIMATORS
from ratekit.files import is_saved, replace_text
from ratekit.measures import Looked
from ratekit.plots.names import distinct
from ratekit.plots.style import saving
from ratekit.reports.contents import Contents, gather
from ratekit.reports.examples import examples
from ratekit.reports.figures import check_figures, effects_figures, reward_figures
from ratekit.reports.provenance import BIBTEX, classes, effects_csv, identity, prompts, provenance
from ratekit.reports.tables import audit_tables
from ratekit.reports.words import ALWAYS, outcome, page_title, subjects, summary_table
from ratekit.schema import NEEDED_BY, columns_of
from ratekit.tables import interval_words, table_html, table_of
from ratekit.textdiff import DIFF_STYLE
from ratekit.widgets import playground_page

if TYPE_CHECKING:
    import pandas as pd

REPORT = "report.html"
_DETAILS = {
    "reward_model": "reward model", "ci_low": "from", "ci_high": "to", "se": "SE", "p_value": "p",
    "n_clusters": "prompts", "n_dropped": "dropped", "reward_sd": "reward SD",
}  # fmt: skip


def report(run: Audit | str | Path | Any, out: str | Path | None = None) -> Path:
    """Write the report of an audit and give its path.

    Parameters
    ----------
    run : Audit, str, Path or rows
        An audit, the folder that it left (or a merge's, with its audit.csv), or scored rows, as `rk.as_dataset` takes
        them; what is lacking is said on the page.
    out : str or Path, optional
        The file to write, or a folder for report.html; by default in the audit's folder, or beside the dataset.

    Returns
    -------
    Path
        Of the page: one file with its figures inside, which asks no network for anything and is whole without its
        script, which searches rows and saves figures. Everything from the data is shown and never obeyed.

    Raises
    ------
    InputError
        There is nothing to report.
    WorkError
        The page cannot be written.

    Examples
    --------
    >>> import ratekit as rk
    >>> rk.report("runs/reviews-length")  # doctest: +SKIP
    PosixPath('runs/reviews-length/report.html')
    """
    found = gather(run)
    target = _target(Path(run) if isinstance(run, str | Path) else found.where, found, out)
    return replace_text(target, page_html(found))


def _target(run: Path, found: Contents, out: str | Path | None) -> Path:
    if out is not None:
        return Path(out) / REPORT if Path(out).is_dir() else Path(out)
    return run / REPORT if run.is_dir() and not is_saved(run) else run.with_name(f"{run.name.split('.')[0]}-{REPORT}")


def page_html(found: Contents) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if hasattr(value, "__html__") else visible(str(value)),
    )  # fmt: skip
    environment.filters["text"] = lambda text, limit=20_000: Markup(as_html(str(text), limit))
    environment.filters["table"] = lambda found: Markup(table_html(found, limit=300))
    environment.filters["made"] = Markup  # for what ratekit itself has made of a text, escaped
    with saving():
        return environment.get_template("page.html.j2").render(**_parts(found))


def _parts(found: Contents) -> dict[str, Any]:
    table, ds = found.table, found.ds
    looked = Looked() if found.seen is None else found.seen.looked
    sample, checks, verdicts = _checks(found, looked)
    has_sd = table["reward_sd"].gt(0) if table is not None else None
    csv = effects_csv(table, verdicts) if table is not None else ""
    details = table_of(_details(table), missing="") if table is not None else None
    if table is not None:
        table, verdicts = _short(table, verdicts)
    summary = summary_table(verdicts, table) if table is not None else None
    first = str(table["attribute"].iloc[0]) if table is not None else "length"
    known = ATTRIBUTES.get(first)
    playground = playground_page.page()
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    return {
        "style": DIFF_STYLE,
        "script": script,
        "script_hashes": [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in (script, playground.partition("<script>")[2].partition("</script>")[0])
        ],
        "playground": playground,
        "title": page_title(table, found.audit is not None),
        "subtitle": _subtitle(found, table),
        "subjects": (said := subjects(verdicts)),
        "outcome": outcome(said),
        "of_rows": _of_rows(sample, ds) if checks is not None else "",
        "asked": (known.treated, known.untreated) if known else (f"with {first}", f"without {first}"),
        "unit": "reward SDs" if has_sd is not None and has_sd.any() else "reward units",
        "other_units": has_sd is not None and has_sd.any() and not has_sd.all(),
        "summary": summary,
        "effects": list(effects_figures(table)) if table is not None else [],
        "checks": list(check_figures(checks)) if checks is not None else [],
        "rewards": list(reward_figures(sample, table, looked)) if checks is not None and table is not None else [],
        "examples": _tried(found, "examples", lambda: list(examples(found.ds)) if found.ds is not None else []) or [],
        "n_rows": len(ds) if ds is not None else 0,
        "identity": identity(found),
        "prompts": prompts(found),
        "classes": _tried(found, "counts of each class", lambda: classes(ds)),
        "csv": csv,
        "bibtex": BIBTEX,
        "details": details,
        "corrected": [
            (e.label, e.claim)
            for name, e in ESTIMATORS.items()
            if summary and name not in ALWAYS and e.label in summary.columns
        ],
        "level": interval_words(levels_of(table)) if table is not None else "",
        "audit": audit_tables(found.audit) if found.audit is not None else None,
        "audit_picture": data_uri("image/png", found.audit_picture) if found.audit_picture else None,
        "provenance": provenance(found, datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")),
        "missing": found.missing,
    }


_NAME = 60  # characters of a name in the page's sentences; whole names stand under "All estimates" and in the CSV


def _short(table: pd.DataFrame, verdicts: list[Verdict]) -> tuple[pd.DataFrame, list[Verdict]]:
    """Effects and verdicts with names that a sentence can hold, no two alike."""
    attributes, models = (
        distinct({name: name for name in map(str, table[c].unique())}, _NAME) for c in ("attribute", "reward_model")
    )
    shown = table.assign(
        attribute=table["attribute"].astype(str).map(attributes),
        reward_model=table["reward_model"].astype(str).map(models),
    )
    named = [
        replace(v, attribute=attributes.get(v.attribute, v.attribute),
                reward_model=v.reward_model and models.get(v.reward_model, v.reward_model)) for v in verdicts
    ]  # fmt: skip
    return shown, named


def _checks(found: Contents, looked: Looked) -> tuple[Any, pd.DataFrame | None, list[Verdict]]:
    """The rows that are looked at closely, what `diagnose` says of them, and the verdicts on the effects."""
    bare = list(unchecked(found.table)) if found.table is not None else []
    if found.ds is None:
        return None, None, bare
    if not set(NEEDED_BY["diagnose"]) <= set(columns_of(found.ds)):
        found.missing.append("the data hold no rewritten texts, so the rewrites cannot be checked or shown")
        return None, None, bare
    if found.seen is not None and found.seen.checks is not None:
        return found.seen.checked, found.seen.checks, found.seen.verdicts
    sample = checked_rows(found.ds, found.record)
    try:
        return sample, *examine(sample, found.table, looked=looked)
    except InputError as e:
        found.missing.append(f"the rewrites cannot be checked: {e}")
        return sample, None, bare


def _of_rows(sample: Any, ds: Any) -> str:
    many = len(sample) < len(ds)
    return f"a random {len(sample):,} of {len(ds):,} rows" if many else counted(len(ds), "row")


def _tried(found: Contents, what: str, make: Callable[[], Any]) -> Any:
    """What `make` gives; None where the rows cannot be read, which is said."""
    try:
        return make()
    except InputError as e:
        found.missing.append(f"there are no {what}: {e}")
        return None


def _details(table: pd.DataFrame) -> pd.DataFrame:
    kept = table.drop(columns=[c for c in ("n_treated", "n_untreated") if c in table])
    said = kept.assign(estimator=kept["estimator"].str.replace("_", " "), estimand=kept["estimand"].str.upper())
    return said.rename(columns={c: _DETAILS.get(c, c.replace("_", " ")) for c in said})


def _subtitle(found: Contents, table: pd.DataFrame | None) -> str:
    settings = found.record.get("settings") or {}
    parts = []
    if settings.get("data"):
        parts.append(f"data: {Path(str(settings['data'])).name}")
    if found.ds is not None:
        parts.append(counted(len(found.ds), "response"))
    if table is not None:
        parts.append(f"attributes: {', '.join(table['attribute'].unique())}")
        parts.append(f"reward models: {', '.join(table['reward_model'].unique())}")
    return " · ".join(parts)
