"""The documentation: the site builds without a warning."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path):
    pytest.importorskip("myst_nb", reason="the site's packages are not installed: pip install -e '.[docs]'")
    environment = {**os.environ, "RATEKIT_DOCS": "quick", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    import ratekit

    api = "".join(path.read_text() for path in (tmp_path / "api").glob("*.html"))
    for name in (n for n in ratekit.__all__ if not inspect.ismodule(getattr(ratekit, n))):
        assert f'id="ratekit.{name}"' in api or f">{name}<" in api, name
    for path in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="(https?:[^"]+)"', path.read_text())
        assert not loaded, f"{path.name} loads {loaded[0]}"


def test_what_the_notebooks_import_is_there():
    import ast
    import importlib

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "ratekit":
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    assert hasattr(module, name.name), f"{path.name}: {node.module} has no {name.name}"
