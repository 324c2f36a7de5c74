"""A model on this machine: by `transformers` in this process, and behind `transformers serve`, a real server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from rewriting_support import environment, labelled, tiny_chat

import ratekit as rk
from ratekit.cli import main
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cache import Cache
from ratekit.rewriting.slots import fits, generate

pytestmark = pytest.mark.commands


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_chat(tmp_path_factory.mktemp("models") / "tiny-chat")


def conversations(n=12):
    return [[{"role": "user", "content": "The film. " * (1 + i % 5) + str(i)}] for i in range(n)]


def one_by_one(model, conversation, max_tokens):
    """The greedy reply by the shortest way that there is: no batch, no padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model)
    ids = tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.no_grad():
        made = network.generate(ids, max_new_tokens=max_tokens, do_sample=False)[0, ids.shape[1] :].tolist()
    ended = tokenizer.eos_token_id in made
    return tokenizer.decode(made, skip_special_tokens=True), "stop" if ended else "length"


def test_greedy_batches_give_what_one_text_alone_gives(model):
    asked = conversations()
    replies = {r.index: r for r in rk.LocalChat(str(model), max_tokens=40, temperature=0, batch_tokens=600)(asked)}
    assert sorted(replies) == list(range(12))
    for i in (0, 4, 11):
        assert (replies[i].text, replies[i].finish_reason) == one_by_one(model, asked[i], 40)


def test_a_reply_comes_when_it_ends_and_frees_its_place(model):
    """Rows of different lengths through three places give the greedy text of each alone."""
    asked = conversations(12)
    chat = rk.LocalChat(str(model), max_tokens=150, temperature=0, batch_tokens=3 * 220)
    replies = {r.index: r for r in chat(asked)}
    assert sorted(replies) == list(range(12))
    lengths = {i: r.usage["completion"] for i, r in replies.items()}
    assert len(set(lengths.values())) > 1
    for i in range(12):
        assert (replies[i].text, replies[i].finish_reason) == one_by_one(model, asked[i], 150)


@pytest.mark.parametrize("slots", [1, 2, 5, 40])
def test_the_number_of_places_changes_no_reply(model, slots):
    """Sampled too: what is drawn for a text depends on its seed alone."""
    chat = rk.LocalChat(str(model), max_tokens=90, temperature=0.0)
    ids = sorted((chat._encode(c) for c in conversations(9)), key=len, reverse=True)
    rooms = [20 + 13 * k % 70 for k in range(9)]
    for temperature, top_p in ((0.0, 1.0), (0.8, 1.0), (0.8, 0.9)):
        ways = [
            dict(generate(chat._loaded, ids, rooms, n, chat._ends, temperature, top_p, list(range(9))))
            for n in (slots, 9)
        ]
        assert ways[0] == ways[1]
        assert all(len(ways[0][i]) <= rooms[i] for i in range(9))


def test_a_repetition_penalty_of_the_model_is_kept(model):
    chat = rk.LocalChat(str(model), max_tokens=30, temperature=0)
    asked = conversations(3)
    without = [r.text for r in sorted(chat(asked), key=lambda r: r.index)]
    chat._loaded.generation_config.repetition_penalty = 1.8
    with_it = {r.index: r.text for r in chat(asked)}
    assert list(with_it.values()) != without
    padded = chat._in_batches([0], [chat._encode(asked[0])], 30)
    assert chat._reply(0, next(padded)[1], 0).text == with_it[0]


