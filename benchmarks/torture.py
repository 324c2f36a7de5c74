"""What is lost when a rewriting run is stopped in every way, and when its cache lies on a bad disk.

python benchmarks/torture.py              # both tables, some minutes; loopback only
python benchmarks/torture.py stops        # how a run ends
python benchmarks/torture.py damage       # 200 damages of each kind

Everything is drawn from one seed. The server is that of the tests: it counts which replies it has sent whole.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rewriting_support import Server, environment, labelled  # noqa: E402
from test_rewriting_kill import finished, start  # noqa: E402

from ratekit.rewriting.cache import Cache, record_of  # noqa: E402

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
        _, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        answered, kept = server.stats["sent"], len(Cache(cache))
        server.configure(then="", mean_ms=0)
        again = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=300)
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
    from ratekit.rewriting.archive import faults

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
            n, named = faults(folder)
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


def show(rows: Iterable[tuple[str, dict[str, int]]]) -> None:
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
    parser.add_argument("what", nargs="?", choices=["all", "stops", "damage"], default="all")
    parser.add_argument("--rows", type=int, default=600)
    given = parser.parse_args()
    logging.getLogger("ratekit").setLevel(logging.CRITICAL)  # each damage is said
    if given.what in ("all", "damage"):
        show((damage.__name__, damaged(damage)) for damage in DAMAGES)
    if given.what in ("all", "stops"):
        show((how, stopped(how, given.rows)) for how in ("SIGTERM", "quota", "401", "Ctrl-C", "budget"))
        show([("SIGKILL x 20", killed())])
