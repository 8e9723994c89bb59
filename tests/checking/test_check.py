"""``flexsn.check``: what is right passes, and what is planted is found, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import planted
import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, neurons, surrogate
from flexsn.execution.backends import supported_backends
from flexsn.ir.plan import Holds
from flexsn.kernels.cpp.spelling import SPELLINGS

KERNELS = [name for name in supported_backends() if name != "torch"]
SHAPE = (12, 3, 7)
spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def exponential(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    s = spike(torch.exp(x) + 0.0 * v - math.e)
    return s, v + 0.25 * s


def found(core: Any, *inputs: Any, **options: Any) -> str:
    """What a check that fails says."""
    with pytest.raises(AssertionError) as raised:
        flexsn.check(core, *inputs, **options)
    return str(raised.value)


def failures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("  FAILED")]


# ---- what is right ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", KERNELS)
def test_a_core_passes_on_every_backend(backend: str) -> None:
    result = flexsn.check(lif, backends=[backend])
    assert result and result.passed and not result.failures
    looked_at = [finding.what for finding in result.findings]
    assert looked_at == [
        "compiles",
        f"{backend}, multiples of 2^-6 [12, 3, 7]",
        f"{backend}, one more step, strided [1, 3, 7]",
        f"{backend}, real numbers [20, 102, 7]",
        "torch, the smooth neuron in fp64 [4, 3, 7]",
        f"{backend}, the smooth neuron in fp64 [4, 3, 7]",
    ]
    text = str(result)
    assert text.startswith("check of lif: passed\n  ok      compiles: 8 bytes per lane and step in inference, 20")
    assert "the loop's bits are promised" in text and "bit for bit" in text and "gradients of input 0, state 0" in text


@pytest.mark.parametrize("backend", KERNELS)
def test_parameters_recurrence_and_what_is_not_exact(backend: str) -> None:
    layer = flexsn.Recurrent(neurons.PLIF(step_mode="m"), nn.Linear(5, 5))
    result = flexsn.check(layer, (6, 2, 5), backends=[backend])
    assert "near the loop, because of a product" in str(result)
    assert "parameter neuron.w" in str(result) and "parameter connection.weight" in str(result)
    assert flexsn.check(exponential, (4, 2, 3), backends=[backend])


def test_the_tensors_of_a_call() -> None:
    """Time where the neuron has it, integer states, a parameter; and the neuron stays as it was."""

    def core(x: Tensor, z: Tensor, v: Tensor, waits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.where(waits == 0, v + x * z, v)
        s = spike(h - threshold)
        return s, h - s.detach(), torch.where(s > 0, 2, (waits - 1).clamp(min=0))

    threshold = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
    neuron = FlexSN(core, num_inputs=2, time_dim=1, backend="torch", rate=True)
    x, z = torch.rand(2, 9, 3) * 2, torch.rand(2, 9, 3)
    states = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.int64)
    neuron.states = states
    result = flexsn.check(neuron, x, z, states=states)
    assert result.findings[1].what.endswith("the inputs given [9, 2, 3]")
    assert result.findings[-1].passed is None and result.findings[-1].details == "it detaches a value"
    assert neuron.states[0] is states[0] and neuron.backend == "torch" and neuron.time_dim == 1
    assert threshold.grad is None and not x.requires_grad


def test_shapes_are_calls() -> None:
    result = flexsn.check(lif, (3, 2), (2, 1, 2, 2), gradients=False)
    assert {f.what.partition(" [")[2] for f in result.findings if "real numbers" in f.what} == {"3, 2]", "2, 1, 2, 2]"}


def test_a_core_without_a_gradient_is_compared_without() -> None:
    result = flexsn.check(lambda x, v: ((v + x > 1.0).float(), v.detach()))
    note = next(f for f in result.findings if f.what == "no gradient flows")
    assert note.passed is None and "surrogate" in note.details


# ---- what is wrong with a kernel -------------------------------------------------------------------------------


def turn_last(y: Tensor) -> None:
    y.view(-1)[-1] = 1.0 - y.view(-1)[-1]


def to_the_next(v: Tensor) -> None:
    v.view(-1)[3] = torch.nextafter(v.view(-1)[3], torch.tensor(9.0))


def scale(gradient: Tensor) -> None:
    gradient *= 1.001


def drop_first(sums: Tensor) -> None:
    sums.view(-1)[0] = 0.0


@pytest.mark.parametrize(
    ("holds", "change", "says"),
    [
        (Holds.OUTPUT, turn_last, "spikes differ in 1 of 21 lanes, and not by rounding at the threshold"),
        (Holds.FINAL_STATE, to_the_next, "final state 0: 1 of 21 differ by more than 0, most at (0, 3)"),
        (Holds.GRAD_INPUT, scale, "gradient of input 0: "),
        (Holds.GRAD_STATE, scale, "gradient of state 0: "),
        (Holds.ACCUMULATOR, drop_first, "gradient of parameter w: 1 of 1 differ"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.parametrize("backend", KERNELS)
def test_a_planted_fault_is_found(backend: str, holds: Holds, change: Callable[[Tensor], Any], says: str) -> None:
    neuron = neurons.PLIF(surrogate_function=spike)
    with planted.planted(backend, holds, change):
        text = found(neuron, SHAPE, backends=[backend])
    assert says in text and f"FAILED  {backend}, multiples of 2^-6 [12, 3, 7]: differs from the loop" in text
    if holds is Holds.OUTPUT:
        assert "output 0, step 11, lane (2, 6): " in text


def test_a_fault_of_the_inference_kernel_alone_is_found() -> None:
    with planted.planted("cpp", Holds.OUTPUT, turn_last, training=False):
        text = found(lif, SHAPE, backends=["cpp"])
    assert "\n            without gradients, spikes differ in" in text and "\n            spikes differ" not in text


def test_a_threshold_that_is_strict_in_the_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are multiples of 2^-6 for this: some membranes are at the threshold."""
    monkeypatch.setitem(SPELLINGS, "ge", "{0} > {1}")
    text = found(lambda x, v: (spike(v + x - 1.0), v + 0.0 * x), SHAPE, backends=["cpp"], gradients=False)
    assert "and not by rounding at the threshold" in text and "cpp, multiples of 2^-6" in failures(text)[0]


