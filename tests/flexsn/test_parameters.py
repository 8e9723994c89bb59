"""Every nn.Parameter a core reaches is the neuron's: registered, named, trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from parameter_cores import CORES, Parent, Returned, X, gain, loop_gradient, make
from torch import Tensor, nn

from flexsn import FallbackWarning, FlexSN, surrogate


@pytest.mark.parametrize("name", CORES)
def test_registered_before_any_data_is_seen(name: str) -> None:
    neuron, parameter = make(name, "torch")
    named = {n: p for n, p in neuron.named_parameters() if "unused" not in n}
    assert list(named) == [parameter]
    assert list(neuron.state_dict())[:1] == [parameter]


@pytest.mark.parametrize("name", CORES)
def test_trains(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    weight = neuron.get_parameter(parameter)
    weight.grad = None
    y = neuron(X)
    y.square().sum().backward()
    expected, grad = loop_gradient(X, weight)
    assert torch.equal(y, expected)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-6)
    torch.optim.SGD(neuron.parameters(), lr=0.1).step()
    neuron.reset()
    assert torch.equal(neuron(X), loop_gradient(X, weight)[0])


def test_a_bound_method_does_not_make_its_module_a_child() -> None:
    parent = Parent()
    assert [name for name, _ in parent.neuron.named_modules()] == [""]
    assert list(dict(parent.neuron.named_parameters())) == ["weight"]


def test_names_are_unique_and_clash_with_nothing() -> None:
    v, backend, first, second = gain(), gain(), [gain()], [gain()]

    def core(x: Tensor, v_: Tensor) -> Returned:
        def other(first: list[nn.Parameter]) -> Tensor:
            return first[0] * second[0]

        return x * v + backend, v_ * other(first)

    neuron = FlexSN(core)
    assert sorted(n for n, _ in neuron.named_parameters()) == ["backend_1", "first_0", "second_0", "v"]
    assert neuron.backend == "auto"

    def clashing(x: Tensor, w: Tensor) -> Returned:
        return x * held.w, w

    held = SimpleNamespace(w=gain())
    assert [n for n, _ in FlexSN(clashing).named_parameters()] == ["held_w"]
    w = gain()

    def inner(x: Tensor) -> Tensor:
        return x * w

    neuron = FlexSN(lambda x, w: (inner(x), w))  # a parameter called as the state
    assert [n for n, _ in neuron.named_parameters()] == ["w_1"]


def test_shared_parameters_are_registered_once() -> None:
    weight = gain()
    weights = [weight]
    neuron = FlexSN(lambda x, v: (x * weight * weights[0], v))
    assert len(list(neuron.parameters())) == 1
    neuron.weight = nn.Parameter(torch.zeros(3))
    assert not neuron(X).any()
    assert weights[0] is neuron.weight


def test_a_surrogate_parameter_is_found(backend: str) -> None:
    spike = surrogate.ATan(alpha=nn.Parameter(torch.tensor(2.0)))
    neuron = FlexSN(lambda x, v: (spike(x + v - 1.0), v), backend=backend)
    assert [n for n, _ in neuron.named_parameters()] == ["spike_alpha"]
    neuron(X).sum().backward()
    assert neuron.spike_alpha.grad is not None


def test_to_moves_the_parameters(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    y = neuron.double()(X.double())
    assert neuron.get_parameter(parameter).dtype == y.dtype == torch.float64


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (70,)])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_lanes_that_do_not_exist_add_nothing(backend: str, shape: tuple[int, ...], num_steps: int) -> None:
    """The last block of lanes is padded with zeros, whose logarithm is no number."""
    weight = nn.Parameter(torch.full(shape, 0.5, dtype=torch.float64))

    def core(x: Tensor, v: Tensor) -> Returned:
        h = v * 0.5 + weight * x.log()
        return h, h

    x = torch.linspace(1.0, 2.0, num_steps * 350, dtype=torch.float64).reshape(num_steps, 5, 70)
    found = []
    for chosen in (backend, "torch"):
        FlexSN(core, backend=chosen)(x).sum().backward()
        found.append(weight.grad)
        weight.grad = None
    torch.testing.assert_close(found[0], found[1], rtol=1e-14, atol=0)


def test_literals_of_the_shape_of_a_parameter(backend: str) -> None:
    weight = nn.Parameter(torch.tensor(1.5))

    def core(x: Tensor, v: Tensor) -> Returned:
        level = torch.nn.functional.hardtanh(torch.full_like(weight, 3.0)) * weight
        return x * level, v + level

    found = [FlexSN(core, backend=b)(X) for b in (backend, "torch")]
    assert torch.equal(*found)


def test_a_parameter_whose_gradient_is_zero(backend: str) -> None:
    for shape in ((), (3,)):
        weight = nn.Parameter(torch.full(shape, 1.5))
        y = FlexSN(lambda x, v, w=weight: (x * v, w.floor() + 0.5 * v), backend=backend)(X)
        y.sum().backward()
        assert weight.grad is not None and weight.grad.shape == shape and not weight.grad.any()


class Boxcar(torch.autograd.Function):
    """Spikes of a membrane, with a slope of 1 over a learnable width that only the backward half reads."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, width: Tensor) -> Tensor:
        ctx.save_for_backward(v, width)
        return (v >= 0).to(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        v, width = ctx.saved_tensors
        inside = (v.abs() < width).to(v)
        return grad * inside, (grad * inside * v).sum()


def boxcar(x: Tensor, v: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    h = v * torch.tensor([0.5, 0.25]) + x  # a literal of the lanes beside it
    s: Tensor = Boxcar.apply(h - 1.0, width)
    return s, h * (1.0 - s)


@pytest.mark.parametrize("needs", [True, False])
def test_a_parameter_that_only_the_backward_half_reads(backend: str, needs: bool) -> None:
    gradients = []
    for where in (backend, "torch"):
        width = nn.Parameter(torch.tensor(0.75))
        x = (torch.arange(24.0) / 8).view(3, 4, 2).requires_grad_(needs)
        FlexSN(lambda x, v, w=width: boxcar(x, v, w), backend=where)(x).sum().backward()
        gradients.append((x.grad, width.grad))
    (grad_x, grad_width), (expected_x, expected_width) = gradients
    assert grad_width is not None and torch.equal(grad_width, expected_width)
    assert torch.equal(grad_x, expected_x) if needs else grad_x is None


def test_what_only_the_backward_half_reads_and_was_computed_outside_is_the_loops() -> None:
    root = nn.Parameter(torch.tensor(0.375))
    width = root * 2.0
    neuron = FlexSN(lambda x, v: boxcar(x, v, width))
    x = (torch.arange(24.0) / 8).view(3, 4, 2)
    with pytest.warns(FallbackWarning, match="hands autograd the result of MulBackward0 without reading its value"):
        neuron(x).sum().backward()
    assert root.grad is not None and root.grad != 0
