"""What is promised of numbers: how near a kernel's value is to eager torch's and to the exact one.

The tests assert these bounds and docs/numbers.md is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EXACT", "EXACT_FUNCTIONS", "FUNCTIONS", "Promise"]


@dataclass(frozen=True)
class Promise:
    """How near, in units in the last place (ulp) of the same dtype.

    Attributes:
        torch: from eager torch on the CPU; 0: the same bits.
        exact: from the exact value, or no farther than eager torch is; 0.5: correctly rounded.
        of: what the unit is the last place of, where terms cancel.
        routine: what eager torch computes it with on the CPU; all but ``"IEEE"`` may differ between processors.
        note: where it does not hold, or why it is not exact.
        same_gradient: whether the gradient has autograd's bits; else it is within 64 ulp of it, or of the incoming one.
    """

    torch: int = 0
    exact: float = 0.5
    of: str = "result"
    routine: str = "IEEE"
    note: str = ""
    same_gradient: bool = True


EXACT = Promise()


def _function(torch: int, routine: str, note: str = "", of: str = "result") -> Promise:
    return Promise(torch, torch, of, routine, note, same_gradient=False)


FUNCTIONS = {
    "softplus": _function(4, "Sleef"),
    "logsigmoid": _function(4, "Sleef"),
    "silu": _function(5, "Sleef", "0 where `exp(-x)` overflows, as in torch"),
    "mish": _function(6, "Sleef", "`exp(x)` has few bits below 2^-126", "result + |x| 2^-126"),
    "elu": _function(6, "Sleef", "also `selu`, `celu`"),
    "gelu": _function(5, "MKL", "`1 + erf` cancels; torch gives inf or NaN past 1e38, not so here", "x"),
    "tanhshrink": _function(2, "MKL", "`x - tanh(x)` cancels", "x"),
    "logit": _function(2, "MKL", "cancels near 0", "max(1, result)"),
    "sinc": _function(2, "MKL", "cancels at whole numbers", "max(1, result)"),
    "xlogy": _function(6, "libm"),
    "xlog1py": _function(4, "libm"),
    "entr": _function(6, "libm"),
    "ndtr": _function(1, "MKL", "`1 + erf` cancels", "max(1, result)"),
    "logaddexp": _function(2, "Sleef", "the sum cancels near 0", "1 + |x| + |y|"),
    "logaddexp2": _function(2, "Sleef", "the sum cancels near 0", "1 + |x| + |y|"),
}
"""Of torch functions made of rows that are not all exact."""

EXACT_FUNCTIONS = (
    *("relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "leaky_relu", "hardshrink", "softshrink", "threshold"),
    *("softsign", "square", "clamp", "clip", "fmax", "fmin", "heaviside", "nan_to_num", "masked_fill", "addcmul"),
    *("addcdiv", "lerp", "rsub", "deg2rad", "rad2deg", "ldexp", "isposinf", "isneginf"),
)
"""Torch functions made of exact rows only, and so exact."""
