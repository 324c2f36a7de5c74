"""Four questions about a loss landscape, each answered in numbers: convexity, determinism, directedness, connectivity.

The four names are those of the survey "Deep Model Merging" (Khan et al. 2024, arXiv 2410.12927). Each is measured by a
working definition of this module: convexity by the gap of Jensen's inequality over mixes of the models (after Gueta et
al. 2023, arXiv 2302.04863), determinism by the barrier between runs that part at a step (Frankle et al. 2019, arXiv
1912.05671), directedness by the angles between task vectors and by what the metric does along them and along random
directions (after He et al. 2019, arXiv 1902.00744), connectivity by the loss barrier of the best path found (Garipov et
al. 2018, arXiv 1802.10026; Entezari et al. 2021, arXiv 2110.06296). Any metric may stand for the loss, a RATE effect
too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ratekit.checkpoints import Model, State
from ratekit.errors import InputError, require_whole
from ratekit.merging.alignment import align, heads_of
from ratekit.merging.landscape import POINTS, Path, barrier, bezier, line
from ratekit.merging.metrics import Metric
from ratekit.merging.states import check_states, combine, load_state

if TYPE_CHECKING:
    import pandas as pd
    import torch


@dataclass(frozen=True)
class Convexity:
    """Loss of random convex mixes less the same mix of the losses: the largest gap, the mean, and every one (n,)."""

    worst: float
    mean: float
    gaps: NDArray[np.float64]


def convexity(models: Sequence[Model], loss: Metric, *, n: int = 30, seed: int = 0) -> Convexity:
    """Mode convexity: are mixes of these models no worse than the average of what is mixed?

    The gap of a mix is L(sum w_i theta_i) - sum w_i L(theta_i), with w uniform on the simplex (Dirichlet(1)); where the
    loss is convex over the models' hull no gap exceeds 0 (Jensen). `n` mixes are drawn. Working definition after
    Gueta et al. 2023 (arXiv 2302.04863: fine-tuned models fill a region, and those between them do as well) and model
    soups (Wortsman et al. 2022, arXiv 2203.05482).

    Examples
    --------
    >>> import torch
    >>> w = lambda x: {"w": torch.tensor([x])}
    >>> convexity([w(-1.0), w(0.0), w(2.0)], lambda s: float(s["w"] ** 2)).worst <= 0  # a quadratic is convex
    True
    """
    states = _states(models)
    require_whole("n", n, 1)
    require_whole("seed", seed)
    if len(states) < 2:
        raise InputError(f"convexity: two models at least are needed, not {len(states)}")
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(states)), n)
    losses = np.array([float(loss(state)) for state in states])
    gaps = np.array([float(loss(combine(states, list(map(float, w))))) for w in weights]) - weights @ losses
    return Convexity(float(gaps.max()), float(gaps.mean()), gaps)


@dataclass(frozen=True)
class Determinism:
    """From which step on two runs that part end in one mode.

    Parameters
    ----------
    decided_at
        the first step at which they do, and at all later ones; NaN if at none
    table
        a row for each step and pair of runs: step, run, other, barrier, distance
    """

    decided_at: float
    table: pd.DataFrame


def determinism(
    run: Callable[[int, int], Model],
    steps: Sequence[int],
    loss: Metric,
    *,
    runs: Sequence[int] = (0, 1),
    tolerance: float = 0.01,
    n: int = POINTS,
) -> Determinism:
    """Mode determinism: how early in training is it decided which mode a run ends in?

    Instability analysis, Frankle et al. 2019 (arXiv 1912.05671), with the barrier as its error; Fort et al. 2020
    (arXiv 2010.15110). A barrier of 0 says one mode of the loss, not one behaviour (Juneja et al. 2022, arXiv
    2205.12411): profile the effects between the ends to see that.

    Parameters
    ----------
    run
        (step, seed) -> the model at the end of a run that shares its first `step` steps with all others and goes on
        with the order of data that the seed gives
    steps
        at which runs part; runs: the seeds; each two of one step are compared
    tolerance
        the largest barrier at which two ends count as one mode

    Examples
    --------
    >>> import torch
    >>> ends = lambda step, seed: {"w": torch.tensor([1.0 if step > 10 or seed else -1.0])}  # decided after step 10
    >>> determinism(ends, [0, 10, 20], lambda s: float((s["w"] ** 2 - 1) ** 2)).decided_at
    20.0
    """
    import pandas as pd

    if len(runs) < 2 or not len(steps):
        raise InputError("determinism: two runs and one step at least")
    rows = []
    for step in sorted(steps):
        ends = [load_state(run(step, seed)) for seed in runs]
        for i, a in enumerate(ends):
            for j in range(i + 1, len(ends)):
                rows.append({"step": step, "run": runs[i], "other": runs[j], "barrier": barrier(a, ends[j], loss, n),
                             "distance": _norm(_difference(a, ends[j]))})  # fmt: skip
    table = pd.DataFrame(rows)
    decided = float("nan")
    for step in sorted(steps, reverse=True):
        if (table.loc[table["step"] == step, "barrier"] > tolerance).any():
            break
        decided = float(step)
    return Determinism(decided, table)


@dataclass(frozen=True)
class Directedness:
    """Whether a few directions govern the models.

    Parameters
    ----------
    cosines
        between the task vectors, a labelled square
    first_share
        share of the task vectors' summed squared lengths along their first principal direction (no mean is taken out):
        1/k for k orthogonal ones of one length, 1 where all point one way
    rise_task
        what the metric changes from the base to one task vector away, a mean over the models
    rise_random
        the same along random directions, as long in every tensor
    """

    cosines: pd.DataFrame
    first_share: float
    rise_task: float
    rise_random: float


def directedness(
    models: Mapping[str, Model] | Sequence[Model], base: Model, metric: Metric, *, n: int = 3, seed: int = 0
) -> Directedness:
    """Mode directedness: do a few directions govern the loss, or the behaviour?

    Working definition after He et al. 2019 (asymmetric valleys, arXiv 1902.00744: some directions matter and others do
    not) and task vectors (Ilharco et al. 2022, arXiv 2212.04089). Random directions have the task
    vector's norm in each tensor (after the filter normalisation of Li et al. 2017, arXiv 1712.09913).

    Parameters
    ----------
    metric
        a loss, or a RATE effect: along whose task vectors does it move, and does it along any direction?
    n
        random directions for each model

    Examples
    --------
    >>> import torch
    >>> w = lambda *x: {"w": torch.tensor(x)}
    >>> found = directedness([w(1.0, 0.0), w(0.0, 1.0)], w(0.0, 0.0), lambda s: float(s["w"].sum()))
    >>> round(float(found.cosines.iloc[0, 1]), 3), round(found.first_share, 3), found.rise_task
    (0.0, 0.5, 1.0)
    """
    import pandas as pd
    import torch

    named = dict(models) if isinstance(models, Mapping) else {f"model {i + 1}": m for i, m in enumerate(models)}
    require_whole("n", n, 1)
    require_whole("seed", seed)
    if len(named) < 2:
        raise InputError(f"directedness: two models at least are needed, not {len(named)}")
    root, *states = _states([base, *named.values()])
    vectors = [_difference(state, root) for state in states]
    flat = torch.stack([torch.cat([t.flatten() for t in v.values()]) for v in vectors])
    norms = flat.norm(dim=1)
    if not bool((norms > 0).all()):
        raise InputError(f"{list(named)[int((norms == 0).nonzero()[0])]} is the base itself: no task vector")
    gram = (flat @ flat.T).numpy()
    size = norms.numpy()
    at_base = float(metric(root))
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for vector in vectors:
        for _ in range(n):
            step = dict(root)
            for name, tensor in vector.items():
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                length = tensor.norm() / noise.norm().clamp_min(1e-12)
                step[name] = (root[name].double() + length * noise).to(root[name].dtype)
            drawn.append(float(metric(step)) - at_base)
    return Directedness(
        pd.DataFrame(gram / np.outer(size, size), index=list(named), columns=list(named)),
        float(np.linalg.eigvalsh(gram)[-1] / np.trace(gram)),
        float(np.mean([float(metric(state)) - at_base for state in states])),
        float(np.mean(drawn)),
    )


@dataclass(frozen=True)
class Connectivity:
    """The paths between two models that were tried.

    table  a row for each: path, aligned, curved, barrier, end_shift (the loss of the aligned end less that of the end:
           0, or the alignment changed the function)
    best   the path of the lowest barrier; paths: all of them by name
    """

    table: pd.DataFrame
    best: Path
    paths: dict[str, Path]


def connectivity(
    start: Model,
    end: Model,
    loss: Metric,
    *,
    train_loss: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None = None,
    aligned: bool = True,
    heads: int | None = None,
    restarts: int = 4,
    steps: int = 400,
    rate: float = 1e-3,
    seed: int = 0,
    n: int = POINTS,
) -> Connectivity:
    """Mode connectivity: is there a path of low loss, straight or bent, as the units stand or put in order?

    Curves: Garipov et al. 2018 (arXiv 1802.10026). Modulo permutations: Entezari et al. 2021 (arXiv 2110.06296),
    Ainsworth et al. 2022 (arXiv 2209.04836). The best of line and curve is taken since a curve may come out worse.

    Parameters
    ----------
    train_loss
        differentiable, on training data: then curves are tried too (`bezier`, with `steps` and `rate`)
    aligned
        try paths to the aligned end, too (`align`, with `heads`, `restarts`; judged by `loss` halfway)

    Examples
    --------
    >>> import torch
    >>> w = lambda x: {"w": torch.tensor([x])}
    >>> hill = lambda s: float((s["w"] ** 2 - 1) ** 2)
    >>> connectivity(w(-1.0), w(1.0), hill, aligned=False).table[["path", "barrier"]].values.tolist()
    [['line', 1.0]]
    """
    import pandas as pd

    straight = line(start, end)
    ends = {"": straight}
    if aligned:
        heads = heads or heads_of(start) or heads_of(end)
        in_order = align(straight.start, straight.end, heads=heads, restarts=restarts, seed=seed, judge=loss).state
        ends["aligned "] = Path(straight.start, in_order, name="aligned line")
    paths = {}
    for prefix, path in ends.items():
        paths[f"{prefix}line"] = path
        if train_loss is not None:
            curve = bezier(path.start, path.end, train_loss, steps=steps, rate=rate, seed=seed, name=f"{prefix}curve")
            paths[curve.name] = curve
    at_end = float(loss(straight.end))
    table = pd.DataFrame([
        {"path": name, "aligned": name.startswith("aligned"), "curved": name.endswith("curve"),
         "barrier": barrier(path.start, path.end, loss, n, path=path),
         "end_shift": float(loss(path.end)) - at_end if name.startswith("aligned") else 0.0}
        for name, path in paths.items()
    ])  # fmt: skip
    return Connectivity(table, paths[str(table.loc[table["barrier"].idxmin(), "path"])], paths)


def _states(models: Sequence[Model]) -> list[dict[str, torch.Tensor]]:
    states = [load_state(m) for m in models]
    check_states({f"model {i}": s for i, s in enumerate(states, 1)})
    return states


def _difference(a: State, b: State) -> dict[str, torch.Tensor]:
    return {k: a[k].double() - b[k].double() for k in a if a[k].is_floating_point()}


def _norm(vector: Mapping[str, torch.Tensor]) -> float:
    return float(sum(float(t.square().sum()) for t in vector.values())) ** 0.5
