"""Widgets: controls joined to a pure function. The only module that imports ipywidgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from ratekit import plots
from ratekit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

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
        self.picture = ipywidgets.Output()
        for menu in (self.attribute, self.reward_model, self.estimand, self.unit):
            menu.observe(self._draw, names="value")
        menus = ipywidgets.HBox(
            [self.attribute, self.reward_model, self.estimand, self.unit], layout={"flex_flow": "row wrap"}
        )
        super().__init__([menus, self.title, self.picture])
        self._draw()

    def _draw(self, change: object = None) -> None:
        import html

        import matplotlib.pyplot as plt
        from IPython.display import display

        rows = select(self.table, self.attribute.value, self.reward_model.value)
        self.title.value = (
            f"<b data-testid='rk-shown'>{html.escape(str(self.attribute.value))} attribute(s), "
            f"{html.escape(str(self.reward_model.value))} reward model(s)</b>"
        )
        with self.picture:
            self.picture.clear_output(wait=True)
            try:
                ax: Axes = plots.effects(rows, estimand=self.estimand.value, unit=self.unit.value)
            except InputError as e:
                print(e)
                return
            display(ax.figure)
        plt.close("all")


def _menu(description: str, options: Sequence[Any]) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        options=options, description=description, style={"description_width": "initial"}, layout={"width": "auto"}
    )
