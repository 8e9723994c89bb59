"""Every node of NIR against its equation, by hand."""

from __future__ import annotations

import warnings
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_equations import ByHand, heterogeneous
from torch import Tensor

from flexsn.functional import set_step_mode
from flexsn.nir import from_nir

pytestmark = pytest.mark.usefixtures("in_fp64")
DRAW = np.random.default_rng(0)


def graph_of(node: Any, *shape: int) -> Any:
    nodes = {"in": nir.Input(list(shape)), "node": node, "out": nir.Output(None)}
    return nir.NIRGraph(nodes, [("in", "node"), ("node", "out")], type_check=False)


def compared(graph: Any, x: Tensor, method: str = "exact", reset: str = "zero") -> Tensor:
    """The same as by hand, compiled, in chunks as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = from_nir(graph, dt=0.5, method=method, reset=reset)
        y = net(x)
        (expected,) = ByHand(graph, 0.5, method, reset, net)(x)
        torch.testing.assert_close(y, expected)
        net.reset()
        assert torch.equal(torch.cat([net(part) for part in x.split(5)]), y)
    return y


@pytest.mark.parametrize(("method", "reset"), [("exact", "zero"), ("euler", "subtract")])
@pytest.mark.parametrize("kind", ["I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"])
def test_neurons(kind: str, method: str, reset: str) -> None:
    y = compared(graph_of(heterogeneous(kind, 2, 3), 2, 3), 2 * torch.rand(12, 4, 2, 3), method, reset)
    assert y.any() and len(y.unique()) > 1


def test_equal_time_constants_are_no_division_by_zero() -> None:
    node = heterogeneous("CubaLI", 3)
    node.tau_syn = node.tau_mem.copy()
    node.tau_syn[0] *= 1 + 1e-9
    compared(graph_of(node, 3), torch.rand(12, 2, 3))


def conv(kind: str, *weight: int, padding: Any, **options: Any) -> Any:
    bias, options = DRAW.normal(size=weight[0]), {"stride": 1, "dilation": 1, "groups": 1, **options}
    return getattr(nir, kind)(input_shape=None, weight=DRAW.normal(size=weight), bias=bias, padding=padding, **options)


STATELESS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Affine": (nir.Affine(DRAW.normal(size=(5, 3)), DRAW.normal(size=5)), (3,)),
    "Affine in places": (nir.Affine(DRAW.normal(size=(2, 5, 3)), DRAW.normal(size=(2, 5))), (2, 3)),
    "Linear": (nir.Linear(DRAW.normal(size=(5, 3))), (3,)),
    "Scale": (nir.Scale(DRAW.normal(size=(2, 3))), (2, 3)),
    "Conv1d": (conv("Conv1d", 4, 1, 3, padding=2, stride=2, groups=2), (2, 9)),
    "Conv1d same": (conv("Conv1d", 4, 2, 3, padding="same"), (2, 9)),
    "Conv2d": (conv("Conv2d", 4, 2, 3, 2, padding=(1, 0), stride=(2, 1), dilation=(1, 2)), (2, 6, 7)),
    "Conv2d valid": (conv("Conv2d", 4, 2, 3, 3, padding="valid"), (2, 6, 7)),
    "SumPool2d": (nir.SumPool2d(np.array([2, 3]), np.array([2, 1]), np.array([1, 0])), (2, 6, 7)),
    "AvgPool2d": (nir.AvgPool2d(np.array([2, 3]), np.array([2, 1]), np.array([1, 0])), (2, 6, 7)),
    "Flatten": (nir.Flatten({"input": np.array([2, 3, 4])}, 0, -1), (2, 3, 4)),
    "Flatten some": (nir.Flatten({"input": np.array([2, 3, 4])}, 1, 2), (2, 3, 4)),
    "Threshold": (nir.Threshold(DRAW.uniform(-0.5, 0.5, 3)), (3,)),
    "Delay": (nir.Delay(np.full(3, 1.5)), (3,)),
    "Delay of each its own": (nir.Delay(np.array([[0.0, 0.5], [1.4, 3.0]])), (2, 2)),
    "Delay of no step": (nir.Delay(np.zeros(3)), (3,)),
}


@pytest.mark.parametrize("name", STATELESS)
def test_other_nodes(name: str) -> None:
    node, shape = STATELESS[name]
    compared(graph_of(node, *shape), torch.randn(12, 2, *shape))


def test_a_spike_is_above_the_threshold_not_at_it() -> None:
    one = np.ones(1)
    x = torch.ones(4, 1, 1)
    assert from_nir(nir.IF(r=one, v_threshold=one), dt=1.0)(x).flatten().tolist() == [0, 1, 0, 1]
    assert from_nir(nir.Threshold(one), dt=1.0)(x).flatten().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_batch_dimensions(batch: tuple[int, ...]) -> None:
    node, shape = STATELESS["Conv2d"]
    net = from_nir(graph_of(node, *shape), dt=1.0)
    x = torch.rand(5, *batch, *shape)
    y = net(x)
    torch.testing.assert_close(y.reshape(5, -1, *y.shape[-3:]), net(x.reshape(5, -1, *shape)))


def test_single_steps_are_the_sequence() -> None:
    nodes = {"in": nir.Input([3]), "lif": heterogeneous("LIF", 3), "d": nir.Delay(np.array([0.0, 1.0, 2.0]))}
    edges = [("in", "lif"), ("lif", "d"), ("d", "out")]
    graph = nir.NIRGraph({**nodes, "out": nir.Output([3])}, edges)
    x = 2 * torch.rand(8, 2, 3)
    net, single = from_nir(graph, dt=1.0), from_nir(graph, dt=1.0)
    set_step_mode(single, "s")
    assert torch.equal(torch.stack([single(step) for step in x]), net(x))


def test_parameters_learn_once_they_are_parameters() -> None:
    net: Any = from_nir(graph_of(heterogeneous("LIF", 3), 3), dt=0.5)
    assert not list(net.parameters()) and "node.tau" in net.state_dict()
    net.node.tau = torch.nn.Parameter(net.node.tau)
    net(2 * torch.rand(12, 2, 3)).sum().backward()
    assert net.node.tau.grad.all()
