"""Nodes, and what can be asked of a graph."""

from __future__ import annotations

import math

import pytest
import torch

from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, LeafKind, Node, reached_from, topological
from flexsn.ir.simplify import simplify

F32, F64, F16, I32, I64, BOOL = (
    *(torch.float32, torch.float64, torch.float16),
    *(torch.int32, torch.int64, torch.bool),
)


def x(builder: Builder, index: int = 0) -> Node:
    return builder.leaf(LeafKind.INPUT, index, F32)


def test_the_same_op_on_the_same_arguments_is_one_node() -> None:
    b = Builder()
    line = SourceLine("core.py", 1, "core", "x * x")
    square = b.op("mul", x(b), x(b), dtype=F32, line=line)
    assert b.op("mul", x(b), x(b), dtype=F32) is square
    assert square.line == line  # of the first that made it


@pytest.mark.parametrize("other", [("mul", 0, 1, F32), ("add", 0, 0, F32), ("mul", 0, 0, F64)])
def test_another_op_argument_or_dtype_is_another_node(other: tuple[str, int, int, torch.dtype]) -> None:
    b = Builder()
    op, first, second, dtype = other
    assert b.op(op, x(b, first), x(b, second), dtype=dtype) is not b.op("mul", x(b), x(b), dtype=F32)


def test_the_two_zeros_are_two_literals_and_nan_is_one() -> None:
    b = Builder()
    assert b.const(0.0, F32) is not b.const(-0.0, F32)
    assert b.const(math.nan, F32) is b.const(math.nan, F32)


def test_parts_of_a_gradient_are_leaves_of_their_own() -> None:
    b = Builder()
    whole, rest = (b.leaf(LeafKind.STATE_COTANGENT, 1, F32, part) for part in (0, 1))
    assert whole is not rest
    assert (whole.label, rest.label) == ("grad_state1", "grad_state1_part1")


@pytest.mark.parametrize(
    ("kind", "label", "varies"),
    [(LeafKind.STEP_INDEX, "t", True), (LeafKind.NUM_STEPS, "T", False), (LeafKind.LANE_INDEX, "lane", False)],
)
def test_a_coordinate_is_one_per_scan(kind: LeafKind, label: str, varies: bool) -> None:
    b = Builder()
    node = b.coordinate(kind)
    assert node is b.coordinate(kind) and node.op is kind
    assert (node.dtype, node.label, kind.varies, kind.is_gradient) == (I64, label, varies, False)


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [(0.1, F32, 0.10000000149011612), (0.1, F16, 0.0999755859375), (1e300, F32, math.inf), (2.0, I32, 2), (3, BOOL, 1)],
)
def test_a_literal_is_rounded_to_what_its_dtype_holds(value: float, dtype: torch.dtype, held: float) -> None:
    assert Builder().const(value, dtype).value == held


def test_a_literal_is_cast_at_once_unless_the_machine_decides_what_becomes_of_it() -> None:
    b = Builder()
    assert b.cast(b.const(2.0, F32), I32) is b.const(2, I32)
    for odd in (2.5, 1e20, math.nan):
        assert b.cast(b.const(odd, F32), I32).op == "cast"
    assert b.cast(b.const(math.nan, F32), BOOL).op == "cast"
    assert b.cast(x(b), F32) is x(b)


def test_what_a_rule_makes_comes_from_the_line_that_asked() -> None:
    b = Builder(simplify)
    outer, inner = (SourceLine("core.py", n, "core", "") for n in (1, 2))
    nested = b.op("div", b.op("exp", x(b), dtype=F32, line=inner), b.const(4.0, F32), dtype=F32, line=outer)
    assert (nested.op, nested.line, nested.args[0].line) == ("mul", outer, inner)


def test_all_that_a_rule_makes_comes_from_that_line() -> None:
    def rule(builder: Builder, op: str, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
        return builder.op("abs", builder.op("neg", *args, dtype=F32), dtype=F32) if op == "exp" else None

    b, line = Builder(rule), SourceLine("core.py", 1, "core", "")
    made = b.op("exp", x(b), dtype=F32, line=line)
    assert (made.op, made.line, made.args[0].line) == ("abs", line, line)


def test_arguments_come_before_their_users_and_each_once() -> None:
    b = Builder()
    square = b.op("mul", x(b), x(b), dtype=F32)
    roots = [b.op("add", square, x(b, 1), dtype=F32), square, b.op("exp", square, dtype=F32)]
    order = topological(roots)
    assert len(order) == len(set(order)) == 5
    assert all(order.index(arg) < order.index(node) for node in order for arg in node.args)
    assert topological(roots) == order


def test_a_long_chain_needs_no_deep_stack() -> None:
    b = Builder()
    node = x(b)
    for _ in range(5000):
        node = b.op("exp", node, dtype=F32)
    assert len(topological([node])) == 5001


def test_reached_from_follows_users_not_arguments() -> None:
    b = Builder()
    early = b.op("exp", x(b), dtype=F32)
    late = b.op("mul", early, x(b, 1), dtype=F32)
    aside = b.op("neg", x(b, 1), dtype=F32)
    reached = reached_from(topological([late, aside]), lambda n: n is early)
    assert reached == {id(early), id(late)}
