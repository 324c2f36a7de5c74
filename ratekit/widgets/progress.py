"""How long work tells how far it is, and learns that it is no longer wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Cancelled(Exception):
    """The user asked the work to stop."""


class Progress:
    """What the work is handed: call it with how far it is; it raises `Cancelled` once the user wants no more.

    Work that has to put things in order before it stops uses `show` and `cancelled` instead.
    """

    def __init__(self, show: Callable[[int, int, str], None]) -> None:
        self._show = show
        self._stop = threading.Event()
        self._shown = 0.0

    def __call__(self, done: int, total: int, words: str = "") -> None:
        """Show how far it is; raise `Cancelled` where the user wants no more."""
        if self._stop.is_set():
            raise Cancelled
        self.show(done, total, words)

    def show(self, done: int, total: int, words: str = "") -> None:
        """Show that `done` of `total` are done, ten times a second at most, and raise nothing."""
        if time.monotonic() - self._shown > 0.1 or done >= total:
            self._shown = time.monotonic()
            self._show(done, total, words)

    def cancel(self) -> None:
        """Have the next call raise `Cancelled`."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self._stop.is_set()
