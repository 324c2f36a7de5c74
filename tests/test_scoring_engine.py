"""Scoring a dataset: each distinct text once, what was scored kept, what is bad null, many processes alike."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from conftest import ROOT

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.scoring import engine
from ratekit.scoring.base import Scores
from ratekit.scoring.model import RewardModel
from ratekit.scoring.store import ScoreStore

torch = pytest.importorskip("torch")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("rm") / "tiny-rm", "llama", tok=tiny.tokenizer(model_max_length=300))


@pytest.fixture(scope="module")
def reward(model):
    return RewardModel(model)


def dataset(chains, prompts=None):
    from datasets import Dataset

    prompts = prompts or ["Why?"] * len(chains)
    return Dataset.from_dict(
        {
            "prompt_id": [str(i) for i in range(len(chains))],
            "prompt": [[{"role": "user", "content": p}] for p in prompts],
            "attribute": ["length"] * len(chains),
            "treated": [i % 2 == 0 for i in range(len(chains))],
            "response": [c[0] for c in chains],
            "rewrites": [c[1:] for c in chains],
        }
    )


class Counting:
    """A reward that remembers what it was asked."""

    name = "counting"

    def __init__(self):
        self.asked = []

    def __call__(self, prompts, responses):
        self.asked += [(str(p), r) for p, r in zip(prompts, responses, strict=True)]
        return np.array([len(r) + 0.1 * len(str(p)) for p, r in zip(prompts, responses, strict=True)])


# --- the dataset -------------------------------------------------------------------------------------------


def test_each_distinct_text_is_scored_once_and_every_row_gets_its_own():
    chains = [["a", "bb", "a"], ["a", None, "cccc"], ["bb", "a", None], ["a", "bb", "a"]]
    prompts = ["x", "x", "x", "yyy"]
    counting = Counting()
    ds = rk.score(dataset(chains, prompts), counting, progress=False)
    assert len(counting.asked) == len(set(counting.asked)) == 5
    for chain, prompt, row in zip(chains, ds["prompt"], ds["reward/counting"], strict=True):
        assert row == [None if t is None else len(t) + 0.1 * len(str(prompt)) for t in chain]


def test_texts_of_one_prompt_are_scored_together(monkeypatch):
    monkeypatch.setattr(engine, "_BLOCK", 2)
    counting = Counting()
    prompts = ["p", "q", "p", "q", "p"]
    rk.score(dataset([[f"r{i}"] for i in range(5)], prompts), counting, progress=False)
    asked = [prompt for prompt, _ in counting.asked]
    assert asked == sorted(asked)


def test_a_text_is_the_same_text_only_under_the_same_prompt():
    counting = Counting()
    rk.score(dataset([["a"], ["a"]], ["x", "y"]), counting, progress=False)
    assert len(counting.asked) == 2


def test_a_model_reward_is_that_of_the_model(reward):
    ds = rk.load("reviews", attribute="length", n=20)
    scored = rk.score(ds, reward, progress=False)
    for row in scored.select(range(4)):
        texts = [row["response"], *row["rewrites"]]
        alone = [reward([row["prompt"]], [t])[0] for t in texts]
        np.testing.assert_allclose(row["reward/tiny-rm"], alone, atol=2e-5)


def test_a_wrong_shape_and_a_failing_reward_are_one_line():
    ds = dataset([["a"]])
    with pytest.raises(WorkError, match=r"array of shape \(1, 2\) for 1 texts"):
        rk.score(ds, lambda p, r: np.zeros((1, 2)), name="x", progress=False)
    with pytest.raises(WorkError, match="gave no finite reward for any of the 1 texts"):
        rk.score(ds, lambda p, r: [np.nan], name="x", progress=False)


# --- the store ---------------------------------------------------------------------------------------------


def test_only_what_is_new_is_scored(model, tmp_path, monkeypatch):
    ds = rk.load("reviews", attribute="sentiment", n=12)
    asked = []
    scores = RewardModel.scores

    def counted(self, prompts, responses):
        asked.extend(responses)
        return scores(self, prompts, responses)

    monkeypatch.setattr(RewardModel, "scores", counted)
    first = rk.score(ds.select(range(8)), model, cache=tmp_path, progress=False)
    assert asked
    asked.clear()
    again = rk.score(ds, model, cache=tmp_path, progress=False)
    new = {t for row in ds.select(range(8, 12)) for t in [row["response"], *row["rewrites"]]}
    assert set(asked) <= new
    assert again["reward/tiny-rm"][:8] == first["reward/tiny-rm"]
    asked.clear()
    rk.score(ds, model, cache=tmp_path, progress=False)
    assert not asked


def test_the_store_is_a_dataset_and_tells_models_apart(tmp_path, reward):
    from datasets import load_dataset

    ds = dataset([["It is."], ["It was."]])
    rk.score(ds, reward, cache=tmp_path, progress=False)
    kept = load_dataset("json", data_files=str(tmp_path / "*.scores"), split="train", cache_dir=str(tmp_path / "c"))
    assert [len(texts) for texts in kept["texts"]] == [2]
    assert set(kept["model"]) == {"tiny-rm"}
    assert set(kept["dtype"]) == {"float32"}
    keys = [bytes.fromhex(text) for text in kept["texts"][0]]
    assert ScoreStore(tmp_path, reward.fingerprint).get(keys).statuses == ["ok", "ok"]
    for name in ("model", "revision", "adapter", "dtype"):
        other = {**reward.fingerprint, name: "another"}
        assert ScoreStore(tmp_path, other).get(keys).statuses == ["", ""]


FINGERPRINT = {"model": "m", "revision": "1", "adapter": "a", "dtype": "float32"}


def test_scores_come_back_bit_for_bit_with_their_parts(tmp_path):
    rng = np.random.default_rng(0)
    keys = [bytes(k) for k in rng.integers(0, 256, (40, 16), dtype=np.uint8)]
    rewards = np.concatenate([rng.normal(size=37) * 10.0 ** rng.integers(-300, 300, 37), [5e-324, 1 / 3, -0.0]])
    parts = {"help": np.where(rng.random(40) < 0.2, np.nan, rng.normal(size=40))}
    store = ScoreStore(tmp_path, FINGERPRINT)
    store.put(keys[:25], Scores(rewards[:25], ["ok"] * 25, {}, np.arange(25)))
    statuses = ["ok"] * 13 + ["truncated", "too long"]
    store.put(keys[25:], Scores(rewards[25:], statuses, {n: v[25:] for n, v in parts.items()}, np.arange(25, 40)))
    store.close()
    got = ScoreStore(tmp_path, FINGERPRINT).get([*keys, b"another text is."])
    assert got.rewards[:39].tobytes() == rewards[:39].tobytes()
    assert np.isnan(got.rewards[39:]).all()  # what was not scored, and what was not asked for
    assert got.statuses == ["ok"] * 38 + ["truncated", "", ""]
    np.testing.assert_array_equal(got.parts["help"], [*[np.nan] * 25, *parts["help"][25:39], np.nan, np.nan])
    assert list(got.tokens[:39]) == list(range(39))


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_a_kept_score_is_seen_and_never_read(tmp_path, caplog, seed):
    """Each bit of the file may flip: a score is the one that was kept, or it is missing and that is said."""
    rng = np.random.default_rng(seed)
    keys = [bytes(k) for k in rng.integers(0, 256, (12, 16), dtype=np.uint8)]
    rewards = rng.normal(size=12)
    with_parts = {"help": rng.normal(size=12)}
    store = ScoreStore(tmp_path, FINGERPRINT)
    for i in range(0, 12, 4):
        block = Scores(rewards[i : i + 4], ["ok"] * 4, {n: v[i : i + 4] for n, v in with_parts.items()}, np.arange(4))
        store.put(keys[i : i + 4], block)
    store.close()
    (shard,) = tmp_path.glob("*.scores")
    raw = shard.read_bytes()
    for at in rng.integers(0, len(raw), 60):
        broken = bytearray(raw)
        broken[at] ^= 1 << int(rng.integers(8))
        shard.write_bytes(broken)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ratekit"):
            got = ScoreStore(tmp_path, FINGERPRINT).get(keys)
        kept = np.array([status == "ok" for status in got.statuses])
        assert (got.rewards[kept] == rewards[kept]).all(), at
        assert (got.parts["help"][kept] == with_parts["help"][kept]).all(), at
        assert kept.sum() >= 4, at  # a damage between two lines costs both, no more
        assert kept.all() or "damaged" in caplog.text or "torn" in caplog.text, at


def test_replies_and_scores_can_share_a_folder(tmp_path):
    from ratekit.rewriting.cache import Cache

    with Cache(tmp_path) as cache:
        cache.put("k1", {"text": "hello"})
    store = ScoreStore(tmp_path, FINGERPRINT)
    store.put([b"k" * 16], Scores(np.array([0.5]), ["ok"], {}, np.array([3])))
    store.close()
    assert len(Cache(tmp_path)) == len(ScoreStore(tmp_path, FINGERPRINT)) == 1


def test_another_training_in_the_same_folder_is_another_revision(tmp_path):
    first = RewardModel(tiny.save(tmp_path, "gpt2", seed=0)).fingerprint
    second = RewardModel(tiny.save(tmp_path, "gpt2", seed=1)).fingerprint
    assert first["revision"] != second["revision"]
    assert {**first, "revision": ""} == {**second, "revision": ""}


def test_what_is_read_with_another_limit_is_kept_apart(model):
    assert RewardModel(model, max_length=64).fingerprint != RewardModel(model).fingerprint


def test_a_damaged_shard_is_passed_over_with_a_warning(tmp_path, reward, caplog):
    (tmp_path / "scores-1-torn.scores").write_bytes(b"PAR1 torn\n")
    with caplog.at_level(logging.WARNING, "ratekit"):
        rk.score(dataset([["It is."]]), reward, cache=tmp_path, progress=False)
    assert "scores-1-torn.scores, line 1 is damaged" in caplog.text


def test_a_run_that_fails_half_way_keeps_what_it_scored(tmp_path, reward, monkeypatch):
    monkeypatch.setattr(engine, "_BLOCK", 2)
    ds = dataset([[f"It is {i}."] for i in range(8)], [f"Why {i}?" for i in range(8)])
    asked = []
    scores = RewardModel.scores

    def failing(self, prompts, responses):
        asked.extend(responses)
        if len(asked) > 4:
            raise WorkError("the machine went away")
        return scores(self, prompts, responses)

    monkeypatch.setattr(RewardModel, "scores", failing)
    with pytest.raises(WorkError, match="went away"):
        rk.score(ds, reward, cache=tmp_path, progress=False)
    monkeypatch.setattr(RewardModel, "scores", scores)
    assert len(ScoreStore(tmp_path, reward.fingerprint)) == 4
    whole = rk.score(ds, reward, cache=tmp_path, progress=False)
    np.testing.assert_allclose(
        [r[0] for r in whole["reward/tiny-rm"]], reward([p for p in ds["prompt"]], ds["response"]), atol=2e-5
    )


# --- what is bad -------------------------------------------------------------------------------------------


def test_bad_texts_are_null_with_a_status_and_the_rest_is_scored(reward, caplog):
    good = "It is blue because of the air."
    ds = dataset([[good, ""], [good, " \n\t "], [good, None]])
    with caplog.at_level(logging.WARNING, "ratekit"):
        scored = rk.score(ds, reward, progress=False)
    value = reward(["Why?"], [good])[0]
    got = scored["reward/tiny-rm"]
    assert [[v is None for v in row] for row in got] == [[False, True]] * 3
    assert got[0][0] == pytest.approx(value, abs=2e-5)
    assert scored["reward_status/tiny-rm"] == [["ok", "empty"], ["ok", "empty"], ["ok", None]]
    assert "tiny-rm could not score 2 of 3 texts, which are null (2 empty, first in row 1)" in caplog.text


def test_lone_surrogates_are_no_text(reward):
    scores = reward.scores(["Why?", "Why?", "\ud800"], ["It is \udcff.", "It is.", "It is."])
    assert scores.statuses == ["not_text", "ok", "not_text"]
    assert np.isnan(scores.rewards).tolist() == [True, False, True]


def test_a_model_that_gives_nan(tmp_path, caplog):
    """One word's embedding is broken: the texts without it are scored."""
    from safetensors.torch import load_file, save_file

    path = tiny.save(tmp_path, "llama")
    weights = load_file(tmp_path / "model.safetensors")
    token = tiny.tokenizer()("~", add_special_tokens=False)["input_ids"][0]
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING, "ratekit"):
        ds = rk.score(dataset([["It is."], ["It ~ is."], ["It was."]]), path, name="rm", progress=False)
    assert ds["reward_status/rm"] == [["ok"], ["not_finite"], ["ok"]]
    assert ds["reward/rm"][1] == [None]
    assert "1 not_finite, first in row 2" in caplog.text


