"""Options: how a neuron is run, as attributes that are checked when they are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import AskedDtype
from flexsn.modules.stateful import Stateful

__all__ = ["Options"]


class Options(Stateful):
    """Every option of a scan, and the step mode, readable and settable."""

    _flexsn_internal: ClassVar[frozenset[str]] = frozenset()

    @property
    def scan_options(self) -> ScanOptions:
        """All options of multi-step calls, as they are now."""
        return self._flexsn.options

    @property
    def backend(self) -> str:
        """What runs the scan: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``."""
        return self._flexsn.options.backend

    @backend.setter
    def backend(self, backend: str) -> None:
        self._flexsn.set_option(backend=backend)

    @property
    def time_dim(self) -> int:
        """The time axis of multi-step inputs and outputs."""
        return self._flexsn.options.time_dim

    @time_dim.setter
    def time_dim(self, time_dim: int) -> None:
        self._flexsn.set_option(time_dim=time_dim)

    @property
    def checkpoint(self) -> int | str:
        """Steps between stored states in training; ``"auto"`` leaves it to the backend."""
        return self._flexsn.options.checkpoint

    @checkpoint.setter
    def checkpoint(self, checkpoint: int | str) -> None:
        self._flexsn.set_option(checkpoint=checkpoint)

    @property
    def output_dtype(self) -> AskedDtype:
        """What outputs are stored in: one dtype, or one per output; ``None`` for that of the computation."""
        return self._flexsn.options.output_dtype

    @output_dtype.setter
    def output_dtype(self, output_dtype: torch.dtype | Sequence[torch.dtype | None] | None) -> None:
        self._flexsn.set_option(output_dtype=output_dtype)

    @property
    def step_mode(self) -> str:
        """``"m"`` (inputs are sequences) or ``"s"`` (inputs are single steps)."""
        return self._flexsn.step_mode

    @step_mode.setter
    def step_mode(self, step_mode: str) -> None:
        if step_mode not in ("m", "s"):
            raise ValueError(f'step_mode must be "m" (multi-step) or "s" (single-step), got {step_mode!r}')
        self._flexsn.change(step_mode=step_mode)

    @property
    def detach_every(self) -> int | None:
        """The gradient of states is cut before steps ``n, 2n, ...`` of a call; ``None`` for nowhere."""
        return self._flexsn.options.detach_every

    @detach_every.setter
    def detach_every(self, detach_every: int | None) -> None:
        self._flexsn.set_option(detach_every=detach_every)

    @property
    def time_reduction(self) -> str | None:
        """How outputs are reduced over time: ``"sum"``, ``"mean"``, ``"last"``, ``"max"``; ``None`` for not."""
        return self._flexsn.options.time_reduction

    @time_reduction.setter
    def time_reduction(self, time_reduction: str | None) -> None:
        self._flexsn.set_option(time_reduction=time_reduction)
