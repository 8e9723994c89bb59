"""States given as numbers, cut, recomputed by checkpointing, left from the batch before, changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flexsn import CoreError, FlexSN, GradientError, functional, surrogate
from flexsn.neurons import BaseNode
from flexsn.neurons.spikingjelly import LIFNode

spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


@pytest.mark.parametrize("number", [0.5, 2, np.float32(0.25), np.int64(1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_state_set_to_a_number_starts_there(number: float, dtype: torch.dtype, backend: str) -> None:
    x = torch.rand(4, 3, dtype=dtype)
    neuron, other = FlexSN(lif, backend=backend), FlexSN(lif, backend=backend)
    neuron.v = number
    assert neuron.v == number
    other.states = torch.full((3,), float(number), dtype=dtype)
    assert torch.equal(neuron(x), other(x))
    assert torch.equal(neuron.v, other.v)
    neuron.reset()
    assert neuron.v is None
    other.reset()
    assert torch.equal(neuron(x), other(x))


def test_a_parameter_is_a_state_as_any_tensor(backend: str) -> None:
    start = nn.Parameter(torch.tensor([0.25, 0.5, 1.0]))
    neuron = FlexSN(lif, backend=backend)
    neuron.v = start
    assert list(neuron.parameters()) == []
    neuron(torch.ones(1, 3)).sum().backward()
    assert start.grad is not None and start.grad.all()


def test_in_the_middle_it_goes_on_from_there(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend)
    neuron(torch.ones(2, 3))
    neuron.v = 0.25
    assert neuron.v.tolist() == [0.25] * 3
    with pytest.raises(ValueError, match="the step shape changed"):
        neuron(torch.ones(2, 4))


@pytest.mark.parametrize("value", ["0.5", None, [0.5]])
def test_anything_else_is_refused(value: Any) -> None:
    neuron = FlexSN(lif)
    with pytest.raises(ValueError, match=r"the state v must be a tensor or a number, got"):
        neuron.v = value
    assert neuron.v is None


class Beside(FlexSN):
    """``b`` is a state, ``self.b`` a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.b = 0.5

    def core(self, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return b + x * self.b, b + x


def test_a_constant_may_have_the_name_of_a_state(backend: str) -> None:
    neuron = Beside()
    neuron.backend = backend
    assert neuron(torch.ones(2, 1)).flatten().tolist() == [0.5, 1.5]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_block_resets_or_is_told_to(use_reentrant: bool, backend: str) -> None:
    linear, neuron = nn.Linear(3, 3), FlexSN(lif, backend=backend)
    x = torch.randn(4, 3, requires_grad=True)

    def block(x: Tensor) -> Tensor:
        neuron.reset()
        return torch.cat([neuron(linear(x)), neuron(linear(x))])

    for _ in range(2):
        got = torch.autograd.grad(checkpoint(block, x, use_reentrant=False).sum(), linear.weight)
        want = torch.autograd.grad(block(x).sum(), linear.weight)
        assert torch.equal(got[0], want[0])
    neuron.reset()
    y = checkpoint(lambda x: neuron(linear(x)), x, use_reentrant=use_reentrant)
    with pytest.raises(GradientError, match=r"FlexSN runs again during a backward pass[\s\S]*reset\(\) at the start"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_first_call_may_be_checkpointed(use_reentrant: bool, backend: str) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    neuron = FlexSN(lambda x, v: lif(x, v), backend=backend)

    def block(x: Tensor) -> Tensor:
        neuron.reset()
        y: Tensor = neuron(x)
        return y

    checkpoint(block, x, use_reentrant=use_reentrant).sum().backward()
    (want,) = torch.autograd.grad(block(x).sum(), x)
    assert torch.equal(x.grad, want)  # type: ignore[arg-type]


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_detach_cuts_all_that_is_held(step_mode: str, backend: str) -> None:
    neuron = FlexSN(lif, step_mode=step_mode, backend=backend, store_state_seqs=True)
    neuron.record("v")
    neuron(torch.ones(2, 3, requires_grad=True))
    assert neuron.v.requires_grad
    before = neuron.v.clone()
    functional.detach_net(nn.Sequential(neuron))
    held = [*neuron.states, *neuron.state_seqs, *neuron.recorded.values()]  # type: ignore[misc]
    assert not any(t.requires_grad for t in held)
    assert torch.equal(neuron.v, before)


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_so_does_a_node_of_its_v_seq(step_mode: str) -> None:
    node = LIFNode(step_mode=step_mode, store_v_seq=True)
    node(torch.ones(2, 3, requires_grad=True))
    assert node.v_seq.requires_grad
    functional.detach_net(node)
    assert not node.v_seq.requires_grad


def test_a_forgotten_reset_is_said(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend)
    neuron(torch.ones(2, 3, requires_grad=True)).sum().backward()
    with pytest.raises(GradientError, match=r"second time[\s\S]*reset\(\)[\s\S]*detach\(\)"):
        neuron(torch.ones(2, 3, requires_grad=True)).sum().backward()
    neuron.reset()
    neuron(torch.ones(2, 3, requires_grad=True)).sum().backward()
    neuron.detach()
    neuron(torch.ones(2, 3, requires_grad=True)).sum().backward()


def grows(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v += x
    return v, v


def halves(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    x.mul_(0.5)
    return x + v, v


class Old(BaseNode):
    def neuronal_charge(self, x: Tensor) -> None:
        self.v += x


@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("name", ["auto", "named"])
def test_an_argument_changed_in_place_is_named_and_unchanged(name: str, needs_grad: bool, backend: str) -> None:
    backend = "auto" if name == "auto" else backend
    makes = {"v": lambda: FlexSN(grows), "x": lambda: FlexSN(halves)}
    for argument, make in makes.items():
        neuron = make()
        neuron.backend = backend
        x, v = torch.ones(2, 3, requires_grad=needs_grad), torch.full((3,), 0.25, requires_grad=needs_grad)
        neuron.states = v
        with pytest.raises(CoreError, match=f"changes its argument '{argument}' in place"):
            neuron(x)
        assert x.tolist() == [[1.0] * 3] * 2
        assert v.tolist() == [0.25] * 3


def test_nor_is_one_changed_in_inference_mode(backend: str) -> None:
    with torch.inference_mode():
        x, v = torch.ones(2, 3), torch.zeros(3)
        neuron = FlexSN(grows, backend=backend)
        neuron.states = v
        with pytest.raises(CoreError, match="'v' in place"):
            neuron(x)
        assert v.tolist() == [0.0] * 3


def test_a_nodes_membrane_may_be_changed_in_place(backend: str) -> None:
    neuron, v = Old(step_mode="m", backend=backend), torch.full((3,), 0.25, requires_grad=True)
    neuron.v = v
    x = torch.tensor([[0.5] * 3, [0.5] * 3], requires_grad=True)
    spikes = neuron(x)
    assert spikes.tolist() == [[0.0] * 3, [1.0] * 3]
    assert v.tolist() == [0.25] * 3
    spikes.sum().backward()
    assert x.grad is not None and v.grad is not None
    assert torch.equal(v.grad, x.grad[0])
