"""What is lost when a rewriting run is stopped in every way, and when its cache lies on a bad disk.

python benchmarks/torture.py              # all tables, some minutes; loopback only
python benchmarks/torture.py stops        # how a run ends, and what a budget holds
python benchmarks/torture.py damage       # 200 damages of each kind
python benchmarks/torture.py disk         # a full and a read-only disk
python benchmarks/torture.py deaths       # the end after each file operation of a command
python benchmarks/torture.py hostile      # folders and files from strangers
python benchmarks/torture.py canaries     # keys, passwords and texts, looked for after every command

Everything is drawn from one seed. The server is that of the tests: it counts which replies it has sent whole.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process that has had more threads may wait for ever
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from deaths import COMMANDS, Places, deaths  # noqa: E402
from hostile import Hostile, cases  # noqa: E402
from rewriting_support import Server, environment, labelled  # noqa: E402
from test_rewriting_cache import Disk  # noqa: E402
from test_rewriting_kill import finished, start  # noqa: E402

import ratekit as rk  # noqa: E402
from ratekit.rewriting.base import Reply  # noqa: E402
from ratekit.rewriting.cache import Cache, record_of, spent_on  # noqa: E402

PARTS = ("stops", "damage", "disk", "deaths", "hostile", "canaries")
SEED = 0
LATENCY_MS = 400
PRICES = ("--price-in", "1", "--price-out", "1")


def stopped(how: str, rows: int = 600, concurrency: int = 64) -> dict[str, int]:
    """A run of `ratekit rewrite` that is stopped half-way, then run again.

    Returns
    -------
    dict
        answered: replies sent whole to the run that was stopped; kept: in the cache when it had ended; lost: the
        difference; twice: requests of the second run for what had been answered; code: exit code of the first.
    """
    then = {"quota": "quota", "401": "401"}.get(how, "")
    with (
        Server("chat_server.py", mean_ms=LATENCY_MS, then=then, after=rows // 3) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        data, cache = Path(folder) / "data.parquet", Path(folder) / "cache"
        labelled(rows).to_parquet(data)
        command = [
            sys.executable, "-m", "ratekit", "rewrite", str(data), "-a", "length", "--rewriter", "openai:m",
            "--base-url", server.url, "--out", f"{folder}/out", "--cache", str(cache),
            "--concurrency", str(concurrency), *(PRICES if how == "budget" else ()),
        ]  # fmt: skip
        more = ["--budget", "0.01"] if how == "budget" else []
        process = subprocess.Popen(
            command + more, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
        )  # fmt: skip
        sent = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}.get(how)
        if sent is not None:
            while server.stats.get("sent", 0) < rows // 4 and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(sent)
        _, err = process.communicate(timeout=1200)
        assert "Traceback" not in err, err
        answered, kept = server.stats["sent"], len(Cache(cache))
        server.configure(then="", mean_ms=0)
        again = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1200)
        assert again.returncode == 0, again.stderr
        twice = server.stats["requests"] - (len(Cache(cache)) - kept)
        return {
            "answered": answered, "kept": kept, "lost": answered - kept, "twice": twice + answered - kept,
            "code": process.returncode,
        }  # fmt: skip


def killed(times: int = 20, rows: int = 1000) -> dict[str, int]:
    """SIGKILL at random moments, 16 requests at a time; at most those under way are lost with each."""
    with Server("chat_server.py", mean_ms=250) as server, tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        kills, _, _, statuses = finished(start(server, cache, rows, kills=times))
        assert all(s == ["ok", "ok"] for s in statuses)
        stats, kept = server.stats, len(Cache(cache))
        return {
            "answered": stats["sent"], "kept": kept, "lost": stats["sent"] - kept, "twice": stats["sent"] - kept,
            "code": -9 * bool(kills),
        }  # fmt: skip


def together(rows: int = 400) -> dict[str, int]:
    """Two processes on one cache, one of which is killed: the other one asks for what is missing, and nothing twice."""
    with Server("chat_server.py", mean_ms=250) as server, tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        first, second = (start(server, cache, rows) for _ in range(2))
        while server.stats.get("sent", 0) < rows // 2:
            time.sleep(0.05)
        first.kill()
        first.communicate()
        _, _, _, statuses = finished(second)
        assert all(s == ["ok", "ok"] for s in statuses)
        sent, kept = server.stats["sent"], len(Cache(cache))
        return {"answered": sent, "kept": kept, "lost": sent - kept, "twice": sent - kept, "code": first.returncode}


def budgeted(budget: float, rows: int = 600, concurrency: int = 64, runs: int = 3) -> dict[str, object]:
    """`ratekit rewrite --budget` several times in a row, many requests at once.

    Returns
    -------
    dict
        budget; spent: by the replies in the cache, all runs together; recorded: the cost in `rewriting.json`; answered
        and kept replies.
    """
    with Server("chat_server.py", mean_ms=50) as server, tempfile.TemporaryDirectory() as folder:
        labelled(rows).to_parquet(f"{folder}/data.parquet")
        command = [
            sys.executable, "-m", "ratekit", "rewrite", f"{folder}/data.parquet", "-a", "length", "--rewriter",
            "openai:m", "--base-url", server.url, "--out", f"{folder}/out", "--cache", f"{folder}/cache",
            "--concurrency", str(concurrency), *PRICES, "--budget", str(budget),
        ]  # fmt: skip
        for _ in range(runs):
            done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1200)
            assert done.returncode == 0, done.stderr
        cache = Cache(f"{folder}/cache")
        spent = sum(sum(spent_on(record).values()) for record in cache.records()) / 1e6
        recorded = json.loads(Path(folder, "out", "rewriting.json").read_text())["cost"]
        return {
            "budget": budget, "spent": round(spent, 6), "recorded": round(recorded, 6),
            "answered": server.stats["sent"], "kept": len(cache),
        }  # fmt: skip


# --- disks -------------------------------------------------------------------------------------------------


def disk(how: str, rows: int = 200) -> dict[str, int]:
    """A run on a disk that fills half-way, or from a whole cache that can only be read; then the same run again.

    Returns
    -------
    dict
        answered, kept and lost: replies of the first run; twice: of the second run's requests those that had been
        answered; missing: rewrites after it.
    """
    asked: list[int] = []

    def chat(conversations: Sequence[Any]) -> Iterator[Reply]:
        asked.append(len(conversations))
        for i in range(len(conversations)):
            yield Reply(i, f"It was a good film, and number {len(asked)}.{i} of those that I saw.", "stop", {})

    chat.fingerprint = "chat"  # type: ignore[attr-defined]
    real = os.open

    def read_only(path: Any, flags: int, *more: Any, **given: Any) -> int:
        if str(path).startswith(folder) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *more, **given)

    def run() -> Any:
        rewriter = rk.ChatRewriter(chat, rk.ATTRIBUTES["length"], Cache(folder))
        return rk.rewrite(labelled(rows), "length", rewriter, progress=False)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        with patched.context() as disk:
            if how == "full":
                Disk(disk, 30_000)
            with contextlib.suppress(rk.WorkError):
                run()
        answered, kept = sum(asked), len(Cache(folder))
        if how == "read-only":
            patched.setattr(os, "open", read_only)
        ds = run()
        return {
            "answered": answered, "kept": kept, "lost": answered - kept,
            "twice": sum(asked) - answered - (len(Cache(folder)) - kept),
            "missing": sum(text is None for row in ds["rewrites"] for text in row),
        }  # fmt: skip


def ended() -> Iterator[tuple[str, dict[str, int]]]:
    """The end of each command after each of its file operations, then the same command again.

    Returns
    -------
    iterator of (str, dict)
        operations: of an undisturbed run; recovered: ends after which the same command gave what that run gave.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = Places(Path(folder))
        for name in COMMANDS:
            operations, lost = deaths(name, places, Path(folder) / f"of-{name}")
            yield name, {"operations": operations, "recovered": operations - len(lost)}


