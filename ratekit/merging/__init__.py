"""Merging reward models, and what it does to what they reward. A model is a state dict or a model folder.

    import ratekit as rk
    merged = rk.merging.merge(["rm-a", "rm-b"], "ties", base="base", out="merged")
    table = rk.merging.audit(["rm-a", "rm-b"], ds, ["linear", "ties"], base="base", pairs=pairs)

A metric is `f(state_dict) -> float`, and a RATE effect is one, like the loss. Nothing is imported before it is used.
"""

from __future__ import annotations

from ratekit.lazy import lazy_names

_PUBLIC = {
    # one model of several
    "merge": "mergers",
    "METHODS": "methods",
    "merge_lora": "states",
    "ensemble": "ensembles",
    "greedy": "ensembles",
    "wise_ft": "ensembles",
    "fisher": "information",
    "regmean": "information",
    "fisher_information": "information",
    "gram_matrices": "information",
    "audit": "auditing",
    "TAXONOMY": "taxonomy",
    "ASPECTS": "taxonomy",
    "taxonomy_table": "taxonomy",
    # state dicts and folders
    "load_state": "states",
    "save_state": "writing",
    "check_states": "states",
    "line_state": "states",
    "combine": "states",
    # metrics
    "Estimate": "metrics",
    "Instrument": "metrics",
    "reward_from": "rewards",
    "effect_metric": "metrics",
    "accuracy_metric": "metrics",
    "loss_metric": "metrics",
    # permutations
    "align": "alignment",
    "symmetries_of": "symmetries",
    # paths, what happens along them, and where an effect is zero
    "line": "landscape",
    "direction": "landscape",
    "bezier": "landscape",
    "profile": "landscape",
    "barrier": "landscape",
    "nonlinearity": "landscape",
    "convexity": "probes",
    "determinism": "probes",
    "directedness": "probes",
    "connectivity": "probes",
    "zero_effect": "solve",
}

__all__ = [*_PUBLIC]

__getattr__, __dir__ = lazy_names("ratekit.merging", _PUBLIC)
