"""The house stands: floors, lazy imports, one list of dependencies, notebooks without outputs."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "docs"))

from house import PACKAGE, floors, imported_modules, imports, picture

MODULES = imports()
ROWS = [row for floor in floors() for row in floor]
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module):
    room = module.partition(".")[0]
    assert room in ROW_OF, f"{room} stands on no floor: name it in pyproject.toml under [tool.ratekit]"
    for other in MODULES[module]:
        below = other.partition(".")[0]
        assert below == room or ROW_OF[below] < ROW_OF[room], f"{module} imports {other}, which is no lower room"


def test_every_room_stands_on_a_floor_once_and_in_the_picture():
    rooms = [room for row in ROWS for room in row]
    assert sorted(rooms) == sorted({module.partition(".")[0] for module in MODULES})
    drawn = picture()
    assert all(f">{room}</text>" in drawn for room in rooms)


def test_imports_have_no_cycle():
    seen, open_ = set(), []

    def visit(module):
        assert module not in open_, " -> ".join([*open_, module])
        if module not in seen:
            open_.append(module)
            for other in MODULES[module] - {module}:
                visit(other)
            open_.pop()
            seen.add(module)

    for module in MODULES:
        visit(module)


def test_the_import_test_would_notice(tmp_path):
    offender = tmp_path / "offender.py"
    offender.write_text("def f():\n    from ratekit.cli import main\n")
    assert set(imported_modules(offender)) == {"cli"}


HEAVY = ("torch", "transformers", "datasets", "matplotlib", "seaborn", "ipywidgets", "pandas", "openai")


def loaded_after(code):
    script = f"import sys\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return ast.literal_eval(out.splitlines()[-1])


def test_import_ratekit_loads_nothing_heavy():
    assert loaded_after("import ratekit") == []
    assert loaded_after("import ratekit; ratekit.ESTIMATORS, ratekit.ATTRIBUTES, ratekit.REWARD_MODELS") == []
    assert "torch" in loaded_after("import ratekit, torch")  # the probe sees what is there


def test_estimating_loads_no_model_library():
    code = (
        "import pandas as pd, ratekit as rk\n"
        "rk.estimate(pd.DataFrame({'prompt_id': list('abcd'), 'attribute': 'x', 'treated': [True, False] * 2,"
        " 'reward/r': [[1., 2.], [2., 4.], [3., 1.], [5., 2.]]}))"
    )
    assert {"torch", "transformers", "datasets", "matplotlib"}.isdisjoint(loaded_after(code))


def test_every_public_name_resolves():
    import ratekit

    assert {"load", "label", "rewrite", "score", "estimate", "diagnose", "contrast", "sensitivity", "plots"} <= set(
        ratekit.__all__
    )
    for name in ratekit.__all__:
        assert getattr(ratekit, name) is not None
        assert name in dir(ratekit)
        room = getattr(ratekit, name)
        lost = [n for n in getattr(room, "__all__", ()) if inspect.ismodule(room) and not hasattr(room, n)]
        assert not lost, (name, lost)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ratekit.nonsense


# --- set-up ----------------------------------------------------------------------------------------------


def requirement(text):
    name, _, version = re.match(r"\s*([\w.-]+)(\[[^\]]*\])?\s*(.*)", text).groups()
    return name.lower().replace("_", "-"), version.replace(" ", "")


def test_environment_yml_names_the_dependencies_of_pyproject():
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = dict(map(requirement, project["dependencies"]))
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(requirement(d) for d in listed if isinstance(d, str))
    assert conda.pop("python") == project["requires-python"]
    conda.pop("pip")
    conda["torch"] = conda.pop("pytorch")  # conda's name for it
    assert conda == ours
    assert {"pip": ["-e ."]} in listed


def test_the_licence_of_every_dependency_is_listed():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / "docs" / "licences.md").read_text()
    for text in [*project["dependencies"], *(d for ds in project["optional-dependencies"].values() for d in ds)]:
        name = re.split(r"[<>=]", text)[0]
        assert re.search(rf"^\| {name} \| .+ \| \w.+ \|$", listed, re.MULTILINE), name


def test_constraints_pin_every_dependency_exactly():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    pins = dict(requirement(line.split(";")[0]) for line in lines)
    assert all(version.startswith("==") for version in pins.values())
    for text in [
        *project["dependencies"],
        *(d for extra in ("dev", "docs") for d in project["optional-dependencies"][extra]),
    ]:
        assert requirement(text)[0] in pins, text


def test_no_pickle_is_read_or_written():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"\bpickle\b|torch\.(load|save)\(", text), path


def test_notebooks_are_committed_without_outputs():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), f"{path.name} holds outputs"
            assert cell.get("execution_count") is None, f"{path.name} holds execution counts"


# The picture of a table bears the name of what computes it; a merge is audited as a reward is.
IN_TWO_ROOMS = {"effects", "sweep", "dose_response", "spillover", "audit", "planned"}


def defined(tree):
    """The public names that a module defines itself, not those that it imports."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id


def test_a_name_means_one_thing():
    """Commands and their options are named for what they pass on, so the `cli` room is left out."""
    places = {}
    for path in sorted((ROOT / "ratekit").rglob("*.py")):
        where = str(path.relative_to(ROOT / "ratekit"))
        if not where.startswith("cli"):
            for name in set(defined(ast.parse(path.read_text(encoding="utf-8")))):
                places.setdefault(name, []).append(where)
    twice = {n: p for n, p in places.items() if len(p) > 1 and not n.startswith("_") and n != "log"}
    assert set(twice) == IN_TWO_ROOMS, twice
