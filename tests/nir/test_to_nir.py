"""to_nir: what a module becomes, and what cannot be said."""

from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, Recurrent, neurons
from flexsn.functional import set_backend
from flexsn.nir import from_nir, to_nir

DT = 1e-3


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(module: nn.Module, x: Tensor, graph: Any, method: str, reset: str = "zero") -> Tensor:
    """The graph computes what the module does."""
    net = from_nir(graph, DT, method=method, reset=reset)
    for each in (module, net):
        set_backend(each, "torch")
    with torch.no_grad():
        y = module(x)
        torch.testing.assert_close(net(x), y)
    assert len(y.unique()) > 1
    return y  # type: ignore[no-any-return]


NEURONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "IF": (neurons.IF, {}),
    "LIF": (neurons.LIF, {"tau": 3.0}),
    "LIF, input as it is": (neurons.LIF, {"tau": 3.0, "decay_input": False, "v_reset": None}),
    "LIF of channels": (neurons.LIF, {"tau": 3.0, "learnable": ("tau", "v_threshold"), "shape": (4,)}),
    "PLIF": (neurons.PLIF, {"init_tau": 2.5}),
    "CubaLIF": (neurons.CubaLIF, {"alpha": 0.6, "beta": 0.8}),
    "NonSpikingIF": (neurons.NonSpikingIF, {}),
    "NonSpikingLIF": (neurons.NonSpikingLIF, {"tau": 3.0}),
}


@pytest.mark.parametrize("method", ["exact", "euler"])
@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_computes_the_same(name: str, method: str) -> None:
    kind, options = NEURONS[name]
    neuron = kind(step_mode="m", **options)
    reset = "subtract" if options.get("v_reset", 0) is None else "zero"
    same(neuron, 2 * drawn(20, 3, 4), to_nir(neuron, DT, input_shape=(4,), method=method), method, reset)


def test_time_constants() -> None:
    """A step goes 1/tau of the way: by Euler's rule tau steps, solved exactly somewhat less."""
    neuron = neurons.LIF(tau=4.0)
    euler, exact = (to_nir(neuron, DT, (2,), method).nodes["lif"] for method in ("euler", "exact"))
    np.testing.assert_allclose(euler.tau, [4e-3, 4e-3], rtol=1e-6)
    np.testing.assert_allclose(exact.tau, 2 * [-1e-3 / math.log(0.75)], rtol=1e-6)
    assert isinstance(to_nir(neurons.CubaLIF(), DT, (2,), "euler").nodes["cubalif"], nir.CubaLIF)


