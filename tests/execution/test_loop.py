"""The loop: the definition of correct, and what it says about a core that breaks its contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import CoreError, FlexSN
from flexsn.execution.loop import run_loop
from tests.flexsn.contract_cores import lif, sequence


def test_it_calls_the_core_once_per_step_in_order() -> None:
    seen: list[float] = []

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x.item())
        return x, v + x

    outputs, finals, state_seqs = run_loop(core, [torch.arange(4.0)], [torch.zeros(())], wanted_states=(0,))
    assert seen == [0.0, 1.0, 2.0, 3.0]
    assert outputs[0].tolist() == seen
    assert finals[0] == 6.0
    assert state_seqs[0].tolist() == [0.0, 1.0, 3.0, 6.0]


def test_gradients_are_autograds() -> None:
    x = sequence(4, 3).requires_grad_()
    (y,), (v,), _ = run_loop(lif, [x], [torch.zeros(3)])
    state, steps = torch.zeros(3), []
    for t in range(4):
        s, state = lif(x[t], state)
        steps.append(s)
    (mine,) = torch.autograd.grad(y.sum() + v.sum(), x)
    (expected,) = torch.autograd.grad(torch.stack(steps).sum() + state.sum(), x)
    assert torch.equal(mine, expected)


BROKEN: list[tuple[Callable[..., Any], str]] = [
    (lambda x, v: (x, 1.0), "core returned float as value 1, expected a tensor"),
    (lambda x, v: None, "core returned NoneType as value 0, expected a tensor"),
    (lambda x, v: (), r"core returned 0 value\(s\), expected at least its 1 new state"),
    (lambda x, v: (x, v.double()), "state 0 'v' changes its dtype from torch.float32 to torch.float64"),
    (lambda x, v: (x, v > 0), "state 0 'v' changes its dtype from torch.float32 to torch.bool"),
    (lambda x, v: (x, v.sum()), r"state 0 'v' changes its shape from \(2, 3\) to \(\)"),
]


@pytest.mark.parametrize("core, text", BROKEN)
def test_broken_contracts(core: Callable[..., Any], text: str, backend: str) -> None:
    for chosen in (backend, "auto"):
        with pytest.raises(CoreError, match=text) as caught:
            FlexSN(core, backend=chosen)(sequence(4, 2, 3))
        assert "test_loop.py" in str(caught.value)


def test_broken_contracts_without_steps() -> None:
    with pytest.raises(CoreError, match="expected a tensor"):
        FlexSN(lambda x, v: (x, 1.0))(torch.empty(0, 3))


def test_a_changing_number_of_returns() -> None:
    counter = itertools.count()

    def core(x: Tensor, v: Tensor) -> Any:
        return (x,) * (1 + next(counter) % 2) + (v,)

    with pytest.raises(CoreError, match=r"core returned 3 value\(s\) at step 1, 2 at step 0"):
        run_loop(core, [sequence(4, 3)], [torch.zeros(3)])
