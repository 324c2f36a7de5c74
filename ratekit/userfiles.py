"""An object in a user's own file of Python, named as FILE.py:NAME: an attribute, a reward, a rewriter."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, shorten, unknown


def is_object_spec(spec: object) -> bool:
    """Whether this names an object in a file of Python, as in "mine.py:bullets".

    Examples
    --------
    >>> is_object_spec("mine.py:bullets"), is_object_spec("openai:gpt-4o-mini")
    (True, False)
    """
    return isinstance(spec, str) and re.fullmatch(r".+\.py:\w+", spec) is not None


def load_object(spec: str) -> Any:
    """The object that "FILE.py:NAME" names: an attribute, a reward or a rewriter of the user's own.

    Parameters
    ----------
    spec : str
        A path to a file of Python, a colon and a name in it. The file is run, with its own folder to import from.

    Raises
    ------
    InputError
        No such file, a file that does not run, or no such name in it.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"{spec}: no such file: {file}")
    module_name = f"ratekit_user_{path.stem}_{hashlib.sha256(bytes(path) + path.read_bytes()).hexdigest()[:16]}"
    module = sys.modules.get(module_name)
    if module is None:
        found = importlib.util.spec_from_file_location(module_name, path)
        if found is None or found.loader is None:
            raise InputError(f"{spec}: {file} is no file of Python")
        module = importlib.util.module_from_spec(found)
        sys.modules[module_name] = module
        sys.path.insert(0, str(path.parent))
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no __pycache__ in the user's folder
        try:
            found.loader.exec_module(module)
        except Exception as e:
            del sys.modules[module_name]
            raise InputError(f"{spec}: {file} does not run ({type(e).__name__}: {shorten(e, 120)})") from e
        finally:
            sys.dont_write_bytecode = writes
            sys.path.remove(str(path.parent))
    if not hasattr(module, name):
        raise unknown(f"name in {file}", name, [n for n in vars(module) if not n.startswith("_")])
    return getattr(module, name)
