"""A copied core has its own cells, defaults and arguments, and the globals of the original."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.captures.copying import copy_core

GAIN = nn.Parameter(torch.ones(3))


def of_global(x: Tensor) -> Tensor:
    return x * GAIN


def closure() -> tuple[Any, Tensor]:
    weight = torch.ones(3)
    return (lambda x: x * weight), weight


def test_a_closure_has_its_own_cells() -> None:
    core, weight = closure()
    clone = copy_core(core, {})
    weight.zero_()
    assert clone(torch.ones(3)).all()
    assert clone.__code__ is core.__code__


def test_a_function_without_a_closure_is_itself() -> None:
    assert copy_core(of_global, {}) is of_global
    assert copy_core(torch.add, {}) is torch.add


def test_defaults_that_hold_tensors() -> None:
    weight = torch.ones(3)

    def core(x: Tensor, weight: Tensor = weight, *, bias: Tensor = weight) -> Tensor:
        return x * weight + bias

    core.note = "kept"  # type: ignore[attr-defined]
    clone = copy_core(core, {})
    weight.zero_()
    assert torch.equal(clone(torch.ones(3)), torch.full((3,), 2.0))
    assert (clone.__name__, clone.__qualname__, clone.note) == ("core", core.__qualname__, "kept")


def test_partials_methods_and_containers() -> None:
    core, weight = closure()
    held = SimpleNamespace(step=core, steps=[core, (core,), {"core": core}])
    memo: dict[int, Any] = {}
    partial = copy_core(functools.partial(core, weight), memo)
    assert partial.args[0] is not weight
    clone = copy_core(held, {})
    weight.zero_()
    for copied in (clone.step, partial.func):
        assert copied(torch.ones(3)).all()
    steps = copy_core(held.steps, {})
    assert steps[0] is steps[1][0] is steps[2]["core"] is not core

    class Owner:
        def step(self) -> Any:
            return self

    owner = Owner()
    method = copy_core(owner.step, {})
    assert method() is not owner and isinstance(method(), Owner)


def test_a_function_that_refers_to_itself() -> None:
    def core(depth: int) -> Any:
        return core if depth == 0 else core(depth - 1)

    clone = copy_core(core, {})
    assert clone(1) is clone


def test_what_is_shared_stays_shared() -> None:
    weight = torch.ones(3)
    pair = (functools.partial(torch.add, weight), functools.partial(torch.mul, weight))
    first, second = copy_core(pair, {})
    assert first.args[0] is second.args[0] is not weight
    memo: dict[int, Any] = {}
    assert copy_core(pair[0], memo) is copy_core(pair[0], memo)


def test_an_unbound_cell_stays_unbound() -> None:
    def outer(bind: bool) -> Any:
        if bind:
            later = 1.0
        return lambda: later

    clone = copy_core(outer(False), {})
    assert clone.__closure__[0] != outer(True).__closure__[0]
    try:
        clone()
    except NameError:
        return
    raise AssertionError("the cell was filled")


def test_a_module_that_holds_a_function() -> None:
    core, weight = closure()
    module = nn.Module()
    module.step = core
    clone = copy_core(module, {})
    weight.zero_()
    assert clone.step(torch.ones(3)).all()
    assert copy.deepcopy(module).step is core  # which is why copy_core is there
