"""By hand: what a fused forward pass saves, and where the factors of outer products are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from small_step import F32, Pattern

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import Factor, Holds, Role, Slot
from flexsn.ir.step import Outer, Product, StepGraph, StepVjp
from flexsn.planning.fused import Column, place_outers, reading_saved, values_of_steps, way_of
from flexsn.planning.request import ScanRequest

F16, F64 = torch.float16, torch.float64
B = Builder()
X, U = (B.leaf(LeafKind.INPUT, i, F32) for i in range(2))
V, Z = (B.leaf(LeafKind.STATE, j, F32) for j in range(2))
GRAD = B.leaf(LeafKind.COTANGENT, 0, F32)
SAVED = B.leaf(LeafKind.SAVED, 3, F32)
FED = Product(B.leaf(LeafKind.PRODUCT, 0, F32), Z, (0,))
BACK = Product(B.leaf(LeafKind.PRODUCT, 1, F32), GRAD, (1,))


def op(name: str, *args: Node) -> Node:
    return B.op(name, *args, dtype=F32)


H = op("add", op("add", V, X), FED.leaf)
SPIKE = op("exp", H)
STEP = StepGraph(B, (X, U), (V, Z), (H, SPIKE), (op("neg", H), SPIKE), (FED,))
REQUEST = ScanRequest((F32, F32), (F32, F32), training=True)
NOTHING = StepVjp((None, None), ((), ()), (), (), ())


# ---- what is saved --------------------------------------------------------------------------------------------


def saved(vjp: StepVjp, step: StepGraph = STEP, request: ScanRequest = REQUEST) -> tuple[Any, tuple[int, ...]]:
    asked: list[Pattern] = []

    def every(*pattern: Any) -> StepVjp:
        asked.append(pattern)
        return vjp

    found = values_of_steps(step, every, request)
    assert asked == [((True,) * len(step.outputs), (1, 1), False, False)]
    return found


def test_an_input_is_read_again_where_that_is_cheaper_than_to_write_and_read_a_value_of_it() -> None:
    one, two = op("exp", X), op("add", X, U)
    assert saved(replace(NOTHING, grad_inputs=(op("mul", GRAD, one), None))) == ((), ())
    assert saved(replace(NOTHING, grad_inputs=(op("mul", GRAD, two), None))) == ((two,), ())


def test_values_of_more_bytes_cost_more() -> None:
    wide = B.op("exp", B.cast(H, F64), dtype=F64)
    flows = B.op("mul", B.cast(GRAD, F64), wide, dtype=F64)
    assert saved(replace(NOTHING, grad_inputs=(B.cast(flows, F32), None))) == ((H,), ())


def test_a_product_of_gradients_is_none_of_the_forward_pass() -> None:
    vjp = replace(NOTHING, grad_inputs=(op("mul", BACK.leaf, H), None), products=(FED, BACK))
    assert saved(vjp) == ((H,), ())


def test_factors_that_are_there_anyway_are_not_saved_and_outputs_among_them_are_told() -> None:
    assert saved(replace(NOTHING, outers=(Outer(Z, X),))) == ((), (1,))
    assert saved(replace(NOTHING, outers=(Outer(V, GRAD),))) == ((V,), ())
    assert saved(replace(NOTHING, outers=(Outer(Z, GRAD),)), request=replace(REQUEST, output_dtypes=(F32, F16))) == (
        (Z,),
        (),
    )
    many = replace(STEP, outputs=(SPIKE, *[GRAD] * 7, STEP.new_states[0]))
    request = replace(REQUEST, output_dtypes=(F32,) * 9)
    assert saved(replace(NOTHING, outers=(Outer(V, GRAD), Outer(Z, GRAD))), many, request) == ((), (0, 8))


def test_what_was_saved_is_read_and_no_product_of_the_forward_pass_is_computed() -> None:
    vjp = replace(NOTHING, grad_inputs=(op("mul", BACK.leaf, H), None), products=(FED, BACK))
    asked: list[Pattern] = []

    def every(*pattern: Any) -> StepVjp:
        asked.append(pattern)
        return vjp

    found = reading_saved(STEP, every, (SPIKE, H))((True, False), (1, 0), True, False)
    assert asked == [((True, False), (1, 0), True, False)] and found.products == (BACK,)
    assert found.grad_inputs == (op("mul", BACK.leaf, B.leaf(LeafKind.SAVED, 1, F32)), None)


# ---- where factors are ----------------------------------------------------------------------------------------


def placed(
    *branches: tuple[Outer | None, int], written: dict[Slot, Column] | None = None, request: ScanRequest = REQUEST
) -> list[tuple[str, str]]:
    """Where the factors are of an outer product per group; the branches after that, with the group of each."""
    vjps = [(replace(NOTHING, outers=(outer,) if outer else ()), group) for outer, group in branches]
    groups = {group: vjp for vjp, group in vjps}
    found = place_outers(
        STEP, request, [(0, groups[g]) for g in sorted(groups)], vjps, {} if written is None else written
    )
    assert [(o.group, o.number) for o in found] == [(g, 0) for g in sorted(groups) if groups[g].outers]
    return [(where(o.left), where(o.right)) for o in found]


def where(factor: Factor) -> str:
    slot = factor.slot
    assert slot.role is (Role.STORE if slot.holds in (Holds.FACTOR, Holds.GRAD_INPUT) else Role.LOAD)
    return slot.name + ("" if factor.state is None else f" before, first v{factor.state}")


def test_saved_values_inputs_and_states_that_are_outputs_are_there_anyway() -> None:
    assert placed((Outer(SAVED, X), 0)) == [("s3", "x0")]
    assert placed((Outer(Z, U), 0)) == [("y1 before, first v1", "x1")]


def test_any_other_value_is_written_and_so_is_what_lies_in_memory_in_another_dtype() -> None:
    written: dict[Slot, Column] = {}
    assert placed((Outer(V, GRAD), 0), written=written) == [("f0", "f1")]
    assert list(written.values()) == [(V,), (GRAD,)]
    assert placed((Outer(X, B.leaf(LeafKind.COTANGENT, 1, F32)), 0)) == [("x0", "f0")]
    half = ScanRequest((F16, F32), (F32, F16), training=True)
    assert placed((Outer(X, Z), 0), request=half) == [("f0", "f1")]


def test_a_factor_that_is_not_the_same_in_every_branch_is_written() -> None:
    written: dict[Slot, Column] = {}
    assert placed((Outer(X, U), 0), (Outer(X, SAVED), 0), written=written) == [("x0", "f0")]
    assert list(written.values()) == [(U, SAVED)]


def test_what_is_written_anyway_in_the_dtype_of_the_factor_is_not_written_twice() -> None:
    for dtype, name in ((F32, "gx0"), (F16, "f0")):
        written: dict[Slot, Column] = {Slot(Role.STORE, dtype, Holds.GRAD_INPUT, 0): (GRAD,)}
        assert placed((Outer(X, GRAD), 0), written=written) == [("x0", name)]
    written = {Slot(Role.STORE, F32, Holds.GRAD_INPUT, 0): (op("neg", GRAD),)}
    assert placed((Outer(X, GRAD), 0), written=written) == [("x0", "f0")]
    assert placed((Outer(GRAD, GRAD), 0)) == [("f0", "f0")]


def test_one_factor_is_written_where_steps_of_other_groups_have_none() -> None:
    """Zero there; not the one that is the output of the step before, which the step itself does not know."""
    written: dict[Slot, Column] = {}
    assert placed((None, 0), (Outer(SAVED, X), 1), written=written) == [("s3", "f0")]
    assert list(written.values()) == [(None, X)]
    assert placed((None, 0), (Outer(Z, X), 1)) == [("y1 before, first v1", "f0")]
    assert placed((None, 0), (Outer(X, Z), 1)) == [("f0", "y1 before, first v1")]
    assert placed((None, 0), (Outer(X, GRAD), 1)) == [("x0", "f0")]
    assert placed((Outer(X, U), 0), (Outer(U, X), 1)) == [("x0", "f0"), ("x1", "f1")]


# ---- the way --------------------------------------------------------------------------------------------------


class Target:
    name, saves_in_registers, largest_matrix = "a", False, 8

    def choose_interval(self, step_bytes: int) -> int:
        return 16


def test_matrices_of_floats_up_to_a_size_are_multiplied_in_the_kernel() -> None:
    def of(*dtypes: torch.dtype) -> StepGraph:
        products = (
            Product(B.leaf(LeafKind.PRODUCT, i, d), B.leaf(LeafKind.STATE, i, d), (i,)) for i, d in enumerate(dtypes)
        )
        return replace(STEP, products=tuple(products))

    assert [way_of(of(F32, F64), size, Target()).fused for size in (7, 8, 9)] == [True, True, False]
    assert not way_of(of(F32, torch.int64), 8, Target()).fused
    assert way_of(of(F64), 8, Target()).why == "a matrix of 8 rows stays in cache"
