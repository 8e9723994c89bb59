"""Whose code something is: by its package, or by the mark of the class it was written in."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import nn

from flexsn import FlexSN, surrogate
from flexsn.captures.origin import internal_names, is_foreign, is_internal, is_ours
from flexsn.neurons import LIF


class Mine(FlexSN):
    def core(self, x: Any, v: Any) -> Any:
        return x, v


def test_libraries() -> None:
    assert all(map(is_foreign, (torch, math, nn.Linear, torch.nn.functional.softplus, functools.partial)))
    assert not any(map(is_foreign, (Mine, Mine.core, test_libraries, surrogate.ATan, LIF, LIF.core)))


def test_ours() -> None:
    assert all(map(is_ours, (surrogate.ATan, LIF, LIF.core, FlexSN)))
    assert not any(map(is_ours, (Mine, Mine.core, nn.Linear)))


def test_machinery_is_marked_and_a_subclass_is_not() -> None:
    assert all(map(is_internal, FlexSN.__mro__[: FlexSN.__mro__.index(nn.Module)]))
    assert is_internal(FlexSN.forward) and is_internal(FlexSN.reset)
    assert is_foreign(FlexSN) and is_foreign(FlexSN.forward)
    assert not any(map(is_internal, (Mine, Mine.core, LIF, LIF.core, nn.Module)))


def test_a_wrapper_belongs_to_who_wrote_it() -> None:
    @functools.wraps(torch.nn.functional.softplus)
    def mine(x: Any) -> Any:
        return x

    assert not is_foreign(mine)
    assert is_foreign(torch.no_grad()(mine))


def test_names_a_neuron_holds_for_itself() -> None:
    assert "v" in internal_names(Mine())
    assert not internal_names(type("Other", (), {"state_names": ("v",)})())
