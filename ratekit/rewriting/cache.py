"""Replies on disk, written before they are handed on, so that no paid reply is lost.

A cache is a folder of append-only JSON Lines shards, one per process that wrote to it, that `datasets` reads at any
moment as they are::

    datasets.load_dataset("json", data_files="rewrites/*.jsonl")

Example line (see `records.record_of`)::

    {"key": "9f8a...", "model": "gpt-4o-mini", "params": "max_tokens=2048,temperature=0.7", "template": "1b2c3d4e",
     "attribute": "length", "phrase": "longer", "messages": [{"role": "user", "content": "Adjust this ..."}],
     "text": "A longer text.", "finish_reason": "stop", "usage": {"prompt": 61, "completion": 9},
     "created": "2026-05-04T10:11:12Z"}

The key is a hash of model, parameters and messages: another template, text or model is another key, so that nothing
in a folder can be taken for what it is not. Where a key is there twice the latest line counts.

Several processes may use one folder. Each writes to a shard of its own, which it holds locked (flock) while it lives;
a key that is being asked for is a locked byte of the file `.claims` (at the offset that the key names), which the
kernel lets go of when the process ends, however it ends. A line torn by a crash is cut off when the folder is next
opened. In memory there is only an index: about 150 bytes a reply, whatever its length.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, WorkError
from ratekit.rewriting.shards import Claims, end_whole, hidden, is_record, lines, set_aside, short, try_lock

log = logging.getLogger("ratekit")

RESERVE = 8 * 2**20  # bytes set aside, so that what is under way when the disk fills up can still be kept
SYNC_EVERY = 2.0  # seconds between two fsyncs: a kill loses nothing, a power cut at most this much
_HEAD = b'{"key": "'


class Cache:
    """An append-only store of records by key, shared by any number of processes.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Cache(folder).put("k1", {"text": "hello"})
    >>> Cache(folder).get("k1")
    {'key': 'k1', 'text': 'hello'}

    Raises InputError where the folder cannot be made or read, WorkError where it cannot be written (a full or
    read-only disk); what is in it is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.is_file():
            raise InputError(f"the cache {self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"the cache folder {self.folder} cannot be made: {e.strerror}") from None
        self._index: dict[bytes, int] = {}  # key -> shard number and offset of its line, in one integer
        self._shards: list[Path] = []
        self._readers: dict[int, Any] = {}
        self._growing: dict[int, int] = {}  # shards of other live processes, and how far they were read
        self._known: set[str] = set()
        self._folder_seen = -1
        self._claims = Claims(self.folder / ".claims")
        self._file: int | None = None
        self._own = -1
        self._size = 0
        self._synced = time.monotonic()
        self._reserve = self.folder / ".reserve"
        self.full: str | None = None  # why no new request should be made, once the disk is full
        self._adopt()
        self.refresh()

    def _adopt(self) -> None:
        """Give a name to a shard whose writer was killed between its first line and that."""
        with contextlib.suppress(OSError):
            for nameless in self.folder.glob(".replies-*"):
                with nameless.open("rb") as f:
                    if try_lock(f.fileno()):
                        if os.fstat(f.fileno()).st_size:
                            nameless.rename(nameless.with_name(f"{nameless.name[1:]}.jsonl"))
                        else:
                            nameless.unlink()

    # --- reading ---

    def get(self, key: str) -> dict[str, Any] | None:
        """The record under `key`, if there is one."""
        place = self._index.get(short(key))
        if place is None:
            return None
        shard, offset = place >> 40, place & (2**40 - 1)
        try:
            reader = self._readers.get(shard)
            if reader is None:
                reader = self._readers[shard] = self._shards[shard].open("rb")
            reader.seek(offset)
            record = json.loads(reader.readline())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("key") == key else None

    def templates(self) -> set[str]:
        """The hashes of the templates that the shards begin with."""
        first = [next(lines(path), (0, None))[1] for path in self._shards if path.exists()]
        return {str(record["template"]) for record in first if record and record.get("template")}

    def records(self) -> Iterator[dict[str, Any]]:
        """The latest record of every key, shard by shard."""
        for number, path in enumerate(self._shards):
            offset = 0
            with path.open("rb") as f:
                for line in f:
                    place, offset = number << 40 | offset, offset + len(line)
                    try:
                        record = json.loads(line)
                        if self._index.get(short(record["key"])) == place:
                            yield record
                    except (ValueError, TypeError, KeyError):
                        continue

    def __contains__(self, key: str) -> bool:
        return short(key) in self._index

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Take in what other processes have written since."""
        try:
            seen = self.folder.stat().st_mtime_ns
            if seen != self._folder_seen:
                # Within one tick of the file system's clock a second change would not show.
                self._folder_seen = seen if time.time_ns() - seen > 50_000_000 else -1
                for path in sorted(self.folder.glob("*.jsonl")):
                    if path.name not in self._known:
                        self._known.add(path.name)
                        self._shards.append(path)
                        self._growing[len(self._shards) - 1] = 0
        except OSError as e:
            raise InputError(f"the cache folder {self.folder} cannot be read: {e.strerror}") from None
        for shard in list(self._growing):
            self._read_on(shard)

    def _read_on(self, shard: int) -> None:
        """Index the new whole lines of a shard; one whose writer is gone is mended and done with."""
        path, start = self._shards[shard], self._growing[shard]
        try:
            with path.open("rb") as f:
                finished = try_lock(f.fileno())
                if os.fstat(f.fileno()).st_size > start:
                    f.seek(start)
                    for line in f:
                        if line.endswith(b"\n"):
                            self._take_in(line, shard, start)
                            start += len(line)
                        elif finished and is_record(line):  # all but its newline
                            self._take_in(line, shard, start)
                            end_whole(path, None)
                        elif finished:
                            end_whole(path, start)
                            log.warning("cache: %s ended in a torn line of %d bytes; cut off", path, len(line))
        except OSError as e:
            raise InputError(f"the cache shard {path} cannot be read: {e.strerror}") from None
        if finished:
            del self._growing[shard]
        else:
            self._growing[shard] = start

    def _take_in(self, line: bytes, shard: int, offset: int) -> None:
        if line.startswith(_HEAD) and line.rstrip().endswith(b"}"):
            key = line[len(_HEAD) : line.index(b'"', len(_HEAD))].decode("ascii", "replace")
        else:
            try:
                key = json.loads(line)["key"]
            except (ValueError, TypeError, KeyError):
                return  # `ratekit cache verify` names it; it will be asked for again
        if isinstance(key, str):
            self._index[short(key)] = shard << 40 | offset

    # --- writing ---

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record; when this returns it is in the file, and a kill of the process cannot take it back."""
        line = json.dumps({"key": key, **record}, ensure_ascii=True).encode() + b"\n"
        try:
            if self._file is None:
                self._open_shard()
            self._append(line)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._reserve.exists():
                raise self._unwritable(e) from None
            self._reserve.unlink()
            self.full = str(e.strerror)
            try:
                self._append(line)
            except OSError as e:
                raise self._unwritable(e) from None
        self._index[short(key)] = self._own << 40 | self._size
        self._size += len(line)
        if time.monotonic() - self._synced > SYNC_EVERY and self._file is not None:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def _append(self, line: bytes) -> None:
        """One line in one write. The shard gets its name with the first: an empty one is no dataset."""
        assert self._file is not None
        try:
            written = os.write(self._file, line)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        if written < len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._size == 0:
            path = self._shards[self._own]
            hidden(path).rename(path)

    def prepare(self) -> None:
        """Open the shard to write to, so that a read-only or full disk is known before anything is paid for."""
        try:
            if self._file is None:
                self._open_shard()
        except OSError as e:
            raise self._unwritable(e) from None

    def _open_shard(self) -> None:
        now = time.time_ns()  # shards are read in the order of their names, and of two replies the later counts
        stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now // 10**9))}-{now % 10**9:09d}"
        name = f"replies-{stamp}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path = self.folder / f"{name}.jsonl"
        set_aside(self._reserve, RESERVE)
        file = os.open(hidden(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        if not try_lock(file) or not hidden(path).exists():  # another process is tidying up just now
            os.close(file)
            return self._open_shard()
        self._file, self._size = file, 0
        self._known.add(path.name)
        self._shards.append(path)
        self._own = len(self._shards) - 1

    def _unwritable(self, e: OSError) -> WorkError:
        return WorkError(
            f"the cache {self.folder} cannot be written: {e.strerror}; the {len(self):,} replies in it are kept. "
            "Make room, or give another folder (--cache), and run the same command again"
        )

    # --- several processes ---

    def claim(self, key: str) -> bool:
        """Whether this process may ask for `key`: False while another one is asking for it."""
        try:
            taken = self._claims.take(key)
        except OSError as e:
            raise self._unwritable(e) from None
        if taken:
            self.refresh()  # the other process may have written it just before letting go
        return taken

    def release(self, key: str) -> None:
        """Let go of the claim on `key`."""
        self._claims.release(key)

    def close(self) -> None:
        """Flush to the disk and let go of every lock; the cache can be used again."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._claims.close()
        if self._file is not None:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = None
                if self._size == 0:
                    hidden(self._shards[self._own]).unlink(missing_ok=True)
        self._reserve.unlink(missing_ok=True)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
