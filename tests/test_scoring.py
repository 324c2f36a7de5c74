"""Sequence classifiers as rewards: against a plain forward pass, one text at a time."""

from __future__ import annotations

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

from ratekit.errors import InputError
from ratekit.scoring import default_name, make_reward
from ratekit.scoring.classifier import SequenceClassifier

PROMPTS = [[{"role": "user", "content": f"Question {k}?"}] for k in range(5)]
RESPONSES = ["Yes.", "A dull, slow book with a thin plot, all in all.", "", "The film was a joy. " * 8, "No — é 日本"]


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
def test_scores_do_not_depend_on_batch_size_or_order(models, kind):
    one = SequenceClassifier(models / kind, batch_size=1)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(SequenceClassifier(models / kind, batch_size=4)(PROMPTS, RESPONSES), one, atol=1e-5)
    backwards = SequenceClassifier(models / kind)(PROMPTS[::-1], RESPONSES[::-1])
    np.testing.assert_allclose(backwards[::-1], one, atol=1e-5)


def test_a_plain_string_prompt_means_one_user_turn(models):
    reward = make_reward(models / "decoder")
    strings = [p[0]["content"] for p in PROMPTS]
    np.testing.assert_array_equal(reward(strings, RESPONSES), reward(PROMPTS, RESPONSES))


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_what_is_too_long_is_cut_from_the_start_and_counted(models, kind):
    reward = SequenceClassifier(models / kind, max_length=40)
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

    assert default_name("vader") == "vader"
    assert default_name("org/model") == "org/model"
    assert default_name(models / "decoder") == "decoder"
    assert default_name(mine) == "mine"
