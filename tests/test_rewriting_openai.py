"""The async client against a server that really fails: nothing lost, true statuses, bounded requests, clear stops."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from rewriting_support import Server, labelled
from servers.chat_server import key_of

import ratekit as rk
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.openai_chat import Throttle
from ratekit.rewriting.replies import reply_of

LENGTH = rk.ATTRIBUTES["length"]


@pytest.fixture(scope="module")
def server():
    with Server("chat_server.py") as running:
        yield running


@pytest.fixture
def quiet(server):
    """The server without any fault, its memory empty."""
    defaults = dict(faults={}, mean_ms=0.0, rps=0.0, key=None, model=None, fixed="", retry_after=0.2)
    server.configure(**defaults)
    return server


def rewrite(server, cache, n=40, depth=2, meter=None, retry_failed=False, rows=None, template="", **given):
    chat = rk.OpenAIChat("m", server.url, **given)
    rewriter = rk.ChatRewriter(chat, LENGTH, Cache(cache), template, retry_failed)
    return rk.rewrite(labelled(n) if rows is None else rows, "length", rewriter, depth, progress=False, meter=meter)


@pytest.mark.commands
def test_twenty_percent_faults_lose_no_row_and_every_status_is_true(server, tmp_path):
    transient = ("429", "429-after", "500", "503", "cut", "json", "choices", "bad-reason")
    faults = {**dict.fromkeys(transient, 0.02), "hang": 0.01, "length": 0.01, "refusal": 0.01, "refusal-text": 0.01}
    server.configure(faults=faults, retry_after=0.2)
    meter = Meter()
    # A timeout so long that a busy machine is not taken for a server that hangs, whose answer is then paid twice.
    ds = rewrite(server, tmp_path, n=600, depth=3, meter=meter, timeout=5.0)
    stats = server.stats
    assert all(stats[kind] > 5 for kind in (*transient, "hang"))
    rewriter = rk.ChatRewriter(rk.OpenAIChat("m"), LENGTH)
    truth = {"ok": "ok", "length": "truncated", "refusal": "refused", "unended": "failed"}
    for row in ds:
        text, target, statuses = row["response"], not row["treated"], []
        for rewritten in row["rewrites"]:
            key = key_of(rewriter.conversation(text, target)) if text is not None else None
            statuses.append(truth[stats["answered"][key]] if key else "not_attempted")
            assert (rewritten is not None) == (statuses[-1] == "ok")
            text, target = rewritten, not target
        assert row["rewrite_status"] == statuses
    assert len(ds) == 600
    assert sum(s[-1] == "ok" for s in ds["rewrite_status"]) > 500
    assert stats["sent_twice"] == 0
    assert stats["requests"] == meter.requests <= meter.replies * 2 + 512  # the retry budget
    assert stats["requests"] <= 1.4 * meter.replies


def test_the_same_call_again_makes_no_request_and_identical_texts_one(quiet, tmp_path):
    rows = labelled(40)
    twice = rows.select([*range(40), *range(40)])
    first = rewrite(quiet, tmp_path, rows=twice)
    assert quiet.stats["requests"] == quiet.stats["n_keys"]
    before = quiet.stats["requests"]
    again = rewrite(quiet, tmp_path, rows=twice)
    assert quiet.stats["requests"] == before
    assert again["rewrites"] == first["rewrites"]
    assert first["rewrites"][:40] == first["rewrites"][40:]


def test_rows_are_pipelined(tmp_path):
    """While one row's first reply hangs, others finish their third pass: the source is asked for them meanwhile."""
    from ratekit.rewriting.stream import ChainRow, Chains

    rewriter = rk.ChatRewriter(rk.OpenAIChat("m"), LENGTH)
    done = []
    chains = Chains(
        rewriter, Cache(tmp_path), iter([ChainRow("slow", True), ChainRow("fast", True)]), 3, done.append, Meter()
    )
    slow, fast = chains.take(), chains.take()
    for k in range(3):
        chains.give(Reply(fast[0], f"fast {k}", "stop"))
        fast = chains.take()
    assert fast is None
    assert not done
    assert not chains.done()
    slow_now = slow
    for k in range(3):
        chains.give(Reply(slow_now[0], f"slow {k}", "stop"))
        slow_now = chains.take()
    assert [chain[0][-1] for chain in done] == ["slow 2", "fast 2"]
    assert chains.done()


