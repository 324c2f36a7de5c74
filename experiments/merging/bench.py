"""All that is measured of one reward model: loss and accuracy on unbiased pairs, RATE effects, their true values.

The same quantities as `ratekit.merging.Instrument` gives, from texts that are turned into token ids once: the study
measures about a thousand sets of weights. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from models import rewards
from world import ATTRIBUTES, PAD, Pairs, encode, preferences, rate_dataset

from ratekit.estimators import clustered_mean, effects, pooled_sd
from ratekit.merging import Estimate

Reward = Callable[[torch.Tensor], np.ndarray]


def reward_of(state: Mapping[str, torch.Tensor]) -> Reward:
    """Token ids -> rewards, (n,) float64."""

    def reward(ids: torch.Tensor) -> np.ndarray:
        found = torch.empty(len(ids), dtype=torch.float64)
        with torch.no_grad():
            for rows in (
                (ids != PAD).sum(dim=1).argsort().split(512)
            ):  # like lengths together: half of the ids are padding
                found[rows] = rewards(state, ids[rows]).double()
        return found.numpy()

    return reward


def of_texts(reward: Reward) -> Callable[[list, list], np.ndarray]:
    """A reward of token ids as ratekit takes one: (prompts, responses) -> (n,)."""
    return lambda prompts, responses: reward(encode(list(responses)))


class Bench:
    """`bench(state)` gives every quantity as an `Estimate`: loss, accuracy, effect/<attribute> and raw/<attribute>.

    effect/ is in reward SDs (pooled within-class SD of the original reviews' rewards), raw/ in reward units.
    """

    def __init__(
        self, prompts: int, seed: int, pairs: int = 0, attributes: Sequence[str] = ATTRIBUTES, pairs_seed: int = 999
    ) -> None:
        self.attributes = tuple(attributes)
        self.pairs: Pairs | None = preferences(pairs, pairs_seed, confounded=False) if pairs else None
        self.datasets = {a: rate_dataset(prompts, seed, a) for a in self.attributes}
        self.treated = {a: np.array(ds["treated"]) for a, ds in self.datasets.items()}
        self.ids = {
            a: [encode(ds["response"]), *(encode([r[k] for r in ds["rewrites"]]) for k in (0, 1))]
            for a, ds in self.datasets.items()
        }

    def dataset(self) -> Dataset:
        """The reviews and their rewrites, as ratekit's own functions take them."""
        return concatenate_datasets(list(self.datasets.values()))

    def __call__(self, state: Mapping[str, torch.Tensor]) -> dict[str, Estimate]:
        """Every quantity of one model."""
        return self.read(reward_of(state))

    def read(self, reward: Reward) -> dict[str, Estimate]:
        """Every quantity of a reward, which may be an ensemble's."""
        parts = [*(self.pairs or ()), *(ids for a in self.attributes for ids in self.ids[a])]
        texts, place = torch.unique(torch.cat(parts), dim=0, return_inverse=True)  # each text once
        each = iter(np.split(reward(texts)[place.numpy()], np.cumsum([len(part) for part in parts])[:-1]))
        found = {}
        if self.pairs is not None:
            margin = next(each) - next(each)
            found = {"loss": _mean(np.logaddexp(0, -margin)), "accuracy": _mean((margin > 0) + 0.5 * (margin == 0))}
        for attribute in self.attributes:
            r = np.stack([next(each), next(each), next(each)], axis=1)
            w = self.treated[attribute]
            e = effects(r, w).get("rate", "ate")
            if e is not None:
                found[f"effect/{attribute}"] = Estimate(e.estimate_sd, e.se_sd, e.ci_low_sd, e.ci_high_sd, e.n)
                found[f"raw/{attribute}"] = Estimate(e.estimate, e.se, e.ci_low, e.ci_high, e.n)
        return found

    def metric(self, name: str) -> Metric:
        """One quantity as a metric; only its own texts are scored."""
        return Metric(self, name)

    def truth(self, state: Mapping[str, torch.Tensor], attribute: str) -> float:
        """The true effect in reward SDs: each review against its counterfactual twin."""
        reward, ds = reward_of(state), self.datasets[attribute]
        r, twin, w = reward(self.ids[attribute][0]), reward(encode(ds["twin"])), np.array(ds["treated"])
        return float((np.where(w, 1, -1) * (r - twin)).mean() / pooled_sd(r, w))


class Metric:
    """`f(state) -> float`, with `.estimate(state)` for the interval."""

    def __init__(self, bench: Bench, name: str) -> None:
        attribute = name.partition("/")[2]
        self.part = copy(bench)
        self.part.attributes = (attribute,) if attribute else ()
        self.part.pairs = None if attribute else bench.pairs
        self.__name__ = name

    def estimate(self, state: Mapping[str, torch.Tensor]) -> Estimate:
        """The quantity with its interval."""
        return self.part(state)[self.__name__]

    def __call__(self, state: Mapping[str, torch.Tensor]) -> float:
        """The quantity."""
        return self.estimate(state).value


def _mean(values: np.ndarray) -> Estimate:
    mean = clustered_mean(values.astype(float), np.arange(len(values)))
    low, high, _ = mean.interval()
    return Estimate(mean.value, mean.se, low, high, mean.n_clusters)
