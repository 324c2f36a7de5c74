"""The study's parts: each gives a tidy table, one row for each number."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from bench import Bench, of_texts, reward_of
from members import Members, Size
from models import MODEL, Cache, State, batch, fresh, pair_loss
from tqdm.auto import tqdm
from world import ATTRIBUTES, KINDS, PAD, Pairs, preference_texts, preferences

from ratekit.merging import (
    METHODS,
    align,
    audit,
    bezier,
    combine,
    convexity,
    determinism,
    directedness,
    direction,
    ensemble,
    fisher,
    fisher_information,
    gram_matrices,
    greedy,
    line,
    merge,
    profile,
    regmean,
    zero_effect,
)
from ratekit.merging.landscape import Path

HEADS = 4
SKIPPED = ("passthrough", "linear")  # the one merges nothing, and the other at equal weights is the soup
SHORT = {"unbiased": "U", "length-biased": "L", "style-biased": "S"}


def label(kind: str, seed: int) -> str:
    """L2 for the third length-biased model."""
    return f"{SHORT[kind]}{seed}"


def _row(found: dict, **labels: object) -> Iterator[dict[str, object]]:
    for name, e in found.items():
        yield {**labels, "quantity": name, "value": e.value, "ci_low": e.ci_low, "ci_high": e.ci_high}


def members_table(members: Members, bench: Bench) -> pd.DataFrame:
    """Every trained model by itself, with the true effect beside RATE's."""
    everyone = [("base", "base", 0, members.base)]
    for init, by_kind in (("base", members.by_kind), ("own", members.independent)):
        everyone += [(init, kind, seed, s) for kind, states in by_kind.items() for seed, s in enumerate(states)]
    rows: list[dict[str, object]] = []
    for init, kind, seed, state in everyone:
        model = label(kind, seed) if kind in SHORT else kind
        for row in _row(bench(state), model=model, kind=kind, seed=seed, init=init):
            attribute = str(row["quantity"]).removeprefix("effect/")
            truth = bench.truth(state, attribute) if attribute != row["quantity"] else np.nan
            rows.append({**row, "truth": truth})
    return pd.DataFrame(rows)


# --- paths -----------------------------------------------------------------------------------------------


def paths(members: Members, size: Size, bench: Bench, progress: bool = True) -> pd.DataFrame:
    """Loss, accuracy and effects along every path: models of one base, and independent ones in four ways."""
    tables = []
    jobs = list(_paths(members, size, bench))
    for between, how, seed, make in tqdm(jobs, desc="paths", unit="path", disable=not progress):
        table = profile(make(), bench, size.points)  # type: ignore[arg-type]
        tables.append(table.assign(between=between, how=how, seed=seed))
    return pd.concat(tables, ignore_index=True)


def _paths(members: Members, size: Size, bench: Bench) -> Iterator[tuple[str, str, int, Callable[[], Path]]]:
    u, long, style = (members.by_kind[kind] for kind in KINDS)
    n = size.seeds
    for k in range(n):
        after = (k + 1) % n
        for between, a, b in (("U-U", u[k], u[after]), ("L-L", long[k], long[after]), ("U-L", u[k], long[k]),
                              ("L-S", long[k], style[k])):  # fmt: skip
            yield between, "one base", k, lambda a=a, b=b: line(a, b)
    own_u, own_l = members.independent["unbiased"], members.independent["length-biased"]
    loss = bench.metric("loss")
    for k in range(n):
        for between, a, b in (("U-L", own_u[k], own_l[k]), ("U-U", own_u[k], own_u[(k + 1) % n])):
            ordered = align(a, b, heads=HEADS, restarts=8, seed=k, judge=loss).state
            yield between, "raw", k, lambda a=a, b=b: line(a, b)
            yield between, "aligned", k, lambda a=a, b=ordered: line(a, b)
            if between == "U-L":
                yield between, "raw curve", k, lambda a=a, b=b, k=k: _curve(a, b, size, k)
                yield between, "aligned curve", k, lambda a=a, b=ordered, k=k: _curve(a, b, size, k)


def _curve(a: State, b: State, size: Size, seed: int) -> Path:
    """Bent towards a low loss on unbiased pairs of its own."""
    pairs, generator = preferences(size.pairs, 5000 + seed, confounded=False), torch.Generator().manual_seed(seed)
    return bezier(a, b, lambda state: pair_loss(state, batch(pairs, generator)), steps=size.curve_steps, seed=seed)


def barriers(table: pd.DataFrame, quantity: str = "loss") -> pd.Series:
    """The largest excess over the chord of each path, by (between, how, seed)."""
    of = table[table["metric"] == quantity]
    return (of["value"] - of["chord"]).groupby([of["between"], of["how"], of["seed"]]).max()


