"""What `rk.diagnose` found, drawn: drift of the third rewrite, and balance of what should not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ratekit.diagnostics.verdicts import LEAST_EFFECT_SD, RULES
from ratekit.errors import InputError
from ratekit.plots.look import BLUE, ORANGE, Mark, canvas, interval, key, lanes, need, plain, tidy, zero

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SIDES = {"treated": Mark("treated responses", BLUE, "o"), "untreated": Mark("untreated responses", ORANGE, "D")}


def drift(checks: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How the third rewrite differs from the first, which were asked for the same: 0 if every pass does the same.

    >>> import ratekit as rk
    >>> ax = drift(rk.diagnose(rk.load("reviews", attribute="sentiment")))
    >>> ax.get_xlabel()
    'third rewrite minus first (SDs of the originals)'

    checks  what `rk.diagnose` gives, of rows with three rewrites
    ax      drawn into; by default a new figure of fitting height

    One lane for each measure and reward model. Bars reach two standard errors each way. In the grey band the drift is
    too small for a verdict other than trust; the attribute's own measure is judged by the dose and has none.
    Raises InputError where the table has no drift: two rewrites cannot show it.
    """
    return _moves(checks, "drift", "third rewrite minus first (SDs of the originals)", ax,
                  "no drift in the table: it takes three rewrites (depth=3)")  # fmt: skip


def balance(checks: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How the measures that should stay moved from the first rewrite to the second.

    >>> import ratekit as rk
    >>> ax = balance(rk.diagnose(rk.load("reviews", attribute="sentiment")))
    >>> ax.get_xlabel()
    'second rewrite minus first (SDs of the originals)'

    checks  what `rk.diagnose` gives
    ax      drawn into; by default a new figure of fitting height

    Where the two classes move to opposite sides, the measure goes with the attribute (spillover); where they move to
    the same side, the rewriter is still at work. Bars reach two standard errors each way; in the grey band the move is
    too small for a verdict other than trust. Raises InputError where the table has no balance rows.
    """
    return _moves(checks, "balance", "second rewrite minus first (SDs of the originals)", ax,
                  "no balance in the table: it takes two rewrites (depth=2)")  # fmt: skip


def _moves(checks: pd.DataFrame, check: str, xlabel: str, ax: Axes | None, missing: str) -> Axes:
    need(checks, ("attribute", "check", "group", "about", "value", "in_sd", "se"), "rk.diagnose")
    rows = checks[(checks["check"] == check) & np.isfinite(checks["in_sd"].astype(float))]
    if rows.empty:
        raise InputError(missing)
    places = list(dict.fromkeys(zip(rows["attribute"], rows["about"], strict=True)))
    ax = canvas(ax, 7.2, 1.2 + 0.36 * len(places))
    lanes(ax, [_name(about) for _, about in places], [attribute for attribute, _ in places])
    zero(ax)
    for y, (_, about) in enumerate(places):
        width = _band(check, str(about))
        if width:
            ax.fill_betweenx([y - 0.4, y + 0.4], -width, width, color="0.87", lw=0, zorder=0.5)
    for row in rows.itertuples():
        side = str(row.group).split(",")[0]
        lane = places.index((row.attribute, row.about)) + (-0.15 if side == "treated" else 0.15)
        reach = abs(2 * row.se * row.in_sd / row.value) if row.value else float("nan")
        interval(ax, row.in_sd, lane, row.in_sd - reach, row.in_sd + reach, SIDES[side])
    for attribute in dict.fromkeys(attribute for attribute, _ in places):
        mine = [i for i, place in enumerate(places) if place[0] == attribute]
        ax.annotate(f"rewriting\n{plain(attribute, 24)}", (1.0, sum(mine) / len(mine)), xytext=(8, 0), color="0.3",
                    xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=9,
                    annotation_clip=False)  # fmt: skip
    tidy(ax)
    ax.set_xlabel(xlabel)
    key(ax, [mark for side, mark in SIDES.items() if rows["group"].str.split(",").str[0].eq(side).any()])
    return ax


def _name(about: object) -> str:
    text = str(about)
    if text == "own":
        return "the attribute's own measure"
    return plain(f"reward {text.removeprefix('reward/')}" if text.startswith("reward/") else text)


def _band(check: str, about: str) -> float:
    """What is fine whatever the effect, in SDs."""
    if about == "own":
        return 0.0
    if about.startswith("reward/"):
        return RULES["drift"].fine[1] * LEAST_EFFECT_SD
    return RULES["shift"].fine[1]
