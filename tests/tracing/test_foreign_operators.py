"""Operators that are not torch's own, whatever they are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import flexsn
from flexsn.errors import UnsupportedOpError
from flexsn.tracing.tracer import Tracer

F32, CPU = torch.float32, torch.device("cpu")


@torch.library.custom_op("foreign::sin", mutates_args=())
def sin(x: Tensor) -> Tensor:
    return x * 3


@torch.library.custom_op("foreign::mul_", mutates_args=("x",))
def mul_(x: Tensor, y: Tensor) -> None:
    x.add_(y)


@torch.library.custom_op("foreign::scale", mutates_args=("x",))
def scale(x: Tensor) -> None:
    x.mul_(3)


def test_an_operator_that_is_called_as_one_of_torch_s_is_not_that_one() -> None:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + sin(x)
        return h, h * 0.5

    x, v = torch.ones(2, 3), torch.zeros(3)
    with pytest.raises(UnsupportedOpError, match=r"foreign\.sin\.default cannot be part of a kernel"):
        Tracer(core, (F32,), (F32,), CPU)
    with pytest.warns(flexsn.FallbackWarning, match="foreign"):
        y, _ = flexsn.scan(core, x, v)
    assert torch.equal(y[0], torch.full((3,), 3.0))


def test_one_that_changes_a_tensor_says_so() -> None:
    for change, line in ((lambda h: mul_(h, h), "mul_(h, h)"), (scale, "change(h)")):

        def core(x: Tensor, v: Tensor, change: object = change) -> tuple[Tensor, Tensor]:
            h = v + x
            change(h)  # type: ignore[operator]
            return h, h * 0.5

        with pytest.raises(UnsupportedOpError, match="changes a tensor in place") as raised:
            Tracer(core, (F32,), (F32,), CPU)
        assert line in str(raised.value) and "let it return a new tensor" in str(raised.value)
