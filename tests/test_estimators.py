"""Estimators: the theorem, its control, and independent computations of every number."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ratekit as rk
from ratekit.errors import InputError
from ratekit.estimators import (
    ESTIMATORS,
    Effect,
    RewardScale,
    Rows,
    Tail,
    agreed,
    clustered_mean,
    convergence,
    correlation,
    effects,
    ends_in_sds,
    geometric_of_means,
    in_sds,
    part_of,
    pooled_sd,
    row_values,
    t_interval,
    wald,
    with_interval,
)
from ratekit.recommendation import Recommendation, shown
from ratekit.resampling import resampled


def table_of(r, w, clusters=None, level=0.95):
    return {(e.estimator, e.estimand): e for e in effects(r, w, clusters, level, unpaired=True)}


def random_data(seed=0, n=120, depth=3, n_clusters=40):
    rng = np.random.default_rng(seed)
    w = rng.random(n) < 0.4
    clusters = rng.integers(0, n_clusters, n)
    r = (
        rng.normal(size=(n, depth + 1))
        + rng.normal(size=n_clusters)[clusters][:, None]
        + w[:, None] * [1.0, -0.5, 0.7, -0.2, 0.9, -0.1][: depth + 1]
    )
    return r, w, clusters


# --- against independent computations --------------------------------------------------------------------


def loop(r, w, clusters, difference, keep):
    """The difference row by row in plain Python, and CR2 with Satterthwaite's degrees of freedom by matrices."""
    rows = [i for i in range(len(w)) if keep(w[i])]
    d = {i: (1 if w[i] else -1) * difference(r[i]) for i in rows}
    mean = sum(d.values()) / len(d)
    found, se, df = cr2(np.array([d[i] for i in rows]), np.ones((len(rows), 1)), clusters[rows], [1.0])
    assert found == pytest.approx(mean)
    half = stats.t.ppf(0.975, df) * se
    p = 2 * stats.t.sf(abs(mean / se), df)
    return mean, se, mean - half, mean + half, p, len(rows), len(np.unique(clusters[rows]))


def cr2(y, x, clusters, contrast):
    """Bell and McCaffrey 2002 by whole matrices: estimate, SE and degrees of freedom of contrast @ beta."""
    bread = np.linalg.inv(x.T @ x)
    residual = y - x @ (bread @ x.T @ y)
    annihilator = np.eye(len(y)) - x @ bread @ x.T
    variance, columns = 0.0, []
    for g in np.unique(clusters):
        rows = clusters == g
        values, vectors = np.linalg.eigh(annihilator[np.ix_(rows, rows)])
        root = np.where(values > 1e-10, 1 / np.sqrt(np.maximum(values, 1e-10)), 0.0)
        adjusted = (vectors * root) @ vectors.T @ x[rows] @ bread @ np.asarray(contrast)
        variance += float(adjusted @ residual[rows]) ** 2
        columns.append(annihilator[:, rows] @ adjusted)
    inner = np.array(columns) @ np.array(columns).T
    return contrast @ bread @ x.T @ y, math.sqrt(variance), np.trace(inner) ** 2 / np.trace(inner @ inner)


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


@pytest.mark.parametrize("name", DIFFERENCES)
def test_equal_clusters_against_statsmodels_cluster_robust_ols(name):
    r, w, _ = random_data(seed=1)
    clusters = np.arange(len(w)) // 4
    d = np.where(w, 1, -1) * np.apply_along_axis(DIFFERENCES[name], 1, r)
    e = table_of(r, w, clusters)[name, "ate"]
    fit = sm.OLS(d, np.ones(len(d))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False, "df_correction": False}
    )
    g = len(np.unique(clusters))
    np.testing.assert_allclose((e.estimate, e.se), (fit.params[0], fit.bse[0] * math.sqrt(g / (g - 1))), rtol=1e-9)
    assert e.df == pytest.approx(g - 1)


def test_naive_against_ols_on_the_class_with_matrices():
    r, w, clusters = random_data(seed=2)  # clusters hold rows of both classes
    e = table_of(r, w, clusters)["naive", "ate"]
    found, se, _df = cr2(r[:, 0], np.stack([w, ~w], axis=1).astype(float), clusters, [1.0, -1.0])
    np.testing.assert_allclose((e.estimate, e.se), (found, se), rtol=1e-9)