# --- merges ----------------------------------------------------------------------------------------------


def merges(members: Members, size: Size, bench: Bench, progress: bool = True) -> pd.DataFrame:
    """Every method on every group: five of a kind, one of each of two or three kinds (a group a seed), all fifteen."""
    u, long, style = (members.by_kind[kind] for kind in KINDS)
    groups: list[tuple[str, int, list[State]]] = [
        ("all U", 0, u), ("all L", 0, long), ("all S", 0, style), ("all", 0, [*u, *long, *style]),
    ]  # fmt: skip
    for k in range(size.seeds):
        groups += [("L+S", k, [long[k], style[k]]), ("U+L+S", k, [u[k], long[k], style[k]])]
    rows: list[dict[str, object]] = []
    informed = Informed(size)
    for group, seed, states in tqdm(groups, desc="merge", unit="group", disable=not progress):
        for name, state in itertools.chain(_merged(states, members.base, seed), informed.merged(states)):
            rows += _row(bench(state), group=group, seed=seed, method=name)
        together = bench.read(_ensemble(states, bench))
        rows += _row(together, group=group, seed=seed, method="output ensemble")
        each = [bench(state) for state in states]
        for quantity in each[0]:
            mean = float(np.mean([e[quantity].value for e in each]))
            rows.append({"group": group, "seed": seed, "method": "members' mean", "quantity": quantity, "value": mean})
        rows += _row(bench(members.base), group=group, seed=seed, method="base")
    return pd.DataFrame(rows)


def audited(members: Members, bench: Bench, pairs: int, progress: bool = True) -> pd.DataFrame:
    """`rk.merging.audit` of U0, L0 and S0: every method beside the members, with paired contrasts to each."""
    kinds = list(KINDS)
    models = {label(kind, 0): members.by_kind[kind][0] for kind in kinds}
    methods = [name for name, m in METHODS.items() if name not in SKIPPED and (m.models[1] or 3) >= 3]
    return audit(
        models, bench.dataset(), methods, base=members.base, pairs=preference_texts(pairs, 999, confounded=False),
        reward_of=lambda state: of_texts(reward_of(state)), progress=progress,
    )  # fmt: skip


