"""The options of `run` and `rewrite` that say how an LLM is asked, and at what cost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


def read_template(path: Path | None) -> str | None:
    """The text of a template file, without its last line break. Raises InputError."""
    from ratekit.errors import InputError

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


def prices_of(per_million_in: float | None, per_million_out: float | None) -> Prices | None:
    """The prices, if both are given. Raises InputError for one alone."""
    from ratekit.errors import InputError
    from ratekit.rewriting.cost import Prices

    if per_million_in is None and per_million_out is None:
        return None
    if per_million_in is None or per_million_out is None:
        raise InputError("give both prices or none: --price-in and --price-out")
    return Prices(per_million_in, per_million_out)


def is_first_process() -> bool:
    """Whether this is the process that writes the result, where `accelerate launch` started several."""
    return os.environ.get("RANK", "0") == "0"


def write_record(folder: Path, meter: Meter) -> Path:
    """What the rewriting used, as `rewriting.json` beside the dataset."""
    path = folder / "rewriting.json"
    path.write_text(json.dumps(meter.record(), indent=2) + "\n", encoding="utf-8")
    return path
