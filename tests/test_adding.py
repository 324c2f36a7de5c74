"""Adding one thing is editing one place: each is added as one literal, and one audit of them walks every surface."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

import ratekit as rk
from ratekit.cli import main
from ratekit.estimators import ESTIMATORS, Estimator
from ratekit.measures import MEASURES
from ratekit.rewriting.rules import RULES
from ratekit.scoring import FORMS, Form, NamedReward, read_reward
from ratekit.sources.public import Source


def exclamations(texts):
    return [float(t.count("!")) for t in texts]


def digits(texts):
    return [float(sum(c.isdigit() for c in t)) for t in texts]


def excited(text, target):
    return text.rstrip("!. ") + ("!!" if target else ".")


def loud(prompts, responses):
    return [float(r.count("!")) + 0.01 * len(r) for r in responses]


def forum_rows(row, index):
    yield {"prompt_id": f"q{index}", "prompt": row["asked"], "response": row["said"]}


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(MEASURES, "digits", digits)
    attribute = rk.Attribute("excitement", "more excited", "calmer", measure=exclamations)
    monkeypatch.setitem(rk.ATTRIBUTES, "excitement", attribute)
    monkeypatch.setitem(RULES, "excitement", excited)
    monkeypatch.setitem(rk.REWARD_MODELS, "loud", loud)
    source = Source("a forum", "", {"asked": "text", "said": "text"}, forum_rows)
    monkeypatch.setitem(rk.SOURCES, "forum", source)


@pytest.fixture
def forum(tmp_path):
    path = tmp_path / "forum.jsonl"
    rows = [
        {"asked": f"What of {i}?", "said": f"I saw {i} of them and it was {'great' * (i % 3)} fine{'!' * (i % 2)}"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_one_literal_each_walks_every_surface(added, forum, tmp_path, capsys):
    out = tmp_path / "audit"
    command = ["audit", "--data", "forum", "--data-files", str(forum), "-a", "excitement", "--rewriter", "rules"]
    assert main([*command, "-r", "loud", "--out", str(out)]) == 0
    screen = capsys.readouterr().out
    assert "excitement" in screen
    assert "loud" in screen
    found = rk.Audit.load(out)
    rate = found.effects[(found.effects.estimator == "rate") & (found.effects.estimand == "ate")].iloc[0]
    assert rate.estimate > 1  # two marks against none, each worth 1.01
    checks = rk.diagnose(found.dataset)
    assert "digits" in set(checks[checks["check"] == "balance"]["about"])  # a measure that rewrites should leave alone
    assert "excitement" in repr(found)
    assert "loud" in found._repr_html_()
    page = found.report(tmp_path / "page.html")
    text = (page if hasattr(page, "read_text") else tmp_path / "page.html").read_text()
    assert "excitement" in text
    assert "loud" in text
    for name in ("rate", "naive"):
        assert name in set(found.effects.estimator)
    assert rk.plots.effects(found.effects) is not None
    assert main(["attributes"]) == 0
    assert "excitement" in capsys.readouterr().out


def test_what_was_not_added_is_unknown(forum, tmp_path, capsys):
    assert main(["audit", "--data", str(forum), "-a", "excitement", "-r", "words", "--out", str(tmp_path / "o")]) == 2
    assert "excitement" in capsys.readouterr().err


def test_an_estimator_walks_every_surface(monkeypatch, tmp_path, capsys):
    later = Estimator(
        "the mean of both rewrites back", "RATE, both", "P", "#CC79A7", (0, 1, 2),
        lambda r, w, clusters: np.where(w, 1.0, -1.0) * ((r[:, 0] + r[:, 2]) / 2 - r[:, 1]),
        lambda m, _: (m[..., 0] + m[..., 2]) / 2 - m[..., 1],
    )  # fmt: skip
    monkeypatch.setitem(ESTIMATORS, "rate_both", later)
    ds = rk.load("reviews", attribute="length")
    ds = rk.score(rk.score(ds, "words", progress=False), "vader", progress=False)
    found = rk.Audit.of(ds)
    by = found.effects.query("reward_model == 'words' and estimand == 'ate'").set_index("estimator")["estimate"]
    assert by["rate_both"] == pytest.approx((by["single_rewrite"] + by["rate"]) / 2)
    assert "RATE, both" in {t.get_text() for t in rk.plots.effects(found.effects).get_legend().get_texts()}
    assert "rate_both" in str(rk.widgets.EffectsDashboard(found.effects).estimator.options)
    text = found.report(tmp_path / "page.html").read_text()
    assert "RATE, both" in text or "rate_both" in text
    ds.to_parquet(tmp_path / "x.parquet")
    for command, *more in (["estimate"], ["contrast", "words", "vader", "--estimator", "rate_both"]):
        assert main([command, str(tmp_path / "x.parquet"), *more, "--format", "csv"]) == 0, command
        assert "rate_both" in capsys.readouterr().out
    for look, asked in ((rk.refusal_bounds, {}), (rk.plan, {"se": 0.1})):
        assert len(look(ds, estimator="rate_both", **asked))


def test_a_kind_of_reward_walks_every_surface(monkeypatch, tmp_path, capsys):
    def read(name, rest):
        if not rest:
            raise rk.InputError(f"{name}: which letter? Write {FORMS['letter'].about}")
        return NamedReward(name, "a function", f"letter-{rest}", (), lambda: partial(counted, rest))

    def counted(letter, prompts, responses):
        return [float(r.count(letter)) for r in responses]

    monkeypatch.setitem(FORMS, "letter", Form("how often a letter stands in the text (letter:LETTER)", read))
    command = ["audit", "--data", "reviews", "-a", "length", "--rewriter", "rules", "--out", str(tmp_path / "audit")]
    assert main([*command, "-r", "letter:e", "-r", "letter:q"]) == 0
    assert "letter-e" in capsys.readouterr().out
    found = rk.Audit.load(tmp_path / "audit")
    assert found.provenance["rewards"] == {"letter-e": "letter:e", "letter-q": "letter:q"}
    row = found.dataset[0]
    assert row["reward/letter-e"][0] == row["response"].count("e")
    assert (read_reward("letter:e").kind, read_reward("letter:e").column) == ("a function", "letter-e")
    assert rk.score(found.dataset, "letter:z", progress=False)["reward/letter-z"][0][0] == row["response"].count("z")
    with pytest.raises(rk.InputError, match="has no meaning here"):
        rk.score(found.dataset, "letter:z", truncation="response")
    assert main([*command[:-1], str(tmp_path / "other"), "-r", "letter:"]) == 2
    assert "letter:LETTER" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "other"), "-r", "leter:e"]) == 2
    assert "letter:..." in capsys.readouterr().err
