"""The gradient of a matrix: what is skipped is zero, and the sum is as good as torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flexsn.kernels.cpp import outer
from flexsn.kernels.cpp.outer import outer_product


def factors(rows: int, size: int, share: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + size)
    fired = torch.rand(rows, size, generator=generator) < share
    return torch.randn(rows, size, generator=generator).to(dtype), fired.to(dtype)


@pytest.mark.parametrize("rows, size", [(1, 1), (7, 3), (513, 17), (1100, 100), (60, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_that_fired(rows: int, size: int, dtype: torch.dtype) -> None:
    dense, few = factors(rows, size, 0.1, dtype)
    exact = dense.double().t() @ few.double()
    near = 1e-5 if dtype == torch.float32 else 1e-13
    for found, wanted in ((outer_product(dense, few), exact), (outer_product(few, dense), exact.t())):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=near, atol=near * rows**0.5)


def test_whether_rows_are_skipped_is_decided_by_how_many_fired(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(outer, "_skipping", lambda source, other: skipped.append((source, other)) or source.t() @ other)
    dense, few = factors(600, 20, 0.1)
    many = factors(600, 20, 0.5)[1]
    for left, right in ((dense, few), (few, dense), (dense, many)):
        assert torch.equal(outer_product(left, right), left.t() @ right)
    assert [source is few for source, _ in skipped] == [True, True]


def test_no_rows() -> None:
    assert not outer_product(torch.zeros(0, 5), torch.zeros(0, 5)).any()


def test_the_number_of_threads_makes_no_difference() -> None:
    dense, few = factors(1500, 70, 0.1)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(outer_product(dense, few))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
