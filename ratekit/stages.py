"""The pipeline: label, rewrite, score, estimate. Each stage takes a dataset and gives one with more columns.

ds = load("reviews", attribute="length")      # prompt_id, prompt, response      (sources.py)
ds = label(ds, "length")                      # attribute, treated
ds = rewrite(ds, "length", rewriter, depth=2) # rewrites, rewrite_status
ds = score(ds, "vader")                       # reward/vader
table = estimate(ds)                          # a tidy DataFrame
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import Attribute, get_attribute
from ratekit.errors import InputError, WorkError, unknown
from ratekit.estimators import effects, pooled_sd
from ratekit.groups import plain_columns, refuse_null, reward_matrix, treated_bools
from ratekit.resampling import UNCERTAINTIES, resampled
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.base import OK, Rewriter
from ratekit.rewriting.chains import rewrite_chains, status_counts, table_of, with_cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.replay import Replay
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT_ID,
    REWARD_PREFIX,
    REWARD_STATUS_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    find_reward,
    require,
    reward_columns,
    reward_name,
)
from ratekit.scoring import default_name, make_reward
from ratekit.scoring.base import Reward
from ratekit.scoring.engine import score_dataset
from ratekit.scoring.store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")


def label(ds: Dataset, attribute: str | Attribute) -> Dataset:
    """Add `attribute` and `treated`; rows without a label are dropped and counted.

    >>> import ratekit as rk
    >>> ds = rk.label(rk.load("reviews", attribute="sentiment"), "length")
    >>> sum(ds["treated"]), len(ds)
    (80, 160)

    Rewrites and rewards that came with other labels are taken away: they would answer another question.
    Raises InputError where no row gets a label.
    """
    require(ds, "label")
    attribute = get_attribute(attribute)
    labels = attribute.labels(ds)
    kept = [i for i, v in enumerate(labels) if v is not None]
    if not kept:
        raise InputError(f"label: none of the {len(ds)} rows has a label for {attribute.name!r}")
    if len(kept) < len(ds):
        n_dropped = len(ds) - len(kept)
        log.warning("label: %d of %d rows have no %s label and were dropped", n_dropped, len(ds), attribute.name)
    treated = [bool(labels[i]) for i in kept]
    names = [attribute.name] * len(kept)
    ds = ds.select(kept) if len(kept) < len(ds) else ds
    have = columns_of(ds)
    same = ATTRIBUTE in have and TREATED in have and ds[ATTRIBUTE] == names and ds[TREATED] == treated
    stale = [] if same else [c for c in have if c in (REWRITES, REWRITE_STATUS, *reward_columns(have))]
    if stale:
        log.warning("label: %s came with other labels and were taken away", ", ".join(stale))
    if len(set(treated)) == 1:
        log.warning("label: all %d rows are %s", len(kept), "treated" if treated[0] else "untreated")
    ds = ds.remove_columns([*stale, *(c for c in (ATTRIBUTE, TREATED) if c in have)])
    return ds.add_column(ATTRIBUTE, names).add_column(TREATED, treated)


def rewrite(
    ds: Dataset,
    attribute: str | Attribute,
    rewriter: str | Rewriter | Replay,
    depth: int = 2,
    cache: str | Path | None = None,
    base_url: str | None = None,
    progress: bool = True,
    *,
    options: Options | None = None,
    meter: Meter | None = None,
) -> Dataset:
    """Add `rewrites` and `rewrite_status`: the response rewritten to the other side, back, and so on, `depth` times.

    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> ds = rk.rewrite(ds, "length", "rules", depth=2, progress=False)
    >>> len(ds[0]["rewrites"]), ds[0]["rewrite_status"]
    (2, ['ok', 'ok'])

    rewriter  (texts, targets) -> list of Rewrite(text | None, status), or a spec: "rules", "replay", "replay:PATH",
              "openai:MODEL", "batch:MODEL", "hf:MODEL"
    cache     a folder: what is in it is not asked for again, so a run that was cut off goes on where it was; an
              LLM that a spec names always has one (`ratekit.rewriting.default_cache()`)
    base_url  of an OpenAI-compatible server of your own, for "openai:MODEL"
    options   how an LLM is asked: template, rates, retry_failed, ... (`ratekit.rewriting.Options`)
    meter     counts what is used and holds the budget (`ratekit.rewriting.cost.Meter`)

    A rewrite that failed is null and its status says why; so are those that would have followed from it.
    """
    from datasets import Dataset as HFDataset
    from datasets import concatenate_datasets

    require(ds, "rewrite")
    attribute = get_attribute(attribute)
    others = sorted(set(ds[ATTRIBUTE]) - {attribute.name})
    if others:
        raise InputError(f"rewrite: the rows are labelled for {', '.join(others)}, not for {attribute.name}")
    if depth < 1:
        raise InputError(f"depth={depth}: at least one rewrite is needed")
    if isinstance(rewriter, str):
        options = options or Options()
        options = replace(options, base_url=base_url or options.base_url)
        rewriter = make_rewriter(rewriter, attribute, cache=cache, options=options)
    if isinstance(rewriter, ChatRewriter):
        rewriter = with_cache(rewriter, cache)
    meter = meter or Meter()
    if isinstance(rewriter, Replay):
        table = table_of(rewriter.chains(ds, attribute.name, depth))
    else:
        table = rewrite_chains(ds, attribute, rewriter, depth, cache, progress, meter)
    counts = status_counts(table)
    if set(counts) - {OK}:
        log.warning("rewrite: %s", ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    if not counts[OK]:
        why = f"; the last fault was {meter.last_fault}" if meter.last_fault else ""
        raise WorkError(f"rewrite: no rewrite succeeded ({', '.join(counts)}){why}")
    ds = _without(ds, [REWRITES, REWRITE_STATUS, *reward_columns(columns_of(ds))])
    # With a fingerprint of its own, `datasets` does not hash (and for that copy) the whole table.
    return concatenate_datasets([ds, HFDataset(table, fingerprint=uuid.uuid4().hex[:16])], axis=1)


def score(
    ds: Dataset,
    reward: str | Path | Reward,
    *,
    name: str | None = None,
    cache: str | Path | None = None,
    adapter: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Dataset:
    """Add `reward/<name>`: the rewards of the response and of each rewrite, a list of depth+1 floats per row.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> ds[0]["reward/words"]
    [44.0, 125.0, 72.0, 167.0]

    reward   (prompts, responses) -> (n,) floats, or a name in `REWARD_MODELS`, a model folder, a hub id, "judge:MODEL",
             "dpo:POLICY,REFERENCE", "served:URL"
    name     of the column; by default the reward's own name
    cache    a folder of scores by model and text: what is in it is not scored again
    adapter  how a model is read (`ratekit.scoring.ADAPTERS`), where it is not known and should not be guessed

    A missing rewrite is not scored: its reward is null. Each distinct (prompt, response) is scored once. A text that
    could not be scored is null, counted and logged; where there is one, or one that was cut to the model's length,
    `reward_status/<name>` says of every text how it fared. A reward with several objectives adds
    `reward/<name>/<objective>` for each. WorkError where no text gets a finite reward.
    """
    require(ds, "score")
    name = name or default_name(reward)
    if isinstance(reward, str | Path):
        function = make_reward(reward, adapter=adapter, trust_remote_code=trust_remote_code)
    else:
        function = reward
    if not callable(function):
        raise InputError(f"a reward is a callable, a name or a path; got {type(function).__name__}")
    store = open_store(cache, function) if cache is not None else None
    rewards, statuses = score_dataset(ds, function, name, store=store, progress=progress)
    old = [c for c in columns_of(ds) if c == REWARD_PREFIX + name or c.startswith(f"{REWARD_PREFIX}{name}/")]
    ds = _without(ds, [*old, REWARD_STATUS_PREFIX + name])
    for column in rewards:
        ds = ds.add_column(REWARD_PREFIX + column.name, column.values)
    return ds if statuses is None else ds.add_column(REWARD_STATUS_PREFIX + name, statuses.values)


def estimate(
    ds: Any,
    *,
    rewards: Sequence[str] | None = None,
    by: str | Sequence[str] | None = None,
    level: float = 0.95,
    se_unpaired: bool = False,
    uncertainty: str = "analytic",
    draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """The effects table: every reward column, every estimator that the depth allows, one row per estimate.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> table = rk.estimate(ds)
    >>> ate = table[table.estimand == "ate"]
    >>> print(ate[["estimator", "estimate", "se"]].head(3).round(2).to_string(index=False))
         estimator  estimate   se
             naive     24.34 5.17
    single_rewrite      0.79 0.44
              rate      0.07 0.23

    ds           a Dataset or DataFrame with prompt_id, attribute, treated and reward/<name> columns
    rewards      names of reward models; default all
    by           columns to group by, each group estimated by itself; attributes are never pooled
    level        of the confidence intervals
    se_unpaired  add the two-sample SE, which ignores that the rows are pairs, for comparison
    uncertainty  "analytic" (cluster-robust SE, Student t), "bootstrap" (of clusters: SE, interval and p-value) or
                 "sign-flip" (permutation p-value), the last two with `draws` draws from `seed`

    Columns: attribute, reward_model, estimator, estimand, estimate, se, ci_low, ci_high, p_value, n, n_treated,
    n_untreated, n_clusters, n_dropped, reward_sd (after those of `by`). Estimates and reward_sd are in the reward's
    own units. What is left out, and why, is in `table.attrs["notes"]` and logged. Raises InputError where nothing
    can be estimated, and for a null label or a NaN or infinite reward.
    """
    import pandas as pd

    require(ds, "estimate")
    if uncertainty not in UNCERTAINTIES:
        raise unknown("kind of uncertainty", uncertainty, UNCERTAINTIES)
    if draws < 1:
        raise InputError(f"draws={draws}: at least one was expected")
    if not 0 < level < 1:
        raise InputError(f"level={level}: a number between 0 and 1 was expected, as in 0.95")
    columns = [find_reward(ds, r) for r in rewards] if rewards else reward_columns(columns_of(ds))
    groups = [by] if isinstance(by, str) else list(by or [])
    for column in groups:
        if column not in columns_of(ds):
            raise unknown("column to group by", column, columns_of(ds))
    frame = plain_columns(ds, [PROMPT_ID, ATTRIBUTE, TREATED, *groups])
    if len(frame) == 0:
        raise InputError("estimate: the dataset has no rows")
    treated = treated_bools(frame[TREATED])
    refuse_null(frame[PROMPT_ID], PROMPT_ID)
    clusters = pd.factorize(frame[PROMPT_ID].astype(str))[0].astype(np.int64)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {}
    n_groups = 0
    for column in columns:
        matrix = reward_matrix(ds, column)
        for key, index in frame.groupby([*groups, ATTRIBUTE], sort=False, dropna=False).indices.items():
            key = key if isinstance(key, tuple) else (key,)
            labels = {
                **dict(zip([*groups, ATTRIBUTE], key, strict=True)),
                "reward_model": reward_name(column),
            }
            n_groups += 1
            r, w = matrix[index], treated[index]
            sd = pooled_sd(r[:, 0], w) if r.shape[1] else float("nan")
            found = effects(r, w, clusters[index], level)
            if uncertainty != "analytic":
                found = resampled(found, r, w, clusters[index], uncertainty, draws, seed, level)
            for e in found:
                if isinstance(e, str):
                    left_out.setdefault(e, []).append(" / ".join(map(str, labels.values())))
                    continue
                row = {**labels, **vars(e), "reward_sd": sd}
                unpaired = row.pop("se_unpaired")
                rows.append({**row, "se_unpaired": unpaired} if se_unpaired else row)
    notes = _pooling(ds, groups) + _gathered(left_out, n_groups)
    for note in notes:
        log.info(note)
    if not rows:
        raise InputError("nothing can be estimated: " + "; ".join(notes))
    table = pd.DataFrame(rows)
    table.attrs["notes"] = notes
    return table


def _gathered(left_out: dict[str, list[str]], n_groups: int) -> list[str]:
    """Each reason once, with all that it leaves out, and where unless that is everywhere."""
    subjects: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for note, where in left_out.items():
        subject, _, why = note.partition(": ")
        subjects.setdefault((why, tuple(where)), []).append(subject)
    return [
        f"{', '.join(names)}: {why}" + (f" ({', '.join(where)})" if len(where) < n_groups else "")
        for (why, where), names in subjects.items()
    ]


def _pooling(ds: Any, groups: list[str]) -> list[str]:
    """A note where rows of several sources are pooled."""
    if "source" in columns_of(ds) and "source" not in groups:
        n = plain_columns(ds, ["source"])["source"].nunique()
        if n > 1:
            return [f"rows of {n} sources are pooled; by='source' gives each its own"]
    return []


def standardize(table: pd.DataFrame) -> pd.DataFrame:
    """The table in reward SDs: estimate, se and interval divided by `reward_sd`, which becomes 1.

    >>> import pandas as pd
    >>> t = pd.DataFrame({"estimate": [3.0], "se": [1.0], "ci_low": [1.0], "ci_high": [5.0], "reward_sd": [2.0]})
    >>> standardize(t).iloc[0].tolist()
    [1.5, 0.5, 0.5, 2.5, 1.0]
    """
    out = table.copy()
    sd = out["reward_sd"].where(out["reward_sd"] > 0)
    for column in ("estimate", "se", "ci_low", "ci_high", "se_unpaired"):
        if column in out:
            out[column] = out[column] / sd
    out["reward_sd"] = sd / sd
    return out


def _without(ds: Dataset, columns: list[str]) -> Dataset:
    return ds.remove_columns([c for c in columns if c in ds.column_names])
