"""How many threads a scan gets, that all its blocks are computed once, and that its bits do not depend on it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn.execution.backends import supported_backends
from flexsn.kernels.cpp import runtime, threads
from flexsn.kernels.cpp.runtime import CppKernel, build
from flexsn.kernels.cpp.threads import LONGEST, PATIENCE, REGAINED, TEAM, Team
from flexsn.surrogate import ATan

pytestmark = pytest.mark.skipif("cpp" not in supported_backends(), reason="needs a C++ compiler")
spike = ATan()

COUNT = """#include "scan.h"
extern "C" int usleep(unsigned) noexcept;
extern "C" double flexsn_scan(const fx::i64* arguments) {
  const fx::Call call(arguments);
  fx::Team team(call);
  fx::i64* counts = call.data<fx::i64>(0);
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
  {
    const bool first = fx::omp_get_thread_num() == 0;
    if (!first && call.T > 0) usleep(unsigned(call.T));
    for (fx::i64 b; team.take(b);) {
      __atomic_fetch_add(counts + b, 1, __ATOMIC_RELAXED);
      if (first && call.T < 0) usleep(unsigned(-call.T));
    }
  }
  return team.lost();
}
"""


def count(blocks: int, num_threads: int, late: int) -> tuple[list[int], float]:
    """How often each block is computed, and what waiting cost.

    All threads but the first begin ``late`` microseconds late or, below 0, the first takes as long for each block.
    """
    counts = torch.zeros(blocks, dtype=torch.int64)
    lost = build(COUNT)(array("q", [late, 64 * blocks, 1, num_threads, 64, 64 * blocks, counts.data_ptr(), 0, 1, 1]))
    return counts.tolist(), lost


@pytest.mark.parametrize("late", [0, 200])
@pytest.mark.parametrize("blocks", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 7, 16])
def test_every_block_is_computed_once(blocks: int, num_threads: int, late: int) -> None:
    counts, lost = count(blocks, num_threads, late)
    assert counts == [1] * blocks
    assert lost >= 0.0
    assert lost == 0.0 or num_threads > 1


def test_what_waiting_costs_is_seen() -> None:
    """While the other sleeps the first thread computes everything, and then waits."""
    counts, lost = count(64, 2, 500_000)
    assert counts == [1] * 64
    assert lost > 0.0


def test_what_waiting_for_the_calling_thread_costs_is_seen() -> None:
    """Its processor may be the busy one: by its own pace nothing would be lost."""
    counts, lost = count(64, 2, -100_000)
    assert counts == [1] * 64
    assert 0.0 < lost < 6.4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 4)
    yield now


def test_who_was_waited_for_in_vain_is_not_waited_for_again_soon(clock: list[float]) -> None:
    team = Team()
    assert team.size(1.0) == 4
    team.lost(0.0)
    assert team.size(1.0) == 4
    team.lost(0.01)
    for passed, size in ((0.0, 1), (0.009 * PATIENCE, 1), (0.002 * PATIENCE, 4)):
        clock[0] += passed
        assert team.size(1.0) == size
    team.lost(100.0)
    assert team.size(1.01 * LONGEST) == 1
    clock[0] += 1.01 * LONGEST
    assert team.size(1.0) == 4


def test_nor_before_scans_have_run_alone_however_rare_they_are(clock: list[float]) -> None:
    team = Team()
    team.lost(0.01)
    sizes = []
    for _ in range(6):
        clock[0] += 2.0 * LONGEST
        sizes.append(team.size(0.0101))
    assert sizes == [1] * REGAINED + [4] * (6 - REGAINED)


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Threads and lanes per block of every launch from here on."""
    seen: list[tuple[int, int]] = []
    call = CppKernel.__call__

    def watched(self: CppKernel, record: array[int]) -> float:
        seen.append((record[3], record[4]))
        return call(self, record)

    monkeypatch.setattr(CppKernel, "__call__", watched)
    monkeypatch.setattr(TEAM, "_alone_until", 0.0)
    monkeypatch.setattr(TEAM, "_alone_for", 0.0)
    monkeypatch.setattr(TEAM, "lost", lambda seconds: None)
    return seen


def plif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) * leak.sigmoid()
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


leak = nn.Parameter(torch.tensor(0.3))


def train(num_steps: int, num_lanes: int) -> list[Tensor]:
    x = torch.randn(num_steps, num_lanes, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y, v = flexsn.scan(plif, x, torch.zeros(num_lanes), "cpp")
    return [y, *v, *torch.autograd.grad(y.sum(), [x, leak])]


@pytest.fixture
def with_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("with_threads")
def test_small_work_is_not_split_and_torch_says_how_far(splits: list[tuple[int, int]]) -> None:
    torch.set_num_threads(2)
    train(4, 1024)
    assert {n for n, _ in splits} == {1}
    splits.clear()
    train(200, 2048)
    assert {n for n, _ in splits} == {2}
    torch.set_num_threads(1)
    splits.clear()
    train(200, 2048)
    assert splits == [(1, 512)] * 2
    TEAM._alone_until = float("inf")
    torch.set_num_threads(2)
    train(200, 2048)
    assert splits == [(1, 512)] * 4


@pytest.mark.usefixtures("with_threads")
@pytest.mark.parametrize("num_lanes", [1, 63, 700, 5000])
def test_bits_do_not_depend_on_threads(
    num_lanes: int, splits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "WORTH_SPLITTING", 0.0)
    torch.set_num_threads(1)
    want = train(7, num_lanes)
    for num_threads in (2, 3, 8):
        torch.set_num_threads(num_threads)
        splits.clear()
        fresh = train(7, num_lanes)
        assert all(n <= num_threads for n, _ in splits) and (num_lanes < 128 or splits[0][0] > 1)
        for got, expected in zip(fresh, want, strict=True):
            assert torch.equal(got, expected)
