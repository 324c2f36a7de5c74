"""Paths between models, and what loss, accuracy and RATE effects do along them.

    path = line(a, b)                               # or bezier(a, b, loss), or direction(a, tuned, base)
    table = profile(path, {"loss": loss, "length": effect}, ts=11)
    barrier(a, b, loss), nonlinearity(a, b, effect)

A path is a callable `t -> state dict`; a metric is a callable `state dict -> float`. Accuracy and loss may be level
along a path on which an effect climbs from nothing to all of it: so look at the effects too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ratekit.checkpoints import Model, State
from ratekit.errors import InputError, WorkError, require_whole
from ratekit.merging.metrics import Estimate, Instrument, Metric
from ratekit.merging.states import check_states, combine, load_state

if TYPE_CHECKING:
    import pandas as pd
    import torch

POINTS = 11  # on a path, both ends included


@dataclass(frozen=True)
class Path:
    """A path of weights: `path(t)` is a state dict; straight, or bent by a control point `bend`.

    Straight: (1-t) start + t end, and any t goes (beyond the ends it extrapolates). Bent: the quadratic Bezier curve
    (1-t)^2 start + 2 t (1-t) bend + t^2 end. At t = 0 and t = 1 it gives the ends themselves, bit by bit.
    """

    start: State
    end: State
    bend: State | None = None
    name: str = "line"

    def __call__(self, t: float) -> dict[str, torch.Tensor]:
        """The weights at t."""
        if self.bend is None:
            return combine([self.start, self.end], [1 - t, t])
        return combine([self.start, self.bend, self.end], [(1 - t) ** 2, 2 * t * (1 - t), t * t])


def line(start: Model, end: Model, name: str = "line") -> Path:
    """The straight path from one model to another.

    State dicts or folders. InputError where the two differ in a tensor's name, shape or dtype, or a value is not
    finite.

    Examples
    --------
    >>> import torch
    >>> line({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])})(0.25)
    {'w': tensor([1.])}
    """
    a, b = load_state(start), load_state(end)
    check_states({"start": a, "end": b})
    return Path(a, b, name=name)


def direction(model: Model, tuned: Model, base: Model, name: str = "direction") -> Path:
    """The path `model + t (tuned - base)`: a multiple of another model's task vector added to this one.

    Ilharco et al. 2022 (arXiv 2212.04089): what fine-tuning taught is added, or with t < 0 taken away.

    Examples
    --------
    >>> import torch
    >>> w = lambda x: {"w": torch.tensor([x])}
    >>> direction(w(1.0), tuned=w(5.0), base=w(3.0))(-1.0)
    {'w': tensor([-1.])}
    """
    states = [load_state(m) for m in (model, tuned, base)]
    check_states(dict(zip(("model", "tuned", "base"), states, strict=True)))
    return Path(states[0], combine(states, [1.0, 1.0, -1.0]), name=name)


def bezier(
    start: Model,
    end: Model,
    loss: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    *,
    steps: int = 400,
    rate: float = 1e-3,
    seed: int = 0,
    name: str = "curve",
) -> Path:
    """A quadratic Bezier curve between two models, bent to where the loss is low.

    Only the control point is trained. Garipov et al. 2018 (arXiv 1802.10026), equation 3. Too large a rate makes a
    curve that is worse than the line (3e-3 did where 1e-3 was good), so compare the two: `connectivity` does.
    InputError where the loss is not one number with a gradient, WorkError where it becomes NaN.

    Parameters
    ----------
    loss
        a differentiable function of a state dict (with `torch.func.functional_call`), called once a step: let it draw a
        new batch of *training* data each time
    steps, rate
        of Adam on the control point, which begins halfway; each step takes the loss at a t drawn from [0, 1]

    Examples
    --------
    >>> import torch
    >>> from torch.func import functional_call
    >>> net = torch.nn.Linear(2, 1)
    >>> x, y = torch.randn(64, 2), torch.randn(64, 1)
    >>> loss = lambda state: (functional_call(net, state, (x,)) - y).square().mean()
    >>> a, b = ({k: torch.randn_like(v) for k, v in net.state_dict().items()} for _ in range(2))
    >>> curve = bezier(a, b, loss, steps=5)
    >>> torch.equal(curve(1.0)["weight"], b["weight"])
    True
    """
    import torch

    require_whole("steps", steps, 1)
    require_whole("seed", seed)
    ends = line(start, end)
    bend = {k: t.detach().clone().requires_grad_(t.is_floating_point()) for k, t in ends(0.5).items()}
    trained = [t for t in bend.values() if t.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        t = float(rng.random())
        point = {
            k: (1 - t) ** 2 * ends.start[k] + 2 * t * (1 - t) * w + t * t * ends.end[k] if w.requires_grad else w
            for k, w in bend.items()
        }
        value = loss(point)
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
            raise InputError(
                "bezier: the loss must be one number that can be differentiated in the weights it is given"
            )
        if not bool(torch.isfinite(value)):
            raise WorkError(f"bezier: the loss is {value.item()} at step {step + 1} of {steps}, t = {t:.2f}")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return Path(ends.start, ends.end, {k: t.detach() for k, t in bend.items()}, name)


def profile(
    path: Callable[[float], State], metrics: Mapping[str, Metric] | Instrument, ts: int | Sequence[float] = POINTS
) -> pd.DataFrame:
    """Every metric at every point of a path: a row each.

    Columns: t, metric, value, se, ci_low, ci_high, chord. A metric with `.estimate`, as those of RATE effects have,
    gives its interval; of a plain number se and interval are NaN. `chord` is the line between the values at the first
    and the last t: value - chord is what the path adds to its ends.

    Parameters
    ----------
    metrics
        {name: metric}, or an `Instrument`, which scores each text once for all its metrics
    ts
        points from 0 to 1, or their number

    Examples
    --------
    >>> import torch
    >>> path = line({"w": torch.tensor([0.0])}, {"w": torch.tensor([2.0])})
    >>> table = profile(path, {"square": lambda s: float(s["w"] ** 2)}, ts=3)
    >>> print(table[["t", "metric", "value", "chord"]].to_string(index=False))
      t metric  value  chord
    0.0 square    0.0    0.0
    0.5 square    1.0    2.0
    1.0 square    4.0    4.0
    """
    import pandas as pd

    points = np.linspace(0.0, 1.0, ts) if isinstance(ts, int) else np.asarray(ts, float)
    if len(points) < 2 or not np.isfinite(points).all() or (np.diff(points) <= 0).any():
        raise InputError(f"ts={ts}: at least two points, in increasing order, were expected")
    rows = []
    for t in points:
        for name, e in _measure(path(float(t)), metrics).items():
            rows.append({"t": float(t), "metric": name, "value": e.value, "se": e.se, "ci_low": e.ci_low,
                         "ci_high": e.ci_high})  # fmt: skip
    table = pd.DataFrame(rows)
    table["chord"] = np.nan
    for _, of in table.groupby("metric", sort=False):
        table.loc[of.index, "chord"] = chord(of["t"], of["value"])
    return table


def _measure(state: State, metrics: Mapping[str, Metric] | Instrument) -> Mapping[str, Estimate]:
    if not isinstance(metrics, Mapping):
        return metrics(state)
    return {name: estimate_of(metric, state) for name, metric in metrics.items()}


def estimate_of(metric: Metric, state: State) -> Estimate:
    """What a metric says of a state, with its interval where it has one. WorkError where it is not a number."""
    with_interval: Callable[[State], Estimate] | None = getattr(metric, "estimate", None)
    e = with_interval(state) if with_interval is not None else Estimate(float(metric(state)))
    if not np.isfinite(e.value):
        raise WorkError(
            f"the metric {getattr(metric, '__name__', type(metric).__name__)} is {e.value} on these weights"
        )
    return e


def chord(ts: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """The line between the first and the last value, at each t."""
    t, v = np.asarray(ts, float), np.asarray(values, float)
    share = (t - t[0]) / (t[-1] - t[0])
    return (1 - share) * v[0] + share * v[-1]


def barrier(start: Model, end: Model, loss: Metric, n: int = POINTS, path: Path | None = None) -> float:
    """The most that the loss along a path exceeds the line between its ends' losses; 0 where it never does.

    B = max_t [L(t) - ((1-t) L(0) + t L(1))] over `n` points, both ends among them; on the straight line where no
    `path` is given. Frankle et al. 2019 (arXiv 1912.05671); Entezari et al. 2021 (arXiv 2110.06296), definition 1.
    A barrier speaks of the loss alone: models without one may reward quite different things, and (Lubana et al. 2022,
    arXiv 2211.08422) models with one do use different mechanisms.

    Examples
    --------
    >>> import torch
    >>> w = lambda x: {"w": torch.tensor([x])}
    >>> barrier(w(-1.0), w(1.0), lambda s: float((s["w"] ** 2 - 1) ** 2))  # two minima and a hill of height 1
    1.0
    """
    ts, values = _along(path or line(start, end), loss, n)
    return float((values - chord(ts, values)).max())


def nonlinearity(start: Model, end: Model, metric: Metric, n: int = POINTS, path: Path | None = None) -> float:
    """How far a metric strays from the line between its ends' values: the deviation that is largest in size, signed.

    In the metric's units. RATE is linear in the rewards, so where the reward is linear in its weights every raw effect
    (in reward units) is on the chord; one in reward SDs is not, for the SD along the path is not linear.

    Examples
    --------
    >>> import torch
    >>> path = line({"w": torch.tensor([0.0])}, {"w": torch.tensor([2.0])})
    >>> nonlinearity(path.start, path.end, lambda s: float(s["w"] ** 2), n=5)  # halfway 1, where the chord has 2
    -1.0
    """
    ts, values = _along(path or line(start, end), metric, n)
    away = values - chord(ts, values)
    return float(away[np.abs(away).argmax()])


def _along(path: Callable[[float], State], metric: Metric, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    require_whole("n", n, 3, why="the two ends and one between")
    ts = np.linspace(0.0, 1.0, n)
    return ts, np.array([estimate_of(metric, path(float(t))).value for t in ts])
