"""A table as text: for a terminal, for Markdown, for a page, for a spreadsheet and for a program.

`Table` is the one form in which cells are texts already; each renderer takes it and makes what is in it safe to show.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ratekit.errors import shorten
from ratekit.escaping import as_html, escaped, visible

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 200  # characters of a cell on a terminal: a name may be as long as a response
_MARKUP = re.compile(r"[*`\[\]|\\$]|(?<![^\W_])_|_(?![^\W_])")
_FORMULA = {"\\": "<span>&#92;</span>", "$": "<span>\\$</span>"}  # a tag ends what could be a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula


class Table(NamedTuple):
    """A table as texts; `numeric` says of each column whether it holds numbers."""

    columns: list[str]
    numeric: list[bool]
    rows: list[list[str]]


def table_of(frame: pd.DataFrame, names: Mapping[str, str] | None = None, missing: str = "-") -> Table:
    """A DataFrame as texts.

    Parameters
    ----------
    frame : DataFrame
        Any.
    names : mapping of str to str, optional
        What a column is called where it is shown.
    missing : str
        For NaN and None.

    Returns
    -------
    Table
        Numbers to four digits.

    Examples
    --------
    >>> import pandas as pd
    >>> table_of(pd.DataFrame({"model": ["a"], "loss": [0.123456]}))
    Table(columns=['model', 'loss'], numeric=[False, True], rows=[['a', '0.1235']])
    """
    columns = [(names or {}).get(c, str(c)) for c in frame.columns]
    numeric = [len(frame) > 0 and all(_is_number(v) for v in frame.iloc[:, i]) for i in range(len(columns))]
    return Table(columns, numeric, [[cell(v, missing) for v in row] for row in frame.itertuples(index=False)])


def cell(value: Any, missing: str = "-") -> str:
    """One value as text, on one line.

    Examples
    --------
    >>> cell(0.123456), cell(float("nan")), cell(3), cell(20365.0), cell("two\\nlines")
    ('0.1235', '-', '3', '20365', 'two lines')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return missing
    if isinstance(value, float):
        return rounded(value, 4 if abs(value) < 1e4 else 6)
    return " ".join(str(value).split())


def rounded(value: float, digits: int) -> str:
    """A number to so many digits; to more where these would lift one below 0.05, the level of many a test, to it.

    Examples
    --------
    >>> rounded(0.0496, 2), rounded(0.0504, 2), rounded(0.5, 2)
    ('0.0496', '0.05', '0.5')
    """
    while float(text := f"{value:.{digits}g}") >= 0.05 > value:
        digits += 1
    return text


def p_words(p: float, missing: str = "") -> str:
    """A p-value to two digits.

    Examples
    --------
    >>> p_words(0.0496), p_words(0.00123), p_words(0.0), p_words(math.nan)
    ('0.0496', '0.0012', '<1e-300', '')
    """
    return missing if p != p else rounded(p, 2) if p else "<1e-300"


def to_places(value: float, places: int = 2, sign: str = "+") -> str:
    """A number with its sign, to so many places or to one digit where these would make it 0; "-" for none.

    Examples
    --------
    >>> to_places(0.25), to_places(-0.0304), to_places(-0.0004), to_places(3.6e11), to_places(-0.0)
    ('+0.25', '-0.03', '-0.0004', '+3.6e+11', '+0.00')
    """
    if value != value:
        return "-"
    text = f"{value:{sign}z.{places}f}"
    return f"{value:{sign}.1g}" if value and float(text) == 0 else text if abs(value) < 1e5 else f"{value:{sign}.4g}"


def number_with_interval(
    value: float, low: float, high: float, places: int = 2, unit: str = "", sign: str = "+"
) -> str:
    """A number with its interval, where it has one: to so many places, or as many as tell it from the interval's ends.

    Examples
    --------
    >>> number_with_interval(0.25, 0.125, 0.375), number_with_interval(0.25, math.nan, math.nan, unit=" SD")
    ('+0.25 [+0.12, +0.38]', '+0.25 SD')
    >>> number_with_interval(0.157, 0.0009, 0.314), number_with_interval(0.00403, 0.00393, 0.00412)
    ('+0.16 [+0.0009, +0.31]', '+0.00403 [+0.00393, +0.00412]')
    """
    shown, interval = number_and_interval(value, low, high, places, sign)
    return shown if value != value else f"{shown}{unit} {interval}".rstrip()


