"""How Triton spells the operations of ``flexsn/ir/ops.py``: ``tl``, and ``libdevice`` for what ``tl`` lacks."""

from __future__ import annotations

import torch

__all__ = ["SPELLINGS", "spelling"]

SPELLINGS: dict[str, str | tuple[str, str]] = {
    # arithmetic
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": ("tl.div_rn({0}, {1})", "{0} / {1}"),
    "fma": "libdevice.fma({0}, {1}, {2})",
    "neg": "-{0}",
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0, 1, tl.where({0} < 0, -1, 0))",
    "reciprocal": ("tl.div_rn(1.0, {0})", "1.0 / {0}"),
    "sqrt": ("tl.sqrt_rn({0})", "tl.sqrt({0})"),
    "rsqrt": ("tl.div_rn(1.0, tl.sqrt_rn({0}))", "1.0 / tl.sqrt({0})"),
    "fmod": "fmod({0}, {1})",
    "remainder": "remainder({0}, {1})",
    "floor_divide": "floor_divide({0}, {1})",
    "int_trunc_divide": "{0} // {1}",
    # extremes: NaN wins, as in torch
    "maximum": "tl.where({0} > {1}, {0}, tl.where({0} == {0}, {1}, {0}))",
    "minimum": "tl.where({0} < {1}, {0}, tl.where({0} == {0}, {1}, {0}))",
    "clamp_min": "tl.where({0} < {1}, {1}, {0})",
    "clamp_max": "tl.where({0} > {1}, {1}, {0})",
    # rounding
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    "trunc": "tl.where({0} < 0, tl.ceil({0}), tl.floor({0}))",
    "round": "libdevice.nearbyint({0})",
    "frac": "{0} - tl.where({0} < 0, tl.ceil({0}), tl.floor({0}))",
    # comparison, logic, bits
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "logical_xor": "{0} ^ {1}",
    "logical_not": "{0} == 0",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_not": "~{0}",
    "shift_left": "{0} << {1}",
    "shift_right": "{0} >> {1}",
    "isnan": "{0} != {0}",
    "isinf": "tl.abs({0}) == INF",
    "isfinite": "tl.abs({0}) < INF",
    "signbit": ("{0}.to(tl.int32, bitcast=True) < 0", "{0}.to(tl.int64, bitcast=True) < 0"),
    "where": "tl.where({0}, {1}, {2})",
    # exponentials and logarithms
    "exp": "libdevice.exp({0})",
    "exp2": "libdevice.exp2({0})",
    "expm1": "libdevice.expm1({0})",
    "log": "libdevice.log({0})",
    "log2": "libdevice.log2({0})",
    "log10": "libdevice.log10({0})",
    "log1p": "libdevice.log1p({0})",
    "pow": "libdevice.pow({0}, {1})",
    "sigmoid": ("tl.div_rn(1.0, 1.0 + libdevice.exp(-{0}))", "1.0 / (1.0 + libdevice.exp(-{0}))"),
    "erf": "libdevice.erf({0})",
    "erfc": "libdevice.erfc({0})",
    # trigonometric, hyperbolic, and their inverses
    "sin": "libdevice.sin({0})",
    "cos": "libdevice.cos({0})",
    "tan": "libdevice.tan({0})",
    "asin": "libdevice.asin({0})",
    "acos": "libdevice.acos({0})",
    "atan": "libdevice.atan({0})",
    "atan2": "libdevice.atan2({0}, {1})",
    "sinh": "libdevice.sinh({0})",
    "cosh": "libdevice.cosh({0})",
    "tanh": "libdevice.tanh({0})",
    "asinh": "libdevice.asinh({0})",
    "acosh": "libdevice.acosh({0})",
    "atanh": "libdevice.atanh({0})",
    "copysign": "libdevice.copysign({0}, {1})",
    "hypot": "libdevice.hypot({0}, {1})",
}
"""By operation; two where fp64 differs: plain ``/`` and ``tl.sqrt`` are approximate for fp32 alone. ``{0}``, ``{1}``,
``{2}`` are the arguments, of the dtype it computes in. Casts are the printer's."""


def spelling(op: str, dtype: torch.dtype) -> str:
    """The expression of an operation that computes in ``dtype``."""
    text = SPELLINGS[op]
    return text if isinstance(text, str) else text[dtype == torch.float64]
