"""What merging does to what a reward model rewards: members, base, ensemble and every merge in one table.

    table = audit(["rm-a", "rm-b"], ds, ["linear", "ties:density=0.5"], base="base-rm", pairs=pairs, out="audit")

A row a model; columns: accuracy and loss on preference pairs, the loss barrier to the members, the RATE effect of each
attribute, and its paired contrast to each member. Every score is kept under what made its model, so that the same call
again goes on where it was cut off, and merges nothing that it has scored.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit import files
from ratekit.checkpoints import Folder, Model, State
from ratekit.diagnostics.contrasts import contrast
from ratekit.errors import InputError, WorkError, shorten
from ratekit.estimators import Floats
from ratekit.groups import reward_matrix
from ratekit.lora import open_model
from ratekit.merging.learned import LEARNED, ensemble, learned
from ratekit.merging.mergers import MergePlan
from ratekit.merging.methods import METHODS, recipe
from ratekit.merging.metrics import Estimate, Instrument, RewardOf, reward_from
from ratekit.merging.states import line_state, named_models
from ratekit.schema import ATTRIBUTE, REWARD_PREFIX
from ratekit.scoring.base import NOT_FINITE, OK, CalledByScores, Reward, Scores
from ratekit.scoring.loading import weights_hash
from ratekit.scoring.store import ScoreStore

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")

BASE, ENSEMBLE, BEST = "base", "ensemble", "best single"
Methods = Sequence[str] | Mapping[str, str | Model]

TABLE, RECORD, SCORES = "audit.csv", "audit.json", "scores"


def audit(
    models: Mapping[str, Model] | Sequence[Model],
    dataset: Dataset | str | Path,
    methods: Methods = ("linear",),
    attributes: Sequence[str] | None = None,
    *,
    base: Model | None = None,
    pairs: Any = None,
    out: str | Path | None = None,
    reward_of: RewardOf | str | Path | None = None,
    estimator: str = "rate",
    estimand: str | None = None,
    unit: str = "sd",
    barrier_points: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Members, base, best single, output ensemble and each merge: accuracy, barrier and every attribute's effect.

    Columns: model, kind (member, base, best_single, ensemble, merge), method; accuracy, loss and barrier, the first two
    with _se, _ci_low and _ci_high; for each attribute its effect, `<attribute>_estimand`, and `<attribute> - <member>`,
    the paired contrast on the rewrites that both were scored on, each with _se, _ci_low, _ci_high, contrasts with
    _p_adjusted (Benjamini and Hochberg over the table) too; note. `barrier` is the largest over the members of
    max_t [L(t) - chord] on the straight line from the member to this model (for a member: to the other members;
    landscape.py). The output ensemble has no weights and no log-odds for a scale, so no barrier and no loss. "best
    single" repeats the member of highest accuracy, chosen on these pairs.

    A method that fails leaves a row with a note, and a quantity that cannot be had a blank with a note. A wrong call,
    and rows from which no effect can be estimated, raise InputError before any text is scored; a table without a number
    raises WorkError.

    Parameters
    ----------
    models
        folders or state dicts, in a list or by name
    dataset
        labelled and rewritten rows of one attribute or several, or the path of such a table
    methods
        words as on the command line ("ties", "ties:density=0.5,weight=1;2"; "greedy", "fisher", "regmean", which look
        at the pairs), or a mapping label -> such a word, or -> a model that was merged elsewhere
    attributes
        which of the dataset's; default all
    base
        the model that the members were tuned from: a row of its own, and what task vectors are taken from
    pairs
        preference pairs (columns prompt, chosen, rejected); without them no accuracy, loss and barrier
    out
        a folder for audit.csv, audit.json and the scores, from which the same call goes on
    reward_of
        what a state dict is loaded into: a model folder, or a function that makes a reward of a state dict; by default
        the first folder among the models. A function's scores are kept where it has a `fingerprint`, a word that tells
        it from others
    estimand
        by default what the rows have: the ATE, or the effect on the one class that they are of
    unit
        "sd", each model's own reward SDs, for their scales differ; or "reward"
    barrier_points
        points within each line at which the loss is taken; 0 leaves the barrier out
    seed
        of methods that draw

    Examples
    --------
    >>> table = audit(["rm-a", "rm-b"], ds, ["linear", "ties"], base="base-rm", pairs=pairs)  # doctest: +SKIP
    >>> table[["model", "accuracy", "barrier", "length", "length - rm-a"]]  # doctest: +SKIP
    """
    given = named_models(models)
    if len(given) < 2:
        raise InputError(f"an audit compares at least two models; got {len(given)}")
    if reward_of is None or isinstance(reward_of, str | Path):
        reward_of = reward_from(reward_of if reward_of is not None else architecture(given, base))
    folder = _opened(out)
    instrument = Instrument(reward_of, dataset, pairs, attributes, estimator=estimator, estimand=estimand, unit=unit)
    rows = candidates(given, base, methods, seed, instrument, progress)
    how = getattr(reward_of, "fingerprint", None)
    if folder is not None and how is None:
        log.info("audit: a plain function reads the weights, and nothing tells it from another: scores are not kept")
    work = _Work(instrument, rows, folder / SCORES if folder and how else None, how or "", barrier_points, progress)
    work.run()
    table = work.table()
    numbers = [*instrument.names[:2], "accuracy", *instrument.estimands]
    if not table.reindex(columns=numbers).notna().any(axis=None):
        raise WorkError(f"nothing could be measured: {shorten('; '.join(table['note'].unique()), 200)}")
    if folder is not None:
        settings = {
            "models": list(given), "base": base is not None, "attributes": instrument.attributes,
            "methods": [row.name for row in rows if row.kind == "merge"],
            "estimator": estimator,
            "estimand": instrument.estimands, "unit": unit, "barrier_points": barrier_points, "seed": seed,
            "n_pairs": len(instrument.pairs),
        }  # fmt: skip
        _write(folder, table, settings)
    return table


