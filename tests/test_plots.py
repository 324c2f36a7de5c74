"""The forest draws the numbers of the table, and nothing else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import ratekit as rk
from ratekit import plots


@pytest.fixture(scope="module")
def table():
    ds = rk.load("reviews")
    for name in ("words", "vader"):
        ds = rk.score(ds, name, progress=False)
    return rk.estimate(ds)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def points(ax):
    return sorted(float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() not in ("None", None, ""))


@pytest.mark.parametrize("unit", ["sd", "reward"])
@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_the_points_are_the_estimates(table, unit, estimand):
    ax = rk.plots.effects(table, unit=unit, estimand=estimand)
    shown = (rk.standardize(table) if unit == "sd" else table).query(f"estimand == '{estimand}'")
    shown = shown[shown.estimator.isin(["naive", "single_rewrite", "rate"])]
    np.testing.assert_allclose(points(ax), sorted(shown.estimate))
    assert ("SD" in ax.get_xlabel()) == (unit == "sd")
    assert len(ax.get_yticklabels()) == 4


def test_it_draws_into_an_axes_that_is_given(table):
    _, ax = plt.subplots()
    assert rk.plots.effects(table, ax=ax) is ax


def test_only_what_is_there_is_drawn_and_named(table):
    atu_only = table[(table.estimator == "rate") & (table.estimand == "atu")]
    ax = rk.plots.effects(atu_only)
    assert len(points(ax)) == 4
    assert "untreated" in ax.get_xlabel()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["RATE"]


def test_faults(table):
    with pytest.raises(rk.InputError, match="did you mean 'sd'"):
        rk.plots.effects(table, unit="sds")
    with pytest.raises(rk.InputError, match="holds none of naive"):
        rk.plots.effects(table[table.estimator == "rate_late"])
    with pytest.raises(rk.InputError, match="unit='reward'"):
        rk.plots.effects(table.assign(reward_sd=np.nan))


def test_a_sweep_is_drawn_with_its_truth():
    from ratekit.simulate import RuleReward, sweep

    table = sweep("vowel-typos", RuleReward(), n=30)
    figure = plots.sweep(table)
    ax = figure.axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    sd = table["reward_sd"].mean()
    np.testing.assert_allclose(drawn["truth"], table[table.estimator == "rate"]["truth"] / sd)
    np.testing.assert_allclose(drawn["RATE"], table[table.estimator == "rate"]["estimate"] / sd)
    assert ax.get_xlabel()


def test_coverage_and_before_after_draw_every_row():
    from conftest import ROOT

    table = pd.read_csv(ROOT / "experiments" / "coverage.csv").query("estimand == 'ate'")
    ax = plots.coverage(table[table.estimator.isin(["rate", "rate_extrapolated"])])
    marks = [line for line in ax.get_lines() if line.get_marker() not in ("None", "")]
    assert len(marks) == 2 * len(table.groupby(["world", "about", "n"]))
    effects, people = (pd.read_csv(ROOT / "experiments" / f"mitigation{x}.csv") for x in ("", "_people"))
    figure = plots.before_after(effects, people, {s: (f"base-{s}", f"debiased-{s}") for s in ("2B", "27B")})
    assert [ax.get_title() for ax in figure.axes[:2]] == ["length", "structure"]
    assert figure.axes[0].get_ylabel()


def cells(ax):
    """The texts of a heat map by (row label, column label)."""
    rows = [t.get_text().replace("\n", "") for t in ax.get_yticklabels()]
    columns = [t.get_text().replace("\n", "") for t in ax.get_xticklabels()]
    return {(rows[round(t.get_position()[1])], columns[round(t.get_position()[0])]): t for t in ax.texts}


@pytest.mark.parametrize(("unit", "estimator"), [("sd", "rate"), ("reward", "naive")])
def test_the_heat_map_holds_the_table_and_its_colours_follow_the_sign(table, unit, estimator):
    negative = table.assign(estimate=table.estimate.where(table.attribute == "length", -table.estimate))
    ax = plots.heatmap(negative, unit=unit, estimator=estimator)
    shown = (rk.standardize(negative) if unit == "sd" else negative).query(
        f"estimand == 'ate' and estimator == '{estimator}'"
    )
    assert unit == "reward" or "SD" in ax.get_title(loc="left")
    drawn = cells(ax)
    assert len(drawn) == len(shown) == 4
    image = ax.images[0].get_array()
    for i, row in enumerate(shown.itertuples()):
        text = drawn[row.attribute, row.reward_model].get_text().replace("\N{MINUS SIGN}", "-")
        assert float(text) == pytest.approx(row.estimate, abs=0.06)
        at = (["sentiment", "length"].index(row.attribute), ["words", "vader"].index(row.reward_model))
        assert np.sign(image[at]) == np.sign(row.estimate), i


def test_the_heat_map_shows_what_is_sure_and_what_is_missing(table):
    rate = table.query("estimator == 'rate' and estimand == 'ate'")
    without = rate.drop(rate.index[(rate.attribute == "length") & (rate.reward_model == "words")])
    drawn = cells(plots.heatmap(without))
    assert drawn["length", "words"].get_text() == "\N{EN DASH}"
    sure = (rate.ci_low > 0) | (rate.ci_high < 0)
    assert sure.any()
    assert not sure.all()
    for row, known in zip(without.itertuples(), sure[without.index], strict=True):
        assert (drawn[row.attribute, row.reward_model].get_weight() == "bold") == known
    with pytest.raises(rk.InputError, match="several rows for"):
        plots.heatmap(pd.concat([rate, rate]))
    with pytest.raises(rk.InputError, match="holds no ATU by rate_late"):
        plots.heatmap(rate, estimator="rate_late", estimand="atu")


def test_naive_and_rate_are_joined_and_the_largest_gap_is_on_top(table):
    ax = plots.naive_vs_rate(table)
    ate = rk.standardize(table).query("estimand == 'ate'")
    both = ate.pivot_table(index=["attribute", "reward_model"], columns="estimator", values="estimate")
    drawn = {line.get_marker(): [] for line in ax.lines}
    for line in ax.lines:
        drawn[line.get_marker()].append(float(line.get_xdata()[0]))
    gaps = (both.naive - both.rate).abs().sort_values(ascending=False)
    np.testing.assert_allclose(drawn["s"], both.naive[gaps.index])
    np.testing.assert_allclose(drawn["o"], both.rate[gaps.index])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["\n".join(key) for key in gaps.index]
    with pytest.raises(rk.InputError, match="both a naive and a RATE"):
        plots.naive_vs_rate(table[table.estimator == "rate"])


def test_names_from_data_are_only_names(table):
    odd = table.assign(reward_model="a$b\x1b[31m$<b>" + 300 * "x")
    odd = odd[table.reward_model == "words"]
    for draw in (plots.effects, plots.heatmap, plots.naive_vs_rate):
        ax = draw(odd)
        ax.figure.canvas.draw()  # an unescaped dollar would be mathematics, and fail here or draw italics
        labels = [t.get_text() for t in [*ax.get_yticklabels(), *ax.get_xticklabels()]]
        assert any("a\\$b[31m\\$<b>" in t.replace("\n", "") for t in labels)
        assert all("\x1b" not in t and len(t) < 90 for t in labels)


NOT_A_TABLE = {
    "a table from rk.estimate was expected, not list": [],
    "no column 'attribute'": pd.DataFrame({"x": [1]}),
    "has no rows": "empty",
}


@pytest.mark.parametrize("message", NOT_A_TABLE)
@pytest.mark.parametrize("draw", [plots.effects, plots.heatmap, plots.naive_vs_rate])
def test_what_is_no_table_of_effects_is_one_clear_fault(table, draw, message):
    given = NOT_A_TABLE[message]
    with pytest.raises(rk.InputError, match=message):
        draw(table.iloc[:0] if isinstance(given, str) else given)
