"""ratekit: what does this reward model really reward?

Causal effects of an attribute on a reward, by rewriting twice (RATE; Reber et al. 2025, arXiv 2410.11348).

    import ratekit as rk
    ds = rk.load("reviews", attribute="sentiment")
    ds = rk.score(ds, "vader")
    rk.plots.effects(rk.estimate(ds))
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