def test_a_template_that_refuses_some_conversations(tmp_path, caplog):
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + tiny.TEMPLATE
    )
    path = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(template=refusing))
    prompts = [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}], "Why?"]
    with caplog.at_level(logging.WARNING, "ratekit"):
        assert RewardModel(path).scores(prompts, ["So.", "So."]).statuses == ["template", "ok"]
    assert "no system turn" in caplog.text


# --- too long ----------------------------------------------------------------------------------------------


def decoded(reward, prompt, response):
    text, status = (found[0] for found in reward.encode([prompt], [response]))
    return reward.tokenizer.decode(text.ids), status, len(text.ids)


def test_the_prompt_is_cut_first_and_from_its_start(reward):
    prompt = " ".join(f"p{i}" for i in range(400))
    seen, status, n = decoded(reward, prompt, "It is blue.")
    assert status == "truncated"
    assert n <= 300
    assert n > 290, "no more is cut than must be"
    assert seen.startswith("<s><|user|>\n")
    assert seen.endswith("p398 p399<|eot|><|assistant|>\nIt is blue.<|eot|>")
    assert " p0 " not in seen


def test_the_responses_end_is_kept_when_even_it_is_too_long(reward):
    response = " ".join(f"r{i}" for i in range(36_000))
    assert len(response) > 200_000
    seen, status, n = decoded(reward, "Why?", response)
    assert status == "truncated"
    assert n <= 300
    assert seen.startswith("<s><|user|>\n<|eot|><|assistant|>\n")
    assert seen.endswith("r35998 r35999<|eot|>")


