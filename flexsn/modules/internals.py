"""Internals: all that a neuron keeps beside its core and its parameters, behind one name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flexsn.captures.binding import ParameterBinding
from flexsn.execution.dispatch import ScanDispatcher
from flexsn.execution.options import ScanOptions
from flexsn.modules.monitor import Monitor

__all__ = ["Internals", "Shapes"]

Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class Internals:
    """What a neuron is told once, how its calls run, and what lasts from call to call.

    Attributes:
        num_inputs: how many arguments of the core are inputs.
        state_names: the core's own names for its states.
        example_dtypes: of the arguments, where examples were given.
        requires_grad: which arguments have gradients, where that was said.
        num_outputs: how many outputs the core has, as soon as that is known.
        options: of multi-step calls.
        step_mode, store_state_seqs, monitor: as the neuron's own of these names, and its ``record``.
        call_options: of the next call, made of the four above.
        states: after the last step, ``None`` before the first.
        input_shapes: step shapes of the inputs that led to the states, where these came of a call.
        in_transform: whether the states came of a call under vmap, grad or jvp.
        in_backward: the backward pass during which the states were made; -1 for none.
        starts: where states start at the next call, of those that were set to a number.
        state_seqs: the states after every step of the last call, if asked for.
        rate: the mean of the first output of the last call, if asked for.
        bound_names: ``registered name -> name of the source`` of the parameters found outside the neuron.
        dispatcher, binding: of the core, made when first needed.
    """

    num_inputs: int
    state_names: tuple[str, ...]
    example_dtypes: tuple[torch.dtype, ...] | None
    requires_grad: tuple[bool, ...] | None
    num_outputs: int | None
    options: ScanOptions = field(default_factory=ScanOptions)
    step_mode: str = "m"
    store_state_seqs: bool = False
    monitor: Monitor | None = None
    call_options: ScanOptions = field(default_factory=ScanOptions)
    states: tuple[Tensor, ...] | None = None
    input_shapes: Shapes | None = None
    in_transform: bool = False
    in_backward: int = -1
    starts: dict[str, float] = field(default_factory=dict)
    state_seqs: tuple[Tensor, ...] | None = None
    rate: Tensor | None = None
    bound_names: dict[str, str] = field(default_factory=dict)
    dispatcher: ScanDispatcher | None = None
    binding: ParameterBinding | None = None

    def change(self, **changes: Any) -> None:
        """Set what decides how calls run."""
        for name, value in changes.items():
            setattr(self, name, value)
        multi_step = self.step_mode == "m"
        wanted: tuple[int, ...] = ()
        if self.store_state_seqs:
            wanted = tuple(range(len(self.state_names)))
        elif self.monitor is not None and multi_step:
            wanted = self.monitor.states
        time_dim = self.options.time_dim if multi_step else 0
        self.call_options = replace(self.options, time_dim=time_dim, wanted_states=wanted, single_step=not multi_step)

    def set_option(self, **changes: Any) -> None:
        """Change options of the scan; they are checked."""
        self.change(options=replace(self.options, **changes))

    def hold(self, states: tuple[Tensor, ...] | None, input_shapes: Shapes | None = None) -> None:
        """Start the next call from these states."""
        self.states, self.input_shapes = states, input_shapes
        if states is not None:
            self.in_transform = torch._C._are_functorch_transforms_active()
            self.in_backward = -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()
        if self.starts:
            self.starts = {}

    def detach(self) -> None:
        """Cut the graph behind everything that is held."""
        if self.states is not None:
            self.states = _detached(self.states)
        self.state_seqs = _detached(self.state_seqs)
        self.rate = None if self.rate is None else self.rate.detach()
        if self.monitor is not None:
            self.monitor = self.monitor.without_graph()

    def without_kernels(self) -> Internals:
        """The same for another neuron, which reads its own tensors."""
        return replace(
            self, bound_names=dict(self.bound_names), starts=dict(self.starts), dispatcher=None, binding=None
        )

    def without_graph(self) -> Internals:
        """The same for copies and pickles: no kernels, and tensors without their graph."""
        copied = self.without_kernels()
        copied.detach()
        return copied


def _detached(tensors: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
    return None if tensors is None else tuple(t.detach() for t in tensors)
