"""Real double rewrites by GPT-4o (Bharadwaj et al. 2025, arXiv 2506.05339) in ratekit's columns.

    python experiments/double_rewrites.py double_rewrites/length.jsonl.gz length.parquet
    ratekit estimate length.parquet --se-unpaired

Example datum: {"bias": "length", "query": "...", "original": "...", "rewrite": "...", "rewrite_of_rewrite": "...",
"scores": {"base-8B": {"rewrite": 45.25, "rewrite_of_rewrite": 30.5}, ...}}.

There every original lacks the bias (is untreated) and was never scored: the first reward of each chain is null, only
the ATU exists, and only `rate` can be had.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.errors import InputError
from ratekit.sources.public import double_rewrite


def converted(row: dict[str, Any]) -> dict[str, Any]:
    """One published double rewrite as a row of ratekit's columns, as `rk.load("flattery-fluff-fog")` reads it."""
    return next(double_rewrite(row, 0))


def main() -> int:
    """Convert the file named on the command line; 0, or 2 where it cannot be read."""
    parser = argparse.ArgumentParser(description="Published double rewrites -> a file that `ratekit estimate` takes.")
    parser.add_argument("source", type=Path, help="length.jsonl.gz or structure.jsonl.gz")
    parser.add_argument("target", type=Path, help="a Parquet file to write")
    arguments = parser.parse_args()
    from datasets import Dataset

    try:
        ds = Dataset.from_list([converted(row) for row in files.read(arguments.source)])
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    except KeyError as e:
        print(f"{arguments.source}: no column {e}; a file of double rewrites was expected", file=sys.stderr)
        return 2
    ds.to_parquet(str(arguments.target))
    print(f"{arguments.target}: {len(ds)} double rewrites")
    return 0


if __name__ == "__main__":
    sys.exit(main())
