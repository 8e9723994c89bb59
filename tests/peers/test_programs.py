"""Programs written for the libraries, with the import changed: subclasses, tools, checkpoints, networks of both."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore::flexsn.FallbackWarning")
base = pytest.importorskip("spikingjelly.activation_based.base")
theirs = pytest.importorskip("spikingjelly.activation_based.neuron")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
their_snn = pytest.importorskip("snntorch")
their_norse = pytest.importorskip("norse.torch")
rb = pytest.importorskip("rnnbuilder")

from flexsn.neurons import norse, rnnbuilder, snntorch, spikingjelly  # noqa: E402

X = torch.rand(6, 2, 4, generator=torch.Generator().manual_seed(0)) * 3


def own_steps(neuron: Any) -> list[type]:
    """Subclasses in the ways that SpikingJelly's documentation and examples show."""

    class Square(neuron.BaseNode):
        def neuronal_charge(self, x: Tensor) -> None:
            self.v = self.v + x**2

        if neuron is theirs:  # its BaseNode has no step made of the hooks

            def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
                h = states[0] + inputs[0] ** 2
                spike = self.surrogate_function(h - self.v_threshold)
                return (spike,), ((1.0 - spike) * h,)

    class Membrane(neuron.SimpleLIFNode):
        def __init__(self) -> None:
            super().__init__(2.0, True)

        def single_step_forward(self, x: Tensor) -> Tensor:
            self.neuronal_charge(x)
            return self.v

    class Counting(neuron.SimpleIFNode):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0.0

        def single_step_forward(self, x: Tensor) -> Tensor:
            spike = super().single_step_forward(x)
            self.count = self.count + spike.sum()
            return spike * self.count

    class Halved(neuron.LIFNode):
        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            return super().multi_step_forward(x_seq / 2) * 2

    return [Square, Membrane, Counting, Halved]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_subclasses(which: int, step_mode: str) -> None:
    results = []
    for neuron in (theirs, spikingjelly):
        node = own_steps(neuron)[which]()
        functional.set_step_mode(node, step_mode)
        x = X.clone().requires_grad_()
        y = node(x) if step_mode == "m" else torch.stack([node(step) for step in x])
        y.sum().backward()
        results.append((y, node.v, x.grad, getattr(node, "count", 0.0)))
        functional.reset_net(node)
        assert node.v == 0.0
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", sorted(set(spikingjelly.__all__) & set(theirs.__dict__)))
def test_a_class_is_one_of_theirs(name: str) -> None:
    ours, made = getattr(spikingjelly, name), getattr(theirs, name)
    if name not in ("PSN", "MaskedPSN", "SlidingPSN"):
        assert issubclass(ours, made)


def test_memories_are_seen() -> None:
    net = nn.Sequential(
        nn.Linear(4, 4), spikingjelly.LIFNode(step_mode="m"), spikingjelly.IzhikevichNode(step_mode="m")
    )
    twin = nn.Sequential(nn.Linear(4, 4), theirs.LIFNode(step_mode="m"), theirs.IzhikevichNode(step_mode="m"))
    twin.load_state_dict(net.state_dict())
    assert base.extract_memories(net) == base.extract_memories(twin)
    forward, peer = base.to_functional_forward(net), base.to_functional_forward(twin)
    (y,), states = forward((X,), (0.0, 0.0, 0.0))
    (want,), peer_states = peer((X,), (0.0, 0.0, 0.0))
    assert base.extract_memories(net) == [0.0, 0.0, 0.0]
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(states, peer_states)
    base.load_memories(net, list(states))
    assert torch.equal(net[1].v, states[0])
    assert torch.equal(pickle.loads(pickle.dumps(net))[1].v, net[1].v) and copy.deepcopy(net)[2].w is not net[2].w


