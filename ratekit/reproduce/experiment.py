"""What an experiment is, and where the named ones stand: experiments/registry.py, one literal each.

>>> get_experiment("imdb-length").attribute.treated
'longer'
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ratekit.errors import InputError, WorkError, shorten, unknown
from ratekit.labellers import Attribute, Label, above
from ratekit.measures import vader
from ratekit.reproduce.facts import folder
from ratekit.rewriting.cost import Prices
from ratekit.schema import RESPONSE

Keep = Callable[[Any], Sequence[bool]]


@dataclass(frozen=True)
class Sweep:
    """An experiment that is made again at each step of a confounding, which leaves the true effect as it is.

    Parameters
    ----------
    design
        in `rk.simulate.DESIGNS`: its twin in a world of texts, where the truth is known
    steps
        correlations, or shares of words misspelt
    confounder
        its labels, for a sweep of a correlation; None for one that misspells the treated responses
    """

    design: str
    steps: tuple[float, ...]
    confounder: Label | None = None


@dataclass(frozen=True)
class Experiment:
    """A named experiment, with the paper's own settings as its defaults.

    Parameters
    ----------
    about
        one line
    place
        where the paper or the reference notebooks have it, and in what this differs from them
    source
        of `rk.SOURCES`
    attribute
        phrases, labelling rule and rewriting template; None where the data carry their attributes
    rewards
        reward models; () for those that the data carry
    n
        rows; None for all
    rewriter
        a spec; None where the data carry rewrites, or are none
    keep
        which rows of the source are studied, one bool each; None for all
    labeller
        classifier that the labels are from, where they are from one ("vader" needs none)
    can_say
        what it can and cannot identify
    """

    name: str
    about: str
    place: str
    source: str
    attribute: Attribute | None
    rewards: tuple[str, ...] = ()
    n: int | None = None
    rewriter: str | None = None
    temperature: float | None = None
    depth: int = 2
    keep: Keep | None = None
    labeller: str | None = None
    sweep: Sweep | None = None
    can_say: str = ""


@functools.cache
def _registry() -> Any:
    path = folder() / "registry.py"
    spec = importlib.util.spec_from_file_location("ratekit_experiments_registry", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def experiments() -> dict[str, Experiment]:
    """The named experiments of experiments/registry.py, by name."""
    return {e.name: e for e in _registry().EXPERIMENTS}


def list_prices(rewriter: str | None) -> Prices | None:
    """The list prices of a rewriter, where experiments/registry.py has them.

    Examples
    --------
    >>> list_prices("batch:gpt-4o-2024-08-06")
    Prices(per_million_in=1.25, per_million_out=5.0)
    """
    found = _registry().PRICES.get(rewriter)
    return None if found is None else Prices(*found)


def get_experiment(name: str) -> Experiment:
    """The experiment of that name. Raises InputError with the nearest names."""
    found = experiments().get(name.strip().lower().replace("_", "-"))
    if found is None:
        raise unknown("experiment", name, experiments())
    return found


# --- what the literals are made of -----------------------------------------------------------------------


def characters(texts: Sequence[str]) -> list[float]:
    """Number of characters.

    Examples
    --------
    >>> characters(["abc", ""])
    [3.0, 0.0]
    """
    return [float(len(t)) for t in texts]


def everyone(rows: Any) -> list[bool | None]:
    """Every row is treated: for an effect on the treated alone."""
    return [True] * len(rows)


def rejected(rows: Any) -> list[bool]:
    """The rows that people did not choose (HH-RLHF)."""
    return [not chosen for chosen in rows["chosen"]]


def classified(labeller: str) -> Label:
    """Treated where the classifier's likeliest label is the positive one; "vader" asks VADER (above 0).

    Parameters
    ----------
    labeller
        a folder or a hub id of a two-class classifier with a label POSITIVE

    Raises
    ------
    WorkError
        Where it cannot be loaded.
    InputError
        Where it has no such label.
    """
    if labeller == "vader":
        return above(vader, 0.0)

    def label(rows: Any) -> list[bool | None]:
        from transformers import pipeline

        from ratekit.scoring.adapters import positive_label

        try:
            classify = pipeline("text-classification", model=labeller, truncation=True)
        except (OSError, ValueError) as e:
            raise WorkError(
                f"the labels are those of the classifier {labeller!r}, which could not be loaded: {shorten(e, 100)}. "
                "Without a network give a local copy (--labeller FOLDER) or --labeller vader"
            ) from None
        if positive_label(classify.model.config) is None:
            raise InputError(f"{labeller!r} has no label POSITIVE, so it cannot say who is treated")
        found = classify(list(rows[RESPONSE]), batch_size=16)
        return [str(answer["label"]).lower() in ("positive", "pos") for answer in found]

    return label
