"""Every architecture of `AutoModelForSequenceClassification`, built tiny: `rk.score` against one text a pass.

    python benchmarks/scoring_architectures.py                    # all of them, and the table beside this file
    python benchmarks/scoring_architectures.py --jobs 14          # the same in as many processes
    python benchmarks/scoring_architectures.py llama bert xlnet   # these, on the terminal

Each is scored on texts of 10 to 250 tokens, of which many share a prompt, on texts longer than it reads, and on texts
with each special token written out, once with a padding token and once without. The reference knows nothing of ratekit:
`transformers` alone, one text, no padding, float64 (float32 where an architecture cannot compute in float64). A row is

    exact      within 2e-5 of the scores' spread, or within six times the error of plain float32 against float64
    single     as exact, one text at a time, which ratekit says
    refused    not scored, and the reason
    no truth   it does not run by itself either, or gives all texts one score
    not built  needs more than a few settings (an image, another library)
    WRONG      none of these
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the truth is float64 on a CPU
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import torch
import transformers
from tiny import CORPUS, tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.scoring.model import RewardModel

LIMIT = 512
# What makes a model small, under the names that configs have for it.
SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "word_embed_proj_dim", "d_latents"), 32),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "bottleneck_size", "intra_bottleneck_size"), 32),
    **dict.fromkeys(("intermediate_size", "d_ff", "d_inner", "ffn_dim", "hidden_dim", "dff", "feed_forward_size"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "linear_key_head_dim", "linear_value_head_dim", "kv_channels"), 8),
    **dict.fromkeys(("linear_num_value_heads", "num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim", "attention_head_size"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("n_positions", "max_position_embeddings", "max_seq_len"), LIMIT),
    **dict.fromkeys(("sliding_window", "local_attention", "attention_window", "window_size"), 64),
    **dict.fromkeys(("query_pre_attn_scalar",), 8),
    "qk_rope_head_dim": 4,
    "vocab_size": 480,
    "global_attn_every_n_layers": 2,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 1}
# What an architecture needs beside that; None for a name takes it out of the sizes.
OWN: dict[str, dict] = {
    "big_bird": {"block_size": 8, "num_random_blocks": 2},
    "bigbird_pegasus": {"block_size": 8, "num_random_blocks": 2},
    "ctrl": {"num_hidden_layers": None},
    "axk1": {"head_dim": None, "num_key_value_heads": 4},
    "axk2": {"head_dim": None, "num_key_value_heads": 4},
    "falcon": {"head_dim": None},
    "deepseek_v2": {"head_dim": None, "num_key_value_heads": 4},
    "deepseek_v3": {"head_dim": None, "num_key_value_heads": 4},
    "mistral4": {"head_dim": None, "num_key_value_heads": 4},
    "minicpm3": {"head_dim": None, "num_key_value_heads": 4},
    "convbert": {"head_ratio": 2},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 7},
    "funnel": {"block_sizes": [2, 2, 2], "num_hidden_layers": None, "max_position_embeddings": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 4},
    "jamba": {"mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
              "use_mamba_kernels": False},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},
    "lilt": {"hidden_size": 48},
    "roc_bert": {"pronunciation_vocab_size": 50, "shape_vocab_size": 50, "pronunciation_embed_dim": 16,
                 "shape_embed_dim": 16},
    "t5": {"decoder_start_token_id": 0},
    "longformer": {"attention_window": 32, "max_position_embeddings": LIMIT + 2},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8},
    "minimax": {"block_size": 16},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_blocks": 1, "num_self_attends_per_block": 2,
                  "num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    "phi3": {"pad_token_id": 0},
    "reformer": {"axial_pos_shape": [16, 32], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"],
                 "is_decoder": False, "num_buckets": 4, "attention_head_size": 16, "num_attention_heads": 2,
                 "num_hidden_layers": None},
    "roberta-prelayernorm": {"max_position_embeddings": LIMIT + 2},
    "squeezebert": {"q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 2, "output_groups": 2},
    "xlm": {"pad_index": 0, "eos_index": 2, "bos_index": 1},
    "flaubert": {"pad_index": 0, "eos_index": 2, "bos_index": 1},
    "xlnet": {"d_head": None, "max_position_embeddings": None},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"},
    "yoso": {"use_expectation": True},
    "zamba": {"mamba_d_state": 8, "n_mamba_heads": 2, "mamba_dt_rank": 4, "attn_layer_period": 2,
              "attn_layer_offset": 1, "use_mamba_kernels": False, "attention_head_dim": 16,
              "attention_hidden_size": 64},
    "zamba2": {"mamba_d_state": 8, "n_mamba_heads": 4, "mamba_headdim": 16, "mamba_ngroups": 1, "use_mem_rope": True,
               "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "num_mem_blocks": 1, "chunk_size": 16,
               "use_mamba_kernels": False},
}  # fmt: skip
# Ways of one architecture that are computed differently.
VARIANTS: dict[str, tuple[str, dict]] = {
    "llama, dynamic positions": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
                  "max_position_embeddings": 128},
    ),
    "llama, yarn positions": (
        "llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                                      "original_max_position_embeddings": 128}},
    ),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "phi3, long positions": (
        "phi3", {"original_max_position_embeddings": 64, "pad_token_id": 0,
                 "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
                                     "long_factor": [4.0] * 4, "original_max_position_embeddings": 64}},
    ),
    "qwen3, windows": ("qwen3", {"use_sliding_window": True, "max_window_layers": 1}),
    "falcon, alibi": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "gpt2, scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "modernbert, mean": ("modernbert", {"classifier_pooling": "mean"}),
    "deberta-v2, relative": (
        "deberta-v2", {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"],
                       "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
                       "type_vocab_size": 0, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    "big_bird, full": ("big_bird", {"attention_type": "original_full"}),
}  # fmt: skip
ALL = [*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, *VARIANTS]


class Row(NamedTuple):
    """One architecture, with a padding token or without one."""

    architecture: str
    padding: str
    result: str
    path: str
    difference: str
    plain: str
    said: str


def settings(config_class, own: dict) -> dict:
    """What makes a config of that class small, its parts included."""
    plain = config_class()
    found = {k: v for k, v in {**SIZES, **TOKENS}.items() if hasattr(plain, k)}
    for part, part_class in (getattr(config_class, "sub_configs", None) or {}).items():
        if hasattr(part_class, "sub_configs"):
            found[part] = settings(part_class, {})
    return {k: v for k, v in {**found, **TOKENS, **own}.items() if v is not None}


def is_decoder(kind: str) -> bool:
    if kind in ("plbart", "bigbird_pegasus"):  # encoder and decoder: they read what stands at the last </s>
        return False
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def build(folder: Path, label: str, padding: str):
    """The folder of a tiny model with random weights, and its tokenizer."""
    kind, more = VARIANTS.get(label, (label, {}))
    config_class = CONFIG_MAPPING[kind]
    config = config_class(**settings(config_class, {**OWN.get(kind, {}), **more}))
    tok = tokenizer(encoder=not is_decoder(kind))
    if padding == "none":
        tok.pad_token = None
        for part in {id(c): c for c in (config, config.get_text_config())}.values():
            part.pad_token_id = None
    with torch.device("meta"):
        size = sum(p.numel() for p in transformers.AutoModelForSequenceClassification.from_config(config).parameters())
    if size > 5_000_000:
        raise ValueError(f"{size:,} weights, for some of its sizes have other names")
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (1.0 if "embed" in name else 0.15))
        for module in model.modules():  # torch keeps the padding token's own row at zero
            if getattr(module, "padding_idx", None) is not None and hasattr(module, "weight"):
                module.weight[module.padding_idx] = 0
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return tok


def texts(tok) -> list[tuple[str, str]]:
    """Pairs of a prompt and a response: of mixed lengths, with shared prompts, past the limit, with special tokens."""
    pool, rng = " ".join(CORPUS).split(), np.random.default_rng(0)

    def words(n: int) -> str:
        return " ".join(rng.choice(pool, n))

    prompts = ["Why is the sky blue?", "Write a review of a film. " + words(40)]
    made = [(p, words(n)) for p in prompts for n in (3, 9, 30, 75, 120)]
    made += [(prompts[0], made[2][1] + " and then more"), (prompts[0], words(900)), (words(900), words(9))]
    special = dict.fromkeys(tok.all_special_tokens)
    return made + [("Which?", f"It is {t} here and ends in {t}") for t in special] + [("Which?", " ".join(special))]


def reference(folder: str, encoded: list[dict], dtype: torch.dtype) -> np.ndarray:
    """One text a pass through the stock model; a fresh one for each where a pass changes what the next one does."""
    model, out = None, []
    for one in encoded:
        if model is None or _remembers(model.config):
            model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
        with torch.inference_mode():
            try:
                logits = model(**one, attention_mask=torch.ones_like(one["input_ids"])).logits
            except TypeError:  # an architecture without a mask
                logits = model(**one).logits
        out.append(logits.reshape(-1)[0].item())
    return np.array(out)


def _remembers(config) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    return rope.get("rope_type") == "dynamic" or getattr(config, "attention_type", "") == "block_sparse"


def one(label: str, padding: str) -> Row:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tok = build(Path(folder), label, padding)
        except Exception as e:
            return Row(label, padding, "not built", "", "", "", line(e))
        decoder = bool(tok.chat_template)
        pairs = texts(tok)
        logging.getLogger("ratekit").setLevel(logging.ERROR)
        try:
            reward = RewardModel(folder, "chat" if decoder else "pair")
        except (InputError, WorkError) as e:
            return Row(label, padding, "refused", "", "", "", line(e))
        limit = reward.encode.max_length
        encoded = []
        for prompt, response in pairs:
            if decoder:
                text = f"<s><|user|>\n{prompt}<|eot|><|assistant|>\n{response}<|eot|>"
                made = {"input_ids": tok(text, add_special_tokens=False)["input_ids"]}
            else:
                made = dict(tok(prompt, response))
            if len(made["input_ids"]) > limit:  # where to cut is ratekit's to choose; what that scores is not
                made["input_ids"] = list(reward.encode([prompt], [response])[0][0].ids)
            names = [n for n in ("input_ids", "token_type_ids") if n in made]
            encoded.append({n: torch.tensor([made[n]]) for n in names})
        try:
            plain = reference(folder, encoded, torch.float32)
            try:
                truth = reference(folder, encoded, torch.float64)
            except RuntimeError:
                truth = plain
        except Exception as e:
            return Row(label, padding, "no truth", reward.forward.path, "", "", line(e))
        if not np.isfinite(truth).all() or truth.std() < 1e-9:
            return Row(label, padding, "no truth", reward.forward.path, "", "", "its scores are all equal, or none")
        ds = rk.score(dataset(pairs), reward, name="r", progress=False)
        got = np.array([np.nan if v[0] is None else v[0] for v in ds["reward/r"]])
        off, rounding, spread = np.abs(got - truth).max(), np.abs(plain - truth).max(), truth.std()
        path = reward.forward.path
        good = off <= max(2e-5 * spread, 6 * rounding, 1e-6 * min(1.0, spread))
        result = "WRONG" if not good else "single" if path == "single" else "exact"
        return Row(label, padding, result, path, f"{off / spread:.1e}", f"{rounding / spread:.1e}", f"{limit} tokens")


def dataset(pairs):
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_id": [str(i) for i in range(len(pairs))],
            "prompt": [[{"role": "user", "content": p}] for p, _ in pairs],
            "response": [r for _, r in pairs],
        }
    )


def line(error: Exception) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"(/\w+)*/?tmp\w{8}", "it", said.replace("|", "/"))[:110]


def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE")
    parser.add_argument("--padding", nargs="+", choices=("own", "none"), default=("own", "none"))
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".md")))
    args = parser.parse_args()
    rows, start = [], time.time()
    made = itertools.product(args.architectures or ALL, args.padding)
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), quiet) as pool:
        for row in pool.map(one, *zip(*made, strict=True)):
            rows.append(row)
            print(*row, sep=" | ", flush=True)
    said = summary(rows)
    print(f"{said}; {time.time() - start:.0f} s")
    if not args.architectures:
        Path(args.out).write_text(written(rows), encoding="utf-8")
    sys.exit(any(row.result == "WRONG" for row in rows))


def summary(rows: list[Row]) -> str:
    """How many rows have each result."""
    results = ("exact", "single", "refused", "no truth", "not built", "WRONG")
    return ", ".join(f"{sum(row.result == r for row in rows)} {r}" for r in results)


def written(rows: list[Row]) -> str:
    """The table, as it is kept beside this file."""
    head = "| architecture | padding token | result | path | difference / spread | plain float32 / spread | |"
    lines = [head, "|---|---|---|---|--:|--:|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    padding = " ".join(dict.fromkeys(row.padding for row in rows))
    return (
        "# Scores of every sequence-classification architecture\n\n"
        f"`python benchmarks/scoring_architectures.py --padding {padding}`, "
        f"transformers {transformers.__version__}, torch {torch.__version__}: {summary(rows)}.\n\n"
        f"{__doc__[__doc__.index('Each is scored') :]}\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
