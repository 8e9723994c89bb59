"""Offline: compile a plan for a GPU that is not here, and read from the machine code what the kernel does."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from flexsn.errors import BackendError
from flexsn.ir.layout import Layout, TensorLayout
from flexsn.ir.plan import Plan, Role
from flexsn.kernels.triton.memory import accesses
from flexsn.kernels.triton.printer import COMPILED_IN, TritonSource, print_triton
from flexsn.kernels.triton.runtime import OPTIONS, interpreting, load
from flexsn.kernels.triton.tiling import SampleTiling, Tiling, steps_at_once, tiling_of

__all__ = ["POINTERS", "TARGETS", "OfflineKernel", "compile_offline", "dense_layout"]

TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""What Triton calls them: backend, architecture, lanes of a warp."""

POINTERS = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.float16: "*fp16", torch.bfloat16: "*bf16",
    torch.bool: "*u1", torch.uint8: "*u8", torch.int8: "*i8", torch.int16: "*i16", torch.int32: "*i32",
    torch.int64: "*i64",
}  # fmt: skip
"""What Triton calls memory of a dtype."""


@dataclass(frozen=True)
class OfflineKernel:
    """A compiled kernel and what its machine code says.

    Attributes:
        target: a key of :data:`TARGETS`.
        source: the Triton source.
        assembly: PTX or AMDGCN text.
        registers: per thread, as the assembler assigned them.
        spill_bytes: of local memory a thread uses; 0 means nothing was spilled.
        shared_bytes: of shared memory a block uses.
        loads, stores: accesses in the loop over time per step, by width in bits; a thread's access of 128 bits
            serves four fp32 lanes. What happens once per chunk counts as its share of a step.
        fused: multiply-adds in LLVM's code: none but those inside library functions such as ``exp``.
        bytes_per_lane_step: memory traffic of the plan.
        checkpoint: ``K``, ``None`` for inference.
        tiling: the block, and what the model expected.
        seconds: the compilation took, nothing cached.
    """

    target: str
    source: str
    assembly: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    loads: dict[int, float]
    stores: dict[int, float]
    fused: int
    bytes_per_lane_step: float
    checkpoint: int | None
    tiling: Tiling | SampleTiling
    seconds: float

    @property
    def ptx(self) -> str:
        """The assembly; PTX on NVIDIA."""
        return self.assembly


def dense_layout(plan: Plan, num_lanes: int = 1 << 20, size: int = 256) -> Layout:
    """Every tensor contiguous and of the full step shape; matrices have ``size`` rows."""
    timed = (Role.LOAD, Role.STORE, Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE)
    tensors = [
        TensorLayout(size, (0,), False)
        if slot.role is Role.MATRIX
        else TensorLayout(num_lanes if slot.role in timed else 0, (1,), True)
        for slot in plan.slots
    ]
    return Layout(16, num_lanes, (num_lanes,), tuple(tensors))


def compile_offline(
    plan: Plan,
    target: str,
    layout: Layout | None = None,
    aligned: bool = True,
    tiling: Tiling | SampleTiling | None = None,
) -> OfflineKernel:
    """Compile ``plan`` for ``target``, with no GPU needed.

    Args:
        plan: a forward or backward plan.
        target: a key of :data:`TARGETS`.
        layout: of the tensors; contiguous, N a multiple of 16, if not given.
        aligned: whether pointers are multiples of 16 bytes.
        tiling: lanes per thread and block; the model's if not given.

    Raises:
        BackendError: Triton is missing, runs as an interpreter, or does not know the target.
    """
    _check(target)
    layout = layout or dense_layout(plan)
    access = accesses(plan, layout)
    source = print_triton(plan, access, len(layout.sizes))
    tiling = tiling or tiling_of(plan, access, layout)
    pointers = tuple(POINTERS[d] for d in (*(s.dtype for s in plan.slots), *source.scratch))
    near = tuple(_span(layout, t) * s.dtype.itemsize < 2**31 for s, t in zip(plan.slots, layout.tensors, strict=True))
    near += (True,) * len(source.scratch)
    compiled, seconds = _compile(source, pointers, near, source.numbers(layout), target, aligned, tiling)
    nvidia = target.startswith("sm_")
    assembly = compiled.asm["ptx" if nvidia else "amdgcn"]
    registers, spills = _resources(compiled, nvidia)
    steps = steps_at_once(plan)
    loads, stores = _accesses(assembly, nvidia)
    return OfflineKernel(
        target=target,
        source=source.text,
        assembly=assembly,
        registers=registers,
        spill_bytes=spills,
        shared_bytes=compiled.metadata.shared,
        loads={width: count / steps for width, count in sorted(loads.items())},
        stores={width: count / steps for width, count in sorted(stores.items())},
        fused=_fused(compiled.asm["llir"]),
        bytes_per_lane_step=plan.bytes_per_lane_step,
        checkpoint=plan.interval,
        tiling=tiling,
        seconds=seconds,
    )


def _span(layout: Layout, tensor: TensorLayout) -> int:
    """Elements from the first to the last."""
    sizes = (layout.num_steps, *layout.sizes)
    return 1 + sum((size - 1) * stride for size, stride in zip(sizes, (tensor.time, *tensor.strides), strict=True))


