"""The worlds: their truth is true, their rewriters err as theory says, and the estimators are graded right."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import ratekit as rk
from ratekit.estimators import effects, pooled_sd
from ratekit.simulate import (
    DESIGNS,
    Design,
    Imperfections,
    NumericWorld,
    RuleReward,
    TextWorld,
    calibrate,
    slopes,
    sweep,
)
from ratekit.simulate.reward import _SPELT
from ratekit.simulate.text import OPINION_WORDS, misspell

N = 20_000


def estimates(sample):
    found = effects(sample.rewards, sample.treated, sample.clusters)
    return {(e.estimator, e.estimand): e.estimate for e in found}


def truths(sample):
    w = sample.treated
    return {"ate": sample.effects.mean(), "att": sample.effects[w].mean(), "atu": sample.effects[~w].mean()}


# --- the numeric world -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "world",
    [
        NumericWorld(),
        NumericWorld(effect_gap=0.8, share_treated=0.9),
        NumericWorld(wz=0.5, confounding=0.8),
        NumericWorld(wxi=0.4, xi_gap=1.0, xi_base=-0.5, share_treated=0.2),
    ],
)
def test_closed_form_truth_is_the_mean_of_the_rows_own_effects(world):
    sample = world.sample(400_000, seed=1)
    for estimand, true in world.truth().items():
        assert truths(sample)[estimand] == pytest.approx(true, abs=0.005)


def test_a_perfect_rewriter_makes_rate_exact_row_by_row():
    sample = NumericWorld(xi_gap=1.0, confounding=1.0).sample(N, seed=2)
    s = np.where(sample.treated, 1.0, -1.0)
    # xi is mended by the first pass, so the single rewrite is not exact and RATE is.
    np.testing.assert_allclose(s * (sample.rewards[:, 2] - sample.rewards[:, 1]), sample.effects, atol=1e-12)
    assert abs((s * (sample.rewards[:, 0] - sample.rewards[:, 1])).mean() - sample.effects.mean()) > 0.2


@pytest.mark.parametrize("rho", [0.1, 0.35, 0.5, 0.8])
def test_slow_convergence_biases_rate_by_the_formula_and_extrapolation_not_at_all(rho):
    world = NumericWorld(xi_gap=1.2, xi_base=0.3, xi_weight=-0.5, rewriter=Imperfections(rho=rho))
    sample = world.sample(N, seed=3)
    est, true = estimates(sample), truths(sample)
    # The mean reward loses a rho^k to the residue of class mean a / xi_weight; measured, not assumed:
    w = sample.treated
    residue = {
        side: (sample.rewards[w == side, 0] - sample.rewards[w == side, 2]).mean() / (1 - rho**2) for side in (1, 0)
    }
    assert residue[1] == pytest.approx(-0.6, abs=0.02)
    assert est["rate", "att"] - true["att"] == pytest.approx(residue[1] * rho * (rho - 1), abs=1e-10)
    assert est["rate", "atu"] - true["atu"] == pytest.approx(-residue[0] * rho * (rho - 1), abs=1e-10)
    for estimand in ("ate", "att", "atu"):
        assert est["rate_extrapolated", estimand] == pytest.approx(true[estimand], abs=1e-10)


def test_direction_asymmetry_biases_all_estimands_alike_and_linearly():
    sizes = np.array([0.0, 0.1, 0.2, 0.4])
    for estimand in ("ate", "att", "atu"):
        bias = []
        for d in sizes:
            sample = NumericWorld(xi_weight=0.5, rewriter=Imperfections(asymmetry=d, noise=0.2)).sample(N, seed=4)
            bias.append(estimates(sample)["rate", estimand] - truths(sample)[estimand])
        slope = np.polyfit(sizes, bias, 1)[0]
        assert slope == pytest.approx(0.5, rel=0.05)  # xi_weight: what a unit of polish is worth


def test_leak_and_noncompliance_bias_as_documented():
    leaky = NumericWorld(z_weight=0.8, rewriter=Imperfections(leak=0.25)).sample(200_000, seed=5)
    assert estimates(leaky)["rate", "ate"] - truths(leaky)["ate"] == pytest.approx(0.25 * 0.8, abs=0.01)
    lazy = NumericWorld(effect=1.0, rewriter=Imperfections(noncompliance=0.2)).sample(200_000, seed=6)
    assert estimates(lazy)["rate", "ate"] == pytest.approx(1.0 * (1 - 0.2) ** 2, abs=0.01)


def test_loss_for_good_beside_another_rho_breaks_the_extrapolation():
    sample = NumericWorld(xi_gap=2.0, richness=3.0, rewriter=Imperfections(rho=0.5, loss=0.05)).sample(N, seed=7)
    assert abs(estimates(sample)["rate_extrapolated", "att"] - truths(sample)["att"]) > 0.02


def test_the_seed_decides_everything_and_a_generator_may_stand_in():
    world = NumericWorld(cluster_sizes=(1, 5), heavy_tails=True, rewriter=Imperfections(noise=0.3))
    a, b, c = world.sample(50, seed=1), world.sample(50, seed=1), world.sample(50, seed=2)
    np.testing.assert_array_equal(a.rewards, b.rewards)
    assert not np.array_equal(a.rewards, c.rewards)
    np.testing.assert_array_equal(world.sample(50, np.random.default_rng(1)).rewards, a.rewards)


def test_confounding_clusters_and_depth_are_what_was_asked_for():
    sample = NumericWorld(cluster_sizes=(3, 3), share_treated=0.9).sample(30_000, seed=1, depth=2)
    assert sample.rewards.shape == (30_000, 3)
    assert set(np.bincount(sample.clusters)) == {3}
    assert sample.treated.mean() == pytest.approx(0.9, abs=0.01)
    # naive is biased by z_weight * confounding: P(Z=1|W=1) - P(Z=1|W=0) is the correlation.
    sample = NumericWorld(z_weight=1.0, confounding=0.6).sample(300_000, seed=2, depth=2)
    assert estimates(sample)["naive", "ate"] - truths(sample)["ate"] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Imperfections(rho=1.5),
        lambda: Imperfections(noise=-1),
        lambda: Imperfections(asymmetry=float("nan")),
        lambda: NumericWorld(share_treated=1.0),
        lambda: NumericWorld(cluster_sizes=(0, 2)),
        lambda: NumericWorld().sample(0),
        lambda: NumericWorld().but(rhoo=1),
        lambda: TextWorld("lenght"),
        lambda: TextWorld("length", "length"),
        lambda: TextWorld(typos=(0.1, 2.0)),
        lambda: TextWorld(rewriter=Imperfections(asymmetry=2.0)),
        lambda: TextWorld().sample(1),
        lambda: TextWorld().sample(5).chains(8),
        lambda: sweep("vowel-typo", RuleReward()),
        lambda: calibrate(3),
    ],
)
def test_a_wrong_parameter_is_refused(make):
    with pytest.raises(rk.InputError):
        make()


# --- the text world --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["length", "sentiment", "starts-with-vowel", "helpfulness", "complexity"])
def test_twins_differ_in_the_attribute_alone_and_twice_is_home(attribute):
    sample = TextWorld(attribute, typos=(0.1, 0.2), markup=(0.3, 0.1)).sample(40, seed=1)
    for x, text, twin in zip(sample.latents, sample.responses, sample.twins, strict=True):
        other = x.with_side(attribute, not x.on(attribute))
        assert other.with_side(attribute, x.on(attribute)) == x
        assert sample.render(other) == twin != text
        assert sum(a != b for a, b in zip(x.sides, other.sides, strict=True)) == 1
    if attribute == "starts-with-vowel":  # but for the first word they are letter for letter the same
        assert all(
            a.split(" ", 1)[1] == b.split(" ", 1)[1] for a, b in zip(sample.responses, sample.twins, strict=True)
        )


@pytest.mark.parametrize("attribute", ["length", "sentiment", "starts-with-vowel", "helpfulness", "complexity"])
def test_a_perfect_rewriter_of_clean_texts_writes_the_true_twin(attribute):
    sample = TextWorld(attribute, typos=(0.0, 0.0), rewriter=Imperfections()).sample(30, seed=2)
    for text, twin, chain in zip(sample.responses, sample.twins, sample.chains(3), strict=True):
        assert chain == [twin, text, twin]


def test_rate_finds_the_truth_of_any_reward_where_the_rewriter_is_perfect():
    def hashed(prompts, responses):  # no structure at all: nothing about the reward is assumed
        return np.array([zlib.crc32(t.encode()) % 1000 for t in responses], float)

    world = TextWorld("sentiment", "length", typos=(0.0, 0.0), rewriter=Imperfections())
    table = calibrate(hashed, world, n=200).set_index(["estimator", "estimand"])
    for key in (("rate", "ate"), ("rate", "att"), ("single_rewrite", "atu")):
        assert table.loc[key, "estimate"] == pytest.approx(table.loc[key, "truth"])
        assert table.loc[key, "covers"]


def test_typos_are_typos_and_a_pass_leaves_the_share_rho_of_them():
    assert all(misspell(w) not in _SPELT for w in _SPELT if len(w) > 2 and w not in OPINION_WORDS)
    count = RuleReward(words=0, sentiment=0, typos=1.0, markup=0, vowel=0, extras=0, complexity=0)
    world = TextWorld("starts-with-vowel", typos=(0.3, 0.3), rewriter=Imperfections(rho=0.4))
    sample = world.sample(400, seed=3)
    chains = sample.chains(3)
    by_pass = [count([], texts).mean() for texts in (sample.responses, *zip(*chains, strict=True))]
    for k in range(3):
        assert by_pass[k + 1] / by_pass[k] == pytest.approx(0.4, abs=0.05)


def test_the_rewriter_is_the_same_through_the_pipeline():
    sample = TextWorld("length", typos=(0.1, 0.1), rewriter=Imperfections(rho=0.5, noise=0.2)).sample(20, seed=4)
    ds = sample.dataset(depth=3)
    again = rk.rewrite(ds, "length", sample.rewriter(), depth=3, progress=False)
    assert again["rewrites"] == ds["rewrites"] == sample.chains(3)
    assert sample.rewriter()(["never seen"], [True]) == [(None, "failed")]


def test_the_knobs_of_the_text_world_bias_as_in_the_numeric_one():
    reward = RuleReward(typos=0, vowel=0)
    polished = TextWorld("sentiment", typos=(0, 0), rewriter=Imperfections(asymmetry=0.5))
    row = calibrate(reward, polished, n=400).set_index(["estimator", "estimand"]).loc["rate", "ate"]
    words = 5  # "This concludes the present review."
    assert row["bias"] == pytest.approx(0.5 * (reward.extras + words * reward.words), abs=0.03)
    lazy = TextWorld("sentiment", typos=(0, 0), rewriter=Imperfections(noncompliance=0.2))
    row = calibrate(reward, lazy, n=600).set_index(["estimator", "estimand"]).loc["rate", "ate"]
    assert row["estimate"] == pytest.approx(0.64 * row["truth"], abs=0.05)
    leaky = TextWorld("starts-with-vowel", "sentiment", typos=(0, 0), rewriter=Imperfections(leak=0.3))
    row = calibrate(RuleReward(typos=0), leaky, n=600).set_index(["estimator", "estimand"]).loc["rate", "ate"]
    assert row["bias"] == pytest.approx(0.3 * 2 * RuleReward().sentiment, abs=0.05)


def test_calibrate_tells_who_is_right():
    table = calibrate(RuleReward(), TextWorld("starts-with-vowel", typos=(0.0, 0.3)), n=400)
    ate = table[table.estimand == "ate"].set_index("estimator")
    assert not ate.loc["naive", "covers"]
    assert not ate.loc["single_rewrite", "covers"]
    assert ate.loc["rate_extrapolated", "covers"]
    assert ate.loc["rate", "bias_p"] < 1e-6 < ate.loc["rate_extrapolated", "bias_p"]
    assert ate.loc["rate", "truth"] == pytest.approx(RuleReward().vowel, abs=0.01)


def test_calibrate_takes_names_and_keeps_the_scales_of_the_reward():
    table = calibrate("words", TextWorld("length"), n=60)
    assert set(table["reward_model"]) == {"words"}
    sample = TextWorld("length").sample(60)
    rewards = np.array([len(t.split()) for t in sample.responses], float)
    assert table["reward_sd"].iloc[0] == pytest.approx(pooled_sd(rewards, sample.treated))


def test_calibrate_of_a_reward_that_fails_somewhere_claims_no_bias():
    def picky(prompts, responses):
        return np.array([np.nan if len(t) > 600 else float(len(t)) for t in responses])

    table = calibrate(picky, TextWorld("length"), n=80)
    assert table["bias"].isna().any()
    assert (table["n"] < 80).any()


@pytest.mark.parametrize("design", DESIGNS)
def test_sweeps_have_their_shape(design):
    """Naive follows the confounding, a single rewrite drifts, RATE keeps rho = 0.15 of that, extrapolated least."""
    found = slopes(sweep(design, RuleReward(), n=60)).set_index("estimator")["excess"]
    size = found.abs()
    assert size["naive"] > 2 * size["single_rewrite"] > 0.2
    assert size["rate"] <= size["single_rewrite"] / 3
    assert found["rate"] * found["single_rewrite"] < 0  # the residue has the other sign
    assert size["rate_extrapolated"] <= size["rate"] / 2


def test_content_that_the_rewriter_leaves_alone_moves_only_naive():
    careful = Design("none", (0.0, 0.5, 1.0), lambda x: TextWorld("length", "sentiment", confounding=x))
    found = slopes(sweep(careful, RuleReward(), n=120)).set_index("estimator")
    assert found.loc["naive", "slope"] > 1
    assert found.loc[["single_rewrite", "rate", "rate_extrapolated"], "slope"].abs().max() < 0.02
    assert found["truth_slope"].abs().max() < 1e-9


def test_carelessness_goes_with_the_confounder():
    world = TextWorld("length", "sentiment", confounding=0.0, typos=(0.0, 0.0), careless=(0.0, 0.3))
    sample = world.sample(200, seed=0)
    typos = RuleReward(words=0, sentiment=0, typos=1, markup=0, vowel=0, extras=0, complexity=0)(None, sample.responses)
    positive = np.array([x.on("sentiment") for x in sample.latents])
    assert typos[~positive].max() == 0
    assert typos[positive].mean() > 0.1


def test_a_sweep_compares_the_same_reviews():
    design = DESIGNS["vowel-typos"]
    first, last = (design.world(x).sample(30, seed=1) for x in (0.0, 0.3))
    untreated = ~first.treated
    assert np.array_equal(first.treated, last.treated)
    assert [t for t, u in zip(first.responses, untreated, strict=True) if u] == [
        t for t, u in zip(last.responses, untreated, strict=True) if u
    ]
