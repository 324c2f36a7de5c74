"""An append-only store of records on disk, shared by any number of processes, in which no fault goes unseen.

A store is a folder of JSON Lines shards, one per process that wrote to it, that `datasets` reads at any moment as they
are::

    datasets.load_dataset("json", data_files="rewrites/*.jsonl")

Every line begins with a checksum of what follows it, so that no part of a line passes for a whole one::

    {"check": "5f1c22a90b7d3e84", "key": "9f8a...", "text": "A longer text.", ...}

A line without a checksum, from elsewhere, is taken as it is. Replies are stored one a record (`rewriting.cache`),
scores a block a record (`scoring.store`); the suffix of their shards differs, so that one folder can hold both.

Each process writes to a shard of its own, which it holds locked (flock) while it lives; a key that is being worked on
is a locked byte of the file `.claims` (at the offset that the key names), which the kernel lets go of when the process
ends, however it ends. In memory there is only an index: about 150 bytes a record, whatever its length.

What is safe: a record is in the file when `put` returns, so a killed process loses none. The disk is told to write
(fsync) every two seconds and when the store is closed: a power cut may take the records of the last two seconds. A
damaged record (a flipped bit, a cut, a run of NULs) is never given out: it counts as missing, its neighbours are found
all the same, and `faults` names its line. A cut takes what stood behind it in that file, for that is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ratekit.errors import InputError, WorkError

try:
    import fcntl
except ImportError:  # no such locks on Windows: one process per store there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("ratekit")

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
RESERVE = 8 * 2**20  # bytes set aside, so that what is under way when the disk fills up can still be kept
LONGEST = 1 << 26  # bytes of a line; what stands behind a longer one in its file is not read
SYNC_EVERY = 2.0  # seconds between two fsyncs
_CHECK, _KEY = b'{"check": "', b'", "key": "'  # a checksum of 16 digits stands between them
_KEY_AT = len(_CHECK) + 16
_HEAD = re.compile(rb'\{"(?:check|key)": "')  # strings hold no bare quote: it begins a record, and stands nowhere else


def no_fault(record: dict[str, Any]) -> str | None:
    """Any record will do."""
    return None


class Store:
    """Records by key.

    Parameters
    ----------
    folder
        Where they are; it is made where there is none.
    what
        They are called, in messages and file names.
    fault
        What is wrong with a record's fields, or None: such a record counts as missing.
    suffix
        Of the shards.

    Raises
    ------
    InputError
        Where the folder cannot be made or read.
    WorkError
        Where it cannot be written (a full or read-only disk); what is in it is kept.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Store(folder, "replies").put("k1", {"text": "hello"})
    >>> Store(folder, "replies").get("k1")
    {'key': 'k1', 'text': 'hello'}
    """

    def __init__(
        self,
        folder: str | Path,
        what: str,
        fault: Callable[[dict[str, Any]], str | None] = no_fault,
        suffix: str = ".jsonl",
    ) -> None:
        self.folder, self.what, self.fault, self.suffix = Path(folder).expanduser(), what, fault, suffix
        if self.folder.is_file():
            raise InputError(f"the folder of {what} {self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"the folder of {what} {self.folder} cannot be made: {e.strerror}") from None
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
        self._damaged = 0
        self._reserve = self.folder / ".reserve"
        self.full: str | None = None  # why nothing new should be begun, once the disk is full
        self._adopt()
        self.refresh()

    def _adopt(self) -> None:
        """Give a name to a shard whose writer was killed between its first line and that."""
        with contextlib.suppress(OSError):
            for nameless in self.folder.glob(f".{self.what}-*"):
                if nameless.suffix or not ordinary(nameless):
                    continue  # of a file that was being replaced
                with nameless.open("rb") as f:
                    if try_lock(f.fileno()):
                        if os.fstat(f.fileno()).st_size:
                            nameless.rename(nameless.with_name(nameless.name[1:] + self.suffix))
                        else:
                            nameless.unlink()

    # --- reading ---

    def get(self, key: str) -> dict[str, Any] | None:
        """The latest record under `key`; None where there is none, or where it is damaged."""
        place = self._index.get(short(key))
        if place is None:
            return None
        shard, offset = place >> 40, place & (2**40 - 1)
        try:
            reader = self._readers.get(shard)
            if reader is None:
                reader = self._readers[shard] = self._shards[shard].open("rb")
            reader.seek(offset)
            line = reader.readline(LONGEST)
        except OSError:
            return None
        record = next(pieces(line), (0, None))[1]
        if record is None or record["key"] != key or self.fault(record):
            del self._index[short(key)]
            self._damaged += 1
            if self._damaged == 1:
                log.warning("%s holds a damaged record of %s, which counts as missing", self._shards[shard], self.what)
            return None
        return record

    def records(self) -> Iterator[dict[str, Any]]:
        """The latest record of every key, shard by shard; damaged ones are passed over."""
        for number, path in enumerate(self._shards):
            with path.open("rb") as f:
                start = 0
                for line in _bounded(f):
                    for offset, record in pieces(line):
                        place = number << 40 | start + offset
                        if record and self._index.get(short(record["key"])) == place and not self.fault(record):
                            yield record
                    start += len(line)

    def first_records(self) -> Iterator[dict[str, Any]]:
        """The first record of each shard."""
        for path in self._shards:
            with contextlib.suppress(OSError), path.open("rb") as f:
                record = next(pieces(f.readline(LONGEST)), (0, None))[1]
                if record and not self.fault(record):
                    yield record

    def shards(self) -> list[Path]:
        """The files, in the order in which they count."""
        return list(self._shards)

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
                for path in sorted(self.folder.glob("*" + self.suffix)):
                    if path.name not in self._known:
                        self._known.add(path.name)
                        if not ordinary(path):
                            log.warning("%s is %s", path, NOT_READ)
                            continue
                        self._shards.append(path)
                        self._growing[len(self._shards) - 1] = 0
        except OSError as e:
            raise InputError(f"the folder of {self.what} {self.folder} cannot be read: {e.strerror}") from None
        for shard in list(self._growing):
            self._read_on(shard)

    def _read_on(self, shard: int) -> None:
        """Index the new whole lines of a shard; one whose writer is gone is repaired and done with."""
        path, start = self._shards[shard], self._growing[shard]
        try:
            with path.open("rb") as f:
                finished = try_lock(f.fileno())
                if os.fstat(f.fileno()).st_size > start:
                    f.seek(start)
                    for line in _bounded(f):
                        if len(line) == LONGEST:
                            log.warning(
                                "%s holds a line of more than %d MiB; no more of it is read", path, LONGEST >> 20
                            )
                            finished = True
                        elif line.endswith(b"\n"):
                            self._take_in(line, shard, start)
                            start += len(line)
                        elif finished and any(record for _, record in pieces(line)):  # all but its newline
                            self._take_in(line, shard, start)
                            _end_whole(path, None)
                            break
                        elif finished:
                            _end_whole(path, start)
                            log.warning("%s ended in a torn line of %d bytes; cut off", path, len(line))
        except OSError as e:
            raise InputError(f"{path} cannot be read: {e.strerror}") from None
        if finished:
            del self._growing[shard]
        else:
            self._growing[shard] = start

    def _take_in(self, line: bytes, shard: int, offset: int) -> None:
        whole = line.startswith(_CHECK) and line.startswith(_KEY, _KEY_AT) and line.rstrip().endswith(b"}")
        if whole and line.find(_CHECK, 1) < 0:
            key = line[_KEY_AT + len(_KEY) :].partition(b'"')[0].decode("ascii", "replace")
            self._index[short(key)] = shard << 40 | offset
            return
        for within, record in pieces(line):
            if record is not None:
                self._index[short(record["key"])] = shard << 40 | offset + within

    # --- writing ---

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Append a record; when this returns it is in the file, and a kill of the process cannot take it back."""
        line = line_of({"key": key, **record})
        self.prepare()
        try:
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
            _hidden(path).rename(path)
            _sync_folder(self.folder)

    def prepare(self) -> None:
        """Open the shard to write to, so that a read-only or full disk is known before any work is done."""
        try:
            if self._file is None:
                self._open_shard()
        except OSError as e:
            raise self._unwritable(e) from None

    def _open_shard(self) -> None:
        now = time.time_ns()  # shards are read in the order of their names, and of two records the later counts
        stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now // 10**9))}-{now % 10**9:09d}"
        path = self.folder / f"{self.what}-{stamp}-{os.getpid()}-{uuid.uuid4().hex[:8]}{self.suffix}"
        _set_aside(self._reserve, RESERVE)
        file = os.open(_hidden(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        if not try_lock(file) or not _hidden(path).exists():  # another process is tidying up just now
            os.close(file)
            return self._open_shard()
        self._file, self._size = file, 0
        self._known.add(path.name)
        self._shards.append(path)
        self._own = len(self._shards) - 1

    def _unwritable(self, e: OSError) -> WorkError:
        return WorkError(
            f"the folder of {self.what} {self.folder} cannot be written: {e.strerror}; the {len(self):,} {self.what} "
            "in it are kept. Make room, or give another folder (--cache), and run the same command again"
        )

    # --- several processes ---

    def claim(self, key: str) -> bool:
        """Whether this process may work on `key`: False while another one does."""
        try:
            taken = self._lock(key)
        except OSError as e:
            raise self._unwritable(e) from None
        if taken:
            self.refresh()  # the other process may have written it just before letting go
        return taken

    def _lock(self, key: str) -> bool:
        if fcntl is None:
            return True
        if self._claims is None:
            self._claims = os.open(self.folder / ".claims", os.O_RDWR | os.O_CREAT | NO_LINK, 0o644)
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks: then two processes may do the same work
            return True
        return True

    def release(self, key: str) -> None:
        """Let go of the claim on `key`."""
        if fcntl is not None and self._claims is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _offset(key))

    def close(self) -> None:
        """Flush to the disk and let go of every lock; the store can be used again."""
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
        with contextlib.suppress(OSError):  # on a read-only disk there is none
            self._reserve.unlink(missing_ok=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# --- lines -----------------------------------------------------------------------------------------------


def line_of(record: dict[str, Any]) -> bytes:
    """A record as its line, with the checksum.

    Examples
    --------
    >>> line_of({"key": "k1"})
    b'{"check": "0e2932a87cab9254", "key": "k1"}\\n'
    """
    body = b'", ' + json.dumps(record, ensure_ascii=True).encode()[1:]
    return b"%s%s%s\n" % (_CHECK, _digest(body), body)


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line, without its checksum; None where it is damaged or none. One without a checksum is taken."""
    line = line.strip(b"\r\n\0 ")
    if line.startswith(_CHECK):
        body = line[_KEY_AT:]
        if line[len(_CHECK) : _KEY_AT] != _digest(body):
            return None
        line = b"{" + body[3:]
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None


def pieces(line: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The records in a line with their places in it: one, unless its end was damaged and the next follows it."""
    starts = [m.start() for m in _HEAD.finditer(line)]
    if not starts or line[: starts[0]].strip(b"\r\n\0 "):
        yield 0, parsed(line) if not starts else None
    for start, end in zip(starts, [*starts, len(line)][1:], strict=True):
        yield start, parsed(line[start:end])


NOT_READ = "no ordinary file but a link, a pipe or a device, and is not read"


def ordinary(shard: Path) -> bool:
    """Whether it is a file that lies in its folder, and no link, pipe or device."""
    return stat.S_ISREG(shard.lstat().st_mode)


def shards_in(folder: str | Path, suffix: str) -> list[Path]:
    """The ordinary files of that suffix in a folder, in the order in which they count."""
    return [path for path in sorted(Path(folder).glob("*" + suffix)) if ordinary(path)]


def _bounded(f: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; the last is cut at LONGEST bytes where it is longer."""
    while line := f.readline(LONGEST):
        yield line
        if len(line) == LONGEST:
            return


def lines(shard: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """What stands in a shard: line numbers, the bytes, and the record; None for one that is none."""
    with shard.open("rb") as f:
        for number, line in enumerate(_bounded(f), 1):
            found = list(pieces(line))
            ends = [*(start for start, _ in found[1:]), len(line)]
            for (start, record), end in zip(found, ends, strict=True):
                yield number, line[start:end], record


def is_read_whole(shard: Path) -> bool:
    """Whether no line of the shard is so long that what stands behind it is not read."""
    with shard.open("rb") as f:
        return all(len(line) < LONGEST for line in _bounded(f))


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


def short(key: str) -> bytes:
    """A key in half the memory."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode("utf-8", "surrogatepass")


def _offset(key: str) -> int:
    return int(hashlib.sha256(short(key)).hexdigest()[:15], 16)


# --- files -----------------------------------------------------------------------------------------------


def try_lock(file: int) -> bool:
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


def is_written_to(shard: Path) -> bool:
    """Whether a live process holds the shard."""
    with shard.open("rb") as f:
        return not try_lock(f.fileno())


def _hidden(shard: Path) -> Path:
    """What a shard is called until it has a line."""
    return shard.with_name("." + shard.stem)


def _end_whole(path: Path, size: int | None) -> None:
    """Make the shard end with a whole line: cut at `size`, or with the newline that it lacks."""
    with contextlib.suppress(OSError), path.open("r+b") as f:  # on a read-only disk the line is passed over
        if size is not None:
            f.truncate(size)
        else:
            f.seek(0, os.SEEK_END)
            f.write(b"\n")


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a system that opens no folders keeps its own order
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _set_aside(path: Path, size: int) -> None:
    """Make a file of `size` bytes that are really there. Raises OSError where they are not."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | NO_LINK, 0o644)
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
