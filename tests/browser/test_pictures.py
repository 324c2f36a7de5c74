"""What is seen of a widget where no kernel runs: exported, without scripts, closed and opened again, after a restart.

Every page has the network cut.
"""

from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest

from browser.conftest import environment, served
from browser.test_notebooks import NOTEBOOKS, shot

pytestmark = pytest.mark.browser

CELLS = (
    "import ratekit as rk\nds = rk.score(rk.load('reviews'), 'vader', progress=False)",
    "rk.widgets.Playground(n=200)",
    "rk.widgets.Explorer(ds)",
    "rk.widgets.EffectsDashboard(rk.estimate(ds), ds)",
    "lab = rk.widgets.AttributeLab(ds, 'rules', 'vader', attribute='length')\nlab",
    "lab.try_it()\nlab.n.value = 30\nlab.estimate()",  # what is left of the lab follows it
)
# What each leaves: words, and pictures with these beginnings of their descriptions.
LEFT = {
    "Playground": ("covers the truth", ["Estimates beside the true effect", "Mean rewards of the responses"]),
    "Explorer": ("320 rows", []),
    "EffectsDashboard": ("Run this cell in Jupyter for the menus", ["Forest of effects"]),
    "AttributeLab": ("moved towards treated when asked", ["Effects of the attribute"]),
}
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
WHOLE = "i => i.complete && i.naturalWidth > 100"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook with every widget, not run."""
    path = tmp_path_factory.mktemp("pictures") / "every.ipynb"
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def jupyter(*arguments, folder):
    """Run a command of Jupyter's with settings of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", *map(str, arguments)], cwd=folder, env=environment(folder), timeout=600,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def exported(notebook):
    """The page that the plain command makes of it."""
    jupyter("nbconvert", "--to", "html", "--execute", notebook.name, folder=notebook.parent)
    return notebook.with_suffix(".html")


@pytest.fixture(scope="module")
def executed(notebook):
    """The notebook as the same command keeps it."""
    jupyter(
        "nbconvert", "--to", "notebook", "--execute", notebook.name, "--output", "run.ipynb", folder=notebook.parent
    )
    return notebook.with_name("run.ipynb")


def all_is_left(page):
    """Every widget's words and pictures are seen, and no word of a view that is missing: how many pictures."""
    seen = 0
    kept = page.locator(".rk-still")
    if not kept.count():  # a page that is cleaned of classes
        kept = page.locator(".jp-OutputArea-output")
    for words, pictures in LEFT.values():
        one = kept.filter(has_text=words).first
        one.wait_for(state="visible", timeout=120_000)
        for beginning in pictures:
            image = one.locator(f"img[alt^='{beginning}']").first
            assert image.is_visible()
            seen += 1
            if page.runs_scripts:
                assert image.evaluate(WHOLE)
    body = page.locator("body").inner_text()
    for words in ("model not found", "Loading widget", "Error displaying"):
        assert words not in body
    return seen


@pytest.mark.parametrize("scripts", [True, False])
def test_the_plain_export_shows_every_widget(exported, open_page, scripts):
    page = open_page(1280, 1000, scripts=scripts)
    page.goto(exported.as_uri(), wait_until="domcontentloaded")
    page.wait_for_timeout(1000 if scripts else 0)  # what the page's scripts would put in its place
    assert all_is_left(page) == 4
    shot(page, f"exported-{'with' if scripts else 'without'}-scripts")


def test_a_dark_page_has_no_white_picture(exported, open_page):
    page = open_page(1280, 1000)
    page.goto(exported.as_uri(), wait_until="domcontentloaded")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    filters = page.evaluate("[...document.querySelectorAll('.rk-still img')].map(e => getComputedStyle(e).filter)")
    assert len(filters) >= 4
    assert all("invert(0.9)" in one for one in filters)
    shot(page, "exported-dark")


def test_a_notebook_of_somebody_elses_shows_every_widget(lab, executed, open_page):
    """JupyterLab cleans what it does not trust of styles and classes."""
    page = lab.open(open_page, executed)
    assert all_is_left(page) == 4
    shot(page, "untrusted")


def test_the_live_view_alone_is_seen_then_its_picture_alone_then_a_word_after_a_restart(lab, notebook, open_page):
    page = lab.run(open_page, notebook)
    live = page.locator(".rk-live")
    page.wait_for_function("n => document.querySelectorAll('.rk-live').length === n", arg=len(LEFT), timeout=120_000)
    for k in range(len(LEFT)):
        live.nth(k).wait_for(state="visible", timeout=120_000)
    assert page.locator(".rk-still:visible").count() == 0
    assert page.locator(".rk-gone:visible").count() == 0
    shot(page, "live")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
    page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"
    )
    for k in range(len(LEFT)):
        said = live.nth(k).locator("> .rk-gone")
        said.wait_for(state="visible", timeout=120_000)
        assert "run this cell again" in said.inner_text()
    shot(page, "restarted")
    page.evaluate(KERNEL + ".shutdown()")
    page.close()
    again = lab.open(open_page, lab.folder / notebook.name)
    all_is_left(again)
    assert again.locator(".rk-live:visible").count() == 0
    shot(again, "opened-again")


def test_the_teaching_view_hides_the_code_and_takes_answers(open_page, tmp_path):
    pytest.importorskip("voila", reason="voila is not installed: pip install voila")
    notebook = NOTEBOOKS / "04_rewriting_twice_and_three_times.ipynb"
    arguments = ["voila", str(notebook), "--no-browser", "--Voila.ip=127.0.0.1"]
    with served(arguments, tmp_path, "/") as base:
        page = open_page(1280, 1000, allowed=(base, base.replace("http", "ws", 1)))
        page.goto(base, wait_until="domcontentloaded", timeout=300_000)
        page.locator(".rk-live [data-testid='rk-words']").first.wait_for(state="visible", timeout=300_000)
        assert page.locator(".rk-live [data-testid='rk-picture'] svg").first.is_visible()
        assert page.locator(".rk-still:visible").count() == 0
        assert page.locator(".jp-InputArea-editor:visible").count() == 0
        assert "import ratekit" not in page.locator("body").inner_text()
        check = page.get_by_role("button", name="Check 04.1")
        check.wait_for(state="visible", timeout=180_000)
        line = page.locator(".widget-text", has_text="Your answer").locator("input").first
        for answer, words in (("0.9", "04.1: Not yet."), ("0.5", "04.1: Right.")):
            line.fill(answer)
            line.press("Tab")
            check.click()
            page.get_by_text(words).first.wait_for(state="visible", timeout=180_000)
        shot(page, "voila")
