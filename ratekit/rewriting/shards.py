"""The files under a cache: append-only shards, the locks that say who writes to them, and the claims on keys."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no such locks on Windows: one process per cache there
    fcntl = None  # type: ignore[assignment]


class Claims:
    """Who is asking for which key: a locked byte of one file, at the offset that the key names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, key: str) -> bool:
        """Whether the key is ours now: False while another process holds it. OSError where the file cannot be made."""
        if fcntl is None:
            return True
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks: then two processes may ask the same
            return True
        return True

    def release(self, key: str) -> None:
        """Let go of one key."""
        if fcntl is not None and self._file is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(key))

    def close(self) -> None:
        """Let go of all."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def hidden(shard: Path) -> Path:
    """What a shard is called until it has a line."""
    return shard.with_name("." + shard.stem)


def is_written_to(shard: Path) -> bool:
    """Whether a live process holds the shard."""
    with shard.open("rb") as f:
        return not try_lock(f.fileno())


def lines(shard: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of a shard with their numbers; None for one that is no record."""
    with shard.open("rb") as f:
        for number, line in enumerate(f, 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield number, record if isinstance(record, dict) and isinstance(record.get("key"), str) else None


def short(key: str) -> bytes:
    """A key in half the memory."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()


def _offset(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)


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


def is_record(line: bytes) -> bool:
    """Whether a line is whole but for its newline."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def end_whole(path: Path, size: int | None) -> None:
    """Make the shard end with a whole line: cut at `size`, or with the newline that it lacks."""
    with contextlib.suppress(OSError), path.open("r+b") as f:  # on a read-only disk the line is passed over
        if size is not None:
            f.truncate(size)
        else:
            f.seek(0, os.SEEK_END)
            f.write(b"\n")


def set_aside(path: Path, size: int) -> None:
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
