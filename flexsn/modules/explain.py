"""Explain: what was traced, what is saved and recomputed, what moves, and the kernels that came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from flexsn.modules.flexsn import FlexSN

if TYPE_CHECKING:
    from flexsn.report.report import Report

__all__ = ["explain"]


def explain(
    neuron_or_core: FlexSN | Callable[..., Any], target: str | None = None, dtype: torch.dtype = torch.float32
) -> Report:
    """Explain what a neuron or core is compiled to.

    Args:
        neuron_or_core: a :class:`~flexsn.FlexSN`, or a core for which one can be made.
        target: ``"cpp"`` (``None`` means that too), or a GPU that need not be here: ``"sm_80"``, ``"sm_90"``,
            ``"sm_100"``, ``"gfx942"``.
        dtype: of the inputs.

    Returns:
        A report; ``print(report)`` is for people, ``report.kernels["backward"].registers`` for programs, and
        ``report.passes`` every form on the way from the core to the kernels.

    Raises:
        UnsupportedOpError, CoreError: the core cannot be traced.
        BackendError: Triton is missing, or does not know the target.

    Example:
        >>> import flexsn
        >>> report = flexsn.explain(lambda x, v: (v + x, v + x))
        >>> report.kernels["inference"].bytes_per_lane_step
        8.0
    """
    neuron = neuron_or_core if isinstance(neuron_or_core, FlexSN) else FlexSN(neuron_or_core)
    return neuron.explain(target, dtype)
