"""Replies on disk, written before they are handed on, so that no paid reply is lost.

A cache is a folder of append-only JSON Lines shards, one per process that wrote to it, that `datasets` reads at any
moment as they are::

    datasets.load_dataset("json", data_files="rewrites/*.jsonl")

Example line (see `record_of`)::

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
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratekit.errors import InputError, WorkError
from ratekit.schema import Conversation

try:
    import fcntl
except ImportError:  # no such locks on Windows: one process per cache there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("ratekit")

RESERVE = 8 * 2**20  # bytes set aside, so that what is under way when the disk fills up can still be kept
SYNC_EVERY = 2.0  # seconds between two fsyncs: a kill loses nothing, a power cut at most this much
_HEAD = b'{"key": "'


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
        self._claims: int | None = None
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
            for hidden in self.folder.glob(".replies-*"):
                with hidden.open("rb") as f:
                    if _try_lock(f.fileno()):
                        if os.fstat(f.fileno()).st_size:
                            hidden.rename(hidden.with_name(f"{hidden.name[1:]}.jsonl"))
                        else:
                            hidden.unlink()

    # --- reading ---

    def get(self, key: str) -> dict[str, Any] | None:
        """The record under `key`, if there is one."""
        place = self._index.get(_short(key))
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
                        if self._index.get(_short(record["key"])) == place:
                            yield record
                    except (ValueError, TypeError, KeyError):
                        continue

    def __contains__(self, key: str) -> bool:
        return _short(key) in self._index

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
                finished = _try_lock(f.fileno())
                if os.fstat(f.fileno()).st_size > start:
                    f.seek(start)
                    for line in f:
                        if line.endswith(b"\n"):
                            self._take_in(line, shard, start)
                            start += len(line)
                        elif finished and _is_record(line):  # all but its newline
                            self._take_in(line, shard, start)
                            _end(path, None)
                        elif finished:
                            _end(path, start)
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
            self._index[_short(key)] = shard << 40 | offset

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
        self._index[_short(key)] = self._own << 40 | self._size
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
            _hidden(path).rename(path)

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
        _set_aside(self._reserve, RESERVE)
        file = os.open(_hidden(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        if not _try_lock(file) or not _hidden(path).exists():  # another process is tidying up just now
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
        if fcntl is None:
            return True
        if self._claims is None:
            try:
                self._claims = os.open(self.folder / ".claims", os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as e:
                raise self._unwritable(e) from None
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks: then two processes may ask the same
            return True
        self.refresh()  # the other process may have written it just before letting go
        return True

    def release(self, key: str) -> None:
        """Let go of the claim on `key`."""
        if fcntl is not None and self._claims is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _offset(key))

    def close(self) -> None:
        """Flush to the disk and let go of every lock; the cache can be used again."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        if self._claims is not None:
            os.close(self._claims)
            self._claims = None
        if self._file is not None:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)
                self._file = None
                if self._size == 0:
                    _hidden(self._shards[self._own]).unlink(missing_ok=True)
        self._reserve.unlink(missing_ok=True)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _hidden(shard: Path) -> Path:
    """What a shard is called until it has a line."""
    return shard.with_name("." + shard.stem)


def is_written_to(shard: Path) -> bool:
    """Whether a live process holds the shard."""
    with shard.open("rb") as f:
        return not _try_lock(f.fileno())


def lines(shard: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a shard with their numbers; None for one that is no record."""
    with shard.open("rb") as f:
        for number, line in enumerate(f, 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield number, record if isinstance(record, dict) and isinstance(record.get("key"), str) else None


def _short(key: str) -> bytes:
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()


def _offset(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)


def _try_lock(file: int) -> bool:
    """Whether nobody else holds this file locked; it is ours then, until it is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _end(path: Path, size: int | None) -> None:
    """Make the shard end with a whole line: cut at `size`, or with the newline that it lacks."""
    with contextlib.suppress(OSError), path.open("r+b") as f:  # on a read-only disk the line is passed over
        if size is not None:
            f.truncate(size)
        else:
            f.seek(0, os.SEEK_END)
            f.write(b"\n")


def _set_aside(path: Path, size: int) -> None:
    """Make a file of `size` bytes that are really there. Raises OSError where they are not."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.write(file, b"\0" * size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
