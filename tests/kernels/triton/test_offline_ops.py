"""Every row of the op table compiles for GPUs; the interpreter, which runs them, is lenient about types."""

from __future__ import annotations

import os

import pytest
import torch

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.ops import OPS, Rule
from flexsn.ir.step import StepGraph
from flexsn.planning.forward import plan_forward
from flexsn.planning.request import ScanRequest

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"), reason="a process that interprets cannot compile"
)

INTEGER_ROWS = {
    *("add", "sub", "mul", "neg", "abs", "sign", "fmod", "remainder", "floor_divide", "int_trunc_divide", "where"),
    *("maximum", "minimum", "clamp_min", "clamp_max", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_and"),
    *("bitwise_or", "bitwise_xor", "bitwise_not", "shift_left", "shift_right"),
}
ONLY_INTEGER = {
    "int_trunc_divide",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_not",
    "shift_left",
    "shift_right",
}
LOGICAL = {"logical_and", "logical_or", "logical_xor", "logical_not"}


def applied(builder: Builder, name: str, values: list[Node], condition: Node) -> Node:
    """A node for a row of the table."""
    op = OPS[name]
    dtype = torch.bool if op.rule in (Rule.COMPARE, Rule.LOGICAL, Rule.TEST) else values[0].dtype
    if op.rule is Rule.SELECT:
        return builder.op(name, condition, *values[:2], dtype=dtype)
    if name in LOGICAL:
        return builder.op(name, *[condition, builder.op("eq", *values[:2], dtype=torch.bool)][: op.arity], dtype=dtype)
    return builder.op(name, *values[: op.arity], dtype=dtype)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8])
def test_every_row_compiles(dtype: torch.dtype, target: str, literal: bool) -> None:
    from flexsn.kernels.triton.offline import compile_offline

    builder = Builder()
    x, z = (builder.leaf(LeafKind.INPUT, i, dtype) for i in range(2))
    values = [x, builder.const(3, dtype) if literal else z, z]
    condition = builder.op("gt", x, z, dtype=torch.bool)
    rows = [
        n
        for n in OPS
        if n != "cast" and ((n in INTEGER_ROWS) if not dtype.is_floating_point else n not in ONLY_INTEGER)
    ]
    outputs = [applied(builder, name, values, condition) for name in rows]
    outputs += [
        builder.cast(x, other) for other in (torch.float32, torch.float64, torch.int32, torch.uint8, torch.bool)
    ]
    graph = StepGraph(builder, (x, z), (), tuple(outputs), ())
    request = ScanRequest((dtype, dtype), tuple(n.dtype for n in outputs), training=True)
    plan = plan_forward(graph, request, (), interval=1)
    kernel = compile_offline(plan, target)
    assert sum(kernel.stores.values()) >= len(outputs)
