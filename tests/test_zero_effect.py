"""The zero of an effect along a path: the root, its interval, and what it is worth on held-out prompts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ratekit as rk
from ratekit.estimators import clustered_mean
from ratekit.merging import Estimate, accuracy_metric, direction, effect_metric, zero_effect
from ratekit.simulate import TextWorld

torch = pytest.importorskip("torch")


class Drawn:
    """An effect whose row values are a + b t: a metric over `{"t": t}`, with the t interval of a mean."""

    def __init__(self, a, b):
        self.a, self.b, self.calls = np.asarray(a, float), np.asarray(b, float), 0

    def estimate(self, state):
        self.calls += 1
        values = self.a + self.b * state["t"]
        mean = clustered_mean(values, np.arange(len(values)))
        low, high, _ = mean.interval()
        return Estimate(mean.value, mean.se, low, high, mean.n_clusters)

    def __call__(self, state):
        return self.estimate(state).value


def path(t):
    return {"t": t}


def fieller(a, b, level=0.95):
    """The roots of mean(a + b t)^2 = t_crit^2 var(a + b t) / n: the interval by a formula (Fieller 1954)."""
    n = len(a)
    crit = stats.t.ppf(0.5 + level / 2, n - 1) ** 2 / n
    cov = np.cov(a, b)
    return np.sort(
        np.roots([
            b.mean() ** 2 - crit * cov[1, 1],
            2 * (a.mean() * b.mean() - crit * cov[0, 1]),
            a.mean() ** 2 - crit * cov[0, 0],
        ])
    )  # fmt: skip


def test_on_a_line_it_is_fiellers_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(-0.4, 1, 300), rng.normal(1, 1.5, 300)
    metric = Drawn(a, b)
    found = zero_effect(path, metric, tolerance=1e-6)
    assert found.coefficient == pytest.approx(-a.mean() / b.mean(), abs=1e-5)
    assert [found.ci_low, found.ci_high] == pytest.approx(fieller(a, b), abs=1e-5)
    assert not found.open_low
    assert not found.open_high
    assert abs(found.effect.value) < 1e-5
    assert found.effect.ci_low < 0 < found.effect.ci_high
    assert metric.calls == len(found.table) < 60, "no point is measured twice"


def test_its_interval_covers_the_true_zero_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        a, b = rng.normal(-0.5, 1, 80), rng.normal(1, 0.5, 80)  # the effect's true zero is at 0.5
        found = zero_effect(path, Drawn(a, b), within=(-1.0, 2.0), grid=5)
        covered += found.ci_low <= 0.5 <= found.ci_high
    assert 0.92 < covered / 400 < 0.98  # 0.95 and three Monte Carlo SEs of 0.011


def test_the_nearest_of_several_zeros_is_taken():
    cubic = lambda s: (s["t"] + 0.71) * (s["t"] - 0.33) * (s["t"] - 0.9)  # noqa: E731
    found = zero_effect(path, cubic, within=(-1.0, 1.0), grid=21, tolerance=1e-8)
    assert found.coefficient == pytest.approx(0.33)
    assert found.n_roots == 3
    assert "nearest to 0 of 3 roots" in found.statement
    assert np.isnan(found.ci_low), "a plain number has no interval"


def test_a_zero_on_the_grid_is_seen():
    found = zero_effect(path, lambda s: s["t"] - 0.5, grid=5)
    assert found.coefficient == 0.5
    assert found.n_roots == 1
    assert "roots" not in found.statement


def test_no_zero_is_said_plainly():
    found = zero_effect(path, Drawn([1.0, 1.2, 0.9], [1.0, 1.0, 1.0]), accuracy=lambda s: 0.8 - s["t"])
    assert np.isnan(found.coefficient)
    assert found.n_roots == 0
    assert not found.open_low
    assert not found.open_high
    assert found.statement.startswith("No zero between t = 0 and 1: the effect goes from +1.03 to +2.03")
    assert "nearest, +1.03, at t = 0" in found.statement
    assert found.accuracy_before == 0.8
    assert np.isnan(found.accuracy)
    assert np.isnan(found.accuracy_lost)


def test_an_interval_that_goes_on_beyond_the_range_says_so():
    rng = np.random.default_rng(2)
    found = zero_effect(path, Drawn(rng.normal(-0.1, 1, 20), rng.normal(0.2, 1, 20)), within=(-1, 1))
    assert found.open_high
    assert found.open_low
    assert "(interval beyond -1.000 to beyond 1.000)" in found.statement


def test_an_interval_cut_by_the_range_is_open_on_that_side_alone():
    rng = np.random.default_rng(5)
    a, b = rng.normal(-0.3, 1, 200), rng.normal(0.6, 0.3, 200)
    low, high = fieller(a, b)
    found = zero_effect(path, Drawn(a, b), within=(low + 0.1, 3.0), grid=3)  # three points are enough
    assert (found.open_low, found.open_high) == (True, False)
    assert (found.ci_low, found.ci_high) == (low + 0.1, pytest.approx(high, abs=1e-3))
    assert f"(interval beyond {low + 0.1:.3f} to {found.ci_high:.3f})" in found.statement


def test_an_effect_known_exactly_has_a_point_for_an_interval():
    exact = Drawn(np.full(50, -0.25) + np.linspace(-1, 1, 50) * 1e-9, np.ones(50))
    found = zero_effect(path, exact, tolerance=1e-3)
    assert found.coefficient == pytest.approx(0.25, abs=1e-3)
    assert found.ci_low == pytest.approx(0.25, abs=2e-3)
    assert found.ci_high == pytest.approx(0.25, abs=2e-3)


# --- a reward model debiased -----------------------------------------------------------------------------

FEATURES = ("good", "great", "lovely", "superb", "awful", "terrible", "odd", "ugly")


def reward_of(state):
    """Good words less bad ones, and so much for every word, squashed."""

    def reward(prompts, responses):
        counts = np.array([[r.count(f) for f in FEATURES] + [len(r.split())] for r in responses], float)
        return np.tanh(counts @ state["w"].numpy() / 10)

    return reward


def weights(words, n_words):
    return {"w": torch.tensor([words] * 4 + [-words] * 4 + [n_words], dtype=torch.float64)}


def test_the_debiased_model_has_no_effect_on_held_out_prompts_and_its_cost_is_stated():
    world = TextWorld("length", confounder="sentiment", rows_per_prompt=2)
    solve_on, held_out = (
        effect_metric(reward_of, world.sample(n, seed=seed).dataset(depth=2), "length")
        for n, seed in ((200, 1), (200, 2))
    )
    judged = TextWorld("sentiment").sample(200, seed=3)
    good = judged.treated
    pairs = [
        {"prompt": "Write a review.", "chosen": a if w else b, "rejected": b if w else a}
        for a, b, w in zip(judged.responses, judged.twins, good, strict=True)
    ]
    biased = weights(1.0, 0.15)
    # The bias of another model, in another size: no fixed multiple of it would do.
    along = direction(biased, tuned=weights(0.9, 0.22), base=weights(1.0, 0.02))
    found = zero_effect(
        along, solve_on, within=(-2.0, 0.0), accuracy=accuracy_metric(reward_of, pairs), held_out=held_out
    )
    before = held_out.estimate(biased)
    assert before.ci_low > 0.3, "there was a bias to begin with"
    assert held_out.estimate(along(-2.0)).ci_high < -0.1, "and the direction overshoots"
    assert found.held_out.ci_low <= 0 <= found.held_out.ci_high
    assert "which holds 0" in found.statement
    assert found.ci_low < found.coefficient < found.ci_high
    assert found.accuracy_lost == pytest.approx(found.accuracy_before - found.accuracy)
    assert f"Accuracy goes from {found.accuracy_before:.3f} to {found.accuracy:.3f}" in found.statement
    assert found.accuracy > 0.9


def test_bad_calls_are_refused():
    for within in ((1.0, 0.0), (0.0, float("inf"))):
        with pytest.raises(rk.InputError, match="within="):
            zero_effect(path, lambda s: s["t"], within=within)
    with pytest.raises(rk.InputError, match="grid=2"):
        zero_effect(path, lambda s: s["t"], grid=2)
    with pytest.raises(rk.WorkError, match="is nan on these weights"):
        zero_effect(path, lambda s: float("nan"))
    a = weights(1.0, 0.1)
    with pytest.raises(rk.InputError, match=r"w is \(9,\) in model and \(2,\) in tuned"):
        direction(a, tuned={"w": torch.zeros(2, dtype=torch.float64)}, base=a)
