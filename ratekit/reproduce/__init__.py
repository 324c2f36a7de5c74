"""The experiments of the RATE paper by name: run them, and hold the result against what was published.

    finished = rk.reproduce.run("imdb-length", n=200, rewriter="rules", rewards=["vader"], data_files=["imdb.jsonl.gz"])
    rk.reproduce.compare(finished.experiment, finished.settings, finished.table)

The experiments themselves are literals in experiments/registry.py.

experiment.py   what an experiment is made of
facts.py        what the authors published, as tables
pipeline.py     every stage in order, in a folder that can be gone on from
remains.py      what a run leaves behind in its folder
sweeps.py       one confounding at several strengths, with the truth beside
verdicts.py     ours beside theirs
share.py        the dataset card, and the way to the hub
"""

from __future__ import annotations

from ratekit.lazy import lazy_names
from ratekit.reproduce.facts import published

# Loaded when they are used: `rk.published` needs none of the pipeline.
_LATER = {
    "run": "pipeline",
    "planned": "pipeline",
    "compare": "verdicts",
    "push": "share",
    "experiments": "experiment",
    "get_experiment": "experiment",
    "Experiment": "experiment",
    "Sweep": "experiment",
}

__all__ = ["Experiment", "Sweep", "compare", "experiments", "get_experiment", "planned", "published", "push", "run"]

__getattr__, __dir__ = lazy_names("ratekit.reproduce", _LATER)
