"""Worlds whose true effect is known, to grade estimators and reward models in.

numeric.py   rewards from latents, a million rows in a second
text.py      reviews from latents, with true counterfactual twins: the truth of any reward model
reward.py    a reward by rules that reads those reviews
grading.py   `calibrate` and `sweep`: what each estimator says beside the truth

>>> import ratekit as rk
>>> table = rk.simulate.calibrate("vader", n=100)  # or a folder, a hub id, any (prompts, responses) -> rewards
"""

from __future__ import annotations

from ratekit.simulate.grading import DESIGNS, WORLDS, Design, calibrate, slopes, sweep
from ratekit.simulate.numeric import Imperfections, NumericWorld, Sample
from ratekit.simulate.reward import RuleReward
from ratekit.simulate.text import TextSample, TextWorld

__all__ = [
    "DESIGNS", "WORLDS", "Design", "Imperfections", "NumericWorld", "RuleReward", "Sample", "TextSample", "TextWorld",
    "calibrate", "slopes", "sweep",
]  # fmt: skip
