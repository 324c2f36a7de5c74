"""A world with a few knobs, what each estimator says in it, and why, in words. No widgets; playground_figure.py draws.

A scene is a `NumericWorld`: responses have the attribute W or not, content Z that no rewrite touches, and flaws (typos,
markup) that each rewrite mends a share of. Confounding ties Z and the flaws to W.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratekit.errors import InputError
from ratekit.estimators import Effect, effects
from ratekit.plots import MARKS
from ratekit.plots.style import ESTIMAND_LABELS
from ratekit.simulate import Imperfections, NumericWorld, Sample
from ratekit.simulate.grading import covers
from ratekit.tables import Table, table_html

EFFECT = 0.5
SHOWN_ESTIMATORS = ("naive", "single_rewrite", "rate", "rate_extrapolated")


@dataclass(frozen=True)
class Scene:
    """The knobs of the playground.

    Parameters
    ----------
    confounding
        0 to 1: how much good content goes with the attribute, and how many flaws with its absence
    rho
        0 to 1: the share of flaws that survives a pass of the rewriter (its convergence: 0 mends all at once)
    asymmetry
        -1 to 1: flaws that passes towards the treated side put in, and passes the other way do not
    interaction
        -1 to 1: how much more the attribute counts for each flaw that the response has
    n
        responses

    Examples
    --------
    >>> Scene(confounding=0.5).world().truth()["ate"]
    0.5
    """

    confounding: float = 0.6
    rho: float = 0.0
    asymmetry: float = 0.0
    interaction: float = 0.0
    n: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.confounding <= 1:
            raise InputError(f"confounding={self.confounding}: a number between 0 and 1 was expected")
        for name in ("asymmetry", "interaction"):
            if not abs(getattr(self, name)) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: a number between -1 and 1 was expected")
        if self.n < 20:
            raise InputError(f"n={self.n}: at least 20 responses are needed")

    def world(self) -> NumericWorld:
        """The world with these knobs."""
        return NumericWorld(
            effect=EFFECT, effect_sd=0.3, confounding=self.confounding, z_weight=0.5,
            xi_gap=1.0 - self.confounding, xi_base=1.0 + self.confounding, xi_weight=-0.5, wxi=self.interaction,
            rewriter=Imperfections(rho=self.rho, asymmetry=self.asymmetry, noise=0.1),
        )  # fmt: skip


@dataclass(frozen=True)
class Played:
    """A scene's rows, the truth of its world by estimand, and every estimate."""

    scene: Scene
    sample: Sample
    truth: dict[str, float]
    estimates: dict[tuple[str, str], Effect]

    def estimate(self, estimator: str, estimand: str) -> Effect | None:
        """One estimate; `naive` has the ATE alone and stands in for the others."""
        return self.estimates.get((estimator, "ate" if estimator == "naive" else estimand))


def play(scene: Scene) -> Played:
    """Draw the scene's rows and estimate.

    Examples
    --------
    >>> played = play(Scene(n=2000))
    >>> naive, rate = played.estimate("naive", "ate"), played.estimate("rate", "ate")
    >>> naive.ci_low > played.truth["ate"], rate.ci_low < played.truth["ate"] < rate.ci_high
    (True, True)
    """
    world = scene.world()
    sample = world.sample(scene.n, scene.seed)
    found = effects(sample.rewards, sample.treated, sample.clusters)
    return Played(scene, sample, world.truth(), {(e.estimator, e.estimand): e for e in found})


def in_words(played: Played, estimand: str = "ate") -> list[str]:
    """What is seen and why, a sentence each.

    Examples
    --------
    >>> in_words(play(Scene(n=2000)))[1]
    'Naive is off by +0.87: the treated responses also have better content and fewer flaws.'
    """
    scene, truth = played.scene, played.truth[estimand]

    def off(estimator: str) -> float:
        found = played.estimate(estimator, estimand)
        return found.estimate - truth if found else float("nan")

    said = [f"The true effect on {ESTIMAND_LABELS[estimand]} is {truth:+.2f}."]
    if not misses(played, "naive", estimand):
        said.append("Naive is right: nothing else goes with the attribute.")
    else:
        why = "the treated responses also have better content and fewer flaws"
        why = why if scene.confounding else "one interval in twenty misses by chance"
        said.append(f"Naive is off by {off('naive'):+.2f}: {why}.")
    if misses(played, "single_rewrite", estimand):
        said.append(
            f"A single rewrite is off by {off('single_rewrite'):+.2f}: the rewrite has fewer flaws than the response, "
            "and that is taken for the attribute."
        )
    if not misses(played, "rate", estimand):
        said.append("RATE covers the truth: both of its texts were rewritten, so the rewriter's marks cancel.")
        return said
    reasons = []
    if 0 < scene.rho < 1:
        reasons.append("the second pass goes on mending what the first left, so its marks do not cancel")
    if scene.asymmetry:
        reasons.append("the rewriter puts flaws in one way only, and rewards cannot tell that from the attribute")
    if scene.interaction:
        reasons.append("the attribute counts differently in flawed text, and rewrites have fewer flaws than responses")
    why = "; ".join(reasons) or "one interval in twenty misses by chance"
    said.append(f"RATE is off by {off('rate'):+.2f}: {why}.")
    if 0 < scene.rho < 1 and not scene.asymmetry and not scene.interaction:
        fixed = "removes that" if not misses(played, "rate_extrapolated", estimand) else "removes most of that"
        said.append(f"A third rewrite shows how fast the rewriter converges, and the extrapolated estimate {fixed}.")
    return said


def misses(played: Played, estimator: str, estimand: str) -> bool:
    """Is the truth outside of the estimate's interval?"""
    e = played.estimate(estimator, estimand)
    return e is None or not covers(played.truth[estimand], e.estimate, e.ci_low, e.ci_high)


def world_html(played: Played, estimand: str = "ate") -> str:
    """The numbers of the picture as an HTML table, for those who cannot see it and those who want them exact."""
    truth = played.truth[estimand]
    rows = []
    for name in SHOWN_ESTIMATORS:
        e = played.estimate(name, estimand)
        if e is None:
            continue
        verdict = "misses it" if misses(played, name, estimand) else "covers the truth"
        note = " (ATE)" if name == "naive" and estimand != "ate" else ""
        rows.append([
            f"{MARKS[name].label}{note}", f"{e.estimate:+.3f}", f"[{e.ci_low:+.3f}, {e.ci_high:+.3f}]",
            f"{e.estimate - truth:+.3f}", verdict,
        ])  # fmt: skip
    columns = ["estimator", "estimate", "95 % interval", "off by", f"truth {truth:+.3f}"]
    return table_html(Table(columns, [c != columns[0] for c in columns], rows))
