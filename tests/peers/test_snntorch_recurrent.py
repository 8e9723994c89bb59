"""snnTorch's recurrent layers in the preset: spikes, states, gradients and state dicts are those of snnTorch 1.0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn.neurons import snntorch as ours

theirs = pytest.importorskip("snntorch")

LINEAR: dict[str, Any] = {"linear_features": 4, "learn_beta": True, "learn_threshold": True}
ONE_TO_ONE: dict[str, Any] = {"V": torch.tensor([0.5, -0.5, 1.0, 0.25]), "all_to_all": False}
CONVOLVED: dict[str, Any] = {"conv2d_channels": 2, "kernel_size": (3, 5)}
KERNEL: dict[str, Any] = {"kernel_size": 3, "threshold": 0.02}
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "RLeaky, linear": ("RLeaky", {"beta": 0.9, **LINEAR}, (4,)),
    "RLeaky, one to one": ("RLeaky", {"beta": 0.9, **ONE_TO_ONE}, (4,)),
    "RLeaky, not learned": ("RLeaky", {"beta": 0.9, **ONE_TO_ONE, "learn_recurrent": False}, (4,)),
    "RLeaky, convolved": ("RLeaky", {"beta": 0.9, **CONVOLVED}, (2, 4, 5)),
    "RLeaky, at once": ("RLeaky", {"beta": 0.9, "linear_features": 4, "reset_delay": False}, (4,)),
    "RSynaptic, linear": ("RSynaptic", {"alpha": 0.5, "beta": 0.8, **LINEAR, "learn_alpha": True}, (4,)),
    "RSynaptic, one to one": ("RSynaptic", {"alpha": 0.5, "beta": 0.8, **ONE_TO_ONE}, (4,)),
    "SLSTM": ("SLSTM", {"input_size": 4, "hidden_size": 4, "threshold": 0.1}, (4,)),
    "SLSTM, no bias": ("SLSTM", {"input_size": 4, "hidden_size": 4, "bias": False, "threshold": 0.1}, (4,)),
    "SConv2dLSTM": ("SConv2dLSTM", {"in_channels": 2, "out_channels": 3, **KERNEL}, (2, 4, 6)),
    "SConv2dLSTM, max": ("SConv2dLSTM", {"in_channels": 1, "out_channels": 2, **KERNEL, "max_pool": 2}, (1, 4, 6)),
    "SConv2dLSTM, avg": ("SConv2dLSTM", {"in_channels": 1, "out_channels": 2, **KERNEL, "avg_pool": 2}, (1, 4, 6)),
}


def built(module: Any, name: str, arguments: dict[str, Any], **more: Any) -> Any:
    copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    return getattr(module, name)(**copies, **more)


def results(neuron: Any, x: Tensor, whole: bool = False) -> list[Any]:
    x = x.clone().requires_grad_()
    if whole:
        neuron.step_mode, spikes = "m", neuron.multi_step_forward(x)
    else:
        spikes = torch.stack([neuron(step)[0] for step in x])
    states = [getattr(neuron, name) for name in ("spk", "syn", "mem") if hasattr(neuron, name)]
    weights = torch.linspace(-1.0, 2.0, spikes.numel()).view_as(spikes)
    loss = (spikes * weights).sum() + sum((i * state).sum() for i, state in enumerate(states[-2:], 1))
    torch.autograd.backward(loss)
    grads = {name: p.grad for name, p in neuron.named_parameters()}
    return [spikes, [s for s in states if s.shape == states[-1].shape][-2:], x.grad, grads]


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("case", CASES)
def test_same_trains(case: str, reset: str) -> None:
    name, arguments, shape = CASES[case]
    torch.manual_seed(0)
    peer = built(theirs, name, arguments, reset_mechanism=reset)
    x = torch.rand(9, 3, *shape) * 2
    wanted = results(peer, x)
    assert 0 < wanted[0].mean() < 1
    for whole in (False, True):
        mine = built(ours, name, arguments, reset_mechanism=reset)
        mine.load_state_dict(peer.state_dict())
        assert mine.state_dict().keys() == peer.state_dict().keys()
        torch.testing.assert_close(results(mine, x, whole), wanted, rtol=2e-5, atol=2e-6)


def test_a_longer_memory_than_theirs() -> None:
    """snnTorch's forgets at every step where the sizes differ, and stumbles over reset_delay=False."""
    x = torch.rand(2, 3, 5)
    peer, mine = theirs.SLSTM(5, 4), ours.SLSTM(5, 4)
    mine.load_state_dict(peer.state_dict())
    cell = peer.lstm_cell
    mem, syn = cell(x[1], cell(x[0]))
    for layer in (peer, mine):
        layer(x[0])
    torch.testing.assert_close(mine(x[1])[1:], (syn, mem))
    assert not torch.allclose(peer(x[1])[2], mem)
    with pytest.raises(TypeError):
        theirs.RSynaptic(0.5, 0.9, linear_features=5, reset_delay=False)(x[0])
    assert len(ours.RSynaptic(0.5, 0.9, linear_features=5, reset_delay=False)(x[0])) == 3


@pytest.mark.parametrize("arguments", [{}, {"conv2d_channels": 3}, {"linear_features": 3, "kernel_size": 3}])
def test_the_same_connections_are_refused(arguments: dict[str, Any]) -> None:
    for module in (theirs, ours):
        with pytest.raises(TypeError, match=r"all_to_all|conv2d_channels"):
            module.RLeaky(0.9, **arguments)
