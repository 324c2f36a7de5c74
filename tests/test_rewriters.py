"""Several rewriters: the effect over them and how far they disagree; rewrites asked to keep their side."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ratekit as rk
from ratekit.cli import main
from ratekit.diagnostics.rewriters import _inverted, _most, _parts, _root, _together, among
from ratekit.errors import InputError
from ratekit.estimators import effects
from ratekit.groups import Group
from ratekit.rewriting.base import Rewrite


def rows(d, treated):
    """Rows whose RATE differences under each rewriter are d (rewriters, n); one prompt each."""
    sign = np.where(treated, 1.0, -1.0)
    return pd.concat([
        pd.DataFrame({
            "prompt_id": [str(i) for i in range(len(x))], "attribute": "a", "treated": treated, "rewriter": f"r{j}",
            "reward/m": [[s * 0.5, 0.0, s * v] for s, v in zip(sign, x, strict=True)],
        })
        for j, x in enumerate(d)
    ])  # fmt: skip


def test_the_numbers_are_those_of_a_hand_with_errors_that_are_shared():
    treated = np.arange(8) % 2 == 0
    d = np.array([[1.0, 2, 3, 2, 1, 2, 3, 2], [2.0, 3, 4, 3, 2, 3, 4, 3.5], [1.5, 2, 2.5, 2, 1, 2.5, 3, 2]])
    found = rk.across_rewriters(rows(d, treated), unit="reward").set_index("estimand").loc["ate"]
    v = np.cov(d) / 8
    shared, own = v[np.triu_indices(3, 1)].mean(), max(d.mean(1).var(ddof=1), 0) / 3
    assert found.estimate == pytest.approx(d.mean())
    assert found.se == pytest.approx(np.sqrt(own + shared))
    t = [stats.t.ppf(0.975, k) for k in (2, 7)]
    assert found.ci_high - found.estimate == pytest.approx(np.sqrt(t[0] ** 2 * own + t[1] ** 2 * shared))
    # Hotelling's T^2 on the gaps between rewriters, within rows
    gaps = d[1:] - d[0]
    t2 = 8 * gaps.mean(1) @ np.linalg.solve(np.cov(gaps), gaps.mean(1))
    assert found.q == pytest.approx(t2 * (7 - 1) / (7 * 2))
    assert found.q_p_value == pytest.approx(stats.f.sf(found.q, 2, 6))
    # tau solves the generalised Q = J - 1 with the whole covariance
    w = np.linalg.inv(v + found.tau**2 * np.eye(3))
    mu = (w @ d.mean(1)).sum() / w.sum()
    assert (d.mean(1) - mu) @ w @ (d.mean(1) - mu) == pytest.approx(2)
    # the p-value is where the interval touches 0
    p = found.p_value
    reach = sum(stats.t.ppf(1 - p / 2, k) ** 2 * x for k, x in ((2, own), (7, shared)))
    assert np.sqrt(reach) == pytest.approx(found.estimate, rel=1e-6)


def test_independent_studies_would_be_too_sure_of_what_rewriters_share():
    """Errors that are the same under every rewriter do not average out."""
    rng = np.random.default_rng(0)
    d = rng.normal(size=60) + 0.05 * rng.normal(size=(4, 60))
    found = rk.across_rewriters(rows(d, np.arange(60) % 2 == 0), unit="reward").set_index("estimand").loc["ate"]
    assert found.se == pytest.approx(d.mean(0).std(ddof=1) / np.sqrt(60), rel=0.02)  # pooled as 240 rows: half


@pytest.mark.parametrize(("n", "tau"), [(3, 0.0), (5, 0.3)])
def test_intervals_hold_in_draws_with_a_known_truth(n, tau):
    rng, draws, g = np.random.default_rng(n), 250, 60
    mean = spread = 0
    for _ in range(draws):
        d = rng.normal(size=g) * 0.8 + 0.6 * rng.normal(size=(n, g)) + tau * rng.normal(size=(n, 1))
        scores = (d - d.mean(1, keepdims=True)) / np.sqrt(g * (g - 1))
        found = among(d.mean(1), scores @ scores.T, g - 1)
        mean += found["ci_low"] <= 0 <= found["ci_high"]
        spread += found["tau_low"] <= tau <= found["tau_high"]
    assert min(mean, spread) / draws > 0.915  # 2.5 SE under .95


def heavy(seed, n=150, rewriters=3, effect=1.0):
    """Rows of rewriters that agree, whose originals' rewards have Student's t(3)."""
    rng = np.random.default_rng(seed)
    treated, base = np.arange(n) % 2 == 0, rng.standard_t(3, (n, 1)) / np.sqrt(3)
    sides = effect * np.stack([treated, ~treated, treated], axis=1)
    frames = []
    for j in range(rewriters):
        r = base + sides
        r[:, 1:] += 0.1 * rng.normal(size=(n, 2))
        frames.append(pd.DataFrame({"prompt_id": [str(i) for i in range(n)], "attribute": "a", "treated": treated,
                                    "rewriter": f"r{j}", "reward/m": r.tolist()}))  # fmt: skip
    return pd.concat(frames)


def test_in_sds_the_error_of_the_sd_has_the_tail_that_it_has_in_one_effect():
    missed, alone, even = np.zeros(100, bool), np.zeros(100, bool), np.zeros(100, bool)
    for i in range(100):
        of, seed = [], 100 + i
        for _, rows in heavy(seed).groupby("rewriter"):
            group = Group({}, np.arange(150), rows.treated.to_numpy(), np.arange(150))
            r = np.array(rows["reward/m"].tolist())
            of.append(_parts(r, group, "rate", "sd")["ate"])
        e, one_effect = _together(of, 0.95), effects(r, group.treated).get("rate", "ate")
        missed[i], alone[i] = e["ci_low"] > 1, one_effect.ci_low_sd > 1
        even[i] = e["estimate"] - stats.t.ppf(0.975, 149) * e["se"] > 1
    # One effect of this size, in SDs of Student's t(3), is missed in 4.75 % of draws (experiments/coverage_wider.csv).
    assert missed.sum() <= stats.binom.ppf(0.999, 100, 0.0475)
    # With the same SD for all rewriters their mean is missed where one effect is, or not at all: of the draws in which
    # one of the two intervals misses alone, no more than half, by the binomial, are the mean's.
    differ = int((missed != alone).sum())
    assert (missed & ~alone).sum() <= stats.binom.ppf(0.999, differ, 0.5)
    # The control: arms of equal length miss in draws in which this interval does not, and never the other way round.
    assert not (missed & ~even).any()
    assert stats.binomtest(int((even & ~missed).sum()), int((even != missed).sum()), 0.5).pvalue < 0.01
    # Rewriters that give the very same rewards: the interval of one of them, and that of two means of it.
    one = heavy(0, rewriters=1)
    twice = pd.concat([one, one.assign(rewriter="again")])
    e = rk.across_rewriters(twice, rewards=["m"]).iloc[0]
    alone = rk.estimate(one).query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    assert (e.ci_low, e.ci_high) == pytest.approx((alone.ci_low_sd, alone.ci_high_sd), rel=1e-6)
    assert e.p_value == pytest.approx(alone.p_value, rel=1e-6)
    assert e.se == pytest.approx(alone.se_sd, rel=1e-6)


def test_a_rewriter_may_lack_prompts_that_others_have():
    """The first rewriter's last prompts were refused to the second; the third has others still."""
    table = heavy(0, n=40)
    lost = (table.rewriter == "r1") & table.prompt_id.isin([str(i) for i in range(30, 40)])
    lost |= (table.rewriter == "r2") & table.prompt_id.isin([str(i) for i in range(10)])
    for unit in ("sd", "reward"):
        e = rk.across_rewriters(table[~lost], unit=unit).iloc[0]
        assert (e.n, e.n_clusters) == (100, 40)
        assert e.se > 0
        assert e.ci_low < 1 < e.ci_high


