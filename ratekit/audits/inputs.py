"""What a result depends on, as fingerprints of content: files, model folders, served models, the code of callables.

A spec such as ``./my-rm`` says where something is, not what it is. A run keeps a fingerprint of each of its inputs;
where one differs on the next call, what came of it is made again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.attributes import Attribute
from ratekit.errors import WorkError
from ratekit.scoring import FORMS, find_reward, make_reward
from ratekit.scoring.llm_judges import is_asked

log = logging.getLogger("ratekit")

BY_NAME = "by name"  # what is neither on this machine nor in memory is known by its name alone


def data_print(data: Any, data_files: Any = None) -> str:
    """The fingerprint of the data: of the files' bytes, or of a table in memory.

    Examples
    --------
    >>> data_print("reviews")
    'by name'
    >>> data_print([{"response": "a"}]) == data_print([{"response": "a"}]) != data_print([{"response": "b"}])
    True
    """
    if data_files is not None:
        paths = [data_files] if isinstance(data_files, str | Path) else list(data_files)
        return _digest(*(files.fingerprint(path) for path in paths))
    if isinstance(data, str | Path):
        return files.fingerprint(data) if _exists(data) else BY_NAME
    return _digest(*_held(data))


def rewriter_print(rewriter: Any) -> str:
    """The fingerprint of a rewriter: of a replayed dataset, a local model's folder, a callable's code."""
    if isinstance(rewriter, str):
        kind, _, rest = rewriter.partition(":")
        local = kind in ("replay", "hf") and rest and _exists(rest)
        return files.fingerprint(rest) if local else BY_NAME
    return BY_NAME if rewriter is None else code_print(rewriter)


def reward_print(reward: Any) -> str:
    """The fingerprint of a reward: weights and tokenizer of a folder, the served model's id, a callable's code.

    Examples
    --------
    >>> reward_print("org/model-that-is-not-here")
    'by name'
    >>> reward_print(lambda p, r: [len(x) for x in r]) == reward_print(lambda p, r: [2 * len(x) for x in r])
    False
    """
    if not isinstance(reward, str | Path):
        own = getattr(reward, "fingerprint", None)
        return _digest(*_code(own, {})) if isinstance(own, Mapping | str) else code_print(reward)
    found = find_reward(reward)
    if callable(found):
        return code_print(found)
    form, colon, rest = found.partition(":")
    if not (colon and form in FORMS):
        return _model(found)
    if form == "served" or is_asked(rest):
        try:
            return reward_print(make_reward(found))
        except WorkError as e:
            log.warning("%s cannot be asked whether it is the model that it was (%s)", found, e)
            return BY_NAME
    parts = [_model(part) for part in rest.split(",")]
    return BY_NAME if set(parts) == {BY_NAME} else _digest(*parts)


def attribute_print(attribute: Attribute) -> str:
    """The fingerprint of an attribute: its phrases, its prompt, and the code that labels and measures."""
    codes = [code_print(f) if f is not None else "" for f in (attribute.label, attribute.measure)]
    return _digest(attribute.name, attribute.treated, attribute.untreated, str(attribute.template), *codes)


def code_print(function: Any) -> str:
    """The fingerprint of a callable: its code, what it closes over, and what it uses of its own module.

    Examples
    --------
    >>> def shift(by): return lambda x: x + by
    >>> code_print(shift(1)) == code_print(shift(1)), code_print(shift(1)) == code_print(shift(2))
    (True, False)
    """
    return _digest(*_code(function, {}))


def _model(name: str) -> str:
    """Of a model's folder, or the revision that the hub's local cache has of it."""
    if _exists(name):
        return files.fingerprint(Path(name).expanduser())
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.file_download import repo_folder_name

        place = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "refs" / "main"
        return place.read_text(encoding="ascii").strip()[:16]
    except (ImportError, OSError, ValueError):
        return BY_NAME


def _exists(path: str | Path) -> bool:
    try:
        return bool(str(path)) and Path(path).expanduser().exists()
    except (OSError, ValueError):  # a name too long, or with a NUL, is no path
        return False


def _held(data: Any) -> Iterator[Any]:
    """A table in memory, as bytes."""
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a DataFrame
        yield from map(repr, data.columns)
        yield from map(repr, data.to_dict("list").values())
    elif hasattr(data, "with_format") and hasattr(data, "column_names"):  # a Dataset
        yield repr(data.column_names)
        for batch in data.with_format("arrow").iter(1000):
            yield repr(batch.to_pylist())
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield repr(name)
            yield from _held(value)
    elif isinstance(data, list | tuple):
        yield from map(repr, data)
    else:
        yield repr(data)


def _code(thing: Any, seen: dict[int, Any]) -> Iterator[str]:
    if isinstance(thing, str | bytes | int | float | complex | bool | Path | type(None)):
        yield repr(thing)
        return
    if id(thing) in seen:
        return
    seen[id(thing)] = thing  # kept alive, or its id could become another's
    if isinstance(thing, types.MethodType):
        yield from _code(thing.__func__, seen)
        yield from _code(thing.__self__, seen)
    elif isinstance(thing, types.FunctionType):
        yield from _code(thing.__code__, seen)
        yield from _code([thing.__defaults__, thing.__kwdefaults__], seen)
        yield from _code([cell.cell_contents for cell in thing.__closure__ or () if _full(cell)], seen)
        yield from _uses(thing, seen)
    elif isinstance(thing, types.CodeType):
        yield thing.co_code.hex() + repr(thing.co_names)
        yield from _code(list(thing.co_consts), seen)
    elif isinstance(thing, functools.partial):
        yield from _code([thing.func, list(thing.args), dict(thing.keywords)], seen)
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield repr(key)
            yield from _code(value, seen)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from _code(value, seen)
    elif isinstance(thing, set | frozenset):
        yield repr(sorted(map(repr, thing)))
    elif hasattr(thing, "tobytes"):
        yield repr(getattr(thing, "shape", ""))
        yield hashlib.sha256(thing.tobytes()).hexdigest()
    elif isinstance(thing, type):
        yield f"{thing.__module__}.{thing.__qualname__}"
        for value in vars(thing).values():
            if isinstance(value, types.FunctionType):
                yield from _code(value, seen)
    else:
        kind = type(thing)
        yield f"{kind.__module__}.{kind.__qualname__} {getattr(thing, '__qualname__', '')}"
        if hasattr(thing, "__dict__") and not isinstance(thing, types.ModuleType):
            if isinstance(vars(kind).get("__call__"), types.FunctionType):
                yield from _code(kind, seen)
            yield from _code({k: v for k, v in vars(thing).items() if not k.startswith("_")}, seen)  # no caches


def _uses(function: types.FunctionType, seen: dict[int, Any]) -> Iterator[str]:
    """What a function names of its own package: helpers and constants that its result hangs on."""
    own = (function.__module__ or "").split(".")[0]
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and (value.__module__ or "").split(".")[0] == own:
            yield from _code(value, seen)
        elif isinstance(value, str | int | float | bool | tuple | frozenset):
            yield name
            yield from _code(value, seen)


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names of a function and of the functions and comprehensions in it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(part).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The names of the inputs whose fingerprint is another; one that is not in `old`, or by name alone, is not.

    Examples
    --------
    >>> changed({"data": "a", "rewriter": "by name"}, {"data": "b", "rewriter": "by name"})
    ['data']
    """
    return [
        name for name, value in new.items() if name in old and BY_NAME not in (value, old[name]) and old[name] != value
    ]