def test_whole_turns_go_with_their_answers(reward):
    turns = [
        {"role": role, "content": f"{role} {i} " + "word " * 40} for i in range(4) for role in ("user", "assistant")
    ]
    prompt = [*turns, {"role": "user", "content": "Why?"}]
    seen, status, _ = decoded(reward, prompt, "So.")
    assert status == "truncated"
    assert seen.count("<|user|>") == seen.count("<|assistant|>")
    assert "assistant 3" in seen
    assert "user 0" not in seen


def test_truncation_is_counted_and_a_column_says_so(reward, caplog):
    with caplog.at_level(logging.WARNING, "ratekit"):
        ds = rk.score(dataset([["So.", "word " * 5000]]), reward, progress=False)
    assert ds["reward_status/tiny-rm"] == [["ok", "truncated"]]
    assert None not in ds["reward/tiny-rm"][0]
    assert "1 of 2 texts are longer than it reads and were cut (first: row 1)" in caplog.text


@pytest.mark.commands
def test_running_out_of_memory_halves_the_budget(model, reward, monkeypatch):
    small = RewardModel(model)
    prompts, responses = ["Why?"] * 12, [f"It is {i} because of the air." for i in range(12)]
    whole = small.model.base_model.forward

    def tight(*args, input_ids=None, **kwargs):
        if input_ids.numel() > 90:
            raise torch.OutOfMemoryError("out of memory")
        return whole(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(small.model.base_model, "forward", tight)
    np.testing.assert_allclose(small(prompts, responses), reward(prompts, responses), atol=2e-5)
    assert small.forward.budget <= 90


# --- what is no reward model -------------------------------------------------------------------------------


def test_a_generative_model_is_refused_and_told_what_to_do(tmp_path):
    path = tiny.save(tmp_path, "llama", "CausalLM")
    with pytest.raises(InputError, match=r"is a LlamaForCausalLM, not a reward model.*judge:"):
        RewardModel(path)
    with pytest.raises(InputError, match=r"does not hold all weights.*they would be random"):
        RewardModel(path, "chat")


def test_a_weight_of_another_shape_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tiny.save(tmp_path, "llama")
    weights = load_file(tmp_path / "model.safetensors")
    weights["score.weight"] = weights["score.weight"][:, :16].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"score.weight of shape \(1, 16\), and a .* has \(1, 32\)"):
        RewardModel(path)


