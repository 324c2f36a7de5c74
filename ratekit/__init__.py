"""ratekit: what does this reward model really reward?

Causal effects of an attribute on a reward, by rewriting twice (RATE; Reber et al. 2025, arXiv 2410.11348).

    import ratekit as rk
    ds = rk.load("reviews", attribute="sentiment")
    ds = rk.score(ds, "vader")
    rk.plots.effects(rk.estimate(ds))
"""

from __future__ import annotations

from ratekit.lazy import lazy_names

__version__ = "0.1.0"

# The public names and where each lives; nothing is imported before it is used.
_PUBLIC = {
    # stages
    "load": "sources.loading",
    "label": "stages",
    "rewrite": "stages",
    "score": "stages",
    "estimate": "stages",
    "standardize": "stages",
    # what to vary, with what to rewrite, what to score
    "Attribute": "attributes",
    "ATTRIBUTES": "attributes",
    "SOURCES": "sources.public",
    "ESTIMATORS": "estimators",
    "REWARD_MODELS": "scoring",
    "check_reward": "scoring.check_reward",
    "Rewrite": "rewriting.base",
    "Reply": "rewriting.base",
    "RuleRewriter": "rewriting.rules",
    "ChatRewriter": "rewriting.chat",
    "OpenAIChat": "rewriting.openai_chat",
    "BatchChat": "rewriting.batch",
    "LocalChat": "rewriting.local",
    # what to ask of the result
    "diagnose": "diagnostics",
    "contrast": "diagnostics",
    "sensitivity": "diagnostics",
    "heterogeneity": "diagnostics",
    "spillover": "diagnostics",
    "dose_response": "diagnostics",
    "warranted": "diagnostics",
    "plan": "diagnostics",
    "sequential": "diagnostics",
    "adjust": "resampling",
    "bootstrap": "resampling",
    # to show it to somebody
    "report": "reports",
    # the paper's own numbers
    "published": "reproduce.facts",
    # merging reward models
    "TAXONOMY": "merging.taxonomy",
    # faults
    "InputError": "errors",
    "WorkError": "errors",
}
_MODULES = (
    "plots", "demo", "estimators", "attributes", "sources", "rewriting", "scoring", "simulate",
    "measures", "resampling", "diagnostics", "merging", "reports", "reproduce", "widgets",
)  # fmt: skip

__all__ = [*_PUBLIC, "plots", "__version__"]

__getattr__, __dir__ = lazy_names("ratekit", {**_PUBLIC, **dict.fromkeys(_MODULES, "")})