def test_over_rewriters_the_estimate_is_the_mean_of_theirs_in_sds_of_the_originals():
    table = heavy(0, n=40)
    table["reward/m"] = [[r[0], 3 * r[1] - i % 3, r[2]] for i, r in enumerate(table["reward/m"])]
    lost = (table.rewriter == "r1") & (table.prompt_id == "0")
    table.loc[lost, "reward/m"] = [[[0.5, 1.0, None]]] * 1  # one row without a second rewrite
    each = rk.estimate(table, by="rewriter").query("estimator == 'rate'")
    for unit, column in (("sd", "estimate_sd"), ("reward", "estimate")):
        found = rk.across_rewriters(table, unit=unit).set_index("estimand")
        for estimand in ("ate", "att", "atu"):
            of = each[each["estimand"] == estimand]
            assert found.loc[estimand, "estimate"] == pytest.approx(of[column].mean())
            assert found.loc[estimand, "n"] == of["n"].sum()
        assert found.loc["ate", "n"] == 119
    refused = table.assign(**{"reward/m": [r[:1] if int(i) < 10 else r for i, r in zip(
        table["prompt_id"], table["reward/m"], strict=True)]}).query("rewriter != 'r2'")  # fmt: skip
    found = rk.across_rewriters(refused, unit="sd").iloc[0]  # 30 rewritten prompts tell of the gap, 40 of the SD
    assert found.q_p_value == pytest.approx(stats.f.sf(found.q, 1, 29))