def test_a_spike_that_rounding_turns_is_told_from_one_that_it_does_not() -> None:
    """``exp(1)`` is the threshold, to the last bit; a kernel has it 1 ulp off, say."""
    x = torch.full((1, 4), 0.5)
    x[0, -1] = 1.0
    with planted.planted("cpp", Holds.OUTPUT, turn_last):
        result = flexsn.check(exponential, x, backends=["cpp"], gradients=False)
        assert "1 lanes flip by rounding at the threshold" in result.findings[1].details
        text = found(exponential, x.flip(1), backends=["cpp"], gradients=False)
    assert "output 0, step 0, lane (3,): 1, the loop 0" in text


def test_of_a_core_with_the_loop_s_bits_rounding_turns_none() -> None:
    with planted.planted("cpp", Holds.OUTPUT, turn_last):
        text = found(lambda x, v: (spike(v + 2.0 * x - 1.0), v), torch.full((1, 2), 0.5), backends=["cpp"])
    assert "rounding at the threshold can turn them, but all operations of this core are promised" in text


# ---- what is wrong with a core ---------------------------------------------------------------------------------


def test_what_does_not_compile_fails_with_the_line() -> None:
    def mixing(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + x.cumsum(-1)  # the line
        return h, h

    text = found(mixing)
    assert "FAILED  cannot be compiled, runs as the loop: aten.cumsum.default mixes lanes" in text
    assert "h = v + x.cumsum(-1)  # the line" in text
    result = flexsn.check(mixing, raise_exception=False)
    assert not result and result.report is None
    with pytest.raises(AssertionError, match="cannot be compiled"):
        result.raise_if_failed()


class Wrong(surrogate.Surrogate):
    """A slope that is twice the derivative of its primitive."""

    def derivative_function(self, x: Tensor) -> Tensor:
        return 2.0 / (1.0 + x * x)

    def primitive_function(self, x: Tensor) -> Tensor:
        return torch.atan(x)


def test_a_slope_that_is_no_derivative_is_found() -> None:
    slope = Wrong()
    text = found(lambda x, v: (slope(v + x - 1.0), v + x), SHAPE, backends=["torch"])
    assert "FAILED  the slope of Wrong(): " in text and len(failures(text)) == 1
    assert slope.spiking


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] / 2


@pytest.mark.parametrize(
    ("fire", "says"),
    [
        (Halved.apply, "it has a gradient of its own, that of Halved"),
        (surrogate.custom(torch.ones_like), "spiking=False needs a primitive, and none was given"),
    ],
)
def test_what_has_no_derivative_is_not_held_to_it(fire: Callable[[Tensor], Tensor], says: str) -> None:
    result = flexsn.check(lambda x, v: (fire(v + x - 1.0), v + x), SHAPE, backends=["torch"])
    assert result.findings[-1].passed is None and says in result.findings[-1].details


def test_a_hook_may_make_of_a_gradient_what_it_likes() -> None:
    layer = neurons.norse.LIFRecurrentCell(4, 4)  # whose matrix has no diagonal, in the gradient alone
    result = flexsn.check(layer, (3, 2, 4), backends=["torch"])
    assert result.findings[-1].details.startswith("a hook is told of the gradient of recurrent_weights")


def test_a_gradient_that_is_no_derivative_is_found() -> None:
    """Planted where everything is compared in fp64 alone."""
    with planted.planted("cpp", Holds.GRAD_INPUT, lambda g: g.mul_(1.0 + 0.5 * (g.dtype == torch.float64))):
        text = found(lif, SHAPE, backends=["cpp"])
    assert failures(text) == ["  FAILED  cpp, the smooth neuron in fp64 [4, 3, 7]: gradients are not the derivatives"]
    assert "input 0: along a random direction" in text


# ---- how it is asked -------------------------------------------------------------------------------------------


def test_backends_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    text = found(lif, SHAPE, backends=["cpp"])
    assert "FAILED  cpp was not run: no C++ compiler: no-such-compiler not found" in text
    if KERNELS == ["cpp"]:
        result = flexsn.check(lif, SHAPE)
        assert result and result.findings[-1].what == "nothing was compared"


def test_inputs_that_stay_silent_are_noted() -> None:
    result = flexsn.check(lif, torch.zeros(3, 2), gradients=False)
    assert "all outputs are 0" in str(result)


@pytest.mark.parametrize(
    ("core", "inputs", "options", "says"),
    [
        (lif, (torch.zeros(2, 2), (3, 2)), {}, "tensors of a call, or shapes"),
        (lif, (torch.zeros(0, 2),), {}, "without a step, or without a lane"),
        (lif, ((3, 2),), {"states": torch.zeros(2)}, "states belong to inputs"),
        (nn.Sequential(nn.Linear(2, 2), neurons.LIF()), (), {}, "a network: check its neurons one by one, 1"),
        (FlexSN(lambda x, v: (v + x, v + torch.ones(3))), ((4, 5),), {}, "flexsn.check.core, .T, .step.."),
    ],
)
def test_what_cannot_be_asked(core: Any, inputs: Any, options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        flexsn.check(core, *inputs, **options)
