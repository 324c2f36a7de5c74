"""Hundreds of odd answers of a server: every whole one is kept as it came, counted and asked for thrice at most.

What each answer holds is known to what writes it, and shares no code with what reads it.
"""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.rewriting import openai_chat, replies
from ratekit.rewriting.base import UNREADABLE
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.replies import KEPT_RAW

ENDS = ["stop", "STOP", "eos", "end_turn", "COMPLETE", "", None, 0, "length", "MAX_TOKENS", "content_filter", "SAFETY",
        "tool_calls", "error", "unreadable", "failed", ["stop"], {"type": "stop"}, "\ud83d", "x" * 5000]  # fmt: skip
USAGES = [None, {}, {"prompt_tokens": 7, "completion_tokens": 9}, {"prompt_tokens": None, "completion_tokens": None},
          {"prompt_tokens": -5, "completion_tokens": 1e300}, {"prompt_tokens": "7"}, {"prompt_tokens": True}, [7, 9],
          {"input_tokens": 7, "output_tokens": 9}, "many", 3.5, {"completion_tokens": 10**30}]  # fmt: skip
TAILS = ["And more of it.", "", "文 😀", "a\x00b", "half \ud83d", "w " * 3000, "</think>"]
NOT_TEXTS = [5, True, {}, [], [5], [None], [{"type": "image_url"}], [[]], {"type": "image"}, 1.5]
WHOLE = [[], {}, None, 5, "text", {"choices": []}, {"choices": None}, {"choices": {}}, {"choices": [None]},
         {"choices": [[]]}, {"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": [{"message": []}]},
         {"choices": [{"delta": {"content": "x"}}]}, {"id": "x", "object": "chat.completion"}, {"error": None},
         {"choices": "x"}, {"choices": [{"message": "x"}]}]  # fmt: skip


def answer(draw, source):
    """(the body, the text that it holds; None where the body holds none that can be read)."""
    kind = draw.randrange(8)
    text = f"{source} {draw.choice(TAILS)}"
    content: object = text
    if kind == 0:
        content = [{"type": "text", "text": text[:9]}, {"type": "text", "text": text[9:]}]
    elif kind == 1:
        content = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": text}]
    elif kind == 2:
        content = [text]
    elif kind == 3:
        content, text = draw.choice(NOT_TEXTS), None
    elif kind == 4:
        return json.dumps(draw.choice(WHOLE)).encode(), None
    elif kind == 5:
        junk = [b"", b"null", b"[" * 50_000, b'{"choices": [{"mess', b"\xff\xfe\x00", b"OK", b"\x00" * 100, b'"' * 999,
                b"1" * 6000, b'{"a": ' * 3000 + b"1", b"x" * 300_000]  # fmt: skip
        return draw.choice(junk), None
    message = {"role": "assistant", "content": content, **draw.choice([{}, {"reasoning_content": "Hm."}, {"audio": 5}])}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": draw.choice(ENDS)}], "extra": [[{}]]}
    if draw.random() < 0.8:
        body["usage"] = draw.choice(USAGES)
    raw = json.dumps(body, ensure_ascii=True).encode()
    return draw.choice([b"", b"", b"\xef\xbb\xbf", b"\n  "]) + raw, text


class Answering(ThreadingHTTPServer):
    """A server that answers each text with what `answers` has for it: (status, headers, body)."""

    daemon_threads = True

    def __init__(self, answers):
        self.answers, self.asked = answers, Counter()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        text = asked.rpartition("<response>\n")[2].removesuffix("\n</response>")
        self.server.asked[text] += 1
        status, headers, raw = self.server.answers[text]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


def rows(sources):
    return [{"prompt": f"Q{i}", "response": t, "attribute": "length", "treated": i % 2 == 0, "prompt_id": str(i)}
            for i, t in enumerate(sources)]  # fmt: skip


def rewritten(server, sources, cache, meter, **given):
    chat = rk.OpenAIChat("m", server.url, **given)
    return rk.rewrite(rows(sources), "length", rk.ChatRewriter(chat, rk.ATTRIBUTES["length"], Cache(cache)), 1,
                      progress=False, meter=meter)  # fmt: skip


