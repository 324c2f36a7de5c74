"""Every notebook runs from top to bottom, with its parameters made small."""

from __future__ import annotations

import re
import tomllib

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

# (what the parameter cell says, what the test makes of it): the replacement must apply, or the test fails.
SMALLER = {
    "01_quickstart.ipynb": [("n_pairs = 1800", "n_pairs = 240")],
    "02_confounding.ipynb": [("n = 400 ", "n = 200 ")],
    "03_one_rewrite_is_not_enough.ipynb": [("n = 400 ", "n = 100 ")],
    "04_rewriting_twice_and_three_times.ipynb": [("n = 2000 ", "n = 1000 ")],
    "06_prototype_an_attribute.ipynb": [("n_estimate = 80 ", "n_estimate = 30 ")],
    "07_audit_a_reward_model.ipynb": [("n_pairs = 1800", "n_pairs = 240"), ("n = 160 ", "n = 60 ")],
    "08_reproduce_the_paper.ipynb": [("n = 200 ", "n = 60 ")],
    "09_merging.ipynb": [("n_pairs = 3000", "n_pairs = 800"), ("n_prompts = 200", "n_prompts = 60")],
    "10_audit_a_judge.ipynb": [("n = 200 ", "n = 80 ")],
}
# Solutions of the exercises that show something more once they are solved.
SOLVED = {
    "02_confounding.ipynb": [
        (
            "adjusted = ...",
            "adjusted = lambda r, w, p: sum(o.mean() * (r[w & o].mean() - r[~w & o].mean()) for o in (p, ~p))",
        ),
    ],
    "03_one_rewrite_is_not_enough.ipynb": [("which = ...", "which = 'ate'"), ("off_by = ...", "off_by = 0.1")],
    "04_rewriting_twice_and_three_times.ipynb": [
        ("my_rho = ...", "my_rho = lambda m: (m[3] - m[1]) / (m[2] - m[0])"),
    ],
    "07_audit_a_reward_model.ipynb": [
        (
            "p_value = ...",
            "p_value = rk.contrast(ds, 'wordy', 'vader').query(\"attribute == 'length'\").p_value.iloc[0]",
        ),
    ],
    "09_merging.ipynb": [("multiple = ...", "multiple = -1")],
}
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", [NOTEBOOKS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in NOTEBOOKS[1:])])
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    for old, new in [*SMALLER.get(name, []), *SOLVED.get(name, [])]:
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(found) == 1, f"{name}: {old!r} stands in {len(found)} cells"
        found[0].source = found[0].source.replace(old, new)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "".join(o.get("text", "") for o in outputs)
    asked = sum(cell.source.count('check("') for cell in notebook.cells)
    solved = len(SOLVED.get(name, []))
    assert printed.count(": Right.") == solved
    assert printed.count(": Replace the ...") == asked - solved > 0
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    assert "Not yet." not in printed
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) or (
        name[:2] not in ("01", "04", "05", "06")
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_in_colab_from_the_repository_that_the_package_names(name):
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    repository = urls["Source"].removeprefix("https://github.com/")
    link = f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"
    assert link in nbformat.read(ROOT / "notebooks" / name, as_version=4).cells[0].source


def test_an_exported_page_shows_the_widgets_as_they_were(tmp_path, monkeypatch):
    nbconvert = pytest.importorskip("nbconvert")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    code = "import ratekit as rk\nrk.widgets.Playground(n=100)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()  # with its widgets' state, as nbconvert keeps it
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    seen = re.sub(r"(?s)<script.*?</script>", "", page)  # what a page shows before, and without, any script
    assert "Run this cell in Jupyter to move its sliders" in seen
    assert "Estimates beside the true effect" in seen
