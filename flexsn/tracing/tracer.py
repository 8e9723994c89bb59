"""Trace: a core becomes a step graph and, on demand, the vector-Jacobian products autograd would run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flexsn.captures.contract import argument_names, call_core
from flexsn.errors import SourceLine, UnsupportedOpError
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.passes import passed
from flexsn.ir.simplify import simplify
from flexsn.ir.step import Ref, StepGraph, StepVjp
from flexsn.tracing.captured import Captured
from flexsn.tracing.cotangents import (
    Cotangent,
    autograd_clock,
    cotangents,
    hooks_set_aside,
    mark,
    pullback,
    summands,
    unread_parameters,
)
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.partition import Partitioner
from flexsn.tracing.products import Products, is_kept
from flexsn.tracing.questions import Questions
from flexsn.tracing.recorder import Recorder, clean_context
from flexsn.tracing.runs import Run
from flexsn.tracing.sentinel import find_sentinel
from flexsn.tracing.tape import Tape, ValueRef, first_difference

__all__ = ["Tracer"]

_OF_GRAD_MODE = {"is_grad_enabled", "is_inference_mode_enabled"}


class Tracer:
    """Traces one core for one set of dtypes.

    Args:
        core: the one-step function.
        input_dtypes, state_dtypes: the dtypes the step computes in (never 16-bit floats).
        device: where the captured tensors live.
        on_gpu: whether the step is for a GPU, where a few operations of eager torch have other bits; if not given,
            whether ``device`` is one.
        step_shape: of the calls it is for, if the core asks for it.
        mentions: names in the core's code; a few of them ask what no mode sees.
        numbers: floats that are arguments of the kernel, wherever a run of the core has one of these values.

    Attributes:
        graph: the forward step.
        captured: the tensors the core reads from outside, after those of its numbers that are arguments.
        operands: for each operand leaf of the graphs, the host program's value it stands for.
        host: what torch computes around the kernel.

    Raises:
        AsksShape: the core asks for the shape of the step, and it was not given.
        UnsupportedOpError: the core mixes lanes, decides by data, uses an op without a row, or is no function of its
            arguments.
        CoreError: the core breaks its contract.
    """

    def __init__(
        self,
        core: Callable[..., Any],
        input_dtypes: Sequence[torch.dtype],
        state_dtypes: Sequence[torch.dtype],
        device: torch.device,
        on_gpu: bool | None = None,
        step_shape: torch.Size | None = None,
        mentions: Collection[str] = (),
        numbers: Sequence[float] = (),
    ) -> None:
        self.core = core
        self.input_dtypes, self.state_dtypes = tuple(input_dtypes), tuple(state_dtypes)
        self.device = device
        self.host = HostProgram()
        self.operands: list[Ref] = []
        self._called = argument_names(core, len(self.input_dtypes) + len(self.state_dtypes))
        self._on_gpu = device.type == "cuda" if on_gpu is None else on_gpu
        self._vjps: dict[tuple[tuple[bool, ...], tuple[int, ...], bool, bool], StepVjp] = {}
        self._whole: tuple[Sequence[Cotangent], Run] | None = None  # with the backward half, as first traced
        self._step_shape = step_shape
        self._sentinel = find_sentinel(core, (*self.input_dtypes, *self.state_dtypes), device, step_shape)
        self._builder = Builder(simplify)
        self._products = Products(self._builder)
        self._captured = Captured(self._builder, self.host, numbers, device)
        self.captured = self._captured.tensors
        recorded = self._forward = self._record(())
        passed("recorded forward", recorded.tape)
        self._check_same(self._record(()))
        self._mentions = mentions
        self.graph = self._step_graph(recorded)
        passed("step graph", self.graph)
        if not _OF_GRAD_MODE.isdisjoint(mentions):
            self._check_grad_mode()

    @property
    def param_shape(self) -> torch.Size:
        """The smallest step shape the captured tensors allow."""
        return self._sentinel.param_shape

    @property
    def captured_refs(self) -> list[Ref]:
        """The leaves of the host program that stand for the captured tensors."""
        return self._captured.refs

    def vjp(
        self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool = False, last: bool = False
    ) -> StepVjp:
        """The backward half of one step, every sum in the order in which autograd adds it up in the loop.

        Args:
            outputs: which of them have a cotangent.
            states: how many cotangents each new state has.
            apart: leave the gradient of a state that is an output too for the step before to add up.
            last: this is the last step, and those of its states are the final states'.
        """
        returned = [new in self._returned(outputs) for new in self.graph.new_states]
        # neither makes a difference unless a state with a cotangent is an output with one
        last = last and any(n and r for n, r in zip(states, returned, strict=True))
        key = (outputs, states, apart and any(returned), last)
        if key not in self._vjps:
            self._vjps[key] = self._trace_vjp(*key)
        return self._vjps[key]

    def trace_backward(self) -> None:
        """Trace the backward half with every gradient; none of another pattern reads more."""
        self.vjp((True,) * len(self.graph.outputs), (1,) * len(self.graph.states))

    def run(self, backward: bool) -> Run:
        """The run that was traced; with the backward half, where that was traced."""
        return self._whole[1] if backward and self._whole else self._forward

    def run_again(self, core: Callable[..., Any], backward: bool) -> Run:
        """A run of a core on the examples of :meth:`run`."""
        return self._record(self._whole[0] if backward and self._whole else (), core=core)

    def counterparts(self, run: Run, backward: bool) -> list[Tensor] | None:
        """What a run reads in the places of ``captured``; ``None`` where this trace does not serve it."""
        return self._captured.counterparts(run, self.run(backward))

    # ---- recording ------------------------------------------------------------------------------------------

    def _record(
        self,
        incoming: Sequence[Cotangent],
        marks: Sequence[Cotangent] = (),
        only: int | None = None,
        grad_mode: bool = True,
        core: Callable[..., Any] | None = None,
    ) -> Run:
        """Run the core, and its backward half if there are cotangents.

        Args:
            incoming: the cotangents.
            marks: cotangents of states before the step.
            only: the one argument that needs a gradient; all floating ones if not given.
            grad_mode: whether gradients are enabled.
            core: another one than this tracer's.
        """
        core = core or self.core

        def example(dtype: torch.dtype) -> Tensor:
            return torch.ones(self._sentinel.shape, dtype=dtype, device=self.device)

        with clean_context(), torch.set_grad_enabled(grad_mode):
            arguments = {f"input{i}": example(d) for i, d in enumerate(self.input_dtypes)}
            arguments |= {f"state{j}": example(d) for j, d in enumerate(self.state_dtypes)}
            for position, tensor in enumerate(arguments.values()):
                tensor.requires_grad_(tensor.is_floating_point() and only in (None, position))
            # no leaves: autograd would refuse to change one in place before the recorder can say which it is
            arguments = {name: tensor.clone() for name, tensor in arguments.items()}
            seeds = [example((*self.graph.outputs, *self.graph.new_states)[c.value].dtype) for c in incoming]
            marking = [example(self.state_dtypes[m.value]) for m in marks]
            named = {c.name: seed for c, seed in zip((*incoming, *marks), (*seeds, *marking), strict=True)}
            recorder = Recorder(arguments | named, self._sentinel.shape, is_kept, self._called)
            questions = Questions(recorder.is_shaped, self._sentinel.shape, self._step_shape)
            since = autograd_clock()
            with recorder:
                values = call_core(core, list(arguments.values()), len(self.state_dtypes), questions)
                if not incoming:
                    return Run(recorder.tape, [recorder.ref(v) for v in values], ())
                recorder.mark_backward()
                for parameter in unread_parameters(
                    values, [*arguments.values(), *recorder.tape.captured.values()], since
                ):
                    recorder.ref(parameter)  # now it counts as captured
                sources = [*arguments.values(), *recorder.tape.captured.values()]
                wanted = [s for s in sources if s.requires_grad]
                roots, grads = [list(arguments.values())[len(self.input_dtypes) + m.value] for m in marks], marking
                blocked: list[tuple[int, SourceLine | None]] = []
                nodes = *self.graph.outputs, *self.graph.new_states
                for cotangent, seed in zip(incoming, seeds, strict=True):
                    if values[cotangent.value].requires_grad:
                        roots.append(values[cotangent.value])
                        grads.append(seed)
                    else:
                        blocked.insert(0, (cotangent.value, nodes[cotangent.value].line))
                if len(roots) > len(marks):  # the gradient of a state may end where that of something else goes on
                    blocked = [(value, line) for value, line in blocked if value < len(self.graph.outputs)]
                with hooks_set_aside(wanted), questions:
                    found = iter(pullback(roots, grads, wanted))
                results = [next(found) if s.requires_grad else None for s in sources]
            refs = [None if r is None else recorder.ref(r) for r in results]
        return Run(recorder.tape, refs, tuple(blocked))

    def _check_same(self, again: Run) -> None:
        """Another run of the core does what the first one did."""
        differs, line = first_difference(self._forward.tape, again.tape)
        if differs:
            raise UnsupportedOpError(
                "the core does something else each time it runs",
                where=line,
                why="a kernel is made from one run: a random number, the time, an iterator's next would come once",
                hint="draw it outside and pass it as one more input",
            )

    def _check_grad_mode(self) -> None:
        """The core computes the same whether gradients are enabled or not."""
        again = self._step_graph(self._record((), grad_mode=False))
        if (again.outputs, again.new_states) != (self.graph.outputs, self.graph.new_states):
            raise _depends_on("whether gradients are enabled")

    def _check_alone(self, incoming: Sequence[Cotangent], gradients: Sequence[Node | None]) -> None:
        """Every argument's gradient is the same if no other one is asked for."""
        for position, gradient in enumerate(gradients):
            if gradient is None:
                continue
            recorded = self._record(incoming, only=position)
            ref = recorded.results[position]
            alone = None if ref is None else self._partition(recorded.tape, incoming).step_value(ref, "a gradient")
            if alone is not gradient:
                raise _depends_on("which gradients are asked for (needs_input_grad)")

    def _align_captured(self, tape: Tape, refs: list[ValueRef | None]) -> list[ValueRef | None]:
        """Order the gradients of captured tensors, which come last, as ``self.captured``."""
        split = len(self.input_dtypes) + len(self.state_dtypes)
        self._captured.read(tape)  # a tensor that only the backward half reads is captured now
        by_id = {id(t): r for t, r in zip(tape.captured.values(), refs[split:], strict=False)}
        return refs[:split] + [by_id.get(id(tensor)) for tensor in self.captured]

    # ---- sorting --------------------------------------------------------------------------------------------

    def _partition(self, tape: Tape, incoming: Sequence[Cotangent] = ()) -> Partitioner:
        """Give every recorded value its place."""
        grows = self._builder, self.host, self.operands, self._products
        partitioner = Partitioner(*grows, self._sentinel, self._on_gpu, self._captured.numbers)
        leaves = [(LeafKind.INPUT, i, 0) for i in range(len(self.input_dtypes))]
        leaves += [(LeafKind.STATE, j, 0) for j in range(len(self.state_dtypes))]
        leaves += [(c.kind, c.index, c.part) for c in incoming]
        for position, (kind, index, part) in enumerate(leaves):
            leaf = self._builder.leaf(kind, index, tape.tensors[position].dtype, part)
            partitioner.bind(ValueRef(position), leaf)
        for position, read in self._captured.read(tape).items():
            partitioner.bind(ValueRef(position), read)
        partitioner.run(tape)
        return partitioner

    def _step_graph(self, recorded: Run) -> StepGraph:
        partitioner, builder = self._partition(recorded.tape), self._builder
        returned = [ref for ref in recorded.results if ref is not None]  # all of them: only gradients may be absent
        nodes = [partitioner.step_value(ref, f"value {i} the core returns") for i, ref in enumerate(returned)]
        split = len(nodes) - len(self.state_dtypes)
        return StepGraph(
            builder=builder,
            inputs=tuple(builder.leaf(LeafKind.INPUT, i, d) for i, d in enumerate(self.input_dtypes)),
            states=tuple(builder.leaf(LeafKind.STATE, j, d) for j, d in enumerate(self.state_dtypes)),
            outputs=tuple(nodes[:split]),
            new_states=tuple(nodes[split:]),
            products=self._products.behind(nodes),
        )

    def _trace_vjp(self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        incoming = cotangents(outputs, states, last)
        if not incoming:  # a step that nothing comes after
            nothing = ((None,) * len(tensors) for tensors in (self.input_dtypes, self.captured))
            return StepVjp(next(nothing), ((),) * len(states), (), next(nothing), ())
        recorded = self._record(incoming)
        passed("recorded backward", recorded.tape)
        self._check_same(recorded)
        self._whole = self._whole or (incoming, recorded)
        partitioner = self._partition(recorded.tape, incoming)
        num_inputs, num_states = len(self.input_dtypes), len(self.state_dtypes)
        split = num_inputs + num_states
        results = self._align_captured(recorded.tape, recorded.results)
        step = [None if r is None else partitioner.step_value(r, "a gradient") for r in results[:split]]
        captured = [None if r is None else partitioner.host_value(r) for r in results[split:]]
        sums = step[num_inputs:]
        if "needs_input_grad" in self._mentions:
            self._check_alone(incoming, step)
        grad_states: list[tuple[Node, ...]] = [() if node is None else (node,) for node in sums]
        returned = self._returned(outputs) if apart else set()
        marks = [mark(j) for j, n in enumerate(self.graph.new_states) if n in returned and sums[j] is not None]
        if marks:
            again = self._record(incoming, marks)
            sorted_again = self._partition(again.tape, [*incoming, *marks])
            for m in marks:
                ref = again.results[num_inputs + m.value]
                assert ref is not None
                marked = sorted_again.step_value(ref, "a gradient")
                grad_states[m.value] = summands(self._builder, marked, sums[m.value])
        vjp = StepVjp(
            grad_inputs=tuple(step[:num_inputs]),
            grad_states=tuple(grad_states),
            reductions=tuple(partitioner.reductions),
            grad_captured=tuple(captured),
            blocked=recorded.blocked,
            outers=tuple(partitioner.outers),
        )
        vjp = replace(vjp, products=self._products.behind(vjp.results))
        passed("vjp", vjp)
        return vjp

    def _returned(self, outputs: Sequence[bool]) -> set[Node]:
        return {y for y, present in zip(self.graph.outputs, outputs, strict=True) if present}


def _depends_on(what: str) -> UnsupportedOpError:
    return UnsupportedOpError(
        f"the core computes something else depending on {what}",
        why="a kernel is made from one run of the core",
        hint="compute the same in both cases; what is not wanted costs nothing",
    )
