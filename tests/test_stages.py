"""The pipeline on real text, with callables for models; what it must show, and what it refuses."""

from __future__ import annotations

import json
import tracemalloc

import datasets
import numpy as np
import pandas as pd
import pytest

import ratekit as rk
from ratekit.errors import InputError, WorkError
from ratekit.groups import chains, reward_matrix
from ratekit.scoring import make_reward

words, vader = make_reward("words"), make_reward("vader")


def scored(attribute, **rewards):
    ds = rk.load("reviews", attribute=attribute)
    for name, reward in rewards.items():
        ds = rk.score(ds, reward, name=name, progress=False)
    return ds


def pick(table, estimator, reward_model=None, estimand="ate"):
    rows = table[(table.estimator == estimator) & (table.estimand == estimand)]
    if reward_model:
        rows = rows[rows.reward_model == reward_model]
    assert len(rows) == 1
    return rows.iloc[0]


# --- what it must show -------------------------------------------------------------------------------------


def test_linearity_of_the_effect_in_the_reward():
    def mixed(prompts, responses):
        return vader(prompts, responses) + 0.01 * words(prompts, responses)

    table = rk.estimate(scored("length", vader=vader, words=words, mixed=mixed))
    for estimator in ("naive", "single_rewrite", "rate", "rate_late"):
        difference = pick(table, estimator, "mixed").estimate - pick(table, estimator, "vader").estimate
        assert difference == pytest.approx(0.01 * pick(table, estimator, "words").estimate, abs=1e-9)


def test_rate_separates_sentiment_from_the_length_it_comes_with():
    table = rk.estimate(scored("sentiment", words=words))
    naive, rate = pick(table, "naive"), pick(table, "rate")
    assert round(naive.estimate, 1) == 24.3
    assert naive.p_value < 1e-4
    assert (round(rate.estimate, 2), round(rate.se, 2)) == (0.07, 0.23)


def test_published_double_rewrites(shared):
    import runpy

    from conftest import ROOT

    from ratekit import files

    converted = runpy.run_path(str(ROOT / "experiments" / "double_rewrites.py"))["converted"]
    ds = pd.DataFrame([converted(row) for row in files.read(shared("double_rewrites/length.jsonl.gz"))])
    table = rk.estimate(ds, se_unpaired=True)
    assert set(table.estimator) == {"rate"}
    assert set(table.estimand) == {"atu"}
    assert len(table) == 8
    effect = table.set_index("reward_model").loc["base-8B"]
    assert (round(effect.estimate, 2), round(effect.se, 2), round(effect.se_unpaired, 2)) == (1.43, 0.36, 0.74)


# --- the table ---------------------------------------------------------------------------------------------

COLUMNS = [
    "attribute",
    "reward_model",
    "estimator",
    "estimand",
    "estimate",
    "se",
    "ci_low",
    "ci_high",
    "p_value",
    "n",
    "n_treated",
    "n_untreated",
    "n_clusters",
    "n_dropped",
    "reward_sd",
    "df",
    "estimate_sd",
    "se_sd",
    "ci_low_sd",
    "ci_high_sd",
    "recommended",
    "reason",
    "dose",
    "dose_low",
    "dose_high",
    "dose_unit",
]


def test_the_table_has_the_columns_of_the_contract_in_their_order():
    table = rk.estimate(scored("length", words=words))
    assert list(table.columns) == COLUMNS
    assert table.estimate.dtype == np.float64
    assert set(zip(table.estimator, table.estimand, strict=True)) == {("naive", "ate")} | {
        (e, k) for e in ("single_rewrite", "rate", "rate_late", "rate_extrapolated") for k in ("ate", "att", "atu")
    }


