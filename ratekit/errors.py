"""The two faults that ratekit expects, told apart by who can mend them.

`InputError`: the call or the data given is wrong; nothing was begun (the command exits with 2).
`WorkError`: the call was right and the work failed on the way; what was finished is kept (exit 1).
Each message says what was wrong, where, and what to do, on one line.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import signal
import threading
from collections.abc import Collection, Iterable, Iterator
from numbers import Integral
from typing import cast

from ratekit.redaction import redact


class InputError(ValueError):
    """The call, or the data handed to it, is wrong. Its message holds no key and no password of an address."""

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(message))


class WorkError(RuntimeError):
    """The work failed half-way; everything finished before is kept. No key and no password is in its message."""

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(message))


class NoRewriteError(WorkError):
    """A rewriter was asked and gave no rewrite that could be used."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): as Ctrl-C, what is under way is brought to an end first."""


@contextlib.contextmanager
def terminable() -> Iterator[threading.Event]:
    """In it SIGTERM ends the work as Ctrl-C does, unless the program has a handler of its own; the event says so."""
    terminated = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield terminated
        return

    def terminate(number: int, frame: object) -> None:
        terminated.set()
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def require_whole(name: str, value: object, least: int = 0, most: int | None = None, why: str = "") -> None:
    """Raise `InputError` where a count or a seed is no whole number from `least` (to `most`).

    Examples
    --------
    >>> require_whole("depth", 2, 1)
    >>> require_whole("n", 2.5, 1)
    Traceback (most recent call last):
    ratekit.errors.InputError: n=2.5: a whole number from 1 on was expected
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= cast(int, value) <= (math.inf if most is None else most):
        span = f"{least} on" if most is None else f"{least} to {most}"
        raise InputError(f"{name}={value!r}: a whole number from {span} was expected{'; ' + why if why else ''}")


def unknown(kind: str, name: object, known: Iterable[str], hint: str = "") -> InputError:
    """An `InputError` that names the nearest known names.

    Examples
    --------
    >>> print(unknown("attribute", "lenght", ["length", "sentiment"]))
    unknown attribute 'lenght'; did you mean 'length'? Known: length, sentiment
    """
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.5)
    did_you_mean = "; did you mean " + " or ".join(repr(n) for n in near) + "?" if near else "."
    listed = f" Known: {', '.join(names)}" if names else ""
    return InputError(f"unknown {kind} {shorten(name, 60)!r}{did_you_mean}{listed}{'. ' + hint if hint else ''}")


def require_known(kind: str, name: object, known: Collection[str], hint: str = "") -> None:
    """Raise the `unknown` name's `InputError` where it is none of the known ones.

    Examples
    --------
    >>> require_known("unit", "sd", ["sd", "reward"])
    """
    if name not in known:
        raise unknown(kind, name, known, hint)


def shorten(text: object, width: int = 60) -> str:
    """One line of `text` for a message: white space folded, the middle cut out.

    Examples
    --------
    >>> shorten("a very long " * 20, width=20)
    'a very lo...ery long'
    """
    line = " ".join(str(text).split())
    if len(line) <= width:
        return line
    head = (width - 3 + 1) // 2
    return f"{line[:head]}...{line[len(line) - (width - 3 - head) :]}"
