"""How programs use Norse: cells in a loop, containers, steps as functions, encoders, checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn.neurons import norse

X = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)) * 6
CELLS = {
    "LIFCell": norse.LIF,
    "LIFExCell": norse.LIFEx,
    "LIFAdExCell": norse.LIFAdEx,
    "LSNNCell": norse.LSNN,
    "IAFCell": norse.IAF,
    "LICell": norse.LI,
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_in_a_loop_is_the_layer(name: str) -> None:
    cell, state, steps = getattr(norse, name)(), None, []
    for x in X:
        y, state = cell(x, state)
        steps.append(y)
    y_seq, last = CELLS[name]()(X)
    assert torch.equal(torch.stack(steps), y_seq) and y_seq.any()
    assert all(torch.equal(got, want) for got, want in zip(state, last, strict=True))  # type: ignore[call-overload]
    lifted, _ = norse.Lift(getattr(norse, name)())(X)
    assert torch.equal(lifted, y_seq)


STEPS = {
    "lif_feed_forward_step": norse.LIFCell,
    "lif_refrac_feed_forward_step": norse.LIFRefracCell,
    "lif_box_feed_forward_step": norse.LIFBoxCell,
    "lsnn_feed_forward_step": norse.LSNNCell,
    "li_feed_forward_step": norse.LICell,
    "li_box_feed_forward_step": norse.LIBoxCell,
    "iaf_feed_forward_step": norse.IAFCell,
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_as_functions(name: str) -> None:
    cell = STEPS[name]()
    p, own, state = type(cell).parameter_type(), cell.initial_state(X[0]), None
    for x in X * 4:
        y, own = getattr(norse, name)(x, own, p)
        want, state = cell(x, state)
        assert torch.equal(y, want)


def test_a_spike_keeps_the_refractory_cell_from_firing() -> None:
    cell, state, fired = norse.LIFRefracCell(norse.LIFRefracParameters(rho_reset=2.0)), None, []
    for _ in range(7):
        z, state = cell(torch.full((1,), 20.0), state)
        fired.append(z.item())
    assert fired == [1, 0, 0, 1, 0, 0, 1] and type(state).__name__ == "LIFRefracFeedForwardState"
    assert cell.p == norse.LIFRefracParameters(norse.LIFParameters(*cell.p.lif), torch.tensor(2.0))


def test_a_sequential_with_states_goes_on() -> None:
    net = norse.SequentialState(nn.Linear(3, 4), norse.LIFCell(), nn.Linear(4, 2), norse.LICell())
    state: Any = None
    for x in X:
        y, state = net(x, state)
    assert y.shape == (2, 2) and state[0] is None and type(state[1]).__name__ == "LIFFeedForwardState"
    seen: list[nn.Module] = []
    net.register_forward_state_hooks(lambda module, *_: seen.append(module))
    with pytest.raises(ValueError, match="are there already"):
        net.register_forward_state_hooks(lambda *_: None)
    hidden, _ = norse.SequentialState(*net, return_hidden=True)(X[0])
    assert seen == [net[1], net[3]] and len(hidden) == 4
    net.remove_forward_state_hooks()
    looped = norse.RecurrentSequential(norse.LICell())
    first, fed = looped(X[0])
    second, _ = looped(X[1], fed)
    want, _ = norse.LICell()(X[1] + first, fed.state[0])
    assert torch.equal(second, want)


@pytest.mark.parametrize("kind", ["bool", "int", "sparse"])
def test_inputs_of_other_kinds(kind: str) -> None:
    spikes = (X > 3).float()
    want, _ = norse.LIF(norse.LIFParameters(v_th=0.1))(spikes)
    given: Tensor = {"bool": spikes.bool(), "int": spikes.long(), "sparse": spikes.to_sparse()}[kind]
    got, _ = norse.LIF(norse.LIFParameters(v_th=0.1))(given)
    assert got.is_sparse is (kind == "sparse") and torch.equal(got.to_dense(), want) and want.any()


def test_the_initial_membrane_takes_a_gradient() -> None:
    for neuron in (norse.LIF(), norse.LICell()):
        y, state = neuron(X)
        assert y.requires_grad and state.v.requires_grad
        (y.sum() + state.v.sum()).backward()
        with torch.no_grad():
            assert not neuron(X)[0].requires_grad


def test_checkpoints_have_what_norses_have() -> None:
    rate = nn.Parameter(torch.tensor(90.0))
    net = norse.SequentialState(nn.Linear(3, 3), norse.LIFCell(norse.LIFParameters(tau_mem_inv=rate)))  # type: ignore[arg-type]
    assert set(net.state_dict()) == {"0.weight", "0.bias", "1.tau_mem_inv"}
    older = copy.deepcopy(net.state_dict()) | {"1.v_th": torch.tensor(0.5)}  # from when buffers were saved
    net.load_state_dict(older)
    assert net[1].v_th == 0.5


def test_encoders() -> None:
    current = torch.tensor([0.0, 4.0, 50.0])
    spikes = norse.ConstantCurrentLIFEncoder(20)(current)
    v, want = torch.zeros(3), []
    for _ in range(20):
        z, v = norse.lif_current_encoder(current, v)
        want.append(z)
    assert torch.equal(spikes, torch.stack(want)) and spikes.sum(0).tolist()[0] == 0 < spikes.sum()
    first = norse.SpikeLatencyLIFEncoder(20)(current)
    assert first.sum(0).tolist() == [0, 1, 1] and torch.equal(first, spikes * (spikes.cumsum(0) == 1))
    generator = torch.Generator().manual_seed(0)
    drawn = norse.poisson_encode(torch.tensor([0.0, 0.5, 1.0]), 2000, f_max=500, generator=generator)
    assert drawn.mean(0).tolist() == pytest.approx([0, 0.25, 0.5], abs=0.05)
    assert set(norse.SignedPoissonEncoder(50, 1000)(torch.tensor([-1.0])).flatten().tolist()) == {-1.0}
    assert norse.PopulationEncoder(3)(torch.tensor([0.0, 2.0]))[:, 0].tolist() == pytest.approx(
        [1.0, 0.0183156], abs=1e-6
    )


def test_recurrent_steps() -> None:
    w, r = torch.randn(4, 3), torch.randn(4, 4)
    z, state = norse.lif_step(X[0], norse.LIFState(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4)), w, r)
    want, _ = norse.lif_feed_forward_step(X[0] @ w.T, norse.LIFFeedForwardState(torch.zeros(2, 4), torch.zeros(2, 4)))
    assert torch.equal(z, want) and torch.equal(state.z, z)
    v, _ = norse.li_step(X[0], norse.LIState(torch.zeros(2, 4), torch.zeros(2, 4)), w)
    cell = norse.LILinearCell(3, 4)
    cell.input_weights.data.copy_(w)
    assert torch.equal(cell(X[0])[0], v)


def test_numbers_stand_for_tensors() -> None:
    """They are what a kernel is made of, rounded as Norse's tensors and their products are."""
    cell = norse.LIFCell(norse.LIFParameters(tau_mem_inv=90.3), dt=0.003)
    kept = norse.LIFCell(norse.LIFParameters(*map(torch.as_tensor, cell.p[:5])), dt=0.003)
    assert not list(cell.buffers()) and len(list(kept.buffers())) == 5
    for x in (X[0], X[0].double()):
        a, b = (c(x, c(x)[1]) for c in (cell, kept))
        assert torch.equal(a[0], b[0]) and all(torch.equal(*pair) for pair in zip(a[1], b[1], strict=True))
    cell.double().to("cpu")
    assert cell(X[0].double())[1].v.dtype == torch.float64 and not cell.single_precision
    cell.v_th = 1e9
    assert cell.p.v_th == 1e9 and not cell(X[0].double() * 1e3)[0].any()
