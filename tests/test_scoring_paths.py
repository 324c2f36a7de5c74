"""No path is taken on trust: whatever company, padding, history or special tokens do, texts score as alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tiny

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.scoring.forward import Forward
from ratekit.scoring.model import RewardModel

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

WORDS = "I would see it again and say whether you would recommend it to the people you know".split()  # noqa: SIM905
SPECIAL = ["<pad>", "<s>", "</s>", "<|eot|>", "<pad><pad>"]
PAIRS = [("Why is the sky blue?", " ".join(WORDS * n)) for n in (1, 2, 6)] + [
    ("Which?", f"It is {t} and ends in {t}") for t in SPECIAL
]
PROMPTS, RESPONSES = [p for p, _ in PAIRS], [r for _, r in PAIRS]


def stock(path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def alone(path, pairs=PAIRS, fresh=False):
    """One text a pass through the stock model; with `fresh` a new model for each."""
    model, tok = stock(path)
    out = []
    for prompt, response in pairs:
        if tok.chat_template:
            text = f"<s><|user|>\n{prompt}<|eot|><|assistant|>\n{response}<|eot|>"
            ids = tok(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tok(prompt, response)["input_ids"]
        if fresh:
            model, _ = stock(path)
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor([ids])}
            if model.config.model_type != "fnet":
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            out.append(model(**inputs).logits[0, 0].item())
    return np.array(out)


@pytest.mark.parametrize(("kind", "path"), [("fnet", "single"), ("xlnet", "single"), ("roberta", "packed")])
def test_what_padding_would_change_is_run_alone_and_said(tmp_path, kind, path, caplog):
    folder = tiny.save(tmp_path, kind)
    with caplog.at_level(logging.WARNING, "ratekit"):
        reward = RewardModel(folder, "pair")
    assert reward.forward.path == path
    assert ("are run one at a time" in caplog.text) == (path == "single")
    wanted = alone(folder)
    assert wanted.std() > 1e-3
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), wanted, atol=2e-5)
    if path == "single":
        texts = reward.encode(PROMPTS, RESPONSES)[0]
        padded = reward.forward._whole(texts)[:, 0]
        assert np.abs(padded - wanted).max() > 1e-3, "padding changes nothing here, so nothing is tested"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "deberta-v2"])
@pytest.mark.parametrize("pad", ["<pad>", None])
def test_special_tokens_written_in_a_text_are_read_as_alone(tmp_path, kind, pad):
    tok = tiny.tokenizer(encoder=kind not in tiny.DECODERS, pad_token=pad)
    folder = tiny.save(tmp_path, kind, tok=tok, **({} if pad else {"pad_token_id": None}))
    reward = RewardModel(folder, "chat" if kind in tiny.DECODERS else "pair")
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), alone(folder), atol=2e-5)


def test_a_model_that_does_not_repeat_itself_is_refused(tmp_path, monkeypatch):
    folder = tiny.save(tmp_path, "bert")
    whole = Forward._whole
    monkeypatch.setattr(Forward, "_whole", lambda self, *a: whole(self, *a) + np.random.default_rng().normal())
    with pytest.raises(InputError, match="another score each time"):
        RewardModel(folder)


def test_a_model_whose_forward_fails_is_one_line(tmp_path, monkeypatch):
    folder = tiny.save(tmp_path, "bert")

    def broken(self, *args):
        raise AttributeError("no such rotary")

    monkeypatch.setattr(Forward, "_whole", broken)
    with pytest.raises(WorkError, match=r"own forward pass fails \(no such rotary\)"):
        RewardModel(folder)


def test_a_path_that_is_exact_up_to_a_length_is_left_where_a_text_is_longer(tmp_path, caplog, monkeypatch):
    folder = tiny.save(tmp_path, "doge", tok=tiny.tokenizer())
    pairs = [*PAIRS, *(("Why is the sky blue?", " ".join(WORDS * n)) for n in (15, 20, 22))]
    prompts, responses = [p for p, _ in pairs], [r for _, r in pairs]
    reward, wanted = RewardModel(folder), alone(folder, pairs)
    said = "from here on texts are run one at a time"
    assert (reward.forward.path, said in caplog.text) == ("packed", False)
    assert reward.forward.compared < 300 < max(len(text.ids) for text in reward.encode(prompts, responses)[0])
    np.testing.assert_allclose(reward(prompts, responses), wanted, atol=2e-5)
    assert said in caplog.text
    assert reward.forward.path == "single"
    caplog.clear()
    np.testing.assert_allclose(reward(prompts[::-1], responses[::-1]), wanted[::-1], atol=2e-5)
    assert said not in caplog.text
    with pytest.raises(WorkError, match="cannot be run packed: they differ"):
        RewardModel(folder, path="packed")(prompts, responses)
    monkeypatch.setattr(Forward, "_look_further", lambda *args: None)  # the control
    assert np.abs(RewardModel(folder)(prompts, responses) - wanted).max() > 1e-3


def test_a_token_without_a_row_is_one_null_that_names_it(tmp_path, monkeypatch):
    tok = tiny.tokenizer()
    tok.add_special_tokens({"pad_token": "[PAD]"})  # as is done to train, but the model's rows were left as they are
    folder = tiny.save(tmp_path, "llama", tok=tok, pad_token_id=None, vocab_size=(n := len(tok) - 1))
    ran, whole = [], Forward._whole
    monkeypatch.setattr(Forward, "_whole", lambda self, texts, *a: ran.extend(texts) or whole(self, texts, *a))
    reward = RewardModel(folder)
    scores = reward.scores(["Why?"] * 3, ["So.", "It is [PAD]", "So it is."])
    assert scores.statuses == ["ok", "failed", "ok"]
    assert scores.reasons["failed"] == f"its tokenizer makes '[PAD]' token {n}, and it has {n} rows"
    assert ran
    assert max(max(text.ids) for text in ran) < n, "a GPU would have ended the run"


def test_one_output_of_the_bad_class_is_not_read_as_a_reward_unasked(tmp_path):
    folder = tiny.save(tmp_path, "bert", id2label={0: "NEGATIVE"}, label2id={"NEGATIVE": 0})
    with pytest.raises(InputError, match="one output, whose label is 'negative'"):
        RewardModel(folder)
    assert np.isfinite(RewardModel(folder, "pair")(["Why?"], ["So."])).all()


def failing(model):
    raise AttributeError("module has no attribute 'apply_rotary_pos_emb'")


def wrong(model):
    weight, kept = model.score.weight, model.score.weight.detach().clone()
    weight.data.mul_(1.5)
    return lambda: weight.data.copy_(kept)


@pytest.mark.parametrize("speed_up", [failing, wrong])
def test_a_speed_up_that_fails_or_changes_scores_is_left_out(tmp_path, monkeypatch, speed_up):
    from ratekit.scoring import forward

    folder = tiny.save(tmp_path, "llama")
    monkeypatch.setattr(forward, "prune_last_layer", speed_up)
    reward = RewardModel(folder)
    assert (reward.forward.path, reward.forward.pruned) == ("packed", False)
    np.testing.assert_allclose(reward(PROMPTS, RESPONSES), alone(folder), atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "big_bird"])
def test_a_score_does_not_depend_on_what_ran_before(tmp_path, kind):
    rope = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}}
    sizes = {"max_position_embeddings": 64, **rope} if kind == "llama" else {}
    folder = tiny.save(tmp_path, kind, **sizes)
    reward = RewardModel(folder, "chat" if kind == "llama" else "pair", max_length=400)
    pairs = [("Why?", " ".join(WORDS * n)) for n in (10, 2, 4, 1)]
    wanted = alone(folder, pairs, fresh=True)
    for order in (range(4), range(3, -1, -1)):
        got = reward([pairs[i][0] for i in order], [pairs[i][1] for i in order])
        np.testing.assert_allclose(got, wanted[list(order)], atol=2e-5)
    model_of_all = alone(folder, [pairs[3], pairs[0], pairs[2]])
    assert np.abs(model_of_all - wanted[[3, 0, 2]]).max() > 1e-4, "history changes nothing here: nothing is tested"


# --- limits and texts --------------------------------------------------------------------------------------


def without(folder, file, *names):
    path = Path(folder) / file
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in names}))


def test_the_limit_is_the_table_of_positions_less_its_offset(tmp_path):
    for kind, offset in (("roberta", 1), ("bert", 0)):  # the padding token is number 0, and RoBERTa begins after it
        folder = tiny.save(tmp_path / kind, kind, max_position_embeddings=130)
        without(folder, "tokenizer_config.json", "model_max_length")
        reward = RewardModel(folder, "pair")
        assert reward.encode.max_length == 130 - offset
        assert np.isfinite(reward(["Why?"] * 2, ["So.", " ".join(WORDS * 40)])).all()


def test_minus_one_is_no_limit(tmp_path):
    folder = tiny.save(tmp_path, "xlnet")
    without(folder, "tokenizer_config.json", "model_max_length")
    assert RewardModel(folder, "pair").encode.max_length == 4096


def test_one_text_that_fails_is_one_null_with_its_reason(tmp_path, caplog, monkeypatch):
    reward = RewardModel(tiny.save(tmp_path, "llama"))
    token = reward.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    base = reward.model.base_model
    whole = base.forward

    def failing(*args, input_ids=None, **kwargs):
        if (input_ids == token).any():
            raise KeyError("the model knows no tilde")
        return whole(*args, input_ids=input_ids, **kwargs)

    wanted = reward(["Why?"] * 2, ["It is.", "It was."])
    monkeypatch.setattr(base, "forward", failing)
    with caplog.at_level(logging.WARNING, "ratekit"):
        ds = rk.score(dataset(["It is.", "It ~ is.", "It was."]), reward, name="r", progress=False)
    assert ds["reward_status/r"] == [["ok"], ["failed"], ["ok"]]
    np.testing.assert_allclose([ds["reward/r"][i][0] for i in (0, 2)], wanted, atol=2e-5)
    assert "the model knows no tilde" in caplog.text


def test_one_text_that_a_function_fails_on_is_one_null_with_its_reason(caplog):
    def mine(prompts, responses):
        if any("~" in r for r in responses):
            raise RuntimeError("no tilde, please")
        return [len(r) for r in responses]

    with caplog.at_level(logging.WARNING, "ratekit"):
        ds = rk.score(dataset(["It is.", "It ~ is.", "It was."]), mine, progress=False)
    assert ds["reward/mine"] == [[6.0], [None], [7.0]]
    assert "no tilde, please" in caplog.text
    with pytest.raises(WorkError, match="no tilde, please"):
        rk.score(dataset(["~"] * 3), mine, progress=False)


def test_the_side_that_is_cut_is_chosen_and_counted_by_arm(tmp_path, caplog):
    folder = tiny.save(tmp_path, "llama", tok=tiny.tokenizer(model_max_length=120))
    response = " ".join(f"r{i}" for i in range(100))
    prompt = " ".join(f"p{i}" for i in range(20))
    shown = {}
    for side in ("prompt", "response"):
        reward = RewardModel(folder, truncation=side)
        (text,), (status,) = reward.encode([prompt], [response])
        shown[side] = reward.tokenizer.decode(text.ids)
        assert status == "truncated"
        assert 110 < len(text.ids) <= 120
        assert shown[side].endswith("<|eot|>")
    assert "r99" in shown["prompt"]
    assert "r0 " not in shown["prompt"]
    assert "p19" in shown["response"]
    assert "r0 r1" in shown["response"]
    assert "r99" not in shown["response"]
    assert len({RewardModel(folder, truncation=s).fingerprint["adapter"] for s in ("prompt", "response")}) == 2
    with pytest.raises(InputError, match="unknown truncation 'end'"):
        RewardModel(folder, truncation="end")
    ds = dataset(["So.", "No."], rewrites=[[response, "So it is."], [response + " more", "No it is."]])
    with caplog.at_level(logging.WARNING, "ratekit"):
        rk.score(ds, folder, name="r", progress=False)
    assert "2 of 2 on the treated side, 0 of 4 on the untreated side" in caplog.text


def dataset(responses, rewrites=None):
    from datasets import Dataset

    n = len(responses)
    columns = {
        "prompt_id": [str(i) for i in range(n)],
        "prompt": [[{"role": "user", "content": "Why?"}]] * n,
        "response": responses,
    }
    if rewrites:  # of untreated responses, so that the first rewrite is on the treated side
        columns |= {"attribute": ["length"] * n, "treated": [False] * n, "rewrites": rewrites}
    return Dataset.from_dict(columns)


# --- weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra", ["score.bias", "model.layers.0.self_attn.q_proj.bias", "model.layers.3.mlp.up_proj.weight"]
)
def test_weights_that_the_model_has_no_place_for_are_refused(tmp_path, extra):
    folder = tiny.save(tmp_path, "llama")
    add(tmp_path, extra)
    with pytest.raises(InputError, match=f"no place for.*{extra}"):
        RewardModel(folder)


def test_weights_of_another_part_are_said_and_those_of_a_language_model_are_not(tmp_path, caplog):
    folder = tiny.save(tmp_path, "llama")
    add(tmp_path, "lm_head.weight")
    with caplog.at_level(logging.WARNING, "ratekit"):
        RewardModel(folder)
        assert "does not use" not in caplog.text
        add(tmp_path, "value_head.weight")
        RewardModel(folder)
    assert "does not use (value_head.weight)" in caplog.text


def add(folder, name):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({**weights, name: torch.ones(1, 32)}, folder / "model.safetensors", metadata={"format": "pt"})


# --- adapters and judges -----------------------------------------------------------------------------------


def test_a_lora_folder_scores_as_peft_does(tmp_path):
    """As TRL leaves it: on a causal language model, with a head trained whole and a tokenizer of its own."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    base = tiny.save(tmp_path / "base", "llama", "CausalLM", tok=tiny.tokenizer(template=None))
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = 0
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    trained = peft.get_peft_model(model, lora).eval()
    trained.save_pretrained(tmp_path / "adapter")
    tok = tiny.tokenizer()
    tok.save_pretrained(tmp_path / "adapter")
    wanted = []
    for prompt, response in PAIRS[:4]:
        text = f"<s><|user|>\n{prompt}<|eot|><|assistant|>\n{response}<|eot|>"
        with torch.no_grad():
            ids = torch.tensor([tok(text, add_special_tokens=False)["input_ids"]])
            wanted.append(trained(ids).logits[0, 0].item())
    reward = RewardModel(tmp_path / "adapter")
    np.testing.assert_allclose(reward(PROMPTS[:4], RESPONSES[:4]), wanted, atol=2e-5)
    assert reward.name == "adapter"
    assert np.std(wanted) > 1e-3
    # Another template makes other scores of the same weights, which must not be taken for these.
    (tmp_path / "adapter" / "chat_template.jinja").write_text(tiny.TEMPLATE.replace("<|eot|>", "<|eot|>\n"))
    assert RewardModel(tmp_path / "adapter").revision != reward.revision
    tok.save_pretrained(tmp_path / "adapter")
    # Other weights go into the same model, read in the same way: what a merge of adapters is scored by.
    state = rk.merging.load_state(tmp_path / "adapter")
    state["score.weight"] = 2 * state["score.weight"]
    doubled = RewardModel(tmp_path / "adapter", weights=state)
    np.testing.assert_allclose(doubled(PROMPTS[:4], RESPONSES[:4]), 2 * np.array(wanted), atol=4e-5)


