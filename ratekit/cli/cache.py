"""`ratekit cache`: what is in a folder of replies, whether it is sound, and how it becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli.help import Command, Group
from ratekit.cli.options import FOLDER, TableFormat
from ratekit.cli.tables import Format, show

app = typer.Typer(help="Paid replies: list, check, publish, ...", no_args_is_help=True, cls=Group)

Folder = Annotated[Path | None, typer.Argument(help="The cache's folder. [default: ~/.cache/ratekit/rewrites]")]
SourceNames = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME", help="Where the texts are from; the card says it (repeatable)."),
]


def _folder(folder: Path | None) -> Path:
    from ratekit.errors import InputError
    from ratekit.rewriting.cache import default_cache

    folder = folder or default_cache()
    if not folder.is_dir():
        raise InputError(f"no cache at {folder}: no such folder")
    return folder


@app.command(cls=Command, epilog="ratekit cache ls\nratekit cache ls rewrites --format json")
def ls(folder: Folder = None, format: TableFormat = Format.table) -> None:
    """The replies by model, template and attribute.

    How many there are, how they ended, and their tokens.
    """
    from ratekit.rewriting.archive import cache_summary

    show(cache_summary(_folder(folder)), format)


@app.command(cls=Command, epilog="ratekit cache verify\nratekit cache verify runs/mine/rewrites")
def verify(folder: Folder = None) -> None:
    """Read every line and recompute every key.

    Names each fault, and exits with 1 where there is one.
    """
    from ratekit.errors import WorkError
    from ratekit.rewriting.archive import shard_faults

    n, found = shard_faults(_folder(folder))
    for line in found:
        print(line)
    if found:
        raise WorkError(f"{len(found)} faults in {n:,} replies; they are passed over and will be asked for again")
    print(f"{n:,} replies, all sound")


@app.command(cls=Command, epilog="ratekit cache export --out replies\nratekit cache export rewrites --out replies")
def export(
    out: Annotated[Path, typer.Option(help="Folder for data/*.parquet and README.md, the card.", **FOLDER)],
    folder: Folder = None,
    source: SourceNames = None,
) -> None:
    """Write the replies as Parquet, with a card."""
    from ratekit.rewriting.archive import export as compact

    n = compact(_folder(folder), out, source or [])
    print(f"{n:,} replies in {out}")


@app.command(cls=Command, epilog="ratekit cache push me/replies\nratekit cache push me/replies rewrites --public")
def push(
    repo: Annotated[str, typer.Argument(help="The dataset on the hub: owner/name.")],
    folder: Folder = None,
    source: SourceNames = None,
    public: Annotated[bool, typer.Option("--public", help="For everyone to see; else it is private.")] = False,
) -> None:
    """Export and upload to the Hugging Face hub.

    The token comes from HF_TOKEN or `hf auth login`.
    """
    from ratekit.rewriting.archive import push_cache

    print(push_cache(_folder(folder), repo, source or [], private=not public))


@app.command(
    cls=Command,
    epilog="ratekit cache rm rewrites --model gpt-4o-mini\nratekit cache rm rewrites --template 1a2b3c --yes",
)
def rm(
    folder: Annotated[Path, typer.Argument(help="The cache's folder.")],
    template: Annotated[
        str | None, typer.Option(metavar="HASH", help="Only replies to the template with this hash.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only the replies of this model.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete replies; what was paid for them is gone."""
    from ratekit.rewriting.archive import count, remove

    n = count(_folder(folder), template, model)
    if not yes and n:
        typer.confirm(f"delete {n:,} replies in {folder}?", abort=True)
    print(f"{remove(folder, template, model):,} replies deleted")
