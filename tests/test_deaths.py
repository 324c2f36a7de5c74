"""A command that dies after any of its file operations, given again, gives what an undisturbed one gives."""

from __future__ import annotations

import pytest
from deaths import COMMANDS, Places, deaths

pytestmark = pytest.mark.commands

QUICK = ("audit", "merge", "reproduce")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return Places(tmp_path_factory.mktemp("places"))


@pytest.mark.parametrize("name", QUICK)
def test_two_ends_cost_nothing(name, places, tmp_path):
    operations, lost = deaths(name, places, tmp_path, shares=(0.4, 0.9))
    assert operations > 10
    assert lost == []


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_no_end_costs_anything(name, places, tmp_path):
    operations, lost = deaths(name, places, tmp_path)
    assert operations > 3
    assert lost == []


def test_a_folder_that_is_written_in_place_is_seen(places, tmp_path, monkeypatch):
    """The control."""

    def in_place(path, write):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return path

    monkeypatch.setattr("ratekit.files.replace_folder", in_place)
    assert len(deaths("merge", places, tmp_path, shares=(0.4, 0.9))[1]) == 2