def test_rewards_of_nothing_have_no_pass():
    frame = pd.DataFrame({"reward/a": [None, None, None]})
    assert reward_matrix(frame, "reward/a").shape == (3, 0)
    found = reward_matrix(pd.DataFrame({"reward/a": [None, [], [1.0, None], [2.0]]}), "reward/a")
    np.testing.assert_array_equal(found, [[np.nan] * 2, [np.nan] * 2, [1, np.nan], [2, np.nan]])
    for worst, said in ((1e100, "1e.100; numbers below 1e100"), (-np.inf, "-inf; a reward that could not be had")):
        with pytest.raises(rk.InputError, match=rf"row 3: reward/a\[1\] is {said}"):
            reward_matrix(pd.DataFrame({"reward/a": [[1.0, 2.0], [3.0], [4.0, worst]]}), "reward/a")
    assert reward_matrix(pd.DataFrame({"reward/a": [[9.9e99]]}), "reward/a").item() == 9.9e99


def test_a_dataset_and_its_dataframe_give_the_same_table():
    ds = scored("length", words=words)
    pd.testing.assert_frame_equal(rk.estimate(ds), rk.estimate(ds.to_pandas()))
    order = np.random.default_rng(0).permutation(len(ds))
    shuffled = rk.estimate(ds.select(order))  # rows picked through an index, not copied
    pd.testing.assert_frame_equal(rk.estimate(ds), shuffled, rtol=1e-9)


def test_attributes_are_never_pooled():
    ds = rk.score(rk.load("reviews"), words, name="words", progress=False)
    both = rk.estimate(ds)
    alone = pd.concat([rk.estimate(scored(a, words=words)) for a in ("sentiment", "length")], ignore_index=True)
    pd.testing.assert_frame_equal(both, alone)


def test_by_gives_each_group_its_own_rows():
    ds = scored("length", words=words)
    table = rk.estimate(ds, by="style")
    tidy = rk.estimate(ds.filter(lambda row: row["style"] == "tidy"))
    pd.testing.assert_frame_equal(
        table[table["style"] == "tidy"].drop(columns="style").reset_index(drop=True), tidy.copy()
    )
    with pytest.raises(InputError, match="did you mean 'style'"):
        rk.estimate(ds, by="stile")


def test_pooled_sources_are_said(tmp_path):
    ds = scored("length", words=words)
    ds = ds.add_column("source", ["a", "b"] * 80)
    assert "rows of 2 sources are pooled; by='source' gives each its own" in rk.estimate(ds).attrs["notes"]
    assert not [n for n in rk.estimate(ds, by="source").attrs["notes"] if "pooled" in n]


def test_a_prompts_responses_are_one_cluster():
    frame = scored("length", words=words).to_pandas()
    frame["prompt_id"] = [f"p{i // 4}" for i in range(160)]
    table = rk.estimate(frame)
    assert pick(table, "rate").n_clusters == 40


def test_standardize_divides_by_the_reward_sd():
    table = rk.estimate(scored("length", words=words))
    once = rk.standardize(table)
    assert pick(once, "rate").estimate == pytest.approx(pick(table, "rate").estimate / pick(table, "rate").reward_sd)
    pd.testing.assert_frame_equal(rk.standardize(once), once)


def test_estimators_without_their_inputs_are_left_out_with_a_note():
    frame = pd.DataFrame(
        {
            "prompt_id": list("abcd"),
            "attribute": "x",
            "treated": [True] * 4,
            "reward/r": [[1.0, 2.0], [2.0, 4.0], [3.0, 1.0], [5.0, None]],
        }
    )
    table = rk.estimate(frame)
    assert set(zip(table.estimator, table.estimand, strict=True)) == {("single_rewrite", "att")}
    assert (table.n.item(), table.n_dropped.item()) == (3, 1)
    notes = "\n".join(table.attrs["notes"])
    assert "naive, single_rewrite ATE and ATU: no untreated rows" in notes
    assert "rate: no row has rewards for rewrite 1 and rewrite 2" in notes


def test_a_reason_is_said_once_for_all_that_it_leaves_out():
    frame = scored("length", words=words).to_pandas().assign(prompt_id="p")
    table = rk.estimate(frame)
    (note,) = table.attrs["notes"]  # an estimator that reads four rewrites is no news where there are three
    assert "rate_geometric" in {record["estimator"] for record in table.attrs["left_out"]}
    assert note.startswith("naive, single_rewrite, rate")
    assert note.endswith(": one cluster, so no standard error")


