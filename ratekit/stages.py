"""The pipeline: label, rewrite, score, estimate. Each stage takes a dataset and gives one with more columns.

ds = load("reviews", attribute="length")      # prompt_id, prompt, response      (sources.py)
ds = label(ds, "length")                      # attribute, treated
ds = rewrite(ds, "length", rewriter, depth=2) # rewrites, rewrite_status
ds = score(ds, "vader")                       # reward/vader
table = estimate(ds)                          # a tidy DataFrame
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.attributes import find_attribute, measure_of
from ratekit.columns import dataset
from ratekit.errors import InputError, NoRewriteError, require_known, require_whole
from ratekit.estimators import ESTIMATORS, Effect, Effects, Floats, Ints, LeftOut, effects, part_of, refuse_level
from ratekit.groups import Group, chains_of, groups, original_features, plain_columns, rewards_of
from ratekit.intervals import Interval, interval_of
from ratekit.labellers import Attribute
from ratekit.measures import Looked, Measure, measured, unit_of
from ratekit.recommendation import recommended, shown
from ratekit.resampling import UNCERTAINTIES, refuse_draws, resampled
from ratekit.rewriting import Options, make_rewriter
from ratekit.rewriting.base import OK, USABLE, Rewriter
from ratekit.rewriting.chains import chain_table, rewrite_chains, status_counts, with_cache
from ratekit.rewriting.chat import ChatRewriter
from ratekit.rewriting.cost import Meter
from ratekit.rewriting.replay import Replay
from ratekit.schema import (
    ATTRIBUTE,
    MEASURE_PREFIX,
    PROMPT,
    RESPONSE,
    REWARD_PREFIX,
    REWARD_STATUS_PREFIX,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
    require,
    reward_columns,
)
from ratekit.scoring import RewardLike, read_rewards
from ratekit.scoring.base import Reward
from ratekit.scoring.engine import score_dataset
from ratekit.scoring.store import open_store
from ratekit.sources.labels import flattened, labelled_rows, with_description, without
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

log = logging.getLogger("ratekit")


def label(ds: Any, attribute: str | Attribute, *, label_column: str | None = None, positive: Any = None) -> Dataset:
    """Add `attribute` and `treated`; rows without a label are dropped and counted.

    Parameters
    ----------
    ds
        Rows with a response: whatever `as_dataset` takes.
    attribute : str or Attribute
        A name in `ATTRIBUTES`, "FILE.py:NAME", or an Attribute.
    label_column : str, optional
        Label by this column of the data, instead of by the attribute's own label or measure. Without it a column
        `treated` that names no attribute is taken as the labels.
    positive : value or list of values, optional
        Of `label_column`, in the treated rows. Without it the column holds true and false, 0 and 1, yes and no or
        positive and negative.

    Returns
    -------
    Dataset
        With `attribute` and `treated`. Rewrites and rewards that came with other labels are taken away: they would
        answer another question.

    Raises
    ------
    InputError
        No row gets a label, or all get the same one (unless the attribute says ``one_class=True``).

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.label(rk.load("reviews", attribute="sentiment"), "length")
    >>> sum(ds["treated"]), len(ds)
    (80, 160)
    """
    ds = rows_for("label", ds)
    return labelled_rows(ds, find_attribute(attribute, ds), label_column, positive)


def rewrite(
    ds: Any,
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

    A rewrite that failed is null and its status says why; so are those that would have followed from it.

    Parameters
    ----------
    rewriter
        (texts, targets) -> list of Rewrite(text | None, status), or a spec: "rules", "replay", "replay:PATH",
        "openai:MODEL", "batch:MODEL", "hf:MODEL"
    cache
        a folder: what is in it is not asked for again, so a run that was cut off goes on where it was; an LLM that a
        spec names always has one (`ratekit.rewriting.default_cache()`)
    base_url
        of an OpenAI-compatible server of your own, for "openai:MODEL"
    options
        how an LLM is asked: template, rates, retry_failed, ... (`ratekit.rewriting.Options`)
    meter
        counts what is used and holds the budget (`ratekit.rewriting.cost.Meter`)

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> ds = rk.rewrite(ds, "length", "rules", depth=2, progress=False)
    >>> len(ds[0]["rewrites"]), ds[0]["rewrite_status"]
    (2, ['ok', 'ok'])
    """
    from datasets import concatenate_datasets

    ds = rows_for("rewrite", ds)
    attribute = find_attribute(attribute, ds)
    others = sorted(set(ds[ATTRIBUTE]) - {attribute.name})
    if others:
        raise InputError(f"rewrite: the rows are labelled for {', '.join(others)}, not for {attribute.name}")
    require_whole("depth", depth, 1)
    options = replace(options or Options(), base_url=base_url or (options.base_url if options else None))
    table = _table(ds, attribute, rewriter, depth, cache, options, meter or Meter(), progress, {OK})
    gone = [c for c in columns_of(ds) if c.startswith((REWARD_STATUS_PREFIX, MEASURE_PREFIX))]
    ds = flattened(without(ds, [REWRITES, REWRITE_STATUS, *gone, *reward_columns(columns_of(ds), how_read=True)]))
    ds = concatenate_datasets([ds, dataset(table)], axis=1)
    return with_description(ds, attribute)


