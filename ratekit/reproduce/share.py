"""A run as something to share: its dataset card, and its way to the hub, so that nobody pays for the rewrites again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratekit import __version__, files
from ratekit.audits import folder as on_disk
from ratekit.errors import InputError
from ratekit.reproduce.experiment import Experiment
from ratekit.rewriting.archive import upload_folder
from ratekit.schema import columns_of, reward_columns, reward_models
from ratekit.sources.public import SOURCES

if TYPE_CHECKING:
    from datasets import Dataset

CARD = "README.md"
_DATA = "data/train.parquet"

_ABOUT = {
    "prompt_id": "rows with one prompt share it: the cluster of the standard errors",
    "prompt": "conversation",
    "response": "the original",
    "attribute": "what is varied",
    "treated": "has the original the attribute?",
    "rewrites": "the original rewritten to the other side, that rewritten back, ...; null where a rewrite failed",
    "rewrite_status": "why",
    "step": "of the sweep",
    "twin": "the true counterfactual",
    "confounder": "the attribute that goes with the one varied",
}


def _card(experiment: Experiment, record: dict[str, Any], ds: Dataset) -> str:
    """The dataset card of a run: what it is, how it was made, under which licence, and how to score it again."""
    settings, rewriting = record["settings"], record.get("rewriting", {})
    source = SOURCES.get(experiment.source)
    simulated = settings["data"] == "simulated"
    licence = "Apache-2.0 (texts by ratekit)" if simulated else source.licence if source else "not stated"
    where = "simulated by ratekit" if simulated else (source.hub_id or source.about) if source else experiment.source
    rewards = reward_models(ds)
    rows = [f"| `{c}` | {_ABOUT[c]} |" for c in columns_of(ds) if c in _ABOUT]
    rows += [f"| `{c}` | rewards of the original and of each rewrite |" for c in reward_columns(columns_of(ds))]
    made = {
        "experiment": f"`{experiment.name}`: {experiment.about}", "texts": f"{where}; licence: {licence}",
        "rows": f"{len(ds):,} (seed {settings['seed']})", "rewriter": settings["rewriter"] or "none",
        "template": record["experiment"]["template_hash"] or "none", "reward models": ", ".join(rewards) or "none",
        "ratekit": f"{__version__}, commit {record['git_commit'] or 'not known'}",
        "cost": _cost(rewriting),
    }  # fmt: skip
    front = f"tags: [ratekit, rewrites]\npretty_name: {experiment.name}\nconfigs:\n- config_name: default\n"
    return "\n".join([
        f"---\n{front}  data_files: {_DATA}\n---", "",
        f"# {experiment.name}", "",
        f"{experiment.about} A run of ratekit; every setting is in `run.json`.", "",
        *(f"- {key}: {value}" for key, value in made.items()), "",
        *([experiment.can_say, ""] if experiment.can_say else []),
        "| column | what |", "|---|---|", *rows, "",
        "To score these rewrites with a reward model of your own, without paying for them again:", "",
        f"    ratekit reproduce {experiment.name} --from OWNER/NAME --reward YOUR/MODEL", "",
        "The rewrites are subject to the terms of the model that wrote them, the texts to their source's licence.", "",
    ])  # fmt: skip


def _cost(rewriting: dict[str, Any]) -> str:
    if not rewriting.get("model"):
        return "none, no LLM was asked"
    return "not known" if rewriting.get("cost") is None else f"{rewriting['cost']:.2f}"


def write_card(folder: Path, experiment: Experiment, record: dict[str, Any], ds: Dataset) -> Path:
    """Write the card beside the dataset of a run."""
    return files.replace_text(folder / on_disk.DATASET / CARD, _card(experiment, record, ds))


def push(folder: Path, repo: str, private: bool = True) -> str:
    """Upload a run's dataset, card, table and record to the hub; the address. The token is the hub client's own.

    Raises
    ------
    InputError
        Where the folder holds no finished run.
    WorkError
        Where the hub refuses.
    """
    if not (folder / on_disk.DATASET / CARD).exists():
        raise InputError(f"{folder} holds no finished run of `ratekit reproduce` to push")
    ds = files.read(folder / on_disk.DATASET)
    with tempfile.TemporaryDirectory(prefix="ratekit-") as out:
        (Path(out) / _DATA).parent.mkdir()
        ds.to_parquet(str(Path(out) / _DATA))
        shutil.copy(folder / on_disk.DATASET / CARD, Path(out) / CARD)
        for name in (on_disk.RECORD, on_disk.EFFECTS):
            shutil.copy(folder / name, Path(out) / name)
        return upload_folder(out, repo, private, "A run of ratekit")
