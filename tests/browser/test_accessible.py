"""Every widget, what it leaves without a kernel, and the report under axe-core: no serious or critical finding.

`make test-browser` fetches axe-core with npm; AXE_CORE=path/to/axe.min.js names another. Skipped without it.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

import ratekit as rk
from browser.test_pictures import CELLS, LEFT
from ratekit.widgets.playground_page import write_page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".venv" / "axe-core" / "node_modules" / "axe-core" / "axe.min.js"
FOUND = """async where => (await axe.run(where, {resultTypes: ['violations']})).violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .flatMap(v => v.nodes.map(n => [v.id, n.target.flat().join(' '), n.html.slice(0, 160)]))"""
# The handle of a slider of ipywidgets 8 has a role and no name, and nothing that Python says of it can give it one.
UNNAMED = ("aria-input-field-name", "noUi-handle")


@pytest.fixture
def axe():
    """The text of axe-core."""
    path = Path(os.environ.get("AXE_CORE", FETCHED))
    if not path.exists():
        pytest.skip("axe-core is not here: npm install axe-core, or set AXE_CORE to its axe.min.js")
    return path.read_text(encoding="utf-8")


def findings(page, axe, where):
    page.evaluate(axe)
    return [f for f in page.evaluate(FOUND, where) if not (f[0] == UNNAMED[0] and UNNAMED[1] in f[2])]


def test_widgets(lab, open_page, axe, tmp_path):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "accessible.ipynb"
    )
    page = lab.run(open_page, tmp_path / "accessible.ipynb")
    page.wait_for_function("n => document.querySelectorAll('.rk-live').length === n", arg=len(LEFT), timeout=300_000)
    assert findings(page, axe, ".rk-live") == []
    button = page.get_by_role("button", name="Draw again").first
    button.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    ring = button.evaluate("e => getComputedStyle(e).outlineStyle + ' ' + getComputedStyle(e).outlineWidth")
    assert ring == "solid 2px"


def test_the_test_would_notice(open_page, axe, tmp_path):
    (tmp_path / "bad.html").write_text("<main><img src='data:image/png;base64,AAAA'><select></select></main>")
    page = open_page()
    page.goto((tmp_path / "bad.html").as_uri())
    assert {name for name, *_ in findings(page, axe, "main")} == {"image-alt", "select-name"}


def test_the_playground_page(open_page, axe, tmp_path):
    page = open_page()
    page.goto(write_page(tmp_path / "playground.html").as_uri())
    assert findings(page, axe, "body") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report(open_page, axe, tmp_path, scheme):
    ds = rk.score(rk.load("reviews").select(range(0, 320, 4)), "vader", progress=False)
    ds.save_to_disk(str(tmp_path / "dataset"))
    page = open_page(bypass_csp=True, color_scheme=scheme)  # the page lets no script run but its own
    page.goto(rk.report(tmp_path).as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert findings(page, axe, "body") == []
