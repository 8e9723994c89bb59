"""What planning is asked for, and what it asks of a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from flexsn.ir.plan import BackwardPlan, ForwardPlan
from flexsn.ir.step import StepVjp
from flexsn.planning.rules import SequenceRules

__all__ = ["Gradients", "ScanPlans", "ScanRequest", "Target", "Vjp"]

Vjp = Callable[[tuple[bool, ...], tuple[int, ...], bool, bool], StepVjp]
"""The backward half of a step; see :meth:`flexsn.tracing.tracer.Tracer.vjp`."""


@dataclass(frozen=True)
class Gradients:
    """Which gradients come in and which are wanted.

    Attributes:
        outputs: per output the dtype of its gradient in memory, ``None`` where none comes in.
        finals: per state whether the final one has a gradient.
        inputs, states: which gradients of inputs and initial states are wanted.
        parameters: whether any gradient of a parameter is.
    """

    outputs: tuple[torch.dtype | None, ...]
    finals: tuple[bool, ...]
    inputs: tuple[bool, ...]
    states: tuple[bool, ...]
    parameters: bool


@dataclass(frozen=True)
class ScanRequest:
    """One kind of call.

    Attributes:
        input_dtypes, output_dtypes: in memory.
        training: whether a backward pass may follow.
        interval: steps between checkpoints; ``None`` lets the target choose.
        gradients: of the backward pass, when there is one.
        rules: what holds around the core's own steps; ``None`` for nothing.
    """

    input_dtypes: tuple[torch.dtype, ...]
    output_dtypes: tuple[torch.dtype, ...]
    training: bool
    interval: int | None = None
    gradients: Gradients | None = None
    rules: SequenceRules | None = None


@dataclass(frozen=True, eq=False)
class ScanPlans:
    """The plans of one kind of call.

    Attributes:
        forward: of inference or training.
        backward: ``None`` where none was asked for, or where gradients come in and lead nowhere.
    """

    forward: ForwardPlan
    backward: BackwardPlan | None


class Target(Protocol):
    """What planning asks of a backend."""

    @property
    def name(self) -> str:
        """The name the backend is chosen by; targets of one name share plans."""

    @property
    def saves_in_registers(self) -> bool:
        """Whether recomputed values wait in registers, so that a kernel needs one graph and the smallest set."""

    @property
    def largest_matrix(self) -> int:
        """Rows of the largest matrix that a kernel multiplies by; 0 where none multiplies."""

    def choose_interval(self, step_bytes: int) -> int:
        """Steps between checkpoints, for so many bytes of checkpointed states and inputs per lane and step."""