def strangers() -> Iterator[tuple[str, dict[str, object]]]:
    """Each kind of hostile folder and file, with one of the commands that read such a thing, taken in turn.

    Returns
    -------
    iterator of (str, dict)
        cases; as it should be: refused in one line, or read without what is damaged, within 10 s of processor time and
        2 GiB; the slowest, and the most memory.
    """
    import torch  # noqa: F401 (before the processes of the cases are forked)
    import transformers  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        hostile = Hostile(Path(folder))
        for kind, of in itertools.groupby(cases(every=False), lambda case: case.kind):
            ends = [(case, hostile.run(case)) for case in of]
            for case, end in ends:
                if end.fault:
                    print(f"{kind}, {case.name}, {case.command}: {end.fault}", file=sys.stderr, flush=True)
            yield kind, {
                "cases": len(ends), "as it should be": sum(not end.fault for _, end in ends),
                "slowest s": round(max(end.seconds for _, end in ends), 1),
                "most MiB": max(end.memory for _, end in ends) >> 20,
            }  # fmt: skip


def canaries() -> Iterator[tuple[str, dict[str, object]]]:
    """The tests that look for canaries in all that commands, notebooks and judges print and write."""
    for name in ("test_canaries.py", "test_redaction.py"):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", str(ROOT / "tests" / name)],
            env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        said = done.stdout.strip().splitlines()[-1].strip("= ")
        yield name, {"tests": said, "leaks": "?" if done.returncode else 0}


