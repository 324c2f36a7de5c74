"""The documentation site: `make docs` writes docs/_build/html from the docstrings, the notebooks and these pages.

API pages are generated from the public names, so that a new one cannot be forgotten. Nothing on the
site comes from another host.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from house import picture  # noqa: E402

import ratekit  # noqa: E402
from ratekit.widgets import playground_page  # noqa: E402

project, author, version = "ratekit", "The ratekit authors", ratekit.__version__
copyright = "The ratekit authors, Apache-2.0"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]
napoleon_google_docstring = False
default_role = "code"
napoleon_use_rtype = False
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "ratekit"
html_show_sourcelink = False
html_static_path, html_css_files = ["_static"], ["site.css"]
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": {"api/*": ["page-toc"], "*": []},  # code and pictures want the width
    "footer_end": [],
}
html_sidebars = {"index": [], "first-ten-minutes": []}
# Notebooks run while the site is built, so that it shows their pictures; RATEKIT_DOCS=quick leaves them unrun.
nb_execution_mode = "off" if os.environ.get("RATEKIT_DOCS") == "quick" else "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_ipywidgets_js: dict[str, object] = {}  # widgets need a kernel; their scripts would come from another host
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]  # so their still pictures show
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Bools", "Floats", "Ints", "Label", "Measure", "Reward")}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
suppress_warnings = ["mystnb.unknown_mime_type"]

# (page, title, what it is about, names): a name that ends in .* stands for all that a package makes public.
PAGES = [
    ("pipeline", "The pipeline", "One row is one response under one attribute; each stage adds columns.",
     ["load", "label", "rewrite", "placebo", "score", "estimate", "standardize"]),
    ("inputs", "Attributes, sources and estimators", "The tables that menus, the command and the tests read.",
     ["Attribute", "ATTRIBUTES", "SOURCES", "ESTIMATORS", "estimators.Estimator", "estimators.Effect",
      "estimators.convergence"]),
    ("rewriters", "Rewriters", "What rewrites a response: rules, or a language model behind one of three doors.",
     ["Rewrite", "Reply", "RuleRewriter", "ChatRewriter", "OpenAIChat", "BatchChat", "LocalChat", "rewriting.Options"]),
    ("rewards", "Reward models", "A reward is any callable (prompts, responses) -> (n,) numbers.",
     ["REWARD_MODELS", "check_reward"]),
    ("diagnostics", "Diagnostics and planning", "Can it be trusted, what does it mean, how many more rows?",
     ["diagnose", "contrast", "sensitivity", "heterogeneity", "across_rewriters", "spillover", "dose_response",
      "warranted", "adjusted", "refusal_bounds", "plan",
      "sequential", "adjust"]),
    ("cards", "Bias cards", "All biases of reward models or judges, on one page.",
     ["card", "cards.Card", "cards.leaderboard"]),
    ("verification", "Verification", "Whether an audit's numbers are those of its texts, rewards and seeds.",
     ["verify", "Verification"]),
    ("gates", "Gates", "Whether an effect is shown to be small: for a build and for tests.",
     ["gate", "assert_effect_below", "gates.Gate", "gates.Bound"]),
    ("discovery", "Discovery", "What a reward pays for that nobody thought to ask about.",
     ["discover", "discovery.Discovery", "discovery.ChatProposer", "discovery.Pair"]),
    ("callbacks", "During training", "The effects of a reward model while it is trained.", ["AuditCallback"]),
    ("reach", "Reach", "What choosing responses by a reward does to each attribute, before and after a mitigation.",
     ["reach", "best_of_n.Reach", "best_of_n.Regime", "best_of_n.best_of", "best_of_n.tilted"]),
    ("merging", "Merging", "Reward models merged, and what that does to what they reward.",
     ["merging.*", "TAXONOMY", "merging.METHODS", "merging.ASPECTS"]),
    ("plots", "Plots", "A table in, a matplotlib Axes out; nothing is estimated here.", ["plots.*"]),
    ("widgets", "Widgets", "For Jupyter: controls joined to pure functions.", ["widgets.*"]),
    ("exercises", "Exercises", "The exercises of the notebooks, and questions with numbers of their own.",
     ["exercises.check", "exercises.question", "exercises.assignment", "exercises.scores"]),
    ("report", "Report", "One page for somebody who has never heard of RATE.", ["report"]),
    ("reproduce", "The paper's experiments", "Run them by name, and hold the result against what was published.",
     ["published", "reproduce.run", "reproduce.planned", "reproduce.compare", "reproduce.push", "reproduce.experiments",
      "reproduce.get_experiment", "reproduce.Experiment", "reproduce.Sweep"]),
    ("simulate", "Worlds whose truth is known", "To grade estimators and reward models in.", ["simulate.*"]),
    ("errors", "Faults", "Two faults are expected, told apart by who can mend them.", ["InputError", "WorkError"]),
]  # fmt: skip


def generate(app: object) -> None:
    """Write the API pages, and bring the notebooks where Sphinx reads them."""
    named = {name for *_, names in PAGES for name in names}
    rest = [name for name in ratekit.__all__ if name not in named and not inspect.ismodule(getattr(ratekit, name))]
    pages = [*PAGES, ("more", "More", "What else is public.", rest)] if rest else PAGES
    (HERE / "architecture.svg").write_text(picture(), encoding="utf-8")
    playground_page.write_page(HERE / "_static" / "playground.html")
    folder = fresh(HERE / "api")
    for slug, title, about, names in pages:
        directives = "\n".join(directive(name) for name in names if not name.endswith(".*"))
        for package in (name.removesuffix(".*") for name in names if name.endswith(".*")):
            members = getattr(importlib.import_module(f"ratekit.{package}"), "__all__", [])
            directives += "\n".join(directive(f"{package}.{member}") for member in members if not member.isupper())
        text = f"# {title}\n\n{about}\n\n```{{eval-rst}}\n.. module:: ratekit\n   :no-index:\n\n{directives}\n```\n"
        (folder / f"{slug}.md").write_text(text, encoding="utf-8")
    listed = "\n".join(slug for slug, *_ in pages)
    (folder / "index.md").write_text(f"# API reference\n\n```{{toctree}}\n{listed}\n```\n", encoding="utf-8")
    notebooks = fresh(HERE / "notebooks")
    found = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
    for path in found:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = on_site("".join(cell["source"]), {p.name for p in found})
        (notebooks / path.name).write_text(json.dumps(notebook), encoding="utf-8")
    listed = "\n".join(path.stem for path in found)
    (notebooks / "index.md").write_text(f"# Notebooks\n\n```{{toctree}}\n{listed}\n```\n", encoding="utf-8")


def on_site(text: str, notebooks: set[str]) -> str:
    """The text with links to files that are in the repository and not on the site as the files' names."""

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        if target.startswith(("http", "#")) or target.partition("#")[0] in notebooks:
            return match[0]
        return f"{words} (`{target.removeprefix('../')}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, text)


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def directive(name: str) -> str:
    """What tells Sphinx to document `ratekit.<name>`."""
    place, _, last = name.rpartition(".")
    module = importlib.import_module(f"ratekit.{place}") if place else ratekit
    value = getattr(module, last)
    if isinstance(value, dict):
        keys = ", ".join(f"``{key}``" for key in value)
        return f".. py:data:: {name}\n   :no-index:\n\n   Known names: {keys}.\n"
    kind = "autoclass" if isinstance(value, type) else "autofunction"
    shown = isinstance(value, type) and not issubclass(value, Exception) and not hasattr(value, "_fields")
    members = "\n   :members:" if shown else ""
    return f".. {kind}:: ratekit.{name}{members}\n"


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)  # type: ignore[attr-defined]