def _write(folder: Path, table: pd.DataFrame, settings: Mapping[str, Any]) -> list[Path]:
    """Write audit.csv and audit.json into a folder."""
    from ratekit import __version__

    record = json.dumps({**settings, "ratekit": __version__}, indent=2) + "\n"
    return [
        files.replace_file(folder / TABLE, lambda new: table.to_csv(new, index=False)),
        files.replace_text(folder / RECORD, record),
    ]


def _opened(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out).expanduser()
    if folder.is_file():
        raise InputError(f"{folder} is a file; an audit is written into a folder")
    files.check_place(folder)
    return folder


# --- the models ----------------------------------------------------------------------------------------------


@dataclass
class _Row:
    """A model of the table: how it is named, what made it, and how its weights are had when they are needed."""

    name: str
    kind: str
    identity: str
    weights: Callable[[], State]
    members: list[str] = field(default_factory=list)
    method: str = ""

    @cached_property
    def state(self) -> State:
        """The weights, made once; `forget` gives the memory back."""
        return self.weights()

    def forget(self) -> None:
        """Give the weights' memory back."""
        self.__dict__.pop("state", None)


class Scored(CalledByScores):
    """The reward of a model that is made only where the store lacks a score: its identity names it before."""

    def __init__(self, name: str, identity: str, how: str, make: Callable[[], Reward]) -> None:
        self.name, self._make = name, make
        self.fingerprint = {"model": "merge", "revision": identity, "adapter": how, "dtype": "as made"}

    @cached_property
    def reward(self) -> Reward:
        """The model itself, loaded."""
        return self._make()

    def scores(self, prompts: Sequence[Any], responses: Sequence[str]) -> Scores:
        """Rewards and statuses."""
        detailed = getattr(self.reward, "scores", None)
        if detailed is not None:
            found: Scores = detailed(prompts, responses)
            return found
        rewards = np.asarray(self.reward(prompts, responses), float)
        finite = np.isfinite(rewards)
        statuses = [OK if f else NOT_FINITE for f in finite]
        return Scores(np.where(finite, rewards, np.nan), statuses, {}, np.zeros(len(rewards), np.int64))


