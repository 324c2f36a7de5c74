"""Widgets for Jupyter: look at rewrites, play with a world whose truth is known, prototype an attribute, read effects.

explorer.py       `Explorer(ds)`: row by row; cards.py, facts.py, changes.py: what it shows and picks
playground.py     `Playground()`: sliders over a simulated world; scenes.py, scene_picture.py: the world, its picture
attribute_lab.py  `AttributeLab(ds, rewriter, reward)`; prototypes.py, trials.py: an attribute's code; versions compared
dashboard.py      `EffectsDashboard(table)`; board.py: the numbers and pictures behind it
controls.py, work.py, progress.py   what they share: menus and the static fallback; work in a thread, to be cancelled

Each widget joins controls to pure functions in a module beside it that needs no ipywidgets. Only here is ipywidgets
imported, and not before a widget is asked for.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
