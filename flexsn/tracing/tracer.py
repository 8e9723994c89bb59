"""Trace: a core becomes a step graph and, on demand, the vector-Jacobian products autograd would run.

The core is recorded at a *sentinel* step shape: the shape its parameters allow, every free dimension a different
prime. Shapes then tell what each value is: of the sentinel shape, it is a value of the step and belongs into
the kernel; of a parameter's shape, it is computed once per call around the kernel; anything else mixes lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flexsn.captures.contract import call_core
from flexsn.errors import FlexSNError, SourceLine
from flexsn.ir.graph import Builder, Node
from flexsn.ir.simplify import simplify
from flexsn.ir.step import Ref, StepGraph, StepVjp
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.lowering import is_known
from flexsn.tracing.partition import Partitioner
from flexsn.tracing.pullback import pullback
from flexsn.tracing.recorder import Recorder, Tape, ValueRef, clean_context

__all__ = ["Tracer"]

_MAX_DIMS = 6  # of a parameter; the sentinel shape has one more, and grows with the product of the primes
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79)


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
        self.outer = HostProgram()
        self.operands: list[Ref] = []
        self.captured: list[Tensor] = []
        self._captured_refs: dict[int, Ref] = {}
        self._vjps: dict[tuple[tuple[bool, ...], tuple[int, ...], bool, bool], StepVjp] = {}
        self._free = self._probe()
        partitioner, values, _ = self._record(None)
        returned = [ref for ref in values if ref is not None]  # all of them: only gradients may be absent
        nodes = [partitioner.step_value(ref, f"value {i} the core returns") for i, ref in enumerate(returned)]
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

    def vjp(self, outputs: Sequence[bool], states: Sequence[int], apart: bool = False, last: bool = False) -> StepVjp:
        """The backward half of one step, every sum in the order in which autograd adds it up in the loop.

        Args:
            outputs: which of them have a cotangent.
            states: how many cotangents each new state has. Those of state ``j`` are the leaves ``state_cotangent j``,
                ``j + S``, ``j + 2S``, ... of ``S`` states.
            apart: leave the gradient of a state that is an output too for the step before to add up.
            last: this is the last step, and those of its states are the final states'.
        """
        returned = self._returned(outputs)
        last = last and any(n and id(v) in returned for n, v in zip(states, self.graph.new_states, strict=True))
        key = (tuple(outputs), tuple(map(int, states)), apart, last)
        if key not in self._vjps:
            self._vjps[key] = self._trace_vjp(*key)
        return self._vjps[key]

    def _trace_vjp(self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        leaves = self._cotangents(outputs, states, last)
        partitioner, grads, blocked = self._record(leaves)
        num_inputs, num_states = len(self.input_dtypes), len(self.state_dtypes)
        split = num_inputs + num_states
        step = [None if ref is None else partitioner.step_value(ref, "a gradient") for ref in grads[:split]]
        captured = [None if ref is None else partitioner.outer_value(ref) for ref in grads[split:]]
        sums = step[num_inputs:]
        grad_states: list[tuple[Node, ...]] = [() if node is None else (node,) for node in sums]
        returned = self._returned(outputs) if apart else set()
        marked = [j for j, new in enumerate(self.graph.new_states) if id(new) in returned and sums[j] is not None]
        if marked:
            again, grads, _ = self._record(leaves, marked)
            for j in marked:
                ref = grads[num_inputs + j]
                assert ref is not None
                grad_states[j] = self._summands(again.step_value(ref, "a gradient"), sums[j])
        return StepVjp(
            tuple(step[:num_inputs]), tuple(grad_states), tuple(partitioner.reductions), tuple(captured), blocked
        )

    def _returned(self, outputs: Sequence[bool]) -> set[int]:
        return {id(y) for y, present in zip(self.graph.outputs, outputs, strict=True) if present}

    def _summands(self, marked: Node, total: Node | None) -> tuple[Node, ...]:
        """What autograd added up to ``total``, told from sums within a term by the mark that was there first."""
        found: list[Node] = []
        while marked.op == "add":
            marked, term = marked.args
            found.insert(0, term)
        again = found[0] if found else None
        for term in found[1:]:
            assert again is not None
            again = self.builder.op("add", again, term, dtype=term.dtype)
        assert total is not None
        return tuple(found) if marked.op == "mark" and again is total else (total,)

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
            with clean_context(), torch.no_grad(), recorder:
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
        self, leaves: Sequence[tuple[str, int, int]] | None, marked: Sequence[int] = ()
    ) -> tuple[Partitioner, list[ValueRef | None], tuple[tuple[int, SourceLine | None], ...]]:
        """Run the core, and its backward half if there are cotangents, and sort what was recorded.

        The gradients of ``marked`` states start from a ``mark`` leaf each, as if an output's came in first.
        """

        def example(dtype: torch.dtype) -> Tensor:
            return torch.ones(self._sentinel, dtype=dtype, device=self.device)

        with clean_context():
            arguments = {f"input{i}": example(d) for i, d in enumerate(self.input_dtypes)}
            arguments |= {f"state{j}": example(d) for j, d in enumerate(self.state_dtypes)}
            for tensor in arguments.values():
                tensor.requires_grad_(tensor.is_floating_point())
            blocked: list[tuple[int, SourceLine | None]] = []
            seeds = [example((*self.graph.outputs, *self.graph.new_states)[k].dtype) for _, _, k in leaves or ()]
            marks = [example(self.state_dtypes[j]) for j in marked]
            kinds = [(kind, index) for kind, index, _ in leaves or ()] + [("mark", j) for j in marked]
            placeholders = {f"{kind}{index}": seed for (kind, index), seed in zip(kinds, [*seeds, *marks], strict=True)}
            recorder = Recorder(arguments | placeholders, self._sentinel, is_known)
            with recorder:
                values = call_core(self.core, list(arguments.values()), len(self.state_dtypes))
                results: list[Tensor | None] = list(values)
                if leaves is not None:
                    recorder.mark_backward()
                    sources = list(arguments.values()) + list(recorder.tape.captured.values())
                    wanted = [s if s.requires_grad else None for s in sources]
                    roots = [arguments[f"state{j}"] for j in marked]
                    grads = marks
                    for (kind, index, k), seed in zip(leaves, seeds, strict=True):
                        if values[k].requires_grad:
                            roots.append(values[k])
                            grads.append(seed)
                        elif kind == "cotangent":
                            blocked.insert(0, (k, self.graph.outputs[index].line))
                    differentiable = [s for s in wanted if s is not None]
                    found = iter(pullback(roots, grads, differentiable))
                    results = [None if s is None else next(found) for s in wanted]
            refs = [None if r is None else recorder.ref(r) for r in results]
        tape = recorder.tape
        if leaves is not None:
            num_step = len(arguments)
            refs = refs[:num_step] + self._align_captured(tape, refs[num_step:])
        return self._sort(tape, len(arguments), kinds), refs, tuple(blocked)

    def _cotangents(self, outputs: tuple[bool, ...], states: tuple[int, ...], last: bool) -> list[tuple[str, int, int]]:
        """Leaf and index of every cotangent, and which returned value it belongs to, in the order autograd adds.

        It adds up what a value receives from the youngest use on: in the loop, first from the use of a final state,
        then from the outputs' stacks, the last one first, then from the next step.
        """
        of_outputs = [("cotangent", k, k) for k in reversed(range(len(outputs))) if outputs[k]]
        of_states = [
            ("state_cotangent", j + i * len(states), len(outputs) + j)
            for j, count in enumerate(states)
            for i in range(count)
        ]
        return of_states + of_outputs if last else of_outputs + of_states

    def _align_captured(self, tape: Tape, refs: list[ValueRef | None]) -> list[ValueRef | None]:
        """Order the gradients of captured tensors as ``self.captured``."""
        by_id = {id(t): r for t, r in zip(tape.captured.values(), refs, strict=False)}
        return [by_id.get(id(tensor)) for tensor in self.captured]

    def _sort(self, tape: Tape, num_arguments: int, cotangents: Sequence[tuple[str, int]]) -> Partitioner:
        partitioner = Partitioner(self.builder, self.outer, self.operands, self._sentinel, self._free)
        num_inputs = len(self.input_dtypes)
        kinds = [("input", i) for i in range(num_inputs)] + [("state", j) for j in range(num_arguments - num_inputs)]
        for index, (kind, position) in enumerate((*kinds, *cotangents)):
            partitioner.bind(ValueRef(index), self.builder.leaf(kind, position, tape.tensors[index].dtype))
        for index, tensor in tape.captured.items():
            if index in tape.literals and tensor.dim() == 0:
                partitioner.bind(ValueRef(index), self.builder.const(tensor.item(), tensor.dtype))
            else:
                partitioner.bind(ValueRef(index), self._capture(tensor))
        partitioner.run(tape)
        return partitioner

    def _capture(self, tensor: Tensor) -> Ref:
        if id(tensor) not in self._captured_refs:
            self._captured_refs[id(tensor)] = self.outer.leaf(("captured", len(self.captured)))
            self.captured.append(tensor)
        return self._captured_refs[id(tensor)]
