"""Diagnostics: the checks see what a rewriter does wrong, and every number is what its formula says."""

from __future__ import annotations

import importlib
import math
import re

import numpy as np
import pandas as pd
import pytest
from rapidfuzz import fuzz
from scipy import stats

import ratekit as rk
from ratekit.diagnostics.contrasts import _equal, _Pair
from ratekit.diagnostics.evidence import shared_words
from ratekit.diagnostics.spillover import _through, _untold
from ratekit.estimators import Rows, clustered_mean, effects, pooled_sd, row_values, t_interval
from ratekit.intervals import Regression
from ratekit.measures import MEASURES, faults
from ratekit.resampling import confidence_sequence
from ratekit.simulate import Imperfections, NumericWorld, RuleReward, TextWorld

CLEAN = TextWorld("length", "sentiment", typos=(0.0, 0.0), rewriter=Imperfections())


def frame(rewards, treated, clusters=None, attribute="length", **columns):
    """Scored rows: rewards {name: (n, depth+1)}."""
    n = len(treated)
    ids = np.arange(n) if clusters is None else clusters
    data = {"prompt_id": np.asarray(ids).astype(str), "attribute": attribute, "treated": treated, **columns}
    for name, r in rewards.items():
        data[f"reward/{name}"] = [[None if np.isnan(v) else float(v) for v in row] for row in np.asarray(r, float)]
    return pd.DataFrame(data)


def of(sample, name="rm", **columns):
    return frame({name: sample.rewards}, sample.treated, sample.clusters, **columns)


def group_of(values, codes, n_codes):
    """One group's effect, as `_equal` takes it."""
    return Rows(np.ones(len(values), bool), codes, n_codes).parts(np.asarray(values), 0.0, False)["att"], codes


def verdict(checks):
    row = checks[checks["check"] == "verdict"].iloc[-1]
    return row["group"], row["words"]


# --- diagnose --------------------------------------------------------------------------------------------


def test_bundled_length_rewrites_drift_and_sentiment_rewrites_do_not():
    checks = rk.diagnose(rk.load("reviews", attribute="length"))
    drift = checks[(checks["check"] == "drift") & (checks["about"] == "own")].set_index("group")
    assert drift.loc["untreated", "value"] > 50  # words: by hand from the texts below
    assert drift.loc["treated", "value"] > 25
    assert (drift["p_adjusted"] < 1e-6).all()
    word, because = verdict(checks)
    assert word == "do not trust"
    assert "third rewrite of untreated responses differs from the first in words by +67% of" in because

    checks = rk.diagnose(rk.load("reviews", attribute="sentiment"))
    drift = checks[(checks["check"] == "drift") & (checks["about"] == "own")]
    assert (drift["value"].abs() < 0.05).all()
    assert (checks.loc[checks["check"] == "drift", "p_adjusted"] > 0.05).all()
    assert verdict(checks)[0] == "trust with care"
    assert "nothing is scored" in verdict(checks)[1]


def test_drift_dose_and_compliance_are_the_plain_means_of_the_texts():
    ds = rk.load("reviews", attribute="length")
    checks = rk.diagnose(ds).set_index(["check", "group"])
    n = np.array([[len(t.split()) for t in (r, *more)] for r, more in zip(ds["response"], ds["rewrites"], strict=True)])
    w = np.array(ds["treated"])
    assert checks.loc[("drift", "untreated"), "value"] == pytest.approx((n[~w, 3] - n[~w, 1]).mean())
    assert checks.loc[("dose", "treated, rewrite 2"), "value"] == pytest.approx((n[w, 2] - n[w, 1]).mean())
    share = (n[w, 1] < n[w, 0]).mean()
    assert checks.loc[("compliance", "treated, rewrite 1"), "value"] == pytest.approx(share)
    assert math.isnan(checks.loc[("compliance", "treated, rewrite 1"), "se"])  # all comply
    kept = [shared_words(r, more[0]) for r, more, of in zip(ds["response"], ds["rewrites"], w, strict=True) if of]
    content = checks.loc[("content", "treated, rewrite 1")]
    assert (content["value"], content["se"]) == pytest.approx((np.mean(kept), stats.sem(kept)))
    alike = [fuzz.ratio(r, more[1]) / 100 for r, more, of in zip(ds["response"], ds["rewrites"], w, strict=True) if of]
    assert checks.loc[("similarity", "treated"), "value"] == pytest.approx(np.mean(alike))
    d = n[~w, 3] - n[~w, 1]
    assert checks.loc[("drift", "untreated"), "p_value"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    texts = zip(ds["response"], ds["rewrites"], strict=True)
    grade = np.array([MEASURES["readability"]([r, *more]) for r, more in texts])
    moved = checks.loc[("balance", "treated, readability"), "value"]
    assert moved == pytest.approx((grade[w, 2] - grade[w, 1]).mean())


def test_a_perfect_rewriter_is_trusted_and_each_fault_is_found():
    clean = CLEAN.sample(120, seed=1).dataset()
    assert verdict(rk.diagnose(clean))[0] == "trust with care"  # nothing is scored
    assert not re.search(r"-0(\.0+)?%", " ".join(rk.diagnose(rk.load("reviews"))["words"].astype(str)))
    assert verdict(rk.diagnose(rk.score(clean, "words", progress=False)))[0] == "trust"

    lazy = TextWorld("length", typos=(0, 0), rewriter=Imperfections(noncompliance=0.4))
    word, because = verdict(rk.diagnose(lazy.sample(200, seed=1).dataset()))
    assert word == "do not trust"
    assert "of the rewrites towards" in because

    leaky = TextWorld("length", "sentiment", typos=(0, 0), rewriter=Imperfections(leak=0.6))
    word, because = verdict(rk.diagnose(leaky.sample(200, seed=1).dataset()))
    assert word == "trust with care"
    assert "sentiment also moves" in because

    slow = TextWorld("length", typos=(0.3, 0.3), markup=(0.5, 0.5), rewriter=Imperfections(rho=0.6))
    word, because = verdict(rk.diagnose(slow.sample(200, seed=1).dataset()))
    assert word == "trust with care"
    assert "faults drifts" in because


def test_a_reward_that_still_drifts_is_found_and_its_rho_is_told():
    slow = TextWorld("length", typos=(0.3, 0.3), rewriter=Imperfections(rho=0.5))
    reward = RuleReward(words=0.0, vowel=0.0, typos=-5.0, extras=0.0)
    ds = rk.score(slow.sample(300, seed=1).dataset(), reward, name="typo hater", progress=False)
    checks = rk.diagnose(ds)
    rho = checks[checks["check"] == "rho"]
    assert rho["value"].between(0.4, 0.6).all()
    assert (rho["words"] == "estimated").all()
    drift = checks[(checks["check"] == "drift") & (checks["about"] == "reward/typo hater")]
    assert (drift["value"] > 0).all()
    assert (drift["p_adjusted"] < 1e-6).all()
    word, because = verdict(checks)
    assert word == "trust with care"
    assert "both classes drift, which cancels in the ATE and not in ATT and ATU" in because


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ds: ds.select(range(20)), "only 20 clusters"),
        (lambda ds: ds.filter(lambda row: row["treated"]), "every row is treated"),
        (lambda ds: ds.map(lambda row: {"prompt_id": "one"}), "all rows are one cluster"),
        (lambda ds: ds.map(lambda row: {"rewrites": row["rewrites"][:2], "rewrite_status": ["ok", "ok"]}), "no third"),
        (lambda ds: ds.map(lambda row: {"attribute": "elegance"}), "no measure"),
    ],
)
def test_what_cannot_be_checked_is_said(change, why):
    ds = change(CLEAN.sample(80, seed=1).dataset())
    word, because = verdict(rk.diagnose(ds))
    assert word != "trust"
    assert why in because


def test_failed_rewrites_are_counted_and_all_failed_is_not_trusted():
    ds = CLEAN.sample(60, seed=1).dataset(depth=2)
    broken = ds.map(
        lambda row, i: {
            "rewrites": row["rewrites"] if i % 2 else [None, None],
            "rewrite_status": ["ok", "ok"] if i % 2 else ["refused", "not_attempted"],
        },
        with_indices=True,
    )
    checks = rk.diagnose(broken)
    status = checks[checks["check"] == "status"].set_index("group")["value"]
    assert status["rewrite 1"] == status["rewrite 1, refused"] == 0.5
    assert [k for k in status.index if "rewrite 1" in k] == ["rewrite 1", "rewrite 1, refused"]
    assert "50% of the rewrites succeeded" in verdict(checks)[1]
    none = ds.map(lambda row: {"rewrites": [None, None], "rewrite_status": ["refused", "not_attempted"]})
    word, because = verdict(rk.diagnose(none))
    assert word == "do not trust"
    assert "0% of the rewrites succeeded" in because


def test_chains_of_unequal_depth_use_the_rows_that_reach():
    ds = CLEAN.sample(90, seed=1).dataset(depth=3)
    uneven = ds.map(
        lambda row, i: {"rewrites": row["rewrites"][: 1 + i % 3], "rewrite_status": ["ok"] * (1 + i % 3)},
        with_indices=True,
    )
    checks = rk.diagnose(uneven)
    drift = checks[(checks["check"] == "drift") & (checks["about"] == "own")]
    assert drift["n"].sum() == 30
    assert checks[checks["check"] == "verdict"]["n"].item() == 90


