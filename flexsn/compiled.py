"""Compiled: one core on one backend for one kind of call, with its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from flexsn.errors import GradientError
from flexsn.layout import Layout, dense_strides, lane_order, make_layout, step_strides
from flexsn.loop import run_loop
from flexsn.plan import BackwardPlan, ForwardPlan, Role, Slot, live_states, plan_backward, plan_forward
from flexsn.trace import StepVjp, Tracer

__all__ = ["Compiled", "Runtime"]

_HALF = (torch.float16, torch.bfloat16)


class Runtime(Protocol):
    """What a backend module offers."""

    def bind(self, plan: ForwardPlan | BackwardPlan, layout: Layout) -> Callable[[Sequence[Tensor]], None]:
        """A function that runs the plan's kernel on tensors in the order of its slots."""

    def checkpoint(self, step_bytes: int) -> int:
        """How many steps to recompute at once."""


@dataclass(frozen=True)
class Geometry:
    """Shapes of one call.

    Attributes:
        num_steps: T, at least 1.
        step_shape: of one step.
        time_dim: where inputs and outputs have their time axis.
        order: dimensions of a *sequence*, outermost to innermost in memory.
    """

    num_steps: int
    step_shape: tuple[int, ...]
    time_dim: int
    order: tuple[int, ...]

    @property
    def lanes(self) -> tuple[int, ...]:
        """Dimensions of a step, outermost to innermost in memory."""
        k = self.time_dim
        return tuple(d - (d > k) for d in self.order if d != k)

    def sequence(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A fresh sequence in the memory order of the inputs."""
        shape = (*self.step_shape[: self.time_dim], self.num_steps, *self.step_shape[self.time_dim :])
        return torch.empty_strided(shape, dense_strides(shape, self.order), dtype=dtype, device=device)

    def step(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A fresh tensor of one step, in the same order."""
        strides = dense_strides(self.step_shape, self.lanes)
        return torch.empty_strided(self.step_shape, strides, dtype=dtype, device=device)

    def addresses(self, tensor: Tensor, role: Role) -> tuple[int, tuple[int, ...]]:
        """Time stride and step strides of a tensor in that role."""
        if role in (Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE):
            return tensor.stride(0), tensor.stride()[1:]
        if role.per_step:
            strides, k = tensor.stride(), self.time_dim
            return strides[k], (*strides[:k], *strides[k + 1 :])
        return 0, step_strides(tensor, self.step_shape)


class Compiled:
    """Kernels for calls that agree in dtypes, shapes, strides and options.

    Args:
        tracer: the traced core.
        runtime: the backend.
        inputs, states, captured: tensors of such a call; inputs and states have the full step shape.
        time_dim: the time axis of the inputs.
        checkpoint: steps between checkpoints, or ``"auto"``.
        training: whether gradients will be wanted.
    """

    def __init__(
        self,
        tracer: Tracer,
        runtime: Runtime,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        captured: Sequence[Tensor],
        time_dim: int,
        checkpoint: int | str,
        training: bool,
    ) -> None:
        self.tracer, self.runtime = tracer, runtime
        x = inputs[0]
        step_shape = (*x.shape[:time_dim], *x.shape[time_dim + 1 :])
        self.geometry = Geometry(x.shape[time_dim], step_shape, time_dim, lane_order(x.shape, x.stride()))
        self.num_inputs, self.num_states = len(inputs), len(states)
        self.device = x.device
        graph = tracer.graph
        self.input_dtypes = tuple(x.dtype for x in inputs)
        self.output_dtypes = tuple(output_dtype(n.dtype, self.input_dtypes) for n in graph.outputs)
        operands = self._operands(captured)
        self.operand_dtypes = tuple(p.dtype for p in operands)
        self.kept: list[int] = []
        self.checkpoint: int | None = None
        if training:
            every = tracer.vjp([True] * len(graph.outputs), [True] * self.num_states)
            self.kept = live_states(graph, [every])
            step_bytes = sum(graph.states[j].dtype.itemsize for j in self.kept)
            step_bytes += sum(d.itemsize for d in self.input_dtypes)
            self.checkpoint = runtime.checkpoint(step_bytes) if checkpoint == "auto" else int(checkpoint)
        self.plan = plan_forward(
            graph, self.input_dtypes, self.output_dtypes, self.operand_dtypes, self.checkpoint, self.kept
        )
        self._launch: Callable[[Sequence[Tensor]], None] | None = None
        self._backwards: dict[Any, Callable[..., list[Tensor | None]]] = {}

    # ---- forward --------------------------------------------------------------------------------------------

    def run(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor], training: bool
    ) -> tuple[Tensor, ...]:
        """``(*outputs, *final_states)``, differentiable if ``training``."""
        if training:
            result: tuple[Tensor, ...] = _Scan.apply(self, *inputs, *states, *captured)
            return result
        return self.forward(inputs, states, captured)[0]

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run the forward kernel: ``(*outputs, *final_states)`` and the checkpoints."""
        geometry, device, graph = self.geometry, self.device, self.tracer.graph
        outputs = [geometry.sequence(d, device) for d in self.output_dtypes]
        finals = [geometry.step(n.dtype, device) for n in graph.states]
        checkpoints = [self._checkpoints(j) for j in self.kept]
        by_kind = {
            "input": inputs,
            "state": states,
            "operand": self._operands(captured),
            "output": outputs,
            "final": finals,
            "checkpoint": dict(zip(self.kept, checkpoints, strict=True)),
        }
        tensors = [by_kind[s.kind][s.index] for s in self.plan.slots]  # type: ignore[index]
        if all(geometry.step_shape):
            if self._launch is None:
                self._launch = self._bind(self.plan, tensors)
            self._launch(tensors)
        return (*outputs, *finals), checkpoints

    def _checkpoints(self, state: int) -> Tensor:
        assert self.checkpoint is not None
        count = max(0, (self.geometry.num_steps - 1) // self.checkpoint)
        step = self.geometry.step(self.tracer.graph.states[state].dtype, torch.device("meta"))
        return torch.empty_strided(
            (count, *step.shape), (step.numel(), *step.stride()), dtype=step.dtype, device=self.device
        )

    def _operands(self, captured: Sequence[Tensor]) -> list[Tensor]:
        tracer = self.tracer
        leaves = {tracer.captured_ref(i): t.detach() for i, t in enumerate(captured)}
        return tracer.outer.run(tracer.operands, leaves)

    def _bind(self, plan: ForwardPlan | BackwardPlan, tensors: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], None]:
        geometry = self.geometry
        addresses = [geometry.addresses(t, s.role) for s, t in zip(plan.slots, tensors, strict=True)]
        layout = make_layout(geometry.num_steps, geometry.step_shape, geometry.lanes, addresses)
        return self.runtime.bind(plan, layout)

    # ---- backward -------------------------------------------------------------------------------------------

    def backward(
        self, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors.

        Args:
            saved: inputs, states, captured tensors, checkpoints.
            grads: of outputs and final states.
            needs: which gradients are wanted.
        """
        key = (tuple(None if g is None else (g.stride(), g.dtype) for g in grads), tuple(needs))
        run = self._backwards.get(key)
        if run is None:
            run = self._backwards[key] = _Backward(self, grads, needs)
        return run(saved, grads)

    def split(self, saved: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """``saved`` as inputs, states, captured tensors, checkpoints."""
        a = self.num_inputs
        b = a + self.num_states
        c = b + len(self.tracer.captured)
        return saved[:a], saved[a:b], saved[b:c], saved[c:]


class _Backward:
    """The backward kernel for one pattern of present and wanted gradients."""

    def __init__(self, compiled: Compiled, grads: Sequence[Tensor | None], needs: Sequence[bool]) -> None:
        self.compiled = compiled
        tracer, graph = compiled.tracer, compiled.tracer.graph
        num_outputs = len(graph.outputs)
        self.outputs = tuple(g is not None for g in grads[:num_outputs])
        finals = tuple(g is not None for g in grads[num_outputs:])
        self.vjps = _by_age(tracer, self.outputs, finals)
        inputs, states, captured, _ = compiled.split(needs)  # type: ignore[arg-type]
        self.needs_captured = [bool(n) for n in captured]
        self.no_path = not any(
            g is not None for v in self.vjps for g in (*v.grad_inputs, *v.grad_states, *v.grad_captured)
        )
        self.blocked = self.vjps[-1].blocked
        first_step = self.vjps[min(compiled.geometry.num_steps, len(self.vjps)) - 1]
        self.has_state_grad = [g is not None for g in first_step.grad_states]
        assert compiled.checkpoint is not None
        self.plan = plan_backward(
            graph,
            self.vjps,
            compiled.input_dtypes,
            [g.dtype if g is not None else d for g, d in zip(grads, compiled.output_dtypes, strict=False)],
            compiled.operand_dtypes,
            finals,
            [bool(n) for n in inputs],
            [bool(n) for n in states],
            compiled.checkpoint,
        )
        self.launch: Callable[[Sequence[Tensor]], None] | None = None

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        compiled = self.compiled
        geometry, device = compiled.geometry, compiled.device
        inputs, states, captured, checkpoints = compiled.split(saved)
        if self.no_path and self.blocked:
            index, line = self.blocked[0]
            raise GradientError(
                f"no gradient can flow back through output {index} of the core",
                where=line,
                why="it comes from an operation without a derivative, such as a comparison",
                hint="fire with a surrogate: flexsn.surrogate.ATan()(h - v_threshold)",
            )
        num_outputs = len(self.outputs)
        fresh: dict[Slot, Tensor] = {}
        by_kind: dict[str, Any] = {
            "input": inputs,
            "state": states,
            "operand": compiled._operands(captured),
            "cotangent": grads[:num_outputs],
            "grad_final": grads[num_outputs:],
            "checkpoint": dict(zip(compiled.kept, checkpoints, strict=True)),
        }
        tensors = []
        for slot in self.plan.slots:
            if slot.role.writes:
                make = geometry.sequence if slot.role is Role.STORE else geometry.step
                fresh[slot] = make(slot.dtype, device)
                tensors.append(fresh[slot])
            else:
                tensors.append(by_kind[slot.kind][slot.index])
        if all(geometry.step_shape):
            if self.launch is None:
                self.launch = compiled._bind(self.plan, tensors)
            self.launch(tensors)
        found = {(s.kind, s.index): t for s, t in fresh.items()}
        grad_inputs = [found.get(("grad_input", i)) for i in range(compiled.num_inputs)]
        grad_states = [
            found.get(("grad_state", j)) if self.has_state_grad[j] else None for j in range(compiled.num_states)
        ]
        return [*grad_inputs, *grad_states, *self._grad_captured(captured, found)]

    def _grad_captured(self, captured: Sequence[Tensor], found: dict[tuple[str, int], Tensor]) -> list[Tensor | None]:
        """Reduce the accumulators over lanes and run what follows of the parameter side."""
        tracer = self.compiled.tracer
        totals: list[Tensor | None] = [None] * len(captured)
        for first, vjp in self.plan.groups:
            leaves = {tracer.captured_ref(i): t.detach() for i, t in enumerate(captured)}
            for k, reduction in enumerate(vjp.reductions):
                value = found["accumulator", first + k]
                base = reduction.base[len(reduction.base) - value.dim() :]
                leaves[tracer.outer.leaf(("reduced", k))] = value.sum_to_size(base).reshape(reduction.shape)
            wanted = [(i, r) for i, r in enumerate(vjp.grad_captured) if r is not None and self.needs_captured[i]]
            values = tracer.outer.run([r for _, r in wanted], leaves)
            for (i, _), value in zip(wanted, values, strict=True):
                total = totals[i]
                totals[i] = value if total is None else total + value
        return totals


def _by_age(tracer: Tracer, outputs: tuple[bool, ...], finals: tuple[bool, ...]) -> list[StepVjp]:
    """The vjp of the last step, the one before, and so on until the pattern of state gradients repeats."""
    vjps: list[StepVjp] = []
    pattern = finals
    for _ in range(len(finals) + 2):
        vjps.append(tracer.vjp(outputs, pattern))
        following = tuple(g is not None for g in vjps[-1].grad_states)
        if following == pattern:
            return vjps
        pattern = following
    # the pattern goes round in circles: from here on, absent gradients are zeros
    ever = tuple(any(v.grad_states[j] is not None for v in vjps) or finals[j] for j in range(len(finals)))
    return [*vjps[:1], tracer.vjp(outputs, ever)] if finals == ever else [tracer.vjp(outputs, ever)]


def output_dtype(computed: torch.dtype, inputs: Sequence[torch.dtype]) -> torch.dtype:
    """16-bit floats in, 16-bit floats out: the dtype an output has in memory."""
    floats = [d for d in inputs if d.is_floating_point]
    if computed is not torch.float32 or not floats or not all(d in _HALF for d in floats):
        return computed
    joint = floats[0]
    for dtype in floats[1:]:
        joint = torch.promote_types(joint, dtype)
    return joint


class _Scan(torch.autograd.Function):
    """Autograd's view of a compiled scan."""

    @staticmethod
    def forward(ctx: Any, compiled: Compiled, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, states, captured, _ = compiled.split(tensors)
        results, checkpoints = compiled.forward(inputs, states, captured)
        ctx.compiled = compiled
        ctx.save_for_backward(*tensors, *checkpoints)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        compiled: Compiled = ctx.compiled
        needs = ctx.needs_input_grad[1:]
        if all(g is None for g in grads):
            return (None,) * len(ctx.needs_input_grad)
        if torch.is_grad_enabled():
            return (None, *_loop_gradients(compiled, ctx.saved_tensors, grads, needs))
        return (None, *compiled.backward(ctx.saved_tensors, grads, needs))


def _loop_gradients(
    compiled: Compiled, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, through the torch loop."""
    inputs, states, captured, _ = compiled.split(saved)
    k = compiled.geometry.time_dim
    seqs = [x.movedim(k, 0).to(d) for x, d in zip(inputs, compiled.tracer.input_dtypes, strict=True)]
    outputs, finals, _ = run_loop(compiled.tracer.core, seqs, states)
    outputs = tuple(y.to(d).movedim(0, k) for y, d in zip(outputs, compiled.output_dtypes, strict=True))
    pairs = [(r, g) for r, g in zip((*outputs, *finals), grads, strict=True) if g is not None and r.requires_grad]
    wanted = [t for t, need in zip((*inputs, *states, *captured), needs, strict=True) if need]
    found = iter(
        torch.autograd.grad(
            [r for r, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if need else None for need in needs]


