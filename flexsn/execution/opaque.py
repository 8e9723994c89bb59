"""What ``torch.compile`` is told about functions that already run kernels of their own, and what it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch._C._dynamo import eval_frame

__all__ = ["opaque_to_compile", "uncompiled"]

Function = TypeVar("Function", bound=Callable[..., Any])


def opaque_to_compile(function: Function) -> Function:
    """Mark a function that ``torch.compile`` runs as it is, between two graphs, with all it calls.

    As ``torch.compiler.disable``, but without its wrapper (a microsecond a call) and its import of the compiler.
    """
    marked: Any = function
    marked._torchdynamo_disable = True
    marked._torchdynamo_disable_msg = "flexsn runs kernels of its own"
    if hasattr(eval_frame, "set_code_exec_strategy"):
        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(marked.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function


def uncompiled(core: Any) -> Any:
    """The function or module that ``torch.compile`` was given: traced, it needs no other compiler."""
    return getattr(core, "_orig_mod", getattr(core, "_torchdynamo_orig_callable", core))
