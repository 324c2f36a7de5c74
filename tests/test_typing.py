"""The public surface is typed: a type checker of the user's refuses wrong calls, and takes right ones."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

RIGHT = """
import ratekit as rk

table = rk.estimate(rk.score(rk.label(rk.load("reviews"), "length"), "words"), level=0.9)
ax = rk.plots.effects(table)
merged = rk.merging.merge(["a", "b"], "linear")
"""

WRONG = {
    'rk.load("reviews", atribute="length")': "Unexpected keyword argument",
    'rk.nonsense_name("x")': "Module has no attribute",
    "rk.plots.effects(1, 2, 3)": "Too many positional arguments",
    "rk.merging.merge(42)": "No overload variant",
    "rk.estimate(level=0.9)": "Missing positional argument",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What mypy says of each line of a user's file: {line number: message}."""
    folder = tmp_path_factory.mktemp("typing")
    lines = ["import ratekit as rk", *WRONG]
    (folder / "wrong.py").write_text("\n".join(lines) + "\n")
    (folder / "right.py").write_text(RIGHT)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml"]
    files = [str(folder / "wrong.py"), str(folder / "right.py")]
    done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_refused(said, call):
    number = list(WRONG).index(call) + 2
    of_line = [line for line in said.splitlines() if f"wrong.py:{number}:" in line]
    assert any(WRONG[call] in line for line in of_line), said


def test_right_calls_are_taken(said):
    assert "right.py" not in said, said


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "ratekit" / "py.typed").exists()
