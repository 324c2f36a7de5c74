"""What the tests share: real data where it is at hand, and a tiny model of any architecture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs a network; one that asks for it fails at once
os.environ.setdefault("MPLBACKEND", "Agg")

collect_ignore = ["servers"]  # programs, which import what stands beside them

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Replies that go to the default cache go to a folder of the test's own."""
    monkeypatch.setenv("RATEKIT_CACHE", str(tmp_path_factory.mktemp("cache") / "rewrites"))


@pytest.fixture
def shared():
    """A function that gives the path of a real data set beside the repository, or skips the test."""

    def path(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"real data not at hand: ../shared/data/{name}")
        return SHARED / name

    return path


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level BPE tokenizer of 400 tokens with a chat template."""
    from ratekit.demo import train_tokenizer

    return train_tokenizer(
        ["The film was a joy from start to finish.", "A dull, slow book with a thin plot."] * 50, 400
    )


@pytest.fixture
def reports_without_pictures(monkeypatch):
    """Drawing them is most of what a report takes; tests/test_report.py looks at them."""
    from ratekit.reports.figures import Figure

    drawn = Figure("data:,", "a caption", "what it shows")
    monkeypatch.setattr("ratekit.reports.figures._drawn", lambda *a, **k: drawn)
