"""Every operation a kernel can hold, as one-op functions, with the values they are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flexsn.ir.ops import OPS
from flexsn.ir.promises import EXACT, FUNCTIONS, Promise

FLOATS = (torch.float32, torch.float64)
INTS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
BOOL = (torch.bool,)
inf, nan = math.inf, math.nan


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


def _cases(arity: int, functions: dict[str, Callable[..., Any]]) -> list[Case]:
    return [Case(name, function, arity) for name, function in functions.items()]


def _clone(x: Tensor) -> Tensor:
    return x.clone()


UNARY = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "sgn": torch.sgn,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "square": torch.square,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "fix": torch.fix,
    "round": torch.round,
    "frac": torch.frac,
    "relu": torch.relu,
    "relu6": F.relu6,
    "positive": torch.positive,
    "clone": _clone,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "isposinf": torch.isposinf,
    "isneginf": torch.isneginf,
    "signbit": torch.signbit,
    "logical_not": torch.logical_not,
    "isreal": torch.isreal,
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda x: torch.full_like(x, 2.5),
    "full_like_inf": lambda x: torch.full_like(x, -inf),
    "new_zeros": lambda x: x.new_zeros(x.shape),
    "new_ones": lambda x: x.new_ones(x.shape),
    "new_full": lambda x: x.new_full(x.shape, 7.0),
    "zero_": lambda x: x.clone().zero_(),
    "fill_": lambda x: x.clone().fill_(3.0),
    "zeros": lambda x: torch.zeros(x.shape),
    "ones": lambda x: torch.ones(x.shape),
    "full": lambda x: torch.full(x.shape, 0.5),
    "add_number": lambda x: x + 0.3,
    "radd": lambda x: 0.3 + x,
    "sub_number": lambda x: x - 0.3,
    "rsub": lambda x: 0.3 - x,
    "mul_number": lambda x: x * 0.3,
    "div_number": lambda x: x / 0.3,
    "rdiv": lambda x: 0.3 / x,
    "add_alpha_number": lambda x: torch.add(x, 2, alpha=3),
    "mul_one": lambda x: x * 1.0,
    "add_zero": lambda x: x + 0.0,
    "sub_zero": lambda x: x - 0.0,
    "add_minus_zero": lambda x: x + -0.0,
    "mul_zero": lambda x: x * 0.0,
    "div_one": lambda x: x / 1.0,
    "zero_minus": lambda x: 0.0 - x,
    "mul_minus_one": lambda x: x * -1.0,
    "pow0": lambda x: x**0,
    "pow1": lambda x: x**1,
    "pow2": lambda x: x**2,
    "pow3": lambda x: x**3,
    "pow_half": lambda x: x**0.5,
    "pow_minus_half": lambda x: x**-0.5,
    "pow_minus_1": lambda x: x**-1,
    "pow_minus_2": lambda x: x**-2,
    "clamp_both": lambda x: x.clamp(-0.5, 1.5),
    "clamp_min": lambda x: x.clamp(min=0.25),
    "clamp_max": lambda x: x.clamp(max=0.25),
    "clamp_zero": lambda x: x.clamp(0.0, 1.0),
    "clamp_nan": lambda x: x.clamp(min=nan),
    "clamp_crossed": lambda x: x.clamp(2.0, -1.0),
    "clip": lambda x: torch.clip(x, -1, 1),
    "clamp_min_": lambda x: x.clone().clamp_(min=-1.0),
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "leaky_relu_slope": lambda x: F.leaky_relu(x, 0.3),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.5, 20.0),
    "softsign": F.softsign,
    "nan_to_num": torch.nan_to_num,
    "nan_to_num_values": lambda x: torch.nan_to_num(x, nan=1.5, posinf=2.0, neginf=-3.0),
    "eq_number": lambda x: x == 0.5,
    "ne_number": lambda x: x != 0.5,
    "lt_number": lambda x: x < 0.5,
    "le_number": lambda x: x <= 0.5,
    "gt_number": lambda x: x > 0.5,
    "ge_number": lambda x: x >= 0.5,
    "eq_nan": lambda x: x == nan,
    "round_decimals": lambda x: torch.round(x, decimals=2),
    "round_tens": lambda x: torch.round(x, decimals=-1),
    "remainder_number": lambda x: x % 0.7,
    "fmod_number": lambda x: torch.fmod(x, 0.7),
    "floor_divide_number": lambda x: x // 0.7,
    "remainder_negative": lambda x: x % -2.0,
    "remainder_zero": lambda x: x % 0.0,
    "floor_divide_zero": lambda x: x // 0.0,
    "div_floor_number": lambda x: torch.div(x, 0.7, rounding_mode="floor"),
    "div_trunc_number": lambda x: torch.div(x, 0.7, rounding_mode="trunc"),
    "where_number": lambda x: torch.where(x > 0, x, 0.5),
    "where_numbers": lambda x: torch.where(x > 0, 1.0, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 1, -2.0),
    "heaviside_number": lambda x: torch.heaviside(x, torch.tensor(0.5, dtype=x.dtype)),
    "copysign_number": lambda x: torch.copysign(x, -1.0),
    "deg2rad": torch.deg2rad,
    "rad2deg": torch.rad2deg,
    "relu_": lambda x: torch.relu_(x.clone()),
    "mul_": lambda x: x.clone().mul_(0.7),
    "add_": lambda x: x.clone().add_(x, alpha=1),
    "literal": lambda x: x * torch.tensor(1.7),
    "float": lambda x: (x > 0).float(),
    "double": lambda x: x.double(),
    "to_float": lambda x: x.to(torch.float32),
    "type_as": lambda x: (x > 0).type_as(x),
    "half_round_trip": lambda x: x.half().to(x.dtype),
    "bfloat16_round_trip": lambda x: x.bfloat16().to(x.dtype),
    "half_arithmetic": lambda x: (x.half() * 1.7 + x.half()).to(x.dtype),
    "bfloat16_arithmetic": lambda x: (x.bfloat16() * 1.7 + 0.3).to(x.dtype),
    "detach": lambda x: x.detach() * 2,
    "square_": lambda x: x.clone().square_(),
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "softplus": F.softplus,
    "softplus_beta": lambda x: F.softplus(x, beta=2.0, threshold=5.0),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "elu": F.elu,
    "elu_alpha": lambda x: F.elu(x, 0.75),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.75),
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
    "pow_2.5": lambda x: x**2.5,
    "pow_4": lambda x: x**4,
    "pow_minus_3": lambda x: x**-3,
    "rpow": lambda x: 2.0**x,
    "rpow_e": lambda x: 2.75**x,
    "special_expit": torch.special.expit,
    "special_expm1": torch.special.expm1,
    "special_log1p": torch.special.log1p,
    "special_erf": torch.special.erf,
    "special_erfc": torch.special.erfc,
    "special_exp2": torch.special.exp2,
    "arctan": torch.arctan,
    "arcsinh": torch.arcsinh,
    "logit": torch.logit,
    "logit_eps": lambda x: torch.logit(x, eps=2**-7),
    "sinc": torch.sinc,
    "xlog1py": lambda x: torch.special.xlog1py(x, x.abs()),
    "entr": torch.special.entr,
    "ndtr": torch.special.ndtr,
    "float_power": lambda x: torch.float_power(x, 2.5),
    "pow_tensor_number": lambda x: torch.pow(torch.tensor(2.0), x),
}

BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "true_divide": torch.true_divide,
    "multiply": torch.multiply,
    "subtract": torch.subtract,
    "divide": torch.divide,
    "add_op": lambda x, y: x + y,
    "rsub": torch.rsub,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "max": torch.max,
    "min": torch.min,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "fmod": torch.fmod,
    "remainder": torch.remainder,
    "floor_divide": torch.floor_divide,
    "div_floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "div_trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "copysign": torch.copysign,
    "heaviside": torch.heaviside,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "where": lambda x, y: torch.where(x > y, x, y),
    "clamp_tensor_min": lambda x, y: torch.clamp(x, min=y),
    "clamp_tensor_max": lambda x, y: torch.clamp(x, max=y),
    "masked_fill_tensor": lambda x, y: torch.where(x.isnan(), y, x),
    "not_equal": torch.not_equal,
    "greater": torch.greater,
    "less_equal": torch.less_equal,
    "swap": lambda x, y: torch.where((x < y) & ~(x == 0), x, -y),
    "mixed_precision": lambda x, y: x.float() + y.double(),
    "eq_mixed": lambda x, y: x.float() == y.double(),
    "pow": torch.pow,
    "atan2": torch.atan2,
    "arctan2": torch.arctan2,
    "hypot": torch.hypot,
    "xlogy": torch.xlogy,
    "logaddexp": torch.logaddexp,
    "logaddexp2": torch.logaddexp2,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=0.3),
    "sub_alpha": lambda x, y: torch.sub(x, y, alpha=0.3),
    "lerp_number": lambda x, y: torch.lerp(x, y, 0.3),
    "ldexp": lambda x, y: torch.ldexp(x, (y > 0).int() * 3),
    "sub_alpha_one": lambda x, y: torch.sub(x, y, alpha=1),
    "lerp_high": lambda x, y: torch.lerp(x, y, 0.7),
    "float_power": torch.float_power,
}

TERNARY = {
    "where": lambda x, y, z: torch.where(x > 0, y, z),
    "clamp": torch.clamp,
    "addcdiv_one": lambda x, y, z: x + y / z,
    "addcmul": torch.addcmul,
    "addcdiv": torch.addcdiv,
    "addcmul_value": lambda x, y, z: torch.addcmul(x, y, z, value=0.3),
    "addcdiv_value": lambda x, y, z: torch.addcdiv(x, y, z, value=0.3),
    "lerp": torch.lerp,
}

UNORDERED_ZERO = {
    "maximum",
    "minimum",
    "max",
    "min",
    "fmax",
    "fmin",
    "clamp",
    "clamp_tensor_min",
    "clamp_tensor_max",
    "relu",
    "relu6",
    "relu_",
    "clamp_zero",
    "hardswish",
    "softshrink",
}


def _sqrt(x: Tensor) -> Tensor:
    floats = x if x.is_floating_point() else x.float()
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(floats.numpy()))


def _fmod(x: Tensor, y: Tensor) -> Tensor:
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.fmod(x.numpy(), y.numpy()))


def _remainder(x: Tensor, y: Tensor) -> Tensor:
    m = _fmod(x, y)
    return torch.where((m != 0) & ((y < 0) != (m < 0)), m + y, m)


# eager's square root is MKL's, 1 ulp off now and then; its fmod gives NaN where the quotient is huge
TRUTH: dict[str, Callable[..., Any]] = {
    "sqrt": _sqrt,
    "pow_half": _sqrt,
    "fmod": _fmod,
    "remainder": _remainder,
    "fmod_number": lambda x: _fmod(x, torch.full_like(x, 0.7)),
    "remainder_number": lambda x: _remainder(x, torch.full_like(x, 0.7)),
}


def _finish(cases: list[Case], truth: dict[str, Callable[..., Any]]) -> list[Case]:
    return [replace(c, same_zero=c.name not in UNORDERED_ZERO, truth=truth.get(c.name)) for c in cases]


FLOAT_CASES = _finish([*_cases(1, UNARY), *_cases(2, BINARY), *_cases(3, TERNARY)], TRUTH)

INT_UNARY = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "sgn": torch.sgn,
    "square": torch.square,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": torch.round,
    "relu": torch.relu,
    "bitwise_not": torch.bitwise_not,
    "invert": lambda x: ~x,
    "logical_not": torch.logical_not,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "signbit": torch.signbit,
    "zeros_like": torch.zeros_like,
    "full_like": lambda x: torch.full_like(x, 3),
    "full_like_float": lambda x: torch.full_like(x, 2.5, dtype=torch.float32),
    "add_number": lambda x: x + 3,
    "add_float": lambda x: x + 0.5,
    "mul_number": lambda x: x * 3,
    "div_number": lambda x: x / 3,
    "rdiv": lambda x: 3 / x,
    "rsub": lambda x: 3 - x,
    "floor_divide": lambda x: x // 3,
    "floor_divide_negative": lambda x: x.long() // -3,
    "div_floor": lambda x: torch.div(x, 3, rounding_mode="floor"),
    "div_trunc": lambda x: torch.div(x, 3, rounding_mode="trunc"),
    "remainder": lambda x: x % 3,
    "remainder_negative": lambda x: x.long() % -3,
    "fmod": lambda x: torch.fmod(x, 3),
    "pow2": lambda x: x**2,
    "pow3": lambda x: x**3,
    "pow0": lambda x: x**0,
    "pow_half": lambda x: x.float() ** 0.5,
    "clamp": lambda x: x.clamp(1, 5),
    "clamp_min": lambda x: x.clamp(min=2),
    "clamp_max": lambda x: x.clamp(max=2),
    "clamp_float": lambda x: x.clamp(0.5, 2.5),
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "lt_number": lambda x: x < 3,
    "eq_float": lambda x: x == 2.5,
    "gt_float": lambda x: x > 2.5,
    "ge_number": lambda x: x >= 3,
    "masked_fill": lambda x: x.masked_fill(x > 2, 1),
    "where": lambda x: torch.where(x > 2, x, 0),
    "shift_left": lambda x: x << 2,
    "shift_right": lambda x: x >> 2,
    "and_number": lambda x: x & 6,
    "or_number": lambda x: x | 6,
    "xor_number": lambda x: x ^ 6,
    "float": lambda x: x.float(),
    "double": lambda x: x.double(),
    "bool": lambda x: x.bool(),
    "int8": lambda x: x.to(torch.int8),
    "uint8": lambda x: x.to(torch.uint8),
    "int16": lambda x: x.to(torch.int16),
    "int32": lambda x: x.int(),
    "int64": lambda x: x.long(),
    "half": lambda x: x.half().float(),
    "countdown": lambda x: torch.where(x > 0, x - 1, x),
    "sub_": lambda x: x.clone().sub_(1),
    "true_pow": lambda x: x.double() ** 2,
    "new_full": lambda x: x.new_full(x.shape, 7),
    "mul_float_cast": lambda x: (x * 0.5).to(x.dtype),
    "add_bool": lambda x: x + (x > 2),
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
}
INT_BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
    "and_op": lambda x, y: x & y,
    "or_op": lambda x, y: x | y,
    "xor_op": lambda x, y: x ^ y,
    "shift_left": lambda x, y: x << (y & 7),
    "shift_right": lambda x, y: x >> (y & 7),
    "bitwise_left_shift": torch.bitwise_left_shift,
    "bitwise_right_shift": torch.bitwise_right_shift,
    "eq": torch.eq,
    "lt": torch.lt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "where": lambda x, y: torch.where(x > y, x, y),
    "clamp_tensor": lambda x, y: torch.clamp(x, min=y),
    "add_alpha": lambda x, y: torch.add(x, y, alpha=2),
    "add_mixed": lambda x, y: x + y.float(),
    "mul_mixed": lambda x, y: x.to(torch.uint8) * y,
    "lt_mixed": lambda x, y: x.to(torch.uint8) < y,
    "sub_alpha": lambda x, y: torch.sub(x, y, alpha=2),
    "rsub": torch.rsub,
}
INT_CASES = _finish([*_cases(1, INT_UNARY), *_cases(2, INT_BINARY)], {"sqrt": _sqrt, "pow_half": _sqrt})

BOOL_UNARY = {
    "logical_not": torch.logical_not,
    "invert": lambda x: ~x,
    "bitwise_not": torch.bitwise_not,
    "float": lambda x: x.float(),
    "int": lambda x: x.int(),
    "double": lambda x: x.double(),
    "uint8": lambda x: x.to(torch.uint8),
    "half": lambda x: x.half().float(),
    "add_number": lambda x: x + 1,
    "mul_float": lambda x: x * 0.5,
    "rsub": lambda x: 1.0 - x.float(),
    "eq": lambda x: x == True,  # noqa: E712
    "clone": _clone,
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": lambda x: torch.full_like(x, True),
    "where": lambda x: torch.where(x, 2.0, -1.0),
    "masked_fill": lambda x: x.float().masked_fill(x, 4.0),
    "isnan": torch.isnan,
    "sigmoid_free": lambda x: x.float() / 3,
    "gt": lambda x: x > 0,
    "sum_of_two": lambda x: x + x,
    "not_not": lambda x: ~~x,
}
BOOL_BINARY = {
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "mul": torch.mul,
    "add": torch.add,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x, y, ~x),
    "bitwise_and": torch.bitwise_and,
    "div": torch.div,
    "mul_mixed": lambda x, y: x * y.float(),
    "add_int": lambda x, y: x + y.int(),
}
BOOL_CASES = [*_cases(1, BOOL_UNARY), *_cases(2, BOOL_BINARY)]


def cases(dtype: torch.dtype) -> list[Case]:
    """The operations tried on ``dtype``."""
    return FLOAT_CASES if dtype.is_floating_point else BOOL_CASES if dtype == torch.bool else INT_CASES


def arguments(dtype: torch.dtype, arity: int) -> tuple[Tensor, ...]:
    """Special values in every combination, random ones, of one argument all of fp16; each ``[2, N]``."""
    special, random = _special(dtype), _random(dtype, arity)
    if arity == 1 and dtype.is_floating_point:
        random = torch.cat([random, _halves(dtype)], 1)
    if arity == 3:
        special = special[:: max(1, len(special) // 11)]
    combined = torch.cartesian_prod(*[special] * arity).reshape(-1, arity).T
    whole = torch.cat([combined, random], 1)
    whole = whole[:, : whole.shape[1] // 2 * 2]
    return tuple(row.reshape(2, -1).contiguous() for row in whole)


def _special(dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:
        return torch.tensor([False, True])
    if dtype.is_floating_point:
        info = torch.finfo(dtype)
        tiny, subnormal = info.tiny, info.smallest_normal * info.eps
        positive = [
            0.0,
            1.0,
            0.5,
            1.5,
            2.5,
            0.49999997,
            0.3,
            1 / 3,
            2.0,
            3.0,
            7.0,
            20.5,
            88.0,
            100.25,
            1e4,
            123456.789,
            2.0**23 + 1,
            2.0**31,
            1e30,
            info.eps,
            1 - info.eps,
            1 + info.eps,
            tiny,
            subnormal,
            tiny * 0.75,
            info.max,
            inf,
            math.pi / 2,
            math.pi,
            1e-4,
            1e-20,
        ]
        return torch.tensor([*positive, *(-p for p in positive), nan], dtype=dtype)
    info = torch.iinfo(dtype)
    values = {0, 1, 2, 3, 5, 7, 8, 31, 63, 64, 100, info.max, info.max - 1, info.min, info.min + 1, -1, -2, -3, -7}
    return torch.tensor(sorted(v for v in values if info.min <= v <= info.max), dtype=dtype)


def _halves(dtype: torch.dtype) -> Tensor:
    """All that fp16 can hold."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).to(dtype)
    return halves[~halves.isnan()][None]


def _random(dtype: torch.dtype, arity: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    count = 1024
    if dtype == torch.bool:
        return torch.rand(arity, count, generator=generator) < 0.5
    if dtype.is_floating_point:
        normal = torch.randn(arity, count, generator=generator, dtype=dtype)
        scale = torch.tensor([1.0, 10.0, 1e-3, 1e3], dtype=dtype).repeat(count // 4)
        uniform = torch.rand(arity, 32 * count, generator=generator, dtype=dtype) * 2 - 1
        return torch.cat([normal * scale, uniform[:, ::2] * 1.5, uniform[:, 1::2] * 110], 1)
    info = torch.iinfo(dtype)
    return torch.randint(info.min, info.max, (arity, count), generator=generator, dtype=dtype)
