"""Estimators: the theorem, its control, and independent computations of every number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ratekit.estimators import ESTIMATORS, Effect, clustered_mean, convergence, effects, pooled_sd, t_interval


def table_of(r, w, clusters=None, level=0.95):
    found = effects(r, w, clusters, level)
    return {(e.estimator, e.estimand): e for e in found if isinstance(e, Effect)}


def random_data(seed=0, n=120, depth=3, n_clusters=40):
    rng = np.random.default_rng(seed)
    w = rng.random(n) < 0.4
    clusters = rng.integers(0, n_clusters, n)
    r = (
        rng.normal(size=(n, depth + 1))
        + rng.normal(size=n_clusters)[clusters][:, None]
        + w[:, None] * [1.0, -0.5, 0.7, -0.2][: depth + 1]
    )
    return r, w, clusters


# --- against independent computations --------------------------------------------------------------------


def loop(r, w, clusters, difference, keep):
    """The formula of the design, row by row, in plain Python."""
    rows = [i for i in range(len(w)) if keep(w[i])]
    d = {i: (1 if w[i] else -1) * difference(r[i]) for i in rows}
    mean = sum(d.values()) / len(d)
    groups = {}
    for i in rows:
        groups.setdefault(clusters[i], []).append(d[i] - mean)
    g = len(groups)
    se = math.sqrt(g / (g - 1) * sum(sum(v) ** 2 for v in groups.values())) / len(d)
    half = stats.t.ppf(0.975, g - 1) * se
    p = 2 * stats.t.sf(abs(mean / se), g - 1)
    return mean, se, mean - half, mean + half, p, len(rows), g


DIFFERENCES = {
    "single_rewrite": lambda r: r[0] - r[1],
    "rate": lambda r: r[2] - r[1],
    "rate_late": lambda r: r[2] - r[3],
}
CLASSES = {"ate": lambda w: True, "att": lambda w: w, "atu": lambda w: not w}


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("estimand", CLASSES)
def test_paired_estimators_against_a_loop(name, estimand):
    r, w, clusters = random_data()
    e = table_of(r, w, clusters)[name, estimand]
    expected = loop(r, w, clusters, DIFFERENCES[name], CLASSES[estimand])
    np.testing.assert_allclose(
        [e.estimate, e.se, e.ci_low, e.ci_high, e.p_value, e.n, e.n_clusters], expected, rtol=1e-9, atol=1e-12
    )
    assert (e.n_treated, e.n_untreated) == (
        sum(CLASSES[estimand](v) and v for v in w),
        sum(CLASSES[estimand](v) and not v for v in w),
    )


def cluster_ols(y, x, clusters):
    """statsmodels' cluster-robust OLS, with its small-sample factor replaced by G/(G-1)."""
    fit = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    g = len(np.unique(clusters))
    return fit.params[-1], fit.bse[-1] * math.sqrt(g / (g - 1))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_paired_ate_against_cluster_robust_ols(name):
    r, w, clusters = random_data(seed=1)
    d = np.where(w, 1, -1) * np.apply_along_axis(DIFFERENCES[name], 1, r)
    e = table_of(r, w, clusters)[name, "ate"]
    np.testing.assert_allclose((e.estimate, e.se), cluster_ols(d, np.ones((len(d), 1)), clusters), rtol=1e-9)


def test_naive_against_cluster_robust_ols_on_the_class():
    r, w, clusters = random_data(seed=2)
    e = table_of(r, w, clusters)["naive", "ate"]
    expected = cluster_ols(r[:, 0], sm.add_constant(w.astype(float)), clusters)
    np.testing.assert_allclose((e.estimate, e.se), expected, rtol=1e-9)


def test_one_row_a_cluster_is_the_paired_t_test():
    r, w, _ = random_data(seed=3)
    e = table_of(r, w)["rate", "att"]
    result = stats.ttest_rel(r[w, 2], r[w, 1])
    np.testing.assert_allclose((e.estimate / e.se, e.p_value), (result.statistic, result.pvalue), rtol=1e-9)
    low, high = result.confidence_interval(0.95)
    np.testing.assert_allclose((e.ci_low, e.ci_high), (low, high), rtol=1e-9)


