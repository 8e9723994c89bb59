"""Dtypes: 16-bit floats are for memory; what is computed with them is fp32."""

from __future__ import annotations

import torch

__all__ = ["HALF", "IN_MEMORY", "compute_dtype"]

HALF = (torch.float16, torch.bfloat16)
IN_MEMORY = {
    *(*HALF, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}
"""What kernels read and write."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype states and arithmetic have for inputs of ``dtype``: fp32 for 16-bit floats."""
    return torch.float32 if dtype in HALF else dtype
