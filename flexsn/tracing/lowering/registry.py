"""Rules: what each torch operator is made of, by name; first those that are one row of the op table."""

from __future__ import annotations

from collections.abc import Callable

from flexsn.ir.graph import Node
from flexsn.ir.ops import OPS, Rule

__all__ = ["RULES", "LoweringRule", "rule"]

LoweringRule = Callable[..., Node]
RULES: dict[str, LoweringRule] = {}


def rule(*names: str) -> Callable[[LoweringRule], LoweringRule]:
    def add(function: LoweringRule) -> LoweringRule:
        for name in names:
            RULES[name] = function
        return function

    return add


def row_rule(name: str, kind: Rule) -> LoweringRule:
    if kind is Rule.COMPARE:
        return lambda low, *args: low.compare(name, *args)
    if kind is Rule.LOGICAL:
        return lambda low, *args: low.logical(name, *args)
    return lambda low, *args: low.op(name, *args)


for _op in OPS.values():
    RULES[_op.name] = row_rule(_op.name, _op.rule)


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
    RULES[_alias] = row_rule(_name, OPS[_name].rule)
