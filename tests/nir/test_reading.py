"""from_nir: what it makes of arguments and graphs that are not right, and what it takes them for."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_equations import heterogeneous

import flexsn.nir
from flexsn import surrogate
from flexsn.nir import from_nir

ONE = np.ones(3)
IF = nir.IF(r=ONE, v_threshold=ONE)


def graph_of(edges: list[tuple[str, str]], **nodes: Any) -> Any:
    ends = {"in": nir.Input([3]), "out": nir.Output([3])}
    return nir.NIRGraph({**ends, **nodes}, edges, type_check=False)


def chain(node: Any) -> Any:
    return graph_of([("in", "n"), ("n", "out")], n=node)


def within() -> Any:
    two = {"in": nir.Input([3]), "in2": nir.Input([3]), "out": nir.Output([3])}
    return nir.NIRGraph(two, [("in", "out"), ("in2", "out")])


class Unheard(nir.IF):
    """No node of NIR."""


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "dt": (chain(IF), {"dt": 0.0}, "dt must be a finite number > 0, got 0.0"),
    "reset": (chain(IF), {"reset": "soft"}, 'reset must be "zero" or "subtract", got \'soft\''),
    "method": (chain(IF), {"method": "heun"}, 'method must be "exact" or "euler", got \'heun\''),
    "surrogate": (chain(IF), {"surrogate": 2.0}, "surrogate must be a function such as flexsn.surrogate.ATan"),
    "graph": (3, {}, "graph must be a nir.NIRGraph or the path of a file, got int"),
    "node": (chain(Unheard(r=ONE, v_threshold=ONE)), {}, "node 'n' is a Unheard; NIR has Affine, AvgPool2d"),
    "parameter": (
        chain(nir.IF(r=np.ones(2), v_threshold=np.ones(2))),
        {},
        r"node 'n' \(IF\): r has shape \(2,\), but what enters has shape \(3,\)",
    ),
    "tau": (chain(nir.LI(tau=0 * ONE, r=ONE, v_leak=ONE)), {}, r"node 'n' \(LI\): tau must be > 0, got 0.0"),
    "delay": (chain(nir.Delay(-ONE)), {}, r"node 'n' \(Delay\): delay must be finite numbers >= 0"),
    "weight": (chain(nir.Linear(np.ones((2, 4)))), {}, r"node 'n' \(Linear\) does not take .* shape \(3,\)"),
    "no input": (nir.NIRGraph({"n": IF}, [], type_check=False), {}, "the graph has no Input node"),
    "edge to nowhere": (graph_of([("in", "x")]), {}, r"edge \('in', 'x'\) names the node 'x', of which there is none"),
    "lost": (graph_of([("in", "out"), ("n", "out")], n=IF), {}, r"no input reaches the node\(s\) 'n'"),
    "shapes": (
        graph_of([("in", "out"), ("in", "w"), ("w", "out")], w=nir.Linear(np.ones((2, 3)))),
        {},
        r"edge \('w', 'out'\): 'w' gives \(2,\), 'out' takes \(3,\)",
    ),
    "doors": (chain(within()), {}, "the graph 'n' within the graph has 2 Input nodes, edges need exactly one"),
    "names": (
        graph_of([("in", "n"), ("n", "n.in"), ("n.in", "out")], n=chain(IF), **{"n.in": IF}),
        {},
        "two nodes are called 'n.in', one of them in a graph within the graph",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what: str) -> None:
    graph, options, text = WRONG[what]
    with pytest.raises(ValueError, match=text):
        from_nir(graph, **{"dt": 1.0, **options})


def test_inputs_are_counted_and_named() -> None:
    graph = graph_of(
        [("in", "n"), ("in2", "n"), ("n", "out"), ("in2", "out2")], n=IF, in2=nir.Input([3]), out2=nir.Output([3])
    )
    net, x = from_nir(graph, dt=1.0), torch.rand(4, 2, 3)
    assert (net.inputs, net.outputs) == (("in", "in2"), ("out", "out2"))
    _, passed = net(x, 2 * x)
    assert torch.equal(passed, 2 * x)
    with pytest.raises(ValueError, match=r"expected 2 input\(s\) \('in', 'in2'\), got 1"):
        net(x)


def test_another_batch_without_reset_is_an_error() -> None:
    net = from_nir(chain(nir.Delay(2 * ONE)), dt=1.0)
    net(torch.rand(4, 2, 3))
    with pytest.raises(
        ValueError, match=r"changed from \(2, 3\) to \(5, 3\) while Delay still holds steps; call reset"
    ):
        net(torch.rand(4, 5, 3))
    net.reset()
    assert not net(torch.rand(2, 5, 3)).any()


def test_a_surrogate_shapes_gradients_and_nothing_else() -> None:
    spike = surrogate.Sigmoid(alpha=2.0)
    net = from_nir(chain(IF), dt=1.0, surrogate=spike)
    assert not spike.strict
    x = torch.ones(1, 1, 3, requires_grad=True)
    spikes = net(x)
    spikes.sum().backward()
    assert not spikes.any() and x.grad is not None  # at the threshold, not above it
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.5))


def test_names_that_python_does_not_take() -> None:
    graph = graph_of([("in", "forward"), ("forward", "1.a"), ("1.a", "out")], **{"forward": IF, "1.a": nir.Scale(ONE)})
    net = from_nir(graph, dt=1.0)
    assert [name for name, _ in net.named_children()] == ["in", "forward_", "1_a", "out"]
    assert net["forward"] is net.forward_ and net["1.a"].scale.tolist() == [1, 1, 1]
    with pytest.raises(KeyError, match="nobody"):
        net["nobody"]


def test_a_file_a_path_and_a_single_node(tmp_path: Path) -> None:
    x = 2 * torch.rand(9, 2, 3)
    nir.write(tmp_path / "node.nir", chain(IF))
    y = from_nir(IF, dt=1.0)(x)
    assert y.any() and all(
        torch.equal(from_nir(p, dt=1.0)(x), y) for p in (tmp_path / "node.nir", str(tmp_path / "node.nir"))
    )


def test_a_network_is_one_graph_of_torch_compile() -> None:
    loop = graph_of(
        [("in", "n"), ("n", "w"), ("w", "n"), ("n", "out")], n=heterogeneous("LIF", 3), w=nir.Linear(np.eye(3))
    )
    net, x = from_nir(loop, dt=1.0), 2 * torch.rand(9, 2, 3)
    y = net(x)
    net.reset()
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(x), y)


def test_a_missing_package_says_how_to_get_it() -> None:
    program = "import sys; sys.modules['nir'] = None; import flexsn; flexsn.nir.from_nir('x.nir', dt=1.0)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 1 and "ImportError: flexsn.nir needs the package nir" in run.stderr
    assert 'pip install "flexsn[nir]"' in run.stderr


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(flexsn.nir.__path__)])
def test_doctests(module: str) -> None:
    assert not doctest.testmod(importlib.import_module(f"flexsn.nir.{module}")).failed
