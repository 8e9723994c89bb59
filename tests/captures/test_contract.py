"""Counts and names come from the core's signature; what contradicts it is an error that shows both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flexsn import CoreError, FlexSN
from flexsn.captures.contract import read_signature


class Module(nn.Module):
    def forward(self, x: Any, v: Any, w: Any) -> Any:
        return x, v, w

    def method(self, x: Any, v: Any) -> Any:
        return x, v


CASES: list[tuple[Callable[..., Any], dict[str, Any], tuple[int, int, tuple[str, ...]]]] = [
    (lambda x, v: None, {}, (1, 1, ("v",))),
    (lambda x: None, {}, (1, 0, ())),
    (lambda x, v, w: None, {}, (1, 2, ("v", "w"))),
    (lambda x, z, v: None, {"num_inputs": 2}, (2, 1, ("v",))),
    (lambda x, z, v: None, {"num_states": 1}, (2, 1, ("v",))),
    (lambda x, v, tau=2.0: None, {}, (1, 1, ("v",))),
    (lambda x, v, *, tau=2.0: None, {}, (1, 1, ("v",))),
    (lambda *args: None, {"num_inputs": 2, "num_states": 2}, (2, 2, ("state0", "state1"))),
    (lambda *args: None, {"num_states": 2}, (1, 2, ("state0", "state1"))),
    (lambda *args: None, {"example_inputs": [None] * 3}, (1, 2, ("state0", "state1"))),
    (lambda *args: None, {"example_inputs": [None] * 3, "num_inputs": 2}, (2, 1, ("state0",))),
    (lambda x, v, *more: None, {"num_states": 2}, (1, 2, ("v", "state1"))),
    (functools.partial(lambda w, x, v: None, 1.0), {}, (1, 1, ("v",))),
    (functools.partial(lambda x, v, w: None, w=1.0), {}, (1, 1, ("v",))),
    (Module(), {}, (1, 2, ("v", "w"))),
    (Module().method, {}, (1, 1, ("v",))),
]


@pytest.mark.parametrize("core, options, expected", CASES)
def test_counts_and_names(core: Any, options: dict[str, Any], expected: tuple[int, int, tuple[str, ...]]) -> None:
    given = {"num_inputs": None, "num_states": None, **options}
    found = read_signature(core, **given)
    assert (found.num_inputs, found.num_states, found.state_names) == expected


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"num_inputs": 2, "num_states": 1}, "num_inputs=2 and num_states=1"),
        ({"num_inputs": 3}, "num_inputs=3 and num_states=-1"),
        ({"num_states": 2}, "num_inputs=0 and num_states=2"),
        ({"num_inputs": 0}, "num_inputs=0 and num_states=2"),
    ],
)
def test_contradictions_show_both(options: dict[str, int], shown: str) -> None:
    def core(x: Any, v: Any) -> Any:
        return x, v

    with pytest.raises(CoreError) as caught:
        FlexSN(core, **options)
    assert f"{shown} contradict the core, which takes 2 argument(s): (x, v)" in str(caught.value)
    assert "test_contract.py" in str(caught.value)


def test_what_cannot_be_told() -> None:
    with pytest.raises(CoreError, match=r"cannot be read off a core that takes \*args"):
        FlexSN(lambda *args: args)
    with pytest.raises(CoreError, match=r"needs a keyword argument 'tau'(.|\n)*functools.partial"):
        FlexSN(lambda x, v, *, tau: (x, v))
    with pytest.raises(CoreError, match="num_inputs must be a number, got '1'"):
        FlexSN(lambda x, v: (x, v), num_inputs="1")  # type: ignore[arg-type]


def test_counting_outputs_leaves_no_trace() -> None:
    calls = []

    class Core:
        count = 0

        def __call__(self, x: torch.Tensor, v: torch.Tensor) -> Any:
            self.count += 1
            calls.append(self.count)
            return x + torch.rand(()), x, v

    core = Core()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert FlexSN(core, num_outputs=2).num_outputs == 2
    assert core.count == 0
    assert calls == []
    assert torch.equal(torch.rand(3), expected)


def test_a_core_for_certain_shapes_is_counted_at_the_first_call() -> None:
    neuron = FlexSN(lambda x, v: (x[:, :, 2:], x[:, :, :2], v), backend="torch")
    with pytest.raises(CoreError, match="not known before the first call"):
        _ = neuron.num_outputs
    neuron(torch.ones(3, 4, 5, 5))
    assert neuron.num_outputs == 2