def test_retry_failed_asks_again_only_for_what_failed(quiet, tmp_path):
    quiet.configure(faults={"length": 0.2, "refusal": 0.1})
    first = rewrite(quiet, tmp_path, depth=1)
    failed = [s != ["ok"] for s in first["rewrite_status"]]
    assert 0 < sum(failed) < 40
    quiet.configure(faults={})
    assert rewrite(quiet, tmp_path, depth=1)["rewrite_status"] == first["rewrite_status"]
    assert quiet.stats.get("requests", 0) == 0
    second = rewrite(quiet, tmp_path, depth=1, retry_failed=True)
    assert quiet.stats["requests"] == sum(failed)
    assert all(s == ["ok"] for s in second["rewrite_status"])
    for row, before, bad in zip(second, first, failed, strict=True):
        assert bad or row["rewrites"] == before["rewrites"]
    assert rewrite(quiet, tmp_path, depth=1)["rewrites"] == second["rewrites"]  # the latest reply counts


@pytest.mark.commands
def test_a_known_rate_is_kept(quiet, tmp_path):
    quiet.configure(rps=100.0, retry_after=1.0)
    meter = Meter()
    rewrite(quiet, tmp_path, n=300, depth=1, meter=meter, rpm=6000.0, concurrency=256)
    assert meter.requests <= 1.1 * meter.replies


@pytest.mark.commands
def test_tokens_a_minute_are_kept(quiet, tmp_path):
    meter = Meter()
    start = time.monotonic()
    rewrite(quiet, tmp_path, n=100, depth=1, meter=meter, tpm=60 * 4000.0)
    used = meter.tokens_in + meter.tokens_out
    assert time.monotonic() - start > 0.8 * (used / 4000 - 0.5) > 1.0


def test_concurrency_falls_on_429_and_recovers():
    throttle = Throttle(64)
    for k in range(640):
        throttle.note(rejected=k % 20 == 0)
    assert throttle.limit == 64  # one in twenty is no overload
    for _ in range(200):
        throttle.note(rejected=True)
    assert throttle.limit == 1
    for _ in range(2000):
        throttle.note(rejected=False)
    assert throttle.limit == 64


def test_a_budget_stops_cleanly_and_more_money_goes_on(quiet, tmp_path):
    prices, meter = Prices(1.0, 1.0), Meter(Prices(1.0, 1.0), budget=0.001)
    ds = rewrite(quiet, tmp_path, n=100, depth=2, meter=meter)
    assert meter.stopped
    assert 0 < meter.replies < 100
    assert 0.0005 < meter.cost < 0.002
    assert {s for statuses in ds["rewrite_status"] for s in statuses} == {"ok", "not_attempted"}
    sent = quiet.stats["requests"]
    more = Meter(prices, budget=1.0)
    ds = rewrite(quiet, tmp_path, n=100, depth=2, meter=more)
    assert all(s == ["ok", "ok"] for s in ds["rewrite_status"])
    assert quiet.stats["requests"] == sent + more.requests
    assert quiet.stats["sent_twice"] == 0


