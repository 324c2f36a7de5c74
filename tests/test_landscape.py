"""Paths, barriers, profiles and probes, on landscapes whose shape is known."""

from __future__ import annotations

import numpy as np
import pytest

import ratekit as rk
from ratekit.merging import (
    Estimate,
    barrier,
    bezier,
    connectivity,
    convexity,
    determinism,
    directedness,
    direction,
    effect_metric,
    line,
    nonlinearity,
    profile,
)
from ratekit.simulate import TextWorld

torch = pytest.importorskip("torch")


def at(*values, dtype=torch.float64):
    return {"w": torch.tensor(values, dtype=dtype)}


def ring(state):
    """A circular valley of radius 1: low everywhere on the circle, a hill of height 1 in the middle."""
    return (state["w"].square().sum() - 1) ** 2


def height(state):
    return float(ring(state))


# --- paths -----------------------------------------------------------------------------------------------


def test_ends_are_the_models_themselves_bit_by_bit():
    generator = torch.Generator().manual_seed(0)
    a, b = ({"w": torch.randn(50, generator=generator), "n": torch.tensor([3])} for _ in range(2))
    for path in (line(a, b), bezier(a, b, lambda s: s["w"].square().sum(), steps=3), direction(a, tuned=b, base=a)):
        assert torch.equal(path(0.0)["w"], a["w"])
        assert torch.equal(path(0.0)["n"], a["n"])
    for path in (line(a, b), bezier(a, b, lambda s: s["w"].square().sum(), steps=3)):
        assert torch.equal(path(1.0)["w"], b["w"])


def test_a_line_goes_on_beyond_its_ends_and_a_direction_adds_what_was_learned():
    assert line(at(1.0), at(2.0))(-1.0)["w"].item() == 0.0
    assert direction(at(10.0), tuned=at(5.0), base=at(3.0))(-2.0)["w"].item() == pytest.approx(6.0)


def test_a_bezier_curve_is_the_formula_and_goes_around_the_hill():
    a, b = at(-1.0, 0.05), at(1.0, 0.05)
    curve = bezier(a, b, ring, steps=400, rate=0.02)
    mid = 0.3**2 * 0 + sum(w * s["w"] for w, s in zip((0.7**2, 2 * 0.3 * 0.7, 0.3**2), (a, curve.bend, b), strict=True))
    assert torch.allclose(curve(0.3)["w"], mid)
    assert barrier(a, b, height) > 0.9
    # A quadratic curve cannot follow a circle: the best it can do is about 0.03.
    assert barrier(a, b, height, path=curve) < 0.08


def test_a_curve_that_came_out_worse_is_not_the_best():
    a, b = at(-1.0, 0.05), at(1.0, 0.05)
    good = connectivity(a, b, height, train_loss=ring, aligned=False, steps=300, rate=0.02)
    assert good.best.name == "curve"
    bad = connectivity(a, b, height, train_loss=lambda s: (s["w"] - 9).square().sum(), aligned=False, rate=0.05)
    assert bad.best.name == "line"
    assert bad.table.set_index("path").loc["curve", "barrier"] > bad.table.set_index("path").loc["line", "barrier"]


def test_an_aligned_path_has_no_barrier_where_the_units_only_stand_otherwise():
    from ratekit.merging.symmetries import shuffled, symmetries_of

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    x = torch.randn(100, 4)
    y = net(x).detach()
    loss = lambda s: float((torch.func.functional_call(net, dict(s), (x,)) - y).square().mean() / y.var())  # noqa: E731
    state = net.state_dict()
    found = connectivity(state, shuffled(state, symmetries_of(state), 2), loss).table.set_index("path")
    assert found.loc["line", "barrier"] > 0.05
    assert found.loc["aligned line", "barrier"] == pytest.approx(0, abs=1e-12)
    assert found["end_shift"].abs().max() < 1e-10


# --- along a path ----------------------------------------------------------------------------------------


