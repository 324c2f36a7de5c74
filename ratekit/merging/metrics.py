"""What a state dict is worth: a metric is `f(state_dict) -> float`, and a RATE effect is one, like loss and accuracy.

    effect = effect_metric("rm-a", ds, "length")    # the folder gives architecture, tokenizer and reading
    effect(state)                                   # in reward SDs; effect.estimate(state) has the interval

Each text is scored by ratekit's own engine, the state dict loaded into the folder's architecture. An `Instrument` reads
everything off one scoring.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ratekit.checkpoints import State
from ratekit.errors import InputError, WorkError, require_known, unknown
from ratekit.estimators import ESTIMANDS, ESTIMATORS, Floats, clustered_mean, effects
from ratekit.groups import Group, groups, reward_matrix
from ratekit.lora import Lora, is_adapter
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWARD_PREFIX,
    REWRITES,
    TREATED,
    listed,
)
from ratekit.scoring.base import Reward
from ratekit.scoring.engine import score_dataset
from ratekit.scoring.store import ScoreStore
from ratekit.sources import as_dataset
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    from datasets import Dataset

    from ratekit.scoring.model import RewardModel

log = logging.getLogger("ratekit")

Metric = Callable[[State], float]
RewardOf = Callable[[State], Reward]
_NAME = "model"  # of the reward column while one state is measured


class Estimate(NamedTuple):
    """A number with its standard error and interval; NaN where there is none."""

    value: float
    se: float = float("nan")
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    n: int = 0


class Instrument:
    """All that is read off one model: loss and accuracy on preference pairs, a RATE effect for each attribute.

    >>> measure = Instrument("rm-a", ds, pairs)  # doctest: +SKIP
    >>> measure(state)["effect/length"].value  # doctest: +SKIP
    0.41

    Parameters
    ----------
    reward_of : str, Path or callable
        A model folder, or a function that makes a reward of a state dict.
    dataset : Dataset, optional
        Labelled and rewritten rows, for the effects.
    pairs : optional
        Preference pairs (`read_pairs`), for loss and accuracy.
    attributes : sequence of str, optional
        Which of the dataset's; all by default.
    estimator : str
        A name in `rk.ESTIMATORS`.
    estimand : {"ate", "att", "atu"}, optional
        By default what the rows of an attribute have: "ate" where they are of both classes, else the effect on the
        class that they are of. `estimands` says which.
    unit : {"sd", "reward"}
        The reward's own SDs (the pooled within-class SD of the original responses), or reward units.

    Raises
    ------
    InputError
        Where there is nothing to measure: no pairs, and rows (all of one class, not rewritten far enough) from which
        no attribute's effect can be estimated. Nothing is scored before that is known.

    Notes
    -----
    Quantities, in the order of `names`: "loss" is the mean of -log sigmoid(r_chosen - r_rejected) (Bradley and Terry
    1952), "accuracy" the share of pairs with r_chosen > r_rejected (a tie counts half), "effect/<name>" an effect.
    Intervals are clustered by prompt. `rk.contrast` on `score`'s dataset compares two models on the same rows. A call
    gives a dict of `Estimate`; each text is scored once.
    """

    def __init__(
        self,
        reward_of: RewardOf | str | Path,
        dataset: Dataset | None = None,
        pairs: Any = None,
        attributes: Sequence[str] | None = None,
        *,
        estimator: str = "rate",
        estimand: str | None = None,
        unit: str = "sd",
    ) -> None:
        require_known("estimator", estimator, ESTIMATORS)
        if estimand is not None and estimand not in ESTIMATORS[estimator].estimands:
            raise unknown(
                "estimand", estimand, ESTIMANDS, f"{estimator} has {', '.join(ESTIMATORS[estimator].estimands)}"
            )
        require_known("unit", unit, ("sd", "reward"))
        if dataset is None and pairs is None:
            raise InputError("nothing to measure: give a dataset with rewrites, preference pairs, or both")
        self.reward_of = reward_from(reward_of) if isinstance(reward_of, str | Path) else reward_of
        self.estimator, self.unit = estimator, unit
        self.pairs = read_pairs(pairs) if pairs is not None else []
        self.dataset = _rows_of(dataset, attributes) if dataset is not None else None
        self.attributes = list(dict.fromkeys(self.dataset[ATTRIBUTE])) if self.dataset is not None else []
        self.estimands, self.lacking = self._had(estimand) if self.dataset is not None else ({}, {})

    @property
    def names(self) -> list[str]:
        """The quantities, in order."""
        of_pairs = ["loss", "accuracy"] if self.pairs else []
        return [*of_pairs, *(f"effect/{a}" for a in self.estimands)]

    def _had(self, asked: str | None) -> tuple[dict[str, str], dict[str, str]]:
        """The estimand of each attribute's effect, and why there is none of the others: tried on made-up rewards."""
        assert self.dataset is not None
        rng = np.random.default_rng(0)
        chains = self.dataset[REWRITES]
        depth = 1 + max(len(chain or ()) for chain in chains)
        rewards = np.full((len(chains), depth), np.nan)
        for row, chain in enumerate(chains):
            known = [True, *(text is not None for text in chain or ())]
            rewards[row, : len(known)] = np.where(known, rng.normal(size=len(known)), np.nan)
        found, lacking = {}, {}
        for group in groups(self.dataset):
            name, treated = str(group.labels[ATTRIBUTE]), group.treated
            own = "ate" if treated.any() and not treated.all() else "att" if treated.any() else "atu"
            estimate, why = self._found(rewards[group.rows], group, asked or own)
            if estimate is not None:
                found[name] = asked or own
            else:
                lacking[name] = f"{name}: {self.estimator} has no {asked or own} here ({why})"
        if not found:
            more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            raise InputError(f"no effect can be estimated from these rows: {next(iter(lacking.values()))}{more}")
        for why in lacking.values():
            log.warning("merging: %s; its effect is left out", why)
        return found, lacking

    def __call__(self, state: State) -> dict[str, Estimate]:
        """Every quantity of one model."""
        return self.read(self.reward_of(state))

    def read(self, reward: Reward, store: ScoreStore | None = None, progress: bool = False) -> dict[str, Estimate]:
        """Every quantity of one reward. store: of scores, by text."""
        found = self.of_margins(self.margins(reward, store, progress)) if self.pairs else {}
        if self.dataset is not None:
            found |= self.of_scored(self.scored(reward, _NAME, store, progress), _NAME)
        return found

    def metric(self, name: str) -> _Metric:
        """One of the quantities as a metric: scores only what it needs."""
        require_known("quantity", name, self.names)
        return _Metric(self, name)

    def score(self, state: State, name: str = _NAME) -> Dataset:
        """The dataset with `reward/<name>`: for `rk.estimate`, `rk.contrast` and all that is paired over rows."""
        return self.scored(self.reward_of(state), name)

    def scored(self, reward: Reward, name: str, store: ScoreStore | None = None, progress: bool = False) -> Dataset:
        """The dataset with a column of this reward."""
        assert self.dataset is not None
        rewards, _ = score_dataset(self.dataset, reward, name, store=store, progress=progress)
        old = REWARD_PREFIX + name
        ds = self.dataset.remove_columns([old]) if old in self.dataset.column_names else self.dataset
        return ds.add_column(old, rewards[0].values)

    def paired(self, reward: Reward, store: ScoreStore | None = None, progress: bool = False) -> Floats:
        """Rewards of chosen and rejected, (n, 2); NaN where one could not be scored."""
        from datasets import Dataset

        columns = {PROMPT: [p for p, _, _ in self.pairs], RESPONSE: [c for _, c, _ in self.pairs],
                   REWRITES: [[r] for _, _, r in self.pairs]}  # fmt: skip
        rewards, _ = score_dataset(Dataset.from_dict(columns), reward, "pairs", store=store, progress=progress)
        return np.array(rewards[0].values.to_pylist(), dtype=float)

    def margins(self, reward: Reward, store: ScoreStore | None = None, progress: bool = False) -> Floats:
        """r_chosen - r_rejected of each pair, (n,); NaN where one could not be scored."""
        both = self.paired(reward, store, progress)
        return both[:, 0] - both[:, 1]

    def of_margins(self, margins: Floats) -> dict[str, Estimate]:
        """Loss and accuracy from `margins`."""
        kept = np.isfinite(margins)
        m = margins[kept]
        codes = np.unique([repr(p) for p, _, _ in self.pairs], return_inverse=True)[1][kept]
        per_pair = {"loss": np.logaddexp(0.0, -m), "accuracy": (m > 0) + 0.5 * (m == 0)}
        found = {name: _mean(values, codes) for name, values in per_pair.items()}
        share = found["accuracy"]
        low, high = (float(np.clip(end, 0.0, 1.0)) for end in (share.ci_low, share.ci_high))
        return {**found, "accuracy": share._replace(ci_low=low, ci_high=high)}

    def of_scored(self, ds: Any, name: str) -> dict[str, Estimate]:
        """The effects that a scored dataset shows of the reward `name`. InputError where one cannot be had."""
        return {f"effect/{attribute}": self.effect(ds, name, attribute) for attribute in self.estimands}

    def effect(self, ds: Any, name: str, attribute: str) -> Estimate:
        """One of `of_scored`."""
        matrix = reward_matrix(ds, REWARD_PREFIX + name)
        group = next(g for g in groups(ds) if g.labels[ATTRIBUTE] == attribute)
        return self._effect(matrix[group.rows], group)

    def _effect(self, r: Floats, group: Group) -> Estimate:
        attribute = str(group.labels[ATTRIBUTE])
        e, why = self._found(r, group, self.estimands[attribute])
        if e is None:
            raise InputError(f"{attribute}: no effect can be estimated ({why})")
        if self.unit == "sd":
            return Estimate(e.estimate_sd, e.se_sd, e.ci_low_sd, e.ci_high_sd, e.n)
        return Estimate(e.estimate, e.se, e.ci_low, e.ci_high, e.n)

    def _found(self, r: Floats, group: Group, estimand: str) -> tuple[Any, str]:
        """The effect of that estimand, or None and why there is none."""
        found = effects(r, group.treated, group.clusters)
        e = found.get(self.estimator, estimand)
        left_out = (x.why for x in found.left_out if (x.estimator, x.estimand) == (self.estimator, estimand))
        return e, "" if e is not None else next(left_out, "the rows are of one class")


