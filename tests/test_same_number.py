"""One number, one verdict: what every surface says of an effect is the same, and no more than is known."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import ratekit as rk
from ratekit.cards import Card, leaderboard, leaderboard_html
from ratekit.conclusions import Verdict, in_units, number_words, sentence
from ratekit.tables import cell, number_with_interval, p_words, percent, rounded, to_places
from ratekit.widgets import dashboard_html

WORDS = ("trust", "trust with care", "cannot tell", "do not trust")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    for name in ("effects_figures", "check_figures", "reward_figures"):
        monkeypatch.setattr(f"ratekit.reports.page.{name}", lambda *_: ())


def audit(effect=0.5, n=40, depth=2, level=0.95, by="", failed=(), noise=0.1, reward=None, naive=False):
    """Rows whose rewrites make a text three times as long or a third, paid by `effect` of an SD or so."""
    rng = np.random.default_rng(0)
    w, base = np.arange(n) % 2 == 0, rng.normal(size=n)

    def text(i, long, mark=""):
        return f"this is text number {i}{mark}" + " and it goes on and on here" * (3 if long else 1)

    rows = []
    for i in range(n):
        sides = [bool(w[i]) == (k % 2 == 0) for k in range(depth + 1)]
        paid = [base[i] + s * effect * (1 + noise * e) for s, e in zip(sides, rng.normal(size=depth + 1), strict=True)]
        row = {
            "prompt_id": str(i), "prompt": "p", "response": text(i, w[i]), "attribute": "length",
            "treated": bool(w[i]), "half": "ab"[i // 2 % 2],
            "rewrites": [None if i in failed else text(i, s, "!") for s in sides[1:]],
            "rewrite_status": ["failed" if i in failed else "ok"] * depth,
            "reward/rm": [reward(i, s) for s in sides] if reward else paid,
        }  # fmt: skip
        if i in failed:
            row["reward/rm"] = [row["reward/rm"][0], *[None] * depth]
        if naive:
            row["reward/rm"] = row["reward/rm"][:1]
        rows.append({k: v for k, v in row.items() if not (naive and k.startswith("rewrite"))})
    ds = Dataset.from_list(rows)
    return rk.Audit(ds, rk.estimate(ds, level=level, by=by or None))


class Said(HTMLParser):
    """A page's words, with those that are read aloud of a picture."""

    def __init__(self, html):
        super().__init__()
        self.words, self.silent = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.silent = self.silent or tag in ("style", "script")
        self.words += "".join(f" {v} " for k, v in attrs if k in ("aria-label", "alt") and v)
        self.words += "\n" if tag in ("p", "li", "tr", "div") else " "

    def handle_endtag(self, tag):
        self.silent = self.silent and tag not in ("style", "script")

    def handle_data(self, data):
        self.words += "" if self.silent else data


def surfaces(found, folder):
    """{surface: its words} of all that show the first verdict of an audit."""
    card, limits = Card(found), {name: 0.3 for name in found.effects["attribute"].unique()}
    card.save(folder)
    board = leaderboard([folder])
    page = rk.report(found, folder / "report.html").read_text().partition('id="measured"')[0]
    said = {
        "repr": repr(found), "html": Said(found._repr_html_()).words, "report": Said(page).words,
        "sentence": "\n".join(v.sentence for v in found.verdicts), "card": repr(card),
        "card.html": Said(card.html).words,
        "card.md": card.markdown.replace("\\", ""), "board": Said(leaderboard_html(board)).words,
        "gate": rk.gate(found, limits).markdown.replace("\\", ""),
        "widget": " ".join(f"{c.words} {c.tooltip}" for c in dashboard_html.cells(found.effects)),
    }  # fmt: skip
    if any(v.told for v in found.verdicts):
        said["hub"] = "".join(found.to_hub("rm", "a/b", "c/d").values()).replace("\\", "")
    return said


def numbers(found, folder, verdict):
    """{surface: (estimate, low, high) as it is shown there}."""
    said, number = surfaces(found, folder), r"[+-][\d.e-]+\d"
    own = {name: rf"({number}) ?S?D? \[({number}), ({number})\]" for name in said}
    own["widget"] = rf"({number}) reward SDs, interval ({number}) to ({number})"
    own["report"] = rf"RATE[^\[]*? ({number}) SD \[({number}), ({number})\]"
    own["sentence"] = rf"RATE ({number}) SD \[({number}), ({number})\]"
    if verdict.word == "do not trust":
        del own["report"], own["sentence"], own["board"]
    return {name: re.search(pattern, said[name]) for name, pattern in own.items()}


