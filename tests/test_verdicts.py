"""Verdicts: every number of the rules from both sides, worlds with known truth, and what a sentence may say."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from scipy import stats

import ratekit as rk
from ratekit.conclusions import Verdict, conclusions, level_of, other_estimators, sentence, smallest_effect
from ratekit.diagnostics.evidence import Evidence, _moves, evidence, shared_words
from ratekit.diagnostics.verdicts import CHECK_RULES, _balance, _drift, _Priced, _unlike, verdict_of
from ratekit.estimators import effects, pooled_sd
from ratekit.intervals import Interval, mean_interval, outside, ratio_interval, share_interval
from ratekit.recommendation import effect_size

INF = math.inf
TRUST, CARE, CANNOT, NO = "trust", "trust with care", "cannot tell", "do not trust"
FINE, BAD, FEW = "shown fine", "shown bad", "too few rows to tell"

# Written out here, apart from the code: fine, usable, and the gravest word that the rule may give.
NUMBERS = {
    "depth": ((3, INF), (2, INF), CANNOT),
    "classes": ((2, 2), (1, 2), NO),
    "clusters": ((30, INF), (2, INF), CANNOT),
    "succeeded": ((0.9, 1), (0.5, 1), NO),
    "measure": ((1, 1), (0, 1), NO),
    "compliance": ((0.9, 1), (0.7, 1), NO),
    "dose": ((0.75, 1.25), (0.25, INF), NO),
    "own drift": ((-0.1, 0.1), (-0.5, 0.5), NO),
    "content": ((0.9, 1), (0.5, 1), NO),
    "repeated": ((0, 0.1), (0, 0.5), NO),
    "shift": ((-0.2, 0.2), (-INF, INF), CARE),
    "drift of a measure": ((-0.2, 0.2), (-INF, INF), CARE),
    "balance": ((-0.2, 0.2), (-0.5, 0.5), NO),
    "balance of one class": ((-0.5, 0.5), (-INF, INF), CARE),
    "drift": ((-0.2, 0.2), (-0.5, 0.5), NO),
    "drift of one class": ((-0.5, 0.5), (-INF, INF), CARE),
    "correction": ((-0.2, 0.2), (-0.5, 0.5), CANNOT),
    "refused, by reward": ((-0.2, 0.2), (-0.5, 0.5), CANNOT),
    "refused, by measure": ((-0.1, 0.1), (-INF, INF), CARE),
    "outside by measure": ((0, 0.05), (0, 0.5), NO),
    "outside by reward": ((0, 0.05), (0, 0.5), NO),
    "answers": ((0.5, 1), (0.1, 1), CANNOT),
    "position": ((-1, 1), (-10, 10), CANNOT),
}
GRAVITY = [TRUST, CARE, CANNOT, NO]


def test_every_rule_is_written_out_here():
    assert set(CHECK_RULES) == {*NUMBERS, "moves"}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_hair_on_each_side_of_every_number(name):
    fine, usable, at_worst = NUMBERS[name]
    rule, hair = CHECK_RULES[name], 1e-9

    def capped(word):
        return min(word, at_worst, key=GRAVITY.index)

    for bound, out in ((fine[0], -hair), (fine[1], hair)):
        if math.isfinite(bound):
            assert rule.word(bound, bound, bound) == (FINE, TRUST)
            beyond = bound + out
            inside_usable = usable[0] <= beyond <= usable[1]
            assert rule.word(beyond, beyond, beyond) == (BAD, capped(CARE if inside_usable else NO))
            low, high = sorted((bound - out, beyond))
            usable_too = usable[0] <= low and high <= usable[1]
            assert rule.word(bound, low, high) == (FEW, capped(CARE if usable_too else CANNOT))
    for bound, out in ((usable[0], -hair), (usable[1], hair)):
        if math.isfinite(bound) and bound not in fine:
            assert rule.word(bound, bound, bound) == (BAD, capped(CARE))
            assert rule.word(bound, bound + out, bound + out) == (BAD, capped(NO))
            low, high = sorted((bound - out, bound + out))
            assert rule.word(bound, low, high) == (FEW, capped(CANNOT))
            low, high = sorted((bound, bound + out))
            assert rule.word(bound, low, high) == (FEW, capped(CANNOT))
    assert rule.word(0.0, math.nan, math.nan) == (FEW, capped(CANNOT))


def test_a_move_counts_only_if_it_is_told_from_none():
    rule = CHECK_RULES["moves"]
    assert rule.word(1e-9, 1e-12, 2e-9) == (FINE, TRUST)
    assert rule.word(0.0, 0.0, 0.0) == (BAD, NO)
    assert rule.word(1e-9, -1e-12, 2e-9) == (FEW, CANNOT)
    assert rule.word(-1e-9, -2e-9, -1e-12) == (BAD, NO)


# --- a hair on each side, through everything ---------------------------------------------------------------


def clean(n=400, depth=3, seed=0, effect=0.5, **changes):
    """Evidence and rewards without a fault, and without noise where a test moves something by a hair."""
    rng = np.random.default_rng(seed)
    w = np.arange(n) % 2 == 0
    side = np.array([w if k % 2 == 0 else ~w for k in range(depth + 1)]).T.astype(float)
    u = rng.standard_normal((n, 1))
    # the same spread in both classes, so that class means are exact
    u[~w] = u[w] - u[w].mean()
    u[w] -= u[w].mean()
    own = 10 * side + 2 * u
    r = effect * side + u
    seen = Evidence(
        labels={"attribute": "x"}, rows=np.arange(n), treated=w, clusters=np.arange(n), ok=np.ones((n, depth), bool),
        kept=np.ones((n, depth)), repeated=np.zeros((n, depth)), unit="units", own=own,
        others={"other": rng.standard_normal((n, 1)) + 0 * side},
    )  # fmt: skip
    return dataclasses.replace(seen, **changes), r


def judged(seen, r, read=None):
    found = effects(r, seen.treated, seen.clusters)
    rows = [{**vars(e), "reward_sd": found.reward_sd} for e in found]
    return verdict_of(seen, "rm", r, rows, read)


def outcome(verdict, name):
    return next((c.outcome, c.word) for c in verdict.checks if c.name == name)


def test_without_a_fault_it_is_trusted():
    verdict = judged(*clean())
    assert verdict.word == TRUST
    assert all(c.outcome == FINE for c in verdict.checks)
    assert next((c.value, c.low, c.high) for c in verdict.checks if c.name == "balance") == (0, 0, 0)
    assert verdict.reason == "every check is shown fine"


@pytest.mark.parametrize(
    ("mass", "word"), [(0.51, TRUST), (0.49, CARE), (0.11, CARE), (0.09, CANNOT)]
)  # fmt: skip
def test_a_judge_that_would_say_something_else_is_not_relied_on(mass, word):
    seen, r = clean()
    verdict = judged(seen, r, {"answer_mass": np.full(r.shape, mass)})
    assert verdict.word == word
    assert (f"its two answers {mass:.0%} of the probability" in verdict.reason) == (word != TRUST)
    assert judged(seen, r, {"answer_mass": np.full(r.shape, np.nan)}).word == TRUST  # of older scores nothing is known
    some = np.full(r.shape, mass)
    some[0] = np.nan
    assert judged(seen, r, {"answer_mass": some}).word == word


def test_how_a_judge_was_read_is_taken_from_the_columns_beside_its_rewards():
    rows = [
        {"prompt_id": str(i), "prompt": "q", "attribute": "length", "treated": i % 2 == 0, "response": f"one {i}",
         "rewrites": ["c d e", "f g", "h i j"], "reward/rm": [1.0 + i % 5, 2, 3, 4],
         "reward/rm/answer_mass": [0.05] * 4} for i in range(40)
    ]  # fmt: skip
    (found,) = rk.verdicts(pd.DataFrame(rows))
    assert outcome(found, "answers") == (BAD, CANNOT)


def test_the_evidence_is_as_deep_as_the_longest_chain():
    rows = pd.DataFrame({"prompt_id": ["a", "b"], "prompt": "q", "attribute": "x", "treated": [True, False],
                         "response": "one", "rewrites": [["two", "three"], ["four"]]})  # fmt: skip
    assert [seen.depth for seen in evidence(rk.as_dataset(rows))] == [2]


def test_a_rewrite_that_the_measure_cannot_tell_from_its_source_repeats_it():
    texts = [["x.", "x"], ["x.", "x"], ["x.", "x"]]
    assert _moves(texts, np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, 2.0]])) == {("x.", "x")}
    assert _moves(texts[:1], np.array([[np.nan, 2.0]])) == set()
    assert _moves(texts[:1], np.array([[2.0, 2.0]])) == set()


def test_what_stands_beside_an_estimate_answers_the_same_question():
    rows = [{"estimator": e, "estimand": m} for e, m in (("rate", "ate"), ("rate", "att"), ("naive", "ate"))]
    assert other_estimators(rows, rows[1]) == {}
    assert other_estimators(rows, rows[0]) == {"naive": rows[2]}


def test_a_direction_is_said_where_the_interval_leaves_0_out():
    row = {"estimator": "rate", "estimand": "ate", "estimate": 0.5, "se": 0.1, "n_clusters": 50, "reward_sd": 1.0}
    for low, high, said in ((0.1, 0.9, "raises"), (-0.9, -0.1, "lowers"), (-0.1, 0.9, "")):
        seen = {**row, "ci_low": low, "ci_high": high}
        assert Verdict("x", "rm", TRUST, seen, "", (), {}).direction == said


def test_a_share_that_varies_from_text_to_text_has_an_interval():
    seen, r = clean(n=40)
    mass = np.tile([[0.0], [1.0]], (20, r.shape[1]))
    check = next(c for c in judged(seen, r, {"answer_mass": mass}).checks if c.name == "answers")
    half = stats.t.ppf(0.975, 39) * np.sqrt(0.25 / 39)  # SD / sqrt(n), divisor n - 1
    assert [check.value, check.low, check.high] == pytest.approx([0.5, 0.5 - half, 0.5 + half])


@pytest.mark.parametrize(("sds", "word"), [(0.9, TRUST), (-1.01, CARE), (9.0, CARE), (9.9, CANNOT)])
def test_a_place_that_drowns_the_text(sds, word):
    seen, r = clean()
    half = sds * pooled_sd(r[:, 0], seen.treated) / 2 * np.array([1, 0, 0, 0])  # of the originals
    verdict = judged(seen, r, {"shown_first": r + half, "shown_second": r - half})
    assert verdict.word == word
    assert (f"being shown first is worth {sds:+.3g} SDs" in verdict.reason) == (word != TRUST)
    check = next(c for c in verdict.checks if c.name == "position")
    assert check.value == pytest.approx(sds)
    wide = judged(seen, r * np.array([1, 3, 3, 3]), {"shown_first": r + half, "shown_second": r - half})
    assert next(c for c in wide.checks if c.name == "position").value == pytest.approx(sds)  # in SDs of the originals
    # the SD of 400 originals is known to 3.5 %
    assert (check.high - check.low) / 2 == pytest.approx(1.97 * abs(sds) * 0.04, rel=0.25)
    nothing = np.zeros(r.shape)  # the same answer to everything: no SD
    read = {"shown_first": nothing + 1, "shown_second": nothing - 1}
    assert outcome(judged(seen, nothing, read), "position")[1] == CANNOT


def test_the_gap_of_a_class_of_one_row_is_not_held_against_the_dose():
    seen, r = clean(n=60)
    own = seen.own + 0.1 * np.random.default_rng(1).standard_normal(seen.own.shape)
    one = np.arange(60) == 0
    assert outcome(judged(dataclasses.replace(seen, own=own), r), "dose")[0] == FINE
    rare = dataclasses.replace(seen, own=own * np.where(one, 1, -1)[:, None], treated=one)
    assert outcome(judged(rare, r), "dose")[0] == FEW


@pytest.mark.parametrize(("part", "word"), [(0.199, TRUST), (0.201, CARE), (0.499, CARE), (0.501, NO)])
def test_a_drift_that_biases_the_estimate_by_a_fifth_and_by_a_half(part, word):
    seen, r = clean()
    r[:, 3] += np.where(seen.treated, -1, 1) * part * 0.5
    assert outcome(judged(seen, r), "drift")[1] == word


@pytest.mark.parametrize(("part", "word"), [(0.499, TRUST), (0.501, CARE)])
def test_a_drift_alike_in_both_classes_cancels_and_is_said_to(part, word):
    seen, r = clean()
    r[:, 3] += part * 0.5
    verdict = judged(seen, r)
    assert outcome(verdict, "drift") == (FINE, TRUST)
    assert outcome(verdict, "drift of one class")[1] == word
    assert ("cancels in the ATE" in verdict.reason) == (word == CARE)


@pytest.mark.parametrize(("part", "word"), [(0.099, TRUST), (0.101, CARE), (0.499, CARE), (0.501, NO)])
def test_the_drift_of_the_own_measure_in_doses(part, word):
    seen, r = clean()
    own = seen.own.copy()
    own[:, 3] += part * 10
    assert outcome(judged(dataclasses.replace(seen, own=own), r), "own drift")[1] == word


@pytest.mark.parametrize(
    ("dose", "word"), [(0.249, NO), (0.251, CARE), (0.749, CARE), (0.751, TRUST), (1.249, TRUST), (1.251, CARE)]
)
def test_the_dose_in_gaps_of_the_classes(dose, word):
    seen, r = clean(n=40_000)
    flat = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T * 1.0
    own = np.where(seen.treated, 10.0, 0.0)[:, None] + dose * 10 * (flat - flat[:, :1])
    verdict = judged(dataclasses.replace(seen, own=own), r)
    assert outcome(verdict, "dose")[1] == word
    share = next(c for c in verdict.checks if c.name == "dose")
    assert share.value == pytest.approx(dose)
    assert (", less than naive" in share.text, ", more than naive" in share.text) == (dose < 0.75, dose > 1.25)


@pytest.mark.parametrize(
    ("n", "share", "said"),
    [(20, 1.0, "100% of the"), (400, 1.0, "at least 100% of the"), (400, 0.9, "90% of the"),
     (400, 0.5, "only 50% of the")],
)  # fmt: skip
def test_a_share_is_called_small_where_it_is_shown_to_be_and_only_there(n, share, said):
    seen, r = clean(n=n)
    own = seen.own.copy()
    idle = np.arange(n) // 2 % 10 >= 10 * share  # in both classes
    own[idle] = own[idle][:, :1]
    seen = dataclasses.replace(seen, own=own, kept=np.where(idle[:, None], 0.0, 1.0) * np.ones_like(seen.kept))
    for name in ("compliance", "content"):
        check = next(c for c in judged(seen, r).checks if c.name == name)
        assert ("only" in check.text) == (check.outcome == BAD)
        assert ("too few rows to tell" in check.text) == (check.outcome == FEW)
        if name == "compliance":
            assert check.text.startswith(said)


def test_a_dose_without_a_gap_to_hold_it_against_is_never_fine():
    seen, r = clean(n=60)
    own = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T * 1.0
    own[:, 0] = np.random.default_rng(1).standard_normal(60)  # the originals do not differ by class
    verdict = judged(dataclasses.replace(seen, own=own), r)
    assert outcome(verdict, "dose")[0] == FEW
    check = next(c for c in verdict.checks if c.name == "dose")
    assert "has no gap to compare with" in check.text
    assert check.value == pytest.approx(1 / pooled_sd(own[:, 0], seen.treated))  # each rewrite moves it by 1
    some = np.where(np.arange(60)[:, None] < 50, own, np.nan)  # the last ten prompts have no rewrite
    some[:, 0] = own[:, 0]
    fewer = next(c for c in judged(dataclasses.replace(seen, own=some), r).checks if c.name == "dose")
    assert fewer.value == pytest.approx(check.value)
    assert 0 < fewer.low < fewer.value < fewer.high


def test_nothing_is_said_of_a_measure_that_the_rows_do_not_show():
    """One prompt has no interval: neither that the rewrites move the measure the other way, nor a dose of NaN SDs."""
    seen, r = clean(n=60)
    own = 10.0 * (seen.own > 5)  # no spread within a class
    one = judged(dataclasses.replace(seen, own=own, clusters=np.zeros(60, int)), r)
    moves, dose = (next(c for c in one.checks if c.name == name) for name in ("moves", "dose"))
    assert moves.outcome == dose.outcome == FEW
    assert moves.text.startswith("whether the rewrites towards")
    assert "is not shown to tell the classes apart, so the dose has no gap to compare with" in dose.text
    assert "nan" not in one.reason
    half = judged(dataclasses.replace(seen, clusters=np.where(seen.treated, np.arange(60), 1)), r)  # one class alone
    assert outcome(half, "moves")[0] == FEW
    pair = judged(dataclasses.replace(seen, clusters=np.arange(60) // 30), r)
    assert next(c for c in pair.checks if c.name == "clusters").text.startswith("there are only 2 clusters")
    step = np.where(np.arange(60) % 4 < 2, 1.0, -1.0)[:, None] * np.array([0, 1, 0, 0])
    paired = dataclasses.replace(seen, own=0 * seen.own + step, clusters=np.arange(60) // 4)  # 1 up, 1 down, by prompt
    moves = next(c for c in judged(paired, r).checks if c.name == "moves")
    assert moves.text.startswith("the rewrites towards untreated move the attribute's measure by 0 on average")
    still = next(c for c in judged(dataclasses.replace(seen, own=0 * seen.own), r).checks if c.name == "moves")
    assert still.text.startswith("none of the rewrites towards untreated moves")


@pytest.mark.parametrize("towards", ["one side", "both sides"])
def test_an_imbalance_counts_by_what_the_reward_pays_for_it(towards):
    seen, r = clean(n=1000, effect=0.0 if towards == "one side" else 0.5)
    rng = np.random.default_rng(3)
    side = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T
    moved = 0.4 * side * (np.arange(4) > 0) if towards == "one side" else 0.8 * np.minimum(np.arange(4), 2)
    other = rng.standard_normal((1000, 1)) + 0.2 * rng.standard_normal((1000, 4)) + moved
    seen = dataclasses.replace(seen, others={"other": other})
    assert outcome(judged(seen, r), "balance") == (FINE, TRUST)  # it moves, and the reward does not pay for it
    paid = judged(seen, r + other)
    if towards == "one side":  # all of RATE's 0.4 is paid for the other measure
        assert outcome(paid, "balance") == (BAD, NO)
        assert next(c.value for c in paid.checks if c.name == "balance") == pytest.approx(1.0, abs=0.1)
    else:
        assert outcome(paid, "balance") == (FINE, TRUST)
        assert outcome(paid, "balance of one class") == (BAD, CARE)
        assert "other moves the same way in both directions, which cancels in the ATE" in paid.reason


def test_what_moves_by_the_same_in_every_row_has_no_price():
    seen, r = clean()
    side = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T * 1.0
    verdict = judged(dataclasses.replace(seen, others={"marks": side}), r)
    assert outcome(verdict, "balance") == (FEW, CANNOT)
    assert "cannot be told" in verdict.reason


def test_what_another_measure_explains_is_said_beside_the_effect():
    rng = np.random.default_rng(3)
    seen, r = clean()
    side = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T * 1.0
    words = 0.5 * side + rng.standard_normal(side.shape)
    verdict = judged(dataclasses.replace(seen, others={"words": words}), r + 0.4 * words)
    assert outcome(verdict, "balance")[1] == CARE
    row = verdict.estimate
    d = np.where(seen.treated, 1, -1) * (words[:, 2] - words[:, 1])
    assert (row["explained_by"], row["explained"]) == ("words", pytest.approx(0.4 * d.mean()))
    assert f"; of the {row['estimate_sd']:+.2f} SD for x, words alone explains +0." in verdict.sentence
    assert "explains" not in judged(seen, r).sentence
    dumb = np.where(np.arange(len(r)) == 0, np.nan, 1.0)[:, None] * seen.others["other"]  # nothing is known of a row
    both = dataclasses.replace(seen, others={"words": words, "dumb": dumb})
    assert judged(both, r + 0.4 * words).estimate["explained"] == pytest.approx(0.4 * d[1:].mean())


def test_the_price_is_that_of_least_squares_with_an_intercept():
    rng = np.random.default_rng(5)
    x = rng.normal([0.3, -0.1], 1.0, (200, 2))
    own = 0.01 * rng.standard_normal(200)
    y = 0.7 + x @ [1.0, 2.0] + 50 * own + 0.1 * rng.standard_normal(200)
    priced = _Priced(y, x, own, np.arange(200), ["a", "b"])
    design = np.column_stack([x, own, np.ones(200)])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    assert priced.fit.coefficients[:2] == pytest.approx(beta[:2])
    assert priced.bias(np.ones(200, bool)).value == pytest.approx(beta[:2] @ x.mean(axis=0))


def test_the_interval_of_priced_shifts_covers():
    rng, hits = np.random.default_rng(7), 0
    for _ in range(300):
        x = rng.standard_normal((60, 1)) * 0.5 + 0.3
        y = 1 + 2 * x[:, 0] + rng.standard_normal(60)
        bias = _Priced(y, x, np.zeros(60), np.arange(60), ["a"]).bias(np.ones(60, bool))
        hits += bias.low <= 0.6 <= bias.high
    assert 270 <= hits <= 298


def test_the_interval_of_priced_shifts_allows_for_one_large_prompt():
    """One prompt of 20 holds half of the rows, and rows of a prompt are alike: a t interval of CR1 misses 23 %."""
    rng, hits, clusters = np.random.default_rng(0), 0, np.r_[np.zeros(95, int), np.repeat(np.arange(1, 20), 5)]
    for _ in range(200):
        own, y, *x = (np.sqrt(0.3) * rng.normal(size=20)[clusters] + np.sqrt(0.7) * rng.normal(size=190)
                      for _ in range(5))  # fmt: skip
        x = np.stack(x, axis=1) + np.array([1.0, 0, 0])
        bias = _Priced(y + own + x[:, 0], x, own, clusters, list("abc")).bias(np.ones(190, bool))
        hits += bias.low <= 1 <= bias.high
    assert hits >= 176  # of 200


def test_priced_shifts_of_many_prompts_are_held_in_little():
    x, y = np.random.default_rng(0).normal(size=(2, 3000, 1))
    tracemalloc.start()
    priced = _Priced(y[:, 0], x, np.zeros(3000), np.arange(3000), ["a"])
    priced.bias(np.ones(3000, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # 3,000 by 3,000 numbers are 72 MB


def test_a_measure_that_moves_as_the_attributes_own_has_no_price():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=40), rng.normal(size=40)
    priced = _Priced(own + other, np.stack([2 * own, other], axis=1), own, np.arange(40), ["letters", "tone"])
    assert np.isnan(priced.bias(np.ones(40, bool)).value)
    found = next(_balance(priced, np.arange(40) < 20, 1.0))
    assert "letters moved just as the attribute's own measure did, so what the reward pays for it" in found.text
    pair = _Priced(
        own + other, np.stack([other, 2 * other], axis=1), own, np.arange(40), ["a", "b"]
    )  # their sum is told
    assert pair.bias(np.ones(40, bool)).value == pytest.approx(other.mean())


@pytest.mark.parametrize(("n_out", "word"), [(0, TRUST), (40, CARE), (300, NO)])
def test_rewrites_beyond_every_original_are_outside_the_data(n_out, word):
    seen, r = clean(n=500)
    own, reward = seen.own.copy(), r.copy()
    own[:n_out, 1:3] += 1000
    reward[:n_out, 1:3] += 1000
    verdict = judged(dataclasses.replace(seen, own=own), reward)
    assert outcome(verdict, "outside by measure")[1] == word
    assert outcome(verdict, "outside by reward")[1] == word
    assert ("outside the data" in verdict.reason) == (n_out > 0)


def test_one_class_is_held_against_the_rewrites_back_to_it():
    seen, r = clean(n=200)
    w = np.zeros(200, bool)
    own = np.array([0.0, 1, 0, 1]) * 100 + np.random.default_rng(0).standard_normal((200, 1))
    verdict = judged(dataclasses.replace(seen, treated=w, own=own), r)
    assert outcome(verdict, "outside by measure") == (FINE, TRUST)  # though every first rewrite lies beyond
    assert "no original shows the other side" in verdict.reason
    own[:120, 2] += 50
    assert outcome(judged(dataclasses.replace(seen, treated=w, own=own), r), "outside by measure")[0] == BAD


@pytest.mark.parametrize(("slack", "share"), [(0.099, 0.0), (0.101, 1.0)])
def test_a_tenth_of_the_originals_range_is_not_outside(slack, share):
    values = np.zeros((100, 3))
    values[:50, 0] = 10.0
    values[:, 1:] = 10 + 10 * slack
    assert outside(values, np.arange(100)).value == share


def test_who_was_refused_is_seen_in_rewards_and_in_measures():
    seen, r = clean(n=1000)
    refused = np.arange(1000) % 10 < 2
    ok = np.ones((1000, 3), bool)
    ok[refused] = False
    r[np.ix_(refused, [1, 2, 3])] = np.nan
    seen = dataclasses.replace(seen, ok=ok)
    assert outcome(judged(seen, r), "refused, by reward")[1] in (TRUST, CARE)
    r[refused, 0] += 3.0
    verdict = judged(seen, r)
    assert outcome(verdict, "refused, by reward") == (BAD, CANNOT)
    other = {"other": seen.others["other"] + 2.0 * refused[:, None]}
    assert outcome(judged(dataclasses.replace(seen, others=other), r), "refused, by measure") == (BAD, CARE)
    rewritten = {"other": np.where(refused[:, None] & (np.arange(4) > 0), np.nan, other["other"])}
    again = judged(dataclasses.replace(seen, others=rewritten), r)
    assert outcome(again, "refused, by measure") == (BAD, CARE)  # it is their originals that are looked at
    twice = {"one": other["other"], "two": other["other"]}
    checks = judged(dataclasses.replace(seen, others=twice), r).checks
    assert "SD apart in one, by their share +0.3" in next(c.text for c in checks if c.name == "refused, by measure")


def test_refused_rows_against_the_others_by_hand():
    """Class means of kept rows 2 and 12: refused lie 3, 4, 7 and 0 above, kept -1, 1, -2 and 2."""
    values = np.array([1.0, 3, 5, 6, 9, 10, 14, 12, np.nan])
    treated, refused = np.arange(9) < 5, np.array([0, 0, 1, 1, 1, 0, 0, 1, 0], bool)
    found = _unlike(values, treated, ~refused, refused, np.arange(9), tests=3)
    half = stats.norm.ppf(1 - 0.025 / 3) * math.sqrt(25 / 3 * (1 / 4 + 1 / 4))  # the larger variance, n - 1
    assert found == pytest.approx((3.5, 3.5 - half, 3.5 + half, 4))
    values[[4, 7]] = np.nan  # two refused rows say nothing of their variance
    found = _unlike(values, treated, ~refused, refused, np.arange(9))
    half = stats.norm.ppf(0.975) * math.sqrt(10 / 3 * (1 / 2 + 1 / 4))
    assert found == pytest.approx((3.5, 3.5 - half, 3.5 + half, 2))
    values[[4, 7]] = 5.5, 15.5  # vary less than the kept ones
    assert _unlike(values, treated, ~refused, refused, np.arange(9)).high == pytest.approx(
        3.5 + stats.norm.ppf(0.975) * math.sqrt(10 / 3 / 2)
    )
    assert math.isnan(_unlike(values, treated, ~refused & (np.arange(9) == 0), refused, np.arange(9)).low)


@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_a_verdict_minds_no_unit(size):
    seen, r = clean(n=40)
    others = {"other": seen.others["other"] + 0.1 * np.random.default_rng(1).standard_normal((40, 4))}
    seen = dataclasses.replace(seen, others=others)
    scaled = dataclasses.replace(seen, own=size * seen.own, others={"other": size * others["other"]})
    for model in ("rm", None):
        plain, other = (
            judged(e, x) if model else verdict_of(e, None, None, []) for e, x in ((seen, r), (scaled, size * r))
        )
        for one, two in zip(plain.checks, other.checks, strict=True):
            assert (one.name, one.outcome, one.word) == (two.name, two.outcome, two.word)
            unit = size if one.name == "moves" else 1
            assert (two.value, two.low, two.high) == pytest.approx(
                (unit * one.value, unit * one.low, unit * one.high), rel=1e-6, abs=1e-9 * unit, nan_ok=True
            )


@pytest.mark.parametrize(("treated", "said"), [(True, "only the ATT"), (False, "only the ATU")])
def test_one_class_has_its_own_estimand(treated, said):
    seen, r = clean(n=40)
    verdict = judged(dataclasses.replace(seen, treated=np.full(40, treated)), r)
    assert said in next(c.text for c in verdict.checks if c.name == "classes")


def test_the_worst_direction_is_that_of_the_lowest_end():
    """Treated rows move by 0 on the whole and by 10 each way, the others by -0.1 with hardly a spread."""
    seen, r = clean(n=40, depth=1)
    w, turn = seen.treated, (-1.0) ** (np.arange(40) // 2)
    step = np.where(w, 10 * turn, -0.1 + 0.01 * turn)
    own = np.stack([np.zeros(40), np.where(w, -step, step)], axis=1)
    checks = {c.name: c for c in judged(dataclasses.replace(seen, own=own), r).checks}
    assert checks["moves"].low == pytest.approx(mean_interval(step[w], np.arange(20)).low)
    assert "towards untreated" in checks["moves"].text
    own[:, 1] = np.where(w, -1.0, np.where(np.arange(40) % 20 == 1, 0.0, 1.0))  # 20 of 20 comply, and 18 of 20
    few = w & (np.arange(40) >= 8)
    own[few, 1] = np.nan  # 4 of 4
    checks = {c.name: c for c in judged(dataclasses.replace(seen, own=own), r).checks}
    assert checks["compliance"].value == 1
    assert checks["compliance"].low == pytest.approx(share_interval(np.ones(4), np.arange(4)).low)


def test_the_worst_pass_is_named():
    seen, r = clean(n=40)
    kept, repeated, ok = seen.kept.copy(), seen.repeated.copy(), seen.ok.copy()
    kept[:, 0] = 0.4  # shares enough
    kept[:30, 1] = 0.399
    repeated[:20, 2] = 1
    ok[:10, 1] = False
    checks = {c.name: c for c in judged(dataclasses.replace(seen, kept=kept, repeated=repeated, ok=ok), r).checks}
    assert [checks[name].value for name in ("content", "repeated", "succeeded")] == [0.25, 0.5, 0.75]
    kept[-1], repeated[-1] = np.nan, np.nan  # one row without texts to compare
    some = {c.name: c for c in judged(dataclasses.replace(seen, kept=kept, repeated=repeated, ok=ok), r).checks}
    assert [some[name].text[:9] for name in ("content", "repeated")] == ["in pass 2", "in pass 3"]
    assert checks["content"].text.startswith("in pass 2 only 25%")
    assert checks["repeated"].text.startswith("in pass 3 50%")


def test_where_nothing_is_scored_other_measures_are_judged_in_sds_of_the_originals():
    seen, _ = clean(n=40)
    w, s = seen.treated, np.where(seen.treated, 1.0, -1.0)
    m = np.random.default_rng(2).standard_normal((40, 4))
    m[:, 2] += 2 * s
    m[w, 3] += 3
    sd = pooled_sd(m[:, 0], w)

    def checks(m):
        found = verdict_of(dataclasses.replace(seen, others={"a": m, "b": 0.01 + 0 * m, "c": m[:, :1]}), None, None, [])
        return {c.name: c for c in found.checks}

    found = checks(m)
    assert found["shift"].value == pytest.approx((s * (m[:, 2] - m[:, 1])).mean() / sd)
    assert found["drift of a measure"].value == pytest.approx((m[w, 3] - m[w, 1]).mean() / sd)
    assert found["shift"].text.startswith("a also moves with the attribute, by +2")
    m[w, 3] -= 3
    m[~w, 3] -= 4
    assert checks(m)["drift of a measure"].value == pytest.approx((m[~w, 3] - m[~w, 1]).mean() / sd)
    some = np.where(np.arange(40)[:, None] * np.arange(4) == 2, np.nan, m)  # two rows lack a rewrite's measure
    moved = s * (some[:, 2] - some[:, 1])
    assert checks(some)["shift"].value == pytest.approx(np.nanmean(moved) / sd)
    assert {"shift"} == {"shift", "drift of a measure"} & set(checks(m[:, :3]))
    assert not {"shift", "drift of a measure"} & set(checks(m[:, :2]))


@pytest.mark.parametrize("worse", [True, False])
def test_the_class_that_is_worse_is_told(worse):
    seen, r = clean(n=40)
    of = seen.treated == worse
    r = r + 0.5 * np.random.default_rng(4).standard_normal((40, 1)) * (np.arange(4) == 3)
    r[:, 3] += np.where(of, 0.04, -0.01)
    r[0, 3] = np.nan  # one row without a third rewrite leaves the others
    drift = {c.name: c.value for c in judged(seen, r).checks}
    moved, size = r[:, 1] - r[:, 3], effect_size(r, seen.treated)
    s = np.where(seen.treated, 1.0, -1.0)
    assert drift["drift"] == pytest.approx(np.nanmean(s * moved) / size)
    first = np.where(np.arange(40) == 2, np.nan, r[:, 1])  # and one without a first
    ((late),) = [c for c in _drift(seen, np.column_stack([r[:, 0], first, r[:, 2:]]), "rate_late", 100.0)][:1]
    assert (late.name, late.value) == ("correction", pytest.approx(np.nanmean(s * (first - r[:, 3])) / 100))
    found = list(_drift(seen, r, "rate", 100.0))[1]
    sides = [mean_interval(v[np.isfinite(v)], np.arange(np.isfinite(v).sum()))
             for v in (s[side] * moved[side] for side in (of, ~of))]  # fmt: skip
    assert found.value == pytest.approx(max(sides, key=lambda i: i.reach).value / 100)
    x = np.random.default_rng(5).standard_normal((40, 1)) + np.where(of, 3.0, -1.0)[:, None]
    y = 2 * x[:, 0] + 0.01 * np.random.default_rng(6).standard_normal(40)
    priced = _Priced(y, x, np.zeros(40), np.arange(40), ["a"])
    whole, one = _balance(priced, seen.treated, 100.0)
    assert whole.value == pytest.approx((priced.fit.coefficients[0] * x.mean()) / 100)
    assert one.value == pytest.approx((priced.fit.coefficients[0] * x[of].mean()) / 100)
    assert len(list(_balance(priced, np.ones(40, bool), 100.0))) == 1  # one class is the whole


@pytest.mark.parametrize(("depth", "there"), [(1, False), (2, True)])
def test_two_rewrites_are_enough_for_a_balance(depth, there):
    seen, r = clean(n=40, depth=depth)
    r[0, 1] = np.nan  # one row without a score leaves the others
    others = {"other": np.random.default_rng(0).standard_normal((40, depth + 1))}
    assert ("balance" in [c.name for c in judged(dataclasses.replace(seen, others=others), r).checks]) == there


def test_ties_at_a_bound_are_no_failures():
    seen, r = clean()
    own = np.array([seen.treated if k % 2 == 0 else ~seen.treated for k in range(4)]).T * 1.0
    own[:40, 0] = 1 - own[:40, 0]  # mislabelled originals, which are already where the rewrite should bring them
    verdict = judged(dataclasses.replace(seen, own=own), r)
    assert outcome(verdict, "compliance")[0] == FINE
    own[40:80, 1] = own[40:80, 0]  # and these do nothing
    verdict = judged(dataclasses.replace(seen, own=own), r)
    assert outcome(verdict, "compliance")[0] != FINE


def test_sizes_are_judged_by_the_larger_of_att_and_atu_and_a_tenth_of_an_sd():
    w = np.array([True, True, False, False])
    r = np.array([[0.0, 0.0, 2.0], [2.0, 2.0, 4.0], [0.0, 1.0, 0.0], [2.0, 3.0, 2.0]])
    assert effect_size(r, w) == pytest.approx(2.0)  # ATT 2, ATU 1
    assert effect_size(-r, w) == pytest.approx(-2.0)
    once = np.array([[5.0, 2.0], [7.0, 4.0], [0.0, 1.0], [2.0, 3.0]])  # one rewrite: ATT 3, ATU 1
    assert [effect_size(once, w), effect_size(-once, w)] == pytest.approx([3.0, -3.0])
    r[:, 1] = r[:, 2]
    assert effect_size(r, w) == pytest.approx(0.1 * math.sqrt(2))


def test_depth_one_is_said_first_whatever_else_is_wrong():
    seen, r = clean(depth=1)
    verdict = judged(dataclasses.replace(seen, ok=np.zeros_like(seen.ok)), r)
    assert verdict.reason.startswith("there is no second rewrite, so RATE cannot be had")
    assert verdict.word == NO
    assert "there is no second rewrite" in verdict.sentence


# --- formulas ----------------------------------------------------------------------------------------------


def test_fieller_is_the_set_of_ratios_that_a_t_test_does_not_reject():
    rng = np.random.default_rng(2)
    bottom = rng.normal(1.0, 1.0, 50)
    top = 2 * bottom + rng.normal(0.0, 1.0, 50)
    found = ratio_interval(top, bottom, np.arange(50))
    for end in (found.low, found.high):
        assert stats.ttest_1samp(top - end * bottom, 0).pvalue == pytest.approx(0.05, abs=1e-6)
    assert found.low < found.value < found.high
    unbounded = ratio_interval(top, bottom - bottom.mean() + 0.01, np.arange(50))
    assert (unbounded.low, unbounded.high) == (-INF, INF)


@pytest.mark.parametrize(("one", "two"), [(1e-170, 1.0), (1e90, 1e90), (1e-80, 1e-90), (-3.0, 1e60)])
def test_fiellers_interval_minds_no_unit(one, two):
    rng = np.random.default_rng(2)
    bottom = rng.normal(1.0, 1.0, 50)
    top = 2 * bottom + rng.normal(0.0, 1.0, 50)
    plain = ratio_interval(top, bottom, np.arange(50))
    found = ratio_interval(one * top, two * bottom, np.arange(50))
    ends = [plain.low, plain.high] if one > 0 else [plain.high, plain.low]
    assert [found.value / one * two, found.low / one * two, found.high / one * two] == pytest.approx(
        [plain.value, *ends]
    )


def test_shares_have_wilsons_interval_and_clusters_count():
    wilson = stats.binomtest(37, 40).proportion_ci(method="wilson")
    found = share_interval(np.r_[np.ones(37), np.zeros(3)], np.arange(40))
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=0.004)
    together = share_interval(np.r_[np.ones(20), np.zeros(20)], np.repeat(np.arange(8), 5))
    apart = share_interval(np.r_[np.ones(20), np.zeros(20)], np.arange(40))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_shares_of_none_and_all_end_at_their_bounds():
    z2 = stats.norm.ppf(0.975) ** 2
    for share in (0.0, 1.0):
        found = share_interval(np.full(16, share), np.arange(16))
        assert found == pytest.approx((share, *((0, z2 / (16 + z2)) if share == 0 else (16 / (16 + z2), 1)), 16))
    values, codes = np.repeat([1.0, 0, 1, 0, 0], 4), np.repeat(np.arange(5), 4)
    found = share_interval(values, codes)  # five answers, four times each: n = p (1 - p) / SE^2 with G - 1
    n = 0.24 / (0.3 / 5)
    middle, half = (0.4 + z2 / 2 / n) / (1 + z2 / n), math.sqrt(z2 * (0.24 / n + z2 / 4 / n**2)) / (1 + z2 / n)
    assert found == pytest.approx((0.4, middle - half, middle + half, 20))
    nothing = share_interval(np.array([]), np.array([], int))
    assert math.isnan(nothing.low)
    assert nothing.n == 0


def test_an_interval_that_ends_at_a_limit_is_within_it():
    assert Interval(0.0, -0.1, 0.1, 9).within(0.1)
    assert not Interval(0.0, -0.1000001, 0.1, 9).within(0.1)
    assert not Interval(0.0, -0.1, 0.1000001, 9).within(0.1)
    assert [Interval(1.0, -3.0, 2.0, 9).reach, Interval(1.0, 0.0, 2.0, 9).reach] == [3.0, 2.0]
    assert Interval(1.0, math.nan, math.nan, 9).reach == -1
    assert Interval(2.0, 1.0, 4.0, 9).parts_of(2.0) == (1.0, 0.5, 2.0, 9)
    assert Interval(2.0, 1.0, 4.0, 9).parts_of(-2.0) == (-1.0, -2.0, -0.5, 9)
    assert Interval(2.0, 0.0, -4.0, 9).parts_of(0.0) == (INF, 0.0, -INF, 9)
    assert Interval(2.0, 1.0, 4.0, 9).times(0.5) == (1.0, 0.5, 2.0, 9)


def test_rewrites_that_are_not_there_are_not_counted_as_outside():
    values = np.array([[0.0, np.nan, np.nan, 99], [1.0, 9.0, np.nan, 0], [0.5, 9.0, 0.0, 0], [0.2, -9.0, -9.0, 0]])
    assert outside(values, np.arange(4)).value == pytest.approx((1 + 0.5 + 1) / 3)
    assert outside(values, np.arange(4)).n == 3
    assert outside(values[:, :1], np.arange(4)) is None


def test_a_mean_without_spread_has_an_interval_without_width():
    assert mean_interval(np.full(9, 2.0), np.arange(9))[:3] == (2.0, 2.0, 2.0)


def test_content_is_what_a_rewrite_shares_with_its_source():
    source = "The battery lasts two days and the screen is bright."
    assert shared_words(source, "Two days of battery! Bright screen, and the speaker is fine too, I must say.") > 0.6
    answer = "As a chatbot I am designed to help people with any question they may have about products."
    assert shared_words(source, answer) < 0.4
    assert math.isnan(shared_words(source, None))
    assert shared_words("good lid", "lid good") == 1.0  # of short texts the words, or the letters where those are more
    assert shared_words("walking", "walked") == pytest.approx(2 * 4 / 13)
    assert shared_words("walking", "walked up to the sea") == pytest.approx(2 * 4 / 27)  # one of them short is enough


def test_a_rewriter_that_answers_or_repeats_is_not_trusted():
    ds = rk.load("reviews", attribute="sentiment").to_pandas()
    ds["rewrites"] = [["I am a helpful assistant. What would you like to know about this product today?"] * 3] * len(ds)
    said = rk.diagnose(ds).set_index(["check", "group"])
    assert said.loc[("rule", "content"), "outcome"] == BAD
    assert said.loc[("rule", "repeated"), "outcome"] == BAD
    assert ("verdict", NO) in said.index


# --- one object, one sentence ------------------------------------------------------------------------------

ROW = {"estimator": "rate", "estimand": "ate", "estimate": 3.72, "se": 0.2, "ci_low": 3.32, "ci_high": 4.12,
       "reward_sd": 2.0, "n_clusters": 200}  # fmt: skip


def test_no_number_stands_under_do_not_trust():
    naive = {**ROW, "estimator": "naive", "estimate": 4.04}
    verdict = Verdict("length", "rm", NO, ROW, "the rewrites do not comply", beside={"naive": naive})
    for text in (verdict.sentence, verdict.short):
        assert "1.86" not in text
        assert "2.02" not in text
        assert "raises" not in text
    assert verdict.direction == ""
    trusted = dataclasses.replace(verdict, word=TRUST)
    # A table without the columns in SDs is divided by its SD as it stands, which is said.
    assert "naive +2.02 SD of this sample" in trusted.sentence
    assert "RATE +1.86 SD of this sample [+1.66, +2.06]: length raises the reward" in trusted.sentence
    counted = {**ROW, "estimate_sd": 1.86, "se_sd": 0.15, "ci_low_sd": 1.56, "ci_high_sd": 2.16}
    assert "RATE +1.86 SD [+1.56, +2.16]:" in Verdict("length", "rm", TRUST, counted, "").sentence
    assert "if the rewrites do what they should" in dataclasses.replace(verdict, word=CANNOT).sentence


def test_beside_a_null_stands_the_smallest_effect_that_would_have_shown():
    null = {**ROW, "estimate": 0.1, "ci_low": -0.3, "ci_high": 0.5}
    said = sentence(Verdict("length", "rm", TRUST, null, ""))
    smallest = 0.2 * (stats.t.ppf(0.975, 199) + stats.t.ppf(0.8, 199)) / 2
    assert f"no effect is seen; one of {smallest:.2f} SD of this sample would have been" in said
    assert smallest_effect(null) == pytest.approx(2 * smallest)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_the_level_is_read_from_the_interval(level):
    ds = rk.score(rk.load("reviews", attribute="length"), "vader", progress=False)
    table = rk.estimate(ds, level=level)
    assert {level_of(row) for row in table.to_dict("records")} == {level}
    assert table.attrs["level"] == level


def test_an_interval_that_is_not_students_tells_no_level():
    """An uneven one: its width is that of a t interval of 94.7 % by chance alone."""
    half = float(stats.t.ppf(0.9735, 99))
    row = {"estimate": 0.0, "se": 1.0, "ci_low": -half, "ci_high": half, "n_clusters": 100}
    assert level_of(row) == 0.947
    assert level_of({**row, "ci_low": 0.1 - half, "ci_high": half + 0.1}) is None
    ds = rk.score(rk.load("reviews", attribute="length"), "vader", progress=False)
    table = rk.estimate(ds, level=0.9, uncertainty="bootstrap", draws=1000)
    assert {verdict.estimate["level"] for verdict in rk.verdicts(ds, table)} == {0.9}
    table.attrs.clear()  # as it is read from a file
    assert {level_of(row) for row in table.to_dict("records")} == {None}


def test_a_group_without_a_name_is_called_null():
    assert Verdict("length", "rm", TRUST, {}, "", by={"source": math.nan}).subject == "rm, length, source null"


def test_verdicts_diagnose_and_conclusions_say_the_same_of_the_same_number():
    ds = rk.load("reviews", attribute="length").select(range(0, 160, 2))
    ds = rk.score(rk.score(ds, "words", progress=False), "vader", progress=False)
    table = rk.estimate(ds)
    found = rk.verdicts(ds, table)
    rows = rk.diagnose(ds)
    rows = rows[rows["check"] == "verdict"]
    assert [v.word for v in found] == rows["group"].tolist()
    assert [v.reason for v in found] == rows["words"].tolist()
    assert [v.reward_model for v in found] == rows["about"].tolist() == ["words", "vader"]
    assert conclusions(found) == [v.sentence for v in found]
    marked = table[table["recommended"]]
    assert [v.estimate["estimate"] for v in found] == marked["estimate"].tolist()
    n = np.array([[len(t.split()) for t in (r, *more)] for r, more in zip(ds["response"], ds["rewrites"], strict=True)])
    s = np.where(ds["treated"], 1, -1)
    assert found[0].estimate["dose"] == pytest.approx((s * (n[:, 2] - n[:, 1])).mean())


def test_groups_are_judged_by_themselves():
    ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False).to_pandas()
    ds["half"] = ["a", "b"] * (len(ds) // 2)
    ds.loc[ds["half"] == "b", "rewrites"] = ds.loc[ds["half"] == "b", "response"].map(lambda t: [t] * 3)
    found = {v.by["half"]: v for v in rk.verdicts(ds, by="half")}
    assert found["b"].word == NO
    assert found["a"].word in (TRUST, CARE, CANNOT)
    assert "half b" in found["b"].sentence
    assert set(rk.diagnose(ds, by="half")["half"]) == {"a", "b"}
    assert [v.word for v in rk.verdicts(ds, rk.estimate(ds, by="half"))] == [v.word for v in found.values()]


def test_a_bare_table_is_unchecked_and_no_table_is_refused():
    ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    said = conclusions(rk.estimate(ds))[0]
    assert "the rewrites were not checked" in said
    with pytest.raises(rk.InputError, match="effects table"):
        conclusions(pd.DataFrame({"a": [1]}))


def test_refused_prompts_are_held_against_the_others_by_prompt():
    """Whole prompts refused at random, rows of a prompt alike: the interval of the gap holds 0 in 95 % of draws."""
    rng, missed, draws = np.random.default_rng(0), 0, 150
    clusters = np.repeat(np.arange(80), 6)
    for _ in range(draws):
        values = np.sqrt(0.7) * rng.normal(size=80)[clusters] + np.sqrt(0.3) * rng.normal(size=480)
        refused = rng.random(80)[clusters] < 0.2
        gap = _unlike(values, rng.random(480) < 0.5, ~refused, refused, clusters)
        missed += not gap.low <= 0 <= gap.high
    assert missed <= stats.binom.ppf(0.999, draws, 0.05)  # as independent rows: in about 40 % of draws
    # Alone, each row its own prompt: the normal interval by hand.
    values, refused = rng.normal(size=100), np.arange(100) < 20
    gap = _unlike(values, np.ones(100, bool), ~refused, refused, np.arange(100))
    spread = max(values[~refused].var(ddof=1), values[refused].var(ddof=1))
    assert gap.value == pytest.approx(values[refused].mean() - values[~refused].mean())
    assert gap.high - gap.value == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(spread / 20 + spread / 80))
    # One refused prompt of 20 rows is one observation.
    one = np.where(refused, 0, np.arange(100))
    gap = _unlike(values, np.ones(100, bool), ~refused, refused, one)
    assert gap.high - gap.value == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(spread + spread / 80))


@pytest.mark.parametrize("price", [0.3, -0.3])
def test_the_part_that_another_measure_explains_has_the_sign_of_the_effect(price):
    """Of a reward that is paid by the word, up or down, words explain the effect of hedges and do not go against it."""

    def reward(prompts, responses):
        return [price * len(r.split()) + zlib.crc32(r.encode()) / 2**33 for r in responses]

    ds = rk.rewrite(rk.label(rk.load("reviews", attribute="length"), "hedging"), "hedging", "rules", progress=False)
    (verdict,) = rk.verdicts(rk.score(ds, reward, name="r", progress=False))
    (balance,) = (check for check in verdict.checks if check.name == "balance")
    assert 0.5 < balance.low < balance.value < balance.high < 1.2
    assert f"{balance.value:+.0%} of the effect" in balance.text


def test_a_naive_difference_is_not_said_to_be_what_the_attribute_does():
    from ratekit.cards import Card

    rows = {"prompt_id": [str(i) for i in range(40)], "attribute": ["length"] * 40,
            "treated": [i % 2 == 1 for i in range(40)], "response": [f"text {i}" for i in range(40)],
            "prompt": ["p"] * 40, "reward/r": [[(i % 2) + i / 100] for i in range(40)]}  # fmt: skip
    ds = Dataset.from_dict(rows)
    audit = rk.Audit(ds, rk.estimate(ds))
    (verdict,) = audit.verdicts
    assert verdict.direction == ""
    assert verdict.claim == "treated responses get more reward, which need not be because of length"
    assert Card(audit).table["finding"].tolist() == ["no test"]
    assert not Card(audit).table["biased"].any()


def test_an_effect_of_zero_everywhere_is_not_a_reward_that_is_everywhere_the_same():
    row = {"reward_model": "r", "attribute": "length", "estimator": "rate", "estimand": "ate", "estimate": 0.0,
           "se": math.nan, "ci_low": math.nan, "ci_high": math.nan, "n_clusters": 20, "reward_sd": 1.0}  # fmt: skip
    verdict = Verdict("length", "r", CARE, row, "", beside={"naive": row | {"estimate": 0.24}})
    assert verdict.claim == "the effect is 0 for every prompt"
    assert "naive +0.24" in verdict.short