def test_snntorchs_tools() -> None:
    from snntorch import utils

    net = nn.Sequential(
        nn.Linear(4, 4), snntorch.Leaky(0.9, init_hidden=True), snntorch.Alpha(0.9, 0.8, init_hidden=True)
    )
    assert isinstance(net[1], their_snn.Leaky) and net[2] in their_snn.SpikingNeuron.instances
    first = net(X[0])
    net(X[1])
    utils.reset(net)
    assert torch.equal(net(X[0]), first)
    their_snn.Leaky.detach_hidden()
    assert not net[1].mem.requires_grad


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_inhibition_and_states_of_ones_own(reset: str) -> None:
    nets = []
    for snn in (their_snn, snntorch):

        class Own(snn.Leaky):  # type: ignore[name-defined,misc]
            def _base_state_function(self, input_: Tensor) -> Tensor:
                return 0.5 * self.beta * self.mem + input_

        nets.append((Own(0.9, reset_mechanism=reset), snn.Synaptic(0.5, 0.9, inhibition=True, reset_mechanism=reset)))
    for theirs_, ours in zip(*nets, strict=True):
        for x in [*X, X[0, :1]]:  # and another batch shape
            for want, got in zip(theirs_(x), ours(x), strict=True):
                assert torch.equal(got, want)


CELLS = [
    "LIFCell",
    "LIFExCell",
    "LIFAdExCell",
    "LIFRefracCell",
    "LIFBoxCell",
    "LSNNCell",
    "IAFCell",
    "LICell",
    "LIBoxCell",
]


@pytest.mark.parametrize("name", CELLS)
def test_norses_cells(name: str) -> None:
    results: list[tuple[Any, ...]] = []
    for module in (their_norse, norse):
        net = their_norse.SequentialState(nn.Identity(), getattr(module, name)())
        x, state, out = (X * 3).clone().requires_grad_(), None, []
        for step in x:
            y, state = net(step, state)
            out.append(y)
        loss = torch.stack(out).sum() + sum(s.sum() for s in torch.utils._pytree.tree_leaves(state[1]))
        (grad,) = torch.autograd.grad(loss, x)
        results.append((torch.stack(out), type(state[1]).__name__, torch.utils._pytree.tree_leaves(state[1]), grad))
    want, got = results
    assert want[1] == got[1] and want[0].any()
    for a, b in zip((want[0], *want[2], want[3]), (got[0], *got[2], got[3]), strict=True):
        torch.testing.assert_close(b, a)


def test_norses_checkpoints_and_inputs() -> None:
    def net(module: Any) -> nn.Module:
        return their_norse.SequentialState(nn.Linear(4, 4), module.LIFCell(), nn.Linear(4, 2), module.LICell())

    ours, peer = net(norse), net(their_norse)
    ours.load_state_dict(peer.state_dict())
    peer.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(X[0])[0], peer(X[0])[0])
    spikes = (X > 1.5).float()
    for given in (spikes.bool(), spikes.to_sparse()):
        z, want = norse.LIF()(given)[0], their_norse.LIF()(given)[0]
        assert z.is_sparse == want.is_sparse and torch.equal(z.to_dense(), want.to_dense())


@pytest.mark.parametrize("name", ["LIF", "NoReset", "Cooldown", "Adaptive", "Discontinuous"])
def test_rnnbuilders_builder(name: str) -> None:
    from rnnbuilder import nn as layers
    from rnnbuilder import snn

    results = []
    models: list[nn.Module] = []
    for module in (snn, rnnbuilder):
        network, previous = rb.Network(), rb.Placeholder()
        network.previous = previous
        network.hidden = network.input.stack(previous).apply(
            layers.Linear(5), getattr(module, name)(), placeholder=previous
        )
        network.output = network.hidden.apply(layers.Linear(3), getattr(module, name)())
        models.append(network.make_model((4,)))
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        y, _ = model(X)
        y.sum().backward()  # type: ignore[no-untyped-call]
        results.append((y, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[1], results[0])


def test_the_step_modes_of_containers_children_stay() -> None:
    from spikingjelly.activation_based import layer

    from flexsn import functional as ours

    modes = []
    for package in (functional, ours):
        inner = [spikingjelly.LIFNode() for _ in range(3)]
        folded = layer.SeqToANNContainer(nn.Linear(4, 4), inner[2])
        net = nn.Sequential(inner[0], layer.MultiStepContainer(inner[1]), folded)
        package.set_step_mode(net, "m")
        modes.append([node.step_mode for node in inner])
    assert modes[0] == modes[1] == ["m", "s", "s"]
