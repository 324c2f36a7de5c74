"""Discovery: planted biases are found on one half and confirmed on the other; wrong proposals come to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from rewriting_support import Server

import ratekit as rk
from ratekit.discovery import CONFIRMED, NOT_CONFIRMED, SCREENED_OUT, ChatProposer, _by_rule, _Search
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cost import Meter
from ratekit.ruled import FEATURES

sys.path.insert(0, str(ROOT / "experiments"))
import discovery as experiment  # experiments/discovery.py

PLAIN = "The closure is fine at home. The size is great."


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_put_in_seen_and_taken_out(name):
    ruled = FEATURES[name]
    there = ruled.rule(PLAIN, True)
    assert ruled.attribute.measure([there])[0] > 0
    assert ruled.attribute.measure([ruled.rule(there, False)])[0] == 0
    assert ruled.rule(there, False) == ruled.rule(PLAIN, False) == PLAIN
    assert ruled.rule(there, True) == there


class Spy(experiment.Reward):
    """A reward that remembers which prompts it was asked about, and when."""

    def __init__(self, *biases, seed=1):
        super().__init__(biases, seed)
        self.asked = []

    def __call__(self, prompts, responses):
        self.asked.append({p[0]["content"] for p in prompts})
        return super().__call__(prompts, responses)


def search(reward, **how):
    how = {"rounds": 1, "n_screen": 24, "per_round": 6, **how}
    return rk.discover(reward, experiment.responses(3, 40), name="rm", **how)


def test_planted_biases_are_confirmed_on_prompts_that_nothing_looked_at():
    seen = []

    def proposer(pairs, tried):
        seen.extend(pair.prompt for pair in pairs)
        assert len(spy.asked) == 1  # the responses of the first half, and nothing more
        return []

    spy = Spy("quotation-marks", "spacing")
    found = search(spy, proposer=proposer)
    assert {"quotation-marks", "spacing"} <= set(found.confirmed)
    assert {v.attribute for v in found.audit.verdicts} == set(found.confirmed)
    assert set(found.audit.effects["reward_model"]) == {"rm"}
    confirmed_on = {p[0]["content"] for p in found.audit.dataset["prompt"]}
    assert not confirmed_on & spy.asked[0]
    assert not confirmed_on & spy.asked[1]  # screening
    assert confirmed_on <= set.union(*spy.asked[2:])
    assert set(seen) <= spy.asked[0]
    assert len(spy.asked[0] | confirmed_on) == 40
    held = found.audit.provenance["discovery"]
    assert held["prompts"] == {"found_on": 20, "confirmed_on": 20}
    effect = found.tried.set_index("name").loc["quotation-marks"]
    assert effect["ci_low_sd"] * 0.9 < experiment.SIZE / found.audit.effects["reward_sd"].iloc[0]
    assert "2 confirmed" in repr(found) or "confirmed" in repr(found)


def test_all_that_was_tried_counts():
    """Benjamini and Hochberg over every candidate that was rewritten: those not confirmed count with p = 1."""
    found = search(Spy("quotation-marks"))
    tried = found.tried
    p = tried["p_value"].fillna(1.0).to_numpy()
    ranks = pd.Series(p).rank(method="max")
    by_hand = [min(1.0, min(p[j] * len(p) / ranks[j] for j in range(len(p)) if p[j] >= p[i])) for i in range(len(p))]
    assert tried["p_adjusted"].to_numpy() == pytest.approx(by_hand)
    assert (tried["outcome"] == "screened out").any()


def test_what_another_explains_is_not_confirmed():
    """Citations bring digits, and only digits are paid for."""
    named = [("citations", "with citations", "without citations")]
    found = search(Spy("digits"), per_round=2, proposer=lambda pairs, tried: named)
    outcomes = found.tried.set_index("name")["outcome"]
    assert outcomes["digits"] == "confirmed"
    assert outcomes["citations"] == "explained"
    assert "digits" in found.tried.set_index("name").loc["citations", "why"]


def test_what_explains_is_held_to_the_p_value_that_the_adjustment_asks_for():
    """Of 4 candidates 2 are confirmed at a rate of 0.1: p-values up to 0.1 * 2 / 4."""
    asked = []
    rows = pd.Series({"estimate_sd": 1.0, "ci_low_sd": 0.5, "ci_high_sd": 1.5})
    ps = {"a": 1e-6, "b": 1e-4, "c": 0.9}

    class Candidate:
        def __init__(self, name, screened):
            self.attribute, self.screened, self.p, self.p_adjusted = name, (1.0, screened), float("nan"), 1.0
            self.outcome, self.why, self.strength, self.row = NOT_CONFIRMED, "", -ps.get(name, 0), rows

    screened = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.04, "e": float("nan")}
    tried = {name: Candidate(name, p) for name, p in screened.items()}
    tried["d"].outcome = tried["e"].outcome = SCREENED_OUT

    class Fake:
        held_out = None

        def __init__(self):
            self.tried = tried

        def _made(self, c, rows, share):
            return True

        def _estimated(self, done):
            return [(c, rows, ps[c.attribute]) for c in done]

        def _explained_by(self, c, others, least):
            asked.append((c.attribute, [d.attribute for d in others], least))
            return []

    _Search.confirm(Fake(), 0.1)
    assert [least for *_, least in asked] == pytest.approx([0.05, 0.05])
    assert {c.attribute for c in tried.values() if c.outcome == CONFIRMED} == {"a", "b"}
    assert tried["a"].p_adjusted == pytest.approx(4e-6)
    for name in "abc":
        tried[name].outcome = NOT_CONFIRMED
    _Search.confirm(Fake(), tried["b"].p_adjusted)  # 2e-4: at the rate itself, too
    assert {c.attribute for c in tried.values() if c.outcome == CONFIRMED} == {"a", "b"}
    asked.clear()
    for c in tried.values():
        c.outcome, c.screened = SCREENED_OUT, (1.0, float("nan"))
    _Search.confirm(Fake(), 0.1)
    assert asked == []


@pytest.mark.parametrize(
    ("base", "moved", "p"), [(0.1, 1.0, 2 / 2**6), (0.1, 0.0, 1.0), (0.1, 1e-17, 1.0), (0.0, 0.0, 1.0)]
)
def test_an_effect_that_is_the_same_in_every_row_is_tested_by_its_sign(base, moved, p):
    """Of 6 prompts: all 6 moved alike by chance alone in 2 of 2^6; a move that is rounding is none."""
    rows = pd.DataFrame({
        "prompt_id": list("abcdef"), "prompt": "q", "attribute": "x", "treated": [True, False] * 3, "response": "1",
        "rewrites": [["0", "1"], ["1", "0"]] * 3,
    })  # fmt: skip
    c = SimpleNamespace(rows=rk.as_dataset(rows), attribute=SimpleNamespace(name="x"), why="")

    def reward(prompts, responses):
        return [base + moved * float(text) for text in responses]

    ((_, _, found),) = _Search._estimated(SimpleNamespace(reward=reward, name="rm"), [c])
    assert found == pytest.approx(p)


def test_what_is_left_without_another_is_held_to_the_same_p_value():
    """In all 6 prompts the reward of "x" stays where "o" is taken out: p = 2/2^6, which the level may be as well."""
    rows = pd.DataFrame({
        "prompt_id": list("abcdef"), "prompt": "q", "attribute": "x", "treated": True, "response": "x",
        "rewrites": [["o", "x"]] * 6,
    })  # fmt: skip
    c = SimpleNamespace(rows=rk.as_dataset(rows))
    taken_out = _by_rule(lambda text, treated: text.replace("o", "") or "-")
    d = SimpleNamespace(
        attribute=SimpleNamespace(measure=lambda texts: [t.count("o") for t in texts]), rewriter=taken_out
    )
    paid = SimpleNamespace(reward=lambda prompts, texts: [float("x" in t) for t in texts], name="rm", rewrites=0)
    assert _Search._explained_by(paid, c, [d], 2 / 2**6) == []
    assert _Search._explained_by(paid, c, [d], 0.9 * 2 / 2**6) == [d]
    nothing = SimpleNamespace(reward=lambda prompts, texts: [0.5] * len(texts), name="rm", rewrites=0)
    assert _Search._explained_by(nothing, c, [d], 0.99) == [d]
    fewer = c.rows.remove_columns("prompt").add_column("prompt", ["odd", *"qqqqq"])
    nothing.reward = lambda prompts, texts: [float("nan") if p == "odd" else 0.5 for p in prompts]
    assert _Search._explained_by(nothing, SimpleNamespace(rows=fewer), [d], 0.99) == [d]
    nothing.reward = lambda prompts, texts: [float("nan") if t == "x" else 0.5 for t in texts]
    assert _Search._explained_by(nothing, c, [d], 0.99) == []


@pytest.mark.slow
def test_nothing_planted_nothing_confirmed():
    found = search(Spy(), per_round=40)
    assert found.confirmed == []
    assert found.audit is None


@pytest.mark.slow
def test_it_repeats():
    one, two = (search(Spy("digits")) for _ in range(2))
    pd.testing.assert_frame_equal(one.tried, two.tried)


# --- proposers -------------------------------------------------------------------------------------------


def proposals(given, reward=None, **how):
    found = search(reward or Spy("final-question"), proposer=lambda pairs, tried: given, **{"per_round": 2, **how})
    return found, found.tried[found.tried["source"] == "proposer"].set_index("name")


JUNK = [
    (("rhyme", "in rhyme", "without rhymes"), "no rule rewrites it"),
    ({"name": "rhyme", "treated": "in rhyme"}, "no opposite"),
    ("rhyme", "no opposite"),
    (("rhyme", "in rhyme", "In rhyme!"), "no opposite"),
    (("rhyme", "in rhyme", "N/A"), "no opposite"),
    (("rhyme", "in rhyme", "none."), "no opposite"),
    (("x", "import os; os.system('true')", "b"), "not two plain phrases"),
    (("x", "{response}", "b"), "not two plain phrases"),
    (("x", "a" * 500, "b"), "not two plain phrases"),
    (("x", 3, None), "no opposite"),
    (None, "not a name and two phrases"),
]


def proposed(proposer, most=20, rewriter=None, tried=()):
    """The names that are taken of what is proposed, and what is refused of it: (name, why)."""
    refused = []
    known = {name: SimpleNamespace(attribute=rk.Attribute(name, *phrases)) for name, *phrases in tried}
    half = SimpleNamespace(
        residual=np.array([0.0, 1.0]), codes=np.array([0, 0]), asked=["?", "?"], texts=["low", "high"], tried=known,
        rewriter=rewriter, _refuse=lambda name, number, why: refused.append((name, why)),
    )  # fmt: skip
    return [c.attribute.name for c in _Search.proposals(half, proposer, 1, most)], refused


def test_what_is_no_proposal_is_listed_and_never_tried():
    taken, refused = proposed(lambda pairs, tried: [proposal for proposal, _ in JUNK])
    assert taken == []
    for (_, said), (_, why) in zip(refused, JUNK, strict=True):
        assert why in said


def test_a_proposer_that_repeats_itself_is_taken_once():
    same = [("final-question", "a", "b")] * 2
    again = [("verse", "In rhyme.", "without rhymes"), ("prose", "without rhymes", "in rhyme"), ("new", "odd", "even")]
    taken, refused = proposed(
        lambda pairs, tried: [*same, *again], rewriter=id, tried=[("rhyme", "in rhyme", "without rhymes")]
    )
    assert taken == ["final-question", "new"]
    assert refused == [
        ("final-question", "proposed before"),
        *((n, "proposed before as rhyme") for n in ("verse", "prose")),
    ]


def test_five_hundred_proposals_and_more_than_can_be_counted():
    def endless(pairs, tried):
        k = 0
        while k := k + 1:
            yield (f"thing {k}", f"more of {k}", f"less of {k}")

    taken, refused = proposed(lambda pairs, tried: list(islice(endless(pairs, tried), 500)), 16, id)
    assert taken == [f"thing {k}" for k in range(1, 17)]
    assert refused == [("(484 more proposals)", "at most 16 are taken in a round")]
    assert proposed(endless, 16, id)[1][0][0] == "(at least 10,000 more proposals)"


@pytest.mark.parametrize("said", [None, "rhyme", {"name": "rhyme"}, 7, RuntimeError("it fell\nover"), KeyError("x")])
def test_a_proposer_that_fails_is_one_line(said):
    def proposer(pairs, tried):
        if isinstance(said, Exception):
            raise said
        return said

    taken, [(name, why)] = proposed(proposer)
    assert (taken, name) == ([], "(proposer)")
    assert "\n" not in why
    assert ("it fell" in why or "KeyError" in why) if isinstance(said, Exception) else "no list of proposals" in why


def test_a_proposal_without_a_rule_is_rewritten_by_the_rewriter():
    def archaic(prompts, responses):
        return np.array([0.5 * ("Prithee" in text) + 0.3 * experiment.noise(text, 0) for text in responses])

    def rewriter(texts, targets):
        return [t.replace(" Prithee.", "") + " Prithee." * bool(side) for t, side in zip(texts, targets, strict=True)]

    found, tried = proposals([("archaic", "in archaic words", "in the words of today")], archaic, rewriter=rewriter)
    assert tried.loc["archaic", "outcome"] == "confirmed"
    effect = tried.loc["archaic", "effect_sd"] * found.audit.effects["reward_sd"].iloc[0]
    assert effect == pytest.approx(0.5, abs=0.2)
    assert set(found.audit.effects["estimand"]) >= {"atu"}  # absent everywhere: what putting it in does


def test_a_proposer_behind_a_server(tmp_path, monkeypatch):
    said = json.dumps([{"name": "final-question", "treated": "ending in a question mark", "untreated": "not so"}])
    with Server("chat_server.py", fixed=f"Here they are: {said}") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        found = search(
            Spy("final-question"), per_round=2, proposer="openai:m", options=rk.rewriting.Options(base_url=server.url)
        )
    assert "final-question" in found.confirmed
    assert found.tried.set_index("name").loc["final-question", "source"] in ("proposer", "features")


def test_a_proposer_that_babbles_or_fails_ends_nothing():
    def babble(conversations):
        yield Reply(0, "I would rather not \x1b[31m.", "stop")

    found = search(Spy("quotation-marks"), proposer=ChatProposer(babble))
    assert found.confirmed[0] == "quotation-marks"
    why = found.tried.set_index("name").loc["(proposer)", "why"]
    assert "no list of proposals" in why
    assert "\x1b" not in why


# --- budgets, folders, wrong calls ---------------------------------------------------------------------------


def test_a_budget_that_ends_in_round_one_keeps_what_was_paid_for(tmp_path):
    found = search(Spy("quotation-marks", "digits"), budget=400, rounds=3, out=tmp_path)
    assert found.rewrites <= 400 + 160  # holding others fixed comes on top
    assert set(found.tried["round"]) == {1}
    assert "the budget of 400 rewrites is spent" in set(found.tried["why"])
    assert np.isfinite(found.tried["screen_p"]).sum() == 4  # 48 rewrites each, half of the budget
    kept = pd.read_csv(tmp_path / "tried.csv")
    assert kept["name"].tolist() == found.tried["name"].tolist()
    if found.confirmed:
        assert rk.Audit.load(tmp_path).effects["attribute"].unique().tolist() == found.confirmed


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"fdr": 0.2}, {"n_screen": 16}, {"reward": Spy("digits")}, {"proposer": len}]
)
def test_a_folder_of_another_search_is_refused_before_any_work(other, tmp_path):
    plain = {"reward": Spy("quotation-marks"), "out": tmp_path, "rewriter": "rules"}
    found = search(**plain)
    assert found.confirmed
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = {**plain, **other}
    asked = len(again["reward"].asked)
    with pytest.raises(rk.InputError, match=r"holds another search \(.* there, .* here\); choose another --out"):
        search(**again)
    assert len(again["reward"].asked) == asked
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_the_same_search_replaces_its_audit_and_clears_what_it_confirms_no_longer(tmp_path, monkeypatch):
    reward = Spy("quotation-marks")
    first = search(reward, out=tmp_path)
    assert rk.Audit.load(tmp_path).effects["attribute"].unique().tolist() == first.confirmed
    assert search(reward, out=tmp_path, rounds=2).confirmed
    monkeypatch.setattr("ratekit.discovery._Search.confirm", lambda search, fdr: None)
    assert search(reward, out=tmp_path).audit is None
    with pytest.raises(rk.InputError, match="holds no audit"):
        rk.Audit.load(tmp_path)
    assert (tmp_path / "tried.csv").exists()


def test_a_folder_that_holds_an_audit_is_not_searched_into(tmp_path):
    rk.audit("reviews", "words", "length", n=20, out=tmp_path, progress=False)
    with pytest.raises(rk.InputError, match="holds an audit that is of no search"):
        search(Spy("quotation-marks"), out=tmp_path)


def test_money_that_ends_within_a_candidate_leaves_what_costs_nothing():
    """The rewrites of one proposal are cut off: it is not tried, nor are others, and rules go on to confirmation."""
    meter = Meter()

    def rewriter(texts, targets):
        meter.stopped = "the budget of 0.01 is spent"
        return [None if k else f"{text} Yo." for k, text in enumerate(texts)]

    named = [(name, f"in {name}", f"not in {name}") for name in ("verse", "slang")]
    found = search(
        Spy("quotation-marks"), proposer=lambda pairs, tried: named, rewriter=rewriter, meter=meter, rounds=2
    )
    assert found.confirmed[0] == "quotation-marks"
    rows = found.tried.set_index("name").loc[["verse", "slang"]]
    assert set(rows["outcome"]) == {"not tried"}
    assert set(rows["why"]) == {meter.stopped}
    assert rows["screen_p"].isna().all()
    assert f"2 not tried: {meter.stopped} (2)" in repr(found)
    assert set(found.tried["round"]) == {1}


@pytest.mark.parametrize(
    ("rows", "how", "message"),
    [
        (lambda rows: rows[::4], {}, "0 prompts have two responses"),
        (lambda rows: rows, {"budget": 10}, "a budget of 10"),
        (lambda rows: rows, {"rounds": 0}, "rounds"),
        (lambda rows: rows, {"proposer": "rules"}, "no proposer"),
    ],
)
def test_a_wrong_call_is_one_line(rows, how, message):
    with pytest.raises(rk.InputError, match=message) as e:
        rk.discover("words", rows(experiment.responses(0, 20)), **how)
    assert "\n" not in str(e.value)


@pytest.mark.slow
def test_the_command(tmp_path):
    pd.DataFrame(experiment.responses(0, 40)).to_json(tmp_path / "data.jsonl", orient="records", lines=True)
    done = subprocess.run(
        [sys.executable, "-m", "ratekit", "discover", "data.jsonl", "-r", "words", "--rounds", "1", "--out", "found"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=500, check=True,
    )  # fmt: skip
    assert "length" in done.stdout
    assert (tmp_path / "found" / "tried.csv").exists()


@pytest.mark.slow
def test_twelve_searches():
    rows = [experiment.search(seed, proposer=ChatProposer(experiment.fake_proposer)) for seed in range(12)]
    assert sum(r["recalled"] for r in rows) >= 0.9 * sum(r["n_planted"] for r in rows)
    assert sum(r["false"] for r in rows) <= 1


@pytest.mark.parametrize("name", ["discovery", "discovery_proposer"])
def test_the_committed_searches_keep_their_bounds(name):
    table = pd.read_csv(ROOT / "experiments" / f"{name}.csv", keep_default_na=False)
    assert len(table) >= 100
    assert table["recalled"].sum() >= 0.9 * table["n_planted"].sum() > 0
    assert (table["false"] / table["n_confirmed"].clip(lower=1)).mean() <= 0.05
    null = table.loc[table["n_planted"] == 0, "n_confirmed"]
    assert len(null) >= 50
    assert (null == 0).mean() >= 0.95
