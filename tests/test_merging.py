"""Merging: what must be true of every method, what each is held against, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
from conftest import ROOT

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.merging.methods import METHODS, checked_parameters, recipe

torch = pytest.importorskip("torch")

HAVE_MERGEKIT = importlib.util.find_spec("mergekit") is not None
mergekit = pytest.mark.skipif(not HAVE_MERGEKIT, reason="mergekit is not installed: pip install 'ratekit[merge]'")
EVERY = [pytest.param(name, marks=mergekit if m.kit else ()) for name, m in METHODS.items()]
merge = rk.merging.merge


def state(seed, scale=1.0, around=None):
    """Two weights, a vector, a head's bias of one element and an integer buffer."""
    g = torch.Generator().manual_seed(seed)
    shapes = {"up.weight": (6, 8), "score.weight": (1, 6), "up.bias": (5,), "score.bias": (1,)}
    made = {n: scale * torch.randn(s, generator=g) for n, s in shapes.items()}
    if around is not None:
        made = {n: around[n] + t for n, t in made.items()}
    return {**made, "position_ids": torch.arange(4)}


BASE = state(0)
A, B, C = (state(seed, 0.1, BASE) for seed in (1, 2, 3))


def distance(x, y):
    assert list(x) == list(y)
    return max(float((x[n].double() - y[n].double()).abs().max()) for n in x)


def copies(name, model):
    least, most = METHODS[name].models
    return [model] * (most or max(2, least))


# --- every method --------------------------------------------------------------------------------------------


def test_the_table_names_every_method_of_mergekit():
    pytest.importorskip("mergekit")
    from mergekit import merge_methods

    theirs = {m.spec.name: m.spec for m in merge_methods.registered_methods()}
    assert set(theirs) <= set(METHODS)
    for name, spec in theirs.items():
        known = {p.name for p in spec.parameters}
        ours = {"lambda" if p == "lambda_" else p for p in METHODS[name].parameters}
        assert ours <= known, name
        assert (METHODS[name].base == "needed") <= (spec.contract.base.value == "required"), name


@pytest.mark.parametrize("name", EVERY)
def test_merging_a_model_with_itself_gives_it_back(name):
    assert distance(merge(copies(name, A), name, base=A), A) == 0


@pytest.mark.parametrize("name", [p for p in EVERY if p.values[0] not in ("wise_ft",)])
def test_with_another_base_too_where_nothing_is_dropped(name):
    whole = {"density": 1.0} if "density" in METHODS[name].parameters else {}
    assert distance(merge(copies(name, A), name, base=BASE, **whole), A) < 1e-6
    assert distance(merge(copies(name, A), name, base=BASE, **whole), BASE) > 0.1  # the control


# What a method draws, or trims to nothing, has no limit in a model that hardly differs.
CONTINUOUS = [p for p in EVERY if not METHODS[p.values[0]].random]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_models_that_hardly_differ_merge_into_nearly_them(name):
    near = state(4, 1e-5, A)
    models = [A, near, near][: METHODS[name].models[1] or 3]
    assert distance(merge(models, name, base=A), A) < 1e-3


@pytest.mark.parametrize("name", [p for p in EVERY if METHODS[p.values[0]].models[1] != 1])
def test_one_element_is_averaged(name):
    given = {"alpha": 1.0} if name == "wise_ft" else {}
    merged = merge([A, B], name, base=BASE, **given)
    assert torch.allclose(merged["score.bias"], (A["score.bias"] + B["score.bias"]) / 2, atol=1e-6)
    assert torch.equal(merged["position_ids"], BASE["position_ids"])