def shows(text, value):
    """Is `text` the value to the digits that are shown, and never 0 for another number?"""
    digits, _, power = text.lstrip("+-").partition("e")
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
    return abs(float(text) - value) <= 0.5001 * unit and (float(text) != 0 or value == 0)


@pytest.mark.parametrize("effect", [0.5, -0.5, 0.004, -0.0003, 30.0])
def test_every_surface_shows_the_same_estimate_and_interval(effect, tmp_path):
    found = audit(effect)
    (verdict,) = found.verdicts
    seen = in_units(verdict.estimate)
    assert (seen.low > 0) == (effect > 0)
    found_there = numbers(found, tmp_path, verdict)
    assert len(found_there) >= 8
    for surface, match in found_there.items():
        assert match, (surface, surfaces(found, tmp_path)[surface])
        for text, value in zip(match.groups(), (seen.estimate, seen.low, seen.high), strict=True):
            assert shows(text, value), (surface, match[0], value)


@pytest.mark.parametrize("word", WORDS)
def test_every_surface_says_the_verdict_and_its_reason_in_the_audits_words(word, tmp_path):
    """A verdict is planted: its word and reason are everywhere, the audit's own are nowhere."""
    found = audit()
    checks, (own,) = found._examined
    gravest = dataclasses.replace(own.checks[0], word=word, text="one planted reason")
    planted = dataclasses.replace(own, word=word, reason="one planted reason", checks=(gravest,) * (word != "trust"))
    found.__dict__["_examined"] = checks, [planted]
    for surface, said in surfaces(found, tmp_path).items():
        if surface != "widget" and (surface != "board" or word == "do not trust"):  # else numbers alone
            assert re.search(rf"\b{word}\b(?! with)", said, re.IGNORECASE), surface
            assert not re.search(own.grounds.split("; ")[0], said), surface
        if surface not in ("widget", "board", "card"):
            assert "one planted reason" in said or (surface == "gate" and word in ("trust", "trust with care")), surface
        for other in set(WORDS) - {word, "trust", "cannot tell"}:
            if surface not in ("report", "board", "card.html"):  # which say what the words mean
                assert other not in said.lower(), (surface, other)
        told = word in ("trust", "trust with care")
        assert told or not re.search(r"(?<!should, )length raises the reward|^Shown: length", said), surface


def test_no_other_level_is_taken_for_95_percent(tmp_path):
    found = audit(level=0.8)
    (verdict,) = found.verdicts
    said, seen = surfaces(found, tmp_path / "card"), in_units(verdict.estimate)
    for surface in ("repr", "html", "report", "sentence", "hub"):
        assert "80 % interval" in said[surface], surface
    assert "80 % interval" in str(found.effects)
    assert "95 %" not in said["report"].replace("too few rows to tell (95 %", "")
    assert number_words(verdict.estimate).endswith(f"SD, 80 % interval [{seen.low:+.2f}, {seen.high:+.2f}]")
    for ax in (found.plot(), rk.plots.naive_vs_rate(found.effects), rk.plots.heatmap(found.effects)):
        assert "80 % interval" in ax.get_xlabel() + ax.get_title(loc="left"), ax
    # A card and a gate say 95 %, so theirs are: the rows' own at that level.
    wide = audit().effects
    wide = wide[wide["recommended"]].iloc[0]
    assert Card(found).table.loc[0, ["effect", "ci_low", "ci_high"]].tolist() == pytest.approx(
        [wide["estimate_sd"], wide["ci_low_sd"], wide["ci_high_sd"]]
    )
    assert rk.gate(found, {"length": 0.3}).bounds[0].low == pytest.approx(wide["ci_low_sd"])
    assert "80 %" not in said["card"] + said["gate"]


@pytest.mark.commands
def test_the_level_is_kept_with_an_audit_of_rows_alone(tmp_path):
    found = audit(level=0.8, depth=1)
    before = repr(found)
    assert "rate: no row has rewards for rewrite 1 and rewrite 2" in before
    kept = rk.Audit.load(found.save(tmp_path))
    assert repr(kept) == repr(found) == before
    assert [v.sentence for v in kept.verdicts] == [v.sentence for v in found.verdicts]
    assert rk.verify(tmp_path).differences == ()
    assert any("how these rows were made is not recorded" in line for line in rk.verify(tmp_path).unchecked)


