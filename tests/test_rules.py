"""The rule rewriter: it reaches its target, comes back, and mends as much as its knob says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ratekit as rk
from ratekit.attributes import ATTRIBUTES
from ratekit.errors import InputError
from ratekit.measures import starts_with_vowel, vader, words
from ratekit.rewriting.rules import FILLERS, OPPOSITES, RULES, SUITE, RuleRewriter, mended, sentences
from ratekit.ruled import composed, first

TEXT = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "P", "Z", "N")), max_size=200)


@given(TEXT, st.booleans())
@settings(deadline=None)
def test_vowel_reaches_its_target_and_comes_back(text, target):
    rule = RULES["starts-with-vowel"]  # the rewriter refuses texts that are not English
    first = rule(text, target)
    assert starts_with_vowel([first])[0] == target
    if starts_with_vowel([text])[0] == (not target):
        assert rule(first, not target) == text


@given(TEXT)
def test_sentences_joined_are_the_text(text):
    assert "".join(sentences(text)) == text


@given(TEXT)
def test_mending_none_changes_nothing_and_a_call_repeats_itself(text):
    assert mended(text, 0.0) == text
    assert mended(text, 0.5, seed=3) == mended(str(text), 0.5, seed=3)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Teh plot. <br /><br /> Dull!!!", "The plot. Dull!"),
        ("<p>A <i>fine</i> film</p> becuase  i like it......", " A fine film because I like it."),
        ("No fault here.", "No fault here."),
    ],
)
def test_mending_all_leaves_nothing_for_the_next_pass(text, clean):
    assert mended(text, 1.0) == clean
    assert mended(clean, 1.0) == clean


def test_mending_all_leaves_nothing_in_real_reviews(shared):
    from ratekit import files

    once = [mended(t, 1.0) for t in files.read(shared("imdb_train_3000.jsonl.gz"))["text"][:1000]]
    assert np.mean([mended(t, 1.0) == t for t in once]) > 0.99


def test_length_and_sentiment_move_their_measures_on_real_reviews():
    responses = rk.load("reviews", attribute="sentiment")["response"]
    for target in (True, False):
        longer = [r.text for r in RuleRewriter("length", mend=0)(responses, [target] * len(responses))]
        ratio = words(longer) / words(responses)
        assert ((ratio > 1.8) if target else (ratio < 0.8)).mean() > 0.95
        moved = [r.text for r in RuleRewriter("sentiment", mend=0)(responses, [target] * len(responses))]
        change = vader(moved) - vader(responses)
        assert (change.mean() > 0.15) if target else (change.mean() < -0.15)
        assert abs(words(moved) - words(responses)).max() <= 7  # the closing sentence, and swaps for two words


def test_length_comes_back_to_the_text_where_it_only_added():
    text = "The plot is thin. The cast is good."
    rewriter = RuleRewriter("length", mend=0)
    longer = rewriter([text], [True])[0].text
    assert rewriter([longer], [False])[0].text == text


def test_fillers_and_openers_carry_no_sentiment_and_swaps_are_one_to_one():
    assert (vader(FILLERS) == 0).all()
    assert len(set(OPPOSITES.values())) == len(OPPOSITES)
    assert not set(OPPOSITES) & set(OPPOSITES.values())


def test_mend_is_the_share_of_faults_mended_in_a_pass():
    texts = [f"It was teh one, review {i}." for i in range(2000)]
    for share in (0.2, 0.7):
        left = np.mean(["teh" in mended(t, share) for t in texts])
        assert left == pytest.approx(1 - share, abs=0.04)
        twice = np.mean(["teh" in mended(mended(t, share, seed=1), share, seed=2) for t in texts])
        assert twice == pytest.approx((1 - share) ** 2, abs=0.04)


def test_mending_is_what_biases_a_single_rewrite_and_rate_cancels_it():
    """A reward that hates typos: the true effect of the first letter is 0."""

    def typos(prompts, responses):
        return [-float(r.split().count("teh")) for r in responses]

    from datasets import Dataset

    # Treated reviews are the careless ones, so that naive and single rewrite are both wrong.
    texts = [("It was teh best of teh lot" if i % 2 else "So it was the best") + f" {i}." for i in range(200)]
    rows = [{"prompt_id": f"p{i}", "prompt": "Review it.", "response": text} for i, text in enumerate(texts)]
    ds = rk.label(Dataset.from_list(rows), "starts-with-vowel")
    ds = rk.rewrite(ds, "starts-with-vowel", RuleRewriter("starts-with-vowel"), depth=2, progress=False)
    table = rk.estimate(rk.score(ds, typos, progress=False)).set_index(["estimator", "estimand"])
    assert table.estimate["naive", "ate"] == -2
    assert table.estimate["single_rewrite", "att"] == -2
    assert table.estimate["rate", "att"] == 0
    assert table.estimate["rate", "ate"] == 0


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_for_a_known_attribute_and_repeats_itself(name):
    assert name in ATTRIBUTES
    rewriter = RuleRewriter(name, mend=0.5, seed=4)
    texts = rk.load("reviews", attribute="length")["response"][:20]
    assert rewriter(texts, [True] * 20) == RuleRewriter(name, mend=0.5, seed=4)(texts, [True] * 20)


def test_faults_of_the_spec():
    with pytest.raises(InputError, match=r"mend=1.5: a share between 0 and 1"):
        RuleRewriter("length", mend=1.5)
    ds = rk.load("reviews", attribute="length")
    with pytest.raises(InputError, match="did you mean 'mend'"):
        rk.rewrite(ds, "length", "rules:mned=1")
    with pytest.raises(InputError, match="is not a number"):
        rk.rewrite(ds, "length", "rules:mend=half")


@pytest.fixture(scope="module")
def reviews():
    return list(rk.load("reviews", attribute="length")["response"])


@pytest.mark.parametrize("name", SUITE)
def test_each_rule_of_the_suite_moves_its_measure_and_comes_back(name, reviews):
    ruled = SUITE[name]
    down = [ruled.rule(text, False) for text in reviews]
    up = [ruled.rule(text, True) for text in down]
    assert ruled.attribute.measure is not None
    moved = np.asarray(ruled.attribute.measure(up)) > np.asarray(ruled.attribute.measure(down))
    assert moved.mean() >= (0.6 if name == "complexity" else 0.8)  # its grade moves with the length of sentences too
    assert ruled.fair in (-1, 0, 1)
    assert RULES[name] is ruled.rule
    if ruled.exact:
        assert [ruled.rule(text, False) for text in up] == down
        assert [ruled.rule(text, True) for text in up] == up


def test_rules_compose_and_undo_one_another(reviews):
    rule = composed(*(SUITE[n].rule for n in ("hedging", "citations", "lists", "headings", "apology")))
    plain = [rule(text, False) for text in reviews]
    assert [rule(rule(text, True), False) for text in plain] == plain
    text = rule("It drags. It ends.", True)
    assert text == "I am sorry about this. ## Answer\n\n- It drags, perhaps [1].\n- It ends, perhaps [1]."


def test_a_rule_that_does_not_come_back_would_be_seen(reviews):
    forgets = first("So it is.")
    assert [forgets(forgets(t, True), True) for t in reviews] == [forgets(t, True) for t in reviews]

    def faulty(text, target):
        return f"So it is. {text}" if target else text

    assert [faulty(faulty(t, True), False) for t in reviews] != reviews


def test_the_rules_of_the_suite_rewrite_a_dataset(reviews):
    attribute = SUITE["hedging"].attribute
    ds = rk.load("reviews", attribute="length").select(range(6))
    ds = ds.remove_columns([c for c in ds.column_names if c not in ("prompt", "prompt_id", "response")])
    ds = ds.add_column("attribute", ["hedging"] * 6).add_column("treated", [False] * 6)
    ds = rk.rewrite(ds, attribute, "rules:mend=0", depth=2, progress=False)
    assert [r[1] for r in ds["rewrites"]] == ds["response"][:]
    assert all(", perhaps" in r[0] for r in ds["rewrites"])
