"""The fingerprint of a callable: its code and everything of the user's own that the code names, closes over or holds.

Followed are functions, classes, constants and modules that a user may have written; what is installed counts by its
name alone. A change of any of it is another fingerprint, in this process and in the next one.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import importlib.util
import logging
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, Path, type(None), type(...), range)
_OF_THE_CLASS = frozenset({"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate_func__",
                           "__annotations_cache__", "__firstlineno__", "__static_attributes__", "__abstractmethods__",
                           "_abc_impl"})  # fmt: skip
Seen = dict[int, Any]
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def code_print(thing: Any) -> str:
    """16 hexadecimal digits that stay while a callable does the same.

    Parameters
    ----------
    thing : callable or value
        A function, a method, an instance with ``__call__``, a partial, or what one of them may hold.

    Returns
    -------
    str
        Of its code, defaults and closure, and of the globals, helper functions, classes, instances and modules that it
        uses, where these are not installed; of tensors and arrays the values. What the code changes itself when it is
        called (a list that it appends to, a counter, a cache) is left out. So is a file that it reads then.

    Examples
    --------
    >>> def shift(by): return lambda x: x + by
    >>> code_print(shift(1)) == code_print(shift(1)), code_print(shift(1)) == code_print(shift(2))
    (True, False)
    """
    return digest(*_parts(thing, _package(thing), {}))


def digest(*parts: Any) -> str:
    """16 hexadecimal digits of the texts of `parts`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(str(part).encode("utf-8", "surrogatepass") + b"\0")
    return found.hexdigest()[:16]


def _parts(thing: Any, home: str, seen: Seen, called: Set[str] = frozenset()) -> Iterator[str]:
    """The texts that tell a thing from others; `called` are names under which code may call methods of it, if known."""
    if isinstance(thing, _PLAIN):
        yield repr(thing)
        return
    if id(thing) in seen:
        return
    seen[id(thing)] = thing  # kept alive, or its id could become another's
    if isinstance(thing, types.MethodType | staticmethod | classmethod):
        yield from _parts(thing.__func__, home, seen)
        yield from _parts(getattr(thing, "__self__", None), home, seen, {getattr(thing.__func__, "__name__", "")})
    elif isinstance(thing, types.FunctionType):
        yield from _function(thing, home, seen)
    elif isinstance(thing, types.CodeType):
        yield thing.co_code.hex() + repr(thing.co_names)
        yield from _each(thing.co_consts, home, seen)
    elif isinstance(thing, types.ModuleType | logging.Logger):  # a logger leads to all others
        yield thing.name if isinstance(thing, logging.Logger) else thing.__name__
    elif isinstance(thing, property | functools.cached_property):
        yield from _parts(thing.fget if isinstance(thing, property) else thing.func, home, seen)
    elif isinstance(thing, functools.partial):
        yield from _each([thing.func, thing.args, thing.keywords], home, seen)
    elif isinstance(thing, type):
        yield from _class(thing, home, seen)
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from _each((key, value), home, seen)
    elif isinstance(thing, Set):
        yield repr(sorted(_plainly(value) for value in thing))
    elif isinstance(thing, Sequence):
        yield f"{type(thing).__name__} of {len(thing)}"
        yield from _each(thing, home, seen)
    elif hasattr(type(thing), "tobytes"):  # of the class: an instance may answer to any name
        yield f"{getattr(thing, 'dtype', '')} {getattr(thing, 'shape', '')}"
        if str(getattr(thing, "dtype", "")) == "object":
            yield from _each(thing.tolist(), home, seen)
        else:
            yield hashlib.sha256(thing.tobytes()).hexdigest()
    elif hasattr(type(thing), "to_numpy"):  # of pandas
        index: Any = getattr(thing, "index", None)
        labels = index.to_numpy() if hasattr(index, "to_numpy") else None
        yield from _each([list(getattr(thing, "columns", ())), labels, thing.to_numpy()], home, seen)
    elif hasattr(type(thing), "to_pydict"):  # of Arrow
        yield from _parts(thing.to_pydict(), home, seen)
    elif hasattr(type(thing), "with_format"):  # a Dataset
        yield from _parts(thing.with_format("arrow")[:], home, seen)
    elif hasattr(type(thing), "untyped_storage") and hasattr(type(thing), "detach"):
        yield from _tensor(thing)
    elif "__wrapped__" in getattr(thing, "__dict__", ()):  # a function behind a cache
        yield from _parts(thing.__wrapped__, home, seen)
    else:
        yield from _instance(thing, home, seen, called)


