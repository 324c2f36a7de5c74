"""One style for every picture: colours, names that stay apart, letters that fit the width, and ink that can be read.

Each colour has one meaning in all pictures. An estimator's is a field of its entry in `ratekit.estimators.ESTIMATORS`;
treated and untreated, raising and lowering, and merged models have theirs below. Marks differ by shape and lightness
too, so a picture can be read without colour. Ink is taken from the background: the same call draws on white and on
black.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.conclusions import levels_of
from ratekit.errors import InputError, require_known, require_whole
from ratekit.estimators import ESTIMATORS, SAMPLE_SD, standardize
from ratekit.intervals import LEVEL
from ratekit.plots.names import cleaned, distinct, folded
from ratekit.tables import interval_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Told apart by every common kind of colour vision: Tol's muted scheme, Brewer's BrBG, Tol's vibrant red.
TREATED, UNTREATED = "#AA4499", "#999933"
LOWERS, RAISES = "#8C510A", "#01665E"
MERGED = "#CC3311"
INK = "ink"  # black on a pale background, white on a dark one

LEAST_POINTS = 5.5  # letters smaller than this are not printed
LEAST_CONTRAST = 2.1  # of a mark against the background
TOP = 30  # lanes of a picture; more are not read


class Mark(NamedTuple):
    """How something is drawn; what is not to be trusted by itself is hollow."""

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
SIDE_COLORS = {
    "treated": Mark("treated responses", TREATED, "o"),
    "untreated": Mark("untreated responses", UNTREATED, "D"),
}
ESTIMAND_LABELS = {"ate": "everyone (ATE)", "att": "the treated (ATT)", "atu": "the untreated (ATU)"}
ESTIMAND_TITLES = {
    "ate": "Average treatment effect",
    "att": "Average treatment effect on the treated",
    "atu": "Average treatment effect on the untreated",
}
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


def only(what: str, given: str | None, known: Iterable[Any]) -> str:
    """The one that is meant: `given`, or the only one there is. Raises InputError."""
    names = list(dict.fromkeys(map(str, known)))
    if given is not None:
        require_known(what, given, names)
        return given
    if len(names) != 1:
        listed = ", ".join(distinct({name: cleaned(name) for name in names}).values())
        raise InputError(f"which {what}? There are {listed or 'none'}; name one with {what.replace(' ', '_')}=")
    return names[0]


def rows_of_one(table: pd.DataFrame, column: str, given: str | None) -> tuple[str, pd.DataFrame]:
    """The one that is meant in this column, as by `only`, and its rows. Raises InputError."""
    one = only(column.replace("_", " "), given, table[column])
    return one, table[table[column].astype(str) == one]


def some_of(n: int, whole: int, which: str = "largest", before: str = "; ") -> str:
    """What a label says of what is drawn, where that is not all of it."""
    return f"{before}the {n} {which} of {whole}" if n < whole else ""


def in_unit(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """An effects table in reward SDs ("sd") or in the reward's own units ("reward"). Raises InputError."""
    require_known("unit", unit, UNITS)
    if unit == "reward":
        return table
    rows = standardize(table)
    if not rows["estimate"].notna().any():
        raise InputError(
            "no reward SD in the table: it takes rewards of the originals that differ, two or more of a class; "
            "draw it with unit='reward'"
        )
    return rows


def unit_words(rows: pd.DataFrame, unit: str) -> str:
    """The unit of what `in_unit` gave, for an axis: SDs of this sample where their own error is not counted."""
    return "SDs of this sample" if unit == "sd" and rows.attrs.get("unit") == SAMPLE_SD else UNITS[unit]


def unusual_level(table: pd.DataFrame) -> str:
    """The level of an effects table's intervals, for an axis, where it is not 95 %."""
    called = interval_words(levels_of(table)) if "se" in table else ""
    return "" if called in ("", "interval", interval_words([LEVEL])) else f"; {called}"


def of_estimator(table: pd.DataFrame, estimator: str, estimand: str) -> pd.DataFrame:
    """The rows of one estimator and estimand. Raises InputError where the table holds none."""
    require_known("estimator", estimator, MARKS)
    require_known("estimand", estimand, ESTIMAND_TITLES)
    rows = table[(table["estimator"] == estimator) & (table["estimand"] == estimand)]
    if rows.empty:
        raise InputError(f"the table holds no {estimand.upper()} by {estimator}")
    return rows


