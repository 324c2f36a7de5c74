"""`Playground`: sliders over a world whose true effect is known."""

from __future__ import annotations

from dataclasses import asdict

import ipywidgets

from ratekit.plots.style import ESTIMAND_LABELS
from ratekit.widgets import playground_figure, playground_world
from ratekit.widgets.shared import StaticView, block, button, follow, menu, row, style, text

_N = (50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Playground(StaticView):
    """Sliders for what goes wrong, and live beside the true effect: what naive, a single rewrite and RATE make of it.

    The arguments are where the sliders start. The world is `rk.simulate.NumericWorld`, and "Draw again" takes new
    responses from it.

    Parameters
    ----------
    confounding
        what else goes with the attribute: 0 nothing, 1 all of it
    rho
        the rewriter's convergence: the share of flaws that survives a pass
    asymmetry
        flaws that the rewriter puts in on the way to the treated side only
    interaction
        how much more the attribute counts for each flaw that the response has
    n
        responses

    Raises
    ------
    InputError
        For a number that no slider has.

    Examples
    --------
    >>> playground = Playground(rho=0.5, n=2000)
    >>> playground.scene.rho, playground.played.truth["ate"]
    (0.5, 0.5)
    >>> playground.confounding.value = 0.0
    >>> "Naive is right" in playground.words.value
    True
    """

    def __init__(
        self, *, confounding: float = 0.6, rho: float = 0.0, asymmetry: float = 0.0, interaction: float = 0.0,
        n: int = 500, seed: int = 0,
    ) -> None:  # fmt: skip
        playground_world.Scene(
            confounding, rho, asymmetry, interaction, n, seed
        ).world()  # raises for what no slider has
        self.seed = seed
        self.confounding = _slider("Confounding", confounding, 0, 1, "what else goes with the attribute")
        self.rho = _slider("Flaws a pass leaves", rho, 0, 1, "0: the rewriter mends all at once; 1: nothing")
        self.asymmetry = _slider("Direction asymmetry", asymmetry, -1, 1, "flaws put in towards the treated side only")
        self.interaction = _slider("Interaction", interaction, -1, 1, "the attribute counts more in flawed text")
        self.n = ipywidgets.SelectionSlider(
            options=sorted({*_N, n}), value=n, description="Responses n", style=_LABEL, layout=_WIDE
        )
        self.estimand = menu("Effect on", [(words, name) for name, words in ESTIMAND_LABELS.items()])
        self.again = button("Draw again", "New responses from the same world", self._draw_again)
        self.picture, self.words, self.table = text(), text(), text()
        follow(self._play, self.confounding, self.rho, self.asymmetry, self.interaction, self.n, self.estimand)
        super().__init__([
            style(), row(self.confounding, self.rho), row(self.asymmetry, self.interaction),
            row(self.n, self.estimand, self.again), self.picture, self.words, self.table,
        ])  # fmt: skip
        self._play()

    @property
    def scene(self) -> playground_world.Scene:
        """What the sliders say."""
        return playground_world.Scene(
            confounding=self.confounding.value, rho=self.rho.value, asymmetry=self.asymmetry.value,
            interaction=self.interaction.value, n=self.n.value, seed=self.seed,
        )  # fmt: skip

    def static(self) -> str:
        """The picture and its numbers, for where no kernel runs."""
        said = ", ".join(f"{name} {value:g}" for name, value in asdict(self.scene).items() if name != "seed")
        return (
            f"<p>A playground at {said}. Run this cell in Jupyter to move its sliders.</p>"
            f"{playground_figure.images(self.played, self.estimand.value)}{self.words.value}{self.table.value}"
        )

    def _play(self) -> None:
        self.played = playground_world.play(self.scene)
        estimand = self.estimand.value
        self.picture.value = playground_figure.draw(self.played, estimand)
        sentences = "".join(f"<p>{sentence}</p>" for sentence in playground_world.in_words(self.played, estimand))
        self.words.value = block(sentences, "rk-words")
        self.table.value = block(playground_world.world_html(self.played, estimand), "rk-table")

    def _draw_again(self) -> None:
        self.seed += 1
        self._play()


_LABEL = {"description_width": "150px"}
_WIDE = {"width": "450px", "max_width": "100%"}


def _slider(name: str, value: float, low: float, high: float, tooltip: str) -> ipywidgets.FloatSlider:
    slider = ipywidgets.FloatSlider(
        value=value, min=low, max=high, step=0.05, description=name, readout_format=".2f", style=_LABEL, layout=_WIDE
    )
    slider.tooltip = tooltip
    return slider
