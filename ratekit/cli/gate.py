"""`ratekit gate`: an exit code for whether the effects of an audit are shown to be small."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratekit.cli import options as given
from ratekit.cli.tables import Format, show
from ratekit.escaping import visible


def gate(
    audit: given.Rows,
    max: Annotated[
        list[str],
        typer.Option("--max", metavar="NAME=SD", help="Largest effect of NAME allowed, either way (repeatable)."),
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="AUDIT", help="Limit the change since this audit of the same rows.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option("--reward", "-r", metavar="NAME", help="Only this reward model. [default: all]")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also where a verdict is 'cannot tell'.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.", **given.FILE)] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown file.", **given.FILE)] = None,
    format: given.TableFormat = Format.table,
) -> None:
    """Are these effects shown to be small?

    For a build. Exit code 0: all shown within their limit. 3: one is shown too big. 4: one cannot be told, with the
    rows that would tell. 1: the work failed. 2: the call is wrong.
    """
    from ratekit import files
    from ratekit.gates import gate as passed

    found = passed(audit, limits_of(max), against=against, reward=reward, strict=strict)
    for path, text in ((junit, found.junit), (summary, found.markdown)):
        if path is not None:
            files.replace_text(path, text)
    if format is Format.markdown:
        print(found.markdown, end="")
    elif format is not Format.table:
        show(found.table, format)
    else:
        print("\n".join([found.outcome, "", *(visible(bound.text) for bound in found.bounds)]))
    if found.code:
        raise typer.Exit(found.code)


def limits_of(given: list[str]) -> dict[str, float]:
    """The limits that were given as ATTRIBUTE=SD; InputError with what is wrong.

    Examples
    --------
    >>> limits_of(["length=0.1"])
    {'length': 0.1}
    """
    from ratekit.errors import InputError

    limits: dict[str, float] = {}
    for one in given:
        name, equals, value = one.rpartition("=")
        try:
            limit = float(value)
        except ValueError:
            equals = ""
        if not (name and equals):
            raise InputError(f"--max {one}: write ATTRIBUTE=SD, as in --max length=0.1")
        if name in limits:
            raise InputError(f"--max: {name} has two limits; which one is meant?")
        limits[name] = limit
    return limits