def test_naive_with_one_row_a_cluster_is_welchs_t_test():
    r, w, _ = random_data(seed=2, n=30)
    e = table_of(r, w)["naive", "ate"]
    result = stats.ttest_ind(r[w, 0], r[~w, 0], equal_var=False)
    np.testing.assert_allclose((e.estimate / e.se, e.df, e.p_value), (result.statistic, result.df, result.pvalue))
    low, high = result.confidence_interval(0.95)
    np.testing.assert_allclose((e.ci_low, e.ci_high), (low, high))


@pytest.mark.parametrize(("treated", "most"), [(2, 1.0), (5, 0.975)])
def test_naive_covers_with_a_rare_class(treated, most):
    w, samples = np.arange(50) < treated, np.random.default_rng(11).normal(size=(600, 50, 1))
    found = [effects(r, w).get("naive", "ate") for r in samples]
    assert 0.93 <= np.mean([e.ci_low <= 0 <= e.ci_high for e in found]) <= most
    if treated == 2:
        welch = stats.ttest_ind(samples[:, w, 0], samples[:, ~w, 0], axis=1, equal_var=False)
        assert np.mean(welch.pvalue >= 0.05) < 0.9  # the control
        # Equal variances s^2: (1/2 + 1/48)^2 / ((1/2)^2/1 + (1/48)^2/47) = 1.085 degrees of freedom.
        assert max(e.df for e in found) == pytest.approx((1 / 2 + 1 / 48) ** 2 / (1 / 4 + 1 / 48**2 / 47))


def test_naive_with_one_treated_row_has_no_standard_error():
    r, _, _ = random_data(n=30)
    found = effects(r, np.arange(30) == 0)
    assert math.isnan(found.get("naive", "ate").se)
    why = next(e.why for e in found.left_out if e.estimator == "naive")
    assert why == "the treated rows are one cluster, so no standard error"


def test_degrees_of_freedom_by_hand():
    """Shares 1/2, 1/4, 1/4: y = 1/2, 1/12, 1/12, so 1/df = 3/8 + (2/3)^2 - (1/4 + 2/144) = 5/9."""
    mean = clustered_mean(np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 0, 1, 2]))
    assert mean.df == pytest.approx(9 / 5)
    # Mean 3.75, sums -4.5, 0.25, 4.25: variance (4.5^2/(1/2) + 0.25^2/(3/4) + 4.25^2/(3/4)) / 16.
    assert mean.se == pytest.approx(math.sqrt((4.5**2 * 2 + (0.25**2 + 4.25**2) * 4 / 3) / 16))
    assert mean.largest == 0.5


def test_one_cluster_that_holds_nearly_all_leaves_one_degree_of_freedom():
    sizes = np.array([1_000_000, 1, 1])
    mean = clustered_mean(np.random.default_rng(0).normal(size=sizes.sum()), np.repeat([0, 1, 2], sizes))
    assert 1 <= mean.df < 1.001


def test_type_one_error_with_one_prompt_that_holds_half_of_the_rows():
    rng = np.random.default_rng(0)
    for n_clusters in (5, 20):
        sizes = np.r_[5 * (n_clusters - 1), np.full(n_clusters - 1, 5)]
        clusters = np.repeat(np.arange(n_clusters), sizes)
        rejected, plain = 0, 0
        for _ in range(1000):
            d = math.sqrt(0.7) * rng.normal(size=len(clusters)) + math.sqrt(0.3) * rng.normal(size=n_clusters)[clusters]
            mean = clustered_mean(d, clusters)
            rejected += mean.interval()[2] < 0.05
            sums = np.bincount(clusters, d - d.mean())
            se = math.sqrt(n_clusters / (n_clusters - 1) * (sums @ sums)) / len(d)
            plain += 2 * stats.t.sf(abs(d.mean() / se), n_clusters - 1) < 0.05
        assert 0.03 < rejected / 1000 < 0.075  # 0.05 and 3.6 Monte Carlo SEs
        assert plain / 1000 > 0.085  # the control: G/(G-1) and G-1 degrees of freedom


