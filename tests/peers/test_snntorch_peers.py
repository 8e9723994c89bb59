"""The snnTorch preset against snnTorch 1.0: spikes, states, gradients and state dicts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.neurons import snntorch as ours_module

BACKENDS = FlexSN(lambda x, v: (x, v)).supported_backends


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("snntorch")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(neuron: Any, x: Tensor, spikes: Tensor, states: list[Tensor]) -> dict[Any, Any]:
    loss = (spikes * noise(*spikes.shape, seed=1)).sum()
    for seed, state in enumerate(states, start=2):
        loss = loss + (state * noise(*state.shape, seed=seed)).sum()
    torch.autograd.backward(loss)
    assert x.grad is not None
    grads = {f"gradient of {name}": p.grad for name, p in neuron.named_parameters()}
    return {"gradient of x": x.grad, **grads}


def run_peer(neuron: Any, x: Tensor) -> dict[Any, Any]:
    x = x.clone().requires_grad_()
    states: list[Tensor] = []
    rows = []
    for x_t in x.unbind(0):
        spk, *states = neuron(x_t, *states)
        rows.append(spk)
    spikes = torch.stack(rows)
    return {
        "spikes": spikes.detach(),
        "states": [state.detach() for state in states],
        **gradients(neuron, x, spikes, states),
    }


def run_ours(neuron: Any, x: Tensor, backend: str) -> dict[Any, Any]:
    x, neuron.step_mode, neuron.backend = x.clone().requires_grad_(), "m", backend
    spikes = neuron(x)
    states = list(neuron.states)
    return {
        "spikes": spikes.detach(),
        "states": [state.detach() for state in states],
        **gradients(neuron, x, spikes, states),
    }


def tensor(*values: float) -> Tensor:
    return torch.tensor(values)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Leaky, scalars": ("Leaky", {"beta": 0.9}),
    "Leaky, learned": ("Leaky", {"beta": tensor(0.9, 0.5, 1.3), "learn_beta": True, "learn_threshold": True}),
    "Leaky, graded": ("Leaky", {"beta": 0.8, "graded_spikes_factor": 2.0, "learn_graded_spikes_factor": True}),
    "Leaky, at once": ("Leaky", {"beta": 0.9, "reset_delay": False, "learn_threshold": True}),
    "Synaptic": ("Synaptic", {"alpha": 0.7, "beta": 0.8, "threshold": tensor(0.9, 1.1, 0.8)}),
    "Synaptic, learned": ("Synaptic", {"alpha": 0.7, "beta": 0.8, "learn_alpha": True, "learn_beta": True}),
    "Synaptic, at once": ("Synaptic", {"alpha": 0.7, "beta": 0.8, "reset_delay": False}),
    "Alpha": ("Alpha", {"alpha": 0.9, "beta": 0.8, "threshold": 0.4, "learn_beta": True}),
    "Lapicque, beta": ("Lapicque", {"beta": 0.8, "threshold": 0.5, "learn_threshold": True}),
    "Lapicque, learned": ("Lapicque", {"beta": 0.8, "time_step": 0.5, "learn_beta": True}),
    "Lapicque, RC": ("Lapicque", {"R": 2.0, "C": 3.0, "threshold": 0.3}),
    "Lapicque, beta and C": ("Lapicque", {"beta": 0.7, "C": 2.5, "threshold": 0.3}),
}


def build(module: Any, name: str, arguments: dict[str, Any], **more: Any) -> Any:
    copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    return getattr(module, name)(**copies, **more)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("case", CASES)
def test_same_trains(peer: Any, case: str, reset: str, backend: str) -> None:
    name, arguments = CASES[case]
    theirs = build(peer, name, arguments, reset_mechanism=reset)
    mine = build(ours_module, name, arguments, reset_mechanism=reset)
    x = noise(12, 4, 3) + 0.4
    wanted, got = run_peer(theirs, x), run_ours(mine, x, backend)
    assert torch.equal(got["spikes"], wanted["spikes"]) and 0 < got["spikes"].mean() < 2
    assert got.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], rtol=2e-5, atol=2e-6, msg=f"{key} differs")


@pytest.mark.parametrize("case", CASES)
def test_state_dicts_are_interchangeable(peer: Any, case: str) -> None:
    name, arguments = CASES[case]
    theirs = build(peer, name, arguments, reset_mechanism="zero")
    mine = build(ours_module, name, arguments, reset_mechanism="zero")
    state = theirs.state_dict()
    assert set(mine.state_dict()) == set(state)
    mine.load_state_dict(state)
    assert all(torch.equal(value.to(state[key]), state[key]) for key, value in mine.state_dict().items())


@pytest.mark.parametrize("name", ["fast_sigmoid", "triangular", "sigmoid", "straight_through_estimator"])
def test_their_surrogates_work_here(peer: Any, name: str) -> None:
    from snntorch import surrogate

    spike = getattr(surrogate, name)()
    x = noise(8, 3) + 0.5
    wanted = run_peer(peer.Leaky(0.9, spike_grad=spike), x)
    for backend in BACKENDS:
        got = run_ours(ours_module.Leaky(0.9, spike_grad=spike), x, backend)
        for key in wanted:
            torch.testing.assert_close(got[key], wanted[key], rtol=2e-5, atol=2e-6)


def test_hidden_states_and_output(peer: Any) -> None:
    x = noise(5, 3) + 0.5
    for arguments in ({"init_hidden": True}, {"init_hidden": True, "output": True}, {}):
        theirs, mine = peer.Leaky(0.9, **arguments), ours_module.Leaky(0.9, **arguments)
        for x_t in x:
            a, b = theirs(x_t), mine(x_t)
            assert isinstance(a, tuple) == isinstance(b, tuple)
            torch.testing.assert_close(b, a)


def test_what_breaks_there_works_here(peer: Any) -> None:
    with pytest.raises(TypeError):
        peer.Alpha(0.9, 0.8, learn_alpha=True)
    assert ours_module.Alpha(0.9, 0.8, learn_alpha=True).alpha.requires_grad
    with pytest.raises(KeyError):
        peer.Lapicque(beta=0.8, R=1.5, learn_beta=True)
    theirs = peer.Lapicque(beta=0.8, learn_beta=True)
    theirs(torch.ones(2), torch.zeros(2))[1].sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        theirs(torch.ones(2), torch.zeros(2))[1].sum().backward()


QUANTIZERS: list[dict[str, Any]] = [
    {},
    {"num_bits": 4, "threshold": 0.7, "lower_limit": 0.3},
    {"num_bits": 3, "uniform": False},
    {"num_bits": 5, "uniform": False, "thr_centered": False, "multiplier": 0.8},
    {"num_bits": 8, "uniform": False},
]


@pytest.mark.parametrize("arguments", QUANTIZERS, ids=str)
def test_quantized_states(peer: Any, arguments: dict[str, Any]) -> None:
    from snntorch.functional import quant

    from flexsn.neurons.snntorch.quant import Levels, state_quant

    theirs = quant.state_quant(**arguments)
    x = torch.cat([noise(4000), torch.linspace(-1.5, 1.5, 301)])
    assert torch.equal(state_quant(**arguments)(x), theirs(x))
    assert isinstance(ours_module.Leaky(0.9, state_quant=theirs).state_quant, Levels)
    if arguments.get("num_bits") != 8:  # as the torch loop, which says so
        x = noise(9, 4, 3) + 0.3
        wanted = run_peer(peer.Synaptic(0.7, 0.8, state_quant=theirs), x)
        got = run_ours(ours_module.Synaptic(0.7, 0.8, state_quant=theirs), x, BACKENDS[0])
        for key in wanted:
            torch.testing.assert_close(got[key], wanted[key], rtol=2e-5, atol=2e-6)
