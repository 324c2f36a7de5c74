"""Every notebook runs from top to bottom, with its parameters made small."""

from __future__ import annotations

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

# (what the parameter cell says, what the test makes of it): the replacement must apply, or the test fails.
SMALLER = {"01_quickstart.ipynb": [("n_pairs = 1800", "n_pairs = 240")]}
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
