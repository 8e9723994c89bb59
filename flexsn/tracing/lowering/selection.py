"""Rules of choice: where, bounds, extremes, tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from flexsn.ir.graph import Node
from flexsn.tracing.lowering.context import Arg, Lowering, Unlowerable
from flexsn.tracing.lowering.registry import RULES, LoweringRule, rule


@rule("where")
def _where(low: Lowering, condition: Arg, a: Arg, b: Arg) -> Node:
    return low.where(condition, a, b)


@rule("masked_fill")
def _masked_fill(low: Lowering, x: Arg, mask: Arg, value: Arg) -> Node:
    return low.where(mask, value, x)


@rule("clamp")
def _clamp(low: Lowering, x: Arg, min: Arg = None, max: Arg = None) -> Node:
    if min is not None:
        x = _clamp_min(low, x, min)
    return low.value(x, low.dtype) if max is None else _clamp_max(low, x, max)


@rule("clamp_min")
def _clamp_min(low: Lowering, x: Arg, bound: Arg) -> Node:
    return low.op(_bound_row(low, "min", bound), x, bound)


@rule("clamp_max")
def _clamp_max(low: Lowering, x: Arg, bound: Arg) -> Node:
    return low.op(_bound_row(low, "max", bound), x, bound)


def _bound_row(low: Lowering, side: str, bound: Arg) -> str:
    # a NaN bound makes everything NaN; a number is known not to be one
    if not low.is_number(bound) or bound != bound:
        return "maximum" if side == "min" else "minimum"
    return f"clamp_{side}"


@rule("relu")
def _relu(low: Lowering, x: Arg) -> Node:
    return low.op("clamp_min", x, 0)


@rule("fmax")
def _fmax(low: Lowering, a: Arg, b: Arg) -> Node:
    return _skip_nan(low, "gt", a, b)


@rule("fmin")
def _fmin(low: Lowering, a: Arg, b: Arg) -> Node:
    return _skip_nan(low, "lt", a, b)


def _skip_nan(low: Lowering, better: str, a: Arg, b: Arg) -> Node:
    a, b = low.value(a, low.dtype), low.value(b, low.dtype)
    best = low.where(low.test(better, b, a), b, a)
    return low.where(low.test("ne", a, a), b, best) if low.dtype.is_floating_point else best


@rule("logical_not")
def _logical_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x)


@rule("bitwise_not")
def _bitwise_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x) if low.dtype == torch.bool else low.op("bitwise_not", x)


def _test(name: str) -> LoweringRule:
    def test(low: Lowering, x: Arg) -> Node:
        if isinstance(x, Node) and x.dtype.is_floating_point:
            return low.test(name, low.value(x, x.dtype))
        return low.value(name == "isfinite", torch.bool)

    return test


for _name in ("isnan", "isinf", "isfinite"):
    RULES[_name] = _test(_name)


@rule("signbit")
def _signbit(low: Lowering, x: Arg) -> Node:
    return RULES["lt"](low, x, 0) if not low.common.is_floating_point else low.compare("signbit", x)


@rule("isposinf")
def _isposinf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, math.inf)


@rule("isneginf")
def _isneginf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, -math.inf)


@rule("index_put")
def _index_put(low: Lowering, x: Arg, indices: Sequence[Node | None], value: Arg, accumulate: bool = False) -> Node:
    """``x[mask] = value``, as most surrogates that are written by hand have it."""
    mask = indices[0] if len(indices) == 1 else None
    if mask is None or mask.dtype != torch.bool or accumulate:
        raise Unlowerable("only a mask of the step's shape can be written through")
    return low.where(mask, value, x)
