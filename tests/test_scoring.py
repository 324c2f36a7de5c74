"""Sequence classifiers as rewards: against a plain forward pass, one text at a time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

import ratekit as rk
from ratekit.cli import main
from ratekit.errors import InputError
from ratekit.scoring import OPTIONS, make_reward, read_reward, read_rewards
from ratekit.scoring.model import RewardModel

PROMPTS = [[{"role": "user", "content": f"Question {k}?"}] for k in range(5)]
RESPONSES = [
    "Yes.",
    "A dull, slow book with a thin plot, all in all.",
    "So.",
    "The film was a joy. " * 8,
    "No — é 日本",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_tokenizer):
    """Folders of a tiny decoder, a tiny encoder, one with two outputs, and a language model."""
    import copy

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tiny_tokenizer), "pad_token_id": 0}
    decoder = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, num_labels=1, **sizes,
    )  # fmt: skip
    encoder = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, num_labels=1, **sizes,
    )  # fmt: skip
    LlamaForSequenceClassification(decoder).save_pretrained(folder / "decoder")
    tiny_tokenizer.save_pretrained(folder / "decoder")
    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    plain.model_max_length = 128
    BertForSequenceClassification(encoder).save_pretrained(folder / "encoder")
    plain.save_pretrained(folder / "encoder")
    encoder.num_labels = 2
    BertForSequenceClassification(encoder).save_pretrained(folder / "two")
    plain.save_pretrained(folder / "two")
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, **sizes)).save_pretrained(folder / "generator")
    tiny_tokenizer.save_pretrained(folder / "generator")
    return folder


def one_by_one(folder, texts_or_pairs, tokenizer):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return np.array(
            [
                model(**tokenizer(*t, add_special_tokens=False, return_tensors="pt")).logits.item()
                for t in texts_or_pairs
            ]
        )


def test_a_decoder_sees_its_chat_template_and_scores_like_a_plain_forward(models, tiny_tokenizer):
    texts = [
        (f"<|user|>{p[0]['content']}<|end|><|assistant|>{r}<|end|>",) for p, r in zip(PROMPTS, RESPONSES, strict=True)
    ]
    expected = one_by_one(models / "decoder", texts, tiny_tokenizer)
    np.testing.assert_allclose(make_reward(models / "decoder")(PROMPTS, RESPONSES), expected, atol=1e-5)


def test_an_encoder_without_a_template_sees_the_pair(models, tiny_tokenizer):
    pairs = [(p[0]["content"], r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    expected = one_by_one(models / "encoder", pairs, tiny_tokenizer)
    np.testing.assert_allclose(make_reward(models / "encoder")(PROMPTS, RESPONSES), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_scores_do_not_depend_on_the_token_budget_or_the_order(models, kind):
    one = RewardModel(models / kind, token_budget=1)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(RewardModel(models / kind, token_budget=300)(PROMPTS, RESPONSES), one, atol=1e-5)
    backwards = RewardModel(models / kind)(PROMPTS[::-1], RESPONSES[::-1])
    np.testing.assert_allclose(backwards[::-1], one, atol=1e-5)


def test_a_plain_string_prompt_means_one_user_turn(models):
    reward = make_reward(models / "decoder")
    strings = [p[0]["content"] for p in PROMPTS]
    np.testing.assert_array_equal(reward(strings, RESPONSES), reward(PROMPTS, RESPONSES))


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_what_is_too_long_is_cut_from_the_start_and_counted(models, kind):
    reward = RewardModel(models / kind, max_length=40)
    long = "word " * 300
    same_end = [f"{long}{k} The film was a joy from start to finish." for k in "ab"]
    first, second = reward([long, long], same_end)
    assert reward.n_truncated == 2
    assert np.isfinite([first, second]).all()
    short = reward(["x"], ["The film was a joy."])[0]
    assert reward.n_truncated == 2
    assert short != first
    prompts_differ = reward([long + "a", long + "b"], ["Yes.", "Yes."])
    assert reward.n_truncated == 4
    assert np.isfinite(prompts_differ).all()


def test_what_is_no_reward_model_is_refused(models, tmp_path):
    with pytest.raises(InputError, match="GPT2LMHeadModel, not a reward model"):
        make_reward(models / "generator")
    with pytest.raises(InputError, match="has 2 outputs, and a reward has one"):
        make_reward(models / "two")
    with pytest.raises(InputError, match="has 2 outputs, and 'pair' reads the only one"):
        make_reward(models / "two", adapter="pair")
    for dtype in ("int8", "foo"):
        with pytest.raises(InputError, match=f"dtype='{dtype}': one of float64, float32"):
            make_reward(models / "decoder", dtype=dtype)
    with pytest.raises(InputError, match=r"without config.json"):
        make_reward(tmp_path)
    (tmp_path / "model.bin").touch()
    with pytest.raises(InputError, match="is a file"):
        make_reward(tmp_path / "model.bin")


def test_a_pickled_checkpoint_is_refused(models, tmp_path, tiny_tokenizer):
    import shutil

    shutil.copytree(models / "decoder", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"not to be opened")
    with pytest.raises(InputError, match="cannot be loaded"):
        make_reward(tmp_path / "pickled")


def test_names_of_rewards(models):
    def mine(prompts, responses):
        return [0.0]

    assert list(read_rewards(["vader", "org/model", models / "decoder", mine])) == [
        "vader", "org/model", "decoder", "mine",
    ]  # fmt: skip
    assert read_reward(partial(mine, None)).column == "mine"
    assert [(name, found.spec) for name, found in read_rewards({"a": lambda p, r: [0.0]}).items()] == [("a", "a")]
    with pytest.raises(InputError, match="no name of its own"):
        read_rewards(lambda p, r: [0.0])
    with pytest.raises(InputError, match="two rewards are called 'mine'"):
        read_rewards([mine, partial(mine, None)])
    with pytest.raises(InputError, match="got int"):
        read_rewards([mine, 3])


# --- options that a reward cannot use -----------------------------------------------------------------------

# One reward of each kind; {models} and {file} are put in.
KINDS = {
    "a function": "vader",
    "a model's folder": "{models}/decoder",
    "a model of the hub": "no-such-owner/model",
    "a judge that is run here": "judge:{models}/generator",
    "a judge of pairs": "pairwise:{models}/generator,{file}",
    "a pair of models": "dpo:{models}/generator,{models}/generator",
    "a model behind a server": "served:http://127.0.0.1:9/classify",
}
VALUES = {
    "adapter": "pair", "revision": "main", "dtype": "float32", "truncation": "response", "trust_remote_code": True,
}  # fmt: skip


@pytest.fixture
def of_kind(models, tmp_path):
    file = tmp_path / "references.jsonl"
    file.write_text('{"prompt": "Why?", "response": "Because."}\n')
    return lambda kind: KINDS[kind].format(models=models, file=file)


def _told_of(rewards, options):
    return [found.make.keywords for found in read_rewards(rewards, **options).values()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", VALUES)
def test_an_option_that_a_reward_cannot_use_is_refused_and_any_other_is_passed_on(of_kind, kind, option):
    reward = of_kind(kind)
    assert read_reward(reward).kind == kind
    told = {option: VALUES[option]}
    if option in OPTIONS[kind]:
        assert _told_of(reward, told) == [told]
        return
    with pytest.raises(InputError, match=f"{option.replace('_', '-')}=.* has no meaning here"):
        make_reward(reward, **told)
    if option in ("adapter", "truncation", "trust_remote_code"):
        with pytest.raises(InputError, match="has no meaning here"):
            rk.score([{"prompt": "a", "response": "b"}], reward, **told)
    if option in ("adapter", "revision", "dtype", "trust_remote_code"):
        with pytest.raises(InputError, match="has no meaning here"):
            rk.check_reward(reward, **told)
    assert _told_of([reward, of_kind("a model of the hub")], told) == [{}, told]  # another reward can use it


def test_kinds_and_options_are_all_tried():
    assert [*KINDS] == [*OPTIONS]
    assert {option for options in OPTIONS.values() for option in options} == {*VALUES}


REFUSED = [
    (kind, call)
    for kind, options in OPTIONS.items() if "adapter" not in options or kind[2] == "j"
    for call in (
        ["check-reward", "REWARD", "--dtype", "float32"], ["check-reward", "REWARD", "--revision", "main"],
        ["check-reward", "REWARD", "--adapter", "pair"], ["check-reward", "REWARD", "--trust-remote-code"],
        ["score", "reviews", "-r", "REWARD", "--out", "OUT", "--adapter", "pair"],
        ["score", "reviews", "-r", "REWARD", "--out", "OUT", "--truncation", "response"],
        ["score", "reviews", "-r", "REWARD", "--out", "OUT", "--trust-remote-code"],
        ["audit", "--data", "reviews", "-a", "length", "-r", "REWARD", "--out", "OUT", "--trust-remote-code"],
        ["card", "--data", "reviews", "-r", "REWARD", "--out", "OUT", "--trust-remote-code"],
    )
    for option in [next(word for word in reversed(call) if word.startswith("--"))]
    if option == "--adapter" or option[2:].replace("-", "_") not in options
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call"), REFUSED, ids=lambda x: x if isinstance(x, str) else " ".join(x[:1] + x[-2:]))
def test_a_command_refuses_it_in_one_line_before_any_work(of_kind, kind, call, tmp_path, capsys):
    call = [{"REWARD": of_kind(kind), "OUT": str(tmp_path / "out")}.get(word, word) for word in call]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has no meaning here" in said or "not read as 'pair'" in said
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_passed_itself_takes_no_options(models):
    with pytest.raises(InputError, match=r"adapter=pair has no meaning here.*a function"):
        rk.score([{"prompt": "a", "response": "b"}], lambda p, r: [1.0] * len(r), name="x", adapter="pair")