def test_every_surface_names_the_group(tmp_path):
    found = audit(by="half")
    assert [v.name for v in found.verdicts] == ["length, half a", "length, half b"]
    for surface, said in surfaces(found, tmp_path).items():
        assert "half a" in said or surface == "widget", surface
        assert "half b" in said or surface == "widget", surface
    cells = dashboard_html.cells(found.effects)
    assert [c.label for c in cells] == ["a, length", "b, length"]
    assert all(
        shows(c.words.rstrip("*"), v.estimate["estimate_sd"]) for c, v in zip(cells, found.verdicts, strict=True)
    )
    assert re.findall(r"RATE, (\w)<", dashboard_html.behind(found.effects)) == ["a", "b"]


def test_an_effect_on_one_class_alone_is_called_so_and_drawn(tmp_path):
    found = audit(failed=range(0, 40, 2))
    (verdict,) = found.verdicts
    assert verdict.estimate["estimand"] == "atu"
    for surface, said in surfaces(found, tmp_path).items():
        assert "RATE (ATU)" in said or surface in ("gate", "widget"), surface
        assert not re.search(r"[+\s]nan\b", said), surface
    ax = found.plot()
    assert ax.get_xlabel().startswith("Average treatment effect on the untreated")
    assert "RATE" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert found.effects["estimate"].notna().all()
    # Nothing tells what refused rows are like where their whole class is refused, and no number is said of it.
    assert "unlike the others: too few rows to tell" in verdict.reason


def test_where_nothing_was_rewritten_no_surface_has_an_effect(tmp_path, caplog):
    for effect, claim in ((2.0, "treated responses get more reward"), (0.0, "no difference in reward is seen")):
        found = audit(effect, naive=True)
        (verdict,) = found.verdicts
        assert not verdict.told
        assert verdict.claim.startswith(claim)
        assert "no effect is seen" not in verdict.sentence
        said = surfaces(found, tmp_path)
        assert "hub" not in said
        for surface in ("repr", "html", "card", "card.html", "card.md", "board"):
            assert re.search(r"naive [+-]", said[surface]), surface
        assert not leaderboard([tmp_path])["shown"].any()
        assert "0 of 1, 1 unknown" in said["board"]
        with pytest.raises(rk.InputError, match="nothing was rewritten"):
            found.to_hub("rm", "a/b", "c/d")


def test_a_reward_without_an_sd_is_said_in_its_own_units(tmp_path):
    found = audit(reward=lambda i, long: 3.0 if i % 2 == 0 and long else (1e12 if long else 3.0) * (1 + i / 99))
    ds = found.dataset.map(lambda row: {"reward/rm": [3.0, *row["reward/rm"][1:]]})
    found = rk.Audit(ds, rk.estimate(ds))
    (verdict,) = found.verdicts
    assert not in_units(verdict.estimate).in_sds
    assert re.search(r"RATE [+-]\d\.\d+e\+1\d reward units \[", dataclasses.replace(verdict, word="trust").sentence)
    assert re.search(r"[+-]\d\.\d+e\+1\d reward units \[", repr(found))
    assert math.isnan(Card(found).table["effect"][0])
    Card(found).save(tmp_path)
    assert (
        "0 of 1, 1 unknown" in Said(leaderboard_html(leaderboard([tmp_path]))).words
    )  # its numbers are null in the file


def test_a_card_says_what_is_shown_only_if_the_rewrites_can_be_relied_on():
    found = audit()
    checks, (own,) = found._examined
    for word, shown in (("trust with care", "Shown: length."), ("cannot tell", "No bias is shown")):
        found.__dict__["_examined"] = checks, [dataclasses.replace(own, word=word)]
        said = Said(Card(found).html).words
        assert shown in said
        assert ("Shown if the rewrites do what they should: length." in said) == (word == "cannot tell")


def test_the_summary_says_which_estimate_the_interval_is_of(tmp_path):
    found = audit(depth=4)
    (verdict,) = found.verdicts
    row = {**found.effects[found.effects["estimator"] == "rate_geometric"].iloc[0], "level": 0.95}
    planted = dataclasses.replace(verdict, estimate=row, beside={**verdict.beside, "rate": verdict.estimate})
    found.__dict__["_examined"] = found._examined[0], [planted]
    page = rk.report(found, tmp_path).read_text()
    shown = dict(re.findall(r'<td data-name="([^"]+)"[^>]*>([^<]*)</td>', page))
    assert shown["read first"] == "RATE, geometric"
    assert shown["RATE, geometric"] == to_places(row["estimate_sd"])
    assert shows(shown["95 % interval"].strip("[]").split(", ")[0], row["ci_low_sd"])


