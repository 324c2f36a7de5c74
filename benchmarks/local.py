"""Tokens a CPU second of `hf:`, beside the model's own `generate`: one text at a time, and in padded batches.

python benchmarks/local.py MODEL                       # rewrites of the bundled reviews
python benchmarks/local.py MODEL --replies FILE        # the messages of a cache's records, one JSON a line

One thread, greedy, the same texts, interleaved; CPU seconds of this process, so that a busy machine disturbs little.
`seconds to the first reply` is what a run that is stopped early has lost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import ratekit as rk
from ratekit.rewriting.prompts import TEMPLATE, messages


def conversations(file: Path | None, n: int) -> list:
    """What the model is asked."""
    if file is None:
        rows = rk.load("reviews", attribute="length")
        every = [messages(TEMPLATE, "shorter" if r["treated"] else "longer", r["response"]) for r in rows]
    else:
        every = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
    return every[:: max(1, len(every) // n)][:n]


def plain(chat: rk.LocalChat, asked: list, size: int) -> Iterator[int]:
    """The tokens of each reply by `generate`, in batches of `size` of like length."""
    import torch

    model, tokenizer = chat._loaded, chat.tokenizer
    ids = sorted((chat._encode(c) for c in asked), key=len, reverse=True)
    for start in range(0, len(ids), size):
        batch = tokenizer.pad({"input_ids": ids[start : start + size]}, return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(
                **batch, max_new_tokens=chat.max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        for row in made[:, batch["input_ids"].shape[1] :].tolist():
            yield next((k + 1 for k, token in enumerate(row) if token in chat._ends), len(row))


def main() -> None:
    """Print a line for each way and round."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--replies", type=Path)
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = conversations(args.replies, args.n)
    chat = rk.LocalChat(args.model, max_tokens=args.max_tokens, temperature=0, device="cpu")
    list(chat(asked[:2]))
    ways = {
        "hf:": lambda: (r.usage["completion"] for r in chat(asked)),
        "generate, all in one batch": lambda: plain(chat, asked, len(asked)),
        "generate, one by one": lambda: plain(chat, asked, 1),
    }
    for _ in range(args.rounds):
        for name, way in ways.items():
            cpu, began, first, tokens = time.process_time(), time.monotonic(), 0.0, 0
            for n in way():
                first = first or time.monotonic() - began
                tokens += n
            cpu = time.process_time() - cpu
            print(f"{name:28} {tokens:6} tokens {cpu:7.1f} CPU s {tokens / cpu:6.1f} tokens/CPU s; "
                  f"seconds to the first reply: {first:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