def architecture(models: Mapping[str, Model], base: Model | None) -> Path:
    """The first folder among the models, whose config and tokenizer tell how a state dict is read."""
    for model in [*models.values(), base]:
        if isinstance(model, str | Path):
            opened = open_model(model, base)
            return opened.path if isinstance(opened, Folder) else Path(model)
    raise InputError("state dicts alone do not say how they are read: give reward_of=, a model folder or a function")


def candidates(
    models: dict[str, Model],
    base: Model | None,
    methods: Methods,
    seed: int,
    instrument: Instrument,
    progress: bool = False,
) -> list[_Row]:
    """Every model of the table that has weights; all is checked, nothing is merged."""
    wanted = dict(methods) if isinstance(methods, Mapping) else {word: word for word in methods}
    taken = {BASE, ENSEMBLE, BEST}
    for label in [*models, *wanted]:
        if label in taken:
            raise InputError(
                f"{label!r} is the name of a row already; give it another, in a mapping name -> model or method"
            )
        taken.add(label)
    opened = {name: open_model(model, base) for name, model in models.items()}
    of_base = open_model(base) if base is not None else None
    plans = {label: _plan(what, models, base, seed, instrument, progress) for label, what in wanted.items()}
    hashes = {name: weights_hash(state) for name, state in opened.items()}
    base_hash = weights_hash(of_base) if of_base is not None else ""
    rows = [_Row(n, "member", hashes[n], lambda s=s: s, [m for m in opened if m != n]) for n, s in opened.items()]  # type: ignore[misc]
    lacking = sorted({*next(iter(opened.values()))} - {*of_base}) if of_base is not None else []
    if lacking:  # a language model under reward adapters
        log.warning("audit: the base has no %s, so it cannot be scored and has no row", shorten(", ".join(lacking), 80))
    elif of_base is not None:
        rows.append(_Row(BASE, "base", base_hash, lambda: of_base, list(opened)))
    for label, what in wanted.items():
        made, weights = plans[label]
        key = weights_hash(weights()) if made is None else _key([made, [*hashes.values()], base_hash])
        rows.append(_Row(label, "merge", key, weights, list(opened), what if isinstance(what, str) and made else ""))
    return rows


def _plan(
    what: str | Model, models: dict[str, Model], base: Model | None, seed: int, instrument: Instrument, progress: bool
) -> tuple[Any, Callable[[], State]]:
    """What a merge is made by besides the models (None for one made elsewhere), and how its weights are had."""
    if what in LEARNED if isinstance(what, str) else False:
        name = str(what)
        if not instrument.pairs:
            raise InputError(f"{name} looks at preference pairs: give pairs=")
        if name != "greedy" and not hasattr(instrument.reward_of, "plain"):
            raise InputError(f"{name} looks into the network: give model folders, not a function of state dicts")
        MergePlan(models, "soup", base)  # do they belong together?
        opened: dict[str, Model] = {model: open_model(what, base) for model, what in models.items()}
        return [name, repr(instrument.pairs)], lambda: learned(name, opened, instrument)
    if not isinstance(what, str) or (what.partition(":")[0] not in METHODS and Path(what).is_dir()):
        state = open_model(what)
        return None, lambda: state
    name, params = recipe(what)
    plan = MergePlan(models, name, base, seed=seed, params=params)
    return [name, plan.params, plan.seed, plan.record()["mergekit"]], lambda: dict(plan.tensors(progress))


def _key(what: Any) -> str:
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


# --- the work ------------------------------------------------------------------------------------------------