def test_own_measures_count_as_the_attributes_or_as_others():
    ds = CLEAN.sample(60, seed=1).dataset().map(lambda row: {"attribute": "wordiness"})

    def letters(texts):
        return [float(len(t)) for t in texts]

    checks = rk.diagnose(ds, measures={"wordiness": letters})
    assert (checks[checks["check"] == "compliance"]["value"] == 1).all()
    with pytest.raises(rk.InputError, match="shape"):
        rk.diagnose(ds, measures={"bad": lambda texts: [1.0]})
    with pytest.raises(rk.InputError, match="rewrites"):
        rk.diagnose(ds.remove_columns("rewrites"))


def test_faults_counts_what_rewriters_mend():
    assert faults(["Teh plot <br/><br/> is thin!!!", ""]).tolist() == [60.0, 0.0]
    assert faults(["A clean text. It has no fault."])[0] == 0
    assert faults(["I think so, and so do I.", "It works, i.e. it is on."]).tolist() == [0.0, 0.0]
    assert faults(["And so do i."]).tolist() == [25.0]


# --- contrast --------------------------------------------------------------------------------------------


def two_rewards(n, seed, difference=0.3, scale=2.0):
    """The rewards of two models on the same rows, then treated and clusters."""
    world = NumericWorld(effect=0.5, rewriter=Imperfections(noise=0.2), cluster_sizes=(1, 3))
    sample = world.sample(n, seed)
    rng = np.random.default_rng(seed + 10_000)
    s = np.where(sample.treated, 1.0, -1.0)[:, None]
    sides = s * np.array([1, -1, 1, -1]) / 2  # +-1/2 along the chain
    other = sample.rewards + difference * sides + 0.2 * rng.standard_normal(sample.rewards.shape)
    return [scale * other, sample.rewards], sample.treated, sample.clusters


def two_models(n, seed, **world):
    rewards, treated, clusters = two_rewards(n, seed, **world)
    return frame(dict(zip("ab", rewards, strict=True)), treated, clusters)


def test_contrast_in_reward_units_is_the_difference_of_the_effects():
    ds = two_models(200, 1)
    table = rk.estimate(ds).set_index(["reward_model", "estimator", "estimand"])["estimate"]
    out = rk.contrast(ds, "a", "b", unit="reward").set_index("estimand")
    for estimand in ("ate", "att", "atu"):
        gap = table["a", "rate", estimand] - table["b", "rate", estimand]
        assert out.loc[estimand, "estimate"] == pytest.approx(gap)
        assert out.loc[estimand, "first"] == pytest.approx(table["a", "rate", estimand])


def test_contrast_in_sds_does_not_mind_the_scale_and_a_model_does_not_differ_from_itself():
    ds = two_models(200, 2, scale=1.0)
    for factor in (0.01, 1e6, 1e98):
        ds["reward/c"] = [[factor * v + factor for v in row] for row in ds["reward/a"]]
        np.testing.assert_allclose(
            rk.contrast(ds, "c", "b")[["estimate", "se"]], rk.contrast(ds, "a", "b")[["estimate", "se"]], rtol=1e-6
        )
        same = rk.contrast(ds, "c", "a")
        assert same["estimate"].abs().max() < 1e-9
        assert not (same["p_value"] < 0.05).any()


def test_contrast_covers_and_counts_the_uncertainty_of_the_sds():
    big, w, _ = two_rewards(30_000, 3)
    first, second = ((np.where(w, 1, -1) * (r[:, 2] - r[:, 1])).mean() / pooled_sd(r[:, 0], w) for r in big)
    hits, found, ses = [], [], []
    for seed in range(250):
        value, se, (low, high, p), *_ = _Pair(*two_rewards(100, seed), "rate", 0).difference("ate")
        if seed == 0:
            row = rk.contrast(two_models(100, seed), "a", "b").iloc[0]
            assert (value, se, p) == pytest.approx((row["estimate"], row["se"], row["p_value"]))
        hits.append(low <= first - second <= high)
        found.append(value)
        ses.append(se)
    assert 0.91 <= np.mean(hits) <= 0.98
    assert np.mean(ses) == pytest.approx(np.std(found), rel=0.12)


def test_the_p_value_of_a_contrast_in_sds_is_that_of_its_interval():
    """With effects of some SDs and heavy tails the arms differ, and the p-value is under .05 where they leave 0 out."""
    rng = np.random.default_rng(5)
    beyond, arms = [], []
    for shift in np.linspace(-0.6, 0.6, 25):
        w, base = rng.random(80) < 0.5, rng.standard_t(3, size=(2, 80))
        side = np.where(np.stack([w, ~w, w], axis=1), 2.0, 0.0)
        r = [
            b[:, None] + (1 + f * shift) * side + 0.3 * rng.normal(size=(80, 3))
            for f, b in zip((1, 0), base, strict=True)
        ]
        value, _, (low, high, p), *_ = _Pair(r, w, np.arange(80), "rate", 0).difference("ate")
        beyond.append(low > 0 or high < 0)
        assert (p < 0.05) == beyond[-1]
        arms.append((value - low) / (high - value))
        narrow = _Pair(r, w, np.arange(80), "rate", 0).difference("ate", 0.5)
        assert narrow[2][2] == p
        assert low < narrow[2][0] < value < narrow[2][1] < high
    assert 0 < sum(beyond) < 25
    assert min(arms) < 0.8
    assert max(arms) > 1.25
    far = [r[0] + 5 * side, r[1]]  # 7 SDs and 1: each by itself says so, whatever the SDs
    assert _Pair(far, w, np.arange(80), "rate", 0).difference("ate")[2][2] < 0.05
    far = [rng.normal(size=80)[:, None] + f * side + 0.3 * rng.normal(size=(80, 3)) for f in (3, 1)]
    assert _Pair(far, w, np.arange(80), "rate", 0).difference("ate")[2][2] < 1e-5


def test_a_contrast_of_chains_of_unequal_depth_is_that_of_the_passes_that_both_have():
    """Passes beyond the fourth count where every row of both rewards has them."""
    sample = NumericWorld().sample(40, seed=1, depth=5)
    r, other = sample.rewards, sample.rewards[:, ::-1] + np.arange(40)[:, None]
    ragged = r.copy()
    ragged[::2, 5] = np.nan

    def of_two(a, b):
        ds = frame({"a": a, "b": b}, sample.treated)
        return rk.contrast(ds, "a", "b", estimator="rate_geometric", unit="reward")["estimate"].tolist()

    assert of_two(ragged, other) == pytest.approx(of_two(r[:, :5], other[:, :5]))
    assert of_two(r, other) != pytest.approx(of_two(r[:, :5], other[:, :5]))  # the control: the fifth pass counts


def test_contrast_drops_rows_that_one_model_lacks_and_says_so():
    ds = two_models(100, 4)
    ds["reward/a"] = [None if i < 10 else row for i, row in enumerate(ds["reward/a"])]
    out = rk.contrast(ds, "a", "b", unit="reward")
    assert out["n_dropped"].iloc[0] == 10
    with pytest.raises(rk.InputError, match="did you mean"):
        rk.contrast(ds, "aa", "b")
    with pytest.raises(rk.InputError, match="unit"):
        rk.contrast(ds, "a", "b", unit="sds")
    ds["reward/b"] = [row[:2] for row in ds["reward/b"]]
    with pytest.raises(rk.InputError, match="needs rewards after 2"):
        rk.contrast(ds, "a", "b")


def test_constant_rewards_have_no_sd_and_so_no_contrast():
    ds = two_models(60, 5)
    ds["reward/a"] = [[1.0] * 4] * 60
    out = rk.contrast(ds, "a", "b")
    assert out[["estimate", "se", "p_value"]].isna().all(axis=None)


def test_a_contrast_needs_the_passes_and_the_classes_of_its_estimator():
    r = np.random.default_rng(0).standard_normal((30, 2))
    w = np.r_[np.ones(10, bool), np.zeros(10, bool), np.arange(10) % 2 == 0]
    ds = frame({"a": r, "b": 2 * r[::-1]}, w, part=np.repeat(["treated", "untreated", "both"], 10))
    with pytest.raises(rk.InputError, match=r"needs rewards after 2 rewrites, not 1$"):
        rk.contrast(ds, "a", "b")
    out = rk.contrast(ds, "a", "b", estimator="naive", by="part")
    assert out["part"].tolist() == ["both"]
    ds["reward/b"] = [[None, None]] * 30
    with pytest.raises(rk.InputError, match=r"from both a and b$"):
        rk.contrast(ds, "a", "b", estimator="naive", unit="reward")
    with pytest.raises(rk.InputError, match="from both a and b; the originals are not scored"):
        rk.contrast(ds, "a", "b", estimator="naive")