def _check(target: str) -> None:
    if target not in TARGETS:
        raise BackendError(f"no offline target {target!r}", hint=f"one of {', '.join(TARGETS)}")
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise BackendError(f"Triton cannot be imported ({error})", hint='pip install "flexsn[triton]"') from error
    if interpreting():
        raise BackendError(
            "Triton cannot compile in a process that interprets",
            why="TRITON_INTERPRET is set",
            hint="unset it before Python starts",
        )


@cache
def _compile(
    source: TritonSource,
    pointers: tuple[str, ...],
    near: tuple[bool, ...],
    numbers: tuple[int, ...],
    target: str,
    aligned: bool,
    tiling: Tiling | SampleTiling,
) -> tuple[Any, float]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = load(source.text)
    gpu = GPUTarget(*TARGETS[target])
    # what Triton's own dispatch finds out about the arguments of a call
    signature = dict(zip(source.arguments, pointers, strict=False))
    constants: dict[tuple[int, ...], int] = {}
    multiples = [(i,) for i in range(len(pointers))] if aligned else []
    for i, value in enumerate(numbers, len(pointers)):
        name = source.arguments[i]
        signature[name] = "i64" if value >= 2**31 else "i32"
        if name == "T" or name.endswith("_time"):
            continue
        if value == 1 or name in COMPILED_IN:
            signature[name], constants[i,] = "constexpr", value
        elif value % 16 == 0:
            multiples.append((i,))
    signature["BLOCK"], constants[len(source.arguments),] = "constexpr", tiling.block(gpu.warp_size)
    attributes: dict[tuple[int, ...], list[list[Any]]] = {key: [["tt.divisibility", 16]] for key in multiples}
    if gpu.backend == "hip":  # offsets of 32 bits reach all of such a tensor
        for i in (i for i, reached in enumerate(near) if reached):
            attributes.setdefault((i,), []).append(["tt.pointer_range", 32])
    ast = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    with _anew():
        start = time.perf_counter()
        compiled = triton.compile(ast, target=gpu, options={"num_warps": tiling.warps, **OPTIONS})
        return compiled, time.perf_counter() - start


@contextmanager
def _anew() -> Iterator[None]:
    """Compile even what is in Triton's cache, so that seconds mean something."""
    before = os.environ.get("TRITON_ALWAYS_COMPILE")
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TRITON_ALWAYS_COMPILE"]
        else:
            os.environ["TRITON_ALWAYS_COMPILE"] = before


def _resources(compiled: Any, nvidia: bool) -> tuple[int, int]:
    """Registers and bytes of local memory per thread."""
    if not nvidia:
        text = compiled.asm["amdgcn"]
        found = {key: int(value) for key, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", text, re.MULTILINE)}
        return found["vgpr_count"], found["private_segment_fixed_size"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [_cuobjdump(), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if match is None:
        raise BackendError("cuobjdump did not report registers", why=text.strip()[:200])
    return int(match[1]), int(match[2])


def _cuobjdump() -> str:
    """The one Triton brings along."""
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def _accesses(assembly: str, nvidia: bool) -> tuple[Counter[int], Counter[int]]:
    """Loads and stores of global memory in the loop over time, by width in bits."""
    loads: Counter[int] = Counter()
    stores: Counter[int] = Counter()
    for line in _loop(assembly.splitlines(), nvidia):
        if nvidia:
            match = re.search(r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)\b", line)
            if match:
                width = int(match[2] or 1) * int(match[3])
                (loads if match[1] == "ld" else stores)[width] += 1
        else:
            match = re.search(r"\b(?:global|buffer|flat)_(load|store)_(\w+)", line)
            if match:
                (loads if match[1] == "load" else stores)[_amd_width(match[2])] += 1
    return loads, stores


def _amd_width(name: str) -> int:
    words = re.match(r"dword(?:x(\d))?", name)
    if words:
        return 32 * int(words[1] or 1)
    return 8 if "byte" in name or "8" in name else 16


def _loop(lines: Sequence[str], nvidia: bool) -> Sequence[str]:
    """The lines from a label to the last jump back to it, for the label where that is most."""
    label = re.compile(r"^(\$?\w+):" if nvidia else r"^(\.?\w+):")
    jump = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+)" if nvidia else r"\bs_c?branch\w*\s+(\.\w+)")
    seen: dict[str, int] = {}
    longest: Sequence[str] = ()
    for number, line in enumerate(lines):
        if match := label.match(line):
            seen[match[1]] = number
        if (match := jump.search(line)) and match[1] in seen and number - seen[match[1]] > len(longest):
            longest = lines[seen[match[1]] : number]
    return longest


def _fused(llir: str) -> int:
    """Fused multiply-adds, and operations that may become some, in LLVM's code."""
    calls = re.findall(r"call .*@llvm\.(?:nvvm\.)?(?:fma|fmuladd)\.", llir)
    return len(calls) + len(re.findall(r"= f(?:add|sub|mul) [a-z ]*(?:contract|fast)\b", llir))
