"""The methods that `merge` knows: one literal each, with what it needs, its parameters and its source.

    METHODS["slerp"].parameters       {"t": 0.5}
    recipe("ties:density=0.5")        ("ties", {"density": 0.5})

`linear`, `soup` and `wise_ft` are sums and made here; the others are mergekit's (optional extra `merge`), whose names,
parameters and defaults they keep. Where mergekit has no default (weight), or one that switches the method off
(density 1), the value is that of the paper or of mergekit's examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratekit.errors import InputError, require_known

Value = float | bool | None


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`.

    Parameters
    ----------
    base
        "none", "optional" or "needed": the model that the others were tuned from
    models
        how few and how many models it takes, the base not counted
    parameters
        name -> default; `weight` may be one number or one for each model, None is 1/k
    singles
        how a tensor of one element is merged, in which nothing can be trimmed, dropped or turned: by the method's "own"
        formula, which is a sum; as the weighted "mean" of the models'; or as "task" vectors are summed when nothing is
        trimmed
    memory
        bytes for an element while two models and a base are merged (measured: benchmarks/merging.py)
    """

    name: str
    claim: str
    reference: str
    base: str = "none"
    models: tuple[int, int | None] = (1, None)
    parameters: dict[str, Value] = field(default_factory=dict)
    singles: str = "mean"
    memory: int = 16
    kit: bool = True
    random: bool = False

    @property
    def pair(self) -> bool:
        """Whether it goes from one model, which may be the base, to another."""
        return self.models == (2, 2) and self.base == "none"

    def takes_base(self, n_models: int) -> bool:
        """Whether it looks at a base beside so many models.

        Examples
        --------
        >>> METHODS["linear"].takes_base(2), METHODS["slerp"].takes_base(1), METHODS["ties"].takes_base(2)
        (False, True, True)
        """
        return self.base != "none" or (self.pair and n_models == 1)


# What methods of task vectors share: a sum of them, each with weight 1/k, or an average of those that agree in sign.
_SUM: dict[str, Value] = {"weight": None, "lambda_": 1.0, "normalize": False}
_MEAN: dict[str, Value] = {"weight": 1.0, "lambda_": 1.0, "normalize": True}
_TRIM: dict[str, Value] = {"density": 0.2, "rescale": False}
_DROP: dict[str, Value] = {"density": 0.5, "rescale": True}
_DELLA: dict[str, Value] = {**_DROP, "epsilon": 0.15}
_CRUMBS: dict[str, Value] = {"density": 0.9, "gamma": 0.01, "rescale": False}


def _from_base(name: str, claim: str, reference: str, parameters: dict[str, Value], memory: int, **more: Any) -> Method:
    """A method of task vectors: what tuning added to the base."""
    return Method(name, claim, reference, "needed", parameters=parameters, memory=memory, **{"singles": "task", **more})


_LIST = (
    # sums of weights
    Method("linear", "weighted average", "arXiv 2203.05482", parameters={"weight": 1.0, "normalize": True},
           singles="own", kit=False),
    Method("soup", "plain average: a uniform soup, WARM", "arXiv 2203.05482, 2401.12187", singles="own", kit=False),
    Method("wise_ft", "from the base towards the models' average", "arXiv 2109.01903", "needed",
           parameters={"alpha": 0.5}, singles="own", kit=False),
    # along the sphere
    Method("slerp", "arc from one model to the other", "Shoemake 1985", models=(2, 2), parameters={"t": 0.5},
           singles="own", memory=18),
    Method("nuslerp", "arc between task vectors, or between models where there is no base", "mergekit", "optional",
           models=(2, 2), parameters={"weight": 1.0, "nuslerp_row_wise": False, "nuslerp_flatten": True},
           singles="own", memory=46),
    Method("multislerp", "average in a tangent space of the sphere", "mergekit", "optional",
           parameters={"weight": 1.0, "normalize_weights": True, "eps": 1e-8}, memory=58),
    Method("karcher", "Karcher mean on the sphere", "arXiv 2603.04972", parameters={"max_iter": 10, "tol": 1e-5},
           memory=46),
    # between the base and the average
    Method("model_stock", "from the base towards the average as far as the models agree", "arXiv 2403.19522", "needed",
           models=(2, None), parameters={"filter_wise": False}, memory=38),
    # task vectors
    _from_base("task_arithmetic", "sum of task vectors", "arXiv 2212.04089", _SUM, 32, singles="own"),
    _from_base("ties", "largest entries, signs elected, mean of those that agree", "arXiv 2306.01708",
               {**_MEAN, **_TRIM}, 52),
    _from_base("dare_linear", "random entries, rescaled; sum", "arXiv 2311.03099", {**_SUM, **_DROP}, 44, random=True),
    _from_base("dare_ties", "random entries, rescaled; signs elected", "arXiv 2311.03099", {**_SUM, **_DROP}, 44,
               random=True),
    _from_base("della_linear", "random entries, large ones likelier; sum", "arXiv 2406.11617", {**_SUM, **_DELLA}, 60,
               random=True),
    _from_base("della", "random entries, large ones likelier; signs elected", "arXiv 2406.11617", {**_MEAN, **_DELLA},
               60, random=True),
    _from_base("breadcrumbs", "without the largest and smallest entries; sum", "arXiv 2312.06795",
               {**_SUM, **_CRUMBS}, 46),
    _from_base("breadcrumbs_ties", "without the largest and smallest entries; signs elected", "arXiv 2312.06795",
               {**_SUM, **_CRUMBS}, 48),
    _from_base("sce", "weighted by how much a tensor changed; signs elected", "arXiv 2408.07990", {"select_topk": 1.0},
               44, singles="mean"),
    _from_base("ram", "shared changes averaged, those of one model kept", "arXiv 2601.13572", {"epsilon": 1e-5}, 78,
               singles="mean"),
    _from_base("ramplus_tl", "ram, with the changes of one model made larger", "arXiv 2601.13572",
               {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}, 78, singles="mean"),
    # from one model to another
    Method("nearswap", "towards the second by at most t", "mergekit", models=(2, 2), parameters={"t": 1e-4}, memory=30),
    Method("arcee_fusion", "the second's largest changes put into the first", "mergekit", models=(2, 2), memory=30,
           random=True),
    Method("passthrough", "one model, its weights times `scale`", "mergekit", models=(1, 1), parameters={"scale": 1.0},
           singles="own"),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _LIST}


