"""Spike clusters and first spikes, against definitions written as plainly as possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexsn.functional import (
    first_spike_index,
    spike_cluster,
)


def clusters_of(times: list[int], T_in: int) -> list[list[int]]:
    found: list[list[int]] = []
    for t in times:
        if found and t - found[-1][-1] <= T_in:
            found[-1].append(t)
        else:
            found.append([t])
    return found


def brute_force(v: np.ndarray, threshold: np.ndarray, T_in: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    T, N = v.shape
    counts, k_positive, k_negative = [], np.zeros((T, N), bool), np.zeros((T, N), bool)
    for n in range(N):
        times = [t for t in range(T) if v[t, n] >= threshold[n]]
        clusters = clusters_of(times, T_in)
        counts.append(len(clusters))
        if clusters:
            k_negative[min(clusters, key=len)[-1], n] = True  # min() keeps the first of equals
        free = [t for t in range(T) if all(abs(t - other) > T_in for other in times)]
        if free:
            k_positive[max(free, key=lambda t: v[t, n]), n] = True  # so does max()
    return counts, k_positive, k_negative


@settings(deadline=None, max_examples=300)
@given(
    data=st.data(),
    T=st.integers(1, 14),
    N=st.integers(1, 4),
    T_in=st.integers(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_spike_cluster_is_its_definition(data: Any, T: int, N: int, T_in: int, dtype: torch.dtype) -> None:
    # Few distinct values, so that ties and equal clusters are common.
    levels = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5])
    rows = data.draw(st.lists(st.lists(levels, min_size=N, max_size=N), min_size=T, max_size=T))
    threshold = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0]), min_size=N, max_size=N)))
    v = torch.tensor(rows, dtype=dtype)
    n_o, k_positive, k_negative = spike_cluster(v, torch.from_numpy(threshold), T_in)
    counts, positive, negative = brute_force(v.numpy(), threshold, T_in)
    assert n_o.tolist() == counts and n_o.dtype == dtype
    assert k_positive.dtype == k_negative.dtype == torch.bool
    np.testing.assert_array_equal(k_positive.numpy(), positive)
    np.testing.assert_array_equal(k_negative.numpy(), negative)


def test_spike_cluster_corner_cases() -> None:
    quiet = torch.full((5, 2), -3.0)
    n_o, k_positive, k_negative = spike_cluster(quiet, 1.0, 2)
    assert n_o.tolist() == [0.0, 0.0] and not k_negative.any()
    assert k_positive.nonzero().tolist() == [[0, 0], [0, 1]]
    busy = torch.ones(5, 2, requires_grad=True)
    n_o, k_positive, k_negative = spike_cluster(busy, 1.0, 0)
    assert n_o.tolist() == [5.0, 5.0] and not k_positive.any() and not n_o.requires_grad
    assert k_negative.nonzero().tolist() == [[0, 0], [0, 1]]
    n_o, k_positive, k_negative = spike_cluster(torch.ones(4, 2, 3), 1.0, 1)  # further dimensions
    assert n_o.tolist() == [[1.0] * 3] * 2 and k_negative.shape == (4, 2, 3)
    lone = torch.tensor([[1.0, 5.0], [0.9, 5.0], [0.0, 5.0]])  # the candidate is the lowest value of all
    assert spike_cluster(lone, 1.0, 1)[1].nonzero().tolist() == [[2, 0]]
    assert spike_cluster(lone, 1.0, 0)[0].tolist() == [1.0, 3.0]


def test_spike_cluster_huge_gap_and_numpy_free_input() -> None:
    v = torch.zeros(50, 1)
    v[[0, 40]] = 2.0
    for T_in, expected in ((39, 2.0), (40, 1.0), (10**6, 1.0)):
        assert spike_cluster(v, 1.0, T_in)[0].item() == expected


def test_spike_cluster_errors() -> None:
    with pytest.raises(ValueError, match=r"v must be a floating-point tensor \[T, N\] with T >= 1"):
        spike_cluster(torch.zeros(3), 1.0, 1)
    with pytest.raises(ValueError, match=r"got torch.float32 of shape \(0, 2\)"):
        spike_cluster(torch.zeros(0, 2), 1.0, 1)
    for T_in in (-1, 1.5, True):
        with pytest.raises(ValueError, match=rf"T_in must be an integer >= 0, got {T_in}"):
            spike_cluster(torch.zeros(3, 1), 1.0, T_in)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=5, max_size=5), min_size=1, max_size=4))
def test_first_spike_index_is_its_definition(rows: list[list[int]]) -> None:
    expected = [[v != 0 and not any(row[:t]) for t, v in enumerate(row)] for row in rows]
    for dtype in (torch.float32, torch.int64, torch.bool):
        spikes = torch.tensor(rows).to(dtype)
        assert first_spike_index(spikes).tolist() == expected
        assert first_spike_index(spikes[:, None]).tolist() == [[row] for row in expected]