@pytest.mark.parametrize("effect", [0.5, 3.0])
def test_intervals_in_sds_cover_at_any_size_of_the_effect(effect):
    """A world whose within-class SD is 1, 80 rows: dividing the interval by the SD covers half of the time at 3 SD."""
    rng = np.random.default_rng(1)
    covered, as_if_known = 0, 0
    for _ in range(600):
        w = rng.random(80) < 0.5
        base = rng.normal(size=80)
        side = np.stack([w, ~w, w], axis=1) * effect
        r = base[:, None] + side
        r[:, 1:] += 0.3 * rng.normal(size=(80, 2))
        found = effects(r, w)
        e = found.get("rate", "ate")
        covered += e.ci_low_sd <= effect <= e.ci_high_sd
        as_if_known += e.ci_low / found.reward_sd <= effect <= e.ci_high / found.reward_sd
        assert e.estimate_sd == pytest.approx(e.estimate / found.reward_sd)
    assert 0.92 < covered / 600 < 0.975
    if effect == 3.0:
        assert as_if_known / 600 < 0.6


@pytest.mark.parametrize("scores", [[3.0, -1, -1, -1], [0.5, -1, 0.25, 0.25], [0.0, 1, -1, 0]])
def test_the_tail_of_scores_by_hand(scores):
    b = np.array(scores)
    v, n = b**2, np.count_nonzero(b)
    tail = Tail.of(b, 2.5)
    assert tail.se == pytest.approx(math.sqrt(v.sum()))
    assert tail.skewness == pytest.approx((b**3).sum() / v.sum() ** 1.5)
    spread = (v**2).sum() - v.sum() ** 2 / n
    assert tail.df == pytest.approx(min(2.5, 2 * v.sum() ** 2 / spread) if spread else 2.5)
    assert tail.times(-2.0) == pytest.approx((2 * tail.se, -tail.skewness, tail.df))
    assert Tail.of(0 * b, 2.5) == (0.0, 0.0, 2.5)
    assert np.isnan(Tail.of(b * np.nan, 2.5).se)


def test_the_ends_of_a_skewed_sum_undo_halls_transformation():
    """T + g (T^2/3 + 1/6) + g^2 T^3/27 = t at the ends (Hall 1992), T in SEs and g the skewness of the sum."""
    t, g = stats.t.ppf(0.975, 7), 0.2
    low, high = Tail(2.0, g, 7).reach(0.025)
    T = -high / 2
    assert T + g * (T**2 / 3 + 1 / 6) + g**2 * T**3 / 27 == pytest.approx(-t)
    assert low == pytest.approx(2 * t)  # not drawn in
    assert Tail(2.0, -g, 7).reach(0.025) == pytest.approx((high, low))
    assert Tail(2.0, 0.0, 7).reach(0.025) == pytest.approx((2 * t, 2 * t))


@pytest.mark.parametrize("together", [0.0, 0.2, -0.3])
def test_an_end_in_sds_has_both_errors(together):
    arm, t = 0.4, stats.t.ppf(0.95, 5)
    half = math.sqrt(arm**2 + (0.3 * t) ** 2 + 2 * together * arm * 0.3 * t)
    assert in_sds(1.0, arm, Tail(0.3, 0.0, 5), together, 0.05) == pytest.approx((1 - half, 1 + half))
    low, high = in_sds(1.0, arm, Tail(0.3, -0.3, 5), together, 0.05)
    assert 1 - low > 1.1 * (high - 1)
    assert high == pytest.approx(1 + half)


def test_the_sd_of_heavy_tailed_rewards_is_not_taken_for_larger_than_it_may_be():
    rng = np.random.default_rng(2)
    missed, even = [0, 0], 0
    for _ in range(300):
        w = rng.random(150) < 0.5
        base = rng.standard_t(3, 150) / math.sqrt(3)
        r = base[:, None] + np.stack([w, ~w, w], axis=1) * 0.5
        r[:, 1:] += 0.1 * rng.normal(size=(150, 2))
        e = effects(r, w).get("rate", "ate")
        missed[0] += e.ci_low_sd > 0.5
        missed[1] += e.ci_high_sd < 0.5
        even += t_interval(e.estimate_sd, e.se_sd, e.df)[0] > 0.5
    assert missed[0] / 300 < 0.13
    assert missed[1] / 300 < 0.04
    assert even / 300 > 0.16  # the control: arms of equal length


