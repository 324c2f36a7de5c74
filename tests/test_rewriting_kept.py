"""What was paid for is kept, counted and charged: odd replies, stops, restarts, damaged caches, and no secret shown."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from rewriting_support import Server, environment, labelled

import ratekit as rk
from ratekit.cli import main
from ratekit.rewriting import Options, archive, replies
from ratekit.rewriting.base import STOP, Reply, ending
from ratekit.rewriting.cache import Cache, fault_of_record, record_of, reply_in
from ratekit.rewriting.chains import ChainSpool
from ratekit.rewriting.cost import Meter, Prices

sys.path.insert(0, str(ROOT / "benchmarks"))
from torture import DAMAGES, damaged, stopped

pytestmark = pytest.mark.commands

LENGTH = rk.ATTRIBUTES["length"]
MODEL, ADDRESS = "m", "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def running():
    with Server("chat_server.py") as server:
        yield server


@pytest.fixture
def server(running):
    running.configure(faults={}, mean_ms=0.0, then="", after=0, usage=True, key=None, model=None)
    return running


def rewrite(server, cache, n=30, depth=1, meter=None, **given):
    rewriter = rk.ChatRewriter(rk.OpenAIChat("m", server.url, **given), LENGTH, Cache(cache))
    return rk.rewrite(labelled(n), "length", rewriter, depth, progress=False, meter=meter)


# --- what a server may answer ----------------------------------------------------------------------------


def body(content, reason="stop", **more):
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": reason}], **more})


@pytest.mark.parametrize(
    ("answer", "text", "reason"),
    [
        (body("Hi.", "eos"), "Hi.", "eos"),
        (body("Hi.", None), "Hi.", ""),
        (body(None), None, "stop"),
        (body([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hi."}]), "Hi.", "stop"),
        (body([{"type": "thinking", "thinking": "Hm."}], "length"), "", "length"),
        (body(["Hi", "."]), "Hi.", "stop"),
        ('{"choices": [{"text": "Hi.", "finish_reason": "stop"}]}', "Hi.", "stop"),
        ('{"choices": [{"message": {"content": null, "refusal": "No."}, "finish_reason": "stop"}]}', None,
         "content_filter"),
    ],
)  # fmt: skip
def test_a_text_is_found_wherever_a_server_puts_it(answer, text, reason):
    reply = replies.read_reply(0, answer)
    assert (reply.text, reply.finish_reason) == (text, reason)


@pytest.mark.parametrize(
    "answer",
    [
        '{"choices": [{"mess',
        "[]",
        "null",
        '{"choices": []}',
        body([{"type": "image"}]),
        body(5),
        body([5]),
        "[" * 10**5,
    ],
)
def test_a_whole_answer_without_a_text_is_kept_as_it_came(answer):
    reply = replies.read_reply(0, answer)
    assert (reply.text, reply.finish_reason) == (answer[: replies.KEPT_RAW], "unreadable")


def test_an_answer_that_can_be_read_by_now_is():
    stored = Reply(0, body("Hi."), "unreadable", {"prompt": 3})
    assert (replies.reread(stored).text, replies.reread(stored).finish_reason) == ("Hi.", "stop")
    assert replies.reread(Reply(0, "[" * 10**5, "unreadable")) == Reply(0, None, "unreadable")


def test_words_for_the_end_of_a_reply():
    assert [ending(w) for w in ("eos", "STOP", "COMPLETE", "Max_Tokens", "SAFETY")] == ["stop"] * 3 + [
        "length", "content_filter",
    ]  # fmt: skip
    assert [ending(w) for w in ("FinishReason.STOP", "end-of-text", "finish_reason_safety")] == [
        "stop", "stop", "content_filter",
    ]  # fmt: skip
    assert replies.read_reply(0, body("Hi.", {"type": "stop", "matched": 7})).finish_reason == "stop"
    assert ending(None) == ending(" ") == ""
    assert ending("tool_calls") == "tool_calls"


@pytest.mark.parametrize(
    ("usage", "found"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 0}, {"prompt": 5, "completion": 0}),
        ({"input_tokens": 5, "output_tokens": 2}, {"prompt": 5, "completion": 2}),
        ({"prompt_tokens": 0, "completion_tokens": 0}, {}),
        ({"prompt_tokens": None, "completion_tokens": 7}, {"completion": 7}),
        ({"prompt_tokens": -3, "completion_tokens": 1e300}, {}),
        ({"prompt_tokens": "5", "completion_tokens": True}, {}),
        (None, {}), ("many", {}), ([1], {}),
    ],
)  # fmt: skip
def test_only_a_credible_usage_is_taken(usage, found):
    assert replies.usage_of({"usage": usage}) == found


@pytest.mark.parametrize(
    ("status", "error", "kind", "says"),
    [
        (401, {"message": "no"}, replies.FATAL, "refused the key"),
        (403, {"message": "Your API key has no access"}, replies.FATAL, "has no access"),
        (403, {"message": "m requires moderation. Your input was flagged"}, replies.FILTER_REFUSED, "flagged"),
        (403, {"message": "Forbidden"}, replies.BAD, "Forbidden"),
        (400, {"message": "Content Exists Risk"}, replies.FILTER_REFUSED, "Risk"),
        (400, {"message": "filtered", "code": "content_policy_violation"}, replies.FILTER_REFUSED, "filtered"),
        (404, {"message": "404 page not found"}, replies.FATAL, "is the address right"),
        (404, {"message": "The model `m` does not exist"}, replies.FATAL, "has no model 'm'"),
        (429, {"message": "x", "code": "insufficient_quota"}, replies.FATAL, "no quota left"),
        (429, {"message": "slow down"}, replies.RETRY, "slow down"),
        (200, {"message": "overloaded"}, replies.RETRY, "overloaded"),
        (400, {"message": "This model's maximum context length is 8 tokens"}, replies.BAD, "maximum context"),
        (422, {"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}, replies.PARAMETER,
         "not permitted"),
    ],
)  # fmt: skip
def test_what_a_server_says_decides_and_reaches_the_user(status, error, kind, says):
    fault = replies.fault_of_status(status, {"error": error} if "detail" not in error else error, {}, MODEL, ADDRESS)
    assert fault.kind == kind
    assert says in fault.message


def test_a_wait_of_hours_ends_the_run_and_is_said():
    error = {"error": {"message": "tokens per day"}}
    fault = replies.fault_of_status(429, error, {"retry-after": "86400"}, MODEL, ADDRESS)
    assert (fault.kind, "asks to wait 24.0 hours (429: tokens per day)" in fault.message) == (replies.FATAL, True)
    assert replies.fault_of_status(429, error, {"retry-after": "900"}, MODEL, ADDRESS).retry_after == 600


def test_an_error_in_a_200_is_an_error_with_its_own_code():
    assert replies.read_reply(
        0, '{"error": {"code": 502, "message": "overloaded"}}', MODEL, ADDRESS
    ).whole  # thrice at most
    fault = replies.read_reply(0, '{"error": {"code": 401, "message": "bad key"}}', MODEL, ADDRESS)
    assert (fault.kind, "bad key" in fault.message) == (replies.FATAL, True)
    choice = {"error": {"code": 502, "message": "provider failed"}, "finish_reason": "error"}
    for message in ({}, {"content": ""}, {"content": None}):
        fault = replies.read_reply(0, json.dumps({"choices": [{**choice, "message": message}]}), MODEL, ADDRESS)
        assert (fault.kind, fault.whole, "502: provider failed" in fault.message) == (replies.RETRY, True, True)
    begun = replies.read_reply(0, json.dumps({"choices": [{**choice, "message": {"content": "A begi"}}]}))
    assert (begun.text, begun.finish_reason) == ("A begi", "error")  # paid, kept, and no rewrite


# --- money -----------------------------------------------------------------------------------------------


def test_without_usage_the_cost_is_an_estimate_that_binds_and_is_said(server, tmp_path, caplog):
    server.configure(usage=False)
    meter = Meter(Prices(1000, 1000), budget=1.0)
    with caplog.at_level("WARNING", logger="ratekit"):
        rewrite(server, tmp_path, n=100, meter=meter, concurrency=4)
    assert meter.stopped
    assert meter.replies < 40
    assert 0.5 < meter.cost < 2.0
    assert meter.record()["tokens_estimated"] == meter.replies


def test_the_budget_binds_over_restarts_and_the_cost_is_that_of_the_whole(server, tmp_path):
    costs = []
    for _ in range(3):
        meter = Meter(Prices(1.0, 1.0), budget=0.002)
        rewrite(server, tmp_path, n=200, depth=2, meter=meter, concurrency=4)
        costs.append(meter.cost)
    assert costs[0] == costs[1] == costs[2]
    assert 0.0015 < costs[0] < 0.003
    whole = Meter(Prices(1.0, 1.0))
    rewrite(server, tmp_path, n=200, depth=2, meter=whole)
    again = Meter(Prices(1.0, 1.0))
    rewrite(server, tmp_path, n=200, depth=2, meter=again)
    assert again.requests == 0
    assert again.cost == whole.cost > costs[0]


def test_unreadable_answers_are_asked_for_again_at_most_twice_and_charged(server, tmp_path):
    server.configure(faults={"choices": 1.0})
    meter = Meter(Prices(1.0, 1.0))
    with pytest.raises(rk.WorkError, match="without a text"):
        rewrite(server, tmp_path, n=5, meter=meter)
    assert server.stats["requests"] == meter.unreadable == 15
    assert meter.cost > 0
    server.configure(faults={})
    with pytest.raises(
        rk.WorkError, match=r"kept ones of an earlier run, and retry_failed \(--retry-failed\) asks again"
    ):
        rewrite(server, tmp_path, n=5)
    assert server.stats.get("requests", 0) == 0  # enough is enough, until it is wanted:
    rewriter = rk.ChatRewriter(rk.OpenAIChat("m", server.url), LENGTH, Cache(tmp_path), retry_failed=True)
    ds = rk.rewrite(labelled(5), "length", rewriter, 1, progress=False)
    assert all(s == ["ok"] for s in ds["rewrite_status"])
    later = Meter(Prices(1.0, 1.0))
    rewrite(server, tmp_path, n=5, meter=later)
    assert later.cost > meter.cost  # what the unreadable ones cost is not forgotten


def test_texts_that_are_rejected_do_not_end_a_run_that_has_replies_from_before(server, tmp_path):
    server.configure(faults={"too-long": 1.0})
    with pytest.raises(rk.WorkError, match="rejects the requests"):
        rewrite(server, tmp_path, n=5)
    server.configure(faults={})
    rewrite(server, tmp_path, n=5)
    server.configure(faults={"too-long": 1.0})
    ds = rewrite(server, tmp_path, n=10)
    assert sorted(s[0] for s in ds["rewrite_status"]) == ["failed"] * 5 + ["ok"] * 5


# --- stops -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "quota", "401"])
def test_a_run_that_is_stopped_loses_no_reply(how):
    found = stopped(how, rows=200, concurrency=32)
    assert found["lost"] == found["twice"] == 0
    assert found["code"] == {"Ctrl-C": 130, "SIGTERM": 143}.get(how, 1)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_and_the_exit_code_that_says_which(sent, code):
    script = (
        "import sys, time; import ratekit.demo as d; from ratekit.cli import main\n"
        "def run_demo(out): print('begun', flush=True); time.sleep(600)\n"
        "d.run_demo = run_demo; sys.exit(main(['demo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert err.splitlines()[-1] == "ratekit: stopped; what was finished is kept"
    assert "Traceback" not in err


def test_what_is_under_way_when_the_quota_ends_is_kept(server, tmp_path):
    server.configure(then="quota", after=20, mean_ms=300)
    with pytest.raises(rk.WorkError, match="no quota left"):
        rewrite(server, tmp_path, n=100, concurrency=16)
    assert len(Cache(tmp_path)) == server.stats["sent"] == 20


def test_grace_is_an_end(server, tmp_path):
    server.configure(then="401", after=8, mean_ms=30_000)
    with pytest.raises(rk.WorkError, match="refused the key"):
        rewrite(server, tmp_path, n=100, concurrency=16, grace=0.5)


# --- a bad disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_no_damage_of_a_cache_gives_a_wrong_text_or_goes_unseen(damage):
    found = damaged(damage, trials=25, records=20)
    assert found["wrong"] == found["unseen"] == 0
    assert found["needless"] <= 1


def test_the_damages_would_be_noticed(monkeypatch):
    from ratekit import store

    monkeypatch.setattr(store, "_digest", lambda body: b"0" * 16)  # a checksum that fits everything
    assert damaged(DAMAGES[0], trials=100, records=20)["wrong"] > 0


def test_a_cache_that_can_only_be_read_gives_what_it_holds(tmp_path, monkeypatch):
    def chat(conversations):
        for i, turns in enumerate(conversations):
            yield Reply(i, f"It was a good film, though the plot was thin ({len(turns)}).", STOP, {})

    chat.fingerprint = "chat"

    def rewritten(chat):
        return rk.rewrite(labelled(20), "length", rk.ChatRewriter(chat, LENGTH, Cache(tmp_path)), progress=False)

    first = rewritten(chat)
    real = os.open

    def read_only(path, flags, *more, **how):
        if str(path).startswith(str(tmp_path)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *more, **how)

    monkeypatch.setattr(os, "open", read_only)

    def never(conversations):
        raise AssertionError("asked")

    never.fingerprint = "chat"
    assert rewritten(never)["rewrites"] == first["rewrites"]


def test_a_killed_run_leaves_nothing_beside_its_replies(tmp_path):
    """The rows so far lie in a file without a name."""
    spool = ChainSpool(tmp_path)
    spool.add((["a"], ["ok"]))
    assert list(tmp_path.iterdir()) == []
    assert spool.table().to_pylist() == [{"rewrites": ["a"], "rewrite_status": ["ok"]}]


ODD = {
    "text": ["a"], "usage": "many", "messages": "x", "finish_reason": None, "model": 5, "tries": "1",
    "earlier": {"prompt": -1},
}  # fmt: skip


@pytest.mark.parametrize("field", ODD)
def test_a_record_of_an_odd_shape_is_passed_over_and_named(tmp_path, field):
    about = {"model": "m", "params": "", "template": "", "attribute": "length", "phrase": "longer"}
    turns = [{"role": "user", "content": "x"}]
    sound = record_of(**about, messages=turns, text="ok", finish_reason="stop", usage={})
    odd = {**sound, field: ODD[field]}
    assert fault_of_record(odd) is not None
    with Cache(tmp_path) as cache:
        cache.put("a" * 32, sound)
        cache.put("b" * 32, odd)
    reader = Cache(tmp_path)
    assert reader.get("b" * 32) is None
    assert reply_in(reader.get("a" * 32)).text == "ok"
    assert [r["key"] for r in reader.records()] == ["a" * 32]
    n, found = archive.shard_faults(tmp_path)
    assert (n, len(found)) == (2, 1)
    assert main(["cache", "ls", str(tmp_path)]) == 0
    assert main(["cache", "export", str(tmp_path), "--out", str(tmp_path / "out")]) == 0


def test_half_of_a_surrogate_pair_is_given_named_and_not_exported(tmp_path):
    about = {"model": "m", "params": "", "template": "", "attribute": "length", "phrase": "longer"}
    with Cache(tmp_path) as cache:
        for key, text in (("a", "ok"), ("b", "half \ud83d")):
            cache.put(key * 32, record_of(**about, messages=[], text=text, finish_reason="stop", usage={}))
    assert Cache(tmp_path).get("b" * 32)["text"] == "half \ud83d"
    assert len(archive.shard_faults(tmp_path)[1]) == 1
    assert archive.export(tmp_path, tmp_path / "out") == 1


# --- parameters ------------------------------------------------------------------------------------------


def test_a_parameter_reaches_every_request_or_is_left_out(tmp_path):
    given = {"temperature": None, "max_tokens": None, "seed": 3, "top_p": 0.5, "reasoning_effort": "low"}
    conversation = [{"role": "user", "content": "x"}]
    expected = {"model": "m", "messages": conversation, "seed": 3, "top_p": 0.5, "reasoning_effort": "low"}
    assert rk.OpenAIChat("m", ADDRESS, **given).body(conversation) == expected
    batch = rk.BatchChat("m", tmp_path, ADDRESS, **given)
    assert batch.online.body(conversation) == expected
    assert batch.params == rk.OpenAIChat("m", ADDRESS, **given).params == "seed=3,top_p=0.5,reasoning_effort=low"
    assert Options(**given).asked == given


def test_the_defaults_are_those_of_every_chat(tmp_path):
    assert rk.OpenAIChat("m", ADDRESS).sampling == rk.BatchChat("m", tmp_path, ADDRESS).sampling == Options().sampling


# --- secrets ---------------------------------------------------------------------------------------------

KEY, PASSWORD = "sk-CANARY-key-0123456789", "CANARYpassword"


@pytest.mark.parametrize("address", ["http://u:{}@127.0.0.1:9/v1", "u:{}@127.0.0.1:9/v1", "HTTP://U:{}@exa mple/v1",
                                     "ftp://u:{}@h/", "http://127.0.0.1:9/v1?token={}",
                                     "http://{}@127.0.0.1:9/v1"])  # fmt: skip
@pytest.mark.parametrize("kind", ["openai", "batch"])
@pytest.mark.parametrize("key", [None, KEY + "\n", f"{KEY}\n{KEY}", f"“{KEY}”"])
def test_no_secret_is_in_what_a_command_says(address, kind, key, tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    labelled(2).to_json(tmp_path / "d.jsonl")
    code = main(["rewrite", str(tmp_path / "d.jsonl"), "-a", "length", "--rewriter", f"{kind}:m", "--out",
                 str(tmp_path / "out"), "--base-url", address.format(PASSWORD), "--dry-run"])  # fmt: skip
    out, err = capfd.readouterr()
    assert "canary" not in (out + err).lower()
    assert "Traceback" not in err
    assert code in (0, 1, 2)


def test_no_secret_is_in_a_repr_or_in_an_exception(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    address = f"http://127.0.0.1:9/v1?token={PASSWORD}"
    made = [rk.OpenAIChat("m", address), rk.BatchChat("m", tmp_path, address), Options(base_url=address)]
    made.append(rk.ChatRewriter(made[0], LENGTH))
    assert not any("canary" in repr(thing).lower() for thing in made)
    with pytest.raises(rk.WorkError) as caught:
        list(rk.OpenAIChat("m", address, max_retries=0)([[{"role": "user", "content": "x"}]]))
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(error).lower()
        error = error.__cause__ or error.__context__


def test_a_user_in_the_address_is_sent_as_basic_authentication(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = rk.OpenAIChat("m", "http://u:p%40w@h/v1?version=2").client_settings()
    assert settings["base_url"] == "http://h/v1"
    assert settings["default_query"] == {"version": "2"}
    assert settings["default_headers"] == {"Authorization": "Basic dTpwQHc="}
    os.environ["OPENAI_API_KEY"] = KEY
    try:
        with pytest.raises(rk.InputError, match="one of them"):
            rk.OpenAIChat("m", "http://u:pw@h/v1").client_settings()
    finally:
        del os.environ["OPENAI_API_KEY"]