def test_barriers_of_known_hills():
    assert barrier(at(-1.0, 0.0), at(1.0, 0.0), height) == 1.0
    assert barrier(at(0.0, 1.0), at(0.0, 1.0), height) == 0.0
    assert barrier(at(-1.0), at(2.0), lambda s: float(s["w"] ** 2)) == 0.0  # convex: below its chord
    tilted = lambda s: height(s) + 5 * float(s["w"][0])  # noqa: E731  (a slope between the ends is no barrier)
    assert barrier(at(-1.0, 0.0), at(1.0, 0.0), tilted) == pytest.approx(1.0)


FEATURES = ("good", "great", "awful", "The", "packaging", "is")


def linear_reward(state):
    """A reward that is linear in its weights, over counts of words."""

    def reward(prompts, responses):
        counts = [[r.count(f) for f in FEATURES] + [len(r.split())] for r in responses]
        return np.array(counts, float) @ state["w"].numpy()

    return reward


def test_a_linear_reward_has_its_effect_exactly_on_the_chord():
    ds = TextWorld("length", confounder="sentiment").sample(60, seed=1).dataset(depth=2)
    rng = np.random.default_rng(0)
    a, b = (at(*rng.normal(size=len(FEATURES) + 1)) for _ in range(2))
    raw = effect_metric(linear_reward, ds, "length", unit="reward")
    rise = abs(raw(b) - raw(a))
    assert rise > 0.1
    assert nonlinearity(a, b, raw) == pytest.approx(0, abs=1e-12 * rise)
    in_sd = effect_metric(linear_reward, ds, "length")  # the control: the SD along the path is not linear
    assert abs(nonlinearity(a, b, in_sd)) > 1e-3


def test_a_profile_holds_values_intervals_and_chords():
    ds = TextWorld("length").sample(40, seed=1).dataset(depth=2)
    a, b = at(*[0.0] * 6, 1.0), at(*[1.0] * 6, 3.0)
    metrics = {
        "effect": effect_metric(linear_reward, ds, "length", unit="reward"),
        "norm": lambda s: float(s["w"].norm()),
    }
    table = profile(line(a, b), metrics, ts=[0.0, 0.5, 1.0])
    assert list(table.columns) == ["t", "metric", "value", "se", "ci_low", "ci_high", "chord"]
    assert len(table) == 6
    effect = table[table["metric"] == "effect"]
    assert (effect["ci_low"] < effect["value"]).all()
    assert (effect["value"] < effect["ci_high"]).all()
    ds_mid = rk.score(ds, linear_reward(line(a, b)(0.5)), name="mid", progress=False)
    ours = rk.estimate(ds_mid).query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    assert effect.iloc[1][["value", "se", "ci_low", "ci_high"]].tolist() == pytest.approx(
        ours[["estimate", "se", "ci_low", "ci_high"]].tolist()
    )
    assert effect["chord"].to_numpy() == pytest.approx(effect["value"].to_numpy())
    assert table[table["metric"] == "norm"]["se"].isna().all()


def test_an_instrument_is_called_once_a_point():
    calls = []

    def instrument(state):
        calls.append(float(state["w"]))
        return {"a": Estimate(1.0, 0.1, 0.8, 1.2, 5), "b": Estimate(2.0, 0.1, 1.8, 2.2, 5)}

    table = profile(line(at(0.0), at(1.0)), instrument, ts=3)
    assert calls == [0.0, 0.5, 1.0]
    assert table["metric"].tolist() == ["a", "b"] * 3


# --- probes ----------------------------------------------------------------------------------------------


