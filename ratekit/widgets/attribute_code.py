"""A function of the user's as code that runs in a file of its own: an import, its source, or a stub that says so."""

from __future__ import annotations

import ast
import builtins
import importlib
import keyword
import linecache
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None), tuple, list, dict, set, frozenset)


class _Unknown(Exception):
    """There is no code of this thing."""


def identifier(name: str) -> str:
    """A name as Python's grammar wants it.

    Examples
    --------
    >>> identifier("3 cited sources!"), identifier("class")
    ('_3_cited_sources', 'class_')
    """
    found = re.sub(r"\W+", "_", name).strip("_").lower() or "attribute"
    found = f"_{found}" if found[0].isdigit() else found
    return f"{found}_" if keyword.iskeyword(found) else found


def as_code(functions: Mapping[str, tuple[str, Callable[..., Any]]]) -> tuple[str, dict[str, str]]:
    """What has to stand before a call, and an expression for each argument, that together give the functions.

    Parameters
    ----------
    functions : mapping of str to (str, callable)
        The argument ("measure" or "label"): what the function is called where it has no name of its own; a function, a
        lambda, or anything that can be called.

    Returns
    -------
    tuple
        Lines (imports; sources, with the imports and constants that they need; or a stub that raises an error when it
        is called, where no source is known, or where it would change another's), and by argument the name to write.

    Examples
    --------
    >>> import statistics
    >>> as_code({"measure": ("average", statistics.mean)})
    ('from statistics import mean', {'measure': 'mean'})
    >>> print(as_code({"measure": ("count", len.__call__)})[0].splitlines()[1])
    def count(texts):
    """
    lines: dict[str, str] = {}
    names: dict[str, str] = {}
    for argument, (name, function) in functions.items():
        try:
            own, names[argument] = _found(function, identifier(name))
            if any(lines.get(used, line) != line for used, line in own.items()):
                raise _Unknown("it names something that another function names too")
        except _Unknown as why:
            names[argument] = stub = identifier(name)
            takes, gives = _STUBS[argument]
            own = {
                stub: f"def {stub}({takes}):\n    # Write your {argument} here: {gives} ({why}).\n"
                f'    raise NotImplementedError("write the {argument} {stub} first")'
            }
        lines |= own
    imports = [line for line in lines.values() if line.startswith(("import ", "from "))]
    defined = [line for line in lines.values() if line and line not in imports]
    return "\n".join([*imports, *(f"\n{line}\n" for line in defined)]), names


_STUBS = {
    "measure": ("texts", "a number for each text, that grows with the attribute"),
    "label": ("rows", "True, False or None for each row; the texts are rows['response']"),
}


def _found(function: Any, name: str) -> tuple[dict[str, str], str]:
    """Lines by the name that each defines, and the function's own name there."""
    lines: dict[str, str] = {}
    try:
        line, name = _imported(function)
        lines[name] = line
    except _Unknown:
        name = _written(function, name, lines)
    return lines, name


def _imported(thing: Any) -> tuple[str, str]:
    """The import that gives it, where it has a place in a module other than the one that is run."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if isinstance(thing, types.FunctionType | types.BuiltinFunctionType | type) and module not in (None, "__main__"):
        if module == "builtins":
            return "", name
        try:
            found = getattr(importlib.import_module(module), name, None)
        except Exception:  # a module that is not on the path
            found = None
        if found is thing:
            return f"from {module} import {name}", name
    raise _Unknown("it cannot be imported")


def _written(function: Any, name: str, lines: dict[str, str]) -> str:
    """Put the source of a function into `lines`, after all that it uses; give its name there."""
    if not isinstance(function, types.FunctionType):
        raise _Unknown(f"a {type(function).__name__} has no source")
    node, uses = _node(function), dict(_uses(function))
    if isinstance(node, ast.FunctionDef):
        name, node.decorator_list = node.name, []
    else:
        while name in uses or name in lines or name in ("rk", "replace", "RULES") or hasattr(builtins, name):
            name += "_"
        body = ast.Return(node.body)
        made = ast.parse(f"def {name}(): pass").body[0]
        assert isinstance(made, ast.FunctionDef)
        made.args, made.body = node.args, [body]
        node = made
    if function.__defaults__ or function.__kwdefaults__:  # what a default was worth is known, what it was called is not
        node.args.defaults = [_literal(v) for v in function.__defaults__ or ()]
        node.args.kw_defaults = [_literal((function.__kwdefaults__ or {}).get(a.arg)) for a in node.args.kwonlyargs]
    for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
        argument.annotation = None
    node.returns = None
    for used, value in uses.items():
        if value is not function and used not in lines:
            _give(used, value, lines)
    lines[name] = ast.unparse(ast.fix_missing_locations(node))
    return name


def _node(function: types.FunctionType) -> Any:
    """The part of a file, or of a notebook's cell, that defines the function."""
    code = function.__code__
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    if not text:
        raise _Unknown("its source is not known")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        raise _Unknown("its source cannot be read") from None
    kind = ast.Lambda if code.co_name == "<lambda>" else ast.FunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kind) and getattr(node, "name", code.co_name) == code.co_name:
            for found in _codes(compile(ast.Module([_alone(node)], []), code.co_filename, "exec")):
                if found.co_name == code.co_name and _same(found, code):
                    return node
    raise _Unknown("its source has changed")


def _alone(node: ast.AST) -> ast.stmt:
    return ast.copy_location(ast.Expr(node), node) if isinstance(node, ast.Lambda) else node  # type: ignore[return-value]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two codes are of one text; what is free in one may be global in the other, seen alone."""

    def constants(code: types.CodeType) -> list[Any]:
        kept = [constants(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
        return [c for c in kept if "<locals>" not in c]  # where a function stands within another

    def places(code: types.CodeType) -> set[Any]:
        return {place for place in code.co_positions() if place[2] and place[3] and place[2] < place[3]}

    return constants(one) == constants(other) and places(one) == places(other)


def _uses(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function takes from around it: names and their values."""
    codes = [function.__code__, *_codes(function.__code__)]
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for name in dict.fromkeys(n for code in codes for n in (*code.co_names, *code.co_freevars)):
        if name in cells:
            try:
                yield name, cells[name].cell_contents
            except ValueError:
                raise _Unknown(f"{name} is not defined") from None
        elif name in function.__globals__ and not hasattr(builtins, name):
            yield name, function.__globals__[name]


def _give(name: str, value: Any, lines: dict[str, str]) -> None:
    """Put into `lines` what makes `name` have this value."""
    if isinstance(value, types.ModuleType):
        lines[name] = f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")
        return
    if isinstance(value, _CONSTANTS):
        lines[name] = f"{name} = {ast.unparse(_literal(value))}"
        return
    if isinstance(value, re.Pattern):
        lines.setdefault("re", "import re")
        lines[name] = f"{name} = re.compile({value.pattern!r}, {int(value.flags)})"
        return
    try:
        line, known = _imported(value)
        lines[name] = line + ("" if known == name else f" as {name}")
    except _Unknown:
        known = _written(value, name, lines)
        if known != name:
            lines[name] = f"{name} = {known}"


def _literal(value: Any) -> ast.expr:
    """A constant as code; refused where it would not come back as it was."""
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise _Unknown("it uses what cannot be written down")
