"""What every widget is made of: menus that fit their words, a style for text, and a picture for when no kernel runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import ipywidgets

from ratekit.escaping import visible

# Colours are the page's own (`inherit`, translucent greys), so that light and dark themes both read well.
STYLE = """
.rk { line-height: 1.45; font-size: 13px; color: var(--jp-ui-font-color1, inherit); overflow-wrap: anywhere; }
.rk b, .rk strong { font-weight: 600; }
.rk p { margin: 0 0 6px; }
.rk table { border-collapse: collapse; margin: 4px 0; font-size: 12.5px; overflow-wrap: normal; }
.rk th, .rk td { padding: 2px 10px 2px 0; text-align: right; font-variant-numeric: tabular-nums; vertical-align: top; }
.rk th { font-weight: 600; } .rk th.rk-name, .rk td.rk-name { text-align: left; }
.rk thead th { border-bottom: 1px solid rgba(127,127,127,.45); }
.rk-faint { opacity: .72; }
.rk-fault { border-left: 4px solid #D55E00; padding: 2px 8px; margin: 4px 0; }
.rk-wide { overflow-x: auto; }
"""


def menu(description: str, options: Sequence[Any], value: Any = None, *, width: str = "auto") -> ipywidgets.Dropdown:
    """A drop-down menu whose label is not cut off, and in whose options nothing hides."""
    given = {} if value is None else {"value": value}
    options = [(visible(option), option) if isinstance(option, str) else option for option in options]
    return ipywidgets.Dropdown(
        options=options, description=description, style={"description_width": "initial"},
        layout={"width": width, "max_width": "100%"}, **given,
    )  # fmt: skip


def row(*children: ipywidgets.Widget) -> ipywidgets.HBox:
    """Controls side by side that go on in a new line where the page is narrow."""
    return ipywidgets.HBox(children, layout={"flex_flow": "row wrap", "align_items": "center"})


def block(html: str = "", test_id: str = "") -> str:
    """HTML in the widgets' style, findable by `test_id`."""
    found = f' data-testid="{test_id}"' if test_id else ""
    return f'<div class="rk"{found}>{html}</div>'


def text(html: str = "") -> ipywidgets.HTML:
    """A widget that shows HTML over the whole width."""
    return ipywidgets.HTML(html, layout={"width": "100%", "margin": "2px 0"})


def style(*more: str) -> ipywidgets.HTML:
    """The style sheet of a widget, as a widget without height."""
    return ipywidgets.HTML(f"<style>{STYLE}{''.join(more)}</style>", layout={"display": "none"})


def picture(width: str = "760px") -> ipywidgets.Image:
    """A place for PNG bytes: an image widget is the same in every front end, and nothing is clipped or races."""
    return ipywidgets.Image(format="png", layout={"max_width": "100%", "width": width})  # a tooltip breaks its view


def embedded(png: bytes, alt: str) -> str:
    """A picture as HTML that needs no other file."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}">'


class StaticView(ipywidgets.VBox):
    """A widget that leaves HTML for where no kernel runs: an exported page, a repository's preview, a closed notebook.

    Front ends with a kernel take the widget itself; the others take `text/html`. `static` gives that HTML.
    """

    def static(self) -> str:
        """What is seen without a kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        bundle["text/html"] = f"<style>{STYLE}</style>{block(self.static())}"
        bundle["text/plain"] = f"{type(self).__name__}: run this cell in Jupyter to use it"
        return bundle
