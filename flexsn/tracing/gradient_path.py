"""What is to blame where a gradient finds no way back: an operation of the core, or a graph that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flexsn.errors import GradientError, SourceLine, calling_line

__all__ = ["failing_op", "guard_gradient_path", "guard_graph", "no_gradient_path", "saved_tensors"]


def no_gradient_path(core: Callable[..., Any], arguments: Sequence[Tensor]) -> GradientError:
    """The error for gradients that reach none of the arguments, found by running the core once on them."""
    watch = _Watch()
    floating = [a.detach().requires_grad_(a.is_floating_point()) for a in arguments]
    with torch.inference_mode(False), torch.enable_grad(), watch:
        core(*floating)
    name, line = next((found for found in watch.found if found[0] != "detach"), (watch.found or [("", None)])[0])
    return GradientError(
        f"no gradient flows back through the core: {name or 'what it returns'} has no derivative",
        where=line,
        why="what it returns does not depend on the inputs in a way autograd can follow",
        hint="fire with a surrogate, e.g. spike = flexsn.surrogate.ATan(); s = spike(h - v_threshold)",
    )


def failing_op(run: Callable[[], object]) -> str:
    """The torch function, as the user wrote it, in which a run fails; empty if it fails elsewhere."""
    watch = _LastFailure()
    try:
        with watch:
            run()
    except Exception:
        return watch.name
    return ""


class _LastFailure(TorchFunctionMode):
    name = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception:
            self.name = getattr(func, "__name__", str(func)).strip("_")
            raise


class _Watch(TorchFunctionMode):
    """Notes every operation that takes a tensor with a gradient and returns one without."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, SourceLine | None]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not out.requires_grad and torch.is_grad_enabled():
            given = [*args, *(kwargs or {}).values()]
            if any(isinstance(a, Tensor) and a.requires_grad for a in given):
                name = getattr(func, "__name__", str(func)).strip("_")
                self.found.append(("detach" if name == "get" else name, calling_line()))  # .data reads a property
        return out


def guard_gradient_path(
    core: Callable[..., Any],
    arguments: Sequence[Tensor],
    parameters: Sequence[Tensor],
    results: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Results of the loop such that a backward pass that reaches nothing says which operation is to blame.

    Args:
        core: the one-step function.
        arguments: of the first step.
        parameters: what the core may read besides.
        results: outputs and states.
    """
    floating = [i for i, r in enumerate(results) if r.is_floating_point()]
    anchor = next((t for t in (*arguments, *parameters) if t.requires_grad), None)
    if anchor is None or all(results[i].requires_grad for i in floating):
        return tuple(results)
    guarded = list(results)
    passed = _Guard.apply(core, arguments, anchor, *(results[i] for i in floating))  # type: ignore[no-untyped-call]
    for i, result in zip(floating, passed, strict=True):
        guarded[i] = result
    return tuple(guarded)


class _Guard(torch.autograd.Function):
    """Hands everything through; complains if gradients come in and none has a path on."""

    @staticmethod
    def forward(ctx: Any, core: Any, arguments: Any, anchor: Tensor, *results: Tensor) -> tuple[Tensor, ...]:
        ctx.core, ctx.arguments = core, [a.detach() for a in arguments]
        ctx.set_materialize_grads(False)
        return tuple(r.view_as(r) for r in results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        paths = ctx.needs_input_grad[3:]
        passed = [g if path else None for g, path in zip(grads, paths, strict=True)]
        if any(g is not None for g in grads) and all(g is None for g in passed):
            raise no_gradient_path(ctx.core, ctx.arguments)
        return (None, None, None, *passed)


def guard_graph(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Results of the loop such that a second backward pass through them says that a ``reset()`` may be missing."""
    places = [i for i, r in enumerate(results) if r.requires_grad]
    guarded = list(results)
    if places:
        passed = _Once.apply(*(results[i] for i in places))  # type: ignore[no-untyped-call]
        for i, result in zip(places, passed, strict=True):
            guarded[i] = result
    return tuple(guarded)


class _Once(torch.autograd.Function):
    """Hands everything through, as long as the graph is there; copies, since views could not be changed in place."""

    @staticmethod
    def forward(ctx: Any, *results: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(r.clone() for r in results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved_tensors(ctx)
        return grads


def saved_tensors(ctx: Any) -> tuple[Tensor, ...]:
    """What a scan saved for its backward pass; raises ``GradientError`` where that is gone."""
    try:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
    except RuntimeError as error:
        if "second time" not in str(error) and "inplace operation" not in str(error):
            raise
        raise GradientError(
            f"backward through a scan whose graph is gone: {str(error).partition('. ')[0]}",
            why="a call goes on from the states of the call before, and its gradient through that call as well",
            hint="call reset() before an independent batch, or detach() to keep the states and cut the graph",
        ) from error
    return saved
