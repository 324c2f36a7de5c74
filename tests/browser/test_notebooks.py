"""The notebooks in a real browser: cells run, controls moved, and the page follows."""

from __future__ import annotations

import pytest
from conftest import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.browser


def test_the_quickstart_follows_its_menus(lab, open_page):
    page = lab.run(open_page, ROOT / "notebooks" / "01_quickstart.ipynb", changes=[("n_pairs = 1800", "n_pairs = 240")])
    expect = sync_api.expect
    shown = page.get_by_test_id("rk-shown").first
    expect(shown).to_contain_text("Attribute: all")
    page.locator(".widget-dropdown select").nth(0).select_option("length")
    expect(shown).to_contain_text("Attribute: length")
    picture = page.locator(".widget-image").first
    assert picture.evaluate("i => i.complete && i.naturalWidth > 0")
    assert page.asked == []
    assert page.faults == []
