"""Time and peak memory of a LIF layer over T, forward + backward, on the CPU: a table, and the plot of the README.

    python bench/over_time.py               # measures, writes results/over_time.csv and docs/images/over_time.svg
    python bench/over_time.py --only-plot   # draws what was measured

A peer takes part if it is installed. Peak memory is the most that torch had allocated beyond what was there before the
pass, as its profiler counts it: it is exact, and the same at every run.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from cpu import contenders
from harness import keep_memory, machine, take_turns, write_csv
from torch.profiler import ProfilerActivity, profile

CSV = Path(__file__).parent / "results" / "over_time.csv"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "over_time.svg"
STEPS = (4, 16, 64, 256, 1024)
LANES = 4096
SHOWN = {  # Okabe & Ito's colours, read on white and on black
    "flexsn": ("#0072B2", "flexsn"),
    "loop": ("#888888", "the loop"),
    "torch.compile": ("#E69F00", "torch.compile"),
    "spikingjelly": ("#009E73", "SpikingJelly"),
    "snntorch": ("#CC79A7", "snnTorch"),
}


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    kineto = profiler.profiler.kineto_results if profiler.profiler else None
    assert kineto is not None
    changes = sorted((e.start_ns(), e.nbytes()) for e in kineto.events() if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def measure() -> None:
    keep_memory()
    print(machine(), "\n")
    print("| T x N | who | ms (quartiles) | peak, MB |\n|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for steps in STEPS:
        runs = {who: run for who, run in contenders("LIF", steps, LANES, compiled=True).items() if who in SHOWN}
        for who, timing in take_turns(runs, budget=12.0).items():
            peak = peak_memory(runs[who]) / 1e6
            print(f"| {steps} x {LANES:,} | {who} | {str(timing).removesuffix(' ms')} | {peak:.1f} |", flush=True)
            rows.append(
                {
                    "T": steps, "N": LANES, "who": who, "median_ms": timing.median * 1e3,
                    "low_ms": timing.low * 1e3, "high_ms": timing.high * 1e3, "peak_mb": peak,
                }
            )  # fmt: skip
    write_csv(CSV, rows)


def plot() -> None:
    with CSV.open(newline="") as file:
        rows = list(csv.DictReader(file))
    grey = "#888888"
    style = {"axes.edgecolor": grey, "axes.labelcolor": grey, "xtick.color": grey, "ytick.color": grey}
    style |= {"text.color": grey, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    with plt.rc_context({**style, "svg.hashsalt": "over_time", "font.size": 10}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
        for ax, column, label in zip(axes, ("median_ms", "peak_mb"), ("time, ms", "peak memory, MB"), strict=True):
            for who, (colour, name) in SHOWN.items():
                mine = [row for row in rows if row["who"] == who]
                x, y = ([float(row[key]) for row in mine] for key in ("T", column))
                ax.plot(x, y, "o-", color=colour, label=name, markersize=4, linewidth=2.4 if who == "flexsn" else 1.4)
                if column == "median_ms":
                    low, high = ([float(row[key]) for row in mine] for key in ("low_ms", "high_ms"))
                    ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.set(xscale="log", yscale="log", xlabel="time steps", ylabel=label, xticks=STEPS, xticklabels=STEPS)
            ax.minorticks_off()
        axes[0].legend(frameon=False)
        figure.savefig(PLOT, transparent=True, metadata={"Date": None, "Title": "LIF, forward + backward, over T"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-plot", action="store_true")
    if not parser.parse_args().only_plot:
        measure()
    plot()


if __name__ == "__main__":
    main()
