"""What the benchmarks share: timing in turns, the machine in words, tables in files."""

from __future__ import annotations

import csv
import ctypes
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from flexsn.commands.timing import Timing, take_turns

__all__ = ["Timing", "keep_memory", "machine", "take_turns", "write_csv"]


def keep_memory() -> None:
    """Let the C allocator keep what is freed, for all contenders alike.

    Otherwise large tensors cost page faults, more or fewer of them from round to round, which hide the kernels.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(parameter, 2**30)


def machine() -> str:
    """What the figures were taken on, in words that name no host."""
    model = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
