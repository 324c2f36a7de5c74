"""The experiments of the RATE paper by name: run them, and hold the result against what was published.

    finished = rk.reproduce.run("imdb-length", n=200, rewriter="rules", rewards=["vader"], data_files=["imdb.jsonl.gz"])
    rk.reproduce.compare(finished.experiment, finished.settings, finished.table)

The experiments themselves are literals in experiments/registry.py.

experiment.py   what an experiment is made of
facts.py        what the authors published, as tables
pipeline.py     every stage in order, in a folder that can be gone on from
sweeps.py       one confounding at several strengths, with the truth beside
verdicts.py     ours beside theirs
share.py        the dataset card, and the way to the hub
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
