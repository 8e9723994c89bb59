"""Traces: what one core was traced to, with where its tensors are read from; and how such things are remembered."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from flexsn.captures.guards import Captures
from flexsn.captures.snapshot import Snapshot, SnapshotCore, tensors_kept
from flexsn.errors import (
    BackendError,
    FlexSNError,
    UnsupportedOpError,
    defined_at,
    failing_line,
    ours_failed,
)
from flexsn.execution.forward import BoundScan
from flexsn.tracing.gradient_path import failing_op

if TYPE_CHECKING:
    from flexsn.execution.alternating.forward import AlternatingScan
    from flexsn.tracing.families import Family, Reading
    from flexsn.tracing.tracer import Tracer

__all__ = ["REMEMBERED", "TraceEntry", "Traces", "check_devices", "once", "remember"]

REMEMBERED = 64
"""How many are remembered."""
_ASKS_OF_THE_CALL = {"is_grad_enabled", "is_inference_mode_enabled", "needs_input_grad", "set_materialize_grads"}
Made = TypeVar("Made")
Dtypes = tuple[tuple[torch.dtype, ...], tuple[torch.dtype, ...]]


class Traces:
    """Traces one core, once for all calls that agree in dtypes, device, wanted states and what the core reads.

    Functions of the same code are one core here.

    Args:
        num_states: how many of the core's arguments are states.
        on_gpu: whether the step is for a GPU; that of the call's tensors if not given.
    """

    def __init__(self, num_states: int, on_gpu: bool | None = None) -> None:
        self.num_states = num_states
        self._on_gpu = on_gpu
        self._entries: dict[Any, TraceEntry | FlexSNError] = {}
        self._families: dict[Any, Family[TraceEntry] | FlexSNError] = {}
        self._asking: set[Any] = set()  # keys of traces whose core asks for the shape of the step
        self._impure: list[UnsupportedOpError] = []

    def find(
        self,
        captures: Captures,
        dtypes: Dtypes,
        device: torch.device,
        wanted_states: tuple[int, ...],
        step_shape: tuple[int, ...] | None,
        training: bool,
    ) -> TraceEntry:
        """The trace for these dtypes of inputs and states, ``wanted_states`` being outputs too.

        It holds for steps of any shape, unless the core asks for that: then for ``step_shape``. For ``training`` the
        backward half is traced too, since only then it is known what that reads.

        Raises:
            UnsupportedOpError: the core cannot be traced, or changes what it reads, or asks for a shape not given.
        """
        if captures.consumed is not None:
            raise UnsupportedOpError(
                f"the core can reach {captures.consumed}, which changes when it is looked at",
                where=defined_at(captures.core),
                why="a kernel is made by running the core on examples, and that would advance it",
                hint="take from it outside, and pass what it gives as one more input",
            )
        if len(self._impure) > 1:  # once may have been a value it computes at first use
            raise self._impure[-1].with_traceback(None)
        read = [source.read() for source in captures.tensors]
        # which names share a tensor decides what the graph reads, so it is part of the key
        first = {id(t): i for i, t in reversed(list(enumerate(read)))}
        tensors = tuple((t.dtype, t.shape, t.requires_grad, first[id(t)]) for t in read)
        default = torch.get_default_dtype()  # of what the core makes of numbers alone
        kind = (captures.code, dtypes, default, tensors, device, wanted_states)
        core = captures.core
        if wanted_states:
            core = _returning_states(core, self.num_states, wanted_states)
        record = partial(self._record, core, captures, dtypes, device)
        from flexsn.tracing.questions import AsksShape

        if kind not in self._asking:
            try:
                return self._entry(captures, core, kind, training, partial(record, None))
            except AsksShape:
                self._asking.add(kind)
        if step_shape is None:
            raise UnsupportedOpError("the core asks for the shape of its step", where=defined_at(core))
        shape = torch.Size(step_shape)
        return self._entry(captures, core, (kind, shape), training, partial(record, shape))

    def _entry(
        self,
        captures: Captures,
        core: Callable[..., Any],
        kind: Any,
        training: bool,
        record: Callable[..., Tracer],
    ) -> TraceEntry:
        """The trace of what the core reads now: one that is there, or one of another value that serves, or a new one.

        Args:
            kind: what it is for, but for constants.
            record: makes a trace; of the numbers it is given, arguments.
        """
        from flexsn.tracing.families import Family

        key = (captures.key, kind)
        if captures.unwatched is not None and not self._still_holds(self._entries.get(key)):
            del self._entries[key]
        if not _ASKS_OF_THE_CALL.isdisjoint(captures.mentions):  # one run does not tell what another kind of call does
            return once(self._entries, key, lambda: TraceEntry(record(), captures)).ready(training)
        family = once(self._families, (kind, training), lambda: Family[TraceEntry](training))
        if key not in self._entries:
            served = self._served(family, captures, core)
            if served is not None:
                return served
        made = once(self._entries, key, lambda: TraceEntry(record(), captures)).ready(training)
        numbers = family.enter(made.tracer, made)
        if numbers:
            try:
                made = TraceEntry(record(numbers), captures).ready(training)
            except UnsupportedOpError:  # one of them can only be a constant
                return made
            self._entries[key] = made
            family.enter(made.tracer, made)
        return made

    @staticmethod
    def _served(family: Family[TraceEntry], captures: Captures, core: Callable[..., Any]) -> TraceEntry | None:
        before, found = Snapshot(captures, others=True), None
        try:
            with tensors_kept(captures), _random_numbers_kept():
                found = family.serving(SnapshotCore(core, captures))
        except Exception:  # a trace made anew says what is wrong
            return None
        finally:
            pure = not before.put_back()
        return TraceEntry(found[0].tracer, captures, found) if found is not None and pure else None

    @staticmethod
    def _still_holds(found: TraceEntry | FlexSNError | None) -> bool:
        return found is None or (isinstance(found, TraceEntry) and found.still_holds())

    def _record(
        self,
        core: Callable[..., Any],
        captures: Captures,
        dtypes: Dtypes,
        device: torch.device,
        step_shape: torch.Size | None,
        numbers: Sequence[float] = (),
    ) -> Tracer:
        """Trace; whatever the core does to what it reads is undone, and is an error."""
        from flexsn.tracing.questions import AsksShape
        from flexsn.tracing.tracer import Tracer  # a fifth of what import flexsn would take

        before = Snapshot(captures, others=True)
        changed: list[str] = []

        def trace() -> Tracer:
            with tensors_kept(captures), _random_numbers_kept():
                snapshot, mentions = SnapshotCore(core, captures), captures.mentions
                return Tracer(snapshot, *dtypes, device, self._on_gpu, step_shape, mentions, numbers)

        try:
            tracer = trace()
        except (FlexSNError, AsksShape):
            raise
        except Exception as error:
            if ours_failed(error):
                raise
            sources = captures.tensors
            check_devices([source.name for source in sources], [source.read() for source in sources], device)
            what = failing_op(trace) or "the core"
            raise UnsupportedOpError(
                f"{what} cannot be traced: {type(error).__name__}: {error}",
                where=failing_line(error) or defined_at(captures.core),
                why="it is traced on example tensors of another shape than the call's",
                hint="write it for any step shape, one lane independent of the others",
            ) from error
        finally:
            changed = [name for name, _ in before.put_back()]
        if changed:
            impure = UnsupportedOpError(
                f"the core changes {', '.join(changed)} while it runs",
                where=defined_at(captures.core),
                why="a kernel is made from one run of the core: what a step does to Python objects would happen once",
                hint="make it a state: an argument that the core returns anew",
            )
            self._impure.append(impure)
            raise impure
        return tracer


class TraceEntry:
    """A tracer, where its captured tensors are read from, and the kernels bound to calls of it.

    Args:
        tracer: the tracer.
        captures: what its core reads, or another core that it serves.
        like: for another core, the entry of the tracer's own, and what the other was seen to do.
    """

    def __init__(self, tracer: Tracer, captures: Captures, like: tuple[TraceEntry, Reading] | None = None) -> None:
        self.tracer = tracer
        self._captures = captures  # keeps alive what its key names by identity
        self._reading = None if like is None else like[1]
        self._seen = tracer.captured if like is None else like[1].captured
        self.bound: dict[Any, BoundScan | AlternatingScan | FlexSNError] = {} if like is None else like[0].bound
        self._places: dict[int, int] = {}  # in the captures' tensors, by identity
        for place, source in enumerate(captures.tensors):
            self._places.setdefault(id(source.read()), place)
        self._captured: list[int | Tensor] = []  # places of the tracer's captured tensors; one in no source itself

    def ready(self, training: bool) -> TraceEntry:
        """The same, with the backward half traced if it will be wanted."""
        if training:
            self.tracer.trace_backward()
        return self

    def still_holds(self) -> bool:
        """Whether the core still does what was traced, found by running it on examples once more.

        What the captures watch is put back to what it was; all else is seen as it is.
        """
        before = Snapshot(self._captures, others=True)
        try:
            with tensors_kept(self._captures), _random_numbers_kept():
                mine = self.tracer.run(True) if self._reading is None else self._reading.run
                again = self.tracer.run_again(self._core, mine.tape.num_forward is not None)
                return again.same_as(mine)
        except Exception:  # a trace made anew says what is wrong
            return False
        finally:
            before.put_back()

    def core_reading(self, captured: Sequence[Tensor]) -> Callable[..., Any]:
        """The core, with other tensors in the places of those it captured."""
        return self._core.reading(self._seen, captured)

    def captured(self, read: Sequence[Tensor]) -> list[Tensor]:
        """The captured tensors as they are now, where captures of the same key read these."""
        if len(self._captured) < len(self._seen):  # the backward half reads more
            self._captured = [self._places.get(id(t), t) for t in self._seen]
        return [read[c] if isinstance(c, int) else c for c in self._captured]

    @property
    def _core(self) -> SnapshotCore:
        core = self.tracer.core if self._reading is None else self._reading.core
        assert isinstance(core, SnapshotCore)
        return core

    def names(self, captures: Captures) -> list[str]:
        """What the captured tensors are called."""
        return [captures.tensors[c].name if isinstance(c, int) else "a tensor" for c in self._captured]


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """What the core draws while it runs on examples, it draws again when it runs."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def once(made: dict[Any, Made | FlexSNError], key: Any, make: Callable[[], Made]) -> Made:
    """``make()`` once per key; a failure is remembered too, and raised again."""
    found = made.pop(key, None)
    if found is None:
        try:
            found = make()
        except (UnsupportedOpError, BackendError) as error:
            found = error
    remember(made, key, found, REMEMBERED)
    if isinstance(found, FlexSNError):
        raise found.with_traceback(None)
    return found


def remember(made: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Enter ``value`` as the newest; forget the oldest beyond ``most``."""
    made[key] = value
    if len(made) > most:
        made.pop(next(iter(made)), None)


def check_devices(names: Sequence[str], tensors: Sequence[Tensor], device: torch.device) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.device != device and (tensor.dim() or tensor.device.type != "cpu"):
            raise ValueError(f"inputs are on {device}, but {name}, which the core reads, is on {tensor.device}")


def _returning_states(core: Callable[..., Any], num_states: int, wanted: tuple[int, ...]) -> Callable[..., Any]:
    """A core some of whose new states are outputs too."""

    @functools.wraps(core, updated=())
    def with_states(*args: Tensor) -> tuple[Any, ...]:
        returned = core(*args)
        values = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
        split = len(values) - num_states
        return (*values[:split], *(values[split + j] for j in wanted), *values[split:])

    return with_states
