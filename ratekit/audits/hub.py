"""An audit's results as the hub keeps them: a model's `.eval_results/*.yaml`, and a section of its card.

The format is that of https://huggingface.co/docs/hub/eval-results; a result belongs to a benchmark, a dataset with an
`eval.yaml` at its root, whose tasks are here the attributes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ratekit.conclusions import NO_TRUST, Verdict, in_units, number_words, read_first
from ratekit.errors import InputError, WorkError, shorten, unknown
from ratekit.escaping import visible
from ratekit.redaction import redact
from ratekit.tables import as_markdown, interval_words, number_and_interval, table_of

BEGIN, END = "<!-- ratekit: what this model rewards -->", "<!-- ratekit: end -->"
FRAMEWORK = "ratekit"


def result_files(verdicts: Iterable[Verdict], model: str, benchmark: str, date: str = "") -> dict[str, str]:
    """What goes into a model's repository: path -> text.

    Parameters
    ----------
    verdicts : iterable of Verdict
        Of an audit.
    model : str
        The reward model, as the audit calls it.
    benchmark : str
        The hub id of the benchmark's dataset.
    date : str
        Of the audit, as ISO 8601; "" for the date of the commit.

    Returns
    -------
    dict of str to str
        `.eval_results/ratekit.yaml`: an effect in SDs for each attribute whose verdict is not "do not trust"; and
        README.md: the section for the model's card, with all attributes and each verdict in words.

    Raises
    ------
    InputError
        No such model; no effect that could be read.
    """
    import pandas as pd

    verdicts = list(verdicts)
    mine = [v for v in verdicts if v.reward_model == model and v.estimate]
    if not mine:
        raise unknown("reward model", model, [v.reward_model for v in verdicts if v.reward_model])
    entries, rows = [], []
    for v in mine:
        seen = in_units(v.estimate)
        if v.told and seen.estimate == seen.estimate:
            about = f"{v.estimate['estimator']} {v.estimate['estimand']},{seen.unit}"
            _, interval = number_and_interval(seen.estimate, seen.low, seen.high)
            called = interval_words([v.estimate.get("level")])
            notes = f"{about}; {called} {interval or 'none'}; n {v.estimate['n']}; {v.word}"
            entries.append({
                "dataset": {"id": benchmark, "task_id": v.name}, "value": float(f"{seen.estimate:.4g}"),
                **({"date": date} if date else {}), "notes": notes,
            })  # fmt: skip
        effect = f"{read_first(v.estimate)} {number_words(v.estimate)}" if v.told else "no number to read"
        rows.append({"attribute": v.name, "effect": effect, "verdict": v.word, "why": v.grounds})
    if not entries:
        raise InputError(
            f"{model}: no effect can be read (every verdict is {NO_TRUST!r}, or nothing was rewritten), so there is "
            "nothing to share"
        )
    section = "\n".join([
        BEGIN, "## What this model rewards", "",
        "Causal effects of attributes of a response on the reward, by rewriting twice (RATE); made by ratekit.", "",
        as_markdown(table_of(pd.DataFrame(rows))), END,
    ])  # fmt: skip
    return {f".eval_results/{FRAMEWORK}.yaml": _yaml(entries), "README.md": section + "\n"}


def benchmark_file(benchmark: str, attributes: Iterable[str], version: str) -> str:
    """The `eval.yaml` of the benchmark's dataset: a task for each attribute."""
    tasks = [{"id": name, "config": "default", "split": "train"} for name in attributes]
    about = f"Causal effects of attributes of a response on a reward, in SDs; suite {version}. 0 is no bias."
    return _yaml({
        "name": benchmark.rpartition("/")[2], "description": about, "evaluation_framework": FRAMEWORK, "tasks": tasks,
    })  # fmt: skip


def _yaml(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"  # JSON is YAML too


def upload(texts: dict[str, str], repo: str) -> str:
    """Open a pull request with these files in a model's repository; its address. The token is the hub client's own.

    The section of the card takes the place of an earlier one, and else is put at the end.

    Raises
    ------
    WorkError
        The hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        api: Any = HfApi()
        files = dict(texts)
        if api.file_exists(repo, "README.md"):
            with open(api.hf_hub_download(repo, "README.md"), encoding="utf-8") as file:
                files["README.md"] = with_section(file.read(), texts["README.md"])
        operations = [CommitOperationAdd(path, text.encode()) for path, text in files.items()]
        made = api.create_commit(repo, operations, commit_message="What this model rewards (ratekit)", create_pr=True)
    except Exception as e:  # the hub client raises many kinds; all mean that it is not there
        raise WorkError(f"{repo!r} could not be written to: {shorten(redact(e), 160)}") from None
    return visible(str(getattr(made, "pr_url", None) or repo))


def with_section(card: str, section: str) -> str:
    """A model's card with this section in it, once.

    Examples
    --------
    >>> once = with_section("# A model", f"{BEGIN} one {END}")
    >>> with_section(once, f"{BEGIN} two {END}")
    '# A model\\n\\n<!-- ratekit: what this model rewards --> two <!-- ratekit: end -->\\n'
    """
    plain = re.sub(rf"\n*{re.escape(BEGIN)}.*?{re.escape(END)}\n*", "\n", card, flags=re.DOTALL)
    return f"{plain.rstrip()}\n\n{section.strip()}\n"
