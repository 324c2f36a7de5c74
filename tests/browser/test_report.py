"""The report in a real browser: it fits phone, desk and paper, every picture is whole, and it asks for nothing."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from test_textdiff import HOSTILE

import ratekit as rk
from ratekit.cli import main
from ratekit.estimators import ESTIMATORS
from ratekit.plots.style import LOWERS, MERGED, RAISES, TREATED, UNTREATED, contrast_ratio

pytestmark = pytest.mark.browser

FITS = "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
# What sticks out on the right of the page, though nothing that scrolls by itself holds it.
STICKS_OUT = """() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll.long') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 60))"""
BROKEN = "() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of a run over both attributes under two rewards, one with a long name."""
    folder = tmp_path_factory.mktemp("run")
    ds = rk.load("reviews").select(range(0, 320, 4))
    for name in ("vader", "an-organisation/a-reward-model-with-a-very-long-name-v0.1-27B"):
        ds = rk.score(ds, "vader", name=name, progress=False)
    ds.save_to_disk(str(folder / "dataset"))
    models = [f"merge-{k}" for k in range(3)]
    columns = [f"attribute-number-{k}" for k in range(12)]
    lines = [",".join(["model", *columns])] + [",".join([m, *["0.1234"] * 12]) for m in models]
    (folder / "audit.csv").write_text("\n".join(lines))
    return rk.report(folder)


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    """A report of rows whose texts, prompts and reward model's name try to act."""
    from datasets import Dataset

    texts = [*[t for t in HOSTILE if "\ud800" not in t], "x" * 100_000, "<script>document.title='taken'</script>"]
    rows = [
        {"prompt_id": str(i), "prompt": text[:300], "response": text, "attribute": "length", "treated": bool(i % 2),
         "rewrites": [f"{text} a", f"{text} b"], "reward/<script>document.title='taken'</script>": [1.0, i, 2.0]}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("hostile") / "rows.parquet"
    Dataset.from_list(rows).to_parquet(str(path))
    return rk.report(path)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["report", "hostile_report"])
def test_it_fits_and_is_whole(request, open_page, which, width):
    page = open_page(width, 900)
    page.goto(request.getfixturevalue(which).as_uri())
    assert page.evaluate(FITS)
    assert page.evaluate(STICKS_OUT) == []
    assert page.evaluate("() => document.images.length") >= 1
    assert page.evaluate(BROKEN) == []
    assert page.asked == []
    assert page.faults == []
    assert page.title() != "taken"


def test_the_test_would_notice_what_sticks_out_or_is_broken(report, open_page, tmp_path):
    html = report.read_text()
    wide = html.replace("<main>", "<main><div style='width:2000px'>wide</div><img src='data:image/png;base64,AAAA'>")
    (tmp_path / "wide.html").write_text(wide)
    page = open_page(390, 900)
    page.goto((tmp_path / "wide.html").as_uri())
    assert not page.evaluate(FITS)
    assert page.evaluate(STICKS_OUT)
    assert len(page.evaluate(BROKEN)) == 1


@pytest.mark.parametrize("which", ["report", "hostile_report"])
def test_it_prints(request, open_page, which, tmp_path):
    page = open_page(1280, 900)
    page.goto(request.getfixturevalue(which).as_uri())
    pdf = page.pdf(format="A4", path=str(tmp_path / "report.pdf"))
    assert pdf.startswith(b"%PDF")
    assert which != "report" or len(re.findall(rb"/Type /Page\b", pdf)) <= 6
    # What would be cut off on paper: the page laid out as wide as the printed area of A4.
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 900})
    assert page.evaluate(FITS)
    assert page.asked == []


def test_a_heading_is_printed_above_what_it_is_of(report, open_page):
    page = open_page(1280, 900)
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    rule = "() => [...document.querySelectorAll('summary:has(h2)')].map(e => getComputedStyle(e).breakAfter)"
    assert set(page.evaluate(rule)) == {"avoid"}


def test_every_colour_of_a_figure_is_seen_on_a_dark_page(report, open_page):
    colors = {e.color for e in ESTIMATORS.values()} | {TREATED, UNTREATED, RAISES, LOWERS, MERGED}
    page = open_page(1280, 900, color_scheme="dark")
    page.goto(report.as_uri())
    for color, least in [*((c, 3.8) for c in colors - {"ink"}), ("#f7f7f7", 1.15)]:  # the palest cell of a heat map
        square = f"<svg xmlns='http://www.w3.org/2000/svg' width='60' height='60' style='background:{color}'/>"
        source = f"data:image/svg+xml;base64,{base64.b64encode(square.encode()).decode()}"
        picture = page.locator("figure img").first
        picture.evaluate("(e, source) => { e.src = source; return e.decode(); }", source)
        shot = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
        middle = [v / 255 for v in shot.getpixel((shot.width // 2, shot.height // 2))]
        assert contrast_ratio(middle, "#171717") >= least, (color, middle)
        assert least > 2 or middle[1] > 0x17 / 255  # lighter than the page, not a hole in it


def test_rows_are_searched_and_filtered_and_figures_saved(report, open_page):
    page = open_page(1280, 900)
    page.goto(report.as_uri())
    rows = page.locator(".example")
    assert page.locator(".find output").inner_text() == f"{rows.count()} of {rows.count()} rows"
    page.fill(".find input", "ZEBRAS of no review")
    assert page.locator(".example:visible").count() == 0
    page.fill(".find input", "")
    page.select_option(".find select >> nth=1", "treated")
    page.select_option(".find select >> nth=0", label="length")
    shown = page.locator(".example:visible > summary").all_inner_texts()
    assert shown
    assert all("length" in text and ", treated" in text for text in shown)
    with page.expect_download() as saved:
        page.click("figcaption a >> nth=0")
    assert saved.value.suggested_filename.endswith(".svg")
    with page.expect_download() as saved:
        page.click("a[download='effects.csv']")
    assert saved.value.path().read_text().startswith("attribute,reward_model,estimator")
    assert page.asked == []
    assert page.faults == []


def test_the_playground_answers_in_the_page(report, open_page):
    page = open_page(1280, 900)
    page.goto(report.as_uri())
    page.get_by_text("Try it: a made-up world").click()
    frame = page.frame_locator("iframe")
    row = frame.locator("tr[data-estimator=naive]")
    row.wait_for(state="visible")
    before = row.get_attribute("data-numbers")
    frame.get_by_label("Confounding").focus()
    page.keyboard.press("Home")
    assert row.get_attribute("data-numbers") != before
    assert page.asked == []
    assert page.faults == []


def test_a_link_of_the_contents_opens_what_is_folded(report, open_page):
    page = open_page(1280, 900)
    page.goto(report.as_uri())
    for link in page.locator("nav a").all():
        link.click()
        assert page.locator(link.get_attribute("href")).is_visible()


def test_scripts_do_not_run_even_if_one_got_in(report, open_page, tmp_path):
    html = report.read_text().replace(
        "<main>", "<main><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    )
    (tmp_path / "taken.html").write_text(html)
    page = open_page(1280, 900)
    page.goto((tmp_path / "taken.html").as_uri())
    assert page.title() != "taken"


def test_the_demo_leaves_a_report_that_opens(open_page, tmp_path):
    assert (
        main(["run", "--data", "reviews", "-a", "sentiment", "-r", "words", "--n", "40", "--out", str(tmp_path)]) == 0
    )
    page = open_page(390, 900)
    page.goto((tmp_path / "report.html").as_uri())
    assert "really reward?" in page.inner_text("h1")
    assert page.evaluate(BROKEN) == []
