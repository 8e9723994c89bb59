"""multi_step_forward and seq_to_ann_forward, against the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_modules import Stateful
from torch import nn

from flexsn.functional import (
    multi_step_forward,
    seq_to_ann_forward,
)


def test_multi_step_forward_goes_through_time_in_order() -> None:
    x = torch.randn(5, 2, 3)
    layer = nn.Linear(3, 3)
    expected = layer(x).cumsum(0)
    for stages in ((layer, Stateful()), ([layer, Stateful()],), (nn.Sequential(layer, Stateful()),)):
        torch.testing.assert_close(multi_step_forward(x, *stages), expected)


def test_multi_step_forward_of_tuples_and_gradients() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    low, high = multi_step_forward(x, lambda v: (v - 1, v + 1), lambda a, b: (a, 2 * b))
    assert torch.equal(low, x - 1) and torch.equal(high, 2 * (x + 1))
    (low + high).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))  # type: ignore[arg-type]


def test_multi_step_forward_errors() -> None:
    multi = Stateful()
    multi.step_mode = "m"
    for stage in (multi, nn.Sequential(nn.Identity(), multi)):
        with pytest.raises(ValueError, match=r"Stateful has step_mode='m' and would take the batch for time"):
            multi_step_forward(torch.zeros(2, 3), stage)
    with pytest.raises(ValueError, match=r"x_seq must be \[T, ...\] with T >= 1, got shape \(0, 3\)"):
        multi_step_forward(torch.zeros(0, 3), nn.Identity())
    for run in (multi_step_forward, seq_to_ann_forward):
        with pytest.raises(ValueError, match="stages must be modules or functions, got int"):
            run(torch.zeros(2, 3), nn.Identity(), 3)  # type: ignore[arg-type]


def test_seq_to_ann_forward_equals_the_loop() -> None:
    x = torch.randn(4, 2, 3, 6, 6)
    conv, pool = nn.Conv2d(3, 5, 3), nn.AvgPool2d(2)
    expected = torch.stack([pool(conv(step)) for step in x])
    torch.testing.assert_close(seq_to_ann_forward(x, conv, pool), expected)
    torch.testing.assert_close(seq_to_ann_forward(x, [conv, pool]), expected)
    assert seq_to_ann_forward(x[:0], conv).shape == (0, 2, 5, 4, 4)


def test_seq_to_ann_forward_of_tuples() -> None:
    x, y = torch.randn(3, 2, 4), torch.randn(3, 2, 4, 1)
    total, product = seq_to_ann_forward((x, y), lambda a, b: (a + b[..., 0], a * b[..., 0]))
    assert torch.equal(total, x + y[..., 0]) and torch.equal(product, x * y[..., 0])


@pytest.mark.parametrize("x", [torch.zeros(3), (torch.zeros(3, 2), torch.zeros(2, 3)), ()])
def test_seq_to_ann_forward_errors(x: Any) -> None:
    with pytest.raises(ValueError, match=r"x_seq must be \[T, B, ...\], with the same T and B in every input"):
        seq_to_ann_forward(x, nn.Identity())
