"""One audit: data, table, verdicts and provenance as one object, and the call that makes it.

    found = rk.audit(df, ["vader", "./my-rm"], ["length", "sentiment"], rewriter="openai:gpt-4o-mini", out="audit")
    found.report()

results.py  `Audit`: what it holds, saves and loads
screen.py   how it is shown in a terminal and in a notebook
study.py    `audit`: every stage in order; `planned`: what it would cost
folder.py   what it leaves on disk, in which order
inputs.py   fingerprints of all that a result depends on
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
