"""Merges of folders against mergekit's own run of them: every method, those that draw with the same draws."""

from __future__ import annotations

import pytest
import tiny

import ratekit as rk
from ratekit.merging.methods import METHODS

torch = pytest.importorskip("torch")
pytest.importorskip("mergekit")

OURS = {"soup": "linear"}  # theirs by another name
CASES = {
    "linear": {"weight": [1.0, 2.5]},
    "soup": {},
    "nuslerp": {"weight": [0.3, 0.7]},
    "multislerp": {"weight": [0.3, 0.7]},
    "task_arithmetic": {"weight": [0.5, 0.25], "lambda_": 1.5},
    "ties": {"weight": [0.5, 0.25], "density": 0.4},
    "dare_linear": {"weight": [0.5, 0.25], "density": 0.4},
    "dare_ties": {"weight": [0.5, 0.25], "density": 0.4},
    "della": {"weight": [0.5, 0.25], "density": 0.4},
    "della_linear": {"weight": [0.5, 0.25], "density": 0.4},
    "breadcrumbs": {"weight": [0.5, 0.25], "density": 0.8},
    "breadcrumbs_ties": {"weight": [0.5, 0.25], "density": 0.8},
    "sce": {"select_topk": 0.6},
    "slerp": {"t": 0.3},
    "nearswap": {"t": 0.01},
    "passthrough": {"scale": 0.9},
}
KINDS = [*tiny.DECODERS, *tiny.ENCODERS]


def kit(models, base, method, given, out):
    """What mergekit's own command makes of these folders, read back."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    params = dict(given)
    weights = params.pop("weight", None)
    given = {"lambda" if k == "lambda_" else k: v for k, v in params.items()}
    told = [{"model": m, **({"parameters": {"weight": w}} if weights else {})}
            for m, w in zip(models, weights or [0] * len(models), strict=True)]  # fmt: skip
    config = {"merge_method": method, "models": told, "parameters": given, "dtype": "float32"}
    if base:
        config["base_model"] = base
    options = MergeOptions(copy_tokenizer=False, quiet=True, allow_crimes=True, trust_remote_code=False)
    run_merge(MergeConfiguration.model_validate(config), str(out), options)
    return rk.merging.load_state(out)


@pytest.fixture
def same_draws(monkeypatch):
    """Draws that are the same wherever and whenever a tensor of that shape is drawn for."""

    def drawn(p, *args, **options):
        generator = torch.Generator().manual_seed(p.numel())
        return (torch.rand(p.shape, generator=generator, dtype=torch.float64) < p).to(p.dtype)

    monkeypatch.setattr(torch, "bernoulli", drawn)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_mergekits_own_run(kind, tmp_path, same_draws):
    root = {}
    for seed, name in enumerate(("base", "a", "b")):
        tiny.save(tmp_path / name, kind, seed=0)
        state = rk.merging.load_state(tmp_path / name)
        g = torch.Generator().manual_seed(seed)
        near = {n: t + 0.05 * seed * torch.randn(t.shape, generator=g) if t.is_floating_point() else t
                for n, t in state.items()}  # fmt: skip
        root[name] = str(rk.merging.save_state(near, tmp_path / f"{name}-near", like=tmp_path / name))
    worst = {}
    for name, method in METHODS.items():
        if name == "wise_ft":
            continue
        models = [root["a"], root["b"]][: method.models[1] or 2]
        base = root["base"] if method.base == "needed" else None
        params = {k: v for k, v in method.parameters.items() if v is not None} | CASES.get(name, {})
        if "weight" in method.parameters and not isinstance(params.get("weight"), list):
            params["weight"] = [0.5, 0.5][: len(models)]
        theirs_base = base or (root["a"] if method.pair and name != "nuslerp" else None)
        given = params | ({"weight": [1, 1]} if name == "soup" else {})
        theirs = kit(models, theirs_base, OURS.get(name, name), given, tmp_path / "kit" / name)
        ours = rk.merging.merge(models, name, base, **params)
        assert {*theirs} == {*ours}, name
        # A tensor of one element is merged by a rule of its own (methods.py).
        several = [n for n, t in ours.items() if t.numel() > 1 and t.is_floating_point()]
        worst[name] = max(float((ours[n] - theirs[n]).abs().max()) for n in several)
        base_state = rk.merging.load_state(root["a"])
        assert any(not torch.equal(ours[n], base_state[n]) for n in several), name  # the control: something was merged
    assert {name: d for name, d in worst.items() if not d < 1e-6} == {}


def test_defaults_are_mergekits():
    from mergekit.merge_methods import registered_methods

    meant = {"weight", "density"}  # which mergekit asks for, or sets so that the method does nothing
    for theirs in registered_methods():
        spec = theirs.spec
        ours = METHODS[spec.name].parameters
        for parameter in spec.parameters:
            name = "lambda_" if parameter.name == "lambda" else parameter.name
            if name in ours and name not in meant and not parameter.required and parameter.default is not None:
                assert ours[name] == parameter.default, (spec.name, name)
