"""Merges that weigh each weight by what its model's data say about it: Fisher and RegMean.

    fisher([a, b], [fisher_information(net_a, batches, loss), fisher_information(net_b, batches, loss)])
    regmean([a, b], [gram_matrices(net_a, batches, run), gram_matrices(net_b, batches, run)])

Both are what least squares on the pooled data would give, where the model is linear: RegMean exactly, Fisher where the
inputs are uncorrelated, for it keeps the diagonal alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratekit.checkpoints import State
from ratekit.errors import InputError
from ratekit.merging.states import agreed, check_states, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

Batch = Any


def fisher(states: Sequence[State], information: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """sum_i F_i theta_i / sum_i F_i, entry by entry (Matena and Raffel 2021, arXiv 2111.09832, equation 2).

    >>> import torch
    >>> a, b = {"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([4.0, 4.0])}
    >>> fisher([a, b], [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([3.0, 0.0])}])
    {'w': tensor([3., 2.])}

    states       k state dicts; information: for each the diagonal of its Fisher information, of the tensors' shapes. A
                 tensor without it, and an entry of which no model knows anything, is averaged

    Raises InputError for a tensor whose information has another shape, or is negative or not finite.
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

    >>> import torch
    >>> a, b = {"w": torch.tensor([[0.0]])}, {"w": torch.tensor([[4.0]])}
    >>> regmean([a, b], [{"w": torch.tensor([[1.0]])}, {"w": torch.tensor([[3.0]])}])
    {'w': tensor([[3.]])}

    states  k state dicts; grams: for each, weight name -> (inputs, inputs), as `gram_matrices` makes them
    shrink  what off-diagonal entries are multiplied by; 1 is least squares, the paper takes 0.9 for what is not linear

    Jin et al. 2022 (arXiv 2212.09849, equation 2). Directions that no input has keep the models' average. Raises
    InputError for a gram matrix of another size.
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
            merged[name] = agreed(name, tensors)
    return merged


def _weighed(states: Sequence[State], known: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """The floating-point tensors of which something is known in every model."""
    return [name for name, t in states[0].items() if t.is_floating_point() and all(name in k for k in known)]


def fisher_information(
    network: Any, batches: Iterable[Batch], loss: Callable[[Any, Batch], Tensor]
) -> dict[str, Tensor]:
    """The diagonal of the empirical Fisher information: the mean over batches of the squared gradient of the loss.

    network  a torch module; batches: one example each gives the information itself, larger ones a lower estimate
    loss     (network, batch) -> scalar, a negative log likelihood
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
    return {name: t / n for name, t in total.items()}


def gram_matrices(network: Any, batches: Iterable[Batch], run: Callable[[Any, Batch], object]) -> dict[str, Tensor]:
    """X'X of the inputs of every linear layer, by the name of its weight: (inputs, inputs), float32.

    run  (network, batch) -> anything: a forward pass. Padding counts as input, so leave it out
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
    return grams