def test_a_pickle_is_refused(tmp_path):
    path = tiny.save(tmp_path, "llama")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pickled \(pytorch_model.bin\)"):
        RewardModel(path)


def test_a_decoder_without_a_chat_template_is_refused(tmp_path):
    path = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(template=None))
    with pytest.raises(InputError, match="has no chat template"):
        RewardModel(path)
    assert np.isfinite(RewardModel(path, "pair")(["Why?"], ["So."])).all()


def test_a_template_that_drops_the_last_newline_is_said(tmp_path, caplog):
    strips = tiny.TEMPLATE.replace("m['content']", "m['content'] | trim")
    path = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(template=strips))
    with caplog.at_level(logging.WARNING, "ratekit"):
        RewardModel(path)
    assert "drops a line break at the response's end" in caplog.text


@pytest.mark.parametrize("pad", ["</s>", None])
def test_pad_that_is_eos_or_missing_reads_what_transformers_reads(tmp_path, pad):
    """A text that ends in the padding token: its last token would be taken for padding."""
    from transformers import AutoModelForSequenceClassification

    template = tiny.TEMPLATE.replace("<|eot|>{% endfor %}", "</s>{% endfor %}")
    tok = tiny.tokenizer(template=template, pad_token=pad)
    path = tiny.save(tmp_path, "llama", tok=tok, pad_token_id=2 if pad else None)
    stock = AutoModelForSequenceClassification.from_pretrained(path).eval()
    prompts, responses = (
        ["Why?", "Why is the sky blue?", "Why?"],
        ["So.", "Because of the air and so on.", "No, it is not."],
    )
    for way in ("auto", "padded"):
        reward = RewardModel(path, path=way)
        texts = reward.encode(prompts, responses)[0]
        assert all(t.ids[-1] == 2 for t in texts)
        with torch.no_grad():
            wanted = [stock(torch.tensor([t.ids])).logits[0, 0].item() for t in texts]
        np.testing.assert_allclose(reward(prompts, responses), wanted, atol=2e-5)


