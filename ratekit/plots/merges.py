"""What merging does to what reward models reward: accuracy, or an attribute's effect, a lane for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ratekit.plots.names import folded, names, plain
from ratekit.plots.style import (
    INK,
    MERGED,
    TOP,
    UNITS,
    Mark,
    axis_names,
    finish,
    ink,
    interval,
    key,
    lane_axes,
    largest,
    letters,
    need,
    only,
    tidy,
    zero,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

KINDS = {
    "member": Mark("member", INK, "o"),
    "base": Mark("base", INK, "s", hollow=True),
    "best_single": Mark("best single", INK, "^"),
    "ensemble": Mark("ensemble", MERGED, "D", hollow=True),
    "merge": Mark("merge", MERGED, "v"),
}
ACCURACY = "accuracy"


def panels(table: pd.DataFrame) -> list[str]:
    """What there is to draw of the audit of a merge: the accuracy where it is known, and each attribute."""
    found = [str(c).removesuffix("_se") for c in table.columns if str(c).endswith("_se") and " - " not in str(c)]
    found = [c for c in found if c not in (ACCURACY, "loss") and table[c].notna().any()]
    return [*([ACCURACY] if ACCURACY in table and table[ACCURACY].notna().any() else []), *found]


def merges(
    table: pd.DataFrame, about: str | None = None, *, unit: str = "sd", top: int | None = TOP, ax: Axes | None = None
) -> Axes:
    """The accuracy, or an attribute's effect, with its interval, a lane for each model; the members' range is shaded.

    Parameters
    ----------
    table : DataFrame
        As `rk.merging.audit` makes it.
    about : str, optional
        "accuracy" or an attribute; may be left out where there is one only.
    unit : {"sd", "reward"}
        In which its effects are.
    top : int or None
        How many lanes at most: of the merges those farthest from the members' mean. None draws all of them.
    ax : Axes, optional
        Drawn into; by default a new figure of fitting height.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        The table lacks a column, or it is not clear what is meant.

    Examples
    --------
    >>> ax = merges(table, "length")  # doctest: +SKIP
    """
    need(table, ("model", "kind", "barrier"), "rk.merging.audit")
    about = only("about", about, panels(table))
    rows = table[table["kind"] != "best_single"].reset_index(drop=True)
    members = rows.loc[rows["kind"] == "member", about]
    far = (rows[about] - members.mean()).abs().where(rows["kind"] == "merge", np.inf)
    n_rows, rows = len(rows), rows.iloc[largest(list(far), top)].reset_index(drop=True)
    short = names(rows["model"])
    barriers = [f" (barrier\u00a0{b:.3f})" if np.isfinite(b) else "" for b in rows["barrier"]]
    labels = [folded(f"{short[m]}{b}", letters(ax, 0.36)) for m, b in zip(rows["model"], barriers, strict=True)]
    ax = lane_axes(ax, labels, groups=[0] * len(rows))
    between = about != ACCURACY and members.nunique() > 1
    if between:
        ax.axvspan(members.min(), members.max(), color=ink(ax, 0.08), lw=3, zorder=0)  # seen where they are close
    if about != ACCURACY:
        zero(ax)
    for place, row in rows.iterrows():
        interval(ax, row[about], place, row[f"{about}_ci_low"], row[f"{about}_ci_high"], KINDS[row["kind"]])
    tidy(ax)
    estimand = next(iter(rows[f"{about}_estimand"].dropna()), "ate") if f"{about}_estimand" in rows else "ate"
    on = "" if estimand == "ate" else f"{estimand.upper()}, "
    said = f"; {len(rows)} of {n_rows} models" if len(rows) < n_rows else ""
    said += "; grey: between the members" if between else ""
    what = "accuracy on pairs" if about == ACCURACY else f"effect of {plain(about, 24)} ({on}{UNITS[unit]})"
    axis_names(ax, x=f"{what}{said}")
    key(ax, [mark for kind, mark in KINDS.items() if (rows["kind"] == kind).any()])
    return finish(ax)
