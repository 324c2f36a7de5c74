"""Scores on disk: what was scored once, under any attribute and by any process, is not scored again.

A record of the store (`ratekit.store`: append-only, a checksum a line) is a block of texts that were scored together::

    {"check": "...", "key": "0c3a...", "model": "my-rm", "revision": "...", "adapter": "...", "dtype": "float32",
     "texts": ["9f8a...", ...], "rewards": [0.5, ...], "statuses": ["ok", ...], "tokens": [31, ...], "parts": {}}

`texts` holds a hash of each prompt and response, `parts` the rewards of a model with several objectives. A block is on
disk when `put` returns. One that is damaged (a flipped bit, a cut) is never given out: a warning names its line, and
its texts are scored again. What failed is not kept, so that it is tried again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit import files
from ratekit.scoring.base import SCORED, DetailedReward, Scores
from ratekit.store import Store, lines, shards_in

log = logging.getLogger("ratekit")

FINGERPRINT = ("model", "revision", "adapter", "dtype")
_LISTS = ("texts", "rewards", "statuses", "tokens")


class ScoreStore:
    """The scores of one model (its `fingerprint`) in a folder that many models and processes share.

    Parameters
    ----------
    folder
        Where they are; it is made where there is none.
    fingerprint
        All that a score depends on besides the text: model, revision, adapter, dtype.

    Raises
    ------
    InputError
        Where the folder cannot be made or read.
    WorkError
        Where it cannot be written; what is in it is kept.

    Examples
    --------
    >>> import tempfile
    >>> fingerprint = {"model": "m", "revision": "1", "adapter": "chat", "dtype": "float32"}
    >>> store = ScoreStore(tempfile.mkdtemp(), fingerprint)
    >>> store.put([b"k" * 16], Scores(np.array([0.5]), ["ok"], {}, np.array([3])))
    >>> float(ScoreStore(store.folder, fingerprint).get([b"k" * 16, b"x" * 16]).rewards[0])
    0.5
    """

    def __init__(self, folder: str | Path, fingerprint: dict[str, str]) -> None:
        self.fingerprint = dict(fingerprint)
        self._blocks = Store(folder, "scores", suffix=".scores")
        self.folder = self._blocks.folder
        self._place: dict[bytes, int] = {}  # in the columns below
        self._rewards: list[float | None] = []
        self._statuses: list[str] = []
        self._tokens: list[int] = []
        self._parts: dict[str, list[float | None]] = {}
        for shard in self._blocks.shards():
            self._read(shard)

    def _read(self, shard: Path) -> None:
        for number, line, block in lines(shard):
            if block is None or not _is_block(block):
                if line.endswith(b"\n"):  # else a process is writing it just now
                    log.warning("%s, line %d is damaged; its texts are scored again", shard, number)
            elif all(block[name] == value for name, value in self.fingerprint.items()):
                texts = [bytes.fromhex(text) for text in block["texts"]]
                start = len(self._rewards)
                self._place.update(zip(texts, range(start, start + len(texts)), strict=True))
                self._rewards += block["rewards"]
                self._statuses += block["statuses"]
                self._tokens += block["tokens"]
                for name, values in block["parts"].items():
                    column = self._parts.setdefault(name, [])
                    column += [None] * (start - len(column))
                    column += values

    def __len__(self) -> int:
        return len(self._place)

    def get(self, keys: list[bytes]) -> Scores:
        """The scores under these keys; the status is "" where there is none."""
        places = [self._place.get(key, -1) for key in keys]
        return Scores(
            _chosen(self._rewards, places),
            [self._statuses[i] if i >= 0 else "" for i in places],
            {name: _chosen(values, places) for name, values in self._parts.items()}
            if max(places, default=-1) >= 0
            else {},
            np.array([self._tokens[i] if i >= 0 else 0 for i in places], dtype=np.int64),
        )

    def put(self, keys: list[bytes], scores: Scores) -> None:
        """Write what was scored; it is on disk when this returns. What was not scored is left out."""
        kept = [i for i, status in enumerate(scores.statuses) if status in SCORED]
        if not kept:
            return
        block = {
            **self.fingerprint,
            "texts": [keys[i].hex() for i in kept],
            "rewards": _numbers(scores.rewards[kept]),
            "statuses": [scores.statuses[i] for i in kept],
            "tokens": scores.tokens[kept].tolist(),
            "parts": {name: _numbers(values[kept]) for name, values in scores.parts.items()},
        }
        about = json.dumps([*self.fingerprint.values(), *block["texts"]])
        self._blocks.put(hashlib.sha256(about.encode()).hexdigest()[:32], block)

    def close(self) -> None:
        """Flush to the disk and let go of the shard; the store can be used again."""
        self._blocks.close()

    def record(self, what: dict[str, Any]) -> Path:
        """Write how the model was run beside its scores, once per model: `model-<hash>.json`."""
        name = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        path = self.folder / f"model-{name}.json"
        text = json.dumps(what, indent=2, ensure_ascii=False, default=str) + "\n"
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
            return path  # a folder that can only be read may hold all that is needed
        return files.replace_text(path, text)


def fingerprints_in(folder: str | Path) -> list[dict[str, str]]:
    """The models whose scores are in a folder, each by its fingerprint."""
    blocks = (block for shard in shards_in(folder, ".scores") for _, _, block in lines(shard))
    found = {tuple(block[n] for n in FINGERPRINT) for block in blocks if block is not None and _is_block(block)}
    return [dict(zip(FINGERPRINT, one, strict=True)) for one in sorted(found)]


def _is_block(record: dict[str, Any]) -> bool:
    """Whether the fields have the types and lengths of a block of scores."""
    parts = record.get("parts")
    lists = [record.get(name) for name in _LISTS] + [*(parts.values() if isinstance(parts, dict) else [None])]
    return all(isinstance(v, list) and len(v) == len(record["texts"]) for v in lists) and all(
        isinstance(record.get(name), str) for name in FINGERPRINT
    )


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """As JSON has them: NaN is null."""
    return [None if v != v else v for v in values.tolist()]


def _chosen(column: list[float | None], places: list[int]) -> NDArray[np.float64]:
    """The numbers at these places; NaN at -1, for null, and where the column ends before."""
    n = len(column)
    return np.array([column[i] if 0 <= i < n else None for i in places], dtype=np.float64)


def as_bytes(keys: NDArray[np.uint64]) -> list[bytes]:
    """(n, 2) uint64 keys as 16 bytes each."""
    flat = np.ascontiguousarray(keys.astype(">u8")).tobytes()
    return [flat[i : i + 16] for i in range(0, len(flat), 16)]


def open_store(folder: str | Path, reward: Any) -> ScoreStore | None:
    """The store of a reward in `folder`, with the record of how it is run.

    None for a plain function, and for a server that does not say what it serves: nothing tells it from another one of
    the same name.
    """
    if not isinstance(reward, DetailedReward):
        return None
    fingerprint = reward.fingerprint
    if not fingerprint:
        log.warning("the scores of %s are not kept: nothing says which model gives them", reward.name)
        return None
    store = ScoreStore(folder, fingerprint)
    record = getattr(reward, "record", None)
    if record is not None:
        store.record(record())
    return store
