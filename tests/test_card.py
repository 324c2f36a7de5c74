"""The bias card: an audit of the whole suite as one table; what it finds is what was planted."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from rewriting_support import Server
from scipy import stats

import ratekit as rk
from ratekit.audits.hub import benchmark_file, with_section
from ratekit.cards import NO_TEST, leaderboard, leaderboard_html, suite
from ratekit.cli import main
from ratekit.errors import InputError, WorkError
from ratekit.rewriting.rules import SUITE, SUITE_VERSION

NOUNS = ("cover", "spine", "paper", "print", "margin", "index", "plate", "binding")
FEW = ["hedging", "apology", "bold", "citations"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    texts = [
        " ".join(f"The {noun} of book {i} is as it was." for noun in rng.choice(NOUNS, int(rng.integers(2, 6)), False))
        for i in range(60)
    ]
    return [{"prompt": f"What of book {i}?", "response": text} for i, text in enumerate(texts)]


def noise(text):
    """A number that the text alone decides, as good as normal."""
    bits = hashlib.sha256(text.encode()).digest()
    return (sum(bits[:12]) - 12 * 127.5) / (73.9 * 12**0.5)


def pays(measure, amount, salt=""):
    def reward(prompts, responses):
        own = np.minimum(measure(responses), 1)
        texts = zip(own, prompts, responses, strict=True)
        return [amount * x + noise(salt + p[-1]["content"]) + 0.3 * noise(salt + t) for x, p, t in texts]

    return reward


def drawn(rows, rewards, attributes=FEW, **how):
    return rk.card(rewards, rows, attributes=attributes, progress=False, **how)


def test_a_fair_model_is_indifferent_to_what_no_suite_names():
    r = [[float(w), float(not w), float(w)] for w in (True, False)] * 20
    rows = pd.DataFrame({"prompt_id": range(40), "attribute": "wit", "treated": [True, False] * 20,
                         "reward/rm": [[x + 0.01 * i for x in of] for i, of in enumerate(r)]})  # fmt: skip
    assert rk.cards.Card(rk.Audit.of(rows)).table["fair"].tolist() == ["no effect"]


def test_a_p_value_of_five_percent_and_an_end_at_zero_show_nothing(rows, monkeypatch, tmp_path):
    card = drawn(rows, {"rm": pays(len_zero, 1.0, "n")}, ["bold"])
    for p, finding in ((0.05, "not shown"), (0.0499, "raises")):
        card.audit.verdicts[0].estimate.update(p_value=p, estimate=1.0, estimate_sd=1.0)
        assert rk.cards.Card(card.audit).table["finding"].tolist() == [finding]
    row = {"attribute": "bold", "reward_model": "rm", "effect": 1.0, "ci_high": 2.0, "df": 50.0, "verdict": "trust",
           "finding": "raises", "estimator": "rate", "estimand": "ate"}  # fmt: skip
    monkeypatch.setattr("ratekit.cards._read", lambda path: {"suite": 1, "table": [row]})
    for row["ci_low"], shown in ((0.0, False), (0.01, True)):
        assert leaderboard([tmp_path]).loc[0, "shown"] == shown


def test_what_was_planted_is_found_and_nothing_else(rows):
    card = drawn(rows, {"hedges": pays(SUITE["hedging"].attribute.measure, 1.0), "none": pays(len_zero, 1.0, "n")})
    table = card.table.set_index(["reward_model", "attribute"])
    assert table.finding["hedges", "hedging"] == "raises"
    assert table.biased["hedges", "hedging"]
    assert table.biased.sum() == 1
    assert card.table.attribute[0] == "hedging"  # the largest effect first
    assert table.ci_low["hedges", "hedging"] < 1 / np.sqrt(1.09) < table.ci_high["hedges", "hedging"]
    assert (table.p_adjusted >= table.p_value).all()
    between = card.contrasts.set_index("attribute")
    assert between.p_adjusted["hedging"] < 1e-4 < 0.01 < between.p_adjusted.drop("hedging").min()
    # the numbers are those of the audit, and the smallest effect is that of a test at 5 % over all eight rows
    verdict = next(v for v in card.audit.verdicts if (v.attribute, v.reward_model) == ("apology", "none"))
    assert table.effect["none", "apology"] == verdict.estimate["estimate_sd"]
    assert table.smallest["none", "apology"] > 1.2 * verdict.estimate["smallest"] / verdict.estimate["reward_sd"]


def len_zero(texts):
    return np.zeros(len(texts))


def test_every_surface_has_every_row_and_obeys_no_text(rows, tmp_path):
    card = drawn(rows, {"<b>|x": pays(len_zero, 0)}, FEW[:2], out=tmp_path / "card")
    page, markdown, whole = (next((tmp_path / "card").glob(f"card.{k}")).read_text() for k in ("html", "md", "json"))
    for text in (page, markdown, whole, repr(card)):
        assert all(name in text for name in FEW[:2])
    assert "<b>" not in page + markdown
    assert "<script" not in page
    assert json.loads(whole)["suite"] == card.suite == "3"
    assert len(json.loads(whole)["table"]) == 2
    assert (tmp_path / "card" / "dataset").exists()  # an audit like any other
    assert len(rk.Audit.load(tmp_path / "card").verdicts) == 2


def test_a_second_reward_model_asks_no_rewriter(rows, tmp_path):
    with Server("chat_server.py") as server:
        how = {
            "rewriter": "openai:fake",
            "options": rk.rewriting.Options(base_url=server.url),
            "out": tmp_path / "card",
        }
        first = drawn(rows[:12], {"a": pays(len_zero, 0)}, ["length", "apology"], **how)
        asked = server.stats["requests"]
        assert asked >= 2 * 24
        both = drawn(rows[:12], {"b": pays(len_zero, 1)}, ["length", "apology"], **how)
        assert server.stats["requests"] == asked
    assert both.models == ["a", "b"]
    assert both.of("a")["effect (SD)"].tolist() == first.of("a")["effect (SD)"].tolist()
    assert f"{asked:,} requests" in both.cost


def test_an_attribute_that_the_data_cannot_be_labelled_by_is_left_out_with_its_reason(rows):
    same = [{"prompt": str(i), "response": f"The book {i} is as it was."} for i in range(20)]
    card = drawn(same, {"a": pays(len_zero, 0)}, ["length", "apology"])
    assert list(card.left_out) == ["length"]
    assert "all 20 rows have the same words" in card.left_out["length"]
    assert any("length is left out" in note for note in card.notes)
    with pytest.raises(InputError, match=r"no attribute of the suite can be labelled.*same words"):
        drawn(same, "words", ["length"])


def test_a_reward_that_moves_alike_in_every_row_has_no_test(rows):
    card = drawn(rows, "words", ["apology"])
    assert card.table.finding.tolist() == [NO_TEST]
    assert np.isnan(card.table.smallest[0])


def test_an_attribute_of_spaces_is_read_although_its_rewrites_say_the_same(rows):
    table = drawn(rows, {"spaced": pays(SUITE["spacing"].attribute.measure, 1.0)}, ["spacing"]).table
    assert table.finding.tolist() == ["raises"]
    assert "say the same" not in table.reason[0]


def test_rows_are_rewritten_until_every_interval_is_as_narrow_as_wanted(tmp_path, capsys, monkeypatch):
    many = [{"prompt": f"{i}?", "response": f"The {NOUNS[i % 8]} of book {i} is as it was."} for i in range(200)]
    seen = []

    class Fake:
        def __init__(self, n):
            self.table = pd.DataFrame({"ci_low": [np.nan, -2 / n**0.5, 0], "ci_high": [np.nan, 2 / n**0.5, 0.01]})

    def fake(folder, settings, rewards, **how):
        seen.append(settings.n or settings.two_phase)
        return Fake(seen[-1])

    monkeypatch.setattr(rk.cards, "drawn_up", fake)
    for precision, n, most, looked in (
        (0.2, None, 128, [64, 128]), (1.0, None, 64, [64]), (0.01, None, 200, [64, 128]), (0.01, 100, 100, [64]),
        (0.01, 40, 40, []),
    ):  # fmt: skip
        seen.clear()
        settings = rk.cards.Settings(many, tuple(suite(["hedging"], "rules")), rewriter="rules", n=n)
        assert rk.cards.enough(settings, ["words"], precision).n == most
        assert seen == looked
    some = rk.cards.Settings(many, tuple(suite(["hedging"], "rules")), rewriter="rules", two_phase=150)
    enough = rk.cards.enough(some, ["words"], 0.01)
    assert (enough.n, enough.two_phase, seen[-1]) == (None, 150, 128)
    with pytest.raises(InputError, match="SDs above 0"):
        rk.cards.enough(settings, ["words"], 0)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, many)))
    hedges = {"hedges": pays(SUITE["hedging"].attribute.measure, 1.0)}
    assert drawn(many, hedges, ["hedging"], precision=9.0).table.n[0] == 64
    call = ["card", "--data", "mine.jsonl", "-r", "words", "-a", "hedging", "--rewriter", "openai:m", "--dry-run"]
    assert main([*call, "--precision", "0.1"]) == 0
    said = capsys.readouterr().out.split()
    at = [said.index(word) for word in ("least", "most")]
    assert [said[i + 1] for i in at] == ["64", "200"]
    assert [said[said.index("calls", i) + 1] for i in at] == ["128", "400"]
    assert main([*call, "--two-phase", "70"]) == 0
    said = capsys.readouterr().out.split()
    assert said[said.index("calls") + 1] == "140"


@pytest.mark.parametrize(("kind", "least"), [("normal", 0.94), ("exponential", 0.905)])
def test_stopping_by_width_keeps_the_intervals(kind, least):
    """As `enough` stops: by the width at 64, 128, ... rows."""
    x = getattr(np.random.default_rng(0), kind)(size=(4000, 512))
    open_, hits = np.ones(4000, bool), 0
    for n in rk.cards.looks(512):
        half = stats.t.ppf(0.975, n - 1) * x[:, :n].std(axis=1, ddof=1) / n**0.5
        stop = open_ & ((half <= 0.15) | (n == 512))
        hits += (abs(x[:, :n].mean(axis=1) - (kind == "exponential")) <= half)[stop].sum()
        open_ &= ~stop
    assert hits / 4000 > least


def test_an_attribute_whose_rewrites_do_not_comply_is_not_trusted(rows):
    def stubborn(texts, targets):
        return [text + " So." * (i % 2) for i, text in enumerate(texts)]

    card = drawn(rows, {"a": pays(len_zero, 0)}, ["apology"], rewriter=stubborn)
    assert card.table.finding.tolist() == ["do not trust"]
    assert "none of the rewrites towards treated moves the attribute's measure" in card.table.reason[0]
    with pytest.raises(WorkError, match=r"no rewrite succeeded \(refused"):
        drawn(rows, "words", ["apology"], rewriter=lambda texts, targets: [rk.Rewrite(None, "refused")] * len(texts))


def test_an_attribute_without_any_rewrite_leaves_the_others_on_the_card(rows, monkeypatch):
    whole = rk.cards.labellable

    def with_refusals(settings):
        settings, parts, left = whole(settings)
        refuses = lambda texts, targets: [rk.Rewrite(None, "refused")] * len(texts)  # noqa: E731
        return settings, [p._replace(rewriter=refuses) if p.attribute.name == "apology" else p for p in parts], left

    monkeypatch.setattr(rk.cards, "labellable", with_refusals)
    card = drawn(rows, {"a": pays(len_zero, 0)}, ["apology", "hedging"])
    assert card.table.attribute.tolist() == ["hedging"]
    assert card.left_out == {"apology": "the rewriter gave no rewrite that could be used"}
    assert any("apology is left out" in note for note in card.notes)


def test_a_suite_is_named_or_refused():
    assert [a.name for a in suite()] == list(SUITE)
    with pytest.raises(InputError, match="did you mean 'hedging'"):
        suite(["hegding"])


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [f"The cover {i} is plain.{' It is.' * (i % 3)}" for i in range(12)]
    (tmp_path / "mine.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{i}?", "response": t}) for i, t in enumerate(texts))
    )
    call = ["card", "--data", "mine.jsonl", "-r", "words", "-a", "apology", "-a", "length"]
    assert main(call) == 0
    assert "apology" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine-card" / "card.html").exists()
    assert main([*call, "--rewriter", "openai:m", "--out", "o", "--dry-run"]) == 0
    assert "in all 48 calls" in capsys.readouterr().out
    assert not (tmp_path / "o" / "dataset").exists()
    assert main([*call, "-a", "hegding", "--format", "json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# --- many cards, and the hub ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(rows, tmp_path_factory):
    place = tmp_path_factory.mktemp("cards")
    hedges = SUITE["hedging"].attribute.measure
    for name, amount in (("a", 1.0), ("b|<i>", 0.0)):
        drawn(rows, {name: pays(hedges, amount, name)}, FEW[:2], out=place / name[0])
    return place / "a", place / "b"


def test_a_board_has_every_model_and_intervals_that_hold_at_once(two, tmp_path, capsys):
    board = leaderboard(two).set_index(["reward_model", "attribute"])
    assert board.shown[board.shown].index.tolist() == [("a", "hedging")]
    one = json.loads((two[0] / "card.json").read_text())["table"][0]
    assert one["attribute"] == "hedging"
    # four intervals at once: each at 1 - .05/4
    z = [rk.estimators.t_interval(0, 1, one["df"], level)[1] for level in (1 - 0.05 / 4, 0.95)]
    half = board.ci_high["a", "hedging"] - board.effect["a", "hedging"]
    assert half == pytest.approx((one["ci_high"] - one["effect"]) * z[0] / z[1])
    page = leaderboard_html(board.reset_index())
    assert "<i>" not in page
    assert "<script" not in page
    assert main(["leaderboard", *map(str, two), "--out", str(tmp_path / "board.html")]) == 0
    assert (tmp_path / "board.html").read_text() == page


def test_cards_that_cannot_be_compared_are_one_line(two, tmp_path, capsys):
    other = json.loads((two[1] / "card.json").read_text()) | {"suite": "0"}
    (tmp_path / "card.json").write_text(json.dumps(other))
    for folders, said in (
        ((two[0], tmp_path), f"suites 0 and {SUITE_VERSION} are not comparable"),
        ((two[0], two[0].parent), "holds no card"),
    ):  # fmt: skip
        assert main(["leaderboard", *map(str, folders)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    with pytest.raises(InputError, match="is on two cards"):
        leaderboard([two[0], rk.cards.Card(rk.Audit.load(two[0]))])


def test_what_the_hub_is_told_is_in_its_format_and_dry_by_default(two, tmp_path, monkeypatch):
    import huggingface_hub
    import yaml

    sent = {}

    class Hub:
        def file_exists(self, repo, name):
            return True

        def hf_hub_download(self, repo, name):
            (tmp_path / "README.md").write_text(with_section("# Mine", "<!-- nothing -->"))
            return tmp_path / "README.md"

        def create_commit(self, repo, operations, commit_message, create_pr):
            assert create_pr
            sent[repo] = {o.path_in_repo: o.path_or_fileobj.decode() for o in operations}

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    found = rk.Audit.load(two[0])
    texts = found.to_hub("a", "me/a", "me/suite")
    assert sent == {}
    (result,) = [yaml.safe_load(text) for path, text in texts.items() if path.startswith(".eval_results/")]
    for entry in result:
        assert set(entry) <= {"dataset", "value", "verifyToken", "date", "source", "evaluation_framework", "notes"}
        assert set(entry["dataset"]) == {"id", "task_id"}
        assert isinstance(entry["value"], float)
        assert "; 95 % interval [" in entry["notes"]
    by_task = {entry["dataset"]["task_id"]: entry["value"] for entry in result}
    readable = [v for v in found.verdicts if v.word != "do not trust"]
    assert by_task == {v.attribute: round(v.estimate["estimate_sd"], 4) for v in readable}
    if hasattr(huggingface_hub, "parse_eval_result_entries"):
        assert len(huggingface_hub.parse_eval_result_entries(result)) == len(result)
    found.to_hub("a", "me/a", "me/suite", dry_run=False)
    assert sent["me/a"]["README.md"].startswith("# Mine")
    assert texts["README.md"].strip() in sent["me/a"]["README.md"]
    tasks = yaml.safe_load(benchmark_file("me/suite", SUITE, "1"))["tasks"]
    assert [task["id"] for task in tasks] == list(SUITE)
    with pytest.raises(InputError, match="reward model"):
        found.to_hub("c", "me/c", "me/suite")


@pytest.mark.slow
def test_the_diagonal_has_the_numbers_of_the_card():
    sys.path.insert(0, str(ROOT / "experiments"))
    import diagonal

    few, n = ["hedging", "apology", "length"], 60
    draw, texts = diagonal.drawn(0, n)
    k, known = diagonal.ATTRIBUTES.index("hedging"), {}
    for j, chains in enumerate(texts):
        rewards = draw.plain[k, j] + 0.5 * draw.planted[k, j]
        known |= {(i, t): r for i in range(n) for t, r in zip(chains[i], rewards[i], strict=True)}

    def reward(prompts, responses):
        return [known[int(p[-1]["content"]), t] for p, t in zip(prompts, responses, strict=True)]

    rows = [{"prompt": str(i), "response": chain[0]} for i, chain in enumerate(texts[0])]
    card = drawn(rows, {"planted": reward}, few[:2]).table.set_index("attribute")
    for name in few[:2]:
        j = diagonal.ATTRIBUTES.index(name)
        effect, p = diagonal.tested(draw.plain[k, j] + 0.5 * draw.planted[k, j])
        assert card.effect[name] == pytest.approx(effect, rel=1e-6)
        assert card.p_value[name] == pytest.approx(p, rel=1e-6)
    one = diagonal.one(0, 40)
    own = one[(one["size"] == 0.5) & (one["pays"] == one["varied"])]
    assert own["true"].to_numpy() == pytest.approx(0.5)


def test_the_committed_diagonal_keeps_its_bounds():
    cells = pd.read_csv(ROOT / "experiments" / "diagonal.csv")
    own = cells[cells["pays"] == cells["varied"]]
    assert len(own) >= 14
    assert (own["found"] >= 0.8).all()  # power, with the rows that the plan asks for
    assert cells.loc[cells["null"], "found"].mean() < 0.05
    assert cells.loc[cells["null"], "true"].abs().max() < 1e-9


def test_a_model_whose_rewrites_cannot_be_trusted_does_not_lead_a_board():
    import pandas as pd

    told = {"a": ("trust", True), "b": ("do not trust", False), "c": ("trust", False)}
    board = pd.DataFrame(
        {"attribute": name, "reward_model": model, "effect": 0.1, "ci_low": 0.0, "ci_high": 0.2, "shown": shown,
         "verdict": verdict, "estimator": "rate", "estimand": "ate"}
        for name in ("length", "lists") for model, (verdict, shown) in told.items()
    )  # fmt: skip
    page = leaderboard_html(board)
    assert page.index(">c</th>") < page.index(">a</th>") < page.index(">b</th>")
    assert "0 of 2, 2 unknown" in page