def number_and_interval(value: float, low: float, high: float, places: int = 2, sign: str = "+") -> tuple[str, str]:
    """The two parts of `number_with_interval`, for a table that has a column of each; the second is "" for none.

    Examples
    --------
    >>> number_and_interval(0.25, 0.125, 0.375), number_and_interval(0.25, math.nan, math.nan)
    (('+0.25', '[+0.12, +0.38]'), ('+0.25', ''))
    """
    if value != value or not (math.isfinite(low) and math.isfinite(high)):
        return to_places(value, places, sign), ""
    arms = [arm for arm in (value - low, high - value) if arm > 0]
    places = max([places, *(min(-math.floor(math.log10(arm)), 6) for arm in arms)])
    shown, *ends = (to_places(v, places, sign) for v in (value, low, high))
    return shown, f"[{', '.join(ends)}]"


def interval_words(levels: Iterable[float | None]) -> str:
    """What an interval of these levels is called; only "interval" where none is known or they differ.

    Examples
    --------
    >>> interval_words([0.995, 0.995]), interval_words([0.9, 0.95]), interval_words([])
    ('99.5 % interval', 'interval', 'interval')
    """
    known = {level for level in levels if level}
    level = known.pop() if len(known) == 1 else None
    return f"{100 * level:.6g} % interval" if level else "interval"


def percent(share: float, sign: str = "") -> str:
    """A share in per cent, which is 0 or 100 only where all or none are.

    Examples
    --------
    >>> percent(0.25), percent(1.0), percent(0.997), percent(-0.004, "+")
    ('25%', '100%', '99.7%', '-0.4%')
    """
    texts = [f"{share:{sign}z.{places}%}" for places in range(4)]
    exact = not abs(share - round(share, 0)) > 1e-9
    return next((text for text in texts if exact or abs(float(text[:-1])) not in (0, 100)), texts[0])


def as_text(table: Table, widest: int = WIDEST) -> str:
    """Columns side by side for a terminal; numbers to the right, control characters as signs.

    Examples
    --------
    >>> print(as_text(Table(["model", "n"], [False, True], [["a", "3"], ["bcdefgh", "12"]])))
    model     n
    a         3
    bcdefgh  12
    """
    lines = [[shorten(visible(c), widest) for c in line] for line in [table.columns, *table.rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    return "\n".join(
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, table.numeric, strict=True)).rstrip()
        for line in lines
    )


def as_markdown(table: Table) -> str:
    """A table of Markdown; markup and bars in cells are shown, not obeyed.

    Examples
    --------
    >>> print(as_markdown(Table(["n"], [True], [["3"], ["<b>|"]])))
    | n |
    |--:|
    | 3 |
    | &lt;b&gt;\\| |
    """
    first, *rest = [[plain_markdown(c) for c in line] for line in [table.columns, *table.rows]]
    rule = "|" + "|".join("--:" if n else "---" for n in table.numeric) + "|"
    return "\n".join(["| " + " | ".join(first) + " |", rule, *("| " + " | ".join(line) + " |" for line in rest)])


def plain_markdown(text: str) -> str:
    r"""The text as Markdown on one line that shows it: no markup, no link and no formula of it is obeyed.

    Examples
    --------
    >>> print(plain_markdown("<b> *a* [b](c) $x$ a_b"))
    &lt;b&gt; \*a\* \[b\](c) <span>\$</span>x<span>\$</span> a_b
    """
    shown = html.escape(visible(" ".join(text.split())), quote=False)
    return _MARKUP.sub(lambda found: _FORMULA.get(found[0], f"\\{found[0]}"), shown)


