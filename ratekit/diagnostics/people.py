"""People beside the model: their preferences on the same pairs, and the counterfactuals that they wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import InputError, shorten
from ratekit.estimators import (
    ESTIMATORS,
    Bools,
    Floats,
    Ints,
    Part,
    clustered_mean,
    part_of,
    rounding_of,
    rows_used,
    t_interval,
)
from ratekit.groups import groups, plain_columns, reward_matrix, rewards_of
from ratekit.intervals import share_interval
from ratekit.resampling import adjust, sign_flip
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    RESPONSE,
    REWARD_PREFIX,
    REWRITES,
    columns_of,
    require,
)
from ratekit.scoring.base import Reward
from ratekit.sources.labels import flattened, without
from ratekit.sources.loading import rows_for
from ratekit.stages import score
from ratekit.tables import p_words, percent

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("ratekit")

_CHOICES = {"treated": 1.0, "untreated": 0.0, "tie": 0.5}


def warranted(
    ds: Any,
    human: str = "human_preference",
    *,
    rewards: Sequence[str] | None = None,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Does the reward model prefer the treated version of a pair more often than people do, and does it agree?

    One row per attribute and reward model: attribute, reward_model, model_rate and human_rate (share of pairs in which
    the treated version is preferred, ties half), skew (their difference), skew_low, skew_high (which leave 0 out only
    where p_value does), p_value (paired: signs flipped cluster by cluster, `resampling.sign_flip`), p_adjusted,
    miscalibration (share of the pairs without a tie in which model and people disagree) with miscalibration_low and
    _high (Wilson), towards_treated (share of those disagreements in which the model wants the treated version),
    towards_p (paired test that it is half), n, n_ties, n_clusters, n_dropped, words (of p_adjusted, held against 1 -
    `level`, and of the interval). Skew and miscalibration as in Bharadwaj et al. 2025 (arXiv 2506.05339), but the skew
    is against what people do and not against one half.

    Parameters
    ----------
    human
        a column with what people chose between the first rewrite and the second: "treated" (the version that has the
        attribute), "untreated" or "tie", or a share from 0 to 1; null where nobody was asked

    Examples
    --------
    >>> import pandas as pd
    >>> pairs = pd.DataFrame({"prompt_id": list("abcdef"), "attribute": "length", "treated": False,
    ...                       "reward/rm": [[None, 2.0, 1.0]] * 6, "human_preference": ["treated"] + ["untreated"] * 5})
    >>> warranted(pairs)[["model_rate", "human_rate", "skew", "miscalibration"]].round(2).values.tolist()
    [[1.0, 0.17, 0.83, 0.83]]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    if human not in columns_of(ds):
        raise InputError(f"warranted: no column {human!r} with people's choices (columns: {', '.join(columns_of(ds))})")
    parts = list(groups(ds))
    choice = _choices(plain_columns(ds, [human])[human], human)
    rows = []
    for name, matrix in rewards_of(ds, rewards):
        if matrix.shape[1] < 3:
            raise InputError(f"warranted: reward/{name} has no reward of the second rewrite; pairs need depth 2")
        for group in parts:
            gap = ESTIMATORS["rate"].values(matrix[group.rows], group.treated, group.clusters)
            people = choice[group.rows]
            used = np.isfinite(gap) & np.isfinite(people)
            row = {**group.labels, "reward_model": name}
            rows.append({**row, **_compare(gap[used], people[used], group.clusters[used], level, draws, seed),
                         "n_dropped": int((~used).sum())})  # fmt: skip
    table = adjust(pd.DataFrame(rows))
    table["words"] = [_words(row, level) for row in table.to_dict("records")]
    return table


def _choices(values: Any, column: str) -> Floats:
    import pandas as pd

    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if pd.api.types.is_scalar(value) and pd.isna(value):
            continue
        known = _CHOICES.get(value.strip().lower(), np.nan) if isinstance(value, str) else value
        if not (isinstance(known, int | float) and 0 <= known <= 1):
            raise InputError(
                f"row {i + 1}: {column!r} holds {shorten(value)!r}; treated, untreated, tie or a share from 0 to 1 was "
                "expected"
            )
        out[i] = float(known)
    return out


def _compare(gap: Floats, people: Floats, clusters: Any, level: float, draws: int, seed: int) -> dict[str, Any]:
    model = (np.sign(gap) + 1) / 2
    mean = clustered_mean(model - people, clusters)
    low, high, _ = mean.interval(level)
    p = sign_flip(model - people, clusters, draws, seed) if len(gap) else np.nan
    if p >= 1 - level:  # the t interval of few pairs is shorter than what the exact test allows
        low, high = min(low, 0.0), max(high, 0.0)
    untied = (people != 0.5) & (model != 0.5)
    wrong = ((model > 0.5) != (people > 0.5))[untied]
    share = share_interval(wrong.astype(float), clusters[untied], level)
    towards = (model[untied] > 0.5)[wrong]
    tested = np.where(towards, 1.0, -1.0)
    return {
        "model_rate": model.mean() if len(model) else np.nan, "human_rate": people.mean() if len(people) else np.nan,
        "skew": mean.value, "skew_low": low, "skew_high": high,
        "p_value": p,
        "miscalibration": share.value, "miscalibration_low": share.low, "miscalibration_high": share.high,
        "towards_treated": towards.mean() if len(towards) else np.nan,
        "towards_p": sign_flip(tested, clusters[untied][wrong], draws, seed) if len(towards) else np.nan,
        "n": len(gap), "n_ties": int((people == 0.5).sum()), "n_clusters": mean.n_clusters,
    }  # fmt: skip


SAME_RATE = 0.1  # a skew within it is none to speak of


def _words(row: dict[str, Any], level: float) -> str:
    """What a row says: how often, and whether on the same pairs."""
    if not row["n"]:
        return "nobody was asked about a pair that is scored"
    if not np.isfinite(row["p_adjusted"]):
        return "no test: one cluster, or model and people agree on every pair"
    skew, low, high, apart = row["skew"], row["skew_low"], row["skew_high"], row["miscalibration"]
    apart = f"; they disagree on {percent(apart)} of the pairs" if apart == apart else ""  # NaN: a tie in every pair
    between = f"({percent(low, '+')} to {percent(high, '+')})"
    if row["p_adjusted"] < 1 - level and not low <= 0 <= high:
        more = f"{percent(abs(skew))} of the time {'more' if skew > 0 else 'less'} than people do"
        return f"not warranted: prefers the treated version {more}{apart}"
    if max(-low, high) <= SAME_RATE:
        return f"prefers the treated version about as often as people do {between}{apart}"
    said = "too few pairs to tell whether it prefers the treated version more often"
    if row["p_value"] < 1 - level <= row["p_adjusted"]:
        said += f" beside the other comparisons (p_adjusted {p_words(row['p_adjusted'])})"
    return said + (f" {between}" if low == low else "") + apart


def compare_counterfactuals(
    ds: Any,
    column: str,
    *,
    rewards: Mapping[str, Reward | str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The effect by counterfactuals that people wrote, beside naive, a single rewrite and RATE on the same rows.

    Parameters
    ----------
    ds
        Scored rows.
    column
        What people made of each response to bring it to the other side: their texts, which are scored here, or their
        rewards, numbers, which need no `rewards` and belong to the one reward model of the data. Null where there is
        none.
    rewards
        {name of a reward model of the data: the function, or its name}, to score the texts with; by default each
        reward model is looked up by its name.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row per attribute, reward model and estimator ("human", then those that the depth allows): attribute,
        reward_model, estimator, estimand (ATE; of one class alone ATT or ATU), estimate (in the reward's units), se,
        ci_low, ci_high, minus_human (the estimate minus that by people, on the same rows) with difference_se,
        difference_low, difference_high, p_value (paired, by cluster), n, n_clusters, n_dropped (rows without a
        counterfactual, or without the rewards that are needed).

    Raises
    ------
    InputError
        For a missing or empty column, one that is neither texts nor numbers, an infinite reward, an unknown reward
        model, and where no row is left.
    WorkError
        Where the function gives none of the texts a finite reward.

    Notes
    -----
    The row difference of people's counterfactuals is s (r0 - r_human), as that of a single rewrite; texts are scored as
    `rk.score` does it, so one that gets no reward is null, counted and logged. They are no truth
    either: people change more than they are asked to, too, and by another dose.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"prompt_id": list("abcd"), "prompt": "", "attribute": "x", "treated": [True, False] * 2,
    ...     "response": "r", "reward/rm": [[1.0, 0.2, 0.9], [0.1, 1.2, 0.0]] * 2, "edited": [0.1, 1.0, 0.3, 0.9]})
    >>> compare_counterfactuals(rows, "edited").set_index("estimator")["estimate"].round(2).to_dict()
    {'human': 0.82, 'naive': 0.9, 'single_rewrite': 0.95, 'rate': 0.95}
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    if column not in columns_of(ds):
        raise InputError(f"compare_counterfactuals: no column {column!r} (columns: {', '.join(columns_of(ds))})")
    given = plain_columns(ds, [column])[column]
    if given.isna().all():
        raise InputError(f"compare_counterfactuals: column {column!r} is null in every row")
    matrices = dict(rewards_of(ds, list(rewards or ())))
    rows, notes = [], []
    for name, matrix in matrices.items():
        human = _human_rewards(ds, given, column, name, rewards, len(matrices))
        for group in groups(ds):
            found = _beside_people(matrix[group.rows], human[group.rows], group.treated, group.clusters, level)
            rows += [{**group.labels, "reward_model": name, **row} for row in found]
            if not found:
                notes.append(
                    f"{group.labels[ATTRIBUTE]} / {name}: no row has rewards of both its response and its {column!r}"
                )
    for note in notes:
        log.warning(note)
    if not rows:
        raise InputError("compare_counterfactuals: " + "; ".join(notes))
    table = pd.DataFrame(rows)
    table.attrs["notes"] = notes
    return table


def _human_rewards(
    ds: Any, given: Any, column: str, name: str, rewards: Mapping[str, Reward | str] | None, n_models: int
) -> Floats:
    """The rewards of people's counterfactuals, NaN where there is none."""
    import pandas as pd

    have = np.flatnonzero(~given.isna())
    out = np.full(len(given), np.nan)
    values = given.iloc[have].tolist()
    for row, value in zip(have + 1, values, strict=True):
        if not isinstance(value, str | Real) or isinstance(value, bool) or not str(value).strip():
            raise InputError(
                f"row {row}: {column!r} holds {shorten(value)!r}; a text or a reward was expected, null where there is "
                "none"
            )
    if all(isinstance(v, str) for v in values):
        require(ds, "compare_counterfactuals", [PROMPT])
        texts = without(flattened(ds.select(have)), [RESPONSE, REWRITES]).add_column(RESPONSE, values)
        scored = score(texts, (rewards or {}).get(name, name), name=name, progress=False)
        out[have] = reward_matrix(scored, REWARD_PREFIX + name)[:, 0]
        return out
    if n_models > 1:
        raise InputError(
            f"compare_counterfactuals: {column!r} holds rewards, and the data have {n_models} reward models; name the "
            "one that they are of with rewards={name: ...}"
        )
    cells = [None if missing else [value] for value, missing in zip(given.tolist(), given.isna(), strict=True)]
    return reward_matrix(pd.DataFrame({column: cells}), column)[:, 0]


