"""Neurons under torch.compile: one graph, the values of the plain model, and what changes afterwards counts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, FlexSNKernel, scan, surrogate
from flexsn.neurons import LIF, BaseNode
from flexsn.neurons.norse import LIF as NorseLIF
from flexsn.neurons.snntorch import Leaky
from tests.flexsn.contract_cores import lif, loop, sequence, smooth, two

spike = surrogate.ATan()
Function = Callable[..., Any]


@pytest.fixture(autouse=True)
def _compiled_anew() -> None:
    torch._dynamo.reset()


def compiled(function: Function, graphs: Function | None = None, **options: Any) -> Any:
    """The function as one graph; every node of it run as it stands."""
    return torch.compile(function, fullgraph=True, backend=graphs or "aot_eager", **options)


def learnable() -> FlexSN:
    decay = nn.Parameter(torch.tensor(0.5))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * decay
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    return FlexSN(core)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(m for _ in range(10) for m in (nn.Linear(8, 8), learnable())))

    def forward(self, x: Tensor) -> Tensor:
        for neuron in self.layers[1::2]:
            neuron.reset()
        y: Tensor = self.layers(x)
        return y


def test_ten_layers_are_one_graph_for_every_length_and_batch() -> None:
    net, plain = Net(), Net()
    from torch._dynamo.testing import CompileCounterWithBackend  # at the top, every test process would wait for it

    graphs = CompileCounterWithBackend("aot_eager")
    fast = compiled(net, graphs, dynamic=True)
    for shape in ((4, 3, 8), (5, 7, 8), (9, 2, 8)):
        x = sequence(*shape)
        for module in (fast, plain):
            module(x).sum().backward()
        assert torch.equal(fast(x), plain(x))
        for a, b in zip(net.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
    assert graphs.frame_count == 1


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_states_go_on_from_call_to_call(step_mode: str) -> None:
    neuron, plain = FlexSN(lif, step_mode=step_mode), FlexSN(lif, step_mode=step_mode)
    fast = compiled(neuron)
    for x in sequence(3, 4, 5):
        assert torch.equal(fast(x), plain(x))
        assert torch.equal(neuron.v, plain.v)
    neuron.reset()
    plain.reset()
    assert torch.equal(fast(x), plain(x))
    with pytest.raises(ValueError, match="step shape changed"):
        neuron(torch.ones(4, 9))


def test_several_inputs_outputs_and_recorded_states() -> None:
    neuron, plain = FlexSN(two, num_inputs=2, num_states=2), FlexSN(two, num_inputs=2, num_states=2)
    for n in (neuron, plain):
        n.record("w", every=2)
    x, z = sequence(5, 3).requires_grad_(), sequence(5, 3).flip(0)
    got, want = compiled(neuron)(x, z), plain(x, z)
    assert all(map(torch.equal, got, want))
    assert torch.equal(neuron.recorded["w"], plain.recorded["w"])
    for n in (neuron, plain):
        n.reset()
        n.store_state_seqs = True
    compiled(neuron)(x, z)
    plain(x, z)
    grads = [torch.autograd.grad(sum(s.sum() for s in n.state_seqs), x)[0] for n in (neuron, plain)]  # type: ignore[misc]
    assert torch.equal(*grads)


@pytest.mark.parametrize("output_dtype", [torch.bool, torch.float16])
def test_output_dtype(output_dtype: torch.dtype) -> None:
    results = []
    for wrap in (compiled, lambda neuron: neuron):
        x = sequence(5, 3).requires_grad_()
        y = wrap(FlexSN(lif, output_dtype=output_dtype))(x)
        results.append((y.float() + 0.0, *torch.autograd.grad(y.float().sum(), x)))
    assert all(map(torch.equal, *results))


class Square(BaseNode):
    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v * 0.5 + x**2


@pytest.mark.parametrize("make", [LIF, Square, lambda: Leaky(0.5, init_hidden=True), NorseLIF])
def test_built_in_neurons_and_presets(make: Callable[[], Any]) -> None:
    neuron, plain = make(), make()
    x = sequence(4, 3)
    got, want = compiled(neuron)(x), plain(x)
    pairs = zip(*(torch.utils._pytree.tree_leaves(r) for r in (got, want)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_scan() -> None:
    weight = nn.Parameter(torch.tensor([0.5, 1.0, 0.25]))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * 0.5 + x * weight
        return v * v, v

    def run(x: Tensor, v: Tensor) -> Any:
        return scan(core, x, v, return_state_seqs=True)

    def results(function: Function) -> tuple[Tensor, ...]:
        x, v = sequence(4, 3).requires_grad_(), sequence(3).requires_grad_()
        y, final, seq = function(x, v)
        return (y, final, seq, *torch.autograd.grad((y * seq).sum() + final.sum(), (x, v, weight)))

    assert all(map(torch.equal, results(compiled(run)), results(run)))


@pytest.mark.parametrize(
    ("masked", "options"),
    [
        (("lengths",), {}),
        (("lengths", "reset_mask"), {"time_reduction": "last", "rate": True}),
        (("reset_mask",), {"output_dtype": torch.bool, "time_reduction": "max"}),
        ((), {"detach_every": 2, "time_reduction": "mean"}),
    ],
)
def test_lengths_resets_cuts_and_reductions(masked: tuple[str, ...], options: dict[str, Any]) -> None:
    masks = {"lengths": torch.tensor([5, 0, 3]), "reset_mask": torch.arange(15).view(5, 3) % 4 == 3}
    masks = {name: masks[name] for name in masked}
    results = []
    for wrap in (compiled, lambda neuron: neuron):
        neuron, x = FlexSN(smooth, **options), sequence(5, 3, 2).requires_grad_()
        y = wrap(neuron)(x, **masks)
        rate = neuron.rate if options.get("rate") else neuron.v
        results.append((y, neuron.v, rate, *torch.autograd.grad(y.sum() + rate.sum(), x)))
    assert all(map(torch.equal, *results))


def test_a_core_with_a_product() -> None:
    torch.manual_seed(0)
    recurrent = nn.Linear(4, 4)

    def core(x: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v * 0.5 + x + recurrent(s)
        s = spike(h - 1.0)
        return s, s, h - s

    results = []
    for run in (compiled(lambda n, x: n(x)), lambda n, x: n(x)):
        neuron, x = FlexSN(core, num_states=2), sequence(5, 3, 4).requires_grad_()
        y = run(neuron, x)
        results.append((y, *torch.autograd.grad(y.sum(), (x, *recurrent.parameters()))))
    assert all(map(torch.equal, *results))


def test_the_stateless_form() -> None:
    results = []
    for run in (compiled(lambda k, x, v: k(x, v)), lambda k, x, v: k(x, v)):
        x = sequence(4, 3).requires_grad_()
        y, seq = run(FlexSNKernel(smooth, 1, 1, 1), x, torch.zeros(3))
        results.append((y, seq, *torch.autograd.grad((y * seq).sum(), x)))
    assert all(map(torch.equal, *results))


def test_another_core_of_the_same_code_is_another_graph() -> None:
    def make(tau: float) -> Function:
        return lambda x, v: (v + x * tau, v + x)

    fast = compiled(lambda core, x: scan(core, x, torch.zeros(3))[0])
    x, cores = sequence(4, 3), [make(2.0), make(3.0)]
    for core in (*cores, *cores):
        assert torch.equal(fast(core, x), scan(core, x, torch.zeros(3))[0])


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_a_constant_changed_afterwards_counts(compiler: str, backend: str) -> None:
    neuron, plain = LIF(tau=2.0, backend=backend), LIF(tau=2.0, backend=backend)
    from torch._dynamo.testing import CompileCounterWithBackend  # at the top, every test process would wait for it

    graphs = CompileCounterWithBackend(compiler)
    fast = compiled(neuron, graphs)
    x = sequence(6, 3).requires_grad_()
    for tau in (2.0, 4.0, 3.0):
        results = []
        for n, run in ((neuron, fast), (plain, plain)):
            n.reset()
            n.tau = tau
            y = run(x)
            results.append((y, *torch.autograd.grad(y.sum() + n.v.sum(), x)))
        assert all(map(torch.equal, *results))
    assert graphs.frame_count == 1


def test_a_backward_pass_goes_on_with_the_constants_of_its_forward_pass() -> None:
    neuron = LIF(tau=2.0)
    x = sequence(6, 3).requires_grad_()
    y = compiled(neuron)(x)
    neuron.tau = 4.0
    got = torch.autograd.grad(y.sum(), x)[0]
    assert torch.equal(got, torch.autograd.grad(LIF(tau=2.0)(x).sum(), x)[0])


def test_a_constant_that_changes_what_is_kept_counts_too() -> None:
    """With ``leak`` 0 no gradient needs the state, with another it does: the graph has room for what it saw first."""
    box = {"mode": True}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = x * 2.0 + v * 0.5 if box["mode"] else v * v * 0.25 + x
        return v + x, v

    neuron = FlexSN(core)
    fast = compiled(neuron)
    for mode in (True, False, True):
        box["mode"] = mode
        results = []
        for run in (fast, lambda x: loop(core, x)):
            neuron.reset()
            x = sequence(20, 3).requires_grad_()
            y = run(x)
            results.append((y, *torch.autograd.grad((y * y).sum(), x)))
        assert all(map(torch.equal, *results))


def test_a_parametrized_neuron_and_functional_call() -> None:
    class Double(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w * 2.0

    x = sequence(5, 3)
    neuron, plain = learnable(), learnable()
    functional = compiled(lambda decay, x: torch.func.functional_call(neuron, {"decay": decay}, x))
    decay = torch.tensor(0.25, requires_grad=True)
    want = torch.func.functional_call(plain, {"decay": decay}, x)
    got = functional(decay, x)
    assert torch.equal(got, want)
    assert torch.equal(torch.autograd.grad(got.sum(), decay)[0], torch.autograd.grad(want.sum(), decay)[0])
    for n in (neuron, plain):
        n.reset()
        nn.utils.parametrize.register_parametrization(n, "decay", Double())
    assert torch.equal(compiled(neuron)(x), plain(x))


def test_a_copy_is_another_neuron() -> None:
    neuron = learnable()
    copied = copy.deepcopy(neuron)
    with torch.no_grad():
        copied.decay.fill_(0.25)
    x, fast = sequence(5, 3), compiled(lambda n, x: n(x))
    for n in (neuron, copied):
        got = fast(n, x)
        n.reset()
        assert torch.equal(got, n(x))


def test_what_no_graph_can_have_runs_between_two() -> None:
    def mixes(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v + x.cumsum(0)
        return v, v

    x = sequence(4, 3)
    with pytest.warns(UserWarning, match="running the torch loop"):
        assert torch.equal(torch.compile(FlexSN(mixes), backend="eager")(x), loop(mixes, x))


def test_second_derivatives_where_the_graph_runs_as_it_stands() -> None:
    x = sequence(4, 3).double().requires_grad_()

    def row(run: Function) -> Tensor:
        (grad,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
        return torch.autograd.grad(grad[0].sum(), x)[0]

    neuron = FlexSN(smooth)
    assert torch.equal(row(compiled(neuron, "eager")), row(FlexSN(smooth, backend="torch")))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_and_autocast(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(3, 4), FlexSN(lif))
    fast = compiled(net)
    results = []
    for run in (fast, net):
        net[1].reset()
        with torch.autocast("cpu", dtype=dtype):
            results.append(run(sequence(5, 2, 3)))
    assert results[0].dtype is results[1].dtype
    assert torch.equal(*results)


def test_inductor_and_reduce_overhead() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), learnable(), nn.Linear(4, 2))
    plain = copy.deepcopy(net)
    x = sequence(5, 2, 3)
    y = torch.compile(net, fullgraph=True, mode="reduce-overhead")(x)
    want = plain(x)
    torch.testing.assert_close(y, want)
    y.sum().backward()
    want.sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
