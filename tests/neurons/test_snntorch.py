"""snnTorch's neurons against their equations, looped in eager torch."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from reference import BACKENDS, DTYPES, Parameters, first, hold, noise, strict_spike
from torch import Tensor, nn

from flexsn.neurons import snntorch as snn

spike = strict_spike(lambda u: 1 / (1 + (math.pi * u) ** 2))
RESETS = ("subtract", "zero", "none")


def fired(p: Parameters, mem: Tensor) -> Tensor:
    return (mem > p["threshold"]).to(mem)


def leaky(reset: str, at_once: bool = False) -> Any:
    def step(p: Parameters, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        r, beta, threshold = fired(p, mem), p["beta"].clamp(0, 1), p["threshold"]
        if reset == "subtract":
            new = beta * mem + x - r * threshold
        else:
            new = beta * ((1 - r) * mem if reset == "zero" else mem) + x
        s = spike(new - threshold)
        if at_once:
            new = new - (s - r) * (threshold if reset == "subtract" else new if reset == "zero" else 0.0)
        return s * p["graded_spikes_factor"], new

    return step


def synaptic(reset: str) -> Any:
    def step(p: Parameters, x: Tensor, syn: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        r = fired(p, mem)
        syn = p["alpha"].clamp(0, 1) * syn + x
        mem = p["beta"].clamp(0, 1) * mem + syn
        mem = {"subtract": mem - r * p["threshold"], "zero": mem - mem * r, "none": mem}[reset]
        return spike(mem - p["threshold"]), syn, mem

    return step


def alpha(reset: str) -> Any:
    def step(p: Parameters, x: Tensor, exc: Tensor, inh: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        r, a, b = fired(p, mem), p["alpha"], p["beta"]
        e, i = a * exc + x, b * inh - x
        u = (torch.log(a) / (torch.log(b) - torch.log(a)) + 1) * (e + i)
        if reset == "zero":
            e, i, u = e - e * r, i - i * r, u - u * r
        elif reset == "subtract":
            e, i, u = e - p["threshold"] * r, i - i * r, u + inh * r
        return spike(u - p["threshold"]), e, i, u

    return step


def lapicque(reset: str) -> Any:
    def step(p: Parameters, x: Tensor, mem: Tensor) -> tuple[Tensor, ...]:
        r, dt, R = fired(p, mem), p["time_step"], p["R"]
        C = dt / (R * torch.log(1 / p["beta"]))
        v = x * R * (1 / (R * C)) * dt + (1 - dt / (R * C)) * mem
        v = {"subtract": v - r * p["threshold"], "zero": v - r * v, "none": v}[reset]
        return spike(v - p["threshold"]), v

    return step


def learnable(*values: float) -> Tensor:
    return torch.tensor(values)


BUILDERS: dict[str, tuple[Any, int, Any]] = {
    "Leaky": (
        leaky,
        1,
        lambda reset: snn.Leaky(
            learnable(0.9, 0.5, 1.2), 0.8, learn_beta=True, learn_threshold=True, reset_mechanism=reset
        ),
    ),
    "Synaptic": (
        synaptic,
        2,
        lambda reset: snn.Synaptic(
            0.7, 0.8, learnable(0.9, 1.1, 0.8), learn_alpha=True, learn_beta=True, reset_mechanism=reset
        ),
    ),
    "Alpha": (
        alpha,
        3,
        lambda reset: snn.Alpha(
            learnable(0.9, 0.95, 0.85),
            0.8,
            0.4,
            learn_alpha=True,
            learn_threshold=True,
            reset_mechanism=reset,
        ),
    ),
    "Lapicque": (
        lapicque,
        1,
        lambda reset: snn.Lapicque(
            beta=0.7, R=1.5, time_step=0.5, learn_beta=True, threshold=0.3, reset_mechanism=reset
        ),
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", BUILDERS)
def test_equation(name: str, reset: str, backend: str) -> None:
    step, num_states, build = BUILDERS[name]
    hold(build(reset), step(reset), noise(9, 4, 3) + 0.4, [0.0] * num_states, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BUILDERS)
def test_double_precision(name: str, backend: str) -> None:
    step, num_states, build = BUILDERS[name]
    neuron = build("zero").double()
    hold(neuron, step("zero"), noise(9, 4, 3, dtype=torch.float64) + 0.4, [0.0] * num_states, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset", RESETS)
def test_reset_at_once(reset: str, backend: str) -> None:
    neuron = snn.Leaky(0.9, reset_mechanism=reset, reset_delay=False, learn_beta=True, learn_threshold=True)
    hold(neuron, leaky(reset, at_once=True), noise(9, 4, 3) + 0.4, [0.0], backend)


def test_graded_spikes() -> None:
    neuron = snn.Leaky(0.9, graded_spikes_factor=2.5, learn_graded_spikes_factor=True, step_mode="m")
    y = neuron(noise(9, 4) + 0.4)
    assert set(y.unique().tolist()) == {0.0, 2.5}
    y.sum().backward()
    assert neuron.graded_spikes_factor.grad.item() == (y.detach() > 0).sum()


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparison_is_strict(dtype: torch.dtype) -> None:
    spk, mem = snn.Leaky(0.5).to(dtype)(torch.tensor([1.0, 1.5], dtype=dtype))
    assert spk.tolist() == [0.0, 1.0] and spk.dtype == mem.dtype == dtype


def test_loop_written_for_snntorch() -> None:
    lif, x = snn.Leaky(beta=0.9), noise(6, 2, 3) + 0.5
    mem, recorded = lif.init_leaky(), []
    for x_t in x:
        spk, mem = lif(x_t, mem)
        recorded.append((spk, mem))
    whole = snn.Leaky(beta=0.9, output=True, step_mode="m")
    spk_seq, mem_seq = whole(x)
    assert torch.equal(spk_seq, torch.stack([s for s, _ in recorded]))
    assert torch.equal(mem_seq, torch.stack([m for _, m in recorded]))
    again, _ = lif(x[0], lif.reset_mem())
    assert torch.equal(again, spk_seq[0])
    assert torch.equal(snn.Leaky(beta=0.9, step_mode="m")(x), spk_seq)


def test_what_a_call_returns() -> None:
    x = torch.ones(2)
    assert len(snn.Synaptic(0.9, 0.8)(x)) == 3
    assert isinstance(snn.Synaptic(0.9, 0.8, init_hidden=True)(x), Tensor)
    assert len(snn.Alpha(0.9, 0.8, init_hidden=True, output=True)(x)) == 4
    assert isinstance(snn.Alpha(0.9, 0.8, step_mode="m")(x), Tensor)
    with pytest.raises(TypeError, match=r"Leaky\(init_hidden=True\) keeps its own states"):
        snn.Leaky(0.9, init_hidden=True)(x, x)


def test_states_given_one_by_one() -> None:
    neuron = snn.Synaptic(0.5, 0.5)
    neuron(torch.ones(2), mem=torch.full((2,), 3.0))
    assert neuron.syn.tolist() == [1.0, 1.0] and neuron.mem.tolist() == [1.5, 1.5]
    neuron(torch.ones(2), torch.zeros(0), None)
    assert neuron.syn.tolist() == [1.0, 1.0] and neuron.mem.tolist() == [0.75, 0.75]


@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_mechanism_can_change(backend: str) -> None:
    neuron, x = snn.Leaky(0.9, step_mode="m", backend=backend), torch.full((6, 2), 0.8)
    results = []
    for reset in (*RESETS, "subtract"):
        neuron.reset_mechanism = reset
        neuron.reset()
        results.append(neuron(x))
    assert torch.equal(results[0], results[3])
    assert not torch.equal(results[0], results[2])
    assert neuron.reset_mechanism_val.item() == 0


def test_state_quant_and_surrogate_disable() -> None:
    neuron = snn.Leaky(0.9, state_quant=torch.round, surrogate_disable=True, step_mode="m", output=True)
    spk, mem = neuron(noise(5, 3, scale=2.0).requires_grad_())
    assert torch.equal(mem, mem.round()) and 0 < spk.mean() < 1
    assert snn.Leaky(0.9, spike_grad=lambda u: (u > -0.5).to(u))(torch.tensor([0.6]))[0].item() == 1.0


def test_lapicque_circuit() -> None:
    rc, r = math.exp(-1 / 6), 1.5
    for neuron in (
        snn.Lapicque(R=2.0, C=3.0),
        snn.Lapicque(beta=rc),
        snn.Lapicque(beta=rc, R=r),
        snn.Lapicque(beta=rc, C=4.0),
    ):
        torch.testing.assert_close(neuron.R * neuron.C, torch.tensor(6.0), check_dtype=False)
        torch.testing.assert_close(neuron.beta.reshape(()), torch.tensor(rc))


def test_learned_beta_survives_many_steps() -> None:
    neuron = snn.Lapicque(beta=0.8, learn_beta=True, step_mode="m")
    for _ in range(3):
        neuron.reset()
        neuron(noise(5, 3) + 1.0).sum().backward()
    assert isinstance(neuron.beta, nn.Parameter) and neuron.beta.grad is not None
    assert list(dict(neuron.named_parameters())) == ["beta"]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: snn.Leaky(0.9, reset_mechanism="hard"),
            "Leaky(reset_mechanism='hard'): reset_mechanism must be ",
        ),
        (lambda: snn.Leaky(0.9, inhibition=1), "Leaky(inhibition=1): inhibition must be True or False"),
        (lambda: snn.Leaky("0.9"), "Leaky(beta='0.9'): beta must be a number or a tensor"),
        (lambda: snn.Leaky(0.9, spike_grad=2), "Leaky(spike_grad=2): spike_grad must be callable"),
        (
            lambda: snn.Leaky(0.9, state_quant=8),
            "Leaky(state_quant=8): state_quant must be a pointwise function",
        ),
        (lambda: snn.Alpha(0.5, 0.8), "Alpha(alpha=0.5, beta=0.8): alpha must be > beta"),
        (lambda: snn.Alpha(1.0, 1.0), "alpha must be > beta"),
        (lambda: snn.Lapicque(), "Lapicque(): give beta, or R and C, or beta and one of R and C"),
        (lambda: snn.Lapicque(0.5, 1.0, 2.0), "Lapicque(beta=0.5, R=1.0, C=2.0): give beta"),
        (lambda: snn.Lapicque(R=1.0, C=2.0, learn_beta=True), "learn_beta=True needs beta"),
        (lambda: snn.Lapicque(1.5), "Lapicque(beta=1.5): beta must be in (0, 1)"),
        (lambda: snn.Lapicque(R=-1.0, C=2.0), "Lapicque(R=-1.0): R must be > 0"),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:
        build()
    assert text in str(error.value)


def test_copies_and_repr() -> None:
    neuron = snn.Synaptic(0.9, torch.tensor([0.5, 0.8]), learn_alpha=True)
    neuron(torch.ones(3, 2, requires_grad=True))
    clone = copy.deepcopy(neuron)
    assert torch.equal(first(clone(torch.ones(3, 2))), first(neuron(torch.ones(3, 2))))
    text = repr(neuron)
    for part in (
        "alpha=learnable 0.9",
        "beta=tensor (2,)",
        "threshold=1",
        "reset_mechanism='subtract'",
        "step_mode='s'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("neuron_class", "own", "learned", "last"),
    [
        (snn.Leaky, "beta", "learn_beta", "graded_spikes_factor learn_graded_spikes_factor reset_delay"),
        (snn.Synaptic, "alpha beta", "learn_alpha learn_beta", "reset_delay"),
        (snn.Alpha, "alpha beta", "learn_alpha learn_beta", ""),
        (snn.Lapicque, "beta R C time_step", "learn_beta", ""),
    ],
)
def test_arguments_come_in_the_order_of_the_peer(neuron_class: type, own: str, learned: str, last: str) -> None:
    parameters = inspect.signature(neuron_class).parameters
    fires = "threshold spike_grad surrogate_disable init_hidden inhibition"
    resets = "learn_threshold reset_mechanism state_quant output"
    order = " ".join((own, fires, learned, resets, last)).split()
    assert [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == order
    assert parameters["reset_mechanism"].default == ("zero" if neuron_class is snn.Alpha else "subtract")
