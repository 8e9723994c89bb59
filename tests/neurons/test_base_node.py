"""Neurons written as methods that assign self.v: they run, compile, stay pure, and say what they cannot do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from reference import BACKENDS
from torch import Tensor, nn

from flexsn import FallbackWarning, UnsupportedOpError, neurons
from flexsn.neurons import spikingjelly


class SquareIFNode(spikingjelly.BaseNode):
    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v + x**2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tutorial(backend: str) -> None:
    # the input, the membranes and the spikes printed in SpikingJelly's tutorial on neurons
    x_seq = torch.tensor([[0.7452], [0.8062], [0.6730], [0.0942]])
    sif_layer = SquareIFNode()
    sif_layer.backend = backend
    for x, v in zip(x_seq, (0.5554, 0.0, 0.4529, 0.4618), strict=True):
        sif_layer(x)
        assert sif_layer.v.item() == pytest.approx(v, abs=2e-4)
    sif_layer.reset()
    sif_layer.step_mode = "m"
    assert sif_layer(x_seq).tolist() == [[0.0], [1.0], [0.0], [0.0]]


class Gated(neurons.BaseNode):
    """Every hook overridden, a property, a helper method, a parameter, a number and a memory of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = nn.Parameter(torch.full((3,), 0.75))
        self.leak = 0.5
        self.register_memory("slow", 0.25)

    @property
    def opened(self) -> Tensor:
        return self.gate.sigmoid() + self.slow

    def follow(self, x: Tensor) -> None:
        self.slow = self.slow * 0.9 + x * 0.1

    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v * self.leak + x * self.opened
        self.follow(x)

    def neuronal_fire(self) -> Tensor:
        return super().neuronal_fire() * 2.0

    def neuronal_reset(self, spike: Tensor) -> None:
        super().neuronal_reset(spike * 0.5)
        self.v = self.v - 0.125


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_properties_memories(backend: str) -> None:
    x = torch.rand(9, 4, 3)
    node = Gated(step_mode="m", backend=backend, store_v_seq=True)
    attributes = {k: v for k, v in vars(node).items() if not k.startswith("_") and k != "state_seqs"}
    y = node(x)
    y.sum().backward()
    gate = node.gate.detach().clone().requires_grad_()
    v, slow, out = torch.zeros(4, 3), torch.full((4, 3), 0.25), []
    spike = neurons.IF().surrogate_function
    for step in x:
        h = v * 0.5 + step * (gate.sigmoid() + slow)
        slow = slow * 0.9 + step * 0.1
        s = spike(h - 1.0) * 2.0
        v = (1.0 - s * 0.5) * h - 0.125
        out.append(s)
    want = torch.stack(out)
    want.sum().backward()
    assert want.max() == 2.0
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(node.v, v)
    torch.testing.assert_close(node.slow, slow)
    torch.testing.assert_close(node.gate.grad, gate.grad)
    assert node.v_seq.shape == x.shape
    assert all(getattr(node, k) is v for k, v in attributes.items())
    node.reset()
    node.leak = 0.0
    assert not torch.equal(node(x), y)
    assert torch.equal(copy.deepcopy(node).gate, node.gate)


@pytest.mark.parametrize("backend", BACKENDS)
def test_adaptation(backend: str) -> None:
    class Adaptive(neurons.AdaptBaseNode):
        def neuronal_charge(self, x: Tensor) -> None:
            self.v = self.v + x - self.w

    x = torch.rand(20, 5) * 2
    node = Adaptive(tau_w=4.0, a=0.25, b=0.5, v_rest=0.125, w_rest=0.25, step_mode="m", backend=backend)
    y = node(x)
    v, w, out = torch.zeros(5), torch.full((5,), 0.25), []
    for step in x:
        h = v + step - w
        w = w + (0.25 * (h - 0.125) - w) / 4.0
        s = (h >= 1.0).float()
        v, w = (1 - s) * h, w + 0.5 * s
        out.append(s)
    assert torch.equal(y, torch.stack(out)) and 0 < y.mean() < 1
    torch.testing.assert_close(node.w, w)


def test_a_preset_class_may_be_extended() -> None:
    class Doubled(spikingjelly.LIFNode):
        def neuronal_charge(self, x: Tensor) -> None:
            super().neuronal_charge(2.0 * x)

    x = torch.rand(6, 3)
    assert torch.equal(Doubled(step_mode="m")(x), spikingjelly.LIFNode(step_mode="m")(2.0 * x))
    with pytest.raises(TypeError, match="defines neuronal_fire, which its base class does not call"):

        class Silent(spikingjelly.ComplementaryLIFNode):
            def neuronal_fire(self) -> Tensor:
                return torch.zeros(1)


def test_what_a_step_may_not_do() -> None:
    class Forgetful(neurons.BaseNode):
        def __init__(self, backend: str) -> None:
            super().__init__(backend=backend)
            self.before = 0.0

        def neuronal_charge(self, x: Tensor) -> None:
            self.v = self.v + x - self.before
            self.before = x  # type: ignore[assignment]

    with pytest.raises(UnsupportedOpError, match=r"sets self\.before, which is not a state") as error:
        Forgetful("cpp")(torch.zeros(3))
    assert "register_memory('before', 0.0)" in str(error.value)
    node = Forgetful("auto")
    with pytest.warns(FallbackWarning, match=r"sets self\.before"):
        node(torch.full((3,), 0.5))
    assert torch.equal(node.before, torch.full((3,), 0.5)) and node(torch.ones(3)).eq(1.0).all()  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="BaseNode must define neuronal_charge"):
        neurons.BaseNode(backend="torch")(torch.zeros(3))
    node = neurons.BaseNode()
    with pytest.raises(ValueError, match="v_threshold is an attribute already"):
        node.register_memory("v_threshold", 0.0)
    with pytest.raises(ValueError, match="the state u must start at a number or a tensor"):
        node.register_memory("u", None)  # type: ignore[arg-type]


def test_the_state_reads_as_its_start_before_the_first_call() -> None:
    assert SquareIFNode(v_reset=-0.5).v == -0.5
    assert neurons.SimpleBaseNode(v_reset=-0.5).v == 0.0


@pytest.mark.parametrize("backend", ["auto", "torch", "cupy", "inductor"])
def test_spikingjelly_backends(backend: str) -> None:
    node = spikingjelly.IFNode(backend=backend)
    assert node.backend == ("torch" if backend == "torch" else "auto")
    assert {"cpp", "torch", "cupy", "inductor"} <= set(node.supported_backends)
    node.backend = "cupy"
    assert node.backend == "auto"
    with pytest.raises(ValueError, match="backend must be one of"):
        node.backend = "lava"
