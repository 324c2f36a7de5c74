"""What comes from data is shown on every surface as it is: no markup of it acts, and no formula of it is set."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import ratekit as rk
from ratekit.cards import Card, leaderboard, leaderboard_html
from ratekit.escaping import as_html
from ratekit.tables import Table, as_markdown, table_html
from ratekit.textdiff import differences_html

ODD = r"<zz>$a_1^2$</zz> \(b\) \[c\] $$\ce{H2O}$$ \begin{x}d\end{x}"
FORMULA = re.compile(r"\$[^$]+\$|\\[(\[]|\\begin|\\ce|\\ref")

IN_MARKDOWN = re.compile(r"<zz|(?<!\\)[*`]|(?<!\\)\[\w|\\\(|\\ce|\\begin|(?<!\\)\$")


class Runs(HTMLParser):
    """The runs of text between tags, in which a viewer looks for formulas; what it leaves alone is left out."""

    def __init__(self, html):
        super().__init__()
        self.runs, self.tags, self.alone, self.said = [], set(), None, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("script", "style", "pre", "code", "title"):
            self.alone = tag

    def handle_endtag(self, tag):
        if tag == self.alone:
            self.alone = None

    def handle_data(self, data):
        self.said += data
        if not self.alone:
            self.runs.append(data)


def only_shown(html, *, says=True):
    page = Runs(html)
    assert "zz" not in page.tags
    assert [run for run in page.runs if FORMULA.search(run)] == []
    assert not says or "<zz>$a_1^2$</zz>" in page.said


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    rows = [
        {"prompt_id": f"{ODD}{i}", "prompt": ODD, "response": f"{ODD} {i}", "attribute": ODD, "treated": bool(i % 2),
         "rewrites": [f"{i} {ODD}", f"{ODD} {i} so"], "rewrite_status": ["ok", ODD],
         f"reward/{ODD}": list(rng.normal(size=3)), f"reward/{ODD} 2": list(rng.normal(size=3))} for i in range(12)
    ]  # fmt: skip
    ds = Dataset.from_list(rows)
    return rk.Audit(ds, rk.estimate(ds), {"settings": {"data": ODD}, "notes": [ODD], "versions": {ODD: ODD}})


def test_texts_and_tables():
    for html in (as_html(ODD), differences_html(ODD, "other words"), differences_html("other words", ODD),
                 table_html(Table([ODD], [False], [[ODD]]))):  # fmt: skip
        only_shown(html)
    assert FORMULA.search(ODD)  # what is looked for is in it
    markdown = as_markdown(Table([ODD], [False], [[f"{ODD} *a* [b](c) `d` _e_"]]))
    assert not IN_MARKDOWN.search(markdown)


def test_a_column_of_sentences_is_told_from_one_of_names():
    table = Table(["name", "reason", "made"], [False] * 3, [["n" * 70, "too few rows " * 6, "<b>x</b> " * 9]])
    assert re.findall(r'<td data-name="(\w+)" class="words">', table_html(table, raw=["made"])) == ["reason"]


def test_a_remark_on_the_screen_is_whole_where_there_is_room(found):
    remark = (
        "rate, rate_late, rate_extrapolated: no two clusters differ (all are 0), so no standard error " + "(a / b) " * 9
    )
    few, many = ({**found.provenance, "notes": [remark] * k} for k in (1, 9))
    shown = repr(rk.Audit(found.dataset, found.effects, few))
    assert remark.strip() in " ".join(shown.split())
    assert "... 3 more remarks" in repr(rk.Audit(found.dataset, found.effects, many))
    assert max(map(len, shown.split("\n"))) <= 100


def test_the_report(found, tmp_path):
    path = rk.report(found, tmp_path)
    only_shown(path.read_text())
    assert path.name == "report.html"


def test_the_audit_the_card_and_the_leaderboard(found, tmp_path):
    only_shown(found._repr_html_())
    card = Card(found)
    only_shown(card.html)
    card.save(tmp_path / "a")
    only_shown(leaderboard_html(leaderboard([tmp_path / "a"])))
    assert not IN_MARKDOWN.search(card.markdown)


def test_a_notebook_gets_no_rule_of_style_for_anything_but_what_it_shows(found):
    for html in (found._repr_html_(), Card(found)._repr_html_()):
        rules = re.findall(r"([^{}]+)\{", "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL)))
        assert rules
        assert all(rule.strip().startswith((".ratekit-audit", ".rk-card")) for rule in rules), rules
    reasons = [line for line in repr(found).split("\n\n")[2].split("\n")]
    assert reasons[0].strip() in Runs(found._repr_html_()).said


def test_the_widgets(found):
    from ratekit import widgets
    from ratekit.widgets import explorer_html

    only_shown(explorer_html.row_html(found.dataset[0]) + explorer_html.title(found.dataset[0], 0))
    for widget in (widgets.Explorer(found.dataset), widgets.EffectsDashboard(found.effects, found.dataset)):
        shown = [w.value for w in of(widget) if type(w) is ipywidgets.HTML]
        assert shown
        only_shown("".join(shown))


def test_two_rows_without_rewrites_and_names_of_200_characters(tmp_path):
    name = "n" * 200
    rows = [
        {"prompt_id": str(i), "prompt": "p", "response": f"text {i}", "attribute": name, "treated": bool(i),
         f"reward/{name}": [float(i)]} for i in range(2)
    ]  # fmt: skip
    audit = rk.Audit(ds := Dataset.from_list(rows), table := rk.estimate(ds))
    assert [v.word for v in audit.verdicts] == ["cannot tell"]
    assert "the rewrites were not checked" in repr(audit)
    odd = {"attribute": {name: 40 * "\u202e"}, "reward_model": {name: 40 * "\x1b["}}
    signs = rk.Audit(ds, table.replace(odd).assign(estimator="single_rewrite", reward_sd=np.nan, estimate_sd=np.nan))
    assert max(map(len, repr(signs).split("\n"))) <= 100
    runs = [f"org/Llama-3.1-8B-Instruct-lr{k}-seed1-checkpoint-12000" for k in (1, 2)]
    apart = [table.replace({"reward_model": {name: run}}) for run in runs]
    lines = repr(rk.Audit(ds, pd.concat(apart, ignore_index=True))).split("\n")[3:5]
    assert lines[0].split()[1] != lines[1].split()[1], lines
    assert max(map(len, repr(audit).split("\n"))) <= 100
    page = rk.report(audit, tmp_path).read_text()
    assert "no rewritten texts" in page
    assert "stands under" not in page  # of the part that such a page lacks
    assert "Do not act on the numbers yet: the rewrites were not checked." in Runs(page).said
    assert name not in Runs(page.partition('id="measured"')[0]).said  # a sentence has a short name
    assert name in Runs(page).said
    assert name in Card(audit).html
    audit.plot()
    rk.widgets.EffectsDashboard(table, ds)
    with pytest.raises(rk.InputError, match="no column 'rewrites'"):
        rk.diagnose(ds)


@pytest.mark.commands
def test_one_row_and_a_reward_without_an_sd_are_not_said_in_sds(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt_id": str(i), "prompt": "p", "response": f"one text {i}", "attribute": "length", "treated": bool(i % 2),
         "rewrites": ["a text", "a text again"], "rewrite_status": ["ok", "ok"],
         "reward/flat": [1.0, 2.0 + i % 2 + i / 9, 1.5], "reward/b": list(rng.normal(size=3))} for i in range(20)
    ]  # fmt: skip
    for ds, flat in ((Dataset.from_list(rows[:1]), ("flat", "b")), (Dataset.from_list(rows), ("flat",))):
        audit = rk.Audit(ds, rk.estimate(ds))
        assert ("1 row to 1 prompt, 1 attribute x 2 rewards" in repr(audit)) == (len(ds) == 1)
        for line in repr(audit).split("\n")[3:5]:
            assert ("reward units" in line) == (line.split()[1] in flat), line
        assert audit._repr_html_().count("<circle") == 2 - len(flat)  # the small forest has one scale
        card = Card(audit)
        assert list(card.table["reward_model"][card.table["effect"].isna()]) == list(flat)
        assert np.isfinite(card.table["effect"]).sum() == 2 - len(flat)
        page = Runs(rk.report(audit, tmp_path).read_text()).said
        assert ("in the reward’s own units where a cell says so" in page) == (len(flat) == 1)
        assert f"than in the other, in reward {'SDs' if len(flat) == 1 else 'units'}" in page


def of(widget):
    """The widget and all that is in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from of(child)