# --- several processes -------------------------------------------------------------------------------------


def launched(n, *args):
    """`ratekit` in n processes. `--cpu` would run one; with `--multi_gpu` all n run, on the CPU where no GPU is."""
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(n), "--main_process_port", "0"]
    command = [sys.executable, "-m", *launch, *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


WORKER = """
import sys
from accelerate import PartialState
import ratekit as rk
from ratekit import files
from ratekit.scoring import engine
from ratekit.scoring.base import Scores
engine._BLOCK = 4
data, model, out, end = sys.argv[1:5]
state = PartialState(cpu=True)
assert state.num_processes == 2, state.num_processes
if end == "killed" and state.process_index == 1:
    import os, signal
    from ratekit.scoring.store import ScoreStore
    put = ScoreStore.put
    n_put = []
    def put_twice(self, keys, scores):
        put(self, keys, scores)
        n_put.append(len(keys))
        if len(n_put) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    ScoreStore.put = put_twice
ds = rk.score(files.read(data), model, cache=out + "/scores", progress=False)
if state.is_main_process:
    ds.save_to_disk(out + "/dataset")
state.wait_for_everyone()
"""


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_a_killed_run_goes_on(tmp_path, model, reward):
    from datasets import load_from_disk

    (tmp_path / "worker.py").write_text(WORKER)
    data, out = str(tmp_path / "data"), str(tmp_path / "out")
    ds = rk.load("reviews", attribute="length", n=40)
    ds.save_to_disk(data)
    killed = launched(2, str(tmp_path / "worker.py"), data, model, out, "killed")
    assert killed.wait(120) != 0
    killed.communicate()
    store = tmp_path / "out" / "scores"
    n_kept = len(ScoreStore(store, reward.fingerprint))
    resumed = launched(2, str(tmp_path / "worker.py"), data, model, out, "whole")
    said = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    alone = rk.score(ds, reward, progress=False)["reward/tiny-rm"]
    both = load_from_disk(out + "/dataset")["reward/tiny-rm"]
    assert len(both) == len(alone)
    for a, b in zip(alone, both, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    n_texts = len({(str(r["prompt"]), t) for r in ds for t in [r["response"], *r["rewrites"]]})
    assert 0 < n_kept < n_texts
    assert len(ScoreStore(store, reward.fingerprint)) == n_texts
