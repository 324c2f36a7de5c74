"""What a judge of pairs pays for a place: every response shown first against the same one shown second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ratekit.errors import InputError
from ratekit.estimators import clustered_mean, pooled_sd, rounding_of, t_interval
from ratekit.groups import groups, reward_matrix
from ratekit.schema import SHOWN_FIRST, SHOWN_SECOND, columns_of, reward_columns, reward_name
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd

FIRST, SECOND = "/" + SHOWN_FIRST, "/" + SHOWN_SECOND


def position(ds: Any, *, level: float = 0.95) -> pd.DataFrame:
    """The effect of being shown first, for each reward that compares pairs in both orders.

    Parameters
    ----------
    ds : Any
        Scored rows, with the columns ``reward/<name>/shown_first`` and ``.../shown_second``.
    level : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        One row per reward: attribute ("position"), reward_model, estimate (the mean over the
        original responses of the reward when shown first minus when shown second, in the reward's units), se (by
        prompts), ci_low, ci_high, p_value, n, n_clusters, n_dropped, reward_sd.

    Raises
    ------
    InputError
        Where no reward has both orders.

    Notes
    -----
    The two orders hold the same two texts, so the difference is the place's alone; the rewards themselves, the means of
    the two orders, are free of it. A response stands there once per attribute, and counts once.

    Examples
    --------
    >>> import pandas as pd
    >>> ds = pd.DataFrame({
    ...     "prompt_id": ["a", "b"], "attribute": "length", "treated": [True, False], "reward/j": [[0.5], [1.0]],
    ...     "reward/j/shown_first": [[1.0], [1.0]], "reward/j/shown_second": [[0.0], [1.0]],
    ... })
    >>> position(ds)["estimate"].tolist()
    [0.5]
    """
    import pandas as pd

    ds = rows_for("estimate", ds)
    have = set(reward_columns(columns_of(ds), how_read=True))
    found = []
    for column in sorted(have):
        if column + FIRST not in have or column + SECOND not in have:
            continue
        whole, first, second = (reward_matrix(ds, name)[:, 0] for name in (column, column + FIRST, column + SECOND))
        keys: dict[Any, int] = {}
        texts = ds["response"] if "response" in columns_of(ds) else range(len(whole))
        rows = [i for i, key in enumerate(zip(ds["prompt_id"], texts, strict=True)) if keys.setdefault(key, i) == i]
        difference = (first - second)[rows]
        there = np.isfinite(difference)
        ids = np.asarray(ds["prompt_id"], dtype=str)[rows]
        clusters = np.unique(ids[there], return_inverse=True)[1]
        side = np.zeros(len(whole), dtype=bool)
        for group in groups(ds):
            side[group.rows] = group.treated
        rounding = max(rounding_of(first), rounding_of(second))
        value, se, n_clusters, df = clustered_mean(difference[there], clusters, rounding)[:4]
        low, high, p = t_interval(value, se, df, level)
        found.append({
            "attribute": "position", "reward_model": reward_name(column), "estimate": value,
            "se": se if se > 0 else float("nan"), "ci_low": low,
            "ci_high": high, "p_value": p, "n": int(there.sum()), "n_clusters": n_clusters,
            "n_dropped": len(rows) - int(there.sum()),
            "reward_sd": pooled_sd(whole[rows], side[rows]),
        })  # fmt: skip
    if not found:
        raise InputError(
            "position: no reward has both orders (reward/<name>/shown_first and /shown_second), as pairwise: rewards do"
        )
    return pd.DataFrame(found)
