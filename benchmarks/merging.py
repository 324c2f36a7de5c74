"""How much memory merging and auditing take: the peak of a process of its own, against the size of the models.

    python benchmarks/merging.py merge --millions 1000 --method ties      # two folders and a base, bfloat16
    python benchmarks/merging.py audit --millions 100                     # two Llama folders, float32, within 4 GiB
    python benchmarks/merging.py audit --millions 100 --kill 60           # cut off after 60 s, then gone on with
    python benchmarks/merging.py merge --millions 8000 --layers 1 --memory 8    # the largest tensors of an 8B model
    python benchmarks/merging.py element                                  # bytes for an element, method by method

Weights are random, so the effects mean nothing; the shapes are Llama's. The peak is the largest resident set, pages of
mapped files included. Folders are kept in --folder and made once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
GIB = 1 << 30

# millions of parameters -> layers, width, inner width, heads, heads of keys, vocabulary
SHAPES = {
    10: (4, 256, 1024, 4, 2, 8_000),
    100: (12, 768, 2048, 12, 4, 20_000),
    500: (16, 1536, 4096, 16, 8, 50_000),
    1000: (16, 2048, 8192, 32, 8, 128_256),  # Llama 3.2 1B without its language head
    8000: (32, 4096, 14336, 32, 8, 128_256),  # Llama 3.1 8B without its language head
}


def tensors(millions: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama sequence classifier."""
    _, width, inner, heads, of_keys, vocabulary = SHAPES[millions]
    head = width // heads
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for i in range(layers):
        at = f"model.layers.{i}."
        shapes |= {
            f"{at}self_attn.q_proj.weight": (width, width), f"{at}self_attn.k_proj.weight": (of_keys * head, width),
            f"{at}self_attn.v_proj.weight": (of_keys * head, width), f"{at}self_attn.o_proj.weight": (width, width),
            f"{at}mlp.gate_proj.weight": (inner, width), f"{at}mlp.up_proj.weight": (inner, width),
            f"{at}mlp.down_proj.weight": (width, inner), f"{at}input_layernorm.weight": (width,),
            f"{at}post_attention_layernorm.weight": (width,),
        }  # fmt: skip
    return {**shapes, "model.norm.weight": (width,), "score.weight": (1, width)}


def make(folder: Path, millions: int, layers: int, seed: int, dtype: str) -> Path:
    """A folder of random weights: the base's, and for seed over 0 a little besides."""
    import torch
    from transformers import LlamaConfig

    from ratekit.demo import simulate_reviews, train_tokenizer
    from ratekit.merging.writing import write_model

    target = folder / f"{millions}M-{layers}-{dtype}-{seed}"
    if target.exists():
        return target
    _, width, inner, heads, of_keys, vocabulary = SHAPES[millions]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=of_keys, num_labels=1, max_position_embeddings=1024,
        pad_token_id=0, architectures=["LlamaForSequenceClassification"], dtype=dtype,
    )  # fmt: skip
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in tensors(millions, layers).items():
            weight = torch.randn(shape, generator=shared) * (0.02 if "norm" not in name else 0.1) + ("norm" in name)
            if seed:
                weight += 0.004 * torch.randn(shape, generator=own)
            yield name, weight.to(getattr(torch, dtype))

    write_model(target, weights())
    config.save_pretrained(target)
    train_tokenizer([review.text for review in simulate_reviews(300)]).save_pretrained(target)
    return target


def in_its_own_process(code: str, arguments: list[str], limit: float | None = None) -> dict[str, float] | None:
    """Run `code` with its peak and time; None where it was cut off."""
    told = (
        "import resource, sys, json; r = resource.getrusage(resource.RUSAGE_SELF)\nprint('PEAK', r.ru_maxrss * 1024)\n"
    )
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code + told, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = done.stdout.splitlines()
    print("\n".join(lines[:-1]))
    return {"peak": float(lines[-1].split()[1]), "seconds": time.perf_counter() - started}


