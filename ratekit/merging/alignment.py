"""Weight matching: put the units of one model into the order of another, without changing what it computes.

Two networks trained from different initialisations may compute the same with their units in different places; the
straight line between their weights then leads through models that compute nothing. Matching undoes that.

Source: Ainsworth, Hayase and Srinivasa 2022 (Git Re-Basin, arXiv 2209.04836), algorithm 1 ("permutation coordinate
descent"): for one group of units at a time, a linear assignment that makes the inner product of the weights largest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.checkpoints import Model, State, open_state
from ratekit.errors import require_whole
from ratekit.merging.states import check_states, line_state
from ratekit.merging.symmetries import Symmetries, permuted, reordered, symmetries_of

if TYPE_CHECKING:
    import torch

    from ratekit.merging.metrics import Metric

SWEEPS = 100  # over the groups; the similarity rises with each, and in practice under ten are needed


@dataclass(frozen=True)
class Alignment:
    """A model put into the order of another.

    Parameters
    ----------
    state
        the aligned weights: the same function
    permutations
        by group of units; unit k of the aligned model is what unit `permutations[group][k]` was
    distance
        Euclidean distance of all weights to the reference, `distance_before` what it was
    restarts
        the distance that each restart came to, the first from the order that was given
    """

    state: dict[str, torch.Tensor]
    permutations: dict[str, NDArray[np.int64]]
    distance: float
    distance_before: float
    restarts: tuple[float, ...]


def align(
    reference: Model,
    model: Model,
    *,
    heads: int | None = None,
    symmetries: Symmetries | None = None,
    restarts: int = 4,
    seed: int = 0,
    judge: Metric | None = None,
) -> Alignment:
    """Permute the units of `model` so that its weights come as near to those of `reference` as can be found.

    InputError where the two differ in a tensor's name or shape, where a value is not finite, or where the symmetries
    do not fit.

    Parameters
    ----------
    reference, model
        state dicts or model folders, of one architecture
    heads
        key-value heads of a transformer, see `symmetries_of`, which finds what may be permuted; a folder's config says
        it
    symmetries
        of an architecture that it does not know
    restarts
        from how many orders to climb: the one given and random ones. The climb ends in a local optimum, and for models
        trained apart the restarts differ
    judge
        which restart is taken: the least value of this metric halfway between `reference` and the aligned model (its
        loss, say); by default the least distance, which needs no data and foretells little

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).state_dict()
    >>> from ratekit.merging.symmetries import shuffled, symmetries_of
    >>> align(net, shuffled(net, symmetries_of(net), seed=1)).distance
    0.0
    """
    require_whole("restarts", restarts, 1)
    require_whole("seed", seed)
    heads = heads or heads_of(reference) or heads_of(model)
    reference, model = open_state(reference), open_state(model)
    check_states({"reference": reference, "model": model})
    symmetries = symmetries or symmetries_of(reference, heads)
    symmetries.check(reference)
    rng = np.random.default_rng(seed)
    found = []
    for restart in range(restarts):
        start = {g: rng.permutation(n) if restart else np.arange(n) for g, n in symmetries.units.items()}
        permutations = _climb(reference, model, symmetries, start, rng)
        state = permuted(model, permutations, symmetries)
        found.append((state, permutations, _distance(reference, state)))
    if judge is None:
        best = min(range(restarts), key=lambda k: found[k][2])
    else:
        best = min(range(restarts), key=lambda k: judge(line_state(reference, found[k][0], 0.5)))
    state, permutations, distance = found[best]
    return Alignment(state, permutations, distance, _distance(reference, model), tuple(d for _, _, d in found))


def _climb(
    reference: State,
    model: State,
    symmetries: Symmetries,
    start: dict[str, NDArray[np.int64]],
    rng: np.random.Generator,
) -> dict[str, NDArray[np.int64]]:
    """Assign one group after the other, in random order, until no group gains."""
    from scipy.optimize import linear_sum_assignment

    permutations = dict(start)
    for _ in range(SWEEPS):
        moved = False
        for group in rng.permutation(sorted(permutations)):
            gain = _similarities(reference, model, symmetries, permutations, str(group))
            now, new = permutations[group], linear_sum_assignment(gain, maximize=True)[1]
            units = np.arange(len(now))
            # Ties are common (and rounding makes near-ties): moving for nothing would never end.
            if gain[units, new].sum() > gain[units, now].sum() + 1e-7 * np.abs(gain).sum() / len(now):
                permutations[group], moved = new, True
        if not moved:
            break
    return permutations


def _similarities(
    reference: State, model: State, symmetries: Symmetries, permutations: Mapping[str, Any], group: str
) -> NDArray[np.float64]:
    """(n, n): inner products of unit i of the reference and unit j of the model, the other groups in their order."""
    n = symmetries.units[group]
    total = np.zeros((n, n))
    for name, axis in symmetries.tensors_of(group):
        a, b = reference[name].float(), model[name].float()
        for other, of in enumerate(symmetries.axes[name]):
            if of is not None and other != axis:
                b = reordered(b, other, permutations[of])
        rows_a, rows_b = (x.movedim(axis, 0).reshape(n, -1) for x in (a, b))
        total += (rows_a @ rows_b.T).double().cpu().numpy()
    return total


def _distance(a: State, b: State) -> float:
    return (
        float(sum(float((a[k].double() - b[k].double()).square().sum()) for k in a if a[k].is_floating_point())) ** 0.5
    )


def heads_of(model: Model) -> int | None:
    """The heads that may change places, of a model folder: its config's key-value heads; None of a state dict."""
    if not isinstance(model, str | Path):
        return None
    try:
        config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = config.get("num_key_value_heads") or config.get("num_attention_heads") or config.get("n_heads")
    return int(found) if found else None
