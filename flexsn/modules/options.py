"""Options: how a neuron is run, settable at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from flexsn.execution.backends import check_backend, supported_backends
from flexsn.execution.output_dtype import AskedDtype, check_output_dtype
from flexsn.modules.stateful import Stateful

__all__ = ["Options"]


class Options(Stateful):
    """The options of a neuron that are checked when they are set."""

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()
    _step_mode: str
    _backend: str
    _output_dtype: AskedDtype
    _checkpoint: int | str

    @property
    def step_mode(self) -> str:
        """``"m"`` (inputs are sequences) or ``"s"`` (inputs are single steps)."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, step_mode: str) -> None:
        if step_mode not in ("m", "s"):
            raise ValueError(f'step_mode must be "m" (multi-step) or "s" (single-step), got {step_mode!r}')
        self._step_mode = step_mode

    @property
    def backend(self) -> str:
        """What runs the scan: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``."""
        return self._backend

    @backend.setter
    def backend(self, backend: str) -> None:
        self._backend = check_backend(backend)

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """The backends that can run on this machine."""
        return supported_backends()

    @property
    def checkpoint(self) -> int | str:
        """Steps between stored states in training; ``"auto"`` lets the plan choose."""
        return self._checkpoint

    @checkpoint.setter
    def checkpoint(self, checkpoint: int | str) -> None:
        if checkpoint != "auto" and not (isinstance(checkpoint, int) and checkpoint >= 1):
            raise ValueError(f'checkpoint must be "auto" or a number of steps >= 1, got {checkpoint!r}')
        self._checkpoint = checkpoint

    @property
    def output_dtype(self) -> AskedDtype:
        """What outputs are kept in: one dtype, or one per output; ``None`` for that of the computation."""
        return self._output_dtype

    @output_dtype.setter
    def output_dtype(self, dtype: torch.dtype | Sequence[torch.dtype | None] | None) -> None:
        self._output_dtype = check_output_dtype(dtype)
