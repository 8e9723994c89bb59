"""Lower: one recorded torch operator to nodes of the step graph.

A rule states which rows of the op table an operator is made of and in which dtype they compute; casts that
torch does silently become nodes here, so printers never promote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flexsn import lower_arithmetic, lower_choosing  # noqa: F401  they bring their rules
from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, Node
from flexsn.lower_rules import RULES, rule
from flexsn.lowering import Arg, Lowering, Unlowerable

__all__ = ["RULES", "Unlowerable", "is_known", "lower"]


def is_known(name: str) -> bool:
    """Whether an operator has a rule (and so needs no decomposition)."""
    return name in RULES


# ---- values that do not change, or do not depend on the argument ------------------------------------------------


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


def lower(
    builder: Builder,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    dtype: torch.dtype,
    common: torch.dtype,
    device: torch.device,
    line: SourceLine | None,
) -> Node:
    """Apply the rule of operator ``name`` (the other arguments: see :class:`~flexsn.lowering.Lowering`).

    Raises:
        Unlowerable: there is no rule, or not for these arguments.
    """
    found = RULES.get(name)
    if found is None:
        raise Unlowerable("the op table has no row for it")
    try:
        return found(Lowering(builder, dtype, common, device, line), *args, **kwargs)
    except TypeError as error:
        raise Unlowerable(f"its arguments are not pointwise ({error})") from error
