"""Simplified graphs have the bits of the graphs they came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.simplify import simplify

F32, F64, F16, I32, I64, BOOL = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.int32,
    torch.int64,
    torch.bool,
)
DTYPES = (F32, F64, F16, I32, I64, BOOL)
ARITHMETIC = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}
UNARY = {"neg": torch.neg, "abs": torch.abs}
COMPARE = {n: getattr(torch, n) for n in ("eq", "ne", "lt", "le", "gt", "ge")}
LOGIC = {n: getattr(torch, n) for n in ("logical_and", "logical_or", "logical_xor")}
EVALUATE: dict[str, Callable[..., Tensor]] = {
    **ARITHMETIC,
    **UNARY,
    **COMPARE,
    **LOGIC,
    "div": torch.div,
    "where": torch.where,
    "logical_not": torch.logical_not,
}
NUMBERS = (0, -0.0, 1, -1, 2, 0.5, -0.25, 3, 1e-40, 2.0**126, math.inf, -math.inf, math.nan)


def leaves() -> dict[torch.dtype, Tensor]:
    """A column of special values per dtype."""
    special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        3.0,
        1e-45,
        1e-38,
        3e38,
        math.inf,
        -math.inf,
        math.nan,
        2.5,
        -7.25,
        1e-310,
        8.0,
    ]
    floats = torch.tensor(special, dtype=F64)
    ints = torch.tensor([0, 1, -1, 2, 3, -7, 100, 2**31 - 1, -(2**31), 5, 6, 7, 8, 9, 10, 11], dtype=I64)
    return {F32: floats.to(F32), F64: floats, F16: floats.to(F16), I32: ints.to(I32), I64: ints, BOOL: ints > 1}


def evaluate(root: Node, columns: dict[torch.dtype, Tensor]) -> Tensor:
    """The value of a node, computed by torch."""
    values: dict[int, Tensor] = {}
    for node in topological([root]):
        args = [values[id(a)] for a in node.args]
        if node.is_const:
            values[id(node)] = torch.full((16,), node.value, dtype=node.dtype)
        elif node.op is LeafKind.INPUT:
            values[id(node)] = columns[node.dtype].roll(node.index)
        elif node.op == "cast":
            values[id(node)] = args[0].to(node.dtype)
        else:
            values[id(node)] = EVALUATE[str(node.op)](*args)
        assert values[id(node)].dtype == node.dtype
    return values[id(root)]


def same_bits(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    bits = {4: torch.int32, 8: torch.int64, 2: torch.int16}[a.element_size()]
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


@st.composite
def programs(draw: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
    """Instructions ``(op, dtype, arguments)``; arguments count back among earlier values of the right dtype."""
    dtypes: list[torch.dtype] = []
    rows: list[tuple[Any, ...]] = []

    def emit(op: str, dtype: torch.dtype, args: Any) -> int:
        rows.append((op, dtype, args))
        dtypes.append(dtype)
        return len(rows) - 1

    def value(dtype: torch.dtype) -> int:
        there = [i for i, d in enumerate(dtypes) if d == dtype]
        choice = draw(st.integers(0, 3))
        if there and choice:
            return int(draw(st.sampled_from(there[::-1])))
        if draw(st.booleans()):
            numbers = [
                n for n in NUMBERS if dtype.is_floating_point or (math.isfinite(n) and n == int(n) and abs(n) < 4)
            ]
            return emit("const", dtype, draw(st.sampled_from(numbers)))
        return emit("input", dtype, draw(st.integers(0, 2)))

    for _ in range(draw(st.integers(1, 8))):
        dtype = draw(st.sampled_from([F32, F32, F64, I32, I64]))
        kind = draw(st.sampled_from(["arithmetic", "unary", "compare", "logic", "not", "where", "cast", "cast", "div"]))
        if kind == "arithmetic":
            emit(draw(st.sampled_from(list(ARITHMETIC))), dtype, (value(dtype), value(dtype)))
        elif kind == "unary":
            emit(draw(st.sampled_from(list(UNARY))), dtype, (value(dtype),))
        elif kind == "compare":
            emit(draw(st.sampled_from(list(COMPARE))), BOOL, (value(dtype), value(dtype)))
        elif kind == "logic":
            emit(draw(st.sampled_from(list(LOGIC))), BOOL, (value(BOOL), value(BOOL)))
        elif kind == "not":
            emit("logical_not", BOOL, (value(BOOL),))
        elif kind == "where":
            emit("where", dtype, (value(BOOL), value(dtype), value(dtype)))
        elif kind == "cast":
            emit("cast", draw(st.sampled_from(DTYPES)), (value(draw(st.sampled_from(DTYPES))),))
        elif dtype.is_floating_point:
            emit("div", dtype, (value(dtype), value(dtype)))
    return rows


def build(program: list[tuple[Any, ...]], builder: Builder) -> Node:
    nodes: list[Node] = []
    for op, dtype, args in program:
        if op == "const":
            nodes.append(builder.const(args, dtype))
        elif op == "input":
            nodes.append(builder.leaf(LeafKind.INPUT, args, dtype))
        elif op == "cast":
            nodes.append(builder.cast(nodes[args[0]], dtype))
        else:
            nodes.append(builder.op(op, *(nodes[i] for i in args), dtype=dtype))
    return nodes[-1]


@settings(max_examples=400, derandomize=True, database=None, deadline=None)
@given(programs())
def test_simplified_has_the_same_bits(program: list[tuple[Any, ...]]) -> None:
    if not program:
        return
    columns = leaves()
    plain = evaluate(build(program, Builder()), columns)
    simple = evaluate(build(program, Builder(simplify)), columns)
    assert same_bits(plain, simple), (plain, simple)


def _x(builder: Builder, dtype: torch.dtype = F32, index: int = 0) -> Node:
    return builder.leaf(LeafKind.INPUT, index, dtype)


def _where(builder: Builder, *args: Node) -> Node:
    return builder.op("where", *args, dtype=F32)


SIMPLER: dict[str, Callable[[Builder, Node], tuple[Node, Node]]] = {
    "x * 1": lambda b, x: (b.op("mul", x, b.const(1, F32), dtype=F32), x),
    "1 * x": lambda b, x: (b.op("mul", b.const(1, F32), x, dtype=F32), x),
    "x / 1": lambda b, x: (b.op("div", x, b.const(1, F32), dtype=F32), x),
    "x / 2": lambda b, x: (
        b.op("div", x, b.const(2, F32), dtype=F32),
        b.op("mul", x, b.const(0.5, F32), dtype=F32),
    ),
    "x - 0": lambda b, x: (b.op("sub", x, b.const(0, F32), dtype=F32), x),
    "x + -0": lambda b, x: (b.op("add", x, b.const(-0.0, F32), dtype=F32), x),
    "--x": lambda b, x: (b.op("neg", b.op("neg", x, dtype=F32), dtype=F32), x),
    "there and back": lambda b, x: (b.cast(b.cast(x, F64), F32), x),
    "where(c, x, x)": lambda b, x: (b.op("where", _x(b, BOOL), x, x, dtype=F32), x),
    "not not c": lambda b, x: (
        b.op("logical_not", b.op("logical_not", _x(b, BOOL), dtype=BOOL), dtype=BOOL),
        _x(b, BOOL),
    ),
    "float(c) != 0": lambda b, x: (b.op("ne", b.cast(_x(b, BOOL), F32), b.const(0, F32), dtype=BOOL), _x(b, BOOL)),
    "|-x|": lambda b, x: (b.op("abs", b.op("neg", x, dtype=F32), dtype=F32), b.op("abs", x, dtype=F32)),
    "||x||": lambda b, x: (b.op("abs", b.op("abs", x, dtype=F32), dtype=F32), b.op("abs", x, dtype=F32)),
    "n + 0": lambda b, x: (b.op("add", _x(b, I32), b.const(0, I32), dtype=I32), _x(b, I32)),
    "where(not c, x, y)": lambda b, x: (
        _where(b, b.op("logical_not", _x(b, BOOL), dtype=BOOL), x, _x(b, F32, 1)),
        _where(b, _x(b, BOOL), _x(b, F32, 1), x),
    ),
    "where(c, where(c, x, y), z)": lambda b, x: (
        _where(b, _x(b, BOOL), _where(b, _x(b, BOOL), x, _x(b, F32, 1)), _x(b, F32, 2)),
        _where(b, _x(b, BOOL), x, _x(b, F32, 2)),
    ),
    "where(c, x, where(c, y, z))": lambda b, x: (
        _where(b, _x(b, BOOL), x, _where(b, _x(b, BOOL), _x(b, F32, 1), _x(b, F32, 2))),
        _where(b, _x(b, BOOL), x, _x(b, F32, 2)),
    ),
    "bool(double(x))": lambda b, x: (b.cast(b.cast(x, F64), BOOL), b.cast(x, BOOL)),
    "2 * 3 of int64": lambda b, x: (b.op("mul", b.const(2, I64), b.const(3, I64), dtype=I64), b.const(6, I64)),
    "2 * 3 of int32": lambda b, x: (b.op("mul", b.const(2, I32), b.const(3, I32), dtype=I32), b.const(6, I32)),
    "2 * 3 of fp64": lambda b, x: (b.op("mul", b.const(2, F64), b.const(3, F64), dtype=F64), b.const(6, F64)),
    "true and false": lambda b, x: (
        b.op("logical_xor", b.const(True, BOOL), b.const(False, BOOL), dtype=BOOL),
        b.const(True, BOOL),
    ),
    "2 * 3": lambda b, x: (b.op("mul", b.const(2, F32), b.const(3, F32), dtype=F32), b.const(6, F32)),
}


@pytest.mark.parametrize("name", SIMPLER)
def test_becomes_simpler(name: str) -> None:
    builder = Builder(simplify)
    got, want = SIMPLER[name](builder, _x(builder))
    assert got is want


KEPT: dict[str, Callable[[Builder, Node], Node]] = {
    "x + 0 turns -0 into 0": lambda b, x: b.op("add", x, b.const(0, F32), dtype=F32),
    "x - -0 turns -0 into 0": lambda b, x: b.op("sub", x, b.const(-0.0, F32), dtype=F32),
    "x * 0 is NaN for infinity": lambda b, x: b.op("mul", x, b.const(0, F32), dtype=F32),
    "x / 3 is no product": lambda b, x: b.op("div", x, b.const(3, F32), dtype=F32),
    "x / 2^-127 overflows as a product": lambda b, x: b.op("div", x, b.const(2.0**-127, F32), dtype=F32),
    "integers that overflow are the machine's": lambda b, x: b.op(
        "mul", b.const(2**30, I32), b.const(4, I32), dtype=I32
    ),
    "so are those of 64 bits": lambda b, x: b.op("mul", b.const(2**62, I64), b.const(4, I64), dtype=I64),
    "which integer holds a float is the machine's": lambda b, x: b.cast(b.cast(x, F64), I32),
    "fp16 may overflow": lambda b, x: b.op("mul", b.const(2, F16), b.const(3, F16), dtype=F16),
    "rounding to fp32 is not undone": lambda b, x: b.cast(b.cast(_x(b, F64), F32), F64),
    "not x < y is not x >= y": lambda b, x: b.op("logical_not", b.op("lt", x, _x(b, F32, 1), dtype=BOOL), dtype=BOOL),
}


@pytest.mark.parametrize("name", KEPT)
def test_stays_as_it_is(name: str) -> None:
    builder = Builder(simplify)
    node = KEPT[name](builder, _x(builder))
    plain = Builder()
    assert [n.op for n in topological([node])] == [n.op for n in topological([KEPT[name](plain, _x(plain))])]


@pytest.mark.parametrize("name", COMPARE)
def test_a_truth_value_against_a_number_is_a_truth_value(name: str) -> None:
    for number in (-1.0, 0.0, 0.5, 1.0, 2.0, math.nan):
        plain, simple = (
            b.op(name, b.cast(_x(b, BOOL), F32), b.const(number, F32), dtype=BOOL)
            for b in (Builder(), Builder(simplify))
        )
        assert torch.equal(evaluate(simple, leaves()), evaluate(plain, leaves())), number
        assert all(n.dtype == BOOL for n in topological([simple])), number


def test_a_simpler_node_keeps_the_users_line() -> None:
    from flexsn.errors import SourceLine

    line = SourceLine("core.py", 3, "core", "h = x / 2")
    builder = Builder(simplify)
    node = builder.op("div", _x(builder), builder.const(2, F32), dtype=F32, line=line)
    assert (node.op, node.line) == ("mul", line)
