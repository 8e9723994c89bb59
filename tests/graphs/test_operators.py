"""The operators of a compiled graph: what torch asks of every operator, and what they promise besides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, FlexSNError, GradientError, surrogate
from flexsn.graphs.call import GraphCall
from tests.flexsn.contract_cores import sequence

spike = surrogate.ATan()


class Captured:
    """A backend that runs graphs as they stand, and keeps the arguments of the operators in them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, graph: torch.fx.GraphModule, examples: Any) -> Any:
        nodes = [n for n in graph.graph.nodes if n.target is torch.ops.flexsn.scan]

        class Keeping(torch.fx.Interpreter):
            def run_node(inner, node: torch.fx.Node) -> Any:
                if node in nodes:
                    self.calls.append(inner.fetch_args_kwargs_from_env(node)[0])
                return super().run_node(node)

        return Keeping(graph).run


def weighted(options: dict[str, Any]) -> FlexSN:
    weight = nn.Parameter(torch.tensor([0.5, 1.0, 0.25]))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + x * weight
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    return FlexSN(core, **options)


def check_operators(neuron: FlexSN, x: Tensor) -> GraphCall:
    """Ask what torch asks of every operator, of those a compiled neuron runs as; returns their call."""
    captured = Captured()
    torch.compile(neuron, backend=captured, fullgraph=True)(x.requires_grad_())
    (arguments,) = captured.calls
    torch.library.opcheck(torch.ops.flexsn.scan.default, arguments)
    call = GraphCall.of(arguments[1])
    results = [r.detach() for r in torch.ops.flexsn.scan(*arguments)]
    split = len(call.packed)
    grads = [torch.ones_like(r) if r.is_floating_point() else None for r in results[split : split + call.num_results]]
    plain = [[t.detach() for t in group] for group in arguments[2:]]
    kept = results[split + call.num_results :]
    backward = (*arguments[:2], *plain, kept, grads, [True] * sum(map(len, plain)))
    torch.library.opcheck(torch.ops.flexsn.scan_backward.default, backward)
    return call


@pytest.mark.parametrize("options", [{}, {"output_dtype": torch.bool, "time_dim": 1}, {"backend": "torch"}])
def test_what_torch_asks_of_operators(options: dict[str, Any]) -> None:
    check_operators(weighted(options), sequence(4, 12, 3))


def test_without_gradients_nothing_is_kept() -> None:
    captured, neuron = Captured(), weighted({})
    run = torch.compile(neuron, backend=captured, fullgraph=True)
    with torch.no_grad():
        run(sequence(20, 3))
    (arguments,) = captured.calls
    assert len(torch.ops.flexsn.scan(*arguments)) == 2
    assert not GraphCall.of(arguments[1]).training


def test_what_was_copied_and_changed_is_an_error() -> None:
    """Hooks that copy what is kept lose what ran; it is found again as long as nothing changed."""
    box = {"tau": 2.0}
    neuron = FlexSN(lambda x, v: (v * v + x * box["tau"], v + x / box["tau"]))
    x = sequence(20, 3).requires_grad_()
    run = torch.compile(neuron, backend="eager", fullgraph=True)

    def gradient(copied: bool, tau: float) -> Tensor:
        neuron.reset()
        box["tau"] = 2.0
        hooks = (torch.clone, lambda t: t) if copied else (lambda t: t, lambda t: t)
        with torch.autograd.graph.saved_tensors_hooks(*hooks):
            y = run(x)
        box["tau"] = tau
        return torch.autograd.grad(y.sum(), x)[0]

    assert torch.equal(gradient(True, 2.0), gradient(False, 2.0))
    assert torch.equal(gradient(True, 2.0), gradient(False, 4.0))
    with pytest.raises(GradientError, match="changed between a forward pass and its backward pass"):
        gradient(True, 4.0)


def test_a_core_that_reads_another_parameter_by_now_is_an_error() -> None:
    box = {"w": nn.Parameter(torch.tensor(0.5))}
    neuron = FlexSN(lambda x, v: (v + sum(w * x for w in box.values()), v + x))
    run = torch.compile(neuron, backend="eager", fullgraph=True)
    run(sequence(4, 3))
    box["more"] = nn.Parameter(torch.tensor(0.5))
    neuron.reset()
    with pytest.raises(FlexSNError, match=r"hands in box.w, and now the core reads box.w, box.more") as caught:
        run(sequence(4, 3))
    assert "torch.compiler.reset() compiles anew" in str(caught.value)


def test_a_graph_of_a_neuron_that_is_gone_says_so() -> None:
    captured = Captured()
    torch.compile(weighted({}), backend=captured, fullgraph=True)(sequence(4, 3))
    torch._dynamo.reset()
    with pytest.raises(FlexSNError, match="scans a core that is gone"):
        torch.ops.flexsn.scan("tests:core/0#7", *captured.calls[0][1:])


CORES = """
import torch
from flexsn import surrogate
spike = surrogate.ATan()

def core(x, v):
    h = v + (x - v) / {tau}
    s = spike(h - 1.0)
    return s, h * (1.0 - s)
"""
EXPORT = """
import torch, {module} as cores
from flexsn import FlexSN
from flexsn.neurons import LIF
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(3, 4), FlexSN(cores.core), LIF(tau=3.0)).eval()
x = torch.linspace(-1, 4, 30).reshape(5, 2, 3)
steps = torch.export.Dim("steps", min=2)
with torch.no_grad():
    program = torch.export.export(net, (x,), dynamic_shapes=({{0: steps}},))
    torch.export.save(program, "net.pt2")
    for m in net[1:]:
        m.reset()
    torch.save((torch.cat([x, x]), net(torch.cat([x, x]))), "results.pt")
"""
LOAD = """
import torch, {imports}
from flexsn import neurons
lif = neurons.LIF(tau=3.0)
program = torch.export.load("net.pt2").module()
x, want = torch.load("results.pt")
assert torch.equal(program(x), want)
assert torch.equal(program(x), want)
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_an_exported_model_runs_where_its_core_is_imported(tmp_path: Path) -> None:
    (tmp_path / "somewhere.py").write_text(CORES.format(tau=2.0))
    done = python(EXPORT.format(module="somewhere"), tmp_path)
    assert done.returncode == 0, done.stderr
    done = python(LOAD.format(imports="somewhere"), tmp_path)
    assert done.returncode == 0, done.stderr
    missing = python(LOAD.format(imports="os"), tmp_path)
    assert "FlexSNError: an exported program scans the core core of somewhere, which is not imported" in missing.stderr
    assert "import somewhere" in missing.stderr
    (tmp_path / "somewhere.py").write_text(CORES.format(tau=4.0))
    changed = python(LOAD.format(imports="somewhere"), tmp_path)
    assert "is not there, or not what it was at the export" in changed.stderr
