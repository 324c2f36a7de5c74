"""Every adapter and every architecture against a forward written out by hand: one text, no padding, no tricks."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from armo import save_armo

import ratekit as rk
from ratekit.errors import InputError
from ratekit.scoring import HUB, NamedReward, make_reward
from ratekit.scoring.adapters import ARMO, PAIRWISE, POSITIVE, Adapter
from ratekit.scoring.judges import DpoReward, PairwiseJudge
from ratekit.scoring.model import PROBE, RewardModel

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # for models this small a second thread costs more than it does

LONG = "I would see it again, and then again, and say whether you would recommend it. " * 4
PROMPTS = [p for p, _ in PROBE] + ["Write a review of a film."] * 4
RESPONSES = [r for _, r in PROBE] + [LONG, LONG + "It was good.", LONG + "It was bad.", "No."]
CONVERSATION = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Why what?"},
    {"role": "user", "content": "Why is the sky blue?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def get(kind, task="SequenceClassification", key="", **options):
        name = f"{kind}-{task}{key}"
        if name not in made:
            made[name] = tiny.save(tmp_path_factory.mktemp(name), kind, task, **options)
        return made[name]

    return get


def classifier(path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def chat_text(prompt, response):
    """The tests' chat template, written out."""
    return f"<s><|user|>\n{prompt}<|eot|><|assistant|>\n{response}<|eot|>"


def by_hand(path, encoder=False, column=0):
    """One text at a time through the stock model."""
    model, tokenizer = classifier(path)
    out = []
    with torch.no_grad():
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
            if encoder:
                ids = tokenizer(prompt, response)["input_ids"]
            else:
                ids = tokenizer(chat_text(prompt, response), add_special_tokens=False)["input_ids"]
            out.append(model(torch.tensor([ids])).logits[0, column].item())
    return np.array(out)


PACKED = {*tiny.DECODERS, *tiny.ENCODERS} - {"modernbert", "deberta-v2"}


@pytest.mark.parametrize("kind", [*tiny.DECODERS, *tiny.ENCODERS])
def test_every_architecture_scores_as_one_by_one(folder, kind):
    path = folder(kind)
    wanted = by_hand(path, encoder=kind in tiny.ENCODERS)
    assert wanted.std() > 0.1, "the texts must matter, or nothing is tested"
    reward = RewardModel(path)
    assert reward.forward.path == ("packed" if kind in PACKED else "padded")
    for budget in (10**6, 300, 60):
        reward.forward.budget = budget
        np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, atol=2e-5)
    padded = RewardModel(path, path="padded", token_budget=200)
    np.testing.assert_allclose(padded(PROMPTS, RESPONSES), wanted, atol=2e-5)


