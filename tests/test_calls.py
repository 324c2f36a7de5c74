"""A count, a seed or a name that is none is refused by what it is called, wherever a public function takes one."""

import inspect

import pytest
import torch

import ratekit as rk
from ratekit import merging, simulate
from ratekit.errors import InputError, require_whole
from ratekit.exercises import question
from ratekit.rewriting.batch import BatchChat
from ratekit.rewriting.local import LocalChat


@pytest.fixture(scope="module")
def scored():
    rows = [{"prompt": f"q{i}", "response": "good " * (i % 5 + 1) + str(i)} for i in range(24)]
    ds = rk.rewrite(rk.label(rk.load(rows), "length"), "length", "rules", progress=False)
    return rk.score(ds, ["words", "vader"], progress=False)


FLAT, SLOPED = {"w": torch.zeros(2)}, {"w": torch.ones(2)}


def total(state):
    return float(state["w"].sum())


CALLS = {
    "load n": lambda ds, v: rk.load(ds, n=v),
    "load seed": lambda ds, v: rk.load(ds, n=3, seed=v),
    "load max_characters": lambda ds, v: rk.load(ds, max_characters=v),
    "rewrite depth": lambda ds, v: rk.rewrite(ds, "length", "rules", depth=v),
    "audit n": lambda ds, v: rk.audit(ds, "words", n=v),
    "audit seed": lambda ds, v: rk.audit(ds, "words", n=3, seed=v),
    "audit depth": lambda ds, v: rk.audit(ds, "words", "length", rewriter="rules", depth=v),
    "audit two_phase": lambda ds, v: rk.audit(ds, "words", "length", rewriter="rules", two_phase=v),
    "estimate draws": lambda ds, v: rk.estimate(ds, uncertainty="bootstrap", draws=v),
    "estimate seed": lambda ds, v: rk.estimate(ds, uncertainty="bootstrap", seed=v),
    "contrast sd_pass": lambda ds, v: rk.contrast(ds, "words", "vader", sd_pass=v),
    "dose_response bins": lambda ds, v: rk.dose_response(ds, bins=v),
    "discover rounds": lambda ds, v: rk.discover("words", ds, rounds=v),
    "discover per_round": lambda ds, v: rk.discover("words", ds, per_round=v),
    "discover n_screen": lambda ds, v: rk.discover("words", ds, n_screen=v),
    "discover n_confirm": lambda ds, v: rk.discover("words", ds, n_confirm=v),
    "discover seed": lambda ds, v: rk.discover("words", ds, seed=v),
    "card seed": lambda ds, v: rk.card("words", ds, seed=v),
    "AuditCallback every": lambda ds, v: rk.AuditCallback("words", ds, every=v),
    "AuditCallback seed": lambda ds, v: rk.AuditCallback("words", ds, seed=v),
    "effects top": lambda ds, v: rk.plots.effects(rk.estimate(ds), top=v),
    "heatmap top": lambda ds, v: rk.plots.heatmap(rk.estimate(ds), top=v),
    "densities depth": lambda ds, v: rk.plots.densities(ds, "words", depth=v),
    "RuleRewriter seed": lambda ds, v: rk.RuleRewriter("length", seed=v),
    "LLMJudge repeats": lambda ds, v: rk.LLMJudge(lambda conversations: [], repeats=v),
    "OpenAIChat concurrency": lambda ds, v: rk.OpenAIChat("m", concurrency=v),
    "OpenAIChat max_retries": lambda ds, v: rk.OpenAIChat("m", max_retries=v),
    "OpenAIChat max_tokens": lambda ds, v: rk.OpenAIChat("m", max_tokens=v),
    "BatchChat max_requests": lambda ds, v: BatchChat("m", "batches", max_requests=v),
    "LocalChat max_tokens": lambda ds, v: LocalChat("m", max_tokens=v),
    "LocalChat at_once": lambda ds, v: LocalChat("m", at_once=v),
    "calibrate n": lambda ds, v: simulate.calibrate("words", n=v),
    "calibrate seed": lambda ds, v: simulate.calibrate("words", n=20, seed=v),
    "sweep seed": lambda ds, v: simulate.sweep("vowel-typos", "words", n=20, seed=v),
    "TextWorld.sample n": lambda ds, v: simulate.TextWorld().sample(v),
    "NumericWorld.sample n": lambda ds, v: simulate.NumericWorld().sample(v),
    "NumericWorld.sample depth": lambda ds, v: simulate.NumericWorld().sample(9, depth=v),
    "question seed": lambda ds, v: question(v),
    "merge seed": lambda ds, v: merging.merge([FLAT, SLOPED], "linear", seed=v),
    "barrier n": lambda ds, v: merging.barrier(FLAT, SLOPED, total, n=v),
    "bezier steps": lambda ds, v: merging.bezier(FLAT, SLOPED, total, steps=v),
    "convexity n": lambda ds, v: merging.convexity([FLAT, SLOPED], total, n=v),
    "directedness n": lambda ds, v: merging.directedness([FLAT, SLOPED], FLAT, total, n=v),
}


