"""Scanner: scans one core over time on whichever backend fits, tracing and compiling once per kind of call."""

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

from flexsn.autograd import run_compiled
from flexsn.backends import check_backend, choose, runtime
from flexsn.compiled import Compiled, output_dtype
from flexsn.environment import Environment, Slot
from flexsn.errors import BackendError, FallbackWarning, UnsupportedOpError
from flexsn.loop import run_loop
from flexsn.trace import Tracer

__all__ = ["Scanner", "compute_dtype"]

_HALF = (torch.float16, torch.bfloat16)
Result = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype states and arithmetic have for inputs of ``dtype``: fp32 for 16-bit floats."""
    return torch.float32 if dtype in _HALF else dtype


class Scanner:
    """Scans one core.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        num_states: how many of its arguments are states.
    """

    def __init__(self, core: Callable[..., Any], num_states: int) -> None:
        self.core = core
        self.num_states = num_states
        self._environment = Environment(core)
        self._traced: dict[Any, _Traced] = {}
        self._ready: dict[Any, _Ready | None] = {}  # None: the loop
        self._warned = False

    def __call__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        *,
        backend: str = "auto",
        time_dim: int = 0,
        want_state_seqs: bool = False,
        checkpoint: int | str = "auto",
    ) -> Result:
        """Scan; returns ``(outputs, final_states, state_seqs)``."""
        if not self._environment.unchanged():
            self._environment = Environment(self.core)
            self._ready.clear()
        if backend == "auto":
            backend = check_backend(os.environ.get("FLEXSN_BACKEND", backend))
        options = (backend, time_dim, want_state_seqs, checkpoint)
        read = [slot.read() for slot in self._environment.tensors]
        kinds = [(t.shape, t.stride(), t.dtype, t.requires_grad, t.device) for t in (*inputs, *states, *read)]
        key = (options, torch.is_grad_enabled(), tuple(kinds))
        ready = self._ready.get(key)
        if key not in self._ready or _transformed():
            given = (*inputs, *states)
            inputs, states = _prepare(inputs, states, time_dim)
            ready = self._make_ready(inputs, states, options)
            if not _transformed() and all(a is b for a, b in zip(given, (*inputs, *states), strict=True)):
                self._ready[key] = ready
        if ready is None:
            return self._loop(inputs, states, time_dim, want_state_seqs)
        results = run_compiled(ready.compiled, inputs, states, ready.traced.captured(), ready.training)
        split = len(results) - self.num_states
        outputs, finals = results[:split], results[split:]
        if not want_state_seqs:
            return outputs, finals, ()
        split = len(outputs) - self.num_states
        return outputs[:split], finals, outputs[split:]

    # ---- compiled -------------------------------------------------------------------------------------------

    def _make_ready(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], options: tuple[str, int, bool, int | str]
    ) -> _Ready | None:
        """Trace and compile for such a call; ``None`` where only the loop will do.

        Raises:
            UnsupportedOpError, BackendError: the backend was asked for by name and cannot.
        """
        backend, time_dim, _, _ = options
        chosen, problem = choose(backend, inputs[0].device)
        if problem is not None:
            self._warn(problem)
        if chosen == "torch" or inputs[0].shape[time_dim] == 0 or _transformed():
            return None
        try:
            return self._build(chosen, inputs, states, options)
        except (UnsupportedOpError, BackendError) as error:
            if backend != "auto":
                raise
            self._warn(error)
            return None

    def _build(
        self, chosen: str, inputs: Sequence[Tensor], states: Sequence[Tensor], options: tuple[str, int, bool, int | str]
    ) -> _Ready:
        _, time_dim, want_state_seqs, checkpoint = options
        traced = self._trace(inputs, states, want_state_seqs)
        captured = traced.captured()
        step = _step_shape(inputs[0], time_dim)
        if np.broadcast_shapes(step, traced.tracer.param_shape) != tuple(step):
            raise UnsupportedOpError(
                f"parameters of shape {tuple(traced.tracer.param_shape)} enlarge the step {tuple(step)}",
                why="a step has the shape of inputs and states",
                hint="expand the input to the full shape",
            )
        training = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *states, *captured))
        kinds = tuple((t.shape, t.stride(), t.dtype) for t in (*inputs, *states, *captured))
        key = (chosen, time_dim, checkpoint, training, kinds)
        if key not in traced.compiled:
            compiled = Compiled(traced.tracer, runtime(chosen), inputs, states, time_dim, checkpoint, training)
            traced.compiled[key] = compiled.prepare(inputs, states, captured)
        return _Ready(traced, traced.compiled[key], training)

    def _trace(self, inputs: Sequence[Tensor], states: Sequence[Tensor], want_state_seqs: bool) -> _Traced:
        device = inputs[0].device
        dtypes = tuple(compute_dtype(x.dtype) for x in inputs), tuple(s.dtype for s in states)
        read = [slot.read() for slot in self._environment.tensors]
        # which names share a tensor decides what the graph reads, so it is part of the key
        first = {id(t): i for i, t in reversed(list(enumerate(read)))}
        tensors = tuple((t.dtype, t.shape, t.requires_grad, first[id(t)]) for t in read)
        key = (self._environment.key, dtypes, tensors, device, want_state_seqs)
        traced = self._traced.get(key)
        if traced is None:
            core = _returning_states(self.core, self.num_states) if want_state_seqs else self.core
            traced = self._traced[key] = _Traced(Tracer(core, *dtypes, device), self._environment)
        return traced

    # ---- the loop -------------------------------------------------------------------------------------------

    def _loop(self, inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int, want_state_seqs: bool) -> Result:
        dtypes = [x.dtype for x in inputs]
        seqs = [x.movedim(time_dim, 0).to(compute_dtype(x.dtype)) for x in inputs]
        with torch.autocast(inputs[0].device.type, enabled=False):
            outputs, finals, state_seqs = run_loop(self.core, seqs, states, want_state_seqs)
        outputs = tuple(y.to(output_dtype(y.dtype, dtypes)).movedim(0, time_dim) for y in outputs)
        return outputs, finals, tuple(s.movedim(0, time_dim) for s in state_seqs)

    def _warn(self, problem: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"running the torch loop instead of a fused kernel:\n{problem}", FallbackWarning, stacklevel=4
            )


class _Traced:
    """A tracer, where its captured tensors are read from, and what was compiled from it."""

    def __init__(self, tracer: Tracer, environment: Environment) -> None:
        self.tracer = tracer
        self._environment = environment  # keeps alive what its key names by identity
        self.compiled: dict[Any, Compiled] = {}
        places: dict[int, Slot] = {}
        for slot in environment.tensors:
            places.setdefault(id(slot.read()), slot)
        self._places: list[Slot | Tensor] = [places.get(id(t), t) for t in tracer.captured]

    def captured(self) -> list[Tensor]:
        """The captured tensors as they are now."""
        return [p.read() if isinstance(p, Slot) else p for p in self._places]


@dataclass(frozen=True)
class _Ready:
    """What a call needs when one just like it came before."""

    traced: _Traced
    compiled: Compiled
    training: bool


def _step_shape(x: Tensor, time_dim: int) -> torch.Size:
    return torch.Size((*x.shape[:time_dim], *x.shape[time_dim + 1 :]))


def _prepare(
    inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Check that everything fits together; broadcast to the step shape, bring 16-bit states to fp32.

    Raises:
        ValueError: T, devices or shapes do not fit.
    """
    for i, x in enumerate(inputs):
        if not -x.dim() <= time_dim < x.dim():
            raise ValueError(f"input {i} of shape {tuple(x.shape)} has no time axis {time_dim}")
    steps = {x.shape[time_dim] for x in inputs}
    devices = {t.device for t in (*inputs, *states)}
    if len(steps) > 1:
        raise ValueError(
            f"inputs differ in their number of steps T: shapes {[tuple(x.shape) for x in inputs]}, time axis {time_dim}"
        )
    if len(devices) > 1:
        raise ValueError(f"inputs and states are on different devices: {sorted(map(str, devices))}")
    first = _step_shape(inputs[0], time_dim)
    if all(_step_shape(x, time_dim) == first for x in inputs[1:]) and all(s.shape == first for s in states):
        step = first
    else:
        shapes = [_step_shape(x, time_dim) for x in inputs] + [s.shape for s in states]
        try:
            step = torch.Size(np.broadcast_shapes(*shapes))
        except ValueError:
            raise ValueError(
                f"step shapes do not broadcast: inputs {[tuple(s) for s in shapes[: len(inputs)]]}, "
                f"states {[tuple(s) for s in shapes[len(inputs) :]]}"
            ) from None
        num_steps = inputs[0].shape[time_dim]
        inputs = [
            x.movedim(time_dim, 0)
            .reshape(num_steps, *(1,) * (len(step) + 1 - x.dim()), *_step_shape(x, time_dim))
            .expand(num_steps, *step)
            .movedim(0, time_dim)
            for x in inputs
        ]
        states = [s.expand(step) for s in states]
    return tuple(inputs), tuple(s if s.dtype not in _HALF else s.float() for s in states)


def _transformed() -> bool:
    """Inside vmap, jvp or another function transform, which only the loop follows."""
    return bool(torch._C._are_functorch_transforms_active()) or forward_ad._current_level >= 0


def _returning_states(core: Callable[..., Any], num_states: int) -> Callable[..., Any]:
    """A core whose new states are outputs too."""

    def with_states(*args: Tensor) -> tuple[Any, ...]:
        returned = core(*args)
        values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        split = len(values) - num_states
        return (*values[:split], *values[split:], *values[split:])

    return with_states