def test_order_and_company_change_nothing(folder):
    reward = RewardModel(folder("llama"))
    together = reward(PROMPTS, RESPONSES)
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    shuffled = reward([PROMPTS[i] for i in order], [RESPONSES[i] for i in order])
    np.testing.assert_allclose(shuffled, together[order], atol=2e-5)
    alone = [reward([p], [r])[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(alone, together, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_hiding_one_token_of_the_shared_beginning_is_seen(folder, kind, monkeypatch):
    from ratekit.scoring import packing

    reward = RewardModel(folder(kind))
    whole, right = packing.seen, reward(PROMPTS, RESPONSES)

    def hidden(key, value, segment, n):
        k, v = whole(key, value, segment, n)
        if segment.context:
            k, v = k.clone(), v.clone()
            k[:, :, 3], v[:, :, 3] = k[:, :, 4], v[:, :, 4]
        return k, v

    monkeypatch.setattr(packing, "seen", hidden)
    assert np.abs(reward(PROMPTS, RESPONSES) - right).max() > 1e-3


def test_a_model_whose_packed_scores_would_be_wrong_is_padded(folder, monkeypatch):
    """The check at load is what stands between a family that packs wrongly and wrong numbers."""
    from ratekit.scoring import packing

    path = folder("llama")
    wanted = by_hand(path)
    whole = packing.seen
    monkeypatch.setattr(packing, "seen", lambda k, v, s, n: whole(k, v, s._replace(context=s.context[:-1]), n))
    reward = RewardModel(path)
    assert reward.forward.path == "padded"
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "distilbert", "bert"])
@pytest.mark.parametrize("tiles", [False, True])
def test_bfloat16_is_as_near_to_the_truth_as_one_by_one(folder, kind, tiles, monkeypatch):
    from transformers import AutoModelForSequenceClassification

    from ratekit.scoring import packing

    monkeypatch.setattr(packing, "_tiles", lambda dtype: tiles)  # both ways, whatever this CPU has
    path = folder(kind)
    reward = RewardModel(path, dtype="bfloat16")
    texts = reward.encode(PROMPTS, RESPONSES)[0]
    exact = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float64).eval()
    with torch.no_grad():
        truth = np.array([exact(torch.tensor([t.ids])).logits[0, 0].item() for t in texts])
    fast = np.abs(reward(PROMPTS, RESPONSES) - truth)
    alone = np.abs(reward.forward.one_by_one(texts)[:, 0] - truth)
    assert reward.dtype == "bfloat16"
    assert alone.max() > 1e-3, "bfloat16 rounds"
    assert np.sqrt((fast**2).mean()) <= 1.3 * np.sqrt((alone**2).mean())


def test_shared_texts_are_run_once(folder):
    reward = RewardModel(folder("llama"))
    texts = reward.encode(PROMPTS * 3, RESPONSES * 3)[0]
    before = reward.forward.n_run
    reward.forward(texts)
    assert 0 < reward.forward.n_run - before < 0.8 * len({t.ids for t in texts}) * np.mean([len(t.ids) for t in texts])


# --- adapters ----------------------------------------------------------------------------------------------