def _table(
    ds: Dataset, attribute: Attribute, rewriter: Any, depth: int, cache: str | Path | None, options: Options | None,
    meter: Meter, progress: bool, enough: set[str],
) -> Any:  # fmt: skip
    """The columns of rewrites; WorkError where none of them has one of the statuses that are `enough`."""
    if isinstance(rewriter, str):
        rewriter = make_rewriter(rewriter, attribute, cache=cache, options=options or Options())
    if isinstance(rewriter, ChatRewriter):
        rewriter = with_cache(rewriter, cache)
    if isinstance(rewriter, Replay):
        table = chain_table(rewriter.chains(ds, attribute.name, depth))
    else:
        table = rewrite_chains(ds, attribute, rewriter, depth, cache, progress, meter)
    counts = status_counts(table)
    if set(counts) - {OK}:
        log.warning("rewrite: %s", ", ".join(f"{n} {status}" for status, n in counts.most_common()))
    if not enough & set(counts):
        why = f"; the last fault was {meter.last_fault}" if meter.last_fault else ""
        if meter.from_cache and not (meter.requests or meter.replies or meter.unreadable):
            why += "; all replies are kept ones of an earlier run, and retry_failed (--retry-failed) asks again"
        raise NoRewriteError(f"rewrite: no rewrite succeeded ({', '.join(counts)}){why}")
    return table


