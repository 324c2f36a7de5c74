"""The end of a process planted after any one of its file operations; the commands that are ended so."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ratekit import files
from ratekit.cli import main


class Dead(BaseException):
    """The process is gone."""


class Death:
    """Lets so many file operations pass, then none."""

    OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")

    def __init__(self):
        self.place, self.left, self.passed = None, None, 0
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.place is None or event not in self.OPERATIONS:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes) or str(self.place) not in str(path):
            return
        if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
            return
        if self.left is not None and self.passed >= self.left:
            raise Dead
        self.passed += 1

    def run(self, place, work, left=None):
        """How many operations passed, and what `work` gave; None where it died."""
        self.place, self.left, self.passed = place, left, 0
        try:
            return work()
        except Dead:
            return None
        finally:
            self.place = None


DEATH = Death()


# --- commands --------------------------------------------------------------------------------------------

COMMANDS = {
    "rewrite": "rewrite {data} -a length --rewriter rules --out {out}",
    "score": "score {data} -r words -r vader --out {out}",
    "audit": "audit --data {data} -a length -r words --rewriter rules --out {out}",
    "card": "card --data {data} -a length -r words --out {out}",
    "reproduce": "reproduce imdb-length --n 20 --rewriter rules -r words --data-files {imdb} --out {out}",
    "merge": "merge {a} {b} -m linear --out {out}",
    "merge audit": "merge audit {a} {b} --data {data} --barrier-points 0 --out {out}",
    "report": "report {run} --out {out}/report.html",
    "cache export": "cache export {cache} --out {out}",
}


def _rows(path: Path) -> None:
    from rewriting_support import labelled

    import ratekit as rk

    rk.rewrite(labelled(12), "length", "rules", progress=False).to_parquet(path)


def _model(path: Path) -> None:
    import tiny

    tiny.save(path, "qwen2", seed=ord(path.name))


def _run(path: Path) -> None:
    from rewriting_support import labelled

    import ratekit as rk

    rk.audit(labelled(12), "words", "length", rewriter="rules", out=path, progress=False)


def _imdb(path: Path) -> None:
    import schemas

    schemas.write("imdb", path.parent, 30)


def _cache(path: Path) -> None:
    from ratekit.rewriting.cache import Cache, record_of

    with Cache(path) as cache:
        for i in range(3):
            about = {"model": "m", "params": "", "template": "", "attribute": "length", "phrase": "longer"}
            turns = [{"role": "user", "content": str(i)}]
            cache.put(f"{i:032x}", record_of(**about, messages=turns, text="A text.", finish_reason="stop", usage={}))


INPUTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "data": ("data.parquet", _rows), "a": ("a", _model), "b": ("b", _model), "run": ("run", _run),
    "imdb": ("imdb.jsonl", _imdb), "cache": ("cache", _cache),
}  # fmt: skip


class Places(dict[str, Path]):
    """What the commands work on, in a folder, made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        file, make = INPUTS[name]
        make(self.folder / file)
        self[name] = self.folder / file
        return self[name]


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Pages and pictures that are written and not drawn, and models in many small shards."""
    import matplotlib.figure
    import pytest

    import ratekit.merging.writing
    import ratekit.reports.page

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ratekit.reports.page, "page_html", lambda found: "<html></html>")
        patched.setattr(matplotlib.figure.Figure, "savefig", lambda self, path, **how: Path(path).write_bytes(b"PNG"))
        patched.setattr(ratekit.merging.writing, "SHARD_BYTES", 20_000)
        yield


def called(name: str, places: Places, out: Path) -> int:
    """The exit code of a command, which says nothing."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        places["out"] = out
        return main([part.format_map(places) for part in COMMANDS[name].split()])


def left(out: Path) -> dict[str, object]:
    """What a command left, by file: the rows of datasets and tables, the bytes of all else but pictures and caches."""
    found: dict[str, object] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out)
        if name.parts[0] in ("rewrites", "scores") or path.suffix in (".png", ".arrow", ".html", ".svg", ".md"):
            continue
        if path.name in ("state.json", "dataset_info.json") and (path.parent / "state.json").exists():
            found[f"{name.parent}"] = files.read(path.parent).to_list()
        elif path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))
            found[str(name)] = _timeless(record)
        elif path.suffix == ".parquet":
            found[str(name)] = files.read(path).to_list()
        else:
            found[str(name)] = path.read_bytes()
    return found


def _timeless(record: Any) -> Any:
    if isinstance(record, dict):
        return {k: _timeless(v) for k, v in record.items() if k not in ("seconds", "hash")}
    return record


def deaths(name: str, places: Places, folder: Path, shares: Sequence[float] = ()) -> tuple[int, list[int]]:
    """The end of a command after each of its file operations; then the same command again.

    Parameters
    ----------
    shares
        Only after these shares of the operations, from 0 to 1.

    Returns
    -------
    int
        Operations of an undisturbed run.
    list of int
        The ends after which the same command did not give what that run gave. A merge that was whole when its process
        ended is left as it is: the command again says that its folder is not empty.
    """
    folder.mkdir(exist_ok=True)
    with quick():
        whole = folder / "whole" / "out"  # what is beside it is watched too
        assert DEATH.run(whole.parent, lambda: called(name, places, whole)) == 0
        operations, lost, found = DEATH.passed, [], left(whole)
        for point in [int(share * (operations - 1)) for share in shares] or range(operations):
            out = folder / f"after-{point}" / "out"

            def call(out: Path = out) -> int:
                return called(name, places, out)

            assert DEATH.run(out.parent, call, point) is None
            if point % 2:
                DEATH.run(out.parent, call, operations - point)  # and once more, later on
            again = call()
            if (again != 0 and name != "merge") or left(out) != found:
                lost.append(point)
    return operations, lost
