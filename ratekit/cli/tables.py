"""Tables on stdout, as a person or a program wants them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from ratekit.tables import as_csv, as_json, as_markdown, as_text, table_of

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


def show(table: pd.DataFrame, how: Format = Format.table, kept: Sequence[str] = ()) -> None:
    """Print `table` on stdout, for a person the columns `kept` alone; json is a list of row objects, NaN as null."""
    print(render(table[[c for c in kept if c in table]] if kept and how is Format.table else table, how))


def render(table: pd.DataFrame, how: Format) -> str:
    """The table as text.

    Examples
    --------
    >>> import pandas as pd
    >>> print(render(pd.DataFrame({"n": [3], "se": [0.12345]}), Format.table))
    n      se
    3  0.1235
    """
    if how is Format.csv:
        return as_csv(table).rstrip("\n")
    if how is Format.json:
        return as_json(table)
    return (as_markdown if how is Format.markdown else as_text)(table_of(table))
