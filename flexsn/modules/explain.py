"""Explain: what was traced, what is saved and recomputed, what moves, and the kernels that came of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from flexsn.errors import BackendError
from flexsn.modules.flexsn import FlexSN
from flexsn.report.report import Report

__all__ = ["explain", "main"]


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain a built-in neuron; the process's exit status."""
    import flexsn.neurons

    parser = argparse.ArgumentParser(prog="python -m flexsn explain", description=(__doc__ or "").strip())
    parser.add_argument("neuron", help="a class of flexsn.neurons, such as LIF")
    parser.add_argument("--target", default=None, help="cpp (default), sm_80, sm_90, sm_100 or gfx942")
    parser.add_argument("--dtype", default="float32", choices=("float64", "float32", "float16", "bfloat16"))
    parser.add_argument("--passes", action="store_true", help="show every form from the core to the kernels instead")
    options = parser.parse_args(arguments)
    neuron = getattr(flexsn.neurons, options.neuron, None)
    if not (isinstance(neuron, type) and issubclass(neuron, FlexSN)):
        known = sorted(n for n in dir(flexsn.neurons) if n[0].isupper())
        print(f"flexsn.neurons has no neuron {options.neuron!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        report = explain(neuron(), options.target, getattr(torch, options.dtype))
    except BackendError as error:
        print(error, file=sys.stderr)
        return 1
    if options.passes:
        print("\n\n".join(f"# ---- {name} ----\n{text}" for name, text in report.passes))
    else:
        print(report)
    return 0