def placebo(
    ds: Any,
    attribute: str | Attribute,
    rewriter: str | Rewriter,
    *,
    phrases: tuple[str, str] | None = None,
    cache: str | Path | None = None,
    options: Options | None = None,
    meter: Meter | None = None,
    progress: bool = True,
) -> Dataset:
    """Ask for each second rewrite once more, to keep its side: rows whose RATE is what such a pass adds by itself.

    Parameters
    ----------
    ds : Dataset
        Rows with two rewrites, by the same rewriter.
    attribute, rewriter, cache, options, meter
        As in `rewrite`.
    phrases : tuple of str, optional
        What is asked for, (treated, untreated), as in ("as long as it is", "as short as it is"); by default the
        attribute's own phrases, which for one like "longer" move the text further.

    Returns
    -------
    Dataset
        The rows under the attribute "NAME, kept": `rewrites` are the second rewrite and its placebo. `estimate` of
        their rewards gives under `rate` what the asymmetry adds to RATE as far as a placebo can say, and under `dose`
        how far the placebo moved the attribute, which should be 0.

    Raises
    ------
    InputError
        No row has a second rewrite.

    Notes
    -----
    Let a pass that asks a text on side s for side t add m_st to the reward off the attribute, whose effect is e. With
    r1, r2 the rewards of the rewrites and r3 that of the placebo of the second:

        treated rows      r2 - r1 =  e + m_01      r3 - r2 = m_11
        untreated rows    r2 - r1 = -e + m_10      r3 - r2 = m_00

    So RATE's ATT is off by m_01, its ATU by -m_10 and its ATE by p m_01 - (1-p) m_10, p the share treated, and the
    rows given here estimate m_11, -m_00 and p m_11 - (1-p) m_00. That is the whole of what RATE is off by where a pass
    adds what it does by the side that it asks for (m_01 = m_11, m_10 = m_00). Else it is a part: what the change of
    side itself adds, m_01 - m_11 and m_10 - m_00, is in no placebo, and a mark that the second rewrite has left already
    and that no further pass adds to is not either (m_11 = 0). An estimate that is not 0, at a dose of 0, shows an
    asymmetry; one of 0 does not show that there is none.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.rewrite(rk.load("reviews", attribute="sentiment"), "sentiment", "rules", progress=False)
    >>> kept = rk.placebo(ds, "sentiment", "rules", progress=False)
    >>> kept["attribute"][0], kept[0]["rewrites"][0] == ds[0]["rewrites"][1]
    ('sentiment, kept', True)
    """
    ds = rows_for("rewrite", ds, [REWRITES])
    attribute = find_attribute(attribute, ds)
    have = [i for i, chain in enumerate(ds[REWRITES]) if len(chain or []) > 1 and chain[1] is not None]
    if not have:
        raise InputError("placebo: no row has a second rewrite")
    if len(have) < len(ds):
        log.warning("placebo: %d of %d rows have no second rewrite and were dropped", len(ds) - len(have), len(ds))
    gone = [c for c in columns_of(ds) if c.startswith((REWARD_STATUS_PREFIX, MEASURE_PREFIX))]
    ds = without(flattened(ds.select(have)), [*gone, *reward_columns(columns_of(ds), how_read=True)])
    second = [chain[1] for chain in ds[REWRITES]]
    asked = attribute if phrases is None else replace(attribute, treated=phrases[0], untreated=phrases[1])
    turned = without(ds, [RESPONSE, TREATED]).add_column(RESPONSE, second)
    turned = turned.add_column(TREATED, [not w for w in ds[TREATED]])  # asked for the side that they are on
    made = _table(turned, asked, rewriter, 1, cache, options, meter or Meter(), progress, set(USABLE))
    again, statuses = made[REWRITES].to_pylist(), made[REWRITE_STATUS].to_pylist()
    named = replace(asked, name=f"{attribute.name}, kept")
    kept = without(ds, [ATTRIBUTE, REWRITES, REWRITE_STATUS]).add_column(ATTRIBUTE, [named.name] * len(ds))
    kept = kept.add_column(REWRITES, [[x, *chain] for x, chain in zip(second, again, strict=True)])
    kept = kept.add_column(REWRITE_STATUS, [[OK, *status] for status in statuses])
    return with_description(kept, named)


