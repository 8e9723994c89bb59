"""Cores that reach one parameter, each in another way, and what the loop makes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from flexsn import FlexSN

GLOBAL_GAIN = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
X = torch.linspace(-1.0, 2.0, 24).reshape(4, 2, 3)
Returned = tuple[Tensor, Tensor]


def gain() -> nn.Parameter:
    return nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))


def step(x: Tensor, v: Tensor, gain: Tensor) -> Returned:
    h = v * 0.5 + x * gain
    return h, h * 0.75


def of_closure() -> Callable[..., Returned]:
    weight = gain()

    def core(x: Tensor, v: Tensor) -> Returned:
        return step(x, v, weight)

    return core


def of_nested_function() -> Callable[..., Returned]:
    weight = gain()

    def inner(x: Tensor, v: Tensor) -> Returned:
        return step(x, v, weight)

    return lambda x, v: inner(x, v)


def of_list() -> Callable[..., Returned]:
    weights = [gain()]
    return lambda x, v: step(x, v, weights[0])


def of_dict() -> Callable[..., Returned]:
    weights = {"weight": gain()}
    return lambda x, v: step(x, v, weights["weight"])


def of_tuple() -> Callable[..., Returned]:
    weights = (gain(), 1.0)
    return lambda x, v: step(x, v, weights[0])


def of_object() -> Callable[..., Returned]:
    held = SimpleNamespace(weight=gain())
    return lambda x, v: step(x, v, held.weight)


def of_default() -> Callable[..., Returned]:
    def core(x: Tensor, v: Tensor, weight: Tensor = gain()) -> Returned:  # noqa: B008
        return step(x, v, weight)

    return core


def reads_global(x: Tensor, v: Tensor) -> Returned:
    return step(x, v, GLOBAL_GAIN)


def of_global() -> Callable[..., Returned]:
    """The one core that tests share, its parameter as at first."""
    with torch.no_grad():
        GLOBAL_GAIN.copy_(gain())
    return reads_global


class Core(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = gain()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)


class Parent(nn.Module):
    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        self.weight = gain()
        self.linear = nn.Linear(3, 3)
        self.neuron = FlexSN(self.step, backend=backend)

    def step(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.neuron(self.linear(x))
        return y


class Subclass(FlexSN):
    def __init__(self, backend: str = "auto") -> None:
        super().__init__(backend=backend)
        self.weight = gain()

    def core(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)


CORES: dict[str, tuple[Callable[[], Any], str]] = {
    "closure": (of_closure, "weight"),
    "nested function": (of_nested_function, "weight"),
    "list": (of_list, "weights_0"),
    "dict": (of_dict, "weights_weight"),
    "tuple": (of_tuple, "weights_0"),
    "object": (of_object, "held_weight"),
    "default": (of_default, "weight"),
    "global": (of_global, "GLOBAL_GAIN"),
    "partial argument": (lambda: functools.partial(lambda gain, x, v: step(x, v, gain), gain()), "gain"),
    "partial keyword": (lambda: functools.partial(step, gain=gain()), "gain"),
    "bound method": (lambda: Parent().step, "weight"),
    "module": (Core, "core.weight"),
}
REBUILT = ["closure", "nested function", "list", "dict", "tuple", "object", "default", "global", "partial argument"]
REBUILT += ["partial keyword", "bound method", "module"]


def make(name: str, backend: str) -> tuple[FlexSN, str]:
    build, parameter = CORES[name]
    return FlexSN(build(), backend=backend), parameter


def loop_gradient(x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    weight = start.detach().clone().requires_grad_()
    v, outputs = torch.zeros(2, 3), []
    for x_t in x:
        y, v = step(x_t, v, weight)
        outputs.append(y)
    y = torch.stack(outputs)
    y.square().sum().backward()
    assert weight.grad is not None
    return y.detach(), weight.grad