def test_p_values_are_adjusted_beside_themselves():
    ds = two_models(40, 1)
    ds["half"] = ["x", "y"] * (len(ds) // 2) + ["x"] * (len(ds) % 2)
    rewriters = pd.concat([ds.assign(rewriter=name) for name in "pq"])
    for table in (rk.contrast(ds, "a", "b"), rk.heterogeneity(ds, "half"), rk.across_rewriters(rewriters)):
        columns = table.columns.tolist()
        assert columns.index("p_adjusted") == columns.index("p_value") + 1


# --- heterogeneity ---------------------------------------------------------------------------------------


def test_heterogeneity_is_welchs_anova_where_rows_are_independent():
    from statsmodels.stats.oneway import anova_oneway

    rng = np.random.default_rng(0)
    groups = np.repeat(["x", "y", "z"], [30, 50, 20])
    d = rng.normal(0, np.repeat([0.5, 1.0, 2.0], [30, 50, 20]))
    ds = frame({"rm": np.stack([0 * d, 0 * d, d], axis=1)}, np.ones(100, bool), source=groups)
    out = rk.heterogeneity(ds, by="source").set_index("estimand").loc["att"]
    expected = anova_oneway([d[groups == g] for g in "xyz"], use_var="unequal")
    assert out["statistic"] == pytest.approx(expected.statistic)
    assert out["p_value"] == pytest.approx(expected.pvalue)


def test_heterogeneity_keeps_its_level_with_prompts_across_groups_and_finds_a_difference():
    rng, null, real = np.random.default_rng(0), [], []
    for _ in range(500):
        d = rng.normal(0, 1, 40) + rng.normal(0, 0.5, (3, 40))  # each prompt has a row in each group
        for found, effect in ((null, 0.0), (real, 0.5)):
            parts = [group_of(of_group + effect * (i == 2), np.arange(40), 40) for i, of_group in enumerate(d)]
            found.append(_equal(parts)["p_value"] < 0.05)
    assert np.mean(null) <= 0.08  # 0.05 and 3 Monte Carlo SEs
    assert np.mean(real) > 0.9


def test_heterogeneity_without_groups_to_compare_is_nan():
    sample = NumericWorld().sample(40, seed=1)
    out = rk.heterogeneity(of(sample, source="all"), by="source")
    assert out["p_value"].isna().all()
    assert (out["n_groups"] == 1).all()
    with pytest.raises(rk.InputError, match="column to group by"):
        rk.heterogeneity(of(sample), by="sourc")


# --- sensitivity -----------------------------------------------------------------------------------------


def test_the_tipping_point_brackets_an_asymmetry_that_makes_up_the_whole_effect():
    d, rows = 0.4, []
    world = NumericWorld(effect=0.0, xi_weight=1.0, rewriter=Imperfections(asymmetry=d, noise=0.3))
    for seed in range(150):
        sample = world.sample(150, seed, depth=2)
        found = effects(sample.rewards, sample.treated, sample.clusters)
        rows.append({**vars(found.get("rate", "ate")), "reward_sd": found.reward_sd})
    table = rk.sensitivity(pd.DataFrame(rows))
    true = d / table["reward_sd"]  # in SDs: polish times its weight
    assert true.between(table["tips_significance"], table["tips_certainly"]).mean() >= 0.92
    assert table["tips_sign"].between(table["tips_significance"], table["tips_certainly"]).all()


def test_below_the_tipping_point_the_sign_holds_and_above_it_is_lost():
    table = rk.sensitivity(rk.estimate(of(NumericWorld(effect=0.3, xi_weight=1.0).sample(400, seed=1))))
    tip = table.query("estimator == 'rate' & estimand == 'ate'").iloc[0]
    for factor, sign in ((0.95, 1), (1.05, -1)):
        d = factor * tip["tips_sign"] * tip["reward_sd"]
        world = NumericWorld(effect=0.3, xi_weight=1.0, rewriter=Imperfections(asymmetry=-d))
        estimate = rk.estimate(of(world.sample(400, seed=1))).query("estimator == 'rate' & estimand == 'ate'")
        assert np.sign(estimate["estimate"].item()) == sign


def test_drift_tips_where_the_late_pair_says_the_opposite():
    t = pd.DataFrame({
        "attribute": "a", "reward_model": "m", "estimator": ["rate", "rate_late"], "estimand": "ate",
        "estimate": [1.0, -1.0], "se": [0.1, 0.1], "ci_low": [0.8, -1.2], "ci_high": [1.2, -0.8], "reward_sd": 1.0,
    })  # fmt: skip
    out = rk.sensitivity(t).iloc[0]
    assert out["drift_tips_sign"] == pytest.approx(0.5)
    assert out["drift_tips_significance"] == pytest.approx(0.4, abs=0.002)  # 1 - 2L = 0.2
    t["estimate"] = [1.0, 0.9]
    assert rk.sensitivity(t).iloc[0]["drift_tips_sign"] == np.inf
    with pytest.raises(rk.InputError, match="reward_sd"):
        rk.sensitivity(t.drop(columns="reward_sd"))


@pytest.mark.parametrize(
    ("late", "se", "sign", "significance"),
    [(0.0, 0.25, 1.0, 0.5), (-1.0, 0.25, 0.5, 0.25), (-0.5, 0.75, 2 / 3, 0.5 / 2.5), (2.0, 0.25, np.inf, np.inf),
     (0.5, 0.25, np.inf, 1.0), (-3000.0, 0.25, 0.001, 0.001)],
)  # fmt: skip
@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_tipping_points_by_drift_by_hand(late, se, sign, significance, turn):
    """At L the estimate is (1 - L) + L late, its SE at most (1 - L)/4 + L se, and the interval reaches 2 SE."""
    rate, late = turn, turn * late
    t = pd.DataFrame({
        "attribute": "a", "reward_model": "m", "estimator": ["rate", "rate_late"], "estimand": "ate",
        "estimate": [rate, late], "se": [0.25, se], "ci_low": [rate - 0.5, late - 2 * se],
        "ci_high": [rate + 0.5, late + 2 * se], "reward_sd": 1.0,
    })  # fmt: skip
    row = rk.sensitivity(t).iloc[0]
    first = 0.001 if sign == 2 / 3 else 0  # the first of 1,001 values of L at or beyond
    assert row["drift_tips_sign"] == pytest.approx(sign, abs=first)
    assert row["drift_tips_significance"] == pytest.approx(significance, abs=0.0009 if significance != 0.5 else 0)
    t.loc[0, "se"] = 0.0
    row = rk.sensitivity(t).iloc[0]
    assert np.isnan(row["drift_tips_significance"])
    assert row["drift_tips_sign"] == pytest.approx(sign, abs=first)
    assert "drift_tips_sign" not in rk.sensitivity(t[:1])


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_a_drift_tips_at_the_end_of_the_interval_that_is_nearer_to_0(turn):
    """An interval from 0.2 to 3 about 1, as a bootstrap gives: at L it reaches 0 where 1 - 2 L = 0.8, an arm below."""
    ends = [sorted(turn * v for v in of) for of in ((0.2, 3.0), (-1.8, 1.0))]
    t = pd.DataFrame({
        "attribute": "a", "reward_model": "m", "estimator": ["rate", "rate_late"], "estimand": "ate",
        "estimate": [turn, -turn], "se": 0.5, "ci_low": [ends[0][0], ends[1][0]], "ci_high": [ends[0][1], ends[1][1]],
        "reward_sd": 1.0,
    })  # fmt: skip
    assert rk.sensitivity(t)["drift_tips_significance"].iloc[0] == pytest.approx(0.1)


def test_tipping_points_by_drift_are_of_the_rows_own_group_and_estimand():
    samples = [NumericWorld(effect=e).sample(60, seed=1) for e in (0.5, -0.5)]
    ds = pd.concat([of(s, part=part, attribute=a) for s in samples for part in "xy" for a in ("length", "tone")])
    turned = (ds["part"] == "y") & (ds["attribute"] == "tone")
    ds["reward/rm"] = [
        [*r[:3], r[2] + 9 * (1 if w else -1)] if turn else r
        for r, w, turn in zip(ds["reward/rm"], ds["treated"], turned, strict=True)
    ]
    table = rk.estimate(ds, by="part")
    out = rk.sensitivity(table)
    rate = out[out["estimator"] == "rate"]
    assert len(rate) == 12
    assert rate["drift_tips_sign"].notna().all()
    key = ["part", "attribute", "reward_model", "estimand"]
    late = table[table["estimator"] == "rate_late"].set_index(key)["estimate"]
    for _, row in rate.iterrows():
        opposite = row["estimate"] * late[tuple(row[k] for k in key)] < 0
        assert np.isfinite(row["drift_tips_sign"]) == opposite
    assert out[out["estimator"] != "rate"]["drift_tips_sign"].isna().all()


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_tipping_points_by_asymmetry_by_hand(turn):
    ends = sorted([turn * 0.5, turn * 2.5])
    t = pd.DataFrame({"estimate": [turn * 1.5], "ci_low": ends[:1], "ci_high": ends[1:], "reward_sd": [0.5]})
    tips = ["tips_significance", "tips_sign", "tips_certainly"]
    assert rk.sensitivity(t)[tips].iloc[0].tolist() == [1.0, 3.0, 5.0]
    assert rk.sensitivity(t.assign(estimator="naive"))[tips].isna().all(axis=None)
    t["ci_low"], t["ci_high"] = -3.0, 3.0
    assert rk.sensitivity(t)["tips_significance"].item() == 0
    low, high = sorted([turn * 0.2, turn * 3.0])  # with the SD's own error
    counted = t.assign(estimate_sd=turn * 1.5, se_sd=0.7, ci_low_sd=low, ci_high_sd=high)
    assert rk.sensitivity(counted)[tips].iloc[0].tolist() == [0.2, 1.5, 3.0]
    assert rk.sensitivity(t.assign(reward_sd=0.0))[tips].isna().all(axis=None)


# --- spillover and dose ----------------------------------------------------------------------------------


def measured_by_words(text):
    return np.array([float(len(t.split())) for t in text])


def test_spillover_finds_what_moves_and_what_it_is_worth():
    world = TextWorld("length", "sentiment", typos=(0, 0), rewriter=Imperfections(leak=0.5))
    reward = RuleReward(words=0.02, sentiment=0.7, vowel=0, extras=0, complexity=0)
    ds = rk.score(world.sample(300, seed=1).dataset(2), reward, name="rules", progress=False)

    def tone(texts):
        return RuleReward(words=0, sentiment=1.0, typos=0, vowel=0, extras=0, complexity=0)([], texts)

    table = rk.spillover(ds, measures={"words": measured_by_words, "tone": tone}).set_index("measure")
    assert table.loc["words", "per_unit"] == pytest.approx(0.02)
    assert table.loc["tone", "per_unit"] == pytest.approx(0.7)
    assert table.loc["tone", "shift"] == pytest.approx(0.5 * 2, abs=0.15)  # leak, from blame (-1) to praise (+1)
    assert table["through"].sum() == pytest.approx(table["total"].iloc[0])


def test_spillover_of_collinear_measures_says_which():
    ds = rk.score(CLEAN.sample(60, seed=1).dataset(2), "words", progress=False)
    measures = {
        "words": measured_by_words,
        "twice": lambda t: 2 * measured_by_words(t),
        "letters": lambda t: [float(len(x)) for x in t],
        "still": lambda t: [1.0] * len(t),
    }
    table = rk.spillover(ds, measures=measures).set_index("measure")
    assert set(table["collinear"]) == {"words, twice"}
    assert table.loc[["words", "twice", "still"], "per_unit"].isna().all()
    assert np.isfinite(table.loc["letters", "per_unit"])
    assert np.isnan(table.loc["still", "p_value"])
    assert np.isnan(table.loc["still", "shift_sd"])


def by_brute_force(y, x, clusters, j):
    """A coefficient, its CR2 SE and its degrees of freedom, by the (n, n) matrices of the papers."""
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    left, hat = y - x @ beta, x @ inverse @ x.T
    scores, weights = [], []
    for code in np.unique(clusters):
        own = clusters == code
        values, vectors = np.linalg.eigh(np.eye(own.sum()) - hat[np.ix_(own, own)])
        weight = vectors @ np.diag(values**-0.5) @ vectors.T @ x[own] @ inverse[:, j]
        scores.append(weight @ left[own])
        weights.append((np.eye(len(y)) - hat)[:, own] @ weight)
    p = np.array(weights) @ np.array(weights).T
    return beta[j], np.linalg.norm(scores), np.trace(p) ** 2 / np.trace(p @ p)


def test_a_regression_over_clusters_is_the_papers():
    rng = np.random.default_rng(1)
    x, clusters = rng.normal(size=(60, 3)) * [1, 20, 0.01], np.r_[np.zeros(25, int), rng.integers(1, 9, 35)]
    y = x @ [1.0, -2.0, 50] + rng.normal(size=9)[clusters] + rng.normal(size=60)
    fit = Regression(1e200 * y, x, clusters)
    for j in range(3):
        value, scores, df = fit.of(np.eye(3)[j])
        assert (value / 1e200, np.linalg.norm(scores / 1e200), df) == pytest.approx(by_brute_force(y, x, clusters, j))
        assert fit.scores[j] / 1e200 == pytest.approx(scores / 1e200)
    value, scores, df = Regression(y, np.ones((60, 1)), clusters).of(np.ones(1))
    mean = clustered_mean(y, clusters)
    assert (value, np.linalg.norm(scores), df) == pytest.approx((mean.value, mean.se, mean.df))
    told = Regression(y, np.column_stack([x, x[:, :2].sum(axis=1)]), clusters)  # 1 and 2, or their sum: not told apart
    assert np.isnan(told.of(np.array([1.0, 0, 0, 0]))[0])
    (value, scores, df), (beta, se, by_hand) = told.of(np.array([0.0, 0, 1, 0])), by_brute_force(y, x, clusters, 2)
    assert (value, np.linalg.norm(scores), df) == pytest.approx((beta, se, by_hand))
    assert told.of(np.array([1.0, 1, 0, 2]))[0] == pytest.approx(sum(fit.of(e)[0] for e in np.eye(3)[:2]) / 1e200)
    assert told.of(np.zeros(4))[0] == 0
    milli = fit.of(np.array([0, 0, 1e-3]))  # per thousandth
    assert (milli[0] / 1e197, milli[2]) == pytest.approx((beta, by_hand))
    rows = x * (np.arange(60) > 0)[:, None]
    assert Regression(1e20 * rows[:, 0], rows, clusters).exact
    twins = Regression(y, x[:, [0, 0]], clusters)
    assert np.isnan([twins.of(1e3 * np.array([1 + e, 1 - e]))[0] for e in (0.9e-6, 1.1e-6)]).tolist() == [False, True]
    assert not Regression(1e-20 * y, x, clusters).exact
    assert not Regression(1e6 * y, x, clusters, 1e-3).exact
    assert Regression(1e20 * x[:, 0], x, clusters).exact


@pytest.mark.parametrize("clusters", [np.arange(12), np.arange(60) // 6], ids=["12 rows", "10 prompts"])
def test_what_a_measure_does_not_explain_is_told_from_0_in_one_of_twenty(clusters):
    """Four measures and few prompts: normal quantiles and CR1 tell 17 % from 0."""
    rng, wrong = np.random.default_rng(0), []
    for _ in range(300):
        x, y = rng.normal(size=(len(clusters), 4)), rng.normal(size=len(clusters))
        fit = Regression(y, x, clusters)
        for value, scores, df in map(fit.of, np.eye(4)):
            wrong.append(t_interval(value, float(np.linalg.norm(scores)), df)[2] < 0.05)
    assert 0.03 < np.mean(wrong) < 0.065  # 1,200 tests


def test_a_coefficient_that_one_prompt_tells_is_no_more_certain_than_that_prompt():
    """A measure that moves in one of 20 prompts: with the pseudoinverse alone 35 % of its intervals hold the truth."""
    held, own = [], np.arange(40) // 2
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(40, 3)) * np.column_stack([np.ones(40), own == 0, np.ones(40)])
        value, scores, df = Regression(x @ [1, 2, 3] + rng.normal(size=40), x, own).of(np.array([0, 1, 0]))
        low, high, _ = t_interval(value, float(np.linalg.norm(scores)), df)
        held.append(low < 2 < high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.04)  # 2.6 standard errors
    x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [1.0, 0.0]])  # nothing else tells of the second
    fit = Regression(np.array([5.0, 1.0, 2.0, 4.0, 0.0]), x, np.arange(5))
    value, scores, df = fit.of(np.array([0.0, 1.0]))
    assert (value, scores.any(), np.isnan(df)) == (pytest.approx(5), False, True)
    assert np.isnan(_through(fit, x, np.arange(5), 1, 0.95)).all()


