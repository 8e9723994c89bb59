"""Mutants: plant one small fault at a time in an inner room, and see whether a test notices.

``make mutants ROOM=planning`` tries a sample of 40. Each mutant lives in a process of its own and never in the tree.
One that survives wants a test, or a place in ``equivalents.txt`` with the reason why no test can tell.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.txt")

FRONT = ("tests/test_tiny.py", "tests/flexsn", "tests/execution", "tests/modules", "tests/property")
INTERPRETED = ("tests/kernels/triton/test_kernels.py", "tests/property")
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ir": (("tests/ir", *FRONT), INTERPRETED),
    "captures": (("tests/captures", *FRONT), ()),
    "tracing": (("tests/tracing", *FRONT), ()),
    "planning": (("tests/planning", *FRONT, "tests/kernels/triton"), INTERPRETED),
    "execution": (("tests/execution", *FRONT), ()),
    "kernels/cpp": (("tests/kernels", "tests/property"), ()),
    "kernels/triton": ((), INTERPRETED),
}
"""The tests of a room besides those in the folder of its name, and those that take Triton's interpreter."""

# ---- faults ----------------------------------------------------------------------------------------------------

COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
}
OTHER_CALL = {"min": "max", "max": "min", "any": "all", "all": "any"}
LEFT_OUT = ("decorator_list", "annotation", "returns")  # fields without behaviour that a test should hold


def _instead(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in for a part of a statement."""
    match node:
        case ast.Compare(left, [op], [right]):
            yield from (ast.Compare(left, [other()], [right]) for other in COMPARE[type(op)])
            yield from (ast.Constant(True), ast.Constant(False))
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.IfExp(_, body, orelse):
            yield from (body, orelse)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value) if abs(value) < 16:  # larger ones are how much to remember
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Tuple(parts, ast.Load()) if len(parts) > 1:  # such as a key
            for i, part in enumerate(parts):
                if not isinstance(part, ast.Constant):
                    yield ast.Tuple([*parts[:i], ast.Constant(None), *parts[i + 1 :]], ast.Load())
        case ast.Call(ast.Name(name), args, keywords) if name in OTHER_CALL:
            yield ast.Call(ast.Name(OTHER_CALL[name], ast.Load()), args, keywords)
        case ast.Call(ast.Name("sorted" | "reversed"), [argument], []):
            yield argument
        case ast.Call(function, args, keywords):
            for i, keyword in enumerate(keywords):
                if keyword.arg != "strict":
                    yield ast.Call(function, args, keywords[:i] + keywords[i + 1 :])
        case ast.comprehension(target, values, conditions, is_async):
            for i in range(len(conditions)):
                yield ast.comprehension(target, values, conditions[:i] + conditions[i + 1 :], is_async)


def _droppable(statement: ast.stmt) -> bool:
    """Whether the code goes on without it."""
    match statement:
        case ast.Expr(value):
            return not isinstance(value, ast.Constant)
        case ast.AugAssign() | ast.Continue() | ast.Break() | ast.Delete():
            return True
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            return True
        case ast.If(_, body, []):
            return isinstance(body[-1], (ast.Raise, ast.Return, ast.Continue, ast.Break))
    return False


@dataclass
class Fault:
    """A statement, and a part of it for which ``new`` may stand in."""

    statement: ast.stmt
    holder: ast.AST
    field: str
    index: int | None
    new: ast.AST

    def swap(self) -> None:
        """Plant the fault; a second time takes it out again."""
        held = getattr(self.holder, self.field)
        if self.index is None:
            setattr(self.holder, self.field, self.new)
            self.new = held
        else:
            held[self.index], self.new = self.new, held[self.index]

    def words(self) -> tuple[str, str]:
        """The first line of the statement without and with the fault."""
        before = ast.unparse(self.statement).splitlines()[0]
        if isinstance(self.new, ast.Pass):
            return before, "pass"
        self.swap()
        after = ast.unparse(self.statement).splitlines()[0]
        self.swap()
        return before, after


def faults(tree: ast.AST, statement: ast.stmt | None = None) -> Iterator[Fault]:
    """All that can be planted in a tree, in the order of its lines; the same at every call."""
    match tree:
        case ast.Assert() | ast.Raise() | ast.JoinedStr() | ast.keyword("strict"):  # checks and words
            return
    for field, value in ast.iter_fields(tree):
        for index, node in enumerate(value) if isinstance(value, list) else ((None, value),):
            if field in LEFT_OUT or not isinstance(node, ast.AST):
                continue
            inside = node if isinstance(node, ast.stmt) else statement
            if node is inside and _droppable(node):
                yield Fault(node, tree, field, index, ast.Pass())
            if inside is not None:
                yield from (Fault(inside, tree, field, index, new) for new in _instead(node))
            yield from faults(node, inside)


@dataclass(frozen=True)
class Mutant:
    """A file with its fault of that number."""

    path: Path
    number: int
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}\n    - {self.before}\n    + {self.after}"

    @property
    def name(self) -> tuple[str, str, str]:
        """What stays when lines move."""
        return str(self.path.relative_to(ROOT)), self.before, self.after


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a file."""
    found = enumerate(faults(ast.parse(path.read_text())))
    return [Mutant(path, number, fault.statement.lineno, *fault.words()) for number, fault in found]


def files(room: str, pattern: str = "*") -> list[Path]:
    """The files of a room."""
    folder = ROOT / room if room.startswith("kernels") else ROOT / "flexsn" / room
    return sorted(folder.rglob(f"{pattern}.py"))


def equivalents() -> set[tuple[str, ...]]:
    """The mutants that no test can tell from the original: blocks of a file, ``- before``, ``+ after``, and why."""
    blocks = EQUIVALENTS.read_text().strip().split("\n\n")
    return {
        tuple(line.removeprefix("- ").removeprefix("+ ") for line in block.splitlines()[:3])
        for block in blocks
        if block
    }


# ---- one mutant: a process -------------------------------------------------------------------------------------


def run(path: str, number: int, tests: list[str]) -> int:
    """Run tests with one fault in one file, or none if its number is negative; pytest's exit status."""
    load = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> Any:
        if os.path.realpath(self.path) != path:
            return load(self, fullname)
        tree = ast.parse(self.get_data(self.path))
        list(faults(tree))[number].swap()
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)

    if number >= 0:
        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    return pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])


