"""What `rk.diagnose` found, drawn: drift of the third rewrite, and balance of what should not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ratekit.conclusions import CHECK_RULES
from ratekit.errors import InputError
from ratekit.plots.names import cleaned, folded, names
from ratekit.plots.style import (
    SIDE_COLORS,
    TOP,
    axis_names,
    beside_lane,
    finish,
    ink,
    interval,
    key,
    lane_axes,
    largest,
    letters,
    need,
    some_of,
    tidy,
    zero,
)
from ratekit.recommendation import LEAST_EFFECT_SD

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def drift(checks: pd.DataFrame, *, top: int | None = TOP, ax: Axes | None = None) -> Axes:
    """How the third rewrite differs from the first, which were asked for the same: 0 if every pass does the same.

    Parameters
    ----------
    checks : DataFrame
        From `rk.diagnose`, of rows with three rewrites.
    top : int or None
        How many measures and reward models at most: those that drift most. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        One lane for each measure and reward model; bars are 95 % intervals. In the grey band the drift
        is too small for a verdict other than trust; the attribute's own measure is judged by the dose and has none.

    Raises
    ------
    InputError
        The table has no drift: two rewrites cannot show it.

    Examples
    --------
    >>> import ratekit as rk
    >>> ax = drift(rk.diagnose(rk.load("reviews", attribute="sentiment")))
    >>> " ".join(ax.get_xlabel().split())
    'third rewrite minus first (SDs of the originals); grey: small enough to trust'
    """
    return _moves(checks, "drift", "third rewrite minus first (SDs of the originals)", top, ax,
                  "no drift in the table: it takes three rewrites (depth=3) of responses that differ")  # fmt: skip


def balance(checks: pd.DataFrame, *, top: int | None = TOP, ax: Axes | None = None) -> Axes:
    """How the measures that should stay moved from the first rewrite to the second.

    Parameters
    ----------
    checks : DataFrame
        From `rk.diagnose`.
    top : int or None
        How many measures at most: those that moved most. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes
        Where the two classes move to opposite sides, the measure goes with the attribute (spillover); where they move
        to the same side, the rewriter is still at work. Bars are 95 % intervals; in the grey band the
        move is too small for a verdict other than trust.

    Raises
    ------
    InputError
        The table has no balance rows.

    Examples
    --------
    >>> import ratekit as rk
    >>> ax = balance(rk.diagnose(rk.load("reviews", attribute="sentiment")))
    >>> " ".join(ax.get_xlabel().split())
    'second rewrite minus first (SDs of the originals); grey: small enough to trust'
    """
    return _moves(checks, "balance", "second rewrite minus first (SDs of the originals)", top, ax,
                  "no balance in the table: it takes two rewrites (depth=2) of responses that differ")  # fmt: skip


def _moves(checks: pd.DataFrame, check: str, xlabel: str, top: int | None, ax: Axes | None, missing: str) -> Axes:
    need(checks, ("attribute", "check", "group", "about", "in_sd", "low", "high"), "rk.diagnose")
    rows = checks[(checks["check"] == check) & np.isfinite(checks["in_sd"].astype(float))]
    if rows.empty:
        raise InputError(missing)
    sizes = rows["in_sd"].abs().groupby([rows["attribute"], rows["about"]], sort=False).max()
    places = [sizes.index[i] for i in largest(list(sizes), top)]
    short = names(about for _, about in places)
    labels = [folded(_name(short[about]), letters(ax, 0.36)) for _, about in places]
    ax = lane_axes(ax, labels, 2, [attribute for attribute, _ in places])
    zero(ax)
    bands = [_band(check, str(about)) for _, about in places]
    for y, width in enumerate(bands):
        if width:
            ax.fill_betweenx([y - 0.4, y + 0.4], -width, width, color=ink(ax, 0.13), lw=0, zorder=0.5)
    for row in rows.itertuples():
        if (row.attribute, row.about) not in places:
            continue
        side = str(row.group).split(",")[0]
        lane = places.index((row.attribute, row.about)) + (-0.15 if side == "treated" else 0.15)
        interval(ax, row.in_sd, lane, row.low, row.high, SIDE_COLORS[side])
    for attribute in dict.fromkeys(attribute for attribute, _ in places):
        mine = [i for i, place in enumerate(places) if place[0] == attribute]
        beside_lane(ax, f"rewriting\n{names([attribute], 24)[attribute]}", sum(mine) / len(mine))
    tidy(ax)
    said = some_of(len(places), len(sizes))
    axis_names(ax, x=xlabel + said + ("; grey: small enough to trust" if any(bands) else ""))
    key(ax, [mark for side, mark in SIDE_COLORS.items() if rows["group"].str.split(",").str[0].eq(side).any()])
    return finish(ax)


def _name(about: str) -> str:
    if about == "own":
        return "the attribute's own measure"
    return f"reward {about.removeprefix('reward/')}" if about.startswith("reward/") else cleaned(about)


def _band(check: str, about: str) -> float:
    """What is fine whatever the effect, in SDs."""
    if about == "own":
        return 0.0
    if about.startswith("reward/"):
        return CHECK_RULES["drift"].fine[1] * LEAST_EFFECT_SD
    return CHECK_RULES["shift"].fine[1]