def test_spillover_says_nothing_more_sure_than_it_is():
    x = np.random.default_rng(0).standard_normal((20, 1))
    y = 3 * x[:, 0] + x[:, 0] ** 2
    alone = Regression(y, x, np.zeros(20, int))
    assert np.isfinite(alone.coefficients).all()
    assert not alone.scores.any()  # one cluster: no error
    assert np.isnan(alone.of(np.ones(1))[2])
    assert np.isnan(_through(alone, x, np.zeros(20, int), 0, 0.95)).all()
    unpaid = Regression(np.zeros(20), x, np.arange(20) % 2)
    assert (unpaid.coefficients[0], unpaid.exact, _untold(unpaid, x, ["a"])) == (0, True, "exact fit")
    # A reward that is 0.1 for each word and nothing for b: the price has no error, and what goes through a that of its
    # shift: SD of 0.1 (1, 2, 3, 6) over 2; t(3) = 3.182.
    dose, own = np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 0.0], [6.0, 2.0]]), np.arange(4)
    exact = Regression(0.1 * dose[:, 0], dose, own)
    assert (_untold(exact, dose, ["a", "b"]), exact.coefficients.tolist()) == ("exact fit", [pytest.approx(0.1), 0.0])
    assert not exact.scores.any()
    se = 0.1 * np.sqrt(14 / 3) / 2
    assert _through(exact, dose, own, 0, 0.95) == pytest.approx((se, 0.3 - 3.182446 * se, 0.3 + 3.182446 * se))
    assert np.isnan(_through(exact, dose, own, 1, 0.95)).all()
    in_float32 = 1000 + np.float32(0.1) * dose[:, 0].astype(np.float32)
    y = np.array(in_float32 - np.float32(1000), float)
    assert Regression(y, dose, own, 1e-3).exact
    assert not Regression(y, dose, own).exact
    full = Regression(np.array([1.0, 5.0]), dose[:2], np.arange(2))
    assert _untold(full, dose[:2], ["a", "b"]) == "as many measures as rows"
    assert np.isnan(full.scores).all()
    still = Regression(y, 0 * dose[:, :1], own)
    assert still.coefficients.tolist() == [0.0]
    assert np.isnan(_through(still, 0 * dose[:, :1], own, 0, 0.95)).all()
    assert still.scores.shape == (1, 4)
    assert (_untold(still, 0 * dose[:, :1], ["a"]), np.isnan(still.of(np.ones(1))[0])) == ("nothing moved", True)


