"""`ratekit check-reward MODEL`: does it give one text one score, and what does it see?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli.tables import Format, show


def check_reward(
    model: Annotated[str, typer.Argument(help="A model folder or a hub id.")],
    adapter: Annotated[
        str | None, typer.Option(help="How it is read: chat, pair, positive, judge, ... [default: known or guessed]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help='A JSON file {"prompt", "response", "score"} with the card\'s own example.')
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with it.")
    ] = False,
    format: Annotated[Format, typer.Option("--format", help="How the table is printed.")] = Format.table,
) -> None:
    """Check a reward model: equal scores for any batch, order and path; its template; its end; what it cuts off."""
    from ratekit.errors import WorkError
    from ratekit.scoring.check_reward import FAIL, check_reward
    from ratekit.scoring.model import RewardModel

    card = _reference(reference)
    reward = RewardModel(model, adapter, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code)
    table = check_reward(reward, reference=card)
    show(table, format)
    failed = table.loc[table["result"] == FAIL, "check"].tolist()
    if failed:
        raise WorkError(f"{model} failed {len(failed)} of {len(table)} checks: {'; '.join(failed)}")


def _reference(path: Path | None) -> tuple[object, str, float] | None:
    from ratekit.errors import InputError

    if path is None:
        return None
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return given["prompt"], str(given["response"]), float(given["score"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: a JSON object with prompt, response and score was expected") from None
