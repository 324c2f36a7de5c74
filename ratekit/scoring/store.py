"""Scores on disk, kept as a dataset: what was scored once, under any attribute and by any process, is not scored again.

A store is a folder of Parquet shards that `datasets` reads as they are::

    datasets.load_dataset("parquet", data_files="scores/*.parquet")

Columns: key (of prompt and text), reward, status, tokens, parts, model, revision, adapter, dtype. A shard appears under
its name only when it is whole. What failed is not kept, so that it is tried again.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratekit.errors import InputError, WorkError, shorten
from ratekit.scoring.base import SCORED, DetailedReward, Scores

log = logging.getLogger("ratekit")


class ScoreStore:
    """The scores of one model (its `fingerprint`) in a folder that many models and processes share.

    >>> import tempfile
    >>> fingerprint = {"model": "m", "revision": "1", "adapter": "chat", "dtype": "float32"}
    >>> store = ScoreStore(tempfile.mkdtemp(), fingerprint)
    >>> store.put([b"k" * 16], Scores(np.array([0.5]), ["ok"], {}, np.array([3])))
    >>> float(ScoreStore(store.folder, fingerprint).get([b"k" * 16, b"x" * 16]).rewards[0])
    0.5
    """

    def __init__(self, folder: str | Path, fingerprint: dict[str, str]) -> None:
        self.folder, self.fingerprint = Path(folder), dict(fingerprint)
        if self.folder.is_file():
            raise InputError(f"the score store {self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"the score store {self.folder} cannot be made: {e.strerror}") from None
        self._own: list[Path] = []
        self._known = self._read()

    def _read(self) -> dict[bytes, tuple[float, str, int, dict[str, float]]]:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        known: dict[bytes, tuple[float, str, int, dict[str, float]]] = {}
        for shard in sorted(self.folder.glob("*.parquet")):
            try:
                table = pq.read_table(shard)
                for name, value in self.fingerprint.items():
                    table = table.filter(pc.equal(table[name].cast(pa.string()), value))
            except FileNotFoundError:
                continue  # merged into another by the process that wrote it
            except (pa.ArrowException, OSError, KeyError) as e:
                log.warning("the shard %s cannot be read (%s) and is passed over", shard, shorten(e, 80))
                continue
            columns = [table[c].to_pylist() for c in ("key", "reward", "status", "tokens", "parts")]
            for key, reward, status, tokens, parts in zip(*columns, strict=True):
                known[key] = (reward, status, tokens, json.loads(parts) if parts else {})
        return known

    def get(self, keys: list[bytes]) -> Scores:
        """The scores under these keys; the status is "" where there is none."""
        found = [self._known.get(k) for k in keys]
        names = next((list(f[3]) for f in found if f), [])
        return Scores(
            np.array([f[0] if f else np.nan for f in found], dtype=np.float64),
            [f[1] if f else "" for f in found],
            {n: np.array([f[3][n] if f else np.nan for f in found], dtype=np.float64) for n in names},
            np.array([f[2] if f else 0 for f in found], dtype=np.int64),
        )

    def put(self, keys: list[bytes], scores: Scores) -> None:
        """Write what was scored; it is on disk when this returns. What was not scored is left out."""
        kept = [i for i, status in enumerate(scores.statuses) if status in SCORED]
        if not kept:
            return
        parts = [{n: float(v[i]) for n, v in scores.parts.items()} for i in kept]
        columns: dict[str, Any] = {
            "key": [keys[i] for i in kept],
            "reward": scores.rewards[kept],
            "status": [scores.statuses[i] for i in kept],
            "tokens": scores.tokens[kept],
            "parts": [json.dumps(p) if p else None for p in parts],
            **{name: [value] * len(kept) for name, value in self.fingerprint.items()},
        }
        self._own.append(self._write(columns))

    def merge(self) -> None:
        """Make one shard of those that this process wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if len(self._own) > 1:
            merged = pa.concat_tables([pq.read_table(shard) for shard in self._own])
            whole = self._write({name: merged[name] for name in merged.column_names})
            for shard in self._own:
                shard.unlink(missing_ok=True)
            self._own = [whole]

    def _write(self, columns: dict[str, Any]) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        shard = self.folder / f"scores-{os.getpid()}-{uuid.uuid4().hex[:12]}.parquet"
        new = shard.with_suffix(".new")
        schema = pa.schema(
            [("key", pa.binary()), ("reward", pa.float64()), ("status", pa.string()), ("tokens", pa.int64()),
             ("parts", pa.string()), *((name, pa.string()) for name in self.fingerprint)]
        )  # fmt: skip
        try:
            pq.write_table(pa.table(columns, schema=schema), new)
            new.replace(shard)
        except OSError as e:
            raise WorkError(
                f"the score store {self.folder} cannot be written ({e.strerror}); what is in it is kept"
            ) from None
        return shard

    def record(self, what: dict[str, Any]) -> Path:
        """Write how the model was run beside its scores, once per model: `model-<hash>.json`."""
        import hashlib

        name = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        path = self.folder / f"model-{name}.json"
        new = path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(what, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        new.replace(path)
        return path


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
