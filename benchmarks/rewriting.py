"""How fast `rewrite` is against a server with lognormal latency, beside a plain AsyncOpenAI loop; and its memory.

python benchmarks/rewriting.py speed          # share of the ideal rate (concurrency / latency), interleaved
python benchmarks/rewriting.py limit          # requests sent per success at a server limited to 200 requests/s
python benchmarks/rewriting.py memory         # peak memory of the client at 10,000 and at 100,000 rows

The server runs in a process of its own on this machine and shares its cores with the client: ratios mean more than
rates. The plain loop is what most people write: one AsyncOpenAI client, a semaphore, gather; it keeps no cache.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rewriting_support import Server, environment, labelled  # noqa: E402

import ratekit as rk  # noqa: E402
from ratekit.rewriting.cost import Meter  # noqa: E402

LATENCY = 0.3  # seconds, mean
REPLY = "Lorem ipsum dolor sit amet. " * 30


def plain_loop(url: str, texts: list[str], concurrency: int) -> None:
    """AsyncOpenAI with a semaphore, as in the client's own documentation."""
    import openai

    async def main() -> None:
        slots = asyncio.Semaphore(concurrency)
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

            async def ask(text: str) -> str | None:
                messages = [{"role": "user", "content": f"Make it longer: {text}"}]
                async with slots:
                    answer = await client.chat.completions.create(
                        model="fake", messages=messages, max_tokens=2048, temperature=0.7
                    )
                    return answer.choices[0].message.content

            await asyncio.gather(*(ask(text) for text in texts))

    asyncio.run(main())


def ratekit_rewrite(url: str, ds, concurrency: int, meter: Meter | None = None, **options) -> None:
    """`rk.rewrite` as a user calls it: cache, judging and all."""
    chat = rk.OpenAIChat("fake", url, concurrency=concurrency, **options)
    rewriter = rk.ChatRewriter(chat, rk.ATTRIBUTES["length"])
    with tempfile.TemporaryDirectory() as cache:
        rk.rewrite(ds, "length", rewriter, depth=1, cache=cache, progress=False, meter=meter)


def speed(rounds: int, waves: int) -> None:
    """Rows a second over concurrency / latency, the two clients in turn."""
    with Server("chat_server.py", mean_ms=1000 * LATENCY, fixed=REPLY) as server:
        for concurrency in (64, 256):
            n = waves * concurrency
            ds = labelled(n)
            texts = list(ds["response"])
            ratekit_rewrite(server.url, labelled(concurrency), concurrency)  # imports, connections
            shares: dict[str, list[float]] = {"plain": [], "ratekit": []}
            cpu: dict[str, list[float]] = {"plain": [], "ratekit": []}
            for _ in range(rounds):
                for name in shares:
                    start, used = time.perf_counter(), time.process_time()
                    if name == "plain":
                        plain_loop(server.url, texts, concurrency)
                    else:
                        ratekit_rewrite(server.url, ds, concurrency)
                    rate = n / (time.perf_counter() - start)
                    shares[name].append(rate / (concurrency / LATENCY))
                    cpu[name].append(1000 * (time.process_time() - used) / n)
            for name in shares:
                each = " ".join(f"{s:.3f}" for s in shares[name])
                print(
                    f"concurrency {concurrency:3d}  {name:8s} {statistics.median(shares[name]):.3f} of the ideal "
                    f"({each}); {statistics.median(cpu[name]):.2f} ms CPU a row", flush=True,
                )  # fmt: skip
            ratios = [a / b for a, b in zip(shares["ratekit"], shares["plain"], strict=True)]
            print(f"concurrency {concurrency:3d}  ratekit / plain: {statistics.median(ratios):.2f}", flush=True)


def limit(rows: int) -> None:
    """Requests sent per success where the server takes 200 a second; with the limit given, and without."""
    with Server("chat_server.py", mean_ms=1000 * LATENCY, fixed=REPLY, rps=200.0, retry_after=1.0) as server:
        for name, options in (("given", {"rpm": 12000.0}), ("not given", {})):
            meter, start = Meter(), time.perf_counter()
            ratekit_rewrite(server.url, labelled(rows), 256, meter, **options)
            rate = meter.replies / (time.perf_counter() - start)
            sent = meter.requests / meter.replies
            print(f"limit {name:9s}: {sent:.3f} requests per success, {rate / 200:.2f} of the limit", flush=True)


def memory(sizes: tuple[int, ...]) -> None:
    """Peak memory (VmHWM) of a process that rewrites so many rows, beyond the rows themselves."""
    with Server("chat_server.py", fixed=REPLY) as server:
        for rows in sizes:
            script = f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]; import rewriting as b; "
            script += f"b.one_run({server.url!r}, {rows})"
            out = subprocess.run(
                [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
            ).stdout
            print(f"{rows:7d} rows: {out.strip()}", flush=True)


def one_run(url: str, rows: int) -> None:
    """Rewrite a dataset that lies on the disk, and print the memory it took."""
    from datasets import load_from_disk

    with tempfile.TemporaryDirectory() as folder:
        labelled(rows).save_to_disk(folder)
        ds = load_from_disk(folder)
        ratekit_rewrite(url, ds.select(range(min(rows, 2000))), 64)
        before, own = _peak(), _own()
        start = time.perf_counter()
        ratekit_rewrite(url, ds, 64)
        print(
            f"peak {_peak():.0f} MiB (before {before:.0f}); private memory {own:.0f} -> {_own():.0f} MiB "
            f"after {time.perf_counter() - start:.0f} s"
        )


def _status(name: str) -> float:
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith(name))


def _peak() -> float:
    return _status("VmHWM")


def _own() -> float:
    return _status("RssAnon")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "limit", "memory"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waves", type=int, default=50, help="rows per slot")
    parser.add_argument("--rows", type=int, nargs="*", help="of limit and memory")
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.rounds, given.waves)
    elif given.what == "limit":
        limit((given.rows or [6000])[0])
    else:
        memory(tuple(given.rows or (10_000, 100_000)))
