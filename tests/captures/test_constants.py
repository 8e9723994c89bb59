"""A number a core reads is a constant of its kernel: a change of it takes effect at the next call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reading_cores import CASES, closure_cell, restore_globals
from torch import Tensor

from flexsn import FlexSN


@pytest.fixture(autouse=True)
def globals_as_they_were() -> Any:
    yield
    restore_globals()


@pytest.mark.parametrize("name", ["attribute", "closure cell", "global", "surrogate alpha", "dict item"])
def test_a_change_takes_effect_at_the_next_call(name: str, backend: str) -> None:
    core, change = CASES[name]()
    x = torch.linspace(-1, 1, 6).reshape(3, 2).requires_grad_()

    def run(chosen: str) -> tuple[Tensor, Tensor]:
        y = FlexSN(core, backend=chosen)(x)
        return y.detach(), torch.autograd.grad(y.sum(), x)[0]

    neuron = FlexSN(core, backend=backend)
    neuron(x)
    change()
    neuron.reset()
    y = neuron(x)
    expected, expected_grad = run("torch")
    assert torch.equal(y, expected)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected_grad)


def test_a_change_between_forward_and_backward_belongs_to_the_next_call(backend: str) -> None:
    core, change = closure_cell()
    x = torch.ones(3, 2, requires_grad=True)
    y = FlexSN(core, backend=backend)(x)
    change()
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((3, 2), 2.0))


@pytest.mark.parametrize("shared_first", [True, False])
def test_names_that_share_a_tensor_and_then_do_not(shared_first: bool, backend: str) -> None:
    ones, twos = torch.ones(3), torch.full((3,), 2.0)
    held = SimpleNamespace(gain=ones, bias=ones)
    neuron = FlexSN(lambda x, v: (x * held.gain + held.bias, v), backend=backend)
    x = torch.full((2, 3), 4.0)
    for bias in (ones, twos) if shared_first else (twos, ones, twos):
        held.bias = bias
        for steps in (2, 1):  # the second is another call of the same trace
            neuron.reset()
            assert torch.equal(neuron(x[:steps]), x[:steps] + bias)
