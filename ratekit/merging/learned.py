"""What is made of reward models by looking at data: outputs averaged, a soup that a metric chooses, Fisher, RegMean.

    ensemble([rewards_a, rewards_b])              (n,) the mean of the standardised rewards
    greedy(["rm-a", "rm-b", "rm-c"], accuracy)    the average of those that help
    fisher([a, b], [fisher_information(net_a, batches, loss), fisher_information(net_b, batches, loss)])
    regmean([a, b], [gram_matrices(net_a, batches, run), gram_matrices(net_b, batches, run)])
    learned("regmean", {"a": "rm-a", "b": "rm-b"}, instrument)     from an instrument's preference pairs

RegMean is what least squares on the pooled data would give where the model is linear; so is Fisher where the inputs are
uncorrelated besides, for it keeps the diagonal alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ratekit.checkpoints import Model, State
from ratekit.errors import InputError
from ratekit.estimators import Floats
from ratekit.merging.mergers import MergePlan, merge
from ratekit.merging.metrics import Instrument, Metric, RewardOf
from ratekit.merging.states import check_states, load_state, named_models, shared_tensor, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("ratekit")

_Batch = Any
LEARNED = {
    "greedy": "the average of those that help, chosen on the pairs (arXiv 2203.05482)",
    "fisher": "entries weighed by the squared gradients on the pairs (arXiv 2111.09832)",
    "regmean": "linear layers fitted to all models' outputs on the pairs' texts (arXiv 2212.09849)",
}


def ensemble(rewards: Sequence[ArrayLike], reference: Sequence[ArrayLike] | None = None) -> Floats:
    """The mean over models of their standardised rewards: each less its mean, in its SDs.

    NaN where any model has none. An ensemble keeps what its members have in common, their errors too (Eisenstein et al.
    2023, arXiv 2312.09244).

    Parameters
    ----------
    rewards
        k arrays of one shape, NaN where a text was not scored; the scale of a reward is its model's own, so that
        without standardising the widest would decide alone
    reference
        k arrays whose mean and SD (ddof 1) are taken, by default the rewards themselves: the original responses' where
        the rewards are those of rewrites

    Raises
    ------
    InputError
        Where a model's rewards do not vary.

    Examples
    --------
    >>> ensemble([[0.0, 2.0, 4.0], [300.0, 200.0, 100.0]])
    array([0., 0., 0.])
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

    Recipe 1 of Wortsman et al. 2022 (arXiv 2203.05482). Choose on data that the result is not judged on.

    Raises
    ------
    InputError
        For models that do not belong together, before the first is measured.

    Examples
    --------
    >>> import torch
    >>> states = {"a": {"w": torch.tensor([0.0])}, "b": {"w": torch.tensor([2.0])}, "c": {"w": torch.tensor([9.0])}}
    >>> soup = greedy(states, lambda state: -abs(float(state["w"]) - 0.8))
    >>> soup.members, float(soup.state["w"])
    (['a', 'b'], 1.0)
    """
    given = named_models(models)
    if not given:
        raise InputError("nothing to choose from: no model was given")
    MergePlan(given, "soup")
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

    Examples
    --------
    >>> import torch
    >>> wise_ft({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)
    {'w': tensor([1.])}
    """
    return merge([tuned], "wise_ft", base, alpha=alpha)


