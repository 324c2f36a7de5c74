"""The table of effects as it is printed: each estimate beside its interval."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ratekit.escaping import escaped, visible
from ratekit.tables import Table, as_text, cell, cell_html, interval_words, table_html, table_of

PRINTED_ROWS = 60  # rows that are printed


class EffectsTable(pd.DataFrame):
    """A DataFrame that prints what a reader looks for first and says how much more it holds.

    Examples
    --------
    >>> columns = {"attribute": "length", "reward_model": "rm", "estimator": ["naive", "rate"], "estimand": "ate"}
    >>> numbers = {"estimate": [2.0, 1.5], "ci_low": [1.0, 1.25], "ci_high": [3.0, 1.75], "n": 40}
    >>> EffectsTable({**columns, **numbers, "recommended": [False, True]})
    length, rm
    estimator  estimand  estimate  interval       n  recommended
    naive      ate              2  [1, 3]        40
    rate       ate            1.5  [1.25, 1.75]  40  yes
    [2 rows x 9 columns; .to_string() shows all]
    """

    def __repr__(self) -> str:
        """Each estimate with its interval, and which one to read first; another frame's text where columns are gone."""
        if not (shown := self._shown()):
            return super().__repr__()
        of_all, table, size = shown
        return "\n".join(line for line in (visible(of_all), as_text(table), size) if line)

    def _repr_html_(self) -> Any:
        """The same columns, for a notebook."""
        if not (shown := self._shown()):
            return super()._repr_html_()
        of_all, table, size = shown
        return f"<p>{cell_html(of_all)}</p>{table_html(table, label='effects')}<p>{escaped(size)}</p>"

    def _shown(self) -> tuple[str, Table, str] | None:
        """What is alike in all rows, the columns that a reader looks for first, and how much more there is."""
        interval = interval_words([self.attrs.get("level")])
        shown = ["estimator", "estimand", "estimate", interval, "n", "recommended"]
        if not {"ci_low", "ci_high", *shown} - {interval} <= set(self) or not len(self):
            return None
        table = bounds_as_text(self.head(PRINTED_ROWS))
        table["recommended"] = ["yes" if first else "" for first in table["recommended"]]
        whose = list(table)[: list(table).index("estimator")]
        many = [c for c in whose if self[c].nunique() > 1]
        of_all = ", ".join(str(self[c].iloc[0]) for c in whose if c not in many)
        more = f"... {len(self) - PRINTED_ROWS} more\n" if len(self) > PRINTED_ROWS else ""
        size = f"{more}[{len(self)} rows x {len(self.columns)} columns; .to_string() shows all]"
        return of_all, table_of(table[[*many, *shown]]), size


def bounds_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with ci_low and ci_high as one column of texts."""
    shown = pd.DataFrame(table)
    at = shown.columns.get_loc("ci_low")
    bounds = zip(shown.pop("ci_low"), shown.pop("ci_high"), strict=True)
    texts = ["-" if low != low else f"[{cell(low)}, {cell(high)}]" for low, high in bounds]
    shown.insert(at, interval_words([table.attrs.get("level")]), texts)
    return shown