def test_chat_keeps_every_turn(folder):
    path = folder("llama")
    model, tokenizer = classifier(path)
    turns = "".join(f"<|{t['role']}|>\n{t['content']}<|eot|>" for t in CONVERSATION)
    ids = tokenizer(f"<s>{turns}<|assistant|>\nAir.<|eot|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, 0].item()
    assert RewardModel(path)([CONVERSATION], ["Air."])[0] == pytest.approx(wanted, abs=2e-5)


def test_the_beginning_of_sequence_token_is_there_once(tmp_path):
    """Some templates write it and some tokenizers add it; some do both, some one."""
    from tokenizers import processors

    adds = tiny.tokenizer()
    adds.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    both = tiny.save(tmp_path / "both", "llama", tok=adds)
    only_tokenizer = tiny.save(
        tmp_path / "tokenizer", "llama", tok=_with(adds, tiny.TEMPLATE.replace("{{ bos_token }}", ""))
    )
    only_template = tiny.save(tmp_path / "template", "llama")
    for path in (both, only_tokenizer, only_template):
        ids = RewardModel(path).encode(["Why?"], ["So."])[0][0].ids
        assert ids[0] == 1
        assert ids.count(1) == 1


def _with(tokenizer, template):
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_positive_label_of_a_classifier_reads_the_response_alone(folder):
    labels = {0: "NEGATIVE", 1: "POSITIVE"}
    path = folder("distilbert", key="2", num_labels=2, id2label=labels, label2id={v: k for k, v in labels.items()})
    model, tokenizer = classifier(path)
    with torch.no_grad():
        wanted = [model(torch.tensor([tokenizer(r)["input_ids"]])).logits[0, 1].item() for r in RESPONSES]
    reward = RewardModel(path)
    assert reward.adapter == POSITIVE
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_judge_is_the_logit_of_yes_minus_that_of_no(folder, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = folder(kind, "CausalLM")
    adapter = Adapter("test", "question", "yes_no", question="{prompt} / {response} Good?", answers=("Y", "N"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    yes, no = (tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in "YN")
    wanted = []
    with torch.no_grad():
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
            text = f"<s><|user|>\n{prompt} / {response} Good?<|eot|><|assistant|>\n"
            logits = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
            wanted.append((logits[yes] - logits[no]).item())
    reward = RewardModel(path, adapter)
    assert reward.forward.path == "packed"
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, atol=5e-5)
    padded = RewardModel(path, adapter, path="padded")
    np.testing.assert_allclose(padded(PROMPTS, RESPONSES), wanted, atol=5e-5)


def test_braces_in_a_response_do_not_fill_the_judges_question(folder):
    reward = make_reward(f"judge:{folder('llama', 'CausalLM')}")
    assert "{prompt} {response}" in reward.encode.render("Why?", "{prompt} {response}")


def test_a_pairwise_judge_asks_both_orders_and_averages(folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = folder("llama", "CausalLM")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    a, b = (tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in "AB")
    references = dict(zip(PROMPTS, RESPONSES, strict=True))  # of equal prompts the last response

    def asked(prompt, first, second):
        shown = PAIRWISE.question.replace("{prompt}", prompt).replace(
            "{response}",
            f"<response A>\n{first}\n</response A>\n\n<response B>\n{second}\n</response B>",
        )
        text = f"<s><|user|>\n{shown}<|eot|><|assistant|>\n"
        logits = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
        return (logits[a] - logits[b]).item()

    with torch.no_grad():
        wanted = [
            (asked(p, r, references[p]) - asked(p, references[p], r)) / 2
            for p, r in zip(PROMPTS, RESPONSES, strict=True)
        ]
    judge = PairwiseJudge(path, references)
    got = judge.scores([*PROMPTS, PROMPTS[0]], [*RESPONSES, "  "])
    np.testing.assert_allclose(got.rewards[:-1], wanted, atol=5e-5)
    assert np.std(wanted) > 0.01
    own = [i for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True)) if references[p] == r]
    assert own
    assert (got.rewards[own] == 0).all(), "a response against itself is neither better nor worse"
    assert got.statuses[-1] == "empty"
    assert np.isnan(got.rewards[-1])
    assert ((got.parts["answer_mass"][:-1] > 0) & (got.parts["answer_mass"][:-1] < 1)).all()
    np.testing.assert_allclose(got.rewards[:-1], (got.parts["shown_first"] + got.parts["shown_second"])[:-1] / 2)
    with pytest.raises(InputError, match="no reference response for the prompt 'Another"):
        judge(["Another question"], ["An answer"])
    file = tmp_path / "references.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": p, "response": r}) for p, r in references.items()))
    read = make_reward(f"pairwise:{path},{file}")
    np.testing.assert_array_equal(read(PROMPTS, RESPONSES), got.rewards[:-1])
    assert read.fingerprint == judge.fingerprint
    assert PairwiseJudge(path, {PROMPTS[0]: "x"}).fingerprint != judge.fingerprint
    with pytest.raises(InputError, match="file of reference responses is needed"):
        make_reward(f"pairwise:{path}")


