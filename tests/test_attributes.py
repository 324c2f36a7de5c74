"""Attributes: every one is labelled and measured, and its measure moves the way its phrases say."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

import ratekit as rk
from ratekit.attributes import ATTRIBUTES, find_attribute
from ratekit.errors import InputError
from ratekit.labellers import Attribute
from ratekit.measures import formality, readability
from ratekit.ruled import FEATURES, RULED

# A text that has the attribute and one that lacks it.
PAIRS = {
    "length": ("One two three four five.", "One two."),
    "sentiment": ("A wonderful film that I love.", "A terrible film that I hate."),
    "complexity": ("Multifarious considerations necessitate deliberation.", "We must think. It is hard."),
    "starts-with-vowel": ("An odd film.", "The odd film."),
    "formality": ("It does not appear to be satisfactory.", "nah it's crap lol!!"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_measure_and_the_label_tell_the_sides_apart(name):
    has, lacks = PAIRS[name]
    attribute = ATTRIBUTES[name]
    high, low = np.asarray(attribute.measure([has, lacks]))
    assert high > low
    ds = Dataset.from_list([{"prompt_id": str(i), "response": t} for i, t in enumerate([has, lacks] * 3)])
    assert attribute.labels(ds) == [True, False] * 3


def test_the_attributes_are_there_with_two_phrases_each():
    assert set(ATTRIBUTES) == {*PAIRS, "helpfulness", "harmlessness", "harmfulness", *RULED, *FEATURES}
    for attribute in ATTRIBUTES.values():
        assert attribute.phrase(True) != attribute.phrase(False)


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("sentiment", "sentiment", [1, 0]),
        ("sentiment", "label", ["positive", "Negative"]),
        ("helpfulness", "helpfulness", [4, 0]),
        ("harmlessness", "chosen", [True, False]),
        ("harmlessness", "chosen", ["yes", "no"]),
    ],
)
def test_a_gold_column_comes_before_the_measure(name, column, values):
    texts = ["A terrible film.", "A wonderful film."]
    rows = [{"prompt_id": str(i), "response": t, column: v} for i, (t, v) in enumerate(zip(texts, values, strict=True))]
    assert ATTRIBUTES[name].labels(Dataset.from_list(rows)) == [True, False]
    if name == "harmlessness":
        assert ATTRIBUTES["harmfulness"].labels(Dataset.from_list(rows)) == [False, True]


def test_names_with_underscores_are_the_same_attribute():
    assert find_attribute("starts_with_vowel") is ATTRIBUTES["starts-with-vowel"]
    mine = Attribute("mine", "a", "b")
    assert find_attribute(mine) is mine


def test_measures_take_empty_and_odd_texts():
    for attribute in ATTRIBUTES.values():
        if attribute.measure is not None:
            values = np.asarray(attribute.measure(["", "   ", "?!", "日本語", "a" * 5000]), float)
            assert values.shape == (5,)
            assert not np.isinf(values).any()
    assert formality([""])[0] == 0
    assert readability(["..."]).shape == (1,)


def test_a_gold_column_of_text_is_refused_by_row():
    ds = Dataset.from_list([{"prompt_id": "a", "response": "x", "chosen": "this one"}])
    with pytest.raises(InputError, match="row 1: column 'chosen' holds 'this one'"):
        rk.label(ds, "helpfulness")


def test_every_attribute_with_a_rule_can_be_named_wherever_one_is_asked_for():
    ds = rk.load("reviews", attribute="length").select(range(12))
    for name in ("hedging", "final-question"):
        found = rk.audit(ds, "words", name, rewriter="rules", progress=False)
        (verdict,) = found.verdicts
        assert verdict.attribute == name
        assert verdict.estimate["dose"] > 0, "it is measured by its own measure"
    with pytest.raises(InputError, match="did you mean 'hedging'"):
        find_attribute("hedgin")


def test_a_scale_that_may_begin_at_one_is_not_parted_as_one_from_zero():
    rows = [{"response": f"Text {i}.", "helpfulness": 1 + i % 4} for i in range(12)]
    with pytest.raises(InputError, match=r"1 to 4 and no 0.*label_column"):
        rk.label(rows, "helpfulness")
    zero = [*rows, {"response": "None.", "helpfulness": 0}]
    assert sum(rk.label(zero, "helpfulness")["treated"]) == 6
    helpsteer = [{**row, "correctness": 4, "coherence": 4, "complexity": 4, "verbosity": 4} for row in rows]
    assert sum(rk.label(helpsteer, "helpfulness")["treated"]) == 6


def test_spaces_around_the_name_of_an_attribute_make_no_other_attribute():
    with pytest.raises(InputError, match="spaces"):
        rk.Attribute(" length", "longer", "shorter")
    ds = rk.load("reviews", attribute="length")
    frame = rk.score(ds, "words", progress=False).to_pandas()
    frame["attribute"] = [" length" if i % 2 else "length" for i in range(len(frame))]
    for rows in (frame, rk.as_dataset(frame), frame.to_dict("records")):
        assert set(rk.estimate(rows)["attribute"]) == {"length"}
    assert set(rk.as_dataset(frame)["attribute"]) == {"length"}
    assert rk.load(frame, attribute=" length").num_rows == len(frame)
