"""LIF on a GPU, forward + backward, beside a copy of the same bytes, the loop, ``torch.compile`` and SpikingJelly.

    python bench/gpu.py                 # everything, within ten minutes
    python bench/gpu.py --minutes 2     # as much as fits
    python bench/gpu.py --plot-only     # the plot from the last CSV

Writes ``results/gpu.csv`` (a row per contender and size), ``results/gpu_first.csv`` (first call, new T, new N),
``results/gpu_model.csv`` (what the tiling model expected beside what was reached) and ``results/gpu.png``.
Achieved bandwidth counts the bytes that flexsn's plan moves, for every contender, so it compares times; the copy
is torch's own of as many bytes. A contender that is missing, fails or would take too long is left out, and said so.
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_contenders import fused, lif, loop, spikingjelly_flexsn, spikingjelly_lif
from harness import write_csv
from torch import Tensor

import flexsn
from flexsn import FlexSN

RESULTS = Path(__file__).parent / "results"
STEPS = (4, 16, 64, 256, 1024)
LANES = tuple(2**k for k in range(12, 27, 2))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
COMPILED_LOOP_STEPS = 16  # torch.compile unrolls the loop over time; beyond this one compiles for minutes
SLOWEST = 2.0  # seconds per call; a contender this slow is not asked for anything larger


CONTENDERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "flexsn": fused,
    "spikingjelly LIF": spikingjelly_lif,
    "spikingjelly FlexSN": spikingjelly_flexsn,
    "torch.compile": lambda: torch.compile(loop, dynamic=False),
    "loop": lambda: loop,
}


@dataclass(frozen=True)
class Measured:
    """Seconds per call (median) and the most memory a call had beyond its inputs."""

    seconds: float
    peak_bytes: int


def measure(run: Callable[[], object], budget: float = 0.4) -> Measured:
    """Time calls by events on the stream, each after the cache of the device was written over."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    once = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() - before
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    samples = []
    for _ in range(max(3, min(50, int(budget / max(once, 1e-6))))):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3)
    return Measured(statistics.median(samples), peak)


