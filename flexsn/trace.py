"""Trace: a core becomes a step graph and, on demand, the vector-Jacobian products autograd would run.

The core is recorded at a *sentinel* step shape: the shape its parameters allow, every free dimension a different
prime. Shapes then tell what each value is: of the sentinel shape, it is a value of the step and belongs into
the kernel; of a parameter's shape, it is computed once per call around the kernel; anything else mixes lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexsn.errors import FlexSNError, SourceLine
from flexsn.graph import Builder, Node
from flexsn.loop import call_core
from flexsn.lower import is_known
from flexsn.outer import Outer, Ref
from flexsn.record import Recorder, Tape, ValueRef
from flexsn.regions import Reduction, Regions
from flexsn.simplify import simplify

__all__ = ["StepGraph", "StepVjp", "Tracer"]

_MAX_DIMS = 6  # of a parameter; the sentinel shape has one more, and grows with the product of the primes
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79)


@dataclass(frozen=True)
class StepGraph:
    """One step forward: what it returns, as nodes over inputs, states and operands."""

    inputs: tuple[Node, ...]
    states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    new_states: tuple[Node, ...]


@dataclass(frozen=True)
class StepVjp:
    """One step backward, for one pattern of cotangents that are present.

    Attributes:
        grad_inputs, grad_states: gradient nodes, ``None`` where nothing flows.
        reductions: what is summed over time and lanes.
        grad_captured: per captured tensor, the value of the outer program that is its gradient.
        blocked: outputs whose cotangent leads nowhere, with the line that made them.
    """

    grad_inputs: tuple[Node | None, ...]
    grad_states: tuple[Node | None, ...]
    reductions: tuple[Reduction, ...]
    grad_captured: tuple[Ref | None, ...]
    blocked: tuple[tuple[int, SourceLine | None], ...]


class Tracer:
    """Traces one core for one set of dtypes.

    Args:
        core: the one-step function.
        input_dtypes, state_dtypes: the dtypes the step computes in (never 16-bit floats).
        device: where the captured tensors live.

    Attributes:
        graph: the forward step.
        captured: the tensors the core reads from outside.
        operands: for each operand leaf of the graphs, the outer value it stands for.
        outer: the parameter-side program.

    Raises:
        UnsupportedOpError: the core mixes lanes, decides by data, or uses an op without a row.
        CoreError: the core breaks its contract.
    """

    def __init__(
        self,
        core: Callable[..., Any],
        input_dtypes: Sequence[torch.dtype],
        state_dtypes: Sequence[torch.dtype],
        device: torch.device,
    ) -> None:
        self.core = core
        self.input_dtypes, self.state_dtypes = tuple(input_dtypes), tuple(state_dtypes)
        self.device = device
        self.builder = Builder(simplify)
        self.outer = Outer()
        self.operands: list[Ref] = []
        self.captured: list[Tensor] = []
        self._captured_refs: dict[int, Ref] = {}
        self._vjps: dict[tuple[tuple[bool, ...], tuple[bool, ...]], StepVjp] = {}
        self._free = self._probe()
        regions, values, _ = self._record(None, None)
        returned = [ref for ref in values if ref is not None]  # all of them: only gradients may be absent
        nodes = [regions.step_value(ref, f"value {i} the core returns") for i, ref in enumerate(returned)]
        split = len(nodes) - len(self.state_dtypes)
        self.graph = StepGraph(
            tuple(self.builder.leaf("input", i, d) for i, d in enumerate(self.input_dtypes)),
            tuple(self.builder.leaf("state", j, d) for j, d in enumerate(self.state_dtypes)),
            tuple(nodes[:split]),
            tuple(nodes[split:]),
        )

    @property
    def param_shape(self) -> torch.Size:
        """The smallest step shape the captured tensors allow."""
        return self._param_shape

    def vjp(self, outputs: Sequence[bool], states: Sequence[bool]) -> StepVjp:
        """The backward half for cotangents present on ``outputs`` and on new ``states``."""
        key = (tuple(outputs), tuple(states))
        if key not in self._vjps:
            self._vjps[key] = self._trace_vjp(*key)
        return self._vjps[key]

    def _trace_vjp(self, outputs: tuple[bool, ...], states: tuple[bool, ...]) -> StepVjp:
        regions, grads, blocked = self._record(outputs, states)
        num_inputs, num_states = len(self.input_dtypes), len(self.state_dtypes)
        split = num_inputs + num_states
        step = [None if ref is None else regions.step_value(ref, "a gradient") for ref in grads[:split]]
        captured = [None if ref is None else regions.outer_value(ref) for ref in grads[split:]]
        return StepVjp(
            tuple(step[:num_inputs]), tuple(step[num_inputs:]), tuple(regions.reductions), tuple(captured), blocked
        )

    @property
    def captured_refs(self) -> list[Ref]:
        """The leaves of the outer program that stand for the captured tensors."""
        return [self.outer.leaf(("captured", i)) for i in range(len(self.captured))]

    # ---- recording ------------------------------------------------------------------------------------------

    def _probe(self) -> tuple[bool, ...]:
        """Find the smallest step shape; returns which of its dimensions are free (not a parameter's)."""
        shape = torch.Size(())
        self._sizes: set[int] = set()
        for _ in range(8):
            grown = self._probe_at(shape)
            while grown and grown[0] == 1:
                grown = grown[1:]
            if grown == shape or len(grown) > _MAX_DIMS:  # a core that adds a dimension each time mixes lanes
                break
            shape = grown
        self._param_shape = shape
        base = (1,) * max(0, 2 - len(shape)) + tuple(shape)
        primes = [p for p in _PRIMES if p not in self._sizes]  # so that a prime in a shape means the step
        sentinel = [primes.pop(0)]
        free = [True]
        for size in base:
            free.append(size == 1)
            sentinel.append(primes.pop(0) if size == 1 else size)
        self._sentinel = torch.Size(sentinel)
        return tuple(free)

    def _probe_at(self, shape: torch.Size) -> torch.Size:
        """The shape the core returns for arguments of ``shape``; if it fails, what its captured tensors ask for."""
        dtypes = (*self.input_dtypes, *self.state_dtypes)
        examples = {str(i): torch.ones(shape, dtype=d, device=self.device) for i, d in enumerate(dtypes)}
        recorder = Recorder(examples, shape, is_known)
        try:
            with _clean_context(), torch.no_grad(), recorder:
                returned = self.core(*examples.values())
            values = returned if isinstance(returned, (tuple, list)) else (returned,)
            shapes = [v.shape for v in values if isinstance(v, Tensor)]
            shapes += [recorder.tape.tensors[i].shape for i in recorder.tape.live]
        except FlexSNError:
            raise
        except Exception:  # it needs larger arguments, or is wrong: recording at the sentinel shape says how
            shapes = [shape, *(t.shape for t in recorder.tape.captured.values())]
        self._sizes.update(size for tensor in recorder.tape.tensors for size in tensor.shape)
        try:
            return torch.Size(np.broadcast_shapes(*shapes))  # torch.broadcast_shapes imports sympy: half a second
        except ValueError:
            return shape

    def _record(
        self, output_cotangents: tuple[bool, ...] | None, state_cotangents: tuple[bool, ...] | None
    ) -> tuple[Regions, list[ValueRef | None], tuple[tuple[int, SourceLine | None], ...]]:
        """Run the core, and its backward half if cotangents are given, and sort what was recorded."""

        def example(dtype: torch.dtype) -> Tensor:
            return torch.ones(self._sentinel, dtype=dtype, device=self.device)

        with _clean_context():
            arguments = {f"input{i}": example(d) for i, d in enumerate(self.input_dtypes)}
            arguments |= {f"state{j}": example(d) for j, d in enumerate(self.state_dtypes)}
            for tensor in arguments.values():
                tensor.requires_grad_(tensor.is_floating_point())
            cotangents: dict[str, Tensor] = {}
            blocked: list[tuple[int, SourceLine | None]] = []
            if output_cotangents is not None and state_cotangents is not None:
                new_dtypes = [n.dtype for n in (*self.graph.outputs, *self.graph.new_states)]
                present = (*output_cotangents, *state_cotangents)
                cotangents = {
                    f"cotangent{k}": example(d) for k, (d, p) in enumerate(zip(new_dtypes, present, strict=True)) if p
                }
            recorder = Recorder(arguments | cotangents, self._sentinel, is_known)
            with recorder:
                values = call_core(self.core, list(arguments.values()), len(self.state_dtypes))
                results: list[Tensor | None] = list(values)
                if output_cotangents is not None:
                    recorder.mark_backward()
                    sources = list(arguments.values()) + list(recorder.tape.captured.values())
                    wanted = [s if s.requires_grad else None for s in sources]
                    roots, grads = [], []
                    # autograd adds up what a value receives from the youngest use on: in the loop, first from the
                    # outputs' stacks, the last one first, then from the next step
                    num_outputs = len(output_cotangents)
                    for k in (*reversed(range(num_outputs)), *range(num_outputs, len(values))):
                        value = values[k]
                        if f"cotangent{k}" not in cotangents:
                            continue
                        if value.requires_grad:
                            roots.append(value)
                            grads.append(cotangents[f"cotangent{k}"])
                        elif k < num_outputs:
                            blocked.insert(0, (k, self.graph.outputs[k].line))
                    differentiable = [s for s in wanted if s is not None]
                    found = iter(_vjp(roots, grads, differentiable))
                    results = [None if s is None else next(found) for s in wanted]
            refs = [None if r is None else recorder.ref(r) for r in results]
        tape = recorder.tape
        if output_cotangents is not None:
            num_step = len(arguments)
            refs = refs[:num_step] + self._align_captured(tape, refs[num_step:])
        return self._sort(tape, list(arguments), list(cotangents)), refs, tuple(blocked)

    def _align_captured(self, tape: Tape, refs: list[ValueRef | None]) -> list[ValueRef | None]:
        """Order the gradients of captured tensors as ``self.captured``."""
        by_id = {id(t): r for t, r in zip(tape.captured.values(), refs, strict=False)}
        return [by_id.get(id(tensor)) for tensor in self.captured]

    def _sort(self, tape: Tape, arguments: list[str], cotangents: list[str]) -> Regions:
        regions = Regions(self.builder, self.outer, self.operands, self._sentinel, self._free)
        num_inputs, num_outputs = len(self.input_dtypes), 0
        for index in range(len(arguments)):
            kind, position = ("input", index) if index < num_inputs else ("state", index - num_inputs)
            regions.bind(ValueRef(index), self.builder.leaf(kind, position, tape.tensors[index].dtype))
        if cotangents:
            num_outputs = len(self.graph.outputs)
        for offset, name in enumerate(cotangents):
            index, k = len(arguments) + offset, int(name.removeprefix("cotangent"))
            kind, position = ("cotangent", k) if k < num_outputs else ("state_cotangent", k - num_outputs)
            regions.bind(ValueRef(index), self.builder.leaf(kind, position, tape.tensors[index].dtype))
        for index, tensor in tape.captured.items():
            if index in tape.literals and tensor.dim() == 0:
                regions.bind(ValueRef(index), self.builder.const(tensor.item(), tensor.dtype))
            else:
                regions.bind(ValueRef(index), self._capture(tensor))
        regions.run(tape)
        return regions

    def _capture(self, tensor: Tensor) -> Ref:
        if id(tensor) not in self._captured_refs:
            self._captured_refs[id(tensor)] = self.outer.leaf(("captured", len(self.captured)))
            self.captured.append(tensor)
        return self._captured_refs[id(tensor)]


def _vjp(
    values: Sequence[Tensor], cotangents: Sequence[Tensor], sources: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What ``torch.autograd.grad(values, sources, cotangents)`` gives, which would import sympy to compare shapes."""
    if not values or not sources:
        return (None,) * len(sources)
    root: Tensor = _Seed.apply(tuple(cotangents), *values)  # type: ignore[no-untyped-call]
    return torch.autograd.grad(root, sources, allow_unused=True)


class _Seed(torch.autograd.Function):
    """A number whose gradient in each of ``values`` is the cotangent given for it."""

    @staticmethod
    def forward(ctx: Any, cotangents: tuple[Tensor, ...], *values: Tensor) -> Tensor:
        ctx.cotangents = cotangents
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return (None, *ctx.cotangents)


class _clean_context:
    """Gradients on, autocast and inference mode off: the caller's context must not leak into the trace."""

    def __enter__(self) -> None:
        self._contexts: list[AbstractContextManager[Any]] = [torch.inference_mode(False), torch.enable_grad()]
        self._contexts += [torch.autocast(kind, enabled=False) for kind in _autocast_devices()]
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self._contexts):
            context.__exit__(*error)


def _autocast_devices() -> list[str]:
    return [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
