"""Traces: one core traced for every kind of call, together with where its tensors are read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.captures.guards import Captures
from flexsn.captures.snapshot import Snapshot, SnapshotCore, tensors_kept
from flexsn.captures.source import Source
from flexsn.errors import FlexSNError, UnsupportedOpError, defined_at, failing_line, ours_failed
from flexsn.execution.forward import BoundScan
from flexsn.execution.gradient_path import failing_op
from flexsn.execution.memo import once
from flexsn.tracing.tracer import Tracer

__all__ = ["TraceEntry", "Traces", "check_devices"]

Dtypes = tuple[tuple[torch.dtype, ...], tuple[torch.dtype, ...]]


class Traces:
    """Traces one core, once per kind of call.

    Args:
        core: ``core(*inputs, *states) -> (*outputs, *new_states)``.
        num_states: how many of its arguments are states.
    """

    def __init__(self, core: Callable[..., Any], num_states: int) -> None:
        self.core = core
        self.num_states = num_states
        self._traced: dict[Any, TraceEntry | FlexSNError] = {}
        self._impure: list[UnsupportedOpError] = []

    def find(
        self, captures: Captures, dtypes: Dtypes, device: torch.device, wanted_states: tuple[int, ...] = ()
    ) -> TraceEntry:
        """The trace for these dtypes of inputs and states, ``wanted_states`` being outputs too.

        Raises:
            UnsupportedOpError: the core cannot be traced, or changes what it reads.
        """
        if len(self._impure) > 1:  # once may have been a value it computes at first use
            raise self._impure[-1].with_traceback(None)
        read = [source.read() for source in captures.tensors]
        # which names share a tensor decides what the graph reads, so it is part of the key
        first = {id(t): i for i, t in reversed(list(enumerate(read)))}
        tensors = tuple((t.dtype, t.shape, t.requires_grad, first[id(t)]) for t in read)
        key = (captures.key, dtypes, tensors, device, wanted_states)
        core = _returning_states(self.core, self.num_states, wanted_states) if wanted_states else self.core
        traced: TraceEntry = once(
            self._traced, key, lambda: TraceEntry(self._record(core, captures, dtypes, device), captures)
        )
        return traced

    def _record(self, core: Callable[..., Any], captures: Captures, dtypes: Dtypes, device: torch.device) -> Tracer:
        """Trace; whatever the core does to what it reads is undone, and is an error."""
        before = Snapshot(captures)
        changed: list[str] = []

        def trace() -> Tracer:
            with tensors_kept(captures):
                return Tracer(SnapshotCore(core, captures), *dtypes, device)

        try:
            tracer = trace()
        except FlexSNError:
            raise
        except Exception as error:
            if ours_failed(error):
                raise
            sources = captures.tensors
            check_devices([source.name for source in sources], [source.read() for source in sources], device)
            what = failing_op(trace) or "the core"
            raise UnsupportedOpError(
                f"{what} cannot be traced: {type(error).__name__}: {error}",
                where=failing_line(error) or defined_at(self.core),
                why="it is traced on example tensors of another shape than the call's",
                hint="write it for any step shape, one lane independent of the others",
            ) from error
        finally:
            changed = [name for name, _ in before.put_back()]
        if changed:
            impure = UnsupportedOpError(
                f"the core changes {', '.join(changed)} while it runs",
                where=defined_at(self.core),
                why="a kernel is made from one run of the core: what a step does to Python objects would happen once",
                hint="make it a state: an argument that the core returns anew",
            )
            self._impure.append(impure)
            raise impure
        return tracer


class TraceEntry:
    """A tracer, where its captured tensors are read from, and what was compiled from it."""

    def __init__(self, tracer: Tracer, captures: Captures) -> None:
        self.tracer = tracer
        self._captures = captures  # keeps alive what its key names by identity
        self.compiled: dict[Any, BoundScan | FlexSNError] = {}
        places: dict[int, Source] = {}
        for source in captures.tensors:
            places.setdefault(id(source.read()), source)
        self._places: list[Source | Tensor] = [places.get(id(t), t) for t in tracer.captured]
        self.names = [p.name if isinstance(p, Source) else "a tensor" for p in self._places]

    def captured(self) -> list[Tensor]:
        """The captured tensors as they are now."""
        return [p.read() if isinstance(p, Source) else p for p in self._places]


def check_devices(names: Sequence[str], tensors: Sequence[Tensor], device: torch.device) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.device != device and (tensor.dim() or tensor.device.type != "cpu"):
            raise ValueError(f"inputs are on {device}, but {name}, which the core reads, is on {tensor.device}")


def _returning_states(core: Callable[..., Any], num_states: int, wanted: tuple[int, ...]) -> Callable[..., Any]:
    """A core some of whose new states are outputs too."""

    def with_states(*args: Tensor) -> tuple[Any, ...]:
        returned = core(*args)
        values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        split = len(values) - num_states
        return (*values[:split], *(values[split + j] for j in wanted), *values[split:])

    return with_states
