"""`ratekit notebooks`: the course, copied to where it is worked on."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import ratekit
from ratekit import files
from ratekit.cli.options import FOLDER
from ratekit.errors import InputError


def notebooks(
    folder: Annotated[Path, typer.Argument(help="Folder to copy into.", **FOLDER)] = Path("notebooks"),
) -> None:
    """Copy the course: notebooks and a playground.

    What is in the folder already is left as it is.
    """
    from ratekit.widgets.playground_page import write_page

    package = Path(ratekit.__file__).parent
    course = [path for place in (package, package.parent) for path in sorted((place / "notebooks").glob("*.ipynb"))]
    if not course:
        raise InputError("the notebooks are neither in the package nor beside it; reinstall ratekit")
    kept = [path.name for path in course if (folder / path.name).exists()]
    for path in course:
        if path.name not in kept:
            files.replace_file(folder / path.name, partial(shutil.copyfile, path))
    write_page(folder / "playground.html")
    print(f"{len(course) - len(kept)} notebooks copied to {folder}" + (f", {len(kept)} were there" if kept else ""))
    print(f"begin with: jupyter lab {folder / course[0].name}")
