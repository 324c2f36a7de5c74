"""A printed table of effects shows each estimate beside its interval, on 80 columns."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import ratekit as rk
from ratekit.effects_table import EffectsTable


@pytest.fixture(scope="module")
def table():
    rewards = [[0.25 * i, 1.0, 0.5 * i] for i in range(40)]
    rows = {"prompt_id": [f"p{i}" for i in range(40)], "attribute": "length", "treated": [i % 2 > 0 for i in range(40)]}
    return rk.estimate(pd.DataFrame({**rows, "reward/rm": rewards}))


def test_the_printed_row_of_an_estimate_holds_its_interval(table):
    lines = str(table).splitlines()
    assert lines[0] == "length, rm"
    assert lines[1].split() == ["estimator", "estimand", "estimate", "95", "%", "interval", "n", "recommended"]
    rate = table[(table["estimator"] == "rate") & (table["estimand"] == "ate")].iloc[0]
    (line,) = [line for line in lines if line.split()[:2] == ["rate", "ate"]]
    assert line.split()[2:] == f"{rate.estimate:.4g} [{rate.ci_low:.4g}, {rate.ci_high:.4g}] 40 yes".split()
    assert sum(line.endswith("yes") for line in lines) == 1
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith(f"[{len(table)} rows x {table.shape[1]} columns")


def test_a_name_that_differs_between_rows_is_a_column_and_markup_is_harmless(table):
    two = EffectsTable(pd.concat([table, table.assign(reward_model="other\x1b[2J")], ignore_index=True))
    lines = str(two).splitlines()
    assert lines[0] == "length"
    assert lines[1].split()[0] == "reward_model"
    assert "\x1b" not in str(two)
    assert "\x1b" not in str(EffectsTable(two.tail(3)))


def test_a_long_table_says_how_many_rows_there_are_more(table):
    many = EffectsTable(pd.concat([table] * 30, ignore_index=True))
    assert f"... {len(many) - 60} more" in str(many)
    assert len(str(many).splitlines()) < 66


def test_what_is_cut_out_of_a_table_is_a_plain_frame_and_prints_as_one(table):
    assert type(table[["estimator", "estimate"]]) is type(table.copy()) is pd.DataFrame
    assert str(EffectsTable(table[["estimator", "estimate"]])) == str(table[["estimator", "estimate"]])
    assert "interval" not in str(EffectsTable(table.head(0)))


def test_a_notebook_shows_the_same_columns_as_the_text_and_markup_as_text(table):
    hostile = EffectsTable(pd.concat([table, table.assign(reward_model="<script>1</script>")], ignore_index=True))
    html = hostile._repr_html_()
    assert re.findall("<th [^>]*>(.*?)</th>", html) == str(hostile).splitlines()[1].split()
    rate = table[(table["estimator"] == "rate") & (table["estimand"] == "ate")].iloc[0]
    line = next(row for row in html.split("<tr>") if ">rate<" in row and ">ate<" in row)
    assert f">{rate.estimate:.4g}<" in line
    assert f">[{rate.ci_low:.4g}, {rate.ci_high:.4g}]<" in line
    assert line.count(">yes<") == 1
    assert "<script>" not in html
    assert "x" * 25 not in EffectsTable(table.assign(attribute="x" * 120))._repr_html_()  # it would widen the page
    assert EffectsTable(table[["estimate"]])._repr_html_() == table[["estimate"]]._repr_html_()


def test_a_saved_audit_prints_its_effects_in_the_same_way(tmp_path):
    found = rk.audit("reviews", "words", "length", n=40)
    kept = rk.Audit.load(found.save(tmp_path / "audit"))
    assert str(kept.effects) == str(found.effects)
    assert str(found.effects).startswith("length, words\n")
