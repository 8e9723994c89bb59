"""Whatever stands in for a parameter, for a call or for good, is what the core reads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from parameter_cores import X, gain, loop_gradient, make, step
from torch import nn

from flexsn import FlexSN


@pytest.mark.parametrize("name", ["closure", "list", "tuple", "object", "default", "partial argument", "module"])
def test_functional_call_uses_the_given_tensor_and_forgets_it(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    before = neuron(X)
    neuron.reset()
    given = torch.tensor([2.0, 0.0, 1.0], requires_grad=True)
    y = torch.func.functional_call(neuron, {parameter: given * 1.0}, (X,))
    y.square().sum().backward()
    expected, grad = loop_gradient(X, given)
    assert torch.equal(y, expected)
    assert given.grad is not None
    torch.testing.assert_close(given.grad, grad)
    neuron.reset()
    assert torch.equal(neuron(X), before)


@pytest.mark.parametrize("name", ["closure", "tuple", "global", "partial keyword", "module", "bound method"])
def test_a_replaced_parameter_counts(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    neuron(X)
    neuron.reset()
    fresh = nn.Parameter(torch.tensor([2.0, 0.0, 1.0]))
    owner = neuron.get_submodule(parameter.rpartition(".")[0])
    setattr(owner, parameter.rpartition(".")[2], fresh)
    y = neuron(X)
    y.square().sum().backward()
    expected, grad = loop_gradient(X, fresh)
    assert torch.equal(y, expected)
    assert fresh.grad is not None
    torch.testing.assert_close(fresh.grad, grad)


def test_load_state_dict_assign(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    neuron(X)
    neuron.reset()
    neuron.load_state_dict({parameter: torch.tensor([2.0, 0.0, 1.0])}, assign=True)
    assert torch.equal(neuron(X), loop_gradient(X, torch.tensor([2.0, 0.0, 1.0]))[0])


def test_a_rebound_variable_counts_too(backend: str) -> None:
    held = SimpleNamespace(weight=gain())
    neuron = FlexSN(lambda x, v: step(x, v, held.weight), backend=backend)
    neuron(X)
    neuron.reset()
    held.weight = nn.Parameter(torch.tensor([2.0, 0.0, 1.0]))
    assert torch.equal(neuron(X), loop_gradient(X, held.weight)[0])
    assert neuron.held_weight is held.weight


def test_second_derivative_after_the_parameter_was_swapped_out(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    given = torch.tensor([2.0, 0.5, 1.0], requires_grad=True)
    x = X.clone().requires_grad_()
    y = torch.func.functional_call(neuron, {parameter: given}, (x,))
    (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (mixed,) = torch.autograd.grad(grad.sum(), given)
    loop, _ = make("closure", "torch")
    y = torch.func.functional_call(loop, {parameter: given}, (x,))
    (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(mixed, torch.autograd.grad(grad.sum(), given)[0])


def test_one_replaced_before_the_first_call_has_no_second_name(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    fresh = nn.Parameter(torch.tensor([2.0, 0.0, 1.0]))
    setattr(neuron, parameter, fresh)
    neuron(X).square().sum().backward()
    assert dict(neuron.named_parameters()).keys() == {parameter}
    assert fresh.grad is not None
