"""The last steps folded into the usual one, and the fewest values kept for the walk back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.ir.graph import Builder, Node, topological
from flexsn.ir.plan import BackwardPlan
from flexsn.modules.explain import plan_kernels
from flexsn.planning.boundary import Merger, merged_step
from flexsn.planning.rematerialize import kept_values, remaining

spike = surrogate.ATan()
F32 = torch.float32


def backward_plan(core: Callable[..., Any], **options: Any) -> BackwardPlan:
    plan = plan_kernels(FlexSN(core, **options), "triton", F32)[1]["backward"][0]
    assert isinstance(plan, BackwardPlan)
    return plan


def choices(roots: list[Node]) -> list[Node]:
    return [n for n in topological(roots) if n.op == "where" and n.args[0].op == "age"]


def leaves(count: int) -> tuple[Builder, list[Node]]:
    builder = Builder()
    return builder, [builder.leaf("cotangent", i, F32) for i in range(count)]


def test_a_missing_summand_is_one_choice_at_the_sum() -> None:
    builder, (a, b, c) = leaves(3)
    usual = builder.op("mul", builder.op("add", a, b, dtype=F32), c, dtype=F32)
    early = builder.op("mul", a, c, dtype=F32)
    merged = Merger().merge(usual, [early])
    assert merged.op == "mul" and merged.args[1] is c
    (choice,) = choices([merged])
    assert choice.args[1] is a and choice.args[2].op == "add"


def test_a_summand_that_is_smaller_itself_is_merged_first() -> None:
    builder, (a, b, c, d) = leaves(4)
    product = builder.op("mul", builder.op("add", a, b, dtype=F32), c, dtype=F32)
    usual = builder.op("add", d, product, dtype=F32)
    early = builder.op("mul", a, c, dtype=F32)
    merged = Merger().merge(usual, [early])
    assert len(choices([merged])) == 2
    assert sum(n.op == "mul" for n in topological([merged])) == 1  # computed once, whatever the age


def test_graphs_that_have_nothing_in_common_are_both_computed() -> None:
    builder, (a, b) = leaves(2)
    usual, early = builder.op("exp", a, dtype=F32), builder.op("mul", a, b, dtype=F32)
    merged = Merger().merge(usual, [early])
    assert merged.op == "where" and merged.args[1:] == (early, usual)
    assert Merger().merge(usual, [usual]) is usual


def test_every_age_gets_its_own_graph() -> None:
    builder, (a, b, c) = leaves(3)
    partial = builder.op("add", a, b, dtype=F32)
    usual = builder.op("add", partial, c, dtype=F32)
    merged = Merger().merge(usual, [a, partial])
    for age, want in ((0, a), (1, partial), (2, usual)):
        assert resolve(merged, age) == describe(want)


def describe(node: Node) -> Any:
    return (node.op, node.index) if node.is_leaf else (node.op, *map(describe, node.args))


def resolve(node: Node, age: int) -> Any:
    """What a merged graph computes at an age."""
    if node.op == "where" and node.args[0].op == "age":
        return resolve(node.args[1] if node.args[0].index == age else node.args[2], age)
    return (node.op, node.index) if node.is_leaf else (node.op, *(resolve(a, age) for a in node.args))


def test_merged_steps_are_the_variants() -> None:
    def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / 2.0
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    plan = backward_plan(lif)
    step = merged_step(plan)
    assert len(plan.variants) == 2
    for age, variant in enumerate(plan.variants):
        for (_, merged), (_, own) in zip(step.stores, variant.stores, strict=True):
            assert merged is not None and own is not None
            assert resolve(merged, age) == describe(own)


def roots_of(plan: BackwardPlan) -> list[Node]:
    step = merged_step(plan)
    results = (*(n for _, n in step.stores), *step.accumulate, *step.grad_states)
    return [n for n in results if n is not None]


def test_lif_keeps_the_charged_membrane_alone() -> None:
    plan = backward_plan(lambda x, v: ((s := spike((h := v + (x - v) / 2.0) - 1.0)), h * (1.0 - s)))
    (kept,) = kept_values(roots_of(plan))
    assert kept.op == "add" and kept.args[0].op == "state"
    again = remaining(roots_of(plan), [kept])
    assert not any(a.op in ("input", "state") for n in again for a in n.args)


def test_a_learnable_decay_needs_one_value_more() -> None:
    w = nn.Parameter(torch.tensor(0.3))
    plan = backward_plan(lambda x, v: ((s := spike((h := v + (x - v) * w) - 1.0)), h * (1.0 - s)))
    assert sorted(n.op for n in kept_values(roots_of(plan))) == ["add", "sub"]


def test_a_linear_core_keeps_nothing() -> None:
    assert kept_values(roots_of(backward_plan(lambda x, v: (v + x, (v + x) * 0.5)))) == ()
