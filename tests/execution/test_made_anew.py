"""A core made anew for every batch: what it closes over is an argument, so the trace of the first serves all."""

from __future__ import annotations

import gc
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import UnsupportedOpError, scan
from flexsn.tracing import tracer

X = torch.tensor([[0.5, 1.0], [2.0, -1.0], [1.0, 0.25]])


def made(decay: Any, gain: Any = 1.0) -> Any:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * decay + x * x * gain
        return v * v, v

    return core


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    count: list[int] = []
    first = tracer.Tracer.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        count.append(1)
        first(self, *args, **kwargs)

    monkeypatch.setattr(tracer.Tracer, "__init__", counted)
    return count


def gradients(core: Any, weight: Tensor, backend: str, *, twice: bool = False) -> list[Tensor]:
    x = X.clone().requires_grad_()
    y, v = scan(core, x, torch.zeros(2), backend=backend)
    found = torch.autograd.grad(y.sum() + v.sum(), (x, weight), create_graph=twice)
    if twice:
        found += torch.autograd.grad(found[0].square().sum(), (x, weight))
    return [y, v, *found]


@pytest.mark.parametrize("twice", [False, True])
def test_one_trace_serves_all(twice: bool, traces: list[int]) -> None:
    for i in range(5):
        weight = torch.tensor([0.5, 0.25]).mul(i + 1).requires_grad_()
        gain = 1.5 + twice  # a core of its own for each test
        mine, expected = (gradients(made(weight * 1.0, gain), weight, b, twice=twice) for b in ("cpp", "torch"))
        for a, b in zip(mine, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert len(traces) == 1


def test_not_every_activation_is_kept() -> None:
    seen = []
    for i in range(8):
        weight = torch.full((2,), 0.1 * i, requires_grad=True)
        activation = weight * 2.0
        seen.append(weakref.ref(activation))
        scan(made(activation, 2.5), X, torch.zeros(2), backend="cpp")
        del activation
    gc.collect()
    assert sum(ref() is not None for ref in seen) <= 2  # of the first, which was traced, and of the last


def through_a_helper(activation: Tensor, number: float) -> Any:
    def helper(x: Tensor) -> Tensor:
        return x * activation * number

    return lambda x, v: (helper(x) + v, v)


def through_a_default(activation: Tensor, number: float) -> Any:
    def helper(x: Tensor, scale: Tensor = activation, more: float = number) -> Tensor:
        return x * scale * more

    return lambda x, v: (helper(x) + v, v)


def through_an_object(activation: Tensor, number: float) -> Any:
    held = SimpleNamespace(scale=activation, more=number)
    return lambda x, v: (x * held.scale * held.more + v, v)


class Held:
    def __init__(self, activation: Tensor, number: float) -> None:
        self.scale, self.more = activation, number

    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.scale * self.more + v, v


def through_a_method(activation: Tensor, number: float) -> Any:
    return Held(activation, number).step


@pytest.mark.parametrize("make", [made, through_a_helper, through_a_default, through_an_object, through_a_method])
@pytest.mark.parametrize("changes", [False, True], ids=["one number", "another number each time"])
def test_activations_of_cores_made_anew_are_not_kept(make: Any, changes: bool) -> None:
    """Of the first, which were traced, and of the last: how many there were since makes no difference."""

    def kept_after(calls: int) -> int:
        seen = []
        for i in range(calls):
            weight = torch.full((2,), 0.1 * i + 0.1, requires_grad=True)
            activation = (weight * 2.0).exp()
            seen.append(weakref.ref(activation))
            y, _ = scan(make(activation, 0.3 + 0.1 * i * changes), X, torch.zeros(2), backend="cpp")
            y.sum().backward()
            assert weight.grad is not None
            del activation, y
        gc.collect()
        return sum(ref() is not None for ref in seen)

    assert kept_after(8) <= 6
    assert kept_after(24) <= 6


def test_a_number_and_a_tensor_that_change_places() -> None:
    one, two = torch.tensor([3.0, 4.0]), 2.0
    held = SimpleNamespace()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * held.decay + x * held.gain
        return v, v

    for held.decay, held.gain in ((one, two), (two, one), (one, two)):
        mine, expected = (scan(core, X, torch.ones(2), backend=b)[0] for b in ("cpp", "torch"))
        assert torch.equal(mine, expected)


def test_other_shapes_flags_and_sharing() -> None:
    a, b = torch.tensor([0.5, 0.25]), torch.tensor(0.5)
    for decay, gain in ((a, b), (b, a), (a, a), (a.double().float(), a.clone()), (a.clone().requires_grad_(), b)):
        mine, expected = (scan(made(decay, gain), X, torch.ones(2), backend=back)[0] for back in ("cpp", "torch"))
        assert torch.equal(mine, expected)


def test_threads_read_their_own() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(20):
            decay = torch.tensor([0.5, 0.25]) * (seed + i % 3)
            core = made(decay, 3.5)
            mine, expected = (scan(core, X, torch.ones(2), backend=back)[0] for back in ("cpp", "torch"))
            if not torch.equal(mine, expected):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_one_core_does_is_not_held_against_another_of_its_code() -> None:
    steps: list[int] = []

    def counting(x: Tensor) -> Tensor:
        steps.append(1)
        return x * 4.5

    def around(helper: Any) -> Any:
        return lambda x, v: (helper(x) + v, v)

    for _ in range(3):
        with pytest.raises(UnsupportedOpError, match=r"the core changes .*steps while it runs"):
            scan(around(counting), X, torch.zeros(2), backend="cpp")
    y, _ = scan(around(lambda x: x * 4.5), X, torch.zeros(2), backend="cpp")
    assert torch.equal(y, X * 4.5) and not steps
