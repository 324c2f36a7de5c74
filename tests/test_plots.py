"""The forest draws the numbers of the table, and nothing else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ratekit as rk


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
