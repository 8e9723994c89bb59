"""Simplify: exact rewrites, tried on every node as it is built.

A rule stands here only if the result has the same bits for every argument, -0.0 and infinities included, and is
NaN where it was NaN. So ``x + 0.0`` stays, since it turns -0.0 into 0.0, and ``x * 0.0`` stays, since ``x`` may be
infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from flexsn.ir.graph import Builder, Node
from flexsn.ir.ops import OPS

__all__ = ["simplify"]

_Rule = Callable[[Builder, tuple[Node, ...], torch.dtype], Node | None]
_RULES: dict[str, _Rule] = {}
_COMPUTED_IN = (torch.bool, torch.int32, torch.int64, torch.float32, torch.float64)  # by literals of these
_FITS = {
    torch.int8: {torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64},
    torch.uint8: {torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64},
    torch.int16: {torch.int32, torch.int64, torch.float32, torch.float64},
    torch.int32: {torch.int64, torch.float64},
    torch.float16: {torch.float32, torch.float64},
    torch.bfloat16: {torch.float32, torch.float64},
    torch.float32: {torch.float64},
}  # dtypes that hold every value of a dtype


def simplify(builder: Builder, op: str, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    """A simpler node with the bits of ``op(*args)``, or ``None``."""
    fold = OPS[op].fold
    if fold is not None and all(a.is_const and a.dtype in _COMPUTED_IN for a in args):
        return _fold(builder, fold, [a.value for a in args], dtype)
    rule = _RULES.get(op)
    return rule(builder, args, dtype) if rule else None


def _rule(op: str) -> Callable[[_Rule], _Rule]:
    def add(function: _Rule) -> _Rule:
        _RULES[op] = function
        return function

    return add


def _is(node: Node, value: float) -> bool:
    """Whether a node is that literal; a float's 0.0 is not -0.0, an integer has one zero."""
    if not node.is_const or node.value != value:
        return False
    return not node.dtype.is_floating_point or math.copysign(1, node.value) == math.copysign(1, value)


# ---- literals ----------------------------------------------------------------------------------------------------


def _fold(builder: Builder, fold: Callable[..., Any], values: list[Any], dtype: torch.dtype) -> Node | None:
    """The literal that finite literals make; fp32 is computed in fp64, where rounding twice is rounding once."""
    if not all(math.isfinite(v) for v in values):
        return None
    value = fold(*values)
    if dtype in (torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        return builder.const(value, dtype) if info.min <= value <= info.max else None
    return builder.const(value, dtype) if math.isfinite(value) else None


# ---- arithmetic --------------------------------------------------------------------------------------------------


@_rule("mul")
def _mul(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    a, b = args
    return a if _is(b, 1) else b if _is(a, 1) else None


@_rule("div")
def _div(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    a, b = args
    if b.is_const and b.value and math.isfinite(b.value) and abs(math.frexp(b.value)[0]) == 0.5:
        # dividing by a power of two and multiplying by its inverse round the same number
        inverse = builder.const(1 / b.value, dtype) if 2.0**-126 <= abs(b.value) <= 2.0**126 else None
        return inverse and builder.op("mul", a, inverse, dtype=dtype)
    return None


@_rule("add")
def _add(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    a, b = args
    return a if _is(b, -0.0) else b if _is(a, -0.0) else None


@_rule("sub")
def _sub(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    return args[0] if _is(args[1], 0.0) else None


@_rule("neg")
def _neg(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    return args[0].args[0] if args[0].op == "neg" else None


@_rule("abs")
def _abs(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    if args[0].op == "neg":
        return builder.op("abs", args[0].args[0], dtype=dtype)
    return args[0] if args[0].op == "abs" else None


# ---- choosing and casting ----------------------------------------------------------------------------------------


@_rule("where")
def _where(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    condition, a, b = args
    if a is b:
        return a
    if condition.is_const:
        return a if condition.value else b
    if condition.op == "logical_not":
        return builder.op("where", condition.args[0], b, a, dtype=dtype)
    if a.op == "where" and a.args[0] is condition:
        return builder.op("where", condition, a.args[1], b, dtype=dtype)
    if b.op == "where" and b.args[0] is condition:
        return builder.op("where", condition, a, b.args[2], dtype=dtype)
    return None


@_rule("cast")
def _cast(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    inner = args[0]
    if inner.op != "cast":
        return None
    source = inner.args[0]
    exact = source.dtype == torch.bool or inner.dtype in _FITS.get(source.dtype, ())
    # what becomes of a float no integer can hold is up to the instruction, which depends on the float's size
    machine = source.dtype.is_floating_point and not dtype.is_floating_point and dtype != torch.bool
    return builder.cast(source, dtype) if exact and not machine else None


# ---- logic -------------------------------------------------------------------------------------------------------


@_rule("logical_not")
def _not(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
    inner = args[0]
    if inner.op == "logical_not":
        return inner.args[0]
    opposite = {"eq": "ne", "ne": "eq"}.get(str(inner.op))  # not lt and ge: both are false of NaN
    return builder.op(opposite, *inner.args, dtype=dtype) if opposite else None


def _and_or(keeps: bool) -> _Rule:
    def rule(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
        for a, b in (args, args[::-1]):
            if a is b:
                return a
            if a.is_const:
                return b if bool(a.value) is keeps else a
        return None

    return rule


_RULES["logical_and"], _RULES["logical_or"] = _and_or(True), _and_or(False)


def _against_truth(at_false: Callable[[float], bool], at_true: Callable[[float], bool]) -> _Rule:
    """Comparisons of a bool that was cast to a number with a literal."""

    def rule(builder: Builder, args: tuple[Node, ...], dtype: torch.dtype) -> Node | None:
        a, b = args
        if a.op != "cast" or a.args[0].dtype != torch.bool or not b.is_const:
            return None
        number = float(b.value or 0)
        if at_false(number) == at_true(number):
            return builder.const(at_true(number), torch.bool)
        return a.args[0] if at_true(number) else builder.op("logical_not", a.args[0], dtype=torch.bool)

    return rule


_RULES["eq"] = _against_truth(lambda v: v == 0, lambda v: v == 1)
_RULES["ne"] = _against_truth(lambda v: v != 0, lambda v: v != 1)
_RULES["lt"] = _against_truth(lambda v: v > 0, lambda v: v > 1)
_RULES["le"] = _against_truth(lambda v: v >= 0, lambda v: v >= 1)
_RULES["gt"] = _against_truth(lambda v: v < 0, lambda v: v < 1)
_RULES["ge"] = _against_truth(lambda v: v <= 0, lambda v: v <= 1)
