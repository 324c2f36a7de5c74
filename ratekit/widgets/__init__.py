"""Widgets for Jupyter: look at rewrites, play with a world whose truth is known, prototype an attribute, read effects.

explorer.py       `Explorer(ds)`: row by row; explorer_rows.py picks rows, explorer_html.py shows one
playground.py     `Playground()`: sliders over a simulated world; playground_world.py, playground_figure.py: its picture
playground_page.py  the same as one page without a kernel, from playground.html
attribute_lab.py  `AttributeLab(ds, rewriter, reward)`; attribute_draft.py: its code; attribute_trials.py: versions
dashboard.py      `EffectsDashboard(audit)`; dashboard_html.py: the numbers and pictures behind it
shared.py         what they share: menus, what is left where no kernel runs, work in a thread; progress.py: its progress

Each widget joins controls to pure functions in a module beside it that needs no ipywidgets. Only here is ipywidgets
imported, and not before a widget is asked for.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