def largest(sizes: Sequence[float], top: int | None) -> list[int]:
    """The places of the `top` largest, in their own order; NaN is the smallest.

    Examples
    --------
    >>> largest([0.1, 0.3, float("nan"), 0.2], 2)
    [1, 3]
    """
    if top is not None:
        require_whole("top", top, 1)
    if top is None or len(sizes) <= top:
        return list(range(len(sizes)))
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i] if sizes[i] == sizes[i] else math.inf)
    return sorted(order[:top])


def marks_of(table: pd.DataFrame, among: Iterable[str] = MARKS) -> list[str]:
    """The estimators of the table, in the order of `among`."""
    have = set(table["estimator"])
    return [name for name in among if name in have]


# --- ink and colour ----------------------------------------------------------------------------------------


def _background(ax: Axes) -> Any:
    """The colour that marks stand on; where axes and figure are transparent, the opposite of the text's."""
    from matplotlib import colors, rcParams

    for face in (ax.get_facecolor(), ax.get_figure(root=True).get_facecolor()):  # type: ignore[union-attr]
        if colors.to_rgba(face)[3] > 0.5:
            return np.array(colors.to_rgb(face))
    return np.zeros(3) if _luminance(np.array(colors.to_rgb(rcParams["text.color"]))) > 0.5 else np.ones(3)


def _luminance(rgb: Any) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast_ratio(one: Any, other: Any) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2)."""
    from matplotlib import colors

    low, high = sorted(_luminance(np.array(colors.to_rgb(c))) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def told_on(fill: Any) -> str:
    """Black or white, whichever is told better from this colour."""
    return max(("#ffffff", "#000000"), key=lambda c: contrast_ratio(c, fill))


def scale_of_effects(middle: str) -> Any:
    """Colours from -1 (at 0.0) to 1 (at 1.0), what lowers to what raises, with `middle` for 0."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ratekit", [LOWERS, middle, RAISES])


def ink(ax: Axes, strength: float = 1.0) -> tuple[float, float, float]:
    """Ink for this background: 1 is black on white (white on black), 0 the background itself."""
    face = _background(ax)
    full = np.ones(3) if _luminance(face) < 0.18 else np.zeros(3)
    r, g, b = face + strength * (full - face)
    return float(r), float(g), float(b)


def color_on(ax: Axes, color: str) -> Any:
    """A mark's colour, made lighter or darker where this background would swallow it."""
    from matplotlib import colors

    if color == INK:
        return ink(ax, 0.85)
    face, full = _background(ax), np.array(ink(ax))
    rgb = np.array(colors.to_rgb(color))
    if contrast_ratio(rgb, face) >= LEAST_CONTRAST:
        return color
    for share in np.linspace(0.1, 1, 10):
        mixed = rgb + share * (full - rgb)
        if contrast_ratio(mixed, face) >= LEAST_CONTRAST + 0.9:
            return tuple(mixed)
    return tuple(full)


# --- axes --------------------------------------------------------------------------------------------------


def width_of(ax: Axes | None) -> float:
    """The inches that a picture has across: its part of the figure, or `rcParams["figure.figsize"]`'s."""
    from matplotlib import rcParams

    if ax is None:
        return float(rcParams["figure.figsize"][0])
    whole, place = ax.get_figure(root=True).get_size_inches()[0], ax.get_subplotspec()  # type: ignore[union-attr]
    if place is None:
        return float(whole)
    return float(whole) * (place.colspan.stop - place.colspan.start) / place.get_gridspec().ncols


def points(ax: Axes | None) -> float:
    """The size of letters that suits this width: smaller in a column, larger on a slide."""
    from matplotlib import rcParams

    return float(np.clip(rcParams["font.size"] * width_of(ax) / 6.4, 0.68 * rcParams["font.size"],
                         1.3 * rcParams["font.size"]))  # fmt: skip


def letters(ax: Axes | None, share: float) -> int:
    """How many letters fit across this share of the width."""
    return max(int(share * width_of(ax) * 72 / (0.6 * points(ax))), 8)


def canvas(ax: Axes | None, height: float) -> Axes:
    """`ax`, or the axes of a new figure: of this height in inches, and as wide as `rcParams["figure.figsize"]`."""
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(figsize=(width_of(None), height), layout="constrained")[1]
    figure = ax.get_figure(root=True)
    if figure.get_layout_engine() is None and ax.get_subplotspec() is not None:  # type: ignore[union-attr]
        figure.set_layout_engine("constrained")  # type: ignore[union-attr]
    return ax