def score(
    ds: Any,
    reward: RewardLike | Sequence[RewardLike] | Mapping[str, RewardLike],
    *,
    name: str | Sequence[str] | None = None,
    cache: str | Path | None = None,
    adapter: str | None = None,
    truncation: str = "prompt",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Dataset:
    """Add `reward/<name>`: the rewards of the response and of each rewrite, a list of depth+1 floats per row.

    Parameters
    ----------
    ds
        Rows in any form that `as_dataset` takes, with prompt, response and, where there are any, rewrites.
    reward
        (prompts, responses) -> (n,) floats, a function in TRL's signature `(completions, **columns)`, or a name in
        `REWARD_MODELS`, a model folder (a LoRA adapter's too), a hub id, "judge:MODEL", "pairwise:MODEL,REFERENCES",
        "dpo:POLICY,REFERENCE", "served:URL[,MODEL]"; or a list of such, or a mapping of names to them.
    name
        Of the column, or of each in a list; by default the reward's own name, its function's or its class's.
    cache
        A folder of scores by model and text: what is in it is not scored again.
    adapter
        How a model is read (`ratekit.scoring.ADAPTERS`, or "token:TOKEN"), where it is not known and should not be
        guessed.
    truncation
        What a text that is longer than a model reads loses first: "prompt" (its beginning) or "response" (its end).

    Returns
    -------
    Dataset
        The rows with `reward/<name>`; a reward with several objectives adds `reward/<name>/<objective>` for each.

    Raises
    ------
    InputError
        For a reward that is none, for two of one name, and for an option that none of the rewards can use.
    WorkError
        Where no text gets a finite reward.

    Notes
    -----
    A missing rewrite is not scored: its reward is null. Each distinct (prompt, response) is scored once. A text that
    could not be scored is null, counted and logged with its reason; where there is one, or one that was cut to the
    model's length, `reward_status/<name>` says of every text how it fared.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), ["words", "vader"], progress=False)
    >>> ds[0]["reward/words"]
    [44.0, 125.0, 72.0, 167.0]
    """
    ds = rows_for("score", ds)
    options = {"adapter": adapter, "truncation": truncation, "trust_remote_code": trust_remote_code}
    rewards = read_rewards(reward, name, **options)
    if not rewards:
        raise InputError("score: which reward? none was given")
    for column, one in rewards.items():
        ds = _scored(ds, one.make(), column, cache, progress)
    return ds


def _scored(ds: Dataset, reward: Reward, name: str, cache: str | Path | None, progress: bool) -> Dataset:
    store = open_store(cache, reward) if cache is not None else None
    rewards, statuses = score_dataset(ds, reward, name, store=store, progress=progress)
    old = [c for c in columns_of(ds) if c == REWARD_PREFIX + name or c.startswith(f"{REWARD_PREFIX}{name}/")]
    ds = flattened(without(ds, [*old, REWARD_STATUS_PREFIX + name]))
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
    measures: Mapping[str, Measure] | None = None,
    sample: str = "complete",
) -> pd.DataFrame:
    """The effects table: every reward column, every estimator that the depth allows, one row per estimate.

    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="sentiment"), "words", progress=False)
    >>> table = rk.estimate(ds)
    >>> ate = table[table.estimand == "ate"]
    >>> print(ate[["estimator", "estimate", "se"]].head(3).round(2).to_string(index=False))
         estimator  estimate   se
             naive     24.34 5.18
    single_rewrite      0.79 0.44
              rate      0.07 0.23

    Parameters
    ----------
    ds
        A Dataset or DataFrame with the columns prompt_id, attribute, treated and reward/<name>.
    rewards
        Names of reward models; default all.
    by
        Columns to group by, each group estimated by itself; attributes are never pooled.
    level
        Of the confidence intervals.
    se_unpaired
        Add the two-sample SE, which ignores that the rows are pairs, for comparison.
    uncertainty
        "analytic" (cluster-robust SE, Student t), "bootstrap" (of clusters: SE, interval and p-value) or "sign-flip"
        (permutation p-value), the last two with `draws` draws from `seed`.
    measures
        {attribute: texts -> numbers}, what an attribute's dose is measured by where `rk.ATTRIBUTES` does not say.
    sample
        "complete": each estimator uses the rows that have the rewards it needs. "two-phase": the rows hold all
        originals and the rewrites of a part; what the others' differences would be is predicted from their texts and
        rewards and the prediction is corrected (`ratekit.augmentation`), for a smaller SE, and for refusals that depend
        on what is seen. `n` then counts all rows and `n_dropped` those predicted.

    Returns
    -------
    pandas.DataFrame
        Columns (after those of `by`): attribute, reward_model, estimator, estimand, estimate, se, ci_low, ci_high,
        p_value, n, n_treated, n_untreated, n_clusters, n_dropped, reward_sd, in the reward's own units; df, the degrees
        of freedom of the interval; estimate_sd, se_sd, ci_low_sd, ci_high_sd, in SDs of the originals' rewards, with
        the SD's own uncertainty counted; recommended, true for the one row of each attribute, reward model (and group)
        to read first, and reason, why (`ratekit.recommendation`); where the data leave two estimates open its SE and
        interval cover both, which the reason says. Where an attribute has a measure and the rows have
        texts also dose, dose_low, dose_high, the change of the measure that the estimate is the effect of, with its
        interval, and dose_unit, the measure. What is left out, and why, is in
        `table.attrs["notes"]` as sentences, in `table.attrs["left_out"]` as records, and logged; `table.attrs["level"]`
        is the level.

    Raises
    ------
    InputError
        Where nothing can be estimated, and for a null label, a NaN or infinite reward, or one of 1e100 or more.
    """
    import pandas as pd

    from ratekit.effects_table import EffectsTable

    if isinstance(ds, pd.DataFrame) and not _is_written(ds):
        require(ds, "estimate")  # read as it is: a million rows need no second copy, and no `datasets`
    else:
        ds = rows_for("estimate", ds)
    require_known("kind of uncertainty", uncertainty, UNCERTAINTIES)
    refuse_draws(draws, seed)
    refuse_level(level)
    require_known("kind of sample", sample, SAMPLES)
    if sample == "two-phase":
        require(ds, "estimate", [PROMPT, RESPONSE])
        if uncertainty != "analytic":
            raise InputError(f"sample='two-phase' has analytic standard errors alone, not uncertainty={uncertainty!r}")
    matrices = rewards_of(ds, rewards)
    parts = list(groups(ds, by))
    lengths = _lengths(ds) if {RESPONSE, REWRITES} <= set(columns_of(ds)) else None
    doses = _own_measures(ds, parts, measures, texts=lengths is not None)
    dosed = any(own is not None for own in doses)
    rows: list[dict[str, Any]] = []
    left_out: dict[str, list[LeftOut]] = {}
    notes = _pooling(ds, [by] if isinstance(by, str) else list(by or []))
    features = original_features(ds) if sample == "two-phase" else None
    longest = 1
    for name, matrix in matrices:
        longest = max(longest, matrix.shape[1])
        if lengths is not None:
            _refuse_more(matrix, lengths, REWARD_PREFIX + name)
        known = None if features is None or not matrix.shape[1] else np.column_stack([features, matrix[:, 0]])
        for group, own in zip(parts, doses, strict=True):
            labels = {**group.labels, "reward_model": name}
            r, w, codes = matrix[group.rows], group.treated, group.clusters
            seen = None if known is None else known[group.rows]
            found = effects(r, w, codes, level, unpaired=se_unpaired, features=seen)
            best = recommended(found, r, w, codes, None if own is None else own[0])
            if uncertainty != "analytic":
                found = resampled(found, r, w, codes, uncertainty, draws, seed, level)
            found = shown(found, best, level)
            left_out[" / ".join(map(str, labels.values()))] = list(found.left_out)
            for e in found:
                first = best is not None and (e.estimator, e.estimand) == best[:2]
                row = {**labels, **{c: getattr(e, c) for c in _BEFORE_SD}, "reward_sd": found.reward_sd}
                row |= {c: getattr(e, c) for c in _AFTER_SD}
                row |= {"recommended": first, "reason": best.reason if best and first else ""}
                row |= _dose(own, r, group, e, level) if dosed else {}
                rows.append({**row, "se_unpaired": e.se_unpaired} if se_unpaired else row)
            notes += _one_large_cluster(labels, found)
    notes += _gathered(left_out, depth=longest - 1)
    for note in notes:
        log.info(note)
    if not rows:
        raise InputError("nothing can be estimated: " + "; ".join(notes))
    table = EffectsTable(rows)
    table.attrs["level"] = float(level)
    table.attrs["notes"] = notes
    table.attrs["left_out"] = [
        {"of": where, "estimator": e.estimator, "estimand": e.estimand, "why": e.why}
        for where, records in left_out.items()
        for e in records
    ]
    return table


