"""Numbers that change at every call: the third value makes the last kernel, and every value gives the loop's bits."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import torch
from number_holders import HOLDERS, Change, Config, Core, in_a_module
from torch import Tensor, nn

from flexsn import FlexSN, scan, surrogate
from flexsn.ir import passes
from flexsn.tracing.tracer import Tracer

X = torch.tensor([[0.5, 1.0, -0.75], [2.0, -1.0, 0.25]])
KERNELS = {"C++", "Triton"}


@pytest.fixture
def kernels() -> Iterator[list[str]]:
    """The text of every kernel that is printed."""
    printed: list[str] = []
    with passes.watching(lambda name, form: printed.append(form) if name in KERNELS else None):
        yield printed


def results(core: Core, backend: str, *reads: Tensor) -> list[Tensor]:
    x = X.clone().requires_grad_()
    y, v = scan(core, (x,), (torch.zeros(3),), backend=backend)
    outputs = [y] if isinstance(y, Tensor) else list(y)
    total = sum((o.sum() for o in outputs), v[0].sum())
    return [*outputs, *v, *torch.autograd.grad(total, (x, *reads))]


def assert_same_bits(core: Core, backend: str) -> None:
    for mine, expected in zip(results(core, backend), results(core, "torch"), strict=True):
        assert mine.dtype == expected.dtype
        assert torch.equal(mine.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.filterwarnings("ignore:running the core on examples:flexsn.FallbackWarning")
def test_fifty_values_make_three_kernels(holder: Callable[[], Change], backend: str, kernels: list[str]) -> None:
    change = holder()
    for i in range(50):
        assert_same_bits(change(1.5 + 0.07 * i), backend)
    if backend != "torch":
        assert len(kernels) <= 2 * 3  # each with the one of its gradients


@pytest.mark.parametrize("back", [1.5, 0.25])
def test_a_value_that_was_there_before(back: float) -> None:
    change = in_a_module()
    for number in (1.5, 2.5, 3.5, 4.5, back, 5.5, back):
        assert_same_bits(change(number), "cpp")


INT = torch.tensor([1, 2, 3])


def arithmetic(x: Tensor, a: float) -> tuple[Tensor, ...]:
    return x + (INT * a) + (x > a) * a, a / (x + 3.5) + x / a, a - x - torch.rsub(x, a), torch.lerp(x, x * x, a)


def choice(x: Tensor, a: float) -> tuple[Tensor, ...]:
    bounds = x.clamp(-a, a) + x.clamp_min(a) + torch.clamp(x, max=-a)
    return bounds, torch.where(x > 0.1, a, x * a) + x.masked_fill(x < 0, a), torch.nn.functional.leaky_relu(x, a)


def made_of_it(x: Tensor, a: float) -> tuple[Tensor, ...]:
    return x * torch.tensor(a) + torch.full_like(x, a) * torch.exp(torch.tensor(-a)), torch.addcmul(x, x, x, value=a)


def alpha(x: Tensor, a: float) -> tuple[Tensor, ...]:
    return (torch.add(x, x * 0.3, alpha=a) - torch.sub(x, x * 0.7, alpha=a),)


@pytest.mark.parametrize("operations", [arithmetic, choice, made_of_it, alpha])
def test_an_argument_is_to_torch_what_the_number_is(
    operations: Callable[[Tensor, float], tuple[Tensor, ...]], backend: str, kernels: list[str]
) -> None:
    """Promotion, overloads, formulas of gradients: not what torch does with a tensor of one value."""
    held = Config()
    core = lambda x, v: (*operations(x, held.gain), v + x)  # noqa: E731
    for held.gain in (1.3, 0.7, 2.9, 2.0, 0.1, 0.5, 1e-30, 16777217.0):
        assert_same_bits(core, backend)
    if backend != "torch":
        assert len(kernels) <= 2 * 3


@pytest.mark.parametrize("exponent", [1.3, 2.0])
def test_a_power_of_a_step_value_stays_a_constant(exponent: float) -> None:
    held = Config()
    core = lambda x, v: ((x * x) ** held.gain, v)  # noqa: E731
    for held.gain in (1.5, 2.5, 3.5, exponent, 0.5, exponent):
        mine, expected = (scan(core, X, torch.zeros(3), backend=b)[0] for b in ("cpp", "torch"))
        torch.testing.assert_close(mine, expected, rtol=5e-7, atol=0.0)
        assert held.gain not in (2.0, 0.5) or torch.equal(mine, expected)


def test_python_decides_by_the_number_as_in_the_loop() -> None:
    held = Config()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        gain = held.gain
        if gain > 3.0:
            x = x * 2.0
        for _ in range(int(gain)):
            x = x + 0.25
        return x * gain, v + x * (gain if isinstance(gain, float) else 0.0)

    for i in range(14):
        held.gain = 2.1 + (i * 5 % 14) * 0.13
        assert_same_bits(core, "cpp")


def test_two_numbers_that_agreed_and_then_do_not() -> None:
    one, other = Config(), Config()
    core = lambda x, v: (x * one.gain + v * other.gain, v + x)  # noqa: E731
    for i in range(12):
        one.gain = other.gain = 1.1 + i
        other.gain += i // 6
        assert_same_bits(core, "cpp")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.0, 0.0])
def test_numbers_out_of_the_ordinary(number: float) -> None:
    held = Config()
    core = lambda x, v: (x.clamp_min(held.gain) * held.gain, v)  # noqa: E731
    for held.gain in (1.5, 2.5, 3.5, 4.5, number, 5.5):
        mine, expected = (scan(core, X, torch.zeros(3), backend=b)[0] for b in ("cpp", "torch"))
        torch.testing.assert_close(mine, expected, rtol=0.0, atol=0.0, equal_nan=True)


def test_a_parameter_and_a_number_meet_in_torch() -> None:
    held, weight = Config(), nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))
    core = lambda x, v: (v + x * weight**held.gain, v * torch.sigmoid(weight * held.gain) + x)  # noqa: E731
    for i in range(6):
        held.gain = 1.3 + i
        mine, expected = results(core, "cpp", weight), results(core, "torch", weight)
        torch.testing.assert_close(mine, expected)


def test_a_second_derivative_is_of_the_value_of_its_own_call() -> None:
    held = Config()
    core = lambda x, v: (x * x * x * held.gain, v)  # noqa: E731
    calls = []
    for i in range(5):
        held.gain = 1.5 + i
        x = X.clone().requires_grad_()
        y, _ = scan(core, x, torch.zeros(3), backend="cpp")
        calls.append((held.gain, x, y))
    for gain, x, y in calls:
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(second, 6.0 * x.detach() * gain)


def test_memory_does_not_grow_with_the_values() -> None:
    change, numbers = in_a_module(), count()

    def traces_after(calls: int) -> int:
        for _ in range(calls):
            results(change(1.5 + 0.01 * next(numbers)), "cpp")
        gc.collect()
        return sum(type(thing) is Tracer for thing in gc.get_objects())

    assert traces_after(8) == traces_after(40)


def test_a_neuron_that_reads_on_the_way_back_alone_between_training_and_inference() -> None:
    alpha = torch.tensor(2.0)
    spike = surrogate.custom(lambda h: alpha / (1.0 + h.abs()))
    neuron = FlexSN(lambda x, v: (spike(x + v - 1.0), v), backend="cpp")
    for training in (False, True, False):
        neuron.reset()
        with torch.set_grad_enabled(training):
            assert neuron(X.clone().requires_grad_(training)).shape == X.shape


class AbsentGradient(torch.autograd.Function):
    """A backward half that does something else where there is no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, otherwise: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.otherwise = otherwise
        return x * 2.0, x * 3.0

    @staticmethod
    def backward(ctx: Any, one: Tensor | None, two: Tensor | None) -> Any:
        if one is None or two is None:
            present = two if one is None else one
            return None if present is None else present * ctx.otherwise, None
        return one * 2.0 + two * 3.0, None


def test_a_number_that_only_another_pattern_of_gradients_reads() -> None:
    held = Config()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (*AbsentGradient.apply(x, held.gain), v)

    for held.gain in (1.5, 2.5, 3.5, 4.5):
        x = X.clone().requires_grad_()
        (one, _), _ = scan(core, (x,), (torch.zeros(3),), backend="cpp")
        (grad,) = torch.autograd.grad(one.sum(), x)
        assert torch.equal(grad, torch.full_like(x, held.gain))
