"""What `--help` looks like: commands and options in groups, examples at the end."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help lists its options by their panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, each panel under its name."""
        panels: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        for name, records in panels.items():
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they stand."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(TyperGroup):
    """A group of commands whose help lists them by their panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each panel under its name."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                about = command.get_short_help_str(limit=60)
                panels.setdefault(getattr(command, "rich_help_panel", None) or "Commands", []).append((name, about))
        for panel, records in panels.items():
            with formatter.section(panel):
                formatter.write_dl(records)
