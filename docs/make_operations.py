"""Writes docs/operations.md, which functions of torch a core may call, from the rules of lowering and the promises.

python docs/make_operations.py

A rule that no group names is an error.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from flexsn.ir.ops import OPS
from flexsn.ir.promises import EXACT_FUNCTIONS, FUNCTIONS
from flexsn.tracing.lowering.registry import RULES
from flexsn.tracing.products import PRODUCTS

TARGET = Path(__file__).with_name("operations.md")

GROUPS = {
    "arithmetic": "add sub mul div neg abs sign reciprocal square fmod remainder floor_divide frac rsub addcmul addcdiv"
    " lerp copysign deg2rad rad2deg ldexp",
    "roots and powers": "sqrt rsqrt pow hypot",
    "exponentials": "exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 xlogy special.xlog1py",
    "angles": "sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh sinc",
    "comparisons": "eq ne lt le gt ge isnan isinf isfinite isposinf isneginf signbit heaviside",
    "logic and bits": "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not"
    " bitwise_left_shift bitwise_right_shift",
    "choices and bounds": "where masked_fill maximum minimum fmax fmin clamp clip nan_to_num",
    "rounding": "floor ceil round trunc",
    "activations": "sigmoid relu relu6 leaky_relu elu gelu silu mish softplus logsigmoid hardtanh hardsigmoid hardswish"
    " hardshrink softshrink tanhshrink threshold softsign",
    "of probability": "erf erfc special.ndtr special.entr logit",
    "copies": "clone contiguous Tensor.to full_like zeros_like",
}
"""What a person writes, by what it is for."""

_FOR_AUTOGRAD = r".*_backward|_to_copy|convert_element_type|copy|to|full|fill|zero|index_put"
_SPELLINGS = {
    **{"true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub", "negative": "neg"},
    **{"absolute": "abs", "sgn": "sign", "arctan2": "atan2", "special_expit": "sigmoid"},
}
_ROWS = {"bitwise_left_shift": "shift_left", "bitwise_right_shift": "shift_right"}

HEAD = """# What a core may call

Written by `docs/make_operations.py` from the rules of lowering and the promises of numbers; a test keeps it current.

On values of a step a core may call any function of torch below, as a function, a method or an operator (`+`, `>`, `&`),
and any other that torch itself decomposes into these (`celu`, `selu`, ...), as long as every lane
stays on its own. In parentheses: by how many units in the last place the value may differ from torch's own on the CPU;
without a number it has torch's bits. [Numbers](numbers.md) has the details.

| for | functions |
|---|---|
"""

TAIL = """
Other spellings: {spellings}. In-place forms (`add_`, `x[mask] = 0.0`) may change values that the core itself made.

## Products

The last dimension of a step value times a captured square matrix, or a convolution that keeps the shape: `nn.Linear`,
`torch.nn.functional.linear`, `@`, `torch.matmul`, `torch.einsum`, `nn.Conv1d`, `nn.Conv2d`, ... Torch makes {products}
of these, and they are compiled with the step: see [cores](cores.md).

## From parameters alone

What depends on parameters and not on inputs or states is computed by torch once per call, not at every step, and may be
anything: `softmax` over channels, `view`, weight normalisation, a lookup in a table. It has to end in a shape that
broadcasts against the step.

## What to write instead

| in a core | is refused, since | instead |
|---|---|---|
| `x.cumsum(0)`, `x.mean()`, `x.softmax(-1)`, `x[:, 0]` | a lane would read other lanes | the layer before or after |
| a sum over the features | a lane would read other lanes | a product with ones: `F.linear(s, torch.ones(n, n))` |
| `if v.max() > 1:`, `float(v)`, `v.item()` | one kernel runs for all lanes | `torch.where(v > 1, a, b)` |
| `torch.rand_like(v)`, `F.dropout(s)` | a scan is a pure function | noise as one more input: `neuron(x, noise)` |
| `self.count += 1` | it would count once, while it is traced | one more state |
| `v.add_(x)`, on an argument | the caller's tensor would change | `v = v + x` |
| `(h > 1).float()` as the spike, where a gradient is wanted | its derivative is zero | a surrogate: `spike(h - 1)` |

[What a core is told](errors.md) shows the message for each of these.
"""


def document() -> str:
    """The whole document."""
    _check_complete()
    rows = [f"| {group} | {', '.join(map(_named, names.split()))} |\n" for group, names in GROUPS.items()]
    spellings = ", ".join(f"`{other}` for `{name}`" for other, name in _SPELLINGS.items())
    products = ", ".join(f"`{name}`" for name in sorted(PRODUCTS) if not name.endswith("_backward"))
    return HEAD + "".join(rows) + TAIL.format(spellings=spellings, products=products)


def _named(name: str) -> str:
    short = name.rpartition(".")[2]
    row = OPS.get(_ROWS.get(short, short))
    promise = FUNCTIONS.get(short) or (row.promise if row else None)
    return f"`{name}` ({promise.torch})" if promise and promise.torch else f"`{name}`"


def _check_complete() -> None:
    """Every rule and every promise is somewhere, and every name is one of torch's."""
    named = {name.rpartition(".")[2] for names in GROUPS.values() for name in names.split()}
    torchs = [name for name in RULES if hasattr(torch.ops.aten, name)]  # others are rows of ours alone
    known = {name for name in torchs if not re.fullmatch(rf"{_FOR_AUTOGRAD}|__.*__|special_.*|clamp_m.*", name)}
    missing = {*known, *FUNCTIONS, *EXACT_FUNCTIONS} - named - _SPELLINGS.keys()
    if missing:
        raise SystemExit(f"no group has {', '.join(sorted(missing))}")
    places = (torch, torch.Tensor, torch.nn.functional, torch.special)
    unknown = {name for name in named if not any(hasattr(place, name) for place in places)}
    if unknown:
        raise SystemExit(f"torch has no {', '.join(sorted(unknown))}")


if __name__ == "__main__":
    TARGET.write_text(document())