@pytest.mark.parametrize("sign", [1, -1])
def test_an_uncertain_sd_turns_no_effect_into_its_opposite(sign):
    rng = np.random.default_rng(3)
    w = np.arange(40) % 2 == 0
    base = rng.normal(size=40)
    base[[0, 1]] = [25.0, -25.0]  # two originals make most of the SD
    r = base[:, None] + 4 * sign * np.stack([w, ~w, w], axis=1)
    r[:, 1:] += 0.5 * rng.normal(size=(40, 2))
    found = effects(r, w)
    e = found.get("rate", "ate")
    nearest, farthest = sorted([e.ci_low / found.reward_sd, e.ci_high / found.reward_sd], key=abs)
    near, far = sorted([e.ci_low_sd, e.ci_high_sd], key=abs)
    assert 0 < near * sign < 0.5 * nearest * sign
    assert far * sign > farthest * sign
    of_sd = RewardScale(r[:, 0], w, np.arange(40), 40).tail.times(-e.estimate_sd)
    low, high = in_sds(e.estimate_sd, (e.ci_high - e.estimate) / found.reward_sd, of_sd, 0.0, 0.025)
    assert low < 0 < high  # the control: what the two errors say together


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize("uncertainty", ["analytic", "bootstrap", "gap"])
def test_an_interval_in_sds_leaves_out_zero_where_that_of_the_reward_does(n, uncertainty):
    """Differences that grow with the reward's own size: their error goes with that of the SD, and takes from it."""
    rng = np.random.default_rng(n)
    w = np.arange(n) % 2 == 0
    found, shown_apart = 0, 0
    for seed in range(60 if uncertainty != "bootstrap" else 20):
        base = rng.exponential(size=(n, 1)) ** 1.5
        s = np.stack([w, ~w, w], axis=1)
        r = base * (1 + 0.25 * s * rng.normal(size=(n, 1)).clip(-1, 3)) + 0.05 * rng.normal(size=(n, 3))
        of = effects(r, w)
        if uncertainty == "bootstrap":
            of = resampled(of, r, w, np.arange(n), "bootstrap", 400, seed, 0.95)
        if uncertainty == "gap":
            of = shown(of, Recommendation("rate", "ate", "", gap=0.3 * of.get("rate", "ate").se))
        for e in of:
            found += 1
            in_sds_too = e.ci_low_sd > 0 or e.ci_high_sd < 0
            assert (e.ci_low > 0 or e.ci_high < 0) == in_sds_too
            shown_apart += abs(e.estimate_sd) > stats.t.ppf(0.975, e.df) * e.se_sd and not in_sds_too
    assert found > 100
    assert uncertainty != "analytic" or shown_apart  # the control: both errors together leave 0 out more often


def test_the_sd_columns_against_a_jackknife():
    r, w, _ = random_data(seed=9, n=300)
    r = r + 2.0 * np.stack([w, ~w, w, ~w], axis=1)
    e = table_of(r, w)["rate", "att"]
    left = []
    for i in range(len(w)):
        rest = np.arange(len(w)) != i
        of = w[rest]
        left.append((r[rest][of, 2] - r[rest][of, 1]).mean() / pooled_sd(r[rest, 0], of))
    jackknife = math.sqrt((len(w) - 1) * np.var(left))
    assert e.se_sd == pytest.approx(jackknife, rel=0.02)
    assert e.se_sd > 1.1 * e.se / pooled_sd(r[:, 0], w)  # the control: the SD's own uncertainty is a part of it


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
    r, w, clusters = random_data(seed=seed, n=60, depth=5)
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
    both = table_of(r, w, clusters)["rate", "att"]  # whose SD is pooled over both classes
    assert (found["rate", "att"].estimate, found["rate", "att"].se) == pytest.approx((both.estimate, both.se))
    left_out = {(e.estimator, e.estimand): e.why for e in effects(r[w], w[w]).left_out}
    assert left_out["rate", "ate"] == left_out["rate", "atu"] == "no untreated rows"


def test_originals_that_were_not_scored_leave_rate():
    r, w, clusters = random_data()
    r[:, 0] = np.nan
    assert {name for name, _ in table_of(r, w, clusters)} == {"rate", "rate_late"}


@pytest.mark.parametrize("r", [np.full((30, 4), 2.5), np.full((30, 4), 1e99)])
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


