"""from_nir: a graph becomes a network."""

from __future__ import annotations

import math
import numbers
import os
from collections import deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from flexsn import surrogate as surrogates
from flexsn.nir.delay import Delay
from flexsn.nir.dynamics import Neuron, SpikeFunction, Stepping
from flexsn.nir.layers import Threshold
from flexsn.nir.loop import Loop
from flexsn.nir.network import Network
from flexsn.nir.nodes import layer_of, shape_after
from flexsn.nir.package import nir_package
from flexsn.nir.wiring import Edge, flattened, parts_of

__all__ = ["from_nir", "stepping_of"]

Shapes = dict[str, tuple[torch.Size, torch.Size]]


def from_nir(
    graph: Any,
    dt: float,
    reset: str = "zero",
    surrogate: SpikeFunction | None = None,
    method: str = "exact",
) -> Network:
    """Make a network of a graph in the Neuromorphic Intermediate Representation.

    Neurons run as fused scans over whole sequences, and all nodes that a cycle ties together as one recurrent layer.
    What each node becomes is in ``docs/nir.md``.

    Args:
        graph: a ``nir.NIRGraph``, a single node, or the path of a file.
        dt: duration of a step, in the unit of the graph's time constants. NIR does not say it.
        reset: what a spike does to the membrane, which NIR does not say either: ``"zero"`` sets it to ``v_reset`` (0
            mostly), ``"subtract"`` takes ``v_threshold`` off.
        surrogate: the spike function, :class:`flexsn.surrogate.ATan` by default. A spike is where the membrane is above
            the threshold, as NIR has it, whatever ``strict`` of a surrogate of ours says.
        method: how an equation becomes a step. ``"exact"``: its solution, the input being constant over the step.
            ``"euler"``: ``dt`` times the derivative, first of the current, then of the membrane, as snnTorch and Norse
            step.

    Returns:
        A :class:`~flexsn.nir.Network`: ``[T, *batch, *shape]`` in, the same out.

    Raises:
        ImportError: the package ``nir`` is not there: ``pip install "flexsn[nir]"``.
        ValueError: arguments out of their range; a graph with edges to nowhere, shapes that do not fit, nodes that no
            input reaches, or a node that NIR does not have.

    Example:
        >>> import nir, numpy as np, torch
        >>> one = np.ones(2)
        >>> graph = nir.NIRGraph.from_list(nir.LIF(tau=4e-3 * one, r=one, v_leak=0 * one, v_threshold=one))
        >>> net = from_nir(graph, dt=1e-3, method="euler")
        >>> net(torch.full((4, 2), 3.0)).tolist()
        [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    stepping = stepping_of(dt, method, reset, surrogate)
    whole = _graph(graph)
    flat = flattened(whole)
    inputs, outputs = (_named(whole, kind) for kind in ("Input", "Output"))
    layers, shapes = _layers(flat.nodes, flat.edges, inputs, stepping)
    parts = parts_of(
        layers,
        flat.edges,
        inputs,
        late={name for name, layer in layers.items() if isinstance(layer, Delay) and layer.shortest > 0},
        held={name for name, layer in layers.items() if isinstance(layer, (Neuron, Threshold))},
    )
    loops = {part: Loop(part, layers, flat.edges, shapes) for part in parts if part.cyclic}
    return Network(flat, layers, shapes, parts, loops, inputs, outputs)


def stepping_of(dt: Any, method: str, reset: str, surrogate: SpikeFunction | None) -> Stepping:
    """How equations become steps, or what is wrong with what was asked."""
    if isinstance(dt, bool) or not isinstance(dt, numbers.Real) or not 0 < float(dt) < math.inf:
        raise ValueError(f"dt must be a finite number > 0, got {dt!r}")
    if method not in ("exact", "euler"):
        raise ValueError(f'method must be "exact" or "euler", got {method!r}')
    if reset not in ("zero", "subtract"):
        raise ValueError(f'reset must be "zero" or "subtract", got {reset!r}')
    spike = surrogates.ATan(strict=True) if surrogate is None else surrogate
    if not callable(spike):
        raise ValueError(f"surrogate must be a function such as flexsn.surrogate.ATan(), got {surrogate!r}")
    if isinstance(spike, surrogates.Surrogate) and not spike.strict:
        spike = deepcopy(spike)
        spike.strict = True
    return Stepping(float(dt), method, reset, spike)


def _graph(given: Any) -> Any:
    nir = nir_package()
    if isinstance(given, (str, os.PathLike)):
        given = nir.read(given, type_check=False)  # files have been written that nir finds fault with
    if not isinstance(given, nir.NIRNode):
        raise ValueError(f"graph must be a nir.NIRGraph or the path of a file, got {type(given).__name__}")
    return given if isinstance(given, nir.NIRGraph) else nir.NIRGraph.from_list(given)


def _named(graph: Any, kind: str) -> tuple[str, ...]:
    found = tuple(name for name, node in graph.nodes.items() if type(node).__name__ == kind)
    if not found:
        raise ValueError(f"the graph has no {kind} node, so nobody knows where values {kind.lower()}; add one")
    return found


def _layers(
    nodes: Mapping[str, Any], edges: Sequence[Edge], inputs: Sequence[str], stepping: Stepping
) -> tuple[dict[str, nn.Module], Shapes]:
    """Every node's layer, and the shapes before and after it, as they come along the edges from the inputs."""
    entering = {name: _declared(name, nodes, edges) for name in inputs}
    layers: dict[str, nn.Module] = {}
    shapes: Shapes = {}
    waiting = deque(inputs)
    while waiting:
        name = waiting.popleft()
        shape = entering[name]
        layers[name] = layer_of(name, nodes[name], shape, stepping)
        shapes[name] = shape, shape_after(name, layers[name], shape)
        for source, target in edges:
            if source == name and target not in entering:
                entering[target] = shapes[name][1]
                waiting.append(target)
    lost = sorted(nodes.keys() - layers.keys())
    if lost:
        raise ValueError(f"no input reaches the node(s) {', '.join(map(repr, lost))}")
    for source, target in edges:
        left, taken = shapes[source][1], shapes[target][0]
        if left != taken:
            raise ValueError(
                f"edge {(source, target)}: {source!r} gives {tuple(left)}, {target!r} takes {tuple(taken)}"
            )
    return layers, shapes


def _declared(name: str, nodes: Mapping[str, Any], edges: Sequence[Edge]) -> torch.Size:
    """The shape of an Input, without the batch of a sample, which Norse writes as well."""
    shape = _sizes(nodes[name].input_type["input"])
    if shape is None:
        raise ValueError(f"the Input {name!r} does not say its shape")
    for source, target in edges:
        taken = _sizes(nodes[target].input_type["input"]) if source == name else None
        if taken and shape[-len(taken) :] == taken:
            return taken
    return shape


def _sizes(shape: Any) -> torch.Size | None:
    return None if shape is None else torch.Size(int(size) for size in shape)
