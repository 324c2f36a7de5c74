"""People beside the model: their preferences on the same pairs, and the counterfactuals that they wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import InputError, shorten
from ratekit.estimators import ESTIMATORS, Bools, Floats, Ints, clustered_mean, row_values, rows_used
from ratekit.groups import groups, plain_columns, reward_matrix
from ratekit.resampling import adjust, sign_flip
from ratekit.schema import PROMPT, as_conversation, columns_of, find_reward, reward_columns, reward_name
from ratekit.scoring import make_reward
from ratekit.scoring.base import Reward
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd

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
    the treated version is preferred, ties half), skew (their difference), skew_low, skew_high, p_value (paired: signs
    flipped cluster by cluster, `resampling.sign_flip`), p_adjusted, miscalibration (share of the pairs without a tie
    in which model and people disagree) with miscalibration_low and _high, towards_treated (share of those disagreements
    in which the model wants the treated version), towards_p (paired test that it is half), n, n_ties, n_clusters,
    n_dropped, words. Skew and miscalibration as in Bharadwaj et al. 2025 (arXiv 2506.05339), but the skew is against
    what people do rather than against one half.

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
    columns = [find_reward(ds, r) for r in rewards] if rewards else reward_columns(columns_of(ds))
    rows = []
    for column in columns:
        matrix = reward_matrix(ds, column)
        if matrix.shape[1] < 3:
            raise InputError(f"warranted: {column} has no reward of the second rewrite; pairs need depth 2")
        for group in parts:
            s = np.where(group.treated, 1.0, -1.0)
            gap = s * (matrix[group.rows, 2] - matrix[group.rows, 1])
            people = choice[group.rows]
            used = np.isfinite(gap) & np.isfinite(people)
            row = {**group.labels, "reward_model": reward_name(column)}
            rows.append({**row, **_compare(gap[used], people[used], group.clusters[used], level, draws, seed),
                         "n_dropped": int((~used).sum())})  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(list(table.columns).index("p_value") + 1, "p_adjusted", np.nan)
    table = adjust(table)
    table["words"] = [_words(row) for row in table.to_dict("records")]
    return table


def _choices(values: Any, column: str) -> Floats:
    import pandas as pd

    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None or (not isinstance(value, str) and pd.isna(value)):
            continue
        known = _CHOICES.get(value.strip().lower()) if isinstance(value, str) else float(value)
        if known is None or not 0 <= known <= 1:
            raise InputError(
                f"row {i + 1}: {column!r} holds {shorten(value)!r}; treated, untreated, tie or a share from 0 to 1 was "
                "expected"
            )
        out[i] = known
    return out


def _compare(gap: Floats, people: Floats, clusters: Any, level: float, draws: int, seed: int) -> dict[str, Any]:
    model = (np.sign(gap) + 1) / 2
    mean = clustered_mean(model - people, clusters)
    low, high, _ = mean.interval(level)
    untied = (people != 0.5) & (model != 0.5)
    wrong = ((model > 0.5) != (people > 0.5))[untied]
    shares = clustered_mean(wrong.astype(float), clusters[untied])
    share_low, share_high, _ = shares.interval(level)
    towards = (model[untied] > 0.5)[wrong]
    tested = np.where(towards, 1.0, -1.0)
    return {
        "model_rate": model.mean() if len(model) else np.nan, "human_rate": people.mean() if len(people) else np.nan,
        "skew": mean.value, "skew_low": low, "skew_high": high,
        "p_value": sign_flip(model - people, clusters, draws, seed) if len(gap) else np.nan,
        "miscalibration": shares.value, "miscalibration_low": max(share_low, 0.0),
        "miscalibration_high": min(share_high, 1.0),
        "towards_treated": towards.mean() if len(towards) else np.nan,
        "towards_p": sign_flip(tested, clusters[untied][wrong], draws, seed) if len(towards) else np.nan,
        "n": len(gap), "n_ties": int((people == 0.5).sum()), "n_clusters": mean.n_clusters,
    }  # fmt: skip


SAME_RATE = 0.1  # a skew within it is none to speak of


def _words(row: dict[str, Any]) -> str:
    """What a row says: how often, and whether on the same pairs."""
    if not row["n"]:
        return "nobody was asked about a pair that is scored"
    if not np.isfinite(row["p_adjusted"]):
        return "no test: one cluster, or model and people agree on every pair"
    skew, low, high = row["skew"], row["skew_low"], row["skew_high"]
    apart = f"; they disagree on {row['miscalibration']:.0%} of the pairs"
    if row["p_adjusted"] < 0.05:
        more = "more" if skew > 0 else "less"
        return f"not warranted: prefers the treated version {abs(skew):.0%} of the time {more} than people do{apart}"
    if max(-low, high) <= SAME_RATE:
        return f"prefers the treated version about as often as people do ({low:+.0%} to {high:+.0%}){apart}"
    return f"too few pairs to tell whether it prefers the treated version more often ({low:+.0%} to {high:+.0%}){apart}"


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
        reward_model, estimator, estimate (ATE, in the reward's units), se, ci_low, ci_high, minus_human (the estimate
        minus that by people, on the same rows) with difference_se, difference_low, difference_high, p_value (paired, by
        cluster), n, n_clusters, n_dropped (rows without a counterfactual, or without the rewards that are needed).

    Raises
    ------
    InputError
        For a missing or empty column, and one that is neither texts nor numbers.

    Notes
    -----
    The row difference of people's counterfactuals is s (r0 - r_human), as that of a single rewrite. They are no truth
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
    names = list(map(reward_name, reward_columns(columns_of(ds))))
    names = [name for name in names if name in rewards] if rewards else names
    rows = []
    for name in names:
        matrix = reward_matrix(ds, find_reward(ds, name))
        human = _human_rewards(ds, given, column, name, rewards, len(names))
        for group in groups(ds):
            rows += [
                {**group.labels, "reward_model": name, **row}
                for row in _beside_people(matrix[group.rows], human[group.rows], group.treated, group.clusters, level)
            ]
    return pd.DataFrame(rows)


def _human_rewards(
    ds: Any, given: Any, column: str, name: str, rewards: Mapping[str, Reward | str] | None, n_models: int
) -> Floats:
    """The rewards of people's counterfactuals, NaN where there is none."""
    have = np.flatnonzero(~given.isna())
    out = np.full(len(given), np.nan)
    values = given.iloc[have].tolist()
    if all(isinstance(v, str) for v in values):
        how = (rewards or {}).get(name, name)
        function = make_reward(how) if isinstance(how, str) else how
        prompts = plain_columns(ds, [PROMPT])[PROMPT].iloc[have].tolist()
        out[have] = np.asarray(function([as_conversation(p) for p in prompts], values), float)
        return out
    if n_models > 1:
        raise InputError(
            f"compare_counterfactuals: {column!r} holds rewards, and the data have {n_models} reward models; name the "
            "one that they are of with rewards={name: ...}"
        )
    try:
        out[have] = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"compare_counterfactuals: {column!r} holds neither texts nor numbers alone") from None
    return out


