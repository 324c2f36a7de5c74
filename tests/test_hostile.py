"""What strangers send: one line each, within 10 s of processor time and 2 GiB."""

from __future__ import annotations

import os

import pytest
from hostile import SHARD, Case, Hostile, cases, saved

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case has a process of its own")
QUICK = {
    "table": ("fifo.jsonl", "terabyte.csv", "deep.json", "no-foot.parquet"),
    "saved dataset": ("rows fifo", "files above"),
    "model": ("weights: length of 2^63", "weights: offsets overlapping", "config: labels many", "template: macro",
              "index above", "tokenizer_config.json: link out", "template: nested"),
    "run": ("record deep", "effects terabyte"), "card": ("card fifo",), "cache": ("line deep",), "file": ("fifo",),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return Hostile(tmp_path_factory.mktemp("hostile"))


@pytest.mark.commands
@pytest.mark.parametrize("kind", QUICK)
def test_a_few_of_each_kind(kind, hostile):
    for case in cases(every=False):
        if case.kind == kind and case.name in QUICK[kind]:
            found = hostile.run(case)
            assert found.fault == "", (case, found.said)


def test_the_names_are_those_of_the_table():
    known = {(case.kind, case.name) for case in cases(every=False)}
    assert {(kind, name) for kind, names in QUICK.items() for name in names} <= known
    assert len(known) > 200


@pytest.mark.commands
def test_what_is_not_refused_is_seen(hostile, monkeypatch):
    """The control: without the check of a saved dataset's files, one that waits for ever is found."""
    monkeypatch.setattr("ratekit.files._check_saved", lambda path: None)
    monkeypatch.setattr("hostile.WAIT", 3)
    made = saved(lambda folder: ((folder / SHARD).unlink(), os.mkfifo(folder / SHARD)))
    assert hostile.run(Case("saved dataset", "fifo", made, "estimate {x}")).fault == "it ended with -9"


@pytest.mark.slow
def test_every_command_and_everything_hostile(hostile):
    found = [(case, hostile.run(case)) for case in cases()]
    assert [(case, end) for case, end in found if end.fault] == []
