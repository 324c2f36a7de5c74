"""Widgets: controls joined to a pure function. The only module that imports ipywidgets."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from ratekit import plots
from ratekit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"


def select(table: pd.DataFrame, attribute: str = ALL, reward_model: str = ALL) -> pd.DataFrame:
    """The rows of an effects table for one attribute and one reward model, or all of them.

    >>> import pandas as pd
    >>> t = pd.DataFrame({"attribute": ["length", "sentiment"], "reward_model": ["a", "a"]})
    >>> select(t, attribute="length")["attribute"].tolist()
    ['length']
    """
    kept = table
    if attribute != ALL:
        kept = kept[kept["attribute"] == attribute]
    if reward_model != ALL:
        kept = kept[kept["reward_model"] == reward_model]
    return kept


class EffectsDashboard(ipywidgets.VBox):
    """Menus for attribute, reward model, estimand and unit over the forest of effects; the picture follows.

    >>> import ratekit as rk
    >>> table = rk.estimate(rk.score(rk.load("reviews"), "words", progress=False))
    >>> EffectsDashboard(table)  # doctest: +SKIP

    `table` is what `rk.estimate` gives. Raises InputError where it is empty.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        if table.empty:
            raise InputError("the table of effects is empty")
        self.table = table
        self.attribute = _menu("Attribute", [ALL, *table["attribute"].unique()])
        self.reward_model = _menu("Reward model", [ALL, *table["reward_model"].unique()])
        self.estimand = _menu(
            "Effect on", [("everyone (ATE)", "ate"), ("the treated (ATT)", "att"), ("the untreated (ATU)", "atu")]
        )
        self.unit = _menu("Unit", [("reward SDs", "sd"), ("reward units", "reward")])
        self.title = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "width": "760px"})
        for menu in (self.attribute, self.reward_model, self.estimand, self.unit):
            menu.observe(self._draw, names="value")
        menus = ipywidgets.HBox(
            [self.attribute, self.reward_model, self.estimand, self.unit], layout={"flex_flow": "row wrap"}
        )
        super().__init__([menus, self.title, self.picture])
        self._draw()

    def _draw(self, change: object = None) -> None:
        rows = select(self.table, self.attribute.value, self.reward_model.value)
        try:
            self.picture.value = picture(rows, estimand=self.estimand.value, unit=self.unit.value)
            fault = ""
        except InputError as e:
            self.picture.value, fault = b"", f": {e}"
        shown = f"Attribute: {self.attribute.value}; reward model: {self.reward_model.value}{fault}"
        self.title.value = f"<b data-testid='rk-shown'>{html.escape(shown)}</b>"


def picture(table: pd.DataFrame, *, estimand: str = "ate", unit: str = "sd") -> bytes:
    """The forest of effects as PNG bytes.

    Bytes in an image widget, not a figure in an output area: the same in every front end, and nothing races.
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    figure = plots.effects(table, estimand=estimand, unit=unit).figure
    assert isinstance(figure, Figure)
    plt.close(figure)  # before the notebook shows it a second time by itself
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    return png.getvalue()


def _menu(description: str, options: Sequence[Any]) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        options=options, description=description, style={"description_width": "initial"}, layout={"width": "auto"}
    )
