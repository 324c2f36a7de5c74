"""The playground as one page: no request leaves it, and its numbers are those of `rk.estimate`."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from ratekit.estimators import effects
from ratekit.plots.style import ESTIMAND_LABELS
from ratekit.widgets.playground_page import N_CHOICES, drawn_sample, write_page
from ratekit.widgets.playground_world import SHOWN_ESTIMATORS, Scene

pytestmark = pytest.mark.browser

# Sets each slider as a hand would and reads the table that follows.
READ = """settings => settings.map(s => {
    seed = s.seed;
    for (const name of ["confounding", "rho", "asymmetry", "interaction", "n", "estimand"]) form[name].value = s[name];
    form.dispatchEvent(new Event("input"));
    return [...document.querySelectorAll("tbody tr")].map(row => row.dataset.numbers.split(",").map(Number));
})"""


@pytest.fixture
def page(open_page, tmp_path):
    page = open_page()
    page.goto(write_page(tmp_path / "playground.html").as_uri())
    return page


def test_its_numbers_are_those_of_the_package_on_500_settings_of_its_sliders(page):
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(500):
        c, rho = rng.integers(0, 21, 2) / 20
        asymmetry, interaction = rng.integers(-20, 21, 2) / 20
        n, seed = int(rng.choice(N_CHOICES)), int(rng.integers(0, 12))
        scenes.append((Scene(c, rho, asymmetry, interaction, n, seed), str(rng.choice(list(ESTIMAND_LABELS)))))
    shown = page.evaluate(READ, [{**asdict(scene), "estimand": estimand} for scene, estimand in scenes])
    largest = 0.0
    for (scene, estimand), numbers in zip(scenes, shown, strict=True):
        drawn = drawn_sample(scene)
        found = effects(drawn.rewards, drawn.treated)
        for name, (value, se, low, high) in zip(SHOWN_ESTIMATORS, numbers, strict=True):
            e = found.get(name, "ate" if name == "naive" else estimand)
            ours = np.array([e.estimate, e.se, e.ci_low, e.ci_high])
            largest = max(largest, float(np.abs(ours - [value, se, low, high]).max()))
    assert largest < 1e-12
    assert page.asked == []
    assert page.faults == []


def test_it_follows_the_keyboard_and_fits_a_phone_and_a_dark_page(open_page, tmp_path):
    address = write_page(tmp_path / "playground.html").as_uri()
    page = open_page(width=390)
    page.emulate_media(color_scheme="dark")
    page.goto(address)
    row = page.locator("tr[data-estimator=naive]")
    before = row.get_attribute("data-numbers")
    page.get_by_label("Confounding").focus()
    page.keyboard.press("Home")
    assert row.get_attribute("data-numbers") != before
    assert row.inner_text().endswith("in the interval")
    page.get_by_role("button", name="Draw again").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("svg[role=img]").count() == 2
    assert page.asked == []
    assert page.faults == []