def test_huge_rewards_do_not_overflow_and_larger_ones_are_refused():
    r, w, clusters = random_data()
    plain, huge = table_of(r, w, clusters), table_of(r * 1e98, w, clusters)
    for key, e in huge.items():
        assert e.estimate / 1e98 == pytest.approx(plain[key].estimate, rel=1e-9)
        assert e.se / 1e98 == pytest.approx(plain[key].se, rel=1e-9)
        assert e.se_sd == pytest.approx(plain[key].se_sd, rel=1e-6)
    for worst in (1e100, -1e300, np.inf):
        r[7, 2] = worst
        with pytest.raises(InputError, match=re.escape(f"row 8: rewards hold {worst:g}; finite numbers below 1e100")):
            effects(r, w, clusters)


def test_float32_rounding_is_no_variation():
    base = np.random.default_rng(0).normal(5, 3, 40).astype(np.float32)
    r = np.stack([base, base - np.float32(0.1), base + np.float32(0.2)], axis=1).astype(float)
    assert np.ptp(r[:, 2] - r[:, 1]) > 0  # rounding of the float32 sums
    e = table_of(r, np.ones(40, bool))["rate", "att"]
    assert e.estimate == pytest.approx(0.3, abs=1e-6)
    assert math.isnan(e.se)
    moved = table_of(r + 1e-3 * np.random.default_rng(1).normal(size=r.shape), np.ones(40, bool))["rate", "att"]
    assert moved.se > 1e-5


@pytest.mark.parametrize(("step", "told"), [(1.9e-6, False), (2.1e-6, True)])
def test_float32_rounding_is_a_part_in_four_million_of_the_largest(step, told):
    r = np.zeros((40, 3))
    r[0, 1:] = 8.0
    r[1:, 2] = np.float32(step) * (-1.0) ** np.arange(39)
    r[-1, 2] = 0.0
    assert math.isfinite(table_of(r, np.ones(40, bool))["rate", "att"].se) == told


@pytest.mark.parametrize("turn", [1, -1])
def test_an_interval_in_sds_agrees_with_that_of_the_effect_about_zero(turn):
    def turned(low, high):
        return (low, high) if turn > 0 else (-high, -low)

    for ends, nearest, expected in (
        ((-0.1, 2.0), (0.2, 1.0), (0.2, 2.0)), ((0.3, 2.0), (0.2, 1.0), (0.3, 2.0)),
        ((0.1, 2.0), (-0.2, 1.0), (-0.2, 2.0)), ((-0.3, 0.5), (-0.2, 1.0), (-0.3, 1.0)),
        ((0.1, 2.0), (0.0, 1.0), (0.0, 2.0)), ((-2.0, -0.1), (-1.0, 0.0), (-2.0, 0.0)),
    ):  # fmt: skip
        assert agreed(turned(*ends), turned(*nearest)) == turned(*expected)


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_another_interval_takes_what_the_sd_added_to_the_arms(turn):
    """SD 2, estimate 6 +- 2: in SDs 3 with arms 1.25 = hypot(1, 0.75), of which 0.75 is the SD's."""
    e = Effect("rate", "ate", 6.0, 1.0, 4.0, 8.0, 0.01, 9, 9, 0, 9, 0, 8.0, 3.0, 0.6, 1.75, 4.25, 0.1)
    if turn < 0:
        e = replace(e, estimate=-6.0, ci_low=-8.0, ci_high=-4.0, estimate_sd=-3.0, ci_low_sd=-4.25, ci_high_sd=-1.75)

    def moved(low, high):
        found = with_interval(e, *((low, high) if turn > 0 else (-high, -low)), 2.0)
        return found if turn > 0 else (-found[1], -found[0])

    assert moved(2.0, 10.0) == pytest.approx((3 - math.hypot(2, 0.75), 3 + math.hypot(2, 0.75)))
    assert moved(0.1, 8.0) == pytest.approx((0.1 * 1.75 / 4, 4.25))  # leaves 0 out, as in the reward
    assert moved(-1.0, 8.0) == pytest.approx((3 - math.hypot(3.5, 0.75), 4.25))
    assert moved(-0.01, 8.0)[0] < 0
    assert all(math.isnan(v) for v in with_interval(e, 1.0, 2.0, 0.0))
    wide = {"ci_low": -0.5, "ci_low_sd": -0.7} if turn > 0 else {"ci_high": 0.5, "ci_high_sd": 0.7}
    over = replace(e, **wide)
    found = with_interval(over, *((0.2, 8.0) if turn > 0 else (-8.0, -0.2)), 2.0)
    assert min(map(abs, found)) == pytest.approx(0.1)  # no interval to take it from: in SDs of this sample


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


