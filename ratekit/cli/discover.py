"""`ratekit discover`: what a reward pays for that nobody thought to ask about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ratekit.cli import options as given
from ratekit.cli.tables import Format, show

if TYPE_CHECKING:
    from ratekit.cli.llm import Asked


def discover(
    ctx: typer.Context,
    data: given.Source,
    reward: Annotated[
        str, typer.Option("--reward", "-r", metavar="REWARD", help="The reward to look into, as in `ratekit audit`.")
    ],
    proposer: Annotated[
        str | None, typer.Option(metavar="SPEC", help="What proposes features: openai:MODEL, hf:MODEL or FILE.py:NAME.")
    ] = None,
    rewriter: given.RewriterSpec = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds of finding and screening.")] = 3,
    max_rewrites: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most rewrites in all. [default: no limit]")
    ] = None,
    fdr: Annotated[float, typer.Option(metavar="X", help="False discovery rate over all that is tried.")] = 0.05,
    seed: given.Seed = 0,
    cache: given.Cache = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the audit and tried.csv.", **given.FOLDER)] = None,
    format: given.TableFormat = Format.table,
) -> None:
    """What a reward pays for, found and tested.

    Candidates are found on one half of the prompts and confirmed on the other.

    The data hold several responses to a prompt. Features of texts are rewritten by rules; what a proposer names is
    rewritten by --rewriter.
    """
    from ratekit.discovery import discover as search
    from ratekit.errors import InputError

    asked: Asked = ctx.obj
    if asked.cost.dry_run:
        raise InputError("discover has no dry run: what it rewrites depends on what it finds; see --max-rewrites")
    found = search(
        reward, data, proposer=given.own(proposer), rewriter=given.own(rewriter), rounds=rounds,
        budget=max_rewrites, fdr=fdr, seed=seed, out=out, cache=cache, options=asked.options, meter=asked.meter(),
    )  # fmt: skip
    if format is Format.table:
        print(found)
    else:
        show(found.tried, format)
