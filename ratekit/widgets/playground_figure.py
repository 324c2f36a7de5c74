"""The playground's picture, as SVG: two milliseconds a frame, where matplotlib takes a hundred; sharp at every size.

Left, each estimate with its interval beside the truth. Right, why: each class's mean reward after 0, 1, 2 and 3
rewrites, with some responses as dots; filled marks have the attribute, open ones do not. What an estimator compares
has that estimator's colour: the gap between the classes (naive), the step to the first rewrite (single rewrite), the
step from there to the second (RATE). Estimators and classes are told apart by shape and dashes as well as by colour.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ratekit.escaping import data_uri
from ratekit.estimators import Floats
from ratekit.plots import MARKS
from ratekit.plots.style import ESTIMAND_LABELS
from ratekit.widgets.playground_world import SHOWN_ESTIMATORS, Played, misses

DOTS = 60  # responses of a class that are drawn one by one
LIMITS = (-0.5, 1.75)  # of the estimates' axis at least, so that a slider moves the points and not the axis
HEIGHT, TOP, BOTTOM = 330, 46, 286
INK, FAINT, GRID = "#1a1a1a", "#6a6a6a", "#e4e4e4"
_JITTER = np.random.default_rng(1).uniform(-9, 9, DOTS)  # the same each time: no flicker from frame to frame


def draw(played: Played, estimand: str = "ate") -> str:
    """The two pictures side by side, or one below the other where the page is narrow.

    Examples
    --------
    >>> from ratekit.widgets.playground_world import Scene, play
    >>> draw(play(Scene())).count("<svg")
    2
    """
    both = "".join(picture.svg for picture in (_estimates(played, estimand), _why(played)))
    layout = "display:flex;flex-wrap:wrap;gap:6px 10px;max-width:1000px"
    return f'<div style="{layout}" data-testid="rk-picture">{both}</div>'


def images(played: Played, estimand: str = "ate") -> str:
    """The same as images with the drawing inside: a page that trusts no drawing in its text still shows these."""
    shown = []
    for picture in (_estimates(played, estimand), _why(played)):
        name, source = html.escape(picture.alt), data_uri("image/svg+xml", picture.svg.encode())
        shown.append(f'<img alt="{name}" width="{picture.width}" src="{source}">')
    return " ".join(shown)


class _Drawing(NamedTuple):
    alt: str
    width: int
    svg: str


def place(value: float, low: float, high: float, start: float, end: float) -> float:
    """Where a value stands on an axis from `low` at `start` to `high` at `end`, in pixels.

    Examples
    --------
    >>> place(0.5, 0.0, 2.0, 100.0, 300.0)
    150.0
    """
    return start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers within the limits, about as many as wanted.

    Examples
    --------
    >>> ticks(-0.5, 1.75)
    [-0.5, 0.0, 0.5, 1.0, 1.5]
    """
    step = (high - low) / about
    scale = 10.0 ** np.floor(np.log10(step))
    step = min((m * scale for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - step) + (s < step) * s)
    first = int(np.ceil(low / step - 1e-9))
    return [round(float(k * step), 10) + 0.0 for k in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _estimates(played: Played, estimand: str) -> _Drawing:
    left, right, width = 132, 428, 440
    truth = played.truth[estimand]
    found = {name: e for name in SHOWN_ESTIMATORS if (e := played.estimate(name, estimand)) is not None}
    ends = [x for e in found.values() for x in (e.ci_low, e.ci_high) if np.isfinite(x)]
    low, high = min([*LIMITS, truth, *ends]), max([*LIMITS, truth, *ends])

    def x(value: float) -> float:
        return place(value, low, high, left, right)

    parts = []
    for tick in ticks(low, high):
        parts.append(_line(x(tick), TOP, x(tick), BOTTOM, GRID))
        parts.append(_text(x(tick), BOTTOM + 16, f"{tick:g}", "middle", FAINT))
    parts.append(_line(left, BOTTOM, right, BOTTOM, FAINT))
    parts.append(_line(x(truth), TOP - 4, x(truth), BOTTOM, INK, 1.6, "6 4"))
    parts.append(_text(x(truth), TOP - 10, f"true effect {truth:+.2f}", "middle", INK, bold=True))
    said = []
    for i, (name, e) in enumerate(found.items()):
        y = TOP + 32 + i * (BOTTOM - TOP - 52) / (len(SHOWN_ESTIMATORS) - 1)
        mark = MARKS[name]
        parts.append(f'<g class="rk-{name}" data-estimate="{e.estimate:.6f}">')
        first, *rest = mark.label.split(", ")
        if name == "naive" and estimand != "ate":
            rest = ["(of everyone)"]
        parts.append(_text(left - 10, y + (4 if not rest else -2), first, "end", INK))
        parts += [_text(left - 10, y + 12, word, "end", FAINT) for word in rest]
        if np.isfinite(e.ci_low):
            parts.append(_line(x(e.ci_low), y, x(e.ci_high), y, mark.color, 4))
        fill, edge = ("#fff", mark.color) if mark.hollow else (mark.color, "#fff")
        parts.append(_mark(mark.marker, x(e.estimate), y, fill, edge=edge))
        missed = misses(played, name, estimand)
        parts.append(_text(x(e.estimate), y - 12, f"{e.estimate:+.2f}{' misses' if missed else ''}", "middle", INK))
        parts.append("</g>")
        said.append(f"{mark.label} {e.estimate:+.2f}, {'misses' if missed else 'covers'} the truth")
    parts.append(
        _text((left + right) / 2, HEIGHT - 8, f"estimated effect on {ESTIMAND_LABELS[estimand]}", "middle", INK)
    )
    alt = f"Estimates beside the true effect of {truth:+.2f}: {'; '.join(said)}."
    return _svg(width, alt, parts)


def _why(played: Played) -> _Drawing:
    left, right, width = 62, 542, 546
    r, w = played.sample.rewards, played.sample.treated
    means: dict[bool, Floats] = {side: r[w == side].mean(axis=0) for side in (True, False) if (w == side).any()}
    low, high = np.quantile(r, (0.05, 0.95))
    low, high = min(low, *(m.min() for m in means.values())), max(high, *(m.max() for m in means.values()))
    low, high = float(low - 0.06 * (high - low)), float(high + 0.06 * (high - low))
    at = [left + 96 + k * 120 for k in range(r.shape[1])]
    steps = [MARKS[name] for name in ("single_rewrite", "rate", "rate_late")]

    def y(value: float) -> float:
        return place(value, low, high, BOTTOM, TOP + 8)

    parts = []
    for tick in ticks(low, high):
        parts.append(_line(left, y(tick), right, y(tick), GRID))
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:g}", "end", FAINT))
    for side in means:
        rows = r[w == side][:DOTS]
        shift = 15 if side else -15
        for k, x in enumerate(at):
            for value, jitter in zip(rows[:, k], _JITTER, strict=False):
                if low < value < high:
                    parts.append(
                        f'<circle cx="{x + shift + jitter:.1f}" cy="{y(value):.1f}" r="1.6" fill="#8c8c8c" '
                        'fill-opacity=".5"/>'
                    )
    if len(means) == 2:
        parts.append(_line(at[0], y(means[False][0]), at[0], y(means[True][0]), MARKS["naive"].color, 5))
    for side, mean in means.items():
        for k in range(1, len(at)):
            dashes = "" if side else "9 4"
            parts.append(_line(at[k - 1], y(mean[k - 1]), at[k], y(mean[k]), steps[k - 1].color, 3.2, dashes))
        for k, x in enumerate(at):
            has = side == (k % 2 == 0)
            shape = _mark("o" if side else "s", x, y(mean[k]), INK if has else "#fff", 5.5, INK)
            parts.append(f'<g data-side="{int(side)}" data-pass="{k}" data-mean="{mean[k]:.6f}">{shape}</g>')
    parts += [_text(at[0] - 30, height + 4, name, "end", INK, bold=True) for name, height in _names(means, y)]
    for k, mark in enumerate(steps):
        label = mark.label.replace("RATE, late pair", "late pair")
        parts.append(_text((at[k] + at[k + 1]) / 2, TOP - 10, label, "middle", _dark(mark.color), bold=True))
    parts.append(_text(at[0] + 10, TOP - 10, "naive", "end", "#666", bold=True))
    names = (["response"], ["rewrite"], ["rewrite of", "the rewrite"], ["third", "rewrite"])
    for x, lines in zip(at, names, strict=True):
        parts += [_text(x, BOTTOM + 16 + 14 * i, line, "middle", INK) for i, line in enumerate(lines)]
    parts.append(
        f'<text transform="translate(16 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle" fill="{INK}">'
        "mean reward (filled: has the attribute)</text>"
    )
    said = "; ".join(f"{'treated' if s else 'untreated'} {', '.join(f'{v:+.2f}' for v in m)}" for s, m in means.items())
    return _svg(width, f"Mean rewards of the responses and of their first, second and third rewrites: {said}.", parts)


