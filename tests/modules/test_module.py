"""FlexSN: counts, step modes, states, options; held to the loop on every backend."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest
import torch

from flexsn import CoreError, FlexSN, FlexSNKernel
from tests.flexsn.contract_cores import lif, loop, sequence, two


@pytest.mark.parametrize(
    "module", ["flexsn.modules.flexsn", "flexsn.modules.stateful", "flexsn.modules.kernel", "flexsn.modules.scan"]
)
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted > 0


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 2, 3), (7, 2, 3, 1, 2), (1, 4), (7, 0), (7, 2, 0, 3)])
def test_multi_step_is_the_loop(shape: tuple[int, ...], backend: str) -> None:
    x = sequence(*shape).requires_grad_()
    neuron = FlexSN(lif, backend=backend)
    y = neuron(x)
    v, expected = torch.zeros(shape[1:]), []
    for x_t in x:
        s, v = lif(x_t, v)
        expected.append(s)
    assert torch.equal(y, torch.stack(expected))
    assert torch.equal(neuron.v, v)
    weight = torch.arange(y.numel(), dtype=torch.float32).reshape(shape)
    (grad,) = torch.autograd.grad((y * weight).sum() + neuron.v.square().sum(), x)
    expected_loss = (torch.stack(expected) * weight).sum() + v.square().sum()
    assert torch.equal(grad, torch.autograd.grad(expected_loss, x)[0])


def test_single_steps_are_the_sequence(backend: str) -> None:
    x = sequence(6, 2, 3).requires_grad_()
    one = FlexSN(lif, step_mode="s", backend=backend)
    y = torch.stack([one(x_t) for x_t in x])
    whole = FlexSN(lif, backend=backend)
    expected = whole(x)
    assert torch.equal(y, expected)
    assert torch.equal(one.v, whole.v)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, torch.autograd.grad(expected.sum(), x)[0])


def test_step_mode_can_be_switched(backend: str) -> None:
    x = sequence(4, 3)
    neuron = FlexSN(lif, backend=backend)
    y = [neuron(x[:2])]
    neuron.step_mode = "s"
    y += [neuron(x[2])[None]]
    neuron.step_mode = "m"
    y += [neuron(x[3:])]
    assert torch.equal(torch.cat(y), loop(lif, x))


@pytest.mark.parametrize("cuts", [(3, 4), (1, 6), (2, 2, 3), (0, 7)])
def test_chunks_are_one_long_call(cuts: tuple[int, ...], backend: str) -> None:
    x = sequence(7, 5).requires_grad_()
    neuron = FlexSN(lif, backend=backend)
    y = torch.cat([neuron(chunk) for chunk in x.split(cuts)])
    assert torch.equal(y, loop(lif, x))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(loop(lif, x).sum(), x)[0])


def test_several_outputs_are_a_tuple(backend: str) -> None:
    x, z = sequence(4, 3), sequence(4, 3).flip(0)
    neuron = FlexSN(two, num_inputs=2, backend=backend)
    y = neuron(x, z)
    assert isinstance(y, tuple)
    assert (neuron.num_inputs, neuron.num_states, neuron.num_outputs) == (2, 2, 2)
    for mine, expected in zip(y, loop(two, x, z, num_inputs=2), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("time_dim", [1, 2, -1, -2, -3])
def test_time_dim(time_dim: int, backend: str) -> None:
    x = sequence(5, 2, 3)
    neuron = FlexSN(lif, time_dim=time_dim, backend=backend, store_state_seqs=True)
    y = neuron(x.movedim(0, time_dim))
    assert torch.equal(y.movedim(time_dim, 0), loop(lif, x))
    assert neuron.v.shape == (2, 3)
    assert neuron.state_seqs[0].shape == y.shape
    assert torch.equal(neuron.state_seqs[0].select(time_dim, -1), neuron.v)


def test_negative_time_dim_with_inputs_that_broadcast(backend: str) -> None:
    x, z = sequence(4, 3, 5), sequence(5)
    neuron = FlexSN(two, 2, time_dim=-1, backend=backend)
    y = neuron(x, z)
    expected = loop(two, x.movedim(-1, 0), z.reshape(5, 1, 1).expand(5, 4, 3), num_inputs=2)
    assert torch.equal(y[0], expected[0].movedim(0, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("time_dim", [0, 1])
def test_no_steps(dtype: torch.dtype, time_dim: int, backend: str) -> None:
    neuron = FlexSN(two, 2, backend=backend, time_dim=time_dim, store_state_seqs=True)
    kept = torch.float64 if dtype is torch.float64 else torch.float32
    start = (torch.full((2, 3), 0.5, dtype=kept), torch.ones(2, 3, dtype=kept))
    neuron.states = start
    x = torch.empty(2, 3, dtype=dtype).unsqueeze(time_dim)[(slice(None),) * time_dim + (slice(0, 0),)]
    y, _ = neuron(x, x)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert neuron.states is not None
    assert all(torch.equal(a, b) for a, b in zip(neuron.states, start, strict=True))
    assert neuron.state_seqs[0].shape == x.shape


def test_num_outputs_is_found_on_demand() -> None:
    assert FlexSN(lif).num_outputs == 1
    assert FlexSN(two, 2).num_outputs == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: FlexSN(lif, num_outputs=2),
        lambda: FlexSN(lif, example_outputs=[torch.zeros(1)] * 2),
        lambda: FlexSNKernel(lif, 1, 1, 2),
    ],
)
def test_contradicting_num_outputs(build: Any) -> None:
    with pytest.raises(CoreError, match=r"expected num_outputs=2, the core returns 1 output\(s\) and 1 new state"):
        build()


def test_contradicting_examples() -> None:
    with pytest.raises(CoreError, match=r"num_outputs=1, but example_outputs has 2 entries"):
        FlexSN(lif, num_outputs=1, example_outputs=[torch.zeros(1)] * 2)
    with pytest.raises(CoreError, match=r"example_inputs has 3 entries, the core takes 2 arguments"):
        FlexSN(lif, example_inputs=[torch.zeros(1)] * 3)
    with pytest.raises(CoreError, match=r"requires_grad has 1 entries, the core takes 2 arguments"):
        FlexSN(lif, requires_grad=[True])


def test_a_forgotten_state_is_an_error(backend: str) -> None:
    neuron = FlexSN(lambda x, v: v + x, backend=backend)
    with pytest.raises(CoreError, match=r"expected at least one output, the core returns 0 output\(s\) and 1 new"):
        neuron(sequence(3, 2))


def test_requires_grad_flags(backend: str) -> None:
    x, z = sequence(3, 2).requires_grad_(), sequence(3, 2).requires_grad_()
    neuron = FlexSN(two, 2, requires_grad=[True, False, True, False], backend=backend)
    y, _ = neuron(x, z)
    grads = torch.autograd.grad(y.sum(), (x, z), allow_unused=True)
    assert grads[1] is None
    expected = torch.autograd.grad(loop(two, x, z.detach(), num_inputs=2)[0].sum(), x)[0]
    assert torch.equal(grads[0], expected)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"step_mode": "x"}, 'step_mode must be "m"'),
        ({"backend": "gpu"}, "backend must be one of"),
        ({"checkpoint": 0}, "checkpoint must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        FlexSN(lif, **options)


def test_wrong_number_of_inputs() -> None:
    with pytest.raises(ValueError, match=r"expected 1 input\(s\), got 2"):
        FlexSN(lif)(sequence(3, 2), sequence(3, 2))
    with pytest.raises(ValueError, match=r"expected 1 input sequence\(s\) and 1 state\(s\), got 1 tensor"):
        FlexSNKernel(lif, 1, 1, 1)(sequence(3, 2))


def test_no_core() -> None:
    with pytest.raises(CoreError, match="no core"):
        FlexSN()
    with pytest.raises(CoreError, match="core must be callable, got int"):
        FlexSN(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpoint", [1, 2, 5, 100])
def test_checkpoints_change_nothing(checkpoint: int, backend: str) -> None:
    x = sequence(7, 3).requires_grad_()
    y = FlexSN(lif, backend=backend, checkpoint=checkpoint)(x)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(loop(lif, x).sum(), x)[0])


def test_supported_backends_and_repr() -> None:
    neuron = FlexSN(lif)
    assert neuron.supported_backends[-1] == "torch"
    assert repr(neuron) == "FlexSN(core=lif, states=('v',), step_mode='m', backend='auto')"
    assert repr(FlexSNKernel(lif, 1, 1, 1)).startswith("FlexSNKernel(core=lif")