def find_method(name: str) -> Method:
    """The method of that name. Raises InputError with the nearest names.

    Examples
    --------
    >>> find_method("ties").base
    'needed'
    """
    require_known("merge method", name, METHODS)
    return METHODS[name]


def recipe(text: str) -> tuple[str, dict[str, Any]]:
    """A method and its parameters from one word, as on the command line.

    Examples
    --------
    >>> recipe("ties:density=0.5,normalize=false")
    ('ties', {'density': 0.5, 'normalize': False})
    >>> recipe("linear:weight=1;2")
    ('linear', {'weight': [1.0, 2.0]})
    """
    name, _, rest = text.partition(":")
    find_method(name)
    params: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key in params:
            twice = f"{key} is there twice; " if key in params else ""
            raise InputError(f"{text}: {twice}write parameters as name=value, as in ties:density=0.5,lambda_=1")
        try:
            numbers = [_number(v) for v in value.split(";")]
        except ValueError:
            raise InputError(f"{text}: {key} is a number, true or false, or numbers parted by ';'") from None
        params[key] = numbers if len(numbers) > 1 else numbers[0]
    return name, params


def _number(text: str) -> float | bool:
    word = text.strip().lower()
    return word == "true" if word in ("true", "false") else float(word)


def checked_parameters(method: Method, given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The method's parameters with those given put in; weights as one number for each of the models `names`.

    Raises
    ------
    InputError
        For a parameter that the method does not have and for a value that it cannot have.
    """
    for key in given:
        require_known(f"parameter of {method.name}", key, method.parameters)
    params: dict[str, Any] = {**method.parameters, **given}
    for key, value in params.items():
        default = method.parameters[key]
        if key == "weight":
            params[key] = _weights(method.name, value, names)
        elif isinstance(default, bool):
            if not isinstance(value, bool):
                raise InputError(f"{method.name}: {key}={value!r}; True or False was expected")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{method.name}: {key}={value!r}; a number was expected")
    density = params.get("density")
    if density is not None and not 0 < density <= 1:
        raise InputError(f"{method.name}: density={density}; the share of entries kept is over 0 and at most 1")
    if "epsilon" in params and density is not None and density < 1:
        epsilon = params["epsilon"]
        if not (epsilon >= 0 and density - epsilon > 0 and density + epsilon < 1):
            raise InputError(
                f"{method.name}: density={density} with epsilon={epsilon}; density - epsilon and density + epsilon "
                "must lie between 0 and 1"
            )
    for key in ("gamma", "select_topk"):
        if key in params and not 0 <= params[key] <= 1:
            raise InputError(f"{method.name}: {key}={params[key]}; a share between 0 and 1 was expected")
    if "max_iter" in params:
        if params["max_iter"] != int(params["max_iter"]) or params["max_iter"] < 1:
            raise InputError(f"{method.name}: max_iter={params['max_iter']}; a whole number of at least 1 was expected")
        params["max_iter"] = int(params["max_iter"])
    if params.get("normalize", params.get("normalize_weights")) and abs(sum(params["weight"])) < 1e-8:
        raise InputError(f"{method.name}: the weights add up to 0, so they cannot be normalized (normalize=False)")
    return params


def _weights(method: str, value: Any, names: Sequence[str]) -> list[float]:
    if value is None:
        return [1.0 / len(names)] * len(names)
    if isinstance(value, Mapping):
        missing = [n for n in names if n not in value]
        if missing or len(value) != len(names):
            odd = missing or [str(n) for n in value if n not in names]
            raise InputError(f"{method}: weight names the models {', '.join(names)}; {odd[0]!r} is amiss")
        value = [value[n] for n in names]
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = [value] * len(names)
    if len(value) != len(names):
        raise InputError(f"{method}: {len(value)} weights for {len(names)} models")
    for v in value:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            raise InputError(f"{method}: weight {v!r}; a number was expected")
    return [float(v) for v in value]
