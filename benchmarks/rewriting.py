"""How fast `rewrite` is against a server with lognormal latency, beside a plain AsyncOpenAI loop; and its memory.

python benchmarks/rewriting.py speed          # share of the ideal rate (concurrency / latency), interleaved
python benchmarks/rewriting.py limit          # requests sent per success at a server limited to 200 requests/s
python benchmarks/rewriting.py faults         # the same with 5 % 429 and 2 % 503: the client's own retries beside ours
python benchmarks/rewriting.py open           # seconds and memory to open a cache of 1,000,000 replies (1.1 GB of disk)
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
REPLY = (
    "The review says that the plot was thin. It was a good film all the same, and the reasons are easy to name. The "
    "actors trust each other, so even the weaker scenes hold. Its music stays out of the way until the last act, where "
    "it earns its place. A few jokes fall flat; others land because nobody insists on them. What the story lacks in "
    "turns it makes up in patience: the camera waits, faces change, and small gestures carry what the dialogue leaves "
    "out. Whoever wants surprises will be bored before the middle. Whoever likes to watch people think will not. The "
    "ending answers one question and leaves two open, which seems about right for a tale of this size."
)


def plain_loop(url: str, texts: list[str], concurrency: int) -> int:
    """AsyncOpenAI with a semaphore and its own retries, as in the client's documentation; how many texts it lost."""
    import openai

    async def main() -> int:
        slots = asyncio.Semaphore(concurrency)
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:

            async def ask(text: str) -> str | None:
                messages = [{"role": "user", "content": f"Make it longer: {text}"}]
                async with slots:
                    answer = await client.chat.completions.create(
                        model="fake", messages=messages, max_tokens=2048, temperature=0.7
                    )
                    return answer.choices[0].message.content

            replies = await asyncio.gather(*(ask(text) for text in texts), return_exceptions=True)
            return sum(not isinstance(reply, str) for reply in replies)

    return asyncio.run(main())


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


def faults(rounds: int, waves: int) -> None:
    """Wall time over the ideal (latency x rows / concurrency), and rows lost, at a server that fails now and then."""
    with Server("chat_server.py", mean_ms=1000 * LATENCY, fixed=REPLY, faults={"429": 0.05, "503": 0.02}) as server:
        for concurrency in (64, 256):
            ds = labelled(waves * concurrency)
            ratekit_rewrite(server.url, labelled(concurrency), concurrency)
            for k in range(rounds):
                start = time.perf_counter()
                lost = plain_loop(server.url, [f"{k} {text}" for text in ds["response"]], concurrency)
                middle = time.perf_counter()
                meter = Meter()
                ratekit_rewrite(server.url, ds, concurrency, meter)
                ideal = LATENCY * waves
                print(
                    f"concurrency {concurrency:3d}: the client's own retries {(middle - start) / ideal:.2f} of the "
                    f"ideal, {lost} rows lost; ratekit {(time.perf_counter() - middle) / ideal:.2f}, "
                    f"{len(ds) - meter.replies} lost", flush=True,
                )  # fmt: skip


def opening(records: int) -> None:
    """Seconds of this process and MiB that it takes to open a cache; each reply is about as long as a review."""
    from ratekit.rewriting.cache import Cache, record_of

    turns = [{"role": "user", "content": "Adjust this response so it's longer. " + REPLY[:400]}]
    with tempfile.TemporaryDirectory() as folder:
        about = {"model": "m", "params": "", "template": "t", "attribute": "length", "phrase": "longer"}
        record = record_of(**about, messages=turns, text=REPLY[:400], finish_reason="stop", usage={})
        with Cache(folder) as cache:
            for i in range(records):
                cache.put(f"{i:032x}", record)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        script = (
            "import time; from ratekit.rewriting.cache import Cache; import sys; sys.path.insert(0, 'benchmarks')\n"
            "import rewriting as b; own, start = b._own(), time.process_time()\n"
            f"cache = Cache({folder!r}); used = time.process_time() - start\n"
            f"assert cache.get(f'{{{records - 1}:032x}}') and len(cache) == {records}\n"
            "print(f'{used:.1f} s CPU, {b._own() - own:.0f} MiB')"
        )
        out = subprocess.run([sys.executable, "-c", script], env=environment(), cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout  # fmt: skip
        print(f"{records:,} replies, {size / 2**20:,.0f} MiB on disk: opened in {out.strip()}")


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
    parser.add_argument("what", choices=["speed", "faults", "limit", "open", "memory"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waves", type=int, default=50, help="rows per slot")
    parser.add_argument("--rows", type=int, nargs="*", help="of limit and memory")
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.rounds, given.waves)
    elif given.what == "faults":
        faults(given.rounds, given.waves)
    elif given.what == "open":
        opening((given.rows or [1_000_000])[0])
    elif given.what == "limit":
        limit((given.rows or [6000])[0])
    else:
        memory(tuple(given.rows or (10_000, 100_000)))
