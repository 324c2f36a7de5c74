"""Would the tests notice? `make mutants` plants faults in the statistics, one at a time, and says which survive.

A fault is one change of one expression: a comparison turned or made strict, a sum for a difference, a product for a
quotient, a constant one off, an argument of min or max for the other, a condition negated. Each is put into the modules
in memory in a process of its own, forked once the tests are collected, and those tests of that module that run its
line are run, the fastest first, until one fails. All of them first pass once with every module put back unchanged.
What survives is printed with its line: a test is missing. Faults that are proved to change no result have a row in the
table of benchmarks/mutants.md, each with its proof, and are counted apart and not planted.

Which faults are planted depends on the seed and on each fault's own text alone, so that a change elsewhere in the code
leaves the others in the draw. `--only` plants all faults of a text or file, such as what an earlier run printed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".md")  # of the equivalent faults
CONTEXT = 24  # characters: a shorter expression is told with what it stands in
TESTS = {
    "ratekit.estimators": [
        "test_estimators.py",
        "test_recommendation.py",
        "test_inference.py",
        "test_diagnostics.py",
        "test_adjustment.py",
    ],
    "ratekit.intervals": ["test_verdicts.py", "test_recommendation.py", "test_inference.py", "test_diagnostics.py"],
    "ratekit.conclusions": ["test_verdicts.py", "test_diagnostics.py"],
    "ratekit.recommendation": ["test_recommendation.py", "test_verdicts.py"],
    "ratekit.augmentation": ["test_adjustment.py"],
    "ratekit.resampling": ["test_inference.py", "test_diagnostics.py", "test_estimators.py"],
    "ratekit.groups": ["test_groups.py", "test_stages.py", "test_adjustment.py", "test_diagnostics.py"],
    "ratekit.gates": ["test_gates.py"],
    "ratekit.cards": ["test_card.py"],
    "ratekit.best_of_n": ["test_best_of_n.py"],
    "ratekit.discovery": ["test_discovery.py"],
    "ratekit.diagnostics.contrasts": ["test_diagnostics.py", "test_inference.py"],
    "ratekit.diagnostics.adjustment": ["test_adjustment.py"],
    "ratekit.diagnostics.diagnose": ["test_diagnostics.py", "test_verdicts.py"],
    "ratekit.diagnostics.evidence": ["test_verdicts.py", "test_diagnostics.py"],
    "ratekit.diagnostics.people": ["test_diagnostics.py", "test_adjustment.py"],
    "ratekit.diagnostics.planning": ["test_diagnostics.py", "test_inference.py"],
    "ratekit.diagnostics.positions": ["test_judges.py"],
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
    passed = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for hint in (getattr(n, name, None) for n in ast.walk(tree) for name in ("annotation", "returns")):
        passed |= {id(n) for n in ast.walk(hint)} if isinstance(hint, ast.AST) else set()
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for statement in function.body if only is None or function.name in only else ():
            for node in ast.walk(statement):
                if id(node) in passed:
                    continue
                if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
                    yield node, "operator"
                elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
                    yield node, "comparison"
                elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
                    yield node, "sign"
                elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
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
        value = node.value  # type: ignore[attr-defined]
        node.value = value + 1 if isinstance(value, int) or value == 0 else value * 1.5  # type: ignore[attr-defined]
    elif isinstance(node, ast.Call):
        name = NAMES[_name(node.func)]
        if isinstance(node.func, ast.Name):
            node.func.id = name
        else:
            node.func.attr = name  # type: ignore[attr-defined]


def parsed(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))


class Fault(NamedTuple):
    """A fault by its place in `places`; `text` names it wherever its line moves to, `again` counts those alike."""

    module: str
    place: int
    line: int
    text: str
    again: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.text}"


def faults(module: str) -> list[Fault]:
    """Every fault that can be planted in a module."""
    tree = parsed(module)
    above = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    seen: set[int] = set()
    found: list[Fault] = []
    alike: dict[str, int] = {}
    for place, (node, kind) in enumerate(places(tree, STATISTICS.get(module))):
        if id(node) not in seen:  # functions inside functions are walked twice
            seen.add(id(node))
            text = _text(node, kind, above)
            alike[text] = alike.get(text, -1) + 1
            found.append(Fault(module, place, node.lineno, text, alike[text]))  # type: ignore[attr-defined]
    return found


def _text(node: ast.AST, kind: str, above: dict[int, ast.AST]) -> str:
    """The expression before and after, with as much around it as tells it from others."""
    whole = node
    told = ast.expr | ast.comprehension | ast.keyword | ast.Assign | ast.AugAssign | ast.Return
    while len(ast.unparse(whole)) < CONTEXT and isinstance(outer := above[id(whole)], told):
        if len(ast.unparse(outer)) > 6 * CONTEXT:
            break
        whole = outer
    changed = copy.deepcopy(whole, memo := {})
    plant(memo[id(node)], kind)
    before, after = (" ".join(ast.unparse(of).split()) for of in (whole, changed))
    return f"{before}  ->  {after}"


def planted(fault: Fault) -> tuple[set[int], ast.Module]:
    """The lines of the statement that it is in, and the module with the fault."""
    tree = parsed(fault.module)
    node, kind = list(places(tree, STATISTICS.get(fault.module)))[fault.place]
    lines: set[int] = set()
    for statement in (n for n in ast.walk(tree) if isinstance(n, ast.stmt)):
        body = getattr(statement, "body", None) or getattr(statement, "cases", None)
        last = statement.end_lineno or 0
        if isinstance(body, list) and body:
            last = max(statement.lineno, getattr(body[0], "lineno", fault.line) - 1)
        if statement.lineno <= fault.line <= last and node is not statement:
            lines = set(range(statement.lineno, last + 1))  # the innermost comes last
    plant(node, kind)
    return lines | {fault.line}, ast.fix_missing_locations(tree)


def equivalents() -> dict[str, str]:
    """{"module: before  ->  after": proof}, the rows of the table whose first cell is a module."""
    found = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] in TESTS:
            module, before, after, proof = cells
            found[f"{module}: {before.strip('`')}  ->  {after.strip('`')}"] = proof
    return found


def put(module: str, tree: ast.Module) -> None:
    """Put the changed module in the place of the real one, wherever its names were imported, in tests too."""
    real = importlib.import_module(module)
    before = dict(vars(real))
    exec(compile(tree, real.__file__ or module, "exec"), vars(real))
    mine = {n: old for n, old in before.items() if callable(old) or isinstance(old, dict | list | set)}
    moved = {id(old): vars(real)[name] for name, old in mine.items() if name in vars(real)}
    for other in [m for name, m in sys.modules.items() if name.startswith(("ratekit", "test_")) and m is not real]:
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


class Planter:
    """A plugin that runs the collected tests without a fault, and then some of them with each fault, in processes."""

    def __init__(self, chosen: list[Fault], files: dict[str, list[str]], proved: dict[str, str]) -> None:
        self.chosen, self.files, self.proved = chosen, files, proved
        self.ran: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.survivors = self.equivalent = 0

    def pytest_runtestloop(self, session: Any) -> bool:
        started = time.monotonic()
        self.record(session)
        print(f"{len(self.seconds)} tests pass without a fault, {time.monotonic() - started:.0f} s", flush=True)
        for i, fault in enumerate(self.chosen, start=1):
            if f"{fault.module}: {fault.text}" in self.proved:
                self.equivalent += 1
            elif self.survives(session, fault):
                self.survivors += 1
                print(f"SURVIVES {fault}", flush=True)
            if i % 10 == 0:
                print(f"{i} of {len(self.chosen)} faults, {time.monotonic() - started:.0f} s", flush=True)
        return True

    def record(self, session: Any) -> None:
        """Which lines every test runs (and every file's fixtures), and its seconds; no fault is in any module."""
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "lines.json"

            def work() -> int:
                for module in TESTS:
                    put(module, parsed(module))
                recorder = Recorder()
                session.config.pluginmanager.register(recorder)
                failed = run(session, session.items)
                sys.settrace(None)
                lines = {node: sorted(ran) for node, ran in recorder.ran.items()}
                found.write_text(json.dumps([lines, recorder.seconds]), encoding="utf-8")
                return failed

            if in_child(work):
                pytest.exit("a test fails with no fault planted: run the tests by themselves first", returncode=2)
            lines, self.seconds = json.loads(found.read_text(encoding="utf-8"))
        self.ran = {node: set(ran) for node, ran in lines.items()}

    def survives(self, session: Any, fault: Fault) -> bool:
        """Do all tests of the module's files that run one of its lines pass with this fault in it?"""
        lines, tree = planted(fault)
        where, files = {f"{fault.module}:{line}" for line in lines}, self.files[fault.module]
        told = {node: ran | self.ran.get(node.split("::")[0], set()) for node, ran in self.ran.items()}
        items = [item for item in session.items if item.nodeid.split("::")[0] in files]
        items = [item for item in items if item.nodeid in self.seconds]
        # A line that no test runs may have run while the module was imported: a table's.
        items = [item for item in items if where & told[item.nodeid]] or items
        items.sort(key=lambda item: self.seconds[item.nodeid])

        def work() -> int:
            limit = int(SECONDS + 3 * sum(self.seconds[item.nodeid] for item in items))
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            most = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            put(fault.module, tree)
            return run(session, items)

        return in_child(work) == 0


def run(session: Any, items: list[Any]) -> int:
    """Run these tests until one fails; 1 where one did."""
    for item, after in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        if session.testsfailed:
            return 1
    return 0


def drawn(every: dict[str, list[Fault]], n: int, seed: int) -> list[Fault]:
    """At least `n` faults, of each module as many as its share of all and `LEAST` at least."""

    def rank(fault: Fault) -> bytes:
        return hashlib.sha256(f"{seed} {fault.module} {fault.text} {fault.again}".encode()).digest()

    total = sum(map(len, every.values()))
    found = [f for of in every.values() for f in sorted(of, key=rank)[: max(LEAST, -(-n * len(of) // total))]]
    return sorted(found, key=rank)  # a run that is stopped has seen some of every module


def listed(every: dict[str, list[Fault]], only: list[str]) -> list[Fault]:
    """The faults of these texts, "module: before  ->  after", or of the files that hold such lines."""
    lines = [
        line for given in only for line in (Path(given).read_text().splitlines() if Path(given).exists() else [given])
    ]
    asked = {re.sub(r"^(?:SURVIVES )?([\w.]+):(?:\d+:)? *", r"\1: ", line) for line in lines}
    return [fault for of in every.values() for fault in of if f"{fault.module}: {fault.text}" in asked]


def main() -> None:
    """Plant the faults and print the survivors; exit code 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="which modules; default all")
    parser.add_argument("--n", type=int, default=160, help="how many faults, over all modules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="TEXT|FILE", help="these faults and no others")
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="only these tests, as pytest takes them")
    parser.add_argument("--list", action="store_true", help="name the faults and plant none")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    every, proved = {module: faults(module) for module in args.modules}, equivalents()
    chosen = listed(every, args.only) if args.only else drawn(every, args.n, args.seed)
    if args.list:
        print("\n".join(map(str, chosen)))
        return
    for module in TESTS:
        importlib.import_module(module)
    for heavy in ("ratekit.cli", "ratekit.plots", "statsmodels.api"):  # what the tests import, once for all children
        importlib.import_module(heavy)
    files = {module: [f"tests/{name}" for name in TESTS[module]] for module in TESTS}
    if args.tests:
        given = list(dict.fromkeys(test.split("::")[0] for test in args.tests))
        files = {module: given for module in files}
    used = dict.fromkeys(name for fault in chosen for name in files[fault.module])
    planter = Planter(chosen, files, proved)
    if pytest.main(["-q", "-s", *SKIPPED, *(args.tests or used)], plugins=[planter]) not in (0, 5):
        sys.exit(2)
    found, total = len(chosen) - planter.survivors - planter.equivalent, sum(map(len, every.values()))
    print(
        f"{found} found, {planter.equivalent} proved equivalent, {planter.survivors} survive, of {len(chosen)} "
        f"({total} can be planted)"
    )
    sys.exit(bool(planter.survivors))


if __name__ == "__main__":
    main()
