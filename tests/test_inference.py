"""Uncertainty: coverage, bootstrap, permutation, false discovery rate, looks; and that one formula fits them all."""

from __future__ import annotations

import importlib
import itertools
import math
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

import ratekit as rk
import ratekit.resampling as resampling
from ratekit.estimators import ESTIMATORS, clustered_mean, convergence, drop_se, effects, pooled_sd, row_values
from ratekit.resampling import (
    SD,
    adjust,
    bootstrap,
    confidence_sequence,
    percentile_interval,
    sign_flip,
    smallest_sign_flip,
    wild_interval,
)
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
            side: float(how.of_means(r[w == side].mean(axis=0), how.drop_se(r[w == side], c[w == side])))
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
    mean = ESTIMATORS["rate_extrapolated"].of_means(r.mean(axis=0), drop_se(r, c))
    assert ESTIMATORS["rate_extrapolated"].values(r, w, c).mean() == pytest.approx(float(mean))


# --- coverage --------------------------------------------------------------------------------------------


def covers(world, n, estimator, replications, seed):
    rng, truth = np.random.default_rng(seed), world.truth()["ate"]
    hits = []
    for _ in range(replications):
        sample = world.sample(n, rng, max(ESTIMATORS[estimator].passes))
        low, high, _ = clustered_mean(*row_values(*sample[:3], estimator)).interval()
        hits.append(low <= truth <= high)
    return np.mean(hits)


def test_rate_covers_where_its_assumptions_hold_and_extrapolation_where_they_do_not():
    holds = NumericWorld(xi_gap=0.8, cluster_sizes=(1, 4), rewriter=Imperfections(noise=0.3))
    assert 0.92 <= covers(holds, 120, "rate", 500, 1) <= 0.98
    slow = holds.but(rho=0.5, xi_gap=1.2)
    assert covers(slow, 300, "rate", 200, 2) < 0.8
    assert 0.92 <= covers(slow, 300, "rate_extrapolated", 500, 3) <= 0.98


