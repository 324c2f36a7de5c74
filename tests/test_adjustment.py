"""Two-phase estimates, RATE adjusted for what else moved, bounds for refusals: known truths and their controls."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize

import ratekit as rk
from ratekit.augmentation import PENALTIES, _chance, _prepared, _ridge, augmented
from ratekit.diagnostics.adjustment import _intercept
from ratekit.estimators import clustered_mean, effects
from ratekit.groups import groups, original_features, reward_matrix


def test_two_phases_are_right_where_refusals_depend_on_what_is_seen_and_complete_rows_are_not():
    rng = np.random.default_rng(0)
    covered, plain, n = 0, 0, 300
    for _ in range(60):
        x = rng.normal(size=(n, 2))
        d = 1 + 0.8 * x[:, 0] + 0.7 * rng.normal(size=n)
        refused = rng.random(n) > 1 / (1 + np.exp(-(1 + 1.2 * x[:, 0])))
        psi, _ = augmented(np.where(refused, np.nan, d), x, np.arange(n))
        low, high, _ = clustered_mean(psi, np.arange(n)).interval()
        covered += low <= 1 <= high
        low, high, _ = clustered_mean(d[~refused], np.arange((~refused).sum())).interval()
        plain += low <= 1 <= high
    assert covered >= 52
    assert plain <= 20


def test_nothing_missing_changes_nothing():
    rng = np.random.default_rng(1)
    x, d = rng.normal(size=(80, 3)), rng.normal(size=80)
    psi, explained = augmented(d, x, np.arange(80))
    np.testing.assert_allclose(psi, d)
    assert explained < 0.2  # features that tell nothing
    rewards = np.stack([d, np.zeros(80), d], axis=1)
    w = np.arange(80) % 2 == 0
    plain = effects(rewards, w)
    assert repr(effects(rewards, w, features=x)) == repr(plain)


def test_features_are_standardized_with_their_squares_and_an_outlier_is_no_lever():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (50, 2)) * [1.0, 1e6]
    x = np.column_stack([x, np.full(50, 7.0)])
    x[0, 1] = np.nan
    found = _prepared(x)
    filled = np.where(np.isnan(x), np.nanmean(x, axis=0), x)[:, :2]
    unit = (filled - filled.mean(axis=0)) / filled.std(axis=0)
    squares = unit**2
    np.testing.assert_allclose(found[:, :2], unit)
    np.testing.assert_allclose(found[:, 2:], (squares - squares.mean(axis=0)) / squares.std(axis=0))
    for far in (1.0, -1.0):
        lever = np.zeros((50, 1))
        lever[0] = far
        assert _prepared(lever)[0, 0] == 4 * far


def test_the_penalty_is_that_of_the_least_error_with_one_row_left_out():
    rng = np.random.default_rng(3)
    x, at = rng.normal(2.0, 1.0, (12, 3)), rng.normal(2.0, 1.0, (4, 3))
    y = x @ [0.5, -0.3, 0.0] + rng.normal(0, 1.0, 12) + 5

    def fit(x, y, at, penalty):
        inner = (x - x.mean(0)).T @ (x - x.mean(0)) + penalty * np.eye(3)
        return y.mean() + (at - x.mean(0)) @ np.linalg.solve(inner, (x - x.mean(0)).T @ (y - y.mean()))

    left = [np.arange(12) != i for i in range(12)]
    errors = [sum((y[~k] - fit(x[k], y[k], x[~k], p)).item() ** 2 for k in left) for p in PENALTIES]
    best = PENALTIES[np.argmin(errors)]
    assert PENALTIES[0] < best < PENALTIES[-1]
    np.testing.assert_allclose(_ridge(x, y, at), fit(x, y, at, best))


def test_the_chance_of_being_rewritten_is_that_of_the_penalized_likelihood():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 2))
    seen = rng.random(60) < 1 / (1 + np.exp(-(0.5 + 2 * x[:, 0])))

    def loss(beta):
        logit = beta[0] + x @ beta[1:]
        return (np.log1p(np.exp(logit)) - seen * logit).sum() + (1e-6 * beta[0] ** 2 + beta[1:] @ beta[1:]) / 2

    beta = optimize.minimize(loss, np.zeros(3), tol=1e-12).x
    at = rng.normal(size=(5, 2))
    np.testing.assert_allclose(_chance(x, seen, at), 1 / (1 + np.exp(-(beta[0] + at @ beta[1:]))), atol=1e-5)
    assert (_chance(x, np.ones(60, bool), at) == 1).all()


def two_phase_frame(n=600, share=0.3, seed=2):
    """The effect depends on the number of words, all originals are there, a part is rewritten."""
    rng = np.random.default_rng(seed)
    w = np.arange(n) % 2 == 0
    length = rng.integers(5, 60, n)
    d = 0.02 * length + 0.2 * rng.normal(size=n)
    rewritten = rng.random(n) < share
    moved = (np.where(w, 1, -1) * d).tolist()
    frame = pd.DataFrame({
        "prompt_id": np.arange(n).astype(str), "prompt": "Say it.", "response": ["word " * k for k in length],
        "attribute": "x", "treated": w,
        "reward/rm": [[0.0, 0.0, v] if k else [0.0, None, None] for v, k in zip(moved, rewritten, strict=True)],
    })  # fmt: skip
    return frame, d


def test_originals_that_are_not_rewritten_make_the_interval_narrower():
    frame, d = two_phase_frame()
    complete, both = (
        rk.estimate(frame, sample=sample).query("estimator == 'rate' and estimand == 'ate'").iloc[0]
        for sample in ("complete", "two-phase")
    )
    assert both["se"] < 0.75 * complete["se"]
    assert abs(both["estimate"] - d.mean()) < 3 * both["se"]
    assert (both["n"], both["n_dropped"]) == (600, complete["n_dropped"])
    planned = rk.plan(frame, se=complete["se"], unit="reward", two_phase=True).iloc[0]
    assert planned["n_needed"] == complete["n"]
    assert planned["explained"] == pytest.approx(1 - 0.04 / d.var(), abs=0.1)
    assert planned["rows_two_phase"] < 0.5 * complete["n"]


def test_two_phases_predict_from_the_texts_and_from_the_originals_own_reward():
    frame, d = two_phase_frame()
    own = d + 0.1 * np.random.default_rng(5).normal(size=len(d))
    frame["reward/rm"] = [[r, *rest] for r, (_, *rest) in zip(own, frame["reward/rm"], strict=True)]
    found = rk.estimate(frame, sample="two-phase").set_index(["estimator", "estimand"])
    r, (group,), texts = reward_matrix(frame, "reward/rm"), groups(frame), original_features(frame)
    for e in effects(r, group.treated, group.clusters, features=np.column_stack([texts, own])):
        row = found.loc[(e.estimator, e.estimand)]
        assert (row["estimate"], row["se"]) == pytest.approx((e.estimate, e.se), rel=1e-9)
    blind = effects(r, group.treated, group.clusters, features=texts)
    (unseen,) = [e.se for e in blind if (e.estimator, e.estimand) == ("rate", "ate")]
    assert found.loc[("rate", "ate"), "se"] < 0.9 * unseen


def test_two_phases_need_texts_and_analytic_errors_and_enough_rows():
    frame, _ = two_phase_frame()
    with pytest.raises(rk.InputError, match="two-phase"):
        rk.estimate(frame, sample="two-phase", uncertainty="bootstrap")
    with pytest.raises(rk.InputError, match="did you mean 'two-phase'"):
        rk.estimate(frame, sample="two-phases")
    few, _ = two_phase_frame(n=60, share=0.3)
    table = rk.estimate(few, sample="two-phase")
    assert set(table["estimator"]) == {"naive"}
    assert any("too few to predict the others from" in note for note in table.attrs["notes"])
    assert table["reason"][0].startswith("no RATE: under 20 rewritten rows of a class")


def polished(asymmetry, n=600, seed=3):
    """A rewriter that polishes towards one side by more, seen by a measure; the attribute itself is worth nothing."""
    rng = np.random.default_rng(seed)
    w = np.arange(n) % 2 == 0
    sign = np.where(w, 1.0, -1.0)
    polish = asymmetry + 0.5 * rng.normal(size=n)  # in the change from the first rewrite to the second
    d = polish + 0.2 * rng.normal(size=n)
    values = {}
    texts = [[f"a{i}", f"b{i}", f"c{i}", "a third rewrite, which is not measured"] for i in range(n)]
    for i, (first, second, third, _) in enumerate(texts):
        values |= {first: 0.0, second: float(i % 7), third: i % 7 + float(sign[i] * polish[i])}
    frame = pd.DataFrame({
        "prompt_id": np.arange(n).astype(str), "prompt": "p", "response": [t[0] for t in texts],
        "rewrites": [t[1:] for t in texts], "attribute": "x", "treated": w,
        "reward/rm": [[0.0, 0.25, 0.25 + float(s * v)] for s, v in zip(sign, d, strict=True)],
    })  # fmt: skip
    return frame, {"polish": lambda given: [values[t] for t in given]}, d, polish


def test_adjustment_removes_an_asymmetry_that_a_measure_sees(monkeypatch):
    monkeypatch.setattr("ratekit.attributes.MEASURES", {})
    frame, measures, d, polish = polished(0.4)
    row = rk.adjusted(frame, measures=measures).query("estimand == 'ate'").iloc[0]
    fit = sm.OLS(d, sm.add_constant(polish)).fit(cov_type="HC2")
    assert row["rate"] == pytest.approx(d.mean())
    assert row["adjusted"] == pytest.approx(fit.params[0])
    assert row["se"] == pytest.approx(fit.bse[0], rel=0.01)
    assert abs(row["rate"]) > 0.3  # the control: RATE has all of the asymmetry
    assert row["ci_low"] < 0 < row["ci_high"]
    assert row["spillover"] == pytest.approx(row["rate"] - row["adjusted"])
    assert row["at_reliability"] == pytest.approx(row["rate"] - 2 * row["spillover"])
    assert row["share"] == pytest.approx(row["spillover"] / row["rate"])
    dumb = {
        "dumb": lambda given: [
            np.nan if t == "c0" else len(t) + values for t, values in zip(given, measures["polish"](given), strict=True)
        ]
    }
    assert rk.adjusted(frame, measures=measures | dumb).query("estimand == 'ate'")["n"].item() == len(d) - 1
    with pytest.raises(rk.InputError, match="reliability=0"):
        rk.adjusted(frame, reliability=0)


def test_adjustment_has_the_estimands_that_the_rows_give(monkeypatch):
    monkeypatch.setattr("ratekit.attributes.MEASURES", {})
    frame, measures, _, _ = polished(0.4, n=40)
    for side, estimand in ((True, "att"), (False, "atu")):
        table = rk.adjusted(frame[frame["treated"] == side], measures=measures)
        assert table["estimand"].tolist() == [estimand]
    short = frame.assign(rewrites=[r[:1] for r in frame["rewrites"]])
    short["reward/rm"] = [r[:2] for r in frame["reward/rm"]]
    with pytest.raises(rk.InputError, match="no row has a first and a second rewrite"):
        rk.adjusted(short, measures=measures)


def test_an_intercept_needs_more_rows_than_slopes_and_measures_that_differ():
    rng = np.random.default_rng(0)
    x, d = rng.normal(size=(6, 2)), rng.normal(size=6)
    for n, told in ((3, False), (4, True)):
        assert math.isfinite(_intercept(d[:n], x[:n], np.arange(n), 1.0, 0.95)["adjusted"]) == told
    twice = np.column_stack([x, x[:, 0] + x[:, 1]])
    assert math.isnan(_intercept(d, twice, np.arange(6), 1.0, 0.95)["adjusted"])
    x[0] = 0.0
    assert math.isfinite(_intercept(d, x, np.arange(6), 1.0, 0.95)["adjusted"])
    assert _intercept(d, twice, np.arange(6), 1.0, 0.95)["rate"] == pytest.approx(d.mean())


def test_an_intercept_of_what_rounding_leaves_has_no_error(monkeypatch):
    """Rewards of float32, of which the measure explains all: what is left over is rounding."""
    monkeypatch.setattr("ratekit.attributes.MEASURES", {})
    frame, measures, _, polish = polished(0.4)
    sign = np.where(frame["treated"], 1, -1)
    base = np.random.default_rng(0).standard_normal(len(sign)).astype(np.float32)
    second = (base + np.float32(0.3) * (sign * polish).astype(np.float32)).astype(np.float32)
    frame["reward/rm"] = [[0.0, float(a), float(b)] for a, b in zip(base, second, strict=True)]
    row = rk.adjusted(frame, measures=measures).query("estimand == 'ate'").iloc[0]
    assert row["adjusted"] == pytest.approx(0, abs=1e-6)
    assert np.isnan([row["se"], row["ci_low"], row["p_value"]]).all()
    assert row["spillover_se"] == pytest.approx(0.3 * polish.std(ddof=1) / math.sqrt(len(sign)), rel=1e-4)
    with pytest.raises(rk.InputError, match="level=2"):
        rk.adjusted(frame, measures={"polish": lambda given: [1.0] * len(given)}, level=2)


def test_the_error_of_the_spillover_is_that_of_a_jackknife():
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, (100, 1))
    d = 0.5 + 0.8 * x[:, 0] + rng.normal(0, 0.3, 100)
    left = [_intercept(d[k], x[k], np.arange(99), 1.0, 0.95)["spillover"] for k in ~np.eye(100, dtype=bool)]
    found = _intercept(d, x, np.arange(100), 1.0, 0.95)
    assert found["spillover_se"] == pytest.approx(math.sqrt(99 * np.var(left)), rel=0.05)
    none = _intercept(d, np.empty((100, 0)), np.arange(100), 1.0, 0.95)
    assert (none["adjusted"], none["spillover"]) == pytest.approx((d.mean(), 0))
    assert math.isnan(none["spillover_se"])


def test_bounds_hold_what_refused_rows_hide():
    rng = np.random.default_rng(5)
    d = rng.uniform(0, 1, 400)
    refused = d > 0.8  # those that react most
    frame = pd.DataFrame({
        "prompt_id": np.arange(400).astype(str), "attribute": "x", "treated": True,
        "reward/rm": [[0.0, None, None] if gone else [0.0, 0.0, float(v)] for v, gone in zip(d, refused, strict=True)],
    })  # fmt: skip
    row = rk.refusal_bounds(frame).iloc[0]
    kept, share = d[~refused], refused.mean()
    assert row["share_dropped"] == pytest.approx(share)
    assert row["bound_low"] == pytest.approx((1 - share) * kept.mean() + share * kept.min())
    assert row["bound_high"] == pytest.approx((1 - share) * kept.mean() + share * kept.max())
    assert row["ci_low"] < row["bound_low"] < row["bound_high"] < row["ci_high"]
    assert row["estimate"] == pytest.approx(kept.mean())
    assert row["ci_high"] > d.mean() - 0.05
    whole = rk.refusal_bounds(frame[~refused]).iloc[0]
    assert whole["bound_low"] == pytest.approx(whole["bound_high"])
    assert whole["bound_low"] == pytest.approx(whole["estimate"])
    both = pd.DataFrame({
        "prompt_id": list("abcdef"), "attribute": "x", "treated": [True] * 3 + [False] * 3,
        "reward/rm": [[0, 0, 1.0], [0, 0, 3.0], [0.0, None, None], [0, 0, 5.0], [0, 0, 7.0], [0, 0, 9.0]],
    })  # fmt: skip
    by_class = rk.refusal_bounds(both).set_index("estimand")  # untreated differences are -5, -7, -9
    assert by_class["bound_low"].to_dict() == pytest.approx({"ate": -16 / 6, "att": 5 / 3, "atu": -7})
    assert by_class["bound_high"].to_dict() == pytest.approx({"ate": -14 / 6, "att": 7 / 3, "atu": -7})
    assert by_class["n_dropped"].to_dict() == {"ate": 1, "att": 1, "atu": 0}
    with pytest.raises(rk.InputError, match="naive"):
        rk.refusal_bounds(frame, estimator="naive")


def test_the_standard_error_of_the_intercept_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, (1000, 2))  # away from 0, so that the intercept is an extrapolation
    d = 0.5 + x @ [0.3, -0.2] + rng.normal(0, 0.7, 1000)
    design = np.column_stack([np.ones(1000), x])
    inverse = np.linalg.inv(design.T @ design)
    residual = d - design @ inverse @ design.T @ d
    found = _intercept(d, x, np.arange(1000), 1.0, 0.95)
    assert found["adjusted"] == pytest.approx((inverse @ design.T @ d)[0])
    assert found["se"] == pytest.approx(math.sqrt(residual @ residual / 997 * inverse[0, 0]), rel=0.05)


def test_what_is_predicted_is_learnt_from_the_other_clusters_alone():
    """Five clusters, five folds, nothing to predict from: a row without a difference gets the mean of the others."""
    clusters, level = np.repeat(np.arange(5), 3), np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    values = level[clusters]
    values[::3] = np.nan
    found = augmented(values, np.ones((15, 1)), clusters)[0][::3]
    assert found == pytest.approx((31 - level) / 4)


def test_newtons_method_takes_25_steps_at_most(monkeypatch):
    taken = []
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: taken.append(1) or np.zeros_like(b) + 1e-3)  # it never ends
    _chance(np.zeros((4, 1)), np.array([True, False, True, False]), np.zeros((1, 1)))
    assert len(taken) == 25


def test_twenty_rows_of_a_class_are_enough_to_predict_the_others_from():
    rng = np.random.default_rng(0)
    w = np.arange(80) % 2 == 0
    r = rng.normal(size=(80, 3))
    for rewritten, told in ((20, True), (19, False)):
        few = r.copy()
        few[np.flatnonzero(w)[rewritten:], 1:] = np.nan
        found = effects(few, w, features=rng.normal(size=(80, 1)))
        assert (found.get("rate", "ate") is not None) == told