def test_quantiles_and_p_values_by_hand():
    """Hotelling's T^2 with q = 2 of 9 degrees of freedom is F(2, 8) times 2 * 9 / 8."""
    assert _most(2, 9, 0.9) == pytest.approx(stats.f.ppf(0.95, 2, 8) * 9 * 2 / 8)
    assert _most(2, 1, 0.9) == np.inf
    assert _inverted(lambda p: -stats.norm.ppf(p / 2), 2.0) == pytest.approx(2 * stats.norm.sf(2.0))
    assert _inverted(lambda p: 1.0, 2.0) == pytest.approx(1e-300, rel=1e-6, abs=0)  # less is not said
    assert _root(np.array([4.0, 1.0]), np.array([1.0, 1.0]), 2.5) == pytest.approx(1)  # 5 / (1 + 1)
    assert _root(np.array([4.0, 1.0]), np.array([1.0, 1.0]), 5.0) == 0


def test_rewriters_that_are_alike_have_no_spread_and_one_is_refused():
    d = np.random.default_rng(1).normal(size=(1, 20)).repeat(2, axis=0)
    table = rows(d, np.arange(20) % 2 == 0)
    found = rk.across_rewriters(table, unit="reward").iloc[0]
    assert (found.tau, found.tau_low, found.tau_high) == (0, 0, 0)
    assert np.isnan(found.q_p_value)
    with pytest.raises(InputError, match="one rewriter only"):
        rk.across_rewriters(table[table.rewriter == "r0"])


class Longer:
    """A rewriter that adds or takes away ten words, and on the way marks: `marks[side]` with each pass."""

    def __init__(self, treated, untreated, once=False):
        self.marks, self.once = {True: treated, False: untreated}, once

    def __call__(self, texts, targets):
        return [Rewrite(self.one(t, side), "ok") for t, side in zip(texts, targets, strict=True)]

    def one(self, text, side):
        plain = text.replace(" and so on" * 5, "")
        if self.once:
            plain = plain.replace("!", "")
        return plain + " and so on" * 5 * side + "!" * self.marks[side]


