"""How long from a slider of `Playground` to its picture? `python benchmarks/widgets.py`: milliseconds in the kernel.

Each of many moves of the confounding slider is timed from the change of its value until the picture, the sentences and
the table are ready to be sent; what the browser adds is its own. Then the parts: rows and estimates, and drawing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from ratekit.widgets import Playground, scene_picture, scenes


def milliseconds(call: Callable[[float], object], moves: int) -> list[float]:
    times = []
    for i in range(moves + 3):
        start = time.perf_counter()
        call(0.05 + 0.05 * (i % 19))
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[3:])  # the first fill caches of fonts and code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="responses")
    parser.add_argument("--moves", type=int, default=100)
    given = parser.parse_args()
    playground = Playground(n=given.n)
    played = scenes.play(scenes.Scene(n=given.n))

    def move(value: float) -> None:
        playground.confounding.value = value

    for name, call in (
        ("slider to picture", move),
        ("  rows and estimates", lambda x: scenes.play(scenes.Scene(confounding=x, n=given.n))),
        ("  drawing", lambda x: scene_picture.draw(played)),
    ):
        times = milliseconds(call, given.moves)
        median, slow = statistics.median(times), times[int(0.95 * len(times))]
        print(f"{name:22} median {median:6.1f} ms, 95 % within {slow:6.1f} ms   ({given.moves} moves, n={given.n:,})")


if __name__ == "__main__":
    main()
