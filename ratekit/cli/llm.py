"""The options that say how an LLM is asked, and at what cost: of every command that rewrites."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from ratekit.rewriting import Options
    from ratekit.rewriting.cost import Meter, Prices

BaseUrl = Annotated[str | None, typer.Option(help="Of an OpenAI-compatible server of your own, for openai:MODEL.")]
Template = Annotated[
    Path | None, typer.Option(help="A text file with the rewriting prompt: {phrase}, {response} and perhaps {prompt}.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Of one reply; a longer one is truncated.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Of the sampling; 0 is greedy.")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Requests under way at most. [default: 64]")]
Rpm = Annotated[float | None, typer.Option(help="Requests a minute that the server allows.")]
Tpm = Annotated[float | None, typer.Option(help="Tokens a minute that the server allows.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds for one request. [default: 120]")]
PriceIn = Annotated[float | None, typer.Option(help="Money per million tokens in.")]
PriceOut = Annotated[float | None, typer.Option(help="Money per million tokens out.")]
Budget = Annotated[float | None, typer.Option(help="Money after which no new request is made; needs the prices.")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="Ask again for the replies that were no rewrites (truncated, refused...)."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask for nothing.")]


@dataclass(frozen=True)
class Asking:
    """How an LLM is asked, and at what cost; each field is an option of the commands under `with_llm_options`."""

    base_url: BaseUrl = None
    template: Template = None
    max_tokens: MaxTokens = None
    temperature: Temperature = None
    concurrency: Concurrency = None
    rpm: Rpm = None
    tpm: Tpm = None
    timeout: Timeout = None
    price_in: PriceIn = None
    price_out: PriceOut = None
    budget: Budget = None
    retry_failed: RetryFailed = False
    dry_run: DryRun = False

    @property
    def options(self) -> Options:
        """What a rewriter takes."""
        from ratekit.rewriting import Options

        return Options(
            self.base_url, None, self.retry_failed,
            concurrency=self.concurrency, rpm=self.rpm, tpm=self.tpm, timeout=self.timeout,
        )  # fmt: skip

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

    @property
    def text(self) -> str | None:
        """The rewriting prompt of the template file, without its last line break. Raises InputError."""
        from ratekit.errors import InputError

        path = self.template
        if path is None:
            return None
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n")
        except OSError as e:
            raise InputError(f"--template {path}: {e.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"--template {path}: not UTF-8") from None
        if not text.strip():
            raise InputError(f"--template {path}: the file is empty")
        return text


def with_llm_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of `Asking` as options of its own, where it has the parameter `asking`.

    The command line reads a function's signature, and has no way to say "these thirteen too".
    """
    kinds = get_type_hints(Asking, include_extras=True)
    options = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name])
        for f in fields(Asking)
    ]
    signature = inspect.signature(command, eval_str=True)
    spread: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        spread += options if parameter.name == "asking" else [parameter]

    @functools.wraps(command)
    def spread_out(**given: Any) -> None:
        asking = Asking(**{option.name: given.pop(option.name) for option in options})
        command(**given, asking=asking)

    spread_out.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    spread_out.__annotations__ = {p.name: p.annotation for p in spread}
    return spread_out


def is_first_process() -> bool:
    """Whether this is the process that writes the result, where `accelerate launch` started several."""
    return os.environ.get("RANK", "0") == "0"


def write_record(folder: Path, meter: Meter) -> Path:
    """What the rewriting used, as `rewriting.json` beside the dataset."""
    path = folder / "rewriting.json"
    path.write_text(json.dumps(meter.record(), indent=2) + "\n", encoding="utf-8")
    return path
