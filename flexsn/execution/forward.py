"""BoundScan: one traced core on one backend, for calls that agree in shapes, strides and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from flexsn.execution.backward import BoundBackward
from flexsn.execution.output_dtype import AskedDtype, OutputDtype, output_kinds
from flexsn.ir.layout import CallShape, Layout
from flexsn.planning.plans import BackwardPlan, ForwardPlan, live_states, plan_forward
from flexsn.tracing.tracer import Tracer

__all__ = ["BoundScan", "Runtime"]

Launch = Callable[[Sequence[Tensor]], None]


class Runtime(Protocol):
    """What a backend module offers."""

    def bind(self, plan: ForwardPlan | BackwardPlan, layout: Layout) -> Launch:
        """A function that runs the plan's kernel on tensors in the order of its slots."""

    def checkpoint(self, step_bytes: int) -> int:
        """How many steps to recompute at once, for so many bytes of kept states and inputs per lane and step."""


class BoundScan:
    """Kernels for one kind of call.

    Args:
        tracer: the traced core.
        runtime: the backend.
        inputs, states: tensors of such a call, of the full step shape.
        time_dim: the time axis of the inputs.
        checkpoint: steps between checkpoints, or ``"auto"``.
        training: whether gradients will be wanted.
        num_sequences: how many of the outputs, the last ones, are states, which keep the dtype they are computed in.
        asked_dtype: what the user wants the other outputs to be kept in.
    """

    def __init__(
        self,
        tracer: Tracer,
        runtime: Runtime,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        time_dim: int,
        checkpoint: int | str,
        training: bool,
        num_sequences: int = 0,
        asked_dtype: AskedDtype = None,
    ) -> None:
        graph = tracer.graph
        self.tracer, self.runtime = tracer, runtime
        self.geometry = CallShape.of(inputs[0], time_dim)
        self.device = inputs[0].device
        self.num_inputs, self.num_states = len(inputs), len(states)
        self.input_dtypes = tuple(x.dtype for x in inputs)
        computed = [n.dtype for n in graph.outputs]
        split = len(computed) - num_sequences
        kinds = output_kinds(computed[:split], self.input_dtypes, asked_dtype)
        self.output_kinds = (*kinds, *(OutputDtype(d, d) for d in computed[split:]))
        self.output_dtypes = tuple(kind.memory for kind in self.output_kinds)
        self._plain = all(kind.memory is kind.shown for kind in self.output_kinds)
        self.kept: tuple[int, ...] = ()
        self.checkpoint: int | None = None
        if training:
            every = tracer.vjp([True] * len(graph.outputs), [True] * self.num_states)
            self.kept = tuple(live_states(graph, [every]))
            step_bytes = sum(graph.states[j].dtype.itemsize for j in self.kept)
            step_bytes += sum(d.itemsize for d in self.input_dtypes)
            self.checkpoint = runtime.checkpoint(step_bytes) if checkpoint == "auto" else int(checkpoint)
        self._operands = self.operand_program()
        self.plan = plan_forward(graph, self.input_dtypes, self.output_dtypes, self.checkpoint, self.kept)
        saves = max(0, (self.geometry.num_steps - 1) // self.checkpoint) if self.checkpoint else 0
        self._outputs = [self.geometry.sequence(d) for d in self.output_dtypes]
        self._finals = [self.geometry.step(n.dtype) for n in graph.states]
        self._checkpoints = [self.geometry.steps(saves, graph.states[j].dtype) for j in self.kept]
        groups = ("input", "state", "operand", "output", "final", "checkpoint")
        position = {j: i for i, j in enumerate(self.kept)}
        self._order = [
            (groups.index(s.kind), position[s.index] if s.kind == "checkpoint" else s.index) for s in self.plan.slots
        ]
        self._launch: Launch | None = None
        self._backwards: dict[Any, BoundBackward] = {}

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run the forward kernel: ``(*outputs, *final_states)``, and the checkpoints."""
        tensors, outputs, finals, checkpoints = self._gather(inputs, states, captured)
        assert self._launch is not None
        self._launch(tensors)
        if not self._plain:
            outputs = [kind.show(y) for kind, y in zip(self.output_kinds, outputs, strict=True)]
        return (*outputs, *finals), checkpoints

    def prepare(self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]) -> BoundScan:
        """Build the forward kernel, so that a backend that cannot says so before anything has run.

        Raises:
            BackendError: the kernel cannot be built here.
        """
        with torch.no_grad():
            self._launch = self.bind(self.plan, self._gather(inputs, states, captured)[0])
        return self

    def _gather(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """The tensors of the forward kernel; and of these the fresh ones: outputs, final states, checkpoints."""
        device = self.device
        outputs = [fresh.make(device) for fresh in self._outputs]
        finals = [fresh.make(device) for fresh in self._finals]
        checkpoints = [fresh.make(device) for fresh in self._checkpoints]
        groups = (inputs, states, self._operands(*captured), outputs, finals, checkpoints)
        return [groups[group][index] for group, index in self._order], outputs, finals, checkpoints

    def operand_program(self) -> Callable[..., tuple[Tensor, ...]]:
        """A function of the captured tensors: what the kernels read of them."""
        program, device = self.tracer.outer.program(self.tracer.operands, self.tracer.captured_refs), self.device
        if device.type == "cpu":
            return program
        return lambda *captured: tuple([value.to(device) for value in program(*captured)])  # 0-d ones may be on the CPU

    def bind(self, plan: ForwardPlan | BackwardPlan, tensors: Sequence[Tensor]) -> Launch:
        """A function that runs the plan's kernel on tensors laid out like these."""
        if 0 in self.geometry.step_shape:
            return _nothing
        return self.runtime.bind(plan, self.geometry.layout(plan.slots, tensors))

    def backward(
        self, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors.

        Args:
            saved: inputs, states, captured tensors, checkpoints.
            grads: of outputs and final states.
            needs: which gradients are wanted.
        """
        key = (tuple([None if g is None else (g.stride(), g.dtype) for g in grads]), tuple(needs))
        run = self._backwards.get(key)
        if run is None:
            run = self._backwards[key] = BoundBackward(self, grads, needs)
        return run(saved, grads)

    def split(self, values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]]:
        """``values`` as those of inputs, states, captured tensors, checkpoints."""
        a = self.num_inputs
        b = a + self.num_states
        c = b + len(self.tracer.captured)
        return values[:a], values[a:b], values[b:c], values[c:]


def _nothing(tensors: Sequence[Tensor]) -> None:
    """There are no lanes."""
