"""Runs of one form: which of their numbers differ, and whether the trace of one serves another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.ir.graph import Node, topological
from flexsn.tracing.families import Family
from flexsn.tracing.runs import told_apart
from flexsn.tracing.tracer import Tracer

F32 = torch.float32
Core = Callable[..., Any]


def core(gain: float, bias: float = 2.0, mean: bool = False) -> Core:
    def step(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y = x * gain + bias
        return (y - 1.0 if mean else y), v

    return step


def trace(core: Core, *numbers: float, on_gpu: bool = False) -> Tracer:
    return Tracer(core, (F32,), (F32,), torch.device("cpu"), on_gpu, numbers=numbers)


def test_the_numbers_of_a_run_and_its_form() -> None:
    runs = [trace(core(*given)).run(False) for given in ((0.5,), (0.75, 3.0), (0.5, 2.0, True))]
    assert [run.numbers for run in runs] == [(0.5, 2.0), (0.75, 3.0), (0.5, 2.0, 1.0)]
    assert runs[0].form == runs[1].form != runs[2].form
    assert runs[0].same_as(trace(core(0.5)).run(False)) and not runs[0].same_as(runs[1])


@pytest.mark.parametrize(
    "given, expected",
    [
        (((0.5,), (0.75,), (1.5,)), (1.5,)),
        (((0.5, 1.0), (0.75, 2.0), (1.5, 3.0)), (1.5, 3.0)),
        (((0.5, 0.5), (0.75, 0.75)), (0.75,)),  # one number in two places
        (((0.5,), (2.0,)), None),  # is it the number, or the constant 2.0 beside it?
        (((0.5, 1.0), (0.75, 0.75)), None),  # two numbers that happen to agree
        (((0.0,), (-0.0,)), (-0.0,)),
        (((0.5,), (0.5,)), ()),
    ],
)
def test_which_numbers_are_told_apart(given: Any, expected: tuple[float, ...] | None) -> None:
    found = told_apart([trace(core(*numbers)).run(False) for numbers in given])
    assert repr(found) == repr(expected)


def test_a_trace_serves_what_differs_in_its_arguments_alone() -> None:
    tracer = trace(core(0.5), 0.5)

    def values(other: Core) -> list[float] | None:
        captured = tracer.counterparts(tracer.run_again(other, False), False)
        return None if captured is None else [t.item() for t in captured]

    assert values(core(0.75)) == [0.75]
    assert values(core(2.0)) == [2.0]  # equal to a constant, in places of its own
    assert values(core(0.75, 3.0)) is None
    assert values(core(0.75, mean=True)) is None
    assert values(core(float("inf"))) is None


def test_the_third_value_is_when_it_becomes_an_argument() -> None:
    family: Family[str] = Family(backward=False)
    found = [family.enter(trace(core(gain)), str(gain)) for gain in (0.5, 0.75, 1.5)]
    assert found == [(), (), (1.5,)]
    served = family.serving(core(0.75))
    assert served is not None and served[0] == "0.75"
    assert family.serving(core(2.5)) is None
    family.enter(trace(core(1.5), 1.5), "argument")
    served = family.serving(core(2.5))
    assert served is not None and served[0] == "argument"


@pytest.mark.parametrize("on_gpu, expected", [(False, ["cast", "div"]), (True, ["cast", "div", "mul"])])
def test_an_argument_is_divided_by_as_eager_divides_by_a_number(on_gpu: bool, expected: list[str]) -> None:
    tracer = trace(lambda x, v: (x / 3.0, v), 3.0, on_gpu=on_gpu)
    nodes: list[Node] = topological(tracer.graph.outputs)
    assert [node.op for node in nodes if not node.is_leaf] == expected