class Informed:
    """Merges that look at data: a greedy soup, Fisher, RegMean; on unbiased pairs that nothing else uses."""

    def __init__(self, size: Size) -> None:
        self.choose = Bench(2, 9, size.test_pairs, (), pairs_seed=998).metric("accuracy")
        pairs = preferences(size.pairs // 40, 997, confounded=False)
        self.pairs = [Pairs(_trimmed(a), _trimmed(b)) for a, b in zip(*pairs, strict=True)]
        self.known: dict[int, tuple[State, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {}

    def merged(self, states: list[State]) -> Iterator[tuple[str, State]]:
        """Each merge by its name."""
        yield "greedy", greedy(states, self.choose).state
        information, grams = zip(*(self._of(state) for state in states), strict=True)
        yield "fisher", fisher(states, information)
        yield "regmean", regmean(states, grams, shrink=0.9)

    def _of(self, state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        if id(state) not in self.known:
            network = copy.deepcopy(MODEL)
            network.load_state_dict(state)
            information = fisher_information(network, self.pairs, _network_loss)
            texts = [ids for pair in self.pairs for ids in pair]
            grams = gram_matrices(network, texts, lambda net, ids: net(input_ids=ids))
            self.known[id(state)] = (state, information, grams)
        return self.known[id(state)][1:]


def _trimmed(ids: torch.Tensor) -> torch.Tensor:
    return ids[ids != PAD][None]


def _network_loss(network: torch.nn.Module, pair: Pairs) -> torch.Tensor:
    chosen, rejected = (network(input_ids=ids).logits[0, 0] for ids in pair)
    return -torch.nn.functional.logsigmoid(chosen - rejected)


def _merged(states: list[State], base: State, seed: int) -> Iterator[tuple[str, State]]:
    for name, method in METHODS.items():
        low, high = method.models
        if name in SKIPPED or len(states) < low or (high is not None and len(states) > high):
            continue
        yield name, merge(states, name, base=None if method.base == "none" else base, seed=seed)


def _ensemble(states: list[State], bench: Bench) -> Callable[[torch.Tensor], np.ndarray]:
    each = [reward_of(state) for state in states]
    reference = np.stack([reward(bench.ids["length"][0]) for reward in each])
    return lambda ids: ensemble(np.stack([reward(ids) for reward in each]), reference)


# --- probes ----------------------------------------------------------------------------------------------


def probes(members: Members, size: Size, bench: Bench, cache: Cache) -> pd.DataFrame:
    """Convexity, directedness and determinism as rows: probe, about, number, value."""
    loss, length = bench.metric("loss"), bench.metric("effect/length")
    rows: list[tuple[str, str, str, float]] = []
    fifteen = [state for states in members.by_kind.values() for state in states]
    mixes = convexity(fifteen, loss, n=size.mixes)
    rows += [("convexity", "fifteen of one base", "worst gap", mixes.worst),
             ("convexity", "fifteen of one base", "mean gap", mixes.mean)]  # fmt: skip
    own = [state for states in members.independent.values() for state in states]
    gap = loss(combine(own, [1 / len(own)] * len(own))) - float(np.mean([loss(state) for state in own]))
    rows.append(("convexity", "ten independent, uniform", "gap", gap))
    named = {label(kind, k): s for kind, states in members.by_kind.items() for k, s in enumerate(states)}
    found = directedness(named, members.base, length, n=1)
    for first in "ULS":
        for second in "ULS":
            if first <= second:
                rows.append(
                    (
                        "directedness",
                        f"{first} with {second}",
                        "mean cosine",
                        _mean_cosine(found.cosines, first, second),
                    )
                )
    long = directedness({k: s for k, s in named.items() if k[0] == "L"}, members.base, length, n=2)
    rows += [("directedness", "fifteen of one base", "first share", found.first_share),
             ("directedness", "five L", "first share", long.first_share),
             ("directedness", "five L", "length effect gained along the task vector", long.rise_task),
             ("directedness", "five L", "length effect gained along random directions", long.rise_random)]  # fmt: skip
    data = preferences(size.pairs, 1, confounded=False)
    for seed in range(size.spawn_seeds):

        def run(step: int, order: int, seed: int = seed) -> State:
            total = size.base_steps
            shared = fresh(seed)
            if step:
                shared = cache.train(f"shared-{seed}-{step}", shared, data, step, seed, of=total)
            rest = {"of": total, "done": step}
            return cache.train(f"spawn-{seed}-{step}-{order}", shared, data, total - step, 1000 + order, **rest)

        spawned = determinism(run, size.spawn_at, loss).table
        for row in spawned.itertuples():
            rows += [("determinism", f"seed {seed}, parting at step {row.step}", "barrier", row.barrier),
                     ("determinism", f"seed {seed}, parting at step {row.step}", "distance", row.distance)]  # fmt: skip
    return pd.DataFrame(rows, columns=["probe", "about", "number", "value"])


def _mean_cosine(cosines: pd.DataFrame, first: str, second: str) -> float:
    rows, columns = ([n for n in cosines.index if n[0] == kind] for kind in (first, second))
    values = [cosines.loc[a, b] for a in rows for b in columns if a != b]
    return float(np.mean(values)) if values else float("nan")


# --- solving for a bias ----------------------------------------------------------------------------------


def zeros(
    members: Members, size: Size, bench: Bench, held_out: Bench, progress: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A biased model less a multiple of another seed's bias: where its effect is zero. Rows by seed, and the curves."""
    rows, curves = [], []
    unbiased = members.by_kind["unbiased"]
    jobs: Iterable[tuple[str, int]] = [(kind, k) for kind in list(KINDS)[1:] for k in range(size.seeds)]
    for kind, k in tqdm(jobs, desc="zero effect", unit="model", disable=not progress):
        attribute = kind.removesuffix("-biased")
        other = (k + 1) % size.seeds
        model = members.by_kind[kind][k]
        path = direction(model, members.by_kind[kind][other], unbiased[other])
        found = zero_effect(
            path, bench.metric(f"effect/{attribute}"), within=(-2.0, 0.0), accuracy=bench.metric("accuracy"),
            held_out=held_out.metric(f"effect/{attribute}"),
        )  # fmt: skip
        curves.append(found.table.assign(kind=kind, seed=k))
        row = {"kind": kind, "seed": k, "coefficient": found.coefficient, "ci_low": found.ci_low,
               "ci_high": found.ci_high, "held_out": found.held_out.value, "held_out_low": found.held_out.ci_low,
               "held_out_high": found.held_out.ci_high, "accuracy_before": found.accuracy_before,
               "accuracy": found.accuracy, "statement": found.statement}  # fmt: skip
        after = path(found.coefficient) if np.isfinite(found.coefficient) else None
        states = {"before": model, "unbiased": unbiased[k], "at_minus_1": path(-1.0), "after": after}
        for when, state in states.items():
            on_others = held_out(state) if state is not None else {}
            row |= {f"{a}_{when}": getattr(on_others.get(f"effect/{a}"), "value", np.nan) for a in ATTRIBUTES}
            if when in ("unbiased", "at_minus_1"):
                row[f"accuracy_{when}"] = bench.metric("accuracy")(state)
        rows.append(row)
    return pd.DataFrame(rows), pd.concat(curves, ignore_index=True)