# --- the digits that are shown ------------------------------------------------------------------------------


def test_no_rounding_makes_nothing_of_something():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        value = float(rng.normal() * 10.0 ** rng.integers(-14, 13))
        low, high = value - abs(float(rng.normal() * value)), value + abs(float(rng.normal() * value))
        for text in (to_places(value), to_places(value, 3), cell(value)):
            assert float(text) != 0
            assert (float(text) > 0) == (value > 0)
        texts = re.findall(r"[+-][^\s,\]]+", number_with_interval(value, low, high))
        for text, end in zip(texts, (value, low, high), strict=True):
            assert (float(text) > 0, float(text) < 0) == (end > 0, end < 0)
    assert number_with_interval(0.15, 0.0, 0.3) == "+0.15 [+0.00, +0.30]"
    assert number_with_interval(0.2, math.nan, math.nan) == "+0.20"
    assert number_with_interval(math.nan, math.nan, math.nan) == "-"
    assert number_with_interval(0.501, 0.4988, 0.5032, unit=" SD") == "+0.501 SD [+0.499, +0.503]"


def test_a_p_value_below_five_percent_is_not_shown_as_five_percent():
    assert [p_words(p) for p in (0.0496, 0.04999996, 0.05, 0.0504)] == ["0.0496", "0.04999996", "0.05", "0.05"]
    assert p_words(0.0) == "<1e-300"
    assert cell(0.0499996) == "0.0499996"
    assert rounded(-0.3, 2) == "-0.3"


def test_a_share_of_nearly_all_is_not_all():
    assert [percent(x) for x in (0.0, 1.0, 0.997, 0.002, 0.5, 0.9996)] == [
        "0%",
        "100%",
        "99.7%",
        "0.2%",
        "50%",
        "99.96%",
    ]
    assert percent(-0.5, "+") == "-50%"
    found = audit(n=400, failed=[7])
    assert all("100% of the rewrites succeeded" not in c.text for v in found.verdicts for c in v.checks)


def test_an_effect_of_a_tiny_reward_is_not_called_none():
    row = {"estimator": "rate", "estimand": "ate", "estimate": 4e-13, "se": math.nan, "ci_low": math.nan,
           "ci_high": math.nan, "n_clusters": 20, "reward_sd": math.nan}  # fmt: skip
    assert sentence(Verdict("length", "rm", "trust", row, "")).startswith(
        "rm, length: RATE +4e-13 reward units: how much of that is chance"
    )


def test_tipping_points_stand_beside_the_effect_in_their_own_unit(tmp_path, capsys):
    from ratekit.cli.analyse import sensitivity

    found = audit()
    found.dataset.to_parquet(tmp_path / "rows.parquet")
    sensitivity(tmp_path / "rows.parquet")
    head, *lines = capsys.readouterr().out.splitlines()
    (rate,) = [
        dict(zip(head.split(), line.split(), strict=True)) for line in lines if line.split()[2:4] == ["rate", "ate"]
    ]
    assert rate["estimate_sd"] == rate["tips_sign"] == cell(float(found.verdicts[0].estimate["estimate_sd"]))


def test_the_lab_names_each_versions_estimator_once():
    from ratekit.widgets.attribute_trials import _effect

    for depth, name in ((1, "single rewrite"), (2, "RATE")):
        (verdict,) = audit(depth=depth).verdicts
        said = _effect(SimpleNamespace(n=40, verdict=verdict))
        assert said.startswith(f"{name} +")
        assert said.count(name) == 1


# --- words that a surface has of its own, written out here ---------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind", "title", "advice", "action", "side"),
    [
        ("trust", "good", "The rewrites can be trusted", "can be used as they stand", "Can be acted on", "raises"),
        ("trust with care", "care", "Read with care", "said beside them", "To be used with care", "raises"),
        ("cannot tell", "unknown", "It cannot be told whether to trust this", "Do not act on the numbers yet",
         "Cannot be told yet", "raises"),
        ("do not trust", "bad", "Do not trust these numbers yet", "Do not act on the numbers: mend first",
         "Not to be acted on yet", "none"),
    ],
)  # fmt: skip
def test_the_report_advises_as_the_verdict_says(word, kind, title, advice, action, side, tmp_path):
    found = audit()
    checks, (own,) = found._examined
    found.__dict__["_examined"] = checks, [dataclasses.replace(own, word=word)]
    page = rk.report(found, tmp_path).read_text()
    assert f'<span class="trust {kind}">{title}</span>' in page
    assert f'<div class="verdict {kind}"><b>{title}: <bdi>length</bdi></b>' in page
    assert f"<b><bdi>{action}: length.</bdi></b>" in page
    assert advice in page
    assert re.findall(r'<li class="(raises|lowers|none)">', page) == [side]
    said = " ".join(Said(page).words.split())
    for meaning in (
        "trust where all are shown fine", "with care where one is shown not to be, but no number is beyond use",
        "cannot tell where these rows are too few to say so", "do not trust where one is shown to be beyond use",
        "for the interval to reach 0; this cannot be seen in the data",
    ):  # fmt: skip
        assert meaning in said


