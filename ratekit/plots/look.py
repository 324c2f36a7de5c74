"""One look for every picture: colours and shapes, axes, units, and the checks of what is to be drawn.

Estimators are told apart by shape and by lightness as well as by colour, so a picture can be read without colour; what
a picture says about the data stands beside the data where there is room, not in a key far away.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.errors import InputError, shorten, unknown
from ratekit.estimators import ESTIMATORS
from ratekit.stages import standardize

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ORANGE, BLUE, GREY, INK = "#E69F00", "#0072B2", "#7a7a7a", "0.25"
STRIPE, GRID = "0.965", "0.9"


class Mark(NamedTuple):
    """How an estimator is drawn; colours after Okabe and Ito. What is not to be trusted by itself is hollow."""

    label: str
    color: str
    marker: str
    hollow: bool = False


class _Marks(Mapping[str, Mark]):
    """How each of `ESTIMATORS` is drawn, in their order."""

    def __getitem__(self, name: str) -> Mark:
        e = ESTIMATORS[name]
        return Mark(e.label, e.color, e.marker, e.hollow)

    def __iter__(self) -> Iterator[str]:
        return iter(ESTIMATORS)

    def __len__(self) -> int:
        return len(ESTIMATORS)


MARKS = _Marks()
SHOWN = ("naive", "single_rewrite", "rate")
ESTIMANDS = {"ate": "Average treatment effect", "att": "Effect on the treated", "atu": "Effect on the untreated"}
UNITS = {"sd": "reward SDs", "reward": "reward units"}


# --- what is to be drawn -----------------------------------------------------------------------------------


def need(table: Any, columns: Iterable[str], maker: str) -> None:
    """Raise InputError unless `table` is a DataFrame with rows and these columns; `maker` is who makes such tables."""
    have = getattr(table, "columns", None)
    if have is None:
        raise InputError(f"a table from {maker} was expected, not {type(table).__name__}")
    missing = [c for c in columns if c not in have]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; give one that {maker} made")
    if len(table) == 0:
        raise InputError(f"the table has no rows; give one that {maker} made")


def in_unit(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """An effects table in reward SDs ("sd") or in the reward's own units ("reward"). Raises InputError."""
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    if unit == "reward":
        return table
    rows = standardize(table)
    if not rows["estimate"].notna().any():
        raise InputError("no reward SD in the table (the originals were not scored); draw it with unit='reward'")
    return rows


def of_estimator(table: pd.DataFrame, estimator: str, estimand: str) -> pd.DataFrame:
    """The rows of one estimator and estimand. Raises InputError where the table holds none."""
    if estimator not in MARKS:
        raise unknown("estimator", estimator, MARKS)
    if estimand not in ESTIMANDS:
        raise unknown("estimand", estimand, ESTIMANDS)
    rows = table[(table["estimator"] == estimator) & (table["estimand"] == estimand)]
    if rows.empty:
        raise InputError(f"the table holds no {estimand.upper()} by {estimator}")
    return rows


def grouping(table: pd.DataFrame, before: str = "attribute") -> list[str]:
    """The columns that stand before `before`: those that `by=` put there."""
    return [str(c) for c in table.columns[: list(table.columns).index(before)]]


