"""The fewest values saved for the walk back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from flexsn import FlexSN, surrogate
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import BackwardPlan, Saved
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.planning import Gradients, ScanRequest
from flexsn.planning.backward import plan_backward
from flexsn.planning.rematerialize import choose_saved, left_to_compute, values_to_save
from flexsn.report.build import plan_kernels

spike = surrogate.ATan()
F32, F64, BOOL = torch.float32, torch.float64, torch.bool
B = Builder()
X, V = B.leaf(LeafKind.INPUT, 0, F32), B.leaf(LeafKind.STATE, 0, F32)
GRAD, ROW = B.leaf(LeafKind.COTANGENT, 0, F32), B.leaf(LeafKind.COTANGENT, 1, F64)
W, T = B.leaf(LeafKind.OPERAND, 0, F32), B.coordinate(LeafKind.STEP_INDEX)


def saved(core: Callable[..., Any]) -> Saved:
    plan = plan_kernels(FlexSN(core), "triton", torch.float32).plans["backward"][0]
    assert isinstance(plan, BackwardPlan) and plan.saved is not None
    return plan.saved


def test_lif_saves_the_charged_membrane_alone() -> None:
    found = saved(lambda x, v: ((s := spike((h := v + (x - v) / 2.0) - 1.0)), h * (1.0 - s)))
    (charged,) = found.values
    assert charged.op == "add" and charged.args[0].op is LeafKind.STATE
    assert not any(a.op in (LeafKind.INPUT, LeafKind.STATE) for n in found.walk_back for a in n.args)


def test_a_learnable_decay_needs_one_value_more() -> None:
    w = nn.Parameter(torch.tensor(0.3))
    found = saved(lambda x, v: ((s := spike((h := v + (x - v) * w) - 1.0)), h * (1.0 - s)))
    assert sorted(str(n.op) for n in found.values) == ["add", "sub"]


def test_a_linear_core_saves_nothing() -> None:
    assert saved(lambda x, v: (v + x, (v + x) * 0.5)).values == ()


def test_what_is_computed_before_the_loop_is_never_computed_again() -> None:
    decay = op("exp", W)
    charged = op("add", op("mul", V, decay), X)
    half = op("mul", charged, B.const(0.5, F32))
    grads = op("mul", op("mul", GRAD, op("exp", half)), decay)
    step = StepGraph(B, (X,), (V,), (charged,), (op("sub", half, decay),))
    vjp = StepVjp((grads,), ((),), (), (), ())
    gradients = Gradients((F32,), (False,), (True,), (False,), False)
    request = ScanRequest((F32,), (F32,), training=True, gradients=gradients)
    found = choose_saved(plan_backward(step, [(None, vjp)], request, gradients, 4)).saved
    assert found is not None and found.values == (op("exp", half),)
    assert found.recompute == (charged.args[0], charged, half, op("exp", half))
    assert found.advance == step.new_states
    assert found.walk_back == (op("mul", GRAD, op("exp", half)), grads)


def test_the_c_plus_plus_target_saves_states_alone() -> None:
    plan = plan_kernels(FlexSN(lambda x, v: (spike(v + x), v + x)), "cpp", torch.float32).plans["backward"][0]
    assert isinstance(plan, BackwardPlan) and plan.saved is None


# ---- which values, by hand ------------------------------------------------------------------------------------


def op(name: str, *args: Node, dtype: torch.dtype = F32) -> Node:
    return B.op(name, *args, dtype=dtype)


def over(x: Node, threshold: float) -> Node:
    return op("gt", x, B.const(threshold, x.dtype), dtype=BOOL)


def test_a_bool_is_saved_before_the_float_that_is_made_of_it() -> None:
    fired = over(X, 1.0)
    assert values_to_save([op("mul", GRAD, B.cast(fired, F32))]) == (fired,)


def test_two_bools_cost_less_than_a_double_and_more_than_a_float() -> None:
    for x, grad in ((X, GRAD), (B.leaf(LeafKind.INPUT, 0, F64), ROW)):
        h = op("exp", x, dtype=x.dtype)
        one, two = over(h, 1.0), over(h, 2.0)
        inner = op("where", two, grad, B.const(0.0, x.dtype), dtype=x.dtype)
        walked = op("where", one, inner, grad, dtype=x.dtype)
        assert set(values_to_save([walked])) == ({h} if x.dtype == F32 else {one, two})


def test_a_double_costs_as_much_as_two_floats_which_are_computed_later() -> None:
    h = op("exp", B.leaf(LeafKind.INPUT, 0, F64), dtype=F64)
    one, two = B.cast(h, F32), B.cast(op("sin", h, dtype=F64), F32)
    assert set(values_to_save([op("mul", op("mul", GRAD, one), two)])) == {one, two}


def test_a_byte_fills_a_register_and_a_bool_does_not() -> None:
    fired = over(X, 1.0)
    assert values_to_save([op("mul", GRAD, B.cast(B.cast(fired, torch.uint8), F32))]) == (fired,)


def test_among_equals_what_is_computed_last_is_saved() -> None:
    last = op("exp", op("exp", X))
    assert values_to_save([op("mul", GRAD, last)]) == (last,)


def test_one_value_that_many_come_from_is_saved_instead_of_them() -> None:
    h = op("add", X, V)
    grads = op("mul", op("mul", GRAD, op("exp", h)), op("sin", h))
    assert values_to_save([grads]) == (h,)


def test_what_is_there_anyway_is_not_saved() -> None:
    time = B.cast(T, F32)
    assert values_to_save([op("mul", GRAD, op("mul", time, op("exp", W)))]) == ()
    scaled = op("mul", op("add", X, V), time)
    assert values_to_save([op("mul", GRAD, scaled)]) == (scaled,)


def test_a_wanted_value_without_any_gradient_is_saved_too() -> None:
    assert values_to_save([op("exp", X)]) == (op("exp", X),)


def test_what_is_left_is_in_order_and_holds_nothing_that_is_known() -> None:
    h = op("exp", op("add", X, V))
    walked = op("mul", GRAD, h)
    assert left_to_compute([walked], [h]) == (walked,)
    assert left_to_compute([walked, h], []) == (h.args[0], h, walked)
    assert left_to_compute([X], []) == ()