def texts(n=12):
    return [
        {"prompt": f"{i}?", "response": f"Text {i}{' a' * (i % 3)}" + " and so on" * 5 * (i % 2), "treated": i % 2 == 0}
        for i in range(n)
    ]


def reward(prompts, responses):
    """1 for the words, .1 for a mark; a little of its own for each prompt."""
    return [
        1.0 * ("so on" in t) + 0.1 * t.count("!") + 0.01 * int(p[-1]["content"][:-1])
        for p, t in zip(prompts, responses, strict=True)
    ]


@pytest.mark.parametrize(("once", "seen"), [(False, (0.3, -0.2)), (True, (0.0, 0.0))])
def test_a_placebo_sees_what_every_pass_adds_and_not_what_is_there_already(once, seen):
    rewriter = Longer(3, 2, once)
    attribute = rk.Attribute("wordy", "longer", "shorter", label=lambda ds: ["so on" in t for t in ds["response"]])
    data = [{k: v for k, v in row.items() if k != "treated"} for row in texts()]
    ds = rk.rewrite(rk.label(data, attribute), attribute, rewriter, progress=False)
    kept = rk.placebo(ds, attribute, rewriter, progress=False)
    effect, off = (
        rk.estimate(rk.score(x, reward, name="r", progress=False))
        .query("estimator == 'rate'").set_index("estimand").estimate
        for x in (ds, kept)
    )  # fmt: skip
    bias = (0.1, 0.1) if once else (0.3, -0.2)  # what a mark put once adds: the difference; with each pass: its side's
    assert effect.att == pytest.approx(1 + bias[0])
    assert effect.atu == pytest.approx(1 + bias[1])
    assert off.att == pytest.approx(seen[0])
    assert off.atu == pytest.approx(seen[1])
    assert off.ate == pytest.approx(np.mean(seen))


def test_an_audit_of_two_rewriters_has_an_effect_for_each_and_one_over_them(tmp_path, capsys):
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps({k: v for k, v in r.items() if k != "treated"}) for r in texts(24)))
    how = {"rewriter": {"plain": Longer(0, 0), "marking": Longer(3, 0)}, "progress": False}
    found = rk.audit(data, {"r": reward}, "length", **how)
    rate = found.effects[(found.effects.estimator == "rate") & (found.effects.estimand == "ate")]
    assert rate.rewriter.tolist() == ["plain", "marking"]
    assert [v.by for v in found.verdicts] == [{"rewriter": "plain"}, {"rewriter": "marking"}]
    over = found.across_rewriters.set_index("estimand").loc["ate"]
    assert over.estimate == pytest.approx(rate.estimate_sd.mean())
    assert over.highest - over.lowest > 0
    assert "2 rewriters" in repr(found)
    two = ["rules", "rules:mend=0.5"]
    assert "under two rewriters have the rewards" in repr(
        rk.audit(data, "words", "length", rewriter=two, depth=1, progress=False)
    )
    kept = rk.audit(data, "words", "length", rewriter=two, progress=False, out=tmp_path / "two")
    assert rk.Audit.load(tmp_path / "two").across_rewriters.equals(kept.across_rewriters)
    assert rk.verify(tmp_path / "two").differences == ()
    call = ["audit", "--data", str(data), "-a", "length", "-r", "words", "--out", str(tmp_path / "three"), "--dry-run"]
    assert main([*call, "--rewriter", "openai:one", "--rewriter", "openai:two"]) == 0
    said = capsys.readouterr().out
    assert "length by openai:one" in said
    assert "in all 96 calls" in said  # 24 rows, there and back, by two
    for wrong, said in (([], "a rewriter, or several"), (["rules", "rules"], "two rewriters are called 'rules'")):
        with pytest.raises(InputError, match=said):
            rk.audit(data, "words", "length", rewriter=wrong)
    with pytest.raises(InputError, match="one rewriter was expected"):
        rk.card("words", data, rewriter=["rules", "rules:mend=0.5"], progress=False)
