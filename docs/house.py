"""The structure of the package, read from its code: which module imports which, on which floor, and a picture of it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ratekit"
BOX, GAP, ROW, LEFT, WIDTH = 150, 12, 44, 44, 700


def floors() -> list[list[list[str]]]:
    """The floors of pyproject.toml, lowest first: each is rows of rooms, and a room imports from lower rows only."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ratekit"]
    return [[row.split() for row in floor] for floor in tables["floors"]]


def module_name(path: Path) -> str:
    """`rewriting.cache` for ratekit/rewriting/cache.py; "" for the package itself."""
    return ".".join(p for p in path.relative_to(PACKAGE).with_suffix("").parts if p != "__init__")


@cache
def known_modules() -> frozenset[str]:
    """The modules of the package."""
    return frozenset(module_name(p) for p in PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Every ratekit module that a file imports, at the top or inside a function."""
    known = known_modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("ratekit."):
                inner = name.removeprefix("ratekit.")
                while inner and inner not in known:
                    inner = inner.rpartition(".")[0]
                if inner:
                    yield inner


def imports() -> dict[str, set[str]]:
    """module -> the modules that it imports, without the package's own `__init__` and `__main__`."""
    paths = {module_name(p): p for p in sorted(PACKAGE.rglob("*.py"))}
    return {name: set(imported_modules(path)) for name, path in paths.items() if name not in ("", "__main__")}


def picture() -> str:
    """An SVG of the floors: a box for each room with its lines of code, darker where it is larger."""
    lines = {}
    for path in PACKAGE.rglob("*.py"):
        room = module_name(path).partition(".")[0]
        lines[room] = lines.get(room, 0) + path.read_text(encoding="utf-8").count("\n")
    rows = [(number, row) for number, floor in enumerate(floors()) for row in floor]
    height = ROW * len(rows) + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" '
        'font-size="13"><title>The rooms of ratekit, floor by floor; each imports from lower rows only</title>'
    ]
    seen = None
    for i, (number, row) in enumerate(reversed(rows)):
        top = 10 + i * ROW
        if number != seen:
            out.append(f'<text x="8" y="{top + 22}" font-weight="bold" fill="#555">{number}</text>')
            out.append(f'<line x1="0" x2="{WIDTH}" y1="{top - 4}" y2="{top - 4}" stroke="#bbb"/>')
            seen = number
        for k, room in enumerate(row):
            left = LEFT + k * (BOX + GAP)
            shade = 0.06 + 0.34 * min(1.0, lines.get(room, 0) / 4000)
            out.append(
                f'<rect x="{left}" y="{top}" width="{BOX}" height="32" rx="4" fill="#0072b2" '
                f'fill-opacity="{shade:.2f}" stroke="#0072b2"/>'
                f'<text x="{left + 8}" y="{top + 20}" fill="currentColor">{room}</text>'
                f'<text x="{left + BOX - 6}" y="{top + 20}" fill="#555" font-size="10" text-anchor="end">'
                f"{lines.get(room, 0):,}</text>"
            )
    return "\n".join([*out, "</svg>"]) + "\n"
