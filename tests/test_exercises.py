"""Exercises: right answers in every form are taken, wrong ones of every kind are answered in words."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import ratekit as rk
from ratekit.exercises import ABOUT, EXERCISES, assignment, check, question, scores


def line(a, b, t):
    return {name: (1 - t) * a[name] + t * b[name] for name in a}


def sign(w):
    return np.where(w, 1, -1)


# exercise: (right answers, wrong answers of the right kind)
TABLE = {
    "01.1": (["sentiment", "Sentiment", " SENTIMENT "], ["length"]),
    "01.2": ([87.27, 87.3, 87, np.float64(87.275), np.array(87.3), Decimal("87.3")], [66.0, 47.7, 84.3, 0.87]),
    "02.1": ([1, 1.0, 0.5 - -0.5, Fraction(1, 1)], [0.5, 0, 2]),
    "02.2": (
        [lambda r, w: r[w].mean() - r[~w].mean()],
        [
            lambda r, w: r[~w].mean() - r[w].mean(),
            lambda r, w: np.median(r[w]) - np.median(r[~w]),
            lambda r, w: 1.0,
        ],
    ),
    "02.3": (
        [lambda r, w, p: sum(of.mean() * (r[w & of].mean() - r[~w & of].mean()) for of in (p, ~p))],
        [
            lambda r, w, p: r[w].mean() - r[~w].mean(),
            lambda r, w, p: np.mean([r[w & of].mean() - r[~w & of].mean() for of in (p, ~p)]),
        ],
    ),
    "03.1": (
        [lambda r, w: (sign(w) * (r[:, 0] - r[:, 1])).mean()],
        [lambda r, w: (r[:, 0] - r[:, 1]).mean(), lambda r, w: 0.56],
    ),
    "03.2": ([lambda r, w: (sign(w) * (r[:, 2] - r[:, 1])).mean()], [lambda r, w: (r[:, 2] - r[:, 1]).mean()]),
    "03.3": (["ate", "ATE"], ["att", "atu"]),
    "03.4": ([0.1, 0.097], [0.2, 0.3, 0]),
    "04.1": ([0.5, 0.48], [0, 1, 0.25]),
    "04.2": ([0, 0.0, -0.0], [0.5, 1]),
    "04.3": ([lambda m: (m[1] - m[3]) / (m[0] - m[2])], [lambda m: m[3] / m[1], lambda m: m[2] - m[0], lambda m: 0.5]),
    "05.1": (["readability"], ["faults", "sentiment"]),
    "05.2": ([0, np.int64(0)], [1, 160, 0.5]),
    "05.3": ([3], [2, 6]),
    "06.1": ([-0.2], [0, -0.1, -0.58]),
    "06.2": (
        [("more hedged, with every mistake kept", "more certain, with every mistake kept")],
        [("more hedged", "more certain"), ("more certain, keeping mistakes", "more hedged, keeping mistakes")],
    ),
    "06.3": (["single_rewrite", "single rewrite", "Single-Rewrite"], ["rate"]),
    "07.1": ([1.79, 1.788], [0.2, 1.5, 8.1]),
    "07.2": ([2.15e-35, 2.1514e-35, 1.5e-35, 3e-35], [0.019, 1.7e-23, 1.0, 7e-36, 7e-35]),
    "07.3": ([5456], [5616, 5455, 3252]),
    "08.1": ([-0.013, -0.01298, -0.01], [0.337, -0.0003, 0]),
    "08.2": ([-7.1, -7.06], [-2.0, -3.55, -14]),
    "08.3": ([0], [1, 2, 3]),
    "08.4": ([0.03, 0.02996], [0.17, 5.8, 0.97, 33]),
    "09.1": ([0.3, 0.9 / 3], [0.9, 0.45, 0]),
    "09.2": (
        [line, lambda a, b, t: {name: torch.lerp(a[name], b[name], t) for name in a}],
        [lambda a, b, t: line(b, a, t), lambda a, b, t: a],
    ),
    "09.3": (["neuron alignment", "Neuron Alignment", "neuron-alignment"], ["weight aggregation"]),
    "09.4": ([-1, -1.04, -0.996], [-0.863, 0, -2]),
    "10.1": ([30.8, 30.79], [0.05, 0.99]),
}  # fmt: skip


def said(capsys, exercise, answer):
    grade = check(exercise, answer)
    words = capsys.readouterr().out
    assert words == f"{exercise}: {grade.words}\n"
    assert grade.right == bool(grade) == words.endswith(": Right.\n")
    return words


def test_the_table_has_every_exercise():
    assert list(TABLE) == list(EXERCISES)


@pytest.mark.parametrize("exercise", TABLE)
def test_right_answers_are_right_and_wrong_ones_get_a_hint(exercise, capsys):
    right, wrong = TABLE[exercise]
    for answer in right:
        assert said(capsys, exercise, answer) == f"{exercise}: Right.\n", answer
    for answer in wrong:
        assert said(capsys, exercise, answer) == f"{exercise}: Not yet. {EXERCISES[exercise].hint}\n", answer


SLIPS = {
    "01.2": -87.3, "02.1": -1, "03.4": -0.1, "06.1": 0.2, "07.1": -1.79, "08.1": 0.013, "08.2": 7.1, "08.4": -0.03,
    "09.4": 1, "10.1": -30.8,
}  # fmt: skip
PER_CENT = {"03.4": 10, "04.1": 50, "07.1": 179, "08.4": 3.0, "09.1": 30}


@pytest.mark.parametrize("exercise", SLIPS)
def test_a_number_of_the_other_sign_is_told_so(exercise, capsys):
    assert said(capsys, exercise, SLIPS[exercise]) == f"{exercise}: Not yet. Mind the sign.\n"


@pytest.mark.parametrize("exercise", PER_CENT)
def test_a_number_in_per_cent_is_told_so(exercise, capsys):
    words = "This is in per cent; a plain number was expected."
    assert said(capsys, exercise, PER_CENT[exercise]) == f"{exercise}: Not yet. {words}\n"


def test_a_table_of_one_entry_is_told_how_to_take_it_out(capsys):
    assert said(capsys, "01.2", pd.Series([87.275])) == (
        "01.2: Not yet. A number was expected; this is a Series of shape (1,). Take its one entry, with .item().\n"
    )
    assert ".item()" not in said(capsys, "01.2", pd.Series([87.275, 1.0]))


class Odd:
    def __len__(self):
        raise RuntimeError("no length")

    def __float__(self):
        raise RuntimeError("no number")

    def __repr__(self):
        raise RuntimeError("no words")


class Blank(list):
    def __len__(self):
        raise RuntimeError("no length")


class Shaped:
    shape, ndim = 5, 0


KINDS = [
    None, True, np.bool_(False), "", "87.27", "<b>x</b>" * 100, b"x", float("nan"), float("inf"), 10**400, 1j, [],
    [1, 2, 3], (1,), {}, {"a": 1}, np.arange(3.0), np.zeros((2, 2)), pd.Series([1.0]), pd.DataFrame({"a": [1]}), len,
    lambda: 1, int, object(), Odd(), Blank(), Shaped(), Decimal("NaN"), Decimal("sNaN"), pd.NA, pd.NaT, range(3),
    np.array("x"), np.datetime64("2020"), np.array(None), np.ma.masked, (x for x in []), Exception("a\nb"), "\ud800",
    exit,
]  # fmt: skip


@pytest.mark.parametrize("exercise", TABLE)
def test_an_answer_of_any_kind_has_an_answer_in_one_line_of_words(exercise, capsys):
    for answer in KINDS:
        words = said(capsys, exercise, answer)
        assert words.startswith(f"{exercise}: Not yet. ")
        assert len(words) < 300
        assert words.count("\n") == 1
    assert said(capsys, exercise, ...) == f"{exercise}: Replace the ... by your answer and run the cell again.\n"


def test_the_kind_that_was_expected_is_said(capsys):
    assert "one of" not in said(capsys, "01.2", [1, 2, 3])
    assert "this is a list of 3" in said(capsys, "01.2", [1, 2, 3])
    assert "this is the text '87.27'" in said(capsys, "01.2", "87.27")
    assert "this is a Series of shape (1,)" in said(capsys, "01.2", pd.Series([87.275]))
    assert "this is a function" in said(capsys, "01.2", len)
    assert "above 0 and is at most 1; this is -0.01" in said(capsys, "07.2", -0.01)
    assert "this is 0" in said(capsys, "07.2", 0.0)
    assert 'One of "ate", "att", "atu" was expected' in said(capsys, "03.3", "effect")
    assert "it raises TypeError" in said(capsys, "02.2", lambda r: 0)
    assert "A function f(rewards, treated) was expected; this is 1.0" in said(capsys, "02.2", 1.0)
    assert "this is an ndarray of shape (3,)" in said(capsys, "01.2", np.arange(3.0))
    assert "this is an object" in said(capsys, "01.2", object())
    assert "Leave out the quotation marks" in said(capsys, "01.2", " 87.27 ")
    assert "is at most 1; this is 1.0000001" in said(capsys, "07.2", 1.0000001)
    assert "'w' is an ndarray of shape (3,)" in said(capsys, "09.2", lambda a, b, t: {"w": np.arange(3)})
    assert "'w' is the text 'abc'" in said(capsys, "09.2", lambda a, b, t: {"w": "abc"})
    for name in (None, ["07.2"], {}):
        with pytest.raises(rk.InputError, match="unknown exercise"):
            check(name, 1)
    with pytest.raises(rk.InputError, match=r"unknown exercise '7\.2'; did you mean '07\.2'"):
        check("7.2", 1)


def test_the_answers_are_what_the_bundled_data_and_the_published_tables_give():
    """Each computed here as its notebook has it computed."""
    ds = rk.load("reviews")
    for reward in ("vader", "words"):
        ds = rk.score(ds, reward, progress=False)
    both = np.array(ds["reward/vader"]) + 0.01 * np.array(ds["reward/words"])
    ds = ds.add_column("reward/vader+0.01*words", both.tolist())
    table = rk.estimate(ds).query("estimand == 'ate'").set_index(["attribute", "reward_model", "estimator"])
    off = {
        a: abs(table.estimate_sd[a, "vader", "naive"] - table.estimate_sd[a, "vader", "rate"])
        for a in ("length", "sentiment")
    }
    contrast = rk.contrast(ds, "vader+0.01*words", "vader").query("attribute == 'length' and estimand == 'ate'")
    plan = rk.plan(ds, se=0.02).query("attribute == 'sentiment' and reward_model == 'vader'")
    length = [row for row in ds if row["attribute"] == "length"]
    pooled = rk.published("pooled").query("attribute == 'length' and estimator == 'rate' and estimand == 'ate'")
    armo = pooled[pooled.reward_model.str.contains("ArmoRM")].iloc[0]
    by_source = rk.published("by-source").query("estimator == 'rate' and estimand == 'ate'")
    own = by_source[(by_source.attribute == "length") & by_source.reward_model.str.contains("ArmoRM")].se
    signs = by_source.query("attribute == 'sentiment'").pivot(index="reward_model", columns="source", values="estimate")
    first, final = (
        rk.published(name)
        .query("experiment == 'sweep-imdb' and estimator == 'rate' and estimand == 'ate' and step == 0")
        .se.item()
        for name in ("sweeps-v1", "sweeps")
    )
    found = {
        "01.1": max(off, key=off.get),
        "01.2": table.estimate["length", "words", "rate"],
        "05.2": sum(row["response"] == row["rewrites"][1] for row in length),
        "05.3": sum(any("battery" in text.lower() for text in (r["response"], *r["rewrites"])) for r in ds),
        "07.1": table.estimate_sd["length", "vader+0.01*words", "rate_extrapolated"],
        "07.2": contrast.p_value.item(),
        "07.3": plan.n_more.item(),
        "08.1": armo.estimate / armo.reward_sd,
        "08.2": armo.estimate / (np.sqrt((own**2).sum()) / 2),
        "08.3": (np.sign(signs["imdb"]) != np.sign(signs["hh-rlhf"])).sum(),
        "08.4": (first / final) ** 2,
    }
    for exercise, answer in found.items():
        assert EXERCISES[exercise].grade(answer), (exercise, answer)


def test_every_exercise_of_the_notebooks_is_checked_and_its_answer_stands_in_none():
    asked = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for text in cell.source.splitlines():
                if text.startswith("check("):
                    asked.append(text.split('"')[1])
                    name = text.split(", ")[1].rstrip(")")
                    assert f"{name} = ..." in cell.source, text
            assert "def check" not in cell.source
    assert asked == list(EXERCISES)


def test_under_voila_there_is_a_field_to_answer_in(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert not check("09.1", ...)
    (box,) = shown
    line, button, said = box.children
    for typed, words in {
        "0.3": "09.1: Right.", "3/10": "09.1: Right.", "0.9": "09.1: Not yet. ", "": "A number was expected",
        "1/0": "A number was expected", "<b>$x$</b>": "&lt;b&gt;<span>$</span>x", "1e999": "not a finite one",
    }.items():  # fmt: skip
        line.value = typed
        button.click()
        assert words in said.value, typed
        assert "<b>" not in said.value
    assert capsys.readouterr().out == ""
    assert check("09.1", 0.3)


# --- questions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", ABOUT)
def test_a_question_has_other_numbers_for_each_student_and_one_way_to_solve_it(about):
    answers = []
    for seed in range(6):
        asked = question(seed, about)
        side = asked.rows[asked.rows.treated == ("untreated" not in asked.text)]
        r, w = asked.rows, asked.rows.treated
        means = side[["r0", "r1", "r2", "r3"]].mean()
        right = {
            "naive": lambda r=r, w=w, asked=asked: (
                r.r0[w].mean() - r.r0[~w].mean() - float(asked.text.split(" is ")[1].split(". ")[0])
            ),
            "rate": lambda m=means, s=side: (m.r2 - m.r1) * (1 if s.treated.all() else -1),
            "convergence": lambda m=means: (m.r1 - m.r3) / (m.r0 - m.r2),
        }[about]()
        assert asked.check(right), (seed, asked.text)
        assert asked.check(round(right, 3)), seed
        assert not asked.check(right + 0.02)
        assert question(seed, about).rows.equals(asked.rows)
        answers.append(round(right, 2))
    assert len(set(answers)) > 3
    assert not question(1, about).check(None)


def test_a_wrong_call_for_a_question_is_refused():
    for seed in (-1, 1.5, "7", None, True):
        with pytest.raises(rk.InputError, match="seed="):
            question(seed)
    with pytest.raises(rk.InputError, match="unknown question 'rat'; did you mean 'rate'"):
        question(1, "rat")


def graded(notebook):
    """Which of the graded cells pass when the cells run in one namespace, as a grader runs them."""
    scope, passed = {}, {}
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader")
        if cell.cell_type == "code" and not (marks and marks["grade"]):
            exec(cell.source, scope)
        elif marks:
            try:
                exec(cell.source, scope)
                passed[marks["grade_id"]] = True
            except AssertionError:
                passed[marks["grade_id"]] = False
    return passed


def test_an_assignment_grades_a_right_and_a_wrong_submission(tmp_path):
    notebook = nbformat.read(assignment(tmp_path / "ann.ipynb", seed=7), 4)
    nbformat.validate(notebook)
    assert graded(notebook) == {f"{about}-test": False for about in ABOUT}
    for about in ABOUT:  # nbgrader releases the cell to answer in without its line
        assert sum(f"Put it into `{about}`" in cell.source for cell in notebook.cells) == 1
    answers = {
        "naive": "naive = rows[rows.treated].r0.mean() - rows[~rows.treated].r0.mean() - EFFECT",
        "rate": "side = rows[rows.treated == TREATED]; rate = (side.r2 - side.r1).mean() * (1 if TREATED else -1)",
        "convergence": "m = rows[rows.treated == SIDE].mean(); convergence = (m.r1 - m.r3) / (m.r0 - m.r2)",
    }
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = answers[cell.source.split(" ")[0]]
    effect = question(7, "naive").text.split(" is ")[1].split(". ")[0]
    sides = {about: "untreated" not in question(7, about).text for about in ("rate", "convergence")}
    for cell in notebook.cells:
        cell.source = (
            cell.source.replace("EFFECT", effect)
            .replace("TREATED", str(sides["rate"]))
            .replace("SIDE", str(sides["convergence"]))
        )
    assert graded(notebook) == {f"{about}-test": True for about in ABOUT}


# --- a class -----------------------------------------------------------------------------------------------------


def handed_in(path, *printed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("stream", name="stdout", text=text)])
        for text in printed
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_a_class_has_a_table_of_who_solved_what(tmp_path):
    handed_in(tmp_path / "ann" / "01.ipynb", "01.1: Right.\n", "01.2: Not yet. Think.\n", "01.2: Right.\n")
    handed_in(tmp_path / "ann" / "02.ipynb", "02.1: Replace the ... by your answer and run the cell again.\n")
    handed_in(
        tmp_path / "ben.ipynb", "01.1: Not yet. Hint.\n01.2: Right.\n", "rate: Right.\n99.9: Right.\nfoo: Right.\n"
    )
    handed_in(tmp_path / "ann" / ".ipynb_checkpoints" / "01.ipynb", "02.1: Right.\n")
    table = scores(tmp_path)
    assert table.index.tolist() == ["ann", "ben"]
    assert table.columns.tolist() == ["01.1", "01.2", "02.1", "rate", "right"]
    assert table.loc["ann"].fillna(-1).tolist() == [1, 1, 0, -1, 2]
    assert table.loc["ben"].fillna(-1).tolist() == [0, 1, -1, 1, 2]
    with pytest.raises(rk.InputError, match="no notebooks in"):
        scores(tmp_path / "nowhere")
    (tmp_path / "cid.ipynb").write_text(json.dumps([1]))
    with pytest.raises(rk.InputError, match=r"cid\.ipynb is no notebook"):
        scores(tmp_path)
