"""What a backend offers, and which there are: a folder each, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

import flexsn.kernels.cpp.threads  # noqa: F401  which takes note of forks from now on
from flexsn.errors import BackendError
from flexsn.ir.layout import Layout
from flexsn.ir.plan import Plan

__all__ = ["BACKENDS", "Backend", "Launch", "Printed", "backend"]

Launch = Callable[[Sequence[Tensor]], None]
"""Runs a kernel on tensors in the order of its plan's slots."""


@dataclass(frozen=True, eq=False)
class Printed:
    """A kernel as text.

    Attributes:
        source: what a compiler is given.
        compiled: what a compiler for a device that is not here made of it; ``None`` where none was asked.
    """

    source: str
    compiled: Any = None


class Backend(Protocol):
    """Generates, compiles and launches kernels."""

    @property
    def name(self) -> str:
        """The name the backend is chosen by."""

    @property
    def targets(self) -> tuple[str, ...]:
        """What it can print kernels for, here or not."""

    @property
    def saves_in_registers(self) -> bool:
        """Whether recomputed values wait in registers, so that a kernel needs one graph and the smallest set."""

    @property
    def largest_matrix(self) -> int:
        """Rows of the largest matrix that a kernel multiplies by; 0 where none multiplies."""

    def choose_interval(self, step_bytes: int) -> int:
        """Steps between checkpoints, for so many bytes of checkpointed states and inputs per lane and step."""

    def problem(self, device: torch.device | None = None) -> BackendError | None:
        """Why it cannot run on this machine, or on tensors of that device."""

    def bind(self, plan: Plan, layout: Layout) -> Launch:
        """A function that runs the plan's kernel on tensors of that layout.

        Raises:
            BackendError: the kernel cannot be built here.
        """

    def outer_product(self, left: Tensor, right: Tensor) -> Tensor:
        """``left.t() @ right`` of two matrices of as many rows and columns: the gradient of a matrix."""

    def print(self, plan: Plan, layout: Layout, target: str) -> Printed:
        """The plan's kernel as text, and compiled if the target is another machine's.

        Raises:
            BackendError: the compiler is missing.
        """


BACKENDS = {
    "triton": ("cuda", "flexsn.kernels.triton.backend"),  # cuda is ROCm too
    "cpp": ("cpu", "flexsn.kernels.cpp.backend"),
}
"""By name, fastest first: the devices it is for, as torch calls them, and the module that holds it as ``BACKEND``."""


@cache
def backend(name: str) -> Backend:
    """The backend of that name."""
    found: Backend = import_module(BACKENDS[name][1]).BACKEND
    return found
