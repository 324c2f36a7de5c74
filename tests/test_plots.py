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
    image = ax.collections[0].get_array().reshape(2, 2)
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


# --- rewards and checks ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored():
    ds = rk.load("reviews")
    for name in ("words", "vader"):
        ds = rk.score(ds, name, progress=False)
    return ds


def marked(ax, marker):
    """(x, y) of every point drawn with this marker."""
    lines = [line for line in ax.lines if line.get_marker() == marker]
    return sorted((float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True))


def test_the_densities_stand_on_the_rewards_themselves(scored):
    ax = plots.densities(scored, "words", attribute="length")
    frame = scored.to_pandas().query("attribute == 'length'")
    rewards = np.stack(frame["reward/words"])[:, :3]
    labels = ["original", "rewrite", "rewrite of the rewrite"]
    assert [t.get_text() for t in ax.get_yticklabels()] == 2 * labels
    strips = [line for line in ax.lines if line.get_marker() == "|"]
    for strip, side, k in zip(strips, [True] * 3 + [False] * 3, [0, 1, 2] * 2, strict=True):
        np.testing.assert_array_equal(strip.get_xdata(), rewards[frame.treated == side, k])
        assert strip.get_color() == ("#0072B2" if side == (k % 2 == 0) else "#E69F00")
    assert "longer" in ax.get_title(loc="left")


def test_densities_take_rows_without_rewards_and_rewards_that_do_not_vary():
    rows = {"attribute": "x", "treated": [True, True, False, False], "reward/r": [[1.0, 1.0, 1.0]] * 3 + [[1.0, None]]}
    ax = plots.densities(pd.DataFrame(rows))
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.texts] == ["treated\nresponses\n(n = 2)", "untreated\nresponses\n(n = 1)"]


DENSITIES = {
    "which reward model\\? The data hold words, vader": {"attribute": "length"},
    "which attribute\\? The data hold sentiment, length": {"reward_model": "words"},
    "did you mean 'words'": {"reward_model": "wrods", "attribute": "length"},
    "rewards of 3 rewrites, not of 4|from 1 to 3": {"reward_model": "words", "attribute": "length", "depth": 4},
}


@pytest.mark.parametrize("message", DENSITIES)
def test_densities_say_what_is_not_clear(scored, message):
    with pytest.raises(rk.InputError, match=message):
        plots.densities(scored, **DENSITIES[message])


@pytest.mark.parametrize("check", ["drift", "balance"])
def test_moves_are_drawn_where_diagnose_says_with_two_errors_each_way(scored, check):
    checks = rk.diagnose(scored)
    ax = getattr(plots, check)(checks)
    rows = checks[checks.check == check]
    for side, marker in (("treated", "o"), ("untreated", "D")):
        of = rows[rows.group.str.split(",").str[0] == side]
        np.testing.assert_allclose(sorted(x for x, _ in marked(ax, marker)), sorted(of.in_sd.dropna()))
    bars = [line.get_xdata() for line in ax.lines if line.get_marker() in ("None", "") and len(line.get_xdata()) == 2]
    drawn = sorted(float(b[1] - b[0]) for b in bars if b[0] != b[1])
    told = rows[rows.se.notna()]
    np.testing.assert_allclose(drawn, sorted(4 * told.se * (told.in_sd / told.value)))
    assert "SDs" in ax.get_xlabel()
    with pytest.raises(rk.InputError, match="depth="):
        getattr(plots, check)(checks[checks.check == "status"])


def test_the_dose_response_is_its_bins_and_its_slope(scored):
    table = rk.dose_response(scored.filter(lambda row: row["attribute"] == "length"), bins=4)
    figure = plots.dose_response(table)
    assert len(figure.axes) == 2
    for ax, model in zip(figure.axes, ("words", "vader"), strict=True):
        rows = table[(table.reward_model == model) & (table.bin != "all")]
        np.testing.assert_allclose(marked(ax, "o"), sorted(zip(rows.dose, rows.effect, strict=True)))
        slope = next(line for line in ax.lines if line.get_label() == "per unit").get_xydata()
        per_unit = table[(table.reward_model == model) & (table.bin == "all")].per_unit.item()
        assert slope[1, 1] / slope[1, 0] == pytest.approx(per_unit)
        assert model in ax.get_title()
        assert "words" in ax.get_xlabel()  # the unit of length's measure


def test_the_spillover_matrix_is_the_table(scored):
    table = rk.spillover(scored)
    drawn = cells(plots.spillover(table))
    for row in table[table.reward_model == "words"].itertuples():
        text = drawn[row.attribute, row.measure].get_text().replace("\N{MINUS SIGN}", "-")
        assert float(text) == pytest.approx(row.shift_sd, abs=0.006)
    with pytest.raises(rk.InputError, match="which reward model"):
        plots.spillover(table, value="through")
    assert "words" in plots.spillover(table, value="through", reward_model="words").get_title(loc="left")
    with pytest.raises(rk.InputError, match="no column 'measure'"):
        plots.spillover(rk.estimate(scored))
