"""Scores on disk, kept as a dataset: what was scored once, under any attribute and by any process, is not scored again.

A store is a folder of Parquet shards that `datasets` reads as they are::

    datasets.load_dataset("parquet", data_files="scores/*.parquet")

Columns: key (of prompt and text), reward, status, tokens, parts, model, revision, adapter, dtype. A shard appears under
its name only when it is whole, and its name ends in a hash of its bytes: one that does not fit its hash is passed over
and its texts are scored again. What failed is not kept, so that it is tried again.
"""

from __future__ import annotations

import hashlib
import io
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

        known: dict[bytes, tuple[float, str, int, dict[str, float]]] = {}
        for shard in sorted(self.folder.glob("*.parquet")):
            try:
                table = _table(shard)
                for name, value in self.fingerprint.items():
                    table = table.filter(pc.equal(table[name].cast(pa.string()), value))
                columns = [table[c].to_pylist() for c in ("key", "reward", "status", "tokens", "parts")]
                rows = [(r, s, t, json.loads(p) if p else {}) for r, s, t, p in zip(*columns[1:], strict=True)]
            except FileNotFoundError:
                continue  # merged into another by the process that wrote it
            except Exception as e:  # a file of another program may be wrong in any way
                log.warning("%s cannot be read and is passed over; its texts are scored again (%s)", shard, _line(e))
                continue
            known.update(zip(columns[0], rows, strict=True))
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

        if len(self._own) > 1:
            try:
                merged = pa.concat_tables([_table(shard) for shard in self._own])
            except Exception as e:  # what is damaged is seen, and passed over, when it is read
                log.warning("the shards of %s stay apart (%s)", self.folder, _line(e))
                return
            whole = self._write({name: merged[name] for name in merged.column_names})
            for shard in self._own:
                shard.unlink(missing_ok=True)
            self._own = [whole]

    def _write(self, columns: dict[str, Any]) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        started = f"scores-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        new = self.folder / f"{started}.new"
        schema = pa.schema(
            [("key", pa.binary()), ("reward", pa.float64()), ("status", pa.string()), ("tokens", pa.int64()),
             ("parts", pa.string()), *((name, pa.string()) for name in self.fingerprint)]
        )  # fmt: skip
        made = io.BytesIO()
        pq.write_table(pa.table(columns, schema=schema), made)
        shard = self.folder / f"{started}-{_digest(made.getvalue())}.parquet"
        try:
            new.write_bytes(made.getvalue())
            new.replace(shard)
        except OSError as e:
            raise WorkError(
                f"the score store {self.folder} cannot be written ({e.strerror}); what is in it is kept"
            ) from None
        return shard

    def record(self, what: dict[str, Any]) -> Path:
        """Write how the model was run beside its scores, once per model: `model-<hash>.json`."""
        name = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        path = self.folder / f"model-{name}.json"
        new = path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(what, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        new.replace(path)
        return path


def _table(shard: Path) -> Any:
    """A shard's table. Raises an error where its bytes are not those that were written."""
    import pyarrow.parquet as pq

    data = shard.read_bytes()
    if shard.stem.rpartition("-")[2] != _digest(data):
        raise ValueError("its bytes do not fit the hash in its name: it is damaged, or was renamed")
    return pq.read_table(io.BytesIO(data))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _line(error: Exception) -> str:
    return shorten(error, 100) or type(error).__name__


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
