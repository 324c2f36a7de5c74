"""The gate: at the limit at most 5 % of audits pass; small, too big and unknown are told apart, and a build is told."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

import ratekit as rk
from ratekit.gates import SMALL, TOO_BIG, UNTOLD, _needed, _sd_of, _Seen, _what_would_tell, outcome_of
from ratekit.simulate import NumericWorld

sys.path.insert(0, str(ROOT / "experiments"))
import gate_reach as experiment  # experiments/gate_reach.py


def scored(effect, n, seed=0, name="rm", **world):
    """Scored rows without texts, whose effect in SDs is `effect` up to chance."""
    drawn = NumericWorld(effect=effect, **world).sample(n, seed=seed, depth=2)
    return pd.DataFrame({
        "prompt_id": [f"p{c}" for c in drawn.clusters], "attribute": "length", "treated": drawn.treated,
        f"reward/{name}": drawn.rewards.tolist(),
    })  # fmt: skip


def test_rows_without_rewrites_neither_pass_nor_fail():
    rows = scored(0.0, 60).assign(**{"reward/rm": [[float(i % 7)] for i in range(60)]})
    for limit in (100.0, 1e-6):
        found = rk.gate(rows, {"length": limit})
        assert (found.outcome, found.code) == (UNTOLD, 4)
        assert "nothing was rewritten" in found.bounds[0].text


def test_few_audits_pass_at_the_limit():
    shares = experiment.at_the_limit(200, 100)
    assert shares[SMALL] <= 0.06  # 0.025 expected, standard error 0.011
    assert shares[TOO_BIG] <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("world", experiment.WORLDS)
def test_at_most_five_in_a_hundred_audits_pass_at_the_limit(world):
    shares = experiment.at_the_limit(1000, 150, **experiment.WORLDS[world])
    assert shares[SMALL] <= 0.05
    assert shares[TOO_BIG] <= 0.05
    committed = pd.read_csv(ROOT / "experiments" / "gate_reach.csv").query("world == @world")
    assert committed.set_index("what")["value"].to_dict() == pytest.approx(shares)


def test_the_committed_table_keeps_its_bounds():
    table = pd.read_csv(ROOT / "experiments" / "gate_reach.csv")
    gate = table.query("part == 'gate' and what != 'cannot tell'")
    assert len(gate) == 2 * len(experiment.WORLDS)
    assert (gate["draws"] == 1000).all()
    assert (gate["value"] <= 0.05).all()
    regimes = table[table["part"] == "regime"]
    named = regimes[regimes["world"] == regimes["what"]]
    assert named["world"].tolist() == list(experiment.REGIMES)
    assert (named["value"] >= 0.95 * named["draws"]).all()
    assert (named["draws"] == 200).all()
    assert (table.query("part == 'told'")["value"] >= 0.95 * 200).all()
    wrong = regimes[(regimes["world"] != regimes["what"]) & (regimes["what"] != "cannot tell")]
    assert wrong["value"].sum() == 0
    shifts = table[table["part"] == "shift"].pivot_table(index="world", columns="what", values="value")
    assert (shifts["mean"] - shifts["brute force"]).abs().max() < 0.02
    assert shifts["held"].min() > 0.9


@pytest.mark.parametrize("level", [0.95, 0.9, 0.99])
def test_the_interval_is_that_of_the_audit_at_95_percent(level):
    rows = scored(0.3, 80, heavy_tails=True)
    bound = rk.gate(rk.Audit(rk.as_dataset(rows), rk.estimate(rows, level=level), {}), {"length": 0.1}).bounds[0]
    row = rk.estimate(rows).query("recommended").iloc[0]
    assert (bound.low, bound.high) == pytest.approx((row["ci_low_sd"], row["ci_high_sd"]), abs=1e-12)
    assert row["estimate_sd"] - row["ci_low_sd"] > 1.05 * (row["ci_high_sd"] - row["estimate_sd"])


def test_small_too_big_and_untold_with_the_rows_that_would_tell():
    assert rk.gate(scored(0.0, 2000), {"length": 0.1}).outcome == SMALL
    assert rk.gate(scored(0.5, 2000), {"length": 0.1}).outcome == TOO_BIG
    assert rk.gate(scored(-0.5, 2000), {"length": 0.1}).outcome == TOO_BIG
    few = rk.gate(scored(0.0, 60, seed=3, effect_sd=0.6), {"length": 0.1})
    assert few.code == 4
    needed = int(few.bounds[0].n_needed)
    assert needed > 60
    assert f"about {needed:,} would tell" in few.bounds[0].text
    assert "no number of rows" not in few.bounds[0].text
    for low, high, said in ((-0.1, 0.0, UNTOLD), (0.0, 0.1, UNTOLD), (0.1, 0.2, UNTOLD), (-0.2, -0.1, UNTOLD)):
        assert outcome_of(low, high, 0.1) == said  # an end at the limit itself shows neither


def test_the_rows_that_would_tell_do_tell():
    """An interval shrinks with the root of n: at n_needed rows of the same spread it ends inside the limit."""
    bound = rk.gate(scored(0.0, 60, seed=3, effect_sd=0.6), {"length": 0.1}).bounds[0]
    half = (bound.high - bound.low) / 2 * np.sqrt(bound.n / bound.n_needed)
    assert abs(bound.estimate) + half < bound.limit
    assert abs(bound.estimate) + half * np.sqrt(bound.n_needed / (bound.n_needed - 2)) >= bound.limit


def test_rows_that_would_tell_by_hand():
    """An interval of 0.2 each way, 0.1 from the limit, is half as wide with four times the rows."""
    assert _needed(_Seen(0.2, 0.0, 0.4, 100, 100), 0.3) == pytest.approx(401, abs=1)
    assert _needed(_Seen(-0.4, -0.6, -0.2, 100, 100), 0.3) == pytest.approx(401, abs=1)
    # Arms that are not alike: 1.0 with room of 0.9, and 0.6 with room of 0.4; on average they would end inside already.
    assert _needed(_Seen(1.2, 0.2, 1.7, 40, 40), 0.3) == _needed(_Seen(-1.2, -1.7, -0.2, 40, 40), 0.3) == 51
    assert _needed(_Seen(0.1, -0.5, 0.2, 100, 100), 0.3) == pytest.approx(226, abs=1)
    assert np.isnan(_needed(_Seen(0.5, 0.0, 1.0, 100, 100), 0.5))  # at the limit
    assert np.isnan(_needed(_Seen(0.2, np.nan, np.nan, 100, 100), 0.3))
    assert np.isnan(_needed(_Seen(0.2, -np.inf, np.inf, 100, 100), 0.3))
    # No two of 50 prompts differ: 1 - 0.025^(1/G) of the range 4 comes under 0.1 with G = ln .025 / ln(1 - 0.1/4).
    clusters = np.log(0.025) / np.log(1 - 0.1 / 4)
    assert _needed(_Seen(0.2, 0.0, 0.4, 100, 50, 4.0), 0.3) == np.ceil(100 * clusters / 50) + 1
    assert _needed(_Seen(0.2, 0.0, 0.4, 100, 500, 4.0), 0.3) == 101


def test_every_reward_model_has_to_pass():
    ds = scored(0.0, 1000).assign(**{"reward/bad": scored(0.5, 1000)["reward/rm"]})
    found = rk.gate(ds, {"length": 0.1})
    assert [b.outcome for b in found.bounds] == [SMALL, TOO_BIG]
    assert found.code == 3
    assert rk.gate(ds, {"length": 0.1}, reward="rm").code == 0


def test_a_reward_that_never_moves_is_bounded_by_what_was_not_seen():
    """No two prompts differ: 1 - 0.025^(1/G) of prompts may be unlike these, each by the range of the rewards."""
    r = np.random.default_rng(0).normal(size=400)
    frame = pd.DataFrame({
        "prompt_id": [str(i) for i in range(400)], "attribute": "length", "treated": np.arange(400) % 2 == 0,
        "reward/rm": [[x, x, x] for x in r],
    })  # fmt: skip
    bound = rk.gate(frame, {"length": 0.1}).bounds[0]
    sd = float(rk.estimate(frame)["reward_sd"].iloc[0])
    assert bound.high == pytest.approx((1 - 0.025 ** (1 / 400)) * (r.max() - r.min()) / sd)
    assert bound.low == -bound.high
    assert bound.outcome == SMALL
    few = rk.gate(frame[:20], {"length": 0.1}).bounds[0]
    assert few.outcome == UNTOLD
    assert rk.gate(frame[:20].assign(**{"reward/rm": [[1.0, 1.0, 1.0]] * 20}), {"length": 0.1}).code == 4  # no SD


def test_what_is_not_to_be_trusted_is_never_passed():
    """A rewriter that does not do what it is asked makes every effect 0."""

    def idle(texts, targets):
        return [text[:-1] if text.endswith("~") else text + "~" for text in texts]

    texts = list(rk.load("reviews", attribute="length")["response"])
    data = [{"prompt": str(i), "response": t} for i, t in enumerate(texts)]
    audit = rk.audit(data, "words", "length", rewriter=idle, progress=False)
    found = rk.gate(audit, {"length": 0.5})
    assert audit.verdicts[0].word == "do not trust"
    assert found.bounds[0].outcome == UNTOLD
    assert "do not trust" in found.bounds[0].text


def test_what_nobody_checked_passes_with_a_proviso_and_not_where_strict():
    found = rk.gate(scored(0.0, 2000), {"length": 0.1})
    assert "which is not shown" in found.bounds[0].text
    assert found.bounds[0].text.replace("_", "\\_") in found.markdown.replace("\\[", "[").replace("\\]", "]")
    assert rk.gate(scored(0.0, 2000), {"length": 0.1}, strict=True).code == 4


# --- against a baseline ----------------------------------------------------------------------------------


def test_a_change_since_a_baseline_is_paired():
    """Both effects are far beyond the limit and vary by row; their difference is what is bounded."""
    before = scored(0.5, 300, effect_sd=1.0)
    same = before.assign(**{"reward/rm": [[x + 0.001 * i % 7 for x in r] for i, r in enumerate(before["reward/rm"])]})
    assert rk.gate(same, {"length": 0.1}).code != 0
    assert rk.gate(same, {"length": 0.1}, against=before).code == 0
    moved = before.assign(
        **{"reward/rm": [[x + 0.4 * (w ^ (k == 1)) for k, x in enumerate(r)]
                         for r, w in zip(before["reward/rm"], before["treated"], strict=True)]}
    )  # fmt: skip
    assert rk.gate(moved, {"length": 0.1}, against=before).code == 3
    other = before.rename(columns={"reward/rm": "reward/old"})
    assert rk.gate(same, {"length": 0.1}, against=other).bounds[0].reward_model == "rm - old (baseline)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:50], "other rows"),
        (lambda d: d.assign(prompt_id=[f"q{i}" for i in range(len(d))]), "row 1 'prompt_id'"),
        (lambda d: d.assign(attribute="flattery"), r"other attributes \(flattery, not length\)"),
        (lambda d: d.assign(response="x"), "only one"),
        (lambda d: d.assign(**{"reward/b": d["reward/rm"], "reward/c": d["reward/rm"]}).drop(columns="reward/rm"),
         "baseline"),
    ],
)  # fmt: skip
def test_a_baseline_of_other_rows_is_refused_in_a_line(change, message):
    rows = scored(0.0, 100)
    with pytest.raises(rk.InputError, match=message) as e:
        rk.gate(rows, {"length": 0.1}, against=change(rows))
    assert "\n" not in str(e.value)


def test_a_number_of_rows_beyond_a_thousand_million_is_not_named():
    seen = _Seen(0.2, 0.0, 0.4, 100, 100)
    assert "about 1,000,000,000 would tell" in _what_would_tell(seen, 1e9)
    assert "no number of rows is sure to tell" in _what_would_tell(seen, 1e9 + 1)


def test_the_sd_of_a_baseline_is_that_of_the_same_group():
    table = pd.DataFrame({"part": ["a", "b"], "attribute": "x", "reward_model": "rm", "reward_sd": [1.0, 3.0]})
    asked = SimpleNamespace(attribute="x", by={"part": "b"})
    assert _sd_of(SimpleNamespace(effects=table), asked, "rm") == 3.0
    assert np.isnan(_sd_of(SimpleNamespace(effects=table), asked, "other"))
    assert _sd_of(SimpleNamespace(effects=table[1:].drop(columns="part")), asked, "rm") == 3.0


def test_texts_of_other_rows_are_shortened_to_forty_letters():
    rows = scored(0.0, 40)
    one, other = (rows.assign(prompt_id=[f"{letter}{i:099}" for i in range(40)]) for letter in "ab")
    with pytest.raises(rk.InputError) as e:
        rk.gate(one, {"length": 0.1}, against=other)
    short = [f"'{letter}{'0' * 18}...{'0' * 18}'" for letter in "ba"]
    assert f"'prompt_id' is {short[0]}, not {short[1]};" in str(e.value)


def test_a_baseline_of_another_suite_is_refused():
    ds = rk.as_dataset(scored(0.0, 100))
    new, old = (rk.Audit(ds, rk.estimate(ds), {"suite": s}) for s in ("v2", "v1"))
    with pytest.raises(rk.InputError, match=r"another suite \(v1, not v2\)"):
        rk.gate(new, {"length": 0.1}, against=old)


@pytest.mark.parametrize("limits", [{}, {"lenght": 0.1}, {"length": 0.0}, {"length": float("nan")}, {"length": -1}])
def test_a_wrong_limit_is_refused(limits):
    with pytest.raises(rk.InputError):
        rk.gate(scored(0.0, 50), limits)


# --- for a build -----------------------------------------------------------------------------------------


def test_the_pytest_helper():
    rk.assert_effect_below(scored(0.0, 2000), "length", 0.1)
    with pytest.raises(AssertionError, match="shown too big"):
        rk.assert_effect_below(scored(0.5, 2000), "length", 0.1)
    with pytest.raises(AssertionError, match="would tell"):
        rk.assert_effect_below(scored(0.0, 60, seed=3, effect_sd=0.6), "length", 0.1)


def test_junit_and_markdown_say_what_the_gate_says_and_obey_no_text():
    name = "<b>rm & \x1b[31m|`"
    found = rk.gate(scored(0.5, 500, name=name), {"length": 0.1})
    root = ET.fromstring(found.junit.encode())
    assert root.attrib == {"tests": "1", "failures": "1", "errors": "0"}
    assert "shown too big" in root.find(".//failure").attrib["message"]
    assert "\x1b" not in found.junit
    assert "<b>" not in found.markdown
    assert "\x1b" not in found.markdown
    assert "| length |" in found.markdown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max", "lenght=0.1"], "did you mean 'length'"),
        (["--max", "length"], "write ATTRIBUTE=SD"),
        (["--max", "length=0.1", "--max", "length=0.2"], "two limits"),
        (["--max", "length=0.1", "--against", "few.jsonl"], "other rows"),
    ],
)
def test_a_wrong_call_is_one_line_and_2(tmp_path, monkeypatch, capsys, options, message):
    from ratekit.cli import main

    monkeypatch.chdir(tmp_path)
    for name, n in (("all", 40), ("few", 20)):
        scored(0.0, n).to_json(f"{name}.jsonl", orient="records", lines=True)
    assert main(["gate", "all.jsonl", *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]


SCRIPT = """
gate() { "$PYTHON" -m ratekit gate "$@" >out.txt 2>err.txt; echo $?; }
gate small.jsonl --max length=0.1 --junit gate.xml --summary gate.md
gate big.jsonl --max length=0.1
gate few.jsonl --max length=0.1
gate absent.jsonl --max length=0.1
gate small.jsonl --max length=0.1 --junit no-such-folder-is-a-file/gate.xml
"""


@pytest.mark.commands
def test_each_exit_code_in_a_shell_script(tmp_path):
    for name, rows in (
        ("small", scored(0.0, 2000)), ("big", scored(0.5, 500)), ("few", scored(0.0, 60, seed=3, effect_sd=0.6)),
    ):  # fmt: skip
        rows.to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)
    (tmp_path / "no-such-folder-is-a-file").write_text("")
    env = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=True
    )
    assert done.stdout.split() == ["0", "3", "4", "2", "2"]  # a place that cannot be written is refused before any work
    assert ET.parse(tmp_path / "gate.xml").getroot().attrib["tests"] == "1"
    assert "shown small" in (tmp_path / "gate.md").read_text()
    assert "Traceback" not in (tmp_path / "err.txt").read_text()
