"""A step in stages: which kernels there are, what each computes, and which tensors need no memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from by_stage import named, same, stages
from small_step import F32, told, told_all

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import Product
from flexsn.planning.stages import Result, as_inputs, plan_step, row_key, source_key

F16 = torch.float16
B = Builder()
X, U = (B.leaf(LeafKind.INPUT, i, F32) for i in range(2))
V, Z = (B.leaf(LeafKind.STATE, j, F32) for j in range(2))
GRAD = B.leaf(LeafKind.STATE_COTANGENT, 0, F32)
DECAY = B.leaf(LeafKind.OPERAND, 0, F32)


def op(name: str, *args: Node) -> Node:
    return B.op(name, *args, dtype=F32)


def product(number: int, source: Node) -> Product:
    return Product(B.leaf(LeafKind.PRODUCT, number, F32), source, (number,))


def dtype_in_memory(leaf: Node) -> torch.dtype:
    return F16 if leaf is U else leaf.dtype


planned = partial(plan_step, B, memory_dtype=dtype_in_memory)


def output(k: int, node: Node, dtype: torch.dtype = F32) -> Result:
    return Result(("output", k), node, dtype, in_rows=False)


def following(j: int, node: Node) -> Result:
    return Result(("next", j), node, node.dtype)


def test_without_products_a_step_is_one_kernel() -> None:
    h = op("mul", op("add", X, V), DECAY)
    plan = planned([output(0, h), following(0, op("neg", h))], ())
    charged = "mul(add(input0, state0), operand0)"
    assert stages(plan) == [({"output 0": charged, "next 0": f"neg({charged})"}, [])]
    assert plan.same == {}
    (kernel,) = plan.stages
    assert [named(k) for k in kernel.keys] == ["input0", "state0", "operand 0", "output 0", "next 0"]
    assert [slot.name for slot in plan.slots] == ["x0", "x1", "p0", "y0", "y1"]


def test_a_state_is_multiplied_where_it_lies() -> None:
    fed = product(0, Z)
    plan = planned([output(0, op("add", fed.leaf, X))], [fed])
    assert stages(plan) == [({}, ["product0"]), ({"output 0": "add(product0, input0)"}, [])]
    assert len(plan.slots) == 3 and plan.stages[1].plan is not None


def test_so_is_a_product() -> None:
    fed = product(0, Z)
    again = product(1, fed.leaf)
    plan = planned([output(0, again.leaf)], [fed, again])
    assert stages(plan) == [({}, ["product0"]), ({}, ["product1"]), ({"output 0": "product1"}, [])]


def test_any_other_source_is_written_for_its_product() -> None:
    h = op("add", X, V)
    for source, key, value in ((h, "add(input0, state0)", "add(input0, state0)"), (X, "copy input0", "input0")):
        mixed = product(0, source)
        plan = planned([output(0, mixed.leaf)], [mixed])
        assert stages(plan) == [({key: value}, ["product0"]), ({"output 0": "product0"}, [])]
        assert plan.same == {}


def test_a_source_that_is_a_result_in_rows_is_written_once() -> None:
    h = op("add", X, V)
    for source in (h, X):
        mixed = product(0, source)
        plan = planned([output(0, source), following(0, source), output(1, mixed.leaf)], [mixed])
        first, second = stages(plan)
        assert first == ({"next 0": told(source), "output 0": told(source)}, ["product0"])
        assert second == ({"output 1": "product0"}, [])
        assert same(plan) == {named(row_key(source)): "next 0"}


def test_a_source_in_another_dtype_than_its_result_is_written_apart() -> None:
    h = op("add", X, V)
    mixed = product(0, h)
    plan = planned([Result(("next", 0), h, F16), output(0, mixed.leaf)], [mixed])
    assert stages(plan)[0][0] == {told(h): told(h), "next 0": told(h)} and plan.same == {}


def test_results_are_computed_with_the_sources_if_they_hang_on_no_product_that_is_to_come() -> None:
    h = op("add", X, V)
    first = product(0, h)
    second = product(1, op("neg", first.leaf))
    results = [output(0, op("exp", h)), output(1, op("exp", first.leaf)), output(2, op("exp", second.leaf))]
    assert stages(planned(results, [first, second])) == [
        ({told(h): told(h), "output 0": f"exp({told(h)})"}, ["product0"]),
        ({"neg(product0)": "neg(product0)", "output 1": "exp(product0)"}, ["product1"]),
        ({"output 2": "exp(product1)"}, []),
    ]


def test_where_nothing_is_written_for_a_product_results_wait() -> None:
    fed = product(0, Z)
    results = [output(0, op("exp", X)), output(1, op("exp", fed.leaf))]
    assert stages(planned(results, [fed])) == [
        ({}, ["product0"]),
        ({"output 0": "exp(input0)", "output 1": "exp(product0)"}, []),
    ]


def test_a_source_of_two_products_is_written_once() -> None:
    h = op("add", X, V)
    first, other = product(0, h), product(1, h)
    late = product(2, op("mul", h, first.leaf))
    again = product(3, op("neg", late.leaf))
    results = [output(0, op("add", op("add", other.leaf, again.leaf), late.leaf))]
    found = stages(planned(results, [first, other, late, again]))
    assert [list(writes) for writes, _ in found] == [[told(h)], [told(late.source)], [told(again.source)], ["output 0"]]
    assert [products for _, products in found] == [["product0", "product1"], ["product2"], ["product3"], []]


def test_a_product_whose_source_was_written_for_an_earlier_one_needs_no_kernel() -> None:
    h = op("add", X, V)
    first = product(0, h)
    beside = product(1, op("add", first.leaf, h))
    plan = planned([output(0, beside.leaf), following(0, h), following(1, beside.source)], [first, beside])
    assert [writes for writes, _ in stages(plan)] == [
        {"next 0": told(h)},
        {"next 1": told(beside.source)},
        {"output 0": "product1"},
    ]
    assert same(plan) == {told(h): "next 0", told(beside.source): "next 1"}


def test_a_product_that_is_a_result_in_rows_is_written_there_by_torch() -> None:
    fed = product(0, Z)
    plan = planned([following(0, fed.leaf)], [fed])
    assert stages(plan) == [({}, ["product0"]), ({}, [])]
    assert same(plan) == {"next 0": "product0"}


def test_a_product_that_is_kept_where_it_is_is_copied() -> None:
    fed = product(0, Z)
    plan = planned([following(0, fed.leaf)], [fed], wanted=[fed.leaf])
    assert stages(plan) == [({}, ["product0"]), ({"next 0": "product0"}, [])] and plan.same == {}


def test_so_is_one_that_was_there_before() -> None:
    plan = planned([following(0, product(0, Z).leaf)], [])
    assert stages(plan) == [({"next 0": "product0"}, [])] and plan.same == {}


def test_a_product_that_is_only_kept_is_computed_too() -> None:
    fed, mixed = product(0, Z), product(1, X)
    plan = planned([output(0, V)], [fed, mixed], wanted=[mixed.leaf])
    assert stages(plan) == [({"copy input0": "input0", "output 0": "state0"}, ["product1"]), ({}, [])]


def test_a_value_that_is_a_result_and_a_factor_in_rows_is_written_once() -> None:
    h = op("add", X, V)
    for node in (h, X):
        factor = Result(row_key(node), node, F32)
        plan = planned([following(0, node), factor], ())
        assert stages(plan) == [({"next 0": told(node)}, [])]
        assert same(plan) == {named(row_key(node)): "next 0"}
        assert stages(planned([output(0, node), factor], ()))[0][0] == {
            "output 0": told(node),
            named(row_key(node)): told(node),
        }


def test_tensors_have_the_dtype_of_memory() -> None:
    plan = planned([output(0, op("add", X, U), F16)], ())
    assert [(slot.name, slot.dtype) for slot in plan.slots] == [("x0", F32), ("x1", F16), ("y0", F16)]


def test_where_tensors_lie_row_by_row() -> None:
    fed, h = product(0, Z), op("add", X, V)
    assert [row_key(n) for n in (Z, fed.leaf, h)] == [Z, fed.leaf, h]
    assert [named(row_key(n)) for n in (X, GRAD)] == ["copy input0", "copy grad_state0"]
    sources: Sequence[Node] = (Z, fed.leaf, GRAD, h, X)
    assert [named(source_key(product(9, n))) for n in sources] == [
        *("state1", "product0", "grad_state0", "add(input0, state0)", "copy input0"),
    ]


def test_what_changes_from_step_to_step_is_an_input_of_a_step_of_its_own() -> None:
    t = B.coordinate(LeafKind.STEP_INDEX)
    read = [op("add", X, op("mul", V, DECAY)), B.cast(t, F32), B.const(1.0, F32)]
    found = as_inputs(B, read, but=(V,))
    assert list(found) == [X, t]
    assert told_all(found.values()) == ["input0", "input1"] and found[t].dtype == torch.int64
