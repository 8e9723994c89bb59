"""The gradient of a matrix on the CPU: rows of what did not fire are skipped where few did."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from flexsn.kernels.cpp.printer import ENTRY
from flexsn.kernels.cpp.runtime import build
from flexsn.kernels.cpp.values import MEMORY

__all__ = ["outer_product"]

_FEW = 0.2  # of a factor: with more of it, a product that skips nothing is as fast
_SAMPLED = 512  # rows that are looked at


def outer_product(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right`` of two matrices of as many rows and columns."""
    left, right = left.contiguous(), right.contiguous()
    shares = _share(left), _share(right)
    if min(shares) > _FEW:
        return left.t() @ right
    if shares[0] < shares[1]:
        return _skipping(left, right)
    return _skipping(right, left).t()


def _share(values: Tensor) -> float:
    """How many of some of the values are not zero."""
    some = values[:: max(1, len(values) // _SAMPLED)]
    return int(some.count_nonzero()) / max(1, some.numel())


def _skipping(source: Tensor, other: Tensor) -> Tensor:
    rows, size = source.shape
    result = torch.empty(size, size, dtype=source.dtype) if rows else torch.zeros(size, size, dtype=source.dtype)
    addresses = [tensor.data_ptr() for tensor in (source, other, result)]
    text = f'#include "products.h"\n\nextern "C" double {ENTRY}(const fx::i64* arguments) {{\n'
    kernel = build(f"{text}  return fx::outer<{MEMORY[source.dtype]}>(arguments);\n}}\n")
    kernel(array("q", [*addresses, rows, size, torch.get_num_threads()]))
    return result