def test_a_cache_of_another_kind_is_left_to_generate(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, MistralConfig

    config = MistralConfig(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=8,
    )  # fmt: skip
    torch.manual_seed(0)
    assert not fits(AutoModelForCausalLM.from_config(config))
    config.sliding_window = None
    assert fits(AutoModelForCausalLM.from_config(config))


def test_memory_that_runs_out_halves_the_batch_and_loses_no_reply(model, monkeypatch):
    import torch

    from ratekit.rewriting import local

    asked = conversations(6)
    wanted = {r.index: r.text for r in rk.LocalChat(str(model), max_tokens=30, temperature=0)(asked)}
    tried = []

    def scarce(network, ids, rooms, slots, *rest):
        tried.append(slots)
        for k, made in enumerate(generate(network, ids, rooms, slots, *rest)):
            if slots > 3 and k == 2:
                raise torch.OutOfMemoryError("no memory")
            yield made

    monkeypatch.setattr(local, "generate", scarce)
    chat = rk.LocalChat(str(model), max_tokens=30, temperature=0, batch_tokens=500)
    assert {r.index: r.text for r in chat(asked)} == wanted
    assert tried[0] > 3 >= tried[-1], tried


def test_the_defaults_are_those_of_a_server():
    own, served = rk.LocalChat("m"), rk.OpenAIChat("m", "http://127.0.0.1:1/v1")
    assert (own.max_tokens, own.temperature) == (served.max_tokens, served.temperature)


def test_a_reply_that_does_not_end_is_truncated(model):
    replies = list(rk.LocalChat(str(model), max_tokens=3, temperature=0)(conversations()))
    assert {r.finish_reason for r in replies} == {"length"}
    assert all(r.usage["completion"] == 3 for r in replies)


def test_sampling_is_decided_by_the_seed_and_leaves_the_global_one_alone(model):
    import torch

    def sampled(seed):
        chat = rk.LocalChat(str(model), max_tokens=40, temperature=1.0, seed=seed)
        return [r.text for r in sorted(chat(conversations()), key=lambda r: r.index)]

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = sampled(0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert sampled(0) == first
    assert sampled(1) != first


def test_a_text_longer_than_the_model_reads_fails_alone(model):
    long = [{"role": "user", "content": "The film was a joy. " * 500}]
    replies = {r.index: r for r in rk.LocalChat(str(model), max_tokens=20)([long, *conversations(2)])}
    assert replies[0] == Reply(0, None, "error")
    assert replies[1].finish_reason in ("stop", "length")


def test_rewrite_counts_with_the_models_own_tokenizer(model, tmp_path, capsys):
    labelled(4).to_parquet(tmp_path / "data.parquet")
    call = ["rewrite", str(tmp_path / "data.parquet"), "-a", "length", "--rewriter", f"hf:{model}",
            "--out", str(tmp_path / "out"), "--max-tokens", "60"]  # fmt: skip
    assert main([*call, "--dry-run"]) == 0
    assert "counted with the model's own tokenizer" in capsys.readouterr().out
    assert main(call) == 0
    assert len(Cache(tmp_path / "out" / "rewrites")) >= 4


def test_what_is_no_chat_model_is_one_line(tmp_path, capsys):
    labelled(2).to_parquet(tmp_path / "data.parquet")
    call = ["rewrite", str(tmp_path / "data.parquet"), "-a", "length", "--out", str(tmp_path / "out"), "--rewriter"]
    assert main([*call, "hf:no/such-model"]) == 2
    assert "'no/such-model' cannot be loaded" in capsys.readouterr().err
    assert main([*call, "hf:no/such-model", "--base-url", "http://127.0.0.1:1/v1"]) == 2
    assert "--base-url is for" in capsys.readouterr().err


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """`transformers serve` with the tiny model: a real OpenAI-compatible server without a network."""
    home = tmp_path_factory.mktemp("hf")
    (home / "hub").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu",
               "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]  # fmt: skip
    log = (home / "log").open("w")
    process = subprocess.Popen(command, env=environment(HF_HOME=str(home)), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def test_a_real_server_end_to_end(served, model, tmp_path, capsys):
    labelled(6).to_parquet(tmp_path / "data.parquet")
    call = ["rewrite", str(tmp_path / "data.parquet"), "-a", "length", "--rewriter", f"openai:{model}",
            "--base-url", served, "--out", str(tmp_path / "out"), "--max-tokens", "60", "--concurrency", "2",
            "--temperature", "1"]  # fmt: skip
    assert main(call) == 0, capsys.readouterr().err
    used = json.loads((tmp_path / "out" / "rewriting.json").read_text())
    assert used["replies"] >= 6
    assert used["tokens_in"] > 0
    assert used["tokens_out"] > 0
    from datasets import load_from_disk

    ds = load_from_disk(str(tmp_path / "out" / "dataset"))
    assert len(ds) == 6
    for texts, statuses in zip(ds["rewrites"], ds["rewrite_status"], strict=True):
        assert all((text is not None) == (status == "ok") for text, status in zip(texts, statuses, strict=True))
    assert any(status[0] == "ok" for status in ds["rewrite_status"])
    assert main(call) == 0
    assert json.loads((tmp_path / "out" / "rewriting.json").read_text())["requests"] == 0


def test_a_real_server_without_that_model(served, tmp_path, capsys):
    labelled(6).to_parquet(tmp_path / "data.parquet")
    call = ["rewrite", str(tmp_path / "data.parquet"), "-a", "length", "--rewriter", "openai:no/such",
            "--base-url", served, "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(call) == 1
    assert "no/such" in capsys.readouterr().err.splitlines()[-1]
