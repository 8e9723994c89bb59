"""LIF and PLIF, forward + backward, with one core kept busy by another process.

    python bench/busy.py            # everything: two minutes
    python bench/busy.py --quick    # three shapes

Every shape first on the machine as it is, then beside a process that never sleeps, pinned to one core. Wanted: never
slower than the loop, at most 2.5 times its own quiet time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cpu import RESULTS, SHAPES, contenders
from harness import Timing, keep_memory, machine, take_turns, write_csv

ALL_SHAPES = [*SHAPES, (64, 2**16)]
MOST = 2.5


@contextmanager
def busy_core() -> Iterator[None]:
    """Keep the last core that this process may use busy."""
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(hog.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        hog.kill()
        hog.wait()


def measure(neuron: str, num_steps: int, num_lanes: int) -> dict[str, dict[str, Timing]]:
    """Times by ``quiet`` or ``busy``, then by who."""
    runs = contenders(neuron, num_steps, num_lanes, compiled=False)
    both = {who: runs[who] for who in ("flexsn", "loop")}
    quiet = take_turns(both)
    with busy_core():
        return {"quiet": quiet, "busy": take_turns(both)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    keep_memory()
    print(machine(), "\n")
    print("| neuron | T x N | quiet, ms (quartiles) | busy, ms (quartiles) | busy / quiet | loop / busy | as wanted |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for neuron in ("LIF", "PLIF"):
        for num_steps, num_lanes in ALL_SHAPES[2:5] if options.quick else ALL_SHAPES:
            times = measure(neuron, num_steps, num_lanes)
            print(_row(neuron, num_steps, num_lanes, times), flush=True)
            rows += [
                {
                    "neuron": neuron, "T": num_steps, "N": num_lanes, "machine": when, "who": who,
                    "median_ms": t.median * 1e3, "low_ms": t.low * 1e3, "high_ms": t.high * 1e3,
                }
                for when, contest in times.items()
                for who, t in contest.items()
            ]  # fmt: skip
    if not options.quick:
        write_csv(RESULTS / "busy.csv", rows)


def _row(neuron: str, num_steps: int, num_lanes: int, times: dict[str, dict[str, Timing]]) -> str:
    quiet, busy, loop = times["quiet"]["flexsn"], times["busy"]["flexsn"], times["busy"]["loop"]
    slower, faster = busy.median / quiet.median, loop.median / busy.median
    cells = [neuron, f"{num_steps} x {num_lanes:,}", *(str(t).removesuffix(" ms") for t in (quiet, busy))]
    cells += [f"{slower:.2f}", f"{faster:.1f}", "yes" if slower <= MOST and faster >= 1 else "NO"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
