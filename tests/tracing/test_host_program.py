"""Recorded torch calls, replayed as one function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.ir.step import Ref
from flexsn.tracing.host_program import HostProgram


def counted(calls: list[str], function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return run


def test_the_same_call_on_the_same_values_is_one_value() -> None:
    host = HostProgram()
    w = host.leaf("w")
    assert host.leaf("w") == w != host.leaf("u")
    assert host.call(torch.sum, (w, [0]), {"keepdim": True}) == host.call(torch.sum, (w, (0,)), {"keepdim": True})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ((1, 2), (2, 1))])
def test_arguments_that_only_compare_equal_are_other_calls(one: Any, other: Any) -> None:
    host = HostProgram()
    w = host.leaf("w")
    assert host.call(torch.mul, (w, one), {}) != host.call(torch.mul, (w, other), {})


def test_a_program_computes_what_is_wanted_once_and_nothing_else() -> None:
    host, calls = HostProgram(), []  # type: ignore[var-annotated]
    w = host.leaf("w")
    shared = host.call(counted(calls, torch.exp), (w,), {})
    twice = host.call(counted(calls, torch.add), (shared, shared), {})
    host.call(counted(calls, torch.sin), (shared,), {})
    value = torch.tensor([0.5, 1.0])
    got = host.program([twice, shared, w], [w])(value)
    assert calls == ["exp", "add"]
    assert torch.equal(got[0], value.exp() * 2) and torch.equal(got[1], value.exp()) and got[2] is value


def test_a_program_is_a_function_of_the_leaves_it_is_given_in_their_order() -> None:
    host = HostProgram()
    a, b = host.leaf("a"), host.leaf("b")
    difference = host.call(torch.sub, (a, b), {"alpha": 2.0})
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    (forth,), (back,) = host.program([difference], [a, b])(one, two), host.program([difference], [b, a])(one, two)
    assert (forth.item(), back.item()) == (-3.0, 0.0)


def test_a_program_made_early_does_not_change_as_more_is_recorded() -> None:
    host = HostProgram()
    w = host.leaf("w")
    early = host.program([host.call(torch.neg, (w,), {})], [w])
    host.call(torch.exp, (w,), {})
    assert early(torch.ones(()))[0].item() == -1.0


@pytest.mark.parametrize(
    "value", [math.inf, -0.0, 0.1, True, None, torch.float64, [2, -1], "floor"], ids=lambda value: str(value)
)
def test_arguments_arrive_as_they_were_recorded(value: Any) -> None:
    host, got = HostProgram(), []  # type: ignore[var-annotated]

    def arrive(w: Tensor, *args: Any, **kwargs: Any) -> None:
        got.extend([*args, *kwargs.values()])

    call = host.call(arrive, (host.leaf("w"), value), {"k": value})
    host.program([call], [host.leaf("w")])(torch.ones(()))
    assert [repr(v) for v in got] == [repr(value)] * 2


def test_values_may_stand_in_lists() -> None:
    host = HostProgram()
    a, b = host.leaf("a"), host.leaf("b")
    joined = host.call(torch.cat, ([a, host.call(torch.neg, (b,), {})],), {"dim": 0})
    (got,) = host.program([joined], [a, b])(torch.ones(1), torch.ones(2))
    assert got.tolist() == [1.0, -1.0, -1.0]


def test_nothing_wanted_is_nothing_computed() -> None:
    def fails(w: Tensor) -> Tensor:
        raise AssertionError

    host = HostProgram()
    host.call(fails, (host.leaf("w"),), {})
    assert host.program([], [Ref(0)])(torch.ones(())) == ()
