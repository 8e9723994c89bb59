"""Learnable coefficients: their range by construction, their shapes, and exact gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import BACKENDS
from torch import Tensor

from flexsn import neurons, surrogate

SMOOTH = surrogate.Sigmoid(alpha=2.0, spiking=False)  # differentiable for real, so differences can be compared
BUILDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "IF": (neurons.IF, ("v_threshold",)),
    "LIF": (neurons.LIF, ("tau", "v_threshold", "v_reset")),
    "QIF": (neurons.QIF, ("tau", "v_c", "a0", "v_rest")),
    "EIF": (neurons.EIF, ("tau", "delta_T", "theta_rh")),
    "Izhikevich": (neurons.Izhikevich, ("tau", "tau_w", "a", "b")),
    "AdEx": (neurons.AdEx, ("tau", "tau_w", "v_threshold")),
    "ALIF": (neurons.ALIF, ("tau", "tau_adapt", "beta", "v_threshold")),
    "AdLIF": (neurons.AdLIF, ("alpha", "beta", "a", "b", "v_threshold")),
    "CubaLIF": (neurons.CubaLIF, ("alpha", "beta", "v_threshold")),
    "AlphaLIF": (neurons.AlphaLIF, ("alpha", "beta")),
    "ResonateFire": (neurons.ResonateFire, ("b", "omega", "v_threshold")),
    "CLIF": (neurons.CLIF, ("tau", "v_threshold")),
    "TernaryLIF": (neurons.TernaryLIF, ("tau", "v_threshold")),
    "NonSpikingLIF": (neurons.NonSpikingLIF, ("tau",)),
}


def _build(name: str, backend: str, **kwargs: Any) -> Any:
    build, learnable = BUILDS[name]
    if name != "NonSpikingLIF":
        kwargs["surrogate_function"] = SMOOTH
    start = {"tau": 2.5} if name == "NonSpikingLIF" else {}
    return build(**start, step_mode="m", backend=backend, learnable=learnable, **kwargs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BUILDS)
def test_gradients_against_differences(name: str, backend: str) -> None:
    neuron = _build(name, backend, shape=(3, 1)).double()
    x = torch.rand(5, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss() -> Tensor:
        neuron.reset()
        return (neuron(x) ** 2).sum()

    loss().backward()
    parameters = dict(neuron.named_parameters())
    assert len(parameters) == len(BUILDS[name][1])
    for parameter in parameters.values():
        assert parameter.shape == (3, 1)
        for index in range(3):
            with torch.no_grad():
                values = []
                for step in (1e-6, -2e-6):
                    parameter[index, 0] += step
                    values.append(loss().item())
                parameter[index, 0] += 1e-6
            want = (values[0] - values[1]) / 2e-6
            assert parameter.grad[index, 0].item() == pytest.approx(want, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BUILDS)
def test_learnable_starts_as_the_constant(name: str, backend: str) -> None:
    build, _ = BUILDS[name]
    kwargs = {"tau": 2.5} if name == "NonSpikingLIF" else {"surrogate_function": SMOOTH}
    x = torch.rand(5, 2, 3, dtype=torch.float64)
    learned = _build(name, backend, shape=(3,)).double()
    torch.testing.assert_close(learned(x), build(**kwargs, step_mode="m", backend=backend)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("neuron", "name", "low", "high"),
    [
        (neurons.LIF(learnable="tau"), "tau", 1.0, None),
        (neurons.EIF(learnable="delta_T"), "delta_T", 0.0, None),
        (neurons.CubaLIF(learnable="alpha"), "alpha", 0.0, 1.0),
        (neurons.ResonateFire(learnable="b"), "b", None, 0.0),
    ],
)
def test_no_optimizer_step_leaves_the_range(neuron: Any, name: str, low: float | None, high: float | None) -> None:
    raw = getattr(neuron, f"{name}_raw")
    for value in (-12.0, 0.0, 12.0):
        with torch.no_grad():
            raw.fill_(value)
        got = getattr(neuron, name).item()
        assert (low is None or got > low) and (high is None or got < high)


def test_shapes_and_names() -> None:
    lif = neurons.LIF(tau=torch.tensor([2.0, 3.0, 5.0]), learnable=("tau", "v_threshold"))
    assert {n: tuple(p.shape) for n, p in lif.named_parameters()} == {"tau_raw": (3,), "v_threshold": ()}
    torch.testing.assert_close(lif.tau, torch.tensor([2.0, 3.0, 5.0]))
    assert neurons.PLIF(shape=(8, 1, 1), learnable="v_threshold").v_threshold.shape == (8, 1, 1)


def test_setting_a_learnable_value_keeps_it_learnable() -> None:
    lif = neurons.LIF(tau=2.0, learnable=("tau", "v_threshold"), shape=(3,))
    lif.tau, lif.v_threshold = 5.0, 0.5
    torch.testing.assert_close(lif.tau, torch.full((3,), 5.0))
    assert torch.equal(lif.v_threshold, torch.full((3,), 0.5)) and len(list(lif.parameters())) == 2
    lif.v_threshold = torch.nn.Parameter(torch.ones(3, 1))
    assert lif.v_threshold.shape == (3, 1) and len(list(lif.parameters())) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_plif_learns_a_time_constant_per_neuron(backend: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 16, 3)
    want = neurons.NonSpikingLIF(torch.tensor([1.5, 3.0, 8.0]))(x)
    readout = neurons.NonSpikingLIF(2.0, learnable="tau", shape=(3,), backend=backend)
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.2)
    for _ in range(150):
        readout.reset()
        optimizer.zero_grad()
        ((readout(x) - want) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(readout.tau, torch.tensor([1.5, 3.0, 8.0]), rtol=0.02, atol=0.02)
