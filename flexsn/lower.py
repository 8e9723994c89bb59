"""Lower: one recorded torch operator to nodes of the step graph.

A rule states which rows of the op table an operator is made of and in which dtype they compute; casts that
torch does silently become nodes here, so printers never promote.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from flexsn.errors import SourceLine
from flexsn.graph import Builder, Node
from flexsn.kernels.ops import OPS, Rule
from flexsn.lowering import HALF, Arg, Lowering, Unlowerable

__all__ = ["RULES", "Unlowerable", "is_known", "lower"]


def is_known(name: str) -> bool:
    """Whether an operator has a rule (and so needs no decomposition)."""
    return name in RULES


Rule_ = Callable[..., Node]
RULES: dict[str, Rule_] = {}


def _rule(*names: str) -> Callable[[Rule_], Rule_]:
    def add(function: Rule_) -> Rule_:
        for name in names:
            RULES[name] = function
        return function

    return add


def _row_rule(name: str, rule: Rule) -> Rule_:
    if rule is Rule.COMPARE:
        return lambda low, *args: low.compare(name, *args)
    if rule is Rule.LOGICAL:
        return lambda low, *args: low.logical(name, *args)
    return lambda low, *args: low.op(name, *args)


for _op in OPS.values():
    if _op.direct:
        RULES[_op.name] = _row_rule(_op.name, _op.rule)


# ---- spelled differently, same row ---------------------------------------------------------------------------

for _alias, _name in {
    "true_divide": "div",
    "divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "negative": "neg",
    "absolute": "abs",
    "sgn": "sign",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_exp2": "exp2",
    "arctan2": "atan2",
    "bitwise_left_shift": "shift_left",
    "__lshift__": "shift_left",
    "bitwise_right_shift": "shift_right",
    "__rshift__": "shift_right",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
}.items():
    RULES[_alias] = _row_rule(_name, OPS[_name].rule)


# ---- arithmetic ----------------------------------------------------------------------------------------------


@_rule("add")
def _add(low: Lowering, a: Arg, b: Arg, alpha: Arg = 1) -> Node:
    return low.op("logical_or" if low.dtype == torch.bool else "add", *_terms(low, a, b, alpha))


@_rule("sub")
def _sub(low: Lowering, a: Arg, b: Arg, alpha: Arg = 1) -> Node:
    return low.op("sub", *_terms(low, a, b, alpha))


def _terms(low: Lowering, a: Arg, b: Arg, alpha: Arg) -> tuple[Node, Node]:
    if alpha != 1:
        b = low.op("mul", b, alpha)  # eager fuses alpha*b + a into one rounding; ours rounds twice
    if low.dtype in HALF and not low.on_gpu:
        return low.value(a, low.dtype), low.value(b, low.dtype)  # eager on the CPU rounds a number to 16 bits first
    return low.value(a, _compute(low)), low.value(b, _compute(low))


def _compute(low: Lowering) -> torch.dtype:
    return torch.float32 if low.dtype in HALF else low.dtype


@_rule("rsub")
def _rsub(low: Lowering, a: Arg, b: Arg, alpha: Arg = 1) -> Node:
    return _sub(low, b, a, alpha)


@_rule("mul")
def _mul(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("logical_and" if low.dtype == torch.bool else "mul", a, b)


@_rule("div")
def _div(low: Lowering, a: Arg, b: Arg, rounding_mode: str | None = None) -> Node:
    if rounding_mode is None:
        if low.on_gpu and isinstance(b, (bool, int, float)):
            return low.op("mul", a, _reciprocal(b, low.dtype))
        return low.op("div", a, b)
    if rounding_mode == "floor":
        return _floor_divide(low, a, b)
    if low.dtype.is_floating_point:
        return low.op("trunc", low.op("div", a, b))
    return low.op("int_trunc_divide", a, _nonzero(low, b))


def _reciprocal(number: float, dtype: torch.dtype) -> float:
    """What eager multiplies by on a GPU where the code divides by a number."""
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    return (1.0 / torch.tensor(number, dtype=kind)).item()


@_rule("floor_divide")
def _floor_divide(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("floor_divide", a, b if low.dtype.is_floating_point else _nonzero(low, b))


@_rule("remainder")
def _remainder(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("remainder", a, b if low.dtype.is_floating_point else _nonzero(low, b))


@_rule("fmod")
def _fmod(low: Lowering, a: Arg, b: Arg) -> Node:
    return low.op("fmod", a, b if low.dtype.is_floating_point else _nonzero(low, b))


def _nonzero(low: Lowering, divisor: Arg) -> Node:
    node = low.value(divisor, low.dtype)
    if node.op != "const" or not node.value:
        raise Unlowerable("an integer division whose divisor may be 0 traps in a kernel; divide by a number")
    return node


@_rule("pow")
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


@_rule("square")
def _square(low: Lowering, x: Arg) -> Node:
    return low.op("mul", x, x)


@_rule("round")
def _round(low: Lowering, x: Arg, decimals: int = 0) -> Node:
    if not low.dtype.is_floating_point:
        return low.value(x, low.dtype)
    if decimals == 0:
        return low.op("round", x)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return low.op("div", low.op("round", low.op("mul", x, scale)), scale)
    return low.op("mul", low.op("round", low.op("div", x, scale)), scale)


def _integers_unchanged(name: str) -> Rule_:
    return lambda low, x: low.op(name, x) if low.dtype.is_floating_point else low.value(x, low.dtype)


for _name in ("floor", "ceil", "trunc"):
    RULES[_name] = _integers_unchanged(_name)


# ---- choosing ------------------------------------------------------------------------------------------------


@_rule("where")
def _where(low: Lowering, condition: Arg, a: Arg, b: Arg) -> Node:
    return low.where(condition, a, b)


@_rule("masked_fill")
def _masked_fill(low: Lowering, x: Arg, mask: Arg, value: Arg) -> Node:
    return low.where(mask, value, x)


@_rule("clamp")
def _clamp(low: Lowering, x: Arg, min: Arg = None, max: Arg = None) -> Node:
    if min is not None:
        x = _clamp_min(low, x, min)
    return low.value(x, low.dtype) if max is None else _clamp_max(low, x, max)


@_rule("clamp_min")
def _clamp_min(low: Lowering, x: Arg, bound: Arg) -> Node:
    return low.op(_bound_row("min", bound), x, bound)


@_rule("clamp_max")
def _clamp_max(low: Lowering, x: Arg, bound: Arg) -> Node:
    return low.op(_bound_row("max", bound), x, bound)


def _bound_row(side: str, bound: Arg) -> str:
    # a NaN bound makes everything NaN; a number is known not to be one
    if isinstance(bound, Node) or bound != bound:
        return "maximum" if side == "min" else "minimum"
    return f"clamp_{side}"


@_rule("relu")
def _relu(low: Lowering, x: Arg) -> Node:
    return low.op("clamp_min", x, 0)


@_rule("fmax")
def _fmax(low: Lowering, a: Arg, b: Arg) -> Node:
    return _skip_nan(low, "gt", a, b)


@_rule("fmin")
def _fmin(low: Lowering, a: Arg, b: Arg) -> Node:
    return _skip_nan(low, "lt", a, b)


def _skip_nan(low: Lowering, better: str, a: Arg, b: Arg) -> Node:
    a, b = low.value(a, low.dtype), low.value(b, low.dtype)
    best = low.where(low.builder.op(better, b, a, dtype=torch.bool, line=low.line), b, a)
    return low.where(_not_equal(low, a, a), b, best) if low.dtype.is_floating_point else best


def _not_equal(low: Lowering, a: Node, b: Node) -> Node:
    return low.builder.op("ne", a, b, dtype=torch.bool, line=low.line)


@_rule("softshrink")
def _softshrink(low: Lowering, x: Arg, width: Arg = 0.5) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    below = low.builder.op("lt", x, low.op("neg", width), dtype=torch.bool, line=low.line)
    above = low.builder.op("gt", x, width, dtype=torch.bool, line=low.line)
    middle = low.where(_not_equal(low, x, x), x, 0)
    return low.where(above, low.op("sub", x, width), low.where(below, low.op("add", x, width), middle))


@_rule("softshrink_backward", "hardshrink_backward")
def _shrink_backward(low: Lowering, grad: Arg, x: Arg, width: Arg) -> Node:
    x, width = low.value(x, low.dtype), low.value(width, low.dtype)
    above = low.builder.op("ge", x, low.op("neg", width), dtype=torch.bool, line=low.line)
    below = low.builder.op("le", x, width, dtype=torch.bool, line=low.line)
    return low.where(low.logical("logical_and", above, below), 0, grad)


@_rule("hardsigmoid_backward")
def _hardsigmoid_backward(low: Lowering, grad: Arg, x: Arg) -> Node:
    x = low.value(x, low.dtype)
    above = low.builder.op("gt", x, low.value(-3, low.dtype), dtype=torch.bool, line=low.line)
    below = low.builder.op("lt", x, low.value(3, low.dtype), dtype=torch.bool, line=low.line)
    sixth = ctypes.c_float(1 / 6).value  # of single precision in eager, whatever the dtype
    return low.where(low.logical("logical_and", above, below), low.op("mul", grad, sixth), 0)


@_rule("threshold_backward")
def _threshold_backward(low: Lowering, grad: Arg, x: Arg, threshold: Arg) -> Node:
    x_dtype = x.dtype if isinstance(x, Node) else low.dtype
    below = low.builder.op("le", low.value(x, x_dtype), low.value(threshold, x_dtype), dtype=torch.bool, line=low.line)
    return low.where(below, 0, grad)


@_rule("sigmoid_backward")
def _sigmoid_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", low.op("mul", grad, low.op("sub", 1, y)), y)


@_rule("tanh_backward")
def _tanh_backward(low: Lowering, grad: Arg, y: Arg) -> Node:
    return low.op("mul", grad, low.op("sub", 1, low.op("mul", y, y)))


@_rule("logical_not")
def _logical_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x)


@_rule("bitwise_not")
def _bitwise_not(low: Lowering, x: Arg) -> Node:
    return low.logical("logical_not", x) if low.dtype == torch.bool else low.op("bitwise_not", x)


def _test(name: str) -> Rule_:
    def rule(low: Lowering, x: Arg) -> Node:
        if isinstance(x, Node) and x.dtype.is_floating_point:
            return low.builder.op(name, low.value(x, x.dtype), dtype=torch.bool, line=low.line)
        return low.value(name == "isfinite", torch.bool)

    return rule


for _name in ("isnan", "isinf", "isfinite"):
    RULES[_name] = _test(_name)


@_rule("signbit")
def _signbit(low: Lowering, x: Arg) -> Node:
    return RULES["lt"](low, x, 0) if not low.common.is_floating_point else low.compare("signbit", x)


@_rule("logaddexp")
def _logaddexp(low: Lowering, a: Arg, b: Arg) -> Node:
    a, b = low.value(a, low.dtype), low.value(b, low.dtype)
    distance = low.op("neg", low.op("abs", low.op("sub", a, b)))
    smooth = low.op("add", low.op("maximum", a, b), low.op("log1p", low.op("exp", distance)))
    equal = low.builder.op("eq", a, b, dtype=torch.bool, line=low.line)
    infinite = low.builder.op("isinf", a, dtype=torch.bool, line=low.line)
    return low.where(low.logical("logical_and", equal, infinite), a, smooth)


@_rule("isposinf")
def _isposinf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, math.inf)


@_rule("isneginf")
def _isneginf(low: Lowering, x: Arg) -> Node:
    return low.compare("eq", x, -math.inf)


# ---- values that do not change, or do not depend on the argument ------------------------------------------------


@_rule("_to_copy", "clone", "convert_element_type", "contiguous", "to", "copy")
def _to_copy(low: Lowering, x: Arg, *rest: Any, **options: Any) -> Node:
    source = rest[0] if rest and isinstance(rest[0], Node) and not options else x
    return low.value(source, low.dtype)


@_rule("full")
def _full(low: Lowering, size: Any, value: Arg, **options: Any) -> Node:
    return low.value(value, low.dtype)


@_rule("fill")
def _fill(low: Lowering, x: Arg, value: Arg) -> Node:
    return low.value(value, low.dtype)


@_rule("zero")
def _zero(low: Lowering, x: Arg) -> Node:
    return low.value(0, low.dtype)


def lower(
    builder: Builder,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    dtype: torch.dtype,
    common: torch.dtype,
    device: torch.device,
    line: SourceLine | None,
) -> Node:
    """Apply the rule of operator ``name`` (the other arguments: see :class:`~flexsn.lowering.Lowering`).

    Raises:
        Unlowerable: there is no rule, or not for these arguments.
    """
    rule = RULES.get(name)
    if rule is None:
        raise Unlowerable("the op table has no row for it")
    try:
        return rule(Lowering(builder, dtype, common, device, line), *args, **kwargs)
    except TypeError as error:
        raise Unlowerable(f"its arguments are not pointwise ({error})") from error