@pytest.mark.parametrize("value", [-1, 2.5, "3", float("nan"), True], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_count_is_refused_by_its_name(scored, call, value):
    name = call.rsplit(maxsplit=1)[-1]
    with pytest.raises(InputError, match=rf"^{name}={value!r}: a whole number from "):
        CALLS[call](scored, value)


NUMBERS = {
    "a text world's confounding": lambda v: simulate.TextWorld(confounding=v),
    "a text world's noise": lambda v: simulate.TextWorld(rewriter=simulate.Imperfections(noise=v)),
    "a world's confounding": lambda v: simulate.NumericWorld(confounding=v),
    "a world's icc": lambda v: simulate.NumericWorld(icc=v),
    "grace": lambda v: rk.OpenAIChat("m", grace=v),
    "timeout": lambda v: rk.OpenAIChat("m", timeout=v),
    "a scale's end": lambda v: rk.Scale(v, 10),
    "a weight": lambda v: merging.combine([FLAT, SLOPED], [1.0, v]),
    "a place on a line": lambda v: merging.line_state(FLAT, SLOPED, v),
    "precision": lambda v: rk.card("words", "reviews", precision=v),
    "fdr": lambda v: rk.discover("words", "reviews", fdr=v),
    "memory": lambda v: merging.merge([FLAT, SLOPED], "linear", memory=v),
    "tolerance": lambda v: merging.zero_effect(merging.line(FLAT, SLOPED), total, tolerance=v),
}


@pytest.mark.parametrize("call", NUMBERS)
def test_nan_is_no_number_of_any_setting(call):
    with pytest.raises(InputError, match=r"expected"):
        NUMBERS[call](float("nan"))


def test_the_ends_are_counts():
    require_whole("n", 1, 1)
    require_whole("depth", 7, 1, 7)
    with pytest.raises(InputError, match=r"depth=8: a whole number from 1 to 7 was expected"):
        require_whole("depth", 8, 1, 7)
    assert inspect.signature(require_whole).parameters["least"].default == 0


@pytest.mark.parametrize(
    ("name", "what"), [("a\0b", "holds a NUL"), ("\ud800", "holds half of a surrogate"), (5, "is no text")]
)
def test_a_name_that_no_table_can_have_is_refused_before_any_work(scored, name, what):
    asked = []

    def counting(prompts, responses):
        asked.extend(responses)
        return [0.0] * len(responses)

    with pytest.raises(InputError, match=f"the reward's name .* {what}"):
        rk.score(scored, {name: counting})
    with pytest.raises(InputError, match=f"the reward's name .* {what}"):
        rk.audit(scored, {name: counting})
    with pytest.raises(InputError, match=f"the attribute's name .* {what}"):
        rk.Attribute(name, "longer", "shorter")
    if isinstance(name, str):
        with pytest.raises(InputError, match=f"the rewriter's name .* {what}"):
            rk.audit(scored, "words", "length", rewriter={name: "rules", "b": "rules:seed=1"})
    assert not asked
