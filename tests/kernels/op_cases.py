"""Every operation a kernel can hold, as one-op functions, and what is promised of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from float_ops import BINARY, TERNARY, TRUTH, UNARY, UNORDERED_ZERO, square_root
from integer_ops import BOOL_BINARY, BOOL_UNARY, INT_BINARY, INT_UNARY

from flexsn.ir.ops import OPS
from flexsn.ir.promises import EXACT, FUNCTIONS, Promise

FLOATS = (torch.float32, torch.float64)
INTS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Case:
    """One operation.

    Attributes:
        name: of the test.
        function: on ``arity`` tensors of one dtype.
        arity: how many arguments it takes.
        same_zero: whether the sign of zero counts (it does not where eager's own paths differ).
        truth: what is expected bit for bit, where eager itself is off.
    """

    name: str
    function: Callable[..., Any]
    arity: int
    same_zero: bool = True
    truth: Callable[..., Any] | None = None

    @property
    def promise(self) -> Promise:
        """What is promised of it; a function of no table is made of exact rows."""
        name = SAME_PROMISE.get(self.name, self.name)
        return OPS[name].promise if name in OPS else FUNCTIONS.get(name, EXACT)


SAME_PROMISE = {
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "celu": "elu",
    "elu_alpha": "elu",
    "float_power": "pow",
    "gelu_tanh": "gelu",
    "logit_eps": "logit",
    "pow_2.5": "pow",
    "pow_4": "pow",
    "pow_half": "sqrt",
    "pow_minus_3": "pow",
    "pow_tensor_number": "exp2",
    "rpow": "exp2",
    "rpow_e": "pow",
    "selu": "elu",
    "softplus_beta": "softplus",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_exp2": "exp2",
    "special_expit": "sigmoid",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
}


def _cases(tables: tuple[dict[str, Callable[..., Any]], ...], truth: dict[str, Callable[..., Any]]) -> list[Case]:
    """Of tables of functions of one, two, three arguments."""
    return [
        Case(name, function, arity, name not in UNORDERED_ZERO, truth.get(name))
        for arity, functions in enumerate(tables, 1)
        for name, function in functions.items()
    ]


FLOAT_CASES = _cases((UNARY, BINARY, TERNARY), TRUTH)
INT_CASES = _cases((INT_UNARY, INT_BINARY), {"sqrt": square_root, "pow_half": square_root})
BOOL_CASES = _cases((BOOL_UNARY, BOOL_BINARY), {})


def cases(dtype: torch.dtype) -> list[Case]:
    """The operations tried on ``dtype``."""
    return FLOAT_CASES if dtype.is_floating_point else BOOL_CASES if dtype == torch.bool else INT_CASES
