"""Metrics of state dicts and the audit: held against the pipeline itself, and against what must be true of a line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
from conftest import ROOT

import ratekit as rk
from ratekit.cli import main
from ratekit.errors import InputError, WorkError
from ratekit.measures import words
from ratekit.merging import taxonomy
from ratekit.merging.learned import LEARNED, _grams, learned
from ratekit.merging.methods import METHODS

torch = pytest.importorskip("torch")


def features(responses):
    """Length, how often it says 'good' words rather than 'bad' ones, commas; quick to count."""
    kind = [
        sum(r.count(g) for g in ("good", "love", "gre")) - sum(r.count(b) for b in ("n't", "bad", "not"))
        for r in responses
    ]
    return np.stack([words(responses) / 50, kind, [r.count(",") for r in responses]], axis=1)


class Linear:
    """Rewards that are linear in the weights: what makes an effect lie on the chord."""

    fingerprint = "linear"

    def __init__(self, fail_after=None):
        self.made, self.fail_after = 0, fail_after

    def __call__(self, state):
        self.made += 1
        if self.fail_after is not None and self.made > self.fail_after:
            raise KeyboardInterrupt
        w = state["w"].double().numpy()
        return lambda prompts, responses: features(responses) @ w


def weights(*values):
    return {"w": torch.tensor(values, dtype=torch.float64)}


MODELS = {"long": weights(1.0, 0.2, 0.0), "kind": weights(-0.3, 1.0, 0.1)}
BASE = weights(0.1, 0.5, 0.0)


@pytest.fixture(scope="module")
def data():
    from datasets import concatenate_datasets

    columns = ["prompt_id", "prompt", "response", "attribute", "treated", "rewrites"]
    both = [rk.load("reviews", attribute=a).select(range(60)).select_columns(columns) for a in ("length", "sentiment")]
    return concatenate_datasets(both)


@pytest.fixture(scope="module")
def pairs():
    ds = rk.load("reviews", attribute="sentiment")
    sides = [
        [r for r, t in zip(ds["response"], ds["treated"], strict=True) if t is side][:40] for side in (True, False)
    ]
    return [{"prompt": f"Review {i}", "chosen": c, "rejected": r} for i, (c, r) in enumerate(zip(*sides, strict=True))]


# --- metrics -------------------------------------------------------------------------------------------------


def test_an_effect_of_a_state_dict_is_the_pipelines(data):
    scored = rk.score(data, Linear()(MODELS["long"]), name="long", progress=False)
    table = rk.standardize(rk.estimate(scored))
    for attribute in ("length", "sentiment"):
        row = table[(table.attribute == attribute) & (table.estimator == "rate") & (table.estimand == "att")].iloc[0]
        metric = rk.merging.effect_metric(Linear(), data, attribute, estimand="att")
        assert metric(MODELS["long"]) == pytest.approx(row.estimate, rel=1e-12)
        assert metric.estimate(MODELS["long"]) == pytest.approx((*row[["estimate", "se", "ci_low", "ci_high"]], row.n))


def test_loss_and_accuracy_by_hand(pairs):
    frame = pd.DataFrame(pairs)
    for state in (*MODELS.values(), weights(0.0, 0.0, 0.0)):
        chosen, rejected = (Linear()(state)(None, list(frame[side])) for side in ("chosen", "rejected"))
        m = chosen - rejected
        accuracy = np.where(m == 0, 0.5, m > 0).mean()
        assert rk.merging.loss_metric(Linear(), pairs)(state) == pytest.approx(np.log1p(np.exp(-m)).mean())
        assert rk.merging.accuracy_metric(Linear(), frame)(state) == pytest.approx(accuracy)


def test_an_instrument_reads_everything_off_one_scoring(data, pairs):
    linear = Linear()
    found = rk.merging.Instrument(linear, data, pairs)(MODELS["kind"])
    assert linear.made == 1
    assert list(found) == ["loss", "accuracy", "effect/length", "effect/sentiment"]
    assert found["effect/length"].value == rk.merging.effect_metric(linear, data, "length")(MODELS["kind"])


def test_a_linear_rewards_effect_lies_on_the_chord(data):
    measure = rk.merging.Instrument(Linear(), data, unit="reward")
    a, b = (measure(m) for m in MODELS.values())
    for t in (-0.5, 0.25, 0.5, 2.0):
        between = measure(rk.merging.line_state(*MODELS.values(), t))
        for name in measure.names:
            chord = (1 - t) * a[name].value + t * b[name].value
            assert between[name].value == pytest.approx(chord, abs=1e-12)
    in_sds = rk.merging.Instrument(Linear(), data)  # the control: divided by an SD that is not linear, it does not
    ends = [in_sds(m)["effect/length"].value for m in MODELS.values()]
    half = in_sds(rk.merging.line_state(*MODELS.values(), 0.5))["effect/length"].value
    assert abs(half - np.mean(ends)) > 0.05


def test_a_folder_says_how_a_state_dict_is_read(data, tmp_path):
    a, b = (tiny.save(tmp_path / name, "bert", seed=seed) for seed, name in enumerate("ab"))
    other = rk.merging.load_state(b)
    texts = ["Why?"] * 3, ["Because.", "No idea.", "Because air scatters blue light more than red."]
    assert np.allclose(rk.merging.reward_from(a)(other)(*texts), rk.scoring.make_reward(b)(*texts), atol=1e-6)
    assert not np.allclose(rk.merging.reward_from(a)(other)(*texts), rk.scoring.make_reward(a)(*texts), atol=1e-3)
    short = {n: t for n, t in other.items() if n != "classifier.weight"}
    with pytest.raises(InputError, match=r"does not hold all weights .*classifier\.weight"):
        rk.merging.reward_from(a)(short)


def test_the_first_state_is_probed_whole_and_the_next_ones_on_three_texts(tmp_path, monkeypatch):
    from ratekit.scoring.forward import Forward

    folders = [tiny.save(tmp_path / name, "bert", seed=seed) for seed, name in enumerate("abc")]
    states = [rk.merging.load_state(folder) for folder in folders]
    compared, check, differs = [], Forward.check, Forward._differs

    def spied(self, texts, name):
        compared.append((len(texts), self.wanted))
        check(self, texts, name)

    monkeypatch.setattr(Forward, "check", spied)
    reward_of = rk.merging.reward_from(folders[0])
    texts = ["Why?"] * 2, ["Because.", "No idea."]
    for folder, state in zip(folders[:2], states, strict=False):
        assert np.allclose(reward_of(state)(*texts), rk.scoring.make_reward(folder)(*texts), atol=1e-6)
    assert compared[0][0] > 9
    assert compared[0][1] == "auto"
    assert compared[2] == (3, "packed")

    def only_whole(self, texts, alone):  # these weights need another path: all is tried again
        return "they differ" if self.path == "packed" else differs(self, texts, alone)

    monkeypatch.setattr(Forward, "_differs", only_whole)
    assert reward_of(states[2]).forward.path == "padded"
    assert compared[-1] == compared[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"prompt": "x", "chosen": "a"}], "no column 'response'"),
        ([{"prompt": "x", "chosen": "a", "rejected": " "}], "a chosen and a rejected response to each prompt"),
        ([], "the preference pairs: no rows"),
    ],
)
def test_pairs_are_checked(given, said):
    with pytest.raises(InputError, match=said):
        rk.merging.loss_metric(Linear(), given)


def test_pairs_may_be_conversations():
    from ratekit.merging.metrics import read_pairs

    turn = {"role": "user", "content": "Hi"}
    sides = [[turn, {"role": "assistant", "content": text}] for text in ("Hello!", "Go away.")]
    assert read_pairs([{"chosen": sides[0], "rejected": sides[1]}]) == [([turn], "Hello!", "Go away.")]


def test_what_cannot_be_measured_is_said(data):
    with pytest.raises(InputError, match="unknown attribute in the dataset 'lenght'; did you mean 'length'"):
        rk.merging.effect_metric(Linear(), data, "lenght")
    with pytest.raises(InputError, match="nothing to measure"):
        rk.merging.Instrument(Linear())
    with pytest.raises(InputError, match="no column 'rewrites'"):
        rk.merging.Instrument(Linear(), data.remove_columns(["rewrites"]))


# --- the audit -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(data, pairs):
    methods = {"linear": "linear", "tilted": "linear:weight=3;1", "elsewhere": weights(0.0, 0.0, 1.0)}
    return rk.merging.audit(
        MODELS, data, methods, base=BASE, pairs=pairs, reward_of=Linear(), unit="reward", progress=False
    ).set_index("model")


def test_the_audit_has_a_row_for_everything(table):
    kinds = ["member", "member", "base", "best_single", "ensemble", "merge", "merge", "merge"]
    assert table.kind.tolist() == kinds
    assert table.index.tolist() == ["long", "kind", "base", "best single", "ensemble", "linear", "tilted", "elsewhere"]
    assert table.loc["best single", "note"] == table.loc[["long", "kind"], "accuracy"].idxmax()
    assert table.loc["best single", "accuracy"] == table.loc[["long", "kind"], "accuracy"].max()
    for column in ("accuracy", "barrier", "length", "length_se", "length - kind_p_adjusted", "sentiment - long_ci_low"):
        assert column in table
    assert np.isnan(table.loc["ensemble", "loss"])
    assert np.isnan(table.loc["long", "length - long"])


def test_the_audits_numbers_are_the_pipelines(table, data, pairs):
    merged = rk.merging.merge(MODELS, "linear", weight=[3, 1])
    ds = data
    for name, state in {**MODELS, "tilted": merged}.items():
        ds = rk.score(ds, Linear()(state), name=name, progress=False)
    effects = rk.estimate(ds, rewards=["tilted"])
    rate = effects[(effects.estimator == "rate") & (effects.estimand == "ate")].set_index("attribute")
    against = rk.contrast(ds, "tilted", "kind", unit="reward")
    against = against[against.estimand == "ate"].set_index("attribute")
    for attribute in ("length", "sentiment"):
        assert table.loc["tilted", attribute] == pytest.approx(rate.loc[attribute, "estimate"])
        assert table.loc["tilted", f"{attribute}_se"] == pytest.approx(rate.loc[attribute, "se"])
        for end in ("", "_se", "_ci_low", "_ci_high"):
            column = "estimate" if not end else end[1:]
            assert table.loc["tilted", f"{attribute} - kind{end}"] == pytest.approx(against.loc[attribute, column])
    assert table.loc["tilted", "loss"] == pytest.approx(rk.merging.loss_metric(Linear(), pairs)(merged))


def test_on_the_chord_and_without_a_barrier(table):
    half = (table.loc["long"] + table.loc["kind"])[["length", "sentiment"]] / 2
    assert np.allclose(table.loc["linear", ["length", "sentiment"]].astype(float), half.astype(float))
    assert (table.drop(["ensemble"]).barrier < 1e-9).all()  # the loss is convex in these weights


def test_the_ensembles_row_is_the_mean_of_standardised_rewards(table, data):
    joint = 0.0
    for state in MODELS.values():
        reward = Linear()(state)
        original = np.asarray(reward(None, data["response"]))
        chains = [(r, *more) for r, more in zip(data["response"], data["rewrites"], strict=True)]
        joint = joint + np.array([reward(None, chain) for chain in chains]) / original.std(ddof=1) / 2
    ds = data.add_column("reward/e", joint.tolist())
    effects = rk.estimate(ds)
    rate = effects[(effects.estimator == "rate") & (effects.estimand == "ate")].set_index("attribute")
    for attribute in ("length", "sentiment"):
        assert table.loc["ensemble", attribute] == pytest.approx(rate.loc[attribute, "estimate"])


def test_a_barrier_is_seen_where_there_is_one(data, pairs):
    chosen = {pair["chosen"] for pair in pairs}

    class Bent(Linear):
        """The weight's sign does not matter, so that the average of a model and its mirror image knows nothing."""

        def __call__(self, state):
            w = float(state["w"][0]) ** 2
            return lambda prompts, responses: (
                w * np.array([float(r in chosen) for r in responses]) + 1e-3 * words(responses)
            )

    mirror = {"a": weights(2.0), "b": weights(-2.0)}
    table = rk.merging.audit(mirror, data, pairs=pairs, reward_of=Bent(), progress=False).set_index("model")
    height = rk.merging.barrier(*mirror.values(), rk.merging.loss_metric(Bent(), pairs), n=5)
    assert height > 0.5
    assert table.loc["a", "barrier"] == table.loc["b", "barrier"] == pytest.approx(height)
    # On the way down from the average to a member the loss stays over the chord or not, but never as high as between.
    assert table.loc["linear", "barrier"] < height / 2


