"""One reply as it is kept: its address, what tells one model's replies from another's, and the fields of its line."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratekit.schema import Conversation


def key_of(fingerprint: str, content: Any) -> str:
    """The address of a reply: what was asked of whom.

    >>> key_of("model-a", "x") == key_of("model-a", "x") != key_of("model-b", "x")
    True
    """
    text = json.dumps([fingerprint, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def fingerprint_of(model: Any) -> str:
    """What tells this model's replies from another's.

    >>> fingerprint_of(lambda texts: 1) == fingerprint_of(lambda texts: 2)
    False

    Its `fingerprint` where it has one; else, for a function, its name, its code and the constants it closes over. A
    model whose replies depend on more than that should carry a `fingerprint`.
    """
    given = getattr(model, "fingerprint", None)
    if given is not None:
        return str(given)
    code = getattr(model, "__code__", None)
    if code is None:
        return f"{type(model).__module__}.{type(model).__qualname__}:{model!r}"
    closed = [c.cell_contents for c in model.__closure__ or ()] + list(model.__defaults__ or ())
    constants = [v for v in closed if v is None or isinstance(v, str | int | float)]
    name = f"{model.__module__}.{model.__qualname__}"
    return f"{name}:{key_of(name, [code.co_code.hex(), repr(code.co_consts), *constants])[:8]}"


def record_of(
    *,
    model: str,
    params: str,
    template: str,
    attribute: str,
    phrase: str,
    messages: Conversation,
    text: str | None,
    finish_reason: str,
    usage: Mapping[str, int],
) -> dict[str, Any]:
    """One reply as it is stored; every field always has one type, so that `datasets` reads shards together."""
    return {
        "model": model,
        "params": params,
        "template": template,
        "attribute": attribute,
        "phrase": phrase,
        "messages": messages,
        "text": text or "",
        "finish_reason": finish_reason,
        "usage": {"prompt": usage.get("prompt", 0), "completion": usage.get("completion", 0)},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def default_cache() -> Path:
    """Where replies are kept if no folder is given: $RATEKIT_CACHE, else ~/.cache/ratekit/rewrites."""
    given = os.environ.get("RATEKIT_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ratekit" / "rewrites"
