"""Cores that read numbers by way of code, each with a change of that code."""

from __future__ import annotations

import builtins
import functools
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from changing_holders import Case, Core, Held, scaled
from torch import Tensor, nn


class Meta(type):
    @property
    def gain(cls) -> float:
        return cls.hidden  # type: ignore[attr-defined, no-any-return]


class OfMeta(metaclass=Meta):
    hidden = 2.0


def imported(name: str, core: Core) -> Case:
    module = sys.modules[name] = ModuleType(name)
    module.gain = 2.0  # type: ignore[attr-defined]
    return core, lambda: setattr(module, "gain", 3.0)


def of_a_module() -> Case:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        import settings_of_a_test

        return v + x * settings_of_a_test.gain, v

    return imported("settings_of_a_test", core)


def of_a_name() -> Case:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        from settings_of_a_test import gain

        return v + x * gain, v

    return imported("settings_of_a_test", core)


def of_a_replaced_module() -> Case:
    other = ModuleType("settings_of_a_test")
    other.gain = 3.0  # type: ignore[attr-defined]
    return of_a_name()[0], lambda: sys.modules.update(settings_of_a_test=other)


def called_through_a_module(change: str) -> Case:
    module = ModuleType("surrogates_of_a_test")
    code = "gain = 2.0\ndef f(x): return x * gain\ndef g(x): return x * 3.0\ndef reads(held): return held.__dict__"
    exec(code, vars(module))
    held = Held(gain=1.0)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + module.f(x) * module.reads(held)["gain"], v

    changes: dict[str, Callable[[], object]] = {
        "function": lambda: setattr(module, "f", module.g),
        "global": lambda: setattr(module, "gain", 3.0),
        "code": lambda: setattr(module.f, "__code__", module.g.__code__),
    }
    return core, changes[change]


def grown() -> Case:
    layers = nn.Sequential(nn.ReLU())
    return (lambda x, v: (v + layers(x), v)), lambda: layers.append(nn.Hardtanh())


def hooked(register: str, hook: Callable[..., Any]) -> Case:
    layer = nn.LeakyReLU(0.5)
    return (lambda x, v: (v + layer(x), v)), lambda: getattr(layer, register)(hook)


def replaced_hook() -> Case:
    layer = nn.LeakyReLU(0.5)
    handle = layer.register_forward_hook(lambda layer, args, out: out * 2.0)

    def change() -> None:
        handle.remove()
        layer.register_forward_hook(lambda layer, args, out: out * 3.0)

    return (lambda x, v: (v + layer(x), v)), change


def redefined(use: Callable[[Any], float], name: str, new: Any) -> Case:
    class Own(Held):
        def method(self) -> float:
            return super().method()

        @property
        def shown(self) -> float:
            return self.kept

        @staticmethod
        def fixed() -> float:
            return 2.0

        @classmethod
        def of_class(cls) -> float:
            return cls.kept

        def __float__(self) -> float:
            return self.kept

    held = Own()
    return scaled(lambda: use(held)), lambda: setattr(Own, name, new)


def redefined_in_a_base() -> Case:
    class Base:
        def method(self) -> float:
            return 2.0

    class Derived(Base): ...

    held = Derived()
    return scaled(lambda: held.method()), lambda: setattr(Derived, "method", lambda self: 3.0)


def shadowed() -> Case:
    held = Held()
    return scaled(lambda: held.method()), lambda: setattr(held, "method", lambda: 3.0)


def another_class() -> Case:
    class Other(Held):
        def method(self) -> float:
            return 3.0

    held = Held()
    return scaled(lambda: held.method()), lambda: setattr(held, "__class__", Other)


def shadowing_a_builtin() -> Case:
    space: dict[str, Any] = {"__name__": "space_of_a_test"}
    exec("def core(x, v): return v + x * float(2.0), v", space)
    return space["core"], lambda: space.update(float=lambda value: 3.0)


def put_among_builtins() -> Case:
    builtins.gain_of_a_test = 2.0  # type: ignore[attr-defined]
    return (
        lambda x, v: (v + x * gain_of_a_test, v),  # type: ignore[name-defined]  # noqa: F821
        lambda: setattr(builtins, "gain_of_a_test", 3.0),
    )


def decorated(wrap: Callable[[Any], Any]) -> Case:
    held = Held(gain=2.0)
    helper = wrap(lambda value: held.gain)
    return scaled(lambda: helper(1.0)), lambda: setattr(held, "gain", 3.0)


def of_a_metaclass() -> Case:
    OfMeta.hidden = 2.0
    return scaled(lambda: OfMeta.gain), lambda: setattr(OfMeta, "hidden", 3.0)


def reading_globals() -> Case:
    space: dict[str, Any] = {"gain": 2.0, "__name__": "space_of_a_test"}
    exec("def core(x, v): return v + x * globals()['ga' 'in'], v", space)
    return space["core"], lambda: space.update(gain=3.0)


def dispatched() -> Case:
    held = Held(gain=2.0)

    @functools.singledispatch
    def helper(value: Any) -> float:
        return 1.0

    @helper.register
    def _(value: float) -> float:
        return float(held.gain)

    return scaled(lambda: helper(1.0)), lambda: setattr(held, "gain", 3.0)


def of_only_a_backward() -> Case:
    """A number that the backward of a surrogate reads through a weak reference."""
    held = Held(gain=2.0)
    seen = weakref.ref(held)

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return (x >= 0).to(x)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            return grad * seen().gain  # type: ignore[union-attr]

    return (lambda x, v: (Fire.apply(x + v), v)), lambda: setattr(held, "gain", 3.0)  # type: ignore[no-untyped-call]