def test_hotellings_statistic_by_hand():
    """Gaps 1 and 2 with variance 1 each: T^2 = 5, and F = T^2 (df - q + 1)/(df q) on q and df - q + 1."""
    assert wald(np.array([1.0, 2.0]), np.eye(2), df=1.5) == pytest.approx((5 / 6, stats.f.sf(5 / 6, 2, 0.5)))
    assert np.isnan(wald(np.array([1.0, 2.0]), np.eye(2), df=1)).all()
    assert np.isnan(wald(np.array([1.0, 2.0]), np.ones((2, 2)), df=9)).all()
    assert np.isnan(wald(np.array([1.0, 2.0]), np.diag([1.0, 0.0]), df=9)).all()


def test_errors_without_size_have_no_correlation():
    assert [correlation(0.1, *ses) for ses in ((0.5, 0.8), (0.0, 2.0), (0.5, 0.0), (math.nan, 2.0))] == [0.25, 0, 0, 0]


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_an_effect_in_sds_has_the_error_of_its_divisor_with_the_opposite_sign(value):
    """To first order an SD whose logarithm comes out e too large makes the effect e times its size too small."""
    error, arm, p = Tail(0.05, 0.5, 9.0), 0.5, 0.025
    below, above = error.reach(p)
    assert above > below
    down, up = (above, below) if value > 0 else (below, above)
    low, high = (math.sqrt(arm**2 + (2 * b) ** 2 - 2 * 0.3 * arm * 2 * b) for b in (down, up))
    assert ends_in_sds(value, arm, error, math.copysign(0.3, value), p) == pytest.approx((value - low, value + high))
    nearest = (abs(value) - 1.9) * math.exp(-above)  # the effect in the largest SD
    near = min(map(abs, ends_in_sds(value, 1.9, error, -math.copysign(1.0, value), p)))
    assert near == pytest.approx(nearest)


def test_the_sd_of_what_differs_by_rounding_is_zero_and_of_one_row_nan():
    w = np.array([True, True, False, False])
    assert RewardScale(np.array([0.3, 0.1 + 0.2, 0.0, 0.0]), w, np.arange(4), 4).sd == 0
    assert RewardScale(np.array([0.3, 0.3 + 1e-14, 0.0, 0.0]), w, np.arange(4), 4).sd > 0
    assert math.isnan(RewardScale(np.array([0.3]), np.array([True]), np.arange(1), 1).sd)


def test_one_cluster_of_all_rows_is_no_cluster_of_the_treated():
    r, w, _ = random_data(n=20)
    for clusters, said in ((np.zeros(20, int), "one cluster"), (np.where(w, 0, 1 + np.arange(20)), "the treated rows")):
        why = [e.why for e in effects(r, w, clusters).left_out if e.estimator == "naive"]
        assert len(why) == 1
        assert why[0].startswith(said)


def test_an_sd_to_which_all_rows_add_the_same_has_no_error():
    w, codes, p = np.arange(16) % 2 == 0, np.arange(16), np.repeat([0.0, 1.0], 8)
    scale = RewardScale(np.tile([-1.0, -1.0, 1.0, 1.0], 4), w, codes, 16)
    part = Rows(np.ones(16, bool), codes, 16).parts(p, 0.0, False)["att"]
    sd, se = math.sqrt(16 / 14), math.sqrt(0.25 / 15)
    half = stats.t.ppf(0.975, 15) * se
    assert scale.divide(part, 0.95) == pytest.approx(np.array([0.5, se, 0.5 - half, 0.5 + half]) / sd)


def test_rewards_are_put_in_their_own_sds_however_small():
    rows = {"estimate": [3.0] * 2, "se": [1.0] * 2, "ci_low": [1.0] * 2, "ci_high": [5.0] * 2, "reward_sd": [0.5, 0.0]}
    assert rk.standardize(pd.DataFrame(rows))["estimate"].tolist() == pytest.approx([6.0, math.nan], nan_ok=True)


def test_clustered_mean_of_nothing():
    mean, se, n_clusters, *_ = clustered_mean(np.array([]), np.array([], int))
    assert math.isnan(mean)
    assert math.isnan(se)
    assert n_clusters == 0


