"""Device functions that generated Triton kernels call: torch's floor division, and libdevice everywhere.

Under Triton's interpreter libdevice does not exist; torch's own functions stand in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import triton
import triton.language as tl

from flexsn.kernels.triton.runtime import interpreting

__all__ = ["INF", "NAN", "floor_divide", "fmod", "libdevice", "remainder"]

INF = tl.constexpr(float("inf"))
NAN = tl.constexpr(float("nan"))


class _Interpreted:
    """libdevice by way of torch, on the interpreter's tensors."""

    _TORCH_NAMES = {"nearbyint": "round", "pow": "pow"}  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        import torch
        from triton.runtime.interpreter import TensorHandle

        function = _OURS.get(name) or getattr(torch, self._TORCH_NAMES.get(name, name))

        def call(*args: Any) -> Any:
            arrays = [torch.from_numpy(a.handle.data.copy()) if isinstance(a, tl.tensor) else a for a in args]
            first = next(a for a in args if isinstance(a, tl.tensor))
            like = next(a for a in arrays if isinstance(a, torch.Tensor))
            arrays = [a if isinstance(a, torch.Tensor) else torch.tensor(float(a), dtype=like.dtype) for a in arrays]
            result = function(*arrays).numpy()
            kind = next((a for a in args if isinstance(a, tl.tensor) and a.type.is_block()), first).type
            return tl.tensor(TensorHandle(result, first.dtype), kind)

        return call


def _exact_fmod(a: Any, b: Any) -> Any:
    import torch

    return torch.from_numpy(np.fmod(a.numpy(), b.numpy()))


def _fma(a: Any, b: Any, c: Any) -> Any:
    import torch

    return torch.addcmul(c, a, b)


# torch's vectorised fmod is not exact for large quotients, libdevice's is; torch has a fused product by another name
_OURS: dict[str, Callable[..., Any]] = {"fmod": _exact_fmod, "fma": _fma}


if not interpreting():
    from triton.language.extra import libdevice
else:
    libdevice = _Interpreted()


@triton.jit
def fmod(a, b):  # type: ignore[no-untyped-def]
    """The remainder with the sign of the dividend."""
    if a.dtype.is_floating():
        return libdevice.fmod(a, b)
    else:
        return a % b


@triton.jit
def remainder(a, b):  # type: ignore[no-untyped-def]
    """torch's remainder: with the sign of the divisor."""
    m = fmod(a, b)
    return tl.where((m != 0) & ((b < 0) != (m < 0)), m + b, m)


@triton.jit
def floor_divide(a, b):  # type: ignore[no-untyped-def]
    """torch's floor division."""
    m = fmod(a, b)
    if a.dtype.is_floating():
        d = _divide(a - m, b)
        d = tl.where((m != 0) & ((b < 0) != (m < 0)), d - 1.0, d)
        f = tl.floor(d)
        f = tl.where(d - f > 0.5, f + 1.0, f)
        f = tl.where(d != 0, f, libdevice.copysign(d * 0.0, _divide(a, b)))
        return tl.where(b == 0, _divide(a, b), f)
    else:
        d = a // b
        return tl.where((m != 0) & ((b < 0) != (m < 0)), d - 1, d)


@triton.jit
def _divide(a, b):  # type: ignore[no-untyped-def]
    """Rounded to nearest; plain ``/`` is, for fp64 only."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)