def _names(means: dict[bool, Floats], y: Callable[[float], float]) -> list[tuple[str, float]]:
    """The classes' names and how high each stands: beside its first mean, but never one over the other."""
    heights = {side: y(mean[0]) for side, mean in means.items()}
    if len(heights) == 2 and abs(heights[True] - heights[False]) < 15:
        middle, up = (heights[True] + heights[False]) / 2, heights[True] <= heights[False]
        heights = {True: middle + (-8 if up else 8), False: middle + (8 if up else -8)}
    return [("treated" if side else "untreated", height) for side, height in heights.items()]


def _dark(color: str) -> str:
    """A darker shade of the light blue and the orange, which as small text would be too pale on white."""
    return {"#56B4E9": "#2a7fb0", "#E69F00": "#a86f00"}.get(color, color)


# --- shapes ------------------------------------------------------------------------------------------------


_HALO = ' stroke="#fff" stroke-width="5" paint-order="stroke"'  # so that no line runs through a word


def _svg(width: int, alt: str, parts: Sequence[str]) -> _Drawing:
    name = html.escape(alt)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" viewBox="0 0 {width} {HEIGHT}" '
        f'style="flex:1 1 {round(0.85 * width)}px;max-width:{width}px;min-width:0;font:12px system-ui,sans-serif">'
        f'<title>{name}</title><rect width="{width}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>'
    )
    return _Drawing(alt, width, svg)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"{dashed}/>'


def _text(x: float, y: float, words: str, anchor: str, color: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} fill="{color}"{weight}{_HALO}>{html.escape(words)}</text>'


def _mark(shape: str, x: float, y: float, fill: str, size: float = 6.5, edge: str = "#fff") -> str:
    style = f'fill="{fill}" stroke="{edge}" stroke-width="1.4"'
    if shape == "o":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {style}/>'
    points: dict[str, Callable[[float], list[tuple[float, float]]]] = {
        "s": lambda a: [(-a, -a), (a, -a), (a, a), (-a, a)],
        "D": lambda a: [(0, -1.3 * a), (1.3 * a, 0), (0, 1.3 * a), (-1.3 * a, 0)],
        "^": lambda a: [(0, -1.2 * a), (1.1 * a, 0.9 * a), (-1.1 * a, 0.9 * a)],
        "v": lambda a: [(0, 1.2 * a), (1.1 * a, -0.9 * a), (-1.1 * a, -0.9 * a)],
    }
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[shape](0.92 * size))
    return f'<polygon points="{corners}" {style}/>'
