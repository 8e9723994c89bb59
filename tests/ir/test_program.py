"""Products cut a step into stages, and every node is in the first that has what it depends on."""

from __future__ import annotations

import torch

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.program import split_stages
from flexsn.ir.step import Product

F32 = torch.float32


def product(builder: Builder, number: int, source: Node) -> Product:
    return Product(builder.leaf(LeafKind.PRODUCT, number, F32), source, (0,))


def test_a_step_without_products_is_one_stage() -> None:
    builder = Builder()
    x = builder.leaf(LeafKind.INPUT, 0, F32)
    y = builder.op("exp", x, dtype=F32)
    (stage,) = split_stages([y], [])
    assert stage.nodes == (y,) and stage.products == ()


def test_a_node_is_computed_as_soon_as_its_products_are_there() -> None:
    builder = Builder()
    x, v = builder.leaf(LeafKind.INPUT, 0, F32), builder.leaf(LeafKind.STATE, 0, F32)
    first = product(builder, 0, v)  # of what is there from the start
    a = builder.op("exp", x, dtype=F32)
    b = builder.op("add", a, first.leaf, dtype=F32)
    second, third = product(builder, 1, b), product(builder, 2, a)
    c = builder.op("add", second.leaf, third.leaf, dtype=F32)
    unused = product(builder, 3, c)
    stages = split_stages([c], [first, second, third, unused])
    assert [s.nodes for s in stages] == [(a,), (b,), (c,)]
    assert [s.products for s in stages] == [(first, third), (second,), ()]


def test_a_product_that_is_a_result_has_a_stage_after_it() -> None:
    builder = Builder()
    first = product(builder, 0, builder.leaf(LeafKind.STATE, 0, F32))
    assert [s.products for s in split_stages([first.leaf], [first])] == [(first,), ()]


def test_where_nothing_is_computed_there_is_one_stage() -> None:
    (stage,) = split_stages([], [])
    assert stage.nodes == stage.products == stage.held == ()


def test_what_waits_is_what_later_stages_read_and_sources_that_are_in_no_array() -> None:
    builder = Builder()
    x, v = builder.leaf(LeafKind.INPUT, 0, F32), builder.leaf(LeafKind.STATE, 0, F32)
    a, b = builder.op("exp", x, dtype=F32), builder.op("neg", x, dtype=F32)
    of_input, of_state, of_value = product(builder, 0, x), product(builder, 1, v), product(builder, 2, b)
    sums = builder.op("add", builder.op("add", of_input.leaf, of_state.leaf, dtype=F32), of_value.leaf, dtype=F32)
    first, last = split_stages([builder.op("mul", sums, a, dtype=F32)], [of_input, of_state, of_value])
    assert set(first.held) == {x, a, b} and last.held == ()
    result, _ = split_stages([a, of_state.leaf], [of_state])
    assert result.held == (a,)
