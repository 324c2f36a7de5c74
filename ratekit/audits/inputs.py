"""What a result depends on, as fingerprints of content: files, model folders, served models, the code of callables.

A spec such as ``./my-rm`` says where something is, not what it is. A run keeps a fingerprint of each of its inputs;
where one differs on the next call, what came of it is made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.errors import WorkError
from ratekit.fingerprints import code_print, digest
from ratekit.labellers import Attribute
from ratekit.lora import base_folder, is_adapter, read_config
from ratekit.redaction import redact
from ratekit.scoring import NamedReward
from ratekit.sources.loading import in_memory

log = logging.getLogger("ratekit")

BY_NAME = "by name"  # what is neither on this machine nor in memory is known by its name alone


def data_print(data: Any, data_files: Any = None, split: str | None = None) -> str:
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
        return digest(*(files.fingerprint(path) for path in paths))
    if isinstance(data, str | Path):
        return files.fingerprint(data) if _exists(data) else BY_NAME
    return digest(*_rows(data, split))


def rewriter_print(rewriter: Any) -> str:
    """The fingerprint of a rewriter: of a replayed dataset, a local model's folder, a callable's code."""
    if isinstance(rewriter, str):
        kind, _, rest = rewriter.partition(":")
        if kind == "replay":
            return files.fingerprint(rest) if _exists(rest) else BY_NAME
        return _model(rest) if kind == "hf" and rest else BY_NAME
    if isinstance(rewriter, Mapping | list | tuple):
        several = rewriter.items() if isinstance(rewriter, Mapping) else enumerate(rewriter)
        return digest(*(f"{name}={rewriter_print(one)}" for name, one in several))
    return BY_NAME if rewriter is None else code_print(rewriter)


def reward_print(reward: NamedReward) -> str:
    """The fingerprint of a reward: weights and tokenizer of a folder, the served model's id, a callable's code.

    Examples
    --------
    >>> from ratekit.scoring import read_reward
    >>> reward_print(read_reward("org/model-that-is-not-here"))
    'by name'
    >>> once, twice = lambda p, r: [len(x) for x in r], lambda p, r: [2 * len(x) for x in r]
    >>> reward_print(read_reward(once)) == reward_print(read_reward(twice))
    False
    """
    if reward.places:
        parts = [_model(place) for place in reward.places]
        return BY_NAME if set(parts) == {BY_NAME} else parts[0] if len(parts) == 1 else digest(*parts)
    try:  # a function, or what is behind a server
        made = reward.make()
        own = getattr(made, "fingerprint", None)
    except WorkError as e:
        log.warning("%s cannot be asked whether it is the model that it was (%s)", redact(reward.spec), e)
        return BY_NAME
    return code_print(own if isinstance(own, Mapping | str) else made)


def attribute_print(attribute: Attribute) -> str:
    """The fingerprint of an attribute: its phrases, its prompt, and the code that labels and measures."""
    codes = [code_print(f) if f is not None else "" for f in (attribute.label, attribute.measure)]
    return digest(attribute.name, attribute.treated, attribute.untreated, str(attribute.template), *codes)


def _model(name: str) -> str:
    """Of a model's folder, or the revision that the hub's local cache has of it."""
    if _exists(name):
        folder = Path(name).expanduser()
        base = base_folder(folder, read_config(folder)) if is_adapter(folder) else None
        own = files.fingerprint(folder)
        return own if base is None else digest(own, files.fingerprint(base))
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


def _rows(data: Any, split: str | None) -> Iterator[str]:
    """A table in memory as the door reads it, a thousand rows at a time."""
    ds = in_memory(data, split)[0]
    yield repr(ds.column_names)
    for batch in ds.with_format("arrow").iter(1000):
        yield repr(batch.to_pylist())


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