class _Metric:
    """One quantity of an instrument as `f(state_dict) -> float`; `estimate` gives its interval too."""

    def __init__(self, instrument: Instrument, name: str) -> None:
        self.instrument, self.name = instrument, name

    def __call__(self, state: State) -> float:
        return self.estimate(state).value

    def estimate(self, state: State) -> Estimate:
        """The value with its standard error and interval."""
        reward = self.instrument.reward_of(state)
        if self.name.startswith("effect/"):
            return self.instrument.of_scored(self.instrument.scored(reward, _NAME), _NAME)[self.name]
        return self.instrument.of_margins(self.instrument.margins(reward))[self.name]


def effect_metric(
    reward_of: RewardOf | str | Path,
    dataset: Dataset,
    attribute: str,
    *,
    estimator: str = "rate",
    estimand: str | None = None,
    unit: str = "sd",
) -> _Metric:
    """The effect of an attribute on the reward that a state dict gives, as a metric.

    Examples
    --------
    >>> effect_metric("rm-a", ds, "length")(state)  # doctest: +SKIP
    0.41
    """
    made = Instrument(reward_of, dataset, attributes=[attribute], estimator=estimator, estimand=estimand, unit=unit)
    return made.metric(f"effect/{attribute}")


def accuracy_metric(reward_of: RewardOf | str | Path, pairs: Any) -> _Metric:
    """The share of preference pairs that a state dict orders as people did; a tie counts half."""
    return Instrument(reward_of, pairs=pairs).metric("accuracy")


