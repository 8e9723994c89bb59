"""Cycles: which edge is a step late, and one compiled layer for all that a cycle ties together."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_equations import ByHand, Edge, heterogeneous
from torch import Tensor

from flexsn.functional import set_backend, set_step_mode
from flexsn.nir import from_nir, to_nir

pytestmark = pytest.mark.usefixtures("in_fp64")
DRAW = np.random.default_rng(1)


def affine(rows: int, columns: int) -> Any:
    return nir.Affine(DRAW.normal(size=(rows, columns)), DRAW.normal(size=rows))


def conv(rows: int, columns: int, size: int = 3) -> Any:
    weight, bias = DRAW.normal(size=(rows, columns, size, size)) / 2, DRAW.normal(size=rows)
    return nir.Conv2d(None, weight, stride=1, padding=1, dilation=1, groups=1, bias=bias)


def graph_of(path: str, **nodes: Any) -> Any:
    """A graph of edges written as ``a>b>c a>d``."""
    edges = [edge for chain in path.split() for edge in zip(chain.split(">")[:-1], chain.split(">")[1:], strict=True)]
    named = {name: nir.Output(None) if name.startswith("out") else node for name, node in nodes.items()}
    return nir.NIRGraph(named, edges, type_check=False)


def pooled() -> Any:
    """From [4, 5] to [3, 4]."""
    return nir.SumPool2d(np.array([2, 2]), np.array([1, 1]), np.array([0, 0]))


def populations() -> Mapping[str, Any]:
    """Excitation and inhibition of other sizes and kinds."""
    neurons = {"e": heterogeneous("LIF", 5), "i": heterogeneous("CubaLIF", 3)}
    return {"in": nir.Input([5]), **neurons, "ei": affine(3, 5), "ie": affine(5, 3), "out": None}


LOOPS: dict[str, tuple[str, Mapping[str, Any], Sequence[Edge], int | None]] = {
    # edges, nodes, which are late, over how many lanes it is spread
    "to itself": (
        "in>n>n n>out",
        {"in": nir.Input([4]), "n": heterogeneous("LIF", 4), "out": None},
        [("n", "n")],
        None,
    ),
    "by a matrix": (
        "in>n>w>n n>out",
        {"in": nir.Input([4]), "n": heterogeneous("CubaLIF", 4), "w": affine(4, 4), "out": None},
        [("n", "w")],
        None,
    ),
    "populations": ("in>e>ei>i>ie>e i>ie e>out", populations(), [("i", "ie")], 5),
    "by a convolution": (
        "in>n>w>n n>out",
        {"in": nir.Input([2, 4, 5]), "n": heterogeneous("IF", 2, 4, 5), "w": conv(2, 2), "out": None},
        [("n", "w")],
        None,
    ),
    "by channels and pools": (
        "in>n>w>m>p>u>n n>out",
        {"in": nir.Input([2, 4, 5]), "n": heterogeneous("IF", 2, 4, 5), "w": conv(3, 2), "p": pooled(), "out": None}
        | {"m": heterogeneous("LIF", 3, 4, 5), "u": conv(2, 3, size=2)},
        [("m", "p")],
        60,
    ),
    "late by itself": (
        "in>n>d>w>n n>out",
        {"in": nir.Input([3]), "n": heterogeneous("LIF", 3), "d": nir.Delay(np.array([1.0, 2.0, 3.0]))}
        | {"w": affine(3, 3), "out": None},
        [],
        None,
    ),
    "late in part": (
        "in>n>d>n d>out",
        {"in": nir.Input([3]), "n": heterogeneous("LIF", 3), "d": nir.Delay(np.array([0.0, 2.0, 3.0])), "out": None},
        [("d", "n")],
        None,
    ),
    "of thresholds": (
        "in>s>l>t>s t>out",
        {"in": nir.Input([3]), "t": nir.Threshold(np.full(3, 0.4)), "s": nir.Scale(np.array([-0.5, -1, 0.5]))}
        | {"l": heterogeneous("LI", 3), "out": None},
        [("t", "s")],
        None,
    ),
    "of loops": (
        "in>a>b>c>b c>w>a c>out",
        {"in": nir.Input([3]), "a": heterogeneous("LI", 3), "b": heterogeneous("LIF", 3), "c": heterogeneous("LIF", 3)}
        | {"w": affine(3, 3), "out": None},
        [("c", "b"), ("c", "w")],
        None,
    ),
    "in places": (
        "in>n>w>n n>out",
        {"in": nir.Input([2, 3]), "n": heterogeneous("IF", 2, 3), "w": nir.Linear(DRAW.normal(size=(2, 3, 3)))}
        | {"out": None},
        [("n", "w")],
        6,
    ),
}


def built(name: str, **options: Any) -> tuple[Any, Any, Tensor]:
    path, nodes, _, _ = LOOPS[name]
    graph = graph_of(path, **nodes)
    shape = nodes["in"].input_type["input"]
    x = 3 * torch.rand(11, 2, *map(int, shape), generator=torch.Generator().manual_seed(3))
    return graph, from_nir(graph, dt=1.0, **options), x


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_one_layer_that_computes_the_equations(name: str) -> None:
    graph, net, x = built(name)
    _, _, late, lanes = LOOPS[name]
    assert list(net.feedback) == late and net.loop.lanes == lanes
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")  # the loop instead of a kernel
        y = net(x)
        (expected,) = ByHand(graph, 1.0, "exact", "zero", net)(x)
        torch.testing.assert_close(y, expected)
        net.reset()
        assert torch.equal(torch.cat([net(x[:3]), net(x[3:])]), y)
    assert len(y.unique()) > 1


@pytest.mark.parametrize("name", ["late in part", "by channels and pools"])
def test_gradients_are_those_of_the_loop(name: str) -> None:
    graph, net, x = built(name)
    same = from_nir(graph, dt=1.0)
    set_backend(same, "torch")
    x.requires_grad_()
    mine, expected = (torch.autograd.grad(n(x).square().sum(), [x, *n.parameters()]) for n in (net, same))
    for gradient, wanted in zip(mine, expected, strict=True):
        torch.testing.assert_close(gradient, wanted)
        assert gradient.any()


def test_a_round_trip_and_copies() -> None:
    for name in ("populations", "of loops"):
        _, net, x = built(name)
        with torch.no_grad():
            y = net(x)
            for again in (from_nir(to_nir(net), dt=1.0), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                again.reset()
                assert torch.equal(again(x), y)


def test_another_dtype() -> None:
    _, net, x = built("by channels and pools")
    set_backend(net, "torch")
    assert net.float()(x.float()).dtype == torch.float32


def test_a_convolution_in_a_loop_takes_any_batch_dimensions() -> None:
    _, net, x = built("by a convolution")
    with torch.no_grad():
        single, y = x, net(x)
        for batch in ((), (2, 3)):
            net.reset()
            x = torch.rand(5, *batch, 2, 4, 5)
            assert net(x).shape == x.shape
        net.reset()
        set_step_mode(net, "s")
        assert torch.equal(torch.stack([net(step) for step in single]), y)


def test_feedback_does_not_depend_on_the_order_in_which_nodes_and_edges_are_given() -> None:
    path, nodes, late, _ = LOOPS["of loops"]
    graph = graph_of(path, **nodes)
    for _ in range(5):
        names = list(DRAW.permutation(list(graph.nodes)))
        edges = [graph.edges[i] for i in DRAW.permutation(len(graph.edges))]
        shuffled = nir.NIRGraph({name: graph.nodes[name] for name in names}, edges, type_check=False)
        assert list(from_nir(shuffled, dt=1.0).feedback) == late
