"""What the dashboard shows of an effects table: forest, heat map, all that stands behind a number. No widgets."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ratekit import plots
from ratekit.conclusions import levels_of
from ratekit.estimators import ESTIMATORS, shown_unit, standardize
from ratekit.plots.style import TOP, scale_of_effects, told_on, unit_words
from ratekit.schema import grouping
from ratekit.tables import Table, interval_words, p_words, table_html, to_places

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"


def select(table: pd.DataFrame, attribute: str = ALL, reward_model: str = ALL) -> pd.DataFrame:
    """The rows of an effects table for one attribute and one reward model, or all of them.

    Examples
    --------
    >>> import pandas as pd
    >>> t = pd.DataFrame({"attribute": ["length", "sentiment"], "reward_model": ["a", "a"]})
    >>> select(t, attribute="length")["attribute"].tolist()
    ['length']
    """
    kept = table
    if attribute != ALL:
        kept = kept[kept["attribute"] == attribute]
    if reward_model != ALL:
        kept = kept[kept["reward_model"] == reward_model]
    return kept


def estimators_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(label, name) of the estimators that the table has, in the order of `ESTIMATORS`."""
    return [(how.label, name) for name, how in ESTIMATORS.items() if name in set(table["estimator"])]


def forest(
    table: pd.DataFrame, *, estimand: str = "", unit: str = "", estimators: tuple[str, ...] | None = None
) -> bytes:
    """The forest of effects as PNG bytes; by default of the first estimand that there is, in SDs where there is one.

    Bytes in an image widget, not a figure in an output area: the same in every front end, and nothing races.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    unit = unit or shown_unit(table)
    n_groups = len(table[["attribute", "reward_model"]].drop_duplicates())
    n_marks = 3 if estimators is None else len(estimators)
    figure = Figure(figsize=(7.2, 1.3 + min(n_groups, TOP) * (0.30 + 0.17 * n_marks)), layout="constrained")
    FigureCanvasAgg(figure)
    plots.effects(table, estimand=estimand or "ate", unit=unit, estimators=estimators, ax=figure.subplots())
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # that its font lacks: the menus beside it have the names
        figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


@dataclass(frozen=True)
class Cell:
    """One number of the heat map: what it is of (`label`: with its group), what stands in it, its colour and ink."""

    attribute: str
    label: str
    reward_model: str
    words: str
    color: str
    ink: str
    tooltip: str


def cells(table: pd.DataFrame, *, estimator: str = "rate", estimand: str = "ate", unit: str = "sd") -> list[Cell]:
    """The heat map of attributes (rows) by reward models (columns), row by row; a blank cell where nothing is known.

    Colours reach from the largest effect's negative to itself; * marks p < 0.05. `naive` has the ATE alone.

    Examples
    --------
    >>> import ratekit as rk
    >>> table = rk.estimate(rk.score(rk.load("reviews"), "words", progress=False))
    >>> [cell.words for cell in cells(table)]
    ['+0.002', '+7.93*']
    """
    from matplotlib.colors import to_hex

    rows = standardize(table) if unit == "sd" else table
    estimand = "ate" if estimator == "naive" else estimand
    rows = rows[(rows["estimator"] == estimator) & (rows["estimand"] == estimand)]
    known = rows["estimate"].abs()
    largest = float(known[np.isfinite(known)].max()) if np.isfinite(known).any() else 1.0
    colours = scale_of_effects("#f5f5f5")  # pale near 0; the sign is written too
    found = []
    keys = [*grouping(table), "attribute"]
    for values, lane in table.groupby(keys, sort=False, dropna=False):
        attribute, label = str(values[-1]), ", ".join(map(str, values))
        mine = rows.loc[rows.index.intersection(lane.index)]
        for model in dict.fromkeys(table["reward_model"]):
            of = mine[mine["reward_model"] == model]
            value = float(of["estimate"].iloc[0]) if len(of) else float("nan")
            share = value / largest if largest and np.isfinite(value) else 0.0
            fill = to_hex(colours(0.5 + 0.5 * share))
            if not np.isfinite(value):
                none = f"no estimate in {unit_words(rows, unit)}"
                found.append(Cell(attribute, label, model, "–", fill, told_on(fill), none))
                continue
            low, high, p = (float(of[c].iloc[0]) for c in ("ci_low", "ci_high", "p_value"))
            words = f"{to_places(value)}{'*' if p < 0.05 else ''}"
            interval = f", interval {low:+.3g} to {high:+.3g}" if np.isfinite(low) else ""
            effect = f"{value:+.3g} {unit_words(rows, unit)}{interval}"
            tooltip = f"{label}, {model}: {effect}; click for the rows behind it"
            found.append(Cell(attribute, label, model, words, fill, told_on(fill), tooltip))
    return found


def behind(table: pd.DataFrame, *, estimand: str = "ate", unit: str = "sd") -> str:
    """Every estimator of one attribute and reward model with all that stands behind it: an HTML table."""
    rows = standardize(table) if unit == "sd" else table
    columns = [
        unit_words(rows, unit), "estimate", "SE", interval_words(levels_of(table)), "p", "rows", "treated", "untreated",
        "prompts", "dropped",
    ]  # fmt: skip
    lines = []
    groups = rows[grouping(rows)].astype(str).agg(", ".join, axis=1) if grouping(rows) else [""] * len(rows)
    for row, group in zip(rows.itertuples(), groups, strict=True):
        if row.estimand != ("ate" if row.estimator == "naive" else estimand):
            continue
        interval = f"[{row.ci_low:+.3g}, {row.ci_high:+.3g}]" if np.isfinite(row.ci_low) else "none"
        lines.append([
            ", ".join(filter(None, [ESTIMATORS[str(row.estimator)].label, group])), f"{row.estimate:+.3g}",
            f"{row.se:.2g}" if np.isfinite(row.se) else "none", interval, p_words(row.p_value, "none"),
            *(f"{n:,}" for n in (row.n, row.n_treated, row.n_untreated, row.n_clusters, row.n_dropped)),
        ])  # fmt: skip
    return f'<div class="rk-wide">{table_html(Table(columns, [c != columns[0] for c in columns], lines))}</div>'
