"""Grade the estimators against the truth, for any reward model: `calibrate`, and sweeps of one confounder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import require_known
from ratekit.estimators import Floats, clustered_mean, effects, rounding_of, row_values, rows_about
from ratekit.scoring import RewardLike, read_rewards
from ratekit.scoring.base import Reward
from ratekit.scoring.engine import score_chains
from ratekit.simulate.numeric import Imperfections
from ratekit.simulate.text import TextSample, TextWorld

if TYPE_CHECKING:
    import pandas as pd

GRADED = ("naive", "single_rewrite", "rate", "rate_extrapolated", "rate_geometric")

WORLDS = (
    TextWorld("length", "sentiment", typos=(0.02, 0.10)),
    TextWorld("sentiment", "length", typos=(0.10, 0.02)),
    TextWorld("starts-with-vowel", "complexity", typos=(0.02, 0.10)),
)


def calibrate(
    reward: RewardLike,
    worlds: TextWorld | Sequence[TextWorld] = WORLDS,
    *,
    name: str | None = None,
    n: int = 300,
    depth: int = 3,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = False,
) -> pd.DataFrame:
    """Truth and estimates (naive, single rewrite, RATE and its corrections) for this reward model, and who covers it.

    Columns: attribute, reward_model, estimator, estimand, truth, estimate, ci_low, ci_high, covers, bias, bias_se,
    bias_p, reward_sd, n, estimate_sd, se_sd, ci_low_sd, ci_high_sd. The truth is that of these n reviews: the mean of
    R(treated) - R(untreated) over the reviews and their true twins, scored by the reward model itself. `covers`: does
    the interval hold it? `bias` is estimate minus truth with the SE of that difference, which is paired row by row and
    so much sharper than the interval.

    Parameters
    ----------
    reward
        a callable, "vader", "words", a model folder or a hub id: as in `rk.score`
    worlds
        text worlds; by default three, each with confounding and with typos tied to the attribute
    n
        reviews in each; (depth + 2) n texts are scored

    Examples
    --------
    >>> table = calibrate("words", TextWorld("sentiment", "length"), n=200)
    >>> table[table.estimand == "ate"].set_index("estimator")["covers"].to_dict()
    {'naive': False, 'single_rewrite': True, 'rate': True, 'rate_extrapolated': True}
    """
    import pandas as pd

    ((name, named),) = read_rewards(reward, name).items()
    function = named.make()
    rows = []
    for world in [worlds] if isinstance(worlds, TextWorld) else worlds:
        rows += graded(world.sample(n, seed), function, name, depth, level, progress)
    return pd.DataFrame(rows)


def graded(
    sample: TextSample, reward: Reward, name: str, depth: int = 3, level: float = 0.95, progress: bool = False
) -> list[dict[str, Any]]:
    """One row for each estimator and estimand: what it says, and what is true."""
    chains = [
        [text, *more, twin]
        for text, more, twin in zip(sample.responses, sample.chains(depth), sample.twins, strict=True)
    ]
    scored = np.array(score_chains(reward, sample.prompts, chains, name, progress), dtype=float)
    rewards, twin = scored[:, :-1], scored[:, -1]
    w = sample.treated
    true = np.where(w, 1.0, -1.0) * (rewards[:, 0] - twin)
    clusters = np.unique(sample.prompt_ids, return_inverse=True)[1]
    rows = []
    found = effects(rewards, w, clusters, level)
    for e in found:
        if e.estimator not in GRADED:
            continue
        of = rows_about(w, e.estimand)
        values, bias, bias_se, p = true[of], float("nan"), float("nan"), float("nan")
        truth = float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        estimated, codes = row_values(rewards, w, clusters, e.estimator, e.estimand)
        if len(estimated) == len(values) and not np.isnan(values).any():
            mean = clustered_mean(estimated - values, codes, rounding_of(rewards))
            bias, bias_se, p = mean.value, mean.se, mean.interval()[2]
        rows.append({
            "attribute": sample.world.attribute, "reward_model": name, "estimator": e.estimator, "estimand": e.estimand,
            "truth": truth, "estimate": e.estimate, "ci_low": e.ci_low, "ci_high": e.ci_high,
            "covers": covers(truth, e.estimate, e.ci_low, e.ci_high), "bias": bias, "bias_se": bias_se, "bias_p": p,
            "reward_sd": found.reward_sd, "n": e.n, "estimate_sd": e.estimate_sd, "se_sd": e.se_sd,
            "ci_low_sd": e.ci_low_sd, "ci_high_sd": e.ci_high_sd,
        })  # fmt: skip
    return rows


def covers(truth: float, estimate: float, low: float, high: float) -> bool:
    """Is the truth in the interval? Without one (no two rows differ) only the estimate itself is."""
    tiny = 1e-9 * max(abs(truth), abs(estimate), 1.0)
    if np.isnan(low):
        return abs(truth - estimate) <= tiny
    return low - tiny <= truth <= high + tiny


# --- sweeps ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A sweep: what the steps are and the world at each.

    Parameters
    ----------
    about
        the axis in words
    steps
        values of what is swept, from least to most
    world
        step -> the `TextWorld` there; worlds that differ in one rate share all other draws
    """

    about: str
    steps: tuple[float, ...]
    world: Callable[[float], TextWorld]