def test_spillover_names_all_that_move_together_and_no_other():
    a, b, c = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 3)))[0].T
    names = ["a", "twice", "b", "thrice", "c"]

    def untold(y, x):
        fit = Regression(y, x, np.arange(len(y)))
        return _untold(fit, x, names[: x.shape[1]]), [fit.of(one)[0] for one in np.eye(x.shape[1])]

    x = np.stack([a, 2 * a, b, -3 * b, c], axis=1)
    said, beta = untold(a + b + 5 * c, x)
    assert said == "a, twice, b, thrice"
    assert beta[4] == pytest.approx(5)
    assert np.isnan(beta[:4]).all()
    first, last = np.arange(30) < 10, np.arange(30) >= 20  # measures that move in rows of their own
    apart = np.stack([a * first, 2 * a * first, b * last, -3 * b * last, c * ~first], axis=1)
    assert untold(a + b + 5 * c, apart)[0] == "a, twice, b, thrice"
    said, beta = untold(a[:3] + b[:3], x[:3, :3])  # as many rows as measures
    assert (said, beta[2]) == ("a, twice", pytest.approx(1.0))
    nearly = np.stack([a, a + 3e-9 * b, c], axis=1)  # apart by less than 1e-8 of the largest direction
    assert untold(a, nearly)[0] == "a, twice"
    assert untold(a[:4], x[:4])[0] == "a, twice, b, thrice"  # fewer rows than measures: c is told all the same
    assert untold(a[:2], x[:2])[0] == "a, twice, b, thrice, c"


def test_a_text_that_a_measure_says_nothing_of_costs_its_row_alone():
    ds = CLEAN.sample(30, seed=1).dataset(2)
    odd = ds["response"][0]

    def words(texts):
        return [np.nan if t == odd else float(len(t.split())) for t in texts]

    table = rk.spillover(ds, measures={"words": words, "none": lambda texts: [np.nan] * len(texts)})
    assert table["measure"].tolist() == ["words"]
    n = np.array([measured_by_words([r, *more]) for r, more in zip(ds["response"], ds["rewrites"], strict=True)])
    kept = [odd not in (r, *more[:2]) for r, more in zip(ds["response"], ds["rewrites"], strict=True)]
    moved = (np.where(ds["treated"], 1, -1) * (n[:, 2] - n[:, 1]))[kept]
    assert (table["shift"].item(), table["se"].item()) == pytest.approx((moved.mean(), stats.sem(moved)))
    assert table["shift_sd"].item() == pytest.approx(moved.mean() / pooled_sd(n[1:, 0], ds["treated"][1:]))
    in_k = rk.spillover(ds, measures={"k": lambda texts: [w / 1000 for w in words(texts)]})
    assert in_k["shift_sd"].item() == pytest.approx(table["shift_sd"].item())
    with pytest.raises(rk.InputError, match="no second rewrite"):
        rk.spillover(CLEAN.sample(30, seed=1).dataset(1), measures={"words": words})


def test_the_dose_is_the_mean_change_of_both_classes():
    ds = CLEAN.sample(40, seed=1).dataset(2)
    ds = rk.score(ds, lambda p, r: 0.3 * measured_by_words(r), name="paid", progress=False)
    n = np.array([measured_by_words([r, *more]) for r, more in zip(ds["response"], ds["rewrites"], strict=True)])
    s = np.where(ds["treated"], 1, -1)
    d = s * (n[:, 2] - n[:, 1])
    table = rk.dose_response(ds, bins=2)
    assert rk.dose_response(ds, bins=1)["n"].tolist() == [40, 40]
    third = rk.dose_response(ds.to_pandas().assign(**{"reward/paid": [[*r, 1e20] for r in ds["reward/paid"]]}))
    assert third["se"].tolist() == rk.dose_response(ds)["se"].tolist()  # its rounding is no matter
    assert "rho" not in set(rk.diagnose(ds)["check"])  # there is no third rewrite
    row = table.iloc[0]
    assert (row["dose"], row["dose_low"], row["dose_high"]) == pytest.approx((d.mean(), d.min(), d.max()))
    assert row["effect"] == pytest.approx(0.3 * d.mean())
    low = d <= np.quantile(d, 0.5)
    assert table["n"].tolist() == [40, low.sum(), (~low).sum()]
    assert table["dose"].tolist()[1:] == pytest.approx([d[low].mean(), d[~low].mean()])


def test_dose_response_gives_the_price_of_a_word():
    ds = CLEAN.sample(200, seed=1).dataset(2)
    ds = rk.score(ds, lambda p, r: 0.3 * measured_by_words(r), name="paid by the word", progress=False)
    table = rk.dose_response(ds, bins=4)
    assert table["bin"].tolist() == ["all", "1", "2", "3", "4"]
    np.testing.assert_allclose(table["per_unit"], 0.3)
    assert table.loc[table.bin != "all", "n"].sum() == 200
    assert table["dose"].iloc[1:].is_monotonic_increasing


def test_the_ratio_covers_its_truth():
    from ratekit.diagnostics.spillover import _curve

    rng, hits = np.random.default_rng(0), []
    for _ in range(500):
        dose = rng.normal(2, 1, 80)
        row = _curve(dose, 0.5 * dose + rng.normal(0, 1, 80), np.arange(80), 1, 0.95)[0]
        hits.append(row["per_unit_low"] <= 0.5 <= row["per_unit_high"])
    assert 0.92 <= np.mean(hits) <= 0.98


def test_a_dose_of_nothing_has_no_price():
    from ratekit.diagnostics.spillover import _curve

    rng = np.random.default_rng(0)
    row = _curve(rng.normal(0, 1, 50), rng.normal(0, 1, 50), np.arange(50), 3, 0.95)[0]
    assert np.isnan(row["per_unit"])
    assert (row["per_unit_low"], row["per_unit_high"]) == (-np.inf, np.inf)
    still = _curve(np.full(20, -0.0), rng.normal(size=20), np.arange(20), 3, 0.95)
    assert [np.copysign(1, still[0][end]) for end in ("dose_low", "dose_high")] == [1, 1]  # no "-0" is shown
    assert [r["bin"] for r in still] == ["all", "1"]
    assert np.isnan(still[0]["per_unit"])


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda ds: rk.dose_response(ds), "nothing is scored"),
        (lambda ds: rk.spillover(ds.map(lambda r: {"rewrites": r["rewrites"][:1]})), "no second rewrite"),
        (lambda ds: rk.spillover(ds, measures={}), "no measures"),
        (lambda ds: rk.dose_response(rk.score(ds, "words", progress=False), bins=0), "bins=0"),
        (
            lambda ds: rk.dose_response(rk.score(ds.map(lambda r: {"attribute": "elegance"}), "words", progress=False)),
            "has no measure",
        ),
    ],
)
def test_a_wrong_question_gets_one_clear_line(call, why):
    with pytest.raises(rk.InputError, match=why):
        call(CLEAN.sample(12, seed=1).dataset(2))


# --- warranted -------------------------------------------------------------------------------------------


def test_warranted_is_mcnemars_exact_test():
    rng = np.random.default_rng(1)
    people = rng.random(80) < 0.4
    model = np.where(rng.random(80) < 0.3, True, people)
    rewards = np.stack([np.full(80, np.nan), model * 1.0, (~model) * 1.0], axis=1)  # untreated: r1 is treated
    ds = frame({"rm": rewards}, np.zeros(80, bool), human_preference=np.where(people, "treated", "untreated"))
    row = rk.warranted(ds).iloc[0]
    b, c = int((model & ~people).sum()), int((~model & people).sum())
    assert row["p_value"] == pytest.approx(stats.binomtest(b, b + c).pvalue, abs=0.01)
    assert row["skew"] == pytest.approx(model.mean() - people.mean())
    assert row["miscalibration"] == pytest.approx((model != people).mean())
    assert row["towards_treated"] == pytest.approx(b / (b + c))
    assert row["words"].startswith("not warranted")


def test_warranted_words_are_held_against_the_level():
    """Five pairs of twenty in which the model alone wants the treated version: p = 2/2^5."""
    ds = frame({"rm": [[np.nan, 1.0, 2.0]] * 20}, np.ones(20, bool), human_preference=[0.0] * 5 + [1.0] * 15)
    for level, said in ((0.95, "too few pairs"), (0.93, "not warranted")):
        row = rk.warranted(ds, level=level).iloc[0]
        assert row["p_value"] == pytest.approx(0.0625, abs=0.005)
        assert row["words"].startswith(said)
        assert list(row.index[6:10]) == ["skew_high", "p_value", "p_adjusted", "miscalibration"]
        assert row["skew_low"] == (0.0 if level == 0.95 else pytest.approx(0.0593, abs=1e-4))  # t: 0.042 at 95 %


