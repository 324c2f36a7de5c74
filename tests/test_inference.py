"""Uncertainty: coverage, bootstrap, permutation, false discovery rate, looks; and that one formula fits them all."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

import ratekit as rk
import ratekit.resampling as resampling
from ratekit.estimators import ESTIMATORS, convergence, effects, gate
from ratekit.resampling import adjust, bootstrap, confidence_sequence, percentile_interval, row_values, sign_flip
from ratekit.simulate import Imperfections, NumericWorld

SLOW_REWRITER = NumericWorld(xi_gap=1.0, xi_base=0.3, rewriter=Imperfections(rho=0.5, noise=0.3), cluster_sizes=(1, 4))


def table_of(sample):
    return {(e.estimator, e.estimand): e for e in effects(sample.rewards, sample.treated, sample.clusters)}


def as_frame(sample, attribute="length"):
    return pd.DataFrame({
        "prompt_id": sample.clusters.astype(str), "attribute": attribute, "treated": sample.treated,
        "reward/rm": [[None if np.isnan(v) else v for v in row] for row in sample.rewards.tolist()],
    })  # fmt: skip


# --- the estimators' two forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_row_values_and_class_means_give_the_same_estimate(name, seed):
    for depth in (4, 6):
        sample = SLOW_REWRITER.sample(400, seed, depth=depth)
        r, w, c = sample.rewards, sample.treated, sample.clusters
        how = ESTIMATORS[name]
        r = r if how.further else r[:, : max(how.passes) + 1]
        of = {
            side: float(how.of_means(r[w == side].mean(axis=0), how.gate(r[w == side], c[w == side])))
            for side in (True, False)
        }
        values = how.values(r, w, c)
        assert values[w].mean() == pytest.approx(of[True])
        assert values[~w].mean() == pytest.approx(-of[False])
        assert row_values(r, w, c, name)[0].mean() == pytest.approx(effects(r, w, c).get(name, "ate").estimate)


@pytest.mark.parametrize(("late", "early"), [(1.0, 0.0), (-0.5, 2.0), (3.0, 2.0)])
def test_both_forms_agree_where_rho_is_held_at_a_bound(late, early):
    rng = np.random.default_rng(0)
    r = rng.normal(0, 0.01, (200, 4)) + np.array([early, late, 0.0, 0.0])
    r[:, 0] -= (r[:, 0] - r[:, 2]).mean() if early == 0 else 0
    w, c = np.ones(200, bool), np.arange(200)
    assert not convergence(r, c).estimated
    mean = ESTIMATORS["rate_extrapolated"].of_means(r.mean(axis=0), gate(r, c))
    assert ESTIMATORS["rate_extrapolated"].values(r, w, c).mean() == pytest.approx(float(mean))


# --- coverage --------------------------------------------------------------------------------------------


def covers(world, n, estimator, replications, seed):
    rng, truth = np.random.default_rng(seed), world.truth()["ate"]
    hits = []
    for _ in range(replications):
        e = table_of(world.sample(n, rng))[estimator, "ate"]
        hits.append(e.ci_low <= truth <= e.ci_high)
    return np.mean(hits)


def test_rate_covers_where_its_assumptions_hold_and_extrapolation_where_they_do_not():
    holds = NumericWorld(xi_gap=0.8, cluster_sizes=(1, 4), rewriter=Imperfections(noise=0.3))
    assert 0.92 <= covers(holds, 120, "rate", 600, 1) <= 0.98
    slow = holds.but(rho=0.5, xi_gap=1.2)
    assert covers(slow, 300, "rate", 200, 2) < 0.8
    assert 0.92 <= covers(slow, 300, "rate_extrapolated", 600, 3) <= 0.98


def study():
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        import coverage
    finally:
        sys.path.pop(0)
    return coverage


def test_the_committed_coverage_table_keeps_its_bounds():
    table = pd.read_csv(ROOT / "experiments" / "coverage.csv")
    module = study()
    assert len(table) == len(module.WORLDS) * len(module.ESTIMATES)
    assert (table["replications"] >= 3950).all()  # of 4,000; a world of 50 rows may draw a single class
    ate = table[table.estimand == "ate"].set_index(["world", "about", "n"])
    rate, extrapolated = (ate[ate.estimator == name] for name in ("rate", "rate_extrapolated"))
    holds = rate.loc[module.HOLDS]
    assert len(holds) >= 12
    assert holds["coverage"].between(0.935, 0.965).all()
    assert (holds["two_sample_width_sd"] > 1.5 * holds["width_sd"]).all()
    partial = extrapolated.loc[module.PARTIAL]
    assert (partial.index.get_level_values("n") >= 300).all()
    assert partial["coverage"].between(0.92, 0.98).all()
    bias = rate.loc[module.PARTIAL]["bias_sd"]
    large = bias.abs() > 0.02
    assert large.sum() >= 10
    assert (partial["bias_sd"].abs() <= bias.abs() / 10)[large].all()


@pytest.mark.slow
def test_the_committed_coverage_table_is_what_the_code_gives():
    module = study()
    table = pd.read_csv(ROOT / "experiments" / "coverage.csv")
    for world in (module.WORLDS[0], next(w for w in module.WORLDS if w[0] == module.PARTIAL)):
        fresh = pd.DataFrame(module.study(*world, module.REPLICATIONS))
        same = (table.world == world[0]) & (table.about == world[1]) & (table.n == world[2])
        np.testing.assert_allclose(fresh["coverage"], table[same]["coverage"], atol=6e-6)
        np.testing.assert_allclose(fresh["bias_sd"], table[same]["bias_sd"], atol=6e-6)


# --- bootstrap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisson_from", [0, 10**9])
def test_bootstrap_ses_agree_with_the_analytic_ones(monkeypatch, poisson_from):
    monkeypatch.setattr(resampling, "POISSON_FROM", poisson_from)
    sample = SLOW_REWRITER.sample(4000, seed=1)
    draws = bootstrap(sample.rewards, sample.treated, sample.clusters, draws=4000, seed=0)
    found = table_of(sample)
    assert set(draws) == set(found)
    for key, e in found.items():
        assert draws[key].std(ddof=1) == pytest.approx(e.se, rel=0.06), key
        assert draws[key].mean() == pytest.approx(e.estimate, abs=5 * e.se / np.sqrt(4000) + 0.02 * e.se), key


def test_bootstrap_resamples_clusters_and_not_rows():
    rng = np.random.default_rng(0)
    d = np.repeat(rng.normal(size=100), 8)  # eight copies of each: 100 facts, not 800
    r = np.stack([np.zeros(800), np.zeros(800), d], axis=1)
    w = np.ones(800, bool)
    clustered = bootstrap(r, w, np.repeat(np.arange(100), 8), draws=2000)["rate", "att"].std()
    rows = bootstrap(r, w, np.arange(800), draws=2000)["rate", "att"].std()
    assert clustered / rows == pytest.approx(np.sqrt(8), rel=0.1)


def test_bootstrap_matches_scipy_on_the_same_problem():
    sample = SLOW_REWRITER.but(cluster_sizes=(1, 1)).sample(150, seed=2)
    ours = bootstrap(sample.rewards, sample.treated, draws=5000, seed=1)["rate", "ate"]
    values = row_values(sample.rewards, sample.treated, sample.clusters, "rate")[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1))
    assert ours.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.05)
    np.testing.assert_allclose(np.quantile(ours, [0.025, 0.975]), theirs.confidence_interval, atol=0.1 * ours.std() * 2)


def test_bootstrap_uses_the_rows_that_each_estimator_has():
    sample = SLOW_REWRITER.sample(600, seed=3)
    r = sample.rewards.copy()
    r[::3, 3] = np.nan  # chains of unequal depth
    r[1::7, 0] = np.nan
    found = {(e.estimator, e.estimand): e for e in effects(r, sample.treated, sample.clusters)}
    draws = bootstrap(r, sample.treated, sample.clusters, draws=3000)
    for key, e in found.items():
        assert draws[key].mean() == pytest.approx(e.estimate, abs=0.1 * e.se), key
        assert draws[key].std() == pytest.approx(e.se, rel=0.1), key


def test_bootstrap_holds_its_precision_at_any_level_and_scale_of_reward():
    sample = SLOW_REWRITER.sample(300, seed=4)
    plain = bootstrap(sample.rewards, sample.treated, sample.clusters, draws=500)
    shifted = bootstrap(1e6 + sample.rewards, sample.treated, sample.clusters, draws=500)
    huge = bootstrap(1e99 * sample.rewards, sample.treated, sample.clusters, draws=500)
    np.testing.assert_allclose(shifted["rate", "ate"], plain["rate", "ate"], atol=1e-5)
    np.testing.assert_allclose(huge["rate", "ate"] / 1e99, plain["rate", "ate"], rtol=1e-4)


def test_bootstrap_weights_have_mean_and_variance_one():
    for draw in (resampling._poisson_weights, resampling._multinomial_weights):
        out = np.empty((200, 3000), np.float32)
        draw(out, np.random.default_rng(0))
        assert out.mean() == pytest.approx(1, abs=0.005)
        assert out.var() == pytest.approx(1, abs=0.01)
    thresholds = [0, *resampling._COPIES_FROM.astype(int), 256]
    probability = np.diff(thresholds) / 256
    copies = np.arange(6)
    assert probability @ copies == 1
    assert probability @ copies**2 - 1 == 1


def test_one_cluster_gives_no_draws():
    sample = NumericWorld().sample(20, seed=1)
    draws = bootstrap(sample.rewards, sample.treated, np.zeros(20, int), draws=10)
    assert all(np.isnan(d).all() for d in draws.values())


def test_expanded_percentiles_have_students_width():
    z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for g in (5, 20, 200):
        # A bootstrap distribution is too narrow by sqrt((g-1)/g); its expanded percentiles make up for it.
        _low, high = percentile_interval(z * np.sqrt((g - 1) / g), g)
        assert high == pytest.approx(stats.t.ppf(0.975, g - 1), rel=0.01)


# --- sign flips ------------------------------------------------------------------------------------------


def test_sign_flip_is_the_share_of_all_sign_patterns():
    rng = np.random.default_rng(0)
    for _ in range(5):
        v = rng.normal(0.5, 1, 9)
        sums = [abs(np.dot(signs, v)) for signs in itertools.product((-1, 1), repeat=9)]
        assert sign_flip(v) == pytest.approx(np.mean(np.array(sums) >= abs(v.sum()) - 1e-12))


def test_sign_flip_by_draws_agrees_with_all_patterns_and_is_exact_under_the_null():
    v = np.random.default_rng(1).normal(0.4, 1, 12)
    assert sign_flip(v, draws=4000) == pytest.approx(sign_flip(v, draws=5000), abs=0.03)  # 4,096 patterns
    rng = np.random.default_rng(2)
    p = [sign_flip(rng.standard_cauchy(15), draws=199, seed=i) for i in range(800)]  # no mean, no variance
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.022)


def test_sign_flip_flips_whole_clusters():
    v = np.tile([1.0, 1.0, 1.0, 1.0], 3)
    assert sign_flip(v, clusters=np.repeat([0, 1, 2], 4)) == pytest.approx(2 / 8)
    assert sign_flip(v, clusters=np.arange(12)) == pytest.approx(2 / 2**12)


def test_sign_flip_without_anything_to_flip_is_nan():
    assert np.isnan(sign_flip([0.0, 0.0]))
    assert np.isnan(sign_flip([1.0, 2.0], clusters=[0, 0]))
    assert np.isnan(sign_flip([]))


# --- options of estimate ---------------------------------------------------------------------------------


def test_estimate_offers_them_and_they_agree():
    ds = as_frame(SLOW_REWRITER.sample(500, seed=5))
    tables = {kind: rk.estimate(ds, uncertainty=kind, draws=2000) for kind in ("analytic", "bootstrap", "sign-flip")}
    analytic, boot, flip = (t.set_index(["estimator", "estimand"]) for t in tables.values())
    np.testing.assert_array_equal(analytic["estimate"], boot["estimate"])
    np.testing.assert_allclose(boot["se"], analytic["se"], rtol=0.12)
    assert list(tables["bootstrap"].columns) == list(tables["analytic"].columns)
    assert np.isnan(flip.loc[("naive", "ate"), "p_value"])
    assert (flip.drop(index=("naive", "ate"))["p_value"] < 0.01).all()
    again = rk.estimate(ds, uncertainty="bootstrap", draws=2000)
    pd.testing.assert_frame_equal(again, tables["bootstrap"])
    assert not again.equals(rk.estimate(ds, uncertainty="bootstrap", draws=2000, seed=1))


@pytest.mark.parametrize("wrong", [{"uncertainty": "boot"}, {"draws": 0}, {"level": 95}])
def test_estimate_refuses_what_it_does_not_know(wrong):
    with pytest.raises(rk.InputError):
        rk.estimate(as_frame(SLOW_REWRITER.sample(50, seed=1)), **wrong)


@pytest.mark.parametrize("kind", ["analytic", "bootstrap", "sign-flip"])
class TestNoConfidenceWithoutCause:
    """Constant rewards, one class, one cluster, rewards of 1e98, unequal depth: NaN with a reason, or right."""

    def table(self, kind, ds):
        return rk.estimate(ds, uncertainty=kind, draws=200).set_index(["estimator", "estimand"])

    def test_constant_rewards(self, kind):
        ds = as_frame(NumericWorld().sample(40, seed=1))
        ds["reward/rm"] = [[3.0] * 4] * 40
        table = self.table(kind, ds)
        assert (table["estimate"] == 0).all()
        assert table[["se", "ci_low", "ci_high", "p_value"]].isna().all(axis=None)

    def test_one_cluster(self, kind):
        ds = as_frame(NumericWorld().sample(40, seed=1)).assign(prompt_id="only")
        assert self.table(kind, ds)[["se", "ci_low", "ci_high", "p_value"]].isna().all(axis=None)

    def test_one_class(self, kind):
        ds = as_frame(NumericWorld().sample(80, seed=1)).query("treated")
        assert set(self.table(kind, ds).index.get_level_values("estimand")) == {"att"}

    def test_rewards_of_1e98(self, kind):
        ds = as_frame(NumericWorld(effect=0.7, rewriter=Imperfections(noise=0.2)).sample(200, seed=1))
        small = self.table(kind, ds)
        ds["reward/rm"] = [[1e98 * v for v in row] for row in ds["reward/rm"]]
        huge = self.table(kind, ds)
        np.testing.assert_allclose(huge["estimate"] / 1e98, small["estimate"], rtol=1e-9)
        np.testing.assert_allclose(huge["se"] / 1e98, small["se"], rtol=1e-3)

    def test_chains_of_unequal_depth(self, kind):
        ds = as_frame(SLOW_REWRITER.sample(90, seed=1))
        ds["reward/rm"] = [row[: 2 + i % 3] for i, row in enumerate(ds["reward/rm"])]
        table = self.table(kind, ds)
        assert table["n"].loc["single_rewrite", "ate"] == 90
        assert table["n"].loc["rate", "ate"] == 60
        assert table["n"].loc["rate_extrapolated", "ate"] == 30
        assert table["n_dropped"].loc["rate_extrapolated", "ate"] == 60


# --- many tests, many looks ------------------------------------------------------------------------------


def test_adjusted_p_values_are_benjamini_and_hochbergs():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).uniform(size=30) ** 3
    table = pd.DataFrame({"p_value": np.append(p, np.nan)})
    out = adjust(table)["p_adjusted"]
    np.testing.assert_allclose(out[:-1], multipletests(p, method="fdr_bh")[1])
    assert np.isnan(out.iloc[-1])
    assert "p_adjusted" not in table
    with pytest.raises(rk.InputError, match="p_value"):
        adjust(pd.DataFrame({"p": [0.1]}))


def test_a_confidence_sequence_holds_at_every_look_and_a_plain_interval_does_not():
    rng = np.random.default_rng(0)
    missed = peeked = 0
    for _ in range(400):
        v = rng.standard_t(5, 400)
        _mean, low, high = confidence_sequence(v)
        missed += bool(((low > 0) | (high < 0)).any())
        t = np.arange(1, 401)
        sd = np.array([v[:k].std(ddof=1) if k > 1 else np.nan for k in t])
        half = stats.t.ppf(0.975, np.maximum(t - 1, 1)) * sd / np.sqrt(t)
        peeked += bool((np.abs(np.cumsum(v) / t) > half)[9:].any())
    assert missed / 400 <= 0.07
    assert peeked / 400 > 0.25


def test_a_confidence_sequence_ends_wider_than_the_interval_for_one_look_but_of_its_kind():
    v = np.random.default_rng(1).normal(1.0, 2.0, 1000)
    mean, low, high = confidence_sequence(v)
    assert mean[-1] == pytest.approx(v.mean())
    fixed = 1.96 * v.std(ddof=1) / np.sqrt(1000)
    assert 1.0 < (high - low)[-1] / 2 / fixed < 2.0
    assert np.isnan(low[:9]).all()
    assert np.isfinite(low[9:]).all()


def test_a_confidence_sequence_of_clusters_is_that_of_their_means():
    means = np.random.default_rng(2).normal(0.3, 1.0, 60)
    clusters = np.repeat(np.arange(60)[::-1], 5)  # codes in any order: clusters come as their first rows do
    by_row = confidence_sequence(np.repeat(means, 5), clusters, tuned_for=60)
    by_cluster = confidence_sequence(means, tuned_for=60)
    for a, b in zip(by_row, by_cluster, strict=True):
        np.testing.assert_allclose(a, b)
