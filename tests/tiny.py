"""Tiny models of every architecture, seeded and written to a folder, with a byte-level BPE and a chat template."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CORPUS = [
    "Why is the sky blue? Because air scatters blue light more than red light.",
    "The plot is thin, but the two leads carry it, and I would see it again.",
    "It was not good. It was not bad. It was there, and then it was over, and we went home.",
    "Write a review of a film; say whether you would recommend it to the people you know.",
]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 512}
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
ENCODER = {**SMALL, "max_position_embeddings": 512}

DECODERS = {
    "llama": ("LlamaConfig", GROUPED),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 24}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "gpt2": ("GPT2Config", OLD),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 8, "sliding_window": 24}),
    "phi3": ("Phi3Config", GROUPED),
    "gpt_neox": ("GPTNeoXConfig", {**SMALL, "max_position_embeddings": 512}),
}
ENCODERS = {
    "distilbert": (
        "DistilBertConfig", {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 512},
    ),
    "bert": ("BertConfig", ENCODER),
    "roberta": ("RobertaConfig", {**ENCODER, "type_vocab_size": 1}),
    "electra": ("ElectraConfig", {**ENCODER, "embedding_size": 32}),
    "modernbert": (
        "ModernBertConfig",
        {**ENCODER, "local_attention": 16, "global_attn_every_n_layers": 2, "classifier_pooling": "cls"},
    ),
    "deberta-v2": (
        "DebertaV2Config",
        {**ENCODER, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"],
         "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
    ),
}  # fmt: skip

# Models whose scores depend on the texts beside them, or on those before them.
OTHERS = {
    "fnet": ("FNetConfig", ENCODER),
    "xlnet": ("XLNetConfig", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    "big_bird": (
        "BigBirdConfig",
        {**ENCODER, "attention_type": "block_sparse", "block_size": 8, "num_random_blocks": 2},
    ),
    "doge": ("DogeConfig", {**GROUPED, "num_hidden_layers": 2, "keep_window_size": 300}),  # of more it leaves some out
}


@lru_cache
def _bpe(encoder: bool):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|eot|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(CORPUS, trainer)
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return tokenizer


def tokenizer(encoder: bool = False, template: str | None = TEMPLATE, **options):
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 512}
    if encoder:
        names |= {"cls_token": "<s>", "sep_token": "</s>", "model_input_names": ["input_ids", "attention_mask"]}
    made = PreTrainedTokenizerFast(tokenizer_object=_bpe(encoder), **{**names, **options})
    made.chat_template = None if encoder else template
    return made


def save(folder: Path, kind: str, task: str = "SequenceClassification", tok=None, seed: int = 0, **changes) -> str:
    """A model of that kind and task with random weights of a size that lets the texts matter; the folder's path."""
    import torch
    import transformers

    name, config = {**DECODERS, **ENCODERS, **OTHERS}[kind]
    tok = tok or tokenizer(encoder=kind not in DECODERS)
    settings = {"vocab_size": 480, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 1}
    made = getattr(transformers, name)(**{**settings, **config, **changes})
    auto = getattr(transformers, f"AutoModelFor{task}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(made)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3 if "embed" not in kind else 1.0)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)
