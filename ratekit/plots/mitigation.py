"""Reward models before and after a mitigation, beside what people prefer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratekit.errors import InputError
from ratekit.plots.look import BLUE, GREY, Mark, need, plain, styled, tidy, zero

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def before_after(
    effects: pd.DataFrame,
    people: pd.DataFrame,
    pairs: dict[str, tuple[str, str]],
    labels: tuple[str, str] = ("before", "after"),
) -> Figure:
    """Effects of reward models before and after a mitigation, and how often they prefer the treated version.

    effects  standardized rows of `rk.estimate`, one estimator and estimand
    people   what `rk.warranted` gives
    pairs    {label: (reward model before, after)}

    One column for each attribute; above effects with their intervals (reward SDs), below shares of pairs (0 to 1),
    people's as a line. Raises InputError where a table lacks a column or one of these reward models.
    """
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.lines import Line2D

    need(effects, ("attribute", "reward_model", "estimate", "ci_low", "ci_high"), "rk.estimate")
    need(people, ("attribute", "reward_model", "model_rate", "human_rate"), "rk.warranted")
    attributes = list(dict.fromkeys(effects["attribute"]))
    styles = (Mark(labels[0], GREY, "s", hollow=True), Mark(labels[1], BLUE, "o"))
    with sns.axes_style("white"):
        figure, axes = plt.subplots(
            2, len(attributes), figsize=(3.9 * len(attributes), 5.4), squeeze=False, sharey="row", layout="constrained"
        )
    for column, attribute in enumerate(attributes):
        top, bottom = axes[0][column], axes[1][column]
        of = _by_model(effects, attribute, "effects")
        rates = _by_model(people, attribute, "people")
        for place, models in enumerate(pairs.values()):
            for k, (model, mark) in enumerate(zip(models, styles, strict=True)):
                if model not in of.index or model not in rates.index:
                    plt.close(figure)
                    raise InputError(f"no row for reward model {model!r} and attribute {attribute!r} in both tables")
                x = place + (k - 0.5) * 0.24
                row = of.loc[model]
                top.plot([x, x], [row["ci_low"], row["ci_high"]], color=mark.color, lw=1.8, solid_capstyle="butt")
                top.plot(x, row["estimate"], **styled(mark))
                bottom.plot(x, rates.loc[model, "model_rate"], **styled(mark))
        zero(top, across="x")
        human = float(rates["human_rate"].iloc[0])
        bottom.axhline(human, color="0.2", lw=1.2, ls="--", zorder=1)
        bottom.annotate("people", (1.0, human), xycoords=("axes fraction", "data"), xytext=(-3, 3),
                        textcoords="offset points", ha="right", color="0.2", fontsize=9)  # fmt: skip
        bottom.set_ylim(0, 1.04)
        top.set_title(plain(attribute))
        for ax in (top, bottom):
            ax.set_xticks(range(len(pairs)), [plain(label) for label in pairs])
            ax.set_xlim(-0.4, len(pairs) - 0.1)
            tidy(ax, "y", ("left", "bottom"))
    axes[0][0].set_ylabel("Effect on the reward (SDs)")
    axes[1][0].set_ylabel("Share of pairs in which the\ntreated version is preferred")
    handles = [Line2D([], [], label=mark.label, **styled(mark, line=True)) for mark in styles]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _by_model(table: pd.DataFrame, attribute: object, what: str) -> pd.DataFrame:
    rows = table[table["attribute"] == attribute]
    if rows["reward_model"].duplicated().any():
        raise InputError(f"before_after: {what} has several rows for a reward model; give one estimator and estimand")
    return rows.set_index("reward_model")
