"""Where rows come from: anything that a user holds, the bundled reviews, the public datasets."""

from ratekit.sources.loading import as_dataset, load

__all__ = ["as_dataset", "load"]
