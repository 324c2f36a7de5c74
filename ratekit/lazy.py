"""Names of a package that are imported when they are first used (PEP 562), so that importing it costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names live in modules of its own.

    >>> get, names = lazy_names("ratekit", {"InputError": "errors"})
    >>> get("InputError").__name__
    'InputError'

    package  its full name; places: public name -> the module below it that has the name, "" where it is a module itself

    What was found once is kept in the package. Raises AttributeError for any other name.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        module = importlib.import_module(f"{package}.{place or name}")
        value = getattr(module, name) if place else module
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return find, names
