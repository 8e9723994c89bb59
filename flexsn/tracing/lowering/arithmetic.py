"""Rules of arithmetic: sums, products, quotients, powers, rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch

from flexsn.ir.dtypes import HALF, compute_dtype
from flexsn.ir.graph import Node
from flexsn.tracing.lowering.context import Arg, Lowering, Unlowerable
from flexsn.tracing.lowering.registry import RULES, LoweringRule, rule


@rule("add")
def _add(low: Lowering, a: Arg, b: Arg, alpha: Node | float = 1) -> Node:
    if alpha != 1 and low.dtype.is_floating_point:
        return _fused(low, low.value(b, low.dtype), alpha if low.on_gpu else low.value(alpha, low.dtype), a)
    return low.op("logical_or" if low.dtype == torch.bool else "add", *_terms(low, a, b, alpha))


@rule("sub")
def _sub(low: Lowering, a: Arg, b: Arg, alpha: Node | float = 1) -> Node:
    if alpha != 1 and low.dtype.is_floating_point:
        return _add(low, a, b, low.op("neg", alpha) if isinstance(alpha, Node) else -alpha)
    return low.op("sub", *_terms(low, a, b, alpha))


def _fused(low: Lowering, a: Arg, b: Arg, c: Arg) -> Node:
    """``a * b + c`` with one rounding, as the operators that do both at once compute it."""
    return low.value(low.op("fma", a, b, c, dtype=_compute(low)), low.dtype)


def _terms(low: Lowering, a: Arg, b: Arg, alpha: Node | float) -> tuple[Node, Node]:
    if alpha != 1:
        b = low.op("mul", b, alpha)
    if low.dtype in HALF and not low.on_gpu:
        return low.value(a, low.dtype), low.value(b, low.dtype)  # eager on the CPU rounds a number to 16 bits first
    return low.value(a, _compute(low)), low.value(b, _compute(low))


def _compute(low: Lowering) -> torch.dtype:
    return compute_dtype(low.dtype)


@rule("addcmul")
def _addcmul(low: Lowering, a: Arg, b: Arg, c: Arg, value: Arg = 1) -> Node:
    scaled = low.op("mul", value, b, dtype=_compute(low))
    if low.dtype.is_floating_point:
        return _fused(low, scaled, c, a)
    return low.op("add", low.op("mul", scaled, c), a)


@rule("lerp")
def _lerp(low: Lowering, start: Arg, end: Arg, weight: Arg) -> Node:
    compute = _compute(low)
    start, end, weight = (low.value(x, compute) for x in (start, end, weight))
    near = low.test("lt", low.op("abs", weight, dtype=compute), low.value(0.5, compute))
    rest = low.op("sub", weight, 1, dtype=compute)
    share, base = low.where(near, weight, rest, compute), low.where(near, start, end, compute)
    return _fused(low, share, low.op("sub", end, start, dtype=compute), base)


@rule("rsub")
def _rsub(low: Lowering, a: Arg, b: Arg, alpha: Node | float = 1) -> Node:
    return _sub(low, b, a, alpha)


@rule("mul")
def _mul(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("logical_and" if low.dtype == torch.bool else "mul", a, b)


@rule("div")
def _div(low: Lowering, a: Arg, b: Arg, rounding_mode: str | None = None) -> Node:
    if rounding_mode is None:
        if low.on_gpu and low.is_number(b):
            return low.op("mul", a, _reciprocal(low, b))
        return low.op("div", a, b)
    if rounding_mode == "floor":
        return _floor_divide(low, a, b)
    if low.dtype.is_floating_point:
        return low.op("trunc", low.op("div", a, b))
    return low.op("int_trunc_divide", a, _nonzero(low, b))


def _reciprocal(low: Lowering, number: Arg) -> Arg:
    """What eager multiplies by on a GPU where the code divides by a number."""
    if isinstance(number, Node):
        return low.op("div", 1, number, dtype=_compute(low))
    kind = torch.float64 if low.dtype == torch.float64 else torch.float32
    return (1.0 / torch.tensor(number, dtype=kind)).item()


@rule("floor_divide")
def _floor_divide(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("floor_divide", a, b if low.dtype.is_floating_point else _nonzero(low, b))


@rule("remainder")
def _remainder(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("remainder", a, b if low.dtype.is_floating_point else _nonzero(low, b))


@rule("fmod")
def _fmod(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("fmod", a, b if low.dtype.is_floating_point else _nonzero(low, b))


def _nonzero(low: Lowering, divisor: Arg) -> Node:
    node = low.value(divisor, low.dtype)
    if not node.is_const or not node.value:
        raise Unlowerable("an integer division whose divisor may be 0 traps in a kernel; divide by a number")
    return node


@rule("pow")
def _pow(low: Lowering, base: Arg, exponent: Arg) -> Node:
    if isinstance(exponent, (bool, int, float)):
        x = low.value(base, low.dtype)
        special: dict[float, Callable[[], Node]] = {
            0.0: lambda: low.value(1, low.dtype),
            1.0: lambda: x,
            2.0: lambda: low.op("mul", x, x),
            3.0: lambda: low.op("mul", low.op("mul", x, x), x),
        }
        if low.dtype.is_floating_point:
            special |= {
                0.5: lambda: low.op("sqrt", x),
                -0.5: lambda: low.op("rsqrt", x),
                -1.0: lambda: low.op("reciprocal", x),
                -2.0: lambda: low.op("reciprocal", low.op("mul", x, x)),
            }
        if float(exponent) in special:
            return special[float(exponent)]()
    of_two = low.value(base, low.dtype) is low.value(2, low.dtype)
    if not low.dtype.is_floating_point:
        if of_two:
            return low.op("shift_left", 1, exponent)
        raise Unlowerable("an integer power other than 2^n, n^0, n^1, n^2 or n^3")
    if of_two:
        return low.op("exp2", exponent)  # what a C++ compiler would turn it into, scalar
    return low.op("pow", base, exponent)


@rule("square")
def _square(low: Lowering, x: Arg) -> Node:
    return low.op("mul", x, x)


@rule("round")
def _round(low: Lowering, x: Arg, decimals: int = 0) -> Node:
    if not low.dtype.is_floating_point:
        return low.value(x, low.dtype)
    if decimals == 0:
        return low.op("round", x)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return low.op("div", low.op("round", low.op("mul", x, scale)), scale)
    return low.op("mul", low.op("round", low.op("div", x, scale)), scale)


def _integers_unchanged(name: str) -> LoweringRule:
    return lambda low, x: low.op(name, x) if low.dtype.is_floating_point else low.value(x, low.dtype)


for _name in ("floor", "ceil", "trunc"):
    RULES[_name] = _integers_unchanged(_name)
