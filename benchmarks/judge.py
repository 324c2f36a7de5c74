"""How often the judge of rewrites is wrong, on replies of real models that were read and labelled one by one.

python benchmarks/judge.py DATA                   # DATA holds replies/*.jsonl and double_rewrites/*.jsonl.gz
python benchmarks/judge.py DATA --before REVISION # beside the judge of another revision of this repository

The labels are in tests/judge_labels.jsonl: a reply's key in its cache, a hash of its text, its first characters, and
why it is a rewrite, a copy of its source, cut off, or no rewrite at all. Of the double rewrites (GPT-4o, not labelled)
the statuses are counted, and how many texts that are passed on still begin with a label of the prompt's frame.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ratekit.rewriting.base import Reply  # noqa: E402
from ratekit.rewriting.prompts import TEMPLATE  # noqa: E402

LABELS = ROOT / "tests" / "judge_labels.jsonl"
FRAME = re.compile(r"[\s#*_]*(?:query|response|output|(?:original|structured) \w+)[*_]*\s*:", re.IGNORECASE)
Judge = Callable[[Reply, str, str], Any]
BEFORE = "9fa7df3"  # the last judge that was made without these labels
LABELLED = {"rewrite": "a rewrite", "copy": "a copy of its source", "none": "no rewrite", "cut": "cut off"}
FATES = ("ok", "unchanged", "rejected")


def judge_at(revision: str | None) -> Judge:
    """The judge of this tree, or of another revision."""
    if revision is None:
        from ratekit.rewriting.judge import judge

        return judge
    code = subprocess.run(
        ["git", "show", f"{revision}:ratekit/rewriting/judge.py"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    module = ModuleType("judge_at")
    exec(compile(code, "judge.py", "exec"), module.__dict__)
    return module.__dict__["judge"]


def labelled(data: Path) -> list[tuple[dict[str, Any], Reply, str]]:
    """(label, reply, source) of each labelled reply."""
    rows = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    found = []
    for file in sorted({row["file"] for row in rows}):
        lines = (data / "replies" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        records = {r["key"]: r for r in map(json.loads, lines)}
        for row in (row for row in rows if row["file"] == file):
            record = records[row["key"]]
            text = record["text"] or ""
            assert hashlib.sha256(text.encode()).hexdigest()[:16] == row["text"], f"{row['key']}: another text"
            source = record["messages"][-1]["content"].split("<response>\n", 1)[1].removesuffix("\n</response>")
            found.append((row, Reply(0, text, record["finish_reason"]), source))
    return found


def confusion(judge: Judge, rows: list[tuple[dict[str, Any], Reply, str]]) -> Counter[tuple[str, str]]:
    """How many replies with each label are passed as "ok", passed as "unchanged", or rejected."""
    counts: Counter[tuple[str, str]] = Counter()
    for row, reply, source in rows:
        rewrite = judge(reply, source, TEMPLATE)
        counts[row["label"], rewrite.status if rewrite.text is not None else "rejected"] += 1
    return counts


def rates(counts: Counter[tuple[str, str]]) -> tuple[int, int, int, int]:
    """(no rewrite among what is passed, passed, good ones rejected, good ones)."""
    passed = {key: n for key, n in counts.items() if key[1] != "rejected"}
    bad = sum(n for (label, _), n in passed.items() if label in ("none", "cut"))
    good = {key: n for key, n in counts.items() if key[0] in ("rewrite", "copy")}
    return bad, sum(passed.values()), sum(n for (_, fate), n in good.items() if fate == "rejected"), sum(good.values())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--before", metavar="REVISION", default=BEFORE)
    args = parser.parse_args()
    judges, rows = {"before": judge_at(args.before), "now": judge_at(None)}, labelled(args.data)
    found = {when: confusion(judge, rows) for when, judge in judges.items()}
    print("| label | " + " | ".join(f"{when}: {fate}" for when in found for fate in FATES) + " |")
    print("|---" + "|---:" * len(FATES) * len(found) + "|")
    for label, said in LABELLED.items():
        print(f"| {said} | " + " | ".join(str(counts[label, f]) for counts in found.values() for f in FATES) + " |")
    for when, counts in found.items():
        bad, passed, lost, good = rates(counts)
        print(f"\n{when}: no rewrite among what is passed: {bad} of {passed}; good ones rejected: {lost} of {good}")
    for when, name in itertools.product(judges, ("length", "structure")):
        judge = judges[when]
        with gzip.open(args.data / "double_rewrites" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as f:
            texts = [json.loads(line) for line in f]
        for before, after in (("original", "rewrite"), ("rewrite", "rewrite_of_rewrite")):
            judged = [judge(Reply(0, t[after], "stop"), t[before], TEMPLATE) for t in texts]
            statuses = Counter(r.status for r in judged)
            framed = sum(
                r.text is not None and bool(FRAME.match(r.text)) and not FRAME.match(t[before])
                for r, t in zip(judged, texts, strict=True)
            )
            said = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
            print(f"\n{when}, {name}, {before} -> {after}: {said}; begin with a label: {framed}")


if __name__ == "__main__":
    main()
