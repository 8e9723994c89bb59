"""``info``."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from flexsn import kernels
from flexsn.commands.cache import contents
from flexsn.commands.command import Command

__all__ = ["COMMAND"]

_PACKAGES = ("flexsn", "torch", "triton", "numpy", "networkx", "typing_extensions", "matplotlib", "nir")
_VARIABLES = ("CXX", "FLEXSN_*", "OMP_*", "TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES")


def _arguments(parser: ArgumentParser) -> None:
    pass


def _run(options: Namespace) -> int:
    rows = [*_software(), *_machine(), *kernels.toolchain().items()]
    rows += [("cache", f"{kernels.cache_dir()}: {contents()}"), ("environment", _environment())]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}}  {value}" for name, value in rows))
    return 0


def _software() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"


def _machine() -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    yield "processor", f"{_processor()}, {os.cpu_count()} logical cores, {torch.get_num_threads()} threads in torch"
    if not torch.cuda.is_available():
        yield "gpu", "none that torch can use"
        return
    runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        name, memory = f"{found.name}, {found.major}.{found.minor}", f"{found.total_memory / 2**30:.0f} GiB"
        yield f"gpu {index}", f"{name}, {memory}, {found.multi_processor_count} multiprocessors, {runtime}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _environment() -> str:
    names = [
        n for n in sorted(os.environ) if any(n == v or (v[-1] == "*" and n.startswith(v[:-1])) for v in _VARIABLES)
    ]
    return ", ".join(f"{name}={os.environ[name]}" for name in names) or "nothing of ours is set"


COMMAND = Command("info", "versions, compiler, devices, cache: what to paste into a bug report", _arguments, _run)
