"""Writes docs/benchmarks.md, the tables of the last runs, from bench/results/*.csv.

python docs/make_benchmarks.py
"""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "bench" / "results"
OURS = "flexsn"
HEAD = """# Benchmarks

Written by `docs/make_benchmarks.py` from `bench/results`; a test keeps it current. `make bench` times all of it on your
machine, `make gpu` on one with a GPU.

Contenders take turns in one process, each turn after a call that is not timed. Times are medians with quartiles in
milliseconds; the other columns are times over flexsn's: 8 means eight times as long.
"""

SECTIONS = {
    "cpu": """
## One neuron, forward and backward

`python bench/cpu.py`. The loop unbinds its inputs, the loop at its best; "loop, x[t]" indexes them, as most write it.
`torch.compile` compiles the whole loop up to T = 16 and the step beyond. "copy" moves the bytes that a pass has to move
and does nothing else. {machine}
""",
    "recurrent": """
## A recurrent layer, forward and backward

`python bench/recurrent.py`. B samples of H neurons, all connected; *rate* is the share of neurons that fire in a step.
"alternating" is flexsn with torch's products between kernels, "torch.compile" the loop over a compiled step, "products"
the products alone, dense: two a step, and one of all steps.
""",
    "lengths": """
## Samples of different lengths, forward and backward

`python bench/lengths.py`: 270 samples of 7 to 26 steps, padded to 29, 128 LIF neurons. A mask by hand is an input of
the core; `reset_mask=` starts samples anew as often as if they were packed.
""",
    "over_time": """
## Time and memory over the number of steps

`python bench/over_time.py`: LIF, forward and backward; peak memory is the most that torch had allocated beyond what was
there before.
""",
    "startup": """
## What a call costs besides

`python bench/startup.py`. The first call traces, generates and builds; another process finds the built kernel on disk.
""",
}
"""A text for every kind of result, in the order of the page."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_contender(found: list[dict[str, str]]) -> str:
    """A line for every case, a column for every contender; once more for memory."""
    keys = [key for key in found[0] if key != "who" and not key.endswith(("_ms", "_mb"))]
    who = sorted(dict.fromkeys(row["who"] for row in found), key=lambda name: name != OURS)
    cases: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in found:
        cases.setdefault(tuple(row[key] for key in keys), {})[row["who"]] = row
    times, memory = [[*keys, f"{OURS}, ms", *who[1:]]], [[*keys, *(f"{name}, MB" for name in who)]]
    for case, runs in cases.items():
        label = [f"{int(value):,}" if value.isdigit() else value for value in case]
        ours = float(runs[OURS]["median_ms"])
        ratios = [rounded(float(runs[name]["median_ms"]) / ours) if name in runs else "–" for name in who[1:]]
        times.append([*label, milliseconds(runs[OURS]), *ratios])
        peaks = (runs.get(name, {}).get("peak_mb") for name in who)
        memory.append([*label, *(rounded(float(peak)) if peak else "–" for peak in peaks)])
    return markdown(times) + (markdown(memory) if "peak_mb" in found[0] else "")


def by_event(found: list[dict[str, str]]) -> str:
    return markdown([["what", "ms"], *([row["what"], milliseconds(row)] for row in found)])


def milliseconds(row: dict[str, str]) -> str:
    """Median and quartiles."""
    median, low, high = (rounded(float(row[key])) for key in ("median_ms", "low_ms", "high_ms"))
    return f"{median} ({low}–{high})"


def rounded(value: float) -> str:
    """Three digits below 10, tenths below 100."""
    return f"{value:.3g}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def markdown(table: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(cells)} |\n" for cells in table)
    return f"\n{head}|{'---|' * len(table[0])}\n{''.join(body)}"


def document() -> str:
    """The whole document."""
    machine = next(
        line for line in (ROOT / "bench" / "README.md").read_text().splitlines() if line.startswith("Last run: ")
    )
    parts = [HEAD]
    for name, text in SECTIONS.items():
        path = RESULTS / f"{name}.csv"
        if path.exists():
            found = rows(path)
            parts.append(text.replace("{machine}", machine))
            parts.append(by_contender(found) if "who" in found[0] else by_event(found))
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(document())