@pytest.mark.parametrize("path", ["auto", "padded"])
def test_dpo_is_beta_times_the_log_ratio_of_the_response(folder, path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = [folder("llama", "CausalLM", key=str(seed), seed=seed) for seed in (0, 1)]
    tokenizer = AutoTokenizer.from_pretrained(folders[0])

    def log_p(model, prompt, response):
        opened = tokenizer(f"<s><|user|>\n{prompt}<|eot|><|assistant|>\n", add_special_tokens=False)["input_ids"]
        whole = tokenizer(chat_text(prompt, response), add_special_tokens=False)["input_ids"]
        assert whole[: len(opened)] == opened
        with torch.no_grad():
            log_probs = torch.log_softmax(model(torch.tensor([whole])).logits[0], -1)
        return sum(log_probs[i - 1, whole[i]].item() for i in range(len(opened), len(whole)))

    policy, reference = (AutoModelForCausalLM.from_pretrained(f).eval() for f in folders)
    wanted = [0.1 * (log_p(policy, p, r) - log_p(reference, p, r)) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    reward = DpoReward(*folders, path=path)
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def armo(tmp_path_factory):
    """A local model with a multi-objective head in code of its own."""
    return Path(save_armo(tmp_path_factory.mktemp("armo")))


def test_objectives_are_columns_and_their_score_is_the_reward(armo):
    import ratekit as rk

    reward = RewardModel(armo, ARMO, trust_remote_code=True)
    scores = reward.scores(PROMPTS, RESPONSES)
    assert list(scores.parts) == list(ARMO.objectives)
    np.testing.assert_allclose(np.mean(list(scores.parts.values()), axis=0), scores.rewards, atol=1e-5)
    from transformers import AutoModel, AutoTokenizer

    tokenizer, base = AutoTokenizer.from_pretrained(armo), AutoModel.from_pretrained(armo).eval()
    from safetensors.torch import load_file

    head = load_file(armo / "model.safetensors")["objectives.weight"]
    ids = tokenizer(chat_text(PROMPTS[1], RESPONSES[1]), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        wanted = head @ base(torch.tensor([ids])).last_hidden_state[0, -1]
    np.testing.assert_allclose([v[1] for v in scores.parts.values()], wanted.numpy(), atol=2e-5)
    ds = rk.score(rk.load("reviews", n=4), reward, name="armo", progress=False)
    assert {f"reward/armo/{o}" for o in ARMO.objectives} < set(ds.column_names)


def test_code_that_comes_with_a_model_is_not_run_unless_asked_for(armo):
    with pytest.raises(InputError, match="trust_remote_code=True"):
        RewardModel(armo, ARMO)
    with pytest.raises(InputError, match="trust_remote_code=True"):
        RewardModel(armo, "chat")


def test_known_hub_models_have_an_adapter_and_a_guess_is_said(folder, caplog):
    assert all(isinstance(adapter, Adapter) for adapter in HUB.values())
    with caplog.at_level(logging.INFO, "ratekit"):
        RewardModel(folder("llama"))
    assert "is read as 'chat', guessed from" in caplog.text


@pytest.mark.commands
def test_a_rewards_name_is_read_once_and_enters_each_file_once(folder, tmp_path):
    """The record is passed on, not the name; only the record's own room and the loading are entered a second time."""
    spec, inside = str(folder("llama")), str(Path(rk.__file__).parent) + os.sep
    read, entered = [], Counter()

    def given(value):
        return value == spec if isinstance(value, str) else isinstance(value, NamedReward) and value.spec == spec

    def follow(frame, event, _):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(inside):
            return
        values = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        if not any(map(given, values)):
            return
        if code.co_name == "read_reward" and isinstance(values[0], str):
            read.append(code.co_name)
        if frame.f_back is None or frame.f_back.f_code.co_filename != code.co_filename:
            entered[code.co_filename.removeprefix(inside).replace(os.sep, "/")] += 1

    rows = [{"prompt": f"p{i}", "response": "So it is. " * (1 + i % 5)} for i in range(40)]
    rk.audit(rows, spec, "length", rewriter="rules", progress=False)  # imports what is needed
    sys.setprofile(follow)
    try:
        rk.audit(rows, spec, "length", rewriter="rules", out=tmp_path / "audit", progress=False)
    finally:
        sys.setprofile(None)
    assert len(read) == 1
    twice = {file for file, n in entered.items() if n > 1}
    assert twice <= {"scoring/__init__.py", "scoring/loading.py"}, entered
    assert max(entered.values()) == 2, entered
    assert {"audits/study.py", "audits/inputs.py", "scoring/model.py"} <= set(entered)