def plain(text: object, width: int = 40) -> str:
    r"""A name from data as a label: one line, not too long, no control characters, and a dollar is a dollar.

    >>> print(plain("a\x1b[31m $5"))
    a[31m \$5
    """
    kept = "".join(c for c in " ".join(str(text).split()) if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return shorten(kept, width).replace("$", r"\$")


def folded(text: object, width: int) -> str:
    """A label on several lines, broken after a slash, a dash or the like.

    >>> folded("sfairXC/FsfairX-LLaMA3-RM-v0.1", 14)
    'sfairXC/\\nFsfairX-\\nLLaMA3-RM-v0.1'
    """
    lines = [""]
    for part in re.split(r"(?<=[/_ *+-])", plain(text)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def written(value: float, largest: float = 1.0) -> str:
    """A number with its sign, to as many places as a table needs whose largest number is `largest`.

    >>> written(0.034), written(-12.34, largest=87), written(0.00012, largest=0.003)
    ('+0.03', '\N{MINUS SIGN}12.3', '+0.0001')
    """
    if value == 0:
        return "0"
    if not 1e-4 <= largest < 1e5:
        text = f"{value:+.1e}"
    else:
        size = math.floor(math.log10(largest))
        text = f"{value:+.{max(2 - size if size >= 0 else 1 - size, 0)}f}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text


# --- axes --------------------------------------------------------------------------------------------------


def canvas(ax: Axes | None, width: float, height: float) -> Axes:
    """`ax`, or the axes of a new figure of this size in inches."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    if ax is not None:
        return ax
    with sns.axes_style("white"):
        return plt.subplots(figsize=(width, height), layout="constrained")[1]


def row_of_panels(n: int, width: float = 3.9, height: float = 3.6, sharey: bool = False) -> Any:
    """A figure with `n` panels beside each other: (figure, array of axes)."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    with sns.axes_style("white"):
        figure, axes = plt.subplots(
            1, n, figsize=(width * n, height), squeeze=False, layout="constrained", sharey=sharey
        )
    return figure, axes[0]


def tidy(ax: Axes, along: str = "x", spines: Sequence[str] = ("bottom",)) -> None:
    """Light lines along the axis that is read, and only the spines that carry ticks."""
    ax.grid(axis=along, color=GRID, lw=0.7)  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(side in spines)
    ax.tick_params(axis="both", colors=INK, labelcolor="black")


def lanes(ax: Axes, labels: Sequence[str], groups: Sequence[object] | None = None) -> None:
    """One horizontal lane for each label, the first on top; every other one (or group of them) is shaded."""
    groups = range(len(labels)) if groups is None else groups
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    for place, group in enumerate(groups):
        if order[group] % 2:
            ax.axhspan(place - 0.5, place + 0.5, color=STRIPE, lw=0, zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def zero(ax: Axes, across: str = "y") -> None:
    """The line of no effect."""
    (ax.axvline if across == "y" else ax.axhline)(0, color="0.35", lw=0.9, zorder=1)


# --- marks -------------------------------------------------------------------------------------------------


def interval(ax: Axes, x: object, y: object, low: object, high: object, mark: Mark, along: str = "x") -> None:
    """A point at (x, y) with its interval along x or y, where it has one; nothing for a NaN."""
    a, b, lower, upper = (float(v) for v in (x, y, low, high))  # type: ignore[arg-type]
    if not (np.isfinite(a) and np.isfinite(b)):
        return
    if np.isfinite(lower) and np.isfinite(upper):
        ends = ([lower, upper], [b, b]) if along == "x" else ([a, a], [lower, upper])
        ax.plot(*ends, color=mark.color, lw=1.8, solid_capstyle="butt", zorder=2)
    ax.plot(a, b, **styled(mark), zorder=3)


def styled(mark: Mark, line: bool = False) -> dict[str, Any]:
    """Keywords of `plot` for a mark, or for a line with such marks."""
    face, edge = ("white", mark.color) if mark.hollow else (mark.color, "white")
    look = {"color": mark.color, "marker": mark.marker, "ms": 5.2 if mark.hollow else 6.2, "mfc": face, "mec": edge}
    return {**look, "mew": 1.4 if mark.hollow else 0.8, "lw": 1.8, "ls": "-" if line else ""}


def key(ax: Axes, marks: Iterable[Mark]) -> None:
    """A key above the axes, in one line, in the order of the marks."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [Line2D([], [], label=m.label, **styled(m, line=True)) for m in marks]
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(handles), frameon=False,
        borderaxespad=0.2, handlelength=1.8, columnspacing=1.8,
    )  # fmt: skip


def marks_of(table: pd.DataFrame, among: Iterable[str] = MARKS) -> list[str]:
    """The estimators of the table, in the order of `among`."""
    have = set(table["estimator"])
    return [name for name in among if name in have]