def whole_answers(n, tmp_path, start=0):
    """How many of n texts got a rewrite, and how many an answer that holds none."""
    sources = [f"The lamp number {start + i} is bright, and it stands on a table." for i in range(n)]
    made = {t: answer(random.Random(start + i), t) for i, t in enumerate(sources)}
    made[sources[0]] = json.dumps({"choices": [{"message": {"content": sources[0] + " So."}}]}).encode(), "one is good"
    kinds = [{}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain; charset=latin-1"}]
    server = Answering({t: (200, kinds[i % 3], raw) for i, (t, (raw, _)) in enumerate(made.items())})
    meter, begun = Meter(Prices(1.0, 1.0)), time.monotonic()
    ds = rewritten(server, sources, tmp_path, meter, concurrency=8)
    assert time.monotonic() - begun < 10 + n / 10
    asked = dict(server.asked)
    stored = {r["messages"][-1]["content"]: r for r in Cache(tmp_path).records()}
    assert len(stored) == n  # one record for each text, whatever came
    statuses = dict(zip(ds["response"], ds["rewrite_status"], strict=True))
    for text, (raw, holds) in made.items():
        record = next(r for content, r in stored.items() if f"\n{text}\n" in content)
        if holds is None:
            silent = record["finish_reason"] != UNREADABLE and record["text"] == ""  # a turn without a text
            as_it_came = raw.decode("utf-8", "replace")[:KEPT_RAW].removeprefix("\ufeff")
            assert silent or record["text"].removeprefix("\ufeff") == as_it_came, (text, raw[:80])
            assert asked[text] <= 3
            assert statuses[text] != ["ok"], (text, raw[:80])
        else:
            assert text in record["text"], (text, raw[:80])
            assert asked[text] == 1, (text, raw[:80])
        assert record["usage"]["prompt"] > 0  # counted, or estimated
    assert meter.requests == meter.replies + meter.unreadable == sum(asked.values())
    assert meter.cost > 0
    again = Meter(Prices(1.0, 1.0))
    second = rewritten(server, sources, tmp_path, again, concurrency=8)
    assert again.requests == 0
    assert again.cost == pytest.approx(meter.cost)
    assert second["rewrites"][:] == ds["rewrites"][:]
    server.shutdown()
    server.server_close()
    return sum(said == ["ok"] for said in statuses.values()), sum(holds is None for _, holds in made.values())


PAGES = [b"<html><title>Sign in</title></html>", b'data: {"choices": []}\n\ndata: [DONE]\n\n', b"event: ping\n\n",
         b"<?xml version='1.0'?><Error/>", b": keep-alive\n\n"]  # fmt: skip
ERRORS = [{"error": "no"}, {"error": {"message": "The input was flagged by moderation"}}, {"detail": [{"loc": [1]}]},
          {"error": {"code": 401, "message": "bad key"}}, {"error": {"code": "model_not_found", "message": "no model"}},
          {"error": {"message": ["a", {"b": None}], "code": [5]}}, {"message": "x" * 10_000}, {"error": {}}, [], "no",
          {"error": {"message": "Unsupported parameter: 'temperature'", "param": ["temperature"]}},
          {"error": {"message": "Unknown parameter: 'messages'", "param": "messages"}},
          {"error": {"message": "half \ud83d\n\nof it", "type": None}}]  # fmt: skip
STATUSES = [200, 200, 201, 204, 301, 302, 400, 401, 402, 403, 404, 405, 409, 413, 418, 422, 451, 500, 503, 520, 599]
HEADERS = [{}, {"Content-Type": "text/html"}, {"Retry-After": "soon"}, {"Retry-After": "0"}, {"Retry-After": "-5"},
           {"Content-Encoding": "gzip"}, {"Content-Type": "application/json; charset=utf-99"},
           {"Location": "/v1/elsewhere"}]  # fmt: skip


def faults(n, tmp_path, start=0):
    """Answers that no model made, and errors: a line that says why, after few requests, or the other row is done.

    How many of n runs ended in a line, and how many with the other row done.
    """
    lines = 0
    for seed in range(start, start + n):
        draw = random.Random(seed)
        sources = [f"The lamp number {seed} is bright, and it {verb} on a table." for verb in ("stands", "lies")]
        body = draw.choice([draw.choice(PAGES), json.dumps(draw.choice(ERRORS)).encode(), b"", b"\xff\x00", b"{"])
        headers = draw.choice(HEADERS)
        body = gzip.compress(body) if "Content-Encoding" in headers and draw.random() < 0.5 else body
        good = json.dumps({"choices": [{"message": {"content": sources[1] + " And more."}, "finish_reason": "stop"}]})
        odd = (draw.choice(STATUSES), headers, body)
        server = Answering({sources[0]: odd, sources[1]: (200, {}, good.encode())})
        meter, said = Meter(), ""
        try:
            ds = rewritten(server, sources, tmp_path / str(seed), meter, max_retries=1, timeout=3.0)
            statuses = [s for row in ds["rewrite_status"] for s in row]
        except (WorkError, InputError) as e:
            said, statuses = str(e), []
            assert "\n" not in said, (seed, said)
            assert len(said) < 1000, (seed, said)
        except Exception as e:
            raise AssertionError(f"seed {seed}, {odd[:2]}, {body[:80]}: {type(e).__name__}: {e}") from e
        lines += bool(said)
        assert said or statuses[1] == "ok", (seed, odd, statuses)
        assert said or statuses[0] != "ok" or odd[0] < 300, (seed, odd)
        assert server.asked[sources[0]] <= 4, (seed, odd)
        assert server.asked[sources[1]] <= 1, (seed, odd)
        server.shutdown()
        server.server_close()
    return lines, n - lines


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(openai_chat, "backoff", lambda *given: 0.0)


def test_odd_answers_are_kept_counted_and_asked_for_thrice_at_most(tmp_path, at_once):
    done, empty = whole_answers(40, tmp_path)
    assert done >= 1
    assert empty >= 3


def test_answers_that_no_model_made_are_one_line(tmp_path, at_once):
    lines, done = faults(5, tmp_path)
    assert lines >= 1
    assert done >= 1


def test_the_fuzz_would_notice(tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(openai_chat, "read_reply", lambda *given: replies.reply_of(given[0], {}, ""))  # loses what came
    with pytest.raises((AssertionError, WorkError)):
        whole_answers(5, tmp_path)


@pytest.mark.slow
def test_three_hundred_answers(tmp_path):
    done, empty = whole_answers(300, tmp_path / "whole", start=1000)
    assert done >= 8
    assert empty >= 20
    lines, done = faults(150, tmp_path / "faults", start=1000)
    assert lines >= 30
    assert done >= 30
