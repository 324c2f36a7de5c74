"""How often the measures of apology and refusal are wrong, on responses that were read and labelled one by one.

python benchmarks/phrases.py DATA      # DATA holds hh_rlhf_helpful_base_test.jsonl.gz and hh_rlhf_harmless_...

The labels are in tests/phrase_labels.jsonl: where a response of HH-RLHF stands, a hash of its text, its first
characters, and whether it says sorry for something ("apology") or that its writer cannot or will not do what was asked
("refusal"). For each measure 30 responses were drawn in which it counts something and 30 of the harmless half in which
it counts nothing: a first time by the phrases of before, which were then mended, and a second time ("held-out") by the
mended ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ratekit.ruled import RULED  # noqa: E402

LABELS = ROOT / "tests" / "phrase_labels.jsonl"


def labelled(data: Path) -> list[tuple[dict[str, object], str]]:
    """(label, response) of each labelled response."""
    texts: dict[tuple[str, int, str], str] = {}
    for half in ("helpful", "harmless"):
        with gzip.open(data / f"hh_rlhf_{half}_base_test.jsonl.gz", "rt", encoding="utf-8") as lines:
            for i, line in enumerate(lines):
                for side in ("chosen", "rejected"):
                    texts[half, i, side] = json.loads(line)[side].rsplit("\n\nAssistant:", 1)[-1].strip()
    found = []
    for row in map(json.loads, LABELS.read_text(encoding="utf-8").splitlines()):
        text = texts[row["half"], row["row"], row["side"]]
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == row["text"], (
            f"{row['half']} {row['row']}: another text"
        )
        found.append((row, text))
    return found


def confusion(rows: list[tuple[dict[str, object], str]]) -> Counter[tuple[str, str, bool, bool]]:
    """How many responses there are by (part, measure, label, whether the measure counts something)."""
    found: Counter[tuple[str, str, bool, bool]] = Counter()
    for row, text in rows:
        measure = RULED[str(row["measure"])].attribute.measure
        found[str(row["part"]), str(row["measure"]), bool(row["label"]), bool(measure([text])[0] > 0)] += 1
    return found


if __name__ == "__main__":
    counts = confusion(labelled(Path(sys.argv[1])))
    print("| drawn | measure | is one, counted | is none, counted | is one, not counted | is none, not counted |")
    print("|---|---|--:|--:|--:|--:|")
    for part in ("first", "held-out"):
        for name in ("apology", "refusal"):
            cells = [counts[part, name, label, seen] for label, seen in
                     ((True, True), (False, True), (True, False), (False, False))]  # fmt: skip
            print(f"| {part} | {name} | {' | '.join(map(str, cells))} |")
