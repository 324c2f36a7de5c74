"""A dataset as arrays: every value where it belongs, and every fault by its row and column."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ratekit.errors import InputError
from ratekit.groups import chains, chains_of, groups, original_features, refuse_null, reward_matrix, treated_bools

NAN = float("nan")


def as_dataset(name, cells, kind):
    return datasets.Dataset(pa.table({name: pa.array(cells, kind)}))


# --- rewards ---------------------------------------------------------------------------------------------

MATRICES = {
    "a null row, an empty one and chains of other lengths": (
        [None, [1.0, 2.0, 3.0], [], [4.0, None], [5.0]],
        [[NAN, NAN, NAN], [1, 2, 3], [NAN, NAN, NAN], [4, NAN, NAN], [5, NAN, NAN]],
    ),
    "whole numbers": ([[1, 2], [3]], [[1, 2], [3, NAN]]),
    "entries that are all null": ([[None], [None, None]], [[NAN, NAN], [NAN, NAN]]),
    "the largest": ([[-9.9e99], [1e-300]], [[-9.9e99], [1e-300]]),
}


@pytest.mark.parametrize("case", MATRICES)
def test_rewards_stand_in_their_row_and_pass(case):
    cells, expected = MATRICES[case]
    kind = pa.array(cells).type.value_type
    of = [as_dataset("reward/a", cells, listed(kind)) for listed in (pa.list_, pa.large_list)]
    of.append(pd.DataFrame({"reward/a": cells}))
    for ds in of:
        np.testing.assert_array_equal(reward_matrix(ds, "reward/a"), np.array(expected, float))


def test_rewards_of_one_length_and_of_none():
    fixed = as_dataset("reward/a", [[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2))
    np.testing.assert_array_equal(reward_matrix(fixed, "reward/a"), [[1, 2], [3, 4]])
    for nothing, n in (([[], []], 2), ([None, None, None], 3)):
        assert reward_matrix(pd.DataFrame({"reward/a": nothing}), "reward/a").shape == (n, 0)


def test_an_array_of_pandas_writes_a_null_as_nan_wherever_it_stands():
    late = [[1.0, 2.0]] * 1001 + [np.array([3.0, NAN])]
    assert reward_matrix(pd.DataFrame({"reward/a": late}), "reward/a")[-1, 0] == 3
    for arrays in (late, [None, np.array([NAN, 1.0])]):
        found = reward_matrix(pd.DataFrame({"reward/a": arrays}), "reward/a")
        assert np.isnan(found[-1]).sum() == 1
    with pytest.raises(InputError, match=r"row 2: reward/a\[1\] is nan; a reward that could not be had is null"):
        reward_matrix(pd.DataFrame({"reward/a": [[0.0], [1.0, NAN]]}), "reward/a")


BAD = {
    "the first of two": ([[0.0, 1.0], [2.0], [3.0, 4.0, np.inf], [-np.inf]], "row 3: reward/a[2] is inf; a reward t"),
    "in the first row": ([[-np.inf, np.inf]], "row 1: reward/a[0] is -inf; a reward that could not be had is null"),
    "as large as too large": ([[0.0], [1.0, -1e100]], "row 2: reward/a[1] is -1e+100; numbers below 1e100 were exp"),
    "texts": ([["a"]], "column 'reward/a' holds lists of string, not of numbers"),
    "no lists": ([1.0], "column 'reward/a' holds double; a list of rewards per row was expected"),
    "lists of lists": ([[[1.0]]], "column 'reward/a' holds lists of list<item: double>, not of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_reward_that_is_none_is_named_by_its_row_and_place(case):
    cells, said = BAD[case]
    with pytest.raises(InputError) as caught:
        reward_matrix(pd.DataFrame({"reward/a": cells}), "reward/a")
    assert str(caught.value).startswith(said)


# --- groups ----------------------------------------------------------------------------------------------


def rows(**columns):
    n = max(len(v) for v in columns.values())
    given = {"prompt_id": [str(i) for i in range(n)], "attribute": ["x"] * n, "treated": [True] * n}
    return pd.DataFrame({**given, **columns})


def test_groups_are_the_rows_of_each_attribute_and_value_in_order_of_appearance():
    ds = rows(
        prompt_id=["b", "a", "b", "c", "a"], attribute=["y", "x ", " x", "y", "x"],
        treated=["no", 1, "TRUE", 0.0, True], source=["s", "s", "t", "s", "s"], part=[1, 1, 1, 2, 1],
    )  # fmt: skip
    of_attribute = {g.labels["attribute"]: g for g in groups(ds)}
    assert list(of_attribute) == ["y", "x"]
    assert of_attribute["y"].rows.tolist() == [0, 3]
    assert of_attribute["y"].treated.tolist() == [False, False]
    assert of_attribute["y"].clusters.tolist() == [0, 2]
    assert of_attribute["x"].treated.tolist() == [True, True, True]
    assert of_attribute["x"].clusters.tolist() == [1, 0, 1]
    found = [(*g.labels.values(), g.rows.tolist()) for g in groups(ds, ["source", "part"])]
    assert found == [("s", 1, "y", [0]), ("s", 1, "x", [1, 4]), ("t", 1, "x", [2]), ("s", 2, "y", [3])]
    assert all(list(g.labels) == ["part", "attribute"] for g in groups(ds, "part"))


@pytest.mark.parametrize("ids", [[7, 8, 7], [7.0, 0.5, 7.0], pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01"]),
                                 pd.Categorical(["q", "p", "q"]), [True, False, True]])  # fmt: skip
def test_any_kind_of_id_and_attribute_names_a_cluster_and_a_group(ids):
    ds = rows(prompt_id=ids, attribute=[2, 1, 2])
    assert [(g.labels["attribute"], g.clusters.tolist()) for g in groups(ds)] == [(2, [0, 0]), (1, [1])]


def test_one_row_is_a_group_and_none_is_refused():
    assert [g.rows.tolist() for g in groups(rows(source=["s"]), "source")] == [[0]]
    with pytest.raises(InputError, match="the dataset has no rows"):
        list(groups(rows(source=["s"])[:0]))
    with pytest.raises(InputError, match="unknown column to group by 'sauce'"):
        list(groups(rows(source=["s"]), ["source", "sauce"]))


ODD = {
    "a list": (["a", ["b"], ["c"]], "row 2: 'prompt_id' holds \"['b']\"; one value was expected, not several"),
    "a record": (["a", "b", {"c": 1}], "row 3: 'prompt_id' holds \"{'c': 1}\"; one value was expected, not several"),
    "a set": ([{"a"}, "b", "c"], "row 1: 'prompt_id' holds \"{'a'}\"; one value was expected, not several"),
    "a tuple": (["a", ("b",), "c"], "row 2: 'prompt_id' holds \"('b',)\"; one value was expected, not several"),
    "an array": (["a", np.ones(2), "c"], "row 2: 'prompt_id' holds '[1. 1.]'; one value was expected, not several"),
    "half a letter": (["a", "\u00e9", "\ud800"], "row 3: 'prompt_id' holds half of a surrogate pair ('\\ud800')"),
    "a number among texts": (
        ["a", "b", 7, "c"], "row 3: 'prompt_id' holds '7', a int, and row 1 a str; write them all as text",
    ),
    "a text after a number": (
        [7, "a", "b", "c"], "row 2: 'prompt_id' holds 'a', a str, and row 1 a int; write them all as text",
    ),
    "nulls": (["a", None, "b", None], "row 2: 'prompt_id' is null; remove the row or fill it in"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_an_id_that_is_none_is_named_by_its_row(case):
    ids, said = ODD[case]
    with pytest.raises(InputError) as caught:
        list(groups(rows(prompt_id=pd.Series(ids, dtype=object))))
    assert str(caught.value) == said


def test_a_label_that_is_none_is_named_by_its_row():
    for values, said in (
        ([True, "maybe", "perhaps"], "row 2: 'treated' holds 'maybe'; true or false was expected"),
        (["yes", 2, 0], "row 2: 'treated' holds '2'; true or false was expected"),
        ([True, None, None], "row 2: 'treated' is null; remove the row or fill it in"),
    ):
        with pytest.raises(InputError) as caught:
            treated_bools(pd.Series(values))
        assert str(caught.value) == said
    assert treated_bools(pd.Series([True, False])).tolist() == [True, False]
    assert treated_bools(pd.Series(["no", "T"])).tolist() == [False, True]
    refuse_null(pd.Series(["a"]), "x")


# --- texts -----------------------------------------------------------------------------------------------

N = 600  # rows, of which some 256 are read at once


def texts(kind):
    frame = pd.DataFrame({"response": [f"r{i}" for i in range(N)], "rewrites": [[f"a{i}", None] for i in range(N)]})
    return datasets.Dataset.from_pandas(frame) if kind == "dataset" else frame


@pytest.mark.parametrize("kind", ["frame", "dataset"])
@pytest.mark.parametrize(
    "chosen",
    [
        None,
        [5],
        [3, 4, 5],
        [0, 1, 4],
        [0, 2, 3],
        [0, 1, 3],
        [0, 2, 9],
        [2, 4],
        range(0, N, 2),
        range(1, N - 1),
        range(N),
    ],
)
def test_the_texts_are_those_of_the_rows_that_are_asked_for(kind, chosen):
    asked = range(N) if chosen is None else chosen
    found = list(chains_of(texts(kind), None if chosen is None else np.array(chosen)))
    assert found == [[f"r{i}", f"a{i}", None] for i in asked]


@pytest.mark.parametrize("missing", [None, NAN])
def test_no_rewrites_are_an_empty_chain_and_a_missing_one_is_null(missing):
    frame = pd.DataFrame({"response": ["a", "b", "c"], "rewrites": [missing, [], [pd.NA, NAN, None, "x"]]})
    assert chains(frame) == [["a"], ["b"], ["c", None, None, None, "x"]]


@pytest.mark.parametrize(
    ("response", "rewrites", "said"),
    [
        ("b", 5, "row 2: 'rewrites' holds '5'; a list of texts was expected"),
        ("b", "text", "row 2: 'rewrites' holds 'text'; a list of texts was expected"),
        ("b", {"a": "b"}, "row 2: 'rewrites' holds \"{'a': 'b'}\"; a list of texts was expected"),
        ("b", [None, 1, "x"], "row 2: the response and its rewrites are texts; got \"['b', None, 1, 'x']\""),
        (None, ["x"], "row 2: the response and its rewrites are texts; got \"[nan, 'x']\""),
        (3, ["x"], "row 2: the response and its rewrites are texts; got \"[3, 'x']\""),
    ],
)
def test_a_text_that_is_none_is_named_by_its_row_and_shown(response, rewrites, said):
    frame = pd.DataFrame({"response": ["a", response, "c"], "rewrites": [["x"], rewrites, ["y"]]})
    with pytest.raises(InputError) as caught:
        chains(frame)
    assert str(caught.value) == said


def test_what_is_known_of_an_original_is_its_measures_and_its_prompts_words():
    """Words, sentiment, readability and faults; what a measure does not say of a Chinese text is the others' mean."""
    frame = pd.DataFrame({
        "prompt": ["one two three", [{"role": "user", "content": "four five"}], "six"],
        "response": ["It was good.", "It was bad, bad.", "这部电影的情节很单薄，演员的表演也很生硬。"],
    })  # fmt: skip
    found = original_features(frame)
    assert found.shape == (3, 5)
    assert found[:2, 0].tolist() == [3, 4]
    good, bad, other = found[:, 1]
    assert good > 0 > bad
    assert other == pytest.approx((good + bad) / 2)
    assert found[:2, 2].mean() == pytest.approx(found[2, 2])
    assert found[:, 3].tolist() == [0, 0, 0]
    assert found[:, 4].tolist() == [3, 2, 1]
