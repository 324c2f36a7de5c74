"""Judges behind a server as rewards: what is read, what is null, what RATE finds of a bias that is known."""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from rewriting_support import ROOT, Server, environment

import ratekit as rk
from ratekit.cli import main
from ratekit.errors import InputError, WorkError
from ratekit.estimators import effects
from ratekit.rewriting.base import Reply
from ratekit.rewriting.cache import Cache, spent_on
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.replies import read_reply
from ratekit.scoring import make_reward, read_reward
from ratekit.scoring.llm_judges import LLMJudge, PairwiseLLMJudge, judge_spread
from ratekit.scoring.rubrics import PairQuestion, Rubric, Scale, expected_score

B = 0.06  # points a word


def rows(n=30, seed=0):
    """Responses whose quality (how often they say fine) and length go together."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        quality = int(rng.integers(0, 4))
        first = f"Answer {i} is " + ", ".join(["fine"] * quality + ["here"]) + "."
        more = " ".join(f"It has a part {k} and a bit." for k in range(int(rng.integers(1, 4)) + quality))
        texts.append(f"{first} {more}")
    return [{"prompt": f"Question {i}?", "response": text} for i, text in enumerate(texts)]


def rewritten(n=30, seed=0):
    return rk.rewrite(rk.label(rk.as_dataset(rows(n, seed)), "length"), "length", "rules", progress=False)


def ate(ds, name):
    table = rk.estimate(ds, rewards=[name])
    return table[(table.estimator == "rate") & (table.estimand == "ate")].iloc[0]


def words(prompts, responses):
    return [len(re.findall(r"\w+", r)) for r in responses]


def canned(*texts):
    def chat(conversations):
        for i, _ in enumerate(conversations):
            yield Reply(i, texts[i % len(texts)], "stop")

    return chat


@pytest.fixture(scope="module")
def server():
    with Server("judge_server.py", b=B) as running:
        yield running


def chat(server):
    return rk.OpenAIChat("fake", base_url=server.url, max_tokens=64)


# --- what a reply says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [("7", 7), ("Score: 7/10", 7), ("**7**", 7), ("[[7]]", 7), ("7 out of 10, it is clear.", 7), ("The score is 8.", 8),
     ("7\nbecause of 3 things", 7), ('{"score": 9}', 9), ("between 6 and 7", None), ("11", None), ("0", None),
     ("7.5", None), ("I have 3 remarks.", None), ("Rating: 7\n\nRating: 8", None), ("", None), ("seven", None),
     ("-7", None), ("7/100", None), ("On 7/10/2024 it was said.", None), ("８", 8), ("Ｓｃｏｒｅ：８/10", 8),
     ("评分：8分", 8),
     ("<think>\n6/10? Or 7.\n</think>\n8", 8), ("Or 7.\n</think>\nScore: 8", 8), ("<think>8", None), ("\\boxed{8}", 8),
     ("<score>8</score>", 8), ("Score (1-10): [8]", 8), ("8.0", 8), ("10", 10), ("Score: 7-8", None),
     ("Score: 7 to 8", None),
     ("Score: 7/8", None), ("Score: 8/100", None), ("Score: 80%", None), ("Score: 8 and 9", None), ("Score: 8½", None),
     ("Score: 8.5 to 9", None), ("Score: 1 0", None), ("Score: 8 -> 9", None), ("Note: 3 facts are wrong.", None),
     ("Overall: 3 issues", None), ("-3", None), ("8.5", None), ("7 or 8", None), ("eight", None)],
)  # fmt: skip
def test_a_score_is_read_where_the_reply_says_one_and_else_nothing(reply, score):
    assert Rubric().read(reply).scores.get("") == score


def test_words_count_what_they_are_said_to_count():
    rubric = Rubric("Is it good? {response}", Scale.of("bad=1+fair=2+good=4"))
    assert [rubric.read(t).scores.get("") for t in ("Good.", "rating: fair", "bad or good", "It is good of you.")] == [
        4.0, 2.0, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "first"),
    [("A", 1), ("[[B]]", 0), ("Response A", 1), ("tie", 0.5), ("A or B", None), ("C", 0.5), ("both", 0.5), ("Ａ", 1),
     ("<think>\nA\n</think>\nB", 0), ("Answer: Response B", 0), ("response_a", 1), ("Response A is better.", 1),
     ('{"winner": "B"}', 0), ("It's a tie.", 0.5), ("Response A is better than Response B.", None), ("A\nB", None),
     ("Both A and B", None), ("Tea", None), ("", None)],
)  # fmt: skip
def test_a_pair_is_read_the_same_way(reply, first):
    assert PairQuestion().read(reply) == first


@pytest.mark.parametrize(
    ("reply", "scores"),
    [('{"clarity": 3, "factual_truth": "8/10"}', (3, 8)),
     ('{"clarity": {"score": 3}, "factual truth": {"score": 8}}', (3, 8)),
     ("<think>clarity: 5</think>\n**Clarity** (1-10): 3\n1. Factual truth：8", (3, 8)),
     ("| clarity | 3 |\n| factual truth | 8 |", (3, 8)),
     ("clarity: 3-4\nfactual truth: 8/100", (None, None)), ("clarity: 3\nclarity: 5\nfactual truth: 8", (None, 8)),
     ("lack of clarity: 3\nfactual truth: 8", (None, 8)), ("clarity: N/A\nfactual truth: 11", (None, None)),
     ("3\n8", (None, None))],
)  # fmt: skip
def test_criteria_are_read_by_their_names(reply, scores):
    found = Rubric(criteria=("clarity", "factual truth")).read(reply).scores
    assert (found.get("clarity"), found.get("factual truth")) == scores


def logprobs(token, **top):
    candidates = [{"token": t[1:], "logprob": math.log(p)} for t, p in top.items()]
    return json.dumps([{"token": token, "logprob": -0.1, "top_logprobs": candidates}])


def test_the_expected_score_is_the_mean_over_the_probabilities_or_not_said():
    assert expected_score(logprobs("7", _7=0.6, _8=0.2, _6=0.1, _x=0.1), 7, Scale(1, 9)) == pytest.approx(6.4 / 0.9)
    assert expected_score(logprobs("7", _7=0.3, _x=0.7), 7, Scale(1, 9)) is None  # most of it is on no score
    assert expected_score(logprobs("7", _7=0.6, _1=0.3), 7, Scale(1, 10)) is None  # the 1 may begin a 10
    assert expected_score(logprobs("7", _7=0.6, _10=0.4), 7, Scale(1, 10)) == pytest.approx(8.2)
    assert expected_score(logprobs("3", **{"_3": 0.6, "_-": 0.4}), 3, Scale(-5, 5)) is None  # the sign of some score
    assert expected_score(logprobs("7", _7=0.6, _8=0.2), 7, Scale(1, 9)) == pytest.approx(
        5.8 / 0.8
    )  # others are not listed


def test_log_probabilities_are_asked_for_read_and_kept(tmp_path):
    top = [{"token": "7", "logprob": math.log(0.5), "bytes": [55]}, {"token": "8", "logprob": math.log(0.5)}]
    choice = {"message": {"content": "7"}, "finish_reason": "stop",
              "logprobs": {"content": [{"token": "7", "logprob": math.log(0.5), "top_logprobs": top}]}}  # fmt: skip
    reply = read_reply(0, json.dumps({"choices": [choice]}))
    assert rk.OpenAIChat("m", base_url="http://h/v1", top_logprobs=5).body([])["top_logprobs"] == 5
    asked = []

    def model(conversations):
        asked.extend(conversations)
        yield from (Reply(i, reply.text, "stop", {}, reply.logprobs) for i, _ in enumerate(conversations))

    for _ in range(2):
        judge = LLMJudge(model, Rubric(scale=Scale(1, 9)), cache=tmp_path, name="j")
        assert judge(["Why?"], ["So."]).tolist() == [7.5]
    assert len(asked) == 1


def test_the_judges_own_spread_is_told_apart_from_the_texts():
    rng = np.random.default_rng(0)
    scores = rng.normal(5, 2, (4000, 1)) + rng.normal(0, 1, (4000, 3))
    scores[rng.random(scores.shape) < 0.1] = np.nan
    seen = judge_spread(scores)
    assert seen.repeat_sd == pytest.approx(1, abs=0.03)
    assert seen.text_sd == pytest.approx(2, abs=0.1)
    assert seen.reliability == pytest.approx(4 / (4 + 1 / 3), abs=0.02)
    assert math.isnan(judge_spread([[1.0], [2.0]]).repeat_sd)


# --- a judge with a known bias, over HTTP -----------------------------------------------------------------------------


@pytest.mark.commands
@pytest.mark.parametrize("repeats", [1, 3])
def test_rate_finds_what_the_judge_pays_for_words_and_nulls_are_counted(server, tmp_path, repeats, caplog):
    server.configure(b=B, noise=0.5, unparsable=0.05, faults={"429": 0.05, "500": 0.02})
    ds = rewritten()
    truth = B * ate(rk.score(ds, words, name="w", progress=False), "w").estimate
    judge = LLMJudge(chat(server), repeats=repeats, cache=tmp_path, name="j")
    scored = rk.score(ds, judge, name="j", progress=False)
    found = ate(scored, "j")
    assert found.ci_low < truth < found.ci_high
    assert found.p_value < 1e-4
    nulls = sum(r is None for row in scored["reward/j"] for r in row)
    assert (nulls > 0) == (repeats == 1)  # of three replies one can be read
    if repeats == 1:
        statuses = [s for row in scored["reward_status/j"] for s in row]
        assert statuses.count("unparsable") == nulls
        assert "unparsable (as in " in caplog.text
        assert found.n_dropped > 0
    else:
        assert 0.4 < judge.spread.repeat_sd < 0.75  # noise of .5 and rounding
    before = server.stats["requests"]
    again = rk.score(ds, LLMJudge(chat(server), repeats=repeats, cache=tmp_path, name="j"), name="j", progress=False)
    assert again["reward/j"] == scored["reward/j"]
    assert server.stats["requests"] == before


def test_which_criterion_pays_for_length_and_one_that_is_left_out(server, caplog):
    server.configure(b=B, noise=0.3, unparsable=0.0, faults={}, forget="style", forget_share=0.2)
    ds = rk.score(rewritten(), LLMJudge(chat(server), Rubric(criteria=("truth", "style"))), name="j", progress=False)
    truth, style = ate(ds, "j/truth"), ate(ds, "j/style")
    assert abs(truth.estimate) < 0.3 < style.estimate
    lacking = [[s is None for s in row] for row in ds["reward/j/style"]]
    assert sum(map(sum, lacking)) > 5
    assert not any(r is None for row in ds["reward/j/truth"] for r in row)
    assert [[r is None for r in row] for row in ds["reward/j"]] == lacking
    assert "incomplete (no style)" in caplog.text


def test_the_place_has_an_effect_of_its_own_and_the_reward_is_free_of_it(server, tmp_path):
    # every response is compared with another of the same worth for most prompts, so that the place decides
    references = {r["prompt"]: r["response"].replace("Answer", "Reply") for r in rows()}
    server.configure(a=1.0, b=B, noise=0.8, position=2.0, tie=0.25, unparsable=0.0, faults={}, forget="")
    judge = PairwiseLLMJudge(chat(server), references, cache=tmp_path, name="p")
    ds = rk.score(rewritten(24), judge, name="p", progress=False)
    assert rk.position(ds).iloc[0].ci_low > 0.5
    assert ate(ds, "p").ci_low > 0  # what the place pays cancels, what the words pay does not
    assert set(rk.estimate(ds).reward_model) == {"p"}  # the two orders are no rewards
    (verdict,) = rk.verdicts(ds)
    assert [c.value for c in verdict.checks if c.name == "position"] == pytest.approx(
        rk.position(ds).estimate / rk.position(ds).reward_sd, rel=0.2
    )
    fair = PairwiseLLMJudge(canned("tie"), references, name="f")
    assert rk.position(rk.score(ds, fair, name="f", progress=False)).set_index("reward_model").estimate["f"] == 0
    with pytest.raises(InputError, match="no reward has both orders"):
        rk.position(ds.remove_columns("reward/p/shown_second"))
    with pytest.raises(InputError, match="no reward has both orders"):
        rk.position(rk.score(ds.remove_columns([c for c in ds.column_names if "reward/" in c]), words, name="w"))


def test_the_error_of_a_place_by_hand():
    ds = pd.DataFrame({"prompt_id": list("abcd"), "attribute": "length", "treated": [True, False] * 2})
    ds["reward/j"], ds["reward/j/shown_second"] = [[0.1], [0.2]] * 2, [[0.0]] * 4
    for first, estimate, se in (
        ([1.0, 0.0, 1.0, 0.0], 0.5, math.sqrt(0.25 / 3)),
        ([0.5] * 4, 0.5, math.nan),
        ([1000 + k * 2**-14 for k in range(4)], 1000, math.nan),  # of float32, whose rounding they differ by
    ):
        for one, other, sign in (("first", "second", 1), ("second", "first", -1)):
            both = {f"reward/j/shown_{one}": [[x] for x in first], f"reward/j/shown_{other}": [[0.0]] * 4}
            row = rk.position(ds.assign(**both)).iloc[0]
            assert (row.estimate, row.se) == pytest.approx((sign * estimate, se), nan_ok=True)


def test_the_budget_is_kept_and_what_it_left_out_is_null(server, tmp_path):
    server.configure(b=B, noise=0.0, unparsable=0.0, faults={}, position=0.0)
    meter = Meter(Prices(100.0, 100.0), budget=0.5)
    judge = LLMJudge(rk.OpenAIChat("fake", base_url=server.url, concurrency=4), cache=tmp_path, meter=meter, name="j")
    scores = judge.scores(["Why?"] * 200, [f"Response {i} is fine." for i in range(200)])
    assert 0 < meter.cost <= 0.55
    assert scores.statuses.count("not_attempted") == np.isnan(scores.rewards).sum() > 100


# --- wrong calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [("judge:openai:", "which model"), ("judge:openai:m,scale=bad+good", "words without numbers"),
     ("judge:openai:m,scale=7-7", "fewer than two scores"), ("judge:openai:m,scale=7", "no range of whole numbers"),
     ("judge:openai:m,scale=", "no range of whole numbers"), ("judge:openai:m,scale=bad=1+bad=2", "a word twice"),
     ("judge:openai:m,scale=bad=nan+good=2", "a finite number"),
     ("judge:openai:m,scale=bad=1+good=1", "fewer than two"), ("judge:openai:m,rubric=nowhere.txt", "cannot be read"),
     ("judge:openai:m,rubrik=a.txt", "rubric"), ("judge:openai:m,repeats=few", "not a number"),
     ("judge:openai:m,repeats=0", "repeats=0: a whole number from 1 on"), ("judge:openai:m,budget=1", "prices"),
     ("judge:openai:m,criteria=a+A", "a name of its own"), ("pairwise:openai:m", "file of reference responses"),
     ("judge:openai:m,base_url=http://me:secret@h/v1", "no password")],
)  # fmt: skip
def test_a_wrong_judge_is_one_line(spec, said, capsys):
    assert main(["score", "reviews", "-r", spec, "--out", "/nowhere"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_a_rubric_without_a_place_for_the_response_is_one_line(tmp_path):
    path = tmp_path / "clear.txt"
    path.write_text("Is it clear?")
    with pytest.raises(InputError, match=r"has no \{response\}"):
        make_reward(f"judge:openai:m,rubric={path}")
    path.write_text("Is it clear? {response}")
    spec = f"judge:openai:m,rubric={path},scale=1-5,criteria=clarity+truth,repeats=2,temperature=0"
    judge = make_reward(spec)
    assert (read_reward(spec).column, judge.repeats, judge.rubric.scale.high) == ("judge:m-clear", 2, 5)
    assert judge.fingerprint != make_reward(spec.replace("1-5", "1-6")).fingerprint


def test_a_judge_that_always_says_seven_tells_nothing_apart(caplog):
    ds = rk.score(rewritten(20), LLMJudge(canned("7"), name="j"), name="j", progress=False)
    assert "gave 7 to every one of" in caplog.text
    row = ate(ds, "j")
    assert row.estimate == 0
    assert math.isnan(row.estimate_sd)


def test_a_judge_that_cannot_be_read_at_all_fails_with_what_it_said():
    with pytest.raises(WorkError, match=r"unparsable \(as in 'It depends\.'"):
        rk.score(rewritten(20), LLMJudge(canned("It depends."), name="j"), name="j", progress=False)


# --- TRL's signature --------------------------------------------------------------------------------------------------


def test_a_reward_of_trls_signature_is_taken_as_it_is():
    from datasets import Dataset

    ds = Dataset.from_dict({
        "prompt_id": ["a", "b"], "prompt": ["Why?", "How?"], "response": ["So long.", "Thus."],
        "attribute": ["length"] * 2, "treated": [True, False], "rewrites": [["So.", "So long."], ["Thus it is.", None]],
        "limit": [3, 7],
    })  # fmt: skip

    def under(completions, limit, **kwargs):
        assert set(kwargs) >= {"prompts", "treated"}
        return [float(len(c) - n) for c, n in zip(completions, limit, strict=True)]

    def of_messages(prompts, completions):
        return [None if c[0]["content"] == "So." else float(len(c[0]["content"])) for c in completions]

    def needs(completions, solution):
        return [0.0] * len(completions)

    ds = rk.score(rk.score(ds, under, progress=False), of_messages, progress=False)
    assert ds["reward/under"] == [[5.0, 0.0, 5.0], [-2.0, 4.0, None]]
    assert ds["reward/of_messages"] == [[8.0, None, 8.0], [5.0, 11.0, None]]
    with pytest.raises(InputError, match="needs the column 'solution'"):
        rk.score(ds, needs, progress=False)


# --- coverage ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 3])
def test_intervals_of_a_rounding_judge_cover(repeats):
    """A rounded, noisy, sometimes unreadable score: 95 % intervals of what it pays for words hold it as often."""
    rng, n, covered, draws = np.random.default_rng(repeats), 150, 0, 2000
    for _ in range(draws):
        treated = rng.random(n) < 0.5
        quality, dose = rng.normal(5, 1.2, n), rng.gamma(4, 5, n)  # E dose = 20
        longer = np.stack([treated, ~treated, treated], axis=1)
        mean = np.clip(quality, 3, 7)[:, None] + B * dose[:, None] * (longer - 0.5)
        said = np.clip(np.rint(mean[:, None, :] + rng.normal(0, 0.8, (n, repeats, 3))), 1, 10)
        said[rng.random(said.shape) < 0.05] = np.nan
        there = np.isfinite(said).any(axis=1)
        r = np.where(there, np.nansum(said, axis=1) / np.maximum(np.isfinite(said).sum(axis=1), 1), np.nan)
        found = next(e for e in effects(r, treated, np.arange(n)) if (e.estimator, e.estimand) == ("rate", "ate"))
        covered += found.ci_low < B * 20 < found.ci_high
    logging.getLogger(__name__).info("covered %g", covered / draws)
    assert 0.935 < covered / draws < 0.965


def test_the_truth_of_the_experiment_is_the_mean_of_what_its_judge_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.syspath_prepend(ROOT / "tests" / "servers")
    import chat_server
    import judge_server
    import judges

    texts = ["Fine: fine, fine. " + "A word more. " * k for k in (0, 5, 25)] + ["Bad."]
    pairs = [(texts[1], texts[0]), (texts[0], texts[2])]
    draws = 1000
    monkeypatch.setitem(chat_server.CONFIG, "seed", 0)
    for name, value in judges.SCORES.items():
        monkeypatch.setitem(chat_server.CONFIG, name, value)
    said = [[float(judge_server.judged(f"<response>\n{t}\n</response>")) for _ in range(draws)] for t in texts]
    error = np.mean(said, axis=1) - judges.expected_score(None, texts)
    assert np.all(np.abs(error) < 4 * np.std(said, axis=1) / draws**0.5 + 1e-9)
    for name, value in judges.PAIRS.items():
        monkeypatch.setitem(chat_server.CONFIG, name, value)
    counts = {"A": 1.0, "tie": 0.5, "B": 0.0}
    for one, two in pairs:
        asked = f"<response_a>\n{one}\n</response_a>\n<response_b>\n{two}\n</response_b>"
        won = np.array([counts[judge_server.judged(asked)] for _ in range(draws)])
        margin = judges.worth(None, [one]) - judges.worth(None, [two]) + judges.PAIRS["position"]
        assert abs(won.mean() - judges.won(margin)[0]) < 4 * won.std() / draws**0.5


# --- runs that end before they are done ------------------------------------------------------------------


def judging(url, folder, spec, slots):
    """`ratekit score` of rows.parquet by a judge behind the server, in a process of its own."""
    command = [sys.executable, "-m", "ratekit", "score", str(folder / "rows.parquet"),
               "-r", f"{spec},base_url={url},concurrency={slots}", "--out", str(folder / "out")]  # fmt: skip
    env = environment(RATEKIT_CACHE=str(folder / "replies"))
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.commands
@pytest.mark.parametrize("spec", ["judge:openai:m", "pairwise:openai:m,references.parquet"])
def test_of_a_judging_that_is_killed_only_what_was_under_way_is_asked_again(tmp_path, spec):
    """Killed at a third and at two thirds: replies that are lost or paid for twice were under way at a kill."""
    n, slots = 120, 8
    rk.as_dataset(rows(n)).to_parquet(tmp_path / "rows.parquet")
    rk.as_dataset([{"prompt": f"Question {i}?", "response": "It is so."} for i in range(n)]).to_parquet(
        tmp_path / "references.parquet"
    )
    spec = spec.replace("references.parquet", str(tmp_path / "references.parquet"))
    replies = n * (1 if spec.startswith("judge") else 2)  # both orders
    ways = {"b": B, "mean_ms": 60, "unparsable": 0.05, "faults": {"500": 0.05}}
    with Server("judge_server.py", **ways) as server:
        for part in (1, 2):
            killed = judging(server.url, tmp_path, spec, slots)
            until = time.monotonic() + 120
            while server.stats.get("sent", 0) < part * replies // 3 and killed.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.05)
            killed.kill()
            killed.communicate()
            assert killed.returncode == -9
            time.sleep(0.3)  # what the server was still at
            kept = len(Cache(next((tmp_path / "replies" / "judgements").iterdir())))
            assert kept < replies
            assert server.stats["sent"] - kept <= part * slots  # lost
        again = judging(server.url, tmp_path, spec, slots)
        _, err = again.communicate(timeout=200)
        assert again.returncode == 0, err
        found = server.stats
    assert found["n_keys"] == replies
    assert found["sent"] - replies <= 2 * slots  # paid for twice
    assert found["again_after_read"] == 0  # and none of these had been read
    ds = rk.as_dataset(tmp_path / "out" / "dataset")
    name = next(c for c in ds.column_names if c.startswith("reward/") and c.count("/") == 1)
    statuses = [s for row in ds[name.replace("reward/", "reward_status/")] for s in row]
    assert set(statuses) == {"ok", "unparsable"}
    assert [v is None for row in ds[name] for v in row] == [s == "unparsable" for s in statuses]


@pytest.mark.commands
def test_the_budget_of_a_judge_holds_over_restarts(tmp_path):
    """Three runs of one command spend what one may, by the replies in the cache."""
    rk.as_dataset(rows(60)).to_parquet(tmp_path / "rows.parquet")
    with Server("judge_server.py", b=B, mean_ms=5) as server:
        spec, counts = "judge:openai:m,price_in=100,price_out=100,budget=0.3", []
        for _ in range(3):
            process = judging(server.url, tmp_path, spec, 4)
            _, err = process.communicate(timeout=120)
            assert "Traceback" not in err
            counts.append(server.stats["sent"])
    assert counts[0] < 60
    assert counts[1] - counts[0] <= 4
    assert counts[2] - counts[1] <= 4
    cache = Cache(next((tmp_path / "replies" / "judgements").iterdir()))
    spent = sum(100 * sum(spent_on(record).values()) for record in cache.records()) / 1e6
    assert spent <= 0.3 * 1.3
