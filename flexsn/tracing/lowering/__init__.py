"""Lower: one recorded torch operator to nodes of the step graph.

A rule states which rows of the op table an operator is made of and in which dtype they compute; casts that
torch does silently become nodes here, so printers never promote.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, Node
from flexsn.tracing.lowering import activations, arithmetic, casts, selection  # noqa: F401  they bring their rules
from flexsn.tracing.lowering.context import Lowering, Unlowerable
from flexsn.tracing.lowering.registry import RULES

__all__ = ["Unlowerable", "is_known", "lower"]


def is_known(name: str) -> bool:
    """Whether an operator has a rule (and so needs no decomposition)."""
    return name in RULES


def lower(
    builder: Builder,
    name: str,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    dtype: torch.dtype,
    common: torch.dtype,
    on_gpu: bool,
    line: SourceLine | None,
) -> Node:
    """Apply the rule of operator ``name`` (the other arguments: see :class:`Lowering`).

    Raises:
        Unlowerable: there is no rule, or not for these arguments.
    """
    found = RULES.get(name)
    if found is None:
        raise Unlowerable("the op table has no row for it")
    low = Lowering(builder, dtype, common, on_gpu, line)
    try:
        return found(low, *args, **kwargs)
    except TypeError:
        try:
            inspect.signature(found).bind(low, *args, **kwargs)
        except TypeError as error:
            raise Unlowerable(f"its arguments are not pointwise ({error})") from error
        raise  # the rule itself is wrong