def test_a_quadratic_is_convex_and_a_hill_is_not():
    rng = np.random.default_rng(0)
    models = [at(*rng.normal(size=4)) for _ in range(5)]
    quadratic = lambda s: float((s["w"] ** 2 * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum())  # noqa: E731
    found = convexity(models, quadratic, n=50)
    assert found.worst <= 0
    assert len(found.gaps) == 50
    assert convexity(models, lambda s: -quadratic(s)).worst > 0
    flat = convexity(models, lambda s: float(s["w"].sum()))
    assert np.abs(flat.gaps).max() < 1e-12


def test_the_step_at_which_the_mode_is_decided():
    def run(step, seed):  # before step 20 the order of data decides the side; later runs end nearby
        side = 1.0 if step >= 20 else (-1.0) ** seed
        return at(side + 0.01 * seed, 0.0)

    found = determinism(run, [40, 0, 10, 20], height, runs=(0, 1, 2))
    assert found.decided_at == 20.0
    assert len(found.table) == 4 * 3
    assert found.table.groupby("step")["barrier"].max().loc[[0, 10]].min() == pytest.approx(1.0, abs=0.05)
    never = determinism(lambda step, seed: at((-1.0) ** seed, 0.0), [0, 5], height)
    assert np.isnan(never.decided_at)


def test_directions_that_govern_and_those_that_do_not():
    n = 400
    base = {"w": torch.zeros(n, dtype=torch.float64)}
    one, two = (torch.eye(n, dtype=torch.float64)[k] for k in (0, 1))
    models = {"a": {"w": 3 * one}, "b": {"w": one}, "c": {"w": two}}
    found = directedness(models, base, lambda s: float(s["w"] @ one), n=20)
    assert found.cosines.loc["a", "b"] == pytest.approx(1)
    assert found.cosines.loc["a", "c"] == pytest.approx(0)
    assert found.first_share == pytest.approx(10 / 11)
    assert found.rise_task == pytest.approx(4 / 3)
    assert abs(found.rise_random) < 0.1  # of norm 3, 1, 1 in 400 dimensions: SD of the mean about 0.012
    with pytest.raises(rk.InputError, match="b is the base itself"):
        directedness({"a": models["a"], "b": base}, base, height)


# --- bad input -------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named():
    a = at(1.0, 2.0)
    with pytest.raises(rk.InputError, match=r"w is \(2,\) in start and \(3,\) in end"):
        line(a, at(1.0, 2.0, 3.0))
    with pytest.raises(rk.InputError, match="v is in end and not in start"):
        barrier(a, {**a, "v": torch.zeros(1)}, height)
    with pytest.raises(rk.InputError, match="w of end holds 1 of 2 weights that are NaN"):
        bezier(a, at(1.0, float("nan")), ring)
    with pytest.raises(rk.InputError, match=r"w is \(2,\) in model and \(1,\) in base"):
        direction(a, tuned=a, base=at(1.0))
    with pytest.raises(rk.InputError, match="in increasing order"):
        profile(line(a, a), {"h": height}, ts=[1.0, 0.0])
    with pytest.raises(rk.InputError, match="a whole number from 3 on"):
        barrier(a, a, height, n=2)
    with pytest.raises(rk.InputError, match="two models at least are needed, not 1"):
        convexity([a], height)
    with pytest.raises(rk.InputError, match="two runs"):
        determinism(lambda step, seed: a, [0], height, runs=[0])


@pytest.mark.parametrize("loss", [lambda s: 3.0, lambda s: s["w"], lambda s: s["w"].detach().sum()])
def test_a_loss_without_a_gradient_is_refused(loss):
    with pytest.raises(rk.InputError, match="one number that can be differentiated"):
        bezier(at(0.0, 1.0), at(1.0, 1.0), loss, steps=5)


def test_a_metric_that_fails_stops_with_its_name():
    def broken(state):
        return float("nan")

    with pytest.raises(rk.WorkError, match="the metric broken is nan"):
        barrier(at(0.0), at(1.0), broken)
    with pytest.raises(rk.WorkError, match="the loss is nan at step 1 of 5"):
        bezier(at(0.0), at(1.0), lambda s: s["w"].sum() * float("nan"), steps=5)