def test_warranted_says_no_number_that_is_not_there():
    """Four pairs, no two unlike: p = 2/2^4 and no interval; where all people call it a tie nobody disagrees."""
    alone = frame({"rm": [[np.nan, 1.0, 2.0]] * 4}, np.ones(4, bool), human_preference=["untreated"] * 4)
    row = rk.warranted(alone).iloc[0]
    assert row["p_value"] == 0.125
    assert row["words"] == (
        "too few pairs to tell whether it prefers the treated version more often; they disagree on 100% of the pairs"
    )
    tied = rk.warranted(alone.assign(human_preference="tie")).iloc[0]
    assert tied["words"] == "too few pairs to tell whether it prefers the treated version more often"
    two = alone.assign(**{"reward/other": [[None, 1.0, 2.0]] * 2 + [[None, 2.0, 1.0]] * 2})
    two = pd.concat([two] * 2, ignore_index=True).assign(prompt_id=list("abcdefgh"))
    words = rk.warranted(two, level=0.99).set_index("reward_model")["words"]  # p 2/2^8, adjusted twice that
    assert "more often beside the other comparisons (p_adjusted 0.016);" in words["rm"]
    assert "beside" not in words["other"]
    with pytest.raises(rk.InputError, match=r"row 1: 'human_preference' holds .*; treated, untreated, tie or a share"):
        rk.warranted(alone.assign(human_preference=[["treated"]] * 4))


def test_warranted_takes_treated_rows_the_other_way_round_and_ties_by_half():
    rewards = [[0, 1.0, 2.0], [0, 1.0, 2.0], [0, 1.0, 1.0]]
    ds = frame({"rm": rewards}, [True, False, True], human_preference=["tie", "untreated", None])
    row = rk.warranted(ds).iloc[0]
    assert (row["model_rate"], row["human_rate"], row["n"], row["n_ties"], row["n_dropped"]) == (0.5, 0.25, 2, 1, 1)
    most = ds.assign(human_preference=0.6, **{"reward/rm": [[0, 1.0, 2.0]] * 3})  # the model: twice the treated one
    assert rk.warranted(most).iloc[0]["miscalibration"] == pytest.approx(1 / 3)
    row = rk.warranted(most.assign(human_preference=[0.4, 0.6, 0.4])).iloc[0]  # at odds in all, twice towards treated
    assert (row["towards_treated"], row["towards_p"]) == (pytest.approx(2 / 3), 1.0)
    ds["human_preference"] = ["longer", "tie", "tie"]
    with pytest.raises(rk.InputError, match="row 1"):
        rk.warranted(ds)
    with pytest.raises(rk.InputError, match="no column 'people'"):
        rk.warranted(ds, "people")


@pytest.fixture
def mitigation(monkeypatch):
    """The experiment, as a module."""
    from conftest import ROOT

    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("mitigation")


def test_warranted_on_real_pairs(shared, mitigation):
    ds = mitigation.read(shared("double_rewrites/human_preferences.jsonl.gz").parent)
    table = rk.warranted(ds).set_index(["attribute", "reward_model"])
    assert table.loc[("length", "base-27B"), "human_rate"] == pytest.approx(0.355)
    assert (table["n"] == 100).all()
    committed = mitigation.tables()["_people"].set_index(["attribute", "reward_model"])
    for column in ("skew", "miscalibration_low", "miscalibration_high"):
        np.testing.assert_allclose(committed[column], table[column], rtol=1e-3, atol=1e-4)


def test_the_page_on_the_mitigation_says_what_its_tables_say(mitigation):
    found, page = mitigation.tables(), (mitigation.HERE / "mitigation.md").read_text(encoding="utf-8")
    assert mitigation.prose(found) == page
    assert '"of the +13.46 for structure, readability alone explains +3.55"' in " ".join(page.split())
    assert (mitigation.HERE / "mitigation_spillover.md").read_text(encoding="utf-8") == mitigation.shares(
        found["_spillover"]
    )
    moved = {name: table.copy() for name, table in found.items()}
    moved[""].loc[0, ["estimate", "p_adjusted"]] = [0.7, 0.06]
    assert "Length: 0.70, -0.03" in " ".join(mitigation.prose(moved).split())
    assert "not told from 0: base-2B (p_adjusted 0.06) and base-3B" in " ".join(mitigation.prose(moved).split())


def test_the_share_of_disagreements_has_an_interval_at_none_and_at_all():
    rewards = [[0, 1.0, 2.0]] * 20
    for people, share, ends in (("treated", 0.0, (0.0, 0.1611)), ("untreated", 1.0, (0.8389, 1.0))):  # Wilson, n = 20
        row = rk.warranted(frame({"rm": rewards}, np.ones(20, bool), human_preference=[people] * 20)).iloc[0]
        assert row["miscalibration"] == share
        assert row[["miscalibration_low", "miscalibration_high"]].tolist() == pytest.approx(ends, abs=1e-4)


# --- planning --------------------------------------------------------------------------------------------


def test_the_plan_reaches_the_standard_error_that_it_promises():
    world = NumericWorld(cluster_sizes=(1, 4), rewriter=Imperfections(noise=0.3))
    plan = rk.plan(of(world.sample(400, seed=1)), se=0.02).iloc[0]
    assert plan["n_needed"] == plan["n"] + plan["n_more"]
    assert plan["rewrites_more"] == 2 * plan["n_more"]
    then = rk.estimate(of(world.sample(int(plan["n_needed"]), seed=2))).query("estimator == 'rate' & estimand == 'ate'")
    assert then["se_sd"].item() == pytest.approx(0.02, rel=0.15)


def test_a_plan_in_sds_starts_from_the_error_that_counts_the_sds_own():
    rng = np.random.default_rng(5)
    w = np.arange(200) % 2 == 0
    s = np.where(w, 1.0, -1.0)
    r = rng.standard_normal((200, 3))
    r[:, 2] = r[:, 1] + s * (2.0 + 0.1 * rng.standard_normal(200))  # 2 SD: nearly all of the error is the SD's
    plan = rk.plan(frame({"rm": r}, w), se=0.05).iloc[0]
    e = np.concatenate([r[w, 0] - r[w, 0].mean(), r[~w, 0] - r[~w, 0].mean()])
    d = (s * (r[:, 2] - r[:, 1]))[np.r_[np.flatnonzero(w), np.flatnonzero(~w)]]
    sd = np.sqrt(e @ e / 198)
    psi, phi = d - d.mean(), (e**2 / sd**2 - 1) / 2
    by_hand = np.std((psi - d.mean() * (phi - phi.mean())) / sd, ddof=1) / np.sqrt(200)
    assert plan["se_now"] == pytest.approx(by_hand, rel=1e-9)
    assert by_hand > 10 * np.std(psi / sd, ddof=1) / np.sqrt(200)
    assert plan["n_needed"] == np.ceil(200 * (by_hand / 0.05) ** 2)


@pytest.mark.parametrize("estimator", ["naive", "single_rewrite", "rate"])
@pytest.mark.parametrize("unit", ["sd", "reward"])
def test_a_plan_starts_from_the_error_of_the_estimate(estimator, unit):
    sample = NumericWorld(cluster_sizes=(1, 4)).sample(80, seed=1)
    ds = of(sample)
    ds["treated"] = np.arange(len(ds)) < 7  # a rare class
    row = rk.estimate(ds).query("estimator == @estimator & estimand == 'ate'").iloc[0]
    plan = rk.plan(ds, se=0.05, estimator=estimator, unit=unit).iloc[0]
    assert plan["se_now"] == pytest.approx(row["se_sd" if unit == "sd" else "se"], rel=1e-12)


def test_one_treated_row_has_no_error_in_any_function():
    rng = np.random.default_rng(0)
    r, w = rng.standard_normal((50, 3)), np.arange(50) == 0
    ds = frame({"rm": r}, w, part=np.arange(50) % 2, edited=r[:, 0] + rng.standard_normal(50))
    assert np.isnan(rk.estimate(ds).query("estimator == 'naive'")["se"].item())
    plan = rk.plan(ds, se=0.1, estimator="naive").iloc[0]
    assert np.isnan(plan["se_now"])
    assert np.isnan(plan["n_needed"])
    beside = rk.compare_counterfactuals(ds, "edited").set_index("estimator").loc["naive"]
    assert beside[["se", "ci_low", "difference_se", "p_value"]].isna().all()
    both = frame({"rm": r}, w | (np.arange(50) == 1), part=np.arange(50) % 2)  # one in each part
    assert np.isnan(rk.heterogeneity(both, "part", estimator="naive")["p_value"].item())


def test_the_two_phase_plan_in_sds_leaves_the_sds_error_where_it_is():
    ds = rk.score(rk.load("reviews", attribute="length"), "vader", progress=False)
    e = rk.estimate(ds).query("estimator == 'rate' & estimand == 'ate'").iloc[0]
    wanted = 1.05 * e["se_sd"]
    plan = rk.plan(ds, se=wanted, two_phase=True).iloc[0]
    own, n = (e["se"] / e["reward_sd"]) ** 2, e["n"]
    m, explained = plan["rows_two_phase"], plan["explained"]
    # Var = V [(1 - R^2)/m + R^2/N] + what the SD of the N originals adds, which no rewrite makes smaller
    reached = own * n * ((1 - explained) / m + explained / n) + e["se_sd"] ** 2 - own
    assert reached == pytest.approx(wanted**2)
    assert m < n


