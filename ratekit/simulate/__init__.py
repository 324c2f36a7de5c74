"""Worlds whose true effect is known, to grade estimators in.

numeric.py    latents to rewards, a million rows in a second
"""

from __future__ import annotations

from ratekit.simulate.numeric import Imperfections, NumericWorld, Sample

__all__ = ["Imperfections", "NumericWorld", "Sample"]
