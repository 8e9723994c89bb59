"""Dtypes: 16-bit floats are for memory; what is computed with them is fp32."""

from __future__ import annotations

import torch

__all__ = ["HALF", "compute_dtype"]

HALF = (torch.float16, torch.bfloat16)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype states and arithmetic have for inputs of ``dtype``: fp32 for 16-bit floats."""
    return torch.float32 if dtype in HALF else dtype
