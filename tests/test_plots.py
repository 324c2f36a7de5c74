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
