"""The operations of a step graph: what each takes and gives. How a backend spells them stands in its own room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from flexsn.ir.promises import EXACT, Promise

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
        name: also the torch operator's that maps to this row, arguments in order, unless it has a rule of its own.
        rule: see :class:`Rule`.
        arity: how many arguments it takes.
        fold: computes it on literals, exactly; ``None`` where that is not worth having.
        promise: how near its value is to torch's.
    """

    name: str
    rule: Rule
    arity: int
    fold: Callable[..., Any] | None = None
    promise: Promise = EXACT


def _rows(rule: Rule, arity: int, names: str, promise: Promise = EXACT) -> list[Op]:
    return [Op(name, rule, arity, promise=promise) for name in names.split()]


def _near(name: str, torch: int, exact: float, routine: str, note: str = "", arity: int = 1) -> Op:
    same_gradient = name in _ALGEBRAIC_GRADIENT
    return Op(name, Rule.SAME, arity, promise=Promise(torch, exact, "result", routine, note, same_gradient))


_ALGEBRAIC_GRADIENT = {"log", "log2", "log10", "log1p", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2"}


_FMOD = Promise(routine="Sleef", note="torch gives NaN where the quotient is huge; here it is exact")
_FUSED = Promise(note="`x y + z` in one rounding, where torch has it: `addcmul`, `lerp`, `add` and `sub` with `alpha`")
_SINH = "torch's fp32 is infinite from |x| = 88.73 on, not from 89.42"


_ROWS = [
    # arithmetic
    Op("add", Rule.SAME, 2, fold=lambda a, b: a + b),
    Op("sub", Rule.SAME, 2, fold=lambda a, b: a - b),
    Op("mul", Rule.SAME, 2, fold=lambda a, b: a * b),
    Op("neg", Rule.SAME, 1, fold=lambda a: -a),
    Op("abs", Rule.SAME, 1, fold=abs),
    *_rows(Rule.SAME, 3, "fma", promise=_FUSED),
    *_rows(Rule.SAME, 1, "sign reciprocal rsqrt frac"),
    _near("sqrt", 1, 0.5, "MKL", "correctly rounded here, in torch not on every processor"),
    Op("div", Rule.SAME, 2),
    *_rows(Rule.SAME, 2, "fmod remainder floor_divide", promise=_FMOD),
    *_rows(Rule.SAME, 2, "int_trunc_divide"),
    # extremes: NaN wins, as in torch
    *_rows(Rule.SAME, 2, "maximum minimum"),
    *_rows(Rule.SAME, 2, "clamp_min clamp_max"),
    # rounding
    *_rows(Rule.SAME, 1, "floor ceil trunc round"),
    # comparison, logic, bits
    Op("eq", Rule.COMPARE, 2, fold=lambda a, b: a == b),
    Op("ne", Rule.COMPARE, 2, fold=lambda a, b: a != b),
    Op("lt", Rule.COMPARE, 2, fold=lambda a, b: a < b),
    Op("le", Rule.COMPARE, 2, fold=lambda a, b: a <= b),
    Op("gt", Rule.COMPARE, 2, fold=lambda a, b: a > b),
    Op("ge", Rule.COMPARE, 2, fold=lambda a, b: a >= b),
    Op("logical_and", Rule.LOGICAL, 2, fold=lambda a, b: a and b),
    Op("logical_or", Rule.LOGICAL, 2, fold=lambda a, b: a or b),
    Op("logical_xor", Rule.LOGICAL, 2, fold=lambda a, b: a != b),
    Op("logical_not", Rule.LOGICAL, 1, fold=lambda a: not a),
    *_rows(Rule.SAME, 2, "bitwise_and bitwise_or bitwise_xor"),
    *_rows(Rule.SAME, 2, "shift_left shift_right"),
    *_rows(Rule.SAME, 1, "bitwise_not"),
    *_rows(Rule.TEST, 1, "isnan isinf isfinite signbit"),
    *_rows(Rule.SELECT, 3, "where"),
    *_rows(Rule.CAST, 1, "cast"),
    # exponentials and logarithms
    _near("exp", 3, 3, "MKL"),
    _near("exp2", 2, 1, "Sleef"),
    _near("expm1", 3, 3, "Sleef"),
    _near("log", 4, 4, "MKL"),
    _near("log2", 3, 3, "MKL"),
    _near("log10", 3, 3, "MKL"),
    _near("log1p", 2, 2, "Sleef"),
    _near("sigmoid", 5, 4, "Sleef", "0 where `exp(-x)` overflows, as in torch"),
    _near("erf", 4, 4, "MKL"),
    _near("erfc", 2, 2, "MKL"),
    _near("pow", 1, 1, "Sleef", arity=2),
    # trigonometric, hyperbolic, and their inverses
    _near("sin", 3, 2, "MKL"),
    _near("cos", 3, 2, "MKL"),
    _near("tan", 4, 4, "MKL"),
    _near("asin", 3, 3, "MKL"),
    _near("acos", 2, 2, "MKL"),
    _near("atan", 2, 2, "MKL"),
    _near("sinh", 2, 2, "Sleef", _SINH),
    _near("cosh", 3, 3, "Sleef", _SINH),
    _near("tanh", 2, 2, "MKL"),
    _near("asinh", 3, 2, "libm"),
    _near("acosh", 2, 2, "libm"),
    _near("atanh", 2, 2, "Sleef"),
    _near("atan2", 4, 4, "Sleef", arity=2),
    *_rows(Rule.SAME, 2, "copysign"),
    _near("hypot", 2, 2, "Sleef", arity=2),
]

OPS: dict[str, Op] = {row.name: row for row in _ROWS}
