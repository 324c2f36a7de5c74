"""The published numbers: whole, consistent, and what the re-analysis says of them."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

import ratekit as rk
from ratekit.reproduce.facts import TABLES

sys.path.insert(0, str(ROOT / "experiments"))
import reanalysis

THREE = {"sfairXC/FsfairX-LLaMA3-RM-v0.1", "NCSOFT/Llama-3-OffsetBias-RM-8B", "RLHFlow/ArmoRM-Llama3-8B-v0.1"}


def test_the_tables_hold_what_was_published():
    sizes = {name: len(rk.published(name)) for name in TABLES}
    assert sizes == {
        "pooled": 84, "by-source": 144, "sweeps": 154, "sweeps-v1": 176, "rewrite-effects": 68, "typo-slopes": 12,
        "typo-curves": 63, "designs": 33,
    }  # fmt: skip
    assert set(rk.published("pooled")["reward_model"]) == set(rk.published("by-source")["reward_model"]) == THREE
    for name in ("pooled", "by-source", "sweeps", "sweeps-v1"):
        table = rk.published(name)
        assert (table["se"] > 0).all()
        assert set(table["se_kind"]) == {"paired", "two-sample"}
        keys = [c for c in ("experiment", "reward_model", "step", "estimator", "estimand") if c in table]
        assert not table.duplicated(keys).any()


def test_what_is_of_one_experiment_stands_there_once_with_the_paired_se():
    table = rk.published("imdb-length")
    assert not table.duplicated(["reward_model", "estimator", "estimand"]).any()
    ate = table[(table["estimand"] == "ate") & table["estimator"].isin(["rate", "single_rewrite"])]
    assert set(ate["se_kind"]) == {"paired"}
    sweep = rk.published("sweep-imdb")
    assert len(sweep) == 11 * 8
    rate = sweep[(sweep["estimator"] == "rate") & (sweep["estimand"] == "ate")]
    assert set(rate["se_kind"]) == {"paired"}
    assert sweep["reward_sd"].notna().all()
    assert len(rk.published("sweep-typos")) == 63
    with pytest.raises(rk.InputError, match="did you mean 'imdb-length'"):
        rk.published("imdb-lenght")


def test_the_same_numbers_stand_in_tables_that_tell_of_the_same_cells():
    """The pooled HelpSteer cells are those of the source itself, and R(rewrite of rewrite) - R(original) follows."""
    pooled = rk.published("pooled").query("source == 'helpsteer'")
    alone = rk.published("by-source").query("source == 'helpsteer'")
    both = pooled.merge(alone, on=["attribute", "reward_model", "estimator", "estimand"])
    assert len(both) == 42
    np.testing.assert_allclose(both["estimate_x"], both["estimate_y"], rtol=1e-12)
    effects = rk.published("rewrite-effects")
    cells = reanalysis.cells()
    for row in effects.itertuples():
        here = cells[(cells["experiment"] == row.experiment) & (cells["reward_model"] == row.reward_model)]
        here = here[here["step"].eq(row.step) if row.step == row.step else here["step"].isna()]
        value = here.set_index(["estimator", "estimand"])["estimate"]
        side = "att" if row.side == "treated" else "atu"
        sign = 1 if row.side == "treated" else -1  # d_rate - d_single = s (r2 - r0)
        assert sign * (value["rate", side] - value["single_rewrite", side]) == pytest.approx(row.effect, rel=1e-9)


def test_the_ate_is_the_weighted_mean_of_att_and_atu_in_every_cell():
    same = reanalysis.identity(reanalysis.cells())
    assert len(same) == 2 * (12 + 22)
    np.testing.assert_allclose(same["ate"], same["weighted"], rtol=1e-9, atol=1e-12)
    spoilt = reanalysis.cells()
    spoilt.loc[spoilt["estimand"] == "att", "estimate"] *= 1.01
    worse = reanalysis.identity(spoilt)
    assert not np.allclose(worse["ate"], worse["weighted"], rtol=1e-9, atol=1e-12)  # the check can fail


def test_the_two_sample_se_is_too_wide_by_1_7_to_6():
    ses = reanalysis.paired_ses()
    assert len(ses) == 34
    np.testing.assert_allclose(ses["estimate"], ses["from_sources"], rtol=1e-9)
    assert ses["ratio"].min() == pytest.approx(1.7, abs=0.05)
    assert ses["ratio"].max() == pytest.approx(6.0, abs=0.05)


def test_the_paired_se_of_a_pooled_cell_is_that_of_the_rows_put_together():
    """The formula by which two sources' SEs are put together, against rows that are really put together."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(0.3, 1.0, 400), rng.normal(-0.2, 2.0, 700)]
    n = np.array([len(p) for p in parts])
    ses = np.array([p.std(ddof=1) / np.sqrt(len(p)) for p in parts])
    means = np.array([p.mean() for p in parts])
    mean = np.average(means, weights=n)
    put = np.sqrt((((n - 1) * n * ses**2).sum() + (n * (means - mean) ** 2).sum()) / (n.sum() - 1) / n.sum())
    rows = np.concatenate(parts)
    assert put == pytest.approx(rows.std(ddof=1) / np.sqrt(len(rows)), rel=1e-12)


