"""Triton runtime: load a printed kernel from its file, launch it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flexsn.kernels.cache import cache_dir, content_key, publish
from flexsn.kernels.triton_access import accesses
from flexsn.kernels.triton_printer import ENTRY, print_triton
from flexsn.layout import Layout
from flexsn.scan_plan import BackwardPlan, ForwardPlan

__all__ = ["bind", "checkpoint", "load"]

BLOCK = 512
WARPS = 4


def checkpoint(step_bytes: int) -> int:
    """How many steps to recompute at once, in registers."""
    return 8


def bind(plan: ForwardPlan | BackwardPlan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
    """A function that runs the plan's kernel on tensors of that layout, given in the order of the plan's slots."""
    source = print_triton(plan, accesses(plan, layout), len(layout.sizes), reciprocal=False)
    kernel = load(source.text)
    numbers = [layout.tensors[i].time if d is None else layout.tensors[i].strides[d] for i, d in source.strides]
    numbers += layout.sizes[1:] if source.num_sizes else ()
    numbers += [layout.num_steps, layout.num_lanes]
    grid = (-(-layout.num_lanes // BLOCK),)

    def launch(tensors: Sequence[Tensor]) -> None:
        with _device_of(tensors[0]):
            kernel[grid](*tensors, *numbers, BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False)

    return launch


class _device_of:
    """Launches go to the current device: make it the tensor's."""

    def __init__(self, tensor: Tensor) -> None:
        self._guard = torch.cuda.device(tensor.device) if tensor.is_cuda else None

    def __enter__(self) -> None:
        if self._guard is not None:
            self._guard.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._guard is not None:
            self._guard.__exit__(*error)


@cache
def load(text: str) -> Any:
    """The jitted function of a printed kernel; a real file keeps profilers and debuggers working."""
    name = f"flexsn_{content_key(text)}"
    path = cache_dir() / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        path = publish(path, lambda target: _write(target, text))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return getattr(module, ENTRY)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
