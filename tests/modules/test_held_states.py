"""States that a neuron holds between calls: continued, set, learned, copied."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, FlexSNKernel
from tests.flexsn.contract_cores import SPIKE, Returned, lif, loop, sequence, two


def test_states_continue_reset_and_detach(backend: str) -> None:
    x = torch.full((3, 2), 0.75).requires_grad_()
    neuron = FlexSN(lif, backend=backend)
    assert neuron.states is None
    assert neuron.v is None
    neuron(x)
    first = neuron.v
    assert neuron.states is not None
    assert neuron.states[0] is neuron.v
    neuron(x)
    assert not torch.equal(neuron.v, first)
    neuron.reset()
    assert neuron.states is None
    neuron(x)
    assert torch.equal(neuron.v, first)
    neuron.detach()
    assert not neuron.v.requires_grad
    old = neuron.v.clone()
    (grad,) = torch.autograd.grad(neuron(x).sum() + neuron.v.sum(), x)
    fresh = FlexSN(lif, backend="torch")
    fresh.states = (old,)
    expected = fresh(x)
    assert torch.equal(grad, torch.autograd.grad(expected.sum() + fresh.v.sum(), x)[0])


def test_states_can_be_set(backend: str) -> None:
    x, start = sequence(3, 2), torch.tensor([0.25, 0.75], requires_grad=True)
    neuron = FlexSN(lif, backend=backend)
    neuron.states = start
    y = neuron(x)
    neuron.states = None
    neuron.v = start
    assert torch.equal(neuron(x), y)
    (grad,) = torch.autograd.grad(neuron.v.sum(), start)
    v = start
    for x_t in x:
        _, v = lif(x_t, v)
    assert torch.equal(grad, torch.autograd.grad(v.sum(), start)[0])
    neuron.v = torch.zeros(())  # broadcasts
    assert torch.equal(neuron(x), loop(lif, x))
    with pytest.raises(ValueError, match="expected 1 states"):
        neuron.states = (start, start)
    with pytest.raises(ValueError, match="a state is a tensor, got float"):
        neuron.states = [0.5]  # type: ignore[list-item]


def test_one_named_state_of_two_set_before_the_first_call(backend: str) -> None:
    neuron = FlexSN(two, 2, backend=backend)
    neuron.w = torch.ones(3)
    assert torch.equal(neuron.v, torch.zeros(3))
    y, _ = neuron(sequence(2, 3), sequence(2, 3))
    other = FlexSN(two, 2, backend="torch")
    other.states = (torch.zeros(3), torch.ones(3))
    assert torch.equal(y, other(sequence(2, 3), sequence(2, 3))[0])


def test_store_state_seqs(backend: str) -> None:
    x = sequence(4, 3).requires_grad_()
    neuron = FlexSN(two, 2, backend=backend, store_state_seqs=True)
    neuron(x, x)
    kernel = FlexSNKernel(two, 2, 2, 2, backend=backend)
    zeros = torch.zeros(3)
    expected = kernel(x, x, zeros, zeros)
    assert len(expected) == 4
    for mine, other in zip(neuron.state_seqs, expected[2:], strict=True):
        assert torch.equal(mine, other)
    (grad,) = torch.autograd.grad(neuron.state_seqs[1].square().sum(), x)
    reference = FlexSNKernel(two, 2, 2, 2, backend="torch")(x, x, zeros, zeros)
    assert torch.equal(grad, torch.autograd.grad(reference[3].square().sum(), x)[0])
    neuron.store_state_seqs = False
    neuron(x, x)
    assert neuron.state_seqs is None
    neuron.reset()
    one = FlexSN(two, 2, backend=backend, store_state_seqs=True, step_mode="s")
    one(x[0], x[0])
    assert one.state_seqs[0].shape == (3,)


class Learned(FlexSN):
    def __init__(self, backend: str) -> None:
        super().__init__(backend=backend)
        self.start = nn.Parameter(torch.tensor([0.25, 0.5]))
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def core(self, x: Tensor, v: Tensor) -> Returned:
        return lif(x, v)

    def init_states(self, num_states: int, step_mode: str, *args: Tensor) -> Sequence[Tensor]:  # type: ignore[override]
        self.seen.append((step_mode, tuple(args[0].shape)))
        return [self.start]


def test_learnable_initial_state(backend: str) -> None:
    assert Learned("torch").num_outputs == 1
    x = sequence(3, 4, 2)
    neuron = Learned(backend)
    neuron(x).sum().backward()
    assert neuron.seen == [("m", (3, 4, 2))]
    other = Learned("torch")
    other(x).sum().backward()
    assert neuron.start.grad is not None
    assert other.start.grad is not None
    torch.testing.assert_close(neuron.start.grad, other.start.grad)
    neuron.time_dim = 1
    neuron.reset()
    neuron(x.movedim(0, 1))
    assert neuron.seen[-1] == ("m", (3, 4, 2))  # time first, whatever time_dim


def refractory(x: Tensor, v: Tensor, wait: Tensor, ever: Tensor) -> Returned:
    h = torch.where(wait > 0, v, v + x)
    s = SPIKE(h - 1.0)
    fired = s > 0
    return s, h * (1.0 - s), torch.where(fired, 2, torch.clamp(wait - 1, min=0)), ever | fired


def test_integer_and_boolean_states(backend: str) -> None:
    x = sequence(8, 3).requires_grad_()
    examples = [torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool)]
    neuron = FlexSN(refractory, backend=backend, example_inputs=examples)
    y = neuron(x)
    assert [s.dtype for s in neuron.states or ()] == [torch.float32, torch.int64, torch.bool]
    expected = loop(refractory, x, example_inputs=examples)
    assert torch.equal(y, expected)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_another_batch_without_reset_is_an_error(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend)
    neuron(sequence(3, 2, 4))
    with pytest.raises(ValueError, match=r"changed from \(2, 4\) to \(5, 4\).*call reset\(\)"):
        neuron(sequence(3, 5, 4))
    neuron(sequence(6, 2, 4))  # another T is fine
    neuron.reset()
    assert neuron(sequence(3, 5, 4)).shape == (3, 5, 4)


def test_to_and_copies_keep_the_states(backend: str) -> None:
    x = sequence(3, 2)
    neuron = FlexSN(lif, backend=backend)
    neuron(x)
    clone = copy.deepcopy(neuron)
    assert torch.equal(clone(x), neuron(x))
    neuron.double()
    assert neuron.v.dtype is torch.float64
    assert neuron(x.double()).dtype is torch.float64
    clone.half()
    assert clone.v.dtype is torch.float32
    assert clone(x.half()).dtype is torch.float16
