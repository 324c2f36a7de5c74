"""Tables on stdout, as a person or a program wants them."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ratekit.errors import shorten
from ratekit.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 200  # characters of a cell on a terminal: a name may be as long as a response


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    markdown = "markdown"


def show(table: pd.DataFrame, how: Format = Format.table) -> None:
    """Print `table` on stdout; json is a list of row objects with NaN as null, and nothing else."""
    print(render(table, how))


def render(table: pd.DataFrame, how: Format) -> str:
    """The table as text; control characters become signs where a person reads it, and stay in csv and json.

    >>> import pandas as pd
    >>> render(pd.DataFrame({"n": [3], "se": [float("nan")]}), Format.json)
    '[{"n": 3, "se": null}]'
    >>> print(render(pd.DataFrame({"n": [3], "se": [0.12345]}), Format.markdown))
    | n | se |
    |--:|--:|
    | 3 | 0.1235 |
    """
    if how is Format.csv:
        return table.to_csv(index=False).rstrip("\n")
    if how is Format.json:
        return json.dumps([{k: _plain(v) for k, v in row.items()} for row in table.to_dict("records")], allow_nan=False)
    cells = [[_cell(v) for v in row] for row in table.itertuples(index=False)]
    names = [visible(str(c)) for c in table.columns]
    numeric = [all(_is_number(v) for v in table[c]) for c in table.columns]
    if how is Format.markdown:
        lines = [names, *([c.replace("|", "\\|") for c in row] for row in cells)]
        ruled = ["|" + "|".join("--:" if n else "---" for n in numeric) + "|"]
        text = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([text[0], *ruled, *text[1:]])
    names, *cells = [[shorten(c, WIDEST) for c in line] for line in [names, *cells]]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    return "\n".join(
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True)).rstrip()
        for line in [names, *cells]
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.6g}"
    return visible(" ".join(str(value).split()))


def _plain(value: Any) -> Any:
    """A value that JSON can hold: numpy scalars as Python's, NaN and infinities as null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
