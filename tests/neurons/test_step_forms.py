"""single_step_forward and multi_step_forward: to call on every neuron, and to override in a subclass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import BACKENDS
from torch import Tensor

from flexsn import FallbackWarning, FlexSN, neurons
from flexsn.neurons import spikingjelly
from flexsn.neurons.spikingjelly import clock_driven

X = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("make", [neurons.LIF, spikingjelly.LIFNode, lambda: FlexSN(lambda x, v: (v + x, v + x))])
def test_either_form_whatever_the_step_mode(make: Any) -> None:
    whole, steps = make(), make()
    y_seq = whole.multi_step_forward(X)
    steps.step_mode = "m"
    assert torch.equal(torch.stack([steps.single_step_forward(x) for x in X]), y_seq)
    assert torch.equal(steps.v, whole.v) and steps.step_mode == "m"


def test_the_kernel_of_a_neuron_has_its_parameters_and_leaves_its_states() -> None:
    node = neurons.LIF(2.0, v_reset=None, step_mode="m", store_v_seq=True)
    spikes, v_seq = node.kernel(X, torch.zeros(2, 3))
    assert node.states is None
    assert torch.equal(node(X), spikes) and torch.equal(node.v_seq, v_seq)


class Membrane(spikingjelly.SimpleLIFNode):
    def single_step_forward(self, x: Tensor) -> Tensor:
        self.neuronal_charge(x)
        return self.v  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_of_ones_own_is_compiled(backend: str) -> None:
    node = Membrane(2.0, True, step_mode="m", backend=backend)
    v, want = torch.zeros(2, 3), []
    for x in X:
        v = v + (0.0 - v + x) / 2.0
        want.append(v)
    assert torch.equal(node(X), torch.stack(want)) and torch.equal(node.v, v)
    node.reset()
    assert torch.equal(node.single_step_forward(X[0]), want[0])


def test_super_is_the_step_as_it_was_in_every_form() -> None:
    class Doubled(spikingjelly.LIFNode):
        def single_step_forward(self, x: Tensor) -> Tensor:
            self.v_float_to_tensor(x)
            return super().single_step_forward(x) * 2  # type: ignore[no-any-return]

    class Tripled(spikingjelly.TernaryIFNode):  # its core is no run of hooks
        def single_step_forward(self, x: Tensor) -> Tensor:
            return super().single_step_forward(x) * 3  # type: ignore[no-any-return]

    class Halved(spikingjelly.LIFNode):
        def multi_step_forward(self, x_seq: Tensor) -> Tensor:
            return super().multi_step_forward(x_seq / 2)  # type: ignore[no-any-return]

    plain, ternary = spikingjelly.LIFNode(step_mode="m"), spikingjelly.TernaryIFNode(step_mode="m")
    want = plain(X) * 2
    assert 0 < want.mean() < 2
    assert torch.equal(Doubled(step_mode="m", backend="cpp")(X), want)
    steps, eager = Doubled(), Doubled()
    assert torch.equal(torch.stack([steps(x) for x in X]), want)
    assert torch.equal(torch.stack([eager.single_step_forward(x) for x in X]), want)
    assert torch.equal(Tripled(step_mode="m")(X), ternary(X) * 3)
    plain.reset()
    assert torch.equal(Halved(step_mode="m")(X), plain(X / 2))
    assert torch.equal(Halved()(X[0]), spikingjelly.LIFNode()(X[0]))


def test_what_a_step_counts_is_counted_at_every_step() -> None:
    class Counting(spikingjelly.LIFNode):
        def __init__(self) -> None:
            super().__init__(step_mode="m")
            self.count, self.log = 0, list[Tensor]()

        def single_step_forward(self, x: Tensor) -> Tensor:
            spike: Tensor = super().single_step_forward(x)
            self.count += 1
            self.rate = spike.mean()
            self.log.append(spike)
            return spike

    node = Counting()
    with pytest.warns(FallbackWarning):
        spikes = node(X)
    assert torch.equal(spikes, spikingjelly.LIFNode(step_mode="m")(X))
    assert node.count == 5 and torch.equal(torch.stack(node.log), spikes) and torch.equal(node.rate, spikes[-1].mean())


def test_another_shape_starts_anew_in_the_preset() -> None:
    node = spikingjelly.LIFNode(step_mode="m")
    node(X)
    assert torch.equal(node(X[:, :1]), spikingjelly.LIFNode(step_mode="m")(X[:, :1]))
    batch_first = spikingjelly.LIFNode(step_mode="m")
    batch_first.time_dim = 1
    twice = [batch_first(x.transpose(0, 1)).transpose(0, 1) for x in (X, X)]
    node.reset()
    assert torch.equal(torch.cat(twice), node(torch.cat((X, X))))


def test_explicit_states() -> None:
    node = spikingjelly.LIFNode(step_mode="m", v_reset=-0.5)
    assert list(node.named_memories()) == [("v", -0.5)] and node.get_reset_value("v") == -0.5
    outputs, states = node.functional_forward((X,), (None,))
    assert node.states is None
    assert torch.equal(outputs[0], node(X)) and torch.equal(states[0], node.v)
    (spike,), _ = node.single_step_functional_forward((X[0],), states)
    assert torch.equal(spike, node.single_step_forward(X[0]))
    node.set_reset_value("v", 0.25)
    node.reset()
    assert node.v == 0.25 and list(node.memories()) == [0.25]
    with pytest.raises(ValueError, match="there is no state w, only v"):
        node.set_reset_value("w", 0.0)


def test_clock_drivens_neurons_take_sequences() -> None:
    for name, plain in (("LIF", spikingjelly.LIFNode), ("ParametricLIF", spikingjelly.ParametricLIFNode)):
        node = getattr(clock_driven, f"MultiStep{name}Node")(2.0, True, 1.0, None, backend="cupy", detach_reset=True)
        same = plain(2.0, True, 1.0, None, detach_reset=True, step_mode="m", store_v_seq=True)
        assert torch.equal(node(X), same(X)) and torch.equal(node.v_seq, same.v_seq)
    node = clock_driven.MultiStepEIFNode(lava_s_cale=64)
    assert node.step_mode == "m" and node(X).shape == X.shape
