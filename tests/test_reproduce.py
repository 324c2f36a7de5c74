"""The named experiments: each runs from one command, goes on where it was, and is held against what was published."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import schemas
import tiny
from conftest import ROOT
from rewriting_support import Server

import ratekit as rk
from ratekit import files
from ratekit.audits import Settings
from ratekit.cli import main
from ratekit.errors import InputError, WorkError
from ratekit.reproduce.experiment import classified, experiments, get_experiment
from ratekit.reproduce.pipeline import prepared, run, settings_of
from ratekit.reproduce.share import push
from ratekit.reproduce.sweeps import correlated, misspelt
from ratekit.reproduce.verdicts import compare, verdicts_line
from ratekit.rewriting.rules import RULES

sys.path.insert(0, str(ROOT / "experiments"))

pytestmark = pytest.mark.usefixtures("reports_without_pictures")

NAMES = list(experiments())
REAL = [name for name, e in experiments().items() if e.rewriter and not e.sweep]
SWEEPS = [name for name, e in experiments().items() if e.sweep]
SHARED = {
    "imdb": "imdb_train_3000.jsonl.gz", "eli5": "eli5_human_answers.jsonl.gz",
    "hh-rlhf": "hh_rlhf_helpful_base_test.jsonl.gz", "flattery-fluff-fog": "double_rewrites/length.jsonl.gz",
    "length-variants": "alpaca_eval_length_variants.jsonl.gz",
}  # fmt: skip


def some_always(names, *always):
    """Of each kind of experiment one runs always, the others among the slow tests."""
    return [n if n in always else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file in the schema of each source: source -> path."""
    folder = tmp_path_factory.mktemp("made")
    return {source: schemas.write(source, folder, 60) for source in schemas.SOURCES}


def offline(name, made, out, rewards=("words", "vader"), n=40, **more):
    """That experiment on made-up rows, by rules."""
    e = get_experiment(name)
    given = {"n": n, "rewriter": "rules"} if e.rewriter else {"n": n}
    if e.labeller:
        given["labeller"] = "vader"
    return run(name, out, rewards=rewards, data_files=[made[e.source]], progress=False, **{**given, **more})


# --- the registry ----------------------------------------------------------------------------------------


def test_the_experiments_of_the_issue_are_there_with_the_papers_settings():
    assert {
        "imdb-length", "imdb-sentiment", "eli5-length", "helpsteer-complexity", "helpsteer-helpfulness",
        "hh-rlhf-sentiment", "hh-rlhf-helpfulness", "hh-rlhf-harmlessness", "sweep-imdb", "sweep-helpsteer",
        "sweep-typos", "flattery-fluff-fog", "length-variants",
    } == set(NAMES)  # fmt: skip
    for e in experiments().values():
        assert e.about
        assert e.place
        assert e.source in rk.SOURCES
        for name in e.rewards:
            assert name in rk.REWARD_MODELS
        if e.rewriter:
            assert (e.rewriter, e.temperature, e.depth) == ("batch:gpt-4o-2024-08-06", 0.7, 2)
            assert e.attribute.name in RULES  # so that it runs offline too
            assert "{response}" in e.attribute.template
            assert "{phrase}" in e.attribute.template
            assert e.attribute.treated != e.attribute.untreated
    published = rk.published("by-source")
    for name, of in published.groupby("experiment"):
        assert set(of["reward_model"]) == set(get_experiment(name).rewards)
    with pytest.raises(InputError, match="did you mean 'imdb-length'"):
        get_experiment("imdb-lenght")


def test_the_list_of_reward_models_has_an_adapter_for_each():
    from ratekit.reproduce.experiment import _registry
    from ratekit.scoring.adapters import ARMO, CHAT, HUB, PAIR, POSITIVE

    registry = _registry()
    assert [HUB[name] for name in registry.PAPER] == [CHAT, CHAT, ARMO]
    assert (HUB[registry.DISTILBERT], HUB[registry.DEBERTA]) == (POSITIVE, PAIR)
    assert {HUB[name] for name in registry.CURRENT} == {CHAT}


