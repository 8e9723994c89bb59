"""The last steps unified with the usual one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_step import told
from torch import Tensor

from flexsn import FlexSN, surrogate
from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import BackwardPlan
from flexsn.ir.step import StepVjp
from flexsn.planning import Gradients
from flexsn.planning.boundary import Unifier, branch_at, nth_from_end, steps_from_end
from flexsn.report.build import plan_kernels

spike = surrogate.ATan()
F32 = torch.float32


def backward_plan(core: Callable[..., Any]) -> BackwardPlan:
    plan = plan_kernels(FlexSN(core), "triton", F32).plans["backward"][0]
    assert isinstance(plan, BackwardPlan)
    return plan


LAST = "eq(add(t, 1), T)"


def choices(roots: list[Node]) -> list[Node]:
    return [n for n in topological(roots) if from_end(n) is not None]


def from_end(node: Node) -> int | None:
    """The distance from the end that a choice is about; ``None`` of any other node."""
    if node.op != "where" or node.args[0].op != "eq" or node.args[0].args[1].op is not LeafKind.NUM_STEPS:
        return None
    ahead = node.args[0].args[0]
    assert ahead.op == "add" and ahead.args[0].op is LeafKind.STEP_INDEX
    return int(ahead.args[1].value or 0) - 1


def unify(builder: Builder, usual: Node, *early: Node) -> Node:
    return Unifier(builder, [nth_from_end(builder, n) for n in range(len(early))]).unify(usual, early)


def leaves(count: int) -> tuple[Builder, list[Node]]:
    builder = Builder()
    return builder, [builder.leaf(LeafKind.COTANGENT, i, F32) for i in range(count)]


def test_a_missing_summand_is_one_choice_at_the_sum() -> None:
    builder, (a, b, c) = leaves(3)
    usual = builder.op("mul", builder.op("add", a, b, dtype=F32), c, dtype=F32)
    early = builder.op("mul", a, c, dtype=F32)
    unified = unify(builder, usual, early)
    assert unified.op == "mul" and unified.args[1] is c
    (choice,) = choices([unified])
    assert choice.args[1] is a and choice.args[2].op == "add"


@pytest.mark.parametrize("name", ["add", "mul"])
def test_what_the_usual_step_computes_on_its_way_is_chosen_whole(name: str) -> None:
    builder, (a, b, c) = leaves(3)
    partial = builder.op(name, a, b, dtype=F32)
    usual = builder.op(name, partial, c, dtype=F32)
    unified = unify(builder, usual, partial)
    assert choices([unified]) == [unified] and unified.args[1:] == (partial, usual)


def test_a_summand_that_is_smaller_itself_is_unified_first() -> None:
    builder, (a, b, c, d) = leaves(4)
    product = builder.op("mul", builder.op("add", a, b, dtype=F32), c, dtype=F32)
    usual = builder.op("add", d, product, dtype=F32)
    early = builder.op("mul", a, c, dtype=F32)
    unified = unify(builder, usual, early)
    assert len(choices([unified])) == 2
    assert sum(n.op == "mul" for n in topological([unified])) == 1  # computed once, wherever the step is


def test_graphs_that_have_nothing_in_common_are_both_computed() -> None:
    builder, (a, b) = leaves(2)
    usual, early = builder.op("exp", a, dtype=F32), builder.op("mul", a, b, dtype=F32)
    unified = unify(builder, usual, early)
    assert unified.op == "where" and unified.args[1:] == (early, usual)
    assert unify(builder, usual, usual) is usual


def test_every_distance_gets_its_own_graph() -> None:
    builder, (a, b, c) = leaves(3)
    partial = builder.op("add", a, b, dtype=F32)
    usual = builder.op("add", partial, c, dtype=F32)
    unified = unify(builder, usual, a, partial)
    assert len(choices([unify(builder, usual, partial)])) == 1  # between the sums, not between their summands
    for distance, want in ((0, a), (1, partial), (2, usual)):
        assert resolve(unified, distance) == describe(want)


def test_of_two_summands_the_one_that_shares_most_has_the_counterpart() -> None:
    builder, (a, b, c, d, e) = leaves(5)
    product, longer = builder.op("mul", a, b, dtype=F32), builder.op("add", d, e, dtype=F32)
    for first, second in ((product, builder.op("mul", c, longer, dtype=F32)),):
        for usual in (builder.op("add", first, second, dtype=F32), builder.op("add", second, first, dtype=F32)):
            unified = unify(builder, usual, builder.op("mul", c, d, dtype=F32))
            own = f"mul({told(c)}, where({LAST}, {told(d)}, {told(longer)}))"
            both = ", ".join(own if x is second else told(x) for x in usual.args)
            assert told(unified) == f"where({LAST}, {own}, add({both}))"


def test_only_sums_have_summands() -> None:
    builder, (a, b, c) = leaves(3)
    usual = builder.op("exp", builder.op("mul", a, b, dtype=F32), dtype=F32)
    early = builder.op("mul", a, c, dtype=F32)
    assert told(unify(builder, usual, early)) == f"where({LAST}, {told(early)}, {told(usual)})"


def test_operations_on_other_dtypes_are_not_alike() -> None:
    builder, (a, *_) = leaves(1)
    wide, whole = builder.leaf(LeafKind.INPUT, 0, torch.float64), builder.leaf(LeafKind.INPUT, 1, torch.int32)
    usual, early = builder.cast(wide, F32), builder.cast(whole, F32)
    assert told(unify(builder, usual, early)) == f"where({LAST}, {told(early)}, {told(usual)})"
    assert told(unify(builder, a, early)) == f"where({LAST}, {told(early)}, {told(a)})"


def test_a_choice_and_what_it_is_made_in_come_from_the_usual_step_s_line() -> None:
    builder, (a, b, c) = leaves(3)
    line = SourceLine("core.py", 1, "core", "")
    usual = builder.op("exp", builder.op("add", a, b, dtype=F32, line=line), dtype=F32, line=line)
    unified = unify(builder, usual, builder.op("exp", builder.op("sub", a, c, dtype=F32), dtype=F32))
    assert unified.op == "exp" and unified.line == line
    assert unified.args[0].op == "where" and unified.args[0].line == line


@pytest.mark.parametrize("second", range(4))
@pytest.mark.parametrize("first", range(4))
def test_two_distances_that_differ_in_the_same_summand_or_in_others(first: int, second: int) -> None:
    builder, (a, b, c, d) = leaves(4)
    product, shorter = (
        builder.op("mul", a, builder.op("add", b, c, dtype=F32), dtype=F32),
        builder.op("mul", a, b, dtype=F32),
    )
    usual = builder.op("add", product, d, dtype=F32)
    early = (usual, shorter, builder.op("add", shorter, d, dtype=F32), d)
    unified = unify(builder, usual, early[first], early[second])
    for distance, want in enumerate((early[first], early[second], usual)):
        assert resolve(unified, distance) == describe(want)


def test_what_was_unified_before_is_remembered_by_all_it_was_made_of() -> None:
    builder, (a, b, c) = leaves(3)
    unifier = Unifier(builder, [nth_from_end(builder, 0)])
    found = [unifier.unify(usual, [early]) for usual, early in ((a, c), (b, c), (a, b))]
    assert [told(n) for n in found] == [f"where({LAST}, {told(y)}, {told(x)})" for x, y in ((a, c), (b, c), (a, b))]


def describe(node: Node) -> Any:
    return (node.op, node.index) if node.is_leaf else (node.op, *map(describe, node.args))


def resolve(node: Node, distance: int) -> Any:
    """What a unified graph computes at a distance from the end."""
    chosen = from_end(node)
    if chosen is not None:
        return resolve(node.args[1] if chosen == distance else node.args[2], distance)
    return (node.op, node.index) if node.is_leaf else (node.op, *(resolve(a, distance) for a in node.args))


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def test_the_unified_step_is_every_branch_in_its_place() -> None:
    plan = backward_plan(lif)
    assert len(plan.branches) == 2
    for distance, branch in enumerate(plan.branches):
        for (_, unified), (_, own) in zip(plan.step.stores, branch.stores, strict=True):
            assert unified is not None and own is not None
            assert resolve(unified, distance) == describe(own)


def test_a_step_takes_the_branch_of_its_distance_from_the_end() -> None:
    plan = backward_plan(lif)
    last, usual = plan.branches
    assert [branch_at(plan, t, 4) for t in range(4)] == [usual, usual, usual, last]
    assert branch_at(plan, 0, 1) is last


def test_what_is_unified_names_the_lines_it_comes_from() -> None:
    step = backward_plan(lif).step
    wheres = [n for n in step.program.body if from_end(n) is not None]
    assert wheres and all(n.line for n in wheres if n.args[2].line)
    assert not any(n.is_leaf for n in step.program.body)


# ---- which steps are alike ------------------------------------------------------------------------------------


class Vjps:
    """Vjps of hand-made patterns: by how many cotangents the states have, how many gradients they get."""

    def __init__(self, following: dict[tuple[int, ...], tuple[int, ...]], last_differs: bool = False) -> None:
        self.following, self.last_differs = following, last_differs
        self.asked: list[tuple[tuple[int, ...], bool, bool]] = []
        _, self.nodes = leaves(2)

    def __call__(self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        self.asked.append((states, apart, last))
        nodes = self.nodes[::-1] if last and self.last_differs else self.nodes
        given = tuple(tuple(nodes[:count]) for count in self.following[states])
        return StepVjp((), given, (), (), ())


def steps(
    following: dict[tuple[int, ...], tuple[int, ...]], *finals: bool, last_differs: bool = False
) -> tuple[list[StepVjp], Vjps]:
    vjps = Vjps(following, last_differs)
    return steps_from_end(vjps, Gradients((torch.float32,), finals, (), (), False)), vjps


def test_steps_are_planned_apart_until_their_gradients_stay_the_same() -> None:
    found, vjps = steps({(0, 0): (1, 0), (1, 0): (1, 1), (1, 1): (1, 1)}, False, False)
    assert [tuple(map(len, v.grad_states)) for v in found] == [(1, 0), (1, 1), (1, 1)]
    assert vjps.asked[0] == ((0, 0), True, True) and not any(last for _, _, last in vjps.asked[1:])


def test_a_last_step_that_is_like_all_others_is_no_step_of_its_own() -> None:
    found, _ = steps({(1,): (1,)}, True)
    assert len(found) == 1


def test_a_last_step_that_adds_up_in_another_order_is_one_of_its_own() -> None:
    found, _ = steps({(1,): (1,)}, True, last_differs=True)
    assert len(found) == 2 and found[0] != found[1]


def test_states_that_swap_places_have_zeros_for_absent_gradients() -> None:
    found, vjps = steps({(1, 0): (0, 1), (0, 1): (1, 0), (1, 1): (1, 1)}, True, False)
    assert len(found) == 1 and vjps.asked[-1] == ((1, 1), False, False)


def test_gradients_in_parts_that_never_settle_are_added_up_first() -> None:
    growing = {(0,): (1,), (1,): (2,), (2,): (1,)}
    found, vjps = steps(growing, False)
    assert [apart for _, apart, _ in vjps.asked] == [True] * 3 + [False] * 4
    assert len(found) == 1


def test_gradients_that_settle_once_they_are_added_up_are_planned_apart() -> None:
    growing = Vjps({(0,): (1,), (1,): (2,), (2,): (1,)})

    def vjp(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        found = growing(outputs, states, apart, last)
        return found if apart else replace(found, grad_states=(found.grad_states[0][:1],))

    found = steps_from_end(vjp, Gradients((F32,), (False,), (), (), False))
    assert [len(v.grad_states[0]) for v in found] == [1, 1]
    assert growing.asked[-1][1] is False and (1,) in [states for states, apart, _ in growing.asked if not apart]


def test_as_many_steps_as_states_and_two_are_looked_at() -> None:
    found, _ = steps({(0,): (1,), (1,): (2,), (2,): (2,)}, False)
    assert [len(v.grad_states[0]) for v in found] == [1, 2, 2]
