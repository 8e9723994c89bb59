"""Captures.unchanged: every constant the same object, every container of the same content, tensors still tensors."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from reading_cores import CASES, restore_globals
from torch import Tensor

from flexsn.captures.guards import Captures


@pytest.fixture(autouse=True)
def globals_as_they_were() -> Any:
    yield
    restore_globals()


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen(name: str) -> None:
    core, change = CASES[name]()
    before = Captures(core)
    assert before.unchanged()
    assert Captures(core).key == before.key
    change()
    assert not before.unchanged()
    assert Captures(core).key != before.key


def test_minus_zero_and_types_make_different_kernels() -> None:
    held, keys = SimpleNamespace(), []
    core = lambda x, v: (x * held.gain, v)  # noqa: E731
    for gain in (0.0, -0.0, 0, False, 0.0):
        held.gain = gain
        keys.append(Captures(core).key)
    assert len(set(keys)) == 4
    assert keys[0] == keys[-1]


def test_an_equal_object_is_another_constant() -> None:
    held = SimpleNamespace(gain=float("2.5"))
    captures = Captures(lambda x, v: (x * held.gain, v))
    held.gain = float("2.5")
    assert not captures.unchanged()
    assert Captures(lambda x, v: (x * held.gain, v)).key == captures.key  # so nothing is compiled anew


@pytest.mark.parametrize("others", [0, 300])  # more than one expression
def test_the_tensors_come_as_they_are_now_one_per_source(others: int) -> None:
    shared, numbers = torch.ones(1), {str(i): float(i) for i in range(others)}
    held = SimpleNamespace(a=torch.ones(3), b=shared, c=shared, **numbers)
    captures = Captures(lambda x, v: (x * held.a * held.b * held.c + sum(vars(held)[key] for key in numbers), v))
    held.a = torch.zeros(3)
    read = captures.read()
    assert read is not None
    assert [source.name for source in captures.tensors] == ["held.a", "held.b", "held.c"]
    assert all(map(is_, read, (held.a, shared, shared)))
    held.c = torch.ones(1)
    assert captures.read() is None


def test_tensors_may_be_replaced_by_tensors_only() -> None:
    held = SimpleNamespace(gain=torch.ones(3))
    captures = Captures(lambda x, v: (x * held.gain, v))
    held.gain = torch.zeros(3)
    assert captures.unchanged()
    held.gain = 1.0
    assert not captures.unchanged()


def two_tensors(first: Tensor, second: Tensor) -> tuple[SimpleNamespace, Captures]:
    held = SimpleNamespace(first=first, second=second)
    return held, Captures(lambda x, v: (x * held.first + held.second, v))


def test_a_shared_tensor_is_replaced_in_both_places_or_seen() -> None:
    shared = torch.ones(3)
    held, captures = two_tensors(shared, shared)
    held.first = held.second = torch.zeros(3)
    assert captures.unchanged()
    held.second = torch.zeros(3)
    assert not captures.unchanged()


def test_two_tensors_that_become_one_are_seen() -> None:
    held, captures = two_tensors(torch.ones(3), torch.zeros(3))
    held.first, held.second = held.second, held.first
    assert captures.unchanged()
    held.second = held.first
    assert not captures.unchanged()


def test_an_array_of_another_shape_is_seen() -> None:
    array = np.array([1.0, 2.0])
    captures = Captures(lambda x, v: (x * array.sum(), v))
    array.shape = (2, 1)
    assert not captures.unchanged()


def emptied_cell() -> tuple[Any, Callable[[], None]]:
    gain = 2.0

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * gain, v

    def empty() -> None:
        nonlocal gain
        del gain

    return core, empty


def test_what_is_gone_is_seen() -> None:
    held = SimpleNamespace(gain=2.0)
    captures = Captures(lambda x, v: (x * held.gain, v))
    del held.gain
    assert not captures.unchanged()
    core, empty = emptied_cell()
    captures = Captures(core)
    empty()
    assert not captures.unchanged()


def test_what_was_absent_and_appears_is_seen() -> None:
    held = SimpleNamespace()
    captures = Captures(lambda x, v: (x * getattr(held, "gain", 1.0), v))
    assert captures.unchanged()
    held.gain = 2.0
    assert not captures.unchanged()


def test_a_core_that_reads_nothing_never_changes() -> None:
    assert Captures(lambda x, v: (x, v)).unchanged()


def test_a_parameter_is_named_after_its_first_source() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    held = SimpleNamespace(weight=weight, plain=torch.ones(3))
    captures = Captures(lambda x, v: (x * weight * held.weight * held.plain, v))
    assert list(captures.parameters()) == [("weight", weight)]
    assert sorted(source.name for source in captures.tensors) == ["held.plain", "held.weight", "weight"]
