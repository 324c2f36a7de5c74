"""The geometric estimator, the test of its law, and which estimate is to be read: worlds with a known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import ratekit as rk
from ratekit.estimators import Effects, effects, row_values, t_interval
from ratekit.estimators import rate_geometric as geometric_values
from ratekit.recommendation import Recommendation, _bound, _judged, law, own_drift, recommended, shown
from ratekit.simulate import Imperfections, NumericWorld

CHAIN = NumericWorld(xi_gap=0.5, xi_base=-0.5, effect_sd=0.0, rewriter=Imperfections(rho=0.5, noise=0.3))


def means(world, passes, residue=0.4, rho=0.6, mark=0.0, loss=0.0):
    """Class means of the treated, exactly: an effect of 1, a residue that converges, a mark, a loss with each pass."""
    k = np.arange(passes + 1)
    return 1.0 * (k % 2 == 0) + residue * rho**k + mark * (k > 0) - loss * k + 3.0


def exactly(m, n=40, noise=0.0, seed=0):
    """Rows whose class means are m: treated alone."""
    spread = noise * np.random.default_rng(seed).normal(size=(n, len(m)))
    return m + spread - spread.mean(axis=0)


@pytest.mark.parametrize("passes", [4, 5, 7])
@pytest.mark.parametrize("mark", [0.0, -1.0, 2.0])
def test_it_is_exact_under_its_law_and_free_of_marks_of_the_first_rewrite(passes, mark):
    r = exactly(means(None, passes, mark=mark), noise=1e-4)
    found = effects(r, np.ones(len(r), bool))
    assert found.get("rate_geometric", "att").estimate == pytest.approx(1.0, abs=1e-3)
    assert abs(found.get("rate", "att").estimate - 1) > 0.09  # the control: 0.4 * 0.6 * 0.4
    extrapolated = found.get("rate_extrapolated", "att").estimate
    assert (abs(extrapolated - 1) < 1e-3) == (mark == 0)


@pytest.mark.parametrize("passes", [4, 6])
def test_a_constant_loss_is_removed_exactly(passes):
    r = exactly(means(None, passes, residue=0.0, loss=0.1), noise=1e-5)
    assert effects(r, np.ones(len(r), bool)).get("rate_geometric", "att").estimate == pytest.approx(1.0, abs=1e-4)


def test_at_depth_four_it_is_its_closed_form():
    """(m2 - m1) + (m1 - m3)/(1 + rho), rho = (m2 - m4)/(m1 - m3)."""
    sample = CHAIN.sample(500, seed=1, depth=4)
    r, w = sample.rewards, sample.treated
    found = effects(r, w)
    for side, sign, estimand in ((True, 1, "att"), (False, -1, "atu")):
        m = r[w == side].mean(axis=0)
        rho = (m[2] - m[4]) / (m[1] - m[3])
        assert 0 < rho < 1
        expected = sign * ((m[2] - m[1]) + (m[1] - m[3]) / (1 + rho))
        assert found.get("rate_geometric", estimand).estimate == pytest.approx(expected, rel=1e-9)


def test_with_more_passes_it_is_the_least_squares_fit_given_rho():
    sample = CHAIN.sample(800, seed=2, depth=6)
    r, w = sample.rewards[sample.treated], np.ones(sample.treated.sum(), bool)
    m = r.mean(axis=0)
    drops = m[1:-2] - m[3:]
    rho = drops[1:].sum() / drops[:-1].sum()
    assert 0 < rho < 1
    k = np.arange(1, 7)
    fit = optimize.least_squares(lambda p: p[0] + p[1] * (k % 2 == 0) + p[2] * rho**k - m[1:], [0.0, 0.0, 0.0])
    assert geometric_values(r, w, np.arange(len(r))).mean() == pytest.approx(fit.x[1], abs=1e-6)


def test_its_standard_error_is_that_of_a_jackknife():
    sample = CHAIN.sample(300, seed=3, depth=4)
    r, w = sample.rewards, sample.treated
    e = effects(r, w).get("rate_geometric", "att")
    own = r[w]
    left = [
        geometric_values(np.delete(own, i, axis=0), np.ones(len(own) - 1, bool), np.arange(len(own) - 1)).mean()
        for i in range(len(own))
    ]
    assert e.se == pytest.approx(np.sqrt((len(own) - 1) * np.var(left)), rel=0.05)


def test_no_row_is_dropped_for_a_pass_that_could_be_done_without():
    sample = CHAIN.sample(100, seed=4, depth=6)
    r = sample.rewards.copy()
    r[0, 6] = np.nan
    e = effects(r, sample.treated).get("rate_geometric", "ate")
    assert e.n == 100
    assert e.estimate == effects(r[:, :6], sample.treated).get("rate_geometric", "ate").estimate


def test_row_values_use_the_passes_that_every_row_has():
    r, w = CHAIN.sample(30, seed=4, depth=5)[:2]
    r[0, 5] = np.nan
    for name in ("rate_geometric", "rate_extrapolated"):
        found, whole = (row_values(x, w, np.arange(30), name)[0] for x in (r, r[:, :5]))
        np.testing.assert_array_equal(found, whole)


WORLDS = {
    "rho": CHAIN, "mark -1": CHAIN.but(mark=2.0), "mark +1": CHAIN.but(mark=-2.0),
    "loss": CHAIN.but(rho=0.0, richness=1.0, loss=0.1), "rho and loss": CHAIN.but(rho=0.3, richness=1.0, loss=0.1),
    "nothing to mend": CHAIN.but(xi_gap=0.0, xi_base=0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WORLDS)
def test_its_error_is_within_a_tenth_of_the_best_in_every_world(name):
    rng = np.random.default_rng(6)
    names = ("rate", "rate_extrapolated", "rate_geometric")
    errors = []
    for _ in range(150):
        sample = WORLDS[name].sample(1000, rng, depth=4)
        found = effects(sample.rewards, sample.treated, sample.clusters)
        errors.append([found.get(e, "ate").estimate - 0.5 for e in names])
    rmse = np.sqrt(np.mean(np.square(errors), axis=0))
    assert rmse[2] <= 1.15 * rmse.min()  # 1.1, and what 150 draws leave to chance
    if "mark" in name or name == "loss":
        assert rmse[1] > 1.5 * rmse[2]  # the control: these worlds lead extrapolation astray


# --- the test of the law -----------------------------------------------------------------------------------


def test_the_law_keeps_its_level_and_sees_what_breaks_it():
    rng = np.random.default_rng(7)
    rejected, seen = [], []
    for _ in range(300):
        m = means(None, 4, residue=1.0)
        r = m + 0.3 * rng.normal(size=(200, 5))
        rejected.append(law(r, np.arange(200)) < 0.05)
        r[:, 3] -= 0.3  # a third pass that goes too far
        seen.append(law(r, np.arange(200)) < 0.05)
    assert np.mean(rejected) <= 0.09
    assert np.mean(seen) > 0.9
    assert np.isnan(law(r[:, :4], np.arange(200)))


def test_the_law_is_tested_by_the_delta_method():
    """One product, d_1 d_3 - d_2^2, with gradient (d_3, -2 d_2, d_1): the square of a t with n - 1."""
    r = means(None, 4, residue=1.0) + 0.5 * np.random.default_rng(1).normal(size=(30, 5))
    drops = r[:, :-2] - r[:, 2:]
    d1, d2, d3 = drops.mean(axis=0)
    gradient = np.array([d3, -2 * d2, d1])
    se = np.sqrt(gradient @ np.cov(drops.T) @ gradient / 30)
    assert law(r, np.arange(30)) == pytest.approx(2 * stats.t.sf(abs(d1 * d3 - d2**2) / se, 29))


@pytest.mark.parametrize("unit", [1e90, 1e-90])
def test_the_law_minds_no_unit(unit):
    """Products of rewards, squared, would leave float64."""
    r = means(None, 4, residue=1.0) + 0.5 * np.random.default_rng(1).normal(size=(30, 5))
    assert law(unit * r, np.arange(30)) == pytest.approx(law(r, np.arange(30)))


# --- which to read -----------------------------------------------------------------------------------------


def best(world, n, depth, own=None, seed=0):
    sample = world.sample(n, seed, depth)
    found = effects(sample.rewards, sample.treated, sample.clusters)
    measure = None if own is None else own(sample.treated, depth)
    return recommended(found, sample.rewards, sample.treated, sample.clusters, measure)


def faithful(treated, depth, drift=0.0):
    """A measure that each pass moves from 0 to 10 or back; the third by `drift` further."""
    side = np.stack([treated if k % 2 == 0 else ~treated for k in range(depth + 1)], axis=1)
    out = 10.0 * side + 0.1 * np.random.default_rng(0).normal(size=side.shape)
    out[:, 3] += drift * np.where(side[:, 3], 1, -1)
    return out


def test_what_is_read_follows_the_passes_there_are():
    assert best(CHAIN, 300, 0).reason.startswith("no RATE: there are no rewrites")
    one = best(CHAIN, 300, 1)
    assert one.estimator == "single_rewrite"
    assert one.reason.startswith("no RATE: there is one rewrite alone")
    two = best(CHAIN, 300, 2)
    assert (two.estimator, two.reason) == ("rate", "drift not tested: there is no third rewrite")
    three = best(CHAIN, 2000, 3)
    assert three.estimator == "rate"
    assert "no measure of the attribute" in three.reason
    assert "moves it by 0." in three.reason
    assert best(CHAIN, 2000, 3, faithful).estimator == "rate_extrapolated"
    assert best(CHAIN, 2000, 4).estimator == "rate_geometric"


def test_a_third_pass_that_overshoots_is_not_extrapolated():
    over = CHAIN.but(xi_gap=0.0, xi_base=0.0, overshoot=0.2)
    drifting = lambda treated, depth: faithful(treated, depth, 2.0)  # noqa: E731
    found = best(over, 2000, 3, drifting)
    assert found.estimator == "rate"
    assert "does not move the attribute as far as the first" in found.reason
    assert best(over, 2000, 4).estimator == "rate"
    assert best(CHAIN, 2000, 4, drifting).estimator == "rate"


def test_three_passes_of_the_measure_tell_its_drift_beside_four_of_the_reward():
    found = best(CHAIN, 2000, 4, lambda treated, depth: faithful(treated, 3, 2.0))
    assert (found.estimator, found.gap) == ("rate", 0)
    assert "does not move the attribute as far as the first" in found.reason


@pytest.mark.parametrize("loss", [0.1, 0.2, 0.3, 0.7, 1.1])
def test_a_constant_loss_without_noise_does_not_grow(loss):
    found = effects(r := exactly(means(None, 4, residue=0.0, loss=loss)), w := np.ones(40, bool))
    one = recommended(found, r, w, np.arange(40))
    assert (one.estimator, one.gap) == ("rate_geometric", 0)


def test_the_bound_of_a_drift_that_dies_out_is_the_far_end_of_its_interval():
    r, w = CHAIN.sample(50, 1, 3)[:2]
    for estimand, of, s in (("ate", w | ~w, np.where(w, 1, -1)), ("att", w, 1), ("atu", ~w, -1)):
        d = (s * (r[:, 1] - r[:, 3]))[of]
        half = stats.t.ppf(0.975, of.sum() - 1) * stats.sem(d)
        said = _bound(r, w, np.arange(50), estimand)
        assert said == f"; a drift that dies out moves it by {max(half - d.mean(), d.mean() + half):.3g} at most"
    assert _bound(r[:, :3], w, np.arange(50), "ate") == ""
    assert _bound(r, w, np.zeros(50, int), "ate") == ""


def test_why_there_is_no_rate_is_what_rate_lacks():
    r = np.random.default_rng(0).normal(size=(20, 3))
    r[:10, 1], r[10:, 2] = np.nan, np.nan
    one = recommended(effects(r, w := np.arange(20) % 2 == 0), r, w, np.arange(20))
    assert one.estimator == "single_rewrite"
    assert one.reason.startswith("no RATE: no row has rewards for rewrite 1 and rewrite 2;")


def test_content_lost_at_every_pass_is_not_extrapolated():
    found = best(NumericWorld(xi_gap=0.8, xi_base=0.2, richness=1.0, rewriter=Imperfections(loss=0.1, noise=0.3)),
                 4000, 3, faithful)  # fmt: skip
    assert found.estimator == "rate"
    assert "is not shown to lie between 0 and 1" in found.reason


@pytest.mark.parametrize("mark", [2.0, -2.0])
def test_a_mark_of_the_first_rewrite_does_not_keep_the_later_passes_from_being_read(mark):
    found = best(CHAIN.but(mark=mark), 4000, 4)
    assert found.estimator == "rate_geometric"
    assert "what the first rewrite leaves for good" in found.reason


def drawn(change, draws, n=1000, world=CHAIN, passes=4):
    """What is read in each draw, whether its interval covers .5, and whether that of the bare estimator does."""
    rng, out = np.random.default_rng(8), []
    for _ in range(draws):
        r, w, clusters, _ = world.sample(n, rng, passes)
        change(r, np.where(w, 1.0, -1.0))
        found = effects(r, w, clusters)
        one = recommended(found, r, w, clusters)
        wide, bare = (of.get(one.estimator, "ate") for of in (shown(found, one), found))
        out.append((one, *(e.ci_low <= 0.5 <= e.ci_high for e in (wide, bare))))
    return out


def test_a_mark_is_no_reason_to_read_what_is_biased():
    """With 1,000 rows the later passes do not show in each draw that they converge: the interval then covers both."""
    found = drawn(lambda r, s: None, 120, world=CHAIN.but(mark=2.0))
    assert {one.estimator for one, _, _ in found} == {"rate_geometric"}
    open_ = [one for one, _, _ in found if one.gap]
    assert 10 <= len(open_) <= 50
    assert all("the interval covers rate too" in one.reason for one in open_)
    assert np.mean([wide for _, wide, _ in found]) >= 0.92


def test_where_the_third_pass_alone_moves_the_interval_covers_both_estimates():
    def third(r, s):
        r[:, 3] -= 0.15 * s

    still = CHAIN.but(xi_gap=0.0, xi_base=0.0)
    found = drawn(third, 40, world=still)
    read = [one.estimator for one, _, _ in found]
    assert read.count("rate") >= 36
    assert all(one.gap > 0.1 for one, _, _ in found if "do not follow" in one.reason)

    def cancelled(r, s):  # a mark that cancels the residue looks the same, and rate is then biased
        r[:, 1:] += 0.1875 * s[:, None]

    found = drawn(cancelled, 60, world=CHAIN.but(xi_gap=-0.5, xi_base=0.5))
    rate = [(wide, bare) for one, wide, bare in found if one.estimator == "rate"]
    assert len(rate) >= 10
    assert np.mean([wide for wide, _ in rate]) >= 0.9
    assert np.mean([bare for _, bare in rate]) <= 0.1  # the control


def test_a_drift_that_grows_is_read_with_an_interval_for_both():
    rng = np.random.default_rng(9)
    m = means(None, 4, residue=0.05, rho=1.8)
    r = np.concatenate([exactly(m, 300, 0.05, seed) for seed in (1, 2)])
    w = np.arange(600) < 300
    r[~w] = 6 - r[~w]
    found = effects(r, w)
    one = recommended(found, r, w, rng.permutation(600))
    assert one.estimator == "rate_geometric"
    assert one.reason.startswith("the drift of treated rows grows (rho 1.")
    e = shown(found, one).get("rate_geometric", "ate")
    assert e.ci_low < 1 < e.ci_high
    assert not found.get("rate_geometric", "ate").ci_low < 1 < found.get("rate_geometric", "ate").ci_high


def test_many_passes_that_follow_no_law_are_read_with_an_interval_for_both():
    m = means(None, 5, residue=1.0)
    m[4] -= 0.2  # a fourth pass that goes its own way
    found = effects(r := exactly(m, 400, 0.1), w := np.ones(400, bool))
    one = recommended(found, r, w, np.arange(400))
    assert (one.estimator, one.estimand) == ("rate_geometric", "att")
    assert one.reason.startswith("the later passes of treated rows do not follow a geometric law; the interval covers")
    assert one.gap == abs(found.get("rate", "att").estimate - found.get("rate_geometric", "att").estimate)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_widened_interval_counts_the_gap_as_a_standard_error(level):
    r, w = CHAIN.sample(200, 1, 4)[:2]
    found = effects(r, w, level=level)
    plain, beside = found.get("rate", "ate"), found.get("rate", "att")
    wide = shown(found, Recommendation("rate", "ate", "", 0.3), level)
    e = wide.get("rate", "ate")
    assert wide.get("rate", "att") == beside
    assert (e.estimate, e.estimate_sd, e.df) == (plain.estimate, plain.estimate_sd, plain.df)
    assert e.se == pytest.approx(np.hypot(plain.se, 0.3))
    assert e.se_sd == pytest.approx(np.hypot(plain.se_sd, 0.3 / found.reward_sd))
    assert (e.ci_low, e.ci_high, e.p_value) == pytest.approx(t_interval(e.estimate, e.se, e.df, level))
    reach = (plain.ci_high - plain.ci_low) / 2 / plain.se * 0.3 / found.reward_sd
    assert e.ci_high_sd - e.estimate_sd == pytest.approx(np.hypot(plain.ci_high_sd - plain.estimate_sd, reach))
    assert e.estimate_sd - e.ci_low_sd == pytest.approx(np.hypot(plain.estimate_sd - plain.ci_low_sd, reach))
    assert shown(found, Recommendation("rate", "ate", "")) is found
    assert shown(found, None) is found


def test_the_table_has_the_widened_interval():
    r, w = CHAIN.sample(1000, 3, 4)[:2]
    r[:, 3] -= 0.15 * np.where(w, 1, -1)
    r[:, :3] = CHAIN.but(xi_gap=0.0, xi_base=0.0).sample(1000, 3, 4).rewards[:, :3]
    frame = pd.DataFrame({"prompt_id": [str(i) for i in range(1000)], "attribute": "a", "treated": w,
                          "reward/x": r.tolist()})  # fmt: skip
    found = effects(r, w)
    one = recommended(found, r, w, np.arange(1000))
    assert one.gap > 0.05
    table = rk.estimate(frame)
    row = table[table["recommended"]].iloc[0]
    assert row["se"] == pytest.approx(np.hypot(found.get(*one[:2]).se, one.gap))


def test_an_estimate_on_far_fewer_rows_is_not_read_in_its_place():
    sample = CHAIN.sample(1000, seed=1, depth=4)
    r = sample.rewards.copy()
    r[:150, 4] = np.nan
    found = effects(r, sample.treated)
    why = recommended(found, r, sample.treated, np.arange(1000)).reason
    assert why.startswith("only 850 of 1000 rows have the passes of rate_geometric")
    assert recommended(Effects((), (), 1.0), r, sample.treated, np.arange(1000)) is None


@pytest.mark.parametrize(("share", "outcome"), [(0.08, "fine"), (0.12, "bad"), (0.1, "unknown")])
def test_a_drift_of_the_measure_is_judged_against_a_tenth_of_the_dose(share, outcome):
    treated = np.arange(400) % 2 == 0
    own = faithful(treated, 3, drift=10 * share)
    drifts = own_drift(own, treated, np.arange(400))
    assert [drift.value for drift in drifts.values()] == pytest.approx([-share, share], abs=0.005)
    assert _judged(drifts)[0] == outcome
    assert own_drift(own[:, :3], treated, np.arange(400)) == {}


def test_rewrites_beyond_every_original_are_said_to_be_outside_the_data():
    w, clusters = np.arange(100) % 2 == 0, np.arange(100)
    r = np.random.default_rng(0).uniform(size=(100, 3))
    own = r.copy()
    inside = recommended(effects(r, w), r, w, clusters, own).reason
    assert inside == "drift not tested: there is no third rewrite"
    own[:5, 1:] = r[:5, 1:] = 9.0
    assert recommended(effects(r, w), r, w, clusters, own).reason == inside  # a twentieth may be
    own[5, 1] = 9.0
    said = recommended(effects(r, w), r, w, clusters, own).reason
    assert (
        said == inside + "; outside the data: 6% of the rewrites lie beyond every original in the attribute's measure"
    )
    r[5, 2] = -9.0
    assert "every original in reward, so SDs" in recommended(effects(r, w), r, w, clusters, own).reason


def test_one_row_is_recommended_of_each_attribute_and_reward_model_with_its_reason():
    ds = rk.score(rk.load("reviews"), "words", progress=False)
    table = rk.estimate(rk.score(ds, "vader", progress=False))
    first = table[table["recommended"]]
    assert len(first) == first.groupby(["attribute", "reward_model"]).ngroups == 4
    assert (first["reason"] != "").all()
    assert (table[~table["recommended"]]["reason"] == "").all()
    frame = pd.DataFrame(table.attrs["left_out"])
    assert set(frame["estimator"]) == {"rate_geometric"}
    assert frame["why"].str.startswith("no row has rewards for").all()
