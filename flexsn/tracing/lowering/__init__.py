"""Lower: one recorded torch operator to nodes of the step graph.

A rule states which rows of the op table an operator is made of and in which dtype they compute; casts that
torch does silently become nodes here, so printers never promote.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from flexsn.ir.graph import Node
from flexsn.tracing.lowering import activations, arithmetic, casts, selection  # noqa: F401  they bring their rules
from flexsn.tracing.lowering.context import Lowering, Unlowerable
from flexsn.tracing.lowering.registry import RULES

__all__ = ["Lowering", "Unlowerable", "is_known", "lower"]


def is_known(name: str) -> bool:
    """Whether an operator has a rule (and so needs no decomposition)."""
    return name in RULES


def lower(low: Lowering, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Node:
    """Apply the rule of operator ``name``.

    Raises:
        Unlowerable: there is no rule, or not for these arguments.
    """
    found = RULES.get(name)
    if found is None:
        raise Unlowerable("the op table has no row for it")
    try:
        return found(low, *args, **kwargs)
    except TypeError:
        try:
            inspect.signature(found).bind(low, *args, **kwargs)
        except TypeError as error:
            raise Unlowerable(f"its arguments are not pointwise ({error})") from error
        raise  # the rule itself is wrong
