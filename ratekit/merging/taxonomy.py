"""The classes of model merging, with what ratekit offers of each: a notebook's table of contents.

The three classes and the names of the four aspects are those of Khan et al., "Deep Model Merging" (arXiv 2410.12927).
Which class a technique stands in is decided here, by what the paper named beside it does; the aspects have working
definitions of this package, each from the papers named beside it. Neither is quoted from the survey.

    for technique in TAXONOMY["ensembling"]:
        print(technique.name, technique.reference, technique.here)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


class Technique(NamedTuple):
    """A way to make one model of several; `here` is how ratekit does it, "" where it does not."""

    name: str
    group: str
    reference: str
    here: str = ""


class Aspect(NamedTuple):
    """One of the survey's four aspects of the loss landscape, by a working definition."""

    definition: str
    evidence: str
    here: str


OUTPUTS, AVERAGE, TASK, INFORMED, MATCHED = "outputs", "averaging", "task vectors", "information weighted", "alignment"

TAXONOMY: dict[str, tuple[Technique, ...]] = {
    "ensembling": (
        Technique("output ensemble", OUTPUTS, "Lakshminarayanan et al. 2017, arXiv 1612.01474", "ensemble"),
        Technique("snapshot ensemble", OUTPUTS, "Huang et al. 2017, arXiv 1704.00109", "ensemble"),
        Technique("reward-model ensemble", OUTPUTS, "Eisenstein et al. 2023, arXiv 2312.09244", "ensemble"),
    ),
    "weight aggregation": (
        Technique("uniform soup", AVERAGE, "Wortsman et al. 2022, arXiv 2203.05482", 'merge(..., "soup")'),
        Technique("weighted average", AVERAGE, "Wortsman et al. 2022, arXiv 2203.05482", 'merge(..., "linear")'),
        Technique("greedy soup", AVERAGE, "Wortsman et al. 2022, arXiv 2203.05482", "greedy"),
        Technique("WARM", AVERAGE, "Ramé et al. 2024, arXiv 2401.12187", 'merge(..., "soup")'),
        Technique("WiSE-FT", AVERAGE, "Wortsman et al. 2021, arXiv 2109.01903", "wise_ft"),
        Technique("SWA", AVERAGE, "Izmailov et al. 2018, arXiv 1803.05407", 'merge(..., "soup")'),
        Technique("SLERP", AVERAGE, "Shoemake 1985", 'merge(..., "slerp")'),
        Technique("NuSLERP", AVERAGE, "mergekit", 'merge(..., "nuslerp")'),
        Technique("Multi-SLERP", AVERAGE, "mergekit", 'merge(..., "multislerp")'),
        Technique("Karcher mean", AVERAGE, "arXiv 2603.04972", 'merge(..., "karcher")'),
        Technique("Model Stock", AVERAGE, "Jang et al. 2024, arXiv 2403.19522", 'merge(..., "model_stock")'),
        Technique("NearSwap", AVERAGE, "mergekit", 'merge(..., "nearswap")'),
        Technique("Arcee Fusion", AVERAGE, "mergekit", 'merge(..., "arcee_fusion")'),
        Technique("task arithmetic", TASK, "Ilharco et al. 2022, arXiv 2212.04089", 'merge(..., "task_arithmetic")'),
        Technique("TIES", TASK, "Yadav et al. 2023, arXiv 2306.01708", 'merge(..., "ties")'),
        Technique("DARE", TASK, "Yu et al. 2023, arXiv 2311.03099", 'merge(..., "dare_linear")'),
        Technique("DARE with TIES", TASK, "Yu et al. 2023, arXiv 2311.03099", 'merge(..., "dare_ties")'),
        Technique("DELLA", TASK, "Deep et al. 2024, arXiv 2406.11617", 'merge(..., "della")'),
        Technique("DELLA, summed", TASK, "Deep et al. 2024, arXiv 2406.11617", 'merge(..., "della_linear")'),
        Technique("Breadcrumbs", TASK, "Davari and Belilovsky 2023, arXiv 2312.06795", 'merge(..., "breadcrumbs")'),
        Technique("Breadcrumbs with TIES", TASK, "Davari and Belilovsky 2023, arXiv 2312.06795",
                  'merge(..., "breadcrumbs_ties")'),
        Technique("SCE", TASK, "Wan et al. 2024, arXiv 2408.07990", 'merge(..., "sce")'),
        Technique("RAM", TASK, "arXiv 2601.13572", 'merge(..., "ram")'),
        Technique("RAM+", TASK, "arXiv 2601.13572", 'merge(..., "ramplus_tl")'),
        Technique("LoRA into weights", TASK, "Hu et al. 2021, arXiv 2106.09685", "merge_lora"),
        Technique("Fisher merging", INFORMED, "Matena and Raffel 2021, arXiv 2111.09832", "fisher"),
        Technique("RegMean", INFORMED, "Jin et al. 2022, arXiv 2212.09849", "regmean"),
    ),
    "neuron alignment": (
        Technique("optimal-transport fusion", MATCHED, "Singh and Jaggi 2019, arXiv 1910.05653"),
        Technique("Git Re-Basin, weight matching", MATCHED, "Ainsworth et al. 2022, arXiv 2209.04836", "align"),
        Technique("REPAIR", MATCHED, "Jordan et al. 2022, arXiv 2211.08403"),
        Technique("ZipIt!", MATCHED, "Stoica et al. 2023, arXiv 2305.03053"),
        Technique("symmetries of transformers", MATCHED, "arXiv 2403.00986, 2506.22712", "align"),
    ),
}  # fmt: skip

ASPECTS: dict[str, Aspect] = {
    "mode convexity": Aspect(
        "convex mixes of solutions in one region of low loss are no worse than the average of their losses",
        "Gueta et al. 2023, arXiv 2302.04863; model soups; WARM",
        "convexity",
    ),
    "mode determinism": Aspect(
        "which mode a run ends in is fixed early",
        "Frankle et al. 2019, arXiv 1912.05671; Fort et al. 2020, arXiv 2010.15110; against it Juneja et al. 2022, "
        "arXiv 2205.12411",
        "determinism",
    ),
    "mode directedness": Aspect(
        "a few directions govern loss and behaviour",
        "He et al. 2019, arXiv 1902.00744; task vectors",
        "directedness",
    ),
    "mode connectivity": Aspect(
        "paths of low loss join the modes, perhaps only up to a symmetry",
        "Garipov et al. 2018, arXiv 1802.10026; Entezari et al. 2021, arXiv 2110.06296; Git Re-Basin; arXiv 2506.22712",
        "connectivity",
    ),
}


def taxonomy_table() -> pd.DataFrame:
    """`TAXONOMY` as a table: class, group, technique, reference, and how it is done here.

    Examples
    --------
    >>> taxonomy_table().groupby("class", sort=False).size().to_dict()
    {'ensembling': 3, 'weight aggregation': 27, 'neuron alignment': 5}
    """
    import pandas as pd

    return pd.DataFrame(
        [{"class": of, "group": t.group, "technique": t.name, "reference": t.reference, "ratekit.merging": t.here}
         for of, techniques in TAXONOMY.items() for t in techniques]
    )  # fmt: skip