def table_html(table: Table, *, limit: int = 400, raw: Sequence[str] = (), label: str = "") -> str:
    """A table of HTML without a style of its own.

    Parameters
    ----------
    table : Table
        Its cells are escaped and cut at `limit` characters.
    limit : int
        Characters of a cell.
    raw : sequence of str
        Columns whose cells are HTML that ratekit itself has made.
    label : str
        What the table is, for those who cannot see it.

    Returns
    -------
    str
        ``<table>``; a number's cells have the class ``n``, those of a column with sentences the class ``words``, and
        each cell its column's name as ``data-name``.

    Examples
    --------
    >>> table_html(Table(["n"], [True], [["<3"]])).partition("<tbody>")[2]
    '<tr><td data-name="n" class="n">&lt;3</td></tr></tbody></table>'
    """
    kept = [c in raw for c in table.columns]
    said = [not r and any(len(row[i]) > 60 and " " in row[i] for row in table.rows) for i, r in enumerate(kept)]
    kinds = [' class="n"' if n else ' class="words"' if w else "" for n, w in zip(table.numeric, said, strict=True)]
    head = "".join(f'<th scope="col"{k}>{cell_html(c, limit)}</th>' for c, k in zip(table.columns, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(
            f'<td data-name="{html.escape(name[:120])}"{k}>{c if r else cell_html(c, limit)}</td>'
            for name, c, k, r in zip(table.columns, row, kinds, kept, strict=True)
        ) + "</tr>" for row in table.rows
    )  # fmt: skip
    named = f' aria-label="{html.escape(label)}"' if label else ""
    return f"<table{named}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def cell_html(text: str, limit: int = 400) -> str:
    """A text as the HTML of a cell: shown as it is, cut at `limit`, and in lines where a word has no end.

    Examples
    --------
    >>> cell_html("a" * 26)
    'aaaaaaaaaaaaaaaaaaaaaaaa<wbr>aa'
    """
    plain = text.isascii() and text.isprintable() and len(text) <= limit
    return _ENDLESS.sub(r"\g<0><wbr>", escaped(text) if plain else as_html(text, limit))


_ENDLESS = re.compile(r"(?:&#?\w+;|[^\s<>&]){24}(?=[^\s<])")  # a word that would make its column as wide as itself


def as_csv(frame: pd.DataFrame) -> str:
    """A DataFrame as CSV: numbers to the last digit, texts that a spreadsheet would run as a formula quoted by `'`.

    Examples
    --------
    >>> import pandas as pd
    >>> print(as_csv(pd.DataFrame({"name": ["a", "=1+1"], "x": [0.1, -2.0]})), end="")
    name,x
    a,0.1
    '=1+1,-2.0
    """
    shown = frame.copy()
    for i, kind in enumerate(frame.dtypes):
        if kind.kind not in "fiub":
            shown.isetitem(i, [_quoted(v) for v in frame.iloc[:, i]])
    return shown.set_axis([_quoted(c) for c in frame.columns], axis=1).to_csv(index=False)


def _quoted(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def unquoted(frame: pd.DataFrame) -> pd.DataFrame:
    """A DataFrame read from what `as_csv` wrote, its texts as they were.

    Examples
    --------
    >>> import pandas as pd
    >>> unquoted(pd.DataFrame({"name": ["a", "'=1+1"]}))["name"].tolist()
    ['a', '=1+1']
    """
    out = frame.copy()
    for i in range(frame.shape[1]):
        values = frame.iloc[:, i].tolist()
        if any(isinstance(v, str) and v.startswith("'") and v[1:].startswith(FORMULA) for v in values):
            quoted = [isinstance(v, str) and v.startswith("'") and v[1:].startswith(FORMULA) for v in values]
            out.isetitem(i, [v[1:] if q else v for v, q in zip(values, quoted, strict=True)])
    return out


def as_json(frame: pd.DataFrame) -> str:
    """A DataFrame as a JSON list of row objects, NaN and infinities as null.

    Examples
    --------
    >>> import pandas as pd
    >>> as_json(pd.DataFrame({"n": [3], "se": [float("nan")]}))
    '[{"n": 3, "se": null}]'
    """
    return json.dumps([{k: _plain(v) for k, v in row.items()} for row in frame.to_dict("records")], allow_nan=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """A value that JSON can hold: numpy scalars as Python's, NaN and infinities as null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
