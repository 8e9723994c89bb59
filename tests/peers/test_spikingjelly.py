"""The spikingjelly preset against SpikingJelly itself: outputs, states, and gradients of inputs and parameters."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn.neurons import spikingjelly as ours

pytest.importorskip("spikingjelly")
theirs = pytest.importorskip("spikingjelly.activation_based.neuron")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
peer_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

T, SHAPE = 8, (2, 9)


def _number(low: float, high: float) -> float:
    return random.randrange(int(low * 16), int(high * 16)) / 16


def _common(v_reset: tuple[float | None, ...] = (0.0, -0.25, None)) -> dict[str, Any]:
    return {
        "v_threshold": _number(0.5, 1.5),
        "v_reset": random.choice(v_reset),
        "detach_reset": random.random() < 0.5,
    }


def _decay() -> dict[str, Any]:
    return {"tau": _number(1.25, 6.0), "decay_input": random.random() < 0.5}


def _settings(name: str) -> dict[str, Any]:
    """Random arguments of a class."""
    if name in ("IFNode", "SimpleIFNode"):
        return _common()
    if name == "LIFNode":
        return {**_decay(), **_common()}
    if name == "SimpleLIFNode":
        return {**_decay(), **_common((0.0, -0.25))}  # theirs fails on None
    if name == "ParametricLIFNode":
        given = {**_decay(), **_common()}
        return {"init_tau": given.pop("tau"), **given}
    if name == "QIFNode":
        given = {"tau": _number(1.25, 6.0), "v_c": _number(0.3, 1.0), "a0": _number(0.5, 2.0), **_common()}
        return {**given, "v_rest": _number(0.0, 0.5)}
    if name == "EIFNode":
        own = {"tau": _number(1.25, 6.0), "delta_T": _number(0.5, 2.0), "theta_rh": _number(0.3, 1.0)}
        return {**own, **_common((0.0, -0.25)), "v_rest": _number(0.0, 0.5)}  # soft reset runs off to inf
    if name == "KLIFNode":
        return {"scale_reset": random.random() < 0.5, **_decay(), **_common()}
    if name == "LIAFNode":
        return {"act": torch.relu, "threshold_related": random.random() < 0.5, **_decay(), **_common()}
    if name == "ILIFNode":
        given = _common()
        del given["v_reset"]
        return {"tau": _number(1.25, 3.0), **given}
    if name == "ComplementaryLIFNode":
        return {"tau": _number(1.25, 6.0), "v_threshold": _number(0.5, 1.5)}
    if name == "IzhikevichNode":
        own = {"tau": _number(1.25, 6.0), "v_c": _number(0.3, 1.0), "a0": _number(0.5, 2.0)}
        slow = {"tau_w": _number(2.0, 9.0), "a": _number(0.0, 0.5), "b": _number(0.0, 0.5)}
        return {**own, **slow, "v_rest": _number(-0.5, 0.5), "w_rest": _number(-0.5, 0.5), **_common()}
    if name == "TernaryIFNode":
        return _common()
    if name == "TernaryLIFNode":
        return {**_decay(), **_common()}
    if name == "RAFNode":
        return {"b": -_number(0.1, 0.5), "omega": _number(0.25, 2.0), "dt": _number(0.5, 1.5), **_common()}
    assert name == "CUBALIFNode"
    given = _common()
    del given["detach_reset"]
    return {"c_decay": _number(0.25, 0.9), "v_decay": _number(0.25, 0.9), **given}


SPIKING = [
    "IFNode",
    "SimpleIFNode",
    "LIFNode",
    "SimpleLIFNode",
    "ParametricLIFNode",
    "QIFNode",
    "EIFNode",
    "KLIFNode",
    "LIAFNode",
    "ILIFNode",
    "ComplementaryLIFNode",
    "IzhikevichNode",
    "TernaryIFNode",
    "TernaryLIFNode",
    "RAFNode",
    "CUBALIFNode",
]


def _run(node: nn.Module, x: Tensor, step_mode: str) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Output, last membrane, gradient of the input, gradients of the parameters."""
    node.step_mode = step_mode
    x = x.clone().requires_grad_()
    y = node(x) if step_mode == "m" else torch.stack([node(step) for step in x])
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    ((y * weights).sum() + (node.v * node.v).sum()).backward()
    assert x.grad is not None
    return y.detach(), node.v.detach(), x.grad, [p.grad for p in node.parameters() if p.grad is not None]


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("name", SPIKING)
def test_random_settings(name: str, backend: str) -> None:
    for seed in range(6 if backend == "torch" else 2):
        random.seed(f"{name} {seed}")
        given = _settings(name)
        x = torch.randn(T, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 1.5 + 0.6
        step_mode = "s" if name == "LIAFNode" else "ms"[seed % 2]  # theirs returns spikes in multi-step mode
        peer, mine = getattr(theirs, name)(**given), getattr(ours, name)(**given)
        mine.backend = backend
        want, got = _run(peer, x, step_mode), _run(mine, x, step_mode)
        where = f"{name}({given}), step_mode={step_mode}"
        assert torch.equal(got[0], want[0]), where
        for mine_value, peer_value in zip(got[:2], want[:2], strict=True):
            torch.testing.assert_close(mine_value, peer_value, rtol=2e-5, atol=2e-6, equal_nan=True, msg=where)
        scale = want[2].abs().max().item() + 1
        torch.testing.assert_close(got[2], want[2], rtol=5e-5, atol=5e-6 * scale, equal_nan=True, msg=where)
        assert len(got[3]) == len(want[3])
        for mine_grad, peer_grad in zip(got[3], want[3], strict=True):
            torch.testing.assert_close(mine_grad, peer_grad, rtol=2e-4, atol=2e-5 * scale, equal_nan=True, msg=where)


@pytest.mark.parametrize("decode", [None, "max-mem", "max-abs-mem", "mean-mem", "last_mem"])
@pytest.mark.parametrize("name", ["NonSpikingIFNode", "NonSpikingLIFNode"])
def test_nonspiking(name: str, decode: str | None) -> None:
    x = torch.randn(T, *SHAPE)
    peer, mine = getattr(theirs, name)(decode=decode), getattr(ours, name)(decode=decode)
    for _ in range(2):  # both start anew at every call
        want = peer(x)
        assert torch.equal(mine(x), torch.stack(want) if decode is None else want)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_v_seq(step_mode: str) -> None:
    x = torch.rand(T, *SHAPE)
    nodes = [side.LIFNode(step_mode=step_mode, store_v_seq=True) for side in (ours, theirs)]
    for node in nodes:
        for part in [x] if step_mode == "m" else x:
            node(part)
    assert torch.equal(nodes[0].v_seq, nodes[1].v_seq)
    for node in nodes:
        node.reset()
        assert node.v_seq is None and node.v == 0.0


def test_default_arguments_come_in_the_same_order() -> None:
    import inspect

    for name in SPIKING:
        peer = inspect.signature(getattr(theirs, name)).parameters
        node = getattr(ours, name)
        mine = inspect.signature(node).parameters
        flat = [p for p in mine if p not in ("args", "options", "kwargs", "learnable", "shape", "backend")]
        shared = [p for p in peer if p in flat]
        assert [p for p in flat if p in peer] == shared, name
        for p in shared:
            if p != "surrogate_function" and peer[p].default is not inspect.Parameter.empty:
                assert mine[p].default == peer[p].default, (name, p)
        if "surrogate_function" in peer:
            default = peer["surrogate_function"].default
            own = (
                ours.LIAFNode(torch.relu, True)
                if name == "LIAFNode"
                else node(2.0, True)
                if name == "SimpleLIFNode"
                else node()
            ).surrogate_function
            if name == "ILIFNode":
                assert default.max_spike_count == own.D
            else:
                assert type(own).__name__ == type(default).__name__ and own.alpha == default.alpha


def test_a_model_moves_over_by_one_import() -> None:
    def model(neuron: Any) -> nn.Sequential:
        net = nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1, bias=False),
            layer.BatchNorm2d(4),
            neuron.IFNode(surrogate_function=peer_surrogate.ATan()),
            layer.MaxPool2d(2, 2),
            layer.Flatten(),
            layer.Linear(4 * 4 * 4, 10),
            neuron.LIFNode(2.0, True, 0.1, None, peer_surrogate.ATan(), detach_reset=True),
            layer.Linear(10, 3),
            layer.BatchNorm1d(3),
            neuron.ParametricLIFNode(init_tau=1.5, v_threshold=0.25, surrogate_function=peer_surrogate.Sigmoid()),
        )
        for module in net:
            if hasattr(module, "step_mode"):
                module.step_mode = "m"
        return net

    torch.manual_seed(0)
    before = model(theirs)
    after = model(ours)
    after.load_state_dict(before.state_dict())
    x = torch.rand(4, 2, 1, 8, 8) * 3
    wants, gots = before(x), after(x)
    assert torch.equal(gots, wants) and 0 < wants.mean() < 1
    wants.sum().backward()
    gots.sum().backward()
    for (name, p), q in zip(before.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-5, msg=name)
    functional.reset_net(before)
    functional.reset_net(after)
    assert torch.equal(after(x), before(x))


def test_a_neuron_of_ones_own() -> None:
    def square(base: type) -> Any:
        class SquareIFNode(base):  # type: ignore[misc]
            def neuronal_charge(self, x: Tensor) -> None:
                self.v = self.v + x**2

        return SquareIFNode()

    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    peer, mine = square(theirs.SimpleBaseNode), square(ours.BaseNode)
    for step in x:
        assert torch.equal(mine(step), peer(step)) and torch.equal(mine.v, peer.v)
    peer.reset()
    mine.reset()
    peer.step_mode = mine.step_mode = "m"
    assert torch.equal(mine(x), peer(x)) and peer(x).mean() > 0