def _beside_people(r: Floats, human: Floats, w: Bools, clusters: Ints, level: float) -> list[dict[str, Any]]:
    nan, rows = float("nan"), []
    for name in ("human", *ESTIMATORS):
        complete = np.ones(len(w), bool) if name == "human" else rows_used(ESTIMATORS[name], r)[1]
        used = complete & np.isfinite(human) & np.isfinite(r[:, :1]).any(axis=1)
        if not used.any():
            continue
        of, treated, codes = r[used], w[used], clusters[used]
        edited = np.column_stack([of[:, 0], human[used]])  # people's edit is a single rewrite
        estimand = "ate" if treated.any() and not treated.all() else "att" if treated.any() else "atu"
        by_people = part_of(edited, treated, codes, "single_rewrite", estimand)
        part = by_people if name == "human" else part_of(of, treated, codes, name, estimand)
        if part is None or by_people is None or (name != "human" and estimand not in ESTIMATORS[name].estimands):
            continue
        low, high, _ = part.interval(level)
        row = {"estimator": name, "estimand": estimand, "estimate": part.value, "se": part.se if part.se > 0 else nan,
               "ci_low": low, "ci_high": high}  # fmt: skip
        apart = _apart(part, by_people, max(rounding_of(of), rounding_of(edited[:, 1])))
        low, high, p = t_interval(*apart, level)
        row |= dict.fromkeys(("minus_human", "difference_se", "difference_low", "difference_high", "p_value"), nan)
        if name != "human":
            row |= {"minus_human": apart[0], "difference_se": apart[1] if apart[1] > 0 else nan, "difference_low": low,
                    "difference_high": high, "p_value": p}  # fmt: skip
        rows.append({**row, "n": part.n, "n_clusters": part.n_clusters, "n_dropped": int((~used).sum())})
    return rows


def _apart(one: Part, two: Part, rounding: float) -> tuple[float, float, float]:
    """The difference of two estimates on the same rows, its SE (0 where it is rounding alone), degrees of freedom."""
    se = float(np.linalg.norm(one.scores - two.scores))
    return one.value - two.value, se if se > rounding else 0.0, min(one.df, two.df)