def tidy(ax: Axes, along: str = "x", spines: Sequence[str] = ("bottom",)) -> None:
    """Light lines along the axis that is read, and only the spines that carry ticks."""
    ax.grid(axis=along, color=ink(ax, 0.1), lw=0.7)  # type: ignore[arg-type]
    ax.grid(visible=False, axis="y" if along == "x" else "x")
    ax.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        ax.spines[side].set_visible(side in spines)
        ax.spines[side].set_color(ink(ax, 0.75))


def lane_axes(
    ax: Axes | None, labels: Sequence[str], marks: int = 1, groups: Sequence[object] | None = None, *,
    least: float = 0.0, beside: float = 1.1,
) -> Axes:  # fmt: skip
    """A horizontal lane for each label, the first on top; every other one (or group of them) is shaded.

    marks: below each other in a lane; least: inches of a lane; beside: inches for what is above and below the lanes.
    """
    lines = max(label.count("\n") + 1 for label in labels)
    height = max(lines * 1.25 * points(ax) / 72 + 0.1, 0.14 + 0.13 * marks, least)
    ax = canvas(ax, beside + height * len(labels))
    groups = range(len(labels)) if groups is None else groups
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    for place, group in enumerate(groups):
        if order[group] % 2:
            ax.axhspan(place - 0.5, place + 0.5, color=ink(ax, 0.04), lw=0, zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    return ax


def beside_lane(ax: Axes, text: str, y: float, width: int = 12) -> None:
    """Words to the right of the axes, about the lanes around y."""
    lines = [folded(line, width) for line in text.split("\n")]
    ax.annotate("\n".join(lines), (1.0, y), xytext=(6, 0), xycoords=("axes fraction", "data"), color=ink(ax, 0.7),
                textcoords="offset points", va="center", annotation_clip=False, gid="beside")  # fmt: skip


def zero(ax: Axes, across: str = "y") -> None:
    """The line of no effect."""
    (ax.axvline if across == "y" else ax.axhline)(0, color=ink(ax, 0.65), lw=0.9, zorder=1)


def axis_names(ax: Axes, *, x: str = "", y: str = "", title: str = "", share: float = 0.7) -> None:
    """The names of the axes, folded to what is there."""
    if x:
        ax.set_xlabel(folded(x, letters(ax, share)))
    if y:
        ax.set_ylabel(y)
    if title:
        ax.set_title("\n".join(folded(line, letters(ax, share)) for line in title.split("\n")), loc="left", pad=6)


# --- marks -------------------------------------------------------------------------------------------------


def interval(ax: Axes, x: object, y: object, low: object, high: object, mark: Mark, along: str = "x") -> None:
    """A point at (x, y) with its interval along x or y, where it has one; nothing for a NaN."""
    a, b, lower, upper = (float(v) for v in (x, y, low, high))  # type: ignore[arg-type]
    if not (np.isfinite(a) and np.isfinite(b)):
        return
    if np.isfinite(lower) and np.isfinite(upper):
        ends = ([lower, upper], [b, b]) if along == "x" else ([a, a], [lower, upper])
        ax.plot(*ends, color=color_on(ax, mark.color), lw=1.8, solid_capstyle="butt", zorder=2)
    ax.plot(a, b, **styled(ax, mark), zorder=3)


def styled(ax: Axes, mark: Mark, line: bool = False) -> dict[str, Any]:
    """Keywords of `plot` for a mark, or for a line with such marks."""
    color, face = color_on(ax, mark.color), tuple(_background(ax))
    size = points(ax) / 10
    look = {"color": color, "marker": mark.marker, "ms": (5.2 if mark.hollow else 6.2) * size}
    edges = {"mfc": face, "mec": color, "mew": 1.4 * size} if mark.hollow else {"mfc": color, "mec": face, "mew": 0.8}
    return {**look, **edges, "lw": 1.8, "ls": "-" if line else ""}


def key(ax: Axes, marks: Iterable[Mark], lines: Sequence[Any] = (), title: str = "") -> None:
    """A key above the axes, in the order of the marks, on as many lines as the width asks for; `title` stands on it."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [Line2D([], [], label=folded(m.label, 40), **styled(ax, m, line=True)) for m in marks]
    handles = [*lines, *handles]
    said = [max(map(len, str(h.get_label()).split("\n"))) + 6 for h in handles]
    room = _free(ax)
    columns = len(handles)
    while columns > 1:
        down = math.ceil(len(said) / columns)
        if sum(max(said[i : i + down]) for i in range(0, len(said), down)) <= room:
            break
        columns -= 1
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2,
        handlelength=1.8, columnspacing=1.2, fontsize=points(ax), labelcolor=[ink(ax)],
        title=folded(title, room) or None, alignment="left",
    )  # fmt: skip


def _free(ax: Axes) -> int:
    """How many letters fit above the axes, between the labels on their left and the words on their right."""
    left = [line for label in ax.get_yticklabels() for line in label.get_text().split("\n")]
    right = [line for text in ax.texts if text.get_gid() == "beside" for line in text.get_text().split("\n")]
    taken = max(map(len, left), default=0) + max(map(len, right), default=-2) + 2 + (5 if ax.get_ylabel() else 0)
    return max(letters(ax, 1.0) - taken - 2, 8)


# --- the last step of every picture ------------------------------------------------------------------------


def finish(ax: Axes) -> Axes:
    """Letters in the size and ink of this picture; where they do not fit, smaller ones, and then a warning.

    Returns
    -------
    Axes

    Warns
    -----
    UserWarning
        The figure is too small for its labels; the least size is named.
    """
    _lettered(ax, points(ax))
    size = points(ax)
    missing = _missing(ax)
    while max(missing) > 0 and size > LEAST_POINTS:
        size = max(0.85 * size, LEAST_POINTS)
        _lettered(ax, size)
        missing = _missing(ax)
    if max(missing) > 0:
        width, height = _enough(ax, missing)
        warnings.warn(
            f"the figure is too small for its labels; it takes {math.ceil(10 * width) / 10:g} x "
            f"{math.ceil(10 * height) / 10:g} inches", stacklevel=3,
        )  # fmt: skip
    return ax


@contextmanager
def saving() -> Iterator[None]:
    """While figures are saved: characters that their font lacks are said in one line, and not in one each."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield
    others = [w for w in heard if not str(w.message).startswith("Glyph ")]
    for w in others:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    if len(others) < len(heard):
        said = "the font of the pictures lacks characters of a name, and boxes stand for them"
        warnings.warn(f"{said}; font.family in a matplotlibrc file names another font", stacklevel=3)


def _enough(ax: Axes, missing: Any) -> Any:
    """The inches of a figure in which these labels fit: what is added moves the labels, so it is tried."""
    figure: Any = ax.get_figure(root=True)
    given = np.array(figure.get_size_inches())
    enough = given + missing
    for _ in range(5):
        figure.set_size_inches(np.ceil(10 * enough) / 10, forward=False)
        more = _missing(ax)
        if max(more) <= 0:
            break
        enough = np.ceil(10 * enough) / 10 + more
    figure.set_size_inches(given, forward=False)
    return enough


def _lettered(ax: Axes, size: float) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(size=size, color=ink(ax))
    ax.tick_params(axis="both", color=ink(ax, 0.75), labelcolor=ink(ax), labelsize=0.92 * size)
    for title in (ax.title, ax._left_title, ax._right_title):  # type: ignore[attr-defined]
        title.set(size=size, color=ink(ax))
    legend = ax.get_legend()
    said = [*legend.get_texts(), legend.get_title()] if legend else []
    for text in said:
        text.set_color(ink(ax))
    for text in [*ax.texts, *said]:
        if text.get_gid() != "cell":
            text.set_fontsize(0.92 * size)


def _missing(ax: Axes) -> Any:
    """The inches, across and down, that the texts of a picture lack."""
    figure = ax.get_figure(root=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a layout that does not work out, which is what is looked for
        figure.draw_without_rendering()  # type: ignore[union-attr]
        drawn = figure.get_tightbbox()  # type: ignore[union-attr]
    size = figure.get_size_inches()  # type: ignore[union-attr]
    across = max(-drawn.x0, 0) + max(drawn.x1 - size[0], 0)
    down = max(-drawn.y0, 0) + max(drawn.y1 - size[1], 0)
    inside = ax.get_window_extent().width / figure.dpi, ax.get_window_extent().height / figure.dpi  # type: ignore[union-attr]
    across += max(0.12 * width_of(ax) - inside[0], 0)
    pitch = sum(_heights(ax)) / 72 * 1.02
    down += max(pitch - inside[1], 0) if ax.yaxis_inverted() else 0
    return np.array([across if across > 0.02 else 0.0, down if down > 0.02 else 0.0])


def _heights(ax: Axes) -> list[float]:
    """Of the labels of the lanes, in points."""
    shown = [t for t in ax.get_yticklabels() if t.get_text()]
    return [1.2 * float(t.get_fontsize()) * (t.get_text().count("\n") + 1) for t in shown]
