"""The options that say how an LLM is asked, and at what cost: of every command that rewrites."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

if TYPE_CHECKING:
    from ratekit.rewriting import Options
    from ratekit.rewriting.cost import Meter, Prices

Template = Annotated[
    Path | None, typer.Option(help="A text file with the rewriting prompt: {phrase}, {response} and perhaps {prompt}.")
]
PriceIn = Annotated[float | None, typer.Option(help="Money per million tokens in.")]
PriceOut = Annotated[float | None, typer.Option(help="Money per million tokens out.")]
Budget = Annotated[float | None, typer.Option(help="Money after which no new request is made; needs the prices.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask for nothing.")]


@dataclass(frozen=True)
class Asking:
    """How an LLM is asked (every field of `Options` is an option of the commands) and at what cost."""

    options: Options
    price_in: PriceIn = None
    price_out: PriceOut = None
    budget: Budget = None
    dry_run: DryRun = False

    @property
    def prices(self) -> Prices | None:
        """The prices, if both are given. Raises InputError for one alone."""
        from ratekit.errors import InputError
        from ratekit.rewriting.cost import Prices

        if self.price_in is None and self.price_out is None:
            return None
        if self.price_in is None or self.price_out is None:
            raise InputError("give both prices or none: --price-in and --price-out")
        return Prices(self.price_in, self.price_out)


def _number(kind: type) -> Callable[[str], Any]:
    """Reads a number, or `none` for a parameter that is left out."""

    def read(value: Any) -> Any:
        text = str(value)
        try:
            return None if text.lower() == "none" else kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is neither a number nor `none`") from None

    read.__name__ = f"{kind.__name__} or none"
    return read


def _asking_options() -> dict[str, inspect.Parameter]:
    """A command-line option for each parameter by which an LLM is asked."""
    from ratekit.rewriting.options import Options

    kinds = get_type_hints(Options)
    made = {}
    for f in fields(Options):
        text = f.metadata["help"]
        if f.name == "template":
            annotation: Any = Template
        elif f.type == "bool":
            annotation = Annotated[bool, typer.Option(f"--{f.name.replace('_', '-')}", help=text)]
        elif f.default is not None and type(None) in get_args(kinds[f.name]):
            parser = _number(type(f.default))
            annotation = Annotated[kinds[f.name], typer.Option(parser=parser, metavar="NUMBER|none", help=text)]
        else:
            annotation = Annotated[kinds[f.name], typer.Option(help=text)]
        name = LLM_SEED if f.name == "seed" else f.name
        made[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=annotation)
    return made


LLM_SEED = "llm_seed"  # the commands have a --seed of their own, that of the sample


def with_llm_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of `Options` and `Asking` as options of its own, where it has a parameter `asking`.

    The command line reads a function's signature, and has no way to say "these too".
    """
    asked = _asking_options()
    kinds = get_type_hints(Asking, localns={"Options": object}, include_extras=True)
    money = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name])
        for f in fields(Asking) if f.name != "options"
    ]  # fmt: skip
    signature = inspect.signature(command, eval_str=True)
    spread: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        spread += [*asked.values(), *money] if parameter.name == "asking" else [parameter]

    @functools.wraps(command)
    def spread_out(**given: Any) -> None:
        from ratekit.rewriting.options import Options

        values = {name: given.pop(name) for name in asked}
        values["seed"] = values.pop(LLM_SEED)
        values["template"] = _text(values["template"])
        asking = Asking(Options(**values), **{parameter.name: given.pop(parameter.name) for parameter in money})
        command(**given, asking=asking)

    spread_out.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    spread_out.__annotations__ = {p.name: p.annotation for p in spread}
    return spread_out


def _text(path: Path | None) -> str | None:
    """The rewriting prompt of the template file, without its last line break. Raises InputError."""
    from ratekit.errors import InputError

    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except OSError as e:
        raise InputError(f"--template {path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--template {path}: not UTF-8") from None
    if not text.strip():
        raise InputError(f"--template {path}: the file is empty")
    return text


def is_first_process() -> bool:
    """Whether this is the process that writes the result, where `accelerate launch` started several."""
    return os.environ.get("RANK", "0") == "0"


def write_record(folder: Path, meter: Meter) -> Path:
    """What the rewriting used, as `rewriting.json` beside the dataset."""
    path = folder / "rewriting.json"
    path.write_text(json.dumps(meter.record(), indent=2) + "\n", encoding="utf-8")
    return path