@pytest.mark.commands
def test_an_audit_that_was_cut_off_goes_on(data, pairs, tmp_path):
    data, wanted = data.select([*range(12), *range(60, 72)]), {"linear": "linear", "soup": "soup"}
    settings = dict(base=BASE, pairs=pairs[:8], out=tmp_path, progress=False, barrier_points=1)
    whole = Linear()
    expected = rk.merging.audit(MODELS, data, wanted, reward_of=whole, **{**settings, "out": None})
    cut = Linear(fail_after=whole.made // 2)
    with pytest.raises(KeyboardInterrupt):
        rk.merging.audit(MODELS, data, wanted, reward_of=cut, **settings)
    assert not (tmp_path / "audit.csv").exists()
    rest = Linear()
    table = rk.merging.audit(MODELS, data, wanted, reward_of=rest, **settings)
    assert cut.made - 1 + rest.made == whole.made
    pd.testing.assert_frame_equal(table, expected)
    again = Linear(fail_after=0)  # nothing is left to do
    pd.testing.assert_frame_equal(rk.merging.audit(MODELS, data, wanted, reward_of=again, **settings), expected)
    other = Linear()  # other weights have other scores, under the same names
    rk.merging.audit({**MODELS, "kind": weights(0.0, 1.0, 0.0)}, data, wanted, reward_of=other, **settings)
    assert other.made > 0
    assert {"audit.csv", "audit.json", "scores"} == {p.name for p in tmp_path.iterdir()}


def test_a_method_that_fails_leaves_a_row_with_a_note(data, monkeypatch, tmp_path):
    from ratekit.merging import mergers

    def failing(self, progress=False):
        raise WorkError("ties gave NaN for w")

    kept = mergers.MergePlan.tensors
    monkeypatch.setattr(
        mergers.MergePlan,
        "tensors",
        lambda self, progress=False: (failing if self.method.name == "soup" else kept)(self),
    )
    table = rk.merging.audit(MODELS, data, ["soup", "linear"], reward_of=Linear(), out=tmp_path, progress=False)
    table = table.set_index("model")
    assert table.loc["soup", "note"] == "ties gave NaN for w"
    assert np.isnan(table.loc["soup", "length"])
    assert np.isfinite(table.loc["linear", "length"])


def test_a_member_that_rewards_nothing_is_told_and_the_rest_is_kept(data, pairs):
    models = {**MODELS, "flat": weights(0.0, 0.0, 0.0)}
    table = rk.merging.audit(models, data, pairs=pairs, reward_of=Linear(), barrier_points=0, progress=False)
    table = table.set_index("model")
    assert table.loc["ensemble", "note"].startswith("the rewards of model 3 do not vary")
    assert table.loc["flat", "accuracy"] == 0.5
    assert np.isnan(table.loc["flat", "length"])
    assert np.isfinite(table.loc["linear", "length"])


@pytest.mark.parametrize(("treated", "estimand"), [(True, "att"), (False, "atu")])
def test_one_sided_rows_have_the_effect_on_their_own_side(treated, estimand, data, pairs):
    """As the published double rewrites are: every response on one side of the attribute."""
    one = data.filter(lambda t, a: t is treated and a == "length", input_columns=["treated", "attribute"])
    table = rk.merging.audit(MODELS, one, pairs=pairs, reward_of=Linear(), unit="reward", progress=False)
    table = table.set_index("model")
    assert set(table["length_estimand"].dropna()) == {estimand}
    ds = rk.score(one, Linear()(MODELS["long"]), name="long", progress=False)
    effects = rk.estimate(ds)
    wanted = effects[(effects.estimator == "rate") & (effects.estimand == estimand)].iloc[0]
    assert table.loc["long", "length"] == pytest.approx(wanted.estimate)
    assert table["accuracy"].notna().all()
    assert np.isfinite(table.loc["linear", "length - kind"])


def test_what_cannot_be_had_is_said_before_anything_is_scored(data, pairs):
    linear = Linear()
    one = data.filter(lambda t: t, input_columns=["treated"])
    bare = data.map(lambda row: {"rewrites": row["rewrites"][:1]})
    for rows, options, said in (
        (one, {"estimand": "ate"}, "length: rate has no ate here"),
        (one, {"estimator": "naive"}, "naive has no"),
        (bare, {}, "rate has no ate here"),
    ):
        with pytest.raises(InputError, match=said):
            rk.merging.audit(MODELS, rows, pairs=pairs, reward_of=linear, **options)
    assert linear.made == 0
    # One attribute that has no effect leaves the other, and accuracy and loss, as they are.
    both = data.filter(lambda t, a: t or a == "length", input_columns=["treated", "attribute"])
    table = rk.merging.audit(
        MODELS, both, pairs=pairs, reward_of=linear, estimand="ate", barrier_points=0, progress=False
    )
    assert table["length"].notna().all()
    assert table["sentiment"].isna().all()
    assert table["accuracy"].notna().all()
    assert table["note"].str.contains("sentiment: rate has no ate here").all()


def test_only_what_failed_is_blank(data, pairs):
    mute = {text for row in data if row["attribute"] == "sentiment" for text in row["rewrites"]}

    class Silent(Linear):
        """Scores no rewrite of one attribute."""

        def __call__(self, state):
            reward = super().__call__(state)
            return lambda p, r: np.where([x in mute for x in r], np.nan, reward(p, r))

    table = rk.merging.audit(MODELS, data, pairs=pairs, reward_of=Silent(), barrier_points=0, progress=False)
    table = table.set_index("model")
    assert table["sentiment"].isna().all()
    assert table.loc[["long", "kind", "linear"], ["length", "accuracy", "loss"]].notna().all(axis=None)
    assert "sentiment: no effect can be estimated" in table.loc["linear", "note"]
    only = data.filter(lambda a: a == "sentiment", input_columns=["attribute"])
    with pytest.raises(WorkError, match=r"nothing could be measured: .*sentiment"):
        rk.merging.audit(MODELS, only, reward_of=Silent(), progress=False)


def test_a_wrong_call_is_refused_before_anything_is_scored(data, pairs, tmp_path):
    linear = Linear()
    calls = [
        (({"a": MODELS["long"]}, data), {}, "at least two models"),
        ((MODELS, data, ["ties"]), {}, r"ties needs base=|pip install"),
        ((MODELS, data, ["linnear"]), {}, "did you mean 'linear'"),
        ((MODELS, data, ["linear:weight=1;2;3"]), {}, "3 weights for 2 models"),
        ((MODELS, data, {"kind": "linear"}), {}, "'kind' is the name of a row already"),
        (({"base": MODELS["long"], "b": BASE}, data), {}, "'base' is the name of a row already"),
        ((MODELS, data, ["linear"], ["style"]), {}, "unknown attribute"),
        ((MODELS, data), {"out": __file__}, "is a file"),
    ]
    for args, options, said in calls:
        with pytest.raises(InputError, match=said):
            rk.merging.audit(*args, reward_of=linear, **options)
    with pytest.raises(InputError, match="state dicts alone do not say"):
        rk.merging.audit(MODELS, data)
    assert linear.made == 0


# --- the command ---------------------------------------------------------------------------------------------


@pytest.mark.commands
def test_the_command_merges_and_audits(tmp_path, data, pairs, capsys):
    for seed, name in enumerate(("base", "a", "b")):
        tiny.save(tmp_path / name, "bert", seed=seed)
    a, b, base = (str(tmp_path / name) for name in ("a", "b", "base"))
    assert main(["merge", a, b, "-m", "wise_ft:alpha=0.3", "--base", base, "--out", str(tmp_path / "merged")]) == 0
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["parameters"] == {"alpha": 0.3}
    data.select([*range(8), *range(60, 68)]).save_to_disk(tmp_path / "data")
    pd.DataFrame(pairs[:6]).to_json(tmp_path / "pairs.jsonl", orient="records", lines=True)
    call = ["merge", "audit", a, b, "--data", str(tmp_path / "data"), "--pairs", str(tmp_path / "pairs.jsonl"),
            "-m", "linear", "--out", str(tmp_path / "audit"), "--barrier-points", "1", "--format", "json"]  # fmt: skip
    capsys.readouterr()
    assert main(call) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert [row["model"] for row in rows] == ["a", "b", "best single", "ensemble", "linear"]
    assert "audit" in said.err  # the bar
    assert (tmp_path / "audit" / "audit.png").stat().st_size > 10_000
    assert pd.read_csv(tmp_path / "audit" / "audit.csv")["length"].tolist() == [row["length"] for row in rows]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["a", "b", "-m", "tie", "--out", "x"], "unknown merge method 'tie'"),
        (["nowhere", "b", "-m", "soup", "--out", "x"], "the model folder nowhere is not there"),
        (["a"], "Missing option"),
        ([], "Missing command"),
    ],
)
def test_the_command_says_on_one_line_what_is_wrong(call, said, capsys):
    assert main(["merge", *call]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_methods_are_listed(capsys):
    assert main(["merge", "methods", "--format", "json"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)] == [*METHODS, *LEARNED]


# --- names ---------------------------------------------------------------------------------------------------


def test_the_taxonomy_names_every_method_and_nothing_else():
    techniques = [t for of in rk.TAXONOMY.values() for t in of]
    named = {t.here.split('"')[1] for t in techniques if '"' in t.here}
    assert named | {"wise_ft", "linear", "passthrough"} >= set(METHODS)
    assert named <= set(METHODS)
    public = dir(rk.merging)
    for here in [t.here for t in techniques] + [a.here for a in taxonomy.ASPECTS.values()]:
        assert not here or here.startswith("merge(") or here in public, here
    assert "working definitions" in " ".join(taxonomy.__doc__.split())


def test_no_public_name_is_a_modules():
    modules = {p.stem for p in (ROOT / "ratekit" / "merging").glob("*.py")}
    assert modules.isdisjoint(rk.merging.__all__)  # else what a name means would depend on what was imported first
    code = "import ratekit as rk; rk.merging.greedy; print(callable(rk.merging.merge), callable(rk.merging.audit))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.split() == ["True", "True"]


@pytest.mark.commands
def test_fisher_regmean_and_greedy_of_reward_models(tmp_path, data, pairs):
    folders = {name: tiny.save(tmp_path / name, "bert", seed=seed) for seed, name in enumerate("ab")}
    states = {name: rk.merging.load_state(folder) for name, folder in folders.items()}
    measure = rk.merging.Instrument(folders["a"], pairs=pairs[:4])
    for name in ("fisher", "regmean"):
        same = learned(name, {"a": folders["a"], "again": states["a"]}, measure)
        assert all(torch.allclose(same[n], t, atol=1e-6) for n, t in states["a"].items())  # merge(a, a) = a
        merged = learned(name, folders, measure)
        assert not torch.equal(merged["classifier.weight"], rk.merging.merge(folders, "soup")["classifier.weight"])
    # RegMean is what fits each layer's outputs best: better than the average on the inputs that it saw.
    grams = [_grams(measure, state) for state in states.values()]
    name = "bert.encoder.layer.1.intermediate.dense.weight"

    def misfit(w):
        off = [w.double() - state[name].double() for state in states.values()]
        return sum(float((d @ g[name].double() * d).sum()) for d, g in zip(off, grams, strict=True))

    assert misfit(learned("regmean", folders, measure)[name]) < misfit(rk.merging.merge(folders, "soup")[name])
    table = rk.merging.audit(
        folders, None, ["greedy", "fisher"], pairs=pairs[:4], out=tmp_path / "out", barrier_points=0, progress=False
    ).set_index("model")
    assert table.loc["greedy", "accuracy"] >= table.loc[["a", "b"], "accuracy"].max()
    assert 0 <= table.loc["fisher", "accuracy"] <= 1
    for method, reward_of, given, said in (
        ("fisher", Linear(), pairs, "into the network"),
        ("greedy", Linear(), None, "give pairs="),
    ):
        with pytest.raises(InputError, match=said):
            rk.merging.audit(MODELS, data, [method], pairs=given, reward_of=reward_of)


@pytest.mark.slow
def test_adapters_are_audited_as_the_models_that_they_make(tmp_path, data, pairs, caplog):
    """As TRL leaves them: a language model's base, the head and the template in the adapter's folder."""
    pytest.importorskip("peft")
    from test_lora import adapter

    base = tiny.save(tmp_path / "base", "llama", task="CausalLM", tok=tiny.tokenizer(template=None))
    rows, models = data.select(range(24)), {}
    for name, alpha in (("a", 8), ("b", 64)):
        adapter(tmp_path / name, base, tok=tiny.tokenizer(), lora_alpha=alpha)
        models[name] = tmp_path / name
    measured = {"pairs": pairs[:12], "barrier_points": 0, "progress": False}
    with caplog.at_level("WARNING", "ratekit"):
        table = rk.merging.audit(models, rows, ["linear"], base=base, out=tmp_path / "audit", **measured)
    assert "the base has no score.weight, so it cannot be scored" in caplog.text
    merged = [rk.merging.merge([path], "linear", out=tmp_path / f"merged-{name}") for name, path in models.items()]
    whole = rk.merging.audit(dict(zip("ab", merged, strict=True)), rows, ["linear"], **measured)
    pd.testing.assert_frame_equal(table, whole, rtol=1e-4, atol=1e-5)
    assert table.length.notna().all()
    assert table.length.nunique() > 1


@pytest.mark.parametrize(
    ("call", "said"),
    [(["a", "b", "-m", "linear", "--base", "c", "--out", "OUT"], "--base c: linear of 2 models looks at no base"),
     (["a", "b", "-m", "slerp", "--base", "c", "--out", "OUT"], "--base c: slerp of 2 models looks at no base"),
     (["a", "b", "-m", "ties", "--base", "c", "--seed", "3", "--out", "OUT"], "--seed 3: ties draws nothing"),
     (["audit", "a", "b", "--data", "reviews", "--barrier-points", "3", "--out", "OUT"], "give --pairs")],
    ids=["base", "base of a pair", "seed", "barrier"],
)  # fmt: skip
def test_an_option_that_a_method_cannot_use_is_refused(call, said, tmp_path, capsys):
    assert main(["merge", *[str(tmp_path / "out") if word == "OUT" else word for word in call]]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