_BEFORE_SD = (
    "estimator", "estimand", "estimate", "se", "ci_low", "ci_high", "p_value", "n", "n_treated", "n_untreated",
    "n_clusters", "n_dropped",
)  # fmt: skip
_AFTER_SD = ("df", "estimate_sd", "se_sd", "ci_low_sd", "ci_high_sd")
SAMPLES = ("complete", "two-phase")
LARGE_CLUSTER = 0.2  # share of the rows


def _lengths(ds: Any) -> Ints:
    """The number of texts of each row."""
    return np.fromiter((len(chain) for chain in chains_of(ds)), np.int64, len(ds))


def _refuse_more(matrix: Floats, lengths: Ints, column: str) -> None:
    """Raise InputError naming the first row with a reward of a rewrite that it does not have."""
    more = np.isfinite(matrix) & (np.arange(matrix.shape[1]) >= lengths[:, None])
    if more.any():
        row = int(np.flatnonzero(more.any(axis=1))[0])
        raise InputError(
            f"row {row + 1}: {column} has {int(np.flatnonzero(more[row])[-1]) + 1} rewards, and the row {lengths[row]} "
            "texts (the response and its rewrites); score the rows again"
        )


def own_measures(
    ds: Any, looked: Looked, measures: Mapping[str, Measure] | None = None, *, first: Any = None
) -> dict[str, Measure]:
    """By attribute its own measure, which looks at no text again: none that is `looked` at, as those of `first` are."""
    found = {name: measure_of(name, measures, ds) for name in (str(g.labels[ATTRIBUTE]) for g in groups(ds))}
    for group in () if first is None else groups(first):
        measure = found.get(name := str(group.labels[ATTRIBUTE]))
        if measure is not None:
            measured(measure, chains_of(first, group.rows), name, looked)
    return {name: looked.measure(measure) for name, measure in found.items() if measure is not None}