def outcome(room: str, path: Path, number: int, limit: float | None = None) -> str:
    """``killed``, ``survived`` or ``timed out`` (an endless loop, or too slow to tell)."""
    own = [path for path in (f"tests/{room}",) if (ROOT / path).exists()]
    tests, interpreted = ROOMS[room]
    for environment, paths in ({}, (*own, *tests)), ({"TRITON_INTERPRET": "1"}, interpreted):
        if not paths:
            continue
        process = subprocess.Popen(
            [sys.executable, __file__, "run", str(path), str(number), *paths],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise SystemExit(f"no tests in {', '.join(paths)}")
        if status:
            return "killed"
    return "survived"


def main() -> int:
    """Try a sample of mutants of a room; 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--room", choices=ROOMS, required=True)
    parser.add_argument("--file", default="*", help="the name of a file, or a pattern")
    parser.add_argument("--sample", type=int, default=40, help="how many; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    known = equivalents()
    found = [m for path in files(chosen.room, chosen.file) for m in mutants(path) if m.name not in known]
    tried = random.Random(chosen.seed).sample(found, min(chosen.sample or len(found), len(found)))
    start = time.monotonic()
    if outcome(chosen.room, ROOT, -1) != "survived":
        raise SystemExit("the tests fail without a mutant")
    limit = 60 + 3 * (time.monotonic() - start)
    print(f"{len(tried)} of {len(found)} mutants of {chosen.room}, at most {limit:.0f} s each", flush=True)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        ends = pool.map(lambda m: outcome(chosen.room, m.path, m.number, limit), tried)
        alive = 0
        for mutant, end in zip(tried, ends, strict=True):
            alive += end == "survived"
            if end != "killed":
                print(f"{mutant}\n    {end}", flush=True)
    print(f"{alive} of {len(tried)} survived; {time.monotonic() - start:.0f} s")
    return int(alive > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(run(sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
    sys.exit(main())