def _each(things: Any, home: str, seen: Seen) -> Iterator[str]:
    for thing in things:
        yield from _parts(thing, home, seen)


def _plainly(value: Any) -> str:
    try:
        return _ADDRESS.sub("", repr(value))
    except Exception:  # a repr of the user's own
        return type(value).__qualname__


def _function(function: types.FunctionType, home: str, seen: Seen) -> Iterator[str]:
    if not _is_own(function.__module__, home):
        yield f"{function.__module__}.{function.__qualname__}"
        return
    code, state = function.__code__, _changed_by(function.__code__)
    yield from _parts(code, home, seen)
    yield from _each([function.__defaults__, function.__kwdefaults__], home, seen)
    closed = zip(code.co_freevars, function.__closure__ or (), strict=False)
    yield from _each([cell.cell_contents for n, cell in closed if n not in state and _full(cell)], home, seen)
    held, own = vars(function), _changed_by(code, attributes=True)  # a registry of `singledispatch`, a setting
    yield from _each([held[n] for n in sorted(held) if not n.startswith("_") and n not in own], home, seen)
    names = sorted(set(_names(code)) - state)
    found = {name: function.__globals__[name] for name in names if name in function.__globals__}
    found |= dict(_imported_by(code, function.__globals__))
    yield from _used(found, names, home, seen)


def _imported_by(code: types.CodeType, globals_: Mapping[str, Any]) -> Iterator[tuple[str, types.ModuleType]]:
    """The modules that are not installed and that code imports when it runs, where they can be had."""
    steps = list(dis.get_instructions(code))
    for level, _, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            dots = "." * (level.argval if isinstance(level.argval, int) else 0)
            try:
                name = importlib.util.resolve_name(f"{dots}{step.argval}", globals_.get("__package__"))
                spec = importlib.util.find_spec(name)
                if spec is not None and spec.origin is not None and not _in_places(spec.origin):
                    yield name, importlib.import_module(name)
            except Exception:  # one that is not there is no part of what the code does
                continue
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _imported_by(inner, globals_)


_CHANGES = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "popleft", "appendleft",
            "remove", "discard", "clear", "subtract", "write"}  # fmt: skip


def _changed_by(code: types.CodeType, attributes: bool = False) -> set[str]:
    """The globals and closed-over names that code assigns, or changes in place; with `attributes` those of an instance.

    Examples
    --------
    >>> def noted(x): SEEN.append(x); COUNT[x] = 1; return WEIGHTS[x]
    >>> sorted(_changed_by(noted.__code__))
    ['COUNT', 'SEEN']
    """
    held = ("LOAD_ATTR",) if attributes else ("LOAD_GLOBAL", "LOAD_DEREF")
    stored = ("STORE_ATTR",) if attributes else ("STORE_GLOBAL", "STORE_DEREF")
    steps = list(dis.get_instructions(code))
    found = {step.argval for step in steps if step.opname in stored} - set(code.co_cellvars)
    for at, step in enumerate(steps):
        if step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _CHANGES:
            whose = steps[at - 1]
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            whose = _container(steps, at)
        else:
            continue
        found |= {whose.argval} if whose.opname in held else set()
    for inner in code.co_consts:
        found |= _changed_by(inner, attributes) if isinstance(inner, types.CodeType) else set()
    return found


def _container(steps: Sequence[dis.Instruction], at: int) -> dis.Instruction:
    """What loads the container that the instruction at a place stores an item in, or deletes one of."""
    for _ in range(2):  # the key; for `x[k] += 1` the copies of container and key before it
        pushed = 0
        while at > 0 and pushed < 1:
            at -= 1
            pushed += dis.stack_effect(steps[at].opcode, steps[at].arg)
        if steps[at].opname != "COPY":
            break
    return steps[at - 1]


def _used(found: Mapping[str, Any], names: Sequence[str], home: str, seen: Seen) -> Iterator[str]:
    """What code names of its own module, and of other modules that are not installed."""
    for name, value in found.items():
        if isinstance(value, types.ModuleType):
            if _is_own(value.__name__, home) and id(value) not in seen:
                seen[id(value)] = value
                held = vars(value)
                yield from _used({n: held[n] for n in names if n in held}, names, home, seen)
        else:
            yield name
            yield from _parts(value, home, seen, set(names))


