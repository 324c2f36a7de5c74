"""`Explorer`: a dataset row by row."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from ratekit.escaping import visible
from ratekit.groups import rewards_of
from ratekit.measures import Measure
from ratekit.schema import ATTRIBUTE, RESPONSE, REWRITES, TREATED, columns_of
from ratekit.sources.loading import rows_for
from ratekit.widgets import explorer_html, explorer_rows
from ratekit.widgets.shared import StaticView, Worker, block, button, follow, menu, row, style, text, text_field

if TYPE_CHECKING:
    from datasets import Dataset

LISTED = 500  # rows in the list at once; filters reach all of them
SHARES = [("any", 1.0), ("largest half", 0.5), ("largest tenth", 0.1), ("largest 1 %", 0.01)]
UNMARKED = "no verdict"
_SIDES = {"treated": True, "untreated": False}
_MARKED = {"marked": True, "not marked": False}


class Explorer(StaticView):
    """Browse a dataset row by row: the rewrites with their differences marked, rewards, filters, and marks of your own.

    `marks` gives the marked rows as a Dataset with the columns row, verdict and note. Off-target changes are measured
    in the background; until they are there, the filter and the order by them show nothing of it.

    Parameters
    ----------
    ds
        whatever `rk.as_dataset` takes, after any stage; the more stages, the more there is to see
    measures
        {name: texts -> numbers} that the rewrites should leave alone, beside words, sentiment, readability and faults
        (as in `rk.diagnose`)

    Raises
    ------
    InputError
        Where there is no response.

    Examples
    --------
    >>> import ratekit as rk
    >>> explorer = Explorer(rk.score(rk.load("reviews"), "vader", progress=False))
    >>> explorer.mark(3, "something else changed", "mends the typos too")
    >>> explorer.marks["verdict"][:]
    ['something else changed']
    """

    def __init__(self, ds: Any, *, measures: Mapping[str, Measure] | None = None) -> None:
        self.ds = ds = rows_for("explore", ds, [RESPONSE])
        self.table = explorer_rows.facts(ds)
        self.off_target: explorer_rows.OffTarget | None = None
        self._marks: dict[int, tuple[str, str]] = {}
        self._lock = threading.RLock()
        self._showing = False
        self._ranges = explorer_html.reward_ranges(dict(rewards_of(ds)))
        self._make_controls()
        self.worker = Worker()
        super().__init__([
            style(explorer_html.EXPLORER_STYLE),
            row(self.attribute, self.side, self.status, self.mark_filter, self.search),
            row(self.reward_model, self.effect, self.off_target_filter, self.order, self.against),
            self.worker,
            self.count,
            ipywidgets.HBox(
                [ipywidgets.VBox([self.listed, ipywidgets.HBox([self.previous, self.next])]), self.page],
                layout={"flex_flow": "row wrap", "align_items": "flex-start"},
            ),
        ])  # fmt: skip
        self._refresh()
        if REWRITES in columns_of(ds) and {ATTRIBUTE, TREATED} <= set(columns_of(ds)):
            self.worker.start(
                lambda progress: explorer_rows.off_target_changes(ds, measures=measures, tick=progress),
                then=self._measured,
                name="measure off-target changes, rows",
                cancelled="nothing can be filtered or ordered by them",
            )

    def _make_controls(self) -> None:
        t = self.table
        self.attribute = menu("Attribute", [explorer_rows.ANY, *dict.fromkeys(t[ATTRIBUTE])])
        self.side = menu("Class", [explorer_rows.ANY, "treated", "untreated"])
        self.status = menu("Status", [explorer_rows.ANY, *dict.fromkeys(t["status"])])
        self.mark_filter = menu("Marks", [explorer_rows.ANY, "marked", "not marked"])
        self.search = text_field("Search", "words in prompt, response or rewrites", "320px", at_once=False)
        models = [c.removeprefix("effect/") for c in t if str(c).startswith("effect/")]
        self.reward_model = menu("Effect on", models or [("no reward yet", "")])
        self.effect = menu("Effect", SHARES)
        self.off_target_filter = menu("Off-target change", SHARES)
        self.order = menu("Order", [(words, name) for name, words in explorer_rows.ORDERS.items()])
        self.against = menu("Compare with", [(words, name) for name, words in explorer_html.AGAINST.items()])
        self.count = text()
        self.listed = ipywidgets.Select(
            rows=10, description="Rows", style={"description_width": "initial"}, layout={"width": "290px"}
        )
        # JupyterLab keeps the arrow keys to itself, so there are buttons for the keyboard too.
        self.previous = button("Previous", "Previous row of the list", lambda: self._go(-1), width="120px")
        self.next = button("Next", "Next row of the list", lambda: self._go(+1), width="120px")
        self.verdict = menu("Verdict", [UNMARKED, *explorer_rows.PERSON_VERDICTS])
        self.note = text_field("Note", "a note (Enter keeps it)", "320px", at_once=False)
        self.title, self.body = text(), text()
        self.page = ipywidgets.VBox(
            [self.title, row(self.verdict, self.note), self.body],
            layout={"flex": "1 1 440px", "min_width": "0", "margin": "0 0 0 8px"},
        )
        follow(
            lambda: self._refresh(chosen=True), self.attribute, self.side, self.status, self.mark_filter, self.search,
            self.reward_model, self.effect, self.off_target_filter, self.order,
        )  # fmt: skip
        follow(self._show, self.listed, self.against)
        follow(self._marked, self.verdict, self.note)

    # --- what others ask of it ---

    @property
    def marks(self) -> Dataset:
        """The marked rows as a Dataset: the data's columns, and row (place in the data), verdict and note."""
        return explorer_rows.marked(self.ds, self._marks)

    @property
    def places(self) -> list[int]:
        """The places in the data of the rows that the filters leave, in the order chosen."""
        return [int(i) for i in self._places]

    def mark(self, place: int, verdict: str, note: str = "") -> None:
        """Mark the row at `place`, as the Verdict menu does; the verdict "" takes the mark away."""
        with self._lock:
            if verdict or note:
                self._marks[place] = (verdict, note)
            else:
                self._marks.pop(place, None)
            self._refresh()

    def show(self, place: int) -> None:
        """Show the row at `place`, where the filters leave it."""
        if any(listed == place for _, listed in self.listed.options):
            self.listed.value = place

    def static(self) -> str:
        """The first rows, for where no kernel runs."""
        shown = [int(i) for i in self._places[:2]]
        pages = [f"<p><b>{explorer_html.title(r, i)}</b></p>{self._card(r, i)}" for i in shown if (r := self.ds_row(i))]
        return (
            f"<style>{explorer_html.EXPLORER_STYLE}</style><p>{len(self.table):,} rows, {len(shown)} shown. "
            "Run this cell in Jupyter to browse, filter and mark them.</p>" + "".join(pages)
        )

    def ds_row(self, place: int) -> dict[str, Any]:
        """The row at `place` as a dict."""
        found = self.ds.iloc[place].to_dict() if hasattr(self.ds, "iloc") else self.ds[place]
        return dict(found)

    # --- how it follows its controls ---

    def _refresh(self, chosen: bool = False) -> None:
        wanted = explorer_rows.Wanted(
            attribute=self.attribute.value, treated=_SIDES.get(self.side.value), status=self.status.value,
            reward_model=self.reward_model.value or "", effect=self.effect.value,
            off_target=self.off_target_filter.value, search=self.search.value,
            marked=_MARKED.get(self.mark_filter.value), order=self.order.value,
        )  # fmt: skip
        with self._lock:
            self._places = explorer_rows.choose(
                self.table, wanted, off_target=self.off_target, marks=self._marks, ds=self.ds
            )
            before = None if chosen else self.listed.value  # another choice of rows begins at its first
            options = [(self._line(int(i)), int(i)) for i in self._places[:LISTED]]
            self._showing = True
            self.listed.options = options
            if before is not None and any(place == before for _, place in options):
                self.listed.value = before
            elif options:
                self.listed.value = options[0][1]
            self._showing = False
        more = f", the first {LISTED} listed" if len(self._places) > LISTED else ""
        marks = f" · {len(self._marks)} marked" if self._marks else ""
        self.count.value = block(f"<b>{len(self._places):,}</b> of {len(self.table):,} rows{more}{marks}", "rk-count")
        self._show()

    def _line(self, place: int) -> str:
        """A row in the list: plain text, so no escaping, but nothing in it may hide."""
        facts_of = self.table.iloc[place]
        side = {True: "treated", False: "untreated"}.get(facts_of[TREATED], "")
        parts = [str(place), side]
        column = f"effect/{self.reward_model.value}"
        if column in self.table and np.isfinite(facts_of[column]):
            parts.append(f"{facts_of[column]:+.3g}")
        if facts_of["status"] not in ("ok", "not rewritten"):
            parts.append(visible(str(facts_of["status"])))
        parts.append(visible(str(facts_of[ATTRIBUTE]))[:24])  # last, where the list cuts off what is too long
        return ("✓ " if place in self._marks else "") + " · ".join(p for p in parts if p)

    def _show(self) -> None:
        if self._showing:
            return
        place = self.listed.value
        if place is None:
            self.title.value, self.body.value = "", block("no row is left: widen the filters", "rk-row")
            return
        found = self.ds_row(place)
        with self._lock:
            self._showing = True
            verdict, note = self._marks.get(place, ("", ""))
            self.verdict.value, self.note.value = verdict or UNMARKED, note
            self._showing = False
        self.title.value = block(f"<b>{explorer_html.title(found, place)}</b>", "rk-row-title")
        self.body.value = block(self._card(found, place), "rk-row")

    def _card(self, found: dict[str, Any], place: int) -> str:
        return explorer_html.row_html(
            found, against=self.against.value, ranges=self._ranges, off_target=self.off_target, place=place
        )

    def _go(self, by: int) -> None:
        listed = [place for _, place in self.listed.options]
        if self.listed.value in listed:
            self.listed.value = listed[max(0, min(len(listed) - 1, listed.index(self.listed.value) + by))]

    def _marked(self) -> None:
        if self._showing or self.listed.value is None:
            return
        verdict = "" if self.verdict.value == UNMARKED else self.verdict.value
        self.mark(self.listed.value, verdict, self.note.value.strip())

    def _measured(self, found: explorer_rows.OffTarget) -> None:
        self.off_target = found
        self._refresh()