def test_a_wrong_key_stops_at_once(quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key-0123456789")
    quiet.configure(key="sk-right")
    with pytest.raises(rk.WorkError, match="refused the key") as caught:
        rewrite(quiet, tmp_path, n=1000)
    assert "sk-wrong" not in str(caught.value)
    assert quiet.stats["requests"] <= 64


def test_a_model_that_is_not_there_stops_at_once(quiet, tmp_path):
    quiet.configure(model="other")
    with pytest.raises(rk.WorkError, match="has no model 'm'"):
        rewrite(quiet, tmp_path, n=1000)
    assert quiet.stats["requests"] <= 64


def test_an_empty_account_stops_at_once(quiet, tmp_path):
    quiet.configure(faults={"quota": 1.0})
    with pytest.raises(rk.WorkError, match="no quota left"):
        rewrite(quiet, tmp_path, n=1000)
    assert quiet.stats["requests"] <= 64


def test_a_server_that_rejects_every_request_is_quoted(quiet, tmp_path):
    quiet.configure(faults={"too-long": 1.0})
    with pytest.raises(rk.WorkError, match="maximum context length"):
        rewrite(quiet, tmp_path, n=1000)


def test_an_unreachable_server_is_named_within_seconds(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    class Nowhere:
        url = f"http://127.0.0.1:{port}/v1"

    start = time.monotonic()
    with pytest.raises(rk.WorkError, match=f"127.0.0.1:{port}/v1 does not answer"):
        rewrite(Nowhere, tmp_path)
    assert time.monotonic() - start < 15


@pytest.mark.commands
def test_a_server_that_dies_half_way_is_given_up_and_a_new_one_goes_on(tmp_path):
    with Server("chat_server.py", mean_ms=20) as first:

        def stop_half_way():
            while first.stats.get("sent", 0) < 50:
                time.sleep(0.05)
            first.stop()

        threading.Thread(target=stop_half_way, daemon=True).start()
        with pytest.raises(rk.WorkError, match=r"stopped answering|fails too often"):
            rewrite(first, tmp_path, n=300, max_retries=2, concurrency=8)
    kept = len(Cache(tmp_path))
    assert kept > 20
    with Server("chat_server.py") as second:
        meter = Meter()
        ds = rewrite(second, tmp_path, n=300, meter=meter)
        assert all(s == ["ok", "ok"] for s in ds["rewrite_status"])
        assert meter.requests + kept == len(Cache(tmp_path))


def test_it_works_where_an_event_loop_is_running(quiet, tmp_path):
    async def cell():  # a notebook's cell
        return rewrite(quiet, tmp_path, n=4)

    assert len(asyncio.run(cell())) == 4


def test_a_plain_call_gives_every_reply(quiet):
    conversations = [[{"role": "user", "content": f"Text {i}."}] for i in range(10)]
    replies = list(rk.OpenAIChat("m", quiet.url)(conversations))
    assert sorted(r.index for r in replies) == list(range(10))
    for reply in rk.OpenAIChat("m", quiet.url)(conversations):
        assert reply.finish_reason == "stop"
        break  # leaving early leaves no thread behind


def test_no_key_and_no_server_of_ones_own_is_said_before_anything(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(rk.InputError, match="no OPENAI_API_KEY"):
        rk.rewrite(labelled(2), "length", "openai:m", cache=tmp_path, progress=False)


def test_a_reply_without_a_cache_folder_is_kept_all_the_same(quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("RATEKIT_CACHE", str(tmp_path / "default"))
    rewriter = rk.ChatRewriter(rk.OpenAIChat("m", quiet.url), LENGTH)
    rk.rewrite(labelled(4), "length", rewriter, progress=False)
    assert len(Cache(tmp_path / "default")) == quiet.stats["n_keys"]


def test_prompts_are_shown_where_the_attribute_needs_them(quiet, tmp_path):
    seen = []

    def chat(conversations):
        for i, conversation in enumerate(conversations):
            seen.append(conversation[0]["content"])
            yield Reply(i, f"Another text {len(seen)}.", "stop")

    helpfulness = rk.ATTRIBUTES["helpfulness"]
    rk.rewrite(labelled(2, "helpfulness"), helpfulness, rk.ChatRewriter(chat, helpfulness), progress=False)
    assert len(seen) == 4
    assert all("<prompt>\nWrite a review.\n</prompt>" in content for content in seen)
    with pytest.raises(rk.InputError, match=r"\{prompt\}"):
        rk.ChatRewriter(chat, helpfulness)(["A text."], [True])


def test_of_several_choices_the_one_of_index_0_is_read():
    def choice(index, text):
        return {"index": index, "message": {"content": text}, "finish_reason": "stop"}

    for choices in ([choice(1, "B"), choice(0, "A")], [choice(None, "A"), choice(2, "B")], [choice("0", "A")]):
        assert reply_of(0, {"choices": choices}).text == "A"
    assert reply_of(0, {"choices": ["x", choice(0, "A")]}).text == "A"
    assert reply_of(0, {"choices": []}).finish_reason == "unreadable"