def test_enough_is_enough():
    plan = rk.plan(of(NumericWorld().sample(200, seed=1)), se=10.0, unit="reward").iloc[0]
    assert plan["n_more"] == plan["rewrites_more"] == 0


def test_the_plan_for_two_models_has_the_power_that_it_promises():
    pilot = two_models(3000, 1, difference=0.1, scale=1.0)
    plan = rk.plan(pilot, apart=("a", "b"), difference=0.1, unit="reward", power=0.8).iloc[0]
    found = []
    for seed in range(300):
        rows = two_rewards(int(plan["n_needed"]), seed, difference=0.1, scale=1.0)
        found.append(_Pair(*rows, "rate", None).difference("ate")[2][2] < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"se": 0}, {"se": -1}, {"se": 0.1, "apart": ("a", "b")}, {"se": 0.1, "unit": "SD"}, {"se": 0.1, "power": 80},
     {"se": 0.1, "estimator": "naive", "estimand": "att"}, {"apart": ("rm", "rm"), "difference": 0},
     {"apart": ("rm", "rm"), "difference": 0.1, "two_phase": True}],
)  # fmt: skip
def test_a_wrong_plan_is_refused(wrong):
    with pytest.raises(rk.InputError):
        rk.plan(of(NumericWorld().sample(30, seed=1)), **wrong)


def test_a_plan_starts_from_the_standard_error_of_the_estimate():
    ds = of(NumericWorld().sample(60, seed=1))
    row = rk.estimate(ds).query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    plain, in_sds = (rk.plan(ds, se=0.01, unit=unit).iloc[0] for unit in ("reward", "sd"))
    assert plain["se_now"] == pytest.approx(row["se"])
    assert in_sds["se_now"] == pytest.approx(row["se_sd"])
    assert plain["n_needed"] == np.ceil(60 * (row["se"] / 0.01) ** 2 - 1e-9)
    for power in (0, 1):
        with pytest.raises(rk.InputError, match=f"power={power}"):
            rk.plan(ds, se=0.01, power=power)


def test_a_decision_needs_an_interval_that_leaves_zero_out(monkeypatch):
    ends = {"low": [0.0, 0.1], "high": [1.0, 1.0]}

    def fake(values, *_):
        return np.full(2, 0.5), np.array(ends["low"]), np.array(ends["high"])

    monkeypatch.setattr("ratekit.diagnostics.planning.confidence_sequence", fake)
    ds = of(NumericWorld().sample(20, seed=1))
    assert rk.sequential(ds)["decided_at"].item() == 2
    ends |= {"low": [-1.0, -1.0], "high": [0.0, -0.1]}
    assert rk.sequential(ds)["decided_at"].item() == 2
    ends |= {"high": [0.0, 0.0]}
    assert np.isnan(rk.sequential(ds)["decided_at"].item())


@pytest.mark.parametrize(("first", "told"), [(36, True), (34, False)])
def test_an_order_by_class_is_told_at_four_standard_errors(first, told):
    """Halves of 50 rows, half of all treated: 4 sqrt(.25 (1/50 + 1/50)) = 0.4."""
    w = np.r_[np.arange(50) < first, np.arange(50) < 50 - first]
    sample = NumericWorld().sample(100, seed=1)
    ds = frame({"rm": sample.rewards}, w)
    assert bool(rk.sequential(ds).attrs["notes"]) == told


def test_looks_at_one_class_are_of_its_own_estimand():
    sample = NumericWorld().sample(120, seed=1, depth=2)
    one = of(sample)[sample.treated]
    with pytest.raises(rk.InputError, match="every row of length / rm is treated, so there is no ATE; give estimand='"):
        rk.sequential(one)
    assert rk.sequential(one, estimand="att")["n"].tolist() == [sample.treated.sum()]
    with pytest.raises(rk.InputError, match="no row has the rewards that rate needs"):
        rk.sequential(one, estimand="atu")
    both = pd.concat([one.assign(attribute="tone"), of(sample)])
    table = rk.sequential(both)
    assert table["attribute"].tolist() == ["length"]
    assert table.attrs["notes"] == [
        "sequential: every row of tone / rm is treated, so there is no ATE; give estimand='att'"
    ]


def test_a_plan_from_nothing_that_varies_is_nan():
    ds = of(NumericWorld().sample(30, seed=1))
    ds["reward/rm"] = [[1.0] * 4] * 30
    assert np.isnan(rk.plan(ds, se=0.1, unit="reward")["n_needed"].item())
    with pytest.raises(rk.InputError, match="no reward SD"):
        rk.plan(ds, se=0.1)


def test_sequential_stops_early_on_an_effect_and_keeps_its_level_without_one():
    found = rk.sequential(of(NumericWorld(effect=0.5).sample(500, seed=1))).iloc[0]
    assert found["decided_at"] < 200
    assert found["ci_low"] > 0
    none = NumericWorld(effect=0.0, effect_sd=0.5)
    wrong = []
    for seed in range(300):
        sample = none.sample(150, seed, depth=2)
        _, low, high = confidence_sequence(*row_values(*sample[:3], "rate"))
        wrong.append(((low > 0) | (high < 0)).any())
    assert np.mean(wrong) <= 0.08
    with pytest.raises(rk.InputError, match="sequential"):
        rk.sequential(of(none.sample(50, 1)), estimator="naive")


@pytest.mark.parametrize("shared", [True, False])
def test_heterogeneity_keeps_its_level_where_prompts_occur_in_several_groups(shared):
    rng = np.random.default_rng(4)
    groups, prompts = 5, 20
    clusters = np.tile(np.arange(prompts), (groups, 1))
    if not shared:
        clusters = np.arange(clusters.size).reshape(clusters.shape)
    rejected = []
    for _ in range(500):
        d = rng.normal(size=prompts) + rng.normal(size=(groups, prompts))
        parts = [group_of(of, codes, clusters.max() + 1) for of, codes in zip(d, clusters, strict=True)]
        rejected.append(_equal(parts)["p_value"] < 0.05)
    assert np.mean(rejected) <= 0.08  # 0.05 and 3 Monte Carlo SEs


def test_heterogeneity_of_two_groups_that_share_every_prompt_is_the_paired_t_test():
    rng = np.random.default_rng(5)
    d = rng.normal(size=(2, 30)) + rng.normal(size=30)
    frame = pd.DataFrame({
        "prompt_id": np.tile(np.arange(30), 2).astype(str), "attribute": "x", "part": np.repeat([0, 1], 30),
        "treated": True, "reward/rm": [[0.0, 0.0, float(v)] for v in d.ravel()],
    })  # fmt: skip
    row = rk.heterogeneity(frame, "part").query("estimand == 'att'").iloc[0]
    expected = stats.ttest_rel(d[0], d[1])
    assert row["statistic"] == pytest.approx(expected.statistic**2)
    assert row["p_value"] == pytest.approx(expected.pvalue)


def test_plan_for_a_contrast_needs_the_difference_that_is_looked_for():
    frame = of(NumericWorld().sample(60, seed=1))
    with pytest.raises(rk.InputError, match="apart= needs difference="):
        rk.plan(frame, apart=("rm", "rm"))


def test_a_contrast_without_scored_originals_says_what_to_do():
    r = np.column_stack([np.full(20, np.nan), np.random.default_rng(0).standard_normal((20, 2))])
    ds = frame({"a": r, "b": 2 * r}, np.arange(20) % 2 == 0)
    with pytest.raises(rk.InputError, match="originals are not scored, so give their SDs by sd_pass=2"):
        rk.contrast(ds, "a", "b")
    assert len(rk.contrast(ds, "a", "b", sd_pass=2)) == 3


# --- people's counterfactuals ------------------------------------------------------------------------------


def test_peoples_counterfactuals_stand_beside_rate_with_a_paired_test():
    rng = np.random.default_rng(0)
    w = np.arange(60) % 2 == 0
    s = np.where(w, 1.0, -1.0)
    r = rng.standard_normal((60, 3)) + np.array([0, -1, 0]) * s[:, None] * 1.5
    human = r[:, 0] - s * (1.0 + 0.1 * rng.standard_normal(60))
    ds = frame({"rm": r}, w, edited=[None if i == 7 else h for i, h in enumerate(human)])
    table = rk.compare_counterfactuals(ds, "edited").set_index("estimator")
    kept = np.arange(60) != 7
    by_people, rate = (s * (r[:, 0] - human))[kept], (s * (r[:, 2] - r[:, 1]))[kept]
    assert table.loc["human", "estimate"] == pytest.approx(by_people.mean())
    assert table.loc["rate", "minus_human"] == pytest.approx((rate - by_people).mean())
    assert table.loc["rate", "p_value"] == pytest.approx(stats.ttest_rel(rate, by_people).pvalue)
    assert (table["n_dropped"] == 1).all()
    same = rk.compare_counterfactuals(frame({"rm": r}, w, edited=r[:, 1]), "edited").set_index("estimator")
    assert same.loc["single_rewrite", "minus_human"] == 0
    assert np.isnan(same.loc["single_rewrite", "p_value"])


