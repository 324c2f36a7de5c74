"""Every notebook runs from top to bottom, with its parameters made small."""

from __future__ import annotations

import re
import tomllib

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

import ratekit as rk

pytestmark = pytest.mark.commands

# (what the parameter cell says, what the test makes of it): the replacement must apply, or the test fails.
SMALLER = {
    "01_quickstart.ipynb": [("n_pairs = 1800", "n_pairs = 240")],
    "02_confounding.ipynb": [("n = 400 ", "n = 200 ")],
    "03_one_rewrite_is_not_enough.ipynb": [("n = 400 ", "n = 100 ")],
    "04_rewriting_twice_and_three_times.ipynb": [("n = 2000 ", "n = 1000 ")],
    "06_prototype_an_attribute.ipynb": [("n_estimate = 80 ", "n_estimate = 30 ")],
    "08_reproduce_the_paper.ipynb": [("n = 200 ", "n = 60 ")],
    "10_audit_a_judge.ipynb": [("n = 200 ", "n = 80 ")],
}
RATE = "estimator == 'rate' and estimand == 'ate'"
MEANS = "lambda r, w, p: sum(o.mean() * (r[w & o].mean() - r[~w & o].mean()) for o in (p, ~p))"
# Every exercise, solved by what its text and its notebook say.
SOLVED = {
    "01_quickstart.ipynb": {
        "misleading": "abs(table.query(\"reward_model == 'vader' and estimand == 'ate'\").pivot(index='attribute', "
        "columns='estimator', values='estimate_sd').eval('naive - rate')).idxmax()",
        "words_added": f'rk.estimate(counted).query("{RATE}").estimate.item()',
    },
    "02_confounding.ipynb": {
        "bias_at_a_half": "((1 + 0.5) / 2 - (1 - 0.5) / 2) * 2",
        "my_naive": "lambda rewards, treated: rewards[treated].mean() - rewards[~treated].mean()",
        "adjusted": MEANS,
    },
    "03_one_rewrite_is_not_enough.ipynb": {
        "single": "lambda r, w: (np.where(w, 1, -1) * (r[:, 0] - r[:, 1])).mean()",
        "rate": "lambda r, w: (np.where(w, 1, -1) * (r[:, 2] - r[:, 1])).mean()",
        "which": "'ate'",
        "off_by": "0.5 * 0.2",
    },
    "04_rewriting_twice_and_three_times.ipynb": {
        "worst_rho": "min((k / 100 for k in range(101)), key=lambda x: x * (x - 1))",
        "bias_of_single_rewrite": "0",
        "my_rho": "lambda m: (m[3] - m[1]) / (m[2] - m[0])",
    },
    "05_explore_real_rewrites.ipynb": {
        "most_often": "max(['sentiment', 'readability', 'faults'], "
        "key=[explorer.off_target.measure[i] for i in length_rows].count)",
        "unchanged_way_back": "sum(ds[i]['response'] == ds[i]['rewrites'][1] for i in length_rows)",
        "rows_with_battery": "sum(any('battery' in x.lower() for x in (r['response'], *r['rewrites'])) for r in ds)",
    },
    "06_prototype_an_attribute.ipynb": {
        "effect_of_a_hedge": "-0.2",
        "my_phrases": "('more hedged, leaving each mistake', 'more certain, leaving each mistake')",
        "fooled": "'single_rewrite'",
    },
    "07_audit_a_reward_model.ipynb": {
        "length_effect": "rk.estimate(ds).query(\"attribute == 'length' and reward_model == 'wordy' and "
        "estimand == 'ate' and estimator == 'rate_extrapolated'\").estimate_sd.item()",
        "p_value": "rk.contrast(ds, 'wordy', 'vader').query(\"attribute == 'length' and estimand == 'ate'\")"
        ".p_value.item()",
        "n_more": "rk.plan(ds, se=0.02).query(\"attribute == 'sentiment' and reward_model == 'vader'\").n_more.item()",
    },
    "08_reproduce_the_paper.ipynb": {
        "armo_length": f'(armo := rk.published("pooled").query("{RATE} and attribute == \'length\' and '
        "reward_model.str.contains('ArmoRM')\").iloc[0]).estimate / armo.reward_sd",
        "z_paired": f'armo.estimate / (np.sqrt((rk.published("by-source").query("{RATE} and '
        "attribute == 'length' and reward_model.str.contains('ArmoRM')\").se ** 2).sum()) / 2)",
        "n_flips": f'int((np.sign(rk.published("by-source").query("{RATE} and attribute == \'sentiment\'").pivot('
        "index='reward_model', columns='source', values='estimate')).sum(axis=1) == 0).sum())",
        "share": "np.divide(*[rk.published(name).query(\"experiment == 'sweep-imdb' and step == 0 and "
        "estimator == 'rate' and estimand == 'ate'\").se.item() for name in ('sweeps-v1', 'sweeps')]) ** 2",
    },
    "09_merging.ipynb": {
        "effect_of_the_average": "(0.9 + 0 + 0) / 3",
        "my_line": "lambda a, b, t: {name: (1 - t) * a[name] + t * b[name] for name in a}",
        "which_class": "'neuron alignment'",
        "t_of_zero": "-1",
    },
    "10_audit_a_judge.ipynb": {"dose_in_words": "found.verdicts[0].estimate['dose']"},
}
# What the prose says of numbers, in the notebook's own names.
CLAIMS = {
    "01_quickstart.ipynb": (
        "(of := table.query(\"attribute == 'sentiment' and reward_model == 'demo-rm' and estimand == 'ate'\")"
        ".set_index('estimator').estimate)['rate'] < 0.2 * of['naive']",
    ),
    "02_confounding.ipynb": (
        "naive > truth > 0", "share[True] > 0.6 > share[False]", "ate.set_index('estimator').ci_low['naive'] > 10",
        "np.ptp(table[(table.estimator == 'rate') & (table.estimand == 'ate')].estimate) < 0.05",
    ),
    "03_one_rewrite_is_not_enough.ipynb": (
        "ate.set_index('estimator').estimate['single_rewrite'] < 0",
        "abs(ate.set_index('estimator').estimate['rate'] - 0.2) < 0.02",
        "ate.set_index('estimator').ci_low.isna()['rate']",
        "(of := table[(table.estimand == 'ate') & (table.step > 0.29)].set_index('estimator')).truth.nunique() == 1",
        "(off := (of.estimate - of.truth).abs())['rate'] < off['single_rewrite'] / 2 < off['naive'] / 2",
    ),
    "04_rewriting_twice_and_three_times.ipynb": (
        "ate.ci_high['rate'] < world.truth()['ate'] < ate.estimate['rate'] + 0.1",
        "abs(ate.estimate['rate_late'] - world.truth()['ate']) < abs(ate.estimate['rate'] - world.truth()['ate'])",
        "ate.ci_low['rate_extrapolated'] < world.truth()['ate'] < ate.ci_high['rate_extrapolated']",
        "abs(ate.estimate['single_rewrite'] - world.truth()['ate']) > abs(ate.estimate['rate'] - world.truth()['ate'])",
    ),
    "06_prototype_an_attribute.ipynb": (
        "(row := lab.versions[0].tried[1]) and (seen := faults([row['response'], *row['rewrites']]))[1] < seen[0] / 2",
        "abs(seen[2] - seen[1]) < 0.1 * seen[0]",
        "abs(before - after).max() < 1e-9",
    ),
    "07_audit_a_reward_model.ipynb": (
        "(of := table.query(\"attribute == 'sentiment' and reward_model == 'demo-rm' and estimand == 'ate'\")"
        ".set_index('estimator').estimate)['rate'] < of['naive'] / 4",
        "set(diagnosis.query(\"check == 'verdict' and attribute == 'length'\").group) == {'do not trust'}",
        "set(zip(diagnosis[diagnosis.check == 'verdict'].attribute, diagnosis[diagnosis.check == 'verdict'].about)) == "
        "{(a, m) for a in ('length', 'sentiment') for m in (name, 'vader')}",
        "doses.query(\"reward_model == @name and bin != 'all'\").bin.nunique() == 5",
    ),
    "09_merging.ipynb": (
        "all(measured[m]['accuracy'] > 0.9 for m in measured)",
        "all(abs(measured[m]['effect/' + a]) < 0.2 for m in ('base', 'unbiased') for a in ('length', 'complexity'))",
        "min(measured['long 1']['effect/length'], measured['long 2']['effect/length']) > 0.8",
        "measured['complex']['effect/complexity'] > 0.8",
        "(of := merged['long 1', 'long 2'].length)['soup'] > 0.9 * min(of['long 1'], of['long 2'])",
        "(of := merged['long 1', 'complex'])['length']['soup'] < 0.7 * of['length']['long 1']",
        "of['complexity']['soup'] < 0.8 * of['complexity']['complex']",
        "abs(rk.merging.barrier(models['unbiased'], models['long 1'], loss)) < 1e-4", "abs(before - after) < 1e-5",
        "rk.merging.barrier(models['unbiased'], aligned.state, loss) < "
        "rk.merging.barrier(models['unbiased'], stranger, loss) / 5",
        "sum(m.kit for m in __import__('ratekit.merging.methods').merging.methods.METHODS.values()) == 19",
    ),
    "08_reproduce_the_paper.ipynb": (
        "[np.sign(lengths.filter(like='OffsetBias', axis=0)[s].item()) for s in ('imdb', 'eli5')] == [1, -1]",
        "naive_range > 5 * rate_range",
    ),
    "10_audit_a_judge.ipynb": (
        "low > 0", "dose.per_unit_low['fair'] < 0 < dose.per_unit_high['fair']",
        "dose.per_unit_low['likes-words'] > 0",
    ),
}  # fmt: skip
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", [NOTEBOOKS[0], *(pytest.param(n, marks=pytest.mark.slow) for n in NOTEBOOKS[1:])])
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    solved = [(f"\n{variable} = ...", f"\n{variable} = {code}") for variable, code in SOLVED[name].items()]
    for cell in notebook.cells:
        cell.source = f"\n{cell.source}" if cell.cell_type == "code" else cell.source
    for old, new in [*SMALLER.get(name, []), *solved]:
        found = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert len(found) == 1, f"{name}: {old!r} stands in {len(found)} cells"
        found[0].source = found[0].source.replace(old, new)
    held = "\n".join(f"assert {claim}, {claim!r}" for claim in CLAIMS.get(name, ()))
    notebook.cells.append(nbformat.v4.new_code_cell(held))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "".join(o.get("text", "") for o in outputs)
    asked = sum(cell.source.count('check("') for cell in notebook.cells)
    assert printed.count(": Right.") == asked == len(solved)
    assert [o.text for o in outputs if o.get("name") == "stderr"] == []
    assert "Not yet." not in printed
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) or (
        name[:2] not in ("01", "04", "05", "06")
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_no_line_of_code_that_a_page_cuts_off(name):
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_read_without_a_renderer_of_formulas_and_takes_its_colours_from_the_package(name):
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    assert [cell.source for cell in cells if cell.cell_type == "markdown" and "$" in cell.source] == []
    assert [
        cell.source for cell in cells if cell.cell_type == "code" and re.search("#[0-9a-fA-F]{6}", cell.source)
    ] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_that_was_copied_links_to_nothing_beside_its_folder(name):
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    links = [link for cell in cells for link in re.findall(r"\]\(([^)]+)\)", cell.source)]
    assert {link for link in links if not link.startswith("https://")} <= set(NOTEBOOKS)


def code_with(name, words):
    """The notebook's cell of code that holds these words."""
    cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
    (found,) = [cell.source for cell in cells if cell.cell_type == "code" and words in cell.source]
    return found


def test_the_notebooks_take_a_real_model_where_its_folder_is(tmp_path, monkeypatch):
    import tiny

    for seed, name in enumerate(("rm-helpful", "rm-length")):
        tiny.save(tmp_path / "models" / name, "llama", seed=seed)
    monkeypatch.setenv("RATEKIT_MODELS", str(tmp_path / "models"))
    space = {"reward": None, "out": str(tmp_path / "out"), "n_pairs": 0}
    exec(code_with("07_audit_a_reward_model.ipynb", "train_reward_model"), space)
    assert space["reward"] == tmp_path / "models" / "rm-length"
    space = {"reward": "mine", "out": str(tmp_path / "out"), "n_pairs": 0}
    exec(code_with("07_audit_a_reward_model.ipynb", "train_reward_model"), space)
    assert space["reward"] == "mine"
    seen = []
    exec(code_with("09_merging.ipynb", "RATEKIT_MODELS"), {"rk": rk, "display": seen.append})
    assert {"rm-helpful", "rm-length"} < set(seen[0]["model"])
    assert seen[0]["length"].notna().all()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_in_colab_from_the_repository_that_the_package_names(name):
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    repository = urls["Source"].removeprefix("https://github.com/")
    link = f"(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"
    assert link in nbformat.read(ROOT / "notebooks" / name, as_version=4).cells[0].source


def test_an_exported_page_shows_the_widgets_as_they_were(tmp_path, monkeypatch):
    nbconvert = pytest.importorskip("nbconvert")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    code = "import ratekit as rk\nrk.widgets.Playground(n=100)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()  # with its widgets' state, as nbconvert keeps it
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    seen = re.sub(r"(?s)<script.*?</script>", "", page)  # what a page shows before, and without, any script
    assert "Run this cell in Jupyter to move its sliders" in seen
    assert "Estimates beside the true effect" in seen