# --- damaged caches --------------------------------------------------------------------------------------


def flip(raw: bytes, draw: random.Random) -> bytes:
    """One bit the other way."""
    at = draw.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << draw.randrange(8)]) + raw[at + 1 :]


def cut(raw: bytes, draw: random.Random) -> bytes:
    """The end missing."""
    return raw[: draw.randrange(len(raw))]


def nul_tail(raw: bytes, draw: random.Random) -> bytes:
    """The end overwritten with NULs, as after a power cut."""
    at = draw.randrange(len(raw))
    return raw[:at] + b"\0" * (len(raw) - at)


def hole(raw: bytes, draw: random.Random) -> bytes:
    """A block of 512 bytes in NULs."""
    at = draw.randrange(len(raw) // 512) * 512
    return raw[:at] + b"\0" * len(raw[at : at + 512]) + raw[at + 512 :]


def swapped(raw: bytes, draw: random.Random) -> bytes:
    """A piece of the file in another place."""
    size = draw.randrange(1, 2000)
    source, target = draw.randrange(len(raw) - size), draw.randrange(len(raw) - size)
    return raw[:target] + raw[source : source + size] + raw[target + size :]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, nul_tail, hole, swapped)


def damaged(damage: Callable[[bytes, random.Random], bytes], trials: int = 200, records: int = 60) -> dict[str, int]:
    """What a cache gives after a damage.

    Returns
    -------
    dict
        wrong: texts given that were never stored under their key; missing: the most records that one damage cost;
        needless: the most of those that the damage had not touched; unseen: trials in which records were missing and
        `verify` named no line, the file being longer than what it lacks.
    """
    from ratekit.rewriting.archive import shard_faults

    draw = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        whole = {
            f"{i:032x}": f'Text {i}, with a "quote" and an umlaut: ü. ' * draw.randrange(1, 12) for i in range(records)
        }
        with Cache(folder) as cache:
            for key, text in whole.items():
                turns = [{"role": "user", "content": f"Adjust {key}"}]
                about = {"model": "m", "params": "", "template": "t", "attribute": "length", "phrase": "longer"}
                cache.put(key, record_of(**about, messages=turns, text=text, finish_reason="stop", usage={}))
        (shard,) = Path(folder).glob("*.jsonl")
        raw = shard.read_bytes()
        lines = raw.splitlines(keepends=True)
        found = {"wrong": 0, "missing": 0, "needless": 0, "unseen": 0}
        for _ in range(trials):
            broken = damage(raw, draw)
            shard.write_bytes(broken)
            intact = sum(line in broken for line in lines)
            n, named = shard_faults(folder)
            reader = Cache(folder)
            got = {key: reader.get(key) for key in whole}
            list(reader.records())
            reader.close()
            found["wrong"] += sum(r is not None and r.get("text") != whole[k] for k, r in got.items())
            missing = sum(r is None for r in got.values())
            found["missing"] = max(found["missing"], missing)
            found["needless"] = max(found["needless"], missing - (records - intact))
            # A cut leaves nothing that could be named: its torn line is taken off when the folder is opened.
            found["unseen"] += bool(
                missing and damage is not cut and damage is not nul_tail and not (named or n < records)
            )
        return found


def show(rows: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Rows of a Markdown table, each as soon as it is known."""
    head = True
    for name, row in rows:
        if head:
            print(f"| | {' | '.join(row)} |\n|---|{'---:|' * len(row)}", flush=True)
        head = False
        print(f"| {name} | {' | '.join(map(str, row.values()))} |", flush=True)
    print(flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["all", *PARTS], default="all")
    parser.add_argument("--rows", type=int, default=600)
    given = parser.parse_args()
    if given.what in ("all", "deaths"):
        show(ended())
    logging.getLogger("ratekit").setLevel(logging.CRITICAL)  # each damage is said
    if given.what in ("all", "hostile"):
        show(strangers())
    if given.what in ("all", "canaries"):
        show(canaries())
    if given.what in ("all", "damage"):
        show((damage.__name__, damaged(damage)) for damage in DAMAGES)
    if given.what in ("all", "disk"):
        show((f"{how} disk", disk(how)) for how in ("full", "read-only"))
    if given.what in ("all", "stops"):
        show((how, stopped(how, given.rows)) for how in ("SIGTERM", "quota", "401", "Ctrl-C", "budget"))
        show([("SIGKILL x 20", killed()), ("SIGKILL of one of two", together())])
        show((f"budget {money}, three runs", budgeted(money)) for money in (0.005, 0.02))
