"""The `ratekit` command: faults become one clear line on stderr and an exit code (1 failed work, 2 wrong call)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO, cast

from ratekit.escaping import visible
from ratekit.redaction import redact


class _Shown(logging.Formatter):
    """A log line may name what is in the data, and the data may hold terminal codes; a server may echo a key."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(redact(super().format(record)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own) and return its exit code.

    Examples
    --------
    >>> main(["estimate", "no-such-file.jsonl"])
    2
    """
    import typer

    from ratekit.cli.app import app
    from ratekit.errors import InputError, WorkError, terminable

    # typer carries a click of its own in some versions and imports it in others; this is public in both.
    usage_error, click_error = cast("tuple[type[Any], type[Any]]", typer.BadParameter.__mro__[1:3])
    _log_to_stderr()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal's code page may lack letters of the data
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command = typer.main.get_command(app)
        _refuse_unclear(command, arguments)
        with terminable() as terminated:
            result = command.main(args=arguments, prog_name="ratekit", standalone_mode=False)
        if result == 130:  # how typer gives back an interrupt
            return _say("stopped; what was finished is kept", 143 if terminated.is_set() else 130)
        return result if isinstance(result, int) else 0
    except InputError as e:
        return _say(str(e), 2)
    except WorkError as e:
        return _say(str(e), 1)
    except usage_error as e:
        where = f" (see {e.ctx.command_path} --help)" if e.ctx else ""
        return _say(e.format_message().rstrip() + where, 2)
    except click_error as e:
        return _say(e.format_message(), e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("stopped; what was finished is kept", 130)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the reader is gone: nothing to flush to)
        return 0
    except OSError as e:
        return _say(f"{e.filename or 'input/output'}: {e.strerror or e}", 1)


def _refuse_unclear(command: Any, arguments: Sequence[str]) -> None:
    """Raise InputError for an empty value, an option given twice of which one counts, and bytes that are no text."""
    from ratekit.errors import InputError

    options: dict[str, Any] = {}
    given: set[str] = set()
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.encode(errors="ignore").decode() != argument:
            raise InputError(f"the argument {argument!a} is not UTF-8; rename what it names")
        name, equals, value = argument.partition("=")
        if (argument == "" and before.startswith("-")) or (name.startswith("--") and equals and not value):
            raise InputError(
                f"{before if argument == '' else name}: its value is empty; leave the option out, or say it"
            )
        if not options and argument in getattr(command, "commands", {}):
            command = command.commands[argument]
            if not hasattr(command, "commands"):
                options = {n: p for p in command.params for n in getattr(p, "opts", ()) if n.startswith("-")}
            continue
        option = options.get(name)
        if option is None or option.multiple or option.is_flag or options.get(before) not in (None, option):
            continue
        if option.name in given:
            raise InputError(f"{name} is given twice, and takes one value; which one is meant?")
        given.add(option.name)


def _say(message: str, code: int) -> int:
    print("ratekit: " + visible(redact(" ".join(message.split()))), file=sys.stderr)
    return code


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what is the standard error when something is said."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _log_to_stderr() -> None:
    log = logging.getLogger("ratekit")
    handler = _Stderr()
    handler.setFormatter(_Shown("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
