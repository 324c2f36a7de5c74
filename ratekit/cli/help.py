"""What `--help` looks like: short lines, commands and options in groups, examples at the end."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDTH = 60  # a line of help is shorter, in a terminal of any width
_FIRST = 22  # of the column of the options; a longer one has a line of its own

# What typer writes in brackets -> as a person reads it.
_BRACKETS = {r"\]\s+\[": "; ", r"\s+\[": " [", r"(\d\S*)<=x<=": r"\1 to ", r"\bx>=": "from "}


class Command(TyperCommand):
    """A command whose help lists its options by their panel."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words of the usage line: each argument as its help names it, in brackets where it may be left out."""
        found = [(p, _argument(p)) for p in self.params if p.param_type_name == "argument"]
        words = [name if p.required else f"[{name}]" for p, name in found]
        return ["[OPTIONS]", *(word + "..." * (p.nargs == -1) for (p, _), word in zip(found, words, strict=True))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, each panel under its name."""
        panels: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind, named = "Options", record[0]
                if parameter.param_type_name == "argument":
                    kind, named = "Arguments", _argument(parameter)
                about = record[1]
                for written, said in _BRACKETS.items():
                    about = re.sub(written, said, about)
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append((named, about))
        for name, records in panels.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=_FIRST)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples so that they can be pasted: one that is long goes on after a backslash."""
        if self.epilog:
            with formatter.section("Examples"):
                indent, width = " " * formatter.current_indent, formatter.width - formatter.current_indent - 6
                for example in self.epilog.splitlines():
                    held = re.sub(r"( -\S+) (?!-)", "\\1\0", example)  # an option stays with its value
                    lines = textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)
                    formatter.write((indent + f" \\\n{indent}    ".join(lines) + "\n").replace("\0", " "))


class Group(TyperGroup):
    """A group of commands whose help lists them by their panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each panel under its name."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                about = command.get_short_help_str(limit=WIDTH)
                panels.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append((name, about))
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records)


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())
