"""Processes that are killed, and processes at once: no reply asked for twice, no row missing, none doubled."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from rewriting_support import ROOT, Server, environment

from ratekit.rewriting.cache import Cache
from ratekit.store import lines

pytestmark = pytest.mark.commands

SCRIPT = """
import json, os, random, signal, sys, time
sys.path.insert(0, "tests")
import aiohttp, datasets, openai, pyarrow.ipc, tqdm.auto  # before the clock runs
from rewriting_support import labelled
import ratekit as rk
from ratekit.rewriting.cache import Cache

def once(url, cache, n):
    chat = rk.OpenAIChat("m", url, concurrency=16)
    rewriter = rk.ChatRewriter(chat, rk.ATTRIBUTES["length"], Cache(cache))
    return rk.rewrite(labelled(n), "length", rewriter, depth=2, progress=False)

url, cache, n, kills = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
draw, killed = random.Random(0), 0
print("begin", flush=True)
while killed < kills:
    child = os.fork()
    if child == 0:
        once(url, cache, n)
        os._exit(0)
    time.sleep(draw.uniform(0.0, 1.2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        break
    killed += 1
ds = once(url, cache, n)
print(json.dumps([killed, list(ds["prompt_id"]), list(ds["rewrites"]), list(ds["rewrite_status"])]))
"""


def start(server, cache, n, kills=0):
    command = [sys.executable, "-c", SCRIPT, server.url, str(cache), str(n), str(kills)]
    return subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def check(rows, n):
    _, ids, rewrites, statuses = rows
    assert ids == [str(i) for i in range(n)]
    assert all(s == ["ok", "ok"] for s in statuses)
    assert all(all(texts) and len(texts) == 2 for texts in rewrites)


def shards_are_whole(cache):
    found = [record for shard in cache.glob("*.jsonl") for _, _, record in lines(shard)]
    assert all(record is not None for record in found)
    return found


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(tmp_path):
    n, cache = 500, tmp_path / "cache"
    with Server("chat_server.py", mean_ms=250) as server:
        rows = finished(start(server, cache, n, kills=20))
        stats = server.stats
    assert rows[0] == 20  # and none of them had finished
    assert (
        len(list(cache.glob("*.jsonl"))) >= 5
    )  # it was at work when it was killed, more often than not on a quiet machine
    check(rows, n)
    # The client had surely read a reply when it used the connection again: none of those was asked for twice.
    assert stats["again_after_read"] == 0
    # The others were sent in the instant of a kill: at most what was under way then.
    assert stats["sent_twice"] <= 20 * 16
    assert stats["sent"] - stats["n_keys"] < 0.2 * stats["n_keys"]
    found = shards_are_whole(cache)
    assert len(found) == len({r["key"] for r in found}) == len(Cache(cache))


@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_on_one_cache_share_the_work(tmp_path, killed):
    n, cache = 200, tmp_path / "cache"
    with Server("chat_server.py", mean_ms=100) as server:
        processes = [start(server, cache, n), start(server, cache, n)]
        for process in processes:
            assert process.stdout.readline() == "begin\n"
        if killed:
            time.sleep(1.5)
            processes[0].kill()
            processes[0].wait()
            check(finished(processes[1]), n)
            assert server.stats["again_after_read"] == 0
        else:
            results = [finished(process) for process in processes]
            check(results[0], n)
            assert results[0] == results[1]
            assert server.stats["requests"] == server.stats["n_keys"]  # nothing was asked for twice
            assert len(list(cache.glob("*.jsonl"))) == 2  # and both did some of it
    found = shards_are_whole(cache)
    assert len(found) == len({r["key"] for r in found})
