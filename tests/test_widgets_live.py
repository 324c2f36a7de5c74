"""The widgets themselves: controls moved from Python, as the browser moves them, and all that they show is inert."""

from __future__ import annotations

import re
import threading
import time

import ipywidgets
import numpy as np
import pytest
from test_widgets import NASTY, Page, assert_only_shows, nasty_rows

import ratekit as rk
from ratekit.rewriting.chat import ChatRewriter
from ratekit.widgets import AttributeLab, EffectsDashboard, Explorer, Playground
from ratekit.widgets.shared import Cancelled, Worker

WIDGETS = (Explorer, Playground, AttributeLab, EffectsDashboard)


@pytest.fixture(scope="module")
def scored():
    ds = rk.load("reviews")
    for name in ("vader", "words"):
        ds = rk.score(ds, name, progress=False)
    return ds


def shown(widget):
    """All HTML that a widget shows, itself and its children."""
    if isinstance(widget, ipywidgets.HTML):
        return widget.value
    return "".join(map(shown, getattr(widget, "children", ())))


def press(button):
    button._click_handlers(button)


# --- the house -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widget", [*WIDGETS, Worker])
def test_no_name_of_ours_hides_one_of_ipywidgets(widget):
    made_by_traitlets = re.compile("_(all_)?trait|_instance_inits|_static_immutable|_descriptors|_repr_mimebundle_")
    bases = [c for c in widget.__mro__[1:] if not c.__module__.startswith("ratekit")]
    ours = {n for c in widget.__mro__ if c.__module__.startswith("ratekit") for n in vars(c) if not n.startswith("__")}
    hidden = {n for n in ours if any(n in vars(b) for b in bases) and not made_by_traitlets.match(n)}
    assert not hidden


