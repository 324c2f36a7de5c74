"""LoRA adapters: every field of PEFT's config either gives what PEFT's own merge gives, or is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
import tiny

import ratekit as rk
from ratekit.errors import InputError
from ratekit.lora import Lora

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

PLAIN = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
FIELDS = {
    "r": {"r": 7},
    "lora_alpha": {"lora_alpha": 11},
    "target_modules": {"target_modules": "all-linear"},
    "exclude_modules": {"exclude_modules": ["layers.1.self_attn.q_proj"]},
    "lora_dropout": {"lora_dropout": 0.3},
    "use_rslora": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "use_rslora": True},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 3, r"layers\.1\.mlp\..*": 20}},
    "layers_to_transform": {"layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "bias": {"bias": "all"},
    "lora_bias": {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]},
    "use_dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["norm"]},
    "trainable_token_indices": {"trainable_token_indices": [3, 5, 479]},
    "trainable_token_indices by module": {"trainable_token_indices": {"embed_tokens": [0, 1]}},
    "embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "init_lora_weights gaussian": {"init_lora_weights": "gaussian"},
    "init_lora_weights orthogonal": {"init_lora_weights": "orthogonal"},
    "inference_mode": {"inference_mode": True},
    "revision": {"revision": "main"},
    "qalora_group_size": {"qalora_group_size": 8},
}
REFUSED = {
    "init_lora_weights": "pissa",
    "layer_replication": [[0, 2], [1, 3]],
    "target_parameters": ["mlp.experts.gate_up_proj"],
    "alora_invocation_tokens": [1, 2],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 3},
    "kasa_config": {"beta": 1.0},
    "velora_config": {"num_groups": 4},
    "monteclora_config": {"samples": 2},
    "megatron_config": {"tensor_model_parallel_size": 2},
    "ensure_weight_tying": True,
    "a_field_of_the_future": 0.5,
}
NOTHING = {"peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "fan_in_fan_out",
           "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core", "runtime_config",
           "layers_pattern"}  # fmt: skip


def adapter(folder: Path, base: str, task: str = "SEQ_CLS", resize: int | None = None, tok=None, **settings):
    """An adapter with random weights as PEFT saves it, and the state dict that PEFT merges it into."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    def plain():
        if task == "SEQ_CLS":
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        else:
            model = AutoModelForCausalLM.from_pretrained(base)
        if resize:
            model.resize_token_embeddings(resize)
        return model

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    tuned = peft.get_peft_model(plain(), peft.LoraConfig(task_type=task, **{**PLAIN, **settings}))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if any(part in name for part in ("modules_to_save", "lora_", "token_adapter", "bias")):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    tuned.save_pretrained(folder)
    if tok is not None:
        tok.save_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(plain(), folder).merge_and_unload()
    return {name: t.detach().clone() for name, t in theirs.state_dict().items()}


def differs(ours, theirs):
    assert {*ours} <= {*theirs}
    assert all(name in ours or name == "lm_head.weight" for name in theirs)
    return max(float((ours[n].double() - theirs[n].double()).abs().max()) for n in ours)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("base") / "base", "qwen2")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", FIELDS)
def test_an_adapter_is_merged_as_peft_merges_it(field, base, tmp_path):
    theirs = adapter(tmp_path / "adapter", base, **FIELDS[field])
    ours = rk.merging.merge_lora(base, tmp_path / "adapter")
    assert differs(ours, theirs) < 2e-6
    assert {*ours} == {*theirs}
    assert differs(rk.merging.load_state(base), theirs) > 0.01  # the control: the adapter does something


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_that_changes_the_arithmetic_is_refused_by_name(field, base, tmp_path):
    adapter(tmp_path / "adapter", base)
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: REFUSED[field]}))
    with pytest.raises(InputError, match=field) as fault:
        Lora(tmp_path / "adapter")
    assert "\n" not in str(fault.value)


