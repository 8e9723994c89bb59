"""scan: stateless, pure, differentiable through outputs, final states and state sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import CoreError, scan
from flexsn.modules.scan import _dispatchers
from tests.flexsn.contract_cores import lif, sequence, smooth, two


def reference(core: Any, inputs: tuple[Tensor, ...], states: tuple[Tensor, ...]) -> tuple[list[Tensor], ...]:
    """The definition: call the core once per step."""
    outputs, state_seqs = [], []
    for step in zip(*inputs, strict=True):
        values = core(*step, *states)
        split = len(values) - len(states)
        states = values[split:]
        outputs.append(values[:split])
        state_seqs.append(states)
    stack = [torch.stack(column) for column in zip(*outputs, strict=True)]
    return stack, list(states), [torch.stack(column) for column in zip(*state_seqs, strict=True)]


@pytest.mark.parametrize("target", ["outputs", "final states", "state sequences", "all"])
def test_values_and_gradients_are_the_loops(target: str, backend: str) -> None:
    x, z = sequence(5, 3).requires_grad_(), sequence(5, 3).flip(0).requires_grad_()
    v, w = torch.full((3,), 0.5).requires_grad_(), torch.ones(3).requires_grad_()
    mine = scan(two, (x, z), (v, w), backend=backend, return_state_seqs=True)
    expected = reference(two, (x, z), (v, w))
    chosen = {"outputs": [0], "final states": [1], "state sequences": [2], "all": [0, 1, 2]}[target]
    grads = []
    for result in (mine, expected):
        picked = [t for part in chosen for t in result[part]]
        loss = sum((t * torch.arange(t.numel()).reshape(t.shape)).sum() for t in picked)
        grads.append(torch.autograd.grad(loss, (x, z, v, w)))
    for part in range(3):
        assert all(torch.equal(a, b) for a, b in zip(mine[part], expected[part], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def readout(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v + (x - v) * 0.3
    return v, v


def coupled(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    v = v + (x - v) * 0.3 - w * 0.7 + w * v
    w = w * 0.9 + v * x - w * 0.2
    return v, w * v, v, v, w


@pytest.mark.parametrize("core", [readout, coupled])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 9])
@pytest.mark.parametrize("sequences", [False, True])
def test_a_state_that_is_an_output_too(core: Any, num_steps: int, sequences: bool, backend: str) -> None:
    """Three and more gradients meet in one value, of numbers whose sum depends on the order."""
    found = []
    for chosen in (backend, "torch"):
        generator = torch.Generator().manual_seed(0)
        x = (torch.randn(num_steps, 70, generator=generator) / 8).requires_grad_()
        count = 1 if core is readout else 2
        states = [(torch.randn(70, generator=generator) / 8).requires_grad_() for _ in range(count)]
        result = scan(core, x, tuple(states), chosen, return_state_seqs=sequences)
        roots = [t for part in result for t in (part if isinstance(part, tuple) else (part,))]
        grads = [torch.randn(r.shape, generator=generator) for r in roots]
        found.append(torch.autograd.grad(roots, [x, *states], grads))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_tensor_in_tensor_out(backend: str) -> None:
    y, v = scan(lif, sequence(4, 3), torch.zeros(3), backend=backend)
    assert isinstance(y, Tensor)
    assert isinstance(v, Tensor)
    y2, (v2,) = scan(lif, (sequence(4, 3),), (torch.zeros(3),), backend=backend)
    assert torch.equal(y, y2)
    assert torch.equal(v, v2)
    y, v, v_seq = scan(lif, sequence(4, 3), torch.zeros(3), backend=backend, return_state_seqs=True)
    assert torch.equal(v_seq[-1], v)


def test_no_states(backend: str) -> None:
    x = sequence(4, 3)
    y, states = scan(lambda x: x * x, x, (), backend=backend)
    assert torch.equal(y, x * x)
    assert states == ()


def test_pure(backend: str) -> None:
    x, v = sequence(4, 3), torch.full((3,), 0.5)
    before = x.clone(), v.clone()
    first = scan(lif, x, v, backend=backend)
    second = scan(lif, x, v, backend=backend)
    assert torch.equal(x, before[0])
    assert torch.equal(v, before[1])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_states_broadcast(backend: str) -> None:
    y, v = scan(lif, sequence(4, 2, 3), torch.zeros(()), backend=backend)
    assert v.shape == (2, 3)
    assert torch.equal(y, scan(lif, sequence(4, 2, 3), torch.zeros(2, 3), backend="torch")[0])
    y, v = scan(lif, sequence(4, 3), torch.zeros(2, 1), backend=backend)
    assert y.shape == (4, 2, 3)


@pytest.mark.parametrize("time_dim", [0, 1, -1])
def test_time_dim(time_dim: int, backend: str) -> None:
    x = sequence(4, 2, 3)
    expected = scan(lif, x, torch.zeros(2, 3), backend="torch", return_state_seqs=True)
    moved = x.movedim(0, time_dim)
    y, v, v_seq = scan(lif, moved, torch.zeros(2, 3), backend, time_dim, return_state_seqs=True)
    assert torch.equal(y.movedim(time_dim, 0), expected[0])
    assert torch.equal(v, expected[1])
    assert torch.equal(v_seq.movedim(time_dim, 0), expected[2])


def test_no_steps(backend: str) -> None:
    v = torch.full((3,), 0.5).requires_grad_()
    y, final, v_seq = scan(lif, torch.empty(0, 3), v, backend=backend, return_state_seqs=True)
    assert y.shape == v_seq.shape == (0, 3)
    assert torch.equal(final, v)
    assert torch.equal(torch.autograd.grad(final.sum(), v)[0], torch.ones(3))


def test_parameters_get_gradients(backend: str) -> None:
    weight = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
    x = sequence(4, 2, 3)
    y, _ = scan(lambda x, v: (v + x * weight, v * 0.5 + x), x, torch.zeros(2, 3), backend=backend)
    y.sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, x.sum((0, 1)))


def test_the_same_lambda_again_is_the_same_core(backend: str) -> None:
    _dispatchers.clear()
    seen = []
    for gain in (2.0, 2.0, 3.0):
        y, _ = scan(lambda x, v: (v + x * gain, v), torch.ones(2, 3), torch.zeros(3), backend=backend)  # noqa: B023
        seen.append(y[0, 0].item())
    assert seen == [2.0, 2.0, 3.0]
    assert [len(known) for known in _dispatchers.values()] == [1]


def test_a_shared_scanner_is_not_used_after_its_cell_was_bound_anew(backend: str) -> None:
    def make(gain: float) -> tuple[Any, Any]:
        def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return v + x * gain, v

        def change(value: float) -> None:
            nonlocal gain
            gain = value

        return core, change

    x, v = torch.ones(2, 3), torch.zeros(3)
    first, change = make(2.0)
    second, _ = make(2.0)
    assert scan(first, x, v, backend=backend)[0][0, 0] == 2.0
    change(5.0)
    assert scan(second, x, v, backend=backend)[0][0, 0] == 2.0
    assert scan(first, x, v, backend=backend)[0][0, 0] == 5.0


def test_remembered_cores_are_limited() -> None:
    for i in range(200):
        scan(lambda x, v, i=i: (x + i, v), torch.ones(1, 1), torch.zeros(1), backend="torch")
    assert sum(map(len, _dispatchers.values())) <= 64


def test_a_core_in_use_is_not_forgotten() -> None:
    _dispatchers.clear()
    scan(lif, torch.ones(1, 1), torch.zeros(1), backend="torch")
    ((dispatcher,),) = _dispatchers.values()
    for i in range(100):
        scan(lambda x, v, i=i: (x + i, v), torch.ones(1, 1), torch.zeros(1), backend="torch")
        scan(lif, torch.ones(1, 1), torch.zeros(1), backend="torch")
    assert [dispatcher] in _dispatchers.values()


def test_bound_methods_and_modules(backend: str) -> None:
    class Core(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.gain = gain

        def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return v + x * self.gain, v

    cores = [Core(2.0), Core(3.0)]
    x, v = torch.ones(2, 3), torch.zeros(3)
    for core in cores:
        assert scan(core, x, v, backend=backend)[0][0, 0] == core.gain
        assert scan(core.forward, x, v, backend=backend)[0][0, 0] == core.gain


def test_vmap_over_scans(backend: str) -> None:
    x, v = sequence(2, 4, 3), torch.zeros(2, 3)
    y, final = torch.vmap(lambda x, v: scan(smooth, x, v, backend=backend))(x, v)
    for i in range(2):
        expected = scan(smooth, x[i], v[i], backend="torch")
        assert torch.equal(y[i], expected[0])
        assert torch.equal(final[i], expected[1])


def test_torch_compile(backend: str) -> None:
    def net(x: Tensor) -> Tensor:
        y, _ = scan(smooth, x * 2.0, torch.zeros(3), backend=backend)
        return y + 1.0

    x = sequence(4, 3)
    assert torch.equal(torch.compile(net, backend="eager")(x), net(x))


def test_no_outputs_need_the_state_sequences(backend: str) -> None:
    def only_state(x: Tensor, v: Tensor) -> Tensor:
        return v + x

    with pytest.raises(CoreError, match="expected outputs and 1 new state"):
        scan(only_state, sequence(3, 2), torch.zeros(2), backend=backend)
    _, _, v_seq = scan(only_state, sequence(3, 2), torch.zeros(2), backend=backend, return_state_seqs=True)
    assert torch.equal(v_seq, sequence(3, 2).cumsum(0))


def test_mistakes() -> None:
    x, v = sequence(4, 3), torch.zeros(3)
    with pytest.raises(ValueError, match="at least one input"):
        scan(lif, (), v)
    with pytest.raises(ValueError, match="input 0 must be a tensor, got list"):
        scan(lif, ([1.0],), v)
    with pytest.raises(ValueError, match="backend must be one of"):
        scan(lif, x, v, backend="gpu")
