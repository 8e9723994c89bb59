"""Recurrent: what is fed back, how it is held, and that it is compiled."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, Recurrent, surrogate
from flexsn.neurons import LIF, AdLIF

INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
KERNELS = "triton" if INTERPRETING else "cpp"
H = 6
spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> Any:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def dyadic(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape) / 64.0


def linear(bias: bool = True) -> nn.Linear:
    layer = nn.Linear(H, H, bias=bias)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(dyadic(*p.shape))
    return layer


def by_hand(layer: Recurrent, x: Tensor, weight: Tensor) -> Tensor:
    """Step by step, over the connection's own weight."""
    v = y = torch.zeros_like(x[0])
    outputs = []
    for step in x:
        y, v = lif(step + nn.functional.linear(y, weight, layer.connection.bias), v)  # type: ignore[union-attr]
        outputs.append(y)
    return torch.stack(outputs)


@pytest.mark.parametrize("autapses", [True, False])
def test_the_output_of_the_last_step_is_added_to_the_input(autapses: bool) -> None:
    layer, x = Recurrent(FlexSN(lif, backend=KERNELS), linear(), autapses=autapses), dyadic(9, 3, H)
    weight: Any = layer.connection.weight  # type: ignore[union-attr]
    masked = weight if autapses else weight * (1 - torch.eye(H))
    expected = by_hand(layer, x, masked)
    y = layer(x)
    assert torch.equal(y, expected)
    (grad,) = torch.autograd.grad(y.sum(), weight)
    (wanted,) = torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(grad, wanted)
    assert autapses or not grad.diagonal().any()


def test_a_call_in_chunks_is_the_whole() -> None:
    layer, x = Recurrent(FlexSN(lif, backend=KERNELS), linear()), dyadic(7, 3, H)
    whole = layer(x)
    assert layer.state_names == ("v", "y") and torch.equal(layer.y, whole[-1])
    layer.reset()
    assert torch.equal(torch.cat([layer(x[:2]), layer(x[2:])]), whole)


def test_it_is_called_step_by_step() -> None:
    x, neuron = dyadic(4, 3, H), FlexSN(lif, step_mode="s")
    connection = linear()
    layer, whole = Recurrent(neuron, connection), Recurrent(FlexSN(lif), connection)(x)
    assert torch.equal(torch.stack([layer(step) for step in x]), whole)


@pytest.mark.parametrize("connection", [nn.Parameter(dyadic(H)), nn.Parameter(torch.tensor(-0.5))])
def test_a_parameter_connects_lane_by_lane(connection: nn.Parameter) -> None:
    layer, x = Recurrent(FlexSN(lif, backend=KERNELS), connection), dyadic(6, 3, H)
    loop = Recurrent(FlexSN(lif, backend="torch"), connection)
    assert torch.equal(layer(x), loop(x))
    assert any(p is connection for p in layer.parameters())


def test_a_convolution_connects_pixels() -> None:
    connection = nn.Conv2d(2, 2, 3, padding=1)
    with torch.no_grad():
        for p in connection.parameters():
            p.copy_(dyadic(*p.shape))
    layer, loop = (Recurrent(FlexSN(lif, backend=b), connection) for b in (KERNELS, "torch"))
    x = dyadic(5, 3, 2, 4, 5)
    y, expected = layer(x), loop(x)
    assert torch.equal(y, expected)
    for grad, wanted in zip(
        *(torch.autograd.grad(z.sum(), connection.parameters()) for z in (y, expected)), strict=True
    ):
        torch.testing.assert_close(grad, wanted)


def test_a_built_in_neuron_keeps_its_start_and_its_options() -> None:
    layer = Recurrent(LIF(v_reset=-1.0, step_mode="m", backend=KERNELS, learnable=["tau"]), linear())
    layer(dyadic(3, 2, H))
    assert layer.step_mode == "m" and layer.backend == KERNELS
    assert {"neuron.tau_raw", "connection.weight", "connection.bias"} <= {name for name, _ in layer.named_parameters()}
    assert torch.equal(layer.init_states(2, "m", torch.zeros(3, 2, H))[0], torch.full((2, H), -1.0))


def test_what_cannot_be_compiled_runs_as_the_loop() -> None:
    layer = Recurrent(FlexSN(lif), nn.Softmax(-1))
    with pytest.warns(flexsn.FallbackWarning, match="softmax"):
        layer(dyadic(3, 2, H))
    compiled = Recurrent(FlexSN(lif), linear())
    with warnings.catch_warnings():
        warnings.simplefilter("error", flexsn.FallbackWarning)
        compiled(dyadic(3, 2, H))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"neuron": nn.ReLU()}, "neuron must be a FlexSN, got ReLU"),
    ({"connection": torch.ones(H)}, "connection must be a module or an nn.Parameter, got Tensor"),
    ({"input": 1}, r"input=1, but the neuron has 1 input\(s\)"),
    ({"output": 2}, r"output=2, but the neuron has 1 output\(s\)"),
    ({"connection": nn.Linear(3, 4)}, "must lead from a layer to itself, got 3 to 4"),
    ({"connection": nn.Conv2d(2, 2, 3), "autapses": False}, "autapses=False needs an nn.Linear, got Conv2d"),
]


@pytest.mark.parametrize("arguments, text", WRONG)
def test_what_does_not_fit_is_said(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Recurrent(**{"neuron": FlexSN(lif), "connection": linear()} | arguments)


@pytest.mark.parametrize(
    "neuron",
    [AdLIF(detach_reset=True, step_mode="m"), AdLIF(discretisation="euler", v_reset=None, a=0.25, step_mode="m")],
    ids=["SE-adLIF", "RadLIF"],
)
def test_the_published_adaptive_baselines(neuron: AdLIF) -> None:
    connection, x = linear(bias=False), 4 * dyadic(12, 3, H)
    results = []
    for backend in (KERNELS, "torch"):
        neuron.backend = backend
        y = Recurrent(neuron, connection, autapses=False)(x)
        results.append((y, torch.autograd.grad(y.sum(), connection.weight)[0]))
    (y, grad), (expected, wanted) = results
    assert torch.equal(y, expected) and y.any()
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-4)