class _Work:
    """Scores every row, then reads the table off the scores."""

    def __init__(
        self, instrument: Instrument, rows: list[_Row], store: Path | None, how: str, points: int, progress: bool
    ) -> None:
        self.instrument, self.rows, self.store, self.how = instrument, rows, store, how
        self.ts = np.linspace(0, 1, points + 2)[1:-1] if instrument.pairs and points else np.empty(0)
        self.progress = progress
        self.dataset: Any = instrument.dataset
        self.pairs: dict[str, Floats] = {}
        self.between: dict[tuple[str, str], list[float]] = {}
        self.notes: dict[str, str] = {}
        self.failed: set[str] = set()  # of which nothing could be scored

    def run(self) -> None:
        """Score the members, the base and every merge, and the points between."""
        from tqdm.auto import tqdm

        by_name = {row.name: row for row in self.rows}
        n = len(self.rows) + len(self.ts) * sum(len(row.members) for row in self.rows)
        with tqdm(total=n, desc="audit", unit="model", disable=not self.progress) as bar:
            for row in self.rows:
                bar.set_postfix_str(row.name)
                try:
                    self._score(row)
                    bar.update()
                    for member in row.members:
                        for t in self.ts:
                            bar.set_postfix_str(f"{member} to {row.name}, {t:.2f}")
                            self._point(row, by_name[member], float(t))
                            bar.update()
                except WorkError as e:
                    if row.kind != "merge":
                        raise
                    self._note(row.name, e)
                    self.failed.add(row.name)
                    self.pairs.pop(row.name, None)
                    log.warning("audit: %s is left out: %s", row.name, e)
                finally:
                    row.forget()
        try:
            self._ensemble([row.name for row in self.rows if row.kind == "member"])
        except InputError as e:
            self._note(ENSEMBLE, e)
            self.failed.add(ENSEMBLE)

    def _note(self, name: str, why: object) -> None:
        said = shorten(why, 200)
        if said not in self.notes.get(name, ""):
            self.notes[name] = f"{self.notes[name]}; {said}" if name in self.notes else said

    def _reward(self, name: str, identity: str, state: Callable[[], State]) -> Scored:
        return Scored(name, identity, self.how, lambda: self.instrument.reward_of(state()))

    def _kept(self, reward: Scored) -> ScoreStore | None:
        return ScoreStore(self.store, reward.fingerprint) if self.store else None

    def _score(self, row: _Row) -> None:
        reward = self._reward(row.name, row.identity, lambda: row.state)
        store = self._kept(reward)
        if self.instrument.pairs:
            self.pairs[row.name] = self.instrument.paired(reward, store, self.progress)
        if self.dataset is not None:
            self.dataset = _with_column(
                self.dataset, row.name, self.instrument.scored(reward, row.name, store, self.progress)
            )

    def _point(self, row: _Row, member: _Row, t: float) -> None:
        key = (member.name, row.name)
        mirrored = self.between.get((row.name, member.name))
        if mirrored is not None:  # between two members the line is the same both ways
            self.between.setdefault(key, [*reversed(mirrored)])
            return
        name = f"{member.identity}-{row.identity}-{t:.6f}"
        made = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        reward = self._reward("line", made, lambda: line_state(member.state, row.state, t))
        both = self.instrument.paired(reward, self._kept(reward), self.progress)
        loss = self.instrument.of_margins(both[:, 0] - both[:, 1])["loss"].value
        self.between.setdefault(key, []).append(loss)

    def _ensemble(self, members: list[str]) -> None:
        if self.dataset is not None:
            matrices = [reward_matrix(self.dataset, REWARD_PREFIX + m) for m in members]
            joint = ensemble(matrices, [m[:, 0] for m in matrices])
            lists = [[None if np.isnan(v) else float(v) for v in row] for row in joint]
            self.dataset = _without(self.dataset, REWARD_PREFIX + ENSEMBLE).add_column(REWARD_PREFIX + ENSEMBLE, lists)
        if self.instrument.pairs:
            self.pairs[ENSEMBLE] = ensemble([self.pairs[m] for m in members])

    # --- what is read off the scores --------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """The audit's table."""
        import pandas as pd

        of: dict[str, dict[str, Any]] = {}
        for name in [*(row.name for row in self.rows), ENSEMBLE]:
            if name not in self.failed:
                of[name] = self._measured(name)
        for row in self.rows:
            if len(self.ts) and all("loss" in of.get(m, {}) for m in [row.name, *row.members]):
                of[row.name]["barrier"] = self._barrier(row, of)
        of.get(ENSEMBLE, {}).update({f"loss{end}": np.nan for end in ("", *ENDS)})
        members = [row.name for row in self.rows if row.kind == "member"]
        if self.dataset is not None:
            self._contrasts(of, members)
        kinds = [(row.name, row.kind, row.method) for row in self.rows]
        place = sum(kind != "merge" for _, kind, _ in kinds)
        kinds.insert(place, (ENSEMBLE, "ensemble", ""))
        best = max((m for m in members if "accuracy" in of.get(m, {})), key=lambda m: of[m]["accuracy"], default=None)
        if best is not None:
            kinds.insert(place, (BEST, "best_single", ""))
            of[BEST] = of[best]
            self.notes[BEST] = f"{best}; {self.notes[best]}" if best in self.notes else best
        found = [
            {"model": name, "kind": kind, "method": method, **of.get(name, {}), "note": self.notes.get(name, "")}
            for name, kind, method in kinds
        ]
        table = pd.DataFrame(found)
        own = [f"{name}{end}" for name in ("accuracy", "loss") for end in ("", *ENDS)]
        effects = [f"{a}{end}" for a in self.instrument.attributes for end in ("", *ENDS, "_estimand")]
        against = [f"{a} - {m}{end}" for a in self.instrument.attributes for m in members
                   for end in ("", *ENDS, "_p_adjusted")]  # fmt: skip
        columns = ["model", "kind", "method", *own, "barrier", *effects, *against, "note"]
        return table.reindex(columns=columns)

    def _measured(self, name: str) -> dict[str, Any]:
        """All that the scores of one model show; what they do not is noted."""
        found: dict[str, Any] = {}
        if name in self.pairs:
            both = self.pairs[name]
            try:
                for key, e in self.instrument.of_margins(both[:, 0] - both[:, 1]).items():
                    found |= _spread(key, e)
            except InputError as e:
                self._note(name, e)
        for why in self.instrument.lacking.values():
            self._note(name, why)
        for attribute, estimand in self.instrument.estimands.items():
            try:
                found |= _spread(attribute, self.instrument.effect(self.dataset, name, attribute))
                found[f"{attribute}_estimand"] = estimand
            except InputError as e:  # one model's rewards may not vary, or be missing
                self._note(name, e)
        return found

    def _barrier(self, row: _Row, of: Mapping[str, Mapping[str, Any]]) -> float:
        heights = [0.0]
        for member in row.members:
            start, end = of[member]["loss"], of[row.name]["loss"]
            for t, loss in zip(self.ts, self.between[member, row.name], strict=True):
                heights.append(loss - ((1 - t) * start + t * end))
        return float(max(heights))

    def _contrasts(self, of: dict[str, dict[str, Any]], members: list[str]) -> None:
        from scipy import stats

        p_values: list[tuple[str, str, float]] = []
        for name in of:
            for member in members:
                if member == name or member not in of:
                    continue
                try:
                    rows = contrast(
                        self.dataset, name, member, estimator=self.instrument.estimator, unit=self.instrument.unit
                    )
                except InputError as e:
                    self._note(name, f"against {member}: {e}")
                    continue
                for row in rows.itertuples():
                    attribute = str(getattr(row, ATTRIBUTE))
                    if row.estimand != self.instrument.estimands.get(attribute):
                        continue
                    key = f"{attribute} - {member}"
                    of[name] |= _spread(key, Estimate(row.estimate, row.se, row.ci_low, row.ci_high, row.n))
                    p_values.append((name, key, row.p_value))
        known = [p for p in p_values if np.isfinite(p[2])]
        adjusted = stats.false_discovery_control([p for _, _, p in known]) if known else []
        for (name, key, _), p in zip(known, adjusted, strict=True):
            of[name][f"{key}_p_adjusted"] = float(p)


ENDS = ("_se", "_ci_low", "_ci_high")


def _spread(key: str, e: Estimate) -> dict[str, float]:
    return {key: e.value, f"{key}_se": e.se, f"{key}_ci_low": e.ci_low, f"{key}_ci_high": e.ci_high}


def _with_column(ds: Any, name: str, scored: Any) -> Any:
    column = REWARD_PREFIX + name
    return _without(ds, column).add_column(column, scored.with_format("arrow")[column].combine_chunks())


def _without(ds: Any, column: str) -> Any:
    return ds.remove_columns([column]) if column in ds.column_names else ds
