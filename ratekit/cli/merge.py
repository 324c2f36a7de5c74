"""`ratekit merge MODEL... --method ties` merges reward models; `ratekit merge audit MODEL...` shows what that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratekit.cli.help import Command, Group
from ratekit.cli.options import FOLDER, Estimator, TableFormat, Unit
from ratekit.cli.tables import Format, show
from ratekit.tables import number_with_interval

if TYPE_CHECKING:
    import pandas as pd

FIGURE = "audit.png"
MODELS = "models"  # the command that is meant where none is named


class _Group(Group):
    """A group whose first argument may be a model instead of a command; a folder called audit is ./audit."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in where it is not named."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [MODELS, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    help="Merge reward models; audit the merges.\n\n`ratekit merge MODEL... --method NAME --out FOLDER` merges; "
    "`ratekit merge MODEL --help` has its options. `ratekit merge audit` shows "
    "what that does to what they reward, `ratekit merge methods` lists the methods.",
    rich_markup_mode=None,
)

Models = Annotated[list[str], typer.Argument(help="Folders of models (safetensors) or of LoRA adapters.")]
Base = Annotated[str | None, typer.Option(metavar="FOLDER", help="The model that these were tuned from.")]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of the methods that draw. [default: 0]")]


@app.command(
    MODELS,
    hidden=True,
    cls=Command,
    epilog="ratekit merge a b --method linear --out merged\n"
    "ratekit merge a b -m ties:density=0.5 --base c --out merged",
)
def models(
    model: Models,
    method: Annotated[
        str, typer.Option("--method", "-m", metavar="METHOD", help="With its parameters: ties:density=0.5,weight=1;2.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the merged model.", **FOLDER)],
    base: Base = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32, bfloat16 or float16. [default: the models' own]")
    ] = None,
    seed: Seed = None,
    memory: Annotated[
        float, typer.Option(min=0.001, metavar="GIB", help="Most memory that merging one tensor may take.")
    ] = 16.0,
) -> None:
    """Merge model folders into a new one.

    Shard by shard; its merge.json says how.
    """
    from ratekit.errors import InputError
    from ratekit.lora import is_adapter
    from ratekit.merging.mergers import merge
    from ratekit.merging.methods import METHODS, recipe

    name, params = recipe(method)
    merger = METHODS[name]
    if base is not None and not merger.takes_base(len(model)) and not any(map(is_adapter, model)):
        raise InputError(f"--base {base}: {name} of {len(model)} models looks at no base; leave it out")
    if seed is not None and not merger.random:
        raise InputError(f"--seed {seed}: {name} draws nothing; leave it out")
    folder = merge(model, name, base, out=out, dtype=dtype, seed=seed or 0, memory=memory, progress=True, **params)
    print(f"written: {folder}")


@app.command(
    cls=Command,
    epilog="ratekit merge audit a b --data rows --out found\n"
    "ratekit merge audit a b -m linear -m ties --data rows --out found",
)
def audit(
    model: Models,
    data: Annotated[Path, typer.Option("--data", metavar="DATA", help="Rewritten responses: a folder or a file.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.csv, audit.png and the scores.", **FOLDER)],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="METHOD", help="As in ties:density=0.5 (repeatable). [default: linear]"),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", metavar="NAME", help="One of the data's (repeatable). [default: all]"),
    ] = None,
    base: Base = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Preference pairs: prompt, chosen, rejected.")
    ] = None,
    estimator: Estimator = "rate",
    estimand: Annotated[
        str | None, typer.Option(metavar="NAME", help="ate, att or atu. [default: ate; of rows of one class, theirs]")
    ] = None,
    unit: Unit = "sd",
    barrier_points: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Points on each line where the loss is taken; 0: none. [default: 3]"),
    ] = None,
    seed: Seed = None,
    format: TableFormat = Format.table,
) -> None:
    """What each merge rewards, beside its members.

    Members, base, ensemble and each merge: accuracy, loss barrier, and every attribute's effect with contrasts.

    The same call again goes on where it was cut off.
    """
    import matplotlib.pyplot as plt

    from ratekit.audits.folder import write_picture
    from ratekit.cli.pipeline import say_paths
    from ratekit.errors import InputError
    from ratekit.merging.auditing import TABLE
    from ratekit.merging.auditing import audit as audited
    from ratekit.plots.merges import merges, panels

    if barrier_points and pairs is None:
        raise InputError(f"--barrier-points {barrier_points}: the loss is that of preference pairs; give --pairs")
    table = audited(
        model, data, method or ["linear"], attribute, base=base, pairs=pairs, out=out, estimator=estimator,
        estimand=estimand, unit=unit, barrier_points=3 if barrier_points is None else barrier_points, seed=seed or 0,
    )  # fmt: skip
    about = panels(table)
    figure, axes = plt.subplots(
        1, len(about), figsize=(5.2 * len(about), 1.6 + 0.34 * len(table)), squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], about, strict=True):
        merges(table, name, unit=unit, ax=ax)
    write_picture(out / FIGURE, figure)
    show(compact(table) if format is Format.table else table, format)
    if format is Format.table:
        say_paths([out / TABLE, out / FIGURE])


@app.command(cls=Command, epilog="ratekit merge methods\nratekit merge methods --format json")
def methods(
    format: TableFormat = Format.table,
) -> None:
    """The methods: needs, parameters, sources."""
    import pandas as pd

    from ratekit.merging.learned import LEARNED
    from ratekit.merging.methods import METHODS

    rows = [
        {
            "method": m.name,
            "base": m.base,
            "models": str(m.models[0]) if m.models[0] == m.models[1] else f"{m.models[0]}+",
            "parameters": ",".join(f"{k}={'1/k' if v is None else v}".lower() for k, v in m.parameters.items()),
            "source": m.reference,
            "claim": m.claim,
        }
        for m in METHODS.values()
    ]
    needs = {"base": "none", "models": "1+", "parameters": "", "source": "audit, with --pairs"}
    rows += [{"method": name, **needs, "claim": claim} for name, claim in LEARNED.items()]
    show(pd.DataFrame(rows), format)


def compact(table: pd.DataFrame) -> pd.DataFrame:
    """The audit for a terminal: each effect and contrast with its interval in one column."""
    shown = table[["model"]].copy()
    if table["accuracy"].notna().any():
        shown["accuracy"] = table["accuracy"]
    if table["barrier"].notna().any():
        shown["barrier"] = table["barrier"]
    for column in table.columns:
        if f"{column}_ci_low" in table and column not in ("accuracy", "loss"):
            cells = zip(table[column], table[f"{column}_ci_low"], table[f"{column}_ci_high"], strict=True)
            shown[column] = [number_with_interval(*numbers) for numbers in cells]
    if (table["note"].fillna("") != "").any():
        shown["note"] = table["note"].fillna("")
    return shown