def test_labels_are_those_of_the_templates():
    from datasets import Dataset

    long = get_experiment("imdb-length").attribute
    assert long.labels(Dataset.from_dict({"response": ["x" * 970, "x" * 971]})) == [False, True]
    for name, column in (("helpsteer-complexity", "complexity"), ("helpsteer-helpfulness", "helpfulness")):
        rows = Dataset.from_dict({"response": list("abcde"), column: [0, 1, 2, 3, 4]})
        assert get_experiment(name).attribute.labels(rows) == [False, False, False, True, True]
    rows = Dataset.from_dict({"response": list("abcdefgh"), "chosen": [True, False] * 4})
    assert get_experiment("hh-rlhf-sentiment").keep(rows) == [False, True] * 4
    assert get_experiment("hh-rlhf-helpfulness").attribute.labels(rows) == [True, False] * 4
    assert set(get_experiment("hh-rlhf-harmlessness").attribute.labels(rows)) == {True}


def test_the_last_and_the_first_pairs_are_meant():
    from datasets import Dataset

    from ratekit.reproduce.experiment import _registry

    registry = _registry()
    rows = Dataset.from_dict({"chosen": [True, False] * 5})
    assert registry.rejected_of_the_last(2)(rows) == [False] * 7 + [True, False, True]
    assert registry.rejected_of_the_first(2)(rows) == [False, True, False, True] + [False] * 6
    assert registry.last_pairs(1)(rows) == [False] * 8 + [True, True]


@pytest.mark.commands
def test_an_installed_package_finds_the_experiments_and_the_published_numbers(tmp_path):
    """The wheel carries them inside the package: laid out as pyproject.toml says, away from the checkout."""
    import shutil
    import subprocess
    import sys
    import tomllib

    from conftest import ROOT

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    shutil.copytree(ROOT / "ratekit", tmp_path / "ratekit", ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / target)
    script = (
        "import ratekit as rk; print(rk.__file__); print(len(rk.published('pooled')), len(rk.reproduce.experiments()))"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""},
                          capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert said == [str(tmp_path / "ratekit" / "__init__.py"), "84", str(len(NAMES))]
    shutil.rmtree(tmp_path / "ratekit" / "reproduce" / "experiments")
    gone = subprocess.run([sys.executable, "-m", "ratekit", "reproduce", "--list"], cwd=tmp_path, text=True,
                          env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True)  # fmt: skip
    assert gone.returncode == 2
    assert "reinstall ratekit" in gone.stderr


# --- every experiment, end to end ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    some_always(NAMES, "imdb-length", "sweep-imdb", "hh-rlhf-harmlessness", "length-variants", "flattery-fluff-fog"),
)
def test_every_experiment_runs_offline_and_leaves_a_whole_folder(name, made, tmp_path):
    rewards = () if name == "flattery-fluff-fog" else ("words", "vader")
    finished = offline(name, made, tmp_path / "run", rewards)
    folder = tmp_path / "run"
    record = json.loads((folder / "run.json").read_text())
    ds = files.read(folder)
    assert len(ds) == record["n_rows"] > 0
    assert {"settings", "versions", "rewards", "dropped", "seconds", "git_commit", "rewriting"} <= set(record)
    assert record["experiment"]["place"] == get_experiment(name).place
    assert (folder / "effects.png").read_bytes().startswith(b"\x89PNG")
    assert name in (folder / "dataset" / "README.md").read_text()
    assert {"run.json", "effects.csv", "effects.png"} <= {p.name for p in finished.written}
    table = pd.read_csv(folder / "effects.csv")
    assert table["estimate"].notna().all()
    if get_experiment(name).rewriter:
        assert {"single_rewrite", "rate"} <= set(table["estimator"])
        assert record["dropped"]["rewrites"] == {"ok": 2 * len(ds)}
        assert all(len(r) == 2 for r in ds["rewrites"])
    if name == "hh-rlhf-harmlessness":
        assert set(table["estimand"]) == {"att"}
    if name == "length-variants":
        assert set(table["estimator"]) == {"naive"}
        assert set(table["attribute"]) == {"default-concise", "verbose-concise", "verbose-default"}
        words = table[table["reward_model"] == "words"]
        assert (words["estimate"] > 0).all()
    if name == "flattery-fluff-fog":
        assert set(zip(table["estimator"], table["estimand"], strict=True)) == {("rate", "atu")}
        assert set(table["reward_model"]) == {"m-2B", "m-8B"}


