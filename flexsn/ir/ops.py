"""The operations of a step graph: what each takes and gives. How a backend spells them stands in its own room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

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
        arity: how many arguments it takes.
        direct: the torch operator of this name maps to this row, arguments in order.
        fold: computes it on literals, exactly; ``None`` where that is not worth having.
    """

    name: str
    rule: Rule
    arity: int
    direct: bool = True
    fold: Callable[..., Any] | None = None


def _rows(rule: Rule, arity: int, names: str, direct: bool = True) -> list[Op]:
    return [Op(name, rule, arity, direct) for name in names.split()]


_ROWS = [
    # arithmetic
    Op("add", Rule.SAME, 2, fold=lambda a, b: a + b),
    Op("sub", Rule.SAME, 2, fold=lambda a, b: a - b),
    Op("mul", Rule.SAME, 2, fold=lambda a, b: a * b),
    Op("neg", Rule.SAME, 1, fold=lambda a: -a),
    Op("abs", Rule.SAME, 1, fold=abs),
    *_rows(Rule.SAME, 3, "fma", direct=False),  # a * b + c, rounded once
    *_rows(Rule.SAME, 1, "sign reciprocal sqrt rsqrt frac"),
    *_rows(Rule.SAME, 2, "div fmod remainder floor_divide"),
    *_rows(Rule.SAME, 2, "int_trunc_divide", direct=False),
    # extremes: NaN wins, as in torch
    *_rows(Rule.SAME, 2, "maximum minimum"),
    *_rows(Rule.SAME, 2, "clamp_min clamp_max", direct=False),
    # rounding
    *_rows(Rule.SAME, 1, "floor ceil trunc round", direct=False),
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
    Op("logical_not", Rule.LOGICAL, 1, direct=False, fold=lambda a: not a),
    *_rows(Rule.SAME, 2, "bitwise_and bitwise_or bitwise_xor"),
    *_rows(Rule.SAME, 2, "shift_left shift_right", direct=False),
    *_rows(Rule.SAME, 1, "bitwise_not", direct=False),
    *_rows(Rule.TEST, 1, "isnan isinf isfinite signbit", direct=False),
    *_rows(Rule.SELECT, 3, "where", direct=False),
    *_rows(Rule.CAST, 1, "cast", direct=False),
    # exponentials and logarithms
    *_rows(Rule.SAME, 1, "exp exp2 expm1 log log2 log10 log1p sigmoid erf erfc"),
    *_rows(Rule.SAME, 2, "pow"),
    # trigonometric, hyperbolic, and their inverses
    *_rows(Rule.SAME, 1, "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh"),
    *_rows(Rule.SAME, 2, "atan2 copysign hypot"),
]

OPS: dict[str, Op] = {row.name: row for row in _ROWS}
