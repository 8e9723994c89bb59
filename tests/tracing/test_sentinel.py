"""The shape a core is traced at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.tracing.questions import AsksShape
from flexsn.tracing.sentinel import Sentinel, find_sentinel


def sentinel_of(core: Callable[..., Any], count: int = 2, step_shape: tuple[int, ...] | None = None) -> Sentinel:
    shape = None if step_shape is None else torch.Size(step_shape)
    return find_sentinel(core, (torch.float32,) * count, torch.device("cpu"), shape)


def reading(*shape: int) -> Sentinel:
    parameter = torch.ones(shape)
    return sentinel_of(lambda x, v: (v + x * parameter, v))


CASES = {
    # of a parameter: the step's own dimensions, which of them are free, and the smallest step
    (): ((2, 3, 5), (True, True, True), ()),
    (1,): ((2, 3, 5), (True, True, True), ()),
    (4,): ((2, 3, 4), (True, True, False), (4,)),
    (4, 1, 1): ((2, 4, 3, 5), (True, False, True, True), (4, 1, 1)),
    (4, 1): ((2, 4, 3), (True, False, True), (4, 1)),
    (4, 6, 8): ((2, 4, 6, 8), (True, False, False, False), (4, 6, 8)),
    (1, 4): ((2, 3, 4), (True, True, False), (4,)),
}


@pytest.mark.parametrize("parameter", CASES)
def test_parameters_keep_their_sizes_and_every_other_dimension_is_free(parameter: tuple[int, ...]) -> None:
    found = reading(*parameter)
    assert (tuple(found.shape), found.free, tuple(found.param_shape)) == CASES[parameter]


def test_a_core_without_parameters_has_a_shape_too() -> None:
    assert sentinel_of(lambda x: x.exp(), 1).shape == reading().shape


def test_parameters_broadcast_against_each_other() -> None:
    a, b = torch.ones(4, 1), torch.ones(6)
    found = sentinel_of(lambda x, v: (v + a * x, v * b))
    assert (tuple(found.shape), found.free) == ((2, 4, 6), (True, False, False))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_free_dimensions_take_primes_that_no_tensor_has(size: int) -> None:
    found = reading(size, 1)
    free = [n for n, is_free in zip(found.shape, found.free, strict=True) if is_free]
    assert size not in free and len(set(free)) == len(free) and all(math.gcd(n, size) == 1 for n in free)


def test_sizes_met_inside_the_core_count_as_well() -> None:
    table = torch.ones(2, 3)
    assert sentinel_of(lambda x, v: (v + table.sum() * x, v)).shape == torch.Size((5, 7, 11))


def test_a_core_that_fails_on_one_value_is_asked_again_at_the_size_of_what_it_read() -> None:
    parameter = torch.ones(4)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if (x * parameter).shape != x.shape:
            raise RuntimeError("too small")
        return v + x * parameter, v

    assert tuple(sentinel_of(core, step_shape=(9, 9, 4)).shape) == (2, 3, 4)


def test_a_core_that_needs_one_size_to_reach_another_grows_until_it_has_both() -> None:
    first, second = torch.ones(4), torch.ones(6, 1)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = x + first
        if h.shape != x.shape:
            raise RuntimeError("too small")
        return h * second, v

    assert tuple(sentinel_of(core, step_shape=(9, 6, 4)).shape) == (2, 6, 4)


def test_a_core_that_adds_a_dimension_each_time_is_not_followed_for_ever() -> None:
    found = sentinel_of(lambda x, v: (torch.stack([x, x]), v))
    assert len(found.shape) <= 7


def test_sizes_that_contradict_each_other_leave_the_shape_as_it_was() -> None:
    a, b = torch.ones(4), torch.ones(6)
    assert sentinel_of(lambda x, v: (x * a, v * b)).param_shape == torch.Size(())


def test_a_core_that_asks_for_the_shape_gets_as_many_dimensions_as_the_call_has() -> None:
    with pytest.raises(AsksShape):
        sentinel_of(lambda x, v: (x / x.shape[-1], v))
    assert tuple(sentinel_of(lambda x, v: (x / x.shape[-1], v), step_shape=(9,)).shape) == (2,)
    assert tuple(sentinel_of(lambda x, v: (x / x.shape[-1], v), step_shape=(9, 9, 9, 9)).shape) == (2, 3, 5, 7)


def test_a_matrix_and_a_parameter_of_another_dimension() -> None:
    weight, channels = torch.ones(6, 6), torch.ones(4, 1)
    sentinel = sentinel_of(lambda x, v: (x @ weight + v * channels, v))
    assert tuple(sentinel.shape) == (2, 4, 6) and tuple(sentinel.param_shape) == (4, 6)


def test_a_parameter_of_what_is_not_returned_counts_too() -> None:
    weight = torch.ones(5)

    def core(x: Tensor) -> Tensor:
        torch.lt(weight, x)
        return x

    sentinel = find_sentinel(core, [torch.float32], torch.device("cpu"), torch.Size((3, 5)))
    assert sentinel.param_shape == (5,)


def test_a_core_that_asks_a_value_for_its_shape_before_the_examples_hold_it_grows_by_that_value() -> None:
    matrix = torch.ones(4, 4)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.einsum("...j,ij->...i", x, matrix)  # at one lane it broadcasts
        return (h if h.dim() == 2 else v), v

    assert tuple(sentinel_of(core, step_shape=(3, 4)).shape) == (2, 4)


def test_a_convolution_and_a_parameter_of_every_lane() -> None:
    """Its places are open until the parameter says how many there are."""
    layer, each = torch.nn.Conv2d(3, 3, 3, padding=1), torch.ones(3, 4, 6)
    found = sentinel_of(lambda x, v: (v, layer(v) + x * each))
    assert (found.shape, found.param_shape) == (torch.Size([2, 3, 4, 6]), (3, 4, 6))