MERGE = """
import json, sys, ratekit as rk
models, base, out, method, memory = json.loads(sys.argv[1])
rk.merging.merge(models, method, base, out=out, memory=memory, progress=True)
"""
AUDIT = """
import json, sys, ratekit as rk
from datasets import Dataset
models, base, out, methods, n = json.loads(sys.argv[1])
ds = rk.load("reviews", attribute="length").select(range(n))
good = rk.load("reviews", attribute="sentiment")
sides = [[r for r, t in zip(good["response"], good["treated"]) if t == side][:n] for side in (True, False)]
pairs = [{"prompt": f"Write review {i}.", "chosen": c, "rejected": r} for i, (c, r) in enumerate(zip(*sides))]
table = rk.merging.audit(models, ds, methods, base=base, pairs=pairs, out=out)
print(table[["model", "accuracy", "barrier", "length"]].round(3).to_string(index=False))
"""
ELEMENT = """
import json, sys, resource, torch
from ratekit.merging.mergers import Plan
method, n = json.loads(sys.argv[1])
torch.set_num_threads(1)
from ratekit.merging.methods import METHODS
m = METHODS[method]
base, *tuned = [{"w": torch.randn(n // 1000, 1000, dtype=torch.bfloat16)} for _ in range(3)]
plan = Plan(tuned[: m.models[1] or 2], method, base, memory=1e6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dict(plan.tensors())
print(f"{method:16s} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / n:5.0f} bytes an element")
"""


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["merge", "audit", "element"])
    parser.add_argument("--millions", type=int, choices=sorted(SHAPES), default=100)
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--method", action="append")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ratekit-merging")
    parser.add_argument("--memory", type=float, default=16.0, help="GiB for one tensor")
    parser.add_argument("--rows", type=int, default=40, help="of the audit's data, and its pairs")
    parser.add_argument("--kill", type=float, help="cut the audit off after so many seconds, then go on")
    given = parser.parse_args()
    if given.what == "element":
        from ratekit.merging.methods import METHODS

        for method in given.method or METHODS:
            in_its_own_process(ELEMENT, [json.dumps([method, 20_000_000])])
        return
    dtype = "bfloat16" if given.what == "merge" else "float32"
    base, *models = [
        make(given.folder, given.millions, given.layers or SHAPES[given.millions][0], seed, dtype) for seed in range(3)
    ]
    of_one = size(base)
    millions = of_one / (2 if dtype == "bfloat16" else 4) / 1e6
    print(f"one model {of_one / GIB:.2f} GiB, {millions:.0f}M parameters, {dtype}")
    paths = [list(map(str, models)), str(base)]
    if given.what == "merge":
        for method in given.method or ["linear", "slerp", "ties", "dare_ties"]:
            out = Path(tempfile.mkdtemp(dir=given.folder)) / "merged"
            ran = in_its_own_process(MERGE, [json.dumps([*paths, str(out), method, given.memory])])
            assert ran is not None
            peak = f"peak {ran['peak'] / GIB:.2f} GiB = {ran['peak'] / of_one:.2f} models"
            print(f"{method}: {peak}, {ran['seconds']:.0f} s")
            for path in sorted(out.parent.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            out.parent.rmdir()
        return
    out = Path(tempfile.mkdtemp(dir=given.folder))
    arguments = [json.dumps([*paths, str(out), given.method or ["linear", "ties"], given.rows])]
    if given.kill:
        cut = in_its_own_process(AUDIT, arguments, given.kill)
        print("cut off" if cut is None else "done before it was cut off")
    ran = in_its_own_process(AUDIT, arguments)
    assert ran is not None
    print(f"audit: peak {ran['peak'] / GIB:.2f} GiB, {ran['seconds']:.0f} s")
    again = in_its_own_process(AUDIT, arguments)
    assert again is not None
    print(f"the same call again: peak {again['peak'] / GIB:.2f} GiB, {again['seconds']:.0f} s")


if __name__ == "__main__":
    main()