def training(forward: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Callable[[], object]:
    def run() -> None:
        forward(x).backward(grad)
        x.grad = None

    return run


def copying(num_bytes: float) -> Callable[[], object]:
    """A copy that reads and writes ``num_bytes`` together."""
    source = torch.empty(int(num_bytes / 2), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def sizes() -> Iterator[tuple[torch.dtype, int, int]]:
    """Small to large, fp32 first, as far as half the memory of the device goes."""
    free = torch.cuda.mem_get_info()[0]
    for dtype in DTYPES:
        steps = STEPS if dtype is torch.float32 else (4, 16, 64)
        for lanes in LANES:
            for num_steps in steps:
                if num_steps * lanes * dtype.itemsize * 8 < free / 2 and num_steps * lanes >= 2**16:
                    yield dtype, num_steps, lanes


def plan_bytes(dtype: torch.dtype) -> float:
    """Bytes per lane and step of a training step."""
    return float(sum(plan.bytes_per_lane_step for plan, _ in _training_plans(FlexSN(lif), dtype)))


def _training_plans(neuron: FlexSN, dtype: torch.dtype) -> list[Any]:
    from flexsn.report.build import plan_kernels

    plans = plan_kernels(neuron, "triton", dtype).plans
    return [plans["forward"], plans["backward"]]


def sweep(deadline: float) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    made: dict[str, Callable[[Tensor], Tensor]] = {}
    dropped: dict[str, int] = {}
    for name, make in CONTENDERS.items():
        try:
            made[name] = make()
        except Exception as error:
            print(f"left out: {name} ({type(error).__name__}: {error})")
    for dtype, num_steps, lanes in sizes():
        if time.monotonic() > deadline:
            print("out of time: larger sizes are missing")
            break
        x = torch.randn(num_steps, lanes, device="cuda").to(dtype).requires_grad_()
        grad = torch.randn(num_steps, lanes, device="cuda").to(dtype)
        moved = plan_bytes(dtype) * num_steps * lanes
        for name in ("copy", *made):
            elements = num_steps * lanes
            if elements >= dropped.get(name, sys.maxsize) or (
                name == "torch.compile" and (num_steps > COMPILED_LOOP_STEPS or dtype is not torch.float32)
            ):
                continue
            try:
                run = copying(moved) if name == "copy" else training(made[name], x, grad)
                found = measure(run)
            except Exception as error:
                print(f"failed: {name}, T={num_steps}, N={lanes} ({type(error).__name__}: {str(error)[:120]})")
                dropped[name] = elements
                continue
            if found.seconds > SLOWEST:
                dropped[name] = elements
            rows.append(
                {
                    "dtype": str(dtype).removeprefix("torch."),
                    "T": num_steps,
                    "N": lanes,
                    "contender": name,
                    "ms": round(found.seconds * 1e3, 5),
                    "GB_per_s": round(moved / found.seconds / 1e9, 2),
                    "peak_MiB": round(found.peak_bytes / 2**20, 2),
                }
            )
        own = [r for r in rows[-len(made) - 1 :] if r["T"] == num_steps and r["N"] == lanes]
        print(
            f"{dtype} T={num_steps} N={lanes}: " + ", ".join(f"{r['contender']} {r['ms']} ms" for r in own), flush=True
        )
        del x, grad
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def first_calls() -> list[dict[str, object]]:
    """Seconds of the first call ever, of a new T, and of a new N, up to the end of the backward pass."""
    rows: list[dict[str, object]] = []
    for name, make in CONTENDERS.items():
        try:
            forward = make()
            for what, num_steps, lanes in (
                ("first", 8, 2**16),
                ("new T", 12, 2**16),
                ("new N", 12, 2**17),
                ("again", 12, 2**17),
            ):
                x = torch.randn(num_steps, lanes, device="cuda", requires_grad=True)
                torch.cuda.synchronize()
                start = time.perf_counter()
                training(forward, x, torch.ones_like(x))()
                torch.cuda.synchronize()
                rows.append({"contender": name, "call": what, "seconds": round(time.perf_counter() - start, 5)})
        except Exception as error:
            print(f"left out: {name} ({type(error).__name__}: {error})")
    return rows


def against_model() -> list[dict[str, object]]:
    """Per kernel and lanes per thread: what the tiling model expects beside the bandwidth reached."""
    from flexsn.ir.plan import BackwardPlan
    from flexsn.kernels.triton.tiling import choose_tiling

    rows: list[dict[str, object]] = []
    num_steps, lanes = 16, 2**22
    x = torch.randn(num_steps, lanes, device="cuda", requires_grad=True)
    grad = torch.randn_like(x)
    for checkpoint in (2, 4, 8, 16):
        neuron = FlexSN(lif, backend="triton", checkpoint=checkpoint)
        plans = [plan for plan, _ in _training_plans(neuron, torch.float32)]

        def run(neuron: FlexSN = neuron) -> None:
            neuron.reset()
            neuron(x).backward(grad)
            x.grad = None

        seconds = measure(run).seconds
        moved = sum(plan.bytes_per_lane_step for plan in plans) * num_steps * lanes
        for plan in plans:
            tiling = choose_tiling(plan)
            rows.append(
                {
                    "K": checkpoint,
                    "kernel": "backward" if isinstance(plan, BackwardPlan) else "forward",
                    "lanes_per_thread": tiling.elements,
                    "registers_modelled": tiling.registers,
                    "threads_modelled": tiling.threads,
                    "KiB_in_flight_modelled": tiling.in_flight // 1024,
                    "ms_both": round(seconds * 1e3, 5),
                    "GB_per_s_both": round(moved / seconds / 1e9, 2),
                }
            )
    return rows


def plot(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with (RESULTS / "gpu.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["dtype"] == "float32"]
    if not rows:
        return
    widest = max(int(r["N"]) for r in rows)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    panels = (("T", "N", widest, "number of steps T"), ("N", "T", 16, "number of neurons N"))
    for axis, (key, fixed, value, label) in zip(axes, panels, strict=True):
        for name in ("copy", *CONTENDERS):
            points = sorted(
                (int(r[key]), float(r["GB_per_s"])) for r in rows if r["contender"] == name and int(r[fixed]) == value
            )
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="GB/s", title=f"{fixed} = {value}")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--plot-only", action="store_true")
    options = parser.parse_args()
    if not options.plot_only:
        if not torch.cuda.is_available():
            print("bench/gpu.py needs a GPU; this machine has none that torch can see", file=sys.stderr)
            return 2
        deadline = time.monotonic() + options.minutes * 60 - 30
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
        for kernel in flexsn.explain(lif, "sm_90" if torch.version.cuda else "gfx942").kernels.values():
            print(f"{kernel.name}: {kernel.registers} registers compiled offline, {kernel.bytes_per_lane_step} bytes")
        write_csv(RESULTS / "gpu_first.csv", first_calls())
        write_csv(RESULTS / "gpu_model.csv", against_model())
        write_csv(RESULTS / "gpu.csv", sweep(deadline))
    plot(RESULTS / "gpu.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