def test_every_field_of_pefts_config_is_compared_refused_or_of_no_weight():
    known = {f.split()[0] for f in [*FIELDS, *REFUSED]} | NOTHING
    assert {f.name for f in dataclasses.fields(peft.LoraConfig)} <= known


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    [
        "gpt2",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("bert", "distilbert", "mistral", "gemma2", "phi3", "gpt_neox")
        ),
    ],
)
def test_of_other_architectures_square_weights_stored_either_way(kind, tmp_path):
    targets = {"gpt2": ["c_attn", "c_proj"], "bert": ["query", "dense"], "distilbert": ["q_lin", "lin1"],
               "phi3": ["qkv_proj", "o_proj"], "gpt_neox": ["query_key_value", "dense"]}  # fmt: skip
    base = tiny.save(tmp_path / "base", kind)
    theirs = adapter(tmp_path / "adapter", base, target_modules=targets.get(kind, ["q_proj", "o_proj"]))
    assert differs(rk.merging.merge_lora(base, tmp_path / "adapter"), theirs) < 2e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["llama", *(pytest.param(k, marks=pytest.mark.slow) for k in ("gpt2", "gemma2", "phi3"))]
)
def test_a_reward_adapter_on_a_language_model_makes_a_reward_model(kind, tmp_path):
    """As TRL leaves it: the head in modules_to_save, a padding token added, the template in the adapter's folder."""
    base = tiny.save(tmp_path / "base", kind, task="CausalLM", tok=tiny.tokenizer(template=None), pad_token_id=None)
    tok = tiny.tokenizer()
    tok.add_special_tokens({"pad_token": "<new pad>"})
    pad = tok.pad_token_id
    targets = {"gpt2": ["c_attn"], "phi3": ["qkv_proj"]}.get(kind, ["q_proj"])
    theirs = adapter(tmp_path / "adapter", base, resize=max(481, pad + 1), tok=tok, target_modules=targets)
    merged = rk.merging.merge([tmp_path / "adapter"], "linear", out=tmp_path / "merged")
    ours = rk.merging.load_state(merged)
    assert differs(ours, theirs) < 2e-6
    config = json.loads((merged / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert len(config["id2label"]) == 1
    assert config["vocab_size"] == max(481, pad + 1)
    assert config["pad_token_id"] == pad
    assert not {*ours} & {"lm_head.weight"}
    reward = rk.scoring.make_reward(merged)  # which needs the adapter's chat template
    assert abs(float(reward(["Why?"], ["So."])[0])) > 0
    # The adapter of a language model keeps the language model.
    theirs = adapter(tmp_path / "lm", base, task="CAUSAL_LM", target_modules=targets)
    assert differs(rk.merging.merge_lora(base, tmp_path / "lm"), theirs) < 2e-6


@pytest.mark.filterwarnings("ignore")
def test_bfloat16_stays_bfloat16(tmp_path):
    base = tiny.save(tmp_path / "base", "llama", dtype="bfloat16")
    half = {n: t.bfloat16() for n, t in rk.merging.load_state(base).items()}
    base = rk.merging.save_state(half, tmp_path / "half", like=base)
    assert json.loads((base / "config.json").read_text())["dtype"] == "bfloat16"
    theirs = adapter(tmp_path / "adapter", str(base))
    ours = rk.merging.merge_lora(base, tmp_path / "adapter")
    assert {t.dtype for t in ours.values()} == {torch.bfloat16}
    assert differs(ours, theirs) == 0


def test_an_adapter_that_does_not_fit_is_refused(base, tmp_path):
    from safetensors.torch import load_file, save_file

    adapter(tmp_path / "adapter", base)
    path, told = tmp_path / "adapter" / "adapter_model.safetensors", tmp_path / "adapter" / "adapter_config.json"
    tensors, config = load_file(path), json.loads(told.read_text())
    q = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    head = "base_model.model.score.weight"
    cases = [
        ({**tensors, q + "A.weight": torch.zeros(4, 31)}, {}, r"q_proj.weight is \(32, 32\) in the base"),
        ({n: t for n, t in tensors.items() if n != q + "B.weight"}, {}, "has no lora_B beside it"),
        ({**tensors, "base_model.model.nowhere.lora_A.weight": torch.zeros(4, 32),
          "base_model.model.nowhere.lora_B.weight": torch.zeros(32, 4)}, {}, "nowhere.weight, which its base does not"),
        ({**tensors, "base_model.model.extra.weight": torch.zeros(4)}, {}, "extra.weight, which its base does not"),
        ({**tensors, head: torch.zeros(1, 33)}, {}, r"score.weight is \(1, 33\)"),
        (tensors, {"r": 8}, "the rank 8, and lora_A has 4 rows"),
        (tensors, {"r": 0}, "r is 0; a number"),
        (tensors, {"r": "many"}, "r is many; a number"),
        (tensors, {"rank_pattern": [1]}, "an object of numbers"),
        (tensors, {"rank_pattern": {"(a+)+$": 4}}, "is no pattern"),
        (tensors, {"peft_type": "IA3"}, "is a IA3 adapter"),
        (tensors, {"base_model_name_or_path": "org/base"}, "is no folder here; give base="),
        (tensors, {"use_dora": True}, "has no lora_magnitude_vector"),
        ({"score.weight": torch.zeros(1, 32)}, {}, "holds no LoRA weights"),
    ]  # fmt: skip
    for changed, more, said in cases:
        save_file(changed, path, metadata={"format": "pt"})
        told.write_text(json.dumps({**config, **more}))
        with pytest.raises(InputError, match=said) as fault:
            rk.merging.merge([tmp_path / "adapter"], "linear")
        assert "\n" not in str(fault.value)
    told.write_text("[1]")
    with pytest.raises(InputError, match=r"adapter_config.json holds \[1\]; an object"):
        Lora(tmp_path / "adapter")


def test_a_head_that_nobody_trained_is_refused(tmp_path):
    base = tiny.save(tmp_path / "base", "llama", task="CausalLM")
    adapter(tmp_path / "adapter", base)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if "score" not in n}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"it lacks score\.weight"):
        rk.merging.merge([tmp_path / "adapter"], "linear")
