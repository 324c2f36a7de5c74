"""The functions behind the widgets, without ipywidgets: what is shown is what the data say, and shows only as text."""

from __future__ import annotations

import functools
import math
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from datasets import Dataset

import ratekit as rk
from ratekit.plots.style import contrast_ratio
from ratekit.rewriting.chat import ChatRewriter
from ratekit.widgets import (
    attribute_draft,
    attribute_trials,
    dashboard_html,
    explorer_html,
    explorer_rows,
    playground_figure,
    playground_world,
)
from ratekit.widgets.progress import Cancelled, Progress

NASTY = {
    "script": "before <script>alert(1)</script> after",
    "image": 'an <img src=x onerror="alert(1)"> image',
    "link": "a [link](javascript:alert(1)) and <a href='javascript:x'>another</a>",
    "ansi": "\x1b[31mred\x1b[0m and \x07 bell",
    "bidi": "left \u202eright to left\u202c \u2066isolated\u2069 \u200f mark",
    "attribute": "' onmouseover=alert(1) x=' \" `",
    "long": "word " * 20_000,
    "close": "</div></bdi></pre></textarea><h1>out",
}


def nasty_rows():
    """Rows whose every text is hostile, scored and rewritten."""
    texts = list(NASTY.values())
    n = len(texts)
    return Dataset.from_dict({
        "prompt_id": [f"<b>{k}</b>" for k in NASTY],
        "prompt": [[{"role": "<i>user</i>", "content": t}] for t in texts],
        "response": texts,
        "attribute": ["<u>length</u>"] * n,
        "treated": [i % 2 == 0 for i in range(n)],
        "rewrites": [[t[::-1][:500] + t[:300], t] for t in texts],
        "rewrite_status": [["ok", "ok"]] * (n - 1) + [["ok", "<b>bad</b>"]],
        "reward/<img src=x onerror=alert(1)>": [[1.0 * i, 2.0, 3.0] for i in range(n)],
    })  # fmt: skip


OURS = {
    "div", "span", "b", "p", "bdi", "del", "ins", "table", "thead", "tbody", "tr", "th", "td", "br", "i", "u", "style",
    "pre", "svg", "g", "rect", "line", "text", "circle", "polygon", "title", "img",
    "wbr",
}  # fmt: skip


