"""What a call costs besides its work: first call cold and warm, a new T, a new N, and the overhead of a small call.

python bench/startup.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from harness import machine, write_csv

import flexsn
from flexsn import surrogate

RESULTS = Path(__file__).parent / "results"
_spike = surrogate.ATan(alpha=2.0)


def lif_step(x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = v + (x - v) / 2.0
    s = _spike(h - 1.0)
    return s, h * (1.0 - s)


def training_step(neuron: flexsn.FlexSN, num_steps: int, num_lanes: int) -> float:
    """Seconds of one forward and backward pass."""
    x = torch.randn(num_steps, num_lanes, requires_grad=True)
    neuron.reset()
    start = time.perf_counter()
    neuron(x).sum().backward()
    return time.perf_counter() - start


def first_call() -> None:
    """In a fresh process: the first call, then the second, as JSON."""
    neuron = flexsn.FlexSN(lif_step)
    print(json.dumps([training_step(neuron, 16, 4096), training_step(neuron, 16, 4096)]))


def _fresh_process(cache: str) -> float:
    command = [sys.executable, __file__, "--first-call"]
    done = subprocess.run(command, env={**os.environ, "FLEXSN_CACHE_DIR": cache}, capture_output=True, check=True)
    first: float = json.loads(done.stdout)[0]
    return first


def main() -> None:
    print(machine(), "\n")
    rows: dict[str, list[float]] = {"first call, cold": [], "first call, warm": []}
    for _ in range(5):
        with tempfile.TemporaryDirectory() as cache:
            rows["first call, cold"].append(_fresh_process(cache))
            rows["first call, warm"].append(_fresh_process(cache))
    neuron = flexsn.FlexSN(lif_step)
    training_step(neuron, 3, 64)
    rows["new T, 64 lanes"] = [training_step(neuron, t, 64) for t in range(4, 54)]
    rows["new N, T = 4"] = [training_step(neuron, 4, n) for n in range(65, 115)]
    rows["known shape, T = 4, N = 64"] = [training_step(neuron, 4, 64) for _ in range(2000)]
    rows["inference, T = 4, N = 64"] = [_inference(neuron) for _ in range(2000)]
    print("| what (forward + backward unless said) | median, ms | quartiles |\n|---|---|---|")
    table = []
    for what, seconds in rows.items():
        low, median, high = (q * 1e3 for q in statistics.quantiles(seconds, n=4, method="inclusive"))
        print(f"| {what} | {median:.3g} | {low:.3g}-{high:.3g} |")
        table.append({"what": what, "median_ms": median, "low_ms": low, "high_ms": high})
    write_csv(RESULTS / "startup.csv", table)


def _inference(neuron: flexsn.FlexSN) -> float:
    x = torch.randn(4, 64)
    neuron.reset()
    start = time.perf_counter()
    with torch.no_grad():
        neuron(x)
    return time.perf_counter() - start


if __name__ == "__main__":
    first_call() if "--first-call" in sys.argv else main()
