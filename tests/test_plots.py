"""The forest draws the numbers of the table, and nothing else."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.transforms import Bbox

import ratekit as rk
from ratekit import plots
from ratekit.plots.style import TREATED, UNTREATED, saving


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
    if estimand == "att":
        assert "naive: no ATT" in [t.get_text() for t in ax.get_legend().get_texts()]


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
        rk.plots.effects(table.assign(reward_sd=np.nan, estimate_sd=np.nan))


def test_a_sweep_is_drawn_with_its_truth():
    from ratekit.simulate import RuleReward, sweep

    table = sweep("vowel-typos", RuleReward(), n=30)
    ax = plots.sweep(table)
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    rows = table[table.estimator == "rate"]
    np.testing.assert_allclose(drawn["truth"], rows["truth"] / rows["reward_sd"])
    np.testing.assert_allclose(drawn["RATE"], rows["estimate"] / rows["reward_sd"])
    low, high = table["ci_low_sd"].min(), table["ci_high_sd"].max()  # with the SD's own error, so wider than the rows'
    assert low < (table["ci_low"] / table["reward_sd"]).min()
    ends = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in ax.collections])
    assert [ends.min(), ends.max()] == pytest.approx([low, high])
    unknown = plots.sweep(table.assign(truth=np.nan)).get_legend()
    assert "truth" not in [text.get_text() for text in unknown.get_texts()]
    assert ax.get_xlabel()
    assert ax.get_ylabel().endswith("(reward SDs)")
    bare = table.drop(columns=["estimate_sd", "se_sd", "ci_low_sd", "ci_high_sd"])
    assert plots.sweep(bare).get_ylabel().endswith("(SDs of this sample)")


def test_coverage_and_before_after_draw_every_row():
    table = pd.read_csv(ROOT / "experiments" / "coverage.csv").query("estimand == 'ate'")
    ax = plots.coverage(table[table.estimator.isin(["rate", "rate_extrapolated"])], top=None)
    marks = [line for line in ax.get_lines() if line.get_marker() not in ("None", "")]
    assert len(marks) == 2 * len(table.groupby(["world", "about", "n"]))
    effects, people = (pd.read_csv(ROOT / "experiments" / f"mitigation{x}.csv") for x in ("", "_people"))
    pairs = {s: (f"base-{s}", f"debiased-{s}") for s in ("2B", "27B")}
    for given, column in ((effects, "estimate"), (people, "model_rate")):
        ax = plots.before_after(given, pairs, attribute="length")
        shown = given.reward_model.isin([model for pair in pairs.values() for model in pair])
        rows = given[(given.attribute == "length") & shown]
        np.testing.assert_allclose([x for x, _ in marked(ax, "o")], sorted(rows[column]))
    with pytest.raises(rk.InputError, match=r"which attribute\? There are length, structure"):
        plots.before_after(effects, pairs)


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
        assert strip.get_color() == (TREATED if side == (k % 2 == 0) else UNTREATED)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["longer", "shorter"]


def test_no_density_is_cut_off():
    for rewards in ([0.0, 1.0] * 20, [0.0] * 39 + [5.0]):
        ds = pd.DataFrame({"attribute": "a", "treated": True, "reward/r": [[r, r, r] for r in rewards]})
        for line in plots.densities(ds).lines:
            y = line.get_ydata()
            if len(y) == 200:
                assert max(abs(y[0] - y.max()), abs(y[-1] - y.max())) < 0.02 * np.ptp(y)


def test_densities_take_rows_without_rewards_and_rewards_that_do_not_vary():
    rows = {"attribute": "x", "treated": [True, True, False, False], "reward/r": [[1.0, 1.0, 1.0]] * 3 + [[1.0, None]]}
    ax = plots.densities(pd.DataFrame(rows))
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.texts] == ["treated\nresponses\n(n = 2)", "untreated\nresponses\n(n = 1)"]


DENSITIES = {
    "which reward model\\? There are words, vader": {"attribute": "length"},
    "which attribute\\? There are sentiment, length": {"reward_model": "words"},
    "did you mean 'words'": {"reward_model": "wrods", "attribute": "length"},
    "rewards of 3 rewrites, not of 4|from 1 to 3": {"reward_model": "words", "attribute": "length", "depth": 4},
}


@pytest.mark.parametrize("message", DENSITIES)
def test_densities_say_what_is_not_clear(scored, message):
    with pytest.raises(rk.InputError, match=message):
        plots.densities(scored, **DENSITIES[message])


@pytest.mark.parametrize("check", ["drift", "balance"])
def test_moves_are_drawn_where_diagnose_says_with_their_intervals(scored, check):
    checks = rk.diagnose(scored)
    ax = getattr(plots, check)(checks)
    rows = checks[checks.check == check]
    for side, marker in (("treated", "o"), ("untreated", "D")):
        of = rows[rows.group.str.split(",").str[0] == side]
        np.testing.assert_allclose(sorted(x for x, _ in marked(ax, marker)), sorted(of.in_sd.dropna()))
    bars = [line.get_xdata() for line in ax.lines if line.get_marker() in ("None", "") and len(line.get_xdata()) == 2]
    drawn = sorted(float(b[1] - b[0]) for b in bars if b[0] != b[1])
    told = rows[rows.high > rows.low]
    np.testing.assert_allclose(drawn, sorted(told.high - told.low))
    assert "SDs" in ax.get_xlabel()
    with pytest.raises(rk.InputError, match="depth="):
        getattr(plots, check)(checks[checks.check == "status"])


def test_the_dose_response_is_its_bins_and_its_slope(scored):
    table = rk.dose_response(scored.filter(lambda row: row["attribute"] == "length"), bins=4)
    with pytest.raises(rk.InputError, match=r"which reward model\? There are words, vader"):
        plots.dose_response(table)
    for model in ("words", "vader"):
        ax = plots.dose_response(table, reward_model=model)
        rows = table[(table.reward_model == model) & (table.bin != "all")]
        np.testing.assert_allclose(marked(ax, "o"), sorted(zip(rows.dose, rows.effect, strict=True)))
        slope = next(line for line in ax.lines if line.get_label() == "per unit").get_xydata()
        per_unit = table[(table.reward_model == model) & (table.bin == "all")].per_unit.item()
        assert slope[1, 1] / slope[1, 0] == pytest.approx(per_unit)
        assert model in ax.get_title(loc="left")
        assert "words" in ax.get_xlabel()  # the unit of length's measure
        on_the_line = next(line for line in ax.lines if line.get_label() == "on the line").get_xydata()
        np.testing.assert_allclose(on_the_line[:, 1], per_unit * rows.dose)
        left = ((per_unit * rows.dose < rows.ci_low) | (per_unit * rows.dose > rows.ci_high)).sum()
        assert f"misses {left} of " in ax.get_title(loc="left")


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


# --- every figure, in every place ------------------------------------------------------------------------

RUNS = [f"org/Llama-3.1-8B-Instruct-lr{k}-seed1-checkpoint-12000" for k in ("1-b.1", "2-b.1", "1-b.5", "2-b.5")]


def effects_of(models, attributes=("length", "sentiment"), estimators=("naive", "single_rewrite", "rate")):
    """An effects table with an estimate for each, some without an interval."""
    rng = np.random.default_rng(0)
    rows = [
        {"attribute": a, "reward_model": m, "estimator": e, "estimand": "ate", "estimate": (x := rng.normal() / 2),
         "se": 0.1, "ci_low": np.nan if rng.random() < 0.1 else x - 0.2, "ci_high": x + 0.2, "p_value": 0.01, "n": 100,
         "n_clusters": 100, "n_dropped": 0, "reward_sd": 1.0}
        for a in attributes for m in models for e in estimators
    ]  # fmt: skip
    return pd.DataFrame(rows)


def moves_of(models):
    rows = [
        {"attribute": "length", "check": check, "group": side, "about": f"reward/{m}", "value": 0.1, "in_sd": 0.1 * k,
         "low": 0.1 * k - 0.04 * k, "high": 0.1 * k + 0.04 * k}
        for check in ("drift", "balance") for side in ("treated", "untreated") for k, m in enumerate(models, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def dose_of(model):
    bins = [("all", 1.5, 1.5), ("1", 1.0, 0.8), ("2", 2.0, 3.2)]
    return pd.DataFrame([
        {"attribute": "length", "reward_model": model, "bin": b, "dose": d, "effect": e, "ci_low": e - 0.5,
         "ci_high": e + 0.5, "per_unit": 1.0} for b, d, e in bins
    ])  # fmt: skip


def scored_by(model):
    rewards = [[float(i), i + 1.0, i - 1.0] for i in range(8)]
    return pd.DataFrame({"attribute": "length", "treated": [True, False] * 4, f"reward/{model}": rewards})


def swept_by(model):
    return pd.DataFrame([
        {"design": model, "reward_model": "r", "step": s, "estimator": e, "estimate": 0.1 * s, "ci_low": 0.0,
         "ci_high": s, "truth": 0.5, "reward_sd": 1.0} for s in (0.0, 1.0) for e in ("naive", "single_rewrite", "rate")
    ])  # fmt: skip


def merged_by(models):
    rows = [
        {
            "model": m,
            "kind": kind,
            "barrier": 0.1,
            "length": 0.5,
            "length_se": 0.1,
            "length_ci_low": 0.3,
            "length_ci_high": 0.7,
        }
        for m, kind in zip(models, ("member", "member", "merge", "ensemble"), strict=True)
    ]
    return pd.DataFrame(rows)


def moved_by(models):
    measures = [{"attribute": "length", "measure": m, "shift_sd": 0.5, "p_value": 0.01} for m in models]
    return pd.DataFrame(measures)


FIGURES = {
    "effects": lambda names, ax: plots.effects(effects_of(names), ax=ax),
    "naive_vs_rate": lambda names, ax: plots.naive_vs_rate(effects_of(names), ax=ax),
    "heatmap": lambda names, ax: plots.heatmap(effects_of(names), ax=ax),
    "spillover": lambda names, ax: plots.spillover(moved_by(names), ax=ax),
    "drift": lambda names, ax: plots.drift(moves_of(names), ax=ax),
    "balance": lambda names, ax: plots.balance(moves_of(names), ax=ax),
    "densities": lambda names, ax: plots.densities(scored_by(names[0]), ax=ax),
    "dose_response": lambda names, ax: plots.dose_response(dose_of(names[0]), ax=ax),
    "sweep": lambda names, ax: plots.sweep(swept_by(names[0]), ax=ax),
    "merges": lambda names, ax: plots.merges(merged_by(names), ax=ax),
    "before_after": lambda names, ax: plots.before_after(
        effects_of(names, ["length"], ["rate"]), {n: (n, n) for n in names[:3]}, ax=ax
    ),
    "coverage": lambda names, ax: plots.coverage(
        pd.DataFrame([{"world": "w", "about": n, "n": 100, "estimator": "rate", "coverage": 0.9} for n in names]), ax=ax
    ),
}
NAMES = {
    "10": [f"model-{k:04d}" for k in range(4)],
    "runs": RUNS,
    "120": [f"{'long-name/' * 11}{k:010d}" for k in range(4)],
    "120 in one word": [f"{'x' * 119}{k}" for k in range(4)],
}


def outside(figure):
    """The texts of a figure that leave it, or that are cut off, each with its box in pixels."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    width, height = figure.bbox.size
    found = []
    for ax in figure.axes:
        low, high = sorted(ax.get_ylim()), sorted(ax.get_xlim())
        ticks = [(t, low) for t in ax.yaxis.get_major_ticks()] + [(t, high) for t in ax.xaxis.get_major_ticks()]
        unseen = {id(t.label1) for t, (a, b) in ticks if not a <= t.get_loc() <= b} | {id(t.label2) for t, _ in ticks}
        for text in ax.findobj(Text):
            box = text.get_window_extent()
            if not text.get_text() or not text.get_visible() or id(text) in unseen:
                continue
            x0, y0, x1, y1 = text.clipbox.extents if text.get_clip_on() and text.clipbox else (0, 0, width, height)
            if box.x0 < x0 - 1 or box.y0 < y0 - 1 or box.x1 > x1 + 1 or box.y1 > y1 + 1:
                found.append((text.get_text(), box.extents.round(), (width, height)))
    return found