def test_an_empty_table_is_an_error_that_says_why():
    frame = pd.DataFrame({"prompt_id": ["a", "b"], "attribute": "x", "treated": True, "reward/r": [[1.0], [2.0]]})
    with pytest.raises(InputError, match="nothing can be estimated: naive: no untreated rows"):
        rk.estimate(frame)


BAD_FRAMES = {
    "nan": ({"reward/r": [[1.0, float("nan")], [1.0, 2.0]]}, r"row 1: reward/r\[1\] is nan"),
    "inf": ({"reward/r": [[1.0, 2.0], [float("inf"), 2.0]]}, r"row 2: reward/r\[0\] is inf"),
    "text": ({"reward/r": [["a"], ["b"]]}, "lists of string, not of numbers"),
    "scalar": ({"reward/r": [1.0, 2.0]}, "holds double; a list of rewards per row was expected"),
    "null label": ({"treated": [True, None]}, "row 2: 'treated' is null"),
    "odd label": ({"treated": ["maybe", "no"]}, "row 1: 'treated' holds 'maybe'"),
    "null prompt": ({"prompt_id": [None, "b"]}, "row 1: 'prompt_id' is null"),
    "mixed prompts": ({"prompt_id": [7, "7"]}, "row 2: 'prompt_id' holds '7', a str, and row 1 a int"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_scored_data_give_one_line_with_row_and_column(case):
    change, message = BAD_FRAMES[case]
    good = {"prompt_id": ["a", "b"], "attribute": "x", "treated": [True, False], "reward/r": [[1.0, 2.0], [2.0, 4.0]]}
    with pytest.raises(InputError, match=message) as caught:
        rk.estimate(pd.DataFrame({**good, **change}))
    assert "\n" not in str(caught.value)


def test_a_text_that_is_none_is_named_by_its_row():
    for bad in (5, [1]):
        rows = pd.DataFrame({"response": ["a", "b"], "rewrites": [["x"], bad]})
        with pytest.raises(InputError, match="row 2"):
            chains(rows)
    rows = pd.DataFrame({"response": ["a"], "rewrites": [[pd.NA, float("nan"), None, "x"]]})
    assert chains(rows) == [["a", None, None, None, "x"]]


def test_one_row_has_an_effect_and_no_rows_are_refused():
    row = pd.DataFrame({"prompt_id": ["a"], "attribute": "x", "treated": True, "reward/rm": [[0.0, 1.0, 3.0]]})
    assert rk.estimate(row).set_index(["estimator", "estimand"])["estimate"]["rate", "att"] == 2.0
    with pytest.raises(InputError, match="no rows"):
        rk.estimate(row[:0])


def test_a_reward_of_a_rewrite_that_is_not_there_is_refused():
    rows = [
        {"prompt_id": str(i), "prompt": "q", "response": f"text {i}", "attribute": "length", "treated": i % 2 == 0,
         "rewrites": ["a", "b"][: 2 - (i == 3)], "reward/r": [1.0, 2.0, None if i == 2 else 3.0]} for i in range(6)
    ]  # fmt: skip
    with pytest.raises(InputError, match="row 4: reward/r has 3 rewards, and the row 2 texts"):
        rk.estimate(rows)
    rows[3]["reward/r"][2] = None
    assert len(rk.estimate(rows))


@pytest.mark.parametrize(("column", "stage"), [("treated", "label"), ("prompt_id", "load"), ("reward/r", "score")])
def test_a_missing_column_is_named_with_the_stage_that_adds_it(column, stage):
    good = {"prompt_id": ["a", "b"], "attribute": "x", "treated": [True, False], "reward/r": [[1.0], [2.0]]}
    del good[column]
    with pytest.raises(InputError, match=f"the stage '{stage}' adds it"):
        rk.estimate(pd.DataFrame(good))
    with pytest.raises(InputError, match="misspelt as 'treatd'"):
        rk.estimate(pd.DataFrame({"prompt_id": ["a"], "attribute": "x", "treatd": [True], "reward/r": [[1.0]]}))


# --- label -------------------------------------------------------------------------------------------------


def test_label_by_the_median_of_the_measure():
    ds = rk.label(rk.load("reviews", attribute="sentiment"), "length")
    n_words = np.array([len(t.split()) for t in ds["response"]])
    assert ds["treated"] == list(n_words > np.median(n_words))
    assert set(ds["attribute"]) == {"length"}


def test_labelling_for_another_attribute_takes_the_old_rewrites_away(caplog):
    ds = rk.score(rk.load("reviews", attribute="sentiment"), words, name="words", progress=False)
    relabelled = rk.label(ds, "length")
    assert not {"rewrites", "rewrite_status", "reward/words"} & set(relabelled.column_names)
    assert "were taken away" in caplog.text
    assert "rewrites" in ds.column_names  # nothing is mutated


def test_an_attribute_of_ones_own_sees_the_whole_dataset():
    shouting = rk.Attribute(
        "shouting", "louder", "calmer", label=lambda rows: [None if "?" in t else "!" in t for t in rows["response"]]
    )
    ds = rk.load("reviews", attribute="length")
    labelled = rk.label(ds, shouting)
    kept = [t for t in ds["response"] if "?" not in t]
    assert labelled["response"] == kept
    assert labelled["treated"] == ["!" in t for t in kept]


def test_label_faults():
    ds = rk.load("reviews", attribute="length")
    with pytest.raises(InputError, match="did you mean 'sentiment'"):
        rk.label(ds, "sentimnt")
    with pytest.raises(InputError, match="gave 1 values for 160 rows"):
        rk.label(ds, rk.Attribute("x", "a", "b", label=lambda rows: [True]))
    with pytest.raises(InputError, match="none of the 160 rows has a label"):
        rk.label(ds, rk.Attribute("x", "a", "b", label=lambda rows: [None] * len(rows)))
    with pytest.raises(InputError, match="no column to label by"):
        rk.label(ds, "harmlessness")


# --- rewrite -----------------------------------------------------------------------------------------------


def marked(texts, targets):
    return [rk.Rewrite(f"{t}{'+' if target else '-'}", "ok") for t, target in zip(texts, targets, strict=True)]


def labelled(n=6):
    return rk.load("reviews", attribute="length").select(range(n)).remove_columns(["rewrites", "rewrite_status"])


def test_rewrites_go_to_the_other_side_and_back():
    ds = labelled()
    out = rk.rewrite(ds, "length", marked, depth=3, progress=False)
    for row in out:
        signs = "-+-" if row["treated"] else "+-+"
        assert row["rewrites"] == [row["response"] + signs[: k + 1] for k in range(3)]
        assert row["rewrite_status"] == ["ok"] * 3


def test_what_follows_a_failed_rewrite_is_null_and_says_so():
    def refuses_the_first(texts, targets):
        return [
            rk.Rewrite(None, "refused") if t == ds[0]["response"] else r
            for t, r in zip(texts, marked(texts, targets), strict=True)
        ]

    ds = labelled()
    out = rk.rewrite(ds, "length", refuses_the_first, depth=3, progress=False)
    assert out[0]["rewrites"] == [None, None, None]
    assert out[0]["rewrite_status"] == ["refused", "not_attempted", "not_attempted"]
    table = rk.estimate(rk.score(out, words, name="words", progress=False))
    assert pick(table, "naive").n_dropped == 0
    assert pick(table, "rate").n_dropped == 1


def test_identical_texts_are_asked_for_once():
    asked = []

    def recording(texts, targets):
        asked.extend(texts)
        return marked(texts, targets)

    ds = labelled(2).select([0, 0, 1, 0])
    rk.rewrite(ds, "length", recording, depth=1, progress=False)
    assert len(asked) == 2


def test_a_cache_makes_the_same_call_ask_for_nothing(tmp_path):
    asked = []

    def recording(texts, targets):
        asked.extend(texts)
        if len(asked) == 12 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return marked(texts, targets)

    ds = labelled(12)
    with pytest.raises(KeyboardInterrupt):
        rk.rewrite(ds.select(range(6)), "length", recording, depth=2, cache=tmp_path / "c", progress=False)
    assert len(asked) == 12  # pass 1 is done, pass 2 was cut off
    (tmp_path / "again").touch()
    out = rk.rewrite(ds.select(range(6)), "length", recording, depth=2, cache=tmp_path / "c", progress=False)
    assert len(asked) == 18  # only pass 2 was asked for again
    assert (
        rk.rewrite(ds.select(range(6)), "length", recording, depth=2, cache=tmp_path / "c", progress=False)["rewrites"]
        == out["rewrites"]
    )
    assert len(asked) == 18
    for shard in (tmp_path / "c").glob("*.jsonl"):
        assert all(json.loads(line)["key"] for line in shard.read_text().splitlines())


def test_a_cache_keeps_two_rewriters_apart(tmp_path):
    def shout(texts, targets):
        return [rk.Rewrite(t.upper(), "ok") for t in texts]

    ds = labelled()
    one = rk.rewrite(ds, "length", marked, depth=1, cache=tmp_path, progress=False)
    two = rk.rewrite(ds, "length", shout, depth=1, cache=tmp_path, progress=False)
    assert one["rewrites"] != two["rewrites"]


def test_replay_gives_the_rewrites_that_exist(tmp_path):
    ds = rk.load("reviews", attribute="length")
    assert rk.rewrite(ds, "length", "replay", depth=3)["rewrites"] == ds["rewrites"]
    assert [len(r) for r in rk.rewrite(ds, "length", "replay", depth=1)["rewrites"]] == [1] * 160
    ds.select(range(100)).to_parquet(str(tmp_path / "old.parquet"))
    bare = ds.remove_columns(["rewrites", "rewrite_status"])
    joined = rk.rewrite(bare, "length", f"replay:{tmp_path / 'old.parquet'}", depth=3)
    assert joined["rewrites"][:100] == ds["rewrites"][:100]
    assert joined["rewrite_status"][100] == ["not_found"] * 3
    with pytest.raises(InputError, match="have 3; use --depth 3"):
        rk.rewrite(ds, "length", "replay", depth=4)


def test_rewrite_faults():
    ds = labelled()
    with pytest.raises(InputError, match="labelled for length, not for sentiment"):
        rk.rewrite(ds, "sentiment", marked)
    with pytest.raises(InputError, match="depth=0: a whole number from 1 on"):
        rk.rewrite(ds, "length", marked, depth=0)
    with pytest.raises(InputError, match="unknown rewriter 'ruls'; did you mean 'rules'"):
        rk.rewrite(ds, "length", "ruls")
    mine = rk.Attribute("mine", "a", "b", label=lambda rows: [len(row["response"]) > 500 for row in rows])
    with pytest.raises(InputError, match="no rules rewrite 'mine'"):
        rk.rewrite(rk.label(ds, mine), mine, "rules")
    with pytest.raises(WorkError, match="no rewrite succeeded"):
        rk.rewrite(ds, "length", lambda t, s: [rk.Rewrite(None, "refused")] * len(t), progress=False)
    with pytest.raises(WorkError, match="1 rewrites for 6 texts"):
        rk.rewrite(ds, "length", lambda t, s: [rk.Rewrite("x", "ok")], progress=False)


# --- score -------------------------------------------------------------------------------------------------


def test_each_distinct_text_is_scored_once():
    seen = []

    def counting(prompts, responses):
        seen.extend(responses)
        return words(prompts, responses)

    ds = rk.load("reviews", attribute="length")
    once = rk.score(ds, counting, name="w", progress=False)
    texts = {t for row in ds for t in [row["response"], *row["rewrites"]]}
    assert len(seen) == len(texts)
    assert once[3]["reward/w"] == [float(len(t.split())) for t in [ds[3]["response"], *ds[3]["rewrites"]]]


def test_a_reward_that_is_not_finite_is_null_and_counted(caplog):
    def broken(prompts, responses):
        return [np.nan if "goat" in r else 1.0 for r in responses]

    ds = rk.score(rk.load("reviews", attribute="sentiment"), broken, progress=False)
    nulls = sum(v is None for row in ds["reward/broken"] for v in row)
    texts = [t for row in ds for t in [row["response"], *row["rewrites"]]]
    assert nulls == sum("goat" in t for t in texts) > 0
    assert "broken could not score 10 of 636 texts, which are null (10 not_finite, first in row 2)" in caplog.text
    with pytest.raises(WorkError, match="no finite reward for any"):
        rk.score(ds, lambda p, r: np.full(len(r), np.inf), name="inf", progress=False)


def test_score_faults():
    ds = rk.load("reviews", attribute="length").select(range(3))
    with pytest.raises(InputError, match="give one with name="):
        rk.score(ds, lambda p, r: [0.0] * len(r))
    with pytest.raises(InputError, match="did you mean 'vader'"):
        rk.score(ds, "vadr")
    with pytest.raises(WorkError, match=r"an array of shape \(1,\) for 12 texts"):
        rk.score(ds, lambda p, r: [0.0], name="short", progress=False)


# --- what is asked of the result ---------------------------------------------------------------------------


def test_contrast_is_the_difference_with_a_paired_error():
    def longer_words(prompts, responses):
        return words(prompts, responses) + 0.5 * vader(prompts, responses)

    ds = scored("length", words=words, both=longer_words)
    table = rk.estimate(ds)
    contrast = pick(rk.contrast(ds, "both", "words", unit="reward"), "rate")
    assert contrast.estimate == pytest.approx(
        pick(table, "rate", "both").estimate - pick(table, "rate", "words").estimate
    )
    assert contrast.se < 0.2 * pick(table, "rate", "words").se  # the texts are shared, and so is their noise


def test_sensitivity_brackets_the_asymmetry_that_overturns_an_effect():
    table = rk.sensitivity(rk.estimate(scored("length", words=words)))
    effect = pick(table, "rate")
    d = effect.tips_sign * effect.reward_sd
    assert effect.estimate - d == pytest.approx(0, abs=1e-9)
    assert effect.ci_low_sd - effect.tips_significance == pytest.approx(0, abs=1e-9)
    assert 0 < effect.tips_significance < effect.ci_low / effect.reward_sd  # the SD's own error counts


def test_diagnose_sees_the_drift_of_length_and_not_of_sentiment():
    checks = {a: rk.diagnose(scored(a, words=words)) for a in ("length", "sentiment")}
    drift = {a: t[(t.check == "drift") & t.about.isin(["own", "reward/words"])] for a, t in checks.items()}
    assert (drift["length"].value.abs() > 20).all()
    assert (drift["sentiment"].value.abs() < 1).all()


def test_an_estimator_is_added_as_one_literal(monkeypatch, tmp_path, capsys):
    from ratekit.cli import main
    from ratekit.estimators import ESTIMATORS, Estimator

    halved = Estimator(
        "half of rate", "RATE, halved", "*", "#CC79A7", (1, 2),
        lambda r, w, clusters: np.where(w, 0.5, -0.5) * (r[:, 2] - r[:, 1]), lambda m, _: (m[..., 2] - m[..., 1]) / 2,
        arms=(2, 1),
    )  # fmt: skip
    monkeypatch.setitem(ESTIMATORS, "rate_halved", halved)
    ds = scored("length", words=words)
    table = rk.estimate(ds)
    whole, half = pick(table, "rate"), pick(table, "rate_halved")
    assert (half.estimate, half.se) == pytest.approx((whole.estimate / 2, whole.se / 2))
    drawn = pick(rk.estimate(ds, uncertainty="bootstrap", draws=200), "rate_halved")
    assert drawn.se == pytest.approx(half.se, rel=0.3)
    ax = rk.plots.effects(table, estimators=("rate", "rate_halved"))
    assert "RATE, halved" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert "RATE, halved" in rk.plots.heatmap(table, estimator="rate_halved").get_title(loc="left")
    assert set(rk.contrast(ds, "words", "words", estimator="rate_halved")["estimator"]) == {"rate_halved"}
    assert rk.sequential(ds, estimator="rate_halved")["estimator"].item() == "rate_halved"
    ds.save_to_disk(tmp_path / "ds")
    assert main(["estimate", str(tmp_path / "ds"), "--format", "csv"]) == 0
    assert ",rate_halved,ate," in capsys.readouterr().out


def test_a_selection_is_labelled_and_scored_without_a_bar_of_the_library(monkeypatch):
    import datasets

    quiet, flatten = [], datasets.Dataset.flatten_indices

    def watched(ds, *arguments, **more):
        quiet.append(datasets.are_progress_bars_disabled())
        return flatten(ds, *arguments, **more)

    monkeypatch.setattr(datasets.Dataset, "flatten_indices", watched)
    shown = not datasets.are_progress_bars_disabled()
    some = rk.load("reviews").select(range(0, 320, 3))
    rk.score(rk.label(some.select_columns(["prompt_id", "prompt", "response"]), "length"), "words", progress=False)
    rk.score(some, "words", progress=False)
    assert quiet
    assert all(quiet)
    assert shown == (not datasets.are_progress_bars_disabled())


def test_a_model_in_a_folder_is_loaded_without_a_bar_of_the_library(tmp_path, capfd):
    import tiny
    from transformers.utils import logging as messages

    folder = tiny.save(tmp_path / "rm", "llama")
    was = messages.is_progress_bar_enabled()
    messages.enable_progress_bar()
    capfd.readouterr()
    try:
        rk.score(rk.load("reviews").select([0]), folder, progress=False)
        assert messages.is_progress_bar_enabled()
    finally:
        (messages.enable_progress_bar if was else messages.disable_progress_bar)()
    assert "Loading weights" not in capfd.readouterr().err


def test_the_dose_of_a_class_of_one_row_has_no_interval():
    ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    treated = np.flatnonzero(ds["treated"])
    ds = ds.select(sorted([treated[0], *np.flatnonzero(~np.array(ds["treated"]))]))
    row = rk.estimate(ds).query("estimator == 'naive'").iloc[0]
    assert row["dose"] == row["estimate"]  # the reward is the measure
    assert row[["se", "ci_low", "dose_low", "dose_high"]].isna().all()
    whole = rk.estimate(rk.score(rk.load("reviews", attribute="length"), "words", progress=False))
    np.testing.assert_allclose(whole["dose_low"], whole["ci_low"])
    np.testing.assert_allclose(whole["dose_high"], whole["ci_high"])


@pytest.mark.commands
def test_the_texts_of_many_rows_are_never_in_memory_all_at_once(tmp_path):
    n, text = 4000, "It was a good film, and I saw it twice. " * 50
    rows = {
        "prompt": [f"Review {i}" for i in range(n)],
        "response": [f"{i} {text[: 500 + i % 1500]}" for i in range(n)],
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")

    def read():
        return rk.label(rk.load(tmp_path / "rows.parquet"), "length")

    def peak(work, *given):
        tracemalloc.start()
        try:
            return work(*given), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    texts = read()["response"][:]
    rewritten = {"rewrites": [[f"A {t}", f"B {t}"] for t in texts], "rewrite_status": [["ok", "ok"]] * n}
    rewards = {"reward/a": [[float(i % 7), float(i % 5), float(i % 3)] for i in range(n)]}
    ds = datasets.concatenate_datasets([read(), datasets.Dataset.from_dict({**rewritten, **rewards})], axis=1)
    rk.estimate(ds.select(range(50)))  # what it imports is not what is measured
    assert peak(read)[1] < 4e6  # the responses are 5.2 MB
    table, most = peak(rk.estimate, ds)
    assert table["dose_unit"].eq("words").all()
    assert most < 6e6  # the texts are 15.6 MB


def test_a_prompt_that_holds_much_is_named_with_what_it_holds_it_of():
    rng = np.random.default_rng(0)

    def notes(ids, treated):
        frame = pd.DataFrame({"prompt_id": ids, "attribute": "x", "treated": treated,
                              "reward/rm": rng.normal(size=(20, 3)).tolist()})  # fmt: skip
        return " ".join(rk.estimate(frame).attrs["notes"])

    half = ["p"] * 10 + [str(i) for i in range(10)]
    assert "one prompt holds 50% of the" in notes(half, [True, False] * 10)
    assert "one prompt holds 100% of the rows of a class (x / rm)" in notes(range(20), [True] + [False] * 19)
    assert "one prompt" not in notes(range(20), [True, False] * 10)
