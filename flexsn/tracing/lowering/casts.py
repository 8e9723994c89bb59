"""Rules for values that do not change, or do not depend on the argument: casts, copies, constants."""

from __future__ import annotations

from typing import Any

from flexsn.ir.graph import Node
from flexsn.tracing.lowering.context import Arg, Lowering
from flexsn.tracing.lowering.registry import rule


@rule("_to_copy", "clone", "convert_element_type", "contiguous", "to", "copy")
def _to_copy(low: Lowering, x: Arg, *rest: Any, **options: Any) -> Node:
    source = rest[0] if rest and isinstance(rest[0], Node) and not options else x
    return low.value(source, low.dtype)


@rule("full")
def _full(low: Lowering, size: Any, value: Arg, **options: Any) -> Node:
    return low.value(value, low.dtype)


@rule("fill")
def _fill(low: Lowering, x: Arg, value: Arg) -> Node:
    return low.value(value, low.dtype)


@rule("zero")
def _zero(low: Lowering, x: Arg) -> Node:
    return low.value(0, low.dtype)