def test_what_the_page_says():
    say = reanalysis.numbers()
    assert say["armo_sd"] == pytest.approx(-0.013, abs=5e-4)
    assert say["armo_two"] == pytest.approx(-2.0, abs=0.05)
    assert say["armo_paired"] == pytest.approx(-7.1, abs=0.05)
    assert say["offset_imdb"] == pytest.approx(0.27, abs=0.005)
    assert say["offset_eli5"] == pytest.approx(-0.05, abs=0.005)
    assert 0.02 < say["rate_0_sd"] < say["rate_1_sd"] < 0.08
    assert say["z_low"] > 9
    assert say["n_flips"] == 2
    assert set(reanalysis.flips().index) == {("length", m) for m in THREE if "Fsfair" not in m}


def test_the_page_in_the_repository_is_the_one_that_the_numbers_make():
    assert (ROOT / "experiments" / "reanalysis.md").read_text(encoding="utf-8") == reanalysis.page()


def test_the_figure_shows_every_ate_and_every_source():
    import matplotlib.pyplot as plt

    figure = reanalysis.picture(reanalysis.paired_ses(), reanalysis.by_source())
    left, middle, right = figure.axes
    assert sum(len(line.get_xdata()) for line in left.lines[:3]) == 34
    assert [t.get_text() for t in middle.get_yticklabels()] == ["OffsetBias", "ArmoRM", "FsfairX"]
    assert len(right.lines[0].get_xdata()) == 11
    plt.close(figure)


def test_single_rewrite_of_the_sentiment_flips_is_what_the_authors_printed(shared):
    """100 reviews by gpt-4o-mini, each with one rewrite, scored by the authors, who printed 0.1472509540640749."""
    from ratekit import files

    found = files.read(shared("rate_sentiment_flips_scored.jsonl.gz"))
    table = rk.estimate(
        pd.DataFrame({
            "prompt_id": [str(i) for i in range(len(found))],
            "attribute": "sentiment",
            "treated": [s == "positive" for s in found["original_sentiment"]],
            "reward/deberta": [
                list(pair) for pair in zip(found["initial_review_score"], found["flipped_review_score"], strict=True)
            ],
        })
    ).set_index(["estimator", "estimand"])  # fmt: skip
    ate = table.loc[("single_rewrite", "ate")]
    assert ate["estimate"] == pytest.approx(0.1472509540640749, abs=1e-15)
    assert (ate["n"], ate["n_treated"]) == (100, 53)


def test_the_printed_triples_have_the_columns_and_signs_that_the_tables_say(shared):
    """19 chains that the authors printed with their rewards: each difference by hand and by rk.estimate."""
    from ratekit import files

    found = files.read(shared("rate_scored_triples.jsonl.gz")).to_pandas()
    scored = found.dropna(subset=["reward_rewritten_rewrite"])
    assert (len(found), len(scored)) == (19, 18)
    frame = pd.DataFrame({
        "prompt_id": [str(i) for i in range(len(scored))],
        "attribute": scored["attribute"].tolist(),
        "treated": scored["w_original"].astype(bool).tolist(),
        "model": scored["reward_model"].tolist(),
        "reward/printed": scored[["reward_original", "reward_rewrite", "reward_rewritten_rewrite"]].values.tolist(),
    })  # fmt: skip
    table = rk.estimate(frame, by="model").set_index(["model", "attribute", "estimator", "estimand"])["estimate"]
    armo = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
    # Two HelpSteer triples, both helpful, as printed: (0.13231, 0.10711, 0.11479) and (0.13989, 0.11346, 0.10577).
    assert table[armo, "helpfulness", "rate", "att"] == pytest.approx(
        ((0.11479 - 0.10711) + (0.10577 - 0.11346)) / 2, abs=1e-12
    )
    assert table[armo, "helpfulness", "single_rewrite", "att"] == pytest.approx(
        ((0.13231 - 0.10711) + (0.13989 - 0.11346)) / 2, abs=1e-12
    )
    # The positive and the negative logit of one classifier on the same three IMDB chains move against each other.
    logits = [m for m in frame["model"].unique() if "distilbert" in m]
    effects = [table[m, "length", "single_rewrite", "ate"] for m in sorted(logits)]
    assert len(logits) == 2
    assert effects[0] * effects[1] < 0


@pytest.mark.parametrize("name", ["length", "structure"])
def test_the_double_rewrites_give_the_plain_mean_of_the_published_scores(shared, name):
    """RATE's ATU is the mean of R(rewrite) - R(rewrite of rewrite): by hand from the raw file, for all eight models."""
    from double_rewrites import converted

    from ratekit import files

    raw = files.read(shared(f"double_rewrites/{name}.jsonl.gz"))
    table = rk.estimate(pd.DataFrame([converted(row) for row in raw]))
    assert table["reward_model"].nunique() == 8
    for row in table.itertuples():
        scores = [s[row.reward_model] for s in raw["scores"]]
        by_hand = np.mean([s["rewrite"] - s["rewrite_of_rewrite"] for s in scores])
        assert (row.estimator, row.estimand) == ("rate", "atu")
        assert row.estimate == pytest.approx(by_hand, rel=1e-12)
