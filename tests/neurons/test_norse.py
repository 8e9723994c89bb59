"""Norse's neurons against their equations, looped in eager torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import (
    BACKENDS,
    DTYPES,
    Parameters,
    assert_same,
    expected,
    noise,
    outcome,
    strict_spike,
    tensors_of,
)
from torch import Tensor, nn

from flexsn.neurons import norse

spike = strict_spike(lambda u: 1 / (1 + u.abs()) ** 2)
DT = 0.002


def lif(p: Parameters, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    j = i + x
    h = v + DT * p["tau_mem_inv"] * ((p["v_leak"] - v) + j)
    s = spike(h - p["v_th"])
    return s, (1 - s) * h + s * p["v_reset"], j - DT * p["tau_syn_inv"] * j


def lsnn(p: Parameters, x: Tensor, v: Tensor, i: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    h = v + DT * p["tau_mem_inv"] * ((p["v_leak"] - v) + i)
    c = b + DT * p["tau_adapt_inv"] * (p["v_th"] - b)
    s = spike(h - c)
    return s, (1 - s) * h + s * p["v_reset"], i - DT * p["tau_syn_inv"] * i + x, c + s * p["beta"]


def adex(p: Parameters, x: Tensor, v: Tensor, i: Tensor, a: Tensor) -> tuple[Tensor, ...]:
    j = i + x
    rise = p["delta_T"] * torch.exp((v - p["v_th"]) / p["delta_T"])
    h = v + DT * p["tau_mem_inv"] * ((p["v_leak"] - v) + rise + j - a)
    s = spike(h - p["v_th"])
    a = a + DT * p["tau_ada_inv"] * (p["adaptation_current"] * (v - p["v_leak"]) - a)
    return (
        s,
        (1 - s) * h + s * p["v_reset"],
        j - DT * p["tau_syn_inv"] * j,
        a + s * p["adaptation_spike"],
    )


def learned(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def leak(p: Parameters) -> Tensor:
    return p["v_leak"].detach()


def threshold(p: Parameters) -> Tensor:
    return p["v_th"].detach()


CASES: dict[str, tuple[Any, Any, list[Any]]] = {
    "LIF": (
        lambda: norse.LIF(norse.LIFParameters(v_leak=0.1, tau_mem_inv=learned(90.0), v_th=learned(0.8, 0.9, 1.0)), DT),
        lif,
        [leak, 0.0],
    ),
    "LSNN": (
        lambda: norse.LSNN(norse.LSNNParameters(v_reset=learned(-0.1), v_th=0.7, beta=learned(0.5, 0.6, 0.7)), DT),
        lsnn,
        [leak, 0.0, threshold],
    ),
    "LIFAdEx": (
        lambda: norse.LIFAdEx(norse.LIFAdExParameters(tau_ada_inv=learned(30.0), delta_T=0.4), DT),
        adex,
        [leak, 0.0, 0.0],
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_equation(name: str, dtype: torch.dtype, backend: str) -> None:
    build, step, starts = CASES[name]
    neuron = build().to(dtype)
    x = noise(12, 4, 3, dtype=dtype) + 1.0
    neuron.backend = backend

    numbers = {n: torch.tensor(v, dtype=dtype) for n in neuron.p._fields if isinstance(v := getattr(neuron, n), float)}
    wanted = expected(step, tensors_of(neuron) | numbers, x, starts)
    for step_mode in ("m", "s"):
        leaf, neuron.step_mode = x.clone().requires_grad_(), step_mode
        if step_mode == "m":
            spikes, state = neuron(leaf)
        else:
            state, rows = None, []
            for x_t in leaf.unbind(0):
                s, state = neuron(x_t, state)
                rows.append(s)
            spikes = torch.stack(rows)
        assert isinstance(state, neuron.state_type)
        assert_same(outcome(spikes, list(state), leaf, dict(neuron.named_parameters())), wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["tonic_bursting", "phasic_bursting", "class_1_exc", "dap"])
def test_izhikevich(name: str, backend: str) -> None:
    (a, b, c, d, sq, mn, bias, v_th, tau_inv, _, _), start = norse.behaviors[name]
    rate = tau_inv * 0.001
    neuron = norse.Izhikevich(norse.behaviors[name], backend=backend)
    x = (noise(120, 2) * 4 + 20).requires_grad_()
    v, u = (state.expand(2) for state in start)
    rows = []
    for x_t in x.unbind(0):
        h = v + rate * (sq * v**2 + mn * v + bias - u + x_t)
        g = u + rate * a * (b * v - u)
        s = spike(h - v_th)
        v, u = (1 - s) * h + s * c, (1 - s) * g + s * (g + d)
        rows.append(s)
    leaf = x.detach().clone().requires_grad_()
    spikes, state = neuron(leaf)
    assert_same(outcome(spikes, list(state), leaf, {}), outcome(torch.stack(rows), [v, u], x, {}))


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "super": lambda u: 1 / (1 + u.abs()) ** 2,
    "triangle": lambda u: 1.5 * torch.relu(1 - u.abs()),
    "tanh": lambda u: 1 - torch.tanh(1.5 * u) ** 2,
    "circ": lambda u: 1.5**3 / (u * u + 1.5**2) ** 1.5,
    "heavi_erfc": lambda u: 2 / torch.pi**0.5 * torch.exp(-((1.5 * u) ** 2)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", SLOPES)
def test_surrogates(method: str, backend: str) -> None:
    neuron = norse.LIF(norse.LIFParameters(method=method, alpha=1.5), dt=0.01, backend=backend)
    x = noise(1, 9).requires_grad_()
    neuron(x)[0].sum().backward()
    torch.testing.assert_close(x.grad, SLOPES[method](x.detach() - 1))


def test_no_surrogate() -> None:
    spikes, _ = norse.LIF(norse.LIFParameters(method="heaviside"))(noise(4, 3, scale=20.0))
    assert 0 < spikes.mean() < 1


def test_calls_start_anew_unless_given_a_state() -> None:
    lif, x = norse.LIF(), noise(10, 3) + 2
    whole, last = lif(x)
    first, state = lif(x[:4])
    second, state = lif(x[4:], state)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(state.v, last.v) and torch.equal(state.i, last.i)
    assert torch.equal(lif(x)[0], whole)


def test_record_states() -> None:
    lif = norse.LIF(record_states=True)
    _, states = lif(noise(5, 3))
    assert states.v.shape == states.i.shape == (5, 3)
    assert torch.equal(states.v[-1], lif.v)


def test_parameters_of_norse_itself() -> None:
    theirs = SimpleNamespace(**norse.LIFParameters(v_th=torch.tensor(0.5))._asdict())
    lif = norse.LIF(theirs)
    assert lif.p == norse.LIFParameters(*lif.p) and lif.p.v_th.item() == 0.5 and lif.p.method == "super"


def test_behaviors_by_name() -> None:
    assert norse.tonic_spiking is norse.behaviors["tonic_spiking"]
    made = norse.create_izhikevich_spiking_behavior(0.02, 0.2, -65, 6, -70, -70)
    assert made == norse.tonic_spiking
    with pytest.raises(AttributeError, match="no attribute 'tonic'"):
        _ = norse.tonic


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: norse.LIF(dt=0.0), "LIF(dt=0.0): dt must be > 0"),
        (lambda: norse.LIF(norse.LIFParameters(method="adjoint")), "method='adjoint': method must be one of"),
        (lambda: norse.LIF(norse.LIFParameters(v_th="1")), "LIF(v_th='1'): v_th must be a number or a tensor"),
        (lambda: norse.LSNN(norse.LIFParameters()), "p must be LSNNParameters(...), it has no tau_adapt_inv"),
        (lambda: norse.Izhikevich(3), "Izhikevich(spiking_method=3): spiking_method must be"),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:
        build()
    assert text in str(error.value)


def test_copies_and_repr() -> None:
    neuron = norse.LSNN(norse.LSNNParameters(beta=learned(0.5, 0.6)))
    x = noise(6, 2) + 2
    assert torch.equal(copy.deepcopy(neuron)(x)[0], neuron(x)[0])
    text = repr(neuron)
    for part in ("tau_syn_inv=200", "beta=learnable tensor (2,)", "method='super'", "dt=0.001", "step_mode='m'"):
        assert part in text
    assert "a=0.02" in repr(norse.Izhikevich(norse.tonic_spiking))