def fisher(states: Sequence[State], information: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """sum_i F_i theta_i / sum_i F_i, entry by entry (Matena and Raffel 2021, arXiv 2111.09832, equation 2).

    Parameters
    ----------
    states
        k state dicts; information: for each the diagonal of its Fisher information, of the tensors' shapes. A tensor
        without it, and an entry of which no model knows anything, is averaged

    Raises
    ------
    InputError
        For a tensor whose information has another shape, or is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> a, b = {"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([4.0, 4.0])}
    >>> fisher([a, b], [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 0.0])}])
    {'w': tensor([3., 2.])}
    """
    import torch

    if len(information) != len(states):
        raise InputError(f"{len(states)} models and the information of {len(information)}; one each was expected")
    merged = _averages(states)
    for name in _weighed(states, information):
        tensors, mean = [s[name] for s in states], merged[name]
        weights = [f[name].double() for f in information]
        for place, weight in enumerate(weights, 1):
            if weight.shape != tensors[0].shape or not bool((weight >= 0).all()) or not bool(weight.isfinite().all()):
                raise InputError(
                    f"the information about {name} of model {place} is no array of {tuple(tensors[0].shape)} numbers "
                    "from 0 up"
                )
        total = torch.stack(weights).sum(0)
        pooled = sum((w * t.double() for w, t in zip(weights, tensors, strict=True)), torch.zeros_like(total))
        known = total > 0
        merged[name] = torch.where(known, pooled / torch.where(known, total, 1.0), mean.double()).to(mean.dtype)
    return merged


def regmean(
    states: Sequence[State], grams: Sequence[Mapping[str, Tensor]], *, shrink: float = 1.0
) -> dict[str, Tensor]:
    """W = (sum_i W_i G_i) (sum_i G_i)^-1 for each linear layer, G_i = X_i' X_i of its inputs; the rest is averaged.

    Jin et al. 2022 (arXiv 2212.09849, equation 2). Directions that no input has keep the models' average.

    Parameters
    ----------
    states
        k state dicts; grams: for each, weight name -> (inputs, inputs), as `gram_matrices` makes them
    shrink
        what off-diagonal entries are multiplied by; 1 is least squares, the paper takes 0.9 for what is not linear

    Raises
    ------
    InputError
        For a gram matrix of another size.

    Examples
    --------
    >>> import torch
    >>> a, b = {"w": torch.tensor([[0.0]])}, {"w": torch.tensor([[4.0]])}
    >>> regmean([a, b], [{"w": torch.tensor([[1.0]])}, {"w": torch.tensor([[3.0]])}])
    {'w': tensor([[3.]])}
    """
    import torch

    if len(grams) != len(states):
        raise InputError(f"{len(states)} models and the gram matrices of {len(grams)}; one each was expected")
    if not 0 <= shrink <= 1:
        raise InputError(f"shrink={shrink}; a number between 0 and 1 was expected")
    merged = _averages(states)
    for name in _weighed(states, grams):
        tensors, mean = [s[name] for s in states], merged[name]
        if mean.dim() != 2:
            continue
        size = tensors[0].shape[1]
        inputs = []
        for place, given in enumerate(grams, 1):
            if given[name].shape != (size, size):
                raise InputError(
                    f"the gram matrix of {name} of model {place} is {tuple(given[name].shape)}, not {(size, size)}"
                )
            gram = given[name].double()
            inputs.append(shrink * gram + (1 - shrink) * torch.diag(gram.diagonal()))
        # The change from the average: a direction without inputs changes nothing.
        change = sum(
            ((t.double() - mean.double()) @ g for t, g in zip(tensors, inputs, strict=True)),
            torch.zeros(tensors[0].shape, dtype=torch.float64),
        )
        total = torch.stack(inputs).sum(0)
        merged[name] = (mean.double() + change @ torch.linalg.pinv(total, hermitian=True)).to(mean.dtype)
    return merged


def _averages(states: Sequence[State]) -> dict[str, Tensor]:
    """Every tensor averaged; what is no floating-point number has to agree."""
    check_states({f"model {i}": s for i, s in enumerate(states, 1)})
    merged: dict[str, Tensor] = {}
    for name in states[0]:
        tensors = [s[name] for s in states]
        if tensors[0].is_floating_point():
            merged[name] = weighted_sum(name, tensors, [1 / len(states)] * len(states))
        else:
            merged[name] = shared_tensor(name, tensors)
    return merged


def _weighed(states: Sequence[State], known: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """The floating-point tensors of which something is known in every model."""
    return [name for name, t in states[0].items() if t.is_floating_point() and all(name in k for k in known)]


def fisher_information(
    network: Any, batches: Iterable[_Batch], loss: Callable[[Any, _Batch], Tensor]
) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information: the mean over batches of the squared gradient of the loss.

    Parameters
    ----------
    network
        a torch module; batches: one example each gives the information itself, larger ones a lower estimate
    loss
        (network, batch) -> scalar, a negative log likelihood
    """
    import torch

    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in network.named_parameters()}
    n = 0
    for batch in batches:
        network.zero_grad()
        loss(network, batch).backward()
        n += 1
        for name, p in network.named_parameters():
            if p.grad is not None:
                total[name] += p.grad.float().square()
    network.zero_grad()
    if not n:
        raise InputError("no data, so no information: a Fisher merge weighs weights by what batches say of them")
    return {name: (t / n).cpu() for name, t in total.items()}  # where the models' own weights are


def gram_matrices(network: Any, batches: Iterable[_Batch], run: Callable[[Any, _Batch], object]) -> dict[str, Tensor]:
    """X'X of the inputs of every linear layer, by the name of its weight: (inputs, inputs), float32.

    Parameters
    ----------
    run
        (network, batch) -> anything: a forward pass. Padding counts as input, so leave it out
    """
    import torch

    grams: dict[str, Tensor] = {}
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear):

            def add(_: Any, args: tuple[Tensor, ...], weight: str = f"{name}.weight" if name else "weight") -> None:
                x = args[0].detach().reshape(-1, args[0].shape[-1]).float()
                grams[weight] = grams[weight] + x.T @ x if weight in grams else x.T @ x

            hooks.append(layer.register_forward_pre_hook(add))
    try:
        with torch.no_grad():
            for batch in batches:
                run(network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: gram.cpu() for name, gram in grams.items()}


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
