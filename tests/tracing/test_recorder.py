"""What the recorder writes down of a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.errors import CoreError, FlexSNError, UnsupportedOpError
from flexsn.ir.passes import describe
from flexsn.tracing.lowering import is_known
from flexsn.tracing.recorder import Recorder, clean_context
from flexsn.tracing.tape import Tape, ValueRef

STEP = torch.Size((2, 3, 5))
outside = torch.full((3, 1), 0.5)
counter = torch.zeros(3, 1)


def record(function: Callable[..., Any], count: int = 1, backward: bool = False) -> Tape:
    arguments = {name: torch.ones(STEP, requires_grad=backward) for name in "xv"[:count]}
    recorder = Recorder(arguments, STEP, is_known)
    with clean_context(), recorder:
        result = function(*arguments.values())
        if backward:
            recorder.mark_backward()
            torch.autograd.grad(result, list(arguments.values()), torch.ones(STEP))
    return recorder.tape


def names(tape: Tape) -> list[str]:
    return [call.name for call in tape.calls]


def test_arguments_come_first_and_what_depends_on_them_is_live() -> None:
    tape = record(lambda x: (x + outside) * outside.exp())
    assert tape.arguments == ["x"] and tape.tensors[0].shape == STEP
    assert {i: t is outside for i, t in tape.captured.items()} == {1: True}
    results = {call.name: call.results[0].index for call in tape.calls}
    assert tape.live == {0, results["add"], results["mul"]} and results["exp"] not in tape.live


def test_the_same_tensor_from_outside_is_captured_once() -> None:
    tape = record(lambda x: x * outside + outside)
    assert len(tape.captured) == 1
    assert [call.args[1] for call in tape.calls] == [ValueRef(1), ValueRef(1)]


def test_another_object_of_the_same_memory_is_the_same_value() -> None:
    same = outside.detach()
    assert len(record(lambda x: x * outside + same).captured) == 1


@pytest.mark.parametrize("alias", [Tensor.detach, lambda x: x.view(STEP), lambda x: x.expand(STEP)])
def test_an_alias_is_the_value_itself(alias: Callable[[Tensor], Tensor]) -> None:
    tape = record(lambda x: alias(x) * x)
    assert names(tape) == ["mul"] and tape.calls[0].args == (ValueRef(0), ValueRef(0))


def test_a_literal_is_told_from_a_captured_tensor() -> None:
    tape = record(lambda x: x * torch.tensor(2.0) + outside)
    assert {i: tape.captured[i].tolist() for i in tape.literals} == {1: 2.0}
    assert len(tape.captured) == 2


@pytest.mark.parametrize("make", [torch.zeros_like, lambda x: x.new_full((), 0.0), lambda x: torch.zeros(())])
def test_a_tensor_of_one_number_is_recorded_as_that_number(make: Callable[[Tensor], Tensor]) -> None:
    first = record(lambda x: x + make(x)).calls[0]
    assert first.name == "full" and first.args[1] == 0


def test_writing_in_place_is_a_new_value_that_every_alias_sees() -> None:
    def core(x: Tensor) -> Tensor:
        h = x * 2.0
        same = h.detach()
        h.add_(1.0)
        return same * x

    tape = record(core)
    twice, added, product = tape.calls
    assert (added.name, added.args[0]) == ("add", twice.results[0])
    assert product.args[0] == added.results[0] != twice.results[0]


def test_what_a_decomposition_records_keeps_the_operator_the_user_called() -> None:
    tape = record(torch.nn.functional.mish)  # by way of softplus, which is taken apart itself
    assert len(tape.calls) > 2 and all(is_known(name) for name in names(tape))
    assert {str(call.origin) for call in tape.calls} == {"aten.mish.default"}


def test_writing_in_place_rounds_only_when_it_writes() -> None:
    def core(x: Tensor) -> Tensor:
        h = x * 2.0
        return h.mul_(torch.ones(STEP, dtype=torch.float64))

    tape = record(core)
    product = [call for call in tape.calls if call.name == "mul"][-1].results[0]
    assert tape.tensors[product.index].dtype == torch.float64
    assert tape.tensors[-1].dtype == torch.float32


def test_writing_in_place_is_taken_apart_like_the_operator_it_writes_with() -> None:
    tape = record(lambda x: torch.nn.functional.elu(x * 2.0, inplace=True))
    assert all(is_known(name) for name in names(tape)) and names(tape)[-1] == "copy"


def test_each_call_knows_the_users_line() -> None:
    def core(x: Tensor) -> Tensor:
        h = x.exp()
        return h + 1.0

    first, second = record(core).calls
    assert first.line is not None and second.line is not None
    assert (first.line.text, second.line.text) == ("h = x.exp()", "return h + 1.0")
    assert first.line.function == "core" and second.line.lineno == first.line.lineno + 1


def test_the_backward_half_is_marked() -> None:
    tape = record(lambda x: x.exp() * 2.0, backward=True)
    assert tape.num_forward == 2 and len(tape.calls) > 2
    assert "# from here on, the backward half" in describe(tape)


def changes_argument(x: Tensor) -> Tensor:
    return x.add_(1.0)


def changes_outside(x: Tensor) -> Tensor:
    return counter.add_(1.0) * x


def writes_through_a_view(x: Tensor) -> Tensor:
    h = x * 2.0
    h.view(-1).add_(1.0)
    return h


ERRORS: list[tuple[Callable[..., Any], type[FlexSNError], str]] = [
    (changes_argument, CoreError, r"the core changes its argument 'x' in place \(aten.add_.Tensor\)"),
    (changes_outside, UnsupportedOpError, "the core changes a tensor from outside in place"),
    (writes_through_a_view, UnsupportedOpError, "the core writes through a view"),
    (lambda x: x if x.sum() > 0 else -x, UnsupportedOpError, "the core turns a tensor into a Python value"),
    (lambda x: x * x.sum().item(), UnsupportedOpError, "the core turns a tensor into a Python value"),
    (lambda x: x + torch.rand_like(x), UnsupportedOpError, "draws random numbers inside the core"),
    (torch.bernoulli, UnsupportedOpError, "draws random numbers inside the core"),
]


@pytest.mark.parametrize(("function", "kind", "what"), ERRORS)
def test_what_a_core_must_not_do_is_said_with_its_line(
    function: Callable[..., Any], kind: type[FlexSNError], what: str
) -> None:
    with pytest.raises(kind, match=what) as caught:
        record(function)
    assert caught.value.where is not None and "test_recorder.py" in str(caught.value.where)


def test_the_callers_context_does_not_leak_into_a_recording() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tape = record(lambda x: x.exp() * outside, backward=True)
    assert tape.num_forward == 2 and len(tape.calls) > 2
    assert all(t.dtype == torch.float32 for t in tape.tensors)


def test_a_line_is_named_once_for_all_that_it_does_and_what_has_none_is_not() -> None:
    tape = record(lambda x: (x * 2.0 + 1.0) * x)
    assert len(tape.calls) == 3 and describe(tape).count("lambda x: (x * 2.0 + 1.0) * x") == 1
    tape.calls[1:] = [replace(call, line=None) for call in tape.calls[1:]]
    assert describe(tape).count("lambda x:") == 1
