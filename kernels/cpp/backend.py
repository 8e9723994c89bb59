"""The C++ backend: blocks of lanes on the CPU, threads by OpenMP, lanes by SIMD."""

from __future__ import annotations

import torch
from torch import Tensor

from flexsn.errors import BackendError
from flexsn.ir.layout import Layout
from flexsn.ir.plan import Plan
from flexsn.kernels.backend import Launch, Printed
from flexsn.kernels.cpp.compiler import find_compiler
from flexsn.kernels.cpp.outer import outer_product
from flexsn.kernels.cpp.printer import print_cpp
from flexsn.kernels.cpp.runtime import BLOCK, LARGEST_MATRIX, bind

__all__ = ["BACKEND"]

_CACHE_BYTES = 512 * 1024


class CppBackend:
    """See :class:`~flexsn.kernels.backend.Backend`."""

    name = "cpp"
    targets = ("cpp",)
    saves_in_registers = False  # a block's states wait in a scratch array in cache
    largest_matrix = LARGEST_MATRIX

    def choose_interval(self, step_bytes: int) -> int:
        """As many steps as keep states and inputs of a block in half a L2 cache."""
        return max(8, min(128, _CACHE_BYTES // (BLOCK * max(step_bytes, 1))))

    def problem(self, device: torch.device | None = None) -> BackendError | None:
        try:
            find_compiler()
        except BackendError as error:
            return error
        if device is None or device.type == "cpu":
            return None
        return BackendError(
            f'backend="cpp" cannot run on {device}', why="it is for CPU tensors", hint='use backend="auto"'
        )

    def bind(self, plan: Plan, layout: Layout) -> Launch:
        return bind(plan, layout)

    def outer_product(self, left: Tensor, right: Tensor) -> Tensor:
        return outer_product(left, right)

    def print(self, plan: Plan, layout: Layout, target: str) -> Printed:
        return Printed(print_cpp(plan))


BACKEND = CppBackend()