def _beside_people(r: Floats, human: Floats, w: Bools, clusters: Ints, level: float) -> list[dict[str, Any]]:
    rows = []
    for name in ("human", *ESTIMATORS):
        complete = np.ones(len(w), bool) if name == "human" else rows_used(ESTIMATORS[name], r)[1]
        used = complete & np.isfinite(human) & np.isfinite(r[:, 0])
        if not used.any() or (name == "naive" and len(np.unique(w[used])) < 2):
            continue
        s = np.where(w[used], 1.0, -1.0)
        by_people = s * (r[used, 0] - human[used])
        values = by_people if name == "human" else row_values(r[used], w[used], clusters[used], name)[0]
        size = float(np.nanmax(np.abs(r)))
        mean, apart = (clustered_mean(v, clusters[used], size) for v in (values, values - by_people))
        low, high, _ = mean.interval(level)
        gap_low, gap_high, p = apart.interval(level) if name != "human" else (np.nan, np.nan, np.nan)
        rows.append({
            "estimator": name, "estimate": mean.value, "se": mean.se if mean.se > 0 else np.nan, "ci_low": low,
            "ci_high": high, "minus_human": apart.value if name != "human" else np.nan,
            "difference_se": apart.se if name != "human" and apart.se > 0 else np.nan, "difference_low": gap_low,
            "difference_high": gap_high, "p_value": p, "n": int(used.sum()), "n_clusters": mean.n_clusters,
            "n_dropped": int((~used).sum()),
        })  # fmt: skip
    return rows
