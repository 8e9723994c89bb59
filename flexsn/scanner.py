"""Scanner: everything one core needs to be scanned over time, on whichever backend runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.loop import run_loop

__all__ = ["BACKENDS", "Scanner", "check_backend", "compute_dtype", "supported_backends"]

BACKENDS = ("auto", "triton", "cpp", "torch")
_HALF = (torch.float16, torch.bfloat16)


def check_backend(backend: str) -> str:
    """Return ``backend`` if it names one, else raise ``ValueError``."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    return backend


def supported_backends() -> tuple[str, ...]:
    """The backends that can run on this machine."""
    return ("torch",)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype states and arithmetic have for inputs of ``dtype``: fp32 for 16-bit floats."""
    return torch.float32 if dtype in _HALF else dtype


class Scanner:
    """Scans one core; holds what was traced and compiled for it."""

    def __init__(self, core: Callable[..., Any], num_states: int) -> None:
        self.core = core
        self.num_states = num_states

    def __call__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        *,
        backend: str = "auto",
        time_dim: int = 0,
        want_state_seqs: bool = False,
        checkpoint: int | str = "auto",
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        seqs = [x.movedim(time_dim, 0) for x in inputs]
        step = torch.broadcast_shapes(*(x.shape[1:] for x in seqs), *(s.shape for s in states))
        half = [x.dtype for x in seqs if x.is_floating_point()]
        io = None
        if half and all(d in _HALF for d in half):
            io = half[0]
        seqs = [x.to(compute_dtype(x.dtype)).expand(x.shape[0], *step) for x in seqs]
        sts = [s.to(compute_dtype(s.dtype)).expand(step) for s in states]
        ys, finals, st = run_loop(self.core, seqs, sts, want_state_seqs)
        if io is not None:
            ys = tuple(y.to(io) if y.dtype == torch.float32 else y for y in ys)
        return tuple(y.movedim(0, time_dim) for y in ys), finals, tuple(y.movedim(0, time_dim) for y in st)
