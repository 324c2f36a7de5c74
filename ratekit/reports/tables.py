"""The audit of a merge as tables: an estimate and its interval in one cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ratekit.tables import Table, cell

if TYPE_CHECKING:
    import pandas as pd

LOW, HIGH = "_ci_low", "_ci_high"
WITH = ("_se", LOW, HIGH, "_p_adjusted")  # what stands beside an estimate, under the estimate's own name


def audit_tables(table: pd.DataFrame) -> tuple[Table, Table | None]:
    """The audit of a merge: what each model is and rewards, and how that differs from each of its parents.

    Columns named `<attribute> - <parent>` are the differences; an estimate's SE and p-value are left to audit.csv.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"model": ["soup"], "length": [0.5], "length_ci_low": [0.25], "length_ci_high": [0.75]})
    >>> audit_tables(frame)[0].rows
    [['soup', '0.5 [0.25, 0.75]']]
    """
    shown = [c for c in map(str, table.columns) if not any(c == f"{name}{end}" for name in table for end in WITH)]
    differences = [c for c in shown if " - " in c]
    first = [c for c in shown if c not in differences]
    names = [c for c in ("model", "method") if c in first]
    return _folded(table, first), _folded(table, [*names, *differences]) if differences else None


def _folded(table: pd.DataFrame, columns: list[str]) -> Table:
    numeric = [table[c].dtype.kind in "fiu" for c in columns]
    rows = [[_estimate(row, c) for c in columns] for row in table.to_dict("records")]
    filled = [i for i in range(len(columns)) if any(row[i] for row in rows)]  # a column of nothing is no column
    return Table([columns[i].replace("_", " ") for i in filled], [numeric[i] for i in filled],
                 [[row[i] for i in filled] for row in rows])  # fmt: skip


def _estimate(row: Any, name: str) -> str:
    value, low, high = row[name], row.get(f"{name}{LOW}"), row.get(f"{name}{HIGH}")
    if value != value or value is None:
        return ""
    known = low is not None and low == low and high == high
    return f"{value:.3g} [{low:.3g}, {high:.3g}]" if known else cell(value, "")
