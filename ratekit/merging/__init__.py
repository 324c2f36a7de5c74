"""Merging reward models, and what it does to what they reward. A model is a state dict or a model folder.

    import ratekit as rk
    merged = rk.merging.merge(["rm-a", "rm-b"], "ties", base="base", out="merged")
    table = rk.merging.audit(["rm-a", "rm-b"], ds, ["linear", "ties"], base="base", pairs=pairs)

A metric is `f(state_dict) -> float`, and a RATE effect is one, like the loss. Nothing is imported before it is used.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
