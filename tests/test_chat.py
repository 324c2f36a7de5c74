"""The LLM rewriter: against a server of its own on loopback, and what each kind of reply is worth."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import ratekit as rk
from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError, WorkError
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.judge import judge
from ratekit.rewriting.prompts import TEMPLATE, messages


@pytest.fixture
def server(monkeypatch):
    """An OpenAI-compatible server that lengthens and shortens; `server.behave` makes it misbehave."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.requests.append((body, self.headers))
            status, answer = served.behave(body)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.requests = []
    served.behave = lambda body: (200, completion(rule(body)))
    served.url = f"http://127.0.0.1:{served.server_address[1]}/v1"
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123")
    yield served
    served.shutdown()


def completion(text, finish_reason="stop"):
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": finish_reason, "message": message}]
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


def rule(body):
    content = body["messages"][-1]["content"]
    response = content.split("<response>\n")[1].removesuffix("\n</response>")
    return response + " And more." if "it's longer" in content else response.removesuffix(" And more.")


def reviews(n):
    return rk.load("reviews", attribute="length").select(range(n)).remove_columns(["rewrites", "rewrite_status"])


def test_rewrites_through_a_server_and_again_from_the_cache(server, tmp_path):
    ds = reviews(12)
    arguments = {"depth": 2, "cache": tmp_path, "base_url": server.url, "progress": False}
    out = rk.rewrite(ds, "length", "openai:m", **arguments)
    for row in out.filter(lambda row: not row["treated"]):
        assert row["rewrites"] == [row["response"] + " And more.", row["response"]]
    n_requests = len(server.requests)
    again = rk.rewrite(ds, "length", "openai:m", **arguments)
    assert again["rewrites"] == out["rewrites"]
    assert len(server.requests) == n_requests
    assert not any("sk-canary" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_a_reply_that_is_no_rewrite_is_null_with_its_status(server, tmp_path):
    bad = {0: completion("cut", "length"), 1: completion(""), 2: completion("I'm sorry, but I can't help with that.")}
    texts = reviews(6)["response"]

    def behave(body):
        for k, answer in bad.items():
            if texts[k] in body["messages"][-1]["content"]:
                return 200, answer
        return 200, completion(rule(body))

    server.behave = behave
    out = rk.rewrite(reviews(6), "length", "openai:m", depth=1, base_url=server.url, progress=False)
    assert [s[0] for s in out["rewrite_status"][:3]] == ["truncated", "empty", "refused"]
    assert out["rewrites"][:3] == [[None]] * 3
    # This server's rule leaves a treated text as it is.
    assert [s[0] for s in out["rewrite_status"][3:]] == ["unchanged" if t else "ok" for t in out["treated"][3:]]


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [(401, "no", "refused the key"), (404, "The model `m` does not exist", "has no model 'm'")],
)
def test_a_wrong_key_or_model_stops_at_once(server, status, answer, message):
    server.behave = lambda body: (status, {"error": {"message": answer, "code": "x"}})
    with pytest.raises(WorkError, match=message) as caught:
        rk.rewrite(reviews(2), "length", "openai:m", depth=1, base_url=server.url, progress=False)
    assert "sk-canary" not in str(caught.value)
    assert len(server.requests) <= 2


def test_no_key_and_no_server_of_ones_own(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="no OPENAI_API_KEY in the environment"):
        rk.rewrite(reviews(2), "length", "openai:m", depth=1, progress=False)
    with pytest.raises(InputError, match="which model"):
        rk.rewrite(reviews(2), "length", "openai:")


def test_both_passes_differ_in_the_phrase_alone():
    one, two = (messages(TEMPLATE, phrase, "A {phrase} {response}.")[0]["content"] for phrase in ("longer", "shorter"))
    assert one.replace("longer", "shorter") == two
    assert "A {phrase} {response}." in one


def test_a_template_without_its_fields_is_refused():
    with pytest.raises(InputError, match=r"no \{response\}"):
        rk.ChatRewriter(lambda c: iter(()), ATTRIBUTES["length"], template="Make it {phrase}.")


def test_any_callable_is_a_chat():
    def backwards(conversations):
        for i in reversed(range(len(conversations))):
            yield Reply(i, f"reply {i}", "stop")

    rewriter = rk.ChatRewriter(backwards, ATTRIBUTES["length"])
    assert rewriter(["a", "b"], [True, False]) == [rk.Rewrite("reply 0", "ok"), rk.Rewrite("reply 1", "ok")]


def test_judge_does_not_take_an_apology_in_the_response_for_a_refusal():
    source = "I'm sorry, but I can not recommend this film."
    assert judge(Reply(0, "I'm sorry, but I can really not recommend this long film.", "stop"), source).status == "ok"
    assert judge(Reply(0, "I'm sorry, but I can't do that.", "stop"), "A fine film.").status == "refused"


def test_a_torn_last_line_of_the_cache_is_passed_over(tmp_path):
    Cache(tmp_path).put("whole", {"text": "x"})
    shard = next(tmp_path.glob("*.jsonl"))
    with shard.open("a") as f:
        f.write('{"key": "torn", "text": "ab')
    again = Cache(tmp_path)
    assert again.get("whole") == {"key": "whole", "text": "x"}
    assert again.get("torn") is None


def test_a_cache_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "c").touch()
    with pytest.raises(InputError, match="is a file; give a folder"):
        Cache(tmp_path / "c")