def displayed(widget, monkeypatch):
    """What a cell's output holds of it: the forms of what is left, and those of the live view."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, **how: outputs.append((data, how)))
    widget._ipython_display_()
    assert all(how["raw"] for _, how in outputs)
    (left, how), (live, _) = outputs
    assert how["display_id"]  # so that it can be renewed
    return left, live


def test_every_widget_leaves_something_to_see_where_no_kernel_runs(scored, monkeypatch):
    lab = AttributeLab(scored, "rules", "vader", attribute="length")
    lab.try_it()
    table = rk.estimate(scored)
    for widget, words in (
        (Explorer(scored), "320 rows"), (Playground(), "covers the truth"), (lab, "longer"),
        (EffectsDashboard(table), "sentiment"),
    ):  # fmt: skip
        left, live = displayed(widget, monkeypatch)
        assert "application/vnd.jupyter.widget-view+json" in live
        assert "application/vnd.jupyter.widget-view+json" not in left  # no front end can prefer it
        assert f"rk-still-{widget.model_id}" in left["text/html"]
        assert f".rk-still-{widget.model_id} {{ display: none; }}" in shown(widget)  # the live view hides it
        page = assert_only_shows(left["text/html"])
        assert words in page.text
        assert "Run this cell in Jupyter" in page.text
        assert "Jupyter" in live["text/plain"]
        assert len(left["text/html"]) < 300_000


def test_what_a_lab_and_a_dashboard_leave_follows_them(scored, monkeypatch):
    class Handle:
        def update(self, data, raw):
            renewed.append(data["text/html"])

    renewed = []
    lab = AttributeLab(scored, "rules", "vader", attribute="length")
    board = EffectsDashboard(rk.estimate(scored))
    lab._left = board._left = Handle()
    lab.try_it()
    assert "moved towards treated when asked" in renewed[-1]
    board.attribute.value = "length"
    assert "Attribute: length" in renewed[-1]


# --- work ----------------------------------------------------------------------------------------------------


def test_work_goes_on_beside_the_notebook_and_can_be_cancelled():
    worker, gate, got = Worker(), threading.Event(), []

    def work(progress):
        for i in range(1000):
            progress(i, 1000)
            gate.wait(5)
        return "done"

    assert worker.start(work, got.append, "count")
    assert worker.busy
    assert not worker.start(work, got.append, "another")
    assert "wait" in worker.said.value
    press(worker.stop)
    gate.set()
    worker.wait(10)
    assert not worker.busy
    assert got == []
    assert "cancelled" in worker.said.value
    assert worker._line.layout.display == "none"
    assert worker.start(lambda progress: 7, got.append, "again")
    worker.wait(10)
    assert got == [7]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (rk.InputError("no <b>column</b>"), "look: no &lt;b&gt;column&lt;/b&gt;"),
        (KeyError("x<script>"), "look failed: KeyError: &#x27;x&lt;script&gt;&#x27;"),
    ],
)
def test_a_fault_is_shown_in_the_widget_and_kept(fault, said):
    worker = Worker()

    def work(progress):
        raise fault

    worker.start(work, print, "look")
    worker._thread.join()
    assert said in worker.said.value
    assert "rk-fault" in worker.said.value
    assert_only_shows(worker.said.value)
    with pytest.raises(type(fault)):
        worker.wait()


def test_cancelled_is_no_fault():
    worker = Worker()

    def work(progress):
        raise Cancelled

    worker.start(work, print, "x")
    worker.wait(5)
    assert worker.fault is None


# --- Explorer ------------------------------------------------------------------------------------------------


def test_the_explorer_follows_its_controls(scored):
    explorer = Explorer(scored)
    explorer.worker.wait(60)
    assert len(explorer.places) == 320
    explorer.attribute.value, explorer.side.value = "length", "treated"
    assert {scored[i]["attribute"] for i in explorer.places} == {"length"}
    assert all(scored[i]["treated"] for i in explorer.places)
    explorer.order.value = "off_target"
    changes = np.abs(explorer.off_target.change[explorer.places])
    assert (np.diff(changes) <= 0).all()
    assert explorer.listed.value == explorer.places[0]
    assert "◀ largest" in explorer.body.value
    second = explorer.places[1]
    explorer.show(second)
    assert f"row {second}" in Page(explorer.title.value).text
    assert scored[second]["response"][:40] in Page(explorer.body.value).text
    press(explorer.previous)
    assert explorer.listed.value == explorer.places[0]
    press(explorer.previous)  # nothing before the first
    press(explorer.next)
    assert explorer.listed.value == second
    explorer.search.value = "no text holds this"
    assert explorer.places == []
    assert "widen the filters" in explorer.body.value


def test_marks_are_kept_with_their_row(scored):
    explorer = Explorer(scored)
    explorer.listed.value = 5
    explorer.verdict.value, explorer.note.value = "nonsense", "what is this?"
    explorer.listed.value = 6
    assert (explorer.verdict.value, explorer.note.value) == ("no verdict", "")
    explorer.note.value = "only a note"
    explorer.listed.value = 5
    assert (explorer.verdict.value, explorer.note.value) == ("nonsense", "what is this?")
    marks = explorer.marks
    assert marks["row"][:] == [5, 6]
    assert marks["verdict"][:] == ["nonsense", ""]
    assert marks["note"][:] == ["what is this?", "only a note"]
    assert marks["reward/vader"][:] == [scored[5]["reward/vader"], scored[6]["reward/vader"]]
    explorer.mark_filter.value = "marked"
    assert explorer.places == [5, 6]
    explorer.mark(5, "")
    assert explorer.places == [6]
    explorer.worker.wait(60)


def test_the_explorer_shows_hostile_rows_as_text():
    explorer = Explorer(nasty_rows())
    explorer.worker.wait(60)
    for i in range(len(NASTY)):
        explorer.listed.value = i
        page = assert_only_shows(shown(explorer))
        assert f"<b>{list(NASTY)[i]}</b>" in page.text
    assert_only_shows(explorer.static())
    for label, _ in explorer.listed.options:
        assert "\u202e" not in label
        assert label.endswith("<u>length</u>")  # what may be long is last, and cuts off no number


@pytest.mark.filterwarnings("error")
def test_a_dashboard_says_nothing_of_a_character_that_its_font_lacks(scored):
    board = EffectsDashboard(rk.estimate(scored).replace({"attribute": {"length": "\U0001f389 长度"}}))
    assert "\U0001f389 长度" in dict(board.attribute.options)
    assert board.picture.value


def test_the_rows_of_a_lab_are_those_of_the_attribute_that_it_begins_with(scored):
    few = scored.select([*range(160), *range(160, 170)])  # 160 rows for sentiment, ten for length
    lab = AttributeLab(few, "rules", "vader", attribute="hedging")
    assert "10 repeated responses" in lab.labels_said.value
    lab.base.value = "length"
    assert "repeated" not in lab.labels_said.value
    assert all(160 <= int(place) < 170 for place in lab.rows.value.split(","))


def test_the_explorer_takes_rows_of_any_stage():
    bare = rk.load("reviews").select_columns(["prompt_id", "prompt", "response"])
    explorer = Explorer(bare)
    assert "not labelled" in [name for name, _ in explorer.attribute.options]
    assert len(explorer.places) == 320
    assert "response" in Page(explorer.body.value).text.lower()
    assert Explorer(bare.to_pandas()).places == explorer.places


# --- Playground ----------------------------------------------------------------------------------------------


def test_the_playground_follows_its_sliders():
    playground = Playground(n=2000)
    before = playground.picture.value
    for control, value in (
        (playground.confounding, 0.2), (playground.rho, 0.4), (playground.asymmetry, 0.3),
        (playground.interaction, -0.2),
        (playground.n, 500), (playground.estimand, "att"),
    ):  # fmt: skip
        control.value = value
        assert playground.picture.value != before
        before = playground.picture.value
    scene = playground.scene
    assert (scene.confounding, scene.rho, scene.asymmetry, scene.interaction, scene.n) == (0.2, 0.4, 0.3, -0.2, 500)
    assert "ATT" in playground.words.value
    press(playground.again)
    assert playground.picture.value != before
    playground.estimand.value, playground.confounding.value = "ate", 0.0
    assert "Naive is right" in playground.words.value
    assert_only_shows(shown(playground))


# --- AttributeLab --------------------------------------------------------------------------------------------


def obedient(conversations):
    """A stand-in for an LLM that reads its phrase."""
    for i, conversation in enumerate(conversations):
        request = conversation[-1]["content"]
        text = request.split("<response>\n")[1].removesuffix("\n</response>")
        polite = "so it's more polite" in request
        if "every mistake" not in request:
            text = rk.rewriting.rules.mended(text, 1.0)
        yield rk.Reply(i, text + " Thank you." if polite else text.replace(" Thank you.", "") + " Meh.", "stop")


def polite_lab(ds, **more):
    lab = AttributeLab(ds, ChatRewriter(obedient, rk.ATTRIBUTES["formality"]), "vader", **more)
    lab.name.value, lab.treated.value, lab.untreated.value = "politeness", "more polite", "less polite"
    lab.measure.value = "sentiment"
    press(lab.others)
    assert lab.rows.value.count(",") == 5  # a handful
    lab.rows.value = "0-11"
    return lab


@pytest.mark.commands
def test_a_lab_from_two_phrases_to_code(scored):
    lab = polite_lab(scored, prices=(1.0, 1.0))
    assert lab.estimate_button.disabled  # no estimate before its cost was seen
    lab.try_it()
    lab.treated.value = "more polite, keeping every mistake"
    lab.untreated.value = "less polite, keeping every mistake"
    lab.try_it()
    assert [v.name for v in lab.versions] == ["v1", "v2"]
    assert lab.versions[0].places == lab.versions[1].places
    page = assert_only_shows(lab.compared.value)
    assert "more polite, keeping every mistake" in page.text
    kept = [
        [chain[0].startswith(text) for text, chain in zip(v.tried["response"], v.tried["rewrites"], strict=True)]
        for v in lab.versions
    ]
    asked_up = [not treated for treated in lab.versions[0].tried["treated"]]
    assert all(k for k, up in zip(kept[1], asked_up, strict=True) if up)  # the second version keeps the mistakes
    assert not all(k for k, up in zip(kept[0], asked_up, strict=True) if up)  # the first does not
    assert "money" in lab.cost.value
    assert not lab.estimate_button.disabled
    lab.n.value = 40
    lab.estimate()
    assert lab.version.n == 40
    assert "data:image/png;base64,iVBOR" in lab.picture.value
    verdict = lab.version.verdict
    assert verdict == lab.version.audit.verdicts[0]  # the one that every surface shows
    assert verdict.sentence in Page(lab.result.value).text
    assert verdict.grounds[:390] in Page(lab.compared.value).text  # why, beside the word
    assert "[" in Page(lab.compared.value).text.split("effect in reward SDs")[1]
    assert "0 calls; 80 more are in the cache" in lab.cost.value  # the estimate's rewrites need not be made again
    space: dict = {}
    exec(lab.code, space)
    assert space["politeness"].treated == "more polite, keeping every mistake"
    assert lab.attribute.untreated == "less polite, keeping every mistake"
    lab.chosen.value = "v1"
    assert lab.attribute.treated == "more polite"
    assert lab.code in Page(lab.code_shown.value).text
    assert_only_shows(shown(lab))


def test_the_lab_says_what_is_wrong_and_goes_on(scored):
    lab = AttributeLab(scored, "rules", "vader", attribute="length")
    lab.rows.value = "0-999"
    with pytest.raises(rk.InputError, match="not within"):
        lab.try_it()
    assert "not within the 160 rows for this attribute (160 to 319)" in lab.worker.said.value
    lab.rows.value = "160-163"
    lab.treated.value = ""
    press(lab.try_button)
    assert "treated is missing" in lab.worker.said.value
    lab.base.value = "harmlessness"
    lab.rules.value = ()
    lab.name.value = "no rules for it"
    lab.rows.value = "0-3"
    lab.measure.value = "words"
    press(lab.try_button)
    assert "no rules rewrite" in lab.worker.said.value
    assert lab.versions == []
    with pytest.raises(rk.InputError, match="no version"):
        _ = lab.attribute
    lab.base.value = "length"
    lab.try_it()
    assert len(lab.versions) == 1
    assert "costs nothing" in lab.cost.value


def test_what_no_widget_can_be_made_of_is_said(scored):
    for make, words in (
        (lambda: Explorer(7), "rows were expected"),
        (lambda: EffectsDashboard(scored), "a table of rk.estimate was expected"),
        (lambda: AttributeLab(None, "rules", "vader"), "rows were expected"),
        (lambda: AttributeLab(scored, "rules", "vaderr"), "did you mean 'vader'"),
        (lambda: AttributeLab(scored, "rules", "vader", attribute="lenght"), "did you mean 'length'"),
        (lambda: AttributeLab(scored, "rules", lambda p, r: [0.0] * len(r)), "reward_name="),
        (lambda: AttributeLab(scored, "rules", "vader", prices=(1.0,)), "two numbers"),
        (lambda: Playground(confounding=3), "between 0 and 1"),
        (lambda: Playground(interaction=-2), "between -1 and 1"),
        (lambda: Playground(n=5), "at least 20"),
    ):
        with pytest.raises(rk.InputError, match=words):
            make()


def test_a_lab_that_is_cancelled_keeps_what_it_has(scored, tmp_path):
    asked = []

    def slow(texts, targets):
        asked.extend(texts)
        time.sleep(0.05)
        return [rk.Rewrite(t + (" More." if side else " Less."), "ok") for t, side in zip(texts, targets, strict=True)]

    slow.fingerprint = "slow"
    lab = AttributeLab(scored, slow, "words", attribute="length", cache=tmp_path)
    lab.rows.value = "160-239"
    press(lab.try_button)
    while not asked:
        time.sleep(0.005)
    press(lab.worker.stop)
    lab.worker.wait(30)
    assert "cancelled" in lab.worker.said.value
    assert lab.versions == []
    n_before = len(asked)
    assert 0 < n_before < 160
    lab.try_it()
    assert len(lab.versions) == 1
    assert len(asked) == 160  # the rest and nothing twice


def test_the_lab_shows_hostile_rows_as_text():
    ds = nasty_rows().select_columns(["prompt_id", "prompt", "response"])
    hostile = {"<i>m</i>": lambda texts: [len(t) for t in texts]}
    lab = AttributeLab(ds, lambda texts, targets: [(t + " <b>x</b>", "ok") for t in texts], "words", measures=hostile)
    lab.name.value, lab.treated.value, lab.untreated.value = "<s>a</s>", "<script>1</script>", "<img src=x>"
    lab.measure.value = "<i>m</i>"
    lab.rows.value = "0-7"
    lab.try_it()
    for place in range(8):
        lab.row_shown.value = place
        assert_only_shows(shown(lab))
    assert_only_shows(lab.static())
    sheet = " ".join(re.findall(r"(?s)<style>(.*?)</style>", lab.static()))
    for mark in ("rk-tag", "rk-pass", "rk-head"):  # without their style the words of a card run into each other
        assert mark in lab.static().replace(sheet, "")
        assert f".{mark}" in sheet


@pytest.mark.parametrize("name", ["hedging", "emoji", "citations", "lists", "exclamation", "numbers-as-words"])
def test_a_lab_of_rules_works_at_once_and_its_code_runs(name, scored):
    """Without a language model, on an attribute that no row was made for: the first press of Try gives a version."""
    lab = AttributeLab(scored, "rules", "words", attribute=name)
    lab.try_it()
    assert len(lab.versions) == 1
    space: dict = {}
    exec(lab.code, space)
    made = [v for v in space.values() if isinstance(v, rk.Attribute)]
    assert [a.name for a in made] == [name]
    rewritten = lab.version.tried["rewrites"][0][0]
    assert list(made[0].measure([rewritten])) == list(lab.attribute.measure([rewritten]))


def shouts(texts):
    return [text.count("!") for text in texts]


SHORT = lambda rows: [None if i % 4 == 3 else len(text) < 300 for i, text in enumerate(rows["response"])]  # noqa: E731


@pytest.mark.parametrize("label", [None, SHORT])
def test_a_lab_begins_with_an_attribute_of_the_users_own(label, scored, monkeypatch):
    monkeypatch.setattr(shouts, "__module__", "__main__")  # as it is in a notebook
    own = rk.Attribute("loudness", "louder", "calmer", label=label, measure=shouts, needs_prompt=True)
    bare = scored.select_columns(["prompt_id", "prompt", "response"]).select(range(40))
    lab = AttributeLab(bare, rk.RuleRewriter("exclamation"), "words", attribute=own)
    lab.rows.value = "0-1"
    assert (lab.base.value, lab.name.value, lab.treated.value) == ("loudness", "loudness", "louder")
    lab.try_it()
    assert lab.attribute == own  # with its label, its measure and all else
    assert "shouts" in Page(lab.compared.value).text
    space: dict = {"__name__": "elsewhere"}
    exec(lab.code, space)
    made = space["loudness"]
    assert (made.name, made.treated, made.untreated, made.needs_prompt) == ("loudness", "louder", "calmer", True)
    assert list(made.measure(["!!", "."])) == [2, 0]
    assert made.labels(bare) == own.labels(bare)


def test_code_of_two_functions_whose_names_clash_leaves_the_second_to_be_written(scored):
    def at_least(k):
        return lambda rows: [len(text) > k for text in rows["response"]], lambda texts: [
            len(text) / k for text in texts
        ]

    own = rk.Attribute("size", "larger", "smaller", label=at_least(300)[0], measure=at_least(2)[1])
    lab = AttributeLab(scored.select_columns(["prompt_id", "response"]), "rules:", "words", attribute=own)
    space: dict = {}
    exec(lab.draft.code(), space)
    assert space["size"].labels(scored) == own.labels(scored)
    with pytest.raises(NotImplementedError, match="write the measure"):
        space["size"].measure(["a"])  # rather than one of another k


def test_row_numbers_are_those_of_the_data_whatever_the_attribute(scored):
    lab = AttributeLab(scored, "rules", "words", attribute="hedging")
    lab.name.value = "length"  # which the data are labelled for, in other rows than those that were picked
    numbers = [int(n) for n in lab.rows.value.split(", ")]
    assert {scored[n]["attribute"] for n in numbers} == {"length"}
    lab.base.value = "length"
    lab.rows.value = str(numbers[0])
    lab.try_it()
    assert lab.version.places == (numbers[0],)
    assert lab.version.tried["response"][:] == [scored[numbers[0]]["response"]]
    lab.name.value = "wordiness"  # a new name: rows of their own again
    assert lab.rows.value != str(numbers[0])


@pytest.mark.parametrize("begin", [None, "a new one"])
def test_a_first_try_does_not_fail(begin, scored):
    bare = scored.select_columns(["prompt_id", "prompt", "response"])
    for ds in (scored, bare):
        lab = AttributeLab(ds, "rules", "words")
        if begin:
            lab.base.value = begin
        lab.try_it()
        assert lab.versions[0].verdict.word
        assert lab.picture.value == ""  # no picture, and so no broken one, before an estimate
        exec(lab.code, {})


def test_rules_are_composed_and_the_code_holds_the_rewriter(scored):
    lab = AttributeLab(scored, "rules:mend=0.5", "words", attribute="hedging")
    lab.name.value = "hedged and cited"
    lab.rules.value = ("hedging", "citations")
    lab.rows.value = "0-3"
    lab.try_it()
    space: dict = {}
    exec(lab.code, space)
    for row in lab.version.tried:
        if not row["treated"]:
            assert row["rewrites"][0].count(" [1]") == row["rewrites"][0].count(", perhaps") > 0
    text = "The plot is thin. It drags."
    (there,) = space["rewriter"]([text], [True])
    assert there.text == "The plot is thin, perhaps [1]. It drags, perhaps [1]."
    assert space["rewriter"]([there.text], [False])[0].text == text


# --- EffectsDashboard ----------------------------------------------------------------------------------------


def test_the_dashboard_follows_its_menus(scored):
    table = rk.estimate(scored)
    board = EffectsDashboard(table)
    board.attribute.value, board.reward_model.value = "length", "vader"
    assert "length" in board.title.value
    assert "vader" in board.title.value
    before = board.picture.value
    assert "data:image/png;base64,iVBOR" in before
    board.unit.value = "reward"
    assert board.picture.value != before
    before = board.picture.value
    board.estimators.value = ("rate", "rate_extrapolated")
    assert board.picture.value != before
    words = [b.description for b in board.heat.children if isinstance(b, ipywidgets.Button)]
    board.estimator.value = "naive"
    assert [b.description for b in board.heat.children if isinstance(b, ipywidgets.Button)] != words
    board.estimators.value = ()
    assert board.picture.value == ""
    assert "holds none" in board.title.value
    with pytest.raises(rk.InputError, match="empty"):
        EffectsDashboard(table.iloc[:0])


def test_a_number_opens_on_the_rows_behind_it(scored):
    board = EffectsDashboard(rk.estimate(scored), scored)
    assert board.rows.children == ()
    buttons = [b for b in board.heat.children if isinstance(b, ipywidgets.Button)]
    press(next(b for b in buttons if b.tooltip.startswith("length, words")))
    assert (board.attribute.value, board.reward_model.value) == ("length", "words")
    explorer = board.explorer
    assert board.rows.children == (explorer,)
    effects = np.abs(explorer.table["effect/words"][explorer.places])
    assert (np.diff(effects) <= 0).all()
    assert {scored[i]["attribute"] for i in explorer.places} == {"length"}
    board.estimand.value = "att"
    assert all(scored[i]["treated"] for i in explorer.places)
    board.attribute.value = "all"
    assert board.rows.children == ()
    explorer.worker.wait(60)


def test_names_from_data_are_text_in_the_dashboard():
    ds = rk.score(rk.load("reviews"), "words", name="<img src=x onerror=alert(1)>", progress=False)
    board = EffectsDashboard(rk.estimate(ds), ds)
    board.show_rows("length", "<img src=x onerror=alert(1)>")
    page = assert_only_shows(shown(board))
    assert "<img src=x onerror=alert(1)>" in page.text
    assert_only_shows(board.static())
    board.explorer.worker.wait(60)


def test_what_is_said_of_the_labels_stands_in_the_lab_and_on_no_stream(capfd):
    ds = rk.load("reviews", attribute="length")
    hedges = rk.measures.mentions("perhaps", "seems")
    lab = AttributeLab(ds, "rules", "vader", measures={"hedges": hedges})
    lab.name.value, lab.treated.value, lab.untreated.value, lab.measure.value = "x", "more x", "less x", "hedges"
    capfd.readouterr()
    lab._pick_rows()
    assert "so the sides are unequal" in lab.labels_said.value
    assert "unequal" not in capfd.readouterr().err
