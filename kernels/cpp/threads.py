"""How many threads a scan is split among.

With other work on the machine a second thread may not be scheduled for 4 to 60 ms, and a parallel region waits for all
of its threads. Two rules keep a scan from waiting for longer than it would take alone:

1. *Work.* A scan that one thread does in less than :data:`WORTH_SPLITTING` is not split. One lane-step is modelled as
   :data:`UNIT` seconds for each of its operations and each byte it moves; a product is as many as its matrix has rows.
   Measured up to 200,000 lane-steps, one thread takes 0.5 to 0.9 times that for LIF and PLIF, 1.3 for AdEx, 2.6 for a
   gated neuron of sigmoid and tanh. What is larger leaves the cache, and takes up to five times as long.
2. *Patience.* Every split scan measures what waiting cost: how much longer it took than the quickest of its threads, at
   the pace of its own blocks, would have taken for all of them. Then nobody is waited for again for :data:`PATIENCE`
   times as long, so that waiting costs 2 % of the time at most, however busy the machine is, and until scans of
   :data:`REGAINED` times that length have run alone, so that few of them wait even where much other work lies between
   two. On a quiet machine nothing is lost and everything is split.

Neither changes a bit of the results: which thread computes a block does not matter, and sums over lanes are within
groups that no block divides.
"""

from __future__ import annotations

import math
import os
import time

import torch

from flexsn.ir.layout import Layout
from flexsn.ir.plan import BackwardPlan, Plan, Role, programs

__all__ = ["TEAM", "WORTH_SPLITTING", "Team", "seconds_alone"]

UNIT = 20e-12
"""Seconds per operation or byte."""
WORTH_SPLITTING = 20e-6
"""Seconds; to start a second thread and to meet it again takes 5 to 50 microseconds."""
PATIENCE = 50
REGAINED = 4
LONGEST = 1.0
"""Seconds of either at most: the machine may be quiet again."""


def seconds_alone(plan: Plan, layout: Layout) -> float:
    """What one thread takes for a scan, as modelled."""
    if isinstance(plan, BackwardPlan):
        operations = len(plan.advance.body) + max(len(branch.program.body) for branch in plan.branches)
    else:
        operations = len(plan.program.body)
    rows = {slot.index: t.time for slot, t in zip(plan.slots, layout.tensors, strict=True) if slot.role is Role.MATRIX}
    operations += sum(rows[product.operands[0]] for program in programs(plan) for product in program.products)
    return UNIT * (operations + plan.bytes_per_lane_step) * layout.num_steps * layout.num_lanes


class Team:
    """The threads of this process, and how long the calling one goes on without the others."""

    def __init__(self) -> None:
        self._alone_until = 0.0
        self._alone_for = 0.0
        self._forks_from_threads = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)

    def _before_fork(self) -> None:
        self._forks_from_threads = not _has_one_thread()

    def _after_fork(self) -> None:
        """A child process has the locks of its parent's threads, but not the threads: to wait for them never ends."""
        if self._forks_from_threads:
            self._alone_until = math.inf

    def size(self, seconds: float) -> int:
        """How many threads to split a scan among that takes one of them so long: ``torch.get_num_threads()`` or 1."""
        if self._alone_for <= 0.0 and time.perf_counter() >= self._alone_until:
            return torch.get_num_threads()
        self._alone_for -= seconds
        return 1

    def lost(self, seconds: float) -> None:
        """Take note of what waiting cost."""
        if seconds > 0.0 and self._alone_until < math.inf:
            self._alone_until = time.perf_counter() + min(LONGEST, PATIENCE * seconds)
            self._alone_for = min(LONGEST, REGAINED * seconds)


def _has_one_thread() -> bool:
    """Whether this process has certainly started no other."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


TEAM = Team()
