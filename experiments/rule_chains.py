"""Rule rewrites of the bundled reviews for every attribute of the card's suite, four passes deep, as one Parquet file.

    python experiments/rule_chains.py [--out rule_chains.parquet] [--depth 4]

They are made in seconds and are the same every time, so the script is kept and the file is not. `rk.load(FILE,
attribute="hedging")` reads one attribute's chains, `rk.audit(FILE, REWARD)` audits all of them without a rewriter.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ratekit.audits.study import Settings, rewritten
from ratekit.cards import labellable, suite
from ratekit.files import replace_file
from ratekit.schema import ATTRIBUTE, REWRITE_STATUS

if TYPE_CHECKING:
    from datasets import Dataset


def chains(depth: int = 4, n: int | None = None) -> Dataset:
    """The rows of all attributes that the reviews can be labelled by, with `depth` rewrites each."""
    settings = Settings("reviews", tuple(suite((), "rules")), rewriter="rules", depth=depth, n=n)
    settings, parts, _ = labellable(settings)
    return rewritten(parts, settings.options, progress=False)


def main() -> None:
    """Write the file and say what is in it."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--out", type=Path, default=Path("rule_chains.parquet"))
    given.add_argument("--depth", type=int, default=4)
    asked = given.parse_args()
    ds = chains(asked.depth)
    replace_file(asked.out, ds.to_parquet)
    statuses = Counter(status for row in ds[REWRITE_STATUS] for status in row)
    said = ", ".join(f"{n:,} {status}" for status, n in statuses.most_common())
    print(f"{asked.out}: {len(ds):,} chains of {len(set(ds[ATTRIBUTE]))} attributes; rewrites: {said}")


if __name__ == "__main__":
    main()