def loss_metric(reward_of: RewardOf | str | Path, pairs: Any) -> _Metric:
    """The Bradley-Terry loss on preference pairs: the mean of -log sigmoid(r_chosen - r_rejected)."""
    return Instrument(reward_of, pairs=pairs).metric("loss")


def _rows_of(dataset: Any, attributes: Sequence[str] | None) -> Any:
    dataset = rows_for("merging", dataset, [PROMPT_ID, PROMPT, RESPONSE, ATTRIBUTE, TREATED, REWRITES])
    have = list(dict.fromkeys(dataset[ATTRIBUTE]))
    for name in attributes or []:
        require_known("attribute in the dataset", name, have)
    if attributes and set(attributes) != set(have):
        kept = [i for i, a in enumerate(dataset[ATTRIBUTE]) if a in attributes]
        dataset = dataset.select(kept)
    return dataset


def _mean(values: Floats, codes: Any) -> Estimate:
    if not len(values):
        raise InputError("none of the preference pairs could be scored")
    mean = clustered_mean(values, codes)
    low, high, _ = mean.interval()
    return Estimate(mean.value, mean.se, low, high, len(values))


# --- what a state dict is loaded into ----------------------------------------------------------------------------


def reward_from(
    folder: str | Path,
    *,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> RewardOf:
    """A function that makes a reward of a state dict: loaded into the architecture of `folder`, read as that is read.

    Examples
    --------
    >>> reward = reward_from("rm-a")(state)  # doctest: +SKIP
    >>> reward(["Why?"], ["Because."]).shape  # doctest: +SKIP
    (1,)
    """
    return _RewardFrom(Path(folder).expanduser(), adapter, device, dtype, trust_remote_code)


class _RewardFrom:
    """What `reward_from` gives; `fingerprint` names all but the weights that a score depends on."""

    def __init__(
        self, folder: Path, adapter: str | None, device: str | None, dtype: str | None, trust_remote_code: bool
    ) -> None:
        self.folder, self.adapter, self.device, self.dtype, self.trust = (
            folder,
            adapter,
            device,
            dtype,
            trust_remote_code,
        )
        self._found: dict[str, tuple[Any, str]] = {}

    def __call__(self, state: State) -> Reward:
        return self._made(state, "auto")

    def plain(self, state: State) -> RewardModel:
        """The model with its layers as `transformers` made them, for those who look into it."""
        return self._made(state, "single")

    def _made(self, state: State, path: str) -> RewardModel:
        """The first state is probed whole; the path and the reading found for it are then tried on each next one."""
        if path in self._found:
            adapter, taken = self._found[path]
            try:
                return self._model(state, adapter, taken, "short")
            except WorkError as e:  # these weights need another path
                log.info("merging: %s; probed whole", e)
        model: RewardModel = self._model(state, self.adapter, path, "whole")
        self._found[path] = model.adapter, model.forward.path
        return model

    def _model(self, state: State, adapter: Any, path: str, probe: str) -> RewardModel:
        from ratekit.scoring.model import RewardModel

        return RewardModel(
            self.folder, adapter, device=self.device, dtype=self.dtype, path=path, weights=state, probe=probe,
            trust_remote_code=self.trust,
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """A hash of the folder's config, tokenizer, template and code, and of how they are read."""
        import torch

        on = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        digest = hashlib.blake2b(repr((self.adapter, self.dtype, on)).encode(), digest_size=16)
        paths = sorted(self.folder.glob("*")) if self.folder.is_dir() else []
        if is_adapter(self.folder):
            made = Lora(self.folder)
            paths = sorted(made.beside().values())
            digest.update(repr(made.config).encode())
        for path in paths:
            if path.suffix in (".json", ".jinja", ".py", ".txt", ".model") and "safetensors" not in path.name:
                digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


# --- preference pairs --------------------------------------------------------------------------------------------


def read_pairs(pairs: Any) -> list[tuple[Any, str, str]]:
    """(prompt, chosen, rejected) of each preference pair.

    Parameters
    ----------
    pairs
        whatever `ratekit.as_dataset` takes as pairs of chosen and rejected

    Raises
    ------
    InputError
        For a missing column and a pair without text.

    Examples
    --------
    >>> read_pairs([{"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}])
    [([{'role': 'user', 'content': 'Hi'}], 'Hello!', 'Go away.')]
    """
    ds = as_dataset(pairs, where=str(pairs) if isinstance(pairs, str | Path) else "the preference pairs")
    if "chosen" not in ds.column_names:
        raise InputError(f"preference pairs have the columns chosen and rejected; got {listed(ds.column_names)}")
    rows = ds.select_columns([PROMPT_ID, PROMPT, RESPONSE, "chosen"]).to_list()
    pairs = list(zip(rows[::2], rows[1::2], strict=False))
    if len(rows) % 2 or not all(a["chosen"] and not b["chosen"] and a[PROMPT_ID] == b[PROMPT_ID] for a, b in pairs):
        raise InputError("preference pairs hold a chosen and a rejected response to each prompt, one after the other")
    return [(chosen[PROMPT], chosen[RESPONSE], rejected[RESPONSE]) for chosen, rejected in pairs]
