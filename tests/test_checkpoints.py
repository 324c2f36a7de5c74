"""Model folders from strangers, and folders that do not belong together: one line each, in bounded time and memory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny

import ratekit as rk
from ratekit import checkpoints
from ratekit.checkpoints import Folder
from ratekit.errors import InputError

torch = pytest.importorskip("torch")
merge = rk.merging.merge


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: Path(tiny.save(root / name, "llama", seed=seed)) for seed, name in enumerate("ab")}


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made["b"], tmp_path / "b"))


def edited(path, **changes):
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, **changes}))


def refused(models, said, **options):
    with pytest.raises(InputError, match=said) as fault:
        merge(models, "soup", **options)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 600


# --- strangers -------------------------------------------------------------------------------------------------


def linked(folder, name, target):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def test_only_known_files_are_taken_over(made, folder, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    linked(folder, "notes.txt", secret)
    for name in ("modeling_own.py", "README.json", "training_args.json", "extra.model"):
        (folder / name).write_text("{}")
    (folder / "chat_templates").symlink_to(tmp_path)
    out = merge([folder, made["a"]], "soup", out=tmp_path / "merged")
    taken = {p.name for p in out.iterdir()}
    assert taken == {"config.json", "merge.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                     "chat_template.jinja"}  # fmt: skip


BOMBS = {
    "endless": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "long": "{{ 'x' * 3000000 }}",
    "vast": "{% for i in range(99999) %}{% for m in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_chat_template_that_does_not_end_is_refused(bomb, monkeypatch):
    monkeypatch.setattr(checkpoints, "TEMPLATE_SECONDS", 1)
    tokenizer = tiny.tokenizer()
    checkpoints.check_template(tokenizer, "m")
    tokenizer.chat_template = BOMBS[bomb]
    with pytest.raises(InputError, match=r"the chat template of m (does not end|makes more than 1 MiB)"):
        checkpoints.check_template(tokenizer, "m")


def test_a_hostile_template_is_refused_before_anything_is_scored(made, folder):
    (folder / "chat_template.jinja").write_text(BOMBS["long"])
    with pytest.raises(InputError, match="makes more than 1 MiB"):
        rk.score([{"prompt": "Why?", "response": "So."}], folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "vocab.txt", "model.safetensors"]
)
@pytest.mark.parametrize("target", ["secret", "/dev/zero", "loop", "../b2/x", "directory", "fifo"])
def test_a_link_out_of_the_folder_is_not_followed(name, target, made, folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (folder / name).unlink(missing_ok=True)
    if target == "directory":
        (folder / name).mkdir()
    elif target == "fifo":
        os.mkfifo(folder / name)
    else:
        linked(folder, name, {"secret": secret, "loop": folder / name}.get(target, target))
    refused([folder, made["a"]], name, out=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_snapshot_of_the_hubs_cache_is_a_folder_like_any_other(made, tmp_path):
    repo = tmp_path / "models--org--rm"
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, path in enumerate(sorted(made["b"].iterdir())):
        shutil.copy(path, repo / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    out = merge([snapshot, made["a"]], "soup", out=tmp_path / "merged")
    assert not any(p.is_symlink() for p in out.iterdir())
    (tmp_path / "secret").write_text("{}")
    linked(snapshot, "tokenizer_config.json", "../../../secret")
    refused([snapshot, made["a"]], "is a link out of its folder")


def sharded(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, own in parts.items():
        save_file({n: state[n] for n in own}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: shard for shard, own in parts.items() for n in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index["weight_map"], names


def test_an_index_that_disagrees_with_its_shards_is_refused(made, folder):
    where, names = sharded(folder)
    merge([folder, made["a"]], "soup")
    index = folder / "model.safetensors.index.json"
    cases = [
        ({**where, names[0]: "../a/model.safetensors"}, "which is not in that folder"),
        ({**where, names[0]: "/etc/passwd"}, "which is not in that folder"),
        ({**where, names[0]: ".."}, "which is not in that folder"),
        ({**where, names[0]: "three.safetensors"}, "lacks three.safetensors, which model.safetensors.index.json lists"),
        ({**where, names[0]: "two.safetensors"}, f"one.safetensors holds {names[0]}, .* puts into two"),
        ({**where, "more.weight": "one.safetensors"}, "puts more.weight into one.safetensors, which does not hold it"),
        ({n: s for n, s in where.items() if n != names[0]}, f"holds {names[0]}, which .* does not list"),
        ({}, "has no weight_map"),
        ([1], "has no weight_map"),
        ({names[0]: 1}, "has no weight_map"),
    ]
    for changed, said in cases:
        index.write_text(json.dumps({"weight_map": changed}))
        refused([made["a"], folder], said)
        with pytest.raises(InputError, match=r"holds .*, which|does not hold it|no weight_map") as fault:
            rk.scoring.make_reward(folder)
        assert "\n" not in str(fault.value)
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(InputError, match="cannot be loaded: KeyError 'metadata'"):
        rk.scoring.make_reward(folder)
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    rk.scoring.make_reward(folder)
    shutil.copy(made["b"] / "model.safetensors", folder)
    refused([made["a"], folder], "holds model.safetensors and an index of other files")
    index.unlink()
    (folder / "model.safetensors").unlink()
    shutil.copy(folder / "one.safetensors", folder / "once-more.safetensors")
    refused([made["a"], folder], "holds .* twice, in once-more.safetensors and in one.safetensors")


def test_files_of_the_wrong_shape_are_named_on_one_line(made, folder, tmp_path):
    kept = {p.name: p.read_bytes() for p in folder.iterdir()}
    config = json.loads(kept["config.json"])
    tokenizer = json.loads(kept["tokenizer.json"])
    nested = "[" * 100_000
    cases = {
        "config.json": [
            "", "[]", "3", "null", nested, '{"a":' * 100_000, "\0", '{"model_type": 3}', '{"model_type": "lla',
            json.dumps({**config, "num_hidden_layers": 10**12}), json.dumps({**config, "hidden_size": "wide"}),
            json.dumps({**config, "num_hidden_layers": -1}), json.dumps({**config, "num_attention_heads": 0}),
            json.dumps({**config, "id2label": {str(i): "x" for i in range(7)}}),
            json.dumps({**config, "hidden_size": 64}), json.dumps({**config, "vocab_size": [480]}),
        ],
        "tokenizer.json": ["", "[]", nested, "{}", json.dumps({**tokenizer, "model": 3}),
                           json.dumps({**tokenizer, "added_tokens": [{"id": 10**30}]})],
        "tokenizer_config.json": ["[]", nested, "3", '{"tokenizer_class": 3}'],
    }  # fmt: skip
    for name, texts in cases.items():
        for text in texts:
            (folder / name).write_text(text)
            refused([folder, made["a"]], "b", out=tmp_path / "merged")
            assert not (tmp_path / "merged").exists()
        (folder / name).write_bytes(kept[name])
    with (folder / "config.json").open("wb") as f:  # a sparse file: a terabyte for nothing
        f.truncate(1 << 40)
    refused([folder, made["a"]], "config.json has 1,099,511,627,776 bytes")


def test_code_of_a_models_own_is_neither_run_nor_copied(made, folder, tmp_path):
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')\n"
    for name in ("modeling_own.py", "tokenization_own.py", "configuration_own.py"):
        (folder / name).write_text(code)
    edited(folder / "config.json", auto_map={"AutoConfig": "configuration_own.C", "AutoModel": "modeling_own.M"})
    out = merge([folder, made["a"]], "soup", out=tmp_path / "merged")
    assert not list(out.glob("*.py"))
    assert not mark.exists()


# --- quantised -------------------------------------------------------------------------------------------------


def test_quantised_weights_are_refused_by_name(made, folder):
    from safetensors.torch import load_file, save_file

    for key in ("quantization_config", "compression_config"):
        edited(folder / "config.json", **{key: {"quant_method": "fp8"}})
        refused([folder, made["a"]], f"is quantised .{key} fp8 in config.json")
        edited(folder / "config.json", **{key: None})
    (folder / "quant_config.json").write_text("{}")
    refused([folder, made["a"]], r"is quantised \(quant_config.json\)")
    (folder / "quant_config.json").unlink()
    state = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8):
        low = {**state, name: torch.zeros_like(state[name]).to(dtype)}
        save_file(low, folder / "model.safetensors", metadata={"format": "pt"})
        refused([made["a"], folder], rf"is quantised .{name} is {str(dtype)[6:]}")
        with pytest.raises(InputError, match="is quantised"):
            merge([low, low], "soup")


# --- what does not belong together -----------------------------------------------------------------------------


def test_what_two_folders_mean_is_compared(made, folder, caplog):
    import logging

    logging.getLogger("ratekit").propagate = True
    kept = {p.name: p.read_bytes() for p in folder.iterdir()}
    tokenizer = json.loads(kept["tokenizer.json"])
    told = json.loads(kept["tokenizer_config.json"])
    template = kept["chat_template.jinja"].decode()
    added = [t if t["content"] != "<|eot|>" else {**t, "lstrip": True} for t in tokenizer["added_tokens"]]
    fewer = [t for t in tokenizer["added_tokens"] if t["content"] != "<|eot|>"]
    vocabulary = {k: v for k, v in tokenizer["model"]["vocab"].items() if k != "<|eot|>"}
    cases = [
        ({"pad_token_id": 6}, {}, {}, "pad_token_id is 0 in a and 6 in b"),
        ({"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}, {}, {}, "rope_parameters is .* in a and"),
        ({"hidden_act": "gelu"}, {}, {}, "hidden_act is silu in a and gelu in b"),
        ({"rms_norm_eps": 1e-3}, {}, {}, "rms_norm_eps is"),
        ({"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}, {}, {}, "num_attention_heads is 4 in a"),
        ({}, {"added_tokens": added}, {}, "the added tokens differ: row 6"),
        ({}, {"added_tokens": fewer, "model": {**tokenizer["model"], "vocab": vocabulary}}, {},
         r"'<\|eot\|>' is row 6 .* in a and row none in b"),
        ({}, {"normalizer": {"type": "Lowercase"}}, {}, "the tokenizers differ: .*rows"),
        ({}, {}, {"chat_template.jinja": template.replace("<|eot|>", "</s>")}, "the chat templates differ, at .*eot"),
    ]  # fmt: skip
    for config, changed, files, said in cases:
        edited(folder / "config.json", **config)
        (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **changed}))
        for name, text in files.items():
            (folder / name).write_text(text)
        refused([made["a"], folder], said)
        for name, raw in kept.items():
            (folder / name).write_bytes(raw)
    # What is a default in one and written out in the other is the same.
    raw = json.loads(kept["config.json"])
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in raw.items() if k not in ("rms_norm_eps", "hidden_act")})
    )
    merge([made["a"], folder], "soup")
    # Templates and padding tokens of the base are not read; what the members lack is said.
    edited(folder / "config.json", pad_token_id=6)
    merge([made["a"], made["a"]], "wise_ft", base=folder)
    (folder / "config.json").write_bytes(kept["config.json"])
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in told.items() if k != "chat_template"}))
    merge([made["a"], folder], "soup")
    assert "a has a chat template and b has none" in caplog.text
    for path in folder.glob("*tokenizer*"):
        path.unlink()
    merge([made["a"], folder], "soup")
    assert "b has no tokenizer in its folder" in caplog.text


def test_the_order_of_labels_is_compared(tmp_path, caplog):
    import logging

    logging.getLogger("ratekit").propagate = True
    names = {"ab": {0: "NEGATIVE", 1: "POSITIVE"}, "ba": {0: "positive", 1: "negative"}, "none": None}
    made = {
        name: tiny.save(tmp_path / name, "bert", num_labels=2, **({"id2label": labels} if labels else {}))
        for name, labels in names.items()
    }
    refused([made["ab"], made["ba"]], "the labels are negative, positive in ab and positive, negative in ba")
    merge([made["ab"], made["none"]], "soup")
    assert "labels are" in caplog.text


# --- what is written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_config_says_the_dtype_that_is_there(dtype, made, tmp_path):
    from transformers import AutoModelForSequenceClassification

    out = merge([made["a"], made["b"]], "soup", out=tmp_path / "merged", dtype=dtype)
    assert {Folder(out).describe(n)[1] for n in Folder(out)} == {dtype}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    model = AutoModelForSequenceClassification.from_pretrained(out, dtype="auto")
    assert str(model.dtype) == f"torch.{dtype}"


def test_a_merge_that_could_not_be_loaded_is_refused_before_it_is_made(made, folder, tmp_path, monkeypatch):
    from ratekit.merging import mergers

    edited(folder / "config.json", num_hidden_layers=2)
    monkeypatch.setattr(mergers.MergePlan, "tensors", lambda *a: pytest.fail("it was merged"))
    other = shutil.copytree(folder, tmp_path / "c")
    edited(folder / "config.json", num_hidden_layers=4)
    edited(other / "config.json", num_hidden_layers=4)
    refused(
        [folder, other],
        r"cannot be loaded as a LlamaForSequenceClassification: it lacks model\.layers\.3",
        out=tmp_path / "x",
    )
    state = rk.merging.load_state(made["a"])
    for wrong, said in (
        ({n: t for n, t in state.items() if n != "score.weight"}, "it lacks score.weight"),
        ({**state, "score.weight": torch.zeros(2, 32)}, r"score.weight is \(2, 32\), and .* has \(1, 32\)"),
    ):
        with pytest.raises(InputError, match=said):
            rk.merging.save_state(wrong, tmp_path / "y", like=made["a"])
        assert not (tmp_path / "y").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "tokenizer_config.json"])
def test_no_text_of_a_file_outside_its_folder_is_read_by_a_reward_or_a_rewriter(name, tmp_path):
    """A template that is a link to a secret would be shown by check-reward, and sent along by a rewriter."""
    from ratekit.rewriting.local import LocalChat
    from ratekit.scoring import make_reward

    tiny.save(tmp_path / "m", "qwen2", seed=1)
    (tmp_path / "secret.txt").write_text("CANARY")
    (tmp_path / "m" / name).unlink(missing_ok=True)
    (tmp_path / "m" / name).symlink_to("../secret.txt")
    for read in (
        lambda: make_reward(str(tmp_path / "m")),
        lambda: LocalChat(str(tmp_path / "m")).tokenizer,
        lambda: make_reward(f"served:http://127.0.0.1:9/classify,m,{tmp_path / 'm'}")._template,
    ):
        with pytest.raises(InputError, match="is a link out of its folder"):
            read()


def test_weights_may_be_links_and_a_rewriter_needs_all_of_its_own(tmp_path):
    from ratekit.rewriting.local import LocalChat

    tiny.save(tmp_path / "m", "qwen2", seed=1)
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "w.safetensors")
    (tmp_path / "m" / "model.safetensors").symlink_to("../w.safetensors")
    checkpoints.check_folder(tmp_path / "m")
    with pytest.raises(InputError, match=r"holds no lm_head\.weight, as a Qwen2ForCausalLM has: it would be random"):
        _ = LocalChat(str(tmp_path / "m"))._loaded
