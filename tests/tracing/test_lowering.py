"""Lowering: which nodes an operator becomes, and whose fault it is where it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flexsn.ir.graph import Builder, LeafKind
from flexsn.tracing.lowering import Lowering, Unlowerable, lower
from flexsn.tracing.lowering.registry import RULES
from flexsn.tracing.tracer import Tracer

F32, F64 = torch.float32, torch.float64
CPU = torch.device("cpu")


def lowering(dtype: torch.dtype = F32) -> Lowering:
    return Lowering(Builder(), dtype, dtype, False, None, [])


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_division_by_a_number_on_a_gpu_multiplies_by_its_inverse_in_that_dtype(dtype: torch.dtype) -> None:
    (node,) = Tracer(lambda x, v: (x / 2.3, v), (dtype,), (dtype,), CPU, on_gpu=True).graph.outputs
    assert node.op == "mul" and node.args[1].value == torch.tensor(2.3, dtype=dtype).reciprocal().item()
    rounded_twice = torch.tensor(1 / 2.3, dtype=F32).item()
    assert dtype == F64 or node.args[1].value != rounded_twice


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_number_that_is_an_argument_has_the_64_bits_of_pythons_floats(on_gpu: bool) -> None:
    tracer = Tracer(lambda x, v: (x / 2.3 + 0.7, v), (F32,), (F32,), CPU, on_gpu, numbers=(2.3, 0.7))
    (node,) = tracer.graph.outputs
    leaves = [n for n in tracer.graph.builder._nodes.values() if n.op is LeafKind.OPERAND]
    assert [n.dtype for n in leaves] == [F64, F64] and not node.is_const


def test_an_operator_without_a_rule_and_one_with_other_arguments_say_so() -> None:
    low = lowering()
    x = low.value(1.0, F32)
    with pytest.raises(Unlowerable, match="no row"):
        lower(low, "nonsense", [x], {})
    with pytest.raises(Unlowerable, match=r"its arguments are not pointwise \(too many positional"):
        lower(low, "square", [x, x], {})


def test_a_rule_that_is_wrong_itself_is_no_fault_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(low: Any, x: Any) -> Any:
        return len(3)  # type: ignore[arg-type]

    monkeypatch.setitem(RULES, "wrong", wrong)
    with pytest.raises(TypeError, match="has no len"):
        lower(lowering(), "wrong", [1.0], {})