def test_the_logit_of_one_token_is_a_reward(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tiny.save(tmp_path, "llama", "CausalLM")
    model, tok = AutoModelForCausalLM.from_pretrained(folder).eval(), tiny.tokenizer()
    text = "<s><|user|>\nWhy?<|eot|><|assistant|>\nSo.<|eot|>"
    with torch.no_grad():
        logits = model(torch.tensor([tok(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
    for name, token in (("token:0", 0), ("token:!", tok("!", add_special_tokens=False)["input_ids"][0])):
        assert RewardModel(folder, name)(["Why?"], ["So."])[0] == pytest.approx(logits[token].item(), abs=2e-5)
    with pytest.raises(InputError, match="the name of one token was expected"):
        RewardModel(folder, "token:no such token")


def test_a_judge_says_how_much_its_answers_weigh_and_what_a_place_is_worth(tmp_path, caplog):
    from transformers import AutoModelForCausalLM

    from ratekit.scoring.check_reward import check_reward
    from ratekit.scoring.judges import PairwiseJudge

    folder = tiny.save(tmp_path / "lm", "llama", "CausalLM")
    table = check_reward(f"judge:{folder}").set_index("check")
    assert table.loc["the answers are what it would say", "result"] == "FAIL"  # random weights say anything
    reward = RewardModel(folder, "judge")
    texts = reward.encode(["Why?"], ["So."])[0]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([texts[0].ids])).logits[0, -1]
    yes, no = (reward.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ("Yes", "No"))
    mass = torch.softmax(logits, -1)[[yes, no]].sum().item()
    assert reward.forward(texts)[0, 1] == pytest.approx(mass, abs=1e-5)

    judge = PairwiseJudge(folder, {"Why?": "So."})
    whole = judge.model.scores

    def partial_to_a(prompts, responses):  # whatever is shown first is liked by 4 more
        scores = whole(prompts, responses)
        return scores._replace(rewards=scores.rewards * 1e-6 + 4)

    judge.model.scores = partial_to_a
    with caplog.at_level(logging.WARNING, "ratekit"):
        judge(["Why?"] * 9, [f"It is {i}." for i in range(9)])
    assert "the place in which a response is shown moves its log odds by 4" in caplog.text
    table = check_reward(judge).set_index("check")
    assert table.loc["the place in which a response is shown", "result"] == "FAIL"


def test_answers_that_begin_with_one_token_are_refused(tmp_path):
    from ratekit.scoring.adapters import Adapter

    folder = tiny.save(tmp_path, "llama", "CausalLM")
    same = Adapter("same", "question", "yes_no", question="{response}", answers=("good", "goad"))
    with pytest.raises(InputError, match="begin with the same token"):
        RewardModel(folder, same)


# --- what a user holds as a reward -------------------------------------------------------------------------


def test_several_rewards_and_their_names():
    def by_text(completions, **columns):
        return [len(c) for c in completions]

    class Mine:
        def __call__(self, prompts, responses):
            return [len(r) for r in responses]

    ds = rk.score(dataset(["So.", "No way."]), [by_text, Mine(), "words"], progress=False)
    assert ds["reward/by_text"] == ds["reward/Mine"] == [[3.0], [7.0]]
    assert ds["reward/words"] == [[1.0], [2.0]]

    with pytest.raises(InputError, match="two rewards are called 'words'"):
        rk.score(dataset(["So."]), ["words", "words"], progress=False)
    with pytest.raises(InputError, match="1 names were given for 2 rewards"):
        rk.score(dataset(["So."]), ["words", "vader"], name="one", progress=False)
