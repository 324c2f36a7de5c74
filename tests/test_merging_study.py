"""The study's world is as it says, and what it measures by a short way is what ratekit measures."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import ROOT

pytest.importorskip("torch")
STUDY = ROOT / "experiments" / "merging"


@pytest.fixture(scope="module")
def study():
    """The study's modules, whose plain names are good for this test alone."""
    sys.path.insert(0, str(STUDY))
    before = set(sys.modules)
    import bench
    import members
    import models
    import world

    yield {"bench": bench, "members": members, "models": models, "world": world}
    sys.path.remove(str(STUDY))
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(STUDY)):
            del sys.modules[name]


def test_a_rewrite_changes_its_attribute_and_mends_once(study):
    world = study["world"]
    rng = np.random.default_rng(0)
    mended = 0
    for review in world.sample(200, seed=3):
        for attribute in world.ATTRIBUTES:
            treated = review.has(attribute)
            first = world.rewritten(review, attribute, not treated, rng)
            second = world.rewritten(first, attribute, treated, rng)
            assert first.has(attribute) is not treated
            assert second.has(attribute) is treated
            if attribute != "quality":
                others = {"length", "style"} - {attribute}
                assert all(first.has(a) == second.has(a) == review.has(a) for a in others)
                assert first.quality == second.quality, "what is mended stays mended"
                mended += first.quality > review.quality
    assert mended > 50, "and it does mend"


def test_rate_finds_the_planted_effect_where_naive_does_not(study):
    import ratekit as rk

    world = study["world"]
    bias = world.Bias(style=2.5)

    def utility(prompts, responses):
        found = []
        for text in responses:
            words = text.split()
            quality = sum(w in world.PRAISE for w in words) - sum(w in world.BLAME for w in words)
            found.append(quality + bias.style * (2 * (words[-1:] == [world.MARK]) - 1))
        return np.array(found)

    style = rk.estimate(rk.score(world.rate_dataset(400, 5, "style"), utility, name="u", progress=False))
    ate = style[style["estimand"] == "ate"].set_index("estimator")["estimate"]
    assert ate["rate"] == pytest.approx(5.0)  # from -2.5 to +2.5; quality is as it was
    length = rk.estimate(rk.score(world.rate_dataset(400, 6, "length"), utility, name="u", progress=False))
    ate = length[length["estimand"] == "ate"].set_index("estimator")["estimate"]
    assert ate["rate"] == pytest.approx(0.0, abs=1e-9)
    assert ate["naive"] > 1.0


def test_the_bench_measures_what_an_instrument_does(study):
    from ratekit.merging import Instrument

    of, state = study["bench"], study["models"].fresh(3)
    bench = of.Bench(40, seed=1, pairs=50)
    pairs = study["world"].preference_texts(50, 999, confounded=False)
    instrument = Instrument(lambda state: of.of_texts(of.reward_of(state)), bench.dataset(), pairs)
    ours, theirs = bench(state), instrument(state)
    for name, e in theirs.items():
        # The untrained model's rewards differ by a thousandth of their size, so float32 leaves four digits.
        assert tuple(ours[name]) == pytest.approx(tuple(e), rel=1e-3, abs=1e-4), name
        assert bench.metric(name)(state) == pytest.approx(e.value, rel=1e-3, abs=1e-4)


def test_what_was_trained_is_not_trained_again(study, tmp_path, monkeypatch):
    models, world = study["models"], study["world"]
    cache, pairs, start = models.Cache(tmp_path), world.preferences(80, seed=1), models.fresh(0)
    first = cache.train("m", start, pairs, 3, seed=0)
    trained = models.train
    monkeypatch.setattr(models, "train", lambda *a, **k: pytest.fail("trained again"))
    again = cache.train("m", dict(reversed(start.items())), pairs, 3, seed=0)
    assert all((first[k] == again[k]).all() for k in first)
    monkeypatch.setattr(models, "train", trained)
    other = cache.train("m", start, pairs, 3, seed=1)
    assert any((first[k] != other[k]).any() for k in first)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_every_prediction_has_its_rule():
    text = (STUDY / "PREDICTIONS.md").read_text()
    rules = (STUDY / "verdicts.py").read_text()
    numbers = [int(line.split(".")[0]) for line in text.splitlines() if line.split(".")[0].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(f"\n    {n}: (" in rules for n in numbers)


@pytest.mark.slow
def test_the_whole_study_runs_and_goes_on_where_it_was(study, tmp_path, monkeypatch):
    pytest.importorskip("mergekit")
    import study as command

    smallest = study["members"].Size(2, 120, 12, 12, 12, 6, 24, 16, 40, 3, 3, (0, 6), 1)
    out = tmp_path / "out"
    command.run(smallest, tmp_path / "cache", out, progress=False)
    text = (out / "results.md").read_text()
    assert "## Predictions:" in text
    assert {p.name for p in out.glob("*.png")} == {"paths.png", "merges.png", "zeros.png"}
    tables = {p.name: p.read_bytes() for p in out.glob("*.csv")}
    assert len(tables) == 8
    (out / "probes.csv").unlink()
    command.run(smallest, tmp_path / "cache", out, resume=True, progress=False)
    assert {p.name: p.read_bytes() for p in out.glob("*.csv")} == tables