@mergekit
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.random])
def test_draws_come_from_the_seed_and_leave_the_generator_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = merge([A, B], name, base=BASE, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert distance(first, merge([A, B], name, base=BASE, seed=1)) == 0
    if name != "arcee_fusion":  # which draws only for tensors of over a million elements
        assert distance(first, merge([A, B], name, base=BASE, seed=2)) > 0


# --- what each is held against -------------------------------------------------------------------------------


def test_linear_is_the_weighted_average():
    merged = merge({"a": A, "b": B}, "linear", weight={"b": 3, "a": 1})
    assert distance(merged, {n: (t + 3 * B[n]) / 4 if t.is_floating_point() else t for n, t in A.items()}) < 1e-6
    assert distance(merge([A, B, C], "soup"), merge([A, B, C], "linear")) == 0


@mergekit
def test_linear_is_mergekits():
    from mergekit.merge_methods import merge_state_dicts

    theirs = merge_state_dicts([A, B, C], "linear", parameters={"weight": [1.0, 2.0, 0.5]})
    assert distance(merge([A, B, C], "linear", weight=[1, 2, 0.5]), theirs) < 1e-6


@mergekit
def test_task_arithmetic_adds_and_takes_away():
    merged = merge([A, B], "task_arithmetic", base=BASE, weight=[1.0, -0.5], lambda_=2.0)
    for n, t in BASE.items():
        if t.is_floating_point():
            assert torch.allclose(merged[n], t + 2 * (A[n] - t) - (B[n] - t), atol=1e-5)


TAU = torch.tensor([[3.0, -1.0, 0.5, 2.0], [-2.0, -4.0, 0.1, 1.0], [1.0, 0.2, -5.0, 0.3]])


@mergekit
def test_ties_by_hand():
    # Half of the entries kept: [3,0,0,2], [-2,-4,0,0], [1,0,-5,0]; sums 2, -4, -5, 2; means of those that agree.
    merged = merge([{"w": t} for t in TAU], "ties", base={"w": torch.zeros(4)}, density=0.5, weight=1.0)
    assert merged["w"].tolist() == [2.0, -4.0, -5.0, 2.0]


@mergekit
def test_ties_is_pefts_at_weight_one():
    utils = pytest.importorskip("peft.utils.merge_utils")
    g = torch.Generator().manual_seed(0)
    for deltas in (TAU, torch.randn(4, 60, generator=g)):
        merged = merge([{"w": t} for t in deltas], "ties", base={"w": torch.zeros(deltas.shape[1])}, density=0.5)
        assert torch.allclose(merged["w"], utils.ties(list(deltas), torch.ones(len(deltas)), 0.5), atol=1e-6)


@mergekit
def test_slerp_stays_on_the_sphere_and_ends_at_its_ends():
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    half = merge([{"w": x}, {"w": y}], "slerp", t=0.5)["w"]
    assert torch.allclose(half, torch.tensor([3.0, 3.0]) / 2**0.5)
    for t, end in ((0.0, A), (1.0, B)):
        assert distance(merge([A, B], "slerp", t=t), end) < 1e-6
    assert distance(merge([B], "slerp", base=A, t=0.3), merge([A, B], "slerp", t=0.3)) == 0


@mergekit
def test_della_does_not_raise_on_one_element():
    from mergekit.merge_methods import merge_tensors

    one = [torch.zeros(1), torch.ones(1), torch.ones(1)]
    with pytest.raises(RuntimeError):  # the trap itself: if it is gone, the way round it can go
        merge_tensors(one, "della", base_index=0, parameters={"weight": 1.0, "density": 0.5, "epsilon": 0.1})
    merged = merge([{"b": one[1]}, {"b": one[2]}], "della", base={"b": one[0]})
    assert merged["b"].tolist() == [1.0]


def regressions(orthogonal):
    """Two data sets, the least squares fit of each, and that of both."""
    g = torch.Generator().manual_seed(7)
    data = []
    for n in (30, 50):
        x = torch.randn(n, 5, generator=g, dtype=torch.float64)
        if orthogonal:
            x = torch.linalg.qr(x)[0] * torch.rand(5, generator=g, dtype=torch.float64)
        data.append((x, torch.randn(n, 2, generator=g, dtype=torch.float64)))
    fits = [torch.linalg.lstsq(x, y).solution.T for x, y in data]
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    return data, fits, torch.linalg.lstsq(x, y).solution.T


def test_regmean_is_pooled_least_squares():
    data, fits, pooled = regressions(orthogonal=False)
    grams = [{"w": x.T @ x} for x, _ in data]
    states = [{"w": w} for w in fits]
    assert torch.allclose(rk.merging.regmean(states, grams)["w"], pooled, atol=1e-10)
    assert not torch.allclose(merge(states, "soup")["w"], pooled, atol=1e-2)  # the control
    assert not torch.allclose(rk.merging.regmean(states, grams, shrink=0.5)["w"], pooled, atol=1e-3)


def test_regmean_keeps_the_average_where_no_input_is():
    gram = torch.diag(torch.tensor([1.0, 0.0]))
    a, b = {"w": torch.tensor([[0.0, 0.0]])}, {"w": torch.tensor([[4.0, 4.0]])}
    merged = rk.merging.regmean([a, b], [{"w": gram}, {"w": 3 * gram}])
    assert torch.allclose(merged["w"], torch.tensor([[3.0, 2.0]]))


def test_fisher_is_pooled_least_squares_where_inputs_are_uncorrelated():
    data, fits, pooled = regressions(orthogonal=True)
    information = [{"w": (x**2).sum(0).expand(2, 5)} for x, _ in data]
    states = [{"w": w} for w in fits]
    assert torch.allclose(rk.merging.fisher(states, information)["w"], pooled, atol=1e-10)
    assert not torch.allclose(merge(states, "soup")["w"], pooled, atol=1e-2)


def test_information_and_gram_matrices_of_a_network():
    layer = torch.nn.Linear(3, 1, bias=False)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    grams = rk.merging.gram_matrices(layer, x.split(7), lambda net, batch: net(batch))
    assert torch.allclose(grams["weight"], x.T @ x, atol=1e-4)
    # Of a Gaussian with unit variance the score is (y - w x) x; with residual 1 its square is x squared.
    loss = lambda net, row: 0.5 * (net(row) - net(row).detach() - 1).square().sum()  # noqa: E731
    found = rk.merging.fisher_information(layer, x.split(1), loss)
    assert torch.allclose(found["weight"], (x**2).mean(0, keepdim=True), atol=1e-5)


def test_an_ensemble_is_the_mean_of_standardised_rewards():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    one = rk.merging.ensemble([a, 100 * b + 7])
    assert np.allclose(one, (a - a.mean()) / a.std(ddof=1) / 2 + (b - b.mean()) / b.std(ddof=1) / 2)
    assert np.allclose(one, rk.merging.ensemble([3 * a + 1, b]))  # no model's scale or zero counts
    with pytest.raises(InputError, match="model 2 do not vary"):
        rk.merging.ensemble([a, np.ones(50)])
    with pytest.raises(InputError, match="one shape"):
        rk.merging.ensemble([a, b[:3]])


def test_a_greedy_soup_is_never_worse_than_its_best_member():
    near = lambda s: -float((s["up.weight"] - BASE["up.weight"]).norm())  # noqa: E731
    soup = rk.merging.greedy({"a": A, "b": B, "far": state(9, 3.0, BASE), "c": C}, near)
    assert set(soup.members) == {"a", "b", "c"}
    assert soup.value >= max(near(m) for m in (A, B, C))
    assert distance(soup.state, merge([A, B, C], "soup")) < 1e-6
    worst = rk.merging.greedy([A, B], near, higher_is_better=False)
    assert len(worst.members) == 1


def test_wise_ft_ends_at_its_ends():
    assert distance(rk.merging.wise_ft(BASE, A, 0.0), BASE) == 0
    assert distance(rk.merging.wise_ft(BASE, A, 1.0), A) == 0


# --- folders -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: tiny.save(root / name, "llama", seed=seed) for seed, name in enumerate(("base", "a", "b"))}


@pytest.mark.parametrize(
    "name", [pytest.param("ties", marks=mergekit), pytest.param("dare_linear", marks=mergekit), "soup"]
)
def test_a_folder_written_shard_by_shard_is_the_merge_in_memory(name, folders, tmp_path, monkeypatch):
    from ratekit.merging import writing

    monkeypatch.setattr(writing, "SHARD_BYTES", 20_000)
    models = [folders["a"], folders["b"]]
    out = merge(models, name, base=folders["base"], out=tmp_path / "merged", seed=3)
    assert len(list(out.glob("*.safetensors"))) > 3
    in_memory = merge(
        [rk.merging.load_state(m) for m in models], name, base=rk.merging.load_state(folders["base"]), seed=3
    )
    assert distance(rk.merging.load_state(out), in_memory) == 0
    record = json.loads((out / "merge.json").read_text())
    assert record["method"] == name
    assert record["models"] == ["a", "b"]
    reward = rk.scoring.make_reward(out)  # it is a reward model like any other
    again = rk.merging.reward_from(folders["a"])(in_memory)
    assert np.allclose(reward(["Why?"], ["So."]), again(["Why?"], ["So."]), atol=1e-5)


def test_nothing_is_left_of_a_merge_that_fails(folders, tmp_path):
    broken = {**rk.merging.load_state(folders["a"])}
    last = list(broken)[-1]
    broken[last] = torch.full_like(broken[last], float("nan"))
    with pytest.raises(InputError, match=f"{last} of model 2 holds"):
        merge([folders["a"], broken], "soup", out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_large_tensor_is_merged_in_blocks_and_said(caplog):
    pytest.importorskip("mergekit")
    caplog.set_level("WARNING", logger="ratekit")
    rk_log = __import__("logging").getLogger("ratekit")
    rk_log.propagate = True
    whole = merge([A, B], "task_arithmetic", base=BASE)
    blocks = merge([A, B], "task_arithmetic", base=BASE, memory=1e-6)
    assert distance(whole, blocks) < 1e-6
    assert "up.weight is merged in 2 blocks" in caplog.text


def test_tied_tensors_stay_tied():
    shared = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    a = {"embed.weight": shared, "lm_head.weight": shared}
    b = {"embed.weight": (w := shared + 1), "lm_head.weight": w}
    merged = merge([a, b], "soup")
    assert merged["embed.weight"] is merged["lm_head.weight"]
    with pytest.raises(InputError, match=r"lm_head.weight is tied to embed.weight in model 1 and not in model 2"):
        merge([a, {n: t.clone() for n, t in b.items()}], "soup")


# --- LoRA ----------------------------------------------------------------------------------------------------


def test_a_lora_adapter_is_merged_as_peft_merges_it(folders, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folders["base"])
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_rslora=True,
        rank_pattern={"layers.1.self_attn.q_proj": 2}, init_lora_weights=False,
    )  # fmt: skip
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for n, p in tuned.named_parameters():
            if "modules_to_save" in n:
                p.add_(1.0)
    tuned.save_pretrained(tmp_path / "adapter")
    theirs = {n.replace(".modules_to_save.default", ""): t for n, t in tuned.merge_and_unload().state_dict().items()}
    ours = rk.merging.merge_lora(folders["base"], tmp_path / "adapter")
    assert distance(ours, {n: theirs[n] for n in ours}) < 1e-5
    base = rk.merging.load_state(folders["base"])
    assert {n for n in ours if not torch.equal(ours[n], base[n])} >= {
        "score.weight",
        "model.layers.1.mlp.down_proj.weight",
    }
    # An adapter's folder counts as the model that it makes.
    half = merge([tmp_path / "adapter", folders["a"]], "soup")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({**told, "base_model_name_or_path": "org/base"})
    )
    with pytest.raises(InputError, match="its base 'org/base' is no folder here; give base="):
        merge([tmp_path / "adapter", folders["a"]], "soup")
    assert distance(half, merge([tmp_path / "adapter", folders["a"]], "soup", base=folders["base"])) == 0
    assert distance(half, merge([ours, rk.merging.load_state(folders["a"])], "soup")) < 1e-6


