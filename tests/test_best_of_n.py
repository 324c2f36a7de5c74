"""Reach: best of N against brute force and theory; three regimes with one audit told apart; wrong calls refused."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

import ratekit as rk
from ratekit.best_of_n import _effect, _growth, _pressed, _regime, _Spread, best_of, tilted

sys.path.insert(0, str(ROOT / "experiments"))
from gate_reach import REWARDS, an_audit, brute_force, policy, reached, regimes  # experiments/gate_reach.py


def by_brute_force(a, r, n):
    """The mean over every draw of n responses of `a` of the best, equal rewards sharing."""
    found = []
    for drawn in itertools.combinations(range(len(r)), n):
        top = max(r[i] for i in drawn)
        tied = [a[i] for i in range(len(r)) if r[i] == top]
        found.append(np.mean(tied))
    return np.mean(found)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_best_of_n_is_that_of_every_draw(n, ties):
    rng = np.random.default_rng(n)
    prompts = np.repeat([0, 1, 2], [7, 9, n - 1])
    r = rng.integers(0, 4, len(prompts)).astype(float) if ties else rng.normal(size=len(prompts))
    a = rng.normal(size=len(prompts))
    mixed = rng.permutation(len(prompts))
    found = best_of(a[mixed], r[mixed], prompts[mixed], n)
    for g in (0, 1):
        assert found[g] == pytest.approx(by_brute_force(a[prompts == g], r[prompts == g], n))
    assert np.isnan(found[2])  # fewer than n responses


def test_best_of_n_and_the_tilted_policy_of_normal_rewards():
    """Best of N: rho E[max of N normals]; the tilted policy at its divergence: rho sqrt(2 KL)."""
    rng = np.random.default_rng(0)
    expected_max = {2: 1 / math.sqrt(math.pi), 4: 1.0294, 16: 1.7660}
    for m, n, few in ((16, 4, 0.10), (64, 16, 0.05)):
        prompts = np.repeat(np.arange(1500), m)
        r = rng.normal(size=len(prompts))
        a = 0.6 * r + 0.8 * rng.normal(size=len(prompts))
        assert best_of(a, r, prompts, n).mean() == pytest.approx(0.6 * expected_max[n], rel=0.02)
        kl = math.log(n) - (n - 1) / n
        shift, true = tilted(a, r, prompts, kl).mean(), 0.6 * math.sqrt(2 * kl)
        assert (1 - few) * true < shift < 1.01 * true


def test_shifts_carry_the_influence_of_the_sd_by_prompt():
    """Pooled variance v over n - G; a prompt's influence on it is (its squares - (n_g - 1) v) G / (n - G)."""
    a, prompts = np.array([1.0, 3, 0, 1, 5, 2, 2, 4, 8]), np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    spread = _Spread(a, prompts)
    squares = np.array([2.0, 14.0, 24.0])
    v = 40 / 6
    assert spread.sd == pytest.approx(math.sqrt(v))
    influence = (squares - np.array([1, 2, 3]) * v) * 3 / 6
    shifts = np.array([0.5, np.nan, -0.3])
    used = influence - influence[[0, 2]].mean()
    np.testing.assert_allclose(
        spread.standardized(shifts), shifts / math.sqrt(v) - 0.1 / (2 * v**1.5) * used, rtol=1e-9
    )
    assert _Spread(np.array([1.0, 2.0]), np.array([0, 1])).sd == 0


def test_growth_is_away_from_zero_and_at_the_level_of_all_tests():
    old, new = np.array([1.0, -1.0, np.nan, 2, -2]), np.array([2.0, 1.5, 9.0, -1, 0.5])
    d = (new - old)[[0, 1, 3, 4]]  # means of 0 count as up
    found = _growth(old, new, 0.95, 3)
    half = stats.t.ppf(1 - 0.05 / 3 / 2, 3) * d.std(ddof=1) / 2
    assert found == pytest.approx((d.mean(), d.mean() - half, d.mean() + half))
    assert _growth(old, new, 0.95, 0) == pytest.approx(_growth(old, new, 0.95, 1))
    fell = np.array([-3.0, -2, np.nan, -4, -1])
    assert _growth(old, fell, 0.95, 1).value == pytest.approx(2.5)
    assert _growth(fell, old, 0.95, 1).value == pytest.approx(-2.5)
    assert _growth(fell + 9, 0 * fell + 9, 0.95, 1).value == pytest.approx(2.5)


def test_a_regime_is_of_the_largest_selection_that_both_models_have():
    rng = np.random.default_rng(0)
    chosen = {(m, "length", n): rng.normal(2.0, 0.1, 40) for m in ("old", "new") for n in (2, 4)}
    chosen |= {("old", "length", 8): chosen["old", "length", 4], ("new", "tone", 8): chosen["new", "length", 4]}
    assert _regime("length", ["length"], chosen, "old", "new", 100, 0.1, 0.95).n == 4


def test_each_reward_model_stands_beside_its_own_effect():
    audit = rk.Audit.of(an_audit())
    table = audit.effects[audit.effects["recommended"]].set_index("reward_model")["estimate_sd"]
    assert table.nunique() > 1
    assert {name: _effect(audit, "length", name) for name in REWARDS} == table.to_dict()
    assert math.isnan(_effect(audit, "tone", "before"))


def test_no_weights_reach_a_divergence_beyond_that_of_the_best_response():
    a = np.arange(4.0)
    assert tilted(a, a, np.zeros(4, int), math.log(4) - 1e-3) is not None
    assert tilted(a, a, np.zeros(4, int), math.log(4) + 1e-3) is None
    assert tilted(a, np.zeros(4), np.zeros(4, int), 0.1) is None


