"""Would the tests notice? `make mutants` plants faults in the statistics, one at a time, and says which survive.

A fault is one change of one expression: a comparison turned or made strict, a sum for a difference, a product for a
quotient, a constant one off, an argument of min or max for the other, a condition negated. Each is put into the modules
in memory in a process of its own, forked after the imports, and the tests of that module run until one fails. What
survives is printed with its line: either a test is missing or the fault changes nothing that can be seen.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = {
    "ratekit.estimators": ["test_estimators.py", "test_recommendation.py", "test_inference.py", "test_diagnostics.py"],
    "ratekit.intervals": ["test_verdicts.py", "test_recommendation.py"],
    "ratekit.recommendation": ["test_recommendation.py"],
    "ratekit.augmentation": ["test_adjustment.py"],
    "ratekit.resampling": ["test_inference.py", "test_diagnostics.py"],
    "ratekit.groups": ["test_stages.py", "test_adjustment.py", "test_diagnostics.py"],
    "ratekit.diagnostics.contrasts": ["test_diagnostics.py"],
    "ratekit.diagnostics.adjustment": ["test_adjustment.py"],
    "ratekit.diagnostics.planning": ["test_diagnostics.py", "test_inference.py"],
    "ratekit.diagnostics.spillover": ["test_diagnostics.py"],
    "ratekit.diagnostics.verdicts": ["test_verdicts.py", "test_diagnostics.py"],
}
SECONDS = 300  # a fault that makes the tests hang is found too

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "nanmin": "nanmax", "nanmax": "nanmin", "any": "all", "all": "any"}


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every node inside a function where a fault can be planted, and what kind of fault."""
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for statement in function.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
                    yield node, "operator"
                elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
                    yield node, "comparison"
                elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
                    yield node, "sign"
                elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and id(node) not in docs:
                    yield node, "constant"
                elif isinstance(node, ast.Call) and _name(node.func) in NAMES:
                    yield node, "name"


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def plant(node: ast.AST, kind: str) -> None:
    """Change the node in place."""
    if kind == "operator":
        node.op = SWAPS[type(node.op)]()  # type: ignore[attr-defined]
    elif kind == "comparison":
        node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[attr-defined]
    elif kind == "sign":
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else node.op  # type: ignore[attr-defined]
        if not isinstance(node.op, ast.UAdd):  # type: ignore[attr-defined]
            node.operand = ast.UnaryOp(node.op, node.operand)  # type: ignore[attr-defined]
    elif kind == "constant":
        node.value = node.value + 1 if isinstance(node.value, int) else node.value * 1.5  # type: ignore[attr-defined]
    elif isinstance(node, ast.Call):
        name = NAMES[_name(node.func)]
        if isinstance(node.func, ast.Name):
            node.func.id = name
        else:
            node.func.attr = name  # type: ignore[attr-defined]


def parsed(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))


def faults(module: str) -> list[int]:
    """The places of a module where a fault can be planted, by their number in `places`."""
    seen: dict[tuple[int, int, str], int] = {}
    for i, (node, kind) in enumerate(places(parsed(module))):
        seen.setdefault((node.lineno, node.col_offset, kind), i)  # type: ignore[attr-defined]
    return list(seen.values())  # functions inside functions are walked twice


def planted(module: str, place: int) -> tuple[str, ast.Module]:
    """The module with the fault at that place, and its line before and after."""
    tree = parsed(module)
    node, kind = list(places(tree))[place]
    before = ast.unparse(node)
    plant(node, kind)
    said = f"{module}:{node.lineno}: {before}  ->  {ast.unparse(node)}"  # type: ignore[attr-defined]
    return said, ast.fix_missing_locations(tree)


def put(module: str, tree: ast.Module) -> None:
    """Put the changed module in the place of the real one, wherever its names were imported."""
    real = importlib.import_module(module)
    before = dict(vars(real))
    exec(compile(tree, real.__file__ or module, "exec"), vars(real))
    moved = {id(old): vars(real)[name] for name, old in before.items() if callable(old) and name in vars(real)}
    for other in [m for name, m in sys.modules.items() if name.startswith("ratekit") and m is not real]:
        for name, value in list(vars(other).items()):
            if id(value) in moved and moved[id(value)] is not value:
                setattr(other, name, moved[id(value)])


def survives(module: str, tree: ast.Module) -> bool:
    """Do all tests of the module pass with this fault in it?"""
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        signal.alarm(SECONDS)
        try:
            import pytest

            put(module, tree)
            files = [str(ROOT / "tests" / name) for name in TESTS[module] if (ROOT / "tests" / name).exists()]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *files]))
        except BaseException:
            code = 1
        os._exit(0 if code == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def main() -> None:
    """Plant the faults and print the survivors; exit code 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="which modules; default all")
    parser.add_argument("--n", type=int, default=160, help="how many faults, drawn over all modules")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for module in TESTS:
        importlib.import_module(module)
    for heavy in ("ratekit.cli", "ratekit.plots", "statsmodels.api"):  # what the tests import, once for all children
        importlib.import_module(heavy)
    every = [(module, place) for module in args.modules for place in faults(module)]
    drawn = random.Random(args.seed).sample(every, min(args.n, len(every)))
    survivors = []
    started = time.monotonic()
    for i, (module, place) in enumerate(drawn, start=1):
        said, tree = planted(module, place)
        if survives(module, tree):
            survivors.append(said)
            print(f"SURVIVES {said}", flush=True)
        if i % 10 == 0:
            print(f"{i} of {len(drawn)} faults, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} faults found ({len(every)} can be planted)")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
