"""What every widget is made of: menus, a style for text, what is left without a kernel, and work in a thread.

The worker does long work beside a live notebook, under a bar with a Cancel button; faults are shown where they belong.
"""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ipywidgets

from ratekit.errors import InputError, WorkError, shorten
from ratekit.escaping import data_uri, escaped, visible
from ratekit.widgets.progress import Cancelled, Progress

T = TypeVar("T")


class Heard(logging.Handler):
    """What ratekit's log says meanwhile, each line once and not on stderr: `with Heard() as lines: ...`."""

    def __enter__(self) -> dict[str, None]:
        self.lines: dict[str, None] = {}
        log = logging.getLogger("ratekit")
        self.others, log.handlers[:] = log.handlers[:], [self]
        return self.lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger("ratekit").handlers[:] = self.others

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines[record.getMessage()] = None


# Colours are the page's own (`inherit`, translucent greys), so that light and dark themes both read well.
_STYLE = """
.rk { line-height: 1.45; font-size: 13px; color: var(--jp-ui-font-color1, inherit); overflow-wrap: anywhere; }
.rk b, .rk strong { font-weight: 600; }
.rk p { margin: 0 0 6px; }
.rk table { border-collapse: collapse; margin: 4px 0; font-size: 12.5px; overflow-wrap: normal; }
.rk th, .rk td { padding: 2px 10px 2px 0; text-align: right; font-variant-numeric: tabular-nums; vertical-align: top; }
.rk th { font-weight: 600; } .rk :is(th, td):first-child { text-align: left; }
.rk thead th { border-bottom: 1px solid rgba(127,127,127,.45); }
.rk-faint { opacity: .72; }
.rk-fault { border-left: 4px solid #D55E00; padding: 2px 8px; margin: 4px 0; }
.rk-wide { overflow-x: auto; }
.rk .rk-texts th, .rk .rk-texts td { text-align: left; } .rk .rk-texts td:first-child { min-width: 15em; }
:is([data-jp-theme-light="false"], .vscode-dark) :is(.rk-live, .rk-still) :is(img, svg) {
  filter: invert(.9) hue-rotate(180deg) brightness(1.25); }
div.rk pre { font-family: var(--jp-code-font-family, monospace); white-space: pre-wrap; }
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


def text_field(description: str, example: str, width: str, *, at_once: bool = True) -> ipywidgets.Text:
    """A line to type into; its value follows each letter (`at_once`), or Enter and leaving it."""
    return ipywidgets.Text(
        placeholder=example, description=description, continuous_update=at_once,
        style={"description_width": "initial"}, layout={"width": width, "max_width": "100%"},
    )  # fmt: skip


def button(name: str, tooltip: str, press: Callable[[], Any], *, width: str = "148px", primary: bool = False) -> Any:
    """A button that calls `press`."""
    look = "primary" if primary else ""
    made = ipywidgets.Button(description=name, tooltip=tooltip, button_style=look, layout={"width": width})
    made.on_click(lambda _: press())
    return made


def follow(do: Callable[[], Any], *controls: ipywidgets.Widget) -> None:
    """Call `do` whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(lambda _: do(), names="value")


def block(inner: str = "", test_id: str = "") -> str:
    """HTML in the widgets' style, findable by `test_id`."""
    found = f' data-testid="{test_id}"' if test_id else ""
    return f'<div class="rk"{found}>{inner}</div>'


def text(inner: str = "") -> ipywidgets.HTML:
    """A widget that shows HTML over the whole width."""
    return ipywidgets.HTML(inner, layout={"width": "100%", "margin": "2px 0"})


def style(*more: str) -> ipywidgets.HTML:
    """The style sheet of a widget, as a widget without height."""
    return ipywidgets.HTML(f"<style>{_STYLE}{''.join(more)}</style>", layout={"display": "none"})


def embedded(png: bytes, alt: str) -> str:
    """A picture as HTML that needs no other file."""
    source = data_uri("image/png", png)
    return f'<img alt="{html.escape(alt)}" style="width:760px;max-width:100%" src="{source}">'


# Where the live view stands, what is kept for pages without a kernel is hidden; where it does not, the reverse holds.
_HIDDEN = """
.jp-OutputArea-child:has(.rk-still):has(+ .jp-OutputArea-child .rk-live) { display: none; }
.jp-OutputArea-child:has(.rk-still) + .jp-OutputArea-child:not(:has(.rk-live)) { display: none; }
"""
_LIVE = """
.rk-live :focus-visible, .rk-live .noUi-handle:focus { outline: 2px solid #0072B2 !important; outline-offset: 1px; }
.rk-gone { display: none; }
.rk-live.jupyter-widgets-disconnected > .rk-gone { display: block; }
.rk-live .rk-live > .rk-gone { display: none !important; }
.rk-live.jupyter-widgets-disconnected > :not(.rk-gone) { opacity: .5; pointer-events: none; }
.rk-live.jupyter-widgets-disconnected::before, .rk-live .jupyter-widgets-disconnected::before { display: none; }
"""
VIEW = "application/vnd.jupyter.widget-view+json"


