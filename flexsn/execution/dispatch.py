"""ScanDispatcher: scans one core over time on whichever backend fits, tracing and compiling once per kind of call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from flexsn.captures.guards import Captures
from flexsn.errors import (
    BackendError,
    CoreError,
    FallbackWarning,
    FlexSNError,
    UnsupportedOpError,
    stack_level,
)
from flexsn.execution.arguments import compute_dtype, fit, step_shape
from flexsn.execution.autograd import run_compiled
from flexsn.execution.backends import check_backend, choose
from flexsn.execution.call import CallSpec
from flexsn.execution.forward import BoundScan
from flexsn.execution.gradient_path import explain_blocked
from flexsn.execution.loop import run_loop
from flexsn.execution.memo import REMEMBERED, forget, once
from flexsn.execution.output_dtype import AskedDtype, is_plain_tensor, output_kinds
from flexsn.execution.spike_tensor import SpikeTensor
from flexsn.execution.traces import TraceEntry, Traces, check_devices
from flexsn.kernels.backend import Backend

__all__ = ["ScanDispatcher"]

Options = tuple[str, int, tuple[int, ...], int | str, AskedDtype]
"""Backend, time_dim, wanted_states, checkpoint, output_dtype."""
Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]


class ScanDispatcher:
    """Scans one core.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        num_states: how many of its arguments are states.
    """

    def __init__(self, core: Callable[..., Any], num_states: int) -> None:
        self.core = core
        self.num_states = num_states
        self._captures = Captures(core)
        self.traces = Traces(core, num_states)
        self._entries: dict[Any, CallEntry | None] = {}  # None: the loop
        self._warned = False

    def captures(self) -> Captures:
        """What the core reads, as it is now."""
        if not self._captures.unchanged():
            self._captures = Captures(self.core)
            self._entries.clear()
        return self._captures

    def __call__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        *,
        backend: str = "auto",
        time_dim: int = 0,
        wanted_states: tuple[int, ...] = (),
        checkpoint: int | str = "auto",
        output_dtype: AskedDtype = None,
    ) -> Result:
        """Scan; returns ``(outputs, final_states, state_seqs)``, the sequences of the ``wanted_states`` alone."""
        captures = self.captures()
        if backend == "auto":
            backend = check_backend(os.environ.get("FLEXSN_BACKEND", backend))
        if SpikeTensor in map(type, inputs):
            inputs = [x.dense() if isinstance(x, SpikeTensor) else x for x in inputs]
        options = (backend, time_dim, wanted_states, checkpoint, output_dtype)
        read = [source.read() for source in captures.tensors]
        try:
            everything = (*inputs, *states, *read)
            kinds = [(t.shape, t.stride(), t.dtype, t.requires_grad, t.device, type(t)) for t in everything]
        except AttributeError:  # something is no tensor
            fit(inputs, states, time_dim)
            raise
        key = (options, torch.is_grad_enabled(), tuple(kinds))
        ready = self._entries.get(key)
        if key not in self._entries or _transformed():
            given = (*inputs, *states)
            inputs, states, axis = fit(inputs, states, time_dim)
            ready = self._make_ready(inputs, states, (backend, axis, *options[2:]))
            if not _transformed() and all(a is b for a, b in zip(given, (*inputs, *states), strict=True)):
                self._entries[key] = ready
                forget(self._entries, 16 * REMEMBERED)
        if ready is None:
            return self._loop(inputs, states, time_dim % inputs[0].dim(), wanted_states, output_dtype)
        results = run_compiled(ready.compiled, inputs, states, ready.traced.captured(), ready.training)
        split = len(results) - self.num_states
        outputs, finals = results[:split], results[split:]
        split = len(outputs) - len(wanted_states)
        return outputs[:split], finals, outputs[split:]

    # ---- compiled -------------------------------------------------------------------------------------------

    def _make_ready(self, inputs: Sequence[Tensor], states: Sequence[Tensor], options: Options) -> CallEntry | None:
        """Trace and compile for such a call; ``None`` where only the loop will do.

        Raises:
            UnsupportedOpError, BackendError: the backend was asked for by name and cannot.
            CoreError: the core breaks its contract.
        """
        backend, time_dim, wanted_states, _, asked_dtype = options
        chosen, problem = choose(backend, inputs[0].device)
        if problem is not None:
            self._warn(problem)
        if chosen is None or inputs[0].shape[time_dim] == 0 or _transformed():
            return None
        if not all(map(is_plain_tensor, (*inputs, *states))):
            return None
        try:
            return self._build(chosen, inputs, states, options)
        except (UnsupportedOpError, BackendError) as error:
            if backend != "auto":
                raise
            self._warn(error)
            return None
        except CoreError:
            self._loop(inputs, states, time_dim, wanted_states, asked_dtype)  # complains about the call's own shapes
            raise

    def _build(
        self,
        chosen: Backend,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        options: Options,
    ) -> CallEntry:
        _, time_dim, wanted_states, checkpoint, asked_dtype = options
        dtypes = tuple(compute_dtype(x.dtype) for x in inputs), tuple(s.dtype for s in states)
        traced = self.traces.find(self._captures, dtypes, inputs[0].device, wanted_states)
        captured = traced.captured()
        check_devices(traced.names, captured, inputs[0].device)
        step = step_shape(inputs[0], time_dim)
        if np.broadcast_shapes(step, traced.tracer.param_shape) != tuple(step):
            raise UnsupportedOpError(
                f"parameters of shape {tuple(traced.tracer.param_shape)} enlarge the step {tuple(step)}",
                why="a step has the shape of inputs and states",
                hint="expand the input to the full shape",
            )
        training = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *states, *captured))
        kinds = tuple((t.shape, t.stride(), t.dtype) for t in (*inputs, *states, *captured))
        key = (chosen.name, time_dim, checkpoint, training, asked_dtype, kinds)

        def build() -> BoundScan:
            spec = CallSpec.of(
                traced.tracer, chosen, inputs, time_dim, checkpoint, training, len(wanted_states), asked_dtype
            )
            return BoundScan(spec).prepare(inputs, states, captured)

        return CallEntry(traced, once(traced.compiled, key, build), training)

    # ---- the loop -------------------------------------------------------------------------------------------

    def _loop(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        time_dim: int,
        wanted_states: tuple[int, ...],
        asked_dtype: AskedDtype,
    ) -> Result:
        seqs = [x.movedim(time_dim, 0).to(compute_dtype(x.dtype)) for x in inputs]
        with torch.autocast(inputs[0].device.type, enabled=False):
            outputs, finals, state_seqs = run_loop(self.core, seqs, states, wanted_states)
            if torch.is_grad_enabled() and len(seqs[0]) and not _transformed():
                first_step = [*(x[0] for x in seqs), *states]
                parameters = [source.read() for source in self._captures.tensors]
                results = (*outputs, *finals, *state_seqs)
                passed = explain_blocked(self.core, first_step, parameters, results)
                first, last = len(outputs), len(outputs) + len(finals)
                outputs, finals, state_seqs = passed[:first], passed[first:last], passed[last:]
        kinds = output_kinds([y.dtype for y in outputs], [x.dtype for x in inputs], asked_dtype)
        moved = zip((y.movedim(0, time_dim) for y in outputs), kinds, strict=True)
        outputs = tuple(y.to(kind.shown) if _transformed() else kind.keep(y) for y, kind in moved)
        return outputs, finals, tuple(s.movedim(0, time_dim) for s in state_seqs)

    def _warn(self, problem: FlexSNError) -> None:
        if not self._warned:
            self._warned = True
            text = f"running the torch loop instead of a fused kernel:\n{problem}"
            warnings.warn(text, FallbackWarning, stacklevel=stack_level())


@dataclass(frozen=True)
class CallEntry:
    """What a call needs when one just like it came before."""

    traced: TraceEntry
    compiled: BoundScan
    training: bool


def _transformed() -> bool:
    """Inside vmap, jvp, an export, another trace or the like, which only the loop follows."""
    return bool(
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack()
    )
