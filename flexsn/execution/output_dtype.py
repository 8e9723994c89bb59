"""Outputs: in which dtype each lies in memory, and which dtype it has to whoever reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flexsn.execution.spike_tensor import SpikeTensor

__all__ = ["AskedDtype", "OutputDtype", "check_output_dtype", "is_plain_tensor", "output_kinds"]

AskedDtype = torch.dtype | tuple[torch.dtype | None, ...] | None

_HALF = (torch.float16, torch.bfloat16)
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_CHOICES = (torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class OutputDtype:
    """How an output is kept.

    Attributes:
        memory: its dtype in memory.
        shown: its dtype to autograd and whoever reads it.
    """

    memory: torch.dtype
    shown: torch.dtype

    def show(self, stored: Tensor) -> Tensor:
        """What a kernel wrote, as the user gets it."""
        return stored if self.memory is self.shown else SpikeTensor(stored, self.shown)

    def keep(self, computed: Tensor) -> Tensor:
        """What the loop computed, as the user gets it."""
        shown = computed.to(self.shown)
        return shown if self.memory is self.shown else SpikeTensor.of(shown, self.memory)


def is_plain_tensor(tensor: Tensor) -> bool:
    """Whether it is of no class with a mind of its own, such as ``FakeTensor``: whether it is its memory."""
    return type(tensor) in _PLAIN


def check_output_dtype(asked: torch.dtype | Sequence[torch.dtype | None] | None) -> AskedDtype:
    """One dtype for all outputs, or one per output, ``None`` for the usual one.

    Raises:
        ValueError: a dtype that outputs cannot be kept in.
    """
    many = asked if isinstance(asked, (tuple, list)) else (asked,)
    for dtype in many:
        if dtype is not None and dtype not in _CHOICES:
            choices = ", ".join(str(d).removeprefix("torch.") for d in _CHOICES)
            raise ValueError(f"output_dtype must be None or one of torch's {choices}; got {dtype!r}")
    return tuple(asked) if isinstance(asked, (tuple, list)) else asked  # type: ignore[return-value]


def output_kinds(
    computed: Sequence[torch.dtype], inputs: Sequence[torch.dtype], asked: AskedDtype
) -> tuple[OutputDtype, ...]:
    """How the outputs of a call are kept.

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
    return tuple(_kind(_usual(c, inputs), a) for c, a in zip(computed, each, strict=True))


def _kind(usual: torch.dtype, asked: torch.dtype | None) -> OutputDtype:
    if asked is None:
        return OutputDtype(usual, usual)
    differentiable = usual.is_floating_point and not asked.is_floating_point
    return OutputDtype(asked, usual if differentiable else asked)


def _usual(computed: torch.dtype, inputs: Sequence[torch.dtype]) -> torch.dtype:
    """16-bit floats in, 16-bit floats out."""
    floats = [d for d in inputs if d.is_floating_point]
    if computed is not torch.float32 or not floats or not all(d in _HALF for d in floats):
        return computed
    joint = floats[0]
    for dtype in floats[1:]:
        joint = torch.promote_types(joint, dtype)
    return joint