def test_rows_whose_sds_were_not_counted_are_divided_by_the_sd_that_they_are_given():
    rows = {"estimate": [3.0, 3.0], "se": [1.0, 1.0], "ci_low": [1.0, 1.0], "ci_high": [5.0, 5.0]}
    counted = {
        "estimate_sd": [1.4, np.nan],
        "se_sd": [0.6, np.nan],
        "ci_low_sd": [0.2, np.nan],
        "ci_high_sd": [2.6, np.nan],
    }
    out = rk.standardize(pd.DataFrame({**rows, **counted, "reward_sd": [2.0, 2.0]}))
    assert out["estimate"].tolist() == [1.4, 1.5]
    assert out["ci_high"].tolist() == [2.6, 2.5]
    assert out.attrs["unit"] == "SD of this sample"


def test_rewards_that_differ_by_float32_rounding_alone_have_no_sd_anywhere():
    rng = np.random.default_rng(0)
    tiny = np.float32(0.1) + rng.integers(0, 3, 60) * np.spacing(np.float32(0.1))  # within two units in the last place
    w = np.arange(60) % 2 == 0
    r = np.column_stack([tiny, np.float32(rng.standard_normal(60)), np.float32(rng.standard_normal(60))]).astype(float)
    assert pooled_sd(r[:, 0], w) == 0
    found = effects(r, w)
    assert found.reward_sd == 0
    rate = found.get("rate", "ate")
    assert rate.se > 0
    assert np.isnan([rate.estimate_sd, rate.se_sd, rate.ci_low_sd, rate.ci_high_sd]).all()
    exact = r.copy()
    exact[:, 0] += 1e-9 * rng.standard_normal(60)  # float64 numbers: this is a spread, if a small one
    assert effects(exact, w).reward_sd > 0
    assert pooled_sd(exact[:, 0], w) > 0


def test_part_of_is_the_estimate_with_scores_that_give_its_error():
    rng = np.random.default_rng(1)
    r, w, clusters = rng.standard_normal((70, 6)), np.arange(70) < 9, rng.integers(0, 25, 70)
    r[rng.random((70, 6)) < 0.05] = np.nan
    for e in effects(r, w, clusters):
        part = part_of(r, w, clusters, e.estimator, e.estimand)
        assert part.interval() == pytest.approx((e.ci_low, e.ci_high, e.p_value))
        assert np.linalg.norm(part.scores) == pytest.approx(e.se)
        assert (part.value, part.n, part.n_clusters, part.df) == (e.estimate, e.n, e.n_clusters, e.df)
    assert part_of(r, np.ones(70, bool), clusters, "rate") is None


def test_clusters_that_differ_by_the_last_digits_differ_by_more_than_rounding():
    for step, told in ((1.2e-14, True), (0.5e-14, False)):  # of a mean of 1: 1e-14 is rounding
        values = np.array([1 + step, 1 - step])
        assert (Rows(np.ones(2, bool), np.arange(2), 2).parts(values, 0.0, False)["att"].se > 0) == told


def test_the_error_of_the_rate_of_convergence_by_hand():
    """Head 4, 6, 4, 6 and tail 1, 2, 3, 4: rho 1/2, and tail - rho head is -1, -1, 1, 1."""
    r = np.array([[4.0, 1, 0, 0], [6, 2, 0, 0], [4, 3, 0, 0], [6, 4, 0, 0]])
    fit = convergence(r, np.arange(4))
    assert (fit.rho, fit.estimated) == (0.5, True)
    assert fit.se == pytest.approx(np.sqrt(4 / 3) / 2 / 5)


def test_many_draws_of_means_are_estimated_as_each_by_itself():
    draws = np.random.default_rng(0).normal(size=(3, 6))
    each = [float(geometric_of_means(m, 0.1)) for m in draws]
    assert geometric_of_means(draws, 0.1) == pytest.approx(each)


def test_naive_as_one_mean_has_each_rows_influence():
    """3 and 5 of 2 treated rows, 1, 2 and 6 of 3 others: 4 - 3, and n over n of the class times what is above that."""
    r, w = np.array([[3.0], [5.0], [1.0], [2.0], [6.0]]), np.array([1, 1, 0, 0, 0], bool)
    values, _ = row_values(r, w, np.arange(5), "naive")
    assert values == pytest.approx([1 - 5 / 2, 1 + 5 / 2, 1 + 2 * 5 / 3, 1 + 5 / 3, 1 - 3 * 5 / 3])