def test_peoples_counterfactuals_claim_no_precision_without_a_spread():
    r = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]] * 10) + np.random.default_rng(0).normal(0, 0.1, (20, 1))
    ds = frame({"rm": r}, np.arange(20) % 2 == 0, edited=r[:, 1] - 0.01 * np.arange(20))
    table = rk.compare_counterfactuals(ds, "edited").set_index("estimator")
    s = np.where(ds["treated"], 1, -1)
    by_people = s * (r[:, 0] - r[:, 1] + 0.01 * np.arange(20))
    assert table.loc["human", "se"] == pytest.approx(stats.sem(by_people))
    assert table.loc["single_rewrite", "difference_se"] == pytest.approx(stats.sem(1.0 - by_people))
    assert np.isnan(table.loc["single_rewrite", "se"])  # 1 in every row
    alike = rk.compare_counterfactuals(ds.assign(edited=r[:, 1]), "edited").set_index("estimator")
    assert np.isnan(alike.loc["single_rewrite", "difference_se"])
    assert np.isnan(alike.loc["human", "minus_human"])


def test_peoples_counterfactuals_as_texts_are_scored():
    ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False).to_pandas()
    ds["edited"] = [rewrites[0] for rewrites in ds["rewrites"]]
    table = rk.compare_counterfactuals(ds, "edited").set_index("estimator")
    assert table.loc["human", "estimate"] == pytest.approx(table.loc["single_rewrite", "estimate"])
    with pytest.raises(rk.InputError, match="no column 'cad'"):
        rk.compare_counterfactuals(ds, "cad")
    ds["edited"] = None
    with pytest.raises(rk.InputError, match="null in every row"):
        rk.compare_counterfactuals(ds, "edited")


def test_naive_beside_people_is_the_estimate_of_the_same_rows_and_its_gap_by_hand():
    rng = np.random.default_rng(3)
    w = np.arange(40) < 12
    r = rng.standard_normal((40, 3))
    ds = frame({"rm": r}, w, edited=r[:, 0] - np.where(w, 1.0, -1.0) * (1 + rng.standard_normal(40)))
    table = rk.compare_counterfactuals(ds, "edited").set_index("estimator")
    naive = rk.estimate(ds).query("estimator == 'naive'").iloc[0]
    for column in ("estimate", "se", "ci_low", "ci_high"):
        assert table.loc["naive", column] == pytest.approx(naive[column])
    people = np.where(w, 1.0, -1.0) * (r[:, 0] - ds["edited"])
    of_people = (people - people.mean()) / np.sqrt(40 * 39)
    of_naive = np.where(
        w, (r[:, 0] - r[w, 0].mean()) / np.sqrt(12 * 11), -(r[:, 0] - r[~w, 0].mean()) / np.sqrt(28 * 27)
    )
    assert table.loc["naive", "difference_se"] == pytest.approx(np.linalg.norm(of_naive - of_people))
    assert (table["estimand"] == "ate").all()
    one_side = rk.compare_counterfactuals(ds[w].reset_index(drop=True), "edited").set_index("estimator")
    assert one_side["estimand"].to_dict() == {"human": "att", "single_rewrite": "att", "rate": "att"}


def edited(texts, **columns):
    """Scored reviews with a column of people's texts, or numbers."""
    ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False).to_pandas()
    return ds.assign(edited=texts(ds) if callable(texts) else texts, **columns)


def first_rewrites(ds):
    return [rewrites[0] for rewrites in ds["rewrites"]]


@pytest.mark.parametrize(
    ("texts", "asked", "fault", "why"),
    [
        (first_rewrites, {"word": "words"}, rk.InputError, "unknown reward model 'word'.*words"),
        (first_rewrites, {"words": lambda p, r: [np.nan] * len(r)}, rk.WorkError, "no finite reward for any"),
        (first_rewrites, {"words": lambda p, r: [None] * len(r)}, rk.WorkError, "no finite reward for any"),
        (first_rewrites, {"words": lambda p, r: [np.inf] * len(r)}, rk.WorkError, "no finite reward for any"),
        (first_rewrites, {"words": lambda p, r: [1.0]}, rk.WorkError, "array of shape"),
        (first_rewrites, {"words": 3}, rk.InputError, "a reward is a callable"),
        (lambda ds: [np.inf if i == 4 else 1.0 for i in range(len(ds))], None, rk.InputError, "row 5: edited.*inf"),
        (lambda ds: [i % 2 == 0 for i in range(len(ds))], None, rk.InputError, "row 1: 'edited' holds 'True'; a text"),
        (lambda ds: [None, *[["a"]] * (len(ds) - 1)], None, rk.InputError, "row 2: 'edited' holds .*; a text or a rew"),
        (lambda ds: [None, "so", " ", *first_rewrites(ds)[3:]], None, rk.InputError, "row 3: 'edited' holds ''; a tex"),
        (lambda ds: [1e200] * len(ds), None, rk.InputError, "row 1: edited.*below 1e100"),
    ],
)  # fmt: skip
def test_counterfactuals_that_cannot_be_scored_are_named(texts, asked, fault, why):
    with pytest.raises(fault, match=why):
        rk.compare_counterfactuals(edited(texts), "edited", rewards=asked)


def test_counterfactuals_that_get_no_reward_are_dropped_counted_and_said(caplog):
    def half(prompts, responses):
        return [None if "e" in r[:2] else len(r.split()) for r in responses]

    ds = edited(first_rewrites)
    null = sum("e" in text[:2] for text in ds["edited"])
    assert 0 < null < len(ds)
    table = rk.compare_counterfactuals(ds, "edited", rewards={"words": half})
    assert (table["n_dropped"] == null).all()
    assert "could not score" in caplog.text
    for nothing in ([[None, *r[1:]] for r in ds["reward/words"]], [None] * len(ds)):
        ds["reward/words"] = nothing
        with pytest.raises(rk.InputError, match="no row has rewards of both its response and its 'edited'"):
            rk.compare_counterfactuals(ds, "edited")


# --- rounding ----------------------------------------------------------------------------------------------


def test_an_effect_that_varies_by_the_rounding_of_float32_has_no_error_in_any_function():
    """0.3 more in float32: the differences vary in their eighth digit, which is no spread."""
    rng, w = np.random.default_rng(0), np.arange(40) % 2 == 0
    sides = np.array([w if k % 2 == 0 else ~w for k in range(3)]).T
    r = (rng.standard_normal((40, 1)).astype(np.float32) + np.float32(0.3) * sides.astype(np.float32)).astype(float)
    s = np.where(w, 1.0, -1.0)
    assert 0 < np.ptp(s * (r[:, 2] - r[:, 1])) < 1e-6
    ds = frame({"rm": r}, w, rewriter=["a", "a", "b", "b"] * 10, edited=r[:, 0] - s * 0.5)
    alike = rk.compare_counterfactuals(ds, "edited").set_index("estimator")
    assert alike.loc["rate", "minus_human"] == pytest.approx(-0.2)
    assert np.isnan(alike.loc["rate", "difference_se"])
    assert np.isnan(alike.loc["rate", "p_value"])
    bounds = rk.refusal_bounds(ds)
    assert bounds["bound_low"].tolist() == pytest.approx([0.3] * 3)
    assert bounds[["ci_low", "ci_high"]].isna().all(axis=None)
    over = rk.across_rewriters(ds, unit="reward")
    assert over["estimate"].tolist() == pytest.approx([0.3] * 3)
    assert over[["se", "ci_low", "ci_high", "p_value", "tau", "q_p_value"]].isna().all(axis=None)
    texts = [[f"{i} " + "a " * (3 + i % 5 + k * int(x)) for k in range(3)] for i, x in enumerate(w)]
    ds = ds.assign(prompt="p", response=[t[0] for t in texts], rewrites=[t[1:] for t in texts])
    curve = rk.dose_response(ds, bins=1)
    assert curve["effect"].tolist() == pytest.approx([0.3] * 2)
    assert curve[["se", "ci_low", "ci_high"]].isna().all(axis=None)
    first = r[:, :1].astype(np.float32) + np.float32(0.3)
    shown = {"j": r[:, :1], "j/shown_first": first.astype(float), "j/shown_second": r[:, :1]}
    place = rk.position(frame(shown, w, response=[f"text {i}" for i in range(40)])).iloc[0]
    assert place["estimate"] == pytest.approx(0.3)
    assert place[["se", "ci_low", "ci_high", "p_value"]].isna().all()


# --- a confidence level ------------------------------------------------------------------------------------

LEVELED = {
    "across_rewriters": (), "adjusted": (), "compare_counterfactuals": ("response",), "contrast": ("words", "vader"),
    "dose_response": (), "estimate": (), "plan": (0.1,), "position": (), "refusal_bounds": (), "sequential": (),
    "spillover": (), "warranted": (),
}  # fmt: skip


def test_every_function_with_a_level_is_tried_below():
    import inspect

    functions = {name: getattr(rk, name) for name in rk.__all__ if inspect.isfunction(getattr(rk, name))}
    found = {name for name, f in functions.items() if {"ds", "level"} <= set(inspect.signature(f).parameters)}
    assert found <= set(LEVELED)


@pytest.mark.parametrize("level", [0, 1, 95, float("nan"), "0.9", None])
def test_a_level_that_is_none_is_refused_by_all(level):
    ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    ds = rk.score(ds, "vader", progress=False)
    for name, given in LEVELED.items():
        if name not in ("position", "warranted"):  # their data are others
            with pytest.raises(rk.InputError, match=f"level={level!r}"):
                getattr(rk, name)(ds, *given, level=level)