def _names(code: types.CodeType) -> Iterator[str]:
    """The names in a function and in those within it, and its texts that may be one: `getattr(module, "score")`."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)
        elif isinstance(inner, str) and inner.isidentifier():
            yield inner


def _class(kind: type, home: str, seen: Seen) -> Iterator[str]:
    yield kind.__qualname__
    if not _is_own(kind.__module__, home):
        yield str(kind.__module__)
        return
    for base in (*kind.__bases__, type(kind)):
        yield from _parts(base, home, seen)
    for name, value in sorted(vars(kind).items()):
        if name not in _OF_THE_CLASS and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            yield name
            yield from _parts(value, home, seen)


def _instance(thing: Any, home: str, seen: Seen, called: Set[str]) -> Iterator[str]:
    kind = type(thing)
    yield from _parts(kind, home, seen)
    own = _is_own(kind.__module__, home)
    if hasattr(kind, "state_dict") and hasattr(kind, "named_modules"):  # a torch module: its weights
        for name, value in thing.state_dict().items():
            yield name
            yield from _parts(value, home, seen)
    held = {n: getattr(thing, n) for k in kind.__mro__ for n in _slots(k) if hasattr(thing, n)}
    held |= vars(thing) if hasattr(thing, "__dict__") else {}
    for name in _state_of(kind, called) if own else ():
        held.pop(name, None)
    told = {n: value for n, value in held.items() if own or not n.startswith("_")}
    if not (told or own):
        pattern = getattr(thing, "pattern", None)  # a compiled expression, whose repr is cut
        yield f"{pattern!r} {getattr(thing, 'flags', '')}" if pattern is not None else _plainly(thing)
    for name, value in told.items():
        yield name
        yield from _parts(value, home, seen)


def _state_of(kind: type, called: Set[str]) -> set[str]:
    """The attributes that an instance changes when it is called; what `fit` or a setter gave it is none of them.

    Counted are the methods of the names `called`, the special ones, and what these call. Where neither names nor
    `__call__` tell what is called, every method counts. None that makes an instance does.
    """
    makes = ("__init__", "__new__", "__post_init__", "__setstate__")
    methods: dict[str, list[types.CodeType]] = {}  # of a name also those that `super()` reaches
    for name, method in ((n, m) for k in kind.__mro__ for n, m in vars(k).items()):
        if isinstance(method, types.FunctionType):
            methods.setdefault(name, []).append(method.__code__)
    begun = {n for n in methods if n in called or (n.startswith("__") and n.endswith("__"))} - {*makes}
    reached = begun if begun & {*called, "__call__"} else {*methods} - {*makes}
    left = list(reached)
    while left:
        more = {n for code in methods[left.pop()] for n in _names(code) if n in methods} - reached - {*makes}
        reached |= more
        left += more
    return {name for n in reached for code in methods[n] for name in _changed_by(code, attributes=True)}


def _slots(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _tensor(thing: Any) -> Iterator[str]:
    import torch

    yield f"{thing.dtype} {tuple(thing.shape)}"
    plain = thing.detach().cpu().contiguous().reshape(-1)
    yield hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest()


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether a module is part of Python or was installed, so that it changes with its version alone."""
    found = sys.modules.get(module)
    if module == "__main__" or found is None:
        return False
    if module.partition(".")[0] in sys.stdlib_module_names:
        return True
    file = getattr(found, "__file__", None)
    return file is not None and _in_places(file)


def _in_places(file: str) -> bool:
    """Whether a module's file lies where Python and what was installed lie; "built-in" and "frozen" do."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return file in ("built-in", "frozen") or any(Path(file).is_relative_to(place) for place in places)


def _is_own(module: Any, home: str) -> bool:
    """Whether a module is followed: one that is not installed, and any of the package `home`."""
    name = str(module or "")
    if name.partition(".")[0] == home != "builtins":
        return True
    return name != "builtins" and name.partition(".")[0] != __name__.partition(".")[0] and not _is_installed(name)


def _package(thing: Any) -> str:
    """The package of what is printed, which is followed even where it is installed."""
    thing = thing.func if isinstance(thing, functools.partial) else thing
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0]


def _full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
