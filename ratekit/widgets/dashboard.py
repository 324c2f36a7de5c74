"""`EffectsDashboard`: the table of effects as a forest and as a heat map, down to the rows behind a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets

from ratekit.errors import InputError
from ratekit.escaping import as_html, escaped, visible
from ratekit.estimators import shown_unit
from ratekit.plots.style import ESTIMAND_LABELS, UNITS
from ratekit.widgets import dashboard_html
from ratekit.widgets.dashboard_html import ALL
from ratekit.widgets.shared import StaticView, block, embedded, follow, menu, row, style, text

if TYPE_CHECKING:
    import pandas as pd

    from ratekit.widgets.explorer import Explorer

NAIVE_TOO = ("naive", "single_rewrite", "rate")


class EffectsDashboard(StaticView):
    """Effects of all attributes on all reward models: forest, heat map, and the rows behind a number.

    A number is opened by its cell in the heat map (mouse, or Tab and Enter), or by choosing its attribute and reward
    model in the menus.

    Parameters
    ----------
    table
        what `rk.estimate` gives
    ds
        the scored rows that it was estimated from; with them a number opens on the responses behind it, the largest
        differences first

    Raises
    ------
    InputError
        Where the table is empty.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews"), "words", progress=False)
    >>> board = EffectsDashboard(rk.estimate(ds), ds)
    >>> board.show_rows("length", "words")
    >>> board.explorer.order.value, len(board.explorer.places)
    ('effect', 160)
    """

    def __init__(self, table: pd.DataFrame, ds: Any = None) -> None:
        columns = getattr(table, "columns", ())
        missing = [c for c in ("attribute", "reward_model", "estimator", "estimand", "estimate") if c not in columns]
        if missing:
            raise InputError(
                f"EffectsDashboard: a table of rk.estimate was expected; this has no column {missing[0]!r}"
            )
        if table.empty:
            raise InputError("the table of effects is empty")
        self.table, self.ds = table, ds
        self.explorer: Explorer | None = None
        self.attribute = menu("Attribute", [ALL, *table["attribute"].unique()])
        self.reward_model = menu("Reward model", [ALL, *table["reward_model"].unique()])
        self.estimand = menu("Effect on", [(words, name) for name, words in ESTIMAND_LABELS.items()])
        self.unit = menu("Unit", [(words, name) for name, words in UNITS.items()], shown_unit(table))
        known = dashboard_html.estimators_of(table)
        some = [name for name in NAIVE_TOO if name in {n for _, n in known}] or [known[0][1]]
        self.estimators = ipywidgets.SelectMultiple(
            options=known, value=some, description="Estimators", rows=len(known),
            style={"description_width": "initial"}, layout={"width": "260px"},
        )  # fmt: skip
        best = next((n for n in ("rate", "single_rewrite", "naive") if n in {n for _, n in known}), known[0][1])
        self.estimator = menu("Heat map of", known, best)
        self.title, self.picture, self.numbers = text(), text(), text()
        self.picture.layout = ipywidgets.Layout(flex="1 1 420px", min_width="0", max_width="780px")
        self.heat = ipywidgets.GridBox()
        self.rows = ipywidgets.VBox()
        follow(self._draw, self.attribute, self.reward_model, self.estimand, self.unit, self.estimators, self.estimator)
        super().__init__([
            style(_STYLE),
            row(self.attribute, self.reward_model, self.estimand, self.unit),
            self.title,
            ipywidgets.HBox([self.picture, self.estimators], layout={"flex_flow": "row wrap"}),
            row(self.estimator), self.heat, self.numbers, self.rows,
        ])  # fmt: skip
        self._draw()

    def show_rows(self, attribute: str, reward_model: str) -> None:
        """Show what stands behind one number, as a click on its cell does."""
        self.attribute.value, self.reward_model.value = attribute, reward_model

    def static(self) -> str:
        """The forest and its numbers, for where no kernel runs."""
        return (
            "<p>Effects of attributes on rewards. Run this cell in Jupyter for the menus.</p>"
            f"{self.title.value}{self.picture.value}{self._heat_html()}"
        )

    def _draw(self) -> None:
        rows = dashboard_html.select(self.table, self.attribute.value, self.reward_model.value)
        try:
            forest = dashboard_html.forest(
                rows, estimand=self.estimand.value, unit=self.unit.value, estimators=tuple(self.estimators.value)
            )
            self.picture.value, fault = embedded(forest, "Forest of effects"), ""
        except InputError as e:
            self.picture.value, fault = "", f": {e}"
        shown = f"Attribute: {self.attribute.value}; reward model: {self.reward_model.value}{fault}"
        self.title.value = block(f"<b>{escaped(shown)}</b>", "rk-shown")
        self._draw_heat()
        self._draw_rows()
        self.leave()

    def _cells(self) -> list[dashboard_html.Cell]:
        return dashboard_html.cells(
            self.table, estimator=self.estimator.value, estimand=self.estimand.value, unit=self.unit.value
        )

    def _draw_heat(self) -> None:
        models = list(dict.fromkeys(self.table["reward_model"]))
        children: list[ipywidgets.Widget] = [ipywidgets.HTML(), *(_head(name) for name in models)]
        for i, cell in enumerate(self._cells()):
            if i % len(models) == 0:
                children.append(_head(cell.label, left=True))
            button = ipywidgets.Button(
                description=cell.words, tooltip=visible(cell.tooltip), layout={"width": "auto", "height": "34px"},
                style={"button_color": cell.color, "text_color": cell.ink, "font_weight": "bold"},
            )  # fmt: skip
            button.on_click(lambda _, a=cell.attribute, m=cell.reward_model: self.show_rows(a, m))
            children.append(button)
        self.heat.children = children
        self.heat.layout = ipywidgets.Layout(
            grid_template_columns=f"minmax(90px, 150px) repeat({len(models)}, minmax(84px, 150px))", grid_gap="2px",
            max_width="100%", overflow="auto",
        )  # fmt: skip

    def _draw_rows(self) -> None:
        attribute, model = self.attribute.value, self.reward_model.value
        if ALL in (attribute, model):
            words = (
                "For what stands behind a number click it in the heat map, or choose its attribute and reward model."
            )
            self.numbers.value, self.rows.children = block(f"<p>{words}</p>", "rk-behind"), []
            return
        of = dashboard_html.select(self.table, attribute, model)
        title = f"<p><b>{as_html(attribute, 60)}, {as_html(model, 60)}</b></p>"
        hint = "" if self.ds is not None else "<p>EffectsDashboard(table, ds) also shows the responses behind it.</p>"
        numbers = dashboard_html.behind(of, estimand=self.estimand.value, unit=self.unit.value)
        self.numbers.value = block(title + numbers + hint, "rk-behind")
        if self.ds is None:
            return
        if self.explorer is None:
            from ratekit.widgets.explorer import Explorer

            self.explorer = Explorer(self.ds)
        explorer = self.explorer
        explorer.attribute.value = attribute
        if f"effect/{model}" in explorer.table:
            explorer.reward_model.value, explorer.order.value = model, "effect"
        explorer.side.value = {"att": "treated", "atu": "untreated"}.get(self.estimand.value, "any")
        self.rows.children = [explorer]

    def _heat_html(self) -> str:
        models = list(dict.fromkeys(self.table["reward_model"]))
        found = self._cells()
        lines = []
        for i in range(0, len(found), len(models)):
            cells = "".join(
                f'<td style="background:{c.color};color:{c.ink};padding:2px 10px">{c.words}</td>'
                for c in found[i : i + len(models)]
            )
            lines.append(f"<tr><th>{as_html(found[i].label, 60)}</th>{cells}</tr>")
        head = "".join(f"<th>{as_html(name, 60)}</th>" for name in models)
        return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


_STYLE = ".rk-headcell { font-weight: 600; overflow-wrap: anywhere; line-height: 1.25; padding-top: 6px; }"


def _head(name: str, left: bool = False) -> ipywidgets.HTML:
    align = "right" if left else "center"
    return ipywidgets.HTML(f'<div class="rk rk-headcell" style="text-align:{align}">{as_html(name, 60)}</div>')
