"""Merges that look at preference pairs: a greedy soup by accuracy; Fisher and RegMean of reward models.

learned("regmean", {"a": "rm-a", "b": "rm-b"}, pairs, reward_from("rm-a"))     a state dict
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ratekit.checkpoints import Model, State
from ratekit.errors import InputError
from ratekit.merging.ensembles import greedy
from ratekit.merging.information import fisher, fisher_information, gram_matrices, regmean
from ratekit.merging.metrics import Instrument
from ratekit.merging.rewards import RewardOf
from ratekit.merging.states import load_state

if TYPE_CHECKING:
    from torch import Tensor

LEARNED = {
    "greedy": "the average of those that help, chosen on the pairs (arXiv 2203.05482)",
    "fisher": "entries weighed by the squared gradients on the pairs (arXiv 2111.09832)",
    "regmean": "linear layers fitted to all models' outputs on the pairs' texts (arXiv 2212.09849)",
}


def learned(name: str, models: Mapping[str, Model], instrument: Instrument) -> dict[str, Tensor]:
    """The merge of that name, from the pairs of an instrument.

    A Fisher or RegMean merge needs a network: the instrument's rewards must be of a model folder (`reward_from`).
    """
    if name == "greedy":
        return greedy(models, instrument.metric("accuracy")).state
    states = {model: load_state(what) for model, what in models.items()}
    if name == "fisher":
        return fisher(list(states.values()), [_information(instrument, s) for s in states.values()])
    return regmean(list(states.values()), [_grams(instrument, s) for s in states.values()])


def _information(instrument: Instrument, state: State) -> dict[str, Tensor]:
    """Fisher information of the Bradley-Terry model: the squared gradient of log sigmoid(r_chosen - r_rejected)."""
    import torch

    network, encoded = _network(instrument.reward_of, state, instrument)

    def loss(net: Any, pair: tuple[Any, Any]) -> Tensor:
        chosen, rejected = (_logit(net, text) for text in pair)
        return -torch.nn.functional.logsigmoid(chosen - rejected)

    return fisher_information(network, encoded, loss)


def _grams(instrument: Instrument, state: State) -> dict[str, Tensor]:
    network, encoded = _network(instrument.reward_of, state, instrument)
    run: Callable[[Any, Any], Tensor] = _logit
    return gram_matrices(network, (text for pair in encoded for text in pair), run)


def _network(reward_of: RewardOf, state: State, instrument: Instrument) -> tuple[Any, list[tuple[Any, Any]]]:
    """The network of a state dict as `transformers` runs it, and both texts of each pair as it gets them."""
    plain = getattr(reward_of, "plain", None)
    if plain is None:
        raise InputError("fisher and regmean look into a network: give model folders, not a function of state dicts")
    reward = plain(state)
    prompts = [p for p, _, _ in instrument.pairs]
    sides = [reward.encode(prompts, [pair[k] for pair in instrument.pairs])[0] for k in (1, 2)]
    return reward.model, [pair for pair in zip(*sides, strict=True) if None not in pair]


def _logit(network: Any, text: Any) -> Tensor:
    import torch

    inputs = {"input_ids": torch.tensor([text.ids], device=network.device)}
    if text.types:
        inputs["token_type_ids"] = torch.tensor([text.types], device=network.device)
    logit: Tensor = network(**inputs).logits[0, -1]  # the only output, or the positive of two
    return logit
