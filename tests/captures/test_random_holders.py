"""Random ways to hold a number: whatever the way, changing it takes effect at the next call, argument or constant."""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import flexsn
from flexsn import FlexSN

pytestmark = pytest.mark.filterwarnings("ignore::flexsn.FallbackWarning")
X = torch.tensor([[0.5, 1.0], [2.0, -1.0]])

Get = Callable[[], Any]


@dataclass
class Data:
    held: Any


@dataclass(slots=True)
class Slots:
    held: Any


@dataclass(frozen=True)
class Frozen:
    held: Any


class Module(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


class Dict(dict[str, Any]): ...


class List(list[Any]): ...


class Float(float): ...


class Property:
    def __init__(self, held: Any) -> None:
        self._held = held

    @property
    def held(self) -> Any:
        return self._held


class Forwarding:
    def __init__(self, held: Any) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return self._held


class Descriptor:
    def __init__(self, held: Any) -> None:
        self._held = held

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._held


class Callee:
    def __init__(self, held: Any) -> None:
        self._held = held

    def __call__(self) -> Any:
        return self._held

    def __getitem__(self, key: Any) -> Any:
        return self._held


Tuple = namedtuple("Tuple", "held")


def by_attribute(make: Callable[[Any], Any]) -> Callable[[Any], Get]:
    def wrap(value: Any) -> Get:
        holder = make(value)
        return lambda: holder.held

    return wrap


def by_item(make: Callable[[Any], Any], key: Any = 0) -> Callable[[Any], Get]:
    def wrap(value: Any) -> Get:
        holder = make(value)
        return lambda: holder[key]

    return wrap


def by_call(make: Callable[[Any], Callable[[], Any]]) -> Callable[[Any], Get]:
    def wrap(value: Any) -> Get:
        holder = make(value)
        return lambda: holder()

    return wrap


def with_attribute(make: Callable[[], Any]) -> Callable[[Any], Any]:
    def made(value: Any) -> Any:
        holder = make()
        holder.held = value
        return holder

    return made


def context(value: Any) -> Any:
    return contextvars.ContextVar("held", default=value).get


def in_a_set(value: Any) -> Get:
    holder = {Callee(value)}
    return lambda: next(iter(holder))()


def weakly(value: Any) -> Get:
    kept = Data(value)
    holder = Callee(weakref.ref(kept))

    def get(kept: list[Data] = [kept]) -> Any:  # noqa: B006
        return holder()().held

    return get


def by_string(value: Any) -> Get:
    holder, name = SimpleNamespace(held=value), "he" + "ld"[:2]
    return lambda: getattr(holder, name)


def by_vars(value: Any) -> Get:
    holder = SimpleNamespace(held=value)
    return lambda: vars(holder)["held"]


def in_a_class(value: Any) -> Get:
    return by_attribute(lambda held: type("Own", (), {"held": held}))(value)


def in_a_base(value: Any) -> Get:
    return by_attribute(lambda held: type("Own", (type("Base", (), {"held": held}),), {}))(value)


def by_descriptor(value: Any) -> Get:
    return by_attribute(lambda held: type("Own", (), {"held": Descriptor(held)})())(value)


def in_a_cell(value: Any) -> Get:
    return lambda: value


def in_a_default(value: Any) -> Get:
    def get(held: Any = value) -> Any:
        return held

    return lambda: get()


def in_a_helper_of_a_helper(value: Any) -> Get:
    def made() -> Get:
        def innermost(*, held: Any = value) -> Any:
            return held

        return lambda: innermost()

    helper = made()
    return lambda: helper()


def in_a_generator(value: Any) -> Get:
    def helper() -> Any:
        return [item for item in (value,) if item is value]

    return lambda: helper()[0]


WAYS: dict[str, Callable[[Any], Get]] = {
    "dataclass": by_attribute(Data),
    "slots": by_attribute(Slots),
    "frozen": by_attribute(Frozen),
    "namespace": by_attribute(lambda held: SimpleNamespace(held=held)),
    "named tuple": by_attribute(Tuple),
    "module": by_attribute(Module),
    "python module": by_attribute(with_attribute(lambda: ModuleType("holder_of_a_test"))),
    "property": by_attribute(Property),
    "forwarding": by_attribute(Forwarding),
    "descriptor": by_descriptor,
    "class": in_a_class,
    "base": in_a_base,
    "list": by_item(lambda held: [held]),
    "tuple": by_item(lambda held: (held,)),
    "deque": by_item(lambda held: deque([held])),
    "dict": by_item(lambda held: {"held": held}, "held"),
    "ordered dict": by_item(lambda held: OrderedDict(held=held), "held"),
    "default dict": by_item(lambda held: defaultdict(int, held=held), "held"),
    "user dict": by_item(lambda held: UserDict(held=held), "held"),
    "dict's own": by_item(lambda held: Dict(held=held), "held"),
    "list's own": by_item(lambda held: List([held])),
    "indexed": by_item(Callee),
    "attribute of a dict": by_attribute(with_attribute(Dict)),
    "attribute of a list": by_attribute(with_attribute(List)),
    "attribute of a float": by_attribute(with_attribute(lambda: Float(1.0))),
    "attribute of a function": by_attribute(with_attribute(lambda: lambda: None)),
    "attribute of a tensor": by_attribute(with_attribute(lambda: torch.ones(2))),
    "attribute of a parameter": by_attribute(with_attribute(lambda: nn.Parameter(torch.ones(2)))),
    "attribute of a partial": by_attribute(with_attribute(lambda: functools.partial(max, 1.0))),
    "called": by_call(Callee),
    "partial": by_call(lambda held: functools.partial(lambda held: held, held)),
    "partial keyword": by_call(lambda held: functools.partial(lambda held: held, held=held)),
    "bound method": by_call(lambda held: Callee(held).__call__),
    "method of a dict": by_call(lambda held: functools.partial({"held": held}.get, "held")),
    "context variable": by_call(context),
    "set": in_a_set,
    "weak reference": weakly,
    "by string": by_string,
    "vars": by_vars,
    "cell": in_a_cell,
    "default": in_a_default,
    "helper": in_a_helper_of_a_helper,
    "comprehension": in_a_generator,
}


class Target:
    """What the number is held by at the innermost place."""

    def __init__(self) -> None:
        self.gain = 2.0


class TargetSlots:
    __slots__ = ("gain",)

    def __init__(self) -> None:
        self.gain = 2.0


class TargetDict(dict[str, float]):
    def __init__(self) -> None:
        super().__init__(gain=2.0)


def target_of_a_cell() -> Any:
    gain = 2.0

    def read() -> float:
        return gain

    def change(value: float) -> None:
        nonlocal gain
        gain = value

    read.change = change  # type: ignore[attr-defined]
    return read


def target_of_a_default() -> Any:
    def read(gain: float = 2.0) -> float:
        return gain

    return read


TARGETS: dict[str, tuple[Callable[[], Any], Callable[[Any], float], Callable[[Any, float], object]]] = {
    "attribute": (Target, lambda t: t.gain, lambda t, value: setattr(t, "gain", value)),
    "slot": (TargetSlots, lambda t: t.gain, lambda t, value: setattr(t, "gain", value)),
    "item": (lambda: [2.0], lambda t: t[0], lambda t, value: t.__setitem__(0, value)),
    "key": (TargetDict, lambda t: t["gain"], lambda t, value: t.update(gain=value)),
    "cell": (target_of_a_cell, lambda t: t(), lambda t, value: t.change(value)),
    "default": (target_of_a_default, lambda t: t(), lambda t, value: setattr(t, "__defaults__", (value,))),
}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=4), st.sampled_from(sorted(TARGETS)))
def test_a_number_behind_any_holders_takes_effect(ways: list[str], target: str) -> None:
    make, read, change = TARGETS[target]
    held = outermost = make()
    for way in ways:
        outermost = WAYS[way](outermost)

    def innermost() -> Any:
        found = outermost
        for _ in ways:
            found = found()
        return found

    core = lambda x, v: (v + x * read(innermost()), v)  # noqa: E731
    neuron = FlexSN(core, backend="cpp")
    for number in (2.0, 3.0, 3.0, 2.0, 5.0, 2.0, 7.0, 0.5):  # the last ones are arguments of one kernel
        change(held, number)
        neuron.reset()
        expected, _ = flexsn.scan(core, X, (torch.zeros(2),), backend="torch")
        assert torch.equal(neuron(X), expected)
        assert torch.equal(expected[0], X[0] * number)
