"""scan: the functional entry. Stateless, pure, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any, Literal, TypeVar, overload

import torch
from torch import Tensor

from flexsn.captures.contract import argument_names, too_few_returned
from flexsn.execution.dispatch import ScanDispatcher, opaque_to_compile
from flexsn.execution.loop import Results
from flexsn.execution.masks import Masks
from flexsn.execution.options import ScanOptions
from flexsn.execution.traces import REMEMBERED
from flexsn.modules.in_graph import core_in_graph

__all__ = ["scan"]

Core = Callable[..., Any]
Given = tuple[Tensor, ...]
Tensors = TypeVar("Tensors", Tensor, "tuple[Tensor, ...]")
_dispatchers: dict[Any, list[ScanDispatcher]] = {}  # by kind, the newest last; each keeps its core, so ids stay taken
_options = lru_cache(REMEMBERED, typed=True)(ScanOptions)  # made and checked once, not at every call


@overload
def scan(
    core: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    states: Tensors,
    backend: str = ...,
    time_dim: int = ...,
    *,
    return_state_seqs: Literal[False] = ...,
    checkpoint: int | str = ...,
    output_dtype: torch.dtype | Sequence[torch.dtype | None] | None = ...,
    lengths: Tensor | None = ...,
    reset_mask: Tensor | None = ...,
    detach_every: int | None = ...,
    time_reduction: str | None = ...,
    rate: Literal[False] = ...,
) -> tuple[Any, Tensors]: ...


@overload
def scan(
    core: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    states: Tensors,
    backend: str = ...,
    time_dim: int = ...,
    *,
    return_state_seqs: Literal[True],
    checkpoint: int | str = ...,
    output_dtype: torch.dtype | Sequence[torch.dtype | None] | None = ...,
    lengths: Tensor | None = ...,
    reset_mask: Tensor | None = ...,
    detach_every: int | None = ...,
    time_reduction: str | None = ...,
    rate: Literal[False] = ...,
) -> tuple[Any, Tensors, Tensors]: ...


@overload
def scan(
    core: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    states: Tensors,
    backend: str = ...,
    time_dim: int = ...,
    *,
    return_state_seqs: bool = ...,
    checkpoint: int | str = ...,
    output_dtype: torch.dtype | Sequence[torch.dtype | None] | None = ...,
    lengths: Tensor | None = ...,
    reset_mask: Tensor | None = ...,
    detach_every: int | None = ...,
    time_reduction: str | None = ...,
    rate: Literal[True],
) -> tuple[Any, ...]: ...


def scan(
    core: Callable[..., Any],
    inputs: Any,
    states: Any,
    backend: str = "auto",
    time_dim: int = 0,
    *,
    return_state_seqs: bool = False,
    checkpoint: int | str = "auto",
    output_dtype: torch.dtype | Sequence[torch.dtype | None] | None = None,
    lengths: Tensor | None = None,
    reset_mask: Tensor | None = None,
    detach_every: int | None = None,
    time_reduction: str | None = None,
    rate: bool = False,
) -> Any:
    """Scan ``core`` over time: ``(*y[t], *s[t]) = core(*x[t], *s[t-1])``.

    Differentiable in inputs, initial states and the parameters the core reads, through outputs, final states
    and state sequences.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``, pointwise.
        inputs: a tensor or a tuple of them, ``[T, *step]`` (time at ``time_dim``).
        states: the initial states, a tensor or a tuple of them, broadcast to ``[*step]``; ``()`` if there are none.
        backend: ``"auto"``, ``"triton"``, ``"cpp"`` or ``"torch"``.
        time_dim: the time axis of inputs, outputs and state sequences.
        return_state_seqs: also return the states after every step.
        checkpoint: steps between stored states in training (unused by kernels that multiply); ``"auto"``: theirs.
        output_dtype: store the outputs in this dtype; see :class:`~flexsn.FlexSN`.
        lengths, reset_mask: as for :meth:`FlexSN.forward <flexsn.FlexSN.forward>`; a reset goes back to ``states``.
        detach_every, time_reduction: as for :class:`~flexsn.FlexSN`.
        rate: also return the mean of the first output over time.

    Returns:
        ``(outputs, final_states)``, then ``state_seqs`` and the rate if asked for. ``outputs`` is a tensor if the
        core has one output, else a tuple; states come back as they were given, a tensor or a tuple.

    Raises:
        CoreError: the core breaks its contract.
        UnsupportedOpError, BackendError: a backend asked for by name cannot run this core here.
        ValueError: shapes, devices or options that do not fit.

    Example:
        >>> import torch, flexsn
        >>> y, v = flexsn.scan(lambda x, v: (v + x, v + x), torch.ones(3, 2), torch.zeros(2))
        >>> y.tolist(), v.tolist()
        ([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], [3.0, 3.0])
    """
    input_tuple = (inputs,) if isinstance(inputs, Tensor) else _several("inputs", inputs)
    state_tuple = (states,) if isinstance(states, Tensor) else _several("states", states)
    wanted_states = tuple(range(len(state_tuple))) if return_state_seqs else ()
    asked_dtype = tuple(output_dtype) if isinstance(output_dtype, list) else output_dtype
    asked = backend, time_dim, checkpoint, asked_dtype, wanted_states, detach_every, time_reduction, rate
    masks = None
    if lengths is not None or reset_mask is not None:
        masks = Masks(lengths, reset_mask, state_tuple)
    outputs, finals, state_seqs = _scanned(core, input_tuple, state_tuple, asked, masks)
    rates = (outputs[-1],) if rate else ()
    outputs = outputs[: len(outputs) - rate]
    if not outputs and not return_state_seqs:
        n = len(state_tuple)
        what = f"the core returns {n} value(s), expected outputs and {n} new state(s)"
        raise too_few_returned(core, what, argument_names(core, len(input_tuple) + n)[len(input_tuple) :])
    result = (
        outputs[0] if len(outputs) == 1 else outputs,
        finals[0] if isinstance(states, Tensor) else finals,
    )
    if return_state_seqs:
        return (*result, state_seqs[0] if isinstance(states, Tensor) else state_seqs, *rates)
    return (*result, *rates)


def _several(what: str, given: Any) -> Given:
    try:
        return tuple(given)
    except TypeError:
        more = ", () for none" if what == "states" else ""
        raise ValueError(f"{what} must be a tensor or a tuple of tensors{more}; got {type(given).__name__}") from None


def _scanned(core: Core, inputs: Given, states: Given, asked: tuple[Any, ...], masks: Masks | None) -> Results:
    if torch.compiler.is_compiling():
        in_graph = core_in_graph(core, _dispatcher_of, inputs, states, asked, masks)
        if in_graph is not None:
            return in_graph
    return _dispatched(core, inputs, states, asked, masks)


@opaque_to_compile
def _dispatched(core: Core, inputs: Given, states: Given, asked: tuple[Any, ...], masks: Masks | None) -> Results:
    return _dispatcher_of(core, len(states))(inputs, states, _options(*asked), masks)


def _dispatcher_of(core: Callable[..., Any], num_states: int) -> ScanDispatcher:
    """One dispatcher per core; the same lambda written down again, as in a training loop, is the same core."""
    kind = (*_kind(core), num_states)
    known = _dispatchers.pop(kind, [])
    if known and known[-1].core is core:
        _dispatchers[kind] = known
        return known[-1]
    found = next((d for d in reversed(known) if d.core is core or _held(d.core) == _held(core)), None)
    if found is None:
        found = ScanDispatcher(core, num_states, known[-1] if known else None)
        # the core of a batch that is over would keep its graph
        _dispatchers[kind] = [*(d for d in known if not d.keeps_a_graph()), found]
        _make_room()
        return found
    if found is not known[-1]:
        known = [*(d for d in known if d is not found), found]
    _dispatchers[kind] = known
    return found


def _make_room() -> None:
    """Forget the oldest of the kind that has the most."""
    while sum(map(len, _dispatchers.values())) > REMEMBERED:
        fullest = max(_dispatchers, key=lambda kind: len(_dispatchers[kind]))
        _dispatchers[fullest] = _dispatchers[fullest][1:]
        if not _dispatchers[fullest]:
            del _dispatchers[fullest]


def _kind(core: Any) -> tuple[Any, ...]:
    """What cores have in common that run the same code, whatever they hold."""
    if isinstance(core, MethodType):
        return ("method", id(core.__func__))
    if isinstance(core, FunctionType):
        return ("function", core.__code__, id(core.__globals__))
    return ("object", id(core))


def _held(core: Any) -> tuple[int, ...]:
    """What a core of its kind holds, to the very object."""
    if isinstance(core, MethodType):
        return (id(core.__self__),)
    return tuple(map(id, _contents(core))) if isinstance(core, FunctionType) else ()


def _contents(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            yield cell
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
