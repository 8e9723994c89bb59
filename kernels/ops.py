"""The op table: one row per operation of a step graph.

``{0}``, ``{1}``, ``{2}`` are the arguments, already of the dtype the operation computes in. C++ rows use the
functions of ``scan.h``; Triton rows use ``tl``, and ``libdevice`` for what ``tl`` lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["OPS", "Op", "Rule"]


class Rule(Enum):
    """How the dtypes of arguments and result relate."""

    SAME = auto()  # arguments are cast to the result's dtype
    COMPARE = auto()  # arguments are cast to their common dtype, the result is bool
    LOGICAL = auto()  # arguments are cast to bool, the result is bool
    TEST = auto()  # one argument keeps its dtype, the result is bool
    SELECT = auto()  # a bool, then two arguments of the result's dtype
    CAST = auto()  # one argument of any dtype; the printers spell it, since it depends on both dtypes


@dataclass(frozen=True)
class Op:
    """A row.

    Attributes:
        name: also the torch operator's name where ``direct``.
        rule: see :class:`Rule`.
        cpp: C++ expression.
        triton: Triton expression.
        triton64: the same for fp64 where it differs.
        exact: bit-identical to eager torch for fp32 and fp64; otherwise within 4 ulp.
        direct: the torch operator of this name maps to this row, arguments in order.
    """

    name: str
    rule: Rule
    cpp: str
    triton: str
    triton64: str | None = None
    exact: bool = True
    direct: bool = True


_ROUNDED = "tl.div_rn({0}, {1})"  # plain `/` is approximate for fp32

_ROWS = [
    # arithmetic
    Op("add", Rule.SAME, "{0} + {1}", "{0} + {1}"),
    Op("sub", Rule.SAME, "{0} - {1}", "{0} - {1}"),
    Op("mul", Rule.SAME, "{0} * {1}", "{0} * {1}"),
    Op("div", Rule.SAME, "{0} / {1}", _ROUNDED, "{0} / {1}"),
    Op("neg", Rule.SAME, "-{0}", "-{0}"),
    Op("abs", Rule.SAME, "fx::abs({0})", "tl.abs({0})"),
    Op("sign", Rule.SAME, "fx::sign({0})", "tl.where({0} > 0, 1, tl.where({0} < 0, -1, 0))"),
    Op("reciprocal", Rule.SAME, "1 / {0}", "tl.div_rn(1.0, {0})", "1.0 / {0}"),
    Op("sqrt", Rule.SAME, "fx::sqrt({0})", "tl.sqrt_rn({0})", "tl.sqrt({0})"),
    Op("rsqrt", Rule.SAME, "1 / fx::sqrt({0})", "tl.div_rn(1.0, tl.sqrt_rn({0}))", "1.0 / tl.sqrt({0})"),
    Op("fmod", Rule.SAME, "fx::fmod({0}, {1})", "fmod({0}, {1})"),
    Op("remainder", Rule.SAME, "fx::remainder({0}, {1})", "remainder({0}, {1})"),
    Op("floor_divide", Rule.SAME, "fx::floor_divide({0}, {1})", "floor_divide({0}, {1})"),
    Op("int_trunc_divide", Rule.SAME, "fx::divide({0}, {1})", "{0} // {1}", direct=False),
    # extremes: NaN wins, as in torch
    Op("maximum", Rule.SAME, "fx::maximum({0}, {1})", "tl.where({0} > {1}, {0}, tl.where({0} == {0}, {1}, {0}))"),
    Op("minimum", Rule.SAME, "fx::minimum({0}, {1})", "tl.where({0} < {1}, {0}, tl.where({0} == {0}, {1}, {0}))"),
    Op("clamp_min", Rule.SAME, "fx::select({0} < {1}, {1}, {0})", "tl.where({0} < {1}, {1}, {0})", direct=False),
    Op("clamp_max", Rule.SAME, "fx::select({0} > {1}, {1}, {0})", "tl.where({0} > {1}, {1}, {0})", direct=False),
    # rounding
    Op("floor", Rule.SAME, "fx::floor({0})", "tl.floor({0})", direct=False),
    Op("ceil", Rule.SAME, "fx::ceil({0})", "tl.ceil({0})", direct=False),
    Op("trunc", Rule.SAME, "fx::trunc({0})", "tl.where({0} < 0, tl.ceil({0}), tl.floor({0}))", direct=False),
    Op("round", Rule.SAME, "fx::round({0})", "libdevice.nearbyint({0})", direct=False),
    Op("frac", Rule.SAME, "{0} - fx::trunc({0})", "{0} - tl.where({0} < 0, tl.ceil({0}), tl.floor({0}))"),
    # comparison, logic, bits
    Op("eq", Rule.COMPARE, "{0} == {1}", "{0} == {1}"),
    Op("ne", Rule.COMPARE, "{0} != {1}", "{0} != {1}"),
    Op("lt", Rule.COMPARE, "{0} < {1}", "{0} < {1}"),
    Op("le", Rule.COMPARE, "{0} <= {1}", "{0} <= {1}"),
    Op("gt", Rule.COMPARE, "{0} > {1}", "{0} > {1}"),
    Op("ge", Rule.COMPARE, "{0} >= {1}", "{0} >= {1}"),
    Op("logical_and", Rule.LOGICAL, "{0} & {1}", "{0} & {1}"),
    Op("logical_or", Rule.LOGICAL, "{0} | {1}", "{0} | {1}"),
    Op("logical_xor", Rule.LOGICAL, "{0} ^ {1}", "{0} ^ {1}"),
    Op("logical_not", Rule.LOGICAL, "{0} ^ 1", "{0} == 0", direct=False),
    Op("bitwise_and", Rule.SAME, "{0} & {1}", "{0} & {1}"),
    Op("bitwise_or", Rule.SAME, "{0} | {1}", "{0} | {1}"),
    Op("bitwise_xor", Rule.SAME, "{0} ^ {1}", "{0} ^ {1}"),
    Op("bitwise_not", Rule.SAME, "~{0}", "~{0}", direct=False),
    Op("shift_left", Rule.SAME, "fx::shift_left({0}, {1})", "{0} << {1}", direct=False),
    Op("shift_right", Rule.SAME, "fx::shift_right({0}, {1})", "{0} >> {1}", direct=False),
    Op("isnan", Rule.TEST, "{0} != {0}", "{0} != {0}", direct=False),
    Op("isinf", Rule.TEST, "fx::abs({0}) == fx::infinity", "tl.abs({0}) == INF", direct=False),
    Op("isfinite", Rule.TEST, "fx::abs({0}) < fx::infinity", "tl.abs({0}) < INF", direct=False),
    Op(
        "signbit",
        Rule.TEST,
        "fx::signbit({0})",
        "{0}.to(tl.int32, bitcast=True) < 0",
        "{0}.to(tl.int64, bitcast=True) < 0",
        direct=False,
    ),
    Op("where", Rule.SELECT, "fx::select({0}, {1}, {2})", "tl.where({0}, {1}, {2})", direct=False),
    Op("cast", Rule.CAST, "", "", direct=False),
    # exponentials and logarithms
    Op("exp", Rule.SAME, "fx::exp({0})", "libdevice.exp({0})", exact=False),
    Op("exp2", Rule.SAME, "fx::exp2({0})", "libdevice.exp2({0})", exact=False),
    Op("expm1", Rule.SAME, "fx::expm1({0})", "libdevice.expm1({0})", exact=False),
    Op("log", Rule.SAME, "fx::log({0})", "libdevice.log({0})", exact=False),
    Op("log2", Rule.SAME, "fx::log2({0})", "libdevice.log2({0})", exact=False),
    Op("log10", Rule.SAME, "fx::log10({0})", "libdevice.log10({0})", exact=False),
    Op("log1p", Rule.SAME, "fx::log1p({0})", "libdevice.log1p({0})", exact=False),
    Op("pow", Rule.SAME, "fx::pow({0}, {1})", "libdevice.pow({0}, {1})", exact=False),
    Op(
        "sigmoid",
        Rule.SAME,
        "1 / (1 + fx::exp(-{0}))",
        "tl.div_rn(1.0, 1.0 + libdevice.exp(-{0}))",
        "1.0 / (1.0 + libdevice.exp(-{0}))",
        exact=False,
    ),
    Op("erf", Rule.SAME, "fx::erf({0})", "libdevice.erf({0})", exact=False),
    Op("erfc", Rule.SAME, "fx::erfc({0})", "libdevice.erfc({0})", exact=False),
    # trigonometric, hyperbolic, and their inverses
    Op("sin", Rule.SAME, "fx::sin({0})", "libdevice.sin({0})", exact=False),
    Op("cos", Rule.SAME, "fx::cos({0})", "libdevice.cos({0})", exact=False),
    Op("tan", Rule.SAME, "fx::tan({0})", "libdevice.tan({0})", exact=False),
    Op("asin", Rule.SAME, "fx::asin({0})", "libdevice.asin({0})", exact=False),
    Op("acos", Rule.SAME, "fx::acos({0})", "libdevice.acos({0})", exact=False),
    Op("atan", Rule.SAME, "fx::atan({0})", "libdevice.atan({0})", exact=False),
    Op("atan2", Rule.SAME, "fx::atan2({0}, {1})", "libdevice.atan2({0}, {1})", exact=False),
    Op("sinh", Rule.SAME, "fx::sinh({0})", "libdevice.sinh({0})", exact=False),
    Op("cosh", Rule.SAME, "fx::cosh({0})", "libdevice.cosh({0})", exact=False),
    Op("tanh", Rule.SAME, "fx::tanh({0})", "libdevice.tanh({0})", exact=False),
    Op("asinh", Rule.SAME, "fx::asinh({0})", "libdevice.asinh({0})", exact=False),
    Op("acosh", Rule.SAME, "fx::acosh({0})", "libdevice.acosh({0})", exact=False),
    Op("atanh", Rule.SAME, "fx::atanh({0})", "libdevice.atanh({0})", exact=False),
    Op("copysign", Rule.SAME, "fx::copysign({0}, {1})", "libdevice.copysign({0}, {1})"),
    Op("hypot", Rule.SAME, "fx::hypot({0}, {1})", "libdevice.hypot({0}, {1})", exact=False),
]

OPS: dict[str, Op] = {row.name: row for row in _ROWS}
