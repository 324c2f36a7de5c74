"""Long work beside a live notebook: a thread, a bar, a Cancel button, and faults shown where they belong."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import ipywidgets

from ratekit.errors import InputError, WorkError, shorten
from ratekit.widgets.controls import block
from ratekit.widgets.progress import Cancelled, Progress

T = TypeVar("T")


class Worker(ipywidgets.VBox):
    """A bar and a Cancel button over one piece of work at a time; the notebook stays free meanwhile.

    worker.start(lambda progress: slow(progress), then=show, name="rewrite")

    A fault of the work is shown as its one line; `fault` keeps the exception itself.
    """

    def __init__(self) -> None:
        self.bar = ipywidgets.IntProgress(min=0, max=1, layout={"width": "180px"})
        self.stop = ipywidgets.Button(
            description="Cancel", tooltip="Stop; what is finished is kept", layout={"width": "80px"}
        )
        self.stop.on_click(lambda _: self.cancel())
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

        name       of the work, for the line beside the bar
        cancelled  what to say, besides, when it was cancelled
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
        inner = html.escape(words)
        self.said.value = block(f'<div class="rk-fault">{inner}</div>' if fault else inner, "rk-said") if words else ""

    def _run(
        self, work: Callable[[Progress], T], then: Callable[[T], Any], name: str, progress: Progress, cancelled: str
    ) -> None:
        try:
            then(work(progress))
        except Cancelled:
            self.say(f"{name}: cancelled{'; ' + cancelled if cancelled else ''}")
        except (InputError, WorkError) as e:
            self.fault = e
            self.say(f"{name}: {e}", fault=True)
        except Exception as e:
            self.fault = e
            self.say(f"{name} failed: {type(e).__name__}: {shorten(e, 200)}", fault=True)
        finally:
            self._line.layout.display = "none"

    def _show(self, name: str, done: int, total: int, words: str) -> None:
        self.bar.max, self.bar.value = max(total, 1), done
        more = f" · {words}" if words else ""
        self.doing.value = block(html.escape(f"{name} {done:,} of {total:,}{more}"))