def _own_measures(
    ds: Any, parts: list[Group], measures: Mapping[str, Measure] | None, texts: bool
) -> list[tuple[Floats, str] | None]:
    """Per group the attribute's own measure of every text, (n, depth+1), and its name; None without either."""
    found: list[tuple[Floats, str] | None] = []
    for group in parts:
        attribute = str(group.labels[ATTRIBUTE])
        measure = measure_of(attribute, measures, ds) if texts else None
        if measure is None:
            found.append(None)
        else:
            values = measured(measure, chains_of(ds, group.rows), attribute)
            found.append((values, unit_of(measure)))
    return found


def _dose(own: tuple[Floats, str] | None, r: Floats, group: Group, e: Effect, level: float) -> dict[str, Any]:
    """The change of the attribute's own measure that an estimate is the effect of: the estimator, of the measure."""
    dose = Interval(float("nan"), float("nan"), float("nan"), 0)
    if own is not None:
        depth = min(own[0].shape[1], r.shape[1])
        m = np.where(np.isfinite(r[:, :depth]), own[0][:, :depth], np.nan)
        part = part_of(m, group.treated, group.clusters, e.estimator, e.estimand)
        if part is not None:
            dose = interval_of(part, part.n, level)
    unit = own[1] if own is not None and np.isfinite(dose.value) else ""
    return {"dose": dose.value, "dose_low": dose.low, "dose_high": dose.high, "dose_unit": unit}


def _one_large_cluster(labels: Mapping[str, Any], found: Effects) -> list[str]:
    """A note where one cluster holds so much that the interval is a wide one."""
    worst = max((e for e in found if e.n_clusters > 5), key=lambda e: e.largest_cluster, default=None)
    if worst is None or worst.largest_cluster <= LARGE_CLUSTER:
        return []
    of = {"att": "treated rows", "atu": "untreated rows", "ate": "rows"}[worst.estimand]
    of = "rows of a class" if ESTIMATORS[worst.estimator].classes else of
    where = " / ".join(map(str, labels.values()))
    return [
        f"one prompt holds {worst.largest_cluster:.0%} of the {of} ({where}), so intervals have few degrees of freedom"
    ]


def _gathered(left_out: Mapping[str, list[LeftOut]], depth: int) -> list[str]:
    """Each reason once, with all that it leaves out, and where unless that is everywhere.

    Where RATE has its two rewrites, an estimator that reads more of them than there are is no news.
    """
    where_of: dict[LeftOut, list[str]] = {}
    for where, records in left_out.items():
        for record in records:
            if not max(ESTIMATORS[record.estimator].passes) > depth >= 2:
                where_of.setdefault(record, []).append(where)
    subjects: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for record, places in where_of.items():
        subjects.setdefault((record.why, tuple(places)), {}).setdefault(record.estimator, []).append(record.estimand)
    return [
        f"{', '.join(_name(*item) for item in names.items())}: {why}"
        + (f" ({', '.join(places)})" if len(places) < len(left_out) else "")
        for (why, places), names in subjects.items()
    ]


def _name(estimator: str, estimands: list[str]) -> str:
    """An estimator, with the estimands that are meant unless all of them are."""
    if set(estimands) == set(ESTIMATORS[estimator].estimands):
        return estimator
    return f"{estimator} {' and '.join(e.upper() for e in estimands)}"


def _is_written(frame: pd.DataFrame) -> bool:
    """Whether the rewards are texts, as pandas reads them from a CSV."""
    return any(isinstance(v, str) for c in reward_columns(columns_of(frame), how_read=True) for v in frame[c].tolist())


def _pooling(ds: Any, groups: list[str]) -> list[str]:
    """A note where rows of several sources are pooled."""
    if "source" in columns_of(ds) and "source" not in groups:
        n = plain_columns(ds, ["source"])["source"].nunique()
        if n > 1:
            return [f"rows of {n} sources are pooled; by='source' gives each its own"]
    return []
