"""Rules of choice: what depends on a comparison, and comparisons that are no row of the op table."""

from __future__ import annotations

import ctypes
import math

import torch

from flexsn.ir.graph import Node
from flexsn.lower_rules import RULES, LoweringRule, rule
from flexsn.lowering import Arg, Lowering


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
    return low.op(_bound_row("min", bound), x, bound)


@rule("clamp_max")
def _clamp_max(low: Lowering, x: Arg, bound: Arg) -> Node:
    return low.op(_bound_row("max", bound), x, bound)


def _bound_row(side: str, bound: Arg) -> str:
    # a NaN bound makes everything NaN; a number is known not to be one
    if isinstance(bound, Node) or bound != bound:
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
    best = low.where(low.builder.op(better, b, a, dtype=torch.bool, line=low.line), b, a)
    return low.where(_not_equal(low, a, a), b, best) if low.dtype.is_floating_point else best


def _not_equal(low: Lowering, a: Node, b: Node) -> Node:
    return low.builder.op("ne", a, b, dtype=torch.bool, line=low.line)


@rule("softshrink")
def _softshrink(low: Lowering, x: Arg, width: Arg = 0.5) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    below = low.builder.op("lt", x, low.op("neg", width), dtype=torch.bool, line=low.line)
    above = low.builder.op("gt", x, width, dtype=torch.bool, line=low.line)
    middle = low.where(_not_equal(low, x, x), x, 0)
    return low.where(above, low.op("sub", x, width), low.where(below, low.op("add", x, width), middle))


@rule("softshrink_backward", "hardshrink_backward")
def _shrink_backward(low: Lowering, grad: Arg, x: Arg, width: Arg) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    above = low.builder.op("ge", x, low.op("neg", width), dtype=torch.bool, line=low.line)
    below = low.builder.op("le", x, width, dtype=torch.bool, line=low.line)
    return low.where(low.logical("logical_and", above, below), 0, grad)


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(low: Lowering, grad: Arg, x: Arg) -> Node:
    x = low.value(x, low.dtype)
    above = low.builder.op("gt", x, low.value(-3, low.dtype), dtype=torch.bool, line=low.line)
    below = low.builder.op("lt", x, low.value(3, low.dtype), dtype=torch.bool, line=low.line)
    sixth = ctypes.c_float(1 / 6).value  # of single precision in eager, whatever the dtype
    return low.where(low.logical("logical_and", above, below), low.op("mul", grad, sixth), 0)


@rule("threshold_backward")
def _threshold_backward(low: Lowering, grad: Arg, x: Arg, threshold: Arg) -> Node:
    x_dtype = x.dtype if isinstance(x, Node) else low.dtype
    below = low.builder.op("le", low.value(x, x_dtype), low.value(threshold, x_dtype), dtype=torch.bool, line=low.line)
    return low.where(below, 0, grad)


@rule("sigmoid_backward")
def _sigmoid_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", low.op("mul", grad, low.op("sub", 1, y)), y)


@rule("tanh_backward")
def _tanh_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", grad, low.op("sub", 1, low.op("mul", y, y)))


@rule("logical_not")
def _logical_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x)


@rule("bitwise_not")
def _bitwise_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x) if low.dtype == torch.bool else low.op("bitwise_not", x)


def _test(name: str) -> LoweringRule:
    def test(low: Lowering, x: Arg) -> Node:
        if isinstance(x, Node) and x.dtype.is_floating_point:
            return low.builder.op(name, low.value(x, x.dtype), dtype=torch.bool, line=low.line)
        return low.value(name == "isfinite", torch.bool)

    return test


for _name in ("isnan", "isinf", "isfinite"):
    RULES[_name] = _test(_name)


@rule("signbit")
def _signbit(low: Lowering, x: Arg) -> Node:
    return RULES["lt"](low, x, 0) if not low.common.is_floating_point else low.compare("signbit", x)


@rule("logaddexp")
def _logaddexp(low: Lowering, a: Arg, b: Arg) -> Node:
    a, b = low.value(a, low.dtype), low.value(b, low.dtype)
    distance = low.op("neg", low.op("abs", low.op("sub", a, b)))
    smooth = low.op("add", low.op("maximum", a, b), low.op("log1p", low.op("exp", distance)))
    equal = low.builder.op("eq", a, b, dtype=torch.bool, line=low.line)
    infinite = low.builder.op("isinf", a, dtype=torch.bool, line=low.line)
    return low.where(low.logical("logical_and", equal, infinite), a, smooth)


@rule("isposinf")
def _isposinf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, math.inf)


@rule("isneginf")
def _isneginf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, -math.inf)