def overlapping(ax):
    """Neighbouring labels of the lanes that lie on each other."""
    boxes = [t.get_window_extent() for t in ax.get_yticklabels() if t.get_text()]
    return [k for k, (a, b) in enumerate(itertools.pairwise(boxes)) if a.y0 < b.y1 - 1 and b.y0 < a.y1 - 1]


KEPT = ROOT / "tests" / "figures.json"


def described(ax):
    """What is seen of a figure, whatever the font and the release of matplotlib: marks, lines, areas, then words.

    In the order in which they are drawn, so that what covers another is seen; what is not visible is left out.
    """
    from matplotlib.colors import to_hex

    def numbers(values):
        return " ".join(f"{float(v):.3g}" for v in np.asarray(values, float)[:8]) + " ..." * (len(values) > 8)

    found = [f"width {ax.figure.get_size_inches()[0]:g}"]
    (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    drawn = sorted([*ax.patches, *ax.collections, *ax.lines], key=lambda artist: artist.get_zorder())
    for artist in [a for a in drawn if a.get_visible() and a.get_alpha() != 0]:
        if artist not in ax.lines:
            faces = np.atleast_2d(artist.get_facecolor())
            found.append(f"area {' '.join(dict.fromkeys(to_hex(f, keep_alpha=True) for f in faces))}")
            continue
        x, y = artist.get_xdata(), artist.get_ydata()
        width, marked = artist.get_linewidth(), artist.get_marker() not in ("None", "", None)
        look = f"{to_hex(artist.get_color())} {artist.get_marker()} {artist.get_linestyle() if width else None}"
        if marked and not all(left <= a <= right and low <= b <= high for a, b in zip(x, y, strict=True) if a == a):
            look += " outside"
        found.append(f"line {look}: {numbers(x)} at {numbers(y)}")
    fixed = [t for axis in (ax.xaxis, ax.yaxis) for t in axis.get_ticklabels()
             if type(axis.get_major_formatter()).__name__ in ("FixedFormatter", "FuncFormatter")]  # fmt: skip
    legend = ax.get_legend()
    keys = [legend.get_title(), *legend.get_texts()] if legend and legend.get_visible() else []
    marks = [f"key {to_hex(h.get_color())} {h.get_marker()}" for h in legend.get_lines()] if keys else []
    said = [ax.xaxis.label, ax.yaxis.label, ax._left_title, *keys, *fixed, *ax.texts]
    words = [" ".join(text.get_text().split()) for text in said if text.get_visible()]
    return found + marks + [f"text {text}" for text in words if text]


def as_kept(name, ax):
    """Whether a figure is as `figures.json` has it: all of it on white, its hash elsewhere."""
    kept, seen = json.loads(KEPT.read_text()), described(ax)
    digest = hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]
    if os.environ.get("RATEKIT_FIGURES") == "write":
        kept[name] = seen if name.endswith(", default") else digest
        KEPT.write_text(json.dumps(kept, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    assert (digest if isinstance(kept[name], str) else seen) == kept[name], "\n".join(seen)


PLACES = [(3.3, "runs"), *(
    pytest.param(width, kind, marks=pytest.mark.slow)
    for width in (3.3, 7.0, 13.3) for kind in NAMES if (width, kind) != (3.3, "runs")
)]  # fmt: skip


@pytest.mark.parametrize(("width", "kind"), PLACES)
@pytest.mark.filterwarnings("error")
def test_no_text_leaves_its_figure(width, kind):
    for name in FIGURES:
        with plt.rc_context({"figure.figsize": (width, 4)}):
            ax = FIGURES[name](NAMES[kind], None)
        assert ax.figure.get_size_inches()[0] == width
        assert ax.figure.get_size_inches()[1] < 12
        assert outside(ax.figure) == [], name
        assert overlapping(ax) == [], name
        if kind == "runs":
            as_kept(f"{name}, {width:g} inches", ax)
        plt.close("all")


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_every_plot_draws_into_the_axes_it_is_given_and_gives_them_back(name):
    figure, axes = plt.subplots(1, 2, figsize=(8, 6))
    assert FIGURES[name]([f"$a$ {run}" for run in RUNS], axes[1]) is axes[1]
    assert not axes[0].lines
    assert outside(figure) == []
    for text in axes[1].findobj(plt.Text):  # a dollar of a name is a dollar: no mathematics, and no backslash before it
        shown, set_as = text._preprocess_math(text.get_text())
        assert not set_as, text
        assert "\\$" not in shown, text


def test_every_public_plot_is_among_these_figures():
    functions = {name for name in plots.__all__ if name.islower()}
    assert functions == set(FIGURES)
    assert all(f"`{name}`" in (ROOT / "README.md").read_text() for name in functions)


def test_a_text_outside_is_seen_by_this_test():
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.set_xlabel("a label that is far too long for this figure")
    assert ax.get_xlabel() in [text for text, *_ in outside(figure)]


@pytest.mark.parametrize("style", [pytest.param("default", marks=pytest.mark.slow), "dark_background"])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_as_they_were_and_stand_out_on_any_background(name, style):
    """`RATEKIT_FIGURES=write python -m pytest tests/test_plots.py -m "slow or not slow"` keeps what is drawn now."""
    from matplotlib.text import Text

    from ratekit.plots.style import contrast_ratio

    with plt.style.context(style):
        ax = FIGURES[name](RUNS, None)
    as_kept(f"{name}, {style}", ax)
    face = ax.figure.get_facecolor()
    assert contrast_ratio(face, "white" if style == "default" else "black") < 1.1
    for text in ax.findobj(Text):
        if text.get_text() and text.get_gid() != "cell":
            assert contrast_ratio(text.get_color(), face) > 4.5, text
    for line in ax.lines:
        if line.get_marker() not in ("None", "", None):
            assert (
                contrast_ratio(line.get_markeredgecolor() if line.get_mfc() == face else line.get_color(), face) > 2.1
            )
    for text in [t for t in ax.texts if t.get_gid() == "cell"]:
        mesh, (column, row) = ax.collections[0], map(round, text.get_position())
        fill = mesh.to_rgba(mesh.get_array().reshape(len(ax.get_yticks()), -1)[row, column])
        assert contrast_ratio(text.get_color(), fill) > 4.5
        assert style == "default" or contrast_ratio(fill, face) > 1.5  # next to nothing is seen as a cell


def _swap(lines):
    for line in lines:
        line.set_color(
            {"#0072b2": "#e69f00", "#e69f00": "#0072b2"}.get(str(line.get_color()).lower(), line.get_color())
        )


def _cut(ax):
    last = ax.get_legend().get_texts()[-1]
    last.set_clip_box(Bbox.from_extents(0, 0, last.get_window_extent().x1 - 5, 10**4))
    last.set_clip_on(True)


PLANTED = {
    "two colours swapped": lambda ax: _swap(ax.lines),
    "the key's colours swapped": lambda ax: _swap(ax.get_legend().get_lines()),
    "a label lost": lambda ax: ax.get_yticklabels()[1].set_visible(False),
    "the legend cut off": _cut,
    "a word of the legend lost": lambda ax: ax.get_legend().get_texts()[1].set_visible(False),
    "no legend": lambda ax: ax.get_legend().remove(),
    "an interval lost": lambda ax: next(a for a in ax.lines if a.get_linewidth() > 1.5).remove(),
    "an interval without a width": lambda ax: next(a for a in ax.lines if a.get_linewidth() > 1.5).set_linewidth(0),
    "a mark lost": lambda ax: next(a for a in ax.lines if a.get_marker() == "o").set_visible(False),
    "marks under the shade": lambda ax: [area.set_zorder(9) for area in ax.patches],
    "marks outside": lambda ax: ax.set_xlim(0, 0.1),
    "a number moved": lambda ax: next(a for a in ax.lines if a.get_marker() == "o").set_xdata([0.123]),
    "the name of the axis outside": lambda ax: ax.set_xlabel(60 * "effect "),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_planted_in_a_figure_is_seen(fault):
    with plt.rc_context({"figure.figsize": (3.3, 4)}):
        ax = FIGURES["effects"](RUNS, None)
    assert outside(ax.figure) == []
    as_kept("effects, 3.3 inches", ax)
    PLANTED[fault](ax)
    kept = json.loads(KEPT.read_text())["effects, 3.3 inches"]
    found = hashlib.sha256("\n".join(described(ax)).encode()).hexdigest()[:16]
    assert found != kept or outside(ax.figure)


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_vector_pictures_are_whole(kind, tmp_path):
    ax = plots.effects(effects_of(RUNS))
    ax.figure.savefig(tmp_path / f"x.{kind}")
    assert (tmp_path / f"x.{kind}").stat().st_size > 5000


def test_characters_that_the_font_lacks_are_said_in_one_line(tmp_path):
    from ratekit.audits.folder import write_picture

    table = effects_of(["回答长度"])
    table.to_csv(tmp_path / "effects.csv", index=False)
    for made in (
        lambda: write_picture(tmp_path / "x.png", plots.effects(table).figure),
        lambda: rk.report(tmp_path / "effects.csv"),
    ):
        with pytest.warns(UserWarning, match="the font") as heard:
            made()
        assert [str(w.message).split(";")[1] for w in heard] == [
            " font.family in a matplotlibrc file names another font"
        ]
    with pytest.warns(UserWarning, match="something else") as heard, saving():
        warnings.warn("something else", stacklevel=1)
    assert len(heard) == 1


MANY = [f"lab/model-{i}B" for i in range(30)]
TWELVE = [f"attribute {i}" for i in range(12)]
PAGES = {
    "effects": lambda top: plots.effects(effects_of(MANY, TWELVE, ["rate"]), top=top),
    "naive_vs_rate": lambda top: plots.naive_vs_rate(effects_of(MANY, TWELVE, ["naive", "rate"]), top=top),
    "heatmap": lambda top: plots.heatmap(effects_of(TWELVE, MANY, ["rate"]), top=top),
    "spillover": lambda top: plots.spillover(
        pd.DataFrame([{"attribute": a, "measure": "m", "shift_sd": i, "p_value": 0.01} for i, a in enumerate(MANY)]),
        top=top,
    ),
    "drift": lambda top: plots.drift(moves_of(MANY), top=top),
    "balance": lambda top: plots.balance(moves_of(MANY), top=top),
    "coverage": lambda top: plots.coverage(
        pd.DataFrame([{"world": "w", "about": n, "n": 9, "estimator": "rate", "coverage": 0.95 - i / 100}
                      for i, n in enumerate(MANY)]), top=top,
    ),
    "merges": lambda top: plots.merges(
        pd.concat([merged_by(["a", "b", n, "d"]).assign(length=i) for i, n in enumerate(MANY)]), top=top
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_many_models_and_attributes_stay_on_a_page_which_says_so(name):
    ax = PAGES[name](5)
    labels = [t.get_text().replace("\n", "") for t in ax.get_yticklabels()]
    assert len(labels) == 5
    as_kept(f"{name}, 30 x 12 in 5 lanes", ax)
    said = " ".join(f"{ax.get_xlabel()} {ax.get_title(loc='left')}".split())
    assert re.search(r"\b5 (largest |widest gaps |farthest off )?of (30|60|120|360)\b", said), said
    if name in ("spillover", "coverage"):
        assert labels == [f"lab/model-{i}B" + ", n\u00a0=\u00a09" * (name == "coverage") for i in range(25, 30)]


def test_thirty_are_drawn_where_nothing_is_said():
    table = effects_of(MANY, TWELVE, ["rate"])
    ax = plots.effects(table)
    assert ax.figure.get_size_inches()[1] < 20
    assert "the 30 largest of 360" in ax.get_xlabel().replace("\n", " ")
    np.testing.assert_allclose(sorted(abs(x) for x, _ in marked(ax, "o")), table.estimate.abs().sort_values().tail(30))


def test_names_that_differ_at_their_ends_or_within_stay_apart():
    from ratekit.plots.names import distinct

    for width in (16, 24, 40):
        for group in (*NAMES.values(), ["a" * 99 + "b" * 99, "a" * 99 + "c" * 99], ["x\x1by", "xy"]):
            short = distinct({name: name for name in group}, width)
            assert len(set(short.values())) == len(group)
            assert max(map(len, short.values())) <= width
    for draw in (plots.effects, plots.naive_vs_rate, plots.heatmap):
        ax = draw(effects_of(RUNS, ["length"]))
        labels = {t.get_text() for t in (ax.get_xticklabels() if draw is plots.heatmap else ax.get_yticklabels())}
        assert len(labels) == 4
    cleaned_alike = plots.effects(effects_of(["xy", "x\x1by"], ["length"]))
    assert len({t.get_text() for t in cleaned_alike.get_yticklabels()}) == 2


@pytest.mark.commands
def test_a_figure_too_small_for_its_labels_says_what_it_takes():
    _, ax = plt.subplots(figsize=(3.3, 1.2))
    with pytest.warns(UserWarning, match=r"it takes 3\.\d x ([2-9]|\d\d)[.\d]* inches"):
        plots.effects(effects_of(NAMES["120"]), ax=ax)
    for name in ("dose_response", "sweep"):
        _, ax = plt.subplots(figsize=(3.3, 1.2))
        with pytest.warns(UserWarning, match="too small for its labels") as said:
            FIGURES[name](RUNS, ax)
        size = [float(inches) for inches in re.findall(r"[\d.]+", str(said[0].message).partition("takes ")[2])]
        figure, ax = plt.subplots(figsize=size)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FIGURES[name](RUNS, ax)
        assert outside(figure) == []
    _, ax = plt.subplots(figsize=(3, 6))
    table = effects_of([f"m{i}" for i in range(20)], [f"a{i}" for i in range(20)])
    with pytest.warns(UserWarning, match="too small for its numbers") as said:
        plots.heatmap(table, ax=ax)
    width = float(re.findall(r"[\d.]+", str(said[0].message))[0])
    _, ax = plt.subplots(figsize=(width, 6))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the figure is too small for its numbers")
        plots.heatmap(table, ax=ax)


def test_a_shade_and_a_weight_are_said_in_the_figure_where_they_are_seen():
    checks = moves_of(RUNS)
    for draw in (plots.drift, plots.balance):
        assert "; grey: small enough to trust" in " ".join(draw(checks).get_xlabel().split())
        assert "grey" not in draw(checks.assign(about="own")).get_xlabel()
    merged = merged_by(["a", "b", "c", "d"])
    assert "grey" not in plots.merges(merged).get_xlabel()  # the members are equal: there is nothing between them
    between = plots.merges(merged.assign(length=[0.1, 0.5, 0.3, 0.3])).get_xlabel()
    assert "; grey: between the members" in " ".join(between.split())
    close = plots.merges(merged.assign(length=[0.1, 0.1001, 0.3, 0.3]))
    band = max(close.patches, key=lambda area: area.get_linewidth())
    assert band.get_linewidth() > close.xaxis.get_gridlines()[0].get_linewidth()  # no line of the grid
    assert band.get_x() + band.get_width() == pytest.approx(0.1001)
    table = effects_of(["m"])
    assert "bold: the interval leaves out 0" in plots.heatmap(table).get_title(loc="left")
    assert "bold" not in plots.heatmap(table.assign(ci_low=-9.0, ci_high=9.0)).get_title(loc="left")
    moved = moved_by(["words"])
    assert "bold: told from 0 at 5 %" in plots.spillover(moved).get_title(loc="left")
    assert "bold" not in plots.spillover(moved.assign(p_value=0.5)).get_title(loc="left")


def test_each_colour_has_one_meaning():
    from ratekit.estimators import ESTIMATORS
    from ratekit.plots import style
    from ratekit.widgets.explorer_html import EXPLORER_STYLE

    meanings = [
        *(e.color.lower() for e in ESTIMATORS.values()),
        *(c.lower() for c in (style.TREATED, style.UNTREATED, style.RAISES, style.LOWERS, style.MERGED)),
    ]
    assert len(set(meanings)) == len(meanings)
    assert {style.TREATED, style.UNTREATED} <= set(re.findall("#[0-9A-F]{6}", EXPLORER_STYLE))
    assert not {e.color.lower() for e in ESTIMATORS.values()} & set(re.findall("#[0-9a-f]{6}", EXPLORER_STYLE.lower()))
    scripts = (ROOT / "experiments").rglob("*.py")
    named = {(p.name, hue) for p in scripts for hue in re.findall("#[0-9a-fA-F]{6}", p.read_text(encoding="utf-8"))}
    assert not {(name, hue) for name, hue in named if len({hue[i : i + 2] for i in (1, 3, 5)}) > 1}  # but greys


def test_a_sweep_beside_the_published_one_has_each_estimators_look(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "real"))
    from pictures import PICTURES

    ours = pd.read_csv(ROOT / "experiments" / "real" / "results" / "sweep.csv")
    for ax in PICTURES["sweep"](ours).axes:
        looks = {line.get_label(): (line.get_color(), line.get_marker()) for line in ax.lines}
        for name in ("naive", "single_rewrite", "rate"):
            assert looks[plots.MARKS[name].label] == (plots.MARKS[name].color, plots.MARKS[name].marker)


def test_an_estimator_that_is_added_is_drawn_by_every_plot(monkeypatch):
    from ratekit.estimators import ESTIMATORS, Estimator

    new = Estimator("as an example", "an example", "*", "#CC79A7", (1, 2), None, None)
    monkeypatch.setitem(ESTIMATORS, "example", new)
    table = effects_of(["a", "b"], estimators=("rate", "example"))
    ax = plots.effects(table)
    assert "an example" in [t.get_text() for t in ax.get_legend().get_texts()]
    np.testing.assert_allclose([x for x, _ in marked(ax, "*")], sorted(table[table.estimator == "example"].estimate))
    assert "an example" in plots.heatmap(table, estimator="example").get_title(loc="left")
    swept = swept_by("d").replace({"estimator": {"naive": "example"}})
    cover = pd.DataFrame([{"world": "w", "about": "a", "n": 9, "estimator": "example", "coverage": 0.9}])
    for ax in (plots.sweep(swept), plots.coverage(cover)):
        assert "an example" in [t.get_text() for t in ax.get_legend().get_texts()]
        assert marked(ax, "*")
    recommended = effects_of(["a"], estimators=("rate", "rate_extrapolated")).assign(recommended=[False, True] * 2)
    assert marked(plots.effects(recommended), "v")  # what the table says to read first is in the picture


def test_plots_load_no_stage_no_rewriter_and_no_reward():
    import subprocess
    import sys

    code = (
        "import sys, ratekit as rk; [getattr(rk.plots, name) for name in rk.plots.__all__]; "
        "print([m for m in sys.modules if m.startswith(('ratekit.rewriting', 'ratekit.scoring', 'ratekit.stages', "
        "'ratekit.sources', 'ratekit.diagnostics', 'torch', 'transformers', 'datasets', 'openai'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