def test_a_prompt_counts_in_the_tilted_policy_by_its_influence_on_the_divergence():
    """What one more copy of a prompt moves the mean by, with the divergence held, is the gap of the two values."""
    rng = np.random.default_rng(2)
    a, r, prompts = rng.normal(size=12), rng.normal(size=12) * np.repeat([1.0, 3.0], 6), np.repeat([0, 1], 6)
    values = tilted(a, r, prompts, 0.2)

    def mean_of(copies):
        of = np.repeat([0, 1], copies)
        rows = [np.flatnonzero(prompts == k) for k in of]
        return tilted(a[np.concatenate(rows)], r[np.concatenate(rows)], np.repeat(np.arange(len(of)), 6), 0.2).mean()

    assert mean_of([200, 200]) == pytest.approx(values.mean())
    gap = (mean_of([201, 200]) - mean_of([199, 200])) / (201 / 401 - 199 / 399)
    assert values[0] - values[1] == pytest.approx(gap, rel=1e-3)


def test_pressure_moves_the_mean_from_that_of_all_responses():
    a, prompts = np.array([1.0, 2, 3, 4, 5, 6, 7, 9] * 2), np.repeat([0, 1], 8)
    r = np.concatenate([np.arange(8.0), -np.arange(8.0)])
    found = {kind: values for kind, n, values in _pressed(a, r, prompts, [2])}
    assert found["best-of-n"] == pytest.approx(best_of(a, r, prompts, 2) - 37 / 8)
    assert found["kl"] == pytest.approx(tilted(a, r, prompts, math.log(2) - 1 / 2) - 37 / 8)


# --- three regimes: experiments/gate_reach.py ---------------------------------------------------------------


def test_one_audit_and_three_regimes():
    audit = rk.Audit.of(an_audit())
    after = audit.effects[audit.effects["reward_model"] != "before"].drop(columns="reward_model")
    parts = [part.reset_index(drop=True) for _, part in after.groupby(audit.effects["reward_model"], sort=False)]
    assert len(parts) == 3
    for part in parts[1:]:
        pd.testing.assert_frame_equal(part, parts[0])  # the audit cannot tell them apart
    found = regimes(0, audit, ("mitigated", "substituted", "overcorrected", "before"))
    assert {name: r.word for name, r in found.items()} == {
        "mitigated": "mitigated", "substituted": "substituted", "overcorrected": "overcorrected",
        "before": "not mitigated",
    }  # fmt: skip
    assert found["substituted"].moved_to == ("flattery",)
    assert "best of 8 moves it by" in found["substituted"].text


@pytest.mark.slow
def test_regimes_told_apart_in_200_draws():
    audit = rk.Audit.of(an_audit())
    right = [all(r.word == name for name, r in regimes(seed, audit).items()) for seed in range(200)]
    assert np.mean(right) >= 0.95


def test_few_prompts_cannot_tell():
    samples = policy(1, prompts=6)
    found = rk.reach(an_audit(), samples, before="before", after="mitigated", sizes=[16]).regimes[0]
    assert found.word == "cannot tell"
    assert "more prompts would tell" in found.text


@pytest.mark.slow
def test_the_intervals_cover_and_are_of_standard_deviations():
    """60 draws of 60 prompts: the 95 % interval of a shift in SDs holds what 10,000 prompts give by brute force."""
    audit = rk.Audit.of(an_audit())
    true = brute_force(10_000, 4)["before"]["length"]
    held = 0
    for seed in range(60):
        row = reached(policy(seed, prompts=60, m=8), audit, "mitigated", 4).table
        row = row.query("attribute == 'length' and reward_model == 'before' and pressure == 'best-of-n'").iloc[0]
        held += row["ci_low"] <= true <= row["ci_high"]
    assert held >= 52  # 57 expected; P(< 52) is under 1 % at 95 %


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (lambda s: s.drop_duplicates("prompt_id"), {}, "no prompt has two responses"),
        (lambda s: s[["prompt_id", "response"]], {}, "no rewards"),
        (lambda s: s, {"before": "before"}, "both or neither"),
        (lambda s: s, {"before": "before", "after": "mitigatde"}, "did you mean 'mitigated'"),
        (lambda s: s, {"sizes": [1]}, "sizes from 2"),
    ],
)
def test_a_wrong_call_is_one_line(change, asked, message):
    with pytest.raises(rk.InputError, match=message) as e:
        rk.reach(an_audit(), change(policy(0, prompts=4, m=4)), **asked)
    assert "\n" not in str(e.value)


def test_what_cannot_be_had_is_said():
    found = rk.reach(an_audit(), policy(0, prompts=4, m=4))
    assert "best of 8: no two prompts have 8 responses" in found.left_out
    assert set(found.table["best_of"]) == {2, 4}
    assert set(zip(found.table["best_of"], found.table["kl"], strict=True)) == {
        (2, math.log(2) - 1 / 2), (4, math.log(4) - 3 / 4)
    }  # fmt: skip
    assert "best of 8" in repr(found)
    lost = policy(0, prompts=5, m=4)
    lost.loc[0, "reward/before"] = None
    few = rk.reach(an_audit(), lost, sizes=[4]).table.set_index(["reward_model", "attribute"])["n_prompts"]
    assert (few["before", "length"], few["mitigated", "length"]) == (4, 5)
    two = rk.reach(an_audit(), policy(0, prompts=2, m=4), sizes=[4, 5])
    assert list(two.left_out) == ["best of 5: no two prompts have 5 responses"]
