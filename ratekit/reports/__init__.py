"""One self-contained HTML page about a run: the question, the verdicts in words, figures, examples, provenance.

contents.py    what the run's folder, or a dataset, has to report
words.py       what the numbers say, for somebody who has never heard of RATE
tables.py      tables as texts, an estimate and its interval in one cell
figures.py     drawn by `ratekit.plots`, kept inside the page
examples.py    rows with what a rewrite changed, word by word
provenance.py  data, rewriter, models, versions, what was dropped, cost
page.py        all of it into `page.html.j2`
"""

from __future__ import annotations

from ratekit.reports.page import report

__all__ = ["report"]
