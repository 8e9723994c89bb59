"""Families: the traces of one core for calls that differ in constants alone, and which of them serves which values.

A trace serves the numbers it was made with. Where a third run of one form has other numbers again, a trace is made in
which those are arguments; from then on new values cost one run of the core on examples, and no kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor

from flexsn.tracing.runs import Run, told_apart
from flexsn.tracing.tracer import Tracer

__all__ = ["Family", "Reading"]

_ENOUGH = 3  # values, and a number is an argument
_MOST_FORMS, _MOST_TRACES = 8, 4
Entry = TypeVar("Entry")


class Reading(NamedTuple):
    """What a core was seen to do that a trace of another serves.

    Attributes:
        core: the core.
        run: its run on that trace's examples.
        captured: what it reads in the places of that trace's captured tensors.
    """

    core: Callable[..., Any]
    run: Run
    captured: list[Tensor]


@dataclass
class _Form(Generic[Entry]):
    """The traces whose runs have one form, and the last of these runs."""

    traces: list[tuple[Tracer, Entry]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


class Family(Generic[Entry]):
    """Traces that agree in all but constants, each with what was entered for it.

    Args:
        backward: whether the backward half belongs to a run.
    """

    def __init__(self, backward: bool) -> None:
        self._backward = backward
        self._forms: dict[str, _Form[Entry]] = {}
        self._latest: Tracer | None = None

    def serving(self, core: Callable[..., Any]) -> tuple[Entry, Reading] | None:
        """What was entered for a trace that serves this core too, if there is one."""
        if self._latest is None:
            return None
        run = self._latest.run_again(core, self._backward)
        form: _Form[Entry] = self._forms.get(run.form, _Form())
        for tracer, entry in reversed(form.traces):
            captured = tracer.counterparts(run, self._backward)
            if captured is not None:
                return entry, Reading(core, run, captured)
        return None

    def enter(self, tracer: Tracer, entry: Entry) -> tuple[float, ...]:
        """Enter a trace that was made because none served.

        Returns:
            The numbers of its run that had other values in the runs before: time to make them arguments.
        """
        self._latest, run = tracer, tracer.run(self._backward)
        form = self._forms.setdefault(run.form, _Form())
        if any(known is tracer for known, _ in form.traces):
            return ()
        form.traces = [*form.traces, (tracer, entry)][-_MOST_TRACES:]
        form.runs = [*form.runs, run][-_ENOUGH:]
        if len(self._forms) > _MOST_FORMS:
            self._forms.pop(next(iter(self._forms)))
        return told_apart(form.runs) or () if len(form.runs) == _ENOUGH else ()
