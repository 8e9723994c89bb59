"""Outputs: in which dtype each is stored, and which dtype it has to whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.ir.dtypes import HALF

__all__ = ["AskedDtype", "OutputDtype", "check_output_dtype", "resolve_output_dtypes"]

AskedDtype = torch.dtype | tuple[torch.dtype | None, ...] | None

_CHOICES = (torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class OutputDtype:
    """The dtype of an output.

    Attributes:
        stored: in memory.
        visible: to autograd and whoever reads it.
    """

    stored: torch.dtype
    visible: torch.dtype

    def wrap(self, stored: Tensor) -> Tensor:
        """What a kernel wrote, as the user gets it."""
        return stored if self.stored is self.visible else SpikeTensor(stored, self.visible)

    def store(self, computed: Tensor) -> Tensor:
        """What the loop computed, as the user gets it."""
        visible = computed.to(self.visible)
        return visible if self.stored is self.visible else SpikeTensor.of(visible, self.stored)


def check_output_dtype(asked: torch.dtype | Sequence[torch.dtype | None] | None) -> AskedDtype:
    """One dtype for all outputs, or one per output, ``None`` for the usual one.

    Raises:
        ValueError: a dtype that outputs cannot be stored in.
    """
    many = asked if isinstance(asked, (tuple, list)) else (asked,)
    for dtype in many:
        if dtype is not None and dtype not in _CHOICES:
            choices = ", ".join(str(d).removeprefix("torch.") for d in _CHOICES)
            raise ValueError(f"output_dtype must be None or one of torch's {choices}; got {dtype!r}")
    return tuple(asked) if isinstance(asked, (tuple, list)) else asked  # type: ignore[return-value]


def resolve_output_dtypes(
    computed: Sequence[torch.dtype], inputs: Sequence[torch.dtype], asked: AskedDtype
) -> tuple[OutputDtype, ...]:
    """The dtypes of a call's outputs.

    Args:
        computed: the dtypes the core computes them in.
        inputs: of the call.
        asked: for by the user.

    Raises:
        ValueError: not one dtype per output.
    """
    each = asked if isinstance(asked, tuple) else (asked,) * len(computed)
    if len(each) != len(computed):
        raise ValueError(f"output_dtype names {len(each)} dtype(s), the core has {len(computed)} output(s)")
    return tuple(_resolve(_usual(c, inputs), a) for c, a in zip(computed, each, strict=True))


def _resolve(usual: torch.dtype, asked: torch.dtype | None) -> OutputDtype:
    if asked is None:
        return OutputDtype(usual, usual)
    differentiable = usual.is_floating_point and not asked.is_floating_point
    return OutputDtype(asked, usual if differentiable else asked)


def _usual(computed: torch.dtype, inputs: Sequence[torch.dtype]) -> torch.dtype:
    """16-bit floats in, 16-bit floats out."""
    floats = [d for d in inputs if d.is_floating_point]
    if computed is not torch.float32 or not floats or not all(d in HALF for d in floats):
        return computed
    joint = floats[0]
    for dtype in floats[1:]:
        joint = torch.promote_types(joint, dtype)
    return joint
