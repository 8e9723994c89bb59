"""A result without a path for gradients is an error only where nothing else is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import GradientError, scan


def hard(x: Tensor, v: Tensor) -> Any:
    return (x > v).float(), 2.0 * x, v


def test_gradients_that_come_in_at_a_dead_end_alone_are_an_error() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    (spikes, doubled), _ = scan(hard, x, torch.zeros(2), backend="torch")
    with pytest.raises(GradientError, match=r"no gradient flows back through the core: gt has no derivative"):
        spikes.sum().backward(retain_graph=True)
    (spikes + doubled).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.full((3, 2), 2.0))
