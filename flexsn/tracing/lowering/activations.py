"""Rules for activation functions and their derivatives that torch has as one operator."""

from __future__ import annotations

import ctypes

from flexsn.ir.graph import Node
from flexsn.tracing.lowering.context import Arg, Lowering
from flexsn.tracing.lowering.registry import rule


@rule("softshrink")
def _softshrink(low: Lowering, x: Arg, width: Arg = 0.5) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    below = low.test("lt", x, low.op("neg", width))
    above = low.test("gt", x, width)
    middle = low.where(low.test("ne", x, x), x, 0)
    return low.where(above, low.op("sub", x, width), low.where(below, low.op("add", x, width), middle))


@rule("softshrink_backward", "hardshrink_backward")
def _shrink_backward(low: Lowering, grad: Arg, x: Arg, width: Arg) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    above = low.test("ge", x, low.op("neg", width))
    below = low.test("le", x, width)
    return low.where(low.logical("logical_and", above, below), 0, grad)


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(low: Lowering, grad: Arg, x: Arg) -> Node:
    x = low.value(x, low.dtype)
    above = low.test("gt", x, low.value(-3, low.dtype))
    below = low.test("lt", x, low.value(3, low.dtype))
    sixth = ctypes.c_float(1 / 6).value  # of single precision in eager, whatever the dtype
    return low.where(low.logical("logical_and", above, below), low.op("mul", grad, sixth), 0)


@rule("threshold_backward")
def _threshold_backward(low: Lowering, grad: Arg, x: Arg, threshold: Arg) -> Node:
    x_dtype = x.dtype if isinstance(x, Node) else low.dtype
    below = low.test("le", low.value(x, x_dtype), low.value(threshold, x_dtype))
    return low.where(below, 0, grad)


@rule("sigmoid_backward")
def _sigmoid_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", low.op("mul", grad, low.op("sub", 1, y)), y)


@rule("tanh_backward")
def _tanh_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", grad, low.op("fma", low.op("neg", y), y, 1))  # eager's compiler fuses this one


@rule("logaddexp")
def _logaddexp(low: Lowering, a: Arg, b: Arg) -> Node:
    a, b = low.value(a, low.dtype), low.value(b, low.dtype)
    distance = low.op("neg", low.op("abs", low.op("sub", a, b)))
    smooth = low.op("add", low.op("maximum", a, b), low.op("log1p", low.op("exp", distance)))
    equal = low.test("eq", a, b)
    infinite = low.test("isinf", a)
    return low.where(low.logical("logical_and", equal, infinite), a, smooth)
