"""Tools of the libraries on networks of ours: checkpoints that replay the neurons, graphs for other hardware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flexsn.neurons import snntorch as our_snn
from flexsn.neurons import spikingjelly as our_neuron
from flexsn.neurons.spikingjelly import layer as our_layer

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")
import nir
import snntorch as their_snn
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import layer as their_layer
from spikingjelly.activation_based import neuron as their_neuron
from spikingjelly.activation_based.memopt import checkpoint_module, optimize_memory
from spikingjelly.activation_based.memopt.compress import BitSpikeCompressor

X = torch.rand(8, 3, 6, generator=torch.Generator().manual_seed(0)) * 4


def network(neuron: Any, layer: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 8), neuron.ParametricLIFNode()),
        layer.LinearRecurrentContainer(neuron.IFNode(v_reset=None), 8, 8, step_mode="m"),
        neuron.IzhikevichNode(v_threshold=0.5, v_rest=0.0),
    )
    for node in (net[1], net[3], net[5]):
        node.step_mode = "m"
    return net


def trained(net: nn.Module) -> tuple[Any, ...]:
    """Two calls, the second from the states of the first, and one backward pass over both."""
    x = X.clone().requires_grad_()
    y = torch.cat([net(x), net(x)])
    (y * torch.arange(y.numel()).view_as(y)).sum().backward()  # type: ignore[no-untyped-call]
    functional.reset_net(net)
    return y.detach(), x.grad, [p.grad for p in net.parameters()]


def each(chunks: int, compressed: bool) -> Callable[[nn.Sequential], nn.Module]:
    def wrapped(net: nn.Sequential) -> nn.Module:
        for i in (1, 3, 4, 5):
            spikes = compressed and i == 4
            net[i] = checkpoint_module(net[i], chunks=chunks, compressor=BitSpikeCompressor() if spikes else None)
        return net

    return wrapped


TOOLS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "every neuron": each(1, False),
    "every neuron, in chunks": each(4, False),
    "every neuron, its spikes in bits": each(2, True),
    "the network": checkpoint_module,
    "the network, in chunks": lambda net: checkpoint_module(net, chunks=2),
    "optimize_memory": lambda net: optimize_memory(net, (nn.Linear, their_neuron.LIFNode), lambda m: m(X), level=1),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_replays_neurons_sees_their_states(tool: str) -> None:
    want = trained(network(their_neuron, their_layer))
    assert 0 < want[0].mean() < 1
    net = TOOLS[tool](network(our_neuron, our_layer))
    functional.reset_net(net)
    torch.testing.assert_close(trained(net), want, rtol=1e-4, atol=1e-3)


def described(graph: Any) -> list[Any]:
    """Every node by name, with its kind and numbers."""
    found: list[Any] = list(graph.edges)
    for name, node in graph.nodes.items():
        numbers = {k: np.asarray(v).tolist() for k, v in vars(node).items() if isinstance(v, np.ndarray | Tensor)}
        found.append((name, type(node).__name__, described(node) if isinstance(node, nir.NIRGraph) else numbers))
    return found


LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    "Leaky": lambda snn: snn.Leaky(torch.full((5,), 0.9), threshold=torch.ones(5), init_hidden=True),
    "Synaptic": lambda snn: snn.Synaptic(torch.full((5,), 0.5), *[torch.full((5,), 0.9)] * 2, init_hidden=True),
    "RLeaky": lambda snn: snn.RLeaky(torch.full((5,), 0.9), linear_features=5, init_hidden=True),
    "RLeaky, one to one": lambda snn: snn.RLeaky(0.9, V=torch.ones(5), all_to_all=False, init_hidden=True),
    "RSynaptic": lambda snn: snn.RSynaptic(0.5, 0.9, linear_features=5, init_hidden=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_export_to_nir(name: str) -> None:
    graphs = []
    for snn in (their_snn, our_snn):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), LAYERS[name](snn))
        graphs.append(export_to_nir(net, X[0, :1], ignore_dims=[0]))
    assert described(graphs[1]) == described(graphs[0]) and len(described(graphs[1])) > 4
    assert any(isinstance(module, their_snn.SpikingNeuron) for module in import_from_nir(graphs[1]).modules())
