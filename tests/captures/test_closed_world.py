"""A change anywhere takes effect at the next call: it is watched, or the core is recorded again."""

from __future__ import annotations

import contextvars
import copy
import enum
import functools
import itertools
import sys
import threading
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FallbackWarning, FlexSN, UnsupportedOpError
from flexsn.captures import guards
from flexsn.captures.guards import Captures

Core = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Case = tuple[Core, Callable[[], object]]
X = torch.tensor([[0.5, 1.0], [2.0, -1.0]])

pytestmark = pytest.mark.filterwarnings("ignore::flexsn.FallbackWarning")


class Held:
    """Whatever a core asks of it."""

    kept = 2.0

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def method(self) -> float:
        return self.kept

    @property
    def shown(self) -> float:
        return self.kept


class Dict(dict[str, Any]):
    gain: float


class List(list[float]):
    gain: float


class Float(float):
    gain: float


@dataclass(slots=True)
class Slots:
    a: float = 2.0
    b: float = 1.0


class Pair(NamedTuple):
    gain: Any
    other: float = 0.0


class Mode(enum.Enum):
    FAST = 2.0
    SLOW = 3.0


class Meta(type):
    @property
    def gain(cls) -> float:
        return cls.hidden  # type: ignore[attr-defined, no-any-return]


class OfMeta(metaclass=Meta):
    hidden = 2.0


def scaled(gain: Callable[[], Any]) -> Core:
    return lambda x, v: (v + x * gain(), v)


def with_attribute(held: Any) -> Case:
    held.gain = 2.0
    return (lambda x, v: (v + x * held.gain, v)), lambda: setattr(held, "gain", 3.0)


def of_a_function() -> Case:
    def helper() -> None: ...

    return with_attribute(helper)


def of_a_tensor(tensor: Tensor) -> Case:
    tensor.gain = 2.0  # type: ignore[attr-defined]
    return (lambda x, v: (v + x * tensor * tensor.gain, v)), lambda: setattr(tensor, "gain", 3.0)  # type: ignore[attr-defined]


def of_a_replaced_tensor() -> Case:
    held = Held(weight=torch.ones(2), other=torch.ones(2))
    held.weight.gain, held.other.gain = 2.0, 3.0
    return (lambda x, v: (v + x * held.weight * held.weight.gain, v)), lambda: setattr(held, "weight", held.other)


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


