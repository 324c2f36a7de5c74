"""The options that say how an LLM is asked, and at what cost: of every command that rewrites.

They are made from the fields of `ratekit.rewriting.Options`; a field that is added there is an option here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ratekit.cli.help import Command
from ratekit.errors import InputError
from ratekit.files import read_text
from ratekit.rewriting.cost import Meter, Prices
from ratekit.rewriting.options import Options, Sampling

PANEL = "Asking an LLM"


@dataclass(frozen=True)
class Cost:
    """What the asking may cost."""

    price_in: float | None = field(default=None, metadata={"help": "Price of a million tokens in. [default: unknown]"})
    price_out: float | None = field(
        default=None, metadata={"help": "Price of a million tokens out. [default: unknown]"}
    )
    budget: float | None = field(
        default=None, metadata={"help": "Stop at this cost; needs both prices. [default: no limit]"}
    )
    dry_run: bool = field(default=False, metadata={"help": "Say what it would cost; ask for nothing."})


@dataclass(frozen=True)
class Asked:
    """What was given of these options."""

    options: Options
    cost: Cost

    def __post_init__(self) -> None:
        if self.cost.budget is not None:
            Meter(self.prices or Prices(0.0, 0.0), self.cost.budget)  # a budget that is none, also of a dry run

    @property
    def prices(self) -> Prices | None:
        """The prices, if both are given. Raises InputError for one alone."""
        given = self.cost.price_in, self.cost.price_out
        if given == (None, None):
            return None
        if None in given:
            raise InputError("give both prices or none: --price-in and --price-out")
        return Prices(*given)  # type: ignore[arg-type]

    def meter(self, prices: Prices | None = None) -> Meter:
        """What counts the use, and holds the budget; `prices` are those where none were given."""
        return Meter(self.prices or prices, self.cost.budget)


class AskingCommand(Command):
    """A command that has the options of `Options` and `Cost` beside its own; its context holds them as `Asked`."""

    def __init__(self, *args: Any, params: list[Any] | None = None, **how: Any) -> None:
        super().__init__(*args, params=[*(params or []), *_params()], **how)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what was given of these options is `ctx.obj`."""
        given = [{f.name: ctx.params.pop(_name(f)) for f in fields(kind)} for kind in (Options, Cost)]
        if given[0]["template"] is not None:
            given[0]["template"] = _text(given[0]["template"])
        ctx.obj = Asked(Options(**given[0]), Cost(**given[1]))
        return super().invoke(ctx)


@functools.cache
def _params() -> list[Any]:
    """The options as the command line has them: those of a command whose signature is the fields."""
    kinds = {**get_type_hints(Options), **get_type_hints(Cost)}
    declared = [
        (_name(f), Annotated[kinds[f.name], _option(f, kinds[f.name])], field(default=f.default))
        for f in (*fields(Options), *fields(Cost))
    ]
    app = typer.Typer()
    app.command()(make_dataclass("Declared", declared))
    command: Any = typer.main.get_command(app)
    return [p for p in command.params if p.name in {name for name, *_ in declared}]


def _option(f: Any, kind: Any) -> Any:
    about, flag = f.metadata["help"], f"--{_name(f).replace('_', '-')}"
    if f.name == "template":
        about = (
            "Text file of the rewriting prompt: {phrase}, {response} and, if wanted, {prompt}. [default: ratekit's own]"
        )
    numbers = [k for k in get_args(kind) if k in (int, float)]
    if numbers and type(None) in get_args(kind) and f.name in {s.name for s in fields(Sampling)}:  # none leaves it out

        def number_or_none(value: Any) -> Any:
            text = str(value)
            try:
                return None if text.lower() == "none" else numbers[0](text)
            except ValueError:
                raise typer.BadParameter(f"{text!r} is neither a number nor `none`") from None

        return typer.Option(flag, help=about, rich_help_panel=PANEL, parser=number_or_none, metavar="X|none")
    word = "X" if numbers or kind in (int, float) else {"template": "FILE", "base_url": "URL"}.get(f.name, "NAME")
    return typer.Option(flag, help=about, rich_help_panel=PANEL, metavar=None if kind is bool else word)


def _name(f: Any) -> str:
    """Of the parameter: the commands have a --seed of their own, that of the sample."""
    return "llm_seed" if f.name == "seed" else str(f.name)


def _text(path: str) -> str:
    """The rewriting prompt of the template file, without its last line break. Raises InputError."""
    try:
        text = read_text(path).removesuffix("\n")
    except InputError as e:
        raise InputError(f"--template {e}") from None
    if not text.strip():
        raise InputError(f"--template {path}: the file is empty")
    return text
