"""One audit out: what it holds and shows, and that nothing on disk is believed that is cut or stale."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections import Counter
from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset
from deaths import DEATH

import ratekit as rk
from ratekit import attributes, files, measures
from ratekit.audits import folder as on_disk
from ratekit.audits.inputs import data_print
from ratekit.audits.screen import headline
from ratekit.audits.study import Settings
from ratekit.errors import InputError, WorkError
from ratekit.reports import figures
from ratekit.rewriting import Options


@pytest.fixture(scope="module")
def frame():
    texts = rk.load("reviews", attribute="length")["response"][:60]
    return pd.DataFrame({"prompt": [f"Review {i}" for i in range(len(texts))], "response": texts})


def small(frame, rewards="words", attributes="length", **how):
    return rk.audit(frame, rewards, attributes, rewriter="rules", progress=False, **how)


@pytest.fixture
def asked(monkeypatch):
    """How often each measure of ratekit is asked for each text."""
    count = {}

    def counting(measure):
        def look(texts):
            count[measure.__name__].update(texts)
            return measure(texts)

        look.__name__, look.__module__ = measure.__name__, measure.__module__
        return look

    for name, measure in list(measures.MEASURES.items()):
        count[measure.__name__], look = Counter(), counting(measure)
        monkeypatch.setitem(measures.MEASURES, name, look)
        monkeypatch.setitem(attributes._MEASURE_BY_NAME, measure.__name__, look)
        for own, attribute in list(attributes.ATTRIBUTES.items()):
            if attribute.measure is measure:
                monkeypatch.setitem(attributes.ATTRIBUTES, own, dataclasses.replace(attribute, measure=look))
    return count


def test_an_audit_and_its_report_measure_each_text_once_by_each_measure(asked, monkeypatch):
    for name in ("densities", "spillover", "dose_response"):
        monkeypatch.setattr(f"ratekit.plots.{name}", lambda *_, **__: None)
    monkeypatch.setattr(figures, "_drawn", lambda draw, *_: draw())
    found = rk.audit("reviews", "words", ["length", "sentiment"], rewriter="replay", n=20, progress=False)
    assert len(found.verdicts) == 2
    assert len(list(figures.reward_figures(found.checked, found.effects, found.looked))) == 5
    texts = {text for row in found.dataset for text in (row["response"], *row["rewrites"])}
    for name, count in asked.items():
        assert set(count) == texts, name
        assert set(count.values()) == {1}, name
    for count in asked.values():
        count.clear()
    rk.verdicts(found.dataset)  # which estimates too
    assert [set(count.values()) for count in asked.values()] == [{1}] * 4


def test_an_audit_whose_texts_are_not_all_checked_measures_the_others_for_its_effects(asked, monkeypatch):
    monkeypatch.setattr("ratekit.audits.results.CHECKED_ROWS", 10)
    found = rk.audit("reviews", "words", "length", rewriter="replay", n=30, progress=False)
    every = rk.estimate(found.dataset)
    pd.testing.assert_frame_equal(pd.DataFrame(found.effects), pd.DataFrame(every))
    for count in asked.values():
        count.clear()
    again = rk.audit("reviews", "words", "length", rewriter="replay", n=30, progress=False)
    assert again.verdicts[0].word == found.verdicts[0].word
    assert set(asked["words"].values()) == {1}
    assert len(asked["words"]) > len(asked["readability"]) > 0


# --- what it holds and shows -----------------------------------------------------------------------------


def test_an_audit_of_a_frame_is_what_the_stages_give(frame):
    found = small(frame, ["words", "vader"])
    ds = rk.load("reviews", attribute="length")
    ds = ds.select(range(60)).remove_columns([c for c in ds.column_names if c not in ("prompt_id", "response")])
    ds = ds.remove_columns("prompt_id").add_column("prompt_id", [str(i) for i in range(60)])
    ds = ds.add_column("prompt", list(frame["prompt"]))
    ds = rk.rewrite(rk.label(ds, "length"), "length", "rules", progress=False)
    by_hand = rk.estimate(rk.score(rk.score(ds, "words", progress=False), "vader", progress=False))
    numbers = list(by_hand.select_dtypes("number").columns)
    np.testing.assert_allclose(found.effects[numbers], by_hand[numbers])
    assert [(v.attribute, v.reward_model) for v in found.verdicts] == [("length", "words"), ("length", "vader")]


def test_attributes_and_rewards_share_rows_and_each_text_is_scored_once(frame):
    seen = []

    def counted(prompts, responses):
        seen.extend(zip(map(str, prompts), responses, strict=True))
        return [float(len(r)) for r in responses]

    found = small(frame, [counted], ["length", "starts-with-vowel"])
    assert set(found.dataset["attribute"]) == {"length", "starts-with-vowel"}
    assert len(found.dataset) == 120
    assert len(seen) == len(set(seen))
    assert found.effects["attribute"].nunique() == 2


def test_it_fits_on_a_screen_whatever_it_holds(frame):
    long = {f"{'x' * 60}-{i}\x1b[31m<b>": (lambda p, r, i=i: [float(len(x) + i) for x in r]) for i in range(15)}
    for rewards in ("words", long):
        found = small(frame, rewards)
        lines = repr(found).split("\n")
        assert len(lines) <= 25
        assert max(map(len, lines)) <= 100
        assert "\x1b" not in repr(found)
        page = found._repr_html_()
        assert "<b>" not in page
        assert page.count("<svg") == len(found.verdicts)


def test_the_screen_says_each_reason_whole_and_once(frame):
    found = small(frame, ["words", "vader"], ["length", "starts-with-vowel"])
    shown = " ".join(repr(found).split())
    head = headline(found)
    assert len(head) > 100  # two lines
    assert head in shown
    for verdict in found.verdicts:
        assert shown.count(" ".join(verdict.gravest.split())) == 1
    of_vader = found.effects.reward_model == "vader"
    by_depth = rk.Audit(found.dataset, found.effects.assign(recommended=found.effects.estimator == "naive")[of_vader])
    assert "estimate by naive; " in repr(by_depth)


@pytest.mark.parametrize("two_phase", [30, 60])
def test_in_two_phases_of_few_rows_all_are_rewritten(frame, two_phase):
    few = frame[:30]
    found = small(few, two_phase=two_phase)
    assert found.effects["n_dropped"].tolist() == small(few).effects["n_dropped"].tolist()
    with pytest.raises(InputError, match="two_phase=29: a whole number from 40 on was expected; fewer rewritten rows"):
        small(few, two_phase=29)


def test_in_two_phases_a_part_is_rewritten_and_the_originals_of_all_are_used(tmp_path):
    texts = rk.load("reviews", attribute="length")["response"]
    frame = pd.DataFrame({"prompt": [f"Review {i}" for i in range(len(texts))], "response": texts})

    def longer(responses, towards, prompts=None):
        return [
            f"{text} And so on, as it were." if up else text.split(". ")[0]
            for text, up in zip(responses, towards, strict=True)
        ]

    def pays(prompts, responses):
        return [len(text.split()) ** 0.5 for text in responses]

    every, some = (
        rk.audit(frame, {"root": pays}, "length", rewriter=longer, two_phase=k, progress=False, out=tmp_path / str(k))
        for k in (None, 80)
    )
    rewritten = [bool(chain) for chain in some.dataset["rewrites"]]
    assert (len(some.dataset), sum(rewritten)) == (len(every.dataset), 80)
    assert some.dataset["response"][:] == every.dataset["response"][:]
    assert len(some.checked) == 80
    rate = some.effects.query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    alone = rk.estimate(some.dataset).query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    whole = every.effects.query("estimator == 'rate' and estimand == 'ate'").iloc[0]
    assert (rate["n"], rate["n_dropped"], alone["n"]) == (len(frame), len(frame) - 80, 80)
    assert whole["se"] < rate["se"] < alone["se"]
    assert abs(rate["estimate"] - whole["estimate"]) < 3 * rate["se"]
    assert f"whose differences are predicted, under root: at most {len(frame) - 80}" in repr(some)
    again = rk.Audit.load(tmp_path / "80")
    pd.testing.assert_frame_equal(again.effects, some.effects)
    (tmp_path / "80" / "effects.csv").unlink()
    pd.testing.assert_frame_equal(rk.Audit.load(tmp_path / "80").effects, some.effects)
    assert [v.word for v in again.verdicts] == [v.word for v in some.verdicts]
    with pytest.raises(
        rk.InputError, match="two_phase=30: a whole number from 40 on was expected; fewer rewritten rows"
    ):
        rk.audit(frame, "words", "length", rewriter=longer, two_phase=30, progress=False)


def test_the_report_and_the_plot_show_the_same_audit(frame, tmp_path):
    found = small(frame)
    page = found.report(tmp_path / "page.html").read_text()
    assert "What does words really reward?" in page
    assert found.plot().get_title() is not None


# --- on disk ---------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(frame, tmp_path):
    found = small(frame, {"=words": "words"})
    again = rk.Audit.load(found.save(tmp_path / "a"))
    pd.testing.assert_frame_equal(again.effects, found.effects)
    assert again.dataset.to_dict() == found.dataset.to_dict()
    assert again.provenance["settings"] == found.provenance["settings"]
    assert "'=words" in (tmp_path / "a" / "effects.csv").read_text()  # no formula for a spreadsheet


@pytest.mark.parametrize("fault", ["cut", "stale", "gone"])
def test_a_table_that_is_not_of_the_rows_is_estimated_again(frame, tmp_path, fault):
    found = small(frame, ["words", "vader"], out=tmp_path / "a")
    path = tmp_path / "a" / "effects.csv"
    lines = path.read_text().splitlines(keepends=True)
    if fault == "gone":
        path.unlink()
    else:
        path.write_text("".join(lines[: len(lines) // 2] if fault == "cut" else [lines[0], *lines[-3:]]))
    pd.testing.assert_frame_equal(rk.Audit.load(tmp_path / "a").effects, found.effects)


def test_death_after_any_file_operation_leaves_the_old_folder_or_the_new_one(tmp_path):
    def write(text):
        def into(new):
            new.mkdir()
            for name in "ab":
                (new / name).write_text(text)

        return into

    def state(place):
        files.recover(place / "x")
        return {p.name: p.read_text() for p in (place / "x").iterdir()} if (place / "x").exists() else None

    def begun(name, old):
        (tmp_path / name).mkdir()
        if old:
            files.replace_folder(tmp_path / name / "x", write("old"))
        return tmp_path / name

    place = begun("count", True)
    DEATH.run(place, lambda: files.replace_folder(place / "x", write("new")))
    n = DEATH.passed
    assert n >= 8
    old, new = {"a": "old", "b": "old"}, {"a": "new", "b": "new"}
    ends = []
    for left in range(n):
        place = begun(f"x{left}", True)
        assert DEATH.run(place, lambda place=place: files.replace_folder(place / "x", write("new")), left) is None
        DEATH.run(place, lambda place=place: files.recover(place / "x"), 1)  # and once more while it is mended
        ends.append(state(place))
        assert ends[-1] in (old, new)
        files.replace_folder(place / "x", write("new"))
        assert [p.name for p in place.iterdir()] == ["x"]
        assert state(place) == new
    assert old in ends
    assert new in ends


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    files.replace_file(tmp_path / "a", lambda new: new.write_text("old"))

    def full(new):
        new.write_text("half")
        raise OSError(28, "No space left on device")

    for replace in (files.replace_file, files.replace_folder):
        with pytest.raises(WorkError, match="a cannot be written: No space left"):
            replace(tmp_path / "a", full)
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_text() == "old"


def test_names_from_data_are_names_of_one_file():
    names = [
        "..",
        "../../etc/passwd",
        "a/b",
        "a--b",
        "a:b",
        "a\\b",
        "",
        ".",
        "x" * 300,
        "x" * 301,
        "\x00",
        "con\n",
        "é",
    ]
    made = [files.file_name(name) for name in names]
    assert len(set(made)) == len(made)
    for name in made:
        assert name not in ("", ".", "..")
        assert len(name) <= 80
        assert not set(name) & set('/\\:*?"<>|\x00\n')
        assert not name.startswith(".")


def test_a_file_where_a_folder_is_meant_is_refused(frame, tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="is a file"):
        small(frame, out=tmp_path / "a")


# --- nothing older than its inputs -----------------------------------------------------------------------


def test_what_came_of_a_changed_input_is_made_again_and_said(frame, tmp_path, caplog):
    path, own = tmp_path / "a.jsonl", tmp_path / "own.py"
    own.write_text("def shift(prompts, responses):\n    return [len(r) + SHIFT for r in responses]\nSHIFT = 0\n")
    frame.to_json(path, orient="records", lines=True)

    def again(data=path):
        from ratekit.userfiles import load_object

        caplog.clear()
        found = rk.audit(
            data, [load_object(f"{own}:shift")], "length", rewriter="rules", out=tmp_path / "out", progress=False
        )
        return found, [r.getMessage() for r in caplog.records if "changed" in r.getMessage()]

    first, said = again()
    assert said == []
    assert again()[1] == []
    frame.iloc[:30].to_json(path, orient="records", lines=True)
    second, said = again()
    assert said == ["changed since this run was made: data; its rows are made again"]
    assert (len(first.dataset), len(second.dataset)) == (60, 30)
    own.write_text(own.read_text().replace("SHIFT = 0", "SHIFT = 70"))
    third, said = again()
    assert said == ["shift has changed since this run was made; it is scored again"]
    shifted = np.array([r[0] for r in third.dataset["reward/shift"]])
    np.testing.assert_allclose(shifted, [r[0] + 70 for r in second.dataset["reward/shift"]])


OTHERWISE = {
    "attributes": ("sentiment",), "data_files": "a.csv", "split": "test", "columns": {"response": "text"},
    "duplicates": "keep", "label_column": "kind", "positive": ("yes",), "rewriter": "replay", "depth": 3, "n": 5,
    "seed": 1, "options": Options(temperature=0.2), "experiment": "imdb-length", "labeller": "median", "turn": 0,
    "two_phase": 60, "data": "other.csv",
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_a_folder_of_other_settings_is_refused_whichever_of_the_two_gave_more(name, tmp_path):
    plain, other = Settings("mine.csv"), Settings(**{"data": "mine.csv", name: OTHERWISE[name]})
    for i, (first, second) in enumerate([(plain, other), (other, plain)]):
        folder = tmp_path / str(i)
        folder.mkdir()
        on_disk.write_record(folder, {"settings": first.record(), "versions": {}})
        assert on_disk.opened(folder, first.record())[0]["settings"] == json.loads(json.dumps(first.record()))
        with pytest.raises(InputError, match=r"holds another run \(.* there, .* here\); choose another --out"):
            on_disk.opened(folder, second.record())


HELD = {
    "records": list,
    "lists": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "frame": pd.DataFrame,
    "frame with an index": lambda rows: pd.DataFrame(rows).assign(other=1).set_index("response"),
    "Arrow table": pa.Table.from_pylist,
    "Arrow batch": pa.RecordBatch.from_pylist,
    "Dataset": Dataset.from_list,
    "Dataset of arrays": lambda rows: Dataset.from_list(rows).with_format("numpy"),
}


@pytest.mark.parametrize("form", HELD)
def test_one_changed_row_of_many_is_other_data_in_every_form(form):
    rows = [{"prompt": f"q{i}", "response": f"text {i}"} for i in range(2500)]
    other = [*rows[:1200], {"prompt": "q1200", "response": "another text"}, *rows[1201:]]
    first, second = HELD[form](rows), HELD[form](other)
    assert data_print(first) == data_print(HELD[form](rows)) != data_print(second)


# What a file holds after `r`'s own line, where "1" is changed to "2"; the last name of each is what is printed.
CALLABLES = {
    "a constant": "def r(p, t): return [1 * len(x) for x in t]",
    "a default": "def r(p, t, k=1): return k",
    "a default of a keyword": "def r(p, t, *, k=1): return k",
    "a name": "def r(p, t): return max1(t)\nmax1, max2 = max, min",
    "a global list": "K = [1]\ndef r(p, t): return K",
    "a global dict": "K = {'a': 1}\ndef r(p, t): return K",
    "a global set": "K = {'1', 'a', 'b'}\ndef r(p, t): return K",
    "a global array": "import numpy as np\nK = np.array([1.0])\ndef r(p, t): return K",
    "a global pattern": "import re\nK = re.compile('a' * 300 + '1')\ndef r(p, t): return K",
    "a global frame": "import pandas as pd\nK = pd.DataFrame({'a': ['1']})\ndef r(p, t): return K",
    "a frame's index": "import pandas as pd\nK = pd.Series([0], index=['1'])\ndef r(p, t): return K",
    "a global table": "import pyarrow as pa\nK = pa.table({'a': [0] * 99 + [1] + [0] * 99})\ndef r(p, t): return K",
    "a global Dataset": "from datasets import Dataset\nK = Dataset.from_dict({'a': [1]})\ndef r(p, t): return K",
    "a number that is an object": "from fractions import Fraction\nK = Fraction(1, 3)\ndef r(p, t): return K",
    "a helper": "def h(): return 1\ndef r(p, t): return h()",
    "a helper behind a cache": "import functools\n@functools.lru_cache\ndef h(): return 1\ndef r(p, t): return h()",
    "a helper's module": "import helper\ndef r(p, t): return helper.h()",
    "a name of a helper's module": "from helper import h\ndef r(p, t): return h()",
    "a class": "class H:\n  def h(self): return 1\ndef r(p, t): return H().h()",
    "a class's constant": "class H:\n  k = 1\ndef r(p, t): return H.k",
    "a class with annotations": "class H:\n  k: int = 1\ndef r(p: list, t) -> int: return H.k",
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass H:\n  k: int = 1\ndef r(p, t): return H().k",
    "an instance": "class H:\n  def __init__(self, k): self.k = k\nO = H(1)\ndef r(p, t): return O.k",
    "what a callable holds": "class R:\n  def __init__(s): s._k = 1\n  def __call__(s, p, t): return s._k\nr = R()",
    "a callable's lexicon": "class R:\n  def __init__(s, k): s._k = k\n  def __call__(s): return s._k\nr = R({'a': 1})",
    "a helper's module within": "def r(p, t):\n  import helper\n  return helper.h()",
    "a name of a helper's module within": "def r(p, t):\n  from helper import h\n  return h()",
    "an answer to any name": "class R:\n  def __getattr__(s, n): return 1\n  def __call__(s): return s.k\nr = R()",
    "a callable's slot": "class R:\n  __slots__ = 'k'\n  def __init__(s): s.k = 1\n  def __call__(s, p): 0\nr = R()",
    "a callable's method": "class R:\n  def h(s): return 1\n  def __call__(s, p, t): return s.h()\nr = R()",
    "a callable's property": "class R:\n  @property\n  def h(s): return 1\n  def __call__(s, p): 0\nr = R()",
    "a callable's base": "class B:\n  def __call__(s, p, t): return 1\nclass R(B): pass\nr = R()",
    "a bound method": "class R:\n  def __init__(s): s.k = 1\n  def m(s, p, t): return s.k\nr = R().m",
    "a partial": "import functools\ndef g(p, t, k): return k\nr = functools.partial(g, k=1)",
    "a closure": "def made(k):\n  def r(p, t): return k\n  return r\nr = made([1])",
    "a decorated function": "def d(f):\n  def w(p, t): return f(p, t)\n  return w\n@d\ndef r(p, t): return 1",
    "what a callable was fitted to": "class R:\n  def fit(s, k): s.k = k\n  def __call__(s): return s.k\n"
    "r = R()\nr.fit(1)",
    "what a helper was fitted to": "class H:\n  def fit(s, k): s.k = k\n  def h(s): return s.k\nO = H()\nO.fit(1)\n"
    "def r(p, t): return O.h()",
    "what a method's owner was fitted to": "class H:\n  def fit(s, k): s.k = {'a': k}\n  def h(s, p, t): return s.k\n"
    "O = H()\nO.fit(1)\nr = O.h",
    "a name in a text": "def h(): return 1\ndef r(p, t): return globals()['h']()",
    "a name of a helper's module in a text": "import helper\ndef r(p, t): return getattr(helper, 'h')()",
    "a function's attribute": "def r(p, t): return r.k\nr.k = 1",
    "one of the functions by type": "import functools\n@functools.singledispatch\ndef h(x): return 0\n@h.register\n"
    "def _(x: str): return 1\ndef r(p, t): return h(t)",
    "a class's class": "class M(type):\n  def h(c): return 1\nclass C(metaclass=M): pass\ndef r(p, t): return C.h()",
    "weights": "import torch\nm = torch.nn.Linear(3, 3, False)\nm.weight.data.fill_(1)\ndef r(p): return m",
    "weights that it is": "import torch\nclass R(torch.nn.Linear): pass\nr = R(3, 3, False)\nr.weight.data.fill_(1)",
}  # fmt: skip


@pytest.mark.parametrize("case", CALLABLES)
def test_whatever_a_callable_hangs_on_is_in_its_fingerprint(case, tmp_path, monkeypatch):
    from ratekit.fingerprints import code_print
    from ratekit.userfiles import load_object

    def printed(source, place, helper="1"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.py").write_text(source)
        (tmp_path / place / "helper.py").write_text(f"def h(): return {helper}")
        monkeypatch.delitem(sys.modules, "helper", raising=False)
        monkeypatch.syspath_prepend(tmp_path / place)
        return code_print(load_object(f"{tmp_path / place / 'mine.py'}:r"))

    source = CALLABLES[case]
    first = printed(source, "a")
    assert printed(f"# a remark\n{source}", "b") == first  # in another place, and by another object
    helped = "helper's module" in case
    assert printed(source if helped else source.replace("1", "2"), "c", "2") != first


def test_what_a_callable_changes_itself_is_not_in_its_fingerprint():
    from ratekit.fingerprints import code_print

    seen, count = [], {}

    def noting(prompts, responses):
        seen.append(responses)
        count["n"] = len(responses)
        return [float(len(r)) for r in responses]

    class Counting:
        calls = 0

        def __init__(self):
            self._kept, self._times = {}, {1: 0}

        def __call__(self, prompts, responses):
            self.calls += 1
            self._kept[responses[0].strip()] = 1
            self._times[len(responses)] += 1
            return noting(prompts, responses)

    class Noting:
        def __init__(self):
            self.calls = 0

        def note(self):
            self.calls += 1

        def score(self, prompts, responses):
            self.note()
            return [float(len(r)) for r in responses]

    helper = Noting()

    def helped(prompts, responses):
        helped.calls += 1
        return helper.score(prompts, responses)

    helped.calls = 0
    for reward in (noting, Counting(), Noting().score, helped):
        before = code_print(reward)
        reward([""], ["a"])
        assert code_print(reward) == before


def test_what_an_attribute_is_known_by_does_not_hang_on_what_was_done_since():
    from ratekit.attributes import ATTRIBUTES
    from ratekit.audits.inputs import attribute_print

    before = {name: attribute_print(a) for name, a in ATTRIBUTES.items()}
    logging.getLogger("one.that.was.not.there").addHandler(logging.NullHandler())
    rk.label(rk.load("reviews", attribute="length"), "complexity")
    assert {name: attribute_print(a) for name, a in ATTRIBUTES.items()} == before


def test_a_file_that_changed_within_its_second_is_run_again(tmp_path):
    from ratekit.userfiles import load_object

    own = tmp_path / "own.py"
    for value in (1, 2):
        own.write_text(f"def r(p, t): return {value}")
        os.utime(own, ns=(0, 0))
        assert load_object(f"{own}:r")([], []) == value


def test_an_adapter_is_another_one_on_another_base(tmp_path):
    from ratekit.audits.inputs import reward_print
    from ratekit.scoring import read_reward

    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    told = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 1, "lora_alpha": 1}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(told))
    prints = set()
    for weights in ("a", "b"):
        (tmp_path / "base" / "model.safetensors").write_text(weights)
        prints.add(reward_print(read_reward(tmp_path / "adapter")))
    assert len(prints) == 2


def test_a_dataset_that_somebody_changed_is_not_believed(frame, tmp_path, caplog):
    first = small(frame, out=tmp_path / "a")
    shard = next((tmp_path / "a" / "dataset").glob("data-*.arrow"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    again = small(frame, out=tmp_path / "a")
    assert "is not as it was left" in caplog.text
    pd.testing.assert_frame_equal(again.effects, first.effects)


# --- the commands ----------------------------------------------------------------------------------------


def commands():
    import typer

    from ratekit.cli.app import app

    found = typer.main.get_command(app)
    return {name: command for name, command in found.commands.items() if not hasattr(command, "commands")}


def test_an_option_of_the_llm_is_an_option_of_every_command_that_asks_one():
    from dataclasses import fields

    from ratekit.rewriting import Options

    for name in ("audit", "run", "rewrite", "reproduce"):
        flags = {flag for p in commands()[name].params for flag in p.opts}
        for f in fields(Options):
            assert ("--llm-seed" if f.name == "seed" else f"--{f.name.replace('_', '-')}") in flags