def study(name="coverage"):
    sys.path.insert(0, str(ROOT / "experiments"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_the_committed_coverage_table_keeps_its_bounds():
    table = pd.read_csv(ROOT / "experiments" / "coverage.csv")
    module = study()
    assert len(table) == len(module.WORLDS) * len(module.ESTIMATES)
    assert (table["replications"] >= 0.98 * module.REPLICATIONS).all()  # a world of 50 rows may draw a single class
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


def test_the_wider_coverage_table_keeps_its_bounds():
    module = study("coverage_wider")
    table = pd.read_csv(ROOT / "experiments" / "coverage_wider.csv")
    assert len(table) == sum(len(module.ESTIMATES[kind]) for kind, *_ in module.WORLDS)
    slack = 3 * math.sqrt(0.05 * 0.95 / table["replications"].min())  # what the replications leave to chance
    by = table.set_index(["world", "estimator"])["coverage"]
    read = pd.concat([by.loc[[(module.LARGE, "rate")]], by.loc[[(module.DEEP, module.RECOMMENDED)]],
                      by.loc[[(module.REFUSED, module.TWO_PHASE)]]])  # fmt: skip
    assert read.between(0.93 - slack, 0.97 + slack).all()
    # With Student's t(3) the square of a reward has no variance, so no interval in SDs is exact; each world says so.
    assert by.loc[module.HEAVY].between(0.87, 0.99).all()
    page = module.report(table)
    heavy = [line for line in page.splitlines() if line.startswith(f"| {module.HEAVY}: ")]
    assert len(heavy) == 5
    assert all("| no: Student's t(3) has no fourth moment" in line for line in heavy)
    assert page.count("| yes") == len(module.WORLDS) - 5
    # Where one cluster or a class of two rows dominates, Satterthwaite gives too few degrees of freedom, not too many.
    assert (by.loc[[(module.FEW, "rate"), (module.RARE, "naive")]] >= 0.93 - slack).all()
    # Where two readings fit the rewards, the one that is read may be biased, and its interval covers the other.
    assert by.loc[module.OPEN, module.RECOMMENDED].min() >= 0.93 - slack
    assert by.loc[module.OPEN, "rate"].max() < 0.1
    assert by.loc[module.FEW, "rate"].max() < 0.99
    assert by.loc[module.REFUSED, "rate"].item() < 0.6  # the control: complete rows alone
    rmse = table[table.world == module.DEEP].pivot(index="about", columns="estimator", values="rmse")
    best = rmse.drop(columns=module.RECOMMENDED).min(axis=1)
    assert (rmse[module.RECOMMENDED] <= 1.1 * best).all()
    law_holds = rmse.index.drop("later passes go a fifth of the effect too far")
    assert (rmse["rate_geometric"] <= 1.1 * best).loc[law_holds].all()
    assert (ROOT / "experiments" / "coverage_wider.md").read_text(encoding="utf-8") == page
    low = module.report(table.assign(coverage=0.85))
    assert f"in 0 of the {len(module.WORLDS) - 5} worlds where its assumptions hold" in low
    assert "Under 93 %, by more than 2 Monte Carlo SEs: few or unequal prompts" in low
    far_off = rmse.drop(columns=module.RECOMMENDED).div(best, axis=0).max()
    assert (far_off > 2).all()  # the control: each of the others is, somewhere


def test_the_readme_gives_the_coverage_of_the_tables():
    def percent(share):
        return f"{100 * share.min():.1f} to {100 * share.max():.1f} %"

    module, wider = study(), study("coverage_wider")
    table = pd.read_csv(ROOT / "experiments" / "coverage.csv").query("estimand == 'ate'")
    by = table.set_index(["world", "estimator"])["coverage"]
    plain, slow = by.loc[module.HOLDS, "rate"], by.loc[module.PARTIAL, "rate_extrapolated"]
    deep = pd.read_csv(ROOT / "experiments" / "coverage_wider.csv").set_index(["world", "estimator"])["coverage"]
    deep = deep.loc[wider.DEEP, wider.RECOMMENDED]
    said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"In {len(plain)} worlds where RATE's assumptions hold its 95 % interval covers {percent(plain)};" in said
    assert f"`rate_extrapolated` covers {percent(slow)} while" in said
    assert len(deep) == 7
    assert f"the recommended estimate covers {percent(deep)} in seven worlds" in said
    wide = pd.read_csv(ROOT / "experiments" / "coverage_wider.csv").set_index("world")["coverage"]
    assert f"In SDs it covers {percent(wide.loc[wider.LARGE])} at effects of 0.5 to 3 SD" in said
    assert f"Student's t(3)) {percent(wide.loc[wider.HEAVY])}" in said


@pytest.mark.slow
def test_the_wider_coverage_table_is_what_the_code_gives():
    module = study("coverage_wider")
    table = pd.read_csv(ROOT / "experiments" / "coverage_wider.csv")
    for world in (next(w for w in module.WORLDS if w[0] == kind) for kind in module.ESTIMATES):
        fresh = pd.DataFrame(module.study(*world, module.REPLICATIONS))
        same = (table.world == world[0]) & (table.about == world[1]) & (table.n == world[2])
        np.testing.assert_allclose(fresh["coverage"], table[same]["coverage"], atol=6e-6)


# --- bootstrap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisson_from", [0, 10**9])
def test_bootstrap_ses_agree_with_the_analytic_ones(monkeypatch, poisson_from):
    monkeypatch.setattr(resampling, "POISSON_FROM", poisson_from)
    sample = SLOW_REWRITER.sample(4000, seed=1)
    draws = bootstrap(sample.rewards, sample.treated, sample.clusters, draws=4000, seed=0)
    found = table_of(sample)
    assert set(draws) == {*found, SD}
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
        _low, high, _p = percentile_interval(z * np.sqrt((g - 1) / g), g)
        assert high == pytest.approx(stats.t.ppf(0.975, g - 1), rel=0.01)


def test_the_p_value_of_percentiles_by_hand():
    """12 clusters: factor sqrt(12/11), 11 degrees of freedom; no draw beyond 0 counts as one of n + 1."""

    def by_hand(share):
        return 2 * stats.t.cdf(stats.norm.ppf(share) / math.sqrt(12 / 11), 11)

    assert percentile_interval(np.linspace(1, 2, 99), 12)[2] == pytest.approx(by_hand(1 / 100))
    assert percentile_interval(np.linspace(-1, 3, 1001), 12)[2] == pytest.approx(by_hand(0.25))
    assert percentile_interval(np.linspace(-3, 1, 1001), 12)[2] == pytest.approx(by_hand(0.25))
    assert percentile_interval(np.linspace(1, 2, 99), 12, df=4.0)[2] == pytest.approx(
        2 * stats.t.cdf(stats.norm.ppf(1 / 100) / math.sqrt(12 / 11), 4)
    )
    low, high, _ = percentile_interval(np.linspace(0, 1, 1001), 12, level=0.8, expansion=1.5)
    tail = stats.norm.cdf(1.5 * stats.t.ppf(0.1, 11))
    assert (low, high) == pytest.approx((tail, 1 - tail))
    assert percentile_interval(np.array([1.0, 2.0, np.nan, np.nan]), 12)[0] >= 1  # half of them are enough
    assert np.isnan(percentile_interval(np.array([1.0, 2.0, np.nan, np.nan, np.nan]), 12)).all()
    assert np.isnan(percentile_interval(np.linspace(1, 2, 99), 1)).all()
    assert np.isfinite(percentile_interval(np.linspace(1, 2, 99), 2)).all()
    assert resampling._spread(np.array([1.0, 3.0, np.nan])) == pytest.approx(math.sqrt(2))
    assert np.isnan(resampling._spread(np.array([1.0, 3.0, np.nan, np.nan])))


@pytest.mark.parametrize("size", [1e-60, 1e60])
def test_bootstrap_draws_scale_with_the_rewards_whatever_their_size(size):
    rng = np.random.default_rng(0)
    w = np.arange(40) % 2 == 0
    r = np.where(w[:, None], rng.normal(size=(40, 3)), 0.0)
    plain, scaled = (bootstrap(of, w, draws=50) for of in (r, size * r))
    assert plain[SD].mean() == pytest.approx(pooled_sd(r[:, 0], w), rel=0.2)
    for key, draws in plain.items():
        np.testing.assert_allclose(scaled[key] / size, draws, rtol=1e-4, atol=1e-6)
    assert (bootstrap(0 * r, w, draws=50)[SD] == 0).all()


def test_a_draw_of_the_sd_is_the_pooled_sd_of_the_rows_drawn(monkeypatch):
    counts = np.array([[2.0, 0, 1, 1, 3, 0, 1]])
    monkeypatch.setattr(resampling, "_weighted_sums", lambda sums, draws, rng: counts @ sums)
    r, w = np.array([[1.0], [2], [4], [8], [16], [32], [64]]), np.array([1, 1, 1, 1, 0, 0, 0], bool)
    rows = np.repeat(np.arange(7), counts[0].astype(int))
    assert bootstrap(r, w, draws=1)[SD][0] == pytest.approx(pooled_sd(r[rows, 0], w[rows]), rel=1e-5)


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


def test_the_smallest_p_value_of_sign_flips():
    assert [smallest_sign_flip(3, draws) for draws in (7, 8)] == [1 / 8, 2 / 8]
    assert smallest_sign_flip(40, 99) == sign_flip(np.ones(40), draws=99) == 0.01
    assert [smallest_sign_flip(n, 2**31) for n in (30, 31)] == [2 / 2**30, 1 / (1 + 2**31)]
    assert sign_flip(np.ones(20), draws=1) in (0.5, 1.0)
    with pytest.raises(rk.InputError, match="draws=0"):
        sign_flip([1.0, 2.0], draws=0)


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
    beside = adjust(adjust(table.assign(after=1)))
    assert list(beside.columns) == ["p_value", "p_adjusted", "after"]
    np.testing.assert_allclose(out[:-1], multipletests(p, method="fdr_bh")[1])
    assert np.isnan(out.iloc[-1])
    assert "p_adjusted" not in table
    with pytest.raises(rk.InputError, match="p_value"):
        adjust(pd.DataFrame({"p": [0.1]}))


def test_a_confidence_sequence_holds_at_every_look_and_a_plain_interval_does_not():
    rng = np.random.default_rng(0)
    missed = peeked = 0
    t = np.arange(1, 401)
    quantile = stats.t.ppf(0.975, np.maximum(t - 1, 1))
    for _ in range(400):
        v = rng.standard_t(5, 400)
        _mean, low, high = confidence_sequence(v)
        missed += bool(((low > 0) | (high < 0)).any())
        sd = np.sqrt(np.maximum(np.cumsum(v**2) - np.cumsum(v) ** 2 / t, 0) / np.maximum(t - 1, 1))
        half = quantile * sd / np.sqrt(t)
        peeked += bool((np.abs(np.cumsum(v) / t) > half)[9:].any())
    assert missed / 400 <= 0.07
    assert peeked / 400 > 0.25


def test_a_confidence_sequence_ends_wider_than_the_interval_for_one_look_but_of_its_kind():
    v = np.random.default_rng(1).normal(1.0, 2.0, 1000)
    mean, low, high = confidence_sequence(v)
    assert mean[-1] == pytest.approx(v.mean())
    fixed = 1.96 * v.std(ddof=1) / np.sqrt(1000)
    assert 1.0 < (high - low)[-1] / 2 / fixed < 2.0
    assert np.isnan(low[:49]).all()
    assert np.isfinite(low[49:]).all()


def test_a_confidence_sequence_of_clusters_is_that_of_their_means():
    means = np.random.default_rng(2).normal(0.3, 1.0, 60)
    clusters = np.repeat(np.arange(60)[::-1], 5)  # codes in any order: clusters come as their first rows do
    by_row = confidence_sequence(np.repeat(means, 5), clusters, tuned_for=60)
    by_cluster = confidence_sequence(means, tuned_for=60)
    for a, b in zip(by_row, by_cluster, strict=True):
        np.testing.assert_allclose(a, b)


@pytest.mark.parametrize("law", ["normal", "exponential", "coin"])
def test_looks_at_any_time_keep_their_level_whatever_the_differences_are_like(law):
    rng = np.random.default_rng(7)
    draw = {
        "normal": lambda: rng.normal(size=1000),
        "exponential": lambda: rng.exponential(size=1000) - 1,
        "coin": lambda: (rng.random(1000) < 0.1) - 0.1,
    }[law]
    looks = np.arange(19, 1000, 20)
    wrong = 0
    for _ in range(400):
        _mean, low, high = confidence_sequence(draw())
        wrong += bool(((low[looks] > 0) | (high[looks] < 0)).any())
    assert wrong / 400 <= 0.08  # 0.05 and 2.75 Monte Carlo SEs


def test_a_confidence_sequence_does_not_depend_on_what_comes_later():
    v = np.random.default_rng(3).normal(0.2, 1.0, 300)
    for some, every in zip(confidence_sequence(v[:120]), confidence_sequence(v), strict=True):
        np.testing.assert_allclose(some, every[:120])


def test_a_confidence_sequence_of_what_has_not_varied_says_nothing():
    v = np.r_[np.full(100, 0.1), np.random.default_rng(0).normal(0.1, 1, 50)]
    _mean, low, _high = confidence_sequence(v)
    assert np.isnan(low[:100]).all()
    assert np.isfinite(low[101:]).all()


def test_a_confidence_sequence_is_its_formula():
    v = np.random.default_rng(4).normal(0.3, 2.0, 80)
    mean, low, high = confidence_sequence(v, level=0.9, tuned_for=60)
    a = -2 * math.log(0.1)
    rho2 = (a + math.log(a + 1)) / 60
    for t in (50, 80):
        sd = v[:t].std(ddof=1)
        half = sd * math.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * math.log(math.sqrt(t * rho2 + 1) / 0.1))
        found = mean[t - 1], low[t - 1], high[t - 1]
        assert found == pytest.approx((v[:t].mean(), v[:t].mean() - half, v[:t].mean() + half))
    assert [len(x) for x in confidence_sequence([])] == [0, 0, 0]
    assert [len(x) for x in confidence_sequence([1.0], tuned_for=1)] == [1, 1, 1]
    with pytest.raises(rk.InputError, match=r"tuned_for=0\.9"):
        confidence_sequence(v, tuned_for=0.9)


@pytest.mark.parametrize(("step", "told"), [(0.9e-13, False), (1.1e-13, True)])
def test_variation_is_told_from_rounding_by_a_part_in_1e13_of_the_values(step, told):
    v = 1e6 * (1 + step * (-1.0) ** np.arange(1000))
    assert np.isfinite(confidence_sequence(v)[1][-1]) == told


@pytest.mark.parametrize(("step", "told"), [(2.6e-6, False), (3.1e-6, True)])
def test_variation_of_clusters_is_told_from_the_rounding_of_their_sums(step, told):
    """Every cluster sums to 2, 1 a row, above the first value: rounding is a part in 1e12 of the squares, 8 each."""
    pairs = np.ones((400, 2)) + step / 2 * ((-1.0) ** np.arange(400))[:, None]
    pairs[:2] = [[0.0, 2.0], [1.0, 1.0]]
    assert np.isfinite(confidence_sequence(pairs.ravel(), np.repeat(np.arange(400), 2))[1][-1]) == told


def test_sequential_says_where_the_rows_are_sorted_by_class():
    sample = NumericWorld(effect_gap=1.0).sample(400, seed=1)
    order = np.argsort(sample.treated, kind="stable")
    frame = as_frame(sample)
    assert rk.sequential(frame).attrs["notes"] == []
    (note,) = rk.sequential(frame.iloc[order]).attrs["notes"]
    assert "5% of the first half of the rows are treated and 100% of the second" in note


# --- the bootstrap's p-value, few clusters, void draws ------------------------------------------------------


@pytest.mark.parametrize("n_clusters", [3, 5, 11, 15])
def test_the_bootstraps_p_value_agrees_with_its_interval_and_keeps_its_level(n_clusters):
    rng = np.random.default_rng(100 + n_clusters)
    rejected, replications = 0, 300
    for i in range(replications):
        v = rng.normal(size=4 * n_clusters)
        clusters = np.repeat(np.arange(n_clusters), 4)
        if n_clusters < resampling.WILD_BELOW:
            low, high, p = wild_interval(v, clusters, draws=300, seed=i)
        else:
            r = np.stack([np.zeros(len(v)), np.zeros(len(v)), v], axis=1)
            draws = bootstrap(r, np.ones(len(v), bool), clusters, draws=400, seed=i)["rate", "att"]
            low, high, p = percentile_interval(draws, n_clusters)
        assert (p <= 0.05) == (low > 0 or high < 0)
        rejected += p <= 0.05
    assert rejected / replications <= 0.10  # 0.05 and 4 Monte Carlo SEs


def test_the_wild_bootstrap_of_all_patterns_by_a_loop():
    """Three clusters, 216 patterns of Webb's weights, the t statistic by plain formulas each time."""
    v, clusters = np.array([1.0, 2.0, 4.0, 5.5, 3.0]), np.array([0, 0, 1, 2, 2])
    share = np.array([2, 1, 2]) / 5

    def t_of(sums):
        mean = sums.sum() / 5
        return abs(mean), math.sqrt(((sums - mean * share * 5) ** 2 / (1 - share)).sum()) / 5

    sums = np.bincount(clusters, v)
    observed = t_of(sums)
    webb = [-math.sqrt(1.5), -1, -math.sqrt(0.5), math.sqrt(0.5), 1, math.sqrt(1.5)]
    found = [t_of(np.array(w) * sums) for w in itertools.product(webb, repeat=3)]
    p = np.mean([m * (1 + 1e-9) >= observed[0] / observed[1] * s for m, s in found])
    assert wild_interval(v, clusters)[2] == pytest.approx(p)


@pytest.mark.parametrize(("wrong", "why"), [({"draws": 1.5}, "draws=1.5"), ({"seed": -1}, "seed=-1")])
def test_draws_and_seeds_are_whole_numbers(wrong, why):
    values, frame = np.arange(6.0), as_frame(NumericWorld().sample(30, seed=1, depth=2))
    for call in (
        lambda: rk.estimate(frame, uncertainty="bootstrap", **wrong),
        lambda: bootstrap(values[:, None], values > 2, **wrong),
        lambda: sign_flip(values, **wrong),
        lambda: wild_interval(values, range(6), **wrong),
    ):
        with pytest.raises(rk.InputError, match=why):
            call()


def test_two_clusters_have_no_wild_interval_at_95_percent():
    low, high, p = wild_interval([1.0, 1.1, 1.2, 1.3], [0, 0, 1, 1])
    assert (low, high) == (-math.inf, math.inf)
    assert p >= 0.05
    low, high, _ = wild_interval([1.0, 1.1, 1.2, 1.3], [0, 0, 1, 1], level=0.6)
    assert 0 < low < 1.15 < high


def test_a_draw_without_a_class_does_not_void_the_table():
    sample = NumericWorld().sample(30, seed=1)
    w = np.arange(30) < 2
    frame = as_frame(sample._replace(treated=w))
    table = rk.estimate(frame, uncertainty="bootstrap", draws=500)
    ate = table[table.estimand == "ate"]
    assert ate[["se", "ci_low", "p_value"]].notna().all(axis=None)
    assert any("bootstrap draws hold no row of a class and do not count" in note for note in table.attrs["notes"])


@pytest.mark.parametrize(("clusters", "wild"), [(11, True), (12, False)])
def test_a_bootstrap_of_clusters_begins_at_twelve(clusters, wild):
    sample = NumericWorld().sample(48, seed=1, depth=2)
    codes = np.arange(48) % clusters
    found = effects(sample.rewards, sample.treated, codes)
    e = resampling.resampled(found, sample.rewards, sample.treated, codes, "bootstrap", 2000, 0, 0.95).get(
        "rate", "ate"
    )
    plain = found.get("rate", "ate")
    assert (e.se == plain.se) == wild
    values = row_values(sample.rewards, sample.treated, codes, "rate")
    assert ((e.ci_low, e.ci_high, e.p_value) == wild_interval(*values, 2000, 0)) == wild
    kept = resampling.resampled(found, sample.rewards, sample.treated, codes, "bootstrap", 200, 0, 0.95)
    assert any("has no wild bootstrap" in left.why for left in kept.left_out) == wild


@pytest.mark.parametrize(("first", "used"), [(40, "poisson"), (41, "multinomial")])
def test_poisson_weights_begin_where_they_are_said_to(monkeypatch, first, used):
    seen = []
    for name in ("poisson", "multinomial"):
        monkeypatch.setattr(
            resampling, f"_{name}_weights", lambda out, rng, name=name: (seen.append(name), out.fill(1))
        )
    monkeypatch.setattr(resampling, "POISSON_FROM", first)
    bootstrap(np.arange(40.0)[:, None], np.arange(40) % 2 == 0, draws=3)
    assert set(seen) == {used}


def test_bootstrap_gives_the_sd_its_own_draws():
    world = NumericWorld(effect=1.5, xi_gap=0.5, rewriter=Imperfections(noise=0.2))
    sample = world.sample(400, seed=2)
    draws = bootstrap(sample.rewards, sample.treated, draws=3000)
    sd = pooled_sd(sample.rewards[:, 0], sample.treated)
    assert draws[SD].mean() == pytest.approx(sd, rel=0.01)
    e = effects(sample.rewards, sample.treated).get("rate", "ate")
    assert (draws["rate", "ate"] / draws[SD]).std() == pytest.approx(e.se_sd, rel=0.08)
    assert e.se_sd > 1.5 * e.se / sd


def test_sign_flip_says_when_it_cannot_reach_the_level():
    assert smallest_sign_flip(5) == 2 / 32
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32
    frame = as_frame(NumericWorld().sample(40, seed=1)).assign(prompt_id=[str(i % 5) for i in range(40)])
    notes = rk.estimate(frame, uncertainty="sign-flip").attrs["notes"]
    assert any("no sign-flip p-value of 5 clusters can be under 0.062" in note for note in notes)


def test_sign_flip_counts_sums_that_float32_rounds_as_ties():
    v = np.float32([0.1, 0.2, 0.3]).astype(float)  # 0.1 + 0.2 and 0.3 differ by rounding
    assert sign_flip([*v, 0.0]) == sign_flip([1.0, 2.0, 3.0, 0.0])


def test_a_bootstrap_interval_is_never_cut_off_at_the_draws_that_there_are():
    """Half of the rows are of one prompt, or the treated are two: the t quantile lies beyond every draw."""
    rng = np.random.default_rng(0)
    r = rng.normal(size=(40, 3))
    unequal = np.arange(40) % 2 == 0, np.maximum(np.arange(40) - 19, 0)
    for w, clusters, estimator in ((*unequal, "rate"), (np.arange(40) < 2, np.arange(40), "naive")):
        found = effects(r, w, clusters)
        e = found.get(estimator, "ate")
        assert e.df < 4
        drawn = resampling.resampled(found, r, w, clusters, "bootstrap", 500, 0, 0.95)
        told = drawn.get(estimator, "ate")
        assert (told.ci_low, told.ci_high, told.p_value) == (e.ci_low, e.ci_high, e.p_value)
        assert (told.p_value < 0.05) == (told.ci_low > 0 or told.ci_high < 0)
        assert any(o.estimator == estimator and "do not reach" in o.why for o in drawn.left_out)
    equal = effects(r, unequal[0])
    drawn = resampling.resampled(equal, r, unequal[0], np.arange(40), "bootstrap", 500, 0, 0.95)
    assert drawn.get("rate", "ate").se != equal.get("rate", "ate").se  # many clusters: it is the draws'


def test_naive_of_few_clusters_stays_analytic_under_the_bootstrap():
    """The wild bootstrap of one mean rejects a true null of naive in 21 % of draws at 2 treated of 10."""
    r, w = np.random.default_rng(1).normal(size=(10, 3)), np.arange(10) < 2
    found = effects(r, w)
    drawn = resampling.resampled(found, r, w, np.arange(10), "bootstrap", 300, 0, 0.95)
    assert drawn.get("naive", "ate") == found.get("naive", "ate")
    assert drawn.get("rate", "ate") != found.get("rate", "ate")
    assert any(o.estimator == "naive" and "no wild bootstrap" in o.why for o in drawn.left_out)
