"""The Triton backend: blocks of lanes on NVIDIA and AMD GPUs, or on the CPU by Triton's interpreter."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from flexsn.errors import BackendError
from flexsn.ir.layout import Layout
from flexsn.ir.plan import Plan
from flexsn.kernels.backend import Launch, Printed
from flexsn.kernels.triton.offline import TARGETS, compile_offline
from flexsn.kernels.triton.runtime import bind, interpreting
from flexsn.kernels.triton.tiling import LARGEST_MATRIX, choose_interval

__all__ = ["BACKEND"]


class TritonBackend:
    """See :class:`~flexsn.kernels.backend.Backend`."""

    name = "triton"
    targets = tuple(TARGETS)
    saves_in_registers = True
    largest_matrix = LARGEST_MATRIX

    def choose_interval(self, step_bytes: int) -> int:
        return choose_interval(step_bytes)

    def problem(self, device: torch.device | None = None) -> BackendError | None:
        problem = _no_triton()
        if problem is not None or device is None or device.type == "cuda" or interpreting():
            return problem
        return BackendError(
            f'backend="triton" cannot run on {device}',
            why="it is for CUDA and ROCm tensors, or the CPU under TRITON_INTERPRET=1",
            hint='use backend="auto"',
        )

    def bind(self, plan: Plan, layout: Layout) -> Launch:
        return bind(plan, layout)

    def outer_product(self, left: Tensor, right: Tensor) -> Tensor:
        return left.t() @ right

    def print(self, plan: Plan, layout: Layout, target: str) -> Printed:
        compiled = compile_offline(plan, target, layout)
        return Printed(compiled.source, compiled)


@cache
def _no_triton() -> BackendError | None:
    try:
        import triton  # noqa: F401
    except Exception as error:
        return BackendError(f"Triton cannot be imported ({error})", hint='pip install "flexsn[triton]"')
    if not (torch.cuda.is_available() or interpreting()):
        return BackendError(
            'backend="triton" needs a GPU',
            why="torch sees none here, and Triton's interpreter is off",
            hint='use backend="auto", or set TRITON_INTERPRET=1 before Python starts to run it on the CPU, slowly',
        )
    return None


BACKEND = TritonBackend()
