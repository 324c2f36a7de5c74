"""The memory of a whole `ratekit audit` at 10,000 and at 100,000 rows: load, label, rewrite, score, estimate.

    python benchmarks/memory.py                   # by rules, rewarded by words: no model and no network
    python benchmarks/memory.py --rows 10000
    python benchmarks/memory.py stages            # which stage holds what for a while, at 3,000 and 9,000 rows

The audit runs in a process of its own, which is looked at ten times a second. `anonymous` is the memory that the
process holds; `resident` counts the pages of files that it has mapped too, which the system takes back when it likes.
The last line is what a row adds between the fewest and the most rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write_rows(path: Path, n: int) -> float:
    """n rows of some 380 characters, all different; MiB of text."""
    from datasets import Dataset

    import ratekit as rk

    texts = rk.load("reviews", attribute="length")["response"]
    made = [f"{texts[i % len(texts)]} Take {i}." for i in range(n)]
    Dataset.from_dict({"prompt": [f"Review number {i}" for i in range(n)], "response": made}).to_parquet(path)
    return sum(map(len, made)) / 2**20


def measured(n: int) -> dict[str, float]:
    """An audit of n rows: MiB at the most, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        text = write_rows(Path(folder, "rows.parquet"), n)
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "ratekit", "audit", "--data", f"{folder}/rows.parquet", "-a", "length", "-r",
             "words", "--rewriter", "rules", "--out", f"{folder}/out"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        most = {"RssAnon": 0.0, "VmHWM": 0.0}
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in most:
                    most[key] = max(most[key], int(value.split()[0]) / 1024)
            time.sleep(0.1)
        assert process.returncode == 0
        return {
            "rows": n, "MiB of responses": text, "anonymous MiB": most["RssAnon"], "resident MiB": most["VmHWM"],
            "seconds": time.monotonic() - began,
        }  # fmt: skip


def stages(sizes: tuple[int, int] = (3000, 9000)) -> dict[str, float]:
    """Bytes of Python's objects that a row adds to what each stage holds while it runs, beyond what was held before."""
    import ratekit as rk

    peaks: dict[str, list[int]] = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder, "rows.parquet"), n)
            ds = rk.load("reviews", attribute="length").select(range(20))
            rk.estimate(rk.score(rk.rewrite(rk.label(ds, "length"), "length", "rules"), "words"))  # what it imports
            tracemalloc.start()
            ds = Path(folder, "rows.parquet")
            for stage, work in (
                ("load", rk.load), ("label", lambda ds: rk.label(ds, "length")),
                ("rewrite", lambda ds: rk.rewrite(ds, "length", "rules", progress=False)),
                ("score", lambda ds: rk.score(ds, "words", progress=False)), ("estimate", rk.estimate),
            ):  # fmt: skip
                tracemalloc.reset_peak()
                held = tracemalloc.get_traced_memory()[0]
                ds = work(ds)
                peaks.setdefault(stage, []).append(tracemalloc.get_traced_memory()[1] - held)
            tracemalloc.stop()
    return {stage: (many - few) / (sizes[1] - sizes[0]) for stage, (few, many) in peaks.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["audit", "stages"], default="audit")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    given = parser.parse_args()
    if given.what == "stages":
        print("\n".join(f"| {stage} | {value:,.0f} |" for stage, value in stages().items()))
    found: list[dict[str, float]] = []
    for n in given.rows if given.what == "audit" else ():
        found.append(row := measured(n))
        if len(found) == 1:
            print(f"| {' | '.join(row)} |\n|{'---:|' * len(row)}")
        print(f"| {' | '.join(f'{value:,.0f}' for value in row.values())} |", flush=True)
    if len(found) > 1:
        first, *_, last = sorted(found, key=lambda row: row["rows"])
        more = last["rows"] - first["rows"]
        slopes = [f"{(last[k] - first[k]) * 2**20 / more:,.0f} B {k.split()[0]}" for k in first if k.endswith(" MiB")]
        print(f"\na row adds {', '.join(slopes)}")
