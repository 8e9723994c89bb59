"""Side-by-side timing: contenders take turns, so a machine that drifts drifts for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Timing", "take_turns"]


@dataclass(frozen=True)
class Timing:
    """Seconds per call of one contender: median over rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: Sequence[float]) -> Timing:
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return Timing(median, low, high)

    def __str__(self) -> str:
        return f"{self.median * 1e3:.3g} ms ({self.low * 1e3:.3g}-{self.high * 1e3:.3g})"


def take_turns(
    contenders: Mapping[str, Callable[[], object]], budget: float = 4.0, max_rounds: int = 25
) -> dict[str, Timing]:
    """Time the contenders round by round, ``A B C A B C ...``.

    Every turn begins with a call that is not timed, so that nobody pays for the caches, and the fragmented heap,
    that the contender before leaves behind.

    Args:
        contenders: functions of no arguments.
        budget: seconds to spend in all; slow contenders get at least three rounds.
        max_rounds: rounds at most.
    """
    inner: dict[str, int] = {}
    spent = 0.0
    for name, run in contenders.items():
        run()
        start = time.perf_counter()
        run()
        once = time.perf_counter() - start
        inner[name] = max(1, min(200, int(0.002 / max(once, 1e-9))))  # short calls are timed in batches
        spent += once * (1 + inner[name])
    rounds = max(3, min(max_rounds, int(budget / spent)))
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            run()
            start = time.perf_counter()
            for _ in range(inner[name]):
                run()
            samples[name].append((time.perf_counter() - start) / inner[name])
    return {name: Timing.of(values) for name, values in samples.items()}
