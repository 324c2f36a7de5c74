"""Reward models together without a rule for their weights: their outputs averaged, or the soup that a metric chooses.

ensemble([rewards_a, rewards_b])              (n,) the mean of the standardised rewards
greedy(["rm-a", "rm-b", "rm-c"], accuracy)    the average of those that help
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratekit.checkpoints import Model
from ratekit.errors import InputError
from ratekit.estimators import Floats
from ratekit.merging.mergers import Plan, merge
from ratekit.merging.metrics import Metric
from ratekit.merging.states import load_state, named

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ratekit")


def ensemble(rewards: Sequence[ArrayLike], reference: Sequence[ArrayLike] | None = None) -> Floats:
    """The mean over models of their standardised rewards: each less its mean, in its SDs.

    >>> ensemble([[0.0, 2.0, 4.0], [300.0, 200.0, 100.0]])
    array([0., 0., 0.])

    rewards    k arrays of one shape, NaN where a text was not scored; the scale of a reward is its model's own, so that
               without standardising the widest would decide alone
    reference  k arrays whose mean and SD (ddof 1) are taken, by default the rewards themselves: the original responses'
               where the rewards are those of rewrites

    NaN where any model has none. Raises InputError where a model's rewards do not vary. An ensemble keeps what its
    members have in common, their errors too (Eisenstein et al. 2023, arXiv 2312.09244).
    """
    arrays = [np.asarray(r, float) for r in rewards]
    of = arrays if reference is None else [np.asarray(r, float) for r in reference]
    if not arrays or len(of) != len(arrays) or any(a.shape != arrays[0].shape for a in arrays):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise InputError(
            f"an ensemble takes rewards of one shape and one reference for each; got {shapes or 'nothing'}"
        )
    total = np.zeros(arrays[0].shape)
    for place, (values, scale) in enumerate(zip(arrays, of, strict=True), 1):
        known = scale[np.isfinite(scale)]
        sd = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        if not sd > 0:
            raise InputError(f"the rewards of model {place} do not vary, so they have no scale to be averaged on")
        total += (values - known.mean()) / sd
    return total / len(arrays)


class Soup(NamedTuple):
    """What `greedy` chose: the averaged state dict, its members in the order taken, and the metric of each trial."""

    state: dict[str, Tensor]
    members: list[str]
    value: float
    trials: list[tuple[str, float, bool]]


def greedy(models: Mapping[str, Model] | Sequence[Model], metric: Metric, *, higher_is_better: bool = True) -> Soup:
    """A greedy soup: models in the order of their metric, each kept where the average with it is no worse.

    >>> import torch
    >>> states = {"a": {"w": torch.tensor([0.0])}, "b": {"w": torch.tensor([2.0])}, "c": {"w": torch.tensor([9.0])}}
    >>> soup = greedy(states, lambda state: -abs(float(state["w"]) - 0.8))
    >>> soup.members, float(soup.state["w"])
    (['a', 'b'], 1.0)

    Recipe 1 of Wortsman et al. 2022 (arXiv 2203.05482). Choose on data that the result is not judged on. Raises
    InputError for models that do not belong together, before the first is measured.
    """
    given = named(models)
    if not given:
        raise InputError("nothing to choose from: no model was given")
    Plan(given, "soup")
    sign = 1.0 if higher_is_better else -1.0
    alone = {name: sign * metric(load_state(model)) for name, model in given.items()}
    order = sorted(given, key=lambda name: -alone[name])
    kept, best = [order[0]], alone[order[0]]
    trials = [(order[0], sign * best, True)]
    for name in order[1:]:
        value = sign * metric(merge({n: given[n] for n in [*kept, name]}, "soup"))
        taken = value >= best
        trials.append((name, sign * value, taken))
        if taken:
            kept, best = [*kept, name], value
    log.info("greedy soup: %s of %s", ", ".join(kept), ", ".join(given))
    return Soup(merge({n: given[n] for n in kept}, "soup"), kept, sign * best, trials)


def wise_ft(base: Model, tuned: Model, alpha: float = 0.5) -> dict[str, Tensor]:
    """(1-alpha) base + alpha tuned (WiSE-FT; Wortsman et al. 2021, arXiv 2109.01903).

    >>> import torch
    >>> wise_ft({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return merge([tuned], "wise_ft", base, alpha=alpha)
