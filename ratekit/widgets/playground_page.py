"""The playground as one page of HTML: no kernel, no network, no library; playground.html beside this file is its text.

The page has the world and the estimators of `Playground` in plain script, and draws that are written into it here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ratekit.estimators import ESTIMATORS, Floats
from ratekit.files import replace_text
from ratekit.simulate import Sample
from ratekit.widgets.playground_world import Scene

_ROWS = 400
N_CHOICES = (50, 100, 200, 400)
_KINDS = "uunnnnnn"  # u uniform, n normal: whether treated, content, flaws, effect, all else, noise of three passes


def draws() -> list[list[int]]:
    """What is random in the page's responses: 8 columns of `ROWS` thousandths, of few digits for a small page."""
    rng = np.random.default_rng(20)
    columns = [rng.random(_ROWS) if kind == "u" else rng.standard_normal(_ROWS) for kind in _KINDS]
    return [np.round(1000 * column).astype(int).tolist() for column in columns]


class _Recorded(np.random.Generator):
    """A source of random numbers that hands out the page's draws, in the order in which a world asks for them."""

    def __init__(self, n: int, seed: int) -> None:
        super().__init__(np.random.PCG64(0))
        columns = [np.roll(np.array(column) / 1000, seed * k * 37)[:n] for k, column in enumerate(draws())]
        self._left = iter(
            [*columns[:5], np.zeros(n), *columns[5:]]
        )  # the sixth decides on leaks, of which there are none

    def random(self, *_: object) -> Floats:  # type: ignore[override]
        return next(self._left)

    standard_normal = random  # type: ignore[assignment]


def drawn_sample(scene: Scene) -> Sample:
    """The responses that the page draws for this scene; its n is at most `ROWS`.

    Examples
    --------
    >>> drawn_sample(Scene(n=50)).rewards.shape
    (50, 4)
    """
    return scene.world().sample(scene.n, _Recorded(scene.n, scene.seed))


def page() -> str:
    """The page's text.

    Examples
    --------
    >>> 20_000 < len(page()) < 40_000
    True
    """
    world = Scene().world()
    names = ("effect", "effect_sd", "z_weight", "xi_sd", "xi_weight", "content_sd")
    looks = {n: {"label": e.label, "color": e.color, "hollow": e.hollow} for n, e in ESTIMATORS.items()}
    constants = {**{name: getattr(world, name) for name in names}, "noise": world.rewriter.noise}
    data = {"world": constants, "n": N_CHOICES, "looks": looks, "draws": draws()}
    text = Path(__file__).with_name("playground.html").read_text(encoding="utf-8")
    return text.replace("/*DATA*/", json.dumps(data, separators=(",", ":")))


def write_page(path: str | Path) -> Path:
    """Write the page; a file that is there is replaced.

    Examples
    --------
    >>> write_page("playground.html")  # doctest: +SKIP
    """
    return replace_text(path, page())