KINDS = {  # of each model in the list of the issue: the architecture, and what its folder needs
    "FsfairX-LLaMA3-RM-v0.1": ("llama", {}),
    "Llama-3-OffsetBias-RM-8B": ("llama", {"seed": 1}),
    "Skywork-Reward-V2-Qwen3-0.6B": ("qwen3", {}),
    "reward-model-deberta-v3-large-v2": ("deberta-v2", {}),
    "distilbert-base-uncased-finetuned-sst-2-english": (
        "distilbert", {"num_labels": 2, "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
                       "label2id": {"NEGATIVE": 0, "POSITIVE": 1}},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small random model of each architecture, in a folder with the published model's name."""
    from armo import save_armo

    folder = tmp_path_factory.mktemp("models")

    def short(kind):  # or 200 real rows would take a quarter of an hour
        return tiny.tokenizer(encoder=kind in tiny.ENCODERS, model_max_length=160)

    found = {
        name: tiny.save(folder / name, kind, tok=short(kind), **options) for name, (kind, options) in KINDS.items()
    }
    return {**found, "ArmoRM-Llama3-8B-v0.1": save_armo(folder / "ArmoRM-Llama3-8B-v0.1", tok=short("llama"))}


@pytest.mark.slow
def test_every_architecture_scores_an_experiment_and_the_labels_can_be_a_classifiers(made, models, tmp_path):
    finished = offline(
        "hh-rlhf-sentiment", made, tmp_path / "run", list(models.values()), n=12, trust_remote_code=True,
        labeller="vader",
    )  # fmt: skip
    plain = finished.table[~finished.table["reward_model"].str.contains("/")]
    assert set(plain["reward_model"]) == set(models)
    ds = files.read(finished.folder)
    assert (plain.groupby("reward_model")["n"].max() == len(ds)).all()
    by_model = classified(str(models["distilbert-base-uncased-finetuned-sst-2-english"]))(ds)
    assert [type(label) for label in by_model] == [bool] * len(ds)
    assert (plain.loc[plain["estimator"] == "single_rewrite", "estimate"].abs() > 1e-6).all()
    beside = compare(finished.experiment, finished.settings, plain)
    assert set(beside.loc[beside["reward_model"].str.contains("Qwen"), "why"]) == {
        "nothing was published for Skywork-Reward-V2-Qwen3-0.6B"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_on_200_real_rows_with_every_architecture(name, models, shared, tmp_path):
    source = get_experiment(name).source
    if source == "helpsteer":  # not at hand: a file in its schema
        path = schemas.write("helpsteer", tmp_path, 300)
    else:
        path = shared("hh_rlhf_harmless_base_test.jsonl.gz" if "harmless" in name else SHARED[source])
    n = 60 if name in SWEEPS else 200
    finished = offline(name, {source: path}, tmp_path / "run", list(models.values()), n=n, trust_remote_code=True)
    table = finished.table
    assert set(models) <= set(table["reward_model"])
    assert table["estimate"].notna().all()
    if not get_experiment(name).sweep and get_experiment(name).rewriter:
        assert len(files.read(finished.folder)) >= 150  # VADER leaves a few neutral replies without a label
    assert (finished.folder / "effects.png").exists()


# --- going on --------------------------------------------------------------------------------------------


def counting(reward):
    def counted(prompts, responses):
        counted.n += len(responses)
        return reward(prompts, responses)

    counted.n, counted.__name__ = 0, "counted"
    return counted


@pytest.mark.commands
def test_a_run_goes_on_and_nothing_is_done_twice(made, tmp_path, monkeypatch):
    reward = counting(rk.REWARD_MODELS["words"])
    out = tmp_path / "run"
    first = offline("imdb-length", made, out, [reward])
    n_scored = reward.n
    assert n_scored > 0
    monkeypatch.setattr("ratekit.audits.study.rewrite", lambda *a, **k: pytest.fail("rewritten again"))
    again = offline("imdb-length", made, out, [reward])
    assert reward.n == n_scored
    pd.testing.assert_frame_equal(first.table, again.table)
    more = run("imdb-length", start=out, rewards=[reward, "vader"], progress=False)
    assert reward.n == n_scored
    assert set(more.table["reward_model"]) == {"counted", "vader"}
    kept = run("imdb-length", start=out, rewards=["vader"], progress=False)
    assert set(kept.table["reward_model"]) == {"counted", "vader"}
    assert json.loads((out / "run.json").read_text())["seconds"] > 0


def test_going_on_from_shared_rewrites_asks_nobody(made, tmp_path, monkeypatch):
    """What is pushed to the hub is a dataset with rewrites; from it another reward model is held to the same texts."""
    first = offline("imdb-length", made, tmp_path / "first", ["words"])
    shared = tmp_path / "shared.parquet"
    ds = files.read(first.folder)
    ds.remove_columns(["reward/words"]).to_parquet(str(shared))
    monkeypatch.setattr("ratekit.audits.study.rewrite", lambda *a, **k: pytest.fail("rewritten again"))
    second = run("imdb-length", tmp_path / "second", start=shared, rewards=["words"], progress=False)
    pd.testing.assert_frame_equal(first.table, second.table)
    with pytest.raises(InputError, match="labelled for length, not for sentiment"):
        run("imdb-sentiment", tmp_path / "third", start=shared, rewards=["words"])
    with pytest.raises(InputError, match="its rewrites are made, so rewriter cannot be chosen"):
        run("imdb-length", tmp_path / "third", start=shared, rewriter="rules", rewards=["words"])
    bare = tmp_path / "bare.parquet"
    ds.remove_columns(["rewrites"]).to_parquet(str(bare))
    with pytest.raises(InputError, match="no column 'rewrites'"):
        run("imdb-length", tmp_path / "third", start=bare, rewards=["words"])


@pytest.mark.commands
def test_a_run_that_was_cut_off_while_it_rewrote_is_gone_on_from_by_its_folder(made, tmp_path, monkeypatch):
    whole = offline("imdb-length", made, tmp_path / "whole", ["words"])

    def cut_off(*arguments, **options):
        raise WorkError("the budget is spent")

    with monkeypatch.context() as patch:
        patch.setattr("ratekit.audits.study.rewrite", cut_off)
        with pytest.raises(WorkError, match="budget"):
            offline("imdb-length", made, tmp_path / "run", ["words"])
    gone_on = run("imdb-length", start=tmp_path / "run", progress=False)
    pd.testing.assert_frame_equal(gone_on.table, whole.table)
    with pytest.raises(InputError, match="no such file"):
        offline("imdb-length", {"imdb": tmp_path / "nix.jsonl"}, tmp_path / "other", ["words"])
    other = offline("imdb-length", made, tmp_path / "other", ["words"])  # what failed before binds nobody
    pd.testing.assert_frame_equal(other.table, whole.table)


def test_other_settings_are_another_run(made, tmp_path):
    offline("imdb-length", made, tmp_path / "run", ["words"])
    with pytest.raises(InputError, match=r"holds another run \(n 40 there, 30 here"):
        offline("imdb-length", made, tmp_path / "run", ["words"], n=30)
    with pytest.raises(InputError, match="holds a run of imdb-length, not of eli5-length"):
        run("eli5-length", start=tmp_path / "run")
    with pytest.raises(InputError, match="goes on in its own folder"):
        run("imdb-length", tmp_path / "other", start=tmp_path / "run")


# --- sweeps ----------------------------------------------------------------------------------------------


def test_cells_of_a_sweep_have_the_published_design():
    """With cells like the authors' the counts are those that they printed, up to rounding."""
    designs = rk.published("designs").query("total > 9000 and known_from.str.startswith('printed')")
    treated = np.repeat([True, False], 9148)
    confounder = np.tile([True, False], 9148)
    drawn = correlated(treated, confounder, designs["step"].tolist(), 9148, 0)
    for rows, row in zip(drawn, designs.itertuples(), strict=True):
        t, z = treated[rows], confounder[rows]
        counts = [int((t & z).sum()), int((t & ~z).sum()), int((~t & z).sum()), int((~t & ~z).sum())]
        published = [row.n_both, row.n_attribute_only, row.n_confounder_only, row.n_neither]
        np.testing.assert_allclose(counts, published, atol=1)
        assert len(rows) == len(set(rows))
        if row.step < 1:
            assert np.corrcoef(t, z)[0, 1] == pytest.approx(row.step, abs=0.002)
    with pytest.raises(InputError, match="too few rows for a sweep of correlations"):
        correlated(np.array([True] * 5), np.array([True, False, True, False, True]), (0.0, 1.0), None, 0)


def test_misspelling_grows_along_the_sweep_and_leaves_the_first_letter():
    from datasets import Dataset

    text = "Another film that everybody should really watch with their whole family tonight, and then again. " * 5
    ds = Dataset.from_dict({"response": [text, text], "treated": [True, False]})
    steps = [misspelt(ds, x, seed=3) for x in (0.0, 0.1, 0.3)]
    assert all(s["response"][1] == text for s in steps)
    wrong = [{i for i, (a, b) in enumerate(zip(s["response"][0].split(), text.split(), strict=True)) if a != b}
             for s in steps]  # fmt: skip
    assert not wrong[0]
    assert wrong[0] < wrong[1] < wrong[2]
    assert all(s["response"][0].split()[0] == "Another" for s in steps)
    assert steps[2]["twin"][0] == "Frankly, " + steps[2]["response"][0]


@pytest.mark.commands
@pytest.mark.parametrize("name", some_always(SWEEPS, "sweep-typos"))
def test_a_simulated_sweep_has_the_papers_shape_beside_the_truth(name, tmp_path):
    """Naive follows the confounding, the single rewrite drifts, RATE is nearly flat, extrapolated flatter."""
    from ratekit.simulate import slopes

    table = run(name, tmp_path, n=200, rewriter="simulated", progress=False).table
    ate = table[(table["estimand"] == "ate") & (table["estimator"] != "rate_late")]
    assert ate["truth"].notna().all()
    excess = slopes(ate).set_index("estimator")["excess"].abs()
    assert excess["naive"] > 0.5
    assert excess["naive"] > 2 * excess["single_rewrite"]
    assert excess["single_rewrite"] > 0.1
    assert excess["rate"] < excess["single_rewrite"] / 3
    assert excess["rate_extrapolated"] < excess["rate"] / 2


def test_the_truth_of_a_sweep_is_that_of_its_twins(tmp_path):
    """A reward that is nothing but the first letter's class has a true effect of 1 at every step."""

    def vowel(prompts, responses):
        return [float(r[0].lower() in "aeiou") for r in responses]

    finished = run("sweep-typos", tmp_path, n=60, rewriter="simulated", rewards=[vowel], progress=False)
    table = finished.table
    assert (table["truth"] == 1.0).all()
    rewriting = table[table["estimator"] != "naive"]
    np.testing.assert_allclose(rewriting["estimate"], 1.0)


@pytest.mark.commands
def test_a_sweep_on_real_rows_knows_the_truth_where_the_rule_is_exact(made, tmp_path):
    table = offline("sweep-typos", made, tmp_path, ["words"], n=40).table
    ate = table[table["estimand"] == "ate"].set_index(["estimator", "step"])
    assert set(table[table["estimand"] == "ate"]["step"]) == {k / 20 for k in range(7)}
    # The opener is one more word on whichever side gets it: att -1, atu +1, and the same in the truth.
    att, atu = (table[table["estimand"] == e].groupby("estimator")["estimate"].mean() for e in ("att", "atu"))
    truth = table.groupby("estimand")["truth"].mean()
    assert (truth["att"], truth["atu"]) == (-1.0, 1.0)
    assert (att["rate"], atu["rate"]) == (-1.0, 1.0)
    assert ate["n"].nunique() == 1


# --- ours beside theirs ----------------------------------------------------------------------------------


def test_the_table_of_the_readme_has_every_experiment_and_the_published_numbers():
    import reanalysis

    lines = [x for x in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if x.startswith("| `")]
    table = {name: next(x for x in lines if x.startswith(f"| `{name}`")) for name in NAMES}
    for name, rows in reanalysis.by_source().groupby("experiment"):
        effects = rows.set_index(rows["reward_model"].map(reanalysis.SHORT))["in_sd"]
        shown = " / ".join(f"{effects[m]:+.2f}" for m in ("FsfairX", "OffsetBias", "ArmoRM"))
        assert f"| {shown} |" in table[name], name


def ours(estimate, se, model="sfairXC/FsfairX-LLaMA3-RM-v0.1", estimator="rate", **more):
    return {"reward_model": model, "estimator": estimator, "estimand": "ate", "estimate": estimate, "se": se,
            "reward_sd": 1.3, **more}  # fmt: skip


def test_agrees_differs_and_not_comparable_with_the_reason():
    e = get_experiment("imdb-length")
    settings = settings_of(e, {})
    theirs = rk.published("imdb-length").set_index(["reward_model", "estimator", "estimand"])
    rate = theirs.loc[("sfairXC/FsfairX-LLaMA3-RM-v0.1", "rate", "ate")]
    assert rate["se_kind"] == "paired"
    near, far = rate["estimate"] + rate["se"], rate["estimate"] + 5 * rate["se"]
    table = pd.DataFrame([
        ours(near, rate["se"]), ours(far, rate["se"]), ours(near, rate["se"], "./models/FsfairX-LLaMA3-RM-v0.1"),
        ours(0.1, 0.1, "vader"), ours(0.1, 0.1, estimator="rate_extrapolated"), ours(0.1, np.nan),
    ])  # fmt: skip
    found = compare(e, settings, table)
    comparable = ["agrees", "differs", "agrees", "not comparable", "not comparable", "not comparable"]
    assert found["verdict"].tolist() == comparable
    assert found["why"][5] == "no standard error to hold the difference against"
    np.testing.assert_allclose(found["z"][:2], [1 / np.sqrt(2), 5 / np.sqrt(2)])
    assert found["why"][3] == "nothing was published for vader"
    assert found["why"][4] == "rate_extrapolated ate was not published"
    by_rules = compare(e, replace(settings, rewriter="rules"), table)
    assert by_rules["verdict"][0] == "not comparable"
    assert by_rules["why"][0] == "rewritten by rules, not by an LLM"
    other = compare(e, replace(settings, rewriter="openai:gpt-4o-mini"), table)
    assert other["verdict"][0] == "agrees"
    assert "theirs by gpt-4o-2024-08-06" in other["why"][0]
    assert verdicts_line(found).startswith("2 of 3 estimates agree")
    unpublished = get_experiment("hh-rlhf-helpfulness")
    found = compare(unpublished, settings_of(unpublished, {}), table[:1])
    assert found["why"][0] == "nothing was published of hh-rlhf-helpfulness"
    assert verdicts_line(found).endswith("nothing was published of hh-rlhf-helpfulness")


def test_effects_in_sds_are_compared_with_the_error_of_the_sd():
    e = get_experiment("sweep-typos")
    theirs = rk.published("sweep-typos").query("estimator == 'rate' and estimand == 'ate'").iloc[[0]]
    sd = {"estimate_sd": theirs["estimate"] + 0.4, "se_sd": 0.25, "ci_low_sd": 0.0, "ci_high_sd": 1.0}
    table = theirs.assign(estimate=8.0, se=0.2, ci_low=7.0, ci_high=9.0, reward_sd=2.0, **sd)
    row = compare(e, settings_of(e, {}), table).iloc[0]
    assert row[["difference", "ours_se", "verdict"]].tolist() == [pytest.approx(0.4), 0.25, "agrees"]
    assert row["z"] == pytest.approx(0.4 / np.hypot(0.25, 0.01))  # theirs are read off a figure to 0.01


def test_the_published_numbers_agree_with_themselves_step_by_step():
    """Every published estimate held against itself: all agree, at z = 0, and the steps are told apart."""
    for name in ("imdb-length", "helpsteer-complexity", "sweep-imdb", "sweep-helpsteer"):
        e = get_experiment(name)
        theirs = rk.published(name)
        theirs = theirs[theirs["estimator"] != "naive_rewritten"]
        found = compare(e, settings_of(e, {}), theirs.assign(reward_sd=1.0))
        assert len(found) == len(theirs)
        assert set(found["verdict"]) == {"agrees"}
        np.testing.assert_allclose(found["difference"], 0, atol=1e-12)


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.commands
def test_the_command_runs_compares_and_says_where_it_wrote(made, tmp_path, capsys):
    out = tmp_path / "run"
    call = ["reproduce", "imdb-length", "--n", "20", "--rewriter", "rules", "-r", "words", "--out", str(out),
            "--data-files", str(made["imdb"])]  # fmt: skip
    assert main(call) == 0
    said = capsys.readouterr()
    assert "RATE" in said.out
    assert str(out / "effects.csv") in said.out
    assert main([*call, "--compare", "--format", "json"]) == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert {row["verdict"] for row in rows} == {"not comparable"}
    assert "nothing was published for words" in said.err
    assert len(pd.read_csv(out / "compare.csv")) == len(rows)
    assert main(["reproduce", "--list", "--format", "json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(NAMES)


FAULTS = {
    "no name": (["reproduce"], "which experiment?"),
    "unknown": (["reproduce", "imdb-lenght", "--rewriter", "rules"], "did you mean 'imdb-length'"),
    "no rewriter": (["reproduce", "flattery-fluff-fog", "--rewriter", "rules"], "takes no --rewriter"),
    "no world": (["reproduce", "imdb-length", "--rewriter", "simulated"], "is for sweeps"),
    "no files": (["reproduce", "sweep-imdb", "--rewriter", "simulated", "--data-files", "x.jsonl"], "makes its texts"),
    "no money": (["reproduce", "imdb-length"], "go on with --budget MONEY"),
    "no labeller": (
        ["reproduce", "imdb-length", "--rewriter", "rules", "--labeller", "vader"],
        "its labels are in the data",
    ),
    "no hub": (["reproduce", "length-variants"], "give the file with data_files"),
    "no file": (["reproduce", "imdb-length", "--rewriter", "rules", "--data-files", "nix.jsonl"], "no such file"),
    "no repo": (["reproduce", "imdb-length", "--push", "mine"], "is written owner/name"),
    "no reward": (["reproduce", "imdb-length", "--rewriter", "rules", "-r", "vaderr"], "did you mean 'vader'"),
    "no call": (["reproduce", "imdb-length", "--rewriter", "rules", "--dry-run"], "makes no call"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_call_is_one_clear_line(fault, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call, message = FAULTS[fault]
    if fault in ("no call", "no reward"):
        call = [*call, "--data-files", str(made["imdb"])]
    assert main(call) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("ratekit: ")]) == 1
    assert "Traceback" not in err


def test_a_dry_run_of_the_papers_settings_names_its_price(made, capsys, tmp_path):
    assert main(["reproduce", "imdb-length", "--n", "30", "--dry-run", "--data-files", str(made["imdb"]),
                 "--out", str(tmp_path / "x")]) == 0  # fmt: skip
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.replace("tokens ", "tokens_").splitlines())
    assert said["rows"] == "30 at depth 2"
    tokens_in, tokens_out = (int(said[k].split()[0].replace(",", "")) for k in ("tokens_in", "tokens_out"))
    assert float(said["money"]) == pytest.approx((1.25 * tokens_in + 5 * tokens_out) / 1e6, abs=0.006)
    assert said["hours"].startswith("48 (at most; a batch is done within 24 h")


def test_a_hub_that_has_changed_is_met_with_one_clear_line(monkeypatch, tmp_path):
    """The schema of every source is asserted: a missing, renamed or retyped column is named with what to do."""
    import datasets

    for name, source in rk.SOURCES.items():
        whole = datasets.Dataset.from_list(schemas.rows(name, 8))
        for column, kind in source.columns.items():
            changed = {
                f"no column '{column}' (is it '{column}_text' now?)": whole.rename_column(column, f"{column}_text"),
                f"'{column}' holds bool where {kind} was expected":
                    whole.remove_columns([column]).add_column(column, [True] * len(whole)),
            }  # fmt: skip
            for message, table in changed.items():
                if source.hub_id:
                    monkeypatch.setattr(datasets, "load_dataset", lambda *a, table=table, **k: table)
                    with pytest.raises(InputError) as caught:
                        rk.load(name)
                    assert "on the hub has changed" in str(caught.value)
                else:
                    table.to_parquet(str(tmp_path / "x.parquet"))
                    with pytest.raises(InputError) as caught:
                        rk.load(name, data_files=tmp_path / "x.parquet")
                assert message in str(caught.value)
                assert "\n" not in str(caught.value)
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, table=whole, **k: table)
        if source.hub_id:
            assert len(rk.load(name)) > 0


# --- sharing ---------------------------------------------------------------------------------------------


def test_a_run_is_pushed_with_its_card_and_can_be_gone_on_from(made, tmp_path, monkeypatch):
    import huggingface_hub
    from datasets import load_dataset

    finished = offline("imdb-length", made, tmp_path / "run", ["words"])
    seen = {}

    class Hub:
        def create_repo(self, repo, **more):
            seen["repo"], seen["private"] = repo, more["private"]

        def upload_folder(self, *, folder_path, **more):
            import shutil

            shutil.copytree(folder_path, tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert push(finished.folder, "me/imdb-length") == "https://huggingface.co/datasets/me/imdb-length"
    assert seen == {"repo": "me/imdb-length", "private": True}
    names = {str(p.relative_to(tmp_path / "hub")) for p in (tmp_path / "hub").rglob("*") if p.is_file()}
    assert names == {"README.md", "data/train.parquet", "run.json", "effects.csv"}
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "licence: not stated" in text
    assert "--from OWNER/NAME" in text
    loaded = load_dataset("parquet", data_files=str(tmp_path / "hub" / "data" / "train.parquet"), split="train")
    monkeypatch.setattr("datasets.load_dataset", lambda name, **more: loaded)
    again = run("imdb-length", tmp_path / "again", start="me/imdb-length", rewards=["words"], progress=False)
    pd.testing.assert_frame_equal(finished.table, again.table)

    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz0123")

    def refuse(self, *a, **k):
        raise OSError("401 token hf_abcdefghijklmnopqrstuvwxyz0123 is wrong")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(WorkError, match="could not be uploaded") as caught:
        push(finished.folder, "me/imdb-length")
    assert "hf_abcdefghij" not in str(caught.value)
    with pytest.raises(InputError, match="no finished run"):
        push(tmp_path, "me/imdb-length")


# --- against a server that limits, fails and is cut off --------------------------------------------------


def through(server, made, out, n, **more):
    """imdb-length by the paper's own prompt, through a server."""
    return run(
        "imdb-length", out, n=n, rewriter="openai:fake", rewards=["words"], data_files=[made], progress=False,
        options=rk.rewriting.Options(base_url=server.url, **more),
    )  # fmt: skip


def test_the_papers_prompt_reaches_the_server_and_both_phrases_are_used(made, tmp_path):
    with Server("chat_server.py") as server:
        finished = through(server, made["imdb"], tmp_path / "run", 20)
        assert server.stats["requests"] == server.stats["n_keys"] == 40
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["rewriting"]["template"] == record["experiment"]["template_hash"]
    assert record["rewriting"]["replies"] == 40
    ds = files.read(tmp_path / "run")
    longer = [len(r[0]) > len(t) for t, r in zip(ds["response"], ds["rewrites"], strict=True)]
    assert longer == [not treated for treated in ds["treated"]]
    rate = finished.table.query("estimator == 'rate' and estimand == 'ate'")["estimate"].iloc[0]
    assert rate > 10


@pytest.mark.slow
def test_a_limited_and_interrupted_run_ends_with_the_table_of_an_undisturbed_one(shared, tmp_path):
    import subprocess
    import time

    from rewriting_support import environment

    data = shared("imdb_train_3000.jsonl.gz")
    call = ["reproduce", "imdb-length", "--n", "2000", "--rewriter", "openai:fake", "-r", "words",
            "--data-files", str(data), "--concurrency", "32"]  # fmt: skip

    def command(server, out):
        return [sys.executable, "-m", "ratekit", *call, "--base-url", server.url, "--out", str(out)]

    with Server("chat_server.py") as server:
        subprocess.run(command(server, tmp_path / "calm"), env=environment(), cwd=ROOT, check=True, capture_output=True)
        n_keys = server.stats["n_keys"]  # two a row, but for texts that two rows share
        assert server.stats["requests"] == n_keys
        assert 3990 < n_keys <= 4000
    disturbed = tmp_path / "disturbed"
    with Server("chat_server.py", rps=400, mean_ms=30, faults={"429-after": 0.03, "503": 0.02, "cut": 0.01}) as server:
        for sent in (400, 1600):
            process = subprocess.Popen(command(server, disturbed), env=environment(), cwd=ROOT,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            while server.stats.get("sent", 0) < sent:
                assert process.poll() is None, "it was to be interrupted"
                time.sleep(0.1)
            process.kill()
            process.wait()
        before = server.stats["sent"]
        assert 0 < before < n_keys
        subprocess.run(command(server, disturbed), env=environment(), cwd=ROOT, check=True, capture_output=True)
        stats = server.stats
    assert stats["429-after"] > 0  # it was limited, however slow the machine,
    assert stats["503"] > 0  # and it did fail
    assert stats["again_after_read"] == 0  # no reply that was there is paid for twice
    assert stats["n_keys"] == n_keys
    calm, other = (pd.read_csv(tmp_path / name / "effects.csv") for name in ("calm", "disturbed"))
    pd.testing.assert_frame_equal(calm, other)
    assert calm["n"].max() == 2000
    assert (calm["n_dropped"] == 0).all()


def test_prepared_rows_are_the_same_for_a_seed(made):
    e = get_experiment("eli5-length")
    settings = settings_of(e, {"n": 30, "rewriter": "rules", "data_files": [str(made["eli5"])]})
    first, second = (prepared(e, settings).rows["response"] for _ in range(2))
    assert first == second
    other = prepared(e, replace(settings, seed=1)).rows["response"]
    assert first != other
    assert isinstance(settings, Settings)
