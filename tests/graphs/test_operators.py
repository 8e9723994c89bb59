"""The operators of a compiled graph: what torch asks of every operator, and what they promise besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, FlexSNError, GradientError, scan, surrogate
from flexsn.execution.forward import BoundScan
from flexsn.graphs.call import GraphCall
from tests import fresh
from tests.flexsn.contract_cores import sequence, smooth

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


@pytest.mark.parametrize("owner", ["scan", "neuron", "module"])
def test_a_variable_bound_to_another_parameter_is_an_error(owner: str) -> None:
    weight = nn.Parameter(torch.tensor([0.5, 1.0, 0.25]))
    neuron = FlexSN(lambda x, v: (v * weight, v + x * weight))
    if owner == "module":  # which owns the parameter before the neuron looks for one
        neuron = FlexSN(Held(weight, lambda x, v: (v * weight, v + x * weight)))

    def eager(x: Tensor) -> Tensor:
        neuron.reset()
        y: Tensor = scan(neuron.core, x, torch.zeros(3))[0] if owner == "scan" else neuron(x)
        return y

    run, x = torch.compile(eager, backend="aot_eager", fullgraph=True), sequence(4, 3)
    assert torch.equal(run(x), eager(x))
    weight = nn.Parameter(torch.tensor([4.0, 2.0, 1.0]))
    with pytest.raises(FlexSNError, match=r"the parameter that .*weight was when the graph was made") as caught:
        run(x)
    assert "torch.compiler.reset()" in str(caught.value)
    torch.compiler.reset()
    assert torch.equal(torch.compile(eager, backend="aot_eager")(x), eager(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"time_reduction": "max", "output_dtype": torch.bool},
        {"time_reduction": "mean", "rate": True, "detach_every": 5},
        {"store_state_seqs": True, "rate": True, "time_dim": 1},
    ],
)
def test_a_backward_pass_starts_from_what_the_forward_pass_kept(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with lengths and resets, which initial states learn of."""
    ran: list[BoundScan] = []
    forward = BoundScan.forward
    monkeypatch.setattr(BoundScan, "forward", lambda *args: (ran.append(args[0]), forward(*args))[1])
    axis = options.get("time_dim", 0)
    lengths, resets = torch.tensor([20, 0, 13]), (torch.arange(60).view(20, 3) % 7 == 4).movedim(0, axis)
    results = []
    for compiled in (True, False):
        neuron, x = FlexSN(smooth, **options), sequence(20, 3, 2).movedim(0, axis).requires_grad_()
        start = torch.full((3, 2), 0.5, requires_grad=True)
        neuron.init_states = lambda *args, start=start: [start]  # type: ignore[method-assign]
        run = torch.compile(neuron, backend="aot_eager", fullgraph=True) if compiled else neuron
        ran.clear()
        y = run(x, lengths=lengths, reset_mask=resets)
        of = [y, neuron.v, *(neuron.state_seqs or ()), *([neuron.rate] if options.get("rate") else [])]
        loss = sum((t.float() * (1.0 + i)).sum() for i, t in enumerate(of))
        assert isinstance(loss, Tensor)
        results.append((*(t + 0.0 for t in of), *torch.autograd.grad(loss, (x, start))))
        assert [bound.spec.shape.num_steps for bound in ran].count(20) == 1  # others are of examples
    assert all(map(torch.equal, *results))


class Held(nn.Module):
    def __init__(self, weight: nn.Parameter, step: Any) -> None:
        super().__init__()
        self.weight, self.step = weight, step

    def forward(self, x: Tensor, v: Tensor) -> Any:
        return self.step(x, v)


@pytest.mark.parametrize("owner", ["scan", "neuron"])
def test_a_variable_bound_to_another_tensor_that_is_no_parameter_counts(owner: str) -> None:
    scale = torch.tensor([0.5, 1.0, 0.25])
    neuron = FlexSN(lambda x, v: (v * scale, v + x * scale))

    def eager(x: Tensor) -> Tensor:
        neuron.reset()
        y: Tensor = scan(neuron.core, x, torch.zeros(3))[0] if owner == "scan" else neuron(x)
        return y

    run = torch.compile(eager, backend="aot_eager", fullgraph=True)
    for factor in (1.0, 4.0, 2.0):
        scale = torch.tensor([0.5, 1.0, 0.25]) * factor
        x = sequence(4, 3).requires_grad_()
        grads = [torch.autograd.grad(f(x).sum(), x)[0] for f in (run, eager)]
        assert torch.equal(run(x), eager(x))
        assert torch.equal(*grads)


def test_a_graph_of_a_neuron_that_is_gone_says_so() -> None:
    captured = Captured()
    torch.compile(weighted({}), backend=captured, fullgraph=True)(sequence(4, 3))
    torch._dynamo.reset()
    with pytest.raises(FlexSNError, match="scans a core that is gone"):
        torch.ops.flexsn.scan("tests:core/0#7", *captured.calls[0][1:])


@pytest.mark.filterwarnings("error::flexsn.FallbackWarning")
def test_an_exported_neuron_has_its_parameters() -> None:
    neuron, x = weighted({}), sequence(4, 2, 3)
    with torch.no_grad():
        program = torch.export.export(neuron, (x,))
        neuron.reset()
        assert list(program.state_dict) == ["weight"]
        assert torch.equal(program.module()(x), neuron(x))
        neuron.reset()
        lengths = torch.tensor([3, 1])
        program = torch.export.export(neuron, (x,), {"lengths": lengths})
        neuron.reset()
        assert torch.equal(program.module()(x, lengths=lengths), neuron(x, lengths=lengths))


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


def test_an_exported_model_runs_where_its_core_is_imported(tmp_path: Path) -> None:
    (tmp_path / "somewhere.py").write_text(CORES.format(tau=2.0))
    done = fresh.run(EXPORT.format(module="somewhere"), tmp_path)
    assert done.returncode == 0, done.stderr
    done = fresh.run(LOAD.format(imports="somewhere"), tmp_path)
    assert done.returncode == 0, done.stderr
    missing = fresh.run(LOAD.format(imports="os"), tmp_path)
    assert "FlexSNError: an exported program scans the core core of somewhere, which is not imported" in missing.stderr
    assert "import somewhere" in missing.stderr
    (tmp_path / "somewhere.py").write_text(CORES.format(tau=4.0))
    changed = fresh.run(LOAD.format(imports="somewhere"), tmp_path)
    assert "is not there, or not what it was at the export" in changed.stderr