class Page(HTMLParser):
    """The tags, the attributes and the text of HTML, as a browser would take them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.said = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.said.append(data)

    @property
    def text(self):
        return "".join(self.said)


def assert_only_shows(html):
    """Nothing in the HTML acts: no tag but ours, no handler, no address but an embedded picture, no hidden control."""
    page = Page(html)
    assert page.tags <= OURS, page.tags - OURS
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        assert name not in ("href", "action"), (name, value)
        assert name != "src" or value.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")), value
    assert not set(page.text) & set("\x1b\x07\u202e\u202c\u2066\u2069\u200f")
    return page


@pytest.fixture(scope="module")
def scored():
    ds = rk.load("reviews")
    for name in ("vader", "words"):
        ds = rk.score(ds, name, progress=False)
    return ds


@pytest.fixture(scope="module")
def measured(scored):
    return explorer_rows.off_target_changes(scored)


# --- the house -----------------------------------------------------------------------------------------------


def test_the_functions_need_no_ipywidgets():
    modules = [path.stem for path in (ROOT / "ratekit" / "widgets").glob("*_*.py") if path.stem[0] != "_"]
    modules = ["progress", *(name for name in modules if name != "attribute_lab")]
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        + "\n".join(f"import ratekit.widgets.{name}" for name in modules)
        + "\nimport ratekit.widgets\ntry:\n    ratekit.widgets.Explorer\nexcept ImportError:\n    print('as it should')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "as it should", done.stderr


def test_ipywidgets_is_imported_in_widgets_alone():
    for path in (ROOT / "ratekit").rglob("*.py"):
        if "import ipywidgets" in path.read_text():
            assert path.parent.name == "widgets" or path.name == "exercises.py", path  # a field to answer in


# --- facts and choices ---------------------------------------------------------------------------------------


def test_the_effects_of_the_rows_average_to_rate(scored):
    table, effects = explorer_rows.facts(scored), rk.estimate(scored)
    for row in effects.query("estimator == 'rate' and estimand == 'ate'").itertuples():
        mine = table[table.attribute == row.attribute][f"effect/{row.reward_model}"]
        assert mine.mean() == pytest.approx(row.estimate)


def test_the_off_target_changes_average_to_the_balance_of_diagnose(scored, measured):
    checks = rk.diagnose(scored).query("check == 'balance'")
    treated, attribute = np.array(scored["treated"]), np.array(scored["attribute"])
    for row in checks.itertuples():
        side = row.group.startswith("treated")
        mine = (treated == side) & (attribute == row.attribute)
        values = measured.values[row.about][mine]
        moved = (values[:, 2] - values[:, 1]) / measured.sd[row.attribute, row.about]
        assert np.nanmean(moved) == pytest.approx(row.in_sd)
    largest = np.max([
        np.abs(measured.values[m][:, 2] - measured.values[m][:, 1]) / measured.sd["length", m]
        for m in ("sentiment", "readability", "faults")
    ], axis=0)  # fmt: skip
    of_length = attribute == "length"
    np.testing.assert_allclose(np.abs(measured.change[of_length]), largest[of_length])


def test_filters_are_what_they_say(scored, measured):
    table = explorer_rows.facts(scored)
    wanted = explorer_rows.Wanted(
        attribute="length", treated=True, search="SCENE", reward_model="vader", order="effect_high"
    )
    places = explorer_rows.choose(table, wanted, ds=scored)
    by_hand = [
        i for i, row in enumerate(scored)
        if row["attribute"] == "length" and row["treated"]
        and any("scene" in t.lower() for t in [row["prompt"][0]["content"], row["response"], *row["rewrites"]])
    ]  # fmt: skip
    assert sorted(places) == by_hand
    assert len(by_hand) > 1
    effects = table["effect/vader"][places]
    assert list(effects) == sorted(effects, reverse=True)
    tenth = explorer_rows.choose(
        table, explorer_rows.Wanted(attribute="length", off_target=0.1), off_target=measured, ds=scored
    )
    rest = np.setdiff1d(explorer_rows.choose(table, explorer_rows.Wanted(attribute="length")), tenth)
    assert len(tenth) == 16
    assert np.abs(measured.change[tenth]).min() >= np.abs(measured.change[rest]).max()
    with pytest.raises(rk.InputError, match="did you mean 'effect'"):
        explorer_rows.choose(table, explorer_rows.Wanted(order="efect"))


def test_rows_without_an_effect_come_last_and_are_never_the_largest():
    ds = Dataset.from_dict({
        "prompt_id": list("abcd"), "response": list("abcd"), "attribute": ["x"] * 4,
        "treated": [True, True, False, False], "rewrites": [["p", None], ["p", "q"], None, ["p", "q"]],
        "rewrite_status": [["ok", "refused"], None, None, ["ok", "ok"]],
        "reward/r": [[1.0, 2.0, None], [1.0, 2.0, 5.0], None, [1.0, 2.0, 9.0]],
    })  # fmt: skip
    table = explorer_rows.facts(ds)
    assert table["status"].tolist() == ["refused", "ok", "not rewritten", "ok"]
    np.testing.assert_array_equal(table["effect/r"], [np.nan, 3.0, np.nan, -7.0])
    order = explorer_rows.choose(table, explorer_rows.Wanted(reward_model="r", order="effect"))
    assert order.tolist() == [3, 1, 0, 2]
    assert explorer_rows.choose(table, explorer_rows.Wanted(reward_model="r", effect=0.5)).tolist() == [3]


@pytest.mark.parametrize("kind", ["dataset", "frame", "strings"])
def test_a_search_reads_every_text_of_a_row(kind):
    columns = {
        "prompt": [[{"role": "user", "content": "Où?"}, {"role": "assistant", "content": "hier"}], [], [], []],
        "response": ["a", "HIER b", "c", "d.*"],
        "rewrites": [["x", None], None, ["y", "Hier"], []],
    }
    if kind == "strings":
        columns["prompt"] = ["hier", "", "", ""]
    ds = Dataset.from_dict(columns)
    ds = ds.to_pandas() if kind == "frame" else ds
    assert explorer_rows.found_in(ds, "hier").tolist() == [True, True, True, False]
    assert explorer_rows.found_in(ds, ".*").tolist() == [False, False, False, True]  # words, no pattern
    assert explorer_rows.found_in(ds, "OÙ").tolist() == [kind != "strings", False, False, False]


def test_marks_come_back_with_their_rows(scored):
    found = explorer_rows.marked(scored, {9: ("fine", "so be it"), 4: ("nonsense", "")})
    assert found["row"][:] == [4, 9]
    assert found["response"][:] == [scored[4]["response"], scored[9]["response"]]
    again = explorer_rows.marked(found, {1: ("unsure", "second thoughts")})
    assert again[0]["row"] == 1
    assert again[0]["note"] == "second thoughts"
    assert explorer_rows.marked(scored, {}).column_names == ["row", "verdict", "note"]


def test_what_cannot_be_explored():
    with pytest.raises(rk.InputError, match="response"):
        explorer_rows.facts(Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(rk.InputError, match="no rows"):
        explorer_rows.facts(Dataset.from_dict({"response": []}))


# --- cards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("against", list(explorer_html.AGAINST))
def test_a_card_shows_hostile_text_as_text(against):
    ds = nasty_rows()
    for i, row in enumerate(ds):
        page = assert_only_shows(explorer_html.row_html(row, against=against) + explorer_html.title(row, i))
        assert "<img src=x onerror=alert(1)>" in page.text  # the reward's name, as it is
        assert f"<b>{list(NASTY)[i]}</b>" in page.text
    page = Page(explorer_html.row_html(ds[0], against="nothing"))
    assert page.text.count("<script>alert(1)</script>") >= 2
    assert "more characters" in Page(explorer_html.row_html(ds[list(NASTY).index("long")])).text
    assert len(explorer_html.row_html(ds[list(NASTY).index("long")])) < 60_000
    assert "⟨U+202E⟩" in Page(explorer_html.row_html(ds[list(NASTY).index("bidi")])).text


def test_a_card_marks_what_changed_and_against_what():
    row = {"response": "a b c", "treated": False, "rewrites": ["a X c", "a b d"], "rewrite_status": ["ok", "ok"]}

    def marks(against):
        return [part.split("<")[0] for part in explorer_html.row_html(row, against=against).split("<ins>")[1:]]

    assert [m.strip() for m in marks("previous")] == ["X", "b d"]
    assert [m.strip() for m in marks("same side")] == ["d"]
    assert marks("nothing") == []
    text = Page(explorer_html.row_html(row)).text
    assert text.index("untreated") < text.index("to treated") < text.index("to untreated")


def test_a_missing_rewrite_is_said_and_not_scored():
    row = {"response": "a", "treated": True, "rewrites": ["b", None], "rewrite_status": ["ok", "refused"]}
    row["reward/r"] = [1.0, 2.0, None]
    text = Page(explorer_html.row_html(row)).text
    assert "refused" in text
    assert "not scored" in text


def test_bars_start_at_zero_and_share_one_scale():
    row = {"response": "a", "rewrites": ["b"], "reward/r": [-1.0, 3.0]}
    styles = [v for n, v in Page(explorer_html.row_html(row, ranges={"r": (-1.0, 3.0)})).attributes if n == "style"]
    assert styles[0] == "left:0.0%;width:25.0%"
    assert styles[2] == "left:25.0%;width:75.0%"


# --- scenes --------------------------------------------------------------------------------------------------


def covered(scene, estimator, estimand="ate"):
    return not playground_world.misses(playground_world.play(scene), estimator, estimand)


def test_each_knob_breaks_what_the_theory_says_it_breaks():
    large = {"n": 10_000, "seed": 3}
    nothing = playground_world.Scene(confounding=0.0, **large)
    assert all(covered(nothing, name) for name in playground_world.SHOWN_ESTIMATORS)
    confounded = playground_world.Scene(confounding=0.8, **large)
    assert not covered(confounded, "naive")
    assert not covered(confounded, "single_rewrite")
    assert covered(confounded, "rate")
    slow = playground_world.Scene(confounding=0.8, rho=0.5, **large)
    assert not covered(slow, "rate")
    assert covered(slow, "rate_extrapolated")
    played = playground_world.play(slow)
    # xi_weight a rho (rho - 1), a the mean residue of the class: Imperfections' own theory
    for estimand, sign, mean_xi in (("att", 1, 0.2), ("atu", -1, 1.8)):
        bias = played.estimate("rate", estimand).estimate - played.truth[estimand]
        assert bias == pytest.approx(sign * -0.5 * mean_xi * 0.5 * (0.5 - 1), abs=0.02)
    one_way = playground_world.play(playground_world.Scene(asymmetry=0.4, **large))
    assert one_way.estimate("rate", "ate").estimate - 0.5 == pytest.approx(-0.5 * 0.4, abs=0.02)
    assert playground_world.Scene(interaction=0.3, confounding=0.0).world().truth()["ate"] == pytest.approx(0.5 + 0.3)


def test_the_picture_draws_the_numbers():
    played = playground_world.play(playground_world.Scene(rho=0.5, n=2000))
    html = playground_figure.draw(played)
    assert_only_shows(html)
    drawn = [float(v) for n, v in Page(html).attributes if n == "data-estimate"]
    assert drawn == pytest.approx(
        [played.estimate(name, "ate").estimate for name in playground_world.SHOWN_ESTIMATORS], abs=1e-6
    )
    r, w = played.sample.rewards, played.sample.treated
    means = [float(v) for n, v in Page(html).attributes if n == "data-mean"]
    assert means == pytest.approx([*r[w].mean(axis=0), *r[~w].mean(axis=0)], abs=1e-6)
    label = next(v for n, v in Page(html).attributes if n == "aria-label")
    assert "misses the truth" in label


def test_words_and_table_say_what_is_missed():
    played = playground_world.play(playground_world.Scene(confounding=0.8, rho=0.5, n=5000))
    said = " ".join(playground_world.in_words(played))
    assert "Naive is off by +1.19" in said  # z_weight c + xi_weight (-2 c) = 1.2, and chance
    assert "extrapolated estimate removes that" in said
    assert Page(playground_world.world_html(played)).text.count("misses it") == 3
    assert "(ATE)" in playground_world.world_html(played, "att")
    with pytest.raises(rk.InputError, match="confounding"):
        playground_world.Scene(confounding=2.0)


# --- prototypes and trials -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draft",
    [
        attribute_draft.Draft("length", "longer", "much shorter", base=rk.ATTRIBUTES["length"]),
        attribute_draft.Draft('it\'s a "name"', "kinder\n", "ruder", measure="sentiment"),
        attribute_draft.Draft(
            "thanks", "more grateful", "less so", measure=attribute_draft.MENTIONS, mentioned="thank you, thanks"
        ),
        attribute_draft.Draft("3 things", "more", "less"),
    ],
)
def test_the_code_makes_the_attribute(draft):
    space: dict = {}
    exec(draft.code(), space)
    made = [v for v in space.values() if isinstance(v, rk.Attribute)]
    wanted = draft.attribute()
    assert len(made) == 1
    assert (made[0].name, made[0].treated, made[0].untreated) == (wanted.name, wanted.treated, wanted.untreated)
    texts = ["Thank you so much, thanks.", "Horrible."]
    if wanted.measure is not None:
        np.testing.assert_array_equal(made[0].measure(texts), wanted.measure(texts))
    assert made[0].label == wanted.label


WORDS = ("please", "kindly")
PATTERN = re.compile(r"\bthanks?\b", re.IGNORECASE)


def count_of(text):
    return sum(text.lower().count(word) for word in WORDS) + len(PATTERN.findall(text))


def courtesy(texts: list[str]) -> list[float]:
    """Words of courtesy."""
    return [math.sqrt(count_of(text)) for text in texts]


def times(k):
    return lambda texts: [k * len(text) for text in texts]


def nested(weight=2.0):
    def measure(texts, *, floor=1):
        return np.array([max(floor, weight * count_of(text)) for text in texts])

    return measure


class Counted:
    def __call__(self, texts):
        return [len(text) for text in texts]


HERE = [lambda texts: [len(text) for text in texts], lambda texts: [-len(text) for text in texts]]
OF_ONES_OWN = {
    "imported": courtesy, "a lambda": HERE[0], "another in its line": HERE[1], "a lambda in a call": times(3),
    "nested": nested(), "of numpy": lambda texts: np.array([len(text) for text in texts]),
    "np": lambda texts: np.ones(len(texts)), "of ratekit": rk.measures.words,
    "of words that were named": rk.measures.mentions("please", "thanks"),
    "of the library": lambda texts: [statistics.mean(map(len, text.split())) for text in texts],
}  # fmt: skip
WITHOUT_SOURCE = {
    "an instance": Counted(), "a partial": functools.partial(courtesy), "evaluated": eval("lambda t: [0] * len(t)"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*attribute_draft.MEASURE_CHOICES, *OF_ONES_OWN])
def test_code_with_a_measure_runs_in_a_file_of_its_own_and_measures_alike(name, monkeypatch):
    monkeypatch.setattr(courtesy, "__module__", "__main__")  # as it is in a notebook
    draft = attribute_draft.Draft("kind", "kinder", "ruder", measure=name)
    space: dict = {"__name__": "elsewhere"}
    exec(draft.code(OF_ONES_OWN), space)
    (made,) = [v for v in space.values() if isinstance(v, rk.Attribute)]
    texts = ["Thanks, and please come again.", "I hated it."]
    np.testing.assert_allclose(
        made.measure(texts), (OF_ONES_OWN.get(name) or attribute_draft.MEASURE_CHOICES[name][0])(texts)
    )


@pytest.mark.parametrize("name", WITHOUT_SOURCE)
def test_a_measure_without_a_source_is_left_to_be_written(name):
    space: dict = {}
    exec(attribute_draft.Draft("kind", "kinder", "ruder", measure=name).code(WITHOUT_SOURCE), space)
    (made,) = [v for v in space.values() if isinstance(v, rk.Attribute)]
    with pytest.raises(NotImplementedError, match="write the measure"):
        made.measure(["a"])  # rather than a number that is not the user's


def test_what_is_no_attribute_is_said():
    for draft, words in (
        (attribute_draft.Draft("", "a", "b"), "a name is missing"),
        (attribute_draft.Draft("x", "", ""), "are missing"),
        (attribute_draft.Draft("x", "a", "a"), "the same"),
        (attribute_draft.Draft("x", "a", "b", measure=attribute_draft.MENTIONS), "no word to count"),
    ):
        with pytest.raises(rk.InputError, match=words):
            draft.attribute()
    bare = rk.load("reviews").remove_columns(["attribute", "treated"])
    with pytest.raises(rk.InputError, match="choose what it is measured by"):
        attribute_draft.draft_labelled(bare, attribute_draft.Draft("x", "a", "b").attribute())
    for text in ("a", "7-3", "10", ""):
        with pytest.raises(rk.InputError, match="rows"):
            attribute_draft.read_places(text, range(10))


def test_labels_for_a_new_attribute_are_by_its_measure_and_each_response_is_there_once():
    ds = rk.load("reviews")
    rows, places = attribute_draft.draft_labelled(
        ds, attribute_draft.Draft("words", "wordier", "terser", measure="words").attribute()
    )
    assert len(rows) == len({(p, r) for p, r in zip(ds["prompt_id"], ds["response"], strict=True)})
    counts = np.array([len(t.split()) for t in rows["response"]])
    assert set(rows["treated"][i] for i in np.flatnonzero(counts > np.median(counts))) == {True}
    assert rows["response"][:] == [ds[i]["response"] for i in places]
    own, _ = attribute_draft.draft_labelled(ds, rk.ATTRIBUTES["length"])
    assert set(own["attribute"]) == {"length"}
    assert own["treated"] == ds.filter(lambda a: a == "length", input_columns="attribute")["treated"]


def polite(conversations):
    """A stand-in for an LLM that obeys the phrase."""
    for i, conversation in enumerate(conversations):
        request = conversation[-1]["content"]
        text = request.split("<response>\n")[1].removesuffix("\n</response>")
        wanted = "so it's more polite" in request
        yield rk.Reply(i, text + " Thank you." if wanted else text.replace(" Thank you.", "") + " Meh.", "stop")


POLITE = attribute_draft.Draft(
    "polite", "more polite", "less polite", measure=attribute_draft.MENTIONS, mentioned="thank you"
)


@pytest.mark.parametrize("kind", ["chat", "served chat", "callable"])
def test_what_was_rewritten_before_a_stop_is_not_asked_for_again(kind, tmp_path):
    asked = []
    attribute = POLITE.attribute()
    ds = rk.load("reviews", attribute="length").select(range(40))
    ds = ds.remove_columns(["rewrites", "rewrite_status"]).remove_columns("attribute")
    ds = ds.add_column("attribute", ["polite"] * 40)
    stop_after = {"n": 20}
    progress = Progress(lambda done, total, words: None)

    def chat(conversations):
        for i, conversation in enumerate(conversations):
            asked.append(conversation[-1]["content"])
            if len(asked) == stop_after["n"]:
                progress.cancel()
            yield rk.Reply(i, next(polite([conversation])).text, "stop")

    def texts_chat(texts, targets):
        found = []
        for text, target in zip(texts, targets, strict=True):
            asked.append((text, target))
            if len(asked) == stop_after["n"]:
                progress.cancel()
            found.append(rk.Rewrite(text + (" Thank you." if target else " Meh."), "ok"))
        return found

    class Served:
        """A chat that takes requests while it works, as the one for servers does."""

        fingerprint = "toy"

        def serve(self, source, meter, tick):
            while (request := source.take()) is not None:
                number, conversation = request
                (reply,) = chat([conversation])
                meter.add({})
                source.give(rk.Reply(number, reply.text, "stop"))

    chat.fingerprint = texts_chat.fingerprint = "toy"
    chats = {"chat": chat, "served chat": Served()}
    rewriter = ChatRewriter(chats[kind], attribute) if kind in chats else texts_chat
    bound = attribute_trials.rewriter_for(rewriter, attribute, cache=tmp_path)
    with pytest.raises(Cancelled):
        attribute_trials.audited(ds, attribute, bound, "words", "words", 2, tmp_path, progress)
    before = len(asked)
    assert 20 <= before < 40
    progress = Progress(lambda done, total, words: None)
    bound = attribute_trials.rewriter_for(rewriter, attribute, cache=tmp_path)
    found, _, _ = attribute_trials.audited(ds, attribute, bound, "words", "words", 2, tmp_path, progress)
    done = found.dataset
    assert done["rewrite_status"] == [["ok", "ok"]] * 40
    assert len(asked) == len(set(map(str, asked)))  # nothing twice
    cost = attribute_trials.cost_in_words(done, bound, 40, 2)
    assert ("0 calls; 80 more are in the cache" in cost) == (kind in chats)


def test_versions_stand_side_by_side_and_hostile_phrases_are_text():
    attribute = attribute_draft.Draft("<b>x</b>", "<script>1</script>", "less \u202e", measure="words").attribute()
    ds, _ = attribute_draft.draft_labelled(rk.load("reviews"), attribute)
    places = attribute_draft.handful(ds, 6)
    found = attribute_trials.audited(
        explorer_rows.taken(ds, places), attribute, rk.RuleRewriter("length"), "words", "words", 2, None,
        Progress(lambda *a: None),
    )  # fmt: skip
    version = attribute_trials.Version("v1", POLITE, attribute, *found, found[0].dataset, tuple(places))
    page = assert_only_shows(
        attribute_trials.comparison([version, version]) + attribute_trials.side_by_side([version], places[0])
    )
    assert page.text.count("<script>1</script>") == 2
    assert "off target: sentiment" in page.text
    assert "off target: words" not in page.text  # its own measure
    assert "100%" in page.text
    assert "not tried on this row" in attribute_trials.side_by_side([version], 99_999)
    grounds = "a reason that goes on, " * 60 + "to its end"
    long = replace(version, verdict=replace(version.verdict, checks=(), reason=grounds))
    assert grounds in assert_only_shows(attribute_trials.comparison([long])).text
    endless = replace(version, attribute=replace(attribute, treated="x" * 120))
    assert "x" * 25 not in attribute_trials.comparison([endless])  # so that its column is no wider than a word
    assert "x" * 120 in assert_only_shows(attribute_trials.comparison([endless])).text
    assert "No version yet" in attribute_trials.comparison([])


def test_a_cost_in_money_comes_before_any_call():
    ds = rk.load("reviews", attribute="length")

    def never(conversations):
        raise AssertionError("a call was made")
        yield

    said = attribute_trials.cost_in_words(
        ds, ChatRewriter(never, rk.ATTRIBUTES["length"]), 50, 2, attribute_trials.Prices(1.0, 1.0)
    )
    assert said.startswith("50 rows: 100 calls;")
    assert "money 0." in said


# --- the board -----------------------------------------------------------------------------------------------


def test_the_cells_are_the_estimates(scored):
    table = rk.estimate(scored)
    for estimator in ("naive", "rate"):
        shown = dashboard_html.cells(table, estimator=estimator, estimand="ate", unit="reward")
        assert len(shown) == 4
        for cell in shown:
            row = table.query(
                f"attribute == '{cell.attribute}' and reward_model == '{cell.reward_model}' and estimand == 'ate' and "
                f"estimator == '{estimator}'"
            ).iloc[0]
            assert float(cell.words.rstrip("*")) == pytest.approx(row.estimate, abs=0.006)
            assert cell.words.endswith("*") == (row.p_value < 0.05)
    # colour says the sign and the size, and the ink can be read on it
    strongest = max(dashboard_html.cells(table), key=lambda c: float(c.words.rstrip("*")))
    assert strongest.color == "#01665e"
    assert strongest.ink == "#ffffff"
    spread = pd.concat([table.head(1).assign(attribute=f"{k}", estimator="rate", estimate=k) for k in range(-50, 51)])
    assert min(contrast_ratio(c.ink, c.color) for c in dashboard_html.cells(spread, unit="reward")) > 4.5
    few = table[(table.attribute == "length") | (table.reward_model == "vader")]
    assert [c.words for c in dashboard_html.cells(few)].count("–") == 1


def test_all_that_stands_behind_a_number(scored):
    table = rk.estimate(scored)
    text = Page(dashboard_html.behind(dashboard_html.select(table, "length", "words"), unit="reward")).text
    rate = table.query(
        "attribute == 'length' and reward_model == 'words' and estimator == 'rate' and estimand == 'ate'"
    ).iloc[0]
    assert f"{rate.estimate:+.3g}" in text
    assert "160" in text
