"""to_nir: a network becomes a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from flexsn import FlexSN, Recurrent
from flexsn.nir.dynamics import Stepping
from flexsn.nir.layer_nodes import node_of
from flexsn.nir.network import Network
from flexsn.nir.neuron_nodes import nodes_of
from flexsn.nir.nodes import layer_of, shape_after
from flexsn.nir.package import nir_package
from flexsn.nir.reading import stepping_of
from flexsn.nir.wiring import Edge

__all__ = ["to_nir"]


def to_nir(
    module: nn.Module, dt: float | None = None, input_shape: Sequence[int] | None = None, method: str = "exact"
) -> Any:
    """Write a network as a graph in the Neuromorphic Intermediate Representation.

    Args:
        module: what :func:`from_nir` made; an ``nn.Sequential`` of layers, neurons, such networks and more of its kind;
            or one of these. Layers: ``nn.Linear``, ``nn.Conv1d``, ``nn.Conv2d``, ``nn.AvgPool2d``, ``nn.Flatten``,
            ``nn.Identity``. Neurons: ``IF``, ``LIF``, ``PLIF``, ``CubaLIF``, ``NonSpikingIF``, ``NonSpikingLIF`` of
            :mod:`flexsn.neurons`, and :class:`flexsn.Recurrent` of one.
        dt: duration of a step of the neurons of :mod:`flexsn.neurons`, which count in steps; others need none.
        input_shape: of a step, without batch; needed where the first layer does not tell, as a convolution.
        method: how the graph will be stepped, ``"exact"`` or ``"euler"``, as for :func:`from_nir`: the time constants
            of those neurons are such that it then computes what they do.

    Returns:
        A ``nir.NIRGraph``; ``nir.write(path, graph)`` keeps it. What a graph has no place for, ``dt``, ``method``, the
        reset and the surrogate, is to be given to :func:`from_nir` again.

    Raises:
        ImportError: the package ``nir`` is not there: ``pip install "flexsn[nir]"``.
        ValueError: arguments out of their range, or a module that NIR has no node for; it is named.

    Example:
        >>> import torch
        >>> from flexsn.neurons import LIF
        >>> graph = to_nir(torch.nn.Sequential(torch.nn.Linear(3, 2), LIF(tau=2.0)), dt=1e-3, method="euler")
        >>> [(name, type(node).__name__) for name, node in graph.nodes.items()]
        [('input', 'Input'), ('0', 'Affine'), ('1', 'LIF'), ('output', 'Output')]
        >>> graph.nodes["1"].tau
        array([0.002, 0.002], dtype=float32)
    """
    stepping = stepping_of(1.0 if dt is None else dt, method, "zero", None)
    if isinstance(module, Network):
        return _graph_of(module)
    return _Chain(dt, stepping).graph(module, input_shape)


def _graph_of(network: Network, graph: str = "") -> Any:
    """The graph of a network, or one within it, with the names and edges that it was read with."""
    nir = nir_package()
    short = {name: name[len(graph) + 1 :] if graph else name for name, home in network.homes.items() if home == graph}
    nodes: dict[str, Any] = {}
    enters, leaves = dict(short), dict(short)
    for whole, name in short.items():
        if whole in network.doors:
            nodes[name] = _graph_of(network, whole)
            door_in, door_out = network.doors[whole]
            enters[door_in] = leaves[door_out] = name
        elif whole in network.inputs or any(whole == door for door, _ in network.doors.values()):
            nodes[name] = nir.Input(_types(network.shapes[whole][0]))
        elif whole in network.outputs or any(whole == door for _, door in network.doors.values()):
            nodes[name] = nir.Output(_types(network.shapes[whole][1]))
        else:
            nodes[name] = node_of(whole, network[whole], network.shapes[whole][0])
    edges = [
        (leaves[source], enters[target]) for source, target in network.edges if source in leaves and target in enters
    ]
    return nir.NIRGraph(nodes=nodes, edges=edges)


def _types(shape: torch.Size) -> list[int]:
    return [int(size) for size in shape]


class _Chain:
    """Nodes one after the other, as they are added."""

    def __init__(self, dt: float | None, stepping: Stepping) -> None:
        self.dt, self.stepping = dt, stepping
        self.nodes: dict[str, Any] = {}
        self.edges: list[Edge] = []
        self.last = "input"
        self.shape = torch.Size()

    def graph(self, module: nn.Module, input_shape: Sequence[int] | None) -> Any:
        """The whole graph of a module."""
        nir = nir_package()
        members = list(_members(module, ""))
        self.shape = torch.Size(input_shape) if input_shape is not None else _taken(members)
        self.nodes["input"] = nir.Input(_types(self.shape))
        for name, member in members:
            self._add(name, member)
        self.nodes["output"] = nir.Output(_types(self.shape))
        self.edges.append((self.last, "output"))
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges)

    def _add(self, name: str, module: nn.Module) -> None:
        if isinstance(module, Network):
            self._append(name, _graph_of(module))
            self.shape = module.shapes[module.outputs[0]][1]
        elif type(module) is Recurrent:
            self._add_recurrent(name, module)
        elif isinstance(module, FlexSN):
            self._add_neuron(name, module)
        elif not (isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and not module.training)):
            self._append(name, node_of(name, module, self.shape))

    def _append(self, name: str, node: Any) -> None:
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name
        if type(node).__name__ != "NIRGraph":
            self.shape = shape_after(name, layer_of(name, node, self.shape, self.stepping), self.shape)

    def _add_neuron(self, name: str, neuron: FlexSN) -> str:
        """The neuron's nodes; the first of them, where its input enters."""
        first = ""
        for suffix, node in nodes_of(name, neuron, self.shape, self.dt, self.stepping.method):
            self._append(name + suffix, node)
            first = first or self.last
        return first

    def _add_recurrent(self, name: str, layer: Recurrent) -> None:
        if layer.neuron.num_inputs != 1 or layer.output != 0:
            raise ValueError(f"module {name!r} (Recurrent): NIR knows one input and one output of a neuron")
        first = self._add_neuron(f"{name}.neuron", layer.neuron)
        back = f"{name}.connection"
        self.nodes[back] = node_of(back, _connection(layer), self.shape)
        self.edges += [(self.last, back), (back, first)]


def _connection(layer: Recurrent) -> Any:
    """What feeds a layer's output back, without the diagonal where there are no autapses."""
    if layer.autapses:
        return layer.connection
    linear: Any = layer.connection
    masked = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
    masked.weight = nn.Parameter(linear.weight.detach().masked_fill(layer._diagonal, 0.0))
    masked.bias = linear.bias
    return masked


def _members(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield name or type(module).__name__.lower(), module
        return
    for child, member in module.named_children():
        yield from _members(member, f"{name}.{child}" if name else child)


def _taken(members: Sequence[tuple[str, nn.Module]]) -> torch.Size:
    """The shape that the first layer takes, where it tells."""
    for _, module in members:
        if isinstance(module, Network):
            return module.shapes[module.inputs[0]][0]
        if isinstance(module, nn.Linear):
            return torch.Size([module.in_features])
        if isinstance(module, Recurrent) and isinstance(module.connection, nn.Linear):
            return torch.Size([module.connection.in_features])
        if not isinstance(module, (nn.Identity, nn.Dropout)):
            break
    raise ValueError("the first layer does not tell the shape of a step; say input_shape=, without time and batch")