class StaticView(ipywidgets.VBox):
    """A widget that leaves HTML for where no kernel runs: an exported page, a repository's preview, a closed notebook.

    Parameters
    ----------
    children : sequence of Widget
        What it is made of.

    Notes
    -----
    A cell's output holds the HTML and, after it, the live view. Which of the two is seen is not left to the front end's
    choice among the forms of one output: the live view's own style hides the HTML, so the HTML is there wherever that
    view is not. After a kernel was restarted, the view says that its cell has to be run again.
    """

    def __init__(self, children: Sequence[ipywidgets.Widget]) -> None:
        gone = ipywidgets.HTML(block('<div class="rk-fault" role="status"><b>The kernel that answered here is gone: '
                                     "run this cell again.</b></div>", "rk-gone"))  # fmt: skip
        gone.add_class("rk-gone")
        hiding = ipywidgets.HTML(layout={"display": "none"})
        super().__init__([hiding, gone, *children])
        self.add_class("rk-live")
        hiding.value = f"<style>{_LIVE}.rk-still-{self.model_id} {{ display: none; }}</style>"
        self._left: Any = None

    def static(self) -> str:
        """What is seen without a kernel."""
        raise NotImplementedError

    def leave(self) -> None:
        """Renew what the cell's output keeps for pages without a kernel."""
        if self._left is not None:
            self._left.update(self._still(), raw=True)

    def _still(self) -> dict[str, str]:
        inner = f"<style>{_STYLE}{_HIDDEN}</style>{block(self.static())}"
        return {
            "text/html": f'<div class="rk-still rk-still-{self.model_id}">{inner}</div>',
            "text/plain": f"{type(self).__name__}: what it showed is kept as HTML",
        }

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self._left = display(self._still(), raw=True, display_id=True)
        said = f"{type(self).__name__}: run this cell in Jupyter to use it"
        display({**super()._repr_mimebundle_(), "text/plain": said}, raw=True)


class Worker(ipywidgets.VBox):
    """A bar and a Cancel button over one piece of work at a time; the notebook stays free meanwhile.

    worker.start(lambda progress: slow(progress), then=show, name="rewrite")

    A fault of the work is shown as its one line; `fault` keeps the exception itself.
    """

    def __init__(self) -> None:
        self.bar = ipywidgets.IntProgress(min=0, max=1, layout={"width": "180px"})
        self.stop = button("Cancel", "Stop; what is finished is kept", self.cancel, width="80px")
        self.doing = ipywidgets.HTML()
        self.said = ipywidgets.HTML(layout={"width": "100%"})
        self.fault: BaseException | None = None
        self._progress: Progress | None = None
        self._thread: threading.Thread | None = None
        self._line = ipywidgets.HBox(
            [self.bar, self.stop, self.doing], layout={"display": "none", "align_items": "center"}
        )
        super().__init__([self._line, self.said])

    @property
    def busy(self) -> bool:
        """Is work under way?"""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[Progress], T], then: Callable[[T], Any], name: str, *, cancelled: str = "") -> bool:
        """Do `work` in a thread and hand its result to `then`; False where other work is still under way.

        Parameters
        ----------
        name
            of the work, for the line beside the bar
        cancelled
            what to say, besides, when it was cancelled
        """
        if self.busy:
            self.say(f"{name}: wait for the work under way, or cancel it")
            return False
        progress = Progress(lambda done, total, words: self._show(name, done, total, words))
        self._progress, self.fault = progress, None
        self.say("")
        self._show(name, 0, 1, "")
        self._line.layout.display = "flex"
        self._thread = threading.Thread(target=self._run, args=(work, then, name, progress, cancelled), daemon=True)
        self._thread.start()
        return True

    def cancel(self) -> None:
        """Ask the work under way to stop at the next step."""
        if self._progress is not None and self.busy:
            self._progress.cancel()
            self.doing.value = block("stopping after the step under way ...")

    def wait(self, timeout: float | None = None) -> None:
        """Block until the work is done; raises its fault, if any. For scripts and tests: a notebook need not wait."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self.fault is not None:
            raise self.fault

    def say(self, words: str, *, fault: bool = False) -> None:
        """One line below the bar; `words` may hold anything, it is escaped."""
        inner = escaped(words)
        self.said.value = block(f'<div class="rk-fault">{inner}</div>' if fault else inner, "rk-said") if words else ""

    def fail(self, fault: BaseException, words: str) -> None:
        """Keep a fault and say it."""
        self.fault = fault
        self.say(words, fault=True)

    def _run(
        self, work: Callable[[Progress], T], then: Callable[[T], Any], name: str, progress: Progress, cancelled: str
    ) -> None:
        try:
            then(work(progress))
        except Cancelled:
            self.say(f"{name}: cancelled{'; ' + cancelled if cancelled else ''}")
        except (InputError, WorkError) as e:
            self.fail(e, f"{name}: {e}")
        except Exception as e:
            self.fail(e, f"{name} failed: {type(e).__name__}: {shorten(e, 200)}")
        finally:
            self._line.layout.display = "none"

    def _show(self, name: str, done: int, total: int, words: str) -> None:
        self.bar.max, self.bar.value = max(total, 1), done
        more = f" · {words}" if words else ""
        self.doing.value = block(escaped(f"{name} {done:,} of {total:,}{more}"))
