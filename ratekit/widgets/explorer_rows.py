"""What is known of each row of a dataset, which rows are wanted and in what order: tables and indices, no widgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratekit.attributes import off_target
from ratekit.errors import require_known
from ratekit.estimators import ESTIMATORS, Floats, pooled_sd
from ratekit.groups import groups, plain_columns, rewards_of, treated_bools
from ratekit.measures import Measure, measured
from ratekit.schema import (
    ATTRIBUTE,
    PROMPT,
    PROMPT_ID,
    RESPONSE,
    REWRITE_STATUS,
    REWRITES,
    TREATED,
    columns_of,
)
from ratekit.sources.loading import rows_for

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

ANY = "any"
ORDERS = {
    "data": "as in the data",
    "effect": "largest effect, either sign",
    "effect_high": "highest effect",
    "effect_low": "lowest effect",
    "off_target": "largest off-target change",
    "long": "longest response",
}
PERSON_VERDICTS = ("fine", "attribute not changed", "something else changed", "nonsense", "unsure")


def facts(ds: Any) -> pd.DataFrame:
    """One row per row of `ds`: attribute, treated, status, characters, and `effect/<reward model>` where scored.

    status   "ok", or why the first rewrite that is missing is missing; "not rewritten" without rewrites
    effect   s (r2 - r1), the row's own difference in RATE, in the reward's units; s (r0 - r1) where the rows were
             rewritten only once; NaN where one of the two is not scored

    Raises
    ------
    InputError
        Where there is no response or no row.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.score(rk.load("reviews", attribute="length"), "words", progress=False)
    >>> print(facts(ds)[["attribute", "treated", "status", "effect/words"]].head(1).to_string(index=False))
    attribute  treated status  effect/words
       length    False     ok          53.0
    """
    import pandas as pd

    ds = rows_for("explore", ds, [RESPONSE])
    have = columns_of(ds)
    table = pd.DataFrame({"characters": plain_columns(ds, [RESPONSE])[RESPONSE].fillna("").str.len()})
    labels = plain_columns(ds, [c for c in (PROMPT_ID, ATTRIBUTE, TREATED) if c in have])
    table[PROMPT_ID] = labels[PROMPT_ID].astype(str) if PROMPT_ID in labels else [str(i) for i in range(len(table))]
    table[ATTRIBUTE] = labels[ATTRIBUTE].astype(str) if ATTRIBUTE in labels else "not labelled"
    table[TREATED] = treated_bools(labels[TREATED]) if TREATED in labels else None
    table["status"] = _statuses(ds)
    if TREATED in labels:
        treated, alone = table[TREATED].to_numpy(dtype=bool), np.arange(len(table))
        for name, r in rewards_of(ds):
            if r.shape[1] >= 2:
                how = ESTIMATORS["rate" if r.shape[1] > 2 else "single_rewrite"]
                table[f"effect/{name}"] = how.values(r, treated, alone)
    return table


def _statuses(ds: Any) -> list[str]:
    have = columns_of(ds)
    if REWRITES not in have:
        return ["not rewritten"] * len(ds)
    frame = plain_columns(ds, [REWRITES, *([REWRITE_STATUS] if REWRITE_STATUS in have else [])])
    given = frame[REWRITE_STATUS] if REWRITE_STATUS in frame else [None] * len(frame)
    found = []
    for rewrites, statuses in zip(frame[REWRITES], given, strict=True):
        texts = [] if rewrites is None else list(rewrites)
        words = [] if statuses is None else list(statuses)
        words += ["missing" if t is None else "ok" for t in texts[len(words) :]]
        found.append(next((w for w in words if w != "ok"), "ok") if texts else "not rewritten")
    return found


MEASURED_UP_TO = 20_000  # characters: VADER takes 30 s for a text of 300,000
_MEASURED_AT_ONCE = 32


@dataclass
class OffTarget:
    """What the rewrites moved beside the attribute: every measure of every text, and each row's largest move.

    Parameters
    ----------
    values
        {measure: (n, depth+1)}, NaN where there is no text or it is too long to be measured here
    sd
        {(attribute, measure): SD of the originals within their class}
    change
        (n,) the largest move of a measure that should not move, in those SDs; NaN where nothing is measured
    measure
        (n,) its name, "" for none
    """

    values: dict[str, Floats] = field(default_factory=dict)
    sd: dict[tuple[str, str], float] = field(default_factory=dict)
    change: Floats = field(default_factory=lambda: np.empty(0))
    measure: list[str] = field(default_factory=list)


def off_target_changes(
    ds: Any,
    *,
    measures: Mapping[str, Measure] | None = None,
    tick: Callable[[int, int], Any] = lambda done, total: None,
) -> OffTarget:
    """For each row the largest off-target move from the first rewrite to the second, as `diagnose` has it for classes.

    Where rows were rewritten only once, the move is that from the response to its rewrite.

    Parameters
    ----------
    measures
        beside words, sentiment, readability and faults, as in `rk.diagnose`
    tick
        called with (texts' rows done, rows in all)

    Examples
    --------
    >>> import ratekit as rk
    >>> found = off_target_changes(rk.load("reviews", attribute="length").select(range(40)))
    >>> found.change.shape, set(found.measure) <= {"sentiment", "readability", "faults"}
    ((40,), True)
    """
    ds = rows_for("diagnose", ds)
    frame = plain_columns(ds, [RESPONSE, REWRITES])
    chains = [
        [t if t is not None and len(t) <= MEASURED_UP_TO else None for t in (response, *(() if rest is None else rest))]
        for response, rest in zip(frame[RESPONSE], frame[REWRITES], strict=True)
    ]
    n, depth = len(chains), max(map(len, chains)) - 1
    found = OffTarget(change=np.full(n, np.nan), measure=[""] * n)
    of_group = [(str(g.labels[ATTRIBUTE]), g, off_target(str(g.labels[ATTRIBUTE]), measures, ds)) for g in groups(ds)]
    every = {name: m for _, _, mine in of_group for name, m in mine.items()}
    found.values = {name: np.full((n, depth + 1), np.nan) for name in every}
    for start in range(0, n, _MEASURED_AT_ONCE):
        tick(start, n)
        block = chains[start : start + _MEASURED_AT_ONCE]
        if any(text for chain in block for text in chain):
            for name, measure in every.items():
                values = measured(measure, block, name)
                found.values[name][start : start + len(block), : values.shape[1]] = values
    a, b = (1, 2) if depth > 1 else (0, 1)
    for attribute, group, mine in of_group:
        for name in mine:
            m = found.values[name][group.rows]
            sd = pooled_sd(m[:, 0], group.treated)
            found.sd[attribute, name] = sd
            if not sd > 0 or depth < 1:
                continue
            moved = (m[:, b] - m[:, a]) / sd
            for i, x in zip(group.rows, moved, strict=True):
                if np.isfinite(x) and not abs(x) <= abs(found.change[i]):
                    found.change[i], found.measure[i] = x, name
    tick(n, n)
    return found


@dataclass(frozen=True)
class Wanted:
    """Which rows, and in what order; the defaults want all of them as they are.

    Parameters
    ----------
    attribute, status
        one of those there are, or ANY; treated: True, False or None for both
    effect, off_target
        only this share of the rows, those with the largest effect (of `reward_model`) or change
    search
        in prompt, response or rewrites, whatever the case
    marked
        True for marked rows, False for the others, None for both
    order
        one of `ORDERS`
    """

    attribute: str = ANY
    treated: bool | None = None
    status: str = ANY
    reward_model: str = ""
    effect: float = 1.0
    off_target: float = 1.0
    search: str = ""
    marked: bool | None = None
    order: str = "data"


def choose(
    table: pd.DataFrame,
    wanted: Wanted,
    *,
    off_target: OffTarget | None = None,
    marks: Mapping[int, Any] | None = None,
    ds: Any = None,
) -> NDArray[np.int64]:
    """The places of the wanted rows, in the wanted order.

    The shares `effect` and `off_target` are of the rows that the other filters leave. Rows without an effect (or a
    change) come last when they are ordered by it, and are left out when only the largest are wanted.

    Examples
    --------
    >>> import ratekit as rk
    >>> ds = rk.load("reviews", attribute="length")
    >>> places = choose(facts(ds), Wanted(treated=True, search="Battery", order="long"), ds=ds)
    >>> ["battery" in str(ds[int(i)]).lower() for i in places]
    [True]
    """
    require_known("order", wanted.order, ORDERS)
    keep = np.ones(len(table), bool)
    if wanted.attribute != ANY:
        keep &= (table[ATTRIBUTE] == wanted.attribute).to_numpy()
    if wanted.treated is not None:
        keep &= (table[TREATED] == wanted.treated).to_numpy()
    if wanted.status != ANY:
        keep &= (table["status"] == wanted.status).to_numpy()
    if wanted.marked is not None:
        is_marked = np.isin(np.arange(len(table)), list(marks or {}))
        keep &= is_marked == wanted.marked
    if wanted.search.strip():
        keep &= found_in(ds, wanted.search.strip())
    column = f"effect/{wanted.reward_model}"
    effect = table[column].to_numpy(float) if column in table else np.full(len(table), np.nan)
    change = off_target.change if off_target is not None else np.full(len(table), np.nan)
    places = np.flatnonzero(keep)
    for share, values in ((wanted.effect, effect), (wanted.off_target, change)):
        if share < 1:
            places = _largest(places, np.abs(values), share)
    keys = {
        "data": np.zeros(len(table)), "effect": -np.abs(effect), "effect_high": -effect, "effect_low": effect,
        "off_target": -np.abs(change), "long": -table["characters"].to_numpy(float),
    }  # fmt: skip
    return places[np.argsort(keys[wanted.order][places], kind="stable")]  # NaN goes last


def _largest(places: NDArray[np.int64], values: Floats, share: float) -> NDArray[np.int64]:
    known = places[np.isfinite(values[places])]
    count = int(np.ceil(share * len(known)))
    return np.sort(known[np.argsort(-values[known], kind="stable")[:count]])


def found_in(ds: Any, words: str) -> NDArray[np.bool_]:
    """(n,) whether the words stand in the prompt, the response or a rewrite, whatever the case.

    Examples
    --------
    >>> import pandas as pd
    >>> found_in(pd.DataFrame({"response": ["A fine Film.", "Dull."], "rewrites": [["Poor."], ["FILM!"]]}), "film")
    array([ True,  True])
    """
    import pyarrow.compute as pc

    found = np.zeros(len(ds), dtype=bool)
    for column in (PROMPT, RESPONSE, REWRITES):
        if column in columns_of(ds):
            texts, row = _flat(_arrow(ds, column))
            hits = pc.fill_null(pc.match_substring(texts, words, ignore_case=True), False)
            found[row[np.asarray(hits)]] = True
    return found


def _arrow(ds: Any, column: str) -> Any:
    """A column of a Dataset or DataFrame as one Arrow array."""
    import pyarrow as pa

    if hasattr(ds, "iloc"):
        return pa.array(ds[column].tolist())
    array = ds.with_format("arrow")[column]
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _flat(array: Any) -> tuple[Any, NDArray[np.int64]]:
    """All texts of a column (strings, lists of strings, conversations), and the row of each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.string())
    row = np.arange(len(array))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        row, array = np.asarray(pc.list_parent_indices(array)), pc.list_flatten(array)
    if pa.types.is_struct(array.type):
        array = pc.struct_field(array, "content")
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        array = pa.nulls(len(array), pa.string())
    return array, row


