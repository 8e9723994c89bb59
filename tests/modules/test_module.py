"""FlexSN: counts, step modes, states, options; held to the loop on every backend."""

from __future__ import annotations

import copy
import doctest
import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import CoreError, FlexSN, FlexSNKernel
from tests.flexsn.contract_cores import SPIKE, Returned, lif, loop, sequence, two


@pytest.mark.parametrize(
    "module", ["flexsn.modules.flexsn", "flexsn.modules.stateful", "flexsn.modules.kernel", "flexsn.modules.scan"]
)
def test_doctests(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0
    assert result.attempted > 0


# ---- step modes ---------------------------------------------------------------------------------------------


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


# ---- states -------------------------------------------------------------------------------------------------


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


# ---- counts and options -------------------------------------------------------------------------------------


def test_num_outputs_is_found_on_demand() -> None:
    assert FlexSN(lif).num_outputs == 1
    assert FlexSN(two, 2).num_outputs == 2
    assert Learned("torch").num_outputs == 1


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
