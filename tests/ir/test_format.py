"""Every form is valid Python that shows the user's own lines."""

from __future__ import annotations

import ast
import math
import re

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, surrogate
from flexsn.errors import SourceLine
from flexsn.ir.format import Names
from flexsn.ir.graph import Builder, LeafKind
from flexsn.ir.passes import describe, watching
from flexsn.ir.step import Outer, Place, Product, Reduction, StepGraph, StepVjp, TorchCall
from flexsn.report.build import plan_kernels

F32 = torch.float32
spike = surrogate.ATan()
weight = nn.Parameter(torch.rand(3, 1))

FORMS = {
    *("recorded forward", "step graph", "inference plan", "forward plan"),
    *("recorded backward", "vjp", "host program", "unified backward step", "backward plan"),
}


def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) * weight.sigmoid()
    s = spike(h - 1.0)
    return s, torch.where(s > 0, -math.inf, h).clamp(min=-1.0)


def parses(form: str) -> ast.FunctionDef:
    tree = ast.parse(form)
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    return function


def forms(target: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with watching(lambda name, form: found.append((name, describe(form)))):
        plan_kernels(FlexSN(core), target, F32)
    return found


@pytest.mark.parametrize("target", ["cpp", "triton"])
def test_every_form_on_the_way_is_one_python_function(target: str) -> None:
    found = forms(target)
    assert {name for name, _ in found} == FORMS
    for _, form in found:
        parses(form)


def test_the_users_line_stands_above_what_it_became() -> None:
    for name, form in forms("triton"):
        if name == "host program":
            continue
        rows = [row.strip() for row in form.splitlines()]
        charge = next(i for i, row in enumerate(rows) if row.startswith("# h = v + (x - v) * weight.sigmoid()  (core:"))
        assert "sub(" in rows[charge + 1], name


def test_a_line_is_not_repeated_for_each_of_its_operations() -> None:
    form = dict(forms("cpp"))["step graph"]
    assert form.count("# h = v") == 1


def test_the_report_holds_every_form() -> None:
    passes = flexsn.explain(core).passes
    assert {name for name, _ in passes} == FORMS
    assert passes == tuple(forms("cpp"))


def test_printing_names_every_form_down_to_the_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEXSN_PRINT_PASSES", "1")
    FlexSN(core, backend="cpp")(torch.rand(2, 4, 3, 5)).sum().backward()
    printed = set(re.findall("# ---- (.*) ----\n", capsys.readouterr().err))
    assert printed == {*FORMS, "C++"} - {"inference plan"}


def test_literals_are_python() -> None:
    builder, names = Builder(), Names()
    for value in (1.5, -0.0, math.inf, -math.inf, math.nan):
        assert repr(eval(names.of(builder.const(value, F32)))) == repr(value)
    assert names.of(builder.const(True, torch.bool)) == "True"


def test_rows_name_values_once_and_lines_when_they_change() -> None:
    builder = Builder()
    x = builder.leaf(LeafKind.INPUT, 0, F32)
    one, two = (SourceLine("core.py", n, "core", f"line {n}") for n in (1, 2))
    a = builder.op("exp", x, dtype=F32, line=one)
    b = builder.op("neg", a, dtype=F32, line=one)
    c = builder.cast(b, torch.float64, line=two)
    assert Names({x: "x", a: "a"}).rows([x, a, b, c]) == [
        "# line 1  (core:1)",
        "a = exp(x)  # float32",
        "t2 = neg(a)  # float32",
        "# line 2  (core:2)",
        "t3 = cast(t2, float64)  # float64",
    ]


B = Builder()
X, V = B.leaf(LeafKind.INPUT, 0, F32), B.leaf(LeafKind.STATE, 0, F32)
GRAD = B.leaf(LeafKind.COTANGENT, 0, F32)
SCALED = B.op("mul", X, V, dtype=F32)
FED = Product(B.leaf(LeafKind.PRODUCT, 0, F32), SCALED, (1,))
CALL = TorchCall(torch.nn.functional.conv1d, (Place(0), Place(1), None, 2))
CONVOLVED = Product(B.leaf(LeafKind.PRODUCT, 1, F32), B.op("add", FED.leaf, SCALED, dtype=F32), (2, 0), CALL)


def test_products_stand_after_what_they_are_of_and_nothing_is_computed_twice() -> None:
    step = StepGraph(B, (X,), (V,), (B.op("neg", CONVOLVED.leaf, dtype=F32),), (SCALED,), (FED, CONVOLVED))
    assert describe(step).splitlines() == [
        "def step(input0, state0, operand1, operand2, operand0):",
        "    t0 = mul(input0, state0)  # float32",
        "    product0 = matmul(t0, operand1)  # float32",
        "    t4 = add(product0, t0)  # float32",
        "    product1 = conv1d(t4, operand2, operand0)  # float32",
        "    t6 = neg(product1)  # float32",
        "    return dict(output0=t6, new_state0=t0)",
    ]


def test_a_vjp_gives_gradients_summands_sums_and_factors_by_name() -> None:
    flows = B.op("mul", GRAD, V, dtype=F32)
    vjp = StepVjp((flows, None), ((GRAD, flows), ()), (Reduction(GRAD, (), ()),), (), (), (Outer(X, flows),))
    assert describe(vjp).splitlines() == [
        "def vjp(grad_output0, state0, input0):",
        "    t0 = mul(grad_output0, state0)  # float32",
        "    return dict(grad_input0=t0, grad_input1=None, grad_state0=grad_output0, grad_state0_part1=t0,"
        " sum0=grad_output0, outer0_left=input0, outer0_right=t0)",
    ]


def test_a_recorded_call_of_torch_takes_its_tensors_anew() -> None:
    x, weight = torch.rand(1, 2, 9), torch.rand(3, 2, 4)
    assert CALL.name == "conv1d" and torch.equal(CALL([x, weight]), torch.nn.functional.conv1d(x, weight, None, 2))
    largest = TorchCall(torch.ops.aten.max.dim, (Place(0), 2), part=1)
    assert largest.name == "max" and torch.equal(largest([x]), x.max(2).indices)