@pytest.mark.parametrize("autapses", [True, False])
def test_a_network_with_a_recurrent_layer(autapses: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(neurons.CubaLIF(step_mode="m"), nn.Linear(4, 4), autapses=autapses)
    net = nn.Sequential(
        nn.Linear(3, 4), layer, nn.Sequential(nn.Dropout(), nn.Linear(4, 2), neurons.NonSpikingLIF(3.0))
    )
    graph = to_nir(net.eval(), DT)
    assert [*graph.nodes] == ["input", "0", "1.neuron.current", "1.neuron", "1.connection", "2.1", "2.2", "output"]
    assert autapses == bool(graph.nodes["1.connection"].weight.diagonal().any())
    same(net, 2 * drawn(20, 3, 3), graph, "exact")


def test_a_connection_lane_by_lane_and_a_convolution() -> None:
    weight, draw = nn.Parameter(drawn(4)), 2 * drawn(20, 3, 4)
    layer = Recurrent(neurons.LIF(step_mode="m"), weight)
    same(layer, draw, to_nir(layer, DT, (4,)), "exact")
    layer = Recurrent(neurons.LIF(step_mode="m"), nn.Conv2d(2, 2, 3, padding=1))
    same(layer, 2 * drawn(9, 3, 2, 4, 5), to_nir(layer, DT, (2, 4, 5)), "exact")


def test_convolutions_pools_and_flattening() -> None:
    layers = [nn.Conv2d(2, 3, 3, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2, bias=False)]
    graph, x = to_nir(nn.Sequential(*layers), input_shape=(2, 9, 9)), drawn(5, 2, 9, 9)
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert kinds == ["Input", "Conv2d", "AvgPool2d", "Flatten", "Linear", "Output"]
    torch.testing.assert_close(from_nir(graph, 1.0)(x), nn.Sequential(*layers)(x))
    torch.testing.assert_close(
        from_nir(to_nir(nn.Flatten(2), input_shape=(2, 3)), 1.0)(drawn(5, 4, 2, 3)).shape, (5, 4, 6)
    )


def test_graphs_within_graphs_keep_their_names(tmp_path: Any) -> None:
    one = np.ones(2)
    inner = nir.NIRGraph(
        {
            "in": nir.Input([2]),
            "lif": nir.LIF(3 * one, one, 0 * one, one),
            "w": nir.Linear(np.eye(2)),
            "out": nir.Output([2]),
        },
        [("in", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "out")],
    )
    outer = nir.NIRGraph(
        {"input": nir.Input([2]), "a": inner, "s": nir.Scale(2 * one), "b": inner, "output": nir.Output([2])},
        [("input", "a"), ("a", "s"), ("s", "b"), ("b", "output"), ("input", "b")],
    )
    net = from_nir(outer, 1.0)
    nir.write(tmp_path / "nested.nir", to_nir(net))
    again = nir.read(tmp_path / "nested.nir")
    assert set(again.edges) == set(outer.edges) and set(again.nodes["a"].edges) == set(inner.edges)
    x = 3 * drawn(20, 3, 2)
    assert torch.equal(from_nir(again, 1.0)(x), net(x)) and net["b.lif"].r.tolist() == [1, 1]
    assert torch.equal(from_nir(to_nir(nn.Sequential(net, nn.Linear(2, 1))), 1.0)["0.b.w"].weight, torch.eye(2))


def test_parameters_of_one_value_are_written_for_each_lane() -> None:
    scalar = nir.LIF(*(np.array(value) for value in (3.0, 1.0, 0.0, 1.0)))
    nodes = {"in": nir.Input([4]), "lif": scalar, "out": nir.Output([4])}
    net = from_nir(nir.NIRGraph(nodes, [("in", "lif"), ("lif", "out")], type_check=False), 1.0)
    assert to_nir(net).nodes["lif"].tau.tolist() == [3.0] * 4


def lif(**options: Any) -> FlexSN:
    return neurons.LIF(step_mode="m", **options)


UNSAYABLE: dict[str, tuple[Any, dict[str, Any], str]] = {
    "another layer": (
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        {},
        r"module '1' \(BatchNorm1d\) cannot be said in NIR: it has no node for it",
    ),
    "a module of one's own": (nn.Bilinear(2, 2, 2), {"input_shape": (2,)}, r"module 'bilinear' \(Bilinear\)"),
    "another neuron": (neurons.QIF(), {"input_shape": (2,)}, r"\(QIF\) cannot be said in NIR: .* knows IF, LIF, PLIF"),
    "a core": (FlexSN(lambda x, v: (v, v + x)), {"input_shape": (2,)}, r"module 'flexsn' \(FlexSN\)"),
    "reduced": (lif(time_reduction="sum"), {"input_shape": (2,)}, "all steps, not time_reduction='sum'"),
    "no dt": (lif(), {"input_shape": (2,), "dt": None}, r"module 'lif' \(LIF\) counts in steps; .* dt="),
    "no shape": (lif(), {}, "say input_shape=, without time and batch"),
    "dropout": (nn.Dropout(), {"input_shape": (2,)}, r"\(Dropout\) cannot be said in NIR: .*eval\(\)"),
    "padding": (
        nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"),
        {"input_shape": (1, 5)},
        "padding_mode='circular'",
    ),
    "pool": (nn.AvgPool2d(2, ceil_mode=True), {"input_shape": (1, 5, 5)}, "ceil_mode"),
    "forgets all": (neurons.NonSpikingLIF(tau=1.0), {"input_shape": (2,)}, 'use method="euler"'),
    "does not fit": (nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)), {}, r"node '1' \(Linear\) does not take"),
    "method": (lif(), {"method": "heun"}, 'method must be "exact" or "euler"'),
    "second input": (
        Recurrent(FlexSN(lambda x, z, v: (v, v + x + z), num_inputs=2), nn.Linear(2, 2)),
        {},
        "one input and one output of a neuron",
    ),
}


@pytest.mark.parametrize("what", UNSAYABLE)
def test_what_cannot_be_said(what: str) -> None:
    module, options, text = UNSAYABLE[what]
    with pytest.raises(ValueError, match=text):
        to_nir(module, **{"dt": DT, **options})
