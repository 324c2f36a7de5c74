"""Every notebook runs from top to bottom, with its parameters made small."""

from __future__ import annotations

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

# (what the parameter cell says, what the test makes of it): the replacement must apply, or the test fails.
SMALLER = {
    "01_quickstart.ipynb": [("n_pairs = 1800", "n_pairs = 240")],
    "09_merging.ipynb": [("n_pairs = 3000", "n_pairs = 800"), ("n_prompts = 200", "n_prompts = 60")],
}
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    for old, new in SMALLER.get(name, []):
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(found) == 1, f"{name}: {old!r} stands in {len(found)} cells"
        found[0].source = found[0].source.replace(old, new)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) or "01" not in name


def test_the_dashboard_follows_its_menus():
    import ratekit as rk
    from ratekit.widgets import EffectsDashboard, select

    ds = rk.load("reviews")
    for name in ("words", "vader"):
        ds = rk.score(ds, name, progress=False)
    table = rk.estimate(ds)
    board = EffectsDashboard(table)
    board.attribute.value, board.reward_model.value = "length", "vader"
    assert "length" in board.title.value
    assert "vader" in board.title.value
    before = bytes(board.picture.value)
    assert before.startswith(b"\x89PNG")
    board.unit.value = "reward"
    assert bytes(board.picture.value) != before
    shown = select(table, "length", "vader")
    assert set(shown.attribute) == {"length"}
    assert set(shown.reward_model) == {"vader"}
    assert len(select(table)) == len(table)
    with pytest.raises(rk.InputError, match="empty"):
        EffectsDashboard(table.iloc[:0])


def test_names_from_data_are_escaped_in_the_dashboard():
    import ratekit as rk
    from ratekit.widgets import EffectsDashboard

    ds = rk.score(rk.load("reviews"), "words", name="<img src=x onerror=alert(1)>", progress=False)
    board = EffectsDashboard(rk.estimate(ds))
    board.reward_model.value = "<img src=x onerror=alert(1)>"
    assert "<img" not in board.title.value
    assert "&lt;img" in board.title.value