# --- bad input -----------------------------------------------------------------------------------------------


def without(model, name):
    return {n: t for n, t in model.items() if n != name}


BAD = {
    "another architecture": ([A, without(A, "up.bias")], {}, r"up\.bias is in model 1 and not in model 2"),
    "another size": ([A, {**A, "up.weight": torch.zeros(6, 9)}], {}, r"up\.weight is \(6, 8\) in model 1 and \(6, 9\)"),
    "another head": ([A, {**A, "score.weight": torch.zeros(2, 6)}], {}, r"score\.weight is .* the reward heads differ"),
    "mixed dtypes": ([A, {**A, "up.bias": A["up.bias"].half()}], {}, r"up\.bias is float32 .* float16 in model 2; say"),
    "NaN": ([A, {**A, "up.bias": torch.tensor([1, float("nan"), 1, 1, 1])}], {}, r"up\.bias of model 2 holds 1 of 5"),
    "no model": ([], {}, "no model was given"),
    "a number": ([A, {**A, "up.bias": 3}], {}, "'up.bias' is a int"),
    "buffers": ([A, {**A, "position_ids": torch.arange(4) + 1}], {}, "position_ids holds torch.int64 and differs"),
    "weights": ([A, B], {"weight": [1, 2, 3]}, "3 weights for 2 models"),
    "weights of others": ([A, B], {"weight": {"x": 1, "model 2": 1}}, "'model 1' is amiss"),
    "no such parameter": ([A, B], {"densty": 1}, "unknown parameter of linear 'densty'"),
    "no number": ([A, B], {"weight": "much"}, "weights for|a number was expected"),
    "weights of sum 0": ([A, B], {"weight": [1, -1]}, "add up to 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    models, params, said = BAD[case]
    with pytest.raises(InputError, match=said) as fault:
        merge(models, "linear", **params)
    assert "\n" not in str(fault.value)


def test_a_method_says_what_it_lacks():
    with pytest.raises(InputError, match="unknown merge method 'tie'; did you mean 'ties'"):
        merge([A, B], "tie")
    with pytest.raises(InputError, match="ties needs base="):
        merge([A, B], "ties")
    with pytest.raises(InputError, match="slerp merges 2 models; got 3"):
        merge([A, B, C], "slerp")
    with pytest.raises(InputError, match="model_stock merges at least 2 models beside the base; got 1"):
        merge([A], "model_stock", base=BASE)
    for given, said in (({"density": 0}, "density=0"), ({"density": 0.1, "epsilon": 0.2}, "must lie between 0 and 1"),
                        ({"normalize": 1}, "True or False"), ({"lambda_": float("inf")}, "a number")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            checked_parameters(METHODS["della"], given, ["a", "b"])
    for steps in (0, 2.5, -1):
        with pytest.raises(InputError, match="a whole number of at least 1"):
            checked_parameters(METHODS["karcher"], {"max_iter": steps}, ["a", "b"])
    with pytest.raises(InputError, match="density is there twice"):
        recipe("ties:density=0.5,weight=1,density=0.3")


def test_mixed_dtypes_are_merged_where_one_is_chosen():
    half = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in B.items()}
    merged = merge([A, half], "soup", dtype="float16")
    assert {t.dtype for t in merged.values()} == {torch.float16, torch.int64}
    for dtype in ("int8", "float8_e4m3fn", "Tensor"):
        with pytest.raises(InputError, match=f"dtype='{dtype}'"):
            merge([A, B], "soup", dtype=dtype)
    for memory in (0, float("nan"), -1):
        with pytest.raises(InputError, match=r"memory=.*GiB above 0"):
            merge([A, B], "soup", memory=memory)


def test_folders_that_do_not_belong_together(folders, tmp_path):
    cases = {
        "heads": (
            {"num_attention_heads": 8, "num_key_value_heads": 4},
            r"num_attention_heads is 4 .* model.layers.0.self_attn.q_proj.weight means another",
        ),
        "vocabulary": ({"vocab_size": 490}, r"embed_tokens.weight is .* the vocabularies differ"),
        "head": ({"num_labels": 2}, r"score.weight is \(1, 32\) .* the reward heads differ"),
        "lm": (
            {"task": "CausalLM"},
            r"lm_head.weight is in lm and not in a|score.weight is in a .* lm has no reward head",
        ),
        "layers": ({"num_hidden_layers": 2}, r"model.layers.2.* \(and 8 more\) is in a and not in layers"),
    }
    for name, (changes, said) in cases.items():
        other = tiny.save(tmp_path / name, "llama", **changes)
        with pytest.raises(InputError, match=said):
            merge([folders["a"], other], "soup")
    words = tiny.save(tmp_path / "words", "llama")
    told = json.loads((tmp_path / "words" / "tokenizer.json").read_text())
    vocab = told["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (tmp_path / "words" / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"the vocabularies differ: 'a' is row \d+ of model.embed_tokens.weight in a"):
        merge([folders["a"], words], "soup")


def test_only_safetensors_are_read(tmp_path, folders):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(InputError, match=r"only pickled \(pytorch_model.bin\), which can run any code"):
        merge([tmp_path, folders["a"]], "soup")
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match=r"model.safetensors is not readable as safetensors"):
        merge([tmp_path, folders["a"]], "soup")
    with pytest.raises(InputError, match="is not there"):
        merge([tmp_path / "none", folders["a"]], "soup")
    with pytest.raises(InputError, match="is not empty"):
        merge([folders["a"]], "soup", out=folders["a"])


@mergekit
def test_a_method_that_gives_nan_says_so(monkeypatch):
    from mergekit import merge_methods

    monkeypatch.setattr(merge_methods, "merge_tensors", lambda tensors, *a, **k: tensors[0] * float("nan"))
    with pytest.raises(WorkError, match=r"ties gave NaN or infinity for up.weight"):
        merge([A, B], "ties", base=BASE)


@mergekit
def test_a_sum_too_large_for_its_dtype_is_an_error_and_no_infinity():
    big, zero = {"w": torch.full((3,), 6e4).half()}, {"w": torch.zeros(3).half()}
    with pytest.raises(WorkError, match="NaN or infinity for w"):
        merge([big, big], "task_arithmetic", base=zero, weight=1.0)
    assert merge([big, big], "task_arithmetic", base=zero, weight=1.0, dtype="float32")["w"].tolist() == [120000.0] * 3


def test_recipes_on_one_line():
    assert recipe("dare_ties:density=0.3,rescale=false") == ("dare_ties", {"density": 0.3, "rescale": False})
    for text, said in (("tis", "did you mean 'ties'"), ("ties:0.5", "name=value"), ("ties:density=x", "is a number")):
        with pytest.raises(InputError, match=said):
            recipe(text)


@pytest.mark.commands
def test_without_mergekit_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['mergekit'] = None\n"
        "import torch, ratekit as rk\n"
        "a, b = {'w': torch.zeros(2)}, {'w': torch.ones(2)}\n"
        "print(rk.merging.merge([a, b], 'soup')['w'].tolist(), rk.merging.wise_ft(a, b, 0.25)['w'].tolist())\n"
        "try: rk.merging.merge([a, b], 'slerp')\n"
        "except rk.InputError as e: print(e)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    first, second = out.splitlines()
    assert first == "[0.5, 0.5] [0.25, 0.25]"
    assert "pip install 'ratekit[merge]'" in second
