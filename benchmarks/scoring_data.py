"""Scoring at size: a million short rows through a callable reward, and real conversations through real-sized models.

    python benchmarks/scoring_data.py rows [N]         # 1,000,000 rows streamed from Arrow; the peak is printed
    python benchmarks/scoring_data.py real MODEL|demo|llama [N|all] [PAIRS]   # the reviews and HH-RLHF pairs
    python benchmarks/scoring_data.py sizes      # memory that kernels made for each number of tokens leave behind

`demo` trains the demo's reward model, `llama` makes one of random weights and about 100M parameters.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def rows(n: int) -> None:
    import pyarrow as pa
    from datasets import Dataset

    import ratekit as rk
    from ratekit.demo import train_tokenizer
    from ratekit.scoring.adapters import CHAT
    from ratekit.scoring.encoding import Encoder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.arrow"
        prompt = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        schema = pa.schema([("prompt_id", pa.string()), ("prompt", prompt), ("response", pa.string())])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for start in range(0, n, 10_000):
                ids = range(start, min(start + 10_000, n))
                prompts = [[{"role": "user", "content": f"Question {i // 4}?"}] for i in ids]
                # every fifth row repeats the one before it
                texts = [f"Answer {i - (i % 5 == 4)} to it, in a few words." for i in ids]
                writer.write(
                    pa.record_batch([pa.array([str(i // 4) for i in ids]), pa.array(prompts, prompt), texts], schema)
                )
        ds = Dataset.from_file(str(path))
        rk.score(ds.select(range(1000)), "words", progress=False)  # so that what is loaded once is not counted
        before, asked = peak(), [0]

        tokenizer = train_tokenizer(["Question 17? Answer 4 to it, in a few words."] * 20, 400)
        encode = Encoder(tokenizer, CHAT, "rows", 512)

        def reward(prompts, responses):
            """Through the chat template and the tokenizer, as for a model; the reward is the number of tokens."""
            asked[0] += len(responses)
            return np.array([float(len(text.ids)) for text in encode(prompts, responses)[0]])

        start = time.perf_counter()
        scored = rk.score(ds, reward, name="length", progress=False)
        seconds = time.perf_counter() - start
        size = path.stat().st_size / 2**20
    print(f"{len(scored):,} rows ({size:.0f} MiB of Arrow), {asked[0]:,} distinct texts tokenised and scored,")
    print(f"{seconds:.0f} s of wall time,")
    print(f"peak memory {peak():.0f} MiB, of which {peak() - before:.0f} MiB for the million rows")


def real(which: str, n: int | None, pairs: Path) -> None:
    import torch

    import ratekit as rk
    from ratekit.demo import train_reward_model
    from ratekit.scoring.model import RewardModel

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if which == "demo":
            which = str(train_reward_model(Path(folder) / "demo-rm", progress=False))
        elif which == "llama":
            sys.path.insert(0, str(Path(__file__).parent))
            import scoring

            which = scoring.save(Path(folder) / "llama", "llama-100m", torch.float32)
        reward = RewardModel(which)
        sets = {"reviews": rk.load("reviews", n=n)}
        if pairs.exists():
            sets["HH-RLHF pairs"] = rk.load("hh-rlhf", data_files=pairs, n=n)
        for name, ds in sets.items():
            tokens = 0
            scores = reward.scores

            def counted(prompts, responses, scores=scores):
                nonlocal tokens
                got = scores(prompts, responses)
                tokens += int(got.tokens.sum())
                return got

            reward.scores = counted
            before, start = peak(), time.perf_counter()
            scored = rk.score(ds, reward, name="rm", progress=False)
            seconds = time.perf_counter() - start
            reward.scores = scores
            n_scored = sum(v is not None for row in scored["reward/rm"] for v in row)
            speed = f"{tokens:,} tokens in {seconds:.0f} s, {tokens / seconds:,.0f} tokens/s"
            memory = f"peak {peak():.0f} MiB ({peak() - before:+.0f})"
            print(f"{name}: {len(ds)} rows, {n_scored} texts, {speed}; {memory}", flush=True)


def sizes(n: int = 400) -> None:
    """A packed linear layer on passes of 1,024 to 2,048 tokens: every size as it comes, and filled as packs are."""
    import os

    import torch

    from ratekit.scoring import packing

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    torch.set_num_threads(1)
    layer = torch.ops.mkldnn._reorder_linear_weight(torch.randn(2048, 768), 1024)
    tokens = np.random.default_rng(0).integers(1024, 2049, n)
    for what, counts in (("filled", [t + packing.filler(int(t)) for t in tokens]), ("every size", tokens)):
        before = resident()
        for count in counts:
            torch.ops.mkldnn._linear_pointwise(torch.zeros(int(count), 768), layer, None, "none", [], "")
        distinct, share = len(set(map(int, counts))), sum(counts) / tokens.sum() - 1
        print(f"{what}: {n} passes of {distinct} sizes ({share:.1%} more tokens) left {resident() - before:,.0f} MiB")


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["rows"]
    if what == "rows":
        rows(int(rest[0]) if rest else 1_000_000)
    elif what == "sizes":
        sizes()
    else:
        beside = Path(__file__).parents[2] / "shared" / "data" / "hh_rlhf_helpful_base_test.jsonl.gz"
        real(
            rest[0] if rest else "demo",
            int(rest[1]) if len(rest) > 1 and rest[1] != "all" else None,
            Path(rest[2]) if len(rest) > 2 else beside,
        )
