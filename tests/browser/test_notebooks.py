"""The notebooks in a real browser: cells run, controls moved, and the page follows. No request leaves the machine.

`RATEKIT_SCREENSHOTS=folder make test-browser` keeps a picture of each page.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"

pytestmark = pytest.mark.browser


def settled(page, test_id, words):
    """Wait until what stands under `test_id` holds these words."""
    page.wait_for_function(
        "([id, words]) => [...document.querySelectorAll(`[data-testid='${id}']`)]"
        ".some(e => e.textContent.includes(words))",
        arg=[test_id, words],
        timeout=180_000,
    )


def shot(page, name):
    """A picture of the page for a person to look at, if a folder was asked for."""
    folder = os.environ.get("RATEKIT_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(700)  # until what was scrolled to is drawn
        page.screenshot(path=str(Path(folder) / f"{name}-{page.viewport_size['width']}.png"))


def into_view(part):
    """Scroll to it in one step: waiting until it is stable fails where an answer replaces it meanwhile."""
    part.evaluate("e => e.scrollIntoView({block: 'center'})")


def choose(page, label, option):
    """Take an option of the menu with this label, as a person does."""
    page.locator(".widget-dropdown", has_text=label).locator("select").first.select_option(option)


def nothing_is_wrong(page):
    """No request to another host, no script error, no broken widget, none wider than its cell."""
    assert page.asked == []
    assert page.faults == []
    content = page.content()
    for words in ("Error displaying widget", "Click to show javascript error", "Error creating widget"):
        assert words not in content
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea-output')]"
        ".filter(e => e.querySelector('.jupyter-widgets') && e.scrollWidth > e.clientWidth + 2)"
        ".map(e => e.textContent.slice(0, 80))"
    )
    assert wide == []


def no_red_box(page):
    """Nothing was written to the standard error, which Jupyter shows in red."""
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts() == []


@pytest.mark.parametrize("width", [1280, 800])
def test_the_quickstart_follows_its_menus_down_to_the_rows(lab, open_page, width):
    changes = [("n_pairs = 1800", "n_pairs = 240")]
    page = lab.run(open_page, NOTEBOOKS / "01_quickstart.ipynb", width=width, changes=changes)
    no_red_box(page)
    picture = page.locator(".rk-live img[alt^='Forest']").first
    before = picture.get_attribute("src")
    choose(page, "Attribute", "length")
    settled(page, "rk-shown", "Attribute: length; reward model: all")
    page.wait_for_function(
        "old => { const i = document.querySelector(\".rk-live img[alt^='Forest']\");"
        " return i && i.src !== old && i.complete && i.naturalWidth > 0; }",
        arg=before,
        timeout=180_000,
    )
    into_view(picture)
    shot(page, "01-dashboard")
    cell = page.locator("button.jupyter-button[title^='length, vader']").first
    cell.focus()
    page.keyboard.press("Enter")  # the keyboard does what the mouse does
    settled(page, "rk-behind", "RATE, extrapolated")
    settled(page, "rk-count", "160 of 320 rows")
    settled(page, "rk-row-title", "length")
    into_view(page.get_by_test_id("rk-behind").first)
    shot(page, "01-rows-behind")
    title = page.get_by_test_id("rk-row-title").first.inner_text()
    page.get_by_role("button", name="Next", exact=True).first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "old => document.querySelector(\"[data-testid='rk-row-title']\").textContent.trim() !== old.trim()",
        arg=title,
        timeout=180_000,
    )
    assert page.locator("[data-testid='rk-row'] ins").count() > 0
    nothing_is_wrong(page)


def test_the_quickstart_runs_in_notebook_7(notebook_7, open_page):
    changes = [("n_pairs = 1800", "n_pairs = 240")]
    page = notebook_7.run(open_page, NOTEBOOKS / "01_quickstart.ipynb", changes=changes)
    choose(page, "Attribute", "length")
    settled(page, "rk-shown", "Attribute: length; reward model: all")
    no_red_box(page)
    picture = page.locator(".rk-live img[alt^='Forest']").first
    into_view(picture)
    assert picture.evaluate("i => i.complete && i.naturalWidth > 0")
    shot(page, "01-notebook-7")
    # Notebook 7.6 says this of its own settings when it opens an empty notebook, too.
    page.faults[:] = [fault for fault in page.faults if not fault.endswith("(reading 'schema')")]
    nothing_is_wrong(page)


@pytest.mark.parametrize("width", [1280, 800])
def test_the_playground_follows_its_sliders(lab, open_page, width):
    page = lab.run(open_page, NOTEBOOKS / "04_rewriting_twice_and_three_times.ipynb", width=width)
    picture = page.get_by_test_id("rk-picture").first
    into_view(picture)
    settled(page, "rk-words", "Naive is off by")
    shot(page, "04-playground")

    def estimate(name):
        return float(picture.locator(f".rk-{name}").get_attribute("data-estimate"))

    assert estimate("naive") > 1.0
    handle = page.locator(".widget-slider .noUi-handle").first  # confounding
    handle.focus()
    page.keyboard.press("Home")
    settled(page, "rk-words", "Naive is right")
    assert abs(estimate("naive") - 0.5) < 0.15
    page.keyboard.press("End")
    settled(page, "rk-words", "Naive is off by +1.")
    choose(page, "Effect on", "the treated (ATT)")
    settled(page, "rk-words", "the treated (ATT)")
    settled(page, "rk-picture", "estimated effect on the treated (ATT)")
    nothing_is_wrong(page)


@pytest.mark.parametrize("width", [1280, 800])
def test_an_attribute_is_made_in_the_lab(lab, open_page, width):
    changes = [("n_estimate = 80 ", "n_estimate = 30 ")]
    page = lab.run(open_page, NOTEBOOKS / "06_prototype_an_attribute.ipynb", width=width, changes=changes)
    settled(page, "rk-versions", "v2")
    into_view(page.get_by_test_id("rk-versions").first)
    shot(page, "06-versions")
    phrase = page.locator(".widget-text", has_text="treated").locator("input").first
    phrase.fill("more hedged, <b>leaving</b> each mistake alone")
    phrase.press("Enter")
    page.get_by_role("button", name="Try", exact=True).first.click()
    settled(page, "rk-versions", "more hedged, <b>leaving</b> each mistake alone")
    assert page.locator(".jp-OutputArea b", has_text="leaving").count() == 0, "what was typed acts as markup"
    choose(page, "Left", "v1")
    settled(page, "rk-texts", "v1")
    settled(page, "rk-texts", "v3")
    into_view(page.get_by_test_id("rk-texts").first)
    shot(page, "06-side-by-side")
    tabs = page.locator(".jupyter-widget-tab .lm-TabBar-tab, .jupyter-widget-TabPanel-tabBar .lm-TabBar-tab")
    tabs.filter(has_text="Estimate").first.click()
    settled(page, "rk-cost", "calls")
    page.get_by_role("button", name="Estimate", exact=True).first.click()
    settled(page, "rk-result", "hedging")
    into_view(page.get_by_test_id("rk-cost").first)
    shot(page, "06-estimate")
    tabs.filter(has_text="Code").first.click()
    settled(page, "rk-code", "treated='more hedged, <b>leaving</b> each mistake alone'")
    shot(page, "06-code")
    nothing_is_wrong(page)


def test_hostile_text_does_nothing_in_a_page(lab, open_page, tmp_path):
    import nbformat

    code = (
        "import sys; sys.path.insert(0, TESTS)\n"
        "from test_widgets import nasty_rows\n"
        "import ratekit as rk\n"
        "ds = nasty_rows()\n"
        "explorer = rk.widgets.Explorer(ds)\n"
        "explorer.listed.value = 1\n"
        "explorer"
    ).replace("TESTS", repr(str(ROOT / "tests")))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "hostile.ipynb")
    page = lab.run(open_page, tmp_path / "hostile.ipynb")
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    settled(page, "rk-row", "<img src=x onerror=")
    rows = page.locator(".widget-select select").first
    for place in range(8):
        rows.select_option(index=place)
        settled(page, "rk-row-title", f"row {place}")
        assert page.locator("[data-testid='rk-row'] :is(script, img, a, h1, b b)").count() == 0
    shot(page, "hostile")
    assert dialogs == []
    nothing_is_wrong(page)
