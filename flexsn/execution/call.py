"""What both directions of a scan know about the calls they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from flexsn.execution.arguments import is_memory, written_out
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import OutputDtype, resolve_output_dtypes
from flexsn.ir.layout import CallShape, TensorSpec
from flexsn.ir.plan import Holds, Plan, Slot
from flexsn.kernels.backend import Backend, Launch
from flexsn.planning import Gradients, ScanPlans, ScanRequest, SequenceRules, Way, plan_scan, way_of

if TYPE_CHECKING:
    from flexsn.tracing.tracer import Tracer

__all__ = ["CallSpec"]

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class CallSpec:
    """Calls of one traced core on one backend that agree in shapes, strides and dtypes.

    Attributes:
        tracer: the traced core.
        backend: generates and launches the kernels.
        options: of the scan.
        shape: shapes and memory order of the call.
        device: of all tensors.
        outputs: in which dtype each output is stored, and which one is visible.
        request: the call, as planning sees it.
    """

    tracer: Tracer
    backend: Backend
    options: ScanOptions
    shape: CallShape
    device: torch.device
    outputs: tuple[OutputDtype, ...]
    request: ScanRequest

    @staticmethod
    def of(
        tracer: Tracer,
        backend: Backend,
        inputs: Sequence[Tensor],
        options: ScanOptions,
        training: bool,
        rules: SequenceRules | None = None,
    ) -> CallSpec:
        """The spec of calls with such inputs.

        Args:
            tracer, backend: of the call.
            inputs: of the full step shape.
            options: of the scan; the time axis counted from the front.
            training: whether gradients will be wanted.
            rules: what happens around the core's own steps.
        """
        input_dtypes = tuple(x.dtype for x in inputs)
        computed = [n.dtype for n in tracer.graph.outputs]
        split = len(computed) - len(options.wanted_states)
        outputs: tuple[OutputDtype, ...] = ()
        if rules is None or rules.time_reduction is None:
            outputs = resolve_output_dtypes(
                computed[:split], input_dtypes[: len(tracer.input_dtypes)], options.output_dtype
            )
        outputs += tuple(OutputDtype(d, d) for d in computed[split:])  # states have their own dtype
        interval = None if options.checkpoint == "auto" else int(options.checkpoint)
        request = ScanRequest(input_dtypes, tuple(o.stored for o in outputs), training, interval, rules=rules)
        shape = CallShape.of(inputs[0], options.time_dim)
        spec = CallSpec(tracer, backend, options, shape, inputs[0].device, outputs, request)
        return replace(spec, shape=shape.of_rows()) if spec.way is not None and spec.way.fused else spec

    @cached_property
    def way(self) -> Way | None:
        """How its products are computed; ``None`` where there are none."""
        graph = self.tracer.graph
        if not graph.products:
            return None
        return way_of(graph, self.shape.step_shape[-1], self.backend, self.options.single_step)

    @cached_property
    def num_inputs(self) -> int:
        return len(self.request.input_dtypes)

    @cached_property
    def num_states(self) -> int:
        states, rules = len(self.tracer.graph.states), self.rules
        if rules is None:
            return states
        own_outputs = len(self.tracer.graph.outputs) - len(rules.wanted_states)
        return states + len(rules.learned) + len(rules.accumulated(own_outputs))

    @property
    def rules(self) -> SequenceRules | None:
        return self.request.rules

    def plans(self, gradients: Gradients | None = None) -> ScanPlans:
        """What the kernels do; a backward pass for gradients of that pattern included."""
        request = replace(self.request, gradients=gradients)
        return plan_scan(self.tracer.graph, self.tracer.vjp, request, self.backend)

    def split(self, values: Sequence[Value]) -> tuple[Sequence[Value], ...]:
        """``values`` as those of inputs, states, captured tensors, checkpoints.

        The captured tensors come after what a call by rules reads once per lane.
        """
        a, b, c = self._bounds
        return values[:a], values[a:b], values[b:c], values[c:]

    @cached_property
    def _bounds(self) -> tuple[int, int, int]:
        a, b = self.num_inputs, self.num_inputs + self.num_states
        return a, b, b + sum(self._num_once) + len(self.tracer.captured)

    @cached_property
    def _num_once(self) -> tuple[int, int]:
        rules = self.rules
        return (0, 0) if rules is None else (int(rules.lengths), len(self.tracer.graph.states) * rules.resets)

    def read_once(self, captured: Sequence[Value]) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        """Lengths, initial values and captured tensors, of what :meth:`split` gives as captured."""
        a, b = self._num_once
        return captured[:a], captured[a : a + b], captured[a + b :]

    def gradients(self, grads: Sequence[Tensor | None], needs: Sequence[bool]) -> Gradients:
        """Which gradients a backward pass of such a call has and wants.

        Args:
            grads: of outputs and final states.
            needs: whether those of inputs, states and captured tensors are wanted.
        """
        split = len(self.outputs)
        inputs, states, captured, _ = self.split(needs)
        return Gradients(
            outputs=tuple(None if g is None else g.dtype for g in grads[:split]),
            finals=tuple(g is not None for g in grads[split:]),
            inputs=tuple(inputs),
            states=tuple(states),
            parameters=any(self.read_once(captured)[2]),
        )

    def operands(self, captured: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """A function of captured tensors like these: what the kernels read of them."""
        program, device = self.tracer.host.program(self.tracer.operands, self.tracer.captured_refs), self.device
        if device.type == "cpu" and all(map(is_memory, program(*[t.detach() for t in captured]))):
            return program
        return lambda *captured: tuple([written_out(_brought(value, device)) for value in program(*captured)])

    def lane_index(self, slots: Sequence[Slot]) -> list[Tensor]:
        """The number of every lane, row by row, if the kernel reads it."""
        if all(slot.holds is not Holds.LANE_INDEX for slot in slots):
            return []
        shape = self.shape.step_shape
        return [torch.arange(torch.Size(shape).numel(), device=self.device).view(shape)]

    def dense(self, plan: Plan, slot: Slot) -> TensorSpec:
        """The tensor of a slot, as it is allocated."""
        every = plan.interval
        return self.shape.dense(slot, max(0, (self.shape.num_steps - 1) // every) if every else 0)

    def bind(self, plan: Plan, tensors: Sequence[TensorSpec]) -> Launch:
        """A function that runs the plan's kernel on tensors laid out like these.

        Raises:
            BackendError: the kernel cannot be built here.
        """
        if 0 in self.shape.step_shape:
            return _nothing
        return self.backend.bind(plan, self.shape.layout(plan.slots, tensors))


def _brought(value: Tensor, device: torch.device) -> Tensor:
    """The same value on the device. One without dimensions may be on the CPU: a fill takes it along, a copy waits."""
    if value.device == device or value.dim():
        return value.to(device)
    return torch.full((), value.item(), dtype=value.dtype, device=device)


def _nothing(tensors: Sequence[Any]) -> None:
    """There are no lanes."""
