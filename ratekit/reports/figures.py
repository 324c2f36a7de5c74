"""The figures of a report: drawn by `ratekit.plots`, kept as SVG inside the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ratekit import plots
from ratekit.conclusions import levels_of
from ratekit.diagnostics import dose_response, spillover
from ratekit.errors import InputError, shorten
from ratekit.escaping import data_uri
from ratekit.estimators import shown_unit, standardize
from ratekit.measures import MEASURES, Looked, Measure
from ratekit.schema import ATTRIBUTE, reward_models
from ratekit.stages import own_measures
from ratekit.tables import interval_words

if TYPE_CHECKING:
    import pandas as pd

WIDTH, SMALL = 5.8, 3.4  # inches: at a phone's width the letters are still large enough to read
DOSES_UP_TO = 6


class Figure(NamedTuple):
    """A figure with a caption that says how to read it; `source` is a data URI, `small` ones stand side by side."""

    source: str
    caption: str
    alt: str
    small: bool = False


def effects_figures(table: pd.DataFrame) -> Iterator[Figure]:
    """The forest, and the heat map where there is a matrix to see."""
    unit = shown_unit(table)
    has_ate = bool((table["estimand"] == "ate").any())
    yield _drawn(
        lambda: plots.effects(table, unit=unit),
        f"Each mark is an estimate, each bar its {interval_words(levels_of(table))}; left of the line the attribute "
        "costs reward, right of it it earns reward. Where the hollow square is far from the blue circle, a comparison "
        "of responses as they come would have misled.",
        "Effects of each attribute on each reward model by naive comparison, single rewrite and RATE",
    )
    if has_ate and table["attribute"].nunique() > 1 and table["reward_model"].nunique() > 1:
        yield _drawn(
            lambda: plots.heatmap(table, unit=unit),
            "The RATE effects at a glance: green raises the reward, brown lowers it; in bold where the interval "
            "leaves 0 out.",
            "RATE effects, attributes by reward models",
        )


def check_figures(checks: pd.DataFrame) -> Iterator[Figure]:
    """Drift and balance, as far as there are rows for them."""
    yield from _tried(
        lambda: plots.drift(checks),
        "Does the rewriter do the same on every pass? The third rewrite was asked for the same as the first, so marks "
        "should lie on the line; outside the grey band the difference matters. The attribute's own measure has no "
        "band: its difference is judged as a part of what a rewrite moves it.",
        "Drift: the third rewrite minus the first, for each measure and reward model",
        small=True,
    )
    yield from _tried(
        lambda: plots.balance(checks),
        "Did anything else change with the attribute? Where the two marks of a measure lie on opposite sides of the "
        "line, it moves together with the attribute.",
        "Balance: how measures other than the attribute's own move between the rewrites",
        small=True,
    )


def reward_figures(ds: Any, table: pd.DataFrame, looked: Looked) -> Iterator[Figure]:
    """Densities for each attribute under the reward model with the largest effect on it, spillover and doses.

    A text that is `looked` at is not measured again.
    """
    for attribute in dict.fromkeys(ds[ATTRIBUTE]):
        model = _most_moved(table, attribute)
        if model is not None:
            yield from _tried(
                lambda name=attribute, model=model: plots.densities(ds, model, attribute=name),  # type: ignore[misc]
                f"Rewards by {shorten(model)} along the rewriting of {shorten(attribute)}. The first and third of each "
                "group are on the same side: where they differ, rewriting itself changed the reward, and that is what "
                "RATE cancels.",
                f"Densities of the rewards by {shorten(model)} of originals, rewrites and rewrites of rewrites",
                small=True,
            )
    yield from _tried(
        lambda: plots.spillover(spillover(ds, measures={name: looked.measure(m) for name, m in MEASURES.items()})),
        "What the rewrites moved: along a row, how far each measure went when that attribute was rewritten, in SDs of "
        "the original responses. A large number outside the attribute's own measure is spillover.",
        "Spillover: how far rewriting each attribute moves each measure",
    )
    yield from dose_figures(ds, own_measures(ds, looked))


def dose_figures(ds: Any, measures: Mapping[str, Measure]) -> Iterator[Figure]:
    """A panel for each attribute and reward model whose attribute has a measure."""
    n, names = 0, list(ds[ATTRIBUTE])
    for attribute in dict.fromkeys(names):
        try:
            part = ds.select([i for i, name in enumerate(names) if name == attribute])
            table = dose_response(part, measures=measures)
        except InputError:
            continue
        for name in reward_models(ds):
            part = table[table["reward_model"] == name]
            if len(part) > 2 and n < DOSES_UP_TO:  # "all" and one bin are no curve
                n += 1
                said = f"{shorten(attribute)} on the reward by {shorten(name)}"
                yield from _tried(
                    lambda part=part: plots.dose_response(part),  # type: ignore[misc]
                    f"Effect of {said}, over how far the rewrites moved it.",
                    f"Dose and response: {said}",
                    small=True,
                )


def _most_moved(table: pd.DataFrame, attribute: str) -> str | None:
    rows = standardize(table) if table["reward_sd"].gt(0).any() else table
    rows = rows[(rows["attribute"] == attribute) & (rows["estimator"] == "rate")].dropna(subset=["estimate"])
    return None if rows.empty else str(rows.loc[rows["estimate"].abs().idxmax(), "reward_model"])


def _tried(draw: Callable[[], Any], caption: str, alt: str, small: bool = False) -> Iterator[Figure]:
    """The figure, or none where the data have nothing to draw."""
    try:
        yield _drawn(draw, caption, alt, small)
    except InputError:
        return


def _drawn(draw: Callable[[], Any], caption: str, alt: str, small: bool = False) -> Figure:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    svg = io.BytesIO()
    size = (SMALL if small else WIDTH, 3.0)
    with mpl.rc_context({"figure.figsize": size, "svg.fonttype": "path", "svg.hashsalt": "ratekit"}):
        figure = draw().figure
        figure.savefig(svg, format="svg", metadata={"Date": None}, transparent=True)
    plt.close(figure)
    return Figure(data_uri("image/svg+xml", svg.getvalue()), caption, alt, small)
