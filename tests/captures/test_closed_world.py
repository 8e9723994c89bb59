"""A change anywhere takes effect at the next call: it is watched, or the core is recorded again."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from changing_code import (
    another_class,
    called_through_a_module,
    decorated,
    dispatched,
    grown,
    hooked,
    of_a_metaclass,
    of_a_module,
    of_a_name,
    of_a_replaced_module,
    of_only_a_backward,
    put_among_builtins,
    reading_globals,
    redefined,
    redefined_in_a_base,
    replaced_hook,
    shadowed,
    shadowing_a_builtin,
)
from changing_holders import (
    Case,
    Dict,
    Float,
    Held,
    List,
    Pair,
    computed_names,
    copied,
    in_slots,
    in_what,
    item,
    listed_names,
    locked,
    of_a_context,
    of_a_dict_method,
    of_a_function,
    of_a_member,
    of_a_replaced_tensor,
    of_a_tensor,
    of_a_thread,
    order_of_items,
    rational,
    state_of_that_name,
    with_attribute,
)
from torch import Tensor, nn

import flexsn
from flexsn import FallbackWarning, FlexSN, UnsupportedOpError
from flexsn.captures import guards
from flexsn.captures.guards import Captures

X = torch.tensor([[0.5, 1.0], [2.0, -1.0]])

pytestmark = pytest.mark.filterwarnings("ignore::flexsn.FallbackWarning")


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
    "name put among the builtins": put_among_builtins,
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
    "order of an ordered dict": order_of_items,
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
    "dir()": listed_names,
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


@pytest.mark.parametrize(
    ("library", "name", "core"),
    [
        (torch, "abs", lambda x, v: (torch.abs(x), v)),
        (nn.functional, "softplus", lambda x, v: (nn.functional.softplus(x), v)),
        (math, "sqrt", lambda x, v: (x * math.sqrt(4.0), v)),
    ],
)
def test_a_library_is_patched(library: Any, name: str, core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    neuron, original = FlexSN(core, backend="cpp"), getattr(library, name)
    before = neuron(X)
    monkeypatch.setattr(library, name, lambda value, **_: original(value) * 2)
    assert torch.equal(neuron(X), before * 2)


def test_a_python_function_of_torch_is_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands itself to what watches it by its name, which is another's now: it runs as the loop."""
    neuron, original = FlexSN(lambda x, v: (nn.functional.relu(x), v)), nn.functional.relu
    before = neuron(X)
    monkeypatch.setattr(nn.functional, "relu", lambda value, **_: original(value) * 2)
    with pytest.warns(FallbackWarning, match="put in the place of a function of torch"):
        assert torch.equal(neuron(X), before * 2)


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
