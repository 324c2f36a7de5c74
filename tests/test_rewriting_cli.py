"""`ratekit rewrite` and `run` with an LLM, from outside: one clear line per fault, nothing lost, no key anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from rewriting_support import ROOT, Server, environment, labelled

import ratekit as rk
from ratekit.rewriting.cache import Cache

pytestmark = pytest.mark.commands

CANARY = "sk-canary-0123456789abcdef"


def process(*arguments, **env):
    command = [sys.executable, "-m", "ratekit", *map(str, arguments)]
    return subprocess.run(command, env=environment(**env), cwd=ROOT, capture_output=True, text=True, timeout=300)


def said(result):
    """What a command that failed said; never a traceback, and the fault itself on one line."""
    assert "Traceback" not in result.stderr, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("ratekit: ")][-1]


@pytest.fixture(scope="module")
def server():
    with Server("chat_server.py", mean_ms=5) as running:
        yield running


@pytest.fixture
def data(tmp_path, server):
    server.configure(faults={}, key=None, model=None, mean_ms=5)
    labelled(30).to_parquet(tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


@pytest.fixture
def ratekit(capsys):
    """The command in this process: (exit code, stdout, stderr)."""
    from ratekit.cli import main

    def call(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


def asks(server, data, *more):
    """The call; an option that `more` gives stands in the place of the usual one."""
    usual = {"-a": "length", "--rewriter": "openai:m", "--base-url": server.url, "--out": data.parent / "out"}
    kept = [x for option, value in usual.items() if option not in more for x in (option, value)]
    return ("rewrite", data, *kept, *more)


def test_a_dry_run_asks_for_nothing_and_says_what_it_would_take(server, data, ratekit):
    result = ratekit(*asks(server, data, "--dry-run", "--price-in", 1, "--price-out", 4, "--rpm", 600))
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.replace("tokens ", "tokens_").splitlines())
    assert lines["rows"] == "30 at depth 2"
    assert lines["calls"].startswith("60 ")
    assert "an estimate" in lines["tokens_in"]
    tokens_in, tokens_out = (int(lines[k].split()[0].replace(",", "")) for k in ("tokens_in", "tokens_out"))
    assert float(lines["money"]) == pytest.approx((tokens_in + 4 * tokens_out) / 1e6, abs=0.006)
    assert lines["hours"].startswith("0.0017 (at 600 requests")
    assert server.stats.get("requests", 0) == 0


def test_the_dry_run_was_right_and_the_second_run_is_free(server, data, ratekit):
    first = ratekit(*asks(server, data))
    assert first.returncode == 0, first.stderr
    used = json.loads((data.parent / "out" / "rewriting.json").read_text())
    assert used["replies"] == server.stats["requests"] == 60
    assert used["template"] == rk.ChatRewriter(rk.OpenAIChat("m"), rk.ATTRIBUTES["length"]).template_hash
    plan = ratekit(*asks(server, data, "--dry-run"))
    assert "\ncalls       0 (60 in the cache" in plan.stdout
    assert ratekit(*asks(server, data)).returncode == 0
    assert server.stats["requests"] == 60


def test_run_records_what_was_used_and_retries_what_failed(server, data, tmp_path, ratekit):
    server.configure(faults={"length": 0.2})
    call = ("run", "--data", data, "-a", "length", "--rewriter", "openai:m", "--base-url", server.url,
            "--reward", "words", "--out", tmp_path / "run")  # fmt: skip
    assert ratekit(*call).returncode == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())["rewriting"]
    assert record["requests"] == server.stats["requests"]
    assert record["tokens_in"] > 0
    server.configure(faults={})
    assert ratekit(*call).returncode == 0
    assert server.stats.get("requests", 0) == 0
    assert ratekit(*call, "--retry-failed").returncode == 0
    assert server.stats["requests"] > 0
    ds = rk.estimate(__import__("datasets").load_from_disk(tmp_path / "run" / "dataset"))
    assert (ds["n_dropped"] == 0).all()


@pytest.mark.parametrize("works", [True, False])
def test_the_key_is_in_no_file_and_no_message(server, data, works):
    server.configure(key=CANARY if works else "sk-another")  # a server that echoes the wrong key
    result = process("run", "--data", data, "-a", "length", "--rewriter", "openai:m", "--base-url", server.url,
                     "--reward", "words", "--out", data.parent / "run", OPENAI_API_KEY=CANARY,
                     OPENAI_LOG="debug")  # fmt: skip
    assert result.returncode == (0 if works else 1), result.stderr
    if not works:
        assert "refused the key" in said(result)
    searched = [result.stdout.encode(), result.stderr.encode()]
    searched += [path.read_bytes() for path in data.parent.rglob("*") if path.is_file()]
    assert len(searched) > (6 if works else 2)
    assert not any(b"canary" in content for content in searched)


def test_ctrl_c_keeps_what_arrived_and_says_how_to_go_on(server, data):
    labelled(600).to_parquet(data)
    server.configure(mean_ms=400)
    command = [sys.executable, "-m", "ratekit", *map(str, asks(server, data))]
    running = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while server.stats.get("sent", 0) < 100 and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "run the same command again to go on" in err
    kept = len(Cache(data.parent / "out" / "rewrites"))
    assert kept >= 100
    assert server.stats["sent"] == kept  # requests under way were awaited, and kept
    server.configure(mean_ms=0)
    assert process(*asks(server, data)).returncode == 0
    assert server.stats["requests"] == 1200 - kept


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--rewriter", "opanai:m"], 2, "unknown rewriter 'opanai:m'"),
        (["--rewriter", "openai:"], 2, "which model? Write openai:MODEL"),
        (["--rewriter", "hf:"], 2, "which model? Write hf:MODEL"),
        (["--base-url", "http://127.0.0.1:9/v1"], 1, "http://127.0.0.1:9/v1 does not answer"),
        (["--base-url", "127.0.0.1:9/v1"], 2, "http://"),
        (["--budget", "1"], 2, "--price-in"),
        (["--price-in", "1"], 2, "both prices"),
        (["--price-in", "1", "--price-out", "nan"], 2, "1 and nan per million tokens"),
        (["--price-in", "1", "--price-out", "1", "--budget", "nan", "--dry-run"], 2, "budget=nan"),
        (["--max-tokens", "0"], 2, "max_tokens=0: a whole number from 1 on"),
        (["--top-p", "some"], 2, "neither a number nor `none`"),
        (["--split", "train"], 2, "is one table, which holds no split 'train'"),
        (["--rpm", "0"], 2, "rpm=0"),
        (["--template", "no-such.txt"], 2, "no-such.txt"),
        (["--template", "{folder}/empty.txt"], 2, "is empty"),
        (["--template", "{folder}/lacking.txt"], 2, "no {response}"),
        (["--template", "{folder}/odd.txt"], 2, "'txt'"),
        (["--rewriter", "batch:m", "--concurrency", "3"], 2, "--concurrency is for openai:MODEL"),
        (["--rewriter", "rules", "--dry-run"], 2, "makes no call"),
        (["--cache", "{folder}/data.parquet"], 2, "is a file"),
        (["--cache", "/proc/ratekit"], 2, "nothing can be written at /proc/ratekit"),
    ],
)
def test_a_wrong_call_is_one_line(server, data, ratekit, more, code, says):
    for name, text in {"empty": "\n", "lacking": "Make it {phrase}.", "odd": "{phrase} {response} {txt}"}.items():
        (data.parent / f"{name}.txt").write_text(text)
    more = [part.replace("{folder}", str(data.parent)) for part in more]
    result = ratekit(*asks(server, data, *more))
    assert result.returncode == code
    assert says in said(result)
    assert not (data.parent / "out" / "dataset").exists()


def test_a_wrong_model_stops_at_once(server, data, ratekit):
    server.configure(model="other")
    result = ratekit(*asks(server, data))
    assert result.returncode == 1
    assert "has no model 'm'" in said(result)
