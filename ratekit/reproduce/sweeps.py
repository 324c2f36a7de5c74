"""Sweeps: one confounding at several strengths, on real rows or in a world of texts whose truth is known.

The rows of every step stand in one dataset with a column `step`. What stands at several steps is rewritten and scored
once. A column `twin` holds the true counterfactual where it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.audits.folder import write_picture
from ratekit.errors import InputError
from ratekit.estimators import ESTIMANDS, rows_about
from ratekit.groups import reward_matrix
from ratekit.reproduce.experiment import Sweep
from ratekit.rewriting.rules import vowel
from ratekit.schema import PROMPT, PROMPT_ID, RESPONSE, TREATED, columns_of, reward_columns, reward_name
from ratekit.scoring import RewardLike
from ratekit.simulate import DESIGNS
from ratekit.simulate.grading import GRADED
from ratekit.simulate.text import misspell
from ratekit.stages import estimate, score

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

SIMULATED = "simulated"  # the rewriter of a sweep in a world of texts
STEP, TWIN = "step", "twin"


# --- the rows of every step ------------------------------------------------------------------------------


def simulated(sweep: Sweep, n: int, seed: int, depth: int = 3) -> Dataset:
    """Reviews of `rk.simulate` at each step, rewritten by a rewriter of known faults, with their true twins."""
    from datasets import concatenate_datasets

    parts = []
    for step in sweep.steps:
        ds = DESIGNS[sweep.design].world(step).sample(n, seed).dataset(depth)
        parts.append(ds.add_column(STEP, [step] * len(ds)))
    return concatenate_datasets(parts)


def swept(ds: Dataset, sweep: Sweep, n: int | None, seed: int) -> Dataset:
    """Labelled real rows at each step: drawn so that two attributes correlate, or with a share of words misspelt."""
    from datasets import concatenate_datasets

    if sweep.confounder is not None:
        confounder = list(sweep.confounder(ds))
        known = [i for i, z in enumerate(confounder) if z is not None]
        ds = ds.select(known).add_column("confounder", [bool(confounder[i]) for i in known])
        drawn = correlated(np.array(ds[TREATED]), np.array(ds["confounder"]), sweep.steps, n, seed)
        parts = [ds.select(rows).add_column(STEP, [x] * len(rows)) for x, rows in zip(sweep.steps, drawn, strict=True)]
    else:
        if n is not None and n < len(ds):
            ds = ds.select(np.sort(np.random.default_rng(seed).permutation(len(ds))[:n]))
        parts = [misspelt(ds, x, seed).add_column(STEP, [x] * len(ds)) for x in sweep.steps]
    return concatenate_datasets(parts)


def correlated(
    treated: NDArray[np.bool_], confounder: NDArray[np.bool_], steps: Sequence[float], n: int | None, seed: int
) -> list[NDArray[np.int64]]:
    """Rows for each correlation x: n (1 + x)/4 that have both attributes, as many that have neither, n (1 - x)/4 of
    each of the others. So n and both margins stay the same, and neighbouring steps share most rows.

    Source: Reber et al. 2025, section 5; `rk.published("designs")` has their counts.

    Raises
    ------
    InputError
        Where a cell is empty.

    Examples
    --------
    >>> t, z = np.repeat([True, False], 40), np.tile([True, False], 40)
    >>> [len(rows) for rows in correlated(t, z, (0.0, 0.5, 1.0), None, 0)]
    [40, 40, 40]
    """
    rng = np.random.default_rng(seed)
    cells = {
        (w, z): rng.permutation(np.flatnonzero((treated == w) & (confounder == z))) for w in (1, 0) for z in (1, 0)
    }
    high, low = max(steps), min(steps)
    same, other = (min(len(cells[k]) for k in keys) for keys in (((1, 1), (0, 0)), ((1, 0), (0, 1))))
    most = int(min(4 * same / (1 + high), 4 * other / (1 - low) if low < 1 else np.inf))
    total = min(n or most, most)
    if total < 4:
        sizes = ", ".join(f"{len(rows)} with attribute={w} and confounder={z}" for (w, z), rows in cells.items())
        raise InputError(f"too few rows for a sweep of correlations: {sizes}; at least two of each are needed")
    drawn = []
    for x in steps:
        alike, unlike = round(total * (1 + x) / 4), round(total / 2) - round(total * (1 + x) / 4)
        parts = [rows[: alike if w == z else unlike] for (w, z), rows in cells.items()]
        drawn.append(np.sort(np.concatenate(parts)))
    return drawn


def misspelt(ds: Dataset, share: float, seed: int) -> Dataset:
    """The rows with that share of the words of the treated responses misspelt, and their twins by rule.

    Words misspelt at a small share are so at a larger one. The first word is left alone, and with it the first letter.
    The twin is the response with an opening word put on, so that only the first letter's class has changed.
    """
    responses = []
    for i, (text, treated) in enumerate(zip(ds[RESPONSE], ds[TREATED], strict=True)):
        if treated:
            words = text.split(" ")
            draws = np.random.default_rng([seed, i]).random(len(words))
            words[1:] = [
                misspell(w) if u < share and len(w) > 2 and w.isalpha() else w
                for w, u in zip(words[1:], draws[1:], strict=True)
            ]
            text = " ".join(words)
        responses.append(text)
    twins = [vowel(text, not treated) for text, treated in zip(responses, ds[TREATED], strict=True)]
    return ds.remove_columns([RESPONSE]).add_column(RESPONSE, responses).add_column(TWIN, twins)


# --- estimates beside the truth --------------------------------------------------------------------------


def sweep_table(
    ds: Dataset,
    sweep: Sweep,
    rewards: Sequence[RewardLike],
    *,
    cache: Path | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """The effects table by step, with the columns `design` and `truth` (NaN where it is not known)."""
    table = estimate(ds, by=STEP)
    notes = table.attrs.get("notes", [])
    truths: dict[tuple[Any, ...], float] = {}
    if TWIN in columns_of(ds):
        twins = ds.select_columns([PROMPT_ID, PROMPT, TWIN]).rename_column(TWIN, RESPONSE)
        twins = score(
            twins, rewards, cache=cache, trust_remote_code=trust_remote_code, progress=progress,
        )  # fmt: skip
        truths = true_effects(ds, twins)
    keys = zip(table["reward_model"], table[STEP], table["estimand"], strict=True)
    table.insert(0, "design", sweep.design)
    table.insert(table.columns.get_loc("estimate"), "truth", [truths.get(key, np.nan) for key in keys])
    table.attrs["notes"] = notes
    return table


def true_effects(ds: Dataset, twins: Dataset) -> dict[tuple[Any, ...], float]:
    """(reward model, step, estimand) -> mean of R(treated) - R(untreated) over the responses and their twins.

    Parameters
    ----------
    twins
        the rows of `ds` in their order, with the twins as responses, scored by the same rewards
    """
    steps, w = np.array(ds[STEP]), np.array(ds[TREATED], dtype=bool)
    found = {}
    for column in reward_columns(columns_of(twins)):
        if column not in columns_of(ds):
            continue
        differences = np.where(w, 1.0, -1.0) * (reward_matrix(ds, column)[:, 0] - reward_matrix(twins, column)[:, 0])
        for step in np.unique(steps):
            for estimand in ESTIMANDS:
                values = differences[(steps == step) & rows_about(w, estimand)]
                values = values[~np.isnan(values)]
                found[reward_name(column), step, estimand] = float(values.mean()) if len(values) else np.nan
    return found


def write_sweep_figure(path: Path, table: pd.DataFrame) -> Path:
    """The estimates along the sweep as a picture."""
    import matplotlib.pyplot as plt

    from ratekit import plots

    shown = table[(table["estimand"] == "ate") & (table["reward_sd"] > 0) & table["estimator"].isin(GRADED)]
    if shown.empty:
        return path
    sweeps = list(dict.fromkeys(zip(shown["design"], shown["reward_model"], strict=True)))
    figure, axes = plt.subplots(1, len(sweeps), figsize=(5.2 * len(sweeps), 4.2), squeeze=False, layout="constrained")
    for ax, (design, model) in zip(axes[0], sweeps, strict=True):
        plots.sweep(shown, design=design, reward_model=model, ax=ax)
    return write_picture(path, figure)
