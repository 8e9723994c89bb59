"""Faults: what is planted in a room, one at a time, and how a running process takes one in."""

from __future__ import annotations

import ast
import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType

ROOT = Path(__file__).parents[2]
LONG = 160

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
                if keyword.arg not in ("strict", "repr"):
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

    def lines(self) -> range:
        """Where a running program shows that it is at the statement."""
        body = getattr(self.statement, "body", None)
        last = body[0].lineno - 1 if body else self.statement.end_lineno or 0
        return range(self.statement.lineno, max(last, self.statement.lineno) + 1)

    def words(self) -> tuple[str, str]:
        """The first line of the statement without and with the fault; of a long one, what is around the fault."""
        before = ast.unparse(self.statement).splitlines()[0]
        if isinstance(self.new, ast.Pass):
            return before[:LONG], "pass"
        self.swap()
        after = ast.unparse(self.statement).splitlines()[0]
        self.swap()
        if len(before) <= LONG:
            return before, after
        same = _shared(before, after)
        end = _shared(before[same:][::-1], after[same:][::-1])
        start, end = max(same - 60, 0), max(end - 60, 0)
        return before[start : len(before) - end], after[start : len(after) - end]


def _shared(a: str, b: str) -> int:
    """How many characters both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def faults(tree: ast.AST, statement: ast.stmt | None = None) -> Iterator[Fault]:
    """All that can be planted in a tree, in the order of its lines; the same at every call."""
    match tree:
        case ast.Assert() | ast.Raise() | ast.JoinedStr() | ast.keyword("strict" | "repr"):  # checks and words
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
    lines: range  # of the statement, or of its head
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.lines.start}\n    - {self.before}\n    + {self.after}"

    @property
    def name(self) -> tuple[str, str, str]:
        """What stays when lines move."""
        return str(self.path.relative_to(ROOT)), self.before, self.after


def mutants(path: Path) -> list[Mutant]:
    """All mutants of a file."""
    found = enumerate(faults(ast.parse(path.read_text())))
    return [Mutant(path, number, fault.lines(), *fault.words()) for number, fault in found]


def files(room: str, pattern: str = "*") -> list[Path]:
    """The files of a room."""
    folder = ROOT / room if room.startswith("kernels") else ROOT / "flexsn" / room
    return sorted(folder.rglob(f"{pattern}.py"))


# ---- planting --------------------------------------------------------------------------------------------------


def planted(path: Path, number: int) -> tuple[CodeType, CodeType]:
    """The code of a file without and with its fault of that number."""
    tree = ast.parse(path.read_text())
    whole = compile(tree, path, "exec", dont_inherit=True)
    list(faults(tree))[number].swap()
    return whole, compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


def _inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inside(constant)


def _by_place(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """The functions of a file by their names and first lines, where these say which is which."""
    count = Counter((c.co_name, c.co_firstlineno) for c in _inside(code))
    return {key: c for c in _inside(code) if count[key := (c.co_name, c.co_firstlineno)] == 1}


def functions(path: Path) -> list[FunctionType]:
    """The functions of a file that are there."""
    there = (f for f in gc.get_objects() if type(f) is FunctionType)
    return [f for f in there if f.__code__.co_filename == str(path)]


def plant(mutant: Mutant) -> bool:
    """Give the functions that are there the code with the fault; whether it is now in one of them.

    What runs only as the file is imported (a table, a default) is not.
    """
    whole, faulty = planted(mutant.path, mutant.number)
    before, after = _by_place(whole), _by_place(faulty)
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
    done = False
    for function in functions(mutant.path):
        key = function.__code__.co_name, function.__code__.co_firstlineno
        if key in changed and function.__code__.co_freevars == after[key].co_freevars:
            function.__code__ = after[key]
            done = True
    return done