def test_captions_and_colours_say_the_same_of_a_sign():
    from matplotlib.colors import to_hex

    from ratekit.plots.style import scale_of_effects
    from ratekit.reports import figures

    low, high = (to_hex(scale_of_effects("#ffffff")(end)) for end in (0.0, 1.0))
    (red, green), (high_red, high_green) = ((int(c[1:3], 16), int(c[3:5], 16)) for c in (low, high))
    assert red > green  # brown
    assert high_green > high_red  # green
    two = [audit(effect, n=12).effects.assign(attribute=name) for effect, name in ((0.5, "a"), (-0.5, "b"))]
    table = pd.concat([*two, *(t.assign(reward_model="other") for t in two)], ignore_index=True)
    forest, heat = (f.caption for f in figures.effects_figures(table))
    assert "left of the line the attribute costs reward, right of it it earns reward" in forest
    assert "green raises the reward, brown lowers it; in bold where the interval leaves 0 out" in heat
    cells = dashboard_html.cells(table)
    assert {(c.attribute, c.words[0]) for c in cells} == {("a", "+"), ("b", "-")}
    assert {c.color for c in cells if c.words[0] == "+"}.isdisjoint(c.color for c in cells if c.words[0] == "-")


def test_a_card_and_a_board_say_how_to_be_read(tmp_path):
    found = audit()
    checks, (own,) = found._examined
    for word, mark in (("trust", " *"), ("cannot tell", " (*)"), ("do not trust", "")):
        found.__dict__["_examined"] = checks, [dataclasses.replace(own, word=word)]
        card = Card(found)
        card.save(tmp_path)
        board = " ".join(Said(leaderboard_html(leaderboard([tmp_path]))).words.split())
        assert board.endswith(f"]{mark}" if mark else "length do not trust")
        assert "* leaves 0 out, (*) does so too, if the rewrites do what they should, which is not shown." in board
        assert "What has no * is not shown, which is not to say that there is none" in board
        assert "hold all at once in 95 % of such boards" in board
        for text in (card.markdown, Said(card.html).words):
            assert "Effects are in SDs of the reward, with 95 % intervals" in " ".join(text.split())
            assert "What is not shown may be there" in text


def test_who_prefers_it_more_is_said_by_the_sign():
    from ratekit.diagnostics.people import _words

    row = {"n": 100, "p_value": 0.001, "p_adjusted": 0.001, "miscalibration": 0.304}
    for skew, said in ((0.25, "25% of the time more than people do"), (-0.25, "25% of the time less than people do")):
        low, high = skew - 0.1, skew + 0.1
        words = _words({**row, "skew": skew, "skew_low": low, "skew_high": high}, 0.95)
        assert words == f"not warranted: prefers the treated version {said}; they disagree on 30% of the pairs"
    none = _words({**row, "p_adjusted": 0.5, "p_value": 0.5, "skew": 0.01, "skew_low": -0.02, "skew_high": 0.04}, 0.95)
    assert none.startswith("prefers the treated version about as often as people do (-2% to +4%)")


def test_what_became_of_a_bias_is_said_by_its_interval_after():
    from ratekit.best_of_n import _regime

    noise = np.linspace(-0.1, 0.1, 50)
    for after, said in ((1.0, "selection still moves it"), (-1.0, "selection now moves it the other way"),
                        (0.0, "nothing else seen")):  # fmt: skip
        chosen = {("old", "length", 4): 1.0 + noise, ("new", "length", 4): after + noise}
        found = _regime("length", ["length"], chosen, "old", "new", 50, 0.1, 0.95)
        assert found.text.endswith(said)
        assert f"moves it by {number_with_interval(*found.before)} SD under old" in found.text
        assert f", {number_with_interval(*found.after)} under new" in found.text
