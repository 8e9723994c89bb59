"""Triton runtime: load a printed kernel from its file, launch it."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from flexsn.ir.layout import Layout
from flexsn.ir.passes import passed
from flexsn.ir.plan import Plan
from flexsn.kernels.cache import cache_dir, content_key, publish, read_entry, show_source
from flexsn.kernels.triton.memory import accesses
from flexsn.kernels.triton.printer import ENTRY, print_triton
from flexsn.kernels.triton.tiling import Tiling, tiling_of

__all__ = ["OPTIONS", "bind", "interpreting", "load"]

OPTIONS = {"enable_fp_fusion": False}
"""Of every compilation: each operation rounds for itself, as in the loop."""

_ALIGNED = 16
"""Bytes; Triton compiles one variant for pointers that are multiples of it and one for others."""

_INTERPRETED = 1024  # lanes of a block; the interpreter is fastest with few large ones


def interpreting() -> bool:
    """Whether Triton runs kernels on the CPU, by its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def bind(plan: Plan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
    """A function that runs the plan's kernel on tensors of that layout, given in the order of the plan's slots."""
    access = accesses(plan, layout)
    source = print_triton(plan, access, len(layout.sizes))
    kernel, numbers, tiling = load(source.text), source.numbers(layout), tiling_of(plan, access, layout)
    warp_size = 1 if interpreting() else _warp_size()
    block = _INTERPRETED if interpreting() and isinstance(tiling, Tiling) else tiling.block(warp_size)
    lanes = block if isinstance(tiling, Tiling) else tiling.lanes
    grid = (-(-layout.num_lanes // lanes), 1, 1)
    launch: Callable[[Sequence[Tensor]], None]
    if interpreting():
        launch = _Interpreted(kernel, grid, numbers, block)
    else:
        launch = _Launcher(kernel, grid, numbers, block, tiling.warps)
    return _WithScratch(launch, source.scratch, grid[0] * lanes) if source.scratch else launch


def _warp_size() -> int:
    from triton.runtime import driver

    return int(driver.active.get_current_target().warp_size)


class _Interpreted:
    """Runs a kernel by Triton's interpreter."""

    def __init__(self, kernel: Any, grid: tuple[int, int, int], numbers: Sequence[int], block: int) -> None:
        self._kernel = kernel[grid]
        self._arguments = (*numbers, block)

    def __call__(self, tensors: Sequence[Tensor]) -> None:
        self._kernel(*tensors, *self._arguments)


class _Launcher:
    """Launches a kernel on the device and current stream of its tensors.

    Triton's own dispatch looks at every argument again; here dtypes, sizes and strides are settled, so what is
    left to tell compiled variants apart is the device and which pointers are aligned. Nothing waits for the
    device, so launches can be captured in a CUDA graph once the kernel has run.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], numbers: Sequence[int], block: int, warps: int) -> None:
        self._kernel = kernel
        self._grid = grid
        self._arguments = (*numbers, block)
        self._options = {"num_warps": warps, **OPTIONS}
        self._compiled: dict[tuple[int, ...], Callable[..., None]] = {}

    def __call__(self, tensors: Sequence[Tensor]) -> None:
        device = tensors[0].get_device()
        if device == torch.cuda.current_device():
            self._launch(device, tensors)
        else:
            with torch.cuda.device(device):
                self._launch(device, tensors)

    def _launch(self, device: int, tensors: Sequence[Tensor]) -> None:
        variant = (device, *[t.data_ptr() % _ALIGNED == 0 for t in tensors])
        run = self._compiled.get(variant)
        if run is None:
            compiled = self._kernel[self._grid](*tensors, *self._arguments, **self._options)
            self._compiled[variant] = compiled[self._grid]
        else:
            run(*tensors, *self._arguments)


class _WithScratch:
    """Launches a kernel with memory that it puts values aside in, ``lanes`` of each dtype."""

    def __init__(self, launch: Callable[[Sequence[Tensor]], None], dtypes: Sequence[torch.dtype], lanes: int) -> None:
        self._launch, self._dtypes, self._lanes = launch, dtypes, lanes

    def __call__(self, tensors: Sequence[Tensor]) -> None:
        device = tensors[0].device
        self._launch([*tensors, *(torch.empty(self._lanes, dtype=d, device=device) for d in self._dtypes)])


@cache
def load(text: str) -> Any:
    """The jitted function of a printed kernel; a real file keeps profilers and debuggers working.

    What runs, and what Triton reads, is the text itself: the file may change, and Python would take compiled code
    that lies beside it for the file's on the word of a date and a size.
    """
    show_source(text)
    passed("Triton", text)
    name = f"flexsn_{content_key(text)}"
    path = cache_dir() / f"{name}.py"
    if read_entry(path) != text.encode():
        path = publish(path, lambda target: _write(target, text))
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    exec(compile(text, path, "exec"), module.__dict__)
    return getattr(module, ENTRY)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())
