"""Which leaves are read, what is loaded once, and what runs when."""

from __future__ import annotations

import torch
from small_step import F32

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import Holds, Role
from flexsn.ir.program import Program
from flexsn.ir.step import Product
from flexsn.planning.pieces import lane_loads, leaves, matrices, order

F64 = torch.float64
B = Builder()
X, V = B.leaf(LeafKind.INPUT, 0, F32), B.leaf(LeafKind.STATE, 0, F32)
P, Q = (B.leaf(LeafKind.OPERAND, i, F32) for i in range(2))


def op(name: str, *args: Node) -> Node:
    return B.op(name, *args, dtype=F32)


def product(index: int, source: Node, matrix: int) -> Product:
    return Product(B.leaf(LeafKind.PRODUCT, index, source.dtype), source, (matrix,))


def test_leaves_are_in_order_of_their_parts_and_numbers() -> None:
    grads = [B.leaf(LeafKind.STATE_COTANGENT, j, F32, part) for part in (0, 1) for j in (0, 1)]
    assert leaves(LeafKind.STATE_COTANGENT, [X, grads[3], grads[1], grads[2], grads[0]]) == grads


def test_what_belongs_to_a_lane_is_loaded_once() -> None:
    length, initial = B.leaf(LeafKind.LENGTH, 0, torch.int32), B.leaf(LeafKind.INITIAL, 1, F64)
    lane = B.coordinate(LeafKind.LANE_INDEX)
    found = lane_loads([initial, length, lane, Q, P, X, V, B.coordinate(LeafKind.STEP_INDEX)])
    assert [leaf for _, leaf in found] == [P, Q, lane, length, initial]
    assert [(slot.name, slot.dtype) for slot, _ in found] == [
        *(("p0", F32), ("p1", F32), ("lane0", torch.int64), ("len0", torch.int32), ("v_initial1", F64)),
    ]
    assert {slot.role for slot, _ in found} == {Role.LANE_LOAD}


def test_every_matrix_is_one_slot() -> None:
    products = product(0, V, 2), product(1, B.leaf(LeafKind.STATE, 1, F64), 1), product(2, X, 2)
    programs = [order([p.leaf for p in products[:2]], products[:2]), order([products[2].leaf], products[2:])]
    found = matrices(programs)
    assert [(slot.name, slot.dtype) for slot in found] == [("m1", F64), ("m2", F32)]
    assert {(slot.role, slot.holds) for slot in found} == {(Role.MATRIX, Holds.MATRIX)}


def test_without_products_there_are_no_stages() -> None:
    decay = op("exp", P)
    charged = op("mul", V, decay)
    program = order([charged, decay])
    assert (program.hoisted, program.body, program.stages) == ((decay,), (charged,), ())


def test_what_is_computed_before_the_loop_is_in_no_stage() -> None:
    decay = op("exp", P)
    scaled = op("mul", X, decay)
    fed, mixed = product(0, scaled, 2), product(1, X, 3)
    result = op("add", op("mul", fed.leaf, decay), mixed.leaf)
    program = order([result, decay, Q], [fed, mixed])
    assert isinstance(program, Program) and program.hoisted == (decay,)
    first, last = program.stages
    assert first.nodes == (scaled,) and last.nodes == (result.args[0], result)
    assert first.products == (fed, mixed) and last.products == ()
    assert set(first.held) == {scaled, X}
    assert program.body == (*first.nodes, *last.nodes)
