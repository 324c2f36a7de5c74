"""Would the tests notice? `make mutants` plants faults in the statistics, one at a time, and says which survive.

A fault is one change of one expression: a comparison turned or made strict, a sum for a difference, a product for a
quotient, a constant one off, an argument of min or max for the other, a condition negated. Each is put into the modules
in memory in a process of its own, forked after the imports, and those tests of that module that run its line are run,
the fastest first, until one fails. All of them first pass once with every module put back unchanged. What survives is
printed with its line: either a test is missing or the fault changes nothing that can be seen.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
TESTS = {
    "ratekit.estimators": ["test_estimators.py", "test_recommendation.py", "test_inference.py", "test_diagnostics.py"],
    "ratekit.intervals": ["test_verdicts.py", "test_recommendation.py", "test_inference.py", "test_diagnostics.py"],
    "ratekit.recommendation": ["test_recommendation.py", "test_verdicts.py"],
    "ratekit.augmentation": ["test_adjustment.py"],
    "ratekit.resampling": ["test_inference.py", "test_diagnostics.py", "test_estimators.py"],
    "ratekit.groups": ["test_stages.py", "test_adjustment.py", "test_diagnostics.py"],
    "ratekit.gates": ["test_gates.py"],
    "ratekit.cards": ["test_card.py"],
    "ratekit.best_of_n": ["test_best_of_n.py"],
    "ratekit.discovery": ["test_discovery.py"],
    "ratekit.diagnostics.contrasts": ["test_diagnostics.py", "test_inference.py"],
    "ratekit.diagnostics.adjustment": ["test_adjustment.py"],
    "ratekit.diagnostics.people": ["test_diagnostics.py", "test_adjustment.py"],
    "ratekit.diagnostics.planning": ["test_diagnostics.py", "test_inference.py"],
    "ratekit.diagnostics.rewriters": ["test_rewriters.py"],
    "ratekit.diagnostics.spillover": ["test_diagnostics.py"],
    "ratekit.diagnostics.verdicts": ["test_verdicts.py", "test_diagnostics.py"],
}
STATISTICS = {  # the functions of modules that also write pages or ask models
    "ratekit.cards": {"table", "contrasts", "looks", "enough", "leaderboard"},
    "ratekit.discovery": {"screen", "confirm", "_estimated", "_explained_by", "_adjusted"},
}
LEAST = 6  # faults of each module
SECONDS = 60  # of computing, beside three times what the tests take: a fault that makes them hang is found too
MEMORY = 4 << 30  # bytes more than before the fault
SKIPPED = ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not commands"]

SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "nanmin": "nanmax", "nanmax": "nanmin", "any": "all", "all": "any"}


def places(tree: ast.Module, only: set[str] | None = None) -> Iterator[tuple[ast.AST, str]]:
    """Every node inside a function (of these names) where a fault can be planted, and what kind of fault."""
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for statement in function.body if only is None or function.name in only else ():
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
    for i, (node, kind) in enumerate(places(parsed(module), STATISTICS.get(module))):
        seen.setdefault((node.lineno, node.col_offset, kind), i)  # type: ignore[attr-defined]
    return list(seen.values())  # functions inside functions are walked twice


def planted(module: str, place: int) -> tuple[str, set[int], ast.Module]:
    """Its line before and after, the lines of the statement that it is in, and the module with the fault."""
    tree = parsed(module)
    node, kind = list(places(tree, STATISTICS.get(module)))[place]
    line: int = node.lineno  # type: ignore[attr-defined]
    lines: set[int] = set()
    for statement in (n for n in ast.walk(tree) if isinstance(n, ast.stmt)):
        body = getattr(statement, "body", None) or getattr(statement, "cases", None)
        last = statement.end_lineno or 0
        if isinstance(body, list) and body:
            last = max(statement.lineno, getattr(body[0], "lineno", line) - 1)
        if statement.lineno <= line <= last and node is not statement:
            lines = set(range(statement.lineno, last + 1))  # the innermost comes last
    before = ast.unparse(node)
    plant(node, kind)
    return f"{module}:{line}: {before}  ->  {ast.unparse(node)}", lines | {line}, ast.fix_missing_locations(tree)


def put(module: str, tree: ast.Module) -> None:
    """Put the changed module in the place of the real one, wherever its names were imported."""
    real = importlib.import_module(module)
    before = dict(vars(real))
    exec(compile(tree, real.__file__ or module, "exec"), vars(real))
    mine = {n: old for n, old in before.items() if callable(old) or isinstance(old, dict | list | set)}
    moved = {id(old): vars(real)[name] for name, old in mine.items() if name in vars(real)}
    for other in [m for name, m in sys.modules.items() if name.startswith("ratekit") and m is not real]:
        for name, value in list(vars(other).items()):
            if id(value) in moved and moved[id(value)] is not value:
                setattr(other, name, moved[id(value)])


class Recorder:
    """A plugin that notes which lines of the modules each test runs, and for how long it runs.

    Lines that run while fixtures are set up count for every test of the file.
    """

    def __init__(self) -> None:
        names = {importlib.import_module(module).__file__ or "": module for module in TESTS}
        self.codes: dict[str, str] = names
        self.ran: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.now: set[str] = set()

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        module = self.codes.get(frame.f_code.co_filename)
        if module is None:
            return None

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            self.now.add(f"{module}:{frame.f_lineno}")
            return line

        return line(frame, event, arg)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.now = self.ran.setdefault(nodeid.split("::")[0], set())
        sys.settrace(self.trace)

    def pytest_runtest_call(self, item: Any) -> None:
        self.now = self.ran.setdefault(item.nodeid, set())
        sys.settrace(self.trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration


class Chosen:
    """A plugin that runs these tests alone, in this order."""

    def __init__(self, nodes: list[str]) -> None:
        self.order = {node: i for i, node in enumerate(nodes)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def in_child(work: Any) -> int:
    """The exit code of `work()` in a process of its own that prints nothing; negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        try:
            code = int(work())
        except BaseException:
            code = 99
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def recorded() -> tuple[dict[str, set[str]], dict[str, float]]:
    """Which lines every test runs (and every file's fixtures), and its seconds; no fault is in any module."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "lines.json"

        def work() -> int:
            import pytest

            for module in TESTS:
                put(module, parsed(module))
            recorder = Recorder()
            files = [str(ROOT / "tests" / name) for name in dict.fromkeys(n for names in TESTS.values() for n in names)]
            code = int(pytest.main(["-x", "-q", *SKIPPED, *files], plugins=[recorder]))
            sys.settrace(None)
            lines = {node: sorted(ran) for node, ran in recorder.ran.items()}
            found.write_text(json.dumps([lines, recorder.seconds]), encoding="utf-8")
            return code

        if in_child(work):
            sys.exit("the tests fail with no fault planted: run them by themselves first")
        lines, seconds = json.loads(found.read_text(encoding="utf-8"))
    return {node: set(ran) for node, ran in lines.items()}, seconds


def survives(
    module: str, tree: ast.Module, lines: set[int], ran: dict[str, set[str]], seconds: dict[str, float]
) -> bool:
    """Do all tests of the module that run one of these lines pass with this fault in it?"""
    where = {f"{module}:{line}" for line in lines}
    files = [f"tests/{name}" for name in TESTS[module]]
    nodes = [n for n in seconds if n.split("::")[0] in files and where & (ran[n] | ran.get(n.split("::")[0], set()))]
    nodes.sort(key=lambda node: seconds[node])
    if not nodes:
        return True
    used = [name for name in files if any(node.startswith(name) for node in nodes)]

    def work() -> int:
        import pytest

        limit = int(SECONDS + 3 * sum(seconds[node] for node in nodes))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        put(module, tree)
        return int(pytest.main(["-x", "-q", *SKIPPED, *[str(ROOT / name) for name in used]], plugins=[Chosen(nodes)]))

    return in_child(work) == 0


def drawn(modules: list[str], n: int, seed: int) -> tuple[list[tuple[str, int]], int]:
    """At least `n` faults, of each module as many as its share of all and `LEAST` at least; and how many there are."""
    rng, every = random.Random(seed), {module: faults(module) for module in modules}
    total = sum(map(len, every.values()))
    found = []
    for module, of in every.items():
        found += [(module, place) for place in rng.sample(of, min(max(LEAST, -(-n * len(of) // total)), len(of)))]
    rng.shuffle(found)  # a run that is stopped has seen some of every module
    return found, total


def main() -> None:
    """Plant the faults and print the survivors; exit code 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="which modules; default all")
    parser.add_argument("--n", type=int, default=160, help="how many faults, over all modules")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for module in TESTS:
        importlib.import_module(module)
    for heavy in ("ratekit.cli", "ratekit.plots", "statsmodels.api"):  # what the tests import, once for all children
        importlib.import_module(heavy)
    chosen, total = drawn(args.modules, args.n, args.seed)
    started = time.monotonic()
    ran, seconds = recorded()
    print(f"{len(seconds)} tests pass without a fault, {time.monotonic() - started:.0f} s", flush=True)
    survivors = []
    for i, (module, place) in enumerate(chosen, start=1):
        said, lines, tree = planted(module, place)
        if survives(module, tree, lines, ran, seconds):
            survivors.append(said)
            print(f"SURVIVES {said}", flush=True)
        if i % 10 == 0:
            print(f"{i} of {len(chosen)} faults, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults found ({total} can be planted)")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