def _tenths(top: float) -> tuple[float, ...]:
    return tuple(float(x) for x in np.linspace(0, top, 11).round(4))


# In the first two the reviews that have the confounder are the careless ones: what a rewriter mends goes with the
# attribute ever more, as it does in real reviews.
DESIGNS: dict[str, Design] = {
    "length-sentiment": Design(
        "correlation of length with sentiment", _tenths(1.0),
        lambda x: TextWorld("length", "sentiment", confounding=x, typos=(0.0, 0.0), careless=(0.02, 0.2)),
    ),
    "helpfulness-complexity": Design(
        "correlation of helpfulness with complexity", _tenths(1.0),
        lambda x: TextWorld("helpfulness", "complexity", confounding=x, typos=(0.0, 0.0), careless=(0.02, 0.1)),
    ),
    "vowel-typos": Design(
        "share of words misspelt in reviews that start with a vowel", _tenths(0.3),
        lambda x: TextWorld("starts-with-vowel", typos=(0.0, x)),
    ),
}  # fmt: skip


def sweep(
    design: str | Design,
    reward: RewardLike,
    *,
    rewriter: Imperfections | None = None,
    name: str | None = None,
    n: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The estimates and the truth at each step of a confounder: `calibrate`'s columns after `design` and `step`.

    The same n reviews stand behind every step, so only what the design changes differs between them. ATE only.

    Parameters
    ----------
    design
        a name in `DESIGNS` (the three of Reber et al. 2025, section 5.2), or a `Design`
    rewriter
        in place of the design's own (which leaves 15 % of the typos in each pass)

    Examples
    --------
    >>> from ratekit.simulate import RuleReward
    >>> table = sweep("vowel-typos", RuleReward(), n=100)
    >>> slopes(table).set_index("estimator")["slope"].round(1).to_dict()["naive"] < -3
    True
    """
    import pandas as pd

    if isinstance(design, str):
        require_known("sweep", design, DESIGNS)
        label, steps = design, DESIGNS[design]
    else:
        label, steps = design.about, design
    ((name, named),) = read_rewards(reward, name).items()
    function = named.make()
    rows = []
    for step in steps.steps:
        world = steps.world(step)
        if rewriter is not None:
            world = replace(world, rewriter=rewriter)
        found = graded(world.sample(n, seed), function, name)
        rows += [{"design": label, "step": step, **row} for row in found if row["estimand"] == "ate"]
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """How each estimate moves along a sweep, in reward SDs per unit of the step, and how the truth does.

    Columns: design, reward_model, estimator, slope, truth_slope, excess (slope of the bias), excess_p, largest_bias.
    Least squares over the steps; divided by the mean reward SD of the sweep.
    """
    import pandas as pd
    from scipy import stats

    rows = []
    for (design, model, estimator), group in table.groupby(["design", "reward_model", "estimator"], sort=False):
        sd = float(group["reward_sd"].mean())
        x = group["step"].to_numpy(float)
        bias = ((group["estimate"] - group["truth"]) / sd).to_numpy(float)
        excess = stats.linregress(x, bias)
        rows.append({
            "design": design, "reward_model": model, "estimator": estimator, "slope": _slope(x, group["estimate"] / sd),
            "truth_slope": _slope(x, group["truth"] / sd), "excess": float(excess.slope),
            "excess_p": float(excess.pvalue), "largest_bias": float(bias[np.argmax(np.abs(bias))]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _slope(x: Floats, y: Any) -> float:
    return float(np.polyfit(x, np.asarray(y, float), 1)[0])