def state_of_that_name() -> Case:
    class Neuron(FlexSN):
        def __init__(self) -> None:
            super().__init__()
            self.b = 2.0

        def core(self, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return b + x * self.b, b

    neuron = Neuron()
    return neuron.core, lambda: vars(neuron).update(b=3.0)


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


def decorated(wrap: Callable[[Any], Any]) -> Case:
    held = Held(gain=2.0)
    helper = wrap(lambda value: held.gain)
    return scaled(lambda: helper(1.0)), lambda: setattr(held, "gain", 3.0)


def in_what(make: Callable[[Held], Any], get: Callable[[Any], Any]) -> Case:
    held = Held(gain=2.0)
    container = make(held)
    return scaled(lambda: get(container).gain), lambda: setattr(held, "gain", 3.0)


def item(holder: Any, key: Any = "gain") -> Case:
    holder[key] = 2.0
    return scaled(lambda: holder[key]), lambda: holder.__setitem__(key, 3.0)


def of_a_dict_method() -> Case:
    table = {"gain": 2.0}
    get = table.get
    return scaled(lambda: get("gain")), lambda: table.update(gain=3.0)


def of_a_context() -> Case:
    variable = contextvars.ContextVar("gain", default=2.0)
    return scaled(lambda: variable.get()), lambda: variable.set(3.0)


def of_a_thread() -> Case:
    return with_attribute(threading.local())


def of_a_member() -> Case:
    held = Held(mode=Mode.FAST)
    return scaled(lambda: held.mode.value), lambda: setattr(held, "mode", Mode.SLOW)


def of_a_metaclass() -> Case:
    OfMeta.hidden = 2.0
    return scaled(lambda: OfMeta.gain), lambda: setattr(OfMeta, "hidden", 3.0)


def reading_globals() -> Case:
    space: dict[str, Any] = {"gain": 2.0, "__name__": "space_of_a_test"}
    exec("def core(x, v): return v + x * globals()['ga' 'in'], v", space)
    return space["core"], lambda: space.update(gain=3.0)


def computed_names() -> Case:
    held = SimpleNamespace(gain=2.0)
    name = "".join(["ga", "in"])
    return scaled(lambda: vars(held)[name]), lambda: setattr(held, "gain", 3.0)


def in_slots() -> Case:
    held = Slots()
    return scaled(lambda: getattr(held, "a", held.b)), lambda: setattr(held, "a", 3.0)


def dispatched() -> Case:
    held = Held(gain=2.0)

    @functools.singledispatch
    def helper(value: Any) -> float:
        return 1.0

    @helper.register
    def _(value: float) -> float:
        return float(held.gain)

    return scaled(lambda: helper(1.0)), lambda: setattr(held, "gain", 3.0)


def copied() -> Case:
    held = Held(gain=2.0)
    return scaled(lambda: copy.deepcopy(held).gain), lambda: setattr(held, "gain", 3.0)


def rational() -> Case:
    held = Held(gain=Fraction(2))
    return scaled(lambda: float(getattr(held, "gain", 1.0))), lambda: setattr(held, "gain", Fraction(3))


def locked() -> Case:
    held = Held(gain=2.0, lock=threading.RLock())

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with held.lock:
            return v + x * getattr(held, "gain", 1.0), v

    return core, lambda: setattr(held, "gain", 3.0)


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


CASES: dict[str, Callable[[], Case]] = {
    "attribute of a function": of_a_function,
    "attribute of a tensor": lambda: of_a_tensor(torch.ones(2)),
    "attribute of a parameter": lambda: of_a_tensor(nn.Parameter(torch.ones(2))),
    "attribute of a replaced tensor": of_a_replaced_tensor,
    "attribute of a dict": lambda: with_attribute(Dict(a=1)),
    "attribute of a list": lambda: with_attribute(List([1.0])),
    "attribute of a float": lambda: with_attribute(Float(1.0)),
    "attribute of a thread": of_a_thread,
    "module in the body": of_a_module,
    "name in the body": of_a_name,
    "module replaced": of_a_replaced_module,
    "function through a module": lambda: called_through_a_module("function"),
    "global of a module": lambda: called_through_a_module("global"),
    "code of a function": lambda: called_through_a_module("code"),
    "name of a state": state_of_that_name,
    "sequential": grown,
    "forward hook": lambda: hooked("register_forward_hook", lambda layer, args, out: out * 2.0),
    "forward pre-hook": lambda: hooked("register_forward_pre_hook", lambda layer, args: (args[0] - 2.0,)),
    "hook replaced": replaced_hook,
    "method": lambda: redefined(lambda held: held.method(), "method", lambda self: 3.0),
    "property": lambda: redefined(lambda held: held.shown, "shown", property(lambda self: 3.0)),
    "static method": lambda: redefined(lambda held: held.fixed(), "fixed", staticmethod(lambda: 3.0)),
    "class method": lambda: redefined(lambda held: held.of_class(), "of_class", classmethod(lambda cls: 3.0)),
    "operator": lambda: redefined(float, "__float__", lambda self: 3.0),
    "method that a subclass gets": redefined_in_a_base,
    "method of the object's own": shadowed,
    "class of an object": another_class,
    "builtin": shadowing_a_builtin,
    "deque": lambda: in_what(lambda held: deque([held]), lambda c: c[0]),
    "set": lambda: in_what(lambda held: {held}, lambda c: next(iter(c))),
    "frozenset": lambda: in_what(lambda held: frozenset([held]), lambda c: next(iter(c))),
    "key of a dict": lambda: in_what(lambda held: {held: 1}, lambda c: next(iter(c))),
    "tuple in a deque": lambda: in_what(lambda held: deque([(held,)]), lambda c: c[0][0]),
    "named tuple": lambda: in_what(Pair, lambda c: c.gain),
    "weak reference": lambda: in_what(weakref.ref, lambda c: c()),
    "weak proxy": lambda: in_what(weakref.proxy, lambda c: c),
    "weak values": lambda: in_what(lambda held: weakref.WeakValueDictionary(a=held), lambda c: c["a"]),
    "bound method": lambda: in_what(lambda held: held.__init__, lambda c: c.__self__),
    "ordered dict": lambda: item(OrderedDict()),
    "subclass of dict": lambda: item(Dict()),
    "default dict": lambda: item(defaultdict(float)),
    "counter": lambda: item(Counter()),
    "user dict": lambda: item(UserDict()),
    "method of a dict": of_a_dict_method,
    "context variable": of_a_context,
    "member of an enum": of_a_member,
    "metaclass": of_a_metaclass,
    "globals()": reading_globals,
    "vars()": computed_names,
    "slots": in_slots,
    "single dispatch": dispatched,
    "deep copy": copied,
    "fraction": rational,
    "lock": locked,
    "lru_cache": lambda: decorated(lambda f: lambda value: functools.lru_cache(f)(value)),
    "wraps": lambda: decorated(lambda f: functools.wraps(f)(lambda value: f(value))),
    "partial": lambda: decorated(functools.partial),
    "backward alone": of_only_a_backward,
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_takes_effect_at_the_next_call(name: str) -> None:
    core, change = CASES[name]()
    neuron, x = FlexSN(core, backend="cpp"), X.clone().requires_grad_()

    def run(backend: str) -> list[Tensor]:
        y, (v,) = flexsn.scan(core, x, (torch.ones(2),), backend=backend)
        return [y, v, *torch.autograd.grad(y.sum(), x)]

    def results() -> list[Tensor]:
        neuron.reset()
        return [neuron(X), *run("cpp")]

    def expected() -> list[Tensor]:
        return [flexsn.scan(core, X, (torch.zeros(2),), backend="torch")[0], *run("torch")]

    before = expected()
    for _ in range(2):
        assert all(map(torch.equal, results(), before))
    change()
    after = expected()
    assert not all(map(torch.equal, before, after))
    for _ in range(2):
        assert all(map(torch.equal, results(), after))


def generator() -> Iterator[float]:
    yield from itertools.count(1.0)


@pytest.mark.parametrize("make", [generator, itertools.count, lambda: iter([1.0] * 99), lambda: map(float, range(99))])
def test_what_looking_at_would_advance_is_never_traced(make: Callable[[], Iterator[float]]) -> None:
    ours, loops = make(), make()
    core = lambda x, v: (v + x * next(ours), v)  # noqa: E731
    with pytest.warns(FallbackWarning, match="'ours', a"):
        y = FlexSN(core)(X)
    expected, _ = flexsn.scan(lambda x, v: (v + x * next(loops), v), X, (torch.zeros(2),), backend="torch")
    assert torch.equal(y, expected)
    assert next(ours) == next(loops)
    with pytest.raises(UnsupportedOpError, match="changes when it is looked at"):
        FlexSN(core, backend="cpp")(X)


def test_said_once_with_the_reason() -> None:
    core, _ = CASES["weak reference"]()
    neuron = FlexSN(core)
    with pytest.warns(FallbackWarning, match="'container' is a weakref") as said:
        for steps in (1, 2):
            neuron(torch.ones(steps, 2))
    assert len(said) == 1


WATCHED = set(CASES) - {
    *("attribute of a thread", "weak reference", "weak proxy", "weak values", "default dict", "user dict"),
    *("context variable", "metaclass", "globals()", "deep copy", "lock", "backward alone"),
}


@pytest.mark.parametrize("name", CASES)
def test_which_are_watched(name: str) -> None:
    core, _change = CASES[name]()
    assert (Captures(core).unwatched is None) == (name in WATCHED)


def test_an_error_of_ours_is_not_a_missing_attribute_of_the_neuron(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(core: Any) -> Any:
        raise AttributeError("broken here")

    monkeypatch.setattr(guards, "discover", broken)
    with pytest.raises(AttributeError, match="broken here"):
        FlexSN(lambda x, v: (x, v))


def test_too_much_to_watch_ends_and_is_said() -> None:
    table: list[Any] = []
    for _ in range(5000):
        table = [table]
    deep = Captures(lambda x, v: (x * len(table), v))
    assert deep.unwatched is not None and "nested" in deep.unwatched
    many = [Held(gain=float(i)) for i in range(21_000)]
    assert "objects" in str(Captures(lambda x, v: (x * many[0].gain, v)).unwatched)


def test_a_long_chain_is_followed_to_its_end() -> None:
    last = first = Held(gain=2.0)
    for _ in range(500):
        last.next = last = Held(gain=2.0)
    captures = Captures(lambda x, v: (x * first.next.gain, v))
    last.gain = 3.0
    assert not captures.unchanged()


def test_what_the_users_code_mentions() -> None:
    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor | None:  # type: ignore[override]
            return grad if ctx.needs_input_grad[0] else None

    asks = torch.is_grad_enabled
    assert "needs_input_grad" in Captures(lambda x, v: (Fire.apply(x), v)).mentions  # type: ignore[no-untyped-call]
    assert "is_grad_enabled" in Captures(lambda x, v: (x if torch.is_grad_enabled() else v, v)).mentions
    assert "is_grad_enabled" in Captures(lambda x, v: (x if asks() else v, v)).mentions
    assert "is_inference_mode_enabled" not in Captures(lambda x, v: (flexsn.surrogate.ATan()(x), v)).mentions
