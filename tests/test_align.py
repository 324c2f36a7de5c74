"""Weight matching: what may be permuted, a permuted copy found again, and the function never changed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ratekit as rk
from ratekit.merging import align, barrier, symmetries_of
from ratekit.merging.symmetries import Symmetries, permuted, shuffled

torch = pytest.importorskip("torch")


def mlp(seed, widths=(6, 24, 24, 1)):
    torch.manual_seed(seed)
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def outputs(model, state, *args, **kwargs):
    with torch.no_grad():
        out = torch.func.functional_call(model, dict(state), args, kwargs)
    return getattr(out, "logits", out).double().flatten()


def distance_from(model, state, *args, **kwargs):
    """The squared distance of outputs from those of `state`, in variances of these: a loss that is 0 there."""
    target = outputs(model, state, *args, **kwargs)
    return lambda other: float((outputs(model, other, *args, **kwargs) - target).square().mean() / target.var())


SMALL = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_labels": 1, "pad_token_id": 0}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
ARCHITECTURES = {
    "Bert": (SMALL, 4),
    "Roberta": ({**SMALL, "max_position_embeddings": 40}, 4),
    "DistilBert": (
        {"vocab_size": 50, "dim": 24, "hidden_dim": 40, "n_layers": 2, "n_heads": 4, "num_labels": 1},
        4,
    ),
    "Llama": (GROUPED, 2),
    "Mistral": (GROUPED, 2),
    "Qwen2": (GROUPED, 2),
    "Qwen3": ({**GROUPED, "head_dim": 6}, 2),
}  # fmt: skip


def transformer(name, seed=0):
    import transformers

    config, heads = ARCHITECTURES[name]
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForSequenceClassification")(getattr(transformers, f"{name}Config")(**config))
    for parameter in model.parameters():  # sizes at which every weight matters, biases too
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return model.eval(), heads


IDS = torch.randint(3, 50, (6, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_permuting_units_does_not_change_the_function(name):
    model, heads = transformer(name)
    state = model.state_dict()
    symmetries = symmetries_of(state, heads)
    moved = shuffled(state, symmetries, seed=1)
    groups = {group.split()[0] for group in symmetries.units}
    assert groups >= {"residual", "heads", "feed-forward"}
    assert sum(not torch.equal(state[k], moved[k]) for k in state) > len(state) / 2
    assert outputs(model, moved, input_ids=IDS).numpy() == pytest.approx(
        outputs(model, state, input_ids=IDS).numpy(), abs=1e-5
    )
    for group, n in symmetries.units.items():  # the control: half of a permutation is another function
        one, axis = symmetries.tensors_of(group)[0]
        if n > 1:
            half = Symmetries(
                {k: tuple(group if (k, i) == (one, axis) else None for i in range(v.dim())) for k, v in state.items()},
                {group: n},
            )
            wrong = permuted(state, {group: np.roll(np.arange(n), 1)}, half)
            change = (outputs(model, wrong, input_ids=IDS) - outputs(model, state, input_ids=IDS)).abs().max()
            assert change > 1e-4, (group, one)


def test_permuted_copies_of_mlps_are_recovered_exactly():
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    recovered, before, after = 0, [], []
    for seed in range(20):
        net = mlp(seed)
        state = net.state_dict()
        copy = shuffled(state, symmetries_of(state), seed=100 + seed)
        loss = distance_from(net, state, x)
        found = align(state, copy)
        recovered += all(torch.equal(state[k], found.state[k]) for k in state) and found.distance == 0
        before.append(barrier(state, copy, loss))
        after.append(barrier(state, found.state, loss))
    assert recovered == 20
    assert min(before) > 0.05
    assert max(after) < 1e-9


def test_permuted_copies_of_transformers_are_recovered_exactly():
    recovered, before, after = 0, [], []
    for seed in range(10):
        model, heads = transformer(["Bert", "Llama"][seed % 2], seed)
        state = model.state_dict()
        copy = shuffled(state, symmetries_of(state, heads), seed=100 + seed)
        loss = distance_from(model, state, input_ids=IDS)
        found = align(state, copy, heads=heads, restarts=2)
        recovered += all(torch.equal(state[k], found.state[k]) for k in state)
        before.append(barrier(state, copy, loss, 5))
        after.append(barrier(state, found.state, loss, 5))
    assert recovered == 10
    assert min(before) > 0.05
    assert max(after) < 1e-9


def test_a_noisy_copy_is_put_in_order_too():
    net = mlp(0)
    state = net.state_dict()
    noisy = {k: v + 0.02 * torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) for k, v in state.items()}
    symmetries = symmetries_of(state)
    found = align(state, shuffled(noisy, symmetries, seed=5))
    assert all(torch.equal(found.state[k], noisy[k]) for k in noisy)


def test_one_hidden_layer_gets_the_best_of_all_permutations():
    for seed in range(5):
        a, b = mlp(seed, (3, 5, 2)).state_dict(), mlp(50 + seed, (3, 5, 2)).state_dict()
        distances = []
        for order in itertools.permutations(range(5)):
            moved = permuted(b, {"hidden 1": np.array(order)}, symmetries_of(a))
            distances.append(sum(float((a[k] - v).double().square().sum()) for k, v in moved.items()))
        assert align(a, b).distance ** 2 == pytest.approx(min(distances), rel=1e-6)


def test_independent_networks_come_nearer_and_compute_what_they_did():
    a, net = mlp(0).state_dict(), mlp(1)
    b = net.state_dict()
    x = torch.randn(50, 6)
    found = align(a, b, restarts=6)
    assert found.distance < found.distance_before
    assert found.distance == min(found.restarts)
    assert len(set(found.restarts)) > 1, "the climb has local optima: that is what restarts are for"
    assert outputs(net, found.state, x).numpy() == pytest.approx(outputs(net, b, x).numpy(), abs=1e-5)
    again = permuted(b, found.permutations, symmetries_of(b))
    assert all(torch.equal(again[k], found.state[k]) for k in again)


def test_a_judge_chooses_among_the_restarts():
    a, b = mlp(0).state_dict(), mlp(1).state_dict()
    far = align(a, b, restarts=6, judge=lambda half: -sum(float((half[k] - a[k]).square().sum()) for k in a))
    assert far.distance == max(far.restarts)


def test_tied_weights_stay_tied():
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {k: v for k, v in GROUPED.items() if k != "num_labels"}
    model = LlamaForCausalLM(LlamaConfig(**small, tie_word_embeddings=True))
    state = model.state_dict()
    moved = shuffled(state, symmetries_of(state, 2), seed=3)
    assert moved["lm_head.weight"].data_ptr() == moved["model.embed_tokens.weight"].data_ptr()
    assert align(state, moved, heads=2, restarts=1).distance == 0


def test_a_folder_says_how_many_heads_it_has(tmp_path):
    model, _ = transformer("Llama")
    model.save_pretrained(tmp_path / "a")
    state = model.state_dict()
    model.load_state_dict(shuffled(state, symmetries_of(state, 2), seed=7))
    model.save_pretrained(tmp_path / "b")
    assert align(tmp_path / "a", str(tmp_path / "b"), restarts=2).distance == 0


def test_names_are_put_in_the_order_of_their_numbers():
    net = mlp(0, (4, *[8] * 11, 1))  # layers 0 to 22, so "10.weight" sorts before "2.weight"
    state = dict(sorted(net.state_dict().items()))
    x = torch.randn(20, 4)
    moved = shuffled(state, symmetries_of(state), seed=0)
    assert outputs(net, moved, x).numpy() == pytest.approx(outputs(net, state, x).numpy(), abs=1e-5)


# --- bad input -------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named():
    a = mlp(0).state_dict()
    with pytest.raises(rk.InputError, match=r"2\.weight"):
        align(a, mlp(0, (6, 24, 20, 1)).state_dict())
    with pytest.raises(rk.InputError, match=r"4\.bias.*not in model"):
        align(a, {k: v for k, v in a.items() if k != "4.bias"})
    with pytest.raises(rk.InputError, match=r"2\.bias of model holds 1 of 24 weights that are NaN"):
        align(a, {**a, "2.bias": torch.where(torch.arange(24) == 3, torch.nan, a["2.bias"])})
    with pytest.raises(rk.InputError, match="restarts=0"):
        align(a, a, restarts=0)


def test_an_unknown_architecture_is_not_guessed():
    state = transformer("Llama")[0].state_dict()
    with pytest.raises(rk.InputError, match="how many attention heads"):
        align(state, state)
    with pytest.raises(rk.InputError, match=r"q_proj.*24 rows, which 5 units"):
        align(state, state, heads=5)
    with pytest.raises(rk.InputError, match=r"not known: 'model.layers.0.adapter.weight'"):
        symmetries_of({**state, "model.layers.0.adapter.weight": torch.zeros(2, 2)}, 2)
    with pytest.raises(rk.InputError, match="does not follow a layer of 8 units"):
        symmetries_of({"0.weight": torch.zeros(8, 3), "1.weight": torch.zeros(2, 9)})
    with pytest.raises(rk.InputError, match="no two weights"):
        symmetries_of({"0.weight": torch.zeros(8, 3)})
    with pytest.raises(rk.InputError, match=r"'conv.weight' of shape .* has no place"):
        symmetries_of(
            {"0.weight": torch.zeros(8, 3), "1.weight": torch.zeros(2, 8), "conv.weight": torch.zeros(2, 2, 2)}
        )


def test_symmetries_of_ones_own_are_checked():
    state = {"up": torch.randn(8, 3), "down": torch.randn(2, 8)}
    mine = Symmetries({"up": ("hidden", None), "down": (None, "hidden")}, {"hidden": 8})
    assert align(state, shuffled(state, mine, seed=1), symmetries=mine).distance == 0
    with pytest.raises(rk.InputError, match="'hidden' is on one tensor alone"):
        align(state, state, symmetries=Symmetries({"up": ("hidden", None), "down": (None, None)}, {"hidden": 8}))
    with pytest.raises(rk.InputError, match="tensor 'down' has 2 axes and groups for none"):
        align(state, state, symmetries=Symmetries({"up": ("hidden", None)}, {"hidden": 8}))