def taken(ds: Dataset, places: list[int]) -> Dataset:
    """These rows as a dataset of their own, so that no later stage has to gather them (and show a bar for it).

    Examples
    --------
    >>> import ratekit as rk
    >>> taken(rk.load("reviews"), [5, 2])["prompt_id"][:]
    ['review-005', 'review-002']
    """
    from datasets import Dataset

    return Dataset.from_dict(ds[places], features=ds.features)


def marked(ds: Any, marks: Mapping[int, tuple[str, str]]) -> Dataset:
    """The marked rows of `ds`, with their place (`row`), `verdict` and `note`, in the data's order.

    Examples
    --------
    >>> import ratekit as rk
    >>> found = marked(rk.load("reviews"), {7: ("nonsense", "not a review"), 2: ("fine", "")})
    >>> found["row"][:], found["verdict"][:], found["note"][:]
    ([2, 7], ['fine', 'nonsense'], ['', 'not a review'])
    """
    from datasets import Dataset, Features, Value

    places = sorted(marks)
    rows = Dataset.from_pandas(ds.iloc[places], preserve_index=False) if hasattr(ds, "iloc") else taken(ds, places)
    columns = {
        "row": places, "verdict": [marks[i][0] for i in places], "note": [marks[i][1] for i in places],
    }  # fmt: skip
    if not places:
        kinds = {"row": Value("int64"), "verdict": Value("string"), "note": Value("string")}
        return Dataset.from_dict({name: [] for name in kinds}, features=Features(kinds))
    for name, values in columns.items():
        if name in rows.column_names:
            rows = rows.remove_columns([name])
        rows = rows.add_column(name, values)
    return rows
