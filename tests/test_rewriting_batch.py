"""The Batch API against a fake of it: split, ended in every way, and gone on with by another process."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from rewriting_support import Server, environment, labelled

import ratekit as rk
from ratekit.rewriting.batch import BatchChat, _lines
from ratekit.rewriting.cache import Cache

LENGTH = rk.ATTRIBUTES["length"]


def rewrite(server, tmp_path, n=40, depth=2, **given):
    chat = BatchChat("m", tmp_path / "cache" / "batches", server.url, poll=0.05, **given)
    rewriter = rk.ChatRewriter(chat, LENGTH, Cache(tmp_path / "cache"))
    return rk.rewrite(labelled(n), "length", rewriter, depth=depth, progress=False)


def all_ok(ds):
    return all(status == ["ok", "ok"] for status in ds["rewrite_status"])


def test_one_batch_a_pass_and_nothing_the_second_time(tmp_path):
    with Server("batch_server.py") as server:
        ds = rewrite(server, tmp_path)
        assert all_ok(ds)
        assert ds[3]["rewrites"] == [ds[3]["response"] + " More.", ds[3]["response"] + " More. More."]
        assert server.stats["sizes"] == [40, 40]
        rewrite(server, tmp_path)
        assert server.stats["sizes"] == [40, 40]


def test_files_are_split_at_both_limits(tmp_path):
    with Server("batch_server.py") as server:
        assert all_ok(rewrite(server, tmp_path / "a", max_requests=15))
        assert server.stats["sizes"] == [15, 15, 10] * 2
    with Server("batch_server.py") as server:
        assert all_ok(rewrite(server, tmp_path / "b", max_bytes=5000))
        assert server.stats["longest"] <= 5000
        assert sum(server.stats["sizes"]) == 80


@pytest.mark.parametrize("end", ["expired", "cancelled", "partial"])
def test_only_what_an_ended_batch_has_not_answered_is_sent_again(tmp_path, end):
    with Server("batch_server.py", ends=[end, "completed"]) as server:
        assert all_ok(rewrite(server, tmp_path))
        unanswered = 10 if end == "partial" else 20
        assert server.stats["sizes"] == [40, unanswered, 40]


def test_a_failed_batch_says_why_and_the_others_are_kept(tmp_path):
    with Server("batch_server.py", ends=["completed", "failed", "completed"]) as server:
        with pytest.raises(rk.WorkError, match="the file was refused"):
            rewrite(server, tmp_path, max_requests=20)
        assert len(Cache(tmp_path / "cache")) == 20
        assert all_ok(rewrite(server, tmp_path, max_requests=20))
        assert server.stats["sizes"] == [20, 20, 20, 20, 20]


def test_batches_that_never_answer_do_not_loop_for_ever(tmp_path):
    with Server("batch_server.py", ends=["expired"]) as server, pytest.raises(rk.WorkError, match="rounds"):
        rewrite(server, tmp_path, n=1)  # half of one request is none


@pytest.mark.parametrize("end", ["silent", "overloaded"])
def test_what_the_lines_of_a_batch_say_reaches_the_user(tmp_path, end):
    with Server("batch_server.py", ends=[end]) as server, pytest.raises(rk.WorkError, match="out of memory"):
        rewrite(server, tmp_path, n=2)


def test_a_reply_with_other_ends_of_lines_in_it_is_one_reply(tmp_path):
    letters = " a\u2028b\u2029c\x85d\x0be."
    with Server("batch_server.py", letters=letters) as server:
        ds = rewrite(server, tmp_path, n=3)
        assert server.stats["sizes"] == [3, 3]
    assert all(row["rewrites"][0] == row["response"] + " More." + letters for row in ds)


def test_parts_of_a_file_are_joined_into_lines():
    assert list(_lines([b"a\xe2\x80", b"\xa8b\nc", b"\nd"])) == ["a\u2028b".encode(), b"c", b"d"]


def test_rejected_rows_alone_do_not_end_a_later_run(tmp_path):
    with Server("batch_server.py", ends=["rejected"]) as server:
        for _ in range(2):  # the second time it alone is left
            ds = rewrite(server, tmp_path, n=3, depth=1)
            assert [s[0] for s in ds["rewrite_status"]] == ["failed", "ok", "ok"]
        assert server.stats["sizes"] == [3, 1]


SCRIPT = """
import sys; sys.path.insert(0, "tests")
from pathlib import Path
from rewriting_support import labelled
import ratekit as rk
from ratekit.rewriting.batch import BatchChat
from ratekit.rewriting.cache import Cache
cache = Path(sys.argv[2])
chat = BatchChat("m", cache / "batches", sys.argv[1], poll=0.05, max_requests=25)
ds = rk.rewrite(labelled(40), "length", rk.ChatRewriter(chat, rk.ATTRIBUTES["length"], Cache(cache)), progress=False)
print(sum(s == ["ok", "ok"] for s in ds["rewrite_status"]))
"""


def start(server, cache):
    command = [sys.executable, "-c", SCRIPT, server.url, str(cache)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.commands
def test_a_new_process_goes_on_with_the_batches_of_a_killed_one(tmp_path):
    with Server("batch_server.py", ends=["never"]) as server:
        first = start(server, tmp_path / "cache")
        deadline = time.monotonic() + 60
        while server.stats["batches"] < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.3)
        first.kill()
        first.wait()
        server.configure(ends=["completed"])
        second = start(server, tmp_path / "cache")
        out, err = second.communicate(timeout=60)
        assert out.strip() == "40", err
        assert server.stats["sizes"] == [25, 15, 25, 15]
        assert set(server.stats["asked"].values()) == {1}


def test_a_batch_whose_id_never_arrived_is_found_again(tmp_path):
    with Server("batch_server.py", ends=["completed"], die_after_batch=1) as server:
        assert all_ok(rewrite(server, tmp_path, n=4))
        assert server.stats["sizes"] == [4, 4]
        assert set(server.stats["asked"].values()) == {1}


def test_a_batch_whose_id_was_not_saved_is_found_by_the_next_process(tmp_path):
    with Server("batch_server.py", ends=["completed"]) as server:
        rewrite(server, tmp_path, n=4)
        journal = tmp_path / "cache" / "batches" / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        assert ['"batch"' in line for line in lines[:4]] == [False, False, True, False]
        journal.write_text("".join(lines[:2]))  # killed between the request for the batch and its answer
        for shard in (tmp_path / "cache").glob("*.jsonl"):
            shard.unlink()
        assert all_ok(rewrite(server, tmp_path, n=4))
        assert server.stats["sizes"] == [4, 4, 4]  # the second pass alone was sent again
