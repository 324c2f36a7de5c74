"""Every notebook runs from top to bottom with its parameters made small, and its exercises know a right answer."""

from __future__ import annotations

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

# (what a cell says, what the test makes of it): each replacement must apply, or the test fails.
SMALLER = {
    "01_quickstart.ipynb": [("n_pairs = 1800", "n_pairs = 240")],
    "04_rewriting_twice_and_three_times.ipynb": [("n = 2000", "n = 1000")],
    "06_prototype_an_attribute.ipynb": [("n_estimate = 80", "n_estimate = 30")],
}
# The exercises: (as committed, a right answer, a wrong one).
ANSWERS = {
    "01_quickstart.ipynb": [
        ("misleading = None", "misleading = 'sentiment'", "misleading = 'length'"),
        ("words_added = None", "words_added = 87", "words_added = 44"),
    ],
    "04_rewriting_twice_and_three_times.ipynb": [
        ("worst_rho = None", "worst_rho = 0.5", "worst_rho = 1.0"),
        ("bias_of_single_rewrite = None", "bias_of_single_rewrite = 0", "bias_of_single_rewrite = 0.5"),
        ("flawed_class = None", "flawed_class = 'untreated'", "flawed_class = 'treated'"),
    ],
    "05_explore_real_rewrites.ipynb": [
        ("most_often = None", "most_often = 'readability'", "most_often = 'faults'"),
        ("unchanged_way_back = None", "unchanged_way_back = 0", "unchanged_way_back = 9"),
        ("rows_with_battery = None", "rows_with_battery = 3", "rows_with_battery = 0"),
    ],
    "06_prototype_an_attribute.ipynb": [
        ("cost_of_a_hedge = None", "cost_of_a_hedge = 0.2", "cost_of_a_hedge = 0.1"),
        ("my_version = None", "my_version = 'v2'", "my_version = 'v1'"),
        ("fooled = None", "fooled = 'single_rewrite'", "fooled = 'rate'"),
    ],
}
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def run(name, replacements, folder, monkeypatch):
    """The notebook with all its cells run, after the replacements."""
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    for old, new in replacements:
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(found) == 1, f"{name}: {old!r} stands in {len(found)} cells"
        found[0].source = found[0].source.replace(old, new)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, resources=resources, store_widget_state=False).execute()
    return notebook


def outputs(notebook):
    return [o for cell in notebook.cells for o in cell.get("outputs", [])]


def printed(notebook):
    return "".join(o["text"] for o in outputs(notebook) if o.output_type == "stream" and o["name"] == "stdout")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_takes_the_right_answers(name, tmp_path, monkeypatch):
    answers = ANSWERS.get(name, [])
    notebook = run(name, SMALLER.get(name, []) + [(old, right) for old, right, _ in answers], tmp_path, monkeypatch)
    if answers:
        said = printed(notebook).splitlines()
        assert [f"{k}: right" in said for k in range(1, len(answers) + 1)] == [True] * len(answers), said
    if name[:2] in ("01", "04", "05", "06"):
        assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs(notebook))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_wrong_answer_is_told_from_a_right_one(name, tmp_path, monkeypatch):
    wrong = [(old, answer) for old, _, answer in ANSWERS[name]]
    said = printed(run(name, SMALLER.get(name, []) + wrong, tmp_path, monkeypatch))
    assert said.count("not yet: ") == len(wrong), said


def test_an_exported_page_shows_the_widgets_as_they_were(tmp_path, monkeypatch):
    nbconvert = pytest.importorskip("nbconvert")
    notebook = run("04_rewriting_twice_and_three_times.ipynb", [("n = 2000", "n = 500")], tmp_path, monkeypatch)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert "Run this cell in Jupyter to move its sliders" in page
    assert "Estimates beside the true effect" in page