def test_extrapolated_against_its_own_definition_and_a_bootstrap():
    rng = np.random.default_rng(4)
    n, rho = 4000, np.where(np.arange(4000) % 2 == 0, 0.5, 0.3)
    w = np.arange(n) % 2 == 0
    clusters = np.arange(n) // 4
    residue = 2.0 + 0.3 * rng.normal(size=n // 4)[clusters]
    own, other = np.where(w, 1.0, 0.0), np.where(w, 0.0, 1.0)
    r = np.stack([(own if k % 2 == 0 else other) + residue * rho**k for k in range(4)], axis=1)
    r += 0.3 * rng.normal(size=r.shape)

    def by_definition(r, w):
        effects_of = {}
        for side, sign in ((True, 1), (False, -1)):
            m = r[w == side].mean(axis=0)
            rho_hat = min(max((m[1] - m[3]) / (m[0] - m[2]), 0), 1)
            effects_of[side] = sign * ((m[2] - m[1]) + (m[1] - m[3]) / (1 + rho_hat))
        return w.mean() * effects_of[True] + (1 - w.mean()) * effects_of[False]

    e = table_of(r, w, clusters)["rate_extrapolated", "ate"]
    assert e.estimate == pytest.approx(by_definition(r, w), abs=1e-12)
    rows_of = np.arange(n).reshape(-1, 4)
    draws = []
    for _ in range(400):
        rows = rows_of[rng.integers(0, n // 4, n // 4)].ravel()
        draws.append(by_definition(r[rows], w[rows]))
    assert e.se == pytest.approx(np.std(draws, ddof=1), rel=0.12)


# --- the theorem and its control ---------------------------------------------------------------------------


def world(rho=1.0, marks=0.8, n=20_000, seed=5):
    """Rewards with a true effect of 1, confounded content, and off-target marks that the rewriter leaves.

    The original carries a residue of 2 that each pass multiplies by rho; each rewrite carries `marks`.
    """
    rng = np.random.default_rng(seed)
    w = rng.random(n) < 0.5
    content = rng.normal(size=n) + 1.5 * w  # confounded with the class
    off_target = rng.normal(2.0, 0.2, size=n) * np.where(w, 1.0, 1.5)
    columns = []
    for k in range(4):
        has_attribute = w if k % 2 == 0 else ~w
        carried = marks if k else 0.0
        columns.append(has_attribute * 1.0 + content + off_target * (rho**k) + carried + 0.05 * rng.normal(size=n))
    return np.stack(columns, axis=1), w


def test_rate_is_unbiased_where_the_rewriters_marks_are_the_same_on_every_pass():
    r, w = world(rho=1.0)  # nothing converges: all passes alike
    found = table_of(r, w)
    for estimand in ("ate", "att", "atu"):
        assert found["rate", estimand].estimate == pytest.approx(1.0, abs=0.005)
    assert abs(found["naive", "ate"].estimate - 1) > 0.4  # the control: confounded by content
    assert abs(found["single_rewrite", "att"].estimate - 1) > 0.5  # the control: biased by the marks


@pytest.mark.parametrize("rho", [0.1, 0.4, 0.7])
def test_a_third_rewrite_removes_the_bias_of_slow_convergence(rho):
    r, w = world(rho=rho, marks=0.0)
    found = table_of(r, w)
    bias = 2.0 * rho * (rho - 1)  # of the treated, by the formula of the design
    assert found["rate", "att"].estimate - 1 == pytest.approx(bias, abs=0.01)
    assert abs(found["rate_extrapolated", "att"].estimate - 1) < abs(bias) / 10
    assert abs(found["rate_extrapolated", "atu"].estimate - 1) < abs(1.5 * bias) / 10


def test_convergence_recovers_rho_and_holds_to_the_middle_in_noise():
    r, w = world(rho=0.4, marks=0.0)
    assert convergence(r[w], np.arange(w.sum())).rho == pytest.approx(0.4, abs=0.02)
    noise = np.random.default_rng(6).normal(size=(50, 4))
    held = convergence(noise - noise.mean(axis=0), np.arange(50))
    assert (held.rho, held.weight, held.estimated) == (1.0, 0.5, False)


# --- identities --------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-100, 100), st.floats(0.01, 100))
def test_effects_shift_and_scale_with_the_reward(seed, shift, scale):
    r, w, clusters = random_data(seed=seed, n=40, n_clusters=12)
    if not 0 < w.sum() < len(w):
        return
    plain, moved = table_of(r, w, clusters), table_of(shift + scale * r, w, clusters)
    for key, e in plain.items():
        assert moved[key].estimate == pytest.approx(scale * e.estimate, rel=1e-6, abs=1e-8 * (1 + abs(shift)))
        assert moved[key].se == pytest.approx(scale * e.se, rel=1e-6, abs=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_ate_is_the_weighted_mean_of_att_and_atu(seed):
    r, w, clusters = random_data(seed=seed, n=60)
    found = table_of(r, w, clusters)
    for name, estimator in ESTIMATORS.items():
        if estimator.estimands == ("ate",):
            continue
        ate, att, atu = (found[name, k] for k in ("ate", "att", "atu"))
        assert ate.n == att.n + atu.n
        assert ate.estimate == pytest.approx((att.n * att.estimate + atu.n * atu.estimate) / ate.n, abs=1e-12)


def test_pairing_is_what_makes_the_interval_narrow():
    rng = np.random.default_rng(7)
    base = rng.normal(size=500)
    r = np.stack([base, base - 0.1 * rng.random(500), base + 0.1], axis=1)
    w = rng.random(500) < 0.5
    e = table_of(r, w)["rate", "att"]
    two_sample = math.sqrt(r[w, 2].var(ddof=1) / w.sum() + r[w, 1].var(ddof=1) / w.sum())
    assert e.se_unpaired == pytest.approx(two_sample, rel=1e-12)
    assert e.se < two_sample / 10


# --- what is missing ---------------------------------------------------------------------------------------


def test_each_estimator_uses_the_rows_that_it_can_and_counts_the_rest():
    r, w, clusters = random_data()
    r[:10, 0] = np.nan
    r[10:15, 3] = np.nan
    found = table_of(r, w, clusters)
    n, n1 = len(w), int(w.sum())
    assert (found["naive", "ate"].n, found["naive", "ate"].n_dropped) == (n - 10, 10)
    assert (found["rate", "ate"].n, found["rate", "ate"].n_dropped) == (n, 0)
    assert (found["rate_extrapolated", "ate"].n, found["rate_extrapolated", "ate"].n_dropped) == (n - 15, 15)
    assert found["rate_late", "att"].n_dropped == w[10:15].sum()
    assert found["rate_late", "att"].n + found["rate_late", "att"].n_dropped == n1
    whole = table_of(r[15:], w[15:], clusters[15:])
    assert found["rate_extrapolated", "ate"].estimate == whole["rate_extrapolated", "ate"].estimate


def test_one_class_gives_its_own_effect_alone():
    r, w, clusters = random_data()
    found = table_of(r[w], w[w], clusters[w])
    assert {estimand for _, estimand in found} == {"att"}
    assert "naive" not in {name for name, _ in found}
    assert found["rate", "att"] == table_of(r, w, clusters)["rate", "att"]
    notes = [e for e in effects(r[w], w[w]) if isinstance(e, str)]
    assert "rate: no untreated rows, so no ATE and no ATU" in notes


def test_originals_that_were_not_scored_leave_rate():
    r, w, clusters = random_data()
    r[:, 0] = np.nan
    assert {name for name, _ in table_of(r, w, clusters)} == {"rate", "rate_late"}


@pytest.mark.parametrize("r", [np.full((30, 4), 2.5), np.full((30, 4), 1e300)])
def test_constant_rewards_claim_no_precision(r):
    w = np.arange(30) % 2 == 0
    for e in table_of(r, w).values():
        assert e.estimate == 0
        assert math.isnan(e.se)
        assert math.isnan(e.p_value)
        assert math.isnan(e.ci_low)


def test_one_cluster_gives_nan_never_zero():
    r, w, _ = random_data()
    own = table_of(r, w)
    for (name, estimand), e in table_of(r, w, np.zeros(len(w), int)).items():
        if name != "rate_extrapolated":  # whose weight depends on the clusters
            assert e.estimate == pytest.approx(own[name, estimand].estimate, rel=1e-12)
        assert math.isfinite(e.estimate)
        assert math.isnan(e.se)
        assert math.isnan(e.p_value)


def test_huge_rewards_do_not_overflow():
    r, w, clusters = random_data()
    plain, huge = table_of(r, w, clusters)["rate", "ate"], table_of(r * 1e300, w, clusters)["rate", "ate"]
    assert huge.estimate / 1e300 == pytest.approx(plain.estimate, rel=1e-9)
    assert huge.se / 1e300 == pytest.approx(plain.se, rel=1e-9)


def test_t_interval_against_scipy():
    low, high, p = t_interval(1.3, 0.4, df=7, level=0.9)
    expected = stats.t.interval(0.9, 7, loc=1.3, scale=0.4)
    np.testing.assert_allclose((low, high, p), (*expected, 2 * stats.t.sf(1.3 / 0.4, 7)), rtol=1e-9)
    assert all(math.isnan(v) for v in t_interval(1.0, float("nan"), 5))


def test_pooled_sd_is_the_root_mean_square_of_the_one_way_anova():
    r, w, _ = random_data()
    fit = sm.OLS(r[:, 0], sm.add_constant(w.astype(float))).fit()
    assert pooled_sd(r[:, 0], w) == pytest.approx(math.sqrt(fit.mse_resid), rel=1e-12)
    assert math.isnan(pooled_sd([np.nan, np.nan], [True, False]))


def test_clustered_mean_of_nothing():
    mean, se, n_clusters = clustered_mean(np.array([]), np.array([], int))
    assert math.isnan(mean)
    assert math.isnan(se)
    assert n_clusters == 0
