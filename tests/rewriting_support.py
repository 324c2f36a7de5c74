"""What the tests of rewriting share: servers in processes of their own, and a small labelled dataset."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVERS = ROOT / "tests" / "servers"


def environment(**more: str) -> dict[str, str]:
    """This process's environment for a child: the package from this checkout, no key, no network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


class Server:
    """A server of tests/servers in a process of its own, on a port of its own."""

    def __init__(self, script: str, **config: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVERS / script), json.dumps(config)],
            stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as answer:
            return json.load(answer)

    def configure(self, **config: object) -> None:
        """Change its ways and forget what it did."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/configure", json.dumps(config).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).read()

    @property
    def stats(self) -> dict:
        return self.get("stats")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def labelled(n: int, attribute: str = "length"):
    """n rows, all different, half of them treated."""
    from datasets import Dataset

    texts = [f"Review {i} says that the plot was thin. It was a good film all the same." for i in range(n)]
    return Dataset.from_dict(
        {
            "prompt_id": [str(i) for i in range(n)],
            "prompt": [[{"role": "user", "content": "Write a review."}]] * n,
            "response": texts,
            "attribute": [attribute] * n,
            "treated": [i % 2 == 0 for i in range(n)],
        }
    )
